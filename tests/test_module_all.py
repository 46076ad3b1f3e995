# SPDX-License-Identifier: MIT
"""The commands of the module steady.so on several keys, and WAIT and ATLEAST, in real servers."""
import itertools
import json
import math
import random
import struct

import pytest
from conftest import ROOT
from loaded import COUNTED, FOREIGN, HOUR, Loaded, dump, error, flat, flat_info, info, replication_offset, restored, script, until
from loaded import chroot, program, server, shared, start  # noqa: F401: fixtures
from resp import ReplyError, Resp, free_port, wire_of

EACH = 6  # integers of a part in a reply
KINDS = ["take", "look", "charge", "shadow"]
YEAR = 365 * 24 * HOUR


def part(capacity, recharge, drops=1, block=0, amount=1, kind="take"):
    """The arguments of a part, without the options that have their default."""
    options = [("DROPS", drops, 1), ("BLOCK", block, 0), ("AMOUNT", amount, 1), ("KIND", kind, "take")]
    given = [word for name, value, default in options if value != default for word in (name, value)]
    return ["PART", capacity, recharge, *given]


def every(keys, parts, how=()):
    return [len(keys), *keys, *how, *(word for words in parts for word in words)]


def verdict(reply):
    """(success, part, wait, retry_after) and the fields of each part, without the time."""
    return reply[:4], [reply[i:i + EACH] for i in range(5, len(reply), EACH)]


# ---- The commands ----


def test_all_limits_are_charged_or_none(server):
    limits = [part(2, HOUR), part(5, 2 * HOUR)]
    head, each = verdict(server("STEADY.CONSUMEALL", *every("ab", limits)))
    assert head == [1, 0, 0, 0] and each == [[1, 1, 1, HOUR, 0, 0], [1, 1, 1, 2 * HOUR, 0, 0]]
    assert server("STEADY.CONSUMEALL", *every("ab", limits))[0] == 1
    before = dump(server)
    head, each = verdict(server("STEADY.CONSUMEALL", *every("ab", limits)))
    assert head[:3] == [0, 0, 0] and 0 < HOUR - head[3] < 5 * 10**6
    assert [fields[:3] for fields in each] == [[0, 0, 2], [1, 0, 2]] and each[0][5] == head[3] and each[1][5] == 0
    assert dump(server) == before and len(before) == 2


def test_the_reply_has_the_time_of_the_server(server):
    server("MULTI")
    server("STEADY.CONSUMEALL", *every("ab", [part(9, HOUR), part(9, HOUR)]))
    server("STEADY.PEEKALL", *every("ab", [part(9, HOUR), part(9, HOUR)]))
    consumed, peeked = server("EXEC")
    seconds, us = map(int, server("TIME"))
    assert consumed[4] == peeked[4] and 0 <= seconds * 10**6 + us - consumed[4] < 10**6
    assert {server("GET", key).split()[1].replace(b".", b"") for key in "ab"} == {str(consumed[4]).encode()}


def test_each_kind_does_what_its_name_says(server):
    for key in "tlcs":
        server("STEADY.CONSUME", key, 3, HOUR, "AMOUNT", 2)
    kinds = [part(3, HOUR), part(3, HOUR, kind="look"), part(3, HOUR, amount=5, kind="charge"), part(3, HOUR, amount=5, kind="shadow")]
    head, each = verdict(server("STEADY.CONSUMEALL", *every("tlcs", kinds)))
    assert head[0] == 1 and [fields[:3] for fields in each] == [[1, 1, 3], [1, 0, 2], [1, 5, 7], [0, 0, 2]]
    for key, level in zip("tlcs", (3, 2, 7, 2)):
        assert server("GET", key).split()[0] == b"%d" % level
    head, _ = verdict(server("STEADY.CONSUMEALL", *every("tc", [part(3, HOUR), part(9, HOUR, kind="CHARGE")])))
    assert head[0] == 0 and server("GET", "c").split()[0] == b"7"


def test_parts_that_deny_start_their_blocks(server):
    parts = [part(1, HOUR, block=7 * HOUR, amount=0), part(1, HOUR, block=5 * HOUR), part(9, HOUR, block=6 * HOUR, kind="shadow", amount=9)]
    server("STEADY.CONSUME", "b", 1, HOUR)
    server("STEADY.CONSUME", "s", 9, HOUR)
    peeked = server("STEADY.PEEKALL", *every("abs", parts))
    assert peeked[0] == 0 and [fields[4] for fields in verdict(peeked)[1]] == [0, 0, 0]
    assert server("GET", "b").endswith(b" 0")
    head, each = verdict(server("STEADY.CONSUMEALL", *every("abs", parts)))
    assert head == [0, 1, 0, 5 * HOUR] and [fields[4] for fields in each] == [0, 5 * HOUR, 6 * HOUR]
    assert info(server)["blocked"] > 0 and server("EXISTS", "a") == 0


def test_wait_takes_a_place_in_line_and_at_least_a_part(server):
    waits = [server("STEADY.CONSUME", "w", 1, HOUR, "WAIT", 2 * HOUR)[5:] for _ in range(4)]
    assert [granted for _, granted in waits] == [1, 1, 1, 0] and waits[0][0] == waits[3][0] == 0
    assert [round(wait / HOUR, 2) for wait, _ in waits[1:3]] == [1, 2] and server("STEADY.PEEK", "w", 1, HOUR)[1] == 3
    assert server("STEADY.CONSUME", "p", 5, HOUR, "AMOUNT", 9, "atleast", 2) == [1, 5, HOUR, 0, 0, 0, 5]
    reply = server("STEADY.CONSUME", "p", 5, HOUR, "ATLEAST", 2, "AMOUNT", 9)
    assert reply[:2] == [0, 5] and reply[5:] == [0, 0] and 0 < 2 * HOUR - reply[4] < 5 * 10**6
    assert server("STEADY.CONSUME", "n", 5, HOUR, "WAIT", 0) == [1, 1, HOUR, 0, 0, 0, 1]
    head, each = verdict(server("STEADY.CONSUMEALL", *every("xy", [part(4, HOUR, amount=9), part(7, HOUR, amount=9)], ["ATLEAST", 2, "WAIT", 1])))
    assert head == [1, 0, 0, 0] and [fields[:3] for fields in each] == [[1, 4, 4], [1, 4, 4]]


def settlement(capacity, recharge, reserved, moment, actual, *more):
    return ["PART", capacity, recharge, "RESERVED", reserved, "MOMENT", moment, "ACTUAL", actual, *more]


def test_settle_gives_back_or_charges(server):
    reply = server("STEADY.CONSUMEALL", *every("abc", [part(9, YEAR, amount=4)] * 3))
    now, parts = reply[4], [settlement(9, YEAR, 4, reply[4], 1), settlement(9, YEAR, 4, reply[4], 6, "DROPS", 1),
                            settlement(9, YEAR, 4, reply[4], 0, "OTHERRATE")]
    settled = server("STEADY.SETTLE", *every("abc", parts))
    assert now <= settled[0] < now + 10**6
    (low, _, _, back, none), (high, _, _, zero, charged), other = (settled[i:i + 5] for i in (1, 6, 11))
    assert (low, none, high, zero, charged) == (1, 0, 6, 0, 2) and back == 3 * YEAR
    assert other[0] == 4 and other[3:] == [0, 0]
    assert [server("GET", key).split()[0] for key in "abc"] == [b"1", b"6", b"4"]
    settled = server("STEADY.SETTLE", *every("b", [settlement(9, YEAR, 6, now, 0)]))
    assert settled[1] in (0, 1)
    assert server("STEADY.SETTLE", *every(["none"], [settlement(9, YEAR, 6, now, 0)]))[1:] == [0, YEAR, 0, 0, 0]
    assert server("STEADY.SETTLE", *every(["none"], [settlement(9, 5, 6, now, 2**63 - 1)]))[5] == 2**31 - 1 - 6


def test_reset_deletes_all_keys_or_none(server):
    for key in "abc":
        server("STEADY.CONSUME", key, 3, HOUR)
    assert server("STEADY.RESET", "a", "none", "b") == 2 and server("KEYS", "*") == [b"c"]
    server("SET", "foreign", "x")
    assert error(server("STEADY.RESET", "c", "foreign")).startswith("NOTABUCKET") and server("EXISTS", "c") == 1
    assert error(server("STEADY.RESET", "c", "d", "c")) == "ERR keys 0 and 2 have the same key"
    assert error(server("STEADY.RESET", *range(65))) == "ERR 65 keys; there must be 1 .. 64"
    assert server("STEADY.RESET", "c", *range(63)) == 1


def test_sixty_four_keys_are_one_decision(server):
    keys, parts = [f"k{i}" for i in range(64)], [part(100 + i, HOUR, amount=i) for i in range(64)]
    head, each = verdict(server("STEADY.CONSUMEALL", *every(keys, parts)))
    assert head == [1, 63, 0, 0] and [fields[1:3] for fields in each] == [[i, i] for i in range(64)]
    assert server("DBSIZE") == 63  # amount 0 stores nothing
    assert verdict(server("STEADY.PEEKALL", *every(keys, parts)))[0] == [1, 63, 0, 0]


def test_keys_that_end_alike_are_different_keys(server):
    keys = ["user:1:requests", "user:2:requests", "a\0", "a", "", "\0", "requests"]
    assert server("STEADY.CONSUMEALL", *every(keys, [part(3, HOUR)] * len(keys)))[0] == 1
    assert server("DBSIZE") == server("STEADY.RESET", *keys) == len(keys)


# ---- Wrong arguments ----

ONE, TWO, SIX = part(3, 5), [*part(3, 5), *part(3, 5)], ["PART", 3, 5, "RESERVED", 1, "MOMENT", 1]

NOT_OF_PART = "is not one of PART, DROPS, BLOCK, AMOUNT, KIND"

WRONG = [
    ((0, *ONE, "AMOUNT", 1), "numkeys is 0; it must be 1 .. 64"),
    ((-1, *TWO), "numkeys is -1; it must be 1 .. 64"),
    ((65, *range(65), *ONE * 65), "numkeys is 65; it must be 1 .. 64"),
    ((2**32 + 1, "k", *ONE), "numkeys is 4294967297; it must be 1 .. 64"),
    (("x", "k", *ONE), 'numkeys is "x"; it must be an integer, 1 .. 64'),
    ((9, "k", *ONE), "numkeys is 9, but only 4 arguments come after it"),
    ((1, "a", "b", *TWO), 'numkeys is 1: syntax error: "b" is not one of PART, WAIT, ATLEAST'),
    ((3, "a", "b", *TWO), 'numkeys is 3: syntax error: "3" is not one of PART, WAIT, ATLEAST'),
    ((3, "a", "b", "c", *TWO), "syntax error: 3 keys, but 2 PARTs"),
    ((2, "a", "b", *ONE), "syntax error: 2 keys, but 1 PARTs"),
    ((2, "a", "b", "WAIT", 5), "syntax error: 2 keys, but 0 PARTs"),
    ((1, "a", *TWO), "syntax error: 1 keys, but more PARTs"),
    ((3, "a", "b", "a", *ONE * 3), "parts 0 and 2 have the same key"),
    ((2, "", "", *TWO), "parts 0 and 1 have the same key"),
    ((2, "a", "b", *ONE, *part(0, 5)), "part 1: max_capacity is 0; it must be 1 .. 2147483647"),
    ((2, "a", "b", *ONE, *part(3, 2**53)), "part 1: drop_recharge is 9007199254740992; it must be 1 .. 9007199254740991"),
    ((2, "a", "b", *ONE, "PART", 3), "part 1: syntax error: drop_recharge is missing; it must be 1 .. 9007199254740991"),
    ((3, "a", "b", "c", *TWO, "PART"), "part 2: syntax error: max_capacity is missing; it must be 1 .. 2147483647"),
    ((1, "a", *part(2**31 - 1, 2**40)), "part 0: max_capacity * drop_recharge is 2147483647 * 1099511627776 us; it must be below "
                                        "9007199254740992 us (2^53)"),
    ((1, "a", *ONE, "DROPS", 0), "part 0: drops is 0; it must be 1 .. 1000000"),
    ((1, "a", *ONE, "BLOCK", 2**52), "part 0: block_duration is 4503599627370496; it must be 0 .. 4503599627370495"),
    ((1, "a", *ONE, "AMOUNT", 2**31), "part 0: amount is 2147483648; it must be -2147483647 .. 2147483647"),
    ((1, "a", *ONE, "AMOUNT"), "part 0: syntax error: AMOUNT lacks its value; it must be -2147483647 .. 2147483647"),
    ((1, "a", *ONE, "KIND"), "part 0: syntax error: KIND lacks its value; it must be take, look, charge or shadow"),
    ((1, "a", *ONE, "AMOUNT", 1, "amount", 1), "part 0: syntax error: AMOUNT is given twice"),
    ((1, "a", *ONE, "KIND", "take", "KIND", "look"), "part 0: syntax error: KIND is given twice"),
    ((1, "a", *ONE, "KIND", "taken"), 'part 0: kind is "taken"; it must be take, look, charge or shadow'),
    ((1, "a", *ONE, "KIND", ""), 'part 0: kind is ""; it must be take, look, charge or shadow'),
    ((1, "a", *ONE, "KIND", b"TAKE\0"), 'part 0: kind is "TAKE?"; it must be take, look, charge or shadow'),
    ((1, "a", *ONE, "WAIT", 1), f'part 0: syntax error: "WAIT" {NOT_OF_PART}'),
    ((1, "a", *ONE, "RESERVED", 1), f'part 0: syntax error: "RESERVED" {NOT_OF_PART}'),
    ((1, "a", *ONE, "OTHERRATE"), f'part 0: syntax error: "OTHERRATE" {NOT_OF_PART}'),
    ((1, "a", *ONE, "PARTS", 1), f'part 0: syntax error: "PARTS" {NOT_OF_PART}'),
    ((1, "a", *ONE, "\x01OCK", 1), f'part 0: syntax error: "?OCK" {NOT_OF_PART}'),
    *(((1, "a", *ONE, "KIND", kind, "AMOUNT", -1), f"part 0: amount is -1; it must be 0 .. 2147483647 for kind {kind}")
      for kind in ("look", "charge", "shadow")),
    ((1, "a", "WAIT", -1, *ONE), "max_wait is -1; it must be 0 .. 4503599627370496"),
    ((1, "a", "WAIT", 2**52 + 1, *ONE), "max_wait is 4503599627370497; it must be 0 .. 4503599627370496"),
    ((1, "a", "WAIT", 1, "WAIT", 1, *ONE), "syntax error: WAIT is given twice"),
    ((1, "a", "ATLEAST", 0, *ONE), "at_least is 0; it must be 1 .. 2147483647"),
    ((1, "a", "ATLEAST", 2, *ONE), "at_least is 2; it must not be over the amount, 1"),
    ((1, "a", "ATLEAST", 1, *ONE, "AMOUNT", -5), "at_least is 1; it must not be over the amount, -5"),
    ((2, "a", "b", "ATLEAST", 1, *ONE, *part(3, 5, amount=2)), "part 1: amount is 2; with ATLEAST it must be that of part 0, 1"),
    ((2, "a", "b", "ATLEAST", 1, *ONE, *part(3, 5, kind="charge")), "part 1: kind is charge; with ATLEAST it must be take"),
]


@pytest.mark.parametrize("arguments, text", WRONG)
def test_wrong_arguments_are_named_and_charge_nothing(server, arguments, text):
    for command in ("STEADY.CONSUMEALL", "STEADY.PEEKALL"):
        assert error(server(command, *arguments)) == f"ERR {text}"
    assert server("DBSIZE") == 0


@pytest.mark.parametrize("arguments, text", [
    ((1, "k", *SIX), "wrong number of arguments for 'steady.settle' command"),
    ((0, *SIX, "ACTUAL", 1, 1), "numkeys is 0; it must be 1 .. 64"),
    ((1, "k", *SIX, "DROPS", 1), "part 0: syntax error: RESERVED, MOMENT and ACTUAL are needed"),
    ((1, "k", "WAIT", 1, *SIX, "ACTUAL", 1), 'numkeys is 1: syntax error: "WAIT" is not one of PART'),
    ((2, "k", "k", *SIX, "ACTUAL", 1, *SIX, "ACTUAL", 1), "parts 0 and 1 have the same key"),
    ((2, "k", "l", *SIX, "ACTUAL", 1), "syntax error: 2 keys, but 1 PARTs"),
    ((1, "k", *SIX, "ACTUAL", 1, *SIX, "ACTUAL", 1), "syntax error: 1 keys, but more PARTs"),
    ((1, "k", *SIX, "ACTUAL", -1), "part 0: actual is -1; it must be 0 .. 9223372036854775807"),
    ((1, "k", *SIX, "ACTUAL", "many"), 'part 0: actual is "many"; it must be an integer, 0 .. 9223372036854775807'),
    ((2, "k", "l", *SIX, "ACTUAL", 1, *settlement(3, 5, 2**31, 1, 1)), "part 1: reserved is 2147483648; it must be 0 .. 2147483647"),
    ((1, "k", *settlement(3, 5, -1, 1, 1)), "part 0: reserved is -1; it must be 0 .. 2147483647"),
    ((1, "k", *settlement(3, 5, 1, -1, 1)), "part 0: moment is -1; it must be 0 .. 9007199254740991"),
    ((1, "k", *settlement(3, 5, 1, 2**53, 1)), "part 0: moment is 9007199254740992; it must be 0 .. 9007199254740991"),
    ((1, "k", *settlement(0, 5, 1, 1, 1)), "part 0: max_capacity is 0; it must be 1 .. 2147483647"),
    ((1, "k", *settlement(3, 5, 1, 1, 1, "OTHERRATE", "OTHERRATE")), "part 0: syntax error: OTHERRATE is given twice"),
    ((1, "k", *settlement(3, 5, 1, 1, 1, "AMOUNT", 1)),
     'part 0: syntax error: "AMOUNT" is not one of PART, DROPS, RESERVED, MOMENT, ACTUAL, OTHERRATE'),
    ((1, "k", *settlement(3, 5, 1, 1, 1, "BLOCK", 1)),
     'part 0: syntax error: "BLOCK" is not one of PART, DROPS, RESERVED, MOMENT, ACTUAL, OTHERRATE'),
])
def test_wrong_arguments_of_settle_are_named_and_change_nothing(server, arguments, text):
    server("STEADY.CONSUME", "k", 3, YEAR)
    before = dump(server)
    assert error(server("STEADY.SETTLE", *arguments)) == f"ERR {text}"
    assert dump(server) == before


@pytest.mark.parametrize("arguments, text", [
    (("WAIT", -1), "max_wait is -1; it must be 0 .. 4503599627370496"),
    (("WAIT", 2**52 + 1), "max_wait is 4503599627370497; it must be 0 .. 4503599627370496"),
    (("ATLEAST", 0), "at_least is 0; it must be 1 .. 2147483647"),
    (("ATLEAST", 6, "AMOUNT", 5), "at_least is 6; it must not be over the amount, 5"),
    (("ATLEAST", 1, "ATLEAST", 1), "syntax error: ATLEAST is given twice"),
    (("WAIT",), "syntax error: WAIT lacks its value; it must be 0 .. 4503599627370496"),
    (("KIND", "take"), 'syntax error: "KIND" is not one of DROPS, BLOCK, AMOUNT, WAIT, ATLEAST'),
])
def test_wrong_options_of_a_single_consume_are_named(server, arguments, text):
    assert error(server("STEADY.CONSUME", "k", 3, 5, *arguments)) == f"ERR {text}"
    assert server("DBSIZE") == 0


@pytest.mark.parametrize("how", [("WAIT", 2**52), ("ATLEAST", 2**31 - 1)])
def test_the_ends_of_each_range_are_accepted(server, how):
    parts = [part(2**31 - 1, 2**22 - 1, drops=10**6, block=2**52 - 1, amount=2**31 - 1), part(2**31 - 1, 1, amount=2**31 - 1)]
    assert server("STEADY.CONSUMEALL", *every("ab", parts, how))[0] == 1
    assert server("STEADY.SETTLE", *every("ab", [settlement(1, 2**53 - 1, 0, 0, 0), settlement(1, 1, 2**31 - 1, 2**53 - 1, 2**31 - 1)]))


def test_one_foreign_key_leaves_all_keys_untouched(server):
    """The foreign key is the last, after keys that would change, and the first."""
    for key in "ab":
        server("STEADY.CONSUME", key, 9, YEAR, "AMOUNT", 5)
    server("HSET", "hash", "a", 1)
    for i, value in enumerate(FOREIGN):
        server("SET", f"f{i}", value)
    keys = ["a", "b", "hash", *(f"f{i}" for i in range(len(FOREIGN)))]
    before, counted, offset = [server("DUMP", key) for key in keys], info(server), replication_offset(server)
    calls = 0
    for key in keys[2:]:
        for order in (["a", "b", key], [key, "a", "b"]):
            for words in (["STEADY.CONSUMEALL", *every(order, [part(9, YEAR)] * 3)], ["STEADY.PEEKALL", *every(order, [part(9, YEAR)] * 3)],
                          ["STEADY.CONSUMEALL", *every(order, [part(9, YEAR, kind="look")] * 2 + [part(9, YEAR)])],
                          ["STEADY.SETTLE", *every(order, [settlement(9, YEAR, 5, 2**52, 0)] * 3)], ["STEADY.RESET", *order]):
                assert error(server(*words)) == "NOTABUCKET the key holds something else", words
                calls += 1
    assert [server("DUMP", key) for key in keys] == before and replication_offset(server) == offset
    assert info(server) == {**counted, "not_a_bucket": counted["not_a_bucket"] + calls}


# ---- The vectors ----

SHIFT = 4 * 10**14  # us, whole seconds: moves the time of each vector into the future


def shifted(stored):
    """The stored text as [level, last, rem, blocked_until], in the time of the vectors."""
    def us(text):
        return int(text.replace(b".", b"")) - SHIFT if text != b"0" else 0
    level, last, blocked, *rem = stored.split()
    return [int(level), us(last), int(rem[0]) if rem else 0, us(blocked)]


def lifetime(state, limit, now):
    """The time to live of a stored state, in ms."""
    level, last, rem, blocked = state
    _, recharge, drops, _ = limit
    empty = -((level * recharge - ((now - last) * drops - rem)) // -drops) if level else 0
    return math.ceil(max(empty, blocked - now) / 1000)


class Replay:
    """Sends the steps of a sequence of vectors to a server with steady_test.so."""

    def __init__(self, server):
        self.server = server

    def pipeline(self, commands):
        self.server.client.socket.sendall(b"".join(map(wire_of, commands)))
        return [self.server.client.reply() for _ in commands]

    def command(self, step):
        if step["op"] == "settle":
            capacity, recharge, drops, _ = step["limit"]
            words = settlement(capacity, recharge, step["reserved"], step["moment"] + SHIFT, step["actual"], "DROPS", drops)
            return ["STEADY.SETTLE", *every([step["bucket"]], [words + ([] if step["same_rate"] else ["OTHERRATE"])])]
        how = ["WAIT", step["max_wait"]] if step["max_wait"] else []
        how += ["ATLEAST", step["at_least"]] if step["at_least"] is not None else []
        parts = [part(*limit, amount, kind) for limit, amount, kind in step["parts"]]
        return ["STEADY.CONSUMEALL" if step["op"] == "consume" else "STEADY.PEEKALL", *every(range(len(parts)), parts, how)]

    def expected(self, step):
        expect = step["expect"]
        if step["op"] == "settle":
            return [step["now"] + SHIFT, *expect.values()]
        each = [[int(success), granted, *rest] for (success, *rest), granted in zip(expect["each"], expect["granted"])]
        return [int(expect["success"]), expect["part"], expect["wait"], expect["retry_after"], step["now"] + SHIFT, *sum(each, [])]

    def single(self, step):
        """The same step as a STEADY.CONSUME, if it is one."""
        if step["op"] != "consume" or len(step["parts"]) != 1 or step["parts"][0][2] != "take":
            return None
        (capacity, recharge, drops, block), amount, _ = step["parts"][0]
        how = ["ATLEAST", step["at_least"]] if step["at_least"] is not None else []
        command = ["STEADY.CONSUME", 0, capacity, recharge, "DROPS", drops, "BLOCK", block, "AMOUNT", amount, "WAIT", step["max_wait"], *how]
        success, level, until_next, blocked, retry = step["expect"]["each"][0]
        return command, [int(success), level, until_next, blocked, retry, step["expect"]["wait"], step["expect"]["granted"][0]]

    def sequence(self, steps):
        n = len(steps[0]["stored"])
        before, gone_at = [None] * n, [-2] * n
        self.server("FLUSHALL")
        for step in steps:
            now = step["now"] + SHIFT
            gone = [i for i in range(n) if 0 < gone_at[i] < now // 1000]  # expired by the time of the vectors
            command, expected = self.single(step) or (self.command(step), self.expected(step))
            _, *_, reply, values, gone_at = self.replies(gone, now, command, n)
            assert reply == expected, step
            for i, (value, stored) in enumerate(zip(values, step["stored"])):
                assert stored is None or shifted(value) == stored, step
                if value is not None and value != before[i]:
                    limit = step["limit"] if step["op"] == "settle" else step["parts"][i][0]
                    assert gone_at[i] == now // 1000 + lifetime(shifted(value), limit, step["now"]), step
            before = values

    def replies(self, gone, now, command, n):
        last = [["MGET", *range(n)], *(["PEXPIRETIME", i] for i in range(n))]
        replies = self.pipeline([["DEL", "-", *gone], ["STEADY.CLOCK", now], command, *last])
        return [*replies[:4], replies[4:]]


def test_the_module_agrees_with_the_vectors_of_several_limits(start):
    replay, steps, singles = Replay(start(module="steady_test.so")), 0, 0
    for line in (ROOT / "tests/vectors/limits.jsonl").read_text().splitlines():
        sequence = json.loads(line)["steps"]
        replay.sequence(sequence)
        steps += len(sequence)
        singles += sum(replay.single(step) is not None for step in sequence)
    assert steps == 7137 and singles > 100


# ---- The scripts ----


def stored_text(rng, now, recharge, drops):
    """A bucket of this limit, or of another one: mostly in the past, some blocked, some ahead of the clock."""
    if rng.random() < 0.2:
        return None
    last = now - rng.choice([0, rng.randrange(recharge), rng.randrange(5 * recharge), -rng.randrange(10**9)])
    blocked = now + rng.choice([-1, 1]) * rng.randrange(1, HOUR) if rng.random() < 0.2 else 0
    level = rng.choice([0, rng.randrange(12), rng.randrange(12), rng.randrange(2**31), 2**53 - 1])
    text = f"{level} {last // 10**6}.{last % 10**6:06} " + (f"{blocked // 10**6}.{blocked % 10**6:06}" if blocked else "0")
    return text + (f" {rng.randrange(drops + 2)}" if rng.random() < 0.3 and drops > 1 else "")


class BothEngines:
    """Makes random calls as a script on one set of keys, and as a command on another one, at the time of the script."""

    def __init__(self, server, seed):
        self.rng = random.Random(seed)
        self.server, self.replay = server, Replay(server)
        self.sha = {name: server("SCRIPT", "LOAD", script(name)).decode() for name in ("consume_all", "peek_all", "settle")}

    def call(self, call, now):
        """The buckets before the call, and the call as a script and as a command."""
        rng, settles = self.rng, self.rng.random() < 0.3
        keys = [f"{call}:{i}" for i in range(rng.randrange(1, 6))]
        amount = rng.choice([1, 2, 5, 30])
        at_least = 0 if settles or rng.random() < 0.7 else rng.randrange(1, amount + 1)
        max_wait = rng.choice([0, 0, 1, HOUR, 20 * HOUR, 2**52])
        arguments, parts, texts = [] if settles else [f"{max_wait} {at_least}"], [], []
        for _ in keys:
            recharge, drops = rng.choice([HOUR, 7 * HOUR + 1, rng.randrange(HOUR, YEAR)]), rng.choice([1, 1, 3, 7, 1000])
            capacity = rng.choice([1, 10, 200])
            texts.append(stored_text(rng, now, recharge, drops))
            if settles:
                moment, reserved, actual = now - rng.randrange(4 * HOUR), rng.randrange(12), rng.choice([0, rng.randrange(12), 2**31 - 1])
                same = rng.random() < 0.9
                arguments.append(f"{capacity} {recharge} {drops} {reserved} {moment} {actual} {int(same)}")
                parts.append(settlement(capacity, recharge, reserved, moment, actual, "DROPS", drops, *(() if same else ("OTHERRATE",))))
                continue
            block = rng.choice([0, 0, HOUR])
            kind = "take" if at_least else rng.choice(["take", "take", "take", "look", "charge", "shadow"])
            its_amount = amount if at_least else rng.choice([0, 1, 2, 5, 30, 2**31 - 1] + [-1, -5] * (kind == "take"))
            arguments.append(struct.pack("<idiidB", capacity, recharge, its_amount, drops, block, KINDS.index(kind)))
            parts.append(part(capacity, recharge, drops, block, its_amount, kind))
        name = "settle" if settles else rng.choice(["consume_all", "consume_all", "peek_all"])
        how = [*(["WAIT", max_wait] if max_wait else []), *(["ATLEAST", at_least] if at_least else [])]
        command = ["STEADY." + name.replace("_", "").upper(), *every([f"m{key}" for key in keys], parts, () if settles else how)]
        return keys, texts, ["EVALSHA", self.sha[name], len(keys), *(f"s{key}" for key in keys), *arguments], command

    def round(self, calls):
        seconds, us = map(int, self.server("TIME"))
        made = [self.call(i, seconds * 10**6 + us) for i in range(calls)]
        before = [["FLUSHALL"]]
        for keys, texts, *_ in made:
            before += [["SET", f"{engine}{key}", text] for key, text in zip(keys, texts) if text is not None for engine in "sm"]
        self.replay.pipeline(before)
        by_script = self.replay.pipeline([words for _, _, words, _ in made])
        by_module = []
        for reply, (_, _, _, command) in zip(by_script, made):
            by_module += [["STEADY.CLOCK", reply[1]], command]
        by_module = self.replay.pipeline(by_module)[1::2]
        after = self.replay.pipeline([["MGET", *(f"{engine}{key}" for key in keys)] for keys, *_ in made for engine in "sm"])
        gone = self.replay.pipeline([["PEXPIRETIME", f"{engine}{key}"] for keys, *_ in made for engine in "sm" for key in keys])
        for (keys, texts, words, command), script_reply, reply in zip(made, by_script, by_module):
            scripts, modules, *after = after
            ends, gone = (gone[:len(keys)], gone[len(keys):2 * len(keys)]), gone[2 * len(keys):]
            assert scripts == modules, (texts, words, command)
            assert all(abs(a - b) < 1000 for a, b in zip(*ends)), (texts, words, command, ends)
            success = 1 if command[0] == "STEADY.SETTLE" else reply[0]
            assert script_reply[0] & 1 == success, (texts, words, command)


def test_module_and_scripts_store_the_same_and_give_the_same_verdict(start):
    """The scripts read the clock of the server. The module is then given the time that the script has replied. The expiry
    times differ by the time that the script took."""
    both = BothEngines(start(module="steady_test.so"), seed=31)
    for _ in range(40):
        both.round(100)


# ---- Rights and keys ----


def test_the_keys_of_each_command_are_known(server):
    calls = {"steady.consumeall": every("ab", [ONE, ONE]), "steady.peekall": every("ab", [ONE, ONE], ["WAIT", 1]),
             "steady.settle": every("ab", [settlement(3, 5, 1, 1, 1)] * 2), "steady.reset": ["a", "b"]}
    for name, arguments in calls.items():
        assert server("COMMAND", "GETKEYS", name, *arguments) == [b"a", b"b"]
        flags = {tuple(sorted(flag for flag in found)) for _, found in server("COMMAND", "GETKEYSANDFLAGS", name, *arguments)}
        assert flags == {"steady.peekall": {(b"RO", b"access")}, "steady.reset": {(b"RM", b"delete")}}.get(name, {(b"RW", b"access", b"update")})
    for numkeys in (0, -1, 99, "x"):
        assert isinstance(server("COMMAND", "GETKEYS", "steady.consumeall", numkeys, "a", *ONE), ReplyError)


def test_command_docs_describe_parts_and_kinds(server):
    def named(arguments):
        return {flat(argument)[b"name"].decode(): flat(argument) for argument in arguments}
    for name in COUNTED:
        docs = flat(flat(server("COMMAND", "DOCS", name))[name.encode()])
        found = named(docs[b"arguments"])
        assert set(found[b"part".decode()][b"flags"]) == {b"multiple", b"multiple_token"} and found["part"][b"token"] == b"PART"
        fields = named(found["part"][b"arguments"])
        if name == "steady.settle":
            assert {"reserved", "moment_us", "actual", "other_rate"} < fields.keys() and b"flags" not in fields["actual"]
        else:
            assert set(named(fields["kind"][b"arguments"])) == {"take", "look", "charge", "shadow"}
            assert {"max_wait_us", "at_least"} < found.keys()
    docs = flat(flat(server("COMMAND", "DOCS", "steady.consume"))[b"steady.consume"])
    assert {"max_wait_us", "at_least"} < named(docs[b"arguments"]).keys()


def test_acl_rules_apply_to_every_key(server):
    server("ACL", "SETUSER", "limiter", "on", ">pw", "resetkeys", "~rl:*", "%R~read:*", "+steady.consumeall", "+steady.peekall",
           "+steady.settle", "+steady.reset")
    client = Resp(server.port)
    client("AUTH", "limiter", "pw")

    def allowed(command, *keys):
        words = {"STEADY.SETTLE": settlement(3, HOUR, 1, 1, 1)}.get(command, part(3, HOUR))
        reply = client(command, *(keys if command == "STEADY.RESET" else every(keys, [words] * len(keys))))
        assert not isinstance(reply, ReplyError) or str(reply).startswith("NOPERM"), reply
        return not isinstance(reply, ReplyError)
    for command in ("STEADY.CONSUMEALL", "STEADY.PEEKALL", "STEADY.SETTLE", "STEADY.RESET"):
        peeks = command == "STEADY.PEEKALL"
        assert allowed(command, "rl:a", "rl:b")
        assert not allowed(command, "rl:a", "other") and not allowed(command, "other", "rl:a")
        assert allowed(command, "rl:a", "read:b") == peeks and allowed(command, "read:a") == peeks
    for numkeys in ("0", "01", "+1", "1 ", "-1", "18446744073709551617", "4294967297"):
        said = error(client("STEADY.CONSUMEALL", numkeys, "other", *ONE, "AMOUNT", 1))
        assert "numkeys" in said or said.startswith("NOPERM"), numkeys
    assert server("KEYS", "*") == []
    client.close()


def test_writes_need_memory_and_peeks_do_not(server):
    server("STEADY.CONSUMEALL", *every("ab", [part(3, HOUR)] * 2))
    server("CONFIG", "SET", "maxmemory", 1)
    try:
        assert error(server("STEADY.CONSUMEALL", *every("ab", [part(3, HOUR)] * 2))).startswith("OOM")
        assert error(server("STEADY.SETTLE", *every("a", [settlement(3, HOUR, 1, 1, 1)]))).startswith("OOM")
        assert server("STEADY.PEEKALL", *every("ab", [part(3, HOUR)] * 2))[7] == 1
        assert server("STEADY.RESET", "a", "b") == 2
    finally:
        server("CONFIG", "SET", "maxmemory", 0)
    body = "#!lua flags=no-writes\nreturn redis.call(unpack(ARGV))"
    for name, allowed in (("STEADY.CONSUMEALL", False), ("STEADY.PEEKALL", True)):
        reply = server("EVAL", body, 0, name, *every("ab", [part(3, HOUR)] * 2))
        assert isinstance(reply, list) == allowed, reply


# ---- Transactions, scripts, notifications ----


def test_scripts_and_transactions_call_every_command(server):
    calls = [["STEADY.CONSUMEALL", *every("ab", [part(3, YEAR)] * 2)], ["STEADY.PEEKALL", *every("ab", [part(3, YEAR)] * 2)],
             ["STEADY.SETTLE", *every("ab", [settlement(3, YEAR, 1, 2**52, 3)] * 2)], ["STEADY.CONSUME", "a", 3, YEAR, "WAIT", 2**50],
             ["STEADY.CONSUMEALL", 0, *ONE, 1, 1], ["STEADY.RESET", "a", "b"]]
    server("MULTI")
    for call in calls:
        assert server(*call) == b"QUEUED"
    replies = server("EXEC")
    assert replies[0][:4] == [1, 0, 0, 0] and replies[0][4] == replies[1][4] == replies[2][0] and replies[2][5] == 2
    assert replies[3][1:] == [4, YEAR, 0, 0, YEAR, 1]
    assert "numkeys is 0" in error(replies[4]) and replies[5] == 2
    by_script = [server("EVAL", "return redis.pcall(unpack(ARGV))", 0, *call) for call in calls]
    assert by_script[0][:4] == replies[0][:4] and by_script[2][5] == 2 and by_script[5] == 2
    assert error(by_script[4]) == error(replies[4])
    assert server("DBSIZE") == 0


def test_watch_and_notifications_report_every_changed_key(server):
    server("CONFIG", "SET", "notify-keyspace-events", "KEA")
    listener, other = Resp(server.port), Resp(server.port)
    listener("PSUBSCRIBE", "__keyspace@0__:*")
    denied = [part(9, HOUR), part(1, HOUR, amount=2)]
    for words, changes in ((["STEADY.PEEKALL", *every("ab", [part(2, HOUR)] * 2)], []), (["STEADY.CONSUMEALL", *every("ab", denied)], []),
                           (["STEADY.CONSUMEALL", *every("ab", [part(2, HOUR)] * 2)], ["a set", "a expire", "b set", "b expire"]),
                           (["STEADY.CONSUMEALL", *every("ab", [part(2, HOUR), part(2, HOUR, kind="look")])], ["a set", "a expire"]),
                           (["STEADY.CONSUMEALL", *every("ab", [part(2, HOUR, amount=-9), part(2, HOUR)])], ["a del", "b set", "b expire"]),
                           (["STEADY.SETTLE", *every("ab", [settlement(2, HOUR, 1, 2**52, 1)] * 2)], []),
                           (["STEADY.RESET", "a", "b"], ["b del"])):
        server("WATCH", "a", "b")
        other(*words)
        server("MULTI")
        server("PING")
        assert (server("EXEC") is None) == bool(changes), words
        other("PUBLISH", "__keyspace@0__:end", "end")
        events = iter(lambda: [text.decode() for text in listener.reply()[2:]], ["__keyspace@0__:end", "end"])
        assert [f"{channel.split(':')[1]} {event}" for channel, event in events] == changes, words
    listener.close(), other.close()
    server("CONFIG", "SET", "notify-keyspace-events", "")


# ---- Replication, AOF, expiry ----


def load_all(server, calls, seed=7):
    """Sends random calls on several of a few keys."""
    rng = random.Random(seed)
    for _ in range(calls):
        keys = rng.sample([f"k{i}" for i in range(30)], rng.randrange(1, 6))
        limit = {"capacity": rng.choice([5, 1000]), "recharge": rng.choice([60 * 10**6, HOUR]), "drops": rng.choice([1, 7])}
        how = ["WAIT", rng.choice([1, HOUR])] if rng.random() < 0.3 else []
        parts = [part(**limit, block=rng.choice([0, HOUR]), amount=rng.choice([1, 3, 0, -2]),
                      kind=rng.choice(["take", "take", "look", "charge", "shadow"])) for _ in keys]
        parts = [words if not ("KIND" in words and -2 in words) else part(**limit) for words in parts]
        which = rng.randrange(6)
        if which == 0:
            reply = server("STEADY.SETTLE", *every(keys, [settlement(5, HOUR, 3, 2**52, rng.choice([0, 2, 4]))] * len(keys)))
        elif which == 1:
            reply = server("EVAL", "return redis.call('STEADY.CONSUMEALL', unpack(ARGV))", 0, *every(keys, parts, how))
        elif which == 2 and rng.random() < 0.3:
            reply = server("STEADY.RESET", *keys)
        elif which == 3:
            reply = server("STEADY.CONSUME", keys[0], 5, HOUR, "WAIT", 3 * HOUR)
        else:
            reply = server("STEADY.CONSUMEALL", *every(keys, parts, how))
        assert not isinstance(reply, ReplyError), reply


def test_a_replica_gets_the_same_bytes_and_answers_peekall(start):
    primary = start()
    replica = start("--replicaof", f"127.0.0.1 {primary.port}")
    until(lambda: b"master_link_status:up" in replica("INFO", "replication"))
    load_all(primary, 1500)
    assert primary("WAIT", 1, 5000) == 1
    assert dump(replica) == dump(primary) and len(dump(primary)) > 10
    assert not [name for name in flat_info(replica, "commandstats") if "steady" in name]  # effects, never the commands
    keys = list(dump(primary))[:3]
    parts = [part(1000, HOUR)] * 3
    assert [fields[2] for fields in verdict(replica("STEADY.PEEKALL", *every(keys, parts)))[1]] \
        == [fields[2] for fields in verdict(primary("STEADY.PEEKALL", *every(keys, parts)))[1]]
    for words in (["STEADY.CONSUMEALL", *every(keys, parts)], ["STEADY.SETTLE", *every("a", [settlement(3, 5, 1, 1, 1)])],
                  ["STEADY.RESET", *keys]):
        assert error(replica(*words)).startswith("READONLY")
    offset = replication_offset(primary)
    primary("STEADY.PEEKALL", *every(keys, parts))
    primary("STEADY.CONSUMEALL", *every(keys, [part(1000, HOUR, amount=0)] * 3))
    primary("STEADY.CONSUMEALL", *every(keys, [part(1000, HOUR, amount=2000)] * 3))
    primary("STEADY.RESET", "none", "nil")
    assert replication_offset(primary) == offset


def test_the_writes_of_one_call_are_one_transaction_in_the_stream(start):
    """So no replica and no AOF ever has only some of them."""
    server = start("--appendonly", "yes", "--appendfsync", "always")
    until(lambda: flat_info(server, "persistence")["aof_rewrite_in_progress"] == "0")
    server("STEADY.CONSUMEALL", *every("ab", [part(3, HOUR), part(4, YEAR, amount=2)]))
    log = next((server.folder / "appendonlydir").glob("*.incr.aof")).read_bytes().split(b"\r\n")
    words = [word for word in log if word and word[:1] not in (b"*", b"$")]
    if b"SELECT" in words:  # Redis 8 and Valkey 8 put it behind MULTI
        del words[words.index(b"SELECT"):words.index(b"SELECT") + 2]
    at = words.index(b"MULTI")
    assert [words[i] for i in (at, at + 1, at + 2, at + 6, at + 7, at + 11)] == [b"MULTI", b"SET", b"a", b"SET", b"b", b"EXEC"]
    assert words[at + 3] == server("GET", "a") and int(words[at + 5]) == server("PEXPIRETIME", "a")


def test_aof_and_rdb_written_under_load_restore_all_buckets(start):
    assert len(restored(start, load_all, 2000)) > 10


def test_a_key_lives_until_its_bucket_is_empty(server):
    reply = server("STEADY.CONSUMEALL", *every("abc", [part(5, HOUR, amount=3), part(5, HOUR, drops=7), part(1, HOUR, amount=2, kind="charge")]))
    assert [server("PEXPIRETIME", key) - reply[4] // 1000 for key in "abc"] == [3 * HOUR // 1000, -(HOUR // -7000), 2 * HOUR // 1000]
    server("STEADY.SETTLE", *every("a", [settlement(5, HOUR, 3, reply[4], 1)]))
    assert 0 <= server("PEXPIRETIME", "a") - (reply[4] + HOUR) // 1000 < 2


def test_expired_keys_that_are_still_stored_are_empty_buckets(start):
    server = start()
    server("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    for key in "abc":
        server("SET", key, "9 4000000000.000000 0", "PX", 20)  # would count as a clock step if it were read
    server("SET", "foreign", "x", "PX", 20)
    until(lambda: server("PTTL", "foreign") == -2)
    server("SET", "foreign", "x", "PXAT", 1)
    assert [fields[2] for fields in verdict(server("STEADY.PEEKALL", *every("ab", [part(9, HOUR)] * 2)))[1]] == [0, 0]
    assert server("STEADY.CONSUMEALL", *every(["a", "foreign"], [part(9, HOUR)] * 2))[0] == 1
    assert server("STEADY.RESET", "b", "c") == 0 and info(server)["clock_steps"] == 0


def test_info_counts_a_call_once_and_each_clock_step(start):
    server = start()
    server("STEADY.CONSUMEALL", *every("ab", [part(1, HOUR)] * 2))
    server("STEADY.CONSUMEALL", *every("ab", [part(1, HOUR)] * 2))
    server("STEADY.CONSUMEALL", *every("ab", [part(1, HOUR, block=HOUR)] * 2))
    server("STEADY.PEEKALL", *every("ac", [part(1, HOUR)] * 2))
    server("STEADY.CONSUME", "d", 1, HOUR, "WAIT", 5)
    for key in "xy":
        server("SET", key, "1 4000000000.000000 0")
    server("STEADY.CONSUMEALL", *every("xyz", [part(3, HOUR)] * 3))
    server("SET", "x", "1 4000000000.000000 0")
    server("STEADY.SETTLE", *every("xy", [settlement(3, HOUR, 1, 1, 2)] * 2))
    assert info(server) == {"decisions": 6, "allowed": 3, "denied": 3, "blocked": 2, "not_a_bucket": 0, "clock_steps": 3}


# ---- Clusters ----


def test_a_cluster_takes_keys_of_one_slot_and_redirects(start):
    nodes = [start("--cluster-enabled", "yes", "--cluster-port", str(free_port())) for _ in range(2)]
    nodes[0]("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    nodes[1]("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    for epoch, node in enumerate(nodes):
        node("CLUSTER", "SET-CONFIG-EPOCH", epoch + 1)
    bus = flat(nodes[0]("CONFIG", "GET", "cluster-port"))[b"cluster-port"].decode()
    assert nodes[1]("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus) == b"OK"
    until(lambda: all({b"cluster_known_nodes:2", b"cluster_state:ok"} <= set(node("CLUSTER", "INFO").split()) for node in nodes), seconds=30)
    mine, theirs = ["{b}1", "{b}2"], ["{a}1", "{a}2"]  # slots 3300 and 15495
    calls = {"STEADY.CONSUMEALL": lambda keys: every(keys, [part(3, HOUR)] * 2), "STEADY.PEEKALL": lambda keys: every(keys, [part(3, HOUR)] * 2),
             "STEADY.SETTLE": lambda keys: every(keys, [settlement(3, HOUR, 1, 1, 1)] * 2), "STEADY.RESET": list}
    for name, arguments in calls.items():
        assert not isinstance(nodes[0](name, *arguments(mine)), ReplyError)
        assert error(nodes[0](name, *arguments(theirs))) == f"MOVED 15495 127.0.0.1:{nodes[1].port}"
        for keys in ([mine[0], theirs[0]], [theirs[0], mine[0]]):
            assert error(nodes[0](name, *arguments(keys))).startswith("CROSSSLOT")
    # While the slot is moved, keys on both nodes are TRYAGAIN, and nothing is charged.
    nodes[0]("STEADY.CONSUME", mine[0], 9, HOUR)
    ids = [node("CLUSTER", "MYID") for node in nodes]
    nodes[1]("CLUSTER", "SETSLOT", 3300, "IMPORTING", ids[0])
    nodes[0]("CLUSTER", "SETSLOT", 3300, "MIGRATING", ids[1])
    before = dump(nodes[0])
    for name, arguments in calls.items():
        assert error(nodes[0](name, *arguments(mine))).startswith("TRYAGAIN")
    assert dump(nodes[0]) == before and len(before) == 1


# ---- Random arguments ----


def random_call(rng):
    """A call that is nearly right."""
    name = rng.choice([*COUNTED, "steady.reset", "steady.consume"]).encode()
    keys = [b"k%d" % rng.randrange(12) for _ in range(1 + int(rng.paretovariate(0.8)) % 64)]
    if rng.random() < 0.9:
        keys = list(dict.fromkeys(keys))
    edge = [0, 1, -1, 2, 10, 2**31 - 1, 2**31, 2**52, 2**53 - 1, 2**53, 2**63 - 1, -2**63, 2**64]

    def number():
        return b"%d" % (rng.choice(edge) if rng.random() < 0.02 else rng.randrange(1, 10**rng.randrange(1, 8)))

    def options(*names):
        return [word for option in names if rng.random() < 0.4 for word in (option, number())]

    def kind():
        return [b"KIND", rng.choice([b"take", b"LOOK", b"Charge", b"shadow", b"x"])] if rng.random() < 0.3 else []

    def one_part():
        words = [b"PART", number(), number(), *options(b"DROPS")]
        if name == b"steady.settle":
            return words + [b"RESERVED", number(), b"MOMENT", number(), b"ACTUAL", number()] + [b"OTHERRATE"] * (rng.random() < 0.2)
        return words + options(b"BLOCK", b"AMOUNT") + kind()
    if name == b"steady.reset":
        argv = [name, *keys]
    elif name == b"steady.consume":
        argv = [name, keys[0], number(), number(), *options(b"AMOUNT", b"WAIT", b"ATLEAST", b"BLOCK")]
    else:
        how = options(b"WAIT", b"ATLEAST") if name != b"steady.settle" and rng.random() < 0.2 else []
        argv = [name, b"%d" % len(keys), *keys, *how, *itertools.chain(*(one_part() for _ in keys))]
    for _ in range(rng.choice([0, 0, 0, 0, 1, 2])):
        at = rng.randrange(1, len(argv) + 1)
        argv[at:at + rng.randrange(2)] = rng.choice([[], [b"PART"], [number()], [rng.randbytes(3)], [b"amount"], [b""]])
    return argv


def fuzz(server, calls, seed):
    rng, replies = random.Random(seed), [0, 0]
    server("HSET", "hash", "a", 1)
    for _ in range(calls):
        batch = [random_call(rng) for _ in range(20)]
        if rng.random() < 0.2:
            batch.insert(5, [b"SET", b"k%d" % rng.randrange(12), rng.choice(FOREIGN[:15])])
            batch.append([b"DEL", *(b"k%d" % i for i in range(12))])
        server.client.socket.sendall(b"".join(map(wire_of, batch)))
        for argv in batch:
            reply = server.client.reply()
            replies[isinstance(reply, ReplyError)] += 1
            if isinstance(reply, ReplyError):
                assert str(reply).split()[0] in ("ERR", "NOTABUCKET"), (argv, reply)
    assert min(replies) > 2 * calls and server("PING") == b"PONG", replies


def test_no_argument_of_several_keys_harms_the_server(server):
    fuzz(server, 500, seed=21)


@pytest.mark.sanitizers
def test_address_sanitizer_reports_nothing_for_several_keys(program):
    """The module is built with ASan and UBSan."""
    server = Loaded(program, sanitized=True)
    try:
        fuzz(server, 500, seed=22)
        load_all(server, 500)
        assert server.reports() == []
    finally:
        server.stop()
