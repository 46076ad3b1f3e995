# SPDX-License-Identifier: MIT
"""A daemon for tests: `steady serve` on a free port, stopped by its process id."""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

BUILD = Path(os.environ.get("BUILD", Path(__file__).resolve().parent.parent / "build")).resolve()
needs_daemon = pytest.mark.skipif(not (BUILD / "steadyd").exists(), reason="the daemon is not built: scripts/setup serve")
START_S = 30  # a busy machine


class Daemon:
    """`log` has its lines so far."""

    def __init__(self, *options, env=None, build=BUILD):
        self.log = []
        self.admin_port = self.token = None
        command = [build / "steady", "serve", "--listen", "127.0.0.1:0", *map(str, options)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait_for(r"listening at .*:(\d+)$")[1])
        if "--admin" in options and not any(str(option).startswith("unix:") for option in options):
            found = self.wait_for(r"dashboard: http://127.0.0.1:(\d+)/#token=(\w+)$")
            self.admin_port, self.token = int(found[1]), found[2]

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def wait_for(self, pattern, times=1, seconds=START_S):
        """The match of a line of the log, once there are so many."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [match for line in list(self.log) if (match := re.search(pattern, line))]
            if len(found) >= times:
                return found[times - 1]
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.01)
        raise AssertionError(f"no line {pattern!r} in the log:\n" + "\n".join(self.log))

    def request(self, method, path, body=None, headers=None, port=None):
        """(status, headers in lower case, body) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=START_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def raw(self, text):
        """What the daemon sends back, until it closes."""
        with socket.create_connection(("127.0.0.1", self.port), START_S) as s:
            s.sendall(text.encode())
            return b"".join(iter(lambda: s.recv(65536), b""))

    def json(self, path, document, status=200, **headers):
        """The answer to a POST of a document."""
        code, _, body = self.request("POST", path, json.dumps(document), headers)
        assert status in (code, None), body
        return json.loads(body)

    def admin(self, method, path, document=None, status=200):
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        body = None if document is None else json.dumps(document)
        code, _, answer = self.request(method, path, body, headers, port=self.admin_port)
        assert code == status, answer
        return json.loads(answer)

    def check(self, uri="/", method="GET", address="192.0.2.1", path="/v1/check", **headers):
        """(status, headers, body) of a request as Caddy or Traefik asks."""
        asked = {"X-Forwarded-Uri": uri, "X-Forwarded-Method": method, "X-Forwarded-For": address}
        return self.request("GET", path, headers={**asked, **{k.replace("_", "-"): v for k, v in headers.items()}})

    def metrics(self):
        """The value of each sample, by its name with its labels."""
        text = self.request("GET", "/metrics")[2].decode()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}

    def stop(self, number=signal.SIGTERM, seconds=START_S):
        """Ends it. Its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._reader.join(5)


@contextlib.contextmanager
def daemon(*options, **kwargs):
    running = Daemon(*options, **kwargs)
    try:
        yield running
    finally:
        code = running.stop()
    assert code == 0, "\n".join(running.log)


def rules_file(folder, text, name="steady.yaml"):
    path = Path(folder) / name
    path.write_text(text)
    return path
