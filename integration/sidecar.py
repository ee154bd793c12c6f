"""What the tests of operations share: a sidecar whose whole file the test writes, small applications, load, namespaces.

A Sidecar's file has a fixed top (ports, logs, drain) and a body of listeners, routes and clusters that a test gives as
text and may change while the process runs. Waiting is asking until a deadline, never a sleep in good faith.
"""
import contextlib
import ctypes
import json
import os
import select
import shutil
import socket
import subprocess
import threading
import time

from harness import SANITIZER_REPORT, Process, accepts, free_port, json_lines, toml_table
from upstream import ScriptedUpstream
from wire import ProtocolError, RawClient, Truncated

PROGRAM = os.path.abspath(os.environ.get("OUTRIDER_BIN", "outrider"))
CHUNK = 0.01


def wait_until(condition, patience=10.0, what="it"):
    """The condition's first true value."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {patience} s")
        time.sleep(CHUNK)  # the pause of a poll, bounded by the deadline


def listener(port, name="inbound", host="127.0.0.1", **keys):
    return toml_table("[[listener]]", {"name": name, "listen": f"{host}:{port}", **keys})


def route(name="all", **keys):
    return toml_table("[[route]]", {"name": name, "listener": "inbound", **keys})


def cluster(name, *ports, **keys):
    """Endpoints are ports of loopback, or whole addresses."""
    endpoints = [port if isinstance(port, str) else f"127.0.0.1:{port}" for port in ports]
    return toml_table("[[cluster]]", {"name": name, **({"endpoints": endpoints} if endpoints else {}), **keys})


class Sidecar(Process):
    """`body` holds routes and clusters; `listeners` replaces the one listener `inbound` (text, or a function of self)."""

    name = "outrider"

    def __init__(self, body, workers=1, runtime=None, admin=None, log=None, drain=None, inbound=None, listeners=None,
                 prefix=(), environment=None):
        super().__init__()
        self.program = PROGRAM
        self.body = body
        self.access_log = self.directory / "access.log"
        self.runtime = {"workers": workers, **(runtime or {})}
        self.admin_keys = admin or {}
        self.log_keys = {"level": "info", "access": str(self.access_log), "access_format": "json", **(log or {})}
        self.drain_keys = {"delay": "0s", "timeout": "5s", **(drain or {})}
        self.inbound = inbound or {}
        self.listeners = listeners
        self.prefix = list(prefix)
        self.environment = environment or {}
        self.config = self.directory / "outrider.toml"
        self.choose_ports()

    def choose_ports(self):
        self.port, self.admin_port, self.status_port = free_port(), free_port(), free_port()

    def text(self):
        listeners = self.listeners(self) if callable(self.listeners) else self.listeners
        return (toml_table("[runtime]", self.runtime)
                + toml_table("[admin]", {"listen": f"127.0.0.1:{self.admin_port}", **self.admin_keys})
                + toml_table("[log]", self.log_keys)
                + toml_table("[drain]", self.drain_keys)
                + (listener(self.port, **self.inbound) if listeners is None else listeners)
                + self.body)

    def write(self, text=None):
        """In one step, as a config map is swapped: nobody reads half a file."""
        fresh = self.directory / "next.toml"
        fresh.write_text(self.text() if text is None else text)
        fresh.replace(self.config)

    def command(self):
        return [*self.prefix, self.program, "run", "-c", str(self.config)]

    def start(self):
        for attempt in range(3):
            self.write()
            with changed_environment(self.environment):
                try:
                    return super().start()
                except RuntimeError as error:
                    if attempt == 2 or "in use" not in str(error).lower():
                        raise
            self.choose_ports()

    def ready(self):
        try:
            return self.admin("/ready").status == 200
        except (OSError, ProtocolError):
            return False

    def admin(self, path, method="GET", fields=(), port=None, body=b""):
        with RawClient(port or self.admin_port, patience=10) as client:
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in fields)
            if method not in ("GET", "HEAD"):
                head += f"Content-Length: {len(body)}\r\n"
            return client.request(head.encode() + b"\r\n" + body)

    def stop_checks(self):
        """After its end: nothing in the log that a sanitizer wrote."""
        report = SANITIZER_REPORT.search(self.log(limit=None))
        assert not report, f"a sanitizer reported:\n{self.log(limit=20000)}"

    def json(self, path, method="GET"):
        answer = self.admin(path, method)
        assert answer.one("content-type") == b"application/json", answer
        return json.loads(answer.body)

    def generation(self):
        return self.json("/server_info")["config"]["generation"]

    def rejected(self):
        return self.json("/server_info")["config"]["rejected"]

    def reload(self, body=None):
        """Writes the file anew and has it read; the answer of POST /reload."""
        if body is not None:
            self.body = body
        self.write()
        answer = self.admin("/reload", "POST")
        return answer.status, json.loads(answer.body)

    def get(self, target="/", host="test", fields=(), method="GET", body=None, port=None):
        with RawClient(port or self.port) as client:
            return ask(client, target, host, fields, method, body, last=True)

    def access_lines(self):
        return json_lines(self.access_log)


@contextlib.contextmanager
def changed_environment(extra):
    before = {name: os.environ.get(name) for name in extra}
    os.environ.update(extra)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def request_bytes(target="/", host="test", fields=(), method="GET", body=None, last=False):
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in fields)
    if body is not None:
        head += f"Content-Length: {len(body)}\r\n"
    if last:
        head += "Connection: close\r\n"
    return head.encode() + b"\r\n" + (body or b"")


def ask(client, target="/", host="test", fields=(), method="GET", body=None, last=False):
    return client.request(request_bytes(target, host, fields, method, body, last), method.encode())


# ---- applications --------------------------------------------------------------------------------------------------------


def app(name=b"app", script=None):
    """An upstream whose answers carry its name."""

    def answer(exchange):
        exchange.read_body()
        exchange.reply(body=exchange.request.body or exchange.request.target, fields=[(b"X-App", name)])

    upstream = ScriptedUpstream(script or answer)
    upstream.label = name
    return upstream


@contextlib.contextmanager
def apps(*names):
    """Several of them, ended together."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(app(name.encode())) for name in names]


# ---- load ----------------------------------------------------------------------------------------------------------------


def closed_already(sock):
    """True when the other side has closed a connection on which nothing is outstanding."""
    return bool(select.select([sock], [], [], 0)[0])


class Load:
    """Clients that keep their connections and send one request after the other, GET and POST by turns.

    A request counts as lost when it was sent and no whole answer came. A connection that was closed before anything was
    sent on it is not a loss; the client opens another. Refused connections end a client when `until_refused` is set.
    """

    def __init__(self, port, clients=8, until_refused=False, check=None, requests_per_connection=0):
        self.port = port
        self.until_refused = until_refused
        self.requests_per_connection = requests_per_connection
        self.check = check or self.echoed
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.answers = 0
        self.by_status = {}
        self.closes = 0   # answers with Connection: close
        self.connections = 0
        self.lost = []
        self.wrong = []
        self.refused = 0
        self.threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopping.set()
        self.join(20)

    def join(self, patience):
        deadline = time.monotonic() + patience
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self.threads), "a client hangs"

    def wait_for_answers(self, more, patience=20):
        target = self.answers + more
        wait_until(lambda: self.answers >= target, patience, f"{more} more answers (lost: {self.lost[:3]})")

    @staticmethod
    def echoed(answer, target, body):
        return answer.status == 200 and answer.body == (body or target.encode())

    def _client(self, number):
        count = 0
        while not self.stopping.is_set():
            try:
                client = RawClient(self.port)
            except ConnectionRefusedError:
                with self.lock:
                    self.refused += 1
                if self.until_refused:
                    return
                continue
            except OSError as error:
                self.lost.append(f"connect: {error!r}")
                return
            self.connections += 1
            with client:
                count = self._connection(client, number, count)
                if count < 0:
                    return

    def _connection(self, client, number, count):
        served = 0
        while not self.stopping.is_set():
            if closed_already(client.sock):
                return count
            count += 1
            served += 1
            target = f"/c{number}/{count}"
            body = None if count % 2 else (b"%d:%d " % (number, count)) * (1 if count % 4 else 2000)
            last = served == self.requests_per_connection
            try:
                answer = ask(client, target, method="POST" if body else "GET", body=body, last=last)
            except Truncated as error:
                self.lost.append(f"request {served} of a connection, {target}: {error}; send: {client.send_error!r}")
                return -1
            except ProtocolError as error:
                self.lost.append(f"{target}: {error}")
                return -1
            with self.lock:
                self.answers += 1
                self.by_status[answer.status] = self.by_status.get(answer.status, 0) + 1
                self.closes += answer.closes
            if not self.check(answer, target, body):
                self.wrong.append(f"{target}: {answer.status} {answer.body[:200]!r}")
            if answer.closes:
                client.assert_closed()
                return count
        return count

    def verdict(self):
        assert not self.lost, f"{len(self.lost)} lost of {self.answers}: {self.lost[:5]}"
        assert not self.wrong, f"{len(self.wrong)} wrong of {self.answers}: {self.wrong[:5]}"


# ---- namespaces ------------------------------------------------------------------------------------------------------------

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network and mount namespace with loopback, more addresses on it, and files of its own over the machine's.

    `entered()` moves the calling thread's network there (threads begun meanwhile inherit it); `prefix` starts a program in both.
    """

    def __init__(self, addresses=(), files=None):
        self.files = files or {}
        steps = ["mount --make-rprivate /", "ip link set lo up"]
        steps += [f"ip addr add {address}/32 dev lo" for address in addresses]
        steps += [f"mount --bind {source} {target}" for target, source in self.files.items()]
        self.child = subprocess.Popen(
            ["unshare", "-n", "-m", "sh", "-c", " && ".join(steps) + " && echo up && exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.up = self.child.stdout.readline() == b"up\n"
        self.reason = "" if self.up else self.child.stderr.read().decode().strip()
        self.prefix = ["nsenter", "-t", str(self.child.pid), "-n", "-m"]

    def close(self):
        self.child.stdin.close()
        self.child.wait(10)
        self.child.stdout.close()
        self.child.stderr.close()

    @contextlib.contextmanager
    def entered(self):
        with open("/proc/thread-self/ns/net") as home, open(f"/proc/{self.child.pid}/ns/net") as away:
            self._set(away)
            try:
                yield self
            finally:
                self._set(home)

    @staticmethod
    def _set(file):
        if _libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def namespace_or_skip(pytest, **options):
    """A namespace, or the test is skipped with the reason."""
    for tool in ("unshare", "nsenter", "ip"):
        if not shutil.which(tool):
            pytest.skip(f"no {tool} on this machine")
    namespace = Namespace(**options)
    if not namespace.up:
        namespace.close()
        pytest.skip(f"no namespace can be made here: {namespace.reason}")
    return namespace


def run(*arguments, patience=20, **options):
    """The program with these arguments, to its end."""
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=patience,
                          stdin=subprocess.DEVNULL, **options)


__all__ = ["CHUNK", "Load", "Namespace", "PROGRAM", "RawClient", "Sidecar", "accepts", "app", "apps", "ask", "closed_already", "cluster",
           "free_port", "listener", "namespace_or_skip", "request_bytes", "route", "run", "socket", "wait_until"]
