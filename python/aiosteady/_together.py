# SPDX-License-Identifier: MIT
"""The decision on all policies of a request, for the middlewares. The coroutines here await only calls of throttlers
and of the Side. In WSGI both answer at once, so the coroutines run without an event loop.

Policies whose throttlers have the same Store or the same client are a Group. One call decides on a group, so a request
that it denies charges nothing. The policies may make several groups:

- Their throttlers have several stores.
- The keys lie in several slots of a cluster, and the store cannot decide on them together. Then each policy is a group.
- The cost of some policies is 0. A call leaves them alone, but they deny while their key is blocked. So they are looked
  at.

No call decides on several groups. They are asked in these steps:

1. All groups are looked at. If one denies, nothing is charged. The groups that start a block are then asked.
2. Otherwise the group with the least room is charged first, then the others. If one denies meanwhile, the groups before
   it get back what they took. This denial starts no block.
"""
from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from ._core import CONSUME_ALL, PEEK_ALL, Call, ThrottleResult, Unsupported
from ._parts import decided
from ._waiting import NO_BLOCK, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Callable, Protocol

    from . import _core
    from ._http import Quota
    from ._policy import BasePolicy

    Decide = Callable[[], Coroutine[Any, Any, ThrottleResult]]

    class Side(Protocol):
        """What differs with and without an event loop."""

        async def _answer(self, group: Group, decide: Decide) -> Answer:
            """Asks a group. It raises Unsupported only for several policies."""

        async def _at_once(self, *works: Coroutine[Any, Any, Any]) -> list[Any]: ...
        async def _to_the_end(self, *works: Coroutine[Any, Any, Any]) -> None:
            """Runs them although the request is cancelled meanwhile. Their errors are ignored."""


class Ask(NamedTuple):
    """The key and the cost of one request under one policy. `place`: the index of the policy. `kind`: "take", or "shadow"
    in a dry run."""

    place: int
    policy: BasePolicy
    throttler: Any
    quotas: Sequence[Quota]
    key: bytes
    cost: int
    kind: str


class Bucket(NamedTuple):
    """A limit of a policy, and what an answer says about its bucket."""

    ask: Ask
    quota: Quota
    result: ThrottleResult

    @property
    def was_asked(self) -> bool:
        return self.result.source != "nowhere"

    def starts_block(self) -> bool:
        result = self.result
        return not result.success and self.quota.blocks and result.blocked_for is None and result.retry_after is not None

    def room(self) -> Fraction:
        """How often the cost fits."""
        return Fraction(self.quota.capacity - self.result.level, self.ask.cost)


class Group:
    def __init__(self, asks: Sequence[Ask]) -> None:
        self.asks = asks
        self._reserving: _core.Call | None = None

    @property
    def names(self) -> list[str]:
        return [quota.name for ask in self.asks for quota in ask.quotas]

    @property
    def in_dry_run(self) -> bool:
        return all(ask.kind == "shadow" for ask in self.asks)

    @property
    def costs(self) -> bool:
        return self.asks[0].cost > 0

    def apart(self) -> list[Group]:
        return [Group([ask]) for ask in self.asks]

    def _call(self, verb: int, max_wait: float = 0, reserve: bool = False) -> _core.Call:
        parts = tuple((ask.throttler, ask.key, ask.cost, ask.kind) for ask in self.asks)
        return Call(verb, parts, max_wait, None, reserve)

    async def consume(self) -> ThrottleResult:
        ask = self.asks[0]
        reserves = any(ask.policy.settle is not None for ask in self.asks) and self.costs
        if len(self.asks) > 1 or reserves or ask.kind != "take":
            self._reserving = self._call(CONSUME_ALL, reserve=reserves)
            return await decided(self._reserving)
        answer = ask.throttler.consume(ask.key, ask.cost)
        return answer if isinstance(answer, ThrottleResult) else await answer

    async def look(self) -> ThrottleResult:
        return await decided(self._call(PEEK_ALL))

    async def reserve(self) -> ThrottleResult:
        self._reserving = self._call(CONSUME_ALL, NO_BLOCK, reserve=True)
        return await decided(self._reserving)

    async def reserve_or_block(self) -> ThrottleResult:
        self._reserving = self._call(CONSUME_ALL, reserve=True)
        return await decided(self._reserving)

    async def give_back(self, result: ThrottleResult, actuals: tuple[int, ...] | None = None) -> ThrottleResult | None:
        """Settles what the last call took, with 0 or with a cost for each bucket. Only a store has a reservation. If this
        fails, the bucket stays too full, which is stricter."""
        if self._reserving is None or result._reservation is None:
            return None
        return await decided(self._reserving.give_back(result._reservation, actuals))


class Answer(NamedTuple):
    group: Group
    result: ThrottleResult

    @property
    def denies(self) -> bool:
        return not self.result.success and not self.group.in_dry_run

    @property
    def from_store(self) -> bool:
        return self.result.source in VERDICTS

    def all_buckets(self) -> list[Bucket]:
        """None if a policy (on_error) answered."""
        limits = [(ask, quota) for ask in self.group.asks for quota in ask.quotas]
        return [Bucket(ask, quota, result) for (ask, quota), result in zip(limits, self.result.parts)]

    def buckets(self) -> list[Bucket]:
        """Without those that were not asked, because another one denied."""
        return [bucket for bucket in self.all_buckets() if bucket.was_asked]

    def room(self) -> Fraction:
        return min(bucket.room() for bucket in self.buckets())


def groups_of(asks: Sequence[Ask]) -> list[Group]:
    groups: dict[tuple[int, bool], list[Ask]] = {}
    for ask in asks:
        groups.setdefault((id(ask.throttler._target), ask.cost > 0), []).append(ask)
    return [Group(group) for group in groups.values()]


async def give_back(answers: Sequence[Answer], side: Side) -> None:
    back = [answer.group.give_back(answer.result) for answer in answers if answer.result.success]
    if back:
        await side._to_the_end(*back)


async def decide_together(asks: Sequence[Ask], side: Side) -> list[Answer]:
    """The request is denied if one of the answers is a denial."""
    groups = groups_of(asks)
    if len(groups) == 1:
        try:
            return [await side._answer(groups[0], groups[0].consume)]
        except Unsupported:
            groups = groups[0].apart()
    looks = [look for group in await side._at_once(*(look_at(group, side) for group in groups)) for look in group]
    if not any(look.denies for look in looks):
        return await charge(looks, side)
    return await side._at_once(*(start_block(look, side) for look in looks))


async def look_at(group: Group, side: Side) -> list[Answer]:
    try:
        return [await side._answer(group, group.look)]
    except Unsupported:
        return await side._at_once(*(side._answer(each, each.look) for each in group.apart()))


async def start_block(look: Answer, side: Side) -> Answer:
    """The request is denied. If this group has room by now, it gets back what it took."""
    if not look.from_store or not any(bucket.starts_block() for bucket in look.buckets()):
        return look
    asked = await side._answer(look.group, look.group.reserve_or_block)
    await give_back([asked], side)
    return look if asked.result.success else asked


async def charge(looks: Sequence[Answer], side: Side) -> list[Answer]:
    """The looks that are not charged stay as they are: those of on_error, and those of policies that cost nothing."""
    kept = [look for look in looks if not look.group.costs or not look.buckets()]
    charged: list[Answer] = []
    waiting = sorted((look for look in looks if look not in kept), key=Answer.room)
    try:
        while waiting and not any(asked.denies for asked in charged):
            charged.append(await side._answer(waiting[0].group, waiting[0].group.reserve))
            waiting.pop(0)
    except BaseException:
        await give_back(charged, side)
        raise
    if waiting or (charged and charged[-1].denies):
        await give_back(charged, side)
    return [*kept, *charged, *waiting]
