"""Zones, capacities and draining, as a node orders them: who may, and what is said."""

import asyncio
import logging
from pathlib import Path

import pytest

from agent import exits
from agent.admission.messages import PlacementOrder, Refused, RelayedRequest
from agent.admission.placement import check_change
from agent.admission.token_terms import TokenTerms
from agent.exits import AgentError
from gossip.registry.node_change import NodeChange
from tests.support.admission_rig import issuer, member

DRAINS = NodeChange(drains=True)


def test_the_issuers_operator_sets_a_node_and_the_log_says_who(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 1))
            two = await first.join(token, tmp_path / "b" / "identity", "pi2")
            await first.hear(two.node_id)
            epoch = await first.server.place(two.node_id, NodeChange("shed", 2.0))
            entry = first.covey.registry().node(two.node_id)
            assert entry is not None
            assert (entry.zone, entry.weight, first.covey.registry().epoch) == ("shed", 2.0, epoch)
            adopted = len(first.covey.adopted)
            assert await first.server.place(two.node_id, NodeChange("shed")) == epoch
            assert len(first.covey.adopted) == adopted, "nothing new, no registry"
            with pytest.raises(AgentError, match="belongs to this covey") as caught:
                await first.server.place(9, DRAINS)
            assert caught.value.status == exits.NOT_FOUND
            await first.server.place(two.node_id, DRAINS)
            with pytest.raises(AgentError, match="nobody else is there") as caught:
                await first.server.place(first.identity.node_id, DRAINS)
            assert caught.value.status == exits.UNHEALTHY

    with caplog.at_level(logging.INFO, "agent.admission.server"):
        asyncio.run(scenario())
    told = [each.getMessage() for each in caplog.records if each.getMessage().startswith("pi2: ")]
    assert told == [
        "pi2: zone shed (was none), capacity 2 (was 1), by the operator of pi1 (epoch 4)",
        "pi2: drains, by the operator of pi1 (epoch 5)",
    ]


def test_a_member_drains_itself_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 3))
            two = await first.join(token, tmp_path / "b" / "identity", "pi2")
            three = await first.join(token, tmp_path / "c" / "identity", "pi3")
            await first.hear(two.node_id, three.node_id)
            async with member(two, tmp_path / "b") as second:
                second.covey.others[first.identity.node_id] = first.server
                first.covey.others[two.node_id] = second.server
                second.covey.me, first.covey.me = two.node_id, first.identity.node_id
                for node, change in (
                    (three.node_id, DRAINS),
                    (two.node_id, NodeChange(weight=100.0)),
                    (two.node_id, NodeChange(zone="mine", drains=True)),
                ):
                    before = first.covey.registry()
                    with pytest.raises(AgentError, match="pi2 may not change") as caught:
                        await second.server.place(node, change)
                    assert caught.value.status == exits.NOT_PERMITTED
                    assert "`covey members allow pi2`" in caught.value.hint
                    assert first.covey.registry() == before
                forged = RelayedRequest(9, PlacementOrder(three.node_id, DRAINS))
                verdict = await first.server._verdict_on(forged, two.node_id)
                assert isinstance(verdict, Refused), "also when it leaves its own server out"
                await second.server.place(two.node_id, DRAINS)
                await second.server.place(two.node_id, NodeChange(drains=False))
                await first.server.allow_inviting(two.node_id, allowed=True)
                await second.server.place(three.node_id, DRAINS)
                entry = first.covey.registry().node(three.node_id)
                assert entry is not None
                assert entry.drains

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "change",
    [
        NodeChange(zone="a b"), NodeChange(zone="\x1b[2J"), NodeChange(zone="z" * 64),
        NodeChange(weight=0.0), NodeChange(weight=100.5), NodeChange(weight=float("nan")),
        NodeChange(weight=float("inf")), NodeChange(weight=-1.0),
    ],
)  # fmt: skip
def test_what_cannot_stand_in_the_registry_is_refused(change: NodeChange) -> None:
    with pytest.raises(AgentError) as caught:
        check_change(change)
    assert caught.value.status == exits.USAGE
