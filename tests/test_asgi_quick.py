# SPDX-License-Identifier: MIT
"""The quick judgement of the ASGI middleware: it gives what the judgement of _middleware.py gives, to the byte."""
import asyncio
import dataclasses
import gc
import pickle
import sys

import pytest
from asgi_rig import WIDE_RECHARGE, ask, run
from asgi_rig import asgi, package, throttler  # noqa: F401: fixtures

FORMS = ("draft-11", "draft-07", "draft-03", "x", "none")
OWN = [(b"content-length", b"5")]
HEADERS = [
    OWN,
    tuple(OWN),
    [[b"content-length", b"5"]],
    [(bytearray(b"content-length"), b"5")],
    [(b"RateLimit", b'"own";r=1;t=9'), (b"x", b"y")],
    [(b"RateLimit-Policy", b'"own";q=1;w=9')],
    [(b"ratelimit-limit", b"1"), (b"ratelimit-remaining", b"1"), (b"ratelimit-reset", b"9")],
    [(b"X-RateLimit-Limit", b"1"), (b"X-RateLimit-Remaining", b"0"), (b"X-RateLimit-Reset", b"9")],
    [(b"ratelimit", b"limit=1, remaining=1, reset=9")],
    [],
    iter(OWN),
    None,
]


def answering(headers):
    """An application whose response has these headers; None: it has no `headers`."""

    async def app(scope, receive, send):
        start = {"type": "http.response.start", "status": 200}
        if headers is not None:
            start["headers"] = iter(OWN) if not isinstance(headers, (list, tuple)) else headers
        kept = dict(start)
        await send(start)
        assert start == kept, "the message of the application is changed"
        await send({"type": "http.response.body", "body": b"hello"})

    return app


def slow(app):
    assert app._quick is not None
    app._quick = None
    return app


def rounded(seconds):
    return None if seconds is None else round(seconds)


def shown(decision):
    """A Decision without the fractions of its times."""
    if decision is None:
        return None
    results = {name: (r.success, r.level, r.granted, rounded(r.until_next_drop), rounded(r.blocked_for), rounded(r.retry_after),
                      r.source, r.name) for name, r in decision.results.items()}
    return (type(decision).__name__, decision.allowed, decision.status, decision.denied_by, rounded(decision.retry_after), results,
            decision.keys, decision.dry_run)


async def answers(app, requests):
    """What the client and the application see of each request."""
    seen = []
    for request in requests:
        state = {}
        try:
            response = await ask(app, state=state, **request)
            seen.append((response.type, response.status, response.headers, response.body, shown(state.get("rate_limit"))))
        except Exception as error:
            seen.append(repr(error))
    return seen


def both(make, requests):
    """The answers of the quick and of the slow judgement."""
    quick, other = make(), slow(make())
    return run(answers(quick, requests)), run(answers(other, requests))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("headers", HEADERS, ids=repr)
def test_responses_and_decisions_are_the_same(asgi, throttler, form, headers):
    quick, other = both(lambda: asgi.RateLimit(answering(headers), throttler(2), fields=form, name='a "b"'), [{}] * 4)
    assert [answer[1] for answer in quick] == [200, 200, 429, 429]
    assert quick == other


@pytest.mark.parametrize("key", [
    "k", b"k", "", b"", None, "x" * 1016, "x" * 1017, b"x" * 5000, "\ud800", "\xe9" * 508, "\xe9" * 509, 5, bytearray(b"k"),
    type("Text", (str,), {})("k")], ids=lambda key: repr(key)[:20])
@pytest.mark.parametrize("wrap", [False, True], ids=["plain", "awaited"])
def test_any_key_gives_the_same(asgi, throttler, key, wrap):
    async def later(scope):
        return key

    def make():
        return asgi.RateLimit(answering(OWN), throttler(1), key=later if wrap else lambda scope: key)

    quick, other = both(make, [{}] * 2)
    assert quick == other


def test_a_key_function_is_called_once_for_each_request(asgi, throttler):
    calls = []

    def key(scope):
        calls.append(scope["path"])
        return scope["path"]

    app = asgi.RateLimit(answering(OWN), throttler(1), key=key)
    assert [answer[1] for answer in run(answers(app, [{"path": path} for path in ("/a", "/a", "", "/b")]))] == [200, 429, 400, 200]
    assert calls == ["/a", "/a", "", "/b"]


@pytest.mark.parametrize("options, arguments", [
    ({"block_duration": 60}, {}), ({"prefix": "p:"}, {"cost": 2}), ({"drops": 3}, {"cost": 3}), ({"clamp": True}, {"cost": 99}),
    ({"prefix": "p" * 1000}, {"name": "n" * 30})], ids=["block", "prefix", "drops", "clamp", "long"])
def test_any_limit_gives_the_same(asgi, throttler, options, arguments):
    quick, other = both(lambda: asgi.RateLimit(answering(OWN), throttler(4, **options), **arguments), [{}] * 6)
    assert quick == other


def test_a_file_store_is_judged_quickly_too(asgi, throttler, tmp_path):
    app = asgi.RateLimit(answering(OWN), throttler(1, url=f"file:{tmp_path}/buckets"))
    assert app._quick.judge({"client": ("k", 1)}, None, app).decision.allowed
    assert [answer[1] for answer in run(answers(app, [{}] * 2))] == [200, 429]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_closed_store_is_judged_by_the_slow_judgement(asgi, package, throttler, kind):
    store = package.connect("memory:")
    app = asgi.RateLimit(answering(OWN), package.Throttler(store, 1, WIDE_RECHARGE))
    assert run(answers(app, [{}] * 2))[1][1] == 429
    store.close()
    assert [answer[1] for answer in run(answers(app, [{"client": ("192.0.2.9", 1)}]))] == [200]


def test_what_one_call_cannot_judge_has_no_quick_judgement(asgi, throttler, package):
    def judge(*arguments, **options):
        return asgi.RateLimit(answering(OWN), *arguments, **options)._quick

    class Own(package.Throttler):
        async def consume(self, *arguments, **options):
            return await super().consume(*arguments, **options)

    assert judge(throttler(1)) is not None
    several = package.Throttler("memory:", limits=["1/s", "2/min"])
    for arguments, options in (
        ((throttler(1),), {"policies": [asgi.Policy(throttler(1), name="b")]}), ((throttler(1),), {"dry_run": True}),
        ((throttler(1),), {"settle": lambda outcome: 0}), ((throttler(1),), {"hash": True}), ((several,), {}),
        ((throttler(1),), {"cost": lambda scope: 1}), ((throttler(1),), {"cost": 0}), ((lambda scope: throttler(1),), {}),
        ((Own("memory:", 1, 1.0),), {}),
    ):
        assert judge(*arguments, **options) is None, (arguments, options)


def test_a_server_on_redis_is_asked_by_the_slow_judgement(asgi, throttler, redis_server):
    app = asgi.RateLimit(answering(OWN), throttler(1, url=redis_server.url))
    assert app._quick.judge({"client": ("k", 1)}, None, app) == ("k", None)
    assert [answer[1] for answer in run(answers(app, [{}] * 2))] == [200, 429]


def test_on_decision_sees_the_decision_in_the_state(asgi, throttler):
    seen = []

    async def on_decision(scope, decision):
        seen.append(decision)

    app = asgi.RateLimit(answering(OWN), throttler(1), on_decision=on_decision)
    states = [{}, {}]
    for state in states:
        run(ask(app, state=state))
    assert [state["rate_limit"] for state in states] == seen and [decision.allowed for decision in seen] == [True, False]
    assert all(type(decision) is asgi.Decision for decision in seen)
    copy = dataclasses.replace(seen[0])
    assert copy == seen[0] and repr(copy) == repr(seen[0]) and pickle.loads(pickle.dumps(seen[0])) == seen[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen[0].allowed = False


@pytest.mark.parametrize("inner_slow", [False, True])
@pytest.mark.parametrize("outer_slow", [False, True])
def test_nested_judgements_send_one_set_of_fields(asgi, throttler, inner_slow, outer_slow):
    inner = asgi.RateLimit(answering(OWN), throttler(5), name="inner")
    outer = asgi.RateLimit(inner, throttler(10), name="outer")
    for app, is_slow in ((inner, inner_slow), (outer, outer_slow)):
        if is_slow:
            slow(app)
    first = run(ask(outer))
    assert first.rate_limit == ('"outer";q=10;w=600, "inner";q=5;w=300', '"outer";r=9;t=540, "inner";r=4;t=240')


def test_the_entry_in_the_scope_is_gone_after_the_request(asgi, throttler):
    async def failing(scope, receive, send):
        assert asgi.FIELDS_KEY in scope
        raise LookupError

    scope = {"type": "http", "client": ("192.0.2.1", 1), "headers": []}
    with pytest.raises(LookupError):
        run(asgi.RateLimit(failing, throttler(1))(scope, None, None))
    assert asgi.FIELDS_KEY not in scope


def test_messages_that_begin_no_response_are_passed_on_as_they_are(asgi, throttler):
    sent = []

    async def app(scope, receive, send):
        for message in ({"type": "http.response.trailers"}, {"type": "".join(["http.response", ".body"])}):
            await send(message)
            assert sent[-1] is message
        with pytest.raises(KeyError):
            send({})
        with pytest.raises(TypeError):
            send()
        await send(message={"type": "".join(["http.response", ".start"]), "headers": OWN})

    async def send(message):
        sent.append(message)

    run(asgi.RateLimit(app, throttler(1))({"type": "http", "client": ("192.0.2.1", 1), "headers": []}, None, send))
    assert [name for name, _ in sent[-1]["headers"]] == [b"content-length", b"ratelimit-policy", b"ratelimit"]


def test_requests_leave_no_objects_behind(asgi, throttler):
    app = asgi.RateLimit(answering(OWN), throttler(10**6))
    requests = [{"client": (f"192.0.2.{i}", 1)} for i in range(200)]

    async def main():
        await answers(app, requests)
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(5):
            await answers(app, requests)
        gc.collect()
        return sys.getallocatedblocks() - before

    assert asyncio.run(main()) < 200
