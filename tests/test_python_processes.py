# SPDX-License-Identifier: MIT
"""The Python package with several processes, interpreters and copies of its module: fork, exit with pending work, reload."""
import asyncio
import gc
import importlib
import sys
import time

import pytest
from python_rig import patient, python, standing_still

pytestmark = pytest.mark.filterwarnings("error")


# ---- Processes ----

FORKS = """
import asyncio, os, sys, warnings
from aiosteady import Throttler, connect

url, how = sys.argv[1:]
store = connect(url, timeout=10)
t = Throttler(store, 10**6, 3600)

async def work(who):
    for turn in range(20):
        results = await asyncio.gather(*(t.consume(f"{who}:{turn}:{i}", i + 1) for i in range(20)))
        assert [r.level for r in results] == list(range(1, 21)), who
        await t.consume("common")

async def in_flight():
    tasks = [asyncio.ensure_future(t.consume("early")) for _ in range(10)]
    await asyncio.sleep(0)
    return tasks

loop = asyncio.new_event_loop()
if how != "before":
    loop.run_until_complete(work("parent"))
async def ended(tasks):
    return await asyncio.gather(*tasks)

tasks = loop.run_until_complete(in_flight()) if how == "pending" else []
children = []
for i in range(4):
    pid = os.fork()
    if pid == 0:
        warnings.simplefilter("ignore", ResourceWarning)  # of the loops that it leaves as they are
        loop.set_exception_handler(lambda loop, context: None)  # asyncio tells of the parent's tasks, which it drops
        (loop if how == "same loop" else asyncio.new_event_loop()).run_until_complete(work(i))
        if i == 0:
            os._exit(0)
        del t, store, tasks
        sys.exit(0)
    children.append(pid)
    if how == "same loop":
        os.waitpid(pid, 0)  # parent and child share the epoll descriptor after the fork
        children.pop()
loop.run_until_complete(work("then"))
assert all(r.success for r in loop.run_until_complete(ended(tasks)))
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
print(loop.run_until_complete(t.peek("common")).level)
loop.run_until_complete(store.aclose())
loop.close()
"""


@pytest.mark.parametrize(("how", "level"), [("before", 100), ("after", 120), ("pending", 120), ("same loop", 120)])
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="forking is warned about where there are threads")
def test_forked_children_decide_on_connections_of_their_own(aiosteady, redis_server, how, level):
    assert python(aiosteady, FORKS, redis_server.url, how) == f"{level}\n"


EXITS = """
import asyncio, sys, threading, time
from aiosteady import Throttler, connect

url, how = sys.argv[1:]
t = Throttler(connect(url, timeout=60), 10, 60)

async def hang():
    tasks = [asyncio.ensure_future(t.consume("k")) for _ in range(10)]
    await asyncio.sleep(0.05)
    if how == "raises":
        raise SystemExit(0)
    if how == "never closed":
        return tasks
    if how == "thread":
        await asyncio.sleep(60)

if how == "thread":
    threading.Thread(target=lambda: asyncio.run(hang()), daemon=True).start()
    time.sleep(0.2)
elif how == "never closed":
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    kept = loop.run_until_complete(hang())
    import warnings
    warnings.simplefilter("ignore")
else:
    asyncio.run(hang())
"""


@pytest.mark.parametrize("how", ["returns", "raises", "never closed", "thread"])
def test_a_program_that_ends_with_work_pending_ends(aiosteady, redis_server, how):
    with standing_still(redis_server):
        start = time.monotonic()
        python(aiosteady, EXITS, redis_server.url, how)
        assert time.monotonic() - start < 10


# ---- Interpreters and modules ----

INTERPRETERS = """
import sys, threading
PROGRAM = '''
import sys
sys.path.insert(0, %r)
import asyncio
from aiosteady import Throttler, connect

t = Throttler("memory:", 1000, 60)
for i in range(100):
    try:
        t.consume("k").send(None)
    except StopIteration as stop:
        assert stop.value.level == i + 1

async def work():
    t = Throttler(connect(%r, timeout=10), 1000, 60, prefix=%r)
    levels = [r.level for r in await asyncio.gather(*(t.consume("k") for _ in range(100)))]
    assert sorted(levels) == list(range(1, 101)), levels

if sys.version_info >= (3, 12):  # before, asyncio itself had one state for all interpreters
    asyncio.run(work())
'''
path, url = sys.argv[1:]
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

def run(i):
    one = interpreters.create()
    try:
        failed = interpreters.run_string(one, PROGRAM % (path, url, f"{i}:"))
        assert failed is None, failed
    finally:
        interpreters.destroy(one)

import aiosteady
for i in range(3):
    run(i)
if sys.version_info >= (3, 12):  # each has a GIL of its own
    threads = [threading.Thread(target=run, args=(i,)) for i in range(10, 14)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
exec(PROGRAM % (path, url, "main"))
print("fine")
"""


def test_subinterpreters_have_separate_copies_of_the_module(aiosteady, redis_server):
    # In Python 3.12 the debugging allocator does not work with per-interpreter GILs.
    assert "fine" in python(aiosteady, INTERPRETERS, str(aiosteady), redis_server.url, malloc="malloc")


def test_the_module_can_be_loaded_repeatedly(aio, redis_server):
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "aiosteady"}
    try:
        for _ in range(5):
            for name in kept:
                sys.modules.pop(name, None)
            again = importlib.import_module("aiosteady")
            assert again is not aio and again.ThrottleResult is not aio.ThrottleResult
            for module in (again, aio):
                assert asyncio.run(patient(module, redis_server.url, 10, 60).consume("k", 0)).success
            assert importlib.reload(again).Throttler("memory:", 1, 1) is not None
            with pytest.raises(again.Closed):
                store = again.connect("memory:")
                store.close()
                asyncio.run(again.Throttler(store, 1, 1).consume("k"))
            del again, module, store
            gc.collect()
    finally:
        sys.modules.update(kept)
