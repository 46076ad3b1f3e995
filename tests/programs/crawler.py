# SPDX-License-Identifier: MIT
"""A crawler whose tasks wait in line, one line for each host."""
import asyncio
import sys
from urllib.parse import urlsplit

from aiosteady import Throttler, connect


class Crawler:
    def __init__(self, polite: Throttler) -> None:
        self.polite = polite

    async def size(self, url: str) -> int:
        async with self.polite.limit(urlsplit(url).netloc, timeout=20.0) as place:
            assert place.success
            return len(url)

    async def patient(self, url: str) -> float:
        result = await self.polite.consume(urlsplit(url).netloc, max_wait=20)
        if result.success:
            await asyncio.sleep(result.must_wait)
        return result.must_wait


async def main(url: str) -> None:
    async with connect(url, timeout=10) as store:
        polite = Throttler(store, limits="20/second burst 1", on_error="local", local_share=4)

        @polite.limit(lambda path, depth=0: f"robots:{path}:{depth}", timeout=20)
        async def robots(path: str, depth: int = 0) -> tuple[str, int]:
            return path, depth

        crawler = Crawler(polite)
        sizes: list[int] = await asyncio.gather(*(crawler.size(f"https://a.example/{page}") for page in range(5)))
        print(sizes, await robots("/", depth=2))
        print(await crawler.patient("https://b.example/"))
        try:
            await polite.wait("b.example", timeout=0)
        except asyncio.TimeoutError:
            print("busy")


asyncio.run(main(sys.argv[1]))
