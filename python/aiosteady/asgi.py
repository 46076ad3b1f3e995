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
import hashlib
import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

from . import _http
from ._address import client_address
from ._core import Error, NotABucket, Overloaded, ThrottleResult, Unsupported
from ._http import RequestFields, Verdict
from ._texts import shown
from ._together import Answer, Ask, Bucket, Group, decide_together
from .leakybucket import Throttler

if TYPE_CHECKING:
    from ._together import Decide

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
    quotas: tuple[_http.Quota, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.throttler, Throttler):
            raise TypeError(f"throttler must be a Throttler, not {type(self.throttler).__name__}")
        if not callable(self.key):
            raise TypeError(f"key must be a function of the ASGI scope, not {type(self.key).__name__}")
        object.__setattr__(self, "quotas", _http.quotas_of(self.name, self.throttler))
        if not callable(self.cost) and (too_small := self.too_small(check_cost(self.cost))):
            raise ValueError(f"cost is {self.cost}, over the capacity of {too_small[0].capacity}; it would never fit")
        check_secret(self.hash)

    def too_small(self, cost: int) -> list[_http.Quota]:
        """The quotas that never have room for this cost."""
        return [] if self.throttler._clamp else [quota for quota in self.quotas if cost > quota.capacity]


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


def check_buckets(policies: list[Policy]) -> None:
    """The buckets of policies with one store must not be the same, whatever the keys are."""
    for policy in policies:
        head = f"{policy.throttler.prefix}{policy.name}:"
        for other in policies:
            whole = f"{other.throttler.prefix}{other.name}:"
            if other is not policy and other.throttler._target is policy.throttler._target and whole.startswith(head):
                raise ValueError(
                    f"{head!r}, prefix and name of a policy, is the beginning of {whole!r}, so their keys could name the "
                    "same bucket; change a prefix or a name"
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


async def ask_of(place: int, policy: Policy, scope: Scope) -> Ask | None:
    key = await settled(policy.key(scope))
    if key is None:
        return None
    cost = await settled(policy.cost(scope)) if callable(policy.cost) else policy.cost
    return Ask(place, policy, whole_key(policy, key), check_cost(cost))


def in_order(answers: Iterable[Answer]) -> list[Bucket]:
    """The buckets in the order of the policies."""
    return sorted((bucket for answer in answers for bucket in answer.buckets()), key=lambda bucket: bucket.ask.place)


def from_store(answers: Iterable[Answer]) -> list[Bucket]:
    return in_order(answer for answer in answers if answer.from_store)


# ---- The middleware ----


class RateLimit:
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
        if not self._policies:
            raise ValueError("RateLimit needs a throttler or policies")
        check_names([*(policy.name for policy in self._policies), *names_inside(app)])
        check_buckets(self._policies)
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
        try:
            asks = await self._asks(scope)
            too_dear = [quota.name for ask in asks for quota in ask.policy.too_small(ask.cost)]
            if too_dear:
                return _http.never_fits(too_dear)
            answers = await decide_together(asks, self._answer) if asks else []
        except BadKey as error:
            self._log("bad key", "%s; the response is 400", error)
            return _http.bad_request()
        denials = [answer for answer in answers if not answer.result.success]
        if denials:
            return self._deny(denials, answers, collected)
        self._add_fields(collected, answers, [_http.allowed(b.quota, b.result.level) for b in from_store(answers)])
        return Verdict(0, [])

    async def _asks(self, scope: Scope) -> list[Ask]:
        asks = []
        for place, policy in enumerate(self._policies):
            try:
                ask = await ask_of(place, policy, scope)
            except BadKey as error:
                raise BadKey(f"policy {policy.name!r}: {error}") from None
            if ask is not None:
                asks.append(ask)
        return asks

    def _deny(self, denials: list[Answer], answers: list[Answer], collected: RequestFields) -> Verdict:
        """The client is told to wait until all policies admit it. A bucket is left out if its wait is not known: it is
        one of on_error, or a local share that is smaller than the cost."""
        buckets = [bucket for bucket in in_order(denials) if not bucket.result.success]
        waits = [(b, max(1, math.ceil(b.result.retry_after))) for b in buckets if b.result.retry_after is not None]
        if not waits:
            return _http.unanswered([b.quota.name for b in buckets] or [n for a in denials for n in a.group.names])
        states = [
            _http.denied(b.quota, b.result.level, wait, b.result.blocked_for is not None)
            for b, wait in waits
            if b.result.source == "store"
        ]
        self._add_fields(collected, answers, states)
        return _http.exceeded([b.quota.name for b, _ in waits], max(wait for _, wait in waits))

    def _add_fields(self, collected: RequestFields, answers: list[Answer], states: list[_http.State]) -> None:
        """Reports only answers of the store: for other answers the state of the limit is unknown."""
        collected.add(self._fields, [bucket.quota for bucket in from_store(answers)], states)

    async def _answer(self, group: Group, decide: Decide) -> Answer:
        """Asks again after an overload, which charges nothing. It waits until no handler holds the event loop."""
        result = await self._decided(group, decide)
        for _ in range(RETRIES):
            if result is None:
                await short_turn()
                result = await self._decided(group, decide)
        if result is None:
            why = "too many decisions are in flight, or a handler holds the event loop"
            result = self._fault(group, self._allows_on_overload, why)
        return Answer(group, result)

    async def _decided(self, group: Group, decide: Decide) -> ThrottleResult | None:
        """None if overloaded."""
        try:
            result = await decide()
        except Overloaded:
            return None
        except NotABucket as error:  # never allowed: a client may have chosen that key
            return self._fault(group, False, repr(error))
        except Unsupported as error:
            if len(group.asks) > 1:  # the keys may lie in several slots
                raise
            return self._fault(group, self._allows_on_error, repr(error))
        except Error as error:
            return self._fault(group, self._allows_on_error, repr(error))
        except ValueError as error:
            if len(group.asks) == 1 and len(group.names) == 1:
                raise
            raise BadKey(f"policies {', '.join(map(repr, group.names))}: {error}") from None
        return None if result.source == "policy" and result.error == "overloaded" else result

    def _fault(self, group: Group, allows: bool, why: str) -> ThrottleResult:
        names = ", ".join(repr(ask.policy.name) for ask in group.asks)
        subject = f"policies {names} have" if len(group.asks) > 1 else f"policy {names} has"
        outcome = "pass" if allows else "get 503"
        self._log(f"fault {allows}", "%s no verdict, so requests %s: %s", subject, outcome, why)
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
