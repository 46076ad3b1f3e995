# SPDX-License-Identifier: MIT
"""The memory of denials and the leases in the Python package, on a real Redis: their answers are verdicts like those of
the server."""
import asyncio
import copy
import importlib
import json
import pickle
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from python_rig import python

CAPACITY, LEAK = 16000, 3600.0  # no drop leaks in a test, so the level is what was put in
LEASE = {"lease_age": 60}


@pytest.fixture
def connect(aio, redis_server):
    importlib.import_module("aiosteady.blocking")
    stores = []

    def connect(url=redis_server.url, **options):
        stores.append(aio.blocking.connect(url, timeout=5.0, **options))
        return stores[-1]

    yield connect
    for store in stores:
        store.close()


@pytest.fixture
def throttler(aio, connect, request):
    store = connect(deny_memory=60)
    throttler = aio.blocking.Throttler(store, 2, 3600.0, prefix=request.node.name)
    assert [throttler.consume("k").success for _ in range(3)] == [True, True, False]
    assert throttler.consume("k").source == "memory" and store.stats()["from_memory"] >= 1
    return throttler


def sources_of_denials(throttler):
    """Where denials come from, after a first one."""
    while throttler.consume("k", 2).success:
        pass
    return {throttler.consume("k", 2).source for _ in range(3)}


@pytest.mark.parametrize(("options", "option_of_url", "source"), [
    ({}, "", "memory"), ({"deny_memory": None}, "", "memory"), ({"deny_memory": 60}, "", "memory"),
    ({"deny_memory": 0}, "", "store"), ({}, "?deny_memory=0", "store"), ({"deny_memory": 60}, "?deny_memory=0", "store"),
    ({"deny_memory": 0}, "?deny_memory=60s", "memory")])
def test_the_memory_is_on_unless_an_option_takes_it_off(aio, connect, redis_server, request, options, option_of_url, source):
    throttler = aio.blocking.Throttler(connect(redis_server.url + option_of_url, **options), 2, 3600.0, prefix=request.node.name)
    assert sources_of_denials(throttler) == {source}


def test_the_memory_of_an_event_loop_is_on_by_default(aio, redis_server, request):
    async def main(**options):
        async with aio.Store(redis_server.url, timeout=5.0, **options) as store:
            throttler = aio.Throttler(store, 2, 3600.0, prefix=f"{request.node.name} {options}")
            while (await throttler.consume("k")).success:
                pass
            return (await throttler.consume("k")).source

    assert asyncio.run(main()) == "memory"
    assert asyncio.run(main(deny_memory=0)) == "store"


def test_stores_loops_and_threads_of_a_process_share_one_memory(aio, connect, redis_server, request):
    """One store is denied. Then stores in other threads and on other loops send no call for the key."""
    def calls():
        return redis_server("INFO", "commandstats").count(b"cmdstat_evalsha:") and int(
            redis_server("INFO", "commandstats").split(b"cmdstat_evalsha:calls=")[1].split(b",")[0])

    def throttler(module, store):
        return module.Throttler(store, 2, 3600.0, prefix=request.node.name)

    def in_a_loop(_):
        async def main():
            async with aio.Store(redis_server.url, timeout=5.0, deny_memory=60) as store:
                return (await throttler(aio, store).consume("k")).source
        return asyncio.run(main())

    first = throttler(aio.blocking, connect(deny_memory=60))
    assert [first.consume("k").success for _ in range(3)] == [True, True, False]
    before = calls()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: first.consume("k").source, range(8))) == {"memory"}
        assert set(pool.map(lambda _: throttler(aio.blocking, connect(deny_memory=60)).consume("k").source, range(8))) == {"memory"}
        assert set(pool.map(in_a_loop, range(8))) == {"memory"}
    assert calls() == before
    first.reset("k")
    assert in_a_loop(0) == "store", "a reset of one store counts for all"


def test_a_reset_by_another_client_is_seen_after_a_second(aio, connect, redis_server, request):
    throttler = aio.blocking.Throttler(connect(), 2, 3600.0, prefix=request.node.name)
    sources_of_denials(throttler)
    began = time.monotonic()
    redis_server("DEL", f"{request.node.name}k")
    while not (result := throttler.consume("k")).success:
        assert result.source == "memory" and time.monotonic() - began < 10
        time.sleep(0.01)
    own = throttler.consume("k", 2)
    assert not own.success
    throttler.reset("k")
    assert throttler.consume("k", 2).success, "its own reset counts at once"


def test_a_reservation_that_is_denied_says_when_it_can_be_had(aio, throttler):
    with pytest.raises(aio.Denied, match=r"denied.*: try again in 3\d+\.\d+ s"):
        with throttler.reserve("k", 1):
            pass


def test_a_wait_without_time_says_that_there_is_no_room(throttler):
    with pytest.raises(TimeoutError, match="the bucket has no room in time"):
        throttler.wait("k", timeout=0)


# ---- Leases ----


@pytest.fixture
def leased(aio, connect, request):
    """A throttler whose store has a lease on "k", and how many calls were allowed."""
    throttler = aio.blocking.Throttler(connect(**LEASE), CAPACITY, LEAK, prefix=request.node.name)
    return throttler, take_lease(throttler.consume)


def take_lease(consume):
    """Calls until there is a lease with more than 50 drops left. Returns how many calls were allowed."""
    for n in range(1, 1001):
        result = consume("k")
        assert result.success
        if result.source == "lease" and result.level > n + 50:
            return n
    raise AssertionError("no lease after 1000 calls")


def level_becomes(redis_server, prefix, wanted):
    """What others see. A settle may come in a moment."""
    blocking = importlib.import_module("aiosteady.blocking")
    with blocking.connect(redis_server.url, timeout=5.0, deny_memory=0) as other:
        throttler = blocking.Throttler(other, CAPACITY, LEAK, prefix=prefix)
        end = time.monotonic() + 10
        while (level := throttler.peek("k").level) != wanted and time.monotonic() < end:
            time.sleep(0.01)
    assert level == wanted


def deny_by_lease(throttler):
    """Fills the bucket. The take that gets too little is answered by the store; then the lease denies."""
    for _ in range(CAPACITY):
        if not (result := throttler.consume("k")).success:
            break
    assert not result.success
    result = throttler.consume("k")
    assert (result.success, result.source) == (False, "lease")
    return result


@pytest.mark.parametrize(("options", "option_of_url", "source"), [
    ({}, "", "store"), ({"lease_age": None}, "", "store"), ({"lease_age": 0}, "", "store"), (LEASE, "", "lease"),
    ({}, "?lease_age=60s", "lease"), (LEASE, "?lease_age=0", "store"), ({"lease_age": 0}, "?lease_age=60s", "lease")])
def test_leases_are_off_unless_an_option_gives_them(aio, connect, redis_server, request, options, option_of_url, source):
    store = connect(redis_server.url + option_of_url, **options)
    throttler = aio.blocking.Throttler(store, CAPACITY, LEAK, prefix=request.node.name)
    assert [throttler.consume("k").source for _ in range(40)][-1] == source
    assert (store.stats()["from_lease"] > 0) == (source == "lease")


def test_an_answer_from_a_lease_is_a_verdict(aio, leased):
    throttler, allowed = leased
    stats = throttler._target.stats()
    result = throttler.consume("k", 2)
    assert (result.success, result.source, result.granted, result.retry_after) == (True, "lease", 2, 0)
    assert result.level > allowed + 2, "the level after the take, with the whole lease"
    assert ", source='lease'" in repr(result) and "lease" not in str(result) and vars(result)["source"] == "lease"
    assert pickle.loads(pickle.dumps(result)).source == "lease"
    part = aio.blocking.consume_all([aio.Part(throttler, "k")])
    assert (part.success, part.source, part.granted) == (True, "lease", 1)
    after = throttler._target.stats()
    assert {name: after[name] - stats[name] for name in ("decisions", "allowed", "denied", "from_lease")} == {
        "decisions": 2, "allowed": 2, "denied": 0, "from_lease": 2}
    own = throttler.stats()
    assert (own["allowed"], own["errors"]) == (allowed + 2, 0)
    assert [of["charged"] for of in own["limits"].values()] == [allowed + 3]


def test_a_denial_by_a_lease_is_a_verdict(aio, leased):
    throttler, _ = leased
    result = deny_by_lease(throttler)
    assert (result.granted, result.blocked_for, result.error) == (0, None, None)
    assert 0 < result.retry_after <= 60
    assert str(aio.Denied(result)).startswith("denied by the limit '1h': try again in ")
    assert throttler.stats()["denied"] >= 2
    assert throttler.stats()["limits"].popitem()[1]["charged"] == CAPACITY


def test_a_made_result_may_be_from_a_lease(aio):
    assert aio.ThrottleResult(True, 1, 1.0, None, source="lease").source == "lease"
    with pytest.raises(ValueError, match="'memory', 'lease' or 'nowhere'"):
        aio.ThrottleResult(True, 1, 1.0, None, source="leases")


def test_a_close_of_a_blocking_store_returns_its_leases(aio, redis_server, leased, request):
    throttler, allowed = leased
    level_becomes(redis_server, request.node.name, throttler.consume("k").level)
    throttler._target.close()
    level_becomes(redis_server, request.node.name, allowed + 1)


@pytest.mark.parametrize("closed", ["by its loop", "after its loop", "by nobody"])
def test_a_close_of_an_asynchronous_store_returns_its_leases(aio, redis_server, request, closed):
    prefix = request.node.name

    async def main(store):
        throttler = aio.Throttler(store, CAPACITY, LEAK, prefix=prefix)
        results = []
        for _ in range(20):
            results += await asyncio.gather(*(throttler.consume("k") for _ in range(10)))
        assert all(result.success for result in results) and results[-1].source == "lease"
        assert store.stats()["from_lease"] == sum(result.source == "lease" for result in results) > 100
        if closed == "by its loop":
            await store.aclose()

    store = aio.connect(redis_server.url, timeout=5.0, **LEASE)
    asyncio.run(main(store))
    if closed == "after its loop":
        store.close()
    del store
    level_becomes(redis_server, prefix, 200)


def test_a_program_that_ends_returns_its_leases(aio, aiosteady, redis_server, request):
    allowed = python(aiosteady, """
import sys
from aiosteady.blocking import Throttler, connect
throttler = Throttler(connect(sys.argv[1], timeout=5.0, lease_age=60), 16000, 3600.0, prefix=sys.argv[2])
assert [throttler.consume("k").source for _ in range(40)][-1] == "lease"
""", redis_server.url, request.node.name)
    assert allowed == ""
    level_becomes(redis_server, request.node.name, 40)


def test_a_child_of_fork_does_not_spend_the_lease_of_its_parent(aio, aiosteady, redis_server, request):
    out = python(aiosteady, """
import os, sys
from aiosteady.blocking import Throttler, connect
with connect(sys.argv[1], timeout=5.0, lease_age=60) as store:
    throttler = Throttler(store, 16000, 3600.0, prefix=sys.argv[2])
    last = [throttler.consume("k") for _ in range(100)][-1]
    assert last.source == "lease" and last.level > 101
    child = os.fork()
    if child == 0:
        own = throttler.consume("k")
        print(own.source, own.level == last.level + 1, store.stats()["from_lease"], flush=True)
        store.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(throttler.consume("k").source)
""", redis_server.url, request.node.name)
    assert out.splitlines() == ["store True 0", "lease"]
    level_becomes(redis_server, request.node.name, 102)


def test_threads_share_the_leases_of_their_store(aio, connect, request):
    store = connect(**LEASE)
    throttler = aio.blocking.Throttler(store, CAPACITY, LEAK, prefix=request.node.name)
    allowed = []
    threads = [threading.Thread(target=lambda: allowed.extend(throttler.consume("k").success for _ in range(500)))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert allowed == [True] * 2000 and store.stats()["from_lease"] > 1000


def test_a_limit_below_32_has_no_lease(aio, connect, request):
    store = connect(**LEASE)
    for capacity, leases in ((31, False), (32, True)):
        throttler = aio.blocking.Throttler(store, capacity, LEAK, prefix=f"{request.node.name} {capacity}")
        assert any(throttler.consume("k").source == "lease" for _ in range(20)) == leases


def test_other_calls_ask_the_server(aio, leased):
    throttler, _ = leased
    assert throttler.consume("k").source == "lease"
    for ask in (lambda: throttler.consume("k", max_wait=1), lambda: throttler.consume("k", 2, at_least=1),
                lambda: throttler.peek("k"), lambda: throttler.charge("k", 1), lambda: throttler.consume("k", -1),
                lambda: throttler.wait("k", timeout=1), lambda: throttler.consume("k", 1001)):
        assert ask().source == "store"
    with throttler.reserve("k", 1) as reservation:
        assert reservation.result.source == "store"
    assert throttler.consume("k").source == "lease"


def test_a_reset_ends_a_lease(leased):
    throttler, _ = leased
    deny_by_lease(throttler)
    throttler.reset("k")
    result = throttler.consume("k")
    assert (result.success, result.source) == (True, "store")
    assert result.level <= CAPACITY // 16, "of an empty bucket"


# ---- The middlewares ----


def assert_fields(answers):
    """`answers` has the first answer of each source and status."""
    assert {("store", 200), ("lease", 200), ("lease", 429)} <= set(answers)
    assert all(answer["ratelimit-policy"] == '"default";q=320;w=1152000' for answer in answers.values())
    assert answers["store", 200]["ratelimit"].startswith('"default";r=319;t=')
    allowed, denied = answers["lease", 200], answers["lease", 429]
    left = re.fullmatch(r'"default";r=(\d+);t=\d+', allowed["ratelimit"])
    assert 280 < int(left[1]) < 319 and allowed["retry-after"] is None
    assert 1 <= int(denied["retry-after"]) <= 60 and denied["ratelimit"] == f'"default";r=0;t={denied["retry-after"]}'
    assert json.loads(denied.body)["violated-policies"] == ["default"]


def test_the_asgi_middleware_answers_from_a_lease(aio, redis_server, request):
    asgi, rig = importlib.import_module("aiosteady.asgi"), importlib.import_module("asgi_rig")
    seen = []

    async def main():
        async with aio.Store(redis_server.url, timeout=5.0, **LEASE) as store:
            throttler = aio.Throttler(store, 320, LEAK, prefix=request.node.name)
            app = asgi.RateLimit(rig.hello, throttler, on_decision=lambda asked, decision: seen.append(decision))
            answers = {}
            for _ in range(400):
                answer = await rig.ask(app)
                answers.setdefault((seen.pop().results["default"].source, answer.status), answer)
                if ("lease", 429) in answers:
                    break
            return answers

    assert_fields(asyncio.run(main()))


def test_the_wsgi_middleware_answers_from_a_lease(aio, connect, request):
    wsgi, rig = importlib.import_module("aiosteady.wsgi"), importlib.import_module("wsgi_rig")
    seen, answers = [], {}
    throttler = aio.blocking.Throttler(connect(**LEASE), 320, LEAK, prefix=request.node.name)
    app = wsgi.RateLimit(rig.hello, throttler, on_decision=lambda asked, decision: seen.append(decision))
    for _ in range(400):
        answer = rig.ask(app)
        answers.setdefault((seen.pop().results["default"].source, answer.status), answer)
        if ("lease", 429) in answers:
            break
    assert_fields(answers)


@pytest.fixture
def several(aio, connect, request):
    """Of its two limits, "narrow" is full."""
    store = connect(deny_memory=60)
    several = aio.blocking.Throttler(store, limits={"wide": "100/hour", "narrow": "2/day"}, prefix=request.node.name)
    assert [several.consume("k").success for _ in range(2)] == [True, True]
    return several


def test_a_limit_that_was_not_asked_has_no_numbers(several):
    result = several.consume("k")
    assert (result.success, result.source, result.name, result.level) == (False, "memory", "narrow", 2)
    wide, narrow = result.parts
    assert (wide.source, wide.success, wide.level, wide.granted, wide.retry_after, wide.name) == ("nowhere", False, 0, 0, 0.0, "wide")
    assert (narrow.source, narrow.success, narrow.level) == ("memory", False, 2)
    assert narrow.retry_after == result.retry_after > 10000
    assert list(result.limits) == ["wide", "narrow"] and "source='memory'" in repr(result) and "source='nowhere'" in repr(wide)
    assert "source" not in str(result), "it is printed as in aiosteady 22.1.0"
    assert pickle.loads(pickle.dumps(result)) == result == copy.copy(result)
    assert several.stats()["limits"]["wide"]["denied"] == 0 and several.stats()["limits"]["narrow"]["denied"] == 1


def test_calls_that_may_not_be_denied_from_memory_ask_the_server(aio, connect, several):
    assert several.consume("k", max_wait=1).source == "store"
    assert several.consume("k", at_least=1).source == "store"
    assert several.peek("k").source == "store"
    assert several.charge("k", {"wide": 1, "narrow": 0}).source == "store"
    blocks = aio.blocking.Throttler(several.redis, limits={"wide": "100/hour", "narrow": "2/day"}, block_duration=60,
                                    prefix=several.prefix)
    assert several.consume("k").source == "memory"
    assert blocks.consume("k").source == "store", "it starts the block"
    assert blocks.consume("k").source == "store", "the other limit may have to start its block"


def test_several_keys_are_denied_by_one_of_them(aio, several):
    one = aio.blocking.Throttler(several.redis, limits="100/hour", prefix=several.prefix + "one")
    result = aio.blocking.consume_all([(one, "k", 1), (several, "k", 1)])
    assert (result.success, result.source, result.part, result.name) == (False, "memory", 1, "narrow")
    assert [part.source for part in result.parts] == ["nowhere", "nowhere", "memory"]
    result = aio.blocking.consume_all([(one, "k", 1), (several, "k", 1, "shadow")])
    assert (result.success, result.source) == (True, "store")
    assert one.peek("k").level == 1
