# SPDX-License-Identifier: MIT
"""Makes decisions over a client of another package: `python_clients.py CLIENT URL CLOSED_URL [CLUSTER_URL]`. CLIENT is
redis, valkey or aioredis. Prints the checks that passed. test_python_clients.py runs it with the client on PYTHONPATH."""
import asyncio
import contextlib
import inspect
import os
import sys

from aiosteady import (Denied, Error, NotABucket, Rate, Refused, Store, Throttler, ThrottleResult, Unavailable, Unknown, Unsupported,
                       consume_all)
from aiosteady._lines import tasks
from aiosteady._core import CONSUME_ALL, PEEK_ALL, Call, decide

FAMILY, URL, CLOSED_URL, *CLUSTER = sys.argv[1:]
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


async def connect(url, **options):
    if FAMILY == "aioredis":
        import aioredis

        return await aioredis.create_redis_pool(url, **options)
    module = __import__(f"{FAMILY}.asyncio", fromlist=["from_url"])
    return module.from_url(url, **options)


async def close(client):
    """redis-py 4 leaves the pool of a client made by from_url open. The finalizer of such a connection may close a descriptor
    number that a new connection has by then, and asyncio never reports that connection as connected."""
    if hasattr(client, "wait_closed"):
        client.close()
        await client.wait_closed()
    else:
        await (client.aclose() if hasattr(client, "aclose") else client.close())
        if hasattr(client, "connection_pool"):
            await client.connection_pool.disconnect()


@contextlib.asynccontextmanager
async def client_of(url, **options):
    client = await connect(url, **options)
    try:
        yield client
    finally:
        await close(client)


async def command(client, *words):
    return await (client.execute if FAMILY == "aioredis" else client.execute_command)(*words)


async def raises(kind, awaitable):
    try:
        result = await awaitable
    except kind as error:
        return error
    raise AssertionError(f"{kind} was not raised, but there is {result}")


def same(a, b):
    """Equal except for the time between two decisions."""
    assert (a.success, a.level, a.blocked_for is None) == (b.success, b.level, b.blocked_for is None), (a, b)
    assert abs(a.until_next_drop - b.until_next_drop) < 1 and abs((a.blocked_for or 0) - (b.blocked_for or 0)) < 1, (a, b)


@check
async def decides_like_the_native_client(client):
    theirs, ours = (Throttler(who, 5, 60, block_duration=60) for who in (client, Store(URL, timeout=10)))
    for turn in range(8):
        first, second = (theirs, ours) if turn % 2 else (ours, theirs)
        a, b = await first.consume(f"a{turn}", 3), await second.consume(f"b{turn}", 3)
        same(a, b)
        same(await second.peek(f"a{turn}"), a)
        same(await first.consume(f"a{turn}", 3), await second.consume(f"b{turn}", 3))
        same(await second.consume(f"a{turn}", -1), await first.consume(f"b{turn}", -1))
        same(await second.consume(f"a{turn}", 6), await first.consume(f"b{turn}", 6))
        assert await second.reset(f"a{turn}") == await first.reset(f"b{turn}") == ThrottleResult(True, 0, 60, None)
    third = Throttler(client, 6, 1, drops=3, prefix="p:")
    assert (await third.consume(b"\xff", 6)).level == 6 and 0 < (await third.consume(b"\xff")).retry_after < 0.4
    assert (await ours.peek(b"p:\xff")).level >= 5
    await ours.aclose()


@check
async def loads_its_scripts_by_itself(client):
    t = Throttler(client, 100, 60)
    for i in range(3):
        await command(client, "SCRIPT", "FLUSH")
        assert (await t.consume("k")).level == i + 1 and (await t.peek("k")).level == i + 1


# ---- Calls on several buckets, with options, and reservations ----

LIMITS = {"burst": Rate(10, 60, 30), "daily": Rate(1000, 3600)}


def several(where, prefix="several:", **options):
    return Throttler(where, limits=LIMITS, prefix=prefix, **options)


async def answer_of(answer):
    return answer if isinstance(answer, ThrottleResult) else await answer


def all_of(*parts, verb=CONSUME_ALL, **options):
    """A call on parts (throttler, key, amount), of kind take."""
    return answer_of(decide(Call(verb, tuple((*part, "take") if len(part) == 3 else part for part in parts), **options)))


def settle(throttler, result, actual):
    return answer_of(decide(Call.settle(throttler, result._reservation, actual)))


def shown(result):
    """What two stores must answer alike."""
    return [(r.success, r.level, r.granted, r.blocked_for is None, r.name, r.part, r.atomic) for r in (result, *result.parts)]


def same_call(a, b):
    assert shown(a) == shown(b), (a, b)
    for x, y in zip((a, *a.parts), (b, *b.parts)):
        assert abs(x.must_wait - y.must_wait) < 1 and abs((x.retry_after or 0) - (y.retry_after or 0)) < 1, (a, b)


@check
async def calls_on_several_buckets_are_decided_like_those_of_the_native_client(client):
    ours = Store(URL, timeout=10)
    heard = []
    for where, prefix in ((client, "a:"), (ours, "b:")):
        t, one = several(where, prefix=prefix), Throttler(where, 5, 60, 30, prefix=f"{prefix}one:")
        heard.append([
            await t.consume("k", 3),
            await t.consume("k", (2, 40)),
            await t.consume("k", {"burst": 8, "daily": 1}),
            await t.peek("k", {"burst": 0, "daily": 999}),
            await t.charge("k", 100),
            await t.consume("k", -50),
            await all_of((one, "x", 3), (t, "y", 4), (one, "y", 2, "look"), (one, "z", 9, "charge"), (one, "v", 6, "shadow")),
            await all_of((one, "x", 3), (t, "y", 4)),
            await all_of((one, b"\xff", 3), (one, "w", 3), verb=PEEK_ALL),
            await one.consume("late", 8, max_wait=1000),
            await one.consume("some", 9, at_least=2),
            await one.consume("some", 9, max_wait=120.5, at_least=2),
            await t.reset("y"),
        ])
    for a, b in zip(*heard):
        same_call(a, b)
    keys = await command(client, "KEYS", "*:{k}*")
    assert sorted(k if isinstance(k, bytes) else k.encode() for k in keys) == [
        b"a:{k}burst", b"a:{k}daily", b"b:{k}burst", b"b:{k}daily"]
    await ours.aclose()


@check
async def what_is_reserved_is_settled(client):
    t = several(client)
    for actual, left in ((1, (1, 1)), ({"daily": 400}, (4, 400)), ((0, 9), (0, 9)), (0, (0, 0))):
        reserved = await answer_of(t._reserve("k", 4))
        assert [r.level for r in reserved.parts] == [4, 4]
        assert [r.level for r in (await settle(t, reserved, actual)).parts] == [*left] or "daily" in str(actual)
        assert tuple(r.level for r in (await t.peek("k")).parts) == left
        await t.reset("k")
    denied = await answer_of(t._reserve("k", 11))
    assert not denied.success and denied._reservation is None


@check
async def a_reservation_is_a_context(client):
    t = several(client)
    async with t.reserve("k", 4) as r:
        r.actual = {"daily": 400}
    assert [r.level for r in (await t.peek("k")).parts] == [4, 400]
    denied = await raises(Denied, t.reserve("k", 7).__aenter__())
    assert denied.result.name == "burst"
    async with t.reserve("other", 4) as r:
        text = r.text
    async with client_of(URL) as other:
        await several(other).settle(text, 1)
    assert [r.level for r in (await t.peek("other")).parts] == [1, 1]


@check
async def each_script_is_loaded_for_its_call(client):
    t = several(client)
    for turn in range(2):
        for call in (lambda: t.consume("k"), lambda: t.peek("k"), lambda: t.charge("k", 1), lambda: t.reset("k")):
            await command(client, "SCRIPT", "FLUSH")
            await call()
        reserved = await answer_of(t._reserve("k", 4))
        await command(client, "SCRIPT", "FLUSH")
        await settle(t, reserved, 3)
        assert [r.level for r in (await t.peek("k")).parts] == [3, 3]
        await t.reset("k")


async def held(throttler, key):
    """The levels. Several reservations that are given back leave the part of a drop that leaked meanwhile."""
    peeked = await throttler.peek(key)
    return [r.level - (r.level > 0 and r.until_next_drop < 1) for r in peeked.parts]


async def rest():
    """Waits for the calls that nobody waits for."""
    while tasks:
        await asyncio.sleep(0.01)


@check
async def a_call_that_reserves_gives_back_if_it_is_cancelled(client):
    t = several(client)
    await t.peek("k")
    for turn in range(12):
        tasks = [asyncio.ensure_future(answer_of(t._reserve("k", 1))) for _ in range(3)]
        await asyncio.sleep(turn * 0.0003)
        tasks[0].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await rest()
        taken = sum(isinstance(end, ThrottleResult) for end in ends)
        assert taken >= 2 and await held(t, "k") == [taken, taken], (turn, ends)
        await t.reset("k")


@check
async def a_settle_ends_although_its_task_is_cancelled(client):
    t = several(client)
    for turn in range(5):
        reserved = await answer_of(t._reserve("k", 4))
        task = asyncio.ensure_future(settle(t, reserved, 1))
        await asyncio.sleep(turn * 0.0003 if turn else 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await rest()
        assert [r.level for r in (await t.peek("k")).parts] == [1, 1], turn
        await t.reset("k")


@check
async def calls_on_several_buckets_have_the_strictest_policy(client):
    strict, local = several(client, on_error="deny"), Throttler(client, 4, 60, on_error="local", local_share=2, prefix="l:")
    allow, report = (Throttler(client, 5, 60, prefix=f"{policy}:", on_error=policy) for policy in ("allow", "report"))
    await strict.consume("k")
    await command(client, "CONFIG", "SET", "maxmemory", "1")
    try:
        denied = await all_of((allow, "k", 1), (local, "k", 1), (strict, "k", 1))
        assert (denied.success, denied.source, denied.error, denied.parts) == (False, "policy", "unavailable", ())
        ends = [await all_of((allow, "k", 1), (local, "k", 1)) for _ in range(3)]
        assert [(r.success, r.source) for r in ends] == [(True, "local")] * 2 + [(False, "local")]
        allowed = await all_of((allow, "k", 1), (allow, "l", 1), reserve=True)
        assert (allowed.success, allowed.source, allowed._reservation) == (True, "policy", None)
        await raises(Unavailable, all_of((report, "k", 1), (local, "k", 1)))
    finally:
        await command(client, "CONFIG", "SET", "maxmemory", "0")
    for key in ("k", "l"):
        assert (await allow.peek(key)).level == 0


@check
async def wrong_calls_are_refused_before_they_are_sent(client):
    t, one = several(client), Throttler(client, 5, 60)
    for kind, call in ((ValueError, t.consume("k", {"burst": 1})), (ValueError, t.consume("k", (1, 2, 3))), (TypeError, t.consume(5)),
                       (ValueError, one.consume("k", 3, at_least=4)), (ValueError, consume_all([(one, "k"), (one, "k")]))):
        await raises(kind, call)
    assert not await command(client, "KEYS", "*")


@check
async def no_key_of_a_call_is_shown(client):
    t, one = several(client, prefix="rl:"), Throttler(client, 5, 60, prefix="rl:")
    await command(client, "SET", "rl:customer:4711", "hello")
    for parts in (((one, "user", 1), (one, "customer:4711", 1)), ((one, "customer:4711", 1), (t, "user", 1))):
        error = await raises(NotABucket, all_of(*parts))
        assert "4711" not in str(error) and "customer" not in str(error) and error.__cause__ is not None, error
        assert (await one.peek("user")).level == 0 and (await t.peek("user")).level == 0
    for kind in (ConnectionError, type("ResponseError", (Exception,), {})):

        class Telling:
            """A client whose errors repeat the command."""

            async def execute_command(self, *words):
                raise kind(f"ERR all of {words!r}")

            async def __aenter__(self):
                return self

        telling = Telling()
        t, one = several(telling, prefix="rl:"), Throttler(telling, 5, 60, prefix="rl:")
        error = await raises(Error, all_of((one, "customer:4711", 1), (t, "customer:4712", 1)))
        assert "471" not in str(error) and "customer:4712" in str(error.__cause__), error
    async with client_with(client, RIGHTS.replace("~rl:*", "~other:*")) as limited:
        error = await raises(Refused, several(limited, prefix="rl:").consume("customer:4711"))
        assert "4711" not in str(error) and "customer" not in str(error), error


@check
async def calls_on_several_buckets_need_no_more_rights(client):
    async with client_with(client, RIGHTS) as limited:
        t = several(limited, prefix="rl:")
        reserved = await answer_of(t._reserve("k", 4))
        await settle(t, reserved, 2)
        assert [r.level for r in (await t.peek("k")).parts] == [2, 2]
        await t.reset("k")
        await raises(Refused, several(limited, prefix="other:").consume("k"))


RIGHTS = "resetkeys ~rl:* resetchannels -@all +evalsha +script|load +get +set +del +time"  # of docs/reference/acl.md


def text_of(error):
    """The text of the server, without the sentence of the package before it."""
    return str(error).partition(": ")[2]


@contextlib.asynccontextmanager
async def client_with(client, *rights):
    """A client of a user with these rights. No script is loaded."""
    await command(client, "ACL", "SETUSER", "app", "reset", "on", ">SECRET", *" ".join(rights).split())
    await command(client, "SCRIPT", "FLUSH")
    await command(client, "CONFIG", "RESETSTAT")
    async with client_of(URL if FAMILY == "aioredis" else URL.replace("//", "//app:SECRET@")) as limited:
        if FAMILY == "aioredis":
            await command(limited, "AUTH", "app", "SECRET")
        yield limited


def names_of(info):
    """The names of the counted commands. Some clients have parsed the reply."""
    lines = info if isinstance(info, dict) else (info if isinstance(info, str) else info.decode()).splitlines()
    return {line.split(":")[0].replace("cmdstat_", "") for line in lines}


async def commands_of(client):
    return names_of(await command(client, "INFO", "commandstats"))


@check
async def works_with_the_least_rights(client):
    async with client_with(client, RIGHTS) as limited:
        t = Throttler(limited, 100, 60, prefix="rl:")
        results = await asyncio.gather(*(t.consume(f"r{i}", 2) for i in range(5)))
        assert [r.level for r in results] == [2] * 5
        assert [(await t.peek("r1")).level, (await t.consume("r1")).level, (await t.reset("r1")).level] == [2, 3, 0]
        await raises(Refused, Throttler(limited, 100, 60, prefix="other:").consume("k"))
    heard = await commands_of(client)
    assert "script|load" in heard and "eval" not in heard


@check
async def waits_for_scripts_that_it_may_not_load(client):
    rights = RIGHTS.replace("+script|load", "")
    async with client_with(client, rights) as limited:
        t = Throttler(limited, 100, 60, prefix="rl:")
        assert "NOSCRIPT" in str((await raises(Unavailable, t.consume("s"))).__cause__) or FAMILY != "aioredis"
        assert (await Throttler(client, 100, 60, prefix="rl:").consume("s")).level == 1
        assert (await t.consume("s")).level == 2
    async with client_with(client, rights, "+eval") as limited:
        assert (await Throttler(limited, 100, 60, prefix="rl:").consume("s")).level == 3
    assert "eval" in await commands_of(client)


@check
async def repeats_only_requests_that_found_no_script(client):
    heard = []

    class Flushed:
        """A client whose server loses its scripts before each call of a script."""

        async def execute_command(self, *words):
            heard.append(words[0])
            if words[0] == "EVALSHA":
                await command(client, "SCRIPT", "FLUSH")
            return await command(client, *words)

        async def __aenter__(self):
            return self

    assert (await Throttler(Flushed(), 100, 60).consume("f")).level == 1
    assert heard == ["EVALSHA", "SCRIPT", "EVALSHA", "EVAL"]
    heard.clear()
    await command(client, "SET", "f", "hello")
    await raises(NotABucket, Throttler(Flushed(), 100, 60).consume("f"))
    assert heard == ["EVALSHA", "SCRIPT", "EVALSHA", "EVAL"]


@check
async def each_gets_its_own_answer(client):
    t = Throttler(client, 1000, 3600)
    results = await asyncio.gather(*(t.consume(f"k{i}", i + 1) for i in range(80)))
    assert [r.level for r in results] == list(range(1, 81))


@check
async def waits_for_room(client):
    t = Throttler(client, 1, 0.02, block_duration=5)
    await asyncio.wait_for(asyncio.gather(*(t.wait("k") for _ in range(5))), 3)
    async with t.limit("k", timeout=1) as result:
        assert result.success
    full = Throttler(client, 1, 60)
    await full.consume("full")
    await raises(TimeoutError, full.wait("full", timeout=0.001))


@check
async def leaves_foreign_data_alone(client):
    await command(client, "SET", "text", "hello")
    for verb in ("consume", "peek", "reset"):
        error = await raises(NotABucket, getattr(Throttler(client, 5, 1, on_error="allow"), verb)("text"))
        assert error.__cause__ is not None
    assert await command(client, "GET", "text") in (b"hello", "hello")


@check
async def shows_no_key(client):
    """No key of any length is shown, and the text is never empty. The cause is the exception of the client."""
    for key in ("text", "k", "customer:4711", b"x\xff"):
        await command(client, "SET", key, "hello")
        error = await raises(NotABucket, Throttler(client, 5, 1).consume(key))
        assert text_of(error).split(" ")[0] in ("WRONGTYPE", "NOTABUCKET") and " " in text_of(error), error
        await command(client, "DEL", key)
    rights = RIGHTS.replace("~rl:*", "~other:*")
    async with client_with(client, rights) as limited:
        for key in ("k", "user", "customer:4711"):
            error = await raises(Refused, Throttler(limited, 5, 1, prefix="rl:").consume(key))
            assert text_of(error).startswith("NOPERM ") and "customer" not in str(error) and "rl:" not in str(error), error


@check
async def reports_the_refusal_of_the_server(client):
    t = Throttler(client, 5, 1)
    await t.consume("k")
    await command(client, "CONFIG", "SET", "maxmemory", "1")
    try:
        assert text_of(await raises(Unavailable, t.consume("k"))) == "OOM command not allowed when used memory > 'maxmemory'."
        allowed = await Throttler(client, 5, 1, on_error="allow").consume("k")
        assert (allowed.success, allowed.source, allowed.error) == (True, "policy", "unavailable")
        local = Throttler(client, 4, 1, on_error="local", local_share=2)
        assert [(r.success, r.source) for r in [await local.consume("k") for _ in range(3)]] == [
            (True, "local"), (True, "local"), (False, "local")]
        local = Throttler(client, 1, 0.05, block_duration=60, on_error="local")
        assert [(await local.wait("w", timeout=2)).source for _ in range(2)] == ["local", "local"], "no block of a minute"
    finally:
        await command(client, "CONFIG", "SET", "maxmemory", "0")
    await command(client, "REPLICAOF", "127.0.0.1", "1")
    try:
        await raises(Unavailable, t.consume("k"))
    finally:
        await command(client, "REPLICAOF", "NO", "ONE")
    await command(client, "ACL", "SETUSER", "poor", "on", ">p", "~*", "+select", "+client", "+hello")
    async with client_of(URL.replace("//", "//poor:p@")) if FAMILY != "aioredis" else client_of(URL) as poor:
        if FAMILY == "aioredis":
            await command(poor, "AUTH", "poor", "p")
        await raises(Refused, Throttler(poor, 5, 1).consume("k"))


@check
async def reports_a_server_that_is_down(client):
    if FAMILY != "aioredis":  # its pool cannot be made without a server
        async with client_of(CLOSED_URL) as nobody:
            await raises(Unavailable, Throttler(nobody, 5, 1).consume("k"))
            assert (await Throttler(nobody, 5, 1, on_error="deny").consume("k")).error == "unavailable"
    broken = await connect(URL)
    t = Throttler(broken, 5, 1)
    await t.consume("k")
    if FAMILY == "aioredis":
        await close(broken)
        await raises((Unavailable, Unknown), t.consume("k"))
    else:
        await close(broken)


@contextlib.asynccontextmanager
async def gone_after_a_decision():
    """The port of a proxy that closes, and drops the reply, after a decision was sent."""
    host, _, port = URL.rpartition("/")[2].partition("/")[0].rpartition(":")

    async def serve(reader, writer):
        to_us, to_them = await asyncio.open_connection(host, int(port))

        async def forward():
            while data := await reader.read(65536):
                if b"EVALSHA" in data:
                    server.close()
                to_them.write(data)

        async def answer():
            while (data := await to_us.read(65536)) and server.is_serving():
                writer.write(data)
            writer.close()
            to_them.close()

        await asyncio.gather(forward(), answer(), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@check
async def reports_unknown_if_the_client_repeated_the_request(client):
    if FAMILY == "aioredis":
        return
    kind = getattr(__import__(f"{FAMILY}.asyncio", fromlist=["asyncio"]), FAMILY.capitalize())
    retry = __import__(f"{FAMILY}.asyncio.retry", fromlist=["retry"]).Retry
    backoff = __import__(f"{FAMILY}.backoff", fromlist=["backoff"]).NoBackoff()
    await Throttler(client, 10, 3600).consume("first, so that there is a script")
    for options in ({}, {"retry": retry(backoff, 3)}, {"retry_on_timeout": True}):
        async with gone_after_a_decision() as port:
            other = kind(host="127.0.0.1", port=port, **options)
            await raises(Unknown, Throttler(other, 10, 3600).consume("sent again", 2))
            await close(other)
        assert (await Throttler(client, 10, 3600).consume("sent again", -2)).success
    nobody = int(CLOSED_URL.rpartition(":")[2])
    never, again = (kind(host="127.0.0.1", port=nobody, retry=retry(backoff, n), retry_on_timeout=n > 0) for n in (0, 2))
    for client in (never, again):  # a retried connection attempt sends no decision
        await raises(Unavailable, Throttler(client, 10, 3600).consume("k"))
        assert (await Throttler(client, 10, 3600, on_error="local").consume("k")).error == "unavailable"
        await close(client)


@check
async def a_call_whose_answer_is_lost_is_unknown_and_never_sent_again(client):
    if FAMILY == "aioredis":
        return
    t = several(client)
    await settle(t, await answer_of(t._reserve("first, so that there are scripts", 4)), 0)
    for actual, levels in ((None, [4, 4]), (1, [1, 1]), (9, [9, 9])):
        reserved = await answer_of(t._reserve("k", 4))
        async with gone_after_a_decision() as port:
            other = await connect(f"redis://127.0.0.1:{port}")
            theirs = several(other)
            if actual is None:
                await t.reset("k")
                await raises(Unknown, answer_of(theirs._reserve("k", 4)))
            else:
                await raises(Unknown, settle(theirs, reserved, actual))
                error = await raises(ValueError, settle(theirs, reserved, actual))
                assert "settled" in str(error), error
            await close(other)
        await asyncio.sleep(0.05)
        assert await held(t, "k") == levels, (actual, await held(t, "k"))
        await t.reset("k")


@check
async def a_settle_that_was_not_sent_may_be_repeated(client):
    if FAMILY == "aioredis":
        return
    t = several(client)
    reserved = await answer_of(t._reserve("k", 4))
    async with client_of(CLOSED_URL) as nobody:
        for _ in range(2):
            await raises(Unavailable, settle(several(nobody), reserved, 1))
    await settle(t, reserved, 1)
    assert [r.level for r in (await t.peek("k")).parts] == [1, 1]


@check
async def rejects_impossible_arguments(client):
    if FAMILY != "aioredis":
        blocking = getattr(__import__(FAMILY), "from_url")(URL)
        for wrong in (blocking, client.pipeline(), blocking.pipeline()):
            try:
                Throttler(wrong, 5, 1)
            except TypeError as error:
                assert type(wrong).__name__ in str(error)
            else:
                raise AssertionError(wrong)
        blocking.close()


@check
async def reads_replies_of_every_protocol(client):
    if FAMILY == "aioredis":
        return
    module = __import__(FAMILY)
    options = [{"decode_responses": True}, {"max_connections": 1}]
    if "protocol" in inspect.signature(getattr(module.asyncio, FAMILY.capitalize()).__init__).parameters:
        options.append({"protocol": 3})
    for i, some in enumerate([None, *options]):
        async with client.client() if some is None else client_of(URL, **some) as other:
            t = Throttler(other, 1, 60, block_duration=60)
            results = [await t.consume(f"o{i}"), await t.consume(f"o{i}"), await t.peek(f"o{i}")]
            assert [r.success for r in results] == [True, False, False] and results[2].blocked_for > 59


async def charges_each_once(t):
    """A client that learns the slot map may lose connections. Then a decision is unknown, but never charged twice."""
    results = await asyncio.gather(*(t.consume(f"k{i}", i + 1) for i in range(60)), return_exceptions=True)
    found = await asyncio.gather(*(t.peek(f"k{i}") for i in range(60)))
    for i, (result, then) in enumerate(zip(results, found)):
        if isinstance(result, Unknown):
            assert then.level in (0, i + 1), (i, result, then)
        else:
            assert result.level == then.level == i + 1, (i, result, then)


async def loads_its_scripts_where_they_are_missing(client):
    async def each(*words):
        return [await client.execute_command(*words, target_nodes=node) for node in client.get_primaries()]

    t = Throttler(client, 100, 3600, prefix=f"{os.getpid()}:loads:")
    await each("SCRIPT", "FLUSH")
    await each("CONFIG", "RESETSTAT")
    for i in range(30):
        assert (await t.consume(f"k{i}")).level == 1
    for heard in map(names_of, await each("INFO", "commandstats")):
        assert {"evalsha", "script|load"} <= heard and "eval" not in heard, heard


async def decides_on_the_keys_of_one_slot(client):
    t, one = several(client, prefix=f"{os.getpid()}:"), Throttler(client, 10, 3600, prefix=f"{os.getpid()}:")
    for i in range(20):
        reserved = await answer_of(t._reserve(f"k{i}", 4))
        await settle(t, reserved, 2)
        assert [r.level for r in (await t.peek(f"k{i}")).parts] == [2, 2]
        together = await all_of((t, f"k{i}", 1), (one, f"{{k{i}}}", 3))
        assert [r.level for r in together.parts] == [3, 3, 3]
    error = await raises(Unsupported, all_of((one, "{a}", 3), (one, "{b}", 3), (one, "{c}", 3)))
    assert "several slots" in str(error)
    assert [(await one.peek(key)).level for key in ("{a}", "{b}", "{c}")] == [0, 0, 0]


async def in_a_cluster(url):
    module = __import__(f"{FAMILY}.asyncio.cluster", fromlist=["cluster"])
    kind = getattr(module, f"{FAMILY.capitalize()}Cluster")
    client = kind.from_url(url)
    try:
        t = Throttler(client, 100, 3600, block_duration=1, prefix=f"{os.getpid()}:")
        await charges_each_once(t)
        await loads_its_scripts_where_they_are_missing(client)
        assert (await t.consume("k1", 99)).blocked_for == 1 and (await t.reset("k1")).level == 0
        await client.execute_command("SET", f"{os.getpid()}:text", "hello")
        await raises(NotABucket, t.consume("text"))
        await decides_on_the_keys_of_one_slot(client)
        try:
            Throttler(client.pipeline(), 5, 1)
        except TypeError:
            pass
        else:
            raise AssertionError("a pipeline")
    finally:
        await close(client)


async def main():
    for one in CHECKS:
        async with client_of(URL) as client:
            await command(client, "FLUSHALL")
            await one(client)
        print(one.__name__)
    for url in CLUSTER:
        await in_a_cluster(url)
        print("in_a_cluster")


if __name__ == "__main__":
    asyncio.run(main())
