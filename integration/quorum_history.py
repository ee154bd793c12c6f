"""What clients saw of a key space with revisions, and whether one order of all writes explains it. Pure.

The order is what the cluster itself tells at the end: a watch from the first revision on. It is the witness of a linearization, and
everything any client was ever told must agree with it:

  * a write that was acknowledged with revision r is revision r, with these changes, and no value is there twice
  * a write that was refused for good is not there; of one without an answer either is allowed
  * what a read returned is the state as of the revision that its answer names, whole ranges included
  * a transaction that compared decided by the state before it
  * real time: nobody's revision is below what anybody had been told before his call began (for a write: nor equal). That holds
    for acknowledged writes and linearizable reads, and for writes without an answer that took effect after all; a serializable
    read and a watch may be behind, but what they tell has happened, and binds all that begins later
  * a watch told each revision once, in order, with all its changes

With revisions there is nothing to search: checking takes the time of sorting.
"""
import bisect
import collections
import dataclasses

WRITES = ("write", "cas")
FIRST_REVISION = 2  # an empty key space is of revision 1


@dataclasses.dataclass(slots=True)
class Call:
    """One call of a client. `kind`: write | cas | read | serializable.

    `changes`: key -> value, None for a deletion; all at once. A value is written by one call only.
    `outcome`: ok | compared (a cas whose comparison failed) | refused (it had no effect, for sure) | unknown.
    `seen`: key -> (value, mod revision), of the keys in `asked` (None: all).
    """
    client: int
    node: str
    kind: str
    begun: float
    changes: dict = dataclasses.field(default_factory=dict)
    asked: str | None = None
    expected: int | None = None  # the mod revision that a cas compares with; 0: no such key
    ended: float | None = None
    outcome: str = "unknown"
    revision: int | None = None
    seen: dict | None = None
    error: str = ""

    def text(self, zero=0.0):
        what = {"write": f"writes {self.changes}", "cas": f"writes {self.changes} if {self.asked} is of revision {self.expected}",
                "read": f"reads {self.asked or 'all'}", "serializable": f"reads {self.asked or 'all'} as {self.node} has it"}[self.kind]
        told = f"{self.outcome}, revision {self.revision}" if self.revision else f"{self.outcome} {self.error}"
        seen = "" if self.seen is None else f", {self.seen}"
        until = "-" if self.ended is None else f"{self.ended - zero:.4f}"
        return f"{self.begun - zero:.4f} to {until} client {self.client} at {self.node} {what}: {told}{seen}"


class States:
    """The key space at every revision, from its changes."""

    def __init__(self, order):
        self.of_key = collections.defaultdict(lambda: ([], []))  # key -> revisions, values
        for revision in sorted(order):
            for key, value in order[revision].items():
                revisions, values = self.of_key[key]
                revisions.append(revision)
                values.append(value)

    def at(self, key, revision):
        """(value, mod revision), or None when the key is not there."""
        revisions, values = self.of_key.get(key, ((), ()))
        place = bisect.bisect_right(revisions, revision) - 1
        if place < 0 or values[place] is None:
            return None
        return values[place], revisions[place]

    def all_at(self, revision):
        found = {key: self.at(key, revision) for key in self.of_key}
        return {key: state for key, state in found.items() if state is not None}


class Floor:
    """The highest revision of which anybody had been told by a time."""

    def __init__(self, told):
        self.times = []
        self.highest = []
        for time, revision in sorted(told):
            self.times.append(time)
            self.highest.append(max(revision, self.highest[-1] if self.highest else 0))

    def before(self, time):
        place = bisect.bisect_left(self.times, time)
        return self.highest[place - 1] if place else 0


def effects_of(calls, order, others):
    """id of a call -> the revision at which it took effect, and what is wrong with that. A deletion without an answer has no value
    by which it could be recognised; it may explain as many deletions as there were such calls."""
    wrong = []
    effects = {}
    by_value = collections.defaultdict(list)
    deletions = set()
    for revision, changes in order.items():
        for key, value in changes.items():
            if key.startswith(others):
                continue
            if value is None:
                deletions.add((revision, key))
            else:
                by_value[value].append((revision, key))
    unanswered = collections.Counter()
    for call in calls:
        if call.kind not in WRITES:
            continue
        values = {value for value in call.changes.values() if value is not None}
        found = sorted({revision for value in values for revision, _ in by_value.pop(value, ())})
        if len(found) > 1:
            wrong.append((call, f"took effect {len(found)} times, at {found}"))
        if call.outcome == "ok":
            if order.get(call.revision) != call.changes:
                wrong.append((call, f"was acknowledged, and revision {call.revision} is {order.get(call.revision)}"))
            effects[id(call)] = call.revision
            deletions -= {(call.revision, key) for key in call.changes}
        elif found and call.outcome in ("refused", "compared"):
            wrong.append((call, f"was {call.outcome}, and took effect at {found[0]}"))
        elif found:
            effects[id(call)] = found[0]
            if order[found[0]] != call.changes:
                wrong.append((call, f"took effect in part: revision {found[0]} is {order[found[0]]}"))
        elif call.outcome == "unknown" and not values:
            unanswered.update(call.changes.keys())
    for value, places in by_value.items():
        wrong.append((None, f"the value {value} at {places} was written by nobody"))
    for key, count in collections.Counter(key for _, key in deletions).items():
        if count > unanswered[key]:
            wrong.append((None, f"{key} was deleted {count} times by calls without an answer, of which there are {unanswered[key]}"))
    return effects, wrong


def check_call(call, states, floor, effect):
    """What is wrong with one call, its effect apart."""
    if effect is not None and effect <= floor.before(call.begun):
        yield f"took effect at revision {effect}, and before it began revision {floor.before(call.begun)} had been told"
    if call.kind == "cas" and effect is not None:
        had = states.at(call.asked, effect - 1)
        if (had[1] if had else 0) != call.expected:
            yield f"took effect at {effect}, where the key was {had}"
    if call.seen is None:
        return
    if call.kind != "serializable" and call.revision < floor.before(call.begun):
        yield f"read revision {call.revision}, and before it began revision {floor.before(call.begun)} had been told"
    was = states.all_at(call.revision) if call.asked is None else {
        call.asked: states.at(call.asked, call.revision)} if states.at(call.asked, call.revision) else {}
    if call.seen != was:
        yield f"read what revision {call.revision} was not: {was}"
    if call.kind == "cas" and (was[call.asked][1] if was else 0) == call.expected:
        yield "was told that the comparison failed, and it holds"


def check_watch(name, told, order):
    """`told`: (time, revision, key, value) as they came."""
    want = [(revision, key, value) for revision in sorted(order) for key, value in sorted(order[revision].items())]
    got = [(revision, key, value) for _, revision, key, value in told]
    ordered = all(a[0] <= b[0] for a, b in zip(got, got[1:]))
    if ordered and sorted(got, key=lambda event: event[:2]) == want:
        return
    counts = collections.Counter(got)
    missing = [event for event in want if event not in counts]
    extra = [event for event, count in (counts - collections.Counter(want)).items() if count]
    backwards = next(((a, b) for a, b in zip(got, got[1:]) if a[0] > b[0]), None)
    yield (f"the watch at {name} told {len(got)} changes of {len(want)}; missing {missing[:5]}, repeated or invented {extra[:5]}, "
           f"backwards {backwards}")


def violations(calls, order, watches, others=()):
    """Sentences; empty when all is well. `order`: revision -> changes. `watches`: name -> what it told. `others`: what keys begin with
    that are written by others than these calls."""
    out = []
    gaps = sorted(set(range(FIRST_REVISION, max(order, default=1) + 1)) - set(order))
    if gaps:
        out.append(f"revisions without a change: {gaps[:5]}")
    states = States(order)
    effects, wrong = effects_of(calls, order, tuple(others))
    told = [(call.ended, call.revision) for call in calls if call.ended is not None and call.revision is not None]
    for name, events in watches.items():
        told += [(time, revision) for time, revision, _, _ in events]
        out += check_watch(name, events, order)
    floor = Floor(told)
    for call in calls:
        wrong += [(call, sentence) for sentence in check_call(call, states, floor, effects.get(id(call)))]
    zero = min((call.begun for call in calls), default=0.0)
    out += [f"{sentence}\n  {call.text(zero)}" if call else sentence for call, sentence in wrong]
    return out
