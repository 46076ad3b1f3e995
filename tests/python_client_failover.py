# SPDX-License-Identifier: MIT
"""Decides over a caller's client while its primary fails: `python_client_failover.py CLIENT sentinel PORT PID`, the port of a
sentinel of the service "s", or `CLIENT cluster URL PID KEY`, PID the process that holds the key; the process is killed.
It prints how the decisions ended."""
import asyncio
import os
import signal
import sys
import time
from collections import Counter

from aiosteady import Throttler, Unavailable, Unknown

FAMILY, HOW, WHERE, PID, *KEY = sys.argv[1:]
BURST = 20


def client():
    name = FAMILY.capitalize()
    if HOW == "cluster":
        module = __import__(f"{FAMILY}.asyncio.cluster", fromlist=["cluster"])
        return getattr(module, f"{name}Cluster").from_url(WHERE, socket_timeout=1)
    module = __import__(f"{FAMILY}.asyncio.sentinel", fromlist=["sentinel"])
    return module.Sentinel([("127.0.0.1", int(WHERE))], socket_timeout=1).master_for("s", socket_timeout=1)


async def burst(t, key, ends):
    results = await asyncio.gather(*(t.consume(key) for _ in range(BURST)), return_exceptions=True)
    ends.update(type(result).__name__ for result in results)
    assert all(isinstance(result, (Unavailable, Unknown)) or result.success for result in results), results
    return [result.level for result in results if not isinstance(result, Exception)]


async def main():
    other, ends = client(), Counter()
    t, key = Throttler(other, 100000, 3600), KEY[0] if KEY else "k"
    assert sorted(await burst(t, key, ends)) == list(range(1, BURST + 1))
    await asyncio.sleep(0.5)  # until the replica has the key
    os.kill(int(PID), signal.SIGKILL)
    began, in_a_row = time.monotonic(), 0
    while in_a_row < 5:
        assert time.monotonic() - began < 40, ends
        in_a_row = in_a_row + 1 if len(levels := await burst(t, key, ends)) == BURST else 0
        await asyncio.sleep(0.05)
    assert BURST * 6 <= max(levels) <= sum(ends.values()), (levels, ends)
    assert ends["Unavailable"] + ends["Unknown"] > 0, ends
    await (other.aclose() if hasattr(other, "aclose") else other.close())
    print(dict(ends))


asyncio.run(main())
