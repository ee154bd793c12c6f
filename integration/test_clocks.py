"""Clocks that are wrong under real nodes (faulty_clock.py): the wall clock decides nothing, the monotonic one only how long things take. Under
load: quorum_view.py --faults clock."""
import os
import subprocess
import sys
import time

import pytest

import faulty_clock
from faulty_clock import FaultyClock
from quorum import Quorum, free_port, text, wait_for
from quorum_torture import Node

DAY = 86_400


def told_by(clock, code):
    """What a program under this clock says."""
    environment = {**os.environ, "LD_PRELOAD": faulty_clock.library(), **clock.environment()}
    return float(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout)


def test_the_library_is_a_clock_that_is_wrong(tmp_path):
    clock = FaultyClock(tmp_path)
    clock.set_wall(-DAY)
    assert abs(told_by(clock, "import time; print(time.time())") - time.time() + DAY) < 60
    took = "import time; a, b = time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME); time.sleep(0.2); " \
           "print((time.monotonic() - a) / (time.clock_gettime(time.CLOCK_BOOTTIME) - b))"
    for rate in 1.0, -0.5:
        clock.set_rate(rate)
        assert abs(told_by(clock, took) - 1 - rate) < 0.1
        assert told_by(clock, "import time; a = [time.monotonic_ns() for _ in range(100_000)]; print(float(a == sorted(a)))") == 1


@pytest.fixture
def quorum():
    cluster = Quorum(3, kind=Node, heartbeat="100ms", election_timeout="1s")
    for node in cluster.nodes:
        node.give_faulty_clock()
    cluster.start()
    yield cluster
    cluster.stop()


def jump(nodes, seconds):
    for node in nodes:
        node.clock.set_wall(seconds)
        reads = node.clock.wall_reads()
        wait_for("it to see the time", lambda n=node, r=reads: n.clock.wall_reads() > r + 1)


def ask_ttl(node, lease):
    return int(node.call("/lease/timetolive", {"ID": lease})["TTL"])


def test_a_wall_clock_that_jumps_changes_nothing(quorum):
    leader, (one, other) = quorum.leader(), quorum.followers()
    term = leader.metric("outrider_control_term")
    long = one.call("/lease/grant", {"TTL": "1000"})["ID"]
    for number, (nodes, seconds) in enumerate([([leader, one], DAY), (quorum.nodes, -2 * DAY)]):
        begun = time.monotonic()
        short = other.call("/lease/grant", {"TTL": "1"})["ID"]
        one.put("guarded", "x", lease=short)
        jump(nodes, seconds)
        one.put(f"k{number}", "x")
        assert other.range(f"k{number}") == {f"k{number}": "x"}
        assert ask_ttl(other, long) > 900
        wait_for("the lease to end", lambda: other.range("guarded") == {}, patience=1 + 10)
        assert time.monotonic() - begun >= 1
    assert leader.metric("outrider_control_term") == term and leader.metric("outrider_control_leader") == 1


def test_a_wall_clock_that_is_hours_ahead_ends_no_session(quorum):
    one, other = quorum.followers()
    session = one.call("/session/open")["session"]
    put = {"key": text("once"), "value": text("x")}
    first = one.call("/kv/put", put, session=(session, 1))
    for number, (nodes, seconds) in enumerate([([other], 2 * 3600), ([quorum.leader()], DAY), (quorum.nodes, -DAY)]):
        jump(nodes, seconds)
        for node in quorum.nodes:
            node.put(f"passed on/{number}", "x")
            assert node.call("/kv/put", put, session=(session, 1))["header"]["revision"] == first["header"]["revision"]
    assert one.call("/kv/range", {"key": text("once")})["kvs"][0]["version"] == "1"
    other.call("/kv/put", put, session=(session, 2))
    assert one.call("/kv/range", {"key": text("once")})["kvs"][0]["version"] == "2"


def test_a_lease_lasts_as_long_as_the_leader_counts():
    """That the library reaches what counts time, and what it does to a lease when that is wrong."""
    node = Node("core-0", free_port(), free_port(), {})
    node.give_faulty_clock()
    node.clock.set_rate(2.0)
    node.start()
    try:
        wait_for("a leader", lambda: node.metric("outrider_control_leader") == 1)
        begun = time.monotonic()
        node.call("/lease/grant", {"TTL": "3", "ID": "7"})
        node.call("/kv/put", {"key": text("a"), "value": "", "lease": "7"})
        wait_for("the lease to end", lambda: node.range("a") == {})
        assert 1 <= time.monotonic() - begun < 3
    finally:
        node.kill()
