# SPDX-License-Identifier: MIT
"""The Python package over other Redis clients, their oldest and newest supported versions, on real servers."""
import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asgi_rig import policies_in_a_cluster
from python_rig import under_asyncio
from resp import free_port, join_cluster

HERE = Path(__file__).parent
PROGRAM = (HERE / "python_clients.py").read_text()
FAILOVER = (HERE / "python_client_failover.py").read_text()
BURSTS = (HERE / "python_client_bursts.py").read_text()
CLIENTS = pytest.mark.parametrize(("family", "version", "has_cluster"), [
    ("redis", "==4.2.0", False), ("redis", "==4.3.4", True), ("redis", ">=6", True),
    ("valkey", "", True), ("aioredis", "==1.3.1", False)])
SLOTS = 16384


@pytest.fixture(scope="module")
def cluster_url(start_redis):
    """The URL of one of three nodes, each with a third of the slots."""
    nodes = [start_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "2000")
             for _ in range(3)]
    for i, node in enumerate(nodes):
        node("CLUSTER", "ADDSLOTSRANGE", SLOTS * i // 3, SLOTS * (i + 1) // 3 - 1)
    first = nodes[0]
    bus = first("CONFIG", "GET", "cluster-port")[1]
    for node in nodes[1:]:
        node("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
    deadline = time.monotonic() + 20
    while not all(b"cluster_state:ok" in node("CLUSTER", "INFO") and len(node("CLUSTER", "SLOTS")) == 3
                  for node in nodes):
        assert time.monotonic() < deadline, first("CLUSTER", "INFO")
        time.sleep(0.05)
    return first.url


@pytest.mark.packages
@CLIENTS
def test_each_client_decides_like_the_native_client(aiosteady, from_pypi, redis_server, closed_port, cluster_url, family, version, has_cluster):
    folder = from_pypi(family + version)
    urls = [redis_server.url, f"redis://127.0.0.1:{closed_port}", *([cluster_url] if has_cluster else [])]
    run = subprocess.run([sys.executable, "-c", PROGRAM, family, *urls], env={"PYTHONPATH": f"{aiosteady}:{folder}"},
                         capture_output=True, text=True, timeout=250, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split()[-1] == ("in_a_cluster" if has_cluster else "reads_replies_of_every_protocol")


@pytest.mark.packages
@CLIENTS
def test_a_burst_over_each_client_is_decided(aiosteady, from_pypi, start_redis, closed_port, cluster_url, family, version, has_cluster):
    """Each client from redis-py 4.2 on runs in its own process with its own server, which is stopped and loads meanwhile."""
    folder = from_pypi(family + version)
    server = start_redis("--enable-debug-command", "yes")
    urls = [server.url, f"redis://127.0.0.1:{closed_port}", *([cluster_url] if has_cluster else [])]
    run = subprocess.run([sys.executable, "-c", BURSTS, family, *urls], env={"PYTHONPATH": f"{aiosteady}:{folder}:{HERE}"},
                         capture_output=True, text=True, timeout=180, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split()[-1] == "all"


FAILING_OVER = pytest.mark.parametrize(("family", "version"), [("redis", "==4.3.4"), ("redis", ">=6"), ("valkey", "")])


def wait_until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def fail_over(aiosteady, folder, family, *where):
    run = subprocess.run([sys.executable, "-c", FAILOVER, family, *map(str, where)], capture_output=True, text=True,
                         env={"PYTHONPATH": f"{aiosteady}:{folder}"}, timeout=250, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.packages
@FAILING_OVER
def test_a_primary_named_by_sentinel_is_used_by_the_client(aiosteady, from_pypi, start_redis, tmp_path, family, version):
    primary = start_redis()
    replica = start_redis("--replicaof", "127.0.0.1", str(primary.port))
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor s 127.0.0.1 {primary.port} 1\nsentinel down-after-milliseconds s 500\n"
                      "sentinel failover-timeout s 4000\n")
    sentinel = start_redis(sentinel=config)
    wait_until(lambda: b"master_link_status:up" in replica("INFO", "replication"))
    wait_until(lambda: len(sentinel("SENTINEL", "REPLICAS", "s")) == 1)
    fail_over(aiosteady, from_pypi(family + version), family, "sentinel", sentinel.port, primary.process.pid)


@pytest.mark.packages
@FAILING_OVER
def test_a_replica_that_takes_over_is_used_by_the_client(aiosteady, from_pypi, start_redis, family, version):
    nodes = [start_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000",
                         "--cluster-replica-validity-factor", "0") for _ in range(4)]
    buses = [node("CONFIG", "GET", "cluster-port")[1].decode() for node in nodes]
    join_cluster(list(zip(nodes[:3], buses)))
    nodes[3]("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, buses[0])
    myid = nodes[2]("CLUSTER", "MYID")
    wait_until(lambda: myid in nodes[3]("CLUSTER", "NODES"))
    wait_until(lambda: nodes[3]("CLUSTER", "REPLICATE", myid) == b"OK")
    wait_until(lambda: b"master_link_status:up" in nodes[3]("INFO", "replication"))
    wait_until(lambda: all(len(slots) == 4 for slots in nodes[0]("CLUSTER", "SLOTS")[-1:]))
    key = next(f"k{i}" for i in range(1000) if nodes[0]("CLUSTER", "KEYSLOT", f"k{i}") >= SLOTS * 2 // 3 + 1)
    fail_over(aiosteady, from_pypi(family + version), family, "cluster", nodes[0].url, nodes[2].process.pid, key)


@under_asyncio
async def test_the_native_client_decides_in_a_cluster(aio, cluster_url):
    async with aio.connect(cluster_url, timeout=10) as store:
        t = aio.Throttler(store, 1000, 3600, prefix="native:")
        for turn in range(2):
            results = await asyncio.gather(*(t.consume(f"k{i}", i + 1) for i in range(60)))
            assert [r.level for r in results] == [(turn + 1) * (i + 1) for i in range(60)]
        tasks = [asyncio.ensure_future(t.consume(f"k{i}", i + 1)) for i in range(60)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [r.level for r in ends[1::2]] == [3 * (i + 1) for i in range(1, 60, 2)]
        assert all(isinstance(r, asyncio.CancelledError) for r in ends[::2])


@under_asyncio
async def test_policies_with_keys_in_several_slots_are_decided_together(aio, cluster_url):
    async with aio.connect(cluster_url, timeout=10) as store:
        await policies_in_a_cluster(store, "native:")
