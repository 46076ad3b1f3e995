# SPDX-License-Identifier: MIT
"""The Python package, built in place, and what its tests need from PyPI: folders for PYTHONPATH below the build directory."""
import fcntl
import filecmp
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BUILD", ROOT / "build")).resolve()
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


def with_setuptools(env=None):
    """The environment in which setup.py finds the setuptools that pyproject.toml requires, from PyPI if need be."""
    required = re.search(r'requires = \["setuptools>=(\d+)"\]', (ROOT / "python/pyproject.toml").read_text())[1]
    env = dict(os.environ if env is None else env)
    if int(importlib.metadata.version("setuptools").split(".")[0]) < int(required):
        found = from_pypi(BUILD / "pypi", f"setuptools>={required}")
        env["PYTHONPATH"] = os.pathsep.join([str(found), *filter(None, [env.get("PYTHONPATH")])])
    return env


def build(folder, env=None):
    """Builds aiosteady for this Python if it is not up to date. Returns its folder."""
    with locked(folder):
        lib = folder / f"lib-{TAG}"
        for copy in lib.glob("aiosteady/*.py*"):
            if not is_current(copy):
                copy.unlink()
        command = [sys.executable, "-W", "ignore", "setup.py", "-q", "build", "-b", folder / f"temp-{TAG}", "--build-lib", lib]
        run = subprocess.run(command, cwd=ROOT / "python", env=with_setuptools(env), capture_output=True, text=True, check=False)
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


# ---- Other Pythons ----


def pythons(*commands):
    """The Pythons of these commands, or else all that are installed, as {"3.9": its path}. Each can build extensions."""
    env = dict(os.environ)
    if shutil.which("pyenv"):
        versions = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=False).stdout
        env["PYENV_VERSION"] = ":".join(versions.split())
    found = {}
    for command in commands or [f"python3.{minor}" for minor in range(9, 20)]:
        about = ("import os, sys, sysconfig, venv; os.stat(sysconfig.get_path('include') + '/Python.h');"
                 "print('{}.{}'.format(*sys.version_info) + getattr(sys, 'abiflags', ''), sys.executable)")
        if shutil.which(command):
            run = subprocess.run([command, "-c", about], capture_output=True, text=True, env=env, check=False)
            if run.returncode == 0:
                found.setdefault(*run.stdout.split())
    return found


def new_environment(python, folder):
    """Makes an empty environment for this Python. Returns its interpreter and its command of pip."""
    inside = Path(folder) / "bin/python"
    has_pip = subprocess.run([python, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0
    subprocess.run([python, "-m", "venv", "--clear", *([] if has_pip else ["--without-pip"]), folder], check=True)
    # On Debian, pip is a package of its own, which new environments lack.
    pip = [inside, "-m", "pip"] if has_pip else [sys.executable, "-m", "pip", "--python", inside]
    return inside, [*pip, "--disable-pip-version-check"]


if __name__ == "__main__":
    print(build(Path(sys.argv[1]).resolve()))
