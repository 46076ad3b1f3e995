# SPDX-License-Identifier: MIT
"""The Python package, built in place, and what its tests need from PyPI: folders for PYTHONPATH below the build directory."""
import fcntl
import filecmp
import hashlib
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAG = sysconfig.get_config_var("SOABI")


class Unavailable(Exception):
    """pip cannot install it here. The argument is pip's error text."""


@contextmanager
def locked(folder):
    """Test files run at the same time, and share these folders."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_current(copy):
    source = ROOT / "python" / "aiosteady" / copy.name
    return source.exists() and filecmp.cmp(copy, source, shallow=False)


def build(folder, env=None):
    """Builds aiosteady for this Python if it is not up to date. Returns its folder."""
    with locked(folder):
        lib = folder / f"lib-{TAG}"
        for copy in lib.glob("aiosteady/*.py*"):
            if not is_current(copy):
                copy.unlink()
        command = [sys.executable, "-W", "ignore", "setup.py", "-q", "build", "-b", folder / f"temp-{TAG}", "--build-lib", lib]
        run = subprocess.run(command, cwd=ROOT / "python", env=env, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return lib


def from_pypi(folder, *requirements):
    """A folder with these packages and their dependencies, for this Python."""
    name = hashlib.sha256(" ".join([sys.version, *requirements]).encode()).hexdigest()[:16]
    target = folder / name
    with locked(folder):
        if (target / "installed").exists():
            return target
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade",
                   "--only-binary", ":all:", "--target", target, *requirements]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise Unavailable(run.stderr.strip()[-300:])
        (target / "installed").touch()
        return target


if __name__ == "__main__":
    print(build(Path(sys.argv[1]).resolve()))
