# SPDX-License-Identifier: MIT
"""Texts for exceptions, warnings, reprs and log lines, without passwords and keys. The filter is in the C library."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from . import _core

if TYPE_CHECKING:
    from ._pipeline import Request


def shown(value: object) -> str:
    """The repr of an argument, with at most 100 characters. If it may be a store URL, user and passwords are hidden."""
    text = value if isinstance(value, str) else repr(value)
    quoted = _core.quote(text)
    quoted = quoted if len(quoted) <= 100 else quoted[:97] + "..."
    return repr(quoted) if isinstance(value, str) else quoted


def _but_defaults(**given: tuple[object, object]) -> str:
    """Arguments as a call has them, each with its default. Those that are their default are left out."""
    return "".join(f", {name}={value!r}" for name, (value, default) in given.items() if value != default)


def throttler_text(
    throttler: Any, prefix: str, on_error: str, local_share: int, max_ahead: Optional[float], clamp: bool, is_one: bool
) -> str:
    """The repr of a Throttler: its limits, and each option that is not the default."""
    redis = throttler.redis
    if isinstance(redis, str):
        where = repr(_core.quote(redis))
    else:
        where = repr(redis) if isinstance(redis, _core.Store) else client_text(redis)
    if is_one:
        limits = (f"max_capacity={throttler.max_capacity!r}, drop_recharge={throttler.drop_recharge!r}, "
                  f"block_duration={throttler.block_duration!r}{_but_defaults(drops=(throttler.drops, 1))}")
    else:
        limits = f"limits={throttler.limits!r}"
    options = _but_defaults(prefix=(prefix, ""), on_error=(on_error, "report"), local_share=(local_share, 1),
                            max_ahead=(max_ahead, None), clamp=(bool(clamp), False))
    return f"Throttler(redis={where}, {limits}{options})"


def store_text(
    store: _core.Store, connections: int = 0, timeout: Optional[float] = None, max_in_flight: int = 0, buckets: int = 0,
    engine: str = "auto", connect_timeout: Optional[float] = None, client_name: Optional[str] = None,
    deny_memory: Optional[float] = None, lease_age: Optional[float] = None
) -> str:
    """The repr of a Store: its URL without user and passwords, each option that is not the default, and its state."""
    name = None if client_name is None else _core.quote(client_name)
    options = _but_defaults(connections=(connections, 0), timeout=(timeout, None), max_in_flight=(max_in_flight, 0),
                            buckets=(buckets, 0), engine=(engine, "auto"), connect_timeout=(connect_timeout, None),
                            client_name=(name, None), deny_memory=(deny_memory, None), lease_age=(lease_age, None))
    return f"<Store {store._shown_url!r}{options}, {'closed' if store.closed else store.state}>"


def client_text(client: object) -> str:
    """A client of the caller. Its own repr may show its password, as that of redis-py 6 does."""
    pool = getattr(client, "connection_pool", None)
    service, kwargs = getattr(pool, "service_name", None), getattr(pool, "connection_kwargs", None)
    place = ""
    if isinstance(service, str):
        place = f" service {shown(service)}"
    elif isinstance(kwargs, dict) and ("path" in kwargs or "host" in kwargs):
        port = "" if "path" in kwargs else f", port {kwargs.get('port', 6379)}"
        place = f" {shown(kwargs.get('path') or kwargs.get('host'))}{port}, db {kwargs.get('db') or 0}"
    return f"<{type(client).__module__}.{type(client).__qualname__}{place}>"


def of_client(error: Exception, word: Optional[str], request: Request) -> str:
    """The text of an exception of the caller's client, without the keys of the request. `word` is from word_of: the error
    reply or its first word, which clients remove. None: there is no reply, so no server has a part in the text."""
    text = str(error)
    if word is None:
        return request.redact(text, False)
    if word == "NOAUTH" and "username-password" in text:
        word = "WRONGPASS"  # clients raise the same class for both
    return request.redact(text if text.startswith(word) else f"{word} {text}", True)
