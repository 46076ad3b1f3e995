# SPDX-License-Identifier: MIT
"""Rate limits on the routes of FastAPI and Starlette.

    app.state.rate_limit_store = "redis://localhost"

    @app.get("/items/{id}", dependencies=[Depends(RateLimited("5/minute"))], responses=RateLimited.responses)
    async def item(id: int): ...

RateLimited is a dependency of FastAPI, for routes, routers and applications. rate_limited is the decorator, for
endpoints of FastAPI and of Starlette. What they answer is what the middleware answers; see aiosteady.asgi.

The module imports Starlette only. So it does not need FastAPI.
"""
from __future__ import annotations

import functools
import inspect
import logging
import re
import string
import sys
import typing
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Optional, TypeVar, Union, cast
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Host, Mount
from starlette.websockets import WebSocket

from ._address import client_address
from . import _core
from ._core import Sender
from ._http import RequestFields, Verdict
from ._middleware import Middleware
from ._policy import Decision
from ._rates import Limits
from ._store import Store
from ._texts import shown
from ._throttler import is_async
from .asgi import FIELDS_KEY, Policy, RateLimit
from .leakybucket import Throttler

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Decision", "RateLimitFields", "RateLimited", "Rejected", "client_address", "rate_limited", "respond",
           "route_template"]

MaybeKey = Union[str, bytes, None]
Key = Callable[[Any], Union[MaybeKey, Awaitable[MaybeKey]]]
Cost = Union[int, Callable[[Any], Union[int, Awaitable[int]]]]
ThrottlerOf = Callable[[Any], Union[Throttler, Awaitable[Throttler]]]
OnDecision = Callable[[Any, Decision], Union[object, Awaitable[object]]]
OnFault = Literal["allow", "deny"]
Form = Literal["draft-11", "draft-07", "draft-03", "x", "none"]
AnyLimit = TypeVar("AnyLimit", bound=Middleware)
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

PROBLEM = "application/problem+json"
OWN_FIELDS = "aiosteady.fastapi"  # in the scope: the RequestFields, if no middleware sends them
GIVEN_KEY = "aiosteady.fastapi.key"  # in the scope: the value of key=Depends(...)
APP_LIMITS = "_aiosteady_limits"  # an attribute of the application: its AppLimits
ROUTES = "_aiosteady_routes"  # an attribute of the outermost router: its Leaf objects, by route and endpoint
SAFE_IN_NAMES = "".join(set(string.printable) - set(string.whitespace) - set(":%")) + " "
NEVER_ASKED = "redis://localhost"  # the store of a throttler that only checks its arguments
NOT_GIVEN: Any = object()
NAMES_MOST = 4096  # in a cache
TRY_AGAIN = 1013  # the close code of a WebSocket

logger = logging.getLogger("aiosteady")


# ---- The response in place of the endpoint's ----


class Rejected(HTTPException):
    """The endpoint does not run: the response is 429, or 422, 503 or 400 as of the middleware.

    respond() makes the response. To make your own, register a handler: `app.add_exception_handler(Rejected, handler)`.
    `headers` has the fields, and `decision` says why.
    """

    def __init__(self, verdict: Verdict, decision: Decision, headers: dict[str, str]) -> None:
        super().__init__(verdict.status, headers=headers)
        self.decision = decision
        self.body = verdict.body


async def respond(connection: HTTPConnection, rejected: Exception) -> Optional[Response]:
    """The handler of Rejected. It is used if the application registers none."""
    assert isinstance(rejected, Rejected)
    response = Response(rejected.body, rejected.status_code, rejected.headers, PROBLEM)
    if not isinstance(connection, WebSocket):
        return response
    can_respond = "websocket.http.response" in (connection.get("extensions") or {})
    if can_respond and hasattr(connection, "send_denial_response"):  # of newer versions of Starlette
        await connection.send_denial_response(response)
    else:
        await connection.close(TRY_AGAIN)
    return None


def rejected_by(verdict: Verdict, decision: Decision, collected: RequestFields, scope: Scope) -> Rejected:
    fields = verdict.fields if FIELDS_KEY in scope else collected.merged(verdict.fields)
    about_body = (b"content-type", b"content-length")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields if name not in about_body}
    # Starlette makes this dict for each request's application. Without it, HTTPException's handler answers.
    handlers = scope.get("starlette.exception_handlers")
    if handlers is not None:
        handlers[0].setdefault(Rejected, respond)
    return Rejected(verdict, decision, headers)


def fields_of(scope: Scope) -> RequestFields:
    sender: Optional[Sender] = scope.get(FIELDS_KEY)
    collected: RequestFields = scope.setdefault(OWN_FIELDS, RequestFields()) if sender is None else sender.collected
    return collected


async def judged(limit: Middleware, connection: HTTPConnection, asked: Any) -> RequestFields:
    """Decides on a request. Returns the fields of its response, or raises Rejected."""
    scope, collected = connection.scope, fields_of(connection.scope)
    verdict, decision, _, _ = await limit._judge(asked, collected)
    scope.setdefault("state", {})["rate_limit"] = decision
    if verdict.status != 0:
        raise rejected_by(verdict, decision, collected, scope)
    return collected


class RateLimitFields:
    """A middleware that puts the fields on each response. Without it, a response that the endpoint makes, and an error,
    have no fields unless a RateLimit is around the application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or FIELDS_KEY in scope:
            await self.app(scope, receive, send)
            return
        sender = scope[FIELDS_KEY] = Sender(send, RequestFields())
        try:
            await self.app(scope, receive, sender)
        finally:
            scope.pop(FIELDS_KEY, None)


# ---- Routes ----


class Leaf(NamedTuple):
    """A route with an endpoint."""

    route: Any
    host: str  # of a Host around it
    path: str
    methods: frozenset[str]  # empty: all

    @property
    def template(self) -> str:
        return self.host + self.path

    def suits(self, path: str, before: str, parameter: str) -> bool:
        literals = map(re.escape, re.split(r"\{[^{}]*\}", self.path))
        return re.fullmatch(before + parameter.join(literals), path, re.DOTALL) is not None


# What may stand before the path of a route, and for a parameter. A path parameter has slashes. Old versions of Starlette
# do not tell where the path of the application begins.
PATTERNS = (("", "[^/]+"), ("", ".+"), (".*", ".+"))


def suiting(candidates: list[Leaf], scope: Scope) -> Optional[Leaf]:
    """The first route that answers this path, as the router looks for it."""
    path, root = scope["path"], scope.get("root_path", "")
    if not path.startswith(root):  # old versions of Starlette move the path of a mount from one to the other
        path = root + path
    path = path[len(scope.get("app_root_path", root)):]
    answering = [leaf for leaf in candidates if not leaf.methods or scope.get("method") in leaf.methods]
    for before, parameter in PATTERNS:
        for leaf in answering:
            if leaf.suits(path, before, parameter):
                return leaf
    return None


def leaves(routes: Iterable[Any], host: str = "", head: str = "") -> Iterator[Leaf]:
    # Newer versions of FastAPI keep the prefix of an included router apart from its routes.
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", iter)
    for context in contexts(list(routes)):
        route = getattr(context, "original_route", context)
        if isinstance(route, Host):
            yield from leaves(context.routes, context.host_format, head)
        elif isinstance(route, Mount):
            yield from leaves(context.routes, host, head + context.path_format[: -len("/{path}")])
        elif getattr(context, "path_format", None) is not None:
            yield Leaf(route, host, head + context.path_format, frozenset(getattr(context, "methods", None) or ()))


def leaf_of(scope: Scope) -> Leaf:
    """The route of this request."""
    router, route, endpoint = scope.get("router"), scope.get("route"), scope.get("endpoint")
    known: dict[int, list[Leaf]] = router.__dict__.setdefault(ROUTES, {}) if router is not None else {}
    for mark in (route, endpoint):
        if router is not None and mark is not None and id(mark) not in known:  # a new route
            for leaf in leaves(router.routes):
                for part in (leaf.route, getattr(leaf.route, "endpoint", None)):
                    if leaf not in known.setdefault(id(part), []):
                        known[id(part)].append(leaf)
        candidates = known.get(id(mark), [])
        if len(candidates) == 1:
            return candidates[0]
        found = suiting(candidates, scope)
        if found is not None:
            return found
    # A middleware around a mounted application hides its routes.
    function = f"{getattr(endpoint, '__module__', '')}.{getattr(endpoint, '__qualname__', type(endpoint).__name__)}"
    return Leaf(route, "", getattr(route, "path_format", function), frozenset(getattr(route, "methods", None) or ()))


def route_template(request: HTTPConnection) -> str:
    """The path of the route as it was declared, with the prefixes of its routers and mounts: "/items/{id}"."""
    return leaf_of(request.scope).template


@functools.lru_cache(maxsize=NAMES_MOST)
def name_of(methods: frozenset[str], template: str) -> str:
    """The name of a limit, such as "GET /items/{id}". It has no colon, because the key of the client follows one."""
    if "HEAD" in methods:  # a route for GET answers it
        methods = methods - {"HEAD"} | {"GET"}
    return quote(" ".join(filter(None, [",".join(sorted(methods)), template])), safe=SAFE_IN_NAMES)


def route_name(scope: Scope, with_method: bool) -> str:
    leaf = leaf_of(scope)
    methods = leaf.methods or frozenset([scope.get("method", "WS")])
    return name_of(methods if with_method else frozenset(), leaf.template)


# ---- OpenAPI ----

PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "A problem document (RFC 9457).",
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "violated-policies": {"type": "array", "items": {"type": "string"}, "description": "The names of the limits."},
    },
    "required": ["type", "title", "status"],
}
FIELDS_IN_OPENAPI = {
    "Retry-After": {"description": "Seconds until the request is admitted.", "schema": {"type": "integer"}},
    "RateLimit": {"description": "What is left of each limit.", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "The limits.", "schema": {"type": "string"}},
}
RESPONSES: dict[Union[int, str], dict[str, Any]] = {
    429: {
        "description": "Too many requests",
        "headers": FIELDS_IN_OPENAPI,
        "content": {PROBLEM: {"schema": PROBLEM_SCHEMA}},
    },
    503: {
        "description": "The rate limit gave no verdict",
        "headers": {"Retry-After": FIELDS_IN_OPENAPI["Retry-After"]},
        "content": {PROBLEM: {"schema": PROBLEM_SCHEMA}},
    },
}


# ---- Limits ----


def first_free(collected: RequestFields, name: str, limit_of: Callable[[str], AnyLimit]) -> AnyLimit:
    """The limit with this name. If another limit of this request has the name, a number follows it."""
    limit, number = limit_of(name), 1
    while not collected.may_enter(limit, limit._policies[0].name):
        number += 1
        limit = limit_of(f"{name} {number}")
    return limit


class AppLimits:
    """The store of an application, and what its limits have made for it."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.throttlers: dict[Limited, Throttler] = {}
        self.limits: dict[tuple[Limited, str], RateLimit] = {}

    @functools.cached_property
    def store(self) -> Any:
        if self.given is None:
            logger.warning("rate limits are kept in the memory of this process; to share them among processes, set "
                           "app.state.rate_limit_store to a URL such as 'redis://localhost' or 'file:/run/app/limits'")
            return Store("memory:")
        return Store(self.given) if isinstance(self.given, str) else self.given


def limits_of(scope: Scope, limited: Limited) -> AppLimits:
    """The application keeps them; without one the router, or the limit itself."""
    owner = scope.get("app") or scope.get("router") or limited
    given = getattr(getattr(owner, "state", None), "rate_limit_store", None)
    limits: Optional[AppLimits] = vars(owner).get(APP_LIMITS)
    if limits is None or limits.given is not given:
        limits = AppLimits(given)
        vars(owner)[APP_LIMITS] = limits
    return limits


async def unused(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("a RateLimit of a route only judges")


class RoutePolicy(Policy):
    _request = "the request"


class RouteLimit(RateLimit):
    """It only judges. Its functions get the request."""

    _policy_type = RoutePolicy


class Limited:
    """What RateLimited and rate_limited have in common."""

    def __init__(
        self,
        limits: Union[Limits, Throttler, ThrottlerOf],
        *,
        key: Optional[Union[Key, Any]] = None,
        cost: Cost = 1,
        name: Optional[str] = None,
        hash: Union[bool, str, bytes] = False,
        store: Any = None,
        prefix: str = "",
        block_duration: Optional[float] = None,
        on_error: OnFault = "allow",
        on_overload: OnFault = "deny",
        fields: Form = "draft-11",
        dry_run: bool = False,
        on_decision: Optional[OnDecision] = None,
    ) -> None:
        self._throttler_options: dict[str, Any] = {"limits": limits, "prefix": prefix, "block_duration": block_duration}
        self._throttler: Union[Throttler, ThrottlerOf, None] = None
        if isinstance(limits, _core.Throttler) or callable(limits):
            if store is not None or prefix or block_duration is not None:
                raise TypeError("store, prefix and block_duration are the Throttler's; give rates, or leave them out")
            self._throttler = limits
        elif store is not None:
            self._throttler = Throttler(store, **self._throttler_options)
        if isinstance(name, str) and ":" in name:
            raise ValueError(f"name is {shown(name)}; it must have no colon, because the key of the client follows one")
        self._depends = key if hasattr(key, "dependency") and not callable(key) else None
        self._key: Any = (lambda request: request[GIVEN_KEY]) if self._depends is not None else key or client_address()
        self._cost, self._name, self._hash = cost, name, hash
        self._options: dict[str, Any] = {"on_error": on_error, "on_overload": on_overload, "fields": fields,
                                         "dry_run": dry_run, "on_decision": on_decision}
        throttler = self._throttler or Throttler(NEVER_ASKED, **self._throttler_options)
        self._made(throttler, "checked early" if name is None else name)

    def __repr__(self) -> str:
        limits = self._throttler if self._throttler is not None else self._throttler_options["limits"]
        name = "" if self._name is None else f", name={self._name!r}"
        return f"{type(self).__name__}({limits!r}{name})"

    def _made(self, throttler: Union[Throttler, ThrottlerOf], name: str) -> RateLimit:
        """Raises what is wrong with the options."""
        policy = RoutePolicy(throttler, self._key, self._cost, name, self._hash)
        return RouteLimit(unused, policies=[policy], **self._options)

    def _limit(self, limits: AppLimits, name: str) -> RateLimit:
        limit = limits.limits.get((self, name))
        if limit is None:
            throttler = self._throttler or limits.throttlers.get(self)
            if throttler is None:
                throttler = limits.throttlers[self] = Throttler(limits.store, **self._throttler_options)
            limit = limits.limits[self, name] = self._made(throttler, name)
        return limit

    async def _admit(
        self, connection: HTTPConnection, key: MaybeKey = NOT_GIVEN, with_method: bool = True
    ) -> RequestFields:
        """Raises Rejected if the request is not admitted."""
        scope = connection.scope
        limits = limits_of(scope, self)
        if self._name is not None:
            limit = self._limit(limits, self._name)
        else:
            limit = first_free(fields_of(scope), route_name(scope, with_method), functools.partial(self._limit, limits))
        if self._depends is not None:
            if key is NOT_GIVEN:
                raise TypeError("key=Depends(...) needs an endpoint of FastAPI; give a function of the request")
            scope[GIVEN_KEY] = key
        return await judged(limit, connection, connection)

    def _hidden(self) -> list[inspect.Parameter]:
        """What FastAPI has to give."""
        kind = inspect.Parameter.KEYWORD_ONLY
        hidden = [inspect.Parameter("rate_limit_connection", kind, annotation=HTTPConnection),
                  inspect.Parameter("rate_limit_response", kind, annotation=Response)]
        if self._depends is not None:
            hidden.append(inspect.Parameter("rate_limit_key", kind, annotation=Any, default=self._depends))
        return hidden


def add_fields(scope: Scope, collected: RequestFields, response: Any) -> None:
    """Puts the fields on a response, unless a middleware does it."""
    if FIELDS_KEY not in scope and isinstance(response, Response):
        response.raw_headers[:] = collected.merged(response.raw_headers)


class RateLimited(Limited):
    """A dependency of FastAPI: `Depends(RateLimited("5/minute"))`. Its value is the Decision.

    Give it to a route, to a router (`APIRouter(dependencies=[...])`) or to an application
    (`FastAPI(dependencies=[...])`).
    Give `responses=RateLimited.responses` beside it, so that OpenAPI has the answers 429 and 503.

    Arguments:
      limits: rates such as "5/minute" or ["10/second", "100/hour"], as of Throttler; or a Throttler, or a function of
        the request that returns one.
      key: a function of the request, which returns the key that the request counts for; None: it is not limited. It may
        be a coroutine function, or Depends(...) of FastAPI. The default is client_address().
      cost: the drops of a request: an int, or a function of the request.
      name: the name of the limit. Limits with the same name share buckets. By default each limit of each route has
        buckets of its own, and is named by the method and the template: "GET /items/{id}".
      hash: as of Policy.
      store: where the buckets are: a URL, a Store or a client. The default is app.state.rate_limit_store; if it is not
        set, the memory of this process.
      prefix, block_duration: as of Throttler.
      on_error, on_overload, fields, dry_run: as of RateLimit.
      on_decision: a function of the request and the Decision.
    """

    responses: ClassVar[dict[Union[int, str], dict[str, Any]]] = RESPONSES

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.Signature(self._hidden())

    async def __call__(
        self, rate_limit_connection: HTTPConnection, rate_limit_response: Response, rate_limit_key: MaybeKey = NOT_GIVEN
    ) -> Decision:
        collected = await self._admit(rate_limit_connection, rate_limit_key)
        add_fields(rate_limit_connection.scope, collected, rate_limit_response)
        decision: Decision = rate_limit_connection.state.rate_limit
        return decision


class rate_limited(Limited):  # noqa: N801: a decorator
    """A decorator for endpoints of FastAPI and Starlette: functions, coroutine functions, and classes as HTTPEndpoint.

        @app.get("/items/{id}", responses=RateLimited.responses)
        @rate_limited("5/minute")
        async def item(id: int): ...

    The arguments are those of RateLimited. A class has one bucket for all its methods, and a method has its own.
    """

    def __call__(self, endpoint: Endpoint) -> Endpoint:
        if inspect.isclass(endpoint):
            return cast(Endpoint, self._class(endpoint))
        if inspect.isgeneratorfunction(endpoint) or inspect.isasyncgenfunction(endpoint):
            raise TypeError(f"{shown(endpoint)} is a generator function; use the dependency RateLimited")
        return cast(Endpoint, self._function(endpoint))

    def _class(self, endpoint: Any) -> Any:
        limit = self
        if not hasattr(endpoint, "dispatch"):
            raise TypeError(f"{shown(endpoint)} has no dispatch(); it must be a class such as HTTPEndpoint")

        class LimitedEndpoint(endpoint):  # type: ignore[misc]
            send: Send

            async def dispatch(self) -> None:
                self.scope.setdefault("endpoint", LimitedEndpoint)  # without a router
                collected = await limit._admit(HTTPConnection(self.scope), with_method=False)
                if FIELDS_KEY not in self.scope:
                    self.send = Sender(self.send, collected)
                await super().dispatch()

        functools.update_wrapper(LimitedEndpoint, endpoint, updated=())
        return LimitedEndpoint

    def _function(self, function: Any) -> Any:
        @functools.wraps(function)
        async def limited(
            *args: Any, rate_limit_connection: Any = None, rate_limit_response: Any = None,
            rate_limit_key: MaybeKey = NOT_GIVEN, **kwargs: Any
        ) -> Any:
            request = rate_limit_connection or connection_in(function, args, kwargs)
            collected = await self._admit(request, rate_limit_key)
            if is_async(function):
                response = await function(*args, **kwargs)
            else:
                response = await run_in_threadpool(function, *args, **kwargs)
            for made in (response, rate_limit_response):
                add_fields(request.scope, collected, made)
            return response

        limited.__signature__ = with_parameters(function, self._hidden())  # type: ignore[attr-defined]
        return limited


# ---- Functions that a framework calls ----


def connection_in(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HTTPConnection:
    for given in (*args, *kwargs.values()):
        if isinstance(given, HTTPConnection):
            return given
    raise TypeError(f"{shown(function)} got no request; Starlette or FastAPI must call it")


def with_parameters(function: Any, more: list[inspect.Parameter]) -> inspect.Signature:
    """The signature of a function with more parameters. Annotations that are texts are evaluated here, because FastAPI
    would look for their names in this module."""
    signature = inspect.signature(function)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        hints = {}

    def evaluated(name: str, annotation: Any) -> Any:
        return hints.get(name, annotation) if isinstance(annotation, str) else annotation

    old = [each.replace(annotation=evaluated(each.name, each.annotation)) for each in signature.parameters.values()]
    at = len(old) - (bool(old) and old[-1].kind is inspect.Parameter.VAR_KEYWORD)
    return signature.replace(parameters=[*old[:at], *more, *old[at:]],
                             return_annotation=evaluated("return", signature.return_annotation))
