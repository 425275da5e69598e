"""A write at the owner that coordinates it.

::

    commit here ─(on disk)─> tell the other owners ─(W have it on disk)─> ok
                                     └─(time is over)─> indeterminate; repair goes on

Where a write is to survive a power cut (``fsync``), an owner counts when it has synced it; many
share a sync. While a partition is on its way to other owners, W of the old ones and W of the new
ones must have it on disk (``ownership.py`` says when). Our own copy counts like any other: when it
is on disk. If the owners change under way, the count starts again among those of now. Whom a broken
stream kept from hearing of it is told again, whether or not anybody noticed that it was away. What
misses W is kept, and the missing owners are put on the list of comparisons: a write is only ever
repaired forward, never rolled back.
"""

from collections.abc import Callable
from typing import NamedTuple

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.counting import CountError
from gossip.kv.dots import Dot
from gossip.kv.full_disks import FullDisks
from gossip.kv.joint_quorum import JointQuorum
from gossip.kv.limits import REFUSALS_MAX, RETRY_S, VALUE_BYTES_MAX
from gossip.kv.messages import FULL, Store, Stored
from gossip.kv.parts import KvParts
from gossip.kv.quotas import Quotas, Use, growth, use_of
from gossip.kv.records import KeyState, Version, encode_context
from gossip.kv.repair import RepairScheduler
from gossip.kv.requests import DISKS_FULL, OVER_QUOTA, TOO_FEW, PutResult, Rejected, quorum
from gossip.kv.restored_key import OTHER_VALUES
from gossip.kv.spaces import LWW, replaced_by_latest
from gossip.kv.timers import TimerQueue
from gossip.kv.typed_values import count_folded
from gossip.registry.ownership import Ownership

Finish = Callable[[PutResult | Rejected, Instant], None]


class AskedWrite(NamedTuple):
    """What somebody wants written: a put, or a delete if ``value`` is None.

    ``w`` owners are to have it on disk, most of them if that is None. ``replaced`` are the dots
    whose place it takes; None: those of all that its coordinator holds. With ``by`` it is an
    increment of a counter, and the coordinator makes the value. With ``versions`` they are put back
    beside what there is.
    """

    key: str
    value: bytes | None
    w: int | None
    replaced: tuple[Dot, ...] | None
    until: Instant
    finish: Finish
    by: int | None = None
    fsync: bool = False
    """Whether only those count that have it synced."""
    versions: tuple[Version, ...] = ()

    @property
    def is_put(self) -> bool:
        """Whether it brings a value, which takes room."""
        return self.value is not None or self.by is not None or bool(self.versions)


class Write:
    """A write that is under way."""

    def __init__(
        self, asked: AskedWrite, partition: int, state: KeyState, context: bytes, now: Instant
    ) -> None:
        self.key = asked.key
        self.is_put = asked.is_put
        self.w = asked.w
        self.fsync = asked.fsync
        self.until = max(now, asked.until)
        self.finish = asked.finish
        self.partition = partition
        self.state = state
        self.context = context
        self.ownership = Ownership((), 0)
        self.quorum = JointQuorum()
        self.acks: set[NodeId] = set()
        self.full: set[NodeId] = set()
        self.refusals = 0

    def result(self, outcome: str) -> PutResult:
        """Return how it stands, in the set of owners that is furthest behind."""
        acks, needed = self.quorum.progress(self.acks)
        versions = count_folded(self.state.live)
        return PutResult(outcome, acks, needed, self.context, versions)

    def is_acknowledged(self) -> bool:
        """Tell whether enough have it on disk, of each set of owners whose word counts."""
        return self.quorum.is_met(self.acks)


Missed = Callable[[NodeId, Write], None]


class Writes:
    """All writes that this node coordinates."""

    def __init__(self, parts: KvParts, repair: RepairScheduler) -> None:
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._repair = repair
        self._outbound = parts.outbound
        self.full_disks = FullDisks(parts.outbound, parts.registry_sync)
        self.quotas = Quotas(parts.spaces)
        self._is_gone, self._spaces = parts.view.is_gone, parts.spaces
        self.missed: Missed = lambda _node, _write: None
        """Called for each owner that is not known to have a write when it ends."""
        self._writes: dict[int, Write] = {}
        self._timers: TimerQueue[int] = TimerQueue()
        self._told_again: TimerQueue[NodeId] = TimerQueue()

    def __len__(self) -> int:
        return len(self._writes)

    def begin(self, asked: AskedWrite, now: Instant) -> None:
        """Commit what is asked, and see it through.

        Raises InvalidRequest; then nothing was changed.
        """
        key, value, w, replaced, _, finish, by, _, versions = asked
        registry = self._registry_sync.registry
        partition = registry.partition_of(key)
        quorum(w, len(registry.ownership(partition).readers), "w")
        before = self._replica.record(partition, key).live
        if replaced is not None and self._spaces.policy(key) == LWW:
            replaced = replaced_by_latest(value, replaced, before)
            asked = asked._replace(replaced=replaced)
        if refusal := self._refusal(asked, registry.ownership(partition), before):
            finish(refusal, now)
            return
        assert not self._replica.is_held_back, "nothing is begun that cannot be saved"
        if versions:
            state, dot = self._replica.restore(partition, key, versions, now)
        elif by is None:
            state, dot = self._replica.write(partition, key, value, replaced, now)
        else:
            try:
                state, dot = self._replica.increment(partition, key, by, now)
            except CountError as error:
                finish(Rejected(str(error), mismatch=True), now)
                return
        self.quotas.wrote(key, before, state.live)
        context = encode_context(key, [dot] if dot else [])
        self._replicate_all(Write(asked, partition, state, context, now))

    def _refusal(
        self, asked: AskedWrite, ownership: Ownership, before: tuple[Version, ...]
    ) -> Rejected | None:
        """Return why it is not begun, with these versions under its key; None if it may be."""
        if asked.value is not None and _grows_too_large(before, asked.value, asked.replaced):
            return Rejected(
                f"the versions under this key would exceed {VALUE_BYTES_MAX} bytes; read it, and "
                "put with the context of that get, which replaces what you have read"
            )
        if lack := self._lack(ownership, asked):
            return Rejected(lack, unreachable=True)
        if asked.versions and before:
            return Rejected(OTHER_VALUES, mismatch=True)
        if not (asked.is_put and self.quotas.counts(asked.key)):
            return None
        if not self.quotas.refuses(asked.key, _growth(asked, before)):
            return None
        self._outbound.counts["puts_refused/quota"] += 1
        return Rejected(OVER_QUOTA)

    def _lack(self, ownership: Ownership, asked: AskedWrite) -> str:
        """Say why too few owners would take it; better said before it is written. Else nothing."""
        me, members = self._outbound.me, self._registry_sync.members
        assert ownership.writers, "each partition has owners"
        there = [
            node
            for node in ownership.holders
            if node == me or (node in members and not self._is_gone(node))
        ]
        quorum_of_all = JointQuorum.of_write(ownership, asked.w)
        if not quorum_of_all.is_met(there):
            return TOO_FEW
        roomy = [node for node in there if node not in self.full_disks]
        if asked.is_put and not quorum_of_all.is_met(roomy):
            self._outbound.counts["puts_refused/disks_of_others"] += 1
            return DISKS_FULL
        return ""

    def _replicate_all(self, write: Write) -> None:
        """Start counting among the owners of now, under a number of its own.

        What one of them had on its disk under other owners, it may have let go of since.
        """
        number = self._outbound.number()
        self._writes[number] = write
        self._timers.set(number, write.until)
        write.ownership = self._registry_sync.registry.ownership(write.partition)
        write.quorum = JointQuorum.of_write(write.ownership, write.w)
        write.acks, write.full = set(), set()
        store = self._store(number, write)
        for node in self._acknowledge(write):
            self._tell(number, write, store, node)

    def _store(self, number: int, write: Write) -> Store:
        epoch = self._registry_sync.registry.epoch
        return Store(number, epoch, write.key, write.state, write.fsync, write.is_put)

    def _tell(self, number: int, write: Write, store: Store, owner: NodeId) -> None:
        """Tell an owner once it is on our disk; ourselves as late as others would tell us."""
        token = self._replica.token(write.partition)
        if owner != self._outbound.me:
            self._outbound.send(store, owner, token)
        elif write.fsync:
            self._outbound.send_synced(Stored(number, synced=True), owner, token)
        else:
            self._outbound.send(Stored(number), owner, token)

    def _acknowledge(self, write: Write) -> list[NodeId]:
        """Return who is to have it; who was removed is not asked."""
        return [node for node in write.ownership.holders if node in self._registry_sync.members]

    def _replicate(self, number: int, write: Write, owner: NodeId) -> None:
        self._tell(number, write, self._store(number, write), owner)

    def stored(self, message: Stored, peer: NodeId, now: Instant) -> bool:
        """An owner has it on disk. False if this is no write of ours, or no longer."""
        write = self._writes.get(message.number)
        if write is None:
            return False
        if write.fsync and not message.synced:
            # It is of a version that does not know of this: what it has may not be synced.
            self._outbound.counts["frames_dropped/not_synced"] += 1
            return True
        write.acks.add(peer)
        if write.is_acknowledged():
            self._end(message.number, write, "ok", now)
        return True

    def _end(self, number: int, write: Write, outcome: str, now: Instant) -> None:
        del self._writes[number]
        self._timers.cancel(number)
        self._outbound.counts[f"writes/{outcome}"] += 1
        for node in self._acknowledge(write):
            if node not in write.acks:
                self.missed(node, write)
        write.finish(write.result(outcome), now)

    def refused(self, number: int, peer: NodeId, reason: int, now: Instant) -> bool:
        """An owner refused: by now we follow its registry, so tell it again, or it has no room."""
        write = self._writes.get(number)
        if write is None:
            return False
        if reason == FULL:
            self._without_room(number, write, peer, now)
            return True
        write.refusals += 1
        if peer in write.ownership.holders and write.refusals <= REFUSALS_MAX:
            self._replicate(number, write, peer)
        return True

    def _without_room(self, number: int, write: Write, peer: NodeId, now: Instant) -> None:
        """Go on without an owner whose disk is full; say at once when too few are left."""
        self.full_disks.heard(peer, now, is_full=True)
        write.full.add(peer)
        if not write.quorum.is_met(set(self._acknowledge(write)) - write.full):
            self._miss(number, write, now)

    def _miss(self, number: int, write: Write, now: Instant) -> None:
        """End a write that too few have; those that lack it are compared with."""
        for node in self._acknowledge(write):
            if node not in write.acks:
                self._repair.want(write.partition, node)
        self._end(number, write, "indeterminate", now)

    def adopted(self, epoch_before: int) -> None:
        """Count again where the owners changed."""
        registry = self._registry_sync.registry
        for number, write in list(self._writes.items()):
            if registry.ownership(write.partition).since > epoch_before:
                del self._writes[number]
                self._timers.cancel(number)
                self._replicate_all(write)

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """What a peer was told may be lost, though it is there: tell it again a little later."""
        if peer not in self._told_again and any(
            peer in write.ownership.holders and peer not in write.acks
            for write in self._writes.values()
        ):
            self._told_again.set(peer, now + RETRY_S)

    def returned(self, peer: NodeId) -> None:
        """A peer can be reached again: tell it what it has not acknowledged."""
        self._told_again.cancel(peer)
        for number, write in self._writes.items():
            if peer in write.ownership.holders and peer not in write.acks:
                self._replicate(number, write, peer)

    def wake(self, now: Instant) -> None:
        """Tell again whom we could not reach, and end writes whose time is over."""
        for peer in self._told_again.pop_due(now):
            if peer in self._registry_sync.members and not self._is_gone(peer):
                self.returned(peer)
        for number in self._timers.pop_due(now):
            self._miss(number, self._writes[number], now)

    def deadline(self) -> Instant | None:
        """Return when somebody is told again, or the next write runs out of time."""
        dues = self._timers.deadline(), self._told_again.deadline()
        return min((due for due in dues if due is not None), default=None)


def _grows_too_large(
    live: tuple[Version, ...], value: bytes, replaced: tuple[Dot, ...] | None
) -> bool:
    if replaced is None:
        return False
    gone = frozenset(replaced)
    left = sum(len(v.value) for v in live if v.dot not in gone)
    return left + len(value) > VALUE_BYTES_MAX and left > 0


def _growth(asked: AskedWrite, before: tuple[Version, ...]) -> Use:
    """Return how much a put adds to what is here; an increment of what is here: nothing."""
    old = use_of(before)
    if asked.by is not None or asked.versions:
        return growth(old, Use(1, old.size_bytes + use_of(asked.versions).size_bytes))
    gone = None if asked.replaced is None else frozenset(asked.replaced)
    left = use_of(v for v in before if gone is not None and v.dot not in gone)
    return growth(old, Use(1, left.size_bytes + len(asked.value or b"")))
