# SPDX-License-Identifier: MIT
"""The generator of access logs: the same options write the same bytes, and all kinds of clients are in the log."""
import json
import re
import subprocess
from collections import Counter
from datetime import datetime
from itertools import accumulate

import pytest
from conftest import ROOT

GENERATOR = ROOT / "examples/generate-log"
FORMATS = re.findall(r'"([\w-]+)": \w+', re.search(r"^FORMATS = \{(.*?)\}", GENERATOR.read_text(), re.M | re.S)[1])


def log(*options):
    return subprocess.run([GENERATOR, *map(str, options)], capture_output=True, text=True, check=True, timeout=60).stdout


def times(text):
    return [datetime.strptime(found, "%d/%b/%Y:%H:%M:%S") for found in re.findall(r"\[(\S+) \+0000\]", text)]


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path):
    first = log("--lines", 3000)
    log("--lines", 3000, "--out", tmp_path / "log")
    assert first == (tmp_path / "log").read_text() == log("--lines", 3000, "--seed", 1)
    assert first != log("--lines", 3000, "--seed", 2)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_has_the_lines_that_were_asked_for(name):
    lines = log("--lines", 500, "--format", name).splitlines()
    heads = [line for line in lines if line.startswith("#") or re.match(r"time[,\t]", line)]
    assert len(lines) - len(heads) == 500 and heads == lines[:len(heads)]
    if "json" in name or name in ("caddy", "traefik", "decisions"):
        assert all(isinstance(json.loads(line), dict) for line in lines)


def test_half_an_hour_has_all_kinds_of_clients():
    text = log("--hours", 0.5)
    lines = text.splitlines()
    clients = Counter(line.split()[0] for line in lines)
    assert clients["192.0.2.10"] == text.count("ExampleBot") > 2000
    assert clients["203.0.113.7"] > 2000 and len(clients) > 1000 and sum(":" in client for client in clients) > 200
    herd = [time.second for time in times("\n".join(line for line in lines if "GET /api/status " in line))]
    assert len(herd) == 30 * 300 and sum(second < 3 for second in herd) > 0.99 * len(herd)
    storm = times("\n".join(line for line in lines if '" 503 ' in line))
    assert len(storm) > 10000 and (storm[-1] - storm[0]).total_seconds() in (119, 120) and storm[0].minute == 10


def test_disorder_moves_lines_and_changes_none():
    in_order, moved = log("--hours", 0.1), log("--hours", 0.1, "--disorder")
    assert in_order != moved and sorted(in_order.splitlines()) == sorted(moved.splitlines())
    found = times(moved)
    behind = [(latest - time).total_seconds() for latest, time in zip(accumulate(found, max), found)]
    assert times(in_order) == sorted(found) and 5 < max(behind) < 30


def test_whole_seconds_leave_no_fractions():
    rows = map(json.loads, log("--lines", 500, "--format", "traefik", "--whole-seconds").splitlines())
    assert all(row["StartUTC"].endswith(".000000Z") for row in rows)


@pytest.mark.parametrize("options, told", [
    (("--lines", "5", "--hours", "1"), "not both"), (("--clients", "4"), "5 to 60000"), (("--start", "soon"), "--start"),
    (("--format", "xml"), "invalid choice")])
def test_wrong_options_are_named(options, told):
    done = subprocess.run([GENERATOR, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and told in done.stderr


def test_a_reader_that_leaves_ends_it_without_a_message():
    done = subprocess.run(f"{GENERATOR} | head -1", shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1 and done.stderr == ""
