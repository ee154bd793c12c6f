"""Retries: what is sent again, how often, where to and when; and what never is."""
import threading
import time

import pytest

from resilience import (AMPLE, PerTarget, Subject, Turns, calm, closes, echo, endpoints, flags_of, heads, line_of, ports, resets,
                        scrape, silent, status)
from sidecar import Sidecar, ask, cluster, free_port, request_bytes, route, wait_until
from wire import RawClient, Truncated, chunked


@pytest.fixture(scope="module")
def subject():
    one = Subject()
    with one.sidecar:
        yield one


@pytest.fixture
def serve(subject):
    def with_retry(*ports, retry=None, **keys):
        return subject.serve(*ports, retry={**AMPLE, **(retry or {})}, **keys)

    yield with_retry
    calm(subject.sidecar)


# ---- which failures --------------------------------------------------------------------------------------------------------


def early_close(exchange):
    exchange.connection.close()


DEFAULT_KINDS = {"reset": (resets, {}), "closed": (closes, {}), "closed at the head": (early_close, {}),
                 "timeout": (silent, {"per_try_timeout": "60ms"}), "502": (status(502), {}), "503": (status(503), {}),
                 "504": (status(504), {})}


@pytest.mark.parametrize("kind", DEFAULT_KINDS)
def test_what_is_repeated_by_default(serve, kind):
    script, keys = DEFAULT_KINDS[kind]
    turns = Turns(script, echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]), retry=keys)
        answer = sidecar.get(f"/{kind.replace(' ', '-')}")
        assert answer.status == 200, answer
        assert len(a.heads) == len(b.heads) == 1, "at the other endpoint"
        line = line_of(sidecar, f"/{kind.replace(' ', '-')}")
        assert (line["attempts"], line["flags"]) == (2, ""), line


def test_a_refused_connection_is_repeated_at_once(serve, subject):
    dead = free_port()
    with endpoints(echo) as (good,):
        sidecar = serve(good.port, dead, retry={"backoff": {"base": "5s", "max": "5s"}})
        began = time.monotonic()
        with sidecar.client() as client:
            for number in range(8):
                assert ask(client, f"/refused/{number}").status == 200
        assert time.monotonic() - began < 3, "the first repetition does not back off"
        attempts = [line_of(sidecar, f"/refused/{n}")["attempts"] for n in range(8)]
        assert 2 in attempts and set(attempts) <= {1, 2}
        assert subject.counted("outrider_retries_total", route="all") == attempts.count(2)
        assert subject.counted("outrider_upstream_attempts_total", outcome="connect_failed") == attempts.count(2)
        assert subject.counted("outrider_upstream_attempts_total", outcome="success") == 8


@pytest.mark.parametrize("code, on", [(500, ["5xx"]), (501, ["5xx"]), (599, ["5xx"]), (429, ["429"]), (500, ["500"]),
                                      (408, ["408", "reset"])])
def test_listed_statuses(serve, code, on):
    turns = Turns(status(code), echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]), retry={"on": on})
        assert sidecar.get().status == 200
        assert heads(a, b) == 2


@pytest.mark.parametrize("script, on, expected", [
    (status(500), None, 500), (status(429), None, 429), (status(404), ["5xx"], 404), (status(503), ["connect"], 503),
    (resets, ["503"], 502)])
def test_what_is_not_listed_is_passed_on(serve, script, on, expected):
    with endpoints(Turns(script, echo)) as (a,):
        sidecar = serve(a.port, retry={} if on is None else {"on": on})
        answer = sidecar.get("/unlisted-%d-%s" % (expected, "".join(on or ["default"])))
        assert answer.status == expected
        assert heads(a) == 1


def test_per_try_timeout_ends_an_attempt_that_is_not_listed(serve):
    with endpoints(silent) as (a,):
        sidecar = serve(a.port, retry={"on": ["connect"], "per_try_timeout": "60ms"})
        answer = sidecar.get("/not-listed")
        assert (answer.status, flags_of(sidecar, "/not-listed")) == (504, {"UT"})
        assert heads(a) == 1
        assert a.wait_for(lambda: a.connections[0].closed_by_proxy.is_set())


def test_read_timeout_is_a_timeout(serve):
    turns = Turns(silent, echo)
    with endpoints(turns) as (a,):
        sidecar = serve(a.port, cluster_keys={"read_timeout": "60ms"})
        assert sidecar.get().status == 200
        assert turns.count() == 2


def test_without_the_table_nothing_is_repeated(subject):
    with endpoints(Turns(status(503), echo)) as (a,):
        sidecar = subject.serve(a.port)
        assert sidecar.get().status == 503
        assert heads(a) == 1
        calm(sidecar)


# ---- which requests --------------------------------------------------------------------------------------------------------

BODY = bytes(range(256)) * 150
FORMS = {
    "none": (b"", b"\r\n"),
    "empty": (b"", b"Content-Length: 0\r\n\r\n"),
    "length": (BODY, b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY),
    "chunked": (BODY, b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + chunked(BODY, trailers=[(b"X-Sum", b"42")])),
}


@pytest.mark.parametrize("first", [status(503), resets], ids=["503", "reset"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_the_whole_request_comes_again(serve, method, form, first):
    body, rest = FORMS[form]
    turns = Turns(first, echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]))
        with sidecar.client() as client:
            client.send(f"{method} /whole?q=1 HTTP/1.1\r\nHost: test\r\nX-Own: yes\r\n".encode() + rest)
            answer = client.response()
            assert (answer.status, answer.body) == (200, body or b"/whole?q=1")
            assert ask(client, "/next").body == b"/next", "the connection goes on"
        assert a.wait_for(lambda: len(a.requests) + len(b.requests) == 3)
        one, two = [next(r for r in up.requests if r.target == b"/whole?q=1") for up in (a, b)]
        assert one.body == two.body == body
        assert one.trailers == two.trailers == ([(b"X-Sum", b"42")] if form == "chunked" else [])
        fields = [[f for f in request.fields if f[0] != b"Outrider-Deadline-Ms"] for request in (one, two)]
        assert fields[0] == fields[1], "the same request, also its id"


def test_head(serve):
    turns = Turns(status(503), echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]))
        with sidecar.client() as client:
            answer = ask(client, "/head", method="HEAD")
            assert (answer.status, answer.body) == (200, b"")
            assert ask(client, "/after").body == b"/after"
        assert heads(a, b) == 3


@pytest.mark.parametrize("method", ["POST", "PATCH", "SEARCH"])
@pytest.mark.parametrize("script, expected", [(status(503), 503), (resets, 502), (silent, 504)], ids=["503", "reset", "timeout"])
def test_an_unsafe_method_is_sent_once(serve, method, script, expected):
    turns = Turns(script, echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]), retry={"per_try_timeout": "60ms"})
        path = f"/{method}-{expected}"
        assert sidecar.get(path, method=method, body=b"pay 10").status == expected
        assert heads(a, b) == 1
        assert line_of(sidecar, path)["attempts"] == 1


@pytest.mark.parametrize("body", [b"", b"pay 10", BODY], ids=["empty", "small", "large"])
def test_an_unsafe_method_whose_connection_was_refused_goes_elsewhere(serve, body):
    with endpoints(echo) as (good,):
        sidecar = serve(free_port(), good.port)
        with sidecar.client() as client:
            for number in range(4):
                answer = ask(client, f"/post/{number}", method="POST", body=body)
                assert (answer.status, answer.body) == (200, body or b"/post/%d" % number)
        assert heads(good) == 4


def test_an_upgrade_is_never_repeated(serve):
    fields = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
    for script, expected in ((status(503), 503), (resets, 502)):
        turns = Turns(script, echo)
        with endpoints(turns, turns) as (a, b):
            sidecar = serve(*ports([a, b]))
            assert sidecar.get(f"/upgrade/{expected}", fields=fields).status == expected
            assert heads(a, b) == 1


@pytest.mark.parametrize("size, again", [(1024, True), (1025, False), (100_000, False)])
def test_max_body(serve, size, again):
    turns = Turns(status(503), echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]), retry={"max_body": "1KiB"})
        path = f"/max-body/{size}"
        with sidecar.client() as client:
            answer = ask(client, path, method="PUT", body=b"x" * size)
            assert answer.status == (200 if again else 503), answer
        assert heads(a, b) == (2 if again else 1)


@pytest.mark.parametrize("size", [1024, 1025])
def test_max_body_in_pieces(serve, size):
    """The same bound when the body comes after the upstream's connection stands."""
    turns = Turns(status(503), echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]), retry={"max_body": "1KiB"})
        with sidecar.client() as client:
            client.send(b"PUT /pieces HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size)
            assert a.wait_for(lambda: heads(a, b) == 1)
            client.send(b"x" * 1000)
            client.send(b"x" * (size - 1000))
            assert client.response().status == (200 if size == 1024 else 503)


def test_no_body_is_kept_with_max_body_0(serve):
    turns = Turns(status(503), echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]), retry={"max_body": "0"})
        assert sidecar.get("/zero", method="PUT", body=b"x").status == 503
        assert heads(a, b) == 1
        turns.times.clear()
        assert sidecar.get("/zero-none", method="PUT").status == 200, "there is nothing to keep"


# ---- how often and where ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_count_the_first(serve, attempts):
    turns = Turns(status(503, b"busy", [(b"X-From", b"upstream")]))
    with endpoints(turns, turns) as (a, b):
        retry = {"attempts": attempts}
        sidecar = serve(*ports([a, b]), retry=retry) if attempts > 1 else serve(*ports([a, b]), retry=None, route_name="once")
        if attempts == 1:
            body = route("once", cluster="app", retry={"attempts": 1}) + cluster("app", a.port, b.port)
            assert sidecar.reload(body)[0] == 200
        answer = sidecar.get(f"/attempts/{attempts}")
        assert (answer.status, answer.body, answer.one("x-from")) == (503, b"busy", b"upstream"), "the last answer is passed on"
        assert turns.count() == attempts
        assert abs(len(a.heads) - len(b.heads)) <= 1, "they alternate"
        line = line_of(sidecar, f"/attempts/{attempts}")
        assert (line["attempts"], line["flags"], line["status"]) == (attempts, "URX", 503)


def test_the_only_endpoint_is_tried_again(serve):
    turns = Turns(resets, status(503), echo)
    with endpoints(turns) as (a,):
        assert serve(a.port).get().status == 200
        assert turns.count() == 3


def test_all_refused(serve, subject):
    sidecar = serve(free_port(), free_port())
    answer = sidecar.get("/all-refused")
    assert answer.status == 502 and b"error=connection_refused" in answer.one("proxy-status")
    line = line_of(sidecar, "/all-refused")
    assert (line["attempts"], line["flags"]) == (3, "UF,URX")
    assert subject.counted("outrider_upstream_attempts_total", outcome="connect_failed") == 3


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("script", [status(503), resets], ids=["503", "reset"])
def test_the_budget_bounds_the_load_of_an_outage(script, workers):
    requests = 600
    with endpoints(script, script) as group:
        body = (route(cluster="app", retry={"attempts": 5, "backoff": {"base": "1ms", "max": "2ms"},
                                            "budget": {"ratio": 0.2, "min_per_second": 0}})
                + cluster("app", *ports(group)))
        with Sidecar(body, workers=workers) as sidecar:
            failed = []

            def client(number):
                for turn in range(requests // 4):
                    failed.append(sidecar.get(f"/{number}/{turn}").status)

            threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert set(failed) <= {502, 503} and len(failed) == requests
            extra = heads(*group) - requests
            assert extra <= 0.2 * requests, f"{extra} attempts more than {requests} requests"
            assert extra >= 0.1 * requests, f"only {extra} repetitions: the budget is there to be used"
            metrics = scrape(sidecar)
            assert metrics.sum("outrider_retries_total") == extra
            assert metrics.sum("outrider_retry_budget_exhausted_total") >= requests * 0.7
            calm(sidecar)
            assert {line["flags"] for line in sidecar.access_lines()} <= {"URX", "UC,URX"}


def test_the_very_first_request_has_a_budget(subject):
    """The floor is there from the start: a quiet route's only request may be repeated."""
    turns = Turns(status(503), echo)
    with endpoints(turns, turns) as (a, b):
        with Sidecar(route(cluster="app", retry={}) + cluster("app", *ports([a, b]))) as sidecar:
            assert sidecar.get("/first").status == 200
        sidecar = subject.serve(*ports([a, b]), route_name="first-of-its-name", retry={})
        turns.times.clear()
        assert sidecar.get("/first-of-a-route").status == 200


def test_the_floor_of_the_budget(serve):
    """What was used under another configuration counts: a reload grants nothing twice. So this route is a new one."""
    with endpoints(Turns(status(503))) as (a,):
        sidecar = serve(a.port, retry={"budget": {"ratio": 0.0, "min_per_second": 3}}, route_name="floor")
        began = time.monotonic()
        with sidecar.client() as client:
            for _ in range(50):
                ask(client)
        took = time.monotonic() - began
        assert 3 <= heads(a) - 50 <= 3 + 3 * took + 1


# ---- when ------------------------------------------------------------------------------------------------------------------


def test_backoff_is_bounded(serve):
    """Full jitter: at most base, then 2 base; the exchange cannot last longer than both."""
    turns = Turns(status(503), status(503), echo)
    with endpoints(turns) as (a,):
        sidecar = serve(a.port, retry={"backoff": {"base": "60ms", "max": "5s"}})
        waits = []
        for _ in range(6):
            turns.times.clear()
            assert sidecar.get().status == 200
            waits.append([after - before for before, after in zip(turns.times, turns.times[1:])])
        assert all(first < 0.06 + 1 and second < 0.12 + 1 for first, second in waits), waits
        assert max(first for first, _ in waits) > 0.01, "it does wait"
        assert len({round(first, 3) for first, _ in waits}) > 1, "at random"


def test_retry_after_is_respected(serve):
    turns = Turns(status(503, fields=[(b"Retry-After", b"1")]), echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]), retry={"backoff": {"base": "1ms", "max": "2s"}})
        began = time.monotonic()
        assert sidecar.get().status == 200
        assert 0.99 <= turns.times[1] - began < 10


@pytest.mark.parametrize("value", [b"30", b"Fri, 31 Dec 2199 23:59:59 GMT"])
def test_a_long_retry_after_is_the_clients_to_hear(serve, value):
    with endpoints(Turns(status(503, b"later", [(b"Retry-After", value)]), echo)) as (a,):
        answer = serve(a.port).get()
        assert (answer.status, answer.body, answer.one("retry-after")) == (503, b"later", value)
        assert heads(a) == 1


@pytest.mark.parametrize("value", [b"0", b"soon", b"", b"-5", b"1.5", b"Sun, 06 Nov 1994 08:49:37 GMT"])
def test_other_retry_afters_do_not_matter(serve, value):
    with endpoints(Turns(status(503, fields=[(b"Retry-After", value)]), echo)) as (a,):
        assert serve(a.port).get().status == 200
        assert heads(a) == 2


def test_the_route_timeout_bounds_all_attempts(serve):
    turns = Turns(silent)
    with endpoints(turns) as (a,):
        sidecar = serve(a.port, timeout="250ms", retry={"attempts": 10, "per_try_timeout": "60ms"})
        began = time.monotonic()
        answer = sidecar.get("/route-timeout")
        took = time.monotonic() - began
        assert answer.status == 504 and 0.2 <= took < 1
        assert "UT" in flags_of(sidecar, "/route-timeout")
        assert 2 <= turns.count() <= 5


# ---- while the request is being sent ---------------------------------------------------------------------------------------


def answers_early(exchange):
    """Before the body; then reads on as a server should."""
    exchange.reply(status=503, body=b"early")
    exchange.read_body()


def cuts_early(exchange):
    exchange.connection.reset()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("first", [answers_early, cuts_early, early_close])
def test_a_failure_while_the_body_is_being_sent(serve, first, framing):
    turns = Turns(first, echo)
    body = bytes(range(256)) * 100
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]))
        with sidecar.client() as client:
            if framing == "length":
                client.send(b"PUT /early HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5000])
            else:
                client.send(b"PUT /early HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n" + body[:5000] + b"\r\n")
            assert a.wait_for(lambda: heads(a, b) == 2), "the repetition begins before the request's end"
            if framing == "length":
                client.send(body[5000:])
            else:
                client.send(b"%x\r\n" % (len(body) - 5000) + body[5000:] + b"\r\n0\r\n\r\n")
            answer = client.response()
            assert (answer.status, answer.body) == (200, body)
            assert ask(client, "/on").body == b"/on"


def test_the_rest_of_the_body_comes_during_the_backoff(serve):
    turns = Turns(answers_early, echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]), retry={"backoff": {"base": "200ms", "max": "200ms"}})
        for number in range(4):
            turns.times.clear()
            with sidecar.client() as client:
                client.send(b"PUT /b/%d HTTP/1.1\r\nHost: test\r\nContent-Length: 50000\r\n\r\n" % number + b"x" * 10)
                assert a.wait_for(lambda: turns.count() >= 1)
                client.send(b"y" * 49990)
                answer = client.response()
                assert (answer.status, answer.body) == (200, b"x" * 10 + b"y" * 49990)


def test_a_body_that_outgrows_max_body_during_the_backoff(serve):
    """What has come meanwhile is sent once more, or refused honestly: never cut."""
    turns = Turns(answers_early, echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]), retry={"max_body": "1KiB", "backoff": {"base": "100ms", "max": "100ms"}})
        with sidecar.client() as client:
            client.send(b"PUT /outgrows HTTP/1.1\r\nHost: test\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 10)
            assert a.wait_for(lambda: turns.count() >= 1)
            client.send_in_background(b"y" * 2999990)
            answer = client.response()
            assert (answer.status, len(answer.body)) in ((200, 3000000), (503, 5))
            assert client.sent()


def test_100_continue_and_a_repetition(serve):
    def invites(exchange):
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.read_body()
        exchange.reply(status=503)

    turns = Turns(invites, echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]))
        with sidecar.client() as client:
            client.send(b"PUT /expect HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            assert client.wire.response_head().status == 100
            client.send(b"hello")
            answer = client.response()
            assert (answer.status, answer.body) == (200, b"hello")


def test_informational_answers_of_both_attempts_are_passed_on(serve):
    def hints(then):
        def script(exchange):
            exchange.read_body()
            exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            then(exchange)

        return script

    turns = Turns(hints(status(503)), hints(echo))
    with endpoints(turns, turns) as (a, b):
        answer = serve(*ports([a, b])).get()
        assert answer.status == 200
        assert [interim.status for interim in answer.interim] == [103, 103]


# ---- once the response has begun -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
                                  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_response_that_breaks_off_cuts_the_client(serve, subject, head, how):
    def breaks(exchange):
        exchange.read_body()
        exchange.send(head)
        gate.wait(10)
        getattr(exchange.connection, how)()

    gate = threading.Event()
    turns = Turns(breaks, echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]))
        path = f"/breaks/{how}/{len(head)}"
        with sidecar.client() as client:
            client.send(request_bytes(path))
            assert client.wire.response_head().status == 200
            gate.set()
            with pytest.raises(Truncated):
                client.wire.exactly(1000)
        assert turns.count() == 1, "nothing is repeated once the head was sent"
        assert "UC" in flags_of(sidecar, path)
        wait_until(lambda: subject.counted("outrider_upstream_attempts_total", outcome="incomplete") == 1)


def test_a_head_that_breaks_off_is_no_beginning(serve):
    def half(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        exchange.connection.reset()

    turns = Turns(half, echo)
    with endpoints(turns, turns) as (a, b):
        answer = serve(*ports([a, b])).get("/half-a-head")
        assert answer.status in (200, 502)
        assert turns.count() == (2 if answer.status == 200 else 1)


def test_garbage_is_not_repeated(serve):
    def garbage(exchange):
        exchange.read_body()
        exchange.send(b"what?\r\n\r\n")
        exchange.connection.close()

    turns = Turns(garbage, echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]))
        assert sidecar.get("/garbage").status == 502
        assert (turns.count(), flags_of(sidecar, "/garbage")) == (1, {"UPE"})


def test_a_discarded_answer_may_be_endless(serve, subject):
    def endless(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                exchange.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            exchange.connection.closed_here = True
            exchange.connection.sock.close()

    turns = Turns(endless, echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]))
        assert sidecar.get("/endless").body == b"/endless"
        assert subject.counted("outrider_upstream_attempts_total", outcome="discarded") == 1


# ---- the client's side -----------------------------------------------------------------------------------------------------


def test_pipelined_answers_keep_their_order(serve):
    scripts = PerTarget(status(503), resets, echo)
    with endpoints(scripts, scripts) as (a, b):
        sidecar = serve(*ports([a, b]), retry={"attempts": 4, "backoff": {"base": "10ms", "max": "20ms"}})
        with sidecar.client() as client:
            client.send(b"".join(request_bytes(f"/p/{n}") for n in range(12)))
            assert [client.response().body for _ in range(12)] == [b"/p/%d" % n for n in range(12)]
        assert heads(a, b) == 36


def test_a_client_that_leaves_during_the_backoff(serve):
    turns = Turns(status(503, fields=[(b"Retry-After", b"3")]), echo)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]), retry={"backoff": {"base": "1ms", "max": "5s"}})
        client = RawClient(sidecar.port)
        client.send(request_bytes("/leaves"))
        assert a.wait_for(lambda: turns.count() == 1)
        client.reset()  # after a mere FIN it might still want the answer
        line = line_of(sidecar, "/leaves", 2)
        assert (line["flags"], line["status"], line["attempts"]) == ("DC", 0, 1)
        calm(sidecar)
        assert turns.count() == 1


def test_a_client_that_leaves_during_the_second_attempt(serve):
    turns = Turns(status(503), silent)
    with endpoints(turns, turns) as (a, b):
        sidecar = serve(*ports([a, b]))
        client = RawClient(sidecar.port)
        client.send(request_bytes("/leaves-later"))
        assert a.wait_for(lambda: turns.count() == 2)
        client.reset()
        assert line_of(sidecar, "/leaves-later", 2)["flags"] == "DC"
        for one in (a, b):
            assert one.wait_for(lambda: all(c.closed_by_proxy.is_set() for c in one.connections))


def test_the_pool_is_not_left_with_bad_connections(serve):
    """After failures of every kind the next requests are answered, each its own answer."""
    scripts = Turns(status(503), resets, answers_early, closes, status(503, b"x" * 100000), status(502), echo)
    with endpoints(scripts, scripts) as group:
        sidecar = serve(*ports(group), retry={"attempts": 10})
        with sidecar.client() as client:
            for number in range(20):
                body = b"%d." % number * 1000
                assert ask(client, f"/pool/{number}", method="PUT", body=body).body == body
        metrics = scrape(sidecar)
        assert metrics.value("outrider_upstream_connections", cluster="app") <= 3


# ---- deadlines -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trusting():
    one = Subject(inbound={"trust_forwarded": True})
    with one.sidecar:
        yield one


def deadlines(group):
    return [int(request.one("outrider-deadline-ms")) for one in group for request in one.heads]


def test_the_deadline_shrinks_with_each_attempt(trusting):
    turns = Turns(silent, silent, echo)
    with endpoints(turns) as group:
        sidecar = trusting.serve(*ports(group), timeout="20s", retry={**AMPLE, "per_try_timeout": "8s", "on": ["timeout", "503"]},
                                 cluster_keys={"read_timeout": "100ms"})
        assert sidecar.get(fields=[("Outrider-Deadline-Ms", "5000")]).status == 200
        first, second, third = deadlines(group)
        assert 4000 < third <= second - 90 <= first - 180 <= 5000 - 180
        calm(sidecar)


def test_per_try_timeout_bounds_the_deadline(trusting):
    with endpoints(echo) as group:
        sidecar = trusting.serve(*ports(group), timeout="20s", retry={**AMPLE, "per_try_timeout": "700ms"})
        assert sidecar.get().status == 200
        assert 200 <= deadlines(group)[0] <= 700
        calm(sidecar)


def test_a_deadline_that_ends(trusting):
    turns = Turns(silent)
    with endpoints(turns) as group:
        sidecar = trusting.serve(*ports(group), retry=AMPLE)
        began = time.monotonic()
        answer = sidecar.get("/deadline-ends", fields=[("Outrider-Deadline-Ms", "150")])
        assert answer.status == 504 and 0.14 <= time.monotonic() - began < 5
        assert b"error=http_response_timeout" in answer.one("proxy-status")
        assert flags_of(sidecar, "/deadline-ends") == {"UT"}
        calm(sidecar)


def test_a_deadline_leaves_no_time_for_a_backoff(trusting):
    with endpoints(Turns(status(503, b"mine", [(b"Retry-After", b"2")]), echo)) as group:
        sidecar = trusting.serve(*ports(group), retry={**AMPLE, "backoff": {"base": "1ms", "max": "5s"}})
        answer = sidecar.get(fields=[("Outrider-Deadline-Ms", "500")])
        assert (answer.status, answer.body) == (503, b"mine"), "the answer there is, at once"
        assert heads(*group) == 1
        calm(sidecar)


def test_no_time_left(trusting):
    with endpoints(echo) as group:
        sidecar = trusting.serve(*ports(group), retry=AMPLE)
        with sidecar.client() as client:
            answer = ask(client, "/zero-deadline", fields=[("Outrider-Deadline-Ms", "0")])
            assert answer.status == 504
            assert b"error=http_response_timeout" in answer.one("proxy-status")
            assert ask(client, "/goes-on").status == 200
        assert heads(*group) == 1
        calm(sidecar)


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "1e3", "0x10", "99999999999", " "])
def test_garbage_is_no_deadline(trusting, value):
    with endpoints(echo) as group:
        sidecar = trusting.serve(*ports(group), timeout="30s", retry=AMPLE)
        assert sidecar.get(fields=[("Outrider-Deadline-Ms", value)]).status == 200
        assert 29000 < deadlines(group)[0] <= 30000, "one line, our own"


def test_two_deadlines(trusting):
    """Whichever counts, the upstream is told one."""
    with endpoints(echo) as group:
        sidecar = trusting.serve(*ports(group), timeout="30s")
        assert sidecar.get(fields=[("Outrider-Deadline-Ms", "4000"), ("Outrider-Deadline-Ms", "3000")]).status == 200
        assert 2000 < deadlines(group)[0] <= 4000


@pytest.mark.parametrize("value", ["100", "0", "junk"])
@pytest.mark.parametrize("timeout", ["30s", "0s"])
def test_a_client_that_is_not_trusted_sets_no_deadline(serve, value, timeout):
    with endpoints(echo) as group:
        sidecar = serve(*ports(group), timeout=timeout)
        assert sidecar.get(fields=[("Outrider-Deadline-Ms", value)]).status == 200
        (request,) = group[0].heads
        told = [int(v) for v in request.all("outrider-deadline-ms")]
        assert (len(told) == 1 and 29000 < told[0] <= 30000) if timeout == "30s" else told == []


def test_a_deadline_without_a_route_timeout(trusting):
    with endpoints(silent) as group:
        sidecar = trusting.serve(*ports(group), timeout="0s")
        assert sidecar.get(fields=[("Outrider-Deadline-Ms", "120")]).status == 504
        assert 0 < deadlines(group)[0] <= 120
        calm(sidecar)


# ---- reloads ---------------------------------------------------------------------------------------------------------------


def test_a_reload_during_the_backoff(serve, subject):
    turns = Turns(status(503, fields=[(b"Retry-After", b"1")]), echo)
    with endpoints(turns) as (a,), endpoints(echo) as (other,):
        sidecar = serve(a.port, retry={"backoff": {"base": "1ms", "max": "5s"}})
        with sidecar.client() as client:
            client.send(request_bytes("/reloaded"))
            assert a.wait_for(lambda: turns.count() == 1)
            # The endpoint goes, then the cluster and the route.
            assert sidecar.reload(route(cluster="app") + cluster("app", other.port))[0] == 200
            assert sidecar.reload(route("x", cluster="else") + cluster("else", other.port))[0] == 200
            assert client.response().status in (200, 502, 503)
