# SPDX-License-Identifier: MIT
"""Reads limits: rates such as "10/second", in the grammar of the package limits and in that of the C library."""
from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional, Union

from . import _core
from ._texts import shown


class Rate(NamedTuple):
    """A limit in numbers, where a rate such as "10/second" does not say enough."""

    max_capacity: int
    drop_recharge: float
    block_duration: Optional[float] = None
    drops: int = 1


One = Union[str, Rate, Mapping[str, Any]]
Limits = Union[str, Rate, Sequence[One], Mapping[str, One]]
Spec = tuple[Optional[str], int, float, Optional[float], int]  # name, then the fields of Rate

SEPARATORS = re.compile("[,;|]")
RATE = re.compile(r"\s*([0-9]+)\s*(?:/|\s*per\s*)\s*([0-9]+)?\s*([a-z]+)\s*", re.IGNORECASE)
# The package limits counts a month as 30 days and a year as 12 months.
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "month": 30 * 86400, "year": 360 * 86400}


def spelled_for_the_library(text: str) -> str:
    """A rate in the grammar of the package limits, as steady_limit_parse reads it. Others are left as they are."""
    match = RATE.fullmatch(text)
    if match is None:
        return text.strip()
    count, multiple, word = match.groups()
    unit = word.lower()
    seconds = SECONDS.get(unit) or SECONDS.get(unit[:-1] if unit.endswith("s") else "")
    return f"{count}/{int(multiple or 1) * seconds}s" if seconds else f"{count}/{multiple or ''}{unit}"


def example_near(text: str) -> str:
    """A rate that makes sense, and is near to a text that makes none."""
    numbers = [number.lstrip("0") or "1" for number in re.findall("[0-9]+", text)]
    words = [word.lower() for word in re.findall("[A-Za-z]+", text) if word.lower() not in ("per", "burst")]
    units = [near for word in words for near in [unit for unit in SECONDS if unit.startswith(word)]
             or difflib.get_close_matches(word.rstrip("s"), SECONDS, 1, 0.5)]
    count = numbers[0] if numbers and len(numbers[0]) <= 6 else "10"
    return f"{count}/{units[0] if units else 'minute'}"


# What the library says of a rate period, and what we say.
REASONS = {"has an unknown unit": "the unit is unknown",
           "lacks a unit": "the period lacks a unit",
           "its largest unit first": "the period must have its largest unit first, and each unit only once",
           "a whole number of microseconds": "the period must be a whole number of microseconds",
           "is too long": "the period must be below 2^53 us, about 285 years"}


def reason_in(error: str) -> str:
    """Why the library rejects a rate. Empty if it is no count, slash and period at all."""
    if error.startswith("rate period"):
        return next((reason for words, reason in REASONS.items() if words in error), "")
    why = error.partition("\": ")[2]
    return why if "must be" in why else ""  # a number out of range


def no_rate(text: str, why: str) -> ValueError:
    return ValueError(f"limits: {shown(text)} is no rate{why and ': ' + why}; write for example {example_near(text)!r}")


def parsed(text: str) -> tuple[int, float, int]:
    """max_capacity, drop_recharge in seconds, and drops of one rate."""
    try:
        capacity, recharge, drops = _core.parse_rate(spelled_for_the_library(text))
    except ValueError as error:
        raise no_rate(text, reason_in(str(error)) if text.strip() else "it is empty") from None
    return capacity, recharge // 10**6 if recharge % 10**6 == 0 else recharge / 1e6, drops


def specs_of_one(name: Optional[str], given: Any, block: Optional[float]) -> list[Spec]:
    """The specs of a rate, or of several in one text."""
    if isinstance(given, str):
        texts = SEPARATORS.split(given)
        if len(texts) > 1 and not all(text.strip() for text in texts):
            raise no_rate(given, "a separator must have a rate on each side")
        rates = [parsed(text) for text in texts]
        if name is not None and len(rates) > 1:
            raise ValueError(f"limits: {shown(name)} has {len(rates)} rates; give each a name, such as "
                             f"{{'burst': {example_near(given)!r}}}")
        return [(name, capacity, recharge, block, drops) for capacity, recharge, drops in rates]
    if isinstance(given, Rate):
        rate = given
    elif isinstance(given, Mapping):
        try:
            rate = Rate(**given)
        except TypeError as error:
            what = "a limit" if name is None else f"the limit {shown(name)}"
            raise TypeError(f"limits: {what}{str(error).partition('__new__()')[2]}") from None
    else:
        what = "" if name is None else f"; {shown(name)} has one"
        raise TypeError(f"limits must have rates such as '10/second', or Rate objects, not {type(given).__name__}{what}")
    return [(name, rate.max_capacity, rate.drop_recharge, block if rate.block_duration is None else rate.block_duration,
             rate.drops)]


def specs_of_arguments(
    limits: Optional[Limits], capacity: Optional[int], recharge: Optional[float], block: Optional[float], drops: int
) -> tuple[Any, ...]:
    """The limits of a throttler from its arguments. The core checks the numbers."""
    if limits is None:
        return ((None, capacity, recharge, block, drops),)
    if capacity is not None or recharge is not None or drops != 1:
        raise TypeError("limits stands in place of max_capacity, drop_recharge and drops; give one or the other")
    return specs_of(limits, block)


def specs_of(limits: Any, block: Optional[float]) -> tuple[Spec, ...]:
    """The limits of a throttler, as the core takes them. `block` is for those that name no block_duration."""
    if isinstance(limits, (str, Rate)):
        return tuple(specs_of_one(None, limits, block))
    if isinstance(limits, Mapping):
        return tuple(spec for name, given in limits.items() for spec in specs_of_one(name, given, block))
    if isinstance(limits, Sequence) and not isinstance(limits, (bytes, bytearray)):
        return tuple(spec for given in limits for spec in specs_of_one(None, given, block))
    raise TypeError(f"limits must be rates such as ['10/second', '1000/hour'], or a mapping of names to rates, not "
                    f"{type(limits).__name__}")
