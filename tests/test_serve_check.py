# SPDX-License-Identifier: MIT
"""`steady check` says of random requests what the daemon does: the decision log has the limits and keys."""
import json
import random
import re
import subprocess

from serve_rig import BUILD, daemon, needs_daemon, rules_file

pytestmark = needs_daemon

KEYS = ["ip", "ip/48", "header:x-a", "cookie:c", "query:q", "path", "host", "method", "hash:header:x-a",
        "ip+path", "header:x-a+query:q", "host+method"]
MATCHES = ["", "path: /a", "path: '/a/*'", "method: POST", "method: [GET, PUT]", "host: '*.example'",
           "ip: 192.0.2.0/24", "header: { x-a: 'v*' }", "path: ['/a/b', '*.php']"]
TIERS = ", tiers: { header: x-plan, trusted_header: true, pro: 7/s }"
PATHS = ["/", "/a", "/A/", "/a/b", "/a//b", "/a/%62", "/a/../a/b", "/x.php",
         "/x.php;y", "/a%2Fb", "/%2e%2e/a", "//h/a",
         "http://h/a", "/a\\b", "/a/.", "/%", "/a?q=1", "/a?q=%31", "/a?q=1&q=2", "/b?x&q=a+b", "/?q={}%25"]
HEADERS = [("X-A", "v1"), ("x-a", "{v}+%"), ("X-A", ""), ("Cookie", "c=1; d=2"), ("Cookie", 'c="a b"'),
           ("X-A", "w" * 600), ("X-Plan", "pro"), ("Cookie", "c=1; c=2")]
ADDRESSES = ["192.0.2.1", "198.51.100.7", "2001:db8:1:2:3::4", "::ffff:192.0.2.9"]


def a_file(random_):
    lines = ["store: 'memory:'", "limits:"]
    if random_.random() < 0.3:
        lines.insert(0, "exempt: { ip: [198.51.100.7] }")
    for i in range(random_.randint(1, 6)):
        more = "".join([f", match: {{ {match} }}" if (match := random_.choice(MATCHES)) else "",
                        ", missing: skip" if random_.random() < 0.3 else "",
                        ", mode: shadow" if random_.random() < 0.2 else "",
                        ", cost: after" if random_.random() < 0.1 else "",
                        TIERS if random_.random() < 0.3 else ""])
        lines.append(f"  - {{ name: l{i}, key: {random_.choice(KEYS)}, rate: 1000000/s{more} }}")
    return "\n".join(lines) + "\n"


def says(path, method, target, host, address, headers):
    """(limit, key, kind) of each limit."""
    options = [option for name, value in headers for option in ("--header", f"{name}: {value}")]
    command = [BUILD / "steady", "check", path, "--request", f"{method} {target}", "--host", host, "--ip", address]
    text = subprocess.run([*command, *options], capture_output=True, text=True, check=True).stdout
    kinds = {"": "take", "(looked at; the cost comes after)": "look", "(shadow: it denies nothing)": "shadow"}
    found = re.findall(r"^  (l\d) .*?, burst \d+(?:, tier \w+)? ?(.*)\n +key (.*), stored as ", text, re.M)
    return [(limit, key, kinds[kind]) for limit, kind, key in found]


def test_check_says_what_the_daemon_does(tmp_path):
    random_ = random.Random(4)
    for n in range(8):
        path = rules_file(tmp_path, a_file(random_), f"{n}.yaml")
        log = tmp_path / f"{n}.log"
        expected = []
        with daemon("--config", path, "--threads", 1, "--log", log) as running:
            for _ in range(20):
                method, target = random_.choice(["GET", "HEAD", "POST", "PUT"]), random_.choice(PATHS)
                host = random_.choice(["a.example", "B.EXAMPLE:80", "h.", "[::1]:8"])
                address = random_.choice(ADDRESSES)
                headers = random_.sample(HEADERS, random_.randint(0, 3))
                said = says(path, method, target, host, address, headers)
                if said:
                    expected.append((method, target, host, address, headers, said))
                asked = [("X-Forwarded-Method", method), ("X-Forwarded-Uri", target), ("X-Forwarded-Host", host),
                         ("X-Forwarded-For", address), *headers]
                fields = "".join(f"{name}: {value}\r\n" for name, value in asked)
                answer = running.raw(f"GET /v1/check HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 200"), (answer, target, headers)
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        done = [[(part["limit"], part["key"], part["kind"]) for part in line["parts"]] for line in lines]
        assert len(done) == len(expected)
        for (*request, said), decided in zip(expected, done):
            assert said == decided, (path.read_text(), request)


def test_check_of_an_address_without_a_request_says_that_one_is_missing(tmp_path):
    path = rules_file(tmp_path, "limits: [{ name: a, rate: 1/s, match: { path: /a } }]")
    run = subprocess.run([BUILD / "steady", "check", path, "--ip", "192.0.2.1"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "steady check: a request is missing, such as --request 'GET /'\n"
