# SPDX-License-Identifier: MIT
"""Compares durations and rates with a second parser that uses exact fractions, on random texts."""
import ctypes
import os
import random
import re
from fractions import Fraction
from math import gcd
from pathlib import Path

import pytest

BUILD = Path(os.environ.get("BUILD", Path(__file__).resolve().parent.parent / "build")).resolve()
UNITS = {"us": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
WORDS = {word + plural: unit for unit, words in {"us": "microsecond", "ms": "millisecond", "s": "sec second", "m": "min minute",
                                                 "h": "hr hour", "d": "day", "week": "week"}.items()
         for word in words.split() for plural in ("", "s")}
PERIODS = {**UNITS, "week": 7 * 86400 * 10**6}
TEXTS = 30000


class Limit(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("max_capacity", "drop_recharge", "drops", "block_duration")]


@pytest.fixture(scope="module")
def library():
    library = ctypes.CDLL(BUILD / "libsteady.so")
    library.steady_duration_parse.argtypes = [ctypes.POINTER(ctypes.c_int64), ctypes.c_char_p, ctypes.c_void_p]
    library.steady_limit_parse.argtypes = [ctypes.POINTER(Limit), ctypes.c_char_p, ctypes.c_void_p]
    return library


def duration(text, words=False):
    """Microseconds, or None if the text must be rejected."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([a-z]+)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    units = [WORDS.get(unit, unit) if words else unit for _, unit in parts]
    known = PERIODS if words else UNITS
    if any(unit not in known for unit in units):
        return None
    sizes = [known[unit] for unit in units]
    values = [Fraction(number) * size for (number, _), size in zip(parts, sizes)]
    if any(a <= b for a, b in zip(sizes, sizes[1:])) or any(value.denominator != 1 for value in values):
        return None
    return int(sum(values)) if sum(values) < 2**53 else None


def rate(text):
    """Capacity, recharge and drops, or None if the text must be rejected."""
    match = re.fullmatch(r"([0-9]+)/(.*)", text, re.S)
    if not match:
        return None
    period = duration(("1" if re.fullmatch("[a-z]+", match[2]) else "") + match[2], words=True)
    count = int(match[1])
    if not period or not 1 <= count < 2**31:
        return None
    common = gcd(count, period)
    for drops, recharge in ((count, period), (count // common, period // common)):
        if drops <= 10**6 and count * recharge < 2**53:
            return count, recharge, drops
    return None


def number(rng):
    digits = str(rng.choice([0, 1, rng.randrange(100), rng.randrange(10**6), rng.randrange(2**34), 2**53 // 10**6,
                             rng.randrange(2**53 - 5, 2**53 + 5), rng.randrange(2**70)]))
    digits = "0" * rng.choice([0, 0, 0, 1, 5]) + digits
    return digits + rng.choice(["", "", "", ".5", ".25", f".{rng.randrange(10**rng.randrange(1, 15))}", ".0000001",
                                ".0009765625", ".000000000000", "."])


def some_duration(rng):
    units = sorted(rng.sample(list(UNITS), rng.choice([1, 1, 1, 2, 3])), key=UNITS.get, reverse=True)
    text = "".join(number(rng) + (unit if rng.random() < 0.97 else rng.choice([*WORDS, "", "x", "M", " "]))
                   for unit in units)
    if rng.random() < 0.1:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice("0159.+- smhdu/eE,\n\u0665") + text[at + rng.randrange(2):]
    return text


def some_rate(rng):
    count = rng.choice(["1", "3", "100", str(rng.randrange(2000)), str(rng.randrange(2**32)),
                        str(rng.randrange(1, 2148) * 10**6), number(rng)])
    return count + rng.choice("////////:") + rng.choice([*UNITS, *WORDS, some_duration(rng), some_duration(rng)])


def test_random_durations_are_read_as_exact_fractions(library):
    rng = random.Random(20260101)
    taken = 0
    for _ in range(TEXTS):
        text = some_duration(rng)
        value = ctypes.c_int64(-1)
        code = library.steady_duration_parse(ctypes.byref(value), text.encode(), None)
        expected = duration(text)
        assert (value.value if code == 0 else None) == expected, text
        assert code == 0 or value.value == -1
        taken += code == 0
    assert TEXTS / 5 < taken < TEXTS * 4 / 5  # valid and invalid texts are tried


def test_random_rates_are_read_as_exact_fractions(library):
    rng = random.Random(20260102)
    taken = 0
    for _ in range(TEXTS):
        text = some_rate(rng)
        limit = Limit(-1, -1, -1, -1)
        code = library.steady_limit_parse(ctypes.byref(limit), text.encode(), None)
        got = limit.max_capacity, limit.drop_recharge, limit.drops
        assert (got if code == 0 else None) == rate(text), text
        assert code == 0 or got == (-1, -1, -1)
        taken += code == 0
    assert TEXTS / 5 < taken < TEXTS * 4 / 5
