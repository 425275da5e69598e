"""Rules for every test: nothing skips unseen in CI, and Hypothesis never judges by the clock.

A skipped test is a promise nobody looked at. On a laptop without root that is fine, and pytest
says so in its summary. In continuous integration (``CI=true``) it is a failure, with the reason.
"""

import gc
import importlib
import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.import_graph import import_graph
from tests.support.sources import nodes

IN_CI = os.environ.get("CI") == "true"

# A slow machine is no counterexample, so there are no deadlines. In CI the examples are the
# same each time; on a developer's machine each run looks at new ones.
settings.register_profile(
    "covey", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("covey"), derandomize=True)
settings.load_profile("ci" if IN_CI else "covey")

# A shell without job control starts what runs in its background with SIGINT ignored, nohup with
# SIGHUP, and that is inherited: no signal of a test would reach the programs that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave out of garbage collection what stays for the whole run: the tests and their modules.

    That is a million objects. To look through them again and again, while they are made and in the
    tests themselves, takes longer than to make them.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def _reads_sources(item: pytest.Item) -> bool:
    known = vars(getattr(item, "module", None) or object).values()
    return any(each is nodes or each is import_graph for each in known)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what reads the sources: then one worker parses them, and not each."""
    items.sort(key=_reads_sources, reverse=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer ``--rewrite`` for transcripts and examples, ``--compiled`` for `make test-compiled`."""
    words = "record anew what transcripts and examples show"
    parser.getgroup("covey").addoption("--rewrite", action="store_true", help=words)
    words = "go on only with a compiled gossip/, which -o pythonpath puts in front"
    parser.getgroup("covey").addoption("--compiled", action="store_true", help=words)


def pytest_configure(config: pytest.Config) -> None:
    """See to it that a run on compiled code is not one on its source by mistake."""
    found = importlib.import_module("gossip.membership.swim").__file__ or ""
    if found.endswith(".so") != config.getoption("compiled"):
        raise pytest.UsageError(f"--compiled: {config.getoption('compiled')}; gossip/ is {found}")


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that names its reason; an expected failure is no skip."""
    if not IN_CI or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"with CI=true nothing may be skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at the report of each phase of each test."""
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Look at each module too: ``importorskip`` at the top hides a whole file."""
    report = yield
    _forbid_skip(report)
    return report
