"""Clients that are slow on purpose are gone within 10 s, and while they are there everybody else is served at once.

OUTRIDER_SLOW_CONNECTIONS=4000 is the large version; the figures are printed after the results. Each test takes about
10 s of waiting; those of slowhttptest (Debian's package) are left out where it is not installed.
"""
import os
import re
import resource
import select
import shutil
import socket
import subprocess
import threading
import time

import pytest

from sidecar import Sidecar, app, ask, cluster, route, wait_until
from wire import ProtocolError, RawClient

CONNECTIONS = int(os.environ.get("OUTRIDER_SLOW_CONNECTIONS", "600"))
GONE = 10.0   # seconds
SLACK = 1.5   # of a busy machine, and of a timer's step
PROBE_EVERY = 0.1
PROBE_MAX = 1.0
LISTENER = {"header_timeout": "8s", "idle_timeout": "8s", "body_idle_timeout": "8s"}


@pytest.fixture(scope="module")
def sidecar():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS * 2 + 500
    if hard < wanted:
        pytest.skip(f"{wanted} open files are needed, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    # The applications are sidecars, too: quick, patient, and no part of this process. The probe has one of its own.
    patient = {"min_body_rate": "0", "min_read_rate": "0", "header_timeout": "2m", "idle_timeout": "2m", "body_idle_timeout": "2m"}

    def application(body):
        return Sidecar(route("rest", respond={"body": body}), inbound=patient, log={"access": "off"})

    # Bodies go to one that waits for them.
    with application("fast") as fast, application("b" * min(3_000_000, 1_800_000_000 // CONNECTIONS)) as big, app() as sink:
        sink._listener.listen(4096)  # all of them at once
        body = (route("probe", match={"path": "/probe"}, cluster="fast") + route("bodies", match={"methods": ["POST"]}, cluster="sink")
                + route("rest", cluster="big") + cluster("fast", fast.port) + cluster("big", big.port) + cluster("sink", sink.port))
        with Sidecar(body, workers=2, inbound=LISTENER, runtime={"max_connections": 3 * CONNECTIONS + 100}) as one:
            yield one


class Probe:
    """A new connection each 100 ms: 200 within a second, always."""

    def __init__(self, sidecar):
        self.sidecar = sidecar
        self.took = []
        self.bad = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(10)

    def _run(self):
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                with RawClient(self.sidecar.port, patience=5) as client:
                    status = ask(client, "/probe", last=True).status
            except (ProtocolError, OSError) as error:
                status = repr(error)
            took = time.monotonic() - began
            self.took.append(took)
            if status != 200 or took > PROBE_MAX:
                self.bad.append((status, round(took, 3)))
            self.stopping.wait(max(0.0, PROBE_EVERY - took))

    def verdict(self):
        assert len(self.took) >= 20
        assert not self.bad, f"{len(self.bad)} of {len(self.took)} probes: {self.bad[:5]}"

    def figures(self):
        ordered = sorted(self.took)
        return (f"{len(ordered)} probes, median {ordered[len(ordered) // 2] * 1000:.1f} ms, "
                f"p99 {ordered[int(len(ordered) * 0.99)] * 1000:.1f} ms, longest {ordered[-1] * 1000:.1f} ms")


def open_connections(sidecar):
    return sidecar.json("/server_info")["connections"]


class Attackers:
    """CONNECTIONS sockets driven by one thread: each sends `drip()` once a second and reads as slowly as it is told to."""

    def __init__(self, sidecar, first, drip=None, receive_buffer=None, reads=True):
        self.sockets = {}
        self.drip = drip
        self.reads = reads
        self.gone = []
        self.answers = []
        for _ in range(CONNECTIONS):
            sock = socket.socket()
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.settimeout(5)
            sock.connect(("127.0.0.1", sidecar.port))
            sock.sendall(first)
            sock.setblocking(False)
            self.sockets[sock.fileno()] = sock
        self.began = time.monotonic()

    def run(self, patience):
        """Until every one has been closed by the sidecar; False when some are left after `patience`."""
        poller = select.poll()
        events = select.POLLIN | select.POLLRDHUP if self.reads else 0
        for number in self.sockets:
            poller.register(number, events)
        next_drip = time.monotonic() + 1
        while self.sockets and time.monotonic() - self.began < patience:
            for number, event in poller.poll(100):
                self._event(poller, number, event)
            if self.drip and time.monotonic() >= next_drip:
                next_drip += 1
                for number in list(self.sockets):
                    try:
                        self.sockets[number].send(self.drip)
                    except BlockingIOError:
                        pass
                    except OSError:
                        self._end(poller, number)
        return not self.sockets

    def _event(self, poller, number, event):
        if number not in self.sockets:
            return
        if event & (select.POLLHUP | select.POLLERR):
            self._end(poller, number)
            return
        try:
            data = self.sockets[number].recv(512)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.answers.append(data[:12])
        else:
            self._end(poller, number)

    def _end(self, poller, number):
        poller.unregister(number)
        self.sockets.pop(number).close()
        self.gone.append(time.monotonic() - self.began)

    def close(self):
        for sock in self.sockets.values():
            sock.close()


def attack(sidecar, report, title, **options):
    """Own sockets: the verdict is that of the clients AND of the sidecar's own count."""
    with Probe(sidecar) as probe:
        attackers = Attackers(sidecar, **options)
        try:
            wait_until(lambda: open_connections(sidecar) >= CONNECTIONS * 0.9, 4, "the attack's begin")
            watch_until_gone(sidecar, attackers)
        finally:
            attackers.close()
    report.append(f"slow: {title}: {CONNECTIONS} connections, all gone after {attackers.last:.1f} s; {probe.figures()}")
    assert attackers.last <= GONE + SLACK, attackers.last
    probe.verdict()
    return attackers


def watch_until_gone(sidecar, attackers):
    runner = threading.Thread(target=attackers.run, args=(GONE + 10,), daemon=True)
    runner.start()
    deadline = attackers.began + GONE + 10
    while (count := open_connections(sidecar)) > 2:  # the probe's own
        if time.monotonic() > deadline:
            raise AssertionError(f"{count} connections are left {GONE + 10} s after the attack began")
        time.sleep(0.1)  # the pause of a poll, bounded by the deadline
    attackers.last = time.monotonic() - attackers.began
    if attackers.reads:
        runner.join(10)


def test_heads_that_never_end(sidecar, report):
    attackers = attack(sidecar, report, "head, a line a second", first=b"GET / HTTP/1.1\r\nHost: test\r\n", drip=b"X-a: b\r\n")
    assert attackers.answers.count(b"HTTP/1.1 408") >= CONNECTIONS * 0.9, "they are told why"


def test_connections_that_say_nothing(sidecar, report):
    attack(sidecar, report, "silent", first=b"")


def test_bodies_that_drip(sidecar, report):
    attackers = attack(sidecar, report, "body, 10 bytes a second",
                       first=b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n", drip=b"0123456789")
    assert attackers.answers.count(b"HTTP/1.1 408") >= CONNECTIONS * 0.9


def test_chunks_that_drip(sidecar, report):
    attack(sidecar, report, "chunks of one byte",
           first=b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n", drip=b"1\r\nx\r\n")


def test_readers_that_do_not_read(sidecar, report):
    attack(sidecar, report, "no reading of a large answer", first=b"GET /big HTTP/1.1\r\nHost: test\r\n\r\n", receive_buffer=4096,
           reads=False)


# ---- Debian's slowhttptest ---------------------------------------------------------------------------------------------------------

ATTACKS = {
    "headers": ["-H", "-i", "2"],
    "body": ["-B", "-i", "2", "-s", "100000"],
    "read": ["-X", "-w", "256", "-y", "512", "-n", "5", "-z", "16", "-k", "1"],
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_slowhttptest(sidecar, report, kind, tmp_path):
    program = shutil.which("slowhttptest")
    if not program:
        pytest.skip("no slowhttptest on this machine")
    url = f"http://127.0.0.1:{sidecar.port}/{'big' if kind == 'read' else ''}"
    command = [program, *ATTACKS[kind], "-c", str(CONNECTIONS), "-r", str(CONNECTIONS), "-l", "14", "-p", "5", "-u", url,
               "-g", "-o", str(tmp_path / "figures")]
    with Probe(sidecar) as probe:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 env={**os.environ, "TERM": "dumb"})
        seen = threading.Thread(target=lambda: setattr(child, "text", child.stdout.read().decode(errors="replace")), daemon=True)
        seen.start()
        began = time.monotonic()
        peak, peak_at = 0, 0.0
        gone = None
        try:
            while time.monotonic() - began < GONE + 12:
                count = open_connections(sidecar)
                if count > peak:
                    peak, peak_at = count, time.monotonic() - began
                if peak >= CONNECTIONS * 0.5 and count <= 2:
                    gone = time.monotonic() - began
                    break
                if child.poll() is not None and count <= 2:
                    gone = time.monotonic() - began
                    break
                time.sleep(0.1)  # the pause of a poll, bounded by the loop's condition
        finally:
            child.kill()
            child.wait(10)
            seen.join(10)
    said = re.sub(r"\x1b\[[0-9;]*m", "", getattr(child, "text", ""))
    assert peak >= CONNECTIONS * 0.5, f"only {peak} connections came:\n{said[-1500:]}"
    assert gone is not None, f"{open_connections(sidecar)} connections are left"
    report.append(f"slow: slowhttptest {kind}: {peak} connections at the peak, all gone {gone - peak_at:.1f} s after it; {probe.figures()}")
    assert gone - peak_at <= GONE + SLACK, (gone, peak_at)  # the last of them came at the peak
    probe.verdict()
