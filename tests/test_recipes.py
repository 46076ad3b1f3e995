# SPDX-License-Identifier: MIT
"""The programs of docs/how-to/flask-django-celery.md, with the real packages, servers and workers."""
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from resp import free_port
from test_asgi_servers import get, serving
from test_fastapi import programs

pytestmark = pytest.mark.packages

PAGE = ROOT / "docs/how-to/flask-django-celery.md"
FLASK = ("flask==3.1.3",)
DJANGO = ("django==5.2.19", "uvicorn==0.54.0", "waitress==3.0.2")
OLD_DJANGO = ("django==4.2.16", "uvicorn==0.30.0", "waitress==3.0.2")  # for Python 3.9 too
CELERY = ("celery==5.7.0", "redis==8.1.0")


@pytest.fixture
def environment(aiosteady, from_pypi, redis_server, tmp_path):
    """Writes a program of the page, and returns the environment for it."""

    def write(name, *requirements):
        code = programs(PAGE)[name]
        assert "redis://localhost" in code
        (tmp_path / name).write_text(code.replace("redis://localhost", redis_server.url))
        return {**os.environ, "PYTHONPATH": f"{aiosteady}:{from_pypi(*requirements)}:{tmp_path}"}

    return write


def body_of(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def names(response):
    return re.findall('"([^"]+)";q=', response.headers["ratelimit-policy"])


def test_each_program_of_the_page_is_run():
    assert set(programs(PAGE)) == {"flask_app.py", "limits.py", "tasks.py"}
    assert PAGE.read_text().count("```python\n") == 3


# ---- Flask ----


def test_flask_limits_all_requests_and_a_route(environment, redis_server):
    port = free_port()
    command = [sys.executable, "-m", "flask", "--app", "flask_app", "run", "--port", str(port)]
    with serving(command, environment("flask_app.py", *FLASK), port):
        redis_server("FLUSHALL")
        answers = [body_of(port, "/login") for _ in range(4)]
        assert [response.status for response, _ in answers] == [200] * 3 + [429]
        assert [body for _, body in answers[:3]] == [b"1 of 3\n", b"2 of 3\n", b"3 of 3\n"]
        denied, problem = answers[3]
        assert names(denied) == names(answers[0][0]) == ["requests", "login"]
        assert denied.headers["content-type"] == "application/problem+json" and int(denied.headers["retry-after"]) > 0
        assert json.loads(problem)["violated-policies"] == ["login"]
        statuses = [get(port).status for _ in range(18)]
        assert statuses[:16] == [200] * 16 and statuses[-1] == 429, statuses
        assert names(get(port)) == ["requests"]


# ---- Django ----

PROJECT = """
import asyncio, os
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x",
                   MIDDLEWARE=os.environ["MIDDLEWARE"].split())
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.utils.decorators import sync_only_middleware

def seen(request):
    assert request.rate_limit.allowed
    return str(request.rate_limit.results["requests"].level)

def sync(request):
    return HttpResponse("sync " + seen(request))

async def asynchronous(request):
    await asyncio.sleep(0)
    return HttpResponse("async " + seen(request))

def stream(request):
    return StreamingHttpResponse([b"stream ", seen(request).encode()])

@sync_only_middleware
def old(get_response):
    return lambda request: get_response(request)

urlpatterns = [path("sync", sync), path("async", asynchronous), path("stream", stream)]
wsgi, asgi = get_wsgi_application(), get_asgi_application()
"""

ASGI = ["uvicorn", "--log-level", "error", "--lifespan", "off"]


@pytest.mark.parametrize("versions", [DJANGO, OLD_DJANGO], ids=["new", "old"])
@pytest.mark.parametrize("world, middleware", [("wsgi", ""), ("asgi", ""), ("asgi", "project.old")],
                         ids=["wsgi", "asgi", "asgi-sync-middleware"])
def test_the_middleware_of_django_limits_sync_and_async_views(
        environment, redis_server, tmp_path, versions, world, middleware):
    port = free_port()
    (tmp_path / "project.py").write_text(PROJECT)
    whole = {**environment("limits.py", *versions), "MIDDLEWARE": f"limits.RateLimitMiddleware {middleware}"}
    server = [*ASGI, "--port", str(port)] if world == "asgi" else ["waitress", "--listen", f"127.0.0.1:{port}"]
    with serving([sys.executable, "-m", *server, f"project:{world}"], whole, port):
        redis_server("FLUSHALL")
        answers = [body_of(port, path) for path in ("/sync", "/async", "/stream", "/none", "/sync", "/async")]
    assert [response.status for response, _ in answers] == [200, 200, 200, 404, 200, 429]
    assert [body for _, body in answers[:3]] == [b"sync 1", b"async 2", b"stream 3"]
    assert all(names(response) == ["requests"] for response, _ in answers)
    denied, problem = answers[5]
    assert denied.headers["content-type"] == "application/problem+json" and int(denied.headers["retry-after"]) > 0
    assert json.loads(problem)["violated-policies"] == ["requests"]


# ---- Celery ----

SEND = "import tasks, sys\nfor i in range(int(sys.argv[1])): tasks.send_mail.delay(f'{i}@a.example')"
DELIVERED = """
import redis, time
def deliver(address):
    redis.Redis.from_url(app.conf.broker_url).rpush("delivered", f"{time.time()} {address}")
"""


def test_celery_puts_a_task_back_at_most_once(environment, redis_server, tmp_path):
    whole = environment("tasks.py", *CELERY)
    with (tmp_path / "tasks.py").open("a") as file:
        file.write(DELIVERED)
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "2", "--loglevel", "info",
               "--without-gossip", "--without-mingle"]
    count = 8
    subprocess.run([sys.executable, "-c", SEND, str(count)], env=whole, cwd=tmp_path, timeout=60, check=True)
    log = tmp_path / "log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            command, cwd=tmp_path, env=whole, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while redis_server("LLEN", "delivered") < count:
            assert worker.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
    said = log.read_text()
    delivered = [line.decode().split() for line in redis_server("LRANGE", "delivered", "0", "-1")]
    assert {address for _, address in delivered} == {f"{i}@a.example" for i in range(count)} and len(delivered) == count
    put_back = re.findall(r"send_mail\[([\w-]+)\] retry: Retry in", said)
    assert 0 < len(put_back) == len(set(put_back)) < count, said
