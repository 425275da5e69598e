"""Fixtures of the live tests, and what they need: root, namespaces, Debian's packages."""

from collections.abc import Generator, Iterator

import pytest

from tests.live.harness.fleet import Fleet
from tests.live.harness.neighbours import many_neighbours
from tests.live.harness.network import can_make_networks


@pytest.fixture(scope="session")
def networks() -> Iterator[None]:
    """Skip where nobody may make networks; else let the kernel know many hosts."""
    if not can_make_networks:
        pytest.skip("needs iproute2, and root that may make network namespaces")
    with many_neighbours():
        yield


@pytest.fixture
def fleet(networks: None) -> Iterator[Fleet]:
    """Give an empty fleet on a network of its own; its logs are shown when the test fails."""
    with Fleet() as made:
        yield made


RAN: pytest.StashKey[dict[Fleet, list[str]]] = pytest.StashKey()
"""The fleets of a test, with the agents that ran when it began."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Remember what a test that fails has to be followed by."""
    used = getattr(item, "funcargs", {}).values()
    fleets = {each: [a.name for a in each.running()] for each in used if isinstance(each, Fleet)}
    try:
        yield
    except BaseException:
        item.stash[RAN] = fleets
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Make the fleets that outlive a failed test whole: it must not fell the next one."""
    yield
    for fleet, names in item.stash.get(RAN, {}).items():
        if not fleet.is_closed:
            fleet.make_whole(names)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the agents' logs into the report of a test that failed."""
    report = yield
    for used in getattr(item, "funcargs", {}).values():
        if report.failed and isinstance(used, Fleet):
            report.sections.append(("agents", used.logs()))
    return report
