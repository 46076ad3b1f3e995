# SPDX-License-Identifier: MIT
"""Waiting for room with the Python package: as a call, as a context and as a decorator."""
import asyncio
import contextlib
import inspect
import math
import re
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
        assert store.stats()["decisions"] <= 6 + 6, "one more question for each time it had to wait, at most twice"


@under_asyncio
async def test_waiters_are_served_in_order(aio, url):
    async with aio.connect(url, timeout=10) as store:
        t = aio.Throttler(store, 1, 0.02)
        done = []

        async def one(i):
            await t.wait("k", timeout=5)
            done.append(i)

        await asyncio.gather(*(one(i) for i in range(10)))
        assert done == list(range(10))
        assert store.stats()["decisions"] < 40, "those behind do not ask"
        assert t._lines == {}


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
async def test_a_queued_waiter_times_out_in_time(aio, url):
    async with patient(aio, url, 1, 1) as t:
        await t.consume("k")
        first = asyncio.create_task(t.wait("k"))
        await asyncio.sleep(0.01)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            await t.wait("k", timeout=0.05)
        assert 0.04 < time.monotonic() - start < 0.9
        assert (await first).success
        assert (await t.peek("k")).level == 1


@under_asyncio
@pytest.mark.parametrize("name", ["k", "\xe9"])
async def test_a_key_has_one_queue_as_str_and_as_bytes(aio, name):
    t = aio.Throttler("memory:", 1, 60)
    await t.consume(name)
    for mine, other in ((name, name.encode()), (name.encode(), name)):
        first = asyncio.create_task(t.wait(mine))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError, match="tasks that waited before"):
            await t.wait(other, timeout=0.01)
        first.cancel()
        await asyncio.wait([first])
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
    """A client with a delay to its server. If `stubborn`, it ignores cancellation."""

    def __init__(self, server, seconds, stubborn=False):
        self.server, self.seconds, self.stubborn = server, seconds, stubborn

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
        return self.server(*words)

    async def __aenter__(self):
        return self


@under_asyncio
async def test_a_decision_that_cannot_be_answered_in_time_is_not_sent(aio, redis_server):
    t = aio.Throttler(Distant(redis_server, 0.1), 1, 0.5)
    await t.consume("other, so that there is a script")
    await t.consume("k")
    with out_of_time(0, 0.45) as told:  # there is room after 0.5 s, and the answer would arrive after 0.6 s
        await t.wait("k", timeout=0.55)
    assert "no room in time" in str(told.value)
    await asyncio.sleep(0.55)
    assert (await t.peek("k")).level == 0
    await t.consume("k")
    assert (await t.wait("k", timeout=5)).success


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

def abandon(throttler, count, stop_after, *, hold):
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(throttler.wait("k", timeout=timeout)) for timeout in (None, 0.2, None, 30, 0.2)[:count]]
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    late = [timer for timer in loop._scheduled if "too_late" in repr(timer)]
    if stop_after and late:  # in the turn in which a timeout comes
        loop.call_at(min(timer.when() for timer in late), loop.stop)
        loop.run_forever()
    loop.close()
    held = tasks[hold:hold + 1]
    del tasks[:], late[:], loop
    gc.collect()
    return held

throttler = aiosteady.Throttler("memory:", 1, 60)
asyncio.run(throttler.wait("k"))
for count in (1, 2, 5):
    for stop_after in (False, True):
        for hold in (9, 0, 1, 4):
            held = abandon(throttler, count, stop_after, hold=hold)
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
