"""Partitions between three real nodes, also in one direction, through relays (peer_relay.py). Under load: quorum_view.py --faults partition."""
import time

import pytest

from quorum import Refused, wait_for
from quorum_torture import RelayedQuorum


@pytest.fixture(scope="module")
def cluster():
    quorum = RelayedQuorum().start()
    yield quorum
    quorum.stop()
    quorum.relay.close()


@pytest.fixture
def quorum(cluster):
    yield cluster
    cluster.relay.heal()
    cluster.leader()


def cut(quorum, *pairs):
    for sender, receiver in pairs:
        quorum.relay.hold(sender.node_name, receiver.node_name)


def led_by_another(leader, others):
    def another():
        return next((node for node in others if node.metric("outrider_control_leader") == 1), None)
    return wait_for(f"another leader than {leader.node_name}", another)


def try_put(node, key, value, patience=1):
    """Whether it was acknowledged; the outcome is open when not."""
    try:
        node.call("/kv/put", {"key": key, "value": value}, patience=patience)
        return True
    except (OSError, Refused):
        return False


@pytest.mark.parametrize("how", ["deaf", "mute", "alone"])
def test_a_leader_that_is_cut_off_is_replaced(quorum, how):
    leader = quorum.leader()
    others = quorum.followers()
    into, out = [(other, leader) for other in others], [(leader, other) for other in others]
    leader.put("side", "old")
    cut(quorum, *{"deaf": into, "mute": out, "alone": into + out}[how])
    led_by_another(leader, others)
    others[0].put("side", f"new {how}")
    assert others[1].range("side") == {"side": f"new {how}"}
    # It answers no linearizable read from what it has: none at all, or, when it hears the new leader, the new value.
    try:
        answer = leader.call("/kv/range", {"key": "c2lkZQ=="}, patience=1)
        assert answer["kvs"][0]["value"] != "b2xk"
    except (OSError, Refused):
        pass
    # A leader without a majority resigns, and does not go on taking writes.
    wait_for("it to lead no more", lambda: leader.metric("outrider_control_leader") == 0)
    quorum.relay.heal()
    wait_for("it to follow", lambda: leader.range("side", serializable=True) == {"side": f"new {how}"})
    leader.put("side", "together")
    assert others[1].range("side") == {"side": "together"}


@pytest.mark.parametrize("both", [False, True])
def test_a_leader_that_one_follower_does_not_hear_goes_on(quorum, both):
    """The other two are a majority. The follower that hears nothing must not keep them from working, however often it asks for votes."""
    leader = quorum.leader()
    cut_off, other = quorum.followers()
    cut(quorum, (leader, cut_off), *([(cut_off, leader)] if both else []))
    wait_for("it to miss its leader", lambda: cut_off.metric("outrider_control_has_leader") == 0)
    for i in range(20):
        assert try_put(other, "Zm9ydGg=", "eA==", patience=30), i
    quorum.relay.heal()
    wait_for("all to follow one", lambda: all(node.metric("outrider_control_has_leader") == 1 for node in quorum.nodes))
    cut_off.put("forth", "y")
    assert other.range("forth") == {"forth": "y"}


def test_when_nobody_hears_anybody_nothing_is_promised(quorum):
    cut(quorum, *[(a, b) for a in quorum.nodes for b in quorum.nodes if a is not b])
    wait_for("no leader", lambda: all(node.metric("outrider_control_leader") == 0 for node in quorum.nodes))
    terms = [node.metric("outrider_control_term") for node in quorum.nodes]
    assert not any(try_put(node, "YWxvbmU=", "eA==") for node in quorum.nodes)  # ten election timeouts
    # Candidates that nobody hears do not raise their terms (pre-vote), but for one that had its majority just before.
    for node, term in zip(quorum.nodes, terms):
        assert node.metric("outrider_control_term") <= term + 1
    quorum.relay.heal()
    quorum.leader()
    quorum.nodes[0].put("alone", "y")
    assert quorum.nodes[2].range("alone") == {"alone": "y"}


def test_a_follower_reads_though_every_answer_takes_longer_than_an_election_timeout(quorum):
    """300 ms, by quorum.py. Its question and the answer, and the round in between, are four ways; heartbeats come as often as ever."""
    follower = quorum.followers()[0]
    quorum.leader().put("far", "away")
    quorum.relay.delay(110)
    before = time.monotonic()
    assert follower.range("far") == {"far": "away"}
    assert time.monotonic() - before > 0.4
