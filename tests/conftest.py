# SPDX-License-Identifier: MIT
"""Fixtures of the tests in Python: the command, the Python package, and real Redis servers that they start and stop."""
import importlib
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import aiosteady_build
import pytest
from aiosteady_build import BUILD, ROOT
from browser import Browser
from command import FIELDS
from resp import Redis, free_port


def pytest_configure(config):
    config.addinivalue_line("markers", "sanitizers: takes a build with sanitizers: `make sanitize` runs it")
    config.addinivalue_line("markers", "wheels: takes the wheels of all Pythons: `make wheels` runs it")
    config.addinivalue_line("markers", "packages: takes other packages: `make packages` runs it")
    config.addinivalue_line("markers", "faults: takes long: `make faults` runs it")
    config.addinivalue_line("markers", "other_servers: takes Redis and Valkey of another Debian: `make servers` runs it")


def pytest_make_parametrize_id(config, val, argname):
    """The words of a list, tuple or dict, escaped, at most 60 characters. pytest would only number it."""
    if isinstance(val, dict):
        val = [f"{name}={value}" for name, value in val.items()] or ["none"]
    if not isinstance(val, (list, tuple)):
        return None
    return " ".join(map(str, val)).encode("unicode_escape").decode()[:60]


@pytest.fixture(scope="session")
def steady():
    """The path of the command."""
    path = BUILD / "steady"
    assert path.exists(), f"{path} is not built: make"
    return path


@pytest.fixture
def run(steady, tmp_path):
    """Runs the command on a file store of this test."""

    def run(*args, env=None, **kwargs):
        whole = {**os.environ, "STEADY_STORE": f"file:{tmp_path}/buckets", **(env or {})}
        whole = {name: value for name, value in whole.items() if value is not None}
        kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **kwargs}
        return subprocess.run([steady, *args], env=whole, timeout=120, text=True, check=False, **kwargs)

    return run


@pytest.fixture
def ask(run):
    """Runs the command with --json. Returns the exit code and the answer, with exact numbers."""

    def ask(*args, fields=FIELDS, **kwargs):
        done = run(*args, "--json", **kwargs)
        assert done.stdout.endswith("\n") and done.stdout.count("\n") == 1, done
        answer = json.loads(done.stdout, parse_float=Decimal, parse_int=Decimal)
        assert list(answer) == list(fields)
        return done.returncode, answer

    return ask


@pytest.fixture(scope="session")
def start_redis(tmp_path_factory):
    """Starts a redis-server with options, or a sentinel. All are stopped at the end."""
    servers = []

    def start(*options, **how):
        servers.append(Redis(tmp_path_factory.mktemp("redis"), *options, **how))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def shared_redis(start_redis):
    return start_redis()


@pytest.fixture
def redis_server(shared_redis):
    """A running redis-server, empty. This process knows nothing of its buckets."""
    shared_redis("FLUSHALL")
    if "aiosteady" in sys.modules:
        sys.modules["aiosteady"]._core.forget_denials()
    return shared_redis


@pytest.fixture
def closed_port():
    return free_port()


@pytest.fixture(scope="session")
def aiosteady():
    """The Python package, built for this Python: a folder for PYTHONPATH. Set AIOSTEADY to use another build."""
    return Path(os.environ.get("AIOSTEADY") or aiosteady_build.build(BUILD / "python"))


@pytest.fixture(scope="session")
def aio(aiosteady):
    """The module aiosteady, imported."""
    sys.path.insert(0, str(aiosteady))
    return importlib.import_module("aiosteady")


@pytest.fixture(scope="session")
def from_pypi():
    """Installs packages for this Python and returns their folder for PYTHONPATH. Skips if pip cannot install them."""

    def install(*requirements):
        try:
            return aiosteady_build.from_pypi(BUILD / "pypi", *requirements)
        except aiosteady_build.Unavailable as why:
            pytest.skip(f"{' '.join(requirements)} cannot be had here: {why}")

    return install


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    running = Browser()
    yield running
    running.close()
