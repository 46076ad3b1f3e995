# SPDX-License-Identifier: MIT
"""The ASGI middleware with Starlette and FastAPI and their test clients. tests/test_asgi_servers.py runs it."""
import asyncio

import fastapi
import httpx
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
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


for make in (of_starlette, of_fastapi):
    asyncio.run(limits(make()), debug=True)
limits_websockets()
print("fine")
