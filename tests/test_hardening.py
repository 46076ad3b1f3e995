# SPDX-License-Identifier: MIT
"""Checks the built files for the options of the OpenSSF guide for hardening C."""
import os
import platform
import re
import subprocess

import pytest
from conftest import BUILD, ROOT

BUILT = ["steady", "steadyd", "libsteady.so", "libsteady-hiredis.so", "steady.so"]


def output(*command, **kwargs):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **kwargs).stdout


@pytest.fixture(params=BUILT)
def built(request):
    path = BUILD / request.param
    if request.param == "steadyd" and "BUILT_SERVE := no" in (BUILD / "settings").read_text():
        pytest.skip("the daemon is not built: scripts/setup serve")
    assert path.exists(), f"{path} is not built: make"
    return path


def test_addresses_are_random(built):
    headers = output("readelf", "-hW", built)
    assert re.search(r"Type:\s+DYN", headers)
    if built.name in ("steady", "steadyd"):
        assert "PIE" in output("readelf", "-dW", built)


def test_relocation_tables_are_read_only_after_loading(built):
    assert "GNU_RELRO" in output("readelf", "-lW", built)
    dynamic = output("readelf", "-dW", built)
    assert "BIND_NOW" in dynamic and "TEXTREL" not in dynamic


def test_the_library_that_starts_threads_is_never_unloaded(built):
    assert ("NODELETE" in output("readelf", "-dW", built)) == (built.name == "libsteady.so")


def test_no_file_has_an_rpath(built):
    assert not re.search(r"R(UN)?PATH", output("readelf", "-dW", built))


def test_no_file_needs_an_unused_library(built, tmp_path):
    (tmp_path / "libsteady.so.0").symlink_to(BUILD / "libsteady.so")
    assert "NEEDED" in output("readelf", "-dW", built)
    assert "Unused" not in output("ldd", "-u", built, env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})


def test_no_segment_is_writable_and_executable(built):
    flags = re.findall(r"^\s+(\w+)\s+(?:0x\w+\s+){5}([RWE ]{3})\s", output("readelf", "-lW", built), re.M)
    assert ("GNU_STACK", "RW ") in flags
    assert [kind for kind, rights in flags if "W" in rights and "E" in rights] == []


def test_stacks_and_buffers_are_guarded(built):
    symbols = output("readelf", "-W", "--dyn-syms", built)
    assert "__stack_chk_fail" in symbols
    if built.name == "libsteady-hiredis.so":
        return  # its only call that fortification could check is proven safe by the compiler
    if "_FORTIFY_SOURCE" in (BUILD / "settings").read_text():  # needs an optimising compiler
        assert re.search(r"__\w+_chk\b", symbols)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a note of x86-64")
def test_jump_targets_are_checked():
    notes = {path: output("readelf", "-nW", path) for folder in ("src", "server", "rules", "replay")
             for path in (BUILD / "obj" / folder).rglob("*.o")}
    assert notes
    assert [path.name for path, note in notes.items() if not re.search("IBT.*SHSTK", note)] == []


def flags_of(*settings):
    """The command that compiles bucket.c, with these settings."""
    commands = output("make", "-C", ROOT, "-n", "-B", "V=1", "BUILD=build/nowhere", *settings, "build/nowhere/obj/src/core/bucket.o",
                      env={**os.environ, "MAKEFLAGS": ""})
    return next(line for line in commands.splitlines() if " -c src/core/bucket.c" in line).split()


def test_the_flags_of_the_user_are_used_and_the_hardening_stays():
    flags = flags_of("CFLAGS=-O3 -march=x86-64 -DMINE", "CC=cc")
    assert flags[:4] == ["cc", "-O3", "-march=x86-64", "-DMINE"]
    assert {"-fstack-protector-strong", "-fstack-clash-protection", "-D_FORTIFY_SOURCE=3", "-fno-strict-overflow",
            "-fno-strict-aliasing"} <= set(flags)
    assert "-O2" not in flags


def test_fortification_is_off_without_optimisation_or_with_asan():
    assert "-D_FORTIFY_SOURCE=3" not in flags_of("CFLAGS=-O0")
    assert "-D_FORTIFY_SOURCE=3" not in flags_of("CFLAGS=-O1 -fsanitize=address")


def test_overflow_flags_are_off_with_the_undefined_sanitizer():
    assert "-fno-strict-overflow" not in flags_of("CFLAGS=-O1 -fsanitize=undefined")
