"""Whom a newcomer is told of: those that it may reach, and where they really are."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

from agent.cluster.cluster_view import HEARD_WITHIN_S, PEERS_MAX, ClusterView
from agent.identity.identity import Identity
from agent.runtime.driver import Driver
from agent.store.known_peers import KnownPeers
from gossip.core.machine import Address
from gossip.membership.model.messages import Dead
from tests.support.membership_solo import ME, Solo, alive, where

DOCKER = Address("172.17.0.1", 7747)


def view_of(driver: Driver, clock: Callable[[], float] = time.monotonic) -> ClusterView:
    return ClusterView(driver, cast("Identity", None), cast("KnownPeers", None), clock)


def test_a_newcomer_is_told_of_the_nearest_and_where_their_packets_come_from() -> None:
    solo = Solo()
    for node in range(2, 60):
        solo.hear(node, alive(node, addresses=(DOCKER,)), source=where(node))
    solo.swim._reachability.answered(59, 0.001)
    around = SimpleNamespace(swim=solo.swim, addresses_of=solo.swim.addresses_of)
    driver = cast("Driver", SimpleNamespace(node=around))
    told = view_of(driver).nearest()
    assert [peer.id for peer in told[:2]] == [ME, 59]
    assert len(told) == PEERS_MAX
    assert told[1].addresses == (where(59), DOCKER)


def test_whom_an_issuer_has_not_heard_since_it_started_is_not_gone() -> None:
    """Its restart would else be the moment to take somebody's place with a token."""
    solo = Solo()
    solo.hear(2, alive(2), source=where(2))
    solo.hear(3, alive(3), source=where(3))
    solo.hear(2, Dead(3, 1, 1, 2))
    now = [100.0]
    registry = SimpleNamespace(ids=lambda: (ME, 2, 3, 4))
    around = SimpleNamespace(swim=solo.swim, state=SimpleNamespace(registry=registry))
    driver = cast("Driver", SimpleNamespace(node=around))
    covey = view_of(driver, lambda: now[0])
    assert covey.there() >= {2, 4}
    assert 3 not in covey.there(), "whose death is known"
    now[0] += HEARD_WITHIN_S
    assert 2 in covey.there()
    assert 4 not in covey.there()
