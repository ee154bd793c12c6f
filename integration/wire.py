"""HTTP/1.1 as bytes: a strict parser for both directions and a client that sends exactly what it is told.

The parser is the judge of these tests, so it is stricter than RFC 9112 asks a recipient to be: every line ends in
CRLF, every name is a token, no value holds a control byte, framing is stated once, chunks carry no extensions
(a proxy that re-frames has none to relay). Whatever it refuses raises ProtocolError with the offending bytes.
"""
import array
import dataclasses
import fcntl
import os
import re
import socket
import struct
import termios
import threading
import time

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)\Z")
REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+) (HTTP/1\.[01])\Z")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}\Z")
LINE_MAX = 1 << 20
PATIENCE = 10.0  # seconds a single read may wait before the test calls it a hang


class ProtocolError(AssertionError):
    """The other side broke HTTP/1.1."""


class Truncated(ProtocolError):
    """The connection ended inside a message."""


class TimedOut(ProtocolError):
    """Nothing arrived in time."""


@dataclasses.dataclass
class Message:
    version: bytes = b""
    fields: list = dataclasses.field(default_factory=list)  # (name as sent, value)
    body: bytes = b""
    trailers: list = dataclasses.field(default_factory=list)
    framing: str = "none"  # none | length | chunked | close
    complete: bool = False

    def all(self, name):
        """Every value of a field, in order."""
        name = name.encode() if isinstance(name, str) else name
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def one(self, name):
        """The field's only value, None when absent; two lines of it are an error."""
        values = self.all(name)
        if len(values) > 1:
            raise ProtocolError(f"{name!r} came {len(values)} times: {values!r}")
        return values[0] if values else None

    def tokens(self, name):
        return [item.strip().lower() for value in self.all(name) for item in value.split(b",") if item.strip()]


@dataclasses.dataclass
class Request(Message):
    method: bytes = b""
    target: bytes = b""


@dataclasses.dataclass
class Response(Message):
    status: int = 0
    reason: bytes = b""
    interim: list = dataclasses.field(default_factory=list)  # the 1xx answers before this one

    @property
    def closes(self):
        return b"close" in self.tokens("connection")


class Wire:
    """A buffered reader over one socket. `received` keeps every byte when asked to."""

    def __init__(self, sock, patience=PATIENCE, keep=False):
        self.sock = sock
        self.patience = patience
        self.buffer = bytearray()
        self.received = bytearray() if keep else None
        self.ended = None  # None | "eof" | "reset"

    def fill(self):
        """Reads once; False at the end of the stream."""
        if self.ended:
            return False
        self.sock.settimeout(self.patience)
        try:
            data = self.sock.recv(1 << 17)
        except (TimeoutError, BlockingIOError):
            raise TimedOut(f"no byte in {self.patience} s; held so far: {bytes(self.buffer[:300])!r}") from None
        except (ConnectionError, OSError):
            self.ended = "reset"
            return False
        if not data:
            self.ended = "eof"
            return False
        self.buffer += data
        if self.received is not None:
            self.received += data
        return True

    def line(self):
        """One line without its CRLF; a lone CR or LF is an error."""
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > LINE_MAX:
                raise ProtocolError("a line without an end")
            if not self.fill():
                raise Truncated(f"{self.ended} inside a line: {bytes(self.buffer[:300])!r}")
        line = bytes(self.buffer[:end])
        del self.buffer[:end + 1]
        if not line.endswith(b"\r") or b"\r" in line[:-1]:
            raise ProtocolError(f"bare CR or LF in {line[:300]!r}")
        return line[:-1]

    def exactly(self, count):
        while len(self.buffer) < count:
            if not self.fill():
                raise Truncated(f"{self.ended} {count - len(self.buffer)} bytes before the end")
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def rest(self):
        """Everything until the other side closes."""
        while self.fill():
            pass
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def at_end(self):
        """True when the stream ended cleanly between messages (waits for the next byte)."""
        return not self.buffer and not self.fill()

    def field_lines(self):
        fields = []
        while line := self.line():
            name, colon, value = line.partition(b":")
            if not colon or not TOKEN.match(name):
                raise ProtocolError(f"bad field line {line[:300]!r}")
            value = value.strip(b" \t")
            if not VALUE.match(value):
                raise ProtocolError(f"control byte in {line[:300]!r}")
            fields.append((name, value))
        return fields

    def body_of(self, message, close_delimited):
        """Reads the body; what arrived before a truncation stays in message.body."""
        lengths = message.all("content-length")
        codings = message.all("transfer-encoding")
        if codings and lengths:
            raise ProtocolError("Content-Length beside Transfer-Encoding")
        if codings:
            if codings != [b"chunked"] or message.version != b"HTTP/1.1":
                raise ProtocolError(f"Transfer-Encoding {codings!r} in {message.version!r}")
            message.framing = "chunked"
            self._chunked(message)
        elif lengths:
            if len(lengths) != 1 or not re.match(rb"[0-9]{1,18}\Z", lengths[0]):
                raise ProtocolError(f"Content-Length {lengths!r}")
            message.framing = "length"
            self._counted(message, int(lengths[0]))
        elif close_delimited:
            message.framing = "close"
            message.body = self.rest()
            if self.ended == "reset":
                raise Truncated("reset inside a body that ends with the connection")
        message.complete = True
        return message

    def _counted(self, message, count):
        body = bytearray()
        while len(body) < count:
            if not self.buffer and not self.fill():
                message.body = bytes(body)
                raise Truncated(f"{self.ended} after {len(body)} of {count} bytes")
            take = self.buffer[:count - len(body)]
            body += take
            del self.buffer[:len(take)]
        message.body = bytes(body)

    def _chunked(self, message):
        body = bytearray()
        try:
            while True:
                line = self.line()
                if not CHUNK_SIZE.match(line):
                    raise ProtocolError(f"bad chunk size line {line[:300]!r}")
                size = int(line, 16)
                if size == 0:
                    message.trailers = self.field_lines()
                    return
                body += self.exactly(size)
                if self.exactly(2) != b"\r\n":
                    raise ProtocolError("no CRLF after a chunk")
        finally:
            message.body = bytes(body)

    def request_head(self):
        line = self.line()
        match = REQUEST_LINE.match(line)
        if not match:
            raise ProtocolError(f"bad request line {line[:300]!r}")
        request = Request(method=match[1], target=match[2], version=match[3], fields=self.field_lines())
        hosts = request.all("host")
        if len(hosts) > 1 or (not hosts and request.version == b"HTTP/1.1"):
            raise ProtocolError(f"Host {hosts!r} in {line!r}")
        return request

    def response_head(self):
        line = self.line()
        match = STATUS_LINE.match(line)
        if not match:
            raise ProtocolError(f"bad status line {line[:300]!r}")
        return Response(version=match[1], status=int(match[2]), reason=match[3], fields=self.field_lines())

    def response(self, method=b"GET"):
        """The next final answer with its body; 1xx before it are in `interim`. A truncated one is attached to the error."""
        interim = []
        while True:
            response = self.response_head()
            if response.status >= 200 or response.status == 101:
                break
            if response.all("content-length") or response.all("transfer-encoding"):
                raise ProtocolError(f"framing fields in a {response.status}")
            interim.append(response)
        response.interim = interim
        if response.status in (101, 204) and (response.all("content-length") or response.all("transfer-encoding")):
            raise ProtocolError(f"framing fields in a {response.status}")
        try:
            if method == b"HEAD" or response.status in (101, 204, 304):
                response.complete = True
                return response
            return self.body_of(response, close_delimited=True)
        except ProtocolError as error:
            error.response = response
            raise


def unsent_bytes(sock):
    """Bytes in the send queue that the peer's kernel has not acknowledged."""
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
    return count[0]


def pieces(data, rng):
    """Cuts data at random: single bytes at first (heads), growing towards the end (bodies)."""
    at = 0
    while at < len(data):
        top = 3 if at < 64 else 64 if at < 1024 else 16384
        size = rng.randint(1, top)
        yield data[at:at + size]
        at += size


class RawClient:
    """One TCP connection to the proxy."""

    def __init__(self, port, patience=PATIENCE, rng=None, receive_buffer=None):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(patience)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wire = Wire(self.sock, patience)
        self.rng = rng
        self.send_error = None
        self._sender = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        """Sends the bytes (cut at random when the client has an rng). A closed peer is noted, not raised."""
        try:
            if self.rng is None:
                self.sock.sendall(data)
            else:
                for count, piece in enumerate(pieces(data, self.rng)):
                    self.sock.sendall(piece)
                    os.sched_yield()
                    if count < 200:  # let the first cuts really reach the other side as separate segments
                        deadline = time.monotonic() + 1
                        while unsent_bytes(self.sock) and time.monotonic() < deadline:
                            os.sched_yield()
        except (OSError, ValueError) as error:  # ValueError: closed here meanwhile
            self.send_error = error

    def send_in_background(self, data):
        self._sender = threading.Thread(target=self.send, args=(data,), daemon=True)
        self._sender.start()

    def sent(self, patience=PATIENCE):
        """Waits for the background send; True when it ended."""
        self._sender.join(patience)
        return not self._sender.is_alive()

    def half_close(self):
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.send_error = error

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def response(self, method=b"GET"):
        return self.wire.response(method)

    def request(self, data, method=None):
        self.send(data)
        return self.response(method or data.split(b" ", 1)[0])

    def assert_closed(self):
        """The proxy must end the connection, and send nothing more before it does."""
        left = self.wire.rest()
        assert left == b"", f"bytes after the last answer: {left[:500]!r}"

    def close(self):
        self.sock.close()
        if self._sender:
            self._sender.join(PATIENCE)


def chunked(body, rng=None, trailers=(), extension=b""):
    """The chunked form of a body, in one chunk or cut at random."""
    out = bytearray()
    at = 0
    while at < len(body):
        size = len(body) - at
        if rng is not None:
            size = min(size, rng.choice([1, 2, 15, 16, 17, 255, 1000, 4096, 16384, 65537]))
        out += b"%x%s\r\n" % (size, extension) + body[at:at + size] + b"\r\n"
        at += size
    out += b"0\r\n" + b"".join(b"%s: %s\r\n" % pair for pair in trailers) + b"\r\n"
    return bytes(out)
