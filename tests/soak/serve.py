#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The daemon for a long time under clients that misbehave: `make soak SECONDS=600`.

10,000 connections are held, and at the same time there are slow readers, slow writers, half-open clients, floods of
HTTP/2 frames, connections that come and go, and reloads. One client behaves; its waiting times are told. Memory,
descriptors and processor time of the daemon must not grow from the second quarter of the run to the last, and all
descriptors must be closed at the end. STORE=redis://... takes another store."""
import argparse
import contextlib
import multiprocessing
import os
import random
import re
import resource
import selectors
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import serve_h2 as h2
from serve_rig import Daemon, rules_file
from test_serve_faults import FLOODS, request

RULES = """
store: "{store}"
limits:
  - {{ name: one, key: ip, rate: {rate}/s }}
  - {{ name: two, match: {{ path: "/api/*" }}, key: header:x-api-key, rate: 20/s }}
"""
GROWTH_KIB, GROWTH = 8192, 1.1  # of memory


class World:
    def __init__(self, running, path, store):
        self.running, self.path, self.store = running, path, store
        self.ends = False
        self.counts = {}

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.running.port), timeout=30)

    def sleep(self, seconds):
        end = time.monotonic() + seconds
        while not self.ends and time.monotonic() < end:
            time.sleep(min(0.2, seconds))


def hold(world, n):
    """Keeps n connections open. Each asks once, and again when the daemon has closed it."""
    waiting, sockets = selectors.DefaultSelector(), 0
    while not world.ends:
        for _ in range(min(200, n - sockets)):
            try:
                s = world.connect()
                s.sendall(request("/healthz"))
            except OSError:
                world.count("held: not connected")
                break
            s.setblocking(False)
            waiting.register(s, selectors.EVENT_READ)
            sockets += 1
        world.counts["held now"] = sockets
        for key, _ in waiting.select(0.2):
            try:
                data = key.fileobj.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if data:
                world.count("held: answered")
            else:
                waiting.unregister(key.fileobj)
                key.fileobj.close()
                sockets -= 1
    for key in list(waiting.get_map().values()):
        key.fileobj.close()


def write_slowly(world, n):
    """A byte per second, over each protocol."""
    starts = [request(), b"*3\r\n$4\r\nPING\r\n", h2.PREFACE + h2.frame(h2.SETTINGS) + h2.frame(
        h2.HEADERS, h2.END_HEADERS, 1, h2.fields("POST", "/v1/consume")) + h2.frame(h2.DATA, 0, 1, bytes(1000))]
    open_ones = {}
    while not world.ends:
        while len(open_ones) < n:
            with contextlib.suppress(OSError):
                bytes_ = random.choice(starts)
                at = bytes_.find(b"X") if b"X" in bytes_ else 0
                open_ones[world.connect()] = (bytes_, at)
        for s, (bytes_, at) in list(open_ones.items()):
            try:
                s.sendall(bytes_[at:at + 1] or b"x")
                open_ones[s] = (bytes_, at + 1)
            except OSError:
                s.close()
                del open_ones[s]
                world.count("slow writers: closed by the daemon")
        world.sleep(1)
    for s in open_ones:
        s.close()


def read_slowly(world, n):
    """Very much is asked for, and 1 KiB per second is read."""
    open_ones = []
    while not world.ends:
        while len(open_ones) < n:
            with contextlib.suppress(OSError):
                s = world.connect()
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.setblocking(False)
                open_ones.append(s)
        for s in list(open_ones):
            try:
                with contextlib.suppress(BlockingIOError):
                    s.send(request("/metrics") * 200)
                with contextlib.suppress(BlockingIOError):
                    if s.recv(1024) == b"":
                        raise ConnectionResetError
            except OSError:
                s.close()
                open_ones.remove(s)
                world.count("slow readers: closed by the daemon")
        world.sleep(1)
    for s in open_ones:
        s.close()


def vanish(world):
    """Clients that go away in the middle: with half a request, without reading, or with a reset."""
    while not world.ends:
        with contextlib.suppress(OSError):
            s = world.connect()
            s.sendall(random.choice([request()[:20], request() * 50, b"", b"*1\r\n$4\r\nPI", h2.PREFACE[:10]]))
            if random.random() < 0.5:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if random.random() < 0.3:
                s.shutdown(socket.SHUT_WR)
            s.close()
            world.count("vanished")
        world.sleep(0.005)


def flood(world):
    while not world.ends:
        for _, frames, opened in FLOODS:
            connection = None
            with contextlib.suppress(OSError):
                connection = h2.Http2(world.running.port)
                if opened:
                    connection.stream = 1
                    connection.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.fields("POST", "/v1/consume")))
                for i in range(20):
                    connection.send(b"".join(frames(connection, 1000 * i + k) for k in range(1000)))
            if connection is not None:
                connection.close()
            world.count("floods")
            world.sleep(0.2)


def reload(world):
    n = 0
    while not world.ends:
        n += 1
        world.path.write_text(RULES.format(rate=500000 + n % 1000, store=world.store))
        world.running.process.send_signal(signal.SIGHUP)
        world.count("reloads")
        world.sleep(2)


def behave(port, ends, result):
    """Asks every 2 ms. Sends (n, wrong, p50, p99, longest in ms) at the end."""
    times, wrong = [], 0
    s = socket.create_connection(("127.0.0.1", port))
    file = s.makefile("rb")
    while not ends.is_set():
        begun = time.perf_counter()
        s.sendall(request("/v1/check", f"X-Forwarded-Uri: /x\r\nX-Forwarded-For: 192.0.2.{len(times) % 250}\r\n"))
        status = file.readline()
        while file.readline() not in (b"\r\n", b""):
            pass
        times.append((time.perf_counter() - begun) * 1000)
        wrong += status != b"HTTP/1.1 200 OK\r\n"
        if status == b"":
            break
        time.sleep(0.002)
    times.sort()
    result.send((len(times), wrong, times[len(times) // 2], times[len(times) * 99 // 100], times[-1]))


def sample(running):
    """Memory in KiB, descriptors, and seconds of processor time."""
    status = Path(f"/proc/{running.process.pid}/status").read_text(encoding="ascii")
    stat = Path(f"/proc/{running.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(re.search(r"VmRSS:\s+(\d+)", status)[1]), len(os.listdir(f"/proc/{running.process.pid}/fd")),
            (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"))


def run(seconds, connections, store):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    n = min(connections, hard - 1000)
    print(f"{hard} descriptors are allowed; {n} connections are held")
    folder = tempfile.TemporaryDirectory(prefix="steady-soak-")
    path = rules_file(folder.name, RULES.format(rate=500000, store=store))
    running = Daemon("--config", path, "--threads", 2, "--admin", "127.0.0.1:0", "--log", "/dev/null")
    world = World(running, path, store)
    base = sample(running)[1]
    jobs = [threading.Thread(target=job, args=(world, *args)) for job, *args in [
        (hold, n), (write_slowly, 50), (read_slowly, 20), (vanish,), (flood,), (reload,)]]
    ends, (ours, theirs) = multiprocessing.Event(), multiprocessing.Pipe()
    good = multiprocessing.Process(target=behave, args=(running.port, ends, theirs))
    good.start()
    for job in jobs:
        job.start()
    samples, begun, step = [], time.monotonic(), max(1.0, seconds / 60)
    while time.monotonic() - begun < seconds and running.process.poll() is None:
        time.sleep(step)
        samples.append(sample(running))
        print(f"{time.monotonic() - begun:6.0f} s  {samples[-1][0] / 1024:7.1f} MiB  {samples[-1][1]:6} descriptors  "
              f"{samples[-1][2]:7.1f} s of CPU  {world.counts}", flush=True)
    world.ends = True
    ends.set()
    asked, wrong, p50, p99, longest = ours.recv()
    for job in [*jobs, good]:
        job.join()
    end = time.monotonic() + 90
    while sample(running)[1] > base and time.monotonic() < end:
        time.sleep(0.5)
    left = sample(running)[1] - base
    code = running.stop()
    quarter = len(samples) // 4
    early, late = samples[quarter:2 * quarter], samples[-quarter:]
    memory = [max(s[0] for s in part) for part in (early, late)]
    descriptors = [max(s[1] for s in part) for part in (early, late)]
    cpu = [part[-1][2] - part[0][2] for part in (early, late)]
    print(f"a client that behaves: {asked} answers, {wrong} wrong, p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
          f"longest {longest:.1f} ms")
    print(f"from the second to the last quarter: memory {memory[0]} -> {memory[1]} KiB, "
          f"descriptors {descriptors[0]} -> {descriptors[1]}, CPU {cpu[0]:.1f} -> {cpu[1]:.1f} s; left open {left}; "
          f"exit code {code}")
    grown = memory[1] > memory[0] * GROWTH + GROWTH_KIB or descriptors[1] > descriptors[0] * GROWTH + 100
    return 1 if wrong or grown or left > 0 or code != 0 else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--connections", type=int, default=10000)
    arguments = parser.parse_args()
    sys.exit(run(arguments.seconds, arguments.connections, os.environ.get("STORE", "memory:")))
