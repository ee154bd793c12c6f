"""Three real nodes of the quorum on loopback: the API over each of them, failures, restarts, refusals."""
import json
import os
import pathlib
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from harness import free_port
from quorum import PATIENCE, ControlNode, Quorum, Refused, copied_data, raw, refused, text, wait_for


@pytest.fixture(scope="module")
def quorum_of_module():
    quorum = Quorum().start()
    yield quorum
    quorum.stop()


@pytest.fixture
def quorum(quorum_of_module):
    yield quorum_of_module
    for node in quorum_of_module.nodes:
        assert node.alive(), f"{node.node_name} ended with {node.child.returncode}:\n{node.log()}"


# ---- the key space over every node ----------------------------------------------------------------------------------

def test_what_one_node_has_answered_every_node_shows(quorum):
    for i, node in enumerate(quorum.nodes):
        answer = node.put(f"each/{i}", f"value {i}")
        assert set(answer["header"]) == {"cluster_id", "member_id", "revision", "raft_term"}
        for other in quorum.nodes:
            assert other.range(f"each/{i}") == {f"each/{i}": f"value {i}"}


def test_a_transaction_decides_once_for_all_nodes(quorum):
    key = text("lock")
    won = []
    for node in quorum.nodes:
        answer = node.call("/kv/txn", {
            "compare": [{"key": key, "target": "VERSION", "result": "EQUAL", "version": "0"}],
            "success": [{"request_put": {"key": key, "value": text(node.node_name)}}],
            "failure": [{"request_range": {"key": key}}]})
        won.append(answer.get("succeeded", False))
        if not won[-1]:
            assert raw(answer["responses"][0]["response_range"]["kvs"][0]["value"]) == b"core-0"
    assert won == [True, False, False]


def test_deletes_ranges_and_old_revisions(quorum):
    node = quorum.nodes[1]
    first = int(node.put("old/a", "1")["header"]["revision"])
    node.put("old/a", "2")
    node.put("old/b", "3")
    assert node.range("old/", range_end=text("old0")) == {"old/a": "2", "old/b": "3"}
    assert node.range("old/a", revision=str(first)) == {"old/a": "1"}
    assert node.range("old/a", serializable=True) == {"old/a": "2"}
    answer = node.call("/kv/deleterange", {"key": text("old/"), "range_end": text("old0"), "prev_kv": True})
    assert answer["deleted"] == "2" and len(answer["prev_kvs"]) == 2
    assert node.range("old/", range_end=text("old0")) == {}


def test_compacted_and_future_revisions(quorum):
    node = quorum.nodes[2]
    first = int(node.put("gone", "1")["header"]["revision"])
    last = int(node.put("gone", "2")["header"]["revision"])
    node.call("/kv/compaction", {"revision": str(last)})
    for other in quorum.nodes:
        assert refused(other.range, "gone", revision=str(first)) == (
            400, "etcdserver: mvcc: required revision has been compacted", 11)
        assert refused(other.range, "gone", revision=str(last + 10**6)) == (
            400, "etcdserver: mvcc: required revision is a future revision", 11)
    assert refused(node.call, "/kv/compaction", {"revision": str(first)}) == (
        400, "etcdserver: mvcc: required revision has been compacted", 11)
    with node.stream("/watch", {"create_request": {"key": text("gone"), "start_revision": str(first)}}) as stream:
        assert stream.next()["created"]
        cancelled = stream.next()
        assert cancelled["canceled"] and cancelled["compact_revision"] == str(last)


# ---- leases ---------------------------------------------------------------------------------------------------------

def test_leases_are_the_same_at_every_node(quorum):
    lease = quorum.nodes[0].call("/lease/grant", {"TTL": "60", "ID": "4711"})
    assert (lease["ID"], lease["TTL"]) == ("4711", "60")
    quorum.nodes[1].put("leased", "x", lease="4711")
    for node in quorum.nodes:
        told = node.call("/lease/timetolive", {"ID": "4711", "keys": True})
        assert 50 <= int(told["TTL"]) <= 60 and told["grantedTTL"] == "60" and told["keys"] == [text("leased")]
        assert {"ID": "4711"} in node.call("/kv/lease/leases")["leases"]
        with node.stream("/lease/keepalive", {"ID": "4711"}) as stream:
            assert stream.next()["TTL"] == "60"
            stream.send({"ID": "99999"})
            unknown = stream.next()
            assert unknown["ID"] == "99999" and "TTL" not in unknown
            stream.end_input()
            assert stream.next() is None
    assert refused(quorum.nodes[2].call, "/lease/grant", {"TTL": "60", "ID": "4711"}) == (
        412, "etcdserver: lease already exists", 9)
    quorum.nodes[2].call("/lease/revoke", {"ID": "4711"})
    assert quorum.nodes[0].range("leased") == {}
    assert refused(quorum.nodes[1].call, "/kv/lease/revoke", {"ID": "4711"}) == (
        404, "etcdserver: requested lease not found", 5)
    assert refused(quorum.nodes[1].put, "leased", "x", lease="4711") == (
        404, "etcdserver: requested lease not found", 5)
    assert quorum.nodes[1].call("/lease/timetolive", {"ID": "4711"})["TTL"] == "-1"


def test_a_lease_that_nobody_renews_takes_its_keys_with_it(quorum):
    node = quorum.followers()[0]
    lease = node.call("/lease/grant", {"TTL": "2"})["ID"]
    node.put("mortal", "x", lease=lease)
    with node.stream("/watch", {"create_request": {"key": text("mortal")}}) as stream:
        assert stream.next()["created"]
        assert stream.events(1)[0]["type"] == "DELETE"
    assert node.range("mortal") == {}


# ---- watches --------------------------------------------------------------------------------------------------------

def test_a_watch_sees_every_change_once_and_in_order(quorum):
    streams = [node.stream("/watch", {"create_request": {"key": text("w/"), "range_end": text("w0")}})
               for node in quorum.nodes]
    created = [int(stream.next()["header"]["revision"]) for stream in streams]
    for i in range(30):
        quorum.nodes[i % 3].put(f"w/{i % 5}", str(i))
    for stream in streams:
        events = stream.events(30)
        assert [raw(event["kv"]["value"]) for event in events] == [b"%d" % i for i in range(30)]
        stream.close()
    with quorum.nodes[1].stream("/watch", {"create_request": {"key": text("w/"), "range_end": text("w0"),
                                                              "start_revision": str(min(created) + 1)}}) as again:
        again.next()
        assert [raw(event["kv"]["value"]) for event in again.events(30)] == [b"%d" % i for i in range(30)]


def test_watches_of_one_stream_are_created_and_cancelled(quorum):
    with quorum.nodes[0].stream("/watch", {"create_request": {"key": text("p")}}) as stream:
        assert stream.next().get("watch_id") is None  # 0
        stream.send({"create_request": {"key": text("q"), "watch_id": "7", "prev_kv": True}})
        assert stream.next()["watch_id"] == "7"
        stream.send({"create_request": {"key": text("q"), "watch_id": "7"}})
        assert stream.next()["cancel_reason"] == "mvcc: duplicate watch ID provided on the WatchStream"
        stream.send({"create_request": {"key": text("z"), "range_end": text("a")}})
        assert stream.next()["cancel_reason"] == "mvcc: watcher range is empty"
        quorum.nodes[1].put("q", "1")
        assert stream.next()["watch_id"] == "7"
        stream.send({"progress_request": {}})
        told = stream.next()
        assert told["watch_id"] == "-1" and int(told["header"]["revision"]) > 1
        stream.send({"cancel_request": {"watch_id": "7"}})
        assert stream.next()["canceled"]
        quorum.nodes[1].put("q", "2")
        quorum.nodes[1].put("p", "3")
        assert raw(stream.events(1)[0]["kv"]["key"]) == b"p"


def test_a_stream_has_so_many_watches_and_no_more(quorum):
    with quorum.nodes[0].stream("/watch", {"create_request": {"key": text("many")}}) as stream:
        assert stream.next()["created"]
        for _ in range(99):
            for _ in range(101):
                stream.send({"create_request": {"key": text("many")}})
            assert all(stream.next()["created"] for _ in range(101))
        stream.send({"create_request": {"key": text("many")}})
        assert stream.next()["cancel_reason"] == "too many watches on this stream: open another"
        # Asked for many times, told at least once, by one line.
        for _ in range(50):
            stream.send({"progress_request": {}})
        assert stream.next()["watch_id"] == "-1"


def filled(node, name, count=24):
    """Half a megabyte a revision, so that a watch of them is behind for a while. Returns the first and the last revision."""
    revisions = [int(node.put(name, f"{i:06}" + "y" * 500_000)["header"]["revision"]) for i in range(count)]
    return revisions[0], revisions[-1]


def test_a_watch_that_is_behind_tells_its_progress_when_it_has_caught_up(quorum):
    node = quorum.nodes[0]
    first, last = filled(node, "behind")
    with node.stream("/watch", {"create_request": {"key": text("behind"), "start_revision": str(first)}}) as stream:
        stream.send({"progress_request": {}})
        assert stream.next()["created"]
        assert len(stream.events(24)) == 24
        told = stream.next()
        assert told["watch_id"] == "-1" and int(told["header"]["revision"]) >= last
    node.call("/kv/deleterange", {"key": text("behind")})


def test_a_cancelled_watch_owes_no_progress(quorum):
    node = quorum.nodes[0]
    first, _ = filled(node, "cancelled")
    with node.stream("/watch", {"create_request": {"key": text("idle")}}) as stream:
        stream.send({"create_request": {"key": text("cancelled"), "watch_id": "7", "start_revision": str(first)}})
        stream.send({"progress_request": {}})
        stream.send({"cancel_request": {"watch_id": "7"}})
        while not (message := stream.next()).get("canceled"):
            assert message.get("created") or message.get("events"), message
        assert stream.next()["watch_id"] == "-1"
    node.call("/kv/deleterange", {"key": text("cancelled")})


def test_a_client_that_asks_without_reading_is_no_longer_read(quorum):
    """Or what it is answered would gather in memory."""
    node = quorum.nodes[1]
    message = b"17\r\n" + b'{"progress_request":{}}' + b"\r\n"
    with node.stream("/watch") as stream:
        stream.socket.settimeout(2)
        sent, bound = 0, 64 << 20
        batch = message * 2000
        while sent < bound:
            try:
                sent += stream.socket.send(batch[sent % len(message):])
            except TimeoutError:
                break
        assert sent < bound, "everything was read"
        stream.socket.settimeout(PATIENCE)
        cut = sent % len(message)
        rest = threading.Thread(target=stream.socket.sendall, args=(message[cut:] if cut else b"",))
        rest.start()
        for _ in range(-(-sent // len(message))):
            assert stream.next()["watch_id"] == "-1"
        rest.join()


def test_watchers_that_hang_up_harm_nobody(quorum):
    node = quorum.nodes[0]
    for linger in (True, False):
        streams = [node.stream("/watch", {"create_request": {"key": text("hang")}}) for _ in range(20)]
        for stream in streams:
            stream.next()
        big = "x" * 100_000
        stop = threading.Event()

        def write(value=big, stopped=stop):
            while not stopped.is_set():
                quorum.nodes[1].put("hang", value)

        writer = threading.Thread(target=write)
        writer.start()
        for stream in streams:  # while they are written to
            if linger:  # close with a reset
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.close()
        stop.set()
        writer.join()
    wait_for("no watchers", lambda: node.metric("outrider_control_watchers") == 0)


def test_a_watcher_that_does_not_read_gets_everything_when_it_reads_again(quorum):
    node = quorum.nodes[2]
    with node.stream("/watch", {"create_request": {"key": text("slow")}}) as stream:
        assert stream.next()["created"]
        filled(node, "slow", 24)
        values = [raw(event["kv"]["value"])[:6] for event in stream.events(24)]
        assert values == [b"%06d" % i for i in range(24)]
    quorum.nodes[0].call("/kv/deleterange", {"key": text("slow")})


# ---- bad input ------------------------------------------------------------------------------------------------------

def test_what_is_too_large_is_refused(quorum):
    node = quorum.nodes[0]
    assert refused(node.put, "big", "x" * (1600 << 10)) == (400, "etcdserver: request is too large", 3)
    assert refused(node.put, "big", "x" * (6 << 20)) == (400, "etcdserver: request is too large", 3)
    ops = [{"request_put": {"key": text(f"op{i}"), "value": ""}} for i in range(129)]
    assert refused(node.call, "/kv/txn", {"success": ops}) == (
        400, "etcdserver: too many operations in txn request", 3)
    node.put("big", "x" * (1 << 20))
    assert len(quorum.nodes[1].range("big")["big"]) == 1 << 20


@pytest.mark.parametrize("path,body,status", [
    ("/v3/kv/put", b"{", 400), ("/v3/kv/put", b"[]", 400), ("/v3/kv/put", b'{"key":7}', 400),
    ("/v3/kv/put", b"{}", 400), ("/v3/nowhere", b"{}", 404), ("/v3/watch", b"}", 400), ("/v3/watch", b"[" * 1000, 400),
    ("/v3/lease/keepalive", b'{"ID":"x"}', 400), ("/v3/kv/txn", b"[" * 100_000, 400)])
def test_malformed_requests_are_refused(quorum, path, body, status):
    node = quorum.nodes[0]
    with socket.create_connection(("127.0.0.1", node.port), PATIENCE) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                           % (path.encode(), len(body), body))
        assert int(connection.makefile("rb").readline().split()[1]) == status


def test_strangers_on_the_peer_port_harm_nobody(quorum):
    node = quorum.nodes[0]
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, os.urandom(5000), struct.pack("<II", 1 << 30, 0),
                 struct.pack("<II", 1 << 20, 0),  # as long as a frame may be, but not the first
                 struct.pack("<II", 4, 0) + b"abcd"):
        with socket.create_connection(("127.0.0.1", node.peer_port), PATIENCE) as connection:
            connection.sendall(data)
            connection.settimeout(PATIENCE)
            try:
                while connection.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    with socket.create_connection(("127.0.0.1", node.peer_port), PATIENCE) as slow:  # always something, never a greeting
        slow.sendall(struct.pack("<II", 60_000, 0))
        slow.settimeout(0.05)

        def ended():
            try:
                slow.send(b"x")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True
        wait_for("the end of one who never says who it is", ended)
    idle = [socket.create_connection(("127.0.0.1", node.peer_port), PATIENCE) for _ in range(100)]
    node.put("still", "here")
    for connection in idle:
        connection.close()
    told = [line for line in node.log(None).splitlines() if "is not of a node" in line]
    assert len(told) == 1 and " warning control.peer_listen: what 127.0.0.1:" in told[0], told  # one in 30 s


def test_pages(quorum):
    node = quorum.nodes[1]
    assert node.get("/health") == (200, b'{"health":"true"}')
    assert node.get("/ready")[0] == 200
    assert json.loads(node.get("/version")[1])["etcdcluster"] == "3.4.0"
    for name in ("control_commit_index", "control_term", "control_apply_seconds_count", "wal_sync_seconds_count"):
        assert node.metric("outrider_" + name) > 0, name
    members = node.call("/cluster/member/list")["members"]
    assert sorted(member["name"] for member in members) == ["core-0", "core-1", "core-2"]
    assert all(member["clientURLs"] and member["peerURLs"] for member in members)


# ---- failures -------------------------------------------------------------------------------------------------------

def test_a_killed_leader_is_replaced_and_comes_back(quorum):
    leader = quorum.leader()
    others = quorum.followers()
    leader.put("before", "kept")
    leader.kill()
    new = quorum.leader(among=others)
    assert new is not leader
    for node in others:
        node.put(f"meanwhile/{node.node_name}", "x")
        assert node.range("before") == {"before": "kept"}
    leader.start()
    wait_for("the old leader to follow", lambda: leader.metric("outrider_control_has_leader") == 1)
    for node in others:
        assert leader.range(f"meanwhile/{node.node_name}") == {f"meanwhile/{node.node_name}": "x"}


def test_a_paused_leader_tells_nothing_old_when_it_goes_on(quorum):
    leader = quorum.leader()
    others = quorum.followers()
    leader.put("paused", "old")
    lease = leader.call("/lease/grant", {"TTL": "2"})["ID"]
    leader.pause()
    try:
        quorum.leader(among=others)
        others[0].put("paused", "new")
        wait_for("the lease to expire", lambda: others[0].call("/lease/timetolive", {"ID": lease}).get("TTL") == "-1")
        # They wait in its socket: it reads them before it knows how long it slept.
        early = [leader.stream("/lease/keepalive", {"ID": lease}) for _ in range(3)]
        reads = []
        threads = [threading.Thread(target=lambda: reads.append(leader.range("paused"))) for _ in range(3)]
        for thread in threads:
            thread.start()
    finally:
        leader.resume()
    for thread in threads:
        thread.join()
    assert reads == [{"paused": "new"}] * 3
    for stream in early:
        assert "TTL" not in stream.next()
        stream.close()


def test_without_a_majority_nothing_is_promised(quorum):
    leader = quorum.leader()
    others = quorum.followers()
    for node in others:
        node.pause()
    try:
        status, error, _ = refused(leader.put, "alone", "x")
        assert status == 503 and error in ("etcdserver: request timed out", "etcdserver: no leader",
                                           "etcdserver: leader changed")
        assert leader.get("/health")[0] == 503
        assert leader.range("each/0", serializable=True) == {"each/0": "value 0"}
    finally:
        for node in others:
            node.resume()
    quorum.leader()
    quorum.nodes[0].put("alone", "y")
    assert quorum.nodes[1].range("alone") == {"alone": "y"}


def test_all_killed_at_once_lose_nothing_that_was_acknowledged():
    quorum = Quorum(snapshot_entries=200).start()
    try:
        for i in range(300):
            quorum.nodes[i % 3].put(f"k/{i % 50}", str(i))
        expected = quorum.nodes[0].range("k/", range_end=text("k0"))
        for node in quorum.nodes:
            node.kill()
        for node in quorum.nodes:
            node.start()
        quorum.leader()
        for node in quorum.nodes:
            assert node.range("k/", range_end=text("k0")) == expected
    finally:
        quorum.stop()


def test_a_node_that_missed_a_snapshot_is_sent_it():
    quorum = Quorum(snapshot_entries=100).start()
    try:
        behind = quorum.followers()[0]
        behind.kill()
        others = quorum.alive()
        for i in range(400):
            others[0].put("many", "z" * 20_000 + str(i))
        behind.start()
        wait_for("the node to catch up",
                 lambda: behind.metric("outrider_control_applied_index") == others[0].metric(
                     "outrider_control_applied_index"))
        assert behind.range("many", serializable=True)["many"].endswith("399")
        assert "the leader's snapshot at entry" in behind.log(None)
        names = os.listdir(behind.data)
        assert any(name.startswith("snapshot-") and name.endswith(".snap") for name in names), names
        behind.kill()
        behind.start()
        wait_for("it to have it after a restart",
                 lambda: behind.range("many", serializable=True).get("many", "").endswith("399"))
    finally:
        quorum.stop()


# ---- what a node refuses to start with ------------------------------------------------------------------------------

def refusal(node):
    node.command()
    done = subprocess.run([os.path.abspath(os.environ["OUTRIDER_BIN"]), "control", "-c", str(node.config)],
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1, done
    return done.stderr


def test_directories_that_are_not_its_own_are_refused():
    quorum = Quorum().start()
    stranger = Quorum(1)
    try:
        quorum.nodes[0].put("x", "y")
        first = quorum.nodes[0]
        assert "is in use by process" in refusal(ControlNode(
            "core-0", free_port(), free_port(), quorum.peers, data=str(first.data)))
        for node in quorum.nodes:
            node.stop_keeping_data()

        def copy(**settings):
            return refusal(ControlNode(settings.pop("name", "core-0"), free_port(), free_port(),
                                       settings.pop("peers", quorum.peers), data=str(copied_data(first)), **settings))

        assert "holds the data of node core-0" in copy(name="core-1")
        assert "holds the data of the cluster" in copy(cluster="other")
        assert "core-0 is at" in copy(peers={"core-0": "127.0.0.1:1", "x": "127.0.0.1:2"})

        damaged = copied_data(first)
        segment = sorted((damaged / "wal").glob("*.wal"))[0]
        content = bytearray(segment.read_bytes())
        content[120] ^= 0xff
        segment.write_bytes(content)
        told = refusal(ControlNode("core-0", free_port(), free_port(), quorum.peers, data=str(damaged)))
        assert segment.name in told and "offset" in told

        for node in quorum.nodes:
            node.start()
        quorum.leader()
        assert quorum.nodes[2].range("x") == {"x": "y"}
    finally:
        quorum.stop()
        stranger.stop()


def test_a_start_that_is_refused_founds_nothing():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for api, peer, key in ((port, free_port(), "control.api_listen"), (free_port(), port, "control.peer_listen")):
            node = ControlNode("x", api, peer, {"x": f"127.0.0.1:{peer}"})
            told = refusal(node)
            assert f"{key}: cannot listen on 127.0.0.1:{port}: address already in use" in told
            peer = free_port()  # another address: another cluster
            again = ControlNode("x", free_port(), peer, {"x": f"127.0.0.1:{peer}"}, data=str(node.data))
            again.start()
            again.put("a", "b")
            again.stop()


def test_nodes_with_different_lists_refuse_each_other_and_say_why():
    ports = [free_port() for _ in range(4)]
    a = ControlNode("a", free_port(), ports[0], {"a": f"127.0.0.1:{ports[0]}", "b": f"127.0.0.1:{ports[1]}"})
    b = ControlNode("b", free_port(), ports[1],
                    {"a": f"127.0.0.1:{ports[0]}", "b": f"127.0.0.1:{ports[1]}", "c": f"127.0.0.1:{ports[2]}"})
    with a, b:
        wait_for("a refusal in the log", lambda: "belongs to another cluster" in a.log(None) + b.log(None))
        assert a.get("/health")[0] == 503


def test_mistakes_in_the_file_are_named(tmp_path):
    file = tmp_path / "control.toml"
    file.write_text('[control]\ndata = "/tmp/x"\npears = {}\nheartbeat = "400ms"\n')
    done = subprocess.run([os.environ["OUTRIDER_BIN"], "validate", "-c", str(file)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "control.pears: unknown key (did you mean 'peers'" in done.stdout or "unknown key" in done.stdout
    assert "heartbeat may be at most half of election_timeout" in done.stdout


def test_the_directories_above_its_data_are_made():
    peer = free_port()
    node = ControlNode("x", free_port(), peer, {"x": f"127.0.0.1:{peer}"})
    node.settings["data"] = str(node.data / "deeper" / "data")
    node.start()
    node.put("a", "b")
    node.stop()


def test_a_full_store_says_its_limit_and_is_emptied_as_it_says():
    node = ControlNode("x", free_port(), free_port(), {}, max_store="1MiB")
    node.start()
    try:
        with pytest.raises(Refused) as caught:
            for i in range(100):
                last = node.put(f"k{i % 20}", "x" * 50_000)["header"]["revision"]
        assert caught.value.status == 429
        assert caught.value.answer == {"error": "etcdserver: mvcc: database space exceeded", "code": 8, "message":
                                       "etcdserver: mvcc: database space exceeded: control.max_store is 1MiB. Delete keys, then compact: "
                                       "old revisions count too"}
        deleted = node.call("/kv/deleterange", {"key": text("k"), "range_end": text("l")})["header"]["revision"]
        assert int(deleted) == int(last) + 1
        node.call("/kv/compaction", {"revision": deleted})
        node.put("k", "there is room again")
    finally:
        node.stop()


def test_one_node_is_a_quorum():
    quorum = Quorum(1).start()
    try:
        node = quorum.nodes[0]
        node.put("alone", "1")
        node.stop_keeping_data()
        node.start()
        wait_for("a leader", lambda: node.metric("outrider_control_leader") == 1)
        assert node.range("alone") == {"alone": "1"}
        assert node.status()["raftTerm"] != "1"
    finally:
        quorum.stop()


def test_a_graceful_stop_hands_the_leadership_over(quorum):
    leader = quorum.leader()
    leader.signal(signal.SIGTERM)
    begun = time.monotonic()
    assert leader.wait() == 0
    leader._forget()
    assert "the leadership is handed to" in leader.log(None)
    assert time.monotonic() - begun < PATIENCE
    quorum.nodes[0].start() if leader is quorum.nodes[0] else leader.start()
    quorum.leader()


def test_requests_in_receipt_are_bounded_together(quorum):
    """Clients that begin large requests and do not end them."""
    node = quorum.nodes[0]
    head = b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 1500000\r\n\r\n"
    held = []
    try:
        for _ in range(200):  # of 1.4 MB: 280 MB, of which 256 MiB are taken
            client = socket.create_connection(("127.0.0.1", node.port), timeout=PATIENCE)
            held.append(client)
            client.sendall(head + b"x" * 1_400_000)
        head_of_answer = select.select(held, [], [], PATIENCE)[0][0].recv(4096).decode()
        assert head_of_answer.startswith("HTTP/1.1 429 ") and "etcdserver: too many requests" in head_of_answer
        node.put("k", "v")  # small ones find room
        answered = select.select(held, [], [], 0)[0]
        assert 1 <= len(answered) <= 200 - 190, len(answered)
    finally:
        for client in held:
            client.close()
    assert node.range("k") == {"k": "v"}


def test_the_metrics_of_a_node_are_those_of_the_documentation(quorum):
    """Its table in docs/metrics.md names each, and no other."""
    document = (pathlib.Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
    section = re.search(r"^## A node of the control plane$(.*?)^## ", document, re.M | re.S).group(1)
    told = dict(re.findall(r"^\| `(outrider_\w+)` \| (\w+) \|", section, re.M))
    shown = dict(re.findall(r"^# TYPE (outrider_control_\w+) (\w+)$", quorum.nodes[0].get("/metrics")[1].decode(), re.M))
    assert shown and told == shown
