# SPDX-License-Identifier: MIT
"""An LLM gateway: requests and tokens, with a cost that is known afterwards. Another process may settle it."""
import asyncio
import sys
from dataclasses import dataclass
from typing import Optional

from aiosteady import Denied, Reservation, Throttler, connect


@dataclass
class Answer:
    status: int
    text: str = ""
    retry_after: Optional[float] = None


async def model(prompt: str, reservation: Reservation) -> str:
    tokens = 0
    for word in prompt.split():
        tokens += len(word)
        reservation.actual = {"tokens": tokens}
    return prompt.upper()


async def answer(quota: Throttler, user: str, prompt: str, most: int) -> Answer:
    try:
        async with quota.reserve(user, {"requests": 1, "tokens": most}, max_wait=0.5) as reservation:
            return Answer(200, await model(prompt, reservation))
    except Denied as denied:
        status = 429 if denied.result.source == "store" else 503
        return Answer(status, denied.result.name or "", denied.result.retry_after)


async def main(url: str) -> None:
    async with connect(url, timeout=10) as store:
        quota = Throttler(store, limits={"requests": "3/hour", "tokens": "1000/hour"}, on_error="deny")
        for _ in range(2):
            print((await answer(quota, "anna", "say hello", 900)).text)
        async with quota.reserve("anna", (1, 100)) as reservation:
            text: str = reservation.text
        settled = await quota.settle(text, {"tokens": 0})
        print(settled.success, (await answer(quota, "anna", "more", 1)).text)


asyncio.run(main(sys.argv[1]))
