# SPDX-License-Identifier: MIT
"""The help, the manual and the completion of the command. All come from one table."""
import os
import re
import subprocess
from pathlib import Path

import pytest
from serve_rig import needs_daemon

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = 0


def test_version_prints_the_version_of_the_header(run):
    version = re.search(r'#define STEADY_VERSION "(.*)"', (ROOT / "include/steady.h").read_text())[1]
    for args in (("version",), ("--version",)):
        done = run(*args)
        assert (done.returncode, done.stdout, done.stderr) == (ALLOWED, f"steady {version}\n", "")


def commands_in_the_source():
    table = re.search(r"commands\[\] = \{(.*?)\n\};", (ROOT / "cli/steady.c").read_text(), re.S)[1]
    return dict(re.findall(r'\{"(\w+)",.*?"([^"]*)"\}', table, re.S))


# Those of steadyd, which `steady` starts.
DAEMON_COMMANDS = {"serve", "check", "replay", "top", "admin"}


def options_in_the_source():
    table = re.search(r"option table\[\] = \{(.*?)\n\};", (ROOT / "cli/options.c").read_text(), re.S)[1]
    return re.findall(r'^    \{"([\w-]+)",', table, re.M)


def options_of(run, command):
    return re.findall(r"^  --([a-z-]+)", run("help", command).stdout, re.M)


def test_help_lists_the_commands_and_options_of_the_source(run):
    commands = commands_in_the_source()
    assert set(commands) == {"consume", "peek", "reset", "wait", "reserve", "settle", "bench", "version", "help"}
    for args in (("help",), ("--help",), ("-h",)):
        done = run(*args)
        assert (done.returncode, done.stderr) == (ALLOWED, "")
        shown = dict(re.findall(r"^  steady (\w+)[^a-z\n]*?(?:KEY|ACTUAL|\[COMMAND\])?  +(.*)$", done.stdout, re.M))
        assert {name: help for name, help in shown.items() if name not in DAEMON_COMMANDS} == commands
        assert all(re.search(rf"^  steady {name} ", done.stdout, re.M) for name in DAEMON_COMMANDS)
    assert {option for command in commands for option in options_of(run, command)} == set(options_in_the_source())
    for command in commands:
        assert run(command, "--help").stdout == run(command, "-h").stdout == run("help", command).stdout
    pages = [run("help").stdout, *(run("help", command).stdout for command in commands)]
    assert max(len(line) for page in pages for line in page.splitlines()) <= 80


VALUES = {"capacity": "10", "recharge": "1h", "rate": "3/s", "block": "1m", "amount": "1", "keys": "1",
          "max-wait": "1s", "at-least": "1", "in-flight": "1", "seconds": "1", "prefix": "p", "timeout": "1s", "on-error": "deny", "engine": "auto"}


@pytest.mark.parametrize("command", ["consume", "peek", "reset", "wait", "reserve"])
@pytest.mark.parametrize("joined", [False, True], ids=["apart", "joined"])
def test_every_option_of_the_help_is_accepted(run, tmp_path, command, joined):
    values = {**VALUES, "store": f"file:{tmp_path}/other", "json": None, "charge": None}
    args = [command, "k"]
    for option in options_of(run, command):
        if option not in ("rate", "help", "charge"):  # rate excludes recharge, and charge excludes max-wait
            value = values[option]
            args += [f"--{option}"] if value is None else [f"--{option}={value}"] if joined else [f"--{option}", value]
    assert run(*args).returncode == ALLOWED


def test_the_manual_names_every_command_option_error_and_exit_code(run):
    manual = (ROOT / "man/steady.1").read_text()
    for command in commands_in_the_source():
        assert re.search(rf"^\.It .*Cm {command}\b", manual, re.M), command
    for option in options_in_the_source():
        assert re.search(rf"^\.It Fl -{option}\b", manual, re.M), option
    assert set(re.findall(r"^\.It Fl -([a-z-]+)", manual, re.M)) == set(options_in_the_source())
    assert re.findall(r"^\.It (\d+(?: , \d+)*)$", manual, re.M) == ["0", "1", "2", "3", "4", "129 , 130 , 143"]
    library = (ROOT / "man/steady.3").read_text()
    header = (ROOT / "include/steady.h").read_text()
    for name, word, sentence in re.findall(r'X\((\w+), -?\d+, "(\w+)", "([^"]+)"\)', header):
        assert f".It Dv STEADY_{name} Ta {word} Ta {sentence}\n" in library
    for call in re.findall(r"^STEADY_API .*?\b(steady_\w+)\(", header, re.M):
        assert re.search(rf"^\.F[no] {call}\b", library, re.M) and re.search(rf"^\.Nm {call}\b", library, re.M), call


def complete(steady, *words):
    """The completions that bash offers for these words. The last word is being typed."""
    line = ["steady", *words]
    script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_WORDS[0]=$STEADY; COMP_CWORD=$(($# - 1)); '
              'COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; _steady 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", script, "bash", ROOT / "scripts/completion.bash", *line],
                          env={**os.environ, "STEADY": str(steady)}, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("words, offered", [
    (("",), "admin bench check consume help peek replay reserve reset serve settle top version wait"),
    (("co",), "consume"),
    (("ser",), "serve"),
    (("serve", "--admin", "u"), "unix:"),
    (("serve", "--limit", "100/m"), "100/min"),
    (("admin", "re"), "reset reload"),
    (("admin", "--admin", "u"), "unix:"),
    (("admin", "--admin", "unix:/s", ""), "reset ban unban reload explain"),
    (("admin", "ban", "l"), ""),
    (("admin", "explain", "--he"), "--header --help"),
    (("top", "--once", ""), ""),
    (("top", "--once", "--a"), "--admin"),
    (("check", "x.yaml", "--js"), "--json"),
    (("help", "v"), "version"),
    (("consume", "k", "--re"), "--recharge"),
    (("consume", "k", "--js"), "--json"),
    (("consume", "k", "--json", "--js"), ""),
    (("peek", "k", "--am"), ""),
    (("consume", "k", "--on-error", ""), "report deny allow local"),
    (("consume", "k", "--on-error", "=", "a"), "allow"),
    (("consume", "k", "--engine", "s"), "script"),
    (("consume", "k", "--on-error", "="), "report deny allow local"),
    (("consume", "k", "--recharge", "15"), "15us 15ms 15s 15m 15h 15d"),
    (("consume", "k", "--block", "1.5m"), "1.5ms 1.5m"),
    (("consume", "k", "--rate", "100"), "100/s 100/min 100/hour 100/day"),
    (("consume", "k", "--rate", "100/m"), "100/min"),
    (("consume", "k", "--store", "redis:"), "redis://"),
    (("consume", "k", "--store", "re"), "redis:// redis+sentinel:// rediss:// rediss+sentinel://"),
    (("consume", "k", "--capacity", ""), ""),
    (("consume", "k", "--rate", "$(touch x)1"), ""),
    (("consume", "k", "--rate", "10/s", "--ra"), "--rate"),
    (("consume", "k", "--rate", "burst", "=", "100"), "100/s 100/min 100/hour 100/day"),
    (("consume", "k", "--rate", "burst", "="), ""),
    (("consume", "k", "--rate", "=", "burst", "=", "5/d"), "5/day"),
    (("wait", "k", "--max-wait", "5"), "5us 5ms 5s 5m 5h 5d"),
    (("consume", "k", "--charge", "--am"), "--amount"),
    (("settle", "r1", "--js"), "--json"),
    (("replay", "log", "--spread", "--ag"), "--against"),
    (("replay", "log", "--field", "ip=a", "--fi"), "--field"),
    (("replay", "log", "--at", ""), "begin end"),
    (("replay", "log", "--format", "comb"), "combined"),
])
def test_completion_offers_matching_words(steady, words, offered):
    assert complete(steady, *words) == offered.split()


def test_completion_offers_the_options_of_the_command(run, steady):
    for command in commands_in_the_source():
        assert complete(steady, command, "x", "--") == [f"--{option}" for option in options_of(run, command)]


# ---- The commands of the daemon ----


@needs_daemon
@pytest.mark.parametrize("command", sorted(DAEMON_COMMANDS))
def test_help_and_completion_of_a_daemon_command_are_those_of_the_daemon(run, steady, command):
    own = run(command, "--help")
    assert own.returncode == ALLOWED and own.stdout.startswith(f"usage: steady {command}")
    assert run("help", command).stdout == own.stdout
    options = options_of(run, command)
    assert len(options) >= 3 and complete(steady, command, "--") == [f"--{option}" for option in options]
    assert max(len(line) for line in own.stdout.splitlines()) <= 100


@needs_daemon
@pytest.mark.parametrize("command", ["check", "replay", "serve"])
def test_the_manual_and_the_page_of_a_daemon_command_name_its_options(run, command):
    options = options_of(run, command)
    manual = (ROOT / f"man/steady-{command}.1").read_text()
    assert set(re.findall(r"^\.It Fl -([a-z-]+)", manual, re.M)) == set(options)
    page = (ROOT / "docs/reference" / {"serve": "serve.md", "check": "rules.md", "replay": "replay.md"}[command]).read_text()
    assert [option for option in options if f"`--{option}" not in page] == []


@needs_daemon
@pytest.mark.parametrize("command", ["admin", "top"])
def test_the_page_and_the_manual_of_the_daemon_name_the_verbs_and_options_of_its_commands(run, command):
    verbs = re.findall(r"^  ([a-z]+) ", run("help", command).stdout, re.M)
    assert verbs == (["reset", "ban", "unban", "reload", "explain"] if command == "admin" else [])
    pages = [(ROOT / "docs/reference" / name).read_text() for name in ("serve.md", "rules.md")]
    assert [option for option in options_of(run, command) if not any(f"`--{option}" in page for page in pages)] == []
    assert [verb for verb in verbs if f"| `steady admin {verb}" not in pages[0]] == []
    manual = (ROOT / "man/steady-serve.1").read_text()
    assert [verb for verb in verbs if f"steady admin {verb}" not in manual] == []


def test_without_the_daemon_its_commands_say_what_to_build(steady, tmp_path):
    alone = tmp_path / "steady"
    alone.write_bytes(steady.read_bytes())
    alone.chmod(0o755)
    done = subprocess.run([alone, "serve"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "Build it with: make serve" in done.stderr
