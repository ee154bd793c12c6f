#!/usr/bin/env python3
"""Proves that the simulator bites: builds the core with each deliberate bug of control/raft/bugs.h and looks for the seed
that finds it.

    bite.py [--build DIR] [--seeds N] [BUG…]     exit 0: every bug was found; 1: one was not

Not a ctest: it compiles the core once for each bug.
"""

import argparse
import os
import re
import subprocess
import sys
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUG = re.compile(r"^\s*k(\w+) = (\d+),\s*(?://\s*(.*))?$", re.M)


def bugs():
    with open(os.path.join(ROOT, "control", "raft", "bugs.h"), encoding="utf-8") as header:
        return [(int(number), name) for name, number, _ in BUG.findall(header.read()) if number != "0"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"), help="a configured build directory")
    parser.add_argument("--seeds", type=int, default=20000, help="how many are tried")
    parser.add_argument("bugs", nargs="*", type=int)
    arguments = parser.parse_args()
    missed = 0
    for number, name in bugs():
        if arguments.bugs and number not in arguments.bugs:
            continue
        target = f"sim_raft_bug_{number}"
        subprocess.run(["cmake", "--build", arguments.build, "-j", os.environ.get("OUTRIDER_JOBS", "2"),
                        "--target", target], check=True, stdout=subprocess.DEVNULL)
        program = os.path.join(arguments.build, "tests", "sim", target)
        begun = time.monotonic()
        run = subprocess.run([program, "--seeds", f"1..{arguments.seeds}"], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, check=False)
        took = time.monotonic() - begun
        lines = [line for line in run.stdout.splitlines() if not line.startswith("again")]
        if run.returncode == 0:
            missed += 1
            print(f"{number:2} {name:24} NOT FOUND in {arguments.seeds} seeds ({took:.0f} s)")
        else:
            print(f"{number:2} {name:24} {took:6.2f} s  {' '.join(lines)}")
        sys.stdout.flush()
    print(f"{missed} not found" if missed else "every bug was found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
