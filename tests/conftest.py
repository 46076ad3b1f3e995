# SPDX-License-Identifier: MIT
"""What the tests from outside share: the command, and real Redis servers that they start and stop themselves."""
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BUILD", ROOT / "build")).resolve()


class RedisError(Exception):
    pass


class Redis:
    """A redis-server of our own on 127.0.0.1, and one connection to it."""

    def __init__(self, directory, *options):
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "redis.log"
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.socket = self.reader = None
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory),
                   "--save", "", "--appendonly", "no", "--logfile", str(self.log), *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._connect(time.monotonic() + 10)

    def _connect(self, deadline):
        while self.socket is None:
            try:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            except OSError:
                log = self.log.read_text() if self.log.exists() else ""
                assert self.process.poll() is None and time.monotonic() < deadline, log
                time.sleep(0.01)
        self.reader = self.socket.makefile("rb")

    def __call__(self, *args):
        """Sends a command and returns its reply; an error reply is raised."""
        parts = [str(arg).encode() if not isinstance(arg, bytes) else arg for arg in args]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))
        return self._reply()

    def _reply(self):
        line = self.reader.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.reader.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        assert kind == b"+", line
        return rest.decode()

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.socket is not None:
            self.reader.close()
            self.socket.close()
            self.socket = None


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
