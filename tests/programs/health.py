# SPDX-License-Identifier: MIT
"""Errors, policies, counters, and a health check."""
import asyncio
import sys
from typing import Literal

import aiosteady

OnError = Literal["report", "allow", "deny", "local"]


def charged(error: aiosteady.Error) -> str:
    return "perhaps" if isinstance(error, (aiosteady.Unknown, aiosteady.Cancelled)) else "no"


class Health:
    def __init__(self, store: aiosteady.Store) -> None:
        self.store = store

    def ready(self) -> bool:
        state: Literal["connecting", "ready", "down"] = self.store.state
        return self.store.ready and state == "ready" and not self.store.closed

    def unknown(self) -> int:
        return self.store.stats()["unknown"]


async def ask(url: str, on_error: OnError) -> str:
    async with aiosteady.Throttler(url, 5, 60.0, on_error=on_error) as throttler:
        try:
            result = await throttler.consume("k")
        except aiosteady.Unavailable as error:
            return f"charged: {charged(error)}"
        return f"{result.success} {result.source} {result.error}"


async def main(url: str) -> None:
    async with aiosteady.connect(url, timeout=10) as store:
        health = Health(store)
        throttler = aiosteady.Throttler(store, 5, 60)
        await throttler.charge("k", 2)
        await throttler.reset("k")
        print(health.ready(), health.unknown(), (await throttler.peek("k")).level)
    policies: tuple[OnError, ...] = ("report", "allow", "deny", "local")
    for policy in policies:
        print(policy, await ask("redis://127.0.0.1:1", policy))


asyncio.run(main(sys.argv[1]))
