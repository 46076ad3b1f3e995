# SPDX-License-Identifier: MIT
"""A client cannot pass the ASGI middleware by sending many requests or a key of its choice."""
import asyncio
import importlib
import json
import logging
import os
import resource
import sys
import time
from collections import Counter

import pytest
from asgi_rig import HTTP_TYPES, ask, ask_all, hello, run
from asgi_rig import asgi, package, throttler  # noqa: F401: fixtures


def statuses(responses):
    return Counter(response.status for response in responses)


async def ask_at_once(app, count, **request):
    return await asyncio.gather(*(ask(app, **request) for _ in range(count)))


def ours(caplog):
    """The warnings of the middleware."""
    return [r.getMessage() for r in caplog.records if r.name == "aiosteady" and r.levelno == logging.WARNING]


def token(scope):
    return dict(scope["headers"])[b"authorization"]


# ---- A held loop ----


def holds(seconds):
    async def app(scope, receive, send):
        time.sleep(seconds)
        await hello(scope, receive, send)

    return app


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "connecting"])
@pytest.mark.parametrize("hold", [0.06, 0.09, 0.15])
def test_a_handler_that_holds_the_loop_admits_no_more(asgi, package, redis_server, hold, connected):
    async def main():
        async with package.connect(redis_server.url) as store:
            limit = package.Throttler(store, 5, 600.0)
            if connected:
                await limit.peek("k")
            return await ask_at_once(asgi.RateLimit(holds(hold), limit), 40)

    assert statuses(asyncio.run(main())) == {200: 5, 429: 35}


@pytest.mark.parametrize("hold", [0.06, 0.15])
def test_requests_that_come_while_the_loop_is_held_are_limited(asgi, package, redis_server, hold):
    async def later(app, at):
        await asyncio.sleep(at)
        return await ask(app)

    async def main():
        async with package.connect(redis_server.url) as store:
            app = asgi.RateLimit(holds(hold), package.Throttler(store, 5, 600.0))
            return await asyncio.gather(*(later(app, at / 100) for at in range(60)))

    counts = statuses(asyncio.run(main()))
    assert counts[200] == 5 and counts.keys() <= {200, 429, 503}


# ---- Too many decisions ----


@pytest.mark.parametrize("policy", ["report", "allow", "deny"])
def test_decisions_beyond_max_in_flight_are_not_admitted(asgi, package, redis_server, policy, caplog):
    async def main(**options):
        async with package.connect(redis_server.url, max_in_flight=10, timeout=10) as store:
            limit = package.Throttler(store, 1, 600.0, on_error=policy)
            await limit.consume("default:192.0.2.1")
            return await ask_at_once(asgi.RateLimit(hello, limit, **options), 400)

    counts = statuses(responses := run(main()))
    assert counts.keys() == {429, 503} and counts[429] >= 10
    refused = next(response for response in responses if response.status == 503)
    assert 1 <= int(refused["retry-after"]) <= 5 and refused["ratelimit"] is None
    assert json.loads(refused.body)["type"] == HTTP_TYPES + "temporary-reduced-capacity"
    assert [line for line in ours(caplog) if " denied " not in line] == [
        "policy 'default' has no verdict, so requests get 503: "
        "too many decisions are in flight, or a handler holds the event loop"]
    assert run(main(on_overload="allow")) and statuses(run(main(on_overload="allow"))).keys() == {200, 429}


@pytest.fixture(params=["native", "redis"])
def connect(request, package, from_pypi):
    """Returns a function that makes a store from a URL or a client of redis-py, and its close function."""
    if request.param == "native":
        return lambda url: (store := package.connect(url), store.aclose)
    sys.path.append(str(from_pypi("redis==8.1.0")))
    client = importlib.import_module("redis.asyncio").from_url
    return lambda url: (made := client(url), made.aclose)


def test_a_client_that_asks_400_times_at_once_is_limited(asgi, package, redis_server, connect):
    async def main():
        store, close = connect(redis_server.url)
        limit = package.Throttler(store, 5, 600.0)
        await limit.consume("default:192.0.2.1", 5)
        try:
            return await ask_at_once(asgi.RateLimit(hello, limit), 400)
        finally:
            await close()

    assert statuses(asyncio.run(main())) == {429: 400}


def test_a_program_without_descriptors_admits_no_request(asgi, package, redis_server, connect):
    async def main():
        store, close = connect(redis_server.url)
        app = asgi.RateLimit(hello, package.Throttler(store, 5, 600.0))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            refused = await ask_at_once(app, 20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await asyncio.sleep(1.5)  # the native client waits before it connects again
        later = await ask(app)
        await close()
        return refused, later

    refused, later = asyncio.run(main())
    assert statuses(refused) == {503: 20} and later.status == 200 and later["ratelimit"] is not None


@pytest.mark.parametrize("times, status", [(1, 200), (2, 200), (3, 503)])
def test_an_overloaded_decision_is_retried_twice(asgi, package, throttler, times, status):
    answers = [package.Overloaded("no")] * times + [None]

    class Busy(package.Throttler):
        async def consume(self, key, amount=1):
            if (answer := answers.pop(0)) is not None:
                raise answer
            return await super().consume(key, amount)

    response = run(ask(asgi.RateLimit(hello, Busy("memory:", 5, 60.0))))
    assert response.status == status and len(answers) == (status == 503)


def test_an_overloaded_decision_is_answered_by_the_local_share(asgi, package, redis_server):
    async def main():
        async with package.connect(redis_server.url, max_in_flight=1, timeout=10) as store:
            limit = package.Throttler(store, 4, 600.0, on_error="local", local_share=2)
            return await ask_at_once(asgi.RateLimit(hello, limit), 40)

    counts = statuses(run(main()))
    assert counts.keys() == {200, 429} and counts[200] <= 4 + 2


# ---- Keys that a client chooses ----


@pytest.mark.parametrize("policy", ["report", "allow"])
@pytest.mark.parametrize("options", [{}, {"on_error": "deny"}, {"on_overload": "allow"}])
def test_a_key_that_holds_a_foreign_value_is_not_admitted(asgi, throttler, redis_server, options, policy, caplog):
    redis_server("SET", "session:of-bob", "something else")
    limit = throttler(url=redis_server.url, on_error=policy)
    app = asgi.RateLimit(hello, limit, key=token, name="session", **options)
    response = run(ask(app, headers=[(b"authorization", b"of-bob")]))
    assert response.status == 503 and response["ratelimit"] is None
    assert "requests get 503" in caplog.text and "of-bob" not in caplog.text


@pytest.mark.parametrize("key, why", [
    (b"t" * 1020, "is 1020 bytes long; it must be at most 1016"), (b"", "is empty"), ("\ud800", "is not UTF-8")],
                         ids=["too long", "empty", "not UTF-8"])
def test_a_bad_key_is_logged_once_a_minute_without_the_key(asgi, throttler, caplog, monkeypatch, key, why):
    app = asgi.RateLimit(hello, throttler(1), key=lambda scope: key)
    assert {response.status for response in run(ask_all(app, 3))} == {400}
    assert [line.startswith(f"policy 'default': the key {why}") for line in ours(caplog)] == [True]
    assert "ttt" not in caplog.text
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    run(ask(app))
    assert len(ours(caplog)) == 2


@pytest.mark.parametrize("secret", [True, "a secret", b"s" * 64, b"s" * 65, b"\xff"],
                         ids=["no secret", "text", "64 bytes", "65 bytes", "not UTF-8"])
def test_a_long_key_is_stored_as_a_hash_only(asgi, throttler, redis_server, secret):
    app = asgi.RateLimit(hello, throttler(1, url=redis_server.url), key=token, hash=secret)
    bearer = b"Bearer " + b"t0k" * 400

    async def main():
        return [(await ask(app, headers=[(b"authorization", value)])).status for value in (bearer, bearer + b"!", bearer)]

    assert run(main()) == [200, 200, 429]
    keys = redis_server("KEYS", "*")
    assert len(keys) == 2 and all(key.startswith(b"default:") and len(key) == 8 + 64 and b"t0k" not in key for key in keys)


def test_hashes_with_different_secrets_are_different_keys(asgi, throttler, redis_server):
    limit = throttler(1, url=redis_server.url)
    for secret in (True, "a", "b", b"s" * 64, b"s" * 65, b"s" * 66):
        assert run(ask(asgi.RateLimit(hello, limit, hash=secret))).status == 200
        assert run(ask(asgi.RateLimit(hello, limit, hash=secret))).status == 429
    assert len(redis_server("KEYS", "*")) == 6 and "secret" not in repr(asgi.Policy(limit, hash="my secret"))


def test_a_hash_is_the_same_in_each_version(asgi, throttler, redis_server):
    import hashlib

    run(ask(asgi.RateLimit(hello, throttler(1, url=redis_server.url), hash="a secret")))
    digest = hashlib.blake2b(b"192.0.2.1", digest_size=32, key=b"a secret", person=b"aiosteady").hexdigest()
    assert redis_server("KEYS", "*") == [b"default:" + digest.encode()]


def test_an_empty_key_is_a_400_also_with_hashing(asgi, throttler):
    assert run(ask(asgi.RateLimit(hello, throttler(1), key=lambda scope: "", hash=True))).status == 400
