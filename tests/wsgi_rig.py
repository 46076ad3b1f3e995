# SPDX-License-Identifier: MIT
"""Shared by the tests of the WSGI middleware: applications, and requests to them. wsgiref.validate checks both sides: the
server and the application, each as the middleware sees it."""
import importlib
import io
import sys
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from asgi_rig import WIDE_RECHARGE


@pytest.fixture
def wsgi(package):
    return importlib.import_module("aiosteady.wsgi")


@pytest.fixture
def blocking(package):
    return importlib.import_module("aiosteady.blocking")


@pytest.fixture
def throttler(blocking):
    """Makes a blocking Throttler, in memory by default."""

    def make(capacity=10, recharge=WIDE_RECHARGE, *args, url="memory:", **options):
        return blocking.Throttler(url, capacity, recharge, *args, **options)

    return make


class Response:
    def __init__(self, status, headers, body):
        self.line, self.status, self.headers, self.body = status, int(status[:3]), headers, body

    def __getitem__(self, name):
        """The value of a field, or None. A field must not occur twice."""
        values = [value for field, value in self.headers if field.lower() == name]
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None

    @property
    def rate_limit(self):
        return self["ratelimit-policy"], self["ratelimit"]


@validator
def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def ask(app, client="192.0.2.1", headers=(), method="GET", path="/", **more):
    """Calls the application with one request, like a server does."""
    environ = {"REMOTE_ADDR": client, "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", "SCRIPT_NAME": "",
               **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers}, **more}
    setup_testing_defaults(environ)
    environ["wsgi.errors"] = sys.stderr
    return called(validator(app), environ)


def called(app, environ):
    started, written = [], io.BytesIO()

    def start_response(status, headers, exc_info=None):
        if started and exc_info is None:
            raise AssertionError("start_response is called twice without exc_info")
        if exc_info is not None and written.getvalue():
            raise exc_info[1].with_traceback(exc_info[2])
        started[:] = [(status, headers)]
        return written.write

    body = app(environ, start_response)
    try:
        for block in body:
            assert started
            written.write(block)
    finally:
        if hasattr(body, "close"):
            body.close()
    return Response(*started[0], written.getvalue())


def ask_all(app, count, **request):
    return [ask(app, **request) for _ in range(count)]
