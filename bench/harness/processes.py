"""Processes of the bench: started on one core, looked at through /proc, stopped by their own group."""

import contextlib
import ctypes
import os
import random
import resource
import select
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """One program in its own process group, pinned to one core (None: to none); dies with the bench."""

    def __init__(self, argv, core, log=None, stdin=None, stdout=None):
        def prepare():
            if core is not None:
                os.sched_setaffinity(0, {core})
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.nice(0) < 0:  # `nice -n -15 bench/…`: between sessions only the session's own counts (sched(7))
                with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
                    group.write(str(os.nice(0)))

        with open(log or os.devnull, "wb") as output:
            self.process = subprocess.Popen(
                argv, stdin=stdin or subprocess.DEVNULL, stdout=stdout or output,
                stderr=output, start_new_session=True, preexec_fn=prepare)

    @property
    def pid(self):
        return self.process.pid

    def pids(self):
        """The process and everything it started (nginx has a worker)."""
        return descendants(self.pid)

    def running(self):
        return self.process.poll() is None

    def stop(self, patience=4.0, sign=signal.SIGTERM):
        """Asks the group to end, insists after `patience` seconds."""
        for attempt in (sign, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, attempt)
            try:
                self.process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # a worker that outlived its master
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


def descendants(pid):
    found = [pid]
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as children:
                for child in children.read().split():
                    found += descendants(int(child))
    return found


def run_seconds(pids):
    """CPU seconds the processes have used, exact (schedstat)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/schedstat") as stat:
                    total += int(stat.read().split()[0])
    return total / 1e9


def busy_seconds(cores):
    """CPU seconds the cores were busy for anybody, and seconds the hypervisor took from them."""
    names = {f"cpu{core}" for core in cores}
    busy = steal = 0
    with open("/proc/stat") as stat:
        for line in stat:
            name, *fields = line.split()
            if name in names:
                user, nice, system, _, _, irq, softirq, stolen = map(int, fields[:8])
                busy += user + nice + system + irq + softirq
                steal += stolen
    return busy / TICKS_PER_SECOND, steal / TICKS_PER_SECOND


def memory_kib(pids):
    """Resident and proportional set sizes, summed over the processes."""
    sums = {"Rss:": 0, "Pss:": 0}
    for pid in pids:
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                for line in rollup:
                    name, *rest = line.split()
                    if name in sums:
                        sums[name] += int(rest[0])
    return sums["Rss:"], sums["Pss:"]


def free_port(taken):
    """A port nobody listens on, below those the kernel gives to outgoing connections."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as span:
        first_ephemeral = int(span.read().split()[0])
    while True:
        port = random.randrange(10000, max(first_ephemeral, 10100))
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        taken.add(port)
        return port


def wait_for_port(port, child, patience=15.0):
    """True once something accepts on the port; False when the child ends or time runs out."""
    until = time.monotonic() + patience
    while time.monotonic() < until and child.running():
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def read_line(stream, patience):
    """One line of a pipe as text; nothing when it does not come in time."""
    ready, _, _ = select.select([stream], [], [], patience)
    return stream.readline().decode() if ready else ""


def raise_open_files(wanted=65536):
    """What the children will be allowed; 10,000 connections need two descriptors each in a proxy."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
        return max(soft, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
