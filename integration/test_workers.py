"""Several workers: even shares, the limit of connections, and reloads beneath connections that live on."""
import concurrent.futures
import contextlib
import os
import re
import socket
import threading

import pytest

from exposition import scrape
from sidecar import Load, RawClient, Sidecar, accepts, app, apps, ask, cluster, free_port, listener, request_bytes, route, wait_until

WORKERS = 4


@pytest.fixture
def upstream():
    with app() as one:
        yield one


def plain(upstream):
    return route(cluster="app") + cluster("app", upstream.port)


def by_worker(sidecar):
    return sidecar.json("/server_info")["connections_by_worker"]


# ---- shares --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["one by one", "all at once"])
def test_64_long_lived_connections_are_shared_evenly(upstream, how):
    with Sidecar(plain(upstream), workers=WORKERS) as sidecar:
        if how == "one by one":
            clients = [sidecar.client() for _ in range(64)]
        else:
            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                clients = list(pool.map(lambda _: sidecar.client(), range(64)))
        for client in clients:
            assert ask(client).status == 200
        shares = by_worker(sidecar)
        assert sum(shares) == 64 and len(shares) == WORKERS
        assert max(shares) <= 1.25 * 16, shares
        for client in clients[::2]:
            client.close()
        wait_until(lambda: sum(by_worker(sidecar)) == 32, 20, "the end of half of them")
        more = [sidecar.client() for _ in range(32)]
        for client in more:
            assert ask(client).status == 200
        shares = by_worker(sidecar)
        assert sum(shares) == 64 and max(shares) <= 1.25 * 16, shares
        for client in clients[1::2] + more:
            assert ask(client).status == 200, "whoever serves it, it is served"
            client.close()
        wait_until(lambda: by_worker(sidecar) == [0] * WORKERS, 20, "the end of all")
        assert scrape(sidecar).value("outrider_http_downstream_connections", listener="inbound") == 0


def test_counts_come_back_to_zero_after_churn(upstream):
    with Sidecar(plain(upstream), workers=WORKERS) as sidecar:
        with Load(sidecar.port, clients=8, requests_per_connection=1) as load:
            load.wait_for_answers(600)
        load.verdict()
        wait_until(lambda: by_worker(sidecar) == [0] * WORKERS, 20, "zero connections")
        info = sidecar.json("/server_info")
        assert (info["connections"], info["in_flight"]) == (0, 0)


# ---- limits --------------------------------------------------------------------------------------------------------------------


def test_above_max_connections_503_and_close(upstream):
    with Sidecar(plain(upstream), workers=WORKERS, runtime={"max_connections": 10}) as sidecar:
        kept = [sidecar.client() for _ in range(10)]
        for client in kept:
            assert ask(client).status == 200
        for _ in range(3):
            with sidecar.client() as extra:
                extra.send(request_bytes("/extra"))
                answer = extra.response()
                assert (answer.status, answer.closes) == (503, True)
                assert b"error=connection_limit_reached" in answer.one("proxy-status")
                assert answer.one("retry-after")
                assert answer.one("content-type") == b"application/problem+json"
                extra.assert_closed()
        assert sidecar.admin("/ready").status == 200, "the admin port has its own bound"
        for client in kept:
            assert ask(client, "/still").status == 200
        kept.pop().close()
        wait_until(lambda: sidecar.json("/server_info")["connections"] < 10, 20, "a free place")
        with sidecar.client() as again:
            assert ask(again).status == 200
        # A reload moves the limit.
        sidecar.runtime["max_connections"] = 12
        assert sidecar.reload()[0] == 200
        wait_until(lambda: sidecar.json("/server_info")["connections"] == 9, 20, "the end of the last one")
        kept += [sidecar.client() for _ in range(3)]
        for client in kept:
            assert ask(client).status == 200
            client.close()
        assert not any(line["path"] == "/extra" and line["status"] == 200 for line in sidecar.access_lines())
        wait_until(lambda: [line["flags"] for line in sidecar.access_lines() if line["status"] == 503] == ["OM"] * 3, 5,
                   "the refusals' lines")


def open_files(limit):
    """A prefix: the program under this limit of open files."""
    return ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh"]


def test_max_connections_beyond_the_open_files_is_clamped_with_a_warning(upstream):
    with Sidecar(plain(upstream), workers=2, runtime={"max_connections": 5000}, prefix=open_files(300)) as sidecar:
        warning = re.search(r"max_connections = 5000 needs (\d+) open files and the limit is 300: only (\d+) client", sidecar.log())
        assert warning and "LimitNOFILE" in sidecar.log(), sidecar.log()
        needed, fits = map(int, warning.groups())
        assert needed - 6314 in range(10, 60) and fits in range(140, 186), warning[0]
        with contextlib.ExitStack() as stack:
            kept = [stack.enter_context(sidecar.client()) for _ in range(fits)]
            for client in kept:
                assert ask(client).status == 200
            extra = stack.enter_context(sidecar.client())
            extra.send(request_bytes())
            assert extra.response().status == 503
            for client in kept:
                assert ask(client).status == 200
        sidecar.runtime["max_connections"] = 20
        assert sidecar.reload()[0] == 200
        assert sidecar.log().count("needs") == 1, "that many fit"


def test_connections_and_exchanges_live_through_a_reload():
    gate = threading.Event()
    begun = threading.Semaphore(0)

    def hold(exchange):
        exchange.read_body()
        if exchange.request.target == b"/held":
            begun.release()
            gate.wait(20)
        exchange.reply(fields=[(b"X-App", b"old")])

    with app(script=hold) as old, app(b"new") as new, Sidecar(plain(old), workers=WORKERS) as sidecar:
        clients = [sidecar.client() for _ in range(8)]
        for client in clients[:4]:
            client.send(request_bytes("/held"))
        for _ in range(4):
            assert begun.acquire(timeout=10)
        body = route("other", cluster="renamed") + cluster("unused", free_port()) + cluster("renamed", new.port)
        assert sidecar.reload(body)[0] == 200
        for client in clients[4:]:
            assert ask(client).one("x-app") == b"new", "exchanges that begin now follow the new file"
        gate.set()
        for client in clients[:4]:
            answer = client.response()
            assert (answer.status, answer.one("x-app"), answer.closes) == (200, b"old", False), "those in flight the old one"
            assert ask(client).one("x-app") == b"new", "on the same connection"
        assert sidecar.json("/server_info")["connections"] == 8
        for client in clients:
            client.close()


def test_a_listener_is_added_and_removed():
    with apps("one", "two") as (one, two), Sidecar(plain(one), workers=WORKERS) as sidecar:
        extra = free_port()
        first = listener(sidecar.port)
        both = first + listener(extra, "extra")
        # The cluster of the second route has an index that the file without it does not have.
        with_extra = route("all", cluster="app") + route("extra", listener="extra", cluster="second") + cluster(
            "app", one.port) + cluster("second", two.port)
        for turn in range(3):
            sidecar.listeners = both
            assert sidecar.reload(with_extra)[0] == 200
            assert [entry["address"] for entry in sidecar.json("/listeners")["listeners"]] == [
                f"127.0.0.1:{sidecar.port}", f"127.0.0.1:{extra}"]
            wait_until(lambda: accepts(extra), 20, "the new listener")
            kept = [RawClient(extra) for _ in range(8)]
            for client in kept:
                for _ in range(2):
                    answer = ask(client)
                    assert (answer.one("x-app"), answer.closes) == (b"two", False), f"turn {turn}"
            sidecar.listeners = first
            assert sidecar.reload(plain(one))[0] == 200
            wait_until(lambda: not accepts(extra), 20, "the listener's end")
            for client in kept[:4]:  # what came in there is still served as it was there, and closed
                answer = ask(client, "/last")
                assert (answer.status, answer.one("x-app"), answer.closes) == (200, b"two", True)
                client.assert_closed()
            for client in kept[4:]:
                client.assert_closed()
                client.close()
            assert sidecar.get().one("x-app") == b"one"
        assert len(sidecar.json("/listeners")["listeners"]) == 1


def stays_open(sidecar):
    """A handshake that a worker's leaving listener had in its queue is still served, and then closed."""
    with sidecar.client() as client:
        return not ask(client).closes and [ask(client).closes for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_listener_is_renamed_or_moves(upstream, host):
    with Sidecar(plain(upstream), workers=WORKERS, listeners=lambda sidecar: listener(sidecar.port, host=host)) as sidecar:
        with sidecar.client() as old:
            assert ask(old).status == 200
            sidecar.listeners = listener(sidecar.port, "renamed", host=host)
            status, answer = sidecar.reload(plain(upstream).replace('"inbound"', '"renamed"'))
            assert status == 200, answer
            wait_until(lambda: stays_open(sidecar), 20, "a connection of the new listener")
            (line,) = sidecar.json("/listeners")["listeners"]
            assert (line["name"], line["address"]) == ("renamed", f"127.0.0.1:{sidecar.port}")
            before, sidecar.port = sidecar.port, free_port()
            sidecar.listeners = listener(sidecar.port, "renamed", host=host)
            assert sidecar.reload()[0] == 200
            wait_until(lambda: accepts(sidecar.port) and not accepts(before), 20, "the move")
            wait_until(lambda: stays_open(sidecar), 20, "a connection of the moved listener")
            (line,) = sidecar.json("/listeners")["listeners"]
            assert line["address"] == f"127.0.0.1:{sidecar.port}"


def test_limits_of_a_listener_change_for_connections_that_are_there(upstream):
    with Sidecar(plain(upstream)) as sidecar, sidecar.client() as client:
        assert ask(client, "/" + "x" * 3000).status == 200
        sidecar.inbound = {"max_target_bytes": "1KiB"}
        assert sidecar.reload()[0] == 200
        with sidecar.client() as fresh:
            assert ask(fresh, "/" + "x" * 3000).status == 414


def test_the_upstream_pool_is_kept_over_a_reload(upstream):
    with Sidecar(plain(upstream), workers=WORKERS) as sidecar:
        clients = [sidecar.client() for _ in range(8)]
        for client in clients:
            assert ask(client).status == 200
        before = len(upstream.connections)
        for number in range(5):
            assert sidecar.reload(route(f"r{number}", cluster="app") + cluster("app", upstream.port, read_timeout=f"{number + 5}s"))[0] == 200
            for client in clients:
                assert ask(client).status == 200
        assert len(upstream.connections) == before, "no connection was opened anew"
        # Another address: the old pool is closed.
        with app(b"other") as other:
            assert sidecar.reload(route(cluster="app") + cluster("app", other.port))[0] == 200
            assert ask(clients[0]).one("x-app") == b"other"
            assert upstream.wait_for(lambda: all(c.closed_by_proxy.is_set() for c in upstream.connections))
        for client in clients:
            client.close()


def test_reloads_do_not_leak_descriptors(upstream):
    with Sidecar(plain(upstream), workers=WORKERS) as sidecar:
        extra = free_port()

        def cycle():
            for listeners in (listener(sidecar.port) + listener(extra, "extra"), listener(sidecar.port)):
                sidecar.listeners = listeners
                assert sidecar.reload()[0] == 200
            wait_until(lambda: not accepts(extra), 20, "the listener's end")
            return len(os.listdir(f"/proc/{sidecar.child.pid}/fd"))

        cycle()
        wait_until(lambda: sidecar.json("/server_info")["connections"] == 0, 20, "quiet")
        counts = [cycle() for _ in range(10)]
        assert counts[-1] <= counts[0] + 4, counts


def test_half_open_clients_do_not_hold_a_place(upstream):
    """A client that resets before it is handed over."""
    with Sidecar(plain(upstream), workers=WORKERS) as sidecar:
        for _ in range(200):
            client = RawClient(sidecar.port)
            client.reset()
        for _ in range(50):
            sock = socket.create_connection(("127.0.0.1", sidecar.port))
            sock.sendall(b"GET / HT")
            sock.close()
        wait_until(lambda: sum(by_worker(sidecar)) == 0, 10, "zero connections")
        assert sidecar.get().status == 200
