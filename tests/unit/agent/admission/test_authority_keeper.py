"""The authority's key is with those who vote, and with nobody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.admission import authority_keeper
from agent.admission.ca_rollover import Rollover
from agent.admission.messages import (
    AuthorityRequest,
    NextAuthority,
    Refused,
    RelayedRequest,
)
from agent.admission.removal import Removal
from agent.admission.token_terms import TokenTerms
from agent.config.paths import Paths
from agent.exits import AgentError
from gossip.control.commands import ChangeRegistry
from gossip.core.ids import NodeId
from gossip.kv.requests import RegistryAdopted
from gossip.registry.node import ISSUER
from tests.support.admission_rig import Member, issuer, member
from tests.support.fake_ledger import FakeLedger
from tests.support.patience import GIVE_UP_S


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[Member, Member]]:
    """A founder, and a node that it let in; both see one log."""
    async with issuer(folder) as first:
        token = await first.server.create_token(TokenTerms(3600))
        who = await first.join(token, folder / "b" / "identity", "pi2")
        async with member(who, folder / "b", first.ledger) as second:
            one, other = first.identity.node_id, who.node_id
            first.covey.me, second.covey.me = one, other
            first.covey.others[other] = second.server
            second.covey.others[one] = first.server
            meet(first, second)
            yield first, second


def meet(*members: Member) -> None:
    """Have each follow what the others do."""
    adopts = [each.covey.adopt for each in members]

    def adopt(signed: bytes) -> None:
        for one, adopt in zip(members, adopts, strict=True):
            if one.covey.signed() != signed:
                adopt(signed)

    adopt(members[0].covey.signed())
    for each in members:
        each.covey.adopt = adopt  # type: ignore[method-assign]


def vote(*members: Member, nodes: tuple[NodeId, ...]) -> None:
    for each in members:
        each.covey.voters = lambda: nodes  # type: ignore[method-assign]


def roles(made: Member, of: Member) -> tuple[str, ...]:
    entry = made.covey.registry().node(of.identity.node_id)
    assert entry is not None
    return entry.roles


def test_who_votes_gets_the_key_and_the_role_and_lets_others_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two(tmp_path) as (first, second):
            await second.server.keeper.look()
            assert not second.identity.is_issuer, "it does not vote"
            both = first.identity.node_id, second.identity.node_id
            vote(first, second, nodes=both)
            await second.server.keeper.look()
            assert second.identity.is_issuer
            assert roles(first, second) == (ISSUER,)
            key = second.identity.authority_private_key().public_key()
            assert key == first.identity.authority_private_key().public_key()
            # The founder is gone for good:
            second.covey.others.clear()
            token = await second.server.create_token(TokenTerms(3600))
            three = await second.join(token, tmp_path / "c" / "identity", "pi3")
            assert second.covey.registry().node(three.node_id) is not None

    asyncio.run(scenario())


def test_who_does_not_vote_gets_no_key(tmp_path: Path) -> None:
    """Whatever it says of itself: by what a majority says when it asks."""

    async def scenario() -> None:
        async with two(tmp_path) as (first, second):
            them = second.identity.node_id
            verdict = await first.server._verdict_on(RelayedRequest(1, AuthorityRequest()), them)
            assert isinstance(verdict, Refused)
            assert first.counts["admissions/key_refused"] == 1
            vote(first, nodes=(first.identity.node_id, them))
            first.ledger.has_majority = False
            verdict = await first.server._verdict_on(RelayedRequest(2, AuthorityRequest()), them)
            assert isinstance(verdict, Refused)
            stranger = await first.server._verdict_on(RelayedRequest(3, AuthorityRequest()), 99)
            assert isinstance(stranger, Refused)
            # And nobody who is no issuer hands on a key of its own.
            own = NextAuthority(b"-----BEGIN PRIVATE KEY-----")
            verdict = await first.server._verdict_on(RelayedRequest(4, own), them)
            assert isinstance(verdict, Refused)
            assert not first.identity.next_authority_file.exists()

    asyncio.run(scenario())


def test_the_key_is_given_where_the_log_has_no_registry_yet(tmp_path: Path) -> None:
    """As after a recovery from a copy that was behind: who votes has no key, who has it no vote."""

    class Voteless(FakeLedger):
        async def change(self, change: ChangeRegistry) -> None:
            raise AgentError("only a node that votes may change who belongs")

    async def scenario() -> None:
        async with two(tmp_path) as (first, second):
            second.registries._ledger, first.registries._ledger = FakeLedger(), Voteless()
            vote(first, second, nodes=(second.identity.node_id,))
            await second.server.keeper.look()
            assert roles(second, second) == (ISSUER,)
            assert await second.server.create_token(TokenTerms(3600))

    asyncio.run(scenario())


def test_another_key_than_the_authoritys_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with two(tmp_path) as (first, second):
            vote(first, second, nodes=(first.identity.node_id, second.identity.node_id))
            other = Ed25519PrivateKey.generate()
            monkeypatch.setattr(first.identity, "authority_private_key", lambda: other)
            with pytest.raises(AgentError, match="another key"):
                await second.server.keeper.look()
            assert not second.identity.is_issuer

    asyncio.run(scenario())


def test_who_votes_no_more_loses_the_role_and_wipes_the_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two(tmp_path) as (first, second):
            one, other = first.identity.node_id, second.identity.node_id
            vote(first, second, nodes=(one, other))
            await second.server.keeper.look()
            vote(first, second, nodes=(other,))
            first.covey.leads = False
            for _ in range(authority_keeper.LOOKS_BEFORE_TAKING):
                assert roles(second, first) == (ISSUER,), "not for one look"
                await first.server.keeper.look()
                await second.server.keeper.look()
            assert roles(second, first) == ()
            assert first.identity.is_issuer
            await first.server.keeper.look()
            assert not first.identity.is_issuer, "it has nothing to sign with"
            assert first.server._issuer is None
            left = (tmp_path / "a" / "identity").rglob("authority*")
            assert not [path.name for path in left]

    asyncio.run(scenario())


def test_who_is_removed_wipes_the_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two(tmp_path) as (first, second):
            vote(first, second, nodes=(first.identity.node_id, second.identity.node_id))
            await second.server.keeper.look()
            await second.server.remove(first.identity.node_id, accept_loss=True)
            ended = asyncio.Event()
            paths = Paths(tmp_path / "covey.toml", tmp_path / "a", tmp_path / "a")
            removal = Removal(first.identity, paths, ended.set)
            registry = second.covey.registry()
            removal.on_event(RegistryAdopted(second.covey.signed(), registry))
            await asyncio.wait_for(ended.wait(), GIVE_UP_S)
            assert not first.identity.is_issuer
            assert first.identity.key_file.exists(), "what is its own is kept"

    asyncio.run(scenario())


def test_the_last_holder_of_the_key_keeps_it(tmp_path: Path) -> None:
    """Whoever votes: a key that nobody has any more cannot be made again."""

    async def scenario() -> None:
        async with two(tmp_path) as (first, second):
            vote(first, second, nodes=(second.identity.node_id,))
            for _ in range(2 * authority_keeper.LOOKS_BEFORE_TAKING):
                await first.server.keeper.look()
            assert roles(first, first) == (ISSUER,)
            assert first.identity.is_issuer

    asyncio.run(scenario())


def test_the_next_authoritys_key_is_with_all_issuers_before_it_signs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two(tmp_path) as (first, second):
            vote(first, second, nodes=(first.identity.node_id, second.identity.node_id))
            await second.server.keeper.look()
            work = Rollover(
                first.identity, first.registries, first.covey.view(), first.server.keeper
            )
            await work.begin(force=False)
            assert first.covey.registry().authority_number == 1
            await second.server.keeper.look()
            assert not second.identity.next_authority_file.exists()
            number = second.covey.registry().authority
            assert second.identity.authority_private_key(number)

    asyncio.run(scenario())


def test_an_issuer_that_is_there_and_lacks_the_next_key_holds_the_roll_over_up(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with two(tmp_path) as (first, second):
            vote(first, second, nodes=(first.identity.node_id, second.identity.node_id))
            await second.server.keeper.look()
            second.server.keeper.is_rolling_over = lambda: True
            first.covey.alive = frozenset({second.identity.node_id})
            work = Rollover(
                first.identity, first.registries, first.covey.view(), first.server.keeper
            )
            with pytest.raises(AgentError, match="is not with pi2 yet"):
                await work.begin(force=False)
            assert first.covey.registry().authority_number == 0
            # Neither goes on by itself at its next start: the operator was told that it failed.
            assert not first.server.keeper.has_begun()
            second.server.keeper.is_rolling_over = lambda: False
            await work.begin(force=False)
            assert first.covey.registry().authority_number == 1

    asyncio.run(scenario())


def test_who_was_away_during_a_roll_over_asks_for_the_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two(tmp_path) as (first, second):
            vote(first, second, nodes=(first.identity.node_id, second.identity.node_id))
            await second.server.keeper.look()
            others = dict(first.covey.others)
            first.covey.others.clear()
            work = Rollover(
                first.identity, first.registries, first.covey.view(), first.server.keeper
            )
            await work.begin(force=False)
            first.covey.others = others
            number = second.covey.registry().authority
            with pytest.raises(AgentError, match="not the one"):
                second.identity.authority_private_key(number)
            await second.server.keeper.look()
            assert second.identity.authority_private_key(number)

    asyncio.run(scenario())
