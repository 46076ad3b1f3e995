# SPDX-License-Identifier: MIT
"""The command `steady`, as used by a shell or a script."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from command import (ALLOWED, DAY, DENIED, FIELDS, LIMIT, LONG, SEVERAL, UNAVAILABLE, UNKNOWN, USAGE, nearly)

# ---- Consume, peek, reset ----


def test_consume_fills_the_bucket_and_then_denies(ask):
    code, answer = ask("consume", "k", *LIMIT, "--amount", "7")
    assert (code, answer) == (ALLOWED, {"success": True, "level": 7, "until_next_drop": DAY, "blocked_for": 0,
                                        "retry_after": 0, "error": None, "source": "store"})
    code, answer = ask("consume", "k", *LIMIT, "--amount", "4")
    assert (code, answer["success"], answer["level"]) == (DENIED, False, 7)
    assert nearly(answer["retry_after"], DAY) and answer["retry_after"] == answer["until_next_drop"]
    code, answer = ask("consume", "k", *LIMIT, "--amount", "3")
    assert (code, answer["level"]) == (ALLOWED, 10)


def test_keys_have_separate_buckets(ask):
    assert ask("consume", "a", *LIMIT, "--amount", "10")[0] == ALLOWED
    assert ask("consume", "b", *LIMIT, "--amount", "10")[0] == ALLOWED


@pytest.mark.parametrize("amount, code, level", [
    ("0", ALLOWED, 5), ("1", ALLOWED, 6), ("5", ALLOWED, 10), ("6", DENIED, 5), ("10", DENIED, 5), ("11", DENIED, 5),
    ("-1", ALLOWED, 4), ("-5", ALLOWED, 0), ("-99", ALLOWED, 0), ("2147483647", DENIED, 5),
    ("-2147483647", ALLOWED, 0), ("007", DENIED, 5)])
def test_amounts_change_the_level_or_are_denied(ask, amount, code, level):
    ask("consume", "k", *LIMIT, "--amount", "5")
    got, answer = ask("consume", "k", *LIMIT, "--amount", amount)
    assert (got, answer["level"]) == (code, level)
    assert (answer["retry_after"] is None) == (int(amount) > 10)  # it never fits


@pytest.mark.parametrize("amount", ["2147483648", "-2147483648", "9007199254740992", "9223372036854775807",
                                    "18446744073709551615", "18446744073709551617", "1.5", "1e3", "0x10", "\u0661",
                                    " 5 ", "", "+5", "-", "--5", "five", "5\n"])
def test_invalid_amounts_are_usage_errors_and_charge_nothing(run, ask, amount):
    done = run("consume", "k", *LIMIT, "--amount", amount)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr.startswith("steady: --amount: ")
    assert "is not a whole number from -2147483647 to 2147483647" in done.stderr
    assert ask("peek", "k", *LIMIT)[1]["level"] == 0


def test_an_overflow_blocks_the_key(ask):
    limit = (*LIMIT, "--block", "1h")
    ask("consume", "k", *limit, "--amount", "10")
    assert ask("consume", "k", *limit, "--amount", "11")[1]["blocked_for"] == 0  # can never fit, so it does not block
    code, answer = ask("consume", "k", *limit)
    assert (code, answer["blocked_for"], answer["level"]) == (DENIED, 3600, 10)
    code, answer = ask("consume", "k", *limit, "--amount", "-10")
    assert (code, answer["level"]) == (ALLOWED, 0) and nearly(answer["blocked_for"], 3600)
    for amount in "0", "1":
        code, answer = ask("consume", "k", *limit, "--amount", amount)
        assert code == DENIED and answer["retry_after"] == answer["blocked_for"] and nearly(answer["blocked_for"], 3600)
    assert ask("peek", "k", *limit)[0] == DENIED
    assert ask("reset", "k")[0] == ALLOWED
    assert ask("consume", "k", *limit, "--amount", "10")[0] == ALLOWED


def test_peek_changes_nothing(ask):
    ask("consume", "k", *LIMIT, "--amount", "9")
    for _ in range(3):
        code, answer = ask("peek", "k", *LIMIT)
        assert (code, answer["success"], answer["level"], answer["retry_after"]) == (ALLOWED, True, 9, 0)
    ask("consume", "k", *LIMIT)
    code, answer = ask("peek", "k", *LIMIT)
    assert (code, answer["success"], answer["level"]) == (DENIED, False, 10)
    assert nearly(answer["retry_after"], DAY)


def test_reset_forgets_the_bucket(ask):
    empty = {"success": True, "level": 0, "until_next_drop": DAY, "blocked_for": 0, "retry_after": 0, "error": None,
             "source": "store"}
    ask("consume", "k", *LIMIT, "--amount", "10")
    assert ask("reset", "k", *LIMIT) == (ALLOWED, empty)
    assert ask("reset", "k") == (ALLOWED, {**empty, "until_next_drop": None})
    assert ask("peek", "k", *LIMIT) == (ALLOWED, empty)


def test_a_rate_sets_capacity_and_recharge(ask):
    assert ask("consume", "k", "--rate", "100/min")[1]["until_next_drop"] == Decimal("0.6")
    assert ask("consume", "k", "--rate", "3/s")[1]["until_next_drop"] <= Decimal("0.333334")
    assert ask("consume", "wide", "--rate", "1/d", "--capacity", "5", "--amount", "5")[0] == ALLOWED
    assert ask("consume", "narrow", "--rate", "100/d", "--capacity", "5", "--amount", "6")[0] == DENIED


def test_waiting_for_retry_after_is_enough(ask):
    limit = ("--capacity", "1", "--recharge", "300ms")
    ask("consume", "k", *limit)
    code, answer = ask("consume", "k", *limit)
    assert code == DENIED and 0 < answer["retry_after"] <= Decimal("0.3")
    time.sleep(float(answer["retry_after"]))
    assert ask("consume", "k", *limit)[0] == ALLOWED


def test_the_deploy_example_runs_the_command_once(run, steady, tmp_path):
    line = f"{steady} consume deploy --capacity 1 --recharge 10m && echo ran"
    env = {**os.environ, "STEADY_STORE": f"file:{tmp_path}/buckets"}
    first, second = (subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, check=False)
                     for _ in range(2))
    assert (first.returncode, first.stdout.splitlines()[-1]) == (ALLOWED, "ran")
    assert (second.returncode, second.stdout.count("ran"), second.stderr) == (DENIED, 0, "")


def test_concurrent_processes_share_the_bucket(run):
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: run("consume", "k", *LIMIT).returncode, range(24)))
    assert sorted(codes) == [ALLOWED] * 10 + [DENIED] * 14


# ---- Several limits ----


def several(answer):
    """The limits of an answer, by name."""
    return {limit["name"]: limit for limit in answer["limits"]}


def test_several_limits_are_charged_all_or_none(ask):
    fields = [*LONG, "limit", "limits"]
    code, answer = ask("consume", "k", *SEVERAL, "--amount", "7", fields=fields)
    assert (code, answer["must_wait"], answer["success"], answer["granted"], answer["limit"]) == (ALLOWED, 0, True, 7, "burst")
    assert [(name, limit["granted"], limit["level"]) for name, limit in several(answer).items()] == [("burst", 7, 7), ("week", 7, 7)]
    code, answer = ask("consume", "k", *SEVERAL, "--amount", "4", fields=fields)
    assert (code, answer["success"], answer["granted"], answer["limit"]) == (DENIED, False, 0, "burst")
    assert [(limit["success"], limit["level"]) for limit in answer["limits"]] == [(False, 7), (True, 7)]
    assert list(several(answer)["burst"]) == ["name", "success", "granted", "level", "until_next_drop", "blocked_for",
                                              "retry_after"]
    assert nearly(several(answer)["burst"]["retry_after"], DAY / 10) and several(answer)["week"]["retry_after"] == 0
    assert answer["retry_after"] == several(answer)["burst"]["retry_after"]


def test_peek_and_reset_take_several_limits(ask):
    fields = [*FIELDS, "limit", "limits"]
    ask("consume", "k", *SEVERAL, "--amount", "9", fields=[*LONG, "limit", "limits"])
    code, answer = ask("peek", "k", *SEVERAL, fields=fields)
    assert (code, answer["limit"], [limit["level"] for limit in answer["limits"]]) == (ALLOWED, "burst", [9, 9])
    assert list(answer["limits"][0]) == ["name", "success", "level", "until_next_drop", "blocked_for", "retry_after"]
    code, answer = ask("reset", "k", *SEVERAL, fields=fields)
    assert (code, [limit["level"] for limit in answer["limits"]]) == (ALLOWED, [0, 0])
    assert [limit["level"] for limit in ask("peek", "k", *SEVERAL, fields=fields)[1]["limits"]] == [0, 0]


def test_unnamed_rates_have_the_names_of_their_periods(ask):
    code, answer = ask("consume", "k", "--rate", "100/min", "--rate=1000/day", fields=[*LONG, "limit", "limits"])
    assert (code, list(several(answer))) == (ALLOWED, ["1m", "1d"])


def test_a_block_is_that_of_each_limit(ask):
    limit = (*SEVERAL, "--block", "1h")
    fields = [*LONG, "limit", "limits"]
    ask("consume", "k", *limit, "--amount", "10", fields=fields)
    code, answer = ask("consume", "k", *limit, fields=fields)
    assert (code, answer["limit"]) == (DENIED, "burst")
    assert [limit["blocked_for"] for limit in answer["limits"]] == [3600, 0]


def test_several_limits_print_the_verdict_and_a_line_for_each(run):
    lines = run("consume", "user:42", *SEVERAL, "--amount", "3").stdout.splitlines()
    assert lines == ["allowed  user:42",
                     "  burst  [###.......] 3/10  next drop in 2 h 24 m",
                     "  week   [##........] 3/20  next drop in 8 h 24 m"]
    lines = run("consume", "user:42", *SEVERAL, "--amount", "8").stdout.splitlines()
    assert lines == ["denied   user:42  by burst  retry in 2 h 24 m",
                     "  burst  [###.......] 3/10  retry in 2 h 24 m",
                     "  week   [##........] 3/20  next drop in 8 h 24 m"]
    assert run("peek", "user:42", *SEVERAL).stdout.splitlines()[0] == "free     user:42"
    run("consume", "user:42", *SEVERAL, "--amount", "7")
    assert run("peek", "user:42", *SEVERAL).stdout.splitlines()[0] == "full     user:42  by burst  retry in 2 h 24 m"
    assert run("consume", "user:42", *SEVERAL, "--amount", "11").stdout.startswith(
        "denied   user:42  by burst  11 drops never fit\n")
    assert run("reset", "user:42", *SEVERAL).stdout.splitlines() == [
        "reset    user:42", "  burst  [..........] 0/10  empty", "  week   [..........] 0/20  empty"]
    assert max(len(line) for line in lines) <= 80


def test_sixty_four_limits_of_long_names_are_printed_whole(run, ask):
    rates = [f"--rate={number:02}{'n' * 62}={number + 1}/{number + 1}h" for number in range(64)]
    code, answer = ask("consume", "k", *rates, fields=[*LONG, "limit", "limits"])
    assert (code, len(answer["limits"])) == (ALLOWED, 64)
    text = run("reserve", "k" * 100, *rates).stdout
    assert text.startswith("r1,64,") and len(text) > 8192
    assert run("settle", "-", "0", stdin=None, input=text).stdout.count("gave back") == 64


# ---- As much as fits, and charges ----


def test_at_least_grants_what_fits_and_says_how_much(run, ask):
    ask("consume", "k", *LIMIT, "--amount", "7")
    done = run("consume", "k", *LIMIT, "--amount", "5", "--at-least", "2")
    assert (done.returncode, done.stdout) == (ALLOWED, "allowed  k  granted 3 of 5  [##########] 10/10  next drop in 1 d\n")
    code, answer = ask("consume", "k", *LIMIT, "--amount", "5", "--at-least", "2", fields=LONG)
    assert (code, answer["granted"], answer["level"]) == (DENIED, 0, 10)
    ask("consume", "k", *LIMIT, "--amount", "-8")
    code, answer = ask("consume", "k", *LIMIT, "--amount", "5", "--at-least", "2", fields=LONG)
    assert (code, answer["must_wait"], answer["granted"], answer["level"]) == (ALLOWED, 0, 5, 7)
    assert "granted 3 of 5" in run("consume", "k", *LIMIT, "--amount", "5", "--at-least", "2").stdout


def test_a_charge_goes_in_whatever_the_level(run, ask):
    limit = (*LIMIT, "--block", "1h")
    ask("consume", "k", *limit, "--amount", "9")
    ask("consume", "k", *limit, "--amount", "2")
    assert run("consume", "k", *limit).stdout.startswith("blocked  k  ")
    code, answer = ask("consume", "k", *limit, "--amount", "7", "--charge", fields=LONG)
    assert (code, answer["must_wait"], answer["granted"], answer["level"]) == (ALLOWED, 0, 7, 16)
    assert re.fullmatch(r"charged  k  \[#{10}\] 17/10  blocked for .*\n", run("consume", "k", *limit, "--charge").stdout)


# ---- Waiting ----

QUEUE = ("--rate", "1/400ms")


def waits(start, stop):
    return stop - start + 0.001  # the command is not early; only the clocks are rounded


def test_max_wait_prints_then_sleeps_then_is_allowed(run, ask, steady, tmp_path):
    ask("consume", "k", *QUEUE)
    start = time.monotonic()
    child = subprocess.Popen([steady, "consume", "k", *QUEUE, "--max-wait", "10s", "--amount", "3", "--json"],
                             env={**os.environ, "STEADY_STORE": f"file:{tmp_path}/buckets"}, stdout=subprocess.PIPE, text=True)
    answer = json.loads(child.stdout.readline(), parse_float=Decimal)
    printed = time.monotonic()
    assert list(answer) == LONG and answer["success"] and answer["level"] == 4
    assert Decimal("0.9") < answer["must_wait"] <= Decimal("1.2")
    assert child.poll() is None
    assert child.wait() == ALLOWED
    assert waits(start, time.monotonic()) >= answer["must_wait"] and printed - start < answer["must_wait"]
    assert child.stdout.read() == ""


def test_a_wait_is_the_first_field_of_the_line(run, ask):
    ask("consume", "k", *QUEUE)
    done = run("consume", "k", *QUEUE, "--max-wait", "10s")
    assert re.fullmatch(r"wait \d+ ms  allowed  k  \[#{10}\] 2/1  next drop in \d+ ms\n", done.stdout), done.stdout
    run("reset", "k")
    assert run("consume", "k", *QUEUE, "--max-wait", "10s").stdout.startswith("allowed  k  [")  # nothing to wait for


def test_max_wait_denies_what_would_wait_longer(run, ask):
    ask("consume", "k", *LIMIT, "--amount", "10")
    start = time.monotonic()
    code, answer = ask("consume", "k", *LIMIT, "--max-wait", "1h", fields=LONG)
    assert (code, answer["must_wait"], answer["granted"], answer["level"]) == (DENIED, 0, 0, 10)
    assert nearly(answer["retry_after"], DAY - 3600)
    assert ask("wait", "k", *LIMIT, "--max-wait", "1h", fields=LONG)[0] == DENIED
    done = run("wait", "k", *LIMIT, "--amount", "12", "--max-wait", "1h")
    assert (done.returncode, done.stdout) == (DENIED, "denied   k  [##########] 10/10  12 drops never fit within 1 h\n")
    assert time.monotonic() - start < 60


def test_wait_is_served_in_turn(run, ask):
    ask("consume", "k", *QUEUE)
    start = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: (run("wait", "k", *QUEUE).returncode, time.monotonic() - start), range(3)))
    assert [code for code, _ in answers] == [ALLOWED] * 3
    ends = sorted(end for _, end in answers)
    assert 0.3 < ends[0] and ends[0] + 0.2 < ends[1] and ends[1] + 0.2 < ends[2], ends
    assert waits(0, ends[2]) >= 1.2 - 0.4


def test_wait_asks_again_after_a_block(run, ask):
    limit = ("--rate", "1/2s", "--block", "2s")  # two seconds are enough for the start of a command
    ask("consume", "k", *limit)
    start = time.monotonic()
    code, answer = ask("consume", "k", *limit, "--amount", "1")
    assert (code, answer["blocked_for"]) == (DENIED, Decimal(2))
    done = run("wait", "k", *limit)
    assert waits(start, time.monotonic()) >= 2
    first, second = done.stdout.splitlines()
    assert done.returncode == ALLOWED
    assert re.fullmatch(r"blocked  k  \[.{10}\] [01]/1  for [\d.]+ m?s; then it asks again", first), first
    assert second.startswith("allowed  k  ")


def test_wait_is_denied_at_once_if_a_block_is_longer_than_max_wait(run, ask):
    limit = (*LIMIT, "--block", "1h")
    ask("consume", "k", *limit, "--amount", "10")
    ask("consume", "k", *limit)
    done = run("wait", "k", *limit, "--max-wait", "59m")
    assert done.returncode == DENIED and re.fullmatch(r"blocked  k  .*  for 1 h; retry in .*\n", done.stdout), done.stdout


def test_wait_starts_no_block_however_short_its_max_wait(run, ask):
    """The time of the question counts, too. When nothing is left of --max-wait, the call is one without a max_wait."""
    limit = (*LIMIT, "--block", "1h")
    ask("consume", "k", *limit, "--amount", "10")
    for max_wait in "0s", "1us", "50us":
        code, answer = ask("wait", "k", *limit, "--max-wait", max_wait, fields=LONG)
        assert (code, answer["blocked_for"], ask("peek", "k", *limit)[1]["blocked_for"]) == (DENIED, 0, 0), max_wait
    assert run("consume", "k", *limit, "--max-wait", "0s").stdout.startswith("blocked  k  ")  # as without --max-wait


def test_wait_starts_no_block_if_its_time_is_used_up_after_a_block(steady, tmp_path, ask):
    """The command is stopped until its time is over. Meanwhile the bucket was filled."""
    limit = ("--capacity", "5", "--recharge", "200ms", "--block", "1s")
    ask("consume", "k", *limit, "--amount", "5")
    assert ask("consume", "k", *limit, "--amount", "5")[1]["blocked_for"] == 1
    child = subprocess.Popen([steady, "wait", "k", *limit, "--max-wait", "1100ms"], stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "STEADY_STORE": f"file:{tmp_path}/buckets"})
    assert "then it asks again" in child.stdout.readline()
    child.send_signal(signal.SIGSTOP)
    ask("consume", "k", *limit, "--amount", "100000", "--charge", fields=LONG)
    time.sleep(1.3)
    child.send_signal(signal.SIGCONT)
    assert child.stdout.read().startswith("denied   k  ") and child.wait() == DENIED
    child.stdout.close()
    assert ask("peek", "k", *limit)[1]["blocked_for"] == 0


class Waiter:
    """A command that has printed its place in line, and sleeps."""

    def __init__(self, steady, tmp_path, *args, prints=True):
        self.child = subprocess.Popen([steady, *args], env={**os.environ, "STEADY_STORE": f"file:{tmp_path}/buckets"},
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.line = self.child.stdout.readline() if prints else ""

    def end(self, number):
        self.child.send_signal(number)
        out, err = self.child.communicate(timeout=60)
        return self.child.returncode, out, err


@pytest.mark.parametrize("verb", [("wait",), ("consume", "--max-wait", "365d")], ids=["wait", "consume"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_up_the_place_in_line(run, ask, steady, tmp_path, verb, number):
    ask("consume", "k", *LIMIT, "--amount", "10")
    waiter = Waiter(steady, tmp_path, *verb, "k", *LIMIT, "--amount", "3")
    assert waiter.line.startswith("wait 3 d  allowed  k  ")
    assert ask("peek", "k", *LIMIT)[1]["level"] == 13
    assert waiter.end(number) == (-number, "", "")
    assert ask("peek", "k", *LIMIT)[1]["level"] == 10


def test_a_signal_during_a_block_ends_wait(ask, steady, tmp_path):
    limit = (*LIMIT, "--block", "1h")
    ask("consume", "k", *limit, "--amount", "10")
    ask("consume", "k", *limit)
    waiter = Waiter(steady, tmp_path, "wait", "k", *limit)
    assert "then it asks again" in waiter.line
    assert waiter.end(signal.SIGTERM) == (-signal.SIGTERM, "", "")
    assert ask("peek", "k", *limit)[1]["level"] == 10


@contextlib.contextmanager
def full_pipe():
    """The write end of a full pipe. Its other end is open, and not read."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"." * 4096)
    os.set_blocking(write, True)
    try:
        yield write
    finally:
        os.close(read), os.close(write)


@pytest.mark.parametrize("blocks", [True, False], ids=["blocking", "nonblocking"])
@pytest.mark.parametrize("verb", [("wait",), ("consume", "--max-wait", "365d"), ("wait", "--json"), ("reserve", "--max-wait", "1s")],
                         ids=["wait", "consume", "json", "reserve"])
def test_a_signal_gives_up_the_place_also_while_the_output_is_blocked(ask, steady, tmp_path, verb, blocks):
    ask("consume", "k", *LIMIT, "--amount", "9" if verb[0] == "reserve" else "10")
    before = ask("peek", "k", *LIMIT)[1]["level"]
    with full_pipe() as write:
        os.set_blocking(write, blocks)
        child = subprocess.Popen([steady, *verb, "k", *LIMIT], env={**os.environ, "STEADY_STORE": f"file:{tmp_path}/buckets"},
                                 stdout=write, stderr=subprocess.PIPE)
        while ask("peek", "k", *LIMIT)[1]["level"] == before:
            time.sleep(0.05)
        time.sleep(0.3)  # it writes now
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        assert (child.wait(20), child.stderr.read()) == (-signal.SIGTERM, b"")
        child.stderr.close()
    assert ask("peek", "k", *LIMIT)[1]["level"] == before


def test_a_signal_ends_a_wait_that_cannot_say_that_the_key_is_blocked(ask, steady, tmp_path):
    limit = (*LIMIT, "--block", "1h")
    ask("consume", "k", *limit, "--amount", "10")
    ask("consume", "k", *limit)
    with full_pipe() as write:
        child = subprocess.Popen([steady, "wait", "k", *limit], env={**os.environ, "STEADY_STORE": f"file:{tmp_path}/buckets"},
                                 stdout=write)
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == -signal.SIGINT


def test_a_place_that_cannot_be_printed_is_given_up(run, ask):
    ask("consume", "k", *LIMIT, "--amount", "8")
    read, closed = os.pipe()
    os.close(read)
    with open("/dev/full", "w") as full:
        for out, error in ((full, "steady: cannot write to standard output: No space left on device\n"), (closed, "")):
            for args in (("wait", "--amount", "4"), ("consume", "--max-wait", "365d"), ("reserve",), ("reserve", "--json"),
                         ("reserve", "--max-wait", "1s")):
                done = run(*args, "k", *LIMIT, stdout=out)
                assert (done.returncode, done.stderr) == (UNKNOWN, error), args
                assert ask("peek", "k", *LIMIT)[1]["level"] == 8, args
    os.close(closed)


def test_a_shell_sees_130_and_ends_its_script(steady, tmp_path, ask):
    ask("consume", "k", *LIMIT, "--amount", "10")
    env = {**os.environ, "STEADY_STORE": f"file:{tmp_path}/buckets"}
    line = f"{steady} wait k {' '.join(LIMIT)}"
    with subprocess.Popen(["bash", "-c", f"{line}; echo went on"], env=env, stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as shell:
        shell.stdout.readline()
        os.killpg(shell.pid, signal.SIGINT)
        assert (shell.stdout.read(), shell.wait()) == ("", -signal.SIGINT)
    with subprocess.Popen(["sh", "-c", f"{line} & wait $! 2>/dev/null; echo $?"], env=env, stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as shell:
        shell.stdout.readline()
        pids = subprocess.run(["pgrep", "-P", str(shell.pid), "steady"], capture_output=True, text=True, check=True)
        os.kill(int(pids.stdout), signal.SIGTERM)
        assert shell.stdout.read() == "143\n"


def test_an_ignored_signal_does_not_end_the_wait(steady, tmp_path, ask):
    ask("consume", "k", "--rate", "1/2s")
    command = f"trap '' INT HUP; exec {steady} wait k --rate 1/2s"
    child = subprocess.Popen(["sh", "-c", command], env={**os.environ, "STEADY_STORE": f"file:{tmp_path}/buckets"},
                             stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGHUP)
    assert child.wait(60) == ALLOWED
    child.stdout.close()


# ---- Reserve, then settle ----


def reserve(run, *args, **kwargs):
    done = run("reserve", "k", *args, **kwargs)
    assert (done.returncode, done.stderr) == (ALLOWED, ""), done
    assert re.fullmatch(r"r1,[!-~]+;\n", done.stdout), done.stdout
    return done.stdout.rstrip("\n")


def test_a_lower_cost_is_given_back_and_a_higher_one_is_charged(run, ask):
    done = run("settle", reserve(run, *LIMIT, "--amount", "8"), "3")
    assert (done.returncode, done.stdout) == (ALLOWED, "settled  k  [###.......] 3/10  gave back 5 drops\n")
    done = run("settle", reserve(run, *LIMIT, "--amount", "4"), "9")
    assert done.stdout == "settled  k  [##########] 12/10  charged 5 more\n"
    ask("reset", "k")
    done = run("settle", reserve(run, *LIMIT, "--amount", "4"), "4")
    assert done.stdout == "settled  k  [####......] 4/10  nothing changed\n"
    reservation = reserve(run, *LIMIT, "--amount", "4")
    done = run("settle", reservation, "0", "--json")
    answer = json.loads(done.stdout, parse_float=Decimal)
    assert list(answer) == ["success", "error", "source", "limits"]
    (limit,) = answer["limits"]
    assert list(limit) == ["name", "given_back", "charged", "level", "until_next_drop", "blocked_for"]
    assert (limit["name"], limit["charged"], limit["level"]) == ("1d", 0, 4) and 3 < limit["given_back"] <= 4


def test_a_reservation_of_several_limits_is_settled_by_name(run, ask):
    reservation = reserve(run, *SEVERAL, "--amount", "8", "--prefix", "shop:")
    done = run("settle", reservation, "week=3")
    assert done.stdout == "settled  shop:{k}week  [##........] 3/20  gave back 5 drops\n"
    levels = [limit["level"] for limit in ask("peek", "k", *SEVERAL, "--prefix", "shop:", fields=[*FIELDS, "limit", "limits"])[1]["limits"]]
    assert levels == [8, 3]  # what is not named stays charged
    reservation = reserve(run, *SEVERAL, "--amount", "2")
    done = run("settle", reservation, "burst=1", "week=4")
    assert done.stdout.splitlines() == ["settled  {k}burst  [#.........] 1/10  gave back 1 drop",
                                        "settled  {k}week   [##........] 4/20  charged 2 more"]
    done = run("settle", reserve(run, *SEVERAL, "--amount", "2"), "0")
    assert done.stdout.count("settled") == 2


def test_a_reservation_may_come_on_standard_input(run):
    reservation = reserve(run, *LIMIT, "--amount", "8")
    for text in (reservation, reservation + "\n", reservation + "\r\n"):
        assert run("settle", "-", "8", stdin=None, input=text).returncode == ALLOWED
    done = run("settle", "-", "8", stdin=None, input=reservation + "\nmore")
    assert done.returncode == USAGE and "not a reservation" in done.stderr
    assert run("settle", "-", "8", stdin=None, input="r1,1,0;" + "k" * 1000000).returncode == USAGE


def test_standard_input_that_is_more_than_a_reservation_is_refused(run, ask):
    reservation = reserve(run, *LIMIT, "--amount", "8")
    for text, says in ((reservation + "\0more", "standard input has a NUL byte"), (reservation + "\n\0", "standard input has a NUL byte"),
                       (reservation + "\n" * (1 << 18) + "more", "standard input has more than 262144 bytes")):
        done = run("settle", "-", "8", stdin=None, input=text)
        assert (done.returncode, done.stdout) == (USAGE, "") and says in done.stderr, done
    assert ask("peek", "k", *LIMIT)[1]["level"] == 8
    assert run("settle", "-", "8", stdin=None, input=reservation + "\n" * ((1 << 18) - len(reservation))).returncode == ALLOWED


def test_settle_without_memory_for_its_input_is_unavailable(run, tmp_path):
    """malloc fails for the buffer of standard input, and for nothing else."""
    (tmp_path / "shim.c").write_text(
        "#include <stddef.h>\nvoid *__libc_malloc(size_t size);\n"
        "void *malloc(size_t size) { return size == (1 << 18) + 1 ? NULL : __libc_malloc(size); }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.c"], check=True)
    done = run("settle", "-", "8", stdin=None, input=ONE, env={"LD_PRELOAD": str(tmp_path / "shim.so")})
    assert (done.returncode, done.stdout, done.stderr) == (UNAVAILABLE, "", "steady: out of memory; nothing was charged\n")


def test_settle_takes_the_limit_of_today(run, ask):
    """A limit was raised since. By the limit of the reservation it would give back the drops of others."""
    today = ("--rate", "20/d", "--prefix", "p:")
    done = run("settle", reserve(run, "--rate", "10/d", "--prefix", "p:", "--amount", "8"), "3", *today)
    assert (done.returncode, done.stdout) == (ALLOWED, "settled  p:k  [####......] 8/20  nothing changed\n")
    done = run("settle", reserve(run, *today, "--amount", "4"), "9", *today)
    assert done.stdout == "settled  p:k  [#########.] 17/20  charged 5 more\n"
    done = run("settle", reserve(run, *today, "--amount", "2"), "1", "--rate", "20/d burst 100", "--prefix", "p:")
    assert done.stdout == "settled  p:k  [##........] 18/100  gave back 1 drop\n"
    done = run("settle", reserve(run, *LIMIT, "--amount", "2"), "1", *LIMIT)
    assert done.stdout == "settled  k  [#.........] 1/10  gave back 1 drop\n"


def test_settle_takes_the_limits_of_today_by_name(run):
    reservation = reserve(run, *SEVERAL, "--rate", "5/3d", "--amount", "4")
    done = run("settle", reservation, "1", "--rate", "10/3d", "--rate", "week=20/week burst 50", "--rate", "burst=40/d")
    assert done.stdout.splitlines() == ["settled  {k}burst  [#.........] 4/40  nothing changed",
                                        "settled  {k}week   [#.........] 1/50  gave back 3 drops",
                                        "settled  {k}3d     [####......] 4/10  nothing changed"]
    done = run("settle", reservation, "week=0", "--rate", "week=20/week", "--rate", "other=1/d")
    assert done.returncode == ALLOWED and done.stdout.count("settled") == 1  # only what is settled needs its limit


def test_a_denied_reservation_leaves_standard_output_empty(run, ask):
    ask("consume", "k", *LIMIT, "--amount", "9")
    done = run("reserve", "k", *LIMIT, "--amount", "2")
    assert (done.returncode, done.stdout) == (DENIED, "")
    assert done.stderr == "denied   k  [#########.] 9/10  retry in 1 d\n"
    code, answer = ask("reserve", "k", *LIMIT, "--amount", "2", fields=[*LONG, "reservation"])
    assert (code, answer["success"], answer["reservation"]) == (DENIED, False, None)
    code, answer = ask("reserve", "k", *LIMIT, "--amount", "2", "--at-least", "1", fields=[*LONG, "reservation"])
    assert (code, answer["granted"]) == (ALLOWED, 1)
    assert run("settle", answer["reservation"], "0").stdout.endswith("gave back 1 drop\n")


def test_a_reservation_with_max_wait_is_printed_after_the_wait(run, ask, steady, tmp_path):
    ask("consume", "k", *QUEUE)
    start = time.monotonic()
    reservation = reserve(run, *QUEUE, "--max-wait", "10s")
    assert waits(start, time.monotonic()) > 0.2
    assert "settled  k" in run("settle", reservation, "0").stdout
    ask("consume", "slow", *LIMIT, "--amount", "10")
    waiter = Waiter(steady, tmp_path, "reserve", "slow", *LIMIT, "--max-wait", "365d", prints=False)
    while ask("peek", "slow", *LIMIT)[1]["level"] < 11:
        time.sleep(0.05)
    assert waiter.end(signal.SIGINT) == (-signal.SIGINT, "", "")
    assert ask("peek", "slow", *LIMIT)[1]["level"] == 10


def test_another_store_has_other_buckets(run, tmp_path):
    """A reservation does not name its store. Another store charges what is too little, and has nothing to give back."""
    reservation = reserve(run, *LIMIT, "--amount", "8")
    other = {"STEADY_STORE": f"file:{tmp_path}/other"}
    assert run("settle", reservation, "3", env=other).stdout == "settled  k  [..........] 0/10  nothing changed\n"
    assert run("settle", reservation, "9", env=other).stdout == "settled  k  [#.........] 1/10  charged 1 more\n"
    assert run("settle", reservation, "3", env={"STEADY_STORE": "file:/nowhere/at/all"}).returncode == UNAVAILABLE


# ---- Output for people ----


@pytest.mark.parametrize("args, line", [
    (("consume", "user:42", *LIMIT, "--amount", "7"), r"allowed  user:42  \[#######\.\.\.\] 7/10  next drop in 1 d"),
    (("consume", "user:42", *LIMIT, "--amount", "0"), r"allowed  user:42  \[\.{10}\] 0/10  empty"),
    (("consume", "k", *LIMIT, "--amount", "11"), r"denied   k  \[\.{10}\] 0/10  11 drops never fit"),
    (("consume", "k", "--capacity", "1000", "--recharge", "90m"), r"allowed  k  \[#\.{9}\] 1/1000  next drop in 1 h 30 m"),
    (("consume", "k", "--capacity", "3", "--recharge", "3.2s"), r"allowed  k  \[####\.{6}\] 1/3  next drop in 3\.2 s"),
    (("consume", "k", "--rate", "8/s"), r"allowed  k  \[##\.{8}\] 1/8  next drop in 125 ms"),
    (("consume", "k", "--rate", "1/us"), r"allowed  k  \[#{10}\] 1/1  next drop in 1 us"),
    (("consume", "k", "--rate", "1/59.95s"), r"allowed  k  .* next drop in 1 m"),
    (("consume", "k", "--rate", "1/61s"), r"allowed  k  .* next drop in 1 m 1 s"),
    (("consume", "k", "--rate", "1/25h"), r"allowed  k  .* next drop in 1 d 1 h"),
    (("peek", "k", *LIMIT), r"free     k  \[\.{10}\] 0/10  empty"),
    (("reset", "k"), r"reset    k  empty"),
    (("consume", "a\tb\\\u00e9", *LIMIT), r"allowed  a\\x09b\\\\\\xc3\\xa9  .*"),
    (("consume", *LIMIT, "--", "--json"), r"allowed  --json  .*"),
    (("consume", "-", *LIMIT), r"allowed  -  .*"),
])
def test_an_allowed_decision_prints_its_line(run, args, line):
    done = run(*args)
    assert re.fullmatch(line + "\n", done.stdout), done.stdout
    assert done.stderr == ""


def test_a_denied_decision_prints_its_line(run):
    limit = ("--capacity", "2", "--recharge", "1d", "--block", "1m")
    run("consume", "k", *limit, "--amount", "2")
    assert re.fullmatch(r"full     k  \[#{10}\] 2/2  retry in 1 d\n", run("peek", "k", *limit).stdout)
    assert re.fullmatch(r"blocked  k  \[#{10}\] 2/2  for (1 m|59.* s); retry in 1 d\n", run("consume", "k", *limit).stdout)
    assert re.fullmatch(r"blocked  k  \[#{10}\] 2/2  for (1 m|59.* s); 3 drops never fit\n",
                        run("consume", "k", *limit, "--amount", "3").stdout)
    assert re.fullmatch(r"allowed  k  \[\.{10}\] 0/2  blocked for (1 m|59.* s)\n",
                        run("consume", "k", *limit, "--amount", "-5").stdout)
    assert re.fullmatch(r"blocked  k  \[\.{10}\] 0/2  for (1 m|59.* s)\n", run("peek", "k", *limit).stdout)
    assert re.fullmatch(r"allowed  over  \[#{10}\] 1/1  .*\n", run("consume", "over", "--rate", "1/d").stdout)
    run("consume", "over", *LIMIT, "--amount", "9")
    assert re.fullmatch(r"denied   over  \[#{10}\] 10/1  retry in 10 d\n", run("consume", "over", "--rate", "1/d").stdout)


# ---- Wrong usage ----


ONE = "r1,1,0;k,1d,0,0,10,86400000000,1,5,5,1;"
TWO = "r1,2,0;%7Bk%7Da,a,0,1,10,86400000000,1,5,5,1;%7Bk%7Db,b,0,1,10,86400000000,1,6,6,1;"

@pytest.mark.parametrize("args, says", [
    ((), "a command is needed"),
    (("consum", "k"), 'unknown command "consum"; did you mean consume?'),
    (("pek",), "did you mean peek?"),
    (("frobnicate",), 'unknown command "frobnicate"; see steady help'),
    (("--json", "peek"), '"--json" is not a command; write options after the command'),
    (("",), 'unknown command ""'),
    (("help", "rest"), "did you mean reset?"),
    (("help", "peek", "reset"), 'unexpected argument "reset"; usage: steady help [COMMAND]'),
    (("version", "x"), 'unexpected argument "x"; usage: steady version'),
    (("consume", *LIMIT), "consume needs a KEY; usage: steady consume KEY"),
    (("peek", "k", "l", *LIMIT), 'unexpected argument "l"; usage: steady peek KEY'),
    (("consume", "k", "l", "m", "n", *LIMIT), 'unexpected argument "l"'),
    (("peek", "k", "--rate", "9/s", "burst", "20"), "write the rate in quotes: --rate '100/min burst ...'"),
    (("consume", "k", "--capcity", "1"), 'unknown option "--capcity"; did you mean --capacity?'),
    (("consume", "k", "--cap=1"), 'unknown option "--cap=..."; did you mean --capacity?'),
    (("consume", "k", "--rtae=1"), "did you mean --rate?"),
    (("consume", "k", "--colour"), 'unknown option "--colour"; see steady help consume'),
    (("consume", "k", "--capacity", "1"), "a limit is needed: --recharge is missing; use --rate 100/min"),
    (("consume", "k", "-j"), 'unknown option "-j"; see steady help consume'),
    (("consume", "k", "--=1"), 'unknown option "--=..."'),
    (("consume", "k", "--" + "x" * 100), "see steady help consume"),
    (("peek", "k", *LIMIT, "--amount", "2"), "peek has no option --amount; see steady help peek"),
    (("version", "--json"), "version has no option --json"),
    (("bench", "--amount", "2"), "bench has no option --amount"),
    (("bench", "--prefix", "x" * 1000), "--prefix is 1000 bytes long; for bench it must be at most 976"),
    (("consume", "k", *LIMIT, "--json", "--json"), "--json is given twice"),
    (("consume", "k", *LIMIT, "--capacity=10"), "--capacity is given twice"),
    (("consume", "k", "--json=yes", *LIMIT), "--json takes no value"),
    (("consume", "k", "--capacity"), "--capacity needs a value: --capacity N"),
    (("consume", "k", "--rate"), "--rate needs a value: --rate [NAME=]RATE"),
    (("consume", "k"), "a limit is needed: --rate 100/min, or --capacity 10 --recharge 5s"),
    (("consume", "k", "--capacity", "10"), "a limit is needed"),
    (("peek", "k", "--recharge", "5s"), "a limit is needed"),
    (("reset", "k", "--recharge", "5s"), "a limit is needed"),
    (("consume", "k", "--rate", "3/s", "--recharge", "5s"), "--rate and --recharge cannot be used together"),
    (("consume", "k", "--rate", "100/60"), '--rate: rate period "60" lacks a unit: did you mean "60s"?'),
    (("consume", "k", "--rate", "fast"), '--rate: rate "fast": write a count, a slash and a period'),
    (("consume", "k", "--rate", "0/s"), "the count must be 1 .. 2147483647"),
    (("consume", "k", "--rate", "2147483647/285d"), "that count must be at most 1000000"),
    (("consume", "k", "--capacity", "10", "--recharge", "5"), 'duration "5" lacks a unit: did you mean "5s"?'),
    (("consume", "k", "--capacity", "10", "--recharge", "0s"), '--recharge: "0s" is not between 1 us and'),
    (("consume", "k", "--capacity", "10", "--recharge", "-5s"), '--recharge: "-5s" is not between 1 us and'),
    (("consume", "k", *LIMIT, "--block=-5s"), '--block: "-5s" is not between 0 us and'),
    (("consume", "k", *LIMIT, "--max-wait", "-1us"), '--max-wait: "-1us" is not between 0 us and 4503599627370496 us'),
    (("consume", "k", *LIMIT, "--max-wait", "52125d"), '--max-wait: "52125d" is not between 0 us and 4503599627370496 us'),
    (("wait", "k", *LIMIT, "--max-wait", "5"), 'lacks a unit: did you mean "5s"?'),
    (("consume", "k", *LIMIT, "--at-least", "0"), '--at-least: "0" is not a whole number from 1 to 2147483647'),
    (("consume", "k", *LIMIT, "--at-least", "2"), '--at-least: "2" is more than --amount, which is 1; it must be from 1'),
    (("consume", "k", *LIMIT, "--at-least", "1", "--amount", "-3"), "is more than --amount, which is -3"),
    (("consume", "k", *LIMIT, "--charge", "--at-least", "1"), "--at-least and --charge cannot be used together"),
    (("consume", "k", *LIMIT, "--charge", "--max-wait", "1s"), "--max-wait and --charge cannot be used together"),
    (("consume", "k", *LIMIT, "--charge", "--amount", "-1"), '--amount: "-1" is not a whole number from 0 to 2147483647'),
    (("wait", "k", *LIMIT, "--amount", "0"), '--amount: "0" is not a whole number from 1 to 2147483647'),
    (("reserve", "k", *LIMIT, "--amount", "-1"), '--amount: "-1" is not a whole number from 1 to 2147483647'),
    (("reserve", "k", *LIMIT, "--on-error", "allow"), "reserve has no option --on-error"),
    (("wait", "k", *LIMIT, "--charge"), "wait has no option --charge"),
    (("peek", "k", *LIMIT, "--max-wait", "1s"), "peek has no option --max-wait"),
    (("consume", "k", "--rate", "10/s", "--rate", "20/1s"), "--rate: number 1 and number 2 have one period; name them"),
    (("consume", "k", "--rate", "a=10/s", "--rate", "b=1/h", "--rate", "a=1/m"), 'two rates have the name "a"'),
    (("consume", "k", "--rate", "1s=10/h", "--rate", "20/s"), 'the name "1s" is that of limits[0]'),
    (("consume", "k", "--rate", "a{b=10/s"), '--rate: "a{b=10/s": name must be 1 .. 64 printable ASCII bytes'),
    (("consume", "k", "--rate", "=10/s"), '--rate: "=10/s": name must be 1 .. 64'),
    (("consume", "k", "--rate", "a b=10/s", "--rate", "1/h"), "name must be 1 .. 64 printable ASCII bytes without spaces"),
    (("consume", "k", "--rate", "a=10/60"), '--rate: rate period "60" lacks a unit'),
    (("consume", "k", "--rate", "n" * 65 + "=10/s"), "name must be 1 .. 64"),
    (("consume", "k", "--rate", "n" * 100 + "=10/s"), '" is not NAME=RATE, such as burst=10/s'),
    (("consume", "k", *(["--rate", "10/s"] * 65)), "--rate is given more than 64 times"),
    (("consume", "k", *SEVERAL, "--capacity", "5"), "--capacity and several --rate cannot be used together"),
    (("consume", "k", *SEVERAL, "--recharge", "5s"), "--rate and --recharge cannot be used together"),
    (("peek", "k" * 1020, *SEVERAL), "steady: prefix, key and name have more than 1024 bytes together"),
    (("consume", "", *SEVERAL), "KEY is 0 bytes long"),
    (("settle",), "settle needs a RESERVATION and an ACTUAL; usage: steady settle RESERVATION ACTUAL"),
    (("settle", "r1"), "settle needs a RESERVATION and an ACTUAL"),
    (("settle", "r1,1;k,1d", "3"), 'RESERVATION: "r1,1;k,1d": the text is not a reservation, or a part of it is missing'),
    (("settle", "", "3"), 'RESERVATION: "": the text is not a reservation'),
    (("settle", "-", "3"), 'RESERVATION: "": the text is not a reservation'),  # nothing on standard input
    (("settle", ONE, "-3"), 'ACTUAL: "-3" is not a whole number from 0 to 9007199254740991'),
    (("settle", ONE, "1d=-3"), 'ACTUAL: "1d=-3" is not a whole number from 0 to 9007199254740991'),
    (("settle", ONE, "9007199254740992"), "from 0 to 9007199254740991"),
    (("settle", ONE, "1.5"), 'ACTUAL: "1.5" is not a whole number'),
    (("settle", ONE, ""), 'ACTUAL: "" is not a whole number'),
    (("settle", ONE, "1h=3"), '"1h=3": the reservation has no limit of this name; it has 1d'),
    (("settle", TWO, "3"), "the reservation has 5 of limit a and 6 of limit b; write NAME=ACTUAL for each"),
    (("settle", TWO, "c=3"), '"c=3": the reservation has no limit of this name; it has a, b'),
    (("settle", TWO, "a=3", "a=4"), '"a=4": this limit is named twice'),
    (("settle", TWO, "a=3", "4"), '"4" is not NAME=ACTUAL; write one ACTUAL for all limits, or NAME=ACTUAL for each'),
    (("settle", ONE, "3", "--amount", "1"), "settle has no option --amount"),
    (("settle", ONE, "3", "--capacity", "5"), "a limit is needed: --recharge is missing"),
    (("settle", ONE, "3", "--rate", "1/d", "--prefix", "other:"),
     'part 0 of the reservation (limit "1d") belongs to none of the throttlers; give all limits and the --prefix that reserve had'),
    (("settle", TWO, "a=3", "--rate", "b=1/s", "--rate", "c=1/s"), '(limit "a") belongs to none'),
    (("settle", ONE.replace("5,5,1;", "-5,-5,1;"), "3"), "took drops out; it cannot be settled"),
    (("consume", "k", "--capacity", "0", "--recharge", "5s"), '--capacity: "0" is not a whole number from 1 to 2147483647'),
    (("consume", "k", "--capacity", "2147483648", "--recharge", "5s"), "from 1 to 2147483647"),
    (("consume", "k", "--capacity", "nan", "--recharge", "5s"), '--capacity: "nan"'),
    (("consume", "k", "--capacity", "2147483647", "--recharge", "1h"), "max_capacity * drop_recharge is 2147483647 *"),
    (("consume", "k", *LIMIT, "--block", "1w"), "unknown unit; the units are us ms s m h d"),
    (("consume", "k", *LIMIT, "--block", "52125d"), '--block: "52125d" is not between 0 us and 4503599627370495 us'),
    (("wait", "k", *LIMIT, "--max-wait", "52125d"), '--max-wait: "52125d" is not between 0 us and 4503599627370496 us'),
    (("consume", "k", *LIMIT, "--max-wait", "4503599627370497us"), "is not between 0 us and 4503599627370496 us"),
    (("consume", "k", *LIMIT, "--timeout", "0s"), '--timeout: "0s" is not between 1 us and 1 d'),
    (("consume", "k", *LIMIT, "--timeout", "0"), '--timeout: "0" is not between 1 us and 1 d'),
    (("consume", "k", "--capacity", "10", "--recharge", "00"), '--recharge: "00" is not between 1 us and 9007199254740991 us'),
    (("consume", "k", *LIMIT, "--block", "0"), 'lacks a unit: did you mean "0s"?'),
    (("consume", "k", *LIMIT, "--timeout", "25h"), '--timeout: "25h" is not between 1 us and 1 d'),
    (("consume", "k", *LIMIT, "--engine", "lua"), '--engine: "lua" is not one of auto, script, module'),
    (("consume", "k", *LIMIT, "--on-error", "alow"), '--on-error: "alow" is not one of report, deny, allow, local'),
    (("bench", "--seconds", "0"), '--seconds: "0" is not a whole number from 1 to 3600'),
    (("bench", "--keys", "-1"), "--keys: "),
    (("bench", "--in-flight", "65537"), "from 1 to 65536"),
    (("consume", "", *LIMIT), "KEY is 0 bytes long; it must be 1 .. 1024"),
    (("consume", "k" * 1025, *LIMIT), "KEY is 1025 bytes long; it must be 1 .. 1024"),
    (("consume", "k" * 1020, "--prefix", "12345", *LIMIT), "KEY is 1020 bytes long; with this prefix it must be 1 .. 1019"),
    (("consume", "k", "--prefix", "x" * 1100, *LIMIT), "--prefix is 1100 bytes long; it must be at most 1023"),
    (("reset", "k", "--prefix", "x" * 1024), "--prefix is 1024 bytes long; it must be at most 1023"),
    (("peek", "", "--prefix", "x" * 1023, *LIMIT), "KEY is 0 bytes long; with this prefix it must be 1 .. 1"),
    (("consume", "k", *LIMIT, "--store", ""), '--store is empty; omit it to use $STEADY_STORE or your own file'),
    (("consume", "k", *LIMIT, "--store", "nonsense"), 'the store URL "nonsense" does not begin with'),
    (("consume", "k", *LIMIT, "--store", "http://localhost"), 'does not begin with memory:'),
    (("consume", "k", *LIMIT, "--store", "redis://localhost:0"), 'port'),
    (("consume", "k", *LIMIT, "--store", "redis://localhost:65536"), '1 .. 65535'),
])
def test_wrong_usage_is_quoted_and_corrected(run, args, says):
    done = run(*args)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr.startswith("steady: ") and says in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 or not args


def test_a_very_long_argument_is_cut(run):
    for args in (("x" * 100000,), ("consume", "k", "--" + "y" * 100000), ("consume", "k", "--rate", "9" * 100000),
                 ("consume", "k", "--capacity", "z\n" * 50000), ("consume", "k", *LIMIT, "--store", "s" * 100000)):
        done = run(*args)
        assert done.returncode == USAGE and len(done.stderr) < 400, done.stderr
        assert done.stderr.isascii() and done.stderr.count("\n") == 1


def test_the_longest_key_is_accepted(run):
    assert run("consume", "k" * 1024, *LIMIT).returncode == ALLOWED
    assert run("consume", "\x01" * 1024, *LIMIT).stdout.startswith("allowed  " + "\\x01" * 1024)
    assert run("consume", "k" * 1000, "--prefix", "p" * 24, *LIMIT).returncode == ALLOWED


def test_a_password_is_never_shown(run, closed_port):
    canary = "hunter2canary"
    for url in (f"redis://user:{canary}@127.0.0.1:{closed_port}", f"redis://:{canary}@127.0.0.1:0",
                f"redis://u:{canary}@@h/notanumber", f"rediss://u:{canary}@h", f"http://u:{canary}@h",
                f"redis://u:{canary}@h:99999", f"unix://u:{canary}@/nowhere", f"redis://u:{canary}%zz@h",
                f"redis://h?passwd={canary}&db=1", f"redis+sentinel://h/s?sentinel_pasword={canary}",
                f"http://h?auth={canary}"):
        for how in (("--store", url), ("--json", "--store", url)):
            done = run("consume", "k", *LIMIT, *how)
            assert done.returncode in (USAGE, UNAVAILABLE)
            assert canary not in done.stdout + done.stderr
    url = f"redis://u:{canary}@h/1"
    in_option = f"redis+sentinel://h/s?sentinel_password={canary}"
    for misplaced in (url, in_option):
        for args in ((f"--stor={misplaced}",), (misplaced,), ("--capacity", misplaced), ("--on-error", misplaced)):
            done = run("consume", "k", *args)
            assert done.returncode == USAGE and canary not in done.stderr, done
    assert '"redis+sentinel://h/s?sentinel_password=***"' in run(in_option).stderr
    assert '"redis://***"' in run("redis://u:a?b@h?c=d").stderr
    assert '"redis://***@h/1"' in run(url).stderr


CANARY = "Hunter2Canary"
MISPLACED = [f"redis://u:{CANARY}@h/1", f"redis:u:{CANARY}@h", f"redis:{CANARY}", f"redis//u:{CANARY}@h", f"u:{CANARY}@h",
             f"redis://h?pasword={CANARY}", f"redis+sentinel://h/s?sentinel_password={CANARY}",
             f"unix:u:{CANARY}@/x", f"unix:/u:{CANARY}@x", f"redis%3A%2F%2Fu%3A{CANARY}%40h", f"password={CANARY}",
             f"http://u:{CANARY}@h", f"rediss://h:{CANARY}", f"x\nredis://u:{CANARY}@h"]


def options_of(run, command):
    return re.findall(r"^  --([a-z-]+) [A-Z]", run("help", command).stdout, re.M)


@pytest.mark.parametrize("url", MISPLACED, ids=range(len(MISPLACED)))
def test_a_url_in_any_wrong_place_shows_no_password(run, url):
    """The URL is the value of each option, joined or apart; a command; an option; a surplus argument; a topic of help."""
    places = [(url,), (f"--{url}",), (f"-{url}",), (f"--store={url}", "consume", "k"), ("help", url), ("help", "help", url),
              ("version", url), ("consume", "k", url, *LIMIT), ("consume", "k", f"--{url}"), ("consume", "k", "--json=" + url),
              ("consume", "k", "--pasword=" + url), ("consume", "k", "--stor", url), ("bench", url)]
    for command in "consume", "peek", "reset", "wait", "reserve", "settle", "bench":
        key = {"bench": (), "settle": (ONE, "3")}.get(command, ("k",))
        for option in options_of(run, command):
            if option == "prefix":
                continue  # any value is valid
            places += [(command, *key, f"--{option}", url), (command, *key, f"--{option}={url}")]
    places += [("settle", url, "3"), ("settle", ONE, url), ("settle", ONE, "3", url), ("settle", ONE, url, "1d=3"),
               ("consume", "k", "--rate", url + "=1/x"), ("consume", "k", "--rate", f"x=1/{url}")]
    assert len(places) > 100
    for args in places:
        done = run(*args)
        assert done.returncode in (USAGE, UNAVAILABLE), done
        assert CANARY not in done.stdout + done.stderr, done
        assert done.stderr.startswith("steady: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("url", MISPLACED, ids=range(len(MISPLACED)))
def test_a_url_in_the_environment_shows_no_password(run, url):
    for args in (("consume", "k", *LIMIT), ("bench", "--seconds", "1")):
        done = run(*args, env={"STEADY_STORE": url})
        assert done.returncode in (USAGE, UNAVAILABLE) and CANARY not in done.stdout + done.stderr, done


def test_a_url_in_place_of_the_key_is_shown_without_its_password(run):
    done = run("consume", f"redis://u:{CANARY}@h", *LIMIT)
    assert done.returncode == ALLOWED and done.stdout.startswith("allowed  redis://***@h  ")
    for args in (("-p" + CANARY, "k"), ("consume", "k", "-p" + CANARY)):  # the password option of other commands
        assert '"-p..."' in run(*args).stderr
    assert run("consume", "mailto:anna@example.com", *LIMIT).stdout.startswith("allowed  mailto:anna@example.com  ")


# ---- The default store ----


PLACES = [Path("/var/tmp"), Path("/tmp")]


class Stranger:
    """Runs the command as a user without files in /var/tmp and /tmp."""

    def __init__(self, steady, directory):
        self.uid = 900000000 + os.getpid()
        self.steady = shutil.copy(steady, directory)
        self.own = [place / f"steady-{self.uid}" for place in PLACES]

    def start(self, *before, **env):
        return subprocess.Popen([*before, self.steady, "consume", "k", "--rate", "1/h"], env=env, user=self.uid,
                                group=self.uid, extra_groups=[], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True)

    def consume(self, **env):
        child = self.start(**env)
        out, err = child.communicate()
        return subprocess.CompletedProcess(child.args, child.returncode, out, err)

    def inside(self, setup):
        """Runs the command in a private mount namespace, after a shell script that prepares it."""
        become = f"exec setpriv --reuid {self.uid} --regid {self.uid} --clear-groups {self.steady} consume k --rate 1/h"
        done = subprocess.run(["unshare", "--mount", "sh", "-ec", f"{setup}; {become}"], env={"PATH": os.environ["PATH"]},
                              capture_output=True, text=True, check=False)
        if re.search("unshare failed|permission denied|mount: not found", done.stderr):
            pytest.skip("mounts are refused here")
        return done

    def directories(self):
        return [path for place in PLACES for path in place.glob(f"steady-{self.uid}*")]

    def mine(self):
        return [path for path in self.directories() if path.lstat().st_uid == self.uid and not path.is_symlink() and
                path.is_dir() and path.stat().st_mode & 0o777 == 0o700]

    def plant(self, path, kind):
        if kind == "symlink":
            path.symlink_to("/etc")
        elif kind == "file":
            path.write_text("not a directory")
        else:
            path.mkdir(mode=0o700)
        if kind in ("file", "open"):
            os.chown(path, self.uid, self.uid)
        if kind == "open":
            os.chmod(path, 0o770)

    def clean(self):
        for path in self.directories():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@pytest.fixture
def stranger(steady):
    if os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        stranger = Stranger(steady, directory)
        try:
            yield stranger
        finally:
            stranger.clean()


def test_the_default_store_is_one_file_for_all_sessions_of_a_user(stranger):
    runtimes = [Path(stranger.steady).parent / f"runtime {number}" for number in range(3)]
    for runtime in runtimes:
        runtime.mkdir(mode=0o700)
        os.chown(runtime, stranger.uid, stranger.uid)
    assert stranger.consume(XDG_RUNTIME_DIR=str(runtimes[0]), STEADY_STORE="").returncode == ALLOWED
    shutil.rmtree(runtimes[0])
    for env in ({"XDG_RUNTIME_DIR": str(runtimes[1])}, {"XDG_RUNTIME_DIR": str(runtimes[2]), "HOME": "/nowhere"}, {},
                {"HOME": "/root"}, {"TMPDIR": str(runtimes[1])}, {"XDG_STATE_HOME": str(runtimes[1])}):
        assert stranger.consume(**env).returncode == DENIED, env
    assert stranger.mine() == [stranger.own[0]]
    file = stranger.own[0] / "steady.buckets"
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (stranger.uid, 0o600) and file.stat().st_size < 4 << 20
    assert list(stranger.own[0].iterdir()) == [file]


def test_any_umask_leaves_the_default_store_usable(stranger):
    mask = os.umask(0o777)
    try:
        assert [stranger.consume().returncode for _ in range(2)] == [ALLOWED, DENIED]
    finally:
        os.umask(mask)


@pytest.mark.parametrize("kind", ["foreign", "symlink", "file", "open"])
def test_a_directory_name_taken_by_another_user_is_replaced(stranger, kind):
    for path in stranger.own:
        stranger.plant(path, kind)

    def identity(path):
        status = path.lstat()
        return status.st_ino, status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns

    before = [identity(path) for path in stranger.own]
    assert stranger.consume().returncode == ALLOWED
    assert stranger.consume().returncode == DENIED
    assert len(stranger.mine()) == 1
    for path, status in zip(stranger.own, before):
        assert identity(path) == status
        path.unlink() if kind in ("symlink", "file") else path.rmdir()
    assert stranger.consume().returncode == DENIED  # the same store, also when the name is free again
    assert len(stranger.mine()) == 1


def test_concurrent_commands_share_a_directory_if_the_name_is_taken(stranger):
    for path in stranger.own:
        stranger.plant(path, "foreign")
    children = [stranger.start() for _ in range(8)]
    for child in children:
        child.communicate()
    assert sorted(child.returncode for child in children) == [ALLOWED] + [DENIED] * 7


def test_without_var_tmp_the_default_store_is_in_tmp(stranger):
    assert stranger.inside("mount -t tmpfs -o mode=755 tmpfs /var").returncode == ALLOWED
    assert stranger.mine() == [stranger.own[1]]
    assert stranger.consume().returncode == DENIED  # an existing store is used before a new one is made
    assert stranger.mine() == [stranger.own[1]]


def test_a_directory_in_which_others_may_rename_is_not_used(stranger):
    assert stranger.inside("mount -t tmpfs -o mode=777 tmpfs /var/tmp").returncode == ALLOWED
    assert stranger.mine() == [stranger.own[1]]


def test_without_any_directory_the_command_reports_an_error(stranger):
    done = stranger.inside("mount -t tmpfs -o mode=755 tmpfs /var; mount -t tmpfs -o ro tmpfs /mnt; "
                           f"cp {stranger.steady} /var/steady; cd /var; mount --bind /mnt /tmp; "
                           f"exec setpriv --reuid {stranger.uid} --regid {stranger.uid} --clear-groups "
                           "/var/steady consume k --rate 1/h")
    assert (done.returncode, done.stdout) == (UNAVAILABLE, "")
    assert "/tmp: Read-only file system" in done.stderr and "--store" in done.stderr


def test_systemd_tmpfiles_keeps_the_default_store(stranger, tmp_path):
    if shutil.which("systemd-tmpfiles") is None:
        pytest.skip("there is no systemd-tmpfiles")
    assert stranger.consume().returncode == ALLOWED
    (stranger.own[0] / "old").write_text("deleted")
    (tmp_path / "clean.conf").write_text(f"e {stranger.own[0]} - - - 1s\n")
    time.sleep(1.5)
    subprocess.run(["systemd-tmpfiles", "--clean", tmp_path / "clean.conf"], capture_output=True, check=False)
    if (stranger.own[0] / "old").exists():
        pytest.skip("systemd-tmpfiles deletes nothing here")
    assert stranger.consume().returncode == DENIED


def test_a_file_that_is_no_store_stays_unchanged(run, ask, tmp_path):
    (tmp_path / "buckets").write_text("a shopping list\n")
    (tmp_path / "buckets").chmod(0o600)
    code, answer = ask("consume", "k", *LIMIT)
    assert code == UNAVAILABLE
    assert answer == {**dict.fromkeys(FIELDS), "error": "bad_file"}
    assert (tmp_path / "buckets").read_text() == "a shopping list\n"
    assert run("reset", "k", env={"STEADY_STORE": "file:/nowhere/at/all"}).returncode == UNAVAILABLE


# ---- Where the answer goes ----


def test_output_to_a_full_disk_is_unknown_if_charged(run):
    with open("/dev/full", "w") as full:
        done = run("consume", "k", *LIMIT, stdout=full)
        assert (done.returncode, done.stderr) == (UNKNOWN, "steady: cannot write to standard output: "
                                                           "No space left on device\n")
        for args in (("help",), ("help", "peek"), ("version",), ("peek", "k", *LIMIT),
                     ("consume", "k", *LIMIT, "--json", "--store", "file:/nowhere/at/all")):
            assert run(*args, stdout=full).returncode == UNAVAILABLE, args  # nothing was charged
        assert run("reset", "other", stdout=full).returncode == UNKNOWN
        assert run("bench", "--seconds", "1", "--store", "memory:", stdout=full).returncode == UNKNOWN
    assert "level\":1," in run("peek", "k", *LIMIT, "--json").stdout  # it was charged


def test_output_to_a_full_nonblocking_pipe_waits(run):
    for args in (("consume", "k", *LIMIT), ("consume", "k", *LIMIT, "--json"), ("help",)):
        read, write = os.pipe()
        os.set_blocking(write, False)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += os.write(write, b"." * 4096)
        got = []

        def drain():
            time.sleep(0.3)
            while chunk := os.read(read, 65536):
                got.append(chunk)

        reader = threading.Thread(target=drain)
        reader.start()
        done = run(*args, stdout=write)
        os.close(write)
        reader.join()
        os.close(read)
        assert (done.returncode, done.stderr) == (ALLOWED, "")
        assert b"".join(got)[filled:].endswith(b"\n")


def test_output_beyond_the_file_size_limit_is_an_error(steady, tmp_path):
    command = f"exec {steady} consume k --rate 1/h --store file:{tmp_path}/buckets"
    new = subprocess.run(["sh", "-c", f"ulimit -f 100; {command} --json"], capture_output=True, text=True, check=False)
    assert new.returncode == UNAVAILABLE and '"error":"system"' in new.stdout and "ulimit -f" in new.stderr
    assert list(tmp_path.iterdir()) == []
    subprocess.run(["sh", "-c", command.replace("consume", "peek")], capture_output=True, check=True)
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(["sh", "-c", f"ulimit -f 0; {command}"], stdout=out, stderr=subprocess.PIPE, text=True,
                              check=False)
    assert (done.returncode, done.stderr) == (UNKNOWN, "steady: cannot write to standard output: File too large\n")


def test_output_to_a_closed_pipe_is_an_error_without_text(run):
    read, write = os.pipe()
    os.close(read)
    for args in (("consume", "k", *LIMIT), ("consume", "k", *LIMIT, "--json"), ("help",), ("version",)):
        done = run(*args, stdout=write)
        assert (done.returncode, done.stderr) == (UNKNOWN if args[0] == "consume" else UNAVAILABLE, "")
    assert run("consume", stderr=write).returncode == USAGE
    os.close(write)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_leave_the_store_intact(run, steady, tmp_path, closed):
    env = {**os.environ, "STEADY_STORE": f"file:{tmp_path}/buckets"}
    for expected in (ALLOWED, DENIED):
        done = subprocess.run(["sh", "-c", f"exec {steady} consume k --rate 1/h {closed}"], env=env,
                              capture_output=True, text=True, check=False)
        assert done.returncode == expected
    assert b"denied" not in (tmp_path / "buckets").read_bytes()
    assert run("peek", "k", "--rate", "1/h").returncode == DENIED


def test_without_a_spare_descriptor_a_file_works_and_a_connection_is_unavailable(steady, tmp_path):
    """With one spare descriptor, which the loader needs, a file store works and a connection does not."""
    short, enough = (subprocess.run(["bash", "-c", f"ulimit -n 4; exec {steady} consume k --rate 1/h --store {store}"],
                                    capture_output=True, text=True, check=False)
                     for store in ("redis://127.0.0.1:1", f"file:{tmp_path}/buckets"))
    assert short.returncode == UNAVAILABLE and "Too many open files" in short.stderr
    assert enough.returncode == ALLOWED


def test_locale_timezone_and_umask_change_nothing(steady, tmp_path):
    env = {"STEADY_STORE": f"file:{tmp_path}/buckets", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Kathmandu"}
    umask = os.umask(0)
    try:
        done = subprocess.run([steady, "consume", "k", "--capacity", "3", "--recharge", "1.5s", "--json"], env=env,
                              capture_output=True, text=True, check=True)
    finally:
        os.umask(umask)
    assert '"until_next_drop":1.5,' in done.stdout
    assert (tmp_path / "buckets").stat().st_mode & 0o777 == 0o600
    symbols = subprocess.run(["nm", "-D", steady], capture_output=True, text=True, check=True).stdout
    assert "write" in symbols and "setlocale" not in symbols  # no locale is ever set


# ---- bench ----


def bench(run, *args, **kwargs):
    done = run("bench", "--seconds", "1", "--json", *args, **kwargs)
    answer = json.loads(done.stdout, parse_float=Decimal)
    assert list(answer) == ["decisions", "seconds", "decisions_per_second", "p50_ns", "p99_ns", "allowed", "denied",
                            "from_memory", "from_lease", "errors"]
    assert answer["decisions"] == answer["allowed"] + answer["denied"] + answer["errors"] > 100
    assert 1 <= answer["seconds"] < 2 and 0 < answer["p50_ns"] <= answer["p99_ns"]
    assert abs(answer["decisions"] / float(answer["seconds"]) - answer["decisions_per_second"]) < 2
    return done.returncode, answer


def test_bench_counts_decisions_on_a_file(run):
    code, answer = bench(run, "--keys", "3", "--capacity", "5", "--recharge", "1d")
    assert (code, answer["allowed"], answer["errors"]) == (ALLOWED, 14, 0)  # the first decision is not counted


def test_bench_counts_decisions_on_redis(run, redis_server):
    code, answer = bench(run, "--keys", "2", "--in-flight", "8", "--rate", "5/d", "--store", redis_server.url)
    assert (code, answer["allowed"], answer["errors"]) == (ALLOWED, 9, 0)
    assert len(redis_server("KEYS", "steady-bench:*")) == 2


def test_bench_counts_decisions_from_leases(run, redis_server):
    on = ("--keys", "1", "--rate", "16000000/d", "--store", f"{redis_server.url}?lease_age=10s")
    code, answer = bench(run, *on)
    assert (code, answer["errors"]) == (ALLOWED, 0)
    assert answer["decisions"] / 2 < answer["from_lease"] < answer["decisions"]
    assert re.search(r" errors, 1 keys, \d+ from a lease\n$", run("bench", "--seconds", "1", *on).stdout)


def test_bench_counts_errors_if_redis_dies(run, start_redis):
    server = start_redis()
    threading.Timer(0.4, server.stop).start()
    code, answer = bench(run, "--store", server.url, "--timeout", "50ms")
    assert code in (UNAVAILABLE, UNKNOWN) and answer["errors"] > 0 and answer["allowed"] > 0


def test_bench_prints_its_lines_or_an_error(run, closed_port):
    done = run("bench", "--seconds", "1", "--store", "memory:")
    assert re.fullmatch(r"\d+ decisions/s   p50 \d+ [nu]s  p99 \d+ [nu]s  \(embedded, 1 thread\)\n"
                        r"\d+ allowed, \d+ denied, 0 errors, 1000 keys\n", done.stdout), done.stdout
    done = run("bench", "--store", f"redis://127.0.0.1:{closed_port}", "--timeout", "200ms")
    assert (done.returncode, done.stdout) == (UNAVAILABLE, "") and "nothing was charged" in done.stderr
