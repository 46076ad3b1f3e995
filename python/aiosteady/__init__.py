# SPDX-License-Identifier: MIT
"""Rate limiting for asyncio and threads: leaky buckets in Redis or Valkey, or in process, on a C core.

    throttler = aiosteady.Throttler("redis://localhost", max_capacity=10, drop_recharge=5.0)
    result = await throttler.consume(f"user:{user_id}")
"""
from ._core import OPENSSL_VERSION as OPENSSL_VERSION
from ._core import (
    BadFile,
    Cancelled,
    Closed,
    Error,
    NotABucket,
    Overloaded,
    Refused,
    ServerError,
    SystemRefused,
    Unavailable,
    Unknown,
    Unsupported,
    core_version,
)
from ._parts import Part, consume_all, peek_all
from ._rates import Rate
from ._reserve import Denied, Reservation
from ._stats import LimitStats, ThrottlerStats
from ._store import Store, connect
from .leakybucket import Limit, Throttler, ThrottleResult

__all__ = [
    "BadFile",
    "Cancelled",
    "Closed",
    "Denied",
    "Error",
    "Limit",
    "LimitStats",
    "NotABucket",
    "Overloaded",
    "Part",
    "Rate",
    "Refused",
    "Reservation",
    "ServerError",
    "Store",
    "SystemRefused",
    "ThrottleResult",
    "Throttler",
    "ThrottlerStats",
    "Unavailable",
    "Unknown",
    "Unsupported",
    "connect",
    "consume_all",
    "peek_all",
]

__version__ = core_version
