# SPDX-License-Identifier: MIT
"""Throttler.limit on an endpoint of FastAPI or Starlette: a request that is not admitted gets a response.

It is imported only if Starlette is.
"""
from __future__ import annotations

import functools
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Optional, Union
from urllib.parse import quote

from starlette.requests import HTTPConnection

from . import asgi, wsgi
from ._core import Error, ThrottleResult
from ._http import RequestFields, never_fits
from ._middleware import NOT_ASKED, Judgement, Middleware
from ._policy import KEY_MOST, BadKey, Decision
from ._together import Answer, Ask, Group
from .fastapi import SAFE_IN_NAMES, add_fields, fields_of, first_free, judged, unused

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._reserve import Amount
    from ._together import Decide

    Kind = Callable[[Any, str, Amount, Optional[float]], Middleware]

OURS = {__name__, "aiosteady.fastapi"}
CALLERS = OURS | {"fastapi.routing", "fastapi.dependencies.utils", "starlette.routing", "starlette.endpoints"}
CALLERS_IN_THREADS = OURS | {"anyio._backends._asyncio", "anyio._backends._trio", "fastapi.telemetry._api"}
DEPTH = 3  # FastAPI has the request in the frame of a caller of its caller


def request_of_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], caller: FrameType, in_thread: bool = False
) -> Optional[HTTPConnection]:
    """The request that a framework answers by this call. None: the function is no endpoint and no dependency.

    FastAPI gives an endpoint its own parameters only, so the request is looked for in the frames of FastAPI. A hidden
    parameter would be seen by other users of the signature, such as frameworks for tools and for messages. A thread has
    no such frames: there an argument must be the request."""
    if caller.f_globals.get("__name__") not in (CALLERS_IN_THREADS if in_thread else CALLERS):
        return None
    for given in (*args, *kwargs.values()):
        if isinstance(given, HTTPConnection):
            return given
    frame: Optional[FrameType] = caller
    for _ in range(DEPTH):
        if frame is None:
            break
        for name in ("request", "websocket"):
            if isinstance(found := frame.f_locals.get(name), HTTPConnection):
                return found
        frame = frame.f_back
    return None


class LimitOnEndpoint:
    """Throttler.limit on one function. `kind`: AsyncLimit or BlockingLimit."""

    def __init__(
        self, kind: Kind, throttler: Any, function: Any, amount: Amount, timeout: Optional[float]
    ) -> None:
        qualified = getattr(function, "__qualname__", type(function).__name__)
        self._name = quote(qualified.rpartition("<locals>.")[2], safe=SAFE_IN_NAMES)
        self._make = functools.lru_cache(maxsize=None)(lambda name: kind(throttler, name, amount, timeout))

    async def run(self, request: HTTPConnection, key: Union[str, bytes], endpoint: Any) -> Any:
        """Runs the endpoint, or raises Rejected if the request is not admitted."""
        limit = first_free(fields_of(request.scope), self._name, self._make)
        collected = await judged(limit, request, key)
        response = await endpoint()
        add_fields(request.scope, collected, response)
        return response

    def run_blocking(self, request: HTTPConnection, key: Union[str, bytes], endpoint: Any) -> Any:
        limit = first_free(fields_of(request.scope), self._name, self._make)
        collected = wsgi.run(judged(limit, request, key))
        response = endpoint()
        add_fields(request.scope, collected, response)
        return response


class EndpointLimit(Middleware):
    """Without a verdict the endpoint does not run."""

    def _prepare(self, throttler: Any, amount: Amount, timeout: Optional[float]) -> None:
        self._throttler, self._amount, self._timeout = throttler, amount, timeout
        limits = throttler.limits
        if isinstance(amount, int):
            amounts = [amount] * len(limits)
        else:
            amounts = [amount.get(name, 0) for name in limits] if isinstance(amount, Mapping) else list(amount)
        quotas = self._policies[0].quotas
        self._never_fits = [] if throttler._clamp else [q.name for q, a in zip(quotas, amounts) if a > q.capacity]

    async def _judge(
        self, request: Any, collected: RequestFields, key: Any = NOT_ASKED, result: Optional[ThrottleResult] = None
    ) -> Judgement:
        """The request is the key."""
        if self._never_fits:
            return Judgement(never_fits(self._never_fits), Decision(False, 422, tuple(self._never_fits)), None, None)
        return await super()._judge(request, collected, key, result)

    async def _ask_policies(self, request: Any, asks: list[Ask], key: Any) -> list[str]:
        """The key has no name before it: the bucket is that of other calls of the throttler."""
        policy = self._policies[0]
        if not isinstance(request, (str, bytes)):
            raise TypeError(f"the key of policy {policy.name!r} must be str or bytes, not {type(request).__name__}")
        try:
            key = request.encode() if isinstance(request, str) else request
        except UnicodeEncodeError:
            raise BadKey(f"policy {policy.name!r}: the key is not UTF-8", [policy.name]) from None
        if not 0 < len(key) <= KEY_MOST - len(self._throttler.prefix.encode()):
            raise BadKey(f"policy {policy.name!r}: the key is {len(key)} bytes long", [policy.name])
        asks.append(Ask(0, policy, self._throttler, policy.quotas, key, 1, "take"))
        return []

    def _own_key(self, ask: Ask) -> bytes:
        return ask.key

    async def _answer(self, group: Group, decide: Decide) -> Answer:
        """The amount may differ by limit, so this asks the throttler and not the group."""
        key, throttler = group.asks[0].key, self._throttler

        async def asked(call: Any, *options: Any) -> ThrottleResult:
            answer = call(key, self._amount, *options)
            result: ThrottleResult = answer if isinstance(answer, ThrottleResult) else await answer
            return result

        if self._timeout is None:
            return await super()._answer(group, lambda: asked(throttler.consume))
        try:
            return Answer(group, await asked(throttler.wait, self._timeout))
        except Error as error:
            return Answer(group, self._fault(group, False, repr(error)))
        except TimeoutError as error:
            if error.__cause__ is not None:  # the store has not answered
                return Answer(group, self._fault(group, False, repr(error)))
        looked = await super()._answer(group, lambda: asked(throttler.peek))
        return looked if not looked.result.success else await super()._answer(group, lambda: asked(throttler.consume))


class AsyncLimit(EndpointLimit, asgi.RateLimit):
    def __init__(self, throttler: Any, name: str, amount: Amount, timeout: Optional[float]) -> None:
        asgi.RateLimit.__init__(self, unused, throttler, name=name, on_error="deny")
        self._prepare(throttler, amount, timeout)


class BlockingLimit(EndpointLimit, wsgi.RateLimit):
    def __init__(self, throttler: Any, name: str, amount: Amount, timeout: Optional[float]) -> None:
        wsgi.RateLimit.__init__(self, unused, throttler, name=name, on_error="deny")  # type: ignore[arg-type]
        self._prepare(throttler, amount, timeout)
