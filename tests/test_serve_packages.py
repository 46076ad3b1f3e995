# SPDX-License-Identifier: MIT
"""The daemon and programs of others: a client library of redis-cell, and promtool, which reads the metrics."""
import os
import shutil
import subprocess

import pytest
from aiosteady_build import BUILD, locked
from resp import Resp
from serve_rig import daemon, needs_daemon, rules_file

pytestmark = [needs_daemon, pytest.mark.packages]

CARGO = """
[package]
name = "cell"
version = "0.1.0"
edition = "2021"

[dependencies]
redis-cell-rs = "=0.3.0"
redis = { version = "1", default-features = false }

[profile.dev]
debug = false
"""
PROGRAM = """
use redis_cell_rs::{Cmd, Key, Policy, Verdict};
use std::time::Duration;

fn main() {
    let url = std::env::args().nth(1).unwrap();
    let mut server = redis::Client::open(url).unwrap().get_connection().unwrap();
    let policies = [Policy::from_tokens_per_period(1, Duration::from_secs(3600)).max_burst(2),
                    Policy::new(9, 10, Duration::from_secs(3600), 4), Policy::from_tokens_per_day(1)];
    for policy in &policies {
        let key = Key::triple("user 1", "/api", policy.burst.to_string());
        for _ in 0..4 {
            match redis::Cmd::from(Cmd::new(&key, policy)).query::<Verdict>(&mut server) {
                Ok(Verdict::Allowed(d)) => println!("allowed {} {} {}", d.total, d.remaining, d.reset_after),
                Ok(Verdict::Blocked(d)) => println!("blocked {} {} {} {}", d.total, d.remaining, d.reset_after, d.retry_after),
                Err(error) => println!("{}", error),
            }
        }
    }
}
"""


@pytest.fixture(scope="module")
def cell():
    """A Rust program with the crate redis-cell-rs, built below build/."""
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed")
    folder = BUILD / "redis-cell"
    (folder / "src").mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for name, text in (("Cargo.toml", CARGO), ("src/main.rs", PROGRAM)):
            if not (folder / name).exists() or (folder / name).read_text() != text:
                (folder / name).write_text(text)
        env = {**os.environ, "CARGO_TARGET_DIR": str(folder / "target")}
        done = subprocess.run(["cargo", "build", "--quiet"], cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0 and ("failed to download" in done.stderr or "failed to get" in done.stderr):
        pytest.skip(f"redis-cell-rs cannot be had here: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder / "target/debug/cell"


def test_a_client_library_of_redis_cell_reads_the_answers(cell, closed_port):
    with daemon("--limit", "1/s") as running:
        done = subprocess.run([cell, f"redis://127.0.0.1:{running.port}"], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [
            "allowed 3 2 3600", "allowed 3 1 7200", "allowed 3 0 10800", "blocked 3 0 10800 3600",
            "allowed 10 6 1440", "allowed 10 2 2880", "blocked 10 2 2880 720", "blocked 10 2 2880 720",
            "allowed 1 0 86400", *["blocked 1 0 86400 86400"] * 3]
    with daemon("--limit", "1/s", "--store", f"redis://127.0.0.1:{closed_port}") as running:
        done = subprocess.run([cell, f"redis://127.0.0.1:{running.port}"], capture_output=True, text=True, check=True)
        assert all(line.startswith('"UNAVAILABLE"') for line in done.stdout.splitlines()), done.stdout


@pytest.fixture(scope="module")
def promtool():
    """That of the PATH, or of the Debian package prometheus, unpacked below build/."""
    folder = BUILD / "promtool"
    unpacked = folder / "usr/bin/promtool"
    if found := shutil.which("promtool"):
        return found
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("promtool is not installed, and neither is apt-get")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not unpacked.exists():
            done = subprocess.run(["apt-get", "download", "-qq", "prometheus"], cwd=folder, capture_output=True, text=True,
                                  check=False)
            if done.returncode != 0:
                pytest.skip(f"the package prometheus cannot be had here: {done.stderr.strip()[-300:]}")
            subprocess.run(["dpkg-deb", "-x", next(folder.glob("prometheus_*.deb")), folder], check=True)
    return unpacked


def test_promtool_finds_no_fault_in_the_metrics(promtool, tmp_path):
    rules = 'limits:\n  - { name: \'a"b\\c\', match: { path: /a }, rate: 3/d }\n  - { name: b, rate: 5/s, mode: shadow }\n'
    with daemon("--config", rules_file(tmp_path, rules), "--threads", 2, "--admin", "127.0.0.1:0") as running:
        for path in ("/a", "/a", "/a", "/a", "/b"):
            running.check(path)
        running.json("/v1/consume", {"rate": "5/d", "key": "k"})
        running.request("POST", "/v1/consume", "no JSON")
        client = Resp(running.port)
        client("CL.THROTTLE", "k", 1, 1, 60)
        text = running.request("GET", "/metrics")[2]
        client.close()
    assert b'limit="a\\"b\\\\c",verdict="denied"} 1' in text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    wrong = subprocess.run([promtool, "check", "metrics"], input=text.replace(b"steady_answers_total", b"steady_answers"),
                           capture_output=True, check=False)
    assert wrong.returncode != 0, "it does look"
