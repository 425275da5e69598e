"""A snapshot that arrives from the leader: to disk chunk by chunk, then whole in one step (rule 8).

What has arrived stays on disk over a restart, and the transfer goes on behind it. Until all is
there and its CRC fits, the log and the application are as they were.
"""

from collections.abc import Callable

from gossip.consensus import messages as m
from gossip.consensus.configuration import Voter
from gossip.consensus.following import Following
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.requests import ConfigurationChanged, SnapshotInstalled
from gossip.consensus.storage import ArrivalChange, ChunkChange, StoredState, checksum


class SnapshotArrival:
    """The snapshot that a follower is getting, if it is getting one."""

    def __init__(self, state: ReplicaState, following: Following, stored: StoredState) -> None:
        self._state = state
        self._following = following
        self._chunks = stored.chunks
        self._mark, self._arrived = stored.arriving, stored.arrived
        self._crc: int | None = None if self._arrived else 0
        """Of the chunks that are there; None until those of before a restart were read."""

        self.on_begin: Callable[[], None] = lambda: None
        """Told before a snapshot takes the place of whatever else was on its way to the disk."""

    def is_under_way(self) -> bool:
        """Tell whether something newer than what we have is arriving from a leader."""
        return self._mark is not None and self._mark.index > self._state.log.commit

    def installed_before(self) -> None:
        """Hand the snapshot that a start found on disk to the application."""
        if self._state.log.snapshot is not None:
            self._hand_over(self._state.log.snapshot)

    def chunk(self, message: m.SnapshotChunk, leader: Voter) -> None:
        """Take in a chunk: the next one is kept, any other only answered with which that is."""
        if not self._following.follow(leader):
            return
        log, mark = self._state.log, message.mark
        if mark.index <= log.commit or log.follows(mark.index, mark.term):
            # The log got there without it.
            log.commit_to(mark.index)
            self._following.accept_snapshot(leader)
            return
        if mark != self._mark and message.number == 0:
            self._begin(mark)
        if mark != self._mark:
            self._reply(mark, 0, leader)
            return
        if message.number == self._arrived and not self._keep(message):
            return
        if self._arrived == mark.chunks:
            self._install(mark, leader)
        else:
            self._reply(mark, self._arrived, leader)

    def _begin(self, mark: m.SnapshotMark | None) -> None:
        self.on_begin()
        self._mark, self._arrived, self._crc = mark, 0, 0
        self._state.outbound.change(ArrivalChange(mark))

    def _keep(self, message: m.SnapshotChunk) -> bool:
        """Keep the next chunk; False if all of them are no snapshot.

        Each one was whole on its way, so somebody's disk lies. Nothing is said: the leader asks
        with its next heartbeats, and sends again no faster than these.
        """
        self._crc = checksum(message.data, self._crc_so_far())
        self._arrived += 1
        self._state.outbound.change(ChunkChange(message.number, message.data))
        if self._arrived == message.mark.chunks and self._crc != message.mark.crc:
            self._state.drop("snapshot_crc")
            self._begin(None)
            return False
        return True

    def _crc_so_far(self) -> int:
        if self._crc is None:
            assert self._mark is not None, "chunks are of a snapshot"
            self._crc = 0
            for number in range(self._arrived):
                self._crc = checksum(self._chunks.chunk(self._mark, number), self._crc)
        return self._crc

    def _reply(self, mark: m.SnapshotMark, following: int, leader: Voter) -> None:
        """Say what is on disk, once it is (rule 1)."""
        state = self._state
        state.send(
            m.SnapshotReply,
            leader,
            index=mark.index,
            crc=mark.crc,
            following=following,
            after=state.outbound.latest,
        )

    def _install(self, mark: m.SnapshotMark, leader: Voter) -> None:
        """Put the snapshot in the place of everything, and the log behind it."""
        state = self._state
        self._mark, self._arrived, self._crc = None, 0, 0
        state.log.restore(mark)
        state.counts["consensus_snapshots/installed"] += 1
        state.outbound.when_saved(state.outbound.latest, lambda: self._hand_over(mark))
        self._following.accept_snapshot(leader)

    def _hand_over(self, mark: m.SnapshotMark) -> None:
        state = self._state
        if state.log.snapshot != mark:
            return
        data = b"".join(self._chunks.chunk(mark, number) for number in range(mark.chunks))
        state.outbound.emit(SnapshotInstalled(mark.index, data))
        state.outbound.emit(ConfigurationChanged(mark.configuration_index, mark.configuration))
