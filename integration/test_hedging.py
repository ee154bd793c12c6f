"""Hedges: a second attempt beside a slow first one, for whom, when, and what becomes of the one that loses."""
import socket
import time

import pytest

from resilience import AMPLE, Gate, Subject, Turns, calm, echo, endpoints, flags_of, heads, line_of, ports, resets, silent, status
from sidecar import ask, request_bytes, wait_until
from wire import RawClient

BUDGET = AMPLE["budget"]


@pytest.fixture(scope="module")
def subject():
    one = Subject()
    with one.sidecar:
        yield one


@pytest.fixture
def serve(subject):
    def with_hedge(*ports, after="50ms", hedge=None, retry=None, **keys):
        # Without retries: the budget is retry's.
        table = {"attempts": 1, "budget": BUDGET} if retry is None else retry
        return subject.serve(*ports, hedge={"after": after, **(hedge or {})}, retry=table, **keys)

    yield with_hedge
    calm(subject.sidecar)


def hedges(subject):
    return (subject.counted("outrider_hedges_total"), subject.counted("outrider_hedges_won_total"))


def closed(group, count):
    """So many connections that the proxy closed."""
    return sum(c.closed_by_proxy.is_set() for one in group for c in one.connections) == count


# ---- who wins --------------------------------------------------------------------------------------------------------------


def test_the_hedge_wins(serve, subject):
    turns = Turns(silent, echo)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group))
        began = time.monotonic()
        answer = sidecar.get("/hedge-wins")
        assert (answer.status, answer.body) == (200, b"/hedge-wins")
        assert time.monotonic() - began < 5
        assert 0.045 <= turns.times[1] - began < 5
        assert [len(one.heads) for one in group] == [1, 1], "at another endpoint"
        assert group[0].wait_for(lambda: closed(group, 1)), "the first attempt's connection is closed"
        assert hedges(subject) == (1, 1)
        line = line_of(sidecar, "/hedge-wins")
        assert (line["attempts"], line["flags"]) == (2, "")
        winner = next(one for one in group if one.requests and not any(c.closed_by_proxy.is_set() for c in one.connections))
        assert line["endpoint"] == f"127.0.0.1:{winner.port}", "the answering endpoint"
        assert subject.counted("outrider_upstream_attempts_total", outcome="discarded") == 1
        assert subject.counted("outrider_upstream_attempts_total", outcome="success") == 1


def test_the_first_wins(serve, subject):
    gate = Gate()
    turns = Turns(gate, silent, echo)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group))
        with sidecar.client() as client:
            client.send(request_bytes("/first-wins"))
            assert group[0].wait_for(lambda: turns.count() == 2)
            gate.open()
            assert client.response().body == b"/first-wins"
            assert group[0].wait_for(lambda: closed(group, 1)), "the hedge's connection is closed"
            assert ask(client, "/next").body == b"/next"
        assert hedges(subject)[1] == 0


def test_a_quick_answer_is_not_hedged(serve, subject):
    with endpoints(echo, echo) as group:
        sidecar = serve(*ports(group), after="5s")
        with sidecar.client() as client:
            for number in range(50):
                assert ask(client, f"/{number}").status == 200
        assert heads(*group) == 50
        assert hedges(subject) == (0, 0)


@pytest.mark.parametrize("form", ["length", "chunked"])
def test_a_body_goes_to_both(serve, form):
    turns = Turns(silent, echo)
    body = bytes(range(256)) * 200
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group))
        with sidecar.client() as client:
            if form == "length":
                client.send(request_bytes("/both", method="PUT", body=body))
            else:
                client.send(b"PUT /both HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body
                            + b"\r\n0\r\nX-Sum: 42\r\n\r\n")
            assert client.response().body == body
        first, second = [one.requests[0] for one in group]
        assert first.body == second.body == body
        assert first.trailers == second.trailers == ([] if form == "length" else [(b"X-Sum", b"42")])


def test_head(serve):
    turns = Turns(silent, echo)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group))
        with sidecar.client() as client:
            assert ask(client, "/head", method="HEAD").status == 200
            assert ask(client, "/after").body == b"/after"


def test_one_endpoint_is_hedged_at_itself(serve, subject):
    turns = Turns(silent, echo)
    with endpoints(turns) as (a,):
        assert serve(a.port).get().status == 200
        assert hedges(subject) == (1, 1)


# ---- who is not hedged -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_never_for_an_unsafe_method(serve, subject, method):
    turns = Turns(silent)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), timeout="300ms")
        assert sidecar.get(f"/{method}", method=method, body=b"pay 10").status == 504
        assert turns.count() == 1
        assert hedges(subject) == (0, 0)


def test_never_for_an_upgrade(serve):
    turns = Turns(silent)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), timeout="300ms")
        assert sidecar.get(fields=[("Upgrade", "websocket"), ("Connection", "Upgrade")]).status == 504
        assert turns.count() == 1


def test_not_while_the_request_is_incomplete(serve, subject):
    turns = Turns(echo)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), after="30ms")
        with sidecar.client() as client:
            client.send(b"PUT /incomplete HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
            assert group[0].wait_for(lambda: turns.count() == 1)
            fences = sidecar.client()
            with fences:  # several times as long as the wait, measured by what the same worker does
                deadline = time.monotonic() + 0.15
                while time.monotonic() < deadline:
                    assert ask(fences, "/fence").status == 200
            client.send(b"67890")
            assert client.response().body == b"1234567890"
        assert sum(request.target == b"/incomplete" for one in group for request in one.heads) == 1
        assert hedges(subject) == (0, 0)


def test_a_body_above_max_body_is_not_hedged(serve, subject):
    gate = Gate()
    turns = Turns(gate, echo)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), timeout="400ms", retry={"max_body": "1KiB", "budget": BUDGET})
        assert sidecar.get("/too-large", method="PUT", body=b"x" * 5000).status == 504
        gate.open()
        assert hedges(subject) == (0, 0)


def test_a_body_above_max_body_while_the_first_connects(serve, subject):
    """The whole body waits for a connection that takes its time; the other attempt must not take it away."""
    with socket.socket() as full, socket.socket() as filler, endpoints(echo) as (quick,):
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        filler.connect(("127.0.0.1", port))
        body = b"x" * 20_000
        sidecar = serve(port, quick.port, after="20ms", retry={**AMPLE, "max_body": "1KiB", "on": ["connect"]},
                        cluster_keys={"connect_timeout": "150ms"})
        for _ in range(4):
            assert sidecar.get(method="PUT", body=body).body == body, "nothing had left: sent again after the connect_timeout"
        assert hedges(subject) == (0, 0)


def test_the_budget_is_shared_with_retries(serve, subject):
    """None left: the slow answer is waited for."""
    gate = Gate()
    with endpoints(gate, gate) as group:
        sidecar = serve(*ports(group), after="20ms", retry={"budget": {"ratio": 0.2, "min_per_second": 0}}, route_name="thrifty")
        clients = [RawClient(sidecar.port) for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(request_bytes(f"/slow/{number}"))
        wait_until(lambda: subject.counted("outrider_retry_budget_exhausted_total") == 16, 20, "the refusals")
        assert hedges(subject)[0] == 4, "0.2 of 20"
        assert heads(*group) <= 24
        gate.open()
        for number, client in enumerate(clients):
            assert client.response().body == b"/slow/%d" % number
            client.close()
        # All decided: neither more nor less.
        assert heads(*group) == 24


def test_no_hedge_beyond_max_requests(serve, subject):
    gate = Gate()
    with endpoints(gate, gate) as group:
        sidecar = serve(*ports(group), after="20ms", cluster_keys={"limits": {"max_requests": 1}})
        with sidecar.client() as client:
            client.send(request_bytes("/alone"))
            assert group[0].wait_for(lambda: heads(*group) == 1)
            wait_until(lambda: sum(sidecar.get("/refused").status == 503 for _ in range(20)) == 20)
            gate.open()
            assert client.response().status == 200
        assert heads(*group) == 1 and hedges(subject)[0] == 0


# ---- failures --------------------------------------------------------------------------------------------------------------


def test_both_fail(serve, subject):
    gate = Gate(resets)
    turns = Turns(gate, resets)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group))
        with sidecar.client() as client:
            client.send(request_bytes("/both-fail"))
            assert group[0].wait_for(lambda: turns.count() == 2)
            gate.open()
            answer = client.response()
        assert answer.status == 502 and b"error=connection_terminated" in answer.one("proxy-status")
        assert "UC" in flags_of(sidecar, "/both-fail")
        assert subject.counted("outrider_upstream_attempts_total", outcome="reset") == 2
        assert hedges(subject) == (1, 0)


@pytest.mark.parametrize("failure", [resets, status(503)], ids=["reset", "503"])
def test_a_failed_hedge_leaves_the_first(serve, failure):
    gate = Gate()
    turns = Turns(gate, failure)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), retry={**AMPLE, "attempts": 2})
        with sidecar.client() as client:
            client.send(request_bytes("/one-fails"))
            assert group[0].wait_for(lambda: turns.count() == 2)
            wait_until(lambda: closed_or_gone(group))
            gate.open()
            assert client.response().body == b"/one-fails"


def closed_or_gone(group):
    """One of the two attempts is over."""
    return sum(c.closed_here or c.closed_by_proxy.is_set() for one in group for c in one.connections) >= 1


@pytest.mark.parametrize("failure", [resets, status(503)], ids=["reset", "503"])
def test_the_first_fails_while_the_hedge_runs(serve, subject, failure):
    first, second = Gate(failure), Gate()
    turns = Turns(first, second)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), retry={**AMPLE, "attempts": 2})
        with sidecar.client() as client:
            client.send(request_bytes("/first-fails"))
            assert group[0].wait_for(lambda: turns.count() == 2)
            first.open()
            wait_until(lambda: closed_or_gone(group))
            second.open()
            assert client.response().body == b"/first-fails"
        assert hedges(subject) == (1, 1)


def test_both_fail_and_are_repeated(serve):
    gate = Gate(status(503))
    turns = Turns(gate, gate, echo)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), retry={**AMPLE, "attempts": 3})
        with sidecar.client() as client:
            client.send(request_bytes("/third"))
            assert group[0].wait_for(lambda: turns.count() == 2)
            gate.open()
            assert client.response().body == b"/third"
        assert turns.count() == 3
        assert line_of(sidecar, "/third")["attempts"] == 3


def test_the_hedge_cannot_connect(serve, subject):
    """One endpoint is slow, the other refuses: whichever the first attempt meets, there is one answer."""
    gate = Gate()
    with endpoints(gate) as (slow,), endpoints(echo) as (gone,):
        port = gone.port
        gone.stop()
        sidecar = serve(slow.port, port, retry={**AMPLE, "on": ["connect"]})
        for number in range(2):
            with sidecar.client() as client:
                client.send(request_bytes(f"/h/{number}"))
                assert slow.wait_for(lambda: len(slow.heads) == number + 1)
                wait_until(lambda: subject.counted("outrider_upstream_attempts_total", outcome="connect_failed") >= 1)
                gate.open()
                assert client.response().status == 200


def test_per_try_timeout_holds_for_each(serve, subject):
    turns = Turns(silent)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), after="30ms", retry={**AMPLE, "attempts": 2, "per_try_timeout": "120ms"})
        began = time.monotonic()
        assert sidecar.get("/per-try").status == 504
        assert 0.14 <= time.monotonic() - began < 5
        assert turns.count() == 2
        assert subject.counted("outrider_upstream_attempts_total", outcome="timeout") == 2


def test_the_route_timeout_ends_both(serve):
    turns = Turns(silent)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), after="30ms", timeout="150ms")
        assert sidecar.get("/both-late").status == 504
        assert turns.count() == 2
        assert group[0].wait_for(lambda: closed(group, 2))


def test_a_client_that_leaves_while_both_run(serve, subject):
    turns = Turns(silent)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group))
        client = RawClient(sidecar.port)
        client.send(request_bytes("/leaves"))
        assert group[0].wait_for(lambda: turns.count() == 2)
        client.reset()
        assert group[0].wait_for(lambda: closed(group, 2))
        assert line_of(sidecar, "/leaves")["flags"] == "DC"
        assert subject.counted("outrider_upstream_attempts_total", outcome="canceled") == 2


def test_pipelined_hedges_keep_their_order(serve):
    slow = {b"/p/%d" % n for n in range(0, 10, 2)}
    seen = set()

    def first_of_a_slow_one_hangs(exchange):
        if exchange.request.target in slow and exchange.request.target not in seen:
            seen.add(exchange.request.target)
            silent(exchange)
        else:
            echo(exchange)

    with endpoints(first_of_a_slow_one_hangs, first_of_a_slow_one_hangs) as group:
        sidecar = serve(*ports(group))
        with sidecar.client() as client:
            client.send(b"".join(request_bytes(f"/p/{n}") for n in range(10)))
            assert [client.response().body for _ in range(10)] == [b"/p/%d" % n for n in range(10)]


# ---- percentiles -----------------------------------------------------------------------------------------------------------


def test_a_percentile_falls_back_until_enough_is_known(serve, subject):
    turns = Turns(silent, echo)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), after="p95", hedge={"fallback": "80ms"}, route_name="percentile")
        began = time.monotonic()
        assert sidecar.get("/fallback").status == 200
        assert turns.times[1] - began >= 0.075
        assert hedges(subject) == (1, 1)
    turns = Turns(echo)
    with endpoints(turns, turns) as group:
        sidecar = serve(*ports(group), after="p95", hedge={"fallback": "30s"}, route_name="percentile")
        with sidecar.client() as client:
            for number in range(60):
                assert ask(client, f"/{number}").status == 200
            turns.scripts = (silent, echo)
            turns.times.clear()
            # With the fallback this would take 30 s.
            assert ask(client, "/percentile").body == b"/percentile"
            assert turns.times[1] - turns.times[0] < 5
