# SPDX-License-Identifier: MIT
"""The command `steady` on a Redis server: up, down, silent, and with foreign values."""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from command import ALLOWED, DAY, DENIED, FIELDS, LIMIT, LONG, SEVERAL, UNAVAILABLE, UNKNOWN, nearly


def test_commands_on_redis_share_the_bucket_of_a_key(ask, redis_server):
    on = ("--store", redis_server.url)
    code, answer = ask("consume", "k", *LIMIT, "--amount", "7", *on)
    assert (code, answer) == (ALLOWED, {"success": True, "level": 7, "until_next_drop": DAY, "blocked_for": 0,
                                        "retry_after": 0, "error": None, "source": "store"})
    assert re.fullmatch(rb"7 \d+\.\d{6} 0", redis_server("GET", "k"))
    assert ask("consume", "k", *LIMIT, "--amount", "4", *on)[0] == DENIED
    assert ask("peek", "k", *LIMIT, *on)[1]["level"] == 7
    assert ask("consume", "k", *LIMIT, "--prefix", "shop:", *on)[1]["level"] == 1
    assert sorted(redis_server("KEYS", "*")) == [b"k", b"shop:k"]
    assert ask("reset", "k", *on)[0] == ALLOWED
    assert redis_server("KEYS", "*") == [b"shop:k"]


def test_the_store_option_overrides_the_environment(ask, redis_server, closed_port):
    assert ask("consume", "k", *LIMIT, env={"STEADY_STORE": redis_server.url})[0] == ALLOWED
    env = {"STEADY_STORE": f"redis://127.0.0.1:{closed_port}"}
    assert ask("peek", "k", *LIMIT, "--store", redis_server.url, env=env)[1]["level"] == 1


def test_a_redis_key_may_hold_any_bytes(run, redis_server):
    key = b"a\r\nDEL x\xff {}\"'"
    assert run("consume", key, *LIMIT, "--store", redis_server.url).returncode == ALLOWED
    assert redis_server("KEYS", "*") == [key]


@pytest.mark.parametrize("key", ["k", "n", "command", "unknown", "STEADY", "ERR", "user:42"])
def test_a_missing_module_is_named_whatever_the_key(run, redis_server, key):
    for verb, command in (("consume", "STEADY.CONSUME"), ("peek", "STEADY.PEEK"), ("reset", "STEADY.RESET")):
        done = run(verb, key, *LIMIT, "--store", redis_server.url, "--engine", "module")
        assert done.returncode == UNAVAILABLE
        assert done.stderr.endswith(f": ERR unknown command '{command}'\n"), done.stderr


@pytest.mark.parametrize("key", ["k", "key", "wrong", "user:42"])
def test_no_error_text_is_empty_whatever_the_key(run, redis_server, key):
    redis_server("RPUSH", key, "x")
    done = run("consume", key, *LIMIT, "--store", redis_server.url)
    assert re.search(r": (WRONGTYPE|NOTABUCKET) \S.* \S", done.stderr), done.stderr
    redis_server("DEL", key)
    redis_server("ACL", "SETUSER", "app", "on", ">hunter2", "~other:*", "+@all")
    try:
        done = run("consume", key, *LIMIT, "--store", redis_server.url.replace("//", "//app:hunter2@"))
    finally:
        redis_server("ACL", "DELUSER", "app")
    assert re.search(r": (NOPERM|ERR) \S.* \S", done.stderr) and "hunter2" not in done.stderr, done.stderr


def test_a_redis_that_is_down_is_unavailable(run, ask, closed_port):
    on = ("--store", f"redis://127.0.0.1:{closed_port}", "--timeout", "300ms")
    for verb in ("consume", "peek", "reset"):
        code, answer = ask(verb, "k", *LIMIT, *on)
        assert (code, answer) == (UNAVAILABLE, {**dict.fromkeys(FIELDS), "error": "unavailable"})
    done = run("consume", "k", *LIMIT, *on)
    assert (done.returncode, done.stdout) == (UNAVAILABLE, "")
    assert done.stderr.startswith("steady: the store gave no verdict; nothing was charged")


@pytest.mark.parametrize("policy, code, success", [("deny", DENIED, False), ("allow", ALLOWED, True)])
def test_on_error_answers_for_a_redis_that_is_down(run, ask, closed_port, policy, code, success):
    on = ("--store", f"redis://127.0.0.1:{closed_port}", "--timeout", "300ms", "--on-error", policy)
    known = {"success": success, "error": "unavailable", "source": "policy", "retry_after": None if success else 1}
    assert ask("consume", "k", *LIMIT, *on) == (code, {**dict.fromkeys(FIELDS), **known})
    done = run("consume", "k", *LIMIT, *on)
    assert done.stdout == ("allowed  k  by --on-error\n" if success else "denied   k  retry in 1 s  by --on-error\n")
    assert "nothing was charged" in done.stderr


def test_on_error_local_decides_and_report_reports(run, ask, closed_port):
    on = ("--store", f"redis://127.0.0.1:{closed_port}", "--timeout", "300ms", "--on-error")
    code, answer = ask("consume", "k", *LIMIT, "--amount", "4", *on, "local")
    assert (code, answer["level"], answer["error"], answer["source"]) == (ALLOWED, 4, "unavailable", "local")
    assert ask("consume", "k", *LIMIT, "--amount", "11", *on, "local")[0] == DENIED
    assert "4/10  next drop in 1 d  by --on-error" in run("consume", "k", *LIMIT, "--amount", "4", *on, "local").stdout
    assert ask("consume", "k", *LIMIT, *on, "report")[0] == UNAVAILABLE


def test_each_engine_gives_the_same_answers(ask, redis_server, start_redis, steady):
    with_module = start_redis("--loadmodule", str(steady.parent / "steady.so"))
    answers = [[ask(verb, "k", *LIMIT, "--store", server.url, "--engine", engine)
                for verb in ("consume", "consume", "peek", "reset")]
               for server, engine in ((redis_server, "auto"), (redis_server, "script"), (with_module, "auto"),
                                      (with_module, "script"), (with_module, "module"))]
    for steps in answers:
        for _, answer in steps:
            del answer["until_next_drop"]  # the time differs
    assert all(steps == answers[0] for steps in answers[1:])
    assert b"cmdstat_steady.consume:calls=4," in with_module("INFO", "commandstats")
    code, answer = ask("consume", "k", *LIMIT, "--store", redis_server.url, "--engine", "module")
    assert (code, answer["error"]) == (UNAVAILABLE, "server")


# ---- Several limits, waits and reservations ----


@pytest.fixture(params=["script", "module"])
def engine(request, redis_server, start_redis, steady):
    """The options for an empty server, once for each engine; and the server."""
    server = redis_server if request.param == "script" else start_redis("--loadmodule", str(steady.parent / "steady.so"))
    return ("--store", server.url, "--engine", request.param, "--timeout", "5s"), server


def test_several_limits_have_keys_in_one_slot(ask, engine):
    on, server = engine
    fields = [*LONG, "limit", "limits"]
    code, answer = ask("consume", "a{b}%", *SEVERAL, "--amount", "7", "--prefix", "p:", *on, fields=fields)
    assert (code, answer["granted"], [limit["level"] for limit in answer["limits"]]) == (ALLOWED, 7, [7, 7])
    assert sorted(server("KEYS", "*")) == [b"p:{a%7Bb%7D%25}burst", b"p:{a%7Bb%7D%25}week"]
    code, answer = ask("consume", "a{b}%", *SEVERAL, "--amount", "4", "--prefix", "p:", *on, fields=fields)
    assert (code, answer["limit"], [limit["level"] for limit in answer["limits"]]) == (DENIED, "burst", [7, 7])
    assert nearly(answer["retry_after"], DAY / 10)
    code, answer = ask("reset", "a{b}%", *SEVERAL, "--prefix", "p:", *on, fields=[*FIELDS, "limit", "limits"])
    assert (code, server("KEYS", "*")) == (ALLOWED, [])


def test_waiters_of_several_processes_are_served_in_turn(run, engine):
    on, _ = engine
    run("consume", "k", "--rate", "1/500ms", *on)
    start = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        ends = sorted(pool.map(lambda _: (run("wait", "k", "--rate", "1/500ms", *on).returncode,
                                          time.monotonic() - start), range(3)))
    assert [code for code, _ in ends] == [ALLOWED] * 3
    assert 0.3 < ends[0][1] and ends[0][1] + 0.3 < ends[1][1] and ends[1][1] + 0.3 < ends[2][1], ends


def wait_in_line(steady, *args):
    """A command that sleeps for its place. It prints the place first."""
    child = subprocess.Popen([steady, *args], env={**os.environ, "STEADY_STORE": ""}, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline().startswith("wait ")
    return child


def test_a_signal_gives_up_the_place_on_redis(ask, engine, steady):
    on, server = engine
    ask("consume", "k", *LIMIT, "--amount", "10", *on)
    for connection in "open", "closed":  # a server closes connections that are idle for its `timeout`
        child = wait_in_line(steady, "wait", "k", *LIMIT, "--amount", "3", *on)
        assert ask("peek", "k", *LIMIT, *on)[1]["level"] == 13
        if connection == "closed":
            server("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        child.send_signal(signal.SIGINT)
        assert (child.communicate(timeout=60), child.returncode) == (("", ""), -signal.SIGINT)
        assert ask("peek", "k", *LIMIT, *on)[1]["level"] == 10


def test_a_place_that_cannot_be_given_up_is_reported(ask, start_redis, steady):
    server = start_redis()
    on = ("--store", server.url, "--timeout", "300ms")
    ask("consume", "k", *LIMIT, "--amount", "10", *on)
    child = wait_in_line(steady, "consume", "--max-wait", "2d", "k", *LIMIT, *on)
    server.stop()
    time.sleep(0.1)  # a connection that was used within 1 ms is not checked before it is used again
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGTERM
    assert err.startswith("steady: the place in line could not be given up: the store gave no verdict"), err


def test_another_process_settles_a_reservation(run, ask, engine):
    on, _ = engine
    fields = [*LONG, "limit", "limits", "reservation"]
    code, answer = ask("reserve", "k", *SEVERAL, "--amount", "8", "--prefix", "p:", *on, fields=fields)
    assert (code, answer["granted"]) == (ALLOWED, 8)
    done = run("settle", "-", "burst=3", "week=20", "--json", *on, stdin=None, input=answer["reservation"])
    settled = json.loads(done.stdout)
    assert (done.returncode, settled["success"], settled["error"], settled["source"]) == (ALLOWED, True, None, "store")
    assert [(limit["name"], limit["given_back"], limit["charged"], limit["level"]) for limit in settled["limits"]] == [
        ("burst", 5, 0, 3), ("week", 0, 12, 20)]
    levels = ask("peek", "k", *SEVERAL, "--prefix", "p:", *on, fields=[*FIELDS, "limit", "limits"])[1]["limits"]
    assert [limit["level"] for limit in levels] == [3, 20]


def test_at_least_and_charge_on_redis(ask, engine):
    on, _ = engine
    ask("consume", "k", *LIMIT, "--amount", "7", *on)
    code, answer = ask("consume", "k", *LIMIT, "--amount", "5", "--at-least", "2", *on, fields=LONG)
    assert (code, answer["granted"], answer["level"]) == (ALLOWED, 3, 10)
    code, answer = ask("consume", "k", *LIMIT, "--amount", "5", "--charge", *on, fields=LONG)
    assert (code, answer["granted"], answer["level"]) == (ALLOWED, 5, 15)


def test_a_redis_that_is_down_has_no_places_and_no_reservations(run, ask, closed_port):
    on = ("--store", f"redis://127.0.0.1:{closed_port}", "--timeout", "300ms")
    reservation = "r1,1,0;k,1d,0,0,10,86400000000,1,5,5,1;"
    assert ask("wait", "k", *LIMIT, *on, fields=LONG) == (UNAVAILABLE, {**dict.fromkeys(LONG), "error": "unavailable"})
    code, answer = ask("consume", "k", *SEVERAL, *on, fields=[*LONG, "limit", "limits"])
    assert (code, answer) == (UNAVAILABLE, {**dict.fromkeys([*LONG, "limit", "limits"]), "error": "unavailable"})
    done = run("reserve", "k", *LIMIT, *on)
    assert (done.returncode, done.stdout) == (UNAVAILABLE, "") and "nothing was charged" in done.stderr
    done = run("settle", reservation, "3", *on, "--json")
    assert done.returncode == UNAVAILABLE
    assert json.loads(done.stdout) == {"success": None, "error": "unavailable", "source": None, "limits": None}
    for policy, code, line in (("allow", ALLOWED, "allowed  k  by --on-error\n"),
                               ("deny", DENIED, "denied   k  retry in 1 s  by --on-error\n")):
        done = run("wait", "k", *SEVERAL, *on, "--on-error", policy)
        assert (done.returncode, done.stdout) == (code, line)
    code, answer = ask("wait", "k", *LIMIT, *on, "--on-error", "allow", fields=LONG)
    assert (code, answer["must_wait"], answer["granted"], answer["source"]) == (ALLOWED, 0, None, "policy")
    done = run("consume", "k", *SEVERAL, "--amount", "4", *on, "--on-error", "local")
    assert done.returncode == ALLOWED
    assert done.stdout.startswith("allowed  k  by --on-error, from a local bucket\n  burst  [####......] 4/10  ")


def test_a_foreign_value_is_never_settled(run, redis_server):
    redis_server("SET", "k", "precious")
    done = run("settle", "r1,1,0;k,1d,0,0,10,86400000000,1,5,5,1;", "9", "--store", redis_server.url)
    assert (done.returncode, done.stdout, redis_server("GET", "k")) == (UNAVAILABLE, "", b"precious")
    assert done.stderr.startswith("steady: the key holds something that is not a bucket"), done.stderr


class Mute:
    """A proxy before a server. It forwards all requests, and drops all replies after a decision was sent."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        self.server = socket.create_connection(("127.0.0.1", port))
        self.client = None
        self.muted = False
        self.threads = [threading.Thread(target=self.forth, daemon=True)]
        self.threads[0].start()

    def forth(self):
        self.client, _ = self.listener.accept()
        self.threads.append(threading.Thread(target=self.back, daemon=True))
        self.threads[1].start()
        while data := self.client.recv(65536):
            self.muted = self.muted or b"EVALSHA" in data.upper()
            self.server.sendall(data)
        self.client.close()

    def back(self):
        while data := self.server.recv(65536):
            if not self.muted:
                self.client.sendall(data)

    def close(self):
        self.listener.close()
        self.server.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)
        self.server.close()


def test_an_answer_that_is_lost_is_unknown_and_may_be_charged(ask, redis_server):
    assert ask("consume", "k", *LIMIT, "--store", redis_server.url)[0] == ALLOWED  # the script is loaded
    mute = Mute(redis_server.port)
    code, answer = ask("consume", "k", *LIMIT, "--store", mute.url, "--timeout", "300ms")
    mute.close()
    assert (code, answer) == (UNKNOWN, {**dict.fromkeys(FIELDS), "error": "unknown"})
    assert ask("peek", "k", *LIMIT, "--store", redis_server.url)[1]["level"] == 2


def test_a_settlement_without_an_answer_must_not_be_repeated(run, redis_server):
    reservation = run("reserve", "k", *LIMIT, "--amount", "5", "--store", redis_server.url).stdout.strip()
    run("settle", reservation, "5", "--store", redis_server.url)  # the script is loaded
    mute = Mute(redis_server.port)
    done = run("settle", reservation, "7", "--store", mute.url, "--timeout", "300ms")
    mute.close()
    assert (done.returncode, done.stdout) == (UNKNOWN, "")
    assert done.stderr.startswith("steady: the answer was lost; the reservation may be settled, so do not settle it again: ")


@pytest.mark.parametrize("verb,says", [
    ("consume", "the drops may have been charged"),
    ("peek", "nothing was changed"),
    ("reset", "the bucket may have been emptied"),
])
def test_a_lost_answer_prints_what_may_have_changed(run, redis_server, verb, says):
    for each in ("consume", verb):
        assert run(each, "k", *LIMIT, "--store", redis_server.url).returncode == ALLOWED  # the scripts are loaded
    mute = Mute(redis_server.port)
    done = run(verb, "k", *LIMIT, "--store", mute.url, "--timeout", "300ms")
    mute.close()
    assert done.returncode == UNKNOWN
    assert done.stderr.startswith(f"steady: the answer was lost; {says}: no reply within"), done.stderr


def test_a_user_with_the_least_rights_can_run_bench(run, redis_server):
    redis_server("ACL", "SETUSER", "app", "on", ">SECRET", "resetkeys", "~rl:*", "resetchannels", "-@all", "+evalsha",
                 "+script|load", "+get", "+set", "+del", "+time")
    url = f"redis://app:SECRET@127.0.0.1:{redis_server.port}"
    done = run("bench", "--seconds", "1", "--keys", "2", "--prefix", "rl:", "--rate", "5/d", "--store", url, "--json")
    assert done.returncode == ALLOWED and '"errors":0' in done.stdout, done
    keys = redis_server("KEYS", "*")
    redis_server("ACL", "DELUSER", "app")
    assert len(keys) == 2 and all(key.startswith(b"rl:steady-bench:") for key in keys)


def test_a_foreign_value_is_not_a_bucket_and_stays(ask, redis_server):
    redis_server("SET", "k", "precious")
    redis_server("LPUSH", "list", "precious")
    for key in ("k", "list"):
        for verb in ("consume", "peek", "reset"):
            code, answer = ask(verb, key, *LIMIT, "--store", redis_server.url, "--timeout", "5s")
            assert (code, answer) == (UNAVAILABLE, {**dict.fromkeys(FIELDS), "error": "not_a_bucket"})
    assert redis_server("GET", "k") == b"precious"
    assert redis_server("LRANGE", "list", "0", "-1") == [b"precious"]


def test_wrong_credentials_are_refused_without_showing_them(run, ask, start_redis, redis_server):
    server = start_redis("--requirepass", "right-canary")
    url = f"redis://:{{}}@127.0.0.1:{server.port}"
    assert ask("consume", "k", *LIMIT, "--store", url.format("right-canary"), "--timeout", "5s")[0] == ALLOWED
    done = run("consume", "k", *LIMIT, "--store", url.format("wrong-canary"), "--timeout", "5s", "--json")
    assert done.returncode == UNAVAILABLE and '"error":"refused"' in done.stdout
    assert "canary" not in done.stdout + done.stderr
    done = run("consume", "k", *LIMIT, "--store", f"redis://127.0.0.1:{server.port}", "--timeout", "5s", "--json")
    assert done.returncode == UNAVAILABLE and '"error":"refused"' in done.stdout
