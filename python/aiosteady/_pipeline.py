# SPDX-License-Identifier: MIT
"""Pipelines of decisions over a caller's client.

A Pipeline belongs to one server (in a cluster, to one node) and to one event loop. It sends all requests of one turn of
the loop together, without MULTI, over one connection. Requests that come while it waits for replies are queued for the
next batch. So a burst needs one connection, even if the client's pool is small.

A request is sent once. The only exception is NOSCRIPT, after which it is sent again: after a SCRIPT LOAD, and then as
EVAL. NOSCRIPT means that nothing was charged. If the connection is lost, each request without a reply records whether
it was sent.

A cancelled task withdraws its request. A request that was sent may still be charged; its reply is dropped. If no task
waits any more, the pipeline is abandoned and its connection is closed. If only queued requests are still awaited, that
happens a second later: a silent server must not hold them back, and a slow one may still answer.
"""
from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

from ._core import redact, scripts
from ._errors import NOPERM, NOSCRIPT, error_code, word_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from . import _core
    from ._core import ThrottleResult

MOST = 1000  # requests in one pipeline
UNAWAITED_MOST = 1.0  # seconds for a batch, or for taking a connection, that only other requests wait for
KEPT_MOST = 0.1  # seconds until a busy connection goes back to the client, which may want to close it

EVALSHA, EVAL = b"EVALSHA", b"EVAL"
SHA1 = [sha1.encode() for sha1, _ in scripts]
TEXT = [text.encode() for _, text in scripts]


class Request:
    """A command for the server, and later its reply or error. It is a decision, or the settling of a reservation."""

    __slots__ = ("asking", "done", "error", "packed", "pipeline", "reply", "sent", "verb")

    def __init__(self, verb: int, packed: bytes) -> None:
        self.verb, self.packed = verb, packed
        self.asking = False
        self.reply: Any = None
        self.error: Exception | None = None  # an error reply, or the error for which there is no reply
        self.sent = False  # False: it certainly never reached the server
        self.pipeline: Pipeline | None = None
        self.done: asyncio.Future[None] | None = None

    def words(self, name: bytes) -> tuple[bytes, ...]:
        return (name, (SHA1 if name == EVALSHA else TEXT)[self.verb], *self.arguments())

    def withdraw(self) -> None:
        """Call it when the task that waits is cancelled."""
        self.lost()
        if self.pipeline is not None and self.done is not None and self.done.cancelled():
            self.pipeline.withdraw()

    def arguments(self) -> tuple[bytes, ...]:
        """What follows the script: the number of keys, the keys as stored, the arguments."""
        raise NotImplementedError

    def keys(self) -> tuple[bytes, ...]:
        arguments = self.arguments()
        return arguments[1 : 1 + int(arguments[0])]

    def redact(self, text: str, of_server: bool) -> str:
        """The text without the keys. of_server: it may hold words of a server."""
        raise NotImplementedError

    # One of these three ends the request.

    def lost(self) -> None:
        """No caller waits for the answer any more."""
        raise NotImplementedError

    def decode(self, reply: object) -> ThrottleResult | None:
        """None if our scripts send no such reply. The request has not ended then."""
        raise NotImplementedError

    def apply_policy(self, error: int, why: str) -> ThrottleResult:
        raise NotImplementedError


class PlainRequest(Request):
    """A decision on one bucket, without options."""

    __slots__ = ("amount", "key", "throttler")

    def __init__(self, throttler: _core.Throttler, verb: int, key: str | bytes, amount: int) -> None:
        super().__init__(verb, throttler._encode_evalsha(verb, key, amount))  # raises if the key is not valid
        self.throttler, self.key, self.amount = throttler, key, amount

    def arguments(self) -> tuple[bytes, ...]:
        return (b"1", *self.throttler._script_arguments(self.key, self.amount))

    def redact(self, text: str, of_server: bool) -> str:
        return redact(text, self.key, of_server)

    def lost(self) -> None:
        self.throttler._lost(self.verb)

    def decode(self, reply: object) -> ThrottleResult | None:
        return self.throttler._decode_reply(self.verb, self.amount, reply)

    def apply_policy(self, error: int, why: str) -> ThrottleResult:
        return self.throttler._apply_policy(error, why, self.verb, self.key, self.amount)


class CallRequest(Request):
    """A decision on several buckets, or with options; or the settling of a reservation."""

    __slots__ = ("call",)

    def __init__(self, call: _core.Call) -> None:
        super().__init__(call.verb, call.encode())  # raises if an argument is not valid
        self.call = call

    def arguments(self) -> tuple[bytes, ...]:
        return self.call.words()

    def redact(self, text: str, of_server: bool) -> str:
        return self.call.redact(text, of_server)

    def lost(self) -> None:
        self.call.lost()

    def decode(self, reply: object) -> ThrottleResult | None:
        return self.call.decode(reply)

    def apply_policy(self, error: int, why: str) -> ThrottleResult:
        return self.call.apply_policy(error, why)


class Pipeline:
    def __init__(self, source: Any) -> None:
        self.source = source
        self._queue: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._live = 0  # requests for which a task waits
        self._can_abandon = False
        self._abandoned = False
        self._step: list[Request] = []  # the requests for which a connection is taken, or a batch is exchanged
        self._unawaited: asyncio.TimerHandle | None = None  # ends a step without a live request

    def ask(self, request: Request) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        request.pipeline = self
        request.done = done = loop.create_future()
        self._queue.append(request)
        self._live += 1
        if self._task is None:
            self._start(loop)
        return done

    def withdraw(self) -> None:
        self._live -= 1
        if not self._can_abandon:
            return
        if self._live == 0:
            self._abandon()
        elif self._unawaited is None and not self._is_step_awaited():
            self._unawaited = asyncio.get_running_loop().call_later(UNAWAITED_MOST, self._abandon)

    def _abandon(self) -> None:
        if self._task is not None:
            self._abandoned = True
            self._task.cancel()

    def _is_step_awaited(self) -> bool:
        while self._step:
            done = self._step[-1].done
            if done is not None and not done.done():
                return True
            self._step.pop()
        return False

    @contextlib.contextmanager
    def _abandonable(self, requests: Iterable[Request]) -> Iterator[None]:
        self._step, self._can_abandon = list(requests), True
        try:
            yield
        finally:
            self._step, self._can_abandon = [], False
            if self._unawaited is not None:
                self._unawaited.cancel()
                self._unawaited = None

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not create_task: with an eager task factory it would start before other tasks of this turn add their requests.
        self._task = asyncio.Task(self._run(), loop=loop)

    def _settle(self, request: Request, reply: Any, error: Exception | None, sent: bool) -> None:
        done = request.done
        if done is not None and not done.done():
            self._live -= 1
            request.reply, request.error, request.sent = reply, error, sent
            done.set_result(None)

    def _settle_all(self, requests: Iterable[Request], why: BaseException, sent: bool) -> None:
        error = why if isinstance(why, Exception) else ConnectionError("the pipeline was cancelled")
        for request in requests:
            self._settle(request, None, error, sent)

    async def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError, Exception):  # each request has its error
            await self._run_batches()
        self._task, self._abandoned = None, False
        if self._live > 0:
            self._start(asyncio.get_running_loop())
        else:
            self._queue.clear()

    async def _run_batches(self) -> None:
        try:
            with self._abandonable(self._queue):
                connection = await self.source.take()
        except GeneratorExit:  # the event loop is closed
            raise
        except BaseException as error:
            if not self._abandoned:  # otherwise requests that came in this turn stay for the next run
                self._settle_all(self._queue, error, sent=False)
                self._queue.clear()
            raise
        try:
            broken = await self._exchange_while_busy(connection)
        except GeneratorExit:
            raise
        except BaseException:
            await self.source.give_back(connection, broken=True)
            raise
        await self.source.give_back(connection, broken)

    async def _exchange_while_busy(self, connection: Any) -> bool:
        """Keeps the connection while each turn brings new requests: a task often asks again after its answer."""
        loop = asyncio.get_running_loop()
        kept_until = loop.time() + KEPT_MOST
        while True:
            broken = await self._exchange_batch(connection)
            if broken:
                return True
            await asyncio.sleep(0)
            if not self._queue or loop.time() >= kept_until:
                return False

    def _next_batch(self) -> list[Request]:
        batch: list[Request] = []
        while self._queue and len(batch) < MOST:
            request = self._queue.popleft()
            if request.done is not None and not request.done.done():
                batch.append(request)
        return batch

    async def _exchange_batch(self, connection: Any) -> bool:
        """Returns True if the connection must be closed, although all replies have come."""
        batch = self._next_batch()
        try:
            with self._abandonable(batch):
                return bool(batch) and await self._decide(connection, batch)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._settle_all(batch, error, sent=True)
            raise

    async def _decide(self, connection: Any, batch: list[Request]) -> bool:
        not_loaded, demoted = await self._exchange(connection, [], batch, EVALSHA)
        if not_loaded:
            loads = [(b"SCRIPT", b"LOAD", TEXT[verb]) for verb in sorted({request.verb for request in not_loaded})]
            not_loaded, more = await self._exchange(connection, loads, not_loaded, EVALSHA)
            demoted = demoted or more
        if not_loaded:
            _, more = await self._exchange(connection, [], not_loaded, EVAL)
            demoted = demoted or more
        return demoted

    async def _exchange(
        self, connection: Any, first: Iterable[tuple[bytes, ...]], requests: list[Request], name: bytes
    ) -> tuple[list[Request], bool]:
        """Settles each request by its reply. Returns the requests with NOSCRIPT, and whether a reply was READONLY."""
        source = self.source
        commands = [source.encoded(words) for words in first]
        plan: list[Request | None] = [None] * len(commands)
        for request in requests:
            if request.asking:
                commands.append(source.encoded((b"ASKING",)))
                plan.append(None)
            commands.append(source.encoded(request.words(name)) if name == EVAL else source.evalsha(request))
            plan.append(request)
        await source.send(connection, commands)
        not_loaded: list[Request] = []
        demoted = False
        with source.reading(connection) as (receive, watch):
            for asked in plan:
                try:
                    reply = await receive()
                except Exception as error:
                    word = word_of(error)
                    if word is None:
                        raise
                    if asked is not None:
                        demoted = demoted or word.startswith("READONLY")
                        self._settle_error(asked, error, name, not_loaded)
                else:
                    if asked is not None:
                        self._settle(asked, reply, None, True)
                watch.last_reply = watch.loop.time()
        return not_loaded, demoted

    def _settle_error(self, request: Request, error: Exception, name: bytes, not_loaded: list[Request]) -> None:
        code = error_code(error, sent=True)
        if code == NOSCRIPT and name == EVALSHA:
            request.error = error
            not_loaded.append(request)
        elif code == NOPERM and name == EVAL:  # EVAL is not permitted: report the NOSCRIPT
            self._settle(request, None, request.error, True)
        else:
            self._settle(request, None, error, True)
