# SPDX-License-Identifier: MIT
"""The public headers: names, version, layout and how clean they are for C and C++ compilers."""
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "include"
HEADERS = sorted(INCLUDE.glob("**/*.h"))


def text_of(path):
    """The header without its comments."""
    return re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)


def structs():
    """The name and the fields of each struct that a caller allocates."""
    for body, name in re.findall(r"typedef struct \w+ \{(.*?)\n\} (\w+);", "".join(map(text_of, HEADERS)), re.S):
        fields = [re.search(r"\(\*(\w+)(?:\[\d+\])?\)|(\w+)(?:\[\d+\])?$", line.split(")(")[0] + (")" if ")(" in line else ""))
                  for line in map(str.strip, body.replace("\n", " ").split(";")) if line]
        yield name, [field[1] or field[2] for field in fields]


def test_every_field_of_every_public_struct_is_in_the_abi_test():
    abi = (ROOT / "tests/unit_abi.c").read_text()
    found = dict(structs())
    assert len(found) >= 9 and "retry_after" in found["steady_result"] and "io_new" in found["steady_loop_ops"]
    wanted = {f"FIELD({name}, {field}," for name, fields in found.items() for field in fields}
    wanted |= {f"SIZE({name}," for name in found}
    assert {line for line in wanted if line not in abi} == set()


def test_every_public_number_is_in_the_abi_test():
    abi = (ROOT / "tests/unit_abi.c").read_text()
    text = text_of(INCLUDE / "steady.h")
    names = set(re.findall(r"\b(STEADY_\w+) = -?\d+", text)) | {
        f"STEADY_{name}" for name in re.findall(r"\bX\((\w+), -", text)}
    assert len(names) > 30
    assert {name for name in names if f"NUMBER({name}," not in abi} == set()


def test_every_public_struct_has_room_to_grow():
    assert {name for name, fields in structs() if "reserved" not in fields} == set()


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.name)
def test_a_public_header_defines_no_reserved_identifier(path):
    names = set(re.findall(r"\b\w*__\w*\b|\b_[A-Z]\w*\b", text_of(path)))
    assert names - {"__cplusplus", "__GNUC__", "__attribute__"} == set()


def test_the_version_has_one_value():
    text = (INCLUDE / "steady.h").read_text()
    numbers = [re.search(rf"define STEADY_VERSION_{part} (\d+)", text)[1] for part in ("MAJOR", "MINOR", "PATCH")]
    assert re.search(r'define STEADY_VERSION "(.+)"', text)[1] == ".".join(numbers)


C_WARNINGS = ["-Wall", "-Wextra", "-Wmissing-field-initializers", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]
CPP_WARNINGS = [*C_WARNINGS, "-Wold-style-cast", "-Wzero-as-null-pointer-constant"]
DIALECTS = [("gcc", "c11"), ("clang", "c11"), ("g++", "c++11"), ("g++", "c++20"), ("clang++", "c++11"), ("clang++", "c++20")]
USE = """
steady_us second() { return STEADY_SECOND + STEADY_MILLISECOND + STEADY_DENY_RETRY; }
steady_message why = {};
steady_limit limit = {};
steady_result result = {};
steady_part part = {};
steady_how how = {};
steady_call call = {};
steady_settlement settlement = {};
steady_stats stats = {};
steady_loop loop = {};
steady_loop_ops ops = {};
steady_store_options store_options = {};
steady_throttler_options throttler_options = {};
steady_tls_options tls_options = {};
"""
USE_OF = {"client.h": "steady_client_ops client_ops = {};\n", **{
    name: f"auto *make = {function};\n" for name, function in {
        "uv.h": "steady_uv_loop", "event.h": "steady_event_loop", "ev.h": "steady_ev_loop",
        "hiredis.h": "steady_store_attach", "http.h": "steady_http_fields"}.items()}}


@pytest.mark.parametrize("compiler,dialect", DIALECTS)
@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.name)
def test_a_public_header_compiles_without_warnings(tmp_path, path, compiler, dialect):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    plus = "++" in compiler
    name = path.relative_to(INCLUDE)
    warnings = CPP_WARNINGS if plus else C_WARNINGS
    source = tmp_path / ("use.cc" if plus else "use.c")
    use = USE + USE_OF.get(path.name, "") if plus else ""
    source.write_text(f"#include <{name}>\n{use}")
    done = subprocess.run([compiler, f"-std={dialect}", "-D_GNU_SOURCE", *warnings, f"-I{INCLUDE}", "-c", source, "-o",
                           tmp_path / "use.o"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
