"""What the tests of the idempotent receiver share: stores to choose from, requests with keys, and where a key stands.

Nothing here waits for time to pass: a request is known to be at the application because the scripted upstream holds it,
and known to be parked because the admin endpoint counts it.
"""
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

import pytest

from harness import toml_table
from resilience import Subject
from sidecar import Sidecar, accepts, cluster, free_port, request_bytes, route, wait_until
from wire import RawClient

KINDS = ("log", "memory", "redis")
REDIS = shutil.which("redis-server", path=os.environ.get("PATH", "") + ":/usr/bin")
URN = "urn:outrider:idempotency:"
_numbers = itertools.count(1)
_run = random.SystemRandom().randrange(1 << 48)


def fresh_key(name="key"):
    """One that no other test and no earlier run used."""
    return f"{name}-{_run:012x}-{next(_numbers)}"


# ---- Redis -----------------------------------------------------------------------------------------------------------------


class Redis:
    """redis-server on a port and directory of its own; what it acknowledged is on disk before it says so."""

    def __init__(self):
        if REDIS is None:
            pytest.skip("no redis-server on this machine")
        self.port = free_port()
        self.directory = tempfile.mkdtemp(prefix="redis-")
        self.child = None

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self.child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", REDIS, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory,
             "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_until(self.answers, 20, "the start of Redis")
        return self

    def ask(self, *words):
        """The first line of the answer."""
        with RawClient(self.port, patience=5) as client:
            client.send(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in map(str.encode, words)))
            return client.wire.line()

    def answers(self):
        """Loaded: a server that still reads its file refuses commands."""
        try:
            return accepts(self.port) and self.ask("PING") == b"+PONG"
        except (OSError, AssertionError):
            return False

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(10)

    def signal(self, number):
        self.child.send_signal(number)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


# ---- stores ----------------------------------------------------------------------------------------------------------------


class StoreKind:
    """A [store.keys] of one kind and what it stands on."""

    def __init__(self, kind, **keys):
        self.kind = kind
        self.keys = keys
        self.redis = None
        self.directory = None

    def __enter__(self):
        if self.kind == "redis":
            self.redis = Redis().start()
        if self.kind == "log":
            self.directory = pathlib.Path(tempfile.mkdtemp(prefix="keys-"))
        return self

    def __exit__(self, *_):
        if self.redis:
            self.redis.__exit__()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def durable(self):
        return self.kind != "memory"

    def table(self, name="keys", **more):
        where = {"log": {"path": str(self.directory)}, "memory": {}, "redis": {}}[self.kind]
        if self.redis:
            # A loaded machine is not a store that fails.
            where = {"url": self.redis.url, "operation_timeout": "2s"}
        return toml_table(f"[store.{name}]", {"kind": self.kind, **where, **self.keys, **more})


def start_or_skip(sidecar):
    """A kind that this build does not have is not a failure of it."""
    try:
        return sidecar.start()
    except RuntimeError as error:
        if "not built in" in str(error):
            pytest.skip("this build has no such store: " + str(error).strip().splitlines()[-1])
        raise


def warm_up_body():
    """A route whose requests claim a key and never leave: they tell whether the store answers, and leave nothing behind."""
    return (route("warm-up", match={"path_prefix": "/warm-up"}, cluster="nowhere", idempotency={"store": "keys"})
            + cluster("nowhere", 1))


def wait_for_store(sidecar):
    """Until every worker has its connection to the store: twenty connections in a row meet all workers but once in a million."""
    def all_answer():
        answers = (sidecar.get("/warm-up", fields=[("Idempotency-Key", fresh_key("warm"))], method="POST", body=b"") for _ in range(20))
        return all(answer.status == 502 for answer in answers)

    wait_until(all_answer, 20, "the store's answers to every worker")
    return sidecar


@contextlib.contextmanager
def sidecar_with(store, body, **options):
    """A process of the test's own."""
    sidecar = Sidecar((warm_up_body() if store.redis else "") + body + store.table(), **options)
    start_or_skip(sidecar)
    if store.redis:
        wait_for_store(sidecar)
    try:
        yield sidecar
    finally:
        if sidecar.alive():
            sidecar.kill()


class KeyedSubject(Subject):
    """One process for the tests of a file, over one store; each test gives the route another [route.idempotency]."""

    def __init__(self, store, workers=2, **options):
        super().__init__(workers=workers, **options)
        self.store = store
        self.sidecar.body += store.table()

    def start(self):
        start_or_skip(self.sidecar)
        if self.store.redis:
            self.sidecar.reload(warm_up_body() + self.store.table())
            wait_for_store(self.sidecar)
        return self

    def serve(self, *ports, idempotency=None, more="", **keys):
        if idempotency is not False:
            keys["idempotency"] = {"store": "keys", **(idempotency or {})}
        return super().serve(*ports, more=more + self.store.table(), **keys)

    def outcomes(self, route="all"):
        """How often each outcome has been counted since serve()."""
        known = {dict(pairs)["outcome"] for (name, pairs) in self.counts() if name == "outrider_idempotency_requests_total"}
        counted = {name: self.counted("outrider_idempotency_requests_total", route=route, outcome=name) for name in known}
        return {name: count for name, count in counted.items() if count}

    def wait_for_outcomes(self, **wanted):
        wait_until(lambda: self.outcomes() == wanted, 10, f"outcomes {wanted} (there are {self.outcomes()})")


def keyed_route(name="all", idempotency=None, **keys):
    return route(name, cluster="app", idempotency={"store": "keys", **(idempotency or {})}, **keys)


def keyed_body(port, idempotency=None, **keys):
    return keyed_route(idempotency=idempotency, **keys) + cluster("app", port)


# ---- requests --------------------------------------------------------------------------------------------------------------


def key_fields(key, fields=()):
    keys = [key] if isinstance(key, str) else key or []
    return [("Idempotency-Key", one) for one in keys] + list(fields)


def post(sidecar, key=None, target="/pay", body=b"amount=1", method="POST", fields=(), port=None):
    """One request on a connection of its own and its answer."""
    return sidecar.get(target, fields=key_fields(key, fields), method=method, body=body, port=port)


def post_bytes(key=None, target="/pay", body=b"amount=1", method="POST", fields=(), last=False):
    return request_bytes(target, fields=key_fields(key, fields), method=method, body=body, last=last)


@contextlib.contextmanager
def posted(sidecar, *arguments, **options):
    """A client that has sent the request and not read the answer."""
    with RawClient(sidecar.port) as client:
        client.send(post_bytes(*arguments, **options))
        yield client


def problem_of(answer, status, kind):
    """The problem's members, which must be of this kind."""
    assert answer.status == status, (answer.status, answer.body)
    assert answer.one("content-type") == b"application/problem+json"
    problem = json.loads(answer.body)
    assert problem["type"] == URN + kind, problem
    assert problem["status"] == status
    assert problem["detail"] and problem["title"], problem
    assert answer.one("proxy-status"), "outrider says that it made this itself"
    assert answer.one("link"), "where the promise is published"
    assert not answer.all("idempotent-replayed")
    return problem


def own_fields(answer):
    """The fields of the application's answer, in order: without those that belong to one connection or one exchange."""
    own = (b"connection", b"via", b"x-request-id", b"date", b"idempotent-replayed", b"keep-alive")
    return [(name.lower(), value) for name, value in answer.fields if name.lower() not in own]


def assert_replay(answer, first):
    assert answer.one("idempotent-replayed") == b"true", answer
    assert first.one("idempotent-replayed") is None, first
    assert (answer.status, answer.body) == (first.status, first.body)
    assert own_fields(answer) == own_fields(first)


# ---- where a key stands ------------------------------------------------------------------------------------------------------


def store_page(sidecar, name="keys"):
    (one,) = [store for store in sidecar.json("/idempotency")["stores"] if store["store"] == name]
    return one


def waiting(sidecar):
    return store_page(sidecar)["waiting"]


def key_path(key, route="all", scope=()):
    return f"/idempotency/keys/{key}?route={route}" + "".join(f"&scope={value}" for value in scope)


def look(sidecar, key, **where):
    """What the store has of it; the state is "absent" also when it was never there."""
    answer = sidecar.admin(key_path(key, **where))
    assert answer.status in (200, 404), answer
    return json.loads(answer.body)


def state_of(sidecar, key, **where):
    return look(sidecar, key, **where)["state"]


def forget(sidecar, digest, method="POST"):
    return sidecar.admin(f"/idempotency/keys/{digest}/forget", method)


def digest_of(key, route="all", scope=(("header:authorization", None),)):
    """The key's digest as the header of filters/policy/idempotency_key.h lays it out, computed anew."""
    def part(text):
        return len(text).to_bytes(8, "little") + text.encode()

    out = part("outrider key 1") + len(scope).to_bytes(8, "little")
    for name, value in scope:
        out += part(name) + (b"0" if value is None else b"1" + part(value))
    return hashlib.sha256(out + part(route) + part(key)).hexdigest()


__all__ = ["KINDS", "URN", "KeyedSubject", "Redis", "StoreKind", "assert_replay", "digest_of", "forget", "fresh_key", "key_fields",
           "key_path", "keyed_body", "keyed_route", "look", "own_fields", "post", "post_bytes", "posted", "problem_of", "sidecar_with",
           "start_or_skip", "state_of", "store_page", "wait_for_store", "waiting"]
