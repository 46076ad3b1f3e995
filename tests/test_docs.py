# SPDX-License-Identifier: MIT
"""The documents: links resolve, tables are complete, examples run, and the pages on limits are correct."""
import ast
import asyncio
import inspect
import os
import re
import runpy
import subprocess
import sys
from fractions import Fraction

import pytest
from conftest import BUILD, ROOT
from test_asgi_servers import FRAMEWORKS
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
# test_fastapi.py, test_recipes.py, test_coming_from.py and test_coming_to_serve.py run the blocks of these.
RUN_ELSEWHERE = {ROOT / "docs/how-to/limit-routes.md", ROOT / "docs/how-to/flask-django-celery.md",
                 *(ROOT / "docs/how-to").glob("coming-from-*.md")}
PYTHON_BLOCKS = [(page, code) for page in PAGES if page not in RUN_ELSEWHERE for code in blocks(page, "python")]


def is_for_pytest(block):
    return re.search(r"^(async )?def test_|^pytest_plugins", block[1], re.M) is not None


PYTEST_BLOCKS = [block for block in PYTHON_BLOCKS if is_for_pytest(block)]
PYTHON_PROGRAMS = [block for block in PYTHON_BLOCKS
                   if not is_for_pytest(block) and re.search(r"asyncio\.run\(|import.*\baiosteady\.blocking\b|from aiosteady\.blocking ", block[1])]
MIDDLEWARE_PAGES = [ROOT / "docs/how-to/limit-a-web-application.md", ROOT / "python/README.md"]
REDIS, PROMETHEUS = "redis==8.1.0", "prometheus_client==0.26.0"
IMPORTED = {"import redis": REDIS, "from prometheus_client": PROMETHEUS}
PYTEST_ASYNCIO = ("pytest-asyncio==1.2.0", "pytest==8.4.2")


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


# What the program with these words prints, as a pattern for all of it. Other programs print something.
PRINTED = {
    'settle=failed)\napplication = ': "200 OK\n" * 5 + "401 Unauthorized\n" * 3 + "429 Too Many Requests\n",
    'limits="3/minute") as throttler:  # or': r"(allowed\n){3}denied, again in (19\.\d+|20\.0) s\n",
    '"daily": "1000/day"}': r"False burst 0\.\d+\n10\n",
    'URLS = [f"https': r"(fetched https://[ab]\.example/\d\n){6}",
    '"tokens": "10000/minute"}': r"(200 Hello!\n429 too many tokens, (?:again|retry) in [\d.]+ s\n)200 Hello!\n",
    '"second": "10/second"': r"(\d+: allowed; second \d+, hour \d+\n){10}11: denied by second, retry in 0\.\d+ s\n",
    'limits={"burst": "2/minute"': "2 allowed, 3 denied\nburst denied 3 and took 2 drops\nhourly denied 0 and took 2 drops\n",
    '"correct horse":': r"(welcome\n){5}(wrong password\n){3}too many failures, retry in [\d.]+ s\n",
    'failures.charge(': "0: success\n1: failure, level 1\n2: success\n3: failure, level 2\n4: denied, .*\n5: denied, .*\n",
    'sends[1].cancel()': r"(([acde]): goes ahead\n){4}b: CancelledError\(.*\)\nf: TimeoutError\(.*\)\n",
    "ThreadPoolExecutor(8)": r"(?:allowed\n|denied, again in [\d.]+ s\n){12}(mail \d+ sent\n){12}",
}


@pytest.mark.parametrize("program", PYTHON_PROGRAMS, ids=page_of)
def test_python_program_of_a_page_runs(aiosteady, redis_server, from_pypi, tmp_path, program):
    code = program[1].replace("redis://localhost", redis_server.url)
    needed = [package for word, package in IMPORTED.items() if word in code]
    path = ":".join([str(aiosteady), *(str(from_pypi(package)) for package in needed)])
    source = tmp_path / "example.py"
    source.write_text(code)
    done = subprocess.run([sys.executable, "-W", "error", source], env={**os.environ, "PYTHONPATH": path},
                          timeout=20, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr
    for printed in (pattern for words, pattern in PRINTED.items() if words in code):
        assert re.fullmatch(printed, done.stdout), done.stdout


def test_pytest_runs_the_tests_of_the_pages(aiosteady, from_pypi, tmp_path):
    for number, (_, code) in enumerate(PYTEST_BLOCKS):
        (tmp_path / ("conftest.py" if code.startswith("pytest_plugins") else f"test_{number}.py")).write_text(code)
    env = {**os.environ, "PYTHONPATH": f"{aiosteady}:{from_pypi(*PYTEST_ASYNCIO, *FRAMEWORKS)}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "--asyncio-mode=auto",
               "-W", "error", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, env=env, timeout=60, capture_output=True, text=True, check=False)
    tests = len(re.findall(r"^(?:async )?def test_", "".join(code for _, code in PYTEST_BLOCKS), re.M))
    assert done.returncode == 0 and tests >= 6 and f"{tests + 1} passed" in done.stdout, done.stdout + done.stderr


def test_the_expected_outputs_are_of_programs_that_exist():
    assert [words for words in PRINTED if not any(words in code for _, code in PYTHON_PROGRAMS)] == []


def test_every_block_of_python_is_run_by_a_test():
    assert [name_of(page) for page, code in PYTHON_BLOCKS
            if (page, code) not in PYTHON_PROGRAMS + PYTEST_BLOCKS and page not in MIDDLEWARE_PAGES] == []
    assert [code for page, code in PYTHON_BLOCKS if page == ROOT / "python/README.md" and (page, code) not in PYTHON_PROGRAMS
            and "app.add_middleware(" not in code] == []


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


def middlewares(page):
    """How many middlewares the blocks of a page make, and the names that they set."""
    names, made = {}, 0
    for code in blocks(page, "python"):
        if (page, code) in PYTHON_PROGRAMS:
            continue
        names["app"] = framework = Framework()
        exec(compile(code, name_of(page), "exec"), names)
        made += len(framework.made)
    return made, names


@pytest.mark.usefixtures("aio")
def test_each_middleware_of_a_page_can_be_made():
    assert middlewares(ROOT / "python/README.md")[0] == 1
    made, names = middlewares(ROOT / "docs/how-to/limit-a-web-application.md")
    assert made == len(re.findall(r"add_middleware\(", (ROOT / "docs/how-to/limit-a-web-application.md").read_text())) > 3
    assert names["key"]({"path": "/health"}) is None
    assert names["key"]({"path": "/", "client": ("192.0.2.7", 80), "headers": []}) == "192.0.2.7"


# ---- The tables on Python ----


def rows(page, head):
    """The cells of each row of the table whose first line begins with these cells."""
    table = re.search(rf"^\| {re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(), re.M)[1]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]


PYTHON_PAGES = [ROOT / "python/README.md", ROOT / "docs/reference/python.md"]


async def run_what_is_wanted(aio, url):
    """Each row of "What you want", on a store of its own. Yields the wish, and the throttler if the row makes one."""
    for want, cell in rows(PYTHON_PAGES[0], "you want | write"):
        async with aio.connect(url, timeout=10) as store:
            names = {"store": store, "Throttler": aio.Throttler, "consume_all": aio.consume_all, "key": want, "user": want,
                     "t": aio.Throttler(store, limits="20/minute"), "everyone": aio.Throttler(store, limits="9/day", prefix="e"),
                     "trial": aio.Throttler(store, limits="1/minute", prefix="trial:"), "used": 3}
            first, *then = re.findall(r"`([^`]+)`", cell)
            if first.startswith("async with"):
                code = f"{first}\n    {then[0]}"
            elif first.startswith("Throttler("):
                code = f"made = {first}"
            else:
                code = "\n".join([first, "assert r.success", *then])
            coroutine = eval(compile(code, want, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if coroutine is not None:
                await coroutine
            yield want, names.get("made")


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_what_you_want_in_python_is_what_its_row_writes(aio, redis_server, kind):
    async def main():
        return [row async for row in run_what_is_wanted(aio, "memory:" if kind == "memory" else redis_server.url)]

    made = {want: list(throttler.limits.values()) for want, throttler in asyncio.run(main()) if throttler is not None}
    assert made == {
        "10 a second": [(10, 1, None, 10)],
        "10 a second, evenly, no bursts": [(1, 1, None, 10)],
        "10 a second and 1,000 an hour": [(10, 1, None, 10), (1000, 3600, None, 1000)],
        "at most 100 in any minute": [(50, 60, None, 50)],
        "at most 100 in any minute; bursts of at most 10": [(10, 60, None, 90)],
        "5 attempts, then a pause of 10 minutes": [(5, 60, 600, 5)],
    }
    for want, ((capacity, recharge, _, drops), *_) in made.items():
        assert "100 in any minute" not in want or capacity + Fraction(drops * 60, recharge) <= 100, want


def test_both_tables_of_exceptions_have_each_exception_and_whether_drops_were_charged(aio):
    readme, reference = (rows(page, "exception | meaning") for page in PYTHON_PAGES)
    exceptions = {name for name in aio.__all__ if isinstance(getattr(aio, name), type) and issubclass(getattr(aio, name), aio.Error)}
    assert {row[0].strip("`") for row in readme} == exceptions - {"Error"} == {row[0].strip("`") for row in reference}
    charged = {row[0]: row[2].strip("*").replace("yes", "perhaps") for row in readme}
    assert charged == {row[0]: row[2] for row in reference}
    assert {name for name, when in charged.items() if when == "perhaps"} == {"`Unknown`", "`Cancelled`"}


def words_of(table, column=0):
    return {word for row in table for word in re.findall(r"`(?:await )?(\w+)", row[column])}


def test_the_reference_of_python_lists_each_argument_field_and_counter(aio):
    page = PYTHON_PAGES[1]
    arguments = words_of(rows(page, "argument | range | meaning"))
    assert arguments == set(inspect.signature(aio.Throttler).parameters)
    text = page.read_text()
    calls = text[text.index("## Calls"):]
    table = re.findall(r"^\| `(\w+)` \| ", calls, re.M)
    for function in ("consume", "peek", "charge", "reset", "wait", "limit", "reserve"):
        parameters = list(inspect.signature(getattr(aio.Throttler, function)).parameters)[1:]
        assert set(parameters) <= set(table), function
        assert re.search(rf"^\| `{function}\({', '.join(parameters[:1])}", calls, re.M), function
    assert set(inspect.signature(aio.connect).parameters) - {"url"} <= set(table)
    fields = {name for name in dir(aio.ThrottleResult) if not name.startswith("_")}
    assert {row[0].strip("`") for row in rows(page, "field | meaning")} == fields
    assert words_of(rows(page, "counter of a store | unit | counts")) == set(aio.connect("memory:").stats())
    stats = aio.Throttler("memory:", limits="1/s").stats()
    assert words_of(rows(page, "counter of a throttler | unit | counts")) == set(stats) == set(aio.ThrottlerStats.__annotations__)
    limit = set(stats["limits"]["1s"])
    assert words_of(rows(page, "counter of a limit | unit | counts")) == limit == set(aio.LimitStats.__annotations__)
    assert words_of(rows(page, "member | meaning")) == {name for name in dir(aio.Store) if not name.startswith("_")} | {"async"}


@pytest.mark.parametrize("text", ["10 per 2 Hours", "100/min burst 20", "10/second; 1000/hour", "5/1h30m", "5 PER day", "1/10 minutes",
                                  *(f"7/{unit}" for unit in "us ms s min m h d week year month".split())])
def test_a_rate_in_the_grammar_of_the_reference_is_a_limit(aio, text):
    assert aio.Throttler("memory:", limits=text).limits


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


def test_a_hundred_a_minute_lets_200_through_until_the_end_of_the_first_minute():
    limit = {"capacity": 100, "recharge": 600_000, "drops": 1, "block": 0}
    assert (taken(limit, MINUTE), taken(limit, MINUTE + 1)) == (199, 200)
    assert taken(limit, 2 * MINUTE) - taken(limit, MINUTE) == 100
    page = (ROOT / "docs/how-to/choose-a-limit.md").read_text()
    assert "100 a minute with capacity 100 lets up to 200 requests through in the first minute" in page


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
