# SPDX-License-Identifier: MIT
"""The dashboard in a real browser, against a real daemon."""
import os
import signal
import threading

import pytest
from browser import CHROMIUM
from serve_rig import daemon, needs_daemon, rules_file

pytestmark = [needs_daemon, pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")]

EVIL = '"><img src=x onerror="window.evil=1"><script>window.evil=1</script>'
RULES = """
limits:
  - { name: login, match: { method: POST, path: /login }, rate: 2/d, block: 10m }
  - { name: key, match: { path: /key }, key: header:x-api-key, rate: 1/d }
  - { name: quiet, match: { path: /quiet }, rate: 1/d, mode: shadow }
"""


@pytest.fixture
def rules(tmp_path):
    return rules_file(tmp_path, RULES)


@pytest.fixture
def served(rules):
    with daemon("--config", rules, "--threads", 2, "--admin", "127.0.0.1:0") as running:
        yield running


@pytest.fixture
def page(browser, served):
    browser.look(1280)
    browser.open("about:blank")
    browser.wait("location.href === 'about:blank'")
    browser.errors.clear()  # the page of the last test saw its daemon end
    browser.open(f"http://127.0.0.1:{served.admin_port}/#token={served.token}")
    browser.wait("document.querySelector('#live')?.textContent === 'live'")
    return browser


def login(served, address):
    return served.check("/login", "POST", address)[0]


ROW = "[...document.querySelectorAll('#denied li')].find((row) => row.textContent.includes(%r))"


def press(page, row, label):
    page.wait(f"!!{ROW % row}")
    page.run(f"[...({ROW % row}).querySelectorAll('button')].find((b) => b.textContent.startsWith('{label}')).click()")
    page.wait("document.querySelector('#ask').open")


def test_it_loads_without_an_error_and_shows_the_rules(page, rules):
    assert page.run("document.querySelector('#rules-file').textContent") == str(rules)
    text = page.run("document.querySelector('#limits').innerText")
    assert "login" in text and "2/day" in text and "10 min" in text and "steady.yaml:3" in text and "shadow" in text
    assert page.run("document.querySelector('#tile-store').innerText").split()[:2] == ["Store", "ready"]
    assert "No request was denied." in page.run("document.querySelector('main').innerText")
    assert page.errors == []


def test_it_says_how_many_limits_it_does_not_show(page, served, rules):
    assert page.run("document.querySelector('#limits-hint').textContent").strip() == ""
    rules.write_text("limits:\n" + "".join(f"  - {{ name: l{n}, rate: 1/s }}\n" for n in range(250)))
    served.admin("POST", "/admin/reload")
    page.wait("document.querySelector('#limits-hint').textContent === '200 of 250 are shown; /metrics has all'")
    assert page.run("document.querySelector('#limits').children.length") == 200


def test_it_shows_live_figures_while_traffic_runs(page, served):
    stop = threading.Event()

    def ask():
        while not stop.wait(0.005):
            login(served, "192.0.2.1")
            served.check("/quiet")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for tile in ("rate", "denied"):
            page.wait(f"parseFloat(document.querySelector('#tile-{tile} .value').textContent) > 0")
        page.wait("parseFloat(document.querySelector('#now-denied').textContent) > 0")
        page.wait("document.querySelectorAll('#chart path').length >= 4")
        page.wait("parseFloat(document.querySelector('#limits tr td:nth-child(6)').textContent) > 0")
        page.wait(f"({ROW % '192.0.2.1'})?.querySelector('.bar i').style.width === '100%'")
    finally:
        stop.set()
        thread.join()
    assert page.errors == []


def test_it_resets_a_key_and_the_next_request_is_allowed(page, served):
    assert [login(served, "192.0.2.2") for _ in range(3)] == [200, 200, 429]
    press(page, "192.0.2.2", "Reset")
    page.key("Escape")
    page.wait("!document.querySelector('#ask').open")
    assert login(served, "192.0.2.2") == 429, "it was cancelled"
    press(page, "192.0.2.2", "Reset")
    page.run("document.querySelector('#ask-yes').focus()")
    page.key("Enter", "\r")
    page.wait("document.querySelector('#said').innerText.includes('192.0.2.2 of the limit login was reset')")
    assert login(served, "192.0.2.2") == 200


def test_it_bans_and_unbans_a_key_by_hand(page, served):
    page.run("document.querySelector('#hand-limit').value = 'login'; document.querySelector('#hand-key').value = '192.0.2.3'")
    for verb, said, status in (("ban", "is banned for 1 h", 429), ("unban", "is no longer banned", 200)):
        page.run(f"document.querySelector('#by-hand button[value={verb}]').click()")
        page.run("document.querySelector('#ask-seconds').value = '3600'; document.querySelector('#ask-yes').click()")
        page.wait(f"document.querySelector('#said').innerText.includes('{said}')")
        assert login(served, "192.0.2.3") == status


def test_a_key_is_text_and_never_html(page, served):
    assert [served.check("/key", x_api_key=EVIL)[0] for _ in range(2)] == [200, 429]
    press(page, "onerror", "Ban")
    assert EVIL in page.run("document.querySelector('#ask-text').textContent")
    page.run("document.querySelector('#ask-yes').click()")
    page.wait("document.querySelector('#said').innerText.includes('is banned')")
    assert page.run("document.querySelectorAll('img, #denied script, #said script').length") == 0
    assert page.run("window.evil === undefined")
    assert page.errors == []


def test_a_reload_that_fails_is_clearly_seen(page, rules):
    rules.write_text("limits: [{ name: a, rat: 1/d }]")
    page.wait("document.querySelector('#tile-rules').classList.contains('bad')")
    assert 'no key "rat"' in page.run("document.querySelector('#rules-error').innerText")
    page.run("document.querySelector('#reload').click(); document.querySelector('#ask-yes').click()")
    page.wait("document.querySelector('#said').innerText.includes('Not done')")
    rules.write_text(RULES)
    page.wait("document.querySelector('#rules-error').hidden")


def test_a_daemon_that_is_gone_is_told_and_comes_back(page, served):
    os.kill(served.process.pid, signal.SIGSTOP)
    try:
        page.wait("document.querySelector('#gone').innerText.includes('does not answer')")
    finally:
        os.kill(served.process.pid, signal.SIGCONT)
    page.wait("document.querySelector('#gone').hidden && document.querySelector('#live').textContent === 'live'")


def test_without_the_token_the_page_asks_for_it(browser, served):
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{served.admin_port}/")
    browser.wait("document.querySelector('#login')?.open")
    browser.run(f"document.querySelector('#login-token').value = '{served.token}'; document.querySelector('#login button').click()")
    browser.wait("document.querySelector('#live').textContent === 'live'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1600])
def test_it_fits_its_width_in_light_and_dark(page, served, width, scheme, tmp_path):
    for _ in range(3):
        served.check("/key", x_api_key=120 * "long")
        login(served, "192.0.2.4")
    page.look(width, scheme=scheme)
    page.wait(f"!!{ROW % 'longlong'}")
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("[...document.querySelectorAll('.card')].every((card) => card.scrollWidth <= card.clientWidth + 1)")
    colour = page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, colour[4:-1].split(","))) < 200) == (scheme == "dark")
    page.screenshot(tmp_path / "dashboard.png")
    assert (tmp_path / "dashboard.png").stat().st_size > 10000


CUT = """[...document.querySelectorAll('.tile .more, .tile .value, .level small, th.n')].filter((one) => one.offsetParent &&
  (one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1)).map((one) => one.textContent)"""


@pytest.mark.parametrize("width", [330, 1280])
def test_no_figure_is_cut(page, width):
    page.look(width)
    page.run("ask = ((before) => async (path) => { const got = await before(path); if (path === '/admin/state') {"
             "got.answers = {allowed: 5761, denied: 5761, none: 5761}; got.connections = {http: 123, http2: 45, resp: 67};"
             "got.rules.loaded = got.now - 107; } return got; })(ask); show()")
    page.wait("document.querySelector('#tile-clients .more').textContent === '123 HTTP, 45 HTTP/2, 67 RESP'")
    assert page.run(CUT) == []
    assert page.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("highest, labels", [
    (1, "0 1"), (4, "0 1 2 3 4"), (43, "0 10 20 30 40 50"), (220, "0 50 100 150 200 250"), (999, "0 200 400 600 800 1,000")])
def test_the_axis_has_round_steps(page, highest, labels):
    shown = page.run(f"past = {{allowed: [1, {highest}], denied: [0, 0], none: [0, 0]}}; showChart();"
                     "[...document.querySelectorAll('#chart text[text-anchor=end]')].map((one) => one.textContent).filter((one) => one !== 'now').join(' ')")
    assert shown == labels


def test_a_blocked_key_is_called_blocked(page, served):
    for _ in range(3):
        login(served, "192.0.2.7")
    page.wait(f"({ROW % '192.0.2.7'})?.querySelector('.level').textContent === 'blocked'")
