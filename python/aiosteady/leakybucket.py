# SPDX-License-Identifier: MIT
"""The throttler, and the result of what one asks it."""
from __future__ import annotations

import asyncio
import functools
import inspect
import math
import random
import typing
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Optional, TypeVar, Union

from . import _clients, _core
from ._core import ThrottleResult
from ._store import Store
from ._texts import shown

# typing.get_type_hints evaluates annotations here, on Python 3.9 too: so what they name is imported, and it is Optional[X].
R = TypeVar("R")
if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    Line = OrderedDict[asyncio.Future[bool], None]  # turns; False: one did not come in time
else:
    P = getattr(typing, "ParamSpec", TypeVar)("P")  # of Python 3.10 and later

Key = Union[str, bytes]

__all__ = ["Limit", "ThrottleResult", "Throttler"]

JITTER_SHARE, JITTER_LEAST, JITTER_MOST = 0.1, 0.001, 0.05  # of a wait; seconds
BACKOFF_FIRST, BACKOFF_LAST = 0.1, 1.0  # seconds, while the store does not answer


class Throttler(_core.Throttler):
    """Leaky buckets of one limit, one bucket a key.

    `redis` is a URL, a Store, or an asyncio client for Redis that you have. A bucket holds `max_capacity` drops; one
    leaks out every `drop_recharge` seconds (`drops` of them, where given). Where `block_duration` is given, an overflow
    blocks its key for so many seconds.

    `on_error` says what is answered when the store does not answer: "report" raises, "allow" and "deny" answer so, and
    "local" asks a bucket in this process with a `local_share`-th of the limit. `prefix` is put before every key.
    """

    __slots__ = ("__weakref__", "_lines", "_options", "_own")

    def __init__(
        self,
        redis: Any,
        max_capacity: int,
        drop_recharge: float,
        block_duration: Optional[float] = None,
        *,
        drops: int = 1,
        prefix: str = "",
        on_error: Literal["report", "allow", "deny", "local"] = "report",
        local_share: int = 1,
    ) -> None:
        self._own = Store(redis) if isinstance(redis, str) else None
        target = self._own or (redis if isinstance(redis, Store) else _clients.adapt(redis))
        super().__init__(
            redis, target, max_capacity, drop_recharge, block_duration, drops, prefix, on_error, local_share
        )
        self._options = (drops, prefix, on_error, local_share)
        self._lines: dict[tuple[asyncio.AbstractEventLoop, bytes], Line] = {}

    async def consume(self, key: Key, amount: int = 1) -> ThrottleResult:
        """Puts drops into the bucket if they all fit. A negative amount takes drops out."""
        answer = self._consume(key, amount)
        return answer if type(answer) is ThrottleResult else await answer

    async def peek(self, key: Key) -> ThrottleResult:
        """Looks at the bucket and changes nothing. `success`: one drop would fit."""
        answer = self._peek(key)
        return answer if type(answer) is ThrottleResult else await answer

    async def reset(self, key: Key) -> ThrottleResult:
        """Forgets the bucket: it is empty and not blocked."""
        answer = self._reset(key)
        return answer if type(answer) is ThrottleResult else await answer

    async def wait(self, key: Key, amount: int = 1, timeout: Optional[float] = None) -> ThrottleResult:
        """Returns once the drops are in.

        Raises TimeoutError at once, and charges nothing, if there cannot be room within `timeout` seconds. Raises it when
        they have passed and the store has not answered; its __cause__ is Unknown then: the drops may have been charged.
        With a timeout of 0 it asks once, and waits for the answer as consume() does.

        Waiters for a key of this throttler in this event loop take turns, first come, first served. Only the first asks,
        and not before there can be room. An attempt that finds no room starts no block. A block is waited for.
        """
        amount = self._fitting(key, amount)
        key = key.encode() if isinstance(key, str) else key
        loop = asyncio.get_running_loop()
        deadline = _deadline(loop, timeout)
        line = self._lines.setdefault((loop, key), OrderedDict())
        turn = loop.create_future()
        line[turn] = None
        try:
            if len(line) > 1:
                await _in_time(turn, deadline)
            return await self._wait_in_front(key, amount, deadline, once=timeout is not None and timeout <= 0)
        finally:
            self._leave(loop, key, turn)

    def _leave(self, loop: asyncio.AbstractEventLoop, key: bytes, turn: asyncio.Future[bool]) -> None:
        if loop.is_closed():  # nobody goes on, and the line may be all that holds those who stand in it
            self._lines.pop((loop, key), None)
            return
        line = self._lines[loop, key]
        del line[turn]
        if not line:
            del self._lines[loop, key]
            return
        first = next(iter(line))  # who stood there before has been told, or is leaving and will tell
        if not first.done():
            first.set_result(True)

    async def _wait_in_front(
        self, key: bytes, amount: int, deadline: Optional[float], *, once: bool
    ) -> ThrottleResult:
        loop = asyncio.get_running_loop()
        backoff = BACKOFF_FIRST
        while True:
            began = loop.time()
            answer = self._consume_patiently(key, amount)
            if type(answer) is ThrottleResult:
                result = answer
            elif deadline is None or once:
                result = await answer
            else:
                result = await _answer_in_time(loop, answer, deadline)
            if result.success:
                return result
            delay = result.retry_after
            if delay is None or result.source == "policy":  # not known: the store does not answer
                delay, backoff = backoff, min(2 * backoff, BACKOFF_LAST)
            jitter = random.uniform(0, min(JITTER_MOST, JITTER_LEAST + JITTER_SHARE * delay))
            if deadline is not None:  # the next answer may take as long as this one, and some more
                now = loop.time()
                took = now - began
                left = deadline - now - took - min(took, JITTER_MOST)
                if delay > left:
                    raise TimeoutError(_what_is_missing(result, amount))
                jitter = min(jitter, left - delay)
            await asyncio.sleep(delay + jitter)

    def limit(
        self, key: Union[Key, Callable[..., Key]], amount: int = 1, timeout: Optional[float] = None
    ) -> Limit:
        """`async with throttler.limit(key):` or `@throttler.limit(key)`: waits before it goes on.

        As a decorator it takes a function for a key, too, which is called with the arguments.
        """
        return Limit(self, key, amount, timeout)

    async def aclose(self) -> None:
        """Closes the store that it opened itself for a URL. A Store or a client that it was given stays open."""
        if self._own is not None:
            self._own.close()

    async def __aenter__(self) -> Throttler:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.aclose()

    def _fields(self) -> tuple[object, ...]:
        return (self.redis, self.max_capacity, self.drop_recharge, self.block_duration)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Throttler) or type(other) is not type(self):
            return NotImplemented
        return self._fields() == other._fields() and self._options == other._options

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        redis = _core.quote(self.redis) if isinstance(self.redis, str) else self.redis
        return (
            f"Throttler(redis={redis!r}, max_capacity={self.max_capacity!r}, drop_recharge={self.drop_recharge!r}, "
            f"block_duration={self.block_duration!r})"
        )


def _deadline(loop: asyncio.AbstractEventLoop, timeout: Optional[float]) -> Optional[float]:
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if math.isnan(timeout):
        raise ValueError("timeout must be a number of seconds, or None")
    return None if timeout == math.inf else loop.time() + timeout


def _what_is_missing(result: ThrottleResult, amount: int) -> str:
    if result.source == "store":
        return f"the bucket has no room in time: it would be {result.retry_after:.3f} s"
    silence = f"the store does not answer ({result.error})"
    if result.source == "policy":
        return silence
    if result.retry_after is None:
        return f"{silence}, and the local share never has room for {amount}"
    return f"{silence}, and the local share has no room in time: it would be {result.retry_after:.3f} s"


async def _in_time(turn: asyncio.Future[bool], deadline: Optional[float]) -> None:
    def too_late() -> None:
        if not turn.done():
            turn.set_result(False)

    timer = None if deadline is None else turn.get_loop().call_at(deadline, too_late)
    try:
        if not await turn:
            raise TimeoutError("others that came before are still waiting")
    finally:
        if timer is not None:
            timer.cancel()


def _is_async(function: Any) -> bool:
    """Also true for callable objects, for partials, and for what carries asyncio's own mark, such as mocks."""
    while isinstance(function, functools.partial):
        function = function.func
    mark = getattr(asyncio.coroutines, "_is_coroutine", None)
    return (
        inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(getattr(type(function), "__call__", None))
        or (mark is not None and getattr(function, "_is_coroutine", None) is mark)
    )


async def _answer_in_time(
    loop: asyncio.AbstractEventLoop, answer: Coroutine[Any, Any, ThrottleResult], deadline: float
) -> ThrottleResult:
    if loop.time() >= deadline:
        answer.close()
        raise TimeoutError("no time is left to ask the store; nothing was charged")
    if not isinstance(answer, _core.Decision):
        return await _client_in_time(loop, answer, deadline)
    timer = loop.call_at(deadline, lambda: answer.expire(_too_late()))
    try:
        return await answer
    finally:
        timer.cancel()


async def _client_in_time(
    loop: asyncio.AbstractEventLoop, answer: Coroutine[Any, Any, ThrottleResult], deadline: float
) -> ThrottleResult:
    """Ends at the deadline, even if the client is slow to cancel its request."""
    task = loop.create_task(answer)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())  # asyncio logs one that is not read
    try:
        await asyncio.wait({task}, timeout=deadline - loop.time())
        if task.done():
            return task.result()
    finally:
        task.cancel()
    raise _too_late()


def _too_late() -> TimeoutError:
    error = TimeoutError("the store has not answered in time; the drops may have been charged, or may be yet")
    error.__cause__ = _core.Unknown("the answer did not come before the deadline of the wait")
    return error


class Limit:
    """What Throttler.limit returns: an asynchronous context manager, and a decorator for coroutine functions."""

    __slots__ = ("_amount", "_key", "_throttler", "_timeout")

    def __init__(
        self,
        throttler: Throttler,
        key: Union[Key, Callable[..., Key]],
        amount: int,
        timeout: Optional[float],
    ) -> None:
        self._throttler, self._key, self._amount, self._timeout = throttler, key, amount, timeout

    async def __aenter__(self) -> ThrottleResult:
        if callable(self._key):
            raise TypeError("key must be str or bytes here; a function for a key is for decorators")
        return await self._throttler.wait(self._key, self._amount, self._timeout)

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        return None

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        if not _is_async(function):
            raise TypeError(f"{shown(function)} is no coroutine function")

        @functools.wraps(function)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            key = self._key(*args, **kwargs) if callable(self._key) else self._key
            await self._throttler.wait(key, self._amount, self._timeout)
            return await function(*args, **kwargs)

        return limited
