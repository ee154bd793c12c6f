"""Changes of members, rolling restarts and backups of the quorum, as an operator makes them, while clients write."""
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from harness import accepts, free_port
from quorum import PATIENCE, ControlNode, Quorum, Refused, raw, text, wait_for


@pytest.fixture
def quorum():
    started = Quorum().start()
    try:
        yield started
    finally:
        started.stop()


def run(*arguments, expect=0):
    done = subprocess.run([os.environ["OUTRIDER_BIN"], *map(str, arguments)], capture_output=True, text=True,
                          timeout=PATIENCE)
    assert done.returncode == expect, done
    return done


def members(node):
    return {member["name"] if "name" in member else member["peerURLs"][0]: member
            for member in node.call("/cluster/member/list")["members"]}


def newcomer(quorum, name="core-9", peer=None):
    api, peer = free_port(), peer or free_port()
    peers = {node.node_name: f"127.0.0.1:{node.peer_port}" for node in quorum.alive()}
    return ControlNode(name, api, peer, {**peers, name: f"127.0.0.1:{peer}"}, join=True)


def applied(node):
    return node.metric("outrider_control_applied_index")


def join(quorum, node, through, learner=False):
    through.call("/cluster/member/add", {"peerURLs": [f"http://127.0.0.1:{node.peer_port}"], "isLearner": learner})
    node.start()
    quorum.nodes.append(node)


def move(node, through):
    """To another port for its peers."""
    identity = members(through)[node.node_name]["ID"]
    node.stop_keeping_data()
    node.peer_port = free_port()
    through.call("/cluster/member/update", {"ID": identity, "peerURLs": [f"http://127.0.0.1:{node.peer_port}"]})
    node.settings["peer_listen"] = f"127.0.0.1:{node.peer_port}"
    node.start()


def caught_up(node, leader):
    wait_for(f"{node.node_name} to catch up", lambda: applied(node) == applied(leader))


class Writer:
    """Writes numbered values through every living node in turn until it is stopped; remembers what was acknowledged."""

    def __init__(self, quorum):
        self.quorum = quorum
        self.acknowledged = []
        self.longest = 0.0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        last = time.monotonic()
        for number in range(10**9):
            if self.stopped.is_set():
                return
            nodes = list(self.quorum.nodes)
            try:
                nodes[number % len(nodes)].put(f"written/{number}", str(number))
            except (OSError, Refused):
                continue
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now
            self.acknowledged.append(number)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()

    def check(self, node):
        there = node.range("written/", range_end=text("written0"))
        missing = [number for number in self.acknowledged if there.get(f"written/{number}") != str(number)]
        assert not missing, f"acknowledged and not there: {missing[:10]} of {len(missing)}"

    def wait_for_more(self, count=20):
        goal = len(self.acknowledged) + count
        wait_for("more writes", lambda: len(self.acknowledged) >= goal)


def test_a_learner_is_added_promoted_and_removed(quorum):
    through = quorum.followers()[0]
    through.put("before", "1")
    node = newcomer(quorum)
    join(quorum, node, through, learner=True)
    leader = quorum.leader()
    caught_up(node, leader)
    wait_for("its name", lambda: "core-9" in members(through))  # which its connection tells
    assert members(through)["core-9"]["isLearner"]
    assert node.status()["isLearner"]
    assert node.range("before") == {"before": "1"}
    with pytest.raises(Refused) as twice:
        through.call("/cluster/member/add", {"peerURLs": [f"http://127.0.0.1:{node.peer_port}"]})
    assert twice.value.answer["error"] == "etcdserver: Peer URLs already exists"
    identity = members(through)["core-9"]["ID"]
    answer = through.call("/cluster/member/promote", {"ID": identity})
    assert len(answer["members"]) == 4
    wait_for("it to vote", lambda: not members(node)["core-9"].get("isLearner"))
    with pytest.raises(Refused) as again:
        through.call("/cluster/member/promote", {"ID": identity})
    assert again.value.answer["error"] == "etcdserver: can only promote a learner member"
    node.put("written by the new one", "2")
    node.stop_keeping_data()
    node.start()  # its own data is enough now, `join` or not
    caught_up(node, quorum.leader())
    through.call("/cluster/member/remove", {"ID": identity})
    wait_for("the removed node to end", lambda: not node.alive())
    assert node.wait() == 3
    assert "was removed from the cluster" in node.log(None)
    assert "core-9" not in members(through)
    quorum.nodes.remove(node)
    with pytest.raises(Refused) as unknown:
        through.call("/cluster/member/remove", {"ID": identity})
    assert (unknown.value.status, unknown.value.answer["error"]) == (404, "etcdserver: member not found")


def test_a_dead_node_is_replaced_while_clients_write(quorum):
    dead = quorum.followers()[0]
    identity = members(quorum.leader())[dead.node_name]["ID"]
    with Writer(quorum) as writer:
        writer.wait_for_more()
        dead.kill()
        quorum.nodes.remove(dead)
        through = quorum.followers()[0]
        # Without this one there would be no majority of those that are left.
        with pytest.raises(Refused) as unsafe:
            through.call("/cluster/member/remove", {"ID": members(through)[through.node_name]["ID"]})
        assert "not enough started members" in unsafe.value.answer["error"]
        through.call("/cluster/member/remove", {"ID": identity})
        node = newcomer(quorum)
        join(quorum, node, through)
        wait_for("it to vote", lambda: "core-9" in members(through) and
                 not members(through)["core-9"].get("isLearner"))
        writer.wait_for_more()
        another = next(other for other in quorum.nodes if other is not node and other is not quorum.leader())
        another.kill()  # the new one is needed now
        quorum.leader()
        writer.wait_for_more()
    for living in quorum.alive():
        writer.check(living)


def test_the_leader_can_be_removed(quorum):
    leader = quorum.leader()
    others = quorum.followers()
    identity = members(leader)[leader.node_name]["ID"]
    others[0].call("/cluster/member/remove", {"ID": identity})
    wait_for("the removed node to end", lambda: not leader.alive())
    quorum.nodes.remove(leader)
    quorum.leader()
    others[1].put("after", "x")
    assert others[0].range("after") == {"after": "x"}


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_node_that_is_asked_to_remove_itself_says_that_it_did(quorum, role):
    node = quorum.leader() if role == "leader" else quorum.followers()[0]
    identity = members(node)[node.node_name]["ID"]
    answer = node.call("/cluster/member/remove", {"ID": identity})
    assert len(answer["members"]) == 2 and identity not in [member["ID"] for member in answer["members"]]
    wait_for("the removed node to end", lambda: not node.alive())
    assert node.wait() == 3
    quorum.nodes.remove(node)
    assert node.node_name not in members(quorum.leader())


def test_an_address_changes(quorum):
    moved = quorum.followers()[0]
    through = quorum.leader()
    move(moved, through)
    through.put("moved", "1")
    caught_up(moved, through)
    assert members(through)[moved.node_name]["peerURLs"] == [f"http://127.0.0.1:{moved.peer_port}"]
    assert moved.range("moved") == {"moved": "1"}


def test_a_node_that_joined_starts_again_though_another_has_moved(quorum):
    node = newcomer(quorum)
    join(quorum, node, quorum.leader())
    caught_up(node, quorum.leader())
    moved = next(follower for follower in quorum.followers() if follower is not node)
    through = quorum.leader()
    move(moved, through)
    caught_up(moved, quorum.leader())
    node.stop_keeping_data()
    node.start()  # with the list it had
    caught_up(node, quorum.leader())
    assert f"control.peers: {moved.node_name} is at" in node.log(None)


def test_a_rolling_restart_loses_no_write_and_little_time(quorum):
    with Writer(quorum) as writer:
        writer.wait_for_more()
        for node in list(quorum.nodes):
            node.stop_keeping_data()
            node.start()
            quorum.leader()
            caught_up(node, quorum.leader(among=[other for other in quorum.nodes]))
            writer.wait_for_more()
    for node in quorum.nodes:
        writer.check(node)
    assert writer.longest < PATIENCE


def test_a_backup_replaces_nothing_unasked(tmp_path):
    """A rename would put a regular file in the place of a device, a pipe or a link."""
    quorum = Quorum(1)
    try:
        quorum.start()
        quorum.nodes[0].put("k", "v")
        endpoint = f"127.0.0.1:{quorum.nodes[0].port}"

        def save(*words, reason=None):
            done = run("ctl", "--endpoints", endpoint, "snapshot", "save", *words, expect=0 if reason is None else 1)
            if reason is not None:
                assert done.stderr == f"outrider ctl: snapshot save: {reason}\n"

        file = tmp_path / "a.snap"
        save(file)
        first = file.read_bytes()
        save(file, reason=f"{file} is there already: --force replaces it")
        file.write_bytes(b"an older one")
        save(file, "--force")
        assert file.read_bytes() == first
        link = tmp_path / "link"
        link.symlink_to(file)
        save(link, reason=f"{link} is there already: --force replaces it")
        file.write_bytes(b"an older one")
        save(link, "--force")
        assert link.is_symlink() and file.read_bytes() == first
        lost = tmp_path / "lost"
        lost.symlink_to(tmp_path / "nothing")
        save(lost, "--force", reason=f"{lost} is a symbolic link that leads nowhere")
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for special in (pipe, tmp_path, "/dev/full"):
            save(special, "--force", reason=f"{special} is there and is no regular file")
        save("-", reason="a backup is not written to standard output: give a file's name")
        # What fails here is not the endpoint's doing.
        save("/nonexistent/x.snap", reason="cannot create /nonexistent/x.snap.part: No such file or directory")
        odd = tmp_path / 'a "quoted" name'
        assert json.loads(run("ctl", "--endpoints", endpoint, "snapshot", "save", odd, "--json").stdout)["file"] == str(odd)
        assert json.loads(run("ctl", "snapshot", "status", odd, "--json").stdout)["file"] == str(odd)
        run("ctl", "snapshot", "restore", odd, "--data", pipe, "--name", "n", expect=1)
    finally:
        quorum.stop()
    nobody = f"127.0.0.1:{free_port()}"
    refused = run("ctl", "--endpoints", f"{nobody},{endpoint}", "snapshot", "save", tmp_path / "b.snap", expect=1).stderr
    assert nobody in refused and endpoint in refused
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a "quoted" name', "a.snap", "link", "lost", "pipe"]


def test_a_backup_becomes_a_new_cluster(quorum, tmp_path):
    for i in range(200):
        quorum.nodes[i % 3].put(f"b/{i:03}", "v" * 2000 + str(i))
    lease = quorum.nodes[0].call("/lease/grant", {"TTL": "1000"})["ID"]
    quorum.nodes[0].put("b/leased", "x", lease=lease)
    expected = quorum.nodes[0].range("b/", range_end=text("b0"))
    revision = int(quorum.nodes[0].put("last", "1")["header"]["revision"])
    file = tmp_path / "backup.snap"
    source = quorum.followers()[0]
    wait_for("all of it there", lambda: source.metric("outrider_control_revision") == revision)
    saved = json.loads(run("ctl", "--endpoints", f"127.0.0.1:{source.port}", "--json", "snapshot", "save", file).stdout)
    assert saved["revision"] == revision and saved["keys"] == 202 and saved["leases"] == 1
    quorum.nodes[0].put("too late", "x")
    assert json.loads(run("ctl", "--json", "snapshot", "status", file).stdout) == saved

    damaged = tmp_path / "damaged.snap"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert "damaged" in run("ctl", "snapshot", "status", damaged, expect=1).stderr
    damaged.write_bytes(file.read_bytes()[:-100])
    assert "damaged or cut short" in run("ctl", "snapshot", "status", damaged, expect=1).stderr

    restored = Quorum()
    try:
        for node in restored.nodes:
            node.command()  # writes its file
            run("ctl", "snapshot", "restore", file, "--config", node.config)
        assert "is there already" in run("ctl", "snapshot", "restore", file, "--config", restored.nodes[0].config,
                                         expect=1).stderr
        restored.start()
        for node in restored.nodes:
            assert node.range("b/", range_end=text("b0")) == expected
            assert node.range("too late") == {}
            assert int(node.call("/lease/timetolive", {"ID": lease})["TTL"]) > 900
        old, new = (cluster.nodes[0].status()["header"]["cluster_id"] for cluster in (quorum, restored))
        assert old != new
        answer = restored.nodes[1].put("b/new", "y")
        assert int(answer["header"]["revision"]) == revision + 1
        restored.nodes[0].kill()
        restored.leader()
        restored.nodes[0].start()
        wait_for("it to follow", lambda: restored.nodes[0].range("b/new", serializable=True) == {"b/new": "y"})
    finally:
        restored.stop()


def test_a_backup_whose_client_hangs_up_or_is_slow(quorum):
    node = quorum.nodes[0]
    for i in range(40):
        node.put(f"big/{i}", "z" * 500_000)
    for _ in range(3):
        stream = node.stream("/maintenance/snapshot")
        stream.end_input()
        stream.next()
        stream.close()
    stream = node.stream("/maintenance/snapshot")
    stream.end_input()
    first = stream.next()
    for i in range(20):
        node.put("meanwhile", str(i))
    size = len(raw(first["blob"]))
    remaining = int(first["remaining_bytes"])
    while True:
        piece = stream.next()
        if piece is None:
            break
        size += len(raw(piece["blob"]))
        last = int(piece.get("remaining_bytes", 0))
    stream.close()
    assert last == 0 and size - len(raw(first["blob"])) == remaining


def test_a_node_that_does_not_know_what_is_committed_makes_no_backup(quorum, tmp_path):
    """Of a minority that was restarted: it has all in its log, and has applied nothing of it."""
    for i in range(10):
        quorum.nodes[0].put(f"k{i}", "v")
    one, *others = quorum.nodes
    wait_for("all of it", lambda: len(one.range("k", range_end=text("l"), serializable=True)) == 10)
    for node in others:
        node.kill()
    file = tmp_path / "a.snap"
    save = ["ctl", "--endpoints", f"127.0.0.1:{one.port}", "snapshot", "save", file, "--force"]
    run(*save)  # one that has been running has what it has
    assert json.loads(run("ctl", "snapshot", "status", file, "--json").stdout)["keys"] == 10
    good = file.read_bytes()
    one.stop_keeping_data()
    one.start()
    said = run(*save, expect=1).stderr
    assert "no leader has been heard since this node was started" in said and file.read_bytes() == good
    others[0].start()
    quorum.leader(among=[one, others[0]])
    wait_for("all of it", lambda: len(one.range("k", range_end=text("l"), serializable=True)) == 10)
    run(*save)
    others[1].start()


def test_half_a_backup_does_not_look_like_a_whole_one(quorum):
    node = quorum.followers()[0]
    for i in range(40):
        node.put(f"big/{i}", "z" * 500_000)
    with node.stream("/maintenance/snapshot") as stream:
        stream.end_input()
        stream.next()  # and no more, so that most of it is still there when the node ends
        node.signal(signal.SIGTERM)
        wait_for("the node to refuse new connections", lambda: not accepts(node.port))
        rest = b""
        try:
            while piece := stream.socket.recv(1 << 20):
                rest = (rest + piece)[-100:]
        except ConnectionResetError:
            pass
    assert not rest.endswith(b"0\r\n\r\n")
    node.wait()
    node._forget()
    node.start()


def test_joining_waits_until_the_member_is_added(quorum):
    node = newcomer(quorum)
    node.ready = lambda: "yet: add it" in node.log(None)
    node.start()
    del node.ready
    quorum.nodes[0].call("/cluster/member/add", {"peerURLs": [f"127.0.0.1:{node.peer_port}"]})
    wait_for("it to serve", node.ready)
    quorum.nodes.append(node)
    caught_up(node, quorum.leader(among=quorum.nodes[:3]))
    wait_for("it to vote", lambda: not members(quorum.nodes[0]).get("core-9", {"isLearner": True}).get("isLearner"))


def test_a_voter_whose_disk_was_emptied_is_not_taken_back(quorum):
    """It would vote a second time, and know nothing of what it has acknowledged."""
    lost = quorum.followers()[0]
    identity = members(quorum.leader())[lost.node_name]["ID"]
    lost.kill()
    quorum.nodes.remove(lost)
    node = newcomer(quorum, peer=lost.peer_port)
    node.ready = lambda: "has had its data already" in node.log(None)
    node.start()
    del node.ready
    wait_for("a member to say why", lambda: any("to be the member there, which votes" in one.log(None) for one in quorum.nodes))
    through = quorum.leader()
    through.call("/cluster/member/remove", {"ID": identity})
    through.call("/cluster/member/add", {"peerURLs": [f"127.0.0.1:{node.peer_port}"]})
    wait_for("it to serve", node.ready)
    quorum.nodes.append(node)
    wait_for("its name", lambda: "core-9" in members(through))
    assert members(through)["core-9"]["ID"] != identity


def test_what_keeps_a_node_from_joining_is_said_once():
    """Though it asks twice a second."""
    listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in ("core-0", "core-1")}
    peers = {name: f"127.0.0.1:{listener.getsockname()[1]}" for name, listener in listeners.items()}
    peer = free_port()
    node = ControlNode("x", free_port(), peer, {**peers, "x": f"127.0.0.1:{peer}"}, join=True)
    with subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *node.command()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            for listener in [*listeners.values()] * 3:  # three rounds, and the beginning of a fourth
                listener.settimeout(PATIENCE)
                with listener.accept()[0] as question:
                    question.recv(1 << 16)  # what is not read would make the end a reset
            listeners["core-0"].accept()
        finally:
            child.kill()
        said = child.communicate()[0]
    for name, listener in listeners.items():
        assert said.count(f"joining: {name}: ") == 1, said
        listener.close()
