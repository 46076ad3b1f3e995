# SPDX-License-Identifier: MIT
"""Throttler, and Limit for `async with` and decorators."""
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

# typing.get_type_hints evaluates the annotations here, on Python 3.9 too. So their names are imported, and we write
# Optional[X].
R = TypeVar("R")
if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    Line = OrderedDict[asyncio.Future[bool], None]  # the turns of waiters; False: its deadline has passed
else:
    P = getattr(typing, "ParamSpec", TypeVar)("P")  # of Python 3.10 and later

Key = Union[str, bytes]

__all__ = ["Limit", "ThrottleResult", "Throttler"]

JITTER_SHARE, JITTER_LEAST, JITTER_MOST = 0.1, 0.001, 0.05  # share of a wait; seconds
BACKOFF_FIRST, BACKOFF_LAST = 0.1, 1.0  # seconds, while the store gives no verdict


class Throttler(_core.Throttler):
    """A limit, and the store with its buckets. Each key has one bucket.

    Arguments:
      redis: a URL, a Store, or an asyncio client for Redis or Valkey.
      max_capacity: the drops that a bucket can hold.
      drop_recharge: the seconds in which `drops` drops leak.
      block_duration: the seconds for which an overflow blocks its key. None: it does not block.
      drops: the drops that leak in `drop_recharge` seconds, 1 by default.
      prefix: a text before every key.
      on_error: the answer if the store gives no verdict. "report" raises an exception. "allow" and "deny" return a
        result. "local" uses a bucket in this process.
      local_share: divides the limit of the local bucket. Set it to the number of processes that share the limit.
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
        limits = ((None, max_capacity, drop_recharge, block_duration, drops),)
        super().__init__(redis, target, limits, prefix, on_error, local_share, None, False)
        self._options = (drops, prefix, on_error, local_share)
        self._lines: dict[tuple[asyncio.AbstractEventLoop, bytes], Line] = {}

    async def consume(self, key: Key, amount: int = 1) -> ThrottleResult:
        """Puts `amount` drops into the bucket if they all fit. A negative amount takes drops out.

        Look at `success` of the result. If it is False, no drop was charged. If the store gives no verdict, `on_error` of
        the throttler applies.
        """
        answer = self._consume(key, amount)
        return answer if type(answer) is ThrottleResult else await answer

    async def peek(self, key: Key) -> ThrottleResult:
        """Returns the state of the bucket and changes nothing. `success` is True if one drop would fit."""
        answer = self._peek(key)
        return answer if type(answer) is ThrottleResult else await answer

    async def reset(self, key: Key) -> ThrottleResult:
        """Deletes the bucket. A new one is empty and not blocked."""
        answer = self._reset(key)
        return answer if type(answer) is ThrottleResult else await answer

    async def wait(self, key: Key, amount: int = 1, timeout: Optional[float] = None) -> ThrottleResult:
        """Waits until the drops fit, charges them, and returns the result.

        Raises TimeoutError:
          - at once, without charging, if there cannot be room within `timeout` seconds;
          - after `timeout` seconds if the store has not answered. Its __cause__ is Unknown: the drops may have been
            charged.
        A timeout of 0 makes one attempt, and waits for its answer as consume() does.

        Waiters for a key are served in order (FIFO) within one Throttler and event loop. Only the first one asks the
        store, and only when there can be room. An attempt never starts a block. If the key is blocked, it waits until
        the block ends.
        """
        amount = self._check_amount(key, amount)
        key = key.encode() if isinstance(key, str) else key
        loop = asyncio.get_running_loop()
        deadline = _deadline(loop, timeout)
        line = self._lines.setdefault((loop, key), OrderedDict())
        turn = loop.create_future()
        line[turn] = None
        try:
            if len(line) > 1:
                await _turn_in_time(turn, deadline)
            return await self._wait_in_front(key, amount, deadline, once=timeout is not None and timeout <= 0)
        finally:
            self._leave(loop, key, turn)

    def _leave(self, loop: asyncio.AbstractEventLoop, key: bytes, turn: asyncio.Future[bool]) -> None:
        if loop.is_closed():  # no task runs on, and only the line may keep its futures alive
            self._lines.pop((loop, key), None)
            return
        line = self._lines[loop, key]
        del line[turn]
        if not line:
            del self._lines[loop, key]
            return
        first = next(iter(line))  # if it is done, its task runs already, or leaves and then wakes the next
        if not first.done():
            first.set_result(True)

    async def _wait_in_front(
        self, key: bytes, amount: int, deadline: Optional[float], *, once: bool
    ) -> ThrottleResult:
        loop = asyncio.get_running_loop()
        backoff = BACKOFF_FIRST
        while True:
            began = loop.time()
            answer = self._consume_without_block(key, amount)
            if type(answer) is ThrottleResult:
                result = answer
            elif deadline is None or once:
                result = await answer
            else:
                result = await _answer_in_time(loop, answer, deadline)
            if result.success:
                return result
            delay = result.retry_after
            if delay is None or result.source == "policy":  # no verdict, so the wait is unknown: back off
                delay, backoff = backoff, min(2 * backoff, BACKOFF_LAST)
            jitter = random.uniform(0, min(JITTER_MOST, JITTER_LEAST + JITTER_SHARE * delay))
            if deadline is not None:  # the next answer may take a bit longer than this one
                now = loop.time()
                took = now - began
                left = deadline - now - took - min(took, JITTER_MOST)
                if delay > left:
                    raise TimeoutError(_timeout_text(result, amount))
                jitter = min(jitter, left - delay)
            await asyncio.sleep(delay + jitter)

    def limit(
        self, key: Union[Key, Callable[..., Key]], amount: int = 1, timeout: Optional[float] = None
    ) -> Limit:
        """Calls wait() before a block of code or a coroutine function.

        Use it as `async with throttler.limit(key):` or as the decorator `@throttler.limit(key)`. As a decorator, `key`
        may be a function that gets the arguments of the call and returns the key.
        """
        return Limit(self, key, amount, timeout)

    async def aclose(self) -> None:
        """Closes the store if the throttler was made with a URL. A Store or a client stays open; close it yourself."""
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


def _timeout_text(result: ThrottleResult, amount: int) -> str:
    if result.source == "store":
        return f"the bucket has no room in time: it would take {result.retry_after:.3f} s"
    no_verdict = f"the store gives no verdict ({result.error})"
    if result.source == "policy":
        return no_verdict
    if result.retry_after is None:
        return f"{no_verdict}, and the local bucket can never hold {amount} drops"
    return f"{no_verdict}, and the local bucket has no room in time: it would take {result.retry_after:.3f} s"


async def _turn_in_time(turn: asyncio.Future[bool], deadline: Optional[float]) -> None:
    def too_late() -> None:
        if not turn.done():
            turn.set_result(False)

    timer = None if deadline is None else turn.get_loop().call_at(deadline, too_late)
    try:
        if not await turn:
            raise TimeoutError("tasks that waited before for this key are still waiting")
    finally:
        if timer is not None:
            timer.cancel()


def _is_async(function: Any) -> bool:
    """Also true for callable objects and partials, and for objects with the mark of asyncio, such as mocks."""
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
    """Returns at the deadline, even if the client takes long to cancel its request."""
    task = loop.create_task(answer)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())  # or asyncio reports it
    try:
        await asyncio.wait({task}, timeout=deadline - loop.time())
        if task.done():
            return task.result()
    finally:
        task.cancel()
    raise _too_late()


def _too_late() -> TimeoutError:
    error = TimeoutError("the store has not answered in time; the drops may have been charged, or may be charged later")
    error.__cause__ = _core.Unknown("the answer did not come before the deadline of wait()")
    return error


class Limit:
    """Returned by Throttler.limit(): an asynchronous context manager, and a decorator for coroutine functions."""

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
            raise TypeError("key must be str or bytes in `async with`; a function is for decorators")
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
            raise TypeError(f"{shown(function)} must be a coroutine function")

        @functools.wraps(function)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            key = self._key(*args, **kwargs) if callable(self._key) else self._key
            await self._throttler.wait(key, self._amount, self._timeout)
            return await function(*args, **kwargs)

        return limited
