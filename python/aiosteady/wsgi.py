# SPDX-License-Identifier: MIT
"""Rate limiting for WSGI applications: Flask, Django, or your own. It has all that the ASGI middleware has.

    app.wsgi_app = RateLimit(app.wsgi_app, Throttler("redis://localhost", max_capacity=100, drop_recharge=0.6))

The Throttler is that of aiosteady.blocking. Its store may be made before a fork.
"""
from __future__ import annotations

import contextlib
import http
import inspect
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Optional, TypeVar, Union

from ._address import client_address_of_environ as client_address
from ._http import RequestFields, Verdict
from ._middleware import Middleware
from ._policy import BasePolicy, Decision, kind_of
from .blocking import Throttler

if TYPE_CHECKING:
    from typing import Protocol

    class StartResponse(Protocol):
        def __call__(
            self, status: str, headers: list[tuple[str, str]], exc_info: Optional[ExcInfo] = None, /
        ) -> Callable[[bytes], object]: ...
else:
    StartResponse = Callable[..., Callable[[bytes], object]]

__all__ = ["Decision", "Policy", "RateLimit", "client_address"]

R = TypeVar("R")
Environ = dict[str, Any]
ExcInfo = Union[tuple[type[BaseException], BaseException, TracebackType], tuple[None, None, None]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
MaybeKey = Union[str, bytes, None]
Key = Callable[[Environ], MaybeKey]
Cost = Union[int, Callable[[Environ], int]]

FIELDS_KEY = "aiosteady.wsgi"  # in the environ: the RequestFields of the outermost RateLimit
DECISION_KEY = "aiosteady.rate_limit"
PAUSE = 0.001  # seconds, after an overload


@dataclass(frozen=True)
class Policy(BasePolicy):
    """A limit, its key function, and the cost of a request.

    The fields are those of aiosteady.asgi.Policy. `key` and `cost` get the WSGI environ, and are no coroutine functions.
    """

    throttler: Throttler
    key: Key = field(default_factory=client_address)
    cost: Cost = 1

    _throttler_type = Throttler
    _request = "the WSGI environ"


class RateLimit(Middleware):
    """A WSGI middleware that limits the rate of requests. The options are those of aiosteady.asgi.RateLimit.

    The Decision is in the environ as "aiosteady.rate_limit".
    """

    _app_type = "a WSGI application"
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

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        collected = environ.get(FIELDS_KEY)
        if collected is not None:
            return self._call(environ, start_response, collected)
        collected = environ[FIELDS_KEY] = RequestFields()
        try:
            return self._call(environ, with_fields(start_response, collected), collected)
        finally:
            environ.pop(FIELDS_KEY, None)

    def _call(self, environ: Environ, start_response: StartResponse, collected: RequestFields) -> Iterable[bytes]:
        verdict, environ[DECISION_KEY] = run(self._judge(environ, collected))
        if verdict.status != 0:
            return respond(environ, start_response, verdict)
        return self.app(environ, start_response)  # type: ignore[no-any-return]

    # ---- No event loop ----

    async def _settled(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            value.close()
        if inspect.isawaitable(value):
            raise TypeError(f"a function of the middleware returned a {kind_of(type(value))}; WSGI has no event loop, so it "
                            "must be a plain function")
        return value

    async def _at_once(self, *works: Coroutine[Any, Any, Any]) -> list[Any]:
        try:
            return [await work for work in works]
        finally:
            for work in works:
                work.close()

    async def _to_the_end(self, *works: Coroutine[Any, Any, Any]) -> None:
        for work in works:
            with contextlib.suppress(Exception):
                await work

    async def _short_pause(self) -> None:
        time.sleep(PAUSE)


def run(work: Coroutine[Any, Any, R]) -> R:
    """Runs a coroutine that awaits nothing but what answers at once."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("the judgement waits for an event loop")


# ---- Responses ----


def with_fields(start_response: StartResponse, collected: RequestFields) -> StartResponse:
    def start(
        status: str, headers: list[tuple[str, str]], exc_info: Optional[ExcInfo] = None, /
    ) -> Callable[[bytes], object]:
        theirs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        merged = collected.merged(theirs)
        return started(start_response, status, headers if merged is theirs else as_text(merged), exc_info)

    return start


def started(
    start_response: StartResponse, status: str, headers: list[tuple[str, str]], exc_info: Optional[ExcInfo]
) -> Callable[[bytes], object]:
    """Calls with exc_info only if there is one: servers and applications may take two arguments then."""
    return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)


def as_text(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def respond(environ: Environ, start_response: StartResponse, verdict: Verdict) -> list[bytes]:
    start_response(f"{verdict.status} {http.HTTPStatus(verdict.status).phrase}", as_text(verdict.fields))
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [verdict.body]
