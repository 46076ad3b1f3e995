# SPDX-License-Identifier: MIT
"""Many decisions at once over a caller's client, and what may go wrong meanwhile: `python_client_bursts.py CLIENT URL CLOSED_URL
[CLUSTER_URL]`, like python_clients.py, whose helpers it uses. The server at URL permits DEBUG. It prints the checks that
passed."""
import asyncio
import contextlib
import inspect
import os
import signal
import threading
import time

from aiosteady import Error, Throttler, Unavailable, Unknown, _clients
from aiosteady.asgi import RateLimit
from asgi_rig import policies_in_a_cluster
from python_clients import (CLUSTER, FAMILY, URL, all_of, answer_of, client_of, close, command, connect, held, raises, rest, settle,
                            several)

CHECKS = []
AIOREDIS = FAMILY == "aioredis"
HOST, _, PORT = URL.rpartition("/")[2].rpartition(":")


def check(function):
    CHECKS.append(function)
    return function


def at_once(*awaitables):
    return asyncio.gather(*awaitables, return_exceptions=True)


def pool_of(size):
    return {"minsize": 1, "maxsize": size} if AIOREDIS else {"max_connections": size}


async def calls_of(client, name):
    """The number of calls of a command at the server."""
    info = await command(client, "INFO", "commandstats")
    if isinstance(info, dict):
        return info.get(f"cmdstat_{name}", {"calls": 0})["calls"]
    line = next((line for line in (info if isinstance(info, str) else info.decode()).splitlines()
                 if line.startswith(f"cmdstat_{name}:")), ":calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])


class Proxy:
    """A proxy before the server. It counts the forwarded EVALSHA by connection. It holds replies back unless it is `free`.
    It closes the connection after `let` replies. It sends a reply every `drip` seconds. It sends none to a connection
    that is `silent`. `to` is the URL of the server."""

    def __init__(self, let=None, drip=None, to=URL):
        self.to = to.rpartition("/")[2].rpartition(":")
        self.asked, self.let, self.drip, self.free = {}, let, drip, asyncio.Event()
        self.all, self.silent, self.next_is_silent = set(), set(), False
        self.free.set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *error):
        self.free.set()
        self.server.close()

    async def serve(self, reader, writer):
        to_us, to_server = await asyncio.open_connection(self.to[0], int(self.to[2]))
        self.all.add(writer)
        if self.next_is_silent:
            self.silent.add(writer)
            self.next_is_silent = False

        async def forward():
            while data := await reader.read(1 << 20):
                self.asked[writer] = self.asked.get(writer, 0) + data.count(b"EVALSHA")
                to_server.write(data)
            to_server.close()

        async def answer():
            while data := await to_us.read(1 << 20):
                await self.free.wait()
                if writer in self.silent:
                    continue
                if self.let is not None and self.asked.get(writer, 0) > 0:
                    data = b"".join(data.splitlines(keepends=True)[:self.let])
                    writer.write(data)
                    break
                drips = self.drip is not None and self.asked.get(writer, 0) > 0
                for line in data.splitlines(keepends=True) if drips else [data]:
                    writer.write(line)
                    await asyncio.sleep(self.drip if drips else 0)
            writer.close()

        await asyncio.gather(forward(), answer(), return_exceptions=True)


@check
async def a_burst_on_a_full_bucket_is_denied_by_a_client_with_defaults(client):
    t = Throttler(client, 5, 600.0)
    assert (await t.consume("full", 5)).success
    results = await at_once(*(t.consume("full") for _ in range(400)))
    assert [getattr(r, "success", r) for r in results] == [False] * 400


@check
async def requests_at_once_of_a_client_over_its_limit_are_429(client):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    limited = RateLimit(app, throttler=Throttler(client, 5, 600.0))

    async def request():
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
        await limited(scope, None, send)
        return sent[0]["status"]

    assert [await request() for _ in range(6)] == [200] * 5 + [429]
    assert await at_once(*(request() for _ in range(400))) == [429] * 400


@check
async def a_burst_is_decided_over_a_pool_of_two(client):
    async with client_of(URL, **pool_of(2)) as small:
        t = Throttler(small, 1000, 3600)
        results = await at_once(*(t.consume(f"k{i}", i + 1) for i in range(400)))
        assert [getattr(r, "level", r) for r in results] == list(range(1, 401))
        other = Throttler(small, 300, 3600)
        results = await at_once(*(throttler.consume("one") for _ in range(200) for throttler in (other, t)))
        assert sorted(r.level for r in results if r.success) == list(range(1, 401))[:len([r for r in results if r.success])]


@check
async def one_turn_is_one_pipeline_over_one_connection(client):
    async with Proxy() as proxy:
        async with client_of(proxy.url) as other:
            throttlers = [Throttler(other, 1000, 3600, prefix=f"{i}:") for i in range(3)]
            assert (await throttlers[0].consume("first")).level == 1
            proxy.asked.clear()
            proxy.free.clear()
            tasks = [asyncio.ensure_future(t.consume(f"k{i}")) for i in range(50) for t in throttlers]
            deadline = time.monotonic() + 5
            while sum(proxy.asked.values()) < 150 and time.monotonic() < deadline:
                await asyncio.sleep(0.001)
            assert list(proxy.asked.values()) == [150], "not one of them has a reply yet"
            late = [asyncio.ensure_future(t.consume(f"k{i}")) for i in range(50) for t in throttlers]
            await asyncio.sleep(0.05)
            assert list(proxy.asked.values()) == [150], "the rest waits"
            proxy.free.set()
            results = await asyncio.gather(*tasks, *late)
            assert [r.level for r in results] == [1] * 150 + [2] * 150 and list(proxy.asked.values()) == [300]
    assert await calls_of(client, "multi") == 0


@check
async def missing_scripts_are_loaded_once_for_a_burst(client):
    t = Throttler(client, 1000, 3600)
    await command(client, "SCRIPT", "FLUSH")
    await command(client, "CONFIG", "RESETSTAT")
    results = await at_once(*(t.consume(f"k{i}", i + 1) if i % 2 else t.peek(f"k{i}") for i in range(100)))
    assert [getattr(r, "level", r) for r in results] == [i + 1 if i % 2 else 0 for i in range(100)]
    assert (await calls_of(client, "script|load"), await calls_of(client, "evalsha")) == (2, 200)
    assert await calls_of(client, "eval") == 0


@check
async def cancelled_tasks_cancel_no_other_decision(client):
    async with client_of(URL, **pool_of(2)) as small:
        t = Throttler(small, 1000, 3600)
        for turn in range(40):
            tasks = [asyncio.ensure_future(t.consume(f"{turn}:{i}", i + 1)) for i in range(40)]
            for _ in range(turn % 8):
                await asyncio.sleep(0)
            if turn >= 20:
                await asyncio.sleep(turn * 0.00005)
            for task in tasks[::2]:
                task.cancel()
            ends = await at_once(*tasks)
            assert [getattr(r, "level", r) for r in ends[1::2]] == list(range(2, 41, 2)), (turn, ends)
            kept = await at_once(*(t.peek(f"{turn}:{i}") for i in range(40)))
            for i, (end, then) in enumerate(zip(ends, kept)):
                assert then.level in ((0, i + 1) if isinstance(end, asyncio.CancelledError) else (i + 1,)), (turn, i, end, then)


@check
async def a_pipeline_that_no_task_waits_for_is_abandoned(client):
    """The server is stopped, and the client has no time limit."""
    info = await command(client, "INFO", "server")
    pid = info["process_id"] if isinstance(info, dict) else int(
        (info if isinstance(info, str) else info.decode()).partition("process_id:")[2].split()[0])
    async with client_of(URL, **pool_of(1), **({} if AIOREDIS else {"socket_timeout": None})) as other:
        t = Throttler(other, 1000, 3600)
        assert (await t.consume("warm")).level == 1
        os.kill(int(pid), signal.SIGSTOP)
        try:
            began = time.monotonic()
            ends = await at_once(*(asyncio.wait_for(t.consume("stopped", 1), 0.3) for _ in range(5)))
            assert all(isinstance(end, asyncio.TimeoutError) for end in ends) and 0.29 < time.monotonic() - began < 1, ends
            began = time.monotonic()
            await raises(asyncio.TimeoutError, asyncio.wait_for(t.consume("stopped"), 0.3))
            assert time.monotonic() - began < 1
            began = time.monotonic()
            await raises(TimeoutError, t.wait("stopped", timeout=0.5))
            assert 0.45 < time.monotonic() - began < 1.5, time.monotonic() - began
        finally:
            os.kill(int(pid), signal.SIGCONT)
        results = await asyncio.wait_for(at_once(*(t.consume(f"k{i}", i + 1) for i in range(20))), 5)
        assert [getattr(r, "level", r) for r in results] == list(range(1, 21)), results[:3]


async def ask_every_tenth_of_a_second(t, seconds):
    """Each request is given up after 0.5 s, so at each time some are waited for. Returns what the last ten got."""
    tasks = []
    for i in range(int(seconds * 10)):
        tasks.append(asyncio.ensure_future(asyncio.wait_for(t.consume(f"k{i}"), 0.5)))
        await asyncio.sleep(0.1)
    return (await at_once(*tasks))[-10:]


@check
async def a_silent_connection_is_left_although_requests_keep_coming(client):
    """The client has no time limit. A later connection to the same server is answered."""
    if AIOREDIS:
        return  # the connection is not the pipeline's own
    async with Proxy() as proxy, client_of(proxy.url + "/1", **pool_of(1), socket_timeout=None) as other:
        t = Throttler(other, 1000, 3600)
        assert (await t.consume("warm")).level == 1
        proxy.silent.update(proxy.all)
        ends = await ask_every_tenth_of_a_second(t, 4)
        assert [getattr(end, "level", end) for end in ends] == [1] * 10, ends
        alone = asyncio.ensure_future(t.consume("alone"))
        assert (await asyncio.wait_for(alone, 5)).level == 1


@check
async def a_silent_server_is_connected_to_again_although_requests_keep_coming(client):
    """The first connection has no reply to SELECT."""
    if AIOREDIS:
        return
    async with Proxy() as proxy, client_of(proxy.url + "/1", **pool_of(1), socket_timeout=None) as other:
        t = Throttler(other, 1000, 3600)
        proxy.next_is_silent = True
        ends = await ask_every_tenth_of_a_second(t, 4)
        assert proxy.silent and [getattr(end, "level", end) for end in ends] == [1] * 10, ends


@check
async def a_request_does_not_wait_behind_a_batch_that_was_given_up(client):
    if AIOREDIS:
        return
    async with Proxy() as proxy, client_of(proxy.url + "/1", **pool_of(1), socket_timeout=None) as other:
        t = Throttler(other, 1000, 3600)
        assert (await t.consume("warm")).level == 1
        proxy.silent.update(proxy.all)
        given_up = asyncio.ensure_future(asyncio.wait_for(t.consume("given up"), 0.3))
        await asyncio.sleep(0.1)
        patient = asyncio.ensure_future(t.consume("patient"))
        await raises(asyncio.TimeoutError, given_up)
        assert (await asyncio.wait_for(patient, 5)).level == 1


@check
async def a_lost_connection_ends_each_decision(client):
    async with client_of(URL) as warm:
        await Throttler(warm, 10, 3600).consume("first, so that there is a script")
    for let in (0, 3):
        await command(client, "FLUSHDB")
        async with Proxy(let=let) as proxy:
            for options in [{}] if AIOREDIS else [{}, {"retry_on_timeout": True}, {"retry": retry(3)}]:
                await command(client, "FLUSHDB")
                proxy.asked.clear()
                other = await connect(proxy.url, **options)
                t = Throttler(other, 1000, 3600)
                ends = await at_once(*(t.consume(f"k{i}", i + 1) for i in range(10)))
                assert [getattr(r, "level", r) for r in ends[:let]] == list(range(1, let + 1)), ends
                assert all(isinstance(end, Unknown) for end in ends[let:]), ends
                assert sum(proxy.asked.values()) == 10, "nothing is sent again"
                allowed = await Throttler(other, 5, 1, on_error="allow").consume("k")
                assert (let > 0 or allowed.error == "unknown") and allowed.success
                await close(other)
        found = await at_once(*(Throttler(client, 1000, 3600).peek(f"k{i}") for i in range(10)))
        assert [r.level for r in found] == list(range(1, 11)), "charged once"


@check
async def one_turn_of_calls_on_several_buckets_is_one_pipeline(client):
    async with Proxy() as proxy, client_of(proxy.url) as other:
        t, one = several(other), Throttler(other, 1000, 3600)
        await t.consume("first")
        proxy.asked.clear()
        proxy.free.clear()
        tasks = [asyncio.ensure_future(call) for i in range(50) for call in (
            t.consume(f"k{i}", (i % 9 + 1, i + 1)), one.consume(f"k{i}"), all_of((one, f"a{i}", i), (t, f"b{i}", 1)))]
        deadline = time.monotonic() + 5
        while sum(proxy.asked.values()) < 150 and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
        assert list(proxy.asked.values()) == [150], "not one of them has a reply yet"
        proxy.free.set()
        ends = await asyncio.gather(*tasks)
        levels = [[part.level for part in end.parts] for end in ends]
        assert levels == [each for i in range(50) for each in ([i % 9 + 1, i + 1], [1], [i, 1, 1])]
    assert await calls_of(client, "multi") == 0


@check
async def the_scripts_of_calls_on_several_buckets_are_loaded_once_for_a_burst(client):
    t = several(client)
    await command(client, "SCRIPT", "FLUSH")
    await command(client, "CONFIG", "RESETSTAT")
    ends = await at_once(*(answer_of(t._reserve(f"k{i}", 4) if i % 2 else t.peek(f"k{i}")) for i in range(40)))
    assert [end.parts[0].level for end in ends] == [4 * (i % 2) for i in range(40)]
    assert (await calls_of(client, "script|load"), await calls_of(client, "evalsha")) == (2, 80)
    settled = await at_once(*(settle(t, end, 1) for end in ends if end._reservation is not None))
    assert [end.parts[1].level for end in settled] == [1] * 20
    assert (await calls_of(client, "script|load"), await calls_of(client, "evalsha")) == (3, 120)
    assert await calls_of(client, "eval") == 0


@check
async def a_lost_connection_ends_each_call_on_several_buckets(client):
    t = several(client)
    await settle(t, await answer_of(t._reserve("first, so that there are scripts", 4)), 0)
    for verb, left in (("reserve", 4), ("settle", 1)):
        async with Proxy(let=0) as proxy:
            for options in [{}] if AIOREDIS else [{}, {"retry_on_timeout": True}, {"retry": retry(3)}]:
                await command(client, "FLUSHDB")
                reserved = await at_once(*(answer_of(t._reserve(f"k{i}", 4)) for i in range(10 if verb == "settle" else 0)))
                proxy.asked.clear()
                other = await connect(proxy.url, **options)
                theirs = several(other)
                ends = await at_once(*(settle(theirs, end, 1) for end in reserved),
                                     *(answer_of(theirs._reserve(f"k{i}", 4)) for i in range(10 if verb == "reserve" else 0)))
                assert len(ends) == 10 and all(isinstance(end, Unknown) for end in ends), ends
                assert sum(proxy.asked.values()) == 10, "nothing is sent again"
                await close(other)
                assert [await held(t, f"k{i}") for i in range(10)] == [[left, left]] * 10, "charged once"


@check
async def a_call_that_reserves_is_given_up_by_a_silent_server(client):
    """The client has no time limit. The calls that follow are not held back for long."""
    if AIOREDIS:
        return
    async with Proxy() as proxy, client_of(proxy.url + "/1", **pool_of(1), socket_timeout=None) as other:
        t = several(other)
        reserved = await answer_of(t._reserve("warm"))
        proxy.silent.update(proxy.all)
        for call in (answer_of(t._reserve("given up")), settle(t, reserved, 0)):
            began = time.monotonic()
            await raises(asyncio.TimeoutError, asyncio.wait_for(call, 0.3))
            assert time.monotonic() - began < 1
        assert (await asyncio.wait_for(t.consume("patient"), 5)).level == 1
        await rest()


def retry(times):
    kind = __import__(f"{FAMILY}.asyncio.retry", fromlist=["retry"]).Retry
    return kind(__import__(f"{FAMILY}.backoff", fromlist=["backoff"]).NoBackoff(), times)


@check
async def the_time_limit_of_the_client_holds_for_each_reply(client):
    if AIOREDIS:
        return  # this client has no time limit
    await Throttler(client, 10, 3600).consume("first, so that there is a script")
    async with Proxy() as proxy:
        async with client_of(proxy.url, socket_timeout=0.5) as other:
            t = Throttler(other, 1000, 3600)
            assert (await t.consume("k")).level == 1
            proxy.free.clear()
            began = time.monotonic()
            ends = await at_once(*(t.consume("k") for _ in range(10)))
            assert all(isinstance(end, Unknown) for end in ends) and 0.45 < time.monotonic() - began < 2, ends
            proxy.free.set()
            assert (await t.consume("k")).level == 12
    async with Proxy(drip=0.15) as proxy:
        async with client_of(proxy.url, socket_timeout=0.5) as other:
            t = Throttler(other, 1000, 3600)
            ends = await at_once(*(t.consume(f"k{i}", i + 1) for i in range(10)))
            assert [getattr(r, "level", r) for r in ends] == list(range(1, 11)), ends


@check
async def a_server_that_restarts_between_bursts_is_found_again(client):
    async with Proxy() as proxy:
        other = await connect(proxy.url)
        t = Throttler(other, 1000, 3600)
        assert (await t.consume("k")).level == 1
        for writer in list(proxy.asked):
            writer.close()
        await asyncio.sleep(0.05)
        results = await at_once(*(t.consume("k") for _ in range(50)))
        assert sorted(getattr(r, "level", -1) for r in results) == list(range(2, 52)), results[:3]
        await close(other)


@check
async def a_replica_refuses_each(client):
    t = Throttler(client, 1000, 3600)
    await t.consume("k")
    await command(client, "REPLICAOF", "127.0.0.1", "1")
    try:
        ends = await at_once(*(t.consume("k") for _ in range(50)))
        assert all(isinstance(end, Unavailable) for end in ends), ends
    finally:
        await command(client, "REPLICAOF", "NO", "ONE")
    assert sorted(r.level for r in await at_once(*(t.consume("k") for _ in range(50)))) == list(range(2, 52))


@check
async def a_server_that_is_loading_refuses_each(client):
    t = Throttler(client, 1000, 3600)
    await t.consume("k")
    await command(client, "DEBUG", "POPULATE", "10000")
    await command(client, "CONFIG", "SET", "key-load-delay", "100", "loading-process-events-interval-bytes", "1024")
    async with client_of(URL) as other:
        loading = asyncio.ensure_future(command(other, "DEBUG", "RELOAD"))
        refused = 0
        while not refused and not loading.done():
            ends = await at_once(*(t.consume("k", 0) for _ in range(50)))
            refused = sum(isinstance(end, Unavailable) for end in ends)
            assert refused in (0, 50), ends
        await loading
    assert refused == 50
    assert (await t.consume("k")).level == 2


@check
async def a_pool_that_others_use_up_is_waited_for(client):
    if AIOREDIS:
        return
    async with client_of(URL, max_connections=2) as small:
        t = Throttler(small, 1000, 3600)
        pool = small.connection_pool
        named = inspect.signature(pool.get_connection).parameters["command_name"].default is inspect.Parameter.empty
        held = [await pool.get_connection(*["PING"] * named) for _ in range(2)]
        asked = asyncio.ensure_future(at_once(*(t.consume("k") for _ in range(100))))
        await asyncio.sleep(0.2)
        assert not asked.done()
        for connection in held:
            await pool.release(connection)
        assert sorted(getattr(r, "level", -1) for r in await asked) == list(range(1, 101))


@check
async def a_client_of_one_connection_decides_a_burst(client):
    if AIOREDIS:
        import aioredis

        single = await aioredis.create_redis(URL)
    else:
        module = __import__(f"{FAMILY}.asyncio", fromlist=["from_url"])
        single = getattr(module, FAMILY.capitalize())(host=HOST, port=int(PORT), single_connection_client=True, max_connections=1)
    t = Throttler(single, 1000, 3600)
    results = await at_once(*(t.consume(f"k{i}", i + 1) for i in range(100)))
    assert [getattr(r, "level", r) for r in results] == list(range(1, 101))
    await close(single)


@check
async def a_class_with_its_own_execute_command_uses_it(client):
    if AIOREDIS:
        return
    heard = []

    class Own(type(client)):
        async def execute_command(self, *words, **options):
            heard.append(words[0])
            return await super().execute_command(*words, **options)

    own = Own(host=HOST, port=int(PORT), max_connections=2)
    t = Throttler(own, 1000, 3600)
    await t.consume("script")
    heard.clear()
    results = await at_once(*(t.consume(f"k{i}", i + 1) for i in range(100)))
    assert [getattr(r, "level", r) for r in results] == list(range(1, 101)), results
    assert heard.count("EVALSHA") >= 100, "a call that found no connection was made again"
    await close(own)


def in_a_thread(function):
    ends = []
    thread = threading.Thread(target=lambda: ends.append(function()))
    thread.start()
    thread.join(20)
    assert ends, "no end after 20 s"
    return ends[0]


@check
async def a_client_of_an_earlier_event_loop_is_an_error(client):
    """Its connections belong to a closed loop: closed by asyncio.run, or only ended."""

    def twice(run):
        made = []

        async def first():
            made.append(await connect(URL))
            return await Throttler(made[0], 1000, 3600).consume("k")

        async def then():
            ends = []
            for policy in ("report", "allow", "deny"):
                t = Throttler(made[0], 1000, 3600, on_error=policy)
                ends.append((await at_once(asyncio.wait_for(t.consume("k"), 5)))[0])
            return ends

        assert run(first()).level >= 1
        return run(then())

    def left_open(coroutine):
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(coroutine)
        finally:
            loop.close()

    for run in (asyncio.run, left_open):
        reported, allowed, denied = in_a_thread(lambda run=run: twice(run))
        if isinstance(reported, Error):
            assert isinstance(reported, Unavailable) and isinstance(reported.__cause__, Exception), repr(reported)
        else:
            assert reported.source == "store", repr(reported)  # the client made a new connection
        for result, success in ((allowed, True), (denied, False)):
            assert result.source == "store" or (result.success, result.error) == (success, "unavailable"), repr(result)
        if run is left_open:
            assert isinstance(reported, Error), "its connection cannot have been of use"


@check
async def any_exception_of_the_client_is_an_error(client):
    if AIOREDIS:
        return
    kind = type(client)

    async def fails(connection):
        raise failures[-1]

    port = int(PORT)
    for failure in (RuntimeError("x"), AttributeError("x"), KeyError("x"), ValueError("x"), AssertionError("x")):
        failures = [failure]
        for policy in ("report", "deny"):
            other = kind(host=HOST, port=port)
            other.connection_pool.connection_kwargs[f"{FAMILY}_connect_func"] = fails
            t = Throttler(other, 5, 1, on_error=policy)
            if policy == "report":
                error = await raises(Unavailable, t.consume("k"))
                assert failure in (error.__cause__, error.__cause__.__cause__), repr(error.__cause__)
            else:
                assert (await t.consume("k")).error == "unavailable"
            await close(other)
    secure = await connect(URL.replace("redis://", "rediss://"), socket_timeout=1)  # the server speaks no TLS
    error = await raises(Unavailable, Throttler(secure, 5, 1).consume("k"))
    assert isinstance(error.__cause__, Exception)
    await close(secure)
    wrong = await connect(URL.replace("//", "//nobody:wrong@"))
    await raises(Error, Throttler(wrong, 5, 1).consume("k"))
    await close(wrong)


@check
async def wrong_arguments_are_raised_as_they_are(client):
    t = Throttler(client, 5, 1, prefix="p" * 1000, on_error="allow")
    for kind, call in ((TypeError, lambda: t.consume(5)), (TypeError, lambda: t.consume("k", 1.5)),
                       (TypeError, lambda: t.consume("k", None)), (ValueError, lambda: t.consume("k", 1 << 70)),
                       (ValueError, lambda: t.consume("k" * 100)), (ValueError, lambda: t.wait("k", 6))):
        try:
            result = await call()
        except kind:
            pass
        else:
            raise AssertionError(result)


# ---- Clusters ----


def cluster_client(url=None, **options):
    module = __import__(f"{FAMILY}.asyncio.cluster", fromlist=["cluster"])
    return getattr(module, f"{FAMILY.capitalize()}Cluster").from_url(url or CLUSTER[0], **options)


IN_CLUSTER = []


def check_in_cluster(function):
    IN_CLUSTER.append(function)
    return function


def levels(results):
    return [getattr(r, "level", r) for r in results]


async def on_each(client, *words):
    for node in client.get_primaries():
        await client.execute_command(*words, target_nodes=node)


async def tag_of_an_empty_slot(client, prefix):
    """A hash tag with an empty slot. A slot with keys of other checks could not be moved."""
    for n in range(1000):
        tag = f"{{{prefix}{n}}}"
        node = client.get_node_from_key(tag)
        if await client.execute_command("CLUSTER", "COUNTKEYSINSLOT", client.keyslot(tag), target_nodes=node) == 0:
            return tag
    raise AssertionError("each slot has keys")


@contextlib.asynccontextmanager
async def one_slot_on_its_way(client, key, moved):
    """Migrates the slot of the key to another node. If `moved`, the first node then says MOVED, otherwise ASK."""
    source = client.get_node_from_key(key)
    target = next(node for node in client.get_primaries() if node.name != source.name)
    slot = client.keyslot(key)
    ids = {node.name: await client.execute_command("CLUSTER", "MYID", target_nodes=node) for node in (source, target)}
    ids = {name: myid if isinstance(myid, str) else myid.decode() for name, myid in ids.items()}

    async def setslot(node, *words):
        await client.execute_command("CLUSTER", "SETSLOT", slot, *words, target_nodes=node)

    await setslot(target, "IMPORTING", ids[source.name])
    await setslot(source, "MIGRATING", ids[target.name])
    try:
        if moved:
            for node in (target, source):
                await setslot(node, "NODE", ids[target.name])
        yield
    finally:
        if not moved:
            await setslot(source, "STABLE")
            await setslot(target, "STABLE")


@check_in_cluster
async def a_burst_is_decided_over_two_connections_a_node(client, prefix):
    async with client_in_cluster(max_connections=2) as small:
        t = Throttler(small, 1000, 3600, prefix=prefix)
        results = await at_once(*(t.consume(f"k{i}", i + 1) for i in range(400)))
        assert levels(results) == list(range(1, 401)), results[:3]
        results = await at_once(*(t.consume("one") for _ in range(400)))
        assert sorted(levels(results)) == list(range(1, 401))


@check_in_cluster
async def scripts_are_loaded_on_each_node(client, prefix):
    t = Throttler(client, 1000, 3600, prefix=prefix)
    await on_each(client, "SCRIPT", "FLUSH")
    results = await at_once(*(t.consume(f"k{i}", i + 1) for i in range(200)))
    assert levels(results) == list(range(1, 201)), results[:3]


@check_in_cluster
async def decisions_follow_a_slot_that_moves(client, prefix):
    t = Throttler(client, 1000, 3600)
    key = await tag_of_an_empty_slot(client, prefix)
    assert levels(await at_once(*(t.consume(f"{key}{i}", i + 1) for i in range(20)))) == list(range(1, 21))
    await client.execute_command("DEL", *(f"{key}{i}" for i in range(20)))  # a slot with keys cannot be moved
    async with one_slot_on_its_way(client, key, moved=True):
        results = await at_once(*(t.consume(f"{key}{i}", i + 1) for i in range(100)))
        assert levels(results) == list(range(1, 101)), results[:3]
        assert levels(await at_once(*(t.consume(f"{key}{i}", 1) for i in range(100)))) == list(range(2, 102))


@check_in_cluster
async def a_migrating_slot_is_asked_at_the_node_of_the_key(client, prefix):
    t = Throttler(client, 1000, 3600)
    key = await tag_of_an_empty_slot(client, prefix)
    assert (await t.consume(key, 2)).level == 2  # the key stays on the first node
    async with one_slot_on_its_way(client, key, moved=False):
        results = await at_once(*(t.consume(f"{key}{i}", i + 1) for i in range(100)), t.consume(key))
        assert levels(results) == [*range(1, 101), 3], results[:3]
        assert levels(await at_once(*(t.consume(f"{key}{i}") for i in range(100)), t.consume(key))) == [*range(2, 102), 4]


@check_in_cluster
async def calls_on_several_buckets_follow_a_slot_that_moves(client, prefix):
    key = await tag_of_an_empty_slot(client, prefix)
    t, one = several(client, prefix=""), Throttler(client, 1000, 3600)
    name = key[1:-1]
    assert (await t.consume(name, 2)).level == 2
    await t.reset(name)
    async with one_slot_on_its_way(client, key, moved=True):
        reserved = await answer_of(t._reserve(name, 4))
        assert [r.level for r in reserved.parts] == [4, 4]
        assert [r.level for r in (await settle(t, reserved, 1)).parts] == [1, 1]
        assert (await all_of((t, name, 1), (one, key, 7))).parts[2].level == 7


@check_in_cluster
async def a_call_whose_keys_are_on_both_nodes_of_a_migrating_slot_is_unavailable(client, prefix):
    key = await tag_of_an_empty_slot(client, prefix)
    one = Throttler(client, 1000, 3600)
    assert (await one.consume(key, 2)).level == 2  # the key stays on the first node
    async with one_slot_on_its_way(client, key, moved=False):
        assert [(await one.consume(f"{key}{new}")).level for new in ("new", "newer")] == [1, 1]
        error = await raises(Unavailable, all_of((one, key, 1), (one, f"{key}new", 1)))
        assert "TRYAGAIN" in str(error), error
        assert [(await one.peek(k)).level for k in (key, f"{key}new")] == [2, 1]
        assert [r.level for r in (await all_of((one, f"{key}new", 1), (one, f"{key}newer", 1))).parts] == [2, 2]


@check_in_cluster
async def policies_with_keys_in_several_slots_are_decided_together(client, prefix):
    await policies_in_a_cluster(client, prefix)


@check_in_cluster
async def cancelled_tasks_cancel_no_other_decision_in_a_cluster(client, prefix):
    async with client_in_cluster() as fresh:
        t = Throttler(fresh, 1000, 3600, prefix=prefix)
        for turn in range(10):
            tasks = [asyncio.ensure_future(t.consume(f"{turn}:{i}", i + 1)) for i in range(40)]
            await asyncio.sleep(turn * 0.0003)
            for task in tasks[::2]:
                task.cancel()
            ends = await at_once(*tasks)
            assert levels(ends[1::2]) == list(range(2, 41, 2)), (turn, ends)


@check_in_cluster
async def connections_that_the_nodes_closed_are_made_again(client, prefix):
    t = Throttler(client, 1000, 3600, prefix=prefix)
    assert levels(await at_once(*(t.consume(f"k{i}") for i in range(30)))) == [1] * 30
    async with client_in_cluster() as other:
        await on_each(other, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.1)
    assert levels(await at_once(*(t.consume(f"k{i}") for i in range(30)))) == [2] * 30


@contextlib.asynccontextmanager
async def client_with_a_silent_node():
    """The client gets its map over a proxy. It has no time limit, and its first connection gets no reply."""
    async with Proxy(to=CLUSTER[0]) as proxy:
        proxy.next_is_silent = True
        other = cluster_client(proxy.url, socket_timeout=None)
        try:
            yield other, proxy
        finally:
            await close(other)


@check_in_cluster
async def a_silent_refresh_of_the_map_is_started_anew_although_requests_keep_coming(client, prefix):
    longest = getattr(_clients, "REFRESH_MOST", None)
    _clients.REFRESH_MOST = 0.5
    try:
        async with client_with_a_silent_node() as (other, proxy):
            t = Throttler(other, 1000, 3600, prefix=prefix)
            patient = asyncio.ensure_future(t.consume("patient"))
            ends = await ask_every_tenth_of_a_second(t, 4)
            assert proxy.silent and levels(ends) == [1] * 10, ends
            assert (await asyncio.wait_for(patient, 5)).level == 1
    finally:
        _clients.REFRESH_MOST = longest


@check_in_cluster
async def a_task_gets_the_map_although_a_refresh_is_being_cancelled(client, prefix):
    async with client_with_a_silent_node() as (other, proxy):
        t = Throttler(other, 1000, 3600, prefix=prefix)
        first = asyncio.ensure_future(t.consume("first"))
        while not proxy.silent:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        first.cancel()
        ends = await at_once(first)
        assert isinstance(ends[0], asyncio.CancelledError), ends
        next_one = asyncio.ensure_future(asyncio.wait_for(t.consume("next"), 5))
        assert levels(await at_once(next_one)) == [1]


@contextlib.asynccontextmanager
async def client_in_cluster(**options):
    client = cluster_client(**options)
    try:
        await client.initialize()
        yield client
    finally:
        await close(client)


async def main():
    for one in CHECKS:
        async with client_of(URL) as client:
            await command(client, "FLUSHALL")
            await command(client, "CONFIG", "RESETSTAT")
            await asyncio.wait_for(one(client), 30)
        print(one.__name__, flush=True)
    for one in IN_CLUSTER if CLUSTER else ():
        async with client_in_cluster() as client:
            await asyncio.wait_for(one(client, f"{os.getpid()}:{one.__name__}:"), 30)
        print(one.__name__, flush=True)
    print("all")


asyncio.run(main())
