# SPDX-License-Identifier: MIT
"""Several keys in one decision."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional, Union

from . import _core
from ._core import ThrottleResult
from ._reserve import Amount, Key

Kind = Literal["take", "look", "charge", "shadow"]


class Part(NamedTuple):
    """A key in consume_all(), with the throttler that has its limits.

    The kinds:
      "take": the drops go in if the call is allowed. A denial of this part denies the call.
      "look": a denial of this part denies the call, but nothing goes in.
      "charge": the drops go in whatever the level. It denies nothing.
      "shadow": the drops go in if they fit. It denies nothing; `success` of its result says what it would say.
    """

    throttler: _core.Throttler
    key: Key
    amount: Amount = 1
    kind: Kind = "take"


# What consume_all() takes as a part. The cache of typing would keep the Union, and with it this module, alive for ever.
if TYPE_CHECKING:
    Given = Union[
        Part,
        tuple[_core.Throttler, Key],
        tuple[_core.Throttler, Key, Amount],
        tuple[_core.Throttler, Key, Amount, Kind],
    ]
else:
    Given = Any


def call_of(
    verb: int, parts: Iterable[Any], max_wait: Optional[float], at_least: Optional[int], *, blocking: bool = False
) -> _core.Call:
    if not isinstance(parts, Iterable):
        raise TypeError(f"parts must be a list of parts, not {type(parts).__name__}")
    made: list[tuple[_core.Throttler, Key, Amount, str]] = []
    for at, part in enumerate(parts):
        if not isinstance(part, tuple) or not 2 <= len(part) <= 4:
            raise TypeError(f"parts[{at}] must be a Part, or a tuple (throttler, key, amount=1, kind='take')")
        throttler, key, amount, kind = Part(*part)
        if not isinstance(throttler, _core.Throttler):
            raise TypeError(f"parts[{at}] must have a Throttler first, not {type(throttler).__name__}")
        if isinstance(throttler, _core.BlockingThrottler) != blocking:
            module = "aiosteady.blocking" if blocking else "aiosteady"
            raise TypeError(f"parts[{at}] has a Throttler of {type(throttler).__module__}; it must be one of {module}")
        made.append((throttler, key, amount, kind))
    return _core.Call(verb, tuple(made), max_wait, at_least)


async def decided(call: _core.Call) -> ThrottleResult:
    answer = _core.decide(call)
    return answer if type(answer) is ThrottleResult else await answer


async def consume_all(
    parts: Sequence[Given],
    *,
    max_wait: Optional[float] = 0,
    at_least: Optional[int] = None,
) -> ThrottleResult:
    """Decides on several keys: all or nothing.

    The call is allowed if every part of kind "take" and "look" allows it. If it is denied, nothing is charged anywhere.
    All throttlers must use one Store. `part` of the result is the index of the part that it names, and `parts` has a
    result for each bucket. For max_wait and at_least see Throttler.consume().
    """
    return await decided(call_of(_core.CONSUME_ALL, parts, max_wait, at_least))


async def peek_all(
    parts: Sequence[Given],
    *,
    max_wait: Optional[float] = 0,
    at_least: Optional[int] = None,
) -> ThrottleResult:
    """Returns what consume_all() would answer now, and changes nothing. Levels are those before the call."""
    return await decided(call_of(_core.PEEK_ALL, parts, max_wait, at_least))
