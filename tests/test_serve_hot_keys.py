# SPDX-License-Identifier: MIT
"""The memory of denials in the daemon, on a real Redis."""
import re

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


def test_a_request_with_several_limits_asks_each_time(redis_server, tmp_path):
    with daemon("--config", rules_file(tmp_path, RULES.format(url=redis_server.url)), "--threads", 1) as served:
        assert [served.check("/both", address="192.0.2.9")[0] for _ in range(6)] == [200] * 5 + [429]
        before = calls(redis_server)
        assert [served.check("/both", address="192.0.2.9")[0] for _ in range(10)] == [429] * 10
        assert calls(redis_server) - before == 10
