"""Admission over real sockets: a server behind a real listener, and devices that join."""

import asyncio
import errno
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.admission import joining
from agent.admission.joining import join
from agent.admission.token_terms import TokenTerms
from agent.admission.tokens import Token, new_token, parse_token
from agent.exits import AgentError
from agent.identity import certificates
from agent.identity.identity import load
from agent.net import framing
from agent.store.control import ControlStore
from agent.store.tokens import TokenRefusedError, TokenState
from gossip.core.machine import Address
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import SignedRegistry, admit, open_registry, remove
from tests.support.admission_rig import IN_VAIN_S, issuer, leftovers, member, proven, refusal


def test_a_device_joins_with_a_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(3600, 1))
            joined = await made.join(token, tmp_path / "b" / "identity", "pi2")
            again = load(tmp_path / "b" / "identity")
            assert (again.node_id, again.node_name) == (joined.node_id, "pi2")
            assert again.cluster_id == made.identity.cluster_id
            assert not again.is_issuer
            assert again.keyring().primary == made.identity.keyring().primary
            registry = open_registry(again.first_registry(), again.verify)
            assert [node.name for node in registry.nodes] == ["pi1", "pi2"]
            assert registry.epoch == 2
            assert made.covey.adopted == [again.first_registry()]
            assert made.store.registry() == (2, again.first_registry())
            assert again.first_peers()[0].name == "first"
            assert leftovers(tmp_path / "b") == ["identity"]

    asyncio.run(scenario())


def test_a_used_up_token_is_told_apart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(3600, 2))
            await made.join(token, tmp_path / "b" / "identity", "pi2")
            await made.join(token, tmp_path / "c" / "identity", "pi3")
            error = await refusal(made, token, tmp_path / "d", "pi4")
            assert error.status == exits.TOKEN_USED_UP
            assert len(made.covey.adopted) == 2

    asyncio.run(scenario())


def test_an_expired_token_is_told_apart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(60, 1))
            made.issuing.tokens._wall_clock = lambda: time.time() + 120
            assert (await refusal(made, token, tmp_path / "b")).status == exits.TOKEN_EXPIRED

    asyncio.run(scenario())


def test_a_wrong_secret_is_unknown(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            good = parse_token(await made.server.create_token(TokenTerms(3600, 1)))
            bad = Token(good.cluster_id, good.fingerprint, good.token_id, bytes(20))
            assert (await refusal(made, bad.encode(), tmp_path / "b")).status == exits.TOKEN_UNKNOWN
            never = new_token(good.cluster_id, good.fingerprint)
            error = await refusal(made, never.encode(), tmp_path / "b")
            assert error.status == exits.TOKEN_UNKNOWN
            # and the good one still works
            await made.join(good.encode(), tmp_path / "b" / "identity", "pi2")

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ["", "covey1-", "covey1-AAAA", "hello", "covey1-%%%"])
def test_a_mangled_token_is_refused_before_anything_is_asked(tmp_path: Path, text: str) -> None:
    with pytest.raises(AgentError, match="not a token") as caught:
        asyncio.run(join(text, tmp_path / "identity", "pi2"))
    assert caught.value.status == exits.TOKEN_UNKNOWN
    assert leftovers(tmp_path) == []


def test_every_truncation_of_a_token_is_refused() -> None:
    text = new_token(bytes(16), bytes(32)).encode()
    assert parse_token(text + "\n").encode() == text
    for size in range(len(text)):
        with pytest.raises(AgentError):
            parse_token(text[:size])


def test_every_mistyped_character_of_a_token_is_noticed() -> None:
    """Also in the last one, whose lowest bits base64 does not use."""
    text = new_token(bytes(16), bytes(32)).encode()
    for at, character in enumerate(text):
        for typed in "Ab-9":
            if typed != character:
                with pytest.raises(AgentError):
                    parse_token(text[:at] + typed + text[at + 1 :])


def test_a_token_shows_no_secret() -> None:
    token = new_token(bytes(16), bytes(32))
    assert token.secret.hex() not in repr(token)
    assert repr(token.secret) not in repr(token)


def test_a_foreign_token_never_leaves_the_device(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path / "one") as one, issuer(tmp_path / "two") as two:
            token = await two.server.create_token(TokenTerms(3600, 1))
            with pytest.raises(AgentError) as caught:
                await one.join(token, tmp_path / "b" / "identity", "pi2", timeout_s=IN_VAIN_S)
            assert caught.value.status == exits.TOKEN_FOREIGN
            assert one.counts["admissions/foreign"] >= 1
            assert one.counts["admissions/token-unknown"] == 0
            assert leftovers(tmp_path / "b") == []

    asyncio.run(scenario())


def test_somebody_who_poses_as_a_member_learns_no_secret(tmp_path: Path) -> None:
    """The impostor claims the right covey, with an authority of its own."""

    async def scenario() -> None:
        async with issuer(tmp_path / "one") as one, issuer(tmp_path / "two") as impostor:
            token = await one.server.create_token(TokenTerms(3600, 1))
            impostor.identity.cluster_id = one.identity.cluster_id
            with pytest.raises(AgentError, match="certificate authority is not the one") as caught:
                await impostor.join(token, tmp_path / "b" / "identity", "pi2", timeout_s=IN_VAIN_S)
            assert caught.value.status == exits.UNREACHABLE
            assert "`covey token create`" in caught.value.hint, "it may have been replaced"
            assert not any(key.startswith("admissions/") for key in impostor.counts)

    asyncio.run(scenario())


def test_a_stolen_authority_certificate_is_not_enough(tmp_path: Path) -> None:
    """The impostor shows the real authority's certificate, which anybody may have seen."""

    async def scenario() -> None:
        async with issuer(tmp_path / "one") as one, issuer(tmp_path / "two") as impostor:
            token = await one.server.create_token(TokenTerms(3600, 1))
            impostor.identity.cluster_id = one.identity.cluster_id
            impostor.identity.trust = one.identity.trust
            with pytest.raises(AgentError, match="not signed by this covey's authority"):
                await impostor.join(token, tmp_path / "b" / "identity", "pi2", timeout_s=IN_VAIN_S)
            assert not any(key.startswith("admissions/") for key in impostor.counts)

    asyncio.run(scenario())


def test_a_clock_that_is_off_is_named_with_both_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(3600, 1))
            made.issuing._wall_clock = lambda: 1_800_000_000.0
            error = await refusal(made, token, tmp_path / "b")
            assert error.status == exits.CLOCK_OFF
            assert "the covey says 2027-01-15" in error.message
            made.issuing._wall_clock = time.time
            await made.join(token, tmp_path / "b" / "identity", "pi2")

    asyncio.run(scenario())


def test_a_taken_name_costs_no_use(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(3600, 1))
            taken = await refusal(made, token, tmp_path / "b", "pi1")
            assert taken.status == exits.NAME_TAKEN
            assert "`covey join --replace pi1 TOKEN`" in str(taken.hint)
            await made.join(token, tmp_path / "b" / "identity", "pi2")

    asyncio.run(scenario())


def test_a_lost_answer_does_not_use_the_token_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(3600, 1))
            read_frame, seen = framing.read_frame, []

            async def lossy(reader: asyncio.StreamReader, bytes_max: int) -> bytes:
                seen.append(await read_frame(reader, bytes_max))  # an answer to an admission
                raise ConnectionResetError("cut")

            monkeypatch.setattr(joining, "read_frame", lossy)
            with pytest.raises(AgentError, match="answer of the covey was lost") as caught:
                await made.join(token, tmp_path / "b" / "identity", "pi2", timeout_s=IN_VAIN_S)
            assert caught.value.status == exits.TIMED_OUT
            assert made.store.registry() is not None, "the covey did admit it"
            monkeypatch.setattr(joining, "read_frame", read_frame)
            joined = await made.join(token, tmp_path / "b" / "identity", "pi2")
            registry = open_registry(joined.first_registry(), joined.verify)
            assert [node.name for node in registry.nodes] == ["pi1", "pi2"]
            assert registry.node(joined.node_id) is not None
            assert leftovers(tmp_path / "b") == ["identity"]
            error = await refusal(made, token, tmp_path / "c", "pi3")
            assert error.status == exits.TOKEN_USED_UP

    asyncio.run(scenario())


@pytest.mark.parametrize("trouble", ["the disk is full", "interrupted"])
def test_let_in_but_not_on_disk_the_same_token_is_good_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Between the covey's word and the identity in place, whatever happens costs no token."""

    def full(path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    async def interrupted(_joining: joining.JoinAttempt) -> None:
        await run(_joining)
        raise asyncio.CancelledError

    run = joining.JoinAttempt.run

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(3600, 1))
            with monkeypatch.context() as patched:
                if trouble == "interrupted":
                    patched.setattr(joining.JoinAttempt, "run", interrupted)
                else:
                    patched.setattr("agent.identity.identity.write_private", full)
                with pytest.raises((AgentError, asyncio.CancelledError)):
                    await made.join(token, tmp_path / "b" / "identity", "pi2")
            assert made.store.registry() is not None, "the covey did admit it"
            joined = await made.join(token, tmp_path / "b" / "identity", "pi2")
            registry = open_registry(joined.first_registry(), joined.verify)
            assert [node.name for node in registry.nodes] == ["pi1", "pi2"]
            assert leftovers(tmp_path / "b") == ["identity"]

    asyncio.run(scenario())


def test_a_member_without_the_authority_passes_the_question_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 1))
            identity = await first.join(token, tmp_path / "b" / "identity", "pi2")
            async with member(identity, tmp_path / "b") as second:
                second.covey.others[first.identity.node_id] = first.server
                first.covey.others[identity.node_id] = second.server
                second.covey.me, first.covey.me = identity.node_id, first.identity.node_id
                with pytest.raises(AgentError, match="may not let others in") as caught:
                    await second.server.create_token(TokenTerms(3600, 1))
                assert caught.value.status == exits.NOT_PERMITTED
                assert "covey members allow pi2" in caught.value.hint
                assert not first.ledger.tokens()[1:], "nothing was made"
                await first.server.allow_inviting(identity.node_id, allowed=True)
                with pytest.raises(AgentError, match="always lets others in"):
                    await first.server.allow_inviting(first.identity.node_id, allowed=False)
                relayed = await second.server.create_token(TokenTerms(3600, 1))
                assert first.ledger.tokens()[-1].note.made_by == "the operator of pi2"
                joined = await second.join(relayed, tmp_path / "c" / "identity", "pi3")
                assert joined.cluster_id == first.identity.cluster_id
                error = await refusal(second, relayed, tmp_path / "d", "pi4")
                assert error.status == exits.TOKEN_USED_UP
                with pytest.raises(AgentError) as caught:
                    await second.server.create_token(TokenTerms(3600, 0))
                assert caught.value.status == exits.USAGE

    asyncio.run(scenario())


def test_who_is_removed_is_out_of_the_registry_and_its_name_is_free(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 3))
            gone = await first.join(token, tmp_path / "b" / "identity", "pi2")
            with pytest.raises(AgentError, match="cannot be removed"):
                await first.server.remove(first.identity.node_id)
            epoch = await first.server.remove(gone.node_id)
            registry = open_registry(first.covey.adopted[-1], first.identity.verify)
            assert registry.epoch == epoch
            assert [node.name for node in registry.nodes] == ["pi1"]
            assert [each.id for each in registry.removed] == [gone.node_id]
            kept = first.store.registry()
            assert kept is not None
            assert kept[1] == first.covey.adopted[-1], "on disk before anybody is told"
            with pytest.raises(AgentError, match="no node") as caught:
                await first.server.remove(gone.node_id)
            assert caught.value.status == exits.NOT_FOUND
            again = await first.join(token, tmp_path / "c" / "identity", "pi2")
            assert again.node_id != gone.node_id

    asyncio.run(scenario())


def test_a_new_device_takes_the_place_of_a_dead_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 4))
            dead = await first.join(token, tmp_path / "b" / "identity", "pi2")
            await first.join(token, tmp_path / "c" / "identity", "pi3")
            new = await first.join(token, tmp_path / "d" / "identity", "pi2", replaces=True)
            registry = open_registry(first.covey.adopted[-1], first.identity.verify)
            assert [(node.id, node.name) for node in registry.nodes if node.name == "pi2"] == [
                (new.node_id, "pi2")
            ]
            assert [gone.id for gone in registry.removed] == [dead.node_id]

    asyncio.run(scenario())


def test_who_is_there_is_not_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 2))
            there = await first.join(token, tmp_path / "b" / "identity", "pi2")
            first.covey.alive = frozenset({there.node_id})
            for name, status, hint in (
                ("pi2", exits.NAME_TAKEN, "`covey members remove pi2`"),
                ("pi1", exits.NAME_TAKEN, "backup"),
                ("nobody", exits.NOT_FOUND, "--node-name"),
            ):
                with pytest.raises(AgentError, match="cannot be replaced") as caught:
                    await first.join(token, tmp_path / name / "identity", name, replaces=True)
                assert caught.value.status == status
                assert hint in caught.value.hint
            registry = open_registry(first.covey.adopted[-1], first.identity.verify)
            assert [node.name for node in registry.nodes] == ["pi1", "pi2"]
            assert first.ledger.tokens()[-1].uses_left == 1, "it cost no use"

    asyncio.run(scenario())


def test_a_fork_is_mended_where_the_key_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 2))
            before = first.identity.first_registry()
            two = await first.join(token, tmp_path / "b" / "identity", "pi2")
            ours = first.covey.adopted[-1]
            with pytest.raises(AgentError, match="has not forked"):
                await first.server.mend()
            # What it signed for somebody else, after its disk was set back:
            old = open_registry(before, first.identity.verify)
            payload = admit(old, RegisteredNode(77, "pi9")).encode()
            rival = SignedRegistry(payload, first.identity.sign(payload)).encode()
            first.covey.forked = ours, rival
            epoch = await first.server.mend()
            [ended] = await first.server.tokens()
            assert ended.state == TokenState.REVOKED.value, "that disk was set back once"
            merged = open_registry(first.covey.adopted[-1], first.identity.verify)
            assert merged.epoch == epoch == 3
            assert {node.id for node in merged.nodes} == {
                first.identity.node_id,
                two.node_id,
                77,
            }
            async with member(two, tmp_path / "b") as second:
                second.covey.forked = ours, rival
                with pytest.raises(AgentError, match="on a node that lets others in") as caught:
                    await second.server.mend()
                assert "On pi1" in caught.value.hint

    asyncio.run(scenario())


def test_without_any_issuer_the_device_learns_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 2))
            identity = await first.join(token, tmp_path / "b" / "identity", "pi2")
            async with member(identity, tmp_path / "b") as second:
                with pytest.raises(AgentError, match=r"\(pi1\) can be reached now") as caught:
                    await second.join(
                        token, tmp_path / "c" / "identity", "pi3", timeout_s=IN_VAIN_S
                    )
                assert caught.value.status == exits.UNREACHABLE
                # Whether the issuer was really not reached, or only its answer, nobody knows.
                [kept] = leftovers(tmp_path / "c")
                assert kept.startswith(".identity.joining-")

    asyncio.run(scenario())


def test_nobody_found_says_where_was_looked(tmp_path: Path) -> None:
    token = new_token(bytes(16), bytes(32)).encode()
    with pytest.raises(AgentError, match=r"seeds 127\.0\.0\.1:9") as caught:
        asyncio.run(
            join(token, tmp_path / "i", "pi", seeds=["127.0.0.1:9"], mdns=False, timeout_s=0.5)
        )
    assert caught.value.status == exits.UNREACHABLE
    assert leftovers(tmp_path) == []


def test_a_disk_that_was_set_back_revives_no_token(tmp_path: Path) -> None:
    """What members follow is newer than what it has: its tokens may have ended since."""

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            await made.store.save_registry(1, made.identity.first_registry())
            token = await made.server.create_token(TokenTerms(3600, 2))
            used = await made.join(token, tmp_path / "b" / "identity", "pi2")
            assert made.ledger.tokens()[-1].uses_left == 1, "its own registries end nothing"
            registry = remove(made.covey.registry(), used.node_id)
            payload = registry.encode()
            since = SignedRegistry(payload, made.identity.sign(payload)).encode()
            made.covey.adopt(since)  # as somebody shows it who was there after the backup
            refused = await refusal(made, token, tmp_path / "c", "pi3")
            assert refused.status == exits.TOKEN_UNKNOWN
            [ended] = await made.server.tokens()
            assert ended.state == TokenState.REVOKED.value
            assert await made.server.create_token(TokenTerms(3600, 1)), "new ones are good"

    asyncio.run(scenario())


def test_a_data_directory_of_another_identity_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "control.db"
        store = await ControlStore.open(path, bytes(16), 7)
        assert [await store.count_start() for _ in range(3)] == [1, 2, 3]
        await store.close()
        with pytest.raises(AgentError, match="belongs to another identity"):
            await ControlStore.open(path, bytes(16), 8)
        store = await ControlStore.open(path, bytes(16), 7)
        assert await store.count_start() == 4
        assert await store.save_registry(5, b"five")
        assert not await store.save_registry(4, b"four")
        assert store.registry() == (5, b"five")
        await store.close()

    asyncio.run(scenario())


def test_a_removed_node_does_not_come_back_with_its_old_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600, 1)))
            key = Ed25519PrivateKey.generate()
            subject = certificates.Subject(made.identity.cluster_id, 77, "pi2")
            request = certificates.make_request(key, subject)
            clock_ms = int(time.time() * 1000)
            admission = proven(token, request, clock_ms, key)
            _, first = await made.issuing.admit(admission, (), "here", made.covey.is_there)
            _, again = await made.issuing.admit(admission, (), "here", made.covey.is_there)
            assert first.signed == again.signed, "asking again changes nothing"
            assert not again.is_news
            epoch = await made.server.remove(77)
            with pytest.raises(TokenRefusedError) as caught:
                await made.issuing.admit(admission, (), "here", made.covey.is_there)
            assert caught.value.status == exits.TOKEN_USED_UP
            assert made.covey.registry().epoch == epoch, "nothing was changed"

    asyncio.run(scenario())


def test_a_node_id_that_somebody_else_has_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600, 1)))
            theirs = made.identity.node_id
            subject = certificates.Subject(made.identity.cluster_id, theirs, "pi2")
            key = Ed25519PrivateKey.generate()
            request = certificates.make_request(key, subject)
            clock_ms = int(time.time() * 1000)
            admission = proven(token, request, clock_ms, key)
            with pytest.raises(AgentError, match="belongs to another node") as caught:
                await made.issuing.admit(admission, (), "here", made.covey.is_there)
            assert caught.value.status == exits.NAME_TAKEN
            assert made.store.registry() is None

    asyncio.run(scenario())


def test_a_device_without_the_family_of_an_address_is_told_so() -> None:
    """As it would be on a device with IPv6 alone, whose token names addresses by IPv4."""
    away = OSError(errno.ENETUNREACH, "Network is unreachable")
    assert "no IPv4 that leads there" in joining.why_not(away, Address("192.0.2.1", 7747))
    assert "no IPv6 that leads there" in joining.why_not(away, Address("2001:db8::1", 7747))
    assert joining.why_not(TimeoutError(), Address("192.0.2.1", 7747)) == "no answer in time"
    refused = OSError(errno.ECONNREFUSED, "Connection refused")
    assert joining.why_not(refused, Address("192.0.2.1", 1)) == "Connection refused"
