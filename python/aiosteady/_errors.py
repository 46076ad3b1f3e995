# SPDX-License-Identifier: MIT
"""The error of the library for an exception of a caller's client."""
from __future__ import annotations

import errno

from ._core import STEADY_OVERLOADED, STEADY_UNAVAILABLE, STEADY_UNKNOWN, reply_error_code

# redis-py and valkey-py remove the first word of these error replies. The class of the exception tells which it was.
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

SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

NOSCRIPT = 0
NOPERM = reply_error_code("NOPERM")


def names_of(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def word_of(error: BaseException) -> str | None:
    """The error reply of the server, or at least its first word. None if the exception stands for no reply."""
    for name in names_of(error):
        if name in WORDS:
            return WORDS[name]
        if name in REPLIES:
            return str(error)
    return None


def is_exhausted(error: BaseException) -> bool:
    """Whether all connections of the pool are in use. If so, nothing was sent."""
    return type(error).__name__ == "MaxConnectionsError" or "Too many connections" in str(error)


def is_local_shortage(error: BaseException) -> bool:
    """Whether this process lacks connections, descriptors or memory. A flood of requests can cause that."""
    links = 0
    cause: BaseException | None = error
    while cause is not None and links < 16:
        if is_exhausted(cause) or isinstance(cause, MemoryError):
            return True
        if isinstance(cause, OSError) and cause.errno in SHORTAGES:
            return True
        cause, links = cause.__cause__ or cause.__context__, links + 1
    return False


def error_code(error: Exception, sent: bool) -> int:
    """The error code of the library; 0 for NOSCRIPT. `sent`: the request may have reached the server."""
    word = word_of(error)
    if word is not None:
        return reply_error_code(word)
    if sent:
        return STEADY_UNKNOWN
    return STEADY_OVERLOADED if is_local_shortage(error) else STEADY_UNAVAILABLE
