#!/usr/bin/env python3
"""Asks Debian's etcd-server and writes down what it answers: golden.json, which api_test.cc replays.

    record_golden.py [--etcd /usr/bin/etcd] [--out golden.json]

The exchanges run in order against a fresh, single etcd on free loopback ports, whose data is thrown away. Ids, terms and
sizes in the answers are as etcd made them; the test does not compare those.
"""

import argparse
import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))


def b64(text):
    data = text.encode() if isinstance(text, str) else text
    return base64.b64encode(data).decode()


def key(name, end=None, **more):
    out = {"key": b64(name)}
    if end is not None:
        out["range_end"] = b64(end)
    out.update(more)
    return out


def put(name, value="", **more):
    out = {"key": b64(name)}
    if value:
        out["value"] = b64(value)
    out.update(more)
    return out


def compare(name, target, result, end=None, **union):
    return key(name, end, target=target, result=result, **union)


ALL = "\0"


def exchanges():
    """(path, body, options): body an object, a string as it is, or None; options: method, lines (of a stream)."""
    kv = "/v3/kv/"
    # Puts.
    yield kv + "put", put("foo", "bar"), {}
    yield kv + "put", put("foo", "baz", prev_kv=True), {}
    yield kv + "put", {"key": b64("foo"), "prevKv": True}, {}
    yield kv + "put", put("", "x"), {}
    yield kv + "put", "", {}
    yield kv + "put", "null", {}
    yield kv + "put", {"key": "###"}, {}
    yield kv + "put", {"key": "Zm9v", "bogus": 1}, {}
    yield kv + "put", {"key": "Zm9v", "bogus": {"a": [1, {"b": None}]}}, {}
    yield kv + "put", '{"key":"Zm9v"', {}
    yield kv + "put", {"key": 5}, {}
    yield kv + "put", {"key": "Zm9v", "lease": "x"}, {}
    yield kv + "put", put("foo", "x", lease="77"), {}
    yield kv + "put", put("foo", "x", lease=77), {}
    yield kv + "put", put("foo", "x", ignore_value=True), {}
    yield kv + "put", put("foo", ignore_value=True, prev_kv=True), {}
    yield kv + "put", put("nokey", ignore_value=True), {}
    yield kv + "put", put("nokey", "x", ignore_lease=True), {}
    yield kv + "put", put("foo", "x", ignore_lease=True, lease="5"), {}
    yield kv + "put", put(b"\x00\xff\xfe", b"\xff\xfb\xef"), {}
    yield kv + "put", "[]", {}
    yield kv + "put", '"x"', {}
    yield kv + "put", '{"key":"Zm9v"} trailing', {}
    yield kv + "put", '{"key":"YQ==","key":"Yg=="}', {}
    yield kv + "put", put("big", "v" * 1_600_000), {}
    for name, value in (("a", "3"), ("b", "2"), ("c", "1"), ("ca", "0")):
        yield kv + "put", put(name, value), {}
    yield kv + "put", put("b", "22"), {}
    # Ranges.
    yield kv + "range", key("foo"), {}
    yield kv + "range", key("none"), {}
    yield kv + "range", key(b"\x00\xff\xfe"), {}
    yield kv + "range", {}, {}
    yield kv + "range", key("a", "d"), {}
    yield kv + "range", key("a", "d", limit=2), {}
    yield kv + "range", key("a", "d", limit="-1"), {}
    yield kv + "range", key("a", "d", count_only=True), {}
    yield kv + "range", key("a", "d", count_only=True, limit=1), {}
    yield kv + "range", key("a", "d", keys_only=True), {}
    yield kv + "range", key(ALL, ALL, keys_only=True), {}
    yield kv + "range", key("b", ALL, keys_only=True), {}
    yield kv + "range", key("d", "a"), {}
    yield kv + "range", key("b", "b"), {}
    for target in ("KEY", "VERSION", "CREATE", "MOD", "VALUE"):
        yield kv + "range", key("a", "cb", sort_order="DESCEND" if target != "VERSION" else "ASCEND",
                                sort_target=target, limit=2), {}
    yield kv + "range", key("a", "d", sort_target="VALUE"), {}
    yield kv + "range", key("a", "d", sort_target="VALUE", limit=2), {}
    yield kv + "range", key("a", "d", sort_order=2), {}
    yield kv + "range", key("a", "d", sort_order="UP"), {}
    yield kv + "range", key("a", "d", min_mod_revision=9, max_mod_revision="11"), {}
    yield kv + "range", key("a", "d", min_create_revision=10, limit=1), {}
    yield kv + "range", key("a", "d", max_create_revision=8), {}
    yield kv + "range", key("foo", revision=2), {}
    yield kv + "range", key("foo", revision="1"), {}
    yield kv + "range", key("foo", revision="999"), {}
    yield kv + "range", key("foo", revision="-5"), {}
    yield kv + "range", key("foo", serializable=True), {}
    yield kv + "range", key("foo", limit=1.5), {}
    yield kv + "range", {"key": b64("foo"), "limit": "99999999999999999999"}, {}
    yield kv + "range", {"key": b64("foo"), "keys_only": "true"}, {}
    yield kv + "range", {"key": "_-8="}, {}
    yield kv + "range", {"key": "YQ"}, {}
    yield kv + "range?x=1", key("foo"), {}
    # Paths and methods.
    yield kv + "range/", key("foo"), {}
    yield kv + "bogus", {}, {}
    yield "/bogus", {}, {}
    yield kv + "range", None, {"method": "GET"}
    yield kv + "put", {}, {"method": "PUT"}
    # Transactions.
    txn = kv + "txn"
    yield txn, {}, {}
    yield txn, {"success": [{}]}, {}
    yield txn, {"success": [{"request_put": put("t", "1")}, {"request_range": key("t")},
                            {"request_delete_range": key("none")},
                            {"request_txn": {"success": [{"request_put": put("u", "1")}]}}]}, {}
    yield txn, {"success": [{"request_put": put("t", "1")}, {"request_put": put("t", "2")}]}, {}
    yield txn, {"success": [{"request_put": put("t", "1")}, {"request_delete_range": key("s", "z")}]}, {}
    yield txn, {"success": [{"request_put": put("t", "1")}, {"request_delete_range": key("s", ALL)}]}, {}
    yield txn, {"success": [{"request_delete_range": key("u", prev_kv=True)},
                            {"request_range": key("u")}]}, {}
    yield txn, {"success": [{"request_put": put("t", "1", ignore_value=True)}]}, {}
    yield txn, {"success": [{"request_put": put("t", "1", lease=99)}]}, {}
    yield txn, {"success": [{"request_put": put("t", "9")}, {"request_range": key("t", revision=999)}]}, {}
    yield txn, {"success": [{"request_range": {}}]}, {}
    yield txn, {"compare": [{}]}, {}
    yield txn, {"success": [{"request_range": key("t")}] * 129}, {}
    yield txn, {"success": [{"request_range": key("none")}] * 128}, {}
    yield txn, {"compare": [compare("t", "BOGUS", "EQUAL")]}, {}
    yield txn, {"compare": [compare("t", 3, 0, value=b64("1"))]}, {}
    for target, union in (("VERSION", {"version": "1"}), ("CREATE", {"create_revision": 3}),
                          ("MOD", {"mod_revision": "4"}), ("VALUE", {"value": b64("1")}), ("LEASE", {"lease": 0})):
        for result in ("EQUAL", "GREATER", "LESS", "NOT_EQUAL"):
            yield txn, {"compare": [compare("t", target, result, **union)]}, {}
    yield txn, {"compare": [compare("none", "VERSION", "EQUAL", version=0)],
                "success": [{"request_put": put("lock", "me", prev_kv=True)}],
                "failure": [{"request_range": key("lock")}]}, {}
    yield txn, {"compare": [compare("lock", "CREATE", "EQUAL", create_revision=0)],
                "success": [{"request_put": put("lock", "you")}], "failure": [{"request_range": key("lock")}]}, {}
    yield txn, {"compare": [compare("none", "VALUE", "NOT_EQUAL", value=b64("1"))]}, {}
    yield txn, {"compare": [compare("t", "VERSION", "EQUAL", create_revision=1)]}, {}
    yield txn, {"compare": [compare("a", "VERSION", "GREATER", end="d", version=0)]}, {}
    yield txn, {"compare": [compare("a", "VERSION", "EQUAL", end="d", version=1)]}, {}
    yield txn, {"compare": [compare("a", "MOD", "GREATER", end=ALL, mod_revision=1)]}, {}
    yield txn, {"success": [{"request_put": put("x1", "1")}, {"request_txn": {
        "compare": [compare("x1", "VERSION", "EQUAL", version=0)],
        "success": [{"request_put": put("x2", "absent")}], "failure": [{"request_put": put("x2", "present")}]}},
        {"request_range": key("x", "y")}]}, {}
    # Deletions.
    yield kv + "deleterange", key("x1", prev_kv=True), {}
    yield kv + "deleterange", key("x1", prev_kv=True), {}
    yield kv + "deleterange", key("x", "y"), {}
    yield kv + "deleterange", {}, {}
    yield kv + "put", put("x1", "again"), {}
    # Leases.
    yield "/v3/lease/grant", {"TTL": 60, "ID": 7}, {}
    yield "/v3/lease/grant", {"TTL": 60, "ID": 7}, {}
    yield "/v3/lease/grant", {"TTL": "1", "ID": "8"}, {}
    yield "/v3/lease/grant", {"TTL": 60}, {}
    yield "/v3/lease/grant", {"TTL": 9000000001}, {}
    yield "/v3/lease/grant", {"TTL": 60, "ID": -7}, {}
    yield kv + "put", put("l1", "1", lease=7), {}
    yield kv + "put", put("l2", "2", lease="7"), {}
    yield kv + "range", key("l", "m"), {}
    yield kv + "put", put("l1", "3", ignore_lease=True), {}
    yield kv + "range", key("l1"), {}
    yield txn, {"compare": [compare("l1", "LEASE", "EQUAL", lease=7)]}, {}
    yield "/v3/lease/timetolive", {"ID": 7, "keys": True}, {}
    yield "/v3/lease/timetolive", {"ID": 7}, {}
    yield kv + "lease/timetolive", {"ID": 70, "keys": True}, {}
    yield "/v3/lease/leases", {}, {}
    yield kv + "lease/leases", {}, {}
    yield "/v3/lease/keepalive", {"ID": 7}, {"lines": 1}
    yield "/v3/lease/keepalive", '{"ID":7}{"ID":70}', {"lines": 2}
    yield "/v3/lease/revoke", {"ID": 7}, {}
    yield kv + "range", key("l", "m"), {}
    yield kv + "lease/revoke", {"ID": 7}, {}
    yield "/v3/lease/revoke", {}, {}
    # Watches of what has been.
    def watch(name, end=None, lines=2, **more):
        return "/v3/watch", {"create_request": key(name, end, **more)}, {"lines": lines}
    yield watch("foo", start_revision=2)
    yield watch("x", "y", start_revision=2)
    yield watch("l", "m", start_revision=2, prev_kv=True)
    yield watch("l", "m", start_revision=2, filters=["NOPUT"])
    yield watch("l", "m", start_revision=2, filters=["NODELETE"])
    yield watch(ALL, ALL, start_revision=20)
    yield "/v3/watch", {"create_request": {"start_revision": 2}}, {"lines": 1}
    yield watch("foo", lines=1)
    yield watch("foo", lines=1, start_revision=9999)
    yield watch("b", "a", lines=1)
    yield watch("b", "b", lines=1)
    yield watch("foo", lines=1, watch_id=7)
    yield "/v3/watch", (json.dumps({"create_request": key("foo", watch_id=7)}) + json.dumps(
        {"create_request": key("foo", watch_id="7")}) + json.dumps({"cancel_request": {"watch_id": 7}})), {"lines": 3}
    yield "/v3/watch", {"progress_request": {}}, {"lines": 1}
    # Compaction.
    yield kv + "compaction", {"revision": 9999}, {}
    yield kv + "compaction", {}, {}
    yield kv + "compaction", {"revision": -2}, {}
    yield kv + "compaction", {"revision": "5"}, {}
    yield kv + "compaction", {"revision": "5"}, {}
    yield kv + "compaction", {"revision": "6", "physical": True}, {}
    yield kv + "range", key("foo", revision=5), {}
    yield kv + "range", key("foo", revision=6), {}
    yield txn, {"success": [{"request_range": key("foo", revision=5)}]}, {}
    yield watch("foo", start_revision=5)
    yield watch("foo", start_revision=6, prev_kv=True)
    # Maintenance and membership, the errors that do not depend on the cluster.
    yield "/v3/maintenance/status", {}, {}
    yield "/v3/maintenance/hash", {}, {}
    yield "/v3/maintenance/defragment", {}, {}
    yield "/v3/maintenance/alarm", {}, {}
    yield "/v3/cluster/member/list", {}, {}
    yield "/v3/cluster/member/add", {}, {}
    yield "/v3/cluster/member/add", {"peerURLs": ["nonsense"]}, {}
    yield "/v3/cluster/member/remove", {"ID": 1}, {}
    yield "/v3/cluster/member/update", {"ID": 1, "peerURLs": ["http://127.0.0.1:1"]}, {}
    yield "/v3/cluster/member/promote", {"ID": 1}, {}


def ask(port, path, body, options):
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body, separators=(",", ":"))
    method = options.get("method", "POST")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    lines = options.get("lines", 0)
    connection.request(method, path, body=text)
    response = connection.getresponse()
    if lines:
        answer = [json.loads(response.readline()) for _ in range(lines)]
    else:
        raw = response.read().decode()
        # After an error's body this gateway writes trailers as text.
        raw = raw.split("Grpc-Trailer-", 1)[0]
        kind = response.headers.get("Content-Type", "")
        answer = json.loads(raw) if kind.startswith("application/json") else raw
    connection.close()
    if len(text) > 10_000:
        text = {"key_b64": "YmlnCg==", "value_bytes": 1_600_000}
    return {"method": method, "path": path, "request": text, "status": response.status, "answer": answer,
            **({"lines": lines} if lines else {})}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def record(etcd):
    client, peer = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"http://127.0.0.1:{port}" for port in (client, peer)]
        server = subprocess.Popen(
            [etcd, "--data-dir", folder, "--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
             "--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1],
             "--initial-cluster", f"default={urls[1]}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            if not any("ready to serve client requests" in line for line in server.stderr):
                sys.exit("etcd does not serve")
            threading.Thread(target=server.stderr.read, daemon=True).start()  # or it would wait for its reader
            answers = []
            for path, body, options in exchanges():
                try:
                    answers.append(ask(client, path, body, options))
                except OSError as error:
                    sys.exit(f"no answer to {path} {body}: {error}")
            return answers
        finally:
            server.terminate()
            server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--etcd", default="/usr/bin/etcd")
    parser.add_argument("--out", default=os.path.join(HERE, "golden.json"))
    arguments = parser.parse_args()
    recorded = record(arguments.etcd)
    version = subprocess.run([arguments.etcd, "--version"], check=True, capture_output=True, text=True).stdout
    with open(arguments.out, "w", encoding="utf-8") as out:
        out.write('{"recorded_from": %s, "exchanges": [\n' % json.dumps(version.splitlines()[0]))
        out.write(",\n".join(json.dumps(exchange) for exchange in recorded))
        out.write("\n]}\n")
    print(f"{len(recorded)} exchanges")


if __name__ == "__main__":
    main()
