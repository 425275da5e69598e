"""What is in a backup, and what of it can be read: looked through from one end to the other.

One part is in memory at a time. Damage is told as places in the file and, where it lies between
pages of keys that are readable, as the keys that it lies between: pages are in the order of keys.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import msgspec

from agent.backup.backup_seal import BackupKey
from agent.backup.key_pages import SavedPage, decode_page
from agent.backup.parts import (
    AGREED,
    END,
    KEYS,
    KINDS,
    BackupEnd,
    BackupFile,
    DamagedPlace,
    Part,
    digest_of,
)
from agent.exits import NO, AgentError

AGREED_BYTES_MAX = 129 * 1024 * 1024
"""More than any control plane has: a few packed bytes of a file can say gigabytes."""


class KeyGap(NamedTuple):
    """A stretch of the file that is not readable, and the readable keys before and behind it.

    ``after`` is empty where no key stands before it, ``before`` where none stands behind it.
    """

    start: int
    end: int
    after: str
    before: str


class Contents:
    """What was found in a backup."""

    def __init__(self) -> None:
        self.parts = 0
        self.keys = 0
        self.versions = 0
        self.agreed_bytes = 0
        self.unknown_kinds: set[int] = set()
        self.holes: list[KeyGap] = []
        self.end: BackupEnd | None = None
        self.has_end = False
        """Whether the last part is there; of a sealed file that is all that is known of it."""
        self.is_in_order = True
        """Whether the parts are all those that were written, as the last one says."""

    @property
    def is_intact(self) -> bool:
        """Say whether the file is as it was written, to its end."""
        return not self.holes and self.end is not None and self.is_in_order

    @property
    def is_whole(self) -> bool:
        """Say whether it is intact, and had all that it was to have when it was made."""
        return self.is_intact and self.end is not None and self.end.is_whole


def look_through(
    reader: BackupFile, key: BackupKey | None, show: Callable[[float], None] = lambda _done: None
) -> Contents:
    """Return what is in a backup. Raises WrongKey, and AgentError for a later version's."""
    found = Contents()
    last_key, open_hole = "", None
    digests: list[bytes] = []
    numbers: list[int] = []
    for each in reader.read(key):
        show(each.end / reader.size_bytes)
        if isinstance(each, DamagedPlace):
            open_hole = KeyGap(each.start, each.end, last_key, "")
            found.holes.append(open_hole)
            continue
        page = _take(found, each)
        if page is not None and page.keys:
            if open_hole is not None:
                found.holes[-1] = open_hole._replace(before=page.keys[0].key)
            last_key = page.keys[-1].key
            open_hole = None
        numbers.append(each.number)
        found.has_end = each.kind == END
        if each.kind != END:
            digests.append(each.digest)
    in_order = numbers == list(range(1, len(numbers) + 1))
    if found.end is not None:
        said = found.end
        found.is_in_order = (
            in_order and said.parts == len(digests) and said.digest == digest_of(digests)
        )
    else:
        found.is_in_order = in_order
    return found


def _take(found: Contents, part: Part) -> SavedPage | None:
    found.parts += 1
    if part.kind not in KINDS:
        found.unknown_kinds.add(part.kind)
    if part.body is None:
        return None
    if part.kind == AGREED:
        found.agreed_bytes += len(part.body)
    elif part.kind == END:
        with suppress(msgspec.DecodeError):
            found.end = msgspec.msgpack.decode(part.body, type=BackupEnd)
    elif part.kind == KEYS:
        page = decode_page(part.body)
        found.keys += len(page.keys)
        found.versions += sum(len(each.versions) for each in page.keys)
        return page
    return None


def pages(reader: BackupFile, key: BackupKey | None) -> Iterator[tuple[SavedPage, float]]:
    """Yield the readable pages of keys, and how far in the file each ends, from 0 to 1."""
    for each in reader.read(key):
        if isinstance(each, Part) and each.kind == KEYS and each.body is not None:
            yield decode_page(each.body), each.end / reader.size_bytes


def agreed_state(reader: BackupFile, key: BackupKey | None) -> bytes:
    """Return the control plane's snapshot, put together; empty where there is none.

    Raises AgentError for more than any covey agrees on.
    """
    found = bytearray()
    for each in reader.read(key):
        if isinstance(each, Part) and each.kind == AGREED and each.body is not None:
            found += each.body
            if len(found) > AGREED_BYTES_MAX:
                raise AgentError(
                    f"what this backup says was agreed on is more than {AGREED_BYTES_MAX} bytes, so"
                    " `covey backup create` has not made it; nothing was changed",
                    "take another file, or put back the keys alone with --keys-only",
                    NO,
                )
    return bytes(found)
