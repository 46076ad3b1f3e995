# SPDX-License-Identifier: MIT
"""The installed copy: the headers, the libraries and pkg-config work without the source tree."""
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BUILD", ROOT / "build")).resolve()
EXAMPLES = sorted((ROOT / "examples").glob("*.c"))

# The libraries that an example needs besides steady, by the header that it includes.
LIBRARIES = {"uv.h": ["-luv"], "event.h": ["-levent"], "ev.h": ["-lev"], "hiredis.h": ["-lhiredis"], "async.h": ["-lhiredis"],
             "pthread.h": ["-pthread"]}


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=120, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def make(*arguments):
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return run("make", "--no-print-directory", "-C", ROOT, f"BUILD={BUILD}", *arguments, env=env)


class Installed:
    """A copy of steady under its own prefix."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.libraries = prefix / "lib"
        make("install", f"PREFIX={prefix}")

    def pkg_config(self, *arguments, package="steady"):
        env = {**os.environ, "PKG_CONFIG_PATH": str(self.libraries / "pkgconfig")}
        return run("pkg-config", *arguments, package, env=env).split()

    def compile(self, source, program, *options, linked="shared", compiler="cc"):
        package = "steady-hiredis" if "<steady/hiredis.h>" in Path(source).read_text() else "steady"
        if linked == "shared":
            flags = self.pkg_config("--cflags", "--libs", package=package)
        else:
            flags = self.pkg_config("--cflags", "--libs", "--static", package=package)
            flags = [re.sub(r"^-l(steady(-hiredis)?)$", r"-l:lib\1.a", flag) for flag in flags]
        run(compiler, "-Wall", "-Wextra", "-Werror", *options, source, "-o", program, *flags, *libraries_of(source))
        return program

    def run(self, program, *arguments, **env):
        return run(program, *arguments, stdin=subprocess.DEVNULL,
                   env={**os.environ, "LD_LIBRARY_PATH": str(self.libraries), **env})


    def run_example(self, program, **env):
        """Once more if the machine took the time of a decision away: an example has the default timeout."""
        for _ in range(10):
            done = subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
                                  env={**os.environ, "LD_LIBRARY_PATH": str(self.libraries), **env})
            if done.returncode != 1 or not re.search(r" within \d+ us", done.stdout + done.stderr):
                break
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def libraries_of(source):
    headers = re.findall(r"#include <(?:[\w-]+/)*([\w-]+\.h)>", Path(source).read_text())
    return sorted({flag for header in headers for flag in LIBRARIES.get(header, [])})


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("prefix"))


# ---- install and uninstall ----


def files_under(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def test_install_puts_everything_under_destdir_and_uninstall_takes_it_away(tmp_path):
    place = [f"DESTDIR={tmp_path}", "PREFIX=/opt/steady", "LIBDIR=/opt/steady/lib/x"]
    make("install", *place)
    version = re.search(r'STEADY_VERSION "(.+)"', (ROOT / "include/steady.h").read_text())[1]
    got = files_under(tmp_path)
    assert {name for name in got if not name.startswith("opt/steady/")} == set()
    got = {name.removeprefix("opt/steady/") for name in got}
    pages = {f"share/man/man{page.suffix[1:]}/{page.name}" for page in (ROOT / "man").glob("*.[1357]")}
    headers = {f"include/steady/{header.name}" for header in (ROOT / "include/steady").glob("*.h")}
    libraries = {f"{library}{end}" for library in ("libsteady", "libsteady-hiredis") for end in (".a", ".so", ".so.0", f".so.{version}")}
    libraries |= {"pkgconfig/steady.pc", "pkgconfig/steady-hiredis.pc", "steady/steady.so"}
    assert len(pages) >= 6 and len(headers) == 6
    daemon = {"bin/steadyd"} if (BUILD / "steadyd").exists() else set()
    assert got == {"include/steady.h", "bin/steady", *daemon, "share/bash-completion/completions/steady", *pages, *headers,
                   *(f"lib/x/{name}" for name in libraries)}
    make("uninstall", *place)
    assert files_under(tmp_path) == set()
    assert not (tmp_path / "opt/steady/include/steady").exists()


def test_install_tells_the_linker_but_not_of_what_lies_under_destdir(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ldconfig").write_text(f"#!/bin/sh\necho told >>{tmp_path}/told\n")
    (tmp_path / "bin/ldconfig").chmod(0o755)
    path = f"PATH={tmp_path}/bin:{os.environ['PATH']}"
    make("install", path, f"DESTDIR={tmp_path}/staged", "PREFIX=/opt/steady")
    assert not (tmp_path / "told").exists()
    make("install", path, f"PREFIX={tmp_path}/place")
    assert (tmp_path / "told").read_text() == "told\n"


def test_the_pkg_config_file_names_what_is_installed(installed):
    assert installed.pkg_config("--modversion") == [installed.run(installed.prefix / "bin/steady", "version").split()[-1]]
    assert installed.pkg_config("--variable=prefix") == [str(installed.prefix)]
    assert not [flag for flag in installed.pkg_config("--libs", "--static") if "hiredis" in flag]
    assert {"-lsteady-hiredis", "-lsteady"} <= set(installed.pkg_config("--libs", package="steady-hiredis"))
    assert "-lhiredis" in installed.pkg_config("--libs", "--static", package="steady-hiredis")


def test_pkg_config_needs_no_file_of_hiredis_or_openssl(installed, tmp_path):
    alone = {**os.environ, "PKG_CONFIG_LIBDIR": str(installed.libraries / "pkgconfig"), "PKG_CONFIG_PATH": ""}
    flags = run("pkg-config", "--cflags", "--libs", "steady", env=alone).split()
    source = tmp_path / "version.c"
    source.write_text("#include <steady.h>\n#include <stdio.h>\nint main(void) { puts(STEADY_VERSION); return 0; }\n")
    run("cc", source, "-o", tmp_path / "version", *flags)
    assert installed.run(tmp_path / "version").strip() == installed.pkg_config("--modversion")[0]
    assert run("pkg-config", "--static", "--libs", "steady", env=alone).split()
    assert run("pkg-config", "--static", "--libs", "steady-hiredis", env=alone).split()


def test_the_installed_command_needs_no_library_of_ours(installed):
    env = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    assert "steady" in run(installed.prefix / "bin/steady", "version", env=env)


# ---- examples ----


def test_there_is_an_example_for_each_way_to_use_it():
    headers = {header for source in EXAMPLES for header in re.findall(r"#include <(.+?)>", source.read_text())}
    assert {"steady/uv.h", "steady/event.h", "steady/ev.h", "steady/hiredis.h", "pthread.h", "sys/epoll.h"} <= headers


@pytest.mark.parametrize("linked", ["shared", "static"])
@pytest.mark.parametrize("source", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_builds_and_runs_against_the_installed_copy(installed, redis_server, tmp_path, source, linked):
    program = installed.compile(source, tmp_path / source.stem, "-std=c11", "-D_GNU_SOURCE", linked=linked)
    dynamic = run("readelf", "-d", program)
    assert ("libsteady.so.0" in dynamic) == (linked == "shared")
    assert installed.run_example(program, REDIS_URL=redis_server.url).strip()


@pytest.mark.parametrize("source", [path for path in EXAMPLES if path.stem != "demo"], ids=lambda path: path.stem)
def test_an_example_without_an_answer_exits_with_its_error_code(installed, closed_port, tmp_path, source):
    program = installed.compile(source, tmp_path / source.stem, "-std=c11", "-D_GNU_SOURCE", linked="static")
    env = {**os.environ, "REDIS_URL": f"redis://127.0.0.1:{closed_port}"}
    done = subprocess.run([program], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1 and done.stdout + done.stderr


@pytest.mark.parametrize("url", ["memory:", "file:", "redis"])
def test_threads_of_a_pool_share_one_limit(installed, redis_server, tmp_path, url):
    url = {"memory:": url, "file:": f"file:{tmp_path}/buckets", "redis": redis_server.url}[url]
    redis_server("DEL", "user:42")
    program = installed.compile(ROOT / "examples/threads.c", tmp_path / "threads", "-std=c11", linked="static")
    assert installed.run(program, url) == "4 threads: 10 jobs allowed, 30 denied, 0 without a verdict\n"


def test_the_poller_runs_a_timer_and_a_descriptor_of_the_program(installed, tmp_path):
    program = installed.compile(ROOT / "examples/poller.c", tmp_path / "poller", "-std=c11", "-D_GNU_SOURCE", linked="static")
    done = subprocess.run([program, "memory:"], input="how far?\n", capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0
    assert len(re.findall(r"^(allowed|denied)", done.stdout, re.M)) == 12
    assert len(re.findall(r"^asked \d+ times", done.stdout, re.M)) == 1


def test_the_poller_ends_at_a_signal(installed, tmp_path):
    program = installed.compile(ROOT / "examples/poller.c", tmp_path / "poller", "-std=c11", "-D_GNU_SOURCE", linked="static")
    running = subprocess.Popen([program, "memory:"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert running.stdout.read(1)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=30) == 0


# ---- The README ----


def readme():
    return (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "include/steady.h", "man/steady.3"])
def test_the_first_c_example_compiles_and_runs(installed, tmp_path, page):
    if page == "README.md":
        code = re.search(r"^```c\n(.*?)^```", readme(), re.S | re.M)[1]
    elif page == "man/steady.3":
        code = re.search(r"^\.Bd -literal\n(.*?)^\.Ed", (ROOT / page).read_text(), re.S | re.M)[1].replace("\\e", "\\")
    else:
        code = re.search(r"^ \*     (#include <steady.h>.*?^ \*     \})$", (ROOT / page).read_text(), re.S | re.M)[1]
        code = re.sub(r"^ \* ? ? ? ? ?", "", code, flags=re.M)
    source = tmp_path / "example.c"
    source.write_text(code)
    assert installed.run(installed.compile(source, tmp_path / "example", "-std=c11")).strip()


def shown_commands(name):
    """The words after `name` in the README, in inline code or an indented line."""
    code = re.findall(r"`([^`\n]+)`", readme()) + re.findall(r"^    (.+)$", readme(), re.M)
    return {word for line in code for word in re.findall(rf"(?:^|&& |/){name} ([a-z]+)", line)}


def test_every_command_that_the_readme_shows_exists(installed):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {"run", "test"} <= shown_commands("make") <= set(targets)
    usage = installed.run(installed.prefix / "bin/steady", "help")
    assert shown_commands("steady")
    assert {verb for verb in shown_commands("steady") if not re.search(rf"^ +(?:steady )?{verb}\b", usage, re.M)} == set()


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", readme())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


# ---- The headers, alone ----

HEADERS = ["steady.h", "steady/uv.h", "steady/event.h", "steady/ev.h", "steady/client.h", "steady/hiredis.h", "steady/http.h"]
DIALECTS = [("gcc", "c11"), ("clang", "c11"), ("g++", "c++11"), ("g++", "c++20"), ("clang++", "c++11"), ("clang++", "c++20")]

# Uses each macro and inline function of a header.
CPLUSPLUS_USE = """
int main() {
    steady_store *store = nullptr;
    steady_throttler *throttler = nullptr;
    steady_limit limit = {};
    steady_result result = {};
    limit.max_capacity = 10;
    limit.drop_recharge = 5 * STEADY_SECOND;
    int error = steady_store_open(&store, nullptr, nullptr, nullptr);
    if (error == STEADY_OK) error = steady_throttler_new(&throttler, store, &limit, nullptr, nullptr);
    if (error == STEADY_OK) error = steady_consume_sync(throttler, "user:42", 7, 1, &result);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    return error == STEADY_OK && result.success && result.level == 1 ? 0 : 1;
}
"""


@pytest.mark.parametrize("compiler,dialect", DIALECTS)
@pytest.mark.parametrize("header", HEADERS)
def test_a_header_compiles_alone(installed, tmp_path, header, compiler, dialect):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    plus = "++" in compiler
    source = tmp_path / ("alone.cc" if plus else "alone.c")
    source.write_text(f"#include <{header}>\n#include <{header}>\n" + ("int main() {}\n" if plus else "int main(void) {}\n"))
    extensions = ["-D_GNU_SOURCE"] if header in ("steady/uv.h", "steady/event.h", "steady/ev.h") else []  # uv.h needs it
    run(compiler, f"-std={dialect}", *extensions, "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror",
        *installed.pkg_config("--cflags"), "-c", source, "-o", tmp_path / "alone.o")


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_a_cplusplus_program_compiles_and_runs(installed, tmp_path, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    source = tmp_path / "use.cc"
    source.write_text("#include <steady.h>\n" + CPLUSPLUS_USE)
    installed.run(installed.compile(source, tmp_path / "use", "-std=c++11", "-pedantic", compiler=compiler))
