# SPDX-License-Identifier: MIT
"""The daemon from outside: forward auth, JSON, reload, the end."""
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from serve_rig import BUILD, daemon, needs_daemon, rules_file

pytestmark = needs_daemon

RULES = """
limits:
  - { name: login, match: { method: POST, path: /login }, rate: 5/d, block: 10m }
  - { name: burst, match: { path: "/api/*" }, key: header:x-api-key, rate: 3/d }
  - { name: daily, match: { path: "/api/*" }, key: header:x-api-key, rate: 5/d }
  - { name: newer, match: { path: "/api/*" }, key: ip, rate: 1/d, mode: shadow }
  - { name: named, match: { path: /never }, rate: 10/d }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with daemon("--config", rules_file(tmp_path_factory.mktemp("rules"), RULES), "--threads", 2) as running:
        yield running


# ---- Forward auth ----


def test_a_check_is_allowed_until_the_limit_then_denied_with_all_fields(served):
    for left in (4, 3, 2, 1, 0):
        status, headers, body = served.check("/login", "POST", "192.0.2.10")
        assert (status, body) == (200, b"")
        assert headers["ratelimit"].startswith(f'"login";r={left};')
    status, headers, body = served.check("/login", "POST", "192.0.2.10")
    assert status == 429
    assert headers["ratelimit-policy"] == '"login";q=5;w=86400'
    assert int(headers["retry-after"]) == 17280, "until a drop has leaked"
    assert int(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])
    assert json.loads(body)["violated-policies"] == ["login"]
    assert served.check("/login", "GET", "192.0.2.10")[0] == 200, "another method"
    assert served.check("/login", "POST", "192.0.2.11")[0] == 200, "another address"


@pytest.mark.parametrize("uri", ["/login?x=1", "/./login", "//login", "/a/../login", "/%6cogin", "/x/%2e%2e/login",
                                 "http://h/login"])
def test_another_spelling_of_a_path_passes_no_limit(served, uri):
    for _ in range(5):
        served.check("/login", "POST", "192.0.2.12")
    assert served.check(uri, "POST", "192.0.2.12")[0] == 429


def test_limits_that_match_are_one_decision(served):
    for _ in range(3):
        assert served.check("/api/a", x_api_key="k1")[0] == 200
    for _ in range(4):  # denied by burst: nothing of daily is taken
        status, headers, body = served.check("/api/a", x_api_key="k1")
        assert status == 429
        assert json.loads(body)["violated-policies"] == ["burst"]
    answer = served.json("/v1/peek", {"limit": "daily", "key": "k1"})
    assert answer["parts"][0]["level"] == 3


def test_a_shadow_limit_denies_nothing_and_is_not_told(served):
    for key in ("s1", "s2", "s3"):
        status, headers, _ = served.check("/api/a", address="192.0.2.13", x_api_key=key)
        assert status == 200
        assert "newer" not in headers["ratelimit"]
    assert served.metrics()['steady_decisions_total{limit="newer",verdict="shadow_denied"}'] >= 2


def test_a_missing_key_counts_for_the_address_and_shares_no_bucket_with_a_value(served):
    for _ in range(3):
        assert served.check("/api/a", address="192.0.2.14")[0] == 200
    assert served.check("/api/a", address="192.0.2.14")[0] == 429
    assert served.check("/api/a", address="192.0.2.15", x_api_key="192.0.2.14")[0] == 200
    assert served.check("/api/a", address="192.0.2.15", x_api_key="+192.0.2.14")[0] == 200


# ---- JSON ----


def test_parts_of_rules_and_of_the_request_are_one_decision(served):
    parts = [{"limit": "named", "key": "u1", "amount": 2}, {"rate": "3/d", "key": "u1", "name": "own"}]
    answer = served.json("/v1/consume", {"parts": parts})
    assert answer["allowed"] is True and answer["source"] == "store"
    assert [(p["name"], p["level"], p["remaining"]) for p in answer["parts"]] == [("named", 2, 8), ("own", 1, 2)]
    for _ in range(2):
        served.json("/v1/consume", {"parts": parts})
    answer = served.json("/v1/consume", {"parts": parts}, status=429)
    assert [p["allowed"] for p in answer["parts"]] == [True, False]
    assert answer["parts"][0]["level"] == 6, "denied: nothing is charged"


def test_a_reservation_is_settled(served):
    answer = served.json("/v1/reserve", {"limit": "named", "key": "r1", "amount": 8})
    assert answer["parts"][0]["level"] == 8
    settled = served.json("/v1/settle", {"reservation": answer["reservation"], "actual": 3})
    assert settled["parts"][0]["level"] == 3
    answer = served.json("/v1/reserve", {"limit": "named", "key": "r1", "amount": 1})
    settled = served.json("/v1/settle", {"reservation": answer["reservation"], "actuals": [5]})
    assert settled["parts"][0] == {"name": settled["parts"][0]["name"], "level": 8, "charged": 4}


def test_a_partial_grant_takes_what_fits(served):
    part = {"limit": "named", "key": "p1", "amount": 8}
    answer = served.json("/v1/consume", {**part, "at_least": 8})
    assert answer["parts"][0]["granted"] == 8
    answer = served.json("/v1/consume", {**part, "at_least": 2})
    assert answer["allowed"] is True and answer["parts"][0]["granted"] == 2
    assert served.json("/v1/consume", {"parts": [part], "at_least": 1}, status=429)["parts"][0]["granted"] == 0


def test_a_cost_over_the_capacity_is_422_without_retry_after(served):
    code, headers, body = served.request("POST", "/v1/consume", '{"limit": "named", "key": "x", "amount": 11}')
    assert code == 422 and "retry-after" not in headers
    assert json.loads(body)["retry_after"] is None


@pytest.mark.parametrize("body, text", [
    ("", "not JSON"),
    ("[]", "must be a JSON object"),
    ('{"limit": "named"}', "needs a key"),
    ('{"limit": "nmaed", "key": "x"}', 'no limit "nmaed"'),
    ('{"key": "x"}', "either limit"),
    ('{"limit": "named", "rate": "1/s", "key": "x"}', "either limit"),
    ('{"rate": "10", "key": "x"}', "such as 100/min"),
    ('{"limit": "named", "key": "x", "amuont": 1}', 'no member "amuont"'),
    ('{"limit": "named", "key": "x", "amount": 1.5}', "whole number"),
    ('{"limit": "named", "key": "x", "kind": "steal"}', "take, look, charge or shadow"),
    ('{"parts": []}', "1 to 64 parts"),
    ('{"limit": "named", "key": "%s"}' % ("x" * 1100), "too long"),
    ('{"limit": "named", "key": "a\\u0000b"}', "ALLOW_NUL"),
])
def test_a_bad_document_is_400_and_says_why(served, body, text):
    code, headers, answer = served.request("POST", "/v1/consume", body)
    assert code == 400 and headers["content-type"] == "application/problem+json"
    assert text in json.loads(answer)["title"]


# ---- Reload and the end ----


def test_a_reload_takes_the_new_rules_and_a_broken_file_keeps_the_old(tmp_path):
    path = rules_file(tmp_path, "limits: [{ name: a, rate: 1/d }]")
    with daemon("--config", path, "--threads", 2) as served:
        assert [served.check()[0] for _ in range(2)] == [200, 429]
        path.write_text("limits: [{ name: a, rate: 3/d }]")
        served.wait_for("the rules were reloaded: 1 limits")
        assert [served.check()[0] for _ in range(3)] == [200, 200, 429], "the bucket stays"
        path.write_text("limits: [{ name: a, rat: 3/d }]")
        found = served.wait_for(r"error: the rules were not reloaded, the old ones stay: (.*)")
        assert f"{path}:1:21: a limit has no key \"rat\"" in found[1]
        assert served.check()[0] == 429
        assert served.metrics()["steady_config_errors_total"] >= 1
        path.write_text("limits: [{ name: a, rate: 9/d }]")
        os.kill(served.process.pid, signal.SIGHUP)
        served.wait_for("the rules were reloaded: 1 limits", times=2)
        assert served.check()[0] == 200


def envoy_file(folder, name, per_day, key="rate_limit"):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(f"domain: {name}\ndescriptors:\n- {{ key: a, {key}: {{ unit: day, requests_per_unit: {per_day} }} }}\n")
    return path


def test_an_included_file_that_is_added_changed_or_removed_is_seen(tmp_path):
    path = rules_file(tmp_path, "include: ['inc/*.yaml']\nlimits: [{ name: a, rate: 1/d }]")
    envoy_file(tmp_path / "inc", "one", 1)
    with daemon("--config", path, "--threads", 2) as served:
        added = envoy_file(tmp_path / "inc", "two", 2)
        served.wait_for("the rules were reloaded: 3 limits", seconds=4)
        added.rename(added.with_name("renamed.yaml"))
        served.wait_for("the rules were reloaded: 3 limits", times=2, seconds=4)
        envoy_file(tmp_path / "inc", "renamed", 22)
        served.wait_for("the rules were reloaded: 3 limits", times=3, seconds=4)
        added.with_name("renamed.yaml").unlink()
        served.wait_for("the rules were reloaded: 2 limits", seconds=4)
        time.sleep(2.5)
        assert len([line for line in served.log if "reloaded" in line]) == 4, "unchanged files are not read again"


def test_a_correction_of_a_newly_included_file_is_seen_after_a_failed_reload(tmp_path):
    path = rules_file(tmp_path, "limits: [{ name: a, rate: 1/d }]")
    with daemon("--config", path, "--threads", 2) as served:
        envoy_file(tmp_path / "new", "one", 1, key="rate_limits")
        path.write_text("include: ['new/*.yaml']\nlimits: [{ name: a, rate: 1/d }]")
        served.wait_for(r"the old ones stay: .*new/one.yaml:3", seconds=4)
        time.sleep(2.5)
        assert len([line for line in served.log if "reloaded" in line]) == 1, "unchanged files are not read again"
        envoy_file(tmp_path / "new", "one", 1)
        served.wait_for("the rules were reloaded: 2 limits", seconds=4)


def test_the_first_file_of_a_pattern_is_seen_after_a_failed_reload(tmp_path):
    path = rules_file(tmp_path, "limits: [{ name: a, rate: 1/d }]")
    with daemon("--config", path, "--threads", 2) as served:
        path.write_text("include: ['new/*.yaml']\nlimits: [{ name: a, rate: 1/d }]")
        served.wait_for(r'the old ones stay: .*no file matches "new/\*.yaml"', seconds=4)
        envoy_file(tmp_path / "new", "one", 1)
        served.wait_for("the rules were reloaded: 2 limits", seconds=4)


def test_a_file_store_outlives_the_daemon(tmp_path):
    options = ("--limit", "2/d", "--store", f"file:{tmp_path}/buckets")
    with daemon(*options) as served:
        assert [served.check()[0] for _ in range(3)] == [200, 200, 429]
    with daemon(*options) as served:
        assert served.check()[0] == 429


def test_policies_hold_while_the_store_is_down(tmp_path, closed_port):
    rules = "on_error: %s\nlimits: [{ name: a, rate: 10/d }]"
    for policy, plain, nginx in (("allow", 200, 500), ("deny", 503, 403), ("report", 503, 403)):
        path = rules_file(tmp_path, rules % policy)
        with daemon("--config", path, "--store", f"redis://127.0.0.1:{closed_port}", "--threads", 1) as served:
            status, headers, _ = served.check()
            assert status == plain, policy
            assert "ratelimit" not in headers
            assert ("retry-after" in headers) == (plain == 503)
            assert served.check(path="/v1/check/403", x_original_uri="/")[0] == nginx, policy
            time.sleep(0.1)
            assert served.request("GET", "/readyz")[0] == 503
            assert served.request("GET", "/healthz")[0] == 200


@pytest.mark.parametrize("options, says", [
    (("--config", "/nowhere/steady.yaml"), "/nowhere/steady.yaml: No such file or directory"),
    (("--limit", "ten"), "ten"),
    (("--limit", "1/s", "--listen", "127.0.0.1:99999"), "\"127.0.0.1:99999\" is no address"),
    (("--limit", "1/s", "--listen", "nowhere"), "use host:port, [host]:port or unix:/path"),
    (("--limit", "1/s", "--admin", "192.0.2.1:1"), "loopback"),
    (("--limit", "1/s", "--listen", "127.0.0.1:0", "--admin", "unix:/nodir/a"),
     "cannot listen at /nodir/a: the directory /nodir does not exist"),
    (("--limit", "1/s", "--log", "/nowhere/log"), "the decision log /nowhere/log: No such file or directory"),
    (("--limit", "1/s", "--store", "nonsense", "--threads", "3"), "the store: "),
    (("--limit", "1/s", "--store", "redis://h:99999", "--threads", "3"), "the store: "),
    (("--limit", "1/s", "--store", "rediss://h?tls_ca=/nowhere/ca.pem", "--threads", "3"), "/nowhere/ca.pem"),
    (("--limit", "1/s", "--store", "file:/nowhere/buckets"), "the store: "),
    (("--limit", "1/s", "--threads", "9"), '--threads is "9"; it must be 1 to 8'),
    ((), "give either --config FILE or --limit RATE"),
])
def test_a_daemon_that_cannot_start_says_why_in_one_line_and_exits_2(options, says):
    done = subprocess.run([BUILD / "steady", "serve", *options], capture_output=True, text=True, timeout=60, check=False)
    lines = done.stderr.splitlines()
    assert "listening" not in done.stderr
    assert done.returncode == 2 and len(lines) == 1 and says in lines[0], done.stderr


def test_a_port_in_use_is_one_line_and_exit_2():
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        done = subprocess.run([BUILD / "steady", "serve", "--limit", "1/s", "--listen", where], capture_output=True,
                              text=True, timeout=60, check=False)
    assert done.returncode == 2 and f"cannot listen at {where}: Address already in use" in done.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_the_port_of_another_daemon_is_in_use(threads):
    """Two daemons at one port would have two buckets for each client."""
    with daemon("--limit", "1/d", "--threads", threads) as first:
        where = f"127.0.0.1:{first.port}"
        done = subprocess.run([BUILD / "steady", "serve", "--limit", "1/d", "--threads", str(threads), "--listen", where],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and f"cannot listen at {where}: Address already in use" in done.stderr
        assert [first.check()[0] for _ in range(20)] == [200] + 19 * [429]


@pytest.mark.parametrize("most", [8, 10, 12])
def test_a_daemon_without_descriptors_for_its_threads_exits_2(most):
    start = f'ulimit -n {most}; exec "$0" serve --limit 1/s --threads 2 --listen 127.0.0.1:0'
    done = subprocess.run(["bash", "-c", start, BUILD / "steady"], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 2 and "no event loop: too many open files" in done.stderr, done


def second(*options):
    return subprocess.run([BUILD / "steady", "serve", "--limit", "1/s", *options], capture_output=True, text=True,
                          timeout=60, check=False)


@pytest.mark.parametrize("first_host, second_host", [
    ("127.0.0.1", "127.0.0.1"), ("[::1]", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("[::]", "[::]")])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_second_daemon_at_an_address_is_refused(first_host, second_host, threads):
    with daemon("--limit", "1/s", "--listen", f"{first_host}:0", "--threads", threads) as first:
        done = second("--listen", f"{second_host}:{first.port}", "--threads", str(threads))
        lines = [line for line in done.stderr.splitlines() if "warning" not in line]
        assert done.returncode == 2 and len(lines) == 1, done.stderr
        assert f"cannot listen at {second_host}:{first.port}: Address already in use" in lines[0]


def test_a_daemon_starts_again_at_once_at_its_address():
    with daemon("--limit", "1/s", "--threads", 2) as first:
        with socket.create_connection(("127.0.0.1", first.port)) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            assert first.stop() == 0  # it closes first, so its end is in TIME_WAIT
            with daemon("--limit", "1/s", "--threads", 2, "--listen", f"127.0.0.1:{first.port}") as again:
                assert again.port == first.port and again.request("GET", "/healthz")[0] == 200


def switches(pid):
    """How often each thread has slept."""
    threads = Path(f"/proc/{pid}/task")
    return {thread.name: int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (thread / "status").read_text(), re.M)[1])
            for thread in threads.iterdir()}


def test_each_thread_gets_connections():
    with daemon("--limit", "1/s", "--threads", 3) as served:
        before = switches(served.process.pid)
        for _ in range(300):
            served.request("GET", "/healthz")
        after = switches(served.process.pid)
        busy = [thread for thread in after if after[thread] - before.get(thread, 0) >= 50]
        assert len(busy) == 3, (before, after)


@pytest.mark.parametrize("most, warns", [(5000, False), (1000, True)])
def test_few_connections_are_a_warning(most, warns):
    """Few descriptors are usual. They are a warning only if they are a few hundred, or a few thousand."""
    start = f'ulimit -n {most}; exec "$0" serve --limit 1/s --threads 1 --listen 127.0.0.1:0 2>&1'
    run = subprocess.Popen(["bash", "-c", start, BUILD / "steady"], stdout=subprocess.PIPE, text=True)
    said = [run.stdout.readline()]
    while said[-1] and "listening" not in said[-1]:
        said.append(run.stdout.readline())
    run.terminate()
    run.communicate(timeout=30)
    assert ("warning: at most 800 connections" in said[0]) == warns and len(said) == 1 + warns, said
