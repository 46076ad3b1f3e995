# SPDX-License-Identifier: MIT
"""Redis for tests and measurements: a client (RESP over a socket, one command at a time; an error reply is a value, not an
exception; after HELLO 3 a map is a flat list, and what the server says unasked is kept in `pushed`), and servers of our own."""
import itertools
import os
import socket
import subprocess
import time


class ReplyError(Exception):
    pass


def wire_of(words):
    """The bytes of a command in RESP."""
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


class Resp:
    def __init__(self, port, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout=10)
        self.file = self.socket.makefile("rb")
        self.pushed = []

    def __call__(self, *words):
        self.socket.sendall(wire_of(words))
        return self.reply()

    def reply(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        if kind == b"%":
            return [self.reply() for _ in range(2 * int(rest))]
        if kind == b">":
            self.pushed.append([self.reply() for _ in range(int(rest))])
            return self.reply()
        if kind == b"_":
            return None
        return ReplyError(rest.decode()) if kind == b"-" else rest

    def close(self):
        self.file.close()
        self.socket.close()


class Redis:
    """A redis-server on 127.0.0.1 that this object starts. Call the object to send a command; it returns the reply."""

    def __init__(self, directory, *options, sentinel=None, port=None):
        self.log = directory / "redis.log"
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.client = None
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory),
                   "--save", "", "--appendonly", "no", "--logfile", str(self.log), *options]
        if sentinel is not None:  # its configuration file, which a sentinel changes
            command = ["redis-server", str(sentinel), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1",
                       "--dir", str(directory), "--logfile", str(self.log)]
        self.command = command
        self.process = self.start(command)
        self.await_client()

    def await_client(self):
        deadline = time.monotonic() + 10
        while self.client is None:
            try:
                self.client = Resp(self.port)
            except OSError:
                log = self.log.read_text() if self.log.exists() else ""
                assert self.process.poll() is None and time.monotonic() < deadline, log
                time.sleep(0.01)

    def kill(self):
        """As kill -9."""
        self.process.kill()
        self.process.wait()
        if self.client is not None:
            self.client.close()
        self.client = None

    def restart(self):
        """The same server again, after kill()."""
        self.process = self.start(self.command)

    def start(self, command):
        # LD_PRELOAD of a sanitizer is meant for Python: redis-server 8 aborts under it.
        env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=env)

    def __call__(self, *words):
        return self.client(*words)

    def stop(self):
        self.kill()


def join_cluster(nodes):
    """Joins each (server, port of its bus) to a cluster with equal shares of the slots. Waits until it is ready."""
    for i, (node, _) in enumerate(nodes):
        node("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        node("CLUSTER", "ADDSLOTSRANGE", i * 16384 // len(nodes), (i + 1) * 16384 // len(nodes) - 1)
        if i > 0:
            node("CLUSTER", "MEET", "127.0.0.1", nodes[0][0].port, nodes[0][1])
    deadline = time.monotonic() + 20
    while not all(b"cluster_state:ok" in node("CLUSTER", "INFO") for node, _ in nodes):
        assert time.monotonic() < deadline, nodes[0][0]("CLUSTER", "NODES")
        time.sleep(0.05)


# ---- Ports ----

# Below the range that the kernel takes ports of outgoing connections from. tests/support.c has the same numbers.
LOWEST_PORT, PORTS_EACH, BLOCKS = 10000, 100, 200


def reserve_ports():
    """A block of ports for this test process alone, and the socket whose name reserves it."""
    for i in range(BLOCKS):
        block = (os.getpid() + i) % BLOCKS
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0steady-test-ports-{block}")
            return held, itertools.cycle(range(LOWEST_PORT + block * PORTS_EACH, LOWEST_PORT + (block + 1) * PORTS_EACH))
        except OSError:
            held.close()
    raise AssertionError(f"other tests have all {BLOCKS} blocks of ports")


HELD, PORTS = reserve_ports()


def free_port():
    """A free port that no other test on this machine gets while this process runs."""
    for port in itertools.islice(PORTS, PORTS_EACH):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("all ports of this process are in use")
