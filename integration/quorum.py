"""Nodes of the control plane under test, and a client of its API."""
import base64
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import tempfile
import time

from harness import Process, free_port, toml_table

PATIENCE = 30.0


def text(value):
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def raw(value):
    return base64.b64decode(value)


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body!r}")
        self.status = status
        self.body = body
        with contextlib.suppress(ValueError):
            self.answer = json.loads(body)


def refused(call, *arguments, **more):
    """What the call was refused with: status, text, code."""
    try:
        call(*arguments, **more)
    except Refused as refusal:
        return refusal.status, refusal.answer["error"], refusal.answer["code"]
    raise AssertionError(f"{arguments} was not refused")


def wait_for(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not there after {patience} s: {what}"
        time.sleep(0.01)  # the pause of a poll, bounded by the deadline


class ControlNode(Process):
    """One `outrider control`. Its data outlives its process."""

    name = "control"
    host = "127.0.0.1"  # of all its ports

    def __init__(self, name, api_port, peer_port, peers, **settings):
        super().__init__()
        self.node_name = name
        self.port = api_port
        self.peer_port = peer_port
        self.data = self.directory / "data"
        self.settings = {"name": name, "data": str(self.data), "api_listen": f"{self.host}:{api_port}",
                         "peer_listen": f"{self.host}:{peer_port}", "peers": peers, "heartbeat": "50ms",
                         "election_timeout": "300ms", **settings}
        self.config = self.directory / "control.toml"

    def command(self):
        self.config.write_text(toml_table("[control]", self.settings) + toml_table("[log]", {"level": "debug"}))
        return [os.path.abspath(os.environ["OUTRIDER_BIN"]), "control", "-c", str(self.config)]

    def ready(self):
        try:
            return self.get("/live")[0] == 200
        except OSError:
            return False

    def get(self, path, patience=5):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=patience)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def call(self, path, body=None, patience=PATIENCE, session=None):
        """`session`: its id and the sequence of this command in it."""
        headers = {"outrider-session": session[0], "outrider-sequence": str(session[1])} if session else {}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=patience)
        try:
            connection.request("POST", "/v3" + path, json.dumps(body or {}), headers)
            response = connection.getresponse()
            answer = response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        if response.status != 200:
            raise Refused(response.status, answer)
        return json.loads(answer)

    def put(self, key, value, **more):
        return self.call("/kv/put", {"key": text(key), "value": text(value), **more})

    def range(self, key, **more):
        answer = self.call("/kv/range", {"key": text(key), **more})
        return {raw(kv["key"]).decode(): raw(kv.get("value", "")).decode() for kv in answer.get("kvs", [])}

    def status(self):
        return self.call("/maintenance/status")

    def stream(self, path, first=None):
        return Stream(self.port, path, first, self.host)

    def metric(self, name):
        for line in self.get("/metrics")[1].decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        return None

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def stop_keeping_data(self):
        """SIGTERM and exit code 0; the directory stays."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"{self.node_name} ended with {code}:\n{self.log()}"
        self._forget()


class Stream:
    """A streaming call: messages out in chunks, one JSON object a line in."""

    def __init__(self, port, path, first=None, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), PATIENCE)
        self.socket.sendall(f"POST /v3{path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        self.file = None
        if first is not None:
            self.send(first)

    def send(self, message):
        data = json.dumps(message).encode()
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def end_input(self):
        self.socket.sendall(b"0\r\n\r\n")

    def _line(self):
        if self.file is None:
            self.file = self.socket.makefile("rb")
            status = self.file.readline()
            assert b" 200 " in status, status + self.file.read1(1000)
            while self.file.readline() not in (b"\r\n", b""):
                pass
            self.text = b""
        while b"\n" not in self.text:
            size = int(self.file.readline() or b"0", 16)
            if size == 0:
                return None
            self.text += self.file.read(size)
            self.file.readline()
        line, self.text = self.text.split(b"\n", 1)
        return line

    def next(self):
        """The next message's result; None at the end of the stream."""
        line = self._line()
        return None if line is None else json.loads(line).get("result", json.loads(line))

    def events(self, count):
        found = []
        while len(found) < count:
            message = self.next()
            assert message is not None, f"the stream ended after {found}"
            found += message.get("events", [])
        return found

    def close(self):
        if self.file is not None:
            self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Quorum:
    """Nodes that found a cluster together."""

    def __init__(self, count=3, kind=ControlNode, **settings):
        names = [f"core-{i}" for i in range(count)]
        ports = {name: (free_port(), free_port()) for name in names}
        self.peers = self.addresses({name: peer_port for name, (_, peer_port) in ports.items()})
        self.nodes = [kind(name, *ports[name], self.peers, **settings) for name in names]

    def addresses(self, ports):
        """Where the nodes reach each other."""
        return {name: f"127.0.0.1:{port}" for name, port in ports.items()}

    def start(self):
        for node in self.nodes:
            node.start()
        self.leader()
        return self

    def alive(self):
        return [node for node in self.nodes if node.alive()]

    def leader(self, among=None):
        """A node that all living ones hold to be the leader."""
        def agreed():
            told = set()
            for node in among or self.alive():
                try:
                    told.add((node.status().get("leader"), node.status().get("raftTerm")))
                except (OSError, Refused):
                    return None
            if len(told) != 1 or None in next(iter(told)):
                return None
            leader = next(iter(told))[0]
            return next((node for node in among or self.alive() if node.status()["header"]["member_id"] == leader), None)
        return wait_for("one leader", agreed)

    def followers(self):
        leader = self.leader()
        return [node for node in self.alive() if node is not leader]

    def stop(self, check=True):
        for node in self.nodes:
            try:
                if check and node.alive():
                    node.stop()
                else:
                    node.kill()
            finally:
                shutil.rmtree(node.directory, ignore_errors=True)


def copied_data(node):
    """A copy of a stopped node's data directory."""
    target = pathlib.Path(tempfile.mkdtemp(prefix="control-copy-")) / "data"
    shutil.copytree(node.data, target)
    return target
