# SPDX-License-Identifier: MIT
"""stats() of a throttler, in aiosteady and in aiosteady.blocking."""
import asyncio
import contextlib
import sys
import threading

import pytest
from python_rig import python, standing_still, under_asyncio

VERDICTS = ("allowed", "denied", "denied_elsewhere", "shadow_denied", "local_allowed", "local_denied", "policy_allowed",
            "policy_denied", "errors")
OTHERS = ("blocked", "unavailable", "unknown", "peeks", "resets", "settles", "waits", "wait_seconds")


@pytest.fixture
def blocking(aio):
    import aiosteady.blocking

    return aiosteady.blocking


def counted(throttler, **expected):
    """Asserts the counters; one that is not named is 0. Returns those of the limits."""
    stats = throttler.stats()
    limits = stats.pop("limits")
    assert list(stats) == ["decisions", *VERDICTS, *OTHERS]
    assert stats.pop("decisions") == sum(stats[name] for name in VERDICTS)
    assert {name: value for name, value in stats.items() if value} == expected
    return limits


def limit(**expected):
    return {"charged": 0, "given_back": 0.0, "drained": 0, "denied": 0, "shadow_denied": 0, **expected}


@pytest.fixture(params=["memory", "redis", "client"])
def store(request, aio, redis_server, from_pypi):
    """What an asynchronous throttler takes: an embedded store, one on a server, a client of the caller."""
    if request.param == "memory":
        return aio.connect("memory:")
    if request.param == "redis":
        return aio.connect(redis_server.url, timeout=20, deny_memory=0)
    sys.path.append(str(from_pypi("redis==8.1.0")))
    import redis.asyncio

    return redis.asyncio.Redis.from_url(redis_server.url)


@contextlib.asynccontextmanager
async def closing(store):
    try:
        yield
    finally:
        await store.aclose()


# ---- What is counted ----


@under_asyncio
async def test_consumes_are_counted_by_verdict_and_drops_by_limit(aio, store):
    async with closing(store):
        t = aio.Throttler(store, 5, 3600, 3600)
        counted(t)
        for amount in (3, 1, -2, 4, 1):
            await t.consume("k", amount)
        assert counted(t, allowed=3, denied=2, blocked=2) == {"1h": limit(charged=4, drained=2, denied=2)}
        await t.peek("k")
        await t.peek("k", 2)
        await t.reset("k")
        await t.consume("k", at_least=1, max_wait=1)
        await t.charge("k", 7)
        limits = counted(t, allowed=5, denied=2, blocked=2, peeks=2, resets=1)
        assert limits == {"1h": limit(charged=12, drained=2, denied=2)}
        with pytest.raises(TypeError):
            await t.consume("k", "x")
        with pytest.raises(ValueError):
            await t.consume("")
        assert counted(t, allowed=5, denied=2, blocked=2, peeks=2, resets=1) == limits


@under_asyncio
async def test_a_denial_counts_for_each_limit_that_denies(aio, store):
    async with closing(store):
        t = aio.Throttler(store, limits=["2/hour", "3/day"], prefix="p:")
        for _ in range(4):
            await t.consume("k")
        await t.consume("k", {"1h": 0, "1d": 1})
        await t.consume("k", {"1h": 0, "1d": 1})
        assert counted(t, allowed=3, denied=3) == {"1h": limit(charged=2, denied=2), "1d": limit(charged=3, denied=1)}


@under_asyncio
async def test_each_part_of_a_call_counts_for_its_throttler(aio, store):
    async with closing(store):
        one, all_, dry = (aio.Throttler(store, 2, 3600, prefix=prefix) for prefix in ("{a}one", "{a}all", "{a}dry"))
        for _ in range(3):
            await aio.consume_all([(one, "k"), (one, "x"), (all_, "k", 1, "look"), (dry, "k", 2, "shadow")])
        assert counted(one, allowed=4, denied=2) == {"1h": limit(charged=4, denied=2)}
        assert counted(all_, allowed=2, denied_elsewhere=1) == {"1h": limit()}
        assert counted(dry, allowed=1, shadow_denied=2) == {"1h": limit(charged=2, shadow_denied=2)}
        await aio.peek_all([(one, "k"), (all_, "k")])
        await aio.consume_all([(one, "k", 5, "charge"), (all_, "k")])
        assert counted(one, allowed=5, denied=2, peeks=1)["1h"] == limit(charged=9, denied=2)
        assert counted(all_, allowed=3, denied_elsewhere=1, peeks=1)["1h"] == limit(charged=1)


@under_asyncio
async def test_waits_and_settles_are_counted(aio, store):
    async with closing(store):
        t = aio.Throttler(store, 2, 3600)
        waits = [(await t.consume("k", max_wait=7200)).must_wait for _ in range(5)]
        stats = t.stats()
        assert (stats["decisions"], stats["allowed"], stats["denied"], stats["waits"]) == (5, 4, 1, 2)
        assert stats["wait_seconds"] == pytest.approx(sum(waits)) and waits[3] > 3600
        quick = aio.Throttler(store, 1, 0.05, prefix="quick:")
        for _ in range(3):
            await quick.wait("k")
        assert (quick.stats()["decisions"], quick.stats()["allowed"]) == (3, 3), "an attempt before a place in line is no decision"
        slow = aio.Throttler(store, 10, 3600)
        for actual in (2, 9):
            async with slow.reserve(f"r{actual}", 6) as r:
                r.actual = actual
        limits = counted(slow, allowed=2, settles=2)
        assert limits["1h"].pop("given_back") == pytest.approx(4, abs=0.01)
        assert limits["1h"]["charged"] == 12 + 3


# ---- Without a verdict ----


@pytest.mark.parametrize(("policy", "expected"), [
    ("report", {"errors": 3}), ("allow", {"policy_allowed": 3}), ("deny", {"policy_denied": 3}),
    ("local", {"local_allowed": 2, "local_denied": 1})])
@pytest.mark.parametrize("via", ["url", "client", "blocking"])
@under_asyncio
async def test_calls_without_a_verdict_are_counted_by_answer_and_cause(aio, blocking, from_pypi, closed_port, policy, expected, via):
    url = f"redis://127.0.0.1:{closed_port}"
    store = blocking.connect(url, timeout=20) if via == "blocking" else aio.connect(url, timeout=20)
    if via == "client":
        sys.path.append(str(from_pypi("redis==8.1.0")))
        import redis.asyncio

        store = redis.asyncio.Redis.from_url(url)
    t = (blocking if via == "blocking" else aio).Throttler(store, 2, 3600, prefix="stats:", on_error=policy)
    for ask in (t.consume, t.charge, t.consume):
        with contextlib.suppress(aio.Unavailable):
            result = ask("k", 1)
            await result if via != "blocking" else None
    limits = counted(t, unavailable=3, **expected)
    assert limits["1h"] == (limit(charged=2, denied=1) if policy == "local" else limit())
    await store.aclose() if via != "blocking" else store.close()


@pytest.mark.parametrize("via", ["url", "client"])
@pytest.mark.parametrize("call", ["consume", "wait"])
@under_asyncio
async def test_a_cancelled_decision_counts_as_unknown_once(aio, redis_server, from_pypi, via, call):
    store = aio.connect(redis_server.url, timeout=20)
    if via == "client":
        sys.path.append(str(from_pypi("redis==8.1.0")))
        import redis.asyncio

        store = redis.asyncio.Redis.from_url(redis_server.url)
    async with closing(store):
        t = aio.Throttler(store, 5, 3600)
        await t.consume("first")
        with standing_still(redis_server):
            task = asyncio.ensure_future(getattr(t, call)("k"))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            if call == "consume":
                counted(t, allowed=1, errors=1, unknown=1)
        await t.consume("last")
        await asyncio.sleep(0.2)
        stats = t.stats()
        assert stats["decisions"] == 3 and stats["settles"] == 0, stats


@under_asyncio
async def test_counters_stay_after_the_store_is_closed(aio, store):
    t = aio.Throttler(store, 5, 3600)
    async with closing(store):
        await t.consume("k")
    before = t.stats()
    if isinstance(store, aio.Store):
        with pytest.raises(aio.Closed):
            await t.consume("k")
    assert t.stats() == before and before["allowed"] == 1


# ---- Blocking calls, threads, processes ----


@pytest.mark.parametrize("where", ["memory", "redis"])
def test_counts_of_threads_are_exact(blocking, redis_server, where):
    """A pool releases the GIL in each call; an embedded store keeps it."""
    threads, calls = 8, 3000 if where == "memory" else 150
    with blocking.connect("memory:" if where == "memory" else redis_server.url, timeout=20) as store:
        t = blocking.Throttler(store, 1000, 3600)
        several = blocking.Throttler(store, limits=["100/hour", "200/day"], prefix="s:")

        def work():
            for _ in range(calls):
                t.consume("k")
                t.consume("k", -1)
                several.consume("k")
                t.peek("k")

        running = [threading.Thread(target=work) for _ in range(threads)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        sys.setswitchinterval(interval)
        n = threads * calls
        assert counted(t, allowed=2 * n, peeks=n) == {"1h": limit(charged=n, drained=n)}
        assert counted(several, allowed=100, denied=n - 100)["1h"] == limit(charged=100, denied=n - 100)


def test_blocking_waits_reservations_and_parts_are_counted(blocking):
    with blocking.connect("memory:") as store:
        t = blocking.Throttler(store, 1, 3600)
        t.wait("k"), t.consume("k", max_wait=3600)
        assert t.stats()["waits"] == 1 and t.stats()["allowed"] == 2
        quick = blocking.Throttler(store, 1, 0.05, prefix="quick:")
        for _ in range(3):
            quick.wait("k")
        assert (quick.stats()["decisions"], quick.stats()["allowed"]) == (3, 3)
        u = blocking.Throttler(store, 5, 3600)
        with u.reserve("r", 5) as r:
            r.actual = 5
        blocking.consume_all([(u, "r"), (t, "x")])
        assert counted(u, allowed=1, denied=1, settles=1)["1h"] == limit(charged=5, denied=1)
        assert t.stats()["denied_elsewhere"] == 1


@pytest.mark.parametrize("module", ["aiosteady", "aiosteady.blocking"])
@pytest.mark.parametrize("where", ["memory", "redis"])
def test_a_forked_child_counts_from_zero(aiosteady, redis_server, module, where):
    told = python(aiosteady, f"""
import asyncio, inspect, os, sys, {module} as module
def ask(t):
    result = t.consume("k")
    return asyncio.run(result) if inspect.isawaitable(result) else result
store = module.connect(sys.argv[1])
t = module.Throttler(store, 100, 3600)
for _ in range(3):
    ask(t)
child = os.fork()
if child == 0:
    ask(module.Throttler(store, 100, 3600)), ask(t)
    stats = t.stats()
    os._exit(0 if (stats["allowed"], stats["limits"]["1h"]["charged"], store.stats()["allowed"]) == (1, 1, 2) else 1)
assert os.waitpid(child, 0)[1] == 0
child = os.fork()
if child == 0:
    os._exit(t.stats()["decisions"] + store.stats()["decisions"])
assert os.waitpid(child, 0)[1] == 0
print(t.stats()["allowed"], store.stats()["allowed"])
""", "memory:" if where == "memory" else redis_server.url)
    assert told == "3 3\n"
