"""What flash does to the log that voters agree on: all of it is there, or all of it is given up.

A voter that went on with a part would vote a second time, or deny what it has acknowledged.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.consensus_store import ConsensusStore
from agent.store.control import ControlStore
from gossip.consensus.configuration import Configuration, Voter
from gossip.consensus.messages import Entry, EntryKind
from gossip.consensus.storage import (
    AppendChange,
    CompactChange,
    HardState,
    MemoryLog,
    SnapshotChange,
    arrival,
    mark_of,
)
from tests.fuzz.damage import CLUSTER, NODE, Files, damaged, files_of, scratch


class Agreed(NamedTuple):
    """A ``consensus.db``, and the log that it has."""

    files: Files
    log: MemoryLog


def _log_changes() -> list[list[object]]:
    """Return batches that leave entries, a snapshot, and one that is arriving."""
    now = Configuration((Voter(5, NODE),))
    data, later = bytes(range(200)) * 60, bytes(5000)
    mark = mark_of(data, 40, 1, (1, now), chunk_bytes=4000)
    coming = mark_of(later, 60, 2, (1, now), chunk_bytes=4000)
    entries = [
        Entry(number, 1 + number // 50, EntryKind.COMMAND, bytes([number]) * (number * 7 % 300))
        for number in range(1, 91)
    ]
    appends: list[list[object]] = [
        [AppendChange(tuple(entries[at : at + 3]))] for at in range(0, 90, 3)
    ]
    return [
        [HardState(1, 3, 5)],
        *appends,
        [*arrival(mark, data), SnapshotChange(mark), CompactChange(20)],
        [*arrival(coming, later)[:2]],
    ]


async def _agreed(folder: Path, *, killed: bool) -> Agreed:
    memory = MemoryLog()
    async with _log_in(folder) as store:
        for batch in _log_changes():
            memory.apply(batch)
            await store.save(batch)
        if killed:
            return Agreed(files_of(folder, "consensus.db"), memory)
    return Agreed(files_of(folder, "consensus.db"), memory)


@asynccontextmanager
async def _log_in(folder: Path) -> AsyncIterator[ConsensusStore]:
    control = await ControlStore.open(folder / "control.db", CLUSTER, NODE)
    mark = CleanShutdownMark(folder / "running")
    store = await ConsensusStore.open(folder / "consensus.db", mark, control)
    try:
        yield store
    finally:
        await store.close()
        await control.close()


@cache
def agreed_log(*, killed: bool) -> Agreed:
    """Return a ``consensus.db`` that was closed in order or not, made once."""
    with scratch() as folder:
        return asyncio.run(_agreed(folder, killed=killed))


def damage_consensus(seed: int) -> int:
    """Damage ``consensus.db``: all of it is there, or it is given up as a whole."""
    rng = random.Random(seed)
    before = agreed_log(killed=rng.random() < 0.6)
    return damaged(before.files, rng, lambda folder, _: _check_log(folder, before.log))


async def _check_log(folder: Path, expected: MemoryLog) -> None:
    async with _log_in(folder) as store:
        state, name = store.take(), store.store
        kept = expected if store.damage is None else MemoryLog()
        kept_aside = await asyncio.to_thread((folder / "consensus.db.damaged-1").exists)
        assert store.damage is None or kept_aside
        same = kept.stored()
        assert state.entries == same.entries, "entries are others"
        assert (state.hard, state.snapshot) == (same.hard, same.snapshot), "promises are others"
        assert (state.arriving, state.arrived) == (same.arriving, same.arrived)
        for mark, count in ((same.snapshot, None), (same.arriving, same.arrived)):
            for number in range(0 if mark is None else mark.chunks if count is None else count):
                assert mark is not None
                assert store.chunk(mark, number) == kept.chunk(mark, number), "chunks are others"
        await store.save([HardState(1, 4, name)])
    async with _log_in(folder) as store:
        assert store.damage is None, "it is said once"
        assert (store.store, store.take().hard) == (name, HardState(1, 4, name))
