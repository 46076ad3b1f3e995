# SPDX-License-Identifier: MIT
"""What the ASGI and the WSGI middleware share: policies and their checks, the keys of buckets, decisions, log lines."""
from __future__ import annotations

import hashlib
import inspect
import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional, Union
from weakref import WeakKeyDictionary

from . import _core, _http
from ._core import ThrottleResult
from ._texts import shown

COUNTERS = 32  # keys in the log of denials
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

    def __init__(self, text: str, policies: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.policies = policies


@dataclass(frozen=True)
class Decision:
    """The decision on a request.

    Attributes:
      allowed: all policies allow the request, also those in a dry run.
      status: the status of the middleware's response; 0 if the application responds.
      denied_by: the names of the policies that deny it. A limit of several has the name POLICY:LIMIT.
      retry_after: the seconds until all policies allow it. None: it is allowed, or the wait is not known.
      results: the result by the name of the policy. A policy whose key is None has none, nor has one that was not asked
        because another one denied from memory.
      keys: the key by the name of the policy, as it is in the store. It is a digest if the policy has `hash`.
      dry_run: only policies in a dry run deny the request, so the application responds.
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
    settle: Any = None
    body_bytes: int = 0
    dry_run: bool = False
    quotas: tuple[_http.Quota, ...] = field(init=False, repr=False, compare=False)  # empty if throttler is a function
    _known: WeakKeyDictionary[_core.Throttler, tuple[_http.Quota, ...]] = field(init=False, repr=False, compare=False)

    _throttler_type: ClassVar[Any]
    _request: ClassVar[str]  # what the functions get

    def __post_init__(self) -> None:
        throttler, kind = self.throttler, self._throttler_type
        if not isinstance(throttler, kind) and (isinstance(throttler, _core.Throttler) or not callable(throttler)):
            raise TypeError(f"throttler must be {kind_of(kind)}, or a function that returns one, "
                            f"not {kind_of(type(throttler))}")
        if not callable(self.key):
            raise TypeError(f"key must be a function of {self._request}, not {type(self.key).__name__}")
        object.__setattr__(self, "_known", WeakKeyDictionary())
        object.__setattr__(self, "quotas", self.quotas_of(throttler) if isinstance(throttler, kind) else ())
        if not self.quotas:
            _http.check_name(self.name)
        if not callable(self.cost):
            cost = check_cost(self.cost)
            if isinstance(throttler, kind) and (too_small := too_small_for(cost, throttler, self.quotas)):
                raise ValueError(f"cost is {cost}, over the capacity of {too_small[0].capacity}; it would never fit")
        check_secret(self.hash)
        check_bool("dry_run", self.dry_run)
        if self.settle is not None:
            check_function("settle", self.settle, "outcome")
            if self.cost == 0:
                raise ValueError("cost is 0, so there is nothing to settle; settle needs a cost of at least 1")
        if not isinstance(self.body_bytes, int):
            raise TypeError(f"body_bytes must be an int, not {type(self.body_bytes).__name__}")
        if self.body_bytes < 0:
            raise ValueError(f"body_bytes is {self.body_bytes}; it must not be negative")
        if self.body_bytes and self.settle is None:
            raise ValueError("body_bytes is for settle, which is not given")

    def quotas_of(self, throttler: Any) -> tuple[_http.Quota, ...]:
        """The quotas under a throttler that `throttler` has returned."""
        if not isinstance(throttler, self._throttler_type):
            raise TypeError(f"the throttler of policy {self.name!r} must be {kind_of(self._throttler_type)}, "
                            f"not {kind_of(type(throttler))}")
        known = self._known.get(throttler)
        if known is None:
            known = self._known[throttler] = _http.quotas_of(self.name, throttler)
        return known


def too_small_for(cost: int, throttler: Any, quotas: Sequence[_http.Quota]) -> list[_http.Quota]:
    """The quotas that never have room for this cost."""
    return [] if throttler._clamp else [quota for quota in quotas if cost > quota.capacity]


def check_cost(cost: int, of: str = "cost") -> int:
    if not isinstance(cost, int):
        raise TypeError(f"{of} must be an int, not {type(cost).__name__}")
    if cost < 0:
        raise ValueError(f"{of} is {cost}; it must not be negative")
    return cost


def check_secret(secret: bool | str | bytes) -> None:
    if not isinstance(secret, (bool, str, bytes)):
        raise TypeError(f"hash must be True, False or a secret as str or bytes, not {type(secret).__name__}")
    if not isinstance(secret, bool) and not secret:
        raise ValueError("hash is an empty secret; use True for a hash without a secret")


def check_bool(option: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{option} must be True or False, not {type(value).__name__}")


def check_function(option: str, function: Any, *arguments: str) -> None:
    words = " and ".join(arguments)
    if not callable(function):
        raise TypeError(f"{option} must be a function of {words}, not {type(function).__name__}")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        raise TypeError(f"{option} must be a function that can be called with {words}") from None
    except ValueError:
        pass  # a function in C without a signature


DEFAULTS = {"key": None, "cost": 1, "name": "default", "hash": False, "settle": None, "body_bytes": 0}


def check_defaults(options: dict[str, Any]) -> None:
    """The options of the policy that `throttler` makes. Without a throttler they would have no effect."""
    for option, value in options.items():
        if value != DEFAULTS[option]:
            raise ValueError(f"{option} belongs to a throttler, which is not given; give {option} to a Policy")


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


def check_buckets(policies: Sequence[tuple[str, Any]]) -> None:
    """The buckets of policies with one store must not be the same, whatever the keys are. Each is a name and a
    throttler."""
    for i, (name, throttler) in enumerate(policies):
        head = f"{throttler.prefix}{name}:"
        for j, (other, another) in enumerate(policies):
            whole = f"{another.prefix}{other}:"
            if i != j and another._target is throttler._target and whole.startswith(head):
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


def whole_key(policy: BasePolicy, throttler: Any, key: str | bytes) -> bytes:
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
    most = KEY_MOST - len(throttler.prefix.encode()) - len(head)
    if policy.hash is not False:
        own = hashed(own, policy.hash)
    if len(own) > most:
        raise BadKey(f"the key is {len(own)} bytes long; it must be at most {most}, or use hash=")
    return head + own


# ---- Log lines ----


def described(error: BaseException) -> str:
    """The exception of a function of the user, with the last line outside of this package."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if os.path.dirname(file) != os.path.dirname(__file__):
            where = f" ({os.path.basename(file)}:{trace.tb_lineno})"
        trace = trace.tb_next
    try:
        text = shown(str(error))[1:-1]
    except Exception:  # its __str__ fails, too
        text = ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


class Warnings:
    """Logs at most one line a minute of each kind."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, kind: str, text: str, *arguments: object) -> None:
        now = time.monotonic()
        with self._lock:
            if now < self._next.get(kind, -math.inf):
                return
            self._next[kind] = now + LOG_EVERY
        logger.warning(text, *arguments)


class Denials:
    """The log of the denials of one policy.

    The first denial is logged at once. The next line comes with the first denial that is a minute or more later. It has
    the denials since the line before. No timer logs the rest: it comes with the next denial.

    The counters are those of Misra and Gries. They count at most `COUNTERS` keys. Of n denials, the count of a key is too
    small by n / (COUNTERS + 1) at most, so a key with more denials than that is among them.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._total = 0
        self._counts: dict[bytes, int] = {}
        self._since = -math.inf
        self._lock = threading.Lock()

    def add(self, key: bytes, dry_run: bool) -> None:
        now = time.monotonic()
        with self._lock:
            self._total += 1
            self._count(key)
            since = self._since
            if now < since + LOG_EVERY:
                return
            total, counts = self._total, self._counts
            self._total, self._counts, self._since = 0, {}, now
        top, most = max(counts.items(), key=lambda item: item[1], default=(key, 1))
        logger.warning(
            "policy %r %s %d request%s%s; key with the most: %s, at least %d", self._name,
            "would have denied (dry run)" if dry_run else "denied", total, "" if total == 1 else "s",
            "" if since == -math.inf else f" in {now - since:.0f} s", shown(top.decode("utf-8", "backslashreplace")), most)

    def _count(self, key: bytes) -> None:
        counts = self._counts
        if key in counts or len(counts) < COUNTERS:
            counts[key] = counts.get(key, 0) + 1
        else:
            self._counts = {other: count - 1 for other, count in counts.items() if count > 1}
