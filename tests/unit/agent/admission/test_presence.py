"""Who is let in, as the issuer signs it: absent until it is heard."""

import asyncio
from pathlib import Path

import pytest

from agent.admission.token_terms import TokenTerms
from gossip.kv.requests import OwnersReady
from tests.support.admission_rig import issuer
from tests.support.patience import GIVE_UP_S


def test_who_is_let_in_owns_nothing_before_it_is_heard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(3600, 2))
            here = await made.join(token, tmp_path / "b" / "identity", "pi2")
            never = await made.join(token, tmp_path / "c" / "identity", "pi3")
            registry = made.covey.registry()
            assert [entry.name for entry in registry.absent] == ["pi2", "pi3"]
            assert registry.is_settled

            made.server.on_event(OwnersReady(registry.epoch, {}, here=frozenset({here.node_id})))
            await asyncio.wait_for(made.server._advancing or asyncio.sleep(0), GIVE_UP_S)
            registry = made.covey.registry()
            assert [entry.name for entry in registry.absent] == ["pi3"]
            assert registry.idle == {here.node_id}
            assert made.store.registry() == (registry.epoch, made.covey.adopted[-1])
            told = len(made.covey.adopted)
            await made.hear(here.node_id)
            assert len(made.covey.adopted) == told, "no news, no registry"

            gone = OwnersReady(registry.epoch, {}, away=frozenset({here.node_id, never.node_id}))
            made.server.on_event(gone)
            await asyncio.wait_for(made.server._advancing or asyncio.sleep(0), GIVE_UP_S)
            registry = made.covey.registry()
            assert {entry.name for entry in registry.absent} == {"pi2", "pi3"}
            assert registry.is_settled

    asyncio.run(scenario())
    told = [record.message for record in caplog.records if "partitions" in record.message]
    assert told == ["pi2 is there and gets its partitions (registry epoch 4)"]
    assert "pi2 went before it had taken over anything" in caplog.text


def test_who_takes_the_place_of_a_dead_one_gets_its_share_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(3600, 2))
            dead = await made.join(token, tmp_path / "b" / "identity", "pi2")
            await made.hear(dead.node_id)
            new = await made.join(token, tmp_path / "c" / "identity", "pi2", replaces=True)
            registry = made.covey.registry()
            assert registry.idle == {new.node_id}
            assert not registry.absent

    asyncio.run(scenario())
