# SPDX-License-Identifier: MIT
"""aiosteady.testing: a clock that a test sets, fresh buckets, the pytest fixture, and pytest-asyncio and freezegun."""
import asyncio
import contextlib
import gc
import importlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
from python_rig import python, under_asyncio

pytestmark = pytest.mark.filterwarnings("error")

REDIS = "redis==8.1.0"
PYTEST_ASYNCIO = ("pytest-asyncio==1.2.0", "pytest==8.4.2")
FREEZEGUN = "freezegun==1.5.5"


@pytest.fixture(scope="module")
def testing(aio):
    return importlib.import_module("aiosteady.testing")


@pytest.fixture(scope="module")
def blocking(aio):
    return importlib.import_module("aiosteady.blocking")


@pytest.fixture
def clock(testing):
    return testing.Clock()


@pytest.fixture
def quick_to_fail(testing, monkeypatch):
    """A clock that stands still is found soon."""
    for module in (testing, sys.modules["aiosteady._lines"]):
        monkeypatch.setattr(module, "STILL_LOOK", 0.01)


async def turns():
    """Lets the woken tasks run."""
    await asyncio.sleep(0)


def started(t, n, done, key="k", **how):
    """n tasks that wait. `done` gets their numbers in the order of their turns."""

    async def one(i):
        await t.wait(key, **how)
        done.append(i)

    return [asyncio.create_task(one(i)) for i in range(n)]


# ---- The clock ----


def test_the_clock_has_the_time_that_was_set(testing):
    clock = testing.Clock(1.5)
    assert clock.now() == 1.5
    clock.advance(0.1)
    clock.advance(0.2)
    assert clock.now() == 1.8, "it counts microseconds, so there is no error of floats"
    clock.set(-7)
    assert clock.now() == -7 and repr(clock) == "Clock(-7.0)"
    assert repr(testing.Clock(autojump=True)) == "Clock(0.0, autojump=True)"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e10])
def test_a_time_out_of_range_is_refused(testing, bad):
    clock = testing.Clock()
    for call in (clock.advance, clock.set, testing.Clock):
        with pytest.raises(ValueError, match="it must be"):
            call(bad)
    with pytest.raises(ValueError, match="seconds is -1; it must be 0 .."):
        clock.advance(-1)
    for call in (clock.advance, clock.set):
        with pytest.raises(TypeError, match="must be a number of seconds, not str"):
            call("60")
    assert clock.now() == 0.0


def test_only_a_clock_of_this_package_and_only_memory_will_do(aio, blocking, testing, tmp_path):
    for module in (aio, blocking):
        for clock in (time.time, 5.0, object()):
            with pytest.raises(TypeError, match=r"clock must be an aiosteady\.testing\.Clock, not "):
                module.Store("memory:", clock=clock)
        with pytest.raises(ValueError, match="a server uses a clock of its own; only memory: takes a clock"):
            module.connect("redis://127.0.0.1:1", clock=testing.Clock())
        with pytest.raises(ValueError, match="other processes use the buckets of file:, too"):
            module.connect(f"file:{tmp_path}/never-made", clock=testing.Clock())
        clock = testing.Clock()
        assert module.connect("memory:", clock=clock).clock is clock
        assert module.connect("memory:").clock is None
    assert not list(tmp_path.iterdir())


# ---- Decisions ----


@under_asyncio
async def test_time_passes_only_if_the_clock_moves(aio, clock):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits={"m": "2/minute", "h": "3/hour"})
    assert [(await t.consume("k")).success for _ in range(3)] == [True, True, False]
    denied = await t.peek("k")
    assert denied.retry_after == 30.0 and denied.name == "m"
    clock.advance(30 - 1e-6)
    assert (await t.peek("k")).retry_after == 1e-6
    clock.advance(1e-6)
    assert (await t.consume("k")).success
    clock.advance(denied.retry_after)
    assert (await t.consume("k")).name == "h"
    clock.advance(3600)
    assert (await aio.consume_all([(t, "k"), (t, "other")])).success


def test_time_of_a_blocking_store_passes_only_if_the_clock_moves(blocking, clock):
    t = blocking.Throttler(blocking.Store("memory:", clock=clock), limits="2/minute", block_duration=600)
    assert [t.consume("k").success for _ in range(3)] == [True, True, False]
    assert t.peek("k").blocked_for == 600.0
    clock.advance(599)
    assert t.peek("k").blocked_for == 1.0
    clock.advance(1)
    assert t.consume("k", 2).success


def test_stores_may_share_a_clock_and_keep_it(blocking, testing):
    clock = testing.Clock()
    stores = [blocking.Store("memory:", clock=clock) for _ in range(2)]
    throttlers = [blocking.Throttler(store, limits="1/minute") for store in stores]
    for t in throttlers:
        assert t.consume("k").success and not t.consume("k").success
    clock.advance(60)
    assert all(t.consume("k").success for t in throttlers)
    gone = weakref.ref(clock)
    del clock, stores
    gc.collect()
    assert not throttlers[0].consume("k").success and gone() is not None
    gone().advance(60)
    assert throttlers[0].consume("k").success
    del throttlers, t
    gc.collect()
    assert gone() is None


def test_a_clock_that_is_set_back_is_a_step_of_the_store(blocking, testing):
    clock = testing.Clock(1000)
    store = blocking.Store("memory:", clock=clock)
    t = blocking.Throttler(store, limits="1/minute")
    assert t.consume("k").success
    clock.set(500)
    assert t.consume("k").retry_after == 60.0 and store.stats()["clock_steps"] == 1


# ---- Waits in asyncio ----


@under_asyncio
async def test_advance_wakes_the_waiters_whose_turn_has_come_in_order(aio, clock):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/minute")
    await t.wait("k")
    done = []
    tasks = started(t, 5, done)
    await turns()
    clock.advance(60 - 1e-6)
    await turns()
    assert done == []
    clock.advance(1e-6)
    await turns()
    assert done == [0]
    clock.advance(120)
    await turns()
    assert done == [0, 1, 2]
    clock.set(0)
    await turns()
    clock.set(240)
    await turns()
    assert done == [0, 1, 2, 3]
    clock.advance(1e6)
    await asyncio.gather(*tasks)
    assert done == [0, 1, 2, 3, 4] and t._lines == {}


@under_asyncio
async def test_a_cancelled_waiter_gives_its_place_to_the_next_by_the_clock(aio, clock):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/minute")
    await t.wait("k")
    done = []
    tasks = started(t, 3, done)
    await turns()
    tasks[0].cancel()
    await turns()
    clock.advance(60)
    await turns()
    assert done == [1]
    clock.advance(60)
    await asyncio.gather(*tasks[1:])
    assert done == [1, 2]
    assert (await t.peek("k")).level == 1, "two turns of two minutes; the third place was given back"


@under_asyncio
async def test_a_timeout_counts_by_the_clock(aio, clock):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/minute")
    await t.wait("k", timeout=0)
    with pytest.raises(TimeoutError, match=r"it would take 60\.000 s"):
        await t.wait("k", timeout=59.9)
    waiter = asyncio.create_task(t.wait("k", timeout=60))
    await turns()
    clock.advance(60)
    assert (await waiter).must_wait == 60.0


@under_asyncio
async def test_a_wait_on_a_blocked_key_ends_with_the_block_by_the_clock(aio, clock):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/minute", block_duration=600)
    assert (await t.consume("k")).success and not (await t.consume("k")).success
    waiters = [asyncio.create_task(t.wait("k")), asyncio.create_task(t.wait("k", timeout=700))]
    with pytest.raises(TimeoutError):
        await t.wait("k", timeout=599)
    await turns()
    clock.advance(599)
    await turns()
    assert not any(waiter.done() for waiter in waiters)
    clock.advance(1)
    await asyncio.sleep(0.01)
    assert [waiter.done() for waiter in waiters] == [True, False]
    clock.advance(60)
    await asyncio.gather(*waiters)


@under_asyncio
async def test_reserve_and_limit_wait_by_the_clock(aio, clock):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/minute")
    seen = []

    async def reserves():
        async with t.reserve("k", max_wait=120) as r:
            seen.append(clock.now())
            r.actual = 0

    @t.limit("k")
    async def limited():
        seen.append(clock.now())

    await t.wait("k")
    tasks = [asyncio.create_task(reserves()), asyncio.create_task(limited())]
    for _ in range(3):
        await turns()
        clock.advance(60)
    await asyncio.gather(*tasks)
    assert seen == [60.0, 120.0]


@under_asyncio
async def test_a_clock_that_is_moved_in_another_thread_wakes_waiters(aio, clock):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/second")
    await t.wait("k")
    done = []
    tasks = started(t, 50, done)
    await turns()

    def move():
        for _ in range(50):
            clock.advance(1)

    await asyncio.to_thread(move)
    await asyncio.gather(*tasks)
    assert done == list(range(50))


def test_waiters_of_a_closed_loop_do_not_disturb_the_clock(aio, clock):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/minute")

    async def leave_a_waiter():
        await t.wait("k")
        waiter = asyncio.ensure_future(t.wait("k"))
        await turns()
        return waiter

    loop = asyncio.new_event_loop()
    waiter = loop.run_until_complete(leave_a_waiter())
    clock.advance(60)  # between two runs of the loop
    loop.run_until_complete(waiter)
    waiter = loop.run_until_complete(leave_a_waiter_again(t))
    loop.close()
    clock.advance(60)
    assert not waiter.done()
    waiter._log_destroy_pending = False


async def leave_a_waiter_again(t):
    waiter = asyncio.ensure_future(t.wait("k"))
    await turns()
    return waiter


@under_asyncio
async def test_a_wait_fails_if_the_clock_stands_still_and_nothing_stays_charged(aio, clock, quick_to_fail):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/minute")
    await t.wait("k")
    tasks = started(t, 3, [])
    with pytest.raises(RuntimeError, match=r"waits for 60 s more: move it by advance\(60\) .* Clock\(autojump=True\)"):
        await tasks[0]
    assert [type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [RuntimeError] * 3
    assert (await t.peek("k")).level == 1 and t._lines == {}
    waiter = asyncio.create_task(t.wait("k"))  # the next one waits as before
    await turns()
    clock.advance(60)
    await waiter


@under_asyncio
async def test_a_wait_does_not_fail_while_the_clock_moves(aio, clock, quick_to_fail):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/minute")
    await t.wait("k")
    waiter = asyncio.create_task(t.wait("k"))
    for _ in range(59):
        await asyncio.sleep(0.005)
        clock.advance(1)
    assert not waiter.done()
    clock.advance(1)
    await waiter


@under_asyncio
async def test_a_wait_takes_no_processor_time(aio, clock):
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/minute")
    await t.wait("k")
    waiter = asyncio.create_task(t.wait("k"))
    before = time.thread_time()
    await asyncio.sleep(0.5)
    assert time.thread_time() - before < 0.25
    clock.advance(60)
    await waiter


# ---- Autojump ----


@under_asyncio
async def test_with_autojump_each_wait_moves_the_clock_to_its_turn(aio, testing):
    clock = testing.Clock(1000, autojump=True)
    t = aio.Throttler(aio.Store("memory:", clock=clock), limits="60/hour burst 1", block_duration=600)
    for n in range(100):
        await t.wait("k")
        assert clock.now() == 1000 + 60 * n
    done = []
    await asyncio.gather(*started(t, 5, done))
    assert done == list(range(5)) and clock.now() == 1000 + 60 * 104
    assert not (await t.consume("k")).success
    await t.wait("k")
    assert clock.now() == 1000 + 60 * 104 + 600, "a block ends"
    clock.autojump = False
    waiter = asyncio.create_task(t.wait("k"))
    await turns()
    assert not waiter.done()
    clock.advance(60)
    await waiter


def test_with_autojump_each_blocking_wait_moves_the_clock_to_its_turn(blocking, testing):
    clock = testing.Clock(autojump=True)
    t = blocking.Throttler(blocking.Store("memory:", clock=clock), limits="60/hour burst 1", block_duration=600)
    for n in range(100):
        assert t.wait("k", timeout=60).must_wait == (60.0 if n else 0.0)
        assert clock.now() == 60 * n
    with t.reserve("k", max_wait=60) as r:
        assert clock.now() == 6000
        r.actual = 0
    with t.limit("k"):
        pass
    assert not t.consume("k").success
    t.wait("k")
    assert clock.now() >= 6600, "a block ends"


# ---- Blocking waits ----


def test_a_blocking_wait_returns_when_another_thread_has_moved_the_clock(blocking, clock):
    t = blocking.Throttler(blocking.Store("memory:", clock=clock), limits="1/minute")
    t.wait("k")
    done = []

    def work(n):
        t.wait("k")
        done.append(clock.now())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while t.peek("k").level < 5:
        time.sleep(0.001)
    for n in range(1, 5):
        clock.advance(60)
        while len(done) < n:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert done == [60.0, 120.0, 180.0, 240.0]


def test_threads_that_move_the_clock_lose_no_move(testing):
    clock = testing.Clock()
    threads = [threading.Thread(target=lambda: [clock.advance(1) for _ in range(5000)]) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert clock.now() == 20000


def test_a_blocking_wait_fails_if_the_clock_stands_still_and_nothing_stays_charged(blocking, clock, quick_to_fail):
    t = blocking.Throttler(blocking.Store("memory:", clock=clock), limits="1/minute")
    t.wait("k")
    for call in (lambda: t.wait("k"), lambda: t.wait("k", timeout=60), t.reserve("k", max_wait=None).__enter__):
        with pytest.raises(RuntimeError, match=r"waits for 60 s more: move it by advance\(60\)"):
            call()
        assert t.peek("k").level == 1


def test_an_exception_of_a_signal_handler_ends_a_blocking_wait_and_gives_the_place_back(blocking, clock):
    t = blocking.Throttler(blocking.Store("memory:", clock=clock), limits="1/minute")
    t.wait("k")

    def ring(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            t.wait("k")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert t.peek("k").level == 1


# ---- reset_all ----


@under_asyncio
async def test_reset_all_empties_all_buckets_in_memory(aio, testing, clock):
    store = aio.Store("memory:", clock=clock)
    a, b = aio.Throttler(store, limits="1/minute", prefix="a"), aio.Throttler(store, limits="1/hour", block_duration=60)
    for given in (store, a):
        for t in (a, b):
            assert (await t.consume("k")).success and not (await t.consume("k")).success
        testing.reset_all(given)
    own = aio.Throttler("memory:", limits="1/minute")
    assert (await own.consume("k")).success
    testing.reset_all(own)
    assert (await own.consume("k")).success
    async with b.reserve("k") as r:
        testing.reset_all(b)
        r.actual = 0
    assert (await b.peek("k")).level == 0, "what was reset is not given back"


def test_reset_all_empties_all_buckets_of_a_blocking_store(blocking, testing):
    t = blocking.Throttler("memory:", limits={"m": "1/minute", "h": "1/hour"})
    for key in range(1000):
        assert t.consume(str(key)).success
    testing.reset_all(t)
    for key in range(1000):
        assert t.consume(str(key)).success
    t.close()
    with pytest.raises(sys.modules["aiosteady"].Closed):
        testing.reset_all(t)


def test_reset_all_keeps_the_turns_of_waiters(aio, testing):
    clock = testing.Clock()

    async def main():
        t = aio.Throttler(aio.Store("memory:", clock=clock), limits="1/minute")
        await t.wait("k")
        waiter = asyncio.create_task(t.wait("k"))
        await turns()
        testing.reset_all(t)
        clock.advance(59)
        await turns()
        assert not waiter.done()
        clock.advance(1)
        await waiter

    asyncio.run(main())


def test_reset_all_refuses_what_it_cannot_reset(aio, blocking, testing, tmp_path, closed_port):
    url = f"redis://127.0.0.1:{closed_port}"
    for module in (aio, blocking):
        for given in (module.Store(url), module.Throttler(url, limits="1/minute"), module.Throttler(url, limits="1/s", prefix="p")):
            with pytest.raises(ValueError, match="for a server, give a throttler and a client for the server"):
                testing.reset_all(given)
        for given in (module.Store(url), module.Throttler(url, limits="1/minute")):
            with pytest.raises(ValueError, match="give a throttler with a prefix"):
                testing.reset_all(given, client=object())
        with pytest.raises(ValueError, match="for file:, use a new file in each test"):
            testing.reset_all(module.Store(f"file:{tmp_path}/{module.__name__}"))
    for given in (url, None, {}):
        with pytest.raises(TypeError, match="reset_all takes a Store or a Throttler of aiosteady, not "):
            testing.reset_all(given)


@pytest.fixture
def redis(from_pypi):
    sys.path.append(str(from_pypi(REDIS)))
    return importlib.import_module("redis")


@pytest.mark.parametrize("api", ["url", "blocking", "client"])
def test_reset_all_on_a_server_deletes_the_buckets_of_the_prefix_and_nothing_else(aio, blocking, testing, redis, redis_server, api):
    async def fill(t, keys):
        for key in keys:
            answer = t.consume(key)
            assert (answer if api == "blocking" else await answer).success
        if t._own is not None:
            t._own.close()

    async def main():
        server = redis_server.url
        module = blocking if api == "blocking" else aio
        client = importlib.import_module("redis.asyncio").Redis.from_url(server) if api == "client" else None
        made = {prefix: module.Throttler(client or server, limits=limits, prefix=prefix) for prefix, limits in
                [("test*[x]?\\:", "5/hour"), ("testxx:", "5/hour"), ("several:", {"a": "5/hour", "b": "9/day"})]}
        for t in made.values():
            await fill(t, [f"user {n}" for n in range(30)] + [b"\xff\x00"])
        if client is not None:
            await client.aclose()
        return made

    made = asyncio.run(main())
    with contextlib.closing(redis.Redis(port=redis_server.port)) as client:
        client.set("test*[x]?\\:text", "hello")
        client.rpush("test*[x]?\\:list", "hello")
        assert client.dbsize() == 31 * 4 + 2
        testing.reset_all(made["test*[x]?\\:"], client)
        assert client.dbsize() == 31 * 3 + 2
        assert client.get("test*[x]?\\:text") == b"hello" and client.llen("test*[x]?\\:list") == 1
        testing.reset_all(made["several:"], client)
        assert client.dbsize() == 31 + 2
        assert all(key.startswith((b"testxx:", b"test*")) for key in client.keys())


def test_reset_all_on_a_server_counts_at_once_for_a_key_that_was_denied(blocking, testing, redis, redis_server):
    with contextlib.closing(blocking.connect(redis_server.url, timeout=5)) as store:
        t = blocking.Throttler(store, limits="2/hour", prefix="denied:")
        assert [t.consume("k").success for _ in range(3)] == [True, True, False] and t.consume("k").source == "memory"
        with contextlib.closing(redis.Redis(port=redis_server.port)) as client:
            testing.reset_all(t, client)
        assert t.consume("k", 2).success


def test_reset_all_reports_an_error_of_the_server(blocking, testing, redis, redis_server, closed_port):
    t = blocking.Throttler(blocking.Store(redis_server.url, timeout=10), limits="1/hour", prefix="p:")
    assert t.consume("k").success
    redis_server("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+@connection")
    try:
        with pytest.raises(redis.exceptions.NoPermissionError):
            testing.reset_all(t, redis.Redis(port=redis_server.port, username="reader", password="secret"))
    finally:
        redis_server("ACL", "DELUSER", "reader")
    with pytest.raises(redis.exceptions.ConnectionError):
        testing.reset_all(t, redis.Redis(port=closed_port, retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0)))


# ---- pytest, pytest-asyncio, freezegun ----


def test_the_package_imports_neither_this_module_nor_pytest(aiosteady):
    python(aiosteady, """
import sys
import aiosteady, aiosteady.blocking
assert not {"pytest", "aiosteady.testing"} & set(sys.modules)
sys.modules["pytest"] = None
import aiosteady.testing
assert aiosteady.testing.Clock().now() == 0 and not hasattr(aiosteady.testing, "steady_clock")
""")


TESTS = '''
import asyncio
import pytest
import pytest_asyncio
from aiosteady import Store, Throttler, blocking
from aiosteady.testing import Clock, reset_all

application = Throttler("memory:", limits="1/hour")


@pytest.fixture(autouse=True)
def fresh():
    reset_all(application)


@pytest_asyncio.fixture
async def throttler(steady_clock):
    async with Store("memory:", clock=steady_clock) as store:
        yield Throttler(store, limits="1/minute")


MARK
@pytest.mark.parametrize("n", range(2))
async def test_limit(throttler, steady_clock, n):
    assert steady_clock.now() == 0
    assert (await throttler.consume("k")).success
    assert not (await throttler.consume("k")).success
    waiter = asyncio.create_task(throttler.wait("k"))
    await asyncio.sleep(0)
    steady_clock.advance(60)
    assert (await waiter).success


MARK
@pytest.mark.parametrize("n", range(2))
async def test_application(n):
    assert (await application.consume("k")).success


@pytest.mark.parametrize("n", range(2))
def test_without_a_loop(steady_clock, n):
    t = blocking.Throttler(blocking.Store("memory:", clock=steady_clock), limits="1/minute")
    assert t.consume("k").success and not t.consume("k").success
    steady_clock.advance(60)
    assert t.consume("k").success
'''


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_the_fixture_works_with_pytest_asyncio(aiosteady, from_pypi, tmp_path, mode):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["aiosteady.testing"]\n')
    (tmp_path / "test_it.py").write_text(TESTS.replace("MARK", "@pytest.mark.asyncio" if mode == "strict" else ""))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", "-W", "error",
               f"--asyncio-mode={mode}", tmp_path]
    env = {**os.environ, "PYTHONPATH": f"{aiosteady}:{from_pypi(*PYTEST_ASYNCIO)}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0 and "6 passed" in done.stdout, done.stdout + done.stderr


def test_freezegun_has_no_effect_on_buckets_and_waits(aiosteady, from_pypi):
    python(f"{aiosteady}:{from_pypi(FREEZEGUN)}", """
import asyncio, time
import aiosteady
from aiosteady import blocking
from aiosteady.testing import Clock
from freezegun import freeze_time

clock = Clock()
with freeze_time("2030-01-01") as frozen:
    before = time.monotonic()
    for t in blocking.Throttler("memory:", limits="1/hour"), blocking.Throttler(blocking.Store("memory:", clock=clock), limits="1/hour"):
        assert t.consume("k").success
        frozen.tick(2 * 3600)
        assert not t.consume("k").success
    clock.advance(3600)
    assert t.consume("k").success
    assert time.monotonic() - before == 4 * 3600, "freezegun has replaced the clock of Python"

    quick = blocking.Throttler("memory:", limits="20/second")
    for _ in range(22):
        quick.wait("k")
    quick.wait("k", timeout=10)

async def main():
    with freeze_time("2030-01-01"):
        t = aiosteady.Throttler("memory:", limits="20/second")
        begin = time.clock_gettime(time.CLOCK_BOOTTIME)
        for _ in range(22):
            await t.wait("k")
        await t.wait("k", timeout=10)
        assert time.clock_gettime(time.CLOCK_BOOTTIME) - begin > 0.099, "at least two turns of 50 ms"
        clock = Clock()
        t = aiosteady.Throttler(aiosteady.Store("memory:", clock=clock), limits="1/hour")
        await t.wait("k")
        waiter = asyncio.create_task(t.wait("k"))
        await asyncio.sleep(0)
        clock.advance(3600)
        await waiter

asyncio.run(main())
""")
