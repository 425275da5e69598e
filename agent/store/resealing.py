"""Opens the shared keys, and has values of before written as the configuration asks now.

A value is sealed, or put in clear, when it is written next, which for most is never. So where the
key or the wish has changed, an agent goes through all its records once, a transaction of a hundred
rows after the other, with pauses that leave the disk to others. The note of keys is written anew at
the end; cut off before, the next start begins again, and skips what is done.
"""

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from agent.config.settings import StorageSettings
from agent.loop import watched
from agent.store.key_note import KeyNote
from agent.store.kv_store import RecordStore
from agent.store.value_keys import value_seal
from agent.text.units import counted

PAUSE_S = 0.1

log = logging.getLogger(__name__)


async def open_records(
    path: Path, settings: StorageSettings, opened: AsyncExitStack
) -> RecordStore:
    """Open the records of this node, sealed as is asked, until ``opened`` ends.

    Raises StorageError, and AgentError for a key that is not here: then nothing was touched.
    """
    seal = await asyncio.to_thread(value_seal, settings)
    note = KeyNote(path)
    lies_otherwise = await asyncio.to_thread(note.begin, seal)
    records = await RecordStore.open(path, seal)
    opened.push_async_callback(records.close)
    if lies_otherwise:
        counts = records.database.counts
        task = watched.start("resealing", partial(reseal_all, records, note, counts))
        opened.callback(task.cancel)
    return records


async def reseal_all(records: RecordStore, note: KeyNote, counts: Counter[str]) -> None:
    """Go through all records. Raises StorageError and AgentError; what was done stays done."""
    at: tuple[int, str] | None = (-1, "")
    total = 0
    while at is not None:
        at, written = await records.reseal(at)
        counts["values_resealed/written"] += written
        total += written
        await asyncio.sleep(PAUSE_S)
    await asyncio.to_thread(note.settle, records.seal)
    how = f"sealed with key {records.seal.key_id.hex()}" if records.seal.key_id else "in clear"
    log.info("all values lie %s now; %s written anew", how, counted(total, "row"))
