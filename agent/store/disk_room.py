"""How full the disk is, looked at every few seconds: before it is full, new values are refused.

A full disk takes nothing, not even a delete. So there is a mark below that, from which on this node
takes no new values of shared keys, while what makes room again, and what Covey writes of itself,
goes on. Whoever fills the disk does not matter: room is room.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

LOOK_S = 2.0
RELIEF_PERCENT = 1.0
"""So much less has to be in use before new values are taken again: one delete does not toggle."""

log = logging.getLogger(__name__)


def used_percent(directory: Path) -> float:
    """Return how much of the file system is in use, as ``df`` says it. Raises OSError."""
    found = os.statvfs(directory)
    used = found.f_blocks - found.f_bfree
    # What is kept for root is neither in use nor free for us.
    there = used + found.f_bavail
    return 100.0 * used / there if there else 100.0


class DiskRoom:
    """Knows whether there is room for new values below a mark."""

    def __init__(
        self, directory: Path, percent_max: float, on_change: Callable[[bool], None]
    ) -> None:
        """``on_change`` hears whether new values are refused from now on."""
        self.used_percent = 0.0
        self.is_short = False
        self._directory = directory
        self._percent_max = percent_max
        self._on_change = on_change

    async def follow(self) -> None:
        """Look again and again. Raises OSError."""
        while True:
            self.look(await asyncio.to_thread(used_percent, self._directory))
            await asyncio.sleep(LOOK_S)

    def look(self, used: float) -> None:
        """Take in how much is in use, in percent."""
        self.used_percent = used
        limit = self._percent_max - (RELIEF_PERCENT if self.is_short else 0.0)
        is_short = self._percent_max < 100.0 and used > limit
        if is_short == self.is_short:
            return
        self.is_short = is_short
        if is_short:
            log.warning(
                "%.1f %% of the disk with %s is in use, of at most %g %%: new values of shared "
                "keys are refused here, reads and deletes go on. Free some space, or raise "
                "`[storage] disk_percent_max`.",
                used, self._directory, self._percent_max,
            )  # fmt: skip
        else:
            log.info("%.1f %% of the disk is in use: new values are taken again", used)
        self._on_change(is_short)
