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
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
CORES = sorted(os.sched_getaffinity(0))
SERVER, CLIENT = CORES[0], CORES[-1]
KEYS = 100000
EXAMPLE = (Path(__file__).resolve().parent.parent / "examples" / "steady.yaml").read_text(encoding="utf-8")
RULES = re.sub(r"rate: \d+/(s|day) \}", "rate: 1000000/s }", EXAMPLE) + """
  - { name: envoy, match: { descriptor: { path: /api/things } }, key: "descriptor:x-api-key", rate: 1000000/s }
  - { name: envoy2, match: { descriptor: { path: /api/things } }, key: "descriptor:path", rate: 1000000/s }
"""
CHECKS = """
local requests, n = {}, 0
init = function()
  for i = 1, 10000 do
    requests[i] = wrk.format("GET", "/v1/check", {["X-Forwarded-Uri"] = "/api/things?id=" .. i % 100,
      ["X-Forwarded-Method"] = "GET", ["X-Forwarded-For"] = "192.0.2.7", ["X-Api-Key"] = "key-" .. i})
  end
end
request = function()
  n = n % 10000 + 1
  return requests[n]
end
"""
CRAB = """
local requests, n = {}, 0
init = function()
  for i = 1, 10000 do
    requests[i] = wrk.format("POST", "/throttle", {["Content-Type"] = "application/json"},
      '{"key": "key-' .. i .. '", "max_burst": 1000000, "count_per_period": 1000000, "period": 1, "quantity": 1}')
  end
end
request = function()
  n = n % 10000 + 1
  return requests[n]
end
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


def client(*words):
    words = ["taskset", "-c", CLIENT, *words]
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def pin(pid):
    subprocess.run(["taskset", "-a", "-p", "-c", str(SERVER), str(pid)], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def program(*command, port):
    process = subprocess.Popen(["taskset", "-c", str(SERVER), *map(str, command)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, command
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def daemon(folder):
    running = Daemon("--config", rules_file(folder, RULES), "--threads", 1, "--admin", "127.0.0.1:0",
                     "--log", folder / "decisions.log", "--buckets", 2000000)
    pin(running.process.pid)
    try:
        yield running
    finally:
        running.stop()


def rates(cases):
    """The median of each case; the cases take turns."""
    found = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, measure in cases.items():
            found[name].append(measure())
    return {name: median(values) for name, values in found.items()}


def wrk(folder, port, script="check.lua"):
    out = client("wrk", "-t1", "-c32", f"-d{max(1, round(SECONDS))}s", "-s", folder / script,
                 f"http://127.0.0.1:{port}")
    assert "Non-2xx" not in out, out
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])


def h2load(folder, port):
    out = client("h2load", "-c8", "-m32", "-D", max(1, round(SECONDS)), "-d", folder / "rls.bin",
                 "-H", "content-type: application/grpc", "-H", "te: trailers",
                 f"http://127.0.0.1:{port}{h2.RLS['path']}")
    assert re.search(r"(\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", out), out
    return float(re.search(r"([\d.]+) req/s", out)[1])


def redis_benchmark(port, pipeline, *words):
    count = int(SECONDS * (40000 if pipeline == 1 else 200000))
    out = client("redis-benchmark", "-p", port, "-n", count, "-c", 32, "-P", pipeline, "-r", KEYS, "--csv", *words)
    return float(next(csv.DictReader(io.StringIO(out[out.index('"test"'):])))["rps"])


def measure_http(folder, running, nginx):
    found = rates({"steady": lambda: wrk(folder, running.port), "nginx": lambda: wrk(folder, nginx)})
    row("serve_check", "daemon, /v1/check, against nginx with return 200", found["steady"], "/s", found["nginx"],
        (">=", 1.0))
    log = folder / "latency"
    rate = max(100, int(found["steady"] / 2))
    client("h2load", "--h1", "-c32", "-D", 5, f"--rps={max(1, rate // 32)}", f"--log-file={log}",
           "-H", "X-Forwarded-Uri: /api/things", "-H", "X-Forwarded-For: 192.0.2.7", "-H", "X-Api-Key: k",
           f"http://127.0.0.1:{running.port}/v1/check")
    times = sorted(int(line.split()[2]) for line in log.read_text(encoding="ascii").splitlines())
    row("serve_check_p99", f"daemon, /v1/check, p99 at half of that rate ({len(times) // 5}/s)",
        times[len(times) * 99 // 100] / 1000, "ms", None, ("<", 1.0))


def measure_throttlecrab(folder, running):
    """`cargo install throttlecrab-server` builds it. It needs protobuf-compiler."""
    found = shutil.which("throttlecrab-server")
    if found is None:
        say("skipped: throttlecrab-server is not in the PATH")
        return
    http, redis = free_port(), free_port()
    with program(found, "--http", "--http-host", "127.0.0.1", "--http-port", http, "--redis", "--redis-host",
                 "127.0.0.1", "--redis-port", redis, port=http):
        rate = rates({"steady": lambda: wrk(folder, running.port), "crab": lambda: wrk(folder, http, "crab.lua")})
        row("serve_check_throttlecrab", "daemon, /v1/check, against throttlecrab-server", rate["steady"], "/s",
            rate["crab"], (">=", 5))
        words = ("k:__rand_int__", 1000000, 1000000, 1)
        for pipeline in (1, 16):
            rate = rates({"steady": lambda p=pipeline: redis_benchmark(running.port, p, "CL.THROTTLE", *words),
                          "crab": lambda p=pipeline: redis_benchmark(redis, p, "THROTTLE", *words)})
            row(f"serve_throttle_throttlecrab_{pipeline}",
                f"daemon, CL.THROTTLE, pipeline of {pipeline}, against throttlecrab-server", rate["steady"], "/s",
                rate["crab"])


def measure_rls(folder, running):
    site = folder / "site" / h2.RLS["path"].lstrip("/")
    site.parent.mkdir(parents=True)
    site.write_bytes(bytes(150))
    port = free_port()
    with program("nghttpd", "--no-tls", "-n1", "-a", "127.0.0.1", "-d", folder / "site", port, port=port):
        found = rates({"steady": lambda: h2load(folder, running.port), "nghttpd": lambda: h2load(folder, port)})
    row("serve_rls", "daemon, RLS over gRPC, against nghttpd with the same POST", found["steady"], "/s",
        found["nghttpd"], (">=", 0.7))


def measure_resp(folder, running):
    words = ["CL.THROTTLE", "k:__rand_int__", 1000000, 1000000, 1]
    redis = Redis(folder, "--loadmodule", str(BUILD / "steady.so"))
    pin(redis.process.pid)
    try:
        for pipeline in (1, 16):
            found = rates({"steady": lambda p=pipeline: redis_benchmark(running.port, p, *words),
                           "ping": lambda p=pipeline: redis_benchmark(redis.port, p, "PING"),
                           "module": lambda p=pipeline: redis_benchmark(redis.port, p, *words)})
            how = "no pipeline" if pipeline == 1 else "pipeline of 16"
            row(f"serve_throttle_ping_{pipeline}", f"daemon, CL.THROTTLE, {how}, against PING of Redis",
                found["steady"], "/s", found["ping"], (">=", 1.0))
            row(f"serve_throttle_module_{pipeline}", f"daemon, CL.THROTTLE, {how}, against Redis with steady.so",
                found["steady"], "/s", found["module"], (">=", 1.5))
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
        (folder / "check.lua").write_text(CHECKS, encoding="ascii")
        (folder / "crab.lua").write_text(CRAB, encoding="ascii")
        (folder / "rls.bin").write_bytes(h2.rls_body("bench", ("path", "/api/things"), ("x-api-key", "k")))
        nginx = free_port()
        (folder / "nginx.conf").write_text(NGINX.format(folder, nginx), encoding="ascii")
        say(f"load of the machine: {os.getloadavg()[0]:.1f}")
        with daemon(folder) as running:
            with program("nginx", "-c", folder / "nginx.conf", "-p", folder, port=nginx):
                measure_http(folder, running, nginx)
            measure_rls(folder, running)
            measure_resp(folder, running)
            measure_throttlecrab(folder, running)
        measure_memory(folder)


main()
