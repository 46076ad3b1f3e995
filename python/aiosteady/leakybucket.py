# SPDX-License-Identifier: MIT
"""Throttler, and Limit for `async with` and decorators."""
from __future__ import annotations

import asyncio
import functools
import operator
import sys
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal, Optional, TypeVar, Union, overload
from weakref import WeakValueDictionary

from . import _clients, _core
from ._core import ThrottleResult
from ._lines import NOT_GIVEN_BACK, Lines, in_background, wait_in_line
from ._rates import Limits, specs_of_arguments
from ._reserve import Amount, Key, Reservation
from ._store import Store
from ._texts import shown
from ._throttler import BaseLimit, BaseThrottler, is_async
from ._waiting import LATE, NO_BLOCK, Retry, deadline_of, no_answer_in_time, no_attempt_left, no_room_in_time, us_of

# typing.get_type_hints evaluates the annotations here, on Python 3.9 too. So their names are imported, and we write
# Optional[X].
R = TypeVar("R")
if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")
else:
    P = getattr(typing, "ParamSpec", TypeVar)("P")  # of Python 3.10 and later

__all__ = ["Limit", "ThrottleResult", "Throttler"]


class Throttler(BaseThrottler):
    """One limit or several, and the store with their buckets. Each key has a bucket for each limit.

    Arguments:
      redis: a URL, a Store, or an asyncio client for Redis or Valkey.
      max_capacity: the drops that a bucket can hold.
      drop_recharge: the seconds in which `drops` drops leak.
      block_duration: the seconds for which an overflow blocks its key. None: it does not block.
      limits: in place of the three before: rates such as ["10/second", "1000/hour"], or a mapping of names to rates.
        A limit without a name is named by its period, such as "1s".
      drops: the drops that leak in `drop_recharge` seconds, 1 by default.
      prefix: a text before every key.
      on_error: the answer if the store gives no verdict. "report" raises an exception. "allow" and "deny" return a
        result. "local" uses a bucket in this process.
      local_share: divides the limit of the local bucket. Set it to the number of processes that share the limit.
      max_ahead: the seconds that a caller may wait in line at most. A longer max_wait counts as this one.
      clamp: an amount over the capacity counts as the capacity, so an empty bucket always allows it.
    """

    __slots__ = ("__weakref__", "_clock", "_lines", "_options", "_own")

    @overload
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
        max_ahead: Optional[float] = None,
        clamp: bool = False,
    ) -> None: ...

    @overload
    def __init__(
        self,
        redis: Any,
        *,
        limits: Limits,
        block_duration: Optional[float] = None,
        prefix: str = "",
        on_error: Literal["report", "allow", "deny", "local"] = "report",
        local_share: int = 1,
        max_ahead: Optional[float] = None,
        clamp: bool = False,
    ) -> None: ...

    def __init__(
        self,
        redis: Any,
        max_capacity: Optional[int] = None,
        drop_recharge: Optional[float] = None,
        block_duration: Optional[float] = None,
        *,
        limits: Optional[Limits] = None,
        drops: int = 1,
        prefix: str = "",
        on_error: Literal["report", "allow", "deny", "local"] = "report",
        local_share: int = 1,
        max_ahead: Optional[float] = None,
        clamp: bool = False,
    ) -> None:
        specs = specs_of_arguments(limits, max_capacity, drop_recharge, block_duration, drops)
        self._own = Store(redis) if isinstance(redis, str) else None
        target = self._own or (redis if isinstance(redis, Store) else _clients.adapt(redis))
        super().__init__(redis, target, specs, prefix, on_error, local_share, max_ahead, clamp)
        self._options = (specs, prefix, on_error, local_share, max_ahead, clamp, limits is None)
        self._lines: Lines = WeakValueDictionary()
        self._clock = target.clock if isinstance(target, Store) else None

    async def consume(
        self, key: Key, amount: Amount = 1, *, max_wait: Optional[float] = 0, at_least: Optional[int] = None
    ) -> ThrottleResult:
        """Puts `amount` drops into the bucket if they all fit. A negative amount takes drops out.

        Look at `success` of the result. If it is False, no drop was charged. If the store gives no verdict, `on_error` of
        the throttler applies.

        Arguments:
          key: a str or bytes.
          amount: an int. With several limits it counts for each; or give a tuple in their order, or a mapping by name.
            If one limit denies, nothing is charged.
          max_wait: take a place in line, if the drops will fit within these seconds; None: without a bound. The call
            returns at once. Then wait for `must_wait` seconds of the result before you go ahead. See wait().
          at_least: take as much as fits, if it is this number or more. `granted` of the result says how much.
        """
        answer = self._consume(key, amount, max_wait, at_least)
        return answer if type(answer) is ThrottleResult else await answer

    async def peek(
        self, key: Key, amount: Amount = 1, *, max_wait: Optional[float] = 0, at_least: Optional[int] = None
    ) -> ThrottleResult:
        """Returns what consume() would answer now, and changes nothing. Levels are those before the call."""
        answer = self._peek(key, amount, max_wait, at_least)
        return answer if type(answer) is ThrottleResult else await answer

    async def charge(self, key: Key, amount: Amount) -> ThrottleResult:
        """Puts drops in whatever the level, also if the key is blocked: for a cost that has already arisen.

        The level can pass the capacity. `granted` of the result says how many drops went in.
        """
        answer = self._charge(key, amount)
        return answer if type(answer) is ThrottleResult else await answer

    async def reset(self, key: Key) -> ThrottleResult:
        """Deletes the bucket. A new one is empty and not blocked."""
        answer = self._reset(key)
        return answer if type(answer) is ThrottleResult else await answer

    # ---- Reserve, then settle ----

    def reserve(
        self, key: Key, amount: Amount = 1, *, max_wait: Optional[float] = 0, at_least: Optional[int] = None
    ) -> Reservation:
        """Charges an estimate, and corrects it when the cost is known:

            async with throttler.reserve(key, 500) as r:
                r.actual = await work()

        It raises Denied if the drops do not fit; then the block does not run. With max_wait it waits in line before the
        block. If the task is cancelled while it waits, nothing stays charged. See Reservation.
        """
        return Reservation(self, key, amount, max_wait, at_least)

    async def settle(self, reservation: Union[str, Reservation], actual: Amount) -> ThrottleResult:
        """Settles a reservation of another process, from its text.

        It gives back what was estimated too much, except for what has leaked meanwhile, and charges what was too little.
        Do it once: a second time would give back, or charge, again.
        """
        return await self._settle(self._reservation_of(reservation, actual), actual)

    async def _settle(self, reservation: _core.Reservation, actual: Amount) -> ThrottleResult:
        answer = _core.decide(_core.Call.settle(self, reservation, actual))
        return answer if type(answer) is ThrottleResult else await answer

    def _give_back(self, reservation: _core.Reservation) -> None:
        answer = _core.decide(_core.Call.settle(self, reservation, None))
        if type(answer) is not ThrottleResult:
            in_background(answer, NOT_GIVEN_BACK)

    def _now(self) -> float:
        """The time of deadlines, in seconds."""
        return asyncio.get_running_loop().time() if self._clock is None else self._clock.now()

    async def _wait_for(
        self, seconds: float, asked: int, name: object, reservation: Optional[_core.Reservation]
    ) -> Optional[_core.Reservation]:
        """`asked`: the time of the clock of the store before the call that said how long to wait."""
        due = _core.monotonic() + seconds if self._clock is None else asked + us_of(seconds)
        return await wait_in_line(self._lines, name, self._clock, due, reservation, self._give_back)

    async def _stand_in_line(
        self, key: Key, amount: Amount, result: ThrottleResult, asked: int, deadline: Optional[float] = None
    ) -> Optional[_core.Reservation]:
        """Waits for must_wait of the result. Returns the reservation of the place that it had at the end."""
        reservation, left = result._reservation, result.must_wait
        if deadline is not None and self._now() + left > deadline + LATE:  # a late answer
            if reservation is not None:
                self._give_back(reservation)
            raise no_room_in_time(left)
        name = (key.encode() if isinstance(key, str) else key, _hashable(amount))
        return await self._wait_for(left, asked, name, reservation)

    # ---- Waiting ----

    async def wait(self, key: Key, amount: Amount = 1, timeout: Optional[float] = None) -> ThrottleResult:
        """Waits in line until the drops fit, and returns the result. They are charged at once, as a place in line.

        The store serves callers of all processes first come, first served. If the task is cancelled, its place goes to
        the next waiter in this process for the same key and amount; the last place is given back. A wait never starts a
        block. If the key is blocked, it waits until the block ends.

        Raises TimeoutError:
          - at once, without charging, if there cannot be room within `timeout` seconds;
          - after `timeout` seconds if the store has not answered. Its __cause__ is Unknown: the drops may have been
            charged.
        A timeout of 0 makes one attempt, and waits for its answer as consume() does.
        """
        if timeout is not None:
            return await self._wait_until(key, amount, deadline_of(timeout, self._now()), timeout <= 0)
        asked = 0 if self._clock is None else self._clock._us
        answer = self._wait(key, amount, None)
        result = answer if type(answer) is ThrottleResult else await answer
        if result.success:
            if result.must_wait > 0:
                await self._stand_in_line(key, amount, result, asked)
            return result
        return await self._wait_until(key, amount, None, False, result)

    async def _wait_until(
        self, key: Key, amount: Amount, deadline: Optional[float], once: bool, result: Optional[ThrottleResult] = None
    ) -> ThrottleResult:
        """Asks until the call is allowed. A result that is given is the first answer."""
        loop = asyncio.get_running_loop()
        retry = Retry()
        while True:
            asked = 0 if self._clock is None else self._clock._us
            left = None if deadline is None else max(deadline - self._now(), NO_BLOCK)
            if result is None:
                answer = self._wait(key, amount, left)
                if type(answer) is ThrottleResult:
                    result = answer
                elif deadline is None or once:
                    result = await answer
                else:
                    result = await _answer_in_time(loop, answer, deadline)
            if result.success:
                if result.must_wait > 0:
                    await self._stand_in_line(key, amount, result, asked, None if once else deadline)
                return result
            delay = retry.delay(result, deadline is not None)
            if deadline is not None and (delay == 0 or once or self._now() + delay > deadline):
                raise no_attempt_left(result, amount, left or 0.0, self._max_ahead)
            await (asyncio.sleep(delay) if self._clock is None else self._wait_for(delay, asked, object(), None))
            result = None

    # The first two overloads tell pyright the types of the parameters of a lambda.
    @overload
    def limit(self, key: Callable[[Any], Key], amount: Amount = 1, timeout: Optional[float] = None) -> Limit: ...

    @overload
    def limit(self, key: Callable[[Any, Any], Key], amount: Amount = 1, timeout: Optional[float] = None) -> Limit: ...

    @overload
    def limit(
        self, key: Union[Key, Callable[..., Key]], amount: Amount = 1, timeout: Optional[float] = None
    ) -> Limit: ...

    def limit(
        self, key: Union[Key, Callable[..., Key]], amount: Amount = 1, timeout: Optional[float] = None
    ) -> Limit:
        """Calls wait() before a block of code or a coroutine function.

        Use it as `async with throttler.limit(key):` or as the decorator `@throttler.limit(key)`. As a decorator, `key`
        may be a function that gets the arguments of the call and returns the key.

        On an endpoint of FastAPI or Starlette, the decorator answers 429 in place of TimeoutError. Without a timeout it
        does not wait there. See aiosteady.fastapi.
        """
        return Limit(self, key, amount, timeout)

    async def aclose(self) -> None:
        """Closes the store if the throttler was made with a URL. A Store or a client stays open; close it yourself."""
        if self._own is not None:
            self._own.close()

    async def __aenter__(self) -> Throttler:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


def _hashable(amount: Amount) -> object:
    if isinstance(amount, Mapping):
        return tuple(sorted(amount.items()))
    return tuple(amount) if isinstance(amount, (tuple, list)) else operator.index(amount)


async def _answer_in_time(
    loop: asyncio.AbstractEventLoop, answer: Coroutine[Any, Any, ThrottleResult], deadline: float
) -> ThrottleResult:
    if loop.time() >= deadline:
        answer.close()
        raise TimeoutError("no time is left to ask the store; nothing was charged")
    if not isinstance(answer, _core.Decision):
        return await _client_in_time(loop, answer, deadline)
    timer = loop.call_at(deadline, lambda: answer.expire(no_answer_in_time()))
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
    raise no_answer_in_time()


class Limit(BaseLimit):
    """Returned by Throttler.limit(): an asynchronous context manager, and a decorator for coroutine functions."""

    __slots__ = ()

    async def __aenter__(self) -> ThrottleResult:
        result: ThrottleResult = await self._throttler.wait(self._key_of_block(), self._amount, self._timeout)
        return result

    async def __aexit__(self, *error: object) -> None:
        return None

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        if not is_async(function):
            raise TypeError(f"{shown(function)} must be a coroutine function; for a plain function use "
                            "aiosteady.blocking.Throttler")

        on_endpoint: Any = None

        @functools.wraps(function)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal on_endpoint
            key = self._key_of_call(args, kwargs)
            request = None
            if "starlette.routing" in sys.modules:
                from . import _endpoint

                request = _endpoint.request_of_call(args, kwargs, sys._getframe(1))
            if request is None:
                await self._throttler.wait(key, self._amount, self._timeout)
                return await function(*args, **kwargs)
            if on_endpoint is None:
                on_endpoint = _endpoint.LimitOnEndpoint(
                    _endpoint.AsyncLimit, self._throttler, function, self._amount, self._timeout)
            response: R = await on_endpoint.run(request, key, functools.partial(function, *args, **kwargs))
            return response

        return limited
