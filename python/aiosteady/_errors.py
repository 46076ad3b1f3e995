# SPDX-License-Identifier: MIT
"""What the exceptions of a caller's client mean for a decision."""
from __future__ import annotations

from ._core import STEADY_UNAVAILABLE, STEADY_UNKNOWN, refusal

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


def meaning(error: Exception, sent: bool) -> int:
    """Our number of it; NOSCRIPT has 0. `sent`: the question may have reached the server."""
    word = word_of(error)
    if word is not None:
        return refusal(word)
    return STEADY_UNKNOWN if sent else STEADY_UNAVAILABLE
