"""Batches: requests that come at the same time leave in one call, and each client gets its part of the answer."""
import contextlib
import json

import pytest

from resilience import AMPLE, Gate, Subject, Turns, calm, endpoints, flags_of, resets, silent
from sidecar import request_bytes, wait_until
from wire import RawClient

STORE = '\n[store.keys]\nkind = "memory"\n'
JSON = ("Content-Type", "application/json")


@pytest.fixture(scope="module")
def subject():
    one = Subject(inbound={"trust_forwarded": True, "max_body_bytes": "64MiB"})
    with one.sidecar:
        yield one


@pytest.fixture
def serve(subject):
    def with_batch(*ports, keys=False, format="json-array", batch=None, **more):
        if keys:
            more["idempotency"] = {"store": "keys", **(keys if isinstance(keys, dict) else {})}
        # The store stays once it is there: it cannot be taken away under way.
        return subject.serve(*ports, match={"path": "/orders"}, batch={"format": format, "path": "/orders/bulk", **(batch or {})},
                             more=STORE, **more)

    yield with_batch
    calm(subject.sidecar)
    assert waiting(subject.sidecar) == 0


def in_flight(sidecar):
    return sidecar.json("/server_info")["in_flight"]


def waiting(sidecar):
    return next(one for one in sidecar.json("/routes")["routes"] if one["name"] == "all")["batch"]["waiting"]


def post(body, target="/orders", fields=(), method="POST"):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return request_bytes(target, fields=[JSON, *fields], method=method, body=body)


def each(work=lambda item: item):
    """An application with a bulk interface: does `work` with each element."""
    def answer(exchange):
        items = json.loads(exchange.read_body())
        exchange.reply(body=json.dumps([work(item) for item in items]).encode(), fields=[(b"Content-Type", b"application/json")])

    return answer


def says(status, body=b"no", fields=()):
    def answer(exchange):
        exchange.read_body()
        exchange.reply(status=status, body=body, fields=fields)

    return answer


def calls(app):
    return [json.loads(one.body) for one in app.requests]


@contextlib.contextmanager
def behind(sidecar, app, requests, first=post(0), queued=True):
    """A first call is held by the gate; `requests` have all come meanwhile, and wait. Yields the first client and the others."""
    before = len(app.requests)
    with contextlib.ExitStack() as stack:
        leader = stack.enter_context(RawClient(sidecar.port, patience=20))
        leader.send(first)
        assert app.wait_for(lambda: len(app.requests) == before + 1)
        clients = []
        for number, data in enumerate(requests):
            client = stack.enter_context(RawClient(sidecar.port, patience=20))
            client.send(data)
            clients.append(client)
            wait_until(lambda: waiting(sidecar) == number + 1 if queued else in_flight(sidecar) == number + 2, 10, "its waiting")
        yield leader, clients


# ---- what is batched -------------------------------------------------------------------------------------------------------


def test_a_lone_request_leaves_at_once_in_a_call_of_one(serve, subject):
    with endpoints(each()) as (app,):
        sidecar = serve(app.port)
        answer = ask_post(sidecar, {"n": 1})
        assert (answer.status, json.loads(answer.body)) == (200, {"n": 1})
        assert answer.one("content-type") == b"application/json"
        (call,) = app.requests
        assert (call.method, call.target, call.body) == (b"POST", b"/orders/bulk", b'[{"n": 1}]')
        assert call.one("content-type") == b"application/json"
        assert flags_of(sidecar, "/orders") == {"BT"}
        assert subject.counted("outrider_batch_size_bucket", le="1.0") == 1


def ask_post(sidecar, body, **options):
    with RawClient(sidecar.port, patience=20) as client:
        return client.request(post(body, **options), b"POST")


def test_what_comes_during_a_call_fills_the_next(serve, subject):
    gate = Gate(each(lambda item: {"was": item}))
    with endpoints(Turns(gate, each(lambda item: {"was": item}))) as (app,):
        sidecar = serve(app.port)
        with behind(sidecar, app, [post({"n": n}) for n in range(1, 41)]) as (first, clients):
            gate.open()
            assert json.loads(first.response().body) == {"was": 0}
            for number, client in enumerate(clients, 1):
                assert json.loads(client.response().body) == {"was": {"n": number}}
        assert calls(app) == [[0], [{"n": n} for n in range(1, 41)]]
        assert subject.counted("outrider_batch_size_count") == 2
        assert subject.counted("outrider_batch_size_sum") == 41
        shown = next(one for one in sidecar.json("/routes")["routes"] if one["name"] == "all")["batch"]
        assert shown["sizes"]["21-50"] >= 1 and shown["path"] == "/orders/bulk"


def test_calls_are_bounded(serve):
    gate = Gate(each())
    with endpoints(Turns(gate, each())) as (app,):
        sidecar = serve(app.port, batch={"max_items": 10})
        with behind(sidecar, app, [post(n) for n in range(25)]) as (_, clients):
            gate.open()
            assert [json.loads(client.response().body) for client in clients] == list(range(25))
        assert [len(call) for call in calls(app)] == [1, 10, 10, 5]


def test_linger_waits_for_others(serve):
    with endpoints(each()) as (app,):
        sidecar = serve(app.port, batch={"linger": "1s", "max_items": 3})
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(RawClient(sidecar.port)) for _ in range(3)]
            for number, client in enumerate(clients):
                client.send(post(number))
                if number < 2:
                    wait_until(lambda: in_flight(sidecar) == number + 1, 20, "it is in flight")
            assert [json.loads(client.response().body) for client in clients] == [0, 1, 2]
        assert len(app.requests) == 1
        assert json.loads(ask_post(sidecar, 9).body) == 9, "at last it leaves alone"


def test_other_credentials_are_other_calls(serve):
    gate = Gate(each())
    with endpoints(Turns(gate, gate, each())) as (app,):
        sidecar = serve(app.port)
        first, *requests = [post(n, fields=[("Authorization", f"Bearer {n % 2}"), ("X-Request-Id", f"id-{n}")]) for n in range(6)]
        with behind(sidecar, app, requests, first=first, queued=False) as (_, clients):
            wait_until(lambda: waiting(sidecar) == 4, 20, "four wait")
            gate.open()
            assert [json.loads(client.response().body) for client in clients] == [1, 2, 3, 4, 5]
        by_user = {}
        for one in app.requests:
            by_user.setdefault(one.one("authorization"), []).append(json.loads(one.body))
        assert by_user == {b"Bearer 0": [[0], [2, 4]], b"Bearer 1": [[1], [3, 5]]}


@pytest.mark.parametrize("request_bytes_", [post(1, target="/orders?x=1"), post(1, method="PUT"),
                                            request_bytes("/orders", method="POST", body=b"1", fields=[("Content-Type", "text/plain")]),
                                            post(1, fields=[("Idempotency-Key", '"a"')]), request_bytes("/orders")])
def test_what_is_no_part_goes_by_itself(serve, request_bytes_):
    with endpoints(says(200, b"itself")) as (app,):
        sidecar = serve(app.port)
        with sidecar.client() as client:
            assert client.request(request_bytes_).body == b"itself"
        assert app.heads[0].target.startswith(b"/orders") and app.heads[0].target != b"/orders/bulk"


@pytest.mark.parametrize("body", [b"{", b"1 2", b'{"a":1}]', b"", b"\xff", b"[1],[2]"])
def test_bad_json_is_refused_and_spoils_nothing(serve, body):
    gate = Gate(each())
    with endpoints(Turns(gate, each())) as (app,):
        sidecar = serve(app.port)
        bad = request_bytes("/orders", fields=[JSON], method="POST", body=b" " + body)
        with behind(sidecar, app, [post(1), post(2)]) as (_, clients):
            with sidecar.client() as other:
                assert other.request(bad, b"POST").status == 400
            gate.open()
            assert [json.loads(client.response().body) for client in clients] == [1, 2]
        assert calls(app) == [[0], [1, 2]]


def test_too_large_a_part(serve):
    with endpoints(each()) as (app,):
        sidecar = serve(app.port, batch={"max_bytes": "1KiB"})
        assert ask_post(sidecar, "x" * 2000).status == 413
        with sidecar.client() as client:
            client.send(b"POST /orders HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                        b"800\r\n" + b"1" * 0x800 + b"\r\n")
            assert client.response(b"POST").status == 413
        assert not app.requests


def test_a_chunked_body_that_comes_in_pieces(serve):
    with endpoints(each()) as (app,):
        sidecar = serve(app.port)
        with sidecar.client() as client:
            client.send(b"POST /orders HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n")
            assert client.wire.response_head().status == 100
            client.send(b"2\r\n[1\r\n")
            client.send(b"3\r\n,2]\r\n0\r\n\r\n")
            assert json.loads(client.response(b"POST").body) == [1, 2]
        assert app.requests[0].body == b"[[1,2]]"
        assert app.requests[0].all("expect") == []


# ---- formats ---------------------------------------------------------------------------------------------------------------


def test_ndjson(serve):
    gate = Gate(says(200, b'{"r":0}\n'))
    with endpoints(Turns(gate, says(200, b'{"r":1}\n{"r":2}\n'))) as (app,):
        sidecar = serve(app.port, format="ndjson")
        with behind(sidecar, app, [post(1), post(2)]) as (_, clients):
            gate.open()
            assert [client.response().body for client in clients] == [b'{"r":1}', b'{"r":2}']
        assert app.requests[1].body == b"1\n2\n"


def test_an_envelope_gives_each_its_own_status(serve):
    parts = [{"status": 201, "headers": {"Location": "/7", "Content-Length": "999"}, "body": {"id": 7}}, {"status": 409, "body": "no"},
             {"status": 204}, "no envelope"]
    gate = Gate(says(200, b'[{"status":200}]'))
    with endpoints(Turns(gate, says(200, json.dumps(parts).encode()))) as (app,):
        sidecar = serve(app.port, batch={"envelope": True})
        with behind(sidecar, app, [post(n) for n in range(4)]) as (_, clients):
            gate.open()
            made, conflict, nothing, broken = [client.response() for client in clients]
            assert (made.status, made.one("location"), json.loads(made.body)) == (201, b"/7", {"id": 7})
            assert (conflict.status, json.loads(conflict.body)) == (409, "no")
            assert (nothing.status, nothing.body) == (204, b"")
            assert broken.status == 502


def test_json_rpc(serve):
    def rpc(exchange):
        body = json.loads(exchange.read_body())
        if isinstance(body, dict):
            exchange.reply(body=b'"alone"')
            return
        answers = [{"jsonrpc": "2.0", "id": one["id"], "result": one["params"]} for one in body if "id" in one]
        exchange.reply(body=json.dumps(answers[::-1]).encode())

    def request(method, number, **more):
        return {"jsonrpc": "2.0", "method": method, "params": [number], **more}

    gate = Gate(rpc)
    with endpoints(Turns(gate, rpc)) as (app,):
        sidecar = serve(app.port, format="json-rpc")
        requests = [post(request("add", 1, id="x")), post(request("add", 2, id="x")), post(request("log", 3)), post(request("add", 4, id=9))]
        with behind(sidecar, app, requests, first=post(request("add", 0, id=1))) as (first, clients):
            gate.open()
            assert json.loads(first.response().body)["result"] == [0]
            one, two, note, four = [client.response() for client in clients]
            assert [(a["id"], a["result"]) for a in (json.loads(x.body) for x in (one, two, four))] == [("x", [1]), ("x", [2]), (9, [4])]
            assert (note.status, note.body) == (204, b"")
        assert len(calls(app)[1]) == 4
        own = [request("add", 5, id=1), request("add", 6, id=2)]
        assert [a["result"] for a in json.loads(ask_post(sidecar, own).body)] == [[6], [5]]
        assert app.requests[-1].target == b"/orders", "a client's own batch goes by itself"


def test_json_rpc_answers_that_fit_nobody(serve):
    """Two clients have the same id: an answer that is missing, twice there or nobody's costs only whose it is."""
    def rpc(answers):
        def script(exchange):
            ids = [one["id"] for one in json.loads(exchange.read_body())]
            exchange.reply(body=json.dumps([{"jsonrpc": "2.0", "id": number(ids), "result": result}
                                            for number, result in answers]).encode())
        return script

    request = post({"jsonrpc": "2.0", "method": "m", "id": 1})
    one, two = (lambda ids: ids[0]), (lambda ids: ids[1])
    rows = [([(two, "b"), (one, "a")], ["a", "b"]),               # out of order
            ([(two, "b")], [502, "b"]),                           # one is missing
            ([(one, "a"), (one, "c"), (two, "b")], [502, "b"]),   # one is there twice
            ([(one, "a"), (two, "b"), (lambda ids: 10 ** 6, "c")], ["a", "b"])]
    for answers, expected in rows:
        gate = Gate(rpc([(one, "first")]))
        with endpoints(Turns(gate, rpc(answers))) as (app,):
            sidecar = serve(app.port, format="json-rpc")
            with behind(sidecar, app, [request, request], first=request) as (first, clients):
                gate.open()
                assert json.loads(first.response().body)["result"] == "first"
                got = [client.response() for client in clients]
                assert [json.loads(a.body)["result"] if a.status == 200 else a.status for a in got] == expected, answers
                assert all(json.loads(a.body)["id"] == 1 for a in got if a.status == 200)


# ---- failures --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [says(200, b"not json"), says(200, b"[1]"), says(200, b"[1,2,3]"), says(200, b"{}")])
def test_an_answer_that_cannot_be_taken_apart(serve, answer):
    gate = Gate(each())
    with endpoints(Turns(gate, answer)) as (app,):
        sidecar = serve(app.port)
        with behind(sidecar, app, [post(1), post(2)]) as (_, clients):
            gate.open()
            assert [client.response().status for client in clients] == [502, 502]
        assert len(app.requests) == 2, "it is not repeated"


def test_a_larger_answer_than_is_kept(serve):
    with endpoints(says(200, b"[" + b" " * (9 << 20) + b"1]")) as (app,):
        assert ask_post(serve(app.port), 1).status == 502
        assert len(app.requests) == 1


def test_a_reset_is_everybodys(serve):
    gate = Gate(each())
    with endpoints(Turns(gate, resets)) as (app,):
        sidecar = serve(app.port)
        with behind(sidecar, app, [post(n) for n in range(5)]) as (_, clients):
            gate.open()
            assert {client.response().status for client in clients} == {502}
        assert len(app.requests) == 2


@pytest.mark.parametrize("status", [400, 500])
def test_a_refused_call_without_keys_is_not_repeated(serve, status):
    gate = Gate(each())
    with endpoints(Turns(gate, says(status, b'{"why":1}', [(b"Content-Type", b"application/problem+json")]))) as (app,):
        sidecar = serve(app.port)
        with behind(sidecar, app, [post(1), post(2)]) as (_, clients):
            gate.open()
            for client in clients:
                answer = client.response()
                assert (answer.status, answer.body, answer.one("content-type")) == (status, b'{"why":1}', b"application/problem+json")
        assert len(app.requests) == 2


def keyed(body, key):
    return post(body, fields=[("Idempotency-Key", f'"{key}"')])


def test_a_refused_call_is_split_for_those_with_keys(serve):
    def spoilt(exchange):
        items = json.loads(exchange.read_body())
        bad = "bad" in items
        exchange.reply(status=422 if bad else 200, body=b"bad" if bad else json.dumps(items).encode())

    gate = Gate(each())
    with endpoints(Turns(gate, spoilt)) as (app,):
        sidecar = serve(app.port, keys=True)
        requests = [keyed(1, "split-1"), keyed("bad", "split-2"), post(3), keyed(4, "split-4")]
        with behind(sidecar, app, requests) as (_, clients):
            gate.open()
            answers = [client.response() for client in clients]
            assert [(a.status, a.body) for a in answers] == [(200, b"1"), (422, b"bad"), (422, b"bad"), (200, b"4")]
        assert calls(app)[:2] == [[0], [1, "bad", 3, 4]]
        assert sorted(calls(app)[2:], key=str) == [["bad"], [1], [4]]
        assert ask_post(sidecar, "bad", fields=[("Idempotency-Key", '"split-2"')]).one("idempotent-replayed") == b"true"


def test_without_split_everybody_gets_the_answer(serve):
    gate = Gate(each())
    with endpoints(Turns(gate, says(400))) as (app,):
        sidecar = serve(app.port, keys=True, batch={"split_on_failure": False})
        with behind(sidecar, app, [keyed(1, "whole-1"), keyed(2, "whole-2")]) as (_, clients):
            gate.open()
            assert [client.response().status for client in clients] == [400, 400]
        assert len(app.requests) == 2


def test_no_endpoint(serve, subject):
    with endpoints(each()) as (app,):
        port = app.port
    sidecar = serve(port)
    assert ask_post(sidecar, 1).status == 502


def test_the_routes_timeout(serve):
    with endpoints(silent) as (app,):
        sidecar = serve(app.port, timeout="300ms")
        assert ask_post(sidecar, 1).status == 504


def test_a_callers_deadline_is_its_own(serve):
    gate = Gate(each())
    with endpoints(gate) as (app,):
        sidecar = serve(app.port)
        hasty = post(1, fields=[("Outrider-Deadline-Ms", "1000")])
        with behind(sidecar, app, [post(2), hasty]) as (first, clients):
            assert clients[1].response().status == 504
            gate.open()
            assert json.loads(clients[0].response().body) == 2
        assert calls(app) == [[0], [2]], "who has given up is taken out"


# ---- keys ------------------------------------------------------------------------------------------------------------------


def test_each_is_recorded_under_its_own_key(serve, subject):
    count = iter(range(100, 200))
    gate = Gate(each(lambda item: next(count)))
    with endpoints(Turns(gate, each(lambda item: next(count)))) as (app,):
        sidecar = serve(app.port, keys=True)
        with behind(sidecar, app, [keyed(n, f"own-{n}") for n in range(3)], first=keyed("first", "own-first")) as (first, clients):
            gate.open()
            answers = [first.response().body] + [client.response().body for client in clients]
        assert answers == [b"100", b"101", b"102", b"103"]
        for body, key, was in [("first", "own-first", b"100"), (0, "own-0", b"101"), (2, "own-2", b"103")]:
            again = ask_post(sidecar, body, fields=[("Idempotency-Key", f'"{key}"')])
            assert (again.body, again.one("idempotent-replayed")) == (was, b"true")
        assert len(app.requests) == 2
        assert all(one.all("idempotency-key") == [] for one in app.requests)


def test_a_call_that_breaks_off_leaves_the_outcome_unknown(serve):
    gate = Gate(each())
    with endpoints(Turns(gate, resets, each())) as (app,):
        sidecar = serve(app.port, keys=True)
        with behind(sidecar, app, [keyed(1, "cut-1"), keyed(2, "cut-2")]) as (_, clients):
            gate.open()
            assert [client.response().status for client in clients] == [502, 502]
        for number in (1, 2):
            assert ask_post(sidecar, number, fields=[("Idempotency-Key", f'"cut-{number}"')]).status == 409
        assert len(app.requests) == 2


def test_a_client_with_a_key_goes_and_its_part_is_recorded(serve):
    gate, second = Gate(each()), Gate(each(lambda item: item * 2))
    with endpoints(Turns(gate, second)) as (app,):
        sidecar = serve(app.port, keys=True)
        with behind(sidecar, app, [keyed(n, f"gone-{n}") for n in range(1, 4)]) as (_, clients):
            clients[0].reset()
            gate.open()
            assert app.wait_for(lambda: len(app.requests) == 2)
            clients[2].reset()
            wait_until(lambda: sidecar.json("/server_info")["connections"] == 2, 20, "their end")
            second.open()
            assert clients[1].response().body == b"4"
        for number in (1, 3):
            again = ask_post(sidecar, number, fields=[("Idempotency-Key", f'"gone-{number}"')])
            assert (again.body, again.one("idempotent-replayed")) == (b"%d" % (2 * number), b"true")
        assert calls(app) == [[0], [1, 2, 3]]


def test_a_key_that_gave_up_while_it_waited_is_free_and_was_not_executed(serve):
    gate = Gate(each())
    with endpoints(Turns(gate, each())) as (app,):
        sidecar = serve(app.port, keys=True)
        hasty = post(1, fields=[("Idempotency-Key", '"hasty-1"'), ("Outrider-Deadline-Ms", "1000")])
        with behind(sidecar, app, [keyed(2, "hasty-2"), hasty]) as (_, clients):
            assert clients[1].response().status == 504
            gate.open()
            assert clients[0].response().body == b"2"
        again = ask_post(sidecar, 1, fields=[("Idempotency-Key", '"hasty-1"')])
        assert (again.status, again.body, again.one("idempotent-replayed")) == (200, b"1", None)
        assert calls(app) == [[0], [2], [1]]


def test_a_key_that_gave_up_during_its_call_is_unknown_and_its_call_is_not_repeated(serve):
    gate, second = Gate(each()), Gate(says(503))
    with endpoints(Turns(gate, second, each())) as (app,):
        sidecar = serve(app.port, keys=True, retry={"attempts": 3, **AMPLE})
        hasty = post(1, fields=[("Idempotency-Key", '"late-1"'), ("Outrider-Deadline-Ms", "2000")])
        with behind(sidecar, app, [hasty, keyed(2, "late-2")]) as (first, clients):
            gate.open()
            first.response()
            assert app.wait_for(lambda: len(app.requests) == 2)
            assert clients[0].response().status == 504
            second.open()
            # Its part alone is sent again, not the call with what has given up.
            assert clients[1].response().body == b"2"
        assert ask_post(sidecar, 1, fields=[("Idempotency-Key", '"late-1"')]).status == 409
        assert calls(app) == [[0], [1, 2], [2]]


# ---- clients that go -------------------------------------------------------------------------------------------------------


def test_who_goes_while_waiting_is_taken_out(serve):
    gate = Gate(each())
    with endpoints(Turns(gate, each())) as (app,):
        sidecar = serve(app.port)
        with behind(sidecar, app, [post(1), post(2), post(3)]) as (_, clients):
            clients[1].reset()
            wait_until(lambda: in_flight(sidecar) == 3, 20, "its end")
            gate.open()
            assert [json.loads(clients[n].response().body) for n in (0, 2)] == [1, 3]
        assert calls(app) == [[0], [1, 3]]


@pytest.mark.parametrize("who", [0, 1, 2])
def test_who_goes_during_the_call_loses_its_part_only(serve, who):
    """Also when it is the one that carries it."""
    gate, second = Gate(each()), Gate(each())
    with endpoints(Turns(gate, second)) as (app,):
        sidecar = serve(app.port)
        with behind(sidecar, app, [post(0), post(1), post(2)]) as (first, clients):
            gate.open()
            first.response()
            assert app.wait_for(lambda: len(app.requests) == 2)
            clients[who].reset()
            wait_until(lambda: sidecar.json("/server_info")["connections"] == 3, 20, "its end")
            second.open()
            for number, client in enumerate(clients):
                if number != who:
                    assert json.loads(client.response().body) == number
        assert not any(one.closed_by_proxy.is_set() for one in app.connections)


def test_a_call_that_nobody_wants_is_given_up(serve):
    gate = Gate(each())
    with endpoints(Turns(gate, silent, each())) as (app,):
        sidecar = serve(app.port)
        with behind(sidecar, app, [post(1), post(2)]) as (first, clients):
            gate.open()
            first.response()
            assert app.wait_for(lambda: len(app.requests) == 2)
            for client in clients:
                client.reset()
            assert app.wait_for(lambda: any(one.closed_by_proxy.is_set() for one in app.connections))
        assert json.loads(ask_post(sidecar, 5).body) == 5, "the queue goes on"


def test_a_retry_of_a_call_whose_parts_all_have_keys(serve, subject):
    gate = Gate(each())
    with endpoints(Turns(gate, says(503), each())) as (app,):
        sidecar = serve(app.port, keys=True, retry={"attempts": 3, **AMPLE})
        with behind(sidecar, app, [keyed(1, "retry-1"), keyed(2, "retry-2")]) as (_, clients):
            gate.open()
            assert [client.response().body for client in clients] == [b"1", b"2"]
        assert calls(app) == [[0], [1, 2], [1, 2]]


# ---- the process -----------------------------------------------------------------------------------------------------------


def test_a_reload_lets_what_waits_go_on(serve, subject):
    gate = Gate(each())
    with endpoints(Turns(gate, each())) as (app,):
        sidecar = serve(app.port)
        with behind(sidecar, app, [post(1), post(2)]) as (first, clients):
            serve(app.port, batch={"max_items": 7})
            late = RawClient(sidecar.port)
            with late:
                late.send(post(3))  # under the new settings there is no call in flight
                assert json.loads(late.response().body) == 3
            gate.open()
            assert [json.loads(client.response().body) for client in (first, *clients)] == [0, 1, 2]


def test_a_process_that_is_stopped_meanwhile():
    own = Subject(drain={"timeout": "100ms"})
    gate = Gate(each())
    with endpoints(Turns(gate, silent)) as (app,), own.sidecar:
        sidecar = own.serve(app.port, match={"path": "/orders"}, batch={"format": "json-array", "path": "/orders/bulk"})
        with behind(sidecar, app, [post(1), post(2), post(3)]) as (first, clients):
            gate.open()
            first.response()
            assert app.wait_for(lambda: len(app.requests) == 2)
            clients[2].reset()  # who carries it
            wait_until(lambda: sidecar.json("/server_info")["connections"] == 3, 20, "its end")
            first.send(post(4))
            wait_until(lambda: in_flight(sidecar) == 4, 20, "one waits")
            sidecar.stop()
        gate.open()
