"""Signals, drain, reload and how a start fails: what an orchestrator and an operator rely on."""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from sidecar import (PROGRAM, Load, RawClient, Sidecar, accepts, app, apps, ask, cluster, free_port, listener,
                     request_bytes, route, run, wait_until)
from wire import ProtocolError

WORKERS = 3


@pytest.fixture
def upstream():
    with app() as one:
        yield one


def plain(upstream, **route_keys):
    return route(cluster="app", **route_keys) + cluster("app", upstream.port)


def ended_cleanly(sidecar, code=0):
    assert sidecar.wait() == code, sidecar.log()
    sidecar.stop_checks()


class Gate:
    """A script that holds answers back until it is opened."""

    def __init__(self):
        self.open = threading.Event()
        self.reached = threading.Semaphore(0)

    def __call__(self, exchange):
        exchange.read_body()
        self.reached.release()
        self.open.wait(30)
        exchange.reply(body=b"late")


# ---- SIGTERM -----------------------------------------------------------------------------------------------------------------


def test_sigterm_under_load_loses_no_request(upstream):
    with Sidecar(plain(upstream), workers=WORKERS, drain={"delay": "500ms", "timeout": "10s"}) as sidecar:
        with Load(sidecar.port, clients=12, until_refused=True) as load:
            load.wait_for_answers(300)
            sidecar.signal(signal.SIGTERM)
            load.join(20)  # every client goes on until its connection is refused
        load.verdict()
        assert load.closes >= 12, "connections that were in use were told to close"
        ended_cleanly(sidecar)
    assert len(upstream.requests) == load.answers, "each request was executed exactly once"
    assert not upstream.truncated


def test_sigterm_without_delay_loses_no_request(upstream):
    """New connections come in all the time, so that some wait in the accept queue when the listeners close."""
    for _ in range(3):
        with Sidecar(plain(upstream), workers=WORKERS, drain={"delay": "0s", "timeout": "10s"}) as sidecar:
            with Load(sidecar.port, clients=8, until_refused=True, requests_per_connection=3) as load:
                load.wait_for_answers(100)
                sidecar.signal(signal.SIGTERM)
                load.join(20)
            load.verdict()
            ended_cleanly(sidecar)


def test_ready_fails_at_once_and_listeners_close_after_the_delay(upstream):
    with Sidecar(plain(upstream), workers=WORKERS, drain={"delay": "2s", "timeout": "5s"}) as sidecar:
        began = time.monotonic()
        sidecar.signal(signal.SIGTERM)
        answer = wait_until(lambda: not_ready(sidecar), 1.5, "the 503 of /ready")
        assert b"draining" in answer.body
        assert sidecar.admin("/live").status == 200
        assert sidecar.get("/still").status == 200, "requests are accepted until the delay is over"
        assert time.monotonic() - began < 2.0, "the machine is too slow for this test to say anything"
        wait_until(lambda: not accepts(sidecar.port), 20, "the listeners' end")
        assert time.monotonic() - began >= 1.95
        ended_cleanly(sidecar)
        assert time.monotonic() - began < 15


def not_ready(sidecar):
    answer = sidecar.admin("/ready")
    return answer if answer.status == 503 else None


def test_answers_of_a_draining_sidecar_close_their_connections(upstream):
    gate = Gate()
    upstream.script = gate
    with Sidecar(plain(upstream), drain={"delay": "0s", "timeout": "10s"}) as sidecar:
        with sidecar.client() as busy, sidecar.client() as idle, sidecar.client() as untouched:
            upstream.script = None
            upstream.clear()
            assert ask(idle, "/one").status == 200
            upstream.script = gate
            busy.send(request_bytes("/two"))
            assert gate.reached.acquire(timeout=10)
            sidecar.signal(signal.SIGTERM)
            wait_until(lambda: not accepts(sidecar.port), 20, "the listener's end")
            gate.open.set()
            answer = busy.response()
            assert (answer.status, answer.body, answer.closes) == (200, b"late", True)
            busy.assert_closed()
            idle.assert_closed()       # idle connections end by themselves, soon
            untouched.assert_closed()
        ended_cleanly(sidecar)


def test_a_pipeline_in_flight_is_answered_whole(upstream):
    gate = Gate()
    upstream.script = gate
    with Sidecar(plain(upstream), drain={"delay": "0s", "timeout": "10s"}) as sidecar, sidecar.client() as client:
        client.send(b"".join(request_bytes(f"/{number}") for number in range(4)))
        for _ in range(4):
            assert gate.reached.acquire(timeout=10)
        sidecar.signal(signal.SIGTERM)
        wait_until(lambda: not accepts(sidecar.port), 20, "the listener's end")
        gate.open.set()
        answers = [client.response() for _ in range(4)]
        assert [answer.body for answer in answers] == [b"late"] * 4
        assert [answer.closes for answer in answers[:3]] == [False] * 3, "an answer after `close` would be lost"
        client.assert_closed()
        ended_cleanly(sidecar)


def test_a_body_that_streams_is_finished(upstream):
    received = threading.Event()

    def slowly(exchange):
        received.set()
        exchange.read_body()
        exchange.reply(body=exchange.request.body)

    upstream.script = slowly
    with Sidecar(plain(upstream), drain={"delay": "0s", "timeout": "10s"}) as sidecar, sidecar.client() as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
        assert received.wait(10)
        sidecar.signal(signal.SIGTERM)
        wait_until(lambda: not accepts(sidecar.port), 20, "the listener's end")
        client.send(b"67890")
        assert client.response().body == b"1234567890"
        ended_cleanly(sidecar)


def test_drain_timeout_cuts_a_hung_exchange(upstream):
    gate = Gate()
    upstream.script = gate
    with Sidecar(plain(upstream), drain={"delay": "0s", "timeout": "1s"}) as sidecar, sidecar.client() as client:
        client.send(request_bytes("/hangs"))
        assert gate.reached.acquire(timeout=10)
        began = time.monotonic()
        sidecar.signal(signal.SIGTERM)
        ended_cleanly(sidecar)
        took = time.monotonic() - began
        assert 0.95 <= took < 4, took
        assert "1 exchanges were cut" in sidecar.log()
        assert client.wire.rest() == b""
        gate.open.set()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(upstream, second):
    gate = Gate()
    upstream.script = gate
    with Sidecar(plain(upstream), workers=WORKERS, drain={"delay": "20s", "timeout": "20s"}) as sidecar:
        with sidecar.client() as client:
            client.send(request_bytes("/hangs"))
            assert gate.reached.acquire(timeout=10)
            sidecar.signal(signal.SIGTERM)
            wait_until(lambda: not_ready(sidecar), 20, "the drain")
            sidecar.signal(second)
            began = time.monotonic()
            ended_cleanly(sidecar)
            assert time.monotonic() - began < 3
        gate.open.set()


def test_sigint_ends_it_at_once(upstream):
    with Sidecar(plain(upstream), workers=WORKERS, drain={"delay": "20s", "timeout": "20s"}) as sidecar:
        with sidecar.client() as idle:
            assert ask(idle).status == 200
            sidecar.signal(signal.SIGINT)
            began = time.monotonic()
            ended_cleanly(sidecar)
            assert time.monotonic() - began < 3


def test_sigint_under_load_ends_it_at_once(upstream):
    """Connections that are being handed from loop to loop must not keep a loop alive."""
    for _ in range(4):
        with Sidecar(plain(upstream), workers=4) as sidecar:
            with Load(sidecar.port, clients=12, until_refused=True, requests_per_connection=1) as load:
                load.wait_for_answers(60)
                sidecar.signal(signal.SIGINT)
                ended_cleanly(sidecar)


def test_a_tunnel_ends_with_the_drain_timeout(upstream):
    def upgrade(exchange):
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        exchange.connection.wait_closed(20)
        exchange.connection.close()

    upstream.script = upgrade
    with Sidecar(plain(upstream), drain={"delay": "0s", "timeout": "1s"}) as sidecar, sidecar.client() as client:
        answer = ask(client, fields=[("Upgrade", "echo"), ("Connection", "Upgrade")])
        assert answer.status == 101
        sidecar.signal(signal.SIGTERM)
        ended_cleanly(sidecar)


# ---- SIGHUP ------------------------------------------------------------------------------------------------------------------


def test_sighup_under_load_loses_no_request():
    with apps("one", "two", "three") as (one, two, three):
        more = free_port()

        def bodies():
            weights = [{"name": "a", "weight": 1}, {"name": "b", "weight": 3}]
            base = listener_text
            yield base, route(cluster="a") + cluster("a", one.port) + cluster("b", two.port)
            yield base, (route("narrow", match={"path_prefix": "/c1"}, cluster="b") + route(cluster="a")
                         + cluster("b", two.port, three.port) + cluster("a", one.port))
            yield base + listener(more, "extra"), (route(clusters=weights) + route("extra", listener="extra", cluster="b")
                                                   + cluster("b", two.port) + cluster("a", one.port, balance="round-robin"))
            yield base, route("renamed", cluster="c") + cluster("c", three.port, two.port, balance="maglev", hash_key="path")
            yield base, route(cluster="a") + cluster("a", f"localhost:{one.port}", two.port)

        first = route(cluster="a") + cluster("a", one.port)
        with Sidecar(first, workers=WORKERS) as sidecar:
            listener_text = listener(sidecar.port)
            with Load(sidecar.port, clients=8) as kept, Load(sidecar.port, clients=4, requests_per_connection=2) as fresh:
                kept.wait_for_answers(100)
                for turn in range(3):
                    for listeners, body in bodies():
                        generation = sidecar.generation()
                        sidecar.listeners = listeners
                        sidecar.body = body
                        sidecar.write()
                        sidecar.signal(signal.SIGHUP)
                        wait_until(lambda: sidecar.generation() > generation, 10, "the reload")
                        kept.wait_for_answers(20)
                        fresh.wait_for_answers(5)
            kept.verdict()
            fresh.verdict()
            assert sidecar.generation() == 16
            assert sidecar.rejected() == 0
        assert len(one.requests) + len(two.requests) + len(three.requests) == kept.answers + fresh.answers
        assert one.requests and two.requests and three.requests


def test_a_bad_file_on_sighup_changes_nothing(upstream):
    with Sidecar(plain(upstream)) as sidecar, sidecar.client() as client:
        assert ask(client).status == 200
        before = sidecar.admin("/config").body
        bad = sidecar.text().replace('cluster = "app"', 'cluster = "ap"').replace("[drain]", "[drain]\ntimeuot = \"1s\"")
        for count in (1, 2):
            sidecar.write(bad)
            sidecar.signal(signal.SIGHUP)
            wait_until(lambda: sidecar.rejected() == count, 10, "the refusal")
        assert sidecar.admin("/config").body == before
        assert sidecar.generation() == 1
        assert re.search(rb"^outrider_config_rejected_total 2$", sidecar.admin("/metrics").body, re.M)
        assert re.search(rb"^outrider_config_generation 1$", sidecar.admin("/metrics").body, re.M)
        log = sidecar.log()
        assert "did you mean 'timeout'" in log and "did you mean 'app'" in log, "every reason is logged"
        sidecar.config.unlink()
        sidecar.signal(signal.SIGHUP)
        wait_until(lambda: sidecar.rejected() == 3, 10, "the refusal of a missing file")
        assert ask(client, "/kept").status == 200, "the connection lives on"
        sidecar.write()
        sidecar.signal(signal.SIGHUP)
        wait_until(lambda: sidecar.generation() == 2, 10, "a good file's turn")


def test_a_reload_whose_port_is_taken_changes_nothing(upstream):
    with Sidecar(plain(upstream), workers=2) as sidecar, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free = free_port()
        sidecar.listeners = (listener(sidecar.port) + listener(free, "free")
                             + listener(taken.getsockname()[1], "taken"))
        status, answer = sidecar.reload()
        assert (status, answer["ok"]) == (422, False)
        assert "in use" in answer["messages"][-1]
        assert not accepts(free), "all or nothing"
        assert sidecar.get().status == 200


# ---- other signals -----------------------------------------------------------------------------------------------------------


def test_sigusr1_reopens_a_renamed_access_log(upstream):
    with Sidecar(plain(upstream), workers=2) as sidecar:
        assert sidecar.get("/before").status == 200
        wait_until(lambda: [line["path"] for line in sidecar.access_lines()] == ["/before"], 20, "the first line")
        rotated = sidecar.access_log.with_suffix(".1")
        sidecar.access_log.rename(rotated)
        assert sidecar.get("/between").status == 200
        wait_until(lambda: "/between" in rotated.read_text(), 20, "the line in the renamed file")
        sidecar.signal(signal.SIGUSR1)
        wait_until(sidecar.access_log.exists, 20, "the new file")
        assert sidecar.get("/after").status == 200
        wait_until(lambda: [line["path"] for line in sidecar.access_lines()] == ["/after"], 20, "the line in the new file")
        assert [json.loads(line)["path"] for line in rotated.read_text().splitlines()] == ["/before", "/between"]


def test_rotation_under_load_loses_no_line(upstream):
    with Sidecar(plain(upstream), workers=WORKERS) as sidecar:
        rotated = []
        with Load(sidecar.port, clients=6) as load:
            for number in range(5):
                load.wait_for_answers(50)
                target = sidecar.access_log.with_suffix(f".{number}")
                sidecar.access_log.rename(target)
                rotated.append(target)
                sidecar.signal(signal.SIGUSR1)
                wait_until(sidecar.access_log.exists, 20, "the new file")
        load.verdict()
        sidecar.signal(signal.SIGTERM)
        ended_cleanly(sidecar)
        lines = [json.loads(line) for path in (*rotated, sidecar.access_log) for line in path.read_text().splitlines()]
    assert len(lines) == load.answers
    assert len({line["path"] for line in lines}) == load.answers, "each once"


def test_sigpipe_is_ignored(upstream):
    with Sidecar(plain(upstream)) as sidecar:
        sidecar.signal(signal.SIGPIPE)
        assert sidecar.get().status == 200
        ignored = int(re.search(r"^SigIgn:\s*([0-9a-f]+)", open(f"/proc/{sidecar.child.pid}/status").read(), re.M)[1], 16)
        assert ignored & (1 << (signal.SIGPIPE - 1))


def test_a_log_reader_that_goes_away_does_not_end_it(upstream):
    with Sidecar(plain(upstream), log={"access": "stdout"}) as sidecar:
        # Its own process with a pipe as stdout that nobody reads any more.
        second = Sidecar(plain(upstream), log={"access": "stdout"})
        second.write()
        reading, writing = os.pipe()
        child = subprocess.Popen(second.command(), stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.DEVNULL)
        os.close(writing)
        try:
            wait_until(second.ready, 10, "the start")
            os.close(reading)
            for _ in range(3):
                assert second.get().status == 200
            metrics = wait_until(lambda: re.search(rb"^outrider_access_log_dropped_total ([1-9])$",
                                                   second.admin("/metrics").body, re.M), 5, "the dropped lines' count")
            assert metrics
            child.send_signal(signal.SIGTERM)
            assert child.wait(10) == 0
        finally:
            child.kill()
            child.wait()
        assert sidecar.get().status == 200


# ---- starts that fail --------------------------------------------------------------------------------------------------------


def failed_start(sidecar, text=None):
    sidecar.write(text)
    result = run("run", "-c", sidecar.config)
    assert result.returncode == 1, result
    assert result.stderr.strip(), "the reason is on stderr"
    return result.stderr


@pytest.mark.parametrize("whose", ["listener", "admin", "status"])
def test_a_taken_port_fails_the_start(upstream, whose):
    sidecar = Sidecar(plain(upstream), workers=2)
    if whose == "status":
        sidecar.admin_keys = {"status_listen": f"127.0.0.1:{sidecar.status_port}"}
    port = {"listener": sidecar.port, "admin": sidecar.admin_port, "status": sidecar.status_port}[whose]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        reason = failed_start(sidecar)
    assert "in use" in reason and f"127.0.0.1:{port}" in reason, reason


def test_a_port_of_another_sidecar_is_taken_too(upstream):
    """SO_REUSEPORT would let two processes share it without a word."""
    with Sidecar(plain(upstream), workers=2) as first:
        second = Sidecar(plain(upstream), workers=2)
        second.port = first.port
        assert "in use" in failed_start(second)
        assert first.get().status == 200


FIVE_MISTAKES = """\
[runtime]
workers = "many"

[[listener]]
name           = "inbound"
listen         = "127.0.0.1:8080"
header_timeout = 10

[[route]]
listener = "inbuond"
cluster  = "app"
retries  = 3

[[cluster]]
name      = "app"
endpoints = ["127.0.0.1"]
"""


def test_a_file_with_five_mistakes_names_all_five(upstream):
    sidecar = Sidecar("")
    reason = failed_start(sidecar, FIVE_MISTAKES)
    for place, key in [("2:11", "runtime.workers"), ("7:18", "listener[1].header_timeout"), ("10:12", "route[1].listener"),
                       ("12:1", "route[1].retries"), ("16:14", "cluster[1].endpoints[1]")]:
        assert re.search(rf"outrider\.toml:{place}: {re.escape(key)}: \S", reason), f"{key} in {reason}"
    assert "did you mean 'inbound'" in reason
    assert len([line for line in reason.splitlines() if "outrider.toml" in line]) == 5, reason


def test_a_file_that_is_not_there_or_is_a_folder(upstream):
    sidecar = Sidecar("")
    result = run("run", "-c", sidecar.directory / "absent.toml")
    assert (result.returncode, "absent.toml" in result.stderr) == (1, True), result
    result = run("run", "-c", sidecar.directory)
    assert result.returncode == 1 and result.stderr.strip(), result


def test_an_unreadable_file(upstream):
    sidecar = Sidecar(plain(upstream))
    sidecar.write()
    sidecar.config.chmod(0)
    if os.geteuid() == 0:  # root reads everything: become nobody first
        sidecar.directory.chmod(0o755)
        try:
            result = run("run", "-c", sidecar.config, user=65534, group=65534, extra_groups=[])
        except PermissionError:
            pytest.skip("the program lies where only root can read it")
    else:
        result = run("run", "-c", sidecar.config)
    assert result.returncode == 1 and "ermission denied" in result.stderr, result


@pytest.mark.parametrize("path", ["absent/access.log", "."])
def test_a_log_that_cannot_be_written_fails_the_start(upstream, path):
    sidecar = Sidecar(plain(upstream))
    sidecar.log_keys["access"] = f"{sidecar.directory}/{path}"
    reason = failed_start(sidecar)
    assert str(sidecar.directory) in reason, reason


def test_usage_errors_exit_with_2():
    for arguments in ([], ["run"], ["nonsense"], ["run", "-c"], ["validate"], ["run", "--frobnicate"],
                      ["ready", "--timeout", "soon"], ["ready", "--admin", "x:1", "-c", "y"]):
        result = run(*arguments)
        assert result.returncode == 2, (arguments, result)
        assert result.stderr.strip(), (arguments, result)


def test_it_starts_and_stops_again_and_again(upstream):
    """No port lingers, no start races its own workers."""
    sidecar = Sidecar(plain(upstream), workers=4)
    sidecar.write()
    for _ in range(8):
        child = subprocess.Popen([PROGRAM, "run", "-c", str(sidecar.config)], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            wait_until(lambda: accepts(sidecar.port) or child.poll() is not None, 10, "the start")
            with RawClient(sidecar.port) as client:
                assert ask(client).status == 200
            child.send_signal(signal.SIGTERM)
            assert child.wait(10) == 0, child.stderr.read()
        except (ProtocolError, OSError, AssertionError):
            child.kill()
            raise
        finally:
            child.stderr.close()
