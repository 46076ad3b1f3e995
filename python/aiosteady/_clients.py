# SPDX-License-Identifier: MIT
"""Decisions over a client that the caller has: redis-py, valkey-py or aioredis, recognised by what it can do.

An Asker belongs to a client; all throttlers over the client share it. It knows how to ask:

- OneServer and Cluster take a connection of the client, and send what is asked in one turn of the event loop as one
  pipeline, see _pipeline.py.
- OneByOne calls the client's execute_command for each decision. It is for a client with single_connection_client, for a
  class of the caller's that has an execute_command of its own, and for an object that has nothing but execute_command.

An exception of the client while it is asked is no answer: it becomes an aiosteady.Error, or what the policy says, and is
the cause of that error. Wrong arguments are found before the client is asked, and raised as they are.
"""
from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from ._connections import LIBRARIES, AioredisPool, Node, Pool, patiently
from ._core import STEADY_UNAVAILABLE, STEADY_UNKNOWN, Error, ThrottleResult, scripts
from ._errors import NOPERM, NOSCRIPT, is_exhausted, meaning, word_of
from ._pipeline import Pipeline, Question
from ._texts import of_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from . import _core

    Ask = Callable[["_core.Throttler", int, "str | bytes", int, bool], Coroutine[Any, Any, ThrottleResult]]

HOPS = 16  # nodes of a cluster that send a decision on to another
NEVER_SENT = re.compile("connecting to|cannot be connected|No connection available|not covered")


class Asker:
    def __init__(self, client: Any) -> None:
        self.client = client

    async def ask(
        self, throttler: _core.Throttler, verb: int, key: str | bytes, amount: int, patient: bool
    ) -> ThrottleResult:
        question = Question(throttler, verb, key, amount, patient)
        try:
            await self.decide(question)
        except asyncio.CancelledError:
            question.withdraw()
            raise
        except Exception as problem:
            question.error, question.sent = problem, False
        error = question.error
        if error is None:
            result = throttler._decode(verb, amount, question.reply)
            if result is not None:
                return result
            code, why = STEADY_UNKNOWN, "the reply is none of our scripts'"
        else:
            code, why = meaning(error, question.sent) or STEADY_UNAVAILABLE, of_client(error, word_of(error), key)
        try:
            return throttler._failed(code, why, verb, key, amount, patient)
        except Error as failure:
            raise failure from error

    def decide(self, question: Question) -> Awaitable[None]:
        """Fills in the answer. An exception says that nothing was sent."""
        raise NotImplementedError


# ---- By pipelines ----


class Pipelined(Asker):
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

    def decide(self, question: Question) -> Awaitable[None]:
        pipelines = self.pipelines()
        pipeline = pipelines.get("")
        if pipeline is None:
            pipeline = pipelines[""] = Pipeline(self._source)
        return pipeline.ask(question)


class Joint:
    """A task that several others wait for. It is cancelled with the last of them."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task, self._waiting = task, 0
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # so that asyncio does not report it

    async def wait(self) -> None:
        self._waiting += 1
        try:
            await asyncio.wait([self.task])
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self.task.cancel()  # no effect once it is done
        self.task.result()


class Cluster(Pipelined):
    """The client knows which node has a key. It learns that anew after a MOVED, and after a node failed."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._learning: WeakKeyDictionary[asyncio.AbstractEventLoop, Joint] = WeakKeyDictionary()

    async def decide(self, question: Question) -> None:
        key = question.words(b"EVALSHA")[3]
        node, question.asking = await self._node_of(key), False
        for _ in range(HOPS):
            await self._pipeline_to(node).ask(question)
            refusal = word_of(question.error) if question.error is not None else ""
            if refusal == "ASK":
                node, question.asking = self._node_named(question.error), True
                if node is None:
                    return
            elif refusal == "MOVED":
                node, question.asking = await self._node_instead_of(node, key), False
            else:
                if refusal in (None, "CLUSTERDOWN", "READONLY"):
                    self._forget()
                return

    async def _node_of(self, key: bytes) -> Any:
        if getattr(self.client, "_initialize", True):
            await self._learn()
        try:
            return self.client.get_node_from_key(key)
        except Exception:  # no node has its slot, as far as is known
            self._forget()
            raise

    async def _node_instead_of(self, node: Any, key: bytes) -> Any:
        found = await self._node_of(key)
        if found is node:
            self._forget()
            found = await self._node_of(key)
        return found

    def _forget(self) -> None:
        """The client asks for the map of the cluster before its next command, as after an error of its own."""
        if hasattr(self.client, "_initialize"):
            self.client._initialize = True

    async def _learn(self) -> None:
        """Once for all that wait for it; a cancelled task leaves it to the others."""
        loop = asyncio.get_running_loop()
        learning = self._learning.get(loop)
        if learning is None or learning.task.done():
            learning = self._learning[loop] = Joint(loop.create_task(self.client.initialize()))
        await learning.wait()

    def _node_named(self, error: Any) -> Any:
        return self.client.get_node(host=error.host, port=error.port)

    def _pipeline_to(self, node: Any) -> Pipeline:
        pipelines = self.pipelines()
        pipeline = pipelines.get(node.name)
        if pipeline is None or pipeline.source.node is not node:
            pipeline = pipelines[node.name] = Pipeline(Node(node))
        return pipeline


# ---- One by one ----


def sends_again(client: Any) -> bool:
    """Whether the client sends a command again after a failure. Then its last error says nothing about earlier attempts.

    A connection object knows. It is made here, and never connected."""
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        return False
    try:
        retry = getattr(pool.connection_class(**pool.connection_kwargs), "retry", None)
        return retry is not None and retry._retries != 0
    except Exception:
        return True  # not known


class OneByOne(Asker):
    async def decide(self, question: Question) -> None:
        try:
            question.reply = await self._decide(question.verb, question.words(b"EVALSHA")[3:])
        except Exception as error:
            question.error, question.sent = error, self._may_have_sent(error)

    def _may_have_sent(self, error: Exception) -> bool:
        if is_exhausted(error):
            return False
        refused = isinstance(error, ConnectionRefusedError) or NEVER_SENT.search(str(error)) is not None
        return not refused or sends_again(self.client)

    async def _decide(self, verb: int, arguments: Sequence[bytes]) -> Any:
        sha1, text = scripts[verb]
        for first in (True, False):
            try:
                return await self._command(arguments[0], "EVALSHA", sha1, 1, *arguments)
            except Exception as error:
                if meaning(error, sent=True) != NOSCRIPT:
                    raise
                lost = error
            if first:
                await self._load(arguments[0], text)
        try:
            return await self._command(arguments[0], "EVAL", text, 1, *arguments)
        except Exception as error:
            if meaning(error, sent=True) == NOPERM:
                raise lost from error  # a client with more rights has to load the scripts
            raise

    async def _load(self, key: bytes, text: str) -> None:
        """The next EVALSHA shows whether that helped."""
        with contextlib.suppress(Exception):
            await self._command(key, "SCRIPT", "LOAD", text)

    def _command(self, key: bytes, *words: Any) -> Awaitable[Any]:
        return patiently(lambda: self.client.execute_command(*words))


class OneConnection(OneByOne):
    """A client with one connection. Some versions mix up the replies to commands sent at once, so commands take turns."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def _command(self, key: bytes, *words: Any) -> Any:
        async with self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            return await self.client.execute_command(*words)


class ClusterOneByOne(OneByOne):
    """A client for a cluster sends a command again when its connection is lost, unless it is told which node to ask."""

    def _command(self, key: bytes, *words: Any) -> Awaitable[Any]:
        async def execute() -> Any:
            await self.client.initialize()
            return await self.client.execute_command(*words, target_nodes=self.client.get_node_from_key(key))

        return patiently(execute)


# ---- Recognising them ----


def is_a_librarys(client: Any) -> bool:
    """Whether its execute_command is the library's, and not one that does more."""
    if "execute_command" in getattr(client, "__dict__", ()):
        return False
    for kind in type(client).__mro__:
        if "execute_command" in vars(kind):
            return kind.__module__.partition(".")[0] in LIBRARIES
    return False


def asker_of(client: Any) -> Asker:
    command = getattr(client, "execute_command", None)
    if callable(command):  # redis-py, its cluster client, valkey-py, aioredis 2
        if not hasattr(type(client), "__aenter__"):
            raise TypeError(f"redis is a {type(client).__name__} that blocks; it must be a client for asyncio")
        if hasattr(client, "execute"):
            raise TypeError(f"redis is a {type(client).__name__}, which collects commands; it must be the client itself")
        if hasattr(client, "get_node_from_key"):
            return Cluster(client) if is_a_librarys(client) else ClusterOneByOne(client)
        if getattr(client, "single_connection_client", False):
            return OneConnection(client)
        return OneServer(client, Pool(client)) if is_a_librarys(client) else OneByOne(client)
    command = getattr(client, "execute", None)
    if callable(command) and hasattr(client, "evalsha"):  # aioredis 1.3
        return OneServer(client, AioredisPool(client))
    raise TypeError(f"redis must be a URL, a Store, or an asyncio client for Redis, not {type(client).__name__}")


askers: WeakValueDictionary[int, Asker] = WeakValueDictionary()  # by the id of the client, which its asker keeps


def adapt(client: Any) -> Ask:
    """A function that asks over this client. TypeError if there is none."""
    asker = askers.get(id(client))
    if asker is None:
        asker = askers[id(client)] = asker_of(client)
    return asker.ask
