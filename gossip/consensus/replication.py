"""What a leader sends of its log, what comes back, and what is committed by that (rule 4)."""

from collections.abc import Callable, Iterable

from gossip.consensus import messages as m
from gossip.consensus.configuration import StoreId, Voter
from gossip.consensus.progress import Progress, ReplicationPhase
from gossip.consensus.replica_state import ReplicaState
from gossip.core.ids import NodeId


class Replication:
    """The leader's view of all others, while it leads."""

    def __init__(self, state: ReplicaState) -> None:
        self._state = state
        self.followers: dict[StoreId, Progress] = {}
        self.fenced: set[StoreId] = set()
        """Stores that live twice: none of them is heard or told anything (``clones.py``)."""
        self.round = 0
        """The number of the last heartbeat that was sent; never used twice by one process."""
        self.on_commit: Callable[[], None] = lambda: None
        self.on_accepted: Callable[[Progress], None] = lambda _progress: None

    def begin(self) -> None:
        """We lead: nothing is known of anybody."""
        self.end()
        self.update_members()

    def end(self) -> None:
        """We do not lead any more."""
        self.followers.clear()
        self.fenced.clear()

    def update_members(self) -> None:
        """Go by the configuration in effect: begin with who is new, forget who is gone."""
        state = self._state
        members = {voter.store: voter for voter in state.others()}
        self.fenced &= members.keys()
        self.followers = {
            store: self.followers.get(store)
            or Progress(voter, state.log.last_index + 1, state.tuning, state.now)
            for store, voter in members.items()
        }

    def heard(self, store: StoreId) -> Progress | None:
        """Note that somebody answers us in this term; return what we know of it."""
        progress = self.followers.get(store)
        if progress is not None:
            progress.heard = self._state.now
        return progress

    def active(self) -> Iterable[Progress]:
        """Return those that we talk with."""
        return [each for store, each in self.followers.items() if store not in self.fenced]

    def unreachable(self, node: NodeId) -> None:
        """Frames to a node may be lost: find out what has arrived."""
        for progress in self.followers.values():
            if progress.member.node == node and progress.phase is ReplicationPhase.REPLICATE:
                progress.probe()

    # Sending.

    def flush(self) -> None:
        """Send everybody what it lacks, as far as its window goes."""
        for progress in self.active():
            self._send_portions(progress)

    def _send_portions(self, progress: Progress) -> None:
        state, tuning = self._state, self._state.tuning
        while progress.has_room:
            if progress.following < state.log.first_index:
                self._begin_snapshot(progress)
                return
            entries = state.log.portion(
                progress.following, tuning.append_entries_max, tuning.append_bytes_max
            )
            if not entries and progress.phase is ReplicationPhase.REPLICATE:
                break
            self._append(progress, entries)
        self._tell_commit(progress)

    def _begin_snapshot(self, progress: Progress) -> None:
        mark = self._state.log.snapshot
        assert mark is not None, "what is compacted is in a snapshot"
        self._state.counts["consensus_snapshots/begun"] += 1
        progress.send_snapshot(mark, self._state.now)

    def _append(self, progress: Progress, entries: tuple[m.Entry, ...]) -> None:
        state = self._state
        previous = progress.following - 1
        term = state.log.term_at(previous)
        assert term is not None, "what is compacted is not sent"
        state.send(
            m.Append,
            progress.member,
            previous_index=previous,
            previous_term=term,
            commit=state.log.commit,
            entries=entries,
            after=0,
        )
        progress.asked_round = self.round
        last = previous + len(entries)
        progress.commit_told = min(state.log.commit, last)
        if entries or progress.phase is ReplicationPhase.PROBE:
            progress.sent(last, sum(m.entry_bytes(entry) for entry in entries))

    def _tell_commit(self, progress: Progress) -> None:
        """Tell who has everything that more of it is committed: it has reads that wait for it."""
        told = min(self._state.log.commit, progress.following - 1)
        if progress.phase is ReplicationPhase.REPLICATE and progress.commit_told < told:
            self._append(progress, ())

    # What comes back.

    def answered(self, message: m.AppendReply, _sender: Voter) -> None:
        """Take in how an Append ended."""
        progress = self.heard(message.sender)
        if progress is None:
            return
        if message.accepted:
            self._accepted(progress, message.index)
        else:
            self._refused(progress, message)

    def _accepted(self, progress: Progress, index: int) -> None:
        state = self._state
        if index > state.log.last_index:
            state.drop("ahead")
            return
        is_behind_snapshot = index + 1 < state.log.first_index
        if progress.phase is ReplicationPhase.SNAPSHOT and not is_behind_snapshot:
            # However it got there, the log is enough from here on.
            progress.probe()
        is_news = progress.accepted(index)
        progress.note_lag(state.log.last_index, state.now)
        if is_news:
            self.advance()
        self.on_accepted(progress)

    def _refused(self, progress: Progress, message: m.AppendReply) -> None:
        """Go back: over a whole term in one step, by what both logs say of terms (section 5.3)."""
        agreed, _ = self._state.log.agreement(message.hint_index, message.hint_term)
        if progress.refused(message.index, agreed):
            self._state.counts["consensus_appends/refused"] += 1

    def beat(self, progress: Progress, answered: int) -> None:
        """It answered a heartbeat: find out whether what was sent before that was lost."""
        log = self._state.log
        progress.note_lag(log.last_index, self._state.now)
        if answered <= progress.asked_round:
            return
        progress.unblock()
        if progress.phase is ReplicationPhase.REPLICATE and progress.match < log.last_index:
            if progress.following < log.first_index:
                progress.probe()
            else:
                self._append(progress, ())

    # What is committed.

    def reached(self, store: StoreId) -> int:
        """Return up to where a store has the log on its disk."""
        state = self._state
        if store == state.me.store:
            return state.log.stable
        progress = self.followers.get(store)
        return progress.match if progress is not None and store not in self.fenced else 0

    def may_commit(self, index: int) -> bool:
        """Tell whether what a majority has at an index is thereby committed (rule 4).

        Only an entry of this term is: one of an earlier term may be on a majority and still be
        replaced (Ongaro and Ousterhout 2014, figure 8). With it, all before it are.
        """
        return self._state.log.term_at(index) == self._state.term

    def advance(self) -> None:
        """Commit what a quorum has."""
        index = self._state.configuration.agreed(self.reached)
        if index > self._state.log.commit and self.may_commit(index):
            self._state.log.commit_to(index)
            self.on_commit()
