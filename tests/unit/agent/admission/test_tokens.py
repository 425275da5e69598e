"""What a token is worth, what it fixes, and who shows a wrong one."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.admission import renewal as renewing
from agent.admission import token_issuer
from agent.admission.issuer import Issuer
from agent.admission.messages import (
    GUEST_CODEC,
    TOKENS_SHOWN_MAX,
    AdmissionRequest,
    Granted,
    KnownPeer,
    Refused,
)
from agent.admission.proofs import is_proven, prove, sign_renewal
from agent.admission.token_terms import TokenTerms
from agent.admission.token_throttle import FORGOTTEN_S, ORIGINS_MAX, TokenThrottle
from agent.admission.tokens import Token, new_token, parse_token
from agent.exits import AgentError
from agent.identity import certificates
from agent.identity.private_keys import read_private_key
from agent.store.control import CONTROL_MIGRATIONS
from agent.store.control_copy import copy_of
from agent.store.migrations import Migrations
from agent.store.tokens import HASHED_TOKENS, TokenNote
from gossip.control.bounds import TOKENS_CHANGED_MAX
from gossip.core.errors import Malformed
from gossip.core.ids import format_node_id
from gossip.registry.registry import open_registry
from tests.support.admission_rig import IN_VAIN_S, Member, issuer, member, proven, refusal
from tests.support.patience import GIVE_UP_S


async def offered(made: Member, token: Token, **changed: object) -> AgentError | None:
    """Return why the issuer does not take an admission that is otherwise in order."""
    key = Ed25519PrivateKey.generate()
    return await refused(made, prove(unproven(made, token, key, **changed), token.key(), key))


def unproven(
    made: Member, token: Token, key: Ed25519PrivateKey, **changed: object
) -> AdmissionRequest:
    node_id, name = changed.pop("node_id", 77), changed.pop("name", "pi2")
    subject = certificates.Subject(made.identity.cluster_id, node_id, name)  # type: ignore[arg-type]
    request = certificates.make_request(key, subject)
    clock_ms = int(time.time() * 1000)
    bare = AdmissionRequest(token.token_id, b"", request, clock_ms, 1.0, "")
    return msgspec.structs.replace(bare, **changed)


async def refused(made: Member, admission: AdmissionRequest) -> AgentError | None:
    """Return why the issuer does not take an admission; None if it does."""
    try:
        await made.issuing.admit(admission, (), "here", made.covey.is_there)
    except AgentError as error:
        return error
    return None


@pytest.mark.parametrize(
    "changed",
    [{"node_id": 0}, {"name": "x\x1b[2J"}, {"zone": "\x1b]0;x\x07"}, {"zone": "a b"},
     {"weight": 0.0}, {"weight": float("nan")}, {"weight": 1e9}],
)  # fmt: skip
def test_what_cannot_stand_in_the_registry_is_refused(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600)))
            assert await offered(made, token, **changed) is not None
            assert made.store.registry() is None
            assert await offered(made, token) is None, "the token was not used"

    asyncio.run(scenario())


def test_an_expired_token_stays_so_when_the_clock_is_set_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            issuing = made.issuing
            token = parse_token(await made.server.create_token(TokenTerms(60)))
            issuing.tokens._wall_clock = lambda: time.time() + 120
            looking = asyncio.create_task(issuing.tokens.watch_expiry())
            async with asyncio.timeout(GIVE_UP_S):
                while not any(kept.note.ended for kept in made.ledger.tokens()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            looking.cancel()
            made.server._made_issuer = Issuer(made.identity, made.registries)
            error = await offered(made, token)
            assert error is not None
            assert error.status == exits.TOKEN_EXPIRED

    asyncio.run(scenario())


def test_a_running_issuer_does_not_go_back_in_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(60)))
            made.issuing.tokens._wall_clock = lambda: time.time() + 120
            assert (await made.server.tokens())[0].state == "expired"
            made.issuing.tokens._wall_clock = time.time
            assert (await made.server.tokens())[0].state == "expired"
            error = await offered(made, token)
            assert error is not None
            assert error.status == exits.TOKEN_EXPIRED

    asyncio.run(scenario())


def test_a_token_of_a_clock_that_stood_ahead_is_good_for_nobody(tmp_path: Path) -> None:
    """It would be good for as long as the clock was ahead; a clock that is behind ends no token."""

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            made.issuing.tokens._wall_clock = lambda: time.time() + 400 * 86400
            token = parse_token(await made.server.create_token(TokenTerms(3600)))
            after_a_restart = made.server._made_issuer = Issuer(made.identity, made.registries)
            error = await offered(made, token)
            assert error is not None
            assert error.status == exits.TOKEN_EXPIRED
            await after_a_restart.tokens.end_expired()
            after_a_restart.tokens._wall_clock = lambda: time.time() + 400 * 86400
            assert (await made.server.tokens())[0].state == "valid", "that clock was right"

    asyncio.run(scenario())


def test_a_revoked_token_lets_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600, 2)))
            assert await offered(made, token) is None
            assert await made.server.revoke_token(token.token_id) == "valid"
            assert await made.server.revoke_token(token.token_id) == "revoked"
            assert await made.server.revoke_token(b"nobody's") == "unknown"
            error = await offered(made, token, node_id=78, name="pi3")
            assert error is not None
            assert "revoked" in error.message
            [shown] = await made.server.tokens()
            assert (shown.state, shown.uses_left, shown.made_by) == (
                "revoked", 1, "the operator of pi1",
            )  # fmt: skip
            assert shown.admitted == (format_node_id(77),)

    with caplog.at_level("INFO"):
        asyncio.run(scenario())
    told = [record.getMessage() for record in caplog.records]
    for event in ("made by the operator of pi1", "from here with token", "revoked by the operator"):
        assert sum(event in line for line in told) == 1, told


def test_what_a_token_fixes_is_not_for_the_device_to_choose(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = await made.server.create_token(TokenTerms(3600, 1, "shed-1", "shed", 2.5))
            joined = await made.join(token, tmp_path / "b" / "identity", "pi2")
            assert joined.node_name == "shed-1"
            entry = open_registry(joined.first_registry(), joined.verify).node(joined.node_id)
            assert entry is not None
            assert (entry.name, entry.zone, entry.weight) == ("shed-1", "shed", 2.5)

    asyncio.run(scenario())


@pytest.mark.parametrize("field", ["request", "weight", "zone", "clock_ms"])
def test_a_proof_is_for_one_admission(tmp_path: Path, field: str) -> None:
    """A member that passes it on can change nothing, and cannot use it for a device of its own."""
    token = new_token(bytes(16), bytes(32))
    bare = AdmissionRequest(token.token_id, b"", b"csr", 1000, 1.0, "shed")
    admission = prove(bare, token.key(), Ed25519PrivateKey.generate())
    assert is_proven(admission, token.public_key())
    other = {"request": b"theirs", "weight": 9.0, "zone": "attic", "clock_ms": 1001}[field]
    assert not is_proven(msgspec.structs.replace(admission, **{field: other}), token.public_key())
    assert token.secret not in msgspec.msgpack.encode(admission)


def test_what_is_kept_of_a_token_lets_nobody_in(tmp_path: Path) -> None:
    """Also not whoever has a copy of the issuer's disk, on which the authority's key is sealed."""

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600)))
            [kept] = made.ledger.tokens()
            key = Ed25519PrivateKey.generate()
            asked = unproven(made, token, key)
            as_seed = Ed25519PrivateKey.from_private_bytes(kept.public_key)
            error = await refused(made, prove(asked, as_seed, key))
            assert error is not None
            assert error.status == exits.TOKEN_UNKNOWN
            in_the_log = kept.encode()
            assert kept.public_key in in_the_log
            for proves in (token.secret, token.key().private_bytes_raw()):
                assert proves not in in_the_log
            assert await refused(made, prove(asked, token.key(), key)) is None

    asyncio.run(scenario())


def test_a_device_of_before_is_told_to_update(tmp_path: Path) -> None:
    """It proves with a hash, and the token is good for it when it has been updated."""

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600)))
            asked = unproven(made, token, Ed25519PrivateKey.generate(), proof=bytes(32))
            error = await refused(made, asked)
            assert error is not None
            assert "older version of Covey" in error.message
            assert await offered(made, token) is None

    asyncio.run(scenario())


def test_tokens_of_before_end_with_the_update(tmp_path: Path) -> None:
    """The hash that was kept of them proves an admission: in copies of the disk, too."""
    token_hash, steps = b"\xa5" * 32, CONTROL_MIGRATIONS._steps
    tokens = {
        state: new_token(bytes(16), bytes(32)) for state in ("outdated", "used up", "revoked")
    }

    def made_before(path: Path) -> None:
        older = Migrations("control")
        older._steps = {name: steps[name] for name in ("create", "checksums", "token_notes")}
        with closing(sqlite3.connect(path, isolation_level=None)) as rows:
            older.apply(rows)
            for state, token in tokens.items():
                note = TokenNote(time.time(), "pi1", ended=state if state == "revoked" else "")
                row = HASHED_TOKENS.sealed(
                    token.token_id, token_hash, time.time() + 3600.0, int(state != "used up"),
                    msgspec.msgpack.encode(note),
                )  # fmt: skip
                query = f"INSERT INTO tokens ({HASHED_TOKENS.names}) VALUES (?, ?, ?, ?, ?, ?)"
                rows.execute(query, row)

    async def scenario() -> None:
        (tmp_path / "a").mkdir()
        made_before(tmp_path / "a" / "control.db")
        async with issuer(tmp_path) as made:
            shown = {each.id: each.state for each in await made.server.tokens()}
            assert shown == {token.token_id: state for state, token in tokens.items()}
            for token in tokens.values():
                error = await offered(made, token)
                assert error is not None
                assert error.status == exits.TOKEN_EXPIRED
                assert "ended when Covey was updated" in error.message
            await made.store.count_start()
        kept = [path.read_bytes() for path in (tmp_path / "a").glob("control.db*")]
        assert not any(token_hash in data for data in kept)

    asyncio.run(scenario())


def test_who_shows_wrong_tokens_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agent.admission.token_throttle.FIRST_S", 0.05)

    async def scenario() -> float:
        async with issuer(tmp_path) as made:
            good = parse_token(await made.server.create_token(TokenTerms(3600)))
            began = time.monotonic()
            for _ in range(4):
                await refusal(
                    made, new_token(good.cluster_id, good.fingerprint).encode(), tmp_path / "b"
                )
            assert made.counts["admissions/token-unknown"] == 4
            return time.monotonic() - began

    assert asyncio.run(scenario()) >= 0.05 * (1 + 2 + 4 + 8)
    assert sum("does not know this token" in each.getMessage() for each in caplog.records) == 1


def test_whose_request_is_shown_by_somebody_else_lets_nobody_in(tmp_path: Path) -> None:
    """One token let two devices in. One is removed, and has seen what the other asked with."""

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            text = await made.server.create_token(TokenTerms(3600, 2))
            who = await made.join(text, tmp_path / "b" / "identity", "pi2")
            seen, token = renewing.application(who).request, parse_token(text)
            thief, now_ms = Ed25519PrivateKey.generate(), int(time.time() * 1000)
            with pytest.raises(AgentError, match="not signed by the key"):
                await made.issuing.admit(
                    proven(token, seen, now_ms, thief), (), "here", made.covey.is_there
                )
            own = proven(token, seen, now_ms, read_private_key(who.key_file))
            await made.issuing.admit(own, (), "here", made.covey.is_there)

    asyncio.run(scenario())


@pytest.mark.parametrize("field", ["keyring", "registry", "cluster_name", "peers"])
def test_who_passes_an_answer_on_can_change_nothing_of_it(tmp_path: Path, field: str) -> None:
    """A device that was given keys or a registry that nobody signed would be deaf for good."""

    async def scenario() -> None:
        async with issuer(tmp_path) as first:
            token = await first.server.create_token(TokenTerms(3600, 2))
            liar = await first.join(token, tmp_path / "c" / "identity", "pi3")
            async with member(liar, tmp_path / "c") as second:
                seen = []

                async def lies(question: AdmissionRequest, _origin: str) -> Granted | Refused:
                    verdict = await first.server._decide(question, "here")
                    assert isinstance(verdict, Granted)
                    forged = {"cluster_name": "shed", "peers": (KnownPeer(7, "eve", ()),)}
                    seen.append(verdict)
                    return msgspec.structs.replace(verdict, **{field: forged.get(field, b"mine")})

                second.server._relay.ask_any = lies  # type: ignore[assignment,method-assign]
                with pytest.raises(AgentError, match="not signed by the authority"):
                    await second.join(
                        token, tmp_path / "b" / "identity", "pi2", timeout_s=IN_VAIN_S
                    )
                assert seen, "it was asked"
                await first.join(token, tmp_path / "b" / "identity", "pi2")

    asyncio.run(scenario())


def test_no_token_that_is_good_is_left_out_of_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may make them, and has bad intentions, could hide one behind many others."""
    monkeypatch.setattr(token_issuer, "TOKENS_SHOWN_MAX", 3)

    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            hidden = parse_token(await made.server.create_token(TokenTerms(3600)))
            for _n in range(4):
                over = parse_token(await made.server.create_token(TokenTerms(3600)))
                await made.server.revoke_token(over.token_id)
            shown = await made.server.tokens()
            assert shown[0].id == hidden.token_id
            assert len(shown) == 3
            asked = [made.server.create_token(TokenTerms(3600)) for _ in range(3)]
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(each) for each in outcomes] == [str, str, AgentError]
            assert "which is the most" in str(outcomes[-1])

    asyncio.run(scenario())


def test_nothing_is_written_for_who_is_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            who = await made.join(
                await made.server.create_token(TokenTerms(3600)), tmp_path / "b" / "identity", "pi2"
            )
            await made.store._copy.finish()
            copy = copy_of(tmp_path / "a" / "control.db")
            before, committed = copy.stat().st_mtime_ns, made.store.database.counts.total()
            renewal = renewing.application(who)
            with pytest.raises(AgentError):
                await made.server.renew(sign_renewal(renewal, Ed25519PrivateKey.generate()))
            wrong = new_token(made.identity.cluster_id, bytes(32))
            verdict = await made.server._decide(
                proven(wrong, renewal.request, 1000, Ed25519PrivateKey.generate()), "192.0.2.1"
            )
            assert isinstance(verdict, Refused)
            await made.store._copy.finish()
            assert copy.stat().st_mtime_ns == before
            assert made.store.database.counts.total() == committed

    asyncio.run(scenario())


def test_nothing_is_written_for_who_asks_again_and_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with issuer(tmp_path) as made:
            token = parse_token(await made.server.create_token(TokenTerms(3600)))
            key = Ed25519PrivateKey.generate()
            subject = certificates.Subject(made.identity.cluster_id, 77, "pi2")
            request = certificates.make_request(key, subject)
            admission = proven(token, request, round(time.time() * 1000), key)

            async def ask() -> Granted:
                verdict = await made.server._decide(admission, "192.0.2.1")
                assert isinstance(verdict, Granted)
                await made.store._copy.finish()
                return verdict

            first = await ask()
            path = tmp_path / "a" / "control.db"
            before = copy_of(path).stat().st_mtime_ns, read_log(path)
            for _ in range(5):
                again = await ask()
                assert (again.registry, again.peers) == (first.registry, first.peers)
            assert (copy_of(path).stat().st_mtime_ns, read_log(path)) == before
            assert made.counts["admissions/granted"] == 1
            assert made.counts["admissions/repeated"] == 5

    def read_log(path: Path) -> bytes:
        return path.with_name(f"{path.name}-wal").read_bytes()

    with caplog.at_level("INFO"):
        asyncio.run(scenario())
    assert sum("admitted" in each.getMessage() for each in caplog.records) == 1


def test_delays_grow_and_are_forgotten() -> None:
    now = [0.0]
    wrong = TokenThrottle(lambda: now[0])
    assert [wrong.delay_s("a") for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert wrong.delay_s("b") == 0.5, "each origin for itself"
    assert [wrong.delay_s(f"2001:db8::{n}") for n in range(3)] == [0.5, 1.0, 2.0]
    assert wrong.delay_s("fe80::7%eth0") == wrong.delay_s("192.0.2.7") == 0.5
    now[0] = FORGOTTEN_S + 1
    assert wrong.delay_s("a") == 0.5
    for origin in range(2 * ORIGINS_MAX):
        wrong.delay_s(str(origin))
    assert len(wrong._wrong) == ORIGINS_MAX


@pytest.mark.parametrize("size_bytes", [0, 7, 9, 65, 5000])
def test_a_token_id_of_any_length_costs_a_counter(size_bytes: int) -> None:
    odd = AdmissionRequest(bytes(size_bytes), b"", b"csr", 1, 1.0, "")
    with pytest.raises(Malformed):
        GUEST_CODEC.decode(GUEST_CODEC.encode(odd))


def test_all_tokens_that_may_be_good_end_in_one_change() -> None:
    """Another authority, or a log that was set back, ends them at once, and all or none."""
    assert TOKENS_CHANGED_MAX >= 2 * TOKENS_SHOWN_MAX
