"""Processes under test: outrider, and haproxy and nginx as the peers it is compared with.

Every process has its own group, its own directory and ports, is waited for with a deadline and is ended by its pid.
Nothing here sleeps in the hope that something has happened: readiness is asked for until it is there.

  OUTRIDER_BIN   the program (ctest sets it)
  OUTRIDER_AS    outrider (default) | haproxy | nginx: which proxy the tests are pointed at. The peers serve to check
                 the harness and to see where they differ; many expectations are outrider's own.
"""
import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from upstream import ScriptedUpstream
from wire import PATIENCE, ProtocolError, RawClient

AS_PEER = os.environ.get("OUTRIDER_AS", "outrider") != "outrider"  # then any refusal is as good as outrider's own form
START_PATIENCE = 20.0
STOP_PATIENCE = 15.0
SANITIZER_REPORT = re.compile(r"(AddressSanitizer|LeakSanitizer|ThreadSanitizer|MemorySanitizer|runtime error:)")
RUNNING = []  # processes whose logs are worth reading when a test fails


TAKEN = collections.deque(maxlen=500)


def free_port():
    """A port nobody listens on, below the range from which the kernel takes ports for outgoing connections. It is this process's until it
    ends, or has asked for 500 more: other tests run beside it, and none may be given it before somebody listens there."""
    while True:
        port = random.SystemRandom().randrange(10240, 32000)
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            taken.bind(f"\0outrider-test-port-{port}")
        except OSError:
            taken.close()
            continue
        TAKEN.append(taken)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def json_lines(path):
    """What a log holds so far: a reader beside the writer may see a part of its last write, so only lines with their end."""
    try:
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    except OSError:
        return []


def toml_value(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return "{ " + ", ".join(f"{json.dumps(key)} = {toml_value(item)}" for key, item in value.items()) + " }"


def toml_table(header, values):
    return header + "\n" + "".join(f"{key} = {toml_value(value)}\n" for key, value in values.items()) + "\n"


class Process:
    """One child. `command` and `ready` come from the kind of proxy."""

    name = "process"

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.log_path = self.directory / "output.log"
        self.child = None

    def command(self):
        raise NotImplementedError

    def ready(self):
        raise NotImplementedError

    def start(self):
        environment = dict(os.environ)
        environment.setdefault("ASAN_OPTIONS", "abort_on_error=0:detect_leaks=1")
        environment.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
        environment.setdefault("TSAN_OPTIONS", "second_deadlock_stack=1")
        with open(self.log_path, "ab") as log:
            # The child dies with the test, also when ctest kills that for its timeout.
            command = ["setpriv", "--pdeathsig", "KILL", *self.command()]
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          cwd=self.directory, env=environment, start_new_session=True)
        RUNNING.append(self)
        deadline = time.monotonic() + START_PATIENCE
        while not self.ready():
            if self.child.poll() is not None:
                code = self.child.returncode
                self._forget()
                raise RuntimeError(f"{self.name} ended with {code} at its start:\n{self.log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} was not ready in {START_PATIENCE} s:\n{self.log()}")
            time.sleep(0.01)  # the pause of a poll, bounded by the deadline
        return self

    def alive(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, patience=STOP_PATIENCE):
        return self.child.wait(patience)

    def kill(self):
        if self.alive():
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait(STOP_PATIENCE)
        self._forget()

    def _forget(self):
        if self in RUNNING:
            RUNNING.remove(self)

    def stop(self):
        """SIGTERM, a bounded wait, exit code 0."""
        try:
            if self.alive():
                self.signal(signal.SIGTERM)
            try:
                code = self.wait()
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not end {STOP_PATIENCE} s after SIGTERM:\n{self.log()}") from None
            assert code == 0, f"{self.name} ended with {code}:\n{self.log()}"
            report = SANITIZER_REPORT.search(self.log(limit=None))
            assert not report, f"a sanitizer reported:\n{self.log(limit=20000)}"
        finally:
            self._forget()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self, limit=6000):
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return ""
        return text if limit is None else text[-limit:]

    def client(self, **options):
        return RawClient(self.port, **options)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.kill()  # the test's own error is the one to show


def accepts(port):
    """A listener that is about to close drops SYNs: no answer counts as no."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


class Outrider(Process):
    """`listener`, `route`, `cluster`, `runtime` add keys to the usual file; `extra` is appended as it stands."""

    name = "outrider"

    def __init__(self, upstream_port, listener=None, route=None, cluster=None, runtime=None, extra="", access="json"):
        super().__init__()
        program = os.environ.get("OUTRIDER_BIN")
        if not program:
            raise RuntimeError("OUTRIDER_BIN is not set: it names the program to test")
        self.program = os.path.abspath(program)
        self.access_log = self.directory / "access.log"
        self.parts = {"listener": listener or {}, "route": route or {}, "cluster": cluster or {}, "runtime": runtime or {}}
        self.upstream_port = upstream_port
        self.access = access
        self.extra = extra

    def write_config(self):
        self.port = free_port()
        self.admin_port = free_port()
        self.config = self.directory / "outrider.toml"
        self.config.write_text(
            toml_table("[runtime]", {"workers": 1, **self.parts["runtime"]})
            + toml_table("[admin]", {"listen": f"127.0.0.1:{self.admin_port}"})
            + toml_table("[log]", {"level": "debug", "access": str(self.access_log), "access_format": self.access})
            + toml_table("[drain]", {"delay": "0s", "timeout": "2s"})
            + toml_table("[[listener]]", {"name": "inbound", "listen": f"127.0.0.1:{self.port}", **self.parts["listener"]})
            + toml_table("[[route]]", {"name": "all", "listener": "inbound", "cluster": "app", **self.parts["route"]})
            + toml_table("[[cluster]]", {"name": "app", "endpoints": [f"127.0.0.1:{self.upstream_port}"],
                                         **self.parts["cluster"]})
            + self.extra)

    def command(self):
        return [self.program, "run", "-c", str(self.config)]

    def start(self):
        """A port can be taken between choosing and binding it; then other ports are tried."""
        for attempt in range(3):
            self.write_config()
            try:
                return super().start()
            except RuntimeError as error:
                if attempt == 2 or "in use" not in str(error).lower():
                    raise

    def ready(self):
        try:
            return self.admin("/ready").status == 200 and accepts(self.port)
        except (OSError, ProtocolError):
            return False

    def admin(self, path, method=b"GET"):
        with RawClient(self.admin_port, patience=5) as client:
            return client.request(b"%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                                  % (method, path.encode()))

    def access_lines(self):
        return json_lines(self.access_log)


class Haproxy(Process):
    name = "haproxy"

    def __init__(self, upstream_port, patience="3s", **_):
        super().__init__()
        self.upstream_port = upstream_port
        self.patience = patience
        self.port = free_port()

    def command(self):
        config = self.directory / "haproxy.cfg"
        config.write_text(f"""\
global
  nbthread 1
  maxconn 1000
defaults
  mode http
  option forwardfor
  retries 1
  timeout connect 2s
  timeout client {self.patience}
  timeout server 10s
  timeout http-request {self.patience}
frontend inbound
  bind 127.0.0.1:{self.port}
  default_backend app
backend app
  http-reuse safe
  server app 127.0.0.1:{self.upstream_port}
""")
        return [shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin"), "-db", "-f", str(config)]

    def ready(self):
        return accepts(self.port)

    def stop(self):
        self.kill()  # its exit code is its own matter
        shutil.rmtree(self.directory, ignore_errors=True)


class Nginx(Process):
    name = "nginx"

    def __init__(self, upstream_port, patience="3s", **_):
        super().__init__()
        self.upstream_port = upstream_port
        self.patience = patience
        self.port = free_port()

    def command(self):
        config = self.directory / "nginx.conf"
        config.write_text(f"""\
daemon off;
master_process off;
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log;
events {{ worker_connections 500; }}
http {{
  access_log off;
  client_body_temp_path {self.directory}/body;
  proxy_temp_path {self.directory}/proxy;
  fastcgi_temp_path {self.directory}/fastcgi;
  uwsgi_temp_path {self.directory}/uwsgi;
  scgi_temp_path {self.directory}/scgi;
  client_header_timeout {self.patience};
  client_body_timeout {self.patience};
  client_max_body_size 0;
  upstream app {{ server 127.0.0.1:{self.upstream_port}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{self.port};
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
    }}
  }}
}}
""")
        return [shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"), "-c", str(config), "-p", str(self.directory)]

    def ready(self):
        return accepts(self.port)

    def stop(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def subject(upstream_port, **options):
    """The proxy the tests are pointed at."""
    kind = os.environ.get("OUTRIDER_AS", "outrider")
    return {"outrider": Outrider, "haproxy": Haproxy, "nginx": Nginx}[kind](upstream_port, **options)


class Bench:
    """A subject with its upstream, kept over the tests of a module and started anew when a test has ended it."""

    def __init__(self, **options):
        self.options = options
        self.upstream = ScriptedUpstream()
        self.proxy = subject(self.upstream.port, **options)
        try:
            self.proxy.start()
        except BaseException:
            self.upstream.stop()
            raise

    def fresh(self):
        """Before each test."""
        self.upstream.clear()
        if not self.proxy.alive():
            self.proxy._forget()
            self.proxy = subject(self.upstream.port, **self.options).start()
        return self

    def check(self):
        """After each test."""
        assert self.proxy.alive(), f"{self.proxy.name} ended with {self.proxy.child.returncode}:\n{self.proxy.log()}"

    def fence(self):
        """Sends one ordinary request on a connection of its own and waits until it has reached the upstream: what
        the proxy was going to forward before is there by then (one worker, one order). Returns its target."""
        target = b"/fence-%d" % random.SystemRandom().randrange(1 << 40)
        with self.proxy.client() as client:
            response = client.request(b"GET %s HTTP/1.1\r\nHost: fence.example\r\nConnection: close\r\n\r\n" % target)
        assert response.status == 200, f"the fence got {response.status}: {response.body!r}"
        assert response.body == target, f"the fence got another request's answer: {response.body[:200]!r}"
        assert self.upstream.wait_for(self.upstream.settled, 5), "the scripted upstream is behind"
        return target

    def reached(self, fence):
        """Complete requests at the upstream apart from the fence."""
        return [request for request in self.upstream.requests if request.target != fence]

    def stop(self):
        try:
            self.proxy.stop()
        finally:
            self.upstream.stop()


__all__ = ["AS_PEER", "Bench", "Haproxy", "Nginx", "Outrider", "PATIENCE", "Process", "accepts", "free_port", "subject"]
