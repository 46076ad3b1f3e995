# SPDX-License-Identifier: MIT
"""HTTP responses of limits: the fields of several RateLimits, merged with those of the application, and problem documents
(RFC 9457). The library makes the fields and the documents: include/steady/http.h says what they mean."""
from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _core
from ._texts import shown

if TYPE_CHECKING:
    from ._core import ThrottleResult, Throttler

Field = tuple[bytes, bytes]

PRINTABLE = re.compile("[ -~]+")  # what a String of RFC 9651 may hold
UNANSWERED_LEAST, UNANSWERED_MOST = 1, 5  # seconds
FORMS = ("draft-11", "draft-07", "draft-03", "x", "none")


class Quota(NamedTuple):
    """A limit with a name."""

    name: str
    capacity: int
    recharge_us: int  # in which `drops` leak
    drops: int
    blocks: bool = False  # an overflow blocks the key


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
        self._policies: dict[str, tuple[Quota, ThrottleResult | None]] = {}

    def may_enter(self, owner: object, name: str) -> bool:
        return self._owners.get(name, owner) is owner

    def enter(self, owner: object, names: Iterable[str]) -> None:
        for name in names:
            if self._owners.setdefault(name, owner) is not owner:
                raise RuntimeError(
                    f"two RateLimits around this application have a policy {name!r}, so a request would cost twice; "
                    "give each policy a name of its own"
                )

    def add(self, form: str, policies: Iterable[tuple[Quota, ThrottleResult | None]]) -> None:
        """The state of a quota without a result is not shown."""
        if form == "none":
            return
        if form not in self._forms:
            self._forms.append(form)
        self._policies.update((quota.name, (quota, result)) for quota, result in policies)

    def fields(self) -> Iterator[tuple[str, list[Field]]]:
        """The fields by form. If two forms use the same field name, the form of the outermost RateLimit is used."""
        names: set[bytes] = set()
        for form in self._forms if self._policies else ():
            fields = _core.http_fields(form, self._policies.values())
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
        return [*kept, *(field for form, added in fields for field in (JOINS[form](added, theirs) if theirs else added))]

    def with_fields(self, message: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """A message of ASGI with these headers."""
        headers = message.get("headers", ())
        merged = self.merged(headers)
        return message if merged is headers else {**message, "headers": merged}


# ---- Problems (RFC 9457) ----


class Verdict(NamedTuple):
    """Our response. A status of 0 means that the application responds."""

    status: int
    fields: list[Field]
    body: bytes = b""


def problem(status: int, violated: Sequence[str] = (), fields: Sequence[Field] = ()) -> Verdict:
    body = _core.http_problem(status, violated)
    about = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    return Verdict(status, [*about, (b"cache-control", b"no-store"), *fields], body)


def bad_request() -> Verdict:
    return problem(400)


def never_fits(names: Sequence[str]) -> Verdict:
    return problem(422, names)


def unanswered(names: Sequence[str]) -> Verdict:
    """The wait is random: the real one is unknown, and clients should not all come back at once."""
    return problem(503, names, [(b"retry-after", b"%d" % random.randint(UNANSWERED_LEAST, UNANSWERED_MOST))])


def exceeded(names: Sequence[str], wait: float) -> Verdict:
    return problem(429, names, [(b"retry-after", b"%d" % _core.http_retry_after(wait))])


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
