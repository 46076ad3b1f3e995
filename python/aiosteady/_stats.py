# SPDX-License-Identifier: MIT
"""What Throttler.stats() returns. The reference of the Python package has the meaning of each counter."""
from __future__ import annotations

from typing import TypedDict


class LimitStats(TypedDict):
    """The counters of one limit."""

    charged: int  # drops
    given_back: float  # drops
    drained: int  # drops
    denied: int  # decisions
    shadow_denied: int  # decisions


class ThrottlerStats(TypedDict):
    """The counters of a throttler. `decisions` is the sum of the nine that follow it."""

    decisions: int
    allowed: int
    denied: int
    denied_elsewhere: int
    shadow_denied: int
    local_allowed: int
    local_denied: int
    policy_allowed: int
    policy_denied: int
    errors: int
    blocked: int  # decisions
    unavailable: int  # decisions
    unknown: int  # decisions
    waits: int  # decisions
    wait_seconds: float
    peeks: int  # calls
    resets: int  # calls
    settles: int  # calls
    limits: dict[str, LimitStats]  # by name
