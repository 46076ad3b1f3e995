# SPDX-License-Identifier: MIT
"""What the tests stand on: ports that no two of them share, and a test runner that says why tests were skipped."""
import os
import re
import subprocess
import sys
from pathlib import Path

import resp

ROOT = Path(__file__).resolve().parent.parent


def ports_of_another_process():
    code = "import resp; print(*(next(resp.PORTS) for _ in range(resp.PORTS_EACH)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tests", capture_output=True, text=True, check=True)
    return {int(word) for word in run.stdout.split()}


def test_two_test_processes_have_no_port_in_common():
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


def test_a_test_run_prints_each_reason_to_skip_once_with_its_count(tmp_path):
    program = tmp_path / "unit_some"
    program.write_text("#!/bin/sh\nprintf '1..3\\n# skipped: no moon\\nok 1 # SKIP\\nok 2\\n# skipped: no moon\\nok 3 # SKIP\\n'\n")
    program.chmod(0o755)
    (tmp_path / "test_some.py").write_text("import pytest\n"
                                           "def test_a(): pytest.skip('no moon')\n"
                                           "@pytest.mark.skipif(True, reason='no\\n  sun')\n"
                                           "def test_b(): pass\n"
                                           "def test_c(): pass\n")
    run = subprocess.run([ROOT / "scripts/run-tests", program, tmp_path / "test_some.py"], capture_output=True, text=True,
                         env={**os.environ, "BUILD": str(tmp_path)}, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-3:] == ["3 skipped: no moon", "1 skipped: no sun", "2 passed, 0 failed"]
