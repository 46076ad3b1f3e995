# SPDX-License-Identifier: MIT
"""`steady admin explain` and `steady check --json`: what the daemon would answer, and why. It only looks."""
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time

import pytest
from conftest import ROOT
from resp import Redis
from serve_rig import BUILD, daemon, needs_daemon, rules_file
from test_serve_docs import matches, rows, shown, words

pytestmark = needs_daemon

RULES = """
on_error: ON_ERROR
trusted: [127.0.0.0/8, 10.0.0.0/8]
exempt: { ip: 198.51.100.0/24 }
include: shop.yaml
limits:
  - { name: login, match: { method: POST, path: /login }, rate: 5/h, burst: 10 }
  - { name: strict, match: { path: /strict }, rate: 1/h, block: 2h }
  - { name: both, match: { path: /strict }, rate: 9/h }
  - { name: quiet, match: { path: [/login, /quiet] }, rate: 1/h, mode: shadow }
  - { name: plan, match: { path: "/api/*" }, key: header:x-api-key, rate: 2/h,
      tiers: { header: x-plan, trusted_header: true, pro: 50/h } }
  - { name: line, match: { path: /line }, rate: 1/h, max_ahead: 9h }
  - { name: cost, match: { path: /cost }, key: header:x-api-key, rate: 10/h, missing: refuse,
      cost: { header: x-cost, trusted_header: true } }
  - { name: tokens, match: { path: /chat }, rate: 1/h, cost: after }
  - { name: user, key: descriptor:user, rate: 3/h }
"""
SHOP = """
domain: shop
descriptors:
  - { key: path, value: /checkout, rate_limit: { unit: hour, requests_per_unit: 2 } }
  - { key: never, rate_limit: { unit: hour, requests_per_unit: 0 } }
  - { key: free, rate_limit: { unlimited: true } }
  - { key: soft, rate_limit: { unit: hour, requests_per_unit: 1 }, shadow_mode: true }
"""


def rules(folder, on_error="allow"):
    rules_file(folder, SHOP, "shop.yaml")
    return rules_file(folder, RULES.replace("ON_ERROR", on_error))


@pytest.fixture(params=["memory", "redis"])
def served(request, tmp_path):
    store = Redis(tmp_path) if request.param == "redis" else None
    options = ("--store", store.url, "--timeout", "20s") if store else ()
    with daemon("--config", rules(tmp_path), "--threads", 1, "--admin", "127.0.0.1:0", "--log", tmp_path / "log",
                *options) as running:
        yield running
    if store:
        store.stop()


def explain(served, request=None, **more):
    return served.admin("POST", "/admin/explain", {**({"request": request} if request else {}), **more})


def steady(*words, **env):
    return subprocess.run([BUILD / "steady", *map(str, words)], capture_output=True, text=True, timeout=30, check=False,
                          env={**os.environ, **env})


def limit_of(document, name):
    return next(limit for limit in document["limits"] if limit["name"] == name)


# ---- The answer ----


@pytest.mark.parametrize("method, path, times, headers, says", [
    ("POST", "/login", 11, {}, {
        0: "level 0 of 10, 1 more fits: 9 remain; one drop leaks each 720 s: empty in 720 s",
        7: "level 7 of 10, 1 more fits: 2 remain; one drop leaks each 720 s, the next in 7",
        10: "level 10 + 1 > 10: denied; one drop leaks each 720 s, the next in 7"}),
    ("GET", "/strict", 3, {}, {1: "level 1 + 1 > 1: denied, and a block starts", 2: "the key is blocked: retry after 7"}),
    ("GET", "/quiet", 2, {}, {0: "level 0 of 1, 1 more fits: 0 remain", 1: "level 1 + 1 > 1: it would deny; one drop"}),
    ("GET", "/api/x", 3, {"X-Api-Key": "k"}, {2: "level 2 + 1 > 2: denied"}),
    ("GET", "/api/x", 3, {"X-Api-Key": "k", "X-Plan": "pro"}, {2: "level 2 of 50, 1 more fits: 47 remain"}),
    ("GET", "/cost", 3, {"X-Api-Key": "k", "X-Cost": "4"}, {1: "level 4 of 10, 4 more fit: 2 remain",
                                                            2: "level 8 + 4 > 10: denied"}),
    ("GET", "/cost", 1, {"X-Api-Key": "k", "X-Cost": "11"}, {0: "a cost of 11 never fits into 10"}),
    ("GET", "/chat", 2, {}, {1: "level 0 of 1, 1 more fits, and the cost comes after; one drop leaks each 3600 s"}),
    ("GET", "/cost", 1, {}, {}),  # refused
    ("GET", "/none", 1, {}, {}),
])
def test_an_explanation_says_what_the_next_request_is_answered(served, method, path, times, headers, says):
    for n in range(times):
        asked = {"ip": "127.0.0.1", "headers": [f"{name}: {value}" for name, value in
                                                {**headers, "X-Forwarded-For": "192.0.2.1"}.items()]}
        document = explain(served, f"{method} {path}", **asked)
        again = explain(served, f"{method} {path}", **asked)
        assert [limit["level"] for limit in again["limits"]] == [limit["level"] for limit in document["limits"]]
        status, fields, _ = served.check(path, method, **{k.replace("-", "_"): v for k, v in headers.items()})
        answer = document["answer"]
        assert answer["status"] == status and answer["allowed"] == (status == 200)
        for name in ("ratelimit-policy", "retry-after", "ratelimit"):
            said, sent = answer["fields"].get(name), fields.get(name)
            assert (said is None) == (sent is None)
            assert said is None or said.split(";t=")[0][:-2] == sent.split(";t=")[0][:-2], "but for a passing second"
        if n in says:
            assert document["limits"][0]["says"].startswith(says[n]) or limit_of(document, "quiet")["says"].startswith(
                says[n]), document
    assert document["client"]["address"] == "192.0.2.1"


def test_an_explanation_is_in_no_metric_and_no_log(served, tmp_path):
    for _ in range(3):
        explain(served, "POST /login", ip="192.0.2.1")
    metrics = served.metrics()
    assert sum(v for name, v in metrics.items() if name.startswith(("steady_decisions_total", "steady_answers"))) == 0
    assert metrics["steady_decision_seconds_count"] == 0
    served.stop()
    assert (tmp_path / "log").read_text() == ""


def test_a_request_that_would_wait_in_line_is_held_so_long(served):
    assert served.check("/line")[0] == 200
    document = explain(served, "GET /line", ip="192.0.2.1")
    assert document["limits"][0]["says"].startswith("level 1 + 1 > 1: it waits in line; one drop leaks each 3600 s")
    assert document["answer"]["status"] == 200 and 3590 < document["answer"]["wait"] <= 3600


def test_a_limit_that_another_one_keeps_from_counting_says_so(served):
    assert served.check("/strict")[0] == 200
    document = explain(served, "GET /strict", ip="192.0.2.1")
    both = limit_of(document, "both")
    assert both["says"].startswith("level 1 of 9, 1 more fits, but another limit denies; one drop leaks each 400 s")
    assert (both["allowed"], both["level"], both["remaining"], both["retry_after"]) == (True, 1, 8, 0)
    assert limit_of(document, "strict")["retry_after"] == document["answer"]["retry_after"] == 7200


def test_exempt_refused_and_other_requests_need_no_store(served):
    exempt = explain(served, "POST /login", ip="198.51.100.1")
    assert (exempt["outcome"], exempt["limits"], exempt["others"]) == ("exempt", [], [])
    assert exempt["answer"] == {"allowed": True, "status": 200, "fields": {}}
    refused = explain(served, "GET /cost", ip="192.0.2.1")
    assert (refused["outcome"], refused["reason"]) == ("refused", "the request has no key for the limit cost")
    assert refused["answer"]["status"] == 400
    nothing = explain(served, "GET /", ip="192.0.2.1")
    assert nothing["outcome"] == "no limit" and nothing["answer"]["status"] == 200
    assert {"name": "tokens", "why": "path is not /chat"}.items() <= next(
        other for other in nothing["others"] if other["name"] == "tokens").items()


@pytest.mark.parametrize("key, value, codes", [
    ("path", "/checkout", ["OK", "OK", "OVER_LIMIT"]), ("never", "x", ["OVER_LIMIT"]), ("free", "x", ["OK"]),
    ("soft", "x", ["OK", "OK"]), ("user", "u", ["OK", "OK", "OK", "OVER_LIMIT"]), ("other", "x", ["OK"])])
def test_a_descriptor_is_explained_as_it_is_answered(served, key, value, codes):
    for code in codes:
        document = explain(served, domain="shop", entries=[f"{key}={value}"])
        assert document["answer"]["code"] == code, document
        asked = {"domain": "shop", "descriptors": [{"entries": [{"key": key, "value": value}]}]}
        assert json.loads(served.request("POST", "/json", json.dumps(asked))[2])["overallCode"] == code


# ---- The client ----


@pytest.mark.parametrize("ip, forwarded, address, text", [
    ("10.0.0.1", "192.0.2.1", "192.0.2.1", "client 192.0.2.1, of X-Forwarded-For: the peer 10.0.0.1 is trusted"),
    ("10.0.0.1", "192.0.2.9, 192.0.2.1, 10.0.0.2", "192.0.2.1", "client 192.0.2.1, of X-Forwarded-For: the peer"),
    ("203.0.113.5", "192.0.2.1", "203.0.113.5", "does not count, because the peer is not trusted"),
    ("10.0.0.1", "unknown", "10.0.0.1", "client 10.0.0.1, the peer: X-Forwarded-For names no other client"),
    (None, "192.0.2.1", "192.0.2.1", "without --ip the peer counts as a trusted proxy"),
    ("2001:db8::1", None, "2001:db8::1", None),
    (None, None, None, "The address is not known; add --ip ADDRESS."),
])
def test_the_client_is_found_as_the_daemon_finds_it(tmp_path, ip, forwarded, address, text):
    path = rules(tmp_path)
    options = ["--request", "POST /login", *(["--ip", ip] if ip else []),
               *(["--header", f"X-Forwarded-For: {forwarded}"] if forwarded else [])]
    out = steady("check", path, *options).stdout
    document = json.loads(steady("check", path, *options, "--json").stdout)["explained"]
    assert document["client"]["address"] == address
    network = "2001:db8::/64" if address and ":" in address else address or "unknown"
    assert limit_of(document, "login")["key"] == network and f"key {network}, stored as" in out
    assert ("client" in out or "The address" in out) == (text is not None) and (text or "") in out


# ---- The two commands have one document ----


@pytest.mark.parametrize("asked", [
    {"request": "POST /login?x=1", "ip": "192.0.2.1"},
    {"request": "GET /api/%e9", "headers": ["X-Api-Key: k+1", "X-Plan: pro", "Host: a.example"]},
    {"request": "GET /cost", "host": "h", "ip": "10.0.0.1", "headers": ["X-Forwarded-For: 192.0.2.1"]},
    {"request": "GET /", "ip": "198.51.100.1"},
    {"domain": "shop", "entries": ["path=/checkout"]},
    {"domain": "shop", "entries": ["never=1"]},
    {"domain": "shop", "entries": ["free=1"]},
])
def test_check_and_explain_have_one_document(tmp_path, asked):
    path = rules(tmp_path)
    options = []
    for member, value in asked.items():
        option = {"headers": "header", "entries": "entry"}.get(member, member)
        for one in value if isinstance(value, list) else [value]:
            options += [f"--{option}", one]
    checked = json.loads(steady("check", path, *options, "--json").stdout)
    assert (checked["right"], checked["error"], checked["limits"], checked["domains"]) == (True, None, 12, 1)
    with daemon("--config", path, "--threads", 1, "--admin", "127.0.0.1:0") as served:
        where = f"http://127.0.0.1:{served.admin_port}/#token={served.token}"
        run = steady("admin", "explain", *options, "--json", STEADY_ADMIN=where)
        assert (run.returncode, run.stderr) == (0, "")
        document = json.loads(run.stdout)
        assert document == explain(served, **asked)
        text = steady("admin", "--admin", where, "explain", *options).stdout
        assert document.pop("answer") and "\nanswer: " in text
        state = {"allowed", "level", "remaining", "until_next_drop", "blocked_for", "retry_after", "empty_in", "says"}
        for limit in document["limits"]:
            assert state <= set(limit) or "key" not in limit
            assert limit.get("says", "") in text
            for member in state & set(limit):
                del limit[member]
        assert document == checked["explained"]
        said = steady("check", path, *options).stdout.splitlines()
        assert [line for line in said if line not in text.splitlines()] == []


def test_check_as_json_tells_warnings_and_mistakes(tmp_path):
    path = rules_file(tmp_path, "limits: [{ name: a, rate: 1/s, cost: header:x }]")
    run = steady("check", path, "--json")
    document = json.loads(run.stdout)
    assert (run.returncode, run.stderr, document["explained"]) == (0, "", None)
    assert len(document["warnings"]) == 1 and f"{path}:1:" in document["warnings"][0]
    path = rules_file(tmp_path, "limits: [{ name: a, rat: 1/s }]")
    run = steady("check", "--json", path)
    document = json.loads(run.stdout)
    assert (run.returncode, run.stderr, document["right"]) == (2, "", False)
    assert document["error"].startswith(f"{path}:1:21: ")


def test_a_key_writes_no_code_to_the_terminal(tmp_path):
    path = rules_file(tmp_path, "limits: [{ name: a, rate: 1/s, key: query:q }]")
    out = subprocess.run([BUILD / "steady", "check", path, "--request", "GET /?q=%1b]0;x%07%c2%9b1m%e9%41"], check=True,
                         capture_output=True).stdout
    assert b"key ?]0;x??1m\xef\xbf\xbdA, stored" in out


def test_a_header_that_is_not_utf_8_is_checked_and_not_sent(tmp_path):
    path = rules_file(tmp_path, "limits: [{ name: a, rate: 1/s, match: { header: { x: '*' } } }]")
    words = [b"--request", b"GET /", b"--header", b"X: \xe9"]
    command = [str(BUILD / "steady").encode(), b"check", str(path).encode(), *words]
    assert b"limits that count" in subprocess.run(command, capture_output=True, check=True).stdout
    command[1:3] = [b"admin", b"explain"]
    run = subprocess.run(command, capture_output=True, check=False)
    assert run.returncode == 2 and b"must be UTF-8" in run.stderr


# ---- The page ----


PAGE = ROOT / "docs/reference/explain.md"


def test_the_output_that_the_page_shows_is_what_a_user_sees():
    (command, printed), = shown(PAGE)
    with daemon("--config", ROOT / "examples/steady.yaml", "--threads", 1, "--admin", "127.0.0.1:0") as served:
        for _ in range(10):
            assert served.check("/login", "POST")[0] == 200
        run = steady(*shlex.split(command)[1:], STEADY_ADMIN=f"http://127.0.0.1:{served.admin_port}/#token={served.token}")
        assert matches(run.stdout, printed), run.stdout


def test_the_page_has_each_member(tmp_path):
    path = rules(tmp_path)
    with daemon("--config", path, "--threads", 1, "--admin", "127.0.0.1:0") as served:
        found = [explain(served, "POST /login", ip="192.0.2.1", headers=["X-Forwarded-For: 192.0.2.1"]),
                 explain(served, domain="shop", entries=["never=1"]), explain(served, domain="shop", entries=["free=1"]),
                 explain(served, domain="shop", entries=["path=/checkout"])]
    assert words(rows(PAGE, "member | meaning")) == set(found[0])
    parts = [*found[0]["client"], *found[0]["limits"][0]["rate"], *found[0]["others"][0]]
    assert [member for member in parts if f"`{member}`" not in PAGE.read_text()] == []
    limits = {member for document in found for limit in document["limits"] for member in limit}
    assert words(rows(PAGE, "member of a limit")) == limits
    answers = {member for document in found for member in document["answer"]}
    assert words(rows(PAGE, "member of `answer`")) == answers
    checked = json.loads(steady("check", path, "--json").stdout)
    assert words(rows(PAGE, "member of `steady check")) == set(checked)
    options = re.findall(r"^  --([a-z]+)", steady("check", "--help").stdout, re.M)
    assert {f"--{option}" for option in options if option != "help"} == {
        cell.split()[0] for cell in words(rows(PAGE, "option | member"))}


# ---- Wrong requests, and a store without a verdict ----


@pytest.mark.parametrize("body, says", [
    ("", "the request must be a JSON object"),
    ("[]", "the request must be a JSON object"),
    ('{"ip": "x"}', 'this is no address: "x"'),
    ('{"ip": "192.0.2.1"}', "a request is missing"),
    ('{"ip": 5}', "the value must be a string, of"),
    ('{"request": "/"}', "a request is METHOD TARGET"),
    ('{"headers": {"a": "b"}}', "a header is 'NAME: VALUE'"),
    ('{"headers": ["a"]}', "a header is 'NAME: VALUE'"),
    ('{"headers": [5]}', "a header is 'NAME: VALUE'"),
    ('{"entries": ["=5"]}', "an entry is KEY=VALUE"),
    ('{"domain": "d"}', "a domain of Envoy needs entries"),
    ('{"adress": "192.0.2.1"}', 'a request has no such member: "adress"'),
    (json.dumps({"headers": 101 * ["a: b"]}), "more than 100"),
])
def test_a_wrong_question_is_400_with_the_reason(tmp_path, body, says):
    with daemon("--limit", "1/s", "--threads", 1, "--admin", "127.0.0.1:0") as served:
        headers = {"Authorization": f"Bearer {served.token}"}
        status, _, answer = served.request("POST", "/admin/explain", body, headers, port=served.admin_port)
        assert status == 400 and says in json.loads(answer)["title"]
        assert served.request("POST", "/admin/explain", body, port=served.admin_port)[0] == 401


@pytest.mark.parametrize("on_error, status, source, text", [
    ("allow", 200, "policy", "answer: 200, without a verdict of the store: "),
    ("deny", 503, "policy", "answer: 503, without a verdict of the store: "),
    ("report", 503, "none", "answer: 503, without a verdict of the store: "),
    ("local", 200, "local", "answer: 200, by the local share, because the store has no verdict: ")])
def test_a_store_without_a_verdict_is_told(tmp_path, closed_port, on_error, status, source, text):
    with daemon("--config", rules(tmp_path, on_error), "--threads", 1, "--admin", "127.0.0.1:0", "--store",
                f"redis://127.0.0.1:{closed_port}") as served:
        where = f"http://127.0.0.1:{served.admin_port}/#token={served.token}"
        asked = ["explain", "--request", "POST /login", "--ip", "192.0.2.1"]
        answer = json.loads(steady("admin", *asked, "--json", STEADY_ADMIN=where).stdout)["answer"]
        assert (answer["status"], answer["source"]) == (status, source) and answer["error"]
        out = steady("admin", *asked, STEADY_ADMIN=where).stdout
        assert text + answer["error"] in out and ("level" in out) == (source == "local")


def test_a_client_that_goes_before_the_store_answers_leaves_nothing(tmp_path):
    store = Redis(tmp_path)
    with daemon("--config", rules(tmp_path), "--threads", 1, "--admin", "127.0.0.1:0", "--store", store.url,
                "--timeout", "20s") as served:
        explain(served, "POST /login", ip="192.0.2.1")
        store.process.send_signal(signal.SIGSTOP)
        body = json.dumps({"request": "POST /login", "ip": "192.0.2.1"})
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", served.admin_port), 30) as s:
                s.sendall(f"POST /admin/explain HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.token}\r\n"
                          f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        time.sleep(0.2)
        store.process.send_signal(signal.SIGCONT)
        assert explain(served, "POST /login", ip="192.0.2.1")["limits"][0]["level"] == 0
    store.stop()
