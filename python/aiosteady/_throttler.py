# SPDX-License-Identifier: MIT
"""What Throttler and Limit of aiosteady and of aiosteady.blocking have in common."""
from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, Optional, Union

from . import _core
from ._rates import Rate
from ._reserve import Amount, Key
from ._stats import ThrottlerStats
from ._texts import throttler_text


class BaseThrottler(_core.Throttler):
    """`_options`: the arguments of _core.Throttler from `limits` on, and whether they were given without `limits`."""

    __slots__ = ()
    _options: tuple[Any, ...]

    @property
    def limits(self) -> dict[str, Rate]:
        """The limits by their names."""
        return {name: Rate(*spec[1:]) for name, spec in zip(self._names, self._options[0])}

    @property
    def _max_ahead(self) -> Optional[float]:
        max_ahead: Optional[float] = self._options[4]
        return max_ahead

    def stats(self) -> ThrottlerStats:
        """Returns the counters of this throttler in this process, since it was made. They stay after its store is closed."""
        return super().stats()

    def _reservation_of(self, reservation: object, actual: Amount) -> _core.Reservation:
        """The arguments of settle(), checked. `reservation`: a text, or a Reservation of either kind."""
        held = _core.Reservation(reservation) if isinstance(reservation, str) else getattr(reservation, "_core", None)
        if not isinstance(held, _core.Reservation):
            raise TypeError(f"reservation must be the text of a reservation, not {type(reservation).__name__}")
        held.check(actual)
        return held

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseThrottler) or type(other) is not type(self):
            return NotImplemented
        return (self.redis, self._options) == (other.redis, other._options)

    def __hash__(self) -> int:
        return hash((self.redis, self._options[0]))

    def __repr__(self) -> str:
        return throttler_text(self, *self._options[1:])


class BaseLimit:
    """`_throttler`: of the module of the subclass."""

    __slots__ = ("_amount", "_key", "_throttler", "_timeout")

    def __init__(
        self, throttler: Any, key: Union[Key, Callable[..., Key]], amount: Amount, timeout: Optional[float]
    ) -> None:
        self._throttler, self._key, self._amount, self._timeout = throttler, key, amount, timeout

    def _key_of_block(self) -> Key:
        if callable(self._key):
            raise TypeError("key must be str or bytes in a `with` statement; a function is for decorators")
        return self._key

    def _key_of_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Key:
        return self._key(*args, **kwargs) if callable(self._key) else self._key


def is_async(function: Any) -> bool:
    """Also true for callable objects and partials, and for objects with the mark of asyncio, such as mocks."""
    while isinstance(function, functools.partial):
        function = function.func
    mark = getattr(asyncio.coroutines, "_is_coroutine", None)
    return (
        inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(getattr(type(function), "__call__", None))
        or (mark is not None and getattr(function, "_is_coroutine", None) is mark)
    )
