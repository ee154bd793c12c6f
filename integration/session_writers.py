"""Writers that repeat each write, at any node, until they are told that it was done. What they write is not idempotent: puts without a guard,
which the versions of keys count.
"""
import contextlib
import http.client
import itertools
import random
import threading

from quorum import Refused, text, wait_for

SHARED = "count/shared"
# A refusal that leaves open whether the write took effect, or says that it did not: it is sent again.
AGAIN = (503,)


class Writer:
    """One thread with a session of its own; each write counts its key and the one that all share."""

    def __init__(self, nodes, number, stop, sessions=True):
        self.nodes = nodes
        self.key = f"count/{number}"
        self.rng = random.Random(number)
        self.stop = stop
        self.session = None
        self.sessions = sessions
        self.done = 0
        self.repeats = 0
        self.revisions = []
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            if self.sessions:
                self.session = self._until_told(lambda node: node.call("/session/open", patience=5))["session"]
            for sequence in itertools.count(1):
                if self.stop.is_set():
                    return
                answer = self._until_told(lambda node, n=sequence: self._write(node, n))
                self.revisions.append(int(answer["header"]["revision"]))
                self.done += 1
        except BaseException as error:  # said by the main thread
            self.error = error

    def _write(self, node, sequence):
        puts = [{"request_put": {"key": text(key), "value": text(str(sequence))}} for key in (self.key, SHARED)]
        # Often without the patience that an answer needs, so that what is repeated has often been done.
        patience = self.rng.choice([0.004, 0.05, 2.0])
        return node.call("/kv/txn", {"success": puts}, patience=patience, session=(self.session, sequence) if self.session else None)

    def _until_told(self, ask):
        while True:
            try:
                return ask(self.rng.choice(self.nodes))
            except Refused as refusal:
                if refusal.status not in AGAIN:
                    raise
            except (OSError, http.client.HTTPException):
                pass
            self.repeats += 1


def versions(node, writers):
    """Of the writers' keys and of the one they share, when the node knows all that was answered before."""
    def read():
        with contextlib.suppress(OSError, Refused):
            return [int(node.call("/kv/range", {"key": text(key)})["kvs"][0]["version"]) for key in [w.key for w in writers] + [SHARED]]
    return wait_for(f"{node.node_name} to be read", read)


@contextlib.contextmanager
def writing(nodes, count, sessions=True):
    """The writers, at work within the block and at rest behind it."""
    stop = threading.Event()
    writers = [Writer(nodes, number, stop, sessions) for number in range(count)]
    for writer in writers:
        writer.thread.start()
    try:
        yield writers
    finally:
        stop.set()
        for writer in writers:
            writer.thread.join(60)
    for writer in writers:
        assert not writer.thread.is_alive(), f"{writer.key} is never told"
        if writer.error:
            raise writer.error
