"""Clusters that speak etcd v3's API over HTTP, and a client of it that is plain http.client and json.

EtcdCluster is Debian's etcd-server, OutriderCluster is `outrider control`; both are three processes on free ports of the
loopback. What is said of one must hold for the other, so tests take a cluster and do not ask which it is.
"""
import base64
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess

import pytest

from harness import Process, free_port
from sidecar import PROGRAM, run, wait_until

PATIENCE = 30.0
ALL = b"\0"


def b64(data):
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def plain(text):
    return base64.b64decode(text).decode("latin-1")


def prefix_end(prefix):
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def key(name, end=None, **more):
    """The part of a request that names a key or a range."""
    return {"key": b64(name), **({} if end is None else {"range_end": b64(end)}), **more}


def under(prefix, **more):
    return key(prefix, prefix_end(prefix), **more)


def put(name, value="", **more):
    return {"key": b64(name), **({"value": b64(value)} if value else {}), **more}


def compare(name, target, result, end=None, **union):
    return key(name, end, target=target, result=result, **union)


class Stream:
    """The answer to a request whose lines go on."""

    def __init__(self, port, path, body, patience=PATIENCE):
        text = body if isinstance(body, str) else json.dumps(body)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
        self.connection.connect()
        self.socket = self.connection.sock  # which http.client forgets when the stream is the connection's last answer
        self.connection.request("POST", path, body=text)
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()

    def line(self):
        """The next message, without its wrapping; None at the stream's end."""
        text = self.response.readline()
        return json.loads(text)["result"] if text else None

    def events(self, count):
        """As (type, key, value, mod_revision), from as many messages as it takes."""
        found = []
        while len(found) < count:
            for event in self.line().get("events", ()):
                kv = event["kv"]
                found.append((event.get("type", "PUT"), plain(kv["key"]), plain(kv.get("value", "")), int(kv["mod_revision"])))
        assert len(found) == count, found
        return found

    def silent(self, patience=0.3):
        """Nothing comes in this time: for what must never come, so a slow machine cannot make it fail."""
        self.socket.settimeout(patience)
        try:
            return self.response.readline() == b"never"
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)

    def close(self):
        self.response.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Member(Process):
    """One process of a cluster; the cluster says how it is started."""

    def __init__(self, name, cluster):
        self.name = f"{cluster.kind}-{name}"
        super().__init__()
        self.member_name = name
        self.cluster = cluster
        self.port = free_port()
        self.peer_port = free_port()

    def command(self):
        return self.cluster.member_command(self)

    def ready(self):
        return True  # a member serves when there is a majority: the cluster waits


class Cluster:
    kind = "none"

    def __init__(self, size=3):
        self.members = [Member(f"m{i}", self) for i in range(size)]
        self.turn = 0

    def member_command(self, member):
        raise NotImplementedError

    def start(self):
        for member in self.members:
            member.start()
        for member in self.members:
            wait_until(functools.partial(self.serves, member), PATIENCE, f"{member.name} serving")
        return self

    def serves(self, member):
        assert member.alive(), member.log()
        try:
            return self.ask("/v3/kv/range", key("x"), member)[0] == 200
        except OSError:
            return False

    def stop(self):
        for member in self.members:
            member.kill()
            shutil.rmtree(member.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def ports(self):
        return [member.port for member in self.members]

    @property
    def endpoints(self):
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def next_member(self):
        """Another one each time: what is written at one is read at another."""
        self.turn += 1
        return self.members[self.turn % len(self.members)]

    def ask(self, path, body, member=None, method="POST", patience=PATIENCE):
        """The status and the parsed answer (text when it is no JSON)."""
        text = body if isinstance(body, str) else json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", (member or self.next_member()).port, timeout=patience)
        try:
            connection.request(method, path, body=text)
            response = connection.getresponse()
            raw = response.read().decode()
            # http.client takes etcd's trailers behind an error's body for text.
            raw = raw.split("Grpc-Trailer-", 1)[0]
            kind = response.headers.get("Content-Type", "")
            return response.status, json.loads(raw) if kind.startswith("application/json") else raw
        finally:
            connection.close()

    def ok(self, path, body, member=None):
        """The answer to a call that must succeed."""
        status, answer = self.ask(path, body, member)
        assert status == 200, (path, body, status, answer)
        return answer

    def body(self, path, body, member=None):
        """… without its header, which must be whole: numbers as strings, none of them zero."""
        answer = self.ok(path, body, member)
        header = answer.pop("header")
        for name in ("cluster_id", "member_id", "revision", "raft_term"):
            assert isinstance(header[name], str) and int(header[name]) > 0, header
        return answer

    def revision(self):
        return int(self.ok("/v3/kv/range", key("x", count_only=True))["header"]["revision"])

    def put(self, name, value="", **more):
        """The revision at which it was written."""
        return int(self.ok("/v3/kv/put", put(name, value, **more))["header"]["revision"])

    def get(self, name):
        kvs = self.ok("/v3/kv/range", key(name)).get("kvs", [])
        return plain(kvs[0].get("value", "")) if kvs else None

    def keys(self, body):
        return [plain(kv["key"]) for kv in self.ok("/v3/kv/range", body).get("kvs", [])]

    def refused(self, path, body, status, code, text):
        """A refusal in the gateway's form, with etcd's words."""
        answer = self.ask(path, body)
        if answer[0] == 501 and "not served yet" in answer[1]["error"]:
            pytest.skip(answer[1]["error"])
        assert answer == (status, {"error": text, "message": text, "code": code}), (path, body, answer)

    def watch(self, create, *more, member=None):
        """`more`: further messages in the same request."""
        text = json.dumps({"create_request": create}) + "".join(json.dumps(message) for message in more)
        return Stream((member or self.next_member()).port, "/v3/watch", text)

    def kill(self, index):
        member = self.members[index]
        os.killpg(member.child.pid, signal.SIGKILL)
        member.child.wait(PATIENCE)

    def restart(self, index):
        member = self.members[index]
        member.start()
        wait_until(functools.partial(self.serves, member), PATIENCE, f"{member.name} serving again")


class EtcdCluster(Cluster):
    kind = "etcd"

    @staticmethod
    def missing():
        """Why it cannot be had; empty when it can."""
        return "" if shutil.which("etcd") else "Debian's etcd-server is not installed (scripts/setup test)"

    def member_command(self, member):
        client, peer = (f"http://127.0.0.1:{port}" for port in (member.port, member.peer_port))
        peers = ",".join(f"{other.member_name}=http://127.0.0.1:{other.peer_port}" for other in self.members)
        return ["etcd", "--name", member.member_name, "--data-dir", str(member.directory / "data"),
                "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
                "--initial-advertise-peer-urls", peer, "--initial-cluster", peers,
                "--heartbeat-interval", "100", "--election-timeout", "1000"]


class OutriderCluster(Cluster):
    kind = "outrider"

    @staticmethod
    def missing():
        text = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True, timeout=30).stdout
        return "" if "\n  control " in text else "this outrider has no command `control`"

    def member_command(self, member):
        peers = ", ".join(f'{other.member_name} = "127.0.0.1:{other.peer_port}"' for other in self.members)
        config = member.directory / "control.toml"
        config.write_text(f"""\
[control]
name = "{member.member_name}"
data = "{member.directory / 'data'}"
api_listen = "127.0.0.1:{member.port}"
peer_listen = "127.0.0.1:{member.peer_port}"
peers = {{ {peers} }}
""")
        return [PROGRAM, "control", "-c", str(config)]


KINDS = {kind.kind: kind for kind in (EtcdCluster, OutriderCluster)}


def closed_port():
    """A port that refuses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def ctl(cluster, *arguments, endpoints=None, **options):
    return run("ctl", "--endpoints", endpoints or cluster.endpoints, *arguments, **options)
