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
import functools
import hashlib
import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Optional, Union

from . import _http
from ._address import client_address
from ._core import Error, NotABucket, Overloaded, ThrottleResult
from ._http import RequestFields, Verdict
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
Decide = Callable[[], Coroutine[Any, Any, ThrottleResult]]
Cost = Union[int, Callable[[Scope], Union[int, Awaitable[int]]]]

KEY_MOST = 1024  # bytes
LOG_EVERY = 60.0  # seconds
SECRET_MOST = 64  # bytes, of BLAKE2b
RETRIES = 2  # after an overload
TURN_SHORT, TURNS_MOST = 0.01, 64  # seconds; how many turns of the loop to wait for a short one
FIELDS_KEY = "aiosteady.asgi"  # in the scope: the RequestFields of the outermost RateLimit

logger = logging.getLogger("aiosteady")


# ---- Policies ----


@dataclass(frozen=True)
class Policy:
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
    name: str = "default"
    hash: Union[bool, str, bytes] = field(default=False, repr=False)
    quota: _http.Quota = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.throttler, Throttler):
            raise TypeError(f"throttler must be a Throttler, not {type(self.throttler).__name__}")
        if not callable(self.key):
            raise TypeError(f"key must be a function of the ASGI scope, not {type(self.key).__name__}")
        object.__setattr__(self, "quota", _http.quota_of(self.name, self.throttler))
        if not callable(self.cost) and check_cost(self.cost) > self.quota.capacity:
            raise ValueError(f"cost is {self.cost}, over the capacity of {self.quota.capacity}; it would never fit")
        check_secret(self.hash)


class Ask(NamedTuple):
    """The key and the cost of one request under one policy."""

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
        """The seconds until the cost fits into the bucket of the result; 0 if it fits now.

        An answer of on_error has an empty bucket. A cost of 0 fits even if the bucket is over-full. A cost over the
        local share fits only when the store answers again, which cannot be predicted: 0."""
        local = self.result.source == "local"
        quota = self.quota.share(self.ask.policy.throttler._local_share) if local else self.quota
        if not 0 < self.ask.cost <= quota.capacity:
            return self.result.blocked_for or 0
        too_many = self.result.level + self.ask.cost - quota.capacity
        leak = self.result.until_next_drop + (too_many - 1) * quota.recharge_us / quota.drops / 1e6
        return max(self.result.blocked_for or 0, leak if too_many > 0 else 0)


class BadKey(Exception):
    """The key of a request cannot be the key of a bucket. The text gives the reason, without the key."""


def check_cost(cost: int) -> int:
    if not isinstance(cost, int):
        raise TypeError(f"cost must be an int, not {type(cost).__name__}")
    if cost < 0:
        raise ValueError(f"cost is {cost}; it must not be negative")
    return cost


def check_secret(secret: bool | str | bytes) -> None:
    if not isinstance(secret, (bool, str, bytes)):
        raise TypeError(f"hash must be True, False or a secret as str or bytes, not {type(secret).__name__}")
    if not isinstance(secret, bool) and not secret:
        raise ValueError("hash is an empty secret; use True for a hash without a secret")


def check_names(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"each policy needs its own name; the names are {', '.join(map(repr, names))}")
    for name in names:
        for other in names:
            if other.startswith(name + ":"):
                raise ValueError(
                    f"{name!r} with a colon is the beginning of {other!r}, so their keys could name the same bucket; "
                    "rename one"
                )


def names_inside(app: Any) -> list[str]:
    """The policy names of the RateLimits inside `app`, as far as each middleware has an attribute `app`."""
    names: list[str] = []
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        if isinstance(app, RateLimit):
            names += [policy.name for policy in app._policies]
        app = getattr(app, "__dict__", {}).get("app")
    return names


def hashed(key: bytes, secret: bool | str | bytes) -> bytes:
    """A secret over 64 bytes is hashed first, because BLAKE2b takes at most 64."""
    secret = b"" if isinstance(secret, bool) else secret.encode() if isinstance(secret, str) else secret
    if len(secret) > SECRET_MOST:
        secret = hashlib.blake2b(secret).digest()
    return hashlib.blake2b(key, digest_size=32, key=secret, person=b"aiosteady").hexdigest().encode()


def whole_key(policy: Policy, key: str | bytes) -> bytes:
    if not isinstance(key, (str, bytes)):
        raise TypeError(f"the key of policy {policy.name!r} must be str, bytes or None, not {type(key).__name__}")
    try:
        own = key.encode() if isinstance(key, str) else key
    except UnicodeEncodeError:
        raise BadKey("the key is not UTF-8") from None
    if not own:
        raise BadKey("the key is empty")
    head = policy.name.encode() + b":"
    most = KEY_MOST - len(policy.throttler.prefix.encode()) - len(head)
    if policy.hash is not False:
        own = hashed(own, policy.hash)
    if len(own) > most:
        raise BadKey(f"the key is {len(own)} bytes long; it must be at most {most}, or use hash=")
    return head + own


async def settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def short_turn() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(TURNS_MOST):
        begin = loop.time()
        await asyncio.sleep(0)
        if loop.time() - begin < TURN_SHORT:
            return


async def ask_of(policy: Policy, scope: Scope) -> Ask | None:
    key = await settled(policy.key(scope))
    if key is None:
        return None
    cost = await settled(policy.cost(scope)) if callable(policy.cost) else policy.cost
    return Ask(policy, whole_key(policy, key), check_cost(cost))


async def give_back(answers: Iterable[Answer]) -> None:
    """Takes out again what a denied request put into the buckets of other policies. Local buckets get nothing back: the
    store may answer by now, and its bucket was not charged. If it fails, these buckets stay too full, which is
    stricter."""
    taken = [answer.ask for answer in answers if answer.from_store and answer.ask.cost > 0]
    await asyncio.gather(*(ask.policy.throttler.consume(ask.key, -ask.cost) for ask in taken), return_exceptions=True)


# ---- The middleware ----


class RateLimit:
    """An ASGI middleware that limits the rate of requests.

    `throttler`, `key`, `cost`, `name` and `hash` make one policy; `policies` adds more. Policies are checked in order;
    the first denial ends the check. The policies before it get their drops back, except local buckets.

    `on_error`: the response if the store gives no verdict and the throttler has on_error="report". "allow" lets the
    request pass, "deny" responds with 503.

    `on_overload`: the same if this process is overloaded: too many decisions are in flight, or a handler holds the
    event loop. The default is "deny", because a client can cause an overload.

    `fields`: the form of the rate-limit header fields: "draft-11", "draft-07", "draft-03", "x" (X-RateLimit-...) or
    "none".
    """

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
        if not callable(app):
            raise TypeError(f"app must be an ASGI application, not {type(app).__name__}")
        self.app = app
        self._policies = [*first, *policies]
        for i, policy in enumerate(self._policies):
            if not isinstance(policy, Policy):
                raise TypeError(f"policies[{i - len(first)}] must be a Policy, not {type(policy).__name__}")
        self._allows_on_error = on_error == "allow"
        self._allows_on_overload = on_overload == "allow"
        self._next_log: dict[str, float] = {}  # by kind of log line
        self._giving_back: set[asyncio.Future[None]] = set()  # an event loop keeps only weak references to its tasks
        if not self._policies:
            raise ValueError("RateLimit needs a throttler or policies")
        check_names([*(policy.name for policy in self._policies), *names_inside(app)])
        for option, value in (("on_error", on_error), ("on_overload", on_overload)):
            if value not in ("allow", "deny"):
                raise ValueError(f"{option} is {shown(value)}; it must be 'allow' or 'deny'")
        if fields not in _http.FORMS:
            raise ValueError(f"fields is {shown(fields)}; it must be one of {', '.join(map(repr, _http.FORMS))}")
        self._fields = fields

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
        collected.enter(self, [policy.name for policy in self._policies])
        verdict = await self._judge(scope, collected)
        if verdict.status == 0:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await respond(send, "http.response", verdict)
        else:
            await refuse_handshake(scope, receive, send, verdict)

    async def _judge(self, scope: Scope, collected: RequestFields) -> Verdict:
        asks = []
        for policy in self._policies:
            try:
                ask = await ask_of(policy, scope)
            except BadKey as error:
                self._log("bad key", "policy %r: %s; the response is 400", policy.name, error)
                return _http.bad_request()
            if ask is not None:
                asks.append(ask)
        too_dear = [ask.policy.name for ask in asks if ask.cost > ask.policy.quota.capacity]
        if too_dear:
            return _http.never_fits(too_dear)
        passed, denial = await self._take(asks)
        if denial is not None:
            return await self._deny(denial, passed, asks[len(passed) + 1 :], collected)
        self._add_fields(collected, passed, [_http.allowed(a.quota, a.result.level) for a in passed if a.from_store])
        return Verdict(0, [])

    async def _take(self, asks: list[Ask]) -> tuple[list[Answer], Answer | None]:
        """The answers that allow, and the first that denies. If the request is cancelled meanwhile, the drops are given
        back."""
        passed: list[Answer] = []
        try:
            for ask in asks:
                answer = await self._answer(ask, functools.partial(ask.policy.throttler.consume, ask.key, ask.cost))
                if not answer.result.success:
                    return passed, answer
                passed.append(answer)
        except (asyncio.CancelledError, Exception):
            await self._give_back(passed)
            raise
        return passed, None

    async def _give_back(self, answers: list[Answer]) -> None:
        """Continues even if the request is cancelled meanwhile."""
        if answers:
            task = asyncio.ensure_future(give_back(answers))
            self._giving_back.add(task)
            task.add_done_callback(self._giving_back.discard)
            await asyncio.shield(task)

    async def _deny(self, answer: Answer, passed: list[Answer], later: list[Ask], collected: RequestFields) -> Verdict:
        await self._give_back(passed)
        if answer.result.retry_after is None or answer.result.source == "policy":  # no verdict, so the wait is unknown
            return _http.unanswered(answer.ask.policy.name)
        # All policies must admit the client after its wait. A later policy may deny for longer. So may a local bucket
        # that keeps its drops.
        kept = [a for a in passed if not a.from_store]
        peeks = await asyncio.gather(
            *(self._answer(ask, functools.partial(ask.policy.throttler.peek, ask.key)) for ask in later)
        )
        waits = [(a, a.wait()) for a in kept] + [(answer, answer.result.retry_after)] + [(a, a.wait()) for a in peeks]
        whole = [(a, max(1, math.ceil(wait))) for a, wait in waits if a is answer or wait > 0]
        states = [
            _http.denied(a.quota, a.result.level, wait, a.result.blocked_for is not None)
            for a, wait in whole
            if a.from_store
        ]
        self._add_fields(collected, [*passed, answer, *peeks], states)
        return _http.exceeded([a.ask.policy.name for a, _ in whole], max(wait for _, wait in whole))

    def _add_fields(self, collected: RequestFields, answers: list[Answer], states: list[_http.State]) -> None:
        """Reports only answers of the store: for other answers the state of the limit is unknown."""
        collected.add(self._fields, [answer.quota for answer in answers if answer.from_store], states)

    async def _answer(self, ask: Ask, decide: Decide) -> Answer:
        """Asks again after an overload, which charges nothing. It waits until no handler holds the event loop."""
        result = await self._decided(ask, decide)
        for _ in range(RETRIES):
            if result is None:
                await short_turn()
                result = await self._decided(ask, decide)
        if result is None:
            why = "too many decisions are in flight, or a handler holds the event loop"
            result = self._fault(ask, self._allows_on_overload, why)
        return Answer(ask, result)

    async def _decided(self, ask: Ask, decide: Decide) -> ThrottleResult | None:
        """None if overloaded."""
        try:
            result = await decide()
        except Overloaded:
            return None
        except NotABucket as error:  # never allowed: a client may have chosen that key
            return self._fault(ask, False, repr(error))
        except Error as error:
            return self._fault(ask, self._allows_on_error, repr(error))
        return None if result.source == "policy" and result.error == "overloaded" else result

    def _fault(self, ask: Ask, allows: bool, why: str) -> ThrottleResult:
        outcome = "pass" if allows else "get 503"
        self._log(f"fault {allows}", "policy %r has no verdict, so requests %s: %s", ask.policy.name, outcome, why)
        return ThrottleResult(allows, 0, 0.0, None, source="policy")

    def _log(self, kind: str, text: str, *arguments: object) -> None:
        """Logs at most one line a minute of each kind."""
        now = time.monotonic()
        if now >= self._next_log.get(kind, -math.inf):
            self._next_log[kind] = now + LOG_EVERY
            logger.warning(text, *arguments)


# ---- ASGI ----


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
