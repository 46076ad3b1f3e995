# SPDX-License-Identifier: MIT
"""What the ASGI and the WSGI middleware share: the judgement on a request. It knows neither protocol.

The judgement is a coroutine. In WSGI it runs without an event loop; see _together.py.
"""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Optional

from . import _http
from ._core import Error, NotABucket, Overloaded, Quick, ThrottleResult, Unsupported
from ._http import RequestFields, Verdict
from ._policy import (
    BadKey,
    BasePolicy,
    Decision,
    Denials,
    Warnings,
    check_bool,
    check_buckets,
    check_cost,
    check_defaults,
    check_function,
    check_names,
    described,
    kind_of,
    too_small_for,
    whole_key,
)
from ._settle import Settlement
from ._texts import shown
from ._together import Answer, Ask, Bucket, Group, decide_together

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ._together import Decide

AMOUNT_MOST = 2**31 - 1  # drops in one call
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


PASS = Verdict(0, [])
NOT_ASKED = object()  # in place of a key


def in_order(answers: Iterable[Answer]) -> list[Bucket]:
    """The buckets in the order of the policies."""
    return sorted((bucket for answer in answers for bucket in answer.buckets()), key=lambda bucket: bucket.ask.place)


def from_store(answers: Iterable[Answer]) -> list[Bucket]:
    """Those that were not asked, too."""
    found = (bucket for answer in answers if answer.from_store for bucket in answer.all_buckets())
    return sorted(found, key=lambda bucket: bucket.ask.place)


def result_of(ask: Ask, answer: Answer) -> ThrottleResult | None:
    """The result of one policy. The result of the call may be for several, and says nothing of a dry run. None if none of
    its buckets was asked, because another policy denied."""
    if (len(answer.group.asks) == 1 and ask.kind == "take") or not answer.result.parts:
        return answer.result
    parts = tuple(bucket.result for bucket in answer.buckets() if bucket.ask is ask)
    if len(parts) < 2:
        return parts[0] if parts else None
    denials = [part for part in parts if not part.success]
    named = max(denials, key=lambda part: math.inf if part.retry_after is None else part.retry_after) if denials else min(
        parts, key=lambda part: ask.quotas[parts.index(part)].capacity - part.level)
    return ThrottleResult(
        not denials, named.level, named.until_next_drop, named.blocked_for, named.retry_after, named.source, named.error,
        granted=named.granted, name=named.name, part=named.part, atomic=answer.result.atomic, parts=parts)


class Judgement(NamedTuple):
    """`verdict`: our response; its status is 0 if the application responds. `app`: on_denied has returned this response.
    `settlement`: records the response of the application."""

    verdict: Verdict
    decision: Decision
    settlement: Optional[Settlement]
    app: Any


class Middleware:
    """The part of a RateLimit that knows no protocol. A subclass is a Side of decide_together."""

    _app_type: ClassVar[str]
    _policy_type: ClassVar[type[BasePolicy]]

    def __init__(
        self,
        app: Any,
        throttler: Any,
        own: dict[str, Any],
        policies: Iterable[Any],
        on_error: OnFault,
        on_overload: OnFault,
        fields: Fields,
        dry_run: bool,
        on_denied: Any,
        on_decision: Any,
    ) -> None:
        if not callable(app):
            raise TypeError(f"app must be {self._app_type}, not {type(app).__name__}")
        self.app = app
        if not isinstance(policies, Iterable):
            raise TypeError(f"policies must be a list of {kind_of(self._policy_type)}, not {kind_of(type(policies))}")
        if throttler is None:
            check_defaults(own)
        elif own["key"] is None:
            del own["key"]  # the default of the policy
        first = [] if throttler is None else [self._policy_type(throttler, **own)]
        self._policies = [*first, *policies]
        for i, policy in enumerate(self._policies):
            if not isinstance(policy, self._policy_type):
                raise TypeError(f"policies[{i - len(first)}] must be {kind_of(self._policy_type)}, "
                                f"not {kind_of(type(policy))}")
        if not self._policies:
            raise ValueError("RateLimit needs a throttler or policies")
        check_names([*(policy.name for policy in self._policies), *names_inside(app)])
        check_buckets([(policy.name, policy.throttler) for policy in self._policies if policy.quotas])
        for option, value in (("on_error", on_error), ("on_overload", on_overload)):
            if value not in ("allow", "deny"):
                raise ValueError(f"{option} is {shown(value)}; it must be 'allow' or 'deny'")
        if fields not in _http.FORMS:
            raise ValueError(f"fields is {shown(fields)}; it must be one of {', '.join(map(repr, _http.FORMS))}")
        self._allows_on_error = on_error == "allow"
        self._allows_on_overload = on_overload == "allow"
        check_bool("dry_run", dry_run)
        if on_denied is not None and not isinstance(on_denied, (str, bytes, dict)):
            check_function("on_denied", on_denied, self._policy_type._request, "decision")
        if on_decision is not None:
            check_function("on_decision", on_decision, self._policy_type._request, "decision")
        self._fields = fields
        self._dry_run = dry_run
        self._on_denied, self._on_decision = on_denied, on_decision
        self._warn = Warnings()
        self._denials = [Denials(policy.name) for policy in self._policies]
        self._has_functions = not all(policy.quotas for policy in self._policies)

    # ---- What differs with and without an event loop ----

    async def _awaited(self, value: Any) -> Any:
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

    def _quick_judge(self) -> Optional[Quick]:
        """Judges requests in one call. None if there is more to do than one decision of an embedded store."""
        policy = self._policies[0]
        if (
            len(self._policies) > 1 or len(policy.quotas) != 1 or self._in_dry_run(policy) or policy.settle is not None
            or policy.hash is not False or callable(policy.cost) or policy.cost == 0
            or type(policy.throttler).consume is not self._policy_type._throttler_type.consume
        ):
            return None
        fields = None if self._fields == "none" else self._fields
        return Quick(policy.throttler, policy.key, policy.name, policy.cost, fields, Decision)

    def _collected(self, result: ThrottleResult) -> RequestFields:
        """The fields after a quick judgement that allows the request."""
        collected, policy = RequestFields(), self._policies[0]
        collected.enter(self, [policy.name])
        collected.add(self._fields, [(policy.quotas[0], result)])
        return collected

    async def _judge(
        self, request: Any, collected: RequestFields, key: Any = NOT_ASKED, result: Optional[ThrottleResult] = None
    ) -> Judgement:
        """Decides on a request, and adds its fields to the collected ones. `key` and `result` of the first policy may be
        known."""
        collected.enter(self, [policy.name for policy in self._policies])
        asks: list[Ask] = []
        answers: list[Answer] = []
        denied_by: list[str] = []
        wait = None
        verdict = PASS
        try:
            denied_by = await self._ask_policies(request, asks, key)
            enforced = [ask for ask in asks if ask.kind == "take"]
            never_fit = [(a, q.name) for a in enforced for q in too_small_for(a.cost, a.throttler, a.quotas)]
            if never_fit:
                denied_by = self._count([ask for ask, _ in never_fit], [name for _, name in never_fit])
                verdict = _http.never_fits(denied_by)
            elif result is not None:
                answers = [Answer(Group(asks), result)]
            else:
                answers = await decide_together(asks, self) if asks else []
        except BadKey as error:
            denied_by = list(error.policies)
            if not all(self._in_dry_run(policy) for policy in self._policies if policy.name in denied_by):
                verdict = _http.bad_request()
            outcome = "the response is 400" if verdict.status else "dry run: the request passes"
            self._warn("bad key", "%s; %s", error, outcome)
        denials = [answer for answer in answers if answer.denies]
        if denials:
            verdict, denied_by, wait = self._deny(denials, answers, collected)
        elif verdict.status == 0:
            if any(ask.kind != "take" for ask in asks):
                names, wait = self._denied_in_dry_run(answers)
                denied_by += names
            self._add_fields(collected, answers, False)
        decision = Decision(
            not denied_by and verdict.status == 0, verdict.status, tuple(denied_by), wait,
            {ask.policy.name: result for answer in answers for ask in answer.group.asks
             if (result := result_of(ask, answer)) is not None},
            {ask.policy.name: self._own_key(ask) for ask in asks},
            bool(denied_by) and verdict.status == 0)
        settles = any(ask.policy.settle is not None for answer in answers for ask in answer.group.asks)
        settlement = Settlement(self, request, decision, answers) if settles and verdict.status == 0 else None
        if self._on_decision is not None:
            try:
                await self._call_on_decision(request, decision)
            except BaseException as error:  # the request is cancelled
                if settlement is not None:
                    await self._to_the_end(settlement.finish(False, error))
                raise
        if verdict.status == 0:
            return Judgement(verdict, decision, settlement, None)
        if self._on_denied is not None:
            return await self._own_response(request, decision, verdict)
        return Judgement(verdict, decision, None, None)

    def _own_key(self, ask: Ask) -> bytes:
        """The key without the name of the policy."""
        return ask.key[len(ask.policy.name.encode()) + 1:]

    def _in_dry_run(self, policy: BasePolicy) -> bool:
        return self._dry_run or policy.dry_run

    async def _ask_policies(self, request: Any, asks: list[Ask], key: Any) -> list[str]:
        """Returns the policies in a dry run whose key cannot be used. The others raise BadKey."""
        unusable = []
        for place, policy in enumerate(self._policies):
            key = await self._awaited(policy.key(request) if place > 0 or key is NOT_ASKED else key)
            if key is None:
                continue
            throttler, quotas = policy.throttler, policy.quotas
            if not quotas:
                throttler = await self._awaited(throttler(request))
                quotas = policy.quotas_of(throttler)
            cost = policy.cost
            if callable(cost):
                cost = check_cost(await self._awaited(cost(request)), f"the cost of policy {policy.name!r}")
            kind = "shadow" if self._in_dry_run(policy) else "take"
            if kind == "shadow" or throttler._clamp:  # neither is denied because it never fits
                cost = min(cost, AMOUNT_MOST)
            try:
                asks.append(Ask(place, policy, throttler, quotas, whole_key(policy, throttler, key), cost, kind))
            except BadKey as error:
                text = f"policy {policy.name!r}: {error}"
                if not self._in_dry_run(policy):
                    raise BadKey(text, [policy.name]) from None
                self._warn("bad key", "%s; dry run: the request passes", text)
                unusable.append(policy.name)
        if self._has_functions:
            check_buckets([(ask.policy.name, ask.throttler) for ask in asks])
        return unusable

    def _deny(
        self, denials: list[Answer], answers: list[Answer], collected: RequestFields
    ) -> tuple[Verdict, list[str], float | None]:
        """The client is told to wait until all policies admit it. A bucket is left out if its wait is not known: it is
        one of on_error, or a local share that is smaller than the cost."""
        buckets = [b for b in in_order(denials) if not b.result.success and b.ask.kind == "take"]
        waits = [(b, b.result.retry_after) for b in buckets if b.result.retry_after is not None]
        if not waits:
            names = [b.quota.name for b in buckets] or [name for denial in denials for name in denial.group.names]
            return _http.unanswered(names), names, None
        self._add_fields(collected, answers, True)
        longest = max(wait for _, wait in waits)
        names = self._count([b.ask for b, _ in waits], [b.quota.name for b, _ in waits])
        return _http.exceeded(names, longest), names, longest

    def _denied_in_dry_run(self, answers: list[Answer]) -> tuple[list[str], float | None]:
        buckets = [b for b in in_order(answers) if not b.result.success and b.ask.kind == "shadow"]
        waits = [b.result.retry_after for b in buckets]
        known = [wait for wait in waits if wait is not None]
        names = self._count([b.ask for b in buckets], [b.quota.name for b in buckets])
        return names, max(known) if known and len(known) == len(waits) else None

    def _count(self, asks: Iterable[Ask], names: list[str]) -> list[str]:
        """Counts a denial for the log, once for each policy."""
        for ask in {ask.place: ask for ask in asks}.values():
            self._denials[ask.place].add(self._own_key(ask), ask.kind == "shadow")
        return names

    def _add_fields(self, collected: RequestFields, answers: list[Answer], denied: bool) -> None:
        """Reports only answers of the store: for other answers the state of the limit is unknown. If the request is
        denied, only the states of those that deny it are shown. One that was not asked has no state. Policies in a dry
        run are not reported: the client has not to obey them."""
        buckets = [bucket for bucket in from_store(answers) if bucket.ask.kind == "take"]
        collected.add(self._fields, [(b.quota, b.result if b.was_asked and not (denied and b.result.success) else None)
                                     for b in buckets])

    # ---- Functions of the user ----

    async def _call_on_decision(self, request: Any, decision: Decision) -> None:
        try:
            await self._awaited(self._on_decision(request, decision))
        except Exception as error:
            self._warn("on_decision", "on_decision failed, and the request goes on: %s", described(error))

    async def _own_response(self, request: Any, decision: Decision, verdict: Verdict) -> Judgement:
        """A body stands for 429 only. A function answers for each status; None leaves the response as it is."""
        own = self._on_denied
        try:
            if not isinstance(own, (str, bytes, dict)):
                own = await self._awaited(own(request, decision))
            elif verdict.status != 429:
                own = None
            if isinstance(own, (str, bytes, dict)):
                verdict = _http.with_own_body(verdict, own)
            elif callable(own):
                return Judgement(verdict, decision, None, own)
            elif own is not None:
                raise TypeError(f"it returned {kind_of(type(own))}, which is no response")
        except Exception as error:
            self._warn("on_denied", "on_denied failed, so the response is a problem document: %s", described(error))
        return Judgement(verdict, decision, None, None)

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
            policies = [ask.policy.name for ask in group.asks]
            raise BadKey(f"policies {', '.join(map(repr, group.names))}: {error}", policies) from None
        return None if result.source == "policy" and result.error == "overloaded" else result

    def _fault(self, group: Group, allows: bool, why: str) -> ThrottleResult:
        allows = allows or group.in_dry_run
        names = ", ".join(repr(ask.policy.name) for ask in group.asks)
        subject = f"policies {names} have" if len(group.asks) > 1 else f"policy {names} has"
        outcome = "pass" if allows else "get 503"
        self._warn(f"fault {allows}", "%s no verdict, so requests %s: %s", subject, outcome, why)
        return ThrottleResult(allows, 0, 0.0, None, source="policy")
