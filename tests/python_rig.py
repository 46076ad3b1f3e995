# SPDX-License-Identifier: MIT
"""Shared by the tests of the Python package."""
import asyncio
import functools
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

HANGS_S = 250  # a program that takes longer hangs; on a busy machine, some take a minute


def under_asyncio(test):
    """Runs an async test in a loop of its own, in asyncio's debug mode; AIOSTEADY_UVLOOP=1: in one of uvloop's."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        if os.environ.get("AIOSTEADY_UVLOOP"):
            import uvloop

            return uvloop.run(asyncio.wait_for(test(*args, **kwargs), HANGS_S), debug=True)
        return asyncio.run(asyncio.wait_for(test(*args, **kwargs), HANGS_S), debug=True)

    return run


def patient(aio, url, *limit, **options):
    """A throttler with its own store and a long timeout, for a busy machine. Each decision asks the server."""
    return aio.Throttler(aio.connect(url, timeout=10, deny_memory=0), *limit, **options)


def python(path, program, *args, malloc="debug", quiet=True):
    """Runs a program in a new Python in development mode with a debugging allocator. Returns its output."""
    whole = {**os.environ, "PYTHONPATH": str(path), "PYTHONMALLOC": malloc}
    run = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", program, *args], env=whole,
                         capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert run.returncode == 0, f"exit status {run.returncode}\n{run.stdout}\n{run.stderr}"
    told = [line for line in run.stderr.splitlines() if not line.startswith("Executing <")]  # a slow machine
    assert not told or not quiet, run.stderr
    return run.stdout


@contextmanager
def standing_still(server):
    """The server is stopped inside this context."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)
