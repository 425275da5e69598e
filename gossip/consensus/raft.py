"""One store of one Raft group: everything in this room, wired on one screen.

What a command goes through: ``propose`` → ``log`` → ``replication`` sends it to the others while
our own disk takes it → their ``following`` appends, and answers once theirs has it →
``replication`` commits what a quorum has → ``Committed``. What a read goes through: ``read`` →
``pending_reads`` → ``read_index`` at the leader asks a quorum by a heartbeat → ``ReadReady``.

This is a machine as in ``gossip/core/machine.py``, except that frames come in whole and from an
authenticated node. It is given no list of members and no opinion of who is alive, and asks for
none: who votes stands in the log alone (rule 12).
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gossip.consensus import messages as m
from gossip.consensus.configuration import Configuration, StoreId, Voter, decode_configuration
from gossip.consensus.election import Election
from gossip.consensus.following import Following
from gossip.consensus.heartbeats import Heartbeats
from gossip.consensus.holds import Hold
from gossip.consensus.misfits import joins, misfit
from gossip.consensus.pending_reads import PendingReads
from gossip.consensus.progress import Progress
from gossip.consensus.read_index import ReadIndex
from gossip.consensus.reconfiguration import Reconfiguration
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.replication import Replication
from gossip.consensus.requests import (
    Committed,
    ConfigurationChanged,
    NotLeader,
    Overloaded,
    Snapshot,
)
from gossip.consensus.roles import Role
from gossip.consensus.snapshot_arrival import SnapshotArrival
from gossip.consensus.snapshots import SnapshotSender
from gossip.consensus.status import ConsensusStatus, status_of
from gossip.consensus.storage import StoredState
from gossip.consensus.transfer import LeadershipTransfer
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.errors import InvalidRequest, LimitExceeded, RemoteError
from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Effect, Instant


class Raft:
    """One store, as a machine. ``boot`` must be random and new at every start of the process.

    ``stored`` is what its disk has: ``founded`` for the first voter of a group, ``blank`` for a
    store that is to join one. Raises ValueError if it is damaged.
    """

    def __init__(
        self,
        me: Voter,
        boot: Boot,
        stored: StoredState,
        tuning: ConsensusTuning,
        rng: random.Random,
        now: Instant,
    ) -> None:
        state = self._state = ReplicaState(me, boot, stored, tuning, rng, now)
        self.election = Election(state)
        self.following = Following(state, self.election)
        self.replication = Replication(state)
        self.heartbeats = Heartbeats(state, self.replication)
        self.read_index = ReadIndex(state, self.heartbeats)
        self.reads = PendingReads(state, self.read_index)
        self.arriving = SnapshotArrival(state, self.following, stored)
        self.snapshots = SnapshotSender(state, self.replication, self.arriving, stored.chunks)
        self.reconfiguration = Reconfiguration(state, self.replication)
        self.transferring = LeadershipTransfer(state, self.replication)
        state.on_role = self._role_changed
        self.replication.on_commit = self._committed
        self.replication.on_accepted = self.transferring.accepted
        self.heartbeats.on_answer = self._heartbeat_answered
        self.heartbeats.on_round = self.read_index.confirm
        self.read_index.on_known = self.reads.known
        self._handlers: dict[type, Callable[[Any, Voter], object]] = {
            m.PreVoteRequest: self.election.pre_vote_asked,
            m.PreVoteReply: self.election.pre_vote_answered,
            m.VoteRequest: self.election.vote_asked,
            m.VoteReply: self.election.vote_answered,
            m.Append: self.following.append,
            m.AppendReply: self._if_leader(self.replication.answered),
            m.Heartbeat: self.following.beat,
            m.HeartbeatReply: self._if_leader(self.heartbeats.answered),
            m.SnapshotChunk: self.arriving.chunk,
            m.SnapshotReply: self._if_leader(self.snapshots.answered),
            m.TimeoutNow: self._asked_to_stand,
            m.ReadRequest: self.read_index.asked,
            m.ReadReply: self.reads.answered,
        }
        self._timed = (self.election, self.heartbeats, self.reads, self.transferring)
        self.on_other_generation: Callable[[int, NodeId], object] = lambda _generation, _peer: None
        """Told of each message that is of another generation than we, and who sent it."""
        self.arriving.installed_before()

    def _if_leader(self, handler: Callable[[Any, Voter], None]) -> Callable[[Any, Voter], None]:
        """Return a handler for what is only said to a leader, and comes late to who was one."""

        def handle(message: Any, sender: Voter) -> None:
            if not self._state.is_leader:
                self._state.drop("late")
            elif sender.store in self.replication.fenced:
                self._state.drop("fenced")
            else:
                handler(message, sender)

        return handle

    # How things stand.

    @property
    def me(self) -> Voter:
        """Which store this is, and where."""
        return self._state.me

    @property
    def role(self) -> Role:
        """What it does in its term."""
        return self._state.role

    @property
    def term(self) -> int:
        """The latest term that it knows of."""
        return self._state.term

    @property
    def generation(self) -> int:
        """Which generation of the group it belongs to; 0: none yet."""
        return self._state.generation

    @property
    def leader(self) -> Voter | None:
        """Whom it follows; itself, if it leads."""
        return self._state.leader

    @property
    def commit_index(self) -> int:
        """Up to where it knows that the log is committed."""
        return self._state.log.commit

    @property
    def last_index(self) -> int:
        """The index of its last entry."""
        return self._state.log.last_index

    @property
    def configuration(self) -> Configuration:
        """Who takes part, by its log; not committed yet, perhaps."""
        return self._state.configuration

    @property
    def counts(self) -> Counter[str]:
        """What happened so far, by "family/label"."""
        return self._state.counts

    def status(self) -> ConsensusStatus:
        """Return how things stand, for people."""
        return status_of(self._state, self.replication)

    # What applications ask.

    def propose(self, commands: Sequence[bytes], now: Instant) -> int:
        """Have commands committed in this order; return the index that the first of them has.

        What becomes of them is told by ``Committed``: an entry of the *same term* at that index is
        the command, another one means that a later leader replaced it. Raises NotLeader,
        Overloaded, InvalidRequest for no commands, or LimitExceeded; then nothing was begun.
        """
        self._lead(now)
        if not commands:
            raise InvalidRequest("no command was proposed")
        log, bytes_max = self._state.log, self._state.tuning.uncommitted_bytes_max
        if any(len(command) > m.COMMAND_BYTES_MAX for command in commands):
            raise LimitExceeded(f"a command has at most {m.COMMAND_BYTES_MAX} bytes")
        first = log.last_index + 1
        entries = [
            m.Entry(first + place, self._state.term, m.EntryKind.COMMAND, command)
            for place, command in enumerate(commands)
        ]
        size_bytes = sum(m.entry_bytes(entry) for entry in entries)
        is_lone = len(commands) == 1 and not log.uncommitted_bytes
        if log.uncommitted_bytes + size_bytes > bytes_max and not is_lone:
            self.counts["consensus_proposals/overloaded"] += 1
            raise Overloaded(
                f"{log.uncommitted_bytes} bytes wait to be committed here, and {size_bytes} more "
                f"would be above {bytes_max}; nothing was begun, try again in a moment"
            )
        log.append(entries)
        self.counts["consensus_proposals/taken"] += len(entries)
        return first

    def _lead(self, now: Instant) -> None:
        """Go on only as a leader that stays one. Raises NotLeader or Overloaded."""
        self._state.now = now
        if not self._state.is_leader:
            raise NotLeader(self._state.leader)
        if self.transferring.is_under_way:
            raise Overloaded("leadership is being handed over; nothing was begun, try again soon")
        hold = self._state.holds.current(now)
        if hold is not None:
            self.counts["consensus_proposals/held"] += 1
            raise Overloaded(f"{hold.value}; nothing was begun, try again later")

    def read(self, now: Instant) -> int:
        """Begin a linearizable read; ``ReadReady`` or ``ReadFailed`` carries the id returned.

        Raises Overloaded; then nothing was begun.
        """
        self._state.now = now
        return self.reads.begin()

    def change(self, target: Configuration, now: Instant) -> None:
        """Change who votes and who learns to what ``target`` says.

        ``ConfigurationChanged`` tells when it is done: with a configuration that is not joint.
        Raises NotLeader, Overloaded, or InvalidRequest with the rule that the change breaks.
        """
        self._lead(now)
        self.reconfiguration.change(target)
        self.replication.advance()

    def transfer(self, to: StoreId | None, now: Instant) -> None:
        """Hand leadership over to this voter, if it catches up within the shortest election wait.

        None: to whoever has most of the log, as when this node is about to end.

        ``RoleChanged`` tells of it. Raises NotLeader, Overloaded or InvalidRequest.
        """
        self._state.now = now
        if not self._state.is_leader:
            raise NotLeader(self._state.leader)
        self.transferring.begin(to)

    def hold_back(self, now: Instant, hold: Hold = Hold.DISK, *, held: bool) -> None:
        """Take nothing in while the disk refuses, or the application has halted; or again.

        A save that does not end is noticed here. Reads go on. A leader that is held for the
        shortest election wait hands over, again and again until it is not held, or another leads
        (rule 7).
        """
        self._state.now = now
        self._state.holds.set(hold, now, held=held)

    def compacted(self, snapshot: Snapshot, now: Instant) -> bool:
        """Take over a snapshot of the application's state at an index that it has applied.

        False, and nothing is done, where it is of no use or would spoil a transfer that is under
        way: hand over another one later. Raises InvalidRequest for an index that is not applied.
        """
        self._state.now = now
        return self.snapshots.compacted(snapshot)

    def applied(self, index: int) -> None:
        """The application has applied everything up to this index."""
        log = self._state.log
        if index > log.emitted:
            raise InvalidRequest(f"{index} was not handed to the application yet")
        log.applied = max(log.applied, index)
        self.reads.applied()

    def forget_leader(self, now: Instant) -> None:
        """Somebody believes that the leader is gone: vote and ask sooner. Only ever a hint."""
        self._state.now = now
        self.election.forget_leader()

    def peer_unreachable(self, node: NodeId, now: Instant) -> None:
        """Frames to a node may have been lost: find out what has arrived. Only ever a hint."""
        self._state.now = now
        self.replication.unreachable(node)

    # What the network, the disk and the clock bring.

    def receive(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in one frame from an authenticated node. Never raises for bad bytes: counts them."""
        self._state.now = now
        try:
            message = m.CODEC.decode(data)
        except RemoteError:
            self._state.drop("malformed")
            return
        if message is None:
            self._state.drop("unknown")
            return
        reason = misfit(self._state, message, peer)
        if reason is not None:
            self._state.drop(reason)
            if reason == "generation":
                self.on_other_generation(message.generation, peer)
            return
        if joins(self._state, message):
            self._state.adopt_generation(message.generation)
        self._accept(message, Voter(message.sender, peer))

    def _accept(self, message: m.Message, sender: Voter) -> None:
        """Compare terms, as with every message (section 5.1), then let somebody act on it."""
        state = self._state
        reason = self._untimely(message)
        if reason is not None:
            state.drop(reason)
            return
        if not self._is_hypothetical(message):
            if message.term > state.term:
                state.step_down(message.term)
            elif message.term < state.term and self._is_over(message, sender):
                return
        self._handlers[type(message)](message, sender)

    def _untimely(self, message: m.Message) -> str | None:
        """Return why a request for votes is not looked at now, if it is one (rule 3).

        Nothing of it is believed then, its term neither: it would end the leader's.
        """
        if not isinstance(message, m.PreVoteRequest | m.VoteRequest):
            return None
        if self.election.is_silent():
            return "silent"
        is_asked_for = isinstance(message, m.VoteRequest) and message.transfer
        return "sticky" if self.election.is_sticky() and not is_asked_for else None

    def _is_hypothetical(self, message: m.Message) -> bool:
        """Tell whether the term of a message is one that nobody may ever be in."""
        if isinstance(message, m.PreVoteReply):
            return message.granted
        return isinstance(message, m.PreVoteRequest)

    def _is_over(self, message: m.Message, sender: Voter) -> bool:
        """Tell whether a message of an earlier term is void; answer who needs to know of ours.

        A leader that nobody answers would go on for ever, and we could not come back (rule 3).
        """
        state = self._state
        match message:
            case m.PreVoteReply() | m.ReadRequest():
                return False
            case m.VoteRequest():
                state.send(m.VoteReply, sender, granted=False)
            case m.Append() | m.Heartbeat() | m.SnapshotChunk() | m.TimeoutNow():
                state.send(m.HeartbeatReply, sender, round=0)
            case _:
                pass
        state.drop("late")
        return True

    def _asked_to_stand(self, _message: m.TimeoutNow, sender: Voter) -> None:
        state = self._state
        may_stand = state.is_voter and not self.election.is_silent()
        if state.role is Role.FOLLOWER and sender == state.leader and may_stand:
            self.election.stand(transfer=True)
        else:
            state.drop("no_successor")

    def persisted(self, token: int, now: Instant) -> None:
        """The batch with this token, and all before it, are on disk."""
        self._state.now = now
        self._state.log.saved(token)
        self._state.outbound.saved(token, now)
        if self._state.is_leader:
            self.replication.advance()

    def wake(self, now: Instant) -> None:
        """Let due timers act."""
        self._state.now = now
        for part in self._timed:
            part.wake()

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        dues = [due for part in self._timed if (due := part.deadline()) is not None]
        return min(dues, default=None)

    def effects(self) -> Iterator[Effect]:
        """Drain what is to be done, in order: first what must be saved."""
        if self._state.is_leader:
            self.read_index.flush()
            self.replication.flush()
            self.snapshots.flush()
        self.snapshots.write()
        persist = self._state.outbound.flush(self._state.now)
        if persist is not None:
            self._state.log.flushed(persist.token)
            yield persist
        self._hand_on()
        yield from self._state.outbound.drain()

    def _hand_on(self) -> None:
        """Hand what is committed to the application."""
        entries = self._state.log.to_apply()
        if entries:
            self._state.outbound.emit(Committed(entries))
        for entry in entries:
            if entry.kind is m.EntryKind.CONFIGURATION:
                configuration = decode_configuration(entry.data)
                self._state.outbound.emit(ConfigurationChanged(entry.index, configuration))

    # What becomes of it.

    def _role_changed(self, before: Role) -> None:
        state = self._state
        if before is Role.LEADER:
            self._end_leading()
        if state.is_leader:
            self._begin_leading()
        elif before is not Role.FOLLOWER and state.role is Role.FOLLOWER:
            self.election.rest()
        self.reads.leader_changed()

    def _begin_leading(self) -> None:
        """Lead: with an entry of our own, by which what came before is committed (rule 4)."""
        log = self._state.log
        self.replication.begin()
        self.transferring.begin_leading()
        log.append([m.Entry(log.last_index + 1, self._state.term, m.EntryKind.NOTHING)])
        self.heartbeats.begin()

    def _end_leading(self) -> None:
        self.replication.end()
        self.heartbeats.end()
        self.transferring.end()
        self.read_index.end()

    def _heartbeat_answered(self, progress: Progress) -> None:
        self.snapshots.beat(progress)
        self.transferring.yield_if_held()
        self.transferring.accepted(progress)

    def _committed(self) -> None:
        """More is committed: go on with a change that waited for it."""
        self.reconfiguration.committed()
        if self.reconfiguration.is_out():
            self._retire()

    def _retire(self) -> None:
        """Somebody else has to lead: we have no vote any more. Say so, and to whom it falls."""
        self.replication.flush()
        successor = self.transferring.successor()
        if successor is not None:
            self.transferring.ask_to_stand(successor)
        self._state.step_down()
