# SPDX-License-Identifier: MIT
"""Reservations: a cost that is known only afterwards."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _core
from ._core import ThrottleResult
from ._lines import log
from ._waiting import VERDICTS

Key = Union[str, bytes]
if TYPE_CHECKING:
    Amount = Union[int, tuple[int, ...], list[int], Mapping[str, int]]  # no other sequence, such as bytes
else:
    Amount = int  # FastAPI reads the types at run time: Throttler.consume as a dependency takes an int from the query


class Denied(_core.Error):
    """A reservation was denied. `result` says why."""

    def __init__(self, result: ThrottleResult) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        result = self.result
        limit = f" by the limit {result.name!r}" if result.name is not None else ""
        if result.source not in VERDICTS:
            return f"denied{limit}, because the store gave no verdict ({result.error})"
        if result.retry_after is None:
            return f"denied{limit}: the amount can never fit"
        return f"denied{limit}: try again in {result.retry_after:.3f} s"


Denied.__module__ = "aiosteady"


class Reserved:
    """What the reservations of aiosteady and of aiosteady.blocking have in common."""

    __slots__ = ("_actual", "_amount", "_at_least", "_core", "_key", "_max_wait", "_result", "_throttler", "_used")

    def __init__(
        self, throttler: Any, key: Key, amount: Amount, max_wait: Optional[float], at_least: Optional[int]
    ) -> None:
        self._throttler, self._key, self._amount = throttler, key, amount
        self._max_wait, self._at_least = max_wait, at_least
        self._actual: Optional[Amount] = None
        self._result: Optional[ThrottleResult] = None
        self._core: Optional[_core.Reservation] = None
        self._used = False

    @property
    def result(self) -> ThrottleResult:
        """The result of the call that reserved."""
        if self._result is None:
            raise RuntimeError("the reservation is not made yet: use it in a `with` statement")
        return self._result

    @property
    def actual(self) -> Optional[Amount]:
        """The true cost. None: the reserved amount stays charged."""
        return self._actual

    @actual.setter
    def actual(self, actual: Amount) -> None:
        if self._core is not None:
            self._core.check(actual)
        elif self._result is None:
            raise ValueError("actual is set too early: set it in the block of the `with` statement")
        # A copy, as checked.
        self._actual = tuple(actual) if isinstance(actual, list) else dict(actual) if isinstance(actual, Mapping) else actual

    @property
    def text(self) -> str:
        """The text form, for Throttler.settle() in another process. It holds the key. Empty if no store answered."""
        return self._core.text() if self._core is not None else ""

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        state = "not made yet" if self._result is None else f"result={self._result!r}, actual={self._actual!r}"
        return f"<Reservation {state}>"

    def _use(self) -> None:
        if self._used:
            raise ValueError("this reservation was used before; call reserve() again")
        self._used = True


class Reservation(Reserved):
    """Returned by Throttler.reserve(): an asynchronous context manager, to be used once.

    Set `actual` to the true cost in the block: an int, or a mapping by the name of the limit. If it is not set, the
    reserved amount stays charged.
    """

    __slots__ = ()

    async def __aenter__(self) -> Reservation:
        self._use()
        t = self._throttler
        asked = 0 if t._clock is None else t._clock._us
        answer = t._reserve(self._key, self._amount, self._max_wait, self._at_least)
        result = answer if type(answer) is ThrottleResult else await answer
        if not result.success:
            raise Denied(result)
        self._core = result._reservation
        if result.must_wait > 0:
            self._core = await t._stand_in_line(self._key, self._amount, result, asked)
        self._result = result
        return self

    async def __aexit__(self, *error: object) -> None:
        """Settles. An error is logged, so it hides no error of the block."""
        if self._core is None or self._actual is None:
            return
        try:
            await self._throttler._settle(self._core, self._actual)
        except Exception as failure:
            log.warning("a reservation could not be settled: %s", failure)
