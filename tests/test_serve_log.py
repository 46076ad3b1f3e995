# SPDX-License-Identifier: MIT
"""The decision log: its lines, the share, rotation, a full disk, and a disk that does not keep up."""
import datetime
import json
import os
import signal
import time

import pytest
from resp import Resp
from serve_rig import daemon, needs_daemon, rules_file

pytestmark = needs_daemon

RULES = """
limits:
  - { name: a, match: { path: "/x*" }, rate: 2/d }
  - { name: b, match: { path: "/x*" }, key: header:x-api-key, rate: 9/d, mode: shadow }
"""
DROPPED = "steady_log_dropped_total"


def lines_of(path):
    return [json.loads(line) for line in path.read_text(errors="strict").splitlines()]


def wait_until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_line_has_what_replay_needs(tmp_path):
    log = tmp_path / "log"
    begun = datetime.datetime.now(datetime.timezone.utc)
    with daemon("--config", rules_file(tmp_path, RULES), "--log", log, "--threads", 2) as served:
        for _ in range(3):
            served.check("/x", address="192.0.2.1", x_api_key='a%b"\\')
        served.json("/v1/peek", {"limit": "a", "key": "192.0.2.1"}, status=429)
        served.json("/v1/consume", {"rate": "5/d", "key": "k", "name": "own", "amount": 3})
        served.json("/v1/consume", {"rate": "5/d", "key": "k", "name": "own", "amount": 9, "kind": "charge"})
    ended = datetime.datetime.now(datetime.timezone.utc)
    lines = sorted(lines_of(log), key=lambda line: line["ts"])
    for line in lines:
        assert begun <= datetime.datetime.fromisoformat(line.pop("ts").replace("Z", "+00:00")) <= ended
    b = {"limit": "b", "key": 'a%25b"\\', "amount": 1, "kind": "shadow", "allowed": True}
    a = {"limit": "a", "key": "192.0.2.1", "amount": 1, "kind": "take", "allowed": True}
    own = {"limit": "own", "key": "steady:{k}own", "allowed": True}
    assert lines == [
        {"allowed": True, "parts": [{**a, "level": 1}, {**b, "level": 1}]},
        {"allowed": True, "parts": [{**a, "level": 2}, {**b, "level": 2}]},
        {"allowed": False, "parts": [{**a, "allowed": False, "level": 2}, {**b, "level": lines[2]["parts"][1]["level"]}]},
        {"allowed": False, "parts": [{**a, "kind": "look", "allowed": False, "level": 2}]},
        {"allowed": True, "parts": [{**own, "amount": 3, "kind": "take", "level": 3}]},
        {"allowed": True, "parts": [{**own, "amount": 9, "kind": "charge", "level": lines[5]["parts"][0]["level"]}]},
    ]


def test_without_a_verdict_a_line_has_the_error(tmp_path, closed_port):
    log = tmp_path / "log"
    with daemon("--limit", "1/d", "--store", f"redis://127.0.0.1:{closed_port}", "--log", log, "--threads", 1) as served:
        served.check()
    line = lines_of(log)[0]
    assert line["error"] == "unavailable" and "level" not in line["parts"][0]


def test_a_share_is_logged(tmp_path):
    counts = {}
    for share in ("0", "0.3", "1"):
        log = tmp_path / share
        with daemon("--limit", "1/d", "--log", log, "--log-share", share, "--threads", 1) as served:
            client = Resp(served.port)
            for _ in range(1000):
                client("CL.THROTTLE", "k", 5, 10, 60)
            client.close()
        counts[share] = len(lines_of(log))
    assert counts["0"] == 0 and counts["1"] == 1000
    assert 200 < counts["0.3"] < 400, "7 standard deviations"


@pytest.mark.parametrize("how", ["the tick", "SIGHUP"])
def test_after_a_rotation_the_log_goes_on_in_a_new_file(tmp_path, how):
    log, old = tmp_path / "log", tmp_path / "log.1"
    with daemon("--limit", "1/d", "--log", log, "--threads", 2) as served:
        served.check()
        wait_until(lambda: log.read_text().count("\n") == 1)
        log.rename(old)
        if how == "SIGHUP":
            os.kill(served.process.pid, signal.SIGHUP)
        served.wait_for("the decision log was opened anew")
        for _ in range(3):
            served.check()
        wait_until(lambda: log.read_text().count("\n") == 3)
    assert len(lines_of(old)) == 1 and len(lines_of(log)) == 3


def test_a_folder_that_is_gone_is_told_once_and_the_log_comes_back(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    with daemon("--limit", "1/d", "--log", folder / "log", "--threads", 1) as served:
        folder.rename(tmp_path / "moved")
        served.wait_for("error: the decision log .*: No such file")
        time.sleep(1.2)
        folder.mkdir()
        served.wait_for("the decision log was opened anew")
        served.check()
        wait_until(lambda: (folder / "log").read_text().count("\n") == 1)
        assert sum("No such file" in line for line in served.log) == 1


def test_a_full_disk_loses_lines_counts_them_and_stops_no_decision(tmp_path):
    with daemon("--limit", "5/d", "--log", "/dev/full", "--threads", 1) as served:
        assert [served.check()[0] for _ in range(7)] == 5 * [200] + 2 * [429]
        served.wait_for("error: the decision log, lines are lost: no space left")
        wait_until(lambda: served.metrics()[DROPPED] == 7)


def test_a_disk_that_does_not_keep_up_costs_lines_and_no_decision(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    parts = {"parts": [{"limit": "a", "key": f"{i:0900}"} for i in range(60)]}
    with daemon("--config", rules_file(tmp_path, RULES), "--log", fifo, "--threads", 1) as served:
        asked = 0
        while served.metrics()[DROPPED] < 5:
            served.json("/v1/consume", parts, status=200 if asked < 2 else 429)
            asked += 1
            assert asked < 1000
        dropped, got, last = served.metrics()[DROPPED], b"", time.monotonic()
        while got.count(b"\n") < asked - dropped:
            try:
                got += os.read(reader, 1 << 20)
                last = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
                assert time.monotonic() - last < 30
    os.close(reader)
    assert len([json.loads(line) for line in got.splitlines()]) == asked - dropped, "all others are there, and whole"


def test_a_log_that_cannot_be_opened_is_an_error_at_the_start(tmp_path):
    with pytest.raises(AssertionError, match="the decision log .*: No such file or directory"):
        with daemon("--limit", "1/d", "--log", tmp_path / "none" / "log"):
            pass


def test_a_fifo_without_a_reader_is_an_error_at_the_start(tmp_path):
    os.mkfifo(tmp_path / "log")
    with pytest.raises(AssertionError, match="the decision log .*: this FIFO has no reader"):
        with daemon("--limit", "1/d", "--log", tmp_path / "log"):
            pass
