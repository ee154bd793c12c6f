"""Sessions of the quorum's API: a write that is repeated with its session and sequence takes effect once, also over the death of leaders."""
import http.client
import json

import pytest

from quorum import PATIENCE, Quorum, Refused, raw, refused, text, wait_for
from session_writers import versions, writing
from sidecar import run

UNKNOWN = (404, "the session is not open, or was idle for too long: the command took no effect now", 5)
STALE = (412, "a later command of the session has been applied: this one took no effect now", 9)


@pytest.fixture(scope="module")
def quorum_of_module():
    quorum = Quorum(max_store="1MiB").start()
    yield quorum
    quorum.stop()


@pytest.fixture
def quorum(quorum_of_module):
    yield quorum_of_module
    for node in quorum_of_module.nodes:
        assert node.alive(), f"{node.node_name} ended with {node.child.returncode}:\n{node.log()}"


def opened(node):
    return node.call("/session/open")["session"]


def version(node, key):
    kvs = node.call("/kv/range", {"key": text(key)}).get("kvs", [{}])
    return int(kvs[0].get("version", 0))


def without_member(answer):
    """An answer's header also says who gives it."""
    return {**answer, "header": answer["header"]["revision"]}


# ---- the API --------------------------------------------------------------------------------------------------------


def test_every_write_is_done_once_and_answered_alike_by_every_node(quorum):
    key, lease = text("once/key"), "815"
    quorum.nodes[0].put("once/key", "before")
    session = opened(quorum.nodes[0])
    revision = quorum.nodes[0].put("once/other", "x")["header"]["revision"]
    writes = [("/kv/put", {"key": key, "value": text("a"), "prev_kv": True}), ("/lease/grant", {"TTL": "60", "ID": lease}),
              ("/kv/txn", {"success": [{"request_put": {"key": key, "value": text("b"), "prev_kv": True}}]}),
              ("/kv/deleterange", {"key": key, "prev_kv": True}), ("/lease/revoke", {"ID": lease}), ("/kv/compaction", {"revision": revision})]
    for sequence, (path, body) in enumerate(writes, 1):
        answers = [without_member(node.call(path, body, session=(session, sequence))) for node in quorum.nodes * 2]
        assert answers == [answers[0]] * 6, path
    assert answers[0].keys() == {"header"}
    assert version(quorum.nodes[1], "once/key") == 0
    quorum.nodes[1].call("/session/close", {"session": session})
    quorum.nodes[1].call("/session/close", {"session": session})  # as after an answer that was lost
    assert refused(quorum.nodes[2].call, *writes[0], session=(session, 9)) == UNKNOWN


def test_without_a_session_it_is_done_each_time(quorum):
    for node in quorum.nodes:
        node.put("each", "x")
    assert version(quorum.nodes[0], "each") == 3


def test_a_refusal_is_repeated_too(quorum):
    session = opened(quorum.nodes[0])
    body = {"key": text("leased"), "value": text("x"), "lease": "4712"}
    told = [refused(quorum.nodes[0].call, "/kv/put", body, session=(session, 1))]
    quorum.nodes[1].call("/lease/grant", {"TTL": "60", "ID": "4712"})  # now it would succeed
    told.append(refused(quorum.nodes[2].call, "/kv/put", body, session=(session, 1)))
    assert told == [(404, "etcdserver: requested lease not found", 5)] * 2
    assert version(quorum.nodes[0], "leased") == 0


def test_a_transaction_that_only_reads_is_remembered_too(quorum):
    session = opened(quorum.nodes[0])
    quorum.nodes[0].put("seen", "first")
    body = {"success": [{"request_range": {"key": text("seen")}}]}
    first = quorum.nodes[0].call("/kv/txn", body, session=(session, 1))
    quorum.nodes[0].put("seen", "second")
    again = quorum.nodes[1].call("/kv/txn", body, session=(session, 1))
    assert without_member(again) == without_member(first)
    assert raw(again["responses"][0]["response_range"]["kvs"][0]["value"]) == b"first"


def test_an_answer_that_is_too_large_to_be_kept_is_told_from_one_that_never_was(quorum):
    session = opened(quorum.nodes[0])
    quorum.nodes[0].put("large", "x" * 5000)
    body = {"key": text("large"), "value": text("y"), "prev_kv": True}
    quorum.nodes[0].call("/kv/put", body, session=(session, 1))
    assert refused(quorum.nodes[1].call, "/kv/put", body, session=(session, 1)) == (
        412, "the command took effect when it was first sent; its answer was too large to be kept", 9)
    assert version(quorum.nodes[0], "large") == 2


def test_what_is_not_a_sessions_next_command_is_refused(quorum):
    session = opened(quorum.nodes[0])
    body = {"key": text("order"), "value": text("x")}
    quorum.nodes[0].call("/kv/put", body, session=(session, 7))  # sequences rise, they need not follow
    assert refused(quorum.nodes[1].call, "/kv/put", body, session=(session, 6)) == STALE
    assert refused(quorum.nodes[1].call, "/kv/deleterange", body, session=(session, 7)) == (
        412, "the session's command with this sequence was another call: this one took no effect now", 9)
    assert refused(quorum.nodes[1].call, "/kv/put", body, session=(str(int(session) ^ 1 << 40), 8)) == UNKNOWN
    assert version(quorum.nodes[2], "order") == 1


@pytest.mark.parametrize("path, headers", [
    ("/kv/put", {"outrider-session": "1"}), ("/kv/put", {"outrider-sequence": "1"}),
    ("/kv/put", {"outrider-session": "1", "outrider-sequence": "0"}), ("/kv/put", {"outrider-session": "x", "Outrider-Sequence": "1"}),
    *((path, {"outrider-session": "1", "outrider-sequence": "1"}) for path in (
        "/kv/range", "/watch", "/lease/keepalive", "/lease/timetolive", "/session/open", "/session/close", "/cluster/member/add"))])
def test_headers_that_cannot_be_kept_are_refused_before_anything_is_done(quorum, path, headers):
    connection = http.client.HTTPConnection("127.0.0.1", quorum.nodes[0].port, timeout=PATIENCE)
    connection.request("POST", "/v3" + path, json.dumps({"key": text("never"), "value": text("x")}), headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert (response.status, answer["code"]) == (400, 3)
    assert answer["error"] == answer["message"] and answer["error"].startswith("outrider-se")
    assert version(quorum.nodes[1], "never") == 0


# ---- leases and space -----------------------------------------------------------------------------------------------


def test_a_repeated_grant_does_not_bring_a_lease_back(quorum):
    session = opened(quorum.nodes[0])
    grant = ("/lease/grant", {"TTL": "60", "ID": "31"})
    quorum.nodes[0].call(*grant, session=(session, 1))
    quorum.nodes[0].call("/lease/revoke", {"ID": "31"})
    for node in quorum.nodes:
        assert node.call(*grant, session=(session, 1))["ID"] == "31"  # the answer of then
    for node in quorum.nodes:
        with node.stream("/lease/keepalive", {"ID": "31"}) as stream:
            assert "TTL" not in stream.next()


def test_a_repeated_revocation_leaves_a_lease_of_the_same_id_its_end(quorum):
    session = opened(quorum.nodes[0])
    quorum.nodes[0].call("/lease/grant", {"TTL": "60", "ID": "32"})
    quorum.nodes[0].call("/lease/revoke", {"ID": "32"}, session=(session, 1))
    quorum.nodes[0].call("/lease/grant", {"TTL": "2", "ID": "32"})
    quorum.nodes[0].put("ends", "x", lease="32")
    quorum.nodes[1].call("/lease/revoke", {"ID": "32"}, session=(session, 1))
    assert quorum.nodes[0].range("ends") == {"ends": "x"}
    wait_for("the lease to end", lambda: not quorum.nodes[0].range("ends"))


def test_what_filled_the_store_is_answered_as_done_when_it_is_repeated(quorum):
    session = opened(quorum.nodes[0])
    size = 256 * 1024
    bodies = [{"key": text(f"full/{i}"), "value": text("x" * size)} for i in range(8)]
    answers = []
    with pytest.raises(Refused) as caught:
        for sequence, body in enumerate(bodies, 1):
            answers.append(quorum.nodes[0].call("/kv/put", body, session=(session, sequence)))
    assert caught.value.answer["error"] == "etcdserver: mvcc: database space exceeded" and len(answers) >= 3
    last = len(answers)
    for node in quorum.nodes:
        assert without_member(node.call("/kv/put", bodies[last - 1], session=(session, last))) == without_member(answers[-1])
        assert refused(node.call, "/kv/put", bodies[0], session=(session, 1)) == STALE
        assert refused(node.call, "/kv/put", bodies[last], session=(session, last + 1))[0] == 429
    quorum.nodes[0].call("/kv/deleterange", {"key": text("full/"), "range_end": text("full0")})
    revision = quorum.nodes[0].status()["header"]["revision"]
    quorum.nodes[0].call("/kv/compaction", {"revision": revision})
    quorum.nodes[0].call("/kv/put", {"key": text("full/after")}, session=(session, last + 1))  # it had taken no sequence


def test_a_restored_cluster_knows_no_session_of_the_old_one(tmp_path):
    """Its log goes on where the backup's was: the same index could name a session there that is somebody else's."""
    old, new = Quorum(1), Quorum(1)
    try:
        before = opened(old.start().nodes[0])
        old.nodes[0].put("k", "v")
        file = tmp_path / "backup.snap"
        run("ctl", "--endpoints", f"127.0.0.1:{old.nodes[0].port}", "snapshot", "save", file)
        after = [opened(old.nodes[0]) for _ in range(20)]
        new.nodes[0].command()  # writes its file
        run("ctl", "snapshot", "restore", file, "--config", new.nodes[0].config)
        node = new.start().nodes[0]
        others = [opened(node) for _ in range(20)]
        for other in others:
            node.call("/kv/put", {"key": text("k")}, session=(other, 1))
        for session in (before, *after):
            assert session not in others
            assert refused(node.call, "/kv/put", {"key": text("k")}, session=(session, 1)) == UNKNOWN
    finally:
        old.stop()
        new.stop()


def test_a_session_is_opened_while_a_member_that_was_met_before_is_away():
    quorum = Quorum().start()
    try:
        opened(quorum.nodes[0])
        for node in quorum.nodes:
            node.kill()
        for node in quorum.nodes[:2]:
            node.start()
        for node in quorum.nodes[:2]:
            node.call("/kv/put", {"key": text("k")}, session=(opened(node), 1))
    finally:
        quorum.stop(check=False)


# ---- over the death of leaders --------------------------------------------------------------------------------------


def test_each_write_takes_effect_once_while_leaders_are_killed():
    quorum = Quorum(snapshot_entries=200).start()
    try:
        with writing(quorum.nodes, 4) as writers:
            for _ in range(4):
                done = sum(writer.done for writer in writers)
                wait_for("writes", lambda n=done: sum(writer.done for writer in writers) > n + 50)
                leader = quorum.leader()
                leader.kill()
                done = sum(writer.done for writer in writers)
                wait_for("writes without it", lambda n=done: sum(writer.done for writer in writers) > n + 20)
                leader.start()
        done = [writer.done for writer in writers]
        assert sum(writer.repeats for writer in writers) > 20, "nothing was repeated: it shows nothing"
        for node in quorum.nodes:
            assert versions(node, writers) == [*done, sum(done)]
        # Each was told the revision of its one effect.
        told = [revision for writer in writers for revision in writer.revisions]
        assert len(set(told)) == len(told)
    finally:
        quorum.stop()
