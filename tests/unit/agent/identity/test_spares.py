"""Damaged files of an identity come back from their spares; replaced ones are left alone."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.apps.desired import DesiredApps
from agent.exits import BAD_CONFIG, AgentError
from agent.files.private_files import replace_private
from agent.identity.identity import Identity, found
from agent.identity.repair import FILES, load_mended
from agent.identity.spares import DIRECTORY, read_spare, replace_with_spare
from gossip.registry import registry as registries
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import SignedRegistry

Contents = dict[str, bytes]
Change = Callable[[bytes], bytes]

MADE = [name for name in FILES if name != "authority.next"]
"""What a founder has; the other is there during a roll-over alone."""


@pytest.fixture
def founded(tmp_path: Path) -> Identity:
    """Give an identity whose agent has started once."""
    found(tmp_path / "identity", "barn", "pi1")
    return load_mended(tmp_path / "identity")


def contents(directory: Path) -> Contents:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def spoil(path: Path, change: Change) -> None:
    """Change a file as the disk does: nobody wrote it, so its time stays."""
    times = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flip(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[random.Random(len(data)).randrange(len(data))] ^= 4
    return bytes(changed)


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def test_every_file_has_a_spare_and_all_of_it_is_private(founded: Identity) -> None:
    before = contents(founded.directory)
    assert before.keys() == set(MADE)
    assert all(read_spare(founded.directory / name) == data for name, data in before.items())
    spare = founded.directory / DIRECTORY
    assert spare.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in spare.iterdir()} == {0o600}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize(
    "change",
    [flip, zeros, lambda _: b"", lambda data: data[: len(data) // 2]],
    ids=["bit", "zeros", "empty", "cut"],
)
def test_a_damaged_file_is_restored(
    founded: Identity, name: str, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(founded.directory)
    spoil(founded.directory / name, change)
    again = load_mended(founded.directory)
    assert contents(founded.directory) == before
    assert (again.node_id, again.node_name) == (founded.node_id, founded.node_name)
    assert f"{name} was damaged" in caplog.text


def other_bit(path: Path) -> bytes:
    """Flip a bit that leaves all of it readable."""
    data = bytearray(path.read_bytes())
    at = data.index(b"barn") if path.name == "registry" and b"barn" in data else len(data) // 2
    data[at] ^= 1
    return bytes(data)


@pytest.mark.parametrize("name", ["registry", "authority.key"])
def test_what_can_be_read_and_proves_wrong_is_damaged(
    founded: Identity, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the file is newer than its spare, as in a copy that a worn card was saved by."""
    before = contents(founded.directory)
    path = founded.directory / name
    path.write_bytes(other_bit(path))
    load_mended(founded.directory)
    assert contents(founded.directory) == before
    assert f"{name} was damaged" in caplog.text


@pytest.mark.parametrize("name", ["registry", "authority.key"])
def test_without_a_spare_it_is_named(tmp_path: Path, name: str) -> None:
    path = found(tmp_path / "identity", "barn", "pi1").directory / name
    path.write_bytes(other_bit(path))
    with pytest.raises(
        AgentError, match=f"{name} cannot be read, and there is no sound spare"
    ) as caught:
        load_mended(tmp_path / "identity")
    assert caught.value.status == BAD_CONFIG


def test_missing_files_are_restored(founded: Identity) -> None:
    before = contents(founded.directory)
    for name in before:
        (founded.directory / name).unlink()
    load_mended(founded.directory)
    assert contents(founded.directory) == before


def test_damaged_spares_are_made_again(founded: Identity) -> None:
    for path in (founded.directory / DIRECTORY).iterdir():
        spoil(path, flip)
    assert all(read_spare(founded.directory / name) is None for name in MADE)
    load_mended(founded.directory)
    assert all(read_spare(founded.directory / name) is not None for name in MADE)


def test_a_file_that_is_damaged_twice_is_named(founded: Identity) -> None:
    for directory in (founded.directory, founded.directory / DIRECTORY):
        spoil(directory / "node.key", zeros)
    with pytest.raises(AgentError, match=r"node\.key cannot be read, and there is no") as caught:
        load_mended(founded.directory)
    assert caught.value.status == BAD_CONFIG
    assert "backup" in (caught.value.hint or "")


def test_a_file_that_somebody_replaced_stays_and_becomes_the_spare(founded: Identity) -> None:
    registry = founded.directory / "registry"
    payload = registries.admit(
        registries.open_registry(founded.first_registry(), founded.verify), RegisteredNode(7, "pi2")
    ).encode()
    fresh = SignedRegistry(payload, founded.sign(payload)).encode()
    replace_private(registry, fresh)
    load_mended(founded.directory)
    assert registry.read_bytes() == fresh == read_spare(registry)


def test_another_identity_in_its_place_is_not_undone(founded: Identity) -> None:
    """Restored with old times, as ``cp -a`` does."""
    other = found(founded.directory.parent / "other", "barn", "pi2")
    for name, data in contents(other.directory).items():
        (founded.directory / name).write_bytes(data)
        os.utime(founded.directory / name, (1e9, 1e9))
    for _ in range(2):
        assert load_mended(founded.directory).node_name == "pi2"
        assert contents(founded.directory) == contents(other.directory)


def test_a_disk_that_takes_no_spare_is_no_reason_not_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(tmp_path / "identity", "barn", "pi1")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.identity.spares.replace_wiping", refuse)
    assert load_mended(tmp_path / "identity").node_name == "pi1"
    (tmp_path / "identity" / "node.key").write_bytes(b"")
    with pytest.raises(AgentError, match="no sound spare"):
        load_mended(tmp_path / "identity")


def test_what_is_replaced_has_its_spare_at_once(founded: Identity) -> None:
    replace_with_spare(founded.keyring_file, b"new")
    assert read_spare(founded.keyring_file) == founded.keyring_file.read_bytes() == b"new"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 20, b"[]"])
def test_wishes_about_apps_come_back_from_their_spare(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "apps.json"
    DesiredApps(path).wish("system", runs=False)
    path.write_bytes(content)
    assert not DesiredApps(path).runs("system", enabled=True)
    (tmp_path / DIRECTORY / "apps.json").write_bytes(b"")
    assert DesiredApps(path).runs("system", enabled=True)
