# SPDX-License-Identifier: MIT
"""Several keys in one decision: the user, all users, a look, and a limit on trial."""
import asyncio
import sys

from aiosteady import Part, Throttler, consume_all, peek_all, connect


async def main(url: str) -> None:
    async with connect(url, timeout=10) as store:
        user = Throttler(store, limits=["2/minute", "50/hour"], prefix="user:")
        everyone = Throttler(store, max_capacity=100, drop_recharge=60.0, prefix="all:")
        trial = Throttler(store, limits="1/minute", prefix="trial:")
        failures = Throttler(store, limits="5/minute", prefix="failures:")
        for _ in range(3):
            result = await consume_all([
                (user, "anna"),
                (everyone, "all", 2),
                Part(failures, "anna", kind="look"),
                Part(trial, b"anna", 1, "shadow"),
            ])
            enforced = [part.success for part in result.parts if part.part < 3]
            print(result.success, result.part, result.name, enforced, result.parts[-1].success)
        looks = [Part(user, name) for name in ("anna", "bert")]
        print((await peek_all(looks)).success, (await peek_all([(user, "bert", (2, 1))], max_wait=1.5)).granted)
        print((await consume_all([(everyone, "all", 5, "charge")])).parts[0].level)


asyncio.run(main(sys.argv[1]))
