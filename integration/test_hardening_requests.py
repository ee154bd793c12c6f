"""What a client may not send: every refused framing gets its status, a close, and nothing of it served or forwarded.
And what only looks odd: it passes, cleaned."""
import json
import socket
import threading
import time

import pytest

from corpus import CASES, CHUNKED, GET, POST, SMUGGLED, case_id
from harness import AS_PEER, Bench
from upstream import answer_ok
from wire import ProtocolError, chunked


def assert_refusal(response, statuses):
    """An answer outrider made itself, after which nothing else is served."""
    if AS_PEER:
        assert 400 <= response.status < 600, response.status
        return
    assert response.status in statuses, f"{response.status} {response.body[:200]!r}, expected {statuses}"
    assert response.version == b"HTTP/1.1"
    assert response.closes, f"no Connection: close in {response.fields}"
    assert (response.one("content-type") or b"").split(b";")[0] == b"application/problem+json", response.fields
    assert response.one("proxy-status"), f"no Proxy-Status in {response.fields}"
    problem = json.loads(response.body)
    assert problem.get("status") == response.status, problem
    assert problem.get("title") or problem.get("detail"), problem


def assert_nothing_reached(bench, case_heads_pass):
    fence = bench.fence()
    assert not bench.reached(fence), f"reached the upstream: {bench.reached(fence)}"
    assert not bench.upstream.errors, bench.upstream.errors
    heads = [head for head in bench.upstream.heads if head.target != fence]
    assert len(heads) <= (1 if case_heads_pass else 0), f"heads that reached the upstream: {heads}"
    assert all(head.target == b"/case" for head in heads), heads


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_refused(bench, case):
    with bench.proxy.client() as client:
        client.send_in_background(case.raw + SMUGGLED)
        assert_refusal(client.response(case.raw.split(b" ", 1)[0]), case.status)
        client.assert_closed()
    assert_nothing_reached(bench, case.head_passes)


SMALL = [case for case in CASES if len(case.raw) < 4096]


@pytest.mark.parametrize("case", SMALL[::7], ids=case_id)
def test_refused_after_a_good_request(bench, case, rng):
    """Pipelined behind a good request, in pieces: the good one is answered, then the refusal, then the close."""
    with bench.proxy.client(rng=rng) as client:
        client.send_in_background(b"GET /good HTTP/1.1\r\nHost: a.example\r\n\r\n" + case.raw + SMUGGLED)
        first = client.response()
        assert first.status == 200 and first.body == b"/good"
        assert_refusal(client.response(case.raw.split(b" ", 1)[0]), case.status)
        client.assert_closed()
    fence = bench.fence()
    assert [request.target for request in bench.reached(fence)] == [b"/good"]


# --- limits that are configured ------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def limited():
    bench = Bench(listener={"header_timeout": "500ms", "body_idle_timeout": "500ms", "idle_timeout": "500ms",
                            "max_body_bytes": "1KiB", "max_header_bytes": "4KiB", "max_headers": 10,
                            "max_target_bytes": "200B"})
    yield bench
    bench.stop()


@pytest.fixture
def limits(limited):
    yield limited.fresh()
    limited.check()


LIMITS = [
    ("head-incomplete", b"GET /case HTTP/1.1\r\nHost: a.example\r\nX: a", (408,)),
    ("request-line-incomplete", b"GET /ca", (408,)),
    ("head-without-last-crlf", GET, (408,)),
    ("body-stops", POST + b"Content-Length: 10\r\n\r\nabc", (408,)),
    ("chunk-stops", CHUNKED + b"a\r\nabc", (408,)),
    ("last-chunk-missing", CHUNKED + b"1\r\na\r\n", (408,)),
    ("trailer-stops", CHUNKED + b"0\r\nX: a", (408,)),
    ("body-1025-counted", POST + b"Content-Length: 1025\r\n\r\n" + b"a" * 1025, (413,)),
    ("body-1TiB-announced", POST + b"Content-Length: 1099511627776\r\n\r\n", (413,)),
    ("body-1025-chunked", CHUNKED + chunked(b"a" * 1025), (413,)),
    ("body-1025-expect", POST + b"Expect: 100-continue\r\nContent-Length: 1025\r\n\r\n", (413,)),
    ("eleven-fields", GET + b"".join(b"X-%d: a\r\n" % i for i in range(10)) + b"\r\n", (431,)),
    ("head-5KiB", GET + b"X: " + b"a" * 5000 + b"\r\n\r\n", (431,)),
    ("target-201", b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n", (414,)),
]


@pytest.mark.parametrize("raw, status", [pytest.param(raw, status, id=name) for name, raw, status in LIMITS])
def test_limit(limits, raw, status):
    with limits.proxy.client() as client:
        client.send(raw)
        assert_refusal(client.response(), status)
        client.assert_closed()
    assert_nothing_reached(limits, case_heads_pass=True)


def test_limit_is_not_met_by_what_fits(limits):
    with limits.proxy.client() as client:
        target = b"/" + b"a" * 199
        head = b"POST %s HTTP/1.1\r\nHost: a.example\r\n" % target
        fits = client.request(head + b"Content-Length: 1024\r\n\r\n" + b"a" * 1024)
        assert fits.status == 200 and fits.body == target
        fits = client.request(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"a" * 1024))
        assert fits.status == 200
        fits = client.request(GET + b"".join(b"X-%d: a\r\n" % i for i in range(9)) + b"\r\n")
        assert fits.status == 200


@pytest.mark.parametrize("first", [b"", GET + b"\r\n"], ids=["new", "kept"])
def test_silent_connection_is_closed_without_an_answer(limits, first):
    with limits.proxy.client() as client:
        if first:
            assert client.request(first).status == 200
        started = time.monotonic()
        client.assert_closed()
        assert time.monotonic() - started >= 0.3


# --- odd but lawful ------------------------------------------------------------------------------------------------

def one_request(bench, fence):
    reached = bench.reached(fence)
    assert len(reached) == 1, f"{len(reached)} requests reached the upstream"
    assert not bench.upstream.errors, bench.upstream.errors
    return reached[0]


LOOKALIKES = [
    # name, raw, body that must reach the upstream, whether the connection is kept
    ("plain", GET + b"\r\n", b"", True),
    ("lower-case-names", b"GET /case HTTP/1.1\r\nhost: a.example\r\naccept: */*\r\n\r\n", b"", True),
    ("no-space-after-colon", b"GET /case HTTP/1.1\r\nHost:a.example\r\n\r\n", b"", True),
    ("spaces-around-value", b"GET /case HTTP/1.1\r\nHost: \t a.example \t \r\n\r\n", b"", True),
    ("leading-crlf", b"\r\n" + GET + b"\r\n", b"", True),
    ("host-with-port", b"GET /case HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", b"", True),
    ("host-ipv6", b"GET /case HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", b"", True),
    ("host-ipv4", b"GET /case HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"", True),
    ("host-underscore", b"GET /case HTTP/1.1\r\nHost: a_b.example\r\n\r\n", b"", True),
    ("host-trailing-dot", b"GET /case HTTP/1.1\r\nHost: a.example.\r\n\r\n", b"", True),
    ("chunked", CHUNKED + chunked(b"hello"), b"hello", True),
    ("chunked-upper-case", POST + b"Transfer-Encoding: CHUNKED\r\n\r\n" + chunked(b"hello"), b"hello", True),
    ("chunked-mixed-case", POST + b"transfer-encoding: Chunked\r\n\r\n" + chunked(b"hello"), b"hello", True),
    ("chunked-empty", CHUNKED + b"0\r\n\r\n", b"", True),
    ("chunked-ext", CHUNKED + b"5;a=b\r\nhello\r\n0\r\n\r\n", b"hello", True),
    ("chunked-ext-name", CHUNKED + b"5;a\r\nhello\r\n0;b\r\n\r\n", b"hello", True),
    ("chunked-ext-quoted", CHUNKED + b'5;a="b c;d"\r\nhello\r\n0\r\n\r\n', b"hello", True),
    ("chunked-leading-zeros", CHUNKED + b"0005\r\nhello\r\n0000\r\n\r\n", b"hello", True),
    ("chunked-hex-cases", CHUNKED + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, True),
    ("body-holds-crlf", POST + b"Content-Length: 9\r\n\r\n\r\n0\r\n\r\n\r\n", b"\r\n0\r\n\r\n\r\n", True),
    ("body-holds-request", POST + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED, SMUGGLED, True),
    ("chunk-holds-request", CHUNKED + chunked(SMUGGLED), SMUGGLED, True),
    ("body-zero", POST + b"Content-Length: 0\r\n\r\n", b"", True),
    ("post-without-body", POST + b"\r\n", b"", True),
    ("get-with-body", GET + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
    ("get-with-chunked-body", GET + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"hello"), b"hello", True),
    ("delete-with-body", b"DELETE /case HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    ("connection-close", GET + b"Connection: close\r\n\r\n", b"", False),
    ("http10", b"GET /case HTTP/1.0\r\nHost: a.example\r\n\r\n", b"", False),
    ("http10-without-host", b"GET /case HTTP/1.0\r\n\r\n", b"", False),
    ("http10-post", b"POST /case HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    ("te-trailers", GET + b"TE: trailers\r\nConnection: TE\r\n\r\n", b"", True),
    ("many-cookies", GET + b"Cookie: a=b\r\n" * 20 + b"\r\n", b"", True),
    ("field-8KiB", GET + b"X: " + b"a" * 8192 + b"\r\n\r\n", b"", True),
    ("ninety-fields", GET + b"".join(b"X-%d: a\r\n" % i for i in range(90)) + b"\r\n", b"", True),
]


@pytest.mark.parametrize("raw, body, kept", [pytest.param(*rest, id=name) for name, *rest in LOOKALIKES])
def test_lawful(bench, raw, body, kept):
    with bench.proxy.client() as client:
        client.send(raw)
        response = client.response()
        assert response.status == 200 and response.body == b"/case", (response.status, response.body[:300])
        if kept:
            assert not response.closes
            again = client.request(b"GET /again HTTP/1.1\r\nHost: a.example\r\n\r\n")
            assert again.body == b"/again"
        else:
            client.assert_closed()
    fence = bench.fence()
    reached = bench.reached(fence)
    assert [request.target for request in reached] == [b"/case", b"/again"][:2 if kept else 1]
    assert reached[0].body == body
    assert reached[0].version == b"HTTP/1.1"
    assert not bench.upstream.errors, bench.upstream.errors


METHODS = [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT"]


@pytest.mark.parametrize("method", METHODS)
def test_method_passes(bench, method):
    with bench.proxy.client() as client:
        response = client.request(b"%s /case HTTP/1.1\r\nHost: a.example\r\n\r\n" % method)
        assert response.status == 200 and response.body == b"/case"
    assert one_request(bench, bench.fence()).method == method


def test_options_star_passes(bench):
    with bench.proxy.client() as client:
        assert client.request(b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n").status == 200
    assert one_request(bench, bench.fence()).target == b"*"


TARGETS = [b"/", b"/a?b=c&d=%20", b"/a//b", b"/a/../b", b"/a/./b", b"/%2e%2e/%2f", b"/a;b=c", b"/a?b?c/d",
           b"/~a/!$&'()*+,;=:@", b"/?", b"/a%00b", b"//a.example/b", b"/a?http://b.example/"]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.decode())
def test_target_passes_unchanged(bench, target):
    with bench.proxy.client() as client:
        assert client.request(b"GET %s HTTP/1.1\r\nHost: a.example\r\n\r\n" % target).status == 200
    assert one_request(bench, bench.fence()).target == target


VALUES = [b"", b"a", b"a b", b"a\tb", b"\xe4\xf6\xfc", b"\x80\xff", b'"a, b"', b"a:b", b"{}[]()<>@,;:\\\"/?=", b"a  b"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_value_passes_unchanged_both_ways(bench, value):
    def echo(exchange):
        exchange.read_body()
        exchange.reply(fields=[(b"X-Echo", exchange.request.one("x-case") or b"")], body=exchange.request.target)

    bench.upstream.script = echo
    with bench.proxy.client() as client:
        response = client.request(GET + b"X-Case: " + value + b"\r\n\r\n")
        assert response.status == 200 and response.one("x-echo") == value
    assert one_request(bench, bench.fence()).one("x-case") == value


ABSOLUTE = [
    ("agrees", b"http://a.example/case", b"a.example", b"a.example", b"/case"),
    ("disagrees", b"http://good.example/case", b"evil.example", b"good.example", b"/case"),
    ("disagrees-port", b"http://good.example:81/case", b"good.example", b"good.example:81", b"/case"),
    ("empty-host-field", b"http://good.example/case", b"", b"good.example", b"/case"),
    ("no-path", b"http://good.example", b"evil.example", b"good.example", b"/"),
    ("no-path-query", b"http://good.example?a=b", b"evil.example", b"good.example", b"/?a=b"),
    ("upper-case-scheme", b"HTTP://good.example/case", b"evil.example", b"good.example", b"/case"),
    ("ipv6", b"http://[::1]:81/case", b"evil.example", b"[::1]:81", b"/case"),
    ("slash-in-query", b"http://good.example/case?u=http://evil.example/", b"evil.example", b"good.example",
     b"/case?u=http://evil.example/"),
]


@pytest.mark.parametrize("target, field, host, path", [pytest.param(*rest, id=name) for name, *rest in ABSOLUTE])
def test_absolute_form_decides_the_host(bench, target, field, host, path):
    """RFC 9112 3.2.2: the Host field is replaced by the target's authority, and the target goes on in origin form."""
    with bench.proxy.client() as client:
        response = client.request(b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, field))
        if response.status != 200 and (not field or path.startswith(b"/?")):
            assert_refusal(response, (400,))  # rare forms that may be refused, but not half understood
            return
        assert response.status == 200
    request = one_request(bench, bench.fence())
    assert request.all("host") == [host]
    assert request.target == path


# --- the standard leaves a choice: refused cleanly, or passed cleanly --------------------------------------------

CHOICES = [
    ("te-leading-tab", POST + b"Transfer-Encoding:\tchunked\r\n\r\n" + chunked(b"hello"), b"hello"),
    ("te-trailing-space", POST + b"Transfer-Encoding: chunked \r\n\r\n" + chunked(b"hello"), b"hello"),
    ("te-trailing-tab", POST + b"Transfer-Encoding: chunked\t\r\n\r\n" + chunked(b"hello"), b"hello"),
    ("cl-leading-zeros", POST + b"Content-Length: 0005\r\n\r\nhello", b"hello"),
    ("cl-trailing-space", POST + b"Content-Length: 5 \r\n\r\nhello", b"hello"),
    ("te-underscore", POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    ("cl-underscore", POST + b"Content_Length: 50\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    ("host-empty", b"GET /case HTTP/1.1\r\nHost:\r\n\r\n", b""),
    ("many-leading-crlf", b"\r\n" * 5 + GET + b"\r\n", b""),
    ("leading-crlf-flood", b"\r\n" * 200000 + GET + b"\r\n", b""),
    ("target-high-bytes", b"GET /case\xc3\xa4 HTTP/1.1\r\nHost: a.example\r\n\r\n", b""),
    ("target-fragment", b"GET /case#a HTTP/1.1\r\nHost: a.example\r\n\r\n", b""),
    ("target-quote", b'GET /case?"<>{}|^` HTTP/1.1\r\nHost: a.example\r\n\r\n', b""),
    ("target-bad-percent", b"GET /case%zz HTTP/1.1\r\nHost: a.example\r\n\r\n", b""),
    ("expect-unknown", GET + b"Expect: the-unexpected\r\n\r\n", b""),
    ("chunk-ext-bad-name", CHUNKED + b"5;=b\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("chunk-ext-space", CHUNKED + b"5 ;a=b\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("chunk-ext-high-byte", CHUNKED + b"5;a=\xff\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("chunk-ext-1KiB", CHUNKED + b"5;" + b"a" * 1024 + b"\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("chunk-size-many-zeros", CHUNKED + b"0" * 20 + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("one-byte-chunks-200000", CHUNKED + b"1\r\nX\r\n" * 200000 + b"0\r\n\r\n", b"X" * 200000),
    ("trailer-host", CHUNKED + b"5\r\nhello\r\n0\r\nHost: evil.example\r\n\r\n", b"hello"),
    ("trailer-content-length", CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n", b"hello"),
    ("trailer-transfer-encoding", CHUNKED + b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", b"hello"),
    ("trailer-connection", CHUNKED + b"5\r\nhello\r\n0\r\nConnection: close\r\n\r\n", b"hello"),
    ("trailer-authorization", CHUNKED + b"5\r\nhello\r\n0\r\nAuthorization: evil\r\n\r\n", b"hello"),
    ("trailer-content-type", CHUNKED + b"5\r\nhello\r\n0\r\nContent-Type: evil\r\n\r\n", b"hello"),
    ("trailer-cookie", CHUNKED + b"5\r\nhello\r\n0\r\nCookie: evil\r\n\r\n", b"hello"),
    ("trailer-forwarded", CHUNKED + b"5\r\nhello\r\n0\r\nX-Forwarded-For: evil\r\n\r\n", b"hello"),
    ("trailer-forbidden-upper-case", CHUNKED + b"5\r\nhello\r\n0\r\nCONTENT-LENGTH: 50\r\n\r\n", b"hello"),
]


@pytest.mark.parametrize("raw, body", [pytest.param(*rest, id=name) for name, *rest in CHOICES])
def test_refused_or_passed_cleanly(bench, raw, body):
    with bench.proxy.client() as client:
        client.send_in_background(raw)
        response = client.response()
        if response.status == 200:
            again = client.request(b"GET /again HTTP/1.1\r\nHost: a.example\r\n\r\n")
            assert again.body == b"/again"
        else:
            assert_refusal(response, (400, 413, 417, 431, 501))
            client.assert_closed()
    fence = bench.fence()
    reached = bench.reached(fence)
    assert not bench.upstream.errors, bench.upstream.errors
    if response.status != 200:
        assert not reached, reached
        return
    assert [request.target for request in reached[1:]] == [b"/again"]
    request = reached[0]
    assert request.body == body
    assert all(b"evil" not in value and value != b"50" for _, value in request.trailers), request.trailers
    assert not {name.lower() for name, _ in request.trailers} & {
        b"host", b"content-length", b"transfer-encoding", b"connection", b"authorization", b"content-type", b"cookie",
        b"x-forwarded-for"}, request.trailers


def test_a_name_with_an_underscore_does_not_stand_for_framing(bench):
    with bench.proxy.client() as client:
        assert client.request(POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello").status == 200
    request = one_request(bench, bench.fence())
    assert request.framing == "length" and request.body == b"hello"


# --- row 13: fields named by Connection ---------------------------------------------------------------------------

@pytest.mark.parametrize("named", [b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"X-Request-Id",
                                   b"traceparent", b"Via", b"x-forwarded-for, VIA, x-request-id"])
def test_connection_cannot_strip_what_outrider_adds(bench, named):
    with bench.proxy.client() as client:
        assert client.request(GET + b"Connection: keep-alive, " + named + b"\r\n\r\n").status == 200
    request = one_request(bench, bench.fence())
    for name in named.split(b","):
        assert request.one(name.strip()), f"{name} did not reach the upstream"
    assert not [token for token in request.tokens("connection") if token not in (b"keep-alive", b"close")]


@pytest.mark.parametrize("named, raw, body", [
    (b"Host", GET + b"Connection: Host\r\n\r\n", b""),
    (b"Content-Length", POST + b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    (b"Transfer-Encoding", POST + b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n"
     + chunked(b"hello"), b"hello"),
])
def test_connection_cannot_strip_framing(bench, named, raw, body):
    with bench.proxy.client() as client:
        response = client.request(raw)
        if response.status != 200:
            assert_refusal(response, (400,))
            return
    request = one_request(bench, bench.fence())
    assert request.body == body and request.one("host") == b"a.example"


def test_connection_strips_what_it_names(bench):
    with bench.proxy.client() as client:
        assert client.request(GET + b"Connection: X-Secret\r\nX-Secret: a\r\nx-secret: b\r\nX-Public: c\r\n\r\n").status == 200
    request = one_request(bench, bench.fence())
    assert request.one("x-secret") is None and request.one("x-public") == b"c"


# --- row 12: HTTP/1.0 ---------------------------------------------------------------------------------------------

def test_http10_keep_alive_is_answered_consistently(bench):
    """Kept only when the answer says so; never a chunked answer."""
    with bench.proxy.client() as client:
        response = client.request(b"GET /case HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n")
        assert response.status == 200 and response.framing in ("length", "close")
        if b"keep-alive" in response.tokens("connection"):
            assert client.request(b"GET /again HTTP/1.0\r\n\r\n").body == b"/again"
        client.assert_closed()


def test_http10_chunked_answer_is_unchunked(bench):
    bench.upstream.script = lambda exchange: (exchange.read_body(), exchange.reply(body=b"hello" * 1000, framing="chunked"))
    with bench.proxy.client() as client:
        client.send(b"GET /case HTTP/1.0\r\nHost: a.example\r\n\r\n")
        response = client.response()
        assert response.framing in ("close", "length") and response.body == b"hello" * 1000
        assert not response.all("transfer-encoding")
        client.assert_closed()


# --- rows 15, 17, 21 ----------------------------------------------------------------------------------------------

def test_expect_continue_is_passed_on(bench):
    def script(exchange):
        assert exchange.request.tokens("expect") == [b"100-continue"]
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.read_body()
        exchange.reply(body=exchange.request.body)

    bench.upstream.script = script
    with bench.proxy.client() as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.wire.response_head().status == 100
        client.send(b"hello")
        response = client.response(b"POST")
        assert response.status == 200 and response.body == b"hello" and not response.interim


def test_expect_continue_refused_by_the_upstream_is_not_continued(bench):
    """The final answer instead of 100: delivered, and the body that never came is not waited for as a request."""
    bench.upstream.script = lambda exchange: exchange.request.target == b"/case" and (
        exchange.reply(status=403, body=b"no"), exchange.connection.wait_closed())
    with bench.proxy.client() as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED))
        response = client.response(b"POST")
        assert response.status == 403 and response.body == b"no" and not response.interim
        client.send(SMUGGLED)
        client.assert_closed()
    bench.upstream.script = answer_ok
    assert not bench.reached(bench.fence())


@pytest.mark.parametrize("raw, body", [
    (GET + b"\r\n", b""),
    (POST + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    (CHUNKED + chunked(b"hello"), b"hello"),
], ids=["get", "counted", "chunked"])
def test_client_that_half_closes_gets_its_answer(bench, raw, body):
    go = threading.Event()

    def script(exchange):
        exchange.read_body()
        go.wait(10)
        exchange.reply(body=exchange.request.target * 1000)

    bench.upstream.script = script
    with bench.proxy.client() as client:
        client.send(raw)
        client.half_close()
        assert bench.upstream.wait_for(lambda: bench.upstream.requests)
        assert bench.upstream.requests[0].body == body
        bench.proxy.client().close()  # something else happens meanwhile
        go.set()
        response = client.response()
        assert response.status == 200 and response.body == b"/case" * 1000
        client.assert_closed()


@pytest.mark.parametrize("raw", [
    GET, b"GET /ca", b"GET /case HTTP/1.1\r\nHost: a.example\r\nX: ", POST + b"Content-Length: 10\r\n\r\nabc",
    CHUNKED + b"5\r\nhel", CHUNKED + b"5\r\nhello\r\n", CHUNKED + b"5\r\nhello\r\n0\r\n", CHUNKED + b"5\r\nhello\r\n0\r\nX: a\r\n",
], ids=["head", "line", "value", "counted", "chunk", "last-chunk", "last-crlf", "trailer"])
def test_client_that_ends_inside_a_request_is_not_served(bench, raw):
    """Never completed on its behalf: the upstream sees at most a cut request. The client gets 400 or just the end."""
    with bench.proxy.client() as client:
        client.send(raw)
        client.half_close()
        try:
            response = client.response()
        except ProtocolError:
            assert not client.wire.buffer
        else:
            assert_refusal(response, (400,))
            client.assert_closed()
    assert_nothing_reached(bench, case_heads_pass=True)


@pytest.mark.parametrize("after", [b"", b"GET /ca", POST + b"Content-Length: 10\r\n\r\nabc"], ids=["idle", "head", "body"])
def test_client_that_resets_harms_nobody(bench, after):
    client = bench.proxy.client()
    assert client.request(GET + b"\r\n").status == 200
    client.send(after)
    client.reset()
    fence = bench.fence()
    assert [request.target for request in bench.reached(fence)] == [b"/case"]


def test_client_that_resets_while_its_answer_is_on_the_way(bench):
    used = []

    def script(exchange):
        exchange.read_body()
        if exchange.request.target == b"/case":
            used.append(exchange.connection)
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100000)
            exchange.connection.wait_closed()
            exchange.connection.close()
        else:
            exchange.reply(body=exchange.request.target)

    bench.upstream.script = script
    client = bench.proxy.client()
    client.send(GET + b"\r\n")
    assert client.wire.response_head().status == 200
    client.reset()
    assert bench.upstream.wait_for(used[0].closed_by_proxy.is_set), "the upstream connection was kept"
    bench.fence()


def test_port_is_shut_to_nothing_but_http(bench):
    """A connection that only opens and closes is not an error."""
    for _ in range(20):
        socket.create_connection(("127.0.0.1", bench.proxy.port), 5).close()
    bench.fence()
