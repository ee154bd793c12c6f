"""The tables and the checklist of bench/idempotency."""

import statistics

from harness.keyed import PLAIN
from harness.measure import FOREIGN_MAX
from harness.report import (disturbed, failures, median, number, print_asked, print_instructions, print_syscalls, ratio,
                            spread, table, unique)

THROUGHPUT_MIN = 0.60    # of the same route without idempotency
ADDED_P50_MAX = 1000     # us, on a disk whose fdatasync takes at most
DISK_P50_MAX = 500       # us
REDIS_CPU_MAX = 12       # us a request
SEGMENTS_MAX = 2


def print_all(records):
    """Everything there is, in the order in which it was measured first."""
    for part, show in (("load", print_closed), ("rate", print_fixed), ("syscalls", print_syscalls),
                       ("instructions", print_instructions)):
        chosen = [record for record in records if record["part"] == part]
        for workload in unique(record["workload"] for record in chosen):
            show(workload, by_peer(chosen, workload), PLAIN)
    of_part = {part: [record for record in records if record["part"] == part]
               for part in ("disk", "redis", "expiry")}
    if of_part["disk"]:
        print_disk(of_part["disk"])
    if of_part["redis"]:
        print_redis(of_part["redis"])
    for record in of_part["expiry"]:
        print(f"\nexpiry: {record['keys']:,} keys of {record['window']} in {record['seconds']:.1f} s; files of the log "
              f"{mib(record['peak'])} at most, {mib(record['left'])} in {record['segments']} segments when "
              f"all had expired ({record['keys_left']} keys left)")
    print_asked(checks(records))


def mib(size):
    return f"{size / (1 << 20):,.1f} MiB"


def by_peer(records, workload):
    rows = {}
    for record in records:
        if record["workload"] == workload:
            rows.setdefault(record["peer"], []).append(record)
    return rows


def share_replayed(rows):
    return statistics.median(row["replayed"] / row["requests"] if row["requests"] else 0 for row in rows)


def added(runs, base, *path):
    """Median of the differences, round by round."""
    pairs = [(value_of(run, path), value_of(other, path)) for run, other in zip(runs, base)]
    return statistics.median(mine - theirs for mine, theirs in pairs) if pairs else None


def value_of(row, path):
    for key in path:
        row = row[key]
    return row


def print_closed(workload, of_peer, base):
    reference = of_peer.get(base, [])
    rows = []
    for peer, runs in of_peer.items():
        cpu, rps = median(runs, "cpu_us"), median(runs, "rps")
        rows.append([peer, str(len(runs)), number(cpu, 1), spread(runs, "cpu_us"),
                     number(added(runs, reference, "cpu_us"), 1), ratio(cpu, median(reference, "cpu_us")),
                     number(rps), spread(runs, "rps", scale=1e-3) + "k", ratio(rps, median(reference, "rps")),
                     number(median(runs, "cpu_share"), 2), number(median(runs, "system_share"), 2),
                     number(median(runs, "latency_us", "p50")), number(median(runs, "latency_us", "p99")),
                     f"{share_replayed(runs):.3f}", number(disturbed(runs), 2), failures(runs)])
    table(f"{workload}: closed loop, median of n rounds (+ and ratios: to {base})",
          ["store", "n", "CPU us/req", "min–max", "+CPU", "ratio", "req/s", "min–max", "ratio", "CPU", "sys", "p50 us",
           "p99 us", "replayed", "foreign", "failed"], rows)
    warn_if_disturbed(of_peer)


def print_fixed(workload, of_peer, base):
    reference = of_peer.get(base, [])
    rows = []
    for peer, runs in of_peer.items():
        row = [peer, str(len(runs)), number(median(runs, "cpu_us"), 1), spread(runs, "cpu_us"),
               number(median(runs, "rps"))]
        for quantile in ("p50", "p99"):
            row += [number(median(runs, "latency_us", quantile)),
                    number(added(runs, reference, "latency_us", quantile))]
        row += [spread([{"p50": run["latency_us"]["p50"]} for run in runs], "p50", digits=0),
                f"{share_replayed(runs):.3f}", number(disturbed(runs), 2), failures(runs)]
        rows.append(row)
    table(f"{workload}: fixed rate, latency from when each request was due, us (+: to {base})",
          ["store", "n", "CPU us/req", "min–max", "req/s", "p50", "+p50", "p99", "+p99", "p50 min–max", "replayed",
           "foreign", "failed"], rows)
    warn_if_disturbed(of_peer)


def warn_if_disturbed(of_peer):
    if any(disturbed(runs) > FOREIGN_MAX for runs in of_peer.values()):
        print("  Others used these cores: req/s and latencies say little, CPU us/req is too high.")


def print_disk(rows):
    print(f"\ndisk: 512 bytes overwritten and fdatasync, {len(rows)} probes between the runs: "
          f"p50 {median(rows, 'p50'):.0f} us ({spread(rows, 'p50', digits=0)}), p99 {median(rows, 'p99'):.0f} us")


def print_redis(records):
    rows = [[record["workload"], number(record["requests"]),
             *(f"{record[name] / record['requests']:.2f}" for name in ("commands", "reads", "writes")),
             number(record["reads"] / record["seconds"]), number(record["bytes in"] / record["requests"]),
             number(record["bytes out"] / record["requests"])] for record in records]
    table("Redis, by its own count",
          ["", "requests", "commands/req", "reads/req", "writes/req", "reads/s", "bytes in/req", "bytes out/req"], rows)


def checks(records):
    """(what, asked, measured, reached)"""
    def runs(part, begins, peer):
        return [r for r in records if r["part"] == part and r["workload"].startswith(begins) and r["peer"] == peer]

    found = []
    log, plain = runs("load", "first use", "log"), runs("load", "first use", PLAIN)
    if log and plain:
        each = sorted(a["rps"] / b["rps"] for a, b in zip(log, plain))
        value = median(log, "rps") / median(plain, "rps")
        found.append(("log, group commit, fresh keys: throughput / without", "at least 0.60",
                      f"{value:.2f} (rounds {each[0]:.2f}–{each[-1]:.2f})", value >= THROUGHPUT_MIN))
    log, plain = runs("rate", "first use", "log"), runs("rate", "first use", PLAIN)
    disk = median([r for r in records if r["part"] == "disk"], "p50")
    if log and plain and disk:
        value = added(log, plain, "latency_us", "p50")
        slow = "; this disk is slower" if disk > DISK_P50_MAX else ""
        found.append(("log, group commit, fixed rate: p50 added",
                      f"at most {ADDED_P50_MAX} us where fdatasync takes at most {DISK_P50_MAX}",
                      f"{value:.0f} us (fdatasync {disk:.0f}{slow})", value <= ADDED_P50_MAX))
    redis, plain = runs("load", "first use", "redis"), runs("load", "first use", PLAIN)
    if redis and plain:
        value = added(redis, plain, "cpu_us")
        found.append(("redis, fresh keys: CPU added per request", f"at most {REDIS_CPU_MAX} us", f"{value:.1f} us",
                      value <= REDIS_CPU_MAX))
    plain = runs("load", "replays", PLAIN)
    for name in ("memory", "log", "redis"):
        again = runs("load", "replays", name)
        if again and plain:
            value = median(again, "cpu_us") / median(plain, "cpu_us")
            found.append((f"{name}, replays: CPU per request / plain proxied", "at most 1.00",
                          f"{value:.2f} ({share_replayed(again):.3f} of them replayed)", value <= 1.0))
    for record in records:
        if record["part"] == "expiry":
            found.append((f"log, {record['keys']:,} keys expired: segments left", f"at most {SEGMENTS_MAX}",
                          f"{record['segments']}, {mib(record['left'])}", record["segments"] <= SEGMENTS_MAX))
    return found
