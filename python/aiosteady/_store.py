# SPDX-License-Identifier: MIT
"""Stores that throttlers can share."""
from __future__ import annotations

from types import TracebackType
from typing import Literal, Optional

from . import _core


class Store(_core.Store):
    """A URL, and a connection for each event loop that uses it. Any number of throttlers may share one.

    `timeout` is what a decision may take, in seconds, all included (0.1 unless given); `max_in_flight` how many may wait
    for an answer (65536); `buckets` how many live ones an embedded store has room for; `engine` what decides on a
    server: the commands of the module steady.so ("module"), the Lua scripts ("script"), or the module where it is
    loaded ("auto"). Embedded stores may be used from any thread; a server's from any event loop, each with a connection
    of its own.
    """

    __slots__ = ("__weakref__",)

    def __init__(
        self,
        url: str,
        *,
        timeout: Optional[float] = None,
        max_in_flight: int = 0,
        buckets: int = 0,
        engine: Literal["auto", "script", "module"] = "auto",
    ) -> None:
        super().__init__()  # __new__ has read the arguments

    def close(self) -> None:
        """Ends what is in flight as Cancelled, and lets go of everything; what runs in other threads, in theirs."""
        super().close()

    def stats(self) -> dict[str, int]:
        """Counters since it was opened, over all loops, those that are gone too."""
        return super().stats()

    async def aclose(self) -> None:
        """As close()."""
        self.close()

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()


def connect(
    url: str,
    *,
    timeout: Optional[float] = None,
    max_in_flight: int = 0,
    buckets: int = 0,
    engine: Literal["auto", "script", "module"] = "auto",
) -> Store:
    """A Store for a URL: "redis://[user:pass@]host[:port][/db]", "unix:/path", "memory:" or "file:/path".

    Nothing is sent before the first decision, but the files that the URL names for TLS are looked at.
    """
    return Store(url, timeout=timeout, max_in_flight=max_in_flight, buckets=buckets, engine=engine)
