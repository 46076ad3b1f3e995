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


async def policies_in_a_cluster(redis, prefix):
    """Three policies whose keys lie in several slots. `redis` is a Store or a client."""
    from aiosteady import Throttler
    from aiosteady.asgi import Policy, RateLimit

    app = RateLimit(hello, policies=[
        Policy(Throttler(redis, capacity, 3600, 9000, prefix=prefix), key=lambda scope, name=name: scope[name], name=name)
        for name, capacity in (("all", 20), ("net", 9), ("user", 2))])

    def asked(user):
        return ask(app, all="all", net=f"net{user % 2}", user=f"user{user}")

    answers = [await asked(user) for user in (1, 1, 2, 1, 3, 1)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 200, 429]
    assert answers[0]["ratelimit"] == '"all";r=19;t=68400, "net";r=8;t=28800, "user";r=1;t=3600'
    assert answers[3]["ratelimit"] == answers[5]["ratelimit"] == '"user";r=0;t=9000'
    states = [await policy.throttler.peek(f"{policy.name}:{key}") for policy, key in zip(app._policies, ("all", "net1", "user1"))]
    assert [state.level for state in states] == [4, 3, 2], "a denied request charges nothing"
    assert [state.blocked_for is not None for state in states] == [False, False, True]
    answers = await asyncio.gather(*(asked(4) for _ in range(12)))
    assert sorted(answer.status for answer in answers) == [200] * 2 + [429] * 10
    assert (await app._policies[0].throttler.peek("all:all")).level <= 4 + 2 + 1
