"""Health: what the checks make of endpoints that misbehave, and passive ejection by what requests meet."""
import socket
import threading
import time

import pytest

from resilience import (Subject, calm, cluster_of, echo, endpoint_of, endpoints, flags_of, heads, ports, resets, scrape, silent, status,
                        wait_for_state)
from sidecar import Sidecar, ask, cluster, free_port, route, wait_until
from upstream import ScriptedUpstream
from wire import Truncated

QUICK = {"path": "/healthz", "interval": "50ms", "timeout": "50ms", "unhealthy_after": 2, "healthy_after": 2}


class Patient:
    """A script whose answers to checks can be changed; other requests are echoed. `asked`: when each check came."""

    def __init__(self, health=status(200)):
        self.health = health
        self.asked = []
        self.hosts = []

    def __call__(self, exchange):
        if exchange.request.target != b"/healthz":
            echo(exchange)
            return
        self.asked.append(time.monotonic())
        self.hosts.append(exchange.request.one("host"))
        self.health(exchange)


@pytest.fixture(scope="module")
def subject():
    one = Subject()
    with one.sidecar:
        yield one


@pytest.fixture
def serve(subject):
    def with_health(*ports, health=None, **keys):
        cluster_keys = {"health": {**QUICK, **(health or {})}, **keys.pop("cluster_keys", {})}
        return subject.serve(*ports, cluster_keys=cluster_keys, **keys)

    yield with_health
    calm(subject.sidecar)


def healthy_metric(sidecar, port):
    return scrape(sidecar).value("outrider_endpoint_healthy", cluster="app", endpoint=f"127.0.0.1:{port}")


def checks_metric(sidecar, result):
    return scrape(sidecar).value("outrider_health_checks_total", cluster="app", result=result)


# ---- verdicts --------------------------------------------------------------------------------------------------------------


def test_down_and_up_again(serve):
    sick, well = Patient(), Patient()
    with endpoints(sick, well) as (a, b):
        sidecar = serve(*ports([a, b]))
        wait_until(lambda: len(sick.asked) >= 2 and len(well.asked) >= 2)
        assert endpoint_of(sidecar, a.port)["state"] == "healthy" and healthy_metric(sidecar, a.port) == 1
        sick.health = status(500)
        one = wait_for_state(sidecar, a.port, "unhealthy")
        assert one["reason"] == "status 500"
        assert abs(time.time() - time.mktime(time.strptime(one["since"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 5
        assert healthy_metric(sidecar, a.port) == 0
        assert healthy_metric(sidecar, b.port) == 1
        before = len(a.heads) - len(sick.asked)
        with sidecar.client() as client:
            for number in range(20):
                assert ask(client, f"/{number}").status == 200
        assert len([r for r in a.heads if r.target != b"/healthz"]) == before
        sick.health = status(204, b"")
        one = wait_for_state(sidecar, a.port, "healthy")
        assert "reason" not in one and one["since"]
        with sidecar.client() as client:
            for number in range(20):
                assert ask(client, f"/{number}").status == 200
        assert any(r.target == b"/1" or r.target == b"/0" for r in a.heads), "it is used again"
        assert checks_metric(sidecar, "failed") >= 2 and checks_metric(sidecar, "passed") >= 4


def test_thresholds(serve, subject):
    """Out after exactly unhealthy_after failures in a row, back after exactly healthy_after successes."""
    verdicts = [True] * 3 + [False] * 2 + [True] + [False] * 3 + [True] * 3 + [False] + [True] * 4
    lock = threading.Lock()
    states = []

    def by_list(exchange):
        with lock:
            number = len(states)
            states.append(endpoint_of(sidecar, a.port)["state"] if number < len(verdicts) else "-")
        status(200 if number >= len(verdicts) or verdicts[number] else 500)(exchange)

    patient = Patient(by_list)
    with endpoints(patient) as (a,):
        sidecar = subject.sidecar
        serve(a.port, health={"unhealthy_after": 3, "healthy_after": 4})
        wait_until(lambda: len(states) > len(verdicts), 10)
        # states[n] is the state before the n-th answer.
        seen = "".join("h" if state == "healthy" else "u" for state in states[:len(verdicts)])
        assert seen == "h" * 9 + "u" * (len(verdicts) - 9), seen
        wait_for_state(sidecar, a.port, "healthy")


def test_the_first_answer_decides(serve):
    with endpoints(Patient(status(500))) as (a,):
        sidecar = serve(a.port, health={"unhealthy_after": 100})
        wait_for_state(sidecar, a.port, "unhealthy")


def stream_for_ever(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        while True:
            exchange.send(b"1\r\nx\r\n")
            time.sleep(0.005)  # slower than the bound on bytes
    except OSError:
        exchange.connection.closed_here = True
        exchange.connection.sock.close()


def slow_head(exchange):
    try:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10000:
            exchange.send(bytes([byte]))
            time.sleep(0.005)  # never done within the check's time
    except OSError:
        exchange.connection.closed_here = True
        exchange.connection.sock.close()


def sends(data, how="close"):
    def script(exchange):
        exchange.read_body()
        exchange.send(data)
        getattr(exchange.connection, how)()

    return script


BAD = {
    "streams": (stream_for_ever, "the answer's body did not end in time"),
    "slow head": (slow_head, "no answer in time"),
    "silent": (silent, "no answer in time"),
    "garbage": (sends(b"SSH-2.0-OpenSSH_9.6\r\n"), "the answer is not valid HTTP"),
    "HTTP/2": (sends(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"), "the answer is not valid HTTP"),
    "302": (status(302, fields=[(b"Location", b"/elsewhere")]), "status 302, a redirect"),
    "500": (status(500), "status 500"),
    "404": (status(404), "status 404"),
    "300": (status(300), "status 300"),
    "closes": (sends(b""), "closed before the answer"),
    "resets": (resets, "closed before the answer"),
    "cut": (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), "the answer broke off"),
    "large": (status(200, b"x" * 65537), "a body of more than 64 KiB"),
    "very large": (status(200, b"x" * 5_000_000), "a body of more than 64 KiB"),
    "1xx for ever": (sends(b"HTTP/1.1 102 Processing\r\n\r\n" * 100), "the answer is not valid HTTP"),
    "101": (sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), "the answer is not valid HTTP"),
    "large head": (sends(b"HTTP/1.1 200 OK\r\n" + b"X-A: %s\r\n" % (b"a" * 1000) * 100 + b"\r\n"), "the answer is not valid HTTP"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_health_endpoints_fail_with_their_reason(serve, kind):
    script, reason = BAD[kind]
    patient = Patient()
    with endpoints(patient, Patient()) as (a, b):
        sidecar = serve(*ports([a, b]), health={"interval": "100ms", "timeout": "100ms"})
        wait_until(lambda: patient.asked)
        patient.health = script
        one = wait_for_state(sidecar, a.port, "unhealthy")
        assert one["reason"].startswith(reason), one
        assert sidecar.get().status == 200
        assert endpoint_of(sidecar, b.port)["state"] == "healthy"
        patient.health = status(200)
        wait_for_state(sidecar, a.port, "healthy")


@pytest.mark.parametrize("script", [
    status(200, b"x" * 65536), status(204, b""), status(299), sends(b"HTTP/1.0 200 OK\r\n\r\nto the end"),
    sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    sends(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")],
    ids=["64 KiB", "204", "299", "HTTP/1.0", "chunked", "103"])
def test_good_health_endpoints(serve, subject, script):
    patient = Patient(script)
    with endpoints(patient) as (a,):
        sidecar = serve(a.port, health={"unhealthy_after": 1, "interval": "300ms", "timeout": "300ms"})
        wait_until(lambda: subject.counted("outrider_health_checks_total", result="passed") >= 2)
        assert endpoint_of(sidecar, a.port)["state"] == "healthy"
        assert subject.counted("outrider_health_checks_total", result="failed") == 0


def test_a_refused_connection(serve):
    with endpoints(Patient()) as (a,):
        dead = free_port()
        sidecar = serve(dead, a.port)
        assert wait_for_state(sidecar, dead, "unhealthy")["reason"] == "connection refused"
        with ScriptedUpstream(Patient(), dead):
            wait_for_state(sidecar, dead, "healthy")


def test_tcp_checks(serve):
    """They only connect: an endpoint that hangs passes, one that is gone does not."""
    port = free_port()
    with ScriptedUpstream(silent, port) as one:
        sidecar = serve_tcp(serve, port)
        wait_until(lambda: len(one.connections) >= 4)
        assert endpoint_of(sidecar, port)["state"] == "healthy"
        assert not one.heads, "nothing is sent"
    assert wait_for_state(sidecar, port, "unhealthy")["reason"] == "connection refused"
    with ScriptedUpstream(echo, port):
        wait_for_state(sidecar, port, "healthy")
        assert sidecar.get().status == 200


def serve_tcp(serve, *ports):
    keys = {name: value for name, value in QUICK.items() if name != "path"}
    return serve(*ports, cluster_keys={"health": {**keys, "kind": "tcp"}})


def test_a_full_queue_is_no_connection(serve):
    with socket.socket() as full, socket.socket() as filler, endpoints(echo) as (b,):
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        filler.connect(("127.0.0.1", port))
        sidecar = serve_tcp(serve, port, b.port)
        assert wait_for_state(sidecar, port, "unhealthy")["reason"] == "no connection in time"


def test_phi(serve):
    patient = Patient()
    with endpoints(patient, Patient()) as (a, b):
        keys = {name: value for name, value in QUICK.items() if name != "unhealthy_after"}
        sidecar = serve(*ports([a, b]), cluster_keys={"health": {**keys, "detector": "phi", "phi_threshold": 8}})
        wait_until(lambda: len(patient.asked) >= 8)
        assert endpoint_of(sidecar, a.port)["state"] == "healthy"
        patient.health = silent
        began = time.monotonic()
        one = wait_for_state(sidecar, a.port, "unhealthy")
        assert time.monotonic() - began < 10
        assert one["reason"] == "no answer in time"
        assert endpoint_of(sidecar, b.port)["state"] == "healthy"
        patient.health = status(200)
        wait_for_state(sidecar, a.port, "healthy")


def test_the_host_of_a_check(serve):
    patient = Patient()
    with endpoints(patient) as (a,):
        sidecar = serve(a.port)
        wait_until(lambda: patient.hosts)
        assert patient.hosts[0] == b"127.0.0.1:%d" % a.port
        serve(a.port, health={"host": "app.example"})
        wait_until(lambda: patient.hosts[-1] == b"app.example")
        assert sidecar.get().status == 200


# ---- once for the process --------------------------------------------------------------------------------------------------


def test_checks_do_not_grow_with_the_workers():
    patient = Patient()
    with endpoints(patient) as (a,):
        body = route(cluster="app") + cluster("app", a.port, health={**QUICK, "interval": "60ms"})
        with Sidecar(body, workers=4):
            wait_until(lambda: len(patient.asked) >= 15)
            asked = patient.asked[:15]
            gaps = [after - before for before, after in zip(asked, asked[1:])]
            assert asked[-1] - asked[0] >= 14 * 0.8 * 0.06 * 0.9, "no more than one an interval"
            assert sorted(gaps)[len(gaps) // 2] <= 0.12, "about one an interval"
            assert len({round(gap, 3) for gap in gaps}) > 3, "jitter"


def test_every_worker_follows_the_verdict():
    sick, well = Patient(), Patient()
    with endpoints(sick, well) as (a, b):
        body = route(cluster="app") + cluster("app", *ports([a, b]), health=QUICK, balance="round-robin")
        with Sidecar(body, workers=4) as sidecar:
            wait_until(lambda: sick.asked)
            sick.health = status(503)
            wait_for_state(sidecar, a.port, "unhealthy")
            before = len([r for r in a.heads if r.target != b"/healthz"])
            for number in range(40):  # on connections of their own: any worker
                assert sidecar.get(f"/{number}").status == 200
            assert len([r for r in a.heads if r.target != b"/healthz"]) == before
            sick.health = status(200)
            wait_for_state(sidecar, a.port, "healthy")
            calm(sidecar)


# ---- none left -------------------------------------------------------------------------------------------------------------


def test_no_endpoint_left(serve):
    with endpoints(Patient(status(500)), Patient(status(500))) as (a, b):
        sidecar = serve(*ports([a, b]))
        wait_for_state(sidecar, a.port, "unhealthy")
        wait_for_state(sidecar, b.port, "unhealthy")
        with sidecar.client() as client:
            began = time.monotonic()
            for number in range(20):
                answer = ask(client, f"/none/{number}")
                assert answer.status == 503 and int(answer.one("retry-after")) >= 1
                assert b"error=destination_unavailable" in answer.one("proxy-status")
            assert time.monotonic() - began < 5
        assert flags_of(sidecar, "/none/0") == {"UH"}
        assert not [r for r in a.heads + b.heads if r.target != b"/healthz"]


def test_panic(serve):
    patient = Patient(status(500))
    with endpoints(patient, patient, Patient()) as (a, b, c):
        sidecar = serve(*ports([a, b, c]), cluster_keys={"panic_percent": 50})
        wait_for_state(sidecar, a.port, "unhealthy")
        wait_for_state(sidecar, b.port, "unhealthy")
        assert cluster_of(sidecar)["panic"] or sidecar.get().status == 200
        with sidecar.client() as client:
            for number in range(30):
                assert ask(client, f"/{number}").status == 200
        assert cluster_of(sidecar)["panic"] is True
        for one in (a, b, c):
            assert len([r for r in one.heads if r.target != b"/healthz"]) >= 9, "all are used"
        patient.health = status(200)
        wait_for_state(sidecar, a.port, "healthy")
        wait_for_state(sidecar, b.port, "healthy")
        assert sidecar.get().status == 200
        assert cluster_of(sidecar)["panic"] is False


# ---- reloads ---------------------------------------------------------------------------------------------------------------


def test_reloads_add_and_remove_checks(serve, subject):
    patient = Patient(status(500))
    with endpoints(patient) as (a,):
        sidecar = subject.serve(a.port)
        assert sidecar.get().status == 200
        assert not patient.asked
        serve(a.port)
        wait_for_state(sidecar, a.port, "unhealthy")
        assert sidecar.get().status == 503
        subject.serve(a.port)
        assert sidecar.get().status == 200, "without checks nothing is unhealthy"
        assert endpoint_of(sidecar, a.port)["state"] == "healthy"
        asked = len(patient.asked)
        serve(a.port)
        wait_for_state(sidecar, a.port, "unhealthy")
        assert len(patient.asked) > asked


def test_a_reload_keeps_what_is_known(serve):
    sick, well = Patient(status(500)), Patient()
    with endpoints(sick, well) as (a, b):
        sidecar = serve(*ports([a, b]))
        since = wait_for_state(sidecar, a.port, "unhealthy")["since"]
        serve(*ports([b, a]), more=route("another", respond={"body": "x"}))
        one = endpoint_of(sidecar, a.port)
        assert (one["state"], one["since"]) == ("unhealthy", since)
        with sidecar.client() as client:
            for number in range(10):
                assert ask(client, f"/{number}").status == 200
        assert not [r for r in a.heads if r.target != b"/healthz"]


def test_removed_endpoints_are_no_longer_asked(serve):
    patients = [Patient(), Patient()]
    with endpoints(*patients) as (a, b):
        sidecar = serve(*ports([a, b]))
        wait_until(lambda: all(len(p.asked) >= 2 for p in patients))
        serve(b.port)
        assert [e["endpoint"] for e in cluster_of(sidecar)["endpoints"]] == [f"127.0.0.1:{b.port}"]
        assert a.wait_for(a.settled)
        asked, others = len(patients[0].asked), len(patients[1].asked)
        wait_until(lambda: len(patients[1].asked) >= others + 6)
        assert len(patients[0].asked) == asked
        names = {dict(pairs)["endpoint"] for name, pairs in scrape(sidecar).samples if name == "outrider_endpoint_healthy"}
        assert names == {f"127.0.0.1:{b.port}"}


def test_a_removed_cluster_is_no_longer_asked(serve, subject):
    patient = Patient()
    with endpoints(patient) as (a,):
        sidecar = serve(a.port)
        wait_until(lambda: len(patient.asked) >= 2)
        patient.health = silent  # also with a check under way
        wait_until(lambda: any(c.state == "script" for c in a.connections))
        assert sidecar.reload(route(respond={"body": "x"}))[0] == 200
        assert a.wait_for(lambda: all(c.closed_by_proxy.is_set() for c in a.connections)), "a check under way is given up"
        asked = len(patient.asked)
        for _ in range(3):
            assert sidecar.reload(route(respond={"body": "x"}))[0] == 200
        assert len(patient.asked) == asked


def test_many_reloads_under_checks(serve):
    patients = [Patient(), Patient(silent)]
    with endpoints(*patients) as (a, b):
        for turn in range(15):
            sidecar = serve(*(ports([a, b]) if turn % 2 else [a.port]), health={"interval": "10ms", "timeout": "10ms"})
        assert sidecar.get().status == 200
        seen = len(patients[0].asked)
        wait_until(lambda: len(patients[0].asked) > seen + 2)


# ---- ejection --------------------------------------------------------------------------------------------------------------


def ejecting(subject, *ports, ejection="30s", failures=3, **keys):
    outlier = {"consecutive_failures": failures, "ejection": ejection, **keys.pop("outlier", {})}
    return subject.serve(*ports, cluster_keys={"outlier": outlier, **keys.pop("cluster_keys", {})}, **keys)


@pytest.fixture(scope="module")
def pair():
    """Two workers."""
    one = Subject(workers=2)
    with one.sidecar:
        yield one


def failures_seen(sidecar, count, bad=lambda status: status >= 500):
    return sum(bad(sidecar.get(f"/{number}").status) for number in range(count))


@pytest.mark.parametrize("failures", [1, 3, 7])
@pytest.mark.parametrize("script", [status(500), resets], ids=["500", "reset"])
def test_out_after_exactly_so_many_failures(pair, failures, script):
    with endpoints(script, echo) as (bad, good):
        sidecar = ejecting(pair, bad.port, good.port, failures=failures)
        assert failures_seen(sidecar, 60) == failures, "whichever worker meets them"
        assert len(bad.heads) == failures
        one = endpoint_of(sidecar, bad.port)
        assert (one["state"], one["ejections"], one["failures"]) == ("ejected", 1, 0 if script is not resets else failures), one
        assert one["reason"].startswith("a failure: " if failures == 1 else f"{failures} failures in a row, the last: "), one
        assert ("status 500" if script is not resets else "connection closed before the answer") in one["reason"]
        assert one["since"]
        metrics = scrape(sidecar)
        assert pair.counted("outrider_outlier_ejections_total", cluster="app") == 1
        assert metrics.value("outrider_endpoint_healthy", cluster="app", endpoint=f"127.0.0.1:{bad.port}") == 0
        calm(sidecar)


def test_refused_connections_and_timeouts_count(pair):
    dead = free_port()
    with endpoints(echo, silent) as (good, hangs):
        sidecar = ejecting(pair, dead, good.port, cluster_keys={"read_timeout": "40ms"})
        assert failures_seen(sidecar, 30) == 3
        assert "connection refused" in endpoint_of(sidecar, dead)["reason"]
        sidecar = ejecting(pair, hangs.port, good.port, cluster_keys={"read_timeout": "40ms"})
        assert failures_seen(sidecar, 30) == 3
        assert "no answer in time" in endpoint_of(sidecar, hangs.port)["reason"]
        sidecar = ejecting(pair, hangs.port, good.port, timeout="40ms", cluster_keys={"name": "late"})
        assert failures_seen(sidecar, 30) == 3
        assert "within the route's timeout" in endpoint_of(sidecar, hangs.port, "late")["reason"]
        calm(sidecar)


def test_answers_that_break_off_count(pair):
    """Their heads look well."""
    def breaks_off(exchange):
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        exchange.connection.close()

    with endpoints(breaks_off, echo) as (bad, good):
        sidecar = ejecting(pair, bad.port, good.port)
        cut = 0
        for number in range(40):
            try:
                assert sidecar.get(f"/{number}").status == 200
            except Truncated:
                cut += 1
        assert cut == 3
        assert "answer broke off" in endpoint_of(sidecar, bad.port)["reason"]
        calm(sidecar)


@pytest.mark.parametrize("script", [status(400), status(404), status(429), status(499)])
def test_the_clients_errors_are_no_failures(pair, script):
    with endpoints(script, echo) as (a, b):
        sidecar = ejecting(pair, a.port, b.port)
        # Each worker takes turns on its own.
        assert 14 <= failures_seen(sidecar, 30, lambda code: code >= 400) <= 16
        assert endpoint_of(sidecar, a.port)["state"] == "healthy"


def test_a_success_ends_the_streak(pair):
    def two_of_three_fail(exchange):
        seen.append(1)
        (echo if len(seen) % 3 == 0 else status(500))(exchange)

    seen = []
    with endpoints(two_of_three_fail, echo) as (a, b):
        sidecar = ejecting(pair, a.port, b.port)
        assert 18 <= failures_seen(sidecar, 60) <= 22
        assert endpoint_of(sidecar, a.port)["state"] == "healthy"


def test_return_probation_and_doubling(subject):
    """Back after `ejection`; then one failure is enough, and it lasts twice as long; a success ends the probation."""
    script = {"now": status(500)}
    with endpoints(lambda exchange: script["now"](exchange), echo) as (bad, good):
        sidecar = ejecting(subject, bad.port, good.port, ejection="200ms")
        durations = []
        for round_number, expected in enumerate((3, 1, 1)):
            began = time.monotonic()
            assert failures_seen(sidecar, 20) == expected, f"round {round_number}"
            assert endpoint_of(sidecar, bad.port)["ejections"] == round_number + 1
            wait_for_state(sidecar, bad.port, "healthy")
            durations.append(time.monotonic() - began)
        assert durations[0] >= 0.2 and durations[1] >= 0.4 and durations[2] >= 0.8, durations
        script["now"] = echo
        assert failures_seen(sidecar, 6) == 0
        script["now"] = status(500)
        assert failures_seen(sidecar, 20) == 3, "off probation it takes all of them again"
        calm(sidecar)


@pytest.mark.parametrize("percent, expected", [(50, 2), (100, 4), (25, 1), (1, 1), (0, 0)])
def test_the_share_that_may_be_out(pair, percent, expected):
    with endpoints(*[status(500)] * 4) as group:
        sidecar = ejecting(pair, *ports(group), failures=2, outlier={"max_ejected_percent": percent})
        for number in range(40):
            assert sidecar.get(f"/{number}").status in (500, 503)
        states = [e["state"] for e in cluster_of(sidecar)["endpoints"]]
        assert states.count("ejected") == expected, states
        assert (pair.counted("outrider_outlier_ejections_refused_total") > 0) == (expected < 4)
        if expected == 4:
            assert sidecar.get().status == 503
        calm(sidecar)


def test_the_only_endpoint_is_never_out(pair):
    with endpoints(status(500)) as (a,):
        sidecar = ejecting(pair, a.port, outlier={"max_ejected_percent": 100})
        for number in range(30):
            assert sidecar.get(f"/{number}").status == 500
        assert heads(a) == 30


def test_reloads_and_ejection(pair):
    with endpoints(status(500), echo) as (bad, good):
        sidecar = ejecting(pair, bad.port, good.port)
        assert failures_seen(sidecar, 30) == 3
        ejecting(pair, good.port, bad.port, more=route("more", respond={"body": "x"}))
        assert endpoint_of(sidecar, bad.port)["state"] == "ejected"
        assert failures_seen(sidecar, 20) == 0
        pair.serve(bad.port, good.port)
        wait_for_state(sidecar, bad.port, "healthy")
        assert 9 <= failures_seen(sidecar, 20) <= 11, "without the table nothing is out"
        ejecting(pair, bad.port, good.port)
        assert failures_seen(sidecar, 20) in (1, 3)
        # The last of the others goes: it is the only one, and must come back.
        ejecting(pair, bad.port)
        wait_for_state(sidecar, bad.port, "healthy")
        assert sidecar.get().status == 500
        calm(sidecar)


def test_an_ejected_endpoint_that_is_unhealthy_too(subject):
    patient = Patient(status(500))

    def script(exchange):
        (patient if exchange.request.target == b"/healthz" else status(500))(exchange)

    with endpoints(script, Patient()) as (a, b):
        keys = {"outlier": {"consecutive_failures": 1, "ejection": "200ms"}, "health": {**QUICK, "unhealthy_after": 1}}
        sidecar = subject.serve(*ports([a, b]), cluster_keys=keys)
        wait_for_state(sidecar, a.port, "unhealthy")
        assert failures_seen(sidecar, 10) == 0
        patient.health = status(200)
        wait_for_state(sidecar, a.port, "healthy")
        assert failures_seen(sidecar, 10) == 1
        wait_for_state(sidecar, a.port, "ejected")
        patient.health = status(500)
        wait_for_state(sidecar, a.port, "unhealthy")
        patient.health = status(200)
        wait_for_state(sidecar, a.port, "healthy")
        calm(sidecar)
