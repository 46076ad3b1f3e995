# SPDX-License-Identifier: MIT
"""The HTML report of steady replay in a real browser. tests/unit_report.c tests its text and the other forms."""
import os
import subprocess
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

BUILD = Path(os.environ.get("BUILD", Path(__file__).resolve().parent.parent / "build")).resolve()
WRITER = BUILD / "test/prog_report"
HOSTILE = "</script><script>window.evil=1</script><img src=x onerror='window.evil=1'>\"&"

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
              pytest.mark.skipif(not WRITER.exists(), reason="the daemon is not built: scripts/setup build serve")]


@pytest.fixture(scope="module")
def browser():
    running = Browser()
    yield running
    running.close()


@pytest.fixture
def page(browser, tmp_path):
    """Opens a report of report_rig.h, at a width and in a scheme."""

    def opened(name, width=1280, scheme="light", change=lambda html: html):
        file = tmp_path / "report.html"
        file.write_bytes(change(subprocess.run([WRITER, name, "html"], check=True, capture_output=True).stdout))
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
