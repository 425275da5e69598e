"""Snapshots: made of the application's state, and sent to whoever is too far behind (rule 8).

One is kept on disk in chunks, read and sent piece by piece, so that it never stands in memory as a
whole. The receiver says how many chunks it has on disk, and the sender goes on from there, however
often either was interrupted. Each chunk has a CRC, and all of them together another one.
"""

from gossip.consensus import messages as m
from gossip.consensus.configuration import Voter
from gossip.consensus.outbound import Token
from gossip.consensus.progress import Progress, ReplicationPhase
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.replication import Replication
from gossip.consensus.requests import Snapshot
from gossip.consensus.snapshot_arrival import SnapshotArrival
from gossip.consensus.storage import ArrivalChange, ChunkSource, checksum, mark_of, pieces
from gossip.core.errors import InvalidRequest

PORTION_BYTES = 256 * 1024
"""So much of a snapshot is written in one batch: a vote does not wait behind all of it."""


class SnapshotSender:
    """Takes snapshots of the application over, and sends them while we lead."""

    def __init__(
        self,
        state: ReplicaState,
        replication: Replication,
        arriving: SnapshotArrival,
        chunks: ChunkSource,
    ) -> None:
        self._state = state
        self._replication = replication
        self._arriving = arriving
        self._chunks = chunks
        self._making: m.SnapshotMark | None = None
        """The snapshot of ours that is on its way to the disk, its data ..."""
        self._data = b""
        self._written = 0
        """... how many of its chunks were handed to the disk ..."""
        self._portion: Token = 0
        """... and the batch with the last of these."""
        arriving.on_begin = self._give_up

    def compacted(self, snapshot: Snapshot) -> bool:
        """Take over a snapshot of the application's state; it counts once it is on the disk.

        False, and nothing is done, while that would spoil a transfer that is under way: hand over
        another one later. Raises InvalidRequest for an index that is not applied.
        """
        state, log = self._state, self._state.log
        if snapshot.index > log.applied:
            raise InvalidRequest(
                f"a snapshot at {snapshot.index} is ahead of what is applied, {log.applied}"
            )
        known = log.snapshot.index if log.snapshot else 0
        if snapshot.index <= known or snapshot.index < log.first_index or self._is_busy():
            state.counts["consensus_snapshots/not_taken"] += 1
            return False
        term = log.term_at(snapshot.index)
        assert term is not None, "what is applied and not compacted is in the log"
        effective = log.configuration_at(snapshot.index)
        mark = mark_of(snapshot.data, snapshot.index, term, effective, state.tuning.chunk_bytes)
        self._making, self._data, self._written = mark, snapshot.data, 0
        state.outbound.change(ArrivalChange(mark))
        self._portion = 0
        return True

    def write(self) -> None:
        """Hand the next portion to the disk, when the one before is on it; count the whole one."""
        state, mark = self._state, self._making
        if mark is None or not state.outbound.is_saved(self._portion):
            return
        until = min(self._written + max(1, PORTION_BYTES // mark.chunk_bytes), mark.chunks)
        state.outbound.change(*pieces(mark, self._data, self._written, until))
        self._written, self._portion = until, state.outbound.latest
        if until == mark.chunks:
            self._give_up()
            state.log.compact(mark, state.tuning.trailing_entries, state.tuning.trailing_bytes)
            state.counts["consensus_snapshots/made"] += 1

    def _give_up(self) -> None:
        """Write no further: it is whole, or one arrives from a leader in its place."""
        self._making, self._data = None, b""

    def _is_busy(self) -> bool:
        if self._making is not None or self._arriving.is_under_way():
            return True
        return any(self._is_transfer(each) for each in self._replication.active())

    def _is_transfer(self, progress: Progress) -> bool:
        """Tell whether somebody is getting the snapshot that counts, and not for too long."""
        state = self._state
        return (
            progress.phase is ReplicationPhase.SNAPSHOT
            and state.now - progress.heard < state.tuning.election_min_s
            and state.now - progress.snapshot_since < state.tuning.transfer_patience_s
        )

    def flush(self) -> None:
        """Send everybody who gets a snapshot its next chunks."""
        if self._state.outbound.is_saved(self._state.log.snapshot_batch):
            for progress in self._replication.active():
                if progress.phase is ReplicationPhase.SNAPSHOT:
                    self._send_chunks(progress)

    def _send_chunks(self, progress: Progress) -> None:
        mark = self._state.log.snapshot
        assert mark is not None, "a snapshot is sent"
        if progress.mark != mark:
            progress.send_snapshot(mark, self._state.now)
        # Until it has said how much it has, one chunk asks.
        window = self._state.tuning.chunk_window if progress.chunks_stored else 1
        until = min(progress.chunks_stored + window, mark.chunks)
        for number in range(progress.chunks_sent, until):
            self._send(progress, mark, number)
        progress.chunks_sent = max(progress.chunks_sent, until)

    def _send(self, progress: Progress, mark: m.SnapshotMark, number: int) -> None:
        data = self._chunks.chunk(mark, number)
        self._state.counts["consensus_snapshots/chunks_sent"] += 1
        self._state.send(
            m.SnapshotChunk,
            progress.member,
            mark=mark,
            number=number,
            crc=checksum(data),
            data=data,
            after=0,
        )

    def answered(self, message: m.SnapshotReply, _sender: Voter) -> None:
        """The receiver has said how many chunks it has on disk."""
        progress = self._replication.heard(message.sender)
        if progress is None or progress.mark is None:
            return
        mark = progress.mark
        if (message.index, message.crc) == (mark.index, mark.crc):
            if message.following < progress.chunks_stored:
                # It was interrupted, and lost what had not reached its disk.
                progress.chunks_sent = message.following
            progress.chunks_stored = min(message.following, mark.chunks)
            progress.chunks_sent = max(progress.chunks_sent, progress.chunks_stored)

    def beat(self, progress: Progress) -> None:
        """It answered a heartbeat: what it did not acknowledge since the last one may be lost."""
        if progress.phase is ReplicationPhase.SNAPSHOT:
            if progress.chunks_stored == progress.chunks_seen:
                progress.chunks_sent = progress.chunks_stored
            progress.chunks_seen = progress.chunks_stored
