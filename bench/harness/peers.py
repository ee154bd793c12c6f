"""Reads peers.conf, fills in the templates of peers/, starts peers."""

import os
import re
import shlex
import shutil
import urllib.request
from dataclasses import dataclass

from harness.processes import Child, free_port, wait_for_port

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TIERS = ("core", "features", "large", "lone", "named")
INSTALL = {"haproxy": "apt-get install haproxy", "nginx": "apt-get install nginx",
           "outrider": "build it: cmake --preset release && cmake --build --preset release"}


class ConfigError(Exception):
    """peers.conf, or a template it names, cannot be used."""


@dataclass
class Peer:
    name: str
    port: int
    tier: str
    argv: list
    log: str  # what it prints goes there
    admin_port: int = 0

    @property
    def is_direct(self):
        """What a request costs without a proxy; fixed rates are compared with it."""
        return self.name == "direct"

    def missing(self):
        """What is not there to start it, and how to get it; nothing when it can be started."""
        if shutil.which(self.argv[0]):
            return ""
        program = os.path.basename(self.argv[0])
        return f"{program} is not there ({INSTALL.get(program, 'not in PATH')})"

    def ridden(self):
        """Attempts so far, and those that went on pipelined connections; nothing of peers that have no such thing."""
        if not self.pipelined:
            return None
        reply = urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=20).read().decode()
        names = ("outrider_upstream_attempts_total", "outrider_pipeline_requests_total")
        return [sum(float(line.rsplit(" ", 1)[1]) for line in reply.splitlines() if line.startswith(name + "{"))
                for name in names]

    @property
    def pipelined(self):
        return self.name.startswith("outrider-pipelined")

    def start(self, core, prefix=(), patience=15.0):
        """Starts it and waits until it accepts; a Child, or nothing (its output is in self.log)."""
        child = Child([*prefix, *self.argv], core, log=self.log)
        if wait_for_port(self.port, child, patience):
            return child
        child.stop()
        return None


def load_peers(run, build, backend_port, taken):
    """All peers of peers.conf in its order; their configurations are written to `run`."""
    peers = []
    path = os.path.join(BENCH, "peers.conf")
    with open(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            columns = [column.strip() for column in line.split("|", 3)]
            if len(columns) != 4 or columns[2] not in TIERS:
                raise ConfigError(f"{path}:{number}: want: name | port | {'/'.join(TIERS)} | command")
            peers.append(make_peer(columns, run, build, backend_port, taken))
    return peers


def make_peer(columns, run, build, backend_port, taken):
    name, port, tier, command = columns
    port = free_port(taken) if port == "auto" else int(port)
    values = {"PORT": port, "BACKEND": backend_port, "ADMIN": free_port(taken), "RUN": run,
              "BUILD": build, "NAME": name}

    def fill(text):
        for key, value in values.items():
            text = text.replace("{" + key + "}", str(value))
        return text

    def config(match):
        source = os.path.join(BENCH, "peers", match[1])
        target = os.path.join(run, f"{name}.{match[1]}")
        try:
            with open(source) as template, open(target, "w") as filled:
                filled.write(fill(template.read()))
        except FileNotFoundError:
            raise ConfigError(f"peers.conf: {name}: there is no peers/{match[1]}") from None
        return target

    command = re.sub(r"\{CONFIG:([^}]+)\}", config, command)
    return Peer(name, port, tier, shlex.split(fill(command)), os.path.join(run, f"{name}.log"), values["ADMIN"])
