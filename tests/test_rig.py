# SPDX-License-Identifier: MIT
"""The base of the tests: ports that no two tests share, and a test runner that prints what it runs and skips."""
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import resp

ROOT = Path(__file__).resolve().parent.parent


def ports_of_another_process():
    code = "import resp; print(*(next(resp.PORTS) for _ in range(resp.PORTS_EACH)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tests", capture_output=True, text=True, check=True)
    return {int(word) for word in run.stdout.split()}


def test_two_test_processes_share_no_port():
    ours = {resp.free_port() for _ in range(resp.PORTS_EACH)}
    theirs = ports_of_another_process()
    assert len(theirs) == resp.PORTS_EACH and len(ours) > resp.PORTS_EACH // 2
    assert not ours & theirs


def test_a_free_port_is_below_the_ports_of_outgoing_connections():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert resp.LOWEST_PORT <= resp.free_port() < resp.LOWEST_PORT + resp.PORTS_EACH * resp.BLOCKS <= max(lowest, 30000)


def test_tests_in_c_and_in_python_reserve_the_same_blocks():
    text = (ROOT / "tests/support.c").read_text()
    numbers = [int(re.search(rf"#define {name} (\d+)", text)[1]) for name in ("LOWEST_PORT", "PORTS_EACH", "BLOCKS")]
    assert numbers == [resp.LOWEST_PORT, resp.PORTS_EACH, resp.BLOCKS]
    assert '"steady-test-ports-%u"' in text


# ---- scripts/run-tests ----


@pytest.fixture
def run_tests(tmp_path):
    """Writes test programs, as shell scripts, and runs them; what the test run printed, without times."""

    def run_tests(*options, **programs):
        for name, body in programs.items():
            path = tmp_path / name
            path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{body}\n")
            path.chmod(0o755)
        paths = [tmp_path / name for name in programs] + sorted(tmp_path.glob("*.py"))
        run = subprocess.run([ROOT / "scripts/run-tests", *options, *paths], capture_output=True, text=True,
                             env={**os.environ, "BUILD": str(tmp_path)}, check=False)
        assert run.stderr == ""
        return run.returncode, re.sub(r"\(\d+\.\d s\)", "(0.1 s)", re.sub(r"\b0:\d\d\b", "0:00", run.stdout)).splitlines()

    return run_tests


FAILS = "echo 1..1; echo 'not ok 1 - late'; exit 1"
FAILS_ONCE = f"[ -e tried ] && {{ echo 1..1; echo 'ok 1 - late'; exit; }}; touch tried; {FAILS}"


def test_a_test_run_prints_each_reason_to_skip_once_with_its_count(run_tests, tmp_path):
    (tmp_path / "test_some.py").write_text("import pytest\n"
                                           "def test_a(): pytest.skip('no moon')\n"
                                           "@pytest.mark.skipif(True, reason='no\\n  sun')\n"
                                           "def test_b(): pass\n"
                                           "def test_c(): pass\n")
    body = "printf '1..3\\n# skipped: no moon\\nok 1 # SKIP\\nok 2\\n# skipped: no moon\\nok 3 # SKIP\\n'"
    code, lines = run_tests(unit_some=body)
    assert code == 0, lines
    assert lines[-3:] == ["3 skipped: no moon", "1 skipped: no sun", "2 passed, 0 failed"]


def test_each_program_that_ends_is_a_line_with_its_place_and_the_time(run_tests):
    code, lines = run_tests(unit_some="echo 1..1; echo ok 1", unit_other="sleep 1; echo 1..2; echo ok 1; echo ok 2")
    assert code == 0
    assert lines == ["   1/2  0:00      ok  unit_some                       1 passed  (0.1 s)",
                     "   2/2  0:00      ok  unit_other                      2 passed  (0.1 s)", "3 passed, 0 failed"]


def test_on_a_terminal_a_line_says_what_runs(tmp_path):
    program = tmp_path / "unit_slow"
    program.write_text("#!/bin/sh\nsleep 2; echo 1..1; echo ok 1\n")
    program.chmod(0o755)
    ours, theirs = pty.openpty()
    run = subprocess.run([ROOT / "scripts/run-tests", program], stdout=theirs, env={**os.environ, "BUILD": str(tmp_path)}, check=False)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert run.returncode == 0
    assert re.search(r"\r\033\[K +0/1  0:0\d  unit_slow(?=\r)", shown) and "   1/1  0:0" in shown
    assert shown.endswith("\r\033[K1 passed, 0 failed\r\n")


def test_what_passes_at_the_second_try_has_passed_and_a_line_says_so(run_tests):
    code, lines = run_tests(unit_late=FAILS_ONCE, unit_some="echo 1..1; echo ok 1")
    assert code == 0
    assert lines[-2:] == ["passed at the second try, alone: unit_late (late)", "2 passed, 0 failed"]
    assert any("FAILED  unit_late" in line for line in lines) and lines[-3].startswith("   3/3  0:00      ok  unit_late")


def test_what_fails_twice_has_failed(run_tests):
    code, lines = run_tests(unit_late=FAILS)
    assert code == 1 and lines[-1] == "0 passed, 1 failed"
    assert sum("FAILED  unit_late" in line for line in lines) == 2


@pytest.mark.parametrize("how", ["kill -SEGV $$", "echo 'WARNING: ThreadSanitizer: data race'; " + FAILS,
                                 "echo 'x.c:1:2: runtime error: overflow'; " + FAILS])
def test_a_crash_or_a_report_of_a_sanitizer_has_no_second_try(run_tests, how):
    code, lines = run_tests(unit_bad=FAILS_ONCE.replace(FAILS, how))
    assert code == 1 and lines[-1] == "0 passed, 1 failed"


LEAK = "echo 'ERROR: LeakSanitizer: detected memory leaks'; echo 'SUMMARY: AddressSanitizer: 8 byte(s) leaked in 1'"


def test_a_leak_of_a_test_that_fails_leaves_a_second_try(run_tests):
    code, lines = run_tests(unit_late=FAILS_ONCE.replace("exit 1", f"{LEAK}; exit 1"))
    assert code == 0 and lines[-1] == "1 passed, 0 failed"
    code, lines = run_tests(unit_leaky=f"echo 1..1; echo 'ok 1 - some'; [ -e leaked ] && exit; touch leaked; {LEAK}; exit 1")
    assert code == 1 and lines[-1] == "1 passed, 1 failed"


def test_markers_choose_the_tests_of_a_run(run_tests, tmp_path):
    (tmp_path / "test_some.py").write_text("import pytest\n@pytest.mark.long\ndef test_a(): pass\ndef test_b(): pass\n")
    (tmp_path / "test_short.py").write_text("def test_c(): pass\n")
    for markers, passed in (("not long", 2), ("long", 1)):
        code, lines = run_tests("-m", markers)
        assert (code, lines[-1]) == (0, f"{passed} passed, 0 failed"), lines


# ---- .ci/run ----


@pytest.mark.parametrize(("sanitize", "code", "last"), [("echo 7 passed, 0 failed", 0, "15 passed, 0 failed"),
                                                        ("echo 7 passed, 2 failed; exit 1", 1, "15 passed, 2 failed"),
                                                        ("echo no compiler; exit 2", 1, "8 passed, 1 failed")])
def test_ci_sums_the_counts_of_its_targets(tmp_path, sanitize, code, last):
    make = tmp_path / "make"
    make.write_text(f"#!/bin/sh\ncase $1 in\ntest) echo 5 passed, 0 failed ;;\nsanitize) {sanitize} ;;\n"
                    "servers) echo '3 skipped: no network'; echo 3 passed, 0 failed ;;\nesac\n")
    make.chmod(0o755)
    run = subprocess.run([ROOT / ".ci/run"], env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
                         capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.splitlines()[-1], run.stderr) == (code, last, "")
