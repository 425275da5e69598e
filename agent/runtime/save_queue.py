"""What waits to be saved with one durability, and the task that saves it.

Batches are collected while the last ones are being committed, so the slower the disk, the larger
the groups. That alone would make them small where the disk is fast: a commit costs two changes of
threads and whole pages, of which writes that come together share most. So while many write, each
commit of records waits some milliseconds for more; of few, none waits, and no vote does. While a
disk is full or takes nothing, they wait, and so does all that would reveal them. Each durability
has a queue of its own, over a file of its own: a burst of records, or the checkpoint of their log,
does not hold up a vote.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from agent.loop import watched
from agent.store.errors import StorageError
from gossip.core.machine import Persist

SAVE_RETRY_S = 1.0
BUSY_CHANGES = 16
"""Where the last commit had so many, there are many who write, and the next one waits for more."""
# Some ten thousand small values: a disk that takes nothing for longer ends the agent.
UNSAVED_CHANGES_MAX = 20_000


class ChangeStore(Protocol):
    """Where changes become durable: ``agent/store/kv_store.py`` is one."""

    async def save(self, changes: Sequence[object]) -> None:
        """Commit the changes in this order, in one transaction.

        Returns once they are as durable as the batches ask that come here. Raises StorageError.
        """


class SaveQueue:
    """Saves batches in their order; three callbacks say what becomes of them.

    ``on_saved`` gets batches that are durable now; ``on_refused`` hears after each try why the disk
    takes nothing, and None once it does again; ``on_failed`` hears why nothing is saved any more.
    """

    def __init__(
        self,
        store: ChangeStore,
        counts: Counter[str],
        on_saved: Callable[[list[Persist]], None],
        on_refused: Callable[[StorageError | None], None],
        on_failed: Callable[[Exception], None],
        gathering_s: float = 0.0,
    ) -> None:
        """``gathering_s``: for so long a commit waits for more while many write."""
        self._gathering_s = gathering_s
        self._store, self._counts = store, counts
        self._on_saved, self._on_refused, self._on_failed = on_saved, on_refused, on_failed
        self._waiting: list[Persist] = []
        self._is_wanted = asyncio.Event()
        self._is_busy = False
        self._task: asyncio.Task[None] | None = None

    def start(self, name: str) -> None:
        """Begin to save; ``name`` tells the task from others."""
        self._task = watched.start("driver-save", self._save, name)

    def put(self, batch: Persist) -> None:
        """Save this batch behind all that came before."""
        self._waiting.append(batch)
        self._is_wanted.set()

    async def stop(self) -> None:
        """Save nothing more. What was not reported may be on disk, or not."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _save(self) -> None:
        """Commit what is to be persisted, in order, all that waits at once."""
        while True:
            await self._is_wanted.wait()
            if self._is_busy:
                await asyncio.sleep(self._gathering_s)
            self._is_wanted.clear()
            batches, self._waiting = self._waiting, []
            changes = [change for each in batches for change in each.changes]
            self._is_busy = len(changes) >= BUSY_CHANGES and self._gathering_s > 0
            try:
                await self._commit(changes)
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing more may be said
                self._on_failed(error)
                return
            self._counts["persists/committed"] += len(batches)
            self._on_saved(batches)

    async def _commit(self, changes: list[object]) -> None:
        """Commit; again and again while the disk refuses it for a reason that may pass.

        Raises what does not pass, and what does not pass in time.
        """
        was_refused = False
        while True:
            try:
                await self._store.save(changes)
            except StorageError as error:
                was_refused = True
                self._on_refused(error)
                waiting = sum(len(each.changes) for each in self._waiting)
                if not error.may_pass or waiting > UNSAVED_CHANGES_MAX:
                    raise
            else:
                if was_refused:
                    self._on_refused(None)
                return
            self._counts["persists/refused"] += 1
            await asyncio.sleep(SAVE_RETRY_S)
