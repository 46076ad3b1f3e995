# SPDX-License-Identifier: MIT
"""The admin socket: who may use it, what it shows, and that reset, ban and reload do what they say."""
import contextlib
import http.client
import json
import os
import pty
import re
import select
import socket
import stat
import subprocess
import time

import pytest
from resp import Resp
from serve_rig import BUILD, daemon, needs_daemon, rules_file

pytestmark = needs_daemon

RULES = """
limits:
  - { name: login, match: { method: POST, path: /login }, rate: 2/d, block: 10m }
  - { name: quiet, match: { path: /quiet }, rate: 1/d, mode: shadow }
  - { name: key, match: { path: /key }, key: header:x-api-key, rate: 1/d }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    path = rules_file(tmp_path_factory.mktemp("rules"), RULES)
    with daemon("--config", path, "--threads", 2, "--admin", "127.0.0.1:0") as running:
        yield running


def login(served, address):
    return served.check("/login", "POST", address)[0]


def within(seconds, true):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


def unix_request(path, method, target, body=None):
    with contextlib.closing(UnixHTTP(path)) as connection:
        connection.request(method, target, body)
        response = connection.getresponse()
        return response.status, response.read()


# ---- Who may ----


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Bearer " + 32 * "0"},
                                     {"Authorization": "Basic TOKEN"}, {"Authorization": "Bearer TOKEN "[:-1] + "x"}])
def test_without_the_token_nothing_is_shown_or_changed(served, headers):
    headers = {name: value.replace("TOKEN", served.token) for name, value in headers.items()}
    for method, path in (("GET", "/admin/state"), ("GET", "/admin/top"), ("GET", "/admin/history"),
                         ("POST", "/admin/reload"), ("POST", "/admin/reset"), ("POST", "/admin/ban")):
        assert served.request(method, path, headers=headers, port=served.admin_port)[0] == 401, path
    for method, path in (("POST", "/v1/consume"), ("POST", "/v1/settle"), ("GET", "/v1/check"), ("GET", "/metrics"), ("GET", "/none")):
        assert served.request(method, path, "{}", headers, port=served.admin_port)[0] == 401, path


def test_the_admin_port_takes_no_command_of_redis(served):
    with contextlib.closing(Resp(served.admin_port)) as redis:
        assert str(redis("CL.THROTTLE", "key", 4, 10, 60)).startswith("NOPERM")


def test_a_page_in_a_browser_cannot_change_a_bucket(served):
    give_back = json.dumps({"limit": "login", "key": "192.0.2.1", "amount": -1})
    for port, headers in ((served.port, {}), (served.admin_port, {"Authorization": f"Bearer {served.token}"})):
        headers = {**headers, "Origin": "https://evil.example", "Content-Type": "text/plain"}
        for path in ("/v1/consume", "/v1/reserve", "/v1/settle", "/json"):
            assert served.request("POST", path, give_back, headers, port=port)[0] == 403, path


def test_the_page_needs_no_token_and_loads_nothing_from_elsewhere(served):
    status, headers, body = served.request("GET", "/", port=served.admin_port)
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert served.token.encode() not in body
    assert b"https://" not in body and b'src="http' not in body


def test_the_data_port_has_no_admin_paths(served):
    headers = {"Authorization": f"Bearer {served.token}"}
    for path in ("/admin/state", "/admin/top", "/admin/history"):
        assert served.request("GET", path, headers=headers)[0] == 404
    assert served.request("POST", "/admin/reload", headers=headers)[0] == 404


def test_resp_resets_no_key_without_the_token(served):
    for port in (served.port, served.admin_port):
        with contextlib.closing(Resp(port)) as client:
            assert "NOPERM" in str(client("STEADY.RESET", "steady:{192.0.2.1}login"))


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:80", "[::]:0", "example.com:80", "127.evil.example:80", "4781"])
def test_an_admin_address_that_others_can_reach_is_refused(address):
    run = subprocess.run([BUILD / "steady", "serve", "--limit", "1/s", "--listen", "127.0.0.1:0", "--admin", address],
                         capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode != 0
    assert "must be unix:/path, or a loopback address" in run.stderr


def test_a_unix_socket_is_for_its_owner_and_needs_no_token(tmp_path):
    path = tmp_path / "admin.sock"
    with daemon("--limit", "1/d", "--threads", 1, "--admin", f"unix:{path}") as served:
        served.wait_for("admin at unix:")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert unix_request(path, "GET", "/admin/state")[0] == 200
        assert [served.check()[0] for _ in range(2)] == [200, 429]
        limit = json.loads(unix_request(path, "GET", "/admin/state")[1])["limits"][0]["name"]
        body = json.dumps({"limit": limit, "key": "192.0.2.1"})
        assert unix_request(path, "POST", "/admin/reset", body) == (200, b'{"reset": true}\n')
        assert served.check()[0] == 200


# ---- Wrong requests ----


@pytest.mark.parametrize("body, says", [
    ("", "the body must be"),
    ("[]", "the body must be"),
    ('{"limit": "login"}', "the body must be"),
    ('{"limit": "login", "key": ""}', "the body must be"),
    ('{"limit": "login", "key": 5}', "the body must be"),
    ('{"limit": 5, "key": "x"}', "the body must be"),
    ('{"limit": "nmaed", "key": "x"}', 'there is no limit "nmaed"'),
    (json.dumps({"limit": "login", "key": 2000 * "x"}), "too long"),
    (json.dumps({"limit": "", "key": 2000 * "x"}), "too long"),
])
def test_a_wrong_body_is_400_with_the_reason(served, body, says):
    for path in ("/admin/reset", "/admin/unban", "/admin/ban"):
        headers = {"Authorization": f"Bearer {served.token}"}
        status, _, answer = served.request("POST", path, body, headers, port=served.admin_port)
        assert (status, says in json.loads(answer)["title"]) == (400, True), answer


def test_a_ban_takes_a_time(served):
    for seconds in (None, 0, -1, "5", 1e10, 0.9, True):
        document = {"limit": "login", "key": "192.0.2.50", "for": seconds}
        assert "seconds" in served.admin("POST", "/admin/ban", document, status=400)["title"]
    assert login(served, "192.0.2.50") == 200


def test_a_wrong_method_is_405(served):
    for method, path in (("GET", "/admin/reload"), ("POST", "/admin/state"), ("DELETE", "/admin/reset")):
        served.admin(method, path, status=405)


# ---- Reset and ban ----


def test_a_reset_empties_the_bucket_and_lifts_the_block(served):
    assert [login(served, "192.0.2.1") for _ in range(3)] == [200, 200, 429]
    assert served.admin("POST", "/admin/reset", {"limit": "login", "key": "192.0.2.1"}) == {"reset": True}
    assert [login(served, "192.0.2.1") for _ in range(3)] == [200, 200, 429]


def test_a_ban_holds_for_its_time_and_then_the_key_is_free(served):
    begun = time.monotonic()
    assert served.admin("POST", "/admin/ban", {"limit": "login", "key": "192.0.2.2", "for": 1}) == {"banned": True}
    status, headers, _ = served.check("/login", "POST", "192.0.2.2")
    if time.monotonic() - begun < 1:
        assert status == 429 and int(headers["retry-after"]) == 1
    within(10, lambda: login(served, "192.0.2.2") == 200)
    assert time.monotonic() - begun >= 1
    if status == 429:  # otherwise the machine was slow, and this would be the third login
        assert login(served, "192.0.2.2") == 200, "the ban left nothing in the bucket"


def test_an_unban_ends_a_ban_and_no_other_key_was_banned(served):
    served.admin("POST", "/admin/ban", {"limit": "login", "key": "192.0.2.3", "for": 3600})
    assert login(served, "192.0.2.3") == 429
    assert login(served, "192.0.2.4") == 200
    served.admin("POST", "/admin/unban", {"limit": "login", "key": "192.0.2.3"})
    assert login(served, "192.0.2.3") == 200


@pytest.mark.parametrize("key", ["a%b", "a{b}c", "+x", "100%25", "é"])
def test_a_shown_key_resets_its_bucket(served, key):
    assert [served.check("/key", x_api_key=key.encode())[0] for _ in range(2)] == [200, 429]
    shown = re.sub("[%+{}]", lambda found: f"%{ord(found[0]):02X}", key)
    within(10, lambda: shown in [one["key"] for one in served.admin("GET", "/admin/top")["denied"]["keys"] if one["whole"]])
    served.admin("POST", "/admin/reset", {"limit": "key", "key": shown})
    assert served.check("/key", x_api_key=key.encode())[0] == 200


def test_a_key_of_a_limit_of_the_request_is_reset_as_it_is_stored(served):
    question = {"rate": "1/d", "key": "u", "name": "own"}
    served.json("/v1/consume", question)
    served.json("/v1/consume", question, status=429)
    served.admin("POST", "/admin/reset", {"limit": "", "key": "steady:{u}own"})
    served.json("/v1/consume", question)


SHARED = """
domain: d
descriptors:
  - { key: a, rate_limit: { name: both, unit: hour, requests_per_unit: 1 } }
  - { key: b, rate_limit: { name: both, unit: day, requests_per_unit: 1 } }
"""


@pytest.mark.parametrize("store", ["memory:", "redis"])
def test_limits_that_share_a_name_are_all_reset_and_banned(start_redis, tmp_path, store):
    path = rules_file(tmp_path, SHARED)
    store = start_redis().url if store == "redis" else store

    def ask(key):
        document = {"domain": "d", "descriptors": [{"entries": [{"key": key, "value": "x"}]}]}
        return served.request("POST", "/json", json.dumps(document))[0]

    with daemon("--config", path, "--threads", 1, "--store", store, "--timeout", "10s", "--admin",
                "127.0.0.1:0") as served:
        for key in ("a", "b"):
            assert [ask(key), ask(key)] == [200, 429]
            named = {"limit": "both", "key": f"d+{key}+x"}
            assert named["limit"] in {limit["name"] for limit in served.admin("GET", "/admin/state")["limits"]}
            served.admin("POST", "/admin/reset", named)
            assert ask(key) == 200, key
            served.admin("POST", "/admin/reset", named)
            served.admin("POST", "/admin/ban", {**named, "for": 60})
            assert ask(key) == 429, key
            served.admin("POST", "/admin/unban", named)
            assert ask(key) == 200, key


def test_reset_and_ban_on_redis(start_redis, tmp_path):
    store = f"redis://127.0.0.1:{start_redis().port}"
    path = rules_file(tmp_path, RULES)
    with daemon("--config", path, "--store", store, "--threads", 2, "--admin", "127.0.0.1:0") as served:
        within(10, lambda: served.request("GET", "/readyz")[0] == 200)
        for _ in range(20):  # the answer comes when it is done, whatever thread the next request meets
            served.admin("POST", "/admin/ban", {"limit": "login", "key": "192.0.2.1", "for": 60})
            assert login(served, "192.0.2.1") == 429
            served.admin("POST", "/admin/reset", {"limit": "login", "key": "192.0.2.1"})
            assert login(served, "192.0.2.1") == 200
        state = served.admin("GET", "/admin/state")
        assert state["store"]["state"] == "ready" and state["store"]["of"] == 2


def test_reset_and_ban_say_that_the_store_is_silent(closed_port, tmp_path):
    path = rules_file(tmp_path, RULES)
    with daemon("--config", path, "--store", f"redis://127.0.0.1:{closed_port}", "--threads", 1,
                "--admin", "127.0.0.1:0") as served:
        served.admin("POST", "/admin/reset", {"limit": "login", "key": "x"}, status=503)
        served.admin("POST", "/admin/ban", {"limit": "login", "key": "x", "for": 5}, status=503)
        assert login(served, "x") == 200, "on_error: allow"
        store = served.admin("GET", "/admin/state")["store"]
        assert store["ready"] == 0 and store["state"] != "ready" and "refused" in store["last_error"]


# ---- What it shows ----


def test_state_top_and_history_show_what_happened(tmp_path):
    path = rules_file(tmp_path, RULES)
    with daemon("--config", path, "--threads", 2, "--admin", "127.0.0.1:0") as served:
        for _ in range(5):
            login(served, "192.0.2.9")
        for _ in range(3):
            served.check("/quiet")
        state = served.admin("GET", "/admin/state")
        assert state["answers"] == {"allowed": 5, "denied": 3, "none": 0}
        limits = {limit["name"]: limit for limit in state["limits"]}
        assert (limits["login"]["allowed"], limits["login"]["denied"]) == (2, 3)
        assert (limits["quiet"]["allowed"], limits["quiet"]["denied"], limits["quiet"]["shadow_denied"]) == (1, 0, 2)
        login_limit = {name: limits["login"][name] for name in ("file", "line", "rate", "burst", "block", "shadow")}
        assert login_limit == {"file": str(path), "line": 3, "rate": "2/day", "burst": 2, "block": 600, "shadow": False}
        within(10, lambda: sum(served.admin("GET", "/admin/history")["denied"]) == 3)
        assert sum(served.admin("GET", "/admin/history")["allowed"]) == 5
        within(10, lambda: served.admin("GET", "/admin/top")["denied"]["total"] == 5)
        top = served.admin("GET", "/admin/top")["denied"]["keys"][0]
        assert (top["limit"], top["key"], top["count"], top["level"], top["capacity"]) == ("login", "192.0.2.9", 3, 2, 2)
        assert 43100 < top["retry_after"] <= 43200 and top["ago"] < 60
        assert top["recharge"] / top["drops"] == 43200


# ---- Reload ----


def test_reload_says_what_is_wrong_and_keeps_the_old_rules(tmp_path):
    path = rules_file(tmp_path, "limits: [{ name: a, rate: 1/d }]")
    with daemon("--config", path, "--threads", 1, "--admin", "127.0.0.1:0") as served:
        path.write_text("limits: [{ name: a, rat: 1/d }]")
        assert "no key \"rat\"" in served.admin("POST", "/admin/reload", status=422)["title"]
        rules = served.admin("GET", "/admin/state")["rules"]
        assert f"{path}:1:21" in rules["error"] and rules["failed"] >= 1
        path.write_text("limits: [{ name: b, rate: 1/d }]")
        assert served.admin("POST", "/admin/reload") == {"reloaded": True}
        within(10, lambda: served.admin("GET", "/admin/state")["limits"][0]["name"] == "b")
        assert served.admin("GET", "/admin/state")["rules"]["error"] == ""


# ---- The commands steady admin and steady top ----


@pytest.fixture(scope="module")
def address(served):
    return f"http://127.0.0.1:{served.admin_port}/#token={served.token}"


def steady(*words, **env):
    return subprocess.run([BUILD / "steady", *map(str, words)], capture_output=True, text=True, timeout=30, check=False,
                          env={**os.environ, **env})


def test_steady_admin_resets_and_bans(served, address):
    assert steady("admin", "--admin", address, "ban", "login", "192.0.2.60", "1h").stdout == "done\n"
    assert login(served, "192.0.2.60") == 429
    run = steady("admin", "unban", "login", "192.0.2.60", STEADY_ADMIN=address)
    assert (run.returncode, run.stdout) == (0, "done\n")
    assert login(served, "192.0.2.60") == 200
    host = f"127.0.0.1:{served.admin_port}"
    assert steady("admin", "--admin", host, "reload", STEADY_ADMIN_TOKEN=served.token).returncode == 0


@pytest.mark.parametrize("words, code, says", [
    (["reset", "nmaed", "x"], 1, 'there is no limit "nmaed"'),
    (["reset", "login", ""], 2, "KEY must not be empty"),
    (["--admin", "127.0.0.1:1", "reload"], 1, "127.0.0.1:1: Connection refused"),
    (["explain", "--domain", "d"], 2, "a domain of Envoy needs entries, such as --entry user=u"),
    (["ban", "login", "x", "0"], 2, "the duration must be"),
    (["ban", "login", "x"], 2, "ban needs LIMIT KEY DURATION"),
    (["reset", "login"], 2, "reset needs LIMIT KEY"),
    (["reload", "now"], 2, "reload takes no operand"),
    (["explain"], 2, "explain needs a request, such as --request 'GET /' --ip 192.0.2.1"),
    (["explain", "--request", "GET /", "--ip", "x"], 2, 'this is no address: "x"'),
    (["explain", "--ip", "192.0.2.1"], 2, "a request is missing, such as --request 'GET /'"),
    (["reload", "--ip", "192.0.2.1"], 2, "these options are of explain only"),
    (["reload", "--json"], 2, "these options are of explain only"),
    (["reload", "--nonsense"], 2, "steady admin: unrecognized option '--nonsense'"),
    (["steal"], 2, "the verb must be"),
    ([], 2, "the verb must be"),
    (["--admin", "nowhere", "reload"], 2, "give the admin address"),
    (["--admin", "unix:/nowhere", "reload"], 1, "No such file"),
])
def test_steady_admin_says_what_is_wrong(address, words, code, says):
    run = steady("admin", *words, STEADY_ADMIN=address)
    assert (run.returncode, run.stdout, says in run.stderr) == (code, "", True), run.stderr


@pytest.mark.parametrize("command", [("admin", "reload"), ("top", "--once")])
def test_the_commands_need_the_token_and_the_admin_socket(served, command):
    for where in (f"127.0.0.1:{served.admin_port}", f"http://127.0.0.1:{served.admin_port}/#token=wrong"):
        run = steady(*command, "--admin", where)
        assert run.returncode == 1 and "the token of the admin socket is missing or wrong" in run.stderr
    run = steady(*command, "--admin", f"127.0.0.1:{served.port}")
    assert run.returncode == 1 and "this is no admin socket of steady serve; see its option --admin" in run.stderr


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_steady_top_prints_one_page_of_its_width(served, address, columns):
    evil = "\x1b]0;title\x07\x1b[2J" + 200 * "x"
    for _ in range(3):
        login(served, "192.0.2.61")
        served.request("POST", "/v1/consume", json.dumps({"limit": "key", "key": evil}))
    within(10, lambda: "192.0.2.61" in json.dumps(served.admin("GET", "/admin/top")["denied"]))
    run = steady("top", "--once", "--admin", address, COLUMNS=str(columns), LINES="60")
    assert run.returncode == 0, run.stderr
    assert max(len(line) for line in run.stdout.splitlines()) <= columns
    assert "\x1b" not in run.stdout and "\x07" not in run.stdout
    for word in ("store ready", "login", "2/day", "quiet (shadow)", "MOST DENIED KEYS", "192.0.2.61"):
        assert word in run.stdout


def test_steady_top_says_how_many_limits_it_does_not_show(tmp_path):
    lines = "".join(f"  - {{ name: l{n}, rate: 1/s }}\n" for n in range(250))
    path = rules_file(tmp_path, "limits:\n" + lines)
    with daemon("--config", path, "--threads", 1, "--admin", "127.0.0.1:0") as served:
        where = f"http://127.0.0.1:{served.admin_port}/#token={served.token}"
        for height, shown in (("2000", 200), ("40", 25)):
            out = steady("top", "--once", "--admin", where, COLUMNS="80", LINES=height).stdout
            assert len(re.findall(r"^l\d+ ", out, re.M)) == shown
            assert f"\n{shown} of 250 limits are shown; /metrics has all\n" in out
    path.write_text("limits: [{ name: a, rate: 1/s }, { name: b, rate: 1/s }]")
    with daemon("--config", path, "--threads", 1, "--admin", "127.0.0.1:0") as served:
        where = f"http://127.0.0.1:{served.admin_port}/#token={served.token}"
        assert "limits are shown" not in steady("top", "--once", "--admin", where).stdout


def page_of(served, columns=80, lines=24):
    where = f"http://127.0.0.1:{served.admin_port}/#token={served.token}"
    run = steady("top", "--once", "--admin", where, COLUMNS=str(columns), LINES=str(lines))
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_steady_top_shows_keys_in_full_and_escapes_control_bytes(tmp_path):
    keys = ["user@example.com", "redis://u:p@h/1", "a.very.long.name.of.a.user@mail.example.com", "b\x1b[2Jell\x07\u009b", "grün"]
    with daemon("--config", rules_file(tmp_path, RULES), "--threads", 1, "--admin", "127.0.0.1:0") as served:
        for key in keys:
            served.json("/v1/consume", {"limit": "key", "key": key})
        within(10, lambda: served.admin("GET", "/admin/top")["allowed"]["total"] == len(keys))
        for columns in (80, 120):
            lines = page_of(served, columns, 60)
            for key in keys[:3] + [r"b\x1b[2Jell\x07\u009b", "grün"]:
                assert any(line.split(" ")[0] == key for line in lines), (key, lines)
            figures = [line for line in lines if "#" in line]
            assert len({line.index("#") for line in figures}) == 1, figures
            assert max(map(len, lines)) <= columns


def test_a_blocked_key_is_called_blocked(tmp_path):
    path = rules_file(tmp_path, "limits: [{ name: a, rate: 1/s, block: 10m, key: ip }, { name: b, rate: 1/d, key: ip }]")
    with daemon("--config", path, "--threads", 1, "--admin", "127.0.0.1:0") as served:
        for limit in ("a", "b"):
            for _ in range(3):
                served.json("/v1/consume", {"limit": limit, "key": "192.0.2.5"}, status=None)
        within(10, lambda: len(served.admin("GET", "/admin/top")["denied"]["keys"]) == 2)
        said = {entry["limit"]: entry["blocked"] for entry in served.admin("GET", "/admin/top")["denied"]["keys"]}
        assert said == {"a": True, "b": False}
        lines = page_of(served)
        first, end = (next(i for i, line in enumerate(lines) if line.startswith(f"MOST {list_}")) for list_ in ("DENIED", "ALLOWED"))
        rows = {line.split()[1]: line.split()[3] for line in lines[first:end] if line.startswith("192.0.2.5")}
        assert rows["a"] == "blocked" and rows["b"] == "1/1"


def test_steady_top_uses_the_free_rows_of_a_small_terminal(tmp_path):
    path = rules_file(tmp_path, "limits:\n" + "".join(f"  - {{ name: l{n}, rate: 1/s }}\n" for n in range(7)))
    with daemon("--config", path, "--threads", 1, "--admin", "127.0.0.1:0") as served:
        lines = page_of(served)
        assert [line.split()[0] for line in lines if line.startswith("l")] == [f"l{n}" for n in range(7)]
        assert len(lines) <= 24 and not any("limits are shown" in line for line in lines)
        assert sum(line.startswith("none in the last") for line in lines) == 2
        for n in range(12):
            served.json("/v1/consume", {"limit": "l1", "key": f"k{n}"})
        within(10, lambda: len(served.admin("GET", "/admin/top")["allowed"]["keys"]) >= 10)
        lines = page_of(served)
        assert len(lines) == 24 and any("of 7 limits are shown" in line for line in lines)


def test_steady_top_follows_on_a_terminal_until_q(address):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(BUILD / "steady", ["steady", "top", "--admin", address])
    shown = b""
    while shown.count(b"MOST ALLOWED KEYS") < 2:
        assert select.select([terminal], [], [], 30)[0], shown
        shown += os.read(terminal, 65536)
    os.write(terminal, b"q")
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l"), "the terminal is as it was"
