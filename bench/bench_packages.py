# SPDX-License-Identifier: MIT
"""Measures aiosteady and other packages, with the same limits on the same Redis. bench/packages.py uses each of them.
Each has a process of its own, and they take turns.

    bench_packages.py BUILD ROUNDS            prints one JSON object a line, as scripts/bench collects them, and writes
                                              BUILD/packages.md: the tables of docs/explanation/comparison.md
    bench_packages.py decide GROUP NAME URL   reads "sample TASKS COUNT" or "flood TASKS SECONDS", answers in JSON
    bench_packages.py serve NAME URL PORT     serves an application of APPS on 127.0.0.1
"""
import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import packages

ROOT = Path(__file__).resolve().parent.parent
TASKS = (1, 64, 512)
KEYS = [f"user:{n}" for n in range(1000)]
WIDE = (10**6, 3600)  # every decision is allowed
NARROW = (50, 1)  # for the flood
FLOOD_SECONDS, FLOOD_PROCESSES, FLOOD_TASKS = 5, 2, 32
SAMPLE_S = 0.5  # about as long is each sample
GROUPS = {"redis": packages.OVER_REDIS, "memory": packages.IN_MEMORY}
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 23)}  # see bench_python.py


# ---- A process that decides ----


async def ask(decide, count, start):
    for at in range(start, start + count):
        assert await decide(KEYS[at % len(KEYS)])


async def sample(decide, tasks, count):
    each = max(1, count // tasks)
    began, cpu_began = time.perf_counter(), time.process_time()
    await asyncio.gather(*(ask(decide, each, task * each) for task in range(tasks)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return {"us": took * 1e6 / (each * tasks), "cpu": cpu * 1e6 / (each * tasks), "count": each * tasks}


async def flood(decide, tasks, seconds):
    """Asks for one key as fast as it can."""
    began, counts = time.monotonic(), {True: 0, False: 0}

    async def ask():
        while time.monotonic() - began < seconds:
            counts[bool(await decide("flooded"))] += 1
            await asyncio.sleep(0)
    await asyncio.gather(*(ask() for _ in range(tasks)))
    return {"allowed": counts[True], "denied": counts[False], "seconds": time.monotonic() - began}


async def decide(group, name, url):
    decider = GROUPS[group][name]
    wide = await decider(url, *WIDE)
    await ask(wide, len(KEYS), 0)
    print("ready", flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        if what == "sample":
            answer = await sample(wide, *map(int, numbers))
        else:
            answer = await flood(await decider(url, *NARROW), *map(int, numbers))
        print(json.dumps(answer), flush=True)


# ---- A process that serves ----


def serve(name, url, port):
    import uvicorn
    app = packages.APPS[name](url, *WIDE)
    uvicorn.run(app, host="127.0.0.1", port=int(port), loop="uvloop", http="httptools", lifespan="off",
                access_log=False, log_level="warning")


# ---- The turns ----


def cpu_ns(pid):
    """The CPU time of a process, with its threads that have ended: the clock of clock_getcpuclockid(3) on Linux."""
    return time.clock_gettime_ns(~pid << 3 | 2)


class Child:
    def __init__(self, path, *words, **streams):
        environment = {**os.environ, **MALLOC, "PYTHONPATH": os.pathsep.join(map(str, path)),
                       "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, __file__, *map(str, words)]
        self.child = subprocess.Popen(command, env=environment, text=True, **streams)

    def cpu_ns(self):
        return cpu_ns(self.child.pid)

    def stop(self):
        if self.child.stdin:
            self.child.stdin.close()
        else:
            self.child.terminate()
        self.child.wait()


class Decider(Child):
    def __init__(self, path, group, name, url):
        super().__init__(path, "decide", group, name, url, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.child.stdout.readline() == "ready\n", f"{name} does not start"
        self.begin("sample", 1, 200)
        self.per_second = 1e6 / self.end()["us"]

    def begin(self, *words):
        print(*words, file=self.child.stdin, flush=True)

    def end(self):
        return json.loads(self.child.stdout.readline())

    def measure(self, tasks, server):
        """us, us of client CPU and us of server CPU for a decision"""
        before = server and cpu_ns(server.process.pid)
        self.begin("sample", tasks, max(tasks, int(self.per_second * SAMPLE_S)))
        found = self.end()
        self.per_second = 1e6 / found["us"] if tasks == 1 else self.per_second
        theirs = (cpu_ns(server.process.pid) - before) / 1000 / found["count"] if server else 0.0
        return found["us"], found["cpu"], theirs


class Application(Child):
    def __init__(self, path, name, url):
        from resp import free_port
        self.port = free_port()
        super().__init__(path, "serve", name, url, self.port)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.fields = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5).headers
                return
            except urllib.error.URLError:
                assert time.monotonic() < deadline and self.child.poll() is None, f"{name} does not start"
                time.sleep(0.05)

    def measure(self, server):
        """us of CPU of this server and of Redis for a request"""
        ours, theirs = self.cpu_ns(), cpu_ns(server.process.pid)
        out = subprocess.run(["wrk", "-t", "1", "-c", "16", "-d", "1s", f"http://127.0.0.1:{self.port}/"], check=True,
                             capture_output=True, text=True).stdout
        assert "Non-2xx" not in out and "Socket errors" not in out, out
        count = int(re.search(r"(\d+) requests in", out)[1])
        return (self.cpu_ns() - ours) / 1000 / count, (cpu_ns(server.process.pid) - theirs) / 1000 / count


def medians(samples):
    return tuple(map(median, zip(*samples)))


def in_turn(cases, measure, rounds):
    """{case: [what measure(case) returns, for each round]}; the first round warms."""
    found = {case: [] for case in cases}
    for round_ in range(-1, rounds):
        for case in cases:
            values = measure(case)
            if round_ >= 0:
                found[case].append(values)
    return found


def measure_decisions(group, path, server, rounds):
    """{(name, tasks): (us, client CPU us, server CPU us)}"""
    with ExitStack() as stack:
        deciders = {}
        for database, name in enumerate(GROUPS[group]):  # the strategies of a package share their keys
            deciders[name] = Decider(path, group, name, f"{server.url}/{database}" if group == "redis" else "memory:")
            stack.callback(deciders[name].stop)
        asked = server if group == "redis" else None
        cases = [(name, tasks) for tasks in TASKS for name in deciders]
        found = in_turn(cases, lambda case: deciders[case[0]].measure(case[1], asked), rounds)
        return {case: medians(samples) for case, samples in found.items()}


def measure_flood(path, server):
    """{name: (allowed, the most that the limit allows, decisions)}: two processes ask for one key of a narrow limit."""
    found = {}
    for name in packages.OVER_REDIS:
        server("FLUSHALL")
        deciders = [Decider(path, "redis", name, server.url) for _ in range(FLOOD_PROCESSES)]
        began = time.monotonic()
        for decider in deciders:
            decider.begin("flood", FLOOD_TASKS, FLOOD_SECONDS)
        answers = [decider.end() for decider in deciders]
        took = time.monotonic() - began
        for decider in deciders:
            decider.stop()
        allowed = sum(answer["allowed"] for answer in answers)
        count, seconds = NARROW
        asked = allowed + sum(answer["denied"] for answer in answers)
        found[name] = allowed, int(count + took * count / seconds), asked
    return found


def measure_http(store, path, server, rounds):
    """{name: (us over bare, us of Redis, us, fields)}"""
    with ExitStack() as stack:
        apps = {}
        for database, name in enumerate(packages.APPS):
            apps[name] = Application(path, name, f"{server.url}/{database}" if store == "redis" else "memory:")
            stack.callback(apps[name].stop)
        found = in_turn(apps, lambda name: apps[name].measure(server), rounds)
        fields = {name: [field for field in app.fields if re.search("ratelimit|retry-after", field, re.I)]
                  for name, app in apps.items()}
    over_bare = {name: [(us - bare, redis - idle, us) for (us, redis), (bare, idle) in zip(samples, found["bare"])]
                 for name, samples in found.items()}
    return {name: (*medians(samples), fields[name]) for name, samples in over_bare.items()}


# ---- The rows and the tables ----


def emit(name, title, value, unit, baseline):
    print(json.dumps({"name": name, "title": title, "value": value, "unit": unit, "baseline": baseline, "goal": None}))


def slug(name):
    return re.sub(r"\W+", "_", name).strip("_").lower()


def table(head, rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(head) - 1), *lines[1:]]) + "\n"


def rate(value):
    """Two digits that count, with thousands."""
    digits = max(0, len(str(int(value))) - 2)
    return f"{round(value, -digits):,.0f}"


def figure(value):
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def report_decisions(group, found):
    names = list(dict.fromkeys(name for name, _ in found))
    where = "one Redis" if group == "redis" else "memory"
    ours = names[0]
    for (name, tasks), (us, cpu, _) in found.items():
        row, how = f"packages_{group}_{slug(name)}_{tasks}", f"{where}, {name.replace('`', '')}, tasks: {tasks}"
        emit(f"{row}_rate", f"{how}, decisions", 1e6 / us, "/s", 1e6 / found[ours, tasks][0])
        emit(f"{row}_cpu", f"{how}, CPU a decision", cpu, "us", found[ours, tasks][1])
    columns = {"decisions/s": lambda us, *_: rate(1e6 / us), "CPU µs": lambda _, cpu, theirs: figure(cpu)}
    if group == "redis":
        columns["Redis CPU µs"] = lambda _, cpu, theirs: figure(theirs)
    return table(["tasks:", *(f"{tasks}, {title}" for title in columns for tasks in TASKS)],
                 [[name, *(cell(*found[name, tasks]) for cell in columns.values() for tasks in TASKS)] for name in names])


def report_flood(found):
    for name, (allowed, bound, asked) in found.items():
        title = f"flood of {asked}, {name.replace('`', '')}, allowed, against the limit"
        emit(f"packages_flood_{slug(name)}", title, allowed, "", bound)
    return table(["package", "asked", "allowed", "the limit allows at most"],
                 [[name, rate(asked), str(allowed), str(bound)] for name, (allowed, bound, asked) in found.items()])


def report_http(found):
    for store, cases in found.items():
        for name, (_, _, us, _) in cases.items():
            title = f"FastAPI, {name}, {store}, CPU a request, against bare"
            emit(f"packages_http_{store}_{slug(name)}", title, us, "us", cases["bare"][2])
    rows = [[name, figure(added), figure(found["memory"][name][0]), figure(redis), ", ".join(fields) or "none"]
            for name, (added, redis, _, fields) in found["redis"].items() if name != "bare"]
    return table(["package", "CPU µs over bare, Redis", "CPU µs over bare, memory", "Redis CPU µs", "fields of a 200"], rows)


# ---- All ----


def processor():
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def main(build, rounds):
    sys.path.insert(0, str(ROOT / "tests"))
    import aiosteady_build
    from resp import Redis
    ours = aiosteady_build.build(build / "python")
    try:
        path = [ours, aiosteady_build.from_pypi(build / "pypi", *packages.REQUIREMENTS)]
    except aiosteady_build.Unavailable as why:
        print(f"skipped: other packages, which pip could not install: {why}", file=sys.stderr)
        return
    text = [f"{time.strftime('%-d %B %Y')}. {os.cpu_count()} processors, {processor()}. "
            f"Python {platform.python_version()}. Load {os.getloadavg()[1]:.1f} at the start. Medians of {rounds}.\n"]
    with tempfile.TemporaryDirectory(prefix="steady-bench-") as folder:
        server = Redis(Path(folder))
        try:
            for group in GROUPS:
                text.append(f"### Decisions {'over Redis' if group == 'redis' else 'in memory'}\n")
                text.append(report_decisions(group, measure_decisions(group, path, server, rounds)))
                if group == "redis":
                    text += ["### A flood of one key\n", report_flood(measure_flood(path, server))]
            if shutil.which("wrk") is None:
                print("skipped: requests of FastAPI; wrk is not installed", file=sys.stderr)
            else:
                text.append("### A request of FastAPI\n")
                stores = ("redis", "memory")
                text.append(report_http({store: measure_http(store, path, server, rounds) for store in stores}))
        finally:
            server.stop()
    text[0] = text[0].replace(" at the start", f" at the start and {os.getloadavg()[1]:.1f} at the end")
    (build / "packages.md").write_text("\n".join(text))
    print("\n".join(text), file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1] == "decide":
        asyncio.run(decide(*sys.argv[2:]))
    elif sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
