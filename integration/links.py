"""A network for the nodes of a quorum: each in a network namespace of its own, all plugged into one switch, which loses what it is told to.

What peer_relay.py cannot show happens here: packets vanish, so that nobody is told that a connection has ended, TCP sends again and waits
longer each time, ARP finds nobody, an interface goes down. The switch is a process that forwards the frames of TAP devices: the kernel's own
loss and delay (tc netem) are not on every machine.

Needs no rights but those of a user namespace of its own: enter() starts the program again in one. Where that is not permitted
(containers mostly, some hardened kernels) Unavailable says why.

The switch is told on its stdin, and answers `done`: `cut FROM TO`, `loss SHARE`, `delay SECONDS`, `heal`. Port 0 is that of the clients, which
is never harmed. It ends with its stdin.
"""
import ctypes
import fcntl
import heapq
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time

INSIDE = "OUTRIDER_LINKS"  # the environment says that this is the namespace
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
DEVICE = "eth0"


class Unavailable(Exception):
    """There are no such networks here, and why."""


def own_namespace():
    return ["unshare", "--user", "--map-root-user", "--net", "--"]


def check_available():
    """Tries it, in a process of its own."""
    probe = [*own_namespace(), sys.executable, "-B", "-c", "import links; links.Port(1).close()"]
    try:
        done = subprocess.run(probe, capture_output=True, text=True, timeout=20, cwd=os.path.dirname(os.path.abspath(__file__)))
    except OSError as error:
        raise Unavailable(f"no network namespaces: {error}") from None
    if done.returncode != 0:
        raise Unavailable(f"no network namespaces: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def enter():
    """This program once more, in a network of its own; returns in there."""
    if INSIDE in os.environ:
        return
    check_available()
    sys.stdout.flush()
    os.environ[INSIDE] = "1"
    os.execvp("unshare", [*own_namespace(), sys.executable, "-B", *sys.argv])


def libc_call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def address(number):
    return f"10.77.0.{number + 1}"


def hardware_address(number):
    return f"02:00:00:00:00:{number:02x}"


class Port:
    """A namespace with one interface, whose other end is `tap`. Port 0: the namespace that the program is in. Before any thread is started."""

    def __init__(self, number):
        self.number = number
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if number != 0:
                libc_call("unshare", CLONE_NEWNET)
            self.namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            fcntl.ioctl(self.tap, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TAP | IFF_NO_PI))
            for words in (["set", "lo", "up"], ["set", DEVICE, "address", hardware_address(number)], ["set", DEVICE, "up"]):
                subprocess.run(["ip", "link", *words], check=True)
            subprocess.run(["ip", "address", "add", f"{address(number)}/24", "dev", DEVICE], check=True)
        finally:
            libc_call("setns", home, CLONE_NEWNET)
            os.close(home)

    def prefix(self):
        """What runs a program in there."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.namespace}", "--"]

    def set_up(self, up):
        subprocess.run([*self.prefix(), "ip", "link", "set", DEVICE, "up" if up else "down"], check=True)

    def close(self):
        os.close(self.tap)
        os.close(self.namespace)


class Switch:
    """The process. Ports are numbered as in Port."""

    def __init__(self, taps, seed):
        self.taps = taps
        self.rng = random.Random(seed)
        self.cut = set()
        self.loss = 0.0
        self.delay = 0.0
        self.late = []  # (when, order, port, frame)
        self.order = 0
        self.input = bytearray()
        self.selector = selectors.DefaultSelector()
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ, None)
        for number, tap in enumerate(taps):
            self.selector.register(tap, selectors.EVENT_READ, number)

    def run(self):
        while True:
            patience = max(0.0, self.late[0][0] - time.monotonic()) if self.late else None
            for key, _ in self.selector.select(patience):
                if key.data is None:
                    self._command()
                else:
                    self._read(key.data)
            while self.late and self.late[0][0] <= time.monotonic():
                _, _, port, frame = heapq.heappop(self.late)
                self._write(port, frame)

    def _command(self):
        text = os.read(0, 4096)
        if not text:
            sys.exit(0)
        self.input += text
        while b"\n" in self.input:
            line, _, self.input = self.input.partition(b"\n")
            what, *rest = line.decode().split()
            if what == "cut":
                self.cut.add((int(rest[0]), int(rest[1])))
            elif what == "loss":
                self.loss = float(rest[0])
            elif what == "delay":
                self.delay = float(rest[0])
            else:
                self.cut.clear()
                self.loss = self.delay = 0.0
            print("done", flush=True)

    def _read(self, source):
        for _ in range(64):  # the others have their turns
            try:
                frame = os.read(self.taps[source], 1 << 16)
            except BlockingIOError:
                return
            except OSError:  # the interface is down
                return
            if frame[0] & 1:
                targets = [port for port in range(len(self.taps)) if port != source]
            else:
                targets = [frame[5]] if frame[5] < len(self.taps) else []
            for target in targets:
                self._forward(source, target, frame)

    def _forward(self, source, target, frame):
        between_nodes = source != 0 and target != 0
        if (source, target) in self.cut or (between_nodes and self.rng.random() < self.loss):
            return
        if between_nodes and self.delay:
            # In order, as one cable would: a frame is never overtaken.
            self.order += 1
            heapq.heappush(self.late, (time.monotonic() + self.delay, self.order, target, frame))
        else:
            self._write(target, frame)

    def _write(self, port, frame):
        try:
            os.write(self.taps[port], frame)
        except OSError:  # full, or down: it is lost
            pass


class Network:
    """The namespaces and the switch, from the test's side. Nodes are numbered from 1 on."""

    def __init__(self, nodes, seed=0):
        assert INSIDE in os.environ, "enter() first"
        self.ports = [Port(number) for number in range(nodes + 1)]
        taps = [port.tap for port in self.ports]
        self.child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", sys.executable, "-B", __file__, json.dumps([taps, seed])],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=taps, start_new_session=True)

    def _say(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        assert self.child.stdout.readline() == "done\n", "the switch has ended"

    def cut(self, sender, receiver):
        """Numbers; 0: the clients."""
        self._say(f"cut {sender} {receiver}")

    def degrade(self, loss, delay):
        """Of all that goes from node to node."""
        self._say(f"loss {loss}")
        self._say(f"delay {delay}")

    def heal(self):
        self._say("heal")

    def close(self):
        self.child.stdin.close()
        self.child.wait(10)
        self.child.stdout.close()
        for port in self.ports:
            port.close()


if __name__ == "__main__":
    Switch(*json.loads(sys.argv[1])).run()
