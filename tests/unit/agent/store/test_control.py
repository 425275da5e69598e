"""What must never be lost is on the disk before anybody acts on it."""

import asyncio
from pathlib import Path

from agent.store.control import ControlStore
from gossip.kv.storage import RegistryChange

COVEY, NODE = bytes(range(16)), 7


def test_the_newest_registry_that_was_saved_is_there_after_a_start(tmp_path: Path) -> None:
    async def life(*changes: RegistryChange) -> tuple[int, bytes] | None:
        store = await ControlStore.open(tmp_path / "control.db", COVEY, NODE)
        await store.save(changes)
        kept = store.registry()
        await store.close()
        return kept

    assert asyncio.run(life(RegistryChange(2, b"two"), RegistryChange(4, b"four"))) == (4, b"four")
    assert asyncio.run(life(RegistryChange(3, b"three"))) == (4, b"four"), "nothing goes back"
    assert asyncio.run(life()) == (4, b"four")
