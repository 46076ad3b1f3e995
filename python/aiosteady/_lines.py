# SPDX-License-Identifier: MIT
"""Places in line.

The store gives a place in line: `must_wait` seconds from now. The waiters of one event loop with the same throttler, key
and amount form a Line. The waiter that came first has the earliest place, and so on. If a waiter is cancelled, each
waiter behind it moves up by one place, and the last place is given back to the store.

A Line is held by its waiters and by the Alarm of its loop only. So it goes when they go, also if their loop is closed.
"""
from __future__ import annotations

import asyncio
import bisect
import contextlib
import functools
import heapq
import logging
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Optional
from weakref import WeakValueDictionary

from . import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .testing import Clock

    Place = tuple[float, int, Optional[_core.Reservation]]  # when it is due, by the time of its Alarm; its number

log = logging.getLogger("aiosteady")

NOT_GIVEN_BACK = "what a cancelled call took could not be given back"


class Alarm:
    """Serves the lines of an event loop when their places are due.

    Timers of asyncio are late by up to 1 ms, since epoll counts in ms. So an Alarm has a timer of the kernel. The loop
    holds it, as the reader of this timer. Its time is that of _core.monotonic(), in seconds.
    """

    __slots__ = ("__weakref__", "_count", "_due", "_fd", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._count = loop, 0
        self._due: list[tuple[float, int, Line]] = []  # a heap; an entry is stale if the line is due at another time
        self._open()

    def _open(self) -> None:
        self._fd = _core.open_timer()
        try:
            self._loop.add_reader(self._fd, self._ring)
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def add(self, due: float, line: Line) -> None:
        self._count += 1
        heapq.heappush(self._due, (due, self._count, line))
        if self._due[0][2] is line:
            _core.set_timer(self._fd, due - _core.monotonic())

    def _serve(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            due, _, line = heapq.heappop(self._due)
            line.serve(due, now)

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        now = _core.monotonic()
        self._serve(now)
        if self._due:
            _core.set_timer(self._fd, self._due[0][0] - now)


class ClockAlarm(Alarm):
    """The Alarm for the lines of a store with a clock. Its time is that of the clock, in microseconds.

    It is held by its lines. If the clock stands still while a line waits, the waiters get an error: otherwise a test
    would hang.
    """

    __slots__ = ("_clock", "_seen", "_still", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(loop)

    def _open(self) -> None:
        self._fd = -1

    def add(self, due: float, line: Line) -> None:
        self._count += 1
        heapq.heappush(self._due, (due, self._count, line))
        if self._clock.autojump:
            self._clock._jump(int(due))
        elif self._timer is None:
            self._seen, self._still = self._clock._moves, 0
            self._timer = self._loop.call_later(STILL_LOOK, self._look)

    def is_of(self, clock: Clock) -> bool:
        return clock is self._clock

    def moved(self) -> None:
        """May be called from any thread."""
        if asyncio._get_running_loop() is self._loop:
            self._ring()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._serve(self._clock._us)

    def _look(self) -> None:
        """Counts looks instead of time: they stop while a debugger holds the program."""
        self._timer = None
        waiting = [line for due, _, line in self._due if line.is_due_at(due)]
        if not waiting:
            return
        self._still = self._still + 1 if self._clock._moves == self._seen else 0
        self._seen = self._clock._moves
        if self._still < STILL_LOOKS:
            self._timer = self._loop.call_later(STILL_LOOK, self._look)
            return
        self._due.clear()
        for line in waiting:
            line.fail(self._clock._stands_still)


# A wait ends with an error if the clock of its store has stood still for so many seconds.
STILL_LOOK, STILL_LOOKS = 0.5, 10

# By the id of the loop, which an Alarm keeps alive, and the clock.
alarms: WeakValueDictionary[tuple[int, Optional[Clock]], Alarm] = WeakValueDictionary()


def alarm_of(loop: asyncio.AbstractEventLoop, clock: Optional[Clock]) -> Alarm:
    alarm = alarms.get((id(loop), clock))
    if alarm is None:
        alarm = alarms[id(loop), clock] = Alarm(loop) if clock is None else ClockAlarm(loop, clock)
    return alarm


def clock_moved(clock: Clock) -> None:
    """May be called from any thread."""
    for ref in alarms.valuerefs():
        alarm = ref()
        if isinstance(alarm, ClockAlarm) and alarm.is_of(clock):
            alarm.moved()


class Line:
    __slots__ = ("__weakref__", "_alarm", "_count", "_due", "_give_back", "_loop", "_places", "_waiters")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Optional[Clock], give_back: Callable[[_core.Reservation], None]
    ) -> None:
        self._loop, self._give_back = loop, give_back
        self._alarm = alarm_of(loop, clock)
        self._places: list[Place] = []  # as many as waiters, the earliest first
        self._waiters: OrderedDict[asyncio.Future[Place], None] = OrderedDict()  # in the order of arrival
        self._due: float | None = None  # when the alarm serves it
        self._count = 0

    async def wait(self, due: float, reservation: Optional[_core.Reservation]) -> Optional[_core.Reservation]:
        """Returns when a place is due, with the reservation of that place."""
        turn: asyncio.Future[Place] = self._loop.create_future()
        self._count += 1
        bisect.insort(self._places, (due, self._count, reservation))
        self._waiters[turn] = None
        self._watch()
        try:
            return (await turn)[2]
        except BaseException:
            if not self._loop.is_closed():
                self._leave(turn)
            raise

    def is_empty(self) -> bool:
        return not self._waiters

    def _watch(self) -> None:
        """Sets the alarm for the first place."""
        due = self._places[0][0] if self._places else None
        if due != self._due:
            self._due = due
            if due is not None:
                self._alarm.add(due, self)  # which may serve it at once

    def is_due_at(self, due: float) -> bool:
        return due == self._due

    def serve(self, due: float, now: float) -> None:
        """The alarm of this time. It is stale if the first place has changed."""
        if due == self._due:
            self._due = None
            self._serve(now)

    def _serve(self, now: float) -> None:
        while self._places and self._places[0][0] <= now:
            turn = self._first()
            if turn is None:
                return
            del self._waiters[turn]
            turn.set_result(self._places.pop(0))
        self._watch()

    def fail(self, error_of: Callable[[int], Exception]) -> None:
        """Ends each wait with an error; `error_of` gets the time when the first place is due."""
        due = int(self._places[0][0])
        self._due = None
        for turn in self._waiters:
            if not turn.done():
                turn.set_exception(error_of(due))

    def _first(self) -> asyncio.Future[Place] | None:
        """The first waiter that is not cancelled. A cancelled one is here until its task has run."""
        return next((turn for turn in self._waiters if not turn.done()), None)

    def _leave(self, turn: asyncio.Future[Place]) -> None:
        """Call it when the task of a waiter is cancelled, or the wait has failed."""
        if turn.done() and not turn.cancelled() and turn.exception() is None:  # its place was due in the same moment: the next waiter gets it
            place, heir = turn.result(), self._first()
            if heir is not None:
                del self._waiters[heir]
                heir.set_result(place)
                place = self._places.pop()
        else:
            del self._waiters[turn]
            place = self._places.pop()
        self._watch()
        if place[2] is not None:
            self._give_back(place[2])


Lines = WeakValueDictionary[Any, Line]


async def wait_in_line(
    lines: Lines,
    name: object,
    clock: Optional[Clock],
    due: float,
    reservation: Optional[_core.Reservation],
    give_back: Callable[[_core.Reservation], None],
) -> Optional[_core.Reservation]:
    """Waits in the line with this name on the running loop. See Line.wait(). `due` is in the time of an Alarm."""
    loop = asyncio.get_running_loop()
    key = (id(loop), name)  # a line keeps its loop alive, so the id stays its own
    line = lines.get(key)
    if line is None:
        line = lines[key] = Line(loop, clock, give_back)
    try:
        return await line.wait(due, reservation)
    finally:
        if line.is_empty():
            lines.pop(key, None)


# ---- Work that no task waits for ----

# Seconds that a client of the caller has for it. A silent server must not hold back other requests for longer.
BACKGROUND_MOST = 1.0

tasks: set[asyncio.Task[Any]] = set()  # an event loop keeps only weak references to its tasks


def in_background(answer: Coroutine[Any, Any, Any], what: str) -> None:
    """Lets an answer arrive. An error is logged. A Decision is submitted at once, and needs no task."""
    if not isinstance(answer, _core.Decision):
        task = asyncio.get_running_loop().create_task(answer)
        tasks.add(task)
        task.add_done_callback(functools.partial(ended, what))
        task.get_loop().call_later(BACKGROUND_MOST, task.cancel)
        return
    try:
        waiter = answer.send(None)
        waiter.add_done_callback(functools.partial(answered, answer, what))
    except StopIteration:
        pass
    except Exception as error:
        log.warning("%s: %s", what, error)


def ended(what: str, task: asyncio.Task[Any]) -> None:
    tasks.discard(task)
    error = "the client gave no answer" if task.cancelled() else task.exception()
    if error is not None:
        log.warning("%s: %s", what, error)


def answered(answer: _core.Decision, what: str, _: object) -> None:
    try:
        answer.send(None)
    except StopIteration:
        pass
    except Exception as error:
        log.warning("%s: %s", what, error)
