"""How far the leader believes one of the others to be, and what may be sent to it now.

``PROBE``: it is not known where its log agrees with ours; one Append at a time asks.
``REPLICATE``: it is; Appends follow each other without waiting, within a window.
``SNAPSHOT``: what it needs next is compacted; it gets a snapshot, and no Appends meanwhile.
"""

import enum
from collections import deque

from gossip.consensus.configuration import Voter
from gossip.consensus.messages import SnapshotMark
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.machine import Instant


class ReplicationPhase(enum.StrEnum):
    """What is known of a follower's log."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One of the others, in the eyes of the leader."""

    def __init__(
        self, member: Voter, following: int, tuning: ConsensusTuning, now: Instant
    ) -> None:
        self.member = member
        self.phase = ReplicationPhase.PROBE
        self.match = 0
        """All up to here is on its disk, as it said in this term."""
        self.following = following
        """The next entry to send it."""
        self.is_paused = False
        """In PROBE: an Append is under way, and its answer is awaited."""
        self.commit_told = 0
        self.heard: Instant = now
        self.round = 0
        """The last heartbeat that it answered."""
        self.asked_round = 0
        """The last heartbeat that was sent before it was asked or sent something."""
        self.caught_up: Instant | None = None
        """Since when it has been close behind us, without a break."""
        self.mark: SnapshotMark | None = None
        """In SNAPSHOT: what it gets ..."""
        self.chunks_stored = 0
        """... how much of it is on its disk ..."""
        self.chunks_sent = 0
        """... how much was sent ..."""
        self.chunks_seen = -1
        """... how much it had at the last heartbeat that it answered."""
        self.snapshot_since: Instant = now
        self._tuning = tuning
        self._inflight: deque[tuple[int, int]] = deque()
        self._inflight_bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether an Append with entries may be sent now."""
        match self.phase:
            case ReplicationPhase.PROBE:
                return not self.is_paused
            case ReplicationPhase.REPLICATE:
                return (
                    len(self._inflight) < self._tuning.inflight_max
                    and self._inflight_bytes < self._tuning.inflight_bytes_max
                )
            case ReplicationPhase.SNAPSHOT:
                return False

    def sent(self, last_index: int, size_bytes: int) -> None:
        """An Append that ends with this entry was sent."""
        if self.phase is ReplicationPhase.PROBE:
            self.is_paused = True
            return
        self.following = last_index + 1
        self._inflight.append((last_index, size_bytes))
        self._inflight_bytes += size_bytes

    def accepted(self, index: int) -> bool:
        """It has all up to an index; True if that is news."""
        self._arrived(index)
        is_news = index > self.match
        self.match = max(self.match, index)
        self.following = max(self.following, index + 1)
        if self.phase is ReplicationPhase.PROBE:
            self.phase = ReplicationPhase.REPLICATE
            self.following = self.match + 1
        return is_news

    def refused(self, index: int, agreed_index: int) -> bool:
        """What followed on this index did not fit; go back to where the logs may agree.

        False for an answer to a question that is not open any more. So is one about an entry that
        it has said to have: it is late, or the disk was set back behind its word. Then nothing
        fits in this term, and who asked again at once would ask as fast as the network goes.
        """
        if self.phase is ReplicationPhase.SNAPSHOT or index <= self.match:
            return False
        if self.phase is ReplicationPhase.PROBE and index != self.following - 1:
            return False
        self.probe(max(self.match, min(index - 1, agreed_index)) + 1)
        return True

    def probe(self, following: int | None = None) -> None:
        """Ask anew where the logs agree: from here on, or behind what is known to be there."""
        self.phase = ReplicationPhase.PROBE
        self.following = self.match + 1 if following is None else following
        self.is_paused = False
        self.mark = None
        self._inflight.clear()
        self._inflight_bytes = 0

    def send_snapshot(self, mark: SnapshotMark, now: Instant) -> None:
        """Begin to send a snapshot; its first chunk asks how much of it is there already."""
        self.probe()
        self.phase = ReplicationPhase.SNAPSHOT
        self.mark, self.snapshot_since = mark, now
        self.chunks_stored = self.chunks_sent = 0
        self.chunks_seen = -1

    def note_lag(self, last_index: int, now: Instant) -> None:
        """Note whether it is close behind the leader's last entry."""
        if self.match + self._tuning.learner_lag_entries < last_index:
            self.caught_up = None
        elif self.caught_up is None and self.phase is ReplicationPhase.REPLICATE:
            self.caught_up = now

    def has_settled(self, now: Instant) -> bool:
        """Tell whether it has been close behind for long enough to get a vote (rule 5)."""
        since = self.caught_up
        return since is not None and now - since >= self._tuning.learner_settle_s

    def unblock(self) -> None:
        """It answered a later heartbeat than our last question: that may be lost, so ask again."""
        self.is_paused = False
        if self._inflight and not self.has_room:
            self._inflight_bytes -= self._inflight.popleft()[1]

    def _arrived(self, index: int) -> None:
        while self._inflight and self._inflight[0][0] <= index:
            self._inflight_bytes -= self._inflight.popleft()[1]
