# SPDX-License-Identifier: MIT
"""A fleet on the same keys and server, half on aiosteady 22.1.0, half on Steady: the two Lua files of the published
aiosteady package, and the `steady` command."""
import json
import random
import subprocess
import time

import aiosteady_package
import pytest
from resp import ReplyError, Resp


@pytest.fixture(scope="session")
def aiosteady_files():
    """(consume.lua, peek.lua)"""
    try:
        return aiosteady_package.lua_files()
    except aiosteady_package.Unavailable as why:
        pytest.skip(f"aiosteady {aiosteady_package.VERSION} cannot be had here: {why}")


class Theirs:
    """Calls the scripts of aiosteady like its Python code."""

    def __init__(self, redis, files, capacity, recharge, block=0):
        self.redis, self.limit, self.block = redis, (capacity, recharge), block
        self.consume_sha, self.peek_sha = (redis("SCRIPT", "LOAD", file).decode() for file in files)

    def consume(self, key, amount=1):
        reply = self.redis("EVALSHA", self.consume_sha, 1, key, *self.limit, self.block, amount)
        assert not isinstance(reply, ReplyError), reply
        return {"success": bool(reply[0]), "blocked_for": float(reply[1]), "level": reply[2]}

    def peek(self, key):
        blocked_for, level, until_next_drop = self.redis("EVALSHA", self.peek_sha, 1, key, *self.limit)
        return {"blocked_for": float(blocked_for), "level": level, "until_next_drop": float(until_next_drop)}


class Ours:
    def __init__(self, steady, port, capacity, recharge, block=0):
        self.command, self.port = steady, port
        self.limit = ["--capacity", str(capacity), "--recharge", f"{recharge}s"]
        self.limit += ["--block", f"{block}s"] if block else []

    def run(self, verb, key, *more):
        run = subprocess.run([self.command, verb, key, *self.limit, *more, "--json", "--timeout", "5s", "--store",
                              f"redis://127.0.0.1:{self.port}"], capture_output=True, text=True, check=False)
        assert run.returncode in (0, 1), run.stderr
        return json.loads(run.stdout)

    def consume(self, key, amount=1):
        return self.run("consume", key, "--amount", str(amount))

    def peek(self, key):
        return self.run("peek", key)


@pytest.fixture
def redis(redis_server):
    client = Resp(redis_server.port)
    yield client
    client.close()


def test_no_drop_is_lost_or_invented(steady, redis_server, redis, aiosteady_files):
    """Nothing leaks within an hour, so the level is the sum of both halves."""
    theirs, ours = Theirs(redis, aiosteady_files, 10, 3600), Ours(steady, redis_server.port, 10, 3600)
    rng, level = random.Random(1), {"a": 0, "b": 0, "c": 0}
    for _ in range(300):
        side, key = rng.choice([theirs, ours]), rng.choice("abc")
        amount = rng.choice([1, 1, 2, 3, 7, -1, -2, -20])
        result = side.consume(f"fleet:{key}", amount)
        fits = level[key] + amount <= 10
        assert result["success"] == fits
        if fits:
            level[key] = max(0, level[key] + amount)
            assert result["level"] == level[key]
        assert theirs.peek(f"fleet:{key}")["level"] == level[key]
        assert ours.peek(f"fleet:{key}")["level"] == level[key]


def test_drops_leak_at_the_same_moments_for_both(steady, redis_server, redis, aiosteady_files):
    """Drops leak at the same moments for both halves, whichever half wrote last."""
    theirs, ours = Theirs(redis, aiosteady_files, 100, 2), Ours(steady, redis_server.port, 100, 2)
    ours.consume("phase", 10)
    for side in (theirs, ours, theirs, ours):
        side.consume("phase", 1)
        before = ours.peek("phase")["until_next_drop"]
        seen = theirs.peek("phase")["until_next_drop"]
        after = ours.peek("phase")["until_next_drop"]
        if before > after:  # no drop leaked in between
            assert before + 1e-6 >= seen >= after - 1e-6
        time.sleep(0.6)


def test_stored_text_is_read_by_both(steady, redis_server, redis, aiosteady_files):
    theirs, ours = Theirs(redis, aiosteady_files, 10, 5), Ours(steady, redis_server.port, 10, 5)
    ours.consume("text", 3)
    level, last, blocked = redis("GET", "text").split()
    assert (level, blocked) == (b"3", b"0") and len(last.split(b".")[1]) == 6
    theirs.consume("text", 1)
    assert redis("GET", "text") == b"4 " + last + b" 0.000000"
    assert ours.consume("text")["level"] == 5
    assert redis("GET", "text") == b"5 " + last + b" 0"


@pytest.mark.parametrize("who_blocks", ["theirs", "ours"])
def test_a_block_holds_for_both(steady, redis_server, redis, aiosteady_files, who_blocks):
    sides = {"theirs": Theirs(redis, aiosteady_files, 3, 3600, 2), "ours": Ours(steady, redis_server.port, 3, 3600, 2)}
    for _ in range(4):
        blocking = sides[who_blocks].consume("block")
    assert not blocking["success"] and blocking["blocked_for"] == 2
    for side in sides.values():
        result = side.consume("block")
        assert not result["success"] and 1 < result["blocked_for"] <= 2
        assert 1 < side.peek("block")["blocked_for"] <= 2
        assert side.peek("block")["level"] == 3
    # Steady drains a blocked bucket. Both halves see the rest after the block.
    assert sides["ours"].consume("block", -2)["level"] == 1
    time.sleep(2.1)
    assert sides["theirs"].peek("block") | {"until_next_drop": 0} == {"blocked_for": 0.0, "level": 1, "until_next_drop": 0}
    assert sides["theirs"].consume("block")["level"] == 2
    assert sides["ours"].consume("block")["level"] == 3
