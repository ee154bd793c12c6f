"""Clients and watchers of a quorum under torture: threads that do calls through any node and write down what they were told."""
import collections
import http.client
import json
import random
import threading
import time

from quorum import Refused, raw, text
from quorum_history import WRITES, Call

KEYS = [f"q/{i}" for i in range(8)]
CALM = "q/calm"  # written at the end, when all is to be calm
RANGE = {"key": text("q/"), "range_end": text("q0")}
# What a node may answer instead; all but the last two leave open whether a write takes effect.
REFUSALS = ("etcdserver: request timed out", "etcdserver: leader changed", "etcdserver: no leader", "etcdserver: server stopped",
            "etcdserver: too many requests")
# Of a write in a session: it took effect, and that is all that is known.
GONE = "the command took effect when it was first sent; its answer was too large to be kept"


def padded(value):
    """A value names its size: NAME+BYTES, and so many bytes follow."""
    return value + "x" * int(value.partition("+")[2] or 0)


def bare(value):
    """What padded() was given; the whole when it is not all there."""
    name = value.rstrip("x")
    return name if padded(name) == value else value


def states_of(kvs):
    return {raw(kv["key"]).decode(): (bare(raw(kv.get("value", "")).decode()), int(kv["mod_revision"])) for kv in kvs}


def put_request(key, value):
    return {"key": text(key), "value": text(padded(value))}


def operation(key, value):
    return {"request_put": put_request(key, value)} if value is not None else {"request_delete_range": {"key": text(key)}}


class History:
    """What all clients together were told."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls = []
        self.odd = []
        self.acknowledged = 0
        self.last_acknowledged = time.monotonic()
        self.longest = 0.0  # without an acknowledged write
        self.longest_until = self.last_acknowledged
        self.answers = collections.Counter()
        self.repeats = 0  # of writes whose outcome was not known

    def add(self, call):
        with self.lock:
            self.calls.append(call)
            self.answers[f"{call.kind} {call.outcome}"] += 1
            if call.outcome == "ok" and call.changes:
                self.acknowledged += 1
                if call.ended - self.last_acknowledged > self.longest:
                    self.longest, self.longest_until = call.ended - self.last_acknowledged, call.ended
                self.last_acknowledged = call.ended


class Client:
    """One thread: calls one after the other, each at a node that chance names, over connections that are kept. Half of the writes are made
    in a session, and repeated at any node until their outcome is known.
    """

    def __init__(self, history, nodes, number, seed, stop, stale=False, careless=False):
        self.history = history
        self.nodes = nodes
        self.number = number
        self.rng = random.Random(f"{seed}:client {number}")
        self.stop = stop
        self.stale = stale  # reads of one node pass for linearizable ones
        self.careless = careless  # what is repeated does not say what it repeats
        self.session = None
        self.sequence = 0
        self.kept = {}
        self.known = {}  # key -> mod revision, to compare with
        self.count = 0
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            while not self.stop.is_set():
                self._one()
        except BaseException as error:  # said by the main thread
            self.error = error
        finally:
            for connection in self.kept.values():
                connection.close()

    def _one(self):
        node = self.rng.choice(self.nodes)
        key = self.rng.choice(KEYS)
        self.count += 1
        value = f"{self.number}.{self.count}"
        if self.rng.random() < 0.04:  # so that logs have several segments, and snapshots several parts
            value += f"+{self.rng.randrange(60_000)}"
        chance = self.rng.random()
        call = Call(self.number, node.node_name, "write", 0.0)
        if chance < 0.30:
            call.changes = {key: value}
            self._ask(node, call, "/kv/put", put_request(key, value))
        elif chance < 0.36:
            call.changes = {key: None}
            self._ask(node, call, "/kv/deleterange", {"key": text(key)})
        elif chance < 0.46:
            call.changes = dict.fromkeys(self.rng.sample(KEYS, 3), value)
            self._ask(node, call, "/kv/txn", {"success": [operation(*change) for change in call.changes.items()]})
        elif chance < 0.66:
            call.kind, call.asked, call.expected = "cas", key, self.known.get(key, 0)
            call.changes = {key: value}
            self._ask(node, call, "/kv/txn", {
                "compare": [{"key": text(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(call.expected)}],
                "success": [operation(key, value)], "failure": [{"request_range": {"key": text(key)}}]})
        else:
            call.kind = "serializable" if chance > 0.9 else "read"
            call.asked = key if self.rng.random() < 0.5 else None
            alone = call.kind == "serializable" or self.stale
            self._ask(node, call, "/kv/range", {**({"key": text(key)} if call.asked else RANGE), **({"serializable": True} if alone else {})})

    def _ask(self, node, call, path, body):
        in_session = call.kind in WRITES and self.rng.random() < 0.5 and self._open(node)
        self.sequence += bool(in_session)
        call.begun = time.monotonic()
        status, answer = self._try(node, call, path, body, in_session)
        while in_session and self._open_ended(status, answer) and not self.stop.wait(self.rng.uniform(0, 0.05)):  # a client's backoff
            with self.history.lock:
                self.history.repeats += 1
            call.outcome, call.error = "unknown", ""
            status, answer = self._try(self.rng.choice(self.nodes), call, path, body, in_session)
            if call.outcome == "refused":
                call.outcome = "unknown"  # this copy; not those before it
        call.ended = time.monotonic()
        if status == 200:
            self._read(call, path, json.loads(answer))
        elif status is not None:
            call.error = answer.decode(errors="replace")
            self._judge(call, status, answer)
        else:
            call.ended = None
        self.history.add(call)
        if call.outcome in ("unknown", "refused"):
            self.stop.wait(self.rng.uniform(0, 0.05))  # a client's backoff: no test waits for it

    def _open(self, node):
        """Whether there is a session."""
        if self.session is None:
            status, answer = self._post(node, Call(self.number, node.node_name, "write", 0.0), "/session/open", {}, 2.0)
            self.session = json.loads(answer)["session"] if status == 200 else None
        return self.session is not None

    def _try(self, node, call, path, body, in_session):
        # Some have no patience: what they asked for happens or not, and they do not know. Least where they ask again.
        patience = self.rng.choice([0.003, 0.02, 0.5, 2.0] if in_session else [0.02, 0.5, 2.0, 2.0])
        call.node = node.node_name
        said = {"outrider-session": self.session, "outrider-sequence": str(self.sequence)} if in_session and not self.careless else {}
        return self._post(node, call, path, body, patience, said)

    @staticmethod
    def _open_ended(status, answer):
        return status is None or (status in (429, 503) and any(text.encode() in answer for text in REFUSALS))

    def _post(self, node, call, path, body, patience, headers=None):
        """Status and body; nothing: there was no answer."""
        connection = self.kept.pop(node.node_name, None)
        try:
            if connection is None:
                connection = http.client.HTTPConnection(node.host, node.port, timeout=patience)
                try:
                    connection.connect()
                except ConnectionRefusedError as error:
                    call.outcome, call.error = "refused", str(error)
                    raise
            connection.sock.settimeout(patience)
            connection.request("POST", "/v3" + path, json.dumps(body), headers or {})
            response = connection.getresponse()
            answer = response.read()
            if not response.will_close:
                self.kept[node.node_name] = connection
            return response.status, answer
        except (OSError, http.client.HTTPException) as error:
            call.error = call.error or f"{type(error).__name__}: {error}"
            if connection is not None:
                connection.close()
            return None, b""

    def _judge(self, call, status, answer):
        try:
            said = json.loads(answer)["error"]
        except (ValueError, KeyError, TypeError):
            said = ""
        if said == GONE and call.kind in WRITES:
            return
        if said not in REFUSALS or status not in (429, 503):
            self.history.odd.append(f"was answered {status} {answer[:200]!r}\n  {call.text()}")

    def _read(self, call, path, answer):
        call.revision = int(answer["header"]["revision"])
        call.outcome = "ok"
        if path == "/kv/range":
            call.seen = states_of(answer.get("kvs", []))
        elif path == "/kv/deleterange" and answer.get("deleted", "0") == "0":  # as good as a read
            call.kind, call.asked, call.changes, call.seen = "read", next(iter(call.changes)), {}, {}
        elif call.kind == "cas" and not answer.get("succeeded"):
            call.outcome = "compared"
            call.seen = states_of(answer["responses"][0]["response_range"].get("kvs", []))
        for key in call.changes if call.outcome == "ok" else ():
            self.known[key] = call.revision
        for key, (_, revision) in (call.seen or {}).items():
            self.known[key] = revision
        if call.asked and call.seen == {}:
            self.known[call.asked] = 0


class Watcher:
    """A watch of all keys at one node, from the first revision on; it goes on where it was after every loss of its node."""

    def __init__(self, node, stop, begin=1):
        self.node = node
        self.stop = stop
        self.told = []  # (time, revision, key, value)
        self.next = begin
        self.streams = 0
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            while not self.stop.is_set():
                try:
                    self._follow()
                except (OSError, http.client.HTTPException, ValueError):
                    self.stop.wait(0.02)  # its node is down; asked again until it is not
        except BaseException as error:  # said by the main thread
            self.error = error

    def _follow(self):
        connection = http.client.HTTPConnection(self.node.host, self.node.port, timeout=1)
        try:
            body = {"create_request": {**RANGE, "start_revision": str(self.next)}}
            connection.request("POST", "/v3/watch", json.dumps(body))
            response = connection.getresponse()
            if response.status != 200:
                raise OSError(f"the watch was answered {response.status}")
            self.streams += 1
            while not self.stop.is_set():
                line = response.readline()
                if not line.endswith(b"\n"):
                    return
                self.take(json.loads(line)["result"], time.monotonic())
        finally:
            connection.close()

    def take(self, result, now):
        if result.get("canceled"):
            raise AssertionError(f"the watch at {self.node.node_name} was cancelled: {result}")
        for event in result.get("events", ()):
            kv = event["kv"]
            revision = int(kv["mod_revision"])
            value = None if event.get("type") == "DELETE" else bare(raw(kv.get("value", "")).decode())
            self.told.append((now, revision, raw(kv["key"]).decode(), value))
            self.next = max(self.next, revision + 1)

    def reached(self, revision):
        return self.next > revision


def order_of(told):
    """revision -> changes, of what a watch told."""
    order = collections.defaultdict(dict)
    for _, revision, key, value in told:
        order[revision][key] = value
    return dict(order)


def history_of(node, begin, until):
    """revision -> changes from revision `begin` on, as this node tells them now."""
    watcher = Watcher(node, threading.Event(), begin)
    watcher.thread.start()
    deadline = time.monotonic() + 60
    while not watcher.reached(until) and watcher.error is None and time.monotonic() < deadline:
        time.sleep(0.01)  # the pause of a poll, bounded by the deadline
    watcher.stop.set()
    watcher.thread.join(10)
    if watcher.error:
        raise watcher.error
    assert watcher.reached(until), f"{node.node_name} told its history up to {watcher.next - 1} of {until}"
    return order_of(watcher.told)


class Compactor:
    """One thread: gives up old revisions again and again, none that a watch has not told yet."""

    def __init__(self, nodes, watchers, seed, stop):
        self.nodes = nodes
        self.watchers = watchers
        self.rng = random.Random(f"{seed}:compactor")
        self.stop = stop
        self.asked = 1  # the highest revision, whether it was done or not
        self.count = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.stop.wait(self.rng.uniform(0, 1)):
            revision = min(watcher.next for watcher in self.watchers) - self.rng.randrange(1, 100)
            if revision <= self.asked:
                continue
            self.asked = revision
            try:
                self.rng.choice(self.nodes).call("/kv/compaction", {"revision": str(revision)}, patience=2)
                self.count += 1
            except (OSError, Refused):
                continue


__all__ = ["CALM", "Client", "Compactor", "History", "RANGE", "Watcher", "history_of", "order_of"]
