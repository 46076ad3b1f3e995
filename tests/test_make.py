# SPDX-License-Identifier: MIT
"""The settings of `make`, its target machine, and its messages if something is missing."""
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from serve_rig import BUILD, needs_daemon

ROOT = Path(__file__).resolve().parent.parent
QUICKLY = ["CFLAGS=-O0", "-j2"]
OTHER_USER = 65534
NO_HIREDIS = ("*** libsteady-hiredis is not built. hiredis was not found. Install it with: "
              "apt-get update && apt-get install -y libhiredis-dev")


def environment(**changes):
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "BUILD", "TLS")}
    return {**inherited, **changes}


def make(*words, env=None, **options):
    command = ["make", "--no-print-directory", "-C", ROOT, *words]
    return subprocess.run([str(word) for word in command], env=env or environment(), capture_output=True, text=True,
                          timeout=240, check=False, **options)


def made(*words, **options):
    run = make(*words, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def times_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def without_tls(tmp_path_factory):
    """A build with other settings, and the output of make. It has no daemon, which would be half of the work."""
    build = tmp_path_factory.mktemp("settings") / "build"
    said = made(f"BUILD={build}", *QUICKLY, "CC=gcc", "TLS=no", "SERVE=no", "LDFLAGS=-Wl,--build-id=none")
    return build, said


@pytest.fixture
def open_folder():
    """A folder that other users can read."""
    folder = Path(tempfile.mkdtemp(prefix="steady-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def path_without(open_folder):
    """Makes a PATH with all programs of this machine except these."""

    def path(*missing):
        folder = open_folder / "bin"
        folder.mkdir()
        for place in ("/usr/sbin", "/usr/bin"):
            for program in Path(place).iterdir():
                if not re.search(rf"(^|-)({'|'.join(missing)})$", program.name) and not (folder / program.name).is_symlink():
                    (folder / program.name).symlink_to(program)
        return str(folder)

    return path


# ---- Settings ----


def test_install_installs_what_was_built_with_the_settings_of_the_build(without_tls, tmp_path):
    build, _ = without_tls
    before = times_of(build)
    made(f"BUILD={build}", f"PREFIX={tmp_path}", "install")
    assert times_of(build) == before
    for name, at in (("steady", "bin/steady"), ("libsteady.a", "lib/libsteady.a"), ("libsteady-hiredis.a", "lib/libsteady-hiredis.a"),
                     ("steady.so", "lib/steady/steady.so")):
        assert (tmp_path / at).read_bytes() == (build / name).read_bytes()
    assert "ssl" not in (tmp_path / "lib/pkgconfig/steady.pc").read_text()


def test_a_setting_given_to_install_is_used(without_tls, tmp_path):
    build = tmp_path / "build"
    shutil.copytree(without_tls[0], build, symlinks=True)
    said = made(f"BUILD={build}", f"PREFIX={tmp_path}/prefix", "LDFLAGS=-Wl,--build-id=sha1", "V=1", "install")
    assert "-O0" in said and "--build-id=sha1" in said and "--build-id=none" not in said
    assert "BUILT_TLS := no" in (build / "settings").read_text().splitlines()


def test_settings_are_recorded_as_they_were_given(tmp_path):
    odd = """-O0 -DNAME='"a b"' -DCASH=$(CASH)"""
    made(f"BUILD={tmp_path}", f"CFLAGS={odd.replace('$', '$$')}", "CC=gcc", f"{tmp_path}/settings")
    assert f"BUILT_CFLAGS := {odd.replace('$', '$$')}" in (tmp_path / "settings").read_text().splitlines()
    before = times_of(tmp_path)
    made(f"BUILD={tmp_path}", f"CFLAGS={odd.replace('$', '$$')}", "CC=gcc", f"{tmp_path}/settings")
    assert times_of(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to be another user")
def test_install_as_root_builds_nothing_in_the_folder_of_a_user(without_tls, tmp_path):
    build = tmp_path / "build"
    shutil.copytree(without_tls[0], build, symlinks=True)
    subprocess.run(["chown", "-R", str(OTHER_USER), build], check=True)
    made(f"BUILD={build}", f"PREFIX={tmp_path}/prefix", "install")
    assert {path.stat().st_uid for path in build.rglob("*")} == {OTHER_USER}
    (build / "steady.so").unlink()
    refused = make(f"BUILD={build}", f"PREFIX={tmp_path}/other", "install")
    assert refused.returncode != 0 and "Run make as that user first." in refused.stderr
    assert not (build / "steady.so").exists() and not (tmp_path / "other").exists()


# ---- The target ----


@pytest.fixture(scope="module")
def for_aarch64(tmp_path_factory):
    """A build for another machine, and the output of make."""
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no aarch64-linux-gnu-gcc here")
    build = tmp_path_factory.mktemp("aarch64")
    return build, made(f"BUILD={build}", *QUICKLY, "CC=aarch64-linux-gnu-gcc", "V=1", "all")


def test_the_flags_are_those_of_the_compilers_target(for_aarch64):
    build, said = for_aarch64
    assert "-mbranch-protection=standard" in said and "-mcx16" not in said and "-fcf-protection" not in said
    header = subprocess.run(["readelf", "-h", build / "steady.so"], capture_output=True, text=True, check=True).stdout
    assert "AArch64" in header


def test_libraries_of_another_machine_are_not_used(for_aarch64):
    build, said = for_aarch64
    if subprocess.run("echo | aarch64-linux-gnu-gcc -include hiredis/hiredis.h -shared -x c - -lhiredis -o /dev/null",
                      shell=True, capture_output=True, check=False).returncode == 0:
        pytest.skip("hiredis for aarch64 is here")
    assert NO_HIREDIS in said
    assert not list(build.glob("libsteady-hiredis.*"))


# ---- Missing packages ----


def test_a_build_without_tls_says_so_in_one_line(without_tls):
    _, said = without_tls
    assert re.findall(r"^\*\*\* TLS IS OFF.*$", said, re.M) == ["*** TLS IS OFF: this build refuses rediss:// URLs. TLS=no was set."]


@pytest.fixture(scope="module")
def without_openssl(tmp_path_factory):
    """A build that finds no OpenSSL, with HIREDIS=no, and the output of make."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "openssl").mkdir()
    (folder / "openssl/ssl.h").write_text("#error there is none\n")
    return folder / "build", made(f"BUILD={folder}/build", f"CFLAGS=-O0 -I{folder}", "-j2", "HIREDIS=no", "all")


def test_a_build_that_finds_no_openssl_says_what_to_install(without_openssl):
    _, said = without_openssl
    assert re.findall(r"^\*\*\* TLS IS OFF.*apt-get update && apt-get install -y libssl-dev$", said, re.M)
    assert said.count("TLS IS OFF") == 1


@pytest.fixture(scope="module")
def without_hiredis(tmp_path_factory):
    """A build that finds neither headers nor pkg-config files of libraries, and no library of hiredis: what make printed,
    and the installed copy."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "hiredis").mkdir()
    (folder / "hiredis/hiredis.h").write_text("#error there is none\n")
    env = environment(PKG_CONFIG_LIBDIR=str(folder), C_INCLUDE_PATH=str(folder))
    settings = [f"BUILD={folder}/build", "HIREDIS_LIBS=-lnowhere"]
    said = made(*settings, *QUICKLY, "all", env=env)
    made(*settings, f"PREFIX={folder}/prefix", "install", env=env)
    return said, folder / "prefix"


def test_a_build_without_hiredis_says_in_one_line_what_to_install(without_hiredis):
    said, _ = without_hiredis
    assert re.findall(r"^\*\*\* libsteady-hiredis.*$", said, re.M) == [NO_HIREDIS]
    assert "No such file" not in said and "#error" not in said


def test_a_build_without_hiredis_installs_all_but_libsteady_hiredis(without_hiredis):
    _, prefix = without_hiredis
    names = {path.name for path in prefix.rglob("*")}
    assert {"libsteady.so", "libsteady.a", "steady.pc", "client.h", "steady", "steady.so"} <= names
    assert [name for name in names if "hiredis" in name] == []
    assert "hiredis" not in (prefix / "lib/pkgconfig/steady.pc").read_text()


def test_hiredis_no_is_said_and_recorded(without_openssl):
    build, said = without_openssl
    assert re.findall(r"^\*\*\* libsteady-hiredis.*$", said, re.M) == ["*** libsteady-hiredis is not built. HIREDIS=no was set."]
    assert "BUILT_HIREDIS := no" in (build / "settings").read_text().splitlines()
    assert not list(build.glob("libsteady-hiredis.*"))


def test_setup_asks_for_no_more_than_make_needs(path_without):
    path = path_without("pkg-config", "pkgconf", "sudo")
    run = setup("build", PATH=path, SETUP="no")
    assert run.returncode == 0 and run.stderr.startswith("Missing packages: pkg-config. SETUP=no installs nothing.")


def test_make_without_pkg_config_is_quiet_about_it(path_without, tmp_path):
    run = make("-n", f"BUILD={tmp_path}/build", "all", env=environment(PATH=path_without("pkg-config", "pkgconf")))
    assert (run.returncode, run.stderr) == (0, "")


def setup(*tasks, script=ROOT / "scripts/setup", user=None, **env):
    return subprocess.run([script, *tasks], env=environment(**env), capture_output=True, text=True,
                          user=user, check=False)


def test_setup_names_the_whole_command_to_a_user_without_root(path_without, open_folder):
    script = shutil.copy(ROOT / "scripts/setup", open_folder)
    run = setup("build", "test", script=script, user=OTHER_USER if os.geteuid() == 0 else None, PATH=path_without("pkg-config", "pkgconf", "sudo"))
    assert run.returncode == 1 and run.stdout == ""
    command = re.search(r"^    (apt-get update && apt-get install -y .*)$", run.stderr, re.M)[1]
    assert {"pkg-config", "libcmocka-dev", "libuv1-dev"} <= set(command.split())
    assert "not found" not in run.stderr


def test_setup_installs_nothing_where_told_so(path_without):
    path = path_without("pkg-config", "pkgconf", "sudo")
    run = setup("build", "test", PATH=path, SETUP="no")
    assert run.returncode == 1 and "SETUP=no installs nothing" in run.stderr
    assert "apt-get update && apt-get install -y pkg-config libcmocka-dev libuv1-dev" in run.stderr


def test_setup_without_what_only_some_tests_need_goes_on(path_without):
    path = path_without("man", "python3")
    (Path(path) / "python3").symlink_to(sys.executable)
    run = setup("test", PATH=path, SETUP="no")
    assert run.returncode == 0 and "man-db" in run.stderr


# ---- Running ----


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@needs_daemon
def test_the_daemon_of_make_serve_ends_with_it():
    port, admin_port = free_port(), free_port()
    env = environment(PORT=str(port), ADMIN_PORT=str(admin_port), SETUP="no")
    run = subprocess.Popen(["make", "--no-print-directory", "-C", ROOT, f"BUILD={BUILD}", "serve"], env=env, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = []
    for line in run.stdout:
        said.append(line)
        if "listening at" in line:
            break
    assert f"listening at 127.0.0.1:{port}" in said[-1], said
    run.terminate()
    run.wait(30)
    with pytest.raises(ConnectionRefusedError):  # the listeners are closed at once, and requests are finished
        for _ in range(100):
            socket.create_connection(("127.0.0.1", port), 5).close()
            time.sleep(0.1)
