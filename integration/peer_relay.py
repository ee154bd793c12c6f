"""Between the nodes of a quorum: a relay for each, through which the others reach it, so that a test can cut any direction alone.

It is a process of its own (the tests' threads must not slow down an election) and needs no rights: CI runs it on the loopback. Who
calls is read from the greeting, since all nodes of a cluster are given the same list of peers.

A direction that is held is a network that drops its packets: what a node sends that way stays where it is, even that it has ended, and
arrives when the partition heals, as TCP would send it again; connections and greetings get no answer. (In a real network a connection
whose acknowledgements are lost stalls in the other direction too, sooner or later; here that direction goes on.)

What passes may also be delayed, in all directions alike: a network whose other end is far away.

On stdin `hold FROM TO`, `delay MILLISECONDS`, `heal` (which ends both); each is answered with `done` when it is in force. Ends with its stdin.
"""
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections import deque

BUFFER_MAX = 1 << 20


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    """Number and value of each field of a protobuf message that has but varints and strings."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        yield tag >> 3, value


def caller(data):
    """The name in the greeting that a connection begins with; None: it is not all there. control/node/frame.h, node.proto."""
    if len(data) < 8 or len(data) < 8 + struct.unpack_from("<I", data)[0]:
        return None
    payload = bytes(data[8:8 + struct.unpack_from("<I", data)[0]])
    for number, value in fields(payload):
        if number == 1:  # Frame.hello
            return next((name.decode() for field, name in fields(value) if field == 4), "")
    return ""


class End:
    """One socket of a pair: what was read from it, until it has gone to the other."""

    def __init__(self, pair, sock):
        self.pair = pair
        self.sock = sock
        self.other = None
        self.data = bytearray()
        self.late = deque()  # behind data: what is still under way, with when it arrives
        self.ended = False
        self.name = None  # of the node behind it
        self.told = False  # something of it has reached the other
        self.interest = 0


class Relay:
    def __init__(self, targets):
        self.selector = selectors.DefaultSelector()
        self.held = set()
        self.delay = 0
        self.pairs = set()
        self.ports = {}
        self.input = bytearray()
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ, self._command)
        for name, port in targets.items():
            listener = socket.create_server(("127.0.0.1", 0))
            listener.setblocking(False)
            self.ports[name] = listener.getsockname()[1]
            self.selector.register(listener, selectors.EVENT_READ, lambda mask, l=listener, n=name, p=port: self._accept(l, n, p))

    def run(self):
        while True:
            for key, mask in self.selector.select(self._arrive()):
                key.data(mask)

    def _arrive(self):
        """In how many seconds what is under way arrives next."""
        now = time.monotonic()
        for pair in list(self.pairs):
            due = [end for end in pair if end.late and end.late[0][0] <= now]
            for end in due:
                while end.late and end.late[0][0] <= now:
                    end.data += end.late.popleft()[1]
            if due:
                self._settle(pair)
        times = [end.late[0][0] for pair in self.pairs for end in pair if end.late]
        return max(0, min(times) - now) if times else None

    def _command(self, _):
        text = os.read(0, 4096)
        if not text:
            sys.exit(0)
        self.input += text
        while b"\n" in self.input:
            line, _, self.input = self.input.partition(b"\n")
            words = line.decode().split()
            if words[0] == "hold":
                self.held.add((words[1], words[2]))
            elif words[0] == "delay":
                self.delay = int(words[1]) / 1000
            else:
                self.held.clear()
                self.delay = 0
                # What did not come to be a connection does not become one later: its packets are gone.
                for pair in [pair for pair in self.pairs if not all(end.told for end in pair)]:
                    self._close(pair)
            for pair in list(self.pairs):
                self._settle(pair)
            print("done", flush=True)

    def _accept(self, listener, name, port):
        try:
            near, _ = listener.accept()
        except OSError:
            return
        far = socket.socket()
        near.setblocking(False)
        far.setblocking(False)
        far.connect_ex(("127.0.0.1", port))
        pair = set()
        ends = End(pair, near), End(pair, far)
        pair = frozenset(ends)
        for end, other in (ends, ends[::-1]):
            end.pair, end.other = pair, other
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends[1].name = name
        self.pairs.add(pair)
        self._settle(pair)

    def _blocked(self, end):
        """What comes from it may not go on: that direction is held, or it has not said who it is."""
        if end.other.name is None:
            return bool(self.held)  # an answer to nobody known yet
        return end.name is None or (end.name, end.other.name) in self.held

    def _settle(self, pair):
        """Moves what may move, and waits for what may come."""
        for end in pair:
            if end.name is None:
                end.name = caller(end.data)
        for end in pair:
            if end.ended and not self._blocked(end) and not end.data and not end.late:
                self._close(pair)
                return
        for end in pair:
            interest = 0
            hungry = not self._blocked(end) or end.name is None
            if hungry and not end.ended and len(end.data) < BUFFER_MAX:
                interest |= selectors.EVENT_READ
            if end.other.data and not self._blocked(end.other) and not end.ended:
                interest |= selectors.EVENT_WRITE
            if end.ended and not self._blocked(end.other):
                end.other.data.clear()  # nobody is there to take it
                end.other.late.clear()
            self._wait(end, interest)

    def _wait(self, end, interest):
        if interest == end.interest:
            return
        if end.interest:
            self.selector.unregister(end.sock)
        if interest:
            self.selector.register(end.sock, interest, lambda mask: self._ready(end, mask))
        end.interest = interest

    def _ready(self, end, mask):
        if end.pair not in self.pairs:
            return
        try:
            if mask & selectors.EVENT_WRITE and end.other.data:
                sent = end.sock.send(end.other.data)
                del end.other.data[:sent]
                end.other.told = True
            if mask & selectors.EVENT_READ and end.interest & selectors.EVENT_READ:
                data = end.sock.recv(1 << 16)
                if self.delay or end.late:
                    end.late.append((time.monotonic() + self.delay, data))
                else:
                    end.data += data
                end.ended = end.ended or not data
        except BlockingIOError:
            pass
        except OSError:
            end.ended = True
        if end.ended and end.name is None:
            self._close(end.pair)
        else:
            self._settle(end.pair)

    def _close(self, pair):
        self.pairs.discard(pair)
        for end in pair:
            self._wait(end, 0)
            end.sock.close()


class PeerRelay:
    """The process, from the test's side. `targets`: where each node listens; `peers`: what all are told instead."""

    def __init__(self, targets):
        self.child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", sys.executable, "-B", __file__, json.dumps(targets)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        ports = json.loads(self.child.stdout.readline())
        self.peers = {name: f"127.0.0.1:{port}" for name, port in ports.items()}

    def _say(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        assert self.child.stdout.readline() == "done\n", "the relay has ended"

    def hold(self, sender, receiver):
        self._say(f"hold {sender} {receiver}")

    def delay(self, milliseconds):
        self._say(f"delay {milliseconds}")

    def heal(self):
        self._say("heal")

    def close(self):
        self.child.stdin.close()
        self.child.wait(10)
        self.child.stdout.close()


def main():
    relay = Relay(json.loads(sys.argv[1]))
    print(json.dumps(relay.ports), flush=True)
    relay.run()


if __name__ == "__main__":
    main()
