"""Certificates are renewed in time, and after it, for those who belong and for nobody else."""

import asyncio
import datetime as dt
import itertools
import ssl
import time
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.admission import issuer as issuing
from agent.admission import renewal as renewing
from agent.admission.member_search import MemberSearch
from agent.admission.messages import Renewal
from agent.admission.proofs import sign_renewal
from agent.admission.token_terms import TokenTerms
from agent.exits import AgentError
from agent.identity import certificates
from agent.identity.identity import Identity, load
from agent.identity.repair import load_mended
from gossip.core.machine import Address
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import Registry, SignedRegistry, open_registry
from tests.support.admission_rig import Member, issuer, member
from tests.support.patience import GIVE_UP_S

DAY_S = 86400.0


def adopting(who: Identity) -> renewing.Adopt:
    async def adopt(signed: bytes) -> None:
        registry = open_registry(signed, who.verify)
        if who.trust.adopt(registry):
            who.keep_trust(who.trust.authorities, signed)

    return adopt


def serial_in_use(who: Identity) -> bytes:
    return certificates.serial_of(ssl.PEM_cert_to_DER_cert(who.certificate_file.read_text()))


def registry_of(made: Member) -> Registry:
    kept = made.store.registry()
    assert kept is not None
    return open_registry(kept[1], made.identity.verify)


def entry_of(made: Member, who: Identity) -> RegisteredNode:
    entry = registry_of(made).node(who.node_id)
    assert entry is not None
    return entry


async def joined(made: Member, folder: Path) -> Identity:
    return await made.join(
        await made.server.create_token(TokenTerms(3600)), folder / "b" / "identity", "pi2"
    )


def expire(
    who: Identity, made: Member, monkeypatch: pytest.MonkeyPatch, backdated_days: int = 92
) -> None:
    """Give a node the certificate that it would have had, were it two days past its end.

    Or, for a negative number, one that was made while a clock was ahead.
    """
    authority = made.identity.authority
    subject = certificates.Subject(who.cluster_id, who.node_id, who.node_name)
    key = entry_of(made, who).key
    with monkeypatch.context() as patched:
        patched.setattr(certificates, "BACKDATED", dt.timedelta(days=backdated_days))
        patched.setattr(certificates, "NODE_VALIDITY", dt.timedelta(days=90 - backdated_days))
        signed = certificates.issue(
            made.identity.authority_private_key(), authority, subject, key, serial_in_use(who)
        )
        who.renew(signed)
    assert not renewing.opens_streams(who, time.time())


def test_two_thirds_of_its_life_is_when_it_is_due(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who = await joined(made, tmp_path)
            assert 89 * DAY_S < who.valid_until - time.time() <= 90 * DAY_S
            assert not renewing.is_due(who, time.time() + 59 * DAY_S)
            assert renewing.is_due(who, time.time() + 60 * DAY_S)
            assert who.plausible[1] > time.time() + 9 * 365 * DAY_S, "a clock may be that late"

    asyncio.run(scenario())


def test_the_new_one_is_used_once_the_registry_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewing, "SHOWN_LOOK_S", 0.01)

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who = await joined(made, tmp_path)
            old, before = serial_in_use(who), registry_of(made)
            has_come_round = asyncio.Event()

            async def ask(renewal: Renewal) -> bytes:
                return (await made.issuing.renew(renewal))[0]

            def followed() -> Registry:
                return registry_of(made) if has_come_round.is_set() else before

            renewal = asyncio.create_task(renewing.renew(who, ask, followed))
            while len(entry_of(made, who).serials) < 2:  # noqa: ASYNC110 - a test
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert serial_in_use(who) == old, "nobody would know the new one"
            has_come_round.set()
            await renewal
            new = serial_in_use(who)
            assert entry_of(made, who).serials == (new, old) != (old, new)
            again = load_mended(who.directory)
            assert again.valid_until == who.valid_until
            assert serial_in_use(again) == new

    asyncio.run(scenario())


def test_one_that_failed_in_between_costs_the_one_in_use_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who = await joined(made, tmp_path)
            for _ in range(3):
                await made.issuing.renew(renewing.application(who))
            assert entry_of(made, who).shows(serial_in_use(who))

    asyncio.run(scenario())


def test_a_renewal_that_is_sent_again_takes_nothing_from_the_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who = await joined(made, tmp_path)
            seen_by_a_relay = renewing.application(who)
            certificate, fresh = await made.issuing.renew(seen_by_a_relay)
            who.renew(certificate)
            again, registry = await made.issuing.renew(seen_by_a_relay)
            assert entry_of(made, who).shows(serial_in_use(who)), "it is not locked out"
            assert registry.signed == fresh.signed, "and nobody is told anything new"
            assert certificates.serial_of(again) == certificates.serial_of(certificate)
            made.issuing._renewed_at.clear()  # a minute passes
            await made.issuing.renew(seen_by_a_relay)
            await made.issuing.renew(renewing.application(who))  # which it does not put off

    asyncio.run(scenario())


def test_a_node_that_renews_all_the_time_makes_no_registries(tmp_path: Path) -> None:
    """Each is fifty kilobytes for everybody, and pushes one out of what can be told of the past."""

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who = await joined(made, tmp_path)
            certificate, _ = await made.issuing.renew(renewing.application(who))
            who.renew(certificate)
            before = registry_of(made)
            for _n in range(5):
                with pytest.raises(AgentError, match="a moment ago"):
                    await made.issuing.renew(renewing.application(who))
            assert registry_of(made) == before

    asyncio.run(scenario())


def test_an_expired_one_is_renewed_as_a_guest_and_by_way_of_a_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuing, "RENEWED_AGAIN_S", 0.0)

    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            identity = await first.join(
                await first.server.create_token(TokenTerms(3600)),
                tmp_path / "c" / "identity",
                "pi3",
            )
            who = await joined(first, tmp_path)
            async with member(identity, tmp_path / "c") as second:
                second.covey.others[first.identity.node_id] = first.server
                first.covey.others[identity.node_id] = second.server
                second.covey.me, first.covey.me = identity.node_id, first.identity.node_id
                for at in (first, second):
                    expire(who, first, monkeypatch)
                    search = MemberSearch(who.cluster_id, [at.seed], 1, [], mdns=False)
                    await asyncio.wait_for(
                        renewing.renew_as_guest(who, search, adopting(who)), GIVE_UP_S
                    )
                    assert load(who.directory).valid_until > time.time() + 80 * DAY_S
                    assert entry_of(first, who).serials[0] == serial_in_use(who)

    asyncio.run(scenario())


def test_an_issuer_that_is_away_or_another_clock_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.admission.member_search.AGAIN_S", 0.05)

    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            identity = await first.join(
                await first.server.create_token(TokenTerms(3600)),
                tmp_path / "c" / "identity",
                "pi3",
            )
            who = await joined(first, tmp_path)
            async with member(identity, tmp_path / "c") as second:
                expire(who, first, monkeypatch)
                search = MemberSearch(who.cluster_id, [second.seed], 1, [], mdns=False)
                asking = asyncio.create_task(renewing.renew_as_guest(who, search, adopting(who)))
                await asyncio.sleep(0.3)
                assert not asking.done(), "that the issuer is away says nothing of this node"
                first.issuing._wall_clock = lambda: time.time() + 3600
                second.covey.others[first.identity.node_id] = first.server
                first.covey.others[identity.node_id] = second.server
                second.covey.me, first.covey.me = identity.node_id, first.identity.node_id
                while not first.counts["admissions/clock-off"]:  # noqa: ASYNC110 - a test
                    await asyncio.sleep(0.01)
                assert not asking.done(), "nor does a clock that will be set"
                first.issuing._wall_clock = time.time
                await asyncio.wait_for(asking, GIVE_UP_S)
                assert renewing.opens_streams(who, time.time())

    asyncio.run(scenario())


def test_it_asks_ever_less_often_and_tells_each_reason_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An issuer may be away for a winter: neither the log nor the network fills up meanwhile."""
    monkeypatch.setattr(renewing, "PAUSE_FIRST_S", 0.001)
    monkeypatch.setattr(renewing, "PAUSE_MAX_S", 0.05)
    asked_at: list[float] = []
    enough = asyncio.Event()

    class Always(MemberSearch):
        async def next_address(self) -> Address:
            asked_at.append(asyncio.get_running_loop().time())
            if len(asked_at) > 10:
                enough.set()
            return Address("192.0.2.1", 7747)

    async def refuse(_address: Address, _who: Identity) -> bytes:
        raise AgentError("pi1 cannot be reached now.", "", exits.UNREACHABLE)

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who = await joined(made, tmp_path)
            caplog.set_level("INFO")
            monkeypatch.setattr(renewing, "_ask_at", refuse)
            search = Always(who.cluster_id, [], 1, [], mdns=False)
            asking = asyncio.create_task(renewing.renew_as_guest(who, search, adopting(who)))
            await enough.wait()
            asking.cancel()
            gaps_s = [later - at for at, later in itertools.pairwise(asked_at)]
            wanted_s = [min(0.001 * 2**n, 0.05) for n in range(len(gaps_s))]
            assert all(gap >= 0.9 * least for gap, least in zip(gaps_s, wanted_s, strict=True))
            assert caplog.text.count("did not renew") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("backdated_days", [92, -30], ids=["expired", "not yet valid"])
def test_one_that_opens_no_stream_while_the_agent_runs_is_renewed_as_a_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backdated_days: int
) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who = await joined(made, tmp_path)
            expire(who, made, monkeypatch, backdated_days)
            shown = asyncio.Event()

            async def over_a_stream(_renewal: Renewal) -> bytes:
                raise AgentError("pi1 cannot be reached now.", "", exits.UNREACHABLE)

            def places() -> MemberSearch:
                return MemberSearch(who.cluster_id, [made.seed], 1, [], mdns=False)

            keeping = asyncio.create_task(
                renewing.keep_renewed(
                    who,
                    over_a_stream,
                    lambda: registry_of(made),
                    shown.set,
                    places,
                    adopting(who),
                    renewing.Signals(),
                )
            )
            await asyncio.wait_for(shown.wait(), GIVE_UP_S)
            keeping.cancel()
            assert renewing.opens_streams(who, time.time())
            assert entry_of(made, who).serials[0] == serial_in_use(who)

    asyncio.run(scenario())


def test_the_issuer_replaces_its_own_when_a_clock_was_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who, shown = made.identity, asyncio.Event()
            await joined(made, tmp_path)
            expire(who, made, monkeypatch, -300)
            assert not renewing.is_due(who, 1.0), "in 1970 nothing is signed"
            assert not renewing.is_due(who, who.plausible[1] + DAY_S)

            def places() -> MemberSearch:
                raise AssertionError("it asks itself")

            keeping = asyncio.create_task(
                renewing.keep_renewed(
                    who,
                    made.server.renew,
                    lambda: registry_of(made),
                    shown.set,
                    places,
                    adopting(who),
                    renewing.Signals(),
                )
            )
            async with asyncio.timeout(GIVE_UP_S):
                while not made.covey.adopted:  # noqa: ASYNC110 - a test
                    await asyncio.sleep(0.01)
            kept = made.covey.adopted[-1]
            epoch = Registry.decode(SignedRegistry.decode(kept).payload).epoch
            await made.store.save_registry(epoch, kept)
            await asyncio.wait_for(shown.wait(), GIVE_UP_S)
            keeping.cancel()
            assert renewing.opens_streams(who, time.time())

    asyncio.run(scenario())


def test_who_was_removed_is_not_let_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who = await joined(made, tmp_path)
            expire(who, made, monkeypatch)
            await made.server.remove(who.node_id)
            without = registry_of(made)
            search = MemberSearch(who.cluster_id, [made.seed], 1, [], mdns=False)
            with pytest.raises(AgentError, match="not in the registry") as caught:
                await asyncio.wait_for(
                    renewing.renew_as_guest(who, search, adopting(who)), GIVE_UP_S
                )
            assert caught.value.status == exits.NOT_PERMITTED
            assert registry_of(made) == without

    asyncio.run(scenario())


def test_a_renewal_that_somebody_else_signed_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who = await joined(made, tmp_path)
            before = registry_of(made)
            good = renewing.application(who)
            stranger = Ed25519PrivateKey.generate()
            subject = certificates.Subject(who.cluster_id, who.node_id, who.node_name)
            theirs = msgspec.structs.replace(
                good, request=certificates.make_request(stranger, subject)
            )
            old = msgspec.structs.replace(good, clock_ms=good.clock_ms - 600_000)
            bad = [
                sign_renewal(good, stranger),
                sign_renewal(theirs, stranger),
                msgspec.structs.replace(good, serial=bytes(20)),
                old,
            ]
            for renewal in bad:
                with pytest.raises(AgentError):
                    await made.server.renew(renewal)
            assert registry_of(made) == before

    asyncio.run(scenario())


def test_the_issuer_renews_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            await joined(made, tmp_path)  # now there is a registry on the disk
            expire(made.identity, made, monkeypatch)
            await renewing.renew_own(made.identity, made.store)
            assert made.identity.valid_until > time.time() + 80 * DAY_S
            assert entry_of(made, made.identity).serials[0] == serial_in_use(made.identity)

    asyncio.run(scenario())
