# SPDX-License-Identifier: MIT
"""Shared by the tests of the ASGI middleware: the package in this process, an application, and requests to it."""
import asyncio
import importlib
import sys

import pytest

WIDE_RECHARGE = 60  # seconds: nothing leaks while a test runs
HTTP_TYPES = "https://iana.org/assignments/http-problem-types#"


@pytest.fixture(scope="module", autouse=True)
def package(aiosteady):
    """The package aiosteady, imported into this process."""
    sys.path.insert(0, str(aiosteady))
    yield importlib.import_module("aiosteady")
    sys.path.remove(str(aiosteady))


@pytest.fixture
def asgi(package):
    return importlib.import_module("aiosteady.asgi")


@pytest.fixture
def http(package):
    return importlib.import_module("aiosteady._http")


@pytest.fixture
def throttler(package):
    """Makes a Throttler, in memory by default."""

    def make(capacity=10, recharge=WIDE_RECHARGE, *args, url="memory:", **options):
        return package.Throttler(url, capacity, recharge, *args, **options)

    return make


def run(main):
    return asyncio.run(main, debug=True)


class Response:
    def __init__(self, messages):
        start, *rest = messages
        self.type, self.status = start["type"], start.get("status")
        self.headers = [(name.decode(), value.decode()) for name, value in start.get("headers", ())]
        self.body = b"".join(message.get("body", b"") for message in rest)

    def __getitem__(self, name):
        """The value of a field, or None. A field must not occur twice."""
        values = [value for field, value in self.headers if field == name]
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None

    @property
    def rate_limit(self):
        return self["ratelimit-policy"], self["ratelimit"]


async def hello(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-own", b"1")]})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def ask(app, client=("192.0.2.1", 50000), headers=(), kind="http", **more):
    """Calls the application with one request, like a server does."""
    sent = []

    async def receive():
        return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "method": "GET", "path": "/", "client": client, "headers": list(headers), **more}
    await app(scope, receive, send)
    return Response(sent)


async def ask_all(app, count, **request):
    return [await ask(app, **request) for _ in range(count)]
