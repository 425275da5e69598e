"""Files of the fake agent: a dictionary in place of blocks on owners."""

from collections.abc import AsyncIterator, Callable, Sequence

from agent.blocks.file_stat import FileStat, PlacedBlock
from agent.blocks.named_files import FilePage, NamedFile, Upload
from agent.exits import NOT_FOUND, AgentError
from edge_apps.files import FileDigest
from gossip.bodies.file_records import FileRecord
from tests.support.fake_kv_reports import ME, OTHER

FILE_BYTES = 16
WRITTEN_MS = 1_700_000_000_000


class FakeFiles:
    """What files of the agent do, of bodies in memory."""

    def __init__(self) -> None:
        self.records: dict[str, FileRecord] = {}
        self.bodies: dict[bytes, bytes] = {}
        self.open_uploads: list[Upload] = []

    async def find(self, name: str) -> FileRecord:
        """Return the record of a name."""
        if name not in self.records:
            raise AgentError(f"there is no file {name!r}", "see `covey file ls`", NOT_FOUND)
        return self.records[name]

    def add(self, name: str, body: bytes) -> FileRecord:
        """Have a file."""
        told = FileDigest()
        told.add(body)
        digest = bytes.fromhex(told.hex())
        record = FileRecord(digest[:FILE_BYTES], len(body), digest, WRITTEN_MS)
        self.records[name], self.bodies[record.file] = record, body
        return record

    async def put(
        self,
        name: str,
        parts: AsyncIterator[bytes],
        *,
        mark: str = "",
        upload: Upload | None = None,
    ) -> FileRecord:
        """Take a body in."""
        del mark, upload
        return self.add(name, b"".join([part async for part in parts]))

    async def _read(self, body: bytes) -> AsyncIterator[bytes]:
        yield body

    def read(self, record: FileRecord, start: int, end: int) -> AsyncIterator[bytes]:
        """Return a part of a body."""
        return self._read(self.bodies[record.file][start:end])

    async def page(self, prefix: str = "", after: str = "", limit: int = 100) -> FilePage:
        """Return names in order."""
        names = sorted(n for n in self.records if n.startswith(prefix) and n > after)
        files = [NamedFile(name, self.records[name]) for name in names[:limit]]
        return FilePage(files, names[limit - 1] if len(names) > limit else "", "ok")

    async def uploads(self, mark: str, is_meant: Callable[[str], bool]) -> list[Upload]:
        """Return what was begun."""
        del mark
        return [each for each in self.open_uploads if is_meant(each.record.name)]

    async def remove(self, name: str) -> FileRecord:
        """Take a name away."""
        record = await self.find(name)
        del self.records[name]
        return record

    async def move(self, old: str, new: str) -> FileRecord:
        """Call it something else."""
        record = await self.remove(old)
        self.records[new] = record
        return record


class FakeStats:
    """Says that every block lies at one of its two owners."""

    async def of(self, files: Sequence[NamedFile]) -> list[FileStat]:
        """Return where blocks are."""
        placed = PlacedBlock((ME, OTHER), frozenset((ME,)))
        return [FileStat([placed] * file.record.blocks, frozenset((OTHER,))) for file in files]


class FakeBlocks:
    """What the API needs of the service of blocks."""

    def __init__(self) -> None:
        self.files, self.stats = FakeFiles(), FakeStats()
