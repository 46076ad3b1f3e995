# SPDX-License-Identifier: MIT
"""A password and a key must not occur in exceptions, reprs, warnings and log lines of the Python package."""
import asyncio
import logging
import socket
import threading
import traceback
import warnings

import pytest
from python_rig import under_asyncio

PASSWORD = "Hunter2Canary"
KEY = "customer:4711"


class Echo:
    """A server that answers `greeted` commands well, and each later one with an error that quotes it."""

    def __init__(self, pattern, greeted):
        self.pattern, self.greeted = pattern, greeted
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        answered = 0
        with connection:
            while said := connection.recv(65536):
                words = [line for line in said.decode("latin-1").split("\r\n") if line and line[0] not in "*$"]
                text = " ".join(word for word in reversed(words) if word in (PASSWORD, KEY, "app"))
                reply = "+OK\r\n" if answered < self.greeted else f"-{self.pattern.format(text)}\r\n"
                answered += 1
                try:
                    connection.sendall(reply.encode())
                except OSError:
                    return

    def close(self):
        self.listener.close()


@pytest.fixture
def echo():
    servers = []

    def start(pattern, greeted):
        servers.append(Echo(pattern, greeted))
        return servers[-1].port

    yield start
    for server in servers:
        server.close()


def assert_clean(*texts):
    for text in texts:
        assert PASSWORD not in text and KEY not in text, text


def whole(error):
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)).split("\n\nDuring", 1)[0]


PATTERNS = ["{}", "ERR {}", "ERR no {} here", "WRONGPASS {} is wrong", "NOPERM no permissions to access the '{}' key", "OOM {}",
            "ERR unknown command 'AUTH', with args beginning with: {}", "MOVED 1 {}:1", "LOADING {}", "BUSY {}"]


@pytest.mark.parametrize("greeted", [0, 1])
@pytest.mark.parametrize("pattern", PATTERNS)
@under_asyncio
async def test_no_exception_and_no_log_line_quotes_what_a_server_says(aio, echo, caplog, pattern, greeted):
    caplog.set_level(logging.DEBUG)
    port = echo(pattern, greeted)
    async with aio.connect(f"redis://app:{PASSWORD}@127.0.0.1:{port}", timeout=0.3) as store:
        t = aio.Throttler(store, 5, 1)
        for ask in (t.consume(KEY), t.peek(KEY.encode()), t.reset(KEY), t.wait(KEY, timeout=0.3)):
            try:
                await ask
                raise AssertionError("it was decided")
            except (aio.Error, TimeoutError) as error:
                assert_clean(str(error), repr(error), whole(error))
                assert str(error)
        assert_clean(repr(t), repr(store), str(t))
    assert_clean(*(record.getMessage() for record in caplog.records), caplog.text)


URLS = [f"redis://u:{PASSWORD}@h:x", f"redis:u:{PASSWORD}@h", f"redis:{PASSWORD}", f"u:{PASSWORD}@h", f"redis://h?pasword={PASSWORD}",
        f"redis+sentinel://h/s?sentinel_password={PASSWORD}&x=1", f"unix:u:{PASSWORD}@/x", f"http://u:{PASSWORD}@h",
        f"redis://u:{PASSWORD}@h/\udc80", f"redis://u:{PASSWORD}@h/\u00e9", f"redis%3A//u%3A{PASSWORD}%40h"]


@pytest.mark.parametrize("url", URLS)
def test_a_url_in_any_wrong_place_shows_no_password(aio, url):
    from aiosteady.asgi import Policy, RateLimit

    memory = aio.Throttler("memory:", 5, 1)

    async def app(scope, receive, send):
        pass

    attempts = [
        lambda: aio.connect(url), lambda: aio.Store(url), lambda: aio.Throttler(url, 1, 1),
        lambda: aio.connect("memory:", engine=url), lambda: aio.connect("memory:", timeout=url),
        lambda: aio.connect("memory:", client_name=f"{url} "), lambda: aio.connect("memory:", connect_timeout=url),
        lambda: aio.connect("memory:", buckets=url), lambda: aio.connect("memory:", max_in_flight=url),
        lambda: aio.Throttler("memory:", url, 1), lambda: aio.Throttler("memory:", 1, url),
        lambda: aio.Throttler("memory:", 1, 1, url), lambda: aio.Throttler("memory:", 1, 1, drops=url),
        lambda: aio.Throttler("memory:", 1, 1, on_error=url), lambda: aio.Throttler("memory:", 1, 1, local_share=url),
        lambda: aio.ThrottleResult(True, 1, 1.0, None, source=url), lambda: aio.ThrottleResult(True, 1, 1.0, None, error=url),
        lambda: memory.limit("k")(url), lambda: asyncio.run(memory.wait("k", timeout=url)),
        lambda: asyncio.run(memory.consume("k", url)), lambda: RateLimit(app, memory, on_error=url),
        lambda: RateLimit(app, memory, fields=url), lambda: RateLimit(app, url),
        lambda: Policy(f"{url}\n", memory),
    ]
    for i, attempt in enumerate(attempts):
        with pytest.raises((ValueError, TypeError, AttributeError, UnicodeError, aio.Error)) as caught:
            attempt()
        assert_clean(str(caught.value), repr(caught.value))
        assert not isinstance(caught.value, AttributeError), (i, caught.value)


def test_reprs_and_warnings_show_no_secret(aio):
    url = f"redis://app:{PASSWORD}@127.0.0.1:1/0"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        t = aio.Throttler(url, 1, 1)
        asking = t.consume(KEY)
        assert_clean(repr(asking), repr(t), repr(t.limit(KEY)), repr(aio.Store(url)))
        del asking
    assert_clean(*(str(warning.message) for warning in told))
