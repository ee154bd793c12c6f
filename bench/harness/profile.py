"""System calls, user instructions and allocations per request: counts, so they hold on a noisy machine as well."""

import glob
import os
import shutil
import signal
import subprocess
import time

from harness.processes import Child

SYSCALLS = ("read readv recvfrom recvmsg write writev sendto sendmsg epoll_wait epoll_pwait epoll_pwait2 "
            "epoll_ctl splice futex clock_gettime poll ioctl setsockopt getsockopt accept4 connect close "
            "shutdown socket timerfd_settime eventfd2 pwrite64 pwritev fdatasync").split()
REQUESTS_PERF = 20000
REQUESTS_STRACE = 4000   # ptrace slows the proxy some twenty times
CALLGRIND_COUNTS = (1000, 4000)
LOAD = ("--path", "/1024")


def syscall_tool():
    """perf (its tracepoints do not disturb the proxy), else strace, else nothing."""
    if shutil.which("perf"):
        probe = subprocess.run(["perf", "stat", "-e", "raw_syscalls:sys_enter", "true"],
                               capture_output=True, check=False)
        if probe.returncode == 0 and b"not supported" not in probe.stderr:
            return "perf"
    return "strace" if shutil.which("strace") else None


def syscalls(bench, peer, connections, run, tool, load=LOAD):
    """System calls per request by name, with "all" for their sum. `load`: what is asked for."""
    output = os.path.join(run, "syscalls.txt")
    load = (*load, "--connections", str(connections), "--requests")
    with bench.fresh(peer) as child:
        bench.load(peer.port, child.pids(), *load, "2000")
        if tool == "perf":
            requests, argv = REQUESTS_PERF, perf_command(child.pids(), output)
        else:
            requests, argv = REQUESTS_STRACE, ["strace", "-f", "-c", "-o", output]
            for pid in child.pids():
                argv += ["-p", str(pid)]
        tracer = Child(argv, bench.load_core)
        try:
            time.sleep(0.7)
            result = bench.load(peer.port, child.pids(), *load, str(requests))
        finally:
            tracer.stop(patience=10, sign=signal.SIGINT)
    counts = read_perf(output) if tool == "perf" else read_strace(output)
    answered = result["requests"] if result else 0
    return {name: count / answered for name, count in counts.items()} if answered else {}


def perf_command(pids, output):
    known = [name for name in SYSCALLS
             if os.path.isdir(f"/sys/kernel/tracing/events/syscalls/sys_enter_{name}")]
    events = ["raw_syscalls:sys_enter"] + [f"syscalls:sys_enter_{name}" for name in known]
    return ["perf", "stat", "-x;", "-e", ",".join(events), "-o", output, "-p", ",".join(map(str, pids))]


def read_perf(path):
    counts = {}
    with open(path) as lines:
        for line in lines:
            fields = line.split(";")
            if len(fields) > 2 and fields[0].strip().isdigit():
                event = fields[2]
                name = "all" if event.startswith("raw_") else event.split("sys_enter_")[1]
                counts[name] = int(fields[0])
    return counts


def read_strace(path):
    """The summary: % time, seconds, usecs/call, calls, [errors], syscall."""
    counts = {}
    with open(path) as lines:
        for line in lines:
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit():
                counts["all" if fields[-1] == "total" else fields[-1]] = int(fields[3])
    return counts


ALLOCATORS = {"malloc", "calloc", "realloc", "memalign", "aligned_alloc", "posix_memalign"}


def instructions(bench, peer, run, connections=64, load=LOAD):
    """User instructions per request, or nothing."""
    counted = counts(bench, peer, run, connections, load)
    return counted["instructions"] if counted else None


def counts(bench, peer, run, connections=64, load=LOAD):
    """User instructions and allocations per request under callgrind: the difference of two counts of requests, so that
    starting and stopping cancel out. Of peers that pipeline, also the share of requests that did. Nothing when a run failed."""
    few, many = CALLGRIND_COUNTS
    runs = [callgrind(bench, peer, run, requests, connections, load) for requests in (few, many)]
    if not all(runs):
        return None
    counted = {name: (runs[1][name] - runs[0][name]) / (many - few) for name in ("instructions", "allocations")}
    if "rode" in runs[1]:
        counted["rode"] = runs[1]["rode"]
    return counted


def callgrind(bench, peer, run, requests, connections, load):
    pattern = os.path.join(run, "callgrind.out")
    for old in glob.glob(pattern + ".*"):
        os.unlink(old)
    prefix = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={pattern}.%p"]
    child = peer.start(bench.proxy_core, prefix, patience=60)
    if child is None:
        return None
    counted = {"instructions": 0, "allocations": 0}
    try:
        time.sleep(0.5)
        result = bench.load(peer.port, child.pids(), *load, "--connections", str(connections),
                            "--requests", str(requests))
        ridden = peer.ridden()
        if ridden:
            counted["rode"] = ridden[1] / max(ridden[0], 1)
    finally:
        child.stop(patience=30)
    if not result or result["requests"] != requests:
        return None
    for path in glob.glob(pattern + ".*"):
        with open(path) as lines:
            read_callgrind(lines, counted)
    return counted


def read_callgrind(lines, counted):
    """Adds up one file of callgrind: the total, and the calls of ALLOCATORS. A function's name stands behind its number once."""
    names = {}
    called = None
    total = 0
    for line in lines:
        if line.startswith(("fn=", "cfn=")):
            number, _, name = line.rstrip("\n").partition("=")[2].partition(" ")
            if name:
                names[number] = name.split("'")[0]  # malloc'2: called from within itself
            called = names.get(number) if line[0] == "c" else None
        elif line.startswith("calls=") and called in ALLOCATORS:
            counted["allocations"] += int(line[6:].split()[0])
        elif line.startswith(("totals:", "summary:")):
            total = int(line.split()[1])
    counted["instructions"] += total
