# SPDX-License-Identifier: MIT
"""The ASGI middleware decides on all policies together: a request that one of them denies charges no other."""
import asyncio
import contextlib
import importlib
import json
import sys

import pytest
from asgi_rig import ask, ask_all, hello, run
from python_rig import standing_still
from asgi_rig import asgi, package, throttler  # noqa: F401: fixtures

# ---- One user floods, and others ask once ----


@contextlib.asynccontextmanager
async def far_away(url, seconds):
    """The URL of a proxy that holds each byte back, in both directions together for `seconds`."""
    host, _, port = url.rpartition("/")[2].rpartition(":")

    connections = []

    async def copy(reader, writer):
        loop = asyncio.get_running_loop()
        while data := await reader.read(1 << 16):
            loop.call_later(seconds / 2, writer.write, data)
        await asyncio.sleep(seconds)
        writer.close()

    async def serve(reader, writer):
        connections.append(asyncio.current_task())
        to_us, to_server = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, to_server), copy(to_us, writer), return_exceptions=True)
        for each in (writer, to_server):
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*connections)  # their clients are closed by now


@pytest.fixture(params=["memory", "Redis", "Redis 2 ms away", "redis-py", "two stores", "two stores, 2 ms away"])
def stores(request, package, redis_server, from_pypi):
    """A context with the store of each policy."""

    @contextlib.asynccontextmanager
    async def opened():
        async with contextlib.AsyncExitStack() as stack:
            url = redis_server.url
            if "2 ms" in request.param:
                url = await stack.enter_async_context(far_away(url, 0.002))
            if request.param == "redis-py":
                sys.path.append(str(from_pypi("redis==8.1.0")))
                client = importlib.import_module("redis.asyncio").from_url(url)
                stack.push_async_callback(client.aclose)
                yield client, client
                return
            store = await stack.enter_async_context(
                package.connect("memory:" if request.param == "memory" else url, timeout=10))
            two = "two" in request.param
            yield store, await stack.enter_async_context(package.connect("memory:")) if two else store

    return opened


def user(scope):
    return scope["user"]


@pytest.mark.parametrize("block", [None, 300], ids=["", "with blocks"])
def test_a_user_over_its_limit_takes_no_room_of_others(asgi, package, stores, block):
    async def main():
        async with stores() as (first, second):
            app = asgi.RateLimit(hello, policies=[
                asgi.Policy(package.Throttler(first, 10, 3600.0, block), key=lambda scope: "all", name="global"),
                asgi.Policy(package.Throttler(second, 1, 3600.0, block), key=user, name="user")])
            assert (await ask(app, user="greedy")).status == 200
            over = asyncio.Event()

            async def flood():
                while not over.is_set():
                    assert (await ask(app, user="greedy")).status == 429
                    await asyncio.sleep(0)

            async def ask_once(i):
                await asyncio.sleep(0.01 * i)
                return (await ask(app, user=f"user{i}")).status

            floods = [asyncio.ensure_future(flood()) for _ in range(64)]
            statuses = await asyncio.gather(*(ask_once(i) for i in range(8)))
            over.set()
            await asyncio.gather(*floods)
            return statuses, (await ask(app, user="one more")).status, (await ask(app, user="too many")).status

    assert run(main()) == ([200] * 8, 200, 429)


# ---- One store ----


def calls(server):
    """How often each script command was called."""
    lines = server("INFO", "commandstats").decode().splitlines()
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines if line.startswith("cmdstat_eval"))


def test_all_policies_of_a_store_are_one_command(asgi, package, redis_server):
    async def main():
        async with package.connect(redis_server.url, timeout=10, deny_memory=0) as store:
            app = asgi.RateLimit(hello, package.Throttler(store, 3, 3600.0), policies=[
                asgi.Policy(package.Throttler(store, capacity, 3600.0, prefix="p:"), name=name, key=lambda scope: name)
                for name, capacity in (("a", 5), ("b", 4))])
            await ask(app)
            redis_server("CONFIG", "RESETSTAT")
            return [(await ask(app)).status for _ in range(4)], calls(redis_server)

    assert run(main()) == ([200, 200, 429, 429], 4)


def several(package, store, **daily):
    return package.Throttler(store, limits={"burst": package.Rate(2, 60.0), "daily": package.Rate(5, 6000.0, **daily)})


def test_a_policy_with_several_limits_shows_each(asgi, package):
    async def main():
        async with package.connect("memory:") as store:
            limits = several(package, store, block_duration=900.0)
            app = asgi.RateLimit(hello, package.Throttler(store, 9, 60.0), policies=[asgi.Policy(limits, name="user")])
            return await ask_all(app, 3), [r.level for r in (await limits.peek("user:192.0.2.1")).parts]

    (first, _, denied), levels = run(main())
    assert first.rate_limit == ('"default";q=9;w=540, "user:burst";q=2;w=120, "user:daily";q=5;w=30000',
                                '"default";r=8;t=480, "user:burst";r=1;t=60, "user:daily";r=4;t=24000')
    assert denied.rate_limit == (first["ratelimit-policy"], '"user:burst";r=0;t=60')
    assert json.loads(denied.body)["violated-policies"] == ["user:burst"] and levels == [2, 2]


def test_a_cost_over_one_of_several_limits_never_fits(asgi, package):
    store = package.connect("memory:")
    limits = several(package, store)
    with pytest.raises(ValueError, match="cost is 3, over the capacity of 2"):
        asgi.Policy(limits, cost=3)
    response = run(ask(asgi.RateLimit(hello, limits, cost=lambda scope: 3)))
    assert response.status == 422 and json.loads(response.body)["violated-policies"] == ["default:burst"]


def test_a_key_that_makes_two_policies_the_same_bucket_is_a_400(asgi, package, caplog):
    store = package.connect("memory:")
    limits = several(package, store)
    braces = asgi.Policy(package.Throttler(store, 9, 60.0), name="{a", key=lambda scope: scope["own"])
    app = asgi.RateLimit(hello, limits, name="a", key=lambda scope: "k", policies=[braces])
    assert run(ask(app, own="k")).status == 200 and run(ask(app, own="k}burst")).status == 400
    assert "have the same bucket" in caplog.text and "k}" not in caplog.text


def test_a_blocked_policy_that_costs_nothing_denies_and_the_others_charge_nothing(asgi, package):
    store = package.connect("memory:")
    free = package.Throttler(store, 1, 60.0, 900.0)
    app = asgi.RateLimit(hello, package.Throttler(store, 5, 60.0), policies=[asgi.Policy(free, name="free", cost=0)])

    async def main():
        allowed = await ask(app)
        for _ in range(2):
            await free.consume("free:192.0.2.1")
        return allowed, await ask(app), await app._policies[0].throttler.peek("default:192.0.2.1")

    allowed, denied, peeked = run(main())
    assert allowed.rate_limit == ('"default";q=5;w=300, "free";q=1;w=60', '"default";r=4;t=240, "free";r=1;t=60')
    assert denied["retry-after"] == "900" and json.loads(denied.body)["violated-policies"] == ["free"]
    assert peeked.level == 1


# ---- Several stores ----


@pytest.fixture
def apart(asgi, package):
    """A middleware with a store for each policy. Each is (name, capacity, block duration, cost)."""

    def make(*policies, key=lambda scope: "k"):
        return asgi.RateLimit(hello, policies=[
            asgi.Policy(package.Throttler("memory:", capacity, 3600.0, block), key=key, cost=cost, name=name)
            for name, capacity, block, cost in policies])

    return make


def peek(app, place, key="k"):
    policy = app._policies[place]
    return policy.throttler.peek(f"{policy.name}:{key}")


@pytest.mark.parametrize("full", [0, 1])
def test_only_a_policy_that_denies_starts_its_block(apart, full):
    app = apart(("a", 1 if full == 0 else 5, 900, 1), ("b", 1 if full == 1 else 5, 900, 1))

    async def main():
        await ask(app)
        denied = await ask(app)
        return denied, [await peek(app, place) for place in (0, 1)]

    denied, peeks = run(main())
    assert denied["retry-after"] == "3600" and [p.level for p in peeks] == [1, 1]
    assert [p.blocked_for is not None for p in peeks] == [full == 0, full == 1]
    assert denied["ratelimit"] == f'"{"ab"[full]}";r=0;t=3600'


@pytest.fixture
def after_reserve(monkeypatch, asgi):
    """Runs a coroutine function between the charges of the first and the second group."""

    def use(then):
        group = importlib.import_module("aiosteady._together").Group
        reserve = group.reserve
        asked = []

        async def reserve_after(self):
            asked.append(self)
            if len(asked) == 2:
                await then()
            return await reserve(self)

        monkeypatch.setattr(group, "reserve", reserve_after)
        return asked

    return use


def test_what_was_taken_before_a_late_denial_is_given_back(apart, after_reserve):
    app = apart(("a", 5, 900, 2), ("b", 5, 900, 1))

    async def others_come():
        await app._policies[1].throttler.consume("b:k", 5)

    after_reserve(others_come)

    async def main():
        denied = await ask(app)
        return denied, await peek(app, 0), await peek(app, 1)

    denied, a, b = run(main())
    assert denied.status == 429 and json.loads(denied.body)["violated-policies"] == ["b"]
    assert (a.level, a.blocked_for) == (0, None) and (b.level, b.blocked_for) == (5, None)


def test_a_denied_request_takes_nothing_although_there_is_room_by_now(apart, monkeypatch):
    app = apart(("a", 1, 900, 1), ("b", 5, None, 1))
    group = importlib.import_module("aiosteady._together").Group
    reserve_or_block = group.reserve_or_block

    async def after_a_reset(self):
        await app._policies[0].throttler.reset("a:k")
        return await reserve_or_block(self)

    monkeypatch.setattr(group, "reserve_or_block", after_a_reset)

    async def main():
        await ask(app)
        return (await ask(app)).status, (await peek(app, 0)).level, (await peek(app, 1)).level

    assert run(main()) == (429, 0, 1)


def test_the_policy_with_the_least_room_is_charged_first(apart, after_reserve):
    app = apart(("a", 8, None, 1), ("b", 9, None, 3), ("c", 10, None, 1))

    async def nothing():
        pass

    asked = after_reserve(nothing)
    assert run(ask(app)).rate_limit == ('"a";q=8;w=28800, "b";q=9;w=32400, "c";q=10;w=36000',
                                        '"a";r=7;t=25200, "b";r=6;t=21600, "c";r=9;t=32400')
    assert [group.names for group in asked] == [["b"], ["a"], ["c"]]


@pytest.mark.parametrize("cancels", [1, 2])
def test_a_cancelled_request_leaves_nothing_charged(apart, after_reserve, monkeypatch, cancels):
    app = apart(("a", 5, None, 3), ("b", 5, None, 1))
    together = importlib.import_module("aiosteady._together")
    give_back = together.Group.give_back

    async def slowly(self, *call):
        await asyncio.sleep(0.05)
        await give_back(self, *call)

    monkeypatch.setattr(together.Group, "give_back", slowly)

    async def main():
        before = []

        async def cancel():
            before.append((await peek(app, 0)).level)
            for i in range(cancels):
                asyncio.get_running_loop().call_later(0.01 * i, task.cancel)
            await asyncio.sleep(60)

        after_reserve(cancel)
        task = asyncio.ensure_future(ask(app))
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.2)
        return before, (await peek(app, 0)).level, (await peek(app, 1)).level

    assert run(main()) == ([3], 0, 0)


def test_a_request_that_is_cancelled_while_a_store_is_silent_leaves_nothing_charged(asgi, package, redis_server):
    async def main():
        async with package.connect(redis_server.url, timeout=10) as store:
            near = package.Throttler("memory:", 5, 3600.0)
            app = asgi.RateLimit(hello, near, policies=[asgi.Policy(package.Throttler(store, 5, 3600.0), name="far")])
            await ask(app)
            with standing_still(redis_server):
                task = asyncio.ensure_future(ask(app))
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            levels = [await policy.throttler.peek(f"{policy.name}:192.0.2.1") for policy in app._policies]
            return [result.level for result in levels]

    assert run(main()) == [1, 1]


def test_a_store_without_a_verdict_is_charged_nothing_and_the_others_decide(asgi, package, closed_port):
    gone = package.Throttler(f"redis://127.0.0.1:{closed_port}", 1, 3600.0)
    there = package.Throttler("memory:", 2, 3600.0)
    app = asgi.RateLimit(hello, gone, policies=[asgi.Policy(there, name="there")])
    assert [r.status for r in run(ask_all(app, 3))] == [200, 200, 429]


def test_the_fields_of_a_denial_show_no_local_bucket(asgi, package, closed_port):
    gone = package.Throttler(f"redis://127.0.0.1:{closed_port}", 1, 60.0, on_error="local")
    app = asgi.RateLimit(hello, gone, policies=[asgi.Policy(package.Throttler("memory:", 1, 6000.0), name="there")])
    _, denied = run(ask_all(app, 2))
    assert json.loads(denied.body)["violated-policies"] == ["default", "there"]
    assert denied.rate_limit == ('"there";q=1;w=6000', '"there";r=0;t=6000')
