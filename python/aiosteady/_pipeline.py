# SPDX-License-Identifier: MIT
"""Pipelines of decisions over a caller's client.

A Pipeline belongs to one server (a node, in a cluster) and to one event loop. It sends all questions of one turn of the
loop together, without MULTI, over one connection. Questions that come while it waits for replies queue, and form the
next pipeline. So a burst needs one connection, however small the client's pool is.

A question is sent once. Only NOSCRIPT, which says that nothing was done, sends it again: behind a SCRIPT LOAD, and then as
EVAL. When the connection is lost, each question without a reply is told whether it was sent.

A task that is cancelled withdraws its question only. A question that was sent may still be charged; its reply is dropped.
When no question is left that a task waits for, the pipeline is abandoned, and its connection closed.
"""
from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

from ._core import scripts
from ._errors import NOPERM, NOSCRIPT, meaning, word_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from . import _core

MOST = 1000  # questions in one pipeline
KEPT_MOST = 0.1  # seconds until a busy connection goes back to the client, which may have plans for it

EVALSHA, EVAL = b"EVALSHA", b"EVAL"
SHA1 = [sha1.encode() for sha1, _ in scripts]
TEXT = [text.encode() for _, text in scripts]


class Question:
    """One decision: what is asked, and then the answer."""

    __slots__ = (
        "amount", "asking", "done", "error", "key", "packed", "patient", "pipeline", "reply", "sent", "throttler", "verb"
    )  # fmt: skip

    def __init__(self, throttler: _core.Throttler, verb: int, key: str | bytes, amount: int, patient: bool) -> None:
        self.throttler, self.verb, self.key, self.amount, self.patient = throttler, verb, key, amount, patient
        self.packed = throttler._packed(verb, key, amount, patient)  # or an exception about the key
        self.asking = False
        self.reply: Any = None
        self.error: Exception | None = None  # an error reply, or the reason why there is no reply
        self.sent = False  # False: certainly not
        self.pipeline: Pipeline | None = None
        self.done: asyncio.Future[None] | None = None

    def words(self, name: bytes) -> tuple[bytes, ...]:
        key, *limit = self.throttler._arguments(self.key, self.amount, self.patient)
        script = (SHA1 if name == EVALSHA else TEXT)[self.verb]
        return (name, script, b"1", key, *[argument.encode() for argument in limit])

    def withdraw(self) -> None:
        """The task that waited for it was cancelled."""
        if self.pipeline is not None and self.done is not None and self.done.cancelled():
            self.pipeline.withdraw()


class Pipeline:
    def __init__(self, source: Any) -> None:
        self.source = source
        self._queue: deque[Question] = deque()
        self._task: asyncio.Task[None] | None = None
        self._live = 0  # questions that a task waits for
        self._may_be_abandoned = False
        self._abandoned = False

    def ask(self, question: Question) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        question.pipeline = self
        question.done = done = loop.create_future()
        self._queue.append(question)
        self._live += 1
        if self._task is None:
            self._start(loop)
        return done

    def withdraw(self) -> None:
        self._live -= 1
        if self._live == 0 and self._may_be_abandoned and self._task is not None:
            self._abandoned = True
            self._task.cancel()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        # A Task, and not create_task: an eager one would start before the others of this turn have asked.
        self._task = asyncio.Task(self._run(), loop=loop)

    def _settle(self, question: Question, reply: Any, error: Exception | None, sent: bool) -> None:
        done = question.done
        if done is not None and not done.done():
            self._live -= 1
            question.reply, question.error, question.sent = reply, error, sent
            done.set_result(None)

    def _settle_all(self, questions: Iterable[Question], why: BaseException, sent: bool) -> None:
        error = why if isinstance(why, Exception) else ConnectionError("the pipeline was cancelled")
        for question in questions:
            self._settle(question, None, error, sent)

    async def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError, Exception):  # the questions have been told
            await self._carry()
        self._task, self._abandoned = None, False
        if self._live > 0:
            self._start(asyncio.get_running_loop())
        else:
            self._queue.clear()

    async def _carry(self) -> None:
        self._may_be_abandoned = True
        try:
            connection = await self.source.take()
        except GeneratorExit:  # the event loop is gone
            raise
        except BaseException as error:
            if not self._abandoned:  # if it is, questions that came in the same turn are for the next pipeline
                self._settle_all(self._queue, error, sent=False)
                self._queue.clear()
            raise
        finally:
            self._may_be_abandoned = False
        try:
            broken = await self._converse_while_busy(connection)
        except GeneratorExit:
            raise
        except BaseException:
            await self.source.give_back(connection, broken=True)
            raise
        await self.source.give_back(connection, broken)

    async def _converse_while_busy(self, connection: Any) -> bool:
        """The tasks that were answered ask again in the next turn: the connection is kept for it."""
        loop = asyncio.get_running_loop()
        kept_until = loop.time() + KEPT_MOST
        while True:
            broken = await self._converse(connection)
            if broken:
                return True
            await asyncio.sleep(0)
            if not self._queue or loop.time() >= kept_until:
                return False

    def _next_batch(self) -> list[Question]:
        batch: list[Question] = []
        while self._queue and len(batch) < MOST:
            question = self._queue.popleft()
            if question.done is not None and not question.done.done():
                batch.append(question)
        return batch

    async def _converse(self, connection: Any) -> bool:
        """True: the connection must be closed, although all replies are there."""
        batch = self._next_batch()
        self._may_be_abandoned = True
        try:
            return bool(batch) and await self._decide(connection, batch)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._settle_all(batch, error, sent=True)
            raise
        finally:
            self._may_be_abandoned = False

    async def _decide(self, connection: Any, batch: list[Question]) -> bool:
        scriptless, demoted = await self._exchange(connection, [], batch, EVALSHA)
        if scriptless:
            loads = [(b"SCRIPT", b"LOAD", TEXT[verb]) for verb in sorted({question.verb for question in scriptless})]
            scriptless, more = await self._exchange(connection, loads, scriptless, EVALSHA)
            demoted = demoted or more
        if scriptless:
            _, more = await self._exchange(connection, [], scriptless, EVAL)
            demoted = demoted or more
        return demoted

    async def _exchange(
        self, connection: Any, first: Iterable[tuple[bytes, ...]], questions: list[Question], name: bytes
    ) -> tuple[list[Question], bool]:
        """Settles each question by its reply. Returns the questions without a script, and whether a reply was READONLY."""
        source = self.source
        commands = [source.encoded(words) for words in first]
        plan: list[Question | None] = [None] * len(commands)
        for question in questions:
            if question.asking:
                commands.append(source.encoded((b"ASKING",)))
                plan.append(None)
            commands.append(source.encoded(question.words(name)) if name == EVAL else source.evalsha(question))
            plan.append(question)
        await source.send(connection, commands)
        scriptless: list[Question] = []
        demoted = False
        with source.reading(connection) as (receive, watch):
            for asked in plan:
                try:
                    reply = await receive()
                except Exception as error:
                    refusal = word_of(error)
                    if refusal is None:
                        raise
                    if asked is not None:
                        demoted = demoted or refusal.startswith("READONLY")
                        self._refuse(asked, error, name, scriptless)
                else:
                    if asked is not None:
                        self._settle(asked, reply, None, True)
                watch.heard = watch.loop.time()
        return scriptless, demoted

    def _refuse(self, question: Question, error: Exception, name: bytes, scriptless: list[Question]) -> None:
        code = meaning(error, sent=True)
        if code == NOSCRIPT and name == EVALSHA:
            question.error = error
            scriptless.append(question)
        elif code == NOPERM and name == EVAL:  # a client with more rights has to load the scripts
            self._settle(question, None, question.error, True)
        else:
            self._settle(question, None, error, True)
