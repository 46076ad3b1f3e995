# SPDX-License-Identifier: MIT
"""The ASGI middleware, called like a server calls it: the bytes of the fields, keys, costs, failing stores."""
import asyncio
import importlib
import json
import socket
import sys
import threading
import time

import pytest
from asgi_rig import HTTP_TYPES, WIDE_RECHARGE, ask, ask_all, hello, run
from asgi_rig import asgi, http, package, throttler  # noqa: F401: fixtures


# ---- The fields, byte by byte ----


def test_an_allowed_request_carries_the_fields(asgi, throttler):
    app = asgi.RateLimit(hello, throttler(10))
    first, second = run(ask_all(app, 2))
    assert (first.status, first.body) == (200, b"hello")
    assert first.headers == [("content-length", "5"), ("ratelimit-policy", '"default";q=10;w=600'),
                             ("ratelimit", '"default";r=9;t=540')]
    assert second.headers[1:] == [("ratelimit-policy", '"default";q=10;w=600'), ("ratelimit", '"default";r=8;t=480')]


def test_a_denied_request_is_a_429_and_never_reaches_the_application(asgi, throttler):
    app = asgi.RateLimit(hello, throttler(1), name="per-client")
    allowed, denied = run(ask_all(app, 2))
    assert allowed["ratelimit"] == '"per-client";r=0;t=1'
    assert denied.status == 429
    body = (b'{"type": "https://iana.org/assignments/http-problem-types#quota-exceeded", '
            b'"title": "Request cannot be satisfied as assigned quota has been exceeded", '
            b'"status": 429, "violated-policies": ["per-client"]}')
    assert denied.body == body
    assert denied.headers == [
        ("content-type", "application/problem+json"), ("content-length", str(len(body))), ("cache-control", "no-store"),
        ("retry-after", "60"), ("ratelimit-policy", '"per-client";q=1;w=60'), ("ratelimit", '"per-client";r=0;t=60')]


def test_a_denial_shows_what_a_cheaper_request_could_have(asgi, throttler):
    app = asgi.RateLimit(hello, throttler(10), cost=lambda scope: 9 if scope["path"] == "/" else 3)
    allowed, denied = run(both(app))
    assert allowed["ratelimit"] == '"default";r=1;t=60'
    assert denied["retry-after"] == "120" and denied["ratelimit"] == '"default";r=1;t=120'


async def both(app):
    return await ask(app), await ask(app, path="/dear")


# capacity, recharge in us, drops; then ("allowed", level) or ("denied", level, wait); the fields of draft-11.
GOLDEN = [
    ((100, 600_000, 1), ("allowed", 1), '"n";q=100;w=60', '"n";r=99;t=60'),
    ((100, 600_000, 1), ("allowed", 50), '"n";q=100;w=60', '"n";r=50;t=30'),
    ((100, 600_000, 1), ("allowed", 99), '"n";q=100;w=60', '"n";r=1;t=1'),
    ((100, 600_000, 1), ("allowed", 100), '"n";q=100;w=60', '"n";r=0;t=1'),
    ((100, 600_000, 1), ("allowed", 150), '"n";q=100;w=60', '"n";r=0;t=1'),  # the limit was lowered
    ((100, 600_000, 1), ("denied", 100, 1), '"n";q=100;w=60', '"n";r=0;t=1'),
    ((100, 600_000, 1), ("denied", 90, 3), '"n";q=100;w=60', '"n";r=5;t=3'),
    ((5, 1_000_000, 3), ("allowed", 1), '"n";q=5;w=2', '"n";r=4;t=2'),
    ((10, 1_000, 1), ("allowed", 0), '"n";q=10;w=1', '"n";r=10;t=1'),
    ((1, 1, 1), ("allowed", 1), '"n";q=1;w=1', '"n";r=0;t=1'),
    ((1, 86_400_000_001, 1), ("denied", 1, 86_401), '"n";q=1;w=86401', '"n";r=0;t=86401'),
    ((2**31 - 1, 4_194_303, 1), ("allowed", 0), '"n";q=2147483647;w=9007197104', '"n";r=2147483647;t=9007197104'),
]


def fields_of(http, quotas, verdict):
    """The values of the fields. The verdict is that of each quota."""
    kind, level, *wait = verdict
    result = http._core.ThrottleResult(kind == "allowed", level, 0.0, None, float(wait[0]) if wait else None)
    return [value for _, value in http._core.http_fields("draft-11", [(quota, result) for quota in quotas])]


@pytest.mark.parametrize("limit, verdict, policy, state", GOLDEN)
def test_the_fields_have_the_golden_values(http, limit, verdict, policy, state):
    assert fields_of(http, [http.Quota("n", *limit)], verdict) == [policy.encode(), state.encode()]


@pytest.mark.parametrize("recharge, us", [(5e-7, 1), (2.5e-6, 3), (1e-6, 1), (0.6, 600_000), (60, 60_000_000)])
def test_a_quota_is_rounded_to_the_microseconds_of_its_bucket(asgi, throttler, recharge, us):
    assert asgi.Policy(throttler(1000, recharge)).quotas[0].recharge_us == us


def test_a_bucket_with_a_recharge_of_half_a_microsecond_denies(asgi, throttler):
    there = throttler(2**31 - 1, 5e-7, 10)
    app = asgi.RateLimit(hello, there)

    async def main():
        await there.consume("default:192.0.2.1", 2**31 - 1)
        await there.consume("default:192.0.2.1", 2**31 - 1)
        return await ask(app)

    denied = run(main())
    assert denied.status == 429 and denied["retry-after"] == "10"


@pytest.mark.parametrize("limit", [(10, 10**21, 1), (10, 2**52, 1), (0, 1, 1), (1, 1, 10**7)])
def test_a_quota_that_no_throttler_has_makes_no_field(http, limit):
    with pytest.raises((ValueError, OverflowError)):
        fields_of(http, [http.Quota("n", *limit)], ("allowed", 0))


@pytest.mark.parametrize("form, fields", [
    ("draft-07", [("ratelimit-policy", "5;w=300, 10;w=600"), ("ratelimit", "limit=5, remaining=4, reset=240")]),
    ("draft-03", [("ratelimit-limit", "5"), ("ratelimit-remaining", "4"), ("ratelimit-reset", "240")]),
    ("x", [("x-ratelimit-limit", "5"), ("x-ratelimit-remaining", "4"), ("x-ratelimit-reset", "240")]),
    ("none", []),
])
def test_older_forms_show_the_tightest_policy(asgi, throttler, form, fields):
    app = asgi.RateLimit(hello, throttler(5), policies=[asgi.Policy(throttler(10), name="wide")], fields=form)
    assert run(ask(app)).headers[1:] == fields


def test_a_name_is_quoted_as_a_structured_field(asgi, throttler):
    app = asgi.RateLimit(hello, throttler(10), name='a "b" \\ c')
    assert run(ask(app)).rate_limit == (r'"a \"b\" \\ c";q=10;w=600', r'"a \"b\" \\ c";r=9;t=540')


@pytest.mark.parametrize("name", ["", "a\r\nset-cookie: b", "a\n", "\x00", "\x7f", "caf\xe9", "\u2028", b"bytes", None])
def test_a_name_that_no_field_can_quote_is_rejected_at_once(asgi, throttler, name):
    with pytest.raises(ValueError, match="name is"):
        asgi.RateLimit(hello, throttler(10), name=name)


def test_every_field_is_read_back_by_another_parser(asgi, http, from_pypi):
    sys.path.append(str(from_pypi("http-sf==1.5.0")))
    parse = importlib.import_module("http_sf").parse
    for name in ("default", 'q";r=1, "', "\\", " !~"):
        for limit, verdict, _, _ in GOLDEN:
            policy, state = (parse(value, tltype="list") for value in fields_of(http, [http.Quota(name, *limit)] * 2, verdict))
            capacity, recharge, drops = limit
            window = max(1, -(-capacity * recharge // (drops * 10**6)))
            assert policy == [(name, {"q": capacity, "w": window})] * 2
            (name_1, numbers), other = state
            assert name_1 == name and other == (name, numbers) and list(numbers) == ["r", "t"]
            assert numbers["r"] * recharge <= numbers["t"] * drops * 10**6  # the field never promises more than leaks


# ---- Keys ----


def forwarded(*lines):
    return [(b"host", b"a"), *((b"x-forwarded-for", line) for line in lines)]


@pytest.mark.parametrize("hops, client, lines, key", [
    (0, "192.0.2.1", [b"198.51.100.7"], "192.0.2.1"),  # any client can send the field
    (1, "10.0.0.1", [b"198.51.100.7"], "198.51.100.7"),
    (1, "10.0.0.1", [b"203.0.113.9, 198.51.100.7"], "198.51.100.7"),
    (1, "10.0.0.1", [b"203.0.113.9", b"198.51.100.7"], "198.51.100.7"),
    (2, "10.0.0.1", [b"203.0.113.9,198.51.100.7 , 10.0.0.2"], "198.51.100.7"),
    (2, "10.0.0.1", [b"198.51.100.7"], "10.0.0.1"),
    (1, "10.0.0.1", [], "10.0.0.1"),
    (1, "10.0.0.1", [b"unknown"], "10.0.0.1"),
    (1, "10.0.0.1", [b"\xff, \xfe"], "10.0.0.1"),
    (1, "10.0.0.1", [b"198.51.100.7:4711"], "198.51.100.7"),
    (1, "10.0.0.1", [b"[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2::/64"),
    (1, "10.0.0.1", [b"2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
    (0, "2001:db8:1:2:ffff::1", [], "2001:db8:1:2::/64"),
    (0, "::ffff:192.0.2.1", [], "192.0.2.1"),
    (0, "fe80::1%eth0", [], "fe80::/64"),
    (0, "::1", [], "::/64"),
    (0, "64:ff9b::1.2.3.4", [], "1.2.3.4"),  # RFC 6052
    (0, "64:ff9b::9.9.9.9", [], "9.9.9.9"),
    (0, "64:ff9c::1.2.3.4", [], "64:ff9c::/64"),
    (0, "64:ff9b:1:7::1.2.3.4", [], "64:ff9b:1:7::102:304/128"),  # RFC 8215
    (0, "64:ff9b:1:7::9.9.9.9", [], "64:ff9b:1:7::909:909/128"),
    (0, "2002:102:304:1::5", [], "1.2.3.4"),  # RFC 3056: one site has 65,536 networks
    (0, "2002:102:304:2::5", [], "1.2.3.4"),
    (0, "2001:0:4136:e378:8000:63bf:3fff:fdd2", [], "192.0.2.45"),  # the example of RFC 4380, 4
    (0, "2001:0:4136:e378:8000:63bf:3fff:fdd3", [], "192.0.2.44"),
    (0, "2001:1::5", [], "2001:1::/64"),
    (0, "::1.2.3.4", [], "1.2.3.4"),  # RFC 4291, IPv4-compatible
    (0, "::ffff:0:1.2.3.4", [], "1.2.3.4"),  # RFC 2765
    (0, "2001:db8:1:2:0:5efe:1.2.3.4", [], "2001:db8:1:2::/64"),  # RFC 5214: ISATAP
    (1, "10.0.0.1", [b"[64:ff9b::1.2.3.4]:4711"], "1.2.3.4"),
    (0, "testclient", [], "testclient"),
])
def test_the_client_is_an_address_that_cannot_be_spoofed(asgi, hops, client, lines, key):
    assert asgi.client_address(hops)({"client": (client, 1), "headers": forwarded(*lines)}) == key


def test_an_ipv6_address_counts_alone_with_a_prefix_of_128(asgi):
    assert asgi.client_address(ipv6_prefix=128)({"client": ("2001:db8::1", 1), "headers": []}) == "2001:db8::1/128"


@pytest.mark.parametrize("client", [None, ("", 0)], ids=["none", "empty"])
@pytest.mark.parametrize("hops, lines, key", [(0, [b"198.51.100.7"], "unix"), (1, [], "unix"), (1, [b"198.51.100.7"], "198.51.100.7")])
def test_a_peer_without_an_address_is_one_client(asgi, client, hops, lines, key):
    assert asgi.client_address(hops)({"client": client, "headers": forwarded(*lines)}) == key


def test_requests_without_an_address_are_limited_together_and_a_warning_says_so(asgi, throttler, caplog, monkeypatch):
    monkeypatch.setattr(importlib.import_module("aiosteady._address").warn, "_next", {})
    assert [r.status for r in run(ask_all(asgi.RateLimit(hello, throttler(2)), 3, client=None))] == [200, 200, 429]
    assert caplog.text.count("set trusted_hops of client_address()") == 1


def test_clients_have_buckets_of_their_own(asgi, throttler):
    app = asgi.RateLimit(hello, throttler(1))
    assert [run(ask(app, client=(host, 1))).status for host in ("192.0.2.1", "192.0.2.2", "192.0.2.1")] == [200, 200, 429]


def header(name):
    return lambda scope: dict(scope["headers"]).get(name)


def later(function):
    async def called(scope):
        await asyncio.sleep(0)
        return function(scope)

    return called


@pytest.mark.parametrize("wrap", [lambda function: function, later], ids=["plain", "awaited"])
def test_a_key_may_be_any_part_of_the_request_and_none_is_not_limited(asgi, throttler, wrap):
    app = asgi.RateLimit(hello, throttler(1), key=wrap(header(b"x-api-key")))

    async def main():
        free = await ask_all(app, 3)
        return free, await ask_all(app, 2, headers=[(b"x-api-key", b"k\xff\r\n")])

    free, limited = run(main())
    assert [(r.status, r["ratelimit"]) for r in free] == [(200, None)] * 3
    assert [r.status for r in limited] == [200, 429]


@pytest.mark.parametrize("key", ["", b"", "x" * 1020, b"x" * 5000, "\ud800"],
                         ids=["empty text", "empty bytes", "1020 characters", "5000 bytes", "a surrogate"])
def test_a_request_with_an_impossible_key_is_a_400(asgi, throttler, key):
    app = asgi.RateLimit(hello, throttler(1), key=lambda scope: key)
    response = run(ask(app))
    assert response.status == 400 and json.loads(response.body)["type"] == "about:blank"
    assert response["ratelimit"] is None and response["retry-after"] is None


def test_the_longest_key_is_counted(asgi, throttler):
    app = asgi.RateLimit(hello, throttler(1, prefix="p:"), key=lambda scope: b"x" * 1020, name="n")
    assert [r.status for r in run(ask_all(app, 2))] == [200, 429]


def test_a_key_of_another_type_raises_a_type_error(asgi, throttler):
    with pytest.raises(TypeError, match="policy 'default'.*int"):
        run(ask(asgi.RateLimit(hello, throttler(1), key=lambda scope: 5)))


# ---- Costs ----


@pytest.mark.parametrize("wrap", [lambda function: function, later], ids=["plain", "awaited"])
def test_a_cost_may_be_computed_for_each_request(asgi, throttler, wrap):
    app = asgi.RateLimit(hello, throttler(10), cost=wrap(lambda scope: int(header(b"x-cost")(scope))))
    costs = [run(ask(app, headers=[(b"x-cost", cost)]))["ratelimit"] for cost in (b"3", b"0", b"7")]
    assert costs == ['"default";r=7;t=420', '"default";r=7;t=420', '"default";r=0;t=1']


def test_a_request_that_never_fits_is_a_422_and_takes_nothing(asgi, throttler):
    app = asgi.RateLimit(hello, throttler(10), cost=lambda scope: 11 if scope["path"] == "/dear" else 1)
    _, response = run(both(app))
    problem = json.loads(response.body)
    assert response.status == 422 and response["retry-after"] is None and response["ratelimit"] is None
    assert problem["type"] == "about:blank" and problem["violated-policies"] == ["default"]
    assert run(ask(app))["ratelimit"] == '"default";r=8;t=480'


@pytest.mark.parametrize("cost, error", [(-1, ValueError), (11, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_an_impossible_cost_is_rejected(asgi, throttler, cost, error):
    with pytest.raises(error, match="cost"):
        asgi.RateLimit(hello, throttler(10), cost=cost)
    if cost != 11:
        with pytest.raises(error, match="cost"):
            run(ask(asgi.RateLimit(hello, throttler(10), cost=lambda scope: cost)))


def test_impossible_options_are_rejected_by_the_constructor(asgi, throttler):
    policy = asgi.Policy(throttler(1))
    for options in ({}, {"policies": [policy, policy]}, {"throttler": throttler(1), "on_error": "report"},
                    {"throttler": throttler(1), "fields": "draft-12"}, {"throttler": throttler(1), "on_overload": "report"},
                    {"throttler": throttler(1), "hash": ""}, {"throttler": throttler(1), "hash": b""}):
        with pytest.raises(ValueError):
            asgi.RateLimit(hello, **options)
    with pytest.raises(TypeError, match="must be aiosteady.Throttler"):
        asgi.RateLimit(hello, "memory:")
    with pytest.raises(TypeError, match="hash must be"):
        asgi.RateLimit(hello, throttler(1), hash=5)
    for options in ({"trusted_hops": -1}, {"ipv6_prefix": 0}, {"ipv6_prefix": 129}):
        with pytest.raises(ValueError):
            asgi.client_address(**options)


@pytest.mark.parametrize("form, fields", [
    ("draft-11", {"ratelimit": '"default";r=0;t=60'}),
    ("draft-07", {"ratelimit": "limit=10, remaining=0, reset=60"}),
    ("draft-03", {"ratelimit-remaining": "0", "ratelimit-reset": "60"}),
    ("x", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}),
])
def test_a_blocked_bucket_shows_nothing_left(asgi, throttler, form, fields):
    there = throttler(10, 0.1, 60)
    app = asgi.RateLimit(hello, there, fields=form)

    async def main():
        await there.consume("default:192.0.2.1", 5)
        await there.consume("default:192.0.2.1", 10)
        return await ask(app)

    denied = run(main())
    assert denied.status == 429 and denied["retry-after"] == "60" and {name: denied[name] for name in fields} == fields


# ---- Retry-After holds ----


@pytest.mark.parametrize("url", ["memory:", "redis"])
def test_a_client_that_waits_for_retry_after_is_admitted(asgi, throttler, redis_server, url):
    """Real time: many limits at once. Each is asked until it denies, waits for Retry-After, and is asked again."""
    where = redis_server.url if url == "redis" else url
    limits = [(1, 0.3, 1, 1), (2, 1.1, 1, 1), (3, 0.7, 1, 2), (5, 2.0, 3, 5), (1, 2.0, 1, 1), (2, 0.999999, 1, 1), (4, 1.0, 7, 3)]

    async def one(at, capacity, recharge, drops, cost):
        app = asgi.RateLimit(hello, throttler(capacity, recharge, drops=drops, url=where), cost=cost, name=f"{url}{at}")
        while (response := await ask(app)).status == 200:
            pass
        answered = time.monotonic()
        assert response.status == 429
        await asyncio.sleep(answered + int(response["retry-after"]) - time.monotonic())
        return (await ask(app)).status

    async def main():
        return await asyncio.gather(*(one(at, *limit) for at, limit in enumerate(limits)))

    assert run(main()) == [200] * len(limits)


# ---- Unavailable stores ----


class Silent:
    """A server that reads and never replies."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = "redis://127.0.0.1:%d" % self.socket.getsockname()[1]
        self.held = []
        threading.Thread(target=self.hold, daemon=True).start()

    def hold(self):
        try:
            while True:
                self.held.append(self.socket.accept())
        except OSError:
            pass


@pytest.fixture
def silent():
    server = Silent()
    yield server
    server.socket.close()
    for connection, _ in server.held:
        connection.close()


@pytest.fixture(params=["refused", "silent", "closed"])
def failing(request, package, throttler, closed_port, silent):
    """A throttler whose store is unavailable in one of these ways."""
    if request.param == "closed":
        store = package.connect("memory:")
        closed = package.Throttler(store, 10, WIDE_RECHARGE)
        store.close()
        return closed
    return throttler(url={"refused": f"redis://127.0.0.1:{closed_port}", "silent": silent.url}[request.param])


def test_by_default_an_unavailable_store_admits_without_fields(asgi, failing, caplog):
    for response in run(ask_all(asgi.RateLimit(hello, failing), 3)):
        assert response.status == 200 and response.headers == [("content-length", "5")]
    warnings = [record for record in caplog.records if "has no verdict" in record.getMessage()]
    assert len(warnings) == 1 and "requests pass" in warnings[0].getMessage()


def test_with_on_error_deny_an_unavailable_store_is_a_503_and_never_a_429(asgi, failing):
    for response in run(ask_all(asgi.RateLimit(hello, failing, on_error="deny"), 3)):
        assert response.status == 503 and 1 <= int(response["retry-after"]) <= 5
        assert response["ratelimit"] is None and response["ratelimit-policy"] is None
        assert json.loads(response.body) == {
            "type": HTTP_TYPES + "temporary-reduced-capacity", "status": 503, "violated-policies": ["default"],
            "title": "Request cannot be satisfied due to temporary server capacity constraints"}


@pytest.mark.parametrize("policy, status", [("allow", 200), ("deny", 503)])
@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_the_policy_of_the_throttler_overrides_on_error(asgi, throttler, closed_port, policy, status, on_error):
    there = throttler(url=f"redis://127.0.0.1:{closed_port}", on_error=policy)
    response = run(ask(asgi.RateLimit(hello, there, on_error=on_error)))
    assert response.status == status and response["ratelimit"] is None


def test_a_full_local_share_is_a_429_without_fields(asgi, throttler, closed_port):
    there = throttler(4, url=f"redis://127.0.0.1:{closed_port}", on_error="local", local_share=2)
    app = asgi.RateLimit(hello, there, cost=lambda scope: 3 if scope["path"] == "/dear" else 1)

    async def main():
        return await ask(app, path="/dear"), await ask_all(app, 3)

    dear, responses = run(main())
    assert dear.status == 503  # it fits the limit, but never the local share
    assert [r.status for r in responses] == [200, 200, 429] and int(responses[2]["retry-after"]) > 1
    assert {r.rate_limit for r in responses} == {(None, None)}


# ---- Scopes other than HTTP ----


def test_lifespan_and_unknown_scopes_pass_through_unchanged(asgi, throttler):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    calls = [({"type": kind}, object(), object()) for kind in ("lifespan", "webtransport")]
    for call in calls:
        run(asgi.RateLimit(app, throttler(1))(*call))
    assert all(mine is theirs for got, sent in zip(seen, calls) for mine, theirs in zip(got, sent))


def test_a_websocket_is_counted_when_it_is_opened(asgi, throttler):
    app = asgi.RateLimit(hello, throttler(1))

    async def main():
        accepted = await ask(app, kind="websocket")
        closed = await ask(app, kind="websocket")
        return accepted, closed, await ask(app, kind="websocket", extensions={"websocket.http.response": {}})

    accepted, closed, answered = run(main())
    assert accepted.type == "websocket.accept"
    assert accepted.headers == [("x-own", "1"), ("ratelimit-policy", '"default";q=1;w=60'), ("ratelimit", '"default";r=0;t=1')]
    assert closed.type == "websocket.close"
    assert (answered.type, answered.status, answered["retry-after"]) == ("websocket.http.response.start", 429, "60")
    assert json.loads(answered.body)["violated-policies"] == ["default"]


@pytest.mark.parametrize(("arguments", "text"), [
    ({"policies": [5]}, r"policies\[0\] must be aiosteady.asgi.Policy, not int"),
    ({"key": "x"}, "key must be a function of the ASGI scope, not str"),
    ({"app": None}, "app must be an ASGI application, not NoneType")], ids=["policy", "key", "app"])
def test_a_wrong_type_is_named_when_the_middleware_is_made(asgi, aio, arguments, text):
    with pytest.raises(TypeError, match=text):
        asgi.RateLimit(**{"app": lambda scope, receive, send: None, "throttler": aio.Throttler("memory:", 1, 1.0), **arguments})


@pytest.mark.parametrize(("arguments", "error", "text"), [
    ({"trusted_hops": "1"}, TypeError, "trusted_hops must be an int, not str"),
    ({"trusted_hops": -1}, ValueError, "trusted_hops is -1; it must be 0"),
    ({"ipv6_prefix": 0}, ValueError, "ipv6_prefix is 0; it must be 1 .. 128")], ids=["type", "hops", "prefix"])
def test_a_wrong_argument_of_client_address_is_named_with_its_range(asgi, arguments, error, text):
    with pytest.raises(error, match=text):
        asgi.client_address(**arguments)
