"""The same malformed requests to outrider, haproxy and nginx: outrider accepts nothing that both of them refuse.

Every run prints where the three differ. A verdict is what counts for the service behind, not the status alone:
  refused   an error answer or a close, and nothing whole reached the upstream
  accepted  a whole request reached the upstream
  served    the request hidden behind the malformed one reached the upstream as well
  waits     neither within the patience (the peers end it with a timeout of their own)
"""
import concurrent.futures
import os
import shutil

import pytest

from corpus import CASES, GET, SMUGGLED
from harness import Haproxy, Nginx, subject
from upstream import ScriptedUpstream
from wire import ProtocolError, RawClient, TimedOut

PATIENCE = 1.5
HIDDEN = SMUGGLED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")  # when it is served, the connection ends
CANDIDATES = [case for case in CASES if len(case.raw) < 100000]


def verdict(port, upstream, raw):
    """What becomes of the bytes; the upstream answers whatever comes. One case at a time for each proxy."""
    upstream.clear()
    status = "-"
    client = RawClient(port, patience=PATIENCE)
    waits = False
    with client:
        client.send(raw)
        try:
            status = str(client.response(raw.split(b" ", 1)[0]).status)
            client.wire.rest()
        except TimedOut:
            waits = status == "-"
        except ProtocolError:
            pass
    # A request of our own shows that everything before it has passed.
    with RawClient(port, patience=10) as fence:
        fence.request(b"GET /fence HTTP/1.1\r\nHost: fence.example\r\nConnection: close\r\n\r\n")
    targets = [request.target for request in list(upstream.requests)]
    if b"/smuggled" in targets:
        word = "served"
    elif [target for target in targets if target != b"/fence"] or upstream.errors:
        word = "accepted"  # errors: bytes that the strict upstream could not read were let through
    elif waits:
        word = "waits"
    else:
        word = "refused"
    return word, status


def verdicts(make, cases):
    with ScriptedUpstream() as upstream, make(upstream.port) as proxy:
        out = {}
        for case in cases:
            assert proxy.alive(), f"{proxy.name} ended before {case}"
            out[case] = verdict(proxy.port, upstream, case.raw + HIDDEN)
        return out


@pytest.fixture(scope="module")
def table():
    path = os.environ["PATH"] + ":/usr/sbin"
    peers = {"haproxy": lambda port: Haproxy(port, patience="1s"), "nginx": lambda port: Nginx(port, patience="1s")}
    for name in peers:
        if not shutil.which(name, path=path):
            pytest.skip(f"{name} is not installed")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        jobs = {name: pool.submit(verdicts, make, CANDIDATES) for name, make in {"subject": subject, **peers}.items()}
        return {name: job.result() for name, job in jobs.items()}


def test_nothing_is_accepted_that_both_peers_refuse(table, report):
    differing = []
    worse = []
    for case in CANDIDATES:
        ours, haproxy, nginx = (table[name][case] for name in ("subject", "haproxy", "nginx"))
        if len({ours[0], haproxy[0], nginx[0]}) > 1:
            differing.append((case, ours, haproxy, nginx))
        if ours[0] in ("accepted", "served") and haproxy[0] == nginx[0] == "refused":
            worse.append(str(case))
    counts = {name: {} for name in table}
    for name, results in table.items():
        for word, _ in results.values():
            counts[name][word] = counts[name].get(word, 0) + 1
    report.append(f"{len(CANDIDATES)} malformed requests")
    for name, count in counts.items():
        name = os.environ.get("OUTRIDER_AS", "outrider") if name == "subject" else name
        report.append(f"  {name:<10}" + "  ".join(f"{word} {number}" for word, number in sorted(count.items())))
    report.append(f"{'where they differ':<44}{'outrider':<16}{'haproxy':<16}{'nginx':<16}")
    for case, *three in differing:
        report.append(f"  {str(case):<42}" + "".join(f"{word + ' ' + status:<16}" for word, status in three))
    assert not worse, f"accepted, though haproxy and nginx both refuse it: {worse}"


def test_outrider_refuses_the_whole_corpus(table):
    if os.environ.get("OUTRIDER_AS", "outrider") != "outrider":
        pytest.skip("the peers are not held to this")
    loose = {str(case): word for case, (word, _) in table["subject"].items() if word != "refused"}
    assert not loose, loose


def test_the_measure_itself(table):
    """A good request is seen as accepted and the one behind it as served, by each of the peers."""
    for make in (Haproxy, Nginx):
        with ScriptedUpstream() as upstream, make(upstream.port) as proxy:
            assert verdict(proxy.port, upstream, GET + b"\r\n")[0] == "accepted"
            assert verdict(proxy.port, upstream, GET + b"\r\n" + HIDDEN)[0] == "served"
