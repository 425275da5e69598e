"""How a registry tells where it comes from: the marks of those before it.

A *mark* is a hash of a registry's bytes as they were signed. The next registry begins its
``lineage`` with it, so that whoever follows one of the last few dozen can tell a successor from
the registry of another past. An issuer whose disk was set back to a backup signs an epoch a second
time, with other bytes: a *fork*, in which each half of the covey takes its own for the newest.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated

import msgspec

MARK_BYTES = 16
LINEAGE_MAX = 64
"""One kilobyte. Who missed more changes than these cannot tell any more, and follows."""

Mark = Annotated[bytes, msgspec.Meta(min_length=MARK_BYTES, max_length=MARK_BYTES)]


def mark_of(payload: bytes) -> Mark:
    """Return what names these signed bytes."""
    return blake2b(payload, digest_size=MARK_BYTES, person=b"covey registry").digest()


def mark_at(epoch: int, newest: int, mark: Mark, lineage: Sequence[Mark]) -> Mark | None:
    """Return the mark that the registry of an epoch had, in the past of the one of ``newest``.

    None when that was too long ago, or is yet to come.

    >>> mark_at(3, 4, b"d", [b"c", b"b"]), mark_at(1, 4, b"d", [b"c", b"b"])
    (b'c', None)
    """
    behind = newest - epoch
    if behind == 0:
        return mark
    return lineage[behind - 1] if 0 < behind <= len(lineage) else None
