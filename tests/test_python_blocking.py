# SPDX-License-Identifier: MIT
"""aiosteady.blocking: the calls without await, from threads, after forks, with signals, and while the store closes."""
import asyncio
import concurrent.futures
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from python_rig import HANGS_S, python, standing_still

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def blocking(aio):
    return importlib.import_module("aiosteady.blocking")


@pytest.fixture(params=["memory", "redis"])
def url(request, redis_server):
    return "memory:" if request.param == "memory" else redis_server.url


@pytest.fixture
def store(blocking, url):
    with blocking.connect(url, timeout=20) as store:
        yield store


def in_threads(n, work):
    """Runs work(i) in n threads. Returns what they return; raises what they raise."""
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        return list(pool.map(work, range(n), timeout=HANGS_S))


def fields(result):
    return {name: getattr(result, name) for name in
            ("success", "level", "granted", "source", "error", "part", "atomic", "name")}


# ---- The same calls, the same results ----


def test_calls_answer_as_the_asynchronous_ones(aio, blocking, url):
    script = [("consume", "k"), ("consume", b"k", 3), ("consume", "k", -2), ("peek", "k"), ("peek", "k", 9), ("consume", "k", 99),
              ("charge", "k", 30), ("consume", "k"), ("reset", "k"), ("peek", "k")]

    async def theirs():
        async with aio.connect(url, timeout=20) as store:
            for limit in ({"limits": ["10/minute", "100/hour"]}, {"max_capacity": 10, "drop_recharge": 60}):
                t = aio.Throttler(store, prefix=f"async{len(limit)}:", **limit)
                for name, *arguments in script:
                    yield await getattr(t, name)(*arguments)
                yield await t.consume("w", 10)
                yield await t.consume("w", 3, max_wait=600)
                yield await t.consume("p", 20, at_least=1)

    def ours():
        with blocking.connect(url, timeout=20) as store:
            for limit in ({"limits": ["10/minute", "100/hour"]}, {"max_capacity": 10, "drop_recharge": 60}):
                t = blocking.Throttler(store, prefix=f"blocking{len(limit)}:", **limit)
                for name, *arguments in script:
                    yield getattr(t, name)(*arguments)
                yield t.consume("w", 10)
                yield t.consume("w", 3, max_wait=600)
                yield t.consume("p", 20, at_least=1)

    async def collect():
        return [result async for result in theirs()]

    expected, got = asyncio.run(collect()), list(ours())
    assert [fields(result) for result in got] == [fields(result) for result in expected]
    assert all(abs(a.must_wait - b.must_wait) < 30 for a, b in zip(got, expected)) and got[-2].must_wait > 0


def test_several_keys_are_one_decision(blocking, store):
    user, tenant = blocking.Throttler(store, 10, 60, prefix="{t}u:"), blocking.Throttler(store, 3, 60, prefix="{t}t:")
    parts = [blocking.Part(user, "a", 2), (tenant, "b")]
    assert [part.level for part in blocking.consume_all(parts).parts] == [2, 1]
    denied = blocking.consume_all([(user, "a"), (tenant, "b", 3)])
    assert not denied.success and denied.part == 1 and user.peek("a").level == 2
    assert blocking.peek_all([(user, "a", 5, "look")]).success
    assert blocking.consume_all([(user, "a", 50, "charge")]).parts[0].level == 52


def test_throttlers_and_stores_of_the_other_kind_are_refused(aio, blocking):
    with blocking.connect("memory:") as store:
        with pytest.raises(TypeError, match="aiosteady.blocking"):
            blocking.Throttler(aio.connect("memory:"), 1, 1)
        with pytest.raises(TypeError, match="Store of aiosteady.blocking"):
            aio.Throttler(store, 1, 1)
        with pytest.raises(TypeError, match="aiosteady.blocking"):
            blocking.consume_all([(aio.Throttler("memory:", 1, 1), "k")])
        with pytest.raises(TypeError, match="must be one of aiosteady$"):
            asyncio.run(aio.consume_all([(blocking.Throttler(store, 1, 1), "k")]))
        with pytest.raises(TypeError):
            blocking.Throttler(object(), 1, 1)


@pytest.mark.parametrize("arguments, error", [
    (("k", 1, 2), TypeError), ((), TypeError), ((5,), TypeError), (("k", 1.5), TypeError), (("",), ValueError),
    (("k" * 1025,), ValueError), (("k", 2**40), ValueError), (("k", (1, 2)), (TypeError, ValueError)), (("k", {"x": 1}), ValueError)])
def test_bad_arguments_are_refused(blocking, store, arguments, error):
    t = blocking.Throttler(store, 10, 60)
    for call in (t.consume, t.peek):
        with pytest.raises(error):
            call(*arguments)
    assert t.peek("k").level == 0


@pytest.mark.parametrize("options", [{"connections": 65}, {"connections": -1}, {"connections": "2"}, {"timeout": 0},
                                     {"nonsense": 1}, {"engine": "x"}], ids=str)
def test_bad_options_are_refused(blocking, options):
    with pytest.raises((TypeError, ValueError)):
        blocking.connect("redis://localhost", **options)


def test_several_connections_share_the_buckets(blocking, redis_server):
    with blocking.connect(redis_server.url, connections=4, timeout=20) as store:
        t = blocking.Throttler(store, 10**6, 3600)
        levels = sum(in_threads(8, lambda i: [t.consume("k").level for _ in range(50)]), [])
        assert sorted(levels) == list(range(1, 401)) and store.stats()["allowed"] == 400


def test_repr_comparison_and_hash_are_those_of_the_asynchronous_class(aio, blocking):
    arguments = {"max_capacity": 10, "drop_recharge": 5, "block_duration": 2}
    theirs, t = aio.Throttler("memory:", **arguments), blocking.Throttler("memory:", **arguments)
    assert repr(t) == repr(theirs) and hash(t) == hash(theirs) and t == blocking.Throttler("memory:", **arguments)
    assert t != theirs and t != blocking.Throttler("memory:", 11, 5)
    assert t.limits == theirs.limits and "secret" not in repr(blocking.Throttler("redis://u:secret@h", 1, 1))


def test_clamp_counts_a_large_amount_as_the_capacity(blocking, store):
    t = blocking.Throttler(store, 10, 60, clamp=True)
    result = t.consume("k", 50)
    assert result.success and result.level == 10 and result.granted == 10
    assert not t.consume("k", 50).success


# ---- Threads ----


def test_no_decision_of_eight_threads_is_lost(blocking, store):
    t = blocking.Throttler(store, 10**6, 3600)
    levels = sum(in_threads(8, lambda i: [t.consume("k").level for _ in range(100)]), [])
    assert sorted(levels) == list(range(1, 801))
    assert store.stats()["decisions"] == 800


def test_other_threads_run_while_a_call_waits(blocking, redis_server):
    with blocking.connect(redis_server.url, timeout=30) as store, blocking.Throttler(store, 10, 60) as t:
        t.consume("k")
        with standing_still(redis_server):
            thread = threading.Thread(target=t.consume, args=("k",))
            thread.start()
            turns = sum(1 for _ in range(10000))  # with the GIL held by the call, this line would not end
            assert thread.is_alive() and turns == 10000
        thread.join(HANGS_S)
    assert not thread.is_alive()


def test_a_store_closed_by_another_thread_ends_the_calls(aio, blocking, redis_server):
    store = blocking.connect(redis_server.url, timeout=100)
    t = blocking.Throttler(store, 10**6, 3600)
    t.consume("k")

    def call(i):
        try:
            while True:
                t.consume("k")
        except (aio.Cancelled, aio.Closed) as error:
            return type(error)

    with standing_still(redis_server), concurrent.futures.ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(call, i) for i in range(4)]
        time.sleep(0.2)
        began = time.monotonic()
        in_threads(3, lambda i: store.close())
        assert {call.result(HANGS_S) for call in calls} <= {aio.Cancelled, aio.Closed}
        assert time.monotonic() - began < 50, "they did not wait for the timeout"
    with pytest.raises(aio.Closed):
        t.consume("k")
    assert store.closed and store.state == "down" and store.stats()["decisions"] > 0


def test_a_closed_throttler_does_not_close_a_shared_store(aio, blocking, url):
    with blocking.connect(url, timeout=20) as store:
        with blocking.Throttler(store, 1, 60) as t:
            t.consume("k")
        assert not t.consume("k").success
        with blocking.Throttler(url, 1, 60) as own:
            pass
        with pytest.raises(aio.Closed):
            own.consume("k")


EXIT = """
import sys, threading, time
from aiosteady.blocking import Throttler, connect

store = connect(sys.argv[1], timeout=60)
t = Throttler(store, 10**9, 1)

def call():
    while True:
        t.consume("k")

for _ in range(4):
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.3)
print("fine")
"""


def test_daemon_threads_in_calls_do_not_delay_the_exit(aiosteady, redis_server):
    assert python(aiosteady, EXIT, redis_server.url) == "fine\n"
    with standing_still(redis_server):
        assert python(aiosteady, EXIT, redis_server.url) == "fine\n"


# ---- Processes ----

FORKS = """
import os, sys, threading, time
from aiosteady.blocking import Throttler, connect

store = connect(sys.argv[1], timeout=60)
t = Throttler(store, 10**6, 3600)
stop = threading.Event()

def call():
    while not stop.is_set():
        assert t.consume("parent").success

threads = [threading.Thread(target=call) for _ in range(3)]
for thread in threads:
    thread.start()
time.sleep(0.1)
children = []
for i in range(6):
    pid = os.fork()
    if pid == 0:
        levels = [t.consume(f"child {i}").level for _ in range(50)]
        assert levels == list(range(1, 51)), levels
        more = threading.Thread(target=lambda: levels.append(t.consume(f"child {i}").level))
        more.start()
        more.join()
        assert levels[-1] == 51
        t.wait("turn")
        if i % 2:
            store.close()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
if sys.argv[1] != "memory:":
    assert [t.peek(f"child {i}").level for i in range(6)] == [51] * 6
store.close()
print("fine")
"""


def test_a_child_goes_on_whatever_the_threads_of_its_parent_did(aiosteady, url):
    run = subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, url], capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(aiosteady)}, timeout=HANGS_S, check=False)
    assert run.returncode == 0 and run.stdout == "fine\n", run.stdout + run.stderr


MULTIPROCESSING = """
import concurrent.futures, multiprocessing, sys
from aiosteady.blocking import Throttler, connect

t = None

def start(url):
    global t
    t = Throttler(connect(url, timeout=60), 10**6, 3600)

def level(_):
    return t.consume("k").level

if __name__ == "__main__":
    for method in ("fork", "forkserver", "spawn"):
        start(sys.argv[1])
        t.reset("k")
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(2, context, start, (sys.argv[1],)) as pool:
            assert sorted(pool.map(level, range(40))) == list(range(1, 41)), method
    if sys.version_info < (3, 14):
        t.reset("k")
        with multiprocessing.get_context("fork").Pool(2) as pool:  # it uses the store that the parent made
            assert sorted(pool.map(level, range(40))) == list(range(1, 41))
    print("fine")
"""


def test_processes_of_multiprocessing_share_a_limit(aiosteady, redis_server, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(MULTIPROCESSING)
    run = subprocess.run([sys.executable, program, redis_server.url], capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(aiosteady)}, timeout=HANGS_S, check=False)
    assert run.returncode == 0 and run.stdout == "fine\n", run.stdout + run.stderr


CELERY = """
import sys
from celery import Celery
from celery.contrib.testing.worker import start_worker
from aiosteady.blocking import Throttler, connect

app = Celery("app", broker="memory://", backend="cache+memory://")
t = Throttler(connect(sys.argv[1], timeout=60), 10**6, 3600)

@app.task
@t.limit(lambda user: f"user:{user}")
def level(user):
    return t.peek(f"user:{user}").level

with start_worker(app, pool=sys.argv[2], concurrency=2, perform_ping_check=False, loglevel="ERROR"):
    answers = [level.delay(7) for _ in range(20)]
    levels = [answer.get(timeout=100) for answer in answers]
assert max(levels) == 20 and all(levels), levels
print("fine")
"""


@pytest.mark.parametrize("pool", [pytest.param("threads", marks=pytest.mark.packages), "solo"])
def test_a_celery_worker_limits_its_tasks(aiosteady, from_pypi, redis_server, pool):
    path = f"{aiosteady}:{from_pypi('celery==5.7.0')}"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", CELERY, redis_server.url, pool], capture_output=True,
                         text=True, env={**os.environ, "PYTHONPATH": path}, timeout=HANGS_S, check=False)
    assert run.returncode == 0 and "fine" in run.stdout, run.stdout + run.stderr


# ---- Waiting ----


def test_wait_takes_one_place_in_line_and_sleeps(blocking, store, url):
    t = blocking.Throttler(store, 1, 0.5)
    t.consume("k")
    before, began = store.stats()["decisions"], time.monotonic()
    result = t.wait("k")
    assert result.success and time.monotonic() - began >= 0.3
    most = 2 if url == "memory:" else 1  # in memory it first tries the short way
    assert before < store.stats()["decisions"] <= before + most
    assert result.must_wait > 0


def test_threads_are_served_in_order(blocking, store):
    t = blocking.Throttler(store, 1, 0.2)
    t.consume("k")
    order, threads = [], []
    for i in range(4):
        threads.append(threading.Thread(target=lambda i=i: (t.wait("k"), order.append(i))))
        threads[-1].start()
        time.sleep(0.03)
    for thread in threads:
        thread.join(HANGS_S)
    assert order == list(range(4))


def test_a_wait_that_cannot_end_in_time_charges_nothing(blocking, store):
    t = blocking.Throttler(store, 5, 60)
    t.consume("k", 5)
    for timeout in (0, -1, 10):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="no room in time"):
            t.wait("k", 2, timeout)
        assert time.monotonic() - began < 8 and t.peek("k").level == 5
    assert t.wait("other", 5, 0).success


@pytest.mark.parametrize("timeout, error", [("1", TypeError), (float("nan"), ValueError)])
def test_a_timeout_that_is_no_number_is_refused(blocking, store, timeout, error):
    with pytest.raises(error, match="timeout"):
        blocking.Throttler(store, 5, 60).wait("k", 1, timeout)


def test_a_drain_is_not_reserved_and_not_waited_for(blocking, store):
    t = blocking.Throttler(store, 5, 60)
    t.consume("k", 3)
    for timeout in (None, 0, 1):
        with pytest.raises(ValueError, match="amount is -1"):
            t.wait("k", -1, timeout)
    with pytest.raises(ValueError, match="amount is -1"), t.reserve("k", -1):
        raise AssertionError("it ran")
    assert t.peek("k").level == 3


def test_an_amount_that_never_fits_is_refused(blocking, store):
    with pytest.raises(ValueError, match="amount is 6"):
        blocking.Throttler(store, 5, 60).wait("k", 6)


def test_a_wait_for_a_blocked_key_lasts_until_the_block_ends(blocking, store):
    t = blocking.Throttler(store, 5, 0.01, 1)
    t.consume("k", 5)
    while t.consume("k", 5).success:
        pass
    began = time.monotonic()
    assert t.wait("k").success and time.monotonic() - began > 0.5
    t.consume("k", 5)
    while t.consume("k", 5).success:
        pass
    with pytest.raises(TimeoutError):
        t.wait("k", timeout=0.05)


def test_a_wait_starts_no_block(blocking, store):
    t = blocking.Throttler(store, 5, 60, 100)
    t.consume("k", 5)
    with pytest.raises(TimeoutError):
        t.wait("k", timeout=0)
    assert t.peek("k").blocked_for is None


def test_a_timeout_covers_the_silence_of_the_store(aio, blocking, redis_server):
    with blocking.connect(redis_server.url, timeout=100) as store:
        t = blocking.Throttler(store, 5, 3600)
        t.consume("k", 5)
        t.consume("free")
        with standing_still(redis_server):
            for key in ("k", "free"):
                began = time.monotonic()
                with pytest.raises(TimeoutError, match="not answered in time") as raised:
                    t.wait(key, timeout=0.2)
                assert isinstance(raised.value.__cause__, aio.Unknown)
                assert time.monotonic() - began < 50
        assert t.wait("after", timeout=20).success, "a timeout shorter than that of the store, and an answer in time"
        with pytest.raises(TimeoutError, match="no room in time"):
            t.wait("k", 2, 20)
        with pytest.raises(ValueError, match="amount is 6"):
            t.wait("k", 6, 20)


def test_a_place_that_nobody_waits_for_any_more_is_given_back(blocking, redis_server):
    """The answer arrives after the deadline. The thread that asked gives the place back."""
    given_back = []

    class Telling(blocking.Throttler):
        def _give_back(self, result):
            super()._give_back(result)
            given_back.append(result)

    with blocking.connect(redis_server.url, timeout=100) as store:
        t = Telling(store, 1, 1000)
        t.charge("k", 5)
        with standing_still(redis_server), pytest.raises(TimeoutError, match="not answered"):
            t.wait("k", timeout=2)
        until = time.monotonic() + 60
        while any(thread.name == "aiosteady.wait" for thread in threading.enumerate()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not given_back and t.peek("k").level == 5, "denied"
        t = Telling(store, 1, 1)
        t.charge("j", 4)
        with standing_still(redis_server), pytest.raises(TimeoutError, match="not answered"):
            t.wait("j", timeout=2)
        while any(thread.name == "aiosteady.wait" for thread in threading.enumerate()) and time.monotonic() < until:
            time.sleep(0.05)
        assert [result.success for result in given_back] == [True]
        assert t.peek("j").level < given_back[0].level


def test_a_place_beyond_the_deadline_is_given_back(blocking, redis_server):
    """The answer comes in time, but so late that the place in line comes too late."""
    with blocking.connect(redis_server.url, timeout=2) as store:
        t = blocking.Throttler(store, 1, 1)
        t.charge("k", 3)
        redis_server.process.send_signal(signal.SIGSTOP)
        threading.Timer(0.8, redis_server.process.send_signal, (signal.SIGCONT,)).start()
        with pytest.raises(TimeoutError, match="no room in time"):
            t.wait("k", timeout=2.5)
        assert t.peek("k").level <= 3


def test_limits_are_waited_for_together(blocking, store):
    t = blocking.Throttler(store, limits={"burst": "100/second", "slow": "2/second"})
    t.consume("k", {"burst": 1, "slow": 2})
    began = time.monotonic()
    assert t.wait("k", {"burst": 1, "slow": 1}).success
    assert time.monotonic() - began > 0.3


INTERRUPTED = """
import os, signal, sys, threading, time
from aiosteady.blocking import Throttler, connect

url, how = sys.argv[1:]
store = connect(url, timeout=100)
t = Throttler(store, 1, 1000)
t.consume("k")
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
began = time.monotonic()
try:
    if how == "wait":
        t.wait("k")
    elif how == "timeout":
        t.wait("k", timeout=5000)
    else:
        with t.reserve("k", max_wait=5000):
            print("it ran")
    print("not interrupted")
except KeyboardInterrupt:
    assert time.monotonic() - began < 60
    assert t.peek("k").level == 1, "the place is given back"
    print("interrupted")
"""


@pytest.mark.parametrize("how", ["wait", "timeout", "reserve"])
def test_ctrl_c_ends_a_wait_and_gives_the_place_back(aiosteady, url, how):
    assert python(aiosteady, INTERRUPTED, url, how) == "interrupted\n"


ANSWERED_MEANWHILE = """
import signal, sys, time
from aiosteady.blocking import Throttler, connect

class Boom(Exception):
    pass

def handle(*_):
    time.sleep(0.5)  # the answer comes meanwhile
    raise Boom

t = Throttler(connect(sys.argv[1], timeout=2), 1, 1.4)
t.consume("k")
print("ready", flush=True)
sys.stdin.readline()
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    t.wait("k", timeout=1.5)
except (Boom, TimeoutError):
    pass
print(t.peek("k").level)
"""


def test_exception_of_a_slow_signal_handler_gives_the_place_back(aiosteady, redis_server):
    env = {**os.environ, "PYTHONPATH": str(aiosteady)}
    child = subprocess.Popen([sys.executable, "-c", ANSWERED_MEANWHILE, redis_server.url], env=env, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == "ready\n"
    redis_server("CLIENT", "PAUSE", 250)
    assert int(child.communicate("\n")[0]) <= 1 and child.returncode == 0, "the first drop, and no place"


HANDLED = """
import signal, sys, threading, time, os
from aiosteady.blocking import Throttler

handled = []
signal.signal(signal.SIGUSR1, lambda *_: handled.append(t.peek("k").level))
t = Throttler(sys.argv[1], 1, 1)
t.consume("k")
for at in (0.2, 0.4):
    threading.Timer(at, os.kill, (os.getpid(), signal.SIGUSR1)).start()
began = time.monotonic()
assert t.wait("k").success
assert time.monotonic() - began > 0.8
assert handled == [2, 2], handled
print("fine")
"""


def test_a_signal_handler_runs_during_a_wait_and_may_call(aiosteady, url):
    assert python(aiosteady, HANDLED, url) == "fine\n"


# ---- limit ----


def test_limit_waits_before_a_block_and_before_a_function(blocking, store):
    t = blocking.Throttler(store, 10, 60)
    with t.limit("k", 2) as result:
        assert result.level == 2

    @t.limit(lambda user, **_: f"user:{user}", 3)
    def work(user, *, more=1):
        """Its text."""
        return user, more

    assert work(7, more=2) == (7, 2) and t.peek("user:7").level == 3
    assert work.__name__ == "work" and work.__doc__ == "Its text."
    with pytest.raises(TypeError, match="decorators"), t.limit(lambda: "k"):
        pass


def test_each_kind_of_limit_names_the_other_class(aio, blocking):
    async def coroutine():
        pass

    async def generator():
        yield

    for function in (coroutine, generator):
        with pytest.raises(TypeError, match="aiosteady.Throttler"):
            blocking.Throttler("memory:", 1, 1).limit("k")(function)
    with pytest.raises(TypeError, match="aiosteady.blocking"):
        aio.Throttler("memory:", 1, 1).limit("k")(lambda: None)
    with pytest.raises(TypeError):
        blocking.Throttler("memory:", 1, 1).limit("k")(5)


# ---- reserve ----


def test_a_reservation_charges_the_actual_cost(blocking, store):
    t = blocking.Throttler(store, 100, 3600)
    for actual, level in ((20, 20), (80, 80), (0, 0), (None, 50)):
        t.reset("k")
        with t.reserve("k", 50) as r:
            assert r.result.level == 50
            if actual is not None:
                r.actual = actual
        assert t.peek("k").level == level


def test_a_denied_reservation_does_not_run_the_block(aio, blocking, store):
    t = blocking.Throttler(store, 10, 3600)
    t.consume("k", 8)
    with pytest.raises(aio.Denied) as raised, t.reserve("k", 5):
        pytest.fail("the block ran")
    assert raised.value.result.retry_after > 0 and t.peek("k").level == 8


def test_the_error_of_the_block_is_not_hidden(aio, blocking, redis_server, caplog):
    store = blocking.connect(redis_server.url, timeout=20)
    t = blocking.Throttler(store, 10, 3600)
    with pytest.raises(KeyError), t.reserve("k", 5):
        raise KeyError
    assert t.peek("k").level == 5, "it stays charged"
    with caplog.at_level(logging.WARNING, "aiosteady"), pytest.raises(KeyError), t.reserve("k", 5) as r:
        r.actual = 1
        store.close()
        raise KeyError
    assert "could not be settled" in caplog.text


def test_misuse_of_a_reservation_is_refused(blocking, store):
    t = blocking.Throttler(store, limits={"a": "10/hour", "b": "20/hour"})
    r = t.reserve("k", 5)
    with pytest.raises(ValueError, match="too early"):
        r.actual = 1
    with r:
        for bad, error in (("5", TypeError), (1.5, TypeError), (True, TypeError), (-1, ValueError), ({"c": 1}, ValueError)):
            with pytest.raises(error, match="actual"):
                r.actual = bad
        r.actual = {"b": 2}
    with pytest.raises(ValueError, match="used before"), r:
        pass
    assert {name: limit.level for name, limit in t.peek("k").limits.items()} == {"a": 5, "b": 2}


def test_another_process_may_settle(blocking, redis_server, aiosteady):
    with blocking.connect(redis_server.url, timeout=20) as store:
        t = blocking.Throttler(store, 100, 3600)
        with t.reserve("k", 50) as r:
            pass
        program = ("import sys; from aiosteady.blocking import Throttler, connect\n"
                   "t = Throttler(connect(sys.argv[1], timeout=20), 100, 3600)\n"
                   "print(t.settle(sys.argv[2], 10).level)")
        assert python(aiosteady, program, redis_server.url, r.text) == "10\n"
        assert t.peek("k").level == 10


# ---- Without a server ----


def test_without_a_server_the_error_says_why(aio, blocking, closed_port):
    with blocking.Throttler(f"redis://127.0.0.1:{closed_port}", 1, 1) as t:
        with pytest.raises(aio.Unavailable, match="refused"):
            t.consume("k")
        with pytest.raises(aio.Unavailable):
            t.reserve("k").__enter__()
        with pytest.raises(aio.Unavailable):
            t.wait("k")


def test_without_a_server_the_policy_answers(blocking, closed_port):
    with blocking.connect(f"redis://127.0.0.1:{closed_port}") as store:
        answers = {policy: blocking.Throttler(store, 2, 60, on_error=policy) for policy in ("allow", "deny", "local")}
        for limits in ({}, {"max_wait": 0.001}):
            assert answers["allow"].consume("k", **limits).success
            assert not answers["deny"].consume("k", **limits).success
        assert [answers["local"].consume("l").success for _ in range(3)] == [True, True, False]
        assert answers["local"].consume("l").source == "local"
        assert answers["allow"].wait("k").source == "policy"
        with pytest.raises(TimeoutError, match="no verdict"):
            answers["deny"].wait("k", timeout=0.3)


def test_a_server_that_comes_back_is_used_again(aio, blocking, start_redis, caplog):
    server = start_redis()
    with blocking.connect(server.url, timeout=2) as store, caplog.at_level(logging.INFO, "aiosteady"):
        t = blocking.Throttler(store, 100, 60)
        assert t.consume("k").success and store.ready
        server.stop()
        with pytest.raises((aio.Unavailable, aio.Unknown)):
            in_threads(3, lambda i: [t.consume("k") for _ in range(3)])
        assert [record for record in caplog.records if record.name == "aiosteady"], "it was logged, without the GIL"


def test_a_log_handler_may_call_and_may_raise(aio, blocking, start_redis):
    server = start_redis()
    logger, called = logging.getLogger("aiosteady"), []

    class Calls(logging.Handler):
        def emit(self, record):
            if len(called) < 5:
                called.append(record.getMessage())
                try:
                    t.consume("inside")
                except aio.Error:
                    pass
            raise KeyboardInterrupt

    handler, level = Calls(), logger.level
    with blocking.connect(server.url, timeout=1) as store:
        t = blocking.Throttler(store, 100, 60)
        t.consume("k")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            server.stop()
            with pytest.raises(KeyboardInterrupt):
                for _ in range(20):
                    try:
                        t.consume("k")
                    except aio.Error:
                        pass
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
    assert called


# ---- Memory ----

LEVEL = """
import gc, sys, threading
from aiosteady import Denied, Error
from aiosteady.blocking import Throttler, connect, consume_all

url, closed_url, many, some = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def each(n, call):
    for _ in range(n):
        try:
            call()
        except (TypeError, ValueError, TimeoutError, Denied, Error):
            pass

def level(what, n, call):
    each(n if n <= some else n // 10, call)
    gc.collect()
    before = sys.getallocatedblocks()
    each(n, call)
    gc.collect()
    grown = sys.getallocatedblocks() - before
    assert abs(grown) < 300, (what, grown)
    print(what, "is level")

def reserve(t):
    with t.reserve("r", 5) as r:
        r.actual = 0

def thread(t):
    thread = threading.Thread(target=t.consume, args=("k",))
    thread.start()
    thread.join()

def make(url):
    with Throttler(url, 10, 5, 1, prefix="p", on_error="local") as t:
        t.consume("k"), repr(t), hash(t)

memory, full = Throttler("memory:", 10**6, 1), Throttler("memory:", 1, 1000)
server = Throttler(connect(url, timeout=60), 10**6, 1)
closed = Throttler(closed_url, 10, 1)
level("memory", many, lambda: memory.consume("k"))
level("server", some, lambda: server.consume("k"))
level("several", some, lambda: consume_all([(server, "a"), (server, "b", 1, "charge")]))
level("reserving", some, lambda: reserve(server))
level("a place", some, lambda: memory.wait("k"))
level("too late", some, lambda: full.wait("k", timeout=0.5))
level("bad arguments", some, lambda: server.consume("k", 1.5))
level("no key", some, lambda: server.wait(5))
level("denied", some, lambda: full.reserve("k").__enter__())
level("a thread", some // 10, lambda: thread(server))
level("a short timeout", some // 10, lambda: server.wait("k", timeout=50))
level("no server", some // 10, lambda: closed.consume("k"))
level("making", some // 10, lambda: make("memory:"))
level("making on a server", some // 10, lambda: make(url))
server.close()
"""


def test_memory_is_level_over_many_blocking_calls(aiosteady, redis_server, closed_port):
    args = (redis_server.url, f"redis://127.0.0.1:{closed_port}", "300000", "5000")
    run = subprocess.run([sys.executable, "-c", LEVEL, *args], env={**os.environ, "PYTHONPATH": str(aiosteady)},
                         capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("is level") == 14
    python(aiosteady, LEVEL, *args[:2], "3000", "500", quiet=False)


EXHAUSTED = """
import sys
try:
    import _testcapi
except ImportError:
    print("no _testcapi")
    sys.exit()
import faulthandler
from aiosteady import Error
from aiosteady.blocking import Throttler, connect, consume_all

url = sys.argv[1]
sys.unraisablehook = lambda unraisable: None

def one(t):
    t.consume("k")
    t.peek("k", 2)
    t.wait("w", 1, 100)
    with t.reserve("r", 2) as r:
        r.actual = 1
    consume_all([(t, "a"), (t, "b", 1, "charge")])
    repr(t)

def every(what, work):
    failed = 0
    for n in range(250):
        _testcapi.set_nomemory(n, n + 1)
        try:
            work()
        except (MemoryError, Error, RuntimeError, SystemError):
            failed += 1
        finally:
            _testcapi.remove_mem_hooks()
    print(what, failed > 3)

for name in ("memory:", url):
    store = connect(name, timeout=30)
    t = Throttler(store, 10**6, 1)
    every("calls", lambda: one(t))
    assert t.peek("k").level > 0
    every("stores", lambda: connect(name, client_name="c", timeout=30).close())
    every("throttlers", lambda: Throttler(store, 10, 5, 5, prefix="p", on_error="local").consume("k"))
    store.close()
"""


def test_running_out_of_memory_at_any_moment_crashes_nothing(aiosteady, redis_server):
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", EXHAUSTED, redis_server.url], capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(aiosteady)}, timeout=HANGS_S, check=False)
    if "no _testcapi" in run.stdout:
        pytest.skip("this Python has no _testcapi")
    assert run.returncode == 0, f"{run.returncode}\n{run.stdout}\n{run.stderr[-3000:]}"
    assert "False" not in run.stdout and run.stdout.count("True") == 6, run.stdout


RESIDENT = """
import resource, sys
from aiosteady.blocking import Throttler, connect

def kib():
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * resource.getpagesize() >> 10

def work():
    for _ in range(300):
        with connect(sys.argv[1], timeout=60) as store:
            t = Throttler(store, 10, 60, on_error="report")
            t.consume("k")
            with t.reserve("r") as r:
                r.actual = 0

work()
before = kib()
work()
assert kib() - before < 2000, kib() - before
print("fine")
"""


def test_memory_is_level_over_many_closed_stores(aiosteady, redis_server):
    assert python(aiosteady, RESIDENT, redis_server.url, malloc="malloc") == "fine\n"


# ---- Types ----

TYPED = '''
from typing import Optional
from aiosteady import Denied, ThrottleResult
from aiosteady.blocking import Limit, Part, Reservation, Store, Throttler, connect, consume_all, peek_all

store: Store = connect("memory:", connections=2)
t = Throttler(store, limits={"a": "10/second"})
u = Throttler("memory:", 10, 5.0, on_error="allow")
r: ThrottleResult = t.consume("k", 2, max_wait=1.5, at_least=1)
r = t.peek(b"k", {"a": 1})
r = t.charge("k", (1,))
r = t.reset("k")
r = t.wait("k", timeout=1.5)
r = consume_all([Part(t, "k"), (t, "j", 2, "charge")])
r = peek_all([(t, "k")])
wait: Optional[float] = r.retry_after
limit: Limit = t.limit("k")

with limit as got:
    got.success

def key_of(user: int) -> str:
    return f"user:{user}"

@t.limit(key_of)
def work(user: int) -> str:
    return str(user)

text: str = work(5)
try:
    with t.reserve("k", 5) as reservation:
        reservation.actual = {"a": 1}
        made: Reservation = reservation
        r = t.settle(made.text, 5)
except Denied as denied:
    wait = denied.result.retry_after
stats: dict[str, int] = store.stats()
t.close()
store.close()
'''
MISTAKES = ['t.consume(5)', 't.consume("k", 1, 2)', 'work("x")', 'work(5) + 1', 'Throttler(5, 1, 1)', 'connect("memory:", connections="2")',
            't.wait("k", 1, "x")', 'r.success()', 'async def f() -> None: await t.consume("k")', 't.aclose()']


def check_types(command, program, tmp_path, env):
    path = tmp_path / "program.py"
    path.write_text(program)
    return subprocess.run([*command, path], capture_output=True, text=True, env=env, timeout=HANGS_S, check=False)


@pytest.mark.packages
def test_mypy_accepts_a_right_program_and_finds_each_mistake(aiosteady, from_pypi, tmp_path):
    env = {**os.environ, "PYTHONPATH": f"{from_pypi('mypy', 'typing_extensions')}:{aiosteady}"}
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache"]
    right = check_types(mypy, TYPED, tmp_path, env)
    assert right.returncode == 0, right.stdout + right.stderr
    wrong = check_types(mypy, TYPED + "\n".join(MISTAKES), tmp_path, env)
    lines = len(TYPED.splitlines())
    for at, mistake in enumerate(MISTAKES):
        assert f"program.py:{lines + at + 1}: error" in wrong.stdout, (mistake, wrong.stdout)
