# SPDX-License-Identifier: MIT
"""The repr of throttlers, stores and results shows what matters, and no password."""
import os
import subprocess
import sys

import pytest
from python_rig import under_asyncio

PASSWORD = "hunter2"


@pytest.fixture(params=["aiosteady", "aiosteady.blocking"])
def module(request, aio):
    import aiosteady.blocking

    return {"aiosteady": aio, "aiosteady.blocking": aiosteady.blocking}[request.param]


# ---- Throttlers ----


@pytest.mark.parametrize(("arguments", "shown"), [
    ({"max_capacity": 10, "drop_recharge": 5.0}, "max_capacity=10, drop_recharge=5.0, block_duration=None"),
    ({"max_capacity": 10, "drop_recharge": 5, "block_duration": 3, "drops": 2}, "max_capacity=10, drop_recharge=5, block_duration=3, drops=2"),
    ({"limits": "5/s"}, "limits={'1s': Rate(max_capacity=5, drop_recharge=1, block_duration=None, drops=5)}"),
    ({"limits": {"a": "5/s", "b": "9/m"}, "block_duration": 2},
     "limits={'a': Rate(max_capacity=5, drop_recharge=1, block_duration=2, drops=5), "
     "'b': Rate(max_capacity=9, drop_recharge=60, block_duration=2, drops=9)}"),
])
@pytest.mark.parametrize(("options", "more"), [
    ({}, ""),
    ({"prefix": "login:", "on_error": "deny"}, ", prefix='login:', on_error='deny'"),
    ({"on_error": "local", "local_share": 4, "max_ahead": 2.5, "clamp": True}, ", on_error='local', local_share=4, max_ahead=2.5, clamp=True"),
    ({"prefix": "", "on_error": "report", "local_share": 1, "max_ahead": None, "clamp": False}, ""),
])
def test_a_throttler_shows_its_limits_and_its_options(module, arguments, shown, options, more):
    t = module.Throttler("memory:", **arguments, **options)
    assert repr(t) == f"Throttler(redis='memory:', {shown}{more})"
    twin = eval(repr(t), {"Throttler": module.Throttler, "Rate": module.Rate})
    assert repr(twin) == repr(t) and twin.limits == t.limits


def test_a_throttler_shows_its_store(module):
    assert repr(module.Throttler(module.connect("memory:"), 1, 60)).startswith("Throttler(redis=<Store 'memory:', ready>, max_capacity=1,")


# ---- Stores ----


@pytest.mark.parametrize(("url", "options", "shown"), [
    ("memory:", {}, "'memory:', ready"),
    ("memory:", {"buckets": 64, "timeout": 0.5, "engine": "auto", "max_in_flight": 0}, "'memory:', timeout=0.5, buckets=64, ready"),
    (f"redis://user:{PASSWORD}@127.0.0.1:1/2?client_name=me", {"engine": "script", "connect_timeout": 1.5, "max_in_flight": 9},
     "'redis://***@127.0.0.1:1/2?client_name=me', max_in_flight=9, engine='script', connect_timeout=1.5, connecting"),
    (f"redis+sentinel://127.0.0.1:1/svc?sentinel_password={PASSWORD}", {"client_name": "web-1", "deny_memory": 0, "lease_age": 0.1},
     "'redis+sentinel://127.0.0.1:1/svc?sentinel_password=***', client_name='web-1', deny_memory=0, lease_age=0.1, connecting"),
])
def test_a_store_shows_its_url_its_options_and_its_state(module, url, options, shown):
    store = module.connect(url, **options)
    assert repr(store) == str(store) == f"<Store {shown}>"
    store.close()
    assert repr(store) == f"<Store {shown.rpartition(', ')[0]}, closed>"


def test_a_blocking_store_shows_its_connections(aio):
    import aiosteady.blocking

    assert repr(aiosteady.blocking.connect("redis://h", connections=3)) == "<Store 'redis://h', connections=3, connecting>"


def test_a_store_that_is_not_initialized_has_a_repr(module):
    class Odd(module.Store):
        def __init__(self, url):
            pass

    assert repr(Odd("memory:")) == "<Store 'memory:', ready>"


# ---- Clients ----


@pytest.mark.parametrize("version", ["6.4.0", "8.1.0"])
def test_a_client_shows_its_place_and_no_password(aiosteady, from_pypi, version):
    """The repr of redis-py 6 shows its password."""
    program = f"""
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel
from aiosteady import Throttler
sentinel = Sentinel([("h", 1)], password="{PASSWORD}")
for client in (Redis.from_url("redis://user:{PASSWORD}@h:7/2"), Redis(host="h", password="{PASSWORD}"), Redis(unix_socket_path="/x/y"),
               RedisCluster(host="h", port=1, password="{PASSWORD}"), sentinel.master_for("svc", password="{PASSWORD}")):
    print(Throttler(client, 1, 60))
class Own:
    def __repr__(self):
        return "{PASSWORD}"
    async def execute_command(self, *words):
        pass
    async def __aenter__(self):
        pass
print(Throttler(Own(), 1, 60))
"""
    env = {**os.environ, "PYTHONPATH": f"{aiosteady}:{from_pypi('redis==' + version)}"}
    told = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120, check=True).stdout
    shown = [line.removeprefix("Throttler(redis=").removesuffix(", max_capacity=1, drop_recharge=60, block_duration=None)")
             for line in told.splitlines()]
    assert shown == ["<redis.asyncio.client.Redis 'h', port 7, db 2>", "<redis.asyncio.client.Redis 'h', port 6379, db 0>",
                     "<redis.asyncio.client.Redis '/x/y', db 0>", "<redis.asyncio.cluster.RedisCluster>",
                     "<redis.asyncio.client.Redis service 'svc'>", "<__main__.Own>"]


# ---- Results ----


@under_asyncio
async def test_a_result_shows_what_is_not_plain(aio, closed_port):
    t = aio.Throttler("memory:", 5, 3600, 60)
    assert repr(await t.consume("k")) == "ThrottleResult(success=True, level=1, until_next_drop=3600.0, blocked_for=None)"
    partial = await t.consume("p", 9, at_least=1)
    assert repr(partial).endswith("level=5, until_next_drop=3600.0, blocked_for=None, granted=5)")
    assert repr(await t.consume("p", -2)).endswith(", granted=-2)")
    never = await t.consume("n", 6)
    assert repr(never) == "ThrottleResult(success=False, level=0, until_next_drop=3600.0, blocked_for=None, retry_after=None)"
    denied = await t.consume("p", 3)
    assert repr(denied).startswith("ThrottleResult(success=False, level=3,") and denied.blocked_for == 60
    assert repr(denied).endswith(f", blocked_for=60.0, retry_after={denied.retry_after!r})")
    waits = await t.consume("w", 5) and await t.consume("w", max_wait=7200)
    assert repr(waits).startswith(f"ThrottleResult(must_wait={waits.must_wait!r}, success=True, level=6,")
    several = await aio.Throttler("memory:", limits={"a": "1/h", "b": "2/h"}).consume("k", 2)
    assert repr(several).endswith("retry_after=None, part=0, name='a')")
    store = aio.connect(f"redis://127.0.0.1:{closed_port}", timeout=20)
    for policy, shown in (("allow", "success=True, level=0, until_next_drop=0.0, blocked_for=None, source='policy', error='unavailable'"),
                          ("deny", "success=False, level=0, until_next_drop=0.0, blocked_for=None, retry_after=1.0, source='policy', "
                                   "error='unavailable'"),
                          ("local", "success=True, level=1, until_next_drop=3600.0, blocked_for=None, source='local', error='unavailable'")):
        assert repr(await aio.Throttler(store, 5, 3600, on_error=policy).consume("k")) == f"ThrottleResult({shown})"
    assert str(partial) == repr(partial).replace(", granted=5", "") and ", retry_after=" not in str(denied) + str(never)
    assert str(waits) == repr(waits) and str(several).endswith(", blocked_for=None, part=0, name='a')")
    for result in (partial, never, denied, waits):
        assert eval(repr(result), {"ThrottleResult": aio.ThrottleResult}) == result
