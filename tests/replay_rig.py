# SPDX-License-Identifier: MIT
"""`steady replay` for tests: example logs, and what a replay says about them."""
import csv
import json
import subprocess
from collections import namedtuple

from conftest import BUILD, ROOT

Verdict = namedtuple("Verdict", "time limit key amount verdict request")


def write_log(path, *options):
    """An example log in a file. The same options always write the same bytes."""
    subprocess.run([ROOT / "examples/generate-log", *map(str, options), "--out", path], check=True, timeout=60)
    return path


def replay(*options, given=None, **kwargs):
    """The process, when it has ended. given: bytes for its standard input."""
    source = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
    return subprocess.run([BUILD / "steady", "replay", *map(str, options)], capture_output=True, check=False, timeout=120,
                          **{**source, **kwargs})


def report(*options, given=None):
    """The report of a replay that succeeds."""
    done = replay(*options, "--json", given=given)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def verdicts(folder, *options, given=None):
    """The verdict of each request, and the report."""
    file = folder / "verdicts.csv"
    found = report(*options, "--verdicts", file, given=given)
    with file.open(newline="", encoding="utf-8") as rows:
        reader = csv.reader(rows)
        assert next(reader) == list(Verdict._fields)
        return [Verdict(*row) for row in reader], found
