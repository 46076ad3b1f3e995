# SPDX-License-Identifier: MIT
"""The documents of the daemon: what a console shows is what a user sees, rules are right, and tables are complete."""
import os
import re
import shutil
import subprocess

import pytest
from conftest import BUILD, ROOT
from serve_rig import Daemon, needs_daemon

pytestmark = needs_daemon

SERVE, RULES = ROOT / "docs/reference/serve.md", ROOT / "docs/reference/rules.md"
HOW_TO = ROOT / "docs/how-to/run-the-daemon.md"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


def rows(page, head):
    """The first cell of each row of each table whose head begins with these cells."""
    tables = re.findall(rf"^\| {re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(), re.M)
    return [row.split("|")[1].strip() for table in tables for row in table.splitlines()]


def words(cells):
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def shown(page):
    """(command, what it prints) of each console block."""
    for block in blocks(page, "console"):
        for command, printed in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M):
            yield command, printed


def matches(printed, pattern):
    """'...' stands for any text. Times to the next drop pass while the test runs."""
    parts = [re.escape(part) for part in pattern.strip().split("...")]
    return re.fullmatch(".*".join(parts), printed.strip(), re.S) is not None


@pytest.fixture(scope="module")
def served():
    running = Daemon("--config", ROOT / "examples/steady.yaml", "--threads", 1)
    yield running
    assert running.stop() == 0


def run_shown(folder, command, port):
    env = {**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}"}
    command = re.sub(r"(127\.0\.0\.1:|-p )4780", rf"\g<1>{port}", command)
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=30, check=False)
    return done.stdout + done.stderr


ASKED = [(page, command, printed) for page in (HOW_TO, SERVE) for command, printed in shown(page) if "steady " not in command]


def test_each_question_that_a_page_shows_has_the_answer_that_it_shows(served, tmp_path):
    programs = {"redis-cli": shutil.which("redis-cli"), "curl": shutil.which("curl")}
    done, seen = 0, set()
    for page, command, printed in ASKED:
        if programs[re.search(r"redis-cli|curl", command)[0]] is None or command in seen:
            continue
        seen.add(command)
        got = run_shown(tmp_path, command, served.port)
        assert matches(got, printed), f"{page.name}: {command}\n{got}"
        done += 1
    if done == 0:
        pytest.skip("no curl and no redis-cli here")
    assert len(ASKED) >= 6


def test_the_start_that_the_reference_shows_works():
    (command, printed), = [pair for pair in shown(SERVE) if pair[0].startswith("steady serve")]
    options = command.split()[2:]
    running = Daemon(*options)
    try:
        assert matches(re.sub(r":\d+$", ":4780", next(line for line in running.log if "listening" in line)), printed)
    finally:
        running.stop()


def test_what_steady_check_says_on_the_page_of_rules_is_what_it_says(tmp_path):
    ours, envoy = blocks(RULES, "yaml")
    (tmp_path / "steady.yaml").write_text(ours)
    (tmp_path / "shop.yaml").write_text(envoy)
    pairs = list(shown(RULES))
    assert len(pairs) == 3
    for command, printed in pairs:
        got = "".join(line for line in run_shown(tmp_path, command, 0).splitlines(True) if not line.startswith("warning"))
        assert matches(got, printed), f"{command}\n{got}"


def test_each_spelling_of_the_page_is_limited(tmp_path):
    rules = tmp_path / "steady.yaml"
    rules.write_text("limits: [{ name: login, match: { path: /login }, rate: 1/d }]")
    spellings = words(rows(RULES, "spelling |"))
    assert len(spellings) >= 9
    for spelling in spellings:
        done = subprocess.run([BUILD / "steady", "check", rules, "--request", f"GET {spelling}"], capture_output=True,
                              text=True, check=True)
        assert "limits that count" in done.stdout, spelling


def entries(table):
    source = re.search(rf"reader_entry {table}\[\] = \{{(.*?)\{{NULL", (ROOT / "rules/read.c").read_text(), re.S)[1]
    return set(re.findall(r'\{"(\w+)"', source))


def test_the_tables_of_rules_have_each_key_of_the_reader():
    page = RULES.read_text()
    tables = re.findall(r"^\| key \| default \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.M)
    of_file, of_limit = ({row.split("|")[1].strip(" `") for row in table.splitlines()} for table in tables)
    assert of_file == entries("file_entries") and of_limit == entries("limit_entries")
    assert words(rows(RULES, "key | matches")) == entries("match_entries")
    manual = (ROOT / "man/steady-rules.5").read_text()
    assert set(re.findall(r"^\.It Cm (\w+)", manual, re.M)) == of_file | of_limit


def test_the_reference_has_each_metric_path_and_command(served):
    text = served.request("GET", "/metrics")[2].decode()
    metrics = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    assert words(rows(SERVE, "metric | type")) == set(metrics)
    for name, kind in metrics.items():
        assert f"| `{name}` | {kind} |" in SERVE.read_text()
    paths = set(re.findall(r'\{"(/[^"]*)", (?:POST|GET)', (ROOT / "server/http.c").read_text()))
    checks = {"/v1/check", "/v1/check/403", "/v1/check/envoy"}
    assert words(rows(SERVE, "path | method | answer")) >= paths | checks
    admin = set(re.findall(r'\{"(/[^"]*)", (?:true|false)', (ROOT / "server/admin.c").read_text()))
    assert paths | checks | admin == words(rows(SERVE, "path | method | answer"))
    commands = set(re.findall(r'\{"([a-z.]+)", resp_', (ROOT / "server/resp.c").read_text()))
    assert {word.lower() for word in words(rows(SERVE, "command | as in"))} == commands


def test_the_reference_has_each_member_of_the_json_documents(served):
    members = set(re.findall(r'"(\w+)"', re.search(r"part_members\[\] = (.*?);", (ROOT / "server/api.c").read_text(), re.S)[1]))
    described = words(rows(SERVE, "member of a part | default")) | words(rows(SERVE, "member beside"))
    assert members <= described
    answer = served.json("/v1/reserve", {"rate": "5/d", "key": "x", "amount": 2})
    assert set(answer) | {"error"} == words(rows(SERVE, "member of the answer"))
    assert set(answer["parts"][0]) == words(rows(SERVE, "member of a part of the answer"))
    settled = served.json("/v1/settle", {"reservation": answer["reservation"], "actual": 1})
    assert set(settled) == {"settled", "parts"} and settled["parts"] == [{"name": "1d", "level": 1, "charged": 0}]
    assert words(rows(SERVE, "member of a settled part")) == set(settled["parts"][0])
