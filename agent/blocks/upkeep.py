"""Sees to it that this node has the bodies that it is to have, and no others.

What is to be done decides ``gossip/bodies/block_keeper.py``; here are the looks and the deeds.
Records are looked through where something changed since the last look: while nothing does, a look
costs next to nothing. What is fetched is throttled, so that a device that comes back after a month
takes its time, and not the network.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial

from agent.blocks.block_refused import BlockRefused
from agent.blocks.block_store import BlockStore
from agent.blocks.file_stat import has
from agent.blocks.named_files import Files
from agent.blocks.transfers import Transfers
from agent.cluster.kv import Kv
from agent.exits import AgentError
from agent.loop import watched
from agent.loop.periodic import until_next
from agent.loop.slices import collect
from agent.runtime.driver import Driver
from gossip.bodies.block_keeper import (
    BlockKeeper,
    BodyEffect,
    Confirm,
    Confirmation,
    Drop,
    Pull,
)
from gossip.bodies.file_records import (
    BLOCK_PREFIX,
    FILE_PREFIX,
    UPLOAD_PREFIX,
    BlockName,
    BlockRecord,
    block_of,
    decode_record,
    file_of_upload,
)
from gossip.bodies.sweeper import Sweeper
from gossip.core.errors import CoveyError, Malformed
from gossip.kv.records import Record, newest_first
from gossip.kv.requests import ListEntry

LOOK_S = 5.0
SWEEP_S = 3600.0
REPAIR_BYTES_PER_S = 8 * 1024 * 1024
PAGE_RECORDS = 64
PAGE_NAMES = 1000


class Upkeep:
    """Runs the keeper of one node."""

    def __init__(
        self, driver: Driver, store: BlockStore, transfers: Transfers, files: Files,
        counts: Counter[str],
    ) -> None:  # fmt: skip
        self._node, self._state, self._now = driver.node, driver.node.state, driver.now
        self._me = driver.node.settings.me
        self._store, self._transfers, self._files = store, transfers, files
        self._kv, self._counts = Kv(driver), counts
        self.keeper = BlockKeeper(lambda name: self._state.registry.partition_of(name.key))
        self._sweeper = Sweeper()
        self._seen: dict[int, object] = {}
        """What each partition was like when its records were last looked through."""
        self._tasks = watched.TaskSet()

    def begin(self) -> None:
        """Take in what is on the disk, and from now on what comes."""
        now, wall_s = self._now(), time.time()
        for name in self._store:
            if (stored := self._store.stored(name)) is not None:
                self.keeper.arrived(name, now, now - max(0.0, wall_s - stored.since_s))
        self._store.on_stored = lambda name: self.keeper.arrived(name, self._now())
        self._store.on_damaged = self._damaged

    def _damaged(self, name: BlockName) -> None:
        self.keeper.damaged(name, self._now())

    async def run(self) -> None:
        """Look and mend until it is cancelled."""
        swept_at = self._now()
        while True:
            await until_next(LOOK_S)
            await self.look()
            if self._now() - swept_at >= SWEEP_S:
                swept_at = self._now()
                await self.sweep()

    async def stop(self) -> None:
        """Mend nothing any more."""
        await self._tasks.stop()

    async def look(self) -> None:
        """Look through the records that have changed, and begin what is due."""
        registry = self._state.registry
        for partition in range(registry.partitions):
            if self._me in registry.ownership(partition).holders:
                await self._look_at(partition)
            else:
                self._seen.pop(partition, None)
                self.keeper.foreign(partition, self._now())
        self.keeper.wake(self._now())
        for effect in self.keeper.effects():
            self._tasks.start("block-upkeep", partial(self._do, effect))

    async def _look_at(self, partition: int) -> None:
        replica, registry = self._state.replica, self._state.registry
        is_complete = replica.is_complete(partition, registry)
        mark = replica.digest(partition), is_complete
        if self._seen.get(partition) == mark:
            return
        records: dict[BlockName, BlockRecord] = {}
        after = ""
        while True:
            page = replica.scan(partition, BLOCK_PREFIX, after, PAGE_RECORDS)
            records.update(each for each in await collect(map(_claim, page)) if each is not None)
            if len(page) < PAGE_RECORDS:
                break
            after = page[-1][0]
        if (replica.digest(partition), is_complete) != mark:
            is_complete = False  # it changed under the look: what was not seen may be there
        else:
            self._seen[partition] = mark
        self.keeper.scanned(partition, records, self._now(), is_complete=is_complete)

    async def _do(self, effect: BodyEffect) -> None:
        match effect:
            case Pull(name, record):
                await self._pull(name, record)
            case Confirm(name):
                answer = await self._confirm(name)
                self.keeper.confirmed(name, answer, self._now())
            case Drop(name):
                try:
                    await self._store.remove(name)
                except BlockRefused as refused:  # it is found again by the next start
                    self._counts[f"blocks_refused/{refused.reason}"] += 1

    async def _pull(self, name: BlockName, record: BlockRecord) -> None:
        try:
            # What there is no room for would else come over the network again and again.
            await self._store.check_room(name, record.size_bytes)
            body = await self._transfers.body(name, record, is_own=False)
            await self._store.put(name, body, record.digest)
        except (AgentError, BlockRefused):
            self._counts["blocks/not_pulled"] += 1
            await asyncio.sleep(0)
            self.keeper.failed(name, self._now())
            return
        self._counts["blocks/pulled"] += 1
        await asyncio.sleep(record.size_bytes / REPAIR_BYTES_PER_S)

    async def _confirm(self, name: BlockName) -> Confirmation:
        """Ask most owners for the record, and all of them for the body."""
        try:
            if await self._files.reader.record(name) is None:
                return Confirmation.DELETED
        except CoveyError:
            return Confirmation.UNKNOWN
        owners = self._state.registry.ownership_of(name.key).holders
        if self._me in owners:
            return Confirmation.STANDS
        told = await asyncio.gather(*(self._transfers.ask(node, [name.file]) for node in owners))
        has_all = all(one is not None and has(one.held[0], name.number) for one in told)
        return Confirmation.PLACED if has_all else Confirmation.STANDS

    # Records that nobody needs

    async def sweep(self) -> None:
        """Delete records of blocks without a name, and uploads that nobody goes on with."""
        if not self.keeper.files():
            return
        try:
            uploads = {
                file: entry.values[0].stamp
                for entry in await self._all(UPLOAD_PREFIX)
                if (file := file_of_upload(entry.key)) is not None
            }
            named = set(uploads)
            for entry in await self._all(FILE_PREFIX):
                named.update(record.file for record in self._files.records(entry.values))
        except CoveyError:
            self._counts["blocks/not_swept"] += 1
            return
        now = self._now()
        for file in self._sweeper.uploads_over(uploads, now):
            await self._files.end_upload(file)
        over = self._sweeper.blocks_over(named, self._first_here(), now)
        await self._files.delete_blocks(over)

    async def _all(self, prefix: str) -> list[ListEntry]:
        """Return all keys that begin so. Raises AgentError if any may be missing."""
        entries: list[ListEntry] = []
        after = ""
        while True:
            page = await self._kv.list(prefix, after=after, limit=PAGE_NAMES)
            if page.outcome != "ok":
                raise AgentError("not enough owners of some keys answered")
            entries += page.entries
            if not (after := page.next):
                return entries

    def _first_here(self) -> Iterable[BlockName]:
        """Yield the blocks of whose owners this node is the first that is there."""
        registry, is_gone = self._state.registry, self._node.swim.is_gone
        for name in self.keeper.kept():
            there = [node for node in registry.owners_of(name.key) if not is_gone(node)]
            if there[:1] == [self._me]:
                yield name


def _claim(stored: tuple[str, Record]) -> tuple[BlockName, BlockRecord] | None:
    """Return the block of a record; None for one that no version of ours wrote."""
    key, record = stored
    for version in newest_first(record.live):
        try:
            return block_of(key), decode_record(version.value, BlockRecord)
        except Malformed:
            continue
    return None
