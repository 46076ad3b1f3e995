# SPDX-License-Identifier: MIT
"""The same calls without await, for programs without an event loop. They may be made from any thread, and after a fork.

    from aiosteady.blocking import Throttler

    throttler = Throttler("redis://localhost", max_capacity=10, drop_recharge=5.0)
    result = throttler.consume(f"user:{user_id}")

While a call waits for the server, it releases the GIL. All threads share the connections of a Store.
"""
from __future__ import annotations

import functools
import inspect
import sys
import threading
import time
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Optional, TypeVar, Union, overload

from . import _core
from ._core import ThrottleResult
from ._lines import log
from ._parts import Given, Part, call_of
from ._rates import Limits, Rate, specs_of_arguments
from ._reserve import Amount, Denied, Key, Reserved
from ._texts import shown, store_text
from ._throttler import BaseLimit, BaseThrottler, is_async
from ._waiting import LATE, NO_BLOCK, Retry, deadline_of, no_answer_in_time, no_attempt_left, no_room_in_time, us_of

R = TypeVar("R")
if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    from .testing import Clock

    P = ParamSpec("P")
else:
    Clock = _core.Clock  # for typing.get_type_hints
    P = getattr(typing, "ParamSpec", TypeVar)("P")  # of Python 3.10 and later

__all__ = ["Denied", "Limit", "Part", "Rate", "Reservation", "Store", "ThrottleResult", "Throttler", "connect",
           "consume_all", "peek_all"]

TIMEOUT = 0.1  # seconds; the default of a store


class Store(_core.BlockingStore):
    """The place where buckets are kept. Throttlers and threads can share a Store.

    After a fork the child goes on with it, over connections of its own.

    Arguments:
      url: see aiosteady.connect().
      connections: the connections to the server that all threads share; at most 64. The default is 1. In a cluster it
        is the number for each node.
      The other arguments are those of aiosteady.Store. max_in_flight is for each connection.
    """

    __slots__ = ("__weakref__", "_given", "_timeout")

    def __init__(
        self,
        url: str,
        *,
        connections: int = 0,
        timeout: Optional[float] = None,
        max_in_flight: int = 0,
        buckets: int = 0,
        engine: Literal["auto", "script", "module"] = "auto",
        connect_timeout: Optional[float] = None,
        client_name: Optional[str] = None,
        deny_memory: Optional[float] = None,
        lease_age: Optional[float] = None,
        clock: Optional[Clock] = None,
    ) -> None:
        super().__init__()  # __new__ of the base has read the arguments
        self._given = (connections, timeout, max_in_flight, buckets, engine, connect_timeout, client_name,
                       deny_memory, lease_age)
        self._timeout = 0.0 if url.startswith(("memory:", "file:")) else timeout or TIMEOUT

    def close(self) -> None:
        """Closes the store and its connections. Calls of other threads end as Cancelled, or as Closed."""
        super().close()

    def stats(self) -> dict[str, int]:
        """Returns the counters of this process since the Store was made."""
        return super().stats()

    def __repr__(self) -> str:
        return store_text(self, *getattr(self, "_given", ()))  # a subclass may not call __init__

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def connect(
    url: str,
    *,
    connections: int = 0,
    timeout: Optional[float] = None,
    max_in_flight: int = 0,
    buckets: int = 0,
    engine: Literal["auto", "script", "module"] = "auto",
    connect_timeout: Optional[float] = None,
    client_name: Optional[str] = None,
    deny_memory: Optional[float] = None,
    lease_age: Optional[float] = None,
    clock: Optional[Clock] = None,
) -> Store:
    """Returns a Store for a URL. It checks the arguments and sends nothing before the first decision."""
    return Store(
        url,
        connections=connections,
        timeout=timeout,
        max_in_flight=max_in_flight,
        buckets=buckets,
        engine=engine,
        connect_timeout=connect_timeout,
        client_name=client_name,
        deny_memory=deny_memory,
        lease_age=lease_age,
        clock=clock,
    )


class Throttler(BaseThrottler, _core.BlockingThrottler):
    """One limit or several, and the store with their buckets. Each key has a bucket for each limit.

    The arguments are those of aiosteady.Throttler. `redis` is a URL or a Store of aiosteady.blocking.
    """

    __slots__ = ("__weakref__", "_clock", "_options", "_own", "_patience")

    @overload
    def __init__(
        self,
        redis: Union[str, Store],
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
        redis: Union[str, Store],
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
        redis: Union[str, Store],
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
        if not isinstance(redis, (str, Store)):
            raise TypeError(f"redis must be a URL or a Store of aiosteady.blocking, not {type(redis).__module__}."
                            f"{type(redis).__qualname__}")
        self._own = Store(redis) if isinstance(redis, str) else None
        target = redis if isinstance(redis, Store) else self._own
        super().__init__(redis, target, specs, prefix, on_error, local_share, max_ahead, clamp)
        self._options = (specs, prefix, on_error, local_share, max_ahead, clamp, limits is None)
        self._patience = target._timeout if target is not None else 0.0
        self._clock = target.clock if target is not None else None

    # consume, peek, charge and reset are those of the base.

    # ---- Reserve, then settle ----

    def reserve(
        self, key: Key, amount: Amount = 1, *, max_wait: Optional[float] = 0, at_least: Optional[int] = None
    ) -> Reservation:
        """Charges an estimate, and corrects it when the cost is known:

            with throttler.reserve(key, 500) as r:
                r.actual = work()

        It raises Denied if the drops do not fit; then the block does not run. With max_wait it waits in line before the
        block. If an exception such as KeyboardInterrupt ends that wait, nothing stays charged. See Reservation.
        """
        return Reservation(self, key, amount, max_wait, at_least)

    def settle(self, reservation: Union[str, Reservation], actual: Amount) -> ThrottleResult:
        """Settles a reservation of another process, from its text.

        It gives back what was estimated too much, except for what has leaked meanwhile, and charges what was too little.
        Do it once: a second time would give back, or charge, again.
        """
        return self._settle(self._reservation_of(reservation, actual), actual)

    def _settle(self, reservation: _core.Reservation, actual: Amount) -> ThrottleResult:
        return _decided(_core.Call.settle(self, reservation, actual))

    # ---- Waiting ----

    def wait(self, key: Key, amount: Amount = 1, timeout: Optional[float] = None) -> ThrottleResult:
        """Waits in line until the drops fit, and returns the result. They are charged at once, as a place in line.

        The store serves callers of all processes first come, first served. If an exception such as KeyboardInterrupt
        ends the wait, the place is given back. A wait never starts a block. If the key is blocked, it waits until the
        block ends.

        Raises TimeoutError:
          - at once, without charging, if there cannot be room within `timeout` seconds;
          - after `timeout` seconds if the store has not answered. Its __cause__ is Unknown: the drops may have been
            charged.
        A timeout of 0 makes one attempt, and waits for its answer as consume() does.
        """
        now = time.monotonic if self._clock is None else self._clock.now
        deadline = deadline_of(timeout, now())
        once = timeout is not None and timeout <= 0
        retry = Retry()
        while True:
            asked = 0 if self._clock is None else self._clock._us
            left = None if deadline is None else max(deadline - now(), NO_BLOCK)
            if left is None or once or left >= self._patience:
                result = self._wait_in_line(key, amount, left)
            else:
                result = _answer_in_time(self, key, amount, left)
            if result.success:
                return result
            delay = retry.delay(result, deadline is not None)
            if deadline is not None and (delay == 0 or once or now() + delay > deadline):
                raise no_attempt_left(result, amount, left or 0.0, self._max_ahead)
            if self._clock is None:
                time.sleep(delay)
            else:
                self._clock._wait(asked + us_of(delay))

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
        """Calls wait() before a block of code or a function.

        Use it as `with throttler.limit(key):` or as the decorator `@throttler.limit(key)`. As a decorator, `key` may be
        a function that gets the arguments of the call and returns the key.

        On a plain function that is an endpoint of Starlette or FastAPI and gets the request, it answers as that of
        aiosteady.Throttler does.
        """
        return Limit(self, key, amount, timeout)

    # ---- Life ----

    def close(self) -> None:
        """Closes the store if the throttler was made with a URL. A Store stays open; close it yourself."""
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Throttler:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


# ---- Several keys ----


def consume_all(
    parts: Sequence[Given],
    *,
    max_wait: Optional[float] = 0,
    at_least: Optional[int] = None,
) -> ThrottleResult:
    """Decides on several keys: all or nothing. The same as aiosteady.consume_all(), for throttlers of this module."""
    return _decided(call_of(_core.CONSUME_ALL, parts, max_wait, at_least, blocking=True))


def peek_all(
    parts: Sequence[Given],
    *,
    max_wait: Optional[float] = 0,
    at_least: Optional[int] = None,
) -> ThrottleResult:
    """Returns what consume_all() would answer now, and changes nothing. Levels are those before the call."""
    return _decided(call_of(_core.PEEK_ALL, parts, max_wait, at_least, blocking=True))


def _decided(call: _core.Call) -> ThrottleResult:
    answer = _core.decide(call)
    assert isinstance(answer, ThrottleResult), "the throttlers have no event loop"
    return answer


# ---- Deadlines ----


class _Question:
    """A wait() whose answer may come later than its deadline. It is asked in a thread of its own."""

    def __init__(self, throttler: Throttler, key: Key, amount: Amount, left: float) -> None:
        self.throttler, self.key, self.amount, self.left = throttler, key, amount, left
        self.lock = threading.Lock()
        self.answered = threading.Event()
        self.abandoned = False
        self.result: Optional[ThrottleResult] = None
        self.error: Optional[BaseException] = None

    def ask(self) -> None:
        try:
            self.result = self.throttler._wait(self.key, self.amount, self.left)
        except BaseException as error:
            self.error = error
        with self.lock:
            self.answered.set()
        if self.abandoned and self.result is not None and self.result.success:
            self.throttler._give_back(self.result)

    def abandon(self) -> bool:
        """False: the answer has come."""
        with self.lock:
            self.abandoned = not self.answered.is_set()
        return self.abandoned


def _answer_in_time(throttler: Throttler, key: Key, amount: Amount, left: float) -> ThrottleResult:
    """For a timeout shorter than that of the store. A call on the store cannot be cut short."""
    deadline = time.monotonic() + left
    question = _Question(throttler, key, amount, left)
    threading.Thread(target=question.ask, name="aiosteady.wait", daemon=True).start()
    try:
        question.answered.wait(left)
    except BaseException:  # of a signal handler; the answer may have come meanwhile
        if not question.abandon() and question.result is not None:
            throttler._give_back(question.result)
        raise
    if question.abandon():
        raise no_answer_in_time()
    result, error = question.result, question.error
    if result is None:
        assert error is not None, "a question ends with a result or an error"
        raise error
    if time.monotonic() + result.must_wait > deadline + LATE and result.must_wait > LATE:
        throttler._give_back(result)
        raise no_room_in_time(result.must_wait)
    return throttler._await_turn(result)


# ---- Context managers ----


class Reservation(Reserved):
    """Returned by Throttler.reserve(): a context manager, to be used once.

    Set `actual` to the true cost in the block: an int, or a mapping by the name of the limit. If it is not set, the
    reserved amount stays charged.
    """

    __slots__ = ()

    def __enter__(self) -> Reservation:
        self._use()
        result = self._throttler._reserve_in_line(self._key, self._amount, self._max_wait, self._at_least)
        if not result.success:
            raise Denied(result)
        self._core, self._result = result._reservation, result
        return self

    def __exit__(self, *error: object) -> None:
        """Settles. An error is logged, so it hides no error of the block."""
        if self._core is None or self._actual is None:
            return
        try:
            self._throttler._settle(self._core, self._actual)
        except Exception as failure:
            log.warning("a reservation could not be settled: %s", failure)


class Limit(BaseLimit):
    """Returned by Throttler.limit(): a context manager, and a decorator for functions."""

    __slots__ = ()

    def __enter__(self) -> ThrottleResult:
        result: ThrottleResult = self._throttler.wait(self._key_of_block(), self._amount, self._timeout)
        return result

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if is_async(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{shown(function)} must be a plain function; for a coroutine function use aiosteady.Throttler")
        if not callable(function):
            raise TypeError(f"limit decorates a function, not {type(function).__name__}")

        on_endpoint: Any = None

        @functools.wraps(function)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal on_endpoint
            key = self._key_of_call(args, kwargs)
            request = None
            if "starlette.routing" in sys.modules:
                from . import _endpoint

                request = _endpoint.request_of_call(args, kwargs, sys._getframe(1), in_thread=True)
            if request is None:
                self._throttler.wait(key, self._amount, self._timeout)
                return function(*args, **kwargs)
            if on_endpoint is None:
                on_endpoint = _endpoint.LimitOnEndpoint(
                    _endpoint.BlockingLimit, self._throttler, function, self._amount, self._timeout)
            response: R = on_endpoint.run_blocking(request, key, functools.partial(function, *args, **kwargs))
            return response

        return limited
