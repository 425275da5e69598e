"""Checkers of a Raft group: what must hold at every step, whatever the network and the disks do.

Each states one rule, most of them from figure 3 of the Raft paper (Ongaro and Ousterhout 2014).
They look at what a machine lets others see: what it has written, what it sends, what it tells its
application. A rule is broken at the step at which it is broken, not when a client notices.

Stores and not devices have promises to keep: who lost its log is somebody else.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import Protocol

from gossip.consensus.configuration import Configuration, StoreId, decode_configuration
from gossip.consensus.messages import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    Heartbeat,
    Message,
    PreVoteReply,
    PreVoteRequest,
    VoteReply,
    VoteRequest,
)
from gossip.consensus.requests import ReadReady, RoleChanged
from gossip.consensus.roles import Role
from gossip.consensus.storage import (
    NOBODY,
    AppendChange,
    HardState,
    MemoryLog,
    StoredState,
    TruncateChange,
    base_index,
)
from gossip.core.machine import Instant
from gossip.sim.consensus_host import ConsensusHost
from gossip.sim.invariants import Violation
from gossip.sim.log_shadow import LogShadow

Group = int
"""The generation of a group: after a recovery all counting begins anew."""


class ChosenLog:
    """What the group has agreed on, as it was first told: index to term, bytes and leader's term.

    The first to tell is the leader itself, so ``by_term`` is the term in which it was agreed.
    """

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.by_term: dict[int, int] = {}
        self.last = 0

    def add(self, entry: Entry, term: int) -> None:
        """Take in an entry that somebody takes for agreed; the first one in its place stays."""
        if entry.index not in self.entries:
            self.entries[entry.index], self.by_term[entry.index] = entry, term
            self.last = max(self.last, entry.index)

    def last_before(self, generation: Group, term: int) -> Entry | None:
        """Return the last entry of a generation that was agreed on in an earlier term."""
        first, end = base_index(generation), base_index(generation + 1)
        for index in sorted(self.entries, reverse=True):
            if first < index <= end and self.by_term[index] < term:
                return self.entries[index]
        return None


class ConsensusView(Protocol):
    """What a checker sees of the world (``consensus_world.py``); it changes nothing there."""

    chosen: ChosenLog
    shadows: dict[str, LogShadow]

    @property
    def now(self) -> Instant:
        """Seconds since the world began."""

    def platter(self, store: StoreId) -> MemoryLog | None:
        """Return what a power cut would leave of a log, be it in use or not; None: nothing."""


class ConsensusChecker:
    """One rule. Each hook does nothing unless a checker needs it."""

    def started(self, world: ConsensusView, host: ConsensusHost, stored: StoredState) -> None:
        """Look at a process that begins."""

    def writing(self, world: ConsensusView, host: ConsensusHost, change: object) -> None:
        """Look at a change that a machine wants written; the shadow is still without it."""

    def sent(self, world: ConsensusView, host: ConsensusHost, message: Message) -> None:
        """Look at a message on its way."""

    def role_changed(self, world: ConsensusView, host: ConsensusHost, change: RoleChanged) -> None:
        """Look at a store that has another role, term or leader."""

    def applied(self, world: ConsensusView, host: ConsensusHost, entry: Entry) -> None:
        """Look at an entry that was applied, as committed."""

    def restored(self, world: ConsensusView, host: ConsensusHost) -> None:
        """Look at a state that was replaced by a snapshot."""

    def read_begun(self, world: ConsensusView, host: ConsensusHost, read: int) -> None:
        """Look at a read that begins."""

    def read_ready(self, world: ConsensusView, host: ConsensusHost, ready: ReadReady) -> None:
        """Look at a read that may be answered."""

    def stepped(self, world: ConsensusView, host: ConsensusHost) -> None:
        """Look at a machine that took in one input. Called very often."""

    def violated(self, world: ConsensusView, host: ConsensusHost, what: str) -> Violation:
        """Return the exception to raise."""
        return Violation(f"{type(self).__name__}: at {world.now:.6f} s {host.name} {what}")


class ElectionSafety(ConsensusChecker):
    """At most one store leads in a term, and nobody speaks as leader but that one."""

    def __init__(self) -> None:
        self._leaders: dict[tuple[Group, int], tuple[StoreId, int]] = {}

    def role_changed(self, world: ConsensusView, host: ConsensusHost, change: RoleChanged) -> None:
        """Compare a leader with the one of its term; a new life is not the leader of before."""
        if change.role is not Role.LEADER:
            return
        key = world.shadows[host.name].hard.generation, change.term
        leader = self._leaders.setdefault(key, (host.store, host.life))
        if leader != (host.store, host.life):
            raise self.violated(world, host, f"leads in term {change.term}, as {leader} did")

    def sent(self, world: ConsensusView, host: ConsensusHost, message: Message) -> None:
        """Compare who speaks as a leader with who was elected."""
        if isinstance(message, Append | Heartbeat):
            leader = self._leaders.get((message.generation, message.term), (NOBODY, 0))
            if leader[0] != message.sender:
                raise self.violated(world, host, f"speaks as leader of term {message.term}")


class OneVoteATerm(ConsensusChecker):
    """A store gives one vote a term, whatever became of its process; and its term never falls."""

    def __init__(self) -> None:
        self._votes: dict[tuple[Group, StoreId, int], StoreId] = {}

    def writing(self, world: ConsensusView, host: ConsensusHost, change: object) -> None:
        """Compare a promise with the one that it replaces."""
        if not isinstance(change, HardState):
            return
        before = world.shadows[host.name].hard
        if (change.generation, change.term) < (before.generation, before.term):
            raise self.violated(world, host, f"goes back from {before} to {change}")
        same = (change.generation, change.term) == (before.generation, before.term)
        if same and before.vote not in (NOBODY, change.vote):
            raise self.violated(world, host, f"changes its vote from {before} to {change}")

    def sent(self, world: ConsensusView, host: ConsensusHost, message: Message) -> None:
        """Compare a vote that others hear of with what they heard before."""
        match message:
            case VoteReply(granted=True):
                vote = message.receiver
            case VoteRequest():
                vote = message.sender
            case _:
                return
        key = message.generation, message.sender, message.term
        if self._votes.setdefault(key, vote) != vote:
            raise self.violated(world, host, f"votes a second time in term {message.term}")


class PersistBeforeReveal(ConsensusChecker):
    """Nobody hears of a term, a vote or an entry that a power cut could still take away."""

    def sent(self, world: ConsensusView, host: ConsensusHost, message: Message) -> None:
        """Compare a message with the platter at this moment."""
        if isinstance(message, PreVoteRequest | PreVoteReply):
            # These speak of a term that nobody is in yet.
            return
        platter = host.disk.platter
        term = platter.hard.term
        if message.term > term:
            raise self.violated(world, host, f"tells term {message.term}; its disk has {term}")
        match message:
            case VoteReply(granted=True):
                vote = message.receiver
            case VoteRequest():
                vote = message.sender
            case AppendReply(accepted=True):
                self._compare(world, host, message)
                return
            case _:
                return
        if message.term == term and platter.hard.vote != vote:
            raise self.violated(world, host, f"tells a vote of term {term} that is not on its disk")

    def _compare(self, world: ConsensusView, host: ConsensusHost, message: AppendReply) -> None:
        """Look whether what is accepted is there; a later leader may have had it removed since."""
        platter = host.disk.platter
        last = last_index(platter)
        if message.term == platter.hard.term and message.index > last:
            raise self.violated(world, host, f"accepts {message.index}; its disk ends at {last}")


class LogMatching(ConsensusChecker):
    """Two logs that have an entry of the same index and term are the same up to there.

    It is enough that such entries are equal and follow on entries of the same term: the rest is
    induction.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[EntryKind, bytes]] = {}
        self._before: dict[tuple[int, int], int] = {}

    def writing(self, world: ConsensusView, host: ConsensusHost, change: object) -> None:
        """Compare new entries with all that ever had their index and term."""
        if not isinstance(change, AppendChange):
            return
        shadow = world.shadows[host.name]
        before = shadow.term_at(change.entries[0].index - 1)
        for entry in change.entries:
            place = entry.index, entry.term
            if self._known.setdefault(place, (entry.kind, entry.data)) != (entry.kind, entry.data):
                raise self.violated(world, host, f"writes another entry {place}")
            if before is not None and self._before.setdefault(place, before) != before:
                raise self.violated(world, host, f"lets {place} follow on term {before}")
            before = entry.term


class CommittedStays(ConsensusChecker):
    """What was agreed on in a place is applied there by all, and nothing else ever is."""

    def __init__(self) -> None:
        self._digests: dict[int, int] = {}

    def applied(self, world: ConsensusView, host: ConsensusHost, entry: Entry) -> None:
        """Compare with what was agreed, and the state with the others'."""
        agreed = world.chosen.entries[entry.index]
        if agreed != entry:
            raise self.violated(world, host, f"applies {entry}; agreed was {agreed}")
        self._compare(world, host)

    def restored(self, world: ConsensusView, host: ConsensusHost) -> None:
        """Compare a state that came as a snapshot."""
        self._compare(world, host)

    def writing(self, world: ConsensusView, host: ConsensusHost, change: object) -> None:
        """Look at what is removed: an agreed entry stays in each log that has it."""
        if not isinstance(change, TruncateChange):
            return
        shadow = world.shadows[host.name]
        for index, term in shadow.removed_by(change):
            agreed = world.chosen.entries.get(index)
            if agreed is not None and agreed.term == term and index > shadow.snapshot[0]:
                raise self.violated(world, host, f"removes entry {index}, which was agreed on")

    def _compare(self, world: ConsensusView, host: ConsensusHost) -> None:
        machine = host.machine
        digest = self._digests.setdefault(machine.index, machine.digest)
        if digest != machine.digest:
            raise self.violated(world, host, f"has another state at {machine.index}")


class LeaderCompleteness(ConsensusChecker):
    """A leader has all that was agreed on in earlier terms."""

    def role_changed(self, world: ConsensusView, host: ConsensusHost, change: RoleChanged) -> None:
        """Look for the last of it; the rest is log matching."""
        if change.role is not Role.LEADER:
            return
        shadow = world.shadows[host.name]
        last = world.chosen.last_before(shadow.hard.generation, change.term)
        if last is not None and not shadow.covers(last.index, last.term):
            raise self.violated(world, host, f"leads without {last.index} of term {last.term}")


class CommittedByQuorum(ConsensusChecker):
    """A leader takes an entry for agreed when a majority of each side has it on disk.

    And only an entry of its own term: an older one may be on a majority and be replaced (figure 8
    of the paper).
    """

    def __init__(self) -> None:
        self._commits: dict[tuple[str, int], int] = {}
        self._before: dict[tuple[str, int], Configuration] = {}

    def stepped(self, world: ConsensusView, host: ConsensusHost) -> None:
        """Look at a commit index that has grown."""
        raft, key = host.raft, (host.name, host.life)
        before, commit = self._commits.get(key, 0), raft.commit_index
        if commit < before:
            raise self.violated(world, host, f"takes back its commit index, {before} to {commit}")
        configuration = world.shadows[host.name].configuration[1]
        if commit > before:
            self._commits[key] = commit
            if raft.role is Role.LEADER:
                # What was agreed on in the step that began another one was agreed on before it.
                self._judge(world, host, [self._before.get(key, configuration), configuration])
        self._before[key] = configuration

    def _judge(
        self, world: ConsensusView, host: ConsensusHost, configurations: list[Configuration]
    ) -> None:
        commit = host.raft.commit_index
        term = world.shadows[host.name].term_at(commit)
        if term != host.raft.term:
            raise self.violated(world, host, f"commits {commit}, of term {term}, by counting")
        for configuration in configurations:
            holders = [
                store
                for store in _stores_of(configuration)
                if (platter := world.platter(store)) is not None and holds(platter, commit, term)
            ]
            if is_quorum(configuration, holders):
                return
        raise self.violated(world, host, f"commits {commit}, which no quorum has on disk")


class QuorumsIntersect(ConsensusChecker):
    """Configurations that follow on each other cannot decide apart from each other.

    And a leader begins a change only when the one before is agreed on, and when something of its
    own term is: else two leaders may each follow on a configuration that the other does not know.
    """

    def __init__(self) -> None:
        self._judged: set[tuple[Configuration, Configuration]] = set()

    def writing(self, world: ConsensusView, host: ConsensusHost, change: object) -> None:
        """Compare each configuration with the one before it in this log."""
        if not isinstance(change, AppendChange):
            return
        shadow, raft = world.shadows[host.name], host.raft
        index, before = shadow.configuration
        for entry in change.entries:
            if entry.kind is not EntryKind.CONFIGURATION:
                continue
            after = decode_configuration(entry.data)
            self._compare(world, host, before, after)
            if raft.role is Role.LEADER and entry.term == raft.term:
                if index > raft.commit_index:
                    raise self.violated(world, host, f"changes voters while {index} is not agreed")
                if shadow.term_at(raft.commit_index) != raft.term:
                    raise self.violated(world, host, "changes voters before its term is agreed")
            index, before = entry.index, after

    def _compare(
        self,
        world: ConsensusView,
        host: ConsensusHost,
        before: Configuration,
        after: Configuration,
    ) -> None:
        if (before, after) in self._judged or not before.voters:
            return
        self._judged.add((before, after))
        apart = quorums_apart(before, after)
        if apart is not None:
            raise self.violated(world, host, f"lets {before} be followed by {after}: {apart}")


class ReadsAreFresh(ConsensusChecker):
    """A read sees all that was agreed on when it began, and its number is never used again."""

    def __init__(self) -> None:
        self._due: dict[tuple[str, int, int], int] = {}

    def read_begun(self, world: ConsensusView, host: ConsensusHost, read: int) -> None:
        """Note what it has to see."""
        key = host.name, host.life, read
        if key in self._due:
            raise self.violated(world, host, f"uses the number {read} of a read again")
        self._due[key] = world.chosen.last

    def read_ready(self, world: ConsensusView, host: ConsensusHost, ready: ReadReady) -> None:
        """Compare with what it will see."""
        due = self._due[host.name, host.life, ready.id]
        if ready.index < due:
            raise self.violated(world, host, f"reads at {ready.index}, while {due} was agreed on")
        if host.machine.index < ready.index:
            raise self.violated(world, host, f"reads at {ready.index}, which is not applied")


def standard_checkers() -> list[ConsensusChecker]:
    """Return a new set of all checkers that hold under any fault."""
    return [
        ElectionSafety(),
        OneVoteATerm(),
        PersistBeforeReveal(),
        LogMatching(),
        CommittedStays(),
        LeaderCompleteness(),
        CommittedByQuorum(),
        QuorumsIntersect(),
        ReadsAreFresh(),
    ]


def last_index(log: MemoryLog) -> int:
    """Return the index of the last entry of a log, be it in a snapshot."""
    covered = log.snapshot.index if log.snapshot else 0
    return max(covered, log.entries[-1].index if log.entries else 0)


def holds(log: MemoryLog, index: int, term: int | None) -> bool:
    """Tell whether a log has an entry, or a snapshot with it."""
    if log.snapshot is not None and index <= log.snapshot.index:
        return True
    if not log.entries or not log.entries[0].index <= index <= log.entries[-1].index:
        return False
    return log.entries[index - log.entries[0].index].term == term


def is_quorum(configuration: Configuration, stores: Iterable[StoreId]) -> bool:
    """Tell whether these stores may decide, in words that the machine does not share."""
    present = set(stores)
    for side in (configuration.voters, configuration.outgoing):
        voting = sum(voter.store in present for voter in side)
        if side and voting <= len(side) - voting:
            return False
    return bool(configuration.voters)


def _stores_of(configuration: Configuration) -> set[StoreId]:
    return {voter.store for voter in (*configuration.voters, *configuration.outgoing)}


def quorums_apart(one: Configuration, other: Configuration) -> str | None:
    """Return two quorums that have no store in common; None: there are none."""
    stores = sorted(_stores_of(one) | _stores_of(other))
    for size in range(1, len(stores) + 1):
        for some in combinations(stores, size):
            rest = [store for store in stores if store not in some]
            if is_quorum(one, some) and is_quorum(other, rest):
                return f"{some} and {rest}"
    return None
