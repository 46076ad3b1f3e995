# SPDX-License-Identifier: MIT
"""Passes methods of a throttler to Starlette and FastAPI: as background tasks, as dependencies, as an endpoint.
tests/test_python_shape.py runs it."""
import asyncio
import functools
import json
from typing import Optional

import fastapi
import httpx
import pydantic
import starlette._utils
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aiosteady import Throttler, ThrottleResult, blocking, consume_all

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


# ---- Results as responses ----


class Answer(pydantic.BaseModel):
    success: bool
    retry_after: Optional[float]


class Wrapped(pydantic.BaseModel):
    result: ThrottleResult


several = Throttler("memory:", limits={"burst": "2/hour", "daily": "9/day"})
threads = blocking.Throttler("memory:", 2, 3600)


@app.get("/results/bare")
async def bare():
    return await several.consume("bare")


@app.get("/results/typed")
async def typed() -> ThrottleResult:
    return await several.consume("typed", 3)


@app.get("/results/declared", response_model=ThrottleResult)
async def declared():
    return await several.consume("declared")


@app.get("/results/blocking")
def in_a_thread() -> ThrottleResult:
    return threads.consume("k")


@app.get("/results/peek")
async def shown(result: ThrottleResult = Depends(several.peek)) -> dict[str, list[ThrottleResult]]:
    return {"results": [result, await consume_all([(several, "a"), (several, "b")])]}


@app.get("/results/model", response_model=Answer)
async def some_fields():
    return await several.consume("model", 3)


@app.get("/results/wrapped")
def wrapped() -> Wrapped:
    return Wrapped(result=threads.peek("k"))


@app.get("/results/reserved")
async def reserved() -> ThrottleResult:
    async with several.reserve("reserved", 2) as r:
        return r.result


FIELDS = ["success", "level", "until_next_drop", "blocked_for", "retry_after", "source", "error", "must_wait", "granted",
          "name", "part", "atomic"]


async def results():
    bare = await get(app, "/results/bare")
    assert list(bare) == [*FIELDS, "parts"] and [list(part) for part in bare["parts"]] == [FIELDS, FIELDS]
    assert (bare["success"], bare["level"], bare["blocked_for"], bare["source"], bare["name"]) == (True, 1, None, "store", "burst")
    denied = await get(app, "/results/typed")
    assert (denied["success"], denied["retry_after"], denied["granted"]) == (False, None, 0)
    assert [(part["name"], part["success"]) for part in denied["parts"]] == [("burst", False), ("daily", True)]
    assert (await get(app, "/results/declared"))["level"] == 1
    one = await get(app, "/results/blocking")
    assert (one["name"], one["level"], one["parts"]) == ("1h", 1, [])
    first, second = (await get(app, "/results/peek?key=x"))["results"]
    assert first["level"] == 0 and [part["part"] for part in second["parts"]] == [0, 0, 1, 1]
    assert await get(app, "/results/model") == {"success": False, "retry_after": None}
    assert (await get(app, "/results/wrapped"))["result"]["level"] == 1
    assert (await get(app, "/results/reserved"))["granted"] == 2
    openapi = await get(app, "/openapi.json")
    response = openapi["paths"]["/results/typed"]["get"]["responses"]["200"]["content"]["application/json"]
    assert response["schema"] == {"$ref": "#/components/schemas/ThrottleResult"}
    schemas = openapi["components"]["schemas"]
    assert list(schemas["ThrottleResult"]["properties"]) == [*FIELDS, "parts"]
    assert list(schemas["ThrottleResultPart"]["properties"]) == FIELDS
    for result in (await several.peek("bare"), threads.peek("k"), ThrottleResult(False, 1, 2.5, None, error="unknown", source="policy")):
        assert json.loads(json.dumps(vars(result))) == pydantic.TypeAdapter(ThrottleResult).dump_python(result, mode="json")
        for name in FIELDS:
            assert vars(result)[name] == getattr(result, name), name
    assert pydantic.TypeAdapter(ThrottleResult).validate_python(result) is result


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
    await results()
    assert (await t.peek("limited")).level == 1
    for ask in (t.consume, t.peek, t.reset, t.wait, t.aclose, functools.partial(t.consume, "k"), Throttler.consume):
        assert starlette._utils.is_async_callable(ask), ask


asyncio.run(main(), debug=True)
print("fine")
