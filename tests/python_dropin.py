# SPDX-License-Identifier: MIT
"""Runs a program of aiosteady 22.1.0 and prints a line for each step: `python_dropin.py CLIENT URL PREFIX PART...`.

It runs unchanged on aiosteady 22.1.0 and on this package, whichever is on PYTHONPATH. CLIENT is the argument of a
throttler: aioredis, redis, or url. It does not print the known differences (docs/how-to/move-from-aiosteady.md): the level
and the next drop of a blocked key."""
import asyncio
import sys

from aiosteady.leakybucket import Throttler, ThrottleResult

CLIENT, URL, PREFIX, *PARTS = sys.argv[1:]


async def client():
    if CLIENT == "aioredis":
        import aioredis

        return await aioredis.create_redis_pool(URL)
    if CLIENT == "redis":
        import redis.asyncio

        return redis.asyncio.from_url(URL)
    from aiosteady import connect

    return connect(URL, timeout=10)  # a long timeout, because the machine may be busy


async def close(redis):
    if CLIENT == "aioredis":
        redis.close()
        await redis.wait_closed()
    elif CLIENT == "redis":
        await redis.aclose()


def show(part, step, result):
    if result.blocked_for is not None:
        print(part, step, result.success, "blocked for", result.blocked_for)
    else:
        print(part, step, result)


async def fills_up(part, redis):
    t = Throttler(redis, 10, 5)
    for i in range(10):
        show(part, i, await t.peek(PREFIX + part))
        show(part, i, await t.consume(PREFIX + part))
    show(part, "full", await t.peek(PREFIX + part))
    show(part, "over", await t.consume(PREFIX + part))
    show(part, "over", await t.consume(key=PREFIX + part, amount=1))


async def blocks(part, redis):
    t = Throttler(redis, max_capacity=3, drop_recharge=20, block_duration=1)
    for i in range(3):
        show(part, i, await t.consume(PREFIX + part))
    first = await t.consume(PREFIX + part)
    assert first.blocked_for == 1, first
    show(part, "blocks", first)
    show(part, "blocked", await t.peek(PREFIX + part))
    show(part, "blocked", await t.consume(PREFIX + part))
    await asyncio.sleep(1.05)
    show(part, "free again", await t.peek(PREFIX + part))
    show(part, "blocks again", await t.consume(PREFIX + part))


async def leaks(part, redis):
    t = Throttler(redis, 3, 1)
    for i in range(3):
        show(part, i, await t.consume(PREFIX + part))
    await asyncio.sleep(1.3)
    show(part, "one less", await t.peek(PREFIX + part))
    show(part, "one more", await t.consume(PREFIX + part))
    show(part, "full", await t.consume(PREFIX + part))
    await asyncio.sleep(3.2)
    assert await t.peek(PREFIX + part) == ThrottleResult(True, 0, 1.0, None)


async def drains(part, redis):
    t = Throttler(redis, 4, 5.0, None)
    show(part, "in", await t.consume(PREFIX + part, 4))
    show(part, "out", await t.consume(PREFIX + part, -1))
    show(part, "in", await t.consume(PREFIX + part, amount=1))
    show(part, "empty", await t.consume(PREFIX + part, -50))
    assert await t.peek(PREFIX + part) == ThrottleResult(True, 0, 5.0, None)


async def results(part, redis):
    r = ThrottleResult(True, 0, 5.0, None)
    twin = ThrottleResult(success=True, level=0, until_next_drop=5.0, blocked_for=None)
    others = [ThrottleResult(False, 0, 5.0, None), ThrottleResult(True, 1, 5.0, None), ThrottleResult(True, 0, 5.0, 1.0)]
    print(part, r, ThrottleResult(False, 10, 0.25, 1.5), r == twin, hash(r) == hash(twin), [r == o for o in others], [bool(o) for o in others])
    for name in ("success", "level", "until_next_drop", "blocked_for"):
        try:
            setattr(r, name, 1)
        except AttributeError:
            print(part, name, "is frozen")
    match (r, ThrottleResult.__match_args__):
        case ThrottleResult(True, level, until, None), names:
            print(part, level, until, names)
    t = Throttler(redis, 10, 5.0, block_duration=3)
    print(part, t.redis is redis, t.max_capacity, t.drop_recharge, t.block_duration, t == Throttler(redis, 10, 5.0, 3))


async def comes(part, redis):
    """Leaves buckets behind for the part comes_after."""
    await Throttler(redis, 5, 60).consume(PREFIX + "moved", 3)
    blocking = Throttler(redis, 2, 60, 30)
    await blocking.consume(PREFIX + "blocked", 2)
    await blocking.consume(PREFIX + "blocked")


async def comes_after(part, redis):
    t = Throttler(redis, 5, 60)
    show(part, "found", await t.peek(PREFIX + "moved"))
    show(part, "fills", await t.consume(PREFIX + "moved", 2))
    show(part, "full", await t.consume(PREFIX + "moved"))
    show(part, "out", await t.consume(PREFIX + "moved", -4))
    blocking = Throttler(redis, 2, 60, 30)
    show(part, "found", await blocking.peek(PREFIX + "blocked"))
    show(part, "refused", await blocking.consume(PREFIX + "blocked"))


async def main():
    redis = await client()
    try:
        await asyncio.gather(*(globals()[part](part, redis) for part in PARTS))
    finally:
        await close(redis)


asyncio.run(main())
