"""Edges of the idempotent receiver: clients that go away while they are slow, connections that break, repetitions nobody asked for.

The store is kept in memory: nothing here is about durability.
"""
import contextlib
import json
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from harness import toml_table
from resilience import closes, echo, scrape
from sidecar import Sidecar, accepts, app, cluster, free_port, request_bytes, route, wait_until
from wire import RawClient, chunked, unsent_bytes

MIB = 1 << 20


def keyed(port, idempotency=None, store=None, **keys):
    return (route(cluster="app", idempotency={"store": "keys", **(idempotency or {})}, **keys) + cluster("app", port)
            + toml_table("[store.keys]", store or {"kind": "memory"}))


def post_bytes(key, target="/pay", body=b"amount=1", method="POST", fields=()):
    return request_bytes(target, fields=[("Idempotency-Key", key), *fields], method=method, body=body)


def post(sidecar, key, **options):
    with RawClient(sidecar.port) as client:
        return client.request(post_bytes(key, **options))


def state_of(sidecar, key):
    return json.loads(sidecar.admin(f"/idempotency/keys/{key}?route=all").body)


def in_flight(sidecar):
    return sidecar.json("/server_info")["in_flight"]


# ---- a client that reads slowly and goes away ------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_slow_reader_that_goes_away_does_not_stop_the_answer(framing):
    """The upstream was paused for its sake; nobody else would let it go on."""
    with app(script=lambda exchange: (exchange.read_body(), exchange.reply(body=b"x" * (64 * MIB), framing=framing))) as upstream:
        with Sidecar(keyed(upstream.port, {"max_response": "1KiB"}, timeout="20s")) as sidecar:
            with RawClient(sidecar.port, receive_buffer=4096) as client:
                client.send(post_bytes("slow"))
                client.wire.response_head()
                # Far from all of it fits into the buffers on the way: by now the upstream waits for the client.
                stuck = wait_until(lambda: len(upstream.connections) == 1 and blocked(upstream), 10, "the upstream's waiting")
                assert stuck
                client.reset()
            wait_until(lambda: state_of(sidecar, "slow")["state"] == "done", 10, "the record")
            answer = post(sidecar, "slow")
            assert (answer.status, b":done" in answer.body) == (409, True), answer
            assert len(upstream.requests) == 1


def blocked(upstream):
    """Its send queue is full and does not move."""
    (connection,) = upstream.connections
    before = unsent_bytes(connection.sock)
    time.sleep(0.2)  # of a look, not of a wait: a queue that moves is looked at again
    return before > 0 and unsent_bytes(connection.sock) == before


# ---- what nobody asked to be repeated --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_request_with_a_key_is_not_sent_again_on_a_fresh_connection(method):
    """Without a body it could be: a kept connection that closes before the answer may have executed it all the same."""
    first = threading.Event()

    def script(exchange):
        if first.is_set():
            return closes(exchange)
        first.set()
        return echo(exchange)

    with app(script=script) as upstream:
        with Sidecar(keyed(upstream.port, {"methods": ["POST", "PUT"]})) as sidecar:
            assert post(sidecar, "warm").status == 200
            answer = post(sidecar, "once", body=None, method=method)
            assert answer.status == 502, answer
            assert len(upstream.heads) == 2, "the first one and one attempt"
            assert state_of(sidecar, "once")["state"] == "unknown"


# ---- trailers --------------------------------------------------------------------------------------------------------------


def test_trailers_of_the_request_are_none_of_the_answer():
    def script(exchange):
        exchange.read_body()
        assert exchange.request.trailers == [(b"X-Request-Trailer", b"1")], exchange.request
        exchange.reply(body=b"y" * 5000, framing="chunked", trailers=[(b"X-Answer-Trailer", b"2")])

    with app(script=script) as upstream:
        with Sidecar(keyed(upstream.port, {"max_response": "1KiB"})) as sidecar:
            request = (b"POST /pay HTTP/1.1\r\nHost: test\r\nIdempotency-Key: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"
                       + chunked(b"amount=1", None, [(b"X-Request-Trailer", b"1")]))
            with RawClient(sidecar.port) as client:
                answer = client.request(request)
            assert answer.status == 200 and answer.body == b"y" * 5000
            assert answer.trailers == [(b"X-Answer-Trailer", b"2")]


# ---- answers that a filter gives to the owner ------------------------------------------------------------------------------


def test_an_answer_of_the_sidecars_own_leaves_no_key_behind():
    """OPTIONS that may not be forwarded any more is answered here, behind the claim."""
    with app() as upstream:
        with Sidecar(keyed(upstream.port, {"methods": ["OPTIONS"]})) as sidecar:
            answer = post(sidecar, "hops", method="OPTIONS", body=None, fields=[("Max-Forwards", "0")])
            assert answer.status == 204, answer
            wait_until(lambda: in_flight(sidecar) == 0, 20, "the exchange's end")
            assert state_of(sidecar, "hops")["state"] == "absent"
            assert not upstream.heads


# ---- the caller's deadline -------------------------------------------------------------------------------------------------


def test_who_waits_for_the_first_answer_waits_no_longer_than_its_caller():
    gate = threading.Event()

    def script(exchange):
        exchange.read_body()
        gate.wait(20)
        exchange.reply()

    with app(script=script) as upstream:
        with Sidecar(keyed(upstream.port), inbound={"trust_forwarded": True}) as sidecar:
            with RawClient(sidecar.port) as first:
                first.send(post_bytes("parked"))
                wait_until(lambda: upstream.requests, 20, "the first request")
                began = time.monotonic()
                answer = post(sidecar, "parked", fields=[("Outrider-Deadline-Ms", "300")])
                assert answer.status == 504 and time.monotonic() - began < 5, answer
                gate.set()
                assert first.response().status == 200
            assert post(sidecar, "late", fields=[("Outrider-Deadline-Ms", "0")]).status == 504
            assert state_of(sidecar, "late")["state"] == "absent" and len(upstream.requests) == 1


# ---- an answer that is all head --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["0B", "1KiB"])
def test_an_answer_without_a_body_waits_for_its_record_also_when_it_is_too_large_for_one(tmp_path, size):
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on this machine")
    port = free_port()
    redis = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", program, "--port", str(port), "--bind", "127.0.0.1", "--dir",
                              str(tmp_path), "--save", ""], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def script(exchange):
        exchange.read_body()
        redis.send_signal(signal.SIGSTOP)
        exchange.reply(status=204, framing="none", fields=[(b"X-Large", b"v" * 2000)])

    try:
        wait_until(lambda: accepts(port), 10, "the start of Redis")
        store = {"kind": "redis", "url": f"redis://127.0.0.1:{port}/0", "operation_timeout": "5s"}
        with app(script=script) as upstream, Sidecar(keyed(upstream.port, {"max_response": size}, store)) as sidecar:
            wait_until(lambda: state_of(sidecar, "head").get("state") == "absent", 10, "the store's readiness")
            with RawClient(sidecar.port) as client:
                client.send(post_bytes("head"))
                client.sock.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    client.sock.recv(1)
                redis.send_signal(signal.SIGCONT)
                answer = client.response()
                assert answer.status == 204 and answer.one("x-large") == b"v" * 2000, answer
            seen = state_of(sidecar, "head")
            assert (seen["state"], seen["replayable"]) == ("done", False), seen
    finally:
        redis.kill()
        redis.wait()


# ---- a client that is gone before its request leaves -----------------------------------------------------------------------


def test_what_is_sent_for_a_client_that_is_gone_still_names_it():
    gate = threading.Event()

    def script(exchange):
        exchange.read_body()
        if exchange.request.target == b"/first":
            gate.wait(20)
        exchange.reply()

    with app(script=script) as upstream:
        body = keyed(upstream.port).replace("[[cluster]]\n", "[[cluster]]\nlimits = { max_connections = 1 }\n")
        with Sidecar(body) as sidecar, RawClient(sidecar.port) as first:
            first.send(request_bytes("/first"))
            wait_until(lambda: upstream.requests, 20, "the request in front")
            with socket.create_connection(("127.0.0.1", sidecar.port), source_address=("127.0.0.9", 0)) as client:
                client.sendall(post_bytes("gone"))
                wait_until(lambda: state_of(sidecar, "gone")["state"] == "in_flight", 20, "the claim")
                # Before its worker has heard of the claim, a client that leaves leaves nothing to be sent.
                wait_until(lambda: scrape(sidecar).value("outrider_upstream_pending", cluster="app") == 1, 20, "its place in the line")
                before = connections(sidecar)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no half-close
            wait_until(lambda: connections(sidecar) < before, 20, "the client's going")
            with contextlib.ExitStack() as others:  # that take what memory it had
                for _ in range(20):
                    others.enter_context(RawClient(sidecar.port)).send(b"GET /")
                wait_until(lambda: connections(sidecar) >= before + 19, 20, "the others")
                gate.set()
                wait_until(lambda: state_of(sidecar, "gone")["state"] == "done", 10, "the record")
            assert upstream.requests[-1].one("x-forwarded-for") == b"127.0.0.9"


def connections(sidecar):
    return sidecar.json("/server_info")["connections"]
