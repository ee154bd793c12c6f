"""Bodies of every framing, both ways, compared byte for byte while both ends cut their bytes at random; connections that
are kept and pipelined; and the fields a proxy removes, rewrites and adds."""
import hashlib
import json
import random
import re
import threading
import time

import pytest

from harness import Bench
from upstream import answer_ok
from wire import chunked

HOST = b"Host: a.example\r\n"
SIZES = [0, 1, 2, 15, 16, 17, 255, 256, 1000, 4095, 4096, 4097, 16384, 65535, 65536, 65537, 131072, 131073, 307200]


def random_bytes(rng, size):
    return rng.randbytes(size)


def request_bytes(rng, target, body, framing, trailers=(), fields=b"", method=b"POST", version=b"HTTP/1.1"):
    head = b"%s %s %s\r\n" % (method, target, version) + HOST + fields
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if framing == "chunked":
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, rng, trailers)
    return head + b"\r\n"


class Echo:
    """Answers each target with the body and framing that was planned for it, cut at random."""

    def __init__(self, rng):
        self.rng = rng
        self.plans = {}

    def plan(self, target, body, framing, trailers=(), fields=()):
        self.plans[target] = (body, framing, trailers, fields)

    def __call__(self, exchange):
        exchange.read_body()
        plan = self.plans.get(exchange.request.target)
        if plan is None:
            exchange.reply(body=exchange.request.target)
            return
        body, framing, trailers, fields = plan
        exchange.reply(body=body, framing=framing, trailers=trailers, fields=fields, rng=self.rng)


@pytest.mark.parametrize("there", ["length", "chunked"])
@pytest.mark.parametrize("back", ["length", "chunked", "close"])
def test_every_size_both_ways(bench, rng, there, back):
    """One kept connection, all sizes in random order, random cuts."""
    echo = bench.upstream.script = Echo(rng)
    sizes = SIZES + [rng.randint(0, 307200) for _ in range(5)]
    rng.shuffle(sizes)
    with bench.proxy.client(rng=rng) as client:
        for number, size in enumerate(sizes):
            target = b"/%d" % number
            sent, answer = random_bytes(rng, size), random_bytes(rng, rng.choice(sizes))
            echo.plan(target, answer, back)
            client.send_in_background(request_bytes(rng, target, sent, there))
            response = client.response()
            assert response.status == 200, (response.status, response.body[:200])
            assert response.body == answer, f"the answer of {len(answer)} bytes came as {len(response.body)} others"
            received = bench.upstream.requests[-1]
            assert received.target == target and received.body == sent
            assert client.sent()
    assert not bench.upstream.errors, bench.upstream.errors


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [1, 256, 257, 300, 4096, 60000])
def test_body_that_comes_with_its_head_waits_for_a_new_upstream_connection(bench, rng, size, framing):
    """Head and body in one piece while the upstream is still being connected: held, then sent as it was."""
    def script(exchange):
        exchange.read_body()
        exchange.reply(fields=[(b"Connection", b"close")])
        exchange.connection.close()

    bench.upstream.script = script
    body = bytes(rng.randrange(1, 256) for _ in range(size))
    with bench.proxy.client() as client:
        for _ in range(3):
            assert client.request(request_bytes(rng, b"/new", body, framing)).status == 200
            received = bench.upstream.requests[-1].body
            assert received == body, f"first difference at {next(i for i in range(size) if received[i:i+1] != body[i:i+1])}"


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"PUT", b"PATCH", b"OPTIONS"])
def test_no_body_stays_no_body(bench, rng, method):
    with bench.proxy.client(rng=rng) as client:
        for number in range(5):
            target = b"/%d" % number
            assert client.request(request_bytes(rng, target, b"", "none", method=method)).body == target
            received = bench.upstream.requests[-1]
            assert received.body == b"" and received.framing in ("none", "length")
            if method in (b"GET", b"DELETE", b"OPTIONS"):
                assert received.framing == "none"


def test_trailers_pass_both_ways(bench, rng):
    echo = bench.upstream.script = Echo(rng)
    trailers = [(b"X-Checksum", b"abc"), (b"X-Empty", b""), (b"Server-Timing", b"a;dur=1"), (b"x-checksum", b"again")]
    echo.plan(b"/trailers", b"answer" * 1000, "chunked", trailers, [(b"Trailer", b"X-Checksum")])
    with bench.proxy.client(rng=rng) as client:
        response = client.request(request_bytes(rng, b"/trailers", b"sent" * 1000, "chunked", trailers,
                                                b"TE: trailers\r\nConnection: TE\r\n"))
        assert response.body == b"answer" * 1000
        assert response.trailers == trailers
        received = bench.upstream.requests[-1]
        assert received.body == b"sent" * 1000 and received.trailers == trailers
        assert client.request(b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n").body == b"/next"


def test_chunk_extensions_are_not_relayed(bench, rng):
    """The strict parser at the upstream refuses them; here the answer's side and many chunks."""
    def script(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3;a=b\r\nabc\r\n" * 100 + b"0;z\r\n\r\n")

    bench.upstream.script = script
    with bench.proxy.client() as client:
        response = client.request(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
                                  + b"64;q=\"x\"\r\n" + b"y" * 100 + b"\r\n0\r\n\r\n")
        assert response.body == b"abc" * 100
    assert bench.upstream.requests[-1].body == b"y" * 100


LARGE = 16 << 20


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_sixteen_mebibytes_stream_both_ways(bench, rng, framing):
    """The upstream sends back what it reads while it reads: it only ends if both directions stream at once."""
    body = rng.randbytes(1 << 20) * 16
    digest = hashlib.sha256()

    def script(exchange):
        wire = exchange.connection.wire
        wire.received = None
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        if framing == "length":
            left = LARGE
            while left:
                if not wire.buffer:
                    assert wire.fill()
                piece = bytes(wire.buffer[:left])
                del wire.buffer[:len(piece)]
                digest.update(piece)
                left -= len(piece)
                exchange.send(piece)
        else:
            while size := int(wire.line(), 16):
                piece = wire.exactly(size)
                assert wire.exactly(2) == b"\r\n"
                digest.update(piece)
                exchange.send(piece)
            assert wire.line() == b""
        exchange.request.complete = True

    bench.upstream.script = script
    with bench.proxy.client(patience=60) as client:
        client.send_in_background(request_bytes(rng, b"/large", body, framing))
        response = client.response()
        assert response.status == 200
        assert response.body == body
        assert client.sent(10)
    assert digest.digest() == hashlib.sha256(body).digest()


def test_slow_reader_holds_the_upstream_back(bench):
    """A long body towards a client that does not read: the upstream is stopped when the kernel's buffers are full."""
    # What four sockets may hold in the kernel at the most, and 2 MiB for outrider.
    most = [int(open(f"/proc/sys/net/ipv4/tcp_{kind}").read().split()[2]) for kind in ("rmem", "wmem", "wmem")]
    held_max = sum(most) + (2 << 20)
    body = 2 * held_max
    done = threading.Event()
    sent = []

    def script(exchange):
        exchange.read_body()
        if exchange.request.target != b"/case":
            return exchange.reply(body=exchange.request.target)
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % body)
        exchange.connection.sock.settimeout(2)
        block = b"x" * 65536
        try:
            while sum(sent) < body:
                exchange.send(block)
                sent.append(len(block))
        except OSError:
            pass
        done.set()
        exchange.connection.reset()

    bench.upstream.script = script
    with bench.proxy.client(receive_buffer=65536) as client:
        client.send(b"GET /case HTTP/1.1\r\n" + HOST + b"\r\n")
        assert done.wait(30)
        assert sum(sent) < held_max, f"{sum(sent)} bytes were taken for a client that reads nothing"
    bench.fence()


def test_slow_upstream_holds_the_client_back(bench):
    go = threading.Event()

    def script(exchange):
        if exchange.request.target == b"/case":
            go.wait(30)
            exchange.connection.reset()
        else:
            answer_ok(exchange)

    bench.upstream.script = script
    with bench.proxy.client() as client:
        client.send(b"POST /case HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % (64 << 20))
        client.sock.settimeout(2)
        taken = 0
        block = b"x" * 65536
        try:
            for _ in range(1024):
                client.sock.sendall(block)
                taken += len(block)
        except OSError:
            pass
        assert taken < 32 << 20, f"{taken} bytes were taken for an upstream that reads nothing"
        go.set()
    bench.fence()


def test_stream_arrives_as_it_is_made(bench):
    """Each event reaches the client before the next is made (server-sent events)."""
    read = [threading.Event() for _ in range(5)]

    def script(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            exchange.send(b"9\r\ndata: %d\n\n\r\n" % number)
            assert read[number].wait(10)
        exchange.send(b"0\r\n\r\n")

    bench.upstream.script = script
    with bench.proxy.client() as client:
        client.send(b"GET /events HTTP/1.1\r\n" + HOST + b"\r\n")
        for number in range(5):
            while b"data: %d\n\n" % number not in client.wire.buffer:
                assert client.wire.fill()
            read[number].set()
        assert client.response().body == b"".join(b"data: %d\n\n" % n for n in range(5))


# --- kept and pipelined connections ----------------------------------------------------------------------------------

def mixed(rng, count):
    """Requests of every kind with what must come back: (bytes, method, target, body sent, answer, framing of it)."""
    for number in range(count):
        method = rng.choice([b"GET", b"GET", b"HEAD", b"POST", b"POST", b"PUT", b"DELETE", b"OPTIONS"])
        target = b"/%d" % number
        there = rng.choice(["length", "chunked"]) if method in (b"POST", b"PUT") else "none"
        body = rng.randbytes(rng.choice([0, 1, 100, 5000, 70000])) if there != "none" else b""
        answer = rng.randbytes(rng.choice([0, 1, 100, 5000, 70000]))
        back = rng.choice(["length", "chunked", "length", "close"] if method != b"HEAD" else ["length", "chunked"])
        yield request_bytes(rng, target, body, there, method=method), method, target, body, answer, back


def test_kept_connection_with_a_hundred_mixed_requests(bench, rng):
    echo = bench.upstream.script = Echo(rng)
    with bench.proxy.client(rng=rng) as client:
        for raw, method, target, body, answer, back in mixed(rng, 100):
            echo.plan(target, answer, back)
            client.send_in_background(raw)
            response = client.response(method)
            assert response.status == 200 and response.body == (b"" if method == b"HEAD" else answer)
            received = bench.upstream.requests[-1]
            assert (received.method, received.target, received.body) == (method, target, body)
            client.sent()


@pytest.mark.parametrize("fragments", [False, True], ids=["whole", "cut"])
def test_pipeline_is_answered_in_order(bench, rng, fragments):
    """Forty at once, more than may wait; the first one's answer is made last."""
    echo = Echo(rng)
    second = threading.Event()

    def script(exchange):
        exchange.read_body()
        if exchange.request.target == b"/0":
            second.wait(1)  # the others may be served meanwhile or not; the order of the answers is what counts
        else:
            second.set()
        body, framing, trailers, fields = echo.plans.get(exchange.request.target, (exchange.request.target, "length", (), ()))
        exchange.reply(body=body, framing=framing, rng=random.Random(1))

    bench.upstream.script = script
    plan = list(mixed(rng, 40))
    for _, _, target, _, answer, back in plan:
        echo.plan(target, answer, back)
    with bench.proxy.client(rng=rng if fragments else None) as client:
        client.send_in_background(b"".join(raw for raw, *_ in plan))
        for _, method, target, _, answer, _ in plan:
            response = client.response(method)
            assert response.status == 200
            assert response.body == (b"" if method == b"HEAD" else answer), f"out of order at {target}"
        assert client.sent()
    fence = bench.fence()
    reached = {request.target: request.body for request in bench.reached(fence)}
    assert reached == {target: body for _, _, target, body, _, _ in plan}


def test_pipeline_ends_at_connection_close(bench):
    with bench.proxy.client() as client:
        client.send(b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\nGET /2 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
                    b"GET /3 HTTP/1.1\r\n" + HOST + b"\r\n")
        assert client.response().body == b"/1"
        last = client.response()
        assert last.body == b"/2" and last.closes
        client.assert_closed()
    assert b"/3" not in [request.target for request in bench.reached(bench.fence())]


@pytest.mark.parametrize("count", [8, 60], ids=["within-the-bound", "beyond-the-bound"])
def test_pipeline_then_half_close(bench, count):
    """All of them are answered, also those that wait for their turn when the end comes, and though the first is slow."""
    second = threading.Event()

    def script(exchange):
        exchange.read_body()
        if exchange.request.target == b"/0":
            second.wait(1)
            bench.proxy.client().close()
        if exchange.request.target == b"/7":
            second.set()
        exchange.reply(body=exchange.request.target)

    bench.upstream.script = script
    with bench.proxy.client() as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\n" % n + HOST + b"\r\n" for n in range(count)))
        client.half_close()
        for number in range(count):
            assert client.response().body == b"/%d" % number
        client.assert_closed()


def test_many_clients_at_once(bench, rng):
    """Sixteen kept connections, each with its own sequence: no answer goes to the wrong one."""
    def script(exchange):
        body = exchange.read_body()
        exchange.reply(body=exchange.request.target + b" " + hashlib.sha256(body).hexdigest().encode(),
                       framing="chunked" if len(body) % 2 else "length")

    bench.upstream.script = script
    failures = []

    def run(name, own):
        try:
            with bench.proxy.client(patience=30) as client:
                for number in range(40):
                    body = own.randbytes(own.choice([0, 1, 1000, 20000]))
                    target = b"/%d/%d" % (name, number)
                    client.send_in_background(request_bytes(own, target, body, own.choice(["length", "chunked"])))
                    response = client.response()
                    expected = target + b" " + hashlib.sha256(body).hexdigest().encode()
                    assert response.body == expected, (response.status, response.body[:200], expected)
        except (AssertionError, OSError) as error:
            failures.append(f"{name}: {error}")

    threads = [threading.Thread(target=run, args=(n, random.Random(rng.random()))) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures, failures[:3]
    assert not bench.upstream.errors, bench.upstream.errors[:3]


# --- HTTP/1.0 clients ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("back", ["length", "chunked", "close"])
def test_http10_client(bench, rng, back):
    echo = bench.upstream.script = Echo(rng)
    for size in (0, 1, 1000, 100000):
        sent, answer = rng.randbytes(size), rng.randbytes(size)
        target = b"/%d" % size
        echo.plan(target, answer, back)
        with bench.proxy.client(rng=rng) as client:
            client.send_in_background(request_bytes(rng, target, sent, "length", version=b"HTTP/1.0"))
            response = client.response()
            assert response.status == 200 and response.body == answer
            assert not response.all("transfer-encoding")
            client.assert_closed()
        assert bench.upstream.requests[-1].body == sent
        assert bench.upstream.requests[-1].version == b"HTTP/1.1"


# --- HEAD, 204, 304, 1xx, upgrades -----------------------------------------------------------------------------------

def test_head_keeps_the_length(bench):
    def script(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nX-A: b\r\n\r\n")

    bench.upstream.script = script
    with bench.proxy.client() as client:
        for _ in range(3):
            response = client.request(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")
            assert response.status == 200 and response.one("content-length") == b"12345" and response.one("x-a") == b"b"


def test_early_hints_are_forwarded_before_the_answer(bench):
    seen = threading.Event()

    def script(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        assert seen.wait(10)
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n")
        exchange.reply(body=b"done")

    bench.upstream.script = script
    with bench.proxy.client() as client:
        client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        first = client.wire.response_head()
        assert first.status == 103 and first.one("link") == b"</a.css>; rel=preload"
        seen.set()
        response = client.response()
        assert response.body == b"done" and [r.one("link") for r in response.interim] == [b"</b.css>; rel=preload"]


HANDSHAKE = (b"GET /chat HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


def tunnel(exchange, greeting=b""):
    """Switches, then sends every byte back until the other side has said all it has to say."""
    if exchange.request.target != b"/chat":
        return answer_ok(exchange)
    assert b"upgrade" in exchange.request.tokens("connection") and exchange.request.one("upgrade") == b"websocket"
    exchange.request.complete = True
    exchange.send(SWITCH + greeting)
    wire = exchange.connection.wire
    while wire.buffer or wire.fill():
        data = bytes(wire.buffer)
        wire.buffer.clear()
        exchange.send(data)
    exchange.connection.close()


@pytest.mark.parametrize("fragments", [False, True], ids=["whole", "cut"])
def test_upgrade_becomes_a_tunnel(bench, rng, fragments):
    bench.upstream.script = lambda exchange: tunnel(exchange, b"hello")
    with bench.proxy.client(rng=rng if fragments else None) as client:
        client.send(HANDSHAKE)
        response = client.response()
        assert response.status == 101 and response.one("upgrade") == b"websocket"
        assert b"upgrade" in response.tokens("connection")
        assert response.one("sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert client.wire.exactly(5) == b"hello"
        for size in (1, 100, 70000, 300000):
            data = rng.randbytes(size)
            client.send_in_background(data)
            assert client.wire.exactly(size) == data
            assert client.sent()
        client.half_close()
        client.assert_closed()
    bench.fence()


def test_upgrade_with_bytes_right_behind_the_handshake(bench):
    """They are not a request: they wait for the 101 and pass then, or the exchange is refused; they are never parsed."""
    bench.upstream.script = tunnel
    smuggled = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
    with bench.proxy.client() as client:
        client.send(HANDSHAKE + smuggled)
        response = client.response()
        if response.status == 101:
            assert client.wire.exactly(len(smuggled)) == smuggled
    assert b"/smuggled" not in [request.target for request in bench.reached(bench.fence())]


@pytest.mark.parametrize("status", [200, 400, 426])
def test_upgrade_refused_by_the_upstream_is_an_ordinary_exchange(bench, status):
    def script(exchange):
        exchange.read_body()
        exchange.reply(status=status if exchange.request.target == b"/chat" else 200, body=b"no tunnel")

    bench.upstream.script = script
    with bench.proxy.client() as client:
        response = client.request(HANDSHAKE)
        assert response.status == status and response.body == b"no tunnel"
        if not response.closes:
            assert client.request(b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n").body == b"no tunnel"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_tunnel_ends_with_its_upstream(bench, how):
    def script(exchange):
        exchange.request.complete = True
        exchange.send(SWITCH + b"bye")
        exchange.connection.wire.fill()
        exchange.connection.close() if how == "close" else exchange.connection.reset()

    bench.upstream.script = script
    with bench.proxy.client() as client:
        client.send(HANDSHAKE)
        assert client.response().status == 101
        assert client.wire.exactly(3) == b"bye"
        client.send(b"x")
        client.assert_closed()
    bench.upstream.script = answer_ok
    bench.fence()


# --- fields ----------------------------------------------------------------------------------------------------------

def sent_upstream(bench, fields, version=b"HTTP/1.1", target=b"/case"):
    with bench.proxy.client() as client:
        assert client.request(b"GET %s %s\r\n" % (target, version) + HOST + fields + b"\r\n").status == 200
    return bench.upstream.requests[-1]


@pytest.mark.parametrize("field", [
    b"Keep-Alive: timeout=5\r\n", b"Proxy-Connection: keep-alive\r\n", b"Upgrade: h2c\r\n",
    b"Connection: X-A, X-B\r\nX-A: 1\r\nX-B: 2\r\n", b"Connection: close, X-A\r\nx-a: 1\r\n",
    b"Connection: X-A\r\nConnection: X-B\r\nX-A: 1\r\nX-B: 2\r\n", b"Connection: ,, X-A ,,\r\nX-A: 1\r\n",
    b"TE: gzip\r\nConnection: TE\r\n",
], ids=["keep-alive", "proxy-connection", "upgrade-unnamed", "named", "named-other-case", "two-lines", "empty-items", "te-gzip"])
def test_hop_by_hop_fields_end_here(bench, field):
    request = sent_upstream(bench, field)
    gone = {b"keep-alive", b"proxy-connection", b"upgrade", b"x-a", b"x-b"}
    assert not {name.lower() for name, _ in request.fields} & gone, request.fields
    assert request.tokens("te") in ([], [b"trailers"])
    assert set(request.tokens("connection")) <= {b"keep-alive", b"close", b"te"}


def test_hop_by_hop_fields_of_the_answer_end_here(bench):
    def script(exchange):
        exchange.read_body()
        exchange.reply(fields=[(b"Connection", b"X-Secret, keep-alive"), (b"X-Secret", b"1"), (b"Keep-Alive", b"timeout=5"),
                               (b"Proxy-Connection", b"keep-alive"), (b"Upgrade", b"h2c"), (b"X-Public", b"2")])

    bench.upstream.script = script
    with bench.proxy.client() as client:
        response = client.request(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert response.one("x-public") == b"2"
        names = {name.lower() for name, _ in response.fields}
        assert not names & {b"x-secret", b"keep-alive", b"proxy-connection", b"upgrade"}, response.fields


def test_fields_keep_their_order_and_number(bench):
    fields = [(b"Accept", b"a"), (b"X-1", b"one"), (b"accept", b"b"), (b"Cookie", b"c=d"), (b"Cookie", b"e=f"), (b"X-2", b"")]
    request = sent_upstream(bench, b"".join(b"%s: %s\r\n" % pair for pair in fields))
    kept = [pair for pair in request.fields if pair[0].lower() in (b"accept", b"x-1", b"x-2", b"cookie")]
    assert kept == fields

    answer = [(b"Set-Cookie", b"a=b"), (b"X-1", b"one"), (b"set-cookie", b"c=d"), (b"Set-Cookie", b"e=f"), (b"X-2", b"")]
    bench.upstream.script = lambda exchange: (exchange.read_body(), exchange.reply(fields=answer))
    with bench.proxy.client() as client:
        response = client.request(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert [pair for pair in response.fields if pair[0].lower() in (b"set-cookie", b"x-1", b"x-2")] == answer


FROM_OUTSIDE = (b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n"
                b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
                b"Outrider-Deadline-Ms: 1\r\nOutrider-Fencing-Token: 7\r\nOutrider-Leader: x\r\n")
TRACE = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\Z")


def test_forwarding_fields_of_a_stranger_are_not_believed(bench):
    request = sent_upstream(bench, FROM_OUTSIDE)
    assert request.one("x-forwarded-for") == b"127.0.0.1"
    assert request.one("x-forwarded-proto") == b"http"
    assert request.one("x-forwarded-host") == b"a.example"
    trace = TRACE.match(request.one("traceparent"))
    assert trace and trace[1] != b"0af7651916cd43dd8448eb211c80319c" and trace[2] != b"b7ad6b7169203331"
    # outrider's own deadline is the only one of its fields: what remains of the route's timeout.
    assert [name.lower() for name, _ in request.fields if name.lower().startswith(b"outrider-")] == [b"outrider-deadline-ms"]
    assert 0 < int(request.one("outrider-deadline-ms")) <= 300_000


def test_a_request_that_comes_back_again_and_again_ends(bench):
    name = json.loads(bench.proxy.admin("/server_info").body)["node"]["name"].encode()
    passed = b", ".join([b"1.1 " + name + b" (somebody)"] * 7)
    sent = sent_upstream(bench, b"Via: " + passed + b", 1.1 other\r\n")
    assert b", ".join(sent.all("via")).count(name) == 7 + 1
    with bench.proxy.client() as client:
        answer = client.request(b"GET /case HTTP/1.1\r\n" + HOST + b"Via: " + passed + b"\r\nVia: 1.1 " + name + b"\r\n\r\n")
    assert answer.status == 502 and b"error=proxy_loop_detected" in answer.one("proxy-status")


def test_forwarding_fields_twice_and_in_odd_case_are_not_believed(bench):
    request = sent_upstream(bench, b"x-forwarded-FOR: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\nX-FORWARDED-PROTO: https\r\n"
                                   b"OUTRIDER-fencing-token: 7\r\nTRACEPARENT: 00-1\r\n")
    assert request.one("x-forwarded-for") == b"127.0.0.1" and request.one("x-forwarded-proto") == b"http"
    assert request.one("outrider-fencing-token") is None and TRACE.match(request.one("traceparent"))


@pytest.fixture(scope="module")
def trusting_bench():
    bench = Bench(listener={"trust_forwarded": True})
    yield bench
    bench.stop()


def test_forwarding_fields_of_a_trusted_front_are_extended(trusting_bench):
    request = sent_upstream(trusting_bench.fresh(), FROM_OUTSIDE.replace(b"Deadline-Ms: 1\r", b"Deadline-Ms: 20000\r"))
    assert 10_000 < int(request.one("outrider-deadline-ms")) <= 20_000
    assert b", ".join(request.all("x-forwarded-for")).replace(b" ", b"") == b"192.0.2.1,127.0.0.1"
    assert request.one("x-forwarded-proto") == b"https"
    assert request.one("x-forwarded-host") == b"evil.example"
    trace = TRACE.match(request.one("traceparent"))
    assert trace and trace[1] == b"0af7651916cd43dd8448eb211c80319c", "the trace goes on"
    assert trace[2] != b"b7ad6b7169203331", "with a span id of this hop"


@pytest.mark.parametrize("broken", [b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", b"x",
                                    b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
                                    b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
def test_broken_traceparent_is_replaced(trusting_bench, broken):
    request = sent_upstream(trusting_bench.fresh(), b"traceparent: " + broken + b"\r\n")
    trace = TRACE.match(request.one("traceparent"))
    assert trace and trace[1] != b"0" * 32


def test_request_id_is_given_and_unique(bench):
    ids = {sent_upstream(bench, b"").one("x-request-id") for _ in range(20)}
    assert len(ids) == 20 and all(ids) and all(re.match(rb"[!-~]{8,128}\Z", one) for one in ids)


def test_request_id_is_one_line(bench):
    """Kept or replaced (the listener's trust decides), but never two."""
    assert sent_upstream(bench, b"X-Request-Id: from-the-client\r\n").one("x-request-id")
    assert sent_upstream(bench, b"X-Request-Id: one\r\nX-Request-Id: two\r\n").one("x-request-id")


def test_via_and_date(bench):
    request = sent_upstream(bench, b"Via: 1.0 first\r\n")
    via = b", ".join(request.all("via"))
    assert re.match(rb"1\.0 first, ?1\.1 \S+", via), via
    assert re.match(rb"1\.0 \S+\Z", sent_upstream(bench, b"", version=b"HTTP/1.0").one("via"))

    with bench.proxy.client() as client:  # a Date is added when the upstream has none
        response = client.request(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert re.match(rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (\w{3}) \d{4} \d\d:\d\d:\d\d GMT\Z", response.one("date"))
        given = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(784111777)).encode()
        bench.upstream.script = lambda exchange: (exchange.read_body(), exchange.reply(fields=[(b"Date", given)]))
        assert client.request(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n").one("date") == given


def test_http10_request_gets_a_host_upstream(bench):
    """HTTP/1.1 upstream needs one even when the client sent none."""
    with bench.proxy.client() as client:
        assert client.request(b"GET /case HTTP/1.0\r\n\r\n").status == 200
    assert bench.upstream.requests[-1].one("host") is not None


def test_access_log_has_a_line_for_each_exchange(bench):
    def lines():
        return [line for line in bench.proxy.access_lines() if (line["path"] or "").startswith("/logged-") or line["status"] == 431]

    with bench.proxy.client() as client:
        for number in range(5):
            assert client.request(b"GET /logged-%d HTTP/1.1\r\n" % number + HOST + b"\r\n").status == 200
        assert client.request(b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 200 + b"\r\n").status == 431
    assert bench.upstream.wait_for(lambda: len(lines()) >= 6), lines()
    assert [line["path"] for line in lines()[:5]] == [f"/logged-{n}" for n in range(5)]
    assert [line["status"] for line in lines()] == [200] * 5 + [431]
