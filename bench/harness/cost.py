"""What all filters cost while nothing trips: outrider with everything on against outrider with everything off."""

import shutil
import statistics
import sys

from harness import profile
from harness.contestants import EVERYTHING, Outrider
from harness.measure import Bench, disturbance
from harness.report import table

# As many connections as the adaptive limit begins with (16): nothing trips. Where the column `failed` is not 0, it did.
LOADS = [("16 connections, closed loop", ("--path", "/1024", "--connections", "16")),
         ("5,000 a second, 16 connections", ("--path", "/1024", "--connections", "16", "--rate", "5000"))]
CONNECTIONS = 16
RATIO_MAX = 1.10


def variants(arena):
    """They differ in nothing but the filters; no access log, which would hide them."""
    return [Outrider(arena.build, "all off", without=EVERYTHING, logs=False),
            Outrider(arena.build, "all on", logs=False, hedge="p99.9", health="/0")]


def measure(arena, backends, ports, rounds, notice, out):
    """Prints the tables; returns the checks as (what, asked, label, measured, reached)."""
    bench = Bench(arena.program("load"), backends[0], arena.load_core, arena.proxy_core,
                  backends[1:])
    peers = [variant.peer(ports, arena.run) for variant in variants(arena)]
    checks = []
    children = []
    try:
        for peer in peers:
            child = peer.start(arena.proxy_core)
            if child is None:
                sys.exit(f"bench/resilience: {peer.name} does not start; see {peer.log} (--keep)")
            children.append(child)
        for name, load in LOADS:
            checks.append(compare(bench, name, load, list(zip(peers, children)), rounds, out))
            notice(f"cost: {name} done")
    finally:
        for child in children:
            child.stop()
    if shutil.which("valgrind"):
        counts = [profile.instructions(bench, peer, arena.run, CONNECTIONS) for peer in peers]
        notice("cost: callgrind done")
        if all(counts):
            out({"part": "instructions", "off": counts[0], "on": counts[1]})
            ratio = counts[1] / counts[0]
            checks.append(("all filters on, nothing tripping: user instructions per request, on / off", "at most 1.10",
                           "outrider", f"{ratio:.3f} ({counts[1]:,.0f} / {counts[0]:,.0f})", ratio <= RATIO_MAX))
    else:
        notice("note: instructions are left out: no valgrind (apt-get install valgrind)")
    return checks


def compare(bench, name, load, running, rounds, out):
    """Interleaved: off on, on off, ..."""
    runs = {peer.name: [] for peer, _ in running}
    for turn in range(rounds):
        for peer, child in running if turn % 2 == 0 else running[::-1]:
            result = bench.load_undisturbed(peer.port, child.pids(), *load, "--seconds", "1", "--warmup", "0.3")
            if result:
                runs[peer.name].append(result)
                out({"part": "cost", "load": name, "peer": peer.name, **result})
    rows = []
    for label, results in runs.items():
        costs = [result["cpu_us"] for result in results]
        rows.append([label, str(len(results)), f"{statistics.median(costs):.2f}",
                     f"{min(costs):.2f}–{max(costs):.2f}",
                     f"{statistics.median(result['rps'] for result in results):,.0f}",
                     str(sum(result["non_200"] + result["errors"] for result in results)),
                     f"{statistics.median(disturbance(result) for result in results):.2f}"])
    table(f"cost: {name}, CPU per request",
          ["outrider", "n", "CPU us/req", "min–max", "req/s", "failed", "foreign"], rows)
    off, on = ([result["cpu_us"] for result in results] for results in runs.values())
    ratio = statistics.median(on) / statistics.median(off)
    each = sorted(b / a for a, b in zip(off, on))
    return (f"all filters on, nothing tripping: CPU per request, on / off, {name}", "at most 1.10", "outrider",
            f"{ratio:.3f} (pairs {each[0]:.2f}–{each[-1]:.2f})", ratio <= RATIO_MAX)
