# SPDX-License-Identifier: MIT
"""The settling of a request, for both middlewares: the drops are reserved before it, and corrected by its response."""
from __future__ import annotations

import json
from asyncio import CancelledError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from ._policy import Decision, described

if TYPE_CHECKING:
    from ._core import ThrottleResult
    from ._middleware import Middleware
    from ._together import Answer, Ask

Actual = Union[int, Sequence[int], Mapping[str, int], None]


class MissingHeader(KeyError):
    def __str__(self) -> str:
        return f"the response has no header {self.args[0]!r}"


class Headers(Mapping[str, str]):
    """The header fields of a response, by their names in any case. Values of a field that occurs twice are joined."""

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in fields:
            low, text = bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1")
            self._values[low] = f"{self._values[low]}, {text}" if low in self._values else text

    def __getitem__(self, name: str) -> str:
        value = self._values.get(name.lower())
        if value is None:
            raise MissingHeader(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class Outcome:
    """What became of a request, for `settle`.

    Attributes:
      request: the ASGI scope or the WSGI environ.
      decision: the Decision.
      status: the status of the response; 500 if the application began no response. 101: a WebSocket was opened.
      headers: the header fields of the response, by their names in any case.
      body: the last `body_bytes` bytes of the body, as they were sent.
      size: the bytes of the whole body.
      complete: the application sent its whole response. False after an exception, or if the client hung up.
      exception: the exception that ended the application, such as asyncio.CancelledError; None if there was none.
    """

    __slots__ = ("body", "complete", "decision", "exception", "headers", "request", "size", "status")

    def __init__(
        self,
        request: Any,
        decision: Decision,
        status: int,
        headers: Mapping[str, str],
        body: bytes = b"",
        size: int = 0,
        complete: bool = True,
        exception: Optional[BaseException] = None,
    ) -> None:
        self.request, self.decision, self.status, self.headers = request, decision, status, headers
        self.body, self.size, self.complete, self.exception = body, size, complete, exception

    def json(self) -> Any:
        """The value of a JSON body. ValueError if it is no JSON, or if body_bytes is too small for it."""
        if len(self.body) < self.size:
            raise ValueError(f"the body has {self.size} bytes, but body_bytes keeps only {len(self.body)}")
        return json.loads(self.body)

    def __repr__(self) -> str:
        return (f"Outcome(status={self.status}, size={self.size}, complete={self.complete}, "
                f"exception={self.exception!r})")


class Settlement:
    """Records the response to one request, and settles its reservations once."""

    def __init__(self, middleware: Middleware, request: Any, decision: Decision, answers: Sequence[Answer]) -> None:
        self._middleware, self._request, self._decision = middleware, request, decision
        self._answers = answers
        self._keeps = max(ask.policy.body_bytes for answer in answers for ask in answer.group.asks)
        self._status, self._fields = 500, []  # type: tuple[int, list[tuple[bytes, bytes]]]
        self._tail = bytearray()
        self._done = False
        self.size = 0
        self.hung_up = False  # the application has been told so

    def start(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self._status, self._fields = status, list(fields)

    def add(self, block: bytes) -> None:
        self.size += len(block)
        keeps = self._keeps
        if keeps:
            self._tail += block[-keeps:]
            if len(self._tail) > keeps:
                del self._tail[:-keeps]

    async def finish(self, complete: bool, exception: BaseException | None = None) -> None:
        """Raises nothing: a settle that fails leaves the drops charged."""
        if self._done:
            return
        self._done = True
        outcome = Outcome(self._request, self._decision, self._status, Headers(self._fields), bytes(self._tail), self.size,
                          complete, exception)
        for answer in self._answers:
            await self._settle(answer, outcome)

    async def _settle(self, answer: Answer, outcome: Outcome) -> None:
        if answer.result._reservation is None:  # on_error has answered
            return
        actuals: list[int] = []
        changes = False
        for ask in answer.group.asks:
            granted = [bucket.result for bucket in answer.buckets() if bucket.ask is ask]
            actual = await self._actual(ask, granted, outcome)
            changes = changes or actual is not None
            actuals += [result.granted for result in granted] if actual is None else actual
        if not changes:
            return
        names = ", ".join(repr(ask.policy.name) for ask in answer.group.asks)
        try:
            settled = await answer.group.give_back(answer.result, tuple(actuals))
            why = settled.error if settled is not None and settled.source == "policy" else None
        except Exception as error:
            why = described(error)
        if why is not None:
            self._middleware._warn(f"settle {names}", "policy %s could not be settled, so its drops may stay charged: %s",
                                   names, why)

    async def _actual(self, ask: Ask, granted: Sequence[ThrottleResult], outcome: Outcome) -> list[int] | None:
        """The true cost for each limit. None: all stays charged."""
        policy = ask.policy
        if policy.settle is None:
            return None
        try:
            actual = await self._middleware._awaited(policy.settle(outcome))
            return None if actual is None else each_actual(actual, ask, granted)
        except (Exception, CancelledError) as error:  # a task that settle awaits may be cancelled
            self._middleware._warn(f"settle {policy.name}", "policy %r: settle failed, so the drops stay charged: %s",
                                   policy.name, described(error))
            return None


def each_actual(actual: Any, ask: Ask, granted: Sequence[ThrottleResult]) -> list[int]:
    """A limit that a dry run has denied was charged nothing, so it is settled with nothing."""
    names = list(ask.throttler._names)
    if isinstance(actual, Mapping):
        unknown = [name for name in actual if name not in names]
        if unknown:
            raise ValueError(f"it names the limit {unknown[0]!r}; the limits are {', '.join(map(repr, names))}")
        actuals = [actual.get(name, result.granted) for name, result in zip(names, granted)]
    elif isinstance(actual, (tuple, list)):
        if len(actual) != len(names):
            raise ValueError(f"it returned {len(actual)} numbers; the throttler has {len(names)} limits")
        actuals = list(actual)
    else:
        actuals = [actual] * len(names)
    for each in actuals:
        if not isinstance(each, int) or isinstance(each, bool):
            raise TypeError(f"it returned {type(each).__name__} where a number of drops was expected")
        if each < 0:
            raise ValueError(f"it returned {each}, which is negative")
    return [each if result.success else 0 for each, result in zip(actuals, granted)]
