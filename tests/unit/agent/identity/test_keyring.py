"""The keyring: one derived key for each life, and nothing in common between any two."""

from pathlib import Path

import msgspec
import pytest

from agent.exits import AgentError
from agent.identity.keyring import (
    CIPHERS,
    DERIVED_KEYS_MAX,
    KeyringFile,
    load_keyring,
    new_keyring,
    parse_keyring,
)
from gossip.core.envelope import Envelope
from gossip.core.errors import Forged

COVEY, OTHER = bytes(range(16)), bytes(16)
NONCE = bytes(12)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_what_is_sealed_opens_with_the_same_life(cipher: str) -> None:
    data = new_keyring(cipher)
    ours, theirs = parse_keyring(data, COVEY), parse_keyring(data, COVEY)
    mine, same = ours.aead(ours.primary, 7, 1), theirs.aead(ours.primary, 7, 1)
    assert mine is not None
    assert same is not None
    assert same.decrypt(NONCE, mine.encrypt(NONCE, b"hello", b"aad"), b"aad") == b"hello"


@pytest.mark.parametrize(
    ("cluster", "sender", "boot"), [(OTHER, 7, 1), (COVEY, 8, 1), (COVEY, 7, 2)]
)
def test_every_part_of_a_life_makes_another_key(cluster: bytes, sender: int, boot: int) -> None:
    data = new_keyring()
    ours, theirs = parse_keyring(data, COVEY), parse_keyring(data, cluster)
    mine, other = ours.aead(ours.primary, 7, 1), theirs.aead(ours.primary, sender, boot)
    assert mine is not None
    assert other is not None
    with pytest.raises(Forged):
        other.decrypt(NONCE, mine.encrypt(NONCE, b"hello", b""), b"")


def test_an_unknown_key_id_is_none() -> None:
    keyring = parse_keyring(new_keyring(), COVEY)
    assert keyring.aead(keyring.primary ^ 1, 7, 1) is None


def test_the_cache_is_bounded_and_still_right() -> None:
    keyring = parse_keyring(new_keyring(), COVEY)
    first = keyring.aead(keyring.primary, 1, 1)
    assert first is not None
    sealed = first.encrypt(NONCE, b"x", b"")
    for sender in range(2, DERIVED_KEYS_MAX + 10):
        keyring.aead(keyring.primary, sender, 1)
    assert len(keyring._derived) == DERIVED_KEYS_MAX
    again = keyring.aead(keyring.primary, 1, 1)
    assert again is not None
    assert again is not first
    assert again.decrypt(NONCE, sealed, b"") == b"x"


def test_it_serves_the_envelope() -> None:
    data = new_keyring()
    one = Envelope(COVEY, 1, 11, parse_keyring(data, COVEY))
    two = Envelope(COVEY, 2, 22, parse_keyring(data, COVEY))
    opened = two.open(one.seal(b"body", 3))
    assert (opened.sender, opened.boot, opened.incarnation, opened.body) == (1, 11, 3, b"body")
    stranger = Envelope(COVEY, 3, 33, parse_keyring(new_keyring(), COVEY))
    with pytest.raises(Forged):
        two.open(stranger.seal(b"body", 3))


@pytest.mark.parametrize(
    "content",
    [
        KeyringFile("rot13", 1, {1: bytes(32)}),
        KeyringFile("aes-256-gcm", 2, {1: bytes(32)}),
        KeyringFile("aes-256-gcm", 1, {1: bytes(31)}),
        KeyringFile("aes-256-gcm", 2**32, {2**32: bytes(32)}),
        KeyringFile("aes-256-gcm", 1, {}),
    ],
)
def test_a_keyring_that_cannot_be_is_refused(content: KeyringFile) -> None:
    with pytest.raises(ValueError, match=r"key|cipher"):
        parse_keyring(msgspec.json.encode(content), COVEY)


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "keyring.json").write_text("{")
    with pytest.raises(AgentError, match=r"keyring\.json cannot be used") as caught:
        load_keyring(tmp_path / "keyring.json", COVEY)
    assert "backup" in caught.value.hint
    with pytest.raises(AgentError, match="No such file"):
        load_keyring(tmp_path / "absent.json", COVEY)


def test_an_unknown_cipher_lists_the_known() -> None:
    with pytest.raises(AgentError) as caught:
        new_keyring("des")
    assert "chacha20-poly1305" in caught.value.hint
