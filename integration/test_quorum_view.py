"""Short runs of quorum_view.py, and proof that its check finds what it is there to find. At length: quorum_view.py --help, scripts/soak."""
import pytest

import quorum_view
from quorum_history import Call, violations


def run(rng, *arguments, seconds=4):
    """The summary and the violations of a run of about so long."""
    return quorum_view.check(quorum_view.parse(["--seed", str(rng.randrange(1 << 32)), "--seconds", str(seconds), *arguments]))


# ---- the check itself -----------------------------------------------------------------------------------------------

def write(begun, ended, revision, key="a", value="x", **more):
    return Call(0, "n", "write", begun, {key: value}, ended=ended, outcome="ok" if ended else "unknown", revision=revision, **more)


def read(begun, ended, revision, seen, kind="read", asked="a"):
    return Call(1, "n", kind, begun, asked=asked, ended=ended, outcome="ok", revision=revision, seen=seen)


def cas(expected, outcome, revision, seen=None):
    return Call(2, "n", "cas", 5, {"a": "c"}, asked="a", expected=expected, ended=6, outcome=outcome, revision=revision, seen=seen)


ORDER = {2: {"a": "x"}, 3: {"a": "y"}}
BOTH = [write(1, 2, 2), write(3, 4, 3, value="y")]
WATCH = [(9, 2, "a", "x"), (9, 3, "a", "y")]


@pytest.mark.parametrize("calls, order", [
    (BOTH, ORDER),
    (BOTH + [read(3.5, 4.5, 2, {"a": ("x", 2)})], ORDER),  # beside the second write
    (BOTH + [read(5, 6, 2, {"a": ("x", 2)}, kind="serializable")], ORDER),
    (BOTH + [read(5, 6, 3, {}, asked="b"), read(5, 6, 3, {"a": ("y", 3)}, asked=None)], ORDER),
    ([write(1, 2, 2), write(3, None, None, value="y")], ORDER),  # no answer, and it took effect
    ([write(1, 2, 2), write(3, None, None, value="y")], {2: {"a": "x"}}),  # … and it did not
    (BOTH + [cas(3, "ok", 4)], {**ORDER, 4: {"a": "c"}}),
    (BOTH + [cas(2, "compared", 3, {"a": ("y", 3)})], ORDER),
    (BOTH + [write(3, None, None, value=None)], {**ORDER, 4: {"a": None}}),
])
def test_what_can_be_true_is_allowed(calls, order):
    assert violations(calls, order, {}) == []


@pytest.mark.parametrize("calls, order, what", [
    (BOTH, {2: {"a": "x"}}, "was acknowledged, and revision 3 is None"),
    (BOTH, {2: {"a": "y"}, 3: {"a": "x"}}, "was acknowledged, and revision 2 is"),
    (BOTH, {**ORDER, 4: {"a": "x"}}, "took effect 2 times"),
    (BOTH, {**ORDER, 4: {"a": "z"}}, "was written by nobody"),
    (BOTH, {2: {"a": "x"}, 4: {"a": "y"}}, "revisions without a change: [3]"),
    (BOTH, {**ORDER, 4: {"a": None}}, "was deleted 1 times by calls without an answer, of which there are 0"),
    ([write(3, 4, 2), write(1, 2, 3, value="y")], ORDER, "took effect at revision 2, and before it began revision 3"),
    ([*BOTH, write(5, None, None, value="z")], {2: {"a": "x"}, 3: {"a": "z"}, 4: {"a": "y"}}, "took effect at revision 3, and before"),
    (BOTH + [read(5, 6, 2, {"a": ("x", 2)})], ORDER, "read revision 2, and before it began revision 3"),
    (BOTH + [read(5, 6, 3, {"a": ("x", 2)})], ORDER, "read what revision 3 was not"),
    (BOTH + [read(5, 6, 3, {}, asked=None)], ORDER, "read what revision 3 was not"),
    (BOTH + [read(2.1, 2.2, 3, {"a": ("y", 3)}, kind="serializable")], ORDER, "took effect at revision 3, and before it began revision 3"),
    (BOTH + [cas(2, "ok", 4)], {**ORDER, 4: {"a": "c"}}, "took effect at 4, where the key was ('y', 3)"),
    (BOTH + [cas(3, "compared", 3, {"a": ("y", 3)})], ORDER, "the comparison failed, and it holds"),
    (BOTH + [cas(2, "compared", 3, {"a": ("y", 3)})], {**ORDER, 4: {"a": "c"}}, "was compared, and took effect at 4"),
])
def test_what_cannot_be_true_is_found(calls, order, what):
    assert any(what in sentence for sentence in violations(calls, order, {})), violations(calls, order, {})


@pytest.mark.parametrize("told, what", [
    (WATCH, None), (WATCH[:1], "missing [(3, 'a', 'y')]"), (WATCH + WATCH[1:], "repeated or invented [(3, 'a', 'y')]"),
    (WATCH[::-1], "backwards ((3, 'a', 'y'), (2, 'a', 'x'))")])
def test_a_watch_is_held_to_the_order(told, what):
    found = violations(BOTH, ORDER, {"n": told})
    assert (found == []) if what is None else any(what in sentence for sentence in found), found


# ---- real nodes -----------------------------------------------------------------------------------------------------

def summarise(report, summary):
    report.append("quorum's view: " + ", ".join(f"{name} {value}" for name, value in summary.items()))


def test_linearizable_while_nodes_are_killed_and_stopped(rng, report):
    summary, found = run(rng)
    summarise(report, summary)
    assert not found, "\n".join(found[:3])
    assert summary["kill"] >= 1 and summary["pause"] >= 1 and summary["acknowledged"] >= 20, summary


def test_linearizable_across_partitions(rng, report):
    summary, found = run(rng, "--faults", "partition")
    summarise(report, summary)
    assert not found, "\n".join(found[:3])
    assert summary["partition"] >= 1 and summary["acknowledged"] >= 20, summary


def test_nothing_acknowledged_is_lost_with_what_was_not_synced(rng, report):
    summary, found = run(rng, "--faults", "power")
    summarise(report, summary)
    assert not found, "\n".join(found[:3])
    assert summary["disks cut off"] >= 1 and summary["acknowledged"] >= 10, summary


def test_a_node_with_a_bad_disk_ends_and_says_why(rng, report):
    summary, found = run(rng, "--faults", "disk")
    summarise(report, summary)
    assert not found, "\n".join(found[:3])
    assert summary["disk"] >= 1 and summary["acknowledged"] >= 20, summary


@pytest.mark.parametrize("how, what", [("lying", "was acknowledged, and revision"), ("lost", "was acknowledged, and revision"),
                                       ("twice", "repeated or invented"), ("stale", "and before it began revision")])
def test_the_check_finds_a_broken_promise(rng, how, what):
    # A stale read needs a node that is behind: one that was stopped while others went on.
    more = {"stale": ["--faults", "pause", "--strikes", "6"], "lying": ["--strikes", "1"]}.get(how, [])
    summary, found = run(rng, "--break", how, *more, seconds=60 if more else 1)
    assert summary["violations"] == len(found) > 0, summary
    assert any(what in sentence for sentence in found), found[0]
