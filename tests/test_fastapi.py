# SPDX-License-Identifier: MIT
"""Limits on routes of FastAPI and Starlette: with the newest versions and with old ones, and the programs of the page
docs/how-to/limit-routes.md under uvicorn."""
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT
from resp import free_port
from test_asgi_servers import FRAMEWORKS, get, serving

OLD = ("fastapi==0.108.0", "httpx==0.27.2")  # for Python 3.9 too
SERVED = (*FRAMEWORKS, "uvicorn==0.54.0")
PAGE = ROOT / "docs/how-to/limit-routes.md"
MYPY = ("mypy==2.4.1", "typing_extensions")


def programs(page):
    """The blocks of Python of a page, by the file name in their first line."""
    return dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", page.read_text(), re.S | re.M))


@pytest.mark.parametrize("versions", [pytest.param(FRAMEWORKS, id="new"),
                                      pytest.param(OLD, id="old", marks=pytest.mark.packages)])
def test_limits_of_routes(aiosteady, from_pypi, redis_server, closed_port, versions):
    environment = {**os.environ, "PYTHONPATH": f"{aiosteady}:{from_pypi(*versions)}"}
    command = [sys.executable, "-W", "error::RuntimeWarning", ROOT / "tests/fastapi_routes.py", redis_server.url,
               str(closed_port)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert run.returncode == 0 and re.fullmatch(r"(\d\d) passed, 0 failed\n", run.stdout), run.stdout + run.stderr
    assert "never awaited" not in run.stderr and "Exception ignored" not in run.stderr, run.stderr


# ---- The programs of the page ----


@pytest.fixture
def served(aiosteady, from_pypi, redis_server, tmp_path):
    """Serves a program of the page with two worker processes. Yields the port."""

    def serve(name):
        port = free_port()
        (tmp_path / name).write_text(programs(PAGE)[name].replace("redis://localhost", redis_server.url))
        environment = {**os.environ, "PYTHONPATH": f"{aiosteady}:{from_pypi(*SERVED)}:{tmp_path}"}
        command = [sys.executable, "-m", "uvicorn", f"{name[:-3]}:app", "--port", str(port), "--log-level", "warning"]
        return serving(command if name == "own.py" else [*command, "--workers", "2"], environment, port), port

    return serve


def test_the_workers_of_the_shop_share_their_limits(served, redis_server):
    server, port = served("shop.py")
    with server, ThreadPoolExecutor(4) as pool:
        redis_server("FLUSHALL")
        answers = list(pool.map(lambda i: get(port, f"/items/{i}"), range(12)))
        assert sorted(answer.status for answer in answers) == [200] * 5 + [429] * 7
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"GET /items/{id}";q=5;w=60'}
        assert [get(port, f"/admin/{path}").status for path in ("users", "logs", "users", "logs")] == [200] * 3 + [429]
        assert [get(port, "/report").status for _ in range(3)] == [200, 200, 429]
        assert get(port, "/items/x").headers["ratelimit"] is not None, "an error has the fields"
        keys = {key.decode() for key in redis_server("KEYS", "*")}
        assert {"GET /items/{id}:127.0.0.1", "admin:127.0.0.1", "GET /report:127.0.0.1"} <= keys, keys


def test_the_other_programs_of_the_page_answer_as_it_says(served, redis_server):
    server, port = served("small.py")
    with server:
        redis_server("FLUSHALL")
        assert [get(port).status for _ in range(6)] == [200] * 5 + [429]
        assert get(port, "/items").headers["ratelimit"] == '"/items";r=4;t=48'
    server, port = served("users.py")
    with server:
        redis_server("FLUSHALL")
        first, *others = [get(port, "/search", {"X-User": user}) for user in ["anna"] * 6 + ["bert"]]
        assert [answer.status for answer in others] == [200] * 4 + [429, 200]
        fields = first.headers["ratelimit-policy"], first.headers["ratelimit"]
        assert all(f": {field}\n" in PAGE.read_text() for field in fields), fields
        assert get(port, "/search").status == 200
        assert {b"user:user:anna", b"user:user:bert", b"user:127.0.0.1", b"all:all"} == set(redis_server("KEYS", "*"))
    server, port = served("own.py")
    with server:
        while get(port).status == 200:
            pass
        denied = get(port)
        assert denied.status == 429 and int(denied.headers["retry-after"]) > 0
        assert denied.headers["content-type"] == "application/json"


@pytest.mark.packages
def test_each_program_of_the_page_is_run_and_passes_the_type_checker(aiosteady, from_pypi, tmp_path):
    assert set(programs(PAGE)) == {"shop.py", "small.py", "users.py", "own.py"}
    assert PAGE.read_text().count("```python\n") == 4
    for name, code in programs(PAGE).items():
        (tmp_path / name).write_text(code)
    environment = {**os.environ, "PYTHONPATH": f"{from_pypi(*MYPY)}:{aiosteady}:{from_pypi(*SERVED)}"}
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, *programs(PAGE)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
