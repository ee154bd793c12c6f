"""The two proxies of bench/resilience, their variants, and what each says it has sent to its endpoints."""

import os
import re
import shutil
import socket
import urllib.request

from harness.peers import BENCH, INSTALL, Peer
from harness.processes import free_port

RETRIES = """retries 3
  option redispatch 1
  retry-on conn-failure empty-response response-timeout 500 502 503 504"""
EVERYTHING = ("route.retry", "route.hedge", "route.rate_limit", "route.concurrency", "cluster.health",
              "cluster.outlier", "cluster.limits")


def fill(template, values):
    with open(os.path.join(BENCH, "peers", template)) as source:
        text = source.read()
    for key, value in values.items():
        text = text.replace("{" + key + "}", str(value))
    return text


def without_tables(text, tables):
    """TOML less these tables: from their header up to the next one."""
    for table in tables:
        text = re.sub(rf"^\[{re.escape(table)}\]\n(?:(?!\[).*\n)*", "", text, flags=re.MULTILINE)
    return text


def slug(label):
    """For file names."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower())


class Outrider:
    """outrider with everything on, less the tables in `without`."""

    name = "outrider"

    def __init__(self, build, label="outrider", without=(), logs=True, hedge="p99", health="/health"):
        self.label, self.slug = label, slug(label)
        self.program = os.path.join(build, "cli", "outrider")
        self.without = without
        self.logs, self.hedge, self.health = logs, hedge, health

    def missing(self):
        return "" if os.access(self.program, os.X_OK) else f"outrider is not there ({INSTALL['outrider']})"

    def peer(self, ports, run):
        """As what it is started in the folder `run`, before the services on these ports."""
        self.access = os.path.join(run, f"{self.slug}.access.log") if self.logs else "off"
        taken = set()
        port, self.admin = free_port(taken), free_port(taken)
        text = fill("resilience-outrider.toml", {
            "PORT": port, "ADMIN": self.admin, "ACCESS": self.access, "HEDGE": self.hedge, "HEALTH": self.health,
            "ENDPOINTS": ", ".join(f'"127.0.0.1:{endpoint}"' for endpoint in ports)})
        path = os.path.join(run, f"{self.slug}.toml")
        with open(path, "w") as config:
            config.write(without_tables(text, self.without))
        return Peer(self.slug, port, "core", [self.program, "run", "-c", path],
                    os.path.join(run, f"{self.slug}.log"))

    def metrics(self):
        """All samples: {"name{labels}": value}."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5).read().decode()
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in rows}

    def attempts(self):
        """Attempts begun at any endpoint so far, refused connections included."""
        return sum(value for name, value in self.metrics().items()
                   if name.startswith("outrider_upstream_attempts_total"))


class Haproxy:
    """haproxy with what it has against failures; `limit`: what it is told about the endpoints' capacity."""

    name = "haproxy"

    def __init__(self, label="haproxy", retries=True, limit="", server_options=""):
        self.label, self.slug = label, slug(label)
        self.retries, self.limit, self.server_options = retries, limit, server_options

    def missing(self):
        return "" if shutil.which("haproxy") else f"haproxy is not there ({INSTALL['haproxy']})"

    def peer(self, ports, run):
        self.socket = os.path.join(run, f"{self.slug}.sock")
        port = free_port(set())
        servers = "\n  ".join(f"server s{i + 1} 127.0.0.1:{endpoint} {self.server_options}".rstrip()
                              for i, endpoint in enumerate(ports))
        path = os.path.join(run, f"{self.slug}.cfg")
        with open(path, "w") as config:
            config.write(fill("resilience-haproxy.cfg", {
                "PORT": port, "SOCKET": self.socket, "SERVERS": servers, "LIMIT": self.limit,
                "RETRIES": RETRIES if self.retries else "retries 0"}))
        return Peer(self.slug, port, "core", ["haproxy", "-db", "-f", path],
                    os.path.join(run, f"{self.slug}.log"))

    def attempts(self):
        """How often a server was chosen so far, again after a failure included."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(self.socket)
            control.sendall(b"show stat\n")
            text = b"".join(iter(lambda: control.recv(65536), b"")).decode()
        header, *rows = [line.split(",") for line in text.lstrip("# ").splitlines() if line]
        columns = {name: i for i, name in enumerate(header)}
        chosen = next(row for row in rows if row[:2] == ["b", "BACKEND"])
        return int(chosen[columns["lbtot"]])
