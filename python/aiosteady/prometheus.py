# SPDX-License-Identifier: MIT
"""Counters of throttlers and of their stores for Prometheus. It takes the package prometheus_client.

    from prometheus_client import REGISTRY
    from aiosteady.prometheus import Collector

    REGISTRY.register(Collector(login=login_throttler, api=api_throttler))
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Optional, cast

from . import _core
from ._texts import shown

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
    from prometheus_client.registry import Collector as _Collector
except ImportError as error:
    if (error.name or "").partition(".")[0] != "prometheus_client":
        raise
    raise ImportError("aiosteady.prometheus takes the package prometheus_client, 0.15 or later: "
                      "pip install prometheus_client", name="prometheus_client") from error

__all__ = ["Collector"]

DECISIONS = (  # of a throttler: the counter, and the labels verdict and source
    ("allowed", "allowed", "store"),
    ("denied", "denied", "store"),
    ("denied_elsewhere", "denied_elsewhere", "store"),
    ("shadow_denied", "shadow_denied", "store"),
    ("local_allowed", "allowed", "local"),
    ("local_denied", "denied", "local"),
    ("policy_allowed", "allowed", "policy"),
    ("policy_denied", "denied", "policy"),
    ("errors", "error", "none"),
)
STORE_COUNTERS = (
    ("blocked", "Decisions on blocked keys."),
    ("timeouts", "Decisions that ended at their deadline."),
    ("from_memory", "Decisions denied by the memory of denials, without a request."),
    ("from_lease", "Decisions answered from a lease, without a request."),
    ("overflowed", "Decisions on a bucket that several keys share, because an embedded store was full there."),
    ("clock_steps", "Buckets that were ahead of the clock of the store."),
    ("reconnects", "Connections after the first."),
    ("script_loads", "SCRIPT LOAD commands sent."),
)


class Collector(_Collector):
    """Exports the counters of throttlers, each under a name, and those of their stores. Register it once.

    A Store is named by its URL, without user, password and options. Stores with one URL count together. A key is never
    exported. The counters of a throttler stay after its store is closed.

    Arguments:
      throttlers: a mapping of names to throttlers of aiosteady or of aiosteady.blocking.
      more: the same as keywords.
    """

    def __init__(self, throttlers: Optional[Mapping[str, _core.Throttler]] = None, /, **more: _core.Throttler) -> None:
        self._throttlers: dict[str, _core.Throttler] = {}
        if throttlers is not None and not isinstance(throttlers, Mapping):
            raise TypeError(f"throttlers must be a mapping of names to throttlers, not {type(throttlers).__name__}")
        for name, throttler in [*(throttlers or {}).items(), *more.items()]:
            self.add(name, throttler)

    def add(self, name: str, throttler: _core.Throttler) -> None:
        """Adds a throttler, also when the collector is registered already."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a throttler must be a str, not {type(name).__name__}")
        if not isinstance(throttler, _core.Throttler):
            raise TypeError(f"{shown(name)} must be a Throttler, not {type(throttler).__name__}")
        if name in self._throttlers:
            raise ValueError(f"there is a throttler with the name {shown(name)} already")
        self._throttlers[name] = throttler

    def describe(self) -> Iterable[Metric]:
        """The metrics without their numbers."""
        return [*_of_throttlers({}), *_of_stores({})]

    def collect(self) -> Iterable[Metric]:
        """The metrics with their numbers of now. Any thread may call it."""
        throttlers = dict(self._throttlers)
        return [*_of_throttlers(throttlers), *_of_stores(throttlers)]


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"steady_{name}", text, labels=labels)


def _of_throttlers(throttlers: Mapping[str, _core.Throttler]) -> list[Metric]:
    decisions = _counter("decisions", "Decisions by verdict, and by what answered.", "throttler", "verdict", "source")
    blocked = _counter("blocked", "Denied decisions on blocked keys.", "throttler")
    unanswered = _counter("unanswered", "Decisions for which the store gave no verdict.", "throttler", "outcome")
    calls = _counter("calls", "Calls that decide nothing.", "throttler", "call")
    waits = SummaryMetricFamily("steady_wait_seconds", "Waits in line.", labels=["throttler"])
    denied = _counter("limit_denied", "Decisions that a limit denied.", "throttler", "limit", "kind")
    charged = _counter("drops_charged", "Drops put into buckets.", "throttler", "limit")
    given_back = _counter("drops_given_back", "Drops that settles took out.", "throttler", "limit")
    drained = _counter("drops_drained", "Drops that negative amounts took out.", "throttler", "limit")
    for name, throttler in throttlers.items():
        stats = throttler.stats()
        numbers = cast("Mapping[str, int]", stats)
        for counter, verdict, source in DECISIONS:
            decisions.add_metric([name, verdict, source], numbers[counter])
        for outcome in ("unavailable", "unknown"):
            unanswered.add_metric([name, outcome], numbers[outcome])
        for call in ("peek", "reset", "settle"):
            calls.add_metric([name, call], numbers[f"{call}s"])
        blocked.add_metric([name], stats["blocked"])
        waits.add_metric([name], count_value=stats["waits"], sum_value=stats["wait_seconds"])
        for limit, of in stats["limits"].items():
            denied.add_metric([name, limit, "take"], of["denied"])
            denied.add_metric([name, limit, "shadow"], of["shadow_denied"])
            charged.add_metric([name, limit], of["charged"])
            given_back.add_metric([name, limit], of["given_back"])
            drained.add_metric([name, limit], of["drained"])
    return [decisions, blocked, unanswered, calls, waits, denied, charged, given_back, drained]


def _stores_by_name(throttlers: Mapping[str, _core.Throttler]) -> dict[str, list[_core.Store]]:
    """A client of the caller is no Store, and has no counters."""
    stores = {id(t._target): t._target for t in throttlers.values() if isinstance(t._target, _core.Store)}
    named: dict[str, list[_core.Store]] = {}
    for store in stores.values():
        named.setdefault(store._shown_url.partition("?")[0].replace("***@", ""), []).append(store)
    return named


def _of_stores(throttlers: Mapping[str, _core.Throttler]) -> list[Metric]:
    decisions = _counter("store_decisions", "Decisions of the store, by how they ended.", "store", "outcome")
    counters = {name: _counter(f"store_{name}", text, "store") for name, text in STORE_COUNTERS}
    in_flight = GaugeMetricFamily("steady_store_in_flight", "Decisions that wait for an answer.", labels=["store"])
    ready = GaugeMetricFamily("steady_store_ready", "1 if the store can make decisions, otherwise 0.", labels=["store"])
    for name, stores in _stores_by_name(throttlers).items():
        all_stats = [store.stats() for store in stores]
        stats = {counter: sum(each[counter] for each in all_stats) for counter in all_stats[0]}
        for outcome in ("allowed", "denied", "unavailable", "unknown"):
            decisions.add_metric([name, outcome], stats[outcome])
        for counter, family in counters.items():
            family.add_metric([name], stats[counter])
        in_flight.add_metric([name], stats["in_flight"])
        ready.add_metric([name], float(all(store.ready for store in stores)))
    return [decisions, *counters.values(), in_flight, ready]
