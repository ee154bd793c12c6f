#!/usr/bin/env python3
"""Proves that the simulators bite: switches on each deliberate bug of control/raft/bugs.h and control/store/bugs.h, one after
the other, and looks for the seed that finds it.

    bite.py [--build DIR] [--seeds N] [BUG…]     exit 0: every bug was found; 1: one was not

Builds sim_raft_bugs and sim_store_bugs, which have all the bugs inside, unless --no-build.
"""

import argparse
import os
import re
import subprocess
import sys
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUG = re.compile(r"^\s*k(\w+) =\s+(\d+),", re.M)
PROGRAMS = {"raft": "sim_raft_bugs", "store": "sim_store_bugs"}


def bugs():
    for core, program in PROGRAMS.items():
        with open(os.path.join(ROOT, "control", core, "bugs.h"), encoding="utf-8") as header:
            for name, number in BUG.findall(header.read()):
                if number != "0":
                    yield program, int(number), name


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"), help="a configured build directory")
    parser.add_argument("--seeds", type=int, default=20000, help="how many are tried")
    parser.add_argument("--no-build", action="store_true", help="the programs are there")
    parser.add_argument("bugs", nargs="*", type=int)
    arguments = parser.parse_args()
    if not arguments.no_build:
        subprocess.run(["cmake", "--build", arguments.build, "-j", os.environ.get("OUTRIDER_JOBS", "2"),
                        "--target", *PROGRAMS.values()], check=True, stdout=subprocess.DEVNULL)
    found = missed = 0
    for program, number, name in bugs():
        if arguments.bugs and number not in arguments.bugs:
            continue
        begun = time.monotonic()
        run = subprocess.run([os.path.join(arguments.build, "tests", "sim", program), "--bug", str(number),
                              "--seeds", f"1..{arguments.seeds}"], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
        took = time.monotonic() - begun
        lines = [line for line in run.stdout.splitlines() if not line.startswith("again")]
        if run.returncode == 1:
            found += 1
            print(f"{number:3} {name:26} {took:6.2f} s  {' '.join(lines)}")
        else:
            missed += 1
            print(f"{number:3} {name:26} NOT FOUND in {arguments.seeds} seeds ({took:.0f} s)")
            if run.returncode != 0:
                print(run.stdout)
        sys.stdout.flush()
    print(f"{missed} not found" if missed else f"all {found} bugs were found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
