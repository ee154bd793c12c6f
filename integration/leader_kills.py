#!/usr/bin/env python3
"""How long nothing can be written after kill -9 of the leader: from the kill to the first answer to a write that was begun after it, at
each of the two nodes that are left.

  leader_kills.py [--kills N] [--heartbeat 50ms --election-timeout 300ms] [--limit SECONDS]

Prints median and maximum. Exit code: 0; 1 when one took longer than the limit; 2 usage. OUTRIDER_BIN names the program.
"""
import argparse
import statistics
import sys
import threading
import time

from quorum import Quorum, Refused, wait_for

PATIENCE = 30.0


def first_write(node, begun, answered):
    """At this node, tried again until it is acknowledged."""
    while time.monotonic() - begun < PATIENCE:
        try:
            node.call("/kv/put", {"key": "bGVhZGVy", "value": "eA=="}, patience=PATIENCE)
        except (OSError, Refused):
            continue
        answered.append(time.monotonic() - begun)
        return


def kill_once(quorum):
    """Seconds until a write was acknowledged at the first and at the last of the two that are left."""
    leader = quorum.leader()
    others = quorum.followers()
    wait_for("all to be connected", lambda: all(node.metric("outrider_control_peers_connected") == 2 for node in quorum.nodes))
    answered = []
    leader.child.kill()
    begun = time.monotonic()
    threads = [threading.Thread(target=first_write, args=(node, begun, answered)) for node in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    leader.kill()  # waits for its end, and forgets it
    assert len(answered) == len(others), "no write was acknowledged"
    leader.start()
    return min(answered), max(answered)


def measure(kills, **settings):
    quorum = Quorum(**settings).start()
    try:
        return [kill_once(quorum) for _ in range(kills)]
    finally:
        quorum.stop(check=False)


def main(arguments):
    parser = argparse.ArgumentParser(description="Measures how long a quorum takes no writes after kill -9 of its leader.")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--heartbeat", default="100ms", help="default: 100ms, outrider's own")
    parser.add_argument("--election-timeout", default="500ms", help="default: 500ms, outrider's own")
    parser.add_argument("--limit", type=float, default=None, help="seconds that none may take longer")
    options = parser.parse_args(arguments)
    took = measure(options.kills, heartbeat=options.heartbeat, election_timeout=options.election_timeout)
    for name, values in (("first node", [pair[0] for pair in took]), ("both nodes", [pair[1] for pair in took])):
        print(f"heartbeat {options.heartbeat}, election {options.election_timeout}, {options.kills} kills, {name}: "
              f"median {statistics.median(values):.3f} s, max {max(values):.3f} s")
    return 1 if options.limit and max(pair[0] for pair in took) > options.limit else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
