# SPDX-License-Identifier: MIT
"""RESP of the daemon: the replies of the module, redis-cli, redis-py, pipelines, and bytes that are no request."""

import os
import socket
import subprocess
import sys

import pytest
from resp import ReplyError, Resp, wire_of
from serve_rig import BUILD, daemon, needs_daemon

pytestmark = needs_daemon

HOUR = 3600 * 10**6


@pytest.fixture(scope="module")
def served():
    with daemon("--limit", "5/s") as running:
        yield running


@pytest.fixture
def ask(served):
    client = Resp(served.port)
    yield client
    client.close()


@pytest.fixture(scope="module")
def module(start_redis):
    return start_redis("--loadmodule", str(BUILD / "steady.so"))


# ---- The replies are those of the module ----

CALLS = f"""
PING
PING hello
CL.THROTTLE t 2 1 36000
CL.THROTTLE t 2 1 36000 2
CL.THROTTLE t 2 1 36000 1
CL.THROTTLE t 2 1 36000 4
CL.THROTTLE t 2 1 36000 0
CL.THROTTLE t 2 1 36000 -1
CL.THROTTLE t 0 30 60
CL.THROTTLE t 2 30
CL.THROTTLE t 2 30 60 1 1
CL.THROTTLE t x 30 60
CL.THROTTLE t -1 30 60
CL.THROTTLE t 2 0 60
CL.THROTTLE t 2 30 0
CL.THROTTLE t 2 30 99999999999999999999
CL.THROTTLE t 02 30 60
STEADY.CONSUME c 5 {HOUR}
steady.consume c 5 {HOUR} amount 3
STEADY.CONSUME c 5 {HOUR} AMOUNT 3
STEADY.CONSUME c 5 {HOUR} AMOUNT 6
STEADY.CONSUME c 5 {HOUR} AMOUNT -2
STEADY.CONSUME c 5 {HOUR} AMOUNT 0
STEADY.CONSUME c 5 {HOUR} BLOCK {HOUR} AMOUNT 4
STEADY.CONSUME c 5 {HOUR} BLOCK {HOUR}
STEADY.PEEK c 5 {HOUR}
STEADY.PEEK d 5 {HOUR} DROPS 3
STEADY.CONSUME d 5 {HOUR} DROPS 3 AMOUNT 5
STEADY.CONSUME d 5 {HOUR} DROPS 3 WAIT {10 * HOUR}
STEADY.CONSUME d 5 {HOUR} DROPS 3 AMOUNT 4 WAIT {10 * HOUR} ATLEAST 1
STEADY.CONSUME e 5 {HOUR} AMOUNT 9 ATLEAST 1
STEADY.CONSUME e 5 {HOUR} AMOUNT 9 ATLEAST 1
STEADY.CONSUME e 5 {HOUR} AMOUNT 3 ATLEAST 4
STEADY.CONSUME e 5 {HOUR} ATLEAST 0
STEADY.CONSUME e 5 {HOUR} WAIT -1
STEADY.CONSUME e 5 {HOUR} WAIT
STEADY.CONSUME e 5 {HOUR} NONSENSE 1
STEADY.CONSUME e 5 {HOUR} AMOUNT 1 AMOUNT 2
STEADY.CONSUME e 5
STEADY.CONSUME e 0 {HOUR}
STEADY.CONSUME e 5 0
STEADY.CONSUME e 5.5 {HOUR}
STEADY.PEEK e 5 {HOUR} BLOCK 3
STEADY.PEEK e
STEADY.CONSUMEALL 2 a b PART 5 {HOUR} PART 50 {HOUR} AMOUNT 10
STEADY.CONSUMEALL 2 a b PART 5 {HOUR} AMOUNT 5 PART 50 {HOUR}
STEADY.CONSUMEALL 2 a b WAIT {9 * HOUR} PART 5 {HOUR} AMOUNT 5 PART 50 {HOUR}
STEADY.CONSUMEALL 2 a b ATLEAST 1 PART 5 {HOUR} AMOUNT 5 PART 50 {HOUR} AMOUNT 60
STEADY.CONSUMEALL 2 a b PART 5 {HOUR} KIND look PART 50 {HOUR} KIND charge AMOUNT 100
STEADY.CONSUMEALL 2 x y PART 5 {HOUR} KIND shadow AMOUNT 9 PART 50 {HOUR} KIND charge AMOUNT 100
STEADY.CONSUMEALL 2 a a PART 5 {HOUR} PART 50 {HOUR}
STEADY.CONSUMEALL 1 a PART 5 {HOUR} PART 6 {HOUR}
STEADY.CONSUMEALL 2 a b PART 5 {HOUR} PART 50 {HOUR} KIND other
STEADY.CONSUMEALL 0 a PART 5 {HOUR}
STEADY.CONSUMEALL x a PART 5 {HOUR}
STEADY.PEEKALL 2 a b PART 5 {HOUR} PART 50 {HOUR} AMOUNT 10
STEADY.SETTLE
STEADY.SETTLE 1 a PART 5 {HOUR} RESERVED 3 MOMENT 1 ACTUAL x
HELLO 4
HELLO x
HELLO AUTH default x
HELLO 3 NONSENSE
HELLO 3 AUTH default
HELLO 3 AUTH other x
HELLO 3 SETNAME
AUTH
AUTH x
AUTH default x
AUTH other x
AUTH Default x
AUTH default x y
"""


def same(ours, theirs):
    """Large numbers are times, which pass between the two calls."""
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, int) and theirs > 10000:
        return isinstance(ours, int) and abs(ours - theirs) < theirs / 100
    return str(ours) == str(theirs) and type(ours) is type(theirs)


def without_now(reply):
    """The moment of a call on several keys is of another clock."""
    return reply[:4] + reply[5:] if isinstance(reply, list) and len(reply) > 7 else reply


def test_each_reply_is_that_of_the_module(ask, module):
    wrong = []
    for line in CALLS.strip().splitlines():
        theirs, ours = (without_now(who(*line.split())) for who in (module, ask))
        if not same(ours, theirs):
            wrong.append((line, theirs, ours))
    assert not wrong


@pytest.mark.parametrize("key", ["x", "s"])
def test_a_settle_gives_back_whatever_key_is_blocked(ask, key):
    for _ in range(2):
        ask("STEADY.CONSUME", key, 1, HOUR, "BLOCK", HOUR)
    now = ask("STEADY.CONSUMEALL", 1, f"settled {key}", "PART", 9, HOUR, "AMOUNT", 5)[4]
    settled = ask("STEADY.SETTLE", 1, f"settled {key}", "PART", 9, HOUR, "RESERVED", 5, "MOMENT", now, "ACTUAL", 2)
    assert settled[1] == 2


def test_a_settle_gives_back_like_the_module(ask, module):
    replies = []
    for who in (module, ask):
        now = who("STEADY.CONSUMEALL", 2, "s1", "s2", "PART", 9, HOUR, "AMOUNT", 5, "PART", 50, HOUR, "DROPS", 7)[4]
        settled = who(
            "STEADY.SETTLE",
            2,
            "s1",
            "s2",
            "PART",
            9,
            HOUR,
            "RESERVED",
            5,
            "MOMENT",
            now,
            "ACTUAL",
            2,
            "PART",
            50,
            HOUR,
            "DROPS",
            7,
            "RESERVED",
            1,
            "MOMENT",
            now,
            "ACTUAL",
            3,
        )
        replies.append([settled[1:], who("STEADY.PEEK", "s1", 9, HOUR), who("STEADY.PEEK", "s2", 50, HOUR, "DROPS", 7)])
    assert same(replies[1], replies[0]), replies
    assert replies[1][1][1] == 2, "the level is the true cost"


@pytest.mark.parametrize("reserved, actual, level", [(5, 2, 5), (5, 0, 5), (5, 5, 5), (5, 8, 8), (0, 3, 8), (0, 0, 5)])
def test_a_settle_after_another_rate_gives_nothing_back_like_the_module(ask, module, reserved, actual, level):
    replies, key = [], f"other {reserved} {actual}"
    for who in (module, ask):
        now = who("STEADY.CONSUMEALL", 1, key, "PART", 9, HOUR, "AMOUNT", 5)[4]
        words = ("RESERVED", reserved, "MOMENT", now, "ACTUAL", actual, "OTHERRATE")
        replies.append([who("STEADY.SETTLE", 1, key, "PART", 9, HOUR, *words)[1:], who("STEADY.PEEK", key, 9, HOUR)])
    assert same(replies[1], replies[0]), replies
    assert replies[1][1][1] == level and replies[1][0][3] == 0


# ---- Clients ----


def test_redis_cli_gets_the_answers_of_redis_cell(served):
    """The example of the README of redis-cell."""
    for options in ([], ["-3"]):
        for level in (1, 2):
            done = subprocess.run(
                [
                    "redis-cli",
                    *options,
                    "-p",
                    str(served.port),
                    "--json" if options else "--raw",
                    "CL.THROTTLE",
                    f"user{options}",
                    "15",
                    "30",
                    "60",
                    "1",
                ],
                capture_output=True,
                text=True,
                check=True,
            )
            assert [int(n) for n in done.stdout.strip("[]\n").replace(",", "\n").split()] == [
                0,
                16,
                16 - level,
                -1,
                2 * level,
            ], done
    done = subprocess.run(
        ["redis-cli", "-p", str(served.port)],
        input="PING\nINFO\nNOSUCH\nQUIT\n",
        text=True,
        check=True,
        capture_output=True,
    )
    assert "PONG" in done.stdout and "steady_version:" in done.stdout and "unknown command 'NOSUCH'" in done.stdout


PROGRAM = """
import redis, sys
for protocol in (2, 3):
    client = redis.Redis(port=int(sys.argv[1]), protocol=protocol, client_name="app", health_check_interval=1)
    assert client.ping()
    def throttle(key):  # as redis-cell documents its call
        return client.execute_command("CL.THROTTLE", key, 2, 1, 3600, 1)
    key = f"py{protocol}-{redis.__version__}"
    assert [throttle(key)[:3] for _ in range(4)] == [[0, 3, 2], [0, 3, 1], [0, 3, 0], [1, 3, 0]]
    limited, limit, remaining, retry_after, reset_after = throttle(key)
    assert 3590 < retry_after <= 3600 and 3 * 3590 < reset_after <= 3 * 3600
    with client.pipeline(transaction=False) as pipeline:
        for i in range(500):
            pipeline.execute_command("STEADY.CONSUME", f"{key}{i % 7}", 1000, 10**9)
            pipeline.ping()
        replies = pipeline.execute()
    assert [r[1] for r in replies[::2]] == [1 + i // 7 for i in range(500)] and all(replies[1::2])
    try:
        client.execute_command("STEADY.CONSUME", key, 0, 1)
    except redis.ResponseError as error:
        assert "max_capacity" in str(error)
    else:
        raise AssertionError("no error")
    assert client.info()["steady_version"]
    client.close()
"""


@pytest.mark.parametrize("version", ["==5.0.8", ">=6"])
def test_redis_py_speaks_both_protocols(served, from_pypi, version):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(served.port)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(from_pypi("redis" + version))},
    )
    assert run.returncode == 0, run.stderr


def test_hello_selects_the_protocol_and_quit_ends(ask):
    assert ask("HELLO")[4:6] == [b"proto", 2]
    assert ask("HELLO", 3, "AUTH", "default", "x", "SETNAME", "me")[:2] == [b"server", b"steady"]
    assert ask("HELLO")[4:6] == [b"proto", 3]
    assert ask("HELLO", 2)[4:6] == [b"proto", 2]
    assert ask("CLIENT", "SETNAME", "me") == ask("client", "setinfo", "LIB-NAME", "x") == b"OK"
    assert "SETNAME" in str(ask("CLIENT", "LIST"))
    assert ask("COMMAND") == ask("COMMAND", "DOCS") == []
    assert ask("QUIT") == b"OK"
    assert ask.file.read() == b"", "the connection is closed"


# ---- Pipelines ----


def in_order(port, n):
    """Answers of the store and of the daemon itself, in the order of the requests, however the bytes arrive."""
    client = Resp(port)
    bytes_out = b"".join(wire_of(("CL.THROTTLE", f"p{i}", i % 900, 1, 3600)) + wire_of(("PING", i)) for i in range(n))
    client.socket.settimeout(60)
    for at in range(0, len(bytes_out), 4093):
        client.socket.sendall(bytes_out[at : at + 4093])
    for i in range(n):
        assert client.reply()[:3] == [0, 1 + i % 900, i % 900]
        assert client.reply() == b"%d" % i
    client.close()


def test_a_pipeline_is_answered_in_order(served):
    in_order(served.port, 3000)


def test_a_pipeline_is_answered_in_order_over_redis(start_redis):
    with daemon("--limit", "5/s", "--store", start_redis().url, "--timeout", "30s") as served:
        in_order(served.port, 3000)


def test_a_store_that_is_down_is_an_error_reply_not_a_verdict(closed_port):
    with daemon("--limit", "5/s", "--store", f"redis://127.0.0.1:{closed_port}") as served:
        ask = Resp(served.port)
        for call in (
            ("CL.THROTTLE", "k", 1, 1, 1),
            ("STEADY.CONSUME", "k", 5, HOUR),
            ("STEADY.CONSUMEALL", 1, "k", "PART", 5, HOUR),
            ("STEADY.PEEK", "k", 5, HOUR),
        ):
            assert str(ask(*call)).startswith("UNAVAILABLE "), call
        assert ask("PING") == b"PONG"
        ask.close()


# ---- Bytes that are no request ----


def exchange(port, data, steps=None):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), steps or len(data)):
            try:
                client.sendall(data[at : at + (steps or len(data))])
            except OSError:  # closed after the error
                break
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        got = b""
        try:
            while piece := client.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
        return got


@pytest.mark.parametrize(
    "data",
    [
        b"*x\r\n",
        b"*-1\r\n",
        b"*1\r\n*1\r\n$1\r\na\r\n",
        b"*1\r\n:5\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$4\r\nPINGxx",
        b"*1\n$4\r\nPING\r\n",
        b"*1025\r\n",
        b"*1\r\n$300000\r\n",
        b"*99999999999\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*1\r\n+PING\r\n",
        b"*" + b"0" * 40,
    ],
)
def test_bytes_that_are_no_array_of_strings_end_the_connection_with_an_error(served, data):
    ping = wire_of(["PING"])
    assert exchange(served.port, ping + data + ping) == (
        b"+PONG\r\n-ERR Protocol error: a request must be an array of bulk strings\r\n"
    )


def test_requests_may_arrive_byte_by_byte(served):
    data = b"*0\r\n" + wire_of(["PING"]) + wire_of(["CL.THROTTLE", "bytes", 1, 1, 3600]) + wire_of(["PING", "\r\n*1"])
    assert exchange(served.port, data, 1) == b"+PONG\r\n*5\r\n:0\r\n:2\r\n:1\r\n:-1\r\n:3600\r\n$4\r\n\r\n*1\r\n"


def test_an_argument_may_have_256_kib_and_a_key_1_kib(served, ask):
    assert ask("PING", "x" * 260000) == b"x" * 260000
    assert ask("STEADY.CONSUME", b"\xff\0" * 512, 5, HOUR)[1] == 1
    for key in ("", "k" * 1025):
        assert "1 .. 1024 bytes" in str(ask("STEADY.CONSUME", key, 5, HOUR))


def test_no_error_carries_a_line_end_of_the_request(ask):
    assert str(ask("NO\r\n+OK")).startswith("ERR unknown command 'NO")
    assert isinstance(ask("STEADY.CONSUME", "k", "5\r\n+OK", HOUR), ReplyError)
    assert isinstance(ask("STEADY.CONSUME", "k", 5, HOUR, "A\r\n+OK", 1), ReplyError)
    assert ask("PING") == b"PONG"


# ---- The admin socket ----


def test_reset_is_for_the_unix_admin_socket_only(tmp_path):
    with daemon("--limit", "5/s", "--admin", f"unix:{tmp_path}/admin") as served:
        ask = Resp(served.port)
        assert ask("STEADY.CONSUME", "k", 1, HOUR)[0] == 1
        assert str(ask("STEADY.RESET", "k")).startswith("NOPERM ")
        assert ask("STEADY.CONSUME", "k", 1, HOUR)[0] == 0
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(f"{tmp_path}/admin")
            admin.sendall(wire_of(["STEADY.RESET", "k", "l"]))
            assert admin.recv(100) == b":2\r\n"
        assert ask("STEADY.CONSUME", "k", 1, HOUR)[0] == 1
        ask.close()


def test_reset_over_tcp_is_refused_because_resp_has_no_token():
    with daemon("--limit", "5/s", "--admin", "127.0.0.1:0") as served:
        admin = Resp(served.admin_port)
        assert str(admin("STEADY.RESET", "k")).startswith("NOPERM ")
        admin.close()
