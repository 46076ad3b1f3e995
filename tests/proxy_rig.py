# SPDX-License-Identifier: MIT
"""Real proxies for tests: their programs, the files in examples/ with free ports, and an application behind them. A
proxy runs without privileges, in a folder of its own, and is stopped by its process id."""
import contextlib
import http.client
import http.server
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from aiosteady_build import BUILD, ROOT, locked
from resp import free_port
from serve_rig import START_S

NOBODY = 65534


def program(name):
    """The path of a program of a Debian package with its name. An installed package would start a web server that other
    hosts can reach. So a missing one is only unpacked, below the build directory."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found:
        return Path(found)
    folder = BUILD / "deb" / name
    with locked(folder):
        if not list(folder.glob("usr/*bin/" + name)):
            if shutil.which("apt-get") is None:
                pytest.skip(f"{name} is not installed, and there is no apt-get")
            command = ["apt-get", "-qq", "download", name]
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if run.returncode != 0:
                pytest.skip(f"{name} is not installed, and cannot be downloaded: {run.stderr.strip()[-200:]}")
            for package in folder.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
                package.unlink()
    unpacked = list(folder.glob("usr/*bin/" + name))
    if not unpacked:
        pytest.skip(f"the package {name} of this system has no program {name}")
    return unpacked[0]


def example(name, **changes):
    """A file in examples/. Each change is (text, its replacement): ports, and what the file says may be changed."""
    text = (ROOT / "examples" / name).read_text()
    for old, new in changes.values():
        assert old in text, f"examples/{name} has no {old!r}"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def folder_of_nobody():
    with tempfile.TemporaryDirectory(prefix="steady-") as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        yield Path(name)


@contextlib.contextmanager
def proxy(command, folder, port):
    """Runs it until it accepts connections at the port."""
    as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    command = [str(word) for word in command]
    if BUILD in Path(command[0]).parents:  # the account of the proxy may have no access to this folder
        command[0] = shutil.copy(command[0], folder)
    with open(folder / "output", "wb") as output:
        child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                 env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder)}, **as_nobody)
    try:
        deadline = time.monotonic() + START_S
        while not accepts(port):
            assert child.poll() is None and time.monotonic() < deadline, (folder / "output").read_text(errors="replace")
            time.sleep(0.02)
        yield child
        assert child.poll() is None, (folder / "output").read_text(errors="replace")
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


class Application:
    """A web server that answers 200, or the status that the path names: /500. `requests` has what reached it."""

    def __init__(self):
        self.requests = requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                requests.append(self)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(int(self.path[1:]) if self.path[1:].isdigit() else 200)
                self.send_header("Content-Length", "3")
                self.end_headers()
                self.wfile.write(b"app")

            do_GET = do_POST = answer

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def application():
    running = Application()
    yield running
    running.stop()


class Client:
    """A client of a proxy. Each `address` of 127.0.0.0/8 counts for itself."""

    def __init__(self, port, address):
        self.port, self.address = port, address

    def __call__(self, method="GET", target="/", *fields, body=None):
        """(status, fields with names in lower case, body). A status of 0: the proxy hung up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, START_S, source_address=(self.address, 0))
        with contextlib.closing(connection):
            try:
                connection.putrequest(method, target)
                for name, value in fields:
                    connection.putheader(name, value)
                if body is not None:
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
                response = connection.getresponse()
                return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            except (ConnectionError, http.client.BadStatusLine):
                return 0, {}, b""


def client_of(port, addresses=(f"127.0.{i}.{j}" for i in range(1, 255) for j in range(1, 255))):
    """A client with an address that no other has."""
    return Client(port, next(addresses))


def exhaust(client):
    """Takes all of a limit of two logins."""
    assert [client("POST", "/login")[0] for _ in range(3)] == [200, 200, 429]


# Requests by which a client could hope to pass a limit that is exhausted: (target, fields).
EVASIONS = {
    "120 small fields": ("/login", [(f"a{i}", "1") for i in range(120)]),
    "20 KiB of fields": ("/login", [(f"a{i}", "x" * 4096) for i in range(5)]),
    "a control byte": ("/login", [("a", "x\x01y")]),
    "a control byte in the key": ("/login", [("x-api-key", "x\x01y")]),
    "a short deadline": ("/login", [("x-steady-timeout", "1us")]),
    "a bad deadline": ("/login", [("x-steady-timeout", "soon")]),
    "an address of its own": ("/login", [("x-forwarded-for", "192.0.2.9"), ("x-real-ip", "192.0.2.9"),
                                         ("forwarded", "for=192.0.2.9")]),
    "a request of its own": ("/login", [("x-original-uri", "/"), ("x-original-method", "GET"), ("x-forwarded-uri", "/"),
                                        ("x-forwarded-method", "GET"), ("x-original-host", "h")]),
    "underscores": ("/login", [("x_original_uri", "/"), ("x_real_ip", "192.0.2.9")]),
    "fields to remove": ("/login", [("connection", "x-original-uri, x-real-ip, x-forwarded-uri, x-forwarded-for")]),
    "an absolute target": ("http://127.0.0.1/login", []),
    "dots": ("/x/../login", []),
    "escaped dots": ("/%2e/x/%2e%2e/login", []),
    "two slashes": ("//login", []),
    "an escape": ("/%6cogin", []),
    "the path of nginx": ("/403/../login", [("x-original-uri", "/")]),
    "a long path": ("/" + "a" * 7000 + "/../login", []),
    "a long query": ("/login?" + "a" * 7000, []),
}
