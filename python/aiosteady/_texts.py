# SPDX-License-Identifier: MIT
"""Texts for exceptions, warnings, reprs and log lines, without passwords and keys. The filter is in the C library."""
from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from . import _core

if TYPE_CHECKING:
    from ._pipeline import Request


def shown(value: object) -> str:
    """The repr of an argument, with at most 100 characters. If it may be a store URL, user and passwords are hidden."""
    text = value if isinstance(value, str) else repr(value)
    quoted = _core.quote(text)
    quoted = quoted if len(quoted) <= 100 else quoted[:97] + "..."
    return repr(quoted) if isinstance(value, str) else quoted


def of_client(error: Exception, word: Optional[str], request: Request) -> str:
    """The text of an exception of the caller's client, without the keys of the request. `word` is from word_of: the error
    reply or its first word, which clients remove. None: there is no reply, so no server has a part in the text."""
    text = str(error)
    if word is None:
        return request.redact(text, False)
    if word == "NOAUTH" and "username-password" in text:
        word = "WRONGPASS"  # clients raise the same class for both
    return request.redact(text if text.startswith(word) else f"{word} {text}", True)
