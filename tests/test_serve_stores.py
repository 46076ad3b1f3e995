# SPDX-License-Identifier: MIT
"""The daemon with each kind of store: decisions over each protocol, a store that is down at the start, that dies under
load, and that is killed together with the daemon."""
import collections
import contextlib
import signal
import statistics
import subprocess
import time

import pytest
from resp import Resp
from serve_rig import BUILD, START_S, Daemon, daemon, needs_daemon, rules_file
from serve_stores import B, RULES, SLACK_S, STORES, Load, await_that, taken_away_s

pytestmark = needs_daemon

EMBEDDED = {"memory": lambda folder: "memory:", "file": lambda folder: f"file:{folder}/buckets"}


@contextlib.contextmanager
def a_daemon(folder, url, on_error="deny", threads=2):
    path = rules_file(folder, RULES.format(on_error=on_error))
    with daemon("--config", path, "--store", url, "--threads", threads) as running:
        yield running


@pytest.fixture(scope="module", params=STORES)
def started(request, start_redis, tmp_path_factory):
    return STORES[request.param](start_redis, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def store(started):
    """It is up and empty at the beginning of each test."""
    started.make_whole()
    return started


def of_kind(*kinds):
    return pytest.mark.parametrize("started", kinds, indirect=True)


def assert_decides(running, name):
    """Over each protocol a bucket of 20 drops is filled, then denied. Parts with other keys are one decision with it."""
    for used in range(1, B + 1):
        status, fields, _ = running.check("/few", address=f"203.0.113.{name}")
        assert status == 200 and fields["ratelimit"].startswith(f'"few";r={B - used};'), fields
    assert running.check("/few", address=f"203.0.113.{name}")[0] == 429
    parts = [{"limit": "few", "key": f"{key} {name}", "amount": amount} for key, amount in (("a", 15), ("b", 2), ("c", 1))]
    answer = running.json("/v1/consume", {"parts": parts})
    assert (answer["source"], [part["level"] for part in answer["parts"]]) == ("store", [15, 2, 1])
    answer = running.json("/v1/consume", {"parts": parts}, status=429)
    others = None if answer["source"] == "memory" else True  # they were not asked
    assert [part["allowed"] for part in answer["parts"]] == [False, others, others]
    answer = running.json("/v1/peek", {"parts": [{**part, "amount": 0} for part in parts]})
    assert [part["level"] for part in answer["parts"]] == [15, 2, 1]
    client = Resp(running.port)
    assert [client("CL.THROTTLE", f"r {name}", 4, 1, 3600)[0] for _ in range(6)] == [0] * 5 + [1]
    client.close()


@pytest.mark.parametrize("kind", EMBEDDED)
def test_an_embedded_store_decides_over_each_protocol(kind, tmp_path):
    with a_daemon(tmp_path, EMBEDDED[kind](tmp_path)) as running:
        assert_decides(running, 1)


def test_a_store_on_servers_decides_over_each_protocol(store, tmp_path):
    with a_daemon(tmp_path, store.url) as running:
        assert_decides(running, 1)


# ---- A store that is down ----


@contextlib.contextmanager
def load(running, **how):
    clients = Load(running, **how)
    try:
        yield clients
    finally:
        clients.over.set()
    clients.end()


def assert_back(clients, since, slack):
    """Each protocol has a verdict within a second, and none is without one later on."""
    first, silent = clients.back_after(since)
    assert max(*first, silent) < 1 + slack, (first, silent, slack)


def test_a_daemon_that_starts_before_its_store_uses_it_within_a_second(store, tmp_path, policy="deny"):
    store.down()
    with a_daemon(tmp_path, store.url, policy) as running, load(running, policy=policy) as clients:
        await_that(lambda: len({protocol for _, protocol, _ in list(clients.verdicts)}) == 3)
        time.sleep(0.3)
        assert not any(known for _, _, known in list(clients.verdicts))
        assert running.request("GET", "/readyz")[0] == 503
        before = taken_away_s(running.process.pid)
        up = store.up()
        clients.await_verdicts(20, up)
        slack = SLACK_S + taken_away_s(running.process.pid, *store.pids()) - before
        clients.await_full()
        clients.over.set()
        assert_back(clients, up, slack)
        clients.assert_bounds(0)


def kill_again_and_again(store, running, clients, times):
    """Kills all servers, and starts them again. The times of back_after(), and the slack for each."""
    found = []
    for i in range(times):
        clients.await_full(time.monotonic())
        store.down()
        time.sleep(0.3 + i % 5 * 0.3)
        before = taken_away_s(running.process.pid)
        up = store.up()
        clients.await_verdicts(20, up)
        time.sleep(0.3)
        slack = SLACK_S + taken_away_s(running.process.pid, *store.pids()) - before
        found.append((*clients.back_after(up), slack))
    return found


@of_kind("redis")
@pytest.mark.parametrize("policy", ["report", "local"])
def test_kill_9_of_redis_under_load_sends_no_429_and_redis_is_used_within_a_second(store, tmp_path, policy):
    with a_daemon(tmp_path, store.url, policy) as running, load(running, policy=policy) as clients:
        found = kill_again_and_again(store, running, clients, 2)
        clients.await_full(time.monotonic())
        clients.over.set()
        clients.assert_bounds(2)
    for first, silent, slack in found:
        assert max(*first, silent) < 1 + slack


@of_kind("redis")
def test_a_frozen_redis_delays_no_answer_and_is_used_again_within_a_second(store, tmp_path, policy="report"):
    """Each answer comes by the timeout of 100 ms."""
    with a_daemon(tmp_path, store.url, policy) as running, load(running, policy=policy) as clients:
        clients.await_full()
        before = taken_away_s(running.process.pid, *store.pids())
        frozen = time.monotonic()
        try:
            store.nodes[0].process.send_signal(signal.SIGSTOP)
            time.sleep(1.5)
        finally:
            store.nodes[0].process.send_signal(signal.SIGCONT)
        thawed = time.monotonic()
        clients.await_verdicts(50, thawed)
        slack = SLACK_S + taken_away_s(running.process.pid, *store.pids()) - before
        clients.over.set()
        assert clients.slowest(frozen) < 0.1 + slack
        assert_back(clients, thawed, slack)
        clients.assert_bounds(0)


@of_kind("sentinel", "cluster")
def test_a_failover_under_load_allows_no_more_than_one_loss_and_is_over_in_a_second(store, tmp_path, policy="deny"):
    with a_daemon(tmp_path, store.url, policy) as running, load(running, policy=policy) as clients:
        clients.await_full()
        before = taken_away_s(running.process.pid)
        switched = store.fail_over()
        clients.await_verdicts(100, switched)
        slack = SLACK_S + taken_away_s(running.process.pid, *store.pids()) - before
        clients.over.set()
        assert_back(clients, switched, slack)
        clients.assert_bounds(1)


# ---- A file ----


def test_kill_9_of_the_daemon_under_load_loses_no_drop_of_a_file(tmp_path):
    """Three daemons, one after the other, ask for the same buckets. Each is killed under load."""
    path = rules_file(tmp_path, RULES.format(on_error="report"))
    loads = []
    for _ in range(3):
        running = Daemon("--config", path, "--store", f"file:{tmp_path}/buckets", "--threads", 2)
        loads.append(Load(running, may_end=True))
        loads[-1].await_verdicts(100)
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
        loads[-1].end()
    loads[0].assert_bounds(0, loads[1:])
    admitted = collections.Counter()
    for one in loads:
        assert all(known for _, _, known in one.verdicts), "the store of a file always decides"
        admitted.update({bucket: len(times) for bucket, times in one.admitted.items() if bucket.startswith("few")})
    with daemon("--config", path, "--store", f"file:{tmp_path}/buckets") as running:
        for bucket in [bucket for bucket in admitted if "throttle" not in bucket]:
            peek = {"limit": "few", "key": bucket.removeprefix("few "), "amount": 0}
            assert running.json("/v1/peek", peek)["parts"][0]["level"] >= admitted[bucket]
        assert max(admitted.values()) == B, "a bucket was full"


def test_daemons_on_one_file_share_its_buckets_and_another_size_is_refused(tmp_path):
    """The kill of one stops the other for no decision."""
    path, store = rules_file(tmp_path, RULES.format(on_error="report")), f"file:{tmp_path}/buckets"
    first = Daemon("--config", path, "--store", store)
    with daemon("--config", path, "--store", store) as second:
        loads = [Load(first, may_end=True), Load(second)]
        for one in loads:
            one.await_full()
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        loads[1].await_verdicts(50, time.monotonic())
        for one in loads:
            one.end()
        assert all(known for one in loads for _, _, known in one.verdicts)
        loads[0].assert_bounds(0, loads[1:])
        both = [bucket for bucket in loads[0].admitted if bucket.startswith("few") and bucket in loads[1].admitted]
        assert max(sum(len(one.admitted[bucket]) for one in loads) for bucket in both) == B
        other = ["--config", path, "--store", store, "--listen", "127.0.0.1:0", "--buckets", "999999"]
        done = subprocess.run([BUILD / "steady", "serve", *other], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and "buckets; 1048576 were requested" in done.stderr, done.stderr


# ---- At length: `make faults` ----


@pytest.mark.faults
def test_a_store_killed_under_load_again_and_again_is_used_within_a_second_each_time(store, tmp_path, policy="deny"):
    times = 24 if len(store.nodes) == 1 else 4
    with a_daemon(tmp_path, store.url, policy) as running, load(running, policy=policy) as clients:
        found = kill_again_and_again(store, running, clients, times)
        clients.over.set()
        clients.assert_bounds(times)
    for name, seconds in (("first verdict", [min(first) for first, _, _ in found]),
                          ("steady", [max(*first, silent) for first, silent, _ in found])):
        print(f"{name}: median {statistics.median(seconds) * 1000:.0f} ms, worst {max(seconds) * 1000:.0f} ms")
    for first, silent, slack in found:
        assert max(*first, silent) < 1 + slack


@pytest.mark.faults
@of_kind("sentinel", "cluster")
@pytest.mark.parametrize("policy", ["allow", "local"])
def test_failovers_under_load_allow_no_more_than_one_loss_each(store, tmp_path, policy):
    """The primary that was killed comes back as a replica, and takes over again."""
    with a_daemon(tmp_path, store.url, policy) as running, load(running, policy=policy) as clients:
        for _ in range(2):
            clients.await_full(time.monotonic())
            before = taken_away_s(running.process.pid)
            switched = store.fail_over()
            clients.await_verdicts(100, switched)
            slack = SLACK_S + taken_away_s(running.process.pid, *store.pids()) - before
            assert_back(clients, switched, slack)
            store.heal()
        clients.over.set()
        clients.assert_bounds(2)


@pytest.mark.faults
@of_kind("redis")
def test_sigterm_ends_a_daemon_whose_redis_is_frozen(store, tmp_path):
    path = rules_file(tmp_path, RULES.format(on_error="deny"))
    running = Daemon("--config", path, "--store", store.url, "--timeout", "30s")
    clients = Load(running, may_end=True)
    clients.await_verdicts(20)
    try:
        store.nodes[0].process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        begun = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - begun < 10 + START_S / 2, "it waits 10 s for what was asked"
        clients.end()
    finally:
        store.nodes[0].process.send_signal(signal.SIGCONT)
