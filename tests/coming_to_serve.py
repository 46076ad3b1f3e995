# SPDX-License-Identifier: MIT
"""The pages in docs/how-to that move other limiters to `steady serve`: their blocks, and the verdicts that they claim."""
import re
import threading
import time
from types import SimpleNamespace

from aiosteady_build import ROOT

HOW_TO = ROOT / "docs/how-to"
NGINX = HOW_TO / "coming-from-nginx-limit-req.md"
ENVOY = HOW_TO / "coming-from-envoy-ratelimit.md"
CELL = HOW_TO / "coming-from-redis-cell.md"
PAGES = {NGINX, ENVOY, CELL}


def sections(page):
    """By heading: the text."""
    return {part.partition("\n")[0]: part for part in re.split(r"^## ", page.read_text(), flags=re.M)[1:]}


def block(text, language, after=""):
    """The only block of this language, or the one after these words."""
    found = re.findall(rf"^```{language}\n(.*?)^```", text[text.index(after):], re.S | re.M)
    assert found and (after or len(found) == 1), text
    return found[0]


def claims(text):
    """(requests, how many of them pass) of each sentence "Of 30 requests at once, 21 pass"."""
    return [(int(n), int(passed)) for n, passed in re.findall(r"Of (\d+) requests [^,.]*(?:\.[\d.]+)?, (\d+) pass", text)]


def at_once(number, send):
    """Calls `send` so many times at once. `passed`: the seconds after which each 200 came, in order; `statuses` of the
    others; `arrived`: the seconds after which the last of the others was there."""
    answers, ready = [], threading.Barrier(number + 1)

    def one():
        ready.wait()
        status = send()
        answers.append((time.monotonic(), status))

    threads = [threading.Thread(target=one) for _ in range(number)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    others = [(moment, status) for moment, status in answers if status != 200]
    return SimpleNamespace(passed=sorted(moment - began for moment, status in answers if status == 200),
                           statuses={status for _, status in others},
                           arrived=max((moment - began for moment, _ in others), default=0))
