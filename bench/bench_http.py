# SPDX-License-Identifier: MIT
"""Measures the CPU time that the ASGI middleware adds to a request: real uvicorn with a bare application, and the same with
RateLimit and an embedded store, in turn. wrk sends the requests. The time is that of the server's only thread, in the
kernel and outside. Beside a median stands the range of the middle half of the rounds.

    bench_http.py BUILD ROUNDS            prints one JSON object a line, as scripts/bench collects them
    bench_http.py serve APP SERVER PORT   serves an application of APPS on 127.0.0.1 and ::1
"""
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
SERVERS = {"standard": ("uvicorn==0.54.0", "uvloop==0.22.1", "httptools==0.8.0"),  # as uvicorn[standard] does
           "plain": ("uvicorn==0.54.0",)}  # asyncio and h11
SECONDS = 1  # of a sample; wrk takes whole seconds
CONNECTIONS = 16
GOAL = 8.0  # us of CPU for a request
FORWARDED = ROOT / "bench" / "forwarded.lua"
# name: (server, host, application that is compared with the bare one, title, goal). The clients are the peers of the
# connections. In "forwarded" the peer is a proxy, which names 100,000 IPv6 clients in turn.
CASES = {
    "ipv4": ("standard", "127.0.0.1", "limited", "IPv4 clients", GOAL),
    "ipv6": ("standard", "[::1]", "limited", "IPv6 clients", GOAL),
    "forwarded": ("standard", "127.0.0.1", "behind_proxy", "IPv6 clients behind a proxy", GOAL),
    "fields": ("standard", "127.0.0.1", "fields", "only two fields more", None),
    "h11": ("plain", "127.0.0.1", "limited", "h11, IPv4 clients", None),
    "h11_fields": ("plain", "127.0.0.1", "fields", "h11, only two fields more", None),
}


# ---- The applications ----


async def bare(scope, receive, send):
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/plain"), (b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def fields(scope, receive, send):
    """The part of the server in what the middleware costs: it sends two fields more."""
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/plain"), (b"content-length", b"5"),
                            (b"ratelimit-policy", b'"default";q=2147483647;w=2147483647'),
                            (b"ratelimit", b'"default";r=2147483000;t=2147483000')]})
    await send({"type": "http.response.body", "body": b"hello"})


def limited(**key):
    from aiosteady import Throttler
    from aiosteady.asgi import RateLimit, client_address
    return RateLimit(bare, Throttler("memory:", 2**31 - 1, 1.0), key=client_address(**key))


APPS = {"bare": lambda: bare, "fields": lambda: fields, "limited": limited, "behind_proxy": lambda: limited(trusted_hops=1)}


def serve(app, server, port):
    import socket

    import uvicorn
    sockets = []
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        listening = socket.socket(family)
        listening.bind((host, int(port)))
        sockets.append(listening)
    loop, http = ("uvloop", "httptools") if server == "standard" else ("asyncio", "h11")
    config = uvicorn.Config(APPS[app](), loop=loop, http=http, lifespan="off", access_log=False, log_level="warning",
                            proxy_headers=False)
    uvicorn.Server(config).run(sockets)


# ---- The turns ----


class Server:
    def __init__(self, app, server, path):
        from resp import free_port
        self.port = free_port()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
        self.child = subprocess.Popen([sys.executable, __file__, "serve", app, server, str(self.port)], env=environment)
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5).close()
                return
            except urllib.error.URLError:
                assert time.monotonic() < deadline and self.child.poll() is None, f"{app} does not start"
                time.sleep(0.05)

    def sample(self, host, forwarded):
        """us of CPU for a request"""
        script = ["-s", str(FORWARDED)] if forwarded else []
        command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{SECONDS}s", *script, f"http://{host}:{self.port}/"]
        before = self.cpu_ns()
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        used = self.cpu_ns() - before
        assert "Non-2xx" not in out and "Socket errors" not in out, out
        return used / 1000 / int(re.search(r"(\d+) requests in", out)[1])

    def cpu_ns(self):
        return int(Path(f"/proc/{self.child.pid}/schedstat").read_text().split()[0])

    def stop(self):
        self.child.terminate()
        self.child.wait()


def measure(servers, cases, rounds):
    """{case: [(us of the bare application, us of the other one) for each round]}. They begin in turn."""
    found = {case: [] for case in cases}
    for round_ in range(-1, rounds):  # the first one warms
        for case, (_, host, app, _, _) in cases.items():
            order = ("bare", app) if round_ % 2 else (app, "bare")
            us = {name: servers[name].sample(host, case == "forwarded") for name in order}
            if round_ >= 0:
                found[case].append((us["bare"], us[app]))
    return found


# ---- The rows ----


def emit(name, title, value, baseline=None, goal=None):
    print(json.dumps({"name": name, "title": title, "value": value, "unit": "us", "baseline": baseline, "goal": goal}), flush=True)


def report(found):
    for case, pairs in found.items():
        added = [whole - bare for bare, whole in pairs]
        low, _, high = quantiles(added, n=4)
        _, _, _, title, goal = CASES[case]
        bare, whole = (median(side) for side in zip(*pairs))
        emit(f"http_{case}", f"HTTP, CPU over a bare application, {title} ({low:.1f} to {high:.1f})", median(added), None,
             goal and ["<=", goal])
        emit(f"http_{case}_whole", "the same, whole request", whole, bare)


def main(build, rounds):
    sys.path.insert(0, str(ROOT / "tests"))
    import aiosteady_build
    if shutil.which("wrk") is None:
        print("skipped: HTTP; wrk is not installed", file=sys.stderr)
        return
    ours = aiosteady_build.build(build / "python")
    for server, requirements in SERVERS.items():
        try:
            path = [ours, aiosteady_build.from_pypi(build / "pypi", *requirements)]
        except aiosteady_build.Unavailable as why:
            print(f"skipped: uvicorn, which pip could not install: {why}", file=sys.stderr)
            continue
        cases = {case: CASES[case] for case in CASES if CASES[case][0] == server}
        servers = {}
        try:
            for app in {"bare", *(app for _, _, app, _, _ in cases.values())}:
                servers[app] = Server(app, server, path)
            report(measure(servers, cases, rounds))
        finally:
            for child in servers.values():
                child.stop()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
