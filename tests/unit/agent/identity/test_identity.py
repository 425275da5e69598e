"""The identity directory: whole or not at all, private, and clear about what is wrong."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import exits
from agent.exits import AgentError
from agent.files import private_files
from agent.identity import certificates, identity
from agent.identity.identity import Identity, found, load
from agent.system.wall_clock import flaw
from gossip.core.errors import Forged, Malformed
from gossip.registry.registry import SignedRegistry, open_registry

DAY_S = 86400.0


@pytest.fixture
def founded(tmp_path: Path) -> Identity:
    return found(tmp_path / "data" / "identity", "barn", "pi1")


def test_found_makes_a_complete_identity(founded: Identity) -> None:
    again = load(founded.directory)
    assert (again.cluster_name, again.node_name) == ("barn", "pi1")
    assert (again.cluster_id, again.node_id) == (founded.cluster_id, founded.node_id)
    assert again.is_issuer
    assert again.keyring().primary == founded.keyring().primary
    assert again.first_peers() == []
    registry = open_registry(again.first_registry(), again.verify)
    entry = registry.node(again.node_id)
    assert entry is not None
    assert entry.is_issuer
    assert entry.name == "pi1"


def test_everything_is_private(founded: Identity) -> None:
    assert stat.S_IMODE(founded.directory.stat().st_mode) == 0o700
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in founded.directory.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert len(modes) == 7


def test_no_secret_in_any_repr(founded: Identity) -> None:
    keyring = founded.keyring()
    secret = next(iter(keyring._secrets.values()))
    shown = repr(founded) + repr(keyring) + repr(keyring.aead(keyring.primary, 1, 1))
    assert secret.hex() not in shown
    assert repr(secret)[2:-1] not in shown


def test_an_existing_identity_is_refused(founded: Identity) -> None:
    before = {each.name: each.read_bytes() for each in founded.directory.iterdir()}
    with pytest.raises(AgentError, match="already holds node pi1 of covey barn") as caught:
        found(founded.directory, "other", "pi2")
    assert caught.value.hint
    assert before == {each.name: each.read_bytes() for each in founded.directory.iterdir()}


def test_nothing_is_left_when_it_fails_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == "registry":
            raise OSError(28, "No space left on device")
        private_files.write_private(path, data)

    monkeypatch.setattr(identity, "write_private", full)
    with pytest.raises(AgentError, match="No space left on device; nothing was left behind"):
        found(tmp_path / "identity", "barn", "pi1")
    assert list(tmp_path.iterdir()) == []


def test_without_identity_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="belongs to no covey yet") as caught:
        load(tmp_path / "identity")
    assert "covey init" in caught.value.hint
    assert "covey join" in caught.value.hint
    assert caught.value.status == exits.NOT_FOUND


def test_a_damaged_identity_is_named(founded: Identity) -> None:
    (founded.directory / "identity.json").write_text('{"cluster_id": "zz"}')
    with pytest.raises(AgentError, match=r"cannot be read.*nothing was changed") as caught:
        load(founded.directory)
    assert caught.value.status == exits.BAD_CONFIG


@pytest.mark.parametrize("name", ["", "-a", "a b", "ä", "a" * 64, "a/b", "x\n"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(AgentError) as caught:
        found(tmp_path / "identity", "barn", name)
    assert caught.value.status == exits.USAGE
    assert not (tmp_path / "identity").exists()


def test_the_certificate_is_backdated_and_its_authority_lives_long(founded: Identity) -> None:
    assert founded.valid_until - founded.valid_from == 91 * DAY_S
    assert founded.plausible[1] - founded.plausible[0] > 9 * 365 * DAY_S
    assert flaw(founded.valid_from + DAY_S / 2, founded.valid_from, founded.valid_until) is None


def test_no_covey_is_founded_by_a_clock_that_cannot_be_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its certificates would be invalid from the moment at which the clock is set."""
    monkeypatch.setattr("agent.identity.identity.time.time", lambda: DAY_S)
    with pytest.raises(AgentError, match="clock says 1970-01-02") as caught:
        found(tmp_path / "identity", "barn", "pi1")
    assert caught.value.status == exits.CLOCK_OFF
    assert not (tmp_path / "identity").exists()


def test_a_registry_signature_is_bound_to_its_payload_and_covey(
    founded: Identity, tmp_path: Path
) -> None:
    payload = SignedRegistry.decode(founded.first_registry()).payload
    signature = founded.sign(payload)
    assert founded.verify(payload, signature)
    assert not founded.verify(payload[:-1], signature)
    assert not founded.verify(payload, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not found(tmp_path / "other", "barn", "pi1").verify(payload, signature)


def test_a_certificate_of_another_authority_is_forged(founded: Identity, tmp_path: Path) -> None:
    other = found(tmp_path / "other", "barn", "pi1")
    import ssl

    ours, theirs = (
        ssl.PEM_cert_to_DER_cert(each.certificate_file.read_text()) for each in (founded, other)
    )
    authority = founded.authority
    subject, _ = certificates.check_issued(ours, authority)
    assert (subject.cluster_id, subject.node_id) == (founded.cluster_id, founded.node_id)
    with pytest.raises(Forged):
        certificates.check_issued(theirs, authority)
    with pytest.raises(Malformed):
        certificates.check_issued(ours[:-10], authority)


def test_every_damaged_signing_request_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    subject = certificates.Subject(bytes(16), 7, "pi")
    der = certificates.make_request(key, subject)
    assert certificates.read_request(der) == (subject, key.public_key().public_bytes_raw())
    for at in range(len(der)):
        damaged = bytearray(der)
        damaged[at] ^= 0x55
        with pytest.raises((Malformed, Forged)):
            certificates.read_request(bytes(damaged))
    for size in range(0, len(der), 7):
        with pytest.raises((Malformed, Forged)):
            certificates.read_request(der[:size])


@pytest.fixture
def refused(founded: Identity, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have every file refuse to be read, as to who may not; return the data directory."""

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    return founded.directory.parent


READERS = {
    "identity": lambda me: load(me.directory),
    "authority.key": Identity.authority_private_key,
    "keyring": Identity.keyring,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_an_identity_of_another_user_is_called_that(
    founded: Identity, refused: Path, read: Callable[[Identity], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("os.geteuid", lambda: refused.stat().st_uid + 1)
    with pytest.raises(AgentError, match="belongs to another user") as caught:
        read(founded)
    assert caught.value.status == exits.NOT_PERMITTED
    assert f"chown -R --reference={refused}" in caught.value.hint


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_an_identity_that_its_own_mode_closes_is_nobody_elses(
    founded: Identity, refused: Path, read: Callable[[Identity], object]
) -> None:
    with pytest.raises(AgentError, match="its mode") as caught:
        read(founded)
    assert "another user" not in str(caught.value)
    assert f"`chmod -R u+rwX {refused}`" in caught.value.hint
