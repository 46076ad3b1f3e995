# SPDX-License-Identifier: MIT
"""Rate limiting for ASGI applications: Starlette, FastAPI, or your own.

    app.add_middleware(RateLimit, throttler=Throttler("redis://localhost", max_capacity=100, drop_recharge=0.6))

Every HTTP request and every WebSocket handshake puts drops into the bucket of its client. If they do not fit, the
response is 429 with Retry-After. A client that waits that long is admitted, unless other requests with its key took the
room.

If the store gives no verdict, the request passes by default, and gets 503 with on_error="deny". If this process is
overloaded, the request gets 503 by default, because a client can cause an overload.
"""
from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, Optional, Union

from ._address import client_address
from ._http import RequestFields, Verdict
from ._middleware import Middleware
from ._policy import BasePolicy, Decision
from .leakybucket import Throttler

__all__ = ["Decision", "Policy", "RateLimit", "client_address"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
MaybeKey = Union[str, bytes, None]
Key = Callable[[Scope], Union[MaybeKey, Awaitable[MaybeKey]]]
Cost = Union[int, Callable[[Scope], Union[int, Awaitable[int]]]]

FIELDS_KEY = "aiosteady.asgi"  # in the scope: the RequestFields of the outermost RateLimit
TURN_SHORT, TURNS_MOST = 0.01, 64  # seconds; how many turns of the loop to wait for a short one


@dataclass(frozen=True)
class Policy(BasePolicy):
    """A limit, its key function, and the cost of a request.

    `key` and `cost` get the ASGI scope, and may be coroutine functions. If the key is None, the request is not limited.

    The bucket of a key has the name NAME:KEY in the store, so policies do not share buckets. A name followed by a colon
    must not be the beginning of another name in the same middleware.

    `hash` stores the BLAKE2b digest instead of the key. Use it if the key is secret or long. With True, a reader of the
    store can find a key that is easy to guess. Set a secret (str or bytes) to prevent that.
    """

    throttler: Throttler
    key: Key = field(default_factory=client_address)
    cost: Cost = 1

    _throttler_type = Throttler
    _request = "the ASGI scope"


class RateLimit(Middleware):
    """An ASGI middleware that limits the rate of requests.

    `throttler`, `key`, `cost`, `name` and `hash` make one policy; `policies` adds more. A request has to fit under all
    policies. If one of them denies it, the others charge nothing. Make their throttlers with one Store or one client:
    then one call decides on all of them.

    `on_error`: the response if the store gives no verdict and the throttler has on_error="report". "allow" lets the
    request pass, "deny" responds with 503.

    `on_overload`: the same if this process is overloaded: too many decisions are in flight, or a handler holds the
    event loop. The default is "deny", because a client can cause an overload.

    `fields`: the form of the rate-limit header fields: "draft-11", "draft-07", "draft-03", "x" (X-RateLimit-...) or
    "none".
    """

    _app_type = "an ASGI application"
    _policy_type = Policy

    def __init__(
        self,
        app: Application,
        throttler: Optional[Throttler] = None,
        *,
        key: Optional[Key] = None,
        cost: Cost = 1,
        name: str = "default",
        hash: Union[bool, str, bytes] = False,
        policies: Iterable[Policy] = (),
        on_error: Literal["allow", "deny"] = "allow",
        on_overload: Literal["allow", "deny"] = "deny",
        fields: Literal["draft-11", "draft-07", "draft-03", "x", "none"] = "draft-11",
    ) -> None:
        first = [] if throttler is None else [Policy(throttler, key or client_address(), cost, name, hash)]
        super().__init__(app, first, policies, on_error, on_overload, fields)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        collected = scope.get(FIELDS_KEY)
        if collected is not None:
            await self._call(scope, receive, send, collected)
            return
        collected = scope[FIELDS_KEY] = RequestFields()
        try:
            await self._call(scope, receive, with_fields(send, collected), collected)
        finally:
            scope.pop(FIELDS_KEY, None)

    async def _call(self, scope: Scope, receive: Receive, send: Send, collected: RequestFields) -> None:
        verdict, decision = await self._judge(scope, collected)
        scope.setdefault("state", {})["rate_limit"] = decision
        if verdict.status == 0:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await respond(send, "http.response", verdict)
        else:
            await refuse_handshake(scope, receive, send, verdict)

    # ---- The event loop ----

    async def _settled(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    async def _at_once(self, *works: Coroutine[Any, Any, Any]) -> list[Any]:
        return list(await asyncio.gather(*works))

    async def _to_the_end(self, *works: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.gather(*works, return_exceptions=True)
        unfinished.add(task)
        task.add_done_callback(unfinished.discard)
        await asyncio.shield(task)

    async def _short_pause(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(TURNS_MOST):
            begin = loop.time()
            await asyncio.sleep(0)
            if loop.time() - begin < TURN_SHORT:
                return


unfinished: set[asyncio.Future[Any]] = set()  # an event loop keeps only weak references to its tasks


# ---- Messages ----


STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


def with_fields(send: Send, collected: RequestFields) -> Send:
    async def send_with_fields(message: Message) -> None:
        if message["type"] in STARTS:
            headers = message.get("headers", ())
            merged = collected.merged(headers)
            if merged is not headers:
                message = {**message, "headers": merged}
        await send(message)

    return send_with_fields


async def respond(send: Send, kind: str, verdict: Verdict) -> None:
    await send({"type": f"{kind}.start", "status": verdict.status, "headers": verdict.fields})
    await send({"type": f"{kind}.body", "body": verdict.body})


async def refuse_handshake(scope: Scope, receive: Receive, send: Send, verdict: Verdict) -> None:
    """Sends the response if the server can send one to a handshake; otherwise closes, which the server makes a 403."""
    await receive()  # websocket.connect
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await respond(send, "websocket.http.response", verdict)
    else:
        await send({"type": "websocket.close", "code": 1013})
