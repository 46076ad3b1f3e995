# SPDX-License-Identifier: MIT
"""Decisions through a client of the caller: redis-py, valkey-py or aioredis. The client is recognised by its methods.

An Adapter belongs to a client; all throttlers with this client share it. There are two kinds:

- OneServer and Cluster take a connection from the client. They send all requests of one turn of the event loop as one
  pipeline, see _pipeline.py.
- OneByOne calls the client's execute_command for each decision. It is used for a client with single_connection_client,
  for
  a class with an execute_command of its own, and for an object that has only execute_command.

If the client raises an exception, the policy applies. If the policy has no answer, an aiosteady.Error is raised, and
the exception of the client is its cause. Wrong arguments raise an exception before the client is called.
"""
from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from ._connections import LIBRARIES, AioredisPool, Node, Pool, with_retries
from ._core import (
    STEADY_UNAVAILABLE,
    STEADY_UNKNOWN,
    STEADY_UNSUPPORTED,
    BlockingStore,
    Error,
    ThrottleResult,
    Unsupported,
    scripts,
)
from ._errors import NOPERM, NOSCRIPT, error_code, is_exhausted, word_of
from ._lines import NOT_GIVEN_BACK, BACKGROUND_MOST, in_background, tasks
from ._pipeline import CallRequest, Pipeline, PlainRequest, Request
from ._texts import of_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Sequence

    from . import _core

REDIRECTS_MOST = 16  # of one decision, by MOVED or ASK
# Seconds until a refresh of the cluster map is started anew. Linux gives up a TCP connect after about 127 s, so a slow
# connect is not cut short.
REFRESH_MOST = 130.0
NEVER_SENT = re.compile("connecting to|cannot be connected|No connection available|not covered")


class Adapter:
    def __init__(self, client: Any) -> None:
        self.client = client

    def ask(
        self, throttler: _core.Throttler, verb: int, key: str | bytes, amount: int
    ) -> Coroutine[Any, Any, ThrottleResult]:
        return self._answer(PlainRequest(throttler, verb, key, amount))

    async def ask_call(self, call: _core.Call) -> ThrottleResult:
        """A call on several buckets, or with options; or the settling of a reservation."""
        request = CallRequest(call)
        return await (self._finish(call, request) if call.gives_back else self._answer(request))

    async def _finish(self, call: _core.Call, request: Request) -> ThrottleResult:
        """A call that reserves or settles goes on for BACKGROUND_MOST although its task is cancelled. What it then reserves
        is given back. A silent server does not hold back other requests for longer."""
        task = asyncio.ensure_future(self._answer(request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda task: self._give_back(call, task))
            task.get_loop().call_later(BACKGROUND_MOST, task.cancel)
            raise

    def _give_back(self, call: _core.Call, task: asyncio.Task[ThrottleResult]) -> None:
        """Settles with 0 what the call has reserved, in the background."""
        reservation = None if task.cancelled() or task.exception() is not None else task.result()._reservation
        if reservation is not None:
            in_background(self.ask_call(call.give_back(reservation)), NOT_GIVEN_BACK)

    async def _answer(self, request: Request) -> ThrottleResult:
        try:
            await self.decide(request)
        except asyncio.CancelledError:
            request.withdraw()
            raise
        except Exception as problem:
            request.error, request.sent = problem, False
        error = request.error
        if error is None:
            result = request.decode(request.reply)
            if result is not None:
                return result
            code, why = STEADY_UNKNOWN, "the reply is not one that the script sends"
        elif isinstance(error, Unsupported):  # of check_slot
            code, why = STEADY_UNSUPPORTED, str(error)
        else:
            code, why = error_code(error, request.sent) or STEADY_UNAVAILABLE, of_client(error, word_of(error), request)
        try:
            return request.apply_policy(code, why)
        except Error as failure:
            raise failure from error

    def decide(self, request: Request) -> Awaitable[None]:
        """Fills in the reply or the error. If it raises an exception, nothing was sent."""
        raise NotImplementedError


# ---- By pipelines ----


class Pipelined(Adapter):
    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Pipeline]] = WeakKeyDictionary()

    def pipelines(self) -> dict[str, Pipeline]:
        """The pipelines of the running loop, by node."""
        loop = asyncio.get_running_loop()
        found = self._loops.get(loop)
        if found is None:
            for other in [other for other in self._loops if other.is_closed()]:
                del self._loops[other]
            found = self._loops[loop] = {}
        return found


class OneServer(Pipelined):
    def __init__(self, client: Any, source: Any) -> None:
        super().__init__(client)
        self._source = source

    def decide(self, request: Request) -> Awaitable[None]:
        pipelines = self.pipelines()
        pipeline = pipelines.get("")
        if pipeline is None:
            pipeline = pipelines[""] = Pipeline(self._source)
        return pipeline.ask(request)


class Joint:
    """A task that several tasks wait for. When the last of them stops waiting, it is cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
        self._loop, self._began, self._waiting, self._cancelled = loop, loop.time(), 0, False
        self._task = loop.create_task(work)
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # or asyncio reports it

    def is_over(self) -> bool:
        """Also True if it was cancelled and its clean-up still runs."""
        return self._cancelled or self._task.done()

    def age(self) -> float:
        return self._loop.time() - self._began

    def cancel(self) -> None:
        if not self.is_over():
            self._cancelled = True
            self._task.cancel()

    async def wait(self) -> bool:
        """Returns False if cancel() ended it: wait for another one. Raises what the task raised."""
        self._waiting += 1
        try:
            await asyncio.wait([self._task])
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self.cancel()
        if self._cancelled and self._task.cancelled():
            return False
        self._task.result()
        return True


def check_slot(client: Any, keys: Sequence[bytes]) -> None:
    """Raises Unsupported if the keys lie in several slots."""
    if len(keys) > 1 and len({client.keyslot(key) for key in keys}) > 1:
        raise Unsupported("the keys of a call lie in several slots; put what they have in common into braces, as in {user:42}")


class Cluster(Pipelined):
    """The client knows the node of each key. It refreshes its map after MOVED and after the failure of a node."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._refreshes: WeakKeyDictionary[asyncio.AbstractEventLoop, Joint] = WeakKeyDictionary()

    async def decide(self, request: Request) -> None:
        key = self._key_of(request)
        node, request.asking = await self._node_of(key), False
        for _ in range(REDIRECTS_MOST):
            await self._pipeline_to(node).ask(request)
            word = word_of(request.error) if request.error is not None else ""
            if word == "ASK":
                node, request.asking = self._node_of_ask(request.error), True
                if node is None:
                    return
            elif word == "MOVED":
                node, request.asking = await self._node_instead_of(node, key), False
            else:
                if word in (None, "CLUSTERDOWN", "READONLY"):
                    self._mark_map_stale()
                return

    def _key_of(self, request: Request) -> bytes:
        keys = request.keys()
        check_slot(self.client, keys)
        return keys[0]

    async def _node_of(self, key: bytes) -> Any:
        if getattr(self.client, "_initialize", True):
            await self._refresh_map()
        try:
            return self.client.get_node_from_key(key)
        except Exception:  # the map has no node for the slot
            self._mark_map_stale()
            raise

    async def _node_instead_of(self, node: Any, key: bytes) -> Any:
        found = await self._node_of(key)
        if found is node:
            self._mark_map_stale()
            found = await self._node_of(key)
        return found

    def _mark_map_stale(self) -> None:
        """Makes the client refresh its map of the cluster before its next command."""
        if hasattr(self.client, "_initialize"):
            self.client._initialize = True

    async def _refresh_map(self) -> None:
        """All tasks that need the map wait for one refresh. If one of them is cancelled, the others still get it.

        A refresh over a silent connection may never end. When it is older than REFRESH_MOST, the next task cancels it
        and starts another one. The tasks that waited for the old one wait for the new one.
        """
        while not await self._current_refresh().wait():
            pass

    def _current_refresh(self) -> Joint:
        loop = asyncio.get_running_loop()
        refresh = self._refreshes.get(loop)
        if refresh is not None and refresh.age() > REFRESH_MOST:
            refresh.cancel()
        if refresh is None or refresh.is_over():
            refresh = self._refreshes[loop] = Joint(loop, self.client.initialize())
        return refresh

    def _node_of_ask(self, error: Any) -> Any:
        return self.client.get_node(host=error.host, port=error.port)

    def _pipeline_to(self, node: Any) -> Pipeline:
        pipelines = self.pipelines()
        pipeline = pipelines.get(node.name)
        if pipeline is None or pipeline.source.node is not node:
            pipeline = pipelines[node.name] = Pipeline(Node(node))
        return pipeline


# ---- One by one ----


def sends_again(client: Any) -> bool:
    """Whether the client sends a command again after a failure. Then its last error does not tell whether an earlier
    attempt was charged. A connection object has this setting: one is made here and never connected."""
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        return False
    try:
        retry = getattr(pool.connection_class(**pool.connection_kwargs), "retry", None)
        return retry is not None and retry._retries != 0
    except Exception:
        return True  # unknown: assume the worse case


class OneByOne(Adapter):
    async def decide(self, request: Request) -> None:
        try:
            request.reply = await self._decide(request.verb, request.arguments())
        except Exception as error:
            request.error, request.sent = error, self._may_have_sent(error)

    def _may_have_sent(self, error: Exception) -> bool:
        if is_exhausted(error):
            return False
        refused = isinstance(error, ConnectionRefusedError) or NEVER_SENT.search(str(error)) is not None
        return not refused or sends_again(self.client)

    async def _decide(self, verb: int, arguments: Sequence[bytes]) -> Any:
        sha1, text = scripts[verb]
        key = arguments[1]
        for first in (True, False):
            try:
                return await self._command(key, "EVALSHA", sha1, *arguments)
            except Exception as error:
                if error_code(error, sent=True) != NOSCRIPT:
                    raise
                lost = error
            if first:
                await self._load(key, text)
        try:
            return await self._command(key, "EVAL", text, *arguments)
        except Exception as error:
            if error_code(error, sent=True) == NOPERM:
                raise lost from error  # EVAL is not permitted: report the NOSCRIPT
            raise

    async def _load(self, key: bytes, text: str) -> None:
        """Ignores errors: if the script is not loaded, the next EVALSHA reports it."""
        with contextlib.suppress(Exception):
            await self._command(key, "SCRIPT", "LOAD", text)

    def _command(self, key: bytes, *words: Any) -> Awaitable[Any]:
        return with_retries(lambda: self.client.execute_command(*words))


class OneConnection(OneByOne):
    """A client with one connection. Some versions mix up the replies of concurrent commands, so a lock serialises
    them."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def _command(self, key: bytes, *words: Any) -> Any:
        async with self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            return await self.client.execute_command(*words)


class ClusterOneByOne(OneByOne):
    """Names the node for each command. Otherwise a cluster client sends the command again if the connection is lost."""

    async def decide(self, request: Request) -> None:
        check_slot(self.client, request.keys())
        await super().decide(request)

    def _command(self, key: bytes, *words: Any) -> Awaitable[Any]:
        async def execute() -> Any:
            await self.client.initialize()
            return await self.client.execute_command(*words, target_nodes=self.client.get_node_from_key(key))

        return with_retries(execute)


# ---- Recognising a client ----


def has_plain_execute(client: Any) -> bool:
    """Whether its execute_command is the one of its library, and not overridden."""
    if "execute_command" in getattr(client, "__dict__", ()):
        return False
    for kind in type(client).__mro__:
        if "execute_command" in vars(kind):
            return kind.__module__.partition(".")[0] in LIBRARIES
    return False


def adapter_of(client: Any) -> Adapter:
    if isinstance(client, BlockingStore):
        raise TypeError("redis is a Store of aiosteady.blocking; use a Store of aiosteady, or aiosteady.blocking.Throttler")
    command = getattr(client, "execute_command", None)
    if callable(command):  # redis-py, its cluster client, valkey-py, aioredis 2
        if not hasattr(type(client), "__aenter__"):
            raise TypeError(f"redis is a {type(client).__name__}, a blocking client; it must be a client for asyncio")
        if hasattr(client, "execute"):
            raise TypeError(f"redis is a {type(client).__name__}, a pipeline; it must be the client itself")
        if hasattr(client, "get_node_from_key"):
            return Cluster(client) if has_plain_execute(client) else ClusterOneByOne(client)
        if getattr(client, "single_connection_client", False):
            return OneConnection(client)
        return OneServer(client, Pool(client)) if has_plain_execute(client) else OneByOne(client)
    command = getattr(client, "execute", None)
    if callable(command) and hasattr(client, "evalsha"):  # aioredis 1.3
        return OneServer(client, AioredisPool(client))
    raise TypeError(f"redis must be a URL, a Store, or an asyncio client for Redis, not {type(client).__name__}")


# By the id of the client. The adapter keeps the client alive, so the id stays its own.
adapters: WeakValueDictionary[int, Adapter] = WeakValueDictionary()


def adapt(client: Any) -> Adapter:
    """The Adapter of this client. TypeError if it is no client that we know."""
    adapter = adapters.get(id(client))
    if adapter is None:
        adapter = adapters[id(client)] = adapter_of(client)
    return adapter
