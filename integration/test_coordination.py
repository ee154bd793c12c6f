"""The API of the quorum, the same tests against Debian's etcd-server and against `outrider control`, three processes each.

Requests go to the members in turn, so that each test also says that what one member acknowledged all others know. Every
test has a prefix of its own and leaves the others' keys alone; revisions only rise, so that none depends on the order.
"""
import json
import uuid

import pytest

from coordination import ALL, KINDS, Stream, b64, compare, key, plain, put, under
from sidecar import wait_until

COMPACTED = "etcdserver: mvcc: required revision has been compacted"
FUTURE = "etcdserver: mvcc: required revision is a future revision"
NO_KEY = "etcdserver: key is not provided"
NO_LEASE = "etcdserver: requested lease not found"


@pytest.fixture(scope="module", params=list(KINDS))
def cluster(request):
    kind = KINDS[request.param]
    if kind.missing():
        pytest.skip(kind.missing())
    with kind() as running:
        yield running


@pytest.fixture
def at():
    """A prefix that no other test has."""
    return uuid.uuid4().hex[:12] + "/"


# ---- put and range -------------------------------------------------------------------------------------------------------------


def test_a_key_is_put_and_read_at_every_member(cluster, at):
    first = cluster.put(at, "1")
    second = cluster.put(at, "22")
    assert second == first + 1
    kv = {"key": b64(at), "value": b64("22"), "create_revision": str(first), "mod_revision": str(second), "version": "2"}
    for member in cluster.members:
        assert cluster.body("/v3/kv/range", key(at), member) == {"kvs": [kv], "count": "1"}
    for member in cluster.members:
        wait_until(lambda m=member: cluster.body("/v3/kv/range", key(at, serializable=True), m).get("kvs") == [kv], 30, "it")


def test_what_is_zero_or_empty_is_left_out(cluster, at):
    assert cluster.body("/v3/kv/range", key(at)) == {}
    assert cluster.body("/v3/kv/put", put(at)) == {}
    kv = cluster.body("/v3/kv/range", key(at))["kvs"][0]
    assert set(kv) == {"key", "create_revision", "mod_revision", "version"}
    assert cluster.body("/v3/kv/deleterange", key(at + "none")) == {}


def test_put_returns_what_was_there(cluster, at):
    assert cluster.body("/v3/kv/put", put(at, "1", prev_kv=True)) == {}
    assert plain(cluster.body("/v3/kv/put", put(at, "2", prev_kv=True))["prev_kv"]["value"]) == "1"
    cluster.ok("/v3/kv/put", put(at, ignore_value=True))
    assert cluster.get(at) == "2"


def test_keys_and_values_are_bytes(cluster, at):
    name = at.encode() + b"\x00\xff\xfe"
    cluster.put(name, b"\xff\xfb\x00")
    kv = cluster.body("/v3/kv/range", key(name))["kvs"][0]
    assert (kv["key"], kv["value"]) == (b64(name), b64(b"\xff\xfb\x00"))


def test_numbers_are_taken_as_numbers_and_as_strings(cluster, at):
    revision = cluster.put(at, "1")
    for form in (revision, str(revision)):
        assert cluster.body("/v3/kv/range", key(at, revision=form))["count"] == "1"
    lease = 9_007_199_254_740_993  # not a double
    cluster.ok("/v3/lease/grant", {"TTL": "60", "ID": str(lease)})
    cluster.put(at, "2", lease=str(lease))
    assert cluster.body("/v3/kv/range", key(at))["kvs"][0]["lease"] == str(lease)
    cluster.ok("/v3/lease/revoke", {"ID": str(lease)})


def test_ranges(cluster, at):
    for name in ("a", "b", "c", "d"):
        cluster.put(at + name, name)
    names = [at + name for name in "abcd"]
    assert cluster.keys(under(at)) == names
    assert cluster.keys(key(at + "b", at + "d")) == names[1:3]
    assert cluster.keys(key(at + "d", at + "b")) == []
    assert cluster.keys(key(at + "b")) == names[1:2]
    everything = cluster.keys(key(ALL, ALL))
    assert set(names) <= set(everything) and everything == sorted(everything)
    assert cluster.keys(key(at + "c", ALL))[:2] == names[2:]


def test_limit_says_that_there_is_more(cluster, at):
    for name in "abc":
        cluster.put(at + name, "x")
    answer = cluster.body("/v3/kv/range", under(at, limit=2))
    assert (len(answer["kvs"]), answer["more"], answer["count"]) == (2, True, "3")
    answer = cluster.body("/v3/kv/range", under(at, limit=3))
    assert len(answer["kvs"]) == 3 and "more" not in answer


def test_keys_only_and_count_only(cluster, at):
    for name in "ab":
        cluster.put(at + name, "x")
    assert all("value" not in kv for kv in cluster.body("/v3/kv/range", under(at, keys_only=True))["kvs"])
    assert cluster.body("/v3/kv/range", under(at, count_only=True)) == {"count": "2"}


@pytest.mark.parametrize("target, expected", [("KEY", "abc"), ("VERSION", "acb"), ("CREATE", "bca"), ("MOD", "abc"), ("VALUE", "bac")])
def test_sorting(cluster, at, target, expected):
    # Versions 2, 3, 2: the order of those that are equal is that of their keys.
    for name, value in (("b", "old"), ("c", "9"), ("a", "2"), ("a", "5"), ("b", "2"), ("b", "1"), ("c", "9")):
        cluster.put(at + name, value)
    ascending = cluster.keys(under(at, sort_order="ASCEND", sort_target=target))
    assert ascending == [at + name for name in expected], ascending
    descending = cluster.keys(under(at, sort_order="DESCEND", sort_target=target, limit=1))
    assert descending == [at + expected[-1]]


def test_bounds_on_revisions_narrow_a_range(cluster, at):
    revisions = [cluster.put(at + name, "x") for name in "abc"]
    cluster.put(at + "a", "y")
    assert cluster.keys(under(at, min_mod_revision=revisions[2])) == [at + "a", at + "c"]
    assert cluster.keys(under(at, max_mod_revision=str(revisions[1]))) == [at + "b"]
    assert cluster.keys(under(at, min_create_revision=revisions[1], max_create_revision=revisions[1])) == [at + "b"]


def test_the_past_can_be_read(cluster, at):
    first = cluster.put(at + "a", "1")
    cluster.put(at + "a", "2")
    cluster.put(at + "b", "1")
    old = cluster.body("/v3/kv/range", under(at, revision=first))
    assert [plain(kv["value"]) for kv in old["kvs"]] == ["1"] and old["count"] == "1"
    assert cluster.keys(under(at, revision=0)) == [at + "a", at + "b"]
    cluster.refused("/v3/kv/range", key(at, revision=cluster.revision() + 1000), 400, 11, FUTURE)


# ---- errors --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path, body, status, code, text", [
    ("/v3/kv/put", put("", "x"), 400, 3, NO_KEY),
    ("/v3/kv/put", "", 400, 3, NO_KEY),
    ("/v3/kv/range", {}, 400, 3, NO_KEY),
    ("/v3/kv/deleterange", {}, 400, 3, NO_KEY),
    ("/v3/kv/put", put("k", "x", lease=4711), 404, 5, NO_LEASE),
    ("/v3/kv/put", put("k", "x", ignore_value=True), 400, 3, "etcdserver: value is provided"),
    ("/v3/kv/put", put("never-there", ignore_value=True), 400, 3, "etcdserver: key not found"),
    ("/v3/kv/put", put("k", "x", ignore_lease=True, lease=5), 400, 3, "etcdserver: lease is provided"),
    ("/v3/kv/put", put("k", "v" * 1_600_000), 400, 3, "etcdserver: request is too large"),
    ("/v3/kv/txn", {"success": [{"request_put": put("k", "1")}, {"request_put": put("k", "2")}]}, 400, 3,
     "etcdserver: duplicate key given in txn request"),
    ("/v3/kv/txn", {"success": [{"request_range": key("k")}] * 129}, 400, 3, "etcdserver: too many operations in txn request"),
    ("/v3/kv/compaction", {"revision": "9223372036854775807"}, 400, 11, FUTURE),
    ("/v3/lease/revoke", {"ID": 4711}, 404, 5, NO_LEASE),
    ("/v3/lease/grant", {"TTL": 9_000_000_001}, 400, 11, "etcdserver: too large lease TTL"),
    ("/v3/cluster/member/remove", {"ID": 1}, 404, 5, "etcdserver: member not found"),
])
def test_refusals_have_etcds_status_code_and_words(cluster, path, body, status, code, text):
    cluster.refused(path, body, status, code, text)


@pytest.mark.parametrize("path, body, method, statuses", [
    ("/v3/kv/bogus", {}, "POST", (404,)), ("/v3/kv/range", {}, "GET", (405,)), ("/v3/kv/put", '{"key":', "POST", (400,)),
    ("/v3/kv/put", {"key": "###"}, "POST", (400,)), ("/v3/kv/put", "[]", "POST", (400,)),
    ("/v3/kv/range", {"key": "YQ==", "limit": 1.5}, "POST", (400,))])
def test_what_is_no_call_is_refused(cluster, path, body, method, statuses):
    status, _ = cluster.ask(path, body, method=method)
    assert status in statuses


# ---- transactions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target, field, actual, value", [
    ("VERSION", "version", 2, None), ("CREATE", "create_revision", "first", None), ("MOD", "mod_revision", "second", None),
    ("LEASE", "lease", 0, None), ("VALUE", "value", None, "m")])
def test_comparisons(cluster, at, target, field, actual, value):
    first = cluster.put(at, "l")
    second = cluster.put(at, "m")
    actual = {"first": first, "second": second}.get(actual, actual)
    lower, same, higher = (b64("l"), b64("m"), b64("n")) if value else (actual - 1, actual, actual + 1)
    truth = {"EQUAL": (False, True, False), "NOT_EQUAL": (True, False, True), "GREATER": (True, False, False),
             "LESS": (False, False, True)}
    for result, expected in truth.items():
        for operand, holds in zip((lower, same, higher), expected):
            # With a read inside: etcd answers a transaction of no operations from what the member happens to know.
            answer = cluster.body("/v3/kv/txn", {"compare": [compare(at, target, result, **{field: operand})],
                                                 "failure": [{"request_range": key(at)}]})
            assert answer.get("succeeded", False) is holds, (target, result, operand)


def test_a_key_that_is_not_there_compares_as_zeros(cluster, at):
    create = {"compare": [compare(at, "VERSION", "EQUAL", version=0)], "success": [{"request_put": put(at, "me")}],
              "failure": [{"request_range": key(at)}]}
    assert cluster.body("/v3/kv/txn", create)["succeeded"] is True
    lost = cluster.body("/v3/kv/txn", create)
    assert "succeeded" not in lost
    assert plain(lost["responses"][0]["response_range"]["kvs"][0]["value"]) == "me"
    absent = {"compare": [compare(at + "none", "VALUE", "NOT_EQUAL", value=b64("x"))], "failure": [{"request_range": key(at)}]}
    assert "succeeded" not in cluster.body("/v3/kv/txn", absent)


def test_a_comparison_of_a_range_holds_for_every_key(cluster, at):
    for name in "ab":
        cluster.put(at + name, "x")
    cluster.put(at + "b", "y")
    end = at + "c"
    for result, version, holds in (("GREATER", 0, True), ("EQUAL", 1, False), ("LESS", 3, True)):
        answer = cluster.body("/v3/kv/txn", {"compare": [compare(at + "a", "VERSION", result, end=end, version=version)],
                                             "failure": [{"request_range": key(at)}]})
        assert answer.get("succeeded", False) is holds


def test_a_transaction_is_one_revision_and_its_ranges_see_what_it_wrote(cluster, at):
    before = cluster.put(at + "old", "x")
    answer = cluster.ok("/v3/kv/txn", {"success": [
        {"request_put": put(at + "a", "1")}, {"request_range": under(at)},
        {"request_delete_range": key(at + "old", prev_kv=True)},
        {"request_txn": {"compare": [compare(at + "a", "VERSION", "EQUAL", version=0)],
                         "success": [{"request_put": put(at + "b", "absent")}],
                         "failure": [{"request_put": put(at + "b", "present")}]}},
        {"request_range": under(at, keys_only=True)}]})
    revision = int(answer["header"]["revision"])
    assert revision == before + 1
    put_, seen, deleted, nested, after = answer["responses"]
    assert put_["response_put"]["header"]["revision"] == str(revision)
    assert seen["response_range"]["count"] == "2"
    assert deleted["response_delete_range"]["deleted"] == "1"
    assert plain(deleted["response_delete_range"]["prev_kvs"][0]["value"]) == "x"
    assert nested["response_txn"]["succeeded"] is True  # comparisons see the state before
    assert [plain(kv["key"]) for kv in after["response_range"]["kvs"]] == [at + "a", at + "b"]
    kvs = cluster.body("/v3/kv/range", under(at))["kvs"]
    assert [(kv["mod_revision"], plain(kv["value"])) for kv in kvs] == [(str(revision), "1"), (str(revision), "absent")]


def test_a_transaction_that_fails_changes_nothing(cluster, at):
    cluster.put(at, "1")
    revision = cluster.revision()
    status, _ = cluster.ask("/v3/kv/txn", {"success": [{"request_put": put(at, "2")},
                                                       {"request_put": put(at + "b", "x", lease=4711)}]})
    assert status == 404
    assert (cluster.get(at), cluster.revision()) == ("1", revision)


def test_a_transaction_that_only_reads_makes_no_revision(cluster, at):
    revision = cluster.put(at, "1")
    answer = cluster.ok("/v3/kv/txn", {"success": [{"request_range": key(at)}]})
    assert answer["header"]["revision"] == str(revision)


# ---- deletions -----------------------------------------------------------------------------------------------------------------


def test_deletions(cluster, at):
    for name in "abc":
        cluster.put(at + name, name)
    answer = cluster.body("/v3/kv/deleterange", key(at + "a", at + "c", prev_kv=True))
    assert answer["deleted"] == "2" and [plain(kv["value"]) for kv in answer["prev_kvs"]] == ["a", "b"]
    revision = cluster.revision()
    assert cluster.body("/v3/kv/deleterange", key(at + "a", at + "c")) == {}
    assert cluster.revision() == revision  # nothing was deleted
    again = cluster.put(at + "a", "x")
    kv = cluster.body("/v3/kv/range", key(at + "a"))["kvs"][0]
    assert (kv["create_revision"], kv["version"]) == (str(again), "1")


# ---- leases --------------------------------------------------------------------------------------------------------------------


def test_leases(cluster, at):
    granted = cluster.body("/v3/lease/grant", {"TTL": 60})
    lease = granted["ID"]
    assert granted == {"ID": lease, "TTL": "60"} and int(lease) > 0
    cluster.refused("/v3/lease/grant", {"TTL": 60, "ID": lease}, 412, 9, "etcdserver: lease already exists")
    for name in "ab":
        cluster.put(at + name, "x", lease=lease)
    left = cluster.body("/v3/lease/timetolive", {"ID": lease, "keys": True})
    assert (left["ID"], left["grantedTTL"]) == (lease, "60") and 0 < int(left["TTL"]) <= 60
    assert sorted(plain(name) for name in left["keys"]) == [at + "a", at + "b"]
    assert "keys" not in cluster.body("/v3/lease/timetolive", {"ID": lease})
    # What a member knows by itself, it may know later.
    wait_until(lambda: {"ID": lease} in cluster.body("/v3/lease/leases", {}).get("leases", []), 30, "every member to know it")
    cluster.put(at + "b", "free")  # without the lease it is detached
    cluster.put(at + "a", "kept", ignore_lease=True)
    assert cluster.body("/v3/kv/range", key(at + "a"))["kvs"][0]["lease"] == lease
    assert cluster.body("/v3/lease/revoke", {"ID": lease}) == {}
    assert cluster.keys(under(at)) == [at + "b"]
    assert cluster.body("/v3/lease/timetolive", {"ID": lease}) == {"ID": lease, "TTL": "-1"}
    cluster.refused("/v3/lease/revoke", {"ID": lease}, 404, 5, NO_LEASE)


def test_keepalive_answers_each_message(cluster):
    lease = cluster.body("/v3/lease/grant", {"TTL": 60})["ID"]
    for member in cluster.members:
        with Stream(member.port, "/v3/lease/keepalive", json.dumps({"ID": lease}) + json.dumps({"ID": "4711"})) as stream:
            first, second = stream.line(), stream.line()
            assert (first["ID"], first["TTL"]) == (lease, "60")
            assert second["ID"] == "4711" and "TTL" not in second
            assert stream.line() is None  # the request has ended
    cluster.ok("/v3/lease/revoke", {"ID": lease})


def test_an_expired_lease_takes_its_keys_and_a_kept_one_stays(cluster, at):
    brief, kept = (cluster.body("/v3/lease/grant", {"TTL": ttl}) for ttl in (1, 2))
    cluster.put(at + "kept", "x", lease=kept["ID"])
    revision = cluster.put(at + "brief", "x", lease=brief["ID"])

    def gone():
        with Stream(cluster.next_member().port, "/v3/lease/keepalive", {"ID": kept["ID"]}) as stream:
            assert int(stream.line()["TTL"]) >= 2
        return cluster.get(at + "brief") is None

    with cluster.watch(key(at + "brief", start_revision=revision)) as watch:
        assert watch.line()["created"]
        wait_until(gone, 30, "the expiry")
        assert [event[:2] for event in watch.events(2)][-1] == ("DELETE", at + "brief")
    assert cluster.get(at + "kept") == "x"
    assert cluster.body("/v3/lease/timetolive", {"ID": brief["ID"]})["TTL"] == "-1"
    cluster.ok("/v3/lease/revoke", {"ID": kept["ID"]})


# ---- watches -------------------------------------------------------------------------------------------------------------------


def test_a_watch_tells_the_past_and_goes_on_at_every_member(cluster, at):
    first = cluster.put(at + "a", "0")
    written = [("PUT", at + "a", "0", first)]
    for number, member in enumerate(cluster.members, 1):
        with cluster.watch(under(at, start_revision=first), member=member) as watch:
            created = watch.line()
            assert created["created"] is True and "watch_id" not in created
            assert watch.events(len(written)) == written
            written.append(("PUT", at + "b", str(number), cluster.put(at + "b", str(number))))
            assert watch.events(1) == written[-1:]


def test_a_watch_from_now_on_of_one_key(cluster, at):
    cluster.put(at, "before")
    member = cluster.next_member()
    cluster.ok("/v3/kv/range", key(at), member)  # so that it has applied this: "now" is the member's
    with cluster.watch(key(at), member=member) as watch:
        assert watch.line()["created"]
        cluster.put(at + "other", "x")
        revision = cluster.put(at, "after")
        assert watch.events(1) == [("PUT", at, "after", revision)]
        assert watch.silent()


def test_changes_of_one_revision_come_together_and_in_order(cluster, at):
    with cluster.watch(under(at, start_revision=cluster.revision() + 1)) as watch:
        watch.line()
        operations = [{"request_put": put(at + name, "x")} for name in "cab"]
        revision = int(cluster.ok("/v3/kv/txn", {"success": operations})["header"]["revision"])
        message = watch.line()
        assert [plain(event["kv"]["key"]) for event in message["events"]] == [at + "c", at + "a", at + "b"]
        assert {event["kv"]["mod_revision"] for event in message["events"]} == {str(revision)}


def test_a_deletion_has_a_key_and_a_revision_and_what_was_there(cluster, at):
    first = cluster.put(at, "1")
    cluster.ok("/v3/kv/deleterange", key(at))
    with cluster.watch(key(at, start_revision=first, prev_kv=True)) as watch:
        watch.line()
        events = watch.line()["events"]
        while len(events) < 2:
            events += watch.line()["events"]
        created, deleted = events
        assert "prev_kv" not in created and "type" not in created
        assert deleted["type"] == "DELETE"
        assert deleted["kv"] == {"key": b64(at), "mod_revision": str(first + 1)}
        assert plain(deleted["prev_kv"]["value"]) == "1"


@pytest.mark.parametrize("kept, dropped", [("DELETE", "NOPUT"), ("PUT", "NODELETE")])
def test_filters(cluster, at, kept, dropped):
    first = cluster.put(at, "1")
    cluster.ok("/v3/kv/deleterange", key(at))
    cluster.put(at, "2")
    cluster.ok("/v3/kv/deleterange", key(at))
    with cluster.watch(key(at, start_revision=first, filters=[dropped])) as watch:
        watch.line()
        assert [event[0] for event in watch.events(2)] == [kept, kept]


def test_watches_of_one_stream_have_ids_and_can_be_cancelled(cluster, at):
    second = {"create_request": key(at + "b", watch_id=7)}
    with cluster.watch(key(at + "a"), second, {"cancel_request": {"watch_id": 7}}) as watch:
        lines = [watch.line() for _ in range(3)]
        assert [line.get("watch_id", "0") for line in lines] == ["0", "7", "7"]
        assert lines[0]["created"] and lines[1]["created"] and lines[2]["canceled"]
        cluster.put(at + "b", "x")
        cluster.put(at + "a", "y")
        assert watch.events(1)[0][1] == at + "a"  # nothing of the one that was cancelled


def test_a_watch_of_nothing_is_refused(cluster, at):
    with cluster.watch(key(at + "b", at + "a")) as watch:
        line = watch.line()
        assert line["created"] and line["canceled"] and line["cancel_reason"] == "mvcc: watcher range is empty", line


def test_a_watch_of_the_future_waits(cluster, at):
    ahead = cluster.revision() + 3
    with cluster.watch(key(at, start_revision=ahead)) as watch:
        assert watch.line()["created"]
        last = 0
        while last < ahead:
            last = cluster.put(at, "x")
        assert watch.events(1)[0][3] >= ahead


def test_progress_can_be_asked_for(cluster, at):
    revision = cluster.put(at, "x")
    cluster.ok("/v3/kv/range", key(at), cluster.members[0])  # so that it has applied this: progress is the member's
    with Stream(cluster.members[0].port, "/v3/watch", {"progress_request": {}}) as watch:
        assert int(watch.line()["header"]["revision"]) >= revision - 1


def test_compaction(cluster, at):
    """Last: it takes the past of every other test away."""
    first = cluster.put(at, "1")
    second = cluster.put(at, "2")
    cluster.ok("/v3/kv/compaction", {"revision": str(second)})
    cluster.refused("/v3/kv/compaction", {"revision": second}, 400, 11, COMPACTED)
    for member in cluster.members:
        status, answer = cluster.ask("/v3/kv/range", key(at, revision=first), member)
        assert (status, answer["code"], answer["error"]) == (400, 11, COMPACTED)
        assert plain(cluster.body("/v3/kv/range", key(at, revision=second), member)["kvs"][0]["value"]) == "2"
    with cluster.watch(key(at, start_revision=first)) as watch:
        assert watch.line()["created"]
        line = watch.line()
        assert line["canceled"] is True and int(line["compact_revision"]) >= second
    with cluster.watch(key(at, start_revision=second)) as watch:
        watch.line()
        assert watch.events(1) == [("PUT", at, "2", second)]


# ---- members and their failures ------------------------------------------------------------------------------------------------


def test_status_and_members(cluster):
    leaders = set()
    for member in cluster.members:
        status = cluster.ok("/v3/maintenance/status", {}, member)
        assert status["version"] and int(status["raftIndex"]) > 0 and int(status["raftTerm"]) > 0
        leaders.add(status["leader"])
    members = cluster.ok("/v3/cluster/member/list", {})["members"]
    assert sorted(member["name"] for member in members) == ["m0", "m1", "m2"]
    assert len(leaders) == 1 and leaders <= {member["ID"] for member in members}
    assert all(member["peerURLs"] and member["clientURLs"] for member in members)


def test_nothing_is_lost_when_a_member_is_killed_and_comes_back(cluster, at):
    """The leader; the two others go on, and it learns what it missed."""
    status = cluster.ok("/v3/maintenance/status", {})
    names = {member["ID"]: member["name"] for member in cluster.ok("/v3/cluster/member/list", {})["members"]}
    leader = int(names[status["leader"]][1:])
    cluster.put(at + "0", "x")
    cluster.kill(leader)
    others = [member for member in cluster.members if member is not cluster.members[leader]]

    def written():
        try:
            return cluster.ask("/v3/kv/put", put(at + "1", "x"), others[0], patience=2)[0] == 200
        except OSError:
            return False

    wait_until(written, 30, "a new leader")
    cluster.restart(leader)
    for member in cluster.members:
        keys = [plain(kv["key"]) for kv in cluster.body("/v3/kv/range", under(at), member)["kvs"]]
        assert keys == [at + "0", at + "1"]


# ---- a client that others wrote --------------------------------------------------------------------------------------------------


def test_the_client_of_python3_etcd3gw_works(cluster, at):
    etcd3gw = pytest.importorskip("etcd3gw.client", reason="python3-etcd3gw is not installed (scripts/setup test)")
    clients = [etcd3gw.Etcd3Client(host="127.0.0.1", port=port, api_path="/v3/") for port in cluster.ports]
    one, other = clients[:2]
    assert one.status()["version"] and len(one.members()) == 3
    assert one.put(at + "k", "1") and other.get(at + "k") == [b"1"]
    assert one.replace(at + "k", "1", "2") and not other.replace(at + "k", "1", "3")
    assert one.create(at + "new", "x") and not other.create(at + "new", "y")
    assert [value for value, _ in other.get_prefix(at, sort_order="descend", sort_target="key")] == [b"x", b"2"]

    events, stop = other.watch_prefix(at, start_revision=cluster.revision() + 1)
    one.put(at + "k", "3")
    one.delete(at + "new")
    seen = [next(events), next(events)]
    stop()
    assert [(event.get("type", "PUT"), event["kv"]["key"]) for event in seen] == [
        ("PUT", (at + "k").encode()), ("DELETE", (at + "new").encode())]

    lease = one.lease(ttl=60)
    assert lease.refresh() == 60 and 0 < lease.ttl() <= 60
    one.put(at + "leased", "x", lease=lease)
    assert lease.revoke() and other.get(at + "leased") == []
    with one.lock(id=at + "lock", ttl=60) as lock:
        assert lock.is_acquired() and not other.lock(id=at + "lock", ttl=60).acquire()
    assert one.delete_prefix(at)
