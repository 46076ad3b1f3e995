# SPDX-License-Identifier: MIT
"""Connections that a pipeline borrows from a client of the caller.

A source takes a connection from the client and gives it back. It encodes and sends commands, and receives one reply at
a time. An error reply is raised as an exception; `word_of` of _errors.py recognises it.

The client's own code makes each connection. So all settings of the client apply: credentials, TLS, database, health
checks, timeouts and retries to connect. The `execute` methods of the client are not used: they send a command again if
the connection is lost.
"""
from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections import deque
from typing import TYPE_CHECKING, Any

from ._errors import is_exhausted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from ._pipeline import Request

LIBRARIES = {"redis", "valkey", "aioredis"}  # the top-level modules of the known libraries
POOL_TIMEOUT = 5.0  # seconds to wait for a connection if other tasks use the whole pool
PAUSE_FIRST, PAUSE_LAST = 0.001, 0.05  # seconds between two attempts


async def with_retries(take: Callable[[], Awaitable[Any]]) -> Any:
    """Calls `take` again while the pool is exhausted, for at most POOL_TIMEOUT."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + POOL_TIMEOUT, PAUSE_FIRST
    while True:
        try:
            return await take()
        except Exception as error:
            if not is_exhausted(error) or loop.time() >= deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, PAUSE_LAST)


def check_loop(reader: Any) -> None:
    """Raises RuntimeError for a connection of another event loop: a reply over it would never arrive."""
    loop = getattr(reader, "_loop", None)
    if loop is not None and loop is not asyncio.get_running_loop():
        raise RuntimeError("the client's connection belongs to another event loop")


# ---- redis-py and valkey-py ----


class Watch:
    """Cancels the reading task if no reply comes for `limit` seconds.

    It replaces the socket_timeout of the client, which would set a timer for each reply."""

    def __init__(self, limit: float | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.limit, self.last_reply, self.expired = limit, self.loop.time(), False
        self._task = asyncio.current_task()
        self._timer = None if limit is None else self.loop.call_later(limit, self._look)

    def _look(self) -> None:
        assert self.limit is not None and self._task is not None
        left = self.last_reply + self.limit - self.loop.time()
        if left > 0:
            self._timer = self.loop.call_later(left, self._look)
        else:
            self.expired = True
            self._task.cancel()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.expired and kind is not None and issubclass(kind, asyncio.CancelledError):
            if self._task is not None and hasattr(self._task, "uncancel"):  # Python 3.11 and later
                self._task.uncancel()
            raise asyncio.TimeoutError(f"no reply within {self.limit} s") from None


async def read_without_closing(connection: Any) -> Any:
    """Returns the next reply. For redis-py before 4.5.5: its read_response closes the connection on errors such as
    LOADING."""
    reply = await connection._parser.read_response()
    if isinstance(reply, Exception):
        raise reply
    return reply


@functools.lru_cache(maxsize=32)
def reader_of(kind: Any) -> Callable[[Any], Awaitable[Any]]:
    """A function that reads a reply from a connection of this class, and leaves it open after an error reply.

    A connection from Sentinel closes itself after READONLY, and would lose the replies that follow. So its base class
    reads here. The pipeline closes the connection after the last reply."""
    reader = next(base for base in kind.__mro__
                  if "read_response" in vars(base) and "SentinelManaged" not in base.__name__)
    reads: Callable[..., Awaitable[Any]] = reader.read_response
    if "disconnect_on_error" in inspect.signature(reads).parameters:
        return functools.partial(reads, disconnect_on_error=False)
    return read_without_closing if reader.__module__.partition(".")[0] in LIBRARIES else reads


@functools.lru_cache(maxsize=32)
def wants_a_command(kind: Any) -> bool:
    """Whether get_connection of this pool requires a command name: in valkey-py, and up to redis-py 5.2."""
    named = inspect.signature(kind.get_connection).parameters.get("command_name")
    return named is not None and named.default is inspect.Parameter.empty


async def disconnect(connection: Any) -> None:
    try:
        if "nowait" in inspect.signature(connection.disconnect).parameters:
            await connection.disconnect(nowait=True)
        else:
            await connection.disconnect()
    except Exception:
        pass  # its event loop is closed or its peer is gone: the connection is not used again


async def make_ready(connection: Any) -> None:
    """Connects and checks the health, as the client does before a command."""
    reader = getattr(connection, "_reader", None)
    check_loop(reader)
    if reader is not None and reader.at_eof():  # closed by the server; some versions do not check
        await disconnect(connection)
    if not connection.is_connected:
        await connection.connect()
    await connection.check_health()
    if not connection.is_connected:
        await connection.connect()


class Pool:
    """The pool of a redis-py or valkey-py client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def take(self) -> Any:
        connection = await with_retries(self._free_connection)
        try:
            await make_ready(connection)
        except BaseException:
            await self.give_back(connection, broken=True)
            raise
        return connection

    async def give_back(self, connection: Any, broken: bool) -> None:
        try:
            if broken:
                await disconnect(connection)
        finally:
            await self._release(connection)

    def encoded(self, words: Sequence[bytes]) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])

    def evalsha(self, request: Request) -> bytes:
        return request.packed

    async def send(self, connection: Any, commands: Sequence[bytes]) -> None:
        await connection.send_packed_command(b"".join(commands), False)  # False: make_ready has checked the health

    @contextlib.contextmanager
    def reading(self, connection: Any) -> Iterator[tuple[Callable[[], Awaitable[Any]], Watch]]:
        kind: Any = type(connection)
        limit, connection.socket_timeout = connection.socket_timeout, None
        try:
            with Watch(limit) as watch:
                yield functools.partial(reader_of(kind), connection), watch
        finally:
            if connection.socket_timeout is None:  # otherwise the client has set another one meanwhile
                connection.socket_timeout = limit

    def _free_connection(self) -> Awaitable[Any]:
        pool = self._client.connection_pool
        kind: Any = type(pool)
        taken: Awaitable[Any] = pool.get_connection(*(["EVALSHA"] if wants_a_command(kind) else []))
        return taken

    async def _release(self, connection: Any) -> None:
        await self._client.connection_pool.release(connection)


class Node(Pool):
    """A node of a redis-py or valkey-py client for a cluster. It has a pool of its own."""

    def __init__(self, node: Any) -> None:
        self.node = node

    async def _free_connection(self) -> Any:
        connection = self.node.acquire_connection()
        try:
            await self._reconnect_if_marked(connection)
        except BaseException:
            await self.give_back(connection, broken=True)
            raise
        return connection

    async def _reconnect_if_marked(self, connection: Any) -> None:
        """Closes the connection if the client has marked it for a reconnect."""
        if hasattr(self.node, "disconnect_if_needed"):
            await self.node.disconnect_if_needed(connection)

    async def _release(self, connection: Any) -> None:
        await self._reconnect_if_marked(connection)
        if hasattr(self.node, "release"):
            self.node.release(connection)
        else:
            self.node._free.append(connection)


# ---- aioredis 1.3 ----


class Shared:
    """A connection of aioredis, which concurrent commands share, and the replies of this pipeline."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.replies: deque[asyncio.Future[Any]] = deque()


class AioredisPool:
    """The pool of an aioredis 1.3 client, or its only connection."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def take(self) -> Shared:
        connection = pool = self._client.connection
        if hasattr(pool, "get_connection"):
            connection, _ = pool.get_connection("EVALSHA")
            if connection is None:
                connection = await pool.acquire()
                pool.release(connection)
        if connection.closed:
            raise ConnectionError("the client's connection is closed")
        check_loop(connection._reader)
        return Shared(connection)

    async def give_back(self, shared: Shared, broken: bool) -> None:
        for reply in shared.replies:
            if not reply.cancel() and not reply.cancelled():
                reply.exception()  # read it, so that asyncio does not report it

    def encoded(self, words: Sequence[bytes]) -> Sequence[bytes]:
        return words

    def evalsha(self, request: Request) -> Sequence[bytes]:
        return request.words(b"EVALSHA")

    async def send(self, shared: Shared, commands: Sequence[Sequence[bytes]]) -> None:
        with shared.connection._buffered():
            for words in commands:
                shared.replies.append(shared.connection.execute(*words))

    @contextlib.contextmanager
    def reading(self, shared: Shared) -> Iterator[tuple[Callable[[], Awaitable[Any]], Watch]]:
        with Watch(None) as watch:
            yield shared.replies.popleft, watch
