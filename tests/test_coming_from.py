# SPDX-License-Identifier: MIT
"""The pages "Coming from ...": the lines before and after do the same. Both run, against the real package."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from coming_to_serve import PAGES as PAGES_OF_SERVE
from conftest import ROOT

sys.path.append(str(ROOT / "bench"))
import packages

pytestmark = pytest.mark.packages

PROGRAM = Path(__file__).parent / "coming_from.py"
VERSIONS = dict(requirement.split("==") for requirement in packages.REQUIREMENTS)
PAGES = {package: ROOT / f"docs/how-to/coming-from-{package}.md" for package in ("slowapi", "limits", "aiolimiter")}


def test_each_page_that_comes_from_a_package_is_run():
    assert set(PAGES.values()) | PAGES_OF_SERVE == set(ROOT.glob("docs/how-to/coming-from-*.md"))


@pytest.mark.parametrize("package", PAGES)
def test_a_page_names_the_version_that_is_run(package):
    assert f" {package} {VERSIONS[package]}" in PAGES[package].read_text()


@pytest.mark.parametrize("package", PAGES)
def test_each_block_of_a_page_is_a_line_before_or_after(package):
    text = PAGES[package].read_text()
    sides = re.findall(r"^(Before|After)\b[^\n]*:\n\n```python\n", text, re.M)
    assert len(sides) == text.count("```python") and sides == ["Before", "After"] * (len(sides) // 2)


@pytest.mark.parametrize("package", PAGES)
def test_the_lines_before_and_after_do_the_same(aiosteady, from_pypi, start_redis, package):
    env = {**os.environ, "PYTHONPATH": f"{aiosteady}:{from_pypi(*packages.REQUIREMENTS)}"}
    running = {}
    for side in ("before", "after"):
        command = [sys.executable, PROGRAM, PAGES[package], side, start_redis().url]
        running[side] = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    printed = {}
    for side, child in running.items():
        out, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
        printed[side] = out.splitlines()
    headings = re.findall(r"^## (.*)\n(?:(?!## ).*\n)*?Before", PAGES[package].read_text(), re.M)
    assert [line.partition(":")[0] for line in printed["before"]] == headings
    assert printed["after"] == printed["before"]
