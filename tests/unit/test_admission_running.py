"""Whom a newcomer is told of: those that it may reach, and where they really are."""

from types import SimpleNamespace
from typing import cast

from agent.admission.running import PEERS_MAX, RunningCovey
from agent.driver import Driver
from agent.security.identity import Identity
from gossip.machine import Address
from tests.unit.membership_solo import ME, Solo, alive, where

DOCKER = Address("172.17.0.1", 7747)


def test_a_newcomer_is_told_of_the_nearest_and_where_their_packets_come_from() -> None:
    solo = Solo()
    for node in range(2, 60):
        solo.hear(node, alive(node, addresses=(DOCKER,)), source=where(node))
    solo.swim._contacts.answered(59, 0.001)
    around = SimpleNamespace(swim=solo.swim, addresses_of=solo.swim.addresses_of)
    driver = cast("Driver", SimpleNamespace(node=around))
    told = list(RunningCovey(driver, cast("Identity", None)).known_peers())
    assert [peer.id for peer in told[:2]] == [ME, 59]
    assert len(told) == PEERS_MAX
    assert told[1].addresses == (where(59), DOCKER)
