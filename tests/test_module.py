# SPDX-License-Identifier: MIT
"""The commands of the module steady.so, in real servers."""
import json
import random
import struct
import time

import pytest
from conftest import ROOT
from loaded import COUNTED, FOREIGN, HOUR, OURS, dump, error, flat, flat_info, info, load, replication_offset, restored, script, until
from loaded import chroot, program, server, shared, start  # noqa: F401: fixtures
from resp import ReplyError, Resp

# ---- The commands ----


def test_consume_peek_and_reset_return_each_field(server):
    assert server("STEADY.CONSUME", "k", 3, HOUR) == [1, 1, HOUR, 0, 0]
    success, level, until_next, blocked, retry = server("steady.consume", "k", 3, HOUR, "amount", 3)
    assert (success, level, blocked) == (0, 1, 0) and 0 < HOUR - until_next < 5 * 10**6 and retry == until_next
    assert server("STEADY.PEEK", "k", 3, HOUR)[:2] == [1, 1]
    success, level, _, blocked, retry = server("STEADY.CONSUME", "k", 3, HOUR, "AMOUNT", 3, "BLOCK", 2 * HOUR)
    assert (success, level, blocked, retry) == (0, 1, 2 * HOUR, 2 * HOUR)
    assert server("STEADY.CONSUME", "k", 3, HOUR, "AMOUNT", 4)[4] == -1
    assert server("STEADY.CONSUME", "k", 3, HOUR, "AMOUNT", -1)[:2] == [1, 0]  # a blocked bucket drains
    assert server("STEADY.RESET", "k") == 1 and server("STEADY.RESET", "k") == 0
    assert server("EXISTS", "k") == 0
    assert server("STEADY.CONSUME", "rate", 3, 10**6, "DROPS", 3)[2] == 333334


def test_the_stored_text_and_expiry_match_the_scripts(server):
    server("STEADY.CONSUME", "k", 12, HOUR, "AMOUNT", 9)
    level, last, blocked = server("GET", "k").split()
    assert (level, blocked) == (b"9", b"0") and len(last.split(b".")[1]) == 6
    us = int(last.replace(b".", b""))
    assert server("PEXPIRETIME", "k") == us // 1000 + 9 * HOUR // 1000
    server("STEADY.CONSUME", "k", 12, HOUR)  # one byte longer
    assert server("GET", "k") == b"10 " + last + b" 0"
    assert server("PEXPIRETIME", "k") - (us // 1000 + 10 * HOUR // 1000) in (0, 1)
    server("STEADY.CONSUME", "k", 12, HOUR, "AMOUNT", -2)
    assert server("GET", "k") == b"8 " + last + b" 0"


@pytest.mark.parametrize("arguments, text", [
    (("k", 0, 5), "max_capacity is 0; it must be 1 .. 2147483647"),
    (("k", 2**31, 5), "max_capacity is 2147483648"),
    (("k", "x\r\n\x00", 5), 'max_capacity is "x???"; it must be an integer, 1 .. 2147483647'),
    (("k", "1.0", 5), 'max_capacity is "1.0"; it must be an integer, 1 .. 2147483647'),
    (("k", "010", 5), 'max_capacity is "010"; it must be an integer, 1 .. 2147483647'),
    (("k", "", 5), 'max_capacity is ""; it must be an integer'),
    (("k", "1000000000", "+1000000"), 'drop_recharge is "+1000000"; it must be an integer'),
    (("k", "1000000000", "1000000\x00"), 'drop_recharge is "1000000?"; it must be an integer'),
    (("k", "1000000000", "10000000000000000"), "drop_recharge is 10000000000000000; it must be 1 .. 9007199254740991"),
    (("redis://u:SECRET@h", "redis://u:SECRET@h", 5), 'max_capacity is "redis://***@h"; it must be an integer'),
    (("k", "x" * 300, 5), 'max_capacity is "..."; it must be an integer'),
    (("k", 3, 0), "drop_recharge is 0"),
    (("k", 3, 2**53), "drop_recharge is 9007199254740992"),
    (("k", 2**31 - 1, 2**40), "below 9007199254740992 us"),
    (("k", 3, 5, "DROPS", 0), "drops is 0; it must be 1 .. 1000000"),
    (("k", 3, 5, "BLOCK", -1), "block_duration is -1"),
    (("k", 3, 5, "BLOCK", 2**52), "block_duration is 4503599627370496"),
    (("k", 3, 5, "AMOUNT", 2**31), "amount is 2147483648; it must be -2147483647 .. 2147483647"),
    (("k", 3, 5, "AMOUNT", 2**70), 'amount is "1180591620717411303424"; it must be an integer, -2147483647 .. 2147483647'),
    (("k", 3, 5, "AMOUNT"), "syntax error: AMOUNT lacks its value; it must be -2147483647 .. 2147483647"),
    (("k", 3, 5, "AMOUNT", 1, "amount", 1), "AMOUNT is given twice"),
    (("k", 3, 5, "AMOUNTS", 1), 'syntax error: "AMOUNTS" is not one of DROPS, BLOCK, AMOUNT, WAIT, ATLEAST'),
    (("k", 3, 5, "DROPS", 1, "x\r\n\x00", 1), 'syntax error: "x???" is not one of DROPS,'),
    (("k", 3, 5, "x" * 300, 1), 'syntax error: "..." is not one of DROPS,'),
    (("k", 3, 5, "PART", 1), 'syntax error: "PART" is not one of DROPS,'),
    (("k", 3), "wrong number of arguments"),
    ((), "wrong number of arguments"),
])
def test_wrong_arguments_are_named_and_store_nothing(server, arguments, text):
    assert text in error(server("STEADY.CONSUME", *arguments))
    assert server("DBSIZE") == 0


def test_peek_rejects_the_options_of_consume(server):
    for option in ("AMOUNT", "BLOCK", "WAIT", "ATLEAST"):
        assert error(server("STEADY.PEEK", "k", 3, 5, option, 1)) == f'ERR syntax error: "{option}" is not one of DROPS'


def test_a_foreign_value_is_not_a_bucket_and_stays(server):
    server("HSET", "hash", "a", 1)
    before = info(server)["not_a_bucket"]
    for i, value in enumerate(FOREIGN):
        server("SET", f"f{i}", value, "PXAT", 4102444800000)
    for key in ["hash", *(f"f{i}" for i in range(len(FOREIGN)))]:
        for command in (["STEADY.CONSUME", key, 3, 5], ["STEADY.PEEK", key, 3, 5], ["STEADY.RESET", key],
                        ["CL.THROTTLE", key, 1, 1, 1]):
            assert error(server(*command)) == "NOTABUCKET the key holds something else", key
    for i, value in enumerate(FOREIGN):
        assert server("GET", f"f{i}") == value and server("PEXPIRETIME", f"f{i}") == 4102444800000
    assert server("HGETALL", "hash") == [b"a", b"1"]
    assert info(server)["not_a_bucket"] - before == 4 * (len(FOREIGN) + 1)


def test_buckets_are_shared_with_the_scripts(server):
    """Nothing leaks within an hour, so the level is the sum of both engines. Both agree whether a value is a bucket."""
    sha = server("SCRIPT", "LOAD", script("consume"))
    rng, level = random.Random(4), 0
    for _ in range(400):
        amount = rng.choice([1, 2, 3, -1, -4])
        if rng.random() < 0.5:
            success = server("STEADY.CONSUME", "k", 20, HOUR, "AMOUNT", amount)[0] == 1
        else:
            reply = server("EVALSHA", sha, 1, "k", struct.pack("<idi", 20, HOUR, amount))
            success = (reply[0] & 1 if isinstance(reply, list) else reply >= 0) != 0
        assert success == (level + amount <= 20)
        level = max(0, level + amount) if success else level
        assert server("STEADY.PEEK", "k", 20, HOUR)[1] == level


def test_module_and_scripts_accept_the_same_texts_as_buckets(server):
    """Both give the same result: at 7,000 seconds for a drop, none leaks between the two calls."""
    sha = server("SCRIPT", "LOAD", script("consume"))
    accepted = [b"003 1764000000.250000 0", b"3 1764000000.250000 0.000000", b"3 1764000000.250000 0 5",
                b"3 1764000000.250000 0 " + b"9" * 400, b"3 00001764000000.250000 1764000001.000000 7"]
    rng, taken = random.Random(5), 0
    for value in accepted + FOREIGN + [mutated(rng, rng.choice(accepted)) for _ in range(1000)]:
        server("MSET", "a", value, "b", value)
        by_script, by_module = server("EVALSHA", sha, 1, "a", struct.pack("<idi", 20, 7 * 10**9, 1)), server("STEADY.CONSUME", "b", 20, 7 * 10**9)
        refused = isinstance(by_script, ReplyError)
        assert refused == isinstance(by_module, ReplyError), value
        assert refused if value in FOREIGN else not refused if value in accepted else True, value
        if refused:
            assert server("MGET", "a", "b") == [value, value]
            continue
        ours, theirs = server("GET", "b").split(b" "), server("GET", "a").split(b" ")
        assert ours[0] == theirs[0] and len(ours) == len(theirs), value
        assert abs(server("PEXPIRETIME", "a") - server("PEXPIRETIME", "b")) < 1000
        taken += 1
    assert 100 < taken < 900


def mutated(rng, text):
    """The text with a few bytes added, removed or changed."""
    for _ in range(rng.randrange(1, 3)):
        at, new = rng.randrange(len(text) + 1), rng.choice([b"", b"0", b"1", b"9", b" ", b".", b"-", b"\0", b"99999999"])
        text = text[:at] + new + text[at + rng.randrange(2):]
    return text


def test_info_counts_each_outcome(start):
    server = start()
    server("STEADY.CONSUME", "k", 1, HOUR)
    server("STEADY.CONSUME", "k", 1, HOUR)
    server("STEADY.CONSUME", "k", 1, HOUR, "BLOCK", HOUR)
    server("STEADY.PEEK", "k", 1, HOUR)
    server("SET", "ahead", "1 4000000000.000000 0")
    server("CL.THROTTLE", "ahead", 3, 1, 60)
    assert info(server) == {"decisions": 5, "allowed": 2, "denied": 3, "blocked": 2, "not_a_bucket": 0, "clock_steps": 1}


# ---- CL.THROTTLE ----


def test_throttle_replies_as_redis_cell_does(server):
    assert server("CL.THROTTLE", "u", 15, 30, 60) == [0, 16, 15, -1, 2]
    assert server("CL.THROTTLE", "u", 15, 30, 60, 15) == [0, 16, 0, -1, 32]
    limited, limit, remaining, retry, reset = server("CL.THROTTLE", "u", 15, 30, 60, 1)
    assert (limited, limit, remaining) == (1, 16, 0) and retry == 2 and reset == 32
    assert server("CL.THROTTLE", "u", 15, 30, 60, 0)[:2] == [0, 16]
    assert server("CL.THROTTLE", "u", 15, 30, 60, 17) == [1, 16, 0, -1, 32]
    assert server("CL.THROTTLE", "u", 15, 30, 60, -1)[:3] == [0, 16, 1]
    assert server("STEADY.PEEK", "u", 16, 2 * 10**6)[1] == 15  # the same bucket
    assert server("CL.THROTTLE", "day", 999999, 10**6, 86400) == [0, 10**6, 999999, -1, 1]
    assert server("CL.THROTTLE", "fast", 5, 6000, 1) == [0, 6, 5, -1, 1]


def test_waiting_for_the_retry_of_throttle_is_enough(server):
    server("CL.THROTTLE", "w", 0, 3, 2)
    limited, _, _, retry, _ = server("CL.THROTTLE", "w", 0, 3, 2)
    assert (limited, retry) == (1, 1)
    time.sleep(retry)
    assert server("CL.THROTTLE", "w", 0, 3, 2)[0] == 0


@pytest.mark.parametrize("arguments, text", [
    ((-1, 1, 1), "max_burst is -1; it must be 0 .. 2147483646"),
    ((2**31 - 1, 1, 1), "max_burst is 2147483647; it must be 0 .. 2147483646"),
    ((1, 0, 1), "count is 0; it must be 1 .. 2147483647"),
    ((1, -1, 1), "count is -1; it must be 1 .. 2147483647"),
    ((1, 2**31, 1), "count is 2147483648; it must be 1 .. 2147483647"),
    ((0, 2000003, 1), "count is 2000003; in lowest terms with the period in us it is 2000003, and must be 1 .. 1000000"),
    ((0, 4000006, 5), "count is 4000006; in lowest terms with the period in us it is 2000003, and must be 1 .. 1000000"),
    ((1, 1, 0), "period is 0; it must be 1 .. 9007199254"),
    ((1, 1, 9007199255), "period is 9007199255; it must be 1 .. 9007199254"),
    ((1, 1, 2**60), "period is 1152921504606846976; it must be 1 .. 9007199254"),
    ((2**30, 1, 2**30), "max_burst is 1073741824; with a count of 1 and a period of 1073741824 it must be 0 .. 7"),
    ((8, 1, 2**30), "max_burst is 8; with a count of 1 and a period of 1073741824 it must be 0 .. 7"),
    ((1, 1, 1, 2**40), "quantity is 1099511627776; it must be -2147483647 .. 2147483647"),
    (("a", 1, 1), 'max_burst is "a"; it must be an integer, 0 .. 2147483646'),
    ((1, "b", 1), 'count is "b"; it must be an integer, 1 .. 2147483647'),
    ((1, 1, "c"), 'period is "c"; it must be an integer, 1 .. 9007199254'),
    ((1, 1, 1, "d"), 'quantity is "d"; it must be an integer, -2147483647 .. 2147483647'),
    ((1, 1), "wrong number of arguments for 'cl.throttle' command"),
    ((1, 1, 1, 1, 1), "wrong number of arguments for 'cl.throttle' command"),
])
def test_throttle_rejects_values_out_of_range(server, arguments, text):
    assert error(server("CL.THROTTLE", "k", *arguments)) == f"ERR {text}"
    assert server("DBSIZE") == 0


@pytest.mark.parametrize("arguments", [(2**31 - 2, 1, 1), (0, 2000000, 1), (0, 10**6, 3), (0, 2**31 - 1, 2**31 - 1),
                                       (0, 1, 9007199254), (7, 1, 2**30), (1, 1, 1, 2**31 - 1), (1, 1, 1, -2**31 + 1)])
def test_throttle_accepts_the_limits_of_each_range(server, arguments):
    assert server("CL.THROTTLE", "k", *arguments)[1] == arguments[0] + 1


# ---- Command information, ACL ----


def test_command_info_has_flags_keys_and_documentation(server):
    found = {reply[0].decode(): reply for reply in server("COMMAND", "INFO", *OURS)}
    assert {name: reply[1] for name, reply in found.items()} == dict(zip(OURS, [-4, -4, -2, -6, -6, -12, -5]))
    flags = {name: set(reply[2]) for name, reply in found.items()}
    assert flags["steady.consume"] == flags["cl.throttle"] == {b"write", b"denyoom", b"module", b"fast"}
    assert flags["steady.consumeall"] == flags["steady.settle"] == flags["steady.consume"] | {b"movablekeys"}
    assert flags["steady.peek"] == {b"readonly", b"module", b"fast"}
    assert flags["steady.peekall"] == flags["steady.peek"] | {b"movablekeys"}
    assert flags["steady.reset"] == {b"write", b"module", b"fast"}
    for name, reply in found.items():
        assert reply[3:6] == ([0, 0, 0] if name in COUNTED else [1, -1 if name == "steady.reset" else 1, 1])
    for name in OURS:
        docs = flat(flat(server("COMMAND", "DOCS", name))[name.encode()])
        assert docs[b"summary"].endswith(b".") or b"redis-cell" in docs[b"summary"]
        assert flat(docs[b"arguments"][name in COUNTED])[b"name"] == b"key"
        if name not in COUNTED:
            assert server("COMMAND", "GETKEYS", name, "key", 1, 1, 1)[:1] == [b"key"]
    specs = {name: set(flat(reply[8][0])[b"flags"]) for name, reply in found.items()}
    assert specs["steady.peek"] == {b"RO", b"access"} and specs["steady.consume"] == {b"RW", b"access", b"update"}


def test_acl_rules_apply_to_commands_and_keys(server):
    server("ACL", "SETUSER", "limiter", "on", ">pw", "resetkeys", "~rl:*", "+steady.consume")
    client = Resp(server.port)
    client("AUTH", "limiter", "pw")
    assert client("STEADY.CONSUME", "rl:a", 3, HOUR)[0] == 1
    assert error(client("STEADY.CONSUME", "other", 3, HOUR)).startswith("NOPERM")
    assert error(client("STEADY.PEEK", "rl:a", 3, HOUR)).startswith("NOPERM")
    assert error(client("GET", "rl:a")).startswith("NOPERM")
    server("ACL", "SETUSER", "reader", "on", ">pw", "resetkeys", "%R~*", "+steady.peek", "+steady.consume", "+steady.reset")
    client("AUTH", "reader", "pw")
    assert client("STEADY.PEEK", "rl:a", 3, HOUR)[1] == 1
    assert error(client("STEADY.CONSUME", "rl:a", 3, HOUR)).startswith("NOPERM")
    assert error(client("STEADY.RESET", "rl:a")).startswith("NOPERM")
    client.close()
    if server("COMMAND", "INFO", "steady.peek")[0][6]:  # Redis 7.0 has no categories for commands of modules
        assert set(server("COMMAND", "INFO", "steady.peek")[0][6]) >= {b"@read", b"@fast", b"@string"}
        assert b"steady.consume" in server("ACL", "CAT", "write")


def test_writes_are_refused_with_full_memory_and_in_read_only_scripts(server, start):
    server("STEADY.CONSUME", "k", 3, HOUR)
    server("CONFIG", "SET", "maxmemory", 1)
    try:
        assert error(server("STEADY.CONSUME", "k", 3, HOUR)).startswith("OOM")
        assert error(server("CL.THROTTLE", "k", 3, 1, 1)).startswith("OOM")
        assert server("STEADY.PEEK", "k", 3, HOUR)[1] == 1
        assert server("STEADY.RESET", "k") == 1
    finally:
        server("CONFIG", "SET", "maxmemory", 0)
    assert "rite commands are not allowed" in error(server("EVAL_RO", "return redis.call('STEADY.CONSUME', KEYS[1], 3, 5)", 1, "k"))
    assert server("EVAL_RO", "return redis.call('STEADY.PEEK', KEYS[1], 3, 5)", 1, "k") == [1, 0, 5, 0, 0]


# ---- Transactions, scripts, notifications ----


def test_time_stands_still_in_a_transaction_and_a_script(server):
    server("MULTI")
    server("STEADY.CONSUME", "m", 9, HOUR)
    server("DEBUG", "SLEEP", "0.02")
    server("STEADY.PEEK", "m", 9, HOUR)
    replies = server("EXEC")
    assert replies[0] == [1, 1, HOUR, 0, 0] and replies[2] == [1, 1, HOUR, 0, 0]
    body = "redis.call('STEADY.CONSUME', KEYS[1], 9, 3600000000) for i = 1, 3000000 do end " \
           "return redis.call('STEADY.PEEK', KEYS[1], 9, 3600000000)"
    assert server("EVAL", body, 1, "l") == [1, 1, HOUR, 0, 0]
    assert abs(int(server("GET", "l").split()[1].replace(b".", b"")) - time.time_ns() // 1000) < 10**6


def test_watch_reports_changes_only(server):
    server("STEADY.CONSUME", "k", 1, HOUR)
    other = Resp(server.port)
    for command, changes in ((["STEADY.CONSUME", "k", 1, HOUR], False), (["STEADY.PEEK", "k", 1, HOUR], False),
                             (["STEADY.CONSUME", "k", 1, HOUR, "AMOUNT", 0], False),
                             (["STEADY.CONSUME", "k", 2, HOUR], True), (["STEADY.RESET", "k"], True)):
        server("WATCH", "k")
        other(*command)
        server("MULTI")
        server("PING")
        assert (server("EXEC") is None) == changes, command
    other.close()


def test_keyspace_notifications_are_those_of_set(server):
    server("CONFIG", "SET", "notify-keyspace-events", "KEA")
    listener = Resp(server.port)
    listener("PSUBSCRIBE", "__keyspace@0__:*")
    server("STEADY.CONSUME", "a", 2, HOUR)
    server("STEADY.CONSUME", "a", 2, HOUR, "AMOUNT", 2)  # denied: no notification
    server("STEADY.PEEK", "a", 2, HOUR)
    server("STEADY.CONSUME", "a", 2, HOUR, "AMOUNT", -1)
    server("SET", "b", "x", "PX", 10000)
    events = [listener.reply()[2:] for _ in range(5)]
    names = [(channel.split(b":", 1)[1], event) for channel, event in events]
    assert names == [(b"a", b"set"), (b"a", b"expire"), (b"a", b"del"), (b"b", b"set"), (b"b", b"expire")]
    listener.close()
    server("CONFIG", "SET", "notify-keyspace-events", "")


# ---- Replication, AOF, RDB ----


def test_a_replica_gets_effects_and_answers_peeks(start):
    primary = start()
    replica = start("--replicaof", f"127.0.0.1 {primary.port}",)
    until(lambda: b"master_link_status:up" in replica("INFO", "replication"))
    load(primary, 1500)
    primary("MULTI")
    primary("STEADY.CONSUME", "m", 5, HOUR)
    primary("STEADY.CONSUME", "n", 5, HOUR)
    primary("EXEC")
    assert primary("WAIT", 1, 5000) == 1
    assert dump(replica) == dump(primary) and len(dump(primary)) > 20
    stats = flat_info(replica, "commandstats")
    assert not [name for name in stats if "steady" in name or "throttle" in name]  # the replica gets effects, never the command
    key = next(iter(dump(primary)))
    assert error(replica("STEADY.CONSUME", "k1", 5, HOUR)).startswith("READONLY")
    assert error(replica("STEADY.RESET", "k1")).startswith("READONLY")
    assert replica("STEADY.PEEK", key, 1000, HOUR)[1] == primary("STEADY.PEEK", key, 1000, HOUR)[1]
    offset = replication_offset(primary)
    primary("STEADY.PEEK", "m", 5, HOUR)
    primary("STEADY.CONSUME", "m", 5, HOUR, "AMOUNT", 50)
    primary("STEADY.CONSUME", "m", 5, HOUR, "AMOUNT", 0)
    primary("STEADY.RESET", "none")
    assert replication_offset(primary) == offset


def test_aof_and_rdb_written_under_load_restore_each_key(start):
    assert len(restored(start, load, 2500)) > 20


# ---- The vectors ----

SHIFT = 4 * 10**14  # us, whole seconds: moves the time of each vector into the future


def shifted(stored):
    """The stored text as [level, last, rem, blocked_until], in the time of the vectors."""
    def us(text):
        return int(text.replace(b".", b"")) - SHIFT if text != b"0" else 0
    if stored is None:
        return None
    level, last, blocked, *rem = stored.split()
    return [int(level), us(last), int(rem[0]) if rem else 0, us(blocked)]


def test_the_module_agrees_with_the_vectors(start):
    server = start(module="steady_test.so")
    steps = 0
    for line in (ROOT / "tests/vectors/bucket.jsonl").read_text().splitlines():
        server("FLUSHALL")
        for step in json.loads(line)["steps"]:
            now, drops, amount = step["now"] + SHIFT, step.get("drops", 1), step.get("amount", 1)
            gone_at = server("PEXPIRETIME", "k")
            if 0 < gone_at < now // 1000:
                server("DEL", "k")  # expired by the time of the vectors
            server("STEADY.CLOCK", now)
            limit = ["k", step["capacity"], step["recharge"], "DROPS", drops]
            if step["op"] == "peek":
                reply = server("STEADY.PEEK", *limit)
            else:
                reply = server("STEADY.CONSUME", *limit, "BLOCK", step.get("block", 0), "AMOUNT", amount)
            assert reply == [int(value) for value in step["expect"].values()], (line, step)
            if step["stored"] is not None:  # an expired value may still be stored
                assert shifted(server("GET", "k")) == step["stored"], (line, step)
            steps += 1
    assert steps > 6000
