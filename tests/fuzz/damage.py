"""What flash does to files: flipped bits, pages of zeros or noise, files that end too early.

A store is filled, and copied as it lies on the disk: closed in order, or as a killed process leaves
it, with commits in its log. Each run damages one place of such a copy and opens it. Demanded is
that nothing raises, that what comes out is what went in, that only what was hit is gone, and that
what is gone is counted: here position by position.
"""

import asyncio
import inspect
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from agent.identity.identity import Peer
from agent.store.control import ControlStore
from agent.store.database import Database
from agent.store.errors import StorageError
from agent.store.kv_store import RecordStore
from agent.store.pages import FRAME_HEADER_BYTES, PAGE_BYTES, WAL_HEADER_BYTES
from agent.telemetry.outbox import Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from edge_apps.reading import Checked, Reading
from gossip.core.machine import Address
from gossip.kv.records import Record, Version
from gossip.kv.storage import DAMAGED, ClockChange, HoldingChange, MemoryStorage, RecordChange
from tests.support.readings import checked

NODE, BOOT = 0xC0FFEE, 1 << 32
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES
DELIVERED, LETTERS = 300, (310, 500)
PARTITIONS_HELD = 4
PATIENCE = 2000


class Files(NamedTuple):
    """Files of a store as they lie on the disk, by name."""

    content: dict[str, bytes]

    def lay_out(self, folder: Path) -> None:
        """Write them."""
        for name, data in self.content.items():
            (folder / name).write_bytes(data)


class Hit(NamedTuple):
    """What was damaged: which bytes of which file."""

    file: str
    first: int
    last: int
    what: str

    def pages(self) -> set[int]:
        """Return which pages of the file, or frames of the log, were hit; from 0."""
        head, size = self._form()
        if self.last < head:
            return set()
        return set(range(max(0, self.first - head) // size, (self.last - head) // size + 1))

    def images(self, files: Files) -> list[bytes]:
        """Return these pages, or frames, as they were before."""
        data = files.content[self.file]
        head, size = self._form()
        return [data[head + page * size : head + (page + 1) * size] for page in self.pages()]

    def _form(self) -> tuple[int, int]:
        """Return how long the file's head is, and each page or frame after it."""
        return (WAL_HEADER_BYTES, FRAME_BYTES) if self.file.endswith("-wal") else (0, PAGE_BYTES)


def damage(files: Files, rng: random.Random) -> tuple[Files, Hit]:
    """Return the files with one place damaged, and where."""
    content = {name: bytearray(data) for name, data in files.content.items()}
    name = rng.choice([name for name, data in sorted(content.items()) if data])
    data = content[name]
    at = rng.choice([rng.randrange(len(data)), rng.randrange(min(len(data), 120))])
    page = at // PAGE_BYTES * PAGE_BYTES
    end = min(page + PAGE_BYTES, len(data))
    match rng.randrange(7):
        case 0 | 1:
            data[at] ^= 1 << rng.randrange(8)
            hit = Hit(name, at, at, "bit")
        case 2:
            data[at] = (data[at] + rng.randrange(1, 256)) % 256
            hit = Hit(name, at, at, "byte")
        case 3:
            data[page:end] = bytes(end - page)
            hit = Hit(name, page, end - 1, "zeros")
        case 4:
            data[page:end] = rng.randbytes(end - page)
            hit = Hit(name, page, end - 1, "noise")
        case 5:
            hit = Hit(name, at, len(data) - 1, "cut")
            del data[at:]
        case _:
            hit = Hit(name, 0, len(data) - 1, "emptied")
            data.clear()
    return Files({name: bytes(data) for name, data in content.items()}), hit


def damaged(
    before: Files, rng: random.Random, check: Callable[[Path, Hit], Coroutine[Any, Any, None]]
) -> int:
    """Damage one place of a store, lay it out, and check it; a failure tells what was hit."""
    files, hit = damage(before, rng)
    with scratch() as folder:
        files.lay_out(folder)
        try:
            asyncio.run(check(folder, hit))
        except Exception as error:
            error.add_note(f"{hit} of {len(before.content[hit.file])} bytes")
            raise
    return 1


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder in memory, where there is one: nothing here is about syncing."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def files_of(folder: Path, name: str) -> Files:
    """Return a store's files but SQLite's index of the log, which a reboot does not keep."""
    found = (path for path in folder.iterdir() if path.name.startswith(name))
    return Files({path.name: path.read_bytes() for path in found if path.suffix != ".db-shm"})


# ---- the outbox ---------------------------------------------------------------------------------


class Filled(NamedTuple):
    """An outbox: its files, every reading by position, and which of them lie on which page."""

    files: Files
    readings: dict[int, Reading]
    ids: dict[int, str]


def readings(rng: random.Random, count: int) -> list[Checked]:
    """Return readings of all sizes, some longer than a page."""
    sizes = [rng.choice([4, 4, 4, 30, 200]) if rng.random() < 0.99 else 250 for _ in range(count)]
    return [
        checked(f"room/{n % 7}/x", "v" * size, "C", 10**18 + n, {"a": "é" * (n % 3)})
        for n, size in enumerate(sizes)
    ]


async def _filled(folder: Path, *, killed: bool) -> Filled:
    rng = random.Random(1)
    known: dict[int, Reading] = {}
    ids: dict[int, str] = {}
    database = await Database.open(folder / "telemetry.db", OUTBOX_MIGRATIONS)
    for life in range(3):
        outbox = await Outbox.open(database, NODE, BOOT * (life + 1))
        for size in (1, 400, 7, 60):
            fresh = readings(rng, size)
            first = outbox._last + 1
            await outbox.accept(fresh)
            known |= dict(enumerate(fresh, first))
            ids |= {at: outbox.id_of(at) for at in range(first, first + size)}
            if killed and life == 1 and size == 400:
                # Some of the log is in the file already, as it is most of the time.
                await database.write(lambda _: None)
                await _checkpoint(database)
        if life == 1:
            outbox.delivered(range(1, DELIVERED + 1))
            for position in LETTERS:
                await outbox.dead_letter(position, "refused")
        await outbox.close()
    if not killed:
        await database.close()
    files = files_of(folder, "telemetry.db")
    await database.close()
    return Filled(files, known, ids)


async def _checkpoint(database: Database) -> None:
    thread = database._thread
    pragma = "PRAGMA wal_checkpoint(PASSIVE)"
    await asyncio.wrap_future(thread.submit(lambda: database._writer.execute(pragma).fetchall()))


@cache
def filled_outbox(*, killed: bool) -> Filled:
    """Return a filled outbox, made once."""
    with scratch() as folder:
        return asyncio.run(_filled(folder, killed=killed))


def damage_outbox(seed: int) -> int:
    """Damage an outbox in one place, drain it, and account for every reading."""
    rng = random.Random(seed)
    before = filled_outbox(killed=rng.random() < 0.6)
    return damaged(before.files, rng, lambda folder, hit: _check_outbox(folder, before, hit))


async def _check_outbox(folder: Path, before: Filled, hit: Hit) -> None:
    drained: dict[int, Reading] = {}
    database = await Database.open(folder / "telemetry.db", OUTBOX_MIGRATIONS)
    try:
        outbox = await Outbox.open(database, NODE, BOOT * 9)
        for accepted in await _drain(outbox):
            drained[accepted.position] = accepted.reading
        await _read_through(partial(outbox.recent, limit=10_000))
        await _read_through(outbox.dead_letters)
        await outbox.accept([checked("new", 1)])
        assert [each.reading.value for each in await _drain(outbox)] == [1]
        assert not database.problem, database.problem
        losses = await _read_through(outbox.losses)
        lost = {at for first, last in losses for at in range(first, last + 1)}
        stats = outbox.stats()
        assert stats.lost == len(lost), f"{stats.lost} are counted, {len(lost)} listed"
        assert stats.waiting == 0
        await outbox.close()
    finally:
        await database.close()
    _account(before, hit, drained, lost)
    await _check_again(folder, len(lost))


async def _read_through(read: Callable[[], Any]) -> Any:
    """Read; what is refused while a damaged file is replaced is asked for again."""
    for _ in range(PATIENCE):
        try:
            found = read()
            return await found if inspect.isawaitable(found) else found
        except StorageError:
            await asyncio.sleep(0.005)
    raise AssertionError("it cannot be read at all")


async def _drain(outbox: Outbox) -> list[Any]:
    """Take out all that waits, as the uplink does; it comes in order."""
    found: list[Any] = []
    after = 0
    for _ in range(PATIENCE):
        batch = outbox.batch(100, after)
        found += batch
        if batch:
            after = batch[-1].position
            outbox.delivered([each.position for each in batch])
        elif not outbox.waiting:
            return found
        else:
            await asyncio.sleep(0.005)
    raise AssertionError(f"{outbox.waiting} readings wait for ever")


def _account(before: Filled, hit: Hit, drained: dict[int, Reading], lost: set[int]) -> None:
    wrong = [at for at, reading in drained.items() if reading != before.readings.get(at)]
    assert not wrong, f"other readings than were accepted: {wrong[:5]}"
    due = {at for at in before.readings if at > DELIVERED} - set(LETTERS)
    missing = due - set(drained) - lost
    assert not missing, f"{len(missing)} are gone and not counted: {sorted(missing)[:5]}"
    assert not lost & set(drained), "delivered, and counted as lost"
    entitled = _on_hit_pages(before, hit)
    spared = lost - entitled
    assert not spared, f"{len(spared)} are lost and were not hit: {sorted(spared)[:5]}"


def _on_hit_pages(before: Filled, hit: Hit) -> set[int]:
    """Return the readings of which a byte may lie on a page that was hit."""
    if hit.file.endswith(".tail"):
        return set()
    images = hit.images(before.files)
    times = {at: struct.pack(">q", reading.time_ns) for at, reading in before.readings.items()}
    return {at for at, time in times.items() if any(time in image for image in images)}


async def _check_again(folder: Path, lost: int) -> None:
    """What was lost once is not lost again."""
    database = await Database.open(folder / "telemetry.db", OUTBOX_MIGRATIONS)
    outbox = await Outbox.open(database, NODE, BOOT * 10)
    assert not database.losses, database.losses
    assert outbox.stats().lost == lost
    await database.close()


# ---- the state plane ----------------------------------------------------------------------------


class Kept(NamedTuple):
    """A state plane's store: its files, what it holds, and all that each key ever was."""

    files: Files
    memory: MemoryStorage
    history: dict[str, list[Record]]


async def _kept(folder: Path, *, killed: bool) -> Kept:
    rng = random.Random(2)
    memory = MemoryStorage()
    history: dict[str, list[Record]] = {}
    records = await RecordStore.open(folder / "data.db")
    for turn in range(60):
        batch = [_change(rng) for _ in range(rng.randrange(1, 12))]
        for change in batch:
            if isinstance(change, RecordChange) and change.record is not None:
                history.setdefault(change.key, []).append(change.record)
        await records.save(batch)
        memory.apply(batch)
        if turn == 40:
            await _checkpoint(records.database)
    if not killed:
        await records.close()
    files = files_of(folder, "data.db")
    await records.close()
    return Kept(files, memory, history)


def _change(rng: random.Random) -> object:
    """Return a change; a key lies in one partition, as it does in life."""
    number = rng.randrange(200)
    partition, key = number % PARTITIONS_HELD, f"key/{number:03d}"
    match rng.randrange(10):
        case 0:
            return HoldingChange(partition, rng.randrange(1, 9))
        case 1 | 2:
            return ClockChange(partition, rng.getrandbits(64), ((1, rng.randrange(1, 99)),))
        case 3:
            return RecordChange(partition, key, None)
        case _:
            value = rng.randbytes(rng.choice([5, 50, 500, 9000]))
            version = Version(rng.getrandbits(64), rng.randrange(1, 99), 2**63, value)
            return RecordChange(partition, key, Record((version,), ((version.actor, version.n),)))


@cache
def kept_records(*, killed: bool) -> Kept:
    """Return a store of the state plane, made once."""
    with scratch() as folder:
        return asyncio.run(_kept(folder, killed=killed))


def damage_records(seed: int) -> int:
    """Damage a store of the state plane: nothing wrong comes out, and what is gone is told."""
    rng = random.Random(seed)
    before = kept_records(killed=rng.random() < 0.6)
    return damaged(before.files, rng, lambda folder, hit: _check_records(folder, before, hit))


async def _check_records(folder: Path, before: Kept, hit: Hit) -> None:
    for again in range(2):
        records = await RecordStore.open(folder / "data.db")
        found = {p: dict(records.scan(p, "", "", 1000)) for p in range(PARTITIONS_HELD)}
        clocks = {p: records.clock(p) for p in range(PARTITIONS_HELD)}
        digests = [records.digest(p) for p in range(PARTITIONS_HELD)]
        holdings = records.holdings()
        await records.save([RecordChange(0, "new", None)])
        assert bool(records.database.losses) == (again == 0 and DAMAGED in holdings.values())
        await records.close()
        if DAMAGED in holdings.values():
            assert set(holdings.values()) == {DAMAGED}
            assert not any(clocks.values()), "a clock without its records deletes them elsewhere"
            _account_for_records(before, hit, found)
        else:
            memory = before.memory
            assert holdings == memory.holdings()
            for partition in range(PARTITIONS_HELD):
                assert clocks[partition] == memory.clock(partition)
                assert digests[partition] == memory.digest(partition)
                assert found[partition] == memory.records.get(partition, {})


def _account_for_records(before: Kept, hit: Hit, found: dict[int, dict[str, Record]]) -> None:
    """Only what was hit is gone. What is there is true, and new unless its newest page was hit."""
    images = hit.images(before.files)
    for partition in range(PARTITIONS_HELD):
        kept = before.memory.records.get(partition, {})
        for key in kept.keys() - found[partition].keys():
            was_hit = any(_lies_on(image, key, kept[key]) for image in images)
            assert was_hit, f"{key} is gone and was not hit"
        for key, record in found[partition].items():
            if hit.file.endswith("-wal"):
                assert record in before.history[key]
            else:
                assert record == kept.get(key), f"{key} is not what it was"


def _lies_on(image: bytes, key: str, record: Record) -> bool:
    """Tell whether a page has the beginning of a record, or some of the rest of a long one."""
    values = [version.value for version in record.live]
    parts = (value[at : at + 20] for value in values for at in range(0, len(value), 200))
    return key.encode() in image or any(part in image for part in parts)


# ---- what a node must not lose ------------------------------------------------------------------

STARTS, CLUSTER = 7, bytes(range(16))
REGISTRY = (9, b"signed" * 100)


async def _controlled(folder: Path, *, killed: bool) -> Files:
    store = await ControlStore.open(folder / "control.db", CLUSTER, NODE)
    for _ in range(STARTS):
        await store.count_start()
    for epoch in range(1, REGISTRY[0] + 1):
        await store.save_registry(epoch, REGISTRY[1])
    await store.save_peers(
        Peer(n, f"peer-{n}", (Address("10.0.0.1", n),), 1e9 + n) for n in range(1, 300)
    )
    await store.save_facts({"place": "attic"})
    if killed:
        await store._copy._copy()
    else:
        await store.close()
    files = files_of(folder, "control.db")
    await store.close()
    return files


@cache
def control_files(*, killed: bool) -> Files:
    """Return a ``control.db`` with its copy, made once."""
    with scratch() as folder:
        return asyncio.run(_controlled(folder, killed=killed))


def damage_control(seed: int) -> int:
    """Damage ``control.db`` or its copy: one of the two has what nobody else knows."""
    rng = random.Random(seed)
    before = control_files(killed=rng.random() < 0.6)
    return damaged(before, rng, lambda folder, _: _check_control(folder))


async def _check_control(folder: Path) -> None:
    starts = STARTS
    for _ in range(2):
        store = await ControlStore.open(folder / "control.db", CLUSTER, NODE)
        assert store.registry() == REGISTRY, f"epoch {store.registry()}"
        assert store.facts() == {"place": "attic"}, "the owner's facts are others"
        assert len(store.peers()) == 299, "peers are missing"
        again = await store.count_start()
        assert again > starts, "two starts with one number"
        starts = again
        assert not store.database.problem
        await store.close()
