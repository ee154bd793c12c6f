"""The admin endpoint: every path, who may change what, and metrics that a strict reader takes and that add up."""
import html.parser
import json
import os
import re
import signal
import socket
import tomllib

import pytest

from exposition import scrape
from sidecar import (Load, RawClient, Sidecar, accepts, app, ask, cluster, free_port, listener, namespace_or_skip,
                     request_bytes, route, run, wait_until)

GETS = ["/", "/help", "/ready", "/live", "/metrics", "/config", "/config?source=1", "/config?format=toml", "/clusters", "/listeners", "/routes",
        "/idempotency", "/server_info"]
WITH_NAMES = ["/idempotency/{store}/{key}", "/idempotency/{store}/{key}/forget"]  # test_idempotency.py
POSTS = ["/reload", "/reload?dry_run", "/drain", "/logging?level=info", "/health/fail", "/health/ok", "/shutdown"]
JSON_PAGES = ["/help", "/clusters", "/listeners", "/routes", "/idempotency", "/server_info"]
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"

BODY = (route("pay", match={"host": "pay.example", "path_prefix": "/pay", "methods": ["POST"], "headers": {"X-Canary": "1"}},
              cluster="app")
        + route("gone", match={"path": "/gone"}, respond={"status": 410, "body": "gone"})
        + route("moved", match={"path_prefix": "/old"}, redirect={"prefix": "/new"})
        + route("split", match={"path_prefix": "/split"},
                clusters=[{"name": "app", "weight": 9}, {"name": "dead", "weight": 0}],
                mirror={"cluster": "dead", "percent": 0})
        + route("all", cluster="app", headers={"request": {"set": {"X-A": "b", "Authorization": "Bearer hunter2-set"},
                                                            "add": {"X-Api-Key": "hunter2-add"}}}))


@pytest.fixture(scope="module")
def sidecar():
    with app() as upstream:
        body = BODY + cluster("app", upstream.port) + cluster("dead", free_port())
        with Sidecar(body, workers=2, runtime={}, admin={}) as one:
            one.upstream = upstream
            yield one


@pytest.fixture
def own():
    """One that a test may end or spoil."""
    with app() as upstream:
        body = route("all", cluster="app") + cluster("app", upstream.port)
        sidecar = Sidecar(body, workers=2)
        sidecar.admin_keys = {"status_listen": f"127.0.0.1:{sidecar.status_port}"}
        with sidecar:
            sidecar.upstream = upstream
            yield sidecar


# ---- pages -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GETS)
def test_every_page_answers(sidecar, path):
    answer = sidecar.admin(path)
    assert answer.status == 200 and answer.body
    assert answer.one("cache-control") == b"no-store"
    assert answer.one("x-content-type-options") == b"nosniff"


@pytest.mark.parametrize("path", GETS)
def test_head_is_the_page_without_its_body(sidecar, path):
    page, head = sidecar.admin(path), sidecar.admin(path, "HEAD")
    assert head.status == 200
    assert head.one("content-type") == page.one("content-type")
    assert head.one("content-length") is not None


@pytest.mark.parametrize("path", JSON_PAGES + ["/"])
def test_pages_are_json_unless_html_is_asked_for(sidecar, path):
    assert isinstance(sidecar.json(path), dict)


class WellFormed(html.parser.HTMLParser):
    """Every tag that is opened is closed, in order."""

    VOID = {"meta", "link", "br", "hr", "img", "input"}

    def __init__(self):
        super().__init__()
        self.open = []
        self.seen = set()

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> in {self.open}"


@pytest.mark.parametrize("path", JSON_PAGES + ["/"])
def test_html_for_a_browser(sidecar, path):
    answer = sidecar.admin(path, fields=[("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")])
    assert answer.status == 200
    assert answer.one("content-type") == b"text/html; charset=utf-8"
    page = WellFormed()
    page.feed(answer.body.decode())
    assert not page.open and "table" in page.seen and "script" not in page.seen
    assert b"default-src 'none'" in answer.one("content-security-policy")


def test_html_escapes_what_it_shows():
    """Values of the file reach the pages."""
    body = route("all", match={"headers": {"X-A": "<script>alert(1)</script>"}}, respond={"body": "x"})
    with Sidecar(body) as sidecar:
        for path in GETS:
            answer = sidecar.admin(path, fields=[("Accept", "text/html")])
            if b"html" in answer.one("content-type"):
                assert b"<script>" not in answer.body


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_pages_are_read_only(sidecar, path, method):
    answer = sidecar.admin(path, method)
    assert answer.status == 405
    assert answer.one("allow") == b"GET, HEAD"
    assert answer.one("content-type") == b"application/problem+json"


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_changes_are_posts(sidecar, path, method):
    answer = sidecar.admin(path, method)
    assert answer.status == 405
    assert answer.one("allow") == b"POST"
    assert sidecar.admin("/ready").status == 200


def test_an_unknown_path_is_404_with_the_list(sidecar):
    for path in ("/nonsense", "/config/", "/Ready", "//ready", "/health", "/%72eady", "/../ready"):
        answer = sidecar.admin(path)
        assert answer.status == 404, path
        paths = {entry["path"] for entry in json.loads(answer.body)["paths"]}
        assert {path.partition("?")[0] for path in GETS + POSTS + WITH_NAMES} == paths


def test_help_lists_methods_and_meanings(sidecar):
    entries = {entry["path"]: entry for entry in sidecar.json("/help")["paths"]}
    assert entries["/reload"]["method"] == "POST" and entries["/metrics"]["method"] == "GET"
    assert all(entry["what"] for entry in entries.values())


def test_pages_keep_their_connection_and_pipeline(sidecar):
    with RawClient(sidecar.admin_port) as client:
        for path in GETS:
            assert ask(client, path, host="localhost").status == 200
        client.send(b"".join(request_bytes(path, host="localhost") for path in GETS))
        assert [client.response().status for _ in GETS] == [200] * len(GETS)


def test_routes_say_what_the_file_says(sidecar):
    routes = {entry["name"]: entry for entry in sidecar.json("/routes")["routes"]}
    assert list(routes) == ["pay", "gone", "moved", "split", "all"], "in file order"
    assert routes["pay"]["match"] == {"host": "pay.example", "path_prefix": "/pay", "methods": ["POST"], "headers": ["X-Canary"]}
    assert routes["gone"]["respond"] == 410
    assert routes["moved"]["redirect"] == 308
    assert routes["split"]["clusters"] == [{"cluster": "app", "weight": 9}, {"cluster": "dead", "weight": 0}]


def test_listeners_and_clusters_show_where_they_are(sidecar):
    (one,) = sidecar.json("/listeners")["listeners"]
    assert (one["name"], one["address"], one["routes"]) == ("inbound", f"127.0.0.1:{sidecar.port}", 5)
    clusters = {entry["name"]: entry for entry in sidecar.json("/clusters")["clusters"]}
    assert [e["endpoint"] for e in clusters["app"]["endpoints"]] == [f"127.0.0.1:{sidecar.upstream.port}"]


def test_live_figures(own):
    """What /clusters, /listeners and /server_info count while something is going on."""
    import threading
    gate = threading.Event()
    begun = threading.Event()

    def hold(exchange):
        begun.set()
        gate.wait(20)
        exchange.reply()

    own.upstream.script = hold
    with own.client() as client:
        client.send(request_bytes("/held"))
        assert begun.wait(10)
        info = own.json("/server_info")
        assert (info["connections"], info["in_flight"], info["workers"]) == (1, 1, 2)
        assert sorted(info["connections_by_worker"]) == [0, 1]
        assert own.json("/listeners")["listeners"][0]["connections"] == 1
        endpoint = own.json("/clusters")["clusters"][0]["endpoints"][0]
        assert (endpoint["in_flight"], endpoint["connections"], endpoint["idle"]) == (1, 1, 0)
        metrics = scrape(own)
        assert metrics.value("outrider_http_downstream_connections", listener="inbound") == 1
        assert metrics.value("outrider_upstream_in_flight", cluster="app") == 1
        gate.set()
        assert client.response().status == 200
        endpoint = wait_until(lambda: [e for e in own.json("/clusters")["clusters"][0]["endpoints"] if e["idle"] == 1], 5,
                              "the pooled connection")[0]
        assert (endpoint["in_flight"], endpoint["requests"], endpoint["failures"]) == (0, 1, 0)
    wait_until(lambda: own.json("/server_info")["connections"] == 0, 20, "the client's end")


# ---- who may change ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", POSTS)
def test_changes_from_a_web_page_are_refused(sidecar, path):
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{sidecar.admin_port}", ""):
        answer = sidecar.admin(path, "POST", fields=[("Origin", origin)])
        assert answer.status == 403, (path, origin)
        answer = sidecar.admin(path, "POST", fields=[("Connection", "origin"), ("Origin", origin)])
        assert answer.status == 403, (path, origin, "named by Connection")
    assert sidecar.admin("/ready").status == 200


@pytest.mark.parametrize("path", POSTS)
def test_changes_through_a_proxy_are_refused(sidecar, path):
    for fields in ([("Via", "1.1 somebody")], [("via", "")], [("Connection", "Via"), ("Via", "1.1 somebody")]):
        answer = sidecar.admin(path, "POST", fields=fields)
        assert answer.status == 403 and b"proxy" in answer.body, (path, fields)
    assert sidecar.admin("/ready", fields=[("Via", "1.1 somebody")]).status == 200, "pages may be read"


def test_the_sidecar_itself_is_no_loopback_peer():
    """A route to the admin interface, on purpose or by a name that resolves to it, opens no change to the network."""
    sidecar = Sidecar("")
    sidecar.body = route("all", cluster="own") + cluster("own", sidecar.admin_port)
    with sidecar:
        for path in POSTS:
            for fields in ((), [("Connection", "Via")]):
                answer = sidecar.get(path, "localhost", fields, method="POST", body=b"")
                assert answer.status == 403, (path, fields)
        assert sidecar.get("/ready", "localhost").status == 200


OWN_NAMES = ["127.0.0.1", "127.0.0.1:9901", "[::1]", "[::1]:9901", "203.0.113.9", "[2001:db8::1]:80", "localhost", "LocalHost:9901",
             "pod-7.example", "POD-7.example:1", "sidecar.internal", "sidecar.internal:9901"]
FOREIGN_NAMES = ["evil.example", "evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example", "admin", "pod-7",
                 "1.2.3", "0x7f000001"]


@pytest.fixture(scope="module")
def named():
    body = "[node]\nname = \"pod-7.example\"\naddress = \"sidecar.internal\"\n" + route("all", respond={"body": "x"})
    sidecar = Sidecar(body)
    sidecar.admin_keys = {"status_listen": f"127.0.0.1:{sidecar.status_port}"}
    with sidecar:
        yield sidecar


@pytest.mark.parametrize("host", OWN_NAMES)
def test_own_names_are_served(named, host):
    with RawClient(named.admin_port) as client:
        for path in GETS:
            assert ask(client, path, host=host).status == 200, path
        assert ask(client, "/reload?dry_run", host=host, method="POST", body=b"").status == 200


@pytest.mark.parametrize("host", FOREIGN_NAMES)
def test_a_page_whose_name_was_pointed_at_us_reads_nothing(named, host):
    """DNS rebinding: the browser takes the page's own name for our address, so neither Origin nor its rules help."""
    with RawClient(named.admin_port) as client:
        for path, method in [(path, "GET") for path in GETS] + [(path, "POST") for path in POSTS]:
            answer = ask(client, path, host=host, method=method, body=b"")
            assert answer.status == 403 and b"Host" in answer.body, (path, method)
            assert answer.one("content-type") == b"application/problem+json"
        answer = client.request(b"GET http://localhost/config HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
        assert answer.status == 403, "an absolute target does not hide it"
    assert named.admin("/ready", port=named.status_port).status == 200
    with RawClient(named.status_port) as client:
        for path in ("/ready", "/live", "/metrics"):
            assert ask(client, path, host=host).status == 200, "the status address serves whoever probes it"


def test_a_request_without_a_host_is_no_browser(named):
    with RawClient(named.admin_port) as client:
        assert client.request(b"GET /ready HTTP/1.0\r\n\r\n").status == 200


def test_changes_from_another_machine_are_refused():
    """A second address on loopback's device: a peer that is not 127.x."""
    namespace = namespace_or_skip(pytest, addresses=["198.51.100.7"])
    try:
        with namespace.entered():
            body = route("all", respond={"body": "hello"})
            sidecar = Sidecar(body, prefix=namespace.prefix)
            sidecar.admin_keys = {"listen": f"0.0.0.0:{sidecar.admin_port}"}
            with sidecar:
                def from_outside(path, method):
                    sock = socket.create_connection(("198.51.100.7", sidecar.admin_port), 5)
                    with sock:
                        assert sock.getsockname()[0] == "198.51.100.7"
                        sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: 198.51.100.7\r\nX-Forwarded-For: 127.0.0.1\r\n"
                                     "Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
                        return sock.makefile("rb").read()

                for path in POSTS:
                    assert from_outside(path, "POST").startswith(b"HTTP/1.1 403 "), path
                for path in GETS:
                    assert from_outside(path, "GET").startswith(b"HTTP/1.1 200 "), path
                assert sidecar.admin("/ready").status == 200
                assert sidecar.admin("/health/fail", "POST").status == 200, "loopback may"
                assert sidecar.admin("/health/ok", "POST").status == 200
    finally:
        namespace.close()


def test_status_listen_serves_only_three_paths(own):
    for path in ("/ready", "/live", "/metrics"):
        assert own.admin(path, port=own.status_port).status == 200
        assert own.admin(path, "HEAD", port=own.status_port).status == 200
        assert own.admin(path, "POST", port=own.status_port).status == 405
    for path in GETS + POSTS:
        if path in ("/ready", "/live", "/metrics"):
            continue
        for method in ("GET", "POST"):
            answer = own.admin(path, method, port=own.status_port)
            assert answer.status == 404, (path, method)
    assert own.admin("/ready").status == 200
    scrape(own, OPEN_METRICS, port=own.status_port)


# ---- changes -----------------------------------------------------------------------------------------------------------------


def test_health_override(own):
    assert own.json("/health/fail", "POST") == {"ready": False}
    answer = own.admin("/ready")
    assert answer.status == 503 and b"operator" in answer.body
    assert own.admin("/ready", port=own.status_port).status == 503
    assert own.admin("/live").status == 200
    assert own.get().status == 200, "only the probe's answer changes"
    assert scrape(own).value("outrider_ready") == 0
    assert own.json("/health/ok", "POST") == {"ready": True}
    assert own.admin("/ready").status == 200


def test_logging_changes_the_level(own):
    assert own.json("/server_info")["log_level"] == "info"
    assert own.json("/logging?level=debug", "POST") == {"level": "debug"}
    assert own.json("/server_info")["log_level"] == "debug"
    for path in ("/logging", "/logging?level=", "/logging?level=loud", "/logging?lvl=debug"):
        answer = own.admin(path, "POST")
        assert answer.status == 400, path
        assert answer.one("content-type") == b"application/problem+json"
    assert own.json("/server_info")["log_level"] == "debug"
    for level in ("trace", "debug", "info", "warning", "error", "off"):
        assert own.json(f"/logging?level={level}", "POST") == {"level": level}


def test_reload_and_dry_run(own):
    good = own.text()
    own.write(good + route("second", match={"path": "/second"}, respond={"body": "new"}))
    answer = own.json("/reload?dry_run", "POST")
    assert (answer["ok"], answer["dry_run"], answer["generation"]) == (True, True, 1)
    assert any("second" in message for message in answer["messages"]), "the warning of a route never taken"
    assert len(own.json("/routes")["routes"]) == 1
    answer = own.json("/reload", "POST")
    assert (answer["ok"], answer["generation"]) == (True, 2)
    assert len(own.json("/routes")["routes"]) == 2

    own.write(good.replace("cluster", "clutser"))
    for path in ("/reload?dry_run", "/reload?dry_run=1", "/reload"):
        answer = own.admin(path, "POST")
        assert answer.status == 422
        result = json.loads(answer.body)
        assert not result["ok"] and result["generation"] == 2
        assert any("did you mean" in message and "outrider.toml:" in message for message in result["messages"])
    assert own.rejected() == 1, "a dry run is no rejected configuration"
    own.write(good.replace("workers = 2", "workers = 3"))
    answer = own.json("/reload", "POST")
    assert answer["ok"] and any("runtime.workers" in m and "next start" in m for m in answer["messages"])
    assert own.json("/server_info")["workers"] == 2


def test_config_makes_the_round_trip(sidecar, tmp_path):
    answer = sidecar.admin("/config?format=toml")
    assert answer.one("content-type") == b"application/toml"
    first = answer.body.decode()
    settings = tomllib.loads(first)
    as_json = sidecar.admin("/config")
    assert as_json.one("content-type") == b"application/json" and json.loads(as_json.body) == settings
    assert settings["listener"][0]["header_timeout"] == "10s", "defaults are spelled out"
    path = tmp_path / "again.toml"
    path.write_text(first)
    result = run("validate", "-c", path)
    assert (result.returncode, result.stdout) == (0, "OK\n"), result
    with app() as _:
        again = Sidecar("")
        # The same file under other ports gives the same configuration.
        text = first.replace(str(sidecar.port), str(again.port)).replace(str(sidecar.admin_port), str(again.admin_port))
        again.text = lambda: text
        again.choose_ports = lambda: None
        with again:
            second = again.admin("/config?format=toml").body.decode()
            assert second.replace(str(again.port), str(sidecar.port)).replace(
                str(again.admin_port), str(sidecar.admin_port)) == first


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_secrets_are_hidden(sidecar, path, accept):
    assert b"hunter2" not in sidecar.admin(path, fields=[("Accept", accept)]).body


def test_source_shows_the_file_with_its_variables_unexpanded():
    body = route("all", respond={"body": "x"}, headers={"response": {"set": {"X-Token": "${OUTRIDER_TEST_TOKEN}",
                                                                             "X-Zone": "${OUTRIDER_TEST_TOKEN}"}}})
    with Sidecar("# a comment\n" + body, environment={"OUTRIDER_TEST_TOKEN": "hunter3"}) as sidecar:
        source = sidecar.admin("/config?source=1").body
        assert b"# a comment" in source and b"${OUTRIDER_TEST_TOKEN}" in source
        assert b"hunter3" not in source
        assert sidecar.get().one("x-token") == b"hunter3"


def test_credentials_are_hidden_however_they_are_written():
    body = "# Authorization = 'Bearer hunter4'\n" + route("all", respond={"body": "x"}, headers={"response": {
        "set": {"X-Auth-Key": "${OUTRIDER_NONE:-hunter4}", "X-Plain": "seen"}, "add": {"Set-Cookie": ["hunter4", "a=hunter4"]}}})
    with Sidecar(body) as sidecar:
        assert sidecar.get().one("x-auth-key") == b"hunter4"
        for path in ("/config?source=1", "/config", "/config?format=toml"):
            answer = sidecar.admin(path).body
            assert b"hunter4" not in answer and b"seen" in answer, path


def test_drain_by_post(own):
    own.drain_keys = {"delay": "300ms", "timeout": "5s"}
    assert own.reload()[0] == 200
    assert own.json("/drain", "POST") == {"draining": True}
    assert own.admin("/ready").status == 503
    assert own.json("/drain", "POST") == {"draining": True}, "twice is once"
    assert own.wait() == 0


def test_shutdown_by_post(own):
    with own.client() as client:
        assert ask(client).status == 200
        assert own.json("/shutdown", "POST") == {"shutdown": True}
        assert own.wait(5) == 0
        client.assert_closed()


# ---- metrics -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [None, "text/plain", OPEN_METRICS, "application/openmetrics-text;q=0.5,text/plain;q=0.4"])
def test_metrics_parse_strictly(sidecar, accept):
    sidecar.get("/split/x")
    metrics = scrape(sidecar, accept)
    assert metrics.open_metrics == ("openmetrics" in (accept or ""))
    for name in ("outrider_build_info", "outrider_config_generation", "outrider_config_rejected_total",
                 "process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"):
        assert any(have == name for have, _ in metrics.samples), name
    assert all(name.startswith(("outrider_", "process_")) for name, _ in metrics.samples)


def test_counters_add_up_with_the_requests_made(own):
    own.body = (route("direct", match={"path": "/direct"}, respond={"status": 418, "body": "tea"})
                + route("dead", match={"path_prefix": "/dead"}, cluster="dead")
                + route("all", match={"path_prefix": "/ok"}, cluster="app")
                + cluster("app", own.upstream.port) + cluster("dead", free_port()))
    assert own.reload()[0] == 200
    with own.client() as client:
        for number in range(20):
            assert ask(client, f"/ok/{number}").status == 200
        for _ in range(3):
            assert ask(client, "/direct").status == 418
        for _ in range(4):
            assert ask(client, "/dead").status == 502
        for _ in range(5):
            assert ask(client, "/nowhere").status == 404
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.response().status == 400
    wait_until(lambda: own.json("/server_info")["connections"] == 0, 20, "the client's end")
    for accept in (None, OPEN_METRICS):
        metrics = scrape(own, accept)
        count = lambda **labels: metrics.value("outrider_http_requests_total", listener="inbound", **labels)  # noqa: E731
        assert count(route="all", cluster="app", code="200") == 20
        assert count(route="direct", cluster="", code="418") == 3
        assert count(route="dead", cluster="dead", code="502") == 4
        assert count(route="", cluster="", code="404") == 5
        assert count(route="", cluster="", code="400") == 1
        assert metrics.sum("outrider_http_requests_total") == 33
        assert metrics.sum("outrider_http_request_duration_seconds_count") == 33
        assert metrics.value("outrider_upstream_attempts_total", cluster="app", outcome="success") == 20
        assert metrics.value("outrider_upstream_attempts_total", cluster="dead", outcome="connect_failed") == 4
        assert metrics.value("outrider_http_downstream_connections", listener="inbound") == 0
        assert metrics.value("outrider_upstream_in_flight", cluster="app") == 0
    routes = {entry["name"]: entry["requests"] for entry in own.json("/routes")["routes"]}
    assert routes == {"direct": 3, "dead": 4, "all": 20}


def test_counters_survive_a_reload_and_never_fall(own):
    with Load(own.port, clients=4) as load:
        last = 0
        for number in range(6):
            load.wait_for_answers(30)
            assert own.reload(route(f"r{number % 2}", cluster="app") + cluster("app", own.upstream.port))[0] == 200
            total = scrape(own).sum("outrider_http_requests_total")
            assert total >= last
            last = total
    load.verdict()
    wait_until(lambda: scrape(own).sum("outrider_http_requests_total") == load.answers, 20, "the last counts")


# ---- bad input ---------------------------------------------------------------------------------------------------------------


GARBAGE = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
           b"GET /ready\r\n\r\n", b"\x00" * 100, b"SSH-2.0-x\r\n", b"GET /ready HTTP/1.1\r\n\r\n",
           b"GET /ready HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
           b"POST /drain HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
           b"POST /drain HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200000,
           b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", b"GET /ready HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n"]


@pytest.mark.parametrize("index", range(len(GARBAGE)))
def test_garbage_is_refused_and_nothing_changes(sidecar, index):
    with RawClient(sidecar.admin_port) as client:
        client.send(GARBAGE[index])
        answer = client.response()
        assert 400 <= answer.status < 600, answer
        client.half_close()
        client.wire.rest()
    assert sidecar.admin("/ready").status == 200


def test_many_admin_connections_are_bounded(own):
    """Idle connections to the admin port cannot use up the process's descriptors."""
    with_sockets = [socket.create_connection(("127.0.0.1", own.admin_port), 5) for _ in range(300)]
    try:
        wait_until(lambda: scrape_open(own), 10, "a bound")
        assert own.get().status == 200
    finally:
        for sock in with_sockets:
            sock.close()
    wait_until(own.ready, 10, "the admin port's recovery")


def scrape_open(sidecar):
    import os
    return len(os.listdir(f"/proc/{sidecar.child.pid}/fd")) < 300


def test_a_slow_request_does_not_stop_the_others(own):
    with RawClient(own.admin_port) as slow:
        slow.send(b"GET /rea")
        assert own.admin("/ready").status == 200
        slow.send(b"dy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.response().status == 200


@pytest.mark.parametrize("path,status", [("/reload?dry_run", 200), ("/nonsense", 404)])
def test_a_body_that_waits_for_leave_gets_it(own, path, status):
    """Expect: 100-continue (RFC 9110 section 10.1.1): without the 100 a client waits, a second in curl's case."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: "
    with RawClient(own.admin_port) as client:
        for _ in range(2):
            client.send(head.encode() + b"5\r\n\r\n")
            assert client.wire.response_head().status == 100
            client.send(b"hello")
            answer = client.response()
            assert (answer.status, answer.interim) == (status, [])
        client.send(head.encode() + b"0\r\n\r\n")
        assert client.response().interim == [], "nothing is owed"
        client.send(head.encode() + b"70000\r\n\r\n")
        answer = client.response()
        assert (answer.status, answer.interim) == (413, []), "the answer comes instead of the leave"
    with RawClient(own.admin_port) as client:
        client.send(head.encode().replace(b"HTTP/1.1", b"HTTP/1.0") + b"5\r\n\r\nhello")
        assert client.response().interim == [], "HTTP/1.0 knows no 1xx"


# ---- crowds ------------------------------------------------------------------------------------------------------------------


LIVE = request_bytes("/live", host="localhost")
CROWD = 256  # what a port takes


def crowd(port, message=LIVE):
    """More connections than a port takes, each with a request."""
    sockets = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(CROWD + 20)]
    for sock in sockets:
        renewed(sock, port, message)
    return sockets


def renewed(sock, port, message=LIVE):
    """The connection with another request on it, or a new one in its place."""
    try:
        sock.sendall(message)
        return sock
    except OSError:
        sock.close()
        again = socket.create_connection(("127.0.0.1", port), 5)
        again.sendall(message)
        return again


@pytest.mark.parametrize("which", ["admin", "status"])
def test_a_crowd_that_renews_its_idle_connections_locks_nobody_out(own, which):
    port = own.admin_port if which == "admin" else own.status_port
    sockets = crowd(port)
    try:
        for _ in range(5):
            sockets = [renewed(sock, port) for sock in sockets]
            for _ in range(3):
                assert own.admin("/live", port=port).status == 200
            assert len(os.listdir(f"/proc/{own.child.pid}/fd")) < CROWD + 60, "and the port keeps its bound"
    finally:
        for sock in sockets:
            sock.close()


def test_a_crowd_with_requests_that_never_end_locks_nobody_out(own):
    sockets = crowd(own.status_port, b"POST /live HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    try:
        for _ in range(5):
            assert own.admin("/live", port=own.status_port).status == 200
    finally:
        for sock in sockets:
            sock.close()


def test_a_request_in_flight_outlives_a_crowd_of_idle_connections(own):
    with RawClient(own.status_port) as client:
        client.send(b"POST /live HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.wire.response_head().status == 100
        for sock in crowd(own.status_port):
            sock.close()
        client.send(b"hello")
        assert client.response().status == 405


def test_idle_status_connections_end_soon(own):
    with RawClient(own.status_port) as client, RawClient(own.admin_port) as patient:
        assert ask(client, "/live").status == 200
        assert ask(patient, "/live", host="localhost").status == 200
        client.assert_closed()
        assert ask(patient, "/live", host="localhost").status == 200, "an operator's stays"
