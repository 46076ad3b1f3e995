# SPDX-License-Identifier: MIT
"""The rules of wait(), for both kinds of throttlers: deadlines, back-off, and the texts of its TimeoutError."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Optional

from . import _core

if TYPE_CHECKING:
    from ._core import ThrottleResult
    from ._reserve import Amount

BACKOFF_FIRST, BACKOFF_LAST = 0.1, 1.0  # seconds, while the store gives no verdict
VERDICTS = ("store", "memory", "lease")  # the sources of a verdict on the whole limit
NO_BLOCK = 1e-6  # seconds; the shortest max_wait. A call with a max_wait starts no block
LATE = 0.001  # seconds by which a timer may be late


def us_of(seconds: float) -> int:
    return round(seconds * 1e6)


def deadline_of(timeout: Optional[float], now: float) -> Optional[float]:
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if math.isnan(timeout):
        raise ValueError("timeout must be a number of seconds, or None")
    return None if timeout == math.inf else now + timeout


class Retry:
    """The delays between the attempts of a wait()."""

    __slots__ = ("_backoff",)

    def __init__(self) -> None:
        self._backoff = BACKOFF_FIRST

    def delay(self, denied: ThrottleResult, has_deadline: bool) -> float:
        """The seconds until the next attempt. 0 if there is a deadline, and the drops do not fit before it."""
        if denied.source == "policy":  # no verdict, so the wait is unknown: back off
            delay, self._backoff = self._backoff, min(2 * self._backoff, BACKOFF_LAST)
            return delay
        blocked = max((part.blocked_for or 0.0 for part in denied.parts), default=0.0)
        if has_deadline:
            return blocked
        return self._backoff if denied.retry_after is None else max(blocked, denied.retry_after)


def no_room_in_time(seconds: float) -> TimeoutError:
    return TimeoutError(f"the bucket has no room in time: it would take {seconds:.3f} s")


def no_attempt_left(
    result: ThrottleResult, amount: Amount, max_wait: float, max_ahead: Optional[float]
) -> TimeoutError:
    """`max_wait` of the call, and `max_ahead` of the throttler: retry_after counts from the lesser one."""
    waits = max_wait if max_ahead is None else min(max_wait, max_ahead)
    takes = "" if result.retry_after is None else f"it would take {result.retry_after + waits:.3f} s"
    if result.source in VERDICTS:
        return TimeoutError(f"the bucket has no room in time: {takes or 'the drops can never fit'}")
    no_verdict = f"the store gives no verdict ({result.error})"
    if result.source == "policy":
        return TimeoutError(no_verdict)
    if result.retry_after is None:
        return TimeoutError(f"{no_verdict}, and the local bucket can never hold {amount} drops")
    return TimeoutError(f"{no_verdict}, and the local bucket has no room in time: {takes}")


def no_answer_in_time() -> TimeoutError:
    error = TimeoutError("the store has not answered in time; the drops may have been charged, or may be charged later")
    error.__cause__ = _core.Unknown("the answer did not come before the deadline of wait()")
    return error
