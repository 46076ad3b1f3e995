# SPDX-License-Identifier: MIT
"""`steady replay` from outside: logs that are wrong in some way, its options, its exit codes, and its memory."""
import csv
import ctypes
import fcntl
import functools
import gzip
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import termios
import time
from datetime import datetime, timezone

import pytest
from serve_rig import BUILD, needs_daemon, rules_file

pytestmark = needs_daemon

DONE, MOSTLY_BAD, WRONG, INTERRUPTED = 0, 1, 2, 130
BEGIN = 1_764_000_000  # s


@functools.cache
def moment_of(second):
    return datetime.fromtimestamp(BEGIN + second, timezone.utc).strftime("%d/%b/%Y:%H:%M:%S +0000")


def line(second=0, address="192.0.2.1", path="/", status=200, agent="a/1"):
    moment = moment_of(second)
    return f'{address} - - [{moment}] "GET {path} HTTP/1.1" {status} 12 "-" "{agent}"\n'


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def replay(*args, code=DONE, **kwargs):
    done = subprocess.run([BUILD / "steady", "replay", *map(str, args)], capture_output=True, timeout=120, check=False,
                          **{"stdin": subprocess.DEVNULL, **kwargs})
    assert done.returncode == code, (done.stdout[-2000:], done.stderr)
    return done


def report(*args, code=DONE, **kwargs):
    return json.loads(replay(*args, "--json", code=code, **kwargs).stdout)


def only(found):
    assert len(found["limits"]) == 1
    return found["limits"][0]


def busy_log(folder, n=20000, seed=1):
    """Some clients that ask often, and many that ask seldom."""
    random_ = random.Random(seed)
    seconds = sorted(random_.randrange(3600) for _ in range(n))
    return write(folder / "busy.log", "".join(
        line(second, f"10.0.{min(int(random_.paretovariate(0.7)), 60000) // 250}.{min(int(random_.paretovariate(0.7)), 240)}",
             f"/{random_.randrange(30)}", random_.choice([200, 200, 404])) for second in seconds))


# ---- Logs that are wrong ----


def test_lines_that_do_not_parse_are_counted_and_shown(tmp_path):
    log = write(tmp_path / "log", line() + "what\n" + line() * 2 + "\0\0\n" + line() * 3 + "x" * 500 + "\n" + "last\n" + line())
    found = report(log, "--limit", "5/s")
    assert found["log"]["lines"] == 11 and found["log"]["bad_lines"] == 4 and found["requests"]["total"] == 7
    assert [bad["line"] for bad in found["log"]["bad"]] == [2, 5, 9]
    assert only(found)["denied"] == 2
    text = replay(log, "--limit", "5/s").stdout.decode()
    assert "what" in text and "\0" not in text


@pytest.mark.parametrize("bad, code", [(5, DONE), (6, MOSTLY_BAD)])
def test_a_log_of_which_most_lines_do_not_parse_is_exit_1(tmp_path, bad, code):
    log = write(tmp_path / "log", line() * 5 + "what\n" * bad)
    assert report(log, "--limit", "5/s", code=code)["requests"]["total"] == 5


def test_lines_that_are_hours_behind_are_left_out(tmp_path):
    log = write(tmp_path / "log", line(7200) * 3 + line(0) * 2 + line(7230) + line(7200 - 50) + line(7201))
    found = report(log, "--limit", "5/s")
    assert found["log"]["late_lines"] == 2 and found["requests"]["total"] == 6


def test_a_line_far_in_the_future_makes_no_other_line_late(tmp_path):
    log = write(tmp_path / "log", "".join(line(i) for i in range(100)) + line(10**8) + "".join(line(i) for i in range(100, 300)))
    found = report(log, "--limit", "5/s")
    assert found["log"]["late_lines"] == 0 and found["requests"]["total"] == 301


def test_a_log_of_one_line_has_a_report(tmp_path):
    found = report(write(tmp_path / "log", line().rstrip("\n")), "--limit", "5/s", "--suggest", "99%")
    assert only(found)["requests"] == only(found)["keys"] == 1 and only(found)["denied"] == 0


@pytest.mark.parametrize("content", ["", "\n\n", "#Version: 1.0\n#Fields: date time c-ip\n"])
def test_a_log_without_a_request_has_a_report_without_one(tmp_path, content):
    log = write(tmp_path / "log", content)
    assert report(log, "--limit", "5/s", "--suggest", "99%")["requests"]["total"] == 0


def test_a_truncated_gz_counts_up_to_its_end(tmp_path):
    whole = gzip.compress("".join(line(i, f"10.0.0.{i % 250}", f"/{random.random()}") for i in range(5000)).encode())
    found = report(write(tmp_path / "log.gz", whole[:len(whole) // 2]), "--limit", "5/s")
    assert 1000 < found["requests"]["total"] < 4000 and found["log"]["partial"]
    assert any("log.gz" in note for note in found["notes"])
    assert report(write(tmp_path / "log.gz", whole), "--limit", "5/s")["requests"]["total"] == 5000


def test_a_file_that_cannot_be_read_is_exit_2_and_the_others_count(tmp_path):
    log = write(tmp_path / "log", line() * 3)
    done = replay(tmp_path / "none", log, tmp_path, "--limit", "5/s", "--json", code=WRONG)
    assert json.loads(done.stdout)["requests"]["total"] == 3
    assert b"none" in done.stderr and len(done.stderr.splitlines()) == 2
    assert replay(tmp_path / "none", "--limit", "5/s", code=WRONG).stdout == b""


def test_a_file_that_cannot_be_read_is_named_apart_and_the_report_is_whole(tmp_path):
    log, none = write(tmp_path / "log", line() * 3), tmp_path / "none"
    found = report(log, none, "--limit", "5/s", code=WRONG)
    assert (found["log"]["files"], found["log"]["unread_files"], found["log"]["partial"]) == ([str(log)], [str(none)], False)
    assert [note for note in found["notes"] if note.startswith(f"{none} could not be read: ")]
    for forms in ((), ("--html", "-")):
        shown = replay(log, none, "--limit", "5/s", *forms, code=WRONG).stdout.decode().lower()
        assert "ended early" not in shown and "not read" in shown


def test_a_log_that_is_given_twice_is_told(tmp_path):
    log, other = write(tmp_path / "log", line() * 3), write(tmp_path / "other", line() * 3)
    (tmp_path / "link").symlink_to(log)
    found = report(log, other, tmp_path / "link", "--limit", "5/s")
    assert [note for note in found["notes"] if "same file" in note] == [
        f"{tmp_path / 'link'} is the same file as {log}. Its requests count twice."]
    assert found["requests"]["total"] == 9


def test_a_log_without_a_status_has_no_part_on_it(tmp_path):
    log = write(tmp_path / "log", "".join(f"192.0.2.1 [{moment_of(0)}] /{i}\n" for i in range(9)))
    options = (log, "--format", "$remote_addr [$time_local] $request_uri", "--limit", "5/s")
    for forms in ((), ("--html", "-")):
        shown = replay(*options, *forms).stdout.decode()
        assert "by the status" not in shown and "format format" not in shown and ", format string" in shown
    assert only(report(*options))["by_status"] == []


def test_what_a_tilde_means_stands_below_the_counts(tmp_path):
    log = write(tmp_path / "log", "".join(
        line(i // 64, f"192.0.2.{i % 5}", agent="busy/1" if i % 3 == 0 else f"a/{i}") for i in range(30000)))
    said = b"A count with a ~ is an estimate, because there was no room for all values."
    text = replay(log, "--limit", "10/min").stdout
    below = text[text.index(b"Denied requests by user agent"):]
    assert b"~" in below and said in b"\n".join(part.strip() for part in below.split(b"\n")[:4]) and text.count(said) == 1
    assert said in replay(log, "--limit", "10/min", "--html", "-").stdout


def test_keys_of_a_megabyte_and_with_nul_bytes_have_buckets_of_their_own(tmp_path):
    keys = ["k" * 1_000_000, "k" * 1_000_001, "a\0b", "a\0c", "é\n\x7f", "x" * 1024]
    rows = [{"ts": f"2026-12-01T00:00:{i:02}Z", "user": {"id": key}} for i in range(3) for key in keys]
    log = write(tmp_path / "log", "".join(json.dumps(row) + "\n" for row in rows) + '{"ts": "2026-12-01T00:00:04Z", "uri": "/"}\n')
    found = report(log, "--format", "json", "--time", "ts", "--key", ".user.id", "--limit", "2/min")
    assert only(found)["keys"] == len(keys) and only(found)["denied"] == len(keys)
    assert found["requests"]["unmatched"] == 1


# ---- Options ----


@pytest.mark.parametrize("args, said", [
    ((), "name a log"),
    (("LOG",), "--config FILE, --limit RATE or --suggest P"),
    (("LOG", "--key", "ip"), "--config FILE, --limit RATE or --suggest P"),
    (("LOG", "--limit", "5"), "--limit: "),
    (("LOG", "--limit", "5/s", "--key", ""), "--key: "),
    (("LOG", "--limit", "5/s", "--key", "ip/300"), "ip/300"),
    (("LOG", "--limit", "5/s", "--config", "x"), "use it without --limit"),
    (("LOG", "--config", "/nonexistent"), "/nonexistent"),
    (("LOG", "--limit", "5/s", "--against", "x"), "--against needs --config"),
    (("LOG", "--suggest", "0"), "--suggest takes"),
    (("LOG", "--suggest", "101%"), "--suggest takes"),
    (("LOG", "--suggest", "99x"), "--suggest takes"),
    (("LOG", "--limit", "5/s", "--rate", "1/s"), "--rate needs --suggest"),
    (("LOG", "--suggest", "99%", "--rate", "x"), "--rate: "),
    (("LOG", "--limit", "5/s", "--json", "--csv"), "--json or --csv"),
    (("LOG", "--limit", "5/s", "--json", "--html", "-"), "--html -"),
    (("-", "-", "--limit", "5/s"), "once"),
    (("LOG", "--limit", "5/s", "--memory", "1K"), "--memory takes"),
    (("LOG", "--limit", "5/s", "--memory", "12"), "--memory takes"),
    (("LOG", "--limit", "5/s", "--at", "noon"), "--at takes"),
    (("LOG", "--limit", "5/s", "burst", "20"), "write the limit in quotes: --limit '5/s burst 20'"),
    (("LOG", "--limit", "5/s", "--format", "nonsense"), "nonsense"),
    (("LOG", "--limit", "5/s", "--verdicts", "/nonexistent/v"), "/nonexistent/v"),
    (("LOG", "--limit", "5/s", "--html", "/nonexistent/v"), "/nonexistent/v"),
    (("LOG", "--limt", "5/s"), "--help"),
])
def test_wrong_usage_is_exit_2_and_a_line_that_says_what(tmp_path, args, said):
    log = write(tmp_path / "log", line())
    done = replay(*(log if arg == "LOG" else arg for arg in args), code=WRONG)
    assert said in done.stderr.decode() and b"Sanitizer" not in done.stderr


def test_standard_input_is_a_log(tmp_path):
    done = subprocess.run([BUILD / "steady", "replay", "-", "--limit", "5/s", "--json"], input=(line() * 7).encode(),
                          capture_output=True, timeout=60, check=True)
    assert only(json.loads(done.stdout))["denied"] == 2


def test_many_files_in_any_order_are_one_log(tmp_path):
    log = busy_log(tmp_path)
    lines = log.read_bytes().splitlines(keepends=True)
    moments = [text.split()[3] for text in lines]
    at = [0, *(next(k for k in range(i, len(lines)) if moments[k] != moments[k - 1]) for i in range(900, 19900, 1000)),
          len(lines)]  # no second is cut
    parts = [write(tmp_path / f"part-{i}", b"".join(lines[at[i]:at[i + 1]])) for i in range(len(at) - 1)]
    assert len(parts) > 8
    random.Random(5).shuffle(parts)
    together, apart = report(log, "--limit", "10/min"), report(*parts, "--limit", "10/min")
    assert apart["log"]["late_lines"] == 0 and only(together)["denied"] > 1000
    for name in ("requests", "limits"):
        assert together[name] == apart[name]


def test_requests_of_a_second_are_spread_only_if_asked(tmp_path):
    log = write(tmp_path / "log", line(0) * 10 + line(1) * 10)
    assert only(report(log, "--limit", "10/s"))["denied"] == 0
    limit = write(tmp_path / "rules.yaml", "limits: [{ name: a, rate: 10/s, burst: 2 }]")
    assert only(report(log, "--config", limit))["denied"] == 16
    assert only(report(log, "--config", limit, "--spread"))["denied"] == 0


def test_a_duration_is_subtracted_unless_the_time_is_that_of_the_end(tmp_path):
    rows = [{"time": BEGIN + 10 + i, "duration": 10.0 + i, "remote_ip": "192.0.2.1", "uri": "/"} for i in range(5)]
    rows.append({"time": BEGIN + 200, "duration": 150.0, "remote_ip": "192.0.2.1", "uri": "/"})  # longer than the window
    log = write(tmp_path / "log", "".join(json.dumps(row) + "\n" for row in rows))
    options = (log, "--format", "json", "--time", "time", "--field", "duration=duration", "--field", "ip=remote_ip",
               "--field", "path=uri", "--limit", "1/s")
    assert only(report(*options))["denied"] == 4  # five begin at once
    assert only(report(*options, "--at", "end"))["denied"] == 0
    assert [b"at the end of a request" in b" ".join(replay(*options, *more).stdout.split())
            for more in ((), ("--at", "end"))] == [False, True]
    assert report(*options)["log"]["late_lines"] == 0


def test_a_decision_log_without_rules_has_the_limits_that_it_names(tmp_path):
    def decision(second, name, amount):
        part = {"limit": name, "key": "k", "amount": amount, "kind": "take", "allowed": True, "level": 1}
        return json.dumps({"ts": f"2026-12-01T00:00:{second:02}.000000Z", "allowed": True, "parts": [part]}) + "\n"
    log = write(tmp_path / "log", "".join(decision(i, "a", 1) + (decision(i, "b", 3) if i % 2 == 0 else "") for i in range(20)))
    found = report(log, "--limit", "10/min")
    assert [(limit["name"], limit["requests"], limit["denied"]) for limit in found["limits"]] == [("a", 20, 7), ("b", 10, 6)]
    assert [limit["by_status"] for limit in found["limits"]] == [[], []]  # it has no status of a response
    assert b"at the end of a request" not in replay(log, "--limit", "10/min").stdout  # but the time of the decision


def test_the_address_is_that_of_trusted_proxies(tmp_path):
    rows = [("10.0.0.1", "198.51.100.1, 192.0.2.1"), ("10.0.0.1", "192.0.2.2, 10.0.0.9"), ("192.0.2.3", "192.0.2.4"), ("10.0.0.1", "-")]
    log = write(tmp_path / "log", "".join(
        f'{peer} [{moment_of(i)}] "GET / HTTP/1.1" 200 "{forwarded}"\n' for i, (peer, forwarded) in enumerate(rows)))
    options = ("--format", '$remote_addr [$time_local] "$request" $status "$http_x_forwarded_for"', "--verdicts", tmp_path / "verdicts")
    for trusted, keys in (("trusted: [10.0.0.0/8]", ["192.0.2.1", "192.0.2.2", "192.0.2.3", "10.0.0.1"]),
                          ("", [peer for peer, _ in rows])):
        rules = write(tmp_path / "rules.yaml", f"{trusted}\nlimits: [{{ name: a, rate: 5/s }}]")
        replay(log, "--config", rules, *options)
        with open(tmp_path / "verdicts", newline="") as file:
            assert [row["key"] for row in csv.DictReader(file)] == keys


def test_a_field_that_the_format_lacks_is_told(tmp_path):
    log = write(tmp_path / "log", line() * 3)
    rules = write(tmp_path / "rules.yaml", "trusted: [10.0.0.0/8]\nlimits: [{ name: a, rate: 5/s, key: header:x-key+cookie:sid }]")
    notes = [note for note in report(log, "--config", rules)["notes"] if "field" in note]
    assert len(notes) == 2 and "x-key" in notes[0] and "cookie" in notes[1].lower()


def test_hashed_keys_show_no_key_anywhere(tmp_path):
    log = write(tmp_path / "log", line(address="203.0.113.77") * 9 + "203.0.113.77 is bad\n")
    verdicts, page = tmp_path / "verdicts", tmp_path / "page.html"
    options = (log, "--limit", "5/s", "--hash-keys", "--verdicts", verdicts, "--html", page)
    shown = [replay(*options, *form).stdout for form in ((), ("--json",), ("--csv",))]
    for text in (*shown, verdicts.read_bytes(), page.read_bytes()):
        assert b"203.0.113.77" not in text
    assert only(report(*options))["keys_denied"] == 1


def test_verdicts_are_a_line_for_each_part(tmp_path):
    log = write(tmp_path / "log", line(0, "192.0.2.1") * 3 + line(1, "192.0.2.2"))
    rules = write(tmp_path / "rules.yaml", "limits: [{ name: 'a', rate: 2/h, block: 1h }, { name: b, key: path, rate: 9/h }]")
    replay(log, "--config", rules, "--verdicts", tmp_path / "verdicts")
    with open(tmp_path / "verdicts", newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    first = f"{BEGIN}.000000"
    assert rows == [(first, "a", "192.0.2.1", "1", "allowed", "allowed"), (first, "b", "/", "1", "allowed", "allowed")] * 2 + \
        [(first, "a", "192.0.2.1", "1", "denied", "denied"), (first, "b", "/", "1", "allowed", "denied"),
         (f"{BEGIN + 1}.000000", "a", "192.0.2.2", "1", "allowed", "allowed"),
         (f"{BEGIN + 1}.000000", "b", "/", "1", "allowed", "allowed")]


# ---- What the numbers promise ----


def limit_of(choice):
    return f"limits: [{{ name: a, rate: {choice['text'].removeprefix('rate: ').split(',')[0]}, burst: {choice['burst']} }}]"


def test_a_choice_denies_what_it_says(tmp_path):
    log = busy_log(tmp_path)
    found = only(report(log, "--suggest", "99%"))
    assert len(found["choices"]) > 5 and sum(choice["suggested"] for choice in found["choices"]) == 1
    for choice in random.Random(2).sample(found["choices"], 4):
        rules = write(tmp_path / "rules.yaml", limit_of(choice["limit"]))
        run = only(report(log, "--config", rules))
        assert (run["keys_denied"], run["denied"]) == (choice["keys_denied"], choice["requests_denied"])
        assert run["keys_denied"] <= 0.01 * run["keys"]


def test_the_needed_burst_of_a_key_is_the_smallest_that_denies_it_nothing(tmp_path):
    log = busy_log(tmp_path)
    key = only(report(log, "--limit", "10/min"))["top_denied"][3]
    for burst, denied in ((key["needed"], False), (key["needed"] - 1, True)):
        rules = write(tmp_path / "rules.yaml", f"limits: [{{ name: a, rate: 10/min, burst: {burst} }}]")
        top = [other["key"] for other in only(report(log, "--config", rules))["top_denied"]]
        assert (key["key"] in top) == denied


def test_a_cell_of_the_grid_is_what_its_limit_denies(tmp_path):
    log = busy_log(tmp_path)
    grid = only(report(log, "--limit", "10/min"))["grid"]
    for rate, burst in ((4, 3), (5, 5), (6, 2)):
        rules = write(tmp_path / "rules.yaml", limit_of({"text": grid["rates"][rate]["text"], "burst": grid["bursts"][burst]}))
        run = only(report(log, "--config", rules))
        assert (run["keys_denied"], run["denied"]) == (grid["keys_denied"][rate][burst], grid["requests_denied"][rate][burst])


def test_against_tells_whose_verdicts_change(tmp_path):
    log = write(tmp_path / "log", line(0, "192.0.2.1") * 6 + line(0, "192.0.2.2") * 3 + line(0, "192.0.2.3", "/b") * 5)
    old = write(tmp_path / "old.yaml", "limits: [{ name: a, rate: 5/h, match: { path: / } }, { name: gone, rate: 9/h }]")
    new = write(tmp_path / "new.yaml", "limits: [{ name: a, rate: 2/h, exempt: { ip: [192.0.2.1] } }]")
    found = {limit["name"]: limit["against"] for limit in report(log, "--config", old, "--against", new)["limits"]}
    changes = {change["key"]: (change["denied"], change["denied_against"]) for change in found["a"]["changes"]}
    assert changes == {"192.0.2.1": (1, 0), "192.0.2.2": (0, 1), "192.0.2.3": (0, 3)}
    assert (found["a"]["newly_denied"], found["a"]["no_longer_denied"], found["a"]["keys_changed"]) == (2, 1, 3)
    assert found["gone"] is None


def test_against_denies_what_the_other_rules_deny_alone(tmp_path):
    log = busy_log(tmp_path)
    old = write(tmp_path / "old.yaml", "limits: [{ name: a, rate: 10/min }, { name: b, key: ip+path, rate: 2/min, block: 30s }]")
    new = write(tmp_path / "new.yaml", "limits: [{ name: b, key: ip+path, rate: 5/min }, { name: a, rate: 20/min, burst: 10 }]")
    alone = {limit["name"]: limit for limit in report(log, "--config", new)["limits"]}
    for limit in report(log, "--config", old, "--against", new)["limits"]:
        against, there = limit["against"], alone[limit["name"]]
        assert (against["denied"], against["keys_denied"]) == (there["denied"], there["keys_denied"])
        assert against["keys_denied"] == limit["keys_denied"] + against["newly_denied"] - against["no_longer_denied"]


def test_a_timeline_has_each_request_once(tmp_path):
    for name, seconds in (("short", range(30)), ("day", range(0, 86400, 100)), ("years", range(0, 10**8, 10**5))):
        log = write(tmp_path / name, "".join(line(second) * 2 for second in seconds))
        timeline = only(report(log, "--limit", "1/h"))["timeline"]
        limit = only(report(log, "--limit", "1/h"))
        assert sum(timeline["requests"]) == limit["requests"] == 2 * len(seconds)
        assert sum(timeline["denied"]) == limit["denied"] >= len(seconds)
        assert len(timeline["requests"]) <= 240


# ---- Ctrl-C, the terminal, and memory ----


def test_ctrl_c_prints_what_was_read(tmp_path):
    process = subprocess.Popen([BUILD / "steady", "replay", "-", "--limit", "5/s", "--json"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write((line() * 4000).encode())
    process.stdin.flush()
    unread = ctypes.c_int(1)
    while unread.value > 0:
        assert process.poll() is None
        fcntl.ioctl(process.stdin.fileno(), termios.FIONREAD, unread)
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (INTERRUPTED, b"")
    found = json.loads(out)
    assert found["log"]["partial"] and 1000 < only(found)["requests"] <= 4000


def test_the_progress_is_shown_on_a_terminal_only_and_leaves_nothing(tmp_path):
    log = write(tmp_path / "log", "".join(line(i // 500, f"10.{i % 200}.0.1") for i in range(300_000)))
    assert replay(log, "--limit", "5/s").stderr == b""
    main, terminal = pty.openpty()
    process = subprocess.Popen([BUILD / "steady", "replay", log, "--limit", "5/s"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    seen = b""
    while True:
        try:
            seen += os.read(main, 65536)
        except OSError:  # the other end is closed
            break
    os.close(main)
    assert process.wait(60) == DONE
    if seen:  # a fast machine is done before the first line
        assert seen.endswith(b"\r\x1b[K") and b"\n" not in seen and b"lines/s" in seen
        assert set(re.findall(rb"\x1b\[[0-9;?]*[a-zA-Z]", seen)) == {b"\x1b[K"}


PEAK = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def peak_of(*args):
    """(the report, the peak of its memory in MiB). A small process starts it, because the peak of the parent counts."""
    done = subprocess.run([sys.executable, "-S", "-c", PEAK, BUILD / "steadyd", "replay", *map(str, args), "--json"],
                          capture_output=True, timeout=120, check=True)
    return json.loads(done.stdout), int(done.stderr.split()[-1]) / 1024


def test_with_little_memory_keys_are_merged_and_every_request_counts(tmp_path):
    n = 200_000
    log = write(tmp_path / "log", "".join(line(i // 5000, f"10.{i // 62500}.{i // 250 % 250}.{i % 250}") for i in range(n)))
    found, peak = peak_of(log, "--limit", "1/h", "--memory", "4M")
    limit = only(found)
    assert limit["requests"] == n and limit["allowed"] + limit["denied"] == n
    assert limit["requests_merged"] > n / 2 and limit["denied"] > n / 2
    assert abs(limit["keys"] + limit["keys_merged"] - n) < 0.1 * n
    assert peak < 32
    found, peak = peak_of(log, "--limit", "1/h", "--suggest", "99.9%")
    assert only(found)["keys"] == n and only(found)["denied"] == only(found)["keys_merged"] == 0
    assert peak < 128


def test_idle_keys_are_forgotten_and_their_needs_count(tmp_path):
    n = 100_000
    log = write(tmp_path / "log", "".join(line(i // 100, f"10.{i // 62500}.{i // 250 % 250}.{i % 250}") * 2 for i in range(n)))
    found, _ = peak_of(log, "--limit", "5/s", "--memory", "4M")
    limit = only(found)
    assert limit["keys"] == n and limit["keys_forgotten"] > n / 2
    assert limit["keys_merged"] == limit["denied"] == 0
    assert limit["at_this_rate"]["needed"]["max"] == 2


def test_forgetting_idle_keys_changes_no_verdict(tmp_path):
    n, random_ = 60_000, random.Random(3)
    log = write(tmp_path / "log", "".join(
        line(i // 20, f"10.{i // 62500}.{i // 250 % 250}.{i % 250}") + line(i // 20, f"192.0.2.{random_.randrange(90)}")
        for i in range(n)))
    rules = write(tmp_path / "rules.yaml", "limits: [{ name: a, rate: 10/min, burst: 3, block: 20s }]")
    runs = []
    for memory in ("4M", "160M"):
        found = only(report(log, "--config", rules, "--memory", memory, "--verdicts", tmp_path / memory))
        runs.append((found["keys_forgotten"] > 0, found["keys_merged"], found["denied"] > n / 4))
    assert runs == [(True, 0, True), (False, 0, True)]
    assert (tmp_path / "4M").read_bytes() == (tmp_path / "160M").read_bytes()


@pytest.mark.sanitizers
def test_a_replay_has_no_report_of_a_sanitizer(tmp_path):
    if not (BUILD / "asan/steadyd").exists():
        pytest.skip("the daemon is not built: scripts/setup serve")
    log = busy_log(tmp_path, 5000)
    rules = write(tmp_path / "rules.yaml", "limits: [{ name: a, rate: 10/min, block: 1m }, { name: b, key: path, rate: 50/min }]")
    many = write(tmp_path / "many", "".join(line(i // 500, f"10.{i // 62500}.{i // 250 % 250}.{i % 250}") for i in range(60000)))
    for args in ((log, "--config", rules, "--against", rules, "--html", tmp_path / "page", "--verdicts", tmp_path / "v"),
                 (log, "--suggest", "99%", "--json"), (many, "--limit", "1/h", "--memory", "4M"),
                 (log, many, "--limit", "1/min", "--csv", "--hash-keys", "--spread")):
        done = subprocess.run([BUILD / "asan/steadyd", "replay", *args], capture_output=True, timeout=120, check=False)
        assert done.returncode == DONE and done.stderr == b"", done.stderr
