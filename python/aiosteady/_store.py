# SPDX-License-Identifier: MIT
"""Store: the place where buckets are kept."""
from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Optional

from . import _core
from ._texts import store_text

if TYPE_CHECKING:
    from .testing import Clock
else:
    Clock = _core.Clock  # for typing.get_type_hints


class Store(_core.Store):
    """The place where buckets are kept. Throttlers can share a Store.

    A store on a server can be used from any event loop; each loop gets its own connection. An embedded store can be
    used from any thread.

    Arguments:
      url: see connect().
      timeout: the seconds that a decision may take at most, retries included. The default is 0.1.
      max_in_flight: the decisions that may wait for an answer at once, per event loop. The default is 65536.
      buckets: the live buckets that an embedded store has room for. The default is 2**20 for memory:, 2**16 for file:.
      engine: the code that decides on a server. "module" uses the commands of steady.so, "script" uses Lua scripts.
        "auto" uses the module if the server has it, and scripts otherwise.
      connect_timeout: the seconds for an address of the server to accept a connection, again for TLS and again for the
        handshake. The default is four times the timeout, and at least 0.25. The option of the URL wins.
      client_name: the name that CLIENT LIST of the server shows. None sends no name. The option of the URL wins.
      deny_memory: the seconds for which this process may deny a call from what it remembers of an earlier answer of a
        server; at most 60. The default is 1. 0 asks the server for each decision. The option of the URL wins.
      lease_age: the seconds for which this store may spend drops of a hot key that it took before, without a request:
        0.001 to 60, such as 0.1. None or 0: each decision takes its own drops. The option of the URL wins.
      clock: for tests: an aiosteady.testing.Clock, which sets the time of a memory: store. None: the clock of the system.
    """

    __slots__ = ("__weakref__", "_given")

    def __init__(
        self,
        url: str,
        *,
        timeout: Optional[float] = None,
        max_in_flight: int = 0,
        buckets: int = 0,
        engine: Literal["auto", "script", "module"] = "auto",
        connect_timeout: Optional[float] = None,
        client_name: Optional[str] = None,
        deny_memory: Optional[float] = None,
        lease_age: Optional[float] = None,
        clock: Optional[Clock] = None,
    ) -> None:
        super().__init__()  # __new__ of the base has read the arguments
        self._given = (0, timeout, max_in_flight, buckets, engine, connect_timeout, client_name,
                       deny_memory, lease_age)

    def close(self) -> None:
        """Closes the store and its connections. Decisions in flight end as cancelled.

        The connection of an event loop in another thread is closed in that thread.
        """
        super().close()

    def stats(self) -> dict[str, int]:
        """Returns the counters of this process since the Store was made, over all event loops, closed ones too."""
        return super().stats()

    def __repr__(self) -> str:
        return store_text(self, *getattr(self, "_given", ()))  # a subclass may not call __init__

    async def aclose(self) -> None:
        """Does the same as close()."""
        self.close()

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()


def connect(
    url: str,
    *,
    timeout: Optional[float] = None,
    max_in_flight: int = 0,
    buckets: int = 0,
    engine: Literal["auto", "script", "module"] = "auto",
    connect_timeout: Optional[float] = None,
    client_name: Optional[str] = None,
    deny_memory: Optional[float] = None,
    lease_age: Optional[float] = None,
    clock: Optional[Clock] = None,
) -> Store:
    """Returns a Store for a URL: "redis://[user:pass@]host[:port][/db]", "unix:/path", "memory:" or "file:/path".

    It checks the arguments, and the TLS files that the URL names. It sends nothing before the first decision. The other
    arguments are those of Store.
    """
    return Store(
        url,
        timeout=timeout,
        max_in_flight=max_in_flight,
        buckets=buckets,
        engine=engine,
        connect_timeout=connect_timeout,
        client_name=client_name,
        deny_memory=deny_memory,
        lease_age=lease_age,
        clock=clock,
    )
