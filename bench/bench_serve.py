#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The daemon against servers of the same run: `make bench serve`.

The server has one core, the client another. The daemon has the example rules with rates that deny nothing, and writes
metrics, top keys and the decision log. Prints one JSON object a line, as the other programs in bench/."""
import contextlib
import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
os.environ["BUILD"] = sys.argv[1]
import serve_h2 as h2
from resp import Redis, free_port, wire_of
from serve_rig import Daemon, rules_file

BUILD, ROUNDS = Path(sys.argv[1]).resolve(), int(sys.argv[2])
SECONDS = float(os.environ.get("BENCH_SECONDS", "1"))
CORES = sorted(os.sched_getaffinity(0))
SERVER, CLIENT = CORES[0], CORES[-1]
KEYS = 100000
EXAMPLE = (Path(__file__).resolve().parent.parent / "examples" / "steady.yaml").read_text(encoding="utf-8")
RULES = re.sub(r"rate: \d+/(s|day) \}", "rate: 1000000/s }", EXAMPLE) + """
  - { name: envoy, match: { descriptor: { path: /api/things } }, key: "descriptor:x-api-key", rate: 1000000/s }
  - { name: envoy2, match: { descriptor: { path: /api/things } }, key: "descriptor:path", rate: 1000000/s }
"""
# A file of envoyproxy/ratelimit. Both servers read it.
RATELIMIT = """
domain: bench
descriptors:
  - key: path
    value: /api/things
    descriptors:
      - key: x-api-key
        rate_limit: { unit: second, requests_per_unit: 1000000 }
"""
NGINX = """
daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {0}/error.log;
events {{ worker_connections 2000; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {0}; proxy_temp_path {0};
  fastcgi_temp_path {0}; uwsgi_temp_path {0}; scgi_temp_path {0};
  server {{ listen 127.0.0.1:{1}; location / {{ add_header RateLimit '"burst";r=999999;t=1'; return 200; }} }} }}
"""


def row(name, title, value, unit, baseline=None, goal=None):
    print(json.dumps({"name": name, "title": title, "value": value, "unit": unit, "baseline": baseline, "goal": goal}),
          flush=True)


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- Programs ----


def client(*words, given=None):
    words = ["taskset", "-c", CLIENT, *words]
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True, input=given).stdout


def pin(pid, core=SERVER):
    subprocess.run(["taskset", "-a", "-p", "-c", str(core), str(pid)], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def program(*command, port, **env):
    """Its process id, when it listens."""
    process = subprocess.Popen(["taskset", "-c", str(SERVER), *map(str, command)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env={**os.environ, **env})
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, command
                time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def daemon(folder, rules=RULES, *options):
    running = Daemon("--config", rules_file(folder, rules), "--threads", 1, "--admin", "127.0.0.1:0",
                     "--log", folder / "decisions.log", *options)
    pin(running.process.pid)
    try:
        yield running
    finally:
        running.stop()


def anchor(name):
    """A program of scripts/bench-anchors; None: it was not built."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "steady-bench" / "bin"
    found = shutil.which(name, path=f"{cache}:{os.environ['PATH']}")
    if found is None:
        say(f"skipped: {name} is not there; scripts/bench-anchors builds it")
    return found


# ---- Measuring ----


def processor_time(pid):
    """us of processor time that a process and its children have used so far: in all, and in the kernel."""
    used, in_kernel = 0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        used += int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1000
        in_kernel += int((task / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[12]) * 1e6 / os.sysconf("SC_CLK_TCK")
        for child in (task / "children").read_text(encoding="ascii").split():
            more = processor_time(child)
            used, in_kernel = used + more[0], in_kernel + more[1]
    return used, in_kernel


def compare(sides):
    """The medians of each side: rate, and us of the processor of its server for a request, in all and in the kernel.
    The sides take turns. A side is the process id of its server, and what measures (requests, seconds)."""
    found = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, (pid, measure) in sides.items():
            before = processor_time(pid)
            count, seconds = measure()
            after = processor_time(pid)
            found[name].append((count / seconds, *((b - a) / count for a, b in zip(before, after))))
    return {name: [median(values) for values in zip(*lines)] for name, lines in found.items()}


def rows(name, title, found, against, goal=None):
    """The rate, and below it what the processor of the server says: noise of the machine disturbs it less."""
    (rate, cpu, kernel), (its_rate, its_cpu, its_kernel) = found["steady"], found[against]
    row(name, title, rate, "/s", its_rate, goal)
    row(f"{name}_cpu", f"the same, server CPU for a request, {share(kernel, cpu)} against {share(its_kernel, its_cpu)} of it "
        "in the kernel", cpu, "us", its_cpu)
    for side, busy in (("the daemon", rate * cpu / 1e6), (against, its_rate * its_cpu / 1e6)):
        if busy < 0.9:
            say(f"note: {name}: {side} used {busy:.0%} of its core; the client or other programs held it back")


def share(part, whole):
    return f"{min(1, part / whole):.0%}"


# ---- Clients ----


def request(method, path, body="", **fields):
    """A request for load_http, with its length before it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k.replace('_', '-')}: {v}" for k, v in fields.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    text = "\r\n".join([*lines, "", body])
    return f"{len(text)}\n{text}"


def requests(make):
    return "".join(make(i) for i in range(10000))


CHECKS = requests(lambda i: request("GET", "/v1/check", X_Forwarded_Uri=f"/api/things?id={i % 100}",
                                    X_Forwarded_Method="GET", X_Forwarded_For="192.0.2.7", X_Api_Key=f"key-{i}"))
CRAB = requests(lambda i: request("POST", "/throttle", json.dumps(
    {"key": f"key-{i}", "max_burst": 1000000, "count_per_period": 1000000, "period": 1, "quantity": 1}),
    Content_Type="application/json"))
DESCRIPTORS = requests(lambda i: request("POST", "/json", json.dumps(
    {"domain": "bench", "descriptors": [{"entries": [{"key": "path", "value": "/api/things"},
                                                     {"key": "x-api-key", "value": f"key-{i}"}]}]}),
    Content_Type="application/json"))


def load(port, given, rate=0, seconds=SECONDS):
    """(answers, seconds, p50, p99, longest, p99 of the delays of the client), times in us: see load_http.c."""
    out = client(BUILD / "bench" / "load_http", port, 32, rate, seconds, given=given)
    count, failed, *more = map(float, out.split())
    if failed > 0:
        say(f"note: {failed:.0f} of {count + failed:.0f} answers were not 200; they do not count")
    return count, *more


def load_rate(port, given):
    return lambda: load(port, given)[:2]


def h2load(folder, port):
    out = client("h2load", "-c8", "-m32", "-D", max(1, round(SECONDS)), "-d", folder / "rls.bin",
                 "-H", "content-type: application/grpc", "-H", "te: trailers",
                 f"http://127.0.0.1:{port}{h2.RLS['path']}")
    count = int(re.search(r"(\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", out)[1])
    return count, count / float(re.search(r"([\d.]+) req/s", out)[1])


def redis_benchmark(port, pipeline, *words, each_second=None):
    """It has no option for a time. each_second: requests, about as many as the server answers."""
    count = int(SECONDS * (each_second or (40000 if pipeline == 1 else 200000)))
    out = client("redis-benchmark", "-p", port, "-n", count, "-c", 32, "-P", pipeline, "-r", KEYS, "--csv", *words)
    return count, count / float(next(csv.DictReader(io.StringIO(out[out.index('"test"'):])))["rps"])


# ---- Rows ----


def measure_check(running, nginx, nginx_port):
    found = compare({"steady": (running.process.pid, load_rate(running.port, CHECKS)),
                     "nginx": (nginx, load_rate(nginx_port, CHECKS))})
    rows("serve_check", "daemon, /v1/check, against nginx with return 200", found, "nginx", (">=", 1.0))
    rate = int(found["steady"][0] / 2)
    times = {port: [] for port in (running.port, nginx_port)}
    for _ in range(ROUNDS):
        for port, seen in times.items():
            seen.append(load(port, CHECKS, rate)[3:])
    (p99, _, delay), (its_p99, _, _) = ([median(values) / 1000 for values in zip(*seen)] for seen in times.values())
    row("serve_check_p99", f"daemon, /v1/check, p99 at half of that rate ({rate}/s), against nginx at the same rate",
        p99, "ms", its_p99, ("<", 1.0))
    row("serve_check_delay", "the same, p99 of how late the client sent", delay, "ms")


def measure_throttlecrab(running):
    found = anchor("throttlecrab-server")
    if found is None:
        return
    http, redis = free_port(), free_port()
    with program(found, "--http", "--http-host", "127.0.0.1", "--http-port", http, "--redis", "--redis-host",
                 "127.0.0.1", "--redis-port", redis, port=http) as crab:
        rows("serve_check_throttlecrab", "daemon, /v1/check, against POST /throttle of throttlecrab-server", compare(
            {"steady": (running.process.pid, load_rate(running.port, CHECKS)),
             "throttlecrab": (crab, load_rate(http, CRAB))}), "throttlecrab", (">=", 5))
        words = ("k:__rand_int__", 1000000, 1000000, 1)
        for pipeline in (1, 16):
            found = compare({
                "steady": (running.process.pid, lambda p=pipeline: redis_benchmark(running.port, p, "CL.THROTTLE", *words)),
                "throttlecrab": (crab, lambda p=pipeline: redis_benchmark(redis, p, "THROTTLE", *words, each_second=20000))})
            rows(f"serve_throttle_throttlecrab_{pipeline}",
                 f"daemon, CL.THROTTLE, {how(pipeline)}, against THROTTLE of throttlecrab-server", found, "throttlecrab")


def measure_ratelimit(folder):
    """envoyproxy/ratelimit counts in fixed windows, the daemon in buckets; one Redis serves both, on the client's core."""
    found = anchor("envoyproxy-ratelimit")
    if found is None:
        return
    ports = [free_port() for _ in range(3)]
    config = folder / "runtime" / "ratelimit" / "config"
    config.mkdir(parents=True)
    (config / "bench.yaml").write_text(RATELIMIT, encoding="ascii")
    redis = Redis(folder)
    pin(redis.process.pid, CLIENT)
    settings = {"HOST": "127.0.0.1", "PORT": ports[0], "GRPC_HOST": "127.0.0.1", "GRPC_PORT": ports[1],
                "DEBUG_HOST": "127.0.0.1", "DEBUG_PORT": ports[2], "RUNTIME_ROOT": folder / "runtime",
                "RUNTIME_SUBDIRECTORY": "ratelimit", "RUNTIME_WATCH_ROOT": "false", "USE_STATSD": "false",
                "LOG_LEVEL": "error", "REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": f"127.0.0.1:{redis.port}"}
    rules = f"store: redis://127.0.0.1:{redis.port}/0\ninclude: [ {config}/bench.yaml ]\n"
    try:
        with program(found, port=ports[0], **{name: str(value) for name, value in settings.items()}) as ratelimit:
            with daemon(folder, rules) as running:
                rows("serve_json", "daemon, POST /json, Redis store, against envoyproxy/ratelimit", compare(
                    {"steady": (running.process.pid, load_rate(running.port, DESCRIPTORS)),
                     "ratelimit": (ratelimit, load_rate(ports[0], DESCRIPTORS))}), "ratelimit", (">=", 3))
    finally:
        redis.stop()


def measure_rls(folder, running):
    site = folder / "site" / h2.RLS["path"].lstrip("/")
    site.parent.mkdir(parents=True)
    site.write_bytes(bytes(150))
    port = free_port()
    with program("nghttpd", "--no-tls", "-n1", "-a", "127.0.0.1", "-d", folder / "site", port, port=port) as nghttpd:
        rows("serve_rls", "daemon, RLS over gRPC, against nghttpd with the same POST", compare(
            {"steady": (running.process.pid, lambda: h2load(folder, running.port)),
             "nghttpd": (nghttpd, lambda: h2load(folder, port))}), "nghttpd", (">=", 0.7))


def how(pipeline):
    return "no pipeline" if pipeline == 1 else f"pipeline of {pipeline}"


def measure_resp(folder, running):
    words = ["CL.THROTTLE", "k:__rand_int__", 1000000, 1000000, 1]
    redis = Redis(folder, "--loadmodule", str(BUILD / "steady.so"))
    pin(redis.process.pid)
    try:
        for pipeline in (1, 16):
            found = compare({
                "steady": (running.process.pid, lambda p=pipeline: redis_benchmark(running.port, p, *words)),
                "PING": (redis.process.pid, lambda p=pipeline: redis_benchmark(redis.port, p, "PING")),
                "steady.so": (redis.process.pid, lambda p=pipeline: redis_benchmark(redis.port, p, *words))})
            rows(f"serve_throttle_ping_{pipeline}", f"daemon, CL.THROTTLE, {how(pipeline)}, against PING of Redis", found,
                 "PING", (">=", 1.0))
            rows(f"serve_throttle_module_{pipeline}", f"daemon, CL.THROTTLE, {how(pipeline)}, against Redis with steady.so",
                 found, "steady.so", (">=", 1.5))
    finally:
        redis.stop()


def measure_memory(folder):
    """1,000,000 keys that have drops, and 1,000 connections that have asked."""
    running = Daemon("--config", rules_file(folder, RULES), "--threads", 1, "--buckets", 1000000)
    try:
        with socket.create_connection(("127.0.0.1", running.port)) as s, s.makefile("rb") as file:
            for first in range(0, 1000000, 1000):
                s.sendall(b"".join(wire_of(["CL.THROTTLE", f"key:{k}", 9, 10, 86400])
                                   for k in range(first, first + 1000)))
                for _ in range(6 * 1000):
                    file.readline()
        idle = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(1000)]
        for s in idle:
            s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            s.recv(1000)
        status = Path(f"/proc/{running.process.pid}/status").read_text(encoding="ascii")
        row("serve_memory", "daemon, 1,000,000 keys and 1,000 idle connections",
            int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024, "MiB", None, ("<", 64))
        for s in idle:
            s.close()
    finally:
        running.stop()


def main():
    with tempfile.TemporaryDirectory(prefix="steady-bench-") as name:
        folder = Path(name)
        (folder / "rls.bin").write_bytes(h2.rls_body("bench", ("path", "/api/things"), ("x-api-key", "k")))
        nginx_port = free_port()
        (folder / "nginx.conf").write_text(NGINX.format(folder, nginx_port), encoding="ascii")
        say(f"load of the machine: {os.getloadavg()[0]:.1f}")
        with daemon(folder, RULES, "--buckets", 2000000) as running:
            with program("nginx", "-c", folder / "nginx.conf", "-p", folder, port=nginx_port) as nginx:
                measure_check(running, nginx, nginx_port)
            measure_rls(folder, running)
            measure_resp(folder, running)
            measure_throttlecrab(running)
        measure_ratelimit(folder)
        measure_memory(folder)


main()
