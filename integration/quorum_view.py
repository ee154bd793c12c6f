#!/usr/bin/env python3
"""What clients see of a quorum of three real nodes while those are killed, stopped and started: a check of consistency from outside.

Clients put, delete, compare and swap, write several keys at once and read through any node, some with no patience at all; a watch at
each node tells all changes from the first on. Meanwhile nodes are killed with kill -9 and started on the same data (one, a majority, all
at once), or stopped with SIGSTOP. At the end, when all is calm:

  * there is one order of all writes that explains everything that anybody was told (quorum_history.py says what that includes)
  * every acknowledged write is in it, at its revision, and all three nodes tell the same order and have the same hash
  * the watches told each revision once, in order
  * no node ended by itself, and nothing was answered that is not to be answered
  * after each failure a write was acknowledged again (within a bound that no machine is too slow for)

  quorum_view.py [--seed N] [--seconds S] [--strikes N] [--clients N] [--faults kill,pause] [--break …]

`--break` must be found out, or the check itself is worth nothing: `lost` takes one acknowledged write out of the order, `twice` repeats
one change in a watch, `stale` asks one node for its own state where a linearizable read is promised. Which call meets which failure
depends on the machine; the seed gives the clients' and the killer's choices again, not their interleaving.

OUTRIDER_BIN names the program. Exit code: 0 no violation, 1 some, 2 usage.
"""
import argparse
import contextlib
import itertools
import random
import shutil
import sys
import threading
import time

from quorum import Quorum, Refused, wait_for
from quorum_clients import CALM, Client, History, Watcher, whole_history
from quorum_history import Call, violations

PATIENCE = 60.0
FAULTS = ("kill", "pause")


class World:
    """The nodes, and what can be done to them. Started and killed on the main thread: they are to die with it."""

    def __init__(self, options):
        self.options = options
        self.quorum = Quorum(3, snapshot_entries=300, segment_bytes="1MiB")
        self.nodes = self.quorum.nodes
        self.ended = []  # of nodes that ended by themselves

    def __enter__(self):
        try:
            self.quorum.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for node in self.nodes:
            with contextlib.suppress(OSError):
                node.kill()
            shutil.rmtree(node.directory, ignore_errors=True)

    def check_alive(self):
        for node in self.nodes:
            if node.child is not None and not node.alive():
                self.ended.append(f"{node.node_name} ended by itself with {node.child.returncode}:\n{node.log()}")
                node._forget()
                node.start()

    def leader(self):
        """A node that says that it leads; nothing when none does."""
        for node in self.nodes:
            try:
                if node.metric("outrider_control_leader") == 1:
                    return node
            except OSError:
                continue
        return None


class Killer:
    """Failures one after the other, each kind once before chance decides."""

    def __init__(self, world, history, options):
        self.world = world
        self.history = history
        self.rng = random.Random(f"{options.seed}:killer")
        self.strikes = {fault: 0 for fault in options.faults}
        self.kills = 0
        self.done = []
        self.first = list(options.faults)
        self.rng.shuffle(self.first)

    def run(self, deadline, strikes):
        while sum(self.strikes.values()) < strikes and (self.first or time.monotonic() < deadline):
            self.world.check_alive()
            fault = self.first.pop() if self.first else self.rng.choice(list(self.strikes))
            began = time.monotonic()
            what = getattr(self, fault)()
            self.strikes[fault] += 1
            self.done.append((began, time.monotonic(), f"{fault} {what}"))
            if self.rng.random() < 0.75:
                self.progress()
            self._pause(0.3)

    def _pause(self, most):
        time.sleep(self.rng.uniform(0, most))  # between two failures; nothing is waited for

    def progress(self):
        """Something new is acknowledged. Two, since the first may have been on its way before."""
        goal = self.history.acknowledged + 2
        wait_for("another acknowledged write", lambda: self.history.acknowledged >= goal, PATIENCE)

    def victims(self):
        """One node, the leader more often than chance would have it; sometimes two, or all."""
        chance = self.rng.random()
        nodes = self.world.nodes
        leader = self.world.leader() if chance < 0.35 else None
        if leader is not None:
            return [leader]
        return self.rng.sample(nodes, 1 if chance < 0.75 else 2 if chance < 0.85 else 3)

    def kill(self):
        victims = self.victims()
        for node in victims:
            node.kill()
        self.kills += len(victims)
        self._pause(0.2)
        for node in self.rng.sample(victims, len(victims)):
            node.start()
        return names(victims)

    def pause(self):
        victims = self.victims()
        for node in victims:
            node.pause()
        self._pause(1.2)
        for node in victims:
            node.resume()
        return names(victims)


def names(nodes):
    return " ".join(node.node_name for node in nodes)


def settle(world, history):
    """All nodes live and tell the same; the revision up to which they do."""
    world.check_alive()
    numbers = itertools.count()

    def same():
        call = Call(-1, world.nodes[0].node_name, "write", time.monotonic(), {CALM: f"calm.{next(numbers)}"})
        try:
            call.revision = int(world.nodes[0].put(CALM, call.changes[CALM])["header"]["revision"])
            call.outcome, call.ended = "ok", time.monotonic()
            hashes = [node.call("/maintenance/hash") for node in world.nodes if node.range(CALM)]
        except (OSError, Refused):
            return None
        finally:
            history.add(call)
        return call.revision if len({(one["header"]["revision"], one["hash"]) for one in hashes}) == 1 else None

    return wait_for("three nodes of the same revision and hash", same, PATIENCE)


def judge(world, history, watchers, options):
    """What is wrong."""
    last = settle(world, history)
    orders = [whole_history(node, last) for node in world.nodes]
    out = world.ended + history.odd
    if any(order != orders[0] for order in orders):
        out.append(f"the nodes' histories differ: {[len(order) for order in orders]} revisions")
    order = orders[0]
    for watcher in watchers:
        wait_for(f"the watch at {watcher.node.node_name} to have told all", lambda w=watcher: w.error or w.reached(last), PATIENCE)
        if watcher.error:
            raise watcher.error
    told = {watcher.node.node_name: list(watcher.told) for watcher in watchers}
    if options.broken == "lost":
        order = without_one(history, order)
    if options.broken == "twice":
        events = told[world.nodes[0].node_name]
        events.insert(len(events) // 2, events[len(events) // 2])
    return out + violations(history.calls, order, told)


def without_one(history, order):
    """As if an acknowledged write had been lost, and all behind it had moved up."""
    lost = next(call.revision for call in history.calls[len(history.calls) // 2:] if call.outcome == "ok" and call.changes)
    return {revision - (revision > lost): changes for revision, changes in order.items() if revision != lost}


def check(options):
    """Runs it all; a summary, and the violations as sentences."""
    with World(options) as world:
        began = time.monotonic()
        stop, over = threading.Event(), threading.Event()
        history = History()
        clients = [Client(history, world.nodes, number, options.seed, stop, options.broken == "stale") for number in range(options.clients)]
        watchers = [Watcher(node, over) for node in world.nodes]
        for one in clients + watchers:
            one.thread.start()
        killer = Killer(world, history, options)
        try:
            killer.progress()
            killer.run(time.monotonic() + options.seconds, options.strikes)
            killer.progress()
        finally:
            stop.set()
        for client in clients:
            client.thread.join(PATIENCE)
            if client.error:
                raise client.error
        found = judge(world, history, watchers, options)
        over.set()
        return {
            "seed": options.seed, "seconds": round(time.monotonic() - began, 1), **killer.strikes, "nodes killed": killer.kills,
            "calls": len(history.calls), "acknowledged": history.acknowledged,
            "unknown": sum(call.outcome == "unknown" for call in history.calls),
            "longest without a write": round(history.longest, 2), "streams": sum(watcher.streams for watcher in watchers),
            "violations": len(found)}, found


def parse(arguments):
    parser = argparse.ArgumentParser(description="Checks from the clients' side that a quorum is linearizable while its nodes are killed.")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--seconds", type=float, default=None, help="no new failures after this time (default 10, without a bound with --strikes)")
    parser.add_argument("--strikes", type=int, default=None, help="no new failures after so many")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"of {','.join(FAULTS)}")
    parser.add_argument("--break", dest="broken", choices=["lost", "twice", "stale"], default=None, help="this must be found out")
    options = parser.parse_args(arguments)
    options.faults = [fault for fault in options.faults.split(",") if fault]
    if not set(options.faults) <= set(FAULTS):
        parser.error(f"--faults takes {','.join(FAULTS)}")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    if options.seconds is None:
        options.seconds = 10.0 if options.strikes is None else 1e9
    if options.strikes is None:
        options.strikes = 1 << 40
    return options


def main(arguments):
    options = parse(arguments)
    print(f"seed {options.seed}", flush=True)
    summary, found = check(options)
    print("\n".join(f"{name:>24} {value}" for name, value in summary.items()))
    for violation in found[:5]:
        print(violation)
    if len(found) > 5:
        print(f"… and {len(found) - 5} more")
    if found:
        print(f"VIOLATED; again with --seed {options.seed}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
