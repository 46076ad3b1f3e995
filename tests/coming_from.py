# SPDX-License-Identifier: MIT
"""Runs one side of a page "Coming from ...": `coming_from.py PAGE before|after URL`. tests/test_coming_from.py runs it.

It runs the blocks of that side in order, in one namespace. After each block, the check of its heading uses what the
block defines. It prints a line for each heading: what the check returned."""
import asyncio
import re
import sys
import time

PAGE, SIDE, URL = sys.argv[1:]
CHECKS = {}


def check(package, heading):
    def keep(function):
        assert (package, heading) not in CHECKS
        CHECKS[package, heading] = function
        return function
    return keep


def sections(text):
    """(heading, code) of this side."""
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        heading = section.splitlines()[0]
        for side, code in re.findall(r"^(Before|After)\b[^\n]*:\n\n```python\n(.*?)^```", section, re.S | re.M):
            if side.lower() == SIDE:
                yield heading, code


def times(count, function, *args):
    return [function(*args) for _ in range(count)]


async def slower_than(seconds, *coroutines):
    """Their results. Together they must not be quicker than the limit."""
    began = time.monotonic()
    results = await asyncio.gather(*coroutines)
    assert time.monotonic() - began > seconds - 0.001, time.monotonic() - began
    return results


# ---- limits ----


@check("limits", "A limit")
async def _(allowed, **_):
    return times(6, allowed, "anna") + times(1, allowed, "bert")


@check("limits", "With asyncio")
async def _(allowed_async, **_):
    return [await allowed_async("anna") for _ in range(6)]


@check("limits", "Cost")
async def _(allowed_costly, **_):
    verdicts = [allowed_costly("anna", 3), allowed_costly("anna", 3)]
    assert allowed_costly("anna", 1) == (SIDE == "after"), "limits has charged what it denied"
    return verdicts


@check("limits", "test")
async def _(fits, **_):
    return [fits("anna"), fits("bert"), fits("carl"), fits("carl")]


@check("limits", "get_window_stats")
async def _(remaining, seconds_to_wait, **_):
    wait = seconds_to_wait("anna")
    assert 720 < wait <= 3600 if SIDE == "before" else 0 < wait <= 720, wait
    return [remaining("anna"), remaining("bert"), remaining("nobody"), seconds_to_wait("bert") == 0]


@check("limits", "clear")
async def _(forgive, remaining, **_):
    forgive("anna")
    return remaining("anna")


@check("limits", "Several limits")
async def _(allowed_by_both, both, **names):
    verdicts = times(4, allowed_by_both, "anna")
    if SIDE == "before":  # the page says that it stays charged
        assert names["limiter"].get_window_stats(both[1], "both", "anna").remaining == 2
    else:
        assert {name: result.level for name, result in both.peek("anna").limits.items()} == {"1m": 3, "1h": 3}
    return verdicts


@check("limits", "If Redis is down")
async def _(allowed_or_down, **_):
    verdicts = times(6, allowed_or_down, "anna")
    stop_redis()
    time.sleep(1.1)  # a denied user is denied from memory for a second
    return verdicts + [allowed_or_down("anna")]


def stop_redis():
    from resp import Resp
    server = Resp(int(URL.rsplit(":", 1)[1]))
    server("DEBUG", "SLEEP", "0")
    server.socket.sendall(b"*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n")
    assert server.file.readline() == b""  # it has ended


# ---- aiolimiter ----


@check("aiolimiter", "Wait, then go ahead")
async def _(fetch, **_):
    return await slower_than(0.6, *map(fetch, range(8)))


@check("aiolimiter", "As a decorator")
async def _(send, **_):
    return await slower_than(0.2, *map(send, range(2)))


@check("aiolimiter", "More than one at a time")
async def _(upload, **_):
    result = await slower_than(0.4, upload(4), upload(1))
    try:
        await upload(6)
    except ValueError:
        return result, "refused"


@check("aiolimiter", "No bursts")
async def _(step, **_):
    return await slower_than(0.4, *(step() for _ in range(3)))


@check("aiolimiter", "A limit for each key")
async def _(get, **_):
    return await slower_than(0.5, *map(get, "aabbb"))


@check("aiolimiter", "Go ahead only if there is room")
async def _(try_it, **_):
    return [await try_it() for _ in range(3)]


@check("aiolimiter", "At most for a time")
async def _(within_a_second, **_):
    return [await within_a_second() for _ in range(2)]


# ---- slowapi ----


async def get(app, path, address="192.0.2.1", **headers):
    import httpx
    transport = httpx.ASGITransport(app, client=(address, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        return await client.get(path, headers={f"x-{name}": value for name, value in headers.items()})


async def statuses(app, *paths, **more):
    return [(await get(app, path, **more)).status_code for path in paths]


@check("slowapi", "A limit on a route")
async def _(app, **_):
    return await statuses(app, *["/news"] * 6) + await statuses(app, "/news", address="192.0.2.2")


@check("slowapi", "By user")
async def _(app, **_):
    return [await statuses(app, *["/mail"] * 3, user=user) for user in ("anna", "bert")]


@check("slowapi", "Several limits")
async def _(app, **_):
    return await statuses(app, *["/search"] * 3)


@check("slowapi", "A cost")
async def _(app, **_):
    return [await statuses(app, "/export", size=size) for size in "323"]


@check("slowapi", "One limit for several routes")
async def _(app, **_):
    return await statuses(app, "/logs", "/users", "/logs")


@check("slowapi", "Some requests are exempt")
async def _(app, **_):
    return await statuses(app, "/status", "/status"), await statuses(app, "/status", internal="yes")


@check("slowapi", "A limit for all routes")
async def _(shop, **_):
    return await statuses(shop, "/health", "/", "/", "/health", "/", "/", "/health")


@check("slowapi", "A limit that depends on the user")
async def _(app, **_):
    return [await statuses(app, *["/model"] * 4, user=user) for user in ("paid anna", "bert")]


@check("slowapi", "Response headers")
async def _(app, **_):
    response = await get(app, "/count")
    assert (float(response.headers["x-ratelimit-reset"]) > 3600) == (SIDE == "before"), "since 1970, or from now"
    assert ("retry-after" in response.headers) == (SIDE == "before")
    return [response.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining")]


@check("slowapi", "Your own answer")
async def _(polite, **_):
    return [await statuses(polite, "/tea"), (await get(polite, "/tea")).json()]


@check("slowapi", "If Redis is down")
async def _(app, **names):
    stop_redis()
    return await statuses(app, *["/weather"] * 6)


async def main():
    names = {"__name__": "page"}
    package = re.search(r"coming-from-(\w+)", PAGE)[1]
    with open(PAGE) as page:
        text = page.read().replace("redis://localhost", URL)
    for heading, code in sections(text):
        exec(compile(code, f"{PAGE}: {heading}", "exec"), names)
        print(f"{heading}: {await CHECKS[package, heading](**names)}", flush=True)


asyncio.run(main())
