# SPDX-License-Identifier: MIT
"""Both middlewares in real servers: Unix sockets behind a proxy, processes that share a limit, settlements, clients that
hang up."""
import json
import os
import socket
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from resp import free_port
from server_rig import get, serving

SERVERS = ("uvicorn==0.54.0", "gunicorn==27.0.1", "waitress==3.0.2")

# One program for all: the application answers by its path, and prints what it settles.
APP = """
import json, os, sys, time
import aiosteady, aiosteady.blocking
from aiosteady import asgi, wsgi

HOPS, CAPACITY = int(os.environ["HOPS"]), int(os.environ["CAPACITY"])
URL = os.environ["STORE"]

def settle(outcome):
    if "settle" not in os.environ:
        return None
    with open(os.environ["settle"], "a") as file:
        print(outcome.status, outcome.complete, outcome.size, type(outcome.exception).__name__, file=file)
    return 1 if outcome.status >= 400 else 0

async def asgi_app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/broken":
        raise ValueError("broken")
    key = scope["state"]["rate_limit"].keys["default"]
    headers = [] if scope["path"] == "/stream" else [(b"content-length", b"%d" % len(key))]
    await send({"type": "http.response.start", "status": 401 if scope["path"] == "/no" else 200, "headers": headers})
    if scope["path"] == "/stream":
        import asyncio
        for _ in range(500):
            gone = asyncio.ensure_future(receive())
            await asyncio.sleep(0.01)
            if gone.done() and gone.result()["type"] == "http.disconnect":
                return
            await send({"type": "http.response.body", "body": b"x" * 50, "more_body": True})
    await send({"type": "http.response.body", "body": key})

def wsgi_app(environ, start_response):
    if environ["PATH_INFO"] == "/broken":
        raise ValueError("broken")
    key = environ["aiosteady.rate_limit"].keys["default"]
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (time.sleep(0.01) or b"x" * 5000 for _ in range(500))
    status = "401 Unauthorized" if environ["PATH_INFO"] == "/no" else "200 OK"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(key)))])
    return iter([key])

async_app = asgi.RateLimit(asgi_app, aiosteady.Throttler(aiosteady.connect(URL, timeout=10), CAPACITY, 3600.0),
                           key=asgi.client_address(HOPS), settle=settle)
sync_app = wsgi.RateLimit(wsgi_app, aiosteady.blocking.Throttler(aiosteady.blocking.connect(URL, timeout=10), CAPACITY, 3600.0),
                          key=wsgi.client_address(HOPS), settle=settle)
"""

COMMANDS = {
    "uvicorn": lambda where: ["uvicorn", "program:async_app", "--log-level", "warning",
                              *(["--port", str(where)] if isinstance(where, int) else ["--uds", str(where)])],
    "gunicorn": lambda where: ["gunicorn", "program:sync_app", "--threads", "4", "--log-level", "error", "--no-control-socket",
                               "--bind", f"127.0.0.1:{where}" if isinstance(where, int) else f"unix:{where}"],
    "waitress": lambda where: ["waitress", "--no-clear-untrusted-proxy-headers", f"--listen=127.0.0.1:{where}" if isinstance(
        where, int) else f"--unix-socket={where}", "program:sync_app"],
}


@pytest.fixture
def start(aiosteady, from_pypi, tmp_path):
    """Starts a server with the program, in a context."""

    def start(server, where, *more, store="memory:", hops=0, capacity=10, settle=None):
        (tmp_path / "program.py").write_text(APP)
        environment = {**os.environ, "PYTHONPATH": f"{aiosteady}:{from_pypi(*SERVERS)}:{tmp_path}", "HOPS": str(hops),
                       "PYTHONDONTWRITEBYTECODE": "1", "CAPACITY": str(capacity), "STORE": store}
        if settle is not None:
            environment["settle"] = str(settle)
        return serving([sys.executable, "-m", *COMMANDS[server](where), *more], environment, where)

    return start


@pytest.fixture
def path(tmp_path):
    return tmp_path / "http"


def behind_proxy(where, client, path="/"):
    """A request as a proxy sends it."""
    return get(where, path, {"X-Forwarded-For": f"203.0.113.9, {client}", "X-Real-IP": client, "Host": "example.org"})


# ---- Unix sockets ----


@pytest.mark.parametrize("server", COMMANDS)
def test_clients_of_a_proxy_on_a_unix_socket_are_told_apart(start, path, server):
    with start(server, path, hops=1, capacity=2):
        answers = [behind_proxy(path, client) for client in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "2001:db8:1:2::5")]
    assert [a.status for a in answers] == [200, 200, 429, 200]
    assert [a.content for a in answers if a.status == 200] == [b"192.0.2.1"] * 2 + [b"2001:db8:1:2::/64"]
    assert json.loads(answers[2].content)["violated-policies"] == ["default"]


@pytest.mark.parametrize("server", COMMANDS)
def test_a_unix_socket_without_a_trusted_proxy_counts_as_one_client(start, path, server):
    with start(server, path, hops=0, capacity=3):  # the server asked once until it answered
        answers = [behind_proxy(path, client) for client in ("192.0.2.1", "192.0.2.2", "192.0.2.3")]
    assert [a.status for a in answers] == [200, 200, 429]
    assert answers[0].content == (b"localhost" if server == "waitress" else b"unix")


def test_uvicorn_with_trusted_forwarded_headers_names_the_client_itself(start, path):
    with start("uvicorn", path, "--forwarded-allow-ips", "*", hops=0, capacity=1):
        answers = [get(path, headers={"X-Forwarded-For": client}) for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2")]
    assert [a.status for a in answers] == [200, 429, 200] and answers[2].content == b"192.0.2.2"


# ---- Processes ----


def test_the_processes_of_gunicorn_share_a_limit_that_was_made_before_the_fork(start, redis_server):
    port = free_port()
    with start("gunicorn", port, "--workers", "3", "--preload", store=redis_server.url, capacity=30):
        redis_server("FLUSHALL")
        with ThreadPoolExecutor(8) as pool:
            counts = Counter(answer.status for answer in pool.map(lambda _: get(port), range(60)))
    assert counts == {200: 30, 429: 30}


# ---- Settlements ----


@pytest.mark.parametrize("server", COMMANDS)
def test_a_client_that_asks_again_at_once_finds_the_room_that_came_back(start, tmp_path, server, redis_server):
    port = free_port()
    with start(server, port, store=redis_server.url, capacity=1, settle=tmp_path / "settled"):
        assert [get(port).status for _ in range(30)] == [200] * 30
        assert [get(port, "/no").status for _ in range(2)] == [401, 429]


@pytest.mark.parametrize("server", COMMANDS)
def test_an_exception_in_a_real_server_is_settled_as_a_failure(start, tmp_path, server):
    port = free_port()
    with start(server, port, capacity=1, settle=tmp_path / "settled"):
        assert [get(port, "/broken").status for _ in range(2)] == [500, 429]
    assert (tmp_path / "settled").read_text().splitlines()[-1] == "500 False 0 ValueError"


@pytest.mark.parametrize("server", COMMANDS)
def test_a_client_that_hangs_up_in_a_stream_leaves_it_incomplete(start, tmp_path, server):
    port, settled = free_port(), tmp_path / "settled"
    with start(server, port, settle=settled):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: example.org\r\n\r\n")
        assert connection.recv(100)
        connection.close()
        before, deadline = settled.read_text().count("\n"), time.monotonic() + 20
        while settled.read_text().count("\n") <= before and time.monotonic() < deadline:
            time.sleep(0.05)
    status, complete, size, error = settled.read_text().splitlines()[-1].split()
    assert (status, complete) == ("200", "False") and 0 < int(size) < 2_500_000
