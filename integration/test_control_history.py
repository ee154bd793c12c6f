"""A long history on real nodes: where it is kept, what reads it, and what goes over all of it."""
import concurrent.futures
import json
import mmap

import pytest

from quorum import PATIENCE, Quorum, raw, text, wait_for
from sidecar import PROGRAM, run

KEYS = 1000
AT_ONCE = 100  # puts of a transaction: etcd's bound is 128
VALUE = "v" * 500


def fill(node, rounds, keys=KEYS):
    """Puts every key once a round; the revision of each transaction."""
    revisions = []
    for turn in range(rounds):
        for first in range(0, keys, AT_ONCE):
            puts = [{"requestPut": {"key": text(f"h/{i:05}"), "value": text(f"{VALUE}{turn}")}}
                    for i in range(first, first + AT_ONCE)]
            revisions.append(int(node.call("/kv/txn", {"success": puts})["header"]["revision"]))
    return revisions


def anonymous_mib(node):
    with open(f"/proc/{node.child.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:")) / 1024


def keeps_what_it_frees():
    """AddressSanitizer does, to find who uses it: memory says nothing then."""
    with open(PROGRAM, "rb") as program, mmap.mmap(program.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"__asan_init") >= 0


@pytest.fixture
def quorum():
    quorum = Quorum().start()
    yield quorum
    quorum.stop()


def test_history_is_not_in_memory_and_all_of_it_can_be_read(quorum):
    leader = quorum.leader()
    fill(leader, 2)
    before = {node: anonymous_mib(node) for node in quorum.nodes}
    revisions = fill(leader, 60)  # on the heap: 32 MiB of records, and as much again of entries in the log
    with leader.stream("/watch", {"create_request": {"key": text("h/00500"), "start_revision": "1"}}) as stream:
        values = [raw(event["kv"]["value"]).decode() for event in stream.events(62)]
    assert values == [f"{VALUE}{turn}" for turn in (0, 1, *range(60))]
    old = quorum.followers()[0].range("h/", range_end=text("h0"), revision=str(revisions[399]))
    assert old == {f"h/{i:05}": f"{VALUE}39" for i in range(KEYS)}
    for node in quorum.nodes:
        wait_for("all of it", lambda: node.metric("outrider_control_revision") == revisions[-1])
        assert keeps_what_it_frees() or anonymous_mib(node) - before[node] < 25, node.node_name


def test_hashes_backups_and_writes_beside_a_large_compaction(quorum, tmp_path):
    leader = quorum.leader()
    last = fill(leader, 30)[-1]  # three times what is collected at once
    full = leader.metric("outrider_control_store_bytes")
    leader.call("/kv/compaction", {"revision": str(last)})
    file = tmp_path / "beside.snap"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        hashes = [pool.submit(node.call, "/maintenance/hash") for node in quorum.nodes for _ in range(3)]
        saved = pool.submit(run, "ctl", "--endpoints", f"127.0.0.1:{leader.port}", "--json", "snapshot", "save", file)
        for i in range(50):
            leader.put("beside", str(i))
        assert all(int(done.result()["hash"]) > 0 for done in hashes)
    assert json.loads(saved.result().stdout)["keys"] in (KEYS, KEYS + 1)
    leader.call("/kv/deleterange", {"key": text("beside")})
    revision = int(leader.put("last", "1")["header"]["revision"])

    def agreed():
        found = [node.call("/maintenance/hash") for node in quorum.nodes]
        return {(each["header"]["revision"], each["hash"]) for each in found if each["header"]["revision"] == str(revision)}

    wait_for("one hash", lambda: len(agreed()) == 1, PATIENCE)
    for node in quorum.nodes:
        wait_for("what was compacted to be gone", lambda: node.metric("outrider_control_store_bytes") < full / 20)
        assert node.range("h/00000", serializable=True) == {"h/00000": VALUE + "29"}
