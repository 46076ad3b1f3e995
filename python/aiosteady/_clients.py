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

    Command = Callable[..., Awaitable[Any]]
    Asker = Callable[["_core.Throttler", int, "str | bytes", int, bool], Coroutine[Any, Any, ThrottleResult]]

NOSCRIPT = 0

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


def meaning(error: Exception) -> int:
    """The error of ours that it stands for. One who cannot know whether the command was sent says Unknown."""
    for name in names_of(error):
        if name in WORDS:
            return refusal(WORDS[name])
        if name in REPLIES:
            return refusal(str(error))
    if isinstance(error, ConnectionRefusedError) or NEVER_SENT.search(str(error)):
        return STEADY_UNAVAILABLE
    return STEADY_UNKNOWN


def printable(error: Exception) -> str:
    return re.sub("[^ -~]", "?", str(error))


async def decide(command: Command, verb: int, arguments: tuple[bytes | str, ...]) -> Any:
    """One EVALSHA. Only NOSCRIPT, which says that nothing was done, sends the script itself."""
    sha1, text = scripts[verb]
    try:
        return await command("EVALSHA", sha1, 1, *arguments)
    except Exception as error:
        if not is_the_clients(error) or meaning(error) != NOSCRIPT:
            raise
    return await command("EVAL", text, 1, *arguments)


def asker(command: Command) -> Asker:
    async def ask(
        throttler: _core.Throttler, verb: int, key: str | bytes, amount: int, patient: bool
    ) -> ThrottleResult:
        cause: Exception | None = None
        code, why = STEADY_UNKNOWN, "the reply is none of our scripts'"
        try:
            reply = await decide(command, verb, throttler._arguments(key, amount, patient))
            result = throttler._decode(verb, amount, reply)
            if result is not None:
                return result
        except Exception as error:
            if not is_the_clients(error):
                raise
            cause, code, why = error, meaning(error) or STEADY_UNAVAILABLE, printable(error)
        try:
            return throttler._failed(code, why, verb, key, amount, patient)
        except Error as error:
            raise error from cause

    return ask


def of_a_cluster(client: Any) -> Command:
    """A client for a cluster sends a command again when its connection is lost, unless it is told which node to ask."""

    async def command(*words: Any) -> Any:
        await client.initialize()
        return await client.execute_command(*words, target_nodes=client.get_node_from_key(words[3]))

    return command


def adapt(client: Any) -> Asker:
    """What asks through this client. TypeError where it cannot be asked."""
    command = getattr(client, "execute_command", None)
    if callable(command):  # redis-py, its cluster client, valkey-py, aioredis 2
        if not hasattr(type(client), "__aenter__"):
            raise TypeError(f"redis is a {type(client).__name__} that blocks; it must be a client for asyncio")
        if hasattr(client, "execute"):
            raise TypeError(f"redis is a {type(client).__name__}, which collects commands; it must be the client itself")
        return asker(of_a_cluster(client) if hasattr(client, "get_node_from_key") else command)
    command = getattr(client, "execute", None)
    if callable(command) and hasattr(client, "evalsha"):  # aioredis 1.3
        return asker(command)
    raise TypeError(f"redis must be a URL, a Store, or an asyncio client for Redis, not {type(client).__name__}")
