"""The sidecars of bench/batch, and its tables: the same route without and with [route.batch] or [route.collapse]."""

import json
import os
import statistics
import time
import urllib.request

from harness.contestants import fill
from harness.peers import Peer
from harness.processes import free_port
from harness.report import (described, disturbed, failures, median, number, print_asked, ratios, spread, table, unique,
                            warn_if_disturbed)

CALL_US = 1000
SHARED = {
    "without": "",
    "batch": '\n[route.batch]\nformat = "json-array"\npath = "/orders/bulk"\n',
    "collapse": "\n[route.collapse]\n",
}
REPORT_SECONDS = 0.25  # after which the application has written what it counted

THROUGHPUT_MIN = 10    # of the same route without, at many clients
ADDED_P50_MAX = 1.05   # at one


class SharedPeer(Peer):
    """outrider with one of SHARED in its route."""

    def __init__(self, name, sharing, run, build, service):
        taken = set()
        self.admin = free_port(taken)
        self.service = service
        port = free_port(taken)
        path = os.path.join(run, f"{name}-{port}.toml")
        with open(path, "w") as config:
            config.write(fill("batch-outrider.toml", {"PORT": port, "ADMIN": self.admin, "BACKEND": service.port,
                                                      "SHARING": sharing}))
        super().__init__(name, port, "core", [os.path.join(build, "cli", "outrider"), "run", "-c", path],
                         os.path.join(run, f"{name}-{port}.log"))

    def calls(self):
        """Calls for batches so far, and requests in them."""
        reply = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/routes", timeout=5).read()
        batch = json.loads(reply)["routes"][0].get("batch", {"calls": 0, "requests": 0})
        return batch["calls"], batch["requests"]

    def service_requests(self):
        """What has reached the application so far."""
        time.sleep(REPORT_SECONDS)
        return sum(bucket[1] for bucket in self.service.buckets())


def print_all(records):
    for clients in unique(row["workload"] for row in records if row["part"] == "batch"):
        print_batch(clients, rows_of(records, "batch", clients))
    for clients in unique(row["workload"] for row in records if row["part"] == "collapse"):
        print_collapse(clients, rows_of(records, "collapse", clients))
    print_asked(checks(records))


def rows_of(records, part, workload):
    rows = {}
    for row in records:
        if (row["part"], row["workload"]) == (part, workload):
            rows.setdefault(row["peer"], []).append(row)
    return rows


def print_batch(clients, rows):
    lines = []
    for peer, runs in rows.items():
        calls = sum(run["calls"] for run in runs)
        size = sum(run["carried"] for run in runs) / calls if calls else 1
        lines.append([peer, str(len(runs)), number(median(runs, "rps")), spread(runs, "rps", digits=0),
                      described(ratios(runs, rows.get("without", []), "rps")), number(size, 1),
                      number(median(runs, "latency_us", "p50")), number(median(runs, "latency_us", "p99")),
                      described(ratios(runs, rows.get("without", []), "latency_us", "p50")), number(median(runs, "cpu_us"), 1),
                      number(disturbed(runs), 2), failures(runs)])
    table(f"batch: {clients} clients, an application whose calls take {CALL_US / 1000:g} ms, one after the other "
          "(ratios to without: median of the rounds, min–max)",
          ["", "n", "req/s", "min–max", "ratio", "requests a call", "p50 us", "p99 us", "p50 ratio", "CPU us/req", "foreign",
           "failed"], lines)
    warn_if_disturbed(rows)


def print_collapse(clients, rows):
    table(f"collapse: {clients} clients ask for the same page at once",
          ["", "answers", "upstream calls", "p50 us", "max us", "failed"],
          [[peer, number(runs[-1]["requests"]), number(runs[-1]["calls"]), number(median(runs, "latency_us", "p50")),
            number(median(runs, "latency_us", "max")), failures(runs)] for peer, runs in rows.items()])


def checks(records):
    rows = []
    one, many = rows_of(records, "batch", "1"), rows_of(records, "batch", "256")
    gain = ratios(many.get("batch", []), many.get("without", []), "rps")
    added = ratios(one.get("batch", []), one.get("without", []), "latency_us", "p50")
    if gain:
        rows.append(("batch: throughput of without, 256 clients", f"at least {THROUGHPUT_MIN}", described(gain),
                     statistics.median(gain) >= THROUGHPUT_MIN))
    if added:
        rows.append(("batch: p50 of without, 1 client", f"at most {ADDED_P50_MAX}", described(added),
                     statistics.median(added) <= ADDED_P50_MAX))
    for run in (row for row in records if row["part"] == "collapse" and row["peer"] == "collapse"):
        whole = run["requests"] == int(run["workload"]) and run["errors"] + run["non_200"] == 0
        rows.append((f"collapse: upstream calls for {run['workload']} requests", "1", number(run["calls"]),
                     run["calls"] == 1 and whole))
    return rows
