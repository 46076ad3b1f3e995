# SPDX-License-Identifier: MIT
"""The Python package, built in place, and what its tests need from PyPI: folders for PYTHONPATH below the build directory."""
import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAG = sysconfig.get_config_var("SOABI")


class Unavailable(Exception):
    """pip cannot install it here; why, in its words."""


def build(folder, env=None):
    """Builds aiosteady for this Python, as far as it is not built; the folder that holds it."""
    lib = folder / f"lib-{TAG}"
    for old in lib.glob("aiosteady/*.py*"):
        old.unlink()
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", "build", "-b", folder / f"temp-{TAG}", "--build-lib", lib]
    run = subprocess.run(command, cwd=ROOT / "python", env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return lib


def from_pypi(folder, *requirements):
    """A folder with these packages, and what they need, for this Python."""
    name = hashlib.sha256(" ".join([sys.version, *requirements]).encode()).hexdigest()[:16]
    target = folder / name
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
