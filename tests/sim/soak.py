#!/usr/bin/env python3
"""Simulates new seeds of the control plane for hours and prints every seed that breaks a promise, with the command that replays it.

    scripts/soak sim [--hours H] [--seeds N] [--from SEED] [--jobs N] [--no-build]

Ends after H hours (1), or after N seeds of each simulator. The first seed is drawn from the clock unless --from says it, so each
run simulates others. sim_raft is consensus alone, sim_store the key space with its sessions, watches and leases.
Exit 0: every seed kept every promise; 1: one did not.
"""

import argparse
import os
import re
import subprocess
import sys
import threading
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
FOLDER = os.path.join(ROOT, "build", "release", "tests", "sim")
PROGRAMS = ("sim_store", "sim_raft")
CHUNK = 2000
CHUNK_SECONDS = 3600  # a chunk takes some seconds


class Soak:
    def __init__(self, arguments):
        self.end = time.monotonic() + arguments.hours * 3600
        self.begin = self.next = arguments.begin
        self.last = arguments.begin + arguments.seeds if arguments.seeds else None
        self.lock = threading.Lock()
        self.seeds = dict.fromkeys(PROGRAMS, 0)
        self.failed = []

    def take(self):
        with self.lock:
            if time.monotonic() >= self.end or (self.last is not None and self.next >= self.last):
                return None
            first = self.next
            self.next = min(first + CHUNK, self.last) if self.last is not None else first + CHUNK
            return first, self.next - 1

    def work(self):
        while (chunk := self.take()) is not None:
            for program in PROGRAMS:
                self.run(program, *chunk)

    def run(self, program, first, last):
        """Goes on behind a seed that ends the simulator itself (a broken require())."""
        while first <= last:
            done = subprocess.run([os.path.join(FOLDER, program), "--seeds", f"{first}..{last}", "--keep-going"],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                  timeout=CHUNK_SECONDS, check=False)
            broken = re.findall(r"^seed (\d+): (.*)$", done.stdout, re.M)
            ended = re.search(r"^seed (\d+): ended by a broken require", done.stdout, re.M)
            if done.returncode not in (0, 1) or (done.returncode == 1 and not broken):
                broken.append((str(first), f"exit {done.returncode}: {done.stdout[-500:]}"))
            with self.lock:
                for seed, what in broken:
                    self.failed.append((program, seed))
                    print(f"{program} seed {seed}: {what}\n"
                          f"  again: build/release/tests/sim/{program} --seed {seed} --trace", flush=True)
                through = int(ended.group(1)) if ended else last
                self.seeds[program] += through - first + 1
            first = through + 1


def main():
    parser = argparse.ArgumentParser(prog="soak sim", description=__doc__.split("\n")[0])
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, help="of each simulator; else the hours count")
    parser.add_argument("--from", dest="begin", type=int, default=int(time.time()) * 1000, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-build", action="store_true", help="the programs are there")
    arguments = parser.parse_args()
    if not arguments.no_build:
        subprocess.run([os.path.join(ROOT, "scripts", "build"), "release", *PROGRAMS], check=True,
                       stdout=subprocess.DEVNULL)
    soak = Soak(arguments)
    begun = time.monotonic()
    workers = [threading.Thread(target=soak.work) for _ in range(arguments.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.monotonic() - begun
    for program, seeds in soak.seeds.items():
        print(f"{program}: {seeds} seeds from {soak.begin} on, {seeds / took:.0f} a second")
    print(f"{len(soak.failed)} seeds broke a promise" if soak.failed else "every seed kept every promise")
    return 1 if soak.failed else 0


if __name__ == "__main__":
    sys.exit(main())
