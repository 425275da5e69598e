"""Every frame of one Raft group, and the entries of its log.

Each message begins alike: the *generation* of the group, which only a recovery after the loss of a
majority raises; the *store* that speaks and the one that is spoken to, for a log is a voter and a
node is only its address; the *boot* of the speaker, by which two copies of one card are told apart;
and its *term*. What does not fit is counted and dropped before it means anything.

The bytes of each message are pinned in ``tests/vectors/consensus-v1.json``.
"""

import enum
from typing import Annotated

import msgspec

from gossip.consensus.configuration import Configuration, StoreNumber
from gossip.core.wire import Codec

NUMBER_MAX = 2**62
"""Terms and indices end here, so that each of them fits a signed 64-bit column with room to add."""
COMMAND_BYTES_MAX = 512 * 1024
"""The largest command; an Append takes at least one of them, and a frame has 1 MiB."""
ENTRIES_MAX = 1024
"""Entries of one Append."""
CHUNK_BYTES_MAX = 256 * 1024
"""The largest piece of a snapshot in one frame."""
SNAPSHOT_BYTES_MAX = 128 * 2**20
"""More than any state that the control plane takes in; nobody makes room for more."""
SNAPSHOT_CHUNKS_MAX = 2**16
GENERATION_MAX = 2**29
"""Each generation begins 2^32 indices later, so that the last of them still has half of all."""
CRC_MAX = 2**32 - 1

Natural = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
Generation = Annotated[int, msgspec.Meta(ge=0, le=GENERATION_MAX)]
Identity = Annotated[int, msgspec.Meta(ge=0)]
Crc = Annotated[int, msgspec.Meta(ge=0, le=CRC_MAX)]


class EntryKind(enum.IntEnum):
    """What an entry is for."""

    NOTHING = 0
    """The first entry of a leader: with it, what came before is committed (rule 4)."""
    COMMAND = 1
    """The application's; this room does not look into it."""
    CONFIGURATION = 2
    """An encoded ``Configuration``; in effect from the moment it is in the log."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One place of the log. No two entries of one index and term differ, anywhere, ever."""

    index: Natural
    term: Natural
    kind: EntryKind
    data: Annotated[bytes, msgspec.Meta(max_length=COMMAND_BYTES_MAX)] = b""


class SnapshotMark(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot is, without its bytes: the state when ``index`` had been applied.

    ``configuration`` is the one at that index, and ``configuration_index`` that of its entry.
    ``size_bytes`` and ``crc`` (CRC-32) are of all its data; all chunks but the last have
    ``chunk_bytes``.
    """

    index: Natural
    term: Natural
    configuration: Configuration
    configuration_index: Natural
    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=SNAPSHOT_BYTES_MAX)]
    crc: Crc
    chunk_bytes: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_BYTES_MAX)]

    @property
    def chunks(self) -> int:
        """Into how many chunks its data is cut; nothing at all is one, too."""
        return max(1, -(-self.size_bytes // self.chunk_bytes))

    def chunk_size(self, number: int) -> int:
        """Return how many bytes a chunk has."""
        return min(self.chunk_bytes, self.size_bytes - number * self.chunk_bytes)


class Header(msgspec.Struct, frozen=True, array_like=True):
    """How every message begins."""

    generation: Generation
    sender: StoreNumber
    receiver: StoreNumber
    boot: Identity
    term: Natural


class PreVoteRequest(Header, frozen=True, array_like=True, tag=112):
    """Would you vote for me in ``term``, one above mine? Changes nothing on either side.

    ``last_index`` and ``last_term`` are of the asker's last entry.
    """

    last_index: Natural
    last_term: Natural


class PreVoteReply(Header, frozen=True, array_like=True, tag=113):
    """Granted: I would, and ``term`` is the one asked about. Otherwise ``term`` is mine."""

    granted: bool


class VoteRequest(Header, frozen=True, array_like=True, tag=114):
    """Vote for me. ``transfer``: the leader of before asked me to, so do not wait for it."""

    last_index: Natural
    last_term: Natural
    transfer: bool


class VoteReply(Header, frozen=True, array_like=True, tag=115):
    """My vote of this term is yours, and on my disk; or it is not."""

    granted: bool


class Append(Header, frozen=True, array_like=True, tag=116):
    """These entries follow on ``previous``; what is up to ``commit`` is committed."""

    previous_index: Natural
    previous_term: Natural
    commit: Natural
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=ENTRIES_MAX)]


class AppendReply(Header, frozen=True, array_like=True, tag=117):
    """Accepted: my log is as yours up to ``index``, and on my disk.

    Otherwise nothing follows on the ``previous`` of the index ``index``. The hint is where ours may
    agree: my last entry at or before it, of no larger term than yours has there.
    """

    accepted: bool
    index: Natural
    hint_index: Natural = 0
    hint_term: Natural = 0


class Heartbeat(Header, frozen=True, array_like=True, tag=118):
    """I lead. ``round`` grows with each heartbeat; ``commit`` is of what the receiver has."""

    round: Natural
    commit: Natural


class HeartbeatReply(Header, frozen=True, array_like=True, tag=119):
    """I followed you when I heard this round."""

    round: Natural


class SnapshotChunk(Header, frozen=True, array_like=True, tag=120):
    """One piece of a snapshot, counted from 0, with a CRC-32 of its own."""

    mark: SnapshotMark
    number: Natural
    crc: Crc
    data: Annotated[bytes, msgspec.Meta(max_length=CHUNK_BYTES_MAX)]


class SnapshotReply(Header, frozen=True, array_like=True, tag=121):
    """Of the snapshot of this index and CRC, I have all chunks before ``following`` on disk."""

    index: Natural
    crc: Crc
    following: Natural


class TimeoutNow(Header, frozen=True, array_like=True, tag=122):
    """Stand for election at once: I hand over to you."""


class ReadRequest(Header, frozen=True, array_like=True, tag=123):
    """Which index must be applied, for a read that begins now? Numbers are never used again."""

    number: Identity


class ReadReply(Header, frozen=True, array_like=True, tag=124):
    """This index; None: I cannot tell."""

    number: Identity
    index: Natural | None


Message = (
    PreVoteRequest
    | PreVoteReply
    | VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | SnapshotChunk
    | SnapshotReply
    | TimeoutNow
    | ReadRequest
    | ReadReply
)

ANSWERS = (PreVoteReply, VoteReply, AppendReply, HeartbeatReply, SnapshotReply)
"""What is sent to a leader or a candidate: from members of its configuration alone."""

CODEC: Codec[Message] = Codec(Message)


def entry_bytes(entry: Entry) -> int:
    """Return what an entry counts for, in memory and in a frame."""
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


ENTRY_OVERHEAD_BYTES = 32
"""Index, term, kind and lengths; a little more than msgpack takes."""
