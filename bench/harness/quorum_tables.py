"""Prints the records of bench/quorum, and what was asked beside what was measured."""

import statistics

from harness.report import described, median, number, print_asked, ratios, spread, table, unique

OURS, THEIRS = "outrider", "etcd"

# part, workload, figure, what it is called, at most or at least, so much of etcd's
RATIOS = (
    ("load", "put/64", ("cpu_us",), "CPU per put, 64 clients", "at most", 0.33),
    ("load", "put/64", ("rps",), "puts a second, 64 clients", "at least", 2.5),
    ("load", "put/64", ("latency_us", "p99"), "p99 of a put, 64 clients", "at most", 0.5),
    ("load", "put/1", ("latency_us", "p50"), "p50 of a put, a lone client", "at most", 0.7),
    ("load", "read/64", ("cpu_us",), "CPU per linearizable read, 64 clients", "at most", 0.33),
    ("load", "read/64", ("rps",), "linearizable reads a second, 64 clients", "at least", 2.5),
    ("load", "read/64", ("latency_us", "p99"), "p99 of a linearizable read, 64 clients", "at most", 0.5),
    ("watch", "1000", ("cpu_us",), "CPU per event, 1,000 watchers", "at most", 0.25),
    ("memory", "memory", ("after", "rss"), "memory after the load", "at most", 0.1),
)
KILL_DEFAULTS_MAX = 1.0  # seconds, of every kill
FOREIGN_MAX = 0.06


def print_all(records):
    for workload in workloads(records, "load"):
        print_load(workload, rows_of(records, "load", workload))
    for workload in workloads(records, "watch"):
        print_watch(workload, rows_of(records, "watch", workload))
    for workload in workloads(records, "kill"):
        print_kills(workload, rows_of(records, "kill", workload))
    if workloads(records, "memory"):
        print_memory(rows_of(records, "memory", "memory"))
    probes = [record["p50"] for record in records if record["part"] == "disk"]
    if probes:
        print(f"\nThe disk, between the rounds: fdatasync of 512 bytes takes {statistics.median(probes):.0f} us (p50; "
              f"{min(probes):.0f}–{max(probes):.0f})")
    busy = [record["foreign"] for record in records if "foreign" in record]
    if busy and statistics.median(busy) > FOREIGN_MAX:
        print("Others used these cores: rates and latencies say little, CPU is somewhat too high; the ratios, taken round by "
              "round, hold better.")
    print_asked(checks(records))


def workloads(records, part):
    return unique(record["workload"] for record in records if record["part"] == part)


def rows_of(records, part, workload):
    rows = {}
    for record in records:
        if (record["part"], record["workload"]) == (part, workload):
            rows.setdefault(record["peer"], []).append(record)
    return rows


def against(rows, peer, *figure):
    """To etcd's, round by round."""
    return "-" if peer == THEIRS else described(ratios(rows[peer], rows.get(THEIRS, []), *figure))


def print_load(workload, rows):
    kind, clients = workload.split("/")
    names = {"put": "puts", "read": "linearizable reads", "serializable": "serializable reads"}
    table(f"{names[kind]}, {clients} client{'s' if clients != '1' else ''} (ratios to {THEIRS}: median of the rounds, min–max)",
          ["", "n", "CPU us/op", "min–max", "ratio", "op/s", "ratio", "p50 us", "ratio", "p99 us", "ratio", "foreign", "failed"],
          [[peer, str(len(runs)), number(median(runs, "cpu_us"), 1), spread(runs, "cpu_us"), against(rows, peer, "cpu_us"),
            number(median(runs, "rps")), against(rows, peer, "rps"),
            number(median(runs, "latency_us", "p50")), against(rows, peer, "latency_us", "p50"),
            number(median(runs, "latency_us", "p99")), against(rows, peer, "latency_us", "p99"),
            number(median(runs, "foreign"), 2), number(sum(run["errors"] + run["non_200"] for run in runs))]
           for peer, runs in rows.items()])


def print_watch(workload, rows):
    table(f"{int(workload):,} watchers of one key; the next put when all have heard of the last",
          ["", "n", "CPU us/event", "min–max", "ratio", "events/s", "ratio", "delay p50 us", "ratio", "p99 us", "ratio",
           "foreign", "lost or twice"],
          [[peer, str(len(runs)), number(median(runs, "cpu_us"), 2), spread(runs, "cpu_us", digits=2),
            against(rows, peer, "cpu_us"), number(median(runs, "events_per_second")),
            against(rows, peer, "events_per_second"),
            number(median(runs, "delay_us", "p50")), against(rows, peer, "delay_us", "p50"),
            number(median(runs, "delay_us", "p99")), against(rows, peer, "delay_us", "p99"),
            number(median(runs, "foreign"), 2), number(sum(run["out_of_order"] for run in runs))]
           for peer, runs in rows.items()])


def print_kills(workload, rows):
    lines = []
    for peer, runs in rows.items():
        seconds = [run["seconds"] for run in runs]
        lines.append([peer, str(len(seconds)), number(statistics.median(seconds), 3), number(min(seconds), 3),
                      number(max(seconds), 3)])
    table(f"seconds without a writer after kill -9 of the leader, heartbeat and election timeout: {workload}",
          ["", "kills", "median", "min", "max"], lines)


def print_memory(rows):
    mib = 1 / 1024
    table("memory of a node (MiB, the largest of three), and bytes that a put leaves on a node's disk",
          ["", "n", "RSS at start", "RSS after", "ratio", "without files' pages", "ratio", "most", "puts", "disk B/put", "ratio"],
          [[peer, str(len(runs)), number(median(runs, "before", "rss") * mib, 1), number(median(runs, "after", "rss") * mib, 1),
            against(rows, peer, "after", "rss"), number(median(runs, "after", "anonymous") * mib, 1),
            against(rows, peer, "after", "anonymous"), number(median(runs, "after", "peak") * mib, 1),
            number(median(runs, "puts")), number(median(runs, "disk_per_put")), against(rows, peer, "disk_per_put")]
           for peer, runs in rows.items()])


def checks(records):
    rows = []
    for part, workload, figure, what, sense, bound in RATIOS:
        of_peer = rows_of(records, part, workload)
        found = ratios(of_peer.get(OURS, []), of_peer.get(THEIRS, []), *figure)
        if found:
            middle = statistics.median(found)
            rows.append((f"{what}, of {THEIRS}'s", f"{sense} {bound:.2f}", described(found),
                         middle <= bound if sense == "at most" else middle >= bound))
    for workload in workloads(records, "kill"):
        seconds = {peer: [run["seconds"] for run in runs] for peer, runs in rows_of(records, "kill", workload).items()}
        if OURS not in seconds:
            continue
        if workload == "defaults":
            worst = max(seconds[OURS])
            rows.append((f"s without a writer, defaults, each of {len(seconds[OURS])} kills", f"at most {KILL_DEFAULTS_MAX:.2f}",
                         number(worst, 2), worst <= KILL_DEFAULTS_MAX))
        elif THEIRS in seconds:
            ours, theirs = statistics.median(seconds[OURS]), statistics.median(seconds[THEIRS])
            rows.append((f"s without a writer, {workload}, median", f"at most {theirs:.2f} ({THEIRS}'s)", number(ours, 2),
                         ours <= theirs))
    return rows
