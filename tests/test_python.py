# SPDX-License-Identifier: MIT
"""The Python package: the decisions of a throttler, valid and invalid arguments, on a server and in process."""
import asyncio
import contextlib
import copy
import math
import pickle
import socket
from decimal import Decimal

import pytest
from python_rig import patient, python, under_asyncio

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=["redis", "memory", "file"])
def url(request, tmp_path):
    if request.param == "redis":
        return request.getfixturevalue("redis_server").url
    return "memory:" if request.param == "memory" else f"file:{tmp_path}/buckets"


# ---- Deciding ----


@under_asyncio
async def test_a_bucket_fills_refuses_and_drains(aio, url):
    async with patient(aio, url, 10, 5) as t:
        for i in range(10):
            assert (await t.peek("k")).level == i
            r = await t.consume("k")
            assert (r.success, r.level, r.blocked_for, r.retry_after) == (True, i + 1, None, 0)
            assert 4 < r.until_next_drop <= 5
        full = await t.consume("k", amount=2)
        assert (full.success, full.level) == (False, 10) and 5 < full.retry_after <= 10
        assert not (await t.peek("k")).success
        assert (await t.consume("k", 11)).retry_after is None
        assert (await t.consume("k", -3)).level == 7
        assert (await t.consume("k", 0)).level == 7
        assert (await t.consume("k", -100)).level == 0
        assert await t.peek("k") == aio.ThrottleResult(True, 0, 5, None)
        await t.consume("k", 4)
        assert await t.reset("k") == aio.ThrottleResult(True, 0, 5, None)


@under_asyncio
async def test_an_overflow_blocks_the_key(aio, url):
    async with patient(aio, url, 2, 60, block_duration=5) as t:
        await t.consume("k", 2)
        blocked = await t.consume("k")
        assert not blocked.success and blocked.blocked_for == 5 and blocked.level == 2
        await asyncio.sleep(0.1)
        still = await t.consume("k")
        assert not still.success and 0 < still.blocked_for < 4.95 and still.level == 2
        assert still.retry_after == pytest.approx(60, abs=5), "the bucket is still full when the block is over"
        assert (await t.reset("k")).blocked_for is None
        assert (await t.consume("k", 3)).blocked_for is None, "an amount that can never fit does not block"


@under_asyncio
async def test_drops_set_the_rate_and_a_prefix_separates_keys(aio, url):
    async with patient(aio, url, 6, 30, drops=3) as t:
        assert (await t.consume("p:k", 6)).until_next_drop == pytest.approx(10, abs=1e-6)
        assert 15 < (await t.consume("p:k", 2)).retry_after <= 20
        prefixed = patient(aio, url, 6, 30, drops=3, prefix="p:") if url != "memory:" else None
        assert prefixed is None or (await prefixed.peek("k")).level >= 5


@under_asyncio
async def test_keys_are_str_or_bytes_of_any_kind(aio, url):
    class Text(str):
        __slots__ = ()

        def __len__(self):
            raise AssertionError("a hostile length")

        __hash__ = __str__ = __len__

    async with patient(aio, url, 100, 60) as t:
        for i, key in enumerate(("käse", "käse".encode(), Text("käse"), bytes("käse", "utf-8"))):
            assert (await t.consume(key)).level == i + 1
        for key in (b"\0", b"\r\n$1\r\n", "\0", "x" * 1024, b"\xff" * 1024, "🙂"):
            assert (await t.consume(key)).success
        assert (await t.peek(b"\0")).level == 2, "the same bytes are the same key"


@under_asyncio
async def test_throttlers_that_share_a_store_share_buckets(aio, redis_server):
    async with aio.connect(redis_server.url, timeout=10) as store:
        small, large = aio.Throttler(store, 5, 60), aio.Throttler(store, 10, 60)
        assert (await small.consume("k", 5)).level == 5
        assert (await large.consume("k", 5)).level == 10
        async with small:
            pass
        assert (await large.peek("k")).level == 10, "a throttler does not close a store that it was given"
        stats = store.stats()
        assert (stats["decisions"], stats["allowed"], stats["denied"], stats["in_flight"]) == (3, 2, 1, 0)


# ---- Results ----


def test_results_compare_print_and_copy_as_in_22_1(aio):
    r = aio.ThrottleResult(True, 0, 5, None)
    assert repr(r) == "ThrottleResult(success=True, level=0, until_next_drop=5.0, blocked_for=None)"
    assert r == aio.ThrottleResult(success=True, level=0, until_next_drop=5.0, blocked_for=None, retry_after=7.0)
    assert hash(r) == hash(aio.ThrottleResult(True, 0, 5, None, 7.0))
    assert r != aio.ThrottleResult(True, 0, 5, 0.5) and r != aio.ThrottleResult(False, 0, 5, None)
    assert r != aio.ThrottleResult(True, 1, 5, None) and r != aio.ThrottleResult(True, 0, 5.5, None)
    assert r != (True, 0, 5, None) and r != None  # noqa: E711
    assert (r.retry_after, r.source, r.error) == (None, "store", None)
    full = aio.ThrottleResult(False, 3, 0.25, 1.5, 1.5, source="local", error="unknown")
    for twin in (copy.copy(full), copy.deepcopy(full), pickle.loads(pickle.dumps(full))):
        assert twin == full and (twin.retry_after, twin.source, twin.error) == (1.5, "local", "unknown")
    for name in ("success", "level", "until_next_drop", "blocked_for", "retry_after", "source", "error"):
        with pytest.raises(AttributeError):
            setattr(r, name, 1)
    assert r.__match_args__ == ("success", "level", "until_next_drop", "blocked_for")
    for bad, error in (({"level": 2**70}, OverflowError), ({"level": "1"}, TypeError), ({"source": "x"}, ValueError),
                       ({"error": "x"}, ValueError), ({"blocked_for": "x"}, TypeError), ({"other": 1}, TypeError)):
        with pytest.raises(error):
            aio.ThrottleResult(**{"success": True, "level": 0, "until_next_drop": 5, "blocked_for": None, **bad})


def test_throttlers_compare_and_print_as_in_22_1(aio):
    t = aio.Throttler("memory:", 10, 5.0, block_duration=3)
    assert repr(t) == "Throttler(redis='memory:', max_capacity=10, drop_recharge=5.0, block_duration=3)"
    assert t == aio.Throttler("memory:", 10, 5.0, 3) and hash(t) == hash(aio.Throttler("memory:", 10, 5.0, 3))
    assert t != aio.Throttler("memory:", 10, 5.0) and t != aio.Throttler("memory:", 10, 5.0, 3, drops=2) and t != 5
    assert (t.redis, t.max_capacity, t.drop_recharge, t.block_duration) == ("memory:", 10, 5.0, 3)
    for name in ("redis", "max_capacity", "drop_recharge", "block_duration", "anything"):
        with pytest.raises(AttributeError):
            setattr(t, name, 1)
    with pytest.raises(RuntimeError):
        t.__init__("memory:", 1, 1)


@pytest.mark.parametrize(("url", "shown"), [
    ("redis://user:hunter2@127.0.0.1:1/0", "redis://***@127.0.0.1:1/0"),
    ("redis://:hunter%402@h", "redis://***@h"),
    ("redis://u:h'unter2@h", "redis://***@h"),
    ("unix://u:hunter2@/tmp/x?db=1", "unix://***@/tmp/x?db=1"),
    ("valkey://u:hunter2@h?peek=replica", "valkey://***@h?peek=replica"),
    ("redis+sentinel://h1,h2/svc?sentinel_username=u&sentinel_password=hunter2",
     "redis+sentinel://h1,h2/svc?sentinel_username=u&sentinel_password=***"),
    ("redis+sentinel://u:hunter2@h1/svc/2?sentinel_password=x%40hunter2&peek=replica",
     "redis+sentinel://***@h1/svc/2?sentinel_password=***&peek=replica"),
])
def test_no_password_is_shown(aio, url, shown):
    assert repr(aio.Throttler(url, 1, 1)) == (
        f"Throttler(redis={shown!r}, max_capacity=1, drop_recharge=1, block_duration=None)")


# ---- Invalid arguments ----


class Wrong:
    """An object whose conversion to int fails."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.mark.parametrize(("amount", "error"), [
    (1.0, TypeError), (1.5, TypeError), (math.nan, TypeError), ("1", TypeError), (b"1", TypeError), (None, TypeError),
    (Decimal(1), TypeError), ([], TypeError), (2**31, ValueError), (-2**31, ValueError), (2**63, ValueError),
    (-2**63 - 1, ValueError), (2**64, ValueError), (10**400, ValueError), (Wrong(2**70), ValueError),
    (Wrong(OSError("no number")), OSError), (Wrong("x"), TypeError)])
def test_impossible_amounts_are_rejected(aio, amount, error):
    t = aio.Throttler("memory:", 10, 5)
    for ask in (t.consume, t.wait):
        with pytest.raises(error) as caught:
            asyncio.run(ask("k", amount))
        assert error is OSError or isinstance(amount, Wrong) or "amount" in str(caught.value)
    assert asyncio.run(t.consume("k", Wrong(3))).level == 3


@pytest.mark.parametrize(("key", "error"), [
    ("\ud800", ValueError), ("a\udcffb", ValueError), ("", ValueError), (b"", ValueError), ("x" * 1025, ValueError),
    ("ä" * 513, ValueError), (b"x" * 2**20, ValueError), (5, TypeError), (None, TypeError), (1.5, TypeError),
    (bytearray(b"k"), TypeError), (memoryview(b"k"), TypeError), (["k"], TypeError)])
def test_impossible_keys_are_rejected(aio, key, error):
    t = aio.Throttler("memory:", 10, 5)
    for ask in (t.consume, t.peek, t.reset, t.wait):
        with pytest.raises(error, match="key"):
            asyncio.run(ask(key))


def test_a_prefix_counts_as_part_of_the_key(aio):
    t = aio.Throttler("memory:", 10, 5, prefix="p" * 1000)
    assert asyncio.run(t.consume("k" * 24)).success
    with pytest.raises(ValueError, match="key with its prefix"):
        asyncio.run(t.consume("k" * 25))
    for prefix in ("p" * 1024, "\udc80"):
        with pytest.raises(ValueError, match="prefix"):
            aio.Throttler("memory:", 10, 5, prefix=prefix)


@pytest.mark.parametrize(("name", "value", "error"), [
    ("max_capacity", 0, ValueError), ("max_capacity", -1, ValueError), ("max_capacity", 2**31, ValueError),
    ("max_capacity", 2**70, ValueError), ("max_capacity", 1.5, TypeError), ("max_capacity", "10", TypeError),
    ("drop_recharge", 0, ValueError), ("drop_recharge", -1, ValueError), ("drop_recharge", math.nan, ValueError),
    ("drop_recharge", math.inf, ValueError), ("drop_recharge", -math.inf, ValueError), ("drop_recharge", 1e300, ValueError),
    ("drop_recharge", 10**400, ValueError), ("drop_recharge", 1e-9, ValueError), ("drop_recharge", "5", TypeError),
    ("drop_recharge", None, TypeError), ("drop_recharge", 1j, TypeError), ("block_duration", -1, ValueError),
    ("block_duration", math.nan, ValueError), ("block_duration", math.inf, ValueError), ("block_duration", "1", TypeError),
    ("drops", 0, ValueError), ("drops", 1.0, TypeError), ("drops", 2**40, ValueError), ("prefix", b"p", TypeError),
    ("on_error", "deney", ValueError), ("on_error", None, TypeError), ("local_share", 0, ValueError),
    ("local_share", 2**40, ValueError), ("redis", None, TypeError), ("redis", 5, TypeError), ("redis", "", ValueError),
    ("redis", "http://x", ValueError), ("redis", "redis://h:99999", ValueError), ("redis", "memory:\0", ValueError)])
def test_impossible_limits_are_rejected(aio, name, value, error):
    arguments = {"redis": "memory:", "max_capacity": 10, "drop_recharge": 5, "block_duration": None, name: value}
    with pytest.raises(error) as caught:
        aio.Throttler(**arguments)
    assert name in str(caught.value) or name == "redis" and isinstance(value, str)
    if name == "drop_recharge" and error is ValueError:
        assert " is " in str(caught.value) and "it must be 0" in str(caught.value)  # the value, and the range in seconds


@pytest.mark.parametrize(("name", "value", "error"), [
    ("timeout", 0, ValueError), ("timeout", -1, ValueError), ("timeout", math.nan, ValueError), ("timeout", 1e9, ValueError),
    ("timeout", "1", TypeError), ("connect_timeout", "1", TypeError), ("client_name", b"api", TypeError),
    ("deny_memory", "1", TypeError), ("lease_age", "0.1", TypeError),
    ("client_name", "a\0b", ValueError), ("client_name", "\udc80", ValueError), ("max_in_flight", -1, ValueError), ("max_in_flight", 2**30, ValueError),
    ("max_in_flight", 1.0, TypeError), ("buckets", 2**31, ValueError), ("engine", "lua", ValueError),
    ("engine", 5, TypeError), ("unknown", 5, TypeError)])
def test_impossible_options_of_a_store_are_rejected(aio, name, value, error):
    with pytest.raises(error) as caught:
        aio.connect("redis://127.0.0.1:1", **{name: value})
    assert name in str(caught.value)


@pytest.mark.parametrize(("name", "least", "most"), [
    ("max_capacity", 1, 2**31 - 1), ("drops", 1, 10**6), ("local_share", 1, 2**32 - 1), ("amount", 1 - 2**31, 2**31 - 1),
    ("max_in_flight", 0, 2**24), ("buckets", 0, 2**30)])
def test_an_integer_out_of_range_is_rejected_with_the_range(aio, name, least, most):
    def use(value):
        if name == "amount":
            return asyncio.run(aio.Throttler("memory:", 10, 5).consume("k", value))
        if name in ("max_in_flight", "buckets"):
            return aio.connect("redis://127.0.0.1:1", **{name: value})
        return aio.Throttler(**{"redis": "memory:", "max_capacity": 10, "drop_recharge": 1e-6, name: value})

    for value in (least, most):
        use(value)
    for value, shown in ((least - 1, str(least - 1)), (most + 1, str(most + 1)), (2**80, "out of range"), (-2**80, "out of range")):
        with pytest.raises(ValueError) as caught:
            use(value)
        assert str(caught.value) == f"{name} is {shown}; it must be {least} .. {most}"


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_a_timeout_out_of_range_is_rejected_with_the_range(aio, name):
    for value in (None, 0.000001, 1, 86400):
        aio.connect("redis://127.0.0.1:1", **{name: value})
    for value in (0, 0.0, -1, 1e-9, 86400.000001, 10**10, 10**400, math.nan, math.inf):
        with pytest.raises(ValueError) as caught:
            aio.connect("redis://127.0.0.1:1", **{name: value})
        assert str(caught.value) == f"{name} is {value!r:.50} s; it must be 0.000001 .. 86400 s, or None for the default"


def test_a_deny_memory_out_of_range_is_rejected_with_the_range(aio):
    for value in (None, 0, 0.0, False, 0.000001, 1, 60):
        aio.connect("redis://127.0.0.1:1", deny_memory=value)
    for value in (-1, -1e-6, 1e-9, 60.000001, 10**400, math.nan, math.inf):
        with pytest.raises(ValueError) as caught:
            aio.connect("redis://127.0.0.1:1", deny_memory=value)
        assert str(caught.value) == f"deny_memory is {value!r:.50} s; it must be 0.000001 .. 60 s, 0 for off, or None for 1 s"
    for value in (None, 0):
        aio.connect("memory:", deny_memory=value).close()
    with pytest.raises(ValueError, match="deny_memory is set, but an embedded store"):
        aio.connect("memory:", deny_memory=1)


def test_a_lease_age_out_of_range_is_rejected_with_the_range(aio):
    for value in (None, 0, 0.0, False, 0.001, 0.1, 1, 60):
        aio.connect("redis://127.0.0.1:1", lease_age=value)
    for value in (-1, -0.1, 1e-9, 0.000999, 60.000001, 10**400, math.nan, math.inf):
        with pytest.raises(ValueError) as caught:
            aio.connect("redis://127.0.0.1:1", lease_age=value)
        assert str(caught.value) == f"lease_age is {value!r:.50} s; it must be 0.001 .. 60 s, or 0 or None for no leases"
    for url in ("memory:", "file:/tmp/never-made"):
        with pytest.raises(ValueError, match="lease_age is set, but an embedded store"):
            aio.connect(url, lease_age=0.1)
    for value in (None, 0):
        aio.connect("memory:", lease_age=value).close()


def test_an_impossible_client_name_is_rejected_with_the_range(aio):
    for value in (None, "a", "!~", "n" * 64):
        aio.connect("redis://127.0.0.1:1", client_name=value)
    for value, shown in (("", ""), ("a b", "a b"), ("n" * 65, "n" * 65), ("a\nb", "a?b"), ("ä", "\\xe4"), ("\x7f", "?")):
        with pytest.raises(ValueError) as caught:
            aio.connect("redis://127.0.0.1:1", client_name=value)
        assert str(caught.value) == (f"client_name is '{shown}'; it must be 1 .. 64 printable ASCII characters without spaces,"
                                     " or None for no name")


def test_calls_with_wrong_arguments_raise_a_type_error(aio):
    t = aio.Throttler("memory:", 10, 5)
    for wrong in (lambda: t.consume(), lambda: t.consume("k", 1, 2), lambda: t.consume("k", key="k"),
                  lambda: t.peek("k", 1, 2), lambda: t.reset(), lambda: t.consume("k", amoun=1)):
        with pytest.raises(TypeError):
            wrong()
    for kind in (type(t.reset), aio._core.Decision):
        with pytest.raises(TypeError):
            kind()


UNMADE = """
from aiosteady import Throttler, _core

class Failing(Throttler):
    def __init__(self):
        pass

for t in (_core.Throttler.__new__(_core.Throttler), Failing()):
    for ask in (lambda: t._consume("k"), lambda: t._decode_reply(0, 1, 5), lambda: t._script_arguments("k", 1),
                lambda: t._apply_policy(-1, None, 0, "k", 1)):
        try:
            ask()
        except RuntimeError as error:
            print(type(error).__name__)
"""


def test_an_uninitialised_throttler_raises_a_runtime_error(aiosteady):
    assert python(aiosteady, UNMADE) == "RuntimeError\n" * 8


# ---- When the store does not answer ----


@under_asyncio
async def test_a_closed_store_raises_closed(aio, url):
    t = aio.Throttler(url, 10, 5)
    with contextlib.suppress(aio.Unknown, aio.Unavailable):  # the timeout of 0.1 s may be too short on a busy machine
        await t.consume("k")
    await t.aclose()
    await t.aclose()
    for ask in (t.consume, t.peek, t.reset, t.wait):
        with pytest.raises(aio.Closed):
            await ask("k")
    store = aio.connect(url)
    await store.aclose()
    assert store.closed
    with pytest.raises(aio.Closed):
        await aio.Throttler(store, 10, 5).consume("k")


@under_asyncio
async def test_each_policy_answers_for_a_server_that_is_down(aio, closed_port):
    url = f"redis://127.0.0.1:{closed_port}"
    with pytest.raises(aio.Unavailable) as caught:
        await patient(aio, url, 10, 5).consume("k")
    assert isinstance(caught.value, aio.Error) and str(closed_port) in str(caught.value)
    for policy, success in (("allow", True), ("deny", False)):
        t = patient(aio, url, 10, 5, on_error=policy)
        for r in (await t.consume("k"), await t.peek("k")):
            assert (r.success, r.source, r.error, r.retry_after) == (success, "policy", "unavailable", 0 if success else 1)
        with pytest.raises(aio.Unavailable):
            await t.reset("k")
    local = patient(aio, url, 10, 5, on_error="local", local_share=5)
    verdicts = [await local.consume("k") for _ in range(3)]
    assert [(r.success, r.source, r.error) for r in verdicts] == [(i < 2, "local", "unavailable") for i in range(3)]


class Gone:
    """A client of a server that is down."""

    async def execute_command(self, *words):
        raise ConnectionRefusedError("nobody listens")

    async def __aenter__(self):
        return self


@under_asyncio
async def test_the_local_share_is_one_for_all_throttlers_over_clients(aio):
    clients = Gone(), Gone()
    results = [await aio.Throttler(clients[i % 2], 10, 3600, on_error="local", local_share=2).consume("k") for i in range(20)]
    assert [(r.success, r.level, r.source, r.error) for r in results] == [
        (i < 5, min(i + 1, 5), "local", "unavailable") for i in range(20)]
    blocking = aio.Throttler(clients[0], 1, 60, 60, on_error="local")
    assert [(await blocking.consume("b")).blocked_for for _ in range(2)] == [None, 60]
    assert (await aio.Throttler(clients[1], 1, 60, on_error="local").consume("b")).blocked_for > 59
    with pytest.raises(aio.Unavailable):
        await blocking.reset("b")
    for policy, success in (("allow", True), ("deny", False)):
        r = await aio.Throttler(clients[0], 1, 60, on_error=policy).consume("k")
        assert (r.success, r.source, r.error) == (success, "policy", "unavailable")


LOCAL_SIZE = """
import asyncio, gc, pathlib, resource, sys

def mib():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() >> 20

class Gone:
    async def execute_command(self, *words):
        raise ConnectionRefusedError("nobody listens")
    async def __aenter__(self):
        return self

async def use(throttlers):
    for t in throttlers:
        await t.consume("k")

def turn():
    import aiosteady
    throttlers = [aiosteady.Throttler(Gone(), 10, 60, on_error="local", prefix=str(i)) for i in range(40)]
    asyncio.run(use(throttlers))
    yield
    for name in [name for name in sys.modules if name.startswith("aiosteady")]:
        del sys.modules[name]

for _ in turn():
    pass
gc.collect()
before = mib()
for _ in turn():
    assert mib() - before < 20, mib() - before
gc.collect()
for _ in range(20):
    for _ in turn():
        pass
    gc.collect()
assert mib() - before < 20, mib() - before
print("fine")
"""


def test_the_local_share_over_clients_is_small_and_goes_with_the_module(aiosteady):
    assert "fine" in python(aiosteady, LOCAL_SIZE)


@under_asyncio
async def test_foreign_data_is_not_a_bucket_and_stays(aio, redis_server):
    redis_server("SET", "text", "hello")
    redis_server("LPUSH", "list", "x")
    async with patient(aio, redis_server.url, 10, 5, on_error="allow") as t:
        for key in ("text", "list"):
            for ask in (t.consume, t.peek, t.reset):
                with pytest.raises(aio.NotABucket):
                    await ask(key)
    assert redis_server("GET", "text") == b"hello" and redis_server("LLEN", "list") == 1


@under_asyncio
async def test_decisions_beyond_max_in_flight_are_overloaded(aio, redis_server):
    async with aio.connect(redis_server.url, max_in_flight=2, timeout=10) as store:
        t = aio.Throttler(store, 100, 60)
        results = await asyncio.gather(*(t.consume("k") for _ in range(3)), return_exceptions=True)
        assert [type(r) for r in results] == [aio.ThrottleResult] * 2 + [aio.Overloaded]
        allowing = aio.Throttler(store, 100, 60, on_error="allow")
        results = await asyncio.gather(*(allowing.consume("k") for _ in range(3)))
        assert [(r.success, r.error) for r in results] == [(True, None), (True, None), (False, "overloaded")]


@under_asyncio
async def test_a_client_list_shows_the_name_of_a_store(aio, start_redis):
    server = start_redis()

    async def named(url, **options):
        async with aio.connect(url, timeout=10, **options) as store:
            assert (await aio.Throttler(store, 10, 5).consume("k")).success
            return server("CLIENT", "LIST").decode().count(" name=api-7 ")

    assert await named(server.url, client_name="".join(["api", "-7"])) == 1
    assert await named(server.url + "?client_name=api-7", client_name="other") == 1, "the URL wins"
    assert await named(server.url) == 0


@under_asyncio
async def test_connect_timeout_ends_a_connection_that_is_not_answered(aio):
    """The server accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://:pass@127.0.0.1:{silent.getsockname()[1]}"
        for timeout, connect_timeout, ended_by in ((0.5, None, "still waiting for the handshake"), (10, 0.1, "does not answer")):
            async with aio.connect(url, timeout=timeout, connect_timeout=connect_timeout) as store:
                with pytest.raises(aio.Unavailable, match=ended_by):
                    await aio.Throttler(store, 10, 5).consume("k")


@under_asyncio
async def test_a_wrong_password_is_refused_without_showing_it(aio, start_redis):
    server = start_redis("--requirepass", "p@ss")
    server("AUTH", "p@ss")
    assert (await patient(aio, server.url.replace("//", "//:p%40ss@"), 10, 5).consume("k")).success
    with pytest.raises(aio.Refused) as caught:
        await patient(aio, server.url.replace("//", "//:wr%40ng@"), 10, 5).consume("k")
    assert "wr@ng" not in str(caught.value) and "wr%40ng" not in str(caught.value)


@under_asyncio
async def test_each_engine_decides_alike(aio, start_redis, request):
    module = request.config.rootpath / "build/steady.so"
    if not module.exists():
        pytest.skip("the module is not built: make module")
    server = start_redis("--loadmodule", str(module))
    for engine, word in (("script", "evalsha"), ("module", "steady.consume"), ("auto", "steady.consume")):
        server("CONFIG", "RESETSTAT")
        server("FLUSHALL")
        async with aio.connect(server.url, engine=engine, timeout=10, deny_memory=0) as store:
            t = aio.Throttler(store, 3, 60, block_duration=9)
            assert [(await t.consume("k")).success for _ in range(4)] == [True, True, True, False]
        assert f"cmdstat_{word}:" in server("INFO", "commandstats").decode()
