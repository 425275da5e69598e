"""Each change that is to be synced goes to its file, and a second try keeps nothing twice."""

import asyncio
from pathlib import Path

import pytest

from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.consensus_store import ConsensusStore
from agent.store.control import ControlStore
from agent.store.errors import StorageError
from agent.store.synced_changes import SyncedChanges
from gossip.consensus.messages import Entry, EntryKind
from gossip.consensus.storage import AppendChange, HardState
from gossip.kv.storage import RegistryChange


def test_a_batch_that_was_refused_in_the_middle_is_saved_again(tmp_path: Path) -> None:
    async def main() -> None:
        control = await ControlStore.open(tmp_path / "control.db", bytes(16), 7)
        mark = CleanShutdownMark(tmp_path / "running")
        agreed = await ConsensusStore.open(tmp_path / "consensus.db", mark, control)
        saves = SyncedChanges(control, agreed)
        entries = tuple(Entry(n, 1, EntryKind.COMMAND, bytes(4000)) for n in range(1, 30))
        batch = [HardState(1, 1, 5), RegistryChange(2, b"two"), AppendChange(entries)]
        await agreed.database.write(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone())
        with pytest.raises(StorageError, match="the disk is full"):
            await saves.save(batch)
        assert control.registry() == (2, b"two")
        await agreed.database.write(lambda c: c.execute("PRAGMA max_page_count = 9999").fetchone())
        await saves.save(batch)
        await saves.save([RegistryChange(3, b"three")])
        assert control.registry() == (3, b"three")
        await agreed.close()
        agreed = await ConsensusStore.open(tmp_path / "consensus.db", mark, control)
        state = agreed.take()
        assert (state.hard, state.entries) == (HardState(1, 1, 5), entries)
        await agreed.close()
        await control.close()

    asyncio.run(main())
