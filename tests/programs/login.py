# SPDX-License-Identifier: MIT
"""A login that counts failures only."""
from __future__ import annotations

import asyncio
import sys

from aiosteady import Denied, Store, Throttler, connect


class Logins:
    def __init__(self, store: Store) -> None:
        self.failures = Throttler(store, limits="3/minute", block_duration=600, prefix="login:")

    async def log_in(self, user: str, password: str) -> bool | float | None:
        """True or False, or the seconds until the next attempt."""
        try:
            async with self.failures.reserve(user) as attempt:
                right = password == "correct horse"
                if right:
                    attempt.actual = 0
                return right
        except Denied as denied:
            return denied.result.retry_after


async def main(url: str) -> None:
    async with connect(url, timeout=10.0) as store:
        logins = Logins(store)
        for password in ("correct horse", "guess", "guess", "guess", "guess"):
            print(await logins.log_in("anna", password))


asyncio.run(main(sys.argv[1]))
