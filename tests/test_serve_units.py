# SPDX-License-Identifier: MIT
"""The units of systemd and the Kubernetes sidecar in examples/: valid, and what they start works."""
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from aiosteady_build import BUILD, ROOT
from proxy_rig import accepts, example
from resp import free_port
from serve_rig import START_S, Daemon, needs_daemon, rules_file
from server_rig import get

pytestmark = needs_daemon

RULES = "limits: [{ name: a, rate: 2/d }]"


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


# ---- systemd ----


def units(folder):
    """The two units, for this build."""
    service = example("steady.service", program=("/usr/local/bin/steady", str(BUILD / "steady")))
    texts = {"steady.service": service, "steady.socket": example("steady.socket")}
    return [rules_file(folder, text, name) for name, text in texts.items()]


@needs("systemd-analyze")
def test_systemd_finds_no_fault_in_the_units(tmp_path):
    command = ["systemd-analyze", "verify", "--man=no", *units(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs("systemd-analyze")
def test_the_service_is_hardened(tmp_path):
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", units(tmp_path)[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze is too old")
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@contextlib.contextmanager
def activated(tmp_path, notify):
    """What ExecStart of the service says, with the socket of a real systemd-socket-activate. (process, port)"""
    port = free_port()
    service = units(tmp_path)[0].read_text()
    listen = re.search("^ListenStream=(.*)$", example("steady.socket", port=("4780", str(port))), re.M)[1]
    config = rules_file(tmp_path, RULES)
    start = re.search("^ExecStart=(.*)$", service, re.M)[1]
    command = shlex.split(start.replace("/etc/steady/steady.yaml", str(config))
                          .replace("/run/steady/admin", f"{tmp_path}/admin"))
    child = subprocess.Popen(["systemd-socket-activate", "-l", listen, "-E", f"NOTIFY_SOCKET={notify}", *command,
                              "--threads", "2"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + START_S
        while f":{port} " not in listening() and time.monotonic() < end:
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.02)
        yield child, port
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()


def listening():
    """The local sockets that listen, as :PORT. It makes no connection, which would start the daemon."""
    rows = [line.split() for line in open("/proc/net/tcp").read().splitlines()[1:]]
    return " ".join(f":{int(row[1].split(':')[1], 16)}" for row in rows if row[3] == "0A") + " "


@needs("systemd-socket-activate")
def test_the_service_takes_the_socket_and_tells_systemd_its_state(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(f"{tmp_path}/notify")
        notified.settimeout(START_S)
        with activated(tmp_path, f"{tmp_path}/notify") as (child, port):
            # The first request starts the daemon, and is answered.
            asked = {"X-Forwarded-For": "192.0.2.1"}
            assert [get(port, "/v1/check", asked).status for _ in range(3)] == [200, 200, 429]
            assert notified.recv(100) == b"READY=1\n"
            sockets = [os.readlink(f"/proc/{child.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{child.pid}/fd")]
            assert sockets.count(os.readlink(f"/proc/{child.pid}/fd/3")) == 2, "each thread has it"
            child.send_signal(signal.SIGTERM)
            assert notified.recv(100) == b"STOPPING=1\n"
            assert child.wait(START_S) == 0


@needs("systemd-socket-activate")
def test_two_sockets_of_systemd_are_an_error(tmp_path):
    ports = free_port(), free_port()
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{ports[0]}", "-l", f"127.0.0.1:{ports[1]}",
               BUILD / "steady", "serve", "--limit", "2/d"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        try:
            end = time.monotonic() + START_S
            while child.poll() is None and time.monotonic() < end:
                accepts(ports[0])
                time.sleep(0.05)
            assert child.poll() == 2
        finally:
            child.kill()
        assert "the .socket unit must have one ListenStream" in child.stderr.read()


@pytest.mark.parametrize("number", ["-1", "one", "", "1x"])
def test_a_malformed_number_of_sockets_is_an_error(number):
    start = f"LISTEN_PID=$$ LISTEN_FDS={number} exec {shlex.quote(str(BUILD / 'steady'))} serve --limit 2/d"
    done = subprocess.run(["sh", "-c", start], capture_output=True, text=True, timeout=START_S, check=False)
    assert (done.returncode, done.stderr) == (2, "steady serve: LISTEN_FDS is no number of sockets\n")


# ---- Kubernetes ----

VALIDATOR = "kubernetes-validate==1.37.0"


@pytest.fixture
def objects(from_pypi):
    """The objects of the file by kind, which the schemas of Kubernetes allow."""
    sys.path.insert(0, str(from_pypi(VALIDATOR)))
    try:
        import kubernetes_validate
        import yaml
    finally:
        sys.path.pop(0)
    found = list(yaml.safe_load_all((ROOT / "examples/kubernetes.yaml").read_text()))
    for each in found:
        kubernetes_validate.validate(each, "1.37", strict=True)
    return {each["kind"]: each for each in found}


def test_the_sidecar_runs_with_the_rules_of_its_config_map_and_passes_its_probes(objects, tmp_path, redis_server):
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    container = pod["initContainers"][0]
    config = rules_file(tmp_path, objects["ConfigMap"]["data"]["steady.yaml"])
    options = {"--config": config, "--store": redis_server.url, "--admin": f"unix:{tmp_path}/admin",
               "--listen": "127.0.0.1:0"}
    assert container["args"][0] == "serve" and container["args"][2] == "--store=$(STORE)"
    names = [word.partition("=")[0] for word in container["args"][1:]]
    assert set(names) == set(options)
    served = Daemon(*[f"{name}={options[name]}" for name in names])
    try:
        for probe in ("startupProbe", "livenessProbe"):
            assert served.request("GET", container[probe]["httpGet"]["path"])[0] == 200
        assert [served.check("/login", "POST")[0] for _ in range(11)] == [200] * 10 + [429]
        assert os.path.exists(tmp_path / "admin")
    finally:
        assert served.stop() == 0
