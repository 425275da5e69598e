"""Whether this node takes part in the agreement, and what it does for it in either case.

Who stands in the configuration runs Raft. Who does not pulls the log (``log_copy.py``) and saves
its copy now and then (``copy_saver.py``). A node begins to take part when somebody speaks to its
store, from what it has on disk.

Who is taken out of the configuration may never hear of it: nobody sends it the log any more. So
who has heard no leader for a while copies again if it has no vote by its own log, or if another
tells of later voters without it. This is as safe as a restart, which it amounts to: what it has
promised stays on disk, and it takes part again as soon as it is spoken to.
"""

import random
from collections.abc import Callable
from contextlib import suppress

from gossip.consensus import messages as raft_messages
from gossip.consensus.configuration import Configuration, StoreId, Voter, decode_configuration
from gossip.consensus.holds import Hold
from gossip.consensus.messages import Entry, EntryKind, SnapshotMark, entry_bytes
from gossip.consensus.raft import Raft
from gossip.consensus.requests import (
    Committed,
    ReadFailed,
    ReadReady,
    RoleChanged,
    Snapshot,
    SnapshotInstalled,
)
from gossip.consensus.roles import Role
from gossip.consensus.storage import StoredState
from gossip.consensus.tuning import ConsensusTuning
from gossip.control.applier import LogApplier
from gossip.control.committed_log import LogState
from gossip.control.confirmed_reads import ConfirmedReads
from gossip.control.copy_saver import CopySaver
from gossip.control.directory import VoterDirectory
from gossip.control.lead import Leadership
from gossip.control.log_copy import LogCopy
from gossip.control.log_mirror import LogMirror
from gossip.control.messages import CopyStanding, Hearsay
from gossip.control.outbound import ControlOutbound
from gossip.control.recovery import as_log, origin_of, state_at_end
from gossip.control.state_machine import ControlState
from gossip.core.errors import InvalidRequest, Malformed, RemoteError
from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Durability, Effect, Emit, Instant, Persist
from gossip.core.wire import tag_of

COMPACT_ENTRIES = 4_096
COMPACT_BYTES = 8 * 2**20
COMPACT_SHARE = 4
"""A snapshot is made once the log behind the last one has a quarter of the state's size, too: or a
large state would be written again for a few small changes."""

OUTSIDE_S = 60.0
"""Who has heard no leader for so long may have been taken out of the configuration; it looks ..."""
LOOK_S = 10.0
"""... this often from then on."""

OF_LEADERS = frozenset(
    each.__struct_config__.tag
    for each in (raft_messages.Append, raft_messages.Heartbeat, raft_messages.SnapshotChunk)
)

TOKENS_FROM = 2**62
"""Tokens of this plane's batches begin here, so that no other plane has them."""


class Participation:
    """Runs Raft while this node takes part, and the copy while it does not."""

    def __init__(
        self,
        me: Voter,
        boot: Boot,
        stored: StoredState,
        rng: random.Random,
        tuning: ConsensusTuning,
        applier: LogApplier,
        leadership: Leadership,
        reads: ConfirmedReads,
        directory: VoterDirectory,
        outbound: ControlOutbound,
    ) -> None:
        self._me, self._boot, self._rng, self._tuning = me, boot, rng, tuning
        self._disk = LogMirror(stored)
        self._applier, self._leadership, self._reads = applier, leadership, reads
        self._directory, self._outbound = directory, outbound
        self.copy = LogCopy(
            outbound, directory, lambda: applier.index, applier.take, lambda: self._term,
            self._install_pulled, lambda: origin_of(applier.state),
        )  # fmt: skip
        self._saver = CopySaver(applier, self._disk, self._persist)
        applier.earlier = self._earlier
        self.raft: Raft | None = None
        self.configuration = Configuration()
        """Who takes part, by what is applied here."""
        self._configuration_index = 0
        self._term = 0
        self._token = TOKENS_FROM
        self._raft_tokens: dict[int, int] = {}
        self._log_entries = self._log_bytes = 0
        self._now: Instant = 0.0
        self._led_at: Instant = 0.0
        """When we led last, or heard who does."""
        self._look_at: Instant = 0.0
        self.on_leader: Callable[[Instant], object] = lambda _now: None
        """Told that another leader is followed now, or none."""
        self.on_installed: Callable[[Instant], object] = lambda _now: None
        """Told that another state was pulled as a whole."""
        self.takes_writes: Callable[[StoreId], bool] = lambda _store: True
        """Tells whether a voter's disk takes writes, by what its node has told us as the leader."""
        self.on_other_generation: Callable[[NodeId, Instant], object] = lambda _peer, _now: None
        """Told who speaks to us in another generation than ours."""

    # Beginning, and changing sides.

    def start(self, now: Instant) -> None:
        """Go on from what is on disk. Raises ValueError for a log that is damaged."""
        raft = self._raft(now)
        if self._is_member(raft):
            self._begin(raft, now)
            return
        mark = self._disk.snapshot
        if mark is not None:
            self._resume(mark, now)
        self.copy.resume(self._disk.hard.generation)

    def _resume(self, mark: SnapshotMark, now: Instant) -> None:
        """Go on from the copy that was saved, or from none: it is pulled again."""
        self._marked(mark)
        try:
            self._applier.install(mark.index, self._disk.snapshot_data(), now)
        except Malformed:
            self._outbound.counts["control_copies/malformed"] += 1
        else:
            self._saver.restored(mark.index)

    def _raft(self, now: Instant) -> Raft:
        stored = self._disk.stored()
        return Raft(self._me, self._boot, stored, self._tuning, self._rng, now)

    def _is_member(self, raft: Raft) -> bool:
        return raft.configuration.member(self._me.store) is not None

    def _begin(self, raft: Raft, now: Instant) -> None:
        assert not self._saver.is_busy, "Raft begins from what is on disk"
        self.copy.stop()
        self._saver.stop()
        self.raft = raft
        raft.on_other_generation = lambda _generation, peer: self.on_other_generation(
            peer, self._now
        )
        raft.transferring.takes_writes = self.takes_writes
        self.look_if_halted(now)
        self._led(now)
        self._outbound.counts["control_part/begun"] += 1

    def _led(self, now: Instant) -> None:
        self._led_at, self._look_at = now, now + OUTSIDE_S

    def _look(self, raft: Raft, now: Instant) -> None:
        """Ask ourselves whether we still take part."""
        self._look_at = now + LOOK_S
        if raft.role is Role.LEADER:
            self._led(now)
        elif self.is_lonely(now) and not raft.configuration.is_voter(self._me.store):
            self._leave(now)
        else:
            # What was told before we were alone counts as well.
            self.heard(self._directory.hearsay(), now)

    def is_lonely(self, now: Instant) -> bool:
        """Tell whether we take part, and have heard no leader for long."""
        is_quiet = self.raft is not None and now - self._led_at >= OUTSIDE_S
        return is_quiet and not self._raft_tokens

    def heard(self, hearsay: Hearsay, now: Instant) -> None:
        """Somebody tells who votes: if that is later than our whole log, and without us, we left.

        What is not later proves nothing: if all voters went by stale words, nobody would stand for
        election any more.
        """
        is_later = bool(hearsay.voters) and hearsay.since >= self._disk.configuration_index
        if self.is_lonely(now) and is_later and self._me.node not in hearsay.voters:
            self._leave(now)

    def _leave(self, now: Instant) -> None:
        """Only copy from now on; what is on disk stays until a saved copy covers it."""
        assert self.raft is not None, "who leaves took part"
        assert not self._raft_tokens, "what Raft promised is on disk"
        self._outbound.counts["control_part/left"] += 1
        generation, self.raft = self.raft.generation, None
        self._leadership.role_changed(None, now)
        self._reads.clear(now)
        self.copy.start(generation, now)
        self.on_leader(now)
        self._saver.changed(now)

    def receive(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in a frame of Raft's; who is spoken to as a store takes part from then on."""
        self._now = now
        if self.raft is None and not self._joins(data, peer, now):
            self._outbound.counts["consensus_dropped/outside"] += 1
        if self.raft is not None:
            self.raft.receive(data, peer, now)
            if tag_of(data) in OF_LEADERS and self.raft.leader is not None:
                self._led(now)

    def _joins(self, data: bytes, peer: NodeId, now: Instant) -> bool:
        """Begin to take part if our store is spoken to, and our disk has what we begin with.

        Not in a generation that our copy knows to be over.
        """
        try:
            message = raft_messages.CODEC.decode(data)
        except RemoteError:
            return False
        if message is None or message.receiver != self._me.store or self._saver.is_busy:
            return False
        if message.generation < self.copy.generation:
            self.on_other_generation(peer, now)
            return False
        self._begin(self._raft(now), now)
        return True

    # What Raft wants.

    def settle(self, now: Instant) -> bool:
        """Carry on what Raft has to say; tell whether there was anything."""
        raft = self.raft
        if raft is None:
            return False
        self._reads.flush(raft, now)
        effects = list(raft.effects())
        for effect in effects:
            self._perform(raft, effect, now)
        return bool(effects)

    def _perform(self, raft: Raft, effect: Effect, now: Instant) -> None:
        match effect:
            case Persist(token=token, changes=changes):
                self._raft_tokens[self._persist(changes)] = token
            case Emit(event=event):
                self._on_event(raft, event, now)
            case _:
                self._outbound.pass_on(effect)

    def _persist(self, changes: tuple[object, ...]) -> int:
        self._token += 1
        self._disk.apply(changes)
        self._outbound.pass_on(Persist(self._token, changes, Durability.FSYNC))
        return self._token

    def _on_event(self, raft: Raft, event: object, now: Instant) -> None:
        match event:
            case Committed(entries=entries):
                self._applier.take(entries, now)
                self._applied(raft, entries[-1].index, now)
            case SnapshotInstalled(index=index, data=data):
                self._installed(raft, index, data, now)
            case ReadReady(id=read):
                self._reads.ready(read, now)
            case ReadFailed(id=read):
                self._reads.failed(read, now)
            case RoleChanged():
                self._role_changed(event, now)
            case _:
                self._outbound.emit(event)

    def _applied(self, raft: Raft, index: int, now: Instant) -> None:
        """A copy that halted is behind, and nobody gets an answer from it."""
        if self._applier.index >= index:
            raft.applied(index)
            self._compact(raft, now)

    def _installed(self, raft: Raft, index: int, data: bytes, now: Instant) -> None:
        if index > self._applier.index:
            assert self._disk.snapshot is not None, "it is on disk before it is told of"
            self._marked(self._disk.snapshot)
            try:
                self._applier.install(index, data, now)
            except Malformed as error:
                self._applier.halt(index, str(error), now)
        self._log_entries = self._log_bytes = 0
        if self._applier.index >= index:
            raft.applied(index)

    def _role_changed(self, event: RoleChanged, now: Instant) -> None:
        self._directory.follow(event.leader.node if event.leader else None, event.term)
        self._leadership.role_changed(event.term if event.role is Role.LEADER else None, now)
        self.on_leader(now)

    def _compact(self, raft: Raft, now: Instant) -> None:
        """Hand over a snapshot when the log behind the last one has grown enough."""
        is_long = self._log_entries >= COMPACT_ENTRIES or self._log_bytes >= COMPACT_BYTES
        state = self._applier.state
        if not is_long or COMPACT_SHARE * self._log_bytes < state.space.used_bytes:
            return
        self._log_entries = self._log_bytes = 0
        try:
            raft.compacted(Snapshot(state.index, state.snapshot()), now)
        except InvalidRequest:
            # Our copy was ahead of this log, which will catch up.
            self._outbound.counts["control_snapshots/ahead"] += 1

    def hold_back(self, now: Instant, *, held: bool) -> None:
        """The disk takes nothing, or again: who cannot write takes nothing in, and hands over."""
        if self.raft is not None:
            self.raft.hold_back(now, Hold.DISK, held=held)

    def hand_over(self, now: Instant) -> None:
        """Let whoever keeps up best lead, if we do and there is somebody."""
        if self.raft is not None and self.raft.role is Role.LEADER:
            with suppress(InvalidRequest):
                self.raft.transfer(None, now)

    def look_if_halted(self, now: Instant) -> None:
        """A copy has halted, or goes on: where it stands still nobody can be answered either."""
        if self.raft is not None:
            self.raft.hold_back(now, Hold.APPLICATION, held=self._applier.is_halted)

    # What is applied, from either side.

    def took(self, entries: tuple[Entry, ...], now: Instant) -> None:
        """These entries were applied."""
        self._log_entries += len(entries)
        self._log_bytes += sum([entry_bytes(entry) for entry in entries])
        for entry in entries:
            self._term = entry.term
            if entry.kind is EntryKind.CONFIGURATION:
                self._configure(decode_configuration(entry.data), entry.index)
        if entries and self.raft is None:
            self._saver.changed(now)

    def _earlier(self, index: int) -> ControlState:
        """Return a state without what is in the log from this index on, out of what we have.

        A voter has all before it. A copy has what it saved last: whatever else is on its disk may
        never have been committed.
        """
        stored = self._disk.stored()
        mark = stored.snapshot
        if self.raft is None and (mark is None or mark.index >= index):
            return ControlState()
        before = index if self.raft is not None else 0
        try:
            return state_at_end(stored, before)
        except (InvalidRequest, KeyError):  # its chunks are not on the disk yet
            return ControlState()

    def _marked(self, mark: SnapshotMark) -> None:
        self._term = mark.term
        self._configure(mark.configuration, mark.configuration_index)

    def _configure(self, configuration: Configuration, index: int) -> None:
        self.configuration, self._configuration_index = configuration, index
        self._directory.configured(tuple(each.node for each in configuration.voters), index)

    def _install_pulled(self, mark: SnapshotMark, data: bytes, now: Instant) -> None:
        self._applier.install(mark.index, data, now)
        self._marked(mark)
        self._saver.hurry(now)
        self.on_installed(now)

    def own_configuration(self) -> Configuration:
        """Return who takes part by all that this node has, committed or not."""
        if self.raft is not None:
            return self.raft.configuration
        is_later = self._disk.configuration_index > self._configuration_index
        return self._disk.configuration if is_later else self.configuration

    @property
    def generation(self) -> int:
        """Which generation of the agreement this node follows; 0: none yet."""
        return self.raft.generation if self.raft else self.copy.generation

    def log_state(self) -> LogState:
        """Return where the log stands, for those who pull it."""
        origin = origin_of(self._applier.state)
        effective = (self.configuration, self._configuration_index)
        hearsay = self._directory.hearsay()
        return LogState(self.generation, self._term, *effective, hearsay, origin)

    def survivor(self) -> StoredState:
        """Return the newest that this node has of the log: on its disk, or copied since."""
        disk = self._disk.stored()
        generation, index = self.generation, self._applier.index
        if (generation, self._term, index) <= disk.newness:
            return disk
        effective = (self._configuration_index, self.configuration)
        return as_log(self._applier.state, generation, self._term, effective)

    def standing(self, *, has_majority: bool) -> CopyStanding:
        """Return how this node's copy of the log stands."""
        copied = self.generation, self._term, self._applier.index
        generation, term, index = max(copied, self._disk.stored().newness)
        return CopyStanding(
            generation,
            origin_of(self._applier.state),
            self._me.store,
            term,
            index,
            self._applier.index,
            self.raft is not None,
            has_majority,
            self._directory.hearsay(),
        )

    # What the disk and the clock bring.

    def persisted(self, token: int, now: Instant) -> None:
        """A batch is on disk."""
        assert TOKENS_FROM < token <= self._token, "it is one of ours"
        self._saver.persisted(token)
        raft_token = self._raft_tokens.pop(token, None)
        if raft_token is not None and self.raft is not None:
            self.raft.persisted(raft_token, now)

    def wake(self, now: Instant) -> None:
        """Let due timers act."""
        self.copy.wake(now)
        if self.raft is None:
            effective = (self._configuration_index, self.configuration)
            self._saver.save_if_due(self.copy.generation, self._term, effective, now)
            return
        self.raft.wake(now)
        self._leadership.wake(self.raft, now)
        if self._look_at <= now:
            self._look(self.raft, now)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        dues = [self.copy.deadline(), self._saver.deadline()]
        if self.raft is not None:
            dues += [self.raft.deadline(), self._leadership.deadline(), self._look_at]
        return min((due for due in dues if due is not None), default=None)
