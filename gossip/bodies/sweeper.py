"""Records of blocks that nobody needs: uploads that never ended, and files whose last name went.

Who removes or replaces a file deletes its blocks, unless it ends in between, or two names stood for
the file for a moment. So it is looked now and then which files have a name or an upload. What had
neither for a whole day, as this node itself has seen, is to go: a clock that was set, or one look
at the wrong moment of a move, takes no file away.
"""

from collections.abc import Collection, Iterable, Mapping

from gossip.bodies.block_limits import ORPHAN_S
from gossip.bodies.file_records import BlockName
from gossip.core.machine import Instant


class Sweeper:
    """Remembers since when files are without a name, and uploads without a sign of life."""

    def __init__(self) -> None:
        self._nameless: dict[bytes, Instant] = {}
        self._uploads: dict[bytes, tuple[int, Instant]] = {}

    def uploads_over(self, uploads: Mapping[bytes, int], now: Instant) -> list[bytes]:
        """Return the uploads that nobody has gone on with for a day.

        ``uploads`` has all there are, with the stamp of the last sign of life of each.
        """
        known = self._uploads
        self._uploads = {
            file: known[file] if known.get(file, (None,))[0] == stamp else (stamp, now)
            for file, stamp in uploads.items()
        }
        return [file for file, (_, since) in self._uploads.items() if now - since >= ORPHAN_S]

    def blocks_over(
        self, named: Collection[bytes], blocks: Iterable[BlockName], now: Instant
    ) -> list[BlockName]:
        """Return the blocks of files that had no name and no upload for a day.

        ``named``: all files that have either, as a look at all names has shown.
        """
        blocks = [name for name in blocks if name.file not in named]
        nameless = {name.file for name in blocks}
        self._nameless = {file: self._nameless.get(file, now) for file in nameless}
        return [name for name in blocks if now - self._nameless[name.file] >= ORPHAN_S]
