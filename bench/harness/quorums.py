"""The clusters of bench/quorum: three nodes each of outrider's control plane and of Debian's etcd-server, on loopback."""

import contextlib
import errno
import http.client
import json
import os
import time
from dataclasses import dataclass

from harness.processes import Child, free_port

SIZE = 3
PATIENCE = 60.0  # for a cluster to serve


@dataclass(frozen=True)
class Timing:
    """Milliseconds; None: what each has by default."""

    name: str
    heartbeat: int = None
    election: int = None


DEFAULTS = Timing("defaults")
QUICK = Timing("50/300 ms", 50, 300)


class Node:
    """One process of a cluster; its data outlives it."""

    def __init__(self, name, directory, taken):
        self.name = name
        self.directory = directory
        self.data = os.path.join(directory, "data")
        self.port = free_port(taken)
        self.peer_port = free_port(taken)
        self.child = None
        self.starts = 0
        os.makedirs(directory)

    @property
    def pid(self):
        return self.child.pid

    def post(self, path, body, patience=5.0):
        """The parsed answer; None when it is no success."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        try:
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            answer = response.read()
            return json.loads(answer) if response.status == 200 else None
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def disk_bytes(self):
        """Written to the files of its data directory; not what is allocated ahead of its use."""
        total = 0
        for folder, _, names in os.walk(self.data):
            for name in names:
                with contextlib.suppress(OSError):  # deleted meanwhile
                    total += data_bytes(os.path.join(folder, name))
        return total


def data_bytes(path):
    """Of a file, without its holes; space that is allocated and not written is a hole as well (lseek(2))."""
    total = at = 0
    fd = os.open(path, os.O_RDONLY)
    try:
        while True:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, begin, os.SEEK_HOLE)
            total += at - begin
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data behind `at`
            raise
    finally:
        os.close(fd)
    return total


class Cluster:
    """`kind`: what the tables call it."""

    kind = ""

    def __init__(self, run, timing=DEFAULTS):
        self.timing = timing
        taken = set()
        slug = f"{self.kind}-{time.monotonic_ns()}"
        self.directory = os.path.join(run, slug)
        self.nodes = [Node(f"{self.kind}-{i}", os.path.join(self.directory, str(i)), taken) for i in range(SIZE)]

    def argv(self, node):
        raise NotImplementedError

    def start(self):
        for node in self.nodes:
            self.start_node(node)
        self.leader()
        return self

    def start_node(self, node):
        node.child = Child(self.argv(node), None, log=os.path.join(node.directory, f"{node.starts}.log"))
        node.starts += 1

    def kill_node(self, node):
        """SIGKILL; returns when it was sent, by time.monotonic()."""
        at = time.monotonic()
        node.child.process.kill()
        node.child.stop()
        return at

    def pids(self):
        return [node.pid for node in self.nodes]

    def leader(self):
        """The node that all say is the leader; waits for it."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            answers = [node.post("/v3/maintenance/status", {}) for node in self.nodes]
            if all(answers) and len({(a.get("leader"), a.get("raftTerm")) for a in answers}) == 1:
                for node, answer in zip(self.nodes, answers):
                    if answer["header"]["member_id"] == answer.get("leader"):
                        if node.post("/v3/kv/range", {"key": "eA=="}) is not None:
                            return node
            for node in self.nodes:
                if not node.child.running():
                    raise RuntimeError(f"{node.name} ended; see {node.directory} (--keep)")
            time.sleep(0.02)
        raise RuntimeError(f"{self.kind}: no leader after {PATIENCE:g} s; see {self.directory} (--keep)")

    def stop(self):
        for node in self.nodes:
            if node.child:
                node.child.stop()


class Outrider(Cluster):
    kind = "outrider"

    def __init__(self, run, build, timing=DEFAULTS):
        self.program = os.path.join(build, "cli", "outrider")
        super().__init__(run, timing)

    def argv(self, node):
        peers = ", ".join(f'"{other.name}" = "127.0.0.1:{other.peer_port}"' for other in self.nodes)
        lines = ["[control]", f'name = "{node.name}"', f'data = "{node.data}"',
                 f'api_listen = "127.0.0.1:{node.port}"', f'peer_listen = "127.0.0.1:{node.peer_port}"',
                 f"peers = {{ {peers} }}"]
        if self.timing.heartbeat:
            lines += [f'heartbeat = "{self.timing.heartbeat}ms"', f'election_timeout = "{self.timing.election}ms"']
        path = os.path.join(node.directory, "control.toml")
        with open(path, "w") as config:
            config.write("\n".join(lines) + "\n")
        return [self.program, "control", "-c", path]


class Etcd(Cluster):
    kind = "etcd"

    def __init__(self, run, _build, timing=DEFAULTS):
        super().__init__(run, timing)

    def argv(self, node):
        client, peer = (f"http://127.0.0.1:{port}" for port in (node.port, node.peer_port))
        peers = ",".join(f"{other.name}=http://127.0.0.1:{other.peer_port}" for other in self.nodes)
        argv = ["etcd", "--name", node.name, "--data-dir", node.data, "--listen-client-urls", client,
                "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", peers]
        if self.timing.heartbeat:
            argv += ["--heartbeat-interval", str(self.timing.heartbeat), "--election-timeout", str(self.timing.election)]
        return argv


KINDS = {kind.kind: kind for kind in (Outrider, Etcd)}


def memory_kib(pid):
    """Resident: all, without pages of files, at most so far."""
    found = {}
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "RssAnon", "VmHWM"):
                found[name] = int(rest.split()[0])
    return {"rss": found["VmRSS"], "anonymous": found["RssAnon"], "peak": found["VmHWM"]}
