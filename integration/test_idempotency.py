"""The idempotent receiver over real processes: each row of its contract, with each kind of store.

What must be in flight is held at the scripted upstream until the test lets it go. What happens to stores themselves (kill -9,
full disks, a Redis that hangs) is in test_idempotency_stores.py, messages of unusual shapes in test_idempotency_wire.py.
"""
import json

import pytest

from keyed import (KINDS, KeyedSubject, StoreKind, assert_replay, digest_of, forget, fresh_key, key_path, look, post, post_bytes,
                   posted, problem_of, state_of, store_page, waiting)
from resilience import AMPLE, Gate, Turns, calm, closes, echo, endpoints, flags_of, heads, line_of, ports, resets, silent, status
from sidecar import free_port, wait_until
from upstream import ScriptedUpstream
from wire import RawClient


@pytest.fixture(scope="module", params=KINDS)
def process(request):
    with StoreKind(request.param) as store:
        subject = KeyedSubject(store, inbound={"trust_forwarded": True}).start()
        yield subject
        subject.sidecar.stop()


@pytest.fixture
def subject(process):
    yield process
    assert process.sidecar.alive(), process.sidecar.log()
    calm(process.sidecar)
    wait_until(lambda: waiting(process.sidecar) == 0, 10, "the end of all that was parked")


def numbered(**options):
    """Answers that differ: a second execution is seen in the body."""
    count = iter(range(1, 1 << 30))

    def answer(exchange):
        exchange.read_body()
        exchange.reply(body=b"execution %d" % next(count), **options)

    return answer


# ---- the key's field -------------------------------------------------------------------------------------------------------


def test_a_required_key_is_missed(subject):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port, idempotency={"require": True})
        problem = problem_of(post(sidecar, target="/missing"), 400, "missing")
        assert "key" not in problem
        assert heads(app) == 0
        line = line_of(sidecar, "/missing")
        assert (line["status"], line["idempotency"], line["attempts"]) == (400, "missing", 0)
        subject.wait_for_outcomes(missing=1)
        assert post(sidecar, fresh_key()).status == 200
        assert sidecar.get("/read").status == 200, "GET is not of the methods that need a key"


MALFORMED = {
    "empty": "", "empty string": '""', "two words": "two words", "a list": "a,b", "half quoted": '"half', "quoted inside": 'a"b',
    "backslash": "a\\b", "not ASCII": "schl\u00fcssel", "after the string": '"a" b', "too long": "k" * 256,
    "too long quoted": '"' + "k" * 256 + '"', "parameters of a bare one": "a;v=1", "number parameter without a name": '"a";=1',
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("syntax", ["lenient", "strict"])
def test_malformed_keys(subject, syntax, value):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port, idempotency={"syntax": syntax})
        with RawClient(sidecar.port) as client:
            head = "POST /m HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nConnection: close\r\nIdempotency-Key: %s\r\n\r\nx" % value
            answer = client.request(head.encode())
        problem_of(answer, 400, "malformed")
        assert heads(app) == 0
        subject.wait_for_outcomes(malformed=1)


@pytest.mark.parametrize("syntax, value, good", [
    ("lenient", "{}", True), ("lenient", '"{}"', True), ("lenient", '"{}";v=1', True), ("lenient", '"{} with a space"', True),
    ("strict", "{}", False), ("strict", '"{}"', True), ("strict", '"{}";v=1', True), ("strict", "'{}'", False), ("strict", ":{}:", False)])
def test_syntaxes(subject, syntax, value, good):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port, idempotency={"syntax": syntax})
        answer = post(sidecar, value.format(fresh_key()))
        assert answer.status == (200 if good else 400), answer.body
        assert heads(app) == (1 if good else 0)


def test_two_lines_of_keys_are_refused_even_when_equal(subject):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        problem_of(post(sidecar, [key, key]), 400, "malformed")
        assert heads(app) == 0


def test_a_key_of_255_characters(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key().ljust(255, "k")
        first = post(sidecar, key)
        assert first.status == 200
        assert_replay(post(sidecar, key), first)


def test_another_header(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port, idempotency={"header": "X-Request-Key"})
        key = fresh_key()
        first = post(sidecar, fields=[("x-request-key", key)])
        assert_replay(post(sidecar, fields=[("X-Request-Key", key)]), first)
        assert post(sidecar, key).body == b"execution 2", "the usual header is an ordinary one here"


# ---- what makes two requests the same --------------------------------------------------------------------------------------


def test_a_first_request_and_its_replay(subject):
    fields = [(b"Content-Type", b"application/json"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"Location", b"/payments/7"),
              (b"X-Odd", b"\xe4 \t x"), (b"ETag", b'"v1"')]
    with endpoints(numbered(status=201, fields=fields)) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        first = post(sidecar, key, "/first")
        assert (first.status, first.body) == (201, b"execution 1")
        assert first.all("set-cookie") == [b"a=1", b"b=2"]
        for _ in range(3):  # connections are spread over the workers
            assert_replay(post(sidecar, key, "/first"), first)
        assert heads(app) == 1
        subject.wait_for_outcomes(first=1, replayed=3)
        (sent,) = app.requests
        assert sent.one("idempotency-key") == key.encode(), "the application sees the key as well"


def test_the_access_log_tells_a_replay(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port)
        key, target = fresh_key(), "/" + fresh_key("line")
        post(sidecar, key, target)
        post(sidecar, key, target)
        lines = wait_until(lambda: len(found := [one for one in sidecar.access_lines() if one["path"] == target]) == 2 and found, 20)
        lines.sort(key=lambda line: line["idempotency"])
        assert [line["idempotency"] for line in lines] == ["first", "replayed"]
        assert [line["flags"] or "" for line in lines] == ["", "IR"]
        assert [line["attempts"] for line in lines] == [1, 0]


def test_without_a_key_nothing_is_changed(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port)
        assert [post(sidecar).body for _ in range(3)] == [b"execution 1", b"execution 2", b"execution 3"]
        key = fresh_key()
        for number in (4, 5):  # a method that is none of the route's
            answer = sidecar.get("/read", fields=[("Idempotency-Key", key)])
            assert answer.body == b"execution %d" % number
            assert not answer.all("idempotent-replayed")
        for number in (6, 7):
            assert post(sidecar, key, method="PUT").body == b"execution %d" % number
        assert subject.outcomes() == {}
        assert state_of(sidecar, key) == "absent"


def test_quotes_are_not_part_of_the_key(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        first = post(sidecar, key)
        assert_replay(post(sidecar, f'"{key}"'), first)
        assert_replay(post(sidecar, f'"{key}";version=2'), first)
        assert heads(app) == 1


def test_who_the_caller_is_is_part_of_the_key(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        callers = [[], [("Authorization", "Bearer a")], [("Authorization", "Bearer b")], [("Authorization", "")]]
        firsts = [post(sidecar, key, fields=fields) for fields in callers]
        assert [first.body for first in firsts] == [b"execution %d" % n for n in (1, 2, 3, 4)]
        for fields, first in zip(callers, firsts):
            assert_replay(post(sidecar, key, fields=fields), first)
        assert look(sidecar, key, scope=("Bearer%20a",))["key"] == digest_of(key, scope=[("header:authorization", "Bearer a")])


def test_scopes_of_header_query_and_source(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port, idempotency={"scope": ["header:X-Tenant", "query:shop", "source"]})
        key = fresh_key()
        first = post(sidecar, key, "/pay?shop=1", fields=[("X-Tenant", "t")])
        assert_replay(post(sidecar, key, "/pay?shop=1", fields=[("X-Tenant", "t"), ("Authorization", "anybody")]), first)
        assert post(sidecar, key, "/pay?shop=2", fields=[("X-Tenant", "t")]).body == b"execution 2"
        assert post(sidecar, key, "/pay?shop=1", fields=[("X-Tenant", "u")]).body == b"execution 3"


def test_a_key_belongs_to_its_route(subject):
    with endpoints(numbered()) as (app,):
        key = fresh_key()
        answers = [post(subject.serve(app.port, route_name=name), key) for name in ("all", "other")]
        assert [answer.body for answer in answers] == [b"execution 1", b"execution 2"]
        assert_replay(post(subject.serve(app.port), key), answers[0])


OTHER = {
    "method": {"method": "PATCH"}, "path": {"target": "/pay2"}, "query": {"target": "/pay?n=2"}, "body": {"body": b"amount=2"},
    "a longer body": {"body": b"amount=1 "}, "no body": {"body": b""}, "content type": {"fields": [("Content-Type", "text/plain")]},
}


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_a_key_with_another_request(subject, change):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        first = post(sidecar, key)
        problem = problem_of(post(sidecar, key, **change), 422, "reused")
        assert problem["key"] == digest_of(key)
        assert_replay(post(sidecar, key), first)
        assert heads(app) == 1
        subject.wait_for_outcomes(first=1, mismatch=1, replayed=1)


def test_another_request_is_told_so_while_the_first_is_in_flight(subject):
    gate = Gate(numbered())
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port)
        key, target = fresh_key(), "/" + fresh_key("line")
        with posted(sidecar, key) as client:
            wait_until(lambda: gate.waiting == 1)
            problem_of(post(sidecar, key, target), 422, "reused")
            assert flags_of(sidecar, target) == {"IM"}
            gate.open()
            assert client.response().status == 200


# ---- in flight -------------------------------------------------------------------------------------------------------------


def test_duplicates_wait_for_the_first(subject):
    gate = Gate(numbered(status=202))
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        clients = [RawClient(sidecar.port) for _ in range(9)]  # over both workers
        try:
            clients[0].send(post_bytes(key))
            wait_until(lambda: gate.waiting == 1)
            for client in clients[1:]:
                client.send(post_bytes(key))
            wait_until(lambda: waiting(sidecar) == 8, 10, "eight who are parked")
            assert state_of(sidecar, key) == "in_flight"
            gate.open()
            first = clients[0].response()
            assert first.status == 202
            for client in clients[1:]:
                assert_replay(client.response(), first)
        finally:
            for client in clients:
                client.close()
        assert heads(app) == 1
        subject.wait_for_outcomes(first=1, waited=8)


def test_who_waited_too_long(subject):
    gate = Gate(numbered())
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port, idempotency={"wait_timeout": "50ms"})
        key, target = fresh_key(), "/" + fresh_key("line")
        with posted(sidecar, key, target) as client:
            wait_until(lambda: gate.waiting == 1)
            answer = post(sidecar, key, target)
            problem_of(answer, 409, "in-flight")
            assert int(answer.one("retry-after")) >= 1
            line = line_of(sidecar, target)  # the first one's is not written yet
            assert (line["idempotency"], line["flags"]) == ("conflict", "IC")
            gate.open()
            first = client.response()
        assert_replay(post(sidecar, key, target), first)
        subject.wait_for_outcomes(first=1, conflict=1, replayed=1)


def test_conflict(subject):
    gate = Gate(numbered())
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port, idempotency={"in_flight": "conflict"})
        key = fresh_key()
        with posted(sidecar, key) as client:
            wait_until(lambda: gate.waiting == 1)
            answer = post(sidecar, key)
            assert problem_of(answer, 409, "in-flight")["key"] == digest_of(key)
            assert int(answer.one("retry-after")) >= 1
            gate.open()
            first = client.response()
        assert_replay(post(sidecar, key), first)
        assert heads(app) == 1


def test_a_duplicate_that_waits_may_leave(subject):
    gate = Gate(numbered())
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        with posted(sidecar, key) as client:
            wait_until(lambda: gate.waiting == 1)
            impatient = RawClient(sidecar.port)
            impatient.send(post_bytes(key))
            wait_until(lambda: waiting(sidecar) == 1)
            impatient.reset()
            wait_until(lambda: waiting(sidecar) == 0)
            gate.open()
            first = client.response()
        assert_replay(post(sidecar, key), first)


# ---- it never left ---------------------------------------------------------------------------------------------------------


def test_a_refused_connection_releases_the_key(subject):
    port = free_port()
    sidecar = subject.serve(port)
    key = fresh_key()
    answer = post(sidecar, key)
    assert answer.status == 502 and b"refused" in answer.one("proxy-status")
    assert state_of(sidecar, key) == "absent"
    with ScriptedUpstream(numbered(), port):
        first = post(sidecar, key)
        assert (first.status, first.body) == (200, b"execution 1")
        assert_replay(post(sidecar, key), first)


def test_the_duplicate_of_one_that_never_left_runs(subject):
    """The first one waits for an endpoint until its caller's deadline, the duplicate for the first one, then for the endpoint."""
    port = free_port()
    health = {"path": "/healthz", "interval": "100ms", "timeout": "100ms", "unhealthy_after": 1, "healthy_after": 1}
    sidecar = subject.serve(port, cluster_keys={"health": health, "limits": {"hold": "20s"}}, timeout="20s",
                            idempotency={"wait_timeout": "20s"})
    wait_until(lambda: sidecar.json("/clusters")["clusters"][0]["endpoints"][0]["state"] == "unhealthy")
    key = fresh_key()
    with posted(sidecar, key, fields=[("Outrider-Deadline-Ms", "2000")]) as client, RawClient(sidecar.port) as second:
        wait_until(lambda: state_of(sidecar, key) == "in_flight")
        second.send(post_bytes(key))
        wait_until(lambda: waiting(sidecar) == 1)
        assert client.response().status == 504
        wait_until(lambda: waiting(sidecar) == 0)
        assert state_of(sidecar, key) == "in_flight", "the duplicate owns it now"
        with ScriptedUpstream(echo, port) as app:
            answer = second.response()
            assert (answer.status, answer.body, answer.all("idempotent-replayed")) == (200, b"amount=1", [])
            assert [request.method for request in app.requests if request.method == b"POST"] == [b"POST"]
            assert_replay(post(sidecar, key), answer)


def test_the_rate_limit_comes_before_the_key(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port, rate_limit={"rate": 0.001, "burst": 1}, route_name=fresh_key("r"))
        assert post(sidecar, fresh_key()).status == 200
        key = fresh_key()
        assert post(sidecar, key).status == 429
        name = sidecar.json("/routes")["routes"][0]["name"]
        assert state_of(sidecar, key, route=name) == "absent"
        assert subject.outcomes(name) == {"first": 1}


def test_who_is_shed_has_left_no_key(subject):
    gate = Gate(numbered())
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port, cluster_keys={"limits": {"max_requests": 1}})
        key = fresh_key()
        with posted(sidecar, fresh_key()) as client:
            wait_until(lambda: gate.waiting == 1)
            answer = post(sidecar, key)
            assert answer.status == 503 and b"connection_limit_reached" in answer.one("proxy-status")
            assert state_of(sidecar, key) == "absent"
            gate.open()
            assert client.response().body == b"execution 1"
        wait_until(lambda: sidecar.json("/clusters")["clusters"][0]["endpoints"][0]["in_flight"] == 0)
        assert post(sidecar, key).body == b"execution 2"


def test_the_adaptive_limit_sheds_after_the_claim(subject):
    gate = Gate(numbered())
    with endpoints(gate) as (app,):
        name = fresh_key("r")
        sidecar = subject.serve(app.port, concurrency={"min": 1, "max": 1}, route_name=name)
        held = []
        try:
            # Each worker has a limit of its own: enough connections that one of them refuses.
            shed = None
            for _ in range(64):
                key = fresh_key()
                client = RawClient(sidecar.port)
                held.append(client)
                before = gate.waiting
                client.send(post_bytes(key, last=True))
                wait_until(lambda: gate.waiting > before or subject.counted("outrider_shed_total") > 0)
                if subject.counted("outrider_shed_total"):
                    shed = key
                    break
            assert shed, "nobody was shed"
            assert held[-1].response().status == 503
            assert state_of(sidecar, shed, route=name) == "absent"
            gate.open()
            for client in held[:-1]:
                assert client.response().status == 200
            again = post(sidecar, shed)
            assert (again.status, again.all("idempotent-replayed")) == (200, [])
        finally:
            for client in held:
                client.close()


# ---- nobody knows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [closes, resets], ids=["closed", "reset"])
def test_a_cut_leaves_the_outcome_unknown(subject, ends):
    with endpoints(Turns(ends, numbered())) as (app,):
        sidecar = subject.serve(app.port)
        key, target = fresh_key(), "/" + fresh_key("line")
        answer = post(sidecar, key)
        assert answer.status == 502 and b"connection_terminated" in answer.one("proxy-status")
        problem = problem_of(post(sidecar, key, target="/pay"), 409, "unknown")
        assert "broke off" in problem["detail"] and problem["key"] == digest_of(key)
        seen = look(sidecar, key)
        assert seen["state"] == "unknown" and "broke off" in seen["why"]
        problem_of(post(sidecar, key, target), 422, "reused")
        assert heads(app) == 1
        done = forget(sidecar, problem["key"])
        assert done.status == 200 and json.loads(done.body) == {"key": problem["key"], "forgotten": True}
        first = post(sidecar, key)
        assert first.body == b"execution 1" and not first.all("idempotent-replayed")
        assert_replay(post(sidecar, key), first)


def test_an_answer_that_broke_off(subject):
    def half(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        exchange.connection.close()

    with endpoints(half) as (app,):
        sidecar = subject.serve(app.port)
        key, target = fresh_key(), "/" + fresh_key("line")
        assert post(sidecar, key, target).status == 502
        problem_of(post(sidecar, key, target), 409, "unknown")
        lines = wait_until(lambda: len(found := [one for one in sidecar.access_lines() if one["path"] == target]) == 2 and found, 20)
        assert {line["idempotency"]: line["flags"] for line in lines} == {"first": "UC", "unknown": "IC"}
        subject.wait_for_outcomes(first=1, unknown=1)


def test_no_answer_in_the_routes_time(subject):
    with endpoints(silent) as (app,):
        sidecar = subject.serve(app.port, timeout="100ms")
        key = fresh_key()
        assert post(sidecar, key).status == 504
        problem_of(post(sidecar, key), 409, "unknown")
        assert heads(app) == 1


def test_who_waited_hears_that_the_outcome_is_unknown(subject):
    gate = Gate(resets)
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        with posted(sidecar, key) as client, RawClient(sidecar.port) as second:
            wait_until(lambda: gate.waiting == 1)
            second.send(post_bytes(key))
            wait_until(lambda: waiting(sidecar) == 1)
            gate.open()
            assert client.response().status == 502
            problem_of(second.response(), 409, "unknown")
        assert heads(app) == 1


def test_reexecution_of_an_unknown_outcome(subject):
    with endpoints(Turns(closes, numbered())) as (app,):
        sidecar = subject.serve(app.port, idempotency={"on_unknown": "reexecute"})
        key = fresh_key()
        assert post(sidecar, key).status == 502
        assert state_of(sidecar, key) == "unknown"
        first = post(sidecar, key)
        assert (first.status, first.body) == (200, b"execution 1")
        assert_replay(post(sidecar, key), first)
        assert heads(app) == 2
        assert look(sidecar, key)["generation"] > 1


# ---- what is recorded ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [200, 201, 302, 400, 404, 409, 429, 500, 503])
def test_every_answer_is_recorded(subject, code):
    with endpoints(numbered(status=code)) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        first = post(sidecar, key)
        assert (first.status, first.body) == (code, b"execution 1")
        assert_replay(post(sidecar, key), first)
        seen = look(sidecar, key)
        assert (seen["state"], seen["status"], seen["replayable"]) == ("done", code, True)


def test_answers_above_499_need_not_be_recorded(subject):
    with endpoints(Turns(status(503), status(500), status(404, body=b"no such account"))) as (app,):
        sidecar = subject.serve(app.port, idempotency={"record": "2xx-4xx"})
        key = fresh_key()
        assert [post(sidecar, key).status for _ in range(2)] == [503, 500]
        assert state_of(sidecar, key) == "absent"
        first = post(sidecar, key)
        assert first.status == 404
        assert_replay(post(sidecar, key), first)
        assert heads(app) == 3


def test_an_application_cannot_say_that_it_is_a_replay(subject):
    """Or a client could not tell."""
    with endpoints(numbered(fields=[(b"Idempotent-Replayed", b"maybe")])) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        post(sidecar, key)
        assert post(sidecar, key).all("idempotent-replayed") == [b"true"]


def test_the_window_ends(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port, idempotency={"window": "1s"}, timeout="500ms")
        key = fresh_key()
        first = post(sidecar, key)
        assert first.body == b"execution 1"
        wait_until(lambda: state_of(sidecar, key) == "absent", 10, "the end of the key's window")
        again = post(sidecar, key)
        assert again.body == b"execution 2" and not again.all("idempotent-replayed")
        forget(sidecar, digest_of(key))  # or it ended while another test counts keys


def test_header_rules_are_those_of_the_replay(subject):
    with endpoints(numbered(fields=[(b"X-App", b"1"), (b"X-Secret", b"2")])) as (app,):
        key = fresh_key()
        sidecar = subject.serve(app.port, headers={"response": {"set": {"X-Rule": "old"}}})
        first = post(sidecar, key)
        assert (first.one("x-rule"), first.one("x-secret")) == (b"old", b"2")
        assert_replay(post(sidecar, key), first)
        sidecar = subject.serve(app.port, headers={"response": {"set": {"X-Rule": "new"}, "remove": ["X-Secret"]}})
        again = post(sidecar, key)
        assert (again.one("x-rule"), again.one("x-secret"), again.one("x-app")) == (b"new", None, b"1")
        assert (again.body, again.one("idempotent-replayed")) == (first.body, b"true")


# ---- retries and hedges ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyed", [True, False], ids=["with a key", "without a key"])
def test_a_reset_is_repeated_only_under_a_key(subject, keyed):
    with endpoints(Turns(resets, numbered())) as (app,):
        sidecar = subject.serve(app.port, retry={**AMPLE, "on": ["reset"]})
        key = fresh_key() if keyed else None
        first = post(sidecar, key)
        if keyed:
            assert (first.status, first.body, heads(app)) == (200, b"execution 1", 2)
            assert [request.body for request in app.requests] == [b"amount=1"] * 2
            assert_replay(post(sidecar, key), first)
        else:
            assert (first.status, heads(app)) == (502, 1)
        assert subject.counted("outrider_retries_total") == (1 if keyed else 0)


@pytest.mark.parametrize("fields", [[], [("Content-Length", "0")]], ids=["no length", "length 0"])
def test_a_kept_connection_that_is_reset_repeats_nothing_unasked(subject, fields):
    """Without a body a GET is sent once more (RFC 9112 section 9.3.1). What a key is for is not: it may have taken effect."""
    with endpoints(Turns(echo, resets, numbered())) as (app,):
        sidecar = subject.serve(app.port)
        with RawClient(sidecar.port) as client:
            assert client.request(post_bytes(body=b"x")).status == 200  # the upstream's connection is kept, by this worker
            key = fresh_key()
            answer = client.request(post_bytes(key, body=None, fields=fields, last=True))
            assert (answer.status, heads(app)) == (502, 2), "it ran again"
        problem_of(post(sidecar, key, body=None, fields=fields), 409, "unknown")
        assert heads(app) == 2


def test_retries_that_are_spent_leave_the_outcome_unknown(subject):
    with endpoints(resets) as (app,):
        sidecar = subject.serve(app.port, retry={**AMPLE, "attempts": 3, "on": ["reset"]})
        key = fresh_key()
        assert (post(sidecar, key).status, heads(app)) == (502, 3)
        problem_of(post(sidecar, key), 409, "unknown")
        assert heads(app) == 3


@pytest.mark.parametrize("keyed", [True, False], ids=["with a key", "without a key"])
def test_a_slow_request_is_hedged_only_under_a_key(subject, keyed):
    gate = Gate(numbered())
    turns = Turns(gate, echo)
    with endpoints(turns, turns) as group:
        sidecar = subject.serve(*ports(group), hedge={"after": "10ms"}, retry={**AMPLE})
        key = fresh_key() if keyed else None
        with posted(sidecar, key) as client:
            wait_until(lambda: gate.waiting == 1)
            if keyed:
                first = client.response()
                assert (first.body, turns.count()) == (b"amount=1", 2)
                gate.open()
            else:
                for number in range(20):  # a timer of 10 ms would be over meanwhile
                    assert post(sidecar).status == 200
                    assert turns.count() == number + 2
                gate.open()
                assert client.response().body == b"execution 1"
        assert subject.counted("outrider_hedges_total") == (1 if keyed else 0)
        if keyed:
            assert_replay(post(sidecar, key), first)


# ---- what is told ----------------------------------------------------------------------------------------------------------


def test_problems_name_the_published_policy(subject):
    with endpoints(echo) as (app,):
        url = "https://api.example/idempotency"
        sidecar = subject.serve(app.port, idempotency={"policy_url": url, "require": True})
        key = fresh_key()
        for answer, kind in ((post(sidecar), "missing"), (post(sidecar, "a b"), "malformed")):
            assert problem_of(answer, 400, kind)["policy"] == url
            assert answer.one("link") == f'<{url}>; rel="describedby"; type="text/html"'.encode()
        post(sidecar, key)
        answer = post(sidecar, key, body=b"else")
        assert problem_of(answer, 422, "reused")["policy"] == url
        assert answer.one("link").startswith(b"<https://api.example/idempotency>")
        assert key.encode() not in answer.body, "the key itself is the client's secret"


def test_problems_name_a_policy_without_a_url_as_well(subject):
    with endpoints(echo) as (app,):
        sidecar = subject.serve(app.port, idempotency={"require": True})
        assert problem_of(post(sidecar), 400, "missing")["policy"].startswith("urn:outrider:docs:")


def test_the_stores_page(subject):
    gate = Gate(Turns(numbered(), closes, numbered()))
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port)
        before = store_page(sidecar)
        with posted(sidecar, fresh_key()) as client:
            wait_until(lambda: gate.waiting == 1)
            page = store_page(sidecar)
            assert (page["kind"], page["ok"], page["waiting"]) == (subject.store.kind, True, 0)
            if "in_flight" in page:
                assert page["in_flight"] == before["in_flight"] + 1
            gate.open()
            assert client.response().status == 200
        post(sidecar, fresh_key())
        page = store_page(sidecar)
        if subject.store.kind == "redis":
            return
        assert (page["done"], page["unknown"]) == (before["done"] + 1, before["unknown"] + 1)
        assert 0 < page["memory_bytes"] <= page["memory_bytes_max"]
        assert page["oldest_age_seconds"] >= 0
        assert ("disk_bytes" in page) == (subject.store.kind == "log")


def test_a_key_is_found_by_digest_and_by_name(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key("a/b")
        post(sidecar, key)
        digest = digest_of(key)
        by_name = sidecar.admin(key_path(key.replace("/", "%2F")))
        by_digest = sidecar.admin(f"/idempotency/keys/{digest}")
        assert by_name.status == by_digest.status == 200
        assert json.loads(by_name.body) == json.loads(by_digest.body)
        assert json.loads(by_name.body)["key"] == digest
        assert b"execution" not in by_name.body, "what was answered is the client's"
        for path, code in ((f"/idempotency/nowhere/{digest}", 404), ("/idempotency/keys/abc", 400),
                           (key_path("x", route="nowhere"), 400), ("/idempotency/keys/" + "0" * 64, 404)):
            assert sidecar.admin(path).status == code, path


def test_forgetting(subject):
    gate = Gate(numbered())
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        digest = digest_of(key)
        refused = forget(sidecar, digest, "GET")
        assert (refused.status, refused.one("allow")) == (405, b"POST")
        assert forget(sidecar, digest).status == 404
        with posted(sidecar, key) as client:
            wait_until(lambda: gate.waiting == 1)
            assert forget(sidecar, digest).status == 409, "it is being executed"
            gate.open()
            assert client.response().body == b"execution 1"
        assert forget(sidecar, digest).status == 200
        assert state_of(sidecar, key) == "absent"
        assert post(sidecar, key).body == b"execution 2"


def test_a_reload_keeps_the_store(subject):
    gate = Gate(numbered())
    with endpoints(gate) as (app,):
        sidecar = subject.serve(app.port)
        done, flying = fresh_key(), fresh_key()
        with posted(sidecar, flying) as client, RawClient(sidecar.port) as second:
            wait_until(lambda: gate.waiting == 1)
            second.send(post_bytes(flying))
            wait_until(lambda: waiting(sidecar) == 1)
            subject.serve(app.port, headers={"response": {"set": {"X-Reloaded": "1"}}})
            with posted(sidecar, flying) as third:
                wait_until(lambda: waiting(sidecar) == 2)
                gate.open()
                first = client.response()
                assert second.response().body == third.response().body == first.body
        assert heads(app) == 1
        first = post(sidecar, done)
        assert_replay(post(subject.serve(app.port, headers={"response": {"set": {"X-Reloaded": "1"}}}), done), first)


def test_a_reload_that_changes_a_store_is_refused(subject):
    with endpoints(numbered()) as (app,):
        sidecar = subject.serve(app.port)
        key = fresh_key()
        first = post(sidecar, key)
        change = {"max_waiting": 7} if subject.store.kind != "redis" else {"prefix": "other:"}
        body = sidecar.body.replace(subject.store.table(), subject.store.table(**change))
        assert body != sidecar.body
        good = sidecar.body
        code, answer = sidecar.reload(body)
        assert code != 200 and "store.keys: a store that is open cannot be changed" in json.dumps(answer)
        sidecar.body = good
        sidecar.write()
        assert_replay(post(sidecar, key), first)


