# SPDX-License-Identifier: MIT
"""An ASGI application with tiers, a cost that its response tells, a 429 of its own, and a hook."""
import asyncio
import sys
from typing import Optional, Union

from aiosteady import Throttler, connect
from aiosteady.asgi import Application, Decision, Message, Outcome, Policy, RateLimit, Receive, Scope, Send

denials: dict[str, int] = {}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    decision: Decision = scope["state"]["rate_limit"]
    assert decision.allowed and decision.results["tokens"].success
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-tokens", b"70")]})
    await send({"type": "http.response.body", "body": b'{"tokens": 70}'})


def user(scope: Scope) -> str:
    return str(scope["user"])


def tokens(outcome: Outcome) -> Optional[int]:
    if outcome.exception is not None:
        return 0
    return int(outcome.headers["X-Tokens"]) if outcome.complete else None


async def tokens_of_body(outcome: Outcome) -> dict[str, int]:
    return {"1m": int(outcome.json()["tokens"])}


async def hook(scope: Scope, decision: Decision) -> None:
    for name in decision.denied_by:
        denials[name] = denials.get(name, 0) + 1


def denied(scope: Scope, decision: Decision) -> Union[str, Application, None]:
    async def too_many(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 429, "headers": []})
        await send({"type": "http.response.body", "body": b"slow down"})

    return too_many if decision.status == 429 else None


async def main(url: str) -> None:
    async with connect(url, timeout=10) as store:
        tiers = {tier: Throttler(store, limits=limit, prefix="t:") for tier, limit in
                 (("free", "100/minute"), ("paid", "1000/minute"))}

        async def throttler(scope: Scope) -> Throttler:
            return tiers["paid" if scope["user"] == "anna" else "free"]

        limited = RateLimit(
            app,
            throttler,
            key=user,
            cost=50,
            name="tokens",
            settle=tokens,
            policies=[
                Policy(tiers["free"], user, name="trial", dry_run=True),
                Policy(tiers["paid"], user, name="body", settle=tokens_of_body, body_bytes=1000),
            ],
            on_denied=denied,
            on_decision=hook,
        )
        for name in ("bob", "anna", "bob", "bob"):
            sent: list[Message] = []

            async def receive() -> Message:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Message) -> None:
                sent.append(message)

            await limited({"type": "http", "method": "GET", "path": "/", "headers": [], "user": name}, receive, send)
            print(name, sent[0]["status"], dict(sent[0]["headers"]).get(b"retry-after"))
        assert denials == {"tokens": 2}


asyncio.run(main(sys.argv[1]))
