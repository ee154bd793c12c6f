"""Limits: what waits, in which order it is released, what is refused and how; rate limits and faults."""
import collections
import signal
import socket
import threading
import time

import pytest

from resilience import (Gate, Subject, Waiting, calm, cluster_of, echo, endpoints, flags_of, heads, line_of, ports, scrape, silent, status,
                        wait_for_state)
from sidecar import Sidecar, ask, cluster, request_bytes, route, wait_until
from wire import RawClient

QUICK = {"path": "/healthz", "interval": "50ms", "timeout": "50ms", "unhealthy_after": 1, "healthy_after": 1}


@pytest.fixture(scope="module")
def subject():
    one = Subject()
    with one.sidecar:
        yield one


@pytest.fixture
def serve(subject):
    def with_limits(*ports, limits=None, **keys):
        cluster_keys = {"limits": limits or {}, **keys.pop("cluster_keys", {})}
        return subject.serve(*ports, cluster_keys=cluster_keys, **keys)

    yield with_limits
    calm(subject.sidecar)


def pending(sidecar):
    return cluster_of(sidecar)["pending"]


def refused(answer, error=b"connection_limit_reached", code=503):
    assert answer.status == code, answer
    assert b"error=" + error in answer.one("proxy-status")
    assert int(answer.one("retry-after")) >= 1
    assert answer.one("content-type") == b"application/problem+json"


# ---- requests and connections ----------------------------------------------------------------------------------------------


def test_max_requests(serve, subject):
    gate = Gate()
    with endpoints(gate) as (a,), Waiting(subject.sidecar.port) as waiting:
        sidecar = serve(a.port, limits={"max_requests": 3})
        held = [waiting.send(f"/in/{number}") for number in range(3)]
        assert a.wait_for(lambda: gate.waiting == 3)
        began = time.monotonic()
        with sidecar.client() as client:
            for number in range(10):
                refused(ask(client, f"/out/{number}"))
        assert time.monotonic() - began < 5
        assert flags_of(sidecar, "/out/0") == {"UO"}
        assert subject.counted("outrider_upstream_overflow_total", limit="requests") == 10
        assert scrape(sidecar).value("outrider_upstream_in_flight", cluster="app") == 3
        gate.open()
        assert [waiting.answer(client).body for client in held] == [b"/in/0", b"/in/1", b"/in/2"]
        wait_until(lambda: sidecar.get().status == 200)
        assert len([r for r in a.heads if r.target.startswith(b"/out")]) == 0


def test_max_requests_holds_for_the_process():
    gate = Gate()
    with endpoints(gate) as (a,):
        with Sidecar(route(cluster="app") + cluster("app", a.port, limits={"max_requests": 4}), workers=2) as sidecar:
            with Waiting(sidecar.port) as waiting:
                clients = []
                for number in range(12):  # one after the other: each is counted before the next
                    clients.append(waiting.send(f"/{number}"))
                    wait_until(lambda: scrape(sidecar).sum("outrider_upstream_in_flight") == min(number + 1, 4))
                wait_until(lambda: scrape(sidecar).sum("outrider_upstream_overflow_total") == 8)
                gate.open()
                codes = collections.Counter(waiting.answer(client).status for client in clients)
                assert codes == {200: 4, 503: 8}
            calm(sidecar)


def test_max_connections_makes_requests_wait_in_order(serve, subject):
    gate = Gate()
    with endpoints(gate) as (a,), Waiting(subject.sidecar.port) as waiting:
        sidecar = serve(a.port, limits={"max_connections": 2})
        clients = []
        for number in range(10):
            clients.append(waiting.send(f"/{number}"))
            wait_until(lambda: len(a.heads) + pending(sidecar) == number + 1)
        assert (len(a.heads), pending(sidecar), len(a.connections)) == (2, 8, 2)
        assert scrape(sidecar).value("outrider_upstream_pending", cluster="app") == 8
        assert subject.counted("outrider_upstream_held_total", cluster="app") == 8
        gate.open()
        assert [waiting.answer(client).body for client in clients] == [b"/%d" % n for n in range(10)]
        order = [int(request.target[1:]) for request in a.heads]
        assert all(number <= place + 1 for place, number in enumerate(order)), f"two at a time, in order: {order}"
        assert len(a.connections) == 2, "never more"
        wait_until(lambda: pending(sidecar) == 0)


def test_one_connection_serves_in_order(serve, subject):
    """Also when the upstream closes it after each answer."""
    gate = Gate(lambda exchange: exchange.reply(body=exchange.request.target, framing="close"))
    with endpoints(gate) as (a,), Waiting(subject.sidecar.port) as waiting:
        sidecar = serve(a.port, limits={"max_connections": 1})
        clients = []
        for number in range(8):
            clients.append(waiting.send(f"/{number}"))
            wait_until(lambda: len(a.heads) + pending(sidecar) == number + 1)
        gate.open()
        assert [waiting.answer(client).body for client in clients] == [b"/%d" % n for n in range(8)]
        assert [request.target for request in a.heads] == [b"/%d" % n for n in range(8)]


def test_a_connection_to_another_endpoint_makes_room(serve):
    """The limit is on all endpoints together: an idle connection to one is closed for the other."""
    with endpoints(echo, echo, echo) as group:
        sidecar = serve(*ports(group), limits={"max_connections": 1})
        with sidecar.client() as client:
            for number in range(12):
                assert ask(client, f"/{number}").body == b"/%d" % number
        assert all(len(one.heads) >= 2 for one in group)
        assert scrape(sidecar).value("outrider_upstream_connections", cluster="app") <= 1


def test_max_pending(serve, subject):
    gate = Gate()
    with endpoints(gate) as (a,), Waiting(subject.sidecar.port) as waiting:
        sidecar = serve(a.port, limits={"max_connections": 1, "max_pending": 3})
        clients = []
        for number in range(4):
            clients.append(waiting.send(f"/{number}"))
            wait_until(lambda: len(a.heads) + pending(sidecar) == number + 1)
        refused(sidecar.get("/overflow"))
        assert flags_of(sidecar, "/overflow") == {"UO"}
        assert line_of(sidecar, "/overflow")["attempts"] == 0
        assert subject.counted("outrider_upstream_overflow_total", limit="pending") == 1
        gate.open()
        assert [waiting.answer(client).body for client in clients] == [b"/%d" % n for n in range(4)]


def test_a_client_that_leaves_the_waiting_list(serve, subject):
    gate = Gate()
    with endpoints(gate) as (a,), Waiting(subject.sidecar.port) as waiting:
        sidecar = serve(a.port, limits={"max_connections": 1})
        clients = []
        for number in range(5):
            clients.append(waiting.send(f"/{number}"))
            wait_until(lambda: len(a.heads) + pending(sidecar) == number + 1)
        clients[1].reset()
        clients[3].reset()
        wait_until(lambda: pending(sidecar) == 2)
        gate.open()
        assert [clients[n].response().body for n in (0, 2, 4)] == [b"/0", b"/2", b"/4"]
        assert [request.target for request in a.heads] == [b"/0", b"/2", b"/4"]


def test_a_body_that_waits(serve, subject):
    """The client is paused, and the body is whole when its turn has come."""
    gate = Gate()
    body = bytes(range(256)) * 8000
    with endpoints(gate) as (a,), Waiting(subject.sidecar.port) as waiting:
        sidecar = serve(a.port, limits={"max_connections": 1})
        first = waiting.send("/first")
        assert a.wait_for(lambda: gate.waiting == 1)
        with sidecar.client() as client:
            client.send_in_background(request_bytes("/body", method="POST", body=body))
            wait_until(lambda: pending(sidecar) == 1)
            gate.open()
            assert client.response().body == body
            assert client.sent()
        assert first.response().status == 200


def test_the_route_timeout_holds_while_waiting(serve, subject):
    gate = Gate()
    with endpoints(gate) as (a,), Waiting(subject.sidecar.port) as waiting:
        sidecar = serve(a.port, limits={"max_connections": 1}, timeout="150ms")
        first = waiting.send("/first")
        assert a.wait_for(lambda: gate.waiting == 1)
        assert sidecar.get("/second").status == 504
        assert first.response().status == 504
        gate.open()
    assert "UT" in flags_of(sidecar, "/second")


def test_a_request_that_waits_for_a_connection_when_the_endpoints_go(serve, subject):
    """It was waiting for a connection; now there is no endpoint to have one to: 503 without hold, not the route's timeout."""
    gate = Gate()
    health = {"now": status(200)}

    def script(exchange):
        if exchange.request.target == b"/healthz":
            health["now"](exchange)
        else:
            gate(exchange)

    with endpoints(script) as (a,), Waiting(subject.sidecar.port) as waiting:
        sidecar = serve(a.port, limits={"max_connections": 1}, cluster_keys={"health": QUICK})
        first = waiting.send("/first")
        assert a.wait_for(lambda: gate.waiting == 1)
        second = waiting.send("/second")
        wait_until(lambda: pending(sidecar) == 1)
        health["now"] = status(500)
        wait_for_state(sidecar, a.port, "unhealthy")
        gate.open()
        assert first.response().status == 200, "what is under way goes on"
        second.wire.patience = 3
        refused(second.response(), b"destination_unavailable")


# ---- hold ------------------------------------------------------------------------------------------------------------------


class Ward:
    """An application with its own health."""

    def __init__(self, well=True):
        self.well = well

    def __call__(self, exchange):
        if exchange.request.target == b"/healthz":
            status(200 if self.well else 500)(exchange)
        else:
            echo(exchange)


@pytest.fixture
def ward(subject):
    with endpoints(Ward(False)) as (a,):
        a.ward = a.script
        yield a


def hold(serve, *ports, time="10s", **limits):
    sidecar = serve(*ports, limits={"hold": time, **limits}, cluster_keys={"health": QUICK})
    for port in ports:
        wait_for_state(sidecar, port, "unhealthy")
    return sidecar


def test_held_requests_go_on_in_order(serve, subject, ward):
    with Waiting(subject.sidecar.port) as waiting:
        sidecar = hold(serve, ward.port, max_connections=1)
        clients = []
        for number in range(10):
            clients.append(waiting.send(f"/{number}"))
            wait_until(lambda: pending(sidecar) == number + 1)
        assert not [r for r in ward.heads if r.target != b"/healthz"]
        assert subject.counted("outrider_upstream_held_total") == 10
        ward.ward.well = True
        assert [waiting.answer(client).body for client in clients] == [b"/%d" % n for n in range(10)]
        order = [r.target for r in ward.heads if r.target != b"/healthz"]
        assert order == [b"/%d" % n for n in range(10)], "one connection shows it"
        assert subject.counted("outrider_upstream_held_total") == 10


def test_hold_ends(serve, subject, ward):
    sidecar = hold(serve, ward.port, time="200ms")
    with sidecar.client() as client:
        began = time.monotonic()
        answer = ask(client, "/expires")
        took = time.monotonic() - began
        refused(answer, b"destination_unavailable")
        assert 0.19 <= took < 0.6, took
        ward.ward.well = True
        wait_for_state(sidecar, ward.port, "healthy")
        assert ask(client, "/after").body == b"/after"
    assert flags_of(sidecar, "/expires") == {"UH"}


def test_hold_ends_while_a_body_waits(serve, ward):
    """The client that still sends hears of it, and nothing is left over."""
    sidecar = hold(serve, ward.port, time="150ms")
    with sidecar.client() as client:
        client.send_in_background(request_bytes("/body", method="PUT", body=b"x" * 3_000_000))
        assert client.response().status == 503
        assert client.sent()


def test_a_client_leaves_while_it_is_held(serve, subject, ward):
    with Waiting(subject.sidecar.port) as waiting:
        sidecar = hold(serve, ward.port)
        clients = [waiting.send(f"/{number}") for number in range(6)]
        wait_until(lambda: pending(sidecar) == 6)
        for number in (0, 3, 5):
            clients[number].reset()
        wait_until(lambda: pending(sidecar) == 3)
        ward.ward.well = True
        assert [clients[n].response().body for n in (1, 2, 4)] == [b"/1", b"/2", b"/4"]
        assert sorted(r.target for r in ward.heads if r.target != b"/healthz") == [b"/1", b"/2", b"/4"]


def test_hold_overflows(serve, subject, ward):
    with Waiting(subject.sidecar.port) as waiting:
        sidecar = hold(serve, ward.port, max_pending=2)
        clients = [waiting.send(f"/{number}") for number in range(2)]
        wait_until(lambda: pending(sidecar) == 2)
        refused(sidecar.get("/over"))
        ward.ward.well = True
        assert all(waiting.answer(client).status == 200 for client in clients)


def test_pipelined_requests_are_held(serve, ward):
    sidecar = hold(serve, ward.port)
    with sidecar.client() as client:
        client.send(b"".join(request_bytes(f"/{number}") for number in range(5)))
        wait_until(lambda: pending(sidecar) == 5)
        ward.ward.well = True
        assert [client.response().body for _ in range(5)] == [b"/%d" % n for n in range(5)]


def test_a_client_with_many_held_requests_leaves(serve, ward):
    sidecar = hold(serve, ward.port)
    client = RawClient(sidecar.port)
    client.send(b"".join(request_bytes(f"/{number}") for number in range(8)))
    wait_until(lambda: pending(sidecar) == 8)
    client.reset()
    wait_until(lambda: pending(sidecar) == 0)
    ward.ward.well = True
    assert wait_for_state(sidecar, ward.port, "healthy")
    assert sidecar.get().status == 200


def test_a_reload_that_brings_an_endpoint_releases(serve, subject, ward):
    with endpoints(echo) as (other,), Waiting(subject.sidecar.port) as waiting:
        sidecar = hold(serve, ward.port)
        clients = [waiting.send(f"/{number}") for number in range(4)]
        wait_until(lambda: pending(sidecar) == 4)
        body = route(cluster="app") + cluster("app", other.port, limits={"hold": "10s"})
        sidecar.body = body
        sidecar.write()
        sidecar.signal(signal.SIGHUP)
        assert [waiting.answer(client).body for client in clients] == [b"/%d" % n for n in range(4)]
        assert len(other.heads) == 4


def test_a_reload_that_takes_the_cluster_away(serve, subject, ward):
    """The requests belong to the old configuration: they end with its hold."""
    with Waiting(subject.sidecar.port) as waiting:
        sidecar = hold(serve, ward.port, time="400ms")
        clients = [waiting.send(f"/{number}") for number in range(4)]
        wait_until(lambda: pending(sidecar) == 4)
        assert sidecar.reload(route(respond={"body": "gone"}))[0] == 200
        assert sidecar.get().body == b"gone"
        assert [waiting.answer(client).status for client in clients] == [503] * 4


def test_a_reload_that_removes_the_checks_releases(serve, subject, ward):
    with Waiting(subject.sidecar.port) as waiting:
        sidecar = hold(serve, ward.port)
        clients = [waiting.send(f"/{number}") for number in range(4)]
        wait_until(lambda: pending(sidecar) == 4)
        assert sidecar.reload(route(cluster="app") + cluster("app", ward.port))[0] == 200
        assert [waiting.answer(client).status for client in clients] == [200] * 4


def test_held_after_an_ejection(subject):
    """All out for a moment: nobody sees it."""
    script = {"now": status(500)}
    with endpoints(*[lambda exchange: script["now"](exchange)] * 2) as group:
        keys = {"outlier": {"consecutive_failures": 1, "ejection": "200ms", "max_ejected_percent": 100}, "limits": {"hold": "5s"}}
        sidecar = subject.serve(*ports(group), cluster_keys=keys)
        assert [sidecar.get(f"/{n}").status for n in range(2)] == [500, 500]
        script["now"] = echo
        began = time.monotonic()
        assert sidecar.get("/held").status == 200
        assert 0.05 < time.monotonic() - began < 5
        calm(sidecar)


def test_held_over_two_workers(ward):
    body = route(cluster="app") + cluster("app", ward.port, health=QUICK, limits={"hold": "10s", "max_pending": 30})
    with Sidecar(body, workers=2) as sidecar, Waiting(sidecar.port) as waiting:
        wait_for_state(sidecar, ward.port, "unhealthy")
        clients = []
        for number in range(30):
            clients.append(waiting.send(f"/{number}"))
            wait_until(lambda: pending(sidecar) == number + 1)
        refused(sidecar.get("/over"))
        ward.ward.well = True
        assert [waiting.answer(client).body for client in clients] == [b"/%d" % n for n in range(30)]
        calm(sidecar)


@pytest.mark.parametrize("returns", [True, False])
def test_sigterm_while_requests_are_held(ward, returns):
    body = route(cluster="app") + cluster("app", ward.port, health=QUICK, limits={"hold": "10s" if returns else "600ms"})
    with Sidecar(body, workers=2, drain={"timeout": "5s"}) as sidecar, Waiting(sidecar.port) as waiting:
        wait_for_state(sidecar, ward.port, "unhealthy")
        clients = [waiting.send(f"/{number}") for number in range(6)]
        wait_until(lambda: pending(sidecar) == 6)
        sidecar.signal(signal.SIGTERM)
        ward.ward.well = returns
        assert [waiting.answer(client).status for client in clients] == [200 if returns else 503] * 6
        assert sidecar.wait(5) == 0


def test_the_drains_end_comes_before_holds(ward):
    body = route(cluster="app") + cluster("app", ward.port, health=QUICK, limits={"hold": "60s"})
    with Sidecar(body, workers=2, drain={"timeout": "300ms"}) as sidecar, Waiting(sidecar.port) as waiting:
        wait_for_state(sidecar, ward.port, "unhealthy")
        for number in range(6):
            waiting.send(f"/{number}")
        wait_until(lambda: pending(sidecar) == 6)
        began = time.monotonic()
        sidecar.signal(signal.SIGTERM)
        assert sidecar.wait(5) == 0
        assert time.monotonic() - began < 3


# ---- rate limits -----------------------------------------------------------------------------------------------------------


def allowed(sidecar, count, **options):
    """How many of them pass; the others are refused as they should be."""
    passed = 0
    with sidecar.client() as client:
        for number in range(count):
            answer = ask(client, f"/{number}", **options)
            if answer.status == 200:
                passed += 1
            else:
                refused(answer, b"http_request_denied", 429)
    return passed


def limited(name, rate_limit, *more):
    return route(name, respond={"body": "x"}, rate_limit=rate_limit) + "".join(more)


def test_rate_limit(subject):
    with endpoints(echo) as (a,):
        sidecar = subject.serve(a.port, route_name="limited", rate_limit={"rate": 0.5, "burst": 5})
        with sidecar.client() as client:
            answers = [ask(client, f"/rate/{number}") for number in range(12)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 7
        refusal = answers[-1]
        refused(refusal, b"http_request_denied", 429)
        assert refusal.one("ratelimit-policy") == b'"default";q=5;w=10'
        assert refusal.one("ratelimit").startswith(b'"default";r=0;t=')
        assert 1 <= int(refusal.one("retry-after")) <= 2
        assert flags_of(sidecar, "/rate/11") == {"RL"}
        assert subject.counted("outrider_rate_limited_total", route="limited") == 7
        assert heads(a) == 5, "the upstream hears nothing of the rest"
        calm(sidecar)


def test_tokens_come_back(subject):
    sidecar = subject.sidecar
    assert sidecar.reload(limited("back", {"rate": 20, "burst": 2}))[0] == 200
    assert allowed(sidecar, 3) == 2
    wait_until(lambda: sidecar.get().status == 200, 2)


def test_one_bucket_for_each_value_of_a_header(subject):
    sidecar = subject.sidecar
    assert sidecar.reload(limited("keyed", {"rate": 0.01, "burst": 3, "key": "header:X-User"}))[0] == 200
    assert allowed(sidecar, 5, fields=[("X-User", "ann")]) == 3
    assert allowed(sidecar, 5, fields=[("X-User", "bob")]) == 3
    assert allowed(sidecar, 5, fields=[("x-user", "ann")]) == 0
    assert allowed(sidecar, 5) == 3, "those without share one"
    assert allowed(sidecar, 5, fields=[("X-User", "")]) == 0, "and so do those with an empty one"


def test_one_bucket_for_each_address(subject):
    sidecar = subject.sidecar
    assert sidecar.reload(limited("source", {"rate": 0.01, "burst": 3, "key": "source"}))[0] == 200
    assert allowed(sidecar, 5, fields=[("X-Forwarded-For", "10.0.0.1")]) == 3
    with socket.socket() as sock:
        sock.bind(("127.0.0.2", 0))
        sock.connect(("127.0.0.1", sidecar.port))
        sock.sendall(request_bytes("/", last=True))
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_keys_above_max_keys_share_a_bucket(subject):
    sidecar = subject.sidecar
    assert sidecar.reload(limited("few", {"rate": 0.01, "burst": 2, "key": "header:X-User", "max_keys": 4}))[0] == 200
    passed = 0
    with sidecar.client() as client:
        for number in range(200):
            passed += ask(client, fields=[("X-User", f"made-up-{number}")]).status == 200
    assert passed <= 4 * 2 + 2


def test_the_rate_holds_for_the_process():
    with Sidecar(limited("shared", {"rate": 0.01, "burst": 20}), workers=2) as sidecar:
        codes = collections.Counter(sidecar.get(f"/{number}").status for number in range(60))  # any worker
        assert codes == {200: 20, 429: 40}
        # An unrelated reload keeps the buckets, another limit does not.
        assert sidecar.reload(limited("shared", {"rate": 0.01, "burst": 20}, route("x", respond={"body": "y"})))[0] == 200
        assert {sidecar.get().status for _ in range(10)} == {429}
        assert sidecar.reload(limited("shared", {"rate": 0.01, "burst": 21}))[0] == 200
        assert sidecar.get().status == 200


def test_the_rate_under_load():
    with Sidecar(limited("load", {"rate": 50, "burst": 10}), workers=2) as sidecar:
        passed = []

        def client():
            while time.monotonic() - began < 0.8:
                passed.append(sidecar.get().status)

        began = time.monotonic()
        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - began
        count = collections.Counter(passed)
        assert 0.7 * (10 + 50 * 0.8) <= count[200] <= 10 + 50 * took + 1, count


def test_a_refused_request_with_a_body(subject):
    with endpoints(echo) as (a,):
        sidecar = subject.serve(a.port, route_name="body", rate_limit={"rate": 0.01, "burst": 1})
        assert sidecar.get().status == 200
        with sidecar.client() as client:
            client.send_in_background(request_bytes("/", method="POST", body=b"x" * 3_000_000))
            assert client.response().status == 429
            assert client.sent()
        calm(sidecar)


# ---- faults ----------------------------------------------------------------------------------------------------------------


def test_delay(subject):
    with endpoints(echo) as (a,):
        sidecar = subject.serve(a.port, fault={"delay": "150ms"})
        began = time.monotonic()
        with sidecar.client() as client:
            assert ask(client, "/delayed", method="PUT", body=b"x" * 500_000).body == b"x" * 500_000
            assert 0.14 <= time.monotonic() - began < 5
        assert flags_of(sidecar, "/delayed") == {"DI"}
        assert subject.counted("outrider_faults_injected_total", kind="delay") == 1
        calm(sidecar)


def test_abort(subject):
    with endpoints(echo) as (a,):
        sidecar = subject.serve(a.port, fault={"abort": 418})
        with sidecar.client() as client:
            for number in range(5):
                answer = ask(client, f"/aborted/{number}")
                assert answer.status == 418
                assert b"error=http_request_denied" in answer.one("proxy-status")
        assert flags_of(sidecar, "/aborted/0") == {"FI"}
        assert heads(a) == 0
        assert subject.counted("outrider_faults_injected_total", kind="abort") == 5
        calm(sidecar)


def test_delay_then_abort(subject):
    with endpoints(echo) as (a,):
        sidecar = subject.serve(a.port, fault={"delay": "100ms", "abort": 503})
        began = time.monotonic()
        assert sidecar.get("/both-faults").status == 503
        assert 0.09 <= time.monotonic() - began < 5
        assert flags_of(sidecar, "/both-faults") == {"DI", "FI"}
        with sidecar.client() as client:  # a body that comes during the delay
            client.send_in_background(request_bytes("/", method="POST", body=b"x" * 3_000_000))
            assert client.response().status == 503
            assert client.sent()
        assert heads(a) == 0
        calm(sidecar)


@pytest.mark.parametrize("percent, least, most", [(0, 0, 0), (100, 400, 400), (25, 60, 145), (0.5, 0, 12)])
def test_percent(subject, percent, least, most):
    with endpoints(echo) as (a,):
        sidecar = subject.serve(a.port, fault={"abort": 503, "percent": percent})
        with sidecar.client() as client:
            hit = sum(ask(client, f"/{number}").status == 503 for number in range(400))
        assert least <= hit <= most  # 100 +- 5 standard deviations


def test_a_client_that_leaves_during_a_delay(subject):
    with endpoints(echo) as (a,):
        sidecar = subject.serve(a.port, fault={"delay": "30s"})
        client = RawClient(sidecar.port)
        client.send(request_bytes("/leaves-delay"))
        wait_until(lambda: subject.counted("outrider_faults_injected_total", kind="delay") == 1)
        client.reset()
        assert flags_of(sidecar, "/leaves-delay") == {"DC", "DI"}
        calm(sidecar)
        assert heads(a) == 0


def test_a_delay_longer_than_the_route_timeout(subject):
    """The time that a fault takes is the exchange's."""
    with endpoints(silent) as (a,):
        sidecar = subject.serve(a.port, fault={"delay": "150ms"}, timeout="50ms")
        began = time.monotonic()
        assert sidecar.get("/too-long").status == 504
        assert time.monotonic() - began < 5
        assert flags_of(sidecar, "/too-long") == {"DI", "UT"}
        calm(sidecar)


def test_drain_during_a_delay():
    with endpoints(echo) as (a,):
        with Sidecar(route(cluster="app", fault={"delay": "300ms"}) + cluster("app", a.port)) as sidecar, sidecar.client() as client:
            client.send(request_bytes("/"))
            wait_until(lambda: scrape(sidecar).sum("outrider_faults_injected_total") == 1)
            sidecar.signal(signal.SIGTERM)
            assert client.response().status == 200
            client.close()
            assert sidecar.wait(5) == 0


# ---- the adaptive limit ----------------------------------------------------------------------------------------------------


def test_a_plain_concurrency_limit(subject):
    """min = max: a limit that measures nothing."""
    gate = Gate()
    with endpoints(gate) as (a,), Waiting(subject.sidecar.port) as waiting:
        sidecar = subject.serve(a.port, route_name="plain", concurrency={"min": 3, "max": 3})
        clients = [waiting.send(f"/in/{number}") for number in range(3)]
        assert a.wait_for(lambda: gate.waiting == 3)
        began = time.monotonic()
        with sidecar.client() as client:
            for number in range(20):
                refused(ask(client, f"/shed/{number}"))
        assert time.monotonic() - began < 5
        assert flags_of(sidecar, "/shed/0") == {"UO"}
        assert subject.counted("outrider_shed_total", route="plain") == 20
        gate.open()
        assert all(waiting.answer(client).status == 200 for client in clients)
        calm(sidecar)
        wait_until(lambda: sidecar.get().status == 200)


@pytest.mark.parametrize("how", ["client leaves", "upstream resets", "timeout", "hold ends"])
def test_the_limit_gets_back_what_it_gave(subject, how):
    def reset(exchange):
        exchange.read_body()
        exchange.connection.reset()

    script = {"client leaves": silent, "upstream resets": reset, "timeout": silent, "hold ends": Ward(False)}[how]
    with endpoints(script) as (a,):
        keys = {"limits": {"hold": "30ms"}, "health": QUICK} if how == "hold ends" else {}
        sidecar = subject.serve(a.port, route_name="gives", timeout="60ms", concurrency={"min": 1, "max": 2}, cluster_keys=keys)
        if how == "hold ends":
            wait_for_state(sidecar, a.port, "unhealthy")
        for number in range(6):
            client = RawClient(sidecar.port)
            client.send(request_bytes(f"/{how.replace(' ', '-')}/{number}"))
            if how == "client leaves":
                assert a.wait_for(lambda: len(a.heads) == number + 1)
                client.reset()
            else:
                assert client.response().status in (502, 503, 504)
                client.close()
            wait_until(lambda: scrape(sidecar).sum("outrider_http_downstream_connections") == 0)
        assert subject.counted("outrider_shed_total") == 0
        calm(sidecar)


def test_a_reload_takes_the_limit_away_and_brings_it_back(subject):
    gate = Gate()
    with endpoints(gate) as (a,), Waiting(subject.sidecar.port) as waiting:
        sidecar = subject.serve(a.port, route_name="on-off", concurrency={"min": 2, "max": 2})
        clients = [waiting.send(f"/{number}") for number in range(2)]
        assert a.wait_for(lambda: gate.waiting == 2)
        subject.serve(a.port, route_name="on-off")
        clients.append(waiting.send("/more"))
        assert a.wait_for(lambda: gate.waiting == 3)
        subject.serve(a.port, route_name="on-off", concurrency={"min": 2, "max": 2})
        gate.open()
        assert all(waiting.answer(client).status == 200 for client in clients)
        calm(sidecar)
        assert [sidecar.get().status for _ in range(4)] == [200] * 4
        calm(sidecar)
