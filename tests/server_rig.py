# SPDX-License-Identifier: MIT
"""Shared by the tests with real HTTP servers: a server in a process of its own, and requests to it. `where` is a port of
127.0.0.1, or the path of a Unix socket."""
import http.client
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def serving(command, environment, where):
    """A server that listens there. It is stopped by a signal at the end. SIGINT may stop a worker of gunicorn 27 while it
    starts a thread; then it waits for that thread for ever."""
    stop = signal.SIGTERM if "gunicorn" in command else signal.SIGINT
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while not answers(where):
            assert child.poll() is None and time.monotonic() < deadline, child.communicate()[0].decode()
            time.sleep(0.05)
        yield
        assert child.poll() is None, "the server ended"
    finally:
        child.send_signal(stop)
        try:
            child.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # its workers, too: they hold the pipe
            child.communicate()
            raise


def answers(where):
    try:
        get(where)
    except OSError:
        return False
    return True


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def get(where, path="/", headers={}):
    connection = UnixConnection(str(where)) if isinstance(where, (str, Path)) else http.client.HTTPConnection(
        "127.0.0.1", where, timeout=10)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.content = response.read()
    connection.close()
    return response
