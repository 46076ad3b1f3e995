# SPDX-License-Identifier: MIT
"""Builds for other C libraries and processors: musl, aarch64, and two of 32 bits. Each is built without OpenSSL and
hiredis, with -Werror, and runs: unit tests, the command, and programs on a real server. An emulator (qemu-user) runs
what this machine does not. A compiler that is not here is a reason to skip.

To install all of them: musl-tools gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf gcc-i686-linux-gnu qemu-user-static,
and of the C library libc6-dev-arm64-cross libc6-dev-armhf-cross libc6-dev-i386-cross."""
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITHOUT = "this build has no embedded store (memory:, file:, on_error local): the processor has no 16-byte compare-and-swap"
# Unit tests that need no library but cmocka. Those of the second line need the embedded store.
UNITS = ["bucket", "limit", "redact", "reply", "slot_map", "url", "window"]
UNITS_EMBEDDED = ["table", "table_full", "throttler"]
TOO_LONG_EMULATED = {"redact", "table_full", "window"}  # 2 to 4 s of a processor each, measured
WARNINGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O2", "-pthread"]

# Opens the store of its first argument, with on_error local if there is a second, and says what happens.
PROGRAM = r"""
#include <steady.h>
#include <stdio.h>
int main(int argc, char **argv) {
    const steady_limit limit = {.max_capacity = 2, .drop_recharge = 60 * STEADY_SECOND};
    const steady_throttler_options options = {.on_error = argc > 2 ? STEADY_LOCAL : STEADY_REPORT};
    steady_store *store = NULL;
    steady_throttler *throttler = NULL;
    steady_result result = {.error = 0};
    steady_message why = {.text = ""};
    int error = steady_store_open(&store, argv[1], NULL, &why);
    if (error == 0) error = steady_throttler_new(&throttler, store, &limit, &options, &why);
    for (int i = 0; error == 0 && i < 3; i++) {
        error = steady_consume_sync(throttler, "key", 3, 1, &result);
        printf("%s %lld %lld\n", result.success ? "allowed" : "denied", (long long)result.level, (long long)result.retry_after);
    }
    printf("%s: %s\n", steady_error_name(error), why.text);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    return 0;
}
"""


@dataclass
class Target:
    name: str
    compiler: str
    runner: list
    machine: str  # as readelf names it
    embedded: bool

    @property
    def emulated(self):
        return any("qemu" in word for word in self.runner)


TARGETS = [
    Target("musl", "musl-gcc", [], {"x86_64": "X86-64", "aarch64": "AArch64"}.get(platform.machine(), platform.machine()), True),
    Target("aarch64", "aarch64-linux-gnu-gcc", ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"], "AArch64", True),
    Target("arm", "arm-linux-gnueabihf-gcc", ["qemu-arm-static", "-L", "/usr/arm-linux-gnueabihf"], "ARM", False),
    Target("i686", "i686-linux-gnu-gcc", ["/usr/i686-linux-gnu/lib/ld-linux.so.2", "--library-path", "/usr/i686-linux-gnu/lib"],
           "80386", False),
]


def completed(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=300, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


class Built:
    """What make has built for one target."""

    def __init__(self, target, folder):
        self.target, self.folder = target, folder
        env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "BUILD")}
        self.said = completed("make", "--no-print-directory", "-C", ROOT, "-j2", f"BUILD={folder}", f"CC={target.compiler}",
                              "CFLAGS=-O2 -Werror", "TLS=no", "HIREDIS=no", "all", env=env)

    def program(self, source, *flags):
        program = self.folder / Path(source).stem
        completed(self.target.compiler, *WARNINGS, f"-I{ROOT}/include", *flags, source, self.folder / "libsteady.a", "-o", program)
        return program

    def run(self, program, *arguments, codes=(0,), **env):
        runner = self.target.runner
        if runner and shutil.which(runner[0]) is None:
            pytest.skip(f"no {runner[0]} here, to run what is built")
        done = subprocess.run([*runner, program, *arguments], capture_output=True, text=True, check=False, timeout=120,
                              stdin=subprocess.DEVNULL, env={**os.environ, **env})
        assert done.returncode in codes, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr


@pytest.fixture(scope="module", params=TARGETS, ids=lambda target: target.name)
def built(request, tmp_path_factory):
    target = request.param
    if shutil.which(target.compiler) is None:
        pytest.skip(f"no {target.compiler} here")
    return Built(target, tmp_path_factory.mktemp(target.name))


@pytest.fixture
def program(built):
    source = built.folder / "program.c"
    source.write_text(PROGRAM)
    return built.program(source)


def test_a_build_is_for_its_target_and_has_no_warning(built):
    assert "warning" not in built.said
    for name in ("steady", "libsteady.so", "steady.so"):
        assert f"Machine:{'':27}" and built.target.machine in completed("readelf", "-hW", built.folder / name)
        needed = re.findall(r"NEEDED.*\[(.+?)\]", completed("readelf", "-dW", built.folder / name))
        assert [library for library in needed if not re.match(r"lib(c|gcc_s)\.so|ld-linux", library)] == []


def test_unit_tests_pass(built):
    names = UNITS + (UNITS_EMBEDDED if built.target.embedded else [])
    for name in names if not built.target.emulated else [name for name in names if name not in TOO_LONG_EMULATED]:
        program = built.program(ROOT / f"tests/unit_{name}.c", f"-I{ROOT}/src", f"-I{ROOT}/tests", f"-I{ROOT}/tests/small")
        said = built.run(program)
        planned = int(re.search(r"^1\.\.(\d+)$", said, re.M)[1])
        assert len(re.findall(r"^ok ", said, re.M)) == planned > 0, said


def test_the_command_decides_on_a_server(built, redis_server):
    steady = built.folder / "steady"
    assert re.match(r"steady \d", built.run(steady, "version"))
    limit = ["--capacity", "1", "--recharge", "1m", "--store", redis_server.url]
    assert "allowed" in built.run(steady, "consume", f"builds-{built.target.name}", *limit)
    assert "denied" in built.run(steady, "consume", f"builds-{built.target.name}", *limit, codes=(1,))


def test_a_program_decides_on_a_server(built, program, redis_server):
    redis_server("DEL", "key")
    said = built.run(program, redis_server.url).splitlines()
    assert [line.split()[:2] for line in said[:3]] == [["allowed", "1"], ["allowed", "2"], ["denied", "2"]]
    assert 59_000_000 < int(said[2].split()[2]) <= 60_000_000
    assert said[3] == "ok: "


@pytest.mark.parametrize("store", ["memory:", "file:"])
def test_the_embedded_store_decides_or_is_unsupported(built, program, tmp_path, store):
    said = built.run(program, store if store == "memory:" else f"file:{tmp_path}/buckets").splitlines()
    if built.target.embedded:
        assert [line.split()[0] for line in said[:3]] == ["allowed", "allowed", "denied"] and said[3] == "ok: "
    else:
        assert said == [f"unsupported: {WITHOUT}"]
        assert not (tmp_path / "buckets").exists()


def test_on_error_local_decides_or_is_unsupported(built, program, redis_server):
    redis_server("DEL", "key")
    said = built.run(program, redis_server.url, "local").splitlines()
    assert said[-1] == ("ok: " if built.target.embedded else f"unsupported: {WITHOUT}")


def test_the_python_extension_compiles(built):
    """It is not run: that takes a Python for the target."""
    if not built.target.embedded:
        pytest.skip("the headers of this Python are for 64 bits")
    headers = [f"-I{folder}" for folder in (sysconfig.get_path("include"), ROOT / "include", ROOT / "src", ROOT)]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Werror", "-fsyntax-only"]
    completed(built.target.compiler, *flags, *headers, *(ROOT / "python/core").glob("*.c"))


@pytest.mark.parametrize("example", ["poller", "blocking", "threads", "epoll"])
def test_an_example_runs_on_a_server(built, redis_server, example):
    program = built.program(ROOT / f"examples/{example}.c")
    assert built.run(program, REDIS_URL=redis_server.url).strip()
