# SPDX-License-Identifier: MIT
"""Nested ASGI middlewares, and applications that set the same fields: each field is sent once."""
import json

import pytest
from asgi_rig import ask, ask_all, hello, run
from asgi_rig import asgi, package, throttler  # noqa: F401: fixtures


def nested(asgi, throttler, outer, inner, app=hello, fields=("draft-11", "draft-11"), **options):
    inside = asgi.RateLimit(app, throttler(*inner), name="in", fields=fields[1])
    return asgi.RateLimit(inside, throttler(*outer), name="out", fields=fields[0], **options)


def sets(*fields, status=200):
    """An application that sets these fields."""

    async def app(scope, receive, send):
        start = "websocket.http.response.start" if scope["type"] == "websocket" else "http.response.start"
        await send({"type": start, "status": status, "headers": list(fields)})
        await send({"type": start.replace("start", "body"), "body": b""})

    return app


# The fields of two RateLimits with 10 and 5 drops, by form. The tighter limit is the inner or the outer one.
FIELDS = {
    "draft-07": {"ratelimit-policy": "{0};w={1}, {2};w={3}", "ratelimit": "limit=5, remaining=4, reset=240"},
    "draft-03": {"ratelimit-limit": "5", "ratelimit-remaining": "4", "ratelimit-reset": "240"},
    "x": {"x-ratelimit-limit": "5", "x-ratelimit-remaining": "4", "x-ratelimit-reset": "240"},
}


@pytest.mark.parametrize("form", FIELDS)
@pytest.mark.parametrize("outer, inner", [(10, 5), (5, 10)])
def test_nested_middlewares_show_the_tighter_limit(asgi, throttler, form, outer, inner):
    response = run(ask(nested(asgi, throttler, (outer,), (inner,), fields=(form, form))))
    for name, value in FIELDS[form].items():
        assert response[name] == value.format(outer, outer * 60, inner, inner * 60)


def test_nested_middlewares_send_one_list_with_each_policy_once(asgi, throttler):
    assert run(ask(nested(asgi, throttler, (10,), (5,)))).rate_limit == (
        '"out";q=10;w=600, "in";q=5;w=300', '"out";r=9;t=540, "in";r=4;t=240')


def test_the_denial_of_an_inner_middleware_is_shown(asgi, throttler):
    _, denied = run(ask_all(nested(asgi, throttler, (10,), (1,)), 2))
    assert denied.status == 429 and denied["retry-after"] == "60" and denied["cache-control"] == "no-store"
    assert denied.rate_limit == ('"out";q=10;w=600, "in";q=1;w=60', '"in";r=0;t=60')
    assert json.loads(denied.body)["violated-policies"] == ["in"]
    _, denied = run(ask_all(nested(asgi, throttler, (10,), (1,), fields=("x", "x")), 2))
    assert denied["x-ratelimit-remaining"] == "0" and denied["x-ratelimit-reset"] == "60" == denied["retry-after"]


def test_a_websocket_denied_by_an_inner_middleware_has_each_field_once(asgi, throttler):
    app, more = nested(asgi, throttler, (10,), (1,)), {"kind": "websocket", "extensions": {"websocket.http.response": {}}}

    async def main():
        await ask(app)
        return await ask(app, **more)

    assert run(main()).rate_limit == ('"out";q=10;w=600, "in";q=1;w=60', '"in";r=0;t=60')


@pytest.mark.parametrize("forms, names", [
    (("draft-11", "x"), {"ratelimit-policy", "ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}),
    (("draft-11", "draft-07"), {"ratelimit-policy", "ratelimit"}),
    (("none", "x"), {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}),
    (("none", "none"), set()),
])
def test_nested_middlewares_of_different_forms_send_each_field_once(asgi, throttler, forms, names):
    fields = [name for name, _ in run(ask(nested(asgi, throttler, (10,), (5,), fields=forms))).headers]
    assert len(fields) == len(set(fields)) and set(fields) - {"content-length"} == names


# ---- Fields of the application ----


@pytest.mark.parametrize("remaining, reset, counts", [("3", "9", "3"), ("4", "9", "4"), ("8", "9", "4"), ("4", "900", "4"),
                                                      ("soon", "9", "4"), ("3", "", "4")])
def test_a_tighter_limit_of_the_application_is_shown(asgi, throttler, remaining, reset, counts):
    own = [(b"X-RateLimit-Limit", b"7"), (b"x-ratelimit-remaining", remaining.encode()), (b"x-ratelimit-reset", reset.encode())]
    response = run(ask(asgi.RateLimit(sets(*own), throttler(5), fields="x")))
    assert {name.lower() for name, _ in response.headers} == {"x-ratelimit-" + end for end in ("limit", "remaining", "reset")}
    assert response["x-ratelimit-remaining"] == counts
    if (remaining, reset) == ("3", "9"):
        assert (response["x-ratelimit-limit"], response["x-ratelimit-reset"]) == ("7", "9")


def test_a_tighter_limit_of_the_application_is_shown_in_draft_07(asgi, throttler):
    own = [(b"ratelimit-policy", b"7;w=60"), (b"ratelimit", b"limit=7, remaining=3, reset=9")]
    response = run(ask(asgi.RateLimit(sets(*own), throttler(5), fields="draft-07")))
    assert response.rate_limit == ("5;w=300, 7;w=60", "limit=7, remaining=3, reset=9")


def test_policies_of_the_application_are_listed_once_with_ours(asgi, throttler):
    own = [(b"ratelimit-policy", b'"a, b";q=7;w=60, "default";q=1;w=1'), (b"ratelimit-policy", b'"c";q=1'),
           (b"ratelimit", b'"a, b";r=3;t=9, "default";r=1;t=1')]
    response = run(ask(asgi.RateLimit(sets(*own), throttler(5))))
    assert response.rate_limit == ('"default";q=5;w=300, "a, b";q=7;w=60, "c";q=1', '"default";r=4;t=240, "a, b";r=3;t=9')


def test_other_fields_of_the_application_stay_unchanged(asgi, throttler):
    own = [(b"retry-after", b"5"), (b"cache-control", b"private"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    response = run(ask(asgi.RateLimit(sets(*own, status=429), throttler(5))))
    assert [(name.encode(), value.encode()) for name, value in response.headers[:4]] == own
    assert response["retry-after"] == "5" and response["ratelimit"] == '"default";r=4;t=240'


# ---- Names ----


def wrapped(app):
    """A middleware of another package."""

    class Wrapper:
        def __init__(self, app):
            self.app = app

        async def __call__(self, *call):
            await self.app(*call)

    return Wrapper(app)


@pytest.mark.parametrize("between", [lambda app: app, wrapped], ids=["directly", "wrapped"])
@pytest.mark.parametrize("names", [("default", "default"), ("api", "api:admin"), ("api:admin", "api")])
def test_nested_middlewares_that_could_share_a_bucket_are_rejected(asgi, throttler, between, names):
    inside = between(asgi.RateLimit(hello, throttler(5), name=names[0]))
    with pytest.raises(ValueError, match="name"):
        asgi.RateLimit(inside, throttler(10), name=names[1])


def test_hidden_nested_middlewares_are_rejected_by_the_first_request(asgi, throttler):
    inside, limits = asgi.RateLimit(hello, throttler(5)), [throttler(10)]

    async def router(scope, receive, send):
        await inside(scope, receive, send)

    with pytest.raises(RuntimeError, match="name of its own"):
        run(ask(asgi.RateLimit(router, *limits)))
    assert run(limits[0].peek("default:192.0.2.1")).level == 1
    assert run(ask(asgi.RateLimit(router, *limits, name="out"))).status == 200


def test_a_scope_used_twice_is_counted_twice_and_gets_only_a_decision(asgi, throttler):
    app, sent = asgi.RateLimit(hello, throttler(5)), []
    scope = {"type": "http", "method": "GET", "path": "/", "client": ("192.0.2.1", 1), "headers": []}
    before = dict(scope)

    async def send(message):
        sent.append(message)

    async def main():
        await app(scope, None, send)
        await app(scope, None, send)

    run(main())
    state = scope.pop("state")
    assert state["rate_limit"].results["default"].level == 2
    assert scope == before and [dict(m["headers"])[b"ratelimit"] for m in sent[::2]] == [
        b'"default";r=4;t=240', b'"default";r=3;t=180']
