# SPDX-License-Identifier: MIT
"""Shared by the tests of the command: its exit codes, the fields of its answers, a limit to test with."""
from decimal import Decimal

FIELDS = ["success", "level", "until_next_drop", "blocked_for", "retry_after", "error", "source"]
LONG = ["must_wait", "success", "granted", *FIELDS[1:]]  # of a consume with options or several limits, wait, reserve
LIMIT = ("--capacity", "10", "--recharge", "1d")  # nothing of it leaks while a test runs
DAY = Decimal(86400)
SEVERAL = ("--rate", "burst=10/d", "--rate", "week=20/week")  # two limits; nothing of them leaks while a test runs
ALLOWED, DENIED, USAGE, UNAVAILABLE, UNKNOWN = range(5)


def nearly(value, most):
    """True if the value is a little less than `most` seconds, with at most microseconds."""
    return most - 20 < value <= most and Decimal(value).as_tuple().exponent >= -6
