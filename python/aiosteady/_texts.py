# SPDX-License-Identifier: MIT
"""Texts for exceptions, warnings, reprs and log lines, without passwords and keys. The filter is in the C library."""
from __future__ import annotations

from typing import Optional, Union

from . import _core


def shown(value: object) -> str:
    """The repr of an argument, with at most 100 characters. If it may be a store URL, user and passwords are hidden."""
    text = value if isinstance(value, str) else repr(value)
    quoted = _core.quote(text)
    quoted = quoted if len(quoted) <= 100 else quoted[:97] + "..."
    return repr(quoted) if isinstance(value, str) else quoted


def of_client(error: Exception, word: Optional[str], key: Union[str, bytes]) -> str:
    """The text of an exception of the caller's client. `word` is from word_of: the error reply or its first word, which
    clients remove. None: there is no reply, so no server has a part in the text."""
    text = str(error)
    if word is None:
        return _core.redact(text, key, False)
    if word == "NOAUTH" and "username-password" in text:
        word = "WRONGPASS"  # clients raise the same class for both
    return _core.redact(text if text.startswith(word) else f"{word} {text}", key, True)
