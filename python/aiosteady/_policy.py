# SPDX-License-Identifier: MIT
"""What the ASGI and the WSGI middleware share: policies and their checks, the keys of buckets, decisions, log lines."""
from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional, Union

from . import _http
from ._core import ThrottleResult

KEY_MOST = 1024  # bytes
LOG_EVERY = 60.0  # seconds
SECRET_MOST = 64  # bytes, of BLAKE2b

logger = logging.getLogger("aiosteady")


def kind_of(kind: type) -> str:
    """The name of a type for a message: "int", or "aiosteady.blocking.Throttler"."""
    module = kind.__module__.replace("aiosteady.leakybucket", "aiosteady")
    return kind.__name__ if module == "builtins" else f"{module}.{kind.__name__}"


class BadKey(Exception):
    """The key of a request cannot be the key of a bucket. The text gives the reason, without the key."""


@dataclass(frozen=True)
class Decision:
    """The decision on a request.

    Attributes:
      allowed: all policies allow the request.
      status: the status of our response; 0 if the application responds.
      denied_by: the names of the policies that deny it. A limit of several has the name POLICY:LIMIT.
      retry_after: the seconds until all policies allow it. None: it is allowed, or the wait is not known.
      results: the result by the name of the policy. A policy whose key is None has none.
      keys: the key by the name of the policy, as it is in the store. It is a digest if the policy has `hash`.
      dry_run: the request is denied only by policies in a dry run, so the application responds.
    """

    allowed: bool
    status: int = 0
    denied_by: tuple[str, ...] = ()
    retry_after: Optional[float] = None
    results: dict[str, ThrottleResult] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    dry_run: bool = False


# ---- Policies ----


@dataclass(frozen=True)
class BasePolicy:
    """The fields of a policy. The policies of ASGI and of WSGI declare their types and say what they mean."""

    throttler: Any
    key: Any
    cost: Any = 1
    name: str = "default"
    hash: Union[bool, str, bytes] = field(default=False, repr=False)
    quotas: tuple[_http.Quota, ...] = field(init=False, repr=False, compare=False)

    _throttler_type: ClassVar[type]
    _request: ClassVar[str]  # what the functions get

    def __post_init__(self) -> None:
        throttler = self.throttler
        if not isinstance(throttler, self._throttler_type):
            raise TypeError(f"throttler must be {kind_of(self._throttler_type)}, not {kind_of(type(throttler))}")
        if not callable(self.key):
            raise TypeError(f"key must be a function of {self._request}, not {type(self.key).__name__}")
        object.__setattr__(self, "quotas", _http.quotas_of(self.name, self.throttler))
        if not callable(self.cost) and (too_small := self.too_small(check_cost(self.cost))):
            raise ValueError(f"cost is {self.cost}, over the capacity of {too_small[0].capacity}; it would never fit")
        check_secret(self.hash)

    def too_small(self, cost: int) -> list[_http.Quota]:
        """The quotas that never have room for this cost."""
        return [] if self.throttler._clamp else [quota for quota in self.quotas if cost > quota.capacity]


def check_cost(cost: int) -> int:
    if not isinstance(cost, int):
        raise TypeError(f"cost must be an int, not {type(cost).__name__}")
    if cost < 0:
        raise ValueError(f"cost is {cost}; it must not be negative")
    return cost


def check_secret(secret: bool | str | bytes) -> None:
    if not isinstance(secret, (bool, str, bytes)):
        raise TypeError(f"hash must be True, False or a secret as str or bytes, not {type(secret).__name__}")
    if not isinstance(secret, bool) and not secret:
        raise ValueError("hash is an empty secret; use True for a hash without a secret")


def check_names(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"each policy needs its own name; the names are {', '.join(map(repr, names))}")
    for name in names:
        for other in names:
            if other.startswith(name + ":"):
                raise ValueError(
                    f"{name!r} with a colon is the beginning of {other!r}, so their keys could name the same bucket; "
                    "rename one"
                )


def check_buckets(policies: Iterable[BasePolicy]) -> None:
    """The buckets of policies with one store must not be the same, whatever the keys are."""
    policies = list(policies)
    for policy in policies:
        head = f"{policy.throttler.prefix}{policy.name}:"
        for other in policies:
            whole = f"{other.throttler.prefix}{other.name}:"
            if other is not policy and other.throttler._target is policy.throttler._target and whole.startswith(head):
                raise ValueError(
                    f"{head!r}, prefix and name of a policy, is the beginning of {whole!r}, so their keys could name the "
                    "same bucket; change a prefix or a name"
                )


# ---- Keys ----


def hashed(key: bytes, secret: bool | str | bytes) -> bytes:
    """A secret over 64 bytes is hashed first, because BLAKE2b takes at most 64."""
    secret = b"" if isinstance(secret, bool) else secret.encode() if isinstance(secret, str) else secret
    if len(secret) > SECRET_MOST:
        secret = hashlib.blake2b(secret).digest()
    return hashlib.blake2b(key, digest_size=32, key=secret, person=b"aiosteady").hexdigest().encode()


def whole_key(policy: BasePolicy, key: str | bytes) -> bytes:
    """The key with the name of the policy before it."""
    if not isinstance(key, (str, bytes)):
        raise TypeError(f"the key of policy {policy.name!r} must be str, bytes or None, not {type(key).__name__}")
    try:
        own = key.encode() if isinstance(key, str) else key
    except UnicodeEncodeError:
        raise BadKey("the key is not UTF-8") from None
    if not own:
        raise BadKey("the key is empty")
    head = policy.name.encode() + b":"
    most = KEY_MOST - len(policy.throttler.prefix.encode()) - len(head)
    if policy.hash is not False:
        own = hashed(own, policy.hash)
    if len(own) > most:
        raise BadKey(f"the key is {len(own)} bytes long; it must be at most {most}, or use hash=")
    return head + own


# ---- Log lines ----


class Warnings:
    """Logs at most one line a minute of each kind."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def __call__(self, kind: str, text: str, *arguments: object) -> None:
        now = time.monotonic()
        if now >= self._next.get(kind, -math.inf):
            self._next[kind] = now + LOG_EVERY
            logger.warning(text, *arguments)
