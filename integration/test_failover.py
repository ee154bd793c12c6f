"""The resilience figures with the real application: endpoints that are killed, that fail, that are all gone and return.

Three outrider-ledger processes, GET load over many connections. What the upstreams were asked is counted where it arrives.
"""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest

from resilience import AMPLE, calm, cluster_of, endpoint_of, endpoints, heads, ports, scrape, status, wait_for_state
from sidecar import Load, Sidecar, accepts, cluster, free_port, route, wait_until
from upstream import ScriptedUpstream
from wire import RawClient

HEALTH = {"path": "/healthz", "interval": "100ms", "timeout": "100ms", "unhealthy_after": 2, "healthy_after": 2}


class Ledger:
    """A process on a port of its own, which it takes again when it is started anew."""

    def __init__(self):
        named = os.environ.get("OUTRIDER_LEDGER_BIN")
        self.program = os.path.abspath(named) if named else str(
            pathlib.Path(os.environ["OUTRIDER_BIN"]).resolve().parent.parent / "demo" / "outrider-ledger")
        self.port = free_port()
        self.child = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        self.child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", self.program, "--listen", f"127.0.0.1:{self.port}", "--quiet"],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                      start_new_session=True)
        wait_until(lambda: accepts(self.port), 10, "the ledger's start")

    def kill(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait(10)

    def control(self, **members):
        body = json.dumps(members).encode()
        with RawClient(self.port) as client:
            answer = client.request(b"POST /control HTTP/1.1\r\nHost: ledger\r\nContent-Type: application/json\r\nConnection: close\r\n"
                                    b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer.status == 200, answer


class GetLoad(Load):
    """GETs only, of the ledger's accounts."""

    def _connection(self, client, number, count):
        while not self.stopping.is_set():
            count += 1
            client.send(b"GET /accounts/%d HTTP/1.1\r\nHost: ledger\r\n\r\n" % (count % 5 + 1))
            try:
                answer = client.response()
            except AssertionError as error:
                self.lost.append(f"{error}; send: {client.send_error!r}")
                return -1
            with self.lock:
                self.answers += 1
                self.by_status[answer.status] = self.by_status.get(answer.status, 0) + 1
            if answer.status != 200:
                self.wrong.append(f"{answer.status} {answer.body[:300]!r}")
            if answer.closes:
                return count
        return count


@contextlib.contextmanager
def ledgers(count=3):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Ledger()) for _ in range(count)]


def requests_at(sidecar, port):
    return endpoint_of(sidecar, port)["requests"]


@pytest.mark.parametrize("hedged", [False, True], ids=["retry", "retry and hedge"])
def test_kill_9_of_one_of_three(hedged):
    hedge = {"hedge": {"after": "p95", "fallback": "500ms"}} if hedged else {}
    with ledgers() as group:
        body = (route(cluster="app", retry={"budget": {"ratio": 0.2, "min_per_second": 50}}, **hedge)
                + cluster("app", *[one.port for one in group], health=HEALTH, outlier={"consecutive_failures": 5, "ejection": "300ms"}))
        with Sidecar(body, workers=2) as sidecar:
            victim = group[1]
            with GetLoad(sidecar.port, clients=16) as load:
                load.wait_for_answers(1000)
                for _ in range(2):
                    assert requests_at(sidecar, victim.port) > 0
                    victim.kill()
                    wait_until(lambda: endpoint_of(sidecar, victim.port)["state"] != "healthy", 20, "the end's notice")
                    load.wait_for_answers(1000)
                    victim.start()
                    wait_for_state(sidecar, victim.port, "healthy")
                    before = requests_at(sidecar, victim.port)
                    wait_until(lambda: requests_at(sidecar, victim.port) > before + 50, 10, "its use")
            load.verdict()
            assert set(load.by_status) == {200}
            assert load.connections == 16, "no client's connection was closed"
            calm(sidecar)


def test_stop_and_continue_of_one_of_three():
    """One that hangs: its connections stand and say nothing."""
    with ledgers() as group:
        body = (route(cluster="app", retry={"per_try_timeout": "200ms", "budget": {"ratio": 0.2, "min_per_second": 50}})
                + cluster("app", *[one.port for one in group], health=HEALTH))
        with Sidecar(body, workers=2) as sidecar:
            victim = group[0]
            with GetLoad(sidecar.port, clients=8) as load:
                load.wait_for_answers(500)
                victim.child.send_signal(signal.SIGSTOP)
                try:
                    assert wait_for_state(sidecar, victim.port, "unhealthy")["reason"] == "no answer in time"
                    load.wait_for_answers(500)
                finally:
                    victim.child.send_signal(signal.SIGCONT)
                wait_for_state(sidecar, victim.port, "healthy")
                before = requests_at(sidecar, victim.port)
                wait_until(lambda: requests_at(sidecar, victim.port) > before + 50, 10, "its use")
            load.verdict()
            calm(sidecar)


def test_500_to_everything_is_out_and_nobody_sees_it():
    with ledgers() as group:
        body = (route(cluster="app", retry={**AMPLE, "on": ["5xx"]})
                + cluster("app", *[one.port for one in group], outlier={"consecutive_failures": 5, "ejection": "30s"}))
        with Sidecar(body, workers=2) as sidecar:
            with GetLoad(sidecar.port, clients=8) as load:
                load.wait_for_answers(500)
                group[2].control(fail_percent=100, fail_status=500)
                one = wait_for_state(sidecar, group[2].port, "ejected")
                assert "status 500" in one["reason"]
                before = requests_at(sidecar, group[2].port)
                load.wait_for_answers(500)
                assert requests_at(sidecar, group[2].port) == before
            load.verdict()
            assert set(load.by_status) == {200}
            calm(sidecar)


def test_500_to_everything_without_retries():
    """The client sees at most as many as it takes (and what was under way beside)."""
    with ledgers() as group:
        group[2].control(fail_percent=100, fail_status=500)
        body = (route(cluster="app") + cluster("app", *[one.port for one in group], balance="round-robin",
                                                outlier={"consecutive_failures": 5, "ejection": "30s"}))
        with Sidecar(body, workers=2) as sidecar:
            codes = [sidecar.get("/accounts/1").status for _ in range(60)]
            assert codes.count(500) == 5 and codes.count(200) == 55


def test_a_total_outage_and_the_return():
    """The upstreams are offered at most 1.2 times the requests, and success is back within two health intervals."""
    interval = 0.2
    state = {"status": 503}
    offered = []

    def script(exchange):
        exchange.read_body()
        if exchange.request.target != b"/healthz":
            offered.append(time.monotonic())
        exchange.reply(status=state["status"], body=b"x")

    with endpoints(script, script, script) as group:
        health = {**HEALTH, "interval": f"{int(interval * 1000)}ms", "healthy_after": 2}
        # Without health the requests find out; with it they are refused before. Both must hold.
        for checks in ({}, {"health": health}):
            state["status"] = 503
            offered.clear()
            body = (route(cluster="app", retry={"attempts": 5, "backoff": {"base": "1ms", "max": "5ms"},
                                                "budget": {"ratio": 0.2, "min_per_second": 0}})
                    + cluster("app", *ports(group), **checks))
            with Sidecar(body, workers=2) as sidecar:
                if checks:
                    for one in group:
                        wait_for_state(sidecar, one.port, "unhealthy")
                answers = []
                stopping = threading.Event()

                def client():
                    while not stopping.is_set():
                        code = sidecar.get("/x").status
                        answers.append((time.monotonic(), code))

                threads = [threading.Thread(target=client) for _ in range(4)]
                for thread in threads:
                    thread.start()
                wait_until(lambda: len(answers) >= 400, 20)
                outage = len(answers)
                assert len(offered) <= 1.2 * (outage + 4), f"{len(offered)} for {outage}"
                state["status"] = 200
                returned = time.monotonic()
                wait_until(lambda: answers[-1][1] == 200, 20)
                recovered = time.monotonic() - returned
                assert recovered <= 2 * interval + 0.15, recovered
                wait_until(lambda: len(answers) >= outage + 200 and all(code == 200 for _, code in answers[-50:]), 10)
                stopping.set()
                for thread in threads:
                    thread.join()
                assert len(offered) <= 1.2 * len(answers)
                assert {code for _, code in answers} == {200, 503}
                calm(sidecar)


def test_an_outage_of_connections_and_the_return():
    """All endpoints gone, then back: with hold nobody notices."""
    with contextlib.ExitStack() as stack:
        numbers = [free_port() for _ in range(2)]
        up = [stack.enter_context(ScriptedUpstream(port=number)) for number in numbers]
        body = (route(cluster="app", retry={"attempts": 4, "budget": {"ratio": 1.0, "min_per_second": 100}})
                + cluster("app", *numbers, health=HEALTH, limits={"hold": "10s"}))
        with Sidecar(body, workers=2) as sidecar:
            assert sidecar.get().status == 200
            for one in up:
                one.stop()
            for number in numbers:
                wait_for_state(sidecar, number, "unhealthy")
            with Load(sidecar.port, clients=6) as load:
                wait_until(lambda: cluster_of(sidecar)["pending"] == 6, 20)
                began = time.monotonic()
                with ScriptedUpstream(lambda e: (e.read_body(), e.reply(body=e.request.body or e.request.target)), numbers[0]):
                    load.wait_for_answers(100)
                    assert time.monotonic() - began < 5
                    load.stop()
            load.verdict()
            assert scrape(sidecar).sum("outrider_upstream_held_total") >= 6
            calm(sidecar)


def test_statuses_alone_do_not_take_all_out():
    """Every endpoint answers 500: half of them at most are out, and what is left is offered the requests once."""
    with endpoints(*[status(500)] * 4) as group:
        body = (route(cluster="app", retry={"on": ["5xx"], "attempts": 3, "budget": {"ratio": 0.2, "min_per_second": 0}})
                + cluster("app", *ports(group), outlier={"consecutive_failures": 5, "ejection": "30s"}))
        with Sidecar(body, workers=2) as sidecar:
            assert {sidecar.get(f"/{n}").status for n in range(200)} == {500}
            states = [e["state"] for e in cluster_of(sidecar)["endpoints"]]
            assert states.count("ejected") == 2
            assert heads(*group) <= 1.2 * 200
            calm(sidecar)
