"""Fixtures of the tests on devices, and what they need: root, podman, debootstrap."""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import pytest

from tests.devices.rig.card import make_card
from tests.devices.rig.device import SHARED, Device
from tests.devices.rig.podman import Podman, missing

SUITE = os.environ.get("DEVICES_SUITE", "bookworm")


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """Give a podman of our own. Skips where containers cannot run."""
    if reason := missing():
        pytest.skip(reason)
    with contextlib.closing(Podman()) as made:
        yield made


@pytest.fixture(scope="session")
def card(podman: Podman) -> Path:
    """Give what each device starts from."""
    return make_card(podman, SUITE)


@pytest.fixture(scope="module")
def device(podman: Podman, card: Path) -> Iterator[Callable[..., Device]]:
    """Give a function that makes devices for one module: of a name, with options of podman.

    ``command`` names another first process than systemd on a machine.
    """
    made: list[Device] = []

    def make(name: str, *options: str, command: Sequence[str] = SHARED) -> Device:
        made.append(Device(podman, name, card, options, command))
        return made[-1]

    yield make
    for each in made:
        each.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the services' logs into the report of a test that failed."""
    report = yield
    for used in getattr(item, "funcargs", {}).values():
        if report.failed and isinstance(used, Device):
            report.sections.append((f"the service on {used.name}", used.journal()))
    return report
