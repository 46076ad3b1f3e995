# SPDX-License-Identifier: MIT
"""The documents of `steady replay`: each console shows what the command prints now, and the tables are complete."""
import os
import re
import subprocess

import pytest
from conftest import BUILD, ROOT
from replay_rig import replay
from serve_rig import needs_daemon
from test_serve_docs import blocks, matches, rows, shown, words

pytestmark = needs_daemon

HOW_TO, REFERENCE = ROOT / "docs/how-to/replay-a-log.md", ROOT / "docs/reference/replay.md"
CONSOLES = list(shown(HOW_TO))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As the page makes it: the log, and the rules files."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in zip(("steady.yaml", "stricter.yaml"), blocks(HOW_TO, "yaml"), strict=True):
        (folder / name).write_text(text)
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def test_each_console_of_the_how_to_shows_what_the_command_prints(folder):
    env = {**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    assert len(CONSOLES) == 4
    for command, printed in CONSOLES:
        done = subprocess.run(["sh", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and matches(done.stdout + done.stderr, printed), f"{command}\n{done.stdout}{done.stderr}"
        assert not command.startswith("steady") or len(printed) > 500


def test_the_reference_has_each_format_of_the_help():
    known = re.findall(r"^  ([a-z0-9]+) ", replay("--help").stdout.decode().split("Formats:")[1], re.M)
    assert words(rows(REFERENCE, "`--format`")) == set(known) and len(known) >= 10


def test_each_usual_name_of_the_reference_is_one():
    source = (ROOT / "replay/format_names.c").read_text()
    table = re.search(r"^\| meaning \| usual names.*\n\|[-|]+\n((?:\|.*\n)+)", REFERENCE.read_text(), re.M)[1]
    names = {name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[2])} - {"12ms"}
    assert len(names) > 30 and [name for name in names if f'{{"{name}",' not in source] == []


def test_each_name_of_field_is_in_the_message_about_field():
    told = replay("-", "--limit", "1/s", "--field", "x", given=b"x\n").stderr.decode()
    paragraph = re.search(r"NAME is one of (.*?)\. FIELD", REFERENCE.read_text(), re.S)[1]
    names = re.findall(r"`([\w:]+)`", paragraph)
    assert len(names) > 10 and [name for name in names if name not in told] == []


def test_make_replay_says_which_limit_fits_and_writes_a_page(tmp_path):
    for program in ("steady", "steadyd"):
        (tmp_path / program).symlink_to(BUILD / program)
    done = subprocess.run([ROOT / "scripts/replay-example"], cwd=ROOT, env={**os.environ, "BUILD": str(tmp_path)},
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "Suggestion, to deny nothing to 98 %" in done.stdout, done
    assert (tmp_path / "replay.html").read_text().startswith("<!doctype html>")
