# SPDX-License-Identifier: MIT
"""The documents: links resolve, tables are complete, examples run, and the pages on limits are correct."""
import ast
import os
import re
import runpy
import subprocess
import sys
from fractions import Fraction

import pytest
from conftest import BUILD, ROOT
from test_model import Model

MINUTE = 60_000_000  # us
UNITS = {"ms": Fraction(1, 1000), "s": 1, "min": 60, "m": 60, "hour": 3600, "day": 86400}  # seconds


def tracked(*patterns):
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


PAGES = tracked("*.md")


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(params=PAGES, ids=name_of)
def page(request):
    return request.param


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


def prose(page):
    """The page without its code blocks."""
    return re.sub(r"^```(?s:.*?)^```|(?<=\n\n)(?: {4}.*\n|\n)+", "", page.read_text(), flags=re.M)


def anchors(page):
    """The anchors that GitHub makes from headings."""
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# ---- Links and tables ----


def test_every_link_leads_to_a_file_and_a_heading(page):
    broken = []
    for link in re.findall(r"\]\(\s*([^)\s]+)\s*\)", prose(page)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_of_docs_is_in_the_index():
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link.split("#")[0]).resolve() for link in re.findall(r"\]\(([^)]+)\)", index.read_text())}
    assert [name_of(page) for page in tracked("docs/*.md") if page not in linked | {index}] == []


def test_every_page_that_a_file_names_exists():
    missing = []
    for path in tracked("*.md", "*.c", "*.h", "*.py", "*.pyi", "*.lua", "man/*", "scripts/*", "tests/faults/run", "Makefile"):
        if path.name != "CHANGELOG.md":
            named = re.findall(r"(?<![\w/.])docs/[\w/-]+\.\w+", path.read_text())
            missing += [f"{name_of(path)}: {name}" for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_every_row_of_a_table_has_the_columns_of_its_head(page):
    """Write a '|' in a cell as '\\|', also in code. GitHub ends the cell there otherwise."""
    ragged, columns = [], None
    for line in page.read_text().splitlines():
        bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        if bars is not None and columns is not None and bars != columns:
            ragged.append(line)
        columns = bars if bars is None or columns is None else columns
    assert ragged == []


def test_the_readme_has_at_most_120_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_fewer_than_one_sentence_in_twenty_is_long():
    done = subprocess.run([ROOT / "scripts/long-sentences"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- Examples ----

C_PROGRAMS = [(page, code) for page in PAGES for code in blocks(page, "c") if "int main(" in code]
PYTHON_PROGRAMS = [(page, code) for page in PAGES for code in blocks(page, "python")
                   if "asyncio.run(" in code or "async def test_" in code]


def page_of(program):
    return name_of(program[0]) if isinstance(program, tuple) else ""


@pytest.mark.parametrize("program", C_PROGRAMS, ids=page_of)
def test_c_program_of_a_page_compiles_and_runs(tmp_path, program):
    source = tmp_path / "example.c"
    source.write_text(program[1])
    command = ["gcc", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/include", source, "-o",
               tmp_path / "example", f"-L{BUILD}", "-lsteady"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (tmp_path / "libsteady.so.0").symlink_to(BUILD / "libsteady.so")
    done = subprocess.run([tmp_path / "example"], env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}, timeout=20,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip(), done


@pytest.mark.parametrize("program", PYTHON_PROGRAMS, ids=page_of)
def test_python_program_of_a_page_runs(aiosteady, tmp_path, program):
    tests = re.findall(r"^async def (test_\w+)\(\)", program[1], re.M)
    source = tmp_path / "example.py"
    source.write_text(program[1] + "".join(f"\nasyncio.run({test}())" for test in tests))
    done = subprocess.run([sys.executable, "-W", "error", source], env={**os.environ, "PYTHONPATH": str(aiosteady)},
                          timeout=20, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and bool(done.stdout) != bool(tests), done.stderr


def test_readme_has_a_whole_program_in_c_and_in_python():
    for programs in (C_PROGRAMS, PYTHON_PROGRAMS):
        assert ROOT / "README.md" in {page for page, _ in programs}


def test_python_of_every_page_is_python(page):
    for code in blocks(page, "python"):
        compile(code, name_of(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


class Framework:
    """Takes middlewares like Starlette, and makes each at once."""

    def __init__(self):
        self.made = []

    async def __call__(self, scope, receive, send):
        raise AssertionError("it is only made, never asked")

    def add_middleware(self, kind, **options):
        self.made.append(kind(self, **options))


@pytest.mark.usefixtures("aio")
def test_each_middleware_of_the_page_on_web_applications_can_be_made():
    names, made = {}, 0
    for code in blocks(ROOT / "docs/how-to/limit-a-web-application.md", "python"):
        names["app"] = framework = Framework()
        exec(compile(code, "limit-a-web-application.md", "exec"), names)
        made += len(framework.made)
    assert made == len(re.findall(r"add_middleware\(", (ROOT / "docs/how-to/limit-a-web-application.md").read_text())) > 3
    assert names["key"]({"path": "/health"}) is None
    assert names["key"]({"path": "/", "client": ("192.0.2.7", 80), "headers": []}) == "192.0.2.7"


# ---- How to choose a limit ----


def seconds(text):
    """The time for one drop, from "600 ms" or "1 min for 90 drops"."""
    number, unit, _, drops = re.fullmatch(r"([\d.]+) (\w+)( for (\d+) drops)?", text).groups()
    return Fraction(number) * UNITS[unit] / int(drops or 1)


def choices():
    """(goal, capacity, seconds for one drop, options) of each row of the table."""
    for line in (ROOT / "docs/how-to/choose-a-limit.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[3].startswith("`--"):
            yield cells[0], int(cells[1]), seconds(cells[2]), cells[3].strip("`").split()


def test_each_choice_is_the_limit_that_its_row_says(ask):
    assert len(list(choices())) >= 8
    for number, (want, capacity, one_drop, options) in enumerate(choices()):
        code, answer = ask("consume", f"key {number}", *options, "--amount", str(capacity))
        assert code == 0 and answer["level"] == capacity, want
        assert abs(Fraction(answer["until_next_drop"]) - one_drop) <= Fraction(1, 1_000_000), want
        assert ask("consume", f"key {number}", *options, "--amount", str(capacity + 1))[1]["retry_after"] is None, want


def test_no_window_gets_more_than_its_row_promises():
    promises = 0
    for want, capacity, one_drop, _ in choices():
        promise = re.match(r"at most (\d+) in any (\w+)", want)
        if promise:
            window = {"minute": 60, "day": 86400}[promise[2]]
            assert capacity + window / one_drop <= int(promise[1]), want
            promises += 1
    assert promises >= 3


def taken(limit, window):
    """The drops that a key gets before the time `window` if it never stops asking."""
    bucket, now, drops = Model(), 0, 0
    while now < window:
        answer = bucket.consume(now, limit, 1)
        drops += answer["success"]
        now += answer["retry_after"]
    return drops


def test_a_hundred_a_minute_lets_199_through_in_the_first_minute():
    limit = {"capacity": 100, "recharge": 600_000, "drops": 1, "block": 0}
    assert taken(limit, MINUTE) == 199
    assert taken(limit, 2 * MINUTE) - taken(limit, MINUTE) == 100
    page = (ROOT / "docs/how-to/choose-a-limit.md").read_text()
    assert "100 a minute with capacity 100 lets up to 199 requests through in the first minute" in page


# ---- The pictures ----

PICTURES = tracked("docs/*.svg")


@pytest.mark.parametrize("picture", PICTURES, ids=name_of)
def test_a_picture_shows_what_the_library_decides(picture):
    """If it differs, run scripts/draw-bucket, and look at the picture in a browser: light and dark, wide and narrow."""
    drawn = subprocess.run([ROOT / "scripts/draw-bucket", picture.stem], capture_output=True, text=True, check=True).stdout
    assert drawn == picture.read_text()


def test_every_picture_is_on_a_page_and_is_drawn_by_the_script():
    shown = {(page.parent / path).resolve() for page in PAGES for path in re.findall(r"!\[[^\]]+\]\(([^)]+\.svg)\)", page.read_text())}
    script = runpy.run_path(str(ROOT / "scripts/draw-bucket"), run_name="imported")
    assert shown == set(PICTURES) == {ROOT / f"docs/explanation/{name}.svg" for name in script["PICTURES"]}


def long_sentences(*pages):
    return subprocess.run([ROOT / "scripts/long-sentences", *pages], capture_output=True, text=True, check=False)


def test_long_sentences_skips_tables_and_code_and_fails_at_five_percent(tmp_path):
    page = tmp_path / "page.md"
    text = "Three short words. " * 20 + "\n\n| " + "cell " * 40 + "|\n\n    " + "code " * 40 + "\n\n"
    page.write_text(text)
    assert long_sentences(page).returncode == 0
    page.write_text(text + "word " * 30 + "end.\n")  # 1 of 21: 4.8 %
    done = long_sentences(page)
    assert done.returncode == 0 and "1 of 21 sentences" in done.stdout
    page.write_text(text + ("word " * 30 + "end.\n") * 2)
    assert long_sentences(page).returncode == 1
