# SPDX-License-Identifier: MIT
"""The daemon under AddressSanitizer with UBSan, and under ThreadSanitizer: all protocols at once, a reload, and the end."""
import json
import threading

import pytest
from resp import Resp
from serve_rig import BUILD, daemon, rules_file

pytestmark = pytest.mark.sanitizers

RULES = """
limits:
  - {{ name: login, match: {{ method: POST, path: /login }}, rate: {n}/min, block: 1m }}
  - {{ name: wide, match: {{ path: "/*" }}, key: header:x-api-key+ip, rate: 1000/min }}
  - {{ name: trial, match: {{ path: "/*" }}, rate: 1/min, mode: shadow }}
"""
ENVOY = {"domain": "none", "descriptors": [{"entries": [{"key": "k", "value": "v"}]}]}
ROUNDS = 40


def ask_all(served, number):
    """Asks in each protocol. HTTP/2 is in test_serve_grpc.py."""
    redis = Resp(served.port)
    for i in range(ROUNDS):
        assert served.check("/login", "POST", f"192.0.2.{number}")[0] in (200, 429)
        assert served.check("/%2e/x//y", path="/v1/check/403")[0] in (200, 403)
        taken = served.json("/v1/reserve", {"rate": "1000/s", "key": f"k{number}", "amount": 2})
        served.json("/v1/settle", {"reservation": taken["reservation"], "actual": 1})
        served.request("POST", "/v1/consume", "{")
        served.json("/json", ENVOY)
        assert redis("CL.THROTTLE", f"c{number}", 1000, 1000, 60)[0] == 0
        if i % 10 == 0:
            served.metrics()
            served.admin("GET", "/admin/top")
            served.admin("POST", "/admin/explain", {"request": "POST /login", "ip": f"192.0.2.{number}"})
            served.admin("POST", "/admin/explain", {"domain": "none", "entries": ["k=v"]})
            served.admin("POST", "/admin/reset", {"limit": "login", "key": f"192.0.2.{number}"})
    redis.close()


@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_requests_reloads_and_the_end_have_no_report(tmp_path, redis_server, sanitizer, kind):
    if not (BUILD / sanitizer / "steadyd").exists():
        pytest.skip("the daemon is not built: scripts/setup serve")
    path = rules_file(tmp_path, RULES.format(n=5))
    store = "memory:" if kind == "memory" else redis_server.url
    options = ("--config", path, "--threads", 2, "--store", store, "--admin", "127.0.0.1:0", "--log", tmp_path / "log")
    env = {"ASAN_OPTIONS": "detect_leaks=1", "TSAN_OPTIONS": "halt_on_error=1"}
    failed = []

    def client(number):
        try:
            ask_all(served, number)
        except BaseException as error:  # a thread of a test does not fail by itself
            failed.append(error)

    with daemon(*options, env=env, build=BUILD / sanitizer) as served:
        clients = [threading.Thread(target=client, args=(number,)) for number in (1, 2)]
        for thread in clients:
            thread.start()
        path.write_text(RULES.format(n=6))
        served.wait_for("the rules were reloaded")
        served.admin("POST", "/admin/reload")
        for thread in clients:
            thread.join()
    assert not failed, failed
    assert "Sanitizer" not in "\n".join(served.log) and "runtime error" not in "\n".join(served.log)
    assert all(json.loads(line)["parts"] for line in (tmp_path / "log").read_text().splitlines())
