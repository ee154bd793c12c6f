"""Plays a scenario: a proxy before its services, a fixed open-loop load, and phases in which things break."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field

from harness.measure import children_seconds
from harness.processes import Child, busy_seconds, run_seconds
from harness.services import NANOSECONDS, Services

WARMUP = 1.5      # seconds of load before the first phase: connections stand, recent latencies are known
BUCKET = 0.1      # of the services' reports
CONNECTIONS_MAX = 4000


@dataclass(frozen=True)
class Phase:
    name: str
    seconds: float
    begin: callable = None  # called with the services when it begins
    extra_rate: float = 0   # requests a second more than in the other phases


@dataclass
class Span:
    """A phase as it was: ns of CLOCK_MONOTONIC."""

    name: str
    begin: int
    end: int
    attempts: float         # that the proxy counted while it lasted
    returned: int = None    # when the last service that it started again began to listen


@dataclass
class Recording:
    scenario: str
    label: str
    spans: list = field(default_factory=list)
    requests: list = field(default_factory=list)  # (due ns, latency ns, status)
    received: list = field(default_factory=list)  # for each service: Service.buckets()
    foreign: float = 0.0

    def within(self, span):
        return [request for request in self.requests if span.begin <= request[0] < span.end]

    def came(self, span):
        """Requests that each service got while the span lasted, the service's buckets cut proportionally."""
        sums = []
        for rows in self.received:
            total = 0.0
            for end, came, *_ in rows:
                begin = end - BUCKET * NANOSECONDS
                overlap = min(end, span.end) - max(begin, span.begin)
                total += came * max(0.0, overlap) / (BUCKET * NANOSECONDS)
            sums.append(total)
        return sums


@dataclass
class Arena:
    """Where scenarios are played."""

    build: str
    run: str
    load_core: int
    proxy_core: int
    connections: int
    quick: bool

    def program(self, name):
        return os.path.join(self.build, "bench", f"outrider-bench-{name}")

    def start_load(self, port, rate, seconds, record):
        argv = [self.program("load"), "--port", str(port), "--path", "/work", "--rate", str(rate),
                "--seconds", str(seconds), "--warmup", "0", "--connections", str(self.connections),
                "--connections-max", str(CONNECTIONS_MAX), "--record", record]
        return Child(argv, self.load_core, stdout=subprocess.PIPE)


class Accounts:
    """CPU time of the two cores that no process of the bench used."""

    def __init__(self, arena, pids):
        self.cores = {arena.load_core, arena.proxy_core}
        self.pids = pids
        self.begin = self.now()

    def now(self):
        busy, steal = busy_seconds(self.cores)
        return time.monotonic(), busy + steal - run_seconds(self.pids()) - children_seconds()

    def foreign(self):
        (begin, other), (end, other_end) = self.begin, self.now()
        return max(0.0, (other_end - other) / (end - begin))


def play(arena, scenario, contestant, count, rate, phases, settings=()):
    """One proxy through one scenario, everything freshly started. Ends the bench when it cannot be played."""
    recording = Recording(scenario, contestant.label)
    run = os.path.join(arena.run, f"{scenario}-{contestant.slug}")
    os.mkdir(run)
    with Services(arena.program("service"), arena.load_core, run, count, settings) as services:
        peer = contestant.peer(services.ports(), run)
        proxy = peer.start(arena.proxy_core)
        if proxy is None:
            sys.exit(f"bench/resilience: {peer.name} does not start; see {peer.log} (--keep)")
        loads = []
        try:
            time.sleep(1.0)  # the first health checks
            accounts = Accounts(arena, lambda: [proxy.pid] + [s.child.pid for s in services.each if s.child.running()]
                                + [load.pid for load in loads if load.running()])
            seconds = WARMUP + sum(phase.seconds for phase in phases)
            start_load(arena, run, peer, rate, seconds + 0.3, loads)
            time.sleep(WARMUP)
            recording.spans = [play_phase(arena, run, contestant, services, peer, phase, loads)
                               for phase in phases]
            for load in loads:
                finish(load, peer)
            recording.foreign = accounts.foreign()
            if not proxy.running():
                sys.exit(f"bench/resilience: {peer.name} has ended by itself; see {peer.log} (--keep)")
        finally:
            for load in loads:
                load.stop()
            proxy.stop()
        time.sleep(2 * BUCKET)  # the services' last reports
        recording.received = [service.buckets() for service in services.each]
    for load in loads:
        recording.requests += read_record(load.record)
    recording.requests.sort()
    return recording


def start_load(arena, run, peer, rate, seconds, loads):
    record = os.path.join(run, f"{len(loads)}.record")
    load = arena.start_load(peer.port, rate, seconds, record)
    load.record = record
    loads.append(load)


def play_phase(arena, run, contestant, services, peer, phase, loads):
    attempts = contestant.attempts()
    begin = time.monotonic_ns()
    if phase.extra_rate:
        start_load(arena, run, peer, phase.extra_rate, phase.seconds, loads)
    started = [len(service.logs) for service in services.each]
    if phase.begin:
        phase.begin(services)
    restarted = [service for service, before in zip(services.each, started) if len(service.logs) > before]
    time.sleep(max(0.0, begin / NANOSECONDS + phase.seconds - time.monotonic()))
    end = time.monotonic_ns()
    return Span(phase.name, begin, end, contestant.attempts() - attempts,
                max((service.listening_since() for service in restarted), default=None))


def finish(load, peer):
    """Waits for a load generator that is about to end."""
    try:
        output = load.process.stdout.read()
        load.process.wait(10)
        json.loads(output)
    except (ValueError, subprocess.TimeoutExpired):
        sys.exit(f"bench/resilience: the load generator failed at {peer.name}; see {peer.log} (--keep)")


def read_record(path):
    with open(path) as lines:
        return [tuple(map(int, line.split())) for line in lines]
