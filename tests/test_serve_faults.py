# SPDX-License-Identifier: MIT
"""The daemon under clients and stores that misbehave: what was read is answered, and others are served meanwhile."""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
import serve_h2 as h2
from resp import Redis, ReplyError, Resp, wire_of
from serve_rig import BUILD, daemon, needs_daemon, rules_file

pytestmark = needs_daemon


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def read_all(s):
    found = b""
    while data := s.recv(65536):
        found += data
    return found


def request(path="/v1/check", fields="", method="GET", body=b""):
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}{length}\r\n".encode() + body


def consume(key, name="each", **fields):
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return request("/v1/consume", "Content-Type: application/json\r\n" + more, "POST",
                   json.dumps({"limit": name, "key": key}).encode())


@pytest.fixture(name="redis")
def a_redis(tmp_path):
    server = Redis(tmp_path)
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.stop()


@pytest.fixture(name="still")
def a_daemon_that_must_stay_well():
    """Before and after a test, and meanwhile, another client is answered."""
    with daemon("--limit", "1000000/s", "--threads", 1) as running:
        stop, answers = threading.Event(), []

        def ask_again_and_again():
            while not stop.is_set():
                answers.append(running.request("GET", "/v1/check")[0])
        other = threading.Thread(target=ask_again_and_again)
        other.start()
        yield running
        stop.set()
        other.join()
        assert answers and set(answers) == {200}


# ---- What was read is answered ----


def test_pipelined_requests_before_a_half_close_are_all_answered(redis):
    options = ("--limit", "100/d", "--store", redis.url, "--threads", 1, "--timeout", "10s")
    with daemon(*options) as running, connect(running.port) as s:
        s.sendall(request() * 20)
        s.shutdown(socket.SHUT_WR)
        assert read_all(s).count(b"HTTP/1.1 200 OK") == 20


def test_resp_before_a_half_close_is_all_answered(redis):
    options = ("--limit", "100/d", "--store", redis.url, "--threads", 1, "--timeout", "10s")
    with daemon(*options) as running, connect(running.port) as s:
        s.sendall(wire_of(["CL.THROTTLE", "k", 5000, 5000, 86400]) * 3000)
        s.shutdown(socket.SHUT_WR)
        assert read_all(s).count(b"*5\r\n:0\r\n") == 3000


LINE = "limits:\n  - { name: line, rate: RATE, burst: 1, max_ahead: 9h }\n"


def level_of_line(running):
    _, _, body = running.request("POST", "/v1/peek", json.dumps({"limit": "line", "key": "127.0.0.1"}))
    return json.loads(body)["parts"][0]["level"]


@pytest.mark.parametrize("kind", ["memory", "redis", "redis that answers later"])
def test_a_held_client_that_closes_its_half_gets_its_answer(redis, tmp_path, kind):
    path = rules_file(tmp_path, LINE.replace("RATE", "1/s"))
    store = "memory:" if kind == "memory" else redis.url
    with daemon("--config", path, "--threads", 1, "--store", store, "--timeout", "20s") as running, \
            connect(running.port) as s:
        assert running.request("GET", "/v1/check")[0] == 200
        if "later" in kind:
            redis.process.send_signal(signal.SIGSTOP)
        s.sendall(request())
        if "later" not in kind:
            wait_until(lambda: level_of_line(running) == 2)
        s.shutdown(socket.SHUT_WR)
        if "later" in kind:
            time.sleep(0.2)
            redis.process.send_signal(signal.SIGCONT)
        answer = read_all(s)
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert answer.count(b"HTTP/1.1 200 OK") == 1 and b" 503 " not in answer


@pytest.mark.parametrize("half_first", [False, True])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_held_client_that_has_gone_leaves_its_place(tmp_path, half_first, kind):
    path = rules_file(tmp_path, LINE.replace("RATE", "1/h"))
    where = tmp_path / "s"
    with daemon("--config", path, "--threads", 1, "--admin", f"unix:{where}") as running:
        assert running.request("GET", "/v1/check")[0] == 200
        s = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        s.settimeout(30)
        s.connect(str(where) if kind == "unix" else ("127.0.0.1", running.port))
        s.sendall(request(fields="X-Forwarded-For: 127.0.0.1\r\n"))
        wait_until(lambda: level_of_line(running) == 2)
        if half_first:
            s.shutdown(socket.SHUT_WR)
            assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert level_of_line(running) == 2
        s.close()
        wait_until(lambda: level_of_line(running) == 1)


def test_a_held_client_of_http_1_0_that_closes_its_half_leaves_its_place(tmp_path):
    path = rules_file(tmp_path, LINE.replace("RATE", "1/h"))
    with daemon("--config", path, "--threads", 1) as running, connect(running.port) as s:
        assert running.request("GET", "/v1/check")[0] == 200
        s.sendall(b"GET /v1/check HTTP/1.0\r\n\r\n")
        wait_until(lambda: level_of_line(running) == 2)
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b""
        wait_until(lambda: level_of_line(running) == 1)


def test_a_client_that_still_sends_gets_the_answer_and_no_reset(still):
    with connect(still.port) as s:
        s.sendall(request("/v1/consume", "Content-Length: 10000000\r\n", "POST"))
        time.sleep(0.1)
        s.sendall(b"x" * 100000)
        assert read_all(s).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_does_not_read_is_not_read_either(still):
    """The answers to a read of 64 KiB may be large; requests wait while 256 KiB are not sent."""
    page = len(still.request("GET", "/metrics")[2])
    with connect(still.port) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        s.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError, socket.timeout):
            while sent < 100_000_000:
                sent += s.send(request("/metrics") * 1000)
        assert sent < 20_000_000, "the client has to wait"
    rss = int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{still.process.pid}/status", encoding="ascii").read())[1])
    assert rss < 64 * 1024, f"kB, with pages of {page} bytes"


# ---- The end ----


class Clients:
    """Threads that ask again and again, and count the answers. A connection that closes between two answers is opened
    anew; a client ends when it cannot connect."""

    def __init__(self, n, one):
        self.answers, self.wrong, self.stopped = [0] * n, [], False
        self.threads = [threading.Thread(target=self.run, args=(i, one)) for i in range(n)]
        for thread in self.threads:
            thread.start()

    def run(self, i, one):
        try:
            one(self, i)
        except Exception as error:  # pylint: disable=broad-except
            self.wrong.append(repr(error))

    def join(self):
        for thread in self.threads:
            thread.join()
        assert self.wrong == []
        return sum(self.answers)


def http_client(port, wire=None):
    def run(clients, i):
        while True:
            try:
                s = connect(port)
            except OSError:
                return
            with s, s.makefile("rb") as file:
                closes = False
                while not closes:
                    if clients.stopped:
                        return
                    try:
                        s.sendall(wire or request())
                        line = file.readline()
                    except ConnectionError:
                        line = b""
                    if line == b"":
                        break  # nothing of an answer
                    assert line.startswith(b"HTTP/1.1 200 "), line
                    length = 0
                    while (head := file.readline()) != b"\r\n":
                        assert head.endswith(b"\r\n"), "half an answer"
                        closes = closes or head == b"connection: close\r\n"
                        if head.startswith(b"content-length:"):
                            length = int(head.split()[1])
                    assert len(file.read(length)) == length
                    clients.answers[i] += 1
    return run


def resp_client(port):
    wire = wire_of(["CL.THROTTLE", "k", 1000000, 1000000, 1])

    def run(clients, i):
        with connect(port) as s, s.makefile("rb") as file:
            while not clients.stopped:
                try:
                    s.sendall(wire * 10)
                except ConnectionError:
                    pass  # what was answered is read
                for _ in range(10):
                    try:
                        line = file.readline()
                    except ConnectionError:
                        return
                    if line == b"":
                        return
                    assert line == b"*5\r\n", line
                    assert all(file.readline().endswith(b"\r\n") for _ in range(5)), "half an answer"
                    clients.answers[i] += 1
    return run


def http2_client(port):
    """16 streams at once. After the last GOAWAY the streams that it names are answered."""

    def run(clients, i):
        connection, open_streams, last, last_goaway = h2.Http2(port), set(), 1 << 31, None
        while True:
            try:
                while len(open_streams) < 16 and last_goaway is None and not clients.stopped:
                    open_streams.add(connection.ask(path="/v1/check"))
            except ConnectionError:
                pass
            if not open_streams or (one := connection.read()) is None:
                break
            kind, flags, stream, payload = one
            if kind == h2.GOAWAY:
                last = int.from_bytes(payload[:4], "big")
                last_goaway = last if last < 2**31 - 1 else None
                assert int.from_bytes(payload[4:8], "big") == h2.NO_ERROR
                open_streams = {s for s in open_streams if s <= last}
            if kind == h2.HEADERS and flags & h2.END_STREAM:
                open_streams.discard(stream)
                clients.answers[i] += 1
        assert not open_streams or last_goaway is None, "a stream that was read is not answered"
        connection.close()
    return run


@pytest.mark.parametrize("kind", ["memory", "redis"])
@pytest.mark.parametrize("client", [http_client, resp_client, http2_client])
def test_sigterm_under_load_loses_nothing(client, kind, redis, tmp_path):
    """The decision log has each request that was read; the clients count the answers."""
    log = tmp_path / "decisions.log"
    store = redis.url if kind == "redis" else "memory:"
    with daemon("--limit", "1000000/s", "--threads", 2, "--log", log, "--store", store, "--timeout", "10s") as running:
        clients = Clients(8, client(running.port))
        time.sleep(0.5)
        assert running.stop() == 0
        answered = clients.join()
    assert answered > 100
    assert answered == log.read_text().count("\n")


def test_sigterm_tells_http2_clients_twice():
    with daemon("--limit", "10/d") as running:
        connection = h2.Http2(running.port)
        connection.ask()
        assert connection.read() is not None
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("ending")
        found = connection.until_end()
        last = [int.from_bytes(payload[:4], "big") for kind, _, _, payload in found if kind == h2.GOAWAY]
        assert last == [2**31 - 1, 1]


def test_sigterm_answers_requests_on_their_way_with_connection_close():
    with daemon("--limit", "10/d") as running, connect(running.port) as s, s.makefile("rb") as file:
        s.sendall(request())
        while file.readline() != b"\r\n":
            pass
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("ending")
        s.sendall(request())
        assert b"connection: close\r\n" in file.read()


# ---- Reload ----


PAIR = "limits:\n  - {{ name: one, rate: {0}/s }}\n  - {{ name: two, rate: {0}/s }}\n"


def test_reload_under_load_loses_no_request_and_each_answer_is_of_one_version(tmp_path):
    path = rules_file(tmp_path, PAIR.format(500000))
    seen = set()

    def one(clients, i):
        with connect(running.port) as s, s.makefile("rb") as file:
            while not clients.stopped:
                s.sendall(request())
                assert file.readline() == b"HTTP/1.1 200 OK\r\n"
                quotas = []
                while (head := file.readline()) != b"\r\n":
                    if head.startswith(b"ratelimit-policy:"):
                        quotas = re.findall(rb";q=(\d+)", head)
                assert len(quotas) == 2 and len(set(quotas)) == 1, quotas
                seen.add(quotas[0])
                clients.answers[i] += 1

    with daemon("--config", path, "--threads", 2) as running:
        clients = Clients(4, one)
        for version in range(1, 21):
            path.write_text(PAIR.format(500000 + version))
            running.process.send_signal(signal.SIGHUP)
            running.wait_for("the rules were reloaded", times=version)
        clients.stopped = True
        assert clients.join() > 100
        assert len(seen) > 5


def test_a_signal_right_after_the_start_is_not_lost(tmp_path):
    path = rules_file(tmp_path, PAIR.format(500000))
    for _ in range(10):
        with daemon("--config", path) as running:  # its port is known before all threads run
            running.process.send_signal(signal.SIGHUP)
            running.wait_for("the rules were reloaded")


def test_a_file_that_is_being_written_is_not_read(tmp_path):
    """Its first half is a right file, too."""
    whole = PAIR.format(600000)
    path = rules_file(tmp_path, PAIR.format(500000))
    with daemon("--config", path) as running:
        with open(path, "w", encoding="ascii") as file:
            file.write(whole[:whole.index("  - { name: two")])
            file.flush()
            for _ in range(25):  # touched again before the next look
                time.sleep(0.1)
                os.utime(path)
                assert running.check()[1]["ratelimit-policy"].count("q=500000;") == 2
            file.write(whole[whole.index("  - { name: two"):])
        running.wait_for("the rules were reloaded: 2 limits")
        assert running.check()[1]["ratelimit-policy"].count("q=600000;") == 2
        assert not [line for line in running.log if "reloaded: 1 limits" in line]


# ---- Floods ----


FLOODS = [  # name, frame number k, whether a stream is open
    ("ping", lambda c, k: h2.frame(h2.PING, 0, 0, bytes(8)), False),
    ("settings", lambda c, k: h2.frame(h2.SETTINGS), False),
    ("window update", lambda c, k: h2.frame(h2.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"), False),
    ("priority", lambda c, k: h2.frame(h2.PRIORITY, 0, 1, bytes(5)), False),
    ("empty data", lambda c, k: h2.frame(h2.DATA, 0, c.stream), True),
    ("small data", lambda c, k: h2.frame(h2.DATA, 0, c.stream, b"x"), True),
    ("begun and reset", lambda c, k: h2.frame(h2.HEADERS, h2.END_HEADERS, 2 * k + 1, h2.fields("POST", "/v1/consume"))
     + h2.frame(h2.RST_STREAM, 0, 2 * k + 1, bytes(4)), False),
    ("asked and reset", lambda c, k: h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 2 * k + 1, h2.fields())
     + h2.frame(h2.RST_STREAM, 0, 2 * k + 1, bytes(4)), False),
    ("bad requests", lambda c, k: h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 2 * k + 1,
                                           h2.field("no", "method")), False),
    ("streams", lambda c, k: h2.frame(h2.HEADERS, h2.END_HEADERS, 2 * k + 1, h2.fields("POST", "/v1/consume")), False),
]


def flood(running, frames, opened=False):
    """Sends frames until the daemon closes. Its GOAWAY errors. Without an end there would be 400,000 frames."""
    connection = h2.Http2(running.port)
    reader, found = None, []
    if opened:
        connection.ask(body=None, path="/healthz")
        connection.stream += 2
        connection.send(h2.frame(h2.HEADERS, h2.END_HEADERS, connection.stream, h2.fields("POST", "/v1/consume")))
    reader = threading.Thread(target=lambda: found.extend(connection.until_end()))
    reader.start()
    with contextlib.suppress(OSError):
        for i in range(400):
            connection.send(b"".join(frames(connection, 1000 * i + k) for k in range(1000)))
        connection.socket.shutdown(socket.SHUT_WR)
        raise AssertionError("the daemon reads without an end")
    reader.join()
    connection.close()
    return h2.goaway_errors(found)


@pytest.mark.parametrize("name, frames, opened", FLOODS)
def test_a_flood_of_frames_is_ended_and_others_are_answered(still, name, frames, opened):
    errors = flood(still, frames, opened)
    assert set(errors) <= {h2.ENHANCE_YOUR_CALM, h2.INTERNAL_ERROR}, name  # libnghttp2 counts resets, too


def test_continuation_without_an_end_is_ended(still):
    def frames(connection, k):
        return h2.frame(h2.CONTINUATION, 0, 1, h2.field("x", "y" * 100)) if k else h2.frame(
            h2.HEADERS, h2.END_STREAM, 1, h2.fields())
    flood(still, frames)


def test_connections_beyond_the_most_are_closed_and_then_there_is_room_again():
    with daemon("--limit", "10/d", "--max-connections", 50, "--threads", 1) as running:
        held = [connect(running.port) for _ in range(60)]
        for s in held:
            with contextlib.suppress(ConnectionError):
                s.sendall(request("/healthz"))
        answers = []
        for s in held:
            with contextlib.suppress(ConnectionError):
                answers.append(s.recv(12))
        assert answers.count(b"HTTP/1.1 200") == 50
        for s in held:
            s.close()
        deadline = time.monotonic() + 10
        while True:
            try:
                assert running.request("GET", "/healthz")[0] == 200
                break
            except ConnectionError:
                assert time.monotonic() < deadline


# ---- The store ----


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("policy, status, source", [("allow", 200, None), ("deny", 503, None), ("report", 503, None),
                                                    ("local", 200, "local")])
def test_the_daemon_starts_without_its_store_and_finds_it(policy, status, source, tmp_path):
    first = Redis(tmp_path)
    port = first.port
    first.stop()
    path = rules_file(tmp_path, f"store: redis://127.0.0.1:{port}\non_error: {policy}\nlimits:\n"
                                "  - { name: each, rate: 5/d }\n")
    with daemon("--config", path, "--threads", 1) as running:
        got = running.check()
        assert got[0] == status and "ratelimit" not in got[1]
        wait_until(lambda: running.request("GET", "/readyz")[0] == 503)
        second = Redis.__new__(Redis)
        second.log, second.port, second.client = tmp_path / "second.log", port, None
        second.process = second.start(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""])
        try:
            wait_until(lambda: "ratelimit" in running.check()[1])
            assert running.request("GET", "/readyz")[0] == 200
        finally:
            second.process.kill()
            second.process.wait()


def test_deadlines_come_from_the_caller(redis, tmp_path):
    path = rules_file(tmp_path, f"store: {redis.url}\non_error: allow\nlimits:\n"
                                "  - { name: each, rate: 5/d }\n  - { name: rls, key: descriptor:a, rate: 5/d }\n")
    with daemon("--config", path, "--threads", 1, "--timeout", "20s") as running:
        assert running.json("/v1/consume", {"limit": "each", "key": "k"})["allowed"] is True
        redis.process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        got = running.json("/v1/consume", {"limit": "each", "key": "k"}, **{"x-steady-timeout": "50ms"})
        connection = h2.Http2(running.port)
        connection.ask(h2.rls_body("d", ("a", "b")), grpc_timeout="50m", **h2.RLS)
        found = []
        while not any(kind == h2.HEADERS and flags & h2.END_STREAM for kind, flags, _, _ in found):
            found.append(connection.read())
        assert any(b"14" in payload for kind, _, _, payload in found if kind == h2.HEADERS), found
        assert time.monotonic() - begun < 15, "the timeout of the store is 20 s"
        assert got.get("error") is not None
        redis.process.send_signal(signal.SIGCONT)
        connection.close()


@pytest.mark.parametrize("policy, statuses, source", [
    ("allow", [200, 200, 200], "policy"), ("deny", [503, 503, 503], "policy"), ("report", [503, 503, 503], "none"),
    ("local", [200, 200, 429], "local")])
def test_at_the_deadline_of_the_caller_the_policy_answers(redis, tmp_path, policy, statuses, source):
    path = rules_file(tmp_path, f"store: {redis.url}\non_error: {policy}\nlimits:\n  - {{ name: each, rate: 2/d }}\n")
    with daemon("--config", path, "--threads", 1, "--timeout", "30s") as running:
        assert running.json("/v1/consume", {"limit": "each", "key": "k"})["source"] == "store"
        redis.process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        for status in statuses:
            got = running.json("/v1/consume", {"limit": "each", "key": "k"}, status=status, **{"x-steady-timeout": "50ms"})
            assert (got["source"], got["allowed"], got["error"]) == (source, status == 200, "unknown")
        assert time.monotonic() - begun < 20, "the timeout of the store is 30 s"
        answers = running.metrics()
        assert answers['steady_store_timeouts_total'] == 3
        redis.process.send_signal(signal.SIGCONT)
        wait_until(lambda: running.json("/v1/peek", {"limit": "each", "key": "l"})["source"] == "store")


def test_a_client_that_hangs_up_takes_nothing_with_it(redis, tmp_path):
    """Its decisions are made; nothing of them stays in the daemon."""
    path = rules_file(tmp_path, f"store: {redis.url}\nlimits:\n  - {{ name: each, rate: 1000/d }}\n"
                                "  - { name: rls, key: descriptor:a, rate: 1000/d }\n")
    with daemon("--config", path, "--threads", 1, "--timeout", "20s") as running:
        running.json("/v1/consume", {"limit": "each", "key": "k"})
        redis.process.send_signal(signal.SIGSTOP)
        for _ in range(20):
            with connect(running.port) as s:
                s.sendall(consume("k"))
            with connect(running.port) as s:
                s.sendall(wire_of(["CL.THROTTLE", "r", 1000, 1000, 86400]) * 5)
            connection = h2.Http2(running.port)
            connection.ask(h2.rls_body("d", ("a", "b")), **h2.RLS)
            connection.close()
        time.sleep(0.2)
        redis.process.send_signal(signal.SIGCONT)
        peek = {"limit": "each", "key": "k"}
        wait_until(lambda: running.json("/v1/peek", peek)["parts"][0]["remaining"] == 1000 - 21)
        wait_until(lambda: all(value <= 1 for name, value in running.metrics().items() if "steady_connections" in name))


def test_more_than_the_store_can_answer_is_told_at_once(redis, tmp_path):
    path = rules_file(tmp_path, f"store: {redis.url}\non_error: report\nlimits:\n  - {{ name: each, rate: 1000/d }}\n")
    with daemon("--config", path, "--threads", 1, "--timeout", "5s") as running:
        client = Resp(running.port)
        assert client("CL.THROTTLE", "k", 1000, 1000, 86400)[0] == 0
        redis.process.send_signal(signal.SIGSTOP)
        sockets = [Resp(running.port) for _ in range(40)]
        for s in sockets:
            s.socket.sendall(wire_of(["CL.THROTTLE", "k", 1000000, 1000000, 86400]) * 1000)
        assert running.request("GET", "/healthz")[0] == 200
        redis.process.send_signal(signal.SIGCONT)
        replies = [s.reply() for s in sockets for _ in range(1000)]
        refused = [r for r in replies if isinstance(r, ReplyError)]
        assert all(str(r).startswith("UNAVAILABLE") for r in refused)
        for s in [client, *sockets]:
            s.close()


def test_a_reload_changes_on_error_of_limits_that_come_with_a_request(tmp_path, closed_port):
    text = f"store: redis://127.0.0.1:{closed_port}\non_error: deny\nlimits:\n  - {{ name: each, rate: 5/d }}\n"
    path = rules_file(tmp_path, text)
    with daemon("--config", path, "--threads", 1, "--admin", "127.0.0.1:0") as running:
        def statuses():
            return [running.request("POST", "/v1/consume", json.dumps({"key": "k", **limit}))[0]
                    for limit in ({"rate": "5/d"}, {"limit": "each"})]
        assert statuses() == [503, 503]
        rules_file(tmp_path, text.replace("deny", "allow"))
        running.admin("POST", "/admin/reload")
        wait_until(lambda: statuses() == [200, 200])


def test_the_admin_is_served_while_clients_take_all_connections():
    with daemon("--limit", "1/s", "--threads", 1, "--admin", "127.0.0.1:0", "--max-connections", 5) as running:
        with contextlib.ExitStack() as clients:
            for _ in range(10):
                clients.enter_context(connect(running.port))
            assert running.admin("GET", "/admin/top")["denied"]["keys"] == []


@pytest.mark.parametrize("option", ["--listen", "--admin"])
def test_a_unix_socket_needs_a_path(option):
    """One without is open to every user of the host."""
    ended = subprocess.run([BUILD / "steady", "serve", "--limit", "1/s", "--listen", "127.0.0.1:0", option, "unix:"],
                           capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, "unix: needs a path" in ended.stderr) == (2, True)


def test_limits_of_envoy_with_two_units_have_two_buckets(tmp_path):
    rules_file(tmp_path, "domain: d\ndescriptors:\n  - key: a\n", "envoy.yaml")
    with daemon("--config", rules_file(tmp_path, "include: [envoy.yaml]\n"), "--threads", 1) as running:
        each = [{"entries": [{"key": "a", "value": "x"}], "limit": {"requestsPerUnit": n, "unit": unit}}
                for n, unit in ((1000, "DAY"), (2, "MINUTE"))]
        document = json.dumps({"domain": "d", "descriptors": each})
        assert [running.request("POST", "/json", document)[0] for _ in range(3)] == [200, 200, 429]
        document = json.dumps({"domain": "d", "descriptors": each[:1], "hitsAddend": 2**32 + 1})
        assert running.request("POST", "/json", document)[0] == 400, "it has 32 bits"
