"""[runtime] spin: a worker that waits for an answer polls before it sleeps, and only then.

What it does is seen in what it costs: the CPU time of a process whose answers take 20 ms. Two processes with the same work
side by side, one spinning, so that a busy machine changes both.
"""
import os
import time

from sidecar import Sidecar, ask, cluster, route, wait_until
from upstream import ScriptedUpstream
from wire import RawClient

LATENCY = 0.02


def late(exchange):
    time.sleep(LATENCY)  # the upstream's work
    exchange.reply(body=exchange.request.target)


def body_for(port, **keys):
    return route(cluster="app") + cluster("app", port, **keys)


def cpu_seconds(sidecar):
    total = 0
    folder = f"/proc/{sidecar.child.pid}/task"
    for task in os.listdir(folder):
        with open(f"{folder}/{task}/schedstat") as stat:
            total += int(stat.read().split()[0])
    return total / 1e9


class Cost:
    """CPU seconds since it was made."""

    def __init__(self, sidecar):
        self.sidecar, self.began = sidecar, cpu_seconds(sidecar)

    def now(self):
        return cpu_seconds(self.sidecar) - self.began


def shown_spin(sidecar):
    return [line for line in sidecar.admin("/config").body.decode().splitlines() if "spin" in line]


def test_answers_come_alike_and_only_waiting_for_them_costs():
    with ScriptedUpstream(late) as app, Sidecar(body_for(app.port), runtime={"spin": "10ms"}) as spinning, \
            Sidecar(body_for(app.port)) as sleeping:
        with RawClient(spinning.port) as one, RawClient(sleeping.port) as other:
            costs = Cost(spinning), Cost(sleeping)
            count = 0

            def dearer():
                nonlocal count
                count += 1
                for client in (one, other):
                    answer = ask(client, f"/{count}")
                    assert (answer.status, answer.body) == (200, f"/{count}".encode())
                return costs[0].now() > 0.1 + 3 * costs[1].now()

            wait_until(dearer, 60, "polling")
            # Connections that stand and wait for nothing cost what they cost without. Bounded by the time that passes here.
            idle = Cost(spinning)
            began = time.monotonic()
            wait_until(lambda: time.monotonic() - began > 0.3, 10)
            assert idle.now() < 0.15, "it polls with nothing outstanding"


def test_off_by_default_and_changed_by_a_reload():
    with ScriptedUpstream(late) as app, Sidecar(body_for(app.port)) as sidecar:
        assert '"0s"' in shown_spin(sidecar)[0]
        sidecar.runtime["spin"] = "10ms"
        assert sidecar.reload()[0] == 200
        assert '"10ms"' in shown_spin(sidecar)[0]
        with RawClient(sidecar.port) as client:
            cost = Cost(sidecar)

            def polled():
                assert ask(client, "/x").status == 200
                return cost.now() > 0.2

            wait_until(polled, 60, "polling")
        sidecar.runtime["spin"] = "0s"
        assert sidecar.reload()[0] == 200
        assert sidecar.get("/x").status == 200


def test_with_pipelined_connections():
    with ScriptedUpstream(lambda exchange: exchange.reply(body=exchange.request.target)) as app:
        body = body_for(app.port, channel={"mode": "pipelined"})
        with Sidecar(body, runtime={"spin": "50us"}) as sidecar, RawClient(sidecar.port) as client:
            for number in range(300):
                assert ask(client, f"/{number}").body == f"/{number}".encode()
