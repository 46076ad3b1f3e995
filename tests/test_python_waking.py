# SPDX-License-Identifier: MIT
"""A task resumes inside the library's callback when its answer arrives. These tests do all that a task may do there."""
import asyncio
import contextvars
import importlib
import random
import sys

import pytest
from python_rig import python, under_asyncio

COUNT = 50


@pytest.fixture(scope="module", autouse=True)
def package(aiosteady):
    sys.path.insert(0, str(aiosteady))
    yield importlib.import_module("aiosteady")
    sys.path.remove(str(aiosteady))


@pytest.fixture
def store(package, redis_server):
    return package.connect(redis_server.url, timeout=5.0)


@pytest.fixture
def throttler(package, store):
    return package.Throttler(store, 10**6, 3600.0)


def run(main):
    return under_asyncio(lambda: main)()


def test_a_woken_task_runs_in_its_own_context(throttler):
    mine = contextvars.ContextVar("mine")

    async def one(name):
        mine.set(name)
        for turn in range(20):
            await throttler.consume(name)
            assert mine.get() == name and asyncio.current_task().get_name() == name
            mine.set(name)

    async def main():
        await asyncio.gather(*(asyncio.create_task(one(f"k{i}"), name=f"k{i}") for i in range(COUNT)))
        assert "mine" not in {variable.name for variable in contextvars.copy_context()}

    run(main())


def test_answers_reach_their_tasks_while_woken_tasks_cancel_others(throttler):
    async def main():
        tasks = []

        async def one(at):
            for turn in range(20):
                level = (await throttler.consume(f"k{at}")).level
                assert level == turn + 1
                victim = random.choice(tasks)
                if at % 2 == 0 and victim is not asyncio.current_task() and tasks.index(victim) % 2 == 1:
                    victim.cancel("by a neighbour")
            return at

        tasks.extend(asyncio.create_task(one(at)) for at in range(COUNT))
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(end == at if at % 2 == 0 else isinstance(end, (int, asyncio.CancelledError)) for at, end in enumerate(ends))
        assert [end for end in ends if isinstance(end, asyncio.CancelledError)]

    run(main())


def test_a_task_that_cancels_itself_by_a_timeout_goes_on(throttler):
    async def main():
        for _ in range(COUNT):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(forever(), 0.001)
            assert (await throttler.consume("k")).success

    async def forever():
        while True:
            await throttler.consume("other")

    run(main())


def test_a_woken_task_may_close_the_store(package, store, throttler):
    async def one(at):
        try:
            result = await throttler.consume(f"k{at}")
            if at == COUNT // 2:
                store.close()
            return result.level
        except (package.Cancelled, package.Closed) as error:
            return type(error).__name__

    async def main():
        return await asyncio.gather(*(one(at) for at in range(COUNT)))

    ends = run(main())
    assert set(ends) == {1, "Cancelled"}


def test_other_work_of_the_loop_goes_on(throttler):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        async def busy():
            for _ in range(300):
                await throttler.consume("k")

        ticker = asyncio.create_task(tick())
        await asyncio.gather(*(busy() for _ in range(4)))
        ticker.cancel()
        assert ticks >= 300

    run(main())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_pass_through_the_callback(throttler, stop):
    others = []

    async def one(at):
        await throttler.consume("k")
        others.append(at)
        if at == 3:
            raise stop("now")

    async def main():
        await asyncio.gather(*(one(at) for at in range(10)))

    with pytest.raises(stop):
        asyncio.run(main())
    assert 3 in others


def test_an_error_of_a_woken_task_stays_in_that_task(throttler):
    async def one(at):
        await throttler.consume("k")
        if at == 3:
            raise LookupError("mine")
        return (await throttler.consume("k")).success

    async def main():
        ends = await asyncio.gather(*(one(at) for at in range(10)), return_exceptions=True)
        assert [type(end) for end in ends] == [LookupError if at == 3 else bool for at in range(10)]

    run(main())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio knows no task of its own Python text any more")
def test_tasks_written_in_python_can_await_decisions(throttler):
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coroutine, **options: asyncio.tasks._PyTask(coroutine, loop=loop, **options))
        tasks = [loop.create_task(asyncio.wait_for(throttler.consume(f"k{at}"), 5)) for at in range(COUNT)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(ends[0], asyncio.CancelledError) and all(end.success for end in ends[1:])

    run(main())


FORKS = """
import asyncio, os, sys, time
from aiosteady import Throttler, connect

store = connect(sys.argv[1], timeout=5.0)
throttler = Throttler(store, 10**6, 3600.0)
parent, ran_in_child = os.getpid(), 0

async def one(at):
    global ran_in_child
    for turn in range(20):
        level = (await throttler.consume(f"fork{at}")).level
        assert level == turn + 1, (at, turn, level)
        ran_in_child += os.getpid() != parent
        if (at, turn) == (25, 10):
            child = os.fork()
            if child == 0:
                ran_in_child += 1
                raise SystemExit(0)
            os.waitpid(child, 0)

async def main():
    await asyncio.gather(*(one(at) for at in range(50)))
    assert store.stats()["reconnects"] == 0, store.stats()

try:
    asyncio.run(main())
finally:
    if os.getpid() != parent:
        os.write(1, b"child %d " % ran_in_child)
        os._exit(0)
print("parent")
"""


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio itself loses a loop that was forked while it ran")
def test_a_child_forked_by_a_woken_task_leaves_the_parents_connection_alone(aiosteady, redis_server):
    """The child ends by an exception that passes through the library's callback."""
    assert python(aiosteady, FORKS, redis_server.url) == "child 1 parent\n"
