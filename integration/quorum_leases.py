"""Leases under torture: holders that keep one alive for a while and leave it, and what that says about when its key may go.

A lease lives at least its TTL from the beginning of any renewal that was acknowledged: the leader began it anew later than that. Killed
leaders, paused ones, clocks of new leaders and wall clocks that jump must not shorten it; a leader's monotonic clock that runs fast does, by as
much as it is wrong. That it ends at all is asked at the end.
"""
import dataclasses
import http.client
import json
import random
import threading
import time

from quorum import text

PREFIX = "q/lease."
TTL = 2


@dataclasses.dataclass
class Lease:
    key: str
    renewals: list = dataclasses.field(default_factory=list)  # (begun, ended) of those acknowledged, with the grant


class Holder:
    """One thread: grants a lease, gives it a key, renews it at any node, leaves it, and does so again."""

    def __init__(self, nodes, number, seed, stop):
        self.nodes = nodes
        self.number = number
        self.rng = random.Random(f"{seed}:holder {number}")
        self.stop = stop
        self.leases = []
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            while not self.stop.is_set():
                self._hold(Lease(f"{PREFIX}{self.number}.{len(self.leases)}"))
        except BaseException as error:  # said by the main thread
            self.error = error

    def _hold(self, lease):
        granted = self._ask(lease, "/lease/grant", {"TTL": str(TTL)})
        if granted is None:
            return
        self.leases.append(lease)
        if self._call("/kv/put", {"key": text(lease.key), "value": text(lease.key), "lease": granted["ID"]}) is None:
            return
        for _ in range(self.rng.randrange(12)):
            if self.stop.wait(self.rng.uniform(0, TTL / 3)):
                return
            self._ask(lease, "/lease/keepalive", {"ID": granted["ID"]})

    def _ask(self, lease, path, body):
        begun = time.monotonic()
        answer = self._call(path, body)
        if answer is None or int(answer.get("TTL", "0")) <= 0:
            return None
        lease.renewals.append((begun, time.monotonic()))
        return answer

    def _call(self, path, body):
        """The answer, at some node; nothing when there is none."""
        node = self.rng.choice(self.nodes)
        connection = http.client.HTTPConnection(node.host, node.port, timeout=2)
        try:
            connection.request("POST", "/v3" + path, json.dumps(body))
            response = connection.getresponse()
            answer = json.loads(response.readline())
            return answer.get("result", answer) if response.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            self.stop.wait(self.rng.uniform(0, 0.1))  # a client's backoff: no test waits for it
            return None
        finally:
            connection.close()


def check_leases(leases, watches, fast=0.0):
    """`watches` as in quorum_history: a change was told after it was made, so what was told too early was made too early. `fast`: by which
    share of its own a leader's clock may run too fast."""
    of_key = {lease.key: lease for lease in leases}
    for name, events in watches.items():
        for told, revision, key, value in events:
            if value is not None or key not in of_key:
                continue
            begun = max(begun for begun, _ in of_key[key].renewals)
            if told < begun + TTL / (1 + fast):
                yield (f"the lease of {key} ended at revision {revision}, told at {name} {told - begun:.3f} s after the beginning "
                       f"of a renewal by {TTL} s")
