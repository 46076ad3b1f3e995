# SPDX-License-Identifier: MIT
"""Reservations with the Python package: reserve an estimate, then settle the true cost."""
import asyncio
import contextlib
import logging
import time

import pytest
from python_rig import patient, python, standing_still, under_asyncio

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=["redis", "memory", "file"])
def url(request, tmp_path):
    if request.param == "redis":
        return request.getfixturevalue("redis_server").url
    return "memory:" if request.param == "memory" else f"file:{tmp_path}/buckets"


async def levels(t, key="k"):
    return [part.level for part in (await t.peek(key, 0)).parts]


def content(result, recharge):
    """The seconds until the bucket is empty."""
    return (result.level - 1) * recharge + result.until_next_drop if result.level else 0


LLM = {"requests": "60/hour", "tokens": "1000/hour"}


@under_asyncio
async def test_the_true_cost_is_charged(aio, url):
    async with patient(aio, url, 1000, 60) as t:
        for actual, level in ((200, 200), (0, 0), (500, 500), (700, 700), (2**40, 2**53 // 60_000_000)):
            await t.reset("k")
            async with t.reserve("k", 500) as r:
                assert r.result.success and r.result.granted == 500 and r.actual is None
                assert (await t.peek("k")).level == 500
                r.actual = actual
            assert content(await t.peek("k"), 60) == pytest.approx(level * 60, abs=60)


@under_asyncio
async def test_a_cost_is_given_by_name_in_order_or_as_one_number(aio, url):
    async with patient(aio, url, limits=LLM) as t:
        async with t.reserve("k", {"requests": 1, "tokens": 500}) as r:
            r.actual = {"tokens": 100}
        assert await levels(t) in ([1, 100], [1, 101])
        async with t.reserve("k", (1, 500)) as r:
            r.actual = (0, 200)
        assert await levels(t) in ([1, 300], [1, 301], [2, 301])
        async with t.reserve("k", 5) as r:
            r.actual = 5
        async with t.reserve("k", 5):
            pass
        assert (await levels(t))[0] in (11, 12)


@under_asyncio
async def test_what_was_reserved_stays_charged_unless_actual_is_set(aio, url):
    async with patient(aio, url, 100, 60) as t:
        async with t.reserve("k", 50):
            pass
        assert (await t.peek("k")).level == 50
        with pytest.raises(LookupError):
            async with t.reserve("k", 10):
                raise LookupError
        assert (await t.peek("k")).level == 60
        with pytest.raises(LookupError):
            async with t.reserve("k", 10) as r:
                r.actual = 0
                raise LookupError
        assert content(await t.peek("k"), 60) == pytest.approx(3600, abs=30)


@under_asyncio
async def test_a_denied_reservation_raises_and_its_block_does_not_run(aio, url):
    async with patient(aio, url, limits=LLM) as t:
        with pytest.raises(aio.Denied) as told:
            async with t.reserve("k", {"requests": 1, "tokens": 1001}):
                raise AssertionError("it ran")
        assert not told.value.result.success and told.value.result.name == "tokens"
        assert isinstance(told.value, aio.Error) and str(told.value) == "denied by the limit 'tokens': the amount can never fit"
        await t.consume("k", (1, 1000))
        with pytest.raises(aio.Denied, match=r"denied by the limit 'tokens': try again in 3.*s"):
            async with t.reserve("k"):
                raise AssertionError("it ran")
        assert await levels(t) == [1, 1000]


@under_asyncio
async def test_a_reservation_waits_in_line(aio, url):
    async with patient(aio, url, 1, 0.2) as t:
        await t.consume("k")
        start = time.monotonic()
        async with t.reserve("k", max_wait=5) as r:
            assert 0.15 < time.monotonic() - start < 2 and 0.1 < r.result.must_wait <= 0.2
            r.actual = 0
        with pytest.raises(aio.Denied):
            async with t.reserve("k", 5, max_wait=0.5):
                raise AssertionError("it ran")


@under_asyncio
async def test_a_reservation_that_is_cancelled_while_it_waits_is_settled_with_0(aio, url):
    async def one(t):
        async with t.reserve("k", 3, max_wait=None):
            raise AssertionError("it ran")

    async with patient(aio, url, 3, 60) as t:
        await t.consume("k", 3)
        tasks = [asyncio.create_task(one(t)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (await t.peek("k")).level == 9
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0.05)
        assert all(task.cancelled() for task in tasks)
        assert content(await t.peek("k"), 60) == pytest.approx(180, abs=20)


@under_asyncio
async def test_a_reservation_that_is_cancelled_while_it_asks_is_settled_with_0(aio, redis_server):
    async def one(t):
        async with t.reserve("k", 5):
            raise AssertionError("it ran")

    async with patient(aio, redis_server.url, 10, 60) as t:
        await t.consume("k")
        with standing_still(redis_server):
            task = asyncio.create_task(one(t))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait([task])
        await asyncio.sleep(0.1)
        assert content(await t.peek("k"), 60) == pytest.approx(60, abs=20)


@under_asyncio
async def test_the_error_of_a_settle_is_logged_and_hides_no_error(aio, start_redis, caplog):
    server = start_redis()
    async with aio.connect(server.url, timeout=1) as store:
        t = aio.Throttler(store, 10, 60)
        for kind in (None, LookupError):
            with pytest.raises(kind) if kind else contextlib.nullcontext(), caplog.at_level(logging.WARNING, "aiosteady"):
                async with t.reserve("k", 5) as r:
                    r.actual = 1
                    server("SET", "k", "no bucket")
                    if kind is not None:
                        raise kind
            assert "a reservation could not be settled: the key holds something that is not a bucket" in caplog.text
            caplog.clear()
            server("DEL", "k")


@under_asyncio
async def test_another_process_settles_a_reservation_by_its_text(aio, aiosteady, url):
    t = patient(aio, url, limits=LLM, prefix="p:")
    async with t.reserve("k", {"requests": 1, "tokens": 500}) as r:
        text = str(r)
        assert text == r.text and text.isascii() and " " not in text
    if url == "memory:":
        await t.settle(text, {"tokens": 100})
    else:
        assert python(aiosteady, """
import asyncio, sys
from aiosteady import Throttler, connect
async def main():  # of limits that this process does not know
    result = await Throttler(connect(sys.argv[1], timeout=10), 7, 7).settle(sys.argv[2], {"tokens": 100})
    print(result.success, list(result.limits))
asyncio.run(main())
""", url, text) == "True ['tokens']\n"
    assert await levels(t) in ([1, 100], [1, 101])
    async with t.reserve("k", 1) as r:
        await t.settle(r, {"requests": 0})
        with pytest.raises(ValueError, match="settled before"):
            await t.settle(r, 0)


@under_asyncio
async def test_a_policy_gives_no_reservation_and_nothing_is_settled(aio, closed_port):
    async with aio.connect(f"redis://127.0.0.1:{closed_port}") as store:
        async with aio.Throttler(store, 10, 60, on_error="allow").reserve("k", 5) as r:
            assert r.result.source == "policy" and r.text == ""
            r.actual = 1
        with pytest.raises(aio.Denied, match=r"the store gave no verdict \(unavailable\)"):
            async with aio.Throttler(store, 10, 60, on_error="deny").reserve("k", 5):
                raise AssertionError("it ran")
        with pytest.raises(aio.Unavailable):
            async with aio.Throttler(store, 10, 60).reserve("k", 5):
                raise AssertionError("it ran")


@pytest.mark.parametrize("given", [[1, 100], {"requests": 1, "tokens": 100}])
@under_asyncio
async def test_an_actual_that_its_owner_changes_later_settles_what_was_set(aio, url, given):
    async with patient(aio, url, limits=LLM) as t:
        actual = given.copy()
        async with t.reserve("k", (1, 500)) as r:
            r.actual = actual
            actual.clear()
        assert await levels(t) in ([1, 100], [1, 101])


# ---- Wrong use ----


@pytest.mark.parametrize("amount", [-1, (1, -1), {"requests": -1, "tokens": 1}])
@under_asyncio
async def test_a_drain_is_not_reserved_and_not_waited_for(aio, url, amount):
    async with patient(aio, url, limits=LLM) as t:
        await t.consume("k", (1, 500))
        for timeout in (None, 0, 1):
            with pytest.raises(ValueError, match=r"^amount is -1; it must be 0 \.\."):
                await t.wait("k", amount, timeout)
        with pytest.raises(ValueError, match=r"^amount is -1; it must be 0 \.\."):
            async with t.reserve("k", amount):
                raise AssertionError("it ran")
        assert await levels(t) == [1, 500]


@under_asyncio
async def test_a_reservation_is_used_once(aio, url):
    async with patient(aio, url, 10, 60) as t:
        reservation = t.reserve("k")
        with pytest.raises(RuntimeError):
            _ = reservation.result
        with pytest.raises(ValueError, match="actual"):
            reservation.actual = 5
        async with reservation:
            with pytest.raises(ValueError, match="this reservation was used before"):
                async with reservation:
                    raise AssertionError("it ran")
        with pytest.raises(ValueError, match="this reservation was used before"):
            async with reservation:
                raise AssertionError("it ran")
        assert (await t.peek("k")).level == 1
        assert repr(reservation).startswith("<Reservation result=ThrottleResult(")


@pytest.mark.parametrize(("actual", "error", "says"), [
    (1.5, TypeError, "actual must be an int, not float"), (True, TypeError, "actual must be an int, not bool"),
    ("5", TypeError, "actual must be an int, not str"), (None, TypeError, "actual must be an int, not NoneType"),
    (b"5", TypeError, "actual"), (-1, ValueError, "actual is -1"), (2**63, ValueError, "actual is out of range"),
    ({}, ValueError, "actual names no limit"), ({"x": 1}, ValueError, "actual names 'x'; the limits of the reservation are ['requests', 'tokens']"),
    ({"tokens": -1}, ValueError, "actual is -1"), ({"tokens": True}, TypeError, "actual"), ({5: 1}, ValueError, "actual names 5"),
    ((1,), ValueError, "actual has 1 numbers"), ([1, 2, 3], ValueError, "actual has 3 numbers"), ((1, False), TypeError, "actual"),
    (5, ValueError, "actual is one number, but the limits were asked for different amounts")])
@under_asyncio
async def test_a_cost_that_is_no_number_of_drops_is_rejected(aio, actual, error, says):
    t = aio.Throttler("memory:", limits=LLM)
    async with t.reserve("k", (1, 500)) as r:
        with pytest.raises(error) as told:
            r.actual = actual
        assert says in str(told.value)
        with pytest.raises(error) as told:
            await t.settle(r.text, actual)
        assert says in str(told.value) and r.actual is None
    assert await levels(t) == [1, 500]


@under_asyncio
async def test_a_text_that_is_no_reservation_is_rejected(aio):
    t = aio.Throttler("memory:", 1, 1)
    for text, error in (("", ValueError), ("x", ValueError), ("r1,1;k", ValueError), ("\0", ValueError), ("\ud800", ValueError),
                        (5, TypeError), (None, TypeError), (b"r1", TypeError), (t.reserve("k"), TypeError)):
        with pytest.raises(error, match="text"):
            await t.settle(text, 0)
