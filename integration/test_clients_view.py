"""A short run of clients_view.py, and proof that it finds what it is there to find. At length: clients_view.py --help."""
import pytest

import clients_view
import keyed


def run(rng, *arguments, seconds=5):
    """The summary and the violations of a run of about so long."""
    options = clients_view.parse(["--seed", str(rng.randrange(1 << 32)), "--seconds", str(seconds), "--clients", "6", *arguments])
    if options.store == "redis":
        built_in_or_skip()
    return clients_view.check(options)


def built_in_or_skip():
    with keyed.StoreKind("redis") as store, keyed.sidecar_with(store, keyed.keyed_body(1)):
        pass


@pytest.fixture(autouse=True)
def needs_redis(request):
    if "redis" in request.node.name and keyed.REDIS is None:
        pytest.skip("no redis-server on this machine")


@pytest.mark.parametrize("store, sidecars", [("log", 1), ("redis", 3), ("memory", 1)])
def test_at_most_once_from_the_clients_side(rng, report, store, sidecars):
    summary, violations = run(rng, "--store", store, *(["--sidecars", str(sidecars)] if store == "redis" else []))
    report.append("clients' view: " + ", ".join(f"{name} {value}" for name, value in summary.items()))
    assert not violations, "\n".join(violations[:3])
    # It has met what it is about.
    assert summary["kills"] >= 1 and summary["pauses"] >= 2, summary
    assert summary["succeeded"] >= 20 and summary["replays"] >= 10 and summary["duplicates"] >= 20, summary
    assert summary["succeeded"] <= summary["effects"], summary


@pytest.mark.parametrize("how", ["unprotected", "forgetful"])
def test_the_check_finds_a_broken_promise(rng, how):
    summary, violations = run(rng, "--break", how, seconds=2)
    assert summary["violations"] == len(violations) > 0, summary
    assert any("took effect 2 times" in violation or "took effect 3 times" in violation for violation in violations), violations[0]
    assert "sidecar 0: 201" in violations[0], "with its history"


def test_a_violation_is_an_exit_code(capfd):
    assert clients_view.main(["--seed", "1", "--transfers", "20", "--clients", "4", "--break", "unprotected"]) == 1
    said = capfd.readouterr().out
    assert said.startswith("seed 1\n") and "VIOLATED; again with --seed 1" in said
