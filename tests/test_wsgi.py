# SPDX-License-Identifier: MIT
"""The WSGI middleware, called like a server calls it: answers and fields, keys, failing stores, the protocol."""
import importlib
import json
import sys
import threading
from wsgiref.validate import validator

import pytest
from asgi_rig import HTTP_TYPES
from asgi_rig import package  # noqa: F401: fixture
from wsgi_rig import ask, ask_all, called, hello
from wsgi_rig import blocking, throttler, wsgi  # noqa: F401: fixtures

pytestmark = pytest.mark.filterwarnings("error")


# ---- Answers ----


def test_an_allowed_request_carries_the_fields_and_the_decision(wsgi, throttler):
    seen = []

    def app(environ, start_response):
        seen.append(environ["aiosteady.rate_limit"])
        return hello(environ, start_response)

    response = ask(wsgi.RateLimit(app, throttler(10)))
    assert (response.line, response.body) == ("200 OK", b"hello")
    assert response.headers == [("Content-Type", "text/plain"), ("Content-Length", "5"),
                                ("ratelimit-policy", '"default";q=10;w=600'), ("ratelimit", '"default";r=9;t=540')]
    decision = seen[0]
    assert (decision.allowed, decision.status, decision.keys) == (True, 0, {"default": b"192.0.2.1"})
    assert decision.results["default"].level == 1


def test_a_denied_request_is_a_429_and_never_reaches_the_application(wsgi, throttler):
    calls = []
    app = wsgi.RateLimit(lambda *call: calls.append(1) or hello(*call), throttler(1), name="per-client")
    _, denied = ask_all(app, 2)
    assert denied.line == "429 Too Many Requests" and len(calls) == 1
    assert denied["content-type"] == "application/problem+json" and denied["cache-control"] == "no-store"
    assert denied["content-length"] == str(len(denied.body)) and denied["retry-after"] == "60"
    assert denied.rate_limit == ('"per-client";q=1;w=60', '"per-client";r=0;t=60')
    assert json.loads(denied.body)["violated-policies"] == ["per-client"]


def test_a_denied_head_request_has_no_body(wsgi, throttler):
    _, denied = ask_all(wsgi.RateLimit(hello, throttler(1)), 2, method="HEAD")
    assert denied.status == 429 and denied.body == b"" and int(denied["content-length"]) > 0


def test_a_cost_that_never_fits_is_a_422(wsgi, throttler):
    response = ask(wsgi.RateLimit(hello, throttler(10), cost=lambda environ: 11))
    assert response.status == 422 and response["retry-after"] is None and response["ratelimit"] is None


@pytest.mark.parametrize("key", ["", "x" * 1020, "\ud800"], ids=["empty", "long", "a surrogate"])
def test_an_impossible_key_is_a_400(wsgi, throttler, key):
    assert ask(wsgi.RateLimit(hello, throttler(1), key=lambda environ: key)).status == 400


@pytest.mark.parametrize("options, status", [({}, 200), ({"on_error": "deny"}, 503)])
def test_a_silent_store_is_answered_by_on_error(wsgi, throttler, closed_port, options, status, caplog):
    response = ask(wsgi.RateLimit(hello, throttler(url=f"redis://127.0.0.1:{closed_port}"), **options))
    assert response.status == status and response["ratelimit"] is None and "has no verdict" in caplog.text
    if status == 503:
        assert json.loads(response.body)["type"] == HTTP_TYPES + "temporary-reduced-capacity"
        assert 1 <= int(response["retry-after"]) <= 5


@pytest.mark.parametrize("options, status", [({}, 503), ({"on_overload": "allow"}, 200)])
def test_an_overloaded_store_is_answered_by_on_overload(wsgi, blocking, package, options, status):
    class Busy(blocking.Throttler):
        def consume(self, key, amount=1):
            raise package.Overloaded("no")

    assert ask(wsgi.RateLimit(hello, Busy("memory:", 5, 60.0), **options)).status == status


def test_a_request_over_many_threads_is_counted_once_each(wsgi, throttler):
    app, statuses = wsgi.RateLimit(hello, throttler(40)), []
    threads = [threading.Thread(target=lambda: statuses.extend(r.status for r in ask_all(app, 10))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 40 + [429] * 40


# ---- Several policies ----


@pytest.mark.parametrize("stores", ["one store", "a store each"])
def test_a_policy_that_denies_charges_no_other(wsgi, blocking, stores):
    shared = blocking.connect("memory:")
    limits = [blocking.Throttler(shared if stores == "one store" else "memory:", capacity, 60.0, 900.0)
              for capacity in (5, 1)]
    app = wsgi.RateLimit(hello, limits[0], policies=[wsgi.Policy(limits[1], name="narrow")])
    allowed, denied = ask_all(app, 2)
    assert allowed.rate_limit == ('"default";q=5;w=300, "narrow";q=1;w=60', '"default";r=4;t=240, "narrow";r=0;t=1')
    assert denied.rate_limit[1] == '"narrow";r=0;t=900'
    assert [limits[0].peek("default:192.0.2.1").level, limits[1].peek("narrow:192.0.2.1").level] == [1, 1]
    assert limits[1].peek("narrow:192.0.2.1").blocked_for is not None
    assert limits[0].peek("default:192.0.2.1").blocked_for is None


def test_what_was_taken_before_a_late_denial_is_given_back(wsgi, blocking, monkeypatch):
    from aiosteady._together import Group

    limits = [blocking.Throttler("memory:", 5, 3600.0) for _ in range(2)]
    reserve, asked = Group.reserve, []

    async def others_come_between(self):
        asked.append(self)
        if len(asked) == 2:
            limits[1].consume("b:192.0.2.1", 5)
        return await reserve(self)

    monkeypatch.setattr(Group, "reserve", others_come_between)
    app = wsgi.RateLimit(hello, limits[0], cost=2, policies=[wsgi.Policy(limits[1], name="b")])
    assert ask(app).status == 429 and limits[0].peek("default:192.0.2.1").level == 0


def test_nested_middlewares_send_one_set_of_fields(wsgi, throttler):
    app = wsgi.RateLimit(wsgi.RateLimit(hello, throttler(1), name="in"), throttler(10), name="out")
    allowed, denied = ask_all(app, 2)
    assert allowed.rate_limit == ('"out";q=10;w=600, "in";q=1;w=60', '"out";r=9;t=540, "in";r=0;t=1')
    assert denied.rate_limit == ('"out";q=10;w=600, "in";q=1;w=60', '"in";r=0;t=60')


def test_nested_middlewares_that_could_share_a_bucket_are_rejected(wsgi, throttler):
    inside = wsgi.RateLimit(hello, throttler(5))
    with pytest.raises(ValueError, match="name"):
        wsgi.RateLimit(inside, throttler(10))
    with pytest.raises(RuntimeError, match="name of its own"):
        ask(wsgi.RateLimit(lambda *call: inside(*call), throttler(10)))


def test_fields_of_the_application_are_merged_with_ours(wsgi, throttler):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-RateLimit-Limit", "7"),
                                  ("X-RateLimit-Remaining", "3"), ("X-RateLimit-Reset", "9"), ("X-Own", "\xe9")])
        return [b""]

    response = ask(wsgi.RateLimit(app, throttler(5), fields="x"))
    assert [response["x-ratelimit-" + name] for name in ("limit", "remaining", "reset")] == ["7", "3", "9"]
    assert response["x-own"] == "\xe9"


def test_an_environ_used_twice_is_counted_twice(wsgi, throttler):
    app, environ = wsgi.RateLimit(hello, throttler(5)), {}

    def keep(given, start_response):
        environ.update(given)
        return app(given, start_response)

    ask(keep)
    again = called(app, environ)
    assert again["ratelimit"] == '"default";r=3;t=180' and "aiosteady.wsgi" not in environ


# ---- The protocol ----


def test_an_error_page_with_exc_info_has_the_fields(wsgi, throttler):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ValueError("broken")
        except ValueError:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    response = ask(wsgi.RateLimit(app, throttler(5)))
    assert (response.status, response.body, response["ratelimit"]) == (500, b"sorry", '"default";r=4;t=240')


def test_an_error_after_the_first_block_is_raised_by_start_response(wsgi, throttler):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        try:
            raise ValueError("broken")
        except ValueError:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())

    with pytest.raises(ValueError, match="broken"):
        ask(wsgi.RateLimit(app, throttler(5)))


def test_write_passes_through(wsgi, throttler):
    @validator
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"written, ")
        return [b"returned"]

    response = ask(wsgi.RateLimit(app, throttler(5)))
    assert response.body == b"written, returned" and response["ratelimit"] is not None


def test_the_iterable_of_the_application_is_closed(wsgi, throttler):
    closed = []

    class Blocks:
        def __iter__(self):
            return iter([b"a", b"b"])

        def close(self):
            closed.append(True)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Blocks()

    assert ask(wsgi.RateLimit(app, throttler(5))).body == b"ab" and closed == [True]


def test_flask_is_limited_and_a_response_of_werkzeug_is_a_denial(wsgi, throttler, from_pypi, monkeypatch):
    monkeypatch.syspath_prepend(str(from_pypi("flask==3.1.3")))
    flask = importlib.import_module("flask")
    seen = []

    def settle(outcome):
        seen.append((outcome.status, outcome.complete, outcome.size, outcome.headers["content-type"]))
        return 0 if outcome.status == 500 else None

    site = flask.Flask("site")
    site.route("/", endpoint="/")(lambda: str(flask.request.environ["aiosteady.rate_limit"].results["default"].level))
    site.route("/broken", endpoint="broken")(lambda: 1 / 0)
    site.route("/stream", endpoint="stream")(lambda: flask.Response((b"x" for _ in range(5)), mimetype="text/plain"))
    site.wsgi_app = wsgi.RateLimit(
        site.wsgi_app, throttler(3), settle=settle,
        on_denied=lambda environ, decision: flask.Response("slow down", status=429, headers={"X-Own": "1"}))
    client = site.test_client()
    texts = [client.get(path).text for path in ("/", "/broken", "/stream", "/")]
    assert texts[0] == "1" and texts[2:] == ["xxxxx", "3"], "the failure gave its drop back"
    assert [row[:3] for row in seen] == [(200, True, 1), (500, True, len(texts[1])), (200, True, 5), (200, True, 1)]
    denied = client.get("/")
    assert (denied.status_code, denied.text, denied.headers["X-Own"], denied.headers["Retry-After"]) == (
        429, "slow down", "1", "60")
    assert denied.headers["RateLimit"] == '"default";r=0;t=60' and denied.headers["Cache-Control"] == "no-store"


# ---- Keys and arguments ----


@pytest.mark.parametrize("hops, client, header, key", [
    (0, "192.0.2.1", "198.51.100.7", "192.0.2.1"),
    (1, "10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
    (2, "10.0.0.1", "198.51.100.7", "10.0.0.1"),
    (1, "", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
    (1, "", "", "unix"),
    (0, "", "198.51.100.7", "unix"),
    (0, "::ffff:192.0.2.1", "", "192.0.2.1"),
])
def test_the_client_is_an_address_that_cannot_be_spoofed(wsgi, hops, client, header, key):
    environ = {"REMOTE_ADDR": client, **({"HTTP_X_FORWARDED_FOR": header} if header else {})}
    assert wsgi.client_address(hops)(environ) == key


@pytest.mark.parametrize("arguments, text", [
    ({"policies": [5]}, r"policies\[0\] must be aiosteady.wsgi.Policy, not int"),
    ({"key": "x"}, "key must be a function of the WSGI environ, not str"),
    ({"app": None}, "app must be a WSGI application, not NoneType")], ids=["policy", "key", "app"])
def test_a_wrong_type_is_named_when_the_middleware_is_made(wsgi, throttler, arguments, text):
    with pytest.raises(TypeError, match=text):
        wsgi.RateLimit(**{"app": hello, "throttler": throttler(1), **arguments})


def test_a_throttler_of_the_other_module_is_rejected(wsgi, package, throttler):
    from aiosteady import asgi

    with pytest.raises(TypeError, match="must be aiosteady.blocking.Throttler, or .* not aiosteady.Throttler"):
        wsgi.RateLimit(hello, package.Throttler("memory:", 1, 1.0))
    with pytest.raises(TypeError, match="must be aiosteady.Throttler, or .* not aiosteady.blocking.Throttler"):
        asgi.Policy(throttler(1))


def test_a_coroutine_function_as_a_key_is_a_plain_error(wsgi, throttler):
    async def key(environ):
        return "k"

    with pytest.raises(TypeError, match="WSGI has no event loop"):
        ask(wsgi.RateLimit(hello, throttler(1), key=key))


@pytest.mark.parametrize("secret", [True, "a secret"])
def test_a_hashed_key_is_not_in_the_store(wsgi, throttler, redis_server, secret):
    app = wsgi.RateLimit(hello, throttler(1, url=redis_server.url), key=lambda environ: environ["HTTP_TOKEN"], hash=secret)
    assert [r.status for r in ask_all(app, 2, headers=[("token", "t0k")])] == [200, 429]
    assert all(len(key) == 8 + 64 and b"t0k" not in key for key in redis_server("KEYS", "*"))
