# SPDX-License-Identifier: MIT
"""The command `steady` on a Redis server: up, down, silent, and with foreign values."""
import re
import socket
import threading

import pytest
from command import ALLOWED, DAY, DENIED, FIELDS, LIMIT, UNAVAILABLE, UNKNOWN


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
