# SPDX-License-Identifier: MIT
"""What the exceptions of a caller's client mean for a decision."""
from __future__ import annotations

import errno

from ._core import STEADY_OVERLOADED, STEADY_UNAVAILABLE, STEADY_UNKNOWN, refusal

# redis-py and valkey-py remove the first word of these error replies; the class of the exception stands for it.
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
NOPERM = refusal("NOPERM")


def names_of(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def word_of(error: BaseException) -> str | None:
    """The error reply that it stands for, or its first word at least. None: it stands for no reply."""
    for name in names_of(error):
        if name in WORDS:
            return WORDS[name]
        if name in REPLIES:
            return str(error)
    return None


def is_exhausted(error: BaseException) -> bool:
    """Whether all connections of a pool are in use. Nothing was sent then."""
    return type(error).__name__ == "MaxConnectionsError" or "Too many connections" in str(error)


def is_our_shortage(error: BaseException) -> bool:
    """Whether this program is short of connections, descriptors or memory, which a client of it can cause."""
    links = 0
    cause: BaseException | None = error
    while cause is not None and links < 16:
        if is_exhausted(cause) or isinstance(cause, MemoryError):
            return True
        if isinstance(cause, OSError) and cause.errno in SHORTAGES:
            return True
        cause, links = cause.__cause__ or cause.__context__, links + 1
    return False


def meaning(error: Exception, sent: bool) -> int:
    """Our number of it; NOSCRIPT has 0. `sent`: the question may have reached the server."""
    word = word_of(error)
    if word is not None:
        return refusal(word)
    if sent:
        return STEADY_UNKNOWN
    return STEADY_OVERLOADED if is_our_shortage(error) else STEADY_UNAVAILABLE
