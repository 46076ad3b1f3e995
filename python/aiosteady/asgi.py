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
from ._http import Field, RequestFields, Verdict, fields_of_denial, with_missing
from ._core import Sender, ThrottleResult
from ._middleware import NOT_ASKED, Middleware
from ._policy import BasePolicy, Decision
from ._settle import Actual, Outcome, Settlement
from .leakybucket import Throttler

__all__ = ["Decision", "Outcome", "Policy", "RateLimit", "client_address"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
MaybeKey = Union[str, bytes, None]
Key = Callable[[Scope], Union[MaybeKey, Awaitable[MaybeKey]]]
Cost = Union[int, Callable[[Scope], Union[int, Awaitable[int]]]]
Throttlers = Union[Throttler, Callable[[Scope], Union[Throttler, Awaitable[Throttler]]]]
Settle = Callable[[Outcome], Union[Actual, Awaitable[Actual]]]
Body = Union[str, bytes, dict[str, Any]]
Denied = Union[Body, Application, None]
OnDenied = Union[Body, Callable[[Scope, Decision], Union[Denied, Awaitable[Denied]]]]
OnDecision = Callable[[Scope, Decision], Union[object, Awaitable[object]]]

FIELDS_KEY = "aiosteady.asgi"  # in the scope: the Sender of the outermost RateLimit
TURN_SHORT, TURNS_MOST = 0.01, 64  # seconds; how many turns of the loop to wait for a short one


@dataclass(frozen=True)
class Policy(BasePolicy):
    """A limit, its key function, and the cost of a request.

    `throttler` is a Throttler, or a function of the ASGI scope that returns one, for example by the tier of the user.

    `key` and `cost` get the ASGI scope. If the key is None, the request is not limited. These functions, and `settle`,
    may be coroutine functions.

    The bucket of a key has the name NAME:KEY in the store, so policies do not share buckets. A name followed by a colon
    must not be the beginning of another name in the same middleware.

    `hash` stores the BLAKE2b digest instead of the key. Use it if the key is secret or long. With True, a reader of the
    store can find a key that is easy to guess. Set a secret (str or bytes) to prevent that.

    `settle` gets the Outcome of an allowed request, and returns how many drops it really cost; None leaves it as it is.
    With several limits, it may return a tuple, or a mapping by the name of the limit. If it raises, the drops stay
    charged. `body_bytes`: how many of the last bytes of the body the Outcome has.

    `dry_run`: the policy denies nothing. Its denials are in the Decision and in the log.
    """

    throttler: Throttlers
    key: Key = field(default_factory=client_address)
    cost: Cost = 1
    name: str = "default"
    hash: Union[bool, str, bytes] = field(default=False, repr=False)
    settle: Optional[Settle] = None

    _throttler_type = Throttler
    _request = "the ASGI scope"


class RateLimit(Middleware):
    """An ASGI middleware that limits the rate of requests.

    `throttler`, `key`, `cost`, `name`, `hash`, `settle` and `body_bytes` make one policy; `policies` adds more.
    A request has to fit under all policies. If one of them denies it, the others charge nothing. Make their throttlers
    with one Store or one client: then one call decides on all of them.

    `on_error`: the response if the store gives no verdict and the throttler has on_error="report". "allow" lets the
    request pass, "deny" responds with 503.

    `on_overload`: the same if this process is overloaded: too many decisions are in flight, or a handler holds the
    event loop. The default is "deny", because a client can cause an overload.

    `fields`: the form of the rate-limit header fields: "draft-11", "draft-07", "draft-03", "x" (X-RateLimit-...) or
    "none".

    `dry_run`: all policies are in a dry run.

    `on_denied`: the body of a 429 (str, bytes, or a dict for JSON); or a function of the scope and the Decision, for each
    response of the middleware. It returns a body, an ASGI application such as a Response of Starlette, or None for the
    default. The header fields are added.

    `on_decision`: a function of the scope and the Decision, called for each request.

    The Decision is in scope["state"]["rate_limit"], which is request.state.rate_limit in Starlette.
    """

    _app_type = "an ASGI application"
    _policy_type = Policy

    def __init__(
        self,
        app: Application,
        throttler: Optional[Throttlers] = None,
        *,
        key: Optional[Key] = None,
        cost: Cost = 1,
        name: str = "default",
        hash: Union[bool, str, bytes] = False,
        settle: Optional[Settle] = None,
        body_bytes: int = 0,
        policies: Iterable[Policy] = (),
        on_error: Literal["allow", "deny"] = "allow",
        on_overload: Literal["allow", "deny"] = "deny",
        fields: Literal["draft-11", "draft-07", "draft-03", "x", "none"] = "draft-11",
        dry_run: bool = False,
        on_denied: Optional[OnDenied] = None,
        on_decision: Optional[OnDecision] = None,
    ) -> None:
        own = {"key": key, "cost": cost, "name": name, "hash": hash, "settle": settle, "body_bytes": body_bytes}
        super().__init__(app, throttler, own, policies, on_error, on_overload, fields, dry_run, on_denied, on_decision)
        self._quick = self._quick_judge()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in HTTP:
            await self.app(scope, receive, send)
            return
        outer = scope.get(FIELDS_KEY)
        if outer is not None:
            await self._call(scope, receive, send, outer.collected)
            return
        key, result = NOT_ASKED, None
        if self._quick is not None:
            judged = self._quick.judge(scope, send, self)
            if type(judged) is Sender:
                try:
                    if self._on_decision is not None:
                        await self._call_on_decision(scope, scope["state"]["rate_limit"])
                    await self.app(scope, receive, judged)
                finally:
                    scope.pop(FIELDS_KEY, None)
                return
            key, result = judged
        sender = scope[FIELDS_KEY] = Sender(send, RequestFields())
        try:
            await self._call(scope, receive, sender, sender.collected, key, result)
        finally:
            scope.pop(FIELDS_KEY, None)

    async def _call(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        collected: RequestFields,
        key: Any = NOT_ASKED,
        result: Optional[ThrottleResult] = None,
    ) -> None:
        verdict, decision, settlement, app = await self._judge(scope, collected, key, result)
        scope.setdefault("state", {})["rate_limit"] = decision
        if settlement is not None:
            await self._settled_call(scope, receive, send, settlement)
        elif verdict.status == 0:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {}):
            await receive()  # websocket.connect
            await send({"type": "websocket.close", "code": 1013})  # servers make it a 403
        elif app is not None:
            await app(scope, receive, with_missing_fields(send, fields_of_denial(verdict)))
        elif scope["type"] == "http":
            await respond(send, "http.response", verdict)
        else:
            await receive()
            await respond(send, "websocket.http.response", verdict)

    async def _settled_call(self, scope: Scope, receive: Receive, send: Send, settlement: Settlement) -> None:
        """Settles before the last message of the response is sent: the next request of the client finds the room. It
        settles to the end although the request is cancelled."""

        async def receiving() -> Message:
            message = await receive()
            settlement.hung_up |= message["type"] == "http.disconnect"
            return message

        async def recording(message: Message) -> None:
            kind = message["type"]
            if kind == "websocket.accept":
                settlement.start(101, message.get("headers", ()))
            elif kind in STARTS:
                settlement.start(message["status"], message.get("headers", ()))
            elif kind in BODIES:
                settlement.add(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._to_the_end(settlement.finish(not settlement.hung_up))
            await send(message)

        try:
            await self.app(scope, receiving, recording)
        except (Exception, asyncio.CancelledError) as error:
            await self._to_the_end(settlement.finish(False, error))
            raise
        await self._to_the_end(settlement.finish(scope["type"] == "websocket"))

    # ---- The event loop ----

    async def _awaited(self, value: Any) -> Any:
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


HTTP = ("http", "websocket")
STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
BODIES = ("http.response.body", "websocket.http.response.body", "http.response.pathsend", "http.response.zerocopysend")


def with_missing_fields(send: Send, fields: list[Field]) -> Send:
    async def send_with_fields(message: Message) -> None:
        if message["type"] in STARTS:
            message = {**message, "headers": with_missing(message.get("headers", ()), fields)}
        await send(message)

    return send_with_fields


async def respond(send: Send, kind: str, verdict: Verdict) -> None:
    await send({"type": f"{kind}.start", "status": verdict.status, "headers": verdict.fields})
    await send({"type": f"{kind}.body", "body": verdict.body})
