"""An upstream that does what a script says and remembers every byte it was sent.

One thread accepts, one serves each connection. A script is a function of an Exchange; it is called when a request's
head is complete, so it can answer early, cut the connection, or read the body first (`read_body`).
"""
import array
import fcntl
import select
import socket
import struct
import termios
import threading
import time

from wire import PATIENCE, ProtocolError, Truncated, Wire, chunked


class UpstreamConnection:
    def __init__(self, sock, number):
        self.sock = sock
        self.number = number
        self.wire = Wire(sock, patience=60, keep=True)
        self.closed_by_proxy = threading.Event()
        self.closed_here = False
        self.requests = []  # heads, in order
        self.state = "idle"  # idle: between messages | head: reading one | script
        self.replied = False  # the script has begun its answer: the proxy may send the next request before we look for it

    def next_head(self):
        """The next request's head, None at the end. The first byte is only looked at until the state says `head`."""
        self.state = "idle"
        self.replied = False
        if not self.wire.buffer:
            self.sock.settimeout(None)
            try:
                self.sock.recv(1, socket.MSG_PEEK)
            except OSError:
                return None
        self.state = "head"
        if self.wire.at_end():
            return None
        request = self.wire.request_head()
        self.requests.append(request)
        return request

    def settled(self):
        """True when it has no bytes before it that nobody has looked at yet."""
        if self.closed_here or self.closed_by_proxy.is_set() or (self.state == "script" and not self.replied):
            return True
        pending = array.array("i", [0])
        try:
            fcntl.ioctl(self.sock.fileno(), termios.FIONREAD, pending)
        except (OSError, ValueError):
            return True
        return self.state in ("idle", "script") and pending[0] == 0

    @property
    def received(self):
        """Exactly the bytes the proxy sent on this connection."""
        return bytes(self.wire.received)

    def send(self, data):
        self.sock.sendall(data)

    def close(self):
        """FIN in both directions. Unread bytes are drained first so that the kernel does not make it a reset."""
        self.closed_here = True
        try:
            self.sock.setblocking(False)
            while self.sock.recv(1 << 16):
                pass
        except OSError:
            pass
        self.sock.close()

    def reset(self):
        self.closed_here = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def wait_closed(self, patience=PATIENCE):
        """Reads (and keeps) until the proxy closes; False when it does not in time."""
        self.wire.patience = patience
        try:
            while self.wire.fill():
                pass
        except ProtocolError:
            return False
        self.closed_by_proxy.set()
        return True


class Exchange:
    def __init__(self, upstream, connection, request):
        self.upstream = upstream
        self.connection = connection
        self.request = request

    def read_body(self):
        if not self.request.complete:
            try:
                self.connection.wire.body_of(self.request, close_delimited=False)
            except ProtocolError:
                self.upstream._note(self.upstream.truncated, self.request)
                raise
            self.upstream._note(self.upstream.requests, self.request)
        return self.request.body

    def send(self, data):
        self.connection.send(data)

    def reply(self, status=200, body=b"ok", fields=(), framing="length", trailers=(), rng=None, version=b"HTTP/1.1"):
        """A well-formed answer in the framing asked for: length | chunked | close | none."""
        self.connection.replied = True
        head = b"%s %d Reason\r\n" % (version, status)
        head += b"".join(b"%s: %s\r\n" % pair for pair in fields)
        if framing == "length":
            head += b"Content-Length: %d\r\n\r\n" % len(body)
            payload = body
        elif framing == "chunked":
            head += b"Transfer-Encoding: chunked\r\n\r\n"
            payload = chunked(body, rng, trailers)
        elif framing == "close":
            head += b"Connection: close\r\n\r\n"
            payload = body
        else:
            head += b"\r\n"
            payload = b""
        if self.request.method == b"HEAD":
            payload = b""
        self.send(head + payload)
        if framing == "close":
            self.connection.close()


def answer_ok(exchange):
    """The default script: read the whole request, answer 200 with what was asked for."""
    exchange.read_body()
    exchange.reply(body=exchange.request.target)


class ScriptedUpstream:
    """Invariants: `requests` holds only requests that arrived whole; `errors` everything that was not HTTP/1.1."""

    def __init__(self, script=answer_ok, port=0):
        self.script = script
        self.requests = []   # complete
        self.heads = []      # every head, complete or not
        self.truncated = []  # the connection ended inside their body
        self.errors = []
        self.connections = []
        self._changed = threading.Condition()
        self._threads = []
        self._accepting = False
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for connection in list(self.connections):
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads + [self._acceptor]:
            thread.join(2)
        for connection in self.connections:
            connection.sock.close()

    def clear(self, script=answer_ok):
        """A fresh start for the next test: script and records, not the connections that are open."""
        with self._changed:
            self.script = script
            for record in (self.requests, self.heads, self.truncated, self.errors):
                record.clear()
            self.connections = [c for c in self.connections if not c.closed_by_proxy.is_set() and not c.closed_here]

    def wait_for(self, condition, patience=PATIENCE):
        """Waits until condition() holds; it is asked again after every change of the records."""
        deadline = time.monotonic() + patience
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.05))
        return True

    def _note(self, record, item):
        with self._changed:
            record.append(item)
            self._changed.notify_all()

    def settled(self):
        """True when every byte that has arrived has been looked at: the records are up to date."""
        if self._accepting or select.select([self._listener], [], [], 0)[0]:
            return False
        return all(connection.settled() for connection in list(self.connections))

    def _accept(self):
        while True:
            try:
                select.select([self._listener], [], [])
                self._accepting = True
                sock, _ = self._listener.accept()
            except (OSError, ValueError):
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = UpstreamConnection(sock, len(self.connections))
            self._note(self.connections, connection)
            self._accepting = False
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()
            self._threads.append(thread)  # stop() joins what is here

    def _serve(self, connection):
        try:
            while not connection.closed_here and (request := connection.next_head()):
                self._note(self.heads, request)
                connection.state = "script"
                exchange = Exchange(self, connection, request)
                self.script(exchange)
                if connection.closed_here:
                    return
                exchange.read_body()
        except Truncated as error:
            if not any(request.complete is False for request in connection.requests):
                self._note(self.errors, f"connection {connection.number}: {error}")  # inside a head
        except (ProtocolError, OSError) as error:
            if not connection.closed_here and not isinstance(error, OSError):
                self._note(self.errors, f"connection {connection.number}: {error}")
        finally:
            if not connection.closed_here:
                connection.sock.close()
            connection.closed_by_proxy.set()
            with self._changed:
                self._changed.notify_all()
