"""Where changes go that have to be on the disk before they count: each to its file.

A registry is kept in ``control.db``, what voters agree on in ``consensus.db``. A registry comes
seldom, and first: a batch that the disk refused is saved again as a whole, and only that one may be
kept twice.
"""

from collections.abc import Sequence

from agent.store.consensus_store import ConsensusStore
from agent.store.control import ControlStore
from gossip.kv.storage import RegistryChange


class SyncedChanges:
    """Saves with ``Durability.FSYNC``."""

    def __init__(self, control: ControlStore, agreed: ConsensusStore) -> None:
        self._control, self._agreed = control, agreed

    async def save(self, changes: Sequence[object]) -> None:
        """Sync the changes, those of each file in their order. Raises StorageError."""
        registries = [change for change in changes if isinstance(change, RegistryChange)]
        await self._control.save(registries)
        rest = [change for change in changes if not isinstance(change, RegistryChange)]
        if rest:
            await self._agreed.save(rest)
