# SPDX-License-Identifier: MIT
"""The memory of denials and the leases of the daemon, on a real Redis."""
import contextlib
import json
import re

from resp import Resp
from serve_rig import daemon, needs_daemon, rules_file

pytestmark = needs_daemon

RULES = """
store: "{url}?deny_memory=1s"
limits:
  - {{ name: login, match: {{ path: /login }}, key: ip, rate: 5/min }}
  - {{ name: all, match: {{ path: "/both" }}, key: ip, rate: 5/min }}
  - {{ name: both, match: {{ path: "/both" }}, key: ip, rate: 100/min }}
"""


def calls(server):
    found = re.search(rb"cmdstat_evalsha:calls=(\d+)", server("INFO", "COMMANDSTATS"))
    return int(found[1]) if found else 0


def test_a_client_over_its_limit_costs_no_call_to_redis(redis_server, tmp_path):
    with daemon("--config", rules_file(tmp_path, RULES.format(url=redis_server.url)), "--threads", 2) as served:
        assert [served.check("/login", address="192.0.2.1")[0] for _ in range(6)] == [200] * 5 + [429]
        before = calls(redis_server)
        for _ in range(100):
            status, headers, body = served.check("/login", address="192.0.2.1")
            assert (status, b"login" in body) == (429, True)
            assert 1 <= int(headers["retry-after"]) <= 13
            assert headers["ratelimit"].startswith('"login";r=0;t=') and headers["ratelimit-policy"] == '"login";q=5;w=60'
        assert calls(redis_server) - before <= 3, "one for each deny_memory"
        answer = served.json("/v1/consume", {"limit": "login", "key": "192.0.2.1"}, status=429)
        assert (answer["source"], answer["parts"][0]["level"]) == ("memory", 5)
        assert served.check("/login", address="192.0.2.2")[0] == 200
        metrics = served.request("GET", "/metrics")[2].decode()
        assert int(re.search(r"^steady_store_from_memory_total (\d+)", metrics, re.M)[1]) >= 98
        assert re.search(r'^steady_decisions_total{limit="login",verdict="denied"} (\d+)', metrics, re.M)[1] == "102"


def test_the_threads_of_the_daemon_share_one_memory(redis_server, tmp_path):
    rules = RULES.replace("1s", "60s").replace("5/min", "5/hour").format(url=redis_server.url)
    with daemon("--config", rules_file(tmp_path, rules), "--threads", 4) as served:
        assert [served.check("/login", address="192.0.2.1")[0] for _ in range(6)] == [200] * 5 + [429]
        before = calls(redis_server)
        assert [served.check("/login", address="192.0.2.1")[0] for _ in range(64)] == [429] * 64  # each on a new connection
        assert calls(redis_server) == before


SEVERAL = """
store: "{url}?deny_memory=60s"
limits:
  - {{ name: burst, match: {{ path: "/*" }}, key: ip, rate: 100/min }}
  - {{ name: daily, match: {{ path: "/*" }}, key: ip, rate: 5/d }}
  - {{ name: locked, match: {{ path: "/locked" }}, key: ip, rate: 100/min, block: 1m }}
  - {{ name: dark, match: {{ path: "/*" }}, key: ip, rate: 1/d, mode: shadow }}
include: [ envoy.yaml ]
"""
ENVOY = """
domain: edge
descriptors:
  - key: user
    rate_limit: { name: per_user, unit: day, requests_per_unit: 3 }
  - key: tenant
    rate_limit: { name: per_tenant, unit: day, requests_per_unit: 100 }
"""


@contextlib.contextmanager
def with_several_limits(redis_server, tmp_path, *options):
    rules_file(tmp_path, ENVOY, "envoy.yaml")
    with daemon("--config", rules_file(tmp_path, SEVERAL.format(url=redis_server.url)), "--threads", 2, *options) as served:
        yield served


def test_a_request_with_several_limits_is_denied_by_the_one_that_is_known_to_be_full(redis_server, tmp_path):
    with with_several_limits(redis_server, tmp_path, "--log", tmp_path / "log") as served:
        assert [served.check("/a", address="192.0.2.9")[0] for _ in range(6)] == [200] * 5 + [429]
        before, counted = calls(redis_server), served.metrics()
        for _ in range(10):
            status, headers, body = served.check("/b", address="192.0.2.9")
            assert status == 429 and int(headers["retry-after"]) > 10000
            assert headers["ratelimit"].startswith('"daily";r=0;t=') and "burst" not in headers["ratelimit"]
            assert headers["ratelimit-policy"] == '"burst";q=100;w=60, "daily";q=5;w=86400'
            assert b"daily" in body and b"burst" not in body
        assert calls(redis_server) == before
        after = served.metrics()
        told = {name: after[f'steady_decisions_total{{limit="{name}",verdict="denied"}}'] -
                counted[f'steady_decisions_total{{limit="{name}",verdict="denied"}}'] for name in ("burst", "daily")}
        assert told == {"burst": 0, "daily": 10}
        assert after['steady_decisions_total{limit="dark",verdict="shadow_denied"}'] == 4, "not asked, so not counted"
        assert served.check("/b", address="192.0.2.10")[0] == 200
    line = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()][-2]
    assert (line["allowed"], line["source"]) == (False, "memory")
    assert [(part["limit"], part.get("allowed"), part.get("level")) for part in line["parts"]] == [
        ("burst", None, None), ("daily", False, 5), ("dark", None, None)]


def test_a_limit_with_a_block_beside_it_is_asked_each_time(redis_server, tmp_path):
    with with_several_limits(redis_server, tmp_path) as served:
        assert [served.check("/locked", address="192.0.2.9")[0] for _ in range(6)] == [200] * 5 + [429]
        before = calls(redis_server)
        assert [served.check("/locked", address="192.0.2.9")[0] for _ in range(5)] == [429] * 5
        assert calls(redis_server) == before + 5


def test_json_shows_null_for_a_limit_that_was_not_asked(redis_server, tmp_path):
    with with_several_limits(redis_server, tmp_path) as served:
        asked = {"parts": [{"limit": "burst", "key": "k"}, {"limit": "daily", "key": "k"}]}
        for _ in range(5):
            served.json("/v1/consume", asked)
        answer = served.json("/v1/consume", asked, status=429)
        assert answer["source"] == "memory" and answer["retry_after"] > 10000
        burst, daily = answer["parts"]
        assert burst == {"name": "burst", "allowed": None, "capacity": 100, "level": None, "remaining": None, "granted": 0,
                         "until_next_drop": None, "blocked_for": None, "retry_after": None}
        assert (daily["allowed"], daily["level"], daily["remaining"]) == (False, 5, 0)
        assert daily["retry_after"] == answer["retry_after"]


def test_envoy_gets_the_state_of_the_descriptor_that_denies(redis_server, tmp_path):
    with with_several_limits(redis_server, tmp_path) as served:
        entries = [{"entries": [{"key": key, "value": "x"}]} for key in ("tenant", "user")]
        asked = {"domain": "edge", "descriptors": entries}
        answers = [served.json("/json", asked, status=None) for _ in range(4)]
        assert [answer["overallCode"] for answer in answers] == ["OK"] * 3 + ["OVER_LIMIT"]
        assert answers[2]["statuses"][0]["limitRemaining"] == 97
        tenant, user = answers[3]["statuses"]
        assert tenant == {"code": "OK", "limitRemaining": 0}, "without a limit"
        assert (user["code"], user["currentLimit"]["name"]) == ("OVER_LIMIT", "per_user")
        assert float(user["durationUntilReset"][:-1]) > 10000


def test_the_protocol_of_redis_has_only_zeros_for_a_bucket_that_was_not_asked(redis_server, tmp_path):
    with with_several_limits(redis_server, tmp_path) as served:
        ask = Resp(served.port)
        words = "STEADY.CONSUMEALL 2 {k}a {k}b PART 100 60000000 PART 3 3600000000".split()
        answers = [ask(*words) for _ in range(4)]
        assert [answer[0] for answer in answers] == [1, 1, 1, 0]
        answer = answers[3]
        assert answer[1] == 1 and answer[3] > 10**9
        assert answer[5:11] == [0] * 6
        assert answer[11:14] == [0, 0, 3] and answer[16] == answer[3]
        before = calls(redis_server)
        throttled = [ask("CL.THROTTLE", "t", 1, 1, 3600) for _ in range(4)]
        assert [answer[0] for answer in throttled] == [0, 0, 1, 1]
        assert throttled[3][1:3] == [2, 0] and throttled[3][3] > 3000
        assert calls(redis_server) == before + 2
        ask.close()


# ---- Leases ----

LEASED = """
store: "{url}?lease_age={age}"
limits:
  - {{ name: hot, match: {{ path: /hot }}, key: ip, rate: 320/d }}
  - {{ name: shadowed, match: {{ path: /shadowed }}, key: ip, rate: 320/d, mode: shadow }}
  - {{ name: strict, match: {{ path: /strict }}, key: ip, rate: 320/d, block: 1h }}
"""


def leased(redis_server, tmp_path, age="60s", *options):
    return daemon("--config", rules_file(tmp_path, LEASED.format(url=redis_server.url, age=age)), "--threads", 1, *options)


def test_a_hot_key_costs_few_calls_to_redis(redis_server, tmp_path):
    with leased(redis_server, tmp_path) as served:
        before = calls(redis_server)
        answers = [served.check("/hot", address="192.0.2.1") for _ in range(321)]
        assert [status for status, _, _ in answers] == [200] * 320 + [429]
        assert calls(redis_server) - before <= 40, "at most 20 drops a lease"
        levels = [int(re.fullmatch(r'"hot";r=(\d+);t=\d+', headers["ratelimit"])[1]) for _, headers, _ in answers]
        assert levels == sorted(levels, reverse=True) and levels[-1] == 0, "the level after the last take"
        assert {headers["ratelimit-policy"] for _, headers, _ in answers} == {'"hot";q=320;w=86400'}
        metrics = served.metrics()
        assert metrics["steady_store_from_lease_total"] >= 280 and metrics["steady_store_decisions_total"] == 321
        assert metrics['steady_decisions_total{limit="hot",verdict="allowed"}'] == 320


def test_an_answer_from_a_lease_says_so(redis_server, tmp_path):
    with leased(redis_server, tmp_path, "60s", "--log", tmp_path / "log") as served:
        asked = [served.json("/v1/consume", {"limit": "hot", "key": "192.0.2.1"}, status=None) for _ in range(330)]
        allowed = next(answer for answer in asked if answer["source"] == "lease")
        denied = asked[-1]
        assert (allowed["allowed"], allowed["parts"][0]["granted"], allowed["retry_after"]) == (True, 1, 0)
        assert (denied["allowed"], denied["source"], denied["parts"][0]["level"]) == (False, "lease", 320)
        assert 0 < denied["retry_after"] <= 60
        status, headers, body = served.check("/hot", address="192.0.2.1")
        assert status == 429 and b'"hot"' in body and headers["content-type"] == "application/problem+json"
        assert 1 <= int(headers["retry-after"]) <= 60
        assert headers["ratelimit"] == f'"hot";r=0;t={headers["retry-after"]}'
        assert headers["ratelimit-policy"] == '"hot";q=320;w=86400'
        assert 1 <= int(headers["retry-after-ms"]) <= 60000
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line.get("source", "store") for line in lines[:-1]] == [answer["source"] for answer in asked]
    assert (lines[-1]["allowed"], lines[-1]["source"], lines[-1]["parts"][0]["level"]) == (False, "lease", 320)


def test_a_daemon_that_ends_returns_its_leases(redis_server, tmp_path):
    with leased(redis_server, tmp_path) as served:
        assert [served.check("/hot", address="192.0.2.1")[0] for _ in range(100)] == [200] * 100
    with daemon("--config", rules_file(tmp_path, LEASED.format(url=redis_server.url, age="0"))) as served:
        assert served.json("/v1/peek", {"limit": "hot", "key": "192.0.2.1"})["parts"][0]["level"] == 100


def test_shadow_limits_and_limits_with_a_block_use_no_lease(redis_server, tmp_path):
    with leased(redis_server, tmp_path) as served:
        for path in ("/shadowed", "/strict"):
            before = calls(redis_server)
            assert [served.check(path, address="192.0.2.1")[0] for _ in range(50)] == [200] * 50
            assert calls(redis_server) - before == 50
        assert served.metrics()["steady_store_from_lease_total"] == 0


def test_an_explanation_asks_the_server(redis_server, tmp_path):
    with leased(redis_server, tmp_path, "60s", "--admin", "127.0.0.1:0") as served:
        answers = [served.json("/v1/consume", {"limit": "hot", "key": "192.0.2.1"}) for _ in range(100)]
        assert answers[-1]["source"] == "lease"
        explained = served.admin("POST", "/admin/explain", {"request": "GET /hot", "ip": "192.0.2.1"})
        assert explained["answer"]["source"] == "store"
        assert explained["limits"][0]["level"] == answers[-1]["parts"][0]["level"], "a lease is in the bucket"


def test_a_reset_through_the_daemon_ends_the_lease(redis_server, tmp_path):
    with leased(redis_server, tmp_path, "60s", "--admin", "127.0.0.1:0") as served:
        while served.json("/v1/consume", {"limit": "hot", "key": "192.0.2.1"}, status=None)["source"] != "lease":
            pass
        while served.check("/hot", address="192.0.2.1")[0] == 200:
            pass
        served.admin("POST", "/admin/reset", {"limit": "hot", "key": "192.0.2.1"})
        assert served.check("/hot", address="192.0.2.1")[0] == 200


def test_a_ban_of_a_hot_key_is_told_as_such(redis_server, tmp_path):
    with leased(redis_server, tmp_path, "60s", "--admin", "127.0.0.1:0") as served:
        assert [served.check("/hot", address="192.0.2.1")[0] for _ in range(100)] == [200] * 100
        served.admin("POST", "/admin/ban", {"limit": "hot", "key": "192.0.2.1", "for": 600})
        for _ in range(50):
            answer = served.json("/v1/consume", {"limit": "hot", "key": "192.0.2.1"}, status=429)
            assert answer["source"] in ("store", "memory") and 590 < answer["parts"][0]["blocked_for"] <= 600
