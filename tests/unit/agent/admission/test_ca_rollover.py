"""The authority is replaced: in steps that survive being killed, and nobody is left behind."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.admission import renewal
from agent.admission.authority_keeper import AuthorityKeeper
from agent.admission.ca_rollover import Rollover
from agent.admission.issuer_relay import IssuerRelay
from agent.admission.member_search import MemberSearch
from agent.admission.registry_issuer import RegistryIssuer
from agent.admission.token_terms import TokenTerms
from agent.admission.trust_keeper import TrustKeeper
from agent.exits import AgentError
from agent.files import private_files
from agent.identity import spares
from agent.identity.identity import Identity
from agent.identity.repair import load_mended
from agent.identity.trust import KEYRING_CONTEXT, REGISTRY_CONTEXT
from agent.net.tls import listening_context
from agent.store.control import ControlStore
from gossip.core.errors import Forged
from gossip.kv.requests import RegistryAdopted
from gossip.registry.registry import open_registry
from gossip.registry.succession import Succession, statement
from tests.support.admission_rig import IN_VAIN_S, FakeCovey, Member, issuer
from tests.support.fake_ledger import FakeLedger
from tests.support.patience import GIVE_UP_S
from tests.unit.agent.admission.test_renewal import adopting, entry_of, joined, registry_of


@asynccontextmanager
async def founder(folder: Path) -> AsyncIterator[tuple[Member, Rollover]]:
    async with issuer(folder) as made:
        made.covey.adopt(made.identity.first_registry())
        keeper = made.server.keeper
        yield made, Rollover(made.identity, made.registries, made.covey.view(), keeper)


async def ask_as_guest(made: Member, who: Identity) -> bool:
    search = MemberSearch(who.cluster_id, [made.seed], 1, [], mdns=False)
    return await asyncio.wait_for(renewal.renew_as_guest(who, search, adopting(who)), GIVE_UP_S)


async def renew(made: Member, *members: Identity) -> None:
    """Renew over the stream, as members do that have the newest registry."""
    for who in members:
        who.trust.adopt(registry_of(made))
        assert renewal.is_due(who, who.valid_from)
        who.renew(await made.server.renew(renewal.application(who)))
        assert who.is_certified
        assert not renewal.is_due(who, who.valid_from)
    made.listener.context = listening_context(made.identity)


def test_both_are_trusted_until_all_have_new_certificates(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with founder(tmp_path) as (made, work):
            who = await joined(made, tmp_path)
            await made.hear(who.node_id)
            old = made.identity.authority_private_key().public_key()
            await work.begin(force=False)
            registry = registry_of(made)
            assert (registry.authority_number, registry.overlaps) == (1, True)
            assert sorted(await work.awaited()) == sorted(registry.ids())
            assert len(made.identity.trust.authorities) == 2
            assert made.identity.authority_private_key().public_key() != old
            assert not made.identity.next_authority_file.exists()
            await work.begin(force=False)
            assert registry_of(made) == registry, "one roll-over at a time"
            await renew(made, who, made.identity)
            assert await work.awaited() == []
            await work.end()
            assert not registry_of(made).overlaps
            assert all(entry.serials for entry in registry_of(made).nodes)
            assert len(made.identity.trust.authorities) == 1

    asyncio.run(scenario())


def test_it_ends_by_itself_and_with_force_without_those_who_are_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.admission import ca_rollover

    monkeypatch.setattr(ca_rollover, "LOOK_S", 0.01)
    monkeypatch.setattr(ca_rollover, "SETTLE_S", 0.05)

    async def scenario() -> None:
        async with founder(tmp_path) as (made, work):
            who = await joined(made, tmp_path)
            await made.hear(who.node_id)
            running = asyncio.create_task(work.run())
            await work.begin(force=False)
            await renew(made, made.identity)
            await asyncio.sleep(0.2)
            assert await work.awaited() == [who.node_id]
            assert registry_of(made).overlaps
            made.covey.alive = frozenset({made.identity.node_id})
            await work.begin(force=True)
            async with asyncio.timeout(GIVE_UP_S):
                while registry_of(made).overlaps:  # noqa: ASYNC110 - a test
                    await asyncio.sleep(0.01)
            assert not entry_of(made, who).serials, "its certificate opens nothing"
            running.cancel()

    asyncio.run(scenario())


def test_it_waits_for_nobody_who_was_let_in_and_never_heard(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with founder(tmp_path) as (made, work):
            who = await joined(made, tmp_path)
            await work.begin(force=False)
            await renew(made, made.identity)
            assert await work.awaited() == []
            await work.end()
            assert not entry_of(made, who).serials
            # It runs at last, trusts what is over, and asks as one that was away.
            assert await ask_as_guest(made, who)
            assert len(entry_of(made, who).serials) == 1
            assert entry_of(made, who).absent, "a certificate is no sign of life to the placement"

    asyncio.run(scenario())


def test_tokens_end_with_the_authority_that_they_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with founder(tmp_path) as (made, work):
            token = await made.server.create_token(TokenTerms(3600))
            await work.begin(force=False)
            assert {each.state for each in await made.server.tokens()} == {"revoked"}
            directory = tmp_path / "b" / "identity"
            with pytest.raises(AgentError, match="this token has ended") as told:
                await made.join(token, directory, "pi2", timeout_s=600)
            assert told.value.status == exits.TOKEN_EXPIRED
            assert "Make a new one on a member, with `covey token create`" in told.value.hint
            await renew(made, made.identity)
            again = await made.join(
                await made.server.create_token(TokenTerms(3600)), directory, "pi2"
            )
            assert again.trust.newest == made.identity.trust.newest
            assert again.is_certified
            assert entry_of(made, again).authority == 1

    asyncio.run(scenario())


def test_nobody_else_ends_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who poses as a member with another authority is passed by: a true one may be found yet."""

    async def scenario() -> None:
        async with founder(tmp_path) as (made, work):
            token = await made.server.create_token(TokenTerms(3600))
            await work.begin(force=False)
            [true] = registry_of(made).successions
            thief = Ed25519PrivateKey.generate()
            theirs = msgspec.structs.replace(true.former, key=thief.public_key().public_bytes_raw())
            told = statement(made.identity.cluster_id, theirs, true.next)
            forged = Succession(theirs, true.next, thief.sign(told), true.by_next)
            monkeypatch.setattr(made.covey, "successions", lambda: (forged,))
            directory = tmp_path / "b" / "identity"
            with pytest.raises(AgentError, match="not the one that the token names") as refused:
                await made.join(token, directory, "pi2", timeout_s=IN_VAIN_S)
            assert refused.value.status == exits.UNREACHABLE
            assert "make a new one on a member, with `covey token create`" in refused.value.hint

    asyncio.run(scenario())


def test_who_was_away_for_all_of_it_follows_as_a_guest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with founder(tmp_path) as (made, work):
            who = await joined(made, tmp_path)
            before = registry_of(made)
            assert not await ask_as_guest(made, who), "there is nothing to follow"
            assert registry_of(made) == before, "and asking costs no registry"
            for _ in range(2):
                await work.begin(force=False)
                await renew(made, made.identity)
                await work.end()
            assert await ask_as_guest(made, who)
            again = load_mended(who.directory)
            assert again.trust.authorities == made.identity.trust.authorities
            assert again.is_certified
            assert open_registry(again.first_registry(), again.verify) == registry_of(made)

    asyncio.run(scenario())


def test_what_the_old_key_signs_is_refused_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with founder(tmp_path) as (made, work):
            who = await joined(made, tmp_path)
            stolen = made.identity.authority_private_key()
            old = who.certificate_file.read_bytes()
            await work.begin(force=False)
            await renew(made, who, made.identity)
            payload, ring = registry_of(made).encode(), KEYRING_CONTEXT + b"ring"
            assert not who.verify(payload, stolen.sign(REGISTRY_CONTEXT + payload))
            assert who.verify_keyring(b"ring", stolen.sign(ring)), "the ring in use is old"
            await work.end()
            who.trust.adopt(registry_of(made))
            assert not who.verify_keyring(b"ring", stolen.sign(ring))
            from agent.identity import certificates

            with pytest.raises(Forged):
                who.renew(certificates.from_pem(old))
            assert listening_context(who).get_ca_certs(binary_form=True) == [who.authority]

    asyncio.run(scenario())


def test_a_renewal_that_is_sent_twice_takes_nothing_from_who_sent_it_once(tmp_path: Path) -> None:
    """The answer got lost, or a member that passed it on sends it again, also when all is over."""

    async def scenario() -> None:
        async with founder(tmp_path) as (made, work):
            who = await joined(made, tmp_path)
            before = renewal.application(who)
            await made.server.renew(before)
            await work.begin(force=False)
            await made.server.renew(before)
            assert entry_of(made, who).authority == 1, "what it gets then is of the new authority"
            during = renewal.application(who)
            who.trust.adopt(registry_of(made))
            who.renew(await made.server.renew(during))
            await renew(made, made.identity)
            await work.end()
            in_use = entry_of(made, who).serials[0]
            for again in (before, during):
                await made.server.renew(again)
                assert entry_of(made, who).serials[0] == in_use

    asyncio.run(scenario())


def test_an_issuer_from_before_it_cannot_sign(tmp_path: Path) -> None:
    """A backup of the founder's directory from before the roll-over has the wrong key."""

    async def scenario() -> None:
        async with founder(tmp_path) as (made, work):
            old = made.identity.authority_key_file.read_bytes()
            await work.begin(force=False)
            await work.end()
            made.identity.authority_key_file.write_bytes(old)
            application = renewal.application(made.identity)
            for order in (work.begin(force=False), made.server.renew(application)):
                with pytest.raises(AgentError, match="not the one that the covey trusts"):
                    await order

    asyncio.run(scenario())


# ---- killed ------------------------------------------------------------------------------------


class Killed(Exception):
    """The power is gone, at this step and at all that would follow."""


class Power:
    """Goes before the how many-th step that changes a disk."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def is_gone(self) -> bool:
        return self._left < 0

    def wrap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self.is_gone:
                raise Killed
            return step(*args, **kwargs)

        return stepped


class KeepingCovey(FakeCovey):
    """Writes whom it trusts at once, or not yet when the power goes."""

    keeps = True

    def adopt(self, signed: bytes) -> None:
        super().adopt(signed)
        if self.who is not None and self.keeps:
            self.who.keep_trust(self.who.trust.authorities, signed)


def _rollover(
    who: Identity, store: ControlStore, covey: KeepingCovey, ledger: FakeLedger
) -> Rollover:
    registries = RegistryIssuer(who, store, covey.view(), ledger)
    relay = IssuerRelay(covey.view(), Counter())
    keeper = AuthorityKeeper(who, registries, covey.view(), relay)
    return Rollover(who, registries, covey.view(), keeper)


async def _roll_over(folder: Path, covey: KeepingCovey, ledger: FakeLedger) -> None:
    """Begin, or go on, as an agent's start does."""
    who = load_mended(folder / "identity")
    store = await ControlStore.open(folder / "control.db", who.cluster_id, who.node_id)
    try:
        kept = store.registry()
        covey.first = who.first_registry()
        covey.who, signed = who, kept[1] if kept else who.first_registry()
        open_registry(signed, who.verify)
        covey.adopt(signed)
        work = _rollover(who, store, covey, ledger)
        await work._continue_rollover()
        if not covey.registry().overlaps:
            await work.begin(force=False)
        assert store.registry() is not None
    finally:
        await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
def test_an_issuer_that_is_killed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, keeps: bool
) -> None:
    from agent.identity.identity import found

    steps = 0
    while True:
        folder = tmp_path / str(steps)
        found(folder / "identity", "barn", "pi1")
        load_mended(folder / "identity")  # makes the spares
        power, covey, ledger = Power(steps), KeepingCovey(), FakeLedger()
        covey.keeps = keeps
        with monkeypatch.context() as patched:
            for module, name in (
                (spares, "replace_wiping"),
                (spares, "remove_wiping"),
                (private_files, "wipe"),
                (private_files, "sync_directory"),
                (FakeLedger, "change"),
                (ControlStore, "save_registry"),
                (covey, "adopt"),
            ):
                patched.setattr(module, name, power.wrap(getattr(module, name)))
            with suppress(Killed):
                asyncio.run(_roll_over(folder, covey, ledger))
        if not power.is_gone:
            break
        asyncio.run(_roll_over(folder, KeepingCovey(), ledger))
        again = load_mended(folder / "identity")
        assert [each.number for each in again.trust.authorities] == [1, 0], steps
        assert again.authority_private_key()
        assert not again.next_authority_file.exists()
        registry = open_registry(again.first_registry(), again.verify)
        assert (registry.authority_number, registry.overlaps) == (1, True)
        steps += 1
    assert steps > (12 if keeps else 6), "every step was the last one once"


async def _end(folder: Path, covey: KeepingCovey, ledger: FakeLedger) -> None:
    """Give the former authority up, as an agent's start does if it comes that far."""
    who = load_mended(folder / "identity")
    store = await ControlStore.open(folder / "control.db", who.cluster_id, who.node_id)
    try:
        kept = store.registry()
        assert kept is not None
        covey.first, covey.who = kept[1], who
        covey.adopt(kept[1])
        work = _rollover(who, store, covey, ledger)
        await work._continue_rollover()
        if covey.registry().overlaps:
            await work.end()
    finally:
        await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
def test_the_end_of_the_overlap_survives_being_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, keeps: bool
) -> None:
    from agent.identity.identity import found

    steps = 0
    while True:
        folder = tmp_path / str(steps)
        found(folder / "identity", "barn", "pi1")
        power, covey, ledger = Power(steps), KeepingCovey(), FakeLedger()
        asyncio.run(_roll_over(folder, KeepingCovey(), ledger))
        covey.keeps = keeps
        with monkeypatch.context() as patched:
            for module, name in (
                (spares, "replace_wiping"),
                (spares, "remove_wiping"),
                (FakeLedger, "change"),
                (ControlStore, "save_registry"),
                (covey, "adopt"),
            ):
                patched.setattr(module, name, power.wrap(getattr(module, name)))
            with suppress(Killed):
                asyncio.run(_end(folder, covey, ledger))
        if not power.is_gone:
            break
        asyncio.run(_end(folder, KeepingCovey(), ledger))
        again = load_mended(folder / "identity")
        assert [each.number for each in again.trust.authorities] == [1], steps
        assert again.authority_private_key()
        registry = open_registry(again.first_registry(), again.verify)
        assert (registry.authority_number, registry.overlaps) == (1, False)
        steps += 1
    assert steps >= (4 if keeps else 2), "every step was the last one once"


def test_whom_to_trust_is_on_the_disk_behind_the_registry_that_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with founder(tmp_path) as (made, work):
            who = await joined(made, tmp_path)
            store = await ControlStore.open(tmp_path / "b.db", who.cluster_id, who.node_id)
            changes: list[int] = []
            keeper = TrustKeeper(who, store, lambda: changes.append(1))
            await work.begin(force=False)
            await work.end()
            signed = made.covey.adopted
            for each in (signed[-2], signed[-1], signed[-1]):
                registry = open_registry(each, who.verify)
                keeper.record(RegistryAdopted(each, registry))
            await keeper.finish()
            await asyncio.sleep(0)
            assert len(changes) == 2
            again = load_mended(who.directory)
            assert again.trust.authorities == made.identity.trust.authorities
            kept = store.registry()
            assert kept is not None
            assert again.first_registry() == kept[1] == signed[-1]
            await store.close()

    asyncio.run(scenario())
