# SPDX-License-Identifier: MIT
"""The output of `make run`: in a pipe, on a terminal, on Redis, and on a Redis that is down."""
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest

BUILD = Path(os.environ.get("BUILD", Path(__file__).resolve().parent.parent / "build")).resolve()


class Run(threading.Thread):
    """The demo in a thread of its own. `terminal` is the width of a terminal."""

    def __init__(self, terminal=None, **env):
        super().__init__()
        self.terminal = terminal
        self.env = {"PATH": os.environ["PATH"], "TERM": "xterm", **env}
        self.output, self.code, self.seconds = "", None, None
        self.start()

    def run(self):
        start = time.monotonic()
        if self.terminal is None:
            done = subprocess.run([BUILD / "demo"], env=self.env, capture_output=True, check=False, timeout=30)
            self.output, self.code = (done.stdout + done.stderr).decode(), done.returncode
        else:
            self.output, self.code = self.on_terminal()
        self.seconds = time.monotonic() - start

    def on_terminal(self):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self.terminal, 0, 0))
        process = subprocess.Popen([BUILD / "demo"], env=self.env, stdout=theirs, stderr=theirs)
        os.close(theirs)
        output = b""
        try:
            while data := os.read(ours, 65536):
                output += data
        except OSError:  # the terminal reports that its program has ended
            pass
        os.close(ours)
        return output.decode(), process.wait(timeout=5)


@pytest.fixture(scope="module")
def runs(shared_redis):
    """All runs in parallel, because each takes seconds."""
    shared_redis("FLUSHALL")
    runs = {
        "plain": Run(),
        "again": Run(LC_ALL="C.UTF-8"),
        "redis": Run(REDIS_URL=shared_redis.url),
        "terminal": Run(80, LC_ALL="C.UTF-8"),
        "ascii": Run(120, LC_ALL="C"),
        "narrow": Run(79, LC_ALL="C.UTF-8"),
        "no colour": Run(80, LC_ALL="C.UTF-8", NO_COLOR="1"),
    }
    for run in runs.values():
        run.join()
    return runs


SCENE_ONE = re.compile(r"^ *(\d+)  user:42  (\[[#.]*\]|▕[█ ]*▏) +(\d+)/10  (allowed|denied) +"
                       r"(next drop leaks in|retry in) (\d\.\d s|\d+ ms)\r?$", re.M)


@pytest.mark.parametrize("name", ["plain", "again", "redis", "narrow", "no colour"])
def test_scene_one_is_the_same_every_time(runs, name):
    lines = SCENE_ONE.findall(runs[name].output)
    assert [int(line[0]) for line in lines] == list(range(1, 13))
    assert [int(line[2]) for line in lines] == [*range(1, 11), 10, 10]
    assert [line[3] for line in lines] == ["allowed"] * 10 + ["denied"] * 2
    assert [line[4] for line in lines] == ["next drop leaks in"] * 10 + ["retry in"] * 2
    assert [len(line[1].strip("[]▕▏").rstrip(". ")) for line in lines] == [*range(1, 11), 10, 10]


@pytest.mark.parametrize("name", ["plain", "again", "redis", "terminal", "ascii", "narrow", "no colour"])
def test_the_demo_ends_with_0_in_less_than_10_seconds(runs, name):
    run = runs[name]
    assert run.code == 0 and run.seconds < 10
    anna, asked, bot, bot_asked = map(int, re.search(r"anna got (\d+) of (\d+) requests through, the bot (\d+) of (\d+)\.",
                                                     run.output).groups())
    assert 20 < anna <= asked and 6 < bot < bot_asked  # the bot is limited


@pytest.mark.parametrize("name", ["plain", "again", "redis", "narrow", "no colour"])
def test_lines_that_cannot_be_redrawn_are_plain(runs, name):
    output = runs[name].output
    assert "\033" not in output
    assert re.search(r"^  \d\.\d\d s  bot   \S.* 6/6  blocked  retry in \d+ ms\r?$", output, re.M)
    assert output.isascii() == (name in ("plain", "redis"))


@pytest.mark.parametrize("name, mark", [("terminal", "●"), ("ascii", "+")])
def test_a_terminal_is_redrawn_in_place(runs, name, mark):
    frames = runs[name].output.split("\033[2A\r")
    assert len(frames) > 60 and mark in frames[-1]
    levels = {level for frame in frames for level in re.findall(r"bot .* (\d)/6", frame)}
    assert levels == set("0123456")
    for frame in frames:
        for line in re.sub(r"\033\[[0-9;]*[mK]", "", frame).splitlines():
            assert len(line) <= 80


def test_the_demo_leaves_no_key_behind(runs, shared_redis):
    assert runs["redis"].code == 0
    assert shared_redis("KEYS", "*") == []


@pytest.mark.parametrize("url", ["redis:u:Canary@h", "redis//u:Canary@h", "u:Canary@h", "redis://h:Canary", "redis://u:Canary@h/x",
                                 "redis://h?pasword=Canary", "unix:/u:Canary@x", "redis+sentinel://h?sentinel_password=Canary"])
def test_an_invalid_url_shows_no_password(url):
    run = Run(REDIS_URL=url)
    run.join()
    assert run.code == 3 and run.output.startswith("demo: ") and "Canary" not in run.output


def test_a_redis_that_is_down_is_one_line_and_exit_code_3(closed_port):
    run = Run(REDIS_URL=f"redis://u:canary@127.0.0.1:{closed_port}")
    run.join()
    assert run.code == 3 and run.output.count("\n") == 1
    assert run.output.startswith("demo: the Redis of REDIS_URL: the store gave no verdict; nothing was charged")
    assert "canary" not in run.output
