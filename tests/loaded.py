# SPDX-License-Identifier: MIT
"""Servers that have loaded the module: the server of this machine, and Redis 8.0 and Valkey 8.1 of Debian 13 in a chroot.
SUITE selects another Debian: see scripts/chroot."""
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from conftest import BUILD, ROOT
from resp import Redis, ReplyError, Resp

SERVERS = {"debian12": ["redis-server"], "redis8": ["chroot", "redis-server"], "valkey8": ["chroot", "valkey-server"]}
HOUR = 3600 * 10**6
FOREIGN = [b"hello", b"", b"5", b"3 1764000000.250000", b"3 1764000000.25 0", b"3 1764000000.250000 0 ", b" 3 1764000000.250000 0",
           b"-1 1764000000.250000 0", b"9007199254740992 1764000000.250000 0", b"3 9007199254.740992 0",
           b"3 1764000000.250000 00", b"3 1764000000.250000 1", b"3 1764000000.250000 0.00000", b"3 1764000000.250000 0\0",
           b"3 1764000000.250000 9007199254.740992", b"9" * 400 + b" 1764000000.250000 0", b"x" * 100000]
OURS = ["steady.consume", "steady.peek", "steady.reset", "steady.consumeall", "steady.peekall", "steady.settle", "cl.throttle"]
COUNTED = OURS[3:6]  # numkeys key [key ...]


# ASan reads /proc. The mount goes with the server: it is in a namespace of its own.
CHROOT = ["unshare", "--mount", "sh", "-c", 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"']


class Loaded(Redis):
    """A server, perhaps in the chroot. It sees `folder` as `inside`. The module is copied there."""

    def __init__(self, program, *options, module="steady.so", load=True, sanitized=False):
        self.root = BUILD / os.environ.get("SUITE", "trixie") if program[0] == "chroot" else Path("/")
        self.folder = Path(tempfile.mkdtemp(prefix="steady-", dir=self.root / "tmp"))
        self.folder.chmod(0o777)
        self.inside = "/" + str(self.folder.relative_to(self.root))
        self.path = self.add(f"asan/{module}" if sanitized else module, "steady.so")
        self.program = [*CHROOT, self.root] if program[0] == "chroot" else []
        self.program += ["env", *(self.sanitizers() if sanitized else []), program[-1]]
        load = ["--loadmodule", self.path] if load is True else load or []
        super().__init__(self.folder, "--enable-module-command", "yes", "--enable-debug-command", "yes",
                         "--repl-diskless-sync-delay", "0", *options, *load)

    def add(self, module, name):
        """Copies a module to where the server can load it."""
        shutil.copy(BUILD / module, self.folder / name)
        return f"{self.inside}/{name}"

    def sanitizers(self):
        """The environment of a server whose module is built with ASan and UBSan."""
        compiler = ["gcc"] if self.root == Path("/") else ["chroot", self.root, "gcc"]
        libraries = [subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
                     for name in ("libasan.so", "libubsan.so")]
        libraries = ":".join([self.add("asan_shim.so", "shim.so"), *libraries])
        report = f"log_path={self.inside}/report"
        return [f"LD_PRELOAD={libraries}", f"ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:{report}",
                f"UBSAN_OPTIONS=halt_on_error=1:{report}"]

    def reports(self):
        """The findings of the sanitizers."""
        return [file.read_text() for file in self.folder.glob("report*")]

    def start(self, command):
        words = [self.inside if word == str(self.folder) else word for word in command]
        words = [word.replace(str(self.folder) + "/", self.inside + "/") for word in words]
        with self.log.open("ab") as log:
            return subprocess.Popen([*self.program, *words[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self):
        super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def chroot():
    made = subprocess.run([ROOT / "scripts" / "chroot", "make"], stderr=subprocess.PIPE, text=True, check=False)
    if made.returncode == 77:
        pytest.skip(made.stderr.strip().splitlines()[-1].removeprefix("skipped: "))
    assert made.returncode == 0, made.stderr


IN_CHROOT = [pytest.param(name, marks=pytest.mark.other_servers) if program[0] == "chroot" else name
             for name, program in SERVERS.items()]


@pytest.fixture(scope="module", params=IN_CHROOT)
def program(request):
    if SERVERS[request.param][0] == "chroot":
        request.getfixturevalue("chroot")
    return SERVERS[request.param]


@pytest.fixture(scope="module")
def start(program):
    servers = []

    def start(*options, **how):
        servers.append(Loaded(program, *options, **how))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def shared(start):
    return start()


@pytest.fixture
def server(shared):
    shared("FLUSHALL")
    return shared


def error(reply):
    assert isinstance(reply, ReplyError), reply
    return str(reply)


def info(server):
    lines = server("INFO", "steady").decode().splitlines()
    return {name.removeprefix("steady_"): int(value) for name, value in (line.split(":") for line in lines if ":" in line)}


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def dump(server):
    """Each key, its value, and its absolute expiry time."""
    return {key: (server("GET", key), server("PEXPIRETIME", key)) for key in sorted(server("KEYS", "*"))}


def script(name):
    """The script with this name, with the files that it includes."""
    lines = (ROOT / "lua" / f"{name}.lua").read_text().splitlines()
    return "\n".join(script(line.split()[1].removesuffix(".lua")) if line.startswith("--@include ") else line for line in lines)


def flat(reply):
    return dict(zip(reply[::2], reply[1::2]))


def flat_info(server, section):
    return dict(line.split(":", 1) for line in server("INFO", section).decode().splitlines() if ":" in line)


def replication_offset(server):
    return flat_info(server, "replication")["master_repl_offset"]


def load(server, calls, seed=7):
    """Sends consumes with random arguments on a few keys."""
    rng = random.Random(seed)
    for _ in range(calls):
        key, wide = f"k{rng.randrange(40)}", rng.choice([5, 1000])
        how = rng.randrange(5)
        if how == 0:
            server("CL.THROTTLE", key, wide, 7, 3600, rng.choice([1, 2, -3]))
        elif how == 1:
            server("EVAL", "return redis.call('STEADY.CONSUME', KEYS[1], ARGV[1], 60000000, 'BLOCK', 900000000)", 1, key, wide)
        elif how == 2:
            server("STEADY.RESET", key) if rng.random() < 0.2 else server("STEADY.PEEK", key, wide, HOUR)
        else:
            server("STEADY.CONSUME", key, wide, HOUR, "DROPS", 7, "AMOUNT", rng.choice([1, 3, -2]))


def restored(start, load, calls):
    """The buckets of a server that loads its AOF, written under load, and then its RDB. Both give what was there before."""
    server = start("--appendonly", "yes", "--appendfsync", "no")
    until(lambda: flat_info(server, "persistence")["aof_rewrite_in_progress"] == "0")
    loader = threading.Thread(target=load, args=(Resp(server.port), calls))
    loader.start()
    server("BGREWRITEAOF")
    loader.join()
    until(lambda: flat_info(server, "persistence")["aof_rewrite_in_progress"] == "0")
    before = dump(server)
    assert server("DEBUG", "LOADAOF") == b"OK" and dump(server) == before
    assert server("DEBUG", "RELOAD") == b"OK" and dump(server) == before
    return before
