"""The disk that quorum_view.py puts under nodes: what it knows is what is there, and what a power loss leaves is what was synced."""
import errno
import random
import subprocess

import pytest

from faulty_disk import RECORD, VirtualDisk
from quorum import Refused, free_port, wait_for
from quorum_torture import Node

ROOT = "/d"


def records(*operations):
    """(letter, fd, number, first, second)"""
    return b"".join(RECORD.pack(ord(letter), fd, number, len(first), len(second)) + first + second
                    for letter, fd, number, first, second in ((*given, b"", b"")[:5] for given in operations))


def disk_of(*operations):
    disk = VirtualDisk(ROOT)
    assert disk.replay(records(*operations)) == len(records(*operations))
    return disk


def left(disk):
    return {name: bytes(inode.durable) for name, inode in disk.top.durable.items() if not inode.directory}


TOP = ("O", 3, 0, b"/d")
FILE = [("O", 4, 1, b"/d/a"), ("W", 4, 0, b"one")]
SYNC_FILE = [("S", 4, 1), ("E", 4, 1)]
SYNC_TOP = [TOP, ("S", 3, 2), ("E", 3, 2)]


@pytest.mark.parametrize("operations, durable", [
    (FILE, {}),
    (FILE + SYNC_FILE, {}),  # its name is lost
    (FILE + SYNC_TOP, {"a": b""}),
    (FILE + SYNC_FILE + SYNC_TOP, {"a": b"one"}),
    (FILE + SYNC_FILE[:1] + SYNC_TOP, {"a": b""}),  # the sync did not end
    (FILE + SYNC_TOP + [("S", 4, 7), ("W", 4, 3, b"two"), ("E", 4, 7)], {"a": b"one"}),  # written beside the sync
    (FILE + SYNC_FILE + SYNC_TOP + [("T", 4, 1)], {"a": b"one"}),
    (FILE + SYNC_FILE + SYNC_TOP + [("R", -1, 0, b"/d/a", b"/d/b")], {"a": b"one"}),
    (FILE + SYNC_FILE + [("R", -1, 0, b"/d/a", b"/d/b")] + SYNC_TOP, {"b": b"one"}),
    (FILE + SYNC_FILE + SYNC_TOP + [("U", -1, 0, b"/d/a")], {"a": b"one"}),
    (FILE + SYNC_FILE + SYNC_TOP + [("O", 5, 2, b"/d/a"), ("S", 5, 9), ("E", 5, 9)], {"a": b""}),
])
def test_what_was_not_synced_is_lost(operations, durable):
    disk = disk_of(*operations)
    disk.lose(random.Random(0), spare=False)
    assert left(disk) == durable


def test_chance_may_spare_what_was_not_synced_in_pieces(rng):
    """Whatever is left: names in their order, and bytes that were there at some time."""
    found = set()
    for _ in range(300):
        disk = disk_of(*FILE, *SYNC_FILE, *SYNC_TOP, ("W", 4, 0, b"2" * 1500), ("T", 4, 700), ("O", 5, 1, b"/d/b"), ("O", 6, 1, b"/d/c"))
        disk.lose(rng)
        names = left(disk)
        assert sorted(names) in (["a"], ["a", "b"], ["a", "b", "c"])
        assert set(names["a"]) <= set(b"one2\0") and len(names["a"]) <= 1500, names
        found.add((len(names), len(names["a"])))
    assert len(found) >= 6, found


def test_a_record_that_is_not_whole_is_left_out():
    text = records(*FILE)
    assert VirtualDisk(ROOT).replay(text[:-1]) == len(records(FILE[0]))


def test_what_a_killed_process_did_not_write_down_is_the_next_ones_to_sync(tmp_path):
    """It was killed behind an unlink, a rename, a write and before their records: another went on with the files, and synced."""
    known = FILE + SYNC_FILE + SYNC_TOP + [("O", 5, 1, b"/d/b.tmp"), ("W", 5, 0, b"two"), ("S", 5, 3), ("E", 5, 3)] + SYNC_TOP
    for synced, durable in (False, {"a": b"one", "b.tmp": b"two"}), (True, {"b": b"two", "c": b"three"}):
        disk = disk_of(*known)
        disk.process_ended()
        for old in tmp_path.iterdir():
            old.unlink()
        (tmp_path / "b").write_bytes(b"two")
        (tmp_path / "c").write_bytes(b"three")
        disk.catch_up(tmp_path)
        if synced:
            disk.replay(records(("O", 7, 0, b"/d/c"), ("S", 7, 1), ("E", 7, 1), *[(op, 3, *rest) for op, _, *rest in SYNC_TOP]))
        disk.lose(random.Random(0), spare=False)
        assert left(disk) == durable


def test_a_file_is_followed_to_what_it_is(rng):
    for _ in range(50):
        disk = disk_of(*FILE, ("W", 4, 900, rng.randbytes(700)), *SYNC_FILE, *SYNC_TOP, ("W", 4, 0, rng.randbytes(rng.randrange(2000))))
        real = bytearray(disk.top.now["a"].bytes_now())
        for at in rng.sample(range(1600), 3):
            real[at:at + 1] = b"?"
        del real[rng.choice([700, 5000]):]
        real += bytes(rng.choice([0, 40]))
        disk.top.now["a"].follow(bytes(real))
        assert disk.top.now["a"].bytes_now() == real
        disk.sync_all()
        assert left(disk) == {"a": real}


# ---- under a real node ----------------------------------------------------------------------------------------------

@pytest.fixture
def node():
    one = Node("core-0", free_port(), free_port(), {}, segment_bytes="1MiB", snapshot_entries=100)
    one.put_on_faulty_disk()
    lead(one)
    yield one
    one.kill()


def lead(node):
    node.start()
    wait_for("a leader", lambda: node.metric("outrider_control_leader") == 1)


def test_it_knows_what_the_files_hold(node, tmp_path):
    for i in range(250):  # several segments and snapshots
        node.put(f"k{i % 7}", "x" * 20_000 + str(i))
    node.stop_keeping_data()
    node.disk.absorb()
    node.disk.virtual.sync_all()
    node.disk.virtual.write_to(tmp_path)
    done = subprocess.run(["diff", "-r", str(tmp_path), str(node.data)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(list(node.data.glob("wal/*.wal"))) > 1 and list(node.data.glob("*.snap"))


@pytest.mark.parametrize("how", ["error", "full"])
def test_a_node_does_not_acknowledge_what_the_disk_did_not_take(node, how):
    node.put("before", "kept")
    if how == "error":
        node.disk.fail_syncs(errno.EIO)
    else:
        node.disk.room(10)
    with pytest.raises((OSError, Refused)):
        node.put("after", "x")
    assert node.wait() == 1
    node._forget()
    reason = "Input/output error" if how == "error" else "No space left on device"
    assert "the node stops: " in node.log(1000) and reason in node.log(1000)
    assert node.disk.failures() >= 1
    with pytest.raises(RuntimeError, match=reason):
        node.start()
    node.disk.power_loss(random.Random(0), spare=False)
    node.disk.heal()
    lead(node)
    assert node.range("before") == {"before": "kept"}
    assert node.range("after") == {}
