"""Identical requests at the same time share one upstream call: who shares, who does not, and what a slow or lost client changes."""
import contextlib

import pytest

from resilience import Gate, Subject, Turns, calm, echo, endpoints, resets, silent, status
from sidecar import ask, request_bytes, wait_until
from wire import ProtocolError, RawClient, Truncated

MIB = 1 << 20


@pytest.fixture(scope="module")
def subject():
    one = Subject(inbound={"trust_forwarded": True})
    with one.sidecar:
        yield one


@pytest.fixture
def serve(subject):
    def with_collapse(*ports, vary=(), **keys):
        return subject.serve(*ports, collapse={"vary": list(vary)}, **keys)

    yield with_collapse
    calm(subject.sidecar)


def in_flight(sidecar):
    return sidecar.json("/server_info")["in_flight"]


@contextlib.contextmanager
def sent(sidecar, count, target="/same", fields=(), method="GET"):
    """Clients that have each sent the same request, all of which the sidecar has begun."""
    before = in_flight(sidecar)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(sidecar.port, patience=30)) for _ in range(count)]
        for client in clients:
            client.send(request_bytes(target, fields=fields, method=method))
        wait_until(lambda: in_flight(sidecar) == before + count, 20, f"{count} requests in flight")
        yield clients


def answers(clients, method=b"GET"):
    return [client.response(method) for client in clients]


def collapsed(subject):
    return subject.counted("outrider_collapsed_requests_total")


# ---- who shares ------------------------------------------------------------------------------------------------------------


def test_a_thousand_make_one_call(serve, subject):
    gate = Gate()
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 1000) as clients:
            gate.open()
            assert {(one.status, one.body) for one in answers(clients)} == {(200, b"/same")}
        assert len(app.heads) == 1
        assert collapsed(subject) == 999
        assert subject.counted("outrider_upstream_attempts_total", outcome="success") == 1


def test_followers_are_flagged_and_have_their_own_id(serve, subject):
    gate = Gate()
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 3, target="/flags") as clients:
            gate.open()
            assert len({one.one("x-request-id") for one in answers(clients)}) == 3
        lines = wait_until(lambda: [found for found in [[line for line in sidecar.access_lines() if line["path"] == "/flags"]]
                                    if len(found) == 3], 5, "three lines")[0]
        assert sorted((line["flags"] or "", line["attempts"]) for line in lines) == [("", 1), ("CL", 0), ("CL", 0)]


def test_what_differs_does_not_share(serve, subject):
    gate = Gate()
    with endpoints(gate) as (app,):
        sidecar = serve(app.port, vary=["Accept"])
        kinds = [dict(target="/a"), dict(target="/b"), dict(target="/a", fields=[("Accept", "text/html")]),
                 dict(target="/a", fields=[("Authorization", "Bearer 1")]),
                 dict(target="/a", fields=[("Authorization", "Bearer 1")]), dict(target="/a", fields=[("Cookie", "a=1")]),
                 dict(target="/a", fields=[("Cache-Control", "no-cache")]), dict(target="/a", fields=[("Range", "bytes=0-1")]),
                 dict(target="/a", method="HEAD")]
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(sent(sidecar, 1, **kind))[0] for kind in kinds]
            assert app.wait_for(lambda: len(app.heads) == len(kinds))
            gate.open()
            for client, kind in zip(clients, kinds):
                assert client.response(kind.get("method", "GET").encode()).status == 200
        assert collapsed(subject) == 0


def test_equal_credentials_share_when_vary_names_them(serve, subject):
    gate = Gate()
    with endpoints(gate) as (app,):
        sidecar = serve(app.port, vary=["Authorization"])
        with sent(sidecar, 3, fields=[("Authorization", "Bearer 1")]) as mine, \
                sent(sidecar, 2, fields=[("Authorization", "Bearer 2")]) as others:
            gate.open()
            assert all(one.status == 200 for one in answers(mine + others))
        assert len(app.heads) == 2
        assert collapsed(subject) == 3


@pytest.mark.parametrize("fields", [[(b"Cache-Control", b"private")], [(b"Set-Cookie", b"a=1")], [(b"Vary", b"Accept-Encoding")]])
def test_an_answer_that_is_one_clients_own_is_not_shared(serve, subject, fields):
    gate = Gate(status(200, b"mine", fields))
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 5) as clients:
            gate.open()
            assert {one.body for one in answers(clients)} == {b"mine"}
        assert len(app.heads) == 5
        assert collapsed(subject) == 0


def test_an_answer_above_the_bound_is_not_shared(serve, subject):
    body = b"x" * (MIB + 1)
    gate = Gate(status(200, body))
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 3) as clients:
            gate.open()
            assert all(one.body == body for one in answers(clients))
        assert len(app.heads) == 3


def test_who_comes_after_the_head_makes_a_call_of_its_own(serve, subject):
    head, gate = Gate(), Gate()

    def slowly(exchange):
        exchange.read_body()
        assert head.event.wait(20)  # or the second client might come after it
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        assert gate.event.wait(20)
        exchange.send(b"-half")
        exchange.connection.replied = True

    with endpoints(Turns(slowly, echo)) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 2) as clients:
            head.open()
            wait_until(lambda: collapsed(subject) == 1, 20, "the head")
            assert sidecar.get("/same").body == b"/same"
            gate.open()
            assert {one.body for one in answers(clients)} == {b"first-half"}
        assert len(app.heads) == 2


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_framing_and_trailers(serve, framing):
    body = bytes(range(256)) * 400
    trailers = [(b"X-Sum", b"42")] if framing == "chunked" else []

    def answer(exchange):
        exchange.reply(body=body, framing=framing, trailers=trailers, fields=[(b"X-A", b"1"), (b"X-A", b"2")])

    gate = Gate(answer)
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 4) as clients:
            gate.open()
            for one in answers(clients):
                assert (one.body, one.trailers, one.all("x-a")) == (body, trailers, [b"1", b"2"])
        assert len(app.heads) == 1


def test_head_requests(serve):
    gate = Gate()
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 3, method="HEAD") as clients:
            gate.open()
            assert [one.one("content-length") for one in answers(clients, b"HEAD")] == [b"5"] * 3
            assert ask(clients[1], "/after").body == b"/after"
        assert len(app.heads) == 2


@pytest.mark.parametrize("size", [5, 300_000])
def test_several_on_one_connection(serve, subject, size):
    body = b"x" * size
    gate = Gate(status(200, body))
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sidecar.client() as client:
            client.send(request_bytes("/same") * 3)
            wait_until(lambda: in_flight(sidecar) == 3, 10, "three in flight")
            gate.open()
            assert [client.response().body for _ in range(3)] == [body] * 3
            gate.script = echo
            assert ask(client, "/next").body == b"/next"
        assert len(app.heads) == 2
        assert collapsed(subject) == 2


# ---- failures --------------------------------------------------------------------------------------------------------------


def test_a_failing_upstream_is_asked_once(serve, subject):
    gate = Gate(status(503, b"no"))
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 20) as clients:
            gate.open()
            assert {(one.status, one.body) for one in answers(clients)} == {(503, b"no")}
        assert len(app.heads) == 1


def test_a_reset_is_everybodys(serve, subject):
    gate = Gate(resets)
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 20) as clients:
            gate.open()
            assert {one.status for one in answers(clients)} == {502}
        assert len(app.heads) == 1
        assert collapsed(subject) == 19


def test_an_answer_that_breaks_off_is_cut_for_all(serve):
    def cut(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        exchange.connection.close()

    gate = Gate(cut)
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 3) as clients:
            gate.open()
            for client in clients:
                with pytest.raises(Truncated):
                    client.response()
        assert len(app.heads) == 1


def test_the_leaders_own_deadline_is_not_the_others(serve, subject):
    turns = Turns(silent, echo)
    with endpoints(turns) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 1, fields=[("Outrider-Deadline-Ms", "2000")]) as leader, sent(sidecar, 4) as others:
            assert leader[0].response().status == 504
            assert {(one.status, one.body) for one in answers(others)} == {(200, b"/same")}
        assert len(app.heads) == 2, "the first of the others leads the rest"
        assert collapsed(subject) == 3


def test_a_followers_own_deadline(serve, subject):
    gate = Gate()
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 2) as clients, sent(sidecar, 1, target="/same", fields=[("Outrider-Deadline-Ms", "2000")]) as hasty:
            assert hasty[0].response().status == 504
            gate.open()
            assert {one.status for one in answers(clients)} == {200}
        assert len(app.heads) == 1


# ---- clients that go, or read slowly ---------------------------------------------------------------------------------------


def test_the_leaders_client_goes(serve, subject):
    gate = Gate()
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 1) as leader, sent(sidecar, 3) as others:
            leader[0].reset()
            wait_until(lambda: subject.sidecar.json("/server_info")["connections"] == 3, 20, "its end")
            gate.open()
            assert {(one.status, one.body) for one in answers(others)} == {(200, b"/same")}
        assert len(app.heads) == 1
        assert not app.connections[0].closed_by_proxy.is_set()
        assert collapsed(subject) == 3
        wait_until(lambda: in_flight(sidecar) == 0, 20, "the end")


def test_all_clients_go(serve):
    with endpoints(silent) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 1) as leader, sent(sidecar, 3) as others:
            assert app.wait_for(lambda: app.requests)
            leader[0].reset()
            for client in others:
                assert not app.connections[0].closed_by_proxy.is_set()
                client.reset()
            assert app.connections[0].closed_by_proxy.wait(10), "nobody wants the answer: the call is given up"
        wait_until(lambda: in_flight(sidecar) == 0, 20, "the end")


def narrow(sidecar, target="/same"):
    """A client that takes little of its answer until it is read from."""
    client = RawClient(sidecar.port, patience=30, receive_buffer=4096)
    client.send(request_bytes(target))
    return client


@pytest.mark.parametrize("slow", ["leader", "follower"])
def test_a_slow_reader_gets_a_bounded_answer_whole_and_slows_nobody(serve, subject, slow):
    body = bytes(range(256)) * (MIB // 256)
    gate = Gate(status(200, body))
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with contextlib.ExitStack() as stack:
            clients = []
            for number in range(3):
                is_slow = number == (0 if slow == "leader" else 1)
                client = stack.enter_context(narrow(sidecar) if is_slow else RawClient(sidecar.port, patience=30))
                if not is_slow:
                    client.send(request_bytes("/same"))
                clients.append(client)
                wait_until(lambda: in_flight(sidecar) == number + 1, 20, "it is in flight")
            lagging = clients.pop(0 if slow == "leader" else 1)
            gate.open()
            assert all(one.body == body for one in answers(clients)), "while the slow one reads nothing"
            assert lagging.response().body == body
        assert len(app.heads) == 1


@pytest.mark.parametrize("slow", ["leader", "follower"])
def test_a_slow_reader_of_an_endless_answer_is_cut_and_slows_nobody(serve, slow):
    body = b"0123456789abcdef" * (16 * MIB // 16)

    def answer(exchange):
        exchange.reply(body=body, framing="chunked")

    gate = Gate(answer)
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(narrow(sidecar) if slow == "leader" else RawClient(sidecar.port, patience=30))
            if slow != "leader":
                first.send(request_bytes("/same"))
            wait_until(lambda: in_flight(sidecar) == 1, 20, "the leader")
            second = stack.enter_context(narrow(sidecar) if slow != "leader" else RawClient(sidecar.port, patience=30))
            if slow == "leader":
                second.send(request_bytes("/same"))
            wait_until(lambda: in_flight(sidecar) == 2, 20, "the follower")
            gate.open()
            quick, lagging = (second, first) if slow == "leader" else (first, second)
            assert quick.response().body == body
            with pytest.raises(ProtocolError):
                lagging.response()
        assert len(app.heads) == 1
        wait_until(lambda: in_flight(sidecar) == 0, 20, "the end")


# ---- the process -----------------------------------------------------------------------------------------------------------


def test_a_reload_lets_groups_go_on(serve, subject):
    gate = Gate()
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        with sent(sidecar, 3) as before:
            serve(app.port, vary=["Accept"])
            with sent(sidecar, 2) as after:
                gate.open()
                assert {one.body for one in answers(before + after)} == {b"/same"}
        assert len(app.heads) == 2, "keys of other fields are not comparable"


def test_each_worker_makes_a_call_at_most():
    own = Subject(workers=3)
    gate = Gate()
    with endpoints(gate) as (app,), own.sidecar:
        sidecar = own.serve(app.port, collapse={})
        with sent(sidecar, 90) as clients:
            gate.open()
            assert {one.body for one in answers(clients)} == {b"/same"}
        assert 1 <= len(app.heads) <= 3
        assert collapsed(own) == 90 - len(app.heads)
        calm(sidecar)


def test_a_process_that_is_stopped_meanwhile():
    """A leader without its client ends with the process."""
    own = Subject(drain={"timeout": "100ms"})
    with endpoints(silent) as (app,), own.sidecar:
        sidecar = own.serve(app.port, collapse={})
        with sent(sidecar, 1) as leader, sent(sidecar, 2):
            assert app.wait_for(lambda: app.requests)
            leader[0].reset()
            wait_until(lambda: sidecar.json("/server_info")["connections"] == 2, 20, "its end")
            sidecar.stop()
