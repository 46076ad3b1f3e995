# SPDX-License-Identifier: MIT
"""For tests of the daemon with stores that fail: a server, a group with sentinels and a cluster that can be killed and
started again, and clients that ask over HTTP and RESP meanwhile and keep what was admitted."""
import collections
import contextlib
import http.client
import json
import os
import threading
import time
from pathlib import Path

from resp import Resp, free_port

B, R = 20, 100  # the capacity of each small bucket, and drops a second of the one that drains
RULES = """
on_error: {on_error}
limits:
  - {{ name: few, match: {{ path: /few }}, key: ip, rate: 20/d }}
  - {{ name: drains, match: {{ path: /drains }}, key: ip, rate: 100/s, burst: 20 }}
  - {{ name: many, match: {{ path: /many }}, key: ip, rate: 1000000/s }}
"""
KEYS = 2  # of each client: full soon
SLACK_S = 0.25


def await_that(true, seconds=30, every=0.005):
    """The moment at which it became true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(every)
    return time.monotonic()


def taken_away_s(*pids):
    """How long these processes and this one have waited for a processor until now. A test adds it to its deadlines."""
    waited = 0
    for pid in (os.getpid(), *pids):
        for task in Path(f"/proc/{pid}/task").glob("*"):
            with contextlib.suppress(OSError):
                waited += int((task / "schedstat").read_text().split()[1])
    return waited / 1e9


# ---- Stores ----


def answers(server, *words):
    """The reply on a connection of its own, or None."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        client = Resp(server.port)
        try:
            return client(*words)
        finally:
            client.close()
    return None


class Single:
    """A redis-server."""

    def __init__(self, start, folder):
        self.nodes = [start()]
        self.url = self.nodes[0].url

    def pids(self):
        return [node.process.pid for node in self.nodes if node.process.poll() is None]

    def down(self):
        for node in self.nodes:
            node.kill()

    def up(self):
        """Starts what down() has killed. The moment at which it could decide."""
        for node in self.nodes:
            node.restart()
        return await_that(self.can_decide, every=0.001)

    def can_decide(self):
        return answers(self.nodes[0], "PING") == b"PONG"

    def make_whole(self):
        """Up and empty, whatever a test has left."""
        if any(node.process.poll() is not None for node in self.nodes):
            self.heal()
        for node in self.nodes:
            answers(node, "FLUSHALL")

    def heal(self):
        self.nodes[0].restart()
        await_that(self.can_decide)


class Group(Single):
    """A primary and a replica, named by sentinels."""

    def __init__(self, start, folder, sentinels=1):
        primary = start("--repl-diskless-sync-delay", "0")
        self.nodes = [primary, start("--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0")]
        self.sentinels = []
        for i in range(sentinels):
            config = folder / f"sentinel{i}.conf"
            config.write_text(f"sentinel monitor s 127.0.0.1 {primary.port} {sentinels // 2 + 1}\n"
                              "sentinel down-after-milliseconds s 700\nsentinel failover-timeout s 2000\n")
            self.sentinels.append(start(sentinel=config))
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{s.port}' for s in self.sentinels)}/s"
        await_that(lambda: b"master_link_status:up" in self.nodes[1]("INFO", "replication"))
        await_that(lambda: all(len(s("SENTINEL", "REPLICAS", "s")) == 1 for s in self.sentinels))
        await_that(lambda: all(b"OK %d" % sentinels in s("SENTINEL", "CKQUORUM", "s") for s in self.sentinels))

    def pids(self):
        return [node.process.pid for node in [*self.nodes, *self.sentinels] if node.process.poll() is None]

    def down(self):
        self.roles = [(answers(node, "ROLE") or [None])[0] for node in self.nodes]
        for node in [*self.sentinels, *self.nodes]:
            node.kill()

    def up(self):
        for node in self.nodes:
            node.restart()
        if self.sentinels and self.roles[0] != b"master":  # a failover has changed what the command line says
            await_that(lambda: answers(self.nodes[1], "REPLICAOF", "NO", "ONE") == b"OK")
            await_that(lambda: answers(self.nodes[0], "REPLICAOF", "127.0.0.1", self.nodes[1].port) == b"OK")
        for sentinel in self.sentinels:
            sentinel.restart()
        return await_that(self.can_decide, every=0.001)

    def primary(self):
        found = next(filter(None, (answers(s, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "s") for s in self.sentinels)), None)
        return next((node for node in self.nodes if found and node.port == int(found[1])), None)

    def can_decide(self):
        primary = self.primary()
        return primary is not None and (answers(primary, "ROLE") or [None])[0] == b"master"

    def fail_over(self):
        """kill -9 of the primary. The moment at which its replica could decide."""
        primary = self.primary()
        primary.kill()
        return await_that(lambda: self.primary() is not primary and self.can_decide())

    def heal(self):
        """Starts the node that was killed. It is a replica now, and has the buckets."""
        dead = next(node for node in self.nodes if node.process.poll() is not None)
        dead.restart()
        self.demote(dead)
        await_that(lambda: (answers(dead, "ROLE") or [None])[0] == b"slave" and
                   b"master_link_status:up" in (answers(dead, "INFO", "replication") or b""))

    def demote(self, node):
        """As a sentinel does after eight seconds."""
        await_that(lambda: (answers(node, "REPLICAOF", "127.0.0.1", self.primary().port) or b"").startswith(b"OK"))


def cluster_file(folder, ports, i):
    """What node i of a cluster remembers after a restart: three primaries with equal shares of the slots, and a replica of
    the last. Nodes that meet first take ten seconds more."""
    name = "0123456789abcdef0123456789abcdef0123456{}".format
    lines = []
    for n, (port, bus) in enumerate(ports):
        flags = ("myself," if n == i else "") + ("slave" if n == 3 else "master")
        slots = f"{n * 16384 // 3}-{(n + 1) * 16384 // 3 - 1}" if n < 3 else ""
        primary, epoch = (name(2), 3) if n == 3 else ("-", n + 1)
        lines.append(f"{name(n)} 127.0.0.1:{port}@{bus} {flags} {primary} 0 0 {epoch} connected {slots}".rstrip())
    path = folder / f"nodes{i}.conf"
    path.write_text("\n".join([*lines, "vars currentEpoch 3 lastVoteEpoch 0", ""]))
    return str(path)


class Cluster(Group):
    """Three primaries. The last one has a replica."""

    def __init__(self, start, folder):
        ports = [(free_port(), free_port()) for _ in range(4)]
        self.nodes = [start("--cluster-enabled", "yes", "--cluster-config-file", cluster_file(folder, ports, i),
                            "--cluster-port", str(bus), "--cluster-node-timeout", "1000",
                            "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0", port=port)
                      for i, (port, bus) in enumerate(ports)]
        self.url, self.sentinels = self.nodes[0].url, []
        await_that(self.can_decide)
        await_that(lambda: b"master_link_status:up" in self.nodes[3]("INFO", "replication"))

    def can_decide(self):
        return all(b"cluster_state:ok" in (answers(node, "CLUSTER", "INFO") or b"")
                   for node in self.nodes if node.process.poll() is None)

    def fail_over(self):
        """kill -9 of the primary that has a replica. The moment at which that one could decide."""
        pair = self.nodes[2:]
        primary = next(node for node in pair if (answers(node, "ROLE") or [None])[0] == b"master")
        other = pair[1 - pair.index(primary)]
        primary.kill()
        await_that(lambda: (answers(other, "ROLE") or [None])[0] == b"master")
        return await_that(self.can_decide)

    def demote(self, node):
        pass  # it finds out by itself


STORES = {"redis": Single, "sentinel": Group, "cluster": Cluster}


# ---- Clients ----


class Load:
    """Clients of a daemon, one for each protocol and number. `admitted` has the buckets, each with (asked, answered) of
    the requests that the store let in; `verdicts` has (answered, protocol, whether the store had a verdict)."""

    def __init__(self, daemon, each=1, policy="deny", may_end=False, pause_s=0.001):
        self.port, self.policy, self.may_end, self.pause_s = daemon.port, policy, may_end, pause_s
        self.admitted, self.verdicts, self.wrong = collections.defaultdict(list), [], []
        self.took = []  # (answered, seconds since it was asked)
        self.denied = dict.fromkeys(("check", "consume", "throttle"), 0.0)  # when a small bucket was full
        self.by_policy = collections.Counter()  # what the local shares let in
        # A reply of RESP does not say whether the store or a local share has decided.
        self.protocols = ("check", "consume") if policy == "local" else ("check", "consume", "throttle")
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(ask, f"{ask.__name__}{i}"))
                        for ask in (self.check, self.consume, self.throttle) for i in range(each)]
        for thread in self.threads:
            thread.start()

    def run(self, ask, name):
        try:
            ask(name)
        except Exception as error:  # pylint: disable=broad-except
            if not (self.may_end and isinstance(error, (OSError, EOFError, http.client.HTTPException, ValueError))):
                self.wrong.append(f"{name}: {error!r}")

    def turns(self):
        """Numbers until the end."""
        n = 0
        while not self.over.is_set():
            yield n
            n += 1
            time.sleep(self.pause_s)

    def found(self, begun, protocol, bucket, verdict):
        """verdict: whether the store allows; None: it has none."""
        now = time.monotonic()
        self.took.append((now, now - begun))
        self.verdicts.append((now, protocol, verdict is not None))
        if verdict:
            self.admitted[bucket].append((begun, now))
        if verdict is False and "many" in bucket:
            self.wrong.append(f"{bucket} has room and is denied")
        if verdict is False and "few" in bucket:
            self.denied[protocol] = now

    def silent(self, status, bucket):
        """An answer without a verdict must be that of the policy. A local share may be used up."""
        expected = {"allow": [200], "deny": [503], "report": [503], "local": [200, 429]}[self.policy]
        if status not in expected[:1 if "many" in bucket else 2]:
            self.wrong.append(f"{bucket}: {status} without a verdict of the store")
        if self.policy == "local" and status == 200:
            self.by_policy[bucket] += 1

    def check(self, name):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        digit = int(name[-1])
        for n in self.turns():
            path, address = ("few", "drains", "many")[n % 3], f"192.0.{digit}.{n // 3 % KEYS}"
            if path != "few":
                address = f"198.51.100.{digit}"
            begun = time.monotonic()
            connection.request("GET", "/v1/check", headers={"X-Forwarded-Uri": f"/{path}", "X-Forwarded-For": address})
            response = connection.getresponse()
            response.read()
            status = response.status
            verdict = status == 200 if response.getheader("ratelimit") is not None else None
            if verdict is None:
                self.silent(status, f"{path} {address}")
            elif status not in (200, 429):
                self.wrong.append(f"check: {status} with fields")
            self.found(begun, "check", f"{path} {address}", verdict)

    def consume(self, name):
        """Two parts with keys of their own: in a cluster they are in two slots."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        for n in self.turns():
            small = {"limit": "few", "key": f"{name} {n // 2 % KEYS}"} if n % 2 else {"limit": "many", "key": f"{name} a"}
            body = json.dumps({"parts": [small, {"limit": "many", "key": f"{name} b {n % 7}"}]})
            begun = time.monotonic()
            connection.request("POST", "/v1/consume", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
            verdict = answer["allowed"] if answer["source"] in ("store", "memory") else None
            if verdict is None:
                self.silent(response.status, f"{small['limit']} {small['key']}")
            elif response.status != (200 if verdict else 429):
                self.wrong.append(f"consume: {response.status}, {answer}")
            self.found(begun, "consume", f"{small['limit']} {small['key']}", verdict)

    def throttle(self, name):
        client = Resp(self.port)
        for n in self.turns():
            small = n % 2 == 1
            key, words = (f"few {name} {n // 2 % KEYS}", (B - 1, B, 86400)) if small else (f"many {name}", (10**6, 10**6, 1))
            begun = time.monotonic()
            reply = client("CL.THROTTLE", key, *words)
            if reply == b"" or isinstance(reply, list) and b"" in reply:
                raise EOFError("the daemon has closed")
            verdict = reply[0] == 0 if isinstance(reply, list) else None
            if verdict is None and self.policy != "local" and not str(reply).startswith("UNAVAILABLE"):
                self.wrong.append(f"CL.THROTTLE: {reply!r}")
            self.found(begun, "throttle", key, verdict)

    def await_verdicts(self, n, since=0.0, seconds=30):
        """Until each protocol has so many verdicts of the store since then."""
        def enough():
            assert not self.wrong, self.wrong[:5]
            count = collections.Counter(protocol for at, protocol, known in list(self.verdicts) if known and at > since)
            return all(count[protocol] >= n for protocol in self.protocols)
        await_that(enough, seconds, every=0.02)

    def await_full(self, since=0.0):
        """Until each protocol has found a small bucket full since then."""
        await_that(lambda: self.wrong or all(self.denied[protocol] > since for protocol in self.protocols))

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
        assert not self.wrong, self.wrong[:5]

    # ---- What they found ----

    def back_after(self, since):
        """Seconds from then to the first verdict of each protocol, and to the last answer without one."""
        later = [(at - since, protocol, known) for at, protocol, known in self.verdicts if at > since]
        first = [min(at for at, p, known in later if known and p == protocol) for protocol in self.protocols]
        return first, max((at for at, _, known in later if not known), default=0.0)

    def slowest(self, since):
        return max(took for at, took in self.took if at > since)

    def assert_bounds(self, losses, others=(), shares=2):
        """A bucket that was forgotten so many times let in (losses + 1) * B, and R drops a second if it drains. With
        `local`, the share of each thread lets in B more."""
        for bucket in set(self.admitted).union(*(other.admitted for other in others)):
            if "many" in bucket:
                continue
            times = sorted((answered, answered - asked) for one in (self, *others) for asked, answered in one.admitted[bucket])
            rate = R if "drains" in bucket else B / 86400
            late = max(took for _, took in times)  # the store decided at most so long before the answer
            over, most, before = 0.0, 0.0, times[0][0]
            for at, _ in times:
                over = max(1.0, over + 1 - rate * (at - before))
                most, before = max(most, over), at
            full = losses + 1 + (shares if self.policy == "local" and "throttle" in bucket else 0)
            assert most <= full * B + rate * late + 1e-6, (bucket, most, late)
        few = {bucket: n for bucket, n in self.by_policy.items() if bucket.startswith("few")}
        assert all(n <= shares * B for n in few.values()), few
