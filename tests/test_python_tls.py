# SPDX-License-Identifier: MIT
"""TLS files of the Python package: checked when a Store is made, and read when an event loop first uses it."""
import asyncio
import logging

import pytest
from python_rig import under_asyncio
from test_tls import new_certificate

pytestmark = pytest.mark.filterwarnings("error")
LIMIT = {"max_capacity": 4, "drop_recharge": 60}


@pytest.fixture
def folder(tmp_path):
    new_certificate(tmp_path, "good", "DNS:localhost")
    (tmp_path / "bad.pem").write_text("no certificate")
    return tmp_path


@pytest.fixture
def gone(closed_port, folder):
    """The URL of a store and its TLS file, which the test removes after the store is made."""
    return f"rediss://localhost:{closed_port}?tls_ca={folder}/good.pem", folder / "good.pem"


@pytest.mark.parametrize("query", ["tls_ca={}/none.pem", "tls_ca={}/bad.pem", "tls_cert={}/none.pem",
                                   "tls_cert={}/good.pem&tls_key={}/bad.pem", "tls_cert={}/good.pem&tls_key={}/none.pem"])
@pytest.mark.parametrize("scheme", ["rediss", "valkeys", "rediss+sentinel"])
def test_an_unusable_file_is_rejected_at_once(aio, folder, scheme, query):
    service = "/service" if "sentinel" in scheme else ""
    url = f"{scheme}://localhost{service}?{query.replace('{}', str(folder))}"
    for make in (lambda: aio.connect(url), lambda: aio.Throttler(url, **LIMIT, on_error="allow")):
        with pytest.raises(ValueError, match=r"(none|bad)\.pem"):
            make()


def test_usable_files_are_accepted_without_a_loop_and_without_a_server(aio, gone):
    assert not aio.connect(gone[0]).closed


@under_asyncio
async def test_a_file_missing_at_first_use_makes_the_store_unavailable(aio, gone):
    t = aio.Throttler(gone[0], **LIMIT)
    pem = gone[1].read_text()
    gone[1].unlink()
    for ask in (t.consume, t.peek, t.reset, t.wait):
        with pytest.raises(aio.Unavailable, match="good.pem"):
            await ask("k")
    gone[1].write_text(pem)
    with pytest.raises(aio.Unavailable, match="refused"):
        await t.consume("k")


@under_asyncio
async def test_each_policy_answers_for_a_missing_file(aio, gone, caplog):
    stores = [aio.connect(gone[0]) for _ in range(3)]
    gone[1].write_text("no certificate any more")
    for policy, store, success in zip(("allow", "deny"), stores, (True, False)):
        t = aio.Throttler(store, **LIMIT, on_error=policy)
        for r in (await t.consume("k"), await t.peek("k")):
            assert (r.success, r.source, r.error) == (success, "policy", "unavailable")
        with pytest.raises(aio.Unavailable, match="good.pem"):
            await t.reset("k")
    local = aio.Throttler(stores[2], **LIMIT, on_error="local", local_share=2, block_duration=60)
    verdicts = [await local.consume("k") for _ in range(2)]
    with pytest.raises(TimeoutError):
        await local.wait("k", timeout=0.01)
    verdicts += [await local.peek("k"), await local.consume("k"), await local.peek("k")]
    assert [(r.success, r.source, r.error) for r in verdicts] == [(i < 2, "local", "unavailable") for i in range(5)]
    assert [r.blocked_for is None for r in verdicts] == [True, True, True, False, False], "a wait starts no block"
    told = [record.getMessage() for record in caplog.records if record.name == "aiosteady"]
    assert len(told) == 3 and all("good.pem" in line for line in told)


class Stop(logging.Handler):
    def emit(self, record):
        raise KeyboardInterrupt("from a log")


def test_keyboard_interrupt_in_a_log_handler_is_not_swallowed(aio, gone):
    t = aio.Throttler(gone[0], **LIMIT, on_error="allow")
    gone[1].unlink()
    handler, loop = Stop(), asyncio.new_event_loop()
    logging.getLogger("aiosteady").addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt, match="from a log"):
            loop.run_until_complete(t.consume("k"))
    finally:
        logging.getLogger("aiosteady").removeHandler(handler)
        loop.close()


@pytest.mark.parametrize(("on_error", "status"), [("allow", 200), ("deny", 503)])
def test_the_middleware_applies_on_error_to_a_missing_file(aio, gone, on_error, status):
    from aiosteady.asgi import RateLimit

    async def hello(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    sent = []
    app = RateLimit(hello, aio.Throttler(gone[0], **LIMIT), on_error=on_error)
    gone[1].unlink()
    asyncio.run(app({"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}, None, send))
    assert sent[0]["status"] == status
