# SPDX-License-Identifier: MIT
"""Limits as texts in the Python package: the grammar of the package limits, and that of the C library."""
import asyncio
import importlib
import itertools
import sys

import pytest

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="session")
def rates(aio):
    return importlib.import_module("aiosteady._rates")


@pytest.fixture(scope="session")
def limits(from_pypi):
    folder = from_pypi("limits==5.8.0")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("limits")
    sys.path.remove(str(folder))


UNITS = ("second", "seconds", "minute", "Minutes", "HOUR", "hours", "day", "days", "month", "months", "year", "years")


def texts():
    for count, per, multiple, unit in itertools.product(
            ("1", "007", "1000"), ("/", " / ", " per ", "per", " PER "), ("", "1", " 2 ", "30"), UNITS):
        yield f"{count}{per}{multiple}{unit}"
    yield from ("5/30 second", "10 per 2 hours", "  10/second  ", "10/second; 5 per minute,1/day|3/3 hours", "1/second\n")


def test_a_rate_means_what_the_package_limits_says(rates, limits):
    seen = 0
    for text in texts():
        theirs = [(each.amount, each.get_expiry()) for each in limits.parse_many(text)]
        ours = [(drops * period // recharge, period) for (_, _, recharge, _, drops), (_, period)
                in zip(rates.specs_of(text, None), theirs)]
        assert ours == theirs and [spec[1] for spec in rates.specs_of(text, None)] == [count for count, _ in theirs], text
        seen += 1
    assert seen > 500


@pytest.mark.parametrize("text", ["", "x", "10", "10/", "/minute", "10 minute", "10/minut", "10/minutess", "ten/minute", "-1/day",
                                  "1.5/second", "10//minute", "10/second;", ";", "10/second 5/minute", "10/per minute",
                                  "10/fortnight", "10/seconds/minute"])
def test_a_text_that_the_package_limits_rejects_is_rejected_with_an_example(rates, limits, text):
    with pytest.raises(ValueError):
        limits.parse_many(text)
    with pytest.raises(ValueError) as told:
        rates.specs_of(text, None)
    example = str(told.value).rpartition("write for example ")[2].strip("'")
    assert "is no rate" in str(told.value) and len(rates.specs_of(example, None)) == 1, told.value


@pytest.mark.parametrize(("text", "example"), [
    ("10/minut", "10/minute"), ("10 minute", "10/minute"), ("5 per huor", "5/hour"), ("0/second", "1/second"),
    ("100", "100/minute"), ("every day", "10/day"), ("99999999999/second", "10/second")])
def test_the_example_is_near_to_the_text(rates, text, example):
    with pytest.raises(ValueError) as told:
        rates.specs_of(text, None)
    assert str(told.value).startswith(f"limits: {text!r} is no rate") and str(told.value).endswith(f"write for example {example!r}")


@pytest.mark.parametrize(("text", "reason", "example"), [
    ("", "it is empty", "10/minute"), ("10/s;", "a separator must have a rate on each side", "10/second"),
    (";", "a separator must have a rate on each side", "10/minute"),
    ("5/min,,3/h", "a separator must have a rate on each side", "5/minute"),
    ("1/1000year", "the period must be below 2^53 us, about 285 years", "1/year"), ("10/z", "the unit is unknown", "10/minute"),
    ("10/5", "the period lacks a unit", "10/minute"), ("0/h", "the count must be 1 .. 2147483647", "1/hour"),
    ("10/1s1h", "the period must have its largest unit first, and each unit only once", "10/second"),
    ("10/0.5us", "the period must be a whole number of microseconds", "10/minute"), ("10/0s", "the period must be at least 1us", "10/second")])
def test_a_rate_is_rejected_with_a_reason(rates, text, reason, example):
    with pytest.raises(ValueError) as told:
        rates.specs_of(text, None)
    assert str(told.value) == f"limits: {text!r} is no rate: {reason}; write for example {example!r}"


@pytest.mark.parametrize(("text", "spec"), [
    ("100/min burst 20", (20, 60, 100)), ("1000/1h30m", (1000, 5400, 1000)), ("5/250ms", (5, 0.25, 5)),
    ("3/s", (3, 1, 3)), ("10/2weeks", (10, 14 * 86400, 10)), ("1000000/day", (10**6, 0.0864, 1))])
def test_a_rate_of_the_c_library_is_read(rates, text, spec):
    (name, capacity, recharge, block, drops), = rates.specs_of(text, 7)
    assert (name, (capacity, recharge, drops), block) == (None, spec, 7)


def test_a_text_that_may_be_a_url_is_not_shown_whole(rates):
    with pytest.raises(ValueError) as told:
        rates.specs_of("redis://user:hunter2@host", None)
    assert "hunter2" not in str(told.value)


def test_a_limit_is_a_rate_a_tuple_of_numbers_or_a_mapping(aio):
    t = aio.Throttler("memory:", limits={"burst": "10/second", "hour": aio.Rate(500, 3600, drops=1000, block_duration=9),
                                         "day": {"max_capacity": 3, "drop_recharge": 86400}}, block_duration=5)
    assert t.limits == {"burst": aio.Rate(10, 1, 5, 10), "hour": aio.Rate(500, 3600, 9, 1000), "day": aio.Rate(3, 86400, 5, 1)}
    assert (t.max_capacity, t.drop_recharge, t.drops, t.block_duration) == (10, 1, 10, 5), "those of the first limit"
    assert list(aio.Throttler("memory:", limits="10/second; 5 per 2 hours, 1/month").limits) == ["1s", "2h", "30d"]
    assert aio.Throttler("memory:", 10, 5.0).limits == {"5s": aio.Rate(10, 5.0)}
    a, b = (aio.Throttler("memory:", limits=["10/second", "9/hour"]) for _ in range(2))
    assert a == b and hash(a) == hash(b) and a != aio.Throttler("memory:", limits=["10/second", "8/hour"])
    assert repr(a).startswith("Throttler(redis='memory:', limits={'1s': Rate(max_capacity=10, drop_recharge=1,")


@pytest.mark.parametrize(("limits", "error", "says"), [
    ([], ValueError, "limits has 0 limits"), ({}, ValueError, "limits has 0 limits"), (5, TypeError, "limits must be rates"),
    (b"1/second", TypeError, "limits must be rates"), ([5], TypeError, "limits must have rates"), ([None], TypeError, "limits"),
    ([("1/second",)], TypeError, "limits"), (["1/second", "2/second"], ValueError, "two limits with the name '1s'"),
    ({"a b": "1/second"}, ValueError, "name"), ({"a{": "1/second"}, ValueError, "name"), ({5: "1/second"}, TypeError, "name"),
    ({"": "1/second"}, ValueError, "limits['']: name"), ({"x" * 65: "1/second"}, ValueError, "name"), ({"\udc80": "1/second"}, ValueError, "name"),
    ({"a": "1/second; 2/hour"}, ValueError, "'a' has 2 rates"), ({"a": {"max_capacity": 1}}, TypeError, "limits: the limit 'a' missing 1 required positional argument: 'drop_recharge'"),
    ({"a": {"max_capacity": 1, "drop_recharge": 1, "x": 1}}, TypeError, "the limit 'a' got an unexpected keyword argument 'x'"),
    ([{"max_capacity": 1}], TypeError, "limits: a limit missing"), ({"a": 5}, TypeError, "not int; 'a' has one"),
    ({"a": (1, -1)}, TypeError, "not tuple; 'a' has one"), ([f"1/{i} second" for i in range(1, 66)], ValueError, "1 .. 64")])
def test_impossible_limits_are_rejected(aio, limits, error, says):
    with pytest.raises(error) as told:
        aio.Throttler("memory:", limits=limits)
    assert says in str(told.value)


def test_an_error_names_its_limit_if_there_is_a_choice(aio):
    wrong, says = aio.Rate(1, -1), "drop_recharge is -1 s; it must be 0.000001 .. 9007199254 s"
    for limits, where in ((wrong, ""), ({"a": "1/second", "b c": wrong}, "limits['b c']: "), (["1/second", wrong], "limits[1]: ")):
        with pytest.raises(ValueError) as told:
            aio.Throttler("memory:", limits=limits)
        assert str(told.value) == where + says


def test_limits_stand_in_place_of_numbers(aio):
    for more in ({"max_capacity": 1}, {"drop_recharge": 1}, {"max_capacity": 1, "drop_recharge": 1}, {"drops": 2}):
        with pytest.raises(TypeError, match="in place of"):
            aio.Throttler("memory:", limits="1/second", **more)
    for given in ((), (1,)):
        with pytest.raises(TypeError):
            aio.Throttler("memory:", *given)


def test_a_rate_limits(aio):
    async def main():
        t = aio.Throttler("memory:", limits="3/minute")
        assert [(await t.consume("k")).success for _ in range(4)] == [True] * 3 + [False]

    asyncio.run(main())
