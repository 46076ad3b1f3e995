# SPDX-License-Identifier: MIT
"""What the tests of the Python package share."""
import asyncio
import functools
import os
import subprocess
import sys


def under_asyncio(test):
    """Runs an async test in a loop of its own, in asyncio's debug mode; AIOSTEADY_UVLOOP=1: in one of uvloop's."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        if os.environ.get("AIOSTEADY_UVLOOP"):
            import uvloop

            uvloop.install()
        return asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60), debug=True)

    return run


def python(path, program, *args, env=None, timeout=60):
    """Runs a program in a Python of its own, in development mode and with a debugging allocator; what it printed."""
    whole = {**os.environ, "PYTHONPATH": str(path), "PYTHONMALLOC": "debug", **(env or {})}
    run = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", program, *args], env=whole,
                         capture_output=True, text=True, timeout=timeout, check=False)
    assert run.returncode == 0, f"exit status {run.returncode}\n{run.stdout}\n{run.stderr}"
    assert run.stderr == "", run.stderr
    return run.stdout
