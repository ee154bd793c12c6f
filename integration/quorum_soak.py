#!/usr/bin/env python3
"""quorum_view.py for hours: so many failures of one kind (or of several), in rounds with a new cluster and a new seed each.

  quorum_soak.py --faults kill --cycles 1000 [--round 25] [--seed N]

A cycle is one failure with all that follows from it: nodes end and start again, or are let go on. Ends with the first violation, and
prints how to run that round again. OUTRIDER_BIN, OUTRIDER_FAULTY_DISK and OUTRIDER_FAULTY_CLOCK as for quorum_view.py.
"""
import argparse
import collections
import random
import sys
import time

import links
import quorum_view

TOTALS = ("nodes killed", "disks cut off", "calls", "acknowledged", "unknown", "streams")


def main(arguments):
    parser = argparse.ArgumentParser(description="Many failures of a quorum, round after round, each judged by quorum_view.py.")
    parser.add_argument("--faults", default="kill")
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--round", type=int, default=25, help="failures of one cluster before it is judged")
    parser.add_argument("--seed", type=int, default=None, help="of the first round")
    parser.add_argument("--clients", type=int, default=6)
    options = parser.parse_args(arguments)
    if "link" in options.faults.split(","):
        try:
            links.enter()
        except links.Unavailable as error:
            parser.error(str(error))
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    totals, done, began = collections.Counter(), 0, time.monotonic()
    longest = (0.0, "calm")
    while done < options.cycles:
        strikes = min(options.round, options.cycles - done)
        again = ["--seed", str(seed), "--strikes", str(strikes), "--faults", options.faults, "--clients", str(options.clients)]
        summary, found = quorum_view.check(quorum_view.parse(again))
        if found:
            print("\n".join(found[:5]), f"VIOLATED; again with quorum_view.py {' '.join(again)}", sep="\n")
            return 1
        done += strikes
        seed += 1
        totals.update({name: summary[name] for name in TOTALS})
        longest = max(longest, (summary["longest without a write"], summary["in"]))
        print(f"{done:6} cycles of {options.faults}: " + ", ".join(f"{name} {totals[name]}" for name in TOTALS)
              + f", longest without a write {longest[0]} s ({longest[1]}), {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
