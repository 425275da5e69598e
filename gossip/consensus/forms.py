"""What a log and a snapshot can look like at all: looked at before anything of them is used.

Raft's followers and those who only copy the log take entries and marks from others, and what they
do with them rests on this.
"""

from collections.abc import Sequence

import msgspec

from gossip.consensus.configuration import decode_configuration
from gossip.consensus.messages import SNAPSHOT_CHUNKS_MAX, Entry, EntryKind, SnapshotMark


def entries_follow(entries: Sequence[Entry], index: int, term: int) -> bool:
    """Tell whether entries can follow in a log on the one of this index and term."""
    for entry in entries:
        if entry.index != index + 1 or entry.term < max(1, term):
            return False
        if entry.kind is EntryKind.CONFIGURATION and not is_configuration(entry.data):
            return False
        index, term = entry.index, entry.term
    return True


def is_configuration(data: bytes) -> bool:
    """Tell whether the data of an entry is a configuration."""
    try:
        decode_configuration(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def is_possible(mark: SnapshotMark) -> bool:
    """Tell whether there can be a snapshot that is described like this."""
    is_of_a_log = mark.index > 0 and mark.term > 0 and mark.configuration_index <= mark.index
    return is_of_a_log and mark.chunks <= SNAPSHOT_CHUNKS_MAX
