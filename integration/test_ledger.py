"""outrider-ledger by itself, over real sockets: its API, its misbehaviour on order, streams, keep-alive, its end.

  OUTRIDER_LEDGER_BIN   the program; without it, the one beside OUTRIDER_BIN in the build's folders
"""
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time

import pytest

PATIENCE = 15.0
LINE = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n"


def program():
    named = os.environ.get("OUTRIDER_LEDGER_BIN")
    if named:
        return os.path.abspath(named)
    return str(pathlib.Path(os.environ["OUTRIDER_BIN"]).resolve().parent.parent / "demo" / "outrider-ledger")


class Ledger:
    """A process on a port of the kernel's choice."""

    def __init__(self, *options):
        self.log_file = tempfile.TemporaryFile("w+b")
        self.child = subprocess.Popen([program(), "--listen", "127.0.0.1:0", *options], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=self.log_file, start_new_session=True)
        line = self.child.stdout.readline().decode()  # the end of the process ends the line too
        match = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)\n", line)
        assert match, f"started with {line!r}, log: {self.log()}"
        self.port = int(match[1])

    def log(self):
        self.log_file.seek(0)
        return self.log_file.read().decode(errors="replace")

    def connect(self):
        return contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE))

    def raw(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def call(self, method, path, body=None, **headers):
        """(status, headers, JSON) on a connection of its own."""
        with self.connect() as connection:
            return ask(connection, method, path, body, **headers)

    def control(self, **members):
        status, _, state = self.call("POST", "/control", members)
        assert status == 200, state
        return state

    def last_transfer(self):
        return self.call("GET", "/control")[2]["observed"]["last_transfer"]

    def balance(self, account):
        return self.call("GET", f"/accounts/{account}")[2]["balance"]

    def stop(self):
        """SIGTERM, a bounded wait, exit 0, nothing from a sanitizer."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        self.finish()

    def finish(self):
        try:
            code = self.child.wait(PATIENCE)
        finally:
            if self.child.poll() is None:
                self.child.kill()
                self.child.wait()
            self.child.stdout.close()
        log = self.log()
        assert code == 0, f"ended with {code}: {log}"
        assert not re.search(r"Sanitizer|runtime error:", log), log
        return log


def ask(connection, method, path, body=None, **headers):
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        names.setdefault("Content-Type", "application/json")
    connection.request(method, path, body, names)
    response = connection.getresponse()
    text = response.read()
    is_json = "json" in (response.getheader("Content-Type") or "") and text
    return response.status, response.headers, json.loads(text) if is_json else text


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)  # the pause of a poll, bounded by the deadline


def read_to_end(sock):
    out = b""
    while data := sock.recv(1 << 16):
        out += data
    return out


def answers(received):
    """Status codes of answers that carry Content-Length, in order; whatever is no whole answer fails."""
    out = []
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        assert end, head
        size = int(re.search(rb"content-length: (\d+)", head, re.I)[1])
        assert len(received) >= size, head
        received = received[size:]
        out.append(int(head.split()[1]))
    return out


def pattern(size):
    return (LINE * (size // len(LINE) + 1))[:size]


@pytest.fixture(scope="module")
def process_of_module():
    ledger = Ledger("--accounts", "5", "--initial", "1000000")
    yield ledger
    ledger.stop()


CALM = {"latency_ms": 0, "fail_percent": 0, "fail_status": 503, "fail_after_effect": False, "healthy": True, "hang": False}


@pytest.fixture
def ledger(process_of_module):
    process_of_module.control(**CALM)
    yield process_of_module
    process_of_module.control(**CALM)


TRANSFER = {"from": 1, "to": 2, "amount": 10}


# ---- the API ------------------------------------------------------------------------------------------------------


def test_a_transfer_repeated_moves_the_money_again(ledger):
    before = ledger.balance(1), ledger.balance(2)
    first = ledger.call("POST", "/transfers", TRANSFER)
    second = ledger.call("POST", "/transfers", TRANSFER)
    assert (first[0], second[0]) == (201, 201)
    assert second[2]["id"] == first[2]["id"] + 1
    assert second[1]["Location"] == f"/transfers/{second[2]['id']}"
    assert second[2]["balances"] == {"1": before[0] - 20, "2": before[1] + 20}
    assert ledger.call("GET", second[1]["Location"])[2] == {"id": second[2]["id"], **TRANSFER}


def test_many_clients_at_once_keep_the_sum(ledger):
    def work(seed):
        with ledger.connect() as connection:
            statuses = set()
            for i in range(100):
                pair = {"from": (seed + i) % 5 + 1, "to": (seed + 2 * i + 1) % 5 + 1, "amount": 1 + i}
                statuses.add(ask(connection, "POST", "/transfers", pair)[0])
            return statuses

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = set().union(*pool.map(work, range(8)))
    assert statuses <= {201, 400, 409}
    page = ledger.call("GET", "/accounts")[2]
    assert page["total_balance"] == 5_000_000 == sum(account["balance"] for account in page["accounts"])


def test_a_bulk_answers_each_element_in_place(ledger):
    status, _, out = ledger.call("POST", "/transfers/bulk", [TRANSFER, {"from": 1}, {**TRANSFER, "amount": 10**9}, TRANSFER])
    assert status == 200
    assert [element["status"] for element in out] == [201, 400, 409, 201]
    assert out[2]["error"] == "insufficient funds"


@pytest.mark.parametrize("status, method, path, body, kind", [
    (400, "POST", "/transfers", b"{", "application/json"),
    (400, "POST", "/transfers", b'{"from":1,"to":1,"amount":1}', "application/json"),
    (404, "POST", "/transfers", b'{"from":1,"to":77,"amount":1}', "application/json"),
    (409, "POST", "/transfers", b'{"from":1,"to":2,"amount":99999999}', "application/json"),
    (413, "POST", "/transfers", b" " * (1024 * 1024 + 1), "application/json"),
    (415, "POST", "/transfers", b"{}", "text/plain"),
    (404, "GET", "/accounts/77", None, None),
    (404, "GET", "/transfers/999999", None, None),
    (404, "GET", "/nothing", None, None),
    (405, "DELETE", "/transfers", None, None),
    (400, "GET", "/transfers?limit=many", None, None),
])
def test_a_refusal_is_a_problem(ledger, status, method, path, body, kind):
    got, headers, problem = ledger.call(method, path, body, **({"Content_Type": kind} if kind else {}))
    assert got == status
    assert headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == status and problem["title"] and problem["detail"]
    assert ("Allow" in headers) == (status == 405)


def test_a_body_of_exactly_the_limit_is_read(ledger):
    assert ledger.call("POST", "/transfers", b" " * (1024 * 1024))[0] == 400


def test_a_chunked_body_over_the_limit_is_413(ledger):
    with ledger.connect() as connection:
        connection.putrequest("POST", "/echo")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        with contextlib.suppress(ConnectionError):  # it answers and closes while we still send
            for _ in range(33):
                connection.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
        assert connection.getresponse().status == 413


def test_echo_shows_what_came(ledger):
    with ledger.raw() as sock:
        sock.sendall(b"PUT /echo/a?b=%20 HTTP/1.1\r\nHost: e.example\r\nX-One: 1\r\nx-one: 2\r\nTransfer-Encoding: chunked\r\n"
                     b"Connection: close\r\n\r\n3\r\nabc\r\n2\r\n\xff!\r\n0\r\nX-End: yes\r\n\r\n")
        out = json.loads(read_to_end(sock).partition(b"\r\n\r\n")[2])
    assert (out["method"], out["target"], out["version"]) == ("PUT", "/echo/a?b=%20", "1.1")
    assert ["X-One", "1"] in out["headers"] and ["x-one", "2"] in out["headers"]
    assert out["body_bytes"] == 5 and out["body"] == "abc\ufffd!"
    assert out["trailers"] == [["X-End", "yes"]]


def test_a_client_that_waits_for_100_gets_it(ledger):
    with ledger.raw() as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"ok")
        assert b'"body": "ok"' in read_to_end(sock)


# ---- streams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 20_000_000])
def test_a_stream_has_its_size_and_pattern(ledger, kind, size):
    status, headers, body = ledger.call("GET", f"/{kind}/{size}")
    assert status == 200
    assert headers["Content-Length"] == (str(size) if kind == "bytes" else None)
    assert headers["Transfer-Encoding"] == ("chunked" if kind == "chunked" else None)
    assert body == pattern(size)


def resident_kib(ledger):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{ledger.child.pid}/status").read_text())[1])


def test_a_slow_reader_holds_no_more_than_a_turns_output(ledger):
    before = resident_kib(ledger)
    with ledger.raw() as sock:
        sock.sendall(b"GET /bytes/1000000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert sock.recv(1000)
        for _ in range(20):
            assert ledger.call("GET", "/healthz")[0] == 200
        assert resident_kib(ledger) - before < 8 * 1024
    # The client that left must not have hurt anyone.
    assert ledger.call("GET", "/bytes/100")[2] == pattern(100)


def test_head_has_no_body_and_keeps_the_connection(ledger):
    with ledger.connect() as connection:
        for path in ("/bytes/5000000000", "/chunked/5000000000", "/accounts", "/nothing"):
            assert ask(connection, "HEAD", path)[2] == b""
            sock = connection.sock
            assert sock is not None
        assert ask(connection, "GET", "/healthz")[2] == {"status": "ok"}
        assert connection.sock is sock


# ---- connections --------------------------------------------------------------------------------------------------

POST = b"POST /transfers HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n" \
       b'{"from":1, "to":2, "amount":  1}'
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
CLOSE = b"GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def test_pipelined_requests_are_answered_in_order(ledger):
    with ledger.raw() as sock:
        sock.sendall((POST + HEALTH) * 50 + CLOSE)
        assert answers(read_to_end(sock)) == [201, 200] * 50 + [404]


def test_pipelined_streams_come_whole_and_in_order(ledger):
    ledger.control(latency_ms=20)
    with ledger.raw() as sock:
        sock.sendall(b"".join(b"GET /bytes/%d HTTP/1.1\r\nHost: h\r\n\r\n" % (300_000 + i) for i in range(10)) + CLOSE)
        received = read_to_end(sock)
    for i in range(10):
        head, _, received = received.partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % (300_000 + i) in head
        assert received[:300_000 + i] == pattern(300_000 + i)
        received = received[300_000 + i:]
    assert answers(received) == [404]


def test_a_half_closed_client_gets_the_answers_it_waits_for(ledger):
    ledger.control(latency_ms=50)
    with ledger.raw() as sock:
        sock.sendall(POST * 4)
        sock.shutdown(socket.SHUT_WR)
        assert answers(read_to_end(sock)) == [201] * 4


@pytest.mark.parametrize("requests, statuses", [
    (POST + HEALTH, [201, 200]),  # whole in the server's buffers before the end is seen
    (POST + HEALTH + HEALTH, [201, 200, 200]),  # the second answer comes at once when the first is out
    (HEALTH.replace(b"healthz", b"accounts") * 40, [200] * 40),  # more than the pipelining limit
])
def test_a_half_closed_client_gets_all_answers_of_a_mixed_pipeline(ledger, requests, statuses):
    ledger.control(latency_ms=50)
    with ledger.raw() as sock:
        sock.sendall(requests)
        sock.shutdown(socket.SHUT_WR)
        assert answers(read_to_end(sock)) == statuses


def test_a_client_that_asks_without_reading_is_not_given_unbounded_memory(ledger):
    if any(name in pathlib.Path(program()).read_bytes() for name in (b"__asan_init", b"__tsan_init")):
        pytest.skip("resident memory says nothing under a sanitizer")
    before = resident_kib(ledger)
    requests = b"GET /accounts?limit=1000 HTTP/1.1\r\nHost: h\r\n\r\n" * 2000
    with ledger.raw() as sock:
        sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):  # that the server stops reading is what should happen
            for _ in range(100):
                sock.sendall(requests)
        assert resident_kib(ledger) - before < 8 * 1024


def test_an_http10_client_is_answered_and_closed(ledger):
    with ledger.raw() as sock:
        sock.sendall(b"GET /chunked/100000 HTTP/1.0\r\n\r\n")
        head, _, body = read_to_end(sock).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head and b"Connection: close" in head
    assert body == pattern(100_000)


def test_bytes_that_are_no_request_get_400_as_a_problem(ledger):
    with ledger.raw() as sock:
        sock.sendall(HEALTH + b"GET no-target HTTP/1.1\r\n\r\n")
        received = read_to_end(sock)
    assert answers(received) == [200, 400]
    assert b"application/problem+json" in received


# ---- misbehaviour on order ----------------------------------------------------------------------------------------


def test_latency_is_between_effect_and_answer_and_spares_management(ledger):
    before = ledger.last_transfer()
    ledger.control(latency_ms=60_000)
    with ledger.raw() as sock:
        sock.sendall(POST)
        wait_until(lambda: ledger.last_transfer() == before + 1)
        assert ledger.call("GET", "/healthz")[0] == 200
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    # The client went away without its answer, but the money has moved: that is what makes repeating it unsafe.
    ledger.control(latency_ms=0)
    assert ledger.call("GET", f"/transfers/{before + 1}")[2]["amount"] == 1


def test_failures_come_as_often_as_told_and_have_no_effect(ledger):
    before = ledger.last_transfer()
    ledger.control(fail_percent=50, fail_status=502)
    with ledger.connect() as connection:
        statuses = [ask(connection, "POST", "/transfers", TRANSFER)[0] for _ in range(400)]
    ledger.control(fail_percent=0)
    assert set(statuses) == {201, 502}
    assert 120 < statuses.count(502) < 280
    assert ledger.last_transfer() - before == statuses.count(201)


@pytest.mark.parametrize("after", [False, True])
def test_a_failure_can_come_before_or_after_the_effect(ledger, after):
    before = ledger.balance(1)
    ledger.control(fail_percent=100, fail_after_effect=after)
    assert ledger.call("POST", "/transfers", TRANSFER)[0] == 503
    ledger.control(fail_percent=0)
    assert ledger.balance(1) == before - (10 if after else 0)


def test_a_failure_can_be_a_cut_connection(ledger):
    ledger.control(fail_percent=100, fail_status=0)
    with ledger.raw() as sock:
        sock.sendall(POST + HEALTH)
        assert read_to_end(sock) == b""
    assert ledger.call("GET", "/healthz")[0] == 200


def test_hanging_requests_are_answered_when_it_ends(ledger):
    ledger.control(hang=True)
    with ledger.raw() as one, ledger.raw() as two:
        one.sendall(POST)
        two.sendall(HEALTH.replace(b"/healthz", b"/accounts"))
        one.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.recv(1)
        one.settimeout(PATIENCE)
        ledger.control(hang=False)
        assert one.recv(12) == b"HTTP/1.1 201"
        assert two.recv(12) == b"HTTP/1.1 200"


def test_unhealthy_is_503_at_healthz_only(ledger):
    ledger.control(healthy=False)
    assert ledger.call("GET", "/healthz")[0] == 503
    assert ledger.call("GET", "/accounts")[0] == 200


# ---- start and end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_finish(number):
    ledger = Ledger("--latency", "500ms")
    with ledger.raw() as busy, ledger.raw() as idle:
        idle.sendall(HEALTH)
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        busy.sendall(POST)
        wait_until(lambda: ledger.last_transfer() == 1)
        ledger.child.send_signal(number)
        received = read_to_end(busy)
        assert answers(received) == [201] and b"Connection: close" in received
        assert read_to_end(idle) == b""
        with pytest.raises(ConnectionError):
            ledger.raw()
    ledger.finish()


def test_the_second_signal_and_the_drain_timeout_end_what_hangs():
    for options, signals in (([], 2), (["--drain-timeout", "100ms"], 1)):
        ledger = Ledger("--quiet", *options)
        ledger.control(hang=True)
        with ledger.raw() as sock:
            sock.sendall(POST)
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(PATIENCE)
            for _ in range(signals):
                ledger.child.send_signal(signal.SIGTERM)
                time.sleep(0.1)  # two of the same signal at once are one
            assert read_to_end(sock) == b""
        assert ledger.finish() == ""  # quiet


def test_options_that_make_no_sense_are_told():
    for options, code in ((["--accounts", "0"], 2), (["--latency", "fast"], 2), (["--listen", "nowhere"], 2),
                          (["--what"], 2), (["--listen", "192.0.2.1:1"], 1), (["--help"], 0)):
        done = subprocess.run([program(), *options], capture_output=True, timeout=PATIENCE, text=True)
        assert done.returncode == code, done
        assert done.stderr or code == 0


def test_a_port_in_use_is_told_with_exit_code_1(ledger):
    done = subprocess.run([program(), "--listen", f"127.0.0.1:{ledger.port}"], capture_output=True, timeout=PATIENCE, text=True)
    assert done.returncode == 1
    assert "in use" in done.stderr
