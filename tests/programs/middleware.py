# SPDX-License-Identifier: MIT
"""An ASGI application with two policies, and a request to it."""
import asyncio
import sys
from typing import Optional

from aiosteady import Throttler, connect
from aiosteady.asgi import Message, Policy, RateLimit, Receive, Scope, Send, client_address

address = client_address(trusted_hops=1)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def login(scope: Scope) -> Optional[str]:
    return address(scope) if scope["path"] == "/login" else None


async def cost(scope: Scope) -> int:
    return 5 if scope["method"] == "POST" else 1


async def main(url: str) -> None:
    async with connect(url, timeout=10) as store:
        limited = RateLimit(
            app,
            policies=[
                Policy(Throttler(store, limits="1/minute"), key=login, name="logins", hash=b"0123456789abcdef"),
                Policy(Throttler(store, limits=["9/second", "100/minute"]), address, cost, name="requests"),
            ],
            on_error="deny",
            fields="draft-11",
        )
        for path in ("/", "/login", "/login"):
            sent: list[Message] = []

            async def receive() -> Message:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Message) -> None:
                sent.append(message)

            scope: Scope = {"type": "http", "method": "GET", "path": path, "headers": [], "client": ("192.0.2.7", 80)}
            await limited(scope, receive, send)
            print(path, sent[0]["status"])


asyncio.run(main(sys.argv[1]))
