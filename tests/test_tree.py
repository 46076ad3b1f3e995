# SPDX-License-Identifier: MIT
"""Rules of the source tree that a program can check: includes, functions that the library calls, exports, state."""
import os
import re
import runpy
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BUILD", ROOT / "build")).resolve()

# The layers of src/, and which layers the files of each may include. Files at the top of src/ belong to two layers:
# store, group and policy lie below the stores, throttler and open above them.
LAYERS = {
    "core": "core",
    "loop": "loop core",
    "conn": "conn loop core",
    "base": "base core",
    "local": "local base loop core",
    "redis": "redis base conn loop core",
    "hiredis": "",  # public headers only
    "top": "top base local redis core",
}
# The daemon. `rules` and the module's `arguments` see the pure core only.
DAEMON_LAYERS = {
    "rules": ({"rules"}, "core"),
    "replay": ({"replay", "rules"}, "core"),
    "server": ({"server", "rules", "module/arguments", "module/parts_arguments"}, "core"),
}
MADE = {"admin_page.h", "ratelimit.pb-c.h", "report_page.h"}  # by the Makefile
AT_THE_TOP = {"store": "base", "group": "base", "reservation": "base", "policy": "base",
              "call": "top", "throttler": "top", "open": "top"}

# The library prints nothing, never exits, changes no signal, and has no state that two loops could share.
FORBIDDEN_CALLS = set(
    "printf fprintf vprintf vfprintf puts fputs putchar perror syslog exit _exit quick_exit atexit abort __assert_fail "
    "raise signal sigaction sigprocmask alarm setitimer setlocale system popen strtok rand srand random "
    "localtime gmtime getenv setenv strcpy strcat sprintf vsprintf gets stdout stderr stdin".split()
)


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in out.stdout.split("\0") if name and (ROOT / name).is_file()]


def includes(path):
    """(bracket or quote, header) of each #include line."""
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(), re.M)


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# ---- Includes ----


def layer_of(path):
    return AT_THE_TOP[path.stem] if path.parent.name == "src" else path.parent.name


def units(*patterns):
    """Each file name without its ending, and the units that it includes. A .c file and its header are one unit.
    The files in python/core include headers of the library by a path that begins with src/."""
    paths = tracked(*patterns)
    headers = {path.stem for path in paths if path.suffix == ".h"}
    found = {path.stem: set() for path in paths}
    for path in paths:
        names = {Path(name).stem for mark, name in includes(path) if mark == '"' and not name.startswith("src/")}
        found[path.stem] |= names & headers - {path.stem}
    return found


@pytest.mark.parametrize("path", tracked("src/**/*.[ch]", "src/*.[ch]"), ids=lambda path: path.name)
def test_a_file_of_src_includes_only_layers_below_it(path):
    layers = {path.stem: layer_of(path) for path in tracked("src/**/*.h", "src/*.h")}
    ours = {Path(name).stem for mark, name in includes(path) if mark == '"'} & layers.keys()
    assert {name for name in ours if layers[name] not in LAYERS[layer_of(path)].split()} == set()


@pytest.mark.parametrize("folder", DAEMON_LAYERS)
def test_the_daemon_includes_public_headers_the_core_and_layers_below(folder):
    folders, core = DAEMON_LAYERS[folder]
    own = {path.name for path in tracked(f"{folder}/*.h")}
    for path in tracked(f"{folder}/*.[ch]"):
        for mark, name in includes(path):
            where = str(Path(name).parent) if "/" in name else folder
            ours = name in own | MADE or where in {core, *folders} or name.removesuffix(".h") in folders
            assert mark == "<" or ours, f"{folder}/{path.name} includes {name}"


# In server/ only the headers: the code of each protocol calls the connection, which calls it back.
@pytest.mark.parametrize("patterns", [("src/**/*.[ch]", "src/*.[ch]"), ("python/core/*.[ch]",), ("rules/*.[ch]",), ("replay/*.[ch]",),
                                      ("server/*.h",)],
                         ids=["src", "python", "rules", "replay", "server"])
def test_the_includes_form_no_circle(patterns):
    below = units(*patterns)
    while below:
        free = [name for name, needs in below.items() if not needs & below.keys()]
        assert free, f"a circle among {sorted(below)}"
        for name in free:
            del below[name]


def test_each_file_of_the_python_extension_has_its_own_header():
    for path in tracked("python/core/*.c"):
        if path.stem != "module":
            assert includes(path)[0] == ('"', f"{path.stem}.h"), path.name


def static_functions():
    """(name, path) of each static function of the library, the command, the module, the extension and the daemon."""
    for path in tracked("src/**/*.c", "src/*.c", "cli/*.c", "module/*.c", "python/core/*.c", "server/*.c", "rules/*.c", "replay/*.c"):
        for name in set(re.findall(r"^static [^=;(]*?\b(\w+)\(", path.read_text(), re.M)):
            yield name, path


def test_a_static_function_has_its_name_in_one_file_only():
    files = {}
    for name, path in static_functions():
        files.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    twice = {name: names for name, names in files.items()
             if len(names) > 1 and names != {"src/conn/tls.c", "src/conn/tls_none.c"}}
    assert len(files) > 600
    assert twice == {}


def test_the_name_of_a_static_function_begins_with_its_file():
    other = {"tls_none": "tls", "steady": "main"}  # cli/steady.c has the main function
    without = [f"{path.name}: {name}" for name, path in static_functions()
               if not name.startswith(other.get(path.stem, path.stem.removesuffix("_store")) + "_")]
    assert without == []


@pytest.mark.parametrize("folder", ["cli", "examples"])
def test_users_of_the_library_see_only_its_public_headers(folder):
    own = {path.name for path in tracked(f"{folder}/*.h")}
    for path in tracked(f"{folder}/*.[ch]"):
        for mark, name in includes(path):
            assert mark == "<" or name in own, f"{path.name} includes {name}"
            if folder == "cli":
                assert "hiredis" not in name, f"{path.name} goes behind the library's back"


def test_only_the_bridge_to_hiredis_knows_hiredis():
    users = {str(path.relative_to(ROOT)) for path in tracked("src/**/*.[ch]", "src/*.[ch]", "cli/*.[ch]", "module/*.[ch]")
             if any("hiredis" in name for _, name in includes(path))}
    assert users == {"src/hiredis/bridge.c"}


def test_a_public_header_names_hiredis_only_in_its_own():
    users = {path.name for path in tracked("include/*.h", "include/steady/*.h") if "redisAsyncContext" in path.read_text()}
    assert users == {"hiredis.h"}


def test_only_tls_knows_openssl():
    users = {path.name for path in tracked("src/**/*.[ch]", "src/*.[ch]")
             if any("openssl/" in name for _, name in includes(path))}
    assert users <= {"tls.c"}


def test_public_headers_include_no_internal_ones():
    for path in tracked("include/*.h", "include/steady/*.h"):
        for mark, name in includes(path):
            assert mark == "<", f"{path.name} includes {name}"


# ---- Messages ----


def test_bytes_from_outside_become_a_message_in_one_place():
    """Exceptions: the name of an option in url.c, and the text of OpenSSL in tls.c."""
    users = {path.name for path in tracked("src/**/*.c", "src/*.c", "module/*.c")
             if "steady__printable(" in path.read_text()}
    assert users <= {"error.c", "redact.c", "url.c", "tls.c"}


def test_the_words_that_a_server_may_say_are_sorted():
    text = (ROOT / "src/core/redact.c").read_text()
    words = re.findall(r'"([^"]+)"', re.search(r" words\[\] = \{(.*?)\n\};", text, re.S)[1])
    assert len(words) > 300 and words == sorted(set(words)) and all(word == word.lower() for word in words)
    assert all(len(word) < 32 for word in words)


# ---- Calls and state of the library ----


def undefined_symbols():
    for line in output("nm", "-u", BUILD / "libsteady.a").splitlines():
        if match := re.match(r"\s+U (\S+)", line):
            yield match[1]


def test_the_library_calls_nothing_that_a_library_should_not():
    called = {re.sub(r"^__(\w+)_chk$", r"\1", name).split("@")[0] for name in undefined_symbols()}
    assert called, "nm says nothing"
    assert called & FORBIDDEN_CALLS == set()


def test_the_library_has_one_variable_that_can_be_written():
    symbols = re.findall(r"^[0-9a-f]+ .{7} (\.(?:data|bss|tdata|tbss)\S*|\*COM\*)\s+([0-9a-f]+) (\S+)",
                         output("objdump", "-t", BUILD / "libsteady.a"), re.M)
    constant = (".data.rel.ro", ".data.rel.ro.local")  # constants with addresses in them
    writable = {name for section, size, name in symbols if section not in constant and int(size, 16) > 0}
    assert writable == {"denials_process"}  # the memory of denials, one for each process


# ---- Exports ----


# Each library, and the headers that declare its functions.
LIBRARIES = {"libsteady": ["steady.h", "steady/client.h", "steady/http.h"], "libsteady-hiredis": ["steady/hiredis.h"]}


def declared_functions(library="libsteady"):
    texts = [(ROOT / "include" / header).read_text() for header in LIBRARIES[library]]
    text = re.sub(r"/\*.*?\*/", "", "".join(texts), flags=re.S)
    return set(re.findall(r"STEADY_API[^;{]*?\b(steady_\w+)\(", text))


def test_every_header_that_declares_a_function_has_a_library():
    headers = {str(path.relative_to(ROOT / "include")) for path in tracked("include/*.h", "include/steady/*.h")
               if re.search(r"^STEADY_API ", path.read_text(), re.M)}
    assert headers == {header for headers in LIBRARIES.values() for header in headers}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_shared_library_exports_exactly_what_its_headers_declare(library):
    lines = output("nm", "-D", "--defined-only", BUILD / f"{library}.so").splitlines()
    assert declared_functions(library)
    assert {line.split()[2].split("@")[0] for line in lines} == declared_functions(library)


def test_only_libsteady_hiredis_links_hiredis():
    linked = {library: re.findall(r"NEEDED.*\[(.+?)\.so", output("readelf", "-d", BUILD / f"{library}.so")) for library in LIBRARIES}
    assert "libhiredis" not in linked["libsteady"] and set(linked["libsteady"]) <= {"libc", "libssl", "libcrypto", "ld-linux-aarch64"}
    assert {"libsteady", "libhiredis"} <= set(linked["libsteady-hiredis"])


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_soname_is_the_one_the_compatibility_page_names(library):
    soname = re.search(r"SONAME.*\[(.+)\]", output("readelf", "-d", BUILD / f"{library}.so"))[1]
    assert f"`{soname}`" in (ROOT / "docs/reference/compatibility.md").read_text()


def test_internal_symbols_have_the_internal_prefix():
    lines = output("nm", "--defined-only", "--extern-only", BUILD / "libsteady.a").splitlines()
    names = {line.split()[2] for line in lines if len(line.split()) == 3}
    public = declared_functions()
    assert public <= names
    assert {name for name in names - public if not name.startswith("steady__")} == set()


# ---- Files ----

SOURCES = ["*.c", "*.h", "*.py", "*.lua", "*.bash", "scripts/*", ".ci/run", "Makefile"]


def test_every_source_file_names_its_licence_on_top():
    bare = [path for path in tracked(*SOURCES) if "SPDX-License-Identifier: MIT" not in path.read_text()[:200]]
    assert not bare


def test_no_file_names_a_path_of_a_developers_machine():
    pattern = re.compile(r"(?<![\w.:/])/(?:home|root|Users|mnt)/\w")
    named = [f"{path.relative_to(ROOT)}: {line.strip()}"
             for path in tracked() for line in path.read_text(errors="replace").splitlines() if pattern.search(line)]
    assert not named


def names_of_c_tests():
    """file:name of each test in a table of a C program."""
    for path in tracked("tests/*.c", "tests/faults/*.c"):
        text = path.read_text()
        functions = set(re.findall(r"^static void (\w+)\(void \*\*state\) \{", text, re.M))
        for table in re.findall(r"struct CMUnitTest \w+\[\] = \{(.*?)\};", text, re.S):
            yield from (f"{path.stem}:{name}" for name in re.findall(r"\w+", table) if name in functions)


def test_the_name_of_a_test_in_c_says_subject_and_outcome():
    names = [test.split(":")[1] for test in names_of_c_tests()]
    assert len(names) > 400
    assert [name for name in names if name.startswith("test_") or name.count("_") < 2] == []


def test_every_mutant_of_the_simulation_has_one_place():
    mutants = runpy.run_path(str(ROOT / "tests/sim/mutants"))["MUTANTS"]
    counts = {what: (ROOT / name).read_text().count(old) for what, name, old, _ in mutants}
    assert len(counts) == len(mutants)
    assert [what for what, count in counts.items() if count != 1] == []


def test_the_changelog_begins_with_the_version_of_the_header():
    version = re.search(r'STEADY_VERSION "(.+)"', (ROOT / "include/steady.h").read_text())[1]
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version


def test_every_make_target_has_a_line_of_help_or_is_internal():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.M)[1].split()
    shown = output("make", "-s", "-C", ROOT, "help")
    assert {name for name in phony if f"make {name} " not in shown} == {"everything", "force", "help"}
