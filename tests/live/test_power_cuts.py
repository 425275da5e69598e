"""Plugs of voters are pulled while clients ask them: what was answered is on the disks."""

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.live.harness.agreement_load import AgreementLoad
from tests.live.harness.cut_disk import CutDisk, can_cut_disks, cut_power, shared_mounts
from tests.live.harness.fleet import VOTERS_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar")
DISK_MEBIBYTES = 64
GOES_ON_WITHIN_S = 40.0
AT_WORK_S = 3.0

Cut = tuple[Fleet, dict[str, CutDisk]]


@pytest.fixture
def three(networks: None) -> Iterator[Cut]:
    """Give three voters, each on a disk of its own."""
    if not can_cut_disks():
        pytest.skip("needs mkfs.ext4 and loop devices")
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet())
        stack.enter_context(shared_mounts(fleet.folder))
        disks = {
            name: stack.enter_context(CutDisk(fleet.folder / name, DISK_MEBIBYTES))
            for name in NAMES
        }
        stack.callback(fleet.end_agents)
        fleet.form_admitted(*NAMES, toml=VOTERS_TOML)
        fleet.wait_voters()
        yield fleet, disks


def test_what_was_answered_outlives_the_power(three: Cut) -> None:
    """First the one that leads loses it, then all at once."""
    fleet, disks = three
    everybody = list(fleet.agents.values())
    with AgreementLoad(everybody) as load:
        for who in ("leader", "all"):
            time.sleep(AT_WORK_S)
            leader = fleet.leader()
            victims = [leader] if who == "leader" else everybody
            cut_power(victims, disks)
            for agent in victims:
                agent.launch()
            for agent in victims:
                agent.wait_ready()
            began = time.monotonic()
            eventually(
                lambda: [load.answered_since(began, by=agent.name) for agent in everybody],  # noqa: B023
                all,
                GOES_ON_WITHIN_S,
                f"each has things decided after {who} had no power",
            )
    load.check()
