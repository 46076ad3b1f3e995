# SPDX-License-Identifier: MIT
"""HTTP/1.1 of the daemon at its socket: requests that cannot be read, requests that hide others, bounds, and
pipelines. unit_http1.c has the reader alone."""

import contextlib
import json
import signal
import socket
import struct
import subprocess
import time

import pytest
from resp import wire_of
from serve_rig import daemon, needs_daemon, rules_file

pytestmark = needs_daemon

RULES = """
limits:
  - { name: api, match: { path: "/api/*" }, key: header:x-key, rate: 3/d }
  - { name: refuse, match: { path: /refuse }, key: header:x-key, rate: 3/d, missing: refuse }
  - { name: costly, match: { path: /cost }, key: ip, rate: 3/d, cost: header:x-cost }
  - { name: line, match: { path: /line }, key: header:x-key, rate: 1/s, burst: 1, max_ahead: 30s }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with daemon("--config", rules_file(tmp_path_factory.mktemp("rules"), RULES)) as running:
        yield running


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        with contextlib.suppress(OSError):  # the daemon may have answered and closed
            self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def answer(self, head=False):
        """(status, fields, body); None if the connection is closed."""
        try:
            line = self.file.readline()
        except ConnectionResetError:
            return None
        if not line:
            return None
        version, status, _ = line.decode().split(" ", 2)
        assert version == "HTTP/1.1"
        fields = {}
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            fields[name] = value.strip()
        body = self.file.read(int(fields.get("content-length", 0))) if not head else b""
        return int(status), fields, body

    def close(self):
        self.file.close()
        self.socket.close()


@pytest.fixture
def connect(served):
    with contextlib.ExitStack() as stack:

        def start():
            connection = Connection(served.port)
            stack.callback(connection.close)
            return connection

        yield start


def ask(connect, data):
    """The only answer, or None; behind it the daemon closes, and answers nothing else."""
    connection = connect()
    connection.send(data)
    connection.socket.shutdown(socket.SHUT_WR)
    first = connection.answer()
    assert connection.answer() is None
    return first


# ---- Requests that cannot be read ----

PLAIN = "/v1/peek"
BAD = {  # (status, request) with {} for the target
    "length and coding": (
        400,
        "POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "two lengths": (400, "POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n"),
    "a list of lengths": (400, "POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 0\r\n\r\n"),
    "a negative length": (400, "POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n"),
    "another coding": (501, "POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "two codings": (
        501,
        "POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    ),
    "a folded field": (400, "GET {} HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n"),
    "a space before the colon": (400, "GET {} HTTP/1.1\r\nHost: h\r\nContent-Length : 9\r\n\r\n"),
    "a bare LF": (400, "GET {} HTTP/1.1\r\nHost: h\nX: a\r\n\r\n"),
    "bare LFs only": (400, "GET {} HTTP/1.1\nHost: h\n\n"),
    "a bare CR": (400, "GET {} HTTP/1.1\r\nHost: h\r\nX: a\rY: b\r\n\r\n"),
    "a NUL byte": (400, "GET {} HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n"),
    "a control character": (400, "GET {} HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n"),
    "no host": (400, "GET {} HTTP/1.1\r\n\r\n"),
    "two hosts": (400, "GET {} HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    "a wrong host": (400, "GET {} HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "another version": (505, "GET {} HTTP/1.2\r\nHost: h\r\n\r\n"),
    "no version": (400, "GET {}\r\nHost: h\r\n\r\n"),
    "two spaces": (400, "GET  {} HTTP/1.1\r\nHost: h\r\n\r\n"),
    "no method": (400, "G@T {} HTTP/1.1\r\nHost: h\r\n\r\n"),
    "another expectation": (417, "GET {} HTTP/1.1\r\nHost: h\r\nExpect: more\r\n\r\n"),
    "a chunk without a length": (400, "POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
    "a chunk with a long length": (
        413,
        "POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
    ),
    "a chunk without its end": (
        400,
        "POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz0\r\n\r\n",
    ),
    "a trailer that is a request": (
        400,
        "POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
    ),
    "a large body": (413, "POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n"),
    "a large chunked body": (
        413,
        "POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + "1000\r\n" + "x" * 4096 + "\r\nf001\r\n",
    ),
    "a body of tiny chunks": (
        413,
        "POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + "1\r\nx\r\n" * 60000,
    ),
    "large fields": (431, "GET {} HTTP/1.1\r\nHost: h\r\nX: " + "x" * 66000 + "\r\n\r\n"),
    "large fields without an end": (431, "GET {} HTTP/1.1\r\nHost: h\r\n" + "X: y\r\n" * 20000),
}
HIDDEN = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("name", BAD)
def test_a_request_that_cannot_be_read_gets_its_cause_and_hides_no_other(connect, name):
    status, request = BAD[name]
    code, fields, body = ask(connect, request.format(PLAIN) + HIDDEN)
    assert (code, fields["connection"], fields["content-type"]) == (status, "close", "application/problem+json")
    problem = json.loads(body)
    assert problem["status"] == status and len(problem["title"]) > 10


@pytest.mark.parametrize("name", BAD)
def test_nginx_gets_403_for_a_request_that_cannot_be_read(connect, name):
    assert ask(connect, BAD[name][1].format("/v1/check/403") + HIDDEN)[0] == 403


def strict(*fields, method="GET"):
    return (
        "".join(f"{line}\r\n" for line in (f"{method} /v1/check/403 HTTP/1.1", "Host: h", "Connection: close", *fields))
        + "\r\n"
    )


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((), 200),
        (("X-Original-URI: /else",), 200),
        (("X-Original-URI: /refuse",), 403),
        (("X-Original-URI: /refuse", "X-Key: k"), 200),
        (("X-Original-URI: /refuse", "X-Key: k", "X-Key: l"), 403),
        (("X-Original-URI: /cost", "X-Cost: 4"), 403),
        (("X-Original-URI: /cost", "X-Cost: many"), 403),
        (("X-Original-URI: /api/%zz", "X-Key: z"), 200),
        (("X-Original-URI: /api/x", "X-Key: many", *[f"X-{i}: {i}" for i in range(500)]), 200),
        (("X-Original-URI: /api/x", "X-Key: large", "Cookie: " + "c" * 40000), 200),
    ],
)
def test_nginx_gets_nothing_but_200_and_403(connect, fields, status):
    for method in ("GET", "HEAD", "POST", "OPTIONS", "WHATEVER"):
        connection = connect()
        connection.send(strict("X-Real-IP: 192.0.2.7", *fields, method=method))
        code = connection.answer(head=method == "HEAD")[0]
        assert code == status or (status == 200 and code == 403), method


@pytest.mark.parametrize(
    "filler",
    [
        [f"X-{i}: {i}" for i in range(120)],
        ["X: " + "x" * 20000],
        ["X: a\x01b"],
        ["X: a\tb"],
        ["a:"] * 16000,
        ["X: " + "x" * 66000],
    ],
    ids=["120 fields", "20 KiB", "control", "tab", "16000 fields", "66 KiB"],
)
def test_an_exhausted_limit_is_not_passed_by_odd_fields(connect, filler):
    key = f"X-Key: {len(filler)}{len(filler[0])}{filler[0][-2:].encode().hex()}"
    for _ in range(3):
        assert ask(connect, strict("X-Original-URI: /api/x", key))[0] == 200
    assert ask(connect, strict("X-Original-URI: /api/x", key))[0] == 403
    assert ask(connect, strict("X-Original-URI: /api/x", key, *filler))[0] == 403


@pytest.mark.parametrize(("policy", "status"), [("allow", 500), ("report", 403), ("deny", 403)])
def test_nginx_gets_500_only_from_a_silent_store_that_allows(tmp_path, closed_port, policy, status):
    rules = rules_file(tmp_path, f"on_error: {policy}\nstore: redis://127.0.0.1:{closed_port}\n{RULES}")
    with daemon("--config", rules) as served:
        connection = Connection(served.port)
        connection.send(strict("X-Original-URI: /api/x", "X-Key: k"))
        assert connection.answer()[0] == status
        connection.close()


# ---- Connections ----

GET = "GET {} HTTP/1.1\r\nHost: h\r\n{}\r\n"


def test_a_connection_is_kept_as_the_client_wishes(connect):
    connection = connect()
    for fields in ("", "Connection: keep-alive\r\n", "Connection: close\r\n"):
        connection.send(GET.format("/healthz", fields))
        code, fields, body = connection.answer()
        assert (code, body) == (200, b"ok\n")
    assert fields["connection"] == "close" and connection.answer() is None
    connection = connect()
    for fields in ("Connection: keep-alive\r\n", ""):
        connection.send(f"GET /healthz HTTP/1.0\r\n{fields}\r\n")
        assert connection.answer()[0] == 200
    assert connection.answer() is None


def test_pipelined_requests_are_answered_in_order(connect):
    connection = connect()
    sent = [("/healthz", 200), ("/nothing", 404), ("/v1/consume", 405), ("/", 200)] * 100
    connection.send("".join(GET.format(path, "") for path, _ in sent))
    for path, status in sent:
        code, fields, body = connection.answer()
        assert code == status, path
        assert fields.get("allow") == ("POST" if status == 405 else None)


def test_an_answer_to_head_has_no_body(connect):
    connection = connect()
    connection.send(GET.format("/healthz", "").replace("GET", "HEAD") + GET.format("/healthz", ""))
    assert connection.answer(head=True)[1]["content-length"] == "3"
    assert connection.answer()[2] == b"ok\n"


def consume(key, body=None):
    body = body or json.dumps({"rate": "1/d", "key": key})
    return "POST /v1/consume HTTP/1.1\r\nHost: h\r\n", body


def test_a_client_that_expects_it_gets_100_before_it_sends_the_body(connect):
    connection = connect()
    head, body = consume("continue")
    connection.send(f"{head}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n")
    assert connection.file.readline() == b"HTTP/1.1 100 Continue\r\n" and connection.file.readline() == b"\r\n"
    for byte in body:
        connection.send(byte)
    assert connection.answer()[0] == 200
    connection.send(f"{head}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    assert connection.answer()[0] == 429, "the body was there: no 100"


def test_a_request_may_arrive_byte_by_byte_and_its_body_in_chunks(connect):
    connection = connect()
    head, body = consume("chunks")
    chunks = "".join(f'{len(piece):x};ext="a b"\r\n{piece}\r\n' for piece in (body[:3], body[3:4], body[4:]))
    for byte in f"{head}Transfer-Encoding: Chunked\r\n\r\n{chunks}0\r\nTrailer: x\r\n\r\n" + GET.format("/healthz", ""):
        connection.send(byte)
    assert connection.answer()[0] == 200
    assert connection.answer()[2] == b"ok\n"


def test_the_target_may_be_a_url(connect):
    assert ask(connect, "GET http://h/healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")[0] == 200
    assert ask(connect, "GET http://other/healthz HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 400


def test_other_paths_than_check_have_16_kib_and_100_fields(connect):
    connection = connect()
    for path, fields, status in [("/healthz", 99, 200), ("/healthz", 100, 431), ("/v1/check", 2000, 200)]:
        connection.send(GET.format(path, "".join(f"X-{i}: y\r\n" for i in range(fields))))
        assert connection.answer()[0] == status, (path, fields)
    for path, size, status in [("/healthz", 16000, 200), ("/healthz", 16400, 431), ("/v1/check", 65000, 200)]:
        connection.send(GET.format(path, f"X: {'y' * size}\r\n"))
        assert connection.answer()[0] == status, (path, size)


def test_a_body_of_64_kib_is_read(connect):
    connection = connect()
    head, body = consume("large")
    connection.send(f"{head}Content-Length: 65536\r\n\r\n{body:65536}")
    assert connection.answer()[0] == 200


def test_an_answer_is_held_for_the_place_in_line_and_given_back_if_the_client_goes(tmp_path, start_redis):
    """Over Redis and both versions of HTTP. The client that hangs up leaves its place."""
    rules = rules_file(tmp_path, RULES.replace("rate: 1/s", "rate: 1/h").replace("30s", "9h"))
    with daemon("--config", rules, "--store", start_redis().url, "--timeout", "30s", "--threads", 1) as served:

        def wait_for(level):
            end = time.monotonic() + 30
            while True:
                answer = served.request("POST", "/v1/peek", json.dumps({"limit": "line", "key": "k"}))[2]
                if json.loads(answer)["parts"][0]["level"] == level:
                    return
                assert time.monotonic() < end, answer
                time.sleep(0.01)

        held = "GET /v1/check HTTP/1.1\r\nHost: h\r\nX-Forwarded-Uri: /line\r\nX-Key: k\r\n\r\n"
        first = Connection(served.port)
        first.send(held)
        assert first.answer()[0] == 200
        waits = Connection(served.port)
        waits.send(held)
        wait_for(2)
        waits.close()
        wait_for(1)
        command = [
            "curl",
            "-sS",
            "--http2-prior-knowledge",
            "-H",
            "X-Forwarded-Uri: /line",
            "-H",
            "X-Key: k",
            f"http://127.0.0.1:{served.port}/v1/check",
        ]
        waits = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(2)
        waits.kill()
        waits.wait()
        wait_for(1)
        first.close()


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_a_held_answer_comes_when_its_place_is_free(tmp_path, start_redis, version):
    rules = rules_file(tmp_path, RULES.replace("rate: 1/s", "rate: 20/s"))
    with daemon("--config", rules, "--store", start_redis().url, "--timeout", "30s", "--threads", 1) as served:
        command = [
            "curl",
            "-sS",
            version,
            "-H",
            "X-Forwarded-Uri: /line",
            "-H",
            "X-Key: k",
            "-w",
            "%{http_code}",
            f"http://127.0.0.1:{served.port}/v1/check",
        ]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
        assert [one.communicate(timeout=60)[0] for one in running] == ["200"] * 6


def test_clients_that_go_before_the_store_answers_leave_nothing(tmp_path, start_redis):
    redis = start_redis()
    body = json.dumps({"rate": "5/d", "key": "gone"})
    requests = [
        wire_of(["STEADY.CONSUMEALL", 1, "gone", "PART", 5, 10**10]),
        f"POST /v1/reserve HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n{body}",
        "GET /v1/check HTTP/1.1\r\nHost: h\r\nX-Forwarded-Uri: /line\r\nX-Key: gone\r\n\r\n",
    ]
    with daemon(
        "--config", rules_file(tmp_path, RULES), "--store", redis.url, "--timeout", "30s", "--threads", 1
    ) as served:
        asked = json.dumps({"rate": "5/d", "key": "here"})
        assert served.request("POST", "/v1/consume", asked)[0] == 200
        redis.process.send_signal(signal.SIGSTOP)
        try:
            clients = [Connection(served.port) for _ in requests]
            for client, request in zip(clients, requests):
                client.send(request)
            while served.metrics()['steady_connections{protocol="http"}'] < 3:  # this one, too
                time.sleep(0.01)
            time.sleep(0.1)
            for client in clients:  # with a reset: the daemon does not wait for a half that is open
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            while served.metrics()['steady_connections{protocol="http"}'] > 1:
                time.sleep(0.01)
        finally:
            redis.process.send_signal(signal.SIGCONT)
        for _ in range(3):
            assert served.request("POST", "/v1/consume", asked)[0] == 200
        peek = json.dumps({"parts": [{"rate": "5/d", "key": "gone"}, {"limit": "line", "key": "gone"}]})
        assert [part["level"] for part in json.loads(served.request("POST", "/v1/peek", peek)[2])["parts"]] == [0, 0]
