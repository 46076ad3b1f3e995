# SPDX-License-Identifier: MIT
"""The Python package aiosteady, built into a folder of its own and asked from outside, under asyncio's debug mode."""
import subprocess
import sys

PROGRAM = """
import asyncio, sys
from aiosteady import Cancelled, Closed, NotABucket, Unavailable, connect
from aiosteady.leakybucket import Throttler, ThrottleResult

async def main(url, closed_url):
    for where in (url, "memory:"):
        async with Throttler(where, 10, 5) as t:
            await t.reset("k")
            for i in range(10):
                assert (await t.peek("k")).level == i
                r = await asyncio.create_task(t.consume("k"))
                assert r.success and r.level == i + 1 and 4 < r.until_next_drop <= 5 and r.blocked_for is None
            full = await t.consume("k", amount=2)
            assert not full.success and full.level == 10 and 5 < full.retry_after <= 10
            assert (await t.consume("k", 11)).retry_after is None
            assert await t.reset("k") == ThrottleResult(True, 0, 5, None)
            for bad, error in ((1.5, TypeError), (2**70, ValueError)):
                try: t.consume("k", bad)
                except error as e: assert "amount" in str(e)
                else: raise AssertionError(bad)
            for bad, error in ((chr(0xd800), ValueError), (b"", ValueError), (5, TypeError)):
                try: t.consume(bad)
                except error as e: assert "key" in str(e)
                else: raise AssertionError(bad)
        try: await t.consume("k")
        except Closed: pass
        else: raise AssertionError("closed")
    for name, limit in (("drop_recharge", (10, float("nan"))), ("drop_recharge", (10, -1)), ("max_capacity", (0, 1)),
                        ("block_duration", (10, 1, -1))):
        try: Throttler("memory:", *limit)
        except ValueError as e: assert name in str(e), e
        else: raise AssertionError(limit)
    try: await Throttler(closed_url, 10, 5).consume("k")
    except Unavailable: pass
    else: raise AssertionError("unavailable")
    r = await Throttler(closed_url, 10, 5, on_error="allow").consume("k")
    assert r.success and r.source == "policy" and r.error == "unavailable"
    fast = Throttler(url, 1, 0.05)
    await fast.reset("w")
    await asyncio.gather(*(fast.wait("w") for _ in range(5)))
    try: await fast.wait("w", timeout=0.001)
    except TimeoutError: pass
    else: raise AssertionError("in time")
    big = Throttler(url, 1000000, 3600)
    await asyncio.gather(*(big.reset(f"c{i}") for i in range(200)))
    tasks = [asyncio.create_task(big.consume(f"c{i}", i + 1)) for i in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]: task.cancel()
    for i, r in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
        assert isinstance(r, asyncio.CancelledError) if i % 2 == 0 else r.level == i + 1

asyncio.run(main(*sys.argv[1:]), debug=True)
asyncio.run(main(*sys.argv[1:]), debug=True)
print("fine")
"""


def test_the_package_decides_waits_cancels_and_refuses(aiosteady, redis_server, closed_port):
    run = subprocess.run([sys.executable, "-X", "dev", "-c", PROGRAM, redis_server.url, f"redis://127.0.0.1:{closed_port}"],
                         env={"PYTHONPATH": str(aiosteady), "PYTHONMALLOC": "debug"}, capture_output=True, text=True,
                         timeout=60, check=False)
    assert run.returncode == 0 and run.stdout == "fine\n", run.stderr
