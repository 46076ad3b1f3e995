# SPDX-License-Identifier: MIT
"""For tests of programs that use aiosteady: a clock that the test sets, and fresh buckets.

    clock = Clock()
    throttler = Throttler(Store("memory:", clock=clock), limits="5/minute")
    ...
    clock.advance(60)

With pytest, put `pytest_plugins = ["aiosteady.testing"]` into conftest.py: it has the fixture `steady_clock`. freezegun
has no effect on aiosteady. docs/how-to/test-your-limits.md has examples.
"""
from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _core
from ._lines import STILL_LOOK, STILL_LOOKS, clock_moved
from ._waiting import us_of

if TYPE_CHECKING:
    from ._throttler import BaseThrottler

__all__ = ["Clock", "reset_all"]

POLL = 0.001  # seconds between two looks of a blocking wait
TIME_MAX = 2**51 / 1e6  # seconds, 71 years


class Clock(_core.Clock):
    """The time of memory: stores in a test: Store("memory:", clock=clock). It stands still until the test moves it.

    Its times are seconds, kept as whole microseconds. Several stores may share a clock.

    Waits (wait(), limit(), reserve() with max_wait) count by the clock. A wait returns when the clock has reached its
    turn, as soon as the event loop or the thread runs. If the clock stands still for 5 s of real time while a call
    waits, the call raises RuntimeError, and nothing stays charged.

    Move the clock from any thread.

    Arguments:
      now: the time at first.
      autojump: a call that has to wait moves the clock to its turn, and returns at once.
    """

    __slots__ = ("__weakref__", "_moves", "autojump")

    def __init__(self, now: float = 0.0, *, autojump: bool = False) -> None:
        self.autojump = autojump
        self._moves = 0
        self.set(now)

    def now(self) -> float:
        """The time in seconds."""
        return self._us / 1e6

    def advance(self, seconds: float) -> None:
        """Moves the clock forward. Waits whose turn has come return, in the order of their turns.

        It is one jump: no task runs before it is over. `seconds` may be 0, and not negative.
        """
        self._add(_us_of(seconds, "seconds", 0))
        self._moved()

    def set(self, now: float) -> None:
        """Sets the time. If it is earlier than before, the clock of the store has stepped back."""
        self._set(_us_of(now, "now", -TIME_MAX))
        self._moved()

    def __repr__(self) -> str:
        return f"Clock({self.now()!r}{', autojump=True' if self.autojump else ''})"

    def _moved(self) -> None:
        self._moves += 1
        clock_moved(self)

    def _jump(self, due: int) -> None:
        self._reach(due)
        self._moved()

    def _wait(self, due: int) -> None:
        """The wait of a blocking call. It polls: other threads move the clock, and a signal may end it."""
        if self.autojump:
            self._jump(due)
        moves, still = self._moves, 0.0
        while self._us < due:
            if still >= STILL_LOOK * STILL_LOOKS:
                raise self._stands_still(due)
            time.sleep(POLL)
            still = still + POLL if self._moves == moves else 0.0
            moves = self._moves

    def _stands_still(self, due: int) -> RuntimeError:
        left = (due - self._us) / 1e6
        return RuntimeError(
            f"the clock has stood still for {STILL_LOOK * STILL_LOOKS:g} s, and a call waits for {left:g} s more: "
            f"move it by advance({left:g}) while the call waits, or make it by Clock(autojump=True)"
        )


def _us_of(seconds: float, name: str, least: float) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
    if math.isnan(seconds) or not least <= seconds <= TIME_MAX:
        raise ValueError(f"{name} is {seconds!r}; it must be {least:g} .. {TIME_MAX:g} seconds")
    return us_of(seconds)


def reset_all(buckets: Union[_core.Store, _core.Throttler], client: Any = None) -> None:
    """Empties buckets, so that a test begins with fresh ones.

    Arguments:
      buckets: what to empty.
        - A memory: Store, or a throttler on one: all buckets of the store, those of its other throttlers, too.
        - A throttler on a server: all buckets whose stored key begins with its prefix. It must have a prefix. Other
          values stay, whatever their key. In production, too, it would delete all buckets of this prefix.
      client: for a server: a blocking client for it, such as redis.Redis or redis.RedisCluster. It needs the rights for
        SCAN and EVAL.

    It is no coroutine: call it in any test and any fixture. Waits go on, and keep their turns.
    """
    throttler = buckets if isinstance(buckets, _core.Throttler) else None
    store = throttler._target if throttler is not None else buckets
    if throttler is None and not isinstance(store, _core.Store):
        raise TypeError(f"reset_all takes a Store or a Throttler of aiosteady, not {type(buckets).__name__}")
    if isinstance(store, _core.Store) and store._clear():
        return
    if client is None:
        raise ValueError("these buckets are not in memory: for a server, give a throttler and a client for the server; "
                         "for file:, use a new file in each test")
    if throttler is None or not throttler.prefix:
        raise ValueError("give a throttler with a prefix: without one, the buckets of other programs would be reset, too")
    _reset_prefix(client, throttler.prefix)
    _core.forget_denials()


def _reset_prefix(client: Any, prefix: str) -> None:
    """The script deletes a bucket only. For any other value it sends an error."""
    _, script = _core.scripts[_core.RESET]
    pattern = "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in prefix)
    for key in client.scan_iter(match=f"{pattern}*", count=1000):
        try:
            client.eval(script, 1, key, struct.pack("<idi", 1, 1, 0))  # capacity, recharge, amount
        except Exception as error:
            if _core.reply_error_code(str(error)) != _core.STEADY_NOT_A_BUCKET:
                raise


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def steady_clock() -> Iterator[Clock]:
        """A Clock of this test."""
        yield Clock()
