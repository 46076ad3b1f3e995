# SPDX-License-Identifier: MIT
"""HTTP responses of limits: rate-limit header fields in several forms, and problem details (RFC 9457).

draft-11 is draft-ietf-httpapi-ratelimit-headers-11. RateLimit-Policy describes a bucket of B drops that leaks R drops a
second as the quota q=B and the window w=B/R. RateLimit allows `r` requests within `t` seconds, with r/t never over R.
So a client that spreads its `r` requests over `t` seconds is admitted.
"""
from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ._texts import shown

if TYPE_CHECKING:
    from ._core import Throttler

Field = tuple[bytes, bytes]

MOST = 10**15 - 1  # an Integer of RFC 9651 has at most 15 digits
PRINTABLE = re.compile("[ -~]+")  # what a String of RFC 9651 may hold
TYPES = "https://iana.org/assignments/http-problem-types#"
UNANSWERED_LEAST, UNANSWERED_MOST = 1, 5  # seconds


def divide_up(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


class Quota(NamedTuple):
    """A limit with a name."""

    name: str
    capacity: int
    recharge_us: int  # in which `drops` leak
    drops: int
    blocks: bool = False  # an overflow blocks the key

    def leaks_in(self, count: int) -> int:
        """The seconds in which `count` drops leak, rounded up."""
        return divide_up(count * self.recharge_us, self.drops * 1_000_000)

    def leaks(self, seconds: int) -> int:
        """The drops that leak in `seconds` seconds, rounded down."""
        return seconds * self.drops * 1_000_000 // self.recharge_us


class State(NamedTuple):
    """The remaining quota: at most `available` drops within `window` seconds."""

    quota: Quota
    available: int
    window: int
    denies: bool = False


def check_name(name: str) -> None:
    if not isinstance(name, str) or not PRINTABLE.fullmatch(name):
        raise ValueError(f"name is {shown(name)}; it must be printable ASCII, because header fields quote it")


def quotas_of(name: str, throttler: Throttler) -> tuple[Quota, ...]:
    """One for each limit. If there are several, the name of the limit follows that of the policy."""
    check_name(name)
    limits = throttler._limits
    for limit, *_ in limits:
        if not PRINTABLE.fullmatch(limit):
            raise ValueError(f"the limit {shown(limit)} must have a name of printable ASCII, because header fields quote it")
    return tuple(
        Quota(name if len(limits) == 1 else f"{name}:{limit}", capacity, recharge_us, drops, block_us > 0)
        for limit, capacity, recharge_us, block_us, drops in limits
    )


def allowed(quota: Quota, level: int) -> State:
    available = max(0, quota.capacity - level)
    return State(quota, available, max(1, quota.leaks_in(available)))


def denied(quota: Quota, level: int, wait: int, blocked: bool = False) -> State:
    """A request of this cost does not fit for `wait` seconds. A cheaper one may fit, unless the key is blocked."""
    return State(quota, 0 if blocked else min(max(0, quota.capacity - level), quota.leaks(wait)), wait, True)


# ---- The forms ----

Form = Callable[[Sequence[Quota], Sequence[State]], Iterator[Field]]


def quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def window_of(quota: Quota) -> int:
    return min(MOST, max(1, quota.leaks_in(quota.capacity)))


def tightest(states: Sequence[State]) -> tuple[int, int, int]:
    """Limit, remaining and reset of one policy, for a form with room for one. A policy that denies comes first, even if
    another one has less left. Of several, it is the one with the longest wait, which Retry-After has too."""
    state = min(states, key=lambda state: (0 if state.denies else state.available, -state.window))
    return state.quota.capacity, min(MOST, state.available), min(MOST, state.window)


def draft_11(quotas: Sequence[Quota], states: Sequence[State]) -> Iterator[Field]:
    policy = ", ".join(f"{quoted(q.name)};q={q.capacity};w={window_of(q)}" for q in quotas)
    yield b"ratelimit-policy", policy.encode()
    if states:
        items = (f"{quoted(s.quota.name)};r={min(MOST, s.available)};t={min(MOST, s.window)}" for s in states)
        yield b"ratelimit", ", ".join(items).encode()


def draft_07(quotas: Sequence[Quota], states: Sequence[State]) -> Iterator[Field]:
    yield b"ratelimit-policy", ", ".join(f"{q.capacity};w={window_of(q)}" for q in quotas).encode()
    if states:
        yield b"ratelimit", b"limit=%d, remaining=%d, reset=%d" % tightest(states)


def three(prefix: bytes) -> Form:
    def form(quotas: Sequence[Quota], states: Sequence[State]) -> Iterator[Field]:
        if states:
            for name, value in zip((b"limit", b"remaining", b"reset"), tightest(states)):
                yield prefix + name, b"%d" % value

    return form


def none(quotas: Sequence[Quota], states: Sequence[State]) -> Iterator[Field]:
    return iter(())


FORMS: dict[str, Form] = {
    "draft-11": draft_11,
    "draft-07": draft_07,
    "draft-03": three(b"ratelimit-"),
    "x": three(b"x-ratelimit-"),
    "none": none,
}


# ---- Fields that the application sets, too ----

NUMBER = re.compile(rb"[0-9]{1,15}")
THREE = re.compile(rb"limit=([0-9]{1,15}), *remaining=([0-9]{1,15}), *reset=([0-9]{1,15})")
MEMBER = re.compile(rb'(?:"(?:\\.|[^"\\])*"|[^",])+')  # of a List of RFC 9651
NAME = re.compile(rb'"(?:\\.|[^"\\])*"')


def numbers(values: Iterable[bytes]) -> list[int] | None:
    values = list(values)
    return [int(value) for value in values] if all(NUMBER.fullmatch(value) for value in values) else None


def tighter(ours: list[int], theirs: list[int] | None) -> list[int]:
    """The stricter of two lists of limit, remaining and reset."""
    return theirs if theirs is not None and (theirs[1], -theirs[2]) < (ours[1], -ours[2]) else ours


def join_three(ours: list[Field], theirs: dict[bytes, bytes]) -> list[Field]:
    names = [name for name, _ in ours]
    if not all(name in theirs for name in names):
        return ours
    chosen = tighter([int(value) for _, value in ours], numbers(theirs[name] for name in names))
    return [(name, b"%d" % number) for name, number in zip(names, chosen)]


def join_07(ours: list[Field], theirs: dict[bytes, bytes]) -> list[Field]:
    fields = []
    for name, value in ours:
        other, mine = THREE.fullmatch(theirs.get(name, b"")), THREE.fullmatch(value)
        if mine is not None and other is not None:
            chosen = tighter([int(n) for n in mine.groups()], [int(n) for n in other.groups()])
            value = b"limit=%d, remaining=%d, reset=%d" % tuple(chosen)
        elif mine is None and name in theirs:
            value += b", " + theirs[name]
        fields.append((name, value))
    return fields


def join_11(ours: list[Field], theirs: dict[bytes, bytes]) -> list[Field]:
    """If both lists have the same name, only our item is kept."""
    fields = []
    for name, value in ours:
        members = [member.strip() for member in MEMBER.findall(value)]
        known = {NAME.match(member)[0] for member in members}  # type: ignore[index]
        for member in MEMBER.findall(theirs.get(name, b"")):
            named = NAME.match(member.strip())
            if named is not None and named[0] not in known:
                members.append(member.strip())
        fields.append((name, b", ".join(members)))
    return fields


JOINS: dict[str, Callable[[list[Field], dict[bytes, bytes]], list[Field]]] = {
    "draft-11": join_11,
    "draft-07": join_07,
    "draft-03": join_three,
    "x": join_three,
}


class RequestFields:
    """The fields of all RateLimits around an application, for one request. The outermost RateLimit sends them, so each
    field is sent once."""

    def __init__(self) -> None:
        self._owners: dict[str, object] = {}
        self._forms: list[str] = []
        self._quotas: dict[str, Quota] = {}
        self._states: dict[str, State] = {}

    def enter(self, owner: object, names: Iterable[str]) -> None:
        for name in names:
            if self._owners.setdefault(name, owner) is not owner:
                raise RuntimeError(
                    f"two RateLimits around this application have a policy {name!r}, so a request would cost twice; "
                    "give each policy a name of its own"
                )

    def add(self, form: str, quotas: Iterable[Quota], states: Iterable[State]) -> None:
        if form == "none":
            return
        if form not in self._forms:
            self._forms.append(form)
        self._quotas.update((quota.name, quota) for quota in quotas)
        self._states.update((state.quota.name, state) for state in states)

    def fields(self) -> Iterator[tuple[str, list[Field]]]:
        """The fields by form. If two forms use the same field name, the form of the outermost RateLimit is used."""
        denying = [state for state in self._states.values() if state.denies]
        names: set[bytes] = set()
        for form in self._forms if self._quotas else ():
            fields = list(FORMS[form](list(self._quotas.values()), denying or list(self._states.values())))
            if names.isdisjoint(name for name, _ in fields):
                names.update(name for name, _ in fields)
                yield form, fields

    def merged(self, headers: Iterable[Field]) -> Iterable[Field]:
        """The headers of the application with our fields added. A field that the application sets too is merged into
        one."""
        fields = list(self.fields())
        if not fields:
            return headers
        ours = {name for _, added in fields for name, _ in added}
        theirs: dict[bytes, bytes] = {}
        kept = []
        for name, value in headers:
            low = bytes(name).lower()
            if low not in ours:
                kept.append((name, value))
            else:
                theirs[low] = theirs[low] + b", " + value if low in theirs else bytes(value)
        return [*kept, *(field for form, added in fields for field in JOINS[form](added, theirs))]


# ---- Problems (RFC 9457) ----


class Verdict(NamedTuple):
    """Our response. A status of 0 means that the application responds."""

    status: int
    fields: list[Field]
    body: bytes = b""


def problem(status: int, kind: str, title: str, violated: Sequence[str] = (), fields: Sequence[Field] = ()) -> Verdict:
    members: dict[str, object] = {"type": kind, "title": title, "status": status}
    if violated:
        members["violated-policies"] = violated
    body = json.dumps(members).encode()
    about = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    return Verdict(status, [*about, (b"cache-control", b"no-store"), *fields], body)


def bad_request() -> Verdict:
    return problem(400, "about:blank", "The key of the rate limit cannot be used")


def never_fits(names: Sequence[str]) -> Verdict:
    return problem(422, "about:blank", "The request costs more than its quota ever holds", names)


def unanswered(names: Sequence[str]) -> Verdict:
    """The wait is random: the real one is unknown, and clients should not all come back at once."""
    title = "Request cannot be satisfied due to temporary server capacity constraints"
    retry = (b"retry-after", b"%d" % random.randint(UNANSWERED_LEAST, UNANSWERED_MOST))
    return problem(503, TYPES + "temporary-reduced-capacity", title, names, [retry])


def exceeded(names: Sequence[str], wait: int) -> Verdict:
    title = "Request cannot be satisfied as assigned quota has been exceeded"
    retry = (b"retry-after", b"%d" % min(MOST, wait))
    return problem(429, TYPES + "quota-exceeded", title, names, [retry])


def with_own_body(verdict: Verdict, body: str | bytes | dict[str, object]) -> Verdict:
    """The same response with another body."""
    if isinstance(body, dict):
        kind, data = b"application/json", json.dumps(body).encode()
    elif isinstance(body, str):
        kind, data = b"text/plain; charset=utf-8", body.encode()
    else:
        kind, data = b"application/octet-stream", body
    return verdict._replace(
        fields=[(b"content-type", kind), (b"content-length", b"%d" % len(data)), *fields_of_denial(verdict)], body=data)


def fields_of_denial(verdict: Verdict) -> list[Field]:
    """The fields that a response of the user gets, too."""
    return [field for field in verdict.fields if field[0] in (b"cache-control", b"retry-after")]


def with_missing(headers: Iterable[Field], fields: Iterable[Field]) -> list[Field]:
    headers = list(headers)
    present = {bytes(name).lower() for name, _ in headers}
    return [*headers, *(field for field in fields if field[0] not in present)]
