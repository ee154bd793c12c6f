"""Prints tables of records. A record is a dictionary with "part", "workload", "peer" and figures."""

import statistics

from harness.measure import FOREIGN_MAX, disturbance


def print_tables(records, base=None):
    """Everything there is, in the order in which it was measured first."""
    peers = unique(record["peer"] for record in records)
    base = base or next((peer for peer in peers if peer.startswith("haproxy")), None)
    for part, show in (("load", print_load), ("rate", print_rate), ("memory", print_memory),
                       ("syscalls", print_syscalls), ("instructions", print_instructions)):
        chosen = [record for record in records if record["part"] == part]
        for workload in unique(record["workload"] for record in chosen):
            of_peer = {peer: [record for record in chosen
                              if (record["workload"], record["peer"]) == (workload, peer)]
                       for peer in peers}
            show(workload, {peer: rows for peer, rows in of_peer.items() if rows}, base)


def unique(items):
    return list(dict.fromkeys(items))


def values(rows, *path):
    found = []
    for row in rows:
        for key in path:
            row = row.get(key) if row is not None else None
        if row is not None:
            found.append(row)
    return found


def median(rows, *path):
    found = values(rows, *path)
    return statistics.median(found) if found else None


def number(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def spread(rows, *path, digits=1, scale=1.0):
    found = values(rows, *path)
    return f"{min(found) * scale:.{digits}f}–{max(found) * scale:.{digits}f}" if found else "-"


def ratio(value, reference):
    """A difference can be negative on a noisy machine; a ratio of such things would say nothing."""
    if value is None or reference is None or value <= 0 or reference <= 0:
        return "-"
    return f"{value / reference:.2f}"


def ratios(rows, others, *path):
    """Of two peers, round by round."""
    return [mine / theirs for mine, theirs in zip(values(rows, *path), values(others, *path)) if theirs]


def described(found):
    """The median with minimum and maximum."""
    return f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})" if found else "-"


def print_asked(rows):
    """(what, asked, measured, whether it was reached)"""
    if rows:
        table("What was asked", ["", "asked", "measured", ""],
              [[what, asked, measured, "yes" if reached else "NO"] for what, asked, measured, reached in rows])


def table(title, header, rows):
    print(f"\n{title}")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width)
                 for i, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


def failures(rows):
    return number(sum(row["errors"] + row["non_200"] for row in rows))


def print_load(workload, of_peer, base):
    reference = of_peer.get(base, [])
    rows = []
    for peer, runs in of_peer.items():
        cpu, rps = median(runs, "cpu_us"), median(runs, "rps")
        rows.append([peer, str(len(runs)),
                     number(cpu, 1), spread(runs, "cpu_us"), ratio(cpu, median(reference, "cpu_us")),
                     number(rps), spread(runs, "rps", scale=1e-3) + "k",
                     ratio(rps, median(reference, "rps")),
                     number(median(runs, "cpu_share"), 2), number(median(runs, "system_share"), 2),
                     number(median(runs, "latency_us", "p50")),
                     ratio(median(runs, "latency_us", "p50"), median(reference, "latency_us", "p50")),
                     number(median(runs, "latency_us", "p99")), number(median(runs, "rode"), 2),
                     number(disturbed(runs), 2), failures(runs)])
    table(f"{workload}: closed loop, median of n rounds (ratios to {base})",
          ["peer", "n", "CPU us/req", "min–max", "ratio", "req/s", "min–max", "ratio", "CPU", "sys",
           "p50 us", "ratio", "p99 us", "rode", "foreign", "failed"], rows)
    warn_if_disturbed(of_peer)


def print_rate(workload, of_peer, base):
    direct, reference = of_peer.get("direct", []), of_peer.get(base, [])
    quantiles = ("p50", "p99", "p99.9")
    rows = []
    for peer, runs in of_peer.items():
        cpu = median(runs, "cpu_us")
        row = [peer, str(len(runs)), number(cpu, 1), spread(runs, "cpu_us"),
               ratio(cpu, median(reference, "cpu_us")), number(median(runs, "rps"))]
        for quantile in quantiles:
            row.append(number(median(runs, "latency_us", quantile)))
        for quantile in quantiles:
            added = difference(runs, direct, quantile)
            row += [number(added), ratio(added, difference(reference, direct, quantile))]
        row += [number(median(runs, "rode"), 2), number(disturbed(runs), 2), failures(runs)]
        rows.append(row)
    table(f"{workload}: fixed rate, latency from when each request was due, us; + is what the proxy adds "
          f"to direct (ratios to {base})",
          ["peer", "n", "CPU us/req", "min–max", "ratio", "req/s", *quantiles,
           "+p50", "ratio", "+p99", "ratio", "+p99.9", "ratio", "rode", "foreign", "failed"], rows)
    warn_if_disturbed(of_peer)


def difference(runs, direct, quantile):
    ours, theirs = median(runs, "latency_us", quantile), median(direct, "latency_us", quantile)
    return None if ours is None or theirs is None else ours - theirs


def disturbed(runs):
    return statistics.median(disturbance(run) for run in runs)


def warn_if_disturbed(of_peer):
    disturbed_peers = [peer for peer, runs in of_peer.items() if disturbed(runs) > FOREIGN_MAX]
    if disturbed_peers:
        print(f"  Others used these cores ({', '.join(disturbed_peers)}): req/s and latencies say little, "
              "CPU us/req is too high.")


def print_memory(_, of_peer, base):
    reference = of_peer.get(base, [])
    rows = []
    for peer, runs in of_peer.items():
        row = [peer, str(len(runs)), number(median(runs, "base_rss_kib")),
               number(median(runs, "base_pss_kib")), number(median(runs, "idle_connections")),
               number(median(runs, "idle_rss_kib"))]
        for key in ("idle_bytes", "waiting_bytes", "dripping_bytes"):
            value = median(runs, key)
            row += [number(value), ratio(value, median(reference, key))]
        row += [number(median(runs, "probe_p99_us")),
                number(sum(run[state + "_lost"] for run in runs
                           for state in ("idle", "waiting", "dripping")))]
        rows.append(row)
    table(f"memory: KiB, and bytes added by each connection (ratios to {base})",
          ["peer", "n", "RSS", "PSS", "idle conns", "RSS then", "B/idle", "ratio", "B/waiting", "ratio",
           "B/dripping", "ratio", "probe p99 us", "lost"], rows)


def print_syscalls(workload, of_peer, base):
    reference = median(of_peer.get(base, []), "calls", "all")
    rows = []
    for peer, runs in of_peer.items():
        calls = runs[-1]["calls"]
        named = sorted(((count, name) for name, count in calls.items()
                        if name != "all" and count >= 0.005), reverse=True)
        rows.append([peer, number(calls.get("all"), 2), ratio(calls.get("all"), reference),
                     " ".join(f"{name} {count:.2f}" for count, name in named)])
    width = max(len(row[3]) for row in rows)
    for row in rows:
        row[3] = row[3].ljust(width)
    table(f"system calls per request, {workload} (ratios to {base})", ["peer", "all", "ratio", ""], rows)


def print_instructions(workload, of_peer, base):
    reference = median(of_peer.get(base, []), "instructions")
    table(f"user instructions and allocations per request, {workload}, callgrind (ratios to {base})",
          ["peer", "instructions", "ratio", "allocations", "rode"],
          [[peer, number(median(runs, "instructions")), ratio(median(runs, "instructions"), reference),
            number(median(runs, "allocations"), 2), number(median(runs, "rode"), 2)] for peer, runs in of_peer.items()])
