# SPDX-License-Identifier: MIT
"""The Python package with several loops and threads: cancellation, garbage collection, closing."""
import asyncio
import gc
import logging
import random
import threading
import time
import weakref
from contextlib import closing, contextmanager

import pytest
from python_rig import patient, python, standing_still, under_asyncio

pytestmark = pytest.mark.filterwarnings("error")


def connections(server):
    return int(server("INFO", "clients").split(b"connected_clients:")[1].split()[0])


def comes_to(count, server):
    """True if the server comes to have `count` connections."""
    deadline = time.monotonic() + 5
    while connections(server) != count and time.monotonic() < deadline:
        time.sleep(0.01)
    return connections(server) == count


def connections_so_far(server):
    return int(server("INFO", "stats").split(b"total_connections_received:")[1].split()[0])


# ---- Failing loops ----


class FailingLoop(asyncio.SelectorEventLoop):
    """Its method `name` raises once, at the nth call with a callback of the package."""

    name, left = "", 0

    def _fail(self, name, callback):
        if name == self.name and type(callback).__module__ == "aiosteady._core":
            self.left -= 1
            if self.left == 0:
                raise MemoryError(f"no {name}")

    def call_later(self, delay, callback, *args, **kwargs):
        self._fail("call_later", callback)
        return super().call_later(delay, callback, *args, **kwargs)

    def add_reader(self, fd, callback, *args):
        self._fail("add_reader", callback)
        return super().add_reader(fd, callback, *args)

    def add_writer(self, fd, callback, *args):
        self._fail("add_writer", callback)
        return super().add_writer(fd, callback, *args)


async def some_level(throttler):
    try:
        return (await throttler.consume("k")).level
    except (throttler.error, MemoryError):
        return 0


@pytest.mark.parametrize("name", ["call_later", "add_reader", "add_writer"])
def test_a_loop_that_fails_once_is_used_again(aio, redis_server, monkeypatch, name):
    """The loop fails at each place: while the store connects, reconnects, and in between. The exception is reported."""
    told = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: told.append(str(report.exc_value)))

    class Tried(aio.Throttler):
        error = aio.Error

    async def main(loop):
        loop.set_exception_handler(lambda *_: None)
        t = Tried(aio.connect(redis_server.url, timeout=0.1, deny_memory=0), 10**6, 3600)
        for _ in range(3):
            await asyncio.gather(*(some_level(t) for _ in range(3)))
            redis_server("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        failed, loop.left = loop.left <= 0, 0
        deadline = time.monotonic() + 5
        while await some_level(t) == 0:
            assert time.monotonic() < deadline, f"after call {nth} of {name}: never again"
        t.redis.close()
        return failed

    nth, failed = 0, True
    while failed:
        nth += 1
        with closing(FailingLoop()) as loop:
            loop.name, loop.left = name, nth
            failed = loop.run_until_complete(main(loop))
    assert nth > 3 and told == [f"no {name}"] * (nth - 1)


# ---- Cancelling ----


@under_asyncio
async def test_replies_reach_their_own_decision_whichever_task_is_cancelled(aio, redis_server):
    rng = random.Random(7)
    async with aio.connect(redis_server.url, timeout=10, deny_memory=0) as store:
        t = aio.Throttler(store, 10**6, 3600)
        for turn in range(4):
            tasks = [asyncio.create_task(t.consume(f"{turn}:{i}", i + 1)) for i in range(400)]
            doomed = rng.sample(tasks, 200)
            while doomed:
                for task in doomed[:rng.randrange(1, 60)]:
                    task.cancel()
                    doomed.remove(task)
                await asyncio.sleep(rng.choice((0, 0, 0.0001, 0.001)))
            results = await asyncio.gather(*tasks, return_exceptions=True)
            levels = [r.level for r in await asyncio.gather(*(t.peek(f"{turn}:{i}") for i in range(400)))]
            assert sum(isinstance(r, asyncio.CancelledError) for r in results) > 20
            for i, (result, level) in enumerate(zip(results, levels)):
                if isinstance(result, asyncio.CancelledError):
                    assert level in (0, i + 1)
                else:
                    assert result.level == level == i + 1
        assert store.stats()["in_flight"] == 0


@under_asyncio
async def test_a_decision_behaves_as_a_coroutine(aio, redis_server):
    async with aio.connect(redis_server.url, timeout=10, deny_memory=0) as store:
        t = aio.Throttler(store, 100, 60)
        again = t._consume("k")  # consume() awaits this
        assert asyncio.iscoroutine(again) and again.__qualname__ == t.consume.__qualname__ == "Throttler.consume"
        await again
        with pytest.raises(RuntimeError, match="twice"):
            await again
        shared = t._consume("k")
        task = asyncio.ensure_future(shared)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already"):
            await shared
        assert (await task).level == 2, "the first decision is not disturbed"
        thrown = t._consume("k")
        with pytest.raises(KeyError):
            thrown.throw(KeyError("x"))
        with pytest.raises(KeyError):
            t._peek("k").throw(KeyError, "x", None)
        with pytest.raises(TypeError):
            t._peek("k").throw("no exception")
        for expired in (t._consume("k"), again):
            expired.expire(KeyError("x"))  # no decision is in flight
        assert (await asyncio.wait_for(t._peek("k"), 9)).level == 2
        with pytest.raises(TypeError):
            again.expire("no exception")
        late = t._peek("k")
        task = asyncio.ensure_future(late)
        await asyncio.sleep(0)
        late.expire(KeyError("x"))
        late.expire(KeyError("y"))
        with pytest.raises(KeyError, match="x"):
            await task
        closed = t._consume("k")
        closed.close()
        for over in (thrown, closed):
            with pytest.raises(RuntimeError):
                over.send(None)
        with pytest.warns(RuntimeWarning, match="never awaited"):
            t.consume("k")
        assert (await asyncio.wait_for(t.peek("k"), 1)).level == 2


@under_asyncio
async def test_code_that_runs_while_a_decision_starts_cannot_harm_it(aio, redis_server):
    loop = asyncio.get_running_loop()
    starting, refused = [], []
    add_writer = loop.add_writer

    def harmful(*args):
        for decision in starting:
            for harm in (decision.close, lambda d=decision: d.throw(KeyError), lambda d=decision: d.send(None)):
                with pytest.raises((ValueError, RuntimeError)) as caught:
                    harm()
                refused.append(caught.type)
        return add_writer(*args)

    loop.add_writer = harmful
    try:
        async with aio.connect(redis_server.url, timeout=10, deny_memory=0) as store:
            t = aio.Throttler(store, 100, 60)
            await t.consume("k", 2)
            await t.peek("k")  # after the question that the store sends once for its log
            first = asyncio.ensure_future(t.peek("k"))
            await asyncio.sleep(0)  # it was sent, so the next decision makes the loop watch for writability
            starting.append(t._peek("k"))
            assert (await starting[0]).level == 2 and (await first).level == 2
    finally:
        del loop.add_writer
    assert refused == [ValueError, ValueError, RuntimeError]


@under_asyncio
async def test_the_loop_is_asked_once_for_each_change_of_events(aio, redis_server, monkeypatch):
    loop = asyncio.get_running_loop()
    added, add_writer = [], loop.add_writer
    monkeypatch.setattr(loop, "add_writer", lambda *args: (added.append(args), add_writer(*args))[1], raising=False)
    async with aio.connect(redis_server.url, timeout=10, deny_memory=0) as store:
        t = aio.Throttler(store, 100, 60)
        await t.consume("k", 2)
        await t.peek("k")
        del added[:]
        for _ in range(20):
            assert [r.level for r in await asyncio.gather(*(t.peek("k") for _ in range(50)))] == [2] * 50
        assert 20 <= len(added) <= 25  # with the second of each fifty decisions; not while replies are read


COLLECTED = """
import asyncio, gc, sys
from contextlib import suppress
from aiosteady import Error, Throttler, connect

url, how = sys.argv[1:]
harmed = 0

class Harm:
    def __init__(self, t):  # garbage, in a cycle: __del__ runs in what allocates when a collection is due
        self.itself, self.t = self, t

    def __del__(self):
        global harmed
        harmed += 1
        if "closes" in how:
            self.t.redis.close()
        if "asks" in how:
            other = self.t.consume("k")
            with suppress(Error):
                other.send(None)
            other.close()

async def in_place(decision):
    with suppress(Error):
        await decision

async def in_a_task(decision):
    await asyncio.gather(decision, return_exceptions=True)

async def one(n, awaited, answered, others):
    store = connect(url, timeout=10)
    t = Throttler(store, 10**6, 3600)
    if answered:
        await t.consume("k")
    tasks = [asyncio.ensure_future(t.consume("k")) for _ in range(others)]
    if others:
        await asyncio.sleep(0)
    decision = t.consume("k")
    gc.collect()
    Harm(t)
    gc.set_threshold(n, 1000, 1000)
    gc.enable()
    await awaited(decision)
    gc.disable()
    gc.collect()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(hasattr(end, "level") or isinstance(end, Error) for end in ends), ends
    assert "asks" in how or store.stats()["in_flight"] == 0, store.stats()
    store.close()

gc.disable()
for awaited in (in_place, in_a_task):
    for answered, others in ((True, 0), (True, 1), (False, 0)):
        for n in range(1, 41):
            asyncio.run(one(n, awaited, answered, others))
print(harmed)
"""


@pytest.mark.parametrize("how", ["closes", "asks", "closes and asks"])
def test_a_garbage_collection_at_any_time_cannot_harm_a_decision(aiosteady, redis_server, monkeypatch, how):
    """Up to Python 3.11 a collection may run at each allocation, later only between Python instructions."""
    monkeypatch.setenv("MALLOC_PERTURB_", "165")
    assert python(aiosteady, COLLECTED, redis_server.url, how) == "240\n"


ENDED = """
import asyncio, logging, sys
from aiosteady import Throttler, Unavailable, connect

logging.disable()

async def main():
    store = connect(sys.argv[1], timeout=10)
    decision = Throttler(store, 1, 1)._consume("k")
    Unavailable.__init__ = lambda *args: decision.close()
    decision.send(None)
    while store.stats()["in_flight"] > 0:
        await asyncio.sleep(0.001)
    print("ended")

asyncio.run(main())
"""


def test_code_that_makes_the_exception_of_a_decision_may_end_it(aiosteady, closed_port):
    assert python(aiosteady, ENDED, f"redis://127.0.0.1:{closed_port}") == "ended\n"


class Meddling(asyncio.SelectorEventLoop):
    """Runs a function when its add_writer is looked up."""

    meddle = None

    def __getattribute__(self, name):
        if name == "add_writer" and self.meddle is not None:
            meddle, self.meddle = self.meddle, None
            meddle()
        return super().__getattribute__(name)


def decide_while_it_meddles(t, meddle):
    async def main():
        loop.meddle = meddle
        return await t.consume("k")

    loop = Meddling()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_store_that_is_closed_while_it_opens_is_closed(aio, redis_server):
    t = patient(aio, redis_server.url, 10, 60)
    with pytest.raises(aio.Closed):
        decide_while_it_meddles(t, t.redis.close)


def test_a_store_that_is_asked_while_it_opens_has_one_connection(aio, redis_server):
    t = aio.Throttler(aio.connect(redis_server.url, engine="script", timeout=10), 10, 60)
    other = t.consume("k")
    before = connections_so_far(redis_server)
    assert decide_while_it_meddles(t, lambda: other.send(None)).level == 2
    assert connections_so_far(redis_server) == before + 1
    with pytest.raises(StopIteration) as answer:
        other.send(None)
    assert answer.value.value.level == 1
    t.redis.close()


@under_asyncio
async def test_keyboard_interrupt_in_a_decision_is_not_swallowed(aio, closed_port):
    class Stop(logging.Handler):
        def emit(self, record):
            raise KeyboardInterrupt("from a log")

    handler = Stop()
    logging.getLogger("aiosteady").addHandler(handler)
    loop = asyncio.new_event_loop()
    t = patient(aio, f"redis://127.0.0.1:{closed_port}", 1, 1)
    try:
        def run():
            asyncio.set_event_loop(loop)
            try:
                loop.run_until_complete(t.consume("k"))
            except KeyboardInterrupt as stop:
                return str(stop)
            except aio.Unavailable:
                return "swallowed"
            return "decided"

        assert await asyncio.get_running_loop().run_in_executor(None, run) == "from a log"
    finally:
        logging.getLogger("aiosteady").removeHandler(handler)
        t.redis.close()
        loop.close()


# ---- Loops and threads ----


def test_a_decision_of_a_server_needs_a_running_loop(aio, redis_server):
    with pytest.raises(RuntimeError, match="no running event loop"):
        patient(aio, redis_server.url, 1, 1).consume("k").send(None)
    with pytest.raises(StopIteration) as stop:
        aio.Throttler("memory:", 1, 1).consume("k").send(None)
    assert stop.value.value.success


def test_a_decision_belongs_to_the_loop_that_awaits_it(aio, redis_server):
    t = patient(aio, redis_server.url, 100, 60)

    async def make():
        return t.consume("k")

    for i in range(4):
        decision = asyncio.run(make())
        assert asyncio.run(decision, debug=True).level == i + 1


def test_each_of_many_threads_has_a_connection_and_its_own_answers(aio, redis_server):
    before = connections(redis_server)
    store = aio.connect(redis_server.url, timeout=10, deny_memory=0)
    t = aio.Throttler(store, 10**6, 3600)
    failures = []

    async def work(thread):
        for turn in range(10):
            results = await asyncio.gather(*(t.consume(f"{thread}:{turn}:{i}", i + 1) for i in range(50)),
                                           *(t.consume("common") for _ in range(10)))
            assert [r.level for r in results[:50]] == list(range(1, 51))

    def run(thread):
        try:
            asyncio.run(work(thread), debug=thread % 2 == 0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert asyncio.run(t.peek("common")).level == 600
    assert store.stats()["decisions"] == 6 * 10 * 60 + 1
    assert connections(redis_server) <= before + 2, "the loops that are gone have been let go of"


def test_a_store_keeps_the_counters_of_closed_loops(aio, redis_server, closed_port):
    store = aio.connect(redis_server.url, timeout=10, deny_memory=0)
    t = aio.Throttler(store, 5, 3600)

    async def ask():
        return [await t.consume("k") for _ in range(4)]

    for turn in range(1, 4):
        asyncio.run(ask())
        assert [store.stats()[name] for name in ("decisions", "allowed", "in_flight")] == [4 * turn, min(5, 4 * turn), 0]

    async def leave():
        with standing_still(redis_server):
            task = asyncio.ensure_future(t.consume("k"))
            await asyncio.sleep(0.01)
            assert store.stats()["in_flight"] == 1
            store.close()
            with pytest.raises(aio.Cancelled):
                await task

    asyncio.run(leave())
    counted = store.stats()
    assert [counted[name] for name in ("decisions", "allowed", "denied", "in_flight")] == [13, 5, 7, 0]
    assert counted["unknown"] + counted["unavailable"] == 1, "the one that was cancelled"
    store.close()
    assert store.stats() == counted
    memory = aio.connect("memory:")
    asyncio.run(consumed(aio.Throttler(memory, 5, 3600)))
    memory.close()
    assert memory.stats()["decisions"] == memory.stats()["allowed"] == 1


def test_counters_of_other_threads_stay_while_their_loops_close(aio, redis_server):
    store = aio.connect(redis_server.url, timeout=10, deny_memory=0)
    with loops_of_threads(aio.Throttler(store, 10, 60), [None, lambda: 1 / 0, None]):
        with pytest.raises(ZeroDivisionError):
            store.close()
        assert store.stats()["decisions"] == 3
    store.close()
    assert 3 <= store.stats()["decisions"] <= 5 and store.stats()["in_flight"] == 0


async def consumed(t):
    return await t.consume("k")


def test_the_local_share_of_a_store_is_one_for_all_its_loops(aio, closed_port):
    store = aio.connect(f"redis://127.0.0.1:{closed_port}", timeout=10)
    t = aio.Throttler(store, 10, 3600, on_error="local", local_share=2)
    others = [aio.Throttler(store, 5, 3600, on_error="local") for _ in range(20)]
    results = [asyncio.run(consumed(other)) for pair in zip([t] * 20, others) for other in pair]
    assert [(r.success, r.level, r.source, r.error) for r in results] == [
        (i < 5, min(i + 1, 5), "local", "unavailable") for i in range(40)]
    found = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(consumed(t)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [r.success for r in found] == [False] * 4
    other_store = aio.connect(f"redis://127.0.0.1:{closed_port}", timeout=10)
    assert asyncio.run(consumed(aio.Throttler(other_store, 5, 3600, on_error="local"))).level == 1


def test_the_local_share_outlives_the_store_for_as_long_as_a_loop_asks(aio, redis_server):
    for _ in range(5):
        loops = [asyncio.new_event_loop() for _ in range(2)]
        store = aio.connect(redis_server.url, timeout=10, deny_memory=0)
        t = aio.Throttler(store, 10, 3600, on_error="local")
        for loop in loops:
            loop.run_until_complete(t.consume("k"))
        with standing_still(redis_server):
            tasks = [loop.create_task(t.consume("k")) for loop in loops]
            for loop in loops:
                loop.run_until_complete(asyncio.sleep(0.01))
            store.close()
            for loop, task in zip(loops, tasks):
                with pytest.raises(aio.Cancelled):
                    loop.run_until_complete(task)
        del store, t
        gc.collect()
        for loop in loops:
            loop.close()


def test_closing_reaches_the_loops_of_other_threads(aio, redis_server):
    store = aio.connect(redis_server.url, timeout=10, deny_memory=0)
    t, ended, ready = aio.Throttler(store, 10, 60), [], threading.Event()

    async def work():
        await t.consume("k")
        with standing_still(redis_server):
            task = asyncio.ensure_future(t.consume("k"))
            await asyncio.sleep(0.01)
            ready.set()
            try:
                await task
            except aio.Cancelled as error:
                ended.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(work(), debug=True))
    thread.start()
    assert ready.wait(10)
    store.close()
    thread.join(10)
    assert len(ended) == 1 and not thread.is_alive()


class Stubborn(asyncio.SelectorEventLoop):
    """Accepts no call from another thread and calls `refuse` instead."""

    refuse = None

    def call_soon_threadsafe(self, *args, **kwargs):
        if self.refuse is not None:
            self.refuse()
        return super().call_soon_threadsafe(*args, **kwargs)


@contextmanager
def loops_of_threads(t, refusals):
    """Runs loops in threads. Each makes a decision, and another at the end. Collects the last results in order."""
    heard, go_on = [None] * len(refusals), threading.Event()
    loops = [Stubborn() for _ in refusals]

    async def work(i):
        await t.consume("k")
        ready[i].set()
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        try:
            heard[i] = await t.consume("k")
        except Exception as error:
            heard[i] = type(error).__name__

    ready = [threading.Event() for _ in refusals]
    threads = [threading.Thread(target=loop.run_until_complete, args=(work(i),)) for i, loop in enumerate(loops)]
    try:
        for thread, one in zip(threads, ready):
            thread.start()
            assert one.wait(10)
        for loop, refuse in zip(loops, refusals):
            loop.refuse = refuse
        yield heard
    finally:
        go_on.set()
        for thread in threads:
            thread.join(10)
        for loop in loops:
            loop.refuse = None
            loop.close()


def test_closing_reaches_the_other_loops_if_one_refuses(aio, redis_server):
    def refuse(which):
        def refusal():
            raise RuntimeError(f"{which} refuses")

        return refusal

    store = aio.connect(redis_server.url, timeout=10, deny_memory=0)
    before = connections(redis_server)
    with loops_of_threads(aio.Throttler(store, 10, 60), [refuse("first"), None, refuse("third"), None]) as heard:
        with pytest.raises(RuntimeError, match="first refuses") as caught:
            store.close()
        assert caught.value.__context__ is None and caught.value.__cause__ is None
    assert heard[::2] == ["Closed"] * 2 and set(heard[1::2]) <= {"Closed", "Cancelled"}
    store.close()
    assert comes_to(before, redis_server)


def test_a_loop_that_closes_meanwhile_is_closed_by_the_caller(aio, redis_server):
    store = aio.connect(redis_server.url, timeout=10, deny_memory=0)
    t = aio.Throttler(store, 10, 60)
    loop = Stubborn()
    thread = threading.Thread(target=loop.run_until_complete, args=(consumed(t),))
    thread.start()
    thread.join(10)
    open_before = connections(redis_server)

    def close_it():
        loop.refuse = None
        loop.close()

    loop.refuse = close_it
    store.close()
    assert comes_to(open_before - 1, redis_server)


def test_a_loop_closed_with_work_pending_is_forgotten(aio, redis_server):
    t = patient(aio, redis_server.url, 10**6, 60)

    async def start():
        return [asyncio.ensure_future(t.consume("k")) for _ in range(10)]

    for _ in range(5):
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending"
        loop.run_until_complete(t.consume("k"))
        with standing_still(redis_server):
            tasks = loop.run_until_complete(start())
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
        del tasks
        gc.collect()
    assert asyncio.run(t.peek("k")).level >= 5
    assert connections(redis_server) <= 3


def test_a_loop_moved_to_another_thread_gets_an_error_or_its_own_answers(aio, redis_server):
    t = patient(aio, redis_server.url, 10, 60)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(t.consume("k"))
    caught = []

    def run():
        try:
            loop.run_until_complete(t.consume("k"))
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(caught) == 1 and "another thread" in caught[0]
    assert loop.run_until_complete(t.consume("k")).level == 2
    loop.close()


def test_throttlers_that_are_dropped_drop_their_connections(aio, redis_server):
    async def use():
        for i in range(50):
            await patient(aio, redis_server.url, 10, 60).consume(f"k{i}")
            task = asyncio.ensure_future(patient(aio, redis_server.url, 10, 60).consume(f"k{i}"))
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0.1)
        return connections(redis_server)

    before = connections(redis_server)
    assert asyncio.run(use(), debug=True) <= before + 2


# ---- Garbage ----

ABANDONED = """
import asyncio, gc, logging, os, signal, sys, warnings, weakref
import aiosteady
logging.getLogger("asyncio").addFilter(lambda record: "but it is pending" not in record.getMessage())
warnings.simplefilter("ignore", ResourceWarning)  # of loops that are not closed
url, pid, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def descriptors():
    return len(os.listdir("/proc/self/fd"))

class Throttler(aiosteady.Throttler):
    pass

def abandon():
    "A loop with decisions in flight is closed or dropped; whatever it was made of."
    loop = asyncio.new_event_loop()
    store = aiosteady.connect(url, timeout=10)
    throttler = Throttler(store, 10**6, 60, on_error="local")
    if "connected" in how:
        loop.run_until_complete(throttler.peek("k"))
    os.kill(pid, signal.SIGSTOP)
    waits = [throttler.wait("w", timeout=timeout) for timeout in (None, 9)] if "waits" in how else []
    tasks = [loop.create_task(asked) for asked in [*waits, *(throttler.consume("k") for _ in range(3))]]
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    os.kill(pid, signal.SIGCONT)
    assert store.stats()["in_flight"] >= 3, store.stats()
    if "closed" in how:
        loop.close()
    return [weakref.ref(thing) for thing in (loop, store, throttler, *tasks)]

abandon()
gc.collect()
before, blocks = descriptors(), sys.getallocatedblocks()
for _ in range(100):
    gone = abandon()
gc.collect()
assert not any(ref() for ref in gone), gone
assert descriptors() <= before, descriptors() - before
assert sys.getallocatedblocks() - blocks < 3000, sys.getallocatedblocks() - blocks
asyncio.run(aiosteady.Throttler(aiosteady.connect(url, timeout=10), 10**6, 60).consume("k"))
print("fine")
"""


@pytest.mark.parametrize("how", ["closed", "connected closed", "waits closed", "waits connected closed", "dropped",
                                 "connected dropped"])
def test_a_loop_dropped_with_decisions_in_flight_leaves_nothing_behind(aiosteady, redis_server, how):
    assert python(aiosteady, ABANDONED, redis_server.url, str(redis_server.process.pid), how) == "fine\n"


class Text(str):
    pass


class Whole(int):
    pass


class Real(float):
    pass


class Client:
    async def execute_command(self, *words):
        raise ConnectionRefusedError

    async def __aenter__(self):
        return self


def test_no_member_of_a_throttler_hides_a_cycle(aio):
    class Store(aio.Store):
        pass

    class Throttler(aio.Throttler):
        pass

    members = {"redis": lambda: Store("memory:"), "max_capacity": lambda: Whole(5), "drop_recharge": lambda: Real(5),
               "block_duration": lambda: Real(5), "prefix": lambda: Text("p:")}
    cases = [*members.items(), ("redis", lambda: Text("memory:")), ("redis", Client),
             ("redis", lambda: Store("redis://127.0.0.1:1"))]
    for name, make in cases:
        member = make()
        member.throttler = Throttler(**{"redis": "memory:", "max_capacity": 5, "drop_recharge": 5, name: member})
        gone = weakref.ref(member.throttler)
        del member
        gc.collect()
        assert gone() is None, (name, make)


@under_asyncio
async def test_no_member_of_a_decision_hides_a_cycle(aio, redis_server):
    async with aio.connect(redis_server.url, timeout=10, deny_memory=0) as store:
        for asked in (False, True):
            key = Text("k")
            key.decision = aio.Throttler(store, 10, 60)._consume(key)
            if asked:
                await key.decision
            gone = weakref.ref(key)
            del key
            gc.collect()
            assert gone() is None
