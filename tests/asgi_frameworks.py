# SPDX-License-Identifier: MIT
"""The ASGI middleware with Starlette and FastAPI and their test clients. tests/test_asgi_servers.py runs it."""
import asyncio

import fastapi
import httpx
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from aiosteady import Throttler
from aiosteady.asgi import RateLimit


def of_starlette():
    async def hello(request):
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/", hello)])


def of_fastapi():
    app = fastapi.FastAPI()
    app.get("/")(lambda: "hello")
    return app


async def limits(app):
    app.add_middleware(RateLimit, throttler=Throttler("memory:", 2, 60.0))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        one, two, denied = [await client.get("/") for _ in range(3)]
    assert [(r.status_code, r.headers["ratelimit"]) for r in (one, two, denied)] == [
        (200, '"default";r=1;t=60'), (200, '"default";r=0;t=1'), (429, '"default";r=0;t=60')]
    assert denied.headers["retry-after"] == "60" and denied.json()["violated-policies"] == ["default"]


def limits_websockets():
    async def accept(websocket):
        await websocket.accept()
        await websocket.close()

    app = Starlette(routes=[WebSocketRoute("/", accept)])
    client = TestClient(RateLimit(app, Throttler("memory:", 1, 60.0)))
    with client.websocket_connect("/"):
        pass
    try:
        client.websocket_connect("/").__enter__()
    except WebSocketDenialResponse as refused:
        assert refused.status_code == 429 and refused.headers["retry-after"] == "60"
    else:
        raise AssertionError("accepted")


def answers_with_a_response_of_starlette():
    def denied(scope, decision):
        return JSONResponse({"by": decision.denied_by}, status_code=429, headers={"cache-control": "private"})

    client = TestClient(RateLimit(of_starlette(), Throttler("memory:", 1, 60.0), on_denied=denied))
    client.get("/")
    response = client.get("/")
    assert (response.status_code, response.json()) == (429, {"by": ["default"]})
    assert response.headers["retry-after"] == "60" and response.headers["ratelimit"] == '"default";r=0;t=60'
    assert response.headers.get_list("cache-control") == ["private"]
    try:
        TestClient(client.app).websocket_connect("/").__enter__()
    except WebSocketDenialResponse as refused:
        assert refused.json() == {"by": ["default"]}
    else:
        raise AssertionError("accepted")


def settles():
    seen = []

    async def state(request):
        return PlainTextResponse(str(request.state.rate_limit.results["default"].level))

    async def broken(request):
        raise ValueError("broken")

    async def stream(request):
        async def events():
            for i in range(100):
                yield b"data: %d\n\n" % i

        return StreamingResponse(events(), media_type="text/event-stream")

    def settle(outcome):
        seen.append((outcome.status, outcome.complete, outcome.size, outcome.body[-12:], type(outcome.exception).__name__))
        return 0 if outcome.exception else None

    app = Starlette(routes=[Route("/", state), Route("/broken", broken), Route("/stream", stream)])
    app.add_middleware(RateLimit, throttler=Throttler("memory:", 10, 3600.0), settle=settle, body_bytes=100)
    client = TestClient(app, raise_server_exceptions=False)
    assert client.get("/").text == "1"
    assert client.get("/broken").status_code == 500
    assert client.get("/stream").text.endswith("data: 99\n\n")
    assert client.get("/").text == "3", "the exception gave its drop back"
    assert seen == [(200, True, 1, b"1", "NoneType"), (500, False, 0, b"", "ValueError"),
                    (200, True, 990, b"8\n\ndata: 99\n\n"[-12:], "NoneType"), (200, True, 1, b"3", "NoneType")], seen


for make in (of_starlette, of_fastapi):
    asyncio.run(limits(make()), debug=True)
limits_websockets()
answers_with_a_response_of_starlette()
settles()
print("fine")
