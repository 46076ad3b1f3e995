# SPDX-License-Identifier: MIT
"""The interface of the Python package: its async calls and its types."""
import asyncio
import functools
import importlib
import inspect
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Literal, Optional, Union
from unittest import mock

import pytest
from python_rig import patient, under_asyncio

pytestmark = pytest.mark.filterwarnings("error")

FRAMEWORKS = ("fastapi==0.165.0", "starlette==1.10.0", "httpx==0.28.1")
PROGRAM = Path(__file__).parent / "python_frameworks.py"
ASYNC = ("consume", "peek", "charge", "reset", "wait", "settle", "aclose")


def is_async(function):
    """True if inspect or asyncio says so. On some versions inspect fails for mocks; asyncio's check is deprecated in 3.14."""
    says = inspect.iscoroutinefunction(function)
    if sys.version_info < (3, 14):
        assert says == asyncio.iscoroutinefunction(function) or isinstance(function, mock.NonCallableMock), function
        return asyncio.iscoroutinefunction(function)
    return says


# ---- Async functions ----


class Doubler:
    async def __call__(self, value):
        return 2 * value


@pytest.mark.parametrize("name", ASYNC)
def test_awaited_methods_are_async_functions(aio, name):
    t = aio.Throttler("memory:", 10, 5)
    for ask in (getattr(t, name), getattr(aio.Throttler, name), functools.partial(getattr(aio.Throttler, name), t)):
        assert is_async(ask), ask
    assert is_async(functools.partial(getattr(t, name))) == is_async(functools.partial(Doubler().__call__)), "Python 3.9: no"
    assert is_async(aio.Store.aclose) and is_async(aio.connect("memory:").aclose)


@under_asyncio
async def test_a_mock_of_a_throttler_can_be_awaited(aio):
    for double in (mock.create_autospec(aio.Throttler), mock.create_autospec(aio.Throttler("memory:", 1, 1)),
                   mock.AsyncMock(spec=aio.Throttler)):
        instance = double if isinstance(double, aio.Throttler) else double.return_value
        for name in ASYNC:
            assert is_async(getattr(instance, name)), name
        instance.consume.return_value = aio.ThrottleResult(True, 1, 5.0, None)
        assert (await instance.consume("k", 2)).level == 1
        instance.consume.assert_awaited_once_with("k", 2)


@under_asyncio
async def test_each_call_returns_a_coroutine(aio, redis_server):
    for url in ("memory:", redis_server.url):
        async with patient(aio, url, 10, 5) as t:
            for asked in (t.consume("k"), t.peek("k"), t.reset("k")):
                assert inspect.iscoroutine(asked) and asyncio.iscoroutine(asked)
                await asked


def test_starlette_and_fastapi_await_the_methods(aiosteady, from_pypi):
    env = {**os.environ, "PYTHONPATH": f"{aiosteady}:{from_pypi(*FRAMEWORKS)}"}
    run = subprocess.run([sys.executable, "-X", "dev", "-W", "error", PROGRAM], env=env, capture_output=True, text=True,
                         timeout=60, check=False)
    assert run.returncode == 0 and run.stdout == "fine\n", run.stdout + run.stderr


@under_asyncio
async def test_every_async_callable_can_be_limited(aio):
    t = aio.Throttler("memory:", 100, 60)

    async def double(value):
        return 2 * value

    for function in (double, Doubler(), Doubler().__call__, functools.partial(double, 4), functools.partial(Doubler(), 4),
                     mock.AsyncMock(return_value=8), mock.create_autospec(double, return_value=8)):
        limited = t.limit("k")(function)
        assert is_async(limited)
        assert await (limited() if isinstance(function, functools.partial) else limited(4)) == 8
    again = t.limit("k")(t.limit("other")(double))
    assert await again(1) == 2 and (await t.peek("other")).level == 1
    assert (await t.peek("k")).level == 8


def public(module):
    """(name, function) of each public function and method of a module."""
    for name in module.__all__:
        thing = getattr(module, name)
        if not inspect.isclass(thing):
            yield name, thing
            continue
        for own in dir(thing):
            method = getattr(thing, own)
            if callable(method) and (not own.startswith("_") or own in ("__init__", "__call__", "__aenter__", "__aexit__")):
                yield f"{name}.{own}", method


MODULES = ("aiosteady", "aiosteady.asgi", "aiosteady.leakybucket")


def test_exactly_the_documented_calls_are_async(aio):
    found = {name for module in MODULES for name, call in public(importlib.import_module(module)) if is_async(call)}
    assert found == {*(f"Throttler.{name}" for name in ASYNC), "Store.aclose", "RateLimit.__call__", "consume_all", "peek_all",
                     *(f"{kind}.__a{when}__" for kind in ("Throttler", "Store", "Limit", "Reservation") for when in ("enter", "exit"))}


# ---- Types ----


def defined_here(call):
    return inspect.isfunction(inspect.unwrap(call)) and call.__module__.startswith("aiosteady")


def test_every_public_call_has_types_for_what_it_takes_and_returns(aio):
    seen = set()
    for module in MODULES:
        for name, call in public(importlib.import_module(module)):
            hints = typing.get_type_hints(call)
            if not defined_here(call):
                continue
            seen.add(name)
            taken = [word for word in inspect.signature(call).parameters if word != "self"]
            assert set(hints) == {*taken, "return"}, name
    assert seen >= {"connect", "client_address", "Throttler.__init__", "Throttler.limit", "Store.__init__", "Store.close",
                    "Store.stats", "Limit.__call__", "Limit.__aenter__", "RateLimit.__init__", "RateLimit.__call__",
                    "Policy.__init__", *(f"Throttler.{name}" for name in ASYNC)}


def test_the_types_are_as_documented(aio, aiosteady):
    asgi = importlib.import_module("aiosteady.asgi")
    hints = typing.get_type_hints
    assert hints(aio.Throttler.__init__)["on_error"] == Literal["report", "allow", "deny", "local"]
    assert hints(aio.Throttler.__init__)["block_duration"] == Optional[float]
    assert hints(aio.Throttler.consume) == hints(aio.Throttler.peek) == {
        "key": Union[str, bytes], "amount": int, "max_wait": Optional[float], "at_least": Optional[int],
        "return": aio.ThrottleResult}, "an amount is an int here, for FastAPI"
    assert hints(aio.connect)["timeout"] == hints(aio.Store.__init__)["timeout"] == Optional[float]
    assert hints(asgi.RateLimit.__init__)["throttler"] == Optional[asgi.Throttlers]
    assert hints(asgi.Policy)["throttler"] == asgi.Throttlers
    assert hints(aio.ThrottleResult) == {
        "success": bool, "level": int, "until_next_drop": float, "blocked_for": Optional[float],
        "retry_after": Optional[float], "source": str, "error": Optional[str], "must_wait": float, "granted": int,
        "name": Optional[str], "part": int, "atomic": bool, "parts": tuple[aio.ThrottleResult, ...],
        "limits": dict[str, aio.ThrottleResult]}
    for constructor in (aio.Throttler, aio.Store, asgi.RateLimit, asgi.Policy):
        words = inspect.signature(constructor).parameters.values()
        assert words and all(word.annotation is not word.empty for word in words), constructor
    assert list(inspect.signature(aio.Store).parameters) == list(inspect.signature(aio.connect).parameters)


def test_a_decorated_function_keeps_its_types(aio):
    @aio.Throttler("memory:", 1, 1).limit("k")
    async def half(value: int) -> float:
        return value / 2

    assert typing.get_type_hints(half) == {"value": int, "return": float}
    assert str(inspect.signature(half)) == "(value: int) -> float"
