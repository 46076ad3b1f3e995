# SPDX-License-Identifier: MIT
"""Limits from a configuration, and amounts for each of them."""
import asyncio
import sys
from collections.abc import Mapping

from aiosteady import Rate, Throttler, ThrottleResult, connect

CONFIGURATION: Mapping[str, str] = {"burst": "10/second", "daily": "1000 per day"}


def report(result: ThrottleResult) -> str:
    if result.success:
        return ", ".join(f"{name}: {part.level}" for name, part in result.limits.items())
    wait: float = result.retry_after if result.retry_after is not None else float("inf")
    return f"denied by {result.name}" + (", for ever" if wait == float("inf") else "")


async def main(url: str) -> None:
    async with connect(url, timeout=10) as store:
        named = Throttler(store, limits=CONFIGURATION, prefix="named:", max_ahead=60)
        numbers = Throttler(store, limits=[Rate(5, 60.0), Rate(9, 3600, drops=9)], prefix="numbers:", clamp=True)
        mixed = Throttler(store, limits={"text": "5/minute", "fields": {"max_capacity": 9, "drop_recharge": 60}}, prefix="m:")
        for throttler in (named, numbers, mixed):
            first: Rate = next(iter(throttler.limits.values()))
            print(list(throttler.limits), first.max_capacity, first.drops)
            print(report(await throttler.consume("user:42")))
        print(report(await named.consume(b"user:42", {"burst": 1, "daily": 5})))
        print(report(await named.consume("user:42", (2, 5))))
        print(report(await named.consume("user:42", 11)))
        print((await numbers.consume("user:43", 5, at_least=1)).granted)


asyncio.run(main(sys.argv[1]))
