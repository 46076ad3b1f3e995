# SPDX-License-Identifier: MIT
"""Over a client of redis-py, whose pool other code uses, too."""
import asyncio
import sys
from typing import Union
from urllib.parse import urlsplit

from redis.asyncio import Redis

import aiosteady


class Services:
    def __init__(self, redis: "Redis") -> None:
        self.redis = redis
        self.sends = aiosteady.Throttler(redis, limits={"second": "5/second", "day": "1000/day"}, prefix="send:")
        self.jobs = aiosteady.Throttler(redis, max_capacity=1, drop_recharge=600.0, prefix="job:")

    async def send(self, to: Union[str, bytes]) -> bool:
        result = await self.sends.consume(to)
        return result.success

    async def job(self, name: str) -> str:
        match_me = await self.jobs.peek(name)
        if not match_me.success:
            return f"{name} ran"
        async with self.jobs.reserve(name) as reservation:
            reservation.actual = 1
        return f"{name} runs"


async def main(url: str) -> None:
    where = urlsplit(url)
    redis = Redis(host=where.hostname or "localhost", port=where.port or 6379, socket_timeout=10)
    services = Services(redis)
    print(await asyncio.gather(*(services.send("anna") for _ in range(7))))
    print(await services.job("backup"), await services.job("backup"))
    everything = await aiosteady.consume_all([(services.sends, "bert"), (services.jobs, "mail", 1)])
    print(everything.success, everything.atomic)
    await redis.aclose()


asyncio.run(main(sys.argv[1]))
