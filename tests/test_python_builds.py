# SPDX-License-Identifier: MIT
"""The tests of the Python package under uvloop, AddressSanitizer, UBSan and mypy; its sdist and its wheel, on the oldest
and the newest installed Python."""
import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import aiosteady_build
import pytest
from conftest import BUILD, ROOT

TESTS = ["test_python.py", "test_python_several.py", "test_python_reserve.py", "test_python_wait.py", "test_python_loops.py",
         "test_python_memory.py", "test_python_waking.py", "test_python_tls.py"]
IN_PROCESSES_OF_THEIR_OWN = "level or forked or ends_with_work_pending or subinterpreters or running_out_of_memory"


def succeeds(command, **kwargs):
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **kwargs)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    return run.stdout


# ---- The same tests again ----


def run_tests(env, but):
    return succeeds([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=short", "-k", f"not ({but})",
                     *(ROOT / "tests" / name for name in TESTS)], env={**os.environ, **env})


@pytest.mark.packages
def test_the_tests_pass_under_uvloop(aiosteady, from_pypi):
    env = {"PYTHONPATH": str(from_pypi("uvloop")), "AIOSTEADY_UVLOOP": "1", "AIOSTEADY": str(aiosteady)}
    assert "passed" in run_tests(env, IN_PROCESSES_OF_THEIR_OWN)


def sanitizer(name):
    path = succeeds(["gcc", f"-print-file-name={name}.so"]).strip()
    if not Path(path).is_absolute():
        pytest.skip(f"gcc has no {name} here")
    return path


@pytest.mark.sanitizers
def test_the_tests_pass_under_address_sanitizer():
    preload = f"{sanitizer('libasan')} {sanitizer('libubsan')}"
    flags = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
    built = aiosteady_build.build(BUILD / "python-asan", env={**os.environ, "CC": "gcc", "CFLAGS": flags, "LDFLAGS": flags})
    env = {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc", "AIOSTEADY": str(built)}
    assert "passed" in run_tests(env, "level or whole_rate")


def test_the_extension_is_never_unloaded(aiosteady):
    """A lookup thread may outlive the last store."""
    built = next(Path(aiosteady).glob("aiosteady/_core*.so"))
    assert "NODELETE" in succeeds(["readelf", "-dW", str(built)])


@pytest.mark.packages
def test_a_build_with_openssl_after_one_without_has_tls(tmp_path):
    quickly = {**os.environ, "CFLAGS": "-O0"}
    for env, has_tls in (({**quickly, "PKG_CONFIG_LIBDIR": str(tmp_path)}, False), (quickly, True)):
        built = aiosteady_build.build(tmp_path, env=env)
        needed = succeeds(["readelf", "-d", next(built.glob("aiosteady/_core*.so"))])
        assert ("libssl" in needed) == has_tls
    before = next(built.glob("aiosteady/_core*.so")).stat().st_mtime_ns
    assert next(aiosteady_build.build(tmp_path, env=quickly).glob("aiosteady/_core*.so")).stat().st_mtime_ns == before


@pytest.mark.packages
def test_without_a_16_byte_compare_and_swap_the_package_has_no_embedded_store(tmp_path):
    env = {**os.environ, "CC": "gcc -U__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16", "CFLAGS": "-O0"}
    built = aiosteady_build.build(tmp_path, env=env)
    program = ("import aiosteady.blocking\n"
               "try: aiosteady.blocking.Throttler('memory:', 1, 1)\n"
               "except aiosteady.Unsupported as error: print(error)\n")
    assert "this build has no embedded store" in succeeds([sys.executable, "-c", program], env={**env, "PYTHONPATH": str(built)})


# ---- Types ----


@pytest.mark.packages
def test_the_types_are_strict_and_the_stub_matches_the_module(aiosteady, from_pypi):
    imported = from_pypi("mypy", "typing_extensions", "prometheus_client", "pydantic_core", "starlette")
    env = {**os.environ, "PYTHONPATH": f"{imported}:{aiosteady}"}
    strict = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull]
    assert "no issues" in succeeds([*strict, "aiosteady"], cwd=ROOT / "python", env=env)
    stubtest = [sys.executable, "-m", "mypy.stubtest", "--ignore-disjoint-bases"]
    assert "no issues" in succeeds([*stubtest, "aiosteady._core"], cwd=BUILD, env=env)
    user = ("import asyncio, aiosteady\n"
            "async def main() -> float | None:\n"
            "    async with aiosteady.Throttler('memory:', 10, 5.0) as t, t.limit('k') as r:\n"
            "        reveal_type(r)\n"
            "        @t.limit(lambda a, b: str(a))\n"
            "        async def f(a: int, b: str) -> bytes: return b''\n"
            "        reveal_type(f)\n"
            "        return (await t.consume(b'k')).retry_after\n")
    said = succeeds([*strict, "-c", user], cwd=BUILD, env=env)
    assert "ThrottleResult" in said and re.search(r"\(a: .*int.*, b: .*str.*\) -> .*Coroutine\[.*bytes\]", said), said


# ---- sdist and wheel ----

QUICKLY = {**os.environ, "CFLAGS": "-O0"}


def pip(*command, pip=(sys.executable, "-m", "pip", "--disable-pip-version-check")):
    """Skips if pip cannot install setuptools, which the build needs."""
    run = subprocess.run([*pip, *command], env=QUICKLY, capture_output=True, text=True, timeout=240, check=False)
    if run.returncode != 0 and re.search("No matching distribution found for setuptools|ConnectionError", run.stderr):
        pytest.skip(f"pip cannot have setuptools here: {run.stderr[-200:]}")
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone")
    succeeds(["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", folder / "tree"])
    return folder / "tree"


@pytest.fixture(scope="module")
def sdist(clone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    setup = [sys.executable, "-W", "ignore", "setup.py", "-q", "sdist", "-d", folder]
    succeeds(setup, cwd=clone / "python", env=aiosteady_build.with_setuptools())
    return next(folder.glob("*.tar.gz"))


def sources(names, below):
    """The names of src/..., include/..., lua/... and core/... in an archive."""
    return {re.sub(r"^.*?/", "", name, count=1).removeprefix(below) for name in names if re.search(r"\.(c|h|lua)$", name)}


@pytest.mark.packages
def test_an_sdist_has_the_sources_that_the_tree_has_once(clone, sdist):
    headers = ["include/steady.h", "include/steady/http.h"]
    tracked = succeeds(["git", "ls-files", "src", "lua", *headers, "python/core"], cwd=clone).split()
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert sources(names, "steady/") == {name.removeprefix("python/") for name in tracked if re.search(r"\.(c|h|lua)$", name)}
    for name in ("README.md", "LICENSE", "PKG-INFO", "pyproject.toml", "setup.py", "steady/scripts/embed-lua",
                 "aiosteady/py.typed", "aiosteady/_core.pyi"):
        assert any(re.fullmatch(f"[^/]+/{name}", there) for there in names), name
    assert not (clone / "python/steady").exists()


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "-q", "--no-deps", "-w", folder, clone / "python")
    return next(folder.glob("*.whl"))


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))))


@pytest.mark.packages
def test_a_wheel_has_the_package_and_its_metadata(clone, wheel):
    assert succeeds(["git", "status", "--porcelain"], cwd=clone) == "", "building leaves nothing that git would see"
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.endswith("/")}
    about = metadata(wheel).as_string()
    package = {name for name in inside if name.startswith("aiosteady/")}
    here = {f"aiosteady/{path.name}" for path in (clone / "python/aiosteady").iterdir()}
    assert {name for name in package if "_core.cpython" not in name} == here
    assert len(package - here) == 1 and not any(name.endswith((".c", ".h", ".lua")) for name in inside)
    assert sum(name.endswith(("/licenses/LICENSE", "/licenses/LICENSE.OpenSSL")) for name in inside) == 2
    for line in ("Name: aiosteady", "Requires-Python: >=3.9", "Classifier: Typing :: Typed", "Summary: ", "Keywords: ",
                 "Description-Content-Type: text/markdown", "Classifier: Framework :: AsyncIO"):
        assert f"\n{line}" in about, line
    assert "Requires-Dist" not in about and "aiosteady 22.1.0" in about


@pytest.mark.packages
def test_the_license_of_a_wheel_is_an_spdx_expression(wheel):
    about = metadata(wheel)
    assert (about["License-Expression"], about["License"]) == ("MIT", None)
    assert [words for words in about.get_all("Classifier") if words.startswith("License")] == []


@pytest.mark.packages
def test_the_links_of_a_wheel_are_absolute_and_name_files_of_the_tree(wheel):
    about = metadata(wheel)
    urls = dict(line.split(", ") for line in about.get_all("Project-URL"))
    assert list(urls) == ["Homepage", "Documentation", "Source", "Changelog"]
    links = {*re.findall(r"\]\(([^)]*)\)", about.get_payload()), urls["Documentation"], urls["Changelog"]}
    tree = urls["Documentation"].removesuffix("docs/README.md")
    assert tree.startswith("https://") and len(links) > 10
    outside = [link for link in links if not link.startswith((tree, "#"))]
    assert outside == [] and all((ROOT / link.removeprefix(tree).split("#")[0]).exists() for link in links)


@pytest.mark.packages
def test_the_package_the_library_and_the_command_have_one_version(aio, wheel, steady):
    version = re.search(r'STEADY_VERSION "(.+)"', (ROOT / "include/steady.h").read_text())[1]
    assert aio.__version__ == metadata(wheel)["Version"] == version
    assert succeeds([steady, "version"]) == f"steady {version}\n"
    assert aio.OPENSSL_VERSION.startswith("OpenSSL 3.")


@pytest.mark.packages
def test_cibuildwheel_makes_a_wheel_for_each_python_libc_and_processor(from_pypi):
    env = {**os.environ, "PYTHONPATH": str(from_pypi("cibuildwheel"))}
    command = [sys.executable, "-m", "cibuildwheel", "--platform", "linux", "--print-build-identifiers", "python"]
    listed = succeeds(command, cwd=ROOT, env=env).split()
    assert sorted(listed) == sorted(f"cp3{minor}-{libc}linux_{processor}" for minor in range(9, 15) for libc in ("many", "musl")
                                    for processor in ("x86_64", "aarch64"))


@pytest.mark.packages
def test_twine_accepts_the_sdist_and_the_wheel(sdist, wheel, from_pypi):
    env = {**os.environ, "PYTHONPATH": str(from_pypi("twine")), "COLUMNS": "500"}
    said = succeeds([sys.executable, "-m", "twine", "--no-color", "check", "--strict", sdist, wheel], env=env)
    assert said.count(": PASSED\n") == 2, said


SMOKE = """
import asyncio, sys, sysconfig
import aiosteady
from aiosteady.leakybucket import Throttler, ThrottleResult

async def main(run):
    for where in (aiosteady.connect(sys.argv[1], timeout=10), "memory:"):
        t = Throttler(where, 3, 0.05, prefix=f"{sys.version} {run}")
        assert [(await t.consume("k")).level for _ in range(3)] == [1, 2, 3]
        assert (await t.wait("k", timeout=2)).success
        assert await t.reset("k") == ThrottleResult(True, 0, 0.05, None)
        results = await asyncio.gather(*(t.consume(f"k{i}", i % 3 + 1) for i in range(300)))
        assert [r.level for r in results] == [i % 3 + 1 for i in range(300)]
        task = asyncio.ensure_future(t.consume("k"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

asyncio.run(main(1), debug=True)
asyncio.run(main(2))
assert aiosteady.__file__.startswith(sysconfig.get_path("platlib"))
print("fine")
"""


@pytest.mark.packages
@pytest.mark.parametrize("which", ["this", "oldest", "newest"])
def test_an_sdist_installs_into_a_fresh_environment(sdist, redis_server, tmp_path, which):
    others = [python for name, python in aiosteady_build.pythons().items() if name != f"3.{sys.version_info.minor}"]
    if which != "this" and len(others) < 1 + (which == "newest"):
        pytest.skip("no other Python is here")
    python = sys.executable if which == "this" else others[0 if which == "oldest" else -1]
    inside, its_pip = aiosteady_build.new_environment(python, tmp_path / "env")
    pip("install", "-q", sdist, pip=its_pip)
    assert succeeds([inside, "-X", "dev", "-c", SMOKE, redis_server.url]) == "fine\n"
