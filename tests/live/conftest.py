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
