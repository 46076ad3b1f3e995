# SPDX-License-Identifier: MIT
"""The wheels that scripts/wheels has made, each in its environment, where no compiler and no OpenSSL can be found."""
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from conftest import BUILD
from test_python_builds import SMOKE
from test_tls import folder, new_certificate, tls  # noqa: F401: fixtures

pytestmark = pytest.mark.wheels
WHEELS = sorted((BUILD / "wheels").glob("*.whl"))


@pytest.fixture(scope="module", params=WHEELS, ids=lambda wheel: wheel.name.split("-")[2])
def wheel(request):
    return request.param


@pytest.fixture(scope="module")
def python(wheel):
    """Runs a program in the environment of a wheel. Returns its output."""
    tag = re.search(r"-cp3(\d+t?)-manylinux", wheel.name)[1]
    inside = BUILD / f"wheels/python3.{tag}/bin/python"

    def python(program, *arguments, before=(), **env):
        run = subprocess.run([*before, inside, "-X", "dev", "-W", "error", "-c", program, *map(str, arguments)],
                             env={"PATH": "/nonexistent", **env}, capture_output=True, text=True, timeout=240, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    return python


@pytest.fixture(scope="module")
def extension(wheel, tmp_path_factory):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if "/_core." in name and name.endswith(".so"))
        return Path(archive.extract(name, tmp_path_factory.mktemp("extension")))


def readelf(*arguments):
    return subprocess.run(["readelf", *arguments], capture_output=True, text=True, check=True).stdout


def test_there_is_a_wheel():
    assert WHEELS != [], "scripts/wheels makes them"


def test_a_wheel_needs_the_c_library_and_nothing_else(extension):
    dynamic = readelf("-dW", extension)
    assert re.findall(r"NEEDED.*\[(.+?)\.so", dynamic)[0] == "libc"
    assert {library.split("-")[0] for library in re.findall(r"NEEDED.*\[(.+?)\.so", dynamic)} <= {"libc", "ld", "libpthread", "libdl"}
    assert not re.search("RPATH|RUNPATH|TEXTREL", dynamic) and "NODELETE" in dynamic


def test_openssl_is_inside_and_hidden_and_its_license_is_there(wheel, extension):
    symbols = {line.split()[-1] for line in readelf("--dyn-syms", "-W", extension).splitlines() if line.strip()}
    assert {name for name in symbols if re.match(r"(SSL|X509|EVP|OPENSSL|CRYPTO|BIO|ERR)_", name)} == set()
    assert b"OpenSSL 3." in extension.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE.OpenSSL")]
        assert len(names) == 1 and b"Apache License" in archive.read(names[0])


def test_a_wheel_decides_in_memory_and_on_a_server(python, redis_server):
    assert python(SMOKE, redis_server.url) == "fine\n"


WITH_SSL = """
import ssl, socket, sys
host, port, ca = sys.argv[2:]
def handshake():
    context = ssl.create_default_context(cafile=ca)
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as link:
        link.sendall(b"PING\\r\\n")
        assert link.recv(7) == b"+PONG\\r\\n"
handshake()
"""


def test_a_wheel_decides_over_tls_beside_the_ssl_module(python, tls, folder):  # noqa: F811
    tls("FLUSHALL")
    ca = folder / "server.pem"
    assert python(WITH_SSL + SMOKE + "handshake()", f"rediss://{tls.at}?tls_ca={ca}", *tls.at.split(":"), ca) == "fine\n"


WITH_ANOTHER_OPENSSL = """
import asyncio, ctypes, sys
ctypes.CDLL(sys.argv[2], ctypes.RTLD_GLOBAL)
"""


def test_an_openssl_in_the_global_scope_is_never_called(python, tls, folder, tmp_path):  # noqa: F811
    """uWSGI is linked with OpenSSL, and mod_wsgi runs beside mod_ssl."""
    names = ("SSL_CTX_new", "SSL_new", "SSL_do_handshake", "SSL_read", "BIO_new", "ERR_clear_error", "OPENSSL_init_ssl")
    (tmp_path / "other.c").write_text("#include <stdlib.h>\n" + "".join(f"void {name}(void) {{ abort(); }}\n" for name in names))
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "other.c", "-o", tmp_path / "other.so"], check=True)
    tls("FLUSHALL")
    url = f"rediss://{tls.at}?tls_ca={folder}/server.pem"
    assert python(WITH_ANOTHER_OPENSSL + SMOKE, url, tmp_path / "other.so") == "fine\n"


ONE_CALL = """
import asyncio, sys, aiosteady
async def main():
    async with aiosteady.connect(sys.argv[1], timeout=10) as store:
        return (await aiosteady.Throttler(store, 1, 60).consume("k")).success
try:
    print(asyncio.run(main()))
except aiosteady.Unavailable as error:
    print(error)
"""


@pytest.mark.parametrize("bundle", ["ssl/certs/ca-certificates.crt", "pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
                                    "pki/tls/certs/ca-bundle.crt", "ssl/ca-bundle.pem", "ssl/cert.pem", None])
def test_a_wheel_finds_the_cas_of_another_distribution(python, tls, folder, tmp_path, bundle):  # noqa: F811
    """In a mount namespace with another /etc, and without the place where Debian's OpenSSL looks for CAs."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("unshare --mount is refused: this needs root")
    etc, empty = tmp_path / "etc", tmp_path / "empty"
    empty.mkdir()
    etc.mkdir()
    for name in ("hosts", "nsswitch.conf", "passwd", "ld.so.cache"):
        shutil.copy(f"/etc/{name}", etc)
    if bundle:
        (etc / bundle).parent.mkdir(parents=True)
        shutil.copy(folder / "server.pem", etc / bundle)
    mount = f'mount --bind {etc} /etc && {{ [ ! -e /usr/lib/ssl ] || mount --bind {empty} /usr/lib/ssl; }} && exec "$@"'
    tls("FLUSHALL")
    said = python(ONE_CALL, f"rediss://{tls.at}", before=["/usr/bin/unshare", "--mount", "/bin/sh", "-c", mount, "sh"],
                  PATH=os.environ["PATH"])
    assert said == "True\n" if bundle else "not trusted (set tls_ca)" in said, said
