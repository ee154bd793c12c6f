"""What an upstream may not send: 502 and its connection closed, or the client's cut when the head has gone out already;
and the next request always gets its own answer."""
import json
import threading

import pytest

from harness import AS_PEER, Bench, free_port
from upstream import answer_ok
from wire import RawClient, Truncated

GET = b"GET /case HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST /case HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"
OK = b"HTTP/1.1 200 OK\r\n"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"


def sends(raw, then="hold", used=None):
    """A script: /case gets these bytes, then the connection is held, closed or reset; everything else is answered."""
    def script(exchange):
        if exchange.request.target != b"/case":
            answer_ok(exchange)
            return
        if used is not None:
            used.append(exchange.connection)
        exchange.read_body()
        try:
            exchange.send(raw)
        except OSError:  # the proxy had enough before the end
            return
        if then == "close":
            exchange.connection.close()
        elif then == "reset":
            exchange.connection.reset()
        elif then == "hold":
            exchange.connection.wait_closed()
    return script


def assert_bad_gateway(response):
    if AS_PEER:
        assert response.status in (500, 502, 503, 504), response.status
        return
    assert response.status == 502, f"{response.status} {response.body[:200]!r}"
    assert (response.one("content-type") or b"").split(b";")[0] == b"application/problem+json", response.fields
    assert response.one("proxy-status"), response.fields
    assert json.loads(response.body).get("status") == 502


def assert_next_is_its_own(bench, client, response):
    """On the same connection when it is kept, and on a new one."""
    if response is not None and not response.closes:
        assert client.request(b"GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n").body == b"/next"
    bench.fence()


def field(line):
    return OK + line + b"\r\nContent-Length: 2\r\n\r\nok"


BAD_HEADS = [
    # row 14: status line
    ("status-garbage", b"garbage\r\n\r\n"),
    ("status-empty-lines", b"\r\n\r\n\r\n" + b"x\r\n\r\n"),
    ("status-tls", b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n"),
    ("status-request", GET),
    ("status-http09", b"<html>hello</html>\r\n"),
    ("status-letters", b"HTTP/1.1 abc OK\r\n\r\n"),
    ("status-two-digits", b"HTTP/1.1 20 OK\r\n\r\n"),
    ("status-four-digits", b"HTTP/1.1 2000 OK\r\n\r\n"),
    ("status-000", b"HTTP/1.1 000 OK\r\n\r\n"),
    ("status-099", b"HTTP/1.1 099 OK\r\n\r\n"),
    ("status-minus", b"HTTP/1.1 -200 OK\r\n\r\n"),
    ("status-plus", b"HTTP/1.1 +200 OK\r\n\r\n"),
    ("status-hex", b"HTTP/1.1 0xc8 OK\r\n\r\n"),
    ("status-missing", b"HTTP/1.1\r\n\r\n"),
    ("status-missing-space", b"HTTP/1.1 \r\n\r\n"),
    ("status-glued", b"HTTP/1.1 200OK\r\nContent-Length: 0\r\n\r\n"),
    ("status-two-spaces", b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("status-tab", b"HTTP/1.1\t200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("status-leading-space", b" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("status-lower-case", b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("status-icy", b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("status-http2", b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n"),
    ("status-http2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("status-http0.9", b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("status-reason-nul", b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n"),
    ("status-reason-cr", b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n"),
    ("status-reason-control", b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n"),
    ("status-lf", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
    # row 14: framing
    ("cl+te", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("te+cl", OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("cl-twice-equal", OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
    ("cl-twice-different", OK + b"Content-Length: 2\r\nContent-Length: 8\r\n\r\nok"),
    ("cl-list", OK + b"Content-Length: 2, 2\r\n\r\nok"),
    ("cl-empty", OK + b"Content-Length:\r\n\r\n"),
    # row 23
    ("cl-minus", OK + b"Content-Length: -1\r\n\r\nok"),
    ("cl-plus", OK + b"Content-Length: +2\r\n\r\nok"),
    ("cl-hex", OK + b"Content-Length: 0x2\r\n\r\nok"),
    ("cl-words", OK + b"Content-Length: 2 2\r\n\r\nok"),
    ("cl-letters", OK + b"Content-Length: two\r\n\r\nok"),
    ("cl-fraction", OK + b"Content-Length: 2.0\r\n\r\nok"),
    ("cl-2^63", OK + b"Content-Length: 9223372036854775808\r\n\r\nok"),
    ("cl-2^64", OK + b"Content-Length: 18446744073709551616\r\n\r\nok"),
    ("cl-2^64+2", OK + b"Content-Length: 18446744073709551618\r\n\r\nok"),
    ("cl-nines", OK + b"Content-Length: " + b"9" * 100 + b"\r\n\r\nok"),
    ("te-twice", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("te-list", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("te-chunked-gzip", OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("te-identity", OK + b"Transfer-Encoding: identity\r\n\r\nok"),
    ("te-unknown", OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("te-empty", OK + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    ("te-comma", OK + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    ("te-vt", OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("te-http10", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("te-cl-in-204", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
    # rows 4, 5, 10: fields
    ("space-before-colon", field(b"X : a")),
    ("cl-space-before-colon", OK + b"Content-Length : 2\r\n\r\nok"),
    ("obs-fold", field(b"X: a\r\n b")),
    ("leading-space", OK + b" X: a\r\nContent-Length: 2\r\n\r\nok"),
    ("no-colon", field(b"X")),
    ("empty-name", field(b": a")),
    ("space-in-name", field(b"X Y: a")),
    ("name-high-byte", field(b"X\xe4: a")),
    ("name-nul", field(b"X\x00: a")),
    ("value-nul", field(b"X: a\x00b")),
    ("value-control", field(b"X: a\x01b")),
    ("value-vt", field(b"X: a\x0bb")),
    ("value-esc", field(b"X: a\x1bb")),
    ("value-del", field(b"X: a\x7fb")),
    ("bare-cr", field(b"X: a\rb")),
    ("bare-cr-splits", field(b"X: a\rSet-Cookie: evil=1")),
    ("bare-lf", field(b"X: a\nb")),
    ("bare-lf-splits", field(b"X: a\nSet-Cookie: evil=1")),
    ("bare-lf-everywhere", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    ("lf-ends-head", OK + b"Content-Length: 2\r\n\nok"),
    ("crcrlf", OK + b"X: a\r\r\nContent-Length: 2\r\n\r\nok"),
    # row 8
    ("field-1MiB", field(b"X: " + b"a" * (1 << 20))),
    ("field-1MiB-without-end", OK + b"X: " + b"a" * (1 << 20)),
    ("fields-10000", field(b"\r\n".join(b"X-%d: a" % i for i in range(10000)))),
    ("reason-1MiB", b"HTTP/1.1 200 " + b"a" * (1 << 20) + b"\r\nContent-Length: 0\r\n\r\n"),
    # row 15
    ("unasked-101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi"),
    ("unasked-101-bare", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ("1xx-with-body", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + POISON),
    ("1xx-then-garbage", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\ngarbage\r\n\r\n"),
]


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in BAD_HEADS])
def test_bad_head(bench, raw, method):
    used = []
    bench.upstream.script = sends(raw, used=used)
    with bench.proxy.client() as client:
        response = client.request(GET if method == b"GET" else POST)
        assert_bad_gateway(response)
        assert all(interim.status == 103 for interim in response.interim)
        assert_next_is_its_own(bench, client, response)
    assert len(used) == 1 or method == b"GET"
    assert bench.upstream.wait_for(lambda: all(c.closed_by_proxy.is_set() for c in used)), "a broken connection was kept"


ENDS = [  # what came before the connection ended, where no head has gone to the client
    ("nothing", b""), ("part-of-version", b"HTT"), ("part-of-status-line", b"HTTP/1.1 20"), ("status-line", OK),
    ("part-of-fields", OK + b"Content-Length: 2\r\nX: a"), ("all-but-last-crlf", OK + b"Content-Length: 2\r\n"),
    ("after-100", b"HTTP/1.1 100 Continue\r\n\r\n"), ("after-103", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in ENDS])
def test_connection_ends_before_the_head_is_whole(bench, raw, how):
    used = []
    bench.upstream.script = sends(raw, then=how, used=used)
    with bench.proxy.client() as client:
        response = client.request(POST)
        assert_bad_gateway(response)
        assert_next_is_its_own(bench, client, response)
    assert len(used) == 1, "an unkeyed POST was sent again"


# row 19 and broken chunks: the head is out, so the only honest answer is to cut the connection
CUTS = [
    ("counted-some", OK + b"Content-Length: 10\r\n\r\nhello", b"hello"),
    ("counted-none", OK + b"Content-Length: 10\r\n\r\n", b""),
    ("counted-all-but-one", OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 99999, b"x" * 99999),
    ("chunked-none", OK + b"Transfer-Encoding: chunked\r\n\r\n", b""),
    ("chunked-in-size", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1", b"hello"),
    ("chunked-in-chunk", OK + b"Transfer-Encoding: chunked\r\n\r\na\r\nhello", b"hello"),
    ("chunked-after-chunk", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"hello"),
    ("chunked-before-crlf", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello", b"hello"),
    ("chunked-after-last-size", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", b"hello"),
    ("chunked-in-trailers", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: a\r\n", b"hello"),
]
BROKEN_CHUNKS = [
    ("size-letter", b"G\r\nhello\r\n0\r\n\r\n"), ("size-minus", b"-5\r\nhello\r\n0\r\n\r\n"),
    ("size-0x", b"0x5\r\nhello\r\n0\r\n\r\n"), ("size-empty", b"\r\nhello\r\n0\r\n\r\n"),
    ("size-space", b" 5\r\nhello\r\n0\r\n\r\n"), ("size-overflow", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("size-2^64-1", b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    ("size-lf", b"5\nhello\r\n0\r\n\r\n"), ("ext-lf", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("ext-cr", b"5;a\rb\r\nhello\r\n0\r\n\r\n"), ("ext-nul", b"5;a\x00\r\nhello\r\n0\r\n\r\n"),
    ("ext-3MiB", b"5;" + b"a" * (3 << 20) + b"\r\nhello\r\n0\r\n\r\n"),
    ("data-long", b"5\r\nhello!\r\n0\r\n\r\n"), ("data-no-crlf", b"5\r\nhello0\r\n\r\n"),
    ("data-lf", b"5\r\nhello\n0\r\n\r\n"), ("end-lf", b"5\r\nhello\r\n0\r\n\n"),
    ("trailer-fold", b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"), ("trailer-nul", b"5\r\nhello\r\n0\r\nX: a\x00\r\n\r\n"),
    ("trailer-space", b"5\r\nhello\r\n0\r\nX : a\r\n\r\n"), ("trailer-no-colon", b"5\r\nhello\r\n0\r\nX\r\n\r\n"),
    ("trailer-1MiB", b"5\r\nhello\r\n0\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n"),
]


def assert_cut(client, whole):
    """The answer is a prefix of `whole` and visibly unfinished, or 502 when the fault came with the head."""
    try:
        response = client.response()
    except Truncated as error:
        response = getattr(error, "response", None)
        if response is not None:
            assert whole.startswith(response.body), response.body[:200]
        return
    assert response.status == 502, f"a broken answer was completed: {response.status}, {response.body[:200]!r}"
    assert_bad_gateway(response)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("raw, sent", [pytest.param(raw, sent, id=name) for name, raw, sent in CUTS])
def test_truncated_body_cuts_the_client(bench, raw, sent, how):
    bench.upstream.script = sends(raw, then=how)
    with bench.proxy.client() as client:
        client.send(GET)
        assert_cut(client, sent)
    bench.fence()


@pytest.mark.parametrize("raw, sent", [pytest.param(raw, sent, id=name) for name, raw, sent in CUTS])
def test_truncated_body_to_http10_client_is_reset_or_counted(bench, raw, sent):
    """An HTTP/1.0 client cannot tell the end of an uncounted body from a cut, so a cut must not look like an end."""
    bench.upstream.script = sends(raw, then="close")
    with bench.proxy.client() as client:
        client.send(b"GET /case HTTP/1.0\r\nHost: a.example\r\n\r\n")
        assert_cut(client, sent)
    bench.fence()


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in BROKEN_CHUNKS])
def test_broken_chunks_cut_the_client(bench, raw):
    used = []
    bench.upstream.script = sends(OK + b"Transfer-Encoding: chunked\r\n\r\n" + raw, used=used)
    with bench.proxy.client() as client:
        client.send(GET)
        assert_cut(client, b"hello")
    assert bench.upstream.wait_for(used[0].closed_by_proxy.is_set), "a broken connection was kept"
    bench.fence()


@pytest.mark.parametrize("head", [OK + b"Content-Length: 10\r\n\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n"],
                         ids=["counted", "chunked"])
def test_reset_in_the_middle_after_the_client_has_the_head(bench, head):
    go = threading.Event()

    def script(exchange):
        if exchange.request.target != b"/case":
            return answer_ok(exchange)
        exchange.read_body()
        exchange.send(head + (b"5\r\nhello\r\n" if b"chunked" in head else b"hello"))
        go.wait(10)
        exchange.connection.reset()

    bench.upstream.script = script
    with bench.proxy.client() as client:
        client.send(GET)
        while b"hello" not in client.wire.buffer:  # it is streamed: the first half arrives while the second is awaited
            assert client.wire.fill()
        go.set()
        assert_cut(client, b"hello")
    bench.fence()


# --- row 16: bodies where there are none ---------------------------------------------------------------------------

NO_BODY = [
    ("head-with-length", b"HEAD", OK + b"Content-Length: 5\r\n\r\n", True),
    ("head-with-chunked", b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n", True),
    ("head-with-length-and-body", b"HEAD", OK + b"Content-Length: 5\r\n\r\nhello", False),
    ("head-with-poison", b"HEAD", OK + b"Content-Length: %d\r\n\r\n" % len(POISON) + POISON, False),
    ("head-with-chunked-body", b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", False),
    ("204", b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", True),
    ("204-with-length", b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", False),
    ("204-with-zero-length", b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", True),
    ("204-with-poison", b"GET", b"HTTP/1.1 204 No Content\r\n\r\n" + POISON, False),
    ("304", b"GET", b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", True),
    ("304-with-length", b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", True),
    ("304-with-body", b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", False),
    ("304-with-poison", b"GET", b"HTTP/1.1 304 Not Modified\r\n\r\n" + POISON, False),
    ("304-with-chunked-body", b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
     False),
]


@pytest.mark.parametrize("method, raw, lawful", [pytest.param(*rest, id=name) for name, *rest in NO_BODY])
def test_no_body_is_passed_and_the_next_answer_is_in_step(bench, method, raw, lawful):
    bench.upstream.script = sends(raw, then="nothing")
    with bench.proxy.client() as client:
        response = client.request(b"%s /case HTTP/1.1\r\nHost: a.example\r\n\r\n" % method)
        assert response.body == b"" or response.status == 502
        if lawful:
            assert response.status == int(raw[9:12]) and not response.closes
        assert_next_is_its_own(bench, client, response)
        for number in range(3):
            if not response.closes:
                target = b"/step-%d" % number
                assert client.request(b"GET %s HTTP/1.1\r\nHost: a.example\r\n\r\n" % target).body == target


# --- rows 14, 18: more than one answer -----------------------------------------------------------------------------

SURPLUS = [
    ("second-answer", OK + b"Content-Length: 2\r\n\r\nok" + POISON),
    ("one-byte", OK + b"Content-Length: 2\r\n\r\nok!"),
    ("crlf", OK + b"Content-Length: 2\r\n\r\nok\r\n"),
    ("garbage", OK + b"Content-Length: 2\r\n\r\nok" + b"x" * 100000),
    ("after-chunked", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + POISON),
    ("part-of-an-answer", OK + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nX: "),
    ("100-after", OK + b"Content-Length: 2\r\n\r\nokHTTP/1.1 100 Continue\r\n\r\n"),
]


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in SURPLUS])
def test_surplus_is_never_given_to_the_next_request(bench, raw):
    used = []
    bench.upstream.script = sends(raw, then="hold", used=used)
    with bench.proxy.client() as client:
        response = client.request(GET)
        assert response.status == 200 and response.body == b"ok"
        assert client.request(b"GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n").body == b"/next"
    assert bench.upstream.wait_for(used[0].closed_by_proxy.is_set), "the connection with left-over bytes was kept"
    assert len(used[0].requests) == 1 or used[0].requests[-1].target == b"/case", "it was used again"
    bench.fence()


@pytest.mark.parametrize("late", [POISON, b"!", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
                                  b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["answer", "byte", "408", "100"])
def test_bytes_without_a_request_close_the_connection(bench, late):
    used = []
    go = threading.Event()

    def script(exchange):
        if exchange.request.target == b"/case":
            used.append(exchange.connection)
        answer_ok(exchange)
        if exchange.request.target == b"/case":
            go.wait(10)
            exchange.send(late)
            exchange.connection.wait_closed()

    bench.upstream.script = script
    with bench.proxy.client() as client:
        assert client.request(GET).body == b"/case"
        go.set()
        assert bench.upstream.wait_for(used[0].closed_by_proxy.is_set), "a connection that spoke unasked was kept"
        assert client.request(b"GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n").body == b"/next"


def test_answer_before_the_request_is_not_used(bench):
    """An upstream that speaks between requests, many times: no later request gets the poison. (Whoever asks before the
    poison has arrived cannot tell it from an answer: HTTP/1.1 has no request numbers. So the close is awaited.)"""
    poisoned = []

    def speaks_between(exchange):
        if exchange.request.target == b"/case":
            poisoned.append(exchange.connection)
        answer_ok(exchange)
        if exchange.request.target == b"/case":
            exchange.send(POISON)
            exchange.connection.wait_closed()

    bench.upstream.script = speaks_between
    with bench.proxy.client() as client:
        for number in range(20):
            assert client.request(GET).body == b"/case"
            assert bench.upstream.wait_for(poisoned[-1].closed_by_proxy.is_set), "a connection that spoke unasked was kept"
            target = b"/own-%d" % number
            response = client.request(b"GET %s HTTP/1.1\r\nHost: a.example\r\n\r\n" % target)
            assert response.body == target, response.body


# --- row 15: interim answers -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("one", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
                                 b"HTTP/1.1 199 Whatever\r\n\r\n"], ids=["100", "103", "199"])
def test_interim_flood_is_bounded(bench, one):
    """50,000 interim answers: passed on or refused, but it ends and nothing else suffers."""
    bench.upstream.script = sends(one * 50000 + OK + b"Content-Length: 2\r\n\r\nok", then="close")
    with bench.proxy.client(patience=30) as client:
        client.send(GET)
        try:
            response = client.response()
            assert response.status in (200, 502)
        except Truncated:
            pass
    bench.fence()


def test_interim_answers_do_not_go_to_http10(bench):
    bench.upstream.script = sends(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok", "nothing")
    with bench.proxy.client() as client:
        response = client.request(b"GET /case HTTP/1.0\r\nHost: a.example\r\n\r\n")
        assert response.status == 200 and response.body == b"ok" and not response.interim


# --- row 17: an answer before the request is whole -------------------------------------------------------------------

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"


def answers_early(status, then, used):
    def script(exchange):
        if exchange.request.target != b"/case":
            return answer_ok(exchange)
        used.append(exchange.connection)
        exchange.reply(status=status, body=b"early")
        if then == "close":
            exchange.connection.close()
        elif then == "reset":
            exchange.connection.wire.fill()
            exchange.connection.reset()
        else:
            exchange.connection.wait_closed()
    return script


@pytest.mark.parametrize("status", [200, 413])
@pytest.mark.parametrize("then", ["hold", "close"])
@pytest.mark.parametrize("chunks", [False, True], ids=["counted", "chunked"])
def test_early_answer_with_the_body_unsent(bench, status, then, chunks):
    """Delivered, then close. What the client sends afterwards is body, never a request."""
    used = []
    bench.upstream.script = answers_early(status, then, used)
    with bench.proxy.client() as client:
        if chunks:
            client.send(b"POST /case HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        else:
            client.send(b"POST /case HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\nhello" % (5 + len(SMUGGLED)))
        response = client.response(b"POST")
        assert response.status == status and response.body == b"early"
        client.send(SMUGGLED if not chunks else b"0\r\n\r\n" + SMUGGLED)
        client.assert_closed()
    bench.upstream.script = answer_ok
    assert not [r for r in bench.reached(bench.fence()) if r.target != b"/case"]
    assert bench.upstream.wait_for(used[0].closed_by_proxy.is_set), "an upstream connection out of step was kept"


@pytest.mark.parametrize("then", ["hold", "close"])
def test_early_answer_while_a_large_body_is_under_way(bench, then):
    used = []
    bench.upstream.script = answers_early(413, then, used)
    body = SMUGGLED * (32 * 1024 * 1024 // len(SMUGGLED))
    with bench.proxy.client() as client:
        client.send_in_background(b"POST /case HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        response = client.response(b"POST")
        assert response.status == 413 and response.body == b"early"
        client.assert_closed()
        assert client.sent(), "the client still hangs in its send"
    bench.upstream.script = answer_ok
    assert not bench.reached(bench.fence())


# --- row 20: nothing is sent twice -----------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["close", "reset"])
def test_unkeyed_post_on_a_kept_connection_that_breaks_is_delivered_once(bench, how):
    deliveries = []

    def script(exchange):
        exchange.read_body()
        if exchange.request.method != b"POST":
            exchange.reply(body=exchange.request.target)
            return
        deliveries.append(exchange.connection.number)
        if len(exchange.connection.requests) > 1:  # kept: break it
            exchange.connection.reset() if how == "reset" else exchange.connection.close()
        else:
            exchange.reply(body=b"new")

    bench.upstream.script = script
    with bench.proxy.client() as client:
        assert client.request(b"GET /warm HTTP/1.1\r\nHost: a.example\r\n\r\n").body == b"/warm"
        response = client.request(POST)
        assert len(deliveries) == 1, f"one POST was delivered {len(deliveries)} times"
        if response.status != 200:  # 200 only when it went out on a new connection
            assert_bad_gateway(response)
        else:
            assert response.body == b"new"
    bench.fence()
    assert len(deliveries) == 1


def test_connection_the_upstream_closed_while_idle_is_not_used(bench):
    closed = threading.Event()

    def script(exchange):
        answer_ok(exchange)
        if exchange.request.target == b"/case":
            exchange.connection.half_close()
            exchange.connection.wait_closed()
            closed.set()

    bench.upstream.script = script
    with bench.proxy.client() as client:
        assert client.request(GET).body == b"/case"
        assert closed.wait(10), "an idle connection the upstream has closed was kept"
        for number in range(5):
            response = client.request(b"POST /after-%d HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello" % number)
            assert response.status == 200 and response.body == b"/after-%d" % number


def test_connection_close_of_the_upstream_is_kept_from_the_client(bench):
    """The upstream's connection is its own affair; the client's stays."""
    def script(exchange):
        exchange.read_body()
        exchange.reply(body=exchange.request.target, fields=[(b"Connection", b"close")])
        exchange.connection.close()

    bench.upstream.script = script
    with bench.proxy.client() as client:
        for number in range(5):
            response = client.request(b"GET /%d HTTP/1.1\r\nHost: a.example\r\n\r\n" % number)
            assert response.status == 200 and response.body == b"/%d" % number and not response.closes


def test_connection_refused_is_502(bench):
    """Its own proxy, in front of a port nobody listens on."""
    from harness import subject
    with subject(free_port()) as proxy, RawClient(proxy.port) as client:
        response = client.request(POST)
        assert_bad_gateway(response)
        assert b"connection_refused" in response.one("proxy-status")
        assert client.request(GET).status == 502  # the client's connection is kept


def test_upstream_that_says_nothing_is_504():
    bench = Bench(cluster={"read_timeout": "500ms"})
    try:
        bench.upstream.script = sends(b"", then="hold")
        with bench.proxy.client() as client:
            response = client.request(GET)
            assert response.status == 504 and response.one("proxy-status")
        bench.fence()
        bench.upstream.script = sends(OK + b"Content-Length: 10\r\n\r\nhello", then="hold")
        with bench.proxy.client() as client:
            client.send(GET)
            with pytest.raises(Truncated):
                client.response()
        bench.fence()
    finally:
        bench.stop()


# --- the standard leaves a choice ------------------------------------------------------------------------------------

CHOICES = [
    ("no-reason-no-space", b"HTTP/1.1 204\r\n\r\n"),
    ("status-600", b"HTTP/1.1 600 X\r\nContent-Length: 2\r\n\r\nok"),
    ("status-999", b"HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\nok"),
    ("version-1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("leading-crlf", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("status-205", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\n\r\nok"),
    ("304-cl+te", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
    ("cl-leading-zeros", OK + b"Content-Length: 0002\r\n\r\nok"),
    ("chunk-size-zeros", OK + b"Transfer-Encoding: chunked\r\n\r\n00002\r\nok\r\n000\r\n\r\n"),
    ("chunk-size-space", OK + b"Transfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n"),
    ("trailer-length", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n"),
    ("trailer-cookie", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: evil=1\r\n\r\n"),
    ("repeated-date", OK + b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nDate: x\r\nContent-Length: 2\r\n\r\nok"),
]


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in CHOICES])
def test_passed_cleanly_or_502(bench, raw):
    bench.upstream.script = sends(raw, then="nothing")
    with bench.proxy.client() as client:
        client.send(GET)
        try:
            response = client.response()
        except Truncated:
            response = None
        if response is not None and response.status != 502:
            assert response.body in (b"", b"ok")
            assert not {name.lower() for name, _ in response.trailers} & {b"content-length", b"set-cookie"}
        assert_next_is_its_own(bench, client, response)


LAWFUL = [
    ("empty-reason", b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"),
    ("reason-high-bytes", b"HTTP/1.1 200 \xe4\r\nContent-Length: 2\r\n\r\nok"),
    ("lower-case", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ("no-space", b"HTTP/1.1 200 OK\r\nContent-Length:2\r\n\r\nok"),
    ("chunked-upper-case", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("chunked-ext", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0;c\r\n\r\n"),
    ("http10-counted", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("http10-keep-alive", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
]


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in LAWFUL])
def test_lawful_answer_passes(bench, raw):
    bench.upstream.script = sends(raw, then="nothing")
    with bench.proxy.client() as client:
        response = client.request(GET)
        assert response.status == 200 and response.body == b"ok"
        assert response.version == b"HTTP/1.1"
        assert client.request(b"GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n").body == b"/next"


@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 50000, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 50000,
    b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 50000, b"HTTP/1.0 200 OK\r\n\r\n",
], ids=["http11", "http11-close", "http10", "http10-empty"])
def test_body_that_ends_with_the_connection_is_reframed(bench, raw):
    """Chunked for HTTP/1.1 clients, whose connection is kept; ended by the close for HTTP/1.0."""
    body = raw.partition(b"\r\n\r\n")[2]
    bench.upstream.script = sends(raw, then="close")
    with bench.proxy.client() as client:
        response = client.request(GET)
        assert response.status == 200 and response.body == body and response.framing == "chunked"
        assert client.request(b"GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n").body == b"/next"
    with bench.proxy.client() as client:
        response = client.request(b"GET /case HTTP/1.0\r\nHost: a.example\r\n\r\n")
        assert response.status == 200 and response.body == body and response.framing == "close"


def test_body_that_ends_with_a_reset_is_not_an_end(bench):
    bench.upstream.script = sends(b"HTTP/1.1 200 OK\r\n\r\nhello", then="reset")
    with bench.proxy.client() as client:
        client.send(GET)
        assert_cut(client, b"hello")
    bench.fence()
