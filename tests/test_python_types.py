# SPDX-License-Identifier: MIT
"""The types of the Python package: programs of users pass mypy --strict and pyright strict, and mistakes are found."""
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

MYPY = ("mypy==2.4.1", "typing_extensions")
PYRIGHT = ("pyright[nodejs]==1.1.414",)
REDIS = ("redis==8.1.0",)

pytestmark = pytest.mark.packages

PROGRAMS = sorted((ROOT / "tests/programs").glob("*.py"))
MISTAKES = ROOT / "tests/programs/mistakes.txt"


@pytest.fixture(scope="module")
def paths(aiosteady, from_pypi):
    """What programs import."""
    return [str(aiosteady), str(from_pypi(*REDIS))]


def run(command, folders, cwd):
    env = {**os.environ, "PYTHONPATH": ":".join(map(str, folders))}
    return subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, timeout=250, check=False)


@pytest.fixture(scope="module")
def mypy(paths, from_pypi):
    """Checks the files of a folder. Returns the errors as a dict: (file, line) to texts."""

    def check(folder):
        done = run(["-m", "mypy", "--strict", "--cache-dir", os.devnull, "-O", "json", *sorted(os.listdir(folder))],
                   [from_pypi(*MYPY), *paths], folder)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        errors = {}
        for line in (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")):
            if line["severity"] == "error":
                errors.setdefault((line["file"], line["line"]), []).append(line["message"])
        assert bool(errors) == done.returncode
        return errors

    return check


@pytest.fixture(scope="module")
def pyright(paths, from_pypi):
    """The same with pyright."""

    def check(folder):
        count = len(os.listdir(folder))
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        (folder / "pyrightconfig.json").write_text(json.dumps(
            {"include": ["."], "typeCheckingMode": "strict", "extraPaths": paths, "pythonVersion": version}))
        done = run(["-m", "pyright", "--outputjson"], [from_pypi(*PYRIGHT)], folder)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        said = json.loads(done.stdout)
        assert said["summary"]["filesAnalyzed"] == count
        errors = {}
        for error in said["generalDiagnostics"]:
            if error["severity"] == "error":
                place = (os.path.basename(error["file"]), error["range"]["start"]["line"] + 1)
                errors.setdefault(place, []).append(error["message"])
        return errors

    return check


def copied(folder, *sources):
    for source in sources:
        (folder / source.with_suffix(".py").name).write_text(source.read_text())
    return folder


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_programs_of_users_have_no_type_error(tmp_path, checker, request):
    assert len(PROGRAMS) >= 12
    assert request.getfixturevalue(checker)(copied(tmp_path, *PROGRAMS)) == {}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_each_planted_mistake_is_found_and_nothing_else(tmp_path, checker, request):
    lines = MISTAKES.read_text().splitlines()
    planted = {i for i, line in enumerate(lines, 1) if line.endswith(("# wrong", f"# only {checker}"))}
    found = {line: texts for (_, line), texts in request.getfixturevalue(checker)(copied(tmp_path, MISTAKES)).items()}
    assert [lines[i - 1].strip() for i in sorted(planted - set(found))] == [], "these are not found"
    assert {lines[i - 1].strip(): found[i] for i in sorted(set(found) - planted)} == {}, "these are no mistakes"
    assert len(planted) > 100


@pytest.mark.parametrize("kind", ["memory", "redis"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_of_a_user_runs(paths, redis_server, tmp_path, program, kind):
    if kind == "memory" and program.stem == "clients":
        pytest.skip("a client needs a server")
    done = run(["-X", "dev", "-W", "error", program, "memory:" if kind == "memory" else redis_server.url], paths, tmp_path)
    # asyncio's debug mode reports what a busy machine makes slow. A middleware logs its denials.
    said = [line for line in done.stderr.splitlines() if not re.match("Executing <|policy .* denied ", line)]
    assert done.returncode == 0 and done.stdout and not said, done.stdout + done.stderr
