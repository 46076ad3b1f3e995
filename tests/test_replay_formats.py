# SPDX-License-Identifier: MIT
"""Replays of the same requests have the same verdicts: in each format, compressed, from several files, out of order."""
import gzip
import os
import random
import re
import shutil
import subprocess

import pytest
from replay_rig import replay, report, verdicts, write_log
from serve_rig import needs_daemon

pytestmark = needs_daemon

LIMIT = ("--limit", "20/min")
LINES = 5000
TRAFFIC = ("--lines", LINES, "--clients", 300, "--herd", 40)
# The name in the report, by that of the generator. (nginx's log_format has more than combined.)
FORMATS = {"common": "common", "combined": "combined", "vcombined": "vcombined", "main": "main", "nginx": "combined", "nginx-json": "json",
           "caddy": "caddy", "envoy": "envoy", "envoy-json": "json", "traefik": "traefik", "haproxy": "haproxy", "alb": "alb",
           "iis": "w3c", "cloudfront": "w3c", "csv": "csv", "tsv": "tsv", "decisions": "decision"}
# They tell the second of the end. So the beginning of a request is not known to the second.
WHOLE_SECOND_OF_END = ("nginx", "iis", "cloudfront")


def told(found):
    """What a replay decided: all but the names and sizes of the files."""
    return {"requests": found["requests"], "limits": found["limits"],
            **{name: found["log"][name] for name in ("lines", "bad_lines", "late_lines", "first", "last")}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def expected(folder):
    """Of the format with the most exact times."""
    log = write_log(folder / "expected.csv", *TRAFFIC, "--whole-seconds", "--format", "csv")
    found, whole = verdicts(folder, log, *LIMIT)
    assert len(found) == LINES and LINES / 10 < whole["requests"]["denied"] < LINES / 2
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_detected_and_has_the_verdicts_of_all_others(tmp_path, expected, name):
    log = write_log(tmp_path / "access.log", *TRAFFIC, "--whole-seconds", "--format", name)
    options = ("--at", "end") if name in WHOLE_SECOND_OF_END else ()
    found, whole = verdicts(tmp_path, log, *LIMIT, *options)
    assert FORMATS[name] in whole["log"]["format"]
    assert (whole["log"]["bad_lines"], whole["log"]["late_lines"], whole["requests"]["without_address"]) == (0, 0, 0)
    assert found == expected


@pytest.fixture(scope="module")
def plain(folder):
    """A log in combined, and what a replay says of it."""
    log = write_log(folder / "plain.log", *TRAFFIC)
    return log, told(report(log, *LIMIT))


@pytest.mark.parametrize("program", ["gzip", "zstd", "xz"])
def test_a_compressed_log_is_read_as_the_plain_one(tmp_path, plain, program):
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    packed = tmp_path / "access.log"  # the name does not tell
    with packed.open("wb") as out:
        subprocess.run([program, "-c", plain[0]], stdout=out, check=True)
    assert told(report(packed, *LIMIT)) == plain[1]
    assert told(report("-", *LIMIT, given=packed.read_bytes())) == plain[1]


def test_standard_input_is_read_as_the_file(plain):
    assert told(report("-", *LIMIT, given=plain[0].read_bytes())) == plain[1]


def test_a_gz_of_several_members_is_one_log(tmp_path, plain):
    lines = plain[0].read_bytes().splitlines(keepends=True)
    (tmp_path / "log.gz").write_bytes(gzip.compress(b"".join(lines[:LINES // 3])) + gzip.compress(b"".join(lines[LINES // 3:])))
    assert told(report(tmp_path / "log.gz", *LIMIT)) == plain[1]


@pytest.fixture(scope="module")
def exact(folder):
    """Lines with times in us, in the order of time."""
    log = write_log(folder / "exact.csv", *TRAFFIC, "--format", "csv")
    return log, log.read_text().splitlines(keepends=True), told(report(log, *LIMIT))


def dealt(folder, lines, hands, deal):
    """Files with the head, and each line in the file that `deal` says."""
    files = [folder / f"{i}.csv" for i in range(hands)]
    texts = [[lines[0]] for _ in files]
    for number, line in enumerate(lines[1:]):
        texts[deal(number)].append(line)
    for file, text in zip(files, texts):
        file.write_text("".join(text))
    return files


def test_files_of_several_servers_are_merged_by_time(tmp_path, exact):
    _, lines, single = exact
    turn = random.Random(1).randrange
    for files in (dealt(tmp_path, lines, 3, lambda number: number % 3), dealt(tmp_path, lines, 3, lambda _: turn(3))):
        merged = report(*files, *LIMIT)
        assert {**told(merged), "lines": 0} == {**single, "lines": 0}
        assert merged["log"]["lines"] == single["lines"] + 2  # each file has a head


@pytest.mark.parametrize("backwards", [False, True])
def test_rotated_files_are_one_log_in_any_order(tmp_path, exact, backwards):
    _, lines, single = exact
    files = dealt(tmp_path, lines, 4, lambda number: number * 4 // LINES)
    found = told(report(*(files[::-1] if backwards else files), *LIMIT))
    assert {**found, "lines": 0} == {**single, "lines": 0}


def test_files_in_different_formats_are_one_log(tmp_path, expected):
    later = next(i for i in range(LINES // 2, LINES) if expected[i].time != expected[i - 1].time)
    old = write_log(tmp_path / "old.csv", *TRAFFIC, "--whole-seconds", "--format", "csv")
    new = write_log(tmp_path / "new.json", *TRAFFIC, "--whole-seconds", "--format", "traefik")
    old.write_text("".join(old.read_text().splitlines(keepends=True)[:1 + later]))
    new.write_text("".join(new.read_text().splitlines(keepends=True)[later:]))
    found, whole = verdicts(tmp_path, new, old, *LIMIT)
    assert found == expected and "csv" in whole["log"]["format"] and "json" in whole["log"]["format"]


def test_lines_in_the_order_of_their_ends_are_as_lines_in_order(tmp_path, exact):
    log = write_log(tmp_path / "access.csv", *TRAFFIC, "--format", "csv", "--disorder")
    assert log.read_text() != exact[0].read_text()
    assert told(report(log, *LIMIT)) == exact[2]


def test_a_shuffled_minute_is_sorted_and_what_comes_later_is_counted(tmp_path, exact):
    _, lines, single = exact
    head, rest = lines[0], lines[1:]
    minutes = {}
    for line in rest:
        minutes.setdefault(line[:16], []).append(line)
    shuffle = random.Random(2).shuffle
    for group in minutes.values():
        shuffle(group)
    log = tmp_path / "access.csv"
    log.write_text(head + "".join(line for group in minutes.values() for line in group))
    assert told(report(log, *LIMIT)) == single
    moved = rest[:]
    first = moved.pop(0)
    at = next(i for i, line in enumerate(moved) if line > re.sub(r"08:00:\d\d", "08:01:02", first))
    moved.insert(at, first)
    log.write_text(head + "".join(moved))
    found = report(log, *LIMIT)
    assert found["log"]["late_lines"] == 1 and found["requests"]["total"] == LINES - 1


@pytest.mark.parametrize("name, noted", [("envoy", False), ("haproxy", False), ("traefik", False), ("decisions", False),
                                         ("nginx-json", False), ("combined", True)])
def test_only_times_of_the_end_without_a_duration_are_noted(tmp_path, name, noted):
    log = write_log(tmp_path / "access.log", "--lines", 50, "--format", name)
    assert any("No durations were subtracted" in note for note in report(log, *LIMIT)["notes"]) == noted


def test_a_log_with_durations_in_some_lines_only_says_so(tmp_path):
    log = tmp_path / "access.log"
    log.write_text('{"ts": 1796112001.5, "ip": "192.0.2.1", "duration_ms": 1500}\n{"ts": 1796112001.5, "ip": "192.0.2.1"}\n')
    found, whole = verdicts(tmp_path, log, "--limit", "1/min")
    assert [(v.time, v.verdict) for v in found] == [("1796112000.000000", "allowed"), ("1796112001.500000", "denied")]
    assert "Some lines have no duration. They count at the end of their request." in whole["notes"]


def test_limits_on_descriptors_say_that_an_access_log_has_none(tmp_path):
    (tmp_path / "rules.yaml").write_text("domain: shop\ndescriptors:\n- key: path\n  rate_limit: { unit: minute, requests_per_unit: 1 }\n")
    notes = [report(write_log(tmp_path / name, "--lines", 5, "--format", name), "--config", tmp_path / "rules.yaml")["notes"]
             for name in ("combined", "decisions")]
    assert [any("descriptors of Envoy" in note for note in some) for some in notes] == [True, False]


def test_a_request_that_too_many_limits_match_is_refused_and_the_reason_is_shown(tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("limits:\n" + "".join(f"- {{ name: l{i}, rate: 1/s }}\n" for i in range(65)))
    whole = report(write_log(tmp_path / "log", "--lines", 5), "--config", rules)
    assert whole["requests"]["refused"] == 5
    assert "The reason of the first refusal: more than 64 limits match the request." in whole["notes"]


HEADERS = {"nginx-json": (), "caddy": (), "envoy-json": (), "traefik": (), "csv": ("--field", "header:x-api-key=api_key"),
           "tsv": ("--field", "header:X-API-Key=api_key")}


def test_a_header_is_found_in_each_format_that_has_it(tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("limits:\n- { name: api, match: { path: /api/*, host: shop.example }, key: header:x-api-key, rate: 6/min }\n")
    found = [verdicts(tmp_path, write_log(tmp_path / name, *TRAFFIC, "--whole-seconds", "--format", name), "--config", rules,
                      *options)[0] for name, options in HEADERS.items()]
    assert all(each == found[0] for each in found)
    denied = {verdict.key for verdict in found[0] if verdict.verdict == "denied"}
    assert len(denied) > 20 and all(key.startswith("key-") for key in denied)


def test_a_field_of_json_is_a_key_and_no_rule_is_suggested_for_it(tmp_path):
    log = write_log(tmp_path / "log", *TRAFFIC, "--format", "caddy")
    found = [report(log, "--key", key, "--limit", "6/min", "--suggest", "99%")["limits"][0]
             for key in ("header:x-api-key", ".request.headers.X-Api-Key")]
    assert found[1]["key"] == ".request.headers.X-Api-Key" and found[1]["suggestion"]["rule"] is None
    assert found[1]["suggestion"]["limit"]["burst"] > 0 and "key: header:x-api-key," in found[0]["suggestion"]["rule"]
    assert {top["key"] for top in found[0]["top_denied"]} & {top["key"] for top in found[1]["top_denied"]}


def test_a_key_that_is_no_field_of_the_log_is_exit_2(tmp_path, plain):
    for key in ("foo", "ip+foo", "hash:foo", "$foo"):
        done = replay(plain[0], "--key", key, "--limit", "6/min")
        said = f'--key: "{key.split("+")[-1].removeprefix("hash:")}" is no key, and the log has no field of this name; use ip,'
        assert done.returncode == 2 and said in done.stderr.decode() and not done.stdout
    caddy = write_log(tmp_path / "log", *TRAFFIC, "--format", "caddy")
    assert replay(caddy, "--key", "foo", "--limit", "6/min").returncode == 2


COLUMNS = "time,ip,user_id,uri\n" + "".join(f"2026-12-01T00:00:0{i}Z,192.0.2.{i},u{i % 2},/\n" for i in range(8))


@pytest.mark.parametrize("key", ["user_id", ".user_id"])
def test_a_column_is_a_key_by_its_name(tmp_path, key):
    log = tmp_path / "log"
    log.write_text(COLUMNS)
    limit = report(log, "--key", key, "--limit", "2/min", "--suggest", "99%")["limits"][0]
    assert limit["key"] == ".user_id" and limit["keys"] == 2 and limit["denied"] == 4
    assert limit["suggestion"]["rule"] is None
    for forms in ((), ("--html", "-")):
        shown = " ".join(replay(log, "--key", key, "--limit", "2/min", "--suggest", "99%", *forms).stdout.decode().split())
        assert "- { name" not in shown and "A rules file has no key .user_id" in shown


def test_a_variable_of_a_format_string_is_a_key(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"192.0.2.1 u{i % 2} [01/Dec/2026:08:00:0{i} +0000]\n" for i in range(8)))
    for key in ("$remote_user", "remote_user"):
        limit = report(log, "--format", "$remote_addr $remote_user [$time_local]", "--key", key, "--limit", "2/min")["limits"][0]
        assert limit["key"].endswith("remote_user") and limit["keys"] == 2 and limit["denied"] == 4


def test_a_field_that_no_request_has_is_not_blamed_on_the_rules(plain):
    limit = report(plain[0], "--key", ".user.id", "--limit", "6/min")["limits"][0]
    assert limit["findings"] == ["This limit counted for no request.", "No request of the log has the field .user.id."]


@pytest.mark.parametrize("key, lacks", [("header:x-api-key", "field x-api-key"), ("cookie:sid", "cookie sid"), ("query:none", "query none"),
                                        ("ip+header:x-api-key", "field x-api-key"), ("header:a+header:b", None)])
def test_a_key_that_no_request_has_is_told_first(plain, key, lacks):
    said = (f"The log has no {lacks}" if lacks else "No request has all parts of the key") + ". So each client is counted by its address."
    limit = report(plain[0], "--key", key, "--limit", "6/min")["limits"][0]
    assert limit["findings"][0] == said and len(limit["findings"]) > 1
    by_address = report(plain[0], "--limit", "6/min")["limits"][0]
    assert (limit["denied"], limit["keys"]) == (by_address["denied"], by_address["keys"])


def test_a_key_that_a_request_has_is_not_told_as_missing(tmp_path):
    log = write_log(tmp_path / "log", *TRAFFIC, "--format", "caddy")
    assert "counted by its address" not in str(report(log, "--key", "header:x-api-key", "--limit", "6/min")["limits"][0]["findings"])


def test_without_room_for_its_file_a_suggestion_fails_and_a_report_says_so(tmp_path, plain):
    log = plain[0]
    env = {**os.environ, "TMPDIR": str(tmp_path / "none")}
    # Requests of many keys fit into memory; those of the key GET do not.
    wanted = replay(log, "--key", "method", "--suggest", "99%", env=env)
    assert wanted.returncode == 2 and "--suggest: the temporary file of the requests: No such file" in wanted.stderr.decode()
    page = replay(log, "--key", "method", *LIMIT, "--json", env=env)
    assert page.returncode == 0 and "There is no suggestion and no heat map" in page.stdout.decode()
