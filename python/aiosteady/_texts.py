# SPDX-License-Identifier: MIT
"""What is quoted in an exception, a warning, a repr or a log line: without passwords and keys. The filter is the library's."""
from __future__ import annotations

from typing import Optional, Union

from . import _core



def shown(value: object) -> str:
    """The repr of an argument, cut. Of what may be a store URL not the user, the password or the values of passwords."""
    text = value if isinstance(value, str) else repr(value)
    quoted = _core.quote(text)
    quoted = quoted if len(quoted) <= 100 else quoted[:97] + "..."
    return repr(quoted) if isinstance(value, str) else quoted


def of_client(error: Exception, word: Optional[str], key: Union[str, bytes]) -> str:
    """What a client of the caller's says. `word`: the first one of a server's error reply, which clients take away, or
    all of the reply; None: it is no reply, so that no server has a part in it."""
    text = str(error)
    if word is None:
        return _core.redact(text, key, False)
    if word == "NOAUTH" and "username-password" in text:
        word = "WRONGPASS"  # which clients raise as the same class
    return _core.redact(text if text.startswith(word) else f"{word} {text}", key, True)
