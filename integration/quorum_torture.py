"""A quorum of real nodes and what is done to it: kill -9, SIGSTOP, partitions, power losses, broken, full and slow disks, wrong clocks, bad links.
One failure at a time, each on the main thread: the processes are to die with it.
"""
import contextlib
import errno
import random
import shutil
import time

import faulty_clock
import faulty_disk
import links
from faulty_clock import FaultyClock
from faulty_disk import FaultyDisk
from peer_relay import PeerRelay
from quorum import ControlNode, Quorum, wait_for

PATIENCE = 60.0
FAULTS = ("kill", "pause", "partition", "power", "disk", "slow", "clock", "link")
ON_DISK = ("power", "disk", "slow")
RATE_ERROR = 0.05  # of monotonic clocks, where clocks are wrong


class Node(ControlNode):
    """A node, perhaps on a disk that can fail, with a clock that can be wrong, behind a link of its own."""

    disk = None
    clock = None
    link = None

    def put_on_faulty_disk(self):
        self.disk = FaultyDisk(self.data, self.directory)

    def give_faulty_clock(self):
        self.clock = FaultyClock(self.directory)

    def put_behind(self, link):
        self.link = link
        self.host = links.address(link.number)
        self.settings.update(api_listen=f"{self.host}:{self.port}", peer_listen=f"{self.host}:{self.peer_port}")

    def command(self):
        libraries = [*([faulty_disk.library()] if self.disk else ()), *([faulty_clock.library()] if self.clock else ())]
        environment = {"LD_PRELOAD": ":".join(libraries)} if libraries else {}
        for part in filter(None, (self.disk, self.clock)):
            environment.update(part.environment())
        return [*(self.link.prefix() if self.link else ()), "env", *(f"{name}={value}" for name, value in environment.items()), *super().command()]

    def start(self):
        if self.disk:
            self.disk.before_start()
        return super().start()


class RelayedQuorum(Quorum):
    """Its nodes reach each other through relays."""

    relay = None

    def addresses(self, ports):
        self.relay = PeerRelay(ports)
        return self.relay.peers


class LinkedQuorum(Quorum):
    """Its nodes have a network between them. In a namespace of its own (links.enter)."""

    def __init__(self, count=3, **settings):
        self.network = links.Network(count)
        super().__init__(count, **settings)
        for node, port in zip(self.nodes, self.network.ports[1:]):
            node.put_behind(port)

    def addresses(self, ports):
        return {name: f"{links.address(number)}:{port}" for number, (name, port) in enumerate(ports.items(), 1)}


class World:
    """The nodes, and those that ended by themselves."""

    def __init__(self, faults, seed):
        kind = RelayedQuorum if "partition" in faults else LinkedQuorum if "link" in faults else Quorum
        self.quorum = kind(3, kind=Node, snapshot_entries=300, segment_bytes="1MiB")
        self.nodes = self.quorum.nodes
        if set(faults) & set(ON_DISK):
            for node in self.nodes:
                node.put_on_faulty_disk()
        if "clock" in faults:
            rates = random.Random(f"{seed}:rates").sample([-RATE_ERROR, 0, RATE_ERROR], 3)
            for node, rate in zip(self.nodes, rates):
                node.give_faulty_clock()
                node.clock.set_rate(rate)
        self.ended = []

    def __enter__(self):
        try:
            self.quorum.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for node in self.nodes:
            with contextlib.suppress(OSError):
                node.kill()
            for part in filter(None, (node.disk, node.clock)):
                part.close()
            shutil.rmtree(node.directory, ignore_errors=True)
        if "relay" in vars(self.quorum):
            self.quorum.relay.close()
        if "network" in vars(self.quorum):
            self.quorum.network.close()

    def check_alive(self):
        for node in self.nodes:
            if not node.alive():
                self.ended.append(f"{node.node_name} ended by itself with {node.child.returncode}:\n{node.log()}")
                node._forget()
                node.start()

    def leader(self):
        """A node that says that it leads; nothing when none does."""
        for node in self.nodes:
            try:
                if node.metric("outrider_control_leader") == 1:
                    return node
            except OSError:
                continue
        return None


class Killer:
    """Failures one after the other, each kind once before chance decides."""

    def __init__(self, world, history, options):
        self.world = world
        self.history = history
        self.rng = random.Random(f"{options.seed}:killer")
        self.strikes = {fault: 0 for fault in options.faults}
        self.kills = 0  # of nodes
        self.losses = 0
        self.clients = options.clients
        self.lying = options.broken == "lying"
        self.done = []
        self.first = list(options.faults)
        self.rng.shuffle(self.first)

    def run(self, deadline, strikes):
        while sum(self.strikes.values()) < strikes and (self.first or time.monotonic() < deadline):
            self.world.check_alive()
            fault = self.first.pop() if self.first else self.rng.choice(list(self.strikes))
            began = time.monotonic()
            what = getattr(self, fault)()
            self.strikes[fault] += 1
            self.done.append((began, time.monotonic(), f"{fault} {what}"))
            if self.rng.random() < 0.75:
                self.progress()
            self._pause(0.3)

    def _pause(self, most):
        time.sleep(self.rng.uniform(0, most))  # between two failures; nothing is waited for

    def progress(self):
        """A write that was begun after this is acknowledged: one of each client may have been on its way."""
        goal = self.history.acknowledged + self.clients + 1
        wait_for("another acknowledged write", lambda: self.history.acknowledged >= goal, PATIENCE)

    def during(self, history):
        """What was being done, or just had been, in the longest time without a write."""
        begun = history.longest_until - history.longest
        return next((what for began, ended, what in reversed(self.done) if began < history.longest_until and ended > begun - 1), "calm")

    def victims(self):
        """One node, the leader more often than chance would have it; sometimes two, or all."""
        chance = self.rng.random()
        nodes = self.world.nodes
        leader = self.world.leader() if chance < 0.35 else None
        if leader is not None:
            return [leader]
        return self.rng.sample(nodes, 1 if chance < 0.75 else 2 if chance < 0.85 else 3)

    def kill(self):
        victims = self.victims()
        for node in victims:
            node.kill()
        self.kills += len(victims)
        self._pause(0.2)
        for node in self.rng.sample(victims, len(victims)):
            node.start()
        return names(victims)

    def pause(self):
        victims = self.victims()
        for node in victims:
            node.pause()
        self._pause(1.2)
        for node in victims:
            node.resume()
        return names(victims)

    def partition(self):
        """Some node hears nothing, is heard by nobody, both, or two do not hear each other: there is a majority in which each hears
        each, so that writing goes on. Or nobody hears anybody."""
        relay = self.world.quorum.relay
        one, *others = self.rng.sample(self.world.nodes, 3)
        if self.rng.random() < 0.4 and (leader := self.world.leader()) is not None:
            one, others = leader, [node for node in self.world.nodes if node is not leader]
        out, into = [(one, other) for other in others], [(other, one) for other in others]
        between = [tuple(others), tuple(others[::-1])]
        cuts = {"is deaf": into, "is mute": out, "is alone": into + out, "does not hear one": into[:1], "is not heard by one": out[:1],
                "and one do not hear each other": into[:1] + out[:1], "and all others are alone": into + out + between}
        how = self.rng.choice(list(cuts))
        for sender, receiver in cuts[how]:
            relay.hold(sender.node_name, receiver.node_name)
        if self.rng.random() < 0.5 and len(cuts[how]) < 6:
            self.progress()
        self._pause(2)
        relay.heal()
        return f"{one.node_name} {how}"

    def power(self):
        """Of one node, or of the room."""
        victims = self.victims() if self.rng.random() < 0.5 and not self.lying else self.world.nodes
        for node in victims:
            node.kill()
        for node in victims:
            node.disk.power_loss(self.rng, spare=not self.lying)
        self.losses += len(victims)
        self._pause(0.1)
        for node in self.rng.sample(victims, len(victims)):
            node.start()
        return names(victims)

    def disk(self):
        """One disk fails or is full: its node ends, says so, and goes on with what it had when the disk is well again."""
        node = self.victims()[0]
        full = self.rng.random() < 0.5
        self._make_sick(node, full)
        reason = "No space left on device" if full else "Input/output error"
        wait_for(f"{node.node_name} to end: {reason}", lambda: not node.alive(), PATIENCE)
        node._forget()
        said = node.log(1000)
        if node.child.returncode != 1 or "the node stops: " not in said or reason not in said:
            self.world.ended.append(f"{node.node_name} ended with {node.child.returncode} without saying {reason}:\n{said}")
        if self.rng.random() < 0.5:
            self._start_sick(node, reason)
        if self.rng.random() < 0.3:
            node.disk.power_loss(self.rng)
        node.disk.heal()
        node.start()
        return f"{node.node_name}: {reason}"

    def _make_sick(self, node, full):
        if full:
            node.disk.room(self.rng.randrange(20_000))
        else:
            node.disk.fail_syncs(errno.EIO)

    def _start_sick(self, node, reason):
        """It may refuse, and then says why; or it starts, when it has nothing to write yet."""
        try:
            node.start()
        except RuntimeError as error:
            if reason not in str(error)[-400:]:
                self.world.ended.append(f"{node.node_name} does not say {reason}:\n{error}")
        else:
            node.kill()


    def slow(self):
        """Syncs take long, at one node or at all, longer than an election timeout too; sometimes the leader is killed just then. Writing
        goes on, and what was acknowledged is there."""
        everywhere = self.rng.random() < 0.5
        victims = self.world.nodes if everywhere else self.victims()[:1]
        seconds = self.rng.choice([0.05, 0.4, 0.8] if everywhere else [0.05, 0.4, 2.0])
        before = sum(node.disk.delayed() for node in victims)
        for node in victims:
            node.disk.delay_syncs(seconds)
        killed = ""
        if self.rng.random() < 0.4 and (leader := self.world.leader()) is not None:
            leader.kill()
            leader.start()
            killed = f", {leader.node_name} killed"
        self.progress()
        wait_for("a sync that is slow", lambda: sum(node.disk.delayed() for node in victims) > before, PATIENCE)
        self._pause(1)
        for node in victims:
            node.disk.heal()
        return f"{names(victims)}: {seconds} s{killed}"

    def clock(self):
        """Wall clocks jump, by seconds or by days, either way. (Their monotonic clocks run at different rates all the time.)"""
        jumps = []
        for node in self.victims():
            jump = self.rng.choice([-1, 1]) * 10 ** self.rng.uniform(0.5, 6)
            node.clock.set_wall(node.clock.wall() + jump)
            reads = node.clock.wall_reads()
            wait_for(f"{node.node_name} to see the time", lambda n=node, r=reads: n.clock.wall_reads() > r + 1, PATIENCE)
            jumps.append(f"{node.node_name} {jump:+.0f} s")
        self._pause(1)
        return ", ".join(jumps)

    def link(self):
        """A cable is pulled, in one direction or both; an interface goes down; all links lose and delay. Nobody is told."""
        network = self.world.quorum.network
        one, *others = self.rng.sample(self.world.nodes, 3)
        if self.rng.random() < 0.5 and (leader := self.world.leader()) is not None:
            one, others = leader, [node for node in self.world.nodes if node is not leader]
        number = one.link.number
        out, into = [(number, other.link.number) for other in others], [(other.link.number, number) for other in others]
        cuts = {"is deaf": into, "is mute": out, "is alone": into + out, "and one are cut": into[:1] + out[:1],
                "is unplugged": into + out + [(0, number), (number, 0)]}
        how = self.rng.choice([*cuts, "has its interface down", "and all lose and delay"])
        for sender, receiver in cuts.get(how, ()):
            network.cut(sender, receiver)
        if how == "has its interface down":
            one.link.set_up(False)
        if how == "and all lose and delay":
            loss, delay = self.rng.choice([0.01, 0.05]), self.rng.choice([0.005, 0.05])
            network.degrade(loss, delay)
            how += f": {loss:.0%}, {delay} s"
        if self.rng.random() < 0.5:
            self.progress()
        self._pause(3)
        one.link.set_up(True)
        network.heal()
        return f"{one.node_name} {how}"


def names(nodes):
    return " ".join(node.node_name for node in nodes)
