"""What was asked of outrider beside haproxy, both with a sidecar's usual features on, and whether a run of bench/compare reached it."""

import statistics

from harness.report import described, number, print_asked, ratios

REFERENCE = "haproxy-features"
POOLED, PIPELINED, SPINNING = "outrider-features", "outrider-pipelined-features", "outrider-spin"

# peer, part, workload, figure, at most so much of the reference's
RATIOS = (
    (POOLED, "load", "1KiB/c64", ("cpu_us",), 0.78),
    (POOLED, "load", "1KiB/c512", ("cpu_us",), 0.65),
    (PIPELINED, "load", "1KiB/c64", ("cpu_us",), 0.55),
    (PIPELINED, "load", "1KiB/c512", ("cpu_us",), 0.40),
    (SPINNING, "load", "1KiB/c1", ("latency_us", "p50"), 0.5),
    (POOLED, "rate", "half", ("latency_us", "p50"), 1.0),
    (POOLED, "rate", "half", ("latency_us", "p99"), 1.0),
    (PIPELINED, "rate", "half", ("latency_us", "p50"), 1.0),
    (PIPELINED, "rate", "half", ("latency_us", "p99"), 1.0),
    (PIPELINED, "rate", "slow-mix", ("latency_us", "p50"), 1.0),
)
# peer, part, workload, figure, at most
LIMITS = (
    (PIPELINED, "rate", "slow-mix", ("latency_us", "p99"), 2000),
    (POOLED, "instructions", "1KiB/c64", ("instructions",), 14000),
    (PIPELINED, "instructions", "1KiB/c64", ("instructions",), 10000),
)
NAMES = {"cpu_us": "CPU per request", "p50": "p50", "p99": "p99 us", "instructions": "user instructions per request"}


def print_checks(records):
    def rows_of(part, workload, peer):
        return [row for row in records if (row["part"], row["workload"], row["peer"]) == (part, workload, peer)]

    checks = []
    for peer, part, workload, figure, most in RATIOS:
        found = ratios(rows_of(part, workload, peer), rows_of(part, workload, REFERENCE), *figure)
        if found:
            checks.append((f"{workload}: {peer}: {NAMES[figure[-1]].split(' us')[0]}, of {REFERENCE}'s", f"at most {most:.2f}",
                           described(found), statistics.median(found) <= most))
    for peer, part, workload, figure, most in LIMITS:
        found = []
        for row in rows_of(part, workload, peer):
            for key in figure:
                row = row.get(key) if row else None
            if row is not None:
                found.append(row)
        if found:
            checks.append((f"{workload}: {peer}: {NAMES[figure[-1]]}", f"at most {most:,}", number(statistics.median(found)),
                           statistics.median(found) <= most))
    print_asked(checks)
