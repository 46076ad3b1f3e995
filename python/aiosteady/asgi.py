# SPDX-License-Identifier: MIT
"""Rate limiting for ASGI applications: Starlette, FastAPI, or your own.

    app.add_middleware(RateLimit, throttler=Throttler("redis://localhost", max_capacity=100, drop_recharge=0.6))

Every HTTP request and every WebSocket handshake puts drops into the bucket of its client. Where they do not fit, the
answer is 429 with Retry-After, and who waits that long is admitted if nobody else came. A store that cannot answer is
never a 429: the request is let through, or, with on_error="deny", answered with 503.
"""
from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Optional, Union

from . import _http
from ._address import client_address
from ._core import Error, ThrottleResult
from ._http import Verdict
from ._texts import shown
from .leakybucket import Throttler

__all__ = ["Policy", "RateLimit", "client_address"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
MaybeKey = Union[str, bytes, None]
Key = Callable[[Scope], Union[MaybeKey, Awaitable[MaybeKey]]]
Cost = Union[int, Callable[[Scope], Union[int, Awaitable[int]]]]

KEY_MOST = 1024  # bytes
LOG_EVERY = 60.0  # seconds

logger = logging.getLogger("aiosteady")


# ---- Policies ----


@dataclass(frozen=True)
class Policy:
    """A limit, whom it counts for, and what a request costs.

    `key` and `cost` are called with the ASGI scope, and may be coroutine functions; a key of None is not limited. The
    bucket of a key is called NAME:KEY in the store, so that policies do not share buckets; of two names in one middleware,
    none may be the other's beginning before a colon.
    """

    throttler: Throttler
    key: Key = field(default_factory=client_address)
    cost: Cost = 1
    name: str = "default"
    quota: _http.Quota = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.throttler, Throttler):
            raise TypeError(f"throttler must be a Throttler, not {type(self.throttler).__name__}")
        object.__setattr__(self, "quota", _http.quota_of(self.name, self.throttler))
        if not callable(self.cost) and check_cost(self.cost) > self.quota.capacity:
            raise ValueError(f"cost is {self.cost}, over the capacity of {self.quota.capacity}: it would never fit")


class Ask(NamedTuple):
    """What one request asks of one policy."""

    policy: Policy
    key: str | bytes
    cost: int


class Answer(NamedTuple):
    ask: Ask
    result: ThrottleResult

    @property
    def quota(self) -> _http.Quota:
        return self.ask.policy.quota

    @property
    def from_store(self) -> bool:
        return self.result.source == "store"

    def wait(self) -> float:
        """The seconds until the cost would fit into what the result says is there, 0 if it does. A policy's own answer has an
        empty bucket. A cost of 0 fits an over-full one too. One over a local share does once the store answers: nobody
        knows when."""
        local = self.result.source == "local"
        quota = self.quota.share(self.ask.policy.throttler._local_share) if local else self.quota
        if not 0 < self.ask.cost <= quota.capacity:
            return self.result.blocked_for or 0
        too_many = self.result.level + self.ask.cost - quota.capacity
        leak = self.result.until_next_drop + (too_many - 1) * quota.recharge_us / quota.drops / 1e6
        return max(self.result.blocked_for or 0, leak if too_many > 0 else 0)


class BadKey(Exception):
    """A request whose key no bucket can have."""


def check_cost(cost: int) -> int:
    if not isinstance(cost, int):
        raise TypeError(f"cost must be an int, not {type(cost).__name__}")
    if cost < 0:
        raise ValueError(f"cost is {cost}; it must not be negative")
    return cost


def check_names(names: list[str]) -> None:
    if not names:
        raise ValueError("a throttler is needed, or policies")
    if len(set(names)) < len(names):
        raise ValueError(f"policies need names of their own; these have {', '.join(map(repr, names))}")
    for name in names:
        for other in names:
            if other.startswith(name + ":"):
                raise ValueError(
                    f"the name {name!r} and a colon begins {other!r}: a key of the one could name a bucket of the other"
                )


def whole_key(policy: Policy, key: str | bytes) -> str | bytes:
    if not isinstance(key, (str, bytes)):
        raise TypeError(f"the key of policy {policy.name!r} must be str, bytes or None, not {type(key).__name__}")
    try:
        own = key.encode() if isinstance(key, str) else key
    except UnicodeEncodeError:
        raise BadKey from None
    whole = policy.name.encode() + b":" + own
    if not own or len(policy.throttler.prefix.encode()) + len(whole) > KEY_MOST:
        raise BadKey
    return whole


async def settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def ask_of(policy: Policy, scope: Scope) -> Ask | None:
    key = await settled(policy.key(scope))
    if key is None:
        return None
    cost = await settled(policy.cost(scope)) if callable(policy.cost) else policy.cost
    return Ask(policy, whole_key(policy, key), check_cost(cost))


async def give_back(answers: Iterable[Answer]) -> None:
    """What the others took of a request that is denied. Not to a local bucket: by now the store may answer, which took
    nothing. Where that fails too, they are the stricter for it."""
    taken = [answer.ask for answer in answers if answer.from_store and answer.ask.cost > 0]
    await asyncio.gather(*(ask.policy.throttler.consume(ask.key, -ask.cost) for ask in taken), return_exceptions=True)


# ---- The middleware ----


class RateLimit:
    """An ASGI application that asks before it calls another.

    `throttler`, `key`, `cost` and `name` make a policy; `policies` are more of them, asked in order. The first that
    denies ends it, and what those before it took is given back, but to a local bucket. `on_error` says what a request
    gets where the store does not answer, or loses the answer, and the throttler's own `on_error` leaves it open:
    "allow", or "deny", which is 503. `fields` is the form of the rate-limit fields: "draft-11", "draft-07", "draft-03",
    "x" (X-RateLimit-...) or "none".
    """

    def __init__(
        self,
        app: Application,
        throttler: Optional[Throttler] = None,
        *,
        key: Optional[Key] = None,
        cost: Cost = 1,
        name: str = "default",
        policies: Iterable[Policy] = (),
        on_error: Literal["allow", "deny"] = "allow",
        fields: Literal["draft-11", "draft-07", "draft-03", "x", "none"] = "draft-11",
    ) -> None:
        first = [] if throttler is None else [Policy(throttler, key or client_address(), cost, name)]
        self.app = app
        self._policies = [*first, *policies]
        self._let_through = on_error == "allow"
        self._next_log = -math.inf
        self._giving_back: set[asyncio.Future[None]] = set()  # a loop does not hold its tasks
        check_names([policy.name for policy in self._policies])
        if on_error not in ("allow", "deny"):
            raise ValueError(f"on_error is {shown(on_error)}; it must be 'allow' or 'deny'")
        if fields not in _http.FORMS:
            raise ValueError(f"fields is {shown(fields)}; it must be one of {', '.join(map(repr, _http.FORMS))}")
        self._form = _http.FORMS[fields]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        verdict = await self._judge(scope)
        if verdict.status == 0:
            await self.app(scope, receive, with_fields(send, verdict.fields) if verdict.fields else send)
        elif scope["type"] == "http":
            await respond(send, "http.response", verdict)
        else:
            await refuse_handshake(scope, receive, send, verdict)

    async def _judge(self, scope: Scope) -> Verdict:
        try:
            asks = [ask for policy in self._policies if (ask := await ask_of(policy, scope)) is not None]
        except BadKey:
            return _http.bad_request()
        too_dear = [ask.policy.name for ask in asks if ask.cost > ask.policy.quota.capacity]
        if too_dear:
            return _http.never_fits(too_dear)
        passed, denial = await self._take(asks)
        if denial is not None:
            return await self._deny(denial, passed, asks[len(passed) + 1 :])
        states = [_http.allowed(a.quota, a.result.level) for a in passed if a.from_store]
        return Verdict(0, self._fields(passed, states))

    async def _take(self, asks: list[Ask]) -> tuple[list[Answer], Answer | None]:
        """Who let it through, and who did not. A request that is cancelled meanwhile leaves nothing with the former."""
        passed: list[Answer] = []
        try:
            for ask in asks:
                answer = await self._answer(ask, ask.policy.throttler.consume(ask.key, ask.cost))
                if not answer.result.success:
                    return passed, answer
                passed.append(answer)
        except (asyncio.CancelledError, Exception):
            await self._give_back(passed)
            raise
        return passed, None

    async def _give_back(self, answers: list[Answer]) -> None:
        """Goes on where the request is cancelled meanwhile."""
        if answers:
            task = asyncio.ensure_future(give_back(answers))
            self._giving_back.add(task)
            task.add_done_callback(self._giving_back.discard)
            await asyncio.shield(task)

    async def _deny(self, answer: Answer, passed: list[Answer], later: list[Ask]) -> Verdict:
        await self._give_back(passed)
        if answer.result.retry_after is None or answer.result.source == "policy":  # not known: the store did not answer
            return _http.unanswered(answer.ask.policy.name)
        # Who waits is to be admitted by all policies; those that were not asked yet may deny for longer, and so may those
        # that keep what they were not given back.
        kept = [a for a in passed if not a.from_store]
        peeks = await asyncio.gather(*(self._answer(ask, ask.policy.throttler.peek(ask.key)) for ask in later))
        waits = [(a, a.wait()) for a in kept] + [(answer, answer.result.retry_after)] + [(a, a.wait()) for a in peeks]
        whole = [(a, max(1, math.ceil(wait))) for a, wait in waits if a is answer or wait > 0]
        states = [
            _http.denied(a.quota, a.result.level, wait, a.result.blocked_for is not None)
            for a, wait in whole
            if a.from_store
        ]
        fields = self._fields([*passed, answer, *peeks], states)
        return _http.exceeded([a.ask.policy.name for a, _ in whole], max(wait for _, wait in whole), fields)

    def _fields(self, answers: list[Answer], states: list[_http.State]) -> list[_http.Field]:
        """Of an answer that is not the store's own, nothing is known that could be said."""
        quotas = [answer.quota for answer in answers if answer.from_store]
        return list(self._form(quotas, states)) if quotas else []

    async def _answer(self, ask: Ask, decision: Coroutine[Any, Any, ThrottleResult]) -> Answer:
        try:
            return Answer(ask, await decision)
        except Error as error:
            self._log(ask, error)
            return Answer(ask, ThrottleResult(self._let_through, 0, 0.0, None, source="policy"))

    def _log(self, ask: Ask, error: Error) -> None:
        now = time.monotonic()
        if now >= self._next_log:
            self._next_log = now + LOG_EVERY
            what = "let through" if self._let_through else "answered with 503"
            logger.warning("policy %r cannot be asked, requests are %s: %r", ask.policy.name, what, error)


# ---- ASGI ----


def with_fields(send: Send, fields: list[_http.Field]) -> Send:
    async def send_with_fields(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            message = {**message, "headers": [*message.get("headers", ()), *fields]}
        await send(message)

    return send_with_fields


async def respond(send: Send, kind: str, verdict: Verdict) -> None:
    await send({"type": f"{kind}.start", "status": verdict.status, "headers": verdict.fields})
    await send({"type": f"{kind}.body", "body": verdict.body})


async def refuse_handshake(scope: Scope, receive: Receive, send: Send, verdict: Verdict) -> None:
    """With the answer itself where the server can send one, else by a close, which it makes a 403."""
    await receive()  # websocket.connect
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await respond(send, "websocket.http.response", verdict)
    else:
        await send({"type": "websocket.close", "code": 1013})
