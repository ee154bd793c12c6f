"""The measurements: one load run with its share of foreign CPU time, memory of held connections."""

import contextlib
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

from harness.processes import (Child, busy_seconds, memory_kib, read_line, run_seconds)

FOREIGN_MAX = 0.06  # seconds of anybody else's CPU time per second on the two cores
TRIES = 3


@dataclass(frozen=True)
class Workload:
    name: str
    load: tuple  # options of the load generator
    tiers: tuple
    fixed_rate: bool = False
    default: bool = False
    of_saturation: float = 0.0  # fixed rate: this share of what the reference reaches in a closed loop


def closed(size, path, connections, tiers, default=False):
    return Workload(f"{size}/c{connections}",
                    ("--path", path, "--connections", str(connections)), tiers, default=default)


SMALL = ("core", "features")
LONE = (*SMALL, "lone")
WORKLOADS = [
    closed("0B", "/0", 1, ("core",)),
    closed("0B", "/0", 64, ("core",)),
    closed("0B", "/0", 512, ("core",)),
    closed("1KiB", "/1024", 1, LONE),
    closed("1KiB", "/1024", 64, SMALL, default=True),
    closed("1KiB", "/1024", 512, SMALL, default=True),
    closed("100KiB", "/102400", 1, ("core", "large")),
    closed("100KiB", "/102400", 64, ("core", "large"), default=True),
    closed("100KiB", "/102400", 512, ("core", "large")),
    Workload("rate", ("--path", "/1024", "--connections", "64", "--rate", "10000"), SMALL,
             fixed_rate=True, default=True),
    Workload("slow-mix", ("--path", "/1024", "--connections", "64", "--rate", "5000",
                          "--slow-path", "/1024/20", "--slow-every", "20"), SMALL, fixed_rate=True),
    Workload("half", ("--path", "/1024", "--connections", "64"), SMALL, fixed_rate=True, of_saturation=0.5),
]


class Bench:
    """Where everything runs; what every measurement needs."""

    def __init__(self, load_program, backend, load_core, proxy_core, more_backends=()):
        self.load_program = load_program
        self.backend = backend
        self.more_backends = more_backends
        self.load_core = load_core
        self.proxy_core = proxy_core

    def load(self, port, pids, *options):
        """One run of the load generator: its JSON, and how much CPU time went to others. None: failed."""
        own = sorted({self.backend.pid, *pids, *(backend.pid for backend in self.more_backends)})
        cores = {self.load_core, self.proxy_core}
        busy, steal = busy_seconds(cores)
        used, generator, start = run_seconds(own), children_seconds(), time.monotonic()
        argv = [self.load_program, "--port", str(port), "--pids", ",".join(map(str, pids)), *options]
        child = Child(argv, self.load_core, stdout=subprocess.PIPE)
        try:
            output = child.process.stdout.read()
            child.process.wait()
        finally:
            child.stop()
        elapsed = time.monotonic() - start
        busy_end, steal_end = busy_seconds(cores)
        accounted = run_seconds(own) - used + children_seconds() - generator
        try:
            result = json.loads(output)
        except ValueError:
            return None
        result["foreign"] = max(0.0, (busy_end - busy - accounted) / elapsed)
        result["steal"] = (steal_end - steal) / elapsed
        return result

    def load_undisturbed(self, port, pids, *options):
        """The least disturbed of up to TRIES runs; the first that is quiet enough ends the trying."""
        best = None
        for attempt in range(1, TRIES + 1):
            result = self.load(port, pids, *options)
            if result is None:
                continue
            result["tries"] = attempt
            if best is None or disturbance(result) < disturbance(best):
                best = result
            if disturbance(best) <= FOREIGN_MAX:
                break
        return best

    @contextlib.contextmanager
    def held(self, port, *options):
        """Connections held by a load generator; yields what it said when they stood."""
        argv = [self.load_program, "--port", str(port), *options]
        child = Child(argv, self.load_core, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            line = read_line(child.process.stdout, 90)
            if not line.startswith("READY "):
                raise RuntimeError("the load generator could not hold its connections")
            yield json.loads(line.removeprefix("READY "))
        finally:
            child.stop()

    @contextlib.contextmanager
    def fresh(self, peer):
        """The peer newly started and used for 50 requests: memory freed by others must not help it."""
        child = peer.start(self.proxy_core)
        if child is None:
            raise RuntimeError(f"{peer.name} does not start; see {peer.log}")
        try:
            time.sleep(0.7)
            self.load(peer.port, child.pids(), "--path", "/1024", "--requests", "50")
            time.sleep(0.3)
            yield child
        finally:
            child.stop()

    def memory(self, peer, idle_connections):
        """Resident memory idle, and what each idle, waiting and dripping connection adds."""
        states = [
            ("idle", idle_connections, ("--idle", "--path", "/1024")),
            ("waiting", 1000, ("--wait", "--path", "/1024/15000")),
            ("dripping", 1000, ("--drip", "--path", "/1024")),
        ]
        result = {}
        for state, count, options in states:
            with self.fresh(peer) as child:
                base, base_pss = memory_kib(child.pids())
                with self.held(peer.port, "--connections", str(count), *options) as said:
                    time.sleep(0.4)
                    rss, _ = memory_kib(child.pids())
                    if state == "idle":
                        probe = self.load(peer.port, child.pids(), "--path", "/1024", "--rate", "500",
                                          "--connections", "4", "--seconds", "1", "--warmup", "0.2")
                        result["probe_p99_us"] = probe["latency_us"]["p99"] if probe else None
                        result.update(base_rss_kib=base, base_pss_kib=base_pss, idle_rss_kib=rss)
                result[f"{state}_connections"] = said["open"]
                result[f"{state}_bytes"] = (rss - base) * 1024 / max(said["open"], 1)
                result[f"{state}_lost"] = count - said["open"] + said["non_200"]
        return result


def disturbance(result):
    return result["foreign"] + result["steal"]


def children_seconds():
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime


def notice(text):
    print(text, file=sys.stderr, flush=True)
