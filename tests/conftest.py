# SPDX-License-Identifier: MIT
"""What the tests from outside share: the command, and real Redis servers that they start and stop themselves."""
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from resp import Resp

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BUILD", ROOT / "build")).resolve()


class Redis:
    """A redis-server of our own on 127.0.0.1. Calling it sends a command and returns the reply."""

    def __init__(self, directory, *options):
        self.log = directory / "redis.log"
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.client = None
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory),
                   "--save", "", "--appendonly", "no", "--logfile", str(self.log), *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while self.client is None:
            try:
                self.client = Resp(self.port)
            except OSError:
                log = self.log.read_text() if self.log.exists() else ""
                assert self.process.poll() is None and time.monotonic() < deadline, log
                time.sleep(0.01)

    def __call__(self, *words):
        return self.client(*words)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.client.close()


def free_port():
    """A TCP port that nobody listens on, at least just now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


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
        return subprocess.run([steady, *args], env=whole, timeout=20, text=True, check=False, **kwargs)

    return run


@pytest.fixture(scope="session")
def start_redis(tmp_path_factory):
    """Starts a redis-server with options of its own; all are stopped at the end."""
    servers = []

    def start(*options):
        servers.append(Redis(tmp_path_factory.mktemp("redis"), *options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def shared_redis(start_redis):
    return start_redis()


@pytest.fixture
def redis_server(shared_redis):
    """A running redis-server, empty."""
    shared_redis("FLUSHALL")
    return shared_redis


@pytest.fixture
def closed_port():
    return free_port()
