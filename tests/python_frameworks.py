# SPDX-License-Identifier: MIT
"""Passes methods of a throttler to Starlette and FastAPI: as background tasks, as dependencies, as an endpoint.
tests/test_python_shape.py runs it."""
import asyncio
import functools

import fastapi
import httpx
import starlette._utils
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aiosteady import Throttler, ThrottleResult

t = Throttler("memory:", 10, 3600)
app = FastAPI()


def key():
    return "k"


async def background(request):
    return PlainTextResponse("fine", background=BackgroundTask(t.consume, "k", -2))


@app.get("/tasks")
async def tasks(tasks: BackgroundTasks):
    tasks.add_task(t.consume, "k", amount=-2)
    tasks.add_task(functools.partial(t.consume, "k"), -1)
    return "fine"


@app.get("/peek")
async def peek(result=Depends(t.peek)):
    assert type(result) is ThrottleResult, result
    return result.level


@app.get("/consume", dependencies=[Depends(t.consume)])
async def consume():
    return "fine"


@app.get("/once")
@t.limit("limited")
async def once():
    return "fine"


async def get(app, path):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        response = await client.get(path)
    assert response.status_code == 200, response.text
    return response.json() if app is not starlette_app else response.text


starlette_app = Starlette(routes=[Route("/background", background)])


async def main():
    await t.consume("k", 8)
    await get(starlette_app, "/background")
    assert (await t.peek("k")).level == 6
    await get(app, "/tasks")
    assert (await t.peek("k")).level == 3
    assert await get(app, "/peek?key=k") == 3
    await get(app, "/consume?key=k&amount=4")
    assert (await t.peek("k")).level == 7
    await get(app, "/once")
    assert (await t.peek("limited")).level == 1
    for ask in (t.consume, t.peek, t.reset, t.wait, t.aclose, functools.partial(t.consume, "k"), Throttler.consume):
        assert starlette._utils.is_async_callable(ask), ask


asyncio.run(main(), debug=True)
print("fine")
