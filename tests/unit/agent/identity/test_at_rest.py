"""Secret files are sealed with the key that systemd hands over, and open with no other."""

import errno
import os
import secrets
import shutil
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.config.credentials import SEAL, VARIABLE
from agent.exits import AgentError
from agent.files.private_files import remains, replace_private
from agent.identity import at_rest, certificates, spares
from agent.identity.at_rest import SECRETS, in_clear, seal_identity
from agent.identity.identity import Identity, found, load
from agent.identity.keyring import new_keyring
from agent.identity.private_keys import private_pem, read_private_key
from agent.identity.repair import load_mended
from agent.identity.seal import (
    HEADER_BYTES,
    KEY_BYTES,
    MAGIC,
    Seal,
    SealBroken,
    is_sealed,
    seal_here,
)
from agent.identity.spares import DIRECTORY, read_spare

FOUNDERS = ("keyring.json", "node.key", "authority.key")
Handing = Callable[[bytes | None], None]


@pytest.fixture
def hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Handing:
    """Give a function that hands this process a key as systemd does, or takes it away."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    monkeypatch.delenv(VARIABLE, raising=False)

    def do(key: bytes | None) -> None:
        if key is None:
            monkeypatch.delenv(VARIABLE, raising=False)
            return
        (directory / SEAL).write_bytes(key)
        monkeypatch.setenv(VARIABLE, str(directory))

    return do


@pytest.fixture
def identity_dir(tmp_path: Path) -> Path:
    """Give a place for an identity, with nothing else that is searched beside it."""
    return tmp_path / "data" / "identity"


KEY, OTHER = bytes(range(KEY_BYTES)), bytes(KEY_BYTES)


def start(directory: Path) -> Identity:
    """Do what the start of an agent does."""
    load_mended(directory)
    seal_identity(directory)
    return load(directory)


def secrets_of(who: Identity) -> tuple[bytes, ...]:
    """Return what opens in an identity."""
    return (
        at_rest.read_secret(who.key_file),
        at_rest.read_secret(who.authority_key_file),
        at_rest.read_secret(who.keyring_file),
    )


def everything_in(directory: Path) -> bytes:
    """Return the bytes of all files below the data directory."""
    files = [path for path in directory.parent.rglob("*") if path.is_file()]
    return b"\0".join(path.read_bytes() for path in files)


class PowerCut(BaseException):
    """Nothing is cleaned up after it."""


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
                raise PowerCut
            return step(*args, **kwargs)

        return stepped


STEPS = ((os, "open"), (os, "fsync"), (Path, "hardlink_to"), (Path, "replace"), (Path, "unlink"))


# --- the seal -------------------------------------------------------------------------------------


def test_only_the_key_opens_and_only_under_the_file_s_name() -> None:
    seal, other = Seal(KEY, b"12345678"), Seal(OTHER, b"12345678")
    closed = seal.close("node.key", b"secret")
    assert is_sealed(closed)
    assert b"secret" not in closed
    assert seal.open("node.key", closed) == b"secret"
    assert seal.close("node.key", b"secret") != closed, "each has a nonce of its own"
    for opens, name in ((other, "node.key"), (seal, "authority.key")):
        with pytest.raises(SealBroken):
            opens.open(name, closed)


def test_every_flipped_bit_is_noticed(hand: Handing) -> None:
    """The header as well as the ciphertext."""
    hand(KEY)
    seal = seal_here()
    assert seal is not None
    closed = seal.close("node.key", b"secret")
    for bit in range(len(closed) * 8):
        changed = bytearray(closed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            seal.open("node.key", bytes(changed))
    for length in range(HEADER_BYTES + 16):
        assert not is_sealed(closed[:length])


def test_the_key_is_in_no_repr() -> None:
    key = secrets.token_bytes(KEY_BYTES)
    assert repr(key)[2:-1] not in repr(Seal(key, b"12345678"))
    assert key.hex() not in repr(Seal(key, b"12345678"))


def test_a_service_without_the_credential_has_no_seal(tmp_path: Path) -> None:
    assert seal_here({}) is None
    assert seal_here({VARIABLE: str(tmp_path)}) is None


@pytest.mark.parametrize("key", [b"", b"short", bytes(33)])
def test_a_key_of_another_length_is_refused(hand: Handing, key: bytes) -> None:
    hand(key)
    with pytest.raises(AgentError, match=f"it has {len(key)} bytes") as caught:
        seal_here()
    assert caught.value.status == exits.BAD_CONFIG


# --- an identity ----------------------------------------------------------------------------------


def test_what_was_made_in_clear_is_sealed_by_the_next_start(
    hand: Handing, identity_dir: Path
) -> None:
    before = secrets_of(found(identity_dir, "barn", "pi1"))
    start(identity_dir)
    assert in_clear(identity_dir) == [*FOUNDERS, *(f"{DIRECTORY}/{name}" for name in FOUNDERS)]
    hand(KEY)
    for _ in range(2):
        who = start(identity_dir)
        assert secrets_of(who) == before
        assert in_clear(identity_dir) == []
        assert not any(secret in everything_in(identity_dir) for secret in before)
        for name in FOUNDERS:
            assert read_spare(identity_dir / name) == (identity_dir / name).read_bytes()
    assert who.authority_private_key()
    assert who.keyring()


def test_what_is_made_by_the_service_is_never_in_clear(hand: Handing, identity_dir: Path) -> None:
    hand(KEY)
    who = found(identity_dir, "barn", "pi1")
    assert in_clear(identity_dir) == []
    keys = secrets_of(who)
    assert start(identity_dir).keyring().primary == who.keyring().primary
    assert secrets_of(who) == keys


def test_what_replaces_a_sealed_file_is_sealed(hand: Handing, identity_dir: Path) -> None:
    hand(KEY)
    who = found(identity_dir, "barn", "pi1")
    at_rest.replace_secret(who.keyring_file, b"new")
    assert is_sealed(who.keyring_file.read_bytes())
    assert at_rest.read_secret(who.keyring_file) == who.keyring_bytes() == b"new"
    assert read_spare(who.keyring_file) == who.keyring_file.read_bytes()


def test_tls_takes_a_key_that_is_on_no_disk(hand: Handing, identity_dir: Path) -> None:
    hand(KEY)
    who = found(identity_dir, "barn", "pi1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    handles = sorted(Path("/proc/self/fd").iterdir())
    at_rest.load_chain(context, who.certificate_file, who.key_file)
    assert sorted(Path("/proc/self/fd").iterdir()) == handles
    other = found(identity_dir.with_name("other"), "barn", "pi2")
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        at_rest.load_chain(context, other.certificate_file, who.key_file)


@pytest.mark.parametrize("key", [None, OTHER], ids=["none", "another"])
def test_without_its_key_nothing_starts_and_nothing_is_changed(
    hand: Handing, identity_dir: Path, key: bytes | None
) -> None:
    hand(KEY)
    found(identity_dir, "barn", "pi1")
    start(identity_dir)
    hand(key)
    before = everything_in(identity_dir)
    with pytest.raises(AgentError, match=r"keyring\.json is sealed with") as caught:
        start(identity_dir)
    assert caught.value.status == exits.BAD_CONFIG
    for what_to_do in ("systemctl start covey", "service install", "--replace", "systemd-creds"):
        assert what_to_do in (caught.value.hint or "")
    assert everything_in(identity_dir) == before
    who = load(identity_dir)
    for read in (who.keyring, who.authority_private_key, who.keyring_bytes):
        with pytest.raises(AgentError, match="is sealed with"):
            read()
    hand(KEY)
    assert start(identity_dir).keyring()


def test_a_restored_copy_without_spares_is_told_from_a_damaged_one(
    hand: Handing, identity_dir: Path
) -> None:
    hand(KEY)
    found(identity_dir, "barn", "pi1")
    hand(OTHER)
    with pytest.raises(AgentError, match="sealed with another key"):
        start(identity_dir)


def test_what_is_removed_is_overwritten_and_missed_by_no_start(
    hand: Handing, identity_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off at any step: it is there whole, or it is gone."""
    steps = 0
    while True:
        directory = identity_dir.with_name(str(steps)) / "identity"
        hand(None)
        who = found(directory, "barn", "pi1")
        at_rest.replace_secret(who.next_authority_file, who.authority_key_file.read_bytes())
        start(directory)
        power = Power(steps)
        with monkeypatch.context() as patched:
            for module, name in (*STEPS, (Path, "rename")):
                patched.setattr(module, name, power.wrap(getattr(module, name)))
            with suppress(PowerCut):
                spares.remove_with_spare(who.next_authority_file)
        hand(KEY)
        again = start(directory)
        if again.next_authority_file.exists():
            assert at_rest.read_secret(again.next_authority_file)
        assert in_clear(directory) == []
        if not power.is_gone:
            assert not again.next_authority_file.exists()
            break
        steps += 1
    assert steps > 8


@pytest.mark.parametrize("name", FOUNDERS)
def test_a_sealed_file_that_is_damaged_comes_back_from_its_spare(
    hand: Handing, identity_dir: Path, name: str
) -> None:
    """In its magic, its key's id, its nonce, its ciphertext."""
    hand(KEY)
    keys = secrets_of(found(identity_dir, "barn", "pi1"))
    start(identity_dir)
    path = identity_dir / name
    for at in (3, len(MAGIC) + 2, HEADER_BYTES - 2, HEADER_BYTES + 5):
        times, data = path.stat(), bytearray(path.read_bytes())
        data[at] ^= 4
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert secrets_of(start(identity_dir)) == keys, at


def test_one_sealed_file_in_the_place_of_another_is_damage(
    hand: Handing, identity_dir: Path
) -> None:
    hand(KEY)
    keys = secrets_of(found(identity_dir, "barn", "pi1"))
    start(identity_dir)
    replace_private(identity_dir / "node.key", (identity_dir / "authority.key").read_bytes())
    assert secrets_of(start(identity_dir)) == keys


def test_what_a_cut_off_join_left_is_wiped(hand: Handing, identity_dir: Path) -> None:
    found(identity_dir, "barn", "pi1")
    left = identity_dir.with_name(".identity.joining-0123")
    left.mkdir()
    (left / "node.key").write_bytes((identity_dir / "node.key").read_bytes())
    other_name = identity_dir.with_name("seen")
    os.link(left / "node.key", other_name)
    hand(KEY)
    start(identity_dir)
    assert not left.exists()
    assert not other_name.read_bytes().strip(b"\0"), "the blocks themselves were overwritten"


def test_a_disk_that_refuses_leaves_it_in_clear_and_the_node_running(
    hand: Handing,
    identity_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = secrets_of(found(identity_dir, "barn", "pi1"))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    hand(KEY)
    with monkeypatch.context() as full:
        full.setattr("agent.files.private_files.write_private", refuse)
        assert secrets_of(start(identity_dir)) == before
    assert "not all sealed: [Errno 28]" in caplog.text
    assert set(FOUNDERS) <= set(in_clear(identity_dir))
    assert not [left for name in FOUNDERS for left in remains(identity_dir / name)]
    assert secrets_of(start(identity_dir)) == before
    assert in_clear(identity_dir) == []


# --- what is not ours -----------------------------------------------------------------------------


def authority_in_clear(who: Identity) -> bytes:
    """Return the next authority's file as a thief writes it, whose key it is."""
    key = Ed25519PrivateKey.generate()
    certificate = certificates.make_authority(key, who.cluster_id, who.cluster_name)
    return private_pem(key) + certificates.to_pem(certificate)


@pytest.mark.parametrize("place", ["authority.next", f"{DIRECTORY}/authority.next", "both"])
def test_a_next_authority_that_somebody_planted_is_refused(
    hand: Handing, identity_dir: Path, place: str
) -> None:
    """The founder would sign it in, and seal it."""
    hand(KEY)
    who = start(found(identity_dir, "barn", "pi1").directory)
    planted = authority_in_clear(who)
    if place != f"{DIRECTORY}/authority.next":
        who.next_authority_file.write_bytes(planted)
    if place != "authority.next":
        spares.place_of(who.next_authority_file).write_bytes(spares.with_digest(planted))
    before = everything_in(identity_dir)
    with pytest.raises(AgentError, match=r"authority\.next lies in clear beside") as caught:
        start(identity_dir)
    assert caught.value.status == exits.BAD_CONFIG
    assert everything_in(identity_dir) == before


def test_nor_where_what_is_sealed_last_was_damaged_as_well(
    hand: Handing, identity_dir: Path
) -> None:
    hand(KEY)
    who = start(found(identity_dir, "barn", "pi1").directory)
    who.next_authority_file.write_bytes(authority_in_clear(who))
    for path in (who.authority_key_file, who.key_file):
        path.write_bytes(b"in clear")
    with pytest.raises(AgentError, match=r"authority\.next"):
        start(identity_dir)


@pytest.mark.parametrize("spoilt", [(), ("node.key", "authority.key")], ids=["one", "many"])
def test_a_ring_that_somebody_planted_is_not_used(
    hand: Handing, identity_dir: Path, spoilt: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    hand(KEY)
    who = found(identity_dir, "barn", "pi1")
    keys = secrets_of(start(identity_dir))
    for place in (who.keyring_file, spares.place_of(who.keyring_file)):
        caplog.clear()
        planted = new_keyring()
        is_spare = place != who.keyring_file
        place.write_bytes(spares.with_digest(planted) if is_spare else planted)
        for name in spoilt:
            (identity_dir / name).write_bytes(b"in clear")
        assert secrets_of(start(identity_dir)) == keys
        assert in_clear(identity_dir) == []
        if not spoilt:
            assert (
                "keyring.json lies in clear beside sealed files (node.key, authority.key)"
                in caplog.text
            )


def test_another_key_in_clear_is_not_the_node_s(hand: Handing, identity_dir: Path) -> None:
    """Neither on the founder nor on a member, where no file is sealed after it."""
    hand(KEY)
    who = start(found(identity_dir, "barn", "pi1").directory)
    key = at_rest.read_secret(who.key_file)
    for _ in range(2):
        who.key_file.write_bytes(private_pem(Ed25519PrivateKey.generate()))
        start(identity_dir)
        assert at_rest.read_secret(who.key_file) == key
        for each in (who.authority_key_file, spares.place_of(who.authority_key_file)):
            each.unlink(missing_ok=True)


def test_a_whole_set_in_clear_is_another_identity(hand: Handing, identity_dir: Path) -> None:
    """A backup of before the seal, or what somebody moved in from her own agent."""
    hand(KEY)
    start(found(identity_dir, "barn", "pi1").directory)
    hand(None)
    other = found(identity_dir.with_name("other"), "barn", "pi2")
    keys = secrets_of(other)
    for path in other.directory.iterdir():
        (identity_dir / path.name).write_bytes(path.read_bytes())
    hand(KEY)
    assert secrets_of(start(identity_dir)) == keys
    assert in_clear(identity_dir) == []


def test_the_same_garbage_twice_is_told_and_not_sealed(hand: Handing, identity_dir: Path) -> None:
    hand(KEY)
    who = start(found(identity_dir, "barn", "pi1").directory)
    who.authority_key_file.write_bytes(b"garbage")
    spares.place_of(who.authority_key_file).write_bytes(spares.with_digest(b"garbage"))
    with pytest.raises(AgentError, match=r"authority\.key cannot be read, and there is no sound"):
        start(identity_dir)
    assert who.authority_key_file.read_bytes() == b"garbage"


# --- without the key ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOUNDERS)
def test_a_command_without_the_key_leaves_a_damaged_file_and_its_spare_alone(
    hand: Handing, identity_dir: Path, name: str
) -> None:
    """It cannot tell which of the two is sound, also where the damaged one is newer."""
    hand(KEY)
    keys = secrets_of(start(found(identity_dir, "barn", "pi1").directory))
    data = bytearray((identity_dir / name).read_bytes())
    for at in (-5, 3):
        data[at] ^= 1
        (identity_dir / name).write_bytes(data)
        hand(None)
        before = everything_in(identity_dir)
        load_mended(identity_dir)
        assert everything_in(identity_dir) == before
        hand(KEY)
        assert secrets_of(start(identity_dir)) == keys


@pytest.mark.parametrize("key", [None, OTHER], ids=["none", "another"])
def test_a_credential_that_is_taken_from_a_running_agent_puts_nothing_in_clear(
    hand: Handing, identity_dir: Path, key: bytes | None
) -> None:
    hand(KEY)
    who = start(found(identity_dir, "barn", "pi1").directory)
    before = everything_in(identity_dir)
    hand(key)
    for file in (who.keyring_file, who.next_authority_file):
        with pytest.raises(AgentError, match="is sealed with"):
            at_rest.replace_secret(file, b"secret")
    assert everything_in(identity_dir) == before


def test_what_a_start_could_not_seal_is_sealed_before_what_comes_after_it(
    hand: Handing, identity_dir: Path
) -> None:
    """Else the next start took it for somebody else's."""
    who = start(found(identity_dir, "barn", "pi1").directory)
    hand(KEY)
    at_rest.replace_secret(who.authority_key_file, at_rest.read_secret(who.authority_key_file))
    assert in_clear(identity_dir) == []
    assert start(identity_dir).keyring()


def test_what_cannot_be_wiped_keeps_nothing_else_from_it(hand: Handing, identity_dir: Path) -> None:
    """A symlink or a directory under the name by which clear bytes are overwritten."""
    who = start(found(identity_dir, "barn", "pi1").directory)
    elsewhere = identity_dir.with_name("elsewhere")
    elsewhere.write_bytes(b"mine")
    (identity_dir / ".keyring.json.clear").symlink_to(elsewhere)
    (identity_dir / ".node.key.clear").mkdir()
    (identity_dir / ".authority.key.0123abcd").write_bytes(who.authority_key_file.read_bytes())
    block = os.open(who.key_file, os.O_RDONLY)
    hand(KEY)
    start(identity_dir)
    assert not [left for name in SECRETS for left in remains(identity_dir / name)]
    assert elsewhere.read_bytes() == b"mine"
    assert not os.pread(block, 1024, 0).strip(b"\0"), "the clear bytes were overwritten"
    os.close(block)


# --- cut off in the middle ------------------------------------------------------------------------


def test_a_sealing_that_is_cut_off_at_any_step_is_finished_by_the_next_start(
    hand: Handing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step leaves a node without its keys, and the last one leaves no clear byte."""
    hand(None)
    made = tmp_path / "made" / "identity"
    keys = secrets_of(found(made, "barn", "pi1"))
    start(made)  # makes the spares
    steps = 0
    while True:
        hand(None)
        directory = tmp_path / str(steps) / "identity"
        shutil.copytree(made.parent, directory.parent)
        clear = {path: path.read_bytes() for path in directory.rglob("*") if path.name in SECRETS}
        blocks = [os.open(path, os.O_RDONLY) for path in clear]
        hand(KEY)
        power = Power(steps)
        with monkeypatch.context() as patched:
            for module, name in STEPS:
                patched.setattr(module, name, power.wrap(getattr(module, name)))
            with suppress(PowerCut):
                start(directory)
        who = start(directory)
        assert secrets_of(who) == keys, steps
        assert in_clear(directory) == [], steps
        assert not any(key in everything_in(directory) for key in keys), steps
        for block, data in zip(blocks, clear.values(), strict=True):
            assert os.pread(block, len(data), 0) == bytes(len(data)), (steps, "was overwritten")
            os.close(block)
        if not power.is_gone:
            break
        steps += 1
    assert steps > 6 * 6, "every step of three files and their spares was the last one once"


def test_the_certificate_is_for_the_key_that_was_sealed(hand: Handing, identity_dir: Path) -> None:
    hand(KEY)
    who = start(found(identity_dir, "barn", "pi1").directory)
    shown = ssl.PEM_cert_to_DER_cert(who.certificate_file.read_text())
    _, key = certificates.check_issued(shown, who.authority)
    assert read_private_key(who.key_file).public_key().public_bytes_raw() == key
