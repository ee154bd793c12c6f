"""Shared fixtures, the processes' logs under a failed test, and the report lines of the comparison."""
import os
import pathlib
import random
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import harness  # noqa: E402

REPORT = []


@pytest.fixture(scope="module")
def bench_of_module(request):
    bench = harness.Bench(**getattr(request.module, "PROXY_OPTIONS", {}))
    yield bench
    bench.stop()


@pytest.fixture
def bench(bench_of_module):
    yield bench_of_module.fresh()
    bench_of_module.check()


@pytest.fixture
def rng(request):
    """Random numbers that can be had again: OUTRIDER_SEED=N replays a failure, which prints its seed."""
    seed = int(os.environ.get("OUTRIDER_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"OUTRIDER_SEED={seed}")
    return random.Random(f"{seed}:{request.node.nodeid}")


@pytest.fixture(scope="session")
def report():
    """Lines to print after the results, whatever they are."""
    return REPORT


def pytest_terminal_summary(terminalreporter):
    for line in REPORT:
        terminalreporter.write_line(line)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    result = outcome.get_result()
    if result.failed:
        for process in harness.RUNNING:
            result.sections.append((f"log of {process.name} {process.child.pid}", process.log(3000)))
