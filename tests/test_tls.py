# SPDX-License-Identifier: MIT
"""TLS of the command on rediss://, and of a library built without OpenSSL."""
import asyncio
import os
import re
import subprocess
from pathlib import Path

import pytest
from command import ALLOWED, LIMIT, UNAVAILABLE, USAGE
from python_rig import under_asyncio
from resp import free_port

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BUILD", ROOT / "build")).resolve()


def sh(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def make(*arguments):
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return sh("make", "--no-print-directory", "-C", ROOT, *arguments, env=env)


def new_certificate(folder, name, names):
    sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30, "-subj",
       f"/CN={name}", "-addext", f"subjectAltName={names}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The self-signed certificates server.pem and client.pem."""
    folder = tmp_path_factory.mktemp("certificates")
    new_certificate(folder, "server", "DNS:localhost,IP:127.0.0.1")
    new_certificate(folder, "client", "DNS:client")
    return folder


@pytest.fixture(scope="module")
def tls(start_redis, folder):
    """A redis-server that trusts the client's certificate. `tls.at` is its host and port."""
    port = free_port()
    server = start_redis("--tls-port", str(port), "--tls-cert-file", f"{folder}/server.pem", "--tls-key-file",
                         f"{folder}/server.key", "--tls-ca-cert-file", f"{folder}/client.pem", "--tls-auth-clients", "optional")
    server.at = f"localhost:{port}"
    return server


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_the_command_decides_over_tls(ask, tls, folder, scheme):
    tls("FLUSHALL")
    on = ("--store", f"{scheme}://{tls.at}/2?tls_ca={folder}/server.pem")
    assert ask("consume", "k", *LIMIT, "--amount", "7", *on)[0] == ALLOWED
    assert ask("peek", "k", *LIMIT, *on)[1]["level"] == 7
    assert ask("reset", "k", *on)[0] == ALLOWED
    assert ask("consume", "k", *LIMIT, *on)[1]["level"] == 1


def test_the_command_sends_its_client_certificate(run, ask, tls, folder):
    tls("CONFIG", "SET", "tls-auth-clients", "yes")
    url = f"rediss://{tls.at}?tls_ca={folder}/server.pem"
    own = f"{url}&tls_cert={folder}/client.pem&tls_key={folder}/client.key"
    try:
        done = run("consume", "k", *LIMIT, "--store", url)
        assert (done.returncode, done.stdout) == (UNAVAILABLE, "")
        assert "the server requires a client certificate (set tls_cert)" in done.stderr
        assert ask("consume", "k", *LIMIT, "--store", url)[1]["error"] == "refused"
        assert ask("consume", "k", *LIMIT, "--store", own)[0] == ALLOWED
    finally:
        tls("CONFIG", "SET", "tls-auth-clients", "optional")


def test_an_untrusted_server_is_unavailable(run, ask, tls):
    on = ("--store", f"rediss://{tls.at}")
    done = run("consume", "k", *LIMIT, *on)
    assert (done.returncode, done.stdout) == (UNAVAILABLE, "")
    assert done.stderr == (f"steady: the store gave no verdict; nothing was charged: {tls.at}: "
                           "the server's certificate is self-signed and not trusted (set tls_ca)\n")
    assert ask("consume", "k", *LIMIT, *on)[1]["error"] == "unavailable"
    assert ask("consume", "k", *LIMIT, "--store", f"rediss://{tls.at}?tls_insecure_skip_verify=yes")[0] == ALLOWED


def test_a_missing_file_is_a_usage_error(run, folder):
    done = run("consume", "k", *LIMIT, "--store", f"rediss://localhost?tls_cert={folder}/none.pem")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr == f"steady: the TLS certificate {folder}/none.pem: No such file or directory\n"


def test_no_key_and_no_password_is_shown(run, tls, folder):
    for query in (f"tls_ca={folder}/server.key", f"tls_cert={folder}/server.key", f"tls_cert={folder}/client.pem&tls_key={folder}/server.key",
                  f"tls_ca={folder}/server.pem"):
        done = run("consume", "k", *LIMIT, "--store", f"rediss://user:hunter2@{tls.at}?{query}")
        assert done.returncode in (USAGE, UNAVAILABLE)
        secret = "".join((folder / "server.key").read_text().splitlines()[1:2])
        assert len(secret) == 64 and secret[:16] not in done.stderr and "hunter2" not in done.stderr


@under_asyncio
async def test_the_python_package_decides_over_tls(aio, tls, folder):
    url = f"rediss://{tls.at}/3?tls_ca={folder}/server.pem"
    tls("FLUSHALL")
    async with aio.connect(url, timeout=10) as store:
        t = aio.Throttler(store, 1000, 60)
        results = await asyncio.gather(*(t.consume(f"k{i}", i + 1) for i in range(100)))
        assert [r.level for r in results] == list(range(1, 101))
    for options in ("", f"?tls_ca={folder}/client.pem"):  # the system's authorities, or another certificate
        async with aio.connect(f"rediss://{tls.at}{options}", timeout=10) as store:
            with pytest.raises(aio.Unavailable, match="certificate"):
                await aio.Throttler(store, 1, 60).consume("k")
    with pytest.raises((ValueError, aio.Error), match="nobody.pem"):
        await aio.Throttler(f"rediss://{tls.at}?tls_ca={folder}/nobody.pem", 1, 60).consume("k")


# ---- Linked libraries ----


def needed(path):
    return re.findall(r"NEEDED.*\[(.+?)\.so", sh("readelf", "-d", path))


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """An installed library and command, built with TLS=no."""
    folder = tmp_path_factory.mktemp("without")
    make("-j2", f"BUILD={folder}/build", f"PREFIX={folder}/prefix", "CFLAGS=-O0", "TLS=no", "install")
    return folder / "prefix"


def private_libraries(prefix):
    return re.search(r"^Libs.private:(.*)$", (prefix / "lib/pkgconfig/steady.pc").read_text(), re.M)[1].split()


def test_the_library_and_its_pkg_config_file_name_openssl(tmp_path):
    make(f"BUILD={BUILD}", f"PREFIX={tmp_path}", "install")
    assert {"-lssl", "-lcrypto"} <= set(private_libraries(tmp_path))
    assert {"libssl", "libcrypto"} <= set(needed(tmp_path / "lib/libsteady.so"))


def test_without_openssl_nothing_names_it(without):
    assert private_libraries(without) == ["-pthread"]
    assert not {"libssl", "libcrypto"} & {*needed(without / "lib/libsteady.so"), *needed(without / "bin/steady")}


def test_without_openssl_tls_is_refused_and_the_rest_works(without, redis_server):
    steady = without / "bin/steady"
    done = subprocess.run([steady, "consume", "k", *LIMIT, "--store", "rediss://user:hunter2@localhost"],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (UNAVAILABLE, "")
    assert "this library was built without OpenSSL, so it has no TLS" in done.stderr and "hunter2" not in done.stderr
    sh(steady, "consume", "k", *LIMIT, "--store", redis_server.url)
