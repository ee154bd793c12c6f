"""Nodes of the quorum that have lost their data: the others know it, and do not count them as what they were."""
import os
import shutil

import pytest

from harness import free_port
from quorum import ControlNode, Quorum, wait_for
from sidecar import run


@pytest.fixture
def quorum():
    founded = Quorum()
    try:
        yield founded
    finally:
        founded.stop()


def empty(node):
    """As a new disk in the place of the old one would."""
    node.kill()
    shutil.rmtree(node.data)
    node.data.mkdir()


def refused(node, code=3):
    """Starts it; it ends by itself, with that exit code. What it wrote meanwhile."""
    before = len(node.log(None))
    try:
        node.start()
    except RuntimeError as early:
        assert f"ended with {code} at its start" in str(early)
    else:
        assert node.wait() == code
        node._forget()
    return node.log(None)[before:]


def identities(node):
    return {member.get("name"): member["ID"] for member in node.call("/cluster/member/list")["members"]}


def voters(node):
    members = node.call("/cluster/member/list")["members"]
    return {member.get("name") for member in members if not member.get("isLearner")}


def restart(node):
    node.stop_keeping_data()
    node.start()


def caught_up(node, through):
    through.put("caught up?", node.node_name)
    wait_for(f"{node.node_name} to catch up",
             lambda: node.range("caught up?", serializable=True) == {"caught up?": node.node_name})


@pytest.mark.parametrize("peers", ["went on", "were restarted"])
def test_a_founder_whose_disk_was_emptied_is_not_taken_back(quorum, peers):
    """It would vote a second time, and know nothing of what it has acknowledged."""
    quorum.start()
    quorum.nodes[0].put("kept", "1")
    lost = quorum.followers()[0]
    identity = identities(lost)[lost.node_name]
    others = [node for node in quorum.nodes if node is not lost]
    if peers == "were restarted":
        for node in others:
            restart(node)
        quorum.leader()
    empty(lost)
    for _ in range(2):  # nor when it is tried again
        said = refused(lost)
        assert "the node stops: core-" in said and f"refuses this node: node {lost.node_name} has another log" in said
        assert "remove the member and add it again, with an empty" in said
        assert "this node is" not in said  # neither candidate nor follower: it has taken no part
    quorum.nodes.remove(lost)
    assert any(f"node {lost.node_name} has another log" in node.log(None) for node in others)
    leader = quorum.leader()
    leader.put("without it", "2")
    assert all(node.range("kept") == {"kept": "1"} for node in others)

    leader.call("/cluster/member/remove", {"ID": identity})
    known = {node.node_name: f"127.0.0.1:{node.peer_port}" for node in others}
    peer = free_port()
    node = ControlNode("core-9", free_port(), peer, {**known, "core-9": f"127.0.0.1:{peer}"}, join=True)
    leader.call("/cluster/member/add", {"peerURLs": [f"http://127.0.0.1:{peer}"]})
    node.start()
    quorum.nodes.append(node)
    wait_for("it to vote", lambda: "core-9" in voters(leader))
    others[0].kill()  # the new one is needed now
    quorum.leader().put("with the new one", "3")
    assert node.range("kept") == {"kept": "1"}
    shutil.rmtree(lost.directory)


def test_emptied_nodes_of_a_restored_cluster_found_no_other_beside_it(quorum, tmp_path):
    """Its id comes from the backup: by their files alone they would be founders of a cluster that nobody has, and a majority of it."""
    quorum.start()
    quorum.nodes[0].put("kept", "1")
    file = tmp_path / "backup.snap"
    run("ctl", "--endpoints", f"127.0.0.1:{quorum.leader().port}", "snapshot", "save", file)
    for node in quorum.nodes:
        empty(node)
        node.data.rmdir()
        run("ctl", "snapshot", "restore", file, "--config", node.config)
    quorum.start()
    quorum.leader().put("restored", "2")
    lost = quorum.followers()
    for node in lost:
        empty(node)
    for node in lost:
        said = refused(node)
        assert "this node begins without data, and at 127.0.0.1:" in said
        assert "is a cluster that does not know it" in said and f"remove the member, delete {node.data}, and add it again" in said
        assert "the leader is" not in said
        quorum.nodes.remove(node)
        shutil.rmtree(node.directory)
    assert quorum.nodes[0].range("kept", serializable=True) == {"kept": "1"}


@pytest.mark.parametrize("before", ["it was removed", "it was added again"])
def test_a_founder_is_replaced_under_its_own_name_and_address(quorum, before):
    """As a pod is, whose name and address stay; it starts with `join = true` before the one or the other."""
    quorum.start()
    quorum.nodes[0].put("kept", "1")
    lost = quorum.followers()[0]
    others = [node for node in quorum.nodes if node is not lost]
    identity = identities(lost)[lost.node_name]
    empty(lost)
    lost.settings["join"] = True
    through = quorum.leader(among=others)

    def start(until):
        seen = len(lost.log(None))
        lost.ready = lambda: until in lost.log(None)[seen:]
        lost.start()
        del lost.ready
    if before == "it was removed":
        start("has had its data already")
    through.call("/cluster/member/remove", {"ID": identity})
    if before == "it was added again":
        start("yet: add it")
    through.call("/cluster/member/add", {"peerURLs": [f"http://127.0.0.1:{lost.peer_port}"]})
    wait_for("it to vote", lambda: lost.node_name in voters(through))
    assert identities(through)[lost.node_name] != identity
    others[0].kill()  # the new one is needed now
    quorum.leader().put("with the new one", "2")
    assert lost.range("kept") == {"kept": "1"}
    restart(lost)  # `join` has nothing to say any more
    others[0].start()
    caught_up(lost, quorum.leader())


def test_a_founder_that_starts_late_is_taken(quorum):
    late, *early = reversed(quorum.nodes)
    for node in early:
        node.start()
    quorum.leader(among=early).put("early", "1")
    for node in early:  # that they have nothing of the late one to remember is remembered, too
        restart(node)
    quorum.leader(among=early)
    late.start()
    caught_up(late, quorum.leader())
    early[0].kill()
    assert late.range("early") == {"early": "1"}
    restart(late)
    quorum.leader().put("with it", "2")


def test_an_emptied_founder_elects_nobody_with_one_that_never_met_it(quorum):
    """Those two would be a majority that lacks what the third has acknowledged."""
    first, lost, late = quorum.nodes
    first.start()
    lost.start()
    quorum.leader(among=[first, lost]).put("kept", "1")
    empty(lost)
    late.start()
    assert "has another log" in refused(lost)
    quorum.nodes.remove(lost)
    assert late.range("kept") == {"kept": "1"}
    assert quorum.leader().range("kept") == {"kept": "1"}
    shutil.rmtree(lost.directory)


def test_a_disk_may_move_to_another_directory(quorum):
    """A copy is the same log: what was promised is in it."""
    quorum.start()
    moved = quorum.followers()[0]
    moved.stop_keeping_data()
    elsewhere = moved.directory / "elsewhere"
    shutil.copytree(moved.data, elsewhere)
    shutil.rmtree(moved.data)
    moved.settings["data"] = str(elsewhere)
    moved.start()
    caught_up(moved, quorum.leader())


def test_half_an_emptied_directory_is_refused_before_it_says_anything(quorum):
    quorum.start()
    lost = quorum.followers()[0]
    wait_for("the others to be remembered", lambda: (lost.data / "peers").exists())
    lost.kill()
    shutil.rmtree(lost.data / "wal")
    said = refused(lost, code=1)
    assert "wal is gone, but" in said and "peers is there: what this node has acknowledged is lost" in said
    assert sorted(os.listdir(lost.data / "wal")) != []


def test_a_learner_whose_disk_was_emptied_is_not_taken_back(quorum):
    """What it had acknowledged would count when it is promoted."""
    quorum.start()
    through = quorum.leader()
    peer = free_port()
    peers = {**quorum.peers, "core-9": f"127.0.0.1:{peer}"}
    node = ControlNode("core-9", free_port(), peer, peers, join=True)
    through.call("/cluster/member/add", {"peerURLs": [f"http://127.0.0.1:{peer}"], "isLearner": True})
    node.start()
    quorum.nodes.append(node)
    caught_up(node, through)
    identity = identities(through)["core-9"]
    empty(node)
    node.ready = lambda: "has had its data already" in node.log(None)
    node.start()
    del node.ready
    wait_for("a member to say why", lambda: any("has been here with its data" in one.log(None) for one in quorum.nodes))
    through.call("/cluster/member/remove", {"ID": identity})
    through.call("/cluster/member/add", {"peerURLs": [f"http://127.0.0.1:{peer}"], "isLearner": True})
    wait_for("it to serve", node.ready)
    caught_up(node, through)
    assert identities(through)["core-9"] != identity
