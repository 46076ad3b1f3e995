# SPDX-License-Identifier: MIT
"""How bench_packages.py uses each package: what pip installs, a decision, and an application of FastAPI.

A decider gets the URL of a store and a limit of `count` in `seconds`. It returns an async function of a key, which says
whether the call is allowed. An application denies with 429, and adds rate-limit fields if the package can."""

# All are installed together. limits takes redis-py below 8.
REQUIREMENTS = ("slowapi==0.1.10", "limits==5.8.0", "aiolimiter==1.3.0", "fastapi-limiter==0.2.0",
                "pyrate-limiter==4.5.1", "throttled-py==3.5.0", "redis[hiredis]==7.4.1", "fastapi==0.165.0",
                "starlette==1.10.0", "httpx==0.28.1", "uvicorn==0.54.0", "uvloop==0.22.1", "httptools==0.8.0")
POOL = 64  # connections, in all pools


def redis_pool(url):
    from redis.asyncio import BlockingConnectionPool
    return BlockingConnectionPool.from_url(url, max_connections=POOL)


def redis_client(url):
    from redis.asyncio import Redis
    return Redis(connection_pool=redis_pool(url))


# ---- Decisions ----


def ours(url):
    """Options of aiosteady. The machine may be busy. The other packages ask Redis for each decision, so aiosteady does, too:
    by default it denies a key over its limit from memory."""
    return {"timeout": 10.0} if url == "memory:" else {"timeout": 10.0, "deny_memory": 0}


async def aiosteady(url, count, seconds):
    from aiosteady import Throttler, connect
    throttler = Throttler(connect(url, **ours(url)), limits=f"{count}/{seconds}s")

    async def decide(key):
        return (await throttler.consume(key)).success
    return decide


async def aiosteady_over_redis_py(url, count, seconds):
    from aiosteady import Throttler
    throttler = Throttler(redis_client(url), limits=f"{count}/{seconds}s")

    async def decide(key):
        return (await throttler.consume(key)).success
    return decide


async def aiosteady_blocking(url, count, seconds):
    from aiosteady.blocking import Throttler, connect
    throttler = Throttler(connect(url, **ours(url)), limits=f"{count}/{seconds}s")

    async def decide(key):
        return throttler.consume(key).success
    return decide


def limits_of(strategy, blocking=False):
    async def decider(url, count, seconds):
        from limits import RateLimitItemPerSecond, aio, strategies
        from limits.storage import storage_from_string
        item = RateLimitItemPerSecond(count, seconds)
        if blocking:
            limiter = strategies.STRATEGIES[strategy](storage_from_string(url))

            async def decide(key):
                return limiter.hit(item, key)
        else:
            options = {}
            if url.startswith("redis"):
                options = {"implementation": "redispy", "connection_pool": redis_pool(url)}
            limiter = aio.strategies.STRATEGIES[strategy](storage_from_string(f"async+{url}", **options))

            async def decide(key):
                return await limiter.hit(item, key)
        return decide
    return decider


def pyrate_factory(make):
    """A bucket for each name, as the package describes it. `make` returns a bucket, or an awaitable for one."""
    from pyrate_limiter import BucketFactory, RateItem, WallClock

    class Factory(BucketFactory):
        def __init__(self):
            self.buckets, self.clock = {}, WallClock()

        def wrap_item(self, name, weight=1):
            return RateItem(name, self.clock.now(), weight=weight)

        async def get(self, item):
            if item.name not in self.buckets:
                bucket = make(item.name)
                self.buckets[item.name] = await bucket if hasattr(bucket, "__await__") else bucket
                self.schedule_leak(self.buckets[item.name])
            return self.buckets[item.name]
    return Factory()


def pyrate_buckets(algorithm, url, count, seconds):
    """A function of a name that makes its bucket."""
    from pyrate_limiter import InMemoryBucket, Rate, RedisBucket, RedisStateStore, StateBucket
    rates = [Rate(count, seconds * 1000)]
    if not url.startswith("redis"):
        return lambda name: InMemoryBucket(rates) if algorithm == "log" else StateBucket(rates)
    client = redis_client(url)
    if algorithm == "log":
        return lambda name: RedisBucket.init(rates, client, f"log:{name}")
    return lambda name: StateBucket(rates, store=RedisStateStore(client, f"gcra:{name}"))


def pyrate_of(algorithm, limiter_each=False):
    async def decider(url, count, seconds):
        from pyrate_limiter import Limiter
        make = pyrate_buckets(algorithm, url, count, seconds)
        shared, limiters = None if limiter_each else Limiter(pyrate_factory(make)), {}

        async def decide(key):
            limiter = shared or limiters.get(key)
            if limiter is None:
                limiter = limiters[key] = Limiter(make(key))
            return await limiter.try_acquire_async(key, blocking=False)
        return decide
    return decider


def throttled_store(url):
    from throttled.asyncio import MemoryStore, RedisStore
    if not url.startswith("redis"):
        return MemoryStore()
    return RedisStore(server=url, options={"CONNECTION_POOL_CLASS": "redis.asyncio.BlockingConnectionPool",
                                           "CONNECTION_POOL_KWARGS": {"max_connections": POOL}})


def throttled_quota(count, seconds):
    from datetime import timedelta
    from throttled.asyncio import per_duration
    return per_duration(timedelta(seconds=seconds), count, count)


def throttled_of(algorithm):
    async def decider(url, count, seconds):
        from throttled.asyncio import Throttled
        throttle = Throttled(using=algorithm, quota=throttled_quota(count, seconds), store=throttled_store(url))

        async def decide(key):
            return not (await throttle.limit(key)).limited
        return decide
    return decider


async def aiolimiter(url, count, seconds):
    """It waits and never denies, so it decides only what is allowed at once."""
    from aiolimiter import AsyncLimiter
    limiters = {}

    async def decide(key):
        limiter = limiters.get(key)
        if limiter is None:
            limiter = limiters[key] = AsyncLimiter(count, seconds)
        if not limiter.has_capacity():
            return False
        await limiter.acquire()
        return True
    return decide


OVER_REDIS = {
    "aiosteady, `redis://`": aiosteady,
    "aiosteady, over redis-py": aiosteady_over_redis_py,
    "aiosteady, blocking": aiosteady_blocking,
    "limits, fixed window": limits_of("fixed-window"),
    "limits, moving window": limits_of("moving-window"),
    "limits, sliding window counter": limits_of("sliding-window-counter"),
    "limits, fixed window, blocking (slowapi)": limits_of("fixed-window", blocking=True),
    "pyrate-limiter, log": pyrate_of("log"),
    "pyrate-limiter, GCRA": pyrate_of("gcra"),
    "pyrate-limiter, GCRA, a Limiter for each key": pyrate_of("gcra", limiter_each=True),
    "throttled-py, token bucket": throttled_of("token_bucket"),
    "throttled-py, GCRA": throttled_of("gcra"),
}
IN_MEMORY = {
    "aiosteady, `memory:`": aiosteady,
    "aiolimiter": aiolimiter,
    "limits, fixed window": limits_of("fixed-window"),
    "limits, moving window": limits_of("moving-window"),
    "pyrate-limiter, log": pyrate_of("log"),
    "pyrate-limiter, GCRA": pyrate_of("gcra"),
    "throttled-py, token bucket": throttled_of("token_bucket"),
    "throttled-py, GCRA": throttled_of("gcra"),
}


# ---- Applications ----


def application(*decorators, dependencies=(), **options):
    from fastapi import FastAPI, Request
    from fastapi.responses import PlainTextResponse
    app = FastAPI(openapi_url=None, **options)

    async def hello(request: Request):
        return PlainTextResponse("hello")

    for decorate in decorators:
        hello = decorate(hello)
    app.get("/", dependencies=list(dependencies))(hello)
    return app


def bare(url, count, seconds):
    return application()


def aiosteady_middleware(url, count, seconds):
    from aiosteady import Throttler, connect
    from aiosteady.asgi import RateLimit
    app = application()
    app.add_middleware(RateLimit, throttler=Throttler(connect(url, **ours(url)), limits=f"{count}/{seconds}s"))
    return app


def aiosteady_dependency(url, count, seconds):
    from aiosteady import connect
    from aiosteady.fastapi import RateLimited, RateLimitFields
    from fastapi import Depends
    app = application(dependencies=[Depends(RateLimited(f"{count}/{seconds}s"))])
    app.state.rate_limit_store = connect(url, **ours(url))
    app.add_middleware(RateLimitFields)
    return app


def aiosteady_decorator(url, count, seconds):
    from aiosteady import connect
    from aiosteady.fastapi import rate_limited
    app = application(rate_limited(f"{count}/{seconds}s"))
    app.state.rate_limit_store = connect(url, **ours(url))
    return app


def slowapi_limiter(url, count, seconds, **options):
    from slowapi import Limiter
    from slowapi.util import get_remote_address
    url = url.replace("memory:", "memory://")
    return Limiter(key_func=get_remote_address, headers_enabled=True, storage_uri=url, **options)


def with_slowapi(app, limiter):
    from slowapi import _rate_limit_exceeded_handler
    from slowapi.errors import RateLimitExceeded
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
    return app


def slowapi_decorator(url, count, seconds):
    limiter = slowapi_limiter(url, count, seconds)
    return with_slowapi(application(limiter.limit(f"{count}/{seconds} seconds")), limiter)


def slowapi_middleware(url, count, seconds):
    from slowapi.middleware import SlowAPIASGIMiddleware
    app = application()
    app.add_middleware(SlowAPIASGIMiddleware)
    return with_slowapi(app, slowapi_limiter(url, count, seconds, default_limits=[f"{count}/{seconds} seconds"]))


def limits_dependency(url, count, seconds):
    """limits has no part for FastAPI, so this is a dependency as its users write it, without fields."""
    from fastapi import Depends, HTTPException, Request
    decide = once(lambda: limits_of("fixed-window")(url.replace("memory:", "memory://"), count, seconds))

    async def limited(request: Request):
        if not await (await decide())(request.client.host):
            raise HTTPException(429)
    return application(dependencies=[Depends(limited)])


def once(make):
    """Makes it in the event loop of the server, at the first request."""
    made = []

    async def get():
        if not made:
            made.append(await make())
        return made[0]
    return get


def fastapi_limiter_of(algorithm):
    def app(url, count, seconds):
        from fastapi import Depends
        from fastapi_limiter.depends import RateLimiter
        from pyrate_limiter import Limiter
        limiter = Limiter(pyrate_factory(pyrate_buckets(algorithm, url, count, seconds)))
        return application(dependencies=[Depends(RateLimiter(limiter=limiter))])
    return app


def throttled_decorator(url, count, seconds):
    from throttled.asyncio.contrib.fastapi import (Limiter, RateLimitExceededError, RateLimitMiddleware,
                                                   get_remote_address, rate_limit_exceeded_handler)
    quota = throttled_quota(count, seconds)
    limiter = Limiter(quota, store=throttled_store(url), using="gcra", key_func=get_remote_address)
    app = application(limiter.limit())
    app.add_middleware(RateLimitMiddleware)
    app.add_exception_handler(RateLimitExceededError, rate_limit_exceeded_handler)
    return app


APPS = {
    "bare": bare,
    "aiosteady, middleware": aiosteady_middleware,
    "aiosteady, dependency": aiosteady_dependency,
    "aiosteady, decorator": aiosteady_decorator,
    "slowapi, decorator": slowapi_decorator,
    "slowapi, ASGI middleware": slowapi_middleware,
    "limits, own dependency": limits_dependency,
    "fastapi-limiter, log": fastapi_limiter_of("log"),
    "fastapi-limiter, GCRA": fastapi_limiter_of("gcra"),
    "throttled-py, GCRA": throttled_decorator,
}
