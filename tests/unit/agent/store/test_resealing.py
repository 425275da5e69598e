"""Sealing values at rest: begun, turned to another key, and taken back, on a store that is used."""

import asyncio
import os
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agent.config.settings import StorageSettings
from agent.exits import AgentError
from agent.store import resealing
from agent.store.errors import StorageError
from agent.store.key_note import KeyNote
from agent.store.kv_store import RecordStore
from agent.store.resealing import open_records, reseal_all
from agent.store.value_keys import value_seal
from agent.store.value_seal import KeyMissing, ValueSeal
from gossip.kv.records import Record, Version
from gossip.kv.storage import RecordChange

RECORDS = {
    f"k{n:03}": Record((Version(n + 1, 1, 7, b"secret %d" % n),), ((n + 1, 1),)) for n in range(250)
}
OFF = StorageSettings()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resealing, "PAUSE_S", 0.0)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def key_file(path: Path) -> str:
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    return str(path)


def run(path: Path, settings: StorageSettings, change: dict[str, Record] | None = None) -> None:
    """Open the store as an agent does, look at all there is, and write what is given."""

    async def scenario() -> None:
        async with AsyncExitStack() as opened:
            records = await open_records(path, settings, opened)
            if change:
                await records.save([RecordChange(3, *each) for each in change.items()])
            assert dict(records.scan(3, "", "", 999)) == RECORDS
            assert records.load(3, "k007") == RECORDS["k007"]

    asyncio.run(scenario())


def finish(path: Path, settings: StorageSettings) -> int:
    """Do what the task in the background does; return how many rows were written anew."""
    counts: Counter[str] = Counter()

    async def scenario() -> None:
        seal, note = value_seal(settings), KeyNote(path)
        if not note.begin(seal):
            return
        records = await RecordStore.open(path, seal)
        await reseal_all(records, note, counts)
        await records.close()

    asyncio.run(scenario())
    return counts["values_resealed/written"]


def shows(path: Path) -> bool:
    """Say whether a value can be read in the file, or in its log."""
    return any(b"secret 1" in each.read_bytes() for each in path.parent.glob("data.db*"))


def test_a_file_that_was_sealed_from_the_first_shows_no_value_and_shows_names(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data.db"
    sealed = StorageSettings(encryption="on", key_file=key_file(tmp_path / "key"))
    run(path, sealed, RECORDS)
    run(path, sealed)
    assert finish(path, sealed) == 0
    assert not shows(path)
    assert b"k007" in path.read_bytes(), "names are not hidden, and the documents say so"


def test_on_then_another_key_then_off_and_each_time_all_is_there(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    first, second = key_file(tmp_path / "first"), key_file(tmp_path / "second")
    run(path, OFF, RECORDS)
    assert KeyNote(path).describe() == ([], True)
    on = StorageSettings(encryption="on", key_file=first)
    run(path, on)
    ids, _ = KeyNote(path).describe()
    assert len(ids) == 1
    finish(path, on)
    assert KeyNote(path).describe() == (ids, True)
    turned = StorageSettings(encryption="on", key_file=second, former_key_files=[first])
    run(path, turned)
    assert finish(path, turned) <= 250
    alone = StorageSettings(encryption="on", key_file=second)
    run(path, alone)
    off = StorageSettings(key_file=second)
    run(path, off)
    finish(path, off)
    run(path, OFF)
    assert KeyNote(path).describe() == ([], True)


def test_without_its_key_nothing_is_touched_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    mine, other = key_file(tmp_path / "mine"), key_file(tmp_path / "other")
    run(path, StorageSettings(encryption="on", key_file=mine), RECORDS)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    for lost in (OFF, StorageSettings(encryption="on", key_file=other)):
        with pytest.raises(KeyMissing, match="nothing was changed"):
            run(path, lost)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before
    run(path, StorageSettings(encryption="on", key_file=mine))


def test_a_note_that_was_removed_hides_no_lost_key(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    run(path, StorageSettings(encryption="on", key_file=key_file(tmp_path / "k")), RECORDS)
    (tmp_path / "data.db.keys").unlink()
    with pytest.raises(KeyMissing):
        run(path, OFF)


def test_a_sealed_value_in_the_place_of_another_is_damage(tmp_path: Path) -> None:
    async def scenario() -> None:
        records = await RecordStore.open(tmp_path / "data.db", ValueSeal(bytes(32)))
        await records.save([RecordChange(3, *each) for each in RECORDS.items()])
        [[sealed]] = records._rows("SELECT record FROM records WHERE key = 'k001'")
        [[mark]] = records._rows("SELECT mark FROM records WHERE key = 'k002'")
        from agent.store.kv_store import RECORDS as TABLE

        row = TABLE.sealed(3, "k002", mark, sealed, None)
        await records.database.write(
            lambda c: c.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", row)
        )
        with pytest.raises(StorageError, match="does not fit its seal"):
            records.load(3, "k002")
        await records.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("size", "mode", "says"), [(31, 0o600, "31 bytes"), (32, 0o644, "everybody")]
)
def test_a_key_that_is_short_or_open_to_all_is_refused(
    tmp_path: Path, size: int, mode: int, says: str
) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(size))
    key.chmod(mode)
    with pytest.raises(AgentError, match=says):
        value_seal(StorageSettings(encryption="on", key_file=str(key)))


def test_on_without_any_key_is_refused_and_a_seal_of_systemds_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = StorageSettings(encryption="on")
    with pytest.raises(AgentError, match="there is no key"):
        value_seal(on)
    (tmp_path / "covey.seal").write_bytes(bytes(range(32)))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert value_seal(on).key_id
    assert value_seal(OFF).known, "what it has sealed opens when it is turned off"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": ["xy"], "all": ""}', '{"keys": 7}'])
def test_a_note_that_cannot_be_read_names_no_key_and_is_written_anew(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "data.db"
    on = StorageSettings(encryption="on", key_file=key_file(tmp_path / "k"))
    run(path, on, RECORDS)
    (tmp_path / "data.db.keys").write_text(text)
    assert KeyNote(path).describe() == ([], False)
    assert finish(path, on) == 0
    ids, all_alike = KeyNote(path).describe()
    assert len(ids) == 1
    assert all_alike
