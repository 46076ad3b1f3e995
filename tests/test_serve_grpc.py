# SPDX-License-Identifier: MIT
"""gRPC of the daemon: Envoy's rate limit service and the health check, with grpcio as the client. Also HTTP/2 with
curl, and the same service as JSON."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from serve_rig import daemon, needs_daemon, rules_file

pytestmark = needs_daemon

HERE = Path(__file__).resolve().parent
PACKAGES = ("grpcio", "grpcio-tools", "grpcio-health-checking", "protobuf")
CHECK = "/grpc.health.v1.Health/Check"

RULES = """
limits:
  - { name: own, match: { descriptor: { plan: free } }, key: descriptor:user, rate: 2/d }
  - { name: tokens, match: { descriptor: { model: "*" } }, key: descriptor:user, rate: 10/d, cost: after }
  - { name: path, match: { path: "/*" }, rate: 1/d }
include: [ envoy.yaml ]
"""
ENVOY = """
domain: edge
descriptors:
  - key: user
    rate_limit: { name: per_user, unit: day, requests_per_unit: 3 }
  - key: closed
    rate_limit: { unit: hour, requests_per_unit: 0 }
  - key: free
    rate_limit: { unlimited: true }
  - key: shadow
    shadow_mode: true
    rate_limit: { unit: day, requests_per_unit: 1 }
  - key: shadow_closed
    shadow_mode: true
    rate_limit: { unit: day, requests_per_unit: 0 }
  - key: special
    rate_limit: { unit: day, requests_per_unit: 100, replaces: [ { name: per_user } ] }
"""


class Client:
    """grpcio in a process of its own."""

    def __init__(self, folder, port, packages):
        folder.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, HERE / "grpc_client.py", str(port), HERE.parent / "server", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(packages)},
        )

    def __call__(self, **asked):
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def client_of(from_pypi, tmp_path_factory):
    @contextlib.contextmanager
    def start(port):
        client = Client(tmp_path_factory.mktemp("grpc"), port, from_pypi(*PACKAGES))
        try:
            yield client
        finally:
            client.stop()

    return start


def rules(folder, text=RULES):
    rules_file(folder, ENVOY, "envoy.yaml")
    return rules_file(folder, text)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with daemon("--config", rules(tmp_path_factory.mktemp("rules"))) as running:
        yield running


@pytest.fixture(scope="module")
def grpc(served, client_of):
    with client_of(served.port) as client:
        yield client


def descriptor(*pairs, **more):
    return {"entries": [{"key": key, "value": value} for key, value in pairs], **more}


def request(*descriptors, **more):
    return {"domain": "edge", "descriptors": list(descriptors), **more}


def ask(grpc, *descriptors, **more):
    answer = grpc(request=request(*descriptors, **more))
    assert answer["code"] == "OK", answer
    return answer["response"]


def verdict(response):
    """(allowed, what remains of each descriptor)"""
    return response["overall_code"] == 1, [status.get("limit_remaining", 0) for status in response["statuses"]]


# ---- ShouldRateLimit ----


def test_a_descriptor_is_allowed_until_its_limit_then_denied_with_its_wait(grpc):
    for left in (2, 1, 0):
        response = ask(grpc, descriptor(("user", "a")))
        assert verdict(response) == (True, [left])
        status = response["statuses"][0]
        assert status["code"] == 1
        assert status["current_limit"] == {"requests_per_unit": 3, "unit": 4, "name": "per_user"}
        assert (
            (3 - left) * 28700 < int(status["duration_until_reset"]["seconds"]) <= (3 - left) * 28800
        ), "until it is empty"
    response = ask(grpc, descriptor(("user", "a")))
    assert verdict(response) == (False, [0])
    assert response["statuses"][0]["code"] == 2
    assert 28700 < int(response["statuses"][0]["duration_until_reset"]["seconds"]) <= 28800, "the wait"
    headers = {h["key"]: h["value"] for h in response["response_headers_to_add"]}
    assert headers["ratelimit"].startswith('"')
    assert headers["content-type"] == "application/problem+json"
    assert verdict(ask(grpc, descriptor(("user", "b")))) == (True, [2]), "another value"


def test_all_descriptors_are_one_decision(grpc):
    for _ in range(3):
        ask(grpc, descriptor(("user", "c")))
    response = ask(grpc, descriptor(("user", "c")), descriptor(("user", "d")))
    assert (response["overall_code"], [s["code"] for s in response["statuses"]]) == (2, [2, 1])
    assert verdict(ask(grpc, descriptor(("user", "d")))) == (True, [2]), "the denied request cost nothing"


def test_two_descriptors_of_one_bucket_are_charged_together(grpc):
    assert verdict(ask(grpc, descriptor(("user", "e")), descriptor(("user", "e"))))[1] == [1, 1]


def test_a_look_beside_a_charge_of_the_same_bucket_is_one_charge(grpc):
    assert verdict(ask(grpc, descriptor(("user", "e2")), descriptor(("user", "e2"), hits_addend={"value": 0})))[1] == [
        2,
        2,
    ]
    assert verdict(ask(grpc, descriptor(("user", "e2"), hits_addend={"value": 0}), descriptor(("user", "e2"))))[1] == [
        1,
        1,
    ]


def test_hits_are_those_of_the_descriptor_or_of_the_request(grpc):
    assert verdict(ask(grpc, descriptor(("user", "f")), hits_addend=2)) == (True, [1])
    assert verdict(ask(grpc, descriptor(("user", "f"), hits_addend={"value": 0}))) == (True, [1]), "0 is a look"
    assert verdict(ask(grpc, descriptor(("user", "f"), hits_addend={"value": 1}), hits_addend=9)) == (True, [0])
    assert verdict(ask(grpc, descriptor(("user", "f"), hits_addend={"value": 0}))) == (
        False,
        [0],
    ), "a look for one drop"
    back = descriptor(("user", "f"), hits_addend={"value": 2}, is_negative_hits=True)
    assert verdict(ask(grpc, back)) == (True, [2]), "given back"
    never = ask(grpc, descriptor(("user", "f"), hits_addend={"value": 2**64 - 1}))
    assert never["overall_code"] == 2 and verdict(ask(grpc, descriptor(("user", "f")))) == (True, [1])


def test_a_limit_of_envoy_replaces_that_of_the_file(grpc):
    override = descriptor(("user", "g"), limit={"requests_per_unit": 5, "unit": 2})
    response = ask(grpc, override)
    assert verdict(response) == (True, [4])
    assert response["statuses"][0]["current_limit"]["requests_per_unit"] == 5
    assert verdict(ask(grpc, descriptor(("nothing", "known"), limit={"requests_per_unit": 1, "unit": 1})))[0]
    assert ask(grpc, descriptor(("user", "h"), limit={"unit": 2}))["overall_code"] == 2, "0 requests"
    wrong = grpc(request=request(descriptor(("user", "g"), limit={"requests_per_unit": 5})))
    assert wrong["code"] == "INVALID_ARGUMENT" and "unit" in wrong["details"]


def test_zero_requests_deny_and_charge_nothing_else(grpc):
    response = ask(grpc, descriptor(("closed", "x")), descriptor(("user", "i")))
    assert [s["code"] for s in response["statuses"]] == [2, 1]
    assert verdict(ask(grpc, descriptor(("user", "i")))) == (True, [2])


def test_unlimited_and_unknown_descriptors_are_allowed(grpc):
    response = ask(grpc, descriptor(("free", "x")), descriptor(("what", "ever")))
    assert verdict(response) == (True, [2**32 - 1, 0])
    assert "current_limit" not in response["statuses"][1]
    unknown = grpc(request={"domain": "elsewhere", "descriptors": [descriptor(("user", "a"))]})
    assert unknown["response"]["overall_code"] == 1


def test_shadow_mode_denies_nothing(grpc):
    for hits in (1, 1, 0, 0, 5):
        shadow = descriptor(("shadow", "x"), hits_addend={"value": hits})
        assert ask(grpc, shadow)["overall_code"] == 1
    assert ask(grpc, descriptor(("shadow_closed", "x")))["overall_code"] == 1


def test_a_limit_with_replaces_takes_the_named_limit_out(grpc):
    response = ask(grpc, descriptor(("user", "j")), descriptor(("special", "x")))
    assert response["overall_code"] == 1
    assert verdict(ask(grpc, descriptor(("user", "j")))) == (True, [2]), "it was not charged before"


def test_limits_of_our_own_rules_count_for_descriptors(grpc):
    free = descriptor(("plan", "free"), ("user", "a"))
    assert [ask(grpc, free)["overall_code"] for _ in range(3)] == [1, 1, 2]
    look = descriptor(("model", "x"), ("user", "a"), hits_addend={"value": 0})
    charge = descriptor(("model", "x"), ("user", "a"), hits_addend={"value": 12})
    assert [ask(grpc, one)["overall_code"] for one in (look, charge, look)] == [1, 1, 2], "the cost comes afterwards"


# ---- Calls that are wrong ----


def field(number, data):
    return bytes([number << 3 | 2, len(data)]) + data


def test_wrong_calls_get_a_status_that_says_why(grpc):
    assert grpc(request={})["code"] == "INVALID_ARGUMENT"
    assert "domain" in grpc(request={"descriptors": [descriptor(("user", "a"))]})["details"]
    assert "descriptors" in grpc(request={"domain": "edge"})["details"]
    assert "entries" in grpc(request=request({}))["details"]
    assert "64" in grpc(request=request(*[descriptor(("user", "a"))] * 65))["details"]
    assert "32" in grpc(request=request(descriptor(*[("user", "a")] * 33)))["details"]
    assert grpc(hex="ff" * 20)["code"] == "INVALID_ARGUMENT"
    assert grpc(hex="")["code"] == "INVALID_ARGUMENT", "no domain"
    assert grpc(request={}, path="/envoy.service.ratelimit.v3.RateLimitService/Other")["code"] == "UNIMPLEMENTED"
    assert grpc(request={}, path="/v1/check")["code"] == "UNIMPLEMENTED"
    assert grpc(request={}, path="/grpc.health.v1.Health/Watch")["code"] == "UNIMPLEMENTED"
    long = request(descriptor(("user", "z" * 200)))
    assert grpc(request=long, compressed=True)["code"] == "UNIMPLEMENTED"
    assert grpc(request=request(descriptor(("user", "z" * 70000))))["code"] == "RESOURCE_EXHAUSTED"
    assert grpc(request=long)["code"] == "OK", "the connection is still good"


def test_unknown_fields_are_skipped(grpc):
    entry = field(1, b"user") + field(2, b"skipped") + field(9, b"new")
    message = field(1, b"edge") + field(2, field(1, entry) + field(14, b"new")) + field(15, b"new") + b"\x98\x01\x05"
    answer = grpc(hex=message.hex())
    assert verdict(answer["response"]) == (True, [2])


def test_many_streams_at_once_are_each_decided(grpc):
    answers = grpc(
        request=request(descriptor(("user", "many"), limit={"requests_per_unit": 500, "unit": 4})), times=700
    )
    assert Counter(answer["response"]["overall_code"] for answer in answers) == {1: 500, 2: 200}


def test_the_health_check_serves(grpc, served):
    assert grpc(path=CHECK, request={})["response"] == {"status": "SERVING"}
    assert grpc(path=CHECK, request={"service": "envoy.service.ratelimit.v3.RateLimitService"})["response"] == {
        "status": "SERVING"
    }


# ---- Stores ----


@pytest.mark.parametrize(
    ("policy", "code"), [("allow", "UNAVAILABLE"), ("report", "UNAVAILABLE"), ("deny", "UNAVAILABLE"), ("local", "OK")]
)
def test_a_store_that_is_down_is_unavailable_so_that_envoy_decides(tmp_path, closed_port, client_of, policy, code):
    text = f"on_error: {policy}\nstore: redis://127.0.0.1:{closed_port}\n" + RULES
    with daemon("--config", rules(tmp_path, text)) as served, client_of(served.port) as grpc:
        answer = grpc(request=request(descriptor(("user", "a"))))
        assert answer["code"] == code, answer
        assert grpc(path=CHECK, request={})["response"] == {"status": "NOT_SERVING"}


def test_a_deadline_of_the_call_is_shorter_than_that_of_the_store(tmp_path, start_redis, client_of):
    """Redis accepts, and does not answer. grpcio gives up by itself, or gets the answer of the
    daemon, which gives up at the same time: UNAVAILABLE."""
    redis = start_redis()
    with daemon(
        "--config", rules(tmp_path), "--store", redis.url, "--timeout", "1h", "--threads", 1
    ) as served, client_of(served.port) as grpc:
        assert grpc(request=request(descriptor(("user", "a"))))["code"] == "OK"
        redis.process.send_signal(signal.SIGSTOP)
        try:
            assert grpc(request=request(descriptor(("user", "a"))), timeout=0.3)["code"] in (
                "DEADLINE_EXCEEDED",
                "UNAVAILABLE",
            )
            raw = field(1, b"edge") + field(2, field(1, field(1, b"user") + field(2, b"b")))
            (tmp_path / "message").write_bytes(b"\0" + len(raw).to_bytes(4, "big") + raw)
            done = curl(
                served.port,
                "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
                "-H",
                "grpc-timeout: 50m",
                "-H",
                "content-type: application/grpc",
                "--data-binary",
                f"@{tmp_path}/message",
            )
            assert "grpc-status: 14" in done
            one = json.dumps({"rate": "5/d", "key": "late"})
            status, _, body = served.request("POST", "/v1/consume", one, {"x-steady-timeout": "50ms"})
            assert (status, json.loads(body)["source"]) == (200, "policy")
        finally:
            redis.process.send_signal(signal.SIGCONT)
        answer = grpc(request=request(descriptor(("user", "c"))))
        assert verdict(answer["response"]) == (True, [2])
        for wrong in ("5", "m", "5x", "123456789m", "-5m", ""):
            done = curl(
                served.port,
                "/grpc.health.v1.Health/Check",
                "-H",
                f"grpc-timeout: {wrong}" if wrong else "grpc-timeout;",
                "-H",
                "content-type: application/grpc",
                "--data-binary",
                f"@{tmp_path}/message",
            )
            assert "grpc-status: 3" in done, wrong


def test_calls_wait_for_a_store_and_streams_are_answered_as_it_answers(tmp_path, start_redis, client_of):
    with daemon("--config", rules(tmp_path), "--store", start_redis().url, "--timeout", "30s") as served, client_of(
        served.port
    ) as grpc:
        answers = grpc(
            request=request(descriptor(("user", "many"), limit={"requests_per_unit": 300, "unit": 4})), times=400
        )
        assert Counter(answer["response"]["overall_code"] for answer in answers) == {1: 300, 2: 100}


# ---- HTTP/2 ----


def curl(port, path, *options):
    """The answer with its fields, over HTTP/2."""
    done = subprocess.run(
        [
            "curl",
            "-sS",
            "-i",
            "--max-time",
            "60",
            "--http2-prior-knowledge",
            *options,
            f"http://127.0.0.1:{port}{path}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_routes_of_http_1_answer_over_http_2(served):
    assert curl(served.port, "/healthz").startswith("HTTP/2 200") and curl(served.port, "/healthz").endswith("ok\n")
    fields = ("-H", "x-forwarded-uri: /curl", "-H", "x-forwarded-for: 192.0.2.99")
    assert curl(served.port, "/v1/check", *fields).startswith("HTTP/2 200")
    denied = curl(served.port, "/v1/check", *fields)
    assert denied.startswith("HTTP/2 429") and "retry-after: " in denied and "violated-policies" in denied
    assert curl(served.port, "/v1/consume", "-d", '{"rate": "5/d", "key": "h2"}').startswith("HTTP/2 200")
    assert curl(served.port, "/v1/consume", "-d", "nonsense").startswith("HTTP/2 400")
    assert curl(served.port, "/v1/consume").startswith("HTTP/2 405")
    assert curl(served.port, "/nothing").startswith("HTTP/2 404")
    head = curl(served.port, "/metrics", "--head")
    assert head.startswith("HTTP/2 200") and "content-length: " in head and "steady_" not in head
    assert curl(served.port, "/v1/consume", "-d", "x" * 70000).startswith("HTTP/2 413")
    assert curl(served.port, "/healthz", "-H", "x: " + "x" * 20000).startswith("HTTP/2 431")
    assert curl(served.port, "/v1/check/403", "-d", "x" * 70000).startswith("HTTP/2 403")


# ---- POST /json ----


def post(served, document):
    code, headers, body = served.request(
        "POST", "/json", document if isinstance(document, str) else json.dumps(document)
    )
    return code, headers, json.loads(body)


def test_json_answers_like_envoyproxy_ratelimit(served):
    asked = {"domain": "edge", "descriptors": [{"entries": [{"key": "user", "value": "json"}]}]}
    for left in (2, 1, 0):
        code, headers, answer = post(served, asked)
        assert (code, headers["content-type"], answer["overallCode"]) == (200, "application/json", "OK")
        status = answer["statuses"][0]
        assert status["currentLimit"] == {"name": "per_user", "requestsPerUnit": 3, "unit": "DAY"}
        assert (status["code"], status.get("limitRemaining", 0)) == ("OK", left)
        assert status["durationUntilReset"].endswith("s") and float(status["durationUntilReset"][:-1]) > 28000
    code, _, answer = post(served, asked)
    assert (code, answer["overallCode"], answer["statuses"][0]["code"]) == (429, "OVER_LIMIT", "OVER_LIMIT")


def test_json_takes_both_spellings_of_names(served):
    entry = {"entries": [{"key": "user", "value": "spelled"}]}
    assert (
        post(served, {"domain": "edge", "descriptors": [entry], "hitsAddend": 2})[2]["statuses"][0]["limitRemaining"]
        == 1
    )
    look = {**entry, "hits_addend": "0"}
    assert post(served, {"domain": "edge", "descriptors": [look]})[2]["statuses"][0]["limitRemaining"] == 1
    override = {"entries": [{"key": "o", "value": "o"}], "limit": {"requests_per_unit": 7, "unit": "HOUR"}}
    status = post(served, {"domain": "edge", "descriptors": [override]})[2]["statuses"][0]
    assert (status["currentLimit"]["requestsPerUnit"], status["currentLimit"]["unit"]) == (7, "HOUR")
    back = {**entry, "hitsAddend": 1, "isNegativeHits": True}
    assert post(served, {"domain": "edge", "descriptors": [back]})[2]["statuses"][0]["limitRemaining"] == 2


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[]", "object"),
        ({}, "domain"),
        ({"domain": 5}, "domain"),
        ({"domain": "edge"}, "descriptors"),
        ({"domain": "edge", "descriptors": {}}, "descriptors"),
        ({"domain": "edge", "descriptors": [{}]}, "entries"),
        ({"domain": "edge", "descriptors": [5]}, "entries"),
        ({"domain": "edge", "descriptors": [{"entries": [5]}]}, "entr"),
        ({"domain": "edge", "descriptors": [{"entries": [{"key": 5}]}]}, "key"),
        ({"domain": "edge", "descriptors": [descriptor(("a", "b"), limit={"unit": "FORTNIGHT"})]}, "unit"),
        ({"domain": "edge", "descriptors": [descriptor(("a", "b"), limit=5)]}, "limit"),
        ({"domain": "edge", "descriptors": [descriptor(("a", "b"), hitsAddend=-1)]}, "hitsAddend"),
        ({"domain": "edge", "descriptors": [descriptor(("a", "b"), hitsAddend="1x")]}, "hitsAddend"),
        ({"domain": "edge", "descriptors": [descriptor(("a", "b"))] * 65}, "64"),
    ],
)
def test_wrong_json_is_400_and_says_why(served, document, why):
    code, _, answer = post(served, document)
    assert code == 400 and why in answer["title"], answer


def test_json_is_500_while_the_store_is_down(tmp_path, closed_port):
    with daemon("--config", rules(tmp_path), "--store", f"redis://127.0.0.1:{closed_port}") as served:
        assert post(served, request(descriptor(("user", "a"))))[0] == 500
