# SPDX-License-Identifier: MIT
"""docs/explanation/guarantees.md names the tests that `make faults` runs. They exist, and each row is listed once."""
import re

from conftest import ROOT

PAGE = ROOT / "docs/explanation/guarantees.md"
ROWS = ([f"F{n:02}" for n in range(1, 38)] + ["A05"] + [f"F{n:02}" for n in range(38, 86)] +
        [f"B{n:02}" for n in (*range(1, 17), *range(26, 31), 34, 35, 36)])


def rows():
    for line in PAGE.read_text().splitlines():
        if re.match(r"\| [ABF]\d\d \|", line):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_each_row_is_listed_once_and_complete():
    found = [cells[0] for cells in rows()]
    assert found == sorted(found, key=ROWS.index) and found == ROWS
    assert all(len(cells) == 4 and all(cells) for cells in rows())


def test_each_test_that_the_page_names_is_run_by_its_program():
    missing = []
    for cells in rows():
        for program, test in re.findall(r"`([\w.]+):{1,2}(\w+)`", cells[3]):
            names = [program] if program.endswith(".py") else [f"{program}.c", f"faults/{program}.c"]
            sources = [ROOT / "tests" / name for name in names if (ROOT / "tests" / name).exists()]
            text = "".join(source.read_text() for source in sources)
            if len(re.findall(rf"\b{test}\b", text)) < (1 if program.endswith(".py") else 2):
                missing.append(f"{cells[0]}: {program}:{test}")
    assert not missing
