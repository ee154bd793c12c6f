#!/usr/bin/env python3
"""What clients see of a quorum of three real nodes while those are killed, stopped and started: a check of consistency from outside.

Clients put, delete, compare and swap, write several keys at once and read through any node, some with no patience at all; half of the
writes are repeated in a session until their outcome is known; a watch at each node tells all changes from the first on; some hold
leases, and old revisions are given up. Meanwhile, one after the other:

  kill   kill -9 and a start on the same data: of one node, a majority, or all at once
  pause  SIGSTOP, and SIGCONT after a while
  partition  nodes do not hear each other, also in one direction only (peer_relay.py)
  power  kill -9 of one or all, and what was not synced is dropped from their disks, whole or in pieces (faulty_disk.py)
  disk   a node's fdatasync fails or its disk is full: it must end and say why, and go on when the disk is well
  slow   syncs take up to 2 s at one node, or longer than an election timeout at all of them
  clock  wall clocks jump by up to days, either way; monotonic clocks run 5 % too fast or too slow all the time (faulty_clock.py)
  link   packets vanish on real links, one way or both, are late, or an interface goes down (links.py). Not with partition

At the end, when all is calm:

  * there is one order of all writes that explains everything that anybody was told (quorum_history.py says what that includes)
  * every acknowledged write is in it, at its revision, and all three nodes tell the same order and have the same hash
  * the watches told each revision once, in order
  * no lease ended before its time (quorum_leases.py), and all have ended
  * no node ended by itself, and nothing was answered that is not to be answered
  * after each failure a write was acknowledged again (within a bound that no machine is too slow for)

  quorum_view.py [--seed N] [--seconds S] [--strikes N] [--clients N] [--faults kill,pause,…] [--break …]

`--break` must be found out, or the check itself is worth nothing: `lost` takes one acknowledged write out of the order, `twice` repeats
one change in a watch, `stale` asks one node for its own state where a linearizable read is promised, `careless` repeats writes without
their session, `lying` has disks that answer a sync and do nothing before the power fails. Which call meets which failure depends on the
machine; the seed gives the clients' and the killer's choices again, not their interleaving.

OUTRIDER_BIN names the program, OUTRIDER_FAULTY_DISK the library of tests/faulty_disk (for power, disk, slow), OUTRIDER_FAULTY_CLOCK
that of tests/faulty_clock. Exit code: 0 no violation, 1 some, 2 usage, 3 there is no network of its own to be had here.
"""
import argparse
import itertools
import random
import sys
import threading
import time

import links
from quorum import Refused, wait_for
from quorum_clients import CALM, RANGE, Client, Compactor, History, Watcher, history_of, order_of
from quorum_history import FIRST_REVISION, Call, violations
from quorum_leases import PREFIX, Holder, check_leases
from quorum_torture import FAULTS, PATIENCE, RATE_ERROR, Killer, World


def settle(world, history):
    """All nodes live and tell the same; the revision up to which they do."""
    numbers = itertools.count()
    seen = {}  # for the one who reads a failure

    def same():
        world.check_alive()
        call = Call(-1, world.nodes[0].node_name, "write", time.monotonic(), {CALM: f"calm.{next(numbers)}"})
        try:
            call.revision = int(world.nodes[0].put(CALM, call.changes[CALM])["header"]["revision"])
            call.outcome, call.ended = "ok", time.monotonic()
            hashes = [node.call("/maintenance/hash") for node in world.nodes if node.range(CALM)]
            seen["hashes"] = [(one["header"]["revision"], one["hash"]) for one in hashes]
        except (OSError, Refused) as error:
            seen["error"] = repr(error)
            return None
        finally:
            history.add(call)
        return call.revision if len({(one["header"]["revision"], one["hash"]) for one in hashes}) == 1 else None

    try:
        return wait_for("three nodes of the same revision and hash", same, PATIENCE)
    except AssertionError as failure:
        logs = "\n".join(f"{node.node_name}: {node.log(None)[-2000:]}" for node in world.nodes)
        raise AssertionError(f"{failure}; last seen {seen}\n{logs}") from None


def judge(world, history, watchers, holders, compacted, options):
    """What is wrong."""
    def left():
        try:
            return world.nodes[1].range(PREFIX, range_end=RANGE["range_end"], limit="1")
        except (OSError, Refused):
            return True
    wait_for("leases that nobody renews to end", lambda: not left(), PATIENCE)
    last = settle(world, history)
    for watcher in watchers:
        wait_for(f"the watch at {watcher.node.node_name} to have told all", lambda w=watcher: w.error or w.reached(last), PATIENCE)
        if watcher.error:
            raise watcher.error
    told = {watcher.node.node_name: list(watcher.told) for watcher in watchers}
    order = order_of(told[world.nodes[0].node_name])
    out = world.ended + history.odd + list(check_leases([lease for holder in holders for lease in holder.leases], told,
                                                                 RATE_ERROR if "clock" in options.faults else 0.0))
    begin = max(FIRST_REVISION, compacted + 1)
    for node in world.nodes:
        # Past `last` somebody's write that came late may stand; it is in no watch's list.
        kept = {revision: changes for revision, changes in history_of(node, begin, last).items() if revision <= last}
        if kept != {revision: order.get(revision) for revision in range(begin, last + 1)}:
            out.append(f"the history of {node.node_name} differs from what the watch at {world.nodes[0].node_name} told")
    if options.broken == "lost":
        order = without_one(history, order)
    if options.broken == "twice":
        events = told[world.nodes[0].node_name]
        events.insert(len(events) // 2, events[len(events) // 2])
    return out + violations(history.calls, order, told, others=[PREFIX])


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
    with World(options.faults, options.seed) as world:
        began = time.monotonic()
        stop, over = threading.Event(), threading.Event()
        history = History()
        broken = {how: options.broken == how for how in ("stale", "careless")}
        clients = [Client(history, world.nodes, number, options.seed, stop, **broken) for number in range(options.clients)]
        watchers = [Watcher(node, over) for node in world.nodes]
        holders = [Holder(world.nodes, number, options.seed, stop) for number in range(options.holders)]
        compactor = Compactor(world.nodes, watchers, options.seed, stop)
        for one in clients + watchers + holders + [compactor]:
            one.thread.start()
        killer = Killer(world, history, options)
        found = torture(world, history, killer, options)
        longest, during = history.longest, killer.during(history)  # while clients write
        stop.set()
        compactor.thread.join(PATIENCE)
        for client in clients + holders:
            client.thread.join(PATIENCE)
            if client.error:
                raise client.error
        found = found or judge(world, history, watchers, holders, compactor.asked, options)
        over.set()
        return {
            "seed": options.seed, "seconds": round(time.monotonic() - began, 1), **killer.strikes, "nodes killed": killer.kills,
            "disks cut off": killer.losses, "calls": len(history.calls), "acknowledged": history.acknowledged,
            "unknown": sum(call.outcome == "unknown" for call in history.calls), "repeats": history.repeats,
            "leases": sum(len(holder.leases) for holder in holders), "compactions": compactor.count,
            "longest without a write": round(longest, 2), "in": during, "streams": sum(watcher.streams for watcher in watchers),
            "violations": len(found)}, found


def parse(arguments):
    parser = argparse.ArgumentParser(description="Checks from the clients' side that a quorum is linearizable while its nodes are killed.")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--seconds", type=float, default=None, help="no new failures after this time (default 10, without a bound with --strikes)")
    parser.add_argument("--strikes", type=int, default=None, help="no new failures after so many")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--holders", type=int, default=2, help="of leases")
    parser.add_argument("--faults", default="kill,pause", help=f"of {','.join(FAULTS)} (default: kill,pause)")
    parser.add_argument("--break", dest="broken", choices=["lost", "twice", "stale", "careless", "lying"], default=None,
                        help="this must be found out")
    options = parser.parse_args(arguments)
    options.faults = options.faults.split(",") if options.broken != "lying" else ["power"]
    if not set(options.faults) <= set(FAULTS):
        parser.error(f"--faults takes {','.join(FAULTS)}")
    if {"partition", "link"} <= set(options.faults):
        parser.error("--faults: partition and link are not had together")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    if options.seconds is None:
        options.seconds = 10.0 if options.strikes is None else 1e9
    if options.strikes is None:
        options.strikes = 1 << 40
    return options


def main(arguments):
    options = parse(arguments)
    if "link" in options.faults:
        try:
            links.enter()
        except links.Unavailable as error:
            print(error, file=sys.stderr)
            return 3
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
