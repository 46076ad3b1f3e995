# SPDX-License-Identifier: MIT
"""What the ASGI and the WSGI middleware share: the judgement on a request. It knows neither protocol.

The judgement is a coroutine. In WSGI it runs without an event loop; see _together.py.
"""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from . import _http
from ._core import Error, NotABucket, Overloaded, ThrottleResult, Unsupported
from ._http import RequestFields, Verdict
from ._policy import BadKey, BasePolicy, Decision, Warnings, check_buckets, check_cost, check_names, kind_of, whole_key
from ._texts import shown
from ._together import Answer, Ask, Bucket, Group, decide_together

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ._together import Decide

RETRIES = 2  # after an overload

OnFault = Literal["allow", "deny"]
Fields = Literal["draft-11", "draft-07", "draft-03", "x", "none"]


def names_inside(app: Any) -> list[str]:
    """The policy names of the RateLimits inside `app`, as far as each middleware has an attribute `app`."""
    names: list[str] = []
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        if isinstance(app, Middleware):
            names += [policy.name for policy in app._policies]
        app = getattr(app, "__dict__", {}).get("app")
    return names


def in_order(answers: Iterable[Answer]) -> list[Bucket]:
    """The buckets in the order of the policies."""
    return sorted((bucket for answer in answers for bucket in answer.buckets()), key=lambda bucket: bucket.ask.place)


def from_store(answers: Iterable[Answer]) -> list[Bucket]:
    return in_order(answer for answer in answers if answer.from_store)


def result_of(ask: Ask, answer: Answer) -> ThrottleResult:
    """The result of one policy, if the call was for several."""
    if len(answer.group.asks) == 1 or not answer.result.parts:
        return answer.result
    parts = tuple(bucket.result for bucket in answer.buckets() if bucket.ask is ask)
    if len(parts) == 1:
        return parts[0]
    denials = [part for part in parts if not part.success]
    named = max(denials, key=lambda part: math.inf if part.retry_after is None else part.retry_after) if denials else min(
        parts, key=lambda part: ask.policy.quotas[parts.index(part)].capacity - part.level)
    return ThrottleResult(
        not denials, named.level, named.until_next_drop, named.blocked_for, named.retry_after, named.source, named.error,
        granted=named.granted, name=named.name, part=parts.index(named), atomic=answer.result.atomic, parts=parts)


def whole_seconds(wait: float) -> int:
    return max(1, math.ceil(wait))


class Middleware:
    """The part of a RateLimit that knows no protocol. A subclass is a Side of decide_together."""

    _app_type: ClassVar[str]
    _policy_type: ClassVar[type[BasePolicy]]

    def __init__(
        self, app: Any, first: list[Any], policies: Iterable[Any], on_error: OnFault, on_overload: OnFault, fields: Fields
    ) -> None:
        if not callable(app):
            raise TypeError(f"app must be {self._app_type}, not {type(app).__name__}")
        self.app = app
        self._policies = [*first, *policies]
        for i, policy in enumerate(self._policies):
            if not isinstance(policy, self._policy_type):
                raise TypeError(f"policies[{i - len(first)}] must be {kind_of(self._policy_type)}, "
                                f"not {kind_of(type(policy))}")
        if not self._policies:
            raise ValueError("RateLimit needs a throttler or policies")
        check_names([*(policy.name for policy in self._policies), *names_inside(app)])
        check_buckets(self._policies)
        for option, value in (("on_error", on_error), ("on_overload", on_overload)):
            if value not in ("allow", "deny"):
                raise ValueError(f"{option} is {shown(value)}; it must be 'allow' or 'deny'")
        if fields not in _http.FORMS:
            raise ValueError(f"fields is {shown(fields)}; it must be one of {', '.join(map(repr, _http.FORMS))}")
        self._allows_on_error = on_error == "allow"
        self._allows_on_overload = on_overload == "allow"
        self._fields = fields
        self._warn = Warnings()

    # ---- What differs with and without an event loop ----

    async def _settled(self, value: Any) -> Any:
        """What a function of the user returned, awaited if it is awaitable."""
        raise NotImplementedError

    async def _at_once(self, *works: Coroutine[Any, Any, Any]) -> list[Any]:
        raise NotImplementedError

    async def _to_the_end(self, *works: Coroutine[Any, Any, Any]) -> None:
        raise NotImplementedError

    async def _short_pause(self) -> None:
        """Waits until an overload may be over."""
        raise NotImplementedError

    # ---- The judgement ----

    async def _judge(self, request: Any, collected: RequestFields) -> tuple[Verdict, Decision]:
        """Decides on a request, and adds its fields to the collected ones."""
        collected.enter(self, [policy.name for policy in self._policies])
        asks: list[Ask] = []
        answers: list[Answer] = []
        denied_by: list[str] = []
        wait = None
        try:
            await self._ask_policies(request, asks)
            denied_by = [quota.name for ask in asks for quota in ask.policy.too_small(ask.cost)]
            if not denied_by:
                answers = await decide_together(asks, self) if asks else []
        except BadKey as error:
            self._warn("bad key", "%s; the response is 400", error)
            verdict = _http.bad_request()
        else:
            denials = [answer for answer in answers if not answer.result.success]
            if denied_by:
                verdict = _http.never_fits(denied_by)
            elif denials:
                verdict, denied_by, wait = self._deny(denials, answers, collected)
            else:
                self._add_fields(collected, answers, [_http.allowed(b.quota, b.result.level) for b in from_store(answers)])
                verdict = Verdict(0, [])
        results = {ask.policy.name: result_of(ask, answer) for answer in answers for ask in answer.group.asks}
        keys = {ask.policy.name: ask.key[len(ask.policy.name) + 1:] for ask in asks}
        return verdict, Decision(verdict.status == 0, verdict.status, tuple(denied_by), wait, results, keys)

    async def _ask_policies(self, request: Any, asks: list[Ask]) -> None:
        for place, policy in enumerate(self._policies):
            key = await self._settled(policy.key(request))
            if key is None:
                continue
            cost = await self._settled(policy.cost(request)) if callable(policy.cost) else policy.cost
            try:
                asks.append(Ask(place, policy, whole_key(policy, key), check_cost(cost)))
            except BadKey as error:
                raise BadKey(f"policy {policy.name!r}: {error}") from None

    def _deny(
        self, denials: list[Answer], answers: list[Answer], collected: RequestFields
    ) -> tuple[Verdict, list[str], float | None]:
        """The client is told to wait until all policies admit it. A bucket is left out if its wait is not known: it is
        one of on_error, or a local share that is smaller than the cost."""
        buckets = [bucket for bucket in in_order(denials) if not bucket.result.success]
        waits = [(b, b.result.retry_after) for b in buckets if b.result.retry_after is not None]
        if not waits:
            names = [b.quota.name for b in buckets] or [name for denial in denials for name in denial.group.names]
            return _http.unanswered(names), names, None
        states = [
            _http.denied(b.quota, b.result.level, whole_seconds(wait), b.result.blocked_for is not None)
            for b, wait in waits
            if b.result.source == "store"
        ]
        self._add_fields(collected, answers, states)
        names, longest = [b.quota.name for b, _ in waits], max(wait for _, wait in waits)
        return _http.exceeded(names, whole_seconds(longest)), names, longest

    def _add_fields(self, collected: RequestFields, answers: list[Answer], states: list[_http.State]) -> None:
        """Reports only answers of the store: for other answers the state of the limit is unknown."""
        collected.add(self._fields, [bucket.quota for bucket in from_store(answers)], states)

    # ---- One call ----

    async def _answer(self, group: Group, decide: Decide) -> Answer:
        """Asks again after an overload, which charges nothing. It waits until no handler holds the event loop."""
        result = await self._decided(group, decide)
        for _ in range(RETRIES):
            if result is None:
                await self._short_pause()
                result = await self._decided(group, decide)
        if result is None:
            why = "too many decisions are in flight, or a handler holds the event loop"
            result = self._fault(group, self._allows_on_overload, why)
        return Answer(group, result)

    async def _decided(self, group: Group, decide: Decide) -> ThrottleResult | None:
        """None if overloaded."""
        try:
            result = await decide()
        except Overloaded:
            return None
        except NotABucket as error:  # never allowed: a client may have chosen that key
            return self._fault(group, False, repr(error))
        except Unsupported as error:
            if len(group.asks) > 1:  # the keys may lie in several slots
                raise
            return self._fault(group, self._allows_on_error, repr(error))
        except Error as error:
            return self._fault(group, self._allows_on_error, repr(error))
        except ValueError as error:
            if len(group.asks) == 1 and len(group.names) == 1:
                raise
            raise BadKey(f"policies {', '.join(map(repr, group.names))}: {error}") from None
        return None if result.source == "policy" and result.error == "overloaded" else result

    def _fault(self, group: Group, allows: bool, why: str) -> ThrottleResult:
        names = ", ".join(repr(ask.policy.name) for ask in group.asks)
        subject = f"policies {names} have" if len(group.asks) > 1 else f"policy {names} has"
        outcome = "pass" if allows else "get 503"
        self._warn(f"fault {allows}", "%s no verdict, so requests %s: %s", subject, outcome, why)
        return ThrottleResult(allows, 0, 0.0, None, source="policy")
