"""Short runs of quorum_view.py, and proof that its check finds what it is there to find. At length: quorum_view.py --help, scripts/soak."""
import subprocess
import sys

import pytest

import quorum_view
from quorum_history import Call, violations
from quorum_leases import TTL, Lease, check_leases


def run(rng, *arguments, seconds=5):
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


@pytest.mark.parametrize("told, fast, early", [(12.1, 0, False), (11.9, 0, True), (11.9, 0.1, False), (11.8, 0.1, True)])
def test_a_lease_lives_from_the_beginning_of_its_last_renewal(told, fast, early):
    lease = Lease("q/lease.0", renewals=[(8.0, 8.1), (10.0, 11.0)])
    assert TTL == 2
    found = list(check_leases([lease], {"n": [(9.0, 2, "q/lease.0", "x"), (told, 3, "q/lease.0", None)]}, fast))
    assert bool(found) == early, found


# ---- real nodes -----------------------------------------------------------------------------------------------------

def summarise(report, summary):
    report.append("quorum's view: " + ", ".join(f"{name} {value}" for name, value in summary.items()))


@pytest.mark.parametrize("faults", ["kill,pause,partition", "kill,power,disk"])
def test_linearizable_whatever_happens_to_nodes(rng, report, faults):
    summary, found = run(rng, "--faults", faults)
    summarise(report, summary)
    assert not found, "\n".join(found[:3])
    assert all(summary[fault] >= 1 for fault in faults.split(",")) and summary["acknowledged"] >= 20, summary


def test_linearizable_with_slow_disks_and_wrong_clocks(rng, report):
    summary, found = run(rng, "--faults", "slow,clock", seconds=3)
    summarise(report, summary)
    assert not found, "\n".join(found[:3])
    assert summary["slow"] >= 1 and summary["clock"] >= 1 and summary["acknowledged"] >= 20, summary


def test_linearizable_whatever_happens_to_links(rng, report):
    """In a program of its own: it moves into another network."""
    done = subprocess.run([sys.executable, "-B", quorum_view.__file__, "--seed", str(rng.randrange(1 << 32)), "--seconds", "2", "--faults", "link"],
                          capture_output=True, text=True, timeout=300)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    summary = {line[:24].strip(): line[25:] for line in done.stdout.splitlines()[1:]}
    summarise(report, summary)
    assert int(summary["link"]) >= 1 and int(summary["acknowledged"]) >= 20, summary


@pytest.mark.parametrize("how, what", [("lying", "was acknowledged, and revision"), ("lost", "was acknowledged, and revision"),
                                       ("twice", "repeated or invented"), ("stale", "and before it began revision"),
                                       ("careless", "took effect 2 times")])
def test_the_check_finds_a_broken_promise(rng, how, what):
    # A stale read needs a node that is behind: one that was stopped while others went on.
    # One that was done twice needs an answer that came too late.
    more = {"stale": ["--faults", "pause", "--strikes", "6"], "careless": ["--strikes", "6"]}.get(how, ["--strikes", "1"])
    summary, found = run(rng, "--break", how, "--holders", "0", *more, seconds=60)
    assert summary["violations"] == len(found) > 0, summary
    assert any(what in sentence for sentence in found), found[0]
