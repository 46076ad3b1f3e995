# SPDX-License-Identifier: MIT
"""The HTML report of steady replay in a real browser. tests/unit_report.c tests its text and the other forms."""
import json
import subprocess
from pathlib import Path

import pytest
from browser import CHROMIUM
from serve_rig import BUILD, needs_daemon, rules_file

WRITER = BUILD / "test/prog_report"
GENERATE = Path(__file__).resolve().parent.parent / "examples/generate-log"
HOSTILE = "</script><script>window.evil=1</script><img src=x onerror='window.evil=1'>\"&"

RULES = """
limits:
  - { name: login, match: { method: POST, path: /login }, rate: 5/min, burst: 10, block: 10m }
  - { name: all, rate: 60/min, burst: 30 }
  - { name: quiet, match: { path: "/api/*" }, rate: 1000/s, mode: shadow }
  - { name: unused, match: { path: /nothing }, key: path, rate: 1/d }
"""

pytestmark = [needs_daemon, pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")]


@pytest.fixture
def page(browser, tmp_path):
    """Opens a report of report_rig.h, at a width and in a scheme."""

    def opened(name, width=1280, scheme="light", change=lambda html: html):
        file = tmp_path / "report.html"
        made = name if isinstance(name, bytes) else subprocess.run([WRITER, name, "html"], check=True, capture_output=True).stdout
        file.write_bytes(change(made))
        browser.look(width, scheme=scheme)
        browser.open("about:blank")
        browser.wait("location.href === 'about:blank'")
        browser.errors.clear()
        browser.open(file.as_uri())
        browser.wait("document.readyState === 'complete' && !!document.querySelector('footer')")
        return browser

    return opened


def point_at(page, selector, part=0.5):
    """Moves the mouse to an element, at a part of its width."""
    x, y = page.run(f"""(() => {{ const element = document.querySelector({selector!r});
        element.scrollIntoView({{block: 'center'}});
        const box = element.getBoundingClientRect();
        return [box.left + {part} * box.width, box.top + box.height / 2]; }})()""")
    page.wait("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
    page._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)


def tip(page):
    page.wait("!document.querySelector('#tip').hidden")
    return page.run("document.querySelector('#tip').innerText").replace("\n", " ").replace("\xa0", " ")


@pytest.mark.parametrize("name", ["all", "login", "search", "unused", "shadow", "empty", "line"])
def test_each_report_opens_without_an_error_and_asks_for_nothing(page, name):
    seen = page(name)
    assert seen.errors == []
    assert seen.run("performance.getEntriesByType('resource').map((entry) => entry.name)") == []
    assert seen.run("document.querySelectorAll('[src], link[rel=stylesheet], iframe, form, [style]').length") == 0


def test_a_page_that_was_tampered_with_runs_no_other_script(page):
    tampered = b"<img src='http://127.0.0.1:9/x.png' onerror='window.evil=1'><script>window.evil=1</script></main>"
    seen = page("login", change=lambda html: html.replace(b"</main>", tampered))
    seen.wait("document.querySelectorAll('img').length === 1")
    assert seen.run("window.evil === undefined")
    assert any("Content Security Policy" in error for error in seen.errors)


def test_a_key_is_text_and_never_html(page):
    seen = page("all")
    assert seen.run("document.querySelectorAll('img, main script').length") == 0
    assert seen.run("window.evil === undefined")
    keys = seen.run("[...document.querySelectorAll('td.text code')].map((cell) => cell.textContent)")
    assert HOSTILE in keys and "k" * 1024 in keys and "(empty)" in keys
    assert "a\\\\b\\x1b[31m\\x0d\\x0a\\x09\\xff\\xc3(\\xe2\\x80\\xae\\x7fé" in keys


def test_hover_shows_the_values_of_an_interval(page):
    seen = page("login")
    point_at(seen, ".chart", 0.5)
    requests, denied = (seen.run(f"JSON.parse(document.querySelector('.chart').dataset.{name})[120]") for name in ("requests", "denied"))
    assert tip(seen) == f"12-01 12:00 to 12:06 UTC {requests} requests, {denied} denied"
    assert seen.run("!document.querySelector('.cursor').hidden")
    seen.run("document.querySelector('.chart').focus()")
    seen._call("Input.dispatchKeyEvent", type="rawKeyDown", key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    seen.wait("document.querySelector('#tip').innerText.includes('12:06 to 12:12')")
    seen._call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    seen.wait("document.querySelector('#tip').hidden")


def test_hover_shows_the_values_of_another_limit(page):
    seen = page("login")
    assert seen.run("document.querySelectorAll('.heat tbody td').length") == 144
    assert seen.run("document.querySelector('.heat td.here').getAttribute('aria-label')").startswith("5/min, burst 10: ")
    point_at(seen, ".heat td.here")
    label = seen.run("document.querySelector('.heat td.here').getAttribute('aria-label')").replace("\xa0", " ")
    assert tip(seen) == label.replace(": ", " ") and "clients (2.7 %) and" in label


def test_the_page_is_readable_without_its_script(page):
    seen = page("login", change=lambda html: html[:html.rindex(b"<script>")])
    assert seen.errors == []
    assert seen.run("document.querySelector('.heat td.here').title").startswith("5/min, burst 10: ")
    seen.run("document.querySelector('details').open = true")
    rows = seen.run("[...document.querySelectorAll('details tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))")
    assert len(rows) == 24 and rows[14][0] == "14:00"
    total = sum(int(row[2].replace(",", "")) for row in rows)
    assert f"{total:,}" == seen.run("document.querySelectorAll('.tile b')[1].textContent")
    assert all(seen.run("[...document.querySelectorAll('svg[role=img]')].map((svg) => svg.querySelector('title').textContent.length > 20)"))


@pytest.mark.parametrize("width", [330, 640, 1280])
@pytest.mark.parametrize("name", ["all", "login", "line"])
def test_nothing_is_wider_than_the_window(page, name, width):
    seen = page(name, width)
    assert seen.run("document.documentElement.scrollWidth") <= width
    wide = f"""[...document.querySelectorAll('body *')].filter((element) => !element.closest('td.text, [hidden]') &&
        element.getBoundingClientRect().right > {width}).map((element) => element.outerHTML.slice(0, 80))"""
    assert seen.run(wide) == []


def test_the_tip_stays_inside_a_narrow_window(page):
    seen = page("login", 330)
    for selector, part in ((".chart", 0.01), (".chart", 0.99), (".heat tbody tr td:last-child", 0.5)):
        point_at(seen, selector, part)
        tip(seen)
        left, right = seen.run("(({left, right}) => [left, right])(document.querySelector('#tip').getBoundingClientRect())")
        assert left >= 0 and right <= 330


def test_the_dark_form_has_other_colours_and_enough_contrast(page):
    contrast = """(() => {
        const parts = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
        const light = (text) => parts(text).map((c) => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
          .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
        const behind = (element) => { for (; ; element = element.parentElement) {
          const color = getComputedStyle(element).backgroundColor;
          if (!/, 0\\)$/.test(color)) return color; } };
        return [...document.querySelectorAll('.heat td, .heat th, .lead, .hint, .tile *, td, th, code, summary, .notes li, .legend span')]
          .filter((element) => element.textContent.trim() !== '')
          .map((element) => { const a = light(getComputedStyle(element).color), b = light(behind(element));
            return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), element.outerHTML.slice(0, 90)]; })
          .filter(([ratio]) => ratio < 4.5); })()"""
    colours = {}
    for scheme in ("light", "dark"):
        seen = page("login", scheme=scheme)
        colours[scheme] = seen.run("getComputedStyle(document.body).backgroundColor + getComputedStyle(document.querySelector('.heat .h7')).backgroundColor")
        assert seen.run(contrast) == []
    assert colours["light"] != colours["dark"]


def test_the_suggestion_is_selected_as_a_whole(page):
    seen = page("login")
    seen.run("document.querySelector('.rule-text').scrollIntoView({block: 'center'})")
    x, y = seen.run("(({left, top}) => [left + 30, top + 16])(document.querySelector('.rule-text').getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        seen._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert seen.run("getSelection().toString()").strip() == seen.run("document.querySelector('.rule-text').textContent")


# ---- Real replays ----


def replay(*args):
    return subprocess.run([BUILD / "steady", "replay", *map(str, args)], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    file = tmp_path_factory.mktemp("log") / "access.log"
    subprocess.run([GENERATE, "--hours", "1", "--out", file], check=True)
    return file


def test_the_page_of_a_replay_has_the_figures_of_its_json(page, log, tmp_path):
    options = (log, "--config", rules_file(tmp_path, RULES), "--suggest", "99.9%")
    found = json.loads(replay(*options, "--json"))
    seen = page(replay(*options, "--html", "-"))
    assert found["limits"][1]["denied"] > 100
    for limit in found["limits"]:
        here = f"[...document.querySelectorAll('.limit')].find((one) => one.querySelector('h2').textContent === '{limit['name']}')"
        tiles = seen.run(f"[...({here}).querySelectorAll('.tile b')].map((value) => value.textContent)")
        counts = [f"{limit[name]:,}" for name in ("requests", "denied", "keys_denied")]
        assert tiles[:3] == (counts if limit["requests"] else [])
        keys = seen.run(f"[...({here}).querySelectorAll('td.text:not(.all) code')].map((key) => key.textContent)")
        assert keys == [key["key"] for key in limit["top_denied"]]
        lead = seen.run(f"({here}).querySelector('.lead').textContent").replace("\xa0", " ")
        assert lead == limit["findings"][0]
        cells = seen.run(f"({here}).querySelectorAll('.heat td').length")
        assert cells == len(limit["grid"]["rates"]) * len(limit["grid"]["bursts"])
        chosen = seen.run(f"({here}).querySelector('.heat td.here')?.getAttribute('aria-label')")
        assert chosen.startswith(limit["limit"]["text"].removeprefix("rate: ").split(",")[0] + f", burst {limit['limit']['burst']:,}: ")
    assert seen.errors == []
    assert seen.run("performance.getEntriesByType('resource').length") == 0


def test_a_suggestion_alone_has_the_whole_width(page, log):
    seen = page(replay(log, "--suggest", "99.9%", "--html", "-"))
    grid, lead, choice = seen.run("""['.grid', '.lead', '.rule-text'].map((name) => {
        const element = document.querySelector(name), card = element.closest('.card') ?? element;
        return [card.getBoundingClientRect().width, element.getBoundingClientRect().height];
    })""")
    assert choice[0] == grid[0] and lead[1] < 30  # one line


def test_the_labels_of_the_time_are_round_and_apart(page, tmp_path):
    begin = 1_796_119_183  # 08:39:43
    for seconds, step in ((8, 2), (480, 120), (3 * 3600, 1800), (6 * 86400, 86400)):
        file = tmp_path / "log"
        file.write_text("".join(json.dumps({"ts": begin + seconds * i / 400, "ip": "192.0.2.1", "uri": "/"}) + "\n" for i in range(401)))
        for width in (1280, 330):
            seen = page(replay(file, "--limit", "5/s", "--html", "-"), width)
            labels = seen.run("""[...document.querySelectorAll('.axis text')].filter((text) => getComputedStyle(text).display !== 'none')
                .map((text) => { const {left, right} = text.getBoundingClientRect(); return [text.textContent, left, right]; })""")
            assert 2 <= len(labels) <= 9
            assert all(one[2] < other[1] for one, other in zip(labels, labels[1:]))
            for text, _, _ in labels:
                clock = [int(part) for part in text.split(" ")[-1].split(":")]
                assert sum(part * 60 ** (2 - i) for i, part in enumerate(clock)) % step == 0, labels


def test_the_page_of_a_replay_fits_a_phone(page, log, tmp_path):
    seen = page(replay(log, "--config", rules_file(tmp_path, RULES), "--suggest", "99.9%", "--html", "-"), 330)
    assert seen.run("document.documentElement.scrollWidth") <= 330


def test_a_log_cannot_write_into_the_page(page, tmp_path):
    hostile = "/%3Cimg%20src=x%3E\"><img/src=x/onerror=window.evil=1><script>window.evil=1</script>"
    request = {"time": "2026-12-01T08:00:00Z", "remote_ip": HOSTILE, "method": "GET", "uri": hostile, "status": 200, "user_agent": HOSTILE}
    file = tmp_path / HOSTILE.replace("/", "_")
    file.write_text("".join(json.dumps({**request, "who": HOSTILE}) + "\n" for _ in range(9)) + HOSTILE)
    seen = page(replay(file, "--key", ".who", "--limit", "2/min", "--field", "path=uri", "--html", "-"))
    assert seen.run("document.querySelectorAll('img, main script').length") == 0
    assert seen.run("window.evil === undefined")
    texts = seen.run("[...document.querySelectorAll('td.text code')].map((cell) => cell.textContent)")
    assert HOSTILE in texts and any("<img/src=x" in text for text in texts)
    assert seen.errors == []


def test_the_text_of_a_replay_fits_80_columns(log, tmp_path):
    text = replay(log, "--config", rules_file(tmp_path, RULES), "--suggest", "99.9%").decode()
    assert "would have been denied" in text and "Suggestion" in text
    assert [line for line in text.splitlines() if len(line) > 80 and not line.startswith("  - { name")] == []
