#!/usr/bin/env python3
"""What clients see of a quorum of three real nodes while those are killed, stopped and started: a check of consistency from outside.

Clients put, delete, compare and swap, write several keys at once and read through any node, some with no patience at all; a watch at
each node tells all changes from the first on. Meanwhile, one after the other:

  kill   kill -9 and a start on the same data: of one node, a majority, or all at once
  pause  SIGSTOP, and SIGCONT after a while
  partition  nodes do not hear each other, also in one direction only (peer_relay.py)
  power  kill -9 of one or all, and what was not synced is dropped from their disks, whole or in pieces (faulty_disk.py)
  disk   a node's fdatasync fails or its disk is full: it must end and say why, and go on when the disk is well

At the end, when all is calm:

  * there is one order of all writes that explains everything that anybody was told (quorum_history.py says what that includes)
  * every acknowledged write is in it, at its revision, and all three nodes tell the same order and have the same hash
  * the watches told each revision once, in order
  * no node ended by itself, and nothing was answered that is not to be answered
  * after each failure a write was acknowledged again (within a bound that no machine is too slow for)

  quorum_view.py [--seed N] [--seconds S] [--strikes N] [--clients N] [--faults kill,pause,…] [--break …]

`--break` must be found out, or the check itself is worth nothing: `lost` takes one acknowledged write out of the order, `twice` repeats
one change in a watch, `stale` asks one node for its own state where a linearizable read is promised, `lying` has disks that
answer a sync and do nothing before the power fails. Which call meets which failure depends on the machine; the seed gives the
clients' and the killer's choices again, not their interleaving.

OUTRIDER_BIN names the program, OUTRIDER_FAULTY_DISK the library of tests/faulty_disk (for power, disk). Exit code: 0 no violation, 1 some, 2 usage.
"""
import argparse
import itertools
import random
import sys
import threading
import time

from quorum import Refused, wait_for
from quorum_clients import CALM, Client, History, Watcher, whole_history
from quorum_history import Call, violations
from quorum_torture import FAULTS, PATIENCE, Killer, World


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


def torture(world, history, killer, options):
    """The failures; what went wrong with them."""
    try:
        killer.progress()
        if options.broken == "lying":
            for node in world.nodes:
                node.disk.lie()
            killer.progress()
        killer.run(time.monotonic() + options.seconds, options.strikes)
        killer.progress()
    except (AssertionError, RuntimeError) as error:
        logs = "\n".join(f"--- {node.node_name}\n{node.log(2000)}" for node in world.nodes)
        return [f"{error}\nafter {killer.done[-3:]}\n{logs}"]
    return []


def check(options):
    """Runs it all; a summary, and the violations as sentences."""
    with World(options.faults) as world:
        began = time.monotonic()
        stop, over = threading.Event(), threading.Event()
        history = History()
        clients = [Client(history, world.nodes, number, options.seed, stop, options.broken == "stale") for number in range(options.clients)]
        watchers = [Watcher(node, over) for node in world.nodes]
        for one in clients + watchers:
            one.thread.start()
        killer = Killer(world, history, options)
        found = torture(world, history, killer, options)
        stop.set()
        for client in clients:
            client.thread.join(PATIENCE)
            if client.error:
                raise client.error
        found = found or judge(world, history, watchers, options)
        over.set()
        return {
            "seed": options.seed, "seconds": round(time.monotonic() - began, 1), **killer.strikes, "nodes killed": killer.kills,
            "disks cut off": killer.losses, "calls": len(history.calls), "acknowledged": history.acknowledged,
            "unknown": sum(call.outcome == "unknown" for call in history.calls),
            "longest without a write": round(history.longest, 2), "streams": sum(watcher.streams for watcher in watchers),
            "violations": len(found)}, found


def parse(arguments):
    parser = argparse.ArgumentParser(description="Checks from the clients' side that a quorum is linearizable while its nodes are killed.")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--seconds", type=float, default=None, help="no new failures after this time (default 10, without a bound with --strikes)")
    parser.add_argument("--strikes", type=int, default=None, help="no new failures after so many")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--faults", default="kill,pause", help=f"of {','.join(FAULTS)} (default: kill,pause)")
    parser.add_argument("--break", dest="broken", choices=["lost", "twice", "stale", "lying"], default=None, help="this must be found out")
    options = parser.parse_args(arguments)
    options.faults = options.faults.split(",") if options.broken != "lying" else ["power"]
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
