# SPDX-License-Identifier: MIT
"""Clients of others, recognised by what they can do: redis-py, valkey-py and aioredis, over which the same scripts go."""
from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from ._core import STEADY_UNAVAILABLE, STEADY_UNKNOWN, Error, ThrottleResult, refusal, scripts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from . import _core

    Command = Callable[..., Awaitable[Any]]  # of the key that it is about, and its words
    Asker = Callable[["_core.Throttler", int, "str | bytes", int, bool], Coroutine[Any, Any, ThrottleResult]]

NOSCRIPT = 0
NOPERM = refusal("NOPERM")

# redis-py and valkey-py take the first word of these error replies away, and say it by the exception's class.
WORDS = {
    "NoScriptError": "NOSCRIPT",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "OutOfMemoryError": "OOM",
    "AuthenticationError": "NOAUTH",
    "AuthorizationError": "NOPERM",
    "NoPermissionError": "NOPERM",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "TryAgainError": "TRYAGAIN",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
}
REPLIES = {"ResponseError", "ReplyError"}
FAMILIES = {"RedisError", "ValkeyError"}
NEVER_SENT = re.compile(
    "connecting to|cannot be connected|[Tt]oo many connections|No connection available|not covered"
)


def names_of(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def is_the_clients(error: Exception) -> bool:
    """What a client raises when there is no answer; anything else is a mistake in a program, and is let through."""
    return isinstance(error, (OSError, EOFError, asyncio.TimeoutError)) or not FAMILIES.isdisjoint(names_of(error))


def sends_again(client: Any) -> bool:
    """Whether the client itself sends a command again that failed: its last failure says nothing of the ones before.
    A connection knows, which is made for that, and connects to nothing."""
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        return False
    try:
        retry = getattr(pool.connection_class(**pool.connection_kwargs), "retry", None)
        return retry is not None and retry._retries != 0
    except Exception:
        return True  # for all that is known


def meaning(error: Exception, client: Any = None) -> int:
    """The error of ours that it stands for. One who cannot know whether the command was sent says Unknown."""
    for name in names_of(error):
        if name in WORDS:
            return refusal(WORDS[name])
        if name in REPLIES:
            return refusal(str(error))
    if isinstance(error, ConnectionRefusedError) or NEVER_SENT.search(str(error)):
        return STEADY_UNKNOWN if sends_again(client) else STEADY_UNAVAILABLE
    return STEADY_UNKNOWN


def printable(error: Exception) -> str:
    return re.sub("[^ -~]", "?", str(error))


async def load(command: Command, key: bytes | str, text: str) -> None:
    """Whether that was of use shows with the decision."""
    try:
        await command(key, "SCRIPT", "LOAD", text)
    except Exception as error:
        if not is_the_clients(error):
            raise


async def decide(command: Command, verb: int, key: bytes | str, *arguments: bytes | str) -> Any:
    """One EVALSHA. Only NOSCRIPT, which says that nothing was done, sends it again, behind a SCRIPT LOAD, and then as EVAL."""
    sha1, text = scripts[verb]
    for first in (True, False):
        try:
            return await command(key, "EVALSHA", sha1, 1, key, *arguments)
        except Exception as error:
            if not is_the_clients(error) or meaning(error) != NOSCRIPT:
                raise
            lost = error
        if first:
            await load(command, key, text)
    try:
        return await command(key, "EVAL", text, 1, key, *arguments)
    except Exception as error:
        if is_the_clients(error) and meaning(error) == NOPERM:
            raise lost from error  # who may not load scripts has to wait until somebody else has
        raise


def asker(client: Any, command: Command) -> Asker:
    async def ask(
        throttler: _core.Throttler, verb: int, key: str | bytes, amount: int, patient: bool
    ) -> ThrottleResult:
        cause: Exception | None = None
        code, why = STEADY_UNKNOWN, "the reply is none of our scripts'"
        try:
            reply = await decide(command, verb, *throttler._arguments(key, amount, patient))
            result = throttler._decode(verb, amount, reply)
            if result is not None:
                return result
        except Exception as error:
            if not is_the_clients(error):
                raise
            cause, code, why = error, meaning(error, client) or STEADY_UNAVAILABLE, printable(error)
        try:
            return throttler._failed(code, why, verb, key, amount, patient)
        except Error as error:
            raise error from cause

    return ask


def of_one_server(execute: Command) -> Command:
    def command(key: bytes | str, *words: Any) -> Awaitable[Any]:
        return execute(*words)

    return command


def of_a_cluster(client: Any) -> Command:
    """A client for a cluster sends a command again when its connection is lost, unless it is told which node to ask."""

    async def command(key: bytes | str, *words: Any) -> Any:
        await client.initialize()
        return await client.execute_command(*words, target_nodes=client.get_node_from_key(key))

    return command


def adapt(client: Any) -> Asker:
    """What asks through this client. TypeError where it cannot be asked."""
    command = getattr(client, "execute_command", None)
    if callable(command):  # redis-py, its cluster client, valkey-py, aioredis 2
        if not hasattr(type(client), "__aenter__"):
            raise TypeError(f"redis is a {type(client).__name__} that blocks; it must be a client for asyncio")
        if hasattr(client, "execute"):
            raise TypeError(f"redis is a {type(client).__name__}, which collects commands; it must be the client itself")
        return asker(client, of_a_cluster(client) if hasattr(client, "get_node_from_key") else of_one_server(command))
    command = getattr(client, "execute", None)
    if callable(command) and hasattr(client, "evalsha"):  # aioredis 1.3
        return asker(client, of_one_server(command))
    raise TypeError(f"redis must be a URL, a Store, or an asyncio client for Redis, not {type(client).__name__}")
