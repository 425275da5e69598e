"""Registries through the log: shared by who joins at once, and made by any of several issuers."""

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.admission import renewal
from agent.admission.messages import Refused, TokenList
from agent.admission.registry_draft import Draft
from agent.admission.registry_issuer import RegistryIssuer
from agent.admission.token_terms import TokenTerms
from agent.admission.tokens import Token, parse_token
from agent.cluster import elections
from agent.cluster.agreed_registry import AgreedState, NoMajorityError, UnsureError
from agent.exits import AgentError
from agent.identity import certificates
from agent.store.tokens import TOKENS, TokenNote, TokenRecord
from gossip.control.commands import ChangeRegistry
from gossip.registry.node import ISSUER, RegisteredNode
from gossip.registry.node_change import NodeChange
from gossip.registry.registry import Registry, SignedRegistry, UnknownNode, admit
from tests.support.admission_rig import FakeCovey, Member, issuer, member, proven
from tests.support.fake_ledger import FakeLedger

QUERY = f"INSERT INTO tokens ({TOKENS.names}) VALUES (?, ?, ?, ?, ?, ?)"


def agreed(made: Member) -> Registry:
    table = made.ledger.table
    assert table.agreed is not None
    return Registry.decode(SignedRegistry.decode(table.agreed.signed).payload)


async def let_in(made: Member, token: Token, node: int) -> None:
    """Let a device in, as its request comes to the issuer."""
    key = Ed25519PrivateKey.generate()
    subject = certificates.Subject(made.identity.cluster_id, node, f"pi{node}")
    request = certificates.make_request(key, subject)
    admission = proven(token, request, int(time.time() * 1000), key)
    await made.issuing.admit(admission, (), "here", made.covey.is_there)


def test_who_joins_at_once_shares_a_registry_and_a_commit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600, 30)))
            before = len(made.ledger.changes)
            await asyncio.gather(*(let_in(made, token, node) for node in range(10, 34)))
            changes = len(made.ledger.changes) - before
            assert changes <= 3, "the first may have gone alone"
            registry = agreed(made)
            assert {node.id for node in registry.nodes} >= set(range(10, 34))
            assert registry.epoch == 1 + changes
            registry.check()
            assert made.ledger.tokens()[-1].uses_left == 30 - 24
            assert made.covey.signed() == made.ledger.state().signed

    asyncio.run(scenario())


def test_a_step_that_is_refused_takes_nothing_from_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600, 2)))
            came = await asyncio.gather(
                *(let_in(made, token, node) for node in (10, 11, 12)), return_exceptions=True
            )
            refused = [each for each in came if each is not None]
            assert [getattr(each, "status", None) for each in refused] == [exits.TOKEN_USED_UP]
            assert len(agreed(made).nodes) == 3

    asyncio.run(scenario())


class Overtaken(FakeLedger):
    """Another issuer is faster, so many times."""

    def __init__(self) -> None:
        super().__init__()
        self.overtaken_by: list[ChangeRegistry] = []

    async def change(self, change: ChangeRegistry) -> None:
        if self.overtaken_by and change.registry:
            await super().change(self.overtaken_by.pop())
        await super().change(change)


def test_whoever_is_overtaken_begins_again_from_what_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            await made.registries.read()
            ledger = Overtaken()
            ledger.table, made.registries._ledger = made.ledger.table, ledger
            other = admit(agreed(made), RegisteredNode(99, "pi99"))
            payload = other.encode()
            signed = SignedRegistry(payload, made.identity.sign(payload)).encode()
            ledger.overtaken_by = [ChangeRegistry(made.ledger.state().mark, signed)]
            made.ledger = ledger
            token = parse_token(await made.server.create_token(TokenTerms(3600, 2)))
            await let_in(made, token, 10)
            assert [node.id for node in agreed(made).nodes][1:] == [99, 10]
            assert agreed(made).epoch == 3

    asyncio.run(scenario())


def test_who_is_overtaken_again_and_again_says_so(tmp_path: Path) -> None:
    class Busy(FakeLedger):
        async def read(self, *, stale: bool = False) -> AgreedState:
            found = await super().read(stale=stale)
            return found._replace(mark=b"long ago") if found.signed else found

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            made.registries._ledger = Busy()
            with pytest.raises(AgentError, match="at the same time, again and again"):
                await made.registries.set_roles(made.identity.node_id, (ISSUER, "inviter"))

    asyncio.run(scenario())


@pytest.mark.parametrize("lost", [1, 3])
def test_an_answer_that_is_lost_costs_nothing(tmp_path: Path, lost: int) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600, 2)))
            made.ledger.loses_answers = lost
            await let_in(made, token, 10)
            assert made.ledger.tokens()[-1].uses_left == 1, "it was used once"
            made.ledger.loses_answers = lost
            assert await made.server.remove(10) == 3
            made.ledger.loses_answers = lost
            assert await made.server.revoke_token(token.token_id) == "valid"
            with pytest.raises(UnknownNode):
                await made.registries.remove(77)

    asyncio.run(scenario())


def test_without_a_majority_it_is_refused_and_certificates_live_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elections, "ELECTED_S", 0.0)

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(3600, 2))
            who = await made.join(token, tmp_path / "b" / "identity", "pi2")
            serials = agreed(made).node(who.node_id)
            made.ledger.has_majority = False
            with pytest.raises(AgentError) as caught:
                await made.server.create_token(TokenTerms(3600))
            assert caught.value.status == exits.UNREACHABLE
            assert made.counts["admissions/no_majority"] == 1
            before = who.valid_until
            await asyncio.sleep(1.1)  # a certificate says seconds
            who.renew(await made.server.renew(renewal.application(who)))
            assert who.valid_until > before
            assert agreed(made).node(who.node_id) == serials, "nothing is new in the registry"

    asyncio.run(scenario())


class Electing(FakeLedger):
    """Has no leader at first: so many questions find no majority."""

    def __init__(self, finds_none: int) -> None:
        super().__init__()
        self.finds_none = finds_none

    async def read(self, *, stale: bool = False) -> AgreedState:
        if not stale and self.finds_none:
            self.finds_none -= 1
            raise NoMajorityError("no leader yet", "wait", exits.UNHEALTHY)
        return await super().read(stale=stale)


def test_an_operator_waits_for_an_election_and_a_guest_goes_on_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elections, "AGAIN_S", 0.0)

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600, 2)))
            electing = Electing(0)
            electing.table = made.ledger.table
            made.ledger = made.registries._ledger = electing
            orders = (
                lambda: made.server.create_token(TokenTerms(3600)),
                made.server.tokens,
                lambda: made.server.revoke_token(token.token_id),
                lambda: made.server.allow_inviting(10, allowed=True),
                lambda: made.server.place(10, NodeChange(zone="shed")),
                lambda: made.server.remove(10),
            )
            await let_in(made, token, 10)
            for order in orders:
                electing.finds_none = 3
                await order()
            assert made.counts["admissions/no_majority"] == 0
            electing.finds_none = 1
            assert isinstance(await made.server._decide(TokenList(), "a guest"), Refused)
            assert made.counts["admissions/no_majority"] == 1

    asyncio.run(scenario())


def test_a_member_asks_the_issuers_again_while_none_can_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elections, "AGAIN_S", 0.0)

    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 2))
            who = await first.join(token, tmp_path / "b" / "identity", "pi2")
            await first.server.allow_inviting(who.node_id, allowed=True)
            electing = Electing(3)
            electing.table = first.ledger.table
            first.registries._ledger = electing
            async with member(who, tmp_path / "b") as second:
                second.covey.others = {first.identity.node_id: first.server}
                first.covey.others = {who.node_id: second.server}
                second.covey.me, first.covey.me = who.node_id, first.identity.node_id
                assert await second.server.create_token(TokenTerms(3600))
            assert electing.finds_none == 0

    asyncio.run(scenario())


class Silent(FakeLedger):
    """Carries a change out, answers nobody, and has no majority from then on."""

    async def change(self, change: ChangeRegistry) -> None:
        await super().change(change)
        self.has_majority = False
        raise UnsureError("nobody knows whether it was done", "", exits.UNHEALTHY)


def test_what_may_be_done_is_never_said_to_be_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it ordered a second time: two tokens would be there, and one of them unknown."""
    monkeypatch.setattr(elections, "ELECTED_S", 0.0)

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            await made.registries.read()
            silent = Silent()
            silent.table, made.registries._ledger = made.ledger.table, silent
            with pytest.raises(AgentError, match="nobody knows whether it was done"):
                await made.server.create_token(TokenTerms(3600))
            assert len(silent.tokens()) == 1

    asyncio.run(scenario())


def test_what_was_founded_before_the_log_is_carried_over_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            old = TokenRecord(b"8 bytes.", bytes(32), time.time() + 60, 1, TokenNote(uses=1))
            await made.store.database.write(lambda rows: rows.execute(QUERY, old.row()))
            payload = admit(made.covey.registry(), RegisteredNode(99, "pi99")).encode()
            signed = SignedRegistry(payload, made.identity.sign(payload)).encode()
            await made.store.save_registry(2, signed)
            made.covey.adopt(signed)
            found = await made.registries.read()
            assert found.signed == signed
            assert [each.id for each in await made.registries.tokens()] == [old.id]
            assert made.store.tokens() == [], "they are in one place"
            again = RegistryIssuer(made.identity, made.store, made.covey.view(), made.ledger)
            changes = len(made.ledger.changes)
            assert (await again.read()).signed == signed
            assert len(made.ledger.changes) == changes

    asyncio.run(scenario())


def test_nothing_is_carried_over_before_all_that_vote_understand_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            made.covey.behind = "pi2"
            with pytest.raises(AgentError, match="pi2 runs an older version"):
                await made.server.create_token(TokenTerms(3600))
            assert made.ledger.changes == []
            made.covey.behind = ""
            assert await made.server.create_token(TokenTerms(3600))

    asyncio.run(scenario())


def test_nothing_is_carried_over_by_a_disk_that_was_set_back(tmp_path: Path) -> None:
    """Its tokens may have been used or revoked since; the registry is the one that others have."""

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            await made.store.save_registry(1, made.identity.first_registry())
            old = TokenRecord(b"8 bytes.", bytes(32), time.time() + 60, 1, TokenNote(uses=1))
            await made.store.database.write(lambda rows: rows.execute(QUERY, old.row()))
            payload = admit(made.covey.registry(), RegisteredNode(99, "pi99")).encode()
            since = SignedRegistry(payload, made.identity.sign(payload)).encode()
            made.covey.adopt(since)
            assert (await made.registries.read()).signed == since
            assert await made.registries.tokens() == []

    asyncio.run(scenario())


def test_two_issuers_that_make_the_next_at_once_make_one_after_the_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            await made.registries.read()
            covey = FakeCovey()
            covey.first = made.identity.first_registry()
            other = RegistryIssuer(made.identity, made.store, covey.view(), made.ledger)

            def step(node: int) -> object:
                def put(draft: Draft) -> None:
                    draft.follow_with(admit(draft.registry, RegisteredNode(node, f"pi{node}")))

                return put

            both: list[Coroutine[Any, Any, object]] = [
                *(made.registries.change(step(node)) for node in range(10, 15)),  # type: ignore[arg-type]
                *(other.change(step(node)) for node in range(20, 25)),  # type: ignore[arg-type]
            ]
            await asyncio.gather(*both)
            assert len(agreed(made).nodes) == 11
            epochs = [
                Registry.decode(SignedRegistry.decode(each.registry).payload).epoch
                for each in made.ledger.changes
            ]
            assert epochs == list(range(1, len(epochs) + 1)), "one registry of each epoch"
            await other.stop()

    asyncio.run(scenario())


def test_the_only_issuer_is_not_removed_and_one_of_two_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            me = made.identity.node_id
            with pytest.raises(AgentError, match="alone holds the authority's key"):
                await made.registries.remove(me)
            token = await made.server.create_token(TokenTerms(3600))
            two = await made.join(token, tmp_path / "b" / "identity", "pi2")
            await made.hear(two.node_id)
            await made.registries.set_roles(two.node_id, (ISSUER,))
            await made.registries.remove(me, accept_loss=True)
            assert [node.name for node in agreed(made).nodes] == ["pi2"]

    asyncio.run(scenario())
