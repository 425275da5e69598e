"""What the log of the control plane costs the disk: bytes and syncs of an entry, and a start.

Each batch is one transaction with one sync, as a voter's ``Persist`` is. Bytes are those that the
process hands to the file system (``wchar`` in /proc/self/io), so the pages that SQLite writes, and
writes again when it folds its log into the file; a card writes more than that.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.consensus_store import ConsensusStore
from agent.store.control import ControlStore
from bench.report import finish, table
from gossip.consensus.messages import Entry, EntryKind
from gossip.consensus.storage import AppendChange, CompactChange, HardState

ENTRY_BYTES = 140
"""A key of 20 bytes with a value of 100, as a command of the control plane."""
BATCHES = (1, 4, 16, 64, 256)
COMMITS = 300
LOG_ENTRIES = 10_000
STARTS = 5


class Cost(NamedTuple):
    """Of one size of batch: commits and entries a second, and bytes of an entry."""

    commits_per_s: float
    entries_per_s: float
    entry_bytes: float


class Rig:
    """One log in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = 1

    async def open(self) -> None:
        """Open the log as a start does."""
        mark = CleanShutdownMark(self._folder / "running")
        self._control = await ControlStore.open(self._folder / "control.db", bytes(16), 1)
        self.log = await ConsensusStore.open(self._folder / "consensus.db", mark, self._control)

    async def close(self) -> None:
        """End in order."""
        await self.log.close()
        await self._control.close()

    async def append(self, count: int) -> None:
        """Append so many entries in one batch."""
        first, self._next = self._next, self._next + count
        numbers = range(first, self._next)
        data = bytes(ENTRY_BYTES)
        entries = tuple(Entry(number, 1, EntryKind.COMMAND, data) for number in numbers)
        await self.log.save([AppendChange(entries)])

    async def compact(self) -> None:
        """Drop all entries, as behind a snapshot."""
        await self.log.save([CompactChange(self._next - 1)])


def written_bytes() -> int:
    """Return how many bytes this process has written so far."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


async def cost_of(folder: Path, batch: int) -> Cost:
    """Append batch after batch, one at a time, and fold all of it into the file."""
    rig = Rig(folder)
    await rig.open()
    await rig.log.save([HardState(1, 1, 1)])
    before, start = written_bytes(), time.perf_counter()
    for _ in range(COMMITS):
        await rig.append(batch)
    took_s = time.perf_counter() - start
    await rig.close()
    count = COMMITS * batch
    return Cost(COMMITS / took_s, count / took_s, (written_bytes() - before) / count)


async def start_s(folder: Path) -> tuple[float, float]:
    """Return the least and the most that a start takes to read a long log back."""
    rig = Rig(folder)
    await rig.open()
    await rig.log.save([HardState(1, 1, 1)])
    await rig.append(LOG_ENTRIES)
    await rig.close()
    took: list[float] = []
    for _ in range(STARTS):
        control = await ControlStore.open(folder / "control.db", bytes(16), 1)
        mark = CleanShutdownMark(folder / "running")
        start = time.perf_counter()
        log = await ConsensusStore.open(folder / "consensus.db", mark, control)
        assert len(log.take().entries) == LOG_ENTRIES, "all of it was read"
        took.append(time.perf_counter() - start)
        await log.close()
        await control.close()
    return min(took), max(took)


async def size_after(folder: Path) -> tuple[int, int]:
    """Return how large the file is with a long log, and once that was compacted."""
    rig = Rig(folder)
    await rig.open()
    await rig.log.save([HardState(1, 1, 1)])
    for _ in range(10):
        await rig.append(LOG_ENTRIES)
    await rig.log.database.write(lambda _rows: None)
    await rig.close()
    full = (folder / "consensus.db").stat().st_size
    await rig.open()
    await rig.compact()
    for _ in range(20):  # each gives some of it back
        await rig.append(1)
        await rig.compact()
    await rig.close()
    return full, (folder / "consensus.db").stat().st_size


def main() -> None:
    """Measure on the disk of the current directory: /tmp may be memory."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as place:
        costs: dict[int, Cost] = {}
        for batch in BATCHES:
            folder = Path(place) / f"batch-{batch}"
            folder.mkdir()
            costs[batch] = asyncio.run(cost_of(folder, batch))
        for name in ("start", "size"):
            (Path(place) / name).mkdir()
        least_s, most_s = asyncio.run(start_s(Path(place) / "start"))
        full_bytes, compacted_bytes = asyncio.run(size_after(Path(place) / "size"))
    rows = [(batch, *cost) for batch, cost in costs.items()]
    head = ("entries a commit", "commits a second", "entries a second", "bytes written an entry")
    table(f"Appending entries of {ENTRY_BYTES} bytes, one commit after the other", head, rows)
    table(
        f"A log of {LOG_ENTRIES:,} entries",
        ("", "least", "most"),
        [("a start reads it back, in s", least_s, most_s)],
    )
    sizes = [("file, MB", full_bytes / 1e6, compacted_bytes / 1e6)]
    table(f"A log of {10 * LOG_ENTRIES:,} entries", ("", "whole", "compacted"), sizes)
    figures = {str(batch): cost._asdict() for batch, cost in costs.items()}
    sizes_told = {"whole_bytes": full_bytes, "compacted_bytes": compacted_bytes}
    finish("consensus_log", {"batches": figures, "start_s": [least_s, most_s], **sizes_told})


if __name__ == "__main__":
    sys.exit(main())
