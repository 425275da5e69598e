"""Who waits for what was written to survive a power cut, and the task that syncs it.

A sync costs a card as much for one write as for a thousand. So one is under way at a time, it
serves all that was written before it began, and whoever asks meanwhile shares the next one. While
nobody asks there is none.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from agent.loop import watched
from agent.store.errors import StorageError

RETRY_S = 1.0


class SyncableStore(Protocol):
    """What can be synced: ``agent/store/kv_store.py``."""

    async def sync(self) -> None:
        """Return when every commit so far survives a power cut. Raises StorageError."""


class SyncQueue:
    """Syncs one store for many; ``on_synced`` hears up to which token."""

    def __init__(self, store: SyncableStore, on_synced: Callable[[int], None]) -> None:
        self._store, self._on_synced = store, on_synced
        self._wanted: set[int] = set()
        self._saved = 0
        self._is_due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sync what is asked for."""
        self._task = watched.start("driver-sync", self._work)

    def put(self, token: int) -> None:
        """Sync the batch with this token once it is saved, and all before it."""
        self._wanted.add(token)
        self._look()

    def saved(self, token: int) -> None:
        """Take note that the batches up to this token are saved."""
        self._saved = max(self._saved, token)
        self._look()

    async def stop(self) -> None:
        """Sync nothing more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _look(self) -> None:
        if any(token <= self._saved for token in self._wanted):
            self._is_due.set()

    async def _work(self) -> None:
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            saved = self._saved
            try:
                await self._store.sync()
            except StorageError as error:
                if not error.may_pass:
                    return  # nothing is saved any more either, which stops the agent
                # Nobody is told that it is synced; their writes end as indeterminate.
                await asyncio.sleep(RETRY_S)
                self._is_due.set()
                continue
            self._wanted = {token for token in self._wanted if token > saved}
            self._on_synced(saved)
            self._look()
