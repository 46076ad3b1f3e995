# SPDX-License-Identifier: MIT
"""The pages that move other limiters to `steady serve`: the lines after give the verdicts that a page claims. Those of
nginx are compared with a real `limit_req`."""
import json
import re
import shutil

import pytest
from coming_to_serve import CELL, ENVOY, NGINX, PAGES, at_once, block, claims, sections
from proxy_rig import application, client_of, folder_of_nobody, free_port, program, proxy  # noqa: F401: a fixture
from resp import ReplyError, Resp, wire_of
from serve_rig import daemon, needs_daemon, rules_file
from test_serve_docs import blocks, matches, run_shown, shown
from test_serve_proxies import NGINX as NGINX_CONF
from test_serve_proxies import nginx

pytestmark = needs_daemon


def run_what_is_shown(page, folder, port):
    """Runs each console block of a page, and compares what it prints."""
    for command, printed in shown(page):
        if (name := re.search(r"redis-cli|curl|steady", command)[0]) != "steady" and shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
        got = run_shown(folder, command, port)
        assert matches(got, printed), f"{command}\n{got}"


def test_each_metric_that_a_page_names_exists():
    with daemon("--limit", "5/s", "--threads", 1) as served:
        metrics = served.request("GET", "/metrics")[2].decode()
    for page in PAGES:
        named = set(re.findall(r"\bsteady_\w+_(?:total|seconds)\b", page.read_text()))
        assert {name for name in named if f"# TYPE {name} " not in metrics} == set() < named, page


# ---- nginx ----

EXEMPT = "192.0.2."
# By section: the target of its requests, and who sends them, a sender for each sentence with a number.
SENDERS = {
    "A burst": ("GET", "/api/users", ["one"]),
    "No burst": ("POST", "/login", ["one"]),
    "A queue": ("GET", "/search?q=a", ["one"]),
    "A queue behind a burst": ("GET", "/a", ["one"]),
    "Several limits": ("GET", "/a", ["one", "other"]),
    "Addresses without a limit": ("GET", "/a", ["exempt", "one"]),
    "The key of a client": ("GET", "/a", ["key", "one"]),
    "A limit to try out": ("GET", "/a", ["one"]),
}
OF_NGINX = {heading: text for heading, text in sections(NGINX).items() if "```nginx" in text}


def test_each_section_of_the_page_of_nginx_is_run():
    assert set(OF_NGINX) == set(SENDERS)
    for heading, text in OF_NGINX.items():
        assert re.findall("^(Before|After):$", text, re.M) == ["Before", "After"]
        assert len(claims(text)) == len(SENDERS[heading][2])


def verdicts(heading, sender_of):
    """Sends the requests of a section: the answers for each sentence. If they came too late for a queue, because this
    machine is busy, other senders send them again."""
    method, target, senders = SENDERS[heading]
    for _ in range(5):
        got = []
        for (number, _), sender in zip(claims(OF_NGINX[heading]), map(sender_of, senders)):
            got.append(at_once(number, lambda sender=sender: sender(method, target)))
        if "max_ahead" not in OF_NGINX[heading] or got[0].arrived < 0.5:
            return got
    pytest.skip("this machine is too slow: 30 requests take longer than a drop needs")


def check(heading, got, denied):
    for answers, (number, passed) in zip(got, claims(OF_NGINX[heading])):
        assert len(answers.passed) == passed, heading
        assert answers.statuses == (set() if passed == number else {denied})
    if "max_ahead" in OF_NGINX[heading]:
        at_the_start = int(re.search(r"burst: (\d+)", OF_NGINX[heading])[1])
        for place, second in enumerate(got[0].passed[at_the_start:], 1):
            assert second > 0.5 * place - 0.05, got[0].passed


@pytest.mark.parametrize("heading", SENDERS)
def test_the_rules_after_limit_req_give_the_verdicts_of_the_page(tmp_path, heading):
    with daemon("--config", rules_file(tmp_path, block(OF_NGINX[heading], "yaml")), "--threads", 1) as served:
        addresses = (f"198.51.100.{i}" for i in range(1, 250))

        def sender_of(name):
            address = EXEMPT + "1" if name == "exempt" else next(addresses)
            fields = {"X-API-Key": address} if name == "key" else {}
            return lambda method, target: served.check(target, method, address, **fields)[0]

        check(heading, verdicts(heading, sender_of), 429)
        if heading == "A limit to try out":
            name, value = re.search(r"`(steady_\S+\})` is (\d+)", OF_NGINX[heading]).groups()
            assert served.metrics()[name] == int(value)


def only_limit_req(folder, port, before, application):
    """nginx with the lines before, and nothing else."""
    before = before.replace("server {", f"server {{\n    listen 127.0.0.1:{port};", 1)
    upstream = f"upstream application {{ server 127.0.0.1:{application.port}; }}\n"
    (folder / "steady.conf").write_text(upstream + before)
    (folder / "nginx.conf").write_text(NGINX_CONF)
    return proxy([program("nginx"), "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"], folder, port)


@pytest.mark.packages
@pytest.mark.parametrize("heading", SENDERS)
def test_limit_req_and_the_rules_after_it_give_the_same_verdicts_behind_nginx(tmp_path, application, heading):
    local = {"192.0.2.0/24": "127.255.0.0/16"}  # a network of which this machine has the addresses

    def here(text):
        for old, new in local.items():
            text = text.replace(old, new)
        return text

    def sender_of(port):
        def make(name):
            client = client_of(port)
            if name == "exempt":
                client.address = "127.255.0.1"
            fields = [("X-API-Key", client.address)] if name == "key" else []
            return lambda method, target: client(method, target, *fields)[0]
        return make

    text, port = OF_NGINX[heading], free_port()
    with folder_of_nobody() as folder, only_limit_req(folder, port, here(block(text, "nginx")), application):
        check(heading, verdicts(heading, sender_of(port)), 503)
    port = free_port()
    with daemon("--config", rules_file(tmp_path, here(block(text, "yaml"))), "--threads", 1) as served:
        with folder_of_nobody() as folder, nginx(folder, port, served.port, application):
            check(heading, verdicts(heading, sender_of(port)), 429)


# ---- envoyproxy/ratelimit ----


@pytest.fixture(scope="module")
def of_ratelimit(tmp_path_factory):
    """The folder with the files of the page."""
    folder = tmp_path_factory.mktemp("ratelimit")
    shop, ours, more = blocks(ENVOY, "yaml")
    (folder / "config").mkdir()
    (folder / "config/shop.yaml").write_text(shop)
    rules_file(folder, ours)
    rules_file(folder, more, "more.yaml")
    return folder


@pytest.fixture
def shop(of_ratelimit):
    with daemon("--config", of_ratelimit / "steady.yaml", "--threads", 1) as served:
        yield served


def ask(served, *descriptors, **more):
    """(status, the code of each descriptor) of /json. A descriptor is a key and a value."""
    listed = [{"entries": [{"key": key, "value": value}]} for key, value in descriptors]
    body = json.dumps({"domain": "shop", "descriptors": listed, **more})
    status, _, answer = served.request("POST", "/json", body)
    return status, [entry["code"] for entry in json.loads(answer).get("statuses", [])]


def test_what_the_page_of_ratelimit_shows_is_what_a_user_sees(of_ratelimit, shop):
    run_what_is_shown(ENVOY, of_ratelimit, shop.port)


def test_a_file_of_ratelimit_is_a_rules_file_too(of_ratelimit):
    with daemon("--config", of_ratelimit / "config/shop.yaml", "--threads", 1) as served:
        assert [ask(served, ("remote_address", "192.0.2.1"))[0] for _ in range(6)] == [200] * 5 + [429]


def test_the_keys_of_a_file_of_ratelimit_do_what_the_page_says(shop):
    free, never, one = ("remote_address", "192.0.2.9"), ("remote_address", "192.0.2.66"), ("remote_address", "192.0.2.3")
    assert [ask(shop, free)[0] for _ in range(9)] == [200] * 9  # unlimited
    assert ask(shop, never)[0] == 429  # requests_per_unit: 0
    assert [ask(shop, ("plan", "free"))[0] for _ in range(4)] == [200] * 4  # shadow_mode
    assert shop.metrics()['steady_decisions_total{limit="shop.plan_free",verdict="shadow_denied"}'] == 2
    assert [ask(shop, one, ("path", f"/export/{i}"))[0] for i in range(4)] == [200] * 3 + [429]  # share_threshold
    assert [ask(shop, one)[0] for _ in range(6)] == [200] * 5 + [429], "replaces: nothing was charged above"
    assert ask(shop, ("unknown", "x")) == (200, ["OK"])


def test_a_denial_costs_nothing_of_the_other_descriptors(shop):
    full, other = ("remote_address", "192.0.2.4"), ("remote_address", "192.0.2.5")
    assert ask(shop, full, hitsAddend=5)[0] == 200
    assert ask(shop, other, full) == (429, ["OK", "OVER_LIMIT"])
    assert ask(shop, other, hitsAddend=6)[0] == 429
    assert ask(shop, other, hitsAddend=5)[0] == 200, "nothing was charged above"


def test_the_keys_with_a_warning_are_those_of_the_page(tmp_path):
    rows = re.findall(r"^\| (.*) \| +\| A warning;", ENVOY.read_text(), re.M)
    keys = re.findall(r"`(\w+)`", " ".join(rows))
    assert len(keys) == 4
    for key in keys:
        value = "{ a: b }" if key == "metadata" else "true"
        config = rules_file(tmp_path, f"domain: a\ndescriptors:\n- key: b\n  {key}: {value}\n"
                                      "  rate_limit: { unit: day, requests_per_unit: 2 }\n")
        done = run_shown(tmp_path, f"steady check {config}", 0)
        assert re.search(f"warning.*{key}.*no effect", done) and "is right" in done, done


def test_the_daemon_starts_without_its_store_and_json_is_500(of_ratelimit, closed_port):
    store = f"redis://127.0.0.1:{closed_port}"
    with daemon("--config", of_ratelimit / "steady.yaml", "--store", store, "--threads", 1) as served:
        assert ask(served, ("remote_address", "192.0.2.1"))[0] == 500


def test_rules_of_ours_count_beside_the_files_of_ratelimit(of_ratelimit):
    with daemon("--config", of_ratelimit / "more.yaml", "--threads", 1) as served:
        login = [{"key": "generic_key", "value": "login"}, {"key": "remote_address", "value": "192.0.2.1"}]
        body = json.dumps({"domain": "shop", "descriptors": [{"entries": login}]})
        assert [served.request("POST", "/json", body)[0] for _ in range(11)] == [200] * 10 + [429]
        assert ask(served, ("remote_address", "192.0.2.1"), hitsAddend=5)[0] == 200


def test_each_option_that_the_page_of_ratelimit_names_exists():
    known = set(re.findall(r"--[\w-]+", run_shown(".", "steady serve --help; steady check --help", 0)))
    assert set(re.findall(r"`(--[\w-]+)", ENVOY.read_text())) <= known


# ---- redis-cell and throttlecrab ----


@pytest.fixture
def cell(tmp_path):
    with daemon("--config", rules_file(tmp_path, block(CELL.read_text(), "yaml")), "--threads", 1) as served:
        yield served


def test_what_the_page_of_redis_cell_shows_is_what_a_user_sees(tmp_path, cell):
    run_what_is_shown(CELL, tmp_path, cell.port)
    answers = {verdict: cell.metrics()[f'steady_answers_total{{verdict="{verdict}"}}'] for verdict in ("allowed", "denied")}
    assert answers == {"allowed": len(list(shown(CELL))), "denied": 0}


def test_the_replies_are_those_that_the_page_of_redis_cell_describes(cell):
    throttle = Resp(cell.port)
    assert [throttle("CL.THROTTLE", "a", 1, 1, 3600)[:4] for _ in range(3)] == [[0, 2, 1, -1], [0, 2, 0, -1], [1, 2, 0, 3600]]
    assert throttle("CL.THROTTLE", "a", 1, 1, 3600, 3)[:4] == [1, 2, 0, -1], "never"
    assert throttle("CL.THROTTLE", "a", 1, 1, 3600, 0)[:4] == [0, 2, 0, -1], "looks"
    assert throttle("CL.THROTTLE", "a", 1, 1, 3600, -1)[:4] == [0, 2, 1, -1], "gives back"
    throttle.socket.sendall(2 * wire_of(("CL.THROTTLE", "b", 0, 1200, 1)))  # at once, so that under 833 us pass
    assert [throttle.reply()[3] for _ in range(2)] == [-1, 1], "833 us are 1 s"
    for wrong in ((2, 0, 60), (2, 1, 0), (-1, 1, 60), (2, -1, 60), (2**63 - 1, 1, 60)):
        error = throttle("CL.THROTTLE", "c", *wrong)
        assert isinstance(error, ReplyError) and "it must be" in str(error)
    throttle.close()


def test_a_key_of_redis_cell_is_not_changed(redis_server):
    redis_server("SET", "user123", "1764563000000000000")
    with daemon("--limit", "100/min", "--store", redis_server.url, "--timeout", "10s", "--threads", 1) as served:
        throttle = Resp(served.port)
        assert str(throttle("CL.THROTTLE", "user123", 15, 30, 60)).startswith("NOTABUCKET")
        assert throttle("CL.THROTTLE", "user124", 15, 30, 60)[0] == 0
        throttle.close()
    assert redis_server("GET", "user123") == b"1764563000000000000" and redis_server("EXISTS", "user124") == 1


def test_the_answers_over_http_are_those_that_the_page_of_throttlecrab_describes(cell):
    def consume(amount, path="/v1/consume"):
        body = {"key": "a", "rate": "1/3600s", "burst": 10, "amount": amount}
        status, _, answer = cell.request("POST", path, json.dumps(body))
        return status, json.loads(answer)

    assert consume(9)[0] == 200
    status, answer = consume(2)
    assert status == 429 and 0 < answer["retry_after"] <= 3600 and answer["parts"][0]["remaining"] == 1
    assert consume(1, "/v1/peek")[1]["parts"][0]["remaining"] == 1
    status, answer = consume(11)
    assert status == 422 and answer["retry_after"] is None
    assert consume(-9)[1]["parts"][0]["level"] == 0
    assert cell.request("GET", "/healthz")[0] == cell.request("GET", "/readyz")[0] == 200
