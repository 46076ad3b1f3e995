# SPDX-License-Identifier: MIT
"""The bounds of the daemon in docs/reference/serve.md: what is just within each is served, and one more is not.
unit_http1.c, test_serve_http.py, test_serve_faults.py and test_serve_resp.py have the others."""
import contextlib
import json
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest
import serve_h2 as h2
from resp import Resp, wire_of
from serve_rig import daemon, needs_daemon, rules_file
from serve_stores import await_that

pytestmark = needs_daemon

RULES = """
limits:
  - { name: api, match: { path: "/api/*" }, key: header:x-key, rate: 3/d }
  - { name: host, match: { host: x, path: /a }, key: host, rate: 3/d }
""" + "".join(f"  - {{ name: l{i}, match: {{ path: [/all, {'/few' if i < 64 else '/none'}] }}, rate: 9/d }}\n"
              for i in range(65))
KIB, PROTOCOL_ERROR, REFUSED_STREAM = 1024, 1, 7


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with daemon("--config", rules_file(tmp_path_factory.mktemp("rules"), RULES), "--threads", 1) as running:
        yield running


def status_of(served, data):
    answer = served.raw(data)
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer.split()[1])


def get(path, size=0, fields=()):
    """A request with so many bytes of head, and fields besides the three of each."""
    start = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: h", "Connection: close", *fields))
    return f"{start}X: {'y' * (size - len(start) - 7)}\r\n\r\n"


# ---- The head ----


@pytest.mark.parametrize(("path", "most"), [("/healthz", 16 * KIB), ("/v1/check", 64 * KIB)])
def test_a_head_has_so_many_bytes_and_no_more(served, path, most):
    assert len(get(path, most)) == most
    assert status_of(served, get(path, most)) == 200
    assert status_of(served, get(path, most + 1)) == 431


def test_a_head_has_100_fields_and_that_of_a_check_any_number(served):
    def fields(n):
        return ["a:"] * (n - 3)
    assert status_of(served, get("/healthz", 1000, fields(100))) == 200
    assert status_of(served, get("/healthz", 1000, fields(101))) == 431
    assert status_of(served, get("/v1/check", 0, fields(16000))) == 200


def answer_of(served, block):
    """The status of a request over HTTP/2 with this block of fields. None: it or the connection was ended."""
    connection = h2.Http2(served.port, WITHOUT_TABLE)
    connection.send(h2.head(1, block, h2.END_STREAM))
    found = ends_of(connection, 1).get(1)
    connection.close()
    return found if found != PROTOCOL_ERROR else None


WITHOUT_TABLE = struct.pack(">HI", 1, 0)  # SETTINGS_HEADER_TABLE_SIZE
STATUS = {0x88: 200, 0x8c: 400, 0x8d: 404, 0x8e: 500}  # in the static table


def ends_of(connection, n):
    """How so many streams ended: their status, or the error of RST_STREAM."""
    ends = {}
    while len(ends) < n:
        if (one := connection.read()) is None:
            break
        kind, _, stream, payload = one
        if kind == h2.RST_STREAM:
            ends[stream] = int.from_bytes(payload, "big")
        if kind == h2.HEADERS:
            block = payload.lstrip(b"\x20")  # the size of the table
            ends[stream] = STATUS[block[0]] if block[0] in STATUS else int(block[2:5])
    return ends


def test_a_host_beside_authority_must_be_the_same(served):
    """With a second host, a limit on the host would not count."""
    def check(host):
        return answer_of(served, h2.fields(path="/v1/check/envoy/a", host=host))
    assert [check("h"), check("H"), check("other")] == [400, 400, 400]
    assert [check("x") for _ in range(3)] == [200] * 3 and [check("x"), check("X")] == [429, 429]


@pytest.mark.parametrize(("path", "most"), [("/healthz", 100), ("/v1/check", 16000)])
def test_a_head_of_http2_has_as_many_fields(served, path, most):
    block = h2.fields(path=path)
    assert answer_of(served, block + h2.field("a", "") * (most - 1)) == 200  # with the host
    if path == "/healthz":
        assert answer_of(served, block + h2.field("a", "") * most) == 431


@pytest.mark.parametrize(("path", "most"), [("/healthz", 16 * KIB), ("/v1/check", 64 * KIB)])
def test_a_head_of_http2_has_as_many_bytes(served, path, most):
    block, used = h2.fields(path=path), sum(map(len, (":method:scheme:authority:path", "GET", "http", "x", path))) + 8
    assert answer_of(served, block + h2.field("a", "y" * (most - used - 3))) == 200
    assert answer_of(served, block + h2.field("a", "y" * (most - used))) == 431


@pytest.mark.parametrize("filler", [[("a", "")] * 120, [("a", "x" * 20000)], [("a", "x\x01")], [("a", "")] * 16000,
                                    [("a", "x" * 66000)], [("X-Upper", "")]],
                         ids=["120 fields", "20 KiB", "control", "16000 fields", "66 KiB", "upper case"])
def test_an_exhausted_limit_is_not_passed_over_http2_by_odd_fields(served, filler):
    key = f"{len(filler)} {len(filler[0][1])} {filler[0][0]}"
    block = h2.fields(path="/v1/check/403", x_original_uri="/api/a", x_key=key)
    assert [answer_of(served, block) for _ in range(4)] == [200] * 3 + [403]
    assert answer_of(served, block + b"".join(h2.field(*pair) for pair in filler)) in (403, None)


# ---- Limits, parts, keys ----


def test_64_limits_count_for_a_request_and_no_more(served):
    assert served.check("/few")[0] == 200
    assert len(served.check("/few")[1]["ratelimit"].split(", ")) == 64
    for path, status in (("/v1/check", 400), ("/v1/check/403", 403)):
        code, _, body = served.check("/all", path=path, x_original_uri="/all")
        assert code == status and b"more than 64 limits match the request" in body


def test_64_parts_are_one_decision_and_65_are_none(served):
    parts = [{"rate": "9/d", "key": f"p{i}"} for i in range(65)]
    assert len(served.json("/v1/consume", {"parts": parts[:64]})["parts"]) == 64
    assert "64 parts" in served.json("/v1/consume", {"parts": parts}, 400)["title"]
    assert served.json("/v1/peek", {"parts": parts[:2]})["parts"][0]["level"] == 1


def test_64_descriptors_of_32_entries_are_answered_and_no_more(served):
    def ask(descriptors, entries, status):
        one = {"entries": [{"key": "a", "value": "b"}] * entries}
        return served.json("/json", {"domain": "d", "descriptors": [one] * descriptors}, status)
    assert len(ask(64, 32, 200)["statuses"]) == 64
    assert "64 descriptors" in ask(65, 1, 400)["title"]
    assert "32 entries" in ask(1, 33, 400)["title"]


def test_a_key_has_1024_bytes_as_it_is_stored(served):
    most = 1024 - len("steady:{}default")
    assert served.json("/v1/consume", {"rate": "9/d", "key": "k" * most})["parts"][0]["level"] == 1
    assert "too long" in served.json("/v1/consume", {"rate": "9/d", "key": "k" * (most + 1)}, 400)["title"]


def test_limits_that_come_with_requests_are_forgotten_after_1024_others_and_their_buckets_stay(served):
    def ask(i, closes=""):
        body = json.dumps({"rate": f"{1000 + i}/d", "key": "many rates", "name": f"r{i}"})
        return f"POST /v1/consume HTTP/1.1\r\nHost: h\r\n{closes}Content-Length: {len(body)}\r\n\r\n{body}"
    for turn, n in ((1, 1100), (2, 3)):
        answers = served.raw("".join(map(ask, range(n - 1))) + ask(n - 1, "Connection: close\r\n"))
        assert answers.count(b'"level": %d,' % turn) == n


# ---- Bodies, words, requests under way ----


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_a_body_has_64_kib_and_no_more(served, version, tmp_path):
    for size, status in ((64 * KIB, "200"), (64 * KIB + 1, "413")):
        text = json.dumps({"rate": "9/d", "key": f"body {version}"})
        (tmp_path / "body").write_text(f"{text:{size}}")
        done = subprocess.run(["curl", "-s", version, "-o", "/dev/null", "-w", "%{http_code}", "--data-binary",
                               f"@{tmp_path}/body", f"http://127.0.0.1:{served.port}/v1/consume"],
                              capture_output=True, text=True, check=True)
        assert done.stdout == status


def test_a_request_of_resp_has_1024_words_and_256_kib(served):
    for words, size, right in ((1024, 0, True), (1025, 0, False), (2, 256 * KIB, True), (2, 256 * KIB + 1, False)):
        client = Resp(served.port)
        filler = ["x"] * (words - 1) if size == 0 else ["x" * (size - len(wire_of(["PING", "x" * 200000])) + 200000)]
        assert size in (0, len(wire_of(["PING", *filler])))
        reply = str(client("PING", *filler))
        assert ("Protocol error" not in reply) == right, (words, size)
        assert (client.file.read(1) == b"") != right if not right else client("PING") == b"PONG"
        client.close()


def test_1024_requests_of_a_connection_are_under_way_and_the_next_ones_wait(start_redis, tmp_path):
    redis = start_redis()
    with daemon("--limit", "9/d", "--store", redis.url, "--threads", 1, "--timeout", "30s") as running:
        client = Resp(running.port)
        assert client("CL.THROTTLE", "k", 9999, 1, 86400)[0] == 0
        before = running.metrics()["steady_store_decisions_total"]
        redis.process.send_signal(signal.SIGSTOP)
        try:
            client.socket.sendall(wire_of(["CL.THROTTLE", "k", 9999, 1, 86400]) * 1500)
            await_that(lambda: running.metrics()["steady_store_decisions_total"] - before >= 1024)
            time.sleep(0.2)
            assert running.metrics()["steady_store_decisions_total"] - before == 1024
        finally:
            redis.process.send_signal(signal.SIGCONT)
        assert [client.reply()[2] for _ in range(1500)] == [9998 - i for i in range(1500)]
        client.close()


# ---- Streams ----


def test_128_streams_are_open_and_the_next_one_is_refused(served):
    connection = h2.Http2(served.port, WITHOUT_TABLE)
    connection.send(*[h2.head(2 * i + 1, h2.fields("POST", "/v1/consume")) for i in range(129)])
    body = json.dumps({"rate": "1000/d", "key": "streams"}).encode()
    connection.send(*[h2.frame(h2.DATA, h2.END_STREAM, 2 * i + 1, body) for i in range(128)])
    assert ends_of(connection, 129) == {**{2 * i + 1: 200 for i in range(128)}, 257: REFUSED_STREAM}
    connection.close()


def test_a_client_that_knows_the_bound_of_streams_and_breaks_it_is_closed(served):
    connection = h2.Http2(served.port)
    connection.send(h2.frame(h2.SETTINGS, h2.ACK), *[h2.head(2 * i + 1, h2.fields("POST", "/v1/consume")) for i in range(129)])
    assert h2.goaway_errors(connection.until_end()) == [PROTOCOL_ERROR]
    connection.close()


def test_the_requests_of_a_connection_hold_one_mib_and_then_there_is_room_again(served):
    connection = h2.Http2(served.port, WITHOUT_TABLE)
    block = h2.fields("POST", "/v1/consume") + h2.field("a", "y" * 10000)
    body = json.dumps({"rate": "1000/d", "key": "held"}).encode()

    def ask_at_once(first, n):
        streams = range(first, first + 2 * n, 2)
        connection.send(*[h2.head(stream, block) for stream in streams])
        connection.send(*[h2.frame(h2.DATA, h2.END_STREAM, stream, body) for stream in streams])
        return set(ends_of(connection, n).values())
    assert ask_at_once(1, 50) == {200}
    assert ask_at_once(101, 120) == {413, 431}
    assert ask_at_once(401, 50) == {200}
    connection.close()


# ---- At length: `make faults` ----


def ends_after(s, keep_alive=lambda: None):
    """When the daemon closes a connection, in seconds from now. Meanwhile it is asked to keep the connection."""
    begun = time.monotonic()
    s.settimeout(0.2)
    while True:
        keep_alive()
        try:
            if s.recv(65536) == b"":
                return time.monotonic() - begun
        except (TimeoutError, socket.timeout):
            pass
        except ConnectionError:
            return time.monotonic() - begun


@pytest.mark.faults
def test_a_connection_has_75_s_between_requests_15_s_for_one_and_30_s_for_its_answer():
    """They wait side by side. A request of which a byte comes each second has no more time."""
    with daemon("--limit", "9/d", "--threads", 1) as running, contextlib.ExitStack() as stack:
        def connection(data):
            s = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 30))
            s.sendall(data)
            return s
        asked, half = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", b"POST /v1/consume HTTP/1.1\r\nX: "
        trickling = connection(half)
        waits = {"nothing asked": (connection(b""), 75), "idle": (connection(asked), 75),
                 "half a request": (connection(half), 15), "half of resp": (connection(b"*1\r\n$4\r\nPI"), 15),
                 "resp": (connection(wire_of(["PING"])), 75),
                 "http2": (connection(h2.PREFACE + h2.frame(h2.SETTINGS)), 75)}
        found = {}

        def trickle():
            with contextlib.suppress(OSError):
                time.sleep(0.8)
                trickling.sendall(b"x")
        threads = [threading.Thread(target=lambda name=name, s=s: found.update({name: ends_after(s)}))
                   for name, (s, _) in waits.items()]
        threads.append(threading.Thread(target=lambda: found.update(trickling=ends_after(trickling, trickle))))
        for thread in threads:
            thread.start()
        # It asks until all buffers between the two are full, and reads nothing.
        unread = connection(b"")
        unread.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                unread.send(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
        begun = time.monotonic()
        watched = select.poll()
        watched.register(unread, select.POLLERR | select.POLLHUP)
        found["unread"] = time.monotonic() - begun if watched.poll(60000) else 60
        for thread in threads:
            thread.join()
        print(found)
        for name, seconds in {**{name: seconds for name, (_, seconds) in waits.items()}, "trickling": 15, "unread": 30}.items():
            assert seconds - 1 < found[name] < seconds + 5, found


@pytest.mark.faults
def test_an_http2_connection_has_10_million_requests_and_then_10000_until_it_ends():
    """It takes two minutes, so no row of the guarantees names it: run it by hand."""
    with daemon("--limit", "9/d", "--threads", 1) as running:
        connection = h2.Http2(running.port, WITHOUT_TABLE)
        connection.send(h2.frame(h2.SETTINGS, h2.ACK))
        block = b"\x02\x04HEAD\x86\x84\x01\x01x"  # HEAD / over http of host x
        begin = h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 0, block)[:5]

        def ask(first, n):
            connection.socket.sendall(b"".join([begin + struct.pack(">I", stream) + block
                                                for stream in range(first, first + 2 * n, 2)]))
        ask(1, 2)
        assert ends_of(connection, 2) == {1: 200, 3: 200}
        ask(5, 1)
        answer = connection.file.read(9)[2] + 9
        connection.file.read(answer - 9)
        most = 10 * 1000 * 1000
        for first in range(7, 2 * most - 1, 200):
            n = min(100, (2 * most - 1 - first) // 2)
            ask(first, n)
            assert len(connection.file.read(n * answer)) == n * answer
        goaways, asked = [], most - 1  # the request before the bound is the last one
        assert first + 2 * n == 2 * asked + 1
        while len(goaways) < 2:
            ask(2 * asked + 1, 1)
            asked += 1
            ended = set()
            while 2 * asked - 1 not in ended:
                kind, _, stream, payload = connection.read()
                ended.add(stream if kind == h2.HEADERS else 0)
                goaways += [(asked, int.from_bytes(payload[:4], "big"))] if kind == h2.GOAWAY else []
        assert goaways == [(most, 2**31 - 1), (most + 10000, 2 * (most + 10000) - 1)]
        assert connection.read() is None
        connection.close()
