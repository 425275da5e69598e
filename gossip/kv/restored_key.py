"""A key out of a backup: its versions, as they were, under dots of now.

A dot is the name of one write in one covey's past, and what has seen it takes a version of that
name for one that was replaced long ago. So a version that comes back is a write of its own, with a
new dot; its value, which holds its type too, its stamp and whatever else a version has are copied
as they are. All versions of a key come in one step, beside each other as they were.
"""

from collections.abc import Callable, Sequence

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.kv.dots import Dot
from gossip.kv.limits import REQUEST_TIMEOUT_S, RESTORED_VERSIONS_MAX, VALUE_BYTES_MAX
from gossip.kv.records import KeyState, Record, Version, put

OTHER_VALUES = "the key has other values by now; they were left alone, so delete it first"

RESTORED_BYTES_MAX = 3 * VALUE_BYTES_MAX
"""As much as three coordinators at once can leave under one key (``limits.py``)."""


class RestoreKey(msgspec.Struct, frozen=True):
    """Write these versions, if the key has none.

    Where it has these very values, the outcome is "unchanged"; where it has others, it is refused.
    Looking and writing are two steps: what somebody writes in between stays beside them.
    """

    key: str
    versions: tuple[Version, ...]
    w: int | None = None
    timeout_s: float = REQUEST_TIMEOUT_S
    fsync: bool = False


def check_versions(versions: Sequence[Version]) -> None:
    """Raise InvalidRequest for what no key can have had."""
    if not 1 <= len(versions) <= RESTORED_VERSIONS_MAX:
        raise InvalidRequest(f"a key has 1 to {RESTORED_VERSIONS_MAX} versions")
    if sum(len(version.value) for version in versions) > RESTORED_BYTES_MAX:
        raise InvalidRequest(f"the versions of a key have at most {RESTORED_BYTES_MAX} bytes")


def are_the_same(some: Sequence[Version], others: Sequence[Version]) -> bool:
    """Tell whether two sets of versions differ in nothing but the names of their writes."""
    return sorted(map(_nameless, some)) == sorted(map(_nameless, others))


def _nameless(version: Version) -> Version:
    return msgspec.structs.replace(version, actor=0, n=1)


def put_back(
    record: Record, versions: Sequence[Version], next_dot: Callable[[], Dot]
) -> tuple[Record, KeyState, Dot]:
    """Add versions to what is here; return the record, what to tell, and the last new dot."""
    assert versions, "there is something to put back"
    state, dot = KeyState(), (0, 0)
    for version in versions:
        dot = next_dot()
        fresh = msgspec.structs.replace(version, actor=dot[0], n=dot[1])
        record, state = put(record, fresh, ())
    return record, state, dot
