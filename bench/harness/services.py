"""The endpoints of bench/resilience: processes that are made slow, failing or dead while the load runs."""

import os
import signal
import sys
import urllib.request

from harness.processes import Child, free_port, wait_for_port

NANOSECONDS = 1e9


class Service:
    """One port, and the processes that listened on it one after the other."""

    def __init__(self, program, core, run, name, settings=()):
        self.program = program
        self.core = core
        self.run = run
        self.name = name
        self.port = free_port(set())
        self.settings = [f"{key}={value}" for key, value in dict(settings).items()]
        self.child = None
        self.logs = []

    def start(self):
        """Returns when it listens."""
        self.spawn()
        self.wait()

    def spawn(self):
        self.logs.append(os.path.join(self.run, f"{self.name}.{len(self.logs)}.service"))
        self.child = Child([self.program, str(self.port), *self.settings], self.core, log=self.logs[-1])

    def wait(self):
        if not wait_for_port(self.port, self.child):
            sys.exit(f"bench/resilience: a service does not start: {self.program} {self.port}")

    def kill(self):
        """SIGKILL: nothing is said to anybody but by the kernel."""
        os.kill(self.child.pid, signal.SIGKILL)
        self.child.process.wait()

    def stop(self):
        if self.child:
            self.child.stop()

    def control(self, **settings):
        query = "&".join(f"{key}={value}" for key, value in settings.items())
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/control?{query}", timeout=5).read()

    def listening_since(self):
        """When the present process began to listen, ns of CLOCK_MONOTONIC."""
        with open(self.logs[-1]) as lines:
            return int(lines.readline().split()[0])

    def buckets(self):
        """(ns at the end of 100 ms; within them: came, answered 200, failed, health checks; then in work)."""
        rows = []
        for log in self.logs:
            with open(log) as lines:
                for line in lines:
                    fields = line.split()
                    if len(fields) == 7:  # a killed process may have left half a line
                        rows.append(tuple(map(int, fields[:6])))
        return rows


class Services:
    """Some services, started together."""

    def __init__(self, program, core, run, count, settings=()):
        self.each = [Service(program, core, run, str(i + 1), settings) for i in range(count)]

    def __enter__(self):
        for service in self.each:
            service.start()
        return self

    def __exit__(self, *_):
        for service in self.each:
            service.stop()

    def ports(self):
        return [service.port for service in self.each]

    def start_all(self):
        for service in self.each:
            service.spawn()
        for service in self.each:
            service.wait()

    def kill_all(self):
        for service in self.each:
            service.kill()
