"""The ballast: room that is kept for the day on which the disk is full.

An agent cannot start without writing: that it started, for one, so that no number is used twice.
On a full disk the device would thus vanish from its covey, though all that it lacks is room for
new values. So some room is taken while there is plenty, and given up in portions, one for each
start that finds none. It is for the agent's own few pages: what people and apps write is refused
meanwhile (``Database.hold_back``), or the room would be gone before the next start.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from agent.files.private_files import FILE_MODE
from agent.store.database import Database
from agent.store.errors import StorageError

BALLAST_BYTES = 2 * 1024 * 1024
PORTION_BYTES = 512 * 1024
"""What a start may need: four write-ahead logs with their indices, and some pages."""
PLENTY_BYTES = 8 * BALLAST_BYTES
"""A disk with less free space is not made fuller."""
FILL_AGAIN_S = 60.0

log = logging.getLogger(__name__)


class Ballast:
    """Manages the file that keeps room in the data directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def size_bytes(self) -> int:
        """How much room is kept."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def fill(self) -> bool:
        """Take what is missing, where there is plenty; tell whether all of it is kept."""
        missing_bytes = BALLAST_BYTES - self.size_bytes
        if missing_bytes <= 0:
            return True
        try:
            if shutil.disk_usage(self._path.parent).free < PLENTY_BYTES:
                return False
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            try:
                os.posix_fallocate(handle, 0, BALLAST_BYTES)
            finally:
                os.close(handle)
        except OSError:
            return False
        return True

    def give(self) -> bool:
        """Give up a portion; False when there is none, or the disk does not let go of it."""
        size_bytes = self.size_bytes
        if not size_bytes:
            return False
        try:
            os.truncate(self._path, max(0, size_bytes - PORTION_BYTES))
        except OSError:
            return False
        return True

    async def open_stores(
        self,
        open_them: Callable[[AsyncExitStack], Awaitable[Iterable[Database]]],
        opened: AsyncExitStack,
    ) -> StorageError | None:
        """Open stores, on a full disk with portions of the ballast. Raises StorageError.

        ``open_them`` returns those that others write to: they are held back until the disk has
        room. What was opened is closed by ``opened``. Returns the error of a disk that
        is full, for which there was no portion left; nothing is open then.
        """
        shortage: StorageError | None = None
        while True:
            try:
                async with AsyncExitStack() as attempt:
                    stores = await open_them(attempt)
                    opened.push_async_callback(attempt.pop_all().aclose)
            except StorageError as error:
                if not error.is_full:
                    raise
                shortage = error
            else:
                break
            if not await asyncio.to_thread(self.give):
                return shortage
        if shortage is not None:
            log.error("%s Started with what was in reserve; new values are refused.", shortage)
            for store in stores:
                store.hold_back(shortage)
        return None

    async def keep(self) -> None:
        """See to it that it is there again, once there is plenty of room."""
        while True:
            await asyncio.to_thread(self.fill)
            await asyncio.sleep(FILL_AGAIN_S)
