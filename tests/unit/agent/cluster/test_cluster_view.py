"""Whom a newcomer is told of: those that it may reach, and where they really are."""

import asyncio
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
    now = [100.0]
    covey = issuers_view(lambda: now[0], met=())
    assert asyncio.run(covey.is_there(2))
    assert asyncio.run(covey.is_there(4))
    assert not asyncio.run(covey.is_there(3)), "whose death is known"
    now[0] += HEARD_WITHIN_S
    assert asyncio.run(covey.is_there(2))
    assert not asyncio.run(covey.is_there(4))


def test_who_shows_its_certificate_is_there_whatever_members_say_of_it() -> None:
    """A lying member and a token for one would else take a living node's place."""
    assert asyncio.run(issuers_view(time.monotonic, met=(3,)).is_there(3))


def issuers_view(clock: Callable[[], float], met: tuple[int, ...]) -> ClusterView:
    """Return the view of one to whom 2 is alive and 3 dead, with 4 unheard of."""
    solo = Solo()
    solo.hear(2, alive(2), source=where(2))
    solo.hear(3, alive(3), source=where(3))
    solo.hear(2, Dead(3, 1, 1, 2))

    async def meets(node: int) -> bool:
        return node in met

    registry = SimpleNamespace(ids=lambda: (ME, 2, 3, 4))
    around = SimpleNamespace(swim=solo.swim, state=SimpleNamespace(registry=registry))
    return view_of(cast("Driver", SimpleNamespace(node=around, meets=meets)), clock)
