#!/usr/bin/env python3
"""Proves that the simulators bite: switches on each deliberate bug of control/raft/bugs.h and control/store/bugs.h, one after
the other, and looks for the seed that finds it: first the one that did so last time (bite.txt), then from 1 on. A bug
whose seed is "-" there has not been found yet; it is looked for only when it is named.

    bite.py [--build DIR] [--no-build] [--seeds N] [--record] [BUG…]

Exit 0: every bug was found; 1: one was not. --record writes the seeds to bite.txt.
Builds sim_raft_bugs and sim_store_bugs, which have all the bugs inside, unless --no-build.
"""

import argparse
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
RECORD = os.path.join(HERE, "bite.txt")
BUG = re.compile(r"^\s*k(\w+) =\s+(\d+),", re.M)
FOUND = re.compile(r"^seed (\d+): .*$", re.M)
PROGRAMS = {"raft": "sim_raft_bugs", "store": "sim_store_bugs"}


def bugs():
    for core, program in PROGRAMS.items():
        with open(os.path.join(ROOT, "control", core, "bugs.h"), encoding="utf-8") as header:
            for name, number in BUG.findall(header.read()):
                if number != "0":
                    yield program, int(number), name


def recorded():
    """bug -> the seed that found it."""
    with open(RECORD, encoding="utf-8") as lines:
        rows = [line.split() for line in lines if not line.startswith("#")]
    return {int(row[0]): int(row[2]) if row[2] != "-" else None for row in rows}


def find(program, bug, first, last):
    """The line that names the seed; nothing when all seeds keep every promise."""
    run = subprocess.run([program, "--bug", str(bug), "--seeds", f"{first}..{last}"], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    line = FOUND.search(run.stdout)
    if run.returncode == 1 and line:
        return line
    if run.returncode != 0:
        sys.exit(f"{program} --bug {bug}: exit {run.returncode}\n{run.stdout}")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"), help="a configured build directory")
    parser.add_argument("--seeds", type=int, default=30000, help="how many are tried")
    parser.add_argument("--no-build", action="store_true", help="the programs are there")
    parser.add_argument("--record", action="store_true", help="looks from seed 1 on, and writes bite.txt")
    parser.add_argument("bugs", nargs="*", type=int)
    arguments = parser.parse_args()
    if not arguments.no_build:
        subprocess.run(["cmake", "--build", arguments.build, "-j", os.environ.get("OUTRIDER_JOBS", "2"),
                        "--target", *PROGRAMS.values()], check=True, stdout=subprocess.DEVNULL)
    known = {} if arguments.record else recorded()
    rows, missed = [], 0
    for program, bug, name in bugs():
        if arguments.bugs and bug not in arguments.bugs:
            continue
        if known.get(bug, 0) is None and bug not in arguments.bugs:
            print(f"{bug:3} {name:24} no seed is known that finds it")
            continue
        path = os.path.join(arguments.build, "tests", "sim", program)
        begun = time.monotonic()
        line = find(path, bug, known[bug], known[bug]) if known.get(bug) else None
        line = line or find(path, bug, 1, arguments.seeds)
        took = time.monotonic() - begun
        if line is None:
            missed += 1
            rows.append(f"{bug} {name} -\n")
            print(f"{bug:3} {name:24} NOT FOUND in {arguments.seeds} seeds ({took:.0f} s)")
        else:
            rows.append(f"{bug} {name} {line.group(1)}\n")
            print(f"{bug:3} {name:24} {took:6.2f} s  {line.group(0)}")
        sys.stdout.flush()
    if arguments.record:
        with open(RECORD, "w", encoding="utf-8") as out:
            out.write("# The seed that finds each deliberate bug; written by bite.py --record.\n")
            out.writelines(rows)
    print(f"{missed} not found" if missed else f"{len(rows)} bugs were found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
