"""Whom a newcomer is told of: those that it may reach, and where they really are."""

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from agent.cluster.cluster_view import HEARD_WITHIN_S, PEERS_MAX, ClusterView
from agent.config.fact_rules import COMMANDS
from agent.exits import AgentError
from agent.identity.identity import Identity
from agent.runtime.driver import Driver
from agent.store.known_peers import KnownPeers
from gossip.consensus.configuration import Voter
from gossip.core.machine import Address
from gossip.membership.model.messages import Dead
from gossip.registry.node import ISSUER, RegisteredNode
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


def agreeing_view(
    *, leader: int | None, voters: tuple[int, ...], issuers: tuple[int, ...], facts: dict[int, str]
) -> ClusterView:
    """Return the view of ``ME`` (1), to whom 2 is alive, of a covey of four."""
    solo = Solo()
    solo.hear(2, alive(2), source=where(2))
    nodes = tuple(
        RegisteredNode(node, f"pi{node}", roles=(ISSUER,) if node in issuers else ())
        for node in (ME, 2, 3, 4)
    )
    registry = SimpleNamespace(nodes=nodes, node=lambda node: nodes[node - ME])
    plane = SimpleNamespace(
        directory=SimpleNamespace(leader=leader),
        part=SimpleNamespace(
            configuration=SimpleNamespace(voters=[Voter(100 + each, each) for each in voters])
        ),
    )
    swim = SimpleNamespace(
        members=solo.swim.members,
        reachable_first=solo.swim.reachable_first,
        facts_of=lambda node: {COMMANDS: facts[node]} if node in facts else {},
    )
    around = SimpleNamespace(
        swim=swim,
        settings=SimpleNamespace(me=ME),
        state=SimpleNamespace(registry=registry),
        see_control=lambda look: look(plane),
    )
    return view_of(cast("Driver", SimpleNamespace(node=around, now=lambda: 0.0)))


@pytest.mark.parametrize(
    ("leader", "voters", "issuers", "acts"),
    [
        (ME, (ME, 2, 3), (ME, 2, 3), True),
        (2, (ME, 2, 3), (ME, 2, 3), False),
        (3, (ME, 2, 3), (ME, 2), True),  # the leader is none: the first that votes
        (None, (2, 3), (ME, 2), False),  # who votes comes first
        (None, (3,), (ME,), True),  # nobody has both: somebody has to
    ],
)
def test_of_several_issuers_one_acts(
    leader: int | None, voters: tuple[int, ...], issuers: tuple[int, ...], *, acts: bool
) -> None:
    view = agreeing_view(leader=leader, voters=voters, issuers=issuers, facts={})
    assert view.acts() is acts


def test_the_leader_is_asked_first() -> None:
    view = agreeing_view(leader=3, voters=(2, 3), issuers=(ME, 2, 3, 4), facts={})
    assert view.issuers() == [3, 2, 4], "then who is there"


def test_a_voter_that_does_not_know_a_command_is_named() -> None:
    """Of those that are there: who is off learns it from the log, and stands still until then."""
    told: dict[int, str] = {ME: "12", 2: "11"}
    view = agreeing_view(leader=ME, voters=(ME, 2, 3), issuers=(ME,), facts=told)
    view.check_understood(11)
    with pytest.raises(AgentError, match="pi2 votes, and runs a version"):
        view.check_understood(12)
    told[2] = "12"
    view.check_understood(12)
    del told[2]
    with pytest.raises(AgentError, match="pi2"):
        view.check_understood(12)
