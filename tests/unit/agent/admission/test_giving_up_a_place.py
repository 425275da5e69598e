"""A node that leaves for good has the issuer free its place, and knows whether it did."""

import asyncio
from pathlib import Path

import pytest

from agent import exits
from agent.admission.messages import Refused, RelayedRequest, RemovalOrder
from agent.admission.token_terms import TokenTerms
from agent.exits import AgentError
from gossip.kv.requests import RegistryAdopted
from gossip.registry.registry import open_registry
from tests.support.admission_rig import issuer, member
from tests.support.patience import GIVE_UP_S


def test_a_member_gives_up_its_own_place_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 3))
            two = await first.join(token, tmp_path / "b" / "identity", "pi2")
            three = await first.join(token, tmp_path / "c" / "identity", "pi3")
            async with member(two, tmp_path / "b") as second:
                second.covey.others[first.identity.node_id] = first.server
                first.covey.others[two.node_id] = second.server
                second.covey.me, first.covey.me = two.node_id, first.identity.node_id
                with pytest.raises(AgentError, match="may not remove others") as caught:
                    await second.server.remove(three.node_id)
                assert "Do it on pi1" in caught.value.hint
                # Also when it leaves its own server out:
                forged = RelayedRequest(9, RemovalOrder(three.node_id))
                verdict = await first.server._verdict_on(forged, two.node_id)
                assert isinstance(verdict, Refused)
                assert verdict.status == exits.NOT_PERMITTED
                assert "pi2 may not remove others" in verdict.message
                assert await second.server.give_up_place()
                registry = open_registry(first.covey.adopted[-1], first.identity.verify)
                assert [node.name for node in registry.nodes] == ["pi1", "pi3"]

    asyncio.run(scenario())


def test_who_is_out_knows_it_from_the_registry_where_the_answer_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The issuer follows the new registry before it answers, and then shuts the door on us."""

    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 3))
            two = await first.join(token, tmp_path / "b" / "identity", "pi2")
            async with member(two, tmp_path / "b") as second:
                second.covey.others[first.identity.node_id] = first.server
                first.covey.others[two.node_id] = second.server
                second.covey.me, first.covey.me = two.node_id, first.identity.node_id
                first.covey.lose_frames = True
                signed, adopt = asyncio.Event(), first.covey.adopt

                def adopt_and_tell(registry: bytes) -> None:
                    adopt(registry)
                    signed.set()

                monkeypatch.setattr(first.covey, "adopt", adopt_and_tell)
                asking = asyncio.create_task(second.server.give_up_place())
                await asyncio.wait_for(signed.wait(), GIVE_UP_S)
                with_us = open_registry(first.covey.adopted[0], first.identity.verify)
                second.server.on_event(RegistryAdopted(first.covey.adopted[0], with_us))
                await asyncio.sleep(0)
                assert not asking.done()
                without_us = open_registry(first.covey.adopted[-1], first.identity.verify)
                second.server.on_event(RegistryAdopted(first.covey.adopted[-1], without_us))
                assert await asking
                assert second.counts["admissions/issuer_unreachable"] == 0

    asyncio.run(scenario())
