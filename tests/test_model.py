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

import pytest

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


def vectors(file):
    run = subprocess.run([BUILD / "vectors", file], capture_output=True, text=True, check=False)
    return run.returncode, run.stdout


def test_exact_rationals_agree_with_c_and_lua(tmp_path):
    rng, file = random.Random(7), tmp_path / "model.jsonl"
    with file.open("w") as out:
        for number in range(1500):
            sequence = random_sequence(rng, number)
            if sequence["steps"]:
                out.write(json.dumps(sequence) + "\n")
    code, out = vectors(file)
    assert code == 0, out
    assert int(out.split()[0]) > 20_000, out


@pytest.mark.parametrize("name, steps", [("bucket", 6771), ("limits", 7137)])
def test_the_published_vectors_agree_with_c_and_lua(name, steps):
    assert vectors(ROOT / f"tests/vectors/{name}.jsonl") == (0, f"{steps} steps agree: the C code and the Lua scripts\n")


def wrong_vectors(name):
    """(a sequence with one wrong value, the number of its step, what is reported)"""
    sequences = [json.loads(line) for line in (ROOT / f"tests/vectors/{name}.jsonl").read_text().splitlines()]
    for op, path, said in [("consume", ["expect", "until_next_drop"], "until_next_drop is"),
                           ("consume", ["stored", 1], "stored ["),
                           ("consume", ["expect", "wait"], "wait is"),
                           ("consume", ["expect", "granted", 0], "granted is"),
                           ("peek", ["expect", "part"], "part is"),
                           ("peek", ["expect", "each", 0, 4], "retry_after of part 0 is"),
                           ("consume", ["stored", 0, 0], "stored ["),
                           ("settle", ["expect", "given_back"], "given_back is"),
                           ("settle", ["expect", "charged"], "charged is")]:
        for sequence in sequences:
            wrong = json.loads(json.dumps(sequence))
            number, place = changed(wrong["steps"], op, path)
            if place is not None:
                yield wrong, number, said
                break


def changed(steps, op, path):
    """Adds 1 to the value at the path, in the first step that has one."""
    for number, step in enumerate(steps):
        place = step if step["op"] == op else None
        try:
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] += 1
        except (TypeError, KeyError, IndexError):
            continue
        return number, place
    return None, None


@pytest.mark.parametrize("name, wrongs", [("bucket", 2), ("limits", 7)])
def test_a_wrong_vector_is_found(tmp_path, name, wrongs):
    found = 0
    for wrong, number, said in wrong_vectors(name):
        file = tmp_path / "wrong.jsonl"
        file.write_text(json.dumps(wrong) + "\n")
        code, out = vectors(file)
        assert code == 1 and said in out and f"wrong.jsonl:1: step {number} " in out, (said, out)
        found += 1
    assert found == wrongs
