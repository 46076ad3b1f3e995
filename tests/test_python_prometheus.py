# SPDX-License-Identifier: MIT
"""aiosteady.prometheus, with the real prometheus_client. Its parser reads what its server and its files export."""
import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading
import urllib.request

import pytest
from conftest import ROOT
from python_rig import python, under_asyncio

REQUIREMENTS = ("prometheus_client==0.26.0",)
KEY = "user:secret-key"


@pytest.fixture(scope="module")
def prometheus(from_pypi):
    sys.path.append(str(from_pypi(*REQUIREMENTS)))
    import prometheus_client.parser

    return prometheus_client


@pytest.fixture
def registry(prometheus):
    return prometheus.CollectorRegistry()


@pytest.fixture
def collector(aio, prometheus):
    import aiosteady.prometheus

    return aiosteady.prometheus.Collector


@pytest.fixture
def samples(prometheus, registry):
    """samples() returns the numbers of the text format, by name and labels."""

    def samples(text=None):
        text = prometheus.generate_latest(registry).decode() if text is None else text
        found = {}
        for family in prometheus.parser.text_string_to_metric_families(text):
            assert family.documentation.endswith(".") and family.type in ("counter", "gauge", "summary"), family
            for sample in family.samples:
                place = (sample.name, tuple(sorted(sample.labels.items())))
                assert place not in found, f"two samples for {place}"
                assert sample.value >= 0 and (family.type != "counter" or sample.name.endswith("_total")), sample
                found[place] = sample.value
        return found

    return samples


def value(samples, name, **labels):
    return samples[f"steady_{name}", tuple(sorted(labels.items()))]


@under_asyncio
async def test_decisions_are_exported_by_throttler_verdict_and_source(aio, collector, registry, samples, closed_port):
    async with aio.connect("memory:") as store:
        login = aio.Throttler(store, 3, 3600, 60)
        api = aio.Throttler(store, limits=["2/hour", "9/day"], prefix="api:")
        down = aio.Throttler(aio.connect(f"redis://127.0.0.1:{closed_port}", timeout=20), 1, 1, on_error="local")
        registry.register(collector({"log in": login}, api=api, down=down))
        before = samples()
        assert set(before.values()) == {0.0, 1.0}, "every series is there from the start; ready is 1 for memory:"
        for _ in range(5):
            await login.consume(KEY)
        for _ in range(3):
            await api.consume(KEY)
            await aio.consume_all([(login, "other", 2, "shadow"), (api, f"{KEY}2", 3, "charge")])
        await api.peek(KEY)
        await api.consume("queue", 2)
        await api.consume("queue", max_wait=3600)
        async with api.reserve("r", 2) as r:
            r.actual = 1
        await down.consume(KEY), await down.consume(KEY)
        now = samples()
        assert now.keys() == before.keys()
        assert value(now, "decisions_total", throttler="log in", verdict="allowed", source="store") == 4
        assert value(now, "decisions_total", throttler="log in", verdict="denied", source="store") == 2
        assert value(now, "decisions_total", throttler="log in", verdict="shadow_denied", source="store") == 2
        assert value(now, "decisions_total", throttler="down", verdict="allowed", source="local") == 1
        assert value(now, "decisions_total", throttler="down", verdict="denied", source="local") == 1
        assert value(now, "unanswered_total", throttler="down", outcome="unavailable") == 2
        assert value(now, "blocked_total", throttler="log in") == 2
        assert value(now, "limit_denied_total", throttler="log in", limit="1h", kind="shadow") == 2
        assert value(now, "limit_denied_total", throttler="api", limit="1h", kind="take") == 1
        assert value(now, "limit_denied_total", throttler="api", limit="1d", kind="take") == 0
        assert value(now, "drops_charged_total", throttler="api", limit="1d") == 16
        assert value(now, "drops_given_back_total", throttler="api", limit="1d") == pytest.approx(1, abs=0.01)
        assert value(now, "calls_total", throttler="api", call="peek") == 1
        assert value(now, "calls_total", throttler="api", call="settle") == 1
        assert value(now, "wait_seconds_count", throttler="api") == 1
        assert 1700 < value(now, "wait_seconds_sum", throttler="api") <= 1800
        assert value(now, "store_ready", store="memory:") == 1
        assert value(now, "store_ready", store=f"redis://127.0.0.1:{closed_port}") == 0
        assert value(now, "store_decisions_total", store=f"redis://127.0.0.1:{closed_port}", outcome="unavailable") == 2
        await down.redis.aclose()


@pytest.mark.parametrize(("url", "shown"), [
    ("redis://user:hunter2@127.0.0.1:1/0?peek=replica", "redis://127.0.0.1:1/0"),
    ("redis+sentinel://user:hunter2@127.0.0.1:1/svc?sentinel_password=hunter2", "redis+sentinel://127.0.0.1:1/svc"),
    ("unix://user:hunter2@/nowhere/x?db=1", "unix:///nowhere/x"),
    ("file:{folder}/x", "file:{folder}/x"),
])
def test_no_key_and_no_password_is_exported(aio, collector, registry, prometheus, tmp_path, url, shown):
    t = aio.Throttler(url.format(folder=tmp_path), 5, 60, prefix="p:", on_error="deny")
    asyncio.run(t.consume(KEY))
    registry.register(collector(t=t))
    text = prometheus.generate_latest(registry).decode()
    assert f'steady_store_ready{{store="{shown.format(folder=tmp_path)}"}}' in text
    assert not any(word in text for word in ("hunter2", "user:", "secret", "=replica", "***"))


def test_stores_with_one_url_count_together_and_a_shared_store_counts_once(aio, collector, registry, samples):
    import aiosteady.blocking as blocking

    shared = blocking.connect("memory:")
    own = [blocking.Throttler("memory:", 5, 60) for _ in range(2)]
    both = [blocking.Throttler(shared, 5, 60, prefix=prefix) for prefix in "ab"]
    registry.register(collector({f"t{i}": t for i, t in enumerate([*own, *both])}))
    for t in [*own, *both]:
        t.consume(KEY)
    assert value(samples(), "store_decisions_total", store="memory:", outcome="allowed") == 4


def test_counters_of_a_closed_throttler_stay(aio, collector, registry, samples):
    import aiosteady.blocking as blocking

    with blocking.Throttler("memory:", 5, 60) as t:
        registry.register(collector(t=t))
        t.consume(KEY)
    now = samples()
    assert value(now, "decisions_total", throttler="t", verdict="allowed", source="store") == 1
    assert value(now, "store_decisions_total", store="memory:", outcome="allowed") == 1
    assert value(now, "store_ready", store="memory:") == 0
    t = None  # the collector keeps it
    assert samples() == now


def test_a_throttler_over_a_client_has_no_store(aio, collector, registry, samples, from_pypi, redis_server):
    sys.path.append(str(from_pypi("redis==8.1.0")))
    import redis.asyncio

    async def ask():
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            t = aio.Throttler(client, 1, 60)
            await t.consume(KEY), await t.consume(KEY)
            return t

    registry.register(collector(t=asyncio.run(ask())))
    now = samples()
    assert value(now, "decisions_total", throttler="t", verdict="denied", source="store") == 1
    assert not any("store" in dict(labels) for _, labels in now)


def test_answers_without_a_request_are_verdicts_of_the_store(aio, collector, registry, samples, redis_server):
    import aiosteady.blocking

    with aiosteady.blocking.connect(redis_server.url, timeout=5, lease_age=60) as leased, \
            aiosteady.blocking.connect(f"{redis_server.url}/1", timeout=5) as plain:
        hot = aiosteady.blocking.Throttler(leased, 16000, 3600)
        full = aiosteady.blocking.Throttler(plain, 1, 3600)
        registry.register(collector(hot=hot, full=full))
        from_lease = sum(hot.consume(KEY).source == "lease" for _ in range(100))
        from_memory = sum(full.consume(KEY).source == "memory" for _ in range(50))
        now = samples()
    assert from_lease > 50 and from_memory > 30
    assert value(now, "store_from_lease_total", store=redis_server.url) == from_lease
    assert value(now, "store_from_memory_total", store=f"{redis_server.url}/1") == from_memory
    assert value(now, "decisions_total", throttler="hot", verdict="allowed", source="store") == 100
    assert value(now, "decisions_total", throttler="full", verdict="denied", source="store") == 49
    assert value(now, "store_decisions_total", store=redis_server.url, outcome="allowed") == 100


def test_throttlers_can_be_added_later_and_mistakes_are_named(aio, collector, registry, samples):
    t = aio.Throttler("memory:", 5, 60)
    made = collector()
    registry.register(made)
    assert samples() == {}
    made.add("late", t)
    assert value(samples(), "blocked_total", throttler="late") == 0
    for wrong, error, says in ((("late", t), ValueError, "late"), (("x", "memory:"), TypeError, "x.* must be a Throttler"),
                               ((5, t), TypeError, "name"), (("x", aio.connect("memory:")), TypeError, "Throttler")):
        with pytest.raises(error, match=says):
            made.add(*wrong)
    with pytest.raises(TypeError, match="throttlers must be a mapping of names to throttlers, not Throttler"):
        collector(t)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(collector(other=t))


def test_the_server_of_prometheus_client_is_read_while_threads_decide(aio, collector, registry, samples, prometheus):
    import aiosteady.blocking as blocking

    t = blocking.Throttler("memory:", 10**6, 3600)
    registry.register(collector(t=t))
    server, thread = prometheus.start_http_server(0, addr="127.0.0.1", registry=registry)
    with contextlib.ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        running = [threading.Thread(target=lambda: [t.consume(KEY) for _ in range(3000)]) for _ in range(4)]
        for each in running:
            each.start()
        last = 0
        while any(each.is_alive() for each in running) or last < 12000:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=60) as answer:
                now = value(samples(answer.read().decode()), "decisions_total", throttler="t", verdict="allowed", source="store")
            assert last <= now <= 12000
            last = now


def test_a_forked_worker_exports_its_own_decisions_and_multiprocess_mode_exports_none(aiosteady, from_pypi, tmp_path):
    """A collector has no numbers in the files of the multiprocess mode, as prometheus_client says of custom collectors."""
    program = """
import os, sys
from prometheus_client import CollectorRegistry, Counter, generate_latest, multiprocess
from aiosteady.blocking import Throttler
from aiosteady.prometheus import Collector
t = Throttler("memory:", 100, 3600)
registry, seen = CollectorRegistry(), Counter("seen", "For comparison.")
registry.register(Collector(t=t))
line = 'steady_decisions_total{source="store",throttler="t",verdict="allowed"} %.1f'
t.consume("k"), t.consume("k"), seen.inc()
child = os.fork()
if child == 0:
    t.consume("k"), seen.inc()
    assert line % 1 in generate_latest(registry).decode()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert line % 2 in generate_latest(registry).decode()
joint = CollectorRegistry()
multiprocess.MultiProcessCollector(joint)
text = generate_latest(joint).decode()
assert "seen_total 2.0" in text and "steady_" not in text, text
print("fine")
"""
    env = {**os.environ, "PYTHONPATH": f"{aiosteady}:{from_pypi(*REQUIREMENTS)}", "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_without_prometheus_client_the_import_says_what_to_install(aiosteady):
    told = python(aiosteady, """
import sys
sys.modules["prometheus_client"] = None
try:
    import aiosteady.prometheus
except ImportError as error:
    print(error.name, error)
""")
    assert told.startswith("prometheus_client ") and "pip install prometheus_client" in told


def test_the_reference_lists_each_metric_with_its_labels(aio, collector, registry, prometheus):
    page = (ROOT / "docs/reference/python.md").read_text()
    rows = re.findall(r"^\| (`steady_.*`) \| (`.*`) \| ", page, re.M)
    listed = {name: set(re.findall(r"`(\w+)`", labels)) for names, labels in rows for name in re.findall(r"`(\w+)`", names)}
    registry.register(collector(t=aio.Throttler("memory:", 1, 60)))
    made = {family.name + "_total" * (family.type == "counter"): {label for sample in family.samples for label in sample.labels}
            for family in registry.collect()}
    assert listed == made and {family.name for family in collector().describe()} == {name.replace("_total", "") for name in made}
