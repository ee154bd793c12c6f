"""A name server for tests: answers over UDP what `zone` holds at that moment, NXDOMAIN for the rest, and counts."""
import socket
import struct
import threading

TYPES = {1: "A", 28: "AAAA", 33: "SRV"}


def encode_name(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"


def encode_record(kind, value):
    if kind == "A":
        return socket.inet_pton(socket.AF_INET, value)
    if kind == "AAAA":
        return socket.inet_pton(socket.AF_INET6, value)
    priority, weight, port, target = value
    return struct.pack("!HHH", priority, weight, port) + encode_name(target)


class DnsServer:
    """zone: {(name, "A"|"AAAA"|"SRV"): (ttl, [values])}; a name of which another type exists answers empty, not NXDOMAIN."""

    def __init__(self, zone, port=53):
        self.zone = dict(zone)
        self.failing = False  # SERVFAIL to everything
        self.silent = False
        self.asked = []
        self._closing = False
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closing = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
            wake.sendto(b"", self._sock.getsockname())
        self._thread.join(5)
        self._sock.close()

    def count(self, name):
        return sum(1 for asked, _ in list(self.asked) if asked == name)

    def _serve(self):
        while not self._closing:
            query, peer = self._sock.recvfrom(4096)
            if len(query) < 17:
                continue
            labels = []
            at = 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
                at += 1 + query[at]
            name = ".".join(labels)
            kind = TYPES.get(struct.unpack("!H", query[at + 1:at + 3])[0], "?")
            question = query[12:at + 5]
            self.asked.append((name, kind))
            if not self.silent:
                self._sock.sendto(self._answer(query[:2], question, name, kind), peer)

    def _answer(self, identity, question, name, kind):
        ttl, values = self.zone.get((name, kind), (0, []))
        known = any(have == name for have, _ in self.zone)
        code = 2 if self.failing else 0 if known else 3
        records = [] if code else values
        head = identity + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        body = b""
        for value in records:
            data = encode_record(kind, value)
            number = {text: n for n, text in TYPES.items()}[kind]
            body += b"\xc0\x0c" + struct.pack("!HHIH", number, 1, ttl, len(data)) + data
        return head + question + body
