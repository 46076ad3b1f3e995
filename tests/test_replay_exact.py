# SPDX-License-Identifier: MIT
"""`steady replay` of a random log has the verdicts of the daemon, which gets the same requests under a set clock."""
import csv
import http.client
import json
import mmap
import random
import struct
import subprocess
from datetime import datetime, timezone

import pytest
from serve_rig import BUILD, daemon, needs_daemon, rules_file

pytestmark = needs_daemon

BEGIN = 1_764_000_000_000_000  # us
REQUESTS = 800
KEYS = ["ip", "header:x-key", "path", "ip+path", "hash:header:x-key"]
MATCHES = ["", "path: /login", "path: '/api/*'", "method: POST", "method: [GET, PUT]"]
RATES = ["1/s", "3/s", "7/s", "20/s", "10/min", "100/min", "300/h"]
ADDRESSES = ["192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:db8:1:2::9", "2001:db8:1:2::10"]
PATHS = ["/", "/login", "/api/a", "/api/b?x=1", "/API//b", "/api/%61"]
FIELDS = ["ts", "ip", "method", "path=uri", "host", "header:x-key=key", "header:x-plan=plan", "header:x-cost=cost"]


def a_limit(random_, name, tiers):
    burst = random_.choice([1, 2, 3, 5, 10, 40])
    cost = random_.choice(["", "", "", ", cost: 2", ", cost: { header: x-cost, trusted_header: true }", ", cost: after"])
    shadow = ", mode: shadow" if random_.random() < 0.25 else ""
    return "".join([f"  - {{ name: {name}, key: {random_.choice(KEYS)}, rate: {random_.choice(RATES)}, burst: {burst}",
                    f", match: {{ {match} }}" if (match := random_.choice(MATCHES)) else "",
                    f", missing: {random_.choice(['skip', 'refuse', 'ip'])}",
                    f", block: {random_.choice(['500ms', '3s', '1m'])}" if random_.random() < 0.3 else "",
                    ", max_ahead: 20ms" if not shadow and "after" not in cost and random_.random() < 0.15 else "",
                    ", tiers: { header: x-plan, trusted_header: true, pro: 50/s, free: 2/min }"
                    if tiers and random_.random() < 0.4 else "", cost, shadow, " }\n"])


def some_rules(random_, folder, tiers=True, name="steady.yaml"):
    text = "store: 'memory:'\ntrusted: [127.0.0.0/8]\nexempt: { ip: [198.51.100.0/28] }\nlimits:\n"
    text += "".join(a_limit(random_, f"l{i}", tiers) for i in range(random_.randint(1, 6)))
    return rules_file(folder, text, name)


def some_requests(random_, n):
    now, requests = BEGIN, []
    for _ in range(n):
        now += random_.choice([0, 0, 1, 17, 1000, 40_000, 150_000, 1_000_000, 30_000_000 if random_.random() < 0.05 else 0])
        requests.append({"ts": now, "ip": random_.choice(ADDRESSES), "method": random_.choice(["GET", "POST", "HEAD"]),
                         "uri": random_.choice(PATHS), "host": "a.example"}
                        | ({"key": random_.choice(["k1", "k2", "{k}+%"])} if random_.random() < 0.8 else {})
                        | ({"plan": random_.choice(["pro", "free", "none"])} if random_.random() < 0.5 else {})
                        | ({"cost": str(random_.choice([0, 1, 1, 2, 5, 100]))} if random_.random() < 0.5 else {}))
    return requests


def text_of(us):
    moment = datetime.fromtimestamp(us // 1_000_000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{us % 1_000_000:06d}Z"


def decisions_of_the_daemon(rules, requests, folder):
    """The lines of the decision log."""
    clock, log = folder / "clock", folder / "decisions.log"
    clock.write_bytes(struct.pack("q", BEGIN))
    preload = {"LD_PRELOAD": str(BUILD / "boot_clock.so"), "BOOT_CLOCK": str(clock)}
    with (open(clock, "r+b") as file, mmap.mmap(file.fileno(), 8) as now,
          daemon("--config", rules, "--threads", 1, "--log", log, env=preload) as running):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        for request in requests:
            now[:] = struct.pack("q", request["ts"])
            fields = {"X-Forwarded-For": request["ip"], "X-Forwarded-Method": request["method"],
                      "X-Forwarded-Uri": request["uri"], "X-Forwarded-Host": request["host"]}
            fields |= {f"X-{name}": request[name] for name in ("key", "plan", "cost") if name in request}
            connection.request("GET", "/v1/check", headers=fields)
            connection.getresponse().read()
        connection.close()
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def verdicts_of_replay(log, rules, folder, *options):
    """(time in us, limit, key, amount, allowed, the request is allowed) of each part."""
    verdicts = folder / "verdicts.csv"
    done = subprocess.run([BUILD / "steady", "replay", log, "--config", rules, "--verdicts", verdicts, "--json", *options],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with open(verdicts, newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads(done.stdout), [(int(row["time"].replace(".", "")), row["limit"], row["key"], int(row["amount"]),
                                      row["verdict"] == "allowed", row["request"] == "allowed") for row in rows]


def verdicts_of_the_log(decisions):
    def time(line):
        moment, fraction = line["ts"].rstrip("Z").split(".")
        return int(datetime.strptime(moment + "+0000", "%Y-%m-%dT%H:%M:%S%z").timestamp()) * 1_000_000 + int(fraction)
    return [(time(line), part["limit"], part["key"], part["amount"], part["allowed"], line["allowed"])
            for line in decisions for part in line["parts"]]


def write_log(requests, path):
    lines = [json.dumps(request | {"ts": text_of(request["ts"])}) for request in requests]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("seed", range(6))
def test_replay_has_the_verdicts_of_the_daemon(seed, tmp_path):
    random_ = random.Random(seed)
    rules, requests = some_rules(random_, tmp_path), some_requests(random_, REQUESTS)
    expected = verdicts_of_the_log(decisions_of_the_daemon(rules, requests, tmp_path))
    log = write_log(requests, tmp_path / "access.json")
    fields = [option for field in FIELDS if "=" in field for option in ("--field", field)]
    report, verdicts = verdicts_of_replay(log, rules, tmp_path, "--format", "json", "--time", "ts",
                                          "--field", "ip=ip", "--field", "method=method", "--field", "host=host", *fields)
    assert verdicts == expected
    assert len(expected) > REQUESTS / 4 and len({row[4:] for row in expected}) >= 2
    for limit in report["limits"]:
        own = [row for row in expected if row[1] == limit["name"]]
        assert limit["requests"] == len(own)
        assert limit["denied"] == sum(not row[4] for row in own)
        assert limit["other_limit_denied"] == sum(row[4] and not row[5] for row in own)


def test_replay_of_a_decision_log_has_the_same_verdicts(tmp_path):
    random_ = random.Random(100)
    rules, requests = some_rules(random_, tmp_path, tiers=False), some_requests(random_, REQUESTS)
    expected = verdicts_of_the_log(decisions_of_the_daemon(rules, requests, tmp_path))
    _, verdicts = verdicts_of_replay(tmp_path / "decisions.log", rules, tmp_path)
    assert verdicts == expected and len(expected) > REQUESTS / 3


def test_lines_out_of_order_have_the_verdicts_of_their_order_in_time(tmp_path):
    random_ = random.Random(7)
    rules, requests = some_rules(random_, tmp_path), some_requests(random_, REQUESTS)
    for i, request in enumerate(requests):
        request["ts"] += i  # no two have the same time
    late = sorted(requests, key=lambda request: request["ts"] + random_.randrange(50_000_000))
    assert late != requests
    fields = ["--format", "json", *(option for field in FIELDS if "=" in field for option in ("--field", field))]
    expected = verdicts_of_replay(write_log(requests, tmp_path / "sorted"), rules, tmp_path, *fields)[1]
    assert verdicts_of_replay(write_log(late, tmp_path / "late"), rules, tmp_path, *fields)[1] == expected
    # Two files are merged by time.
    halves = [write_log(late[i::2], tmp_path / f"half-{i}") for i in range(2)]
    assert verdicts_of_replay(halves[0], rules, tmp_path, halves[1], *fields)[1] == expected
