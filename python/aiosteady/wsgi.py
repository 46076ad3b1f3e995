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
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Optional, TypeVar, Union

from ._address import client_address_of_environ as client_address
from ._http import Field, RequestFields, Verdict, fields_of_denial, with_missing
from ._middleware import Middleware
from ._policy import BasePolicy, Decision, kind_of
from ._settle import Actual, Outcome, Settlement
from .blocking import Throttler

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse
else:
    OptExcInfo = tuple
    StartResponse = Callable[..., Callable[[bytes], object]]

__all__ = ["Decision", "Outcome", "Policy", "RateLimit", "client_address"]

R = TypeVar("R")
Environ = dict[str, Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
MaybeKey = Union[str, bytes, None]
Key = Callable[[Environ], MaybeKey]
Cost = Union[int, Callable[[Environ], int]]
Throttlers = Union[Throttler, Callable[[Environ], Throttler]]
Settle = Callable[[Outcome], Actual]
Body = Union[str, bytes, dict[str, Any]]
OnDenied = Union[Body, Callable[[Environ, Decision], Union[Body, Application, None]]]
OnDecision = Callable[[Environ, Decision], object]

FIELDS_KEY = "aiosteady.wsgi"  # in the environ: the RequestFields of the outermost RateLimit
DECISION_KEY = "aiosteady.rate_limit"
PAUSE = 0.001  # seconds, after an overload


@dataclass(frozen=True)
class Policy(BasePolicy):
    """A limit, its key function, and the cost of a request.

    The fields are those of aiosteady.asgi.Policy. The functions get the WSGI environ in place of the ASGI scope, and are
    no coroutine functions.
    """

    throttler: Throttlers
    key: Key = field(default_factory=client_address)
    cost: Cost = 1
    name: str = "default"
    hash: Union[bool, str, bytes] = field(default=False, repr=False)
    settle: Optional[Settle] = None

    _throttler_type = Throttler
    _request = "the WSGI environ"


class RateLimit(Middleware):
    """A WSGI middleware that limits the rate of requests. The options are those of aiosteady.asgi.RateLimit.

    `on_denied` may return a WSGI application, such as a Response of Werkzeug. The Decision is in the environ as
    "aiosteady.rate_limit".
    """

    _app_type = "a WSGI application"
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
        verdict, environ[DECISION_KEY], settlement, app = run(self._judge(environ, collected))
        if settlement is not None:
            return self._settled_call(environ, start_response, settlement)
        if verdict.status == 0:
            return self.app(environ, start_response)  # type: ignore[no-any-return]
        if app is not None:
            start_response = with_missing_fields(start_response, fields_of_denial(verdict))
            return app(environ, start_response)  # type: ignore[no-any-return]
        return respond(environ, start_response, verdict)

    def _settled_call(
        self, environ: Environ, start_response: StartResponse, settlement: Settlement
    ) -> Iterable[bytes]:
        recorded = Recorded(settlement)
        try:
            blocks = self.app(environ, recorded.start_response(start_response))
            if not isinstance(blocks, (list, tuple)):
                recorded.blocks, recorded.iterator = blocks, iter(blocks)
                return recorded
            for block in blocks:
                settlement.add(block)
        except BaseException as error:
            run(settlement.finish(False, error))
            raise
        run(settlement.finish(True))
        return blocks

    # ---- No event loop ----

    async def _awaited(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            value.close()
        if inspect.isawaitable(value):
            raise TypeError(f"a function of the middleware returned a {kind_of(type(value))}; "
                            "WSGI has no event loop, so it must be a plain function")
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
        status: str, headers: list[tuple[str, str]], exc_info: Optional[OptExcInfo] = None, /
    ) -> Callable[[bytes], object]:
        theirs = as_bytes(headers)
        merged = collected.merged(theirs)
        return started(start_response, status, headers if merged is theirs else as_text(merged), exc_info)

    return start


def with_missing_fields(start_response: StartResponse, fields: list[Field]) -> StartResponse:
    def start(
        status: str, headers: list[tuple[str, str]], exc_info: Optional[OptExcInfo] = None, /
    ) -> Callable[[bytes], object]:
        return started(start_response, status, as_text(with_missing(as_bytes(headers), fields)), exc_info)

    return start


def started(
    start_response: StartResponse, status: str, headers: list[tuple[str, str]], exc_info: Optional[OptExcInfo]
) -> Callable[[bytes], object]:
    """Calls with exc_info only if there is one: servers and applications may take two arguments then."""
    return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)


def as_bytes(headers: Iterable[tuple[str, str]]) -> list[Field]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def as_text(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def respond(environ: Environ, start_response: StartResponse, verdict: Verdict) -> list[bytes]:
    start_response(f"{verdict.status} {http.HTTPStatus(verdict.status).phrase}", as_text(verdict.fields))
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [verdict.body]


class Recorded:
    """The body of a response, recorded for a settlement. It settles before the block that completes Content-Length, so
    the next request of the client finds the room; otherwise at the end, or when the server closes it."""

    def __init__(self, settlement: Settlement) -> None:
        self._settlement = settlement
        self._length = -1
        self.blocks: Iterable[bytes] = ()
        self.iterator: Iterator[bytes] = iter(())

    def start_response(self, start_response: StartResponse) -> StartResponse:
        def start(
            status: str, headers: list[tuple[str, str]], exc_info: Optional[OptExcInfo] = None, /
        ) -> Callable[[bytes], object]:
            write = started(start_response, status, headers, exc_info)
            self._settlement.start(int(status[:3]) if status[:3].isdigit() else 500, as_bytes(headers))
            lengths = [value for name, value in headers if name.lower() == "content-length"]
            self._length = int(lengths[0]) if lengths and lengths[0].isdigit() else -1

            def recording_write(block: bytes) -> object:
                self._settlement.add(block)
                return write(block)

            return recording_write

        return start

    def __iter__(self) -> Recorded:
        return self

    def __next__(self) -> bytes:
        settlement = self._settlement
        try:
            block = next(self.iterator)
            settlement.add(block)
        except StopIteration:
            run(settlement.finish(True))
            raise
        except BaseException as error:
            run(settlement.finish(False, error))
            raise
        if settlement.size == self._length:
            run(settlement.finish(True))
        return block

    def close(self) -> None:
        """Called by the server at the end, and if the client hung up."""
        try:
            if hasattr(self.blocks, "close"):
                self.blocks.close()
        except BaseException as error:
            run(self._settlement.finish(False, error))
            raise
        run(self._settlement.finish(False))
