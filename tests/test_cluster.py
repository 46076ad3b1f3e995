# SPDX-License-Identifier: MIT
"""The command and the Python package on a cluster of three servers."""
import asyncio

import pytest
from command import ALLOWED, DENIED, LIMIT
from python_rig import patient, under_asyncio
from resp import free_port, join_cluster


@pytest.fixture(scope="module")
def cluster(start_redis):
    """Three servers. Each owns a third of the slots."""
    buses = [free_port() for _ in range(3)]
    nodes = [(start_redis("--cluster-enabled", "yes", "--cluster-port", str(bus)), bus) for bus in buses]
    join_cluster(nodes)
    return [node for node, _ in nodes]


def test_the_command_follows_redirects_of_a_cluster(ask, cluster):
    for i in range(12):
        first, second = cluster[i % 3].url, cluster[(i + 1) % 3].url
        assert ask("consume", f"c{i}", *LIMIT, "--amount", "9", "--store", first)[0] == ALLOWED
        status, answer = ask("consume", f"c{i}", *LIMIT, "--amount", "2", "--store", second)
        assert status == DENIED and answer["level"] == 9
        assert ask("reset", f"c{i}", *LIMIT, "--store", first)[0] == ALLOWED
        assert ask("peek", f"c{i}", *LIMIT, "--store", second)[1]["level"] == 0


@under_asyncio
async def test_the_package_spreads_keys_over_a_cluster(aio, cluster):
    async with patient(aio, cluster[0].url, 10, 86400) as t:
        for level in (1, 2):
            results = await asyncio.gather(*(t.consume(f"p{i}") for i in range(300)))
            assert all(r.success and r.level == level for r in results)
    for node in cluster:
        assert 50 < node("DBSIZE") < 200
