"""Records that were read or written lately, as they are in the storage.

A replica that reads each record from the disk spends more on that than on everything else, and most
devices ask for the same few keys again and again. Only the replica changes what is stored, so it
says what becomes of each record that is kept here, and none is ever older than the storage.

Bounded by number and by bytes; who was used last stays longest.
"""

from gossip.kv.records import Record

RECORDS_MAX = 2_048
BYTES_MAX = 2 * 1024 * 1024
"""Together; a record that takes an eighth of it alone is not kept."""
DOT_BYTES = 100
"""What a version takes beside its value, and a dot of the context, roughly."""

Name = tuple[int, str]


class HotRecords:
    """Manages what is kept in memory of the storage: the record of a key, or that there is none."""

    def __init__(self, records_max: int = RECORDS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._records: dict[Name, Record | None] = {}
        self._bytes = 0
        self._records_max, self._bytes_max = records_max, bytes_max

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, name: Name) -> bool:
        return name in self._records

    def use(self, name: Name) -> Record | None:
        """Return what is kept under a name, which must be there, and keep it longer."""
        record = self._records.pop(name)
        self._records[name] = record
        return record

    def keep(self, name: Name, record: Record | None) -> None:
        """Take down what the storage has under this name now."""
        self.drop(name)
        size = _size_bytes(record)
        if size > self._bytes_max // 8:
            return
        self._records[name] = record
        self._bytes += size
        while len(self._records) > self._records_max or self._bytes > self._bytes_max:
            self.drop(next(iter(self._records)))

    def drop(self, name: Name) -> None:
        """Keep nothing of this name; harmless where nothing is kept."""
        self._bytes -= _size_bytes(self._records.pop(name, None))

    def drop_partition(self, partition: int) -> None:
        """Keep nothing of a partition."""
        for name in [name for name in self._records if name[0] == partition]:
            self.drop(name)


def _size_bytes(record: Record | None) -> int:
    if record is None:
        return 0
    dots = DOT_BYTES * (len(record.live) + len(record.context))
    return dots + sum([len(version.value) for version in record.live])
