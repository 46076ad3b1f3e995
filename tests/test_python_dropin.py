# SPDX-License-Identifier: MIT
"""The Python package in place of aiosteady 22.1.0: both run the same program on the same server."""
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiosteady_package
import pytest

PROGRAM = Path(__file__).parent / "python_dropin.py"
PARTS = ["fills_up", "blocks", "leaks", "drains", "results"]
OURS = ["aioredis", "redis", "url"]
STEP_S = 0.4  # the most by which a step may be late on a busy machine


@pytest.fixture(scope="module")
def run(aiosteady, from_pypi, shared_redis):
    """run(client, prefix, parts) returns the printed lines in the order of the parts. The client "theirs" is aiosteady 22.1.0."""
    theirs = from_pypi(f"aiosteady=={aiosteady_package.VERSION}", "aioredis==1.3.1")
    paths = {"theirs": [theirs], "aioredis": [aiosteady, from_pypi("aioredis==1.3.1")],
             "redis": [aiosteady, from_pypi("redis>=6")], "url": [aiosteady]}

    def run(who, prefix, *parts):
        client = "aioredis" if who == "theirs" else who
        done = subprocess.run([sys.executable, PROGRAM, client, shared_redis.url, prefix, *parts],
                              env={"PYTHONPATH": ":".join(map(str, paths[who]))}, capture_output=True, text=True,
                              timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return sorted(done.stdout.splitlines(), key=lambda line: parts.index(line.split()[0]))

    return run


@pytest.fixture(scope="module")
def traces(run):
    with ThreadPoolExecutor(4) as pool:
        whos = ["theirs", *OURS]
        return dict(zip(whos, pool.map(lambda who: run(who, f"{who}:", *PARTS), whos)))


def assert_same(theirs, ours, slack_s):
    """The texts are equal, and the numbers are equal except for the time between the runs."""
    number = re.compile(r"\d+\.\d+(?:e-\d+)?")
    assert [number.sub("#", line) for line in ours] == [number.sub("#", line) for line in theirs]
    for a, b in zip(theirs, ours):
        for x, y in zip(number.findall(a), number.findall(b)):
            assert abs(float(x) - float(y)) < slack_s, f"{a}\n{b}"


@pytest.mark.parametrize("who", OURS)
@pytest.mark.parametrize("part", PARTS)
def test_a_program_written_for_22_1_prints_the_same(traces, who, part):
    theirs, ours = ([line for line in traces[name] if line.startswith(part)] for name in ("theirs", who))
    assert theirs
    assert_same(theirs, ours, STEP_S)


@pytest.mark.parametrize("who", OURS)
def test_buckets_carry_over_both_ways(run, who):
    times = {}

    def timed(name, prefix, part):
        begin = time.monotonic()
        lines = run(name, f"{prefix}{who}", part)
        times[prefix, part] = (begin, time.monotonic())
        return lines

    def leaked_for(prefix):
        """The least and the most time between the steps of the two parts."""
        (first, second), (third, last) = times[prefix, "comes"], times[prefix, "comes_after"]
        return third - second, last - first

    def most_apart(a, b):
        return max(leaked_for(a)[1] - leaked_for(b)[0], leaked_for(b)[1] - leaked_for(a)[0])

    timed("theirs", "a", "comes")
    timed(who, "b", "comes")
    timed("theirs", "c", "comes")
    expected = timed("theirs", "c", "comes_after")
    assert len(expected) == 6
    from_theirs, from_ours = timed(who, "a", "comes_after"), timed("theirs", "b", "comes_after")
    assert_same(expected, from_theirs, STEP_S + most_apart("c", "a"))
    assert_same(expected, from_ours, STEP_S + most_apart("c", "b"))
