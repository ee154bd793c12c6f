"""Requests and answers under an idempotency key in every shape that HTTP/1.1 gives them, and clients that leave."""
import pytest

from keyed import (KINDS, KeyedSubject, StoreKind, assert_replay, fresh_key, look, post, post_bytes, posted, problem_of, state_of,
                   waiting)
from resilience import Gate, calm, echo, endpoints, heads
from sidecar import wait_until
from wire import RawClient, Truncated, chunked


@pytest.fixture(scope="module", params=KINDS)
def process(request):
    with StoreKind(request.param) as store:
        subject = KeyedSubject(store).start()
        yield subject
        subject.sidecar.stop()


@pytest.fixture
def subject(process):
    yield process
    assert process.sidecar.alive(), process.sidecar.log()
    calm(process.sidecar)


def chunked_bytes(key, body, rng=None, target="/pay", fields=b"", trailers=()):
    return (b"POST %s HTTP/1.1\r\nHost: test\r\nIdempotency-Key: %s\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n%s\r\n"
            % (target.encode(), key.encode(), fields) + chunked(body, rng, trailers))


# ---- requests --------------------------------------------------------------------------------------------------------------


def test_how_a_body_is_framed_does_not_matter(subject, rng):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port)
        key, body = fresh_key(), bytes(range(256)) * 100
        with RawClient(sidecar.port, rng=rng) as client:
            first = client.request(chunked_bytes(key, body, rng))
        assert (first.status, first.body) == (200, body)
        with sidecar_client(sidecar) as client:
            assert_replay(client.request(chunked_bytes(key, body)), first)
        assert_replay(post(sidecar, key, body=body), first)
        assert post(sidecar, key, body=body[:-1]).status == 422
        assert heads(app) == 1


def sidecar_client(sidecar, **options):
    return RawClient(sidecar.port, **options)


def test_trailers_of_a_request_reach_the_application(subject):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port)
        with sidecar_client(sidecar) as client:
            answer = client.request(chunked_bytes(fresh_key(), b"body", trailers=[(b"X-Sum", b"7")]))
        assert answer.status == 200
        assert app.requests[0].trailers == [(b"X-Sum", b"7")]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_above_max_request(subject, framing):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port, idempotency={"max_request": "1000B"})
        for size, good in ((1000, True), (1001, False)):
            key, body = fresh_key(), b"x" * size
            with sidecar_client(sidecar) as client:
                answer = client.request(chunked_bytes(key, body) if framing == "chunked" else post_bytes(key, body=body))
                if good:
                    assert (answer.status, answer.body) == (200, body)
                    continue
                problem_of(answer, 413, "too-large")
                assert answer.closes
                client.assert_closed()
            assert state_of(sidecar, key) == "absent"
        assert heads(app) == 1
        subject.wait_for_outcomes(first=1, too_large=1)
        assert post(sidecar, body=b"x" * 5000).status == 200, "without a key the bound is not theirs"


def test_a_length_above_max_request_is_refused_before_the_body(subject):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port, idempotency={"max_request": "1000B"})
        with sidecar_client(sidecar) as client:
            answer = client.request(b"POST /pay HTTP/1.1\r\nHost: t\r\nIdempotency-Key: %s\r\nExpect: 100-continue\r\n"
                                    b"Content-Length: 1001\r\n\r\n" % fresh_key().encode())
            problem_of(answer, 413, "too-large")
            assert answer.interim == []


def test_expect_100_continue(subject):
    """The body is needed before anybody can be asked: outrider asks for it, whatever the application would have said."""
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        for attempt in range(2):
            with sidecar_client(sidecar) as client:
                client.send(b"POST /pay HTTP/1.1\r\nHost: test\r\nIdempotency-Key: %s\r\nExpect: 100-continue\r\n"
                            b"Content-Length: 8\r\n\r\n" % key.encode())
                assert client.wire.response_head().status == 100
                assert heads(app) == attempt, "nothing of it has left before the body is here"
                client.send(b"amount=1")
                answer = client.response(b"POST")
                if attempt == 0:
                    first = answer
                    assert (first.status, first.body) == (200, b"amount=1")
                else:
                    assert_replay(answer, first)
        (sent,) = app.requests
        assert not sent.all("expect"), "it has been met"


def test_http_10(subject):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        answers = []
        for _ in range(2):
            with sidecar_client(sidecar) as client:
                answers.append(client.request(b"POST /pay HTTP/1.0\r\nHost: test\r\nIdempotency-Key: %s\r\nContent-Length: 8\r\n\r\namount=1"
                                              % key.encode()))
                client.assert_closed()
        assert answers[0].body == b"amount=1"
        assert_replay(answers[1], answers[0])
        assert_replay(post(sidecar, key), answers[0])
        assert heads(app) == 1


def test_requests_that_are_pipelined(subject):
    """Duplicates on the connection of the first one: they wait for it, and nothing waits for ever."""
    gate = Gate(echo)
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port)
        a, b = fresh_key(), fresh_key()
        with sidecar_client(sidecar) as client:
            client.send(post_bytes(a, body=b"a") + post_bytes(a, body=b"a") + post_bytes(b, body=b"b") + post_bytes(a, body=b"else")
                        + post_bytes(body=b"none") + post_bytes(b, body=b"b") + post_bytes(a, body=b"a", last=True))
            wait_until(lambda: gate.waiting >= 1)
            gate.open()
            answers = [client.response(b"POST") for _ in range(7)]
            client.assert_closed()
        assert [answer.status for answer in answers] == [200, 200, 200, 422, 200, 200, 200]
        assert [answer.body for answer in answers if answer.status == 200] == [b"a", b"a", b"b", b"none", b"b", b"a"]
        assert_replay(answers[1], answers[0])
        assert_replay(answers[5], answers[2])
        assert [len(answer.all("idempotent-replayed")) for answer in answers] == [0, 1, 0, 0, 0, 1, 1]
        assert sorted(request.body for request in app.requests) == [b"a", b"b", b"none"]


def test_a_connection_goes_on_after_refusals(subject):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port, idempotency={"require": True})
        key = fresh_key()
        with sidecar_client(sidecar) as client:
            assert client.request(post_bytes(None, body=None)).status == 400
            assert client.request(post_bytes("not one", body=None)).status == 400
            assert client.request(post_bytes(key)).status == 200
            assert client.request(post_bytes(key, body=b"else")).status == 422
            assert client.request(post_bytes(key)).one("idempotent-replayed") == b"true"
        assert heads(app) == 1
        # What is refused before its body has been read ends its connection, and says so.
        with sidecar_client(sidecar) as client:
            assert client.request(post_bytes(None)).closes
            client.assert_closed()


def test_an_upgrade_has_no_key(subject):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port, idempotency={"methods": ["GET", "POST"]})
        with sidecar_client(sidecar) as client:
            answer = client.request(b"GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                    b"Idempotency-Key: %s\r\n\r\n" % fresh_key().encode())
            problem_of(answer, 400, "malformed")
        assert heads(app) == 0


# ---- answers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_how_an_answer_is_framed_does_not_matter(subject, framing):
    body = bytes(range(256)) * 64

    def answer(exchange):
        exchange.read_body()
        exchange.reply(status=201, body=body, framing=framing, fields=[(b"X-App", b"1")])

    with endpoints(answer) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        first = post(sidecar, key)
        assert (first.status, first.body, first.framing) == (201, body, "length"), "it is whole before it is sent"
        assert_replay(post(sidecar, key), first)
        with sidecar_client(sidecar) as client:
            assert client.request(post_bytes(key)).body == body
            assert client.request(post_bytes(key)).body == body, "the connection is kept"
        assert heads(app) == 1


def test_trailers_of_a_recorded_answer_are_not_kept(subject):
    def answer(exchange):
        exchange.read_body()
        exchange.reply(body=b"x" * 50, framing="chunked", fields=[(b"Trailer", b"X-Sum")], trailers=[(b"X-Sum", b"7")])

    with endpoints(answer) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        first = post(sidecar, key)
        assert (first.body, first.all("trailer"), first.trailers) == (b"x" * 50, [], [])
        assert_replay(post(sidecar, key), first)


@pytest.mark.parametrize("code", [204, 304])
def test_answers_without_a_body(subject, code):
    def answer(exchange):
        exchange.read_body()
        exchange.reply(status=code, framing="none", fields=[(b"ETag", b'"1"')])

    with endpoints(answer) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        with sidecar_client(sidecar) as client:
            first = client.request(post_bytes(key))
            assert first.status == code
            assert_replay(client.request(post_bytes(key)), first)
            assert client.request(post_bytes(key, last=True)).status == code
            client.assert_closed()
        assert heads(app) == 1


def test_head_keeps_the_length_it_was_told(subject):
    def answer(exchange):
        exchange.read_body()
        exchange.reply(body=b"x" * 77)

    with endpoints(answer) as (app,):
        sidecar = subject.serve(app.port, idempotency={"methods": ["HEAD", "POST"]})
        key = fresh_key()
        with sidecar_client(sidecar) as client:
            first = client.request(post_bytes(key, method="HEAD", body=None))
            assert (first.status, first.one("content-length"), first.body) == (200, b"77", b"")
            assert_replay(client.request(post_bytes(key, method="HEAD", body=None)), first)
            assert client.request(post_bytes(key, last=True)).status == 422, "GET's and HEAD's requests are not POST's"
        assert heads(app) == 1


def test_interim_answers_are_passed_on_and_not_recorded(subject):
    def answer(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        exchange.reply(body=b"final")

    with endpoints(answer) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        first = post(sidecar, key)
        assert ([interim.status for interim in first.interim], first.body) == ([103], b"final")
        again = post(sidecar, key)
        assert again.interim == []
        assert_replay(again, first)


def sized(exchange):
    """As many bytes as the target says; in chunks when it ends so."""
    exchange.read_body()
    _, size, framing = exchange.request.target.split(b"/")
    exchange.reply(status=201, body=b"0123456789abcdef" * (int(size) // 16) + b"x" * (int(size) % 16), framing=framing.decode())


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_answers_at_and_above_max_response(subject, framing):
    limit = 4000
    with endpoints(sized) as (app,):
        sidecar = subject.serve(app.port, idempotency={"max_response": f"{limit}B"})
        key = fresh_key()
        post(sidecar, key, f"/1/{framing}")
        head = look(sidecar, key)["answer_bytes"] - 1  # what is recorded beside the body
        # A length has more digits.
        sizes = {size: look_of(sidecar, size, framing) for size in range(limit - head - 6, limit - head + 4)}
        at = max(size for size, seen in sizes.items() if seen["replayable"])
        assert sizes[at]["answer_bytes"] == limit
        assert not any(seen["replayable"] for size, seen in sizes.items() if size > at)
        key, target = fresh_key(), f"/{at + 1}/{framing}"
        first = post(sidecar, key, target)
        assert (first.status, len(first.body)) == (201, at + 1), "the first client gets it whole"
        problem = problem_of(post(sidecar, key, target), 409, "done")
        assert "was done with status 201" in problem["detail"]
        assert look(sidecar, key)["status"] == 201


def look_of(sidecar, size, framing):
    key = fresh_key()
    answer = post(sidecar, key, f"/{size}/{framing}")
    assert (answer.status, len(answer.body)) == (201, size)
    return look(sidecar, key)


def test_a_large_answer_is_streamed_but_not_ended_before_it_is_recorded(subject):
    """The first bytes come while the application is still at it; who has the last byte can rely on the record."""
    size = 1 << 20
    gate = Gate()

    def answer(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * (size - 1))
        gate.script = lambda exchange: exchange.send(b"y")
        gate(exchange)

    with endpoints(answer) as (app,):
        sidecar = subject.serve(app.port, idempotency={"max_response": "1KiB", "in_flight": "conflict"})
        key = fresh_key()
        with posted(sidecar, key) as client:
            head = client.wire.response_head()
            assert head.status == 200
            wait_until(lambda: gate.waiting == 1)
            problem_of(post(sidecar, key), 409, "in-flight")
            gate.open()
            body = client.wire.body_of(head, close_delimited=False).body
        assert body == b"x" * (size - 1) + b"y"
        problem_of(post(sidecar, key), 409, "done")
        assert heads(app) == 1


def test_a_large_answer_that_breaks_off_is_seen_to(subject):
    def answer(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50000)
        exchange.connection.close()

    with endpoints(answer) as (app,):
        sidecar = subject.serve(app.port, idempotency={"max_response": "1KiB"})
        key = fresh_key()
        with pytest.raises(Truncated):
            post(sidecar, key)
        wait_until(lambda: state_of(sidecar, key) == "unknown")
        problem_of(post(sidecar, key), 409, "unknown")
        assert heads(app) == 1


def test_max_response_0_keeps_no_answer(subject):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port, idempotency={"max_response": "0B"})
        key = fresh_key()
        assert post(sidecar, key).body == b"amount=1"
        problem_of(post(sidecar, key), 409, "done")
        assert heads(app) == 1


# ---- clients that leave ----------------------------------------------------------------------------------------------------


def downstream(subject):
    return subject.counts()[("outrider_http_downstream_connections", frozenset({("listener", "inbound")}))]


@pytest.mark.parametrize("leaves", ["close", "reset"])
def test_a_client_that_leaves_changes_nothing(subject, leaves):
    gate = Gate(echo)
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        target = "/" + key
        client = RawClient(sidecar.port)
        client.send(post_bytes(key, target))
        wait_until(lambda: gate.waiting == 1)
        getattr(client, leaves)()
        if leaves == "reset":  # a FIN alone may be a client that only has no more to send
            wait_until(lambda: downstream(subject) == 0, 10, "the notice of the client's end")
        assert state_of(sidecar, key) == "in_flight"
        with posted(sidecar, key, target) as second:
            wait_until(lambda: waiting(sidecar) == 1)
            gate.open()
            answer = second.response()
        assert (answer.status, answer.body, answer.one("idempotent-replayed")) == (200, b"amount=1", b"true")
        third = post(sidecar, key, target)
        assert (third.status, third.body) == (200, b"amount=1")
        assert heads(app) == 1
        subject.wait_for_outcomes(first=1, waited=1, replayed=1)
        wait_until(lambda: downstream(subject) == 0)
        if leaves == "reset":
            (first,) = wait_until(lambda: [line for line in sidecar.access_lines()
                                           if line["path"] == target and line["idempotency"] == "first"], 5, "the log's line")
            assert (first["flags"], first["attempts"], first["client"]) == ("DC", 1, "127.0.0.1")


def test_a_client_that_leaves_during_a_large_answer(subject):
    gate = Gate()

    def answer(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 30000)
        gate.script = lambda exchange: exchange.send(b"x" * 30000)
        gate(exchange)

    with endpoints(answer) as (app,):
        sidecar = subject.serve(app.port, idempotency={"max_response": "1KiB"})
        key = fresh_key()
        client = RawClient(sidecar.port)
        client.send(post_bytes(key))
        assert client.wire.response_head().status == 200
        wait_until(lambda: gate.waiting == 1)
        client.reset()
        gate.open()
        wait_until(lambda: state_of(sidecar, key) == "done")
        problem_of(post(sidecar, key), 409, "done")
        assert heads(app) == 1


def test_a_client_that_leaves_in_its_body_has_left_no_key(subject):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        client = RawClient(sidecar.port)
        client.send(post_bytes(key, body=b"x" * 100)[:-50])
        wait_until(lambda: downstream(subject) == 1)
        client.reset()
        wait_until(lambda: downstream(subject) == 0)
        assert state_of(sidecar, key) == "absent"
        assert heads(app) == 0
        assert post(sidecar, key, body=b"y").body == b"y"
