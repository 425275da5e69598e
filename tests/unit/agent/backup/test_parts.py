"""A backup as a file: whatever happens to it is noticed, and what is readable is read."""

from pathlib import Path

import pytest

from agent.backup import backup_seal, contents
from agent.backup.backup_seal import KEY_FILE, PASSPHRASE, BackupKey, SealTerms, WrongKey, key_of
from agent.backup.contents import Contents, agreed_state, look_through, pages
from agent.backup.key_pages import VERSION_FIELDS, SavedKey, SavedPage, encode_page
from agent.backup.parts import (
    AGREED,
    KEYS,
    MARK,
    REGISTRY,
    BackupFile,
    BackupHeader,
    UnfinishedBackup,
    write_header,
)
from agent.exits import AgentError
from gossip.kv.records import Version
from tests.fuzz.hostile import bit_flips, truncations

ID = bytes(range(16)).hex()
HEADER = BackupHeader(ID, "49ae", "farm", "2026-11-30T02:22:18+00:00")
TERMS = SealTerms(KEY_FILE, bytes(16))
SECRET = bytes(range(32))
AGREED_STATE = b"covey-snapshot 1 ..."


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_seal, "SCRYPT_N", 16)


def page(*names: str) -> bytes:
    keys = tuple(SavedKey(name, (Version(1, 1, 5, MARK + name.encode()),)) for name in names)
    return encode_page(SavedPage(VERSION_FIELDS, keys))


def made(
    path: Path, header: BackupHeader = HEADER, key: BackupKey | None = None, *, ended: bool = True
) -> Path:
    with path.open("wb") as file:
        write_header(file, header)
        writer = UnfinishedBackup(file, header, key)
        writer.write(REGISTRY, b"{}")
        writer.write(AGREED, AGREED_STATE[:7])
        writer.write(AGREED, AGREED_STATE[7:])
        for names in (("a", "b"), ("c", "d"), ("e", "f")):
            writer.write(KEYS, page(*names))
        if ended:
            writer.end(6, 6, "2026-11-30T02:22:20+00:00", is_whole=True)
    return path


def look(path: Path, key: BackupKey | None = None) -> Contents:
    with BackupFile(path) as reader:
        return look_through(reader, key)


def is_intact(path: Path) -> bool:
    try:
        return look(path).is_intact
    except AgentError:
        return False


def names_in(path: Path) -> list[str]:
    with BackupFile(path) as reader:
        return [each.key for saved, _ in pages(reader, None) for each in saved.keys]


def test_what_was_saved_is_all_there(tmp_path: Path) -> None:
    path = made(tmp_path / "b")
    found = look(path)
    assert found.is_whole
    assert (found.keys, found.versions, found.parts) == (6, 6, 7)
    assert names_in(path) == list("abcdef")
    with BackupFile(path) as reader:
        assert reader.header == HEADER
        assert agreed_state(reader, None) == AGREED_STATE


def test_every_truncation_and_every_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with path.open("wb") as file:
        write_header(file, HEADER)
        writer = UnfinishedBackup(file, HEADER, None)
        writer.write(KEYS, page("a"))
        writer.end(1, 1, "", is_whole=True)
    data, spoiled = path.read_bytes(), tmp_path / "spoiled"
    for bad in (*truncations(data), *list(bit_flips(data))[::9]):
        spoiled.write_bytes(bad)
        assert not is_intact(spoiled)


def test_a_damaged_part_costs_itself_alone_and_is_told_by_its_keys(tmp_path: Path) -> None:
    path = made(tmp_path / "b")
    with BackupFile(path) as reader:
        parts = list(reader.read())
    data = bytearray(path.read_bytes())
    for offset in (0, 9, 13, 40):  # mark, number, size, body of the page of c and d
        spoiled = bytearray(data)
        spoiled[parts[4].start + offset] ^= 0x10
        path.write_bytes(spoiled)
        [hole] = look(path).holes
        assert (hole.after, hole.before) == ("b", "e")
        assert (hole.start, hole.end) == (parts[4].start, parts[4].end)
        assert names_in(path) == ["a", "b", "e", "f"]
    path.write_bytes(data[: parts[4].start] + data[parts[4].end :])
    assert not look(path).is_intact, "a part that was cut out is missed"
    path.write_bytes(data[: parts[6].start])
    cut = look(path)
    assert (cut.is_intact, cut.holes, cut.keys) == (False, [], 6)


def test_parts_in_another_order_or_twice_or_of_another_backup_do_not_pass(tmp_path: Path) -> None:
    path = made(tmp_path / "b")
    with BackupFile(path) as reader:
        parts = list(reader.read())
    data = path.read_bytes()
    one, two = (data[parts[n].start : parts[n].end] for n in (3, 4))
    head, rest = data[: parts[3].start], data[parts[5].start :]
    for bad in (head + two + one + rest, head + one + one + rest, head + one + two + two + rest):
        path.write_bytes(bad)
        assert not look(path).is_intact
    other = made(tmp_path / "other", BackupHeader(bytes(16).hex(), "49ae", "farm", ""))
    with BackupFile(other) as reader:
        foreign = list(reader.read())[4]
    path.write_bytes(head + one + other.read_bytes()[foreign.start : foreign.end] + rest)
    assert [hole.after for hole in look(path).holes] == ["b"]


@pytest.mark.parametrize("by", [KEY_FILE, PASSPHRASE])
def test_a_sealed_one_shows_nothing_and_is_verified_without_its_secret(
    tmp_path: Path, by: str
) -> None:
    terms = SealTerms(by, bytes(16))
    header = BackupHeader(ID, "49ae", "farm", "", terms)
    key = key_of(terms, SECRET)
    path = made(tmp_path / "b", header, key)
    assert look(path, key).is_whole
    unopened = look(path)
    assert (unopened.holes, unopened.is_in_order, unopened.keys) == ([], True, 0)
    with pytest.raises(WrongKey, match="nothing was changed"):
        look(path, key_of(terms, SECRET[::-1]))
    assert unopened.has_end
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    assert look(path).holes


def test_a_sealed_one_that_is_cut_between_two_parts_is_noticed_without_its_secret(
    tmp_path: Path,
) -> None:
    path = made(tmp_path / "b", BackupHeader(ID, "49ae", "farm", "", TERMS), key_of(TERMS, SECRET))
    with BackupFile(path) as reader:
        parts = list(reader.read())
    data = path.read_bytes()
    for last in parts[:-1]:
        path.write_bytes(data[: last.end])
        cut = look(path)
        assert (cut.holes, cut.is_in_order, cut.has_end) == ([], True, False)
    path.write_bytes(data[: parts[5].start] + data[parts[5].end :])
    assert not look(path).is_in_order, "the page before the end was cut out"


def test_one_seal_differs_from_the_next(tmp_path: Path) -> None:
    header = BackupHeader(ID, "49ae", "farm", "", TERMS)
    key = key_of(TERMS, SECRET)
    some, others = (made(tmp_path / name, header, key).read_bytes() for name in "ab")
    assert some != others


def test_a_part_of_a_kind_to_come_is_told_of_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with path.open("wb") as file:
        write_header(file, HEADER)
        writer = UnfinishedBackup(file, HEADER, None)
        writer.write(77, b"blocks")
        writer.write(KEYS, page("a"))
        writer.end(1, 1, "", is_whole=True)
    found = look(path)
    assert found.is_whole
    assert found.unknown_kinds == {77}
    assert names_in(path) == ["a"]


def test_keys_with_fields_to_come_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with path.open("wb") as file:
        write_header(file, HEADER)
        writer = UnfinishedBackup(file, HEADER, None)
        saved = SavedKey("a", (Version(1, 1, 5, b"x"),))
        writer.write(KEYS, encode_page(SavedPage(VERSION_FIELDS + 1, (saved,))))
    with pytest.raises(AgentError, match="fields that this version does not know"):
        look(path)


@pytest.mark.parametrize("foreign", [b"", b"SQLite format 3\x00", b"\n\n", b"{}", bytes(10_000)])
def test_what_is_no_backup_is_called_so(tmp_path: Path, foreign: bytes) -> None:
    (tmp_path / "b").write_bytes(foreign)
    with pytest.raises(AgentError, match="no backup"):
        look(tmp_path / "b")


def test_a_later_version_says_so(tmp_path: Path) -> None:
    path = made(tmp_path / "b")
    path.write_bytes(path.read_bytes().replace(b"covey-backup 1", b"covey-backup 2"))
    with pytest.raises(AgentError, match="later version"):
        look(path)


def test_what_says_that_more_was_agreed_on_than_ever_is_fills_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / "x")
    monkeypatch.setattr(contents, "AGREED_BYTES_MAX", len(AGREED_STATE))
    with BackupFile(path) as reader:
        assert agreed_state(reader, None) == AGREED_STATE
        monkeypatch.setattr(contents, "AGREED_BYTES_MAX", len(AGREED_STATE) - 1)
        with pytest.raises(AgentError, match="nothing was changed"):
            agreed_state(reader, None)
