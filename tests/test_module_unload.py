# SPDX-License-Identifier: MIT
"""Unloading the module steady.so. It is refused if the server could use a pointer to a freed command, and safe otherwise."""
import threading
import time

import pytest
from loaded import HOUR, OURS, Loaded, dump, error, info, load, until
from loaded import chroot, program, start  # noqa: F401: fixtures
from resp import Resp, wire_of

CONSUME = ["STEADY.CONSUME", "k", 9, HOUR]
UNLOAD = ["MODULE", "UNLOAD", "steady"]


def refused(server, why):
    seen = len(server.log.read_text())
    text = error(server(*UNLOAD))
    if "ACL users reference commands" not in text:  # Valkey 9.1 checks this itself
        assert "not possible" in text
        assert why in server.log.read_text()[seen:]
    assert server("STEADY.PEEK", "none", 3, HOUR)[:2] == [1, 0] and server("PING") == b"PONG"


def unloaded(server):
    """Unloads the module, reuses its memory, and calls each command of the server that shows commands."""
    assert server(*UNLOAD) == b"OK"
    server.client.socket.sendall(b"".join(wire_of(["SET", f"churn{n}", "x" * n]) for n in range(200, 900)))
    assert {server.client.reply() for _ in range(200, 900)} == {b"OK"}
    commands = [word[4:] for word in server("CLIENT", "LIST").decode().split() if word.startswith("cmd=")]
    assert commands and not [command for command in commands if command in OURS or "xx" in command], commands
    for words in (["ACL", "LIST"], ["ACL", "GETUSER", "default"], ["ACL", "LOG"], ["SLOWLOG", "GET", -1], ["LATENCY", "HISTOGRAM"],
                  ["COMMAND", "INFO", *OURS], ["COMMAND", "DOCS"], ["INFO", "EVERYTHING"], ["CLIENT", "INFO"]):
        server(*words)
    server("DEL", *(f"churn{n}" for n in range(200, 900)))
    for name in OURS:
        assert "unknown command" in error(server(name, "k", 3, HOUR, 5))
    return True


def loaded(server):
    return server("MODULE", "LOAD", server.path) == b"OK"


def test_unload_and_reload_keep_the_buckets(start):
    server = start()
    server("STEADY.CONSUME", "k", 3, HOUR)
    before = dump(server)
    assert unloaded(server) and dump(server) == before and info(server) == {}
    for _ in range(20):
        assert loaded(server)
        assert server("STEADY.PEEK", "k", 3, HOUR)[1] == 1 and info(server)["decisions"] == 1
        assert server(*UNLOAD) == b"OK"
    assert loaded(server) and server("STEADY.CONSUME", "k", 3, HOUR)[1] == 2


# ---- Rules ----


@pytest.mark.parametrize("rule", ["+steady.consume", "-STEADY.PEEK", "+cl.throttle|rl:a", "(~a* -@all +steady.reset)"])
def test_no_unloading_while_acl_rules_name_a_command(start, rule):
    """Servers from 7.2 on would abort at once, older ones at the next ACL LIST."""
    server = start()
    server("ACL", "SETUSER", "near", "on", "~+steady.peek", "+get", "+@all", "-set")
    assert unloaded(server) and loaded(server)
    assert server("ACL", "SETUSER", "app", "on", ">pw", "~rl:*", "allcommands" if rule[0] == "-" else "-@all", rule) == b"OK"
    refused(server, "not unloaded; remove these rules first")
    server("ACL", "DELUSER", "app")
    assert unloaded(server) and loaded(server)
    assert server("STEADY.CONSUME", "other", 3, HOUR)[0] == 1


# ---- Connections ----


def test_no_unloading_while_connections_have_called_it_last(start):
    server = start()
    others = [Resp(server.port) for _ in range(3)]
    for other in others:
        assert other(*CONSUME)[0] == 1
    refused(server, "has called the module last, so the server could crash: not unloaded")
    for other in others[1:]:
        assert other("PING") == b"PONG"
    refused(server, "has called the module last")
    assert others[0]("PING") == b"PONG"
    assert unloaded(server)
    for other in others:
        assert "unknown command" in error(other(*CONSUME)) and "unknown command" in error(other(*CONSUME))
    assert loaded(server) and server("STEADY.PEEK", "k", 9, HOUR)[1] == 3
    assert others[0](*CONSUME)[1] == 4
    for other in others:
        other.close()


LIBRARY = """#!lua name=l
redis.register_function('take', function(keys) return redis.call('STEADY.CONSUME', keys[1], 9, 3600000000) end)
redis.register_function('unload', function() return redis.call('MODULE', 'UNLOAD', 'steady') end)"""
SCRIPT = "return redis.call('STEADY.CONSUME', KEYS[1], ARGV[1], 3600000000)"
LAST = [[["GET", "k"]], [["NO.SUCH.COMMAND"]], [["GET"]], [["MULTI"], CONSUME, ["EXEC"]], [["MULTI"], CONSUME, ["DISCARD"]],
        [["MULTI"], CONSUME, ["NO.SUCH.COMMAND"], ["EXEC"]], [["WATCH", "k"]], [["MULTI"]], [["RESET"]], [["EVAL", SCRIPT, 1, "k", 9]],
        [["EVAL", SCRIPT, 1, "k", 0]], [["FCALL", "take", 1, "k"]], [["HELLO", 3]], [["MONITOR"]], [["SUBSCRIBE", "news"]]]


def test_unloading_is_safe_after_calls_of_other_commands(start):
    """After the unloading, each connection repeats its command and calls STEADY.CONSUME."""
    server = start()
    server("FUNCTION", "LOAD", LIBRARY)
    server("CONFIG", "SET", "slowlog-log-slower-than", 0)
    server("CONFIG", "SET", "latency-monitor-threshold", 1)
    others = [(last, Resp(server.port)) for last in LAST]
    for last, other in others:
        for words in [CONSUME, *last]:
            other(*words)
    assert unloaded(server)
    for last, other in others[:-2]:
        for words in [*last, CONSUME, CONSUME]:
            other(*words)
    assert server("CLIENT", "LIST").count(b"\n") == len(others) + 1 and server("SLOWLOG", "GET", -1) and loaded(server)
    for _, other in others:
        other.close()


def test_no_unloading_while_a_transaction_is_queued(start):
    """The queue may hold a command of the module. The server would crash at EXEC."""
    server = start()
    other = Resp(server.port)
    for words in (["MULTI"], CONSUME, ["PING"]):
        other(*words)
    refused(server, "is queuing a transaction, so the server could crash: not unloaded")
    assert other("EXEC") == [[1, 1, HOUR, 0, 0], b"PONG"]
    assert unloaded(server) and other("PING") == b"PONG"
    other.close()


def test_no_unloading_in_a_transaction(start):
    """Commands queued behind the unloading would still be called."""
    server = start()
    for then in [["SET", "z", "y" * 448], CONSUME], [["CLIENT", "LIST"]], []:
        for words in (["MULTI"], UNLOAD, *then):
            server(*words)
        replies = server("EXEC")
        assert "not possible" in error(replies[0]) and len(replies) == 1 + len(then)
    assert server(*CONSUME)[1] == 2 and unloaded(server)


def test_no_unloading_in_the_transaction_that_loads(start):
    """Nor later, while a rule added between the two names a command. The module cannot recognise its own transaction: time
    stands still in it, and the count of executed commands can be reset."""
    server = start(load=False)
    rule, reset = ["ACL", "SETUSER", "app", "on", "+steady.consume"], ["CONFIG", "RESETSTAT"]
    for words in (["MULTI"], reset, ["MODULE", "LOAD", server.path], rule, reset, UNLOAD, ["PING"]):
        server(*words)
    replies = server("EXEC")
    assert replies[1:3] == [b"OK", b"OK"] and replies[5] == b"PONG"
    assert "not possible" in error(replies[4]) or "ACL users reference commands" in error(replies[4])
    assert any(b"+steady.consume" in line for line in server("ACL", "LIST"))
    refused(server, "not unloaded; remove these rules first")
    for words in (["MULTI"], ["MODULE", "LOADEX", server.add("steady.so", "second.so"), "CONFIG", "steady.x", "1"], ["PING"]):
        server(*words)
    assert "rror loading" in error(server("EXEC")[0])  # the name is taken
    server("ACL", "DELUSER", "app")
    assert unloaded(server)


@pytest.mark.parametrize("options", [[], ["--rename-command", "ACL", "rules"]], ids=["plain", "ACL renamed"])
def test_a_load_undone_in_a_transaction_leaves_nothing(start, options):
    server = start(*options, load=False)
    for words in (["MULTI"], ["MODULE", "LOADEX", server.path, "CONFIG", "steady.x", "1"], ["COMMAND", "COUNT"]):
        server(*words)
    replies = server("EXEC")
    assert "rror loading" in error(replies[0]) and len(replies) == 2
    assert server("COMMAND", "INFO", "steady.consume") == [None] and loaded(server)


def test_no_unloading_in_a_script(start):
    """The server itself refuses."""
    server = start()
    server("FUNCTION", "LOAD", LIBRARY)
    assert "not allowed from script" in error(server("EVAL", "return redis.call('MODULE', 'UNLOAD', 'steady')", 0))
    assert "not allowed from script" in error(server("FCALL", "unload", 0))
    assert server(*CONSUME)[0] == 1


def test_no_unloading_while_a_call_is_paused(start):
    server = start()
    other = Resp(server.port)
    server("CLIENT", "PAUSE", 600000, "WRITE")
    other.socket.sendall(wire_of(CONSUME))
    until(lambda: b"blocked_clients:1" in server("INFO", "clients") or b" flags=b" in server("CLIENT", "LIST"))
    refused(server, "has called the module last")
    server("CLIENT", "UNPAUSE")
    assert other.reply() == [1, 1, HOUR, 0, 0]
    other.close()


def test_no_unloading_while_a_call_is_under_way(start):
    """A server that reads ahead has already looked the command up."""
    server = start()
    other, wire = Resp(server.port), wire_of(CONSUME)
    other.socket.sendall(wire[:-5])
    until(lambda: b" argv-mem=16 " in server("CLIENT", "LIST"))
    refused(server, "has a call under way")
    other.socket.sendall(wire[-5:])
    assert other.reply()[0] == 1
    other.socket.sendall(wire_of(["BLPOP", "list", 0]) + wire)
    until(lambda: b"cmd=blpop" in server("CLIENT", "LIST"))
    refused(server, "has a call under way")
    server("RPUSH", "list", 1)
    assert other.reply() == [b"list", b"1"] and other.reply()[1] == 2 and other("PING") == b"PONG"
    assert unloaded(server)
    other.close()


def test_unloading_works_after_ending_all_connections(start):
    """As in the manual: both commands are sent in one write, so no other client can call between them."""
    server = start()
    others = [Resp(server.port) for _ in range(3)]
    for other in others:
        assert other(*CONSUME)[0] == 1
    server.client.socket.sendall(wire_of(["CLIENT", "KILL", "TYPE", "normal"]) + wire_of(UNLOAD))
    assert [server.client.reply(), server.client.reply()] == [3, b"OK"]
    assert loaded(server) and unloaded(server) and loaded(server)
    assert server("STEADY.PEEK", "k", 9, HOUR)[1] == 3
    for other in others:
        other.close()


@pytest.mark.parametrize("name", ["CLIENT", "ACL"])
def test_no_unloading_if_connections_or_rules_cannot_be_listed(start, name):
    refused(start("--rename-command", name, ""), f"{name} LIST cannot be read")


def test_no_unloading_by_a_renamed_module_command(start):
    """With a renamed command, the module cannot tell whether the server has looked up a later call."""
    server = start("--rename-command", "MODULE", "mod")
    assert "not possible" in error(server("MOD", "UNLOAD", "steady"))
    assert "has a call under way" in server.log.read_text() and server(*CONSUME)[0] == 1


def test_replication_and_aof_survive_the_unloading(start):
    """A replica and its primary. The AOF is read by an internal connection."""
    primary = start("--appendonly", "yes")
    replica = start("--replicaof", f"127.0.0.1 {primary.port}")
    until(lambda: b"master_link_status:up" in replica("INFO", "replication"))
    load(primary, 300)
    assert primary("DEBUG", "LOADAOF") == b"OK" and primary("WAIT", 1, 5000) == 1
    before = dump(primary)
    assert replica("STEADY.PEEK", "k1", 1000, HOUR) and dump(replica) == before
    assert replica(*UNLOAD) == b"OK" and b" flags=M" in replica("CLIENT", "LIST")
    assert unloaded(primary) and dump(primary) == before and b" flags=S" in primary("CLIENT", "LIST")
    assert primary("DEBUG", "LOADAOF") == b"OK" and primary("WAIT", 1, 5000) == 1 and dump(replica) == before


@pytest.mark.sanitizers
def test_address_sanitizer_reports_nothing_for_refused_unloadings(program):
    """Each reason to refuse, with a module built with ASan and UBSan."""
    server = Loaded(program, sanitized=True)
    other = Resp(server.port)
    try:
        for first, why, after in ([CONSUME], "last", ["PING"]), ([["MULTI"], CONSUME], "transaction", ["EXEC"]):
            for words in first:
                other(*words)
            refused(server, why)
            other(*after)
        server("ACL", "SETUSER", "app", "on", "+steady.consume|x", "(~a -@all -steady.peek)")
        refused(server, "remove these rules first")
        assert server("ACL", "DELUSER", "app") == 1 and other("CLIENT", "SETNAME", "multi=1") == b"OK"
        other("PING")
        assert unloaded(server) and loaded(server) and server.reports() == []
    finally:
        other.close()
        server.stop()


# ---- Load ----

THREADS = {"redis-server": ["--io-threads", "3"], "valkey-server": ["--io-threads", "3", "--events-per-io-thread", "0"]}


def test_calls_that_io_threads_have_looked_up_survive_an_unloading(program):
    """IO threads read calls of the module while the server sleeps. An unloading comes among them or before them."""
    server = Loaded(program, *THREADS[program[-1]])
    try:
        for ahead in [wire_of(UNLOAD), b""] * 10:
            sleeper, admin, *others = clients = [Resp(server.port) for _ in range(14)]
            for client in clients:
                client("PING")
            sleeper.socket.sendall(wire_of(["DEBUG", "SLEEP", "0.03"]) + ahead)
            time.sleep(0.01)
            for client, words in [*((other, CONSUME) for other in others[:6]), (admin, ["PING"] if ahead else UNLOAD),
                                  *((other, CONSUME) for other in others[6:])]:
                client.socket.sendall(wire_of(words))
            assert sleeper.reply() == b"OK"
            reply = (sleeper if ahead else admin).reply()
            for other in others:
                assert other.reply() != b""
            for client in clients:
                client.close()
            assert loaded(server) if reply == b"OK" else "not possible" in error(reply)
    finally:
        server.stop()


def call_and_go(port, going):
    """Opens connections that call the module first, and closes them."""
    while going.is_set():
        try:
            client = Resp(port)
            client.socket.sendall(wire_of(CONSUME) * 5)
            for _ in range(5):
                client.reply()
            client.close()
        except (OSError, ValueError):  # the server closed the connection
            pass


@pytest.mark.parametrize("threads", [False, True], ids=["one thread", "IO threads"])
def test_unloading_under_load_is_refused_or_done_without_a_crash(program, threads):
    """As in the manual, repeat the unloading until it succeeds. It is refused or succeeds, and the server never crashes."""
    server, going, done = Loaded(program, *(THREADS[program[-1]] if threads else [])), threading.Event(), 0
    going.set()
    callers = [threading.Thread(target=call_and_go, args=(server.port, going)) for _ in range(8)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(60):
            server.client.socket.sendall(wire_of(["CLIENT", "KILL", "TYPE", "normal"]) + wire_of(UNLOAD))
            assert server.client.reply() >= 0
            if server.client.reply() == b"OK":
                done += 1
                assert server("CLIENT", "LIST") and loaded(server)
            time.sleep(0.005)
        assert done > 0 and info(server)["decisions"] >= 0 and server("PING") == b"PONG"
    finally:
        going.clear()
        for caller in callers:
            caller.join()
        server.stop()
