"""Malformed and hostile requests, as bytes. test_hardening_requests.py says how outrider must answer each, test_peers.py
compares the verdicts with haproxy's and nginx's.

`row` names the line of the hardening table in docs/ that the case belongs to ("line" = request line, "size" = limits).
`head_passes`: the head is in order, so it may be on its way upstream when the fault is found; what arrives there must
then never become a whole request.
"""
import dataclasses

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: smuggled.example\r\n\r\n"
GET = b"GET /case HTTP/1.1\r\nHost: a.example\r\n"
POST = b"POST /case HTTP/1.1\r\nHost: a.example\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = (400,)
CODING = (400, 501)
SIZE = (431,)


@dataclasses.dataclass(frozen=True)
class Case:
    row: str
    name: str
    raw: bytes
    status: tuple = REFUSED
    head_passes: bool = False

    def __str__(self):
        return f"{self.row}-{self.name}"


def case_id(case):
    return str(case)


def _table(row, entries, **options):
    return [Case(row, name, raw, *rest, **options) for name, raw, *rest in entries]


def _smuggling():
    body = b"0\r\n\r\n"
    both = POST + b"Content-Length: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
    return _table("1", [
        ("cl.te", both % b"6" + b"0\r\n\r\nG"),
        ("cl.te-exact", both % b"5" + body),
        ("cl.te-zero", both % b"0" + body),
        ("cl.te-long", both % b"60" + body),
        ("te.cl", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n"),
        ("te.cl-exact", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + body),
        ("te.cl-get", GET + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + body),
        ("te.cl-lower-case", POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n" + body),
        ("te.cl-upper-case", POST + b"TRANSFER-ENCODING: CHUNKED\r\nCONTENT-LENGTH: 5\r\n\r\n" + body),
        ("te.cl-apart", POST + b"Transfer-Encoding: chunked\r\nA: b\r\nC: d\r\nContent-Length: 5\r\n\r\n" + body),
        ("cl.te-identity", POST + b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\n" + body, CODING),
        ("cl.te-empty", POST + b"Content-Length: 5\r\nTransfer-Encoding:\r\n\r\n" + body, CODING),
        ("cl.te-unknown", POST + b"Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n" + body, CODING),
        ("cl.te-http10", b"POST /case HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + body),
        ("cl.te-named-away", POST + b"Connection: Transfer-Encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
         + body),
    ])


def _transfer_encoding():
    body = b"0\r\n\r\n"

    def te(value):
        return POST + b"Transfer-Encoding:" + value + b"\r\n\r\n" + body

    def lines(text):
        return POST + text + b"\r\n\r\n" + body

    return _table("2", [
        ("twice-in-list", te(b" chunked, chunked"), CODING),
        ("twice-in-lines", lines(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), CODING),
        ("identity", te(b" identity"), CODING),
        ("identity-line-after", lines(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), CODING),
        ("identity-line-before", lines(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"), CODING),
        ("line-unknown-after", lines(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow"), CODING),
        ("line-empty-after", lines(b"Transfer-Encoding: chunked\r\nTransfer-Encoding:"), CODING),
        ("xchunked", te(b" xchunked"), CODING),
        ("chunkedx", te(b" chunkedx"), CODING),
        ("chunked-dash", te(b" chunked-"), CODING),
        ("chunke", te(b" chunke"), CODING),
        ("two-words", te(b" chunked chunked"), CODING),
        ("word-before", te(b" x chunked"), CODING),
        ("gzip", te(b" gzip"), CODING),
        ("gzip-chunked", te(b" gzip, chunked"), CODING),
        ("deflate-chunked", te(b" deflate, chunked"), CODING),
        ("chunked-gzip", te(b" chunked, gzip"), CODING),
        ("chunked-identity", te(b" chunked, identity"), CODING),
        ("identity-chunked", te(b" identity, chunked"), CODING),
        ("trailers-chunked", te(b" trailers, chunked"), CODING),
        ("leading-comma", te(b" ,chunked"), CODING),
        ("trailing-comma", te(b" chunked,"), CODING),
        ("trailing-commas", te(b" chunked,,"), CODING),
        ("only-comma", te(b" ,"), CODING),
        ("empty", te(b""), CODING),
        ("blank", te(b"   "), CODING),
        ("quoted", te(b' "chunked"'), CODING),
        ("single-quoted", te(b" 'chunked'"), CODING),
        ("parameter", te(b" chunked;foo=bar"), CODING),
        ("quality", te(b" chunked;q=0.5"), CODING),
        ("semicolon", te(b" chunked;"), CODING),
        ("vertical-tab-before", te(b" \x0bchunked"), CODING),
        ("vertical-tab-after", te(b" chunked\x0b"), CODING),
        ("form-feed-before", te(b" \x0cchunked"), CODING),
        ("nul-before", te(b" \x00chunked"), CODING),
        ("nul-after", te(b" chunked\x00"), CODING),
        ("cr-before", te(b" \rchunked"), CODING),
        ("cr-after", te(b" chunked\r"), CODING),
        ("lf-before", te(b"\nchunked"), CODING),
        ("lf-after", te(b" chunked\n"), CODING),
        ("del-after", te(b" chunked\x7f"), CODING),
        ("nbsp-before", te(b" \xa0chunked"), CODING),
        ("y-umlaut", te(b" chunked\xff"), CODING),
        ("long-s", te(b" chun\xc4\xb7ed"), CODING),
        ("folded", te(b"\r\n chunked"), CODING),
        ("folded-tab", te(b"\r\n\tchunked"), CODING),
        ("folded-after", te(b" chunked\r\n "), CODING),
        ("space-before-colon", lines(b"Transfer-Encoding : chunked"), CODING),
        ("tab-before-colon", lines(b"Transfer-Encoding\t: chunked"), CODING),
        ("vt-before-colon", lines(b"Transfer-Encoding\x0b: chunked"), CODING),
        ("nul-in-name", lines(b"Transfer-Encoding\x00: chunked"), CODING),
        ("leading-space", lines(b" Transfer-Encoding: chunked"), CODING),
        ("after-bare-lf", lines(b"X: y\nTransfer-Encoding: chunked"), CODING),
        ("after-bare-cr", lines(b"X: y\rTransfer-Encoding: chunked"), CODING),
        ("after-crcr", lines(b"X: y\r\n\rTransfer-Encoding: chunked"), CODING),
        ("http10", b"POST /case HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body, CODING),
        ("http10-keep-alive", b"POST /case HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
         + body, CODING),
        ("http10-identity", b"POST /case HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", CODING),
    ])


def _content_length():
    def cl(value):
        return POST + b"Content-Length:" + value + b"\r\n\r\nA"

    return _table("3", [
        ("empty", cl(b"")),
        ("blank", cl(b"  ")),
        ("plus", cl(b" +1")),
        ("minus", cl(b" -1")),
        ("minus-zero", cl(b" -0")),
        ("hex", cl(b" 0x1")),
        ("hex-digit", cl(b" a")),
        ("two-words", cl(b" 1 1")),
        ("list-equal", cl(b" 1,1")),
        ("list-equal-space", cl(b" 1, 1")),
        ("list-different", cl(b" 1,2")),
        ("leading-comma", cl(b" ,1")),
        ("trailing-comma", cl(b" 1,")),
        ("semicolon", cl(b" 1;")),
        ("parameter", cl(b" 1;a=b")),
        ("letter-after", cl(b" 1a")),
        ("letter-before", cl(b" a1")),
        ("decimal", cl(b" 1.0")),
        ("exponent", cl(b" 1e0")),
        ("underscore", cl(b" 1_0")),
        ("quoted", cl(b' "1"')),
        ("vertical-tab", cl(b" \x0b1")),
        ("form-feed", cl(b" 1\x0c")),
        ("nul", cl(b" 1\x00")),
        ("bare-cr", cl(b" 1\r0")),
        ("bare-lf", cl(b" 1\n0")),
        ("arabic-digit", cl(b" \xd9\xa1")),
        ("fullwidth-digit", cl(b" \xef\xbc\x91")),
        ("nbsp", cl(b"\xa01")),
        ("2^63", cl(b" 9223372036854775808")),
        ("2^64", cl(b" 18446744073709551616")),
        ("2^64+1", cl(b" 18446744073709551617")),
        ("2^65", cl(b" 36893488147419103233")),
        ("2^128", cl(b" 340282366920938463463374607431768211457")),
        ("many-nines", cl(b" " + b"9" * 300)),
        ("repeated-equal", POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nA"),
        ("repeated-different", POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nA"),
        ("repeated-zero", POST + b"Content-Length: 0\r\nContent-Length: 50\r\n\r\n"),
        ("repeated-other-case", POST + b"Content-Length: 1\r\ncontent-length: 1\r\n\r\nA"),
        ("repeated-empty", POST + b"Content-Length: 1\r\nContent-Length:\r\n\r\nA"),
        ("repeated-thrice-apart", POST + b"Content-Length: 1\r\nA: b\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nA"),
        ("space-before-colon", POST + b"Content-Length : 1\r\n\r\nA"),
        ("tab-before-colon", POST + b"Content-Length\t: 1\r\n\r\nA"),
        ("nul-in-name", POST + b"Content-Length\x00: 1\r\n\r\nA"),
        ("folded", POST + b"Content-Length:\r\n 1\r\n\r\nA"),
        ("folded-digits", POST + b"Content-Length: 1\r\n 0\r\n\r\nA"),
        ("http10-repeated", b"POST /case HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nA"),
        ("get-minus", GET + b"Content-Length: -1\r\n\r\n"),
    ])


def _field_syntax():
    after = b"\r\n\r\n"
    return _table("4", [
        ("obs-fold-space", GET + b"X: a\r\n b" + after),
        ("obs-fold-tab", GET + b"X: a\r\n\tb" + after),
        ("obs-fold-blank", GET + b"X: a\r\n \r\nY: b" + after),
        ("obs-fold-host", b"GET /case HTTP/1.1\r\nHost: a.example\r\n b.example" + after),
        ("obs-fold-last", GET + b"X: a\r\n " + after),
        ("space-before-colon", GET + b"X : a" + after),
        ("tab-before-colon", GET + b"X\t: a" + after),
        ("host-space-before-colon", b"GET /case HTTP/1.1\r\nHost : a.example" + after),
        ("leading-space-first", b"GET /case HTTP/1.1\r\n Host: a.example" + after),
        ("leading-tab-first", b"GET /case HTTP/1.1\r\n\tHost: a.example" + after),
        ("leading-space-first-extra", b"GET /case HTTP/1.1\r\n X: a\r\nHost: a.example" + after),
        ("blank-first-line", b"GET /case HTTP/1.1\r\n \r\nHost: a.example" + after),
        ("space-in-name", GET + b"X Y: a" + after),
        ("no-colon", GET + b"X" + after),
        ("no-colon-word", GET + b"X a" + after),
        ("request-line-as-field", GET + b"GET /smuggled HTTP/1.1" + after),
    ]) + _table("10", [
        ("empty-name", GET + b": a" + after),
        ("empty-name-no-space", GET + b":a" + after),
        ("empty-name-and-value", GET + b":" + after),
        ("empty-name-first", b"GET /case HTTP/1.1\r\n: a\r\nHost: a.example" + after),
        ("space-name", GET + b" : a" + after),
    ])


def _control_bytes():
    end = b"\r\n\r\n"
    cases = []
    for byte in (0x00, 0x01, 0x07, 0x08, 0x0b, 0x0c, 0x0e, 0x1a, 0x1b, 0x1f, 0x7f):
        c = bytes([byte])
        cases += [
            (f"value-{byte:02x}", GET + b"X: a" + c + b"b" + end),
            (f"value-start-{byte:02x}", GET + b"X:" + c + b"b" + end),
            (f"value-end-{byte:02x}", GET + b"X: b" + c + end),
            (f"name-{byte:02x}", GET + b"X" + c + b"Y: a" + end),
            (f"target-{byte:02x}", b"GET /ca" + c + b"se HTTP/1.1\r\nHost: a.example" + end),
            (f"method-{byte:02x}", b"GE" + c + b"T /case HTTP/1.1\r\nHost: a.example" + end, (400, 501)),
        ]
    for byte in b'"(),/;<=>?@[\\]{}\x80\xff':
        cases.append((f"name-delimiter-{byte:02x}", GET + b"X" + bytes([byte]) + b"Y: a" + end))
    return _table("5", cases) + _table("5", [
        ("bare-cr-in-value", GET + b"X: a\rb" + end),
        ("bare-cr-end-of-value", GET + b"X: a\r\r\n\r\n"),
        ("bare-cr-in-name", GET + b"X\rY: a" + end),
        ("bare-cr-ends-line", GET + b"X: a\rY: b" + end),
        ("bare-cr-hides-host", b"GET /case HTTP/1.1\r\nX: a\rHost: a.example" + end),
        ("bare-cr-ends-head", GET + b"X: a\r\n\rZ"),
        ("bare-cr-only", b"GET /case HTTP/1.1\rHost: a.example\r\r"),
        ("bare-cr-request-line", b"GET /case\r HTTP/1.1\r\nHost: a.example" + end),
        ("bare-cr-before-crlf", b"GET /case HTTP/1.1\r\r\nHost: a.example" + end),
        ("bare-lf-ends-request-line", b"GET /case HTTP/1.1\nHost: a.example" + end),
        ("bare-lf-ends-field", b"GET /case HTTP/1.1\r\nHost: a.example\nX: a" + end),
        ("bare-lf-in-value", GET + b"X: a\nb" + end),
        ("bare-lf-ends-head", GET + b"X: a\r\n\n"),
        ("bare-lf-lf-ends-head", GET + b"X: a\n\n"),
        ("bare-lf-only", b"GET /case HTTP/1.1\nHost: a.example\n\n"),
        ("bare-lf-in-target", b"GET /ca\nse HTTP/1.1\r\nHost: a.example" + end),
        ("lf-cr", GET + b"X: a\n\r\n\r"),
        ("tab-in-target", b"GET /ca\tse HTTP/1.1\r\nHost: a.example" + end),
        ("nul-first", b"\x00GET /case HTTP/1.1\r\nHost: a.example" + end),
    ])


def _chunks():
    zero = b"0\r\n\r\n"
    return _table("6", [
        ("ext-lf", CHUNKED + b"1;a\nb\r\nX\r\n" + zero),
        ("ext-lf-at-end", CHUNKED + b"1;a\nX\r\n" + zero),
        ("ext-lf-smuggle", CHUNKED + b"2;\nxx\r\n4c\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n" + zero),
        ("ext-cr", CHUNKED + b"1;a\rb\r\nX\r\n" + zero),
        ("ext-cr-at-end", CHUNKED + b"1;a\r\r\nX\r\n" + zero),
        ("ext-nul", CHUNKED + b"1;a\x00b\r\nX\r\n" + zero),
        ("ext-control", CHUNKED + b"1;a\x01b\r\nX\r\n" + zero),
        ("ext-quoted-lf", CHUNKED + b'1;a="\n"\r\nX\r\n' + zero),
        ("ext-without-semicolon", CHUNKED + b"1 a\r\nX\r\n" + zero),
        ("ext-space-junk", CHUNKED + b"1 a=b\r\nX\r\n" + zero),
        ("size-lf", CHUNKED + b"1\nX\r\n" + zero),
        ("size-cr", CHUNKED + b"1\rX\r\n" + zero),
        ("last-size-lf", CHUNKED + b"1\r\nX\r\n0\n\r\n"),
        ("last-ext-lf", CHUNKED + b"1\r\nX\r\n0;a\n\r\n"),
        ("end-lf", CHUNKED + b"1\r\nX\r\n0\r\n\n"),
    ], head_passes=True) + _table("9", [
        ("size-2^64", CHUNKED + b"10000000000000000\r\nX\r\n" + zero),
        ("size-2^64+1", CHUNKED + b"10000000000000001\r\nX\r\n" + zero),
        ("size-17-f", CHUNKED + b"F" * 17 + b"\r\nX\r\n" + zero),
        ("size-2^64-1", CHUNKED + b"F" * 16 + b"\r\nX\r\n" + zero),
        ("size-2^63", CHUNKED + b"8000000000000000\r\nX\r\n" + zero),
        ("size-40-digits", CHUNKED + b"1" * 40 + b"\r\nX\r\n" + zero),
        ("size-minus", CHUNKED + b"-1\r\nX\r\n" + zero),
        ("size-plus", CHUNKED + b"+1\r\nX\r\n" + zero),
        ("size-0x", CHUNKED + b"0x1\r\nX\r\n" + zero),
        ("size-x", CHUNKED + b"x1\r\nX\r\n" + zero),
        ("size-h", CHUNKED + b"1h\r\nX\r\n" + zero),
        ("size-g", CHUNKED + b"G\r\nX\r\n" + zero),
        ("size-empty", CHUNKED + b"\r\nX\r\n" + zero),
        ("size-only-ext", CHUNKED + b";a\r\nX\r\n" + zero),
        ("size-leading-space", CHUNKED + b" 1\r\nX\r\n" + zero),
        ("size-trailing-space", CHUNKED + b"1 \r\nX\r\n" + zero),
        ("size-trailing-tab", CHUNKED + b"1\t\r\nX\r\n" + zero),
        ("size-underscore", CHUNKED + b"1_0\r\n" + b"X" * 16 + b"\r\n" + zero),
        ("size-decimal-point", CHUNKED + b"1.0\r\nX\r\n" + zero),
        ("size-nul", CHUNKED + b"1\x00\r\nX\r\n" + zero),
        ("size-fullwidth", CHUNKED + b"\xef\xbc\x91\r\nX\r\n" + zero),
        ("size-comma", CHUNKED + b"1,1\r\nX\r\n" + zero),
        ("data-no-crlf", CHUNKED + b"1\r\nX" + zero),
        ("data-longer", CHUNKED + b"1\r\nXX\r\n" + zero),
        ("data-shorter", CHUNKED + b"5\r\nabc\r\n" + zero + b"\r\n"),
        ("data-lf", CHUNKED + b"1\r\nX\n" + zero),
        ("data-cr", CHUNKED + b"1\r\nX\r" + zero),
        ("data-crx", CHUNKED + b"1\r\nX\rX" + zero),
        ("data-double-crlf", CHUNKED + b"1\r\nX\r\n\r\n" + zero),
        ("not-chunked-at-all", CHUNKED + b"hello, world\r\n\r\n"),
        ("request-instead", CHUNKED + SMUGGLED),
    ], head_passes=True) + _table("22", [
        ("trailer-no-colon", CHUNKED + b"0\r\nX\r\n\r\n"),
        ("trailer-space-in-name", CHUNKED + b"0\r\nX Y: a\r\n\r\n"),
        ("trailer-space-before-colon", CHUNKED + b"0\r\nX : a\r\n\r\n"),
        ("trailer-obs-fold", CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n"),
        ("trailer-leading-space", CHUNKED + b"0\r\n X: a\r\n\r\n"),
        ("trailer-empty-name", CHUNKED + b"0\r\n: a\r\n\r\n"),
        ("trailer-nul", CHUNKED + b"0\r\nX: a\x00b\r\n\r\n"),
        ("trailer-bare-cr", CHUNKED + b"0\r\nX: a\rb\r\n\r\n"),
        ("trailer-bare-lf", CHUNKED + b"0\r\nX: a\nY: b\r\n\r\n"),
        ("trailer-is-request", CHUNKED + b"0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
    ], head_passes=True)


def _floods():
    return _table("8", [
        ("many-fields", GET + b"".join(b"X-%d: a\r\n" % i for i in range(150)) + b"\r\n", SIZE),
        ("many-fields-same-name", GET + b"A: b\r\n" * 1000 + b"\r\n", SIZE),
        ("many-empty-fields", GET + b"A:\r\n" * 10000 + b"\r\n", SIZE),
        ("field-40KiB", GET + b"X: " + b"a" * 40960 + b"\r\n\r\n", SIZE),
        ("field-1MiB", GET + b"X: " + b"a" * (1 << 20) + b"\r\n\r\n", SIZE),
        ("field-1MiB-blank", GET + b"X: " + b" " * (1 << 20) + b"a\r\n\r\n", (400, 431)),
        ("field-1MiB-without-end", GET + b"X: " + b"a" * (1 << 20), SIZE),
        ("name-40KiB", GET + b"X" * 40960 + b": a\r\n\r\n", SIZE),
        ("cookies-sum-40KiB", GET + b"".join(b"Cookie: %s\r\n" % (b"a" * 1000) for _ in range(41)) + b"\r\n", SIZE),
        ("host-40KiB", b"GET /case HTTP/1.1\r\nHost: " + b"a" * 40960 + b"\r\n\r\n", (400, 431)),
    ]) + _table("8", [
        ("trailer-1MiB", CHUNKED + b"0\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n", (400, 431)),
        ("trailers-10000", CHUNKED + b"0\r\n" + b"A: b\r\n" * 10000 + b"\r\n", (400, 431)),
    ], head_passes=True) + _table("7", [
        ("ext-8MiB", CHUNKED + b"1;" + b"a" * (8 << 20) + b"\r\nX\r\n0\r\n\r\n", (400, 413, 431)),
        ("ext-64KiB", CHUNKED + b"1;" + b"a" * 65536 + b"\r\nX\r\n0\r\n\r\n", (400, 413, 431)),
        ("ext-8MiB-in-many", CHUNKED + (b"1;" + b"a" * 1000 + b"\r\nX\r\n") * 8000 + b"0\r\n\r\n", (400, 413, 431)),
        ("last-chunk-ext-8MiB", CHUNKED + b"1\r\nX\r\n0;" + b"a" * (8 << 20) + b"\r\n\r\n", (400, 413, 431)),
        ("size-leading-zeros-1MiB", CHUNKED + b"0" * (1 << 20) + b"1\r\nX\r\n0\r\n\r\n", (400, 413, 431)),
    ], head_passes=True) + _table("size", [
        ("target-9KiB", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n", (414,)),
        ("query-9KiB", b"GET /?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n", (414,)),
        ("target-40KiB", b"GET /" + b"a" * 40960 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n", (414, 431)),
        ("target-1MiB-without-end", b"GET /" + b"a" * (1 << 20), (414, 431)),
        ("absolute-9KiB", b"GET http://a.example/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n", (414,)),
        ("method-1MiB", b"A" * (1 << 20) + b" / HTTP/1.1\r\nHost: a.example\r\n\r\n", (400, 414, 431, 501)),
    ])


def _host():
    def host(value):
        return b"GET /case HTTP/1.1\r\nHost:" + value + b"\r\n\r\n"

    def target(text, fields=b"Host: a.example\r\n"):
        return b"GET " + text + b" HTTP/1.1\r\n" + fields + b"\r\n"

    return _table("11", [
        ("missing", b"GET /case HTTP/1.1\r\n\r\n"),
        ("missing-with-others", b"GET /case HTTP/1.1\r\nX: a\r\nX-Forwarded-Host: a.example\r\n\r\n"),
        ("missing-absolute-form", target(b"http://a.example/case", b"")),
        ("repeated-equal", GET + b"Host: a.example\r\n\r\n"),
        ("repeated-different", GET + b"Host: b.example\r\n\r\n"),
        ("repeated-other-case", GET + b"hOST: a.example\r\n\r\n"),
        ("repeated-apart", GET + b"X: a\r\nY: b\r\nHost: b.example\r\n\r\n"),
        ("repeated-empty", GET + b"Host:\r\n\r\n"),
        ("repeated-http10", b"GET /case HTTP/1.0\r\nHost: a.example\r\nHost: b.example\r\n\r\n"),
        ("comma", host(b" a.example,b.example")),
        ("comma-space", host(b" a.example, b.example")),
        ("space", host(b" a.example b.example")),
        ("tab", host(b" a.example\tb.example")),
        ("path", host(b" a.example/path")),
        ("slash", host(b" a.example/")),
        ("backslash", host(b" a.example\\path")),
        ("query", host(b" a.example?q")),
        ("fragment", host(b" a.example#f")),
        ("userinfo", host(b" user@a.example")),
        ("userinfo-password", host(b" user:pass@a.example")),
        ("scheme", host(b" http://a.example")),
        ("port-word", host(b" a.example:http")),
        ("port-minus", host(b" a.example:-1")),
        ("port-plus", host(b" a.example:+80")),
        ("port-too-big", host(b" a.example:99999")),
        ("port-huge", host(b" a.example:4294967376")),
        ("port-twice", host(b" a.example:80:80")),
        ("bracket-open", host(b" [::1")),
        ("bracket-close", host(b" ::1]")),
        ("bracket-junk", host(b" [::1]x")),
        ("bracket-name", host(b" [a.example]")),
        ("quote", host(b' "a.example"')),
        ("angle", host(b" <a.example>")),
        ("pipe", host(b" a|b")),
        ("caret", host(b" a^b")),
        ("brace", host(b" {a}")),
        ("percent-broken", host(b" a%zz")),
        ("nul", host(b" a.example\x00")),
        ("absolute-userinfo", target(b"http://user@a.example/case")),
        ("absolute-no-host", target(b"http:///case")),
        ("absolute-bad-port", target(b"http://a.example:x/case")),
        ("absolute-space", target(b"http://a.example b/case")),
        ("absolute-comma", target(b"http://a.example,b.example/case")),
        ("absolute-odd-host-field", target(b"http://a.example/case", b"Host: user@b.example\r\n")),
        ("absolute-two-host-fields", target(b"http://a.example/case", b"Host: a.example\r\nHost: b.example\r\n")),
    ])


def _request_line():
    end = b"\r\nHost: a.example\r\n\r\n"
    version = (505,)
    either = (400, 505)
    method = (400, 405, 501)
    return _table("line", [
        ("http09", b"GET /case\r\n\r\n", either),
        ("http09-with-fields", b"GET /case" + end, either),
        ("http09-trailing-space", b"GET /case " + end, either),
        ("version-0.9", b"GET /case HTTP/0.9" + end, either),
        ("version-1.2", b"GET /case HTTP/1.2" + end, version),
        ("version-1.9", b"GET /case HTTP/1.9" + end, version),
        ("version-2.0", b"GET /case HTTP/2.0" + end, version),
        ("version-3.0", b"GET /case HTTP/3.0" + end, version),
        ("version-2", b"GET /case HTTP/2" + end, either),
        ("version-1", b"GET /case HTTP/1" + end, either),
        ("version-1.", b"GET /case HTTP/1." + end, either),
        ("version-1.10", b"GET /case HTTP/1.10" + end, either),
        ("version-1.1.1", b"GET /case HTTP/1.1.1" + end, either),
        ("version-01.1", b"GET /case HTTP/01.1" + end, either),
        ("version-11.1", b"GET /case HTTP/11.1" + end, either),
        ("version-1,1", b"GET /case HTTP/1,1" + end, either),
        ("version-minus", b"GET /case HTTP/-1.1" + end, either),
        ("version-plus", b"GET /case HTTP/+1.1" + end, either),
        ("version-letter", b"GET /case HTTP/1.x" + end, either),
        ("version-lower-case", b"GET /case http/1.1" + end, either),
        ("version-other-protocol", b"GET /case ICY/1.1" + end, either),
        ("version-longer-protocol", b"GET /case HTTPS/1.1" + end, either),
        ("version-shorter-protocol", b"GET /case HTP/1.1" + end, either),
        ("version-rtsp", b"GET /case RTSP/1.0" + end, either),
        ("version-no-protocol", b"GET /case 1.1" + end, either),
        ("version-space-inside", b"GET /case HTTP /1.1" + end, either),
        ("version-space-after-slash", b"GET /case HTTP/ 1.1" + end, either),
        ("http2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", (400, 405, 501, 505)),
        ("two-spaces-before-target", b"GET  /case HTTP/1.1" + end),
        ("two-spaces-before-version", b"GET /case  HTTP/1.1" + end),
        ("leading-space", b" GET /case HTTP/1.1" + end),
        ("trailing-space", b"GET /case HTTP/1.1 " + end, either),
        ("trailing-tab", b"GET /case HTTP/1.1\t" + end, either),
        ("trailing-word", b"GET /case HTTP/1.1 x" + end, either),
        ("tab-before-target", b"GET\t/case HTTP/1.1" + end),
        ("tab-before-version", b"GET /case\tHTTP/1.1" + end),
        ("vt-before-target", b"GET\x0b/case HTTP/1.1" + end),
        ("space-in-target", b"GET /ca se HTTP/1.1" + end, either),
        ("request-in-target", b"GET / HTTP/1.1 HTTP/1.1" + end, either),
        ("no-target", b"GET HTTP/1.1" + end, either),
        ("no-method", b"/case HTTP/1.1" + end),
        ("method-alone", b"GET" + end, method),
        ("empty-method", b" /case HTTP/1.1" + end),
        ("method-lower-case", b"get /case HTTP/1.1" + end, method),
        ("method-mixed-case", b"Get /case HTTP/1.1" + end, method),
        ("method-unknown", b"FOO /case HTTP/1.1" + end, method),
        ("method-prefix", b"GE /case HTTP/1.1" + end, method),
        ("method-suffix", b"GETS /case HTTP/1.1" + end, method),
        ("method-slash", b"GE/T /case HTTP/1.1" + end, method),
        ("method-colon", b"GET: /case HTTP/1.1" + end, method),
        ("method-brace", b"{GET} /case HTTP/1.1" + end, method),
        ("method-quote", b'"GET" /case HTTP/1.1' + end, method),
        ("method-high-byte", b"G\xc9T /case HTTP/1.1" + end, method),
        ("method-bom", b"\xef\xbb\xbfGET /case HTTP/1.1" + end, method),
        ("connect", b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", method),
        ("connect-origin-form", b"CONNECT /case HTTP/1.1" + end, method),
        ("target-relative", b"GET case HTTP/1.1" + end),
        ("target-dot", b"GET ./case HTTP/1.1" + end),
        ("target-star-get", b"GET * HTTP/1.1" + end),
        ("target-starstar", b"OPTIONS ** HTTP/1.1" + end),
        ("target-query-only", b"GET ?a HTTP/1.1" + end),
        ("target-authority-get", b"GET a.example:80 HTTP/1.1" + end),
        ("target-backslash", b"GET \\case HTTP/1.1" + end),
        ("target-fragment-only", b"GET #a HTTP/1.1" + end),
        ("target-ftp", b"GET ftp://a.example/case HTTP/1.1" + end),
        ("target-scheme-empty", b"GET ://a.example/case HTTP/1.1" + end),
        ("target-http-no-slashes", b"GET http:a.example/case HTTP/1.1" + end),
        ("response-instead", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (400, 405, 501, 505)),
        ("tls-hello", bytes.fromhex("16030100a5010000a10303") + bytes(range(32)) + b"\x20" + bytes(range(32))
         + b"\x00\x04\x13\x01\x13\x02\x01\x00" + b"\x00" * 90, (400, 501)),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", (400, 405, 501, 505)),
        ("smtp", b"EHLO a.example\r\n\r\n", (400, 405, 501, 505)),
        ("proxy-protocol", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + GET + b"\r\n", (400, 405, 501, 505)),
        ("high-bytes", b"\xff" * 64 + b"\r\n\r\n", (400, 501)),
        ("redis", b"*1\r\n$4\r\nPING\r\n\r\n", (400, 405, 501, 505)),
    ])


def cases():
    return (_smuggling() + _transfer_encoding() + _content_length() + _field_syntax() + _control_bytes() + _chunks()
            + _floods() + _host() + _request_line())


CASES = cases()
assert len({str(case) for case in CASES}) == len(CASES), "every case has a name of its own"
