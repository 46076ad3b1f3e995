# SPDX-License-Identifier: MIT
"""Limits on routes of FastAPI and Starlette. tests/test_fastapi.py runs it with the newest versions and with old ones:

    python3 fastapi_routes.py URL_OF_REDIS PORT_WITHOUT_A_SERVER
"""
import asyncio
import inspect
import json
import logging
import sys
import tempfile
import traceback

import fastapi
import httpx
import starlette
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import aiosteady
from aiosteady import Rate, Throttler
from aiosteady.asgi import RateLimit
from aiosteady.blocking import Throttler as BlockingThrottler
from aiosteady.fastapi import Decision, RateLimited, RateLimitFields, Rejected, rate_limited, route_template

REDIS, CLOSED_PORT = sys.argv[1:]
QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"
CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
DENIAL_RESPONSES = hasattr(WebSocket, "send_denial_response")


async def asked(app, path, method="GET", client=("192.0.2.1", 50000), root_path="", **options):
    transport = httpx.ASGITransport(app, client=client, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as http:
        return await http.request(method, path, **options)


async def statuses(app, *paths, **options):
    return [(await asked(app, path, **options)).status_code for path in paths]


def in_memory(**options):
    app = FastAPI(**options)
    app.state.rate_limit_store = "memory:"
    return app


def names(response):
    """The names of the limits in the field RateLimit-Policy."""
    return [item.split('"')[1] for item in response.headers["ratelimit-policy"].split(", ")]


def check_denial(response, name, wait, status=429):
    problem = response.json()
    assert response.status_code == status == problem["status"], response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["retry-after"] == str(wait)
    assert problem["type"] == QUOTA and problem["violated-policies"] == [name], problem
    assert response.headers["ratelimit"] == f'"{name}";r=0;t={wait}', response.headers
    assert f'"{name}";q=' in response.headers["ratelimit-policy"]


# ---- Routes, routers, applications ----


async def test_a_dependency_of_a_route_denies_with_all_fields_and_a_problem():
    app = in_memory()

    @app.get("/items/{id}", dependencies=[Depends(RateLimited("2/minute"))])
    async def item(id: int):
        return id

    first, second, third = [await asked(app, f"/items/{i}") for i in range(3)]
    assert first.json() == 0 and second.json() == 1
    assert first.headers["ratelimit-policy"] == '"GET /items/{id}";q=2;w=60'
    assert first.headers["ratelimit"] == '"GET /items/{id}";r=1;t=30'
    check_denial(third, "GET /items/{id}", 30)
    assert await statuses(app, "/items/1", client=("192.0.2.2", 1)) == [200], "each client has a bucket"


async def test_a_limit_of_a_router_is_for_each_of_its_routes_and_a_name_makes_it_one():
    each, all = APIRouter(dependencies=[Depends(RateLimited("1/minute"))]), APIRouter(
        dependencies=[Depends(RateLimited("1/minute", name="all"))])
    for router in (each, all):
        router.get("/a")(lambda: "a")
        router.get("/b")(lambda: "b")
    app = in_memory()
    app.include_router(each, prefix="/each")
    app.include_router(all, prefix="/all")
    assert await statuses(app, "/each/a", "/each/b", "/each/a", "/each/b") == [200, 200, 429, 429]
    assert await statuses(app, "/all/a", "/all/b") == [200, 429]


async def test_a_limit_of_an_application_and_of_a_route_are_both_kept_and_shown_once():
    app = in_memory(dependencies=[Depends(RateLimited("3/minute", name="everything"))])
    limits = [Depends(RateLimited("2/minute")), Depends(RateLimited("1/hour", key=lambda r: "all"))]
    app.get("/a", dependencies=limits)(lambda: 1)
    app.get("/b")(lambda: 2)
    response = await asked(app, "/a")
    assert names(response) == ["everything", "GET /a", "GET /a 2"]
    check_denial(await asked(app, "/a", client=("192.0.2.2", 1)), "GET /a 2", 3600)
    assert await statuses(app, "/b", "/b", "/b") == [200, 200, 429]


async def test_limits_with_one_name_share_a_bucket_and_others_do_not():
    app = in_memory()
    app.get("/one", dependencies=[Depends(RateLimited("1/minute", name="shared"))])(lambda: 1)
    app.post("/one", dependencies=[Depends(RateLimited("1/minute"))])(lambda: 1)
    app.get("/two", dependencies=[Depends(RateLimited("1/minute", name="shared"))])(lambda: 1)
    app.api_route("/three", methods=["GET", "PUT"], dependencies=[Depends(RateLimited("1/minute"))])(lambda: 1)
    limit = Depends(RateLimited("1/minute"))
    app.get("/four", dependencies=[limit])(lambda: 1)
    app.get("/five", dependencies=[limit])(lambda: 1)
    assert await statuses(app, "/one", "/two") == [200, 429]
    assert await statuses(app, "/one", "/one", method="POST") == [200, 429]
    assert await statuses(app, "/three") + await statuses(app, "/three", method="PUT") == [200, 429]
    assert names(await asked(app, "/three")) == ["GET,PUT /three"]
    assert await statuses(app, "/four", "/five", "/four") == [200, 200, 429]


async def test_two_limits_of_one_name_on_one_request_are_refused():
    app = in_memory(dependencies=[Depends(RateLimited("5/minute", name="x"))])
    app.get("/", dependencies=[Depends(RateLimited("1/minute", name="x"))])(lambda: 1)
    try:
        await asked(app, "/")
    except RuntimeError as error:
        assert "policy 'x'" in str(error)
    else:
        raise AssertionError("a request costs twice")


async def test_the_template_has_all_prefixes():
    app, child, outer, inner = in_memory(), in_memory(), APIRouter(prefix="/outer"), APIRouter(prefix="/in/{x}")
    templates = []

    def note(request: Request):
        templates.append(route_template(request))
        return "key"

    limit = [Depends(RateLimited("9/minute", key=note))]
    inner.get("/items/{id:path}", dependencies=limit)(lambda: 1)
    outer.include_router(inner)
    app.include_router(outer)
    app.include_router(inner, prefix="/v2/{lang}")
    child.get("/items/{id}", dependencies=limit)(lambda: 1)
    app.mount("/child/{tenant}", child)
    app.get("/jobs:run", dependencies=limit)(lambda: 1)
    app.get("/caf\u00e9/100%", dependencies=limit)(lambda: 1)
    shown = [names(await asked(app, path)) for path in (
        "/outer/in/7/items/a/b", "/v2/en/in/7/items/a", "/child/5/items/3", "/jobs:run", "/caf\u00e9/100%25")]
    assert templates == ["/outer/in/{x}/items/{id}", "/v2/{lang}/in/{x}/items/{id}", "/child/{tenant}/items/{id}",
                         "/jobs:run", "/caf\u00e9/100%"], templates
    assert shown[:3] == [[f"GET {template}"] for template in templates[:3]], shown
    assert shown[3:] == [["GET /jobs%3Arun"], ["GET /caf%C3%A9/100%25"]], shown
    assert names(await asked(app, "/outer/in/1/items/2", root_path="/behind")) == ["GET /outer/in/{x}/items/{id}"]
    twice = APIRouter()
    twice.get("/two", dependencies=limit)(lambda: 1)
    app.include_router(twice)
    app.include_router(twice, prefix="/again")
    assert [names(await asked(app, path)) for path in ("/again/two", "/two")] == [["GET /again/two"], ["GET /two"]]


async def test_the_template_of_a_router_that_is_included_twice_is_that_of_the_route_that_answers():
    async def template(request: Request):
        return route_template(request)

    router, app, outer = APIRouter(), FastAPI(), FastAPI()
    router.add_api_route("/items/{id}", template)
    router.add_api_route("/files/{rest:path}", template)
    for prefix in ("/v1", "", "/{tenant}"):
        app.include_router(router, prefix=prefix)
    outer.mount("/m", app)
    expected = {"/v1/items/5": "/v1/items/{id}", "/acme/items/v1": "/{tenant}/items/{id}", "/items/5": "/items/{id}",
                "/files/a/files/b": "/files/{rest}", "/v1/files/a/b": "/v1/files/{rest}",
                "/acme/files/b": "/{tenant}/files/{rest}"}
    for path, declared in expected.items():
        for asked_of, head in ((app, ""), (outer, "/m")):
            for root_path in ("", "/api"):  # of the server; newer versions of Starlette expect it in the path
                is_new = tuple(map(int, starlette.__version__.split(".")[:2])) >= (0, 35)
                answer = await asked(asked_of, (root_path if is_new else "") + head + path, root_path=root_path)
                assert answer.json() == head + declared, (answer.json(), head, path, root_path)


async def test_a_route_that_is_added_later_or_hidden_by_a_middleware_has_a_name():
    app = in_memory()
    app.get("/a", dependencies=[Depends(RateLimited("1/minute"))])(lambda: 1)
    child = in_memory()
    child.get("/b/{x}", dependencies=[Depends(RateLimited("1/minute"))])(lambda: 1)
    app.mount("/hidden", RateLimitFields(lambda scope, receive, send: child(scope, receive, send)))
    assert names(await asked(app, "/a")) == ["GET /a"] and names(await asked(app, "/hidden/b/1")) == ["GET /b/{x}"]
    app.get("/later", dependencies=[Depends(RateLimited("1/minute"))])(lambda: 1)
    assert names(await asked(app, "/later")) == ["GET /later"]


# ---- Keys and costs ----


async def test_keys_come_from_the_request_its_body_or_a_dependency():
    app = in_memory()

    def user(x_user: str = Header()):
        return x_user

    async def login(request: Request):
        return (await request.json())["login"]

    app.get("/user", dependencies=[Depends(RateLimited("1/minute", key=Depends(user)))])(lambda: 1)
    app.post("/login", dependencies=[Depends(RateLimited("1/minute", key=login))])(lambda: 1)
    app.get("/free", dependencies=[Depends(RateLimited("1/minute", key=lambda r: r.headers.get("x-user")))])(lambda: 1)
    assert [(await asked(app, "/user", headers={"x-user": user})).status_code for user in "aba"] == [200, 200, 429]
    logins = [await asked(app, "/login", method="POST", json={"login": user}) for user in "aba"]
    assert [login.status_code for login in logins] == [200, 200, 429]
    assert await statuses(app, "/free", "/free") == [200, 200], "no key, no limit"
    assert (await asked(app, "/user")).status_code == 422, "FastAPI checks what the dependency takes"
    assert app.openapi()["paths"]["/user"]["get"]["parameters"][0]["name"] == "x-user"


async def test_costs_and_several_rates():
    app = in_memory()
    limit = RateLimited("10/minute", cost=lambda request: int(request.query_params["n"]))
    app.get("/cost", dependencies=[Depends(limit)])(lambda: 1)
    app.get("/several", dependencies=[Depends(RateLimited(["2/second", "3/hour"]))])(lambda: 1)
    assert await statuses(app, "/cost?n=6", "/cost?n=6", "/cost?n=4") == [200, 429, 200]
    never = await asked(app, "/cost?n=11")
    assert never.status_code == 422 and "retry-after" not in never.headers
    assert never.json()["title"] == "The request costs more than its quota ever holds"
    assert names(await asked(app, "/several")) == ["GET /several:1s", "GET /several:1h"]


async def test_a_bad_key_is_400_and_a_wrong_type_raises():
    app = in_memory()
    app.get("/", dependencies=[Depends(RateLimited("1/minute", key=lambda r: r.query_params["k"]))])(lambda: 1)
    app.get("/wrong", dependencies=[Depends(RateLimited("1/minute", key=lambda r: 5))])(lambda: 1)
    assert await statuses(app, "/?k=", "/?k=" + "x" * 2000, "/?k=x") == [400, 400, 200]
    try:
        await asked(app, "/wrong")
    except TypeError as error:
        assert "must be str, bytes or None, not int" in str(error)
    else:
        raise AssertionError("a key of a wrong type")


async def test_a_throttler_for_each_request_a_dry_run_and_a_hook():
    app, seen = in_memory(), []
    tiers = {"free": Throttler("memory:", limits="1/minute"), "paid": Throttler("memory:", limits="3/minute")}
    limit = RateLimited(lambda request: tiers[request.query_params["tier"]])
    app.get("/tiers", dependencies=[Depends(limit)])(lambda: 1)

    def note(request, decision):
        seen.append((request.url.path, decision))

    limit = RateLimited("1/minute", dry_run=True, on_decision=note)
    app.get("/dry", dependencies=[Depends(limit)])(lambda: 1)
    assert await statuses(app, "/tiers?tier=free", "/tiers?tier=free") == [200, 429]
    assert await statuses(app, *["/tiers?tier=paid"] * 4) == [200, 200, 200, 429]
    assert await statuses(app, "/dry", "/dry") == [200, 200]
    assert [(path, decision.allowed, decision.dry_run) for path, decision in seen] == [
        ("/dry", True, False), ("/dry", False, True)]


# ---- Stores ----


async def test_the_store_is_that_of_the_limit_or_of_the_application():
    for given in (REDIS, aiosteady.connect(REDIS, timeout=10)):
        app, other = FastAPI(), FastAPI()
        for each in (app, other):
            each.state.rate_limit_store = given
            each.get("/shared", dependencies=[Depends(RateLimited("1/minute", prefix=str(id(given))))])(lambda: 1)
        store = aiosteady.connect("memory:")
        app.get("/own", dependencies=[Depends(RateLimited("1/minute", store=store, name="own"))])(lambda: 1)
        assert await statuses(app, "/shared") + await statuses(other, "/shared") == [200, 429]
        assert await statuses(app, "/own", "/own") == [200, 429]
        level = (await Throttler(store, limits="1/minute").peek("own:192.0.2.1")).level
        assert level == 1


async def test_a_throttler_keeps_its_own_options():
    throttler = Throttler("memory:", limits=Rate(1, 60, 600))
    app = FastAPI()
    app.get("/", dependencies=[Depends(RateLimited(throttler))])(lambda: 1)
    await asked(app, "/")
    check_denial(await asked(app, "/"), "GET /", 600)
    assert throttler.redis == "memory:" and not hasattr(app.state, "rate_limit_store")


async def test_without_a_store_the_memory_of_the_process_is_used_and_one_line_says_so():
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    handler.addFilter(lambda record: "app.state.rate_limit_store" in record.getMessage())
    logger = logging.getLogger("aiosteady")
    logger.addHandler(handler)
    app = FastAPI(dependencies=[Depends(RateLimited("2/minute", name="x"))])
    app.get("/a")(lambda: 1)
    app.get("/b", dependencies=[Depends(RateLimited("9/minute"))])(lambda: 1)
    assert await statuses(app, "/a", "/b", "/a") == [200, 200, 429]
    assert len(lines) == 1
    app.state.rate_limit_store = "memory:"
    assert await statuses(app, "/a", "/a", "/a") == [200, 200, 429], "another store is used at once"
    logger.removeHandler(handler)
    assert len(lines) == 1


async def test_processes_share_a_file():
    with tempfile.TemporaryDirectory() as folder:
        apps = [FastAPI(), FastAPI()]
        for app in apps:  # each opens the file itself, like a worker process
            app.state.rate_limit_store = f"file:{folder}/limits"
            app.get("/", dependencies=[Depends(RateLimited("3/minute"))])(lambda: 1)
        assert [(await asked(apps[i % 2], "/")).status_code for i in range(5)] == [200] * 3 + [429] * 2


async def test_a_silent_store_lets_requests_pass_or_is_503():
    app = FastAPI()
    app.state.rate_limit_store = f"redis://127.0.0.1:{CLOSED_PORT}"
    app.get("/allow", dependencies=[Depends(RateLimited("1/minute"))])(lambda: 1)
    app.get("/deny", dependencies=[Depends(RateLimited("1/minute", on_error="deny"))])(lambda: 1)
    passed, denied = await asked(app, "/allow"), await asked(app, "/deny")
    assert passed.status_code == 200 and "ratelimit" not in passed.headers
    assert denied.status_code == 503 and denied.json()["type"] == CAPACITY
    assert 1 <= int(denied.headers["retry-after"]) <= 5


# ---- Responses ----


async def test_openapi_has_the_denial_and_is_the_same_each_time():
    app = FastAPI(dependencies=[Depends(RateLimited("9/minute"))], responses=RateLimited.responses)
    app.get("/")(lambda: 1)
    router = APIRouter(responses=RateLimited.responses)
    router.get("/r/{n}")(lambda n: 1)
    other = FastAPI()
    other.include_router(router)
    before = json.dumps(RateLimited.responses)
    for schema in (app.openapi()["paths"]["/"], other.openapi()["paths"]["/r/{n}"]):
        responses = schema["get"]["responses"]
        assert set(responses["429"]["headers"]) == {"Retry-After", "RateLimit", "RateLimit-Policy"}
        assert "violated-policies" in responses["429"]["content"]["application/problem+json"]["schema"]["properties"]
        assert "503" in responses
    assert "422" in responses, "the answer of FastAPI to a wrong parameter is not replaced"
    assert json.dumps(RateLimited.responses) == before


async def test_the_fields_are_merged_with_those_of_an_outer_middleware():
    app = in_memory(dependencies=[Depends(RateLimited("5/minute"))])
    app.get("/data")(lambda: 1)
    app.get("/response")(lambda: PlainTextResponse("x"))
    app.add_middleware(RateLimit, throttler=Throttler("memory:", 9, 60), name="outer")
    for path in ("/data", "/response"):
        response = await asked(app, path)
        assert names(response) == ["outer", f"GET {path}"]
        assert len(response.headers.get_list("ratelimit")) == 1
    for _ in range(4):
        await asked(app, "/data")
    denied = await asked(app, "/data")
    check_denial(denied, "GET /data", 12)
    assert names(denied) == ["outer", "GET /data"] and len(denied.headers.get_list("retry-after")) == 1


async def test_rate_limit_fields_puts_the_fields_on_each_response():
    app = in_memory(dependencies=[Depends(RateLimited("5/minute"))])

    @app.get("/error")
    async def error():
        raise HTTPException(404)

    app.get("/stream")(lambda: StreamingResponse(iter("abc")))
    app.get("/data")(lambda: 1)
    assert "ratelimit" not in (await asked(app, "/error")).headers
    app = FastAPI(routes=app.routes, middleware=[Middleware(RateLimitFields)])
    app.state.rate_limit_store = "memory:"
    for path, status in (("/error", 404), ("/stream", 200), ("/data", 200)):
        response = await asked(app, path)
        assert response.status_code == status and names(response) == [f"GET {path}"]


async def test_other_forms_of_fields():
    app = in_memory(dependencies=[Depends(RateLimited("5/minute", fields="x"))])
    app.get("/", dependencies=[Depends(RateLimited("3/minute", fields="x"))])(lambda: 1)
    response = await asked(app, "/")
    assert response.headers["x-ratelimit-limit"] == "3" and response.headers["x-ratelimit-remaining"] == "2"
    assert "ratelimit" not in response.headers


async def test_the_decision_is_the_value_of_the_dependency_and_in_the_state():
    app = in_memory()

    @app.get("/")
    async def hello(request: Request, decision: Decision = Depends(RateLimited("5/minute", hash=True))):
        assert request.state.rate_limit is decision and decision.allowed
        return [decision.results["GET /"].level, len(decision.keys["GET /"])]

    assert (await asked(app, "/")).json() == [1, 64]


async def test_a_handler_of_the_application_answers_in_its_own_form():
    app = in_memory(dependencies=[Depends(RateLimited("1/minute"))])
    app.get("/")(lambda: 1)

    @app.exception_handler(Rejected)
    async def own(request, rejected):
        assert rejected.decision.denied_by == ("GET /",) and request.state.rate_limit is rejected.decision
        return PlainTextResponse("slowly!", rejected.status_code, rejected.headers)

    await asked(app, "/")
    denied = await asked(app, "/")
    assert denied.text == "slowly!" and denied.headers["retry-after"] == "60" and names(denied) == ["GET /"]


async def test_an_override_turns_a_limit_off():
    app, limit = in_memory(), RateLimited("1/minute")
    app.get("/", dependencies=[Depends(limit)])(lambda: 1)
    app.dependency_overrides[limit] = lambda: None
    assert await statuses(app, "/", "/", "/") == [200] * 3


# ---- WebSockets ----


def refused(client, path):
    """The status and headers of a denied handshake. Old versions of Starlette can only close it."""
    try:
        with client.websocket_connect(path):
            raise AssertionError("accepted")
    except WebSocketDisconnect as error:
        if not DENIAL_RESPONSES:
            assert error.code == 1013
            return None
        return error.status_code, error.headers


async def test_a_websocket_is_counted_when_it_is_opened():
    app = in_memory()

    async def accept(websocket: WebSocket):
        await websocket.accept()
        await websocket.close()

    @rate_limited("1/minute")
    class Endpoint(WebSocketEndpoint):
        pass

    app.websocket("/dependency", dependencies=[Depends(RateLimited("1/minute"))])(accept)
    app.websocket("/decorator")(rate_limited("1/minute")(accept))
    app.router.routes += [WebSocketRoute("/starlette", rate_limited("1/minute")(accept)),
                          WebSocketRoute("/class", Endpoint)]
    client = TestClient(app)
    for path, name in (("/dependency", "WS /dependency"), ("/decorator", "WS /decorator"),
                       ("/starlette", "WS /starlette"), ("/class", "/class")):
        with client.websocket_connect(path):
            pass
        answer = refused(client, path)
        if DENIAL_RESPONSES:
            assert answer[0] == 429 and answer[1]["ratelimit"] == f'"{name}";r=0;t=60', answer


# ---- The decorator ----


async def test_the_decorator_limits_endpoints_of_fastapi():
    app = in_memory()

    @app.get("/sync/{id}", responses=RateLimited.responses)
    @rate_limited("1/minute")
    def sync(id: "int", request: "Request", x_user: "str" = Header("nobody")) -> "dict[str, str]":
        assert request.state.rate_limit.allowed
        return {"user": x_user, "id": str(id)}

    def user(x_user: str = Header()):
        return x_user

    @app.get("/async")
    @rate_limited("1/minute", key=Depends(user))
    async def asynchronous(request: Request):
        assert request.state.rate_limit.allowed
        return PlainTextResponse("x")

    first, denied = await asked(app, "/sync/7", headers={"x-user": "a"}), await asked(app, "/sync/8")
    assert first.json() == {"user": "a", "id": "7"} and first.headers["ratelimit"] == '"GET /sync/{id}";r=0;t=1'
    check_denial(denied, "GET /sync/{id}", 60)
    assert (await asked(app, "/sync/seven")).status_code == 422
    answers = [await asked(app, "/async", headers={"x-user": user}) for user in "aba"]
    assert [answer.status_code for answer in answers] == [200, 200, 429] and names(answers[0]) == ["GET /async"]
    parameters = {p["name"] for p in app.openapi()["paths"]["/sync/{id}"]["get"]["parameters"]}
    assert parameters == {"id", "x-user"}, "FastAPI shows no parameter of ours"
    assert "429" in app.openapi()["paths"]["/sync/{id}"]["get"]["responses"]


async def test_the_decorator_limits_endpoints_of_starlette():
    @rate_limited("1/minute")
    async def asynchronous(request):
        return PlainTextResponse("async")

    @rate_limited("1/minute")
    def sync(request):
        return PlainTextResponse("sync")

    @rate_limited("2/minute")
    class Whole(HTTPEndpoint):
        "A class."

        async def get(self, request):
            return PlainTextResponse("get")

        def post(self, request):
            return PlainTextResponse("post")

    class Methods(HTTPEndpoint):
        @rate_limited("1/minute")
        async def get(self, request):
            return PlainTextResponse("get")

        @rate_limited("2/minute")
        def post(self, request):
            return PlainTextResponse("post")

    app = Starlette(routes=[
        Route("/async", asynchronous), Route("/sync", sync), Route("/whole", Whole), Route("/methods/{n:int}", Methods),
        Mount("/mounted/{x}", routes=[Route("/async", asynchronous)]),
        Host("{sub}.example", Router([Route("/", sync)])),
        Route("/", lambda request: PlainTextResponse("free"))])
    app.state.rate_limit_store = "memory:"
    assert Whole.__name__ == "Whole" and Whole.__doc__ == "A class."
    for path, name in (("/async", "GET /async"), ("/sync", "GET /sync"), ("/mounted/7/async", "GET /mounted/{x}/async"),
                       ("/", "GET {sub}.example/")):
        allowed, denied = await asked(app, path), await asked(app, path)
        assert allowed.status_code == 200 and names(allowed) == [name]
        check_denial(denied, name, 60)
    assert (await asked(app, "/sync", method="HEAD")).status_code == 429, "HEAD counts as GET"
    assert names(await asked(app, "/whole")) == ["/whole"]
    assert await statuses(app, "/whole", "/whole", method="POST") == [200, 429]
    assert await statuses(app, "/methods/1", "/methods/2") == [200, 429]
    assert await statuses(app, "/methods/1", method="HEAD") == [429]
    assert await statuses(app, "/methods/1", "/methods/1", "/methods/1", method="POST") == [200, 200, 429]


async def test_an_application_without_a_store_or_without_an_application_works():
    @rate_limited("1/minute", store="memory:")
    async def hello(request):
        return PlainTextResponse("hello")

    @rate_limited("1/minute", store="memory:")
    class Endpoint(HTTPEndpoint):
        async def get(self, request):
            return PlainTextResponse("hello")

    answer = await asked(Endpoint, "/")
    assert answer.status_code == 200 and names(answer)[0].endswith(".Endpoint")
    router = Router([Route("/", hello)])
    assert await statuses(router, "/") == [200]
    try:
        await asked(router, "/")
    except Rejected as rejected:  # no application, no handlers
        assert rejected.status_code == 429
    else:
        raise AssertionError("allowed")


# ---- What is refused at once ----


async def test_wrong_arguments_are_named_at_once():
    store = aiosteady.connect("memory:")
    for wrong, text in [
        (lambda: RateLimited("five a minute"), "no rate"),
        (lambda: RateLimited("5/minute", cost=6), "cost is 6, over the capacity of 5"),
        (lambda: RateLimited("5/minute", name="a:b"), "must have no colon"),
        (lambda: RateLimited("5/minute", name="caf\u00e9"), "printable ASCII"),
        (lambda: RateLimited("5/minute", name=""), "name is ''; it must be printable ASCII"),
        (lambda: RateLimited("5/minute", name=5), "name is 5; it must be printable ASCII"),
        (lambda: RateLimited(aiosteady.blocking.Throttler("memory:", 5, 60)), "not aiosteady.blocking.Throttler"),
        (lambda: RateLimited("5/minute", key="x"), "key must be a function of the request, not str"),
        (lambda: RateLimited("5/minute", fields="y"), "fields is 'y'"),
        (lambda: RateLimited("5/minute", on_decision=5), "on_decision"),
        (lambda: RateLimited("5/minute", on_error="pass"), "on_error is 'pass'"),
        (lambda: RateLimited(Throttler(store, limits="1/s"), store=store), "store, prefix and block_duration"),
        (lambda: rate_limited("5/minute")(lambda: (yield)), "generator"),
        (lambda: rate_limited("5/minute")(dict), "no dispatch"),
    ]:
        try:
            wrong()
        except (ValueError, TypeError) as error:
            assert text in str(error), error
        else:
            raise AssertionError(text)


async def test_an_endpoint_that_is_called_without_a_request_says_so():
    @rate_limited("5/minute")
    async def endpoint():
        pass

    @rate_limited("5/minute", key=Depends(lambda: "k"))
    async def starlette_endpoint(request):
        pass

    app = Starlette(routes=[Route("/", starlette_endpoint)])
    for wrong, text in ((endpoint(), "got no request"), (asked(app, "/"), "needs an endpoint of FastAPI")):
        try:
            await wrong
        except TypeError as error:
            assert text in str(error)
        else:
            raise AssertionError(text)


# ---- Throttler.limit ----


async def test_limit_without_a_time_denies_on_endpoints_and_waits_elsewhere():
    t = Throttler("memory:", limits="2/minute")
    app = FastAPI()

    @app.get("/plain")
    @t.limit("plain")
    async def plain():
        return "x"

    @app.get("/response")
    @t.limit(lambda name: f"user {name}")
    async def response(name: str):
        return PlainTextResponse(name)

    @t.limit("dependency")
    async def dependency():
        return 5

    app.get("/dependency")(lambda n=Depends(dependency): n)
    for path, name in (("/plain", "plain"), ("/response?name=a", "response"), ("/dependency", "dependency")):
        answers = [await asked(app, path) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429], (path, answers)
        check_denial(answers[2], name, 30)
    assert (await t.peek("plain")).level == 2 == (await t.peek("user a")).level, "the key has no name before it"
    assert set(inspect.signature(response).parameters) == {"name"}
    quick = Throttler("memory:", limits="10/second burst 1")
    calls = []

    @quick.limit("k")
    async def helper():
        calls.append(1)

    @app.get("/helper")
    async def uses_helper():
        await helper()
        await asyncio.gather(helper(), asyncio.create_task(helper()))

    assert await statuses(app, "/helper") == [200] and len(calls) == 3, "a function that the endpoint calls waits"


async def test_the_key_of_limit_on_an_endpoint_is_whole_in_the_decision_and_nonsense_is_named():
    app = FastAPI()

    @app.get("/login")
    @Throttler("memory:", limits="1/minute").limit("login:bob")
    async def login(request: Request):
        return repr(request.state.rate_limit.keys)

    assert (await asked(app, "/login")).json() == "{'login': b'login:bob'}"
    for key, status, text in ((5, 500, "the key of policy 'named' must be str or bytes, not int"), ("\ud800", 400, None)):
        @Throttler("memory:", limits="1/minute").limit(lambda key=key: key)
        async def named():
            return 1

        app = FastAPI()
        app.get("/")(named)
        try:
            assert (await asked(app, "/")).status_code == status
        except TypeError as error:
            assert str(error) == text


async def test_limit_with_a_time_waits_and_then_denies():
    quick, slow = Throttler("memory:", limits="20/second burst 1"), Throttler("memory:", limits=Rate(1, 60, 600))
    app = FastAPI()

    @app.get("/quick")
    @quick.limit("k", timeout=5)
    async def waits():
        return 1

    @app.get("/slow")
    @slow.limit("k", timeout=0.01)
    async def gives_up():
        return 1

    assert await statuses(app, "/quick", "/quick", "/quick") == [200] * 3
    await asked(app, "/slow")
    check_denial(await asked(app, "/slow"), "gives_up", 60)
    assert (await slow.peek("k")).blocked_for is None, "a wait starts no block"


async def test_limit_on_starlette_endpoints_two_at_once_and_under_a_middleware():
    t, several = Throttler("memory:", limits="2/minute"), Throttler("memory:", limits=["5/minute", "9/hour"])

    @t.limit("inner")
    @several.limit("x", {"1m": 2, "1h": 1})
    async def both(request):
        assert request.state.rate_limit.allowed
        return PlainTextResponse("x")

    class Endpoint(HTTPEndpoint):
        @t.limit("get")
        async def get(self, request):
            return PlainTextResponse("x")

    app = Starlette(routes=[Route("/both", both), Route("/class", Endpoint)])
    answers = [await asked(app, "/both") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert names(answers[0]) == ["both", "both 2:1m", "both 2:1h"]
    assert await statuses(app, "/class", "/class", "/class") == [200, 200, 429]
    outer = RateLimit(app, Throttler("memory:", 99, 60), name="outer")
    assert names(await asked(outer, "/both")) == ["outer", "both"]


async def test_limit_without_a_verdict_is_503_and_an_amount_that_never_fits_is_422():
    away = Throttler(f"redis://127.0.0.1:{CLOSED_PORT}", limits="2/minute")
    app = FastAPI()
    ran = []
    for path, key, options in (("/now", "k", {}), ("/time", "k", {"timeout": 1}), ("/never", "k", {"amount": 3}),
                               ("/empty", "", {})):
        app.get(path)(away.limit(key, **options)(noted(ran)))
    answers = [await asked(app, path) for path in ("/now", "/time", "/never", "/empty")]
    assert [answer.status_code for answer in answers] == [503, 503, 422, 400] and not ran, answers
    assert answers[0].json()["type"] == CAPACITY and "retry-after" in answers[1].headers


def noted(ran):
    async def endpoint():
        ran.append(1)

    return endpoint


async def test_limit_of_a_blocking_throttler_on_plain_functions_that_get_the_request():
    t = BlockingThrottler("memory:", limits="2/minute")
    away = BlockingThrottler(f"redis://127.0.0.1:{CLOSED_PORT}", limits="2/minute")
    quick = BlockingThrottler("memory:", limits="20/second burst 1")

    @t.limit("plain")
    def plain(request):
        assert request.state.rate_limit.allowed
        return PlainTextResponse("x")

    @t.limit("time", timeout=0.01)
    @quick.limit("k", timeout=5)
    def time(request):
        return PlainTextResponse("x")

    @away.limit("k")
    def silent(request):
        raise AssertionError("it ran")

    class Endpoint(HTTPEndpoint):
        @t.limit("get", 3)
        def get(self, request):
            raise AssertionError("it ran")

    app = in_memory()

    @app.get("/fastapi")
    @t.limit("fastapi")
    def of_fastapi(request: Request, n: int = 5):
        return helper(n)

    @quick.limit("helper")
    def helper(n):
        return n

    app.router.routes += [Route("/plain", plain), Route("/time", time), Route("/silent", silent),
                          Route("/class", Endpoint)]
    for path, name in (("/plain", "plain"), ("/time", "time"), ("/fastapi", "of_fastapi")):
        answers = [await asked(app, path) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429], (path, answers)
        check_denial(answers[2], name, 30)
    assert names(await asked(app, "/plain", client=("192.0.2.2", 1))) == ["plain"]
    assert await statuses(app, "/silent", "/class") == [503, 422]
    assert t.peek("plain").level == 2


# ---- Run ----


async def main():
    tests = [test for name, test in globals().items() if name.startswith("test_")]
    failed = 0
    for test in tests:
        try:
            await asyncio.wait_for(test(), 60)
        except Exception:
            failed += 1
            print(f"{test.__name__} with FastAPI {fastapi.__version__}, Starlette {starlette.__version__}")
            traceback.print_exc()
    print(f"{len(tests) - failed} passed, {failed} failed")


asyncio.run(main(), debug=True)
