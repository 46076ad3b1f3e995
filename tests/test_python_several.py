# SPDX-License-Identifier: MIT
"""The Python package: several limits, several keys, places in line, partial grants, charges and looks."""
import asyncio
import pickle

import pytest
from python_rig import patient, standing_still, under_asyncio

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=["redis", "memory", "file"])
def url(request, tmp_path):
    if request.param == "redis":
        return request.getfixturevalue("redis_server").url
    return "memory:" if request.param == "memory" else f"file:{tmp_path}/buckets"


LLM = {"requests": "2/minute", "tokens": "100/minute"}

# ---- Several limits ----


@under_asyncio
async def test_a_call_is_allowed_if_all_limits_allow_it(aio, url):
    async with patient(aio, url, limits=LLM) as t:
        r = await t.consume("k", {"tokens": 60, "requests": 1})
        assert r.success and r.name == "tokens" and [p.level for p in r.parts] == [1, 60], "fewer further calls fit in tokens"
        assert {name: (p.success, p.granted, p.level) for name, p in r.limits.items()} == {
            "requests": (True, 1, 1), "tokens": (True, 60, 60)}
        denied = await t.consume("k", (1, 60))
        assert not denied.success and denied.name == "tokens" and denied.level == 60 and denied.granted == 0
        assert denied.retry_after == pytest.approx(12, abs=1) and denied.retry_after == denied.limits["tokens"].retry_after
        assert denied.limits["requests"].success and denied.limits["requests"].level == 1, "nothing is charged anywhere"
        assert (await t.consume("k", [1, 0])).success, "an amount of 0 leaves a limit alone"
        assert (await t.peek("k")).limits["requests"].level == 2
        assert not (await t.peek("k", (1, 0))).success and (await t.peek("k", (0, 40))).success
        r = await t.consume("k", -1)
        assert r.success and [p.level for p in r.parts] == [1, 59]
        r = await t.reset("k")
        assert r.success and [p.level for p in r.parts] == [0, 0] and (await t.peek("k")).level == 0
        assert (await t.consume("k")).atomic == url.startswith("redis")


@under_asyncio
async def test_the_keys_of_several_limits_lie_in_one_slot(aio, redis_server):
    async with patient(aio, redis_server.url, limits=LLM, prefix="p:") as t:
        await t.consume("a{b}%")
        assert sorted(redis_server("KEYS", "*")) == [b"p:{a%7Bb%7D%25}requests", b"p:{a%7Bb%7D%25}tokens"]


@under_asyncio
async def test_an_overflow_of_one_limit_blocks_the_key_under_that_limit(aio, url):
    async with patient(aio, url, limits={"a": "1/hour", "b": "5/hour"}, block_duration=9) as t:
        await t.consume("k")
        denied = await t.consume("k")
        assert denied.name == "a" and denied.blocked_for == 9 and denied.limits["b"].blocked_for is None
        assert not (await t.consume("k", (0, 0))).success, "a part without an amount denies if it is blocked"


# ---- Options ----


@under_asyncio
async def test_max_wait_takes_a_place_in_line(aio, url):
    async with patient(aio, url, 1, 10) as t:
        assert (await t.consume("k", max_wait=5)).must_wait == 0
        r = await t.consume("k", max_wait=15)
        assert r.success and r.level == 2 and r.must_wait == pytest.approx(10, abs=1)
        assert repr(r).startswith("ThrottleResult(must_wait=") and r.granted == 1
        denied = await t.consume("k", max_wait=15)
        assert not denied.success and denied.must_wait == 0 and denied.retry_after == pytest.approx(5, abs=1)
        assert not (await t.peek("k", 1, max_wait=15)).success
        assert (await t.peek("k", 1, max_wait=25)).must_wait == pytest.approx(20, abs=1)
        for unbounded in (None, float("inf"), 1e300):
            assert (await t.consume("k", max_wait=unbounded)).success


@under_asyncio
async def test_at_least_takes_as_much_as_fits(aio, url):
    async with patient(aio, url, 10, 60) as t:
        await t.consume("k", 4)
        r = await t.consume("k", 9, at_least=2)
        assert r.success and r.granted == 6 and r.level == 10
        assert not (await t.consume("k", 9, at_least=2)).success
        r = await t.consume("k", 9, max_wait=1000, at_least=2)
        assert r.granted == 2 and r.must_wait == pytest.approx(120, abs=1)


@under_asyncio
async def test_max_ahead_bounds_the_line_and_clamp_lowers_an_amount(aio, url):
    async with aio.connect(url, timeout=10) as store:
        t = aio.Throttler(store, 1, 10, max_ahead=15)
        assert [(await t.consume("k", max_wait=None)).success for _ in range(3)] == [True, True, False]
        with pytest.raises(TimeoutError, match=r"no room in time: it would take (19|20)\."):
            await t.wait("k", timeout=60)
        clamped = aio.Throttler(store, 5, 60, clamp=True)
        assert (await clamped.consume("c", 9)).level == 5
        assert (await clamped.wait("d", 9)).level == 5
        for name, wrong, error in (("max_ahead", -1, ValueError), ("max_ahead", 0, ValueError), ("max_ahead", 1e-9, ValueError),
                                   ("max_ahead", "1", TypeError), ("clamp", 1, TypeError),
                                   ("clamp", "no", TypeError), ("clamp", None, TypeError)):
            with pytest.raises(error, match=name):
                aio.Throttler(store, 1, 1, **{name: wrong})


@under_asyncio
async def test_a_charge_goes_in_whatever_the_level(aio, url):
    async with patient(aio, url, 2, 60, block_duration=100) as t:
        r = await t.charge("k", 5)
        assert r.success and r.level == 5 and r.granted == 5
        assert (await t.consume("k")).blocked_for == 100
        assert (await t.charge("k", 1)).level == 6
        with pytest.raises(ValueError, match="amount"):
            await t.charge("k", -1)
    async with patient(aio, url, limits=LLM) as t:
        r = await t.charge("k2", {"requests": 1, "tokens": 500})
        assert r.limits["tokens"].level == 500


# ---- Several keys ----


@under_asyncio
async def test_consume_all_charges_all_keys_or_none(aio, url):
    async with aio.connect(url, timeout=10) as store:
        user, everyone = aio.Throttler(store, 2, 60, prefix="u:"), aio.Throttler(store, limits=LLM, prefix="a:")
        r = await aio.consume_all([(user, "k"), aio.Part(everyone, "all", {"requests": 1, "tokens": 9})])
        assert r.success and [(p.part, p.name, p.level) for p in r.parts] == [(0, "1m", 1), (1, "requests", 1), (1, "tokens", 9)]
        assert (r.part, r.name) == (0, "1m") and list(r.limits) == ["1m"]
        denied = await aio.consume_all([(user, "k", 1), (everyone, "all", 2)])
        assert not denied.success and (denied.part, denied.name) == (1, "requests") and list(denied.limits) == list(LLM)
        assert (await user.peek("k")).level == 1
        assert not (await aio.peek_all([(user, "k", 2)])).success and (await aio.peek_all([(user, "k", 1)])).success
        assert (await aio.consume_all([(user, "k", 1), (everyone, "all", 2)], max_wait=100)).must_wait > 20
        assert (await aio.consume_all([(user, "x", 9), (user, "y", 9)], at_least=1)).granted == 2
        assert pickle.loads(pickle.dumps(denied)).parts == denied.parts


@under_asyncio
async def test_the_kinds_vote_and_charge_as_they_say(aio, url):
    async with aio.connect(url, timeout=10) as store:
        full, free = aio.Throttler(store, 1, 60, prefix="full:"), aio.Throttler(store, 5, 60)
        await full.consume("k")
        for kind, allowed, levels in (("take", False, [0, 1]), ("look", False, [0, 1]), ("charge", True, [1, 2]),
                                      ("shadow", True, [1, 1])):
            await free.reset("k")
            await full.reset("k")
            await full.consume("k")
            r = await aio.consume_all([(free, "k"), (full, "k", 1, kind)])
            assert (r.success, [p.level for p in r.parts]) == (allowed, levels), kind
            assert r.parts[1].success == (kind == "charge")
        for ask in (aio.consume_all, aio.peek_all):
            alone = await ask([(full, "k", 1, "shadow")])
            assert alone.success and not alone.parts[0].success and alone.parts[0].retry_after > 0, "of a lone shadow"


@under_asyncio
async def test_a_policy_answers_for_several_keys(aio, closed_port):
    async with aio.connect(f"redis://127.0.0.1:{closed_port}") as store:
        def t(policy, **options):
            return aio.Throttler(store, 2, 60, on_error=policy, prefix=policy, **options)

        with pytest.raises(aio.Unavailable):
            await aio.consume_all([(t("report"), "k"), (t("allow"), "k")])
        r = await aio.consume_all([(t("allow"), "k"), (t("allow"), "x")])
        assert (r.success, r.source, r.error, r.parts, r.limits) == (True, "policy", "unavailable", (), {})
        r = await aio.consume_all([(t("allow"), "k"), (t("deny"), "k")])
        assert (r.success, r.source, r.retry_after) == (False, "policy", 1)
        r = await aio.consume_all([(t("local"), "k"), (t("allow"), "k", 2)])
        assert (r.success, r.source, [p.level for p in r.parts]) == (True, "local", [1, 2])
        several = aio.Throttler(store, limits=LLM, on_error="local")
        assert (await several.consume("k")).source == "local" and (await several.peek("k")).limits["tokens"].level == 1


@under_asyncio
async def test_a_call_that_finds_no_slot_in_flight_is_answered_by_the_policy(aio, redis_server):
    async with aio.connect(redis_server.url, max_in_flight=1, timeout=10) as store:
        t = aio.Throttler(store, limits=LLM, on_error="allow")
        ends = await asyncio.gather(t.consume("k"), t.consume("k"))
        assert [(end.success, end.error) for end in ends] == [(True, None), (False, "overloaded")]


@pytest.mark.parametrize("several", [False, True])
@under_asyncio
async def test_a_cancelled_task_frees_its_place_in_flight(aio, redis_server, several):
    async with aio.connect(redis_server.url, max_in_flight=4, timeout=10) as store:
        t = aio.Throttler(store, limits=["5/hour", "9/day"] if several else "5/hour")
        await t.consume("k")
        with standing_still(redis_server):
            for _ in range(3):
                tasks = [asyncio.create_task(t.consume("k", 0)) for _ in range(4)]
                await asyncio.sleep(0.01)
                assert store.stats()["in_flight"] == 4
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                assert store.stats()["in_flight"] == 0
        assert (await t.consume("k")).level == 2


# ---- The state of a store ----


@under_asyncio
async def test_a_store_says_whether_it_is_ready(aio, start_redis, closed_port):
    async with aio.connect("memory:") as store:
        assert (store.state, store.ready) == ("ready", True)
    assert (store.state, store.ready) == ("down", False)
    server = start_redis()
    async with aio.connect(server.url, timeout=10) as store:
        assert (store.state, store.ready) == ("connecting", False)
        await aio.Throttler(store, 1, 1).consume("k")
        assert store.ready and await asyncio.to_thread(lambda: store.state) == "ready", "without a loop, too"
        server.stop()
        for _ in range(200):
            await asyncio.sleep(0.02)
            if store.state == "down":
                break
        assert store.state == "down"
    async with aio.connect(f"redis://127.0.0.1:{closed_port}") as store:
        with pytest.raises(aio.Unavailable):
            await aio.Throttler(store, 1, 1).consume("k")
        assert store.state == "down"


# ---- Wrong arguments ----


@pytest.mark.parametrize(("amount", "error", "says"), [
    ({"x": 1}, ValueError, "amount names 'x'"), ({"requests": 1}, ValueError, "amount lacks 'tokens'"),
    ({"requests": 1, "tokens": 1, 5: 1}, ValueError, "amount names 5"), ({}, ValueError, "amount lacks 'requests'"),
    ((1,), ValueError, "amount has 1 numbers"), ([1, 2, 3], ValueError, "amount has 3 numbers"), ((1, 1.5), TypeError, "amount"),
    ({"requests": 1, "tokens": "5"}, TypeError, "amount"), ("12", TypeError, "amount"), (b"12", TypeError, "amount"),
    (1.5, TypeError, "amount"), (None, TypeError, "amount"), (2**31, ValueError, "amount"), ((1, 2**63), ValueError, "amount")])
def test_amounts_for_limits_that_are_not_there_are_rejected(aio, amount, error, says):
    async def main():
        t = aio.Throttler("memory:", limits=LLM)
        for ask in (t.consume, t.peek, t.charge, t.wait):
            with pytest.raises(error) as told:
                await ask("k", amount)
            assert says in str(told.value)
        with pytest.raises(error, match="amount"):
            async with t.reserve("k", amount):
                raise AssertionError("it went in")
        assert [p.level for p in (await t.peek("k")).parts] == [0, 0]

    asyncio.run(main())


@under_asyncio
async def test_impossible_options_are_rejected_and_nothing_is_charged(aio, url):
    async with patient(aio, url, 5, 60) as t:
        for options, error, says in (
                ({"max_wait": -1}, ValueError, "max_wait"), ({"max_wait": float("nan")}, ValueError, "max_wait"),
                ({"max_wait": "1"}, TypeError, "max_wait"), ({"max_wait": 1j}, TypeError, "max_wait"),
                ({"at_least": 0}, ValueError, "at_least"), ({"at_least": 2}, ValueError, "at_least"),
                ({"at_least": 1.5}, TypeError, "at_least"), ({"at_least": -1}, ValueError, "at_least")):
            for ask in (t.consume, t.peek):
                with pytest.raises(error, match=says):
                    await ask("k", 1, **options)
            with pytest.raises(error, match=says):
                await aio.consume_all([(t, "k")], **options)
            with pytest.raises(error, match=says):
                async with t.reserve("k", **options):
                    raise AssertionError("it went in")
        for key in (5, None, bytearray(b"k"), "", "x" * 1025, "\ud800"):
            with pytest.raises((TypeError, ValueError), match="key"):
                await t.consume(key, max_wait=1)
            with pytest.raises((TypeError, ValueError), match="key"):
                await aio.consume_all([(t, "k"), (t, key)])
        assert (await t.peek("k")).level == 0


class Unreadable:
    def __index__(self):
        raise ValueError("mine")


@under_asyncio
async def test_impossible_parts_are_rejected_and_nothing_is_charged(aio, url):
    async with aio.connect(url, timeout=10) as store:
        t, other = aio.Throttler(store, 5, 60), aio.Throttler("memory:", 5, 60)
        for parts, error, says in (
                ([], ValueError, "parts"), ([t], TypeError, r"parts\[0\]"), ([(t,)], TypeError, r"parts\[0\]"),
                ([(t, "k"), ("t", "k")], TypeError, r"parts\[1\]"), ([(t, "k", 1, "give")], ValueError, r"^parts\[0\]: kind is 'give'"),
                ([(t, "k"), (t, "x", 1, 0)], TypeError, r"^parts\[1\]: kind must be"), ([(t, "k"), (t, 5)], TypeError, r"^parts\[1\]: key"), ([(t, "k", 1, "take", 5)], TypeError, r"parts\[0\]"),
                ([(t, "k"), (other, "k")], ValueError, r"parts\[1\] has another store"), ([(t, "k"), (t, "x", 1.5)], TypeError, r"^parts\[1\]: amount"),
                ([(t, "k"), (t, "x"), (t, "k")], ValueError, r"parts\[0\] and parts\[2\] have the same bucket"),
                ([(t, f"k{i}") for i in range(65)], ValueError, "parts"), (5, TypeError, "parts must be a list of parts, not int"),
                (None, TypeError, "parts must be a list of parts, not NoneType")):
            for ask in (aio.consume_all, aio.peek_all):
                with pytest.raises(error, match=says):
                    await ask(parts)
        with pytest.raises(ValueError, match="amount"):
            await aio.consume_all([(t, "k", -1, "look")])
        with pytest.raises(ValueError, match="^mine$"):
            await aio.consume_all([(t, "k"), (t, "x", Unreadable())])
        assert (await aio.consume_all([(t, f"k{i}") for i in range(64)])).success
        assert (await t.peek("k")).level == 0


def test_a_result_shows_the_wait_first_and_the_limit_last(aio):
    part = aio.ThrottleResult(True, 1, 2.0, None, 0.0, name="a")
    r = aio.ThrottleResult(True, 1, 2.0, None, 0.0, must_wait=0.5, name="a", parts=(part, part))
    assert repr(r) == "ThrottleResult(must_wait=0.5, success=True, level=1, until_next_drop=2.0, blocked_for=None, part=0, name='a')"
    assert repr(part) == "ThrottleResult(success=True, level=1, until_next_drop=2.0, blocked_for=None)"
    assert r == part and hash(r) == hash(part) and part.parts == (part,) and r.limits == {"a": part}
    for wrong in ({"parts": [part, part]}, {"parts": (1, 2)}, {"name": 5}, {"must_wait": "x"}, {"granted": 1.5}):
        with pytest.raises(TypeError):
            aio.ThrottleResult(True, 1, 2.0, None, **wrong)
