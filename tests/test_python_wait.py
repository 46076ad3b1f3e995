# SPDX-License-Identifier: MIT
"""The Python package: waiting for room, as a call, as a context and as a decorator."""
import asyncio
import inspect
import math
import re
import time

import pytest
from python_rig import patient, python, under_asyncio

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=["redis", "memory"])
def url(request):
    return request.getfixturevalue("redis_server").url if request.param == "redis" else "memory:"


@under_asyncio
async def test_who_waits_gets_in_at_the_rate_of_the_limit(aio, url):
    async with aio.connect(url, timeout=10) as store:
        t = aio.Throttler(store, 2, 0.05)
        start = time.monotonic()
        results = [await t.wait("k") for _ in range(6)]
        took = time.monotonic() - start
        assert all(r.success for r in results)
        assert 0.2 - 0.002 < took < 2
        assert store.stats()["decisions"] <= 6 + 6, "one more question for each time it had to wait, at most twice"


@under_asyncio
async def test_turns_are_taken_in_order(aio, url):
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
async def test_what_cannot_be_in_time_is_refused_at_once_and_takes_nothing(aio, url):
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
async def test_who_stands_in_line_gives_up_in_time_too(aio, url):
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
async def test_a_key_has_one_line_as_str_and_as_bytes(aio, name):
    t = aio.Throttler("memory:", 1, 60)
    await t.consume(name)
    for mine, other in ((name, name.encode()), (name.encode(), name)):
        first = asyncio.create_task(t.wait(mine))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError, match="others that came before"):
            await t.wait(other, timeout=0.01)
        first.cancel()
        await asyncio.wait([first])
        assert t._lines == {}


@under_asyncio
async def test_cancelled_in_line_or_in_front_the_others_go_on(aio, url):
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
async def test_waiting_starts_no_block_but_waits_for_one(aio, url):
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


@pytest.mark.parametrize("options, amount, says", [
    ({"on_error": "deny"}, 1, "the store does not answer (unavailable)"),
    ({"on_error": "local", "local_share": 4}, 3,
     "the store does not answer (unavailable), and the local share never has room for 3"),
    ({"on_error": "local", "local_share": 4}, 2,
     "the store does not answer (unavailable), and the local share has no room in time: it would be 480.000 s"),
])
@under_asyncio
async def test_a_wait_that_ends_for_want_of_an_answer_says_so(aio, closed_port, options, amount, says):
    t = aio.Throttler(f"redis://127.0.0.1:{closed_port}", 8, 60, **options)
    await t.consume("k", 2)
    with pytest.raises(TimeoutError) as told:
        await t.wait("k", amount, timeout=0.25)
    assert re.sub(r"4[78]\d\.\d{3}", "480.000", str(told.value)) == says


def test_a_loop_that_is_closed_takes_its_lines_with_it(aiosteady):
    assert python(aiosteady, """
import asyncio, gc, logging, aiosteady
logging.getLogger("asyncio").addFilter(lambda record: "but it is pending" not in record.getMessage())

def abandon(throttler, count, stop_after, *, hold):
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(throttler.wait("k", timeout=timeout)) for timeout in (None, 0.05, None, 30, 0.05)[:count]]
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
async def test_a_context_waits_before_it_goes_in(aio, url):
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
