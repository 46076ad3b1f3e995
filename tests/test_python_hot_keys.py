# SPDX-License-Identifier: MIT
"""The memory of denials in the Python package, on a real Redis: a denial from memory is a verdict like that of the server."""
import asyncio
import importlib
import time

import pytest


@pytest.fixture
def connect(aio, redis_server):
    import aiosteady.blocking

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
