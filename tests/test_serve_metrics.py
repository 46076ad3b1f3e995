# SPDX-License-Identifier: MIT
"""The metrics of the daemon, read by Prometheus' own parser, and the Grafana dashboard that uses them."""
import json
import re
import sys
import time

import pytest
from conftest import ROOT
from resp import Resp
from serve_rig import daemon, needs_daemon, rules_file

pytestmark = needs_daemon

KEY = "user:secret-key"
RULES = """
limits:
  - { name: login, match: { method: POST, path: /login }, rate: 5/d }
  - { name: quiet, match: { path: /quiet }, rate: 1/d, mode: shadow }
"""
COUNTERS = {"steady_decisions", "steady_answers", "steady_near_limit", "steady_bad_requests", "steady_config_errors",
            "steady_log_dropped", *(f"steady_store_{name}" for name in (
                "decisions", "unavailable", "unknown", "timeouts", "from_memory", "from_lease", "reconnects", "overflowed", "clock_steps"))}
GAUGES = {"steady_store_ready", "steady_connections", "steady_config_loaded_timestamp_seconds"}


@pytest.fixture(scope="module")
def parse(from_pypi):
    sys.path.append(str(from_pypi("prometheus_client==0.26.0")))
    from prometheus_client.parser import text_string_to_metric_families

    return lambda served: {family.name: family for family in
                           text_string_to_metric_families(served.request("GET", "/metrics")[2].decode())}


@pytest.fixture
def served(tmp_path):
    with daemon("--config", rules_file(tmp_path, RULES), "--threads", 2, "--admin", "127.0.0.1:0") as running:
        yield running


def values(family, **labels):
    """{labels without these: value} of the samples that have these labels."""
    return {tuple(v for k, v in sample.labels.items() if k not in labels): sample.value for sample in family.samples
            if labels.items() <= sample.labels.items()}


def test_names_types_and_help(served, parse):
    families = parse(served)
    assert set(families) == COUNTERS | GAUGES | {"steady_decision_seconds"}
    for name, family in families.items():
        kind = "counter" if name in COUNTERS else "gauge" if name in GAUGES else "histogram"
        assert (family.type, family.documentation.endswith(".")) == (kind, True), name
    status, headers, _ = served.request("GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_each_verdict_is_counted_and_a_key_is_no_label(served, parse):
    for _ in range(7):
        served.check("/login", "POST", "192.0.2.77")
    for _ in range(3):
        served.check("/quiet", address="192.0.2.77")
    served.json("/v1/consume", {"rate": "1/d", "key": KEY, "name": "own"})
    served.json("/v1/consume", {"rate": "1/d", "key": KEY, "name": "own"}, status=429)
    served.json("/v1/peek", {"limit": "login", "key": KEY})
    served.request("POST", "/v1/consume", "{")
    families = parse(served)
    decisions = families["steady_decisions"]
    assert values(decisions, limit="login") == {("allowed",): 5, ("denied",): 2, ("shadow_denied",): 0, ("none",): 0}
    assert values(decisions, limit="quiet") == {("allowed",): 1, ("denied",): 0, ("shadow_denied",): 2, ("none",): 0}
    assert values(decisions, limit="") == {("allowed",): 1, ("denied",): 1, ("shadow_denied",): 0, ("none",): 0}
    assert values(families["steady_answers"]) == {("allowed",): 9, ("denied",): 3, ("none",): 0}
    assert values(families["steady_near_limit"], limit="login") == {(): 4}, "4 of 5, 5 of 5, and two denials"
    assert values(families["steady_bad_requests"]) == {(): 1}
    assert values(families["steady_store_ready"]) == {(): 1}
    text = served.request("GET", "/metrics")[2]
    assert KEY.encode() not in text and b"192.0.2" not in text and b'"own"' not in text
    assert {name for family in families.values() for sample in family.samples for name in sample.labels} \
        == {"limit", "verdict", "protocol", "le"}


def test_the_counter_of_a_limit_outlives_its_removal_and_counts_on(tmp_path, parse):
    path = rules_file(tmp_path, "limits: [{ name: a, rate: 5/d }, { name: b, rate: 5/d }]")
    with daemon("--config", path, "--threads", 2, "--admin", "127.0.0.1:0") as running:
        running.check()
        path.write_text("limits: [{ name: b, rate: 5/d }]")
        running.admin("POST", "/admin/reload")
        counted = [values(parse(running)["steady_decisions"], limit="a", verdict="allowed")]
        path.write_text("limits: [{ name: a, rate: 5/d }, { name: b, rate: 5/d }]")
        running.admin("POST", "/admin/reload")
        time.sleep(0.2)  # each thread takes the rules by itself
        for _ in range(4):
            running.check()
            counted.append(values(parse(running)["steady_decisions"], limit="a", verdict="allowed"))
    found = [sample[()] for sample in counted]
    assert found[0] == 1 and found == sorted(found) and found[-1] > 1


def test_the_histogram_grows_to_its_count(served, parse):
    for _ in range(20):
        served.check("/login", "POST")
    samples = parse(served)["steady_decision_seconds"].samples
    steps = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert steps == sorted(steps) and steps[-1] == 20
    assert [float(sample.labels["le"]) for sample in samples if sample.name.endswith("_bucket")][-2:] == [1, float("inf")]
    assert {sample.name: sample.value for sample in samples}["steady_decision_seconds_count"] == 20
    assert {sample.name: sample.value for sample in samples}["steady_decision_seconds_sum"] > 0


def test_connections_are_counted_by_protocol(served, parse):
    client = Resp(served.port)
    assert client("PING") == b"PONG"
    assert values(parse(served)["steady_connections"])[("resp",)] == 1
    client.close()


def test_no_verdict_is_counted(tmp_path, closed_port, parse):
    path = rules_file(tmp_path, "on_error: deny\nlimits: [{ name: a, rate: 1/d }]")
    with daemon("--config", path, "--store", f"redis://127.0.0.1:{closed_port}", "--threads", 2) as served:
        assert served.check()[0] == 503
        families = parse(served)
        assert values(families["steady_decisions"], limit="a")[("none",)] == 1
        assert values(families["steady_answers"]) == {("allowed",): 0, ("denied",): 0, ("none",): 1}
        assert values(families["steady_store_ready"]) == {(): 0}
        assert values(families["steady_store_unavailable"]) == {(): 1}


def test_the_grafana_dashboard_names_metrics_and_labels_that_exist(served, parse):
    document = json.loads((ROOT / "examples" / "grafana.json").read_text())
    expressions = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    variables = [variable["query"]["query"] for variable in document["templating"]["list"] if variable["type"] == "query"]
    exist = {sample.name for family in parse(served).values() for sample in family.samples}
    used = {name for text in expressions + variables for name in re.findall(r"\bsteady_\w+", text)}
    assert used <= exist
    assert {name for name in exist if not name.startswith("steady_decision_seconds")} <= used, "each metric is shown"
    assert set(re.findall(r'verdict="(\w+)"', " ".join(expressions))) == {"allowed", "denied", "shadow_denied", "none"}
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    taken = [(x, y) for panel in document["panels"] for p in [panel["gridPos"]]
             for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(taken) == len(set(taken)) and max(x for x, _ in taken) == 23, "no panel lies on another"
