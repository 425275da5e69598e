"""Every interval and limit of a Raft group, with its unit and its reason (rule 10).

The intervals are for SD cards, which stall for seconds: a group that elects within 5 to 10 s
outlives such a stall, where one that is tuned for an SSD would elect anew at each.
"""

import msgspec

from gossip.consensus.messages import CHUNK_BYTES_MAX, COMMAND_BYTES_MAX, ENTRIES_MAX


class ConsensusTuning(msgspec.Struct, frozen=True, kw_only=True):
    """One set of intervals and limits; the same on all who take part."""

    # Elections.
    heartbeat_s: float = 1.0
    """A leader is heard this often."""
    election_min_s: float = 5.0
    """A follower waits so long for its leader at least, and does not vote for another before ..."""
    election_max_s: float = 10.0
    """... and less than so long: each wait is drawn anew, so that votes are seldom split."""

    # Replication.
    append_bytes_max: int = 256 * 1024
    """Entries of one Append, unless a single one is larger."""
    append_entries_max: int = 256
    inflight_max: int = 32
    """Appends under way to one follower ..."""
    inflight_bytes_max: int = 1024 * 1024
    """... and the bytes in them."""
    uncommitted_bytes_max: int = 4 * 1024 * 1024
    """What a leader takes in before it is committed; beyond, proposals are refused."""

    # Snapshots.
    trailing_entries: int = 1_000
    """Entries kept behind a snapshot: who was away for minutes needs no snapshot ..."""
    trailing_bytes: int = 4 * 1024 * 1024
    """... unless they take more than this."""
    chunk_bytes: int = 64 * 1024
    """A snapshot travels and is stored in pieces of this size."""
    chunk_window: int = 4
    """Chunks under way to one follower."""

    transfer_patience_s: float = 600.0
    """No newer snapshot takes the place of one that somebody is getting, for so long."""

    # Reads.
    read_timeout_s: float = 5.0
    """A read that is not answered by then has failed ..."""
    read_retry_s: float = 1.0
    """... and until then is asked again this often, each time under a number of its own."""
    reads_max: int = 4096
    """Reads under way here, our own and forwarded ones."""

    # Changes of who takes part.
    learner_lag_entries: int = 1_000
    """A learner that is at most so far behind has caught up ..."""
    learner_settle_s: float = 60.0
    """... and may be a voter when that was so for this long."""

    def __post_init__(self) -> None:
        assert 0 < 2 * self.heartbeat_s <= self.election_min_s, "one lost heartbeat elects nobody"
        assert self.election_min_s < self.election_max_s, "waits are drawn from a range"
        assert 0 < self.chunk_bytes <= CHUNK_BYTES_MAX, "a chunk fits a frame"
        assert 0 < self.append_bytes_max <= COMMAND_BYTES_MAX, "an Append fits a frame"
        assert 0 < self.append_entries_max <= ENTRIES_MAX, "an Append decodes"
        assert min(self.inflight_max, self.chunk_window, self.reads_max) > 0, "something may move"
        assert self.read_retry_s <= self.read_timeout_s, "a read is asked at least once"
        assert self.learner_lag_entries >= 0 <= self.learner_settle_s, "no learner is early"
