"""The sidecars of bench/idempotency: one route without idempotency, and the same route with each kind of store."""

import contextlib
import json
import os
import shutil
import socket
import statistics
import sys
import time
import urllib.request
from dataclasses import dataclass

from harness.contestants import fill
from harness.peers import Peer
from harness.processes import Child, free_port, wait_for_port

PLAIN = "without"
BLOCK = 512     # bytes that the probe of the disk writes before each fdatasync
PROBE_BYTES = 2 << 20


@dataclass(frozen=True)
class Variant:
    """A sidecar; `store`: the lines of its [store.bench], empty: no idempotency."""

    name: str
    store: str = ""


VARIANTS = (
    Variant(PLAIN),
    Variant("memory", 'kind = "memory"\nmax_memory = "2GiB"'),
    Variant("log", 'kind = "log"\npath = "{DIRECTORY}"\nsync = "group"\nmax_memory = "2GiB"'),
    Variant("log, no sync", 'kind = "log"\npath = "{DIRECTORY}"\nsync = "none"\nmax_memory = "2GiB"'),
    Variant("redis", 'kind = "redis"\nurl = "redis://127.0.0.1:{REDIS}/0"'),
)


class KeyedPeer(Peer):
    """outrider as a variant; each start begins with an empty store."""

    def __init__(self, variant, place, window):
        """`place`: folder for its files, folder for its store, build folder, ports of backend and Redis."""
        taken = set()
        slug = "".join(c if c.isalnum() else "-" for c in variant.name)
        self.admin = free_port(taken)
        self.directory = os.path.join(place.stores, slug)
        self.redis = place.redis if variant.name == "redis" else None
        store = ""
        if variant.store:
            lines = variant.store.replace("{DIRECTORY}", self.directory)
            store = f"\n[store.bench]\n{lines.replace('{REDIS}', str(place.redis.port if place.redis else 0))}\n"
        keyed = f'\n[route.idempotency]\nstore = "bench"\nwindow = "{window}"\n' if store else ""
        port = free_port(taken)
        path = os.path.join(place.run, f"{slug}-{window}.toml")
        with open(path, "w") as config:
            config.write(fill("idempotency-outrider.toml", {
                "PORT": port, "ADMIN": self.admin, "BACKEND": place.backend, "WINDOW": window, "IDEMPOTENCY": keyed,
                "STORE": store}))
        program = os.path.join(place.build, "cli", "outrider")
        super().__init__(variant.name, port, "core", [program, "run", "-c", path],
                         os.path.join(place.run, f"{slug}-{window}.log"))

    def start(self, core, prefix=(), patience=15.0):
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.redis:
            self.redis.command("FLUSHALL")
        return super().start(core, prefix, patience)

    def store(self):
        """What the admin endpoint says of the store."""
        reply = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/idempotency", timeout=5).read()
        return json.loads(reply)["stores"][0]


@dataclass
class Place:
    """Where the sidecars of one call run."""

    run: str      # configurations, output
    stores: str   # the logs
    build: str
    backend: int  # its port
    redis: "Redis" = None


class Redis:
    """A redis-server of our own, without persistence."""

    COUNTS = {"commands": "total_commands_processed", "reads": "total_reads_processed",
              "writes": "total_writes_processed", "bytes in": "total_net_input_bytes",
              "bytes out": "total_net_output_bytes"}

    def __init__(self, core, run):
        self.port = free_port(set())
        self.child = Child(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                            "--appendonly", "no", "--dir", run], core, log=os.path.join(run, "redis.log"))
        if not wait_for_port(self.port, self.child):
            sys.exit("bench/idempotency: redis-server does not start")

    def command(self, text):
        """An inline command and its one-line or bulk answer."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(text.encode() + b"\r\n")
            reply = connection.makefile("rb")
            line = reply.readline().decode()
            return reply.read(int(line[1:])).decode() if line.startswith("$") else line

    def counts(self):
        """What it has processed so far. Each call adds a little of its own."""
        rows = dict(line.split(":", 1) for line in self.command("INFO stats").splitlines() if ":" in line)
        return {name: int(rows.get(key, 0)) for name, key in self.COUNTS.items()}

    def stop(self):
        self.child.stop()


def redis_problem():
    """Why the variant redis cannot be measured, if so."""
    return "" if shutil.which("redis-server") else "redis-server is not there (apt-get install redis-server)"


def fdatasync_micros(directory, seconds):
    """p50 and p99 of writing 512 bytes over what is there, and fdatasync: what a log of claims asks of a disk."""
    path = os.path.join(directory, "probe")
    block = b"x" * BLOCK
    micros = []
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.pwrite(fd, bytes(PROBE_BYTES), 0)
        os.fsync(fd)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.perf_counter_ns()
            os.pwrite(fd, block, len(micros) * BLOCK % PROBE_BYTES)
            os.fdatasync(fd)
            micros.append((time.perf_counter_ns() - begin) / 1e3)
    finally:
        os.close(fd)
        os.unlink(path)
    micros.sort()
    return {"p50": statistics.median(micros), "p99": micros[len(micros) * 99 // 100], "count": len(micros)}


def disk_bytes(directory):
    """Allocated bytes of a log's files."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            with contextlib.suppress(OSError):  # deleted meanwhile
                total += entry.stat().st_blocks * 512
    return total
