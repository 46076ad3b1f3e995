# SPDX-License-Identifier: MIT
"""The memory of denials in the Python package, on a real Redis: a denial from memory is a verdict like that of the server."""
import pytest


@pytest.fixture
def throttler(aio, redis_server, request):
    import aiosteady.blocking

    store = aiosteady.blocking.connect(f"{redis_server.url}?deny_memory=1s")
    throttler = aiosteady.blocking.Throttler(store, 2, 3600.0, prefix=request.node.name)
    assert [throttler.consume("k").success for _ in range(3)] == [True, True, False]
    assert throttler.consume("k").source == "memory" and store.stats()["from_memory"] >= 1
    yield throttler
    store.close()


def test_a_reservation_that_is_denied_says_when_it_can_be_had(aio, throttler):
    with pytest.raises(aio.Denied, match=r"denied.*: try again in 3\d+\.\d+ s"):
        with throttler.reserve("k", 1):
            pass


def test_a_wait_without_time_says_that_there_is_no_room(throttler):
    with pytest.raises(TimeoutError, match="the bucket has no room in time"):
        throttler.wait("k", timeout=0)
