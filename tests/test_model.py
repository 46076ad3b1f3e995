# SPDX-License-Identifier: MIT
"""A third implementation of the algorithm, in exact rational numbers, written without reading the C or Lua code. The
`vectors` program compares it with both."""
import json
import os
import random
import subprocess
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BUILD", ROOT / "build"))
DAY = 1_764_000_000_000_000  # in 2025, us


class Model:
    """A bucket by the rules: drops, the exact time up to which leaks are counted, the end of a block."""

    def __init__(self):
        self.level, self.since, self.until, self.gone_at = 0, Fraction(0), 0, None

    def at(self, now, limit):
        """The bucket now: (level, since, until). It stores nothing."""
        if self.gone_at is not None and now >= self.gone_at:
            self.__init__()
        level, since, until = self.level, self.since, self.until
        # The remainder is stored in 1/drops us. If the limit changed and cannot hold it, it is 0.
        if floor(since) > now:
            until = max(0, until - (floor(since) - now)) if until else 0
            since = Fraction(now)
        leaked = max(0, floor((now - since) / self.interval(limit)))
        if leaked >= level:
            level, since = 0, Fraction(now)
        else:
            level, since = level - leaked, since + leaked * self.interval(limit)
        return level, since, until if until > now else 0

    @staticmethod
    def interval(limit):
        return Fraction(limit["recharge"], limit["drops"])

    def wait(self, drops, since, now, limit):
        return ceil(since + drops * self.interval(limit) - now)

    def answer(self, success, level, since, until, now, limit, amount):
        blocked_for = max(0, until - now)
        retry = 0
        if not success and amount > limit["capacity"]:
            retry = -1
        elif not success:
            over = level + amount - limit["capacity"]
            retry = max(blocked_for, self.wait(over, since, now, limit) if over > 0 and amount > 0 else 0)
        return {"success": success, "level": level, "until_next_drop": self.wait(1, since, now, limit),
                "blocked_for": blocked_for, "retry_after": retry}

    def peek(self, now, limit):
        level, since, until = self.at(now, limit)
        success = not until and level < limit["capacity"]
        return self.answer(success, level, since, until, now, limit, 1)

    def consume(self, now, limit, amount):
        behind = floor(self.since) > now and not (self.gone_at is not None and now >= self.gone_at)
        level, since, until = self.at(now, limit)
        success = amount < 0 or (not until and (amount == 0 or level + amount <= limit["capacity"]))
        blocks = not success and not until and limit["block"] and amount <= limit["capacity"]
        if success and amount:
            level = max(0, level + amount)
            since = Fraction(now) if level == 0 else since
        if blocks:
            until = now + limit["block"]
        if amount and (success or blocks or behind):
            self.level, self.since, self.until = level, since, until
            self.gone_at = max(now + self.wait(level, since, now, limit) if level else now, until)
        return self.answer(success, level, since, until, now, limit, amount)

    def stored(self, now, limit):
        level, since, until = self.at(now, limit)
        if level == 0 and not until:
            return None
        rest = (self.since - floor(self.since)) * limit["drops"]
        assert rest.denominator == 1
        return [self.level, floor(self.since), int(rest), self.until]


def random_limit(rng):
    capacity = rng.choice([1, 2, 10, rng.randint(1, 50), rng.randint(1, 2**31 - 1)])
    recharge = rng.choice([1, 1000, 500_000, 1_000_000, rng.randint(1, 10**7)])
    return {"capacity": capacity, "recharge": min(recharge, (2**53 - 1) // capacity),
            "drops": rng.choice([1, 1, 3, 7, 100, rng.randint(1, 10**6)]),
            "block": rng.choice([0, 0, 1, 1_000_000, rng.randint(1, 10**8)])}


def random_sequence(rng, number):
    """Steps with one value of drops, because a remainder depends on it, and with changing capacity and recharge."""
    model, now, limit, steps = Model(), DAY + rng.randint(0, 10**12), random_limit(rng), []
    for _ in range(rng.randint(1, 40)):
        now += rng.choice([0, 1, rng.randint(0, 3 * limit["recharge"] // limit["drops"] + 1), limit["recharge"],
                           -rng.randint(0, 10**7), rng.randint(0, 10**9)])
        if model.gone_at is not None and model.gone_at <= now < model.gone_at + 2000:
            now += 2000  # Redis expires keys by the millisecond; until then a clock or limit may bring drops back
        if rng.random() < 0.05:
            limit = {**random_limit(rng), "drops": limit["drops"]}
        step = {"op": rng.choice(["peek", "consume", "consume", "consume"]), "now": now, **limit}
        if step["op"] == "peek":
            step["expect"] = model.peek(now, limit)
        else:
            most = min(2**31 - 1, limit["capacity"] + 1)
            step["amount"] = rng.choice([1, 1, 0, most, -1, -most, rng.randint(1, most), rng.randint(-most, most)])
            step["expect"] = model.consume(now, limit, step["amount"])
        step["stored"] = model.stored(now, limit)
        if model.level * limit["recharge"] >= 2**53:
            break
        steps.append(step)
    return {"sequence": number, "steps": steps}


def test_exact_rationals_agree_with_c_and_lua(tmp_path):
    rng, file = random.Random(7), tmp_path / "model.jsonl"
    with file.open("w") as out:
        for number in range(1500):
            sequence = random_sequence(rng, number)
            if sequence["steps"]:
                out.write(json.dumps(sequence) + "\n")
    run = subprocess.run([BUILD / "vectors", file], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert int(run.stdout.split()[0]) > 20_000, run.stdout


def test_the_published_vectors_agree_with_c_and_lua():
    run = subprocess.run([BUILD / "vectors", ROOT / "tests/vectors/bucket.jsonl"], capture_output=True, text=True,
                         check=False)
    assert (run.returncode, run.stdout) == (0, "6771 steps agree: bucket.c and the Lua scripts\n")


def test_a_wrong_vector_is_found(tmp_path):
    lines = (ROOT / "tests/vectors/bucket.jsonl").read_text().splitlines()[:3]
    wrong = json.loads(lines[2])
    wrong["steps"][4]["expect"]["until_next_drop"] += 1
    file = tmp_path / "wrong.jsonl"
    file.write_text("\n".join([*lines[:2], json.dumps(wrong)]) + "\n")
    run = subprocess.run([BUILD / "vectors", file], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "until_next_drop is" in run.stdout and "wrong.jsonl:3: step 4" in run.stdout
