# SPDX-License-Identifier: MIT
"""The options of both middlewares: settle, on_denied, on_decision, dry_run, a throttler for each request, the log of denials.
Each test runs in ASGI and in WSGI."""
import asyncio
import importlib
import inspect
import json
import logging
import time

import asgi_rig
import pytest
import wsgi_rig
from asgi_rig import package  # noqa: F401: fixture

WIDE = 3600.0  # seconds: nothing leaks while a test runs


class Asgi:
    def __init__(self):
        self.module, self.throttlers = (importlib.import_module(name) for name in ("aiosteady.asgi", "aiosteady"))

    @staticmethod
    def app(status=200, headers=(), blocks=(b"hello",), raises=None):
        """An application with this response. `raises`: an exception after the blocks, or before the response if there are
        no blocks."""

        async def app(scope, receive, send):
            app.calls += 1
            if raises is not None and not blocks:
                raise raises
            await send({"type": "http.response.start", "status": status,
                        "headers": [(name.lower().encode(), value.encode()) for name, value in headers]})
            for i, block in enumerate(blocks):
                await send({"type": "http.response.body", "body": block,
                            "more_body": raises is not None or i + 1 < len(blocks)})
            if raises is not None:
                raise raises

        app.calls = 0
        return app

    @staticmethod
    def ask(app, **request):
        return asyncio.run(asgi_rig.ask(app, **{"path": "/", **request}), debug=True)

    @staticmethod
    def level(throttler, key):
        return asyncio.run(throttler.peek(key)).level

    @staticmethod
    def path(scope):
        return scope["path"]

    @staticmethod
    def decision(request):
        return request["state"]["rate_limit"]


class Wsgi:
    def __init__(self):
        self.module, self.throttlers = (importlib.import_module(f"aiosteady.{name}") for name in ("wsgi", "blocking"))

    @staticmethod
    def app(status=200, headers=(), blocks=(b"hello",), raises=None):
        def app(environ, start_response):
            app.calls += 1
            if raises is not None and not blocks:
                raise raises
            start_response(f"{status} Some", [("Content-Type", "text/plain"), *headers])
            return then_raise() if raises is not None else iter(blocks)

        def then_raise():
            yield from blocks
            raise raises

        app.calls = 0
        return app

    @staticmethod
    def ask(app, **request):
        return wsgi_rig.ask(app, **request)

    @staticmethod
    def level(throttler, key):
        return throttler.peek(key).level

    @staticmethod
    def path(environ):
        return environ["PATH_INFO"]

    @staticmethod
    def decision(request):
        return request["aiosteady.rate_limit"]


@pytest.fixture(params=[Asgi, Wsgi], ids=["asgi", "wsgi"])
def web(request, package):
    return request.param()


@pytest.fixture(params=["memory", "redis"])
def url(request):
    return "memory:" if request.param == "memory" else request.getfixturevalue("redis_server").url


@pytest.fixture
def limited(web):
    """Makes a RateLimit with one policy, and its throttler."""

    def make(app=None, capacity=10, url="memory:", block=None, **options):
        there = web.throttlers.Throttler(web.throttlers.connect(url, timeout=10), capacity, WIDE, block)
        return web.module.RateLimit(app or web.app(), there, key=lambda request: "k", **options), there

    return make


def ours(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "aiosteady" and r.levelno == logging.WARNING]


def an_awaited(function):
    """The same as a coroutine function."""

    async def awaited(*arguments):
        await asyncio.sleep(0)
        return function(*arguments)

    return awaited


class NoText(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def raising(error):
    def function(*arguments):
        raise error

    return function


# ---- settle ----


def test_only_failures_are_counted(web, limited, url):
    for status, level in ((200, 0), (302, 0), (401, 1), (503, 1)):
        app, there = limited(web.app(status), url=url, settle=lambda outcome: 1 if outcome.status >= 400 else 0)
        before = web.level(there, "default:k")
        assert web.ask(app).status == status and web.level(there, "default:k") - before == level
    app, _ = limited(web.app(200), capacity=2, settle=lambda outcome: 1 if outcome.status >= 400 else 0)
    assert {web.ask(app).status for _ in range(9)} == {200}
    app, _ = limited(web.app(401), capacity=2, settle=lambda outcome: 1 if outcome.status >= 400 else 0)
    assert [web.ask(app).status for _ in range(4)] == [401, 401, 429, 429]


@pytest.mark.parametrize("blocks", [(), (b"a", b"b")], ids=["before the response", "in the body"])
@pytest.mark.parametrize("failure, level", [(ValueError("broken"), 0), (None, 3)], ids=["raises", "responds"])
def test_an_exception_gives_the_drops_back(web, limited, failure, level, blocks):
    seen = []

    def settle(outcome):
        seen.append(outcome)
        return 0 if outcome.exception is not None else None

    app, there = limited(web.app(blocks=blocks or ((b"hello",) if failure is None else ()), raises=failure), cost=3,
                         settle=settle)
    if failure is None:
        web.ask(app)
    else:
        with pytest.raises(ValueError, match="broken"):
            web.ask(app)
    assert web.level(there, "default:k") == level
    assert len(seen) == 1 and seen[0].exception is failure and seen[0].complete == (failure is None)
    assert seen[0].status == (500 if failure is not None and not blocks else 200)


def test_the_tokens_of_a_header_are_charged(web, limited, url):
    app, there = limited(web.app(headers=[("X-Tokens", "7")]), url=url, cost=5, settle=lambda o: int(o.headers["x-tokens"]))
    response = web.ask(app)
    assert response.status == 200 and web.level(there, "default:k") == 7
    assert response["ratelimit"] == '"default";r=5;t=18000', "the fields are sent before the cost is known"


def test_the_tokens_of_a_json_body_are_charged(web, limited):
    body = json.dumps({"text": "x" * 1000, "usage": {"tokens": 4}}).encode()
    app, there = limited(web.app(blocks=[body[:300], body[300:]]), body_bytes=2000,
                         settle=lambda outcome: outcome.json()["usage"]["tokens"])
    assert web.ask(app).body == body and web.level(there, "default:k") == 4


def test_the_tokens_at_the_end_of_a_stream_are_charged_and_the_stream_is_not_kept(web, limited):
    events = [b"data: " + b"x" * 1000 + b"\n\n"] * 200 + [b'data: {"usage": {"tokens": 6}}\n\n', b"data: [DONE]\n\n"]
    sizes = []

    def settle(outcome):
        sizes.append((len(outcome.body), outcome.size))
        data = [line[6:] for line in outcome.body.splitlines() if line.startswith(b"data: {")]
        return json.loads(data[-1])["usage"]["tokens"]

    app, there = limited(web.app(blocks=events), body_bytes=500, settle=settle)
    assert web.ask(app).body == b"".join(events) and web.level(there, "default:k") == 6
    assert sizes == [(500, sum(map(len, events)))]


def test_a_stream_passes_block_by_block(web, limited):
    """The middleware holds no block back, and settles after the last."""
    order = []

    def blocks():
        for block in (b"a", b"b"):
            order.append(block)
            yield block

    made = web.app(blocks=[b"a", b"b"])
    if isinstance(web, Wsgi):
        def made(environ, start_response):  # noqa: F811
            start_response("200 OK", [("Content-Type", "text/plain")])
            return blocks()

        app, _ = limited(made, settle=lambda outcome: order.append("settle"))
        body = app({"REMOTE_ADDR": "192.0.2.1"}, lambda *start: None)
        for block in body:
            order.append(block.upper())
        assert order == [b"a", b"A", b"b", b"B", "settle"]
    else:
        app, _ = limited(made, settle=lambda outcome: order.append("settle"))

        async def send(message):
            order.append(message.get("body", message["type"]))

        asyncio.run(app({"type": "http", "headers": []}, None, send))
        assert order == ["http.response.start", b"a", "settle", b"b"]


def test_the_next_request_of_a_client_finds_the_room_that_came_back(web, limited):
    """Settled before the last byte is sent: with Content-Length in WSGI, by more_body in ASGI."""
    levels = []
    app, there = limited(web.app(headers=[("Content-Length", "5")], blocks=[b"he", b"llo"]), settle=lambda outcome: 0)
    if isinstance(web, Wsgi):
        for _ in app({}, lambda *start: None):
            levels.append(there.peek("default:k").level)
    else:
        async def send(message):
            if message["type"].endswith("body"):
                levels.append((await there.peek("default:k")).level)

        asyncio.run(app({"type": "http", "headers": []}, None, send))
    assert levels == [1, 0]


def test_each_policy_is_settled_by_itself(web):
    store = web.throttlers.connect("memory:")
    tokens = web.throttlers.Throttler(store, limits={"minute": "100/minute", "hour": "1000/hour"})
    requests, failures, slow = (web.throttlers.Throttler(store, 10, recharge) for recharge in (WIDE, WIDE, 10 * WIDE))
    app = web.module.RateLimit(web.app(500), policies=[
        web.module.Policy(requests, lambda request: "k", name="requests"),
        web.module.Policy(slow, lambda request: "k", 5, "slow", settle=lambda o: 1),
        web.module.Policy(failures, lambda request: "k", name="failures", settle=lambda o: 1 if o.status >= 500 else 0),
        web.module.Policy(tokens, lambda request: "k", 20, "tokens", settle=lambda o: {"minute": 30})])
    web.ask(app)
    peeked = tokens.peek("tokens:k")
    peeked = asyncio.run(peeked) if inspect.isawaitable(peeked) else peeked
    assert {name: part.level for name, part in peeked.limits.items()} == {"minute": 30, "hour": 20}
    assert [web.level(requests, "requests:k"), web.level(failures, "failures:k"), web.level(slow, "slow:k")] == [1, 1, 1]


@pytest.mark.parametrize("result", [2, (2,), [2], {"1h": 2}, None], ids=repr)
def test_settle_may_return_numbers_by_limit(web, result):
    there = web.throttlers.Throttler("memory:", limits="100/hour")
    app = web.module.RateLimit(web.app(), there, key=lambda request: "k", cost=5, settle=lambda outcome: result)
    web.ask(app)
    assert web.level(there, "default:k") == (5 if result is None else 2)


@pytest.mark.parametrize("stores", ["one store", "a store each"])
def test_policies_of_several_stores_are_settled(web, stores):
    shared = web.throttlers.connect("memory:")
    limits = [web.throttlers.Throttler(shared if stores == "one store" else "memory:", 10, WIDE) for _ in range(2)]
    app = web.module.RateLimit(web.app(), policies=[
        web.module.Policy(limit, lambda request: "k", 4, name, settle=lambda outcome, actual=actual: actual)
        for limit, name, actual in zip(limits, ("a", "b"), (1, None))])
    web.ask(app)
    assert [web.level(limits[0], "a:k"), web.level(limits[1], "b:k")] == [1, 4]


def test_a_user_can_make_an_outcome_to_test_a_settle_function(web):
    module = web.module
    outcome = module.Outcome({}, module.Decision(True), 200, {"x-tokens": "5"}, b'{"a": 1}', 8)
    assert (outcome.headers["x-tokens"], outcome.json(), outcome.complete, outcome.exception) == ("5", {"a": 1}, True, None)
    assert repr(outcome) == "Outcome(status=200, size=8, complete=True, exception=None)"


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_client_of_redis_py_settles_and_runs_dry(package, redis_server, from_pypi, monkeypatch, dry_run):
    monkeypatch.syspath_prepend(str(from_pypi("redis==8.1.0")))
    asgi, seen = importlib.import_module("aiosteady.asgi"), []

    async def main():
        async with importlib.import_module("redis.asyncio").from_url(redis_server.url) as client:
            there = package.Throttler(client, 5, WIDE)
            app = asgi.RateLimit(asgi_rig.hello, there, cost=4, settle=lambda outcome: 2, dry_run=dry_run,
                                 on_decision=lambda scope, decision: seen.append(decision.allowed))
            responses = await asgi_rig.ask_all(app, 2)
            return [r.status for r in responses], (await there.peek("default:192.0.2.1")).level

    assert asyncio.run(main()) == ([200, 200 if dry_run else 429], 2) and seen == [True, False]


def failing_settles():
    yield "raises", lambda o: 1 / 0, "ZeroDivisionError: division by zero (test_web_options.py:"
    yield "no header", lambda o: int(o.headers["X-Tokens"]), "the response has no header 'X-Tokens' (test_web_options.py:"
    yield "no JSON", lambda o: o.json()["tokens"], "JSONDecodeError: Expecting value"
    yield "a bool", lambda o: True, "TypeError: it returned bool where a number of drops was expected"
    yield "text", lambda o: "5", "TypeError: it returned str where a number of drops was expected"
    yield "negative", lambda o: -1, "it returned -1, which is negative"
    yield "unknown limit", lambda o: {"day": 1}, "it names the limit 'day'; the limits are '1h'"
    yield "too many", lambda o: (1, 2), "it returned 2 numbers; the throttler has 1 limits"
    yield "no text", raising(NoText()), "NoText (test_web_options.py:"
    yield "cancelled", raising(asyncio.CancelledError()), "CancelledError (test_web_options.py:"


@pytest.mark.parametrize("settle, text", [pytest.param(*rest, id=name) for name, *rest in failing_settles()])
def test_a_settle_that_fails_leaves_the_drops_charged_and_logs_one_line(web, caplog, settle, text):
    there = web.throttlers.Throttler("memory:", limits="100/hour")
    app = web.module.RateLimit(web.app(), there, key=lambda request: "k", cost=3, settle=settle, body_bytes=100)
    assert [web.ask(app).body for _ in range(2)] == [b"hello"] * 2
    assert web.level(there, "default:k") == 6
    (line,) = ours(caplog)
    assert line.startswith("policy 'default': settle failed, so the drops stay charged: ") and text in line


def test_a_body_that_is_too_long_for_body_bytes_is_named(web, limited, caplog):
    app, _ = limited(web.app(blocks=[b'{"tokens":', b" 5}"]), body_bytes=5, settle=lambda outcome: outcome.json()["tokens"])
    web.ask(app)
    assert "the body has 13 bytes, but body_bytes keeps only 5" in ours(caplog)[0]


def test_a_store_that_is_gone_cannot_settle_and_the_response_is_sent(web, limited, start_redis, caplog):
    redis = start_redis()

    def settle(outcome):
        redis.stop()
        return 0

    app, _ = limited(url=redis.url, settle=settle)
    assert web.ask(app).body == b"hello"
    assert [line for line in ours(caplog) if "could not be settled, so its drops may stay charged" in line]


def test_settle_is_not_called_for_a_request_that_is_denied_or_has_no_verdict(web, limited, closed_port):
    calls = []
    app, _ = limited(capacity=1, settle=calls.append)
    assert [web.ask(app).status for _ in range(3)] == [200, 429, 429] and len(calls) == 1
    gone = web.throttlers.Throttler(f"redis://127.0.0.1:{closed_port}", 1, 1.0)
    assert web.ask(web.module.RateLimit(web.app(), gone, settle=calls.append)).status == 200 and len(calls) == 1


def test_a_settle_may_be_a_coroutine_function_in_asgi_only(web, limited, caplog):
    app, there = limited(cost=3, settle=an_awaited(lambda outcome: 1))
    assert web.ask(app).status == 200
    assert web.level(there, "default:k") == (1 if isinstance(web, Asgi) else 3)
    assert bool(ours(caplog)) == isinstance(web, Wsgi)
    assert isinstance(web, Asgi) or "WSGI has no event loop" in ours(caplog)[0]


def test_a_request_that_is_cancelled_is_settled(package):
    asgi, seen = importlib.import_module("aiosteady.asgi"), []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await asyncio.sleep(60)

    async def settle(outcome):
        await asyncio.sleep(0.05)
        seen.append((outcome.body, outcome.complete, type(outcome.exception)))
        return len(outcome.body)

    async def main():
        there = package.Throttler("memory:", 10, WIDE)
        limited = asgi.RateLimit(app, there, cost=9, settle=settle, body_bytes=10)
        task = asyncio.ensure_future(asgi_rig.ask(limited))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()  # again, while it settles
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.2)
        return (await there.peek("default:192.0.2.1")).level

    assert asyncio.run(main(), debug=True) == 4 and seen == [(b"part", False, asyncio.CancelledError)]


def test_a_request_that_is_cancelled_in_the_hook_is_settled(package):
    asgi = importlib.import_module("aiosteady.asgi")

    async def main():
        there = package.Throttler("memory:", 10, WIDE)
        limited = asgi.RateLimit(asgi_rig.hello, there, cost=9, settle=lambda outcome: 0 if outcome.exception else None,
                                 on_decision=lambda scope, decision: asyncio.sleep(60))
        task = asyncio.ensure_future(asgi_rig.ask(limited))
        await asyncio.sleep(0.05)
        assert (await there.peek("default:192.0.2.1")).level == 9
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return (await there.peek("default:192.0.2.1")).level

    assert asyncio.run(main(), debug=True) == 0


def test_a_hook_that_ends_the_process_or_a_body_that_is_none_gives_the_drops_back(package):
    wsgi, blocking = (importlib.import_module(f"aiosteady.{name}") for name in ("wsgi", "blocking"))

    def ask(error, app, **options):
        there = blocking.Throttler("memory:", 10, WIDE)
        limited = wsgi.RateLimit(app, there, key=lambda environ: "k", cost=9, body_bytes=1,
                                 settle=lambda outcome: 0 if isinstance(outcome.exception, error) else None, **options)
        with pytest.raises(error):
            list(limited({}, lambda *start: None))
        return there.peek("default:k").level

    def answering(body):
        return lambda environ, start_response: start_response("200 OK", []) or body

    assert ask(SystemExit, answering([b"a"]), on_decision=raising(SystemExit())) == 0
    assert [ask(TypeError, answering(body)) for body in (None, ["text"], iter(["text"]))] == [0, 0, 0]


def test_an_application_that_stops_in_the_middle_is_not_complete(web, limited):
    """Starlette ends a stream so when the client hangs up; a WSGI server closes the iterable."""
    seen = []
    if isinstance(web, Asgi):
        async def stops(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})

        app, _ = limited(stops, settle=lambda outcome: seen.append((outcome.complete, outcome.size)))
        web.ask(app)
    else:
        app, _ = limited(web.app(blocks=[b"a", b"b"]), settle=lambda outcome: seen.append((outcome.complete, outcome.size)))
        body = app({}, lambda *start: None)
        next(body)
        body.close()
        body.close()
    assert seen == [(False, 1)]


def test_a_response_that_is_ended_because_the_client_hung_up_is_not_complete(package):
    """BaseHTTPMiddleware of Starlette ends a response so, with an empty last block."""
    asgi, seen = importlib.import_module("aiosteady.asgi"), []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b""})

    async def main():
        messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b""}]
        limited = asgi.RateLimit(app, package.Throttler("memory:", 10, WIDE), key=lambda scope: "k", settle=seen.append)

        async def receive():
            return messages.pop()

        async def send(message):
            pass

        await limited({"type": "http", "headers": []}, receive, send)

    asyncio.run(main(), debug=True)
    assert [(outcome.size, outcome.complete) for outcome in seen] == [(4, False)]


def test_the_iterable_of_the_application_is_closed_and_its_exception_is_settled(package):
    wsgi, blocking, seen = (*(importlib.import_module(f"aiosteady.{name}") for name in ("wsgi", "blocking")), [])

    class Blocks:
        def __iter__(self):
            return iter([b"a"])

        def close(self):
            raise ValueError("broken")

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Blocks()

    body = wsgi.RateLimit(app, blocking.Throttler("memory:", 10, WIDE), settle=seen.append)({}, lambda *start: None)
    next(body)
    with pytest.raises(ValueError, match="broken"):
        body.close()
    assert [(outcome.complete, str(outcome.exception)) for outcome in seen] == [(False, "broken")]


def test_a_websocket_is_settled_when_it_ends(package):
    asgi, seen = importlib.import_module("aiosteady.asgi"), []
    there = package.Throttler("memory:", 10, WIDE)
    app = asgi.RateLimit(asgi_rig.hello, there, cost=5, settle=lambda outcome: seen.append(outcome.status) or 2)
    asgi_rig.run(asgi_rig.ask(app, kind="websocket"))
    assert seen == [101] and asgi_rig.run(there.peek("default:192.0.2.1")).level == 2


def test_blocks_that_are_written_are_seen_by_settle(package):
    wsgi, blocking, seen = (*(importlib.import_module(f"aiosteady.{name}") for name in ("wsgi", "blocking")), [])

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"written, ")
        return [b"returned"]

    limited = wsgi.RateLimit(app, blocking.Throttler("memory:", 10, WIDE), body_bytes=99, settle=seen.append)
    assert wsgi_rig.ask(limited).body == b"written, returned" == seen[0].body


# ---- on_denied ----


@pytest.mark.parametrize("own, kind, body", [
    ("Slow down.", "text/plain; charset=utf-8", b"Slow down."),
    (b"\xff", "application/octet-stream", b"\xff"),
    ({"error": "slow down"}, "application/json", b'{"error": "slow down"}')], ids=["str", "bytes", "dict"])
@pytest.mark.parametrize("form", ["body", "function"])
def test_a_denial_has_its_own_body(web, limited, form, own, kind, body):
    app, _ = limited(capacity=1, on_denied=own if form == "body" else lambda request, decision: own)
    _, denied = web.ask(app), web.ask(app)
    assert (denied.status, denied["content-type"], denied.body) == (429, kind, body)
    assert denied["retry-after"] == "3600" and denied["cache-control"] == "no-store" and denied["ratelimit"] is not None


def test_a_body_stands_for_no_other_status(web, limited):
    app, _ = limited(capacity=1, cost=lambda request: 2, on_denied="Slow down.")
    assert web.ask(app)["content-type"] == "application/problem+json"


def test_a_handler_may_return_an_application(web, limited):
    seen = []

    def denied(request, decision):
        seen.append(decision)
        return web.app(418, headers=[("Retry-After", "5")], blocks=[b"own"])

    app, _ = limited(capacity=1, on_denied=denied)
    _, response = web.ask(app), web.ask(app)
    assert (response.status, response.body, response["retry-after"]) == (418, b"own", "5")
    assert response["cache-control"] == "no-store" and response["ratelimit"] == '"default";r=0;t=3600'
    assert seen[0].denied_by == ("default",) and 3599 < seen[0].retry_after <= 3600 and seen[0].status == 429


def test_a_handler_that_returns_none_leaves_the_problem_document(web, limited):
    app, _ = limited(capacity=1, on_denied=lambda request, decision: None)
    _, denied = web.ask(app), web.ask(app)
    assert denied.status == 429 and denied["content-type"] == "application/problem+json"


def test_a_handler_gets_each_response_of_the_middleware(web, limited, closed_port):
    seen = []
    options = {"on_denied": lambda request, decision: seen.append(decision.status)}
    app, _ = limited(capacity=1, cost=lambda request: 2 if web.path(request) == "/dear" else 1, **options)
    web.ask(app), web.ask(app), web.ask(app, path="/dear")
    gone = web.throttlers.Throttler(f"redis://127.0.0.1:{closed_port}", 1, 1.0)
    web.ask(web.module.RateLimit(web.app(), gone, on_error="deny", **options))
    web.ask(web.module.RateLimit(web.app(), gone, key=lambda request: "", **options))
    assert seen == [429, 422, 503, 400]


@pytest.mark.parametrize("handler, text", [
    (lambda request, decision: 1 / 0, "ZeroDivisionError: division by zero (test_web_options.py:"),
    (lambda request, decision: 5, "TypeError: it returned int, which is no response")], ids=["raises", "nonsense"])
def test_a_handler_that_fails_leaves_the_problem_document_and_logs_one_line(web, limited, caplog, handler, text):
    app, _ = limited(capacity=1, on_denied=handler)
    responses = [web.ask(app) for _ in range(3)]
    assert [r.status for r in responses] == [200, 429, 429] and responses[2]["content-type"] == "application/problem+json"
    (line,) = [line for line in ours(caplog) if "on_denied failed" in line]
    assert text in line


def test_a_handler_may_be_a_coroutine_function(package):
    asgi = importlib.import_module("aiosteady.asgi")
    app = asgi.RateLimit(asgi_rig.hello, package.Throttler("memory:", 1, WIDE),
                         on_denied=an_awaited(lambda scope, decision: "later"))
    assert asgi_rig.run(asgi_rig.ask_all(app, 2))[1].body == b"later"


def test_a_denied_websocket_has_its_own_body_if_the_server_can_send_one(package):
    asgi = importlib.import_module("aiosteady.asgi")
    app = asgi.RateLimit(asgi_rig.hello, package.Throttler("memory:", 1, WIDE), on_denied="Slow down.")

    async def main():
        await asgi_rig.ask(app)
        closed = await asgi_rig.ask(app, kind="websocket")
        return closed, await asgi_rig.ask(app, kind="websocket", extensions={"websocket.http.response": {}})

    closed, answered = asgi_rig.run(main())
    assert closed.type == "websocket.close" and (answered.status, answered.body) == (429, b"Slow down.")


# ---- on_decision, and the decision ----


def test_the_hook_and_the_application_get_the_decision(web):
    seen, inside = [], []
    store = web.throttlers.connect("memory:")
    wide = web.throttlers.Throttler(store, 9, WIDE)
    several = web.throttlers.Throttler(store, limits={"burst": "2/minute", "day": "50/day"})
    plain = web.app()

    def app(request, *rest):
        inside.append(web.decision(request))
        return plain(request, *rest)

    made = web.module.RateLimit(app, wide, key=lambda request: "k", policies=[
        web.module.Policy(several, lambda request: "secret", name="user", hash="a secret"),
        web.module.Policy(wide, lambda request: None, name="free")], on_decision=lambda request, d: seen.append(d))
    for _ in range(3):
        web.ask(made)
    assert [(d.allowed, d.status, d.denied_by, d.dry_run) for d in seen] == [
        (True, 0, (), False), (True, 0, (), False), (False, 429, ("user:burst",), False)]
    assert inside == seen[:2]
    assert set(seen[0].results) == {"default", "user"} and seen[0].results["default"].level == 1
    denied = seen[2].results["user"]
    assert not denied.success and {name: part.level for name, part in denied.limits.items()} == {"burst": 2, "day": 2}
    assert (denied.name, denied.retry_after) == ("burst", seen[2].retry_after)
    assert seen[2].keys["default"] == b"k" and len(seen[2].keys["user"]) == 64


def test_a_hook_that_fails_loses_no_request_and_logs_one_line(web, limited, caplog):
    for fails, text in ((lambda *_: 1 / 0, "ZeroDivisionError: division by zero (test_web_"), (raising(NoText()), "NoText (test_web_")):
        caplog.clear()
        app, _ = limited(capacity=2, on_decision=fails)
        assert [web.ask(app).status for _ in range(3)] == [200, 200, 429]
        (line,) = [line for line in ours(caplog) if "on_decision" in line]
        assert line.startswith(f"on_decision failed, and the request goes on: {text}")


def test_a_hook_may_be_a_coroutine_function_in_asgi_only(web, limited, caplog):
    seen = []
    app, _ = limited(on_decision=an_awaited(lambda request, decision: seen.append(decision)))
    assert web.ask(app).status == 200 and len(seen) == isinstance(web, Asgi)
    assert isinstance(web, Asgi) or "WSGI has no event loop" in ours(caplog)[0]


# ---- dry_run ----


@pytest.mark.parametrize("of", ["the middleware", "the policy"])
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_a_dry_run_denies_nothing_and_says_what_it_would_do(web, caplog, redis_server, of, store):
    seen = []
    there = web.throttlers.Throttler("memory:" if store == "memory" else redis_server.url, 1, WIDE, 2 * WIDE)
    policy = web.module.Policy(there, lambda request: "k", dry_run=of == "the policy")
    app = web.module.RateLimit(web.app(), policies=[policy], dry_run=of == "the middleware",
                               on_decision=lambda request, decision: seen.append(decision))
    responses = [web.ask(app) for _ in range(2)]
    assert [(r.status, r.body, r["ratelimit"], r["retry-after"]) for r in responses] == [(200, b"hello", None, None)] * 2
    assert [(d.allowed, d.status, d.denied_by, d.dry_run) for d in seen] == [
        (True, 0, (), False), (False, 0, ("default",), True)]
    assert seen[0].retry_after is None and seen[1].retry_after > WIDE, "the block is started"
    assert not seen[1].results["default"].success and web.level(there, "default:k") == 1
    assert ours(caplog) == ["policy 'default' would have denied (dry run) 1 request; key with the most: 'k', at least 1"]


@pytest.mark.parametrize("stores", ["one store", "a store each"])
def test_a_policy_in_a_dry_run_stands_beside_others(web, stores):
    seen = []
    shared = web.throttlers.connect("memory:")
    new, old = (web.throttlers.Throttler(shared if stores == "one store" else "memory:", n, WIDE) for n in (1, 2))
    app = web.module.RateLimit(web.app(), policies=[
        web.module.Policy(old, lambda request: "k", name="old"),
        web.module.Policy(new, lambda request: "k", name="new", dry_run=True)],
        on_decision=lambda request, decision: seen.append(decision))
    responses = [web.ask(app) for _ in range(3)]
    assert [r.status for r in responses] == [200, 200, 429]
    assert responses[0]["ratelimit-policy"] == '"old";q=2;w=7200', "the client has not to obey a dry run"
    assert json.loads(responses[2].body)["violated-policies"] == ["old"]
    assert [(d.allowed, d.denied_by, d.dry_run) for d in seen] == [
        (True, (), False), (False, ("new",), True), (False, ("old",), False)]
    assert [web.level(old, "old:k"), web.level(new, "new:k")] == [2, 1]


def test_a_dry_run_lets_all_pass_that_would_get_another_status(web, limited, closed_port, caplog):
    for cost in (5, 2**31, 10**30):
        app, _ = limited(capacity=1, cost=lambda request, cost=cost: cost, dry_run=True)
        assert web.ask(app).status == 200  # it would be a 422
    for on_error in ("report", "deny"):
        gone = web.throttlers.Throttler(f"redis://127.0.0.1:{closed_port}", 1, 1.0, on_error=on_error)
        assert web.ask(web.module.RateLimit(web.app(), gone, on_error="deny", dry_run=True)).status == 200  # a 503
    assert "policy 'default' has no verdict, so requests pass" in caplog.text
    seen = []
    app = web.module.RateLimit(web.app(), gone, key=lambda request: "", dry_run=True,
                               on_decision=lambda request, decision: seen.append(decision))
    assert web.ask(app).status == 200 and "the key is empty; dry run: the request passes" in caplog.text  # a 400
    assert (seen[0].allowed, seen[0].denied_by, seen[0].dry_run) == (False, ("default",), True)


def test_policies_in_a_dry_run_with_one_bucket_let_the_request_pass(web, caplog):
    store = web.throttlers.connect("memory:")
    limits = web.throttlers.Throttler(store, limits={"burst": "2/minute", "day": "50/day"})
    options = {"settle": lambda outcome: 1, "dry_run": True}
    app = web.module.RateLimit(web.app(), limits, name="a", key=lambda request: "k", **options, policies=[
        web.module.Policy(web.throttlers.Throttler(store, 9, WIDE), lambda request: "k}burst", name="{a")])
    assert web.ask(app).status == 200 and "have the same bucket; dry run: the request passes" in caplog.text


def test_policies_in_a_dry_run_with_several_stores_start_no_block(web):
    limits = [web.throttlers.Throttler("memory:", 1, WIDE, 2 * WIDE) for _ in range(2)]
    seen = []
    app = web.module.RateLimit(web.app(), policies=[
        web.module.Policy(limit, lambda request: "k", name=name) for limit, name in zip(limits, "ab")], dry_run=True,
        on_decision=lambda request, decision: seen.append(decision))
    assert [web.ask(app).status for _ in range(2)] == [200, 200]
    assert seen[1].denied_by == ("a", "b") and seen[1].retry_after <= WIDE


def test_a_local_bucket_is_not_settled(web, closed_port):
    calls = []
    gone = web.throttlers.Throttler(f"redis://127.0.0.1:{closed_port}", 2, WIDE, on_error="local")
    app = web.module.RateLimit(web.app(), gone, key=lambda request: "k", settle=calls.append)
    assert [web.ask(app).status for _ in range(3)] == [200, 200, 429] and calls == []


def test_a_dry_run_is_settled_if_it_would_have_passed(web, limited):
    app, there = limited(capacity=4, cost=3, settle=lambda outcome: 2, dry_run=True)
    for level in (2, 2):  # the second would be denied
        assert web.ask(app).status == 200 and web.level(there, "default:k") == level


# ---- A throttler for each request ----


@pytest.mark.parametrize("wrap", [lambda function: function, an_awaited], ids=["plain", "awaited"])
def test_the_throttler_is_chosen_by_the_request(web, wrap):
    if isinstance(web, Wsgi) and wrap is an_awaited:
        pytest.skip("WSGI has no event loop")
    store = web.throttlers.connect("memory:")
    tiers = {"/free": web.throttlers.Throttler(store, 1, WIDE), "/paid": web.throttlers.Throttler(store, 5, WIDE)}
    app = web.module.RateLimit(web.app(), wrap(lambda request: tiers[web.path(request)]), key=web.path, cost=1)
    free = [web.ask(app, path="/free") for _ in range(2)]
    paid = web.ask(app, path="/paid")
    assert [r.status for r in free] == [200, 429] and paid.status == 200
    assert free[0]["ratelimit-policy"] == '"default";q=1;w=3600' and paid["ratelimit-policy"] == '"default";q=5;w=18000'
    tiers["/paid"] = web.throttlers.Throttler(store, 7, WIDE)  # a change in the database
    assert web.ask(app, path="/paid").rate_limit == ('"default";q=7;w=25200', '"default";r=5;t=18000')


@pytest.mark.parametrize("given, kind", [(None, "NoneType"), ("memory:", "str")])
def test_a_function_that_returns_no_throttler_is_a_plain_error(web, given, kind):
    app = web.module.RateLimit(web.app(), lambda request: given)
    with pytest.raises(TypeError, match=f"the throttler of policy 'default' must be .*Throttler, not {kind}"):
        web.ask(app)


def test_the_cost_is_checked_against_the_chosen_throttler(web):
    app = web.module.RateLimit(web.app(), lambda request: web.throttlers.Throttler("memory:", 2, WIDE), cost=3)
    assert web.ask(app).status == 422


def test_chosen_throttlers_that_could_share_a_bucket_are_rejected(web):
    store = web.throttlers.connect("memory:")
    chosen = web.throttlers.Throttler(store, 2, WIDE, prefix="x")
    app = web.module.RateLimit(web.app(), lambda request: chosen, name="y", policies=[
        web.module.Policy(web.throttlers.Throttler(store, 2, WIDE), name="xy")])
    with pytest.raises(ValueError, match="could name the same bucket"):
        web.ask(app)


# ---- The log of denials ----


@pytest.fixture
def clock(monkeypatch):
    """Sets the clock of the log."""
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_first_denial_is_logged_at_once_and_then_one_line_a_minute(web, limited, caplog, clock):
    app, _ = limited(capacity=1)
    for _ in range(5):
        web.ask(app)
    assert ours(caplog) == ["policy 'default' denied 1 request; key with the most: 'k', at least 1"]
    clock[0] += 59
    web.ask(app)
    assert len(ours(caplog)) == 1
    clock[0] += 2
    web.ask(app)
    assert ours(caplog)[1:] == ["policy 'default' denied 5 requests in 61 s; key with the most: 'k', at least 5"]


def test_each_policy_has_lines_of_its_own(web, caplog):
    app = web.module.RateLimit(web.app(), policies=[
        web.module.Policy(web.throttlers.Throttler("memory:", 1, WIDE), lambda request: "secret", name=name, hash=hash)
        for name, hash in (("a", False), ("b", True))])
    web.ask(app), web.ask(app)
    first, second = ours(caplog)
    assert first.startswith("policy 'a' denied 1") and second.startswith("policy 'b' denied 1")
    assert "'secret'" in first and "secret" not in second


def test_the_top_key_is_found_among_many_in_bounded_memory(package, caplog, clock):
    denials = importlib.import_module("aiosteady._policy").Denials("p")
    denials.add(b"first", False)
    for i in range(10_000):
        denials.add(b"flood" if i % 3 == 0 else b"other%d" % i, False)
        assert len(denials._counts) <= 32
    clock[0] += 60
    denials.add(b"a\nb", False)
    line = ours(caplog)[1]
    assert line.startswith("policy 'p' denied 10001 requests in 60 s; key with the most: 'flood', at least ")
    assert 3334 - 10_001 / 33 <= int(line.rpartition(" ")[2]) <= 3334


def test_a_flood_that_begins_after_many_keys_came_twice_is_found(package, caplog, clock):
    denials = importlib.import_module("aiosteady._policy").Denials("p")
    for i in range(200):
        denials.add(b"other%d" % (i // 2), False)
    for _ in range(200):
        denials.add(b"flood", False)
    clock[0] += 60
    denials.add(b"flood", False)
    assert "denied 400 requests in 60 s; key with the most: 'flood', at least" in ours(caplog)[1]


def test_a_key_is_one_line_of_the_log(package, caplog):
    importlib.import_module("aiosteady._policy").Denials("p").add(b"a\nWARNING\xff", False)
    assert "\n" not in ours(caplog)[0] and "WARNING" in ours(caplog)[0]


# ---- Arguments ----


@pytest.mark.parametrize("options, error, text", [
    ({"settle": 5}, TypeError, "settle must be a function of outcome, not int"),
    ({"settle": lambda: 1}, TypeError, "settle must be a function that can be called with outcome"),
    ({"settle": lambda o: 1, "cost": 0}, ValueError, "cost is 0, so there is nothing to settle"),
    ({"settle": lambda o: 1, "body_bytes": -1}, ValueError, "body_bytes is -1; it must not be negative"),
    ({"settle": lambda o: 1, "body_bytes": "1"}, TypeError, "body_bytes must be an int, not str"),
    ({"body_bytes": 1}, ValueError, "body_bytes is for settle, which is not given"),
    ({"dry_run": "no"}, TypeError, "dry_run must be True or False, not str"),
    ({"on_denied": 5}, TypeError, "on_denied must be a function of .* and decision, not int"),
    ({"on_denied": lambda scope, receive, send: 1}, TypeError, "on_denied must be a function that can be called with"),
    ({"on_decision": "x"}, TypeError, "on_decision must be a function of .* and decision, not str"),
    ({"on_decision": lambda decision: 1}, TypeError, "on_decision must be a function that can be called with"),
    ({"throttler": 5}, TypeError, "throttler must be .*Throttler, or a function that returns one, not int"),
    ({"throttler": None, "settle": lambda o: 1}, ValueError, "settle belongs to a throttler"),
    *(({"throttler": None, option: value}, ValueError, f"{option} belongs to a throttler, which is not given; give {option} to")
      for option, value in (("key", len), ("cost", 2), ("name", "x"), ("hash", True), ("body_bytes", 1))),
    ({"policies": 5}, TypeError, "policies must be a list of aiosteady..sgi.Policy, not int"),
    ({"throttler": lambda request: None, "name": "\n"}, ValueError, "name is"),
], ids=lambda value: None if not isinstance(value, dict) else " ".join(value))
def test_a_wrong_option_is_named_when_the_middleware_is_made(web, options, error, text):
    whole = {"throttler": web.throttlers.Throttler("memory:", 10, WIDE), **options}
    with pytest.raises(error, match=text):
        web.module.RateLimit(web.app(), **whole)


def test_a_key_or_cost_that_is_nonsense_is_named(web, limited):
    for options, text in (({"key": lambda request: 5}, "the key of policy 'default' must be str, bytes or None, not int"),
                          ({"cost": lambda request: "5"}, "the cost of policy 'default' must be an int, not str"),
                          ({"cost": lambda request: -1}, "the cost of policy 'default' is -1; it must not be negative")):
        app = web.module.RateLimit(web.app(), web.throttlers.Throttler("memory:", 10, WIDE), **options)
        with pytest.raises((TypeError, ValueError), match=text):
            web.ask(app)
