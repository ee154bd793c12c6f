"""A process that is out of descriptors. Not under sanitizers: UBSan asks by way of a pipe whether an object can be read, and without
descriptors takes every one for broken.
"""
import contextlib
import os
import socket

from exposition import scrape
from sidecar import RawClient, Sidecar, cluster, request_bytes, route, wait_until
from test_workers import open_files


def test_pipelining_clients_use_up_the_descriptors_and_admin_still_answers():
    """Few clients with 16 requests each take 17 descriptors each; those held back are for the admin ports."""
    limit = 256
    with socket.socket() as silent, contextlib.ExitStack() as stack:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1024)  # takes connections and never answers
        body = (route("held", match={"path_prefix": "/held"}, cluster="silent") + route("rest", respond={"body": "hello"})
                + cluster("silent", silent.getsockname()[1]))
        sidecar = Sidecar(body, workers=2, prefix=open_files(limit))
        sidecar.admin_keys = {"status_listen": f"127.0.0.1:{sidecar.status_port}"}
        stack.enter_context(sidecar)
        descriptors = lambda: len(os.listdir(f"/proc/{sidecar.child.pid}/fd"))  # noqa: E731
        clients = [stack.enter_context(sidecar.client()) for _ in range(40)]
        for client in clients:
            client.send(request_bytes("/held") * 16)
        wait_until(lambda: descriptors() >= limit - 70, 10, "the end of the shared descriptors, or nearly")
        before = len(sidecar.log(limit=None).splitlines())
        flood = []
        for _ in range(20):
            for _ in range(20):
                flood.append(stack.enter_context(socket.socket()))
                flood[-1].setblocking(False)
                flood[-1].connect_ex(("127.0.0.1", sidecar.port))
            # Idle ones, more than are held back: these go round.
            for port in (sidecar.admin_port, sidecar.status_port):
                stack.enter_context(RawClient(port))
                stack.enter_context(RawClient(port))
            for port in (sidecar.admin_port, sidecar.status_port):
                assert sidecar.admin("/live", port=port).status == 200
            assert descriptors() <= limit
        lines = sidecar.log(limit=None).splitlines()
        assert sum("out of file descriptors" in line for line in lines) == 1, lines
        assert len(lines) - before < 10, lines[before:]
        wait_until(lambda: scrape(sidecar).value("outrider_connections_shed_total") >= 100, 10, "the count")
        for client in clients:
            client.reset()
        for sock in flood:
            sock.close()
        wait_until(lambda: descriptors() < limit - 100, 10, "their return")
        wait_until(lambda: sidecar.json("/server_info")["connections"] == 0, 10, "the end of those that were still taken")
        assert sidecar.get().status == 200


# ---- reload --------------------------------------------------------------------------------------------------------------------
