# SPDX-License-Identifier: MIT
"""Waiting for room with the Python package: as a call, as a context and as a decorator."""
import asyncio
import contextlib
import importlib
import inspect
import math
import os
import re
import subprocess
import sys
import time

import pytest
from python_rig import patient, python, standing_still, under_asyncio

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=["redis", "memory"])
def url(request):
    return request.getfixturevalue("redis_server").url if request.param == "redis" else "memory:"


@under_asyncio
async def test_waiters_are_admitted_at_the_rate_of_the_limit(aio, url):
    async with aio.connect(url, timeout=10) as store:
        t = aio.Throttler(store, 2, 0.05)
        start = time.monotonic()
        results = [await t.wait("k") for _ in range(6)]
        took = time.monotonic() - start
        assert all(r.success for r in results)
        assert 0.2 - 0.002 < took < 2
        assert store.stats()["decisions"] <= 6 + (4 if url == "memory:" else 0), "a full bucket in memory is asked twice"


@under_asyncio
async def test_waiters_are_served_in_order(aio, url):
    async with aio.connect(url, timeout=10) as store:
        t = aio.Throttler(store, 1, 0.02)
        await t.wait("other, so that there is a script")
        done = []

        async def one(i):
            await t.wait("k", timeout=5)
            done.append(i)

        await asyncio.gather(*(one(i) for i in range(10)))
        assert done == list(range(10))
        assert store.stats()["decisions"] <= 11 + (9 if url == "memory:" else 0), "each asks once"
        assert t._lines == {}


class Index:
    """An integer that is no int, as those of numpy."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


@under_asyncio
async def test_amount_that_is_no_int_waits_and_is_charged_once(aio, url):
    async with aio.connect(url, timeout=10) as store:
        t = aio.Throttler(store, limits={"a": "100/second burst 5", "d": "1000/day"})
        await t.consume("k", 5)
        assert (await t.wait("k", Index(3))).success
        async with t.reserve("k", Index(2), max_wait=5):
            pass
        assert 9 <= (await t.peek("k")).limits["d"].level <= 10


@pytest.mark.parametrize("rate", [10, 100])
@under_asyncio
async def test_waiters_use_the_whole_rate_at_capacity_1(aio, url, rate):
    """The best of five: other programs use this machine, too. A waiter that is late delays no other."""
    async with aio.connect(url, timeout=10) as store:
        t = aio.Throttler(store, 1, 1 / rate)
        await t.wait("other, so that there is a script")

        async def share(key):
            start = time.monotonic()
            await t.wait(key)

            async def some():
                for _ in range(rate // 10):
                    await t.wait(key)

            await asyncio.gather(*(some() for _ in range(20)))
            return rate // 10 * 20 / rate / (time.monotonic() - start)

        shares = []
        while len(shares) < 5 and max(shares, default=0) < 0.98:
            shares.append(await share(f"k{len(shares)}"))
        assert 0.98 <= max(shares) <= 1.001, shares


ONE_OF_A_FLEET = """
import asyncio, sys, time
from aiosteady import Throttler, connect

async def main():
    async with connect(sys.argv[1], timeout=10) as store:
        t = Throttler(store, 1, 0.1)
        await t.consume("other, so that it is connected")
        print("ready", flush=True)
        sys.stdin.readline()
        asked = time.time()
        place = asked + (await t.wait("k")).must_wait
        print(asked, place, time.time())

asyncio.run(main())
"""


def test_forty_processes_ask_forty_times_and_start_in_order(aiosteady, redis_server):
    env = {**os.environ, "PYTHONPATH": str(aiosteady)}
    fleet = [subprocess.Popen([sys.executable, "-c", ONE_OF_A_FLEET, redis_server.url], env=env, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(40)]
    assert {process.stdout.readline() for process in fleet} == {"ready\n"}
    subprocess.run([sys.executable, "-c", ONE_OF_A_FLEET.replace('"k"', '"other"'), redis_server.url], env=env, input="\n", text=True,
                   stdout=subprocess.DEVNULL, check=True)  # so that there is a script
    redis_server("CONFIG", "RESETSTAT")
    starts = []
    for process in fleet:
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(0.002)
    for process in fleet:
        starts.append([float(word) for word in process.communicate()[0].split()])
        assert process.returncode == 0
    stats = redis_server("INFO", "commandstats").decode()
    assert re.search(r"cmdstat_evalsha:calls=(\d+)", stats).group(1) == "40", stats
    starts.sort(key=lambda start: start[1])
    late = sorted(start - place for _, place, start in starts)
    assert late[0] > 0 and late[20] < 1, "in the order of their places; on a busy machine some are woken late"
    places = [place for _, place, _ in starts]
    assert places[-1] - places[0] > 39 * 0.1 - 0.05
    assert sum(a[0] > b[0] for a, b in zip(starts, starts[1:])) < 10, "first come, first served; asked within ms"


@under_asyncio
async def test_a_wait_that_cannot_end_in_time_fails_at_once_and_charges_nothing(aio, url):
    async with patient(aio, url, 2, 10) as t:
        await t.wait("k", 2)
        for timeout in (0, 0.05, 5, -1):
            start = time.monotonic()
            with pytest.raises(TimeoutError, match="no room"):
                await t.wait("k", timeout=timeout)
            assert time.monotonic() - start < 2
        assert (await t.peek("k")).level == 2
        with pytest.raises(ValueError, match="max_capacity"):
            await t.wait("k", 3)
        for wrong, error in ((math.nan, ValueError), ("1", TypeError), (b"", TypeError)):
            with pytest.raises(error, match="timeout"):
                await t.wait("k", timeout=wrong)
        assert (await t.wait("other", timeout=math.inf)).success


@under_asyncio
async def test_a_waiter_whose_place_is_too_far_back_fails_at_once(aio, url):
    async with patient(aio, url, 1, 1) as t:
        await t.consume("k")
        first = asyncio.create_task(t.wait("k"))
        await asyncio.sleep(0.01)
        start = time.monotonic()
        with pytest.raises(TimeoutError, match=r"no room in time: it would take 1\.9"):
            await t.wait("k", timeout=1.5)
        assert time.monotonic() - start < 0.5
        assert (await first).success
        assert (await t.peek("k")).level == 1


@under_asyncio
@pytest.mark.parametrize("name", ["k", "\xe9"])
async def test_a_key_has_one_line_as_str_and_as_bytes(aio, name):
    """A waiter moves up when one before it is cancelled."""
    t = aio.Throttler("memory:", 1, 0.2)
    for mine, other in ((name, name.encode()), (name.encode(), name)):
        await t.reset(name)
        await t.consume(name)
        tasks = [asyncio.create_task(t.wait(key)) for key in (mine, other)]
        await asyncio.sleep(0.01)
        start = time.monotonic()
        tasks[0].cancel()
        assert (await tasks[1]).success
        assert 0.1 < time.monotonic() - start < 0.3
        assert t._lines == {}


def content(result, recharge):
    """The seconds until the bucket is empty."""
    return (result.level - 1) * recharge + result.until_next_drop if result.level else 0


@under_asyncio
async def test_the_last_place_is_given_back_when_a_waiter_is_cancelled(aio, url):
    async with patient(aio, url, 1, 60) as t:
        await t.consume("k")
        tasks = [asyncio.create_task(t.wait("k")) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert (await t.peek("k")).level == 6
        for left, at in ((5, 1), (4, 0), (3, 4)):
            tasks[at].cancel()
            await asyncio.sleep(0.05)
            assert content(await t.peek("k"), 60) == pytest.approx(left * 60, abs=10)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0.05)
        assert content(await t.peek("k"), 60) == pytest.approx(60, abs=10)


@under_asyncio
async def test_a_waiter_cancelled_while_it_asks_leaves_no_place(aio, redis_server):
    async with patient(aio, redis_server.url, 1, 60) as t:
        await t.consume("k")
        with standing_still(redis_server):
            waiting = asyncio.ensure_future(t.wait("k"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait([waiting])
        await asyncio.sleep(0.1)
        assert content(await t.peek("k"), 60) == pytest.approx(60, abs=10)


@under_asyncio
async def test_a_place_that_is_due_while_its_waiter_is_cancelled_goes_to_the_next(aio):
    clock = importlib.import_module("aiosteady.testing").Clock()
    t = aio.Throttler(aio.Store("memory:", clock=clock), 1, 0.05)
    await t.consume("k")
    tasks = [asyncio.create_task(t.wait("k")) for _ in range(3)]
    await asyncio.sleep(0)
    clock.advance(0.05)
    tasks[0].cancel()  # its place is due, and it has not run yet
    assert (await tasks[1]).success
    assert tasks[0].cancelled() and not tasks[2].done()
    clock.advance(0.05)
    assert (await tasks[2]).success
    assert t._lines == {}


@under_asyncio
async def test_cancelling_any_waiter_lets_the_others_go_on(aio, url):
    async with patient(aio, url, 1, 0.3) as t:
        await t.consume("k")
        tasks = [asyncio.create_task(t.wait("k", timeout=5)) for _ in range(6)]
        await asyncio.sleep(0.01)
        for i in (0, 2, 3):
            tasks[i].cancel()
        start = time.monotonic()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(r, asyncio.CancelledError) for r in results] == [True, False, True, True, False, False]
        assert 0.6 < time.monotonic() - start < 4
        assert t._lines == {}


@under_asyncio
async def test_a_wait_starts_no_block_and_waits_for_an_existing_block(aio, url):
    async with patient(aio, url, 1, 0.05, block_duration=1) as t:
        start = time.monotonic()
        for _ in range(4):
            assert (await t.wait("k", timeout=2)).success
        assert time.monotonic() - start < 0.9, "three drops of 0.05 s each, and no block of a second"
        assert (await t.consume("k")).blocked_for == 1
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            await t.wait("k", timeout=0.1)
        assert (await t.wait("k", timeout=5)).success
        assert 0.9 < time.monotonic() - start < 3


@under_asyncio
async def test_a_wait_ends_when_the_store_is_closed_or_cannot_answer(aio, closed_port):
    t = aio.Throttler("memory:", 1, 60)
    await t.consume("k")
    with pytest.raises(TimeoutError):
        await t.wait("k", timeout=0.01)
    gone = aio.Throttler(f"redis://127.0.0.1:{closed_port}", 1, 60)
    with pytest.raises(aio.Unavailable):
        await gone.wait("k")
    with pytest.raises(TimeoutError):
        await aio.Throttler(gone.redis, 1, 60, on_error="deny").wait("k", timeout=0.25)
    assert (await aio.Throttler(gone.redis, 1, 60, on_error="allow").wait("k")).source == "policy"


@under_asyncio
async def test_a_wait_denied_by_policy_asks_again_before_retry_after(aio, closed_port):
    """A denial by policy has a retry_after of 1 s, for callers that do not wait. A wait retries with a shorter back-off."""
    t = aio.Throttler(f"redis://127.0.0.1:{closed_port}", 1, 60, on_error="deny")
    denied = await t.consume("k")
    assert (denied.source, denied.retry_after) == ("policy", 1)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        await t.wait("k", timeout=0.5)
    assert time.monotonic() - start > 0.1


@pytest.mark.parametrize("options, amount, says", [
    ({"on_error": "deny"}, 1, "the store gives no verdict (unavailable)"),
    ({"on_error": "local", "local_share": 4}, 3,
     "the store gives no verdict (unavailable), and the local bucket can never hold 3 drops"),
    ({"on_error": "local", "local_share": 4}, 2,
     "the store gives no verdict (unavailable), and the local bucket has no room in time: it would take 480.000 s"),
])
@under_asyncio
async def test_a_wait_that_ends_without_an_answer_raises_its_cause(aio, closed_port, options, amount, says):
    t = aio.Throttler(f"redis://127.0.0.1:{closed_port}", 8, 60, **options)
    await t.consume("k", 2)
    with pytest.raises(TimeoutError) as told:
        await t.wait("k", amount, timeout=0.25)
    assert re.sub(r"4[78]\d\.\d{3}", "480.000", str(told.value)) == says


# ---- Deadlines ----


@contextlib.contextmanager
def out_of_time(least, most):
    start = time.monotonic()
    with pytest.raises(TimeoutError) as told:
        yield told
    assert least - 0.01 < time.monotonic() - start < most


def others():
    """All tasks except that of the test and the one that awaits it."""
    return {task for task in asyncio.all_tasks() if "wait_for" not in repr(task)} - {asyncio.current_task()}


@pytest.mark.parametrize("policy", ["report", "allow", "deny", "local"])
@under_asyncio
async def test_a_wait_ends_in_time_while_the_server_is_frozen(aio, redis_server, policy):
    async with aio.connect(redis_server.url, timeout=10) as store:
        t = aio.Throttler(store, 10, 60, on_error=policy)
        await t.consume("k")

        @t.limit("k", timeout=0.2)
        async def limited():
            raise AssertionError("it was called")

        with standing_still(redis_server):
            for wait in (lambda: t.wait("k", timeout=0.2), t.limit("k", timeout=0.2).__aenter__, limited):
                with out_of_time(0.2, 2) as told:
                    await wait()
                assert "may have been charged" in str(told.value) and type(told.value.__cause__) is aio.Unknown
            ends = await asyncio.gather(*(t.wait("k", timeout=0.2) for _ in range(3)), return_exceptions=True)
            assert [type(end) for end in ends] == [TimeoutError] * 3, "in line, too"
        assert (await t.peek("k")).level in range(1, 8), "all that was asked, at most"
        assert t._lines == {} and others() == set()
        assert (await t.wait("other", timeout=9)).success


@under_asyncio
async def test_a_wait_ends_in_time_while_it_connects(aio, start_redis):
    server = start_redis()
    async with aio.connect(server.url, timeout=10) as store:
        t = aio.Throttler(store, 10, 60, on_error="allow")
        with standing_still(server), out_of_time(0.2, 2):
            await t.wait("k", timeout=0.2)
        assert (await t.wait("other", timeout=9)).source == "store"


@under_asyncio
async def test_a_wait_without_time_asks_once(aio, redis_server):
    async with patient(aio, redis_server.url, 1, 60) as t:
        for timeout in (0, -1):
            await t.reset("k")
            assert (await t.wait("k", timeout=timeout)).success
            with out_of_time(0, 2) as told:
                await t.wait("k", timeout=timeout)
            assert "no room" in str(told.value) and told.value.__cause__ is None
        assert (await t.peek("k")).level == 1


@under_asyncio
async def test_a_wait_that_is_cancelled_leaves_nothing_behind(aio, redis_server):
    async with aio.connect(redis_server.url, timeout=10) as store:
        t = aio.Throttler(store, 10, 60)
        await t.consume("k")
        with standing_still(redis_server):
            waiting = asyncio.ensure_future(t.wait("k", timeout=9))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait([waiting], timeout=1)
            assert waiting.cancelled() and t._lines == {}
            await asyncio.sleep(0)
            assert others() == set()


class Distant:
    """A client with a delay to its server, and back. If `stubborn`, it ignores cancellation."""

    def __init__(self, server, seconds, stubborn=False, back=0):
        self.server, self.seconds, self.stubborn, self.back = server, seconds, stubborn, back

    async def execute_command(self, *words):
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            try:
                await asyncio.sleep(end - time.monotonic())
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise
        if self.stubborn:
            raise ConnectionError("at last")
        reply = self.server(*words)
        await asyncio.sleep(self.back)
        return reply

    async def __aenter__(self):
        return self


@under_asyncio
async def test_a_place_that_is_due_after_the_deadline_is_given_back(aio, redis_server):
    """The answer takes so long that its place comes too late."""
    t = aio.Throttler(Distant(redis_server, 0, back=0.3), 1, 2)
    await t.consume("other, so that there is a script")
    await aio.Throttler(Distant(redis_server, 0), 1, 2).consume("k")
    with out_of_time(0.3, 1.5) as told:
        await t.wait("k", timeout=2.1)
    assert "no room in time" in str(told.value)
    await asyncio.sleep(0.4)
    assert content(await t.peek("k"), 2) < 2


@under_asyncio
async def test_a_client_that_ignores_cancelling_delays_no_deadline(aio, redis_server):
    t = aio.Throttler(Distant(redis_server, 1, stubborn=True), 1, 60, on_error="allow")
    with out_of_time(0.2, 0.9):
        await t.wait("k", timeout=0.2)
    await asyncio.sleep(1)
    assert others() == set(), "its exception is taken, not logged"


REDIS_PY = """
import asyncio, os, signal, sys, time
import redis.asyncio
from aiosteady import Throttler, Unknown

async def main(url, pid):
    client = redis.asyncio.from_url(url)
    for policy in ("report", "allow"):
        t = Throttler(client, 10, 60, on_error=policy)
        await t.consume("k")
        os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        try:
            await t.wait("k", timeout=0.5)
        except TimeoutError as error:
            assert type(error.__cause__) is Unknown
            assert 0.49 < time.monotonic() - start < 3, time.monotonic() - start
        else:
            raise AssertionError("it did not wait")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (await t.wait("k", timeout=9)).source == "store"
    await client.aclose()

asyncio.run(main(sys.argv[1], int(sys.argv[2])), debug=True)
print("fine")
"""


def test_a_wait_over_a_client_ends_in_time_while_the_server_is_frozen(aiosteady, from_pypi, redis_server):
    path = f"{aiosteady}:{from_pypi('redis>=6')}"
    assert python(path, REDIS_PY, redis_server.url, str(redis_server.process.pid)) == "fine\n"


def test_a_closed_loop_leaves_no_queue_behind(aiosteady):
    assert python(aiosteady, """
import asyncio, gc, logging, aiosteady
logging.getLogger("asyncio").addFilter(lambda record: "but it is pending" not in record.getMessage())

def abandon(throttler, count, cancel, *, hold):
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(throttler.wait("k", timeout=timeout)) for timeout in (None, 9e4, None, 9e5, 9e6)[:count]]
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    if cancel:  # and their tasks do not run any more
        for task in tasks[::2]:
            task.cancel()
    loop.close()
    held = tasks[hold:hold + 1]
    del tasks[:], loop
    gc.collect()
    return held

throttler = aiosteady.Throttler("memory:", 1, 60)
asyncio.run(throttler.wait("k"))
for count in (1, 2, 5):
    for cancel in (False, True):
        for hold in (9, 0, 1, 4):
            held = abandon(throttler, count, cancel, hold=hold)
            del held
            gc.collect()
            assert throttler._lines == {}, throttler._lines
assert asyncio.run(throttler.wait("other", timeout=5)).success
print("fine")
""").strip() == "fine"


@under_asyncio
async def test_a_context_waits_before_its_body_runs(aio, url):
    async with patient(aio, url, 1, 0.05) as t:
        async with t.limit("k") as result:
            assert result.success
        start = time.monotonic()
        async with t.limit(b"k", timeout=10):
            assert time.monotonic() - start > 0.04
        with pytest.raises(TimeoutError):
            async with t.limit("k", timeout=0):
                raise AssertionError("it went in")
        with pytest.raises(KeyError):
            async with t.limit("other"):
                raise KeyError
        with pytest.raises(TypeError, match="key"):
            async with t.limit(lambda: "k"):
                pass


@under_asyncio
async def test_a_decorator_waits_and_names_the_key(aio, url):
    async with patient(aio, url, 1, 0.05) as t:

        @t.limit("fixed", timeout=2)
        async def one(a, *, b=2):
            "A text."
            return a + b

        slow = patient(aio, url, 1, 20)

        @slow.limit(lambda user, **_: f"user:{user}", amount=1)
        async def other(user):
            return user

        assert one.__doc__ == "A text." and inspect.iscoroutinefunction(one)
        start = time.monotonic()
        assert await asyncio.gather(one(1), one(1, b=3), one(2)) == [3, 4, 4]
        assert time.monotonic() - start > 0.09
        start = time.monotonic()
        assert await asyncio.gather(*(other(i) for i in range(5))) == list(range(5))
        assert time.monotonic() - start < 10, "each has a bucket of its own"
        assert (await slow.peek("user:3")).level == 1
        for no in (lambda: 1, print, int):
            with pytest.raises(TypeError):
                t.limit("k")(no)
