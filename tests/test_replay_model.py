# SPDX-License-Identifier: MIT
"""`steady replay` against the model of a bucket in exact numbers, which shares no code with it: verdicts and waits, needed
capacities, the grid, and the choices of --suggest."""
import json
from collections import defaultdict
from datetime import datetime, timezone
from fractions import Fraction
from math import ceil

import pytest
from replay_rig import report, verdicts, write_log
from serve_rig import needs_daemon
from test_model import Model

pytestmark = needs_daemon

TRAFFIC = ("--lines", 2500, "--clients", 60, "--herd", 10, "--format", "traefik")
MINUTE = 60_000_000  # us


def us_of(text):
    whole = datetime.fromisoformat(text.replace("Z", "+00:00")) - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return whole.days * 86_400_000_000 + whole.seconds * 1_000_000 + whole.microseconds


def key_of(address):
    return address.rsplit("::", 1)[0] + "::/64" if ":" in address else address


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("model") / "access.json", *TRAFFIC)


@pytest.fixture(scope="module")
def requests(log):
    """(us, key) of each request, in the order of time."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [(us_of(row["StartUTC"]), key_of(row["ClientHost"])) for row in rows]


def of_keys(requests):
    keys = defaultdict(list)
    for time, key in requests:
        keys[key].append(time)
    return keys


def denied_by(limit, times):
    """How many requests of one key the model denies."""
    bucket = Model()
    return sum(not bucket.consume(time, limit, 1)["success"] for time in times)


def needed_by(limit, times):
    """The smallest capacity that denies nothing, by trying."""
    low, high = 1, len(times)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if denied_by({**limit, "capacity": middle}, times) == 0 else (middle + 1, high)
    return low


def needed_of(limit, times):
    """The same by a formula: of all requests from i to j, as many as the time between does not leak."""
    drops, recharge = limit["drops"], limit["recharge"]
    content = max((j - i + 1) * recharge - drops * (times[j] - times[i]) for j in range(len(times)) for i in range(j + 1))
    return -(-content // recharge)


LIMITS = {"20/min": {"capacity": 20, "recharge": MINUTE, "drops": 20, "block": 0},
          "7/11s burst 3": {"capacity": 3, "recharge": 11_000_000, "drops": 7, "block": 0},
          "6/min, burst: 12, block: 90s": {"capacity": 12, "recharge": MINUTE, "drops": 6, "block": 90_000_000}}


def options_of(folder, text):
    if "block" not in text:
        return ("--limit", text)
    (folder / "rules.yaml").write_text(f"limits:\n- {{ name: default, rate: {text} }}\n")
    return ("--config", folder / "rules.yaml")


@pytest.mark.parametrize("text", LIMITS)
def test_each_verdict_and_each_wait_is_that_of_the_model(tmp_path, log, requests, text):
    limit = LIMITS[text]
    buckets, denied, waits, expected = defaultdict(Model), defaultdict(list), [], []
    for time, key in requests:
        blocked = buckets[key].until > time
        answer = buckets[key].consume(time, limit, 1)
        expected.append((time, key, "allowed" if answer["success"] else "blocked" if blocked else "denied"))
        if not answer["success"]:
            denied[key].append(time)
            waits.append(answer["retry_after"])
    found, whole = verdicts(tmp_path, log, *options_of(tmp_path, text))
    assert [(int(v.time.replace(".", "")), v.key, v.verdict) for v in found] == expected
    one = whole["limits"][0]
    assert (one["requests"], one["denied"], one["keys_denied"]) == (2500, len(waits), len(denied)) and len(waits) > 100
    assert one["blocked"] == sum(verdict == "blocked" for _, _, verdict in expected)
    assert one["keys"] == len(of_keys(requests))
    assert one["wait_us"]["max"] == max(waits)
    assert sum(one["timeline"]["requests"]) == 2500 and sum(one["timeline"]["denied"]) == len(waits)
    for top in one["top_denied"]:
        assert (top["denied"], us_of(top["first_denied"]), us_of(top["last_denied"])) == \
            (len(denied[top["key"]]), denied[top["key"]][0], denied[top["key"]][-1])


def quantile(values, share):
    """The smallest value that this share of the values does not pass."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


@pytest.mark.parametrize("text", ["20/min", "7/11s burst 3"])
def test_needed_capacities_are_those_that_the_model_needs(log, requests, text):
    limit, keys = LIMITS[text], of_keys(requests)
    needed = {key: needed_of(limit, times) for key, times in keys.items() if len(times) <= 400}
    one = report(log, "--limit", text)["limits"][0]
    assert len(one["top_denied"]) >= 10
    for top in one["top_denied"]:
        by_trying = needed_by(limit, keys[top["key"]])
        assert top["needed"] == by_trying == needed.setdefault(top["key"], by_trying)
    assert needed.keys() == keys.keys()
    assert one["at_this_rate"]["needed"] == {
        "p50": quantile(needed.values(), Fraction(1, 2)), "p90": quantile(needed.values(), Fraction(9, 10)),
        "p99": quantile(needed.values(), Fraction(99, 100)), "p99_9": quantile(needed.values(), Fraction(999, 1000)),
        "max": max(needed.values()), "suggest": None}
    assert sum(one["at_this_rate"]["bins"]) == len(keys)


def limit_of(rate, capacity):
    return {"capacity": capacity, "recharge": rate["period_us"], "drops": rate["drops"], "block": 0}


def test_each_cell_of_the_grid_is_what_the_model_denies(log, requests):
    grid = report(log, "--limit", "20/min")["limits"][0]["grid"]
    keys = of_keys(requests)
    cells = 0
    for i in range(0, len(grid["rates"]), 4):
        for k in range(i // 4, len(grid["bursts"]), 4):
            counts = [denied_by(limit_of(grid["rates"][i], grid["bursts"][k]), times) for times in keys.values()]
            assert (grid["requests_denied"][i][k], grid["keys_denied"][i][k]) == (sum(counts), sum(n > 0 for n in counts))
            cells += sum(counts) > 0
    assert cells >= 3


@pytest.mark.parametrize("share", ["90%", "99%"])
def test_each_choice_denies_what_the_model_denies(log, requests, share):
    one = report(log, "--key", "ip", "--suggest", share)["limits"][0]
    keys = of_keys(requests)
    allowed_share = Fraction(share.rstrip("%")) / 100
    assert len(one["choices"]) >= 3 and sum(choice["suggested"] for choice in one["choices"]) == 1
    for choice in one["choices"][::4] + [choice for choice in one["choices"] if choice["suggested"]]:
        limit = limit_of(choice["limit"], choice["limit"]["burst"])
        counts = [denied_by(limit, times) for times in keys.values()]
        assert (choice["requests_denied"], choice["keys_denied"]) == (sum(counts), sum(n > 0 for n in counts))
        assert choice["keys_denied"] <= (1 - allowed_share) * len(keys)
