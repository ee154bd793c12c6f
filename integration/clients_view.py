#!/usr/bin/env python3
"""What clients see of the idempotent receiver while everything around it dies: a check of the promise from outside.

Clients transfer money at the demonstration's ledger through sidecars. They lose patience, repeat, send duplicates at once to
several sidecars and repeat what has long been answered. Meanwhile sidecars, the ledger and Redis are killed with kill -9 and
stopped with SIGSTOP. The ledger counts nothing and recognises nobody: each transfer that takes effect is a line in its journal.

At the end, for each key:
  * its transfer took effect at most once
  * … and exactly once if any client was told that it did
  * all answers of success are the same, status, own fields and body, and at most one of them is not marked as a replay
Nothing but 201, 409, 502, 503 and 504 is answered.

  clients_view.py [--seed N] [--transfers N] [--seconds S] [--store log|redis|memory] [--sidecars N] [--break …]

A store of kind log or memory belongs to one sidecar. A store in memory forgets when its sidecar is killed, so there it is only
stopped. `--break unprotected` leaves [route.idempotency] out, `--break forgetful` takes a store in memory and kills the sidecar
all the same: both must be found out, or the check itself is worth nothing. Which requests meet which failure depends on the machine;
the seed gives the clients' and the killer's choices again, not their interleaving.

OUTRIDER_BIN names the program, OUTRIDER_LEDGER_BIN the ledger (default: beside it in the build). Exit code: 0 no violation, 1 some, 2 usage.
"""
import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import keyed
from keyed import StoreKind, own_fields, post_bytes
from sidecar import Sidecar, accepts, cluster, free_port, route, wait_until
from wire import ProtocolError, RawClient

ACCOUNTS = 1000
ATTEMPTS_MAX = 12
PATIENCE = 5.0
REFUSALS = (409, 502, 503, 504)


class JournalledLedger:
    """outrider-ledger with a journal; killed and started anew on the same port."""

    def __init__(self, directory):
        named = os.environ.get("OUTRIDER_LEDGER_BIN")
        self.program = os.path.abspath(named) if named else str(
            pathlib.Path(os.environ["OUTRIDER_BIN"]).resolve().parent.parent / "demo" / "outrider-ledger")
        self.journal = pathlib.Path(directory) / "journal"
        self.port = free_port()
        self.child = None

    def start(self):
        command = [self.program, "--listen", f"127.0.0.1:{self.port}", "--quiet", "--accounts", str(ACCOUNTS), "--initial",
                   "1000000000", "--latency", "3ms", "--journal", str(self.journal)]
        self.child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, start_new_session=True)
        wait_until(lambda: accepts(self.port), 20, "the ledger's start")
        return self

    def kill(self):
        if self.child and self.child.poll() is None:
            self.child.kill()
        if self.child:
            self.child.wait(10)

    def signal(self, number):
        self.child.send_signal(number)

    def effects(self):
        """How often each reference took effect."""
        return collections.Counter(line.split(" ", 1)[0] for line in self.journal.read_text().splitlines())


class Transfer:
    """One key, and all that was seen of it."""

    def __init__(self, key, rng):
        self.key = key
        source = rng.randrange(1, ACCOUNTS)
        self.body = json.dumps({"from": source, "to": source + 1, "amount": rng.randrange(1, 100), "reference": key}).encode()
        self.lock = threading.Lock()
        self.history = []
        self.successes = []
        self.unknown = False
        self.sent = 0

    def note(self, began, where, what):
        with self.lock:
            self.history.append((began, time.monotonic(), where, what))

    def took(self, answer):
        with self.lock:
            self.successes.append(answer)

    @property
    def settled(self):
        return bool(self.successes) or self.unknown

    def violations(self, effects):
        """Sentences."""
        out = []
        if effects > 1:
            out.append(f"took effect {effects} times")
        if self.successes and effects == 0:
            out.append("was answered with success and took no effect")
        if len({(answer.status, tuple(own_fields(answer)), answer.body) for answer in self.successes}) > 1:
            out.append(f"has answers of success that differ: {sorted({answer.body for answer in self.successes})}")
        originals = [answer for answer in self.successes if not answer.all("idempotent-replayed")]
        if len(originals) > 1:
            out.append(f"was answered {len(originals)} times with success that is not marked as a replay")
        if any(json.loads(answer.body)["reference"] != self.key for answer in self.successes):
            out.append("has another transfer's answer")
        return out


class World:
    """The processes, and who may do what to them."""

    def __init__(self, options):
        self.options = options
        self.stack = contextlib.ExitStack()
        self.directory = tempfile.mkdtemp(prefix="clients-view-")
        self.stack.callback(shutil.rmtree, self.directory, ignore_errors=True)

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stack.close()
            raise
        return self

    def _start(self):
        options = self.options
        self.ledger = JournalledLedger(self.directory)
        self.stack.callback(self.ledger.kill)
        self.ledger.start()
        self.store = self.stack.enter_context(StoreKind(options.store))
        if self.store.redis:
            self.store.keys["operation_timeout"] = "250ms"
        keys = {"idempotency": {"store": "keys", "wait_timeout": "300ms"}} if options.broken != "unprotected" else {}
        # Repeated is what never left; the rest is the clients' business.
        body = (route(cluster="app", timeout="1s", retry={"on": ["connect"], "budget": {"ratio": 1.0, "min_per_second": 1000}}, **keys)
                + cluster("app", self.ledger.port) + (self.store.table() if keys else ""))
        self.sidecars = []
        for _ in range(options.sidecars):
            sidecar = Sidecar(body, workers=2, log={"access": "off", "level": "error"}, drain={"timeout": "2s"})
            self.stack.callback(shutil.rmtree, sidecar.directory, ignore_errors=True)
            self.stack.callback(sidecar.kill)
            sidecar.start()
            self.sidecars.append(sidecar)

    def __exit__(self, *_):
        self.stack.close()

    def victims(self):
        """name -> (process, may be killed)."""
        forgets = self.options.store == "memory" and self.options.broken != "forgetful"
        out = {f"sidecar {n}": (sidecar, not forgets) for n, sidecar in enumerate(self.sidecars)}
        out["ledger"] = (self.ledger, True)
        if self.store.redis:
            out["redis"] = (self.store.redis, True)
        return out


class Killer:
    """One failure at a time, each kind once before chance decides."""

    def __init__(self, world, seed):
        self.world = world
        self.rng = random.Random(f"{seed}:killer")
        self.kills = 0
        self.pauses = 0
        self.done = []
        victims = world.victims()
        self.all = [(name, "kill") for name, (_, may) in victims.items() if may] + [(name, "pause") for name in victims]
        self.next = self.rng.sample(self.all, len(self.all))

    def run(self, clients):
        """Until they have ended. On the thread that outlives the processes: they are to die with it (setpriv --pdeathsig)."""
        # Those of the first round are carried out whatever the clients' pace is.
        while self.next or any(client.thread.is_alive() for client in clients):
            time.sleep(self.rng.uniform(0.05, 0.4))  # between two failures; nothing is waited for
            self._strike(*(self.next.pop() if self.next else self.rng.choice(self.all)))

    def _strike(self, name, what):
        process, _ = self.world.victims()[name]
        began = time.monotonic()
        if what == "kill":
            process.kill()
            time.sleep(self.rng.uniform(0, 0.1))
            process.start()
            self.kills += 1
        else:
            process.signal(signal.SIGSTOP)
            time.sleep(self.rng.uniform(0.02, 0.5))
            process.signal(signal.SIGCONT)
            self.pauses += 1
        self.done.append((began, time.monotonic(), f"{what} {name}"))


class Client:
    """One thread: transfers one after the other, each until it is settled or given up."""

    def __init__(self, run, number):
        self.run = run
        self.rng = random.Random(f"{run.options.seed}:client {number}")
        self.number = number
        self.kept = {}
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.error = None

    def _run(self):
        try:
            while (number := self.run.take()) is not None:
                transfer = Transfer(f"{self.run.name}-{self.number}-{number}", self.rng)
                self.run.transfers.append(transfer)
                self._settle(transfer)
                if self.rng.random() < 0.2 and self.run.transfers:  # something long past, again
                    old = self.rng.choice(self.run.transfers[:])
                    self.run.send(old, self._sidecar(), PATIENCE)
        except BaseException as error:  # said by the main thread
            self.error = error
        finally:
            for client in self.kept.values():
                client.close()

    def _sidecar(self):
        return self.rng.randrange(len(self.run.world.sidecars))

    def _settle(self, transfer):
        for _ in range(ATTEMPTS_MAX):
            how = self.rng.random()
            if how < 0.25:  # duplicates at once
                others = [threading.Thread(target=self.run.send, args=(transfer, self._sidecar(), PATIENCE))
                          for _ in range(self.rng.randrange(1, 3))]
                for other in others:
                    other.start()
                self._send(transfer, PATIENCE)
                for other in others:
                    other.join()
            elif how < 0.5:  # no patience
                self.run.send(transfer, self._sidecar(), self.rng.uniform(0.0005, 0.03), leave=self.rng.choice(["reset", "close"]))
            else:
                self._send(transfer, PATIENCE)
            if transfer.settled:
                return
            time.sleep(self.rng.uniform(0, 0.05))  # a client's backoff: no test waits for it

    def _send(self, transfer, patience):
        """On a connection that is kept, when there is one."""
        number = self._sidecar()
        client = self.kept.pop(number, None)
        client = self.run.send(transfer, number, patience, client)
        if client:
            self.kept[number] = client


def reaches_redis(sidecar):
    """All its workers do."""
    answer = sidecar.admin("/idempotency")
    stores = json.loads(answer.body)["stores"] if answer.status == 200 else []
    return bool(stores) and all(store["ok"] and store["workers_connected"] == store["workers"] for store in stores)


class Run:
    def __init__(self, world, options):
        self.world = world
        self.options = options
        self.name = f"t{options.seed}"
        self.transfers = []
        self.numbers = iter(range(options.transfers))
        self.deadline = time.monotonic() + options.seconds if options.seconds else None
        self.lock = threading.Lock()
        self.answers = collections.Counter()
        self.odd = []

    def take(self):
        with self.lock:
            if self.deadline and time.monotonic() > self.deadline:
                return None
            return next(self.numbers, None)

    def send(self, transfer, number, patience, client=None, leave="close"):
        """One request and what comes of it, noted. The connection, if it can be used again."""
        began = time.monotonic()
        sidecar = self.world.sidecars[number]
        with transfer.lock:
            transfer.sent += 1
        try:
            if client is None:
                client = RawClient(sidecar.port, patience)
            client.wire.patience = patience
            client.send(post_bytes(transfer.key, "/transfers", transfer.body, fields=[("Content-Type", "application/json")]))
            answer = client.response(b"POST")
        except (OSError, ProtocolError) as error:
            transfer.note(began, f"sidecar {number}", f"{type(error).__name__}: {str(error)[:80]}")
            if client:
                client.reset() if leave == "reset" else client.close()
            with self.lock:
                self.answers["none"] += 1
            return None
        self._judge(transfer, answer)
        replayed = " replayed" if answer.all("idempotent-replayed") else ""
        transfer.note(began, f"sidecar {number}", f"{answer.status}{replayed} {answer.body[:200]!r}")
        if answer.closes:
            client.close()
            return None
        return client

    def _judge(self, transfer, answer):
        with self.lock:
            self.answers[answer.status] += 1
            if answer.all("idempotent-replayed"):
                self.answers["replayed"] += 1
        if answer.status == 201:
            transfer.took(answer)
        elif answer.status == 409 and b"idempotency:unknown" in answer.body:
            transfer.unknown = True
            with self.lock:
                self.answers["unknown"] += 1
        elif answer.status not in REFUSALS:
            self.odd.append((transfer, f"was answered {answer.status} {answer.body[:300]!r}"))

    def calm(self):
        """All processes are there and serve."""
        last = []

        def serves(number):
            probe = Transfer(f"{self.name}-probe-{number}-{time.monotonic_ns()}", random.Random(0))
            client = self.send(probe, number, PATIENCE)
            if client:
                client.close()
            last[:] = [what for *_, what in probe.history]
            return bool(probe.successes)

        for number, sidecar in enumerate(self.world.sidecars):
            try:
                # One request shows that one worker serves: each has its own connection to Redis, which waits between two attempts.
                if self.world.store.redis:
                    wait_until(lambda one=sidecar: reaches_redis(one), 30)
                wait_until(lambda n=number: serves(n), 30)
            except AssertionError:
                raise AssertionError(f"sidecar {number} does not serve when all is calm: {last}; its log: "
                                     f"{self.world.sidecars[number].log()}") from None

    def ask_again(self):
        """Each key once more, of any sidecar: what was answered is still answered, and what is open may be told now."""
        shared = iter(list(self.transfers))
        lock = threading.Lock()

        def work():
            rng = random.Random(f"{self.options.seed}:again")
            kept = {}
            while True:
                with lock:
                    transfer = next(shared, None)
                if transfer is None:
                    break
                number = rng.randrange(len(self.world.sidecars))
                told = len(transfer.successes)
                client = self.send(transfer, number, PATIENCE, kept.pop(number, None))
                # A kept connection may have ended, and a sidecar may notice only now that its Redis did. Nothing fails any more.
                until = time.monotonic() + PATIENCE
                while (client is None or transfer.history[-1][3].startswith("503")) and time.monotonic() < until:
                    if client:
                        client.close()
                    client = self.send(transfer, number, PATIENCE)
                if client:
                    kept[number] = client
                if told and len(transfer.successes) == told and not self.options.broken:
                    self.odd.append((transfer, "was answered with success, and later with none"))
            for client in kept.values():
                client.close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def check(options):
    """Runs it all; a summary, with the violations as sentences with the history of their keys."""
    with World(options) as world:
        run = Run(world, options)
        began = time.monotonic()
        killer = Killer(world, options.seed)
        clients = [Client(run, number) for number in range(options.clients)]
        for client in clients:
            client.thread.start()
        killer.run(clients)
        for client in clients:
            client.thread.join()
            if client.error:
                raise client.error
        run.calm()
        run.ask_again()
        for sidecar in world.sidecars:  # what they still do for clients that left is done then
            sidecar.signal(signal.SIGTERM)
        for sidecar in world.sidecars:
            sidecar.wait()
            sidecar.stop_checks()
        # One connection more, behind all that the ledger has been sent: it has one loop, and answers after 3 ms.
        with RawClient(world.ledger.port) as client:
            client.request(b"GET /accounts/1 HTTP/1.1\r\nHost: ledger\r\nConnection: close\r\n\r\n")
        effects = world.ledger.effects()
        found = {}
        for transfer, sentence in run.odd + [(one, sentence) for one in run.transfers for sentence in one.violations(effects[one.key])]:
            found.setdefault(transfer, []).append(sentence)
        return {
            "store": options.store, "sidecars": options.sidecars, "seed": options.seed, "seconds": round(time.monotonic() - began, 1),
            "transfers": len(run.transfers), "succeeded": sum(bool(t.successes) for t in run.transfers),
            "unknown": sum(t.unknown and not t.successes for t in run.transfers), "open": sum(not t.settled for t in run.transfers),
            "requests": sum(t.sent for t in run.transfers), "duplicates": sum(max(0, t.sent - 1) for t in run.transfers),
            "replays": run.answers["replayed"], "conflicts": run.answers[409] - run.answers["unknown"], "unanswered": run.answers["none"],
            "refused": sum(run.answers[code] for code in (502, 503, 504)), "effects": sum(effects.values()), "kills": killer.kills,
            "pauses": killer.pauses, "violations": len(found),  # keys
        }, [describe(transfer, sentences, killer, began) for transfer, sentences in found.items()]


def describe(transfer, sentences, killer, zero):
    events = [(began, ended, f"{where}: {what}") for began, ended, where, what in transfer.history]
    first, last = min(event[0] for event in events), max(event[1] for event in events)
    events += [event for event in killer.done if event[1] >= first and event[0] <= last]
    lines = [f"  {began - zero:8.3f} to {ended - zero:8.3f}  {what}" for began, ended, what in sorted(events)]
    return f"key {transfer.key} " + ", ".join(sentences) + "\n" + "\n".join(lines)


def parse(arguments):
    parser = argparse.ArgumentParser(description="Checks from the clients' side that no key takes effect twice while everything is killed.")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--transfers", type=int, default=None, help="how many keys (default 3000, without a bound when --seconds is given)")
    parser.add_argument("--seconds", type=float, default=None, help="no new keys after this time")
    parser.add_argument("--store", choices=["log", "redis", "memory"], default="log")
    parser.add_argument("--sidecars", type=int, default=None, help="that share Redis (default 3); always 1 for the others")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--break", dest="broken", choices=["unprotected", "forgetful"], default=None, help="this must be found out")
    options = parser.parse_args(arguments)
    if options.broken == "forgetful":
        options.store = "memory"
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    if options.transfers is None:
        options.transfers = 3000 if options.seconds is None else 1 << 40
    if options.store != "redis":
        if options.sidecars not in (None, 1):
            parser.error(f"a store of kind {options.store} belongs to one sidecar")
        options.sidecars = 1
    options.sidecars = options.sidecars or 3
    if options.store == "redis" and keyed.REDIS is None:
        parser.error("no redis-server on this machine")
    return options


def main(arguments):
    options = parse(arguments)
    print(f"seed {options.seed}", flush=True)
    summary, violations = check(options)
    print("\n".join(f"{name:>12} {value}" for name, value in summary.items()))
    for violation in violations[:5]:
        print(violation)
    if len(violations) > 5:
        print(f"… and {len(violations) - 5} more")
    if violations:
        print(f"VIOLATED; again with --seed {options.seed}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
