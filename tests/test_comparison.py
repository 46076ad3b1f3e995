# SPDX-License-Identifier: MIT
"""docs/explanation/comparison.md: what it says of other packages is tried. bench/packages.py limits with each."""
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "bench"))
import packages

pytestmark = pytest.mark.packages

PAGE = ROOT / "docs/explanation/comparison.md"


@pytest.fixture
def python(aiosteady, from_pypi, redis_server):
    """Runs a program with all packages and bench/packages.py. URL is a redis-server. Returns the printed lines."""

    def python(code):
        folders = [aiosteady, from_pypi(*packages.REQUIREMENTS), ROOT / "bench"]
        body = "\n".join(f"    {line}" for line in code.strip().splitlines())
        program = (f"import asyncio, os, packages\nURL = {redis_server.url!r}\nasync def main():\n{body}\n"
                   "asyncio.run(main())\nprint('end', flush=True)\nos._exit(0)")
        env = {**os.environ, "PYTHONPATH": ":".join(map(str, folders))}
        done = subprocess.run([sys.executable, "-c", program], env=env, timeout=60, capture_output=True, text=True,
                              check=False)
        assert done.stdout.endswith("end\n"), done.stderr
        return done.stdout.splitlines()[:-1]

    return python


def test_the_versions_of_the_page_are_those_that_are_measured():
    pinned = dict(requirement.split("==") for requirement in packages.REQUIREMENTS)
    heads = re.findall(r"^\| \| aiosteady \| (.*) \|$", PAGE.read_text(), re.M)
    assert len(heads) == 3 and len(set(heads)) == 1
    named = dict(cell.split() for cell in heads[0].split(" | "))
    assert {name: pinned[name] for name in named} == named


def test_each_row_of_figures_is_of_a_package_that_is_measured():
    figures = PAGE.read_text().partition("### Decisions over Redis")[2]
    named = set(re.findall(r"^\| (?!package|tasks:)(.+?) \|", figures, re.M))
    assert named == {*packages.OVER_REDIS, *packages.IN_MEMORY, *packages.APPS} - {"bare"}


@pytest.mark.parametrize("group", ["OVER_REDIS", "IN_MEMORY"])
def test_a_package_that_is_measured_keeps_the_limit(python, group):
    lines = python(f"""
for database, (name, decider) in enumerate(packages.{group}.items()):
    decide = await decider(f"{{URL}}/{{database}}" if {group!r} == "OVER_REDIS" else "memory:", 5, 3600)
    print(name, [await decide("anna") for _ in range(7)] + [await decide("bert")])
""")
    assert lines == [f"{name} [True, True, True, True, True, False, False, True]" for name in getattr(packages, group)]


# ---- What the page says of them ----


def test_a_limiter_of_fastapi_limiter_is_one_bucket_for_all_clients(python):
    assert python("""
import httpx
from fastapi import Depends, FastAPI
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Limiter, Rate
app = FastAPI()
app.get("/", dependencies=[Depends(RateLimiter(limiter=Limiter(Rate(2, 60000))))])(lambda: "hello")
for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
    transport = httpx.ASGITransport(app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        print((await client.get("/")).status_code)
""") == ["200", "200", "429"]


def test_a_log_of_pyrate_limiter_does_not_load_its_script_again(python):
    assert python("""
from redis import Redis
for algorithm in ("log", "GCRA"):
    decide = await packages.OVER_REDIS[f"pyrate-limiter, {algorithm}"](URL, 5, 3600)
    await decide("anna")
    Redis.from_url(URL).script_flush()
    for _ in range(2):
        try:
            print(await decide("anna"))
        except Exception as why:
            print(type(why).__name__)
""") == ["NoScriptError", "NoScriptError", "True", "True"]


def test_a_key_of_pyrate_limiter_waits_for_another_key(python):
    assert python("""
from pyrate_limiter import InMemoryBucket, Limiter, Rate
limiter = Limiter(packages.pyrate_factory(lambda name: InMemoryBucket([Rate(1, 1000)])))
await limiter.try_acquire_async("anna")
done = []
async def acquire(name):
    await limiter.try_acquire_async(name)
    done.append(name)
waiting = asyncio.create_task(acquire("anna"))
await asyncio.sleep(0.1)
await acquire("bert")
print(done)
""") == ["['anna', 'bert']"]


def test_throttled_py_has_one_quota_for_a_throttled(python):
    assert python("""
from throttled.asyncio import Throttled
try:
    Throttled(quota="10/s; 1000/h")
except Exception as why:
    print(why)
""") == ["Invalid quota: multiple quota rules are not supported in Throttled(quota=...) yet."]


def test_a_memory_store_of_throttled_py_forgets_a_key_after_1024_others(python):
    assert python("""
decide = await packages.IN_MEMORY["throttled-py, GCRA"]("memory:", 1, 3600)
print([await decide("anna") for _ in range(2)], {await decide(f"key {n}") for n in range(1024)}, await decide("anna"))
""") == ["[True, False] {True} True"]


def test_a_client_chooses_its_key_in_fastapi_limiter(python):
    assert python("""
from fastapi import Request
from fastapi_limiter.identifier import default_identifier
scope = {"type": "http", "path": "/", "client": ("192.0.2.1", 1), "headers": [(b"x-forwarded-for", b"any text, 192.0.2.9")]}
print(await default_identifier(Request(scope)))
""") == ["any text:/"]


def test_the_smallest_amount_goes_first_in_aiolimiter(python):
    assert python("""
from aiolimiter import AsyncLimiter
limiter, order = AsyncLimiter(2, 0.5), []
async def acquire(amount):
    await limiter.acquire(amount)
    order.append(amount)
await limiter.acquire(2)
await asyncio.gather(acquire(2), acquire(1))
print(order)
""") == ["[1, 2]"]


def test_slowapi_that_swallows_errors_answers_500(python):
    assert python("""
import httpx
from fastapi import FastAPI, Request
from slowapi import Limiter
from slowapi.util import get_remote_address
limiter = Limiter(key_func=get_remote_address, storage_uri="redis://127.0.0.1:1", swallow_errors=True)
app = FastAPI()
app.state.limiter = limiter
@app.get("/")
@limiter.limit("5/hour")
async def hello(request: Request):
    return "hello"
transport = httpx.ASGITransport(app, raise_app_exceptions=False)
async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
    print((await client.get("/")).status_code)
""") == ["500"]
