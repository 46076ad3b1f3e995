# SPDX-License-Identifier: MIT
"""Rules files: what is right, what is wrong and how `steady check` says so, and what the daemon makes of them."""
import asyncio
import hashlib
import json
import socket
import subprocess
import time

import pytest
from python_rig import patient
from serve_rig import BUILD, daemon, needs_daemon, rules_file

pytestmark = needs_daemon


def check(*args):
    """(exit code, standard output, standard error) of `steady check`."""
    done = subprocess.run([BUILD / "steady", "check", *map(str, args)], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, check=False)
    return done.returncode, done.stdout, done.stderr


def one(entries):
    """A file with one limit, whose second line begins with two blanks."""
    return "limits:\n- { name: a, rate: 1/s, " + entries + " }\n"


# ---- Files that are wrong ----

WRONG = [
    # text, line:column, a part of the message
    ("", "", "the file is empty; it needs limits"),
    ("# nothing\n", "", "the file is empty"),
    ("limits: []\n", "1:1", "the file has no limit"),
    ("- a\n", "1:1", "the file must be a mapping"),
    ("limits\n", "1:1", "the file must be a mapping"),
    ("limits: 5\n", "1:9", 'begin each limit with "- "'),
    ("limits: { name: a, rate: 1/s }\n", "1:9", 'begin each limit with "- "'),
    ("limits: [5]\n", "1:10", "a limit must be a mapping"),
    ("limit:\n- { name: a, rate: 1/s }\n", "1:1", 'no key "limit"; its keys are: store, on_error'),
    ("limits:\n- { name: a, rate: 1/s }\nlimits:\n- { name: b, rate: 1/s }\n", "3:1", '"limits" is given twice'),
    ("limits:\n- { rate: 1/s }\n", "2:3", "a limit needs a name, such as name: login"),
    ("limits:\n- { name: a }\n", "2:3", "the limit a needs a rate, such as rate: 10/min"),
    ("limits:\n- { name: a, rate: 1/s }\n- { name: b, rate: 1/s }\n- { name: a, rate: 2/s }\n", "4:3",
     "the limit in line 2, too"),
    ("limits:\n- { name: , rate: 1/s }\n", "2:11", "must be 1 to 64 printable ASCII bytes"),
    ("limits:\n- { name: 'a b', rate: 1/s }\n", "2:11", "without spaces"),
    ("limits:\n- { name: 'a:b', rate: 1/s }\n", "2:11", "and :"),
    ("limits:\n- { name: 'a{b', rate: 1/s }\n", "2:11", "without spaces, %, { and }"[:16]),
    ("limits:\n- { name: ä, rate: 1/s }\n", "2:11", "printable ASCII"),
    ("limits:\n- { name: " + "n" * 65 + ", rate: 1/s }\n", "2:11", "1 to 64"),
    ("limits:\n- { name: [a], rate: 1/s }\n", "2:11", "name must be a single value"),
    ('limits:\n- { name: "a\\0b", rate: 1/s }\n', "2:11", "name has a NUL byte"),
    ("limits:\n- { name: a, rate: 10 }\n", "2:20", "such as 100/min"),
    ("limits:\n- { name: a, rate: 10/fortnight }\n", "2:20", "fortnight"),
    ("limits:\n- { name: a, rate: 0/s }\n", "2:20", "0/s"),
    ("limits:\n- { name: a, rate: -1/s }\n", "2:20", "-1/s"),
    ("limits:\n- { name: a, rate: 99999999999999999999/s }\n", "2:20", ""),
    (one("rates: 1/s"), "2:25", 'a limit has no key "rates"; its keys are: name, match, key, rate'),
    (one("burst: 0"), "2:32", 'burst is "0"; it must be a whole number from 1 to 2147483647'),
    (one("burst: 1.5"), "2:32", "whole number"),
    (one("burst: 010"), "2:32", "whole number"),
    (one("burst: 0x10"), "2:32", "whole number"),
    (one("burst: 1_000"), "2:32", "whole number"),
    (one("burst: 99999999999999999999"), "2:32", "whole number"),
    (one("burst: ten"), "2:32", "whole number"),
    (one("block: 10"), "2:32", "block"),
    (one("block: soon"), "2:32", "block"),
    (one("key: header"), "2:30", '"header" is no key; use ip, ip/48, header:NAME'),
    (one("key: 'header:'"), "2:30", "is no key"),
    (one("key: ip/0"), "2:30", "is no key"),
    (one("key: ip/129"), "2:30", "is no key"),
    (one("key: ip+"), "2:30", '"" is no key'),
    (one("key: ''"), "2:30", '"" is no key'),
    (one("key: [ip, path]"), "2:30", "key must be a single value"),
    (one("match: /login"), "2:32", "match must be a mapping, such as { path: ... }"),
    (one("match: { paths: /a }"), "2:34", 'match has no key "paths"; its keys are: path, method'),
    (one("match: { path: login }"), "2:40", 'the path "login" must begin with / or *'),
    (one("match: { path: '/a?b=1' }"), "2:40", "use query: { name: value }"),
    (one("match: { path: [] }"), "2:40", "the list is empty"),
    (one("match: { path: /a, path: /b }"), "2:44", '"path" is given twice'),
    (one("match: { ip: localhost }"), "2:38", '"localhost" is no address and no network such as'),
    (one("match: { ip: 10.0.0.1/8 }"), "2:38", "no network"),
    (one("match: { ip: 10.0.0.0/33 }"), "2:38", "no network"),
    (one("match: { header: x-plan }"), "2:42", "header must be a mapping of names, such as { x-name: value }"),
    (one("match: { header: { 'x-plan:': a } }"), "2:44", "leave out the colon"),
    (one("match: { header: { x-plan: a, X-Plan: b } }"), "2:55", "is given twice; list its values"),
    (one("match: { header: { x-plan: { a: b } } }"), "2:52", "a value must be a single value"),
    (one("exempt: { header: { x-free: '1' } }"), "2:33", "exempt by header needs trusted_header: true"),
    (one("exempt: { header: { x-free: '1' }, trusted_header: yes }"), "2:76",
     'trusted_header is "yes"; it must be true or false'),
    (one("exempt: { path: /a }"), "2:35", 'exempt has no key "path"; its keys are: ip, header'),
    (one("tiers: { header: x-plan, pro: 2/s }"), "2:32", "tiers by header needs trusted_header: true"),
    (one("tiers: { trusted_header: true, pro: 2/s }"), "2:32", "tiers needs the header that names the tier"),
    (one("tiers: { header: x-plan, trusted_header: true }"), "2:32", "tiers has no tier; add a value"),
    (one("tiers: { header: x-plan, trusted_header: true, pro: 2/s, pro: 3/s }"), "2:87",
     'the tier "pro" is given twice'),
    (one("tiers: { header: x-plan, trusted_header: true, pro: fast }"), "2:77", "fast"),
    (one("cost: 0"), "2:31", "whole number from 1"),
    (one("cost: -1"), "2:31", "it must be a whole number, { header: NAME, trusted_header: true }, or after"),
    (one("cost: {}"), "2:31", "cost needs its header, such as header: x-cost"),
    (one("cost: { trusted_header: true }"), "2:31", "cost needs its header"),
    (one("cost: { header: 'x cost' }"), "2:41", '"x cost" is no name of a header'),
    (one("cost: { heder: x }"), "2:33", 'cost has no key "heder"; its keys are: header, trusted_header'),
    (one("cost: [1]"), "2:31", "cost must be a single value"),
    (one("cost: before"), "2:31", 'cost is "before"; it must be a whole number, { header: NAME, trusted_header: true }, or after'),
    (one("mode: dry"), "2:31", 'mode is "dry"; it must be one of: enforce, shadow'),
    (one("missing: deny"), "2:34", "one of: ip, skip, refuse"),
    (one("max_ahead: 5"), "2:36", "max_ahead"),
    (one("max_ahead: 5s, mode: shadow"), "2:3", "cannot queue; leave out max_ahead"),
    (one("max_ahead: 5s, cost: after"), "2:3", "cannot queue; leave out max_ahead"),
    (one("key: 'descriptor:a+ip'"), "2:3", "its key must be descriptor:NAME"),
    (one("match: { descriptor: { a: b } }"), "2:3", "its key must be descriptor:NAME"),
    (one("key: 'descriptor:a', match: { path: /x }"), "2:3", "must match descriptor only"),
    (one("key: 'descriptor:a', missing: ip"), "2:3", "use missing: skip or missing: refuse"),
    (one("key: 'descriptor:a', max_ahead: 1s"), "2:3", "leave out max_ahead"),
    ("on_error: open\n" + one("burst: 1"), "1:11", "one of: report, deny, allow, local"),
    ("trusted: proxies\n" + one("burst: 1"), "1:10", "no address and no network"),
    ("prefix: 'a{b'\n" + one("burst: 1"), "1:9", "without { and }"),
    ("local_share: 0\n" + one("burst: 1"), "1:14", "whole number from 1"),
    ("include: nowhere/*.yaml\n" + one("burst: 1"), "1:10", 'no file matches "nowhere/*.yaml"'),
    ("limits:\n\t- { name: a, rate: 1/s }\n", "2:1", "indent with spaces, not with tabs"),
    ("limits:\n- { name: a, rate: 1/s\n", "3:1", "this is not YAML"),
    ("limits:\n- name: a\n rate: 1/s\n", "3:2", "check the indentation"),
    ("limits: *nothing\n", "1:9", "this is not YAML"),
    ("limits:\n- " + "[" * 1001 + "\n", "2:1003", "brackets are nested deeper than 1000"),
    ("limits: 'a\n", "2:1", "this is not YAML"),
    ("limits:\n- &a { name: a, rate: 1/s, match: *a }\n", "2:8", 'match has no key "name"'),
    (one("burst: 1") + "---\nlimits: []\n", "4:1", "a second document after ---"),
    ("a: \x01\n", "", "the file must be UTF-8 text"),
    (b"a: \xff\xfe\n", "", "the file must be UTF-8 text"),
    (one("match: { path: &p /a, <<: *p }"), "2:47", 'no key "<<"'),
]


@pytest.mark.parametrize("text, where, message", WRONG)
def test_a_wrong_file_is_named_with_line_column_and_the_correct_form(tmp_path, text, where, message):
    path = tmp_path / "steady.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = check(path)
    assert code == 2 and out == ""
    assert err.startswith(f"{path}:{where}: " if where else f"{path}: "), err
    assert message in err
    assert err.count("\n") == 1 and err.isprintable() is False and err[:-1].isprintable()


def test_there_are_enough_wrong_files():
    assert len(WRONG) >= 40


ENVOY_WRONG = [
    ("domain: ''\ndescriptors: []\n", "1:1", "the file needs a domain"),
    ("domain:\ndescriptors:\n", "1:1", "the file needs a domain"),
    ("domain: d\ndescriptors: x\n", "2:14", "descriptors must be a list"),
    ("domain: d\ndescriptors: [a, b]\n", "2:15", "a descriptor must be a mapping"),
    ("domain: d\ndescriptors:\n- value: v\n", "3:3", "a descriptor needs a key"),
    ("domain: d\ndescriptors:\n- { key: k, value: v }\n- { key: k, value: v }\n", "4:3", "is that of line 3, too"),
    ("domain: d\ndescriptors:\n- { key: k }\n- { key: j }\n- { key: k }\n", "5:3", "k is that of line 3, too"),
    ("domain: d\ndescriptors:\n- key: k\n  ratelimit: { unit: day, requests_per_unit: 5 }\n", "4:3",
     'no key "ratelimit"; its keys are: key, value, rate_limit'),
    ("domain: d\ndescriptors:\n- key: k\n  rate_limit: { unit: day, requestsperunit: 5 }\n", "4:28",
     'no key "requestsperunit"; its keys are: unit, requests_per_unit'),
    ("domain: d\ndescriptors:\n- key: k\n  rate_limit: { unit: foo, requests_per_unit: 5 }\n", "4:23",
     "it must be second, minute, hour"),
    ("domain: d\ndescriptors:\n- key: k\n  rate_limit: { requests_per_unit: 5 }\n", "4:15", "needs a unit"),
    ("domain: d\ndescriptors:\n- key: k\n  rate_limit: { unlimited: true, unit: day }\n", "4:15",
     "must not be unlimited and have a unit"),
    ("domain: d\ndescriptors:\n- key: k\n  rate_limit: { unit: day, requests_per_unit: -1 }\n", "4:47", "from 0"),
    ("domain: d\ndescriptors:\n- key: k\n  rate_limit: { unit: day, requests_per_unit: 4294967296 }\n", "4:47",
     "to 4294967295"),
    ("domain: d\ndescriptors:\n- key: k\n  rate_limit: { name: s, replaces: [{ name: s }], unit: day, "
     "requests_per_unit: 1 }\n", "4:15", "replaces itself"),
    ("domain: d\ndescriptors:\n- key: k\n  rate_limit: { replaces: [{ name: }], unit: day, requests_per_unit: 1 }\n",
     "4:28", "needs the name of a limit"),
    ("domain: d\ndescriptors:\n- { key: k, value: v, share_threshold: true }\n", "3:3", "needs a value with *"),
    ("0.25: d\ndomain: d\n", "1:1", 'no key "0.25"'),
    ("domain: d\ndescriptors:\n- { key: k, shadow_mode: maybe }\n", "3:26", "must be true or false"),
]


@pytest.mark.parametrize("text, where, message", ENVOY_WRONG)
def test_a_wrong_file_of_envoyproxy_ratelimit_is_named_in_the_same_way(tmp_path, text, where, message):
    path = rules_file(tmp_path, text)
    code, _, err = check(path)
    assert code == 2 and err.startswith(f"{path}:{where}: ") and message in err, err


def test_two_files_of_one_domain_are_an_error(tmp_path):
    for name in ("a", "b"):
        rules_file(tmp_path, "domain: same\ndescriptors: [{ key: k }]\n", f"{name}.envoy.yaml")
    path = rules_file(tmp_path, "include: '*.envoy.yaml'\n")
    code, _, err = check(path)
    assert code == 2
    assert err == f"{tmp_path}/b.envoy.yaml:1:1: another file has the domain same, too\n"


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    assert check(tmp_path / "none.yaml") == (2, "", f"{tmp_path}/none.yaml: No such file or directory\n")
    code, _, err = check(tmp_path)
    assert code == 2 and "Is a directory" in err


# ---- Hostile files ----


def test_anchors_that_multiply_end_soon(tmp_path):
    assert check(rules_file(tmp_path, "limits: &x [" + "*x, " * 3 + "]\n"))[0] == 2
    nested = "- { key: k0, descriptors: &l0 [{ key: a }] }\n"
    for i in range(1, 14):
        items = ", ".join(f"{{ key: k{k}, descriptors: *l{i - 1} }}" for k in range(9))
        nested += f"- {{ key: k{i}, descriptors: &l{i} [{items}] }}\n"
    code, _, err = check(rules_file(tmp_path, "domain: d\ndescriptors:\n" + nested))
    assert code == 2 and "more than 500000 values, counting those of anchors" in err


@pytest.mark.parametrize("text", [
    "[" * 100_000, "{" * 100_000, "- " * 100_000, "limits: " + "[" * 999, "a: " * 10_000, "? " * 100_000,
    "&a " * 1000, "limits: !!binary x\n", "%YAML 9.9\n---\nlimits: []\n", "\0", "limits: [{ name: a, rate: \"\\x",
    "-" * 200_000, "'" * 100_001, "\n" * 1_000_000, "limits:\n" + "  - \n" * 20_000,
], ids=range(15))
def test_a_hostile_file_is_an_error(tmp_path, text):
    code, _, err = check(rules_file(tmp_path, text))
    assert code == 2 and err.count("\n") == 1


def test_a_file_over_4_mib_and_a_limit_too_many_are_errors(tmp_path):
    assert "larger than 4 MiB" in check(rules_file(tmp_path, "#" * (4 << 20) + "\n"))[2]
    limits = "".join(f"- {{ name: l{i}, rate: 1/s }}\n" for i in range(10_001))
    assert "more than 10000 items" in check(rules_file(tmp_path, "limits:\n" + limits))[2]


# ---- Files that are right ----


@pytest.mark.parametrize("text, limits", [
    ("\ufefflimits: [{ name: a, rate: 1/s }]\n", "1 limit"),
    ("limits:\r\n- name: a\r\n  rate: 1/s\r\n", "1 limit"),
    ("limits: [{ name: 5, rate: 1/s }, { name: 0x10, rate: 1/s }, { name: null, rate: 1/s }]\n", "3 limits"),
    ("limits: [{ name: yes, rate: 1/s }, { name: off, rate: 1/s }]\n", "2 limits"),
    ("---\nlimits: [{ name: a, rate: 1/s }]\n...\n", "1 limit"),
    ("%YAML 1.1\n---\nlimits: [{ name: a, rate: 1/s }]\n---\n", "1 limit"),
    ('{"limits": [{"name": "a", "rate": "1/s", "match": {"path": "/a"}}]}', "1 limit"),
    ("limits:\n- { name: a, rate: 1/s, match: &m { path: /a } }\n- { name: b, rate: 1/s, match: *m }\n", "2 limits"),
])
def test_a_right_file_is_right(tmp_path, text, limits):
    path = rules_file(tmp_path, text)
    code, out, err = check(path)
    assert (code, err) == (0, "") and limits in out


@pytest.mark.parametrize("text, warning", [
    (one("cost: 20, burst: 10"), "the limit a denies every request: its cost is 20, and its burst is only 10"),
    (one("burst: 20, cost: 20, tiers: { header: x, trusted_header: true, small: 5/s }"), "its cost is 20"),
    (one("max_ahead: 1s, block: 5s"), "its block never starts"),
    (one("cost: after, block: 5s"), "its block never starts"),
    (one("exempt: { header: { x: y }, trusted_header: true }"), "make sure that the proxy sets or removes this header"),
    (one("tiers: { header: x, trusted_header: true, pro: 5/s }"), "make sure that the proxy sets or removes"),
    (one("cost: header:x-cost"), "write cost: { header: x-cost, trusted_header: true }"),
    (one("cost: { header: x-cost }"), "a client can send any header, so it chooses its cost, also 0"),
    (one("cost: { header: x-cost, trusted_header: false }"), "cost by header"),
    ("exempt: { ip: 10.0.0.0/8 }\n" + one("match: { ip: [10.1.0.0/16, 10.2.0.1] }"), "the limit a never counts"),
    (one("exempt: { ip: '::/0' }, match: { ip: '2001:db8::/32' }"), "the limit a never counts"),
])
def test_a_likely_mistake_is_warned_of(tmp_path, text, warning):
    path = rules_file(tmp_path, text)
    code, _, err = check(path)
    assert code == 0
    assert f"warning: {path}:" in err and warning in err


@pytest.mark.parametrize("text", [
    one("burst: 10, cost: 10"),
    one("cost: { header: x-cost, trusted_header: true }"),
    "exempt: { ip: 10.0.0.0/8 }\n" + one("match: { ip: [10.1.0.0/16, 192.0.2.1] }"),
    "exempt: { ip: 10.0.0.0/16 }\n" + one("match: { ip: 10.0.0.0/8 }"),
    one("match: { path: /a }") + "- { name: b, rate: 1/s }\n",
])
def test_no_mistake_is_warned_of_without_a_reason(tmp_path, text):
    assert check(rules_file(tmp_path, text))[2] == ""


# ---- What counts for a request ----

EXPLAINED = """
exempt: { ip: 198.51.100.0/24 }
limits:
  - { name: login, match: { method: POST, path: /login }, rate: 5/min, burst: 10, block: 10m }
  - { name: api, match: { path: "/api/*" }, key: header:x-api-key, rate: 20/s }
  - { name: trial, match: { host: "*.example", header: { x-kind: [a, b] } }, rate: 1/h, mode: shadow }
  - { name: tokens, match: { path: /chat, ip: 192.0.2.0/24 }, key: path, rate: 100/min, cost: after }
  - { name: user, key: descriptor:user, rate: 1/s }
"""


@pytest.mark.parametrize("options, lines", [
    (["--request", "POST /login?a=1", "--ip", "192.0.2.1"],
     ["limits that count:",
      "login 5 in 60 s, burst 10, block 600 s", "key 192.0.2.1, stored as steady:{192.0.2.1}login",
      "limits that do not count:", "api path is not /api/*", "trial host is not *.example", "tokens path is not /chat",
      "user it counts for descriptors of Envoy only: --domain and --entry"]),
    (["--request", "GET /api/x", "--header", "X-Api-Key: k+1", "--ip", "2001:db8::1"],
     ["api 20 in 1 s, burst 20", "key k%2B1, stored as steady:{k%252B1}api", "login method is not POST"]),
    (["--request", "GET /api/x", "--ip", "192.0.2.1"],
     ["key +192.0.2.1, stored as steady:{+192.0.2.1}api",
      "(a field of its key is missing or comes twice, so the key is the address)"]),
    (["--request", "GET /", "--host", "A.Example:80", "--header", "x-kind: b"],
     ["trial 1 in 3600 s, burst 1 (shadow: it denies nothing)", "key unknown, stored as steady:{unknown}trial",
      "The address is not known; add --ip ADDRESS."]),
    (["--request", "GET /", "--header", "Host: a.example", "--header", "x-kind: c"],
     ["no limit counts for the request", "trial header x-kind is not a or b"]),
    (["--request", "GET /chat/", "--ip", "192.0.2.1"],
     ["tokens 100 in 60 s, burst 100 (looked at; the cost comes after)", "key /chat, stored as steady:{/chat}tokens"]),
    (["--request", "GET /chat", "--ip", "192.0.3.1"], ["tokens ip is not in its networks"]),
    (["--request", "GET /", "--ip", "198.51.100.1"], ["the request is exempt from all limits"]),
    (["--domain", "d", "--entry", "user=u"],
     ["user 1 in 1 s, burst 1", "key u, stored as steady:{u}user", "login it does not count for descriptors of Envoy"]),
])
def test_a_check_says_what_counts_and_why_the_others_do_not(tmp_path, options, lines):
    code, out, err = check(rules_file(tmp_path, EXPLAINED), *options)
    assert (code, err) == (0, "")
    shown = [" ".join(line.split()) for line in out.splitlines()]
    assert [line for line in lines if line not in shown] == [], out


def test_a_check_names_limits_of_envoys_files(tmp_path):
    path = rules_file(tmp_path, SHARED + "  - { key: free, rate_limit: { unlimited: true } }\n"
                      "  - { key: none, rate_limit: { unit: day, requests_per_unit: 0 } }\n")
    assert check(path) == (0, f"{path} is right: 4 limits in 1 domain of Envoy\n", "")
    shown = check(path, "--domain", "shared", "--entry", "files=files/a")[1]
    assert "key shared+files+files/*, stored as steady:{shared+files+files/*}day" in shown
    assert "unlimited" in check(path, "--domain", "shared", "--entry", "free=1")[1]
    assert "always denied" in check(path, "--domain", "shared", "--entry", "none=1")[1]
    assert check(path, "--domain", "other", "--entry", "none=1")[1] == "no limit counts for the request\n"


@pytest.mark.parametrize("options, message", [
    (["--request", "/login"], "a request is METHOD TARGET, such as POST /login"),
    (["--ip", "localhost"], 'this is no address: "localhost"'),
    (["--header", "x-kind"], "a header is 'NAME: VALUE'"),
    (["--entry", "user"], "an entry is KEY=VALUE"),
    (["--adress", "192.0.2.1"], "steady check --help lists the options"),
    (["more.yaml"], "name one FILE"),
])
def test_a_check_with_a_wrong_option_is_exit_2(tmp_path, options, message):
    code, out, err = check(rules_file(tmp_path, EXPLAINED), *options)
    assert (code, out) == (2, "") and message in err


def test_a_check_without_a_file_is_exit_2_and_help_is_exit_0():
    assert check()[0] == 2
    code, out, err = check("--help")
    assert code == 0 and "--request" in out and err == ""


# ---- Files of envoyproxy/ratelimit ----

# The documented examples. Each case: a file, and requests. A request: its descriptors, and for each of them
# what counts: (requests per unit, unit, name), FREE (no limit), UNLIMITED, or a limit with SHADOW.
FREE, UNLIMITED, SHADOW = "free", "unlimited", "shadow"
EXAMPLES = {
    "two values of a key": ("""
domain: mongo_cps
descriptors:
  - key: database
    value: users
    rate_limit: { unit: second, requests_per_unit: 500 }
  - key: database
    value: default
    rate_limit: { unit: second, requests_per_unit: 400 }
""", [
        ([{"database": "users"}], [(500, "SECOND")]),
        ([{"database": "default"}], [(400, "SECOND")]),
        ([{"database": "other"}], [FREE]),
        ([{"other": "users"}], [FREE]),
    ]),
    "nested, and several descriptors": ("""
domain: messaging
descriptors:
  - key: message_type
    value: marketing
    descriptors:
      - key: to_number
        rate_limit: { unit: day, requests_per_unit: 5 }
  - key: to_number
    rate_limit: { unit: day, requests_per_unit: 100 }
""", [
        ([{"message_type": "marketing", "to_number": "2061111111"}], [(5, "DAY")]),
        ([{"message_type": "marketing", "to_number": "2062222222"}], [(5, "DAY")]),
        ([{"to_number": "2062222222"}], [(100, "DAY")]),
        ([{"message_type": "marketing"}], [FREE]),
        ([{"message_type": "other", "to_number": "1"}], [FREE]),
        ([{"message_type": "marketing", "to_number": "3"}, {"to_number": "3"}], [(5, "DAY"), (100, "DAY")]),
    ]),
    "the most specific match": ("""
domain: edge_proxy_per_ip
descriptors:
  - key: remote_address
    rate_limit: { unit: second, requests_per_unit: 10 }
  - key: remote_address
    value: 50.0.0.5
    rate_limit: { unit: second, requests_per_unit: 0 }
""", [
        ([{"remote_address": "50.0.0.1"}], [(10, "SECOND")]),
        ([{"remote_address": "50.0.0.5"}], [(0, "SECOND")]),
    ]),
    "the depth must be the same": ("""
domain: example4
descriptors:
  - key: key
    value: value
    rate_limit: { requests_per_unit: 300, unit: second }
    descriptors:
      - key: nested
        rate_limit: { requests_per_unit: 200, unit: second }
""", [
        ([{"key": "value", "subkey": "subvalue"}], [FREE]),
        ([{"key": "value", "nested": "x", "more": "y"}], [FREE]),
        ([{"key": "value", "nested": "x"}], [(200, "SECOND")]),
        ([{"key": "value"}], [(300, "SECOND")]),
    ]),
    "unlimited": ("""
domain: internal
descriptors:
  - key: ldap
    rate_limit: { unlimited: true }
  - key: azure
    rate_limit: { unit: minute, requests_per_unit: 100 }
""", [
        ([{"ldap": "x"}], [UNLIMITED]),
        ([{"azure": "x"}], [(100, "MINUTE")]),
        ([{"ldap": "x"}, {"azure": "y"}], [UNLIMITED, (100, "MINUTE")]),
    ]),
    "shadow mode": ("""
domain: example6
descriptors:
  - key: service
    descriptors:
      - key: user
        value: user-a
        rate_limit: { requests_per_unit: 10, unit: second }
        shadow_mode: true
      - key: user
        value: user-b
        rate_limit: { requests_per_unit: 20, unit: second }
""", [
        ([{"service": "auth", "user": "user-a"}], [(10, "SECOND", None, SHADOW)]),
        ([{"service": "auth", "user": "user-b"}], [(20, "SECOND")]),
        ([{"service": "auth", "user": "user-c"}], [FREE]),
    ]),
    "replaces": ("""
domain: example7
descriptors:
  - key: key_1
    value: value_1
    descriptors:
      - key: user
        value: bkthomps
        rate_limit: { name: specific_limit, requests_per_unit: 5, unit: second }
  - key: key_2
    value: value_2
    descriptors:
      - key: user
        value: bkthomps
        rate_limit:
          replaces: [{ name: specific_limit }, { name: no_such_limit }]
          requests_per_unit: 10
          unit: second
""", [
        ([{"key_1": "value_1", "user": "bkthomps"}], [(5, "SECOND", "specific_limit")]),
        ([{"key_2": "value_2", "user": "bkthomps"}], [(10, "SECOND")]),
        ([{"key_1": "value_1", "user": "bkthomps"}, {"key_2": "value_2", "user": "bkthomps"}], [FREE, (10, "SECOND")]),
    ]),
    "detailed metric": ("""
domain: example8
descriptors:
  - key: key1
    detailed_metric: true
    rate_limit: { unit: minute, requests_per_unit: 10 }
  - key: key1
    value: value1
    rate_limit: { unit: minute, requests_per_unit: 20 }
""", [
        ([{"key1": "unspecified_value"}], [(10, "MINUTE")]),
        ([{"key1": "unspecified_value2"}], [(10, "MINUTE")]),
        ([{"key1": "value1"}], [(20, "MINUTE")]),
    ]),
    "wildcards": ("""
domain: example9
descriptors:
  - { key: key1, value: value*, rate_limit: { unit: minute, requests_per_unit: 20 } }
  - { key: path, value: /api/*/action, rate_limit: { unit: minute, requests_per_unit: 21 } }
  - { key: route, value: /api/*/resource/*/action, rate_limit: { unit: minute, requests_per_unit: 22 } }
  - { key: order, value: "ab*", rate_limit: { unit: minute, requests_per_unit: 30 } }
  - { key: order, value: "a*", rate_limit: { unit: minute, requests_per_unit: 31 } }
  - { key: order, value: abc, rate_limit: { unit: minute, requests_per_unit: 32 } }
  - { key: order, rate_limit: { unit: minute, requests_per_unit: 33 } }
  - key: deep
    value: "val*"
    descriptors:
      - { key: wild, value: "goo*", rate_limit: { unit: minute, requests_per_unit: 40 } }
""", [
        ([{"key1": "value1"}], [(20, "MINUTE")]),
        ([{"key1": "value"}], [(20, "MINUTE")]),
        ([{"key1": "valu"}], [FREE]),
        ([{"key1": "xvalue"}], [FREE]),
        ([{"path": "/api/123/action"}], [(21, "MINUTE")]),
        ([{"path": "/api/123/other"}], [FREE]),
        ([{"path": "/api/action"}], [FREE]),
        ([{"route": "/api/v1/resource/123/action"}], [(22, "MINUTE")]),
        ([{"route": "/api/v1/action"}], [FREE]),
        ([{"order": "abc"}], [(32, "MINUTE")]),
        ([{"order": "abd"}], [(30, "MINUTE")]),
        ([{"order": "ac"}], [(31, "MINUTE")]),
        ([{"order": "x"}], [(33, "MINUTE")]),
        ([{"order": ""}], [(33, "MINUTE")]),
        ([{"deep": "value", "wild": "goof"}], [(40, "MINUTE")]),
        ([{"deep": "value", "wild": "g"}], [FREE]),
    ]),
    "value to metric": ("""
domain: example10
descriptors:
  - key: route
    value_to_metric: true
    descriptors:
      - key: http_method
        value_to_metric: true
        descriptors:
          - key: subject_id
            rate_limit: { unit: minute, requests_per_unit: 60 }
""", [
        ([{"route": "api", "http_method": "GET", "subject_id": "123"}], [(60, "MINUTE")]),
        ([{"route": "web", "http_method": "POST", "subject_id": "456"}], [(60, "MINUTE")]),
        ([{"route": "web", "http_method": "POST"}], [FREE]),
    ]),
    "a value that frees": ("""
domain: test-domain
descriptors:
  - key: key2
    rate_limit: { unit: minute, requests_per_unit: 20 }
  - key: key2
    value: value2
    rate_limit: { unit: minute, requests_per_unit: 30 }
  - key: key2
    value: value3
  - key: key4
    rate_limit: { name: key4_rate_limit, unit: day, requests_per_unit: 1 }
  - key: key5
    value: value5
    rate_limit: { unit: hour, requests_per_unit: 15 }
    descriptors:
      - { key: subkey5, value: subvalue5, rate_limit: { unit: year, requests_per_unit: 25 } }
""", [
        ([{"key2": "something"}], [(20, "MINUTE")]),
        ([{"key2": "value2"}], [(30, "MINUTE")]),
        ([{"key2": "value3"}], [FREE]),
        ([{"key2": "value2", "subkey": "subvalue"}], [FREE]),
        ([{"key4": "foo"}], [(1, "DAY", "key4_rate_limit")]),
        ([{"key5": "value5", "subkey5": "subvalue"}], [FREE]),
        ([{"key5": "value5", "subkey5": "subvalue5"}], [(25, "YEAR")]),
        ([{"key5": "value5"}], [(15, "HOUR")]),
    ]),
    "values of YAML 1.1, and keys in other places": ("""
domain: 2024
descriptors:
  - key: 1
    value: yes
    rate_limit: &limit
      unit: MINUTE
      requests_per_unit: 7
      shadow_mode: true
    name: has no effect here
    shadow_mode: off
    metadata: { anything: { at: [all] } }
    descriptors:
  - key: 1
    value:
    rate_limit: *limit
    shadow_mode: On
  - { key: none, rate_limit: }
  - { key: quota, quota_mode: true, rate_limit: { unit: Week, requests_per_unit: 2 } }
""", [
        ([{"1": "yes"}], [(7, "MINUTE")]),
        ([{"1": "no"}], [(7, "MINUTE", None, SHADOW)]),
        ([{"none": "x"}], [FREE]),
        ([{"quota": "x"}], [(2, "WEEK")]),
    ]),
}
CASES = [(title, at) for title, (_, requests) in EXAMPLES.items() for at in range(len(requests))]


@pytest.fixture(scope="module")
def envoys(tmp_path_factory):
    """A daemon with all examples, each a file of its own."""
    folder = tmp_path_factory.mktemp("envoy")
    for i, (text, _) in enumerate(EXAMPLES.values()):
        rules_file(folder, text, f"{i}.envoy.yaml")
    rules_file(folder, SHARED, "shared.envoy.yaml")
    with daemon("--config", rules_file(folder, "include: ['*.envoy.yaml']\n"), "--threads", 1) as running:
        yield running


def ask_envoy(served, domain, descriptors, hits=0, **more):
    """The overall code, and the statuses."""
    document = {"domain": domain, "hitsAddend": hits, "descriptors": [
        {"entries": [{"key": k, "value": v} for k, v in descriptor.items()], **more} for descriptor in descriptors]}
    status, _, body = served.request("POST", "/json", json.dumps(document))
    answer = json.loads(body)
    assert status == (200 if answer["overallCode"] == "OK" else 429)
    return answer["overallCode"], answer["statuses"]


@pytest.mark.parametrize("title, at", CASES)
def test_an_example_of_envoyproxy_ratelimit_has_the_same_limits_and_denials(envoys, title, at):
    text, requests = EXAMPLES[title]
    descriptors, expected = requests[at]
    domain = text.split()[1]
    limits = [one for one in expected if isinstance(one, tuple)]
    enforced = [n for n, *more in limits if SHADOW not in more]
    hits = min(enforced or [n for n, *_ in limits] or [1])
    code, statuses = ask_envoy(envoys, domain, descriptors, hits)
    assert code == ("OVER_LIMIT" if hits == 0 else "OK")
    for one, status in zip(expected, statuses):
        if one in (FREE, UNLIMITED):
            assert "currentLimit" not in status
            assert status["limitRemaining"] == (2**32 - 1 if one == UNLIMITED else 0)
        else:
            n, unit, name = (*one, None)[:3]
            found = status["currentLimit"]
            assert (found["requestsPerUnit"], found["unit"], found.get("name")) == (n, unit, name)
            assert status["limitRemaining"] == n - hits
    # More than the limit never fits, however much time has passed. So no clock is looked at.
    code, statuses = ask_envoy(envoys, domain, descriptors, hits + 1)
    assert code == ("OVER_LIMIT" if enforced else "OK")
    over = [status["code"] for status in statuses]
    assert over == ["OVER_LIMIT" if isinstance(one, tuple) and SHADOW not in one and one[0] <= hits else "OK"
                    for one in expected]
    ask_envoy(envoys, domain, descriptors, hits, isNegativeHits=True)  # other cases have the same bucket


def test_an_unknown_domain_has_no_limit_even_with_one_of_envoy(envoys):
    limit = {"requestsPerUnit": 1, "unit": "DAY"}
    for _ in range(3):
        assert ask_envoy(envoys, "unknown", [{"key": "a"}], limit=limit) == (
            "OK", [{"code": "OK", "limitRemaining": 0}])


def test_without_files_of_envoy_each_domain_may_have_its_limits(served):
    limit = {"requestsPerUnit": 1, "unit": "DAY"}
    assert [ask_envoy(served, "any", [{"a": "b"}], limit=limit)[0] for _ in range(2)] == ["OK", "OVER_LIMIT"]


def test_a_limit_of_envoy_replaces_that_of_the_file(envoys):
    limit = {"requestsPerUnit": 2, "unit": "DAY"}
    over = [ask_envoy(envoys, "example7", [{"key_1": "value_1", "user": "bkthomps"}], limit=limit) for _ in range(3)]
    assert [code for code, _ in over] == ["OK", "OK", "OVER_LIMIT"]
    assert over[0][1][0]["currentLimit"] == {"requestsPerUnit": 2, "unit": "DAY"}
    never = {"requestsPerUnit": 0, "unit": "DAY"}
    assert ask_envoy(envoys, "example7", [{"any": "key"}], limit=never)[0] == "OVER_LIMIT"


SHARED = """
domain: shared
descriptors:
  - { key: files, value: files/*, share_threshold: true, rate_limit: { unit: day, requests_per_unit: 10 } }
  - { key: apart, value: apart/*, share_threshold: false, rate_limit: { unit: day, requests_per_unit: 10 } }
  - key: route
    value: api/*
    share_threshold: true
    descriptors:
      - { key: method, rate_limit: { unit: day, requests_per_unit: 3 } }
"""


def test_values_of_a_pattern_share_a_bucket_with_share_threshold_only(envoys):
    def hits(n, **entries):
        return ask_envoy(envoys, "shared", [entries], n)[0]

    assert hits(5, files="files/a.pdf") == hits(5, files="files/b.csv") == "OK"
    assert hits(1, files="files/c.txt") == "OVER_LIMIT"
    assert hits(10, apart="apart/a.pdf") == hits(10, apart="apart/b.csv") == "OK"
    assert hits(1, apart="apart/a.pdf") == "OVER_LIMIT"
    assert hits(2, route="api/v1", method="GET") == hits(1, route="api/v2", method="GET") == "OK"
    assert hits(1, route="api/v3", method="GET") == "OVER_LIMIT"
    assert hits(1, route="api/v3", method="PUT") == "OK"


def test_what_is_accepted_without_an_effect_is_warned_of(tmp_path):
    text = "domain: d\ndescriptors:\n- key: k\n"
    for line, warning in (("  detailed_metric: true", "have no effect"), ("  value_to_metric: true", "have no effect"),
                          ("  quota_mode: true", "quota_mode has no effect"),
                          ("  metadata: { a: b }", "metadata has no effect"),
                          ("  unit: day", "unit has no effect here; it belongs to another level"),
                          ("  rate_limit: { unit: day }", "every request is denied"),
                          ("  rate_limit: { unit: year, requests_per_unit: 289 }", "the nearest slower rate"),
                          ("  rate_limit: { unit: second, requests_per_unit: 2000001 }", "the nearest slower rate")):
        code, _, err = check(rules_file(tmp_path, text + line + "\n"))
        assert code == 0 and warning in err and ":4:" in err, (line, err)
    assert check(rules_file(tmp_path, text + "  detailed_metric: false\n  quota_mode: no\n"))[2] == ""


# ---- The daemon ----

SERVED = """
trusted: [127.0.0.1]
exempt: { ip: [198.51.100.0/24] }
limits:
  - { name: queue, match: { path: /queue }, rate: 10/s, burst: 1, max_ahead: 1m }
  - { name: long, match: { path: /long }, rate: 1/h, burst: 1, max_ahead: 2h }
  - { name: block, match: { path: /block }, rate: 1/d, block: 10m }
  - { name: cost, match: { path: /cost }, rate: 5/d, cost: header:x-cost }
  - { name: cost2, match: { path: /cost2 }, rate: 5/d, cost: { header: X-Cost, trusted_header: true } }
  - { name: two, match: { path: /two }, rate: 5/d, cost: 2 }
  - { name: after, match: { path: /after }, rate: 5/d, cost: after }
  - { name: plan, match: { path: /plan }, rate: 1/d, tiers: { header: x-plan, trusted_header: true, pro: 3/d } }
  - { name: strict, match: { path: /strict }, key: header:x-key, rate: 1/d, missing: refuse }
  - { name: secret, match: { path: /secret }, key: hash:header:x-key, rate: 1/d }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with daemon("--config", rules_file(tmp_path_factory.mktemp("rules"), SERVED), "--threads", 1) as running:
        yield running


def statuses(served, times, uri, **headers):
    return [served.check(uri, **headers)[0] for _ in range(times)]


def test_a_cost_is_a_number_a_header_or_comes_after(served):
    assert statuses(served, 3, "/two") == [200, 200, 429]
    assert served.check("/cost", x_cost="4")[0] == 200
    assert served.check("/cost", x_cost="2")[0] == 429
    assert served.check("/cost", x_cost="6")[0] == 422, "it can never fit"
    assert served.check("/cost")[0] == 200, "without the header it is 1"
    assert [served.check("/cost2", x_cost=cost)[0] for cost in ("4", "2", "6")] == [200, 429, 422], "the longer form"
    status, _, body = served.check("/cost", x_cost="all")
    assert status == 400 and json.loads(body)["title"] == "the header x-cost must be a whole number of drops"
    assert statuses(served, 7, "/after") == [200] * 7, "a look takes nothing"
    served.json("/v1/consume", {"limit": "after", "key": "192.0.2.1", "amount": 9, "kind": "charge"})
    assert statuses(served, 1, "/after") == [429]


def test_a_tier_has_a_rate_of_its_own_and_the_same_bucket(served):
    assert statuses(served, 2, "/plan") == [200, 429]
    assert statuses(served, 3, "/plan", x_plan="pro") == [200, 200, 429]
    assert statuses(served, 1, "/plan", x_plan="other") == [429]


def test_a_block_lasts_longer_than_the_wait(served):
    assert statuses(served, 1, "/block") == [200]
    status, headers, _ = served.check("/block")
    assert status == 429 and int(headers["retry-after"]) == 86400, "until the drop has leaked, which is longer"
    peeked = served.json("/v1/peek", {"limit": "block", "key": "192.0.2.1"}, status=429)
    assert 590 < peeked["parts"][0]["blocked_for"] <= 600


def test_a_request_without_a_key_is_refused_if_the_rule_says_so(served):
    assert served.check("/strict")[0] == 400
    assert served.check("/strict", path="/v1/check/403")[0] in (200, 403)
    status, _, body = served.request("GET", "/v1/check/403", headers={
        "X-Original-URI": "/strict", "X-Original-Method": "GET", "X-Real-IP": "192.0.2.1"})
    assert status == 403
    assert statuses(served, 2, "/strict", x_key="a") == [200, 429]


def test_an_exempt_address_counts_for_nothing(served):
    assert [served.check("/two", address="198.51.100.7")[0] for _ in range(4)] == [200] * 4


def test_a_secret_is_not_in_the_key(served):
    assert statuses(served, 2, "/secret", x_key="hunter2") == [200, 429]
    digest = hashlib.blake2b(b"hunter2", digest_size=32, person=b"aiosteady").hexdigest()
    assert served.json("/v1/peek", {"limit": "secret", "key": digest}, status=429)["parts"][0]["level"] == 1


def test_a_check_is_held_until_its_turn_and_a_consume_is_told_the_wait(served):
    begun = time.monotonic()
    waited = []
    for _ in range(3):
        assert served.check("/queue", address="192.0.2.30")[0] == 200
        waited.append(time.monotonic() - begun)
    assert waited[1] > 0.05 and waited[2] > 0.15, "10 a second, one at once; less what has leaked meanwhile"
    first = served.json("/v1/consume", {"limit": "long", "key": "c"})
    second = served.json("/v1/consume", {"limit": "long", "key": "c"})
    assert first["wait"] == 0 and 3590 < second["wait"] <= 3600
    assert served.json("/v1/consume", {"limit": "long", "key": "c", "max_wait": 0}, status=429)["wait"] == 0
    assert 7190 < served.json("/v1/consume", {"limit": "long", "key": "c"})["wait"] <= 7200
    denied = served.json("/v1/consume", {"limit": "long", "key": "c"}, status=429)
    assert 3500 < denied["retry_after"] <= 3600
    parts = [{"limit": "long", "key": "d"}, {"rate": "1/h", "key": "d"}]
    assert served.json("/v1/consume", {"parts": parts})["wait"] == 0
    assert served.json("/v1/consume", {"parts": parts}, status=429)["allowed"] is False, "one of them lets nobody wait"


def test_a_client_that_hangs_up_gives_its_place_back(served):
    def level():
        return served.json("/v1/peek", {"limit": "long", "key": "192.0.2.31", "max_wait": 99999})["parts"][0]["level"]

    assert served.check("/long", address="192.0.2.31")[0] == 200
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as waiting:
        waiting.sendall(b"GET /v1/check HTTP/1.1\r\nHost: h\r\nX-Forwarded-Uri: /long\r\n"
                        b"X-Forwarded-For: 192.0.2.31\r\n\r\n")
        until(lambda: level() == 2)
    until(lambda: level() == 1)
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as half:
        half.sendall(b"GET /v1/check HTTP/1.1\r\nHost: h\r\nX-Forwarded-Uri: /none\r\n\r\n")
        half.shutdown(socket.SHUT_WR)
        assert half.recv(100).startswith(b"HTTP/1.1 200 "), "what needs no wait is answered"


def test_as_much_as_fits_is_granted_with_at_least(served):
    asked = {"rate": "5/d", "key": "g", "amount": 4, "at_least": 1}
    assert [served.json("/v1/consume", asked)["parts"][0]["granted"] for _ in range(2)] == [4, 1]
    served.json("/v1/consume", asked, status=429)
    for wrong in ({"at_least": 5}, {"at_least": 0}, {"kind": "look"}):
        served.json("/v1/consume", {**asked, **wrong}, status=400)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- One bucket for all ----


def test_a_throttler_of_the_library_has_the_same_bucket(aio, redis_server, tmp_path):
    text = f"""
store: {redis_server.url}
limits:
  - {{ name: minute, key: header:x-key, rate: 10/d }}
  - {{ name: hour, key: header:x-key, rate: 100/d }}
"""
    async def take(key):
        limits = {"minute": "10/d", "hour": "100/d"}
        async with patient(aio, redis_server.url, limits=limits, prefix="steady:") as throttler:
            return await throttler.consume(key, 2)

    with daemon("--config", rules_file(tmp_path, text), "--threads", 1) as served:
        for value, key in (("plain", "plain"), ("a+b%{c}", "a%2Bb%25%7Bc%7D")):
            assert served.check(x_key=value)[0] == 200
            result = asyncio.run(take(key))
            assert [part.level for part in result.parts] == [3, 3]
            assert served.check(x_key=value)[1]["ratelimit"].startswith('"minute";r=6;')
            stored = "steady:{%s}minute" % key.replace("%", "%25")
            assert redis_server("EXISTS", stored) == 1
        assert redis_server("DBSIZE") == 4
