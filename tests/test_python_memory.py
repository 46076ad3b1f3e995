# SPDX-License-Identifier: MIT
"""The memory of the Python package: constant over a million calls, small for many throttlers, and no crash if it runs
out."""
import asyncio
import os
import subprocess
import sys
import threading

import pytest
from python_rig import python, under_asyncio

LEVEL = """
import asyncio, gc, os, sys
from aiosteady import Closed, Error, Throttler, connect, consume_all

url, closed_url, many, some = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

async def decide(t, n, key="k"):
    for _ in range(n):
        await t.consume(key, 1)

async def in_flight(t, n):
    for _ in range(n // 500):
        tasks = [asyncio.ensure_future(t.consume("k")) for _ in range(500)]
        await asyncio.sleep(0)
        for task in tasks[::2]: task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

async def fail(t, n, *arguments):
    for _ in range(n):
        try:
            await t.consume(*arguments)
        except (TypeError, ValueError, Error):
            pass

async def wait(t, n):
    for turn in range(n // 100):
        await asyncio.gather(*(t.wait(f"w{turn}:{i}") for i in range(100)))

async def several(t, n):
    for _ in range(n // 4):
        await t.consume("k", {"a": 1, "b": 2}, max_wait=5)
        await t.charge("k", 1), await t.peek("k", (1, 0)), await t.reset("k")
        await consume_all([(t, "k"), (t, "x", 1, "shadow")])
        (await t.peek("k")).limits, (await t.peek("k")).parts, vars(await t.peek("k")), t.stats()

async def reserve(t, n):
    for _ in range(n // 2):
        async with t.reserve("k", 5, max_wait=5) as r:
            r.actual = {"a": 1}
            repr(r), str(r)
        async with t.reserve("k", 5):
            pass
        await t.reset("k")

async def refuse(t, n):
    for _ in range(n // 10):
        for amount in ({"x": 1}, {"a": 1}, (1,), {"a": 1, "b": 1.5}, [1, "x"], 5.5, 2**40):
            await fail(t, 1, "k", amount)
        try:
            async with t.reserve("k", (1, 5)) as r:
                for actual in (5, 1.5, {"x": 1}, (1, True), {"a": -1}):
                    try:
                        r.actual = actual
                    except (TypeError, ValueError):
                        pass
                r.actual = 0, 0
        except Error:
            pass

async def leave_lines(t, n):
    for _ in range(n // 100):
        await t.consume("line", t.max_capacity, max_wait=None)
        tasks = [asyncio.ensure_future(t.wait("line")) for _ in range(50)]
        await asyncio.sleep(0)
        tasks += [asyncio.ensure_future(t.wait("line")) for _ in range(50)]
        await asyncio.sleep(0.0001)
        for task in tasks: task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await t.reset("line")

async def make(n):
    for _ in range(n):
        t = Throttler("memory:", 10, 5, block_duration=1, prefix="p")
        await t.consume("k"), await t.peek("k"), await t.reset("k")
        repr(await t.consume("k")), hash(t), repr(t), repr(t._target), t.stats(), t._target.stats()

async def blocks():
    await asyncio.sleep(0.2)  # a loop keeps a timer that was cancelled until it is due
    gc.collect()
    return sys.getallocatedblocks()

async def level(what, n, work):
    "What leaks grows each time. Caches may grow once more after the first run, by as much as 280 blocks."
    await work(n if n <= some else n // 10)
    grown = []
    while len(grown) < 3 and not (grown and abs(grown[-1]) < 300):
        before = await blocks()
        await work(n)
        grown.append(await blocks() - before)
    assert abs(grown[-1]) < 300, (what, grown)
    print(what, "is level")

async def main():
    memory, full = Throttler("memory:", 10, 5), Throttler("memory:", 1, 60, 60)
    server = Throttler(connect(url, timeout=10), 10**6, 1)
    await level("memory", many, lambda n: decide(memory, n))
    await level("blocked", some, lambda n: decide(full, n))
    await level("server", some, lambda n: decide(server, n))
    await level("cancelling", some, lambda n: in_flight(server, n))
    await level("a float", some, lambda n: fail(memory, n, "k", 1.5))
    await level("no key", some, lambda n: fail(memory, n, 5))
    await level("a surrogate", some, lambda n: fail(memory, n, chr(0xd800) + "x"))
    await level("server closed", some // 10, lambda n: fail(Throttler(closed_url, 1, 1), n, "k"))
    await level("policy", some // 10, lambda n: decide(Throttler(closed_url, 1, 1, on_error="local"), n))
    await level("waiting", some // 10, lambda n: wait(memory, n))
    limits = {"a": "1000000/day", "b": "1000000/hour"}
    two, far = Throttler("memory:", limits=limits), Throttler(connect(url, timeout=10), limits=limits)
    for name, t in (("memory", two), ("server", far)):
        await level(f"several, {name}", some, lambda n: several(t, n))
        await level(f"reserving, {name}", some, lambda n: reserve(t, n))
        await level(f"refusing, {name}", some, lambda n: refuse(t, n))
    await level("lines", some // 10, lambda n: leave_lines(memory, n))
    await level("lines, server", some // 10, lambda n: leave_lines(server, n))
    await far.aclose()
    await level("making", 500, make)
    await server.aclose()

asyncio.run(main())
"""


def test_memory_is_level_over_a_million_calls(aiosteady, redis_server, closed_port):
    args = (redis_server.url, f"redis://127.0.0.1:{closed_port}", "1000000", "20000")
    run = subprocess.run([sys.executable, "-c", LEVEL, *args], env={**os.environ, "PYTHONPATH": str(aiosteady)},
                         capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("is level") == 19
    python(aiosteady, LEVEL, *args[:2], "5000", "1000", quiet=False)


EXHAUSTED = """
import asyncio, sys
try:
    import _testcapi
except ImportError:
    print("no _testcapi")
    sys.exit()
import faulthandler
from aiosteady import ThrottleResult, Throttler, connect, Error
from aiosteady.asgi import RateLimit

url = sys.argv[1]
sys.unraisablehook = lambda unraisable: None

async def one(where, t):
    await t.consume("k")
    await t.consume("k", max_wait=5)
    await two.consume("k", {"a": 1, "b": 1})
    async with two.reserve("k", (1, 5)) as r:
        r.actual = {"b": 2}
        str(r)
    try:
        await t.consume("k", 1.5)
    except TypeError:
        pass
    repr(await t.peek("k"))

def every(what, prepare, work):
    failed = 0
    for n in range(400):
        made = prepare()
        _testcapi.set_nomemory(n, n + 1)
        try:
            work(made)
        except (MemoryError, Error, RuntimeError, SystemError) as error:
            failed += 1
        finally:
            _testcapi.remove_mem_hooks()
        del made
    print(what, failed > 3)

def drive(coroutine):
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value

async def app(scope, receive, send):
    headers = [(b"ratelimit", b"own")] if scope["own"] else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})

async def sent(message):
    assert message["type"]

def respond(limit, own):
    drive(limit({"type": "http", "client": ("2001:db8::1", 1), "headers": [], "own": own}, None, sent))

memory = Throttler("memory:", 10**6, 5, 5)
for form in "draft-11", "x":
    limit = RateLimit(app, memory, fields=form)
    every("making a middleware", lambda: None, lambda _: RateLimit(app, memory, fields=form))
    for own in False, True:
        every("the middleware", lambda: None, lambda _: respond(limit, own))
two = Throttler("memory:", limits={"a": "1000000/day", "b": "1000000/day"})
every("making", lambda: None, lambda _: Throttler("memory:", 10, 5, 5, prefix="p", on_error="local"))
every("deciding", lambda: None, lambda _: drive(one("memory:", memory)))
every("a result", lambda: None, lambda _: repr(ThrottleResult(False, 1, 2.5, 1.5, 2.5, "local", "unknown", 1.5, 3)))
full = drive(two.consume("full", max_wait=1))
every("a result for JSON", lambda: None, lambda _: (vars(full), str(full)))
every("counters", lambda: None, lambda _: (two.stats(), memory.stats(), repr(memory._target)))

async def server(t):
    try:
        await t.consume("k")
        async with t.reserve("k") as r:
            r.actual = 0
    finally:
        _testcapi.remove_mem_hooks()

def on_loop():
    loop = asyncio.new_event_loop()
    task = loop.create_task(server(Throttler(connect(url, timeout=10), 10, 5)))
    loop.call_later(0.05, loop.stop)  # asyncio loses a task where it cannot allocate what wakes it
    return loop, task

def on_server(made):
    loop, task = made
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

if sys.version_info[:2] != (3, 13):  # whose asyncio crashes by itself where it cannot allocate
    every("on a server", on_loop, on_server)
    assert asyncio.run(Throttler(connect(url, timeout=10), 10, 5).peek("k")).level > 0
drive(one("memory:", memory))
assert asyncio.run(Throttler(connect(url, timeout=10), 10, 5).consume("after")).level == 1
"""


def test_running_out_of_memory_at_any_moment_crashes_nothing(aiosteady, redis_server):
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", EXHAUSTED, redis_server.url], capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(aiosteady)}, timeout=120, check=False)
    if "no _testcapi" in run.stdout:
        pytest.skip("this Python has no _testcapi")
    assert run.returncode == 0, f"{run.returncode}\n{run.stdout}\n{run.stderr[-3000:]}"
    assert "False" not in run.stdout and run.stdout.count("True") >= 3, run.stdout


DESCRIPTORS = """
import asyncio, gc, os
from aiosteady import Throttler

t = Throttler("memory:", 1, 0.001)

async def wait():
    await asyncio.gather(*(t.wait("k") for _ in range(3)))
    asyncio.ensure_future(t.wait("other", 1)), await asyncio.sleep(0)

for turn in range(30):
    asyncio.run(wait())
    gc.collect()
    if turn == 3:
        before = len(os.listdir("/proc/self/fd"))
assert len(os.listdir("/proc/self/fd")) == before
print("fine")
"""


def test_a_loop_that_has_waited_leaves_no_descriptor_open(aiosteady):
    assert python(aiosteady, DESCRIPTORS) == "fine\n"


# ---- Throttlers on "memory:" ----

MANY = """
import asyncio, gc, resource
from aiosteady import Throttler

def mib():
    "Resident, of this process."
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * resource.getpagesize() >> 20

async def fill(throttlers, keys):
    for t in throttlers:
        for i in range(keys):
            assert (await t.consume(f"k{i}")).level == 1

before = mib()
throttlers = [Throttler("memory:", 10, 3600) for _ in range(100)]
asyncio.run(fill(throttlers, 30))
assert mib() - before < 40, mib() - before
for _ in range(100):
    asyncio.run(fill([Throttler("memory:", 10, 3600)], 30))
assert mib() - before < 45, mib() - before
del throttlers
gc.collect()
assert mib() - before < 20, mib() - before
print("fine")
"""


def test_a_hundred_throttlers_in_memory_take_a_few_mib(aiosteady):
    assert python(aiosteady, MANY, malloc="default") == "fine\n"


@under_asyncio
async def test_throttlers_in_memory_have_buckets_of_their_own(aio):
    key = "k" * 1016
    limits = (5, 60), (5, 60), (7, 0.5), (5, 60, 30)
    throttlers = [aio.Throttler("memory:", *limit, prefix="p:") for limit in limits]
    for t in throttlers:
        for i in range(t.max_capacity):
            for name in ("k", b"k" * 1022, key):
                assert (await t.consume(name)).level == i + 1
    last = throttlers[-1]
    assert (await last.consume("k")).blocked_for == 30
    assert (await throttlers[0].reset("k")).success
    assert [(await t.peek("k")).level for t in throttlers[:2]] == [0, 5]
    assert (await throttlers[0].peek("k")).blocked_for is None
    assert (await aio.Throttler("memory:", 5, 60, 30, prefix="p:").peek("k")).level == 0, "a new one begins anew"
    with pytest.raises(ValueError, match="key"):
        await last.consume(b"k" * 1023)


@under_asyncio
async def test_throttlers_on_one_store_in_memory_share_its_buckets(aio):
    async with aio.connect("memory:") as store, aio.connect("memory:") as other:
        await aio.Throttler(store, 5, 60).consume("k", 3)
        assert (await aio.Throttler(store, 9, 60).peek("k")).level == 3
        assert (await aio.Throttler(other, 9, 60).peek("k")).level == 0
        assert (await aio.Throttler("memory:", 9, 60).peek("k")).level == 0


@under_asyncio
async def test_closing_a_throttler_in_memory_closes_no_other(aio):
    closed, open_ = aio.Throttler("memory:", 5, 60), aio.Throttler("memory:", 5, 60)
    await closed.consume("k")
    await open_.consume("k")
    for _ in range(2):
        await closed.aclose()
    for ask in (closed.consume, closed.peek, closed.reset, closed.wait):
        with pytest.raises(aio.Closed):
            await ask("k")
    assert (await open_.consume("k")).level == 2
    await open_.aclose()
    async with aio.Throttler("memory:", 5, 60) as t:
        assert (await t.consume("k")).level == 1


@under_asyncio
async def test_a_flooded_throttler_in_memory_does_not_affect_another(aio):
    """In a full table keys share a bucket. If throttlers shared a table, one would deny the keys of another."""
    flooded, other = aio.Throttler("memory:", 5, 3600), aio.Throttler("memory:", 5, 3600)
    for i in range(2**20 + 2**19):  # more keys than the table has slots
        flooded._consume(str(i))  # without await, because a million awaits are slow in debug mode
    levels = {(await flooded.consume(f"new {i}")).level for i in range(1000)}
    assert levels != {1}, "it is full"
    assert {(await other.consume(f"new {i}")).level for i in range(1000)} == {1}


def test_throttlers_in_memory_work_in_any_thread(aio):
    wrong = []

    async def work():
        for i in range(50):
            t = aio.Throttler("memory:", 50, 60)
            levels = [(await t.consume("k")).level for _ in range(20)]
            if levels != list(range(1, 21)):
                wrong.append(levels)

    threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
