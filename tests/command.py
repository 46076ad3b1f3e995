# SPDX-License-Identifier: MIT
"""Shared by the tests of the command: its exit codes, the fields of its answers, a limit to test with."""
from decimal import Decimal

FIELDS = ["success", "level", "until_next_drop", "blocked_for", "retry_after", "error", "source"]
LIMIT = ("--capacity", "10", "--recharge", "1d")  # nothing of it leaks while a test runs
DAY = Decimal(86400)
ALLOWED, DENIED, USAGE, UNAVAILABLE, UNKNOWN = range(5)


def nearly(value, most):
    """True if the value is a little less than `most` seconds, with at most microseconds."""
    return most - 20 < value <= most and Decimal(value).as_tuple().exponent >= -6
