# SPDX-License-Identifier: MIT
"""Measures the Python package against aiosteady 22.1.0, and against itself over redis-py: with pipelines, and with a call of
the client for each decision. There is one server, and a process for each side; they take turns.

    bench_python.py BUILD ROUNDS       prints one JSON object a line, as scripts/bench collects them
    bench_python.py worker CLIENT URL  reads lines "TASKS COUNT", makes so many decisions, prints "SECONDS CPU_SECONDS"
"""
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
THEIRS = ("aiosteady==22.1.0", "aioredis==1.3.1", "hiredis==3.5.0", "attrs==26.1.0")
REDIS_PY = ("redis[hiredis]==8.1.0",)
TASKS = (1, 64, 512)
COUNTS = {"aiosteady": 20000, "redis-py": 20000, "redis-py-calls": 10000, "native": 40000, "embedded": 1000000}  # about as long each
KEYS = [f"user:{n}" for n in range(1000)]
CAPACITY, RECHARGE = 10**9, 1.0  # every decision is allowed

# asyncio's streams, which aioredis uses, allocate 256 KiB for each read. Whether malloc gets that from the system each time,
# for 15 us, depends on what the process did before. These settings avoid that, in favour of aioredis.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 23)}


# ---- A worker ----


async def client_of(client, url):
    """The client for a Throttler."""
    if client == "aiosteady":
        import aioredis
        return await aioredis.create_redis_pool(url)
    if client.startswith("redis-py"):
        from redis.asyncio import BlockingConnectionPool, Redis

        class Calls(Redis):
            async def execute_command(self, *args, **options):  # overridden, so it is called for each decision
                return await super().execute_command(*args, **options)

        kind = Redis if client == "redis-py" else Calls
        return kind(connection_pool=BlockingConnectionPool.from_url(url, max_connections=64))
    from aiosteady import connect
    return "memory:" if client == "embedded" else connect(url, timeout=10.0)  # the machine may be busy


async def ask(throttler, count, start):
    for at in range(start, start + count):
        result = await throttler.consume(KEYS[at % len(KEYS)])
        assert result.success


async def sample(throttler, tasks, count):
    each = count // tasks
    began, cpu_began = time.perf_counter(), time.process_time()
    await asyncio.gather(*(ask(throttler, each, task * each) for task in range(tasks)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return took / (each * tasks), cpu / (each * tasks)


async def work(client, url):
    from aiosteady.leakybucket import Throttler
    throttler = Throttler(await client_of(client, url), CAPACITY, RECHARGE)
    await ask(throttler, len(KEYS), 0)
    print("ready", flush=True)
    for line in sys.stdin:
        print(*await sample(throttler, *map(int, line.split())), flush=True)


# ---- The turns ----


class Worker:
    def __init__(self, client, url, path):
        environment = {**os.environ, **MALLOC, "PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
        self.client = client
        self.child = subprocess.Popen([sys.executable, __file__, "worker", client, url], env=environment, text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.child.stdout.readline() == "ready\n", f"{client} does not start"

    def measure(self, tasks, server):
        """us per decision, us of our CPU per decision, and the share of time in which the server was busy."""
        count = COUNTS[self.client]
        busy, began = server_ns(server), time.perf_counter()
        print(tasks, count, file=self.child.stdin, flush=True)
        took, cpu = map(float, self.child.stdout.readline().split())
        share = (server_ns(server) - busy) / 1e9 / (time.perf_counter() - began)
        return took * 1e6, cpu * 1e6, share

    def stop(self):
        self.child.stdin.close()
        self.child.wait()


def server_ns(server):
    """How long the server's main thread has run, or waited for a busy processor."""
    run, wait, _ = map(int, Path(f"/proc/{server.process.pid}/schedstat").read_text().split())
    return run + wait


def measure(workers, rounds, server):
    """{(client, tasks): medians of (us, CPU us, share of the server)}"""
    found = {(worker.client, tasks): [] for worker in workers for tasks in TASKS}
    for worker in workers:
        worker.measure(TASKS[0], server)  # warm
    for _ in range(rounds):
        for tasks in TASKS:
            for worker in workers:
                found[worker.client, tasks].append(worker.measure(tasks, server))
    return {case: tuple(map(median, zip(*samples))) for case, samples in found.items()}


# ---- The rows ----


def emit(name, title, value, unit, baseline=None, goal=None):
    print(json.dumps({"name": f"python_{name}", "title": f"Python, {title}", "value": value, "unit": unit,
                      "baseline": baseline, "goal": goal}))


def report(found, clients):
    titles = {"native": "native", "redis-py": "over redis-py", "embedded": "embedded"}  # against aiosteady 22.1.0
    us, cpu, share = ({case: values[i] for case, values in found.items()} for i in range(3))
    for tasks in TASKS:
        how = "one after the other" if tasks == 1 else f"{tasks} tasks"
        theirs = "aiosteady", tasks
        others = [us[client, tasks] for client in ("aiosteady", "redis-py") if client in clients]
        if tasks == 1 and others:
            emit("latency", "native, latency against the best other", us["native", 1], "us", min(others), ["<", 1.0])
        for client in titles:
            if client in clients and client != "aiosteady":
                goal = [">=", 20] if client == "embedded" else None
                emit(f"rate_{client}_{tasks}", f"{titles[client]}, decisions, {how}", 1e6 / us[client, tasks], "/s",
                     1e6 / us[theirs] if theirs in us else None, goal if theirs in us else None)
        if "redis-py" in clients:
            emit(f"pipeline_{tasks}", f"over redis-py, decisions against a call for each, {how}", 1e6 / us["redis-py", tasks],
                 "/s", 1e6 / us["redis-py-calls", tasks], [">=", 1.0 if tasks == 1 else 4.0])
        emit(f"cpu_{tasks}", f"native, client CPU a decision, {how}", cpu["native", tasks], "us", cpu.get(theirs),
             ["<=", 0.25] if theirs in us else None)
    emit("server", f"native, share of the time in which redis-server is busy, {TASKS[-1]} tasks", share["native", TASKS[-1]], "",
         None, [">=", 0.9])


def main(build, rounds):
    sys.path.insert(0, str(ROOT / "tests"))
    import aiosteady_build
    from resp import Redis
    ours = aiosteady_build.build(build / "python")
    paths = {"native": [ours], "embedded": [ours]}
    for client, requirements in (("aiosteady", THEIRS), ("redis-py", REDIS_PY), ("redis-py-calls", REDIS_PY)):
        try:
            folder = aiosteady_build.from_pypi(build / "pypi", *requirements)
            paths[client] = [folder] if client == "aiosteady" else [ours, folder]
        except aiosteady_build.Unavailable as why:
            print(f"skipped: {client}, which pip could not install: {why}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="steady-bench-") as folder:
        server = Redis(Path(folder))
        workers = [Worker(client, server.url, paths[client]) for client in COUNTS if client in paths]
        try:
            report(measure(workers, rounds, server), paths)
        finally:
            for worker in workers:
                worker.stop()
            server.stop()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(work(*sys.argv[2:]))
    else:
        main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
