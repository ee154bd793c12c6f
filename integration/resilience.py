"""What the tests of retries, hedges, health and limits share: upstreams that misbehave in turn, and checks that all is over.

`Turns` decides by the order in which attempts arrive, whichever endpoint they arrive at: so a test says "the first attempt
is reset, the second answered" without knowing what the balancer does.
"""
import contextlib
import threading
import time

from exposition import scrape
from sidecar import Sidecar, cluster, route, wait_until
from upstream import ScriptedUpstream
from wire import RawClient

# A budget and a backoff that never stand in the way of what is tested.
AMPLE = {"backoff": {"base": "1ms", "max": "2ms"}, "budget": {"ratio": 1.0, "min_per_second": 1000}}


# ---- scripts ---------------------------------------------------------------------------------------------------------------


def echo(exchange):
    exchange.read_body()
    exchange.reply(body=exchange.request.body or exchange.request.target)


def status(code, body=b"from the upstream", fields=()):
    def answer(exchange):
        exchange.read_body()
        exchange.reply(status=code, body=body, fields=fields)

    return answer


def resets(exchange):
    exchange.read_body()
    exchange.connection.reset()


def closes(exchange):
    exchange.read_body()
    exchange.connection.close()


def silent(exchange):
    """Takes the request and never answers."""
    exchange.read_body()
    exchange.connection.wait_closed(30)


class Turns:
    """Script n for the n-th attempt, the last one for all further ones. `times`: when each arrived."""

    def __init__(self, *scripts):
        self.scripts = scripts
        self.times = []
        self.lock = threading.Lock()

    def __call__(self, exchange):
        with self.lock:
            number = len(self.times)
            self.times.append(time.monotonic())
        self.scripts[min(number, len(self.scripts) - 1)](exchange)

    def count(self):
        return len(self.times)


class PerTarget:
    """Turns of its own for each request target."""

    def __init__(self, *scripts):
        self.scripts = scripts
        self.turns = {}
        self.lock = threading.Lock()

    def __call__(self, exchange):
        with self.lock:
            turns = self.turns.setdefault(exchange.request.target, Turns(*self.scripts))
        turns(exchange)


class Gate:
    """A script that waits for open(), then does what the other one does. `waiting`: how many are at it."""

    def __init__(self, script=echo):
        self.script = script
        self.event = threading.Event()
        self.waiting = 0

    def open(self):
        self.event.set()

    def __call__(self, exchange):
        exchange.read_body()
        self.waiting += 1
        assert self.event.wait(20), "nobody opened the gate"
        self.script(exchange)


@contextlib.contextmanager
def endpoints(*scripts):
    """One upstream for each script."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ScriptedUpstream(script)) for script in scripts]


def ports(group):
    return [one.port for one in group]


def heads(*group):
    return sum(len(one.heads) for one in group)


# ---- the sidecar -----------------------------------------------------------------------------------------------------------


class Subject:
    """One process for the tests of a file, with another configuration for each."""

    def __init__(self, workers=1, **options):
        self.sidecar = Sidecar(route("none", respond={"body": "x"}), workers=workers, **options)
        self.base = {}

    def serve(self, *ports, cluster_keys=None, route_name="all", more="", **route_keys):
        # Round-robin, so that no endpoint is left out by chance.
        keys = {"balance": "round-robin", **(cluster_keys or {})}
        name = keys.pop("name", "app")
        body = route(route_name, cluster=name, **route_keys) + cluster(name, *ports, **keys) + more
        code, answer = self.sidecar.reload(body)
        assert code == 200, answer
        self.base = self.counts()
        return self.sidecar

    def counts(self):
        return dict(scrape(self.sidecar).samples)

    def counted(self, name, **labels):
        """How much a counter has grown since serve()."""
        wanted = set(labels.items())
        now = self.counts()

        def total(samples):
            return sum(value for (have, pairs), value in samples.items() if have == name and wanted <= pairs)

        return total(now) - total(self.base)


def calm(sidecar):
    """Every exchange has ended and no gauge has drifted."""
    names = ("outrider_upstream_in_flight", "outrider_upstream_pending", "outrider_concurrency_in_flight",
             "outrider_http_downstream_connections")

    def levels():
        metrics = scrape(sidecar)
        return {name: metrics.sum(name) for name in names if metrics.sum(name) != 0}

    left = {}

    def over():
        nonlocal left
        left = levels()
        return not left

    try:
        wait_until(over, 20)
    except AssertionError:
        raise AssertionError(f"not over: {left}") from None
    for one in sidecar.json("/clusters")["clusters"]:
        assert one["pending"] == 0, one
        assert all(endpoint["in_flight"] == 0 for endpoint in one["endpoints"]), one


def line_of(sidecar, path, patience=5):
    """The access log's line of the only request for this path; flags as a string, also without any."""
    def lines():
        return [line for line in sidecar.access_lines() if line["path"] == path]

    wait_until(lines, patience, f"the log's line of {path}")
    (line,) = lines()
    return {**line, "flags": line["flags"] or ""}


def flags_of(sidecar, path):
    return set(line_of(sidecar, path)["flags"].split(",")) - {""}


def cluster_of(sidecar, name="app"):
    return next(one for one in sidecar.json("/clusters")["clusters"] if one["name"] == name)


def endpoint_of(sidecar, port, name="app"):
    return next(one for one in cluster_of(sidecar, name)["endpoints"] if one["endpoint"] == f"127.0.0.1:{port}")


def wait_for_state(sidecar, port, state, patience=5):
    """The endpoint as /clusters shows it once it is in this state."""
    return wait_until(lambda: (one := endpoint_of(sidecar, port))["state"] == state and one, patience, f"{port} being {state}")


class Waiting:
    """Requests sent on connections of their own, answers read later."""

    def __init__(self, port):
        self.port = port
        self.clients = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in self.clients:
            client.close()

    def send(self, target, method="GET"):
        client = RawClient(self.port)
        self.clients.append(client)
        client.send(f"{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        return client

    @staticmethod
    def answer(client):
        """Its answer; closed at once, so that nobody lingers for it."""
        with client:
            return client.response()


__all__ = ["AMPLE", "Gate", "PerTarget", "Subject", "Turns", "Waiting", "calm", "closes", "cluster_of", "echo", "endpoint_of", "endpoints",
           "flags_of", "heads", "line_of", "ports", "resets", "scrape", "silent", "status", "wait_for_state"]
