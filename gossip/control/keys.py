"""The keys of the control plane, in their order, each with its revisions and its session.

Numbers are etcd's: ``created`` and ``modified`` are revisions, that is, indexes of the log, and
``version`` counts the writes since the key was created. A key that was deleted and comes back
begins anew at version 1.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

import msgspec

from gossip.control.bounds import ENTRY_BYTES, Space

CODE_POINT_MAX = 0x10FFFF


# What a replica keeps of each write, it keeps by the ten thousand; nothing of it can lead back to
# itself, so the garbage collector need not look through it (``gc=False``, here and below).
class KeyEntry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One key as it is now. ``session`` 0: it belongs to nobody and stays."""

    key: str
    value: bytes
    created: int
    modified: int
    version: int
    session: int = 0

    @property
    def size_bytes(self) -> int:
        """What it takes of the space."""
        key = self.key
        key_bytes = len(key) if key.isascii() else len(key.encode())
        return ENTRY_BYTES + key_bytes + len(self.value)


class KeyChange(msgspec.Struct, frozen=True, gc=False):
    """A key was written, or deleted (``entry`` None)."""

    key: str
    entry: KeyEntry | None


def next_prefix(prefix: str) -> str | None:
    """Return the first text after all that begin with a prefix; None if there is none.

    >>> next_prefix("room/")
    'room0'
    """
    text = prefix.rstrip(chr(CODE_POINT_MAX))
    return text[:-1] + chr(ord(text[-1]) + 1) if text else None


class KeyTable:
    """Manages the keys; what they take is counted in ``space``. Bounds are the caller's task."""

    def __init__(self, space: Space, changed: Callable[[KeyChange], None]) -> None:
        self._space = space
        self._changed = changed
        self._entries: dict[str, KeyEntry] = {}
        # Code points and UTF-8 sort alike, so that all replicas and all clients agree on order.
        self._order: list[str] = []
        self._of_session: dict[int, set[str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[KeyEntry]:
        return (self._entries[key] for key in self._order)

    def get(self, key: str) -> KeyEntry | None:
        """Return a key's entry; None if there is none."""
        return self._entries.get(key)

    def put(self, entry: KeyEntry) -> None:
        """Store an entry in place of what the key had."""
        assert entry.created <= entry.modified, "a key is created before it is modified"
        key = entry.key
        if not self._forget(key):
            insort(self._order, key)
        self._entries[key] = entry
        self._space.add(entry.size_bytes)
        if entry.session:
            self._of_session.setdefault(entry.session, set()).add(key)
        self._changed(KeyChange(key, entry))

    def delete(self, key: str) -> None:
        """Remove a key that is there."""
        self._forget(key)
        del self._entries[key]
        del self._order[bisect_left(self._order, key)]
        self._changed(KeyChange(key, None))

    def _forget(self, key: str) -> bool:
        """Take an entry out of all that is counted by size and session; False: there is none."""
        before = self._entries.get(key)
        if before is None:
            return False
        self._space.add(-before.size_bytes)
        if before.session:
            owned = self._of_session[before.session]
            owned.discard(key)
            if not owned:
                del self._of_session[before.session]
        return True

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the keys that begin with ``prefix`` and come after ``after``, in order."""
        at = bisect_left(self._order, prefix)
        if after >= prefix:
            at = max(at, bisect_left(self._order, after))
        while at < len(self._order) and self._order[at].startswith(prefix):
            if self._order[at] != after:
                yield self._order[at]
            at += 1

    def count(self, prefix: str) -> int:
        """Return how many keys begin with a prefix."""
        end = next_prefix(prefix)
        last = len(self._order) if end is None else bisect_left(self._order, end)
        return last - bisect_left(self._order, prefix)

    def of_session(self, session: int) -> list[str]:
        """Return the keys that go with a session, in order."""
        return sorted(self._of_session.get(session, ()))
