# SPDX-License-Identifier: MIT
"""Real nginx and real Caddy ask the daemon, with the files in examples/."""
import contextlib
import json
import os
import re
import subprocess

import pytest
from aiosteady_build import BUILD, ROOT
from proxy_rig import (  # noqa: F401: fixtures
    EVASIONS, application, client_of, example, exhaust, folder_of_nobody, free_port, program, proxy)
from serve_rig import daemon, needs_daemon, rules_file

pytestmark = needs_daemon

RULES = """
on_error: %s
trusted: [127.0.0.1/32]
limits:
  - { name: login, match: { method: POST, path: /login }, rate: 2/d }
  - { name: api, match: { path: "/api/*" }, key: header:x-api-key, rate: 2/d }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with daemon("--config", rules_file(tmp_path_factory.mktemp("rules"), RULES % "allow"), "--threads", 1) as running:
        yield running


@pytest.fixture
def silent(tmp_path, closed_port):
    """Starts a daemon whose store does not answer."""

    def start(on_error):
        config = rules_file(tmp_path, RULES % on_error)
        return daemon("--config", config, "--store", f"redis://127.0.0.1:{closed_port}", "--threads", 1)

    return start


# ---- The pages ----


@pytest.mark.parametrize("name", ["nginx", "caddy", "envoy"])
def test_the_rules_of_the_page_do_what_it_says(tmp_path, name):
    page = (ROOT / f"docs/how-to/limit-behind-{name}.md").read_text()
    config = rules_file(tmp_path, re.search("^```yaml\n(.*?)^```", page, re.S | re.M)[1])
    check = subprocess.run([BUILD / "steady", "check", config, "--request", "POST /login", "--ip", "192.0.2.1"],
                           capture_output=True, text=True, check=False)
    assert check.returncode == 0 and "login" in check.stdout, check
    with daemon("--config", config, "--threads", 1) as served:
        answers = [served.check("/login", "POST") for _ in range(11)]
        assert [status for status, _, _ in answers] == [200] * 10 + [429]
        for field, value in re.findall(r"^    (R[\w-]+): (.*)$", page, re.M):
            sent = answers[-1][1][field.lower()]
            assert re.sub(r"\b(t=)?\d+$", r"\1N", sent) == re.sub(r"\b(t=)?\d+$", r"\1N", value)  # the wait


# ---- What a client writes ----


def test_a_client_does_not_choose_the_deadline(tmp_path, redis_server):
    config = rules_file(tmp_path, RULES % "allow")
    with daemon("--config", config, "--store", redis_server.url, "--timeout", "10s", "--threads", 1) as served:
        assert [served.check("/login", "POST")[0] for _ in range(3)] == [200, 200, 429]
        for path in ("/v1/check", "/v1/check/envoy/login"):
            redis_server("CLIENT", "PAUSE", "50", "ALL")
            assert served.request("POST", path, headers={"X-Forwarded-Uri": "/login", "X-Forwarded-For": "192.0.2.1",
                                                         "X-Steady-Timeout": "1us"})[0] == 429


@pytest.mark.parametrize("path", ["/v1/check/403/login", "/v1/check/login", "/v1/checks", "/v1/check/envoys"])
def test_there_is_no_other_path_to_check(served, path):
    assert served.check("/login", "POST", path=path)[0] == 404


def test_nginx_must_name_the_request(served):
    status, fields, _ = served.request("GET", "/v1/check/403", headers={"X-Real-IP": "192.0.2.7"})
    assert (status, fields["x-steady-status"]) == (403, "400")


@pytest.mark.parametrize("path,field", [("/v1/check", "X-Forwarded-Uri"), ("/v1/check", "X-Forwarded-Method"),
                                        ("/v1/check", "X-Forwarded-Host"), ("/v1/check/403", "X-Original-URI"),
                                        ("/v1/check/403", "X-Original-Method")])
@pytest.mark.parametrize("values", [("/login", "/other"), ("/login", "/login"), ("",)])
def test_a_field_of_the_proxy_that_comes_twice_or_is_empty_lets_nothing_pass(served, path, field, values):
    head = "".join(f"{field}: {value}\r\n" for value in values)
    answer = served.raw(f"GET {path} HTTP/1.1\r\nHost: h\r\n{head}Connection: close\r\n\r\n")
    status = b"400" if path == "/v1/check" else b"403"
    assert answer.startswith(b"HTTP/1.1 " + status), answer


# ---- nginx ----

NGINX = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {}
http {
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    access_log off;
    include steady.conf;
}
"""


def nginx(folder, port, served_port, application, **changes):
    changes = {"steady": ("127.0.0.1:4780", f"127.0.0.1:{served_port}"),
               "listen": ("127.0.0.1:8080", f"127.0.0.1:{port}"),
               "application": ("127.0.0.1:8000", f"127.0.0.1:{application.port}"), **changes}
    (folder / "steady.conf").write_text(example("nginx.conf", **changes))
    (folder / "nginx.conf").write_text(NGINX)
    return proxy([program("nginx"), "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"], folder, port)


# The fields of the client are passed on: what the file warns of.
ALL_FIELDS = {"fields": ("proxy_pass_request_headers off;", "")}


@pytest.fixture(scope="module", params=[{}, ALL_FIELDS], ids=["as it is", "with all fields"])
def behind_nginx(request, served, application):
    port = free_port()
    with folder_of_nobody() as folder, nginx(folder, port, served.port, application, **request.param):
        yield port


def test_nginx_passes_on_fields_and_denials(behind_nginx, application):
    client = client_of(behind_nginx)
    for left in (1, 0):
        status, fields, body = client("POST", "/login", body=b"user=a")
        assert (status, body) == (200, b"app")
        assert fields["ratelimit"].startswith(f'"login";r={left}')
        assert fields["ratelimit-policy"] == '"login";q=2;w=86400'
    reached = len(application.requests)
    status, fields, body = client("POST", "/login", body=b"user=a")
    assert status == 429 and len(application.requests) == reached
    assert int(fields["retry-after"]) == 43200
    assert fields["ratelimit"].startswith('"login";r=0')
    assert fields["content-type"] == "application/problem+json"
    assert json.loads(body)["status"] == 429
    assert client("GET", "/login")[0] == 200
    assert client("POST", "/")[0] == 200
    assert client_of(behind_nginx)("POST", "/login")[0] == 200


@pytest.mark.parametrize("status", [403, 429, 500, 502])
def test_nginx_does_not_touch_errors_of_the_application(behind_nginx, application, status):
    reached = len(application.requests)
    assert client_of(behind_nginx)("GET", f"/{status}")[::2] == (status, b"app")
    assert len(application.requests) == reached + 1


@pytest.mark.parametrize("name", EVASIONS)
def test_nothing_passes_an_exhausted_limit_behind_nginx(behind_nginx, application, name):
    client = client_of(behind_nginx)
    exhaust(client)
    reached = len(application.requests)
    target, fields = EVASIONS[name]
    status, _, _ = client("POST", target, *fields)
    assert status in (400, 429) and len(application.requests) == reached


def test_the_application_behind_nginx_gets_the_key_that_was_limited(behind_nginx, application):
    client, key = client_of(behind_nginx), os.urandom(8).hex()
    for i in range(2):
        assert client("GET", "/api/a", ("X-API-Key", key), ("X-API-Key", f"{key}{i}"))[0] == 200
        assert len(application.requests[-1].headers.get_all("X-API-Key")) == 1
    sent = application.requests[-1].headers["X-API-Key"]
    if sent == key:  # nginx takes the first of two. Since 1.23 it joins them.
        assert client("GET", "/api/a", ("X-API-Key", key), ("X-API-Key", "other"))[0] == 429


def test_access_behind_nginx_is_open_only_if_the_store_is_silent(silent, application):
    port = free_port()
    with silent("allow") as served, folder_of_nobody() as folder, \
            nginx(folder, port, served.port, application, **ALL_FIELDS):
        client = client_of(port)
        reached = len(application.requests)
        assert client("POST", "/login", body=b"user=a")[0] == 200
        assert len(application.requests) == reached + 1
        for name in ("a control byte", "a control byte in the key"):
            target, fields = EVASIONS[name]
            status, _, body = client("POST", target, *fields)
            assert status == json.loads(body)["status"] == 400
        served.stop()
        assert client("POST", "/login")[0] == 503
        assert len(application.requests) == reached + 1


def test_nginx_answers_503_if_the_store_is_silent_and_the_rules_deny(silent, application):
    port = free_port()
    with silent("deny") as served, folder_of_nobody() as folder, nginx(folder, port, served.port, application):
        status, fields, _ = client_of(port)("POST", "/login")
        assert status == 503 and 1 <= int(fields["retry-after"]) <= 5 and "ratelimit" not in fields


def test_without_a_line_of_the_file_nginx_is_open_if_the_daemon_is_not_there(application, closed_port):
    port = free_port()
    open_ = {"open": ("if ($steady_status != 200) { return 503; }", "")}
    with folder_of_nobody() as folder, nginx(folder, port, closed_port, application, **open_):
        assert client_of(port)("POST", "/login")[0] == 200


# ---- Caddy ----


@contextlib.contextmanager
def caddy(served_port, application):
    """The ports of the two sites."""
    short, whole = free_port(), free_port()
    text = example("Caddyfile", steady=("127.0.0.1:4780", f"127.0.0.1:{served_port}"),
                   short=("127.0.0.1:8080", f"127.0.0.1:{short}"), whole=("127.0.0.1:8081", f"127.0.0.1:{whole}"),
                   application=("127.0.0.1:8000", f"127.0.0.1:{application.port}"))
    with folder_of_nobody() as folder:
        (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
        command = [program("caddy"), "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]
        with proxy(command, folder, short):
            yield short, whole


@pytest.fixture(scope="module")
def caddy_sites(served, application):
    with caddy(served.port, application) as ports:
        yield ports


@pytest.fixture(params=["short", "with fields"])
def behind_caddy(request, caddy_sites):
    return caddy_sites[request.param != "short"]


def test_caddy_passes_denials_through(behind_caddy, application):
    client = client_of(behind_caddy)
    for _ in range(2):
        assert client("POST", "/login", body=b"user=a")[::2] == (200, b"app")
    reached = len(application.requests)
    status, fields, body = client("POST", "/login", body=b"user=a")
    assert status == 429 and len(application.requests) == reached
    assert int(fields["retry-after"]) == 43200
    assert fields["ratelimit"].startswith('"login";r=0')
    assert fields["content-type"] == "application/problem+json"
    assert json.loads(body)["violated-policies"] == ["login"]
    assert client("GET", "/login")[0] == 200
    assert client("POST", "/")[0] == 200
    assert client_of(behind_caddy)("POST", "/login")[0] == 200


def test_caddy_adds_the_fields_of_allowed_requests(caddy_sites):
    client = client_of(caddy_sites[1])
    status, fields, _ = client("POST", "/login", ("RateLimit", "own"))
    assert status == 200
    assert fields["ratelimit"].startswith('"login";r=1') and fields["ratelimit-policy"] == '"login";q=2;w=86400'
    status, fields, body = client("GET", "/", ("RateLimit", "own"))
    assert (status, body) == (200, b"app") and "ratelimit" not in fields


@pytest.mark.parametrize("name", EVASIONS)
def test_nothing_passes_an_exhausted_limit_behind_caddy(behind_caddy, application, name):
    client = client_of(behind_caddy)
    exhaust(client)
    reached = len(application.requests)
    target, fields = EVASIONS[name]
    status, _, _ = client("POST", target, *fields)
    assert 400 <= status < 500 and len(application.requests) == reached


def test_a_path_of_20_kib_passes_no_limit_behind_caddy(behind_caddy):
    client = client_of(behind_caddy)
    exhaust(client)
    assert client("POST", "/" + "a" * 20000 + "/../login")[0] == 429
    assert [client("GET", "/api/" + "a" * 20000)[0] for _ in range(3)] == [200, 200, 429]


def test_caddy_is_open_if_the_store_is_silent_and_the_rules_allow(silent, application):
    with silent("allow") as served, caddy(served.port, application) as ports:
        for port in ports:
            client = client_of(port)
            reached = len(application.requests)
            assert client("POST", "/login", body=b"user=a")[0] == 200
            assert len(application.requests) == reached + 1
        served.stop()
        for port in ports:
            assert client_of(port)("POST", "/login")[0] == 502


def test_caddy_answers_503_if_the_store_is_silent_and_the_rules_deny(silent, application):
    with silent("deny") as served, caddy(served.port, application) as ports:
        for port in ports:
            status, fields, _ = client_of(port)("POST", "/login")
            assert status == 503 and 1 <= int(fields["retry-after"]) <= 5 and "ratelimit" not in fields
