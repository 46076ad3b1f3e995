# SPDX-License-Identifier: MIT
"""A web application with two limits for each client: ten requests at once and one a second; one login in five seconds.

    pip install ./python starlette uvicorn && python3 python/examples/app.py

It serves http://127.0.0.1:8000. Set PORT to use another port. Buckets are in memory; set REDIS_URL to keep them in Redis.
"""
import os

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import aiosteady
from aiosteady.asgi import Policy, RateLimit, Scope, client_address

store = aiosteady.connect(os.environ.get("REDIS_URL", "memory:"))
address = client_address()


def login_key(scope: Scope) -> "str | None":
    return address(scope) if scope["path"] == "/login" else None


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello\n")


policies = [
    Policy(aiosteady.Throttler(store, max_capacity=10, drop_recharge=1.0), name="requests"),
    Policy(aiosteady.Throttler(store, max_capacity=1, drop_recharge=5.0), key=login_key, name="logins"),
]
app = Starlette(
    routes=[Route("/", hello), Route("/login", hello)],
    middleware=[Middleware(RateLimit, policies=policies)],
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
