#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`steady replay` against programs that read the same log in the same run: `make bench replay`.

All run on one core, in turn. Times are processor times, so that other programs of the machine count less. GoAccess reads
the first fifth of the log only, because it is slow. BENCH_GB=yes adds a GB of log, which takes minutes. Prints one JSON
object a line, as the other programs in bench/."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

BUILD, ROUNDS = Path(sys.argv[1]).resolve(), min(5, int(sys.argv[2]))
ROOT = Path(__file__).resolve().parent.parent
CORE = max(os.sched_getaffinity(0))
LINES, GB_LINES = 1000000, 5700000
ONE_RULE = 'limits:\n- { name: api, match: { path: "/api/*" }, rate: 100/min }\n'
FIVE_RULES = ONE_RULE + """\
- { name: login, match: { method: POST, path: /login }, rate: 5/min, burst: 10, block: 10m }
- { name: products, match: { path: "/products/*" }, rate: 2/s }
- { name: everyone, rate: 1000/hour }
- { name: stricter, match: { path: "/api/*" }, rate: 5/s, mode: shadow }
"""


def row(name, title, value, unit, baseline=None, goal=None):
    print(json.dumps({"name": name, "title": title, "value": value, "unit": unit, "baseline": baseline, "goal": goal}),
          flush=True)


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command):
    """Processor seconds, and the most memory in MiB."""
    command = ["taskset", "-c", str(CORE), *map(str, command)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        told = child.stderr.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, (command, told.decode(errors="replace"))
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def log_of(lines):
    """A log of the generator. It is written once for each version of the generator."""
    generator = ROOT / "examples" / "generate-log"
    log = BUILD / "bench" / f"replay-{lines}.log"
    if not log.exists() or log.stat().st_mtime < generator.stat().st_mtime:
        say(f"writing {log.name}")
        part = log.with_suffix(".part")
        # So many requests a second that the million lines have the kinds of clients in the usual shares.
        subprocess.run([generator, "--lines", str(lines), "--rate", "60", "--clients", "20000", "--out", part], check=True)
        part.rename(log)
    return log


def rates(cases):
    """Lines a second of each case, as the median of the rounds. The cases take turns."""
    found = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, (lines, command) in cases.items():
            found[name].append(lines / run(*command)[0])
    return {name: median(values) for name, values in found.items()}


def measure_million(log, folder):
    one, five, fifth = folder / "one.yaml", folder / "five.yaml", folder / "fifth.log"
    one.write_text(ONE_RULE, encoding="ascii")
    five.write_text(FIVE_RULES, encoding="ascii")
    with log.open("rb") as whole, fifth.open("wb") as file:
        file.writelines(line for line, _ in zip(whole, range(LINES // 5)))
    steady = (BUILD / "steady", "replay", log)
    cases = {"floor": (LINES, (BUILD / "bench" / "bench_lines", log)), "one": (LINES, (*steady, "--config", one)),
             "all": (LINES, (*steady, "--limit", "100/min")), "five": (LINES, (*steady, "--config", five)),
             "json": (LINES, (*steady, "--json", "--config", one)), "suggest": (LINES, (*steady, "--suggest", "99.9%"))}
    if shutil.which("goaccess"):
        cases["goaccess"] = (LINES // 5, ("goaccess", fifth, "--log-format=COMBINED", "--no-progress", "-o", folder / "out.json"))
    else:
        say("skipped: GoAccess is not installed")
    rate = rates(cases)
    row("replay_one", "replay, a rule for some paths, against 1,000,000 lines/s", rate["one"], "/s", 1e6, (">=", 1.0))
    row("replay_all", "the same, a rule for all requests", rate["all"], "/s", 1e6, (">=", 1.0))
    row("replay_five", "the same, five rules", rate["five"], "/s", 1e6)
    row("replay_json", "the same, a rule for some paths, --json with its heat map", rate["json"], "/s", 1e6)
    row("replay_suggest", "the same, --suggest", rate["suggest"], "/s", 1e6)
    row("replay_floor", "replay, a rule for some paths, against finding the line ends", rate["one"], "/s", rate["floor"])
    if "goaccess" in rate:
        row("replay_goaccess", "replay, a rule for some paths, against GoAccess", rate["one"], "/s", rate["goaccess"])


def measure_memory(log, size):
    config = log.parent / "one.yaml"
    for name, title, options in (("rule", "a rule", ("--config", config)), ("suggest", "--suggest", ("--suggest", "99.9%"))):
        seconds, memory = run(BUILD / "steady", "replay", log, *options)
        row(f"replay_memory_{name}_{size}", f"replay, memory, {title}, {log.stat().st_size / 1e9:.1f} GB", memory, "MiB", None,
            ("<", 256))
        row(f"replay_time_{name}_{size}", "the same, processor time", seconds, "s")


def main():
    folder = BUILD / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    log = log_of(LINES)
    run(BUILD / "bench" / "bench_lines", log)  # the file is in the page cache
    measure_million(log, folder)
    measure_memory(log, "million")
    if os.environ.get("BENCH_GB"):
        measure_memory(log_of(GB_LINES), "gb")
    else:
        say("skipped: a GB of log; BENCH_GB=yes measures it")


main()
