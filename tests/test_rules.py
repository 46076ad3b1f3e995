# SPDX-License-Identifier: MIT
"""Rules files: what is right, what is wrong and how `steady check` says so, and what the daemon makes of them."""
import json
import subprocess

import pytest
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
    ("limits:\n- { name: a, rate: 1/s }\n- { name: a, rate: 2/s }\n", "3:3", "the limit in line 2, too"),
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
    (one("tiers: { header: x-plan, trusted_header: true, pro: 2/s, pro: 3/s }"), "2:87", 'the tier "pro" is given twice'),
    (one("tiers: { header: x-plan, trusted_header: true, pro: fast }"), "2:77", "fast"),
    (one("cost: 0"), "2:31", "whole number from 1"),
    (one("cost: -1"), "2:31", "it must be a whole number, header:NAME, or after"),
    (one("cost: before"), "2:31", 'cost is "before"; it must be a whole number, header:NAME, or after'),
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
    "exempt: { ip: 10.0.0.0/8 }\n" + one("match: { ip: [10.1.0.0/16, 192.0.2.1] }"),
    "exempt: { ip: 10.0.0.0/16 }\n" + one("match: { ip: 10.0.0.0/8 }"),
    one("match: { path: /a }") + "- { name: b, rate: 1/s }\n",
])
def test_no_mistake_is_warned_of_without_a_reason(tmp_path, text):
    assert check(rules_file(tmp_path, text))[2] == ""
