"""One pass over one partition with one other node.

::

    me                                        other
    Compare(digest)             ->
                                <-  Compared(same, complete, coverage)
        same: absorb coverage, done
        else with it: a digest of each leaf (``leaves.py``)
    Page(after, differing leaves) ->
                                <-  Paged(keys with dots, horizon)
    Exchange(differing keys)    ->            merges ours
                                <-  Exchanged(its states)
        merge; next batch, next page; at the end absorb coverage, done

After a pass, everything that the other held when it began has been merged here, key by key,
and everything of ours has been merged there. Only then may its clock be added to ours: the clock
says "all of this I have processed", which is now true of us as well. That holds also while both
sides take writes in between; those are simply not in the clock that was sent first. It would not
hold if the other started anew on the way, and its disk had lost something: so the clock and the
keys must come from one life of it, and a later one refuses to go on.

Cheap when equal: one small frame each way.
"""

from collections import deque
from collections.abc import Callable

from gossip.core.errors import SetAside
from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.dots import Coverage, Dot
from gossip.kv.leaves import LEAVES, LEAVES_ASKED_MAX, Leaf, differing
from gossip.kv.limits import (
    EXCHANGE_BYTES_MAX,
    EXCHANGE_KEYS_MAX,
    PAGE_ENTRIES_MAX,
    PASS_S,
    SESSION_TIMEOUT_S,
    TRANSFERS_QUEUED_MAX,
)
from gossip.kv.messages import (
    BUSY,
    STALE_EPOCH,
    KeyPage,
    KeyPageRequest,
    StatesSynced,
    SyncStart,
    SyncStarted,
    SyncStates,
)
from gossip.kv.parts import KvParts
from gossip.kv.records import KeyState
from gossip.kv.takeover import Copy
from gossip.kv.timers import TimerQueue
from gossip.registry.ownership import Stage

Finished = Callable[[int, NodeId, Copy | None, Instant], None]
"""(partition, peer, what the peer said of its copy; None if the pass failed, now)"""


class SyncSession:
    """One pass over one partition with one other owner, under way."""

    def __init__(self, partition: int, peer: NodeId, epoch: int) -> None:
        self.partition = partition
        self.peer = peer
        self.epoch = epoch
        self.copy = Copy(is_sound=False, complete_for=0)
        self.coverage: Coverage = ()
        self.life = 0
        self.since: Instant | None = None
        """When it first asked for keys."""
        self.after = ""
        self.horizon = ""
        self.is_transfer = False
        self.leaves: tuple[Leaf, ...] = ()
        """Those whose keys are looked at; none: all are."""
        self.sent_bytes = 0
        """Of what was told in the last exchange."""
        self.differing: dict[str, tuple[Dot, ...]] = {}
        self.lacks_room = False
        """Whether something was left out, for which our disk is too full."""


class SyncSessions:
    """Manages the passes that this node has begun."""

    def __init__(self, parts: KvParts) -> None:
        self.finished: Finished = lambda _partition, _peer, _copy, _now: None
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._outbound = parts.outbound
        self._transfers = parts.transfers
        self._queued: deque[SyncSession] = deque()
        """Transfers that wait for those before them."""
        self._transferring = 0
        self._paused: TimerQueue[SyncSession] = TimerQueue()
        self._passes: dict[int, SyncSession] = {}
        self._timers: TimerQueue[int] = TimerQueue()

    def __len__(self) -> int:
        return len(self._passes)

    @property
    def transferring(self) -> int:
        """How many partitions are being copied to here."""
        return self._transferring

    @property
    def queued(self) -> int:
        """How many transfers wait for those before them."""
        return len(self._queued)

    def begin(self, partition: int, peer: NodeId, now: Instant) -> None:
        """Begin a pass; ``finished`` will be called for it."""
        epoch = self._registry_sync.registry.epoch
        number = self._enter(SyncSession(partition, peer, epoch), now)
        digest = self._replica.digest(partition)
        question = SyncStart(number, epoch, partition, digest)
        self._outbound.send(question, peer, self._replica.token(partition))
        self._outbound.counts["partition_syncs/begun"] += 1

    def _enter(self, run: SyncSession, now: Instant) -> int:
        """Await one answer."""
        number = self._outbound.number()
        self._passes[number] = run
        self._timers.set(number, now + SESSION_TIMEOUT_S)
        return number

    def _accept(self, number: int, peer: NodeId) -> SyncSession | None:
        """Return the pass that awaits this answer, and await it no longer."""
        run = self._passes.get(number)
        if run is None or run.peer != peer:
            self._outbound.counts["frames_dropped/unexpected_answer"] += 1
            return None
        self._timers.cancel(number)
        return self._passes.pop(number)

    def compared(self, message: SyncStarted, peer: NodeId, now: Instant) -> None:
        """The other has looked at our digest."""
        run = self._accept(message.number, peer)
        if run is None:
            return
        run.copy, run.coverage, run.life = message.copy, message.coverage, message.life
        if message.same:
            self._succeed(run, now)
        else:
            self._outbound.counts["partition_syncs/differing"] += 1
            self._look_at_leaves(run, message.leaves, now)

    def _look_at_leaves(self, run: SyncSession, theirs: tuple[int, ...], now: Instant) -> None:
        """Ask for the keys of the leaves that differ; for all if that is not known, or most do."""
        if len(theirs) == LEAVES:
            found = differing(self._replica.leaves(run.partition), theirs)
            if not found:  # what the other had when it looked is here by now
                self._succeed(run, now)
                return
            run.leaves = tuple(sorted(found)) if len(found) <= LEAVES_ASKED_MAX else ()
        if not self._is_transfer(run.partition):
            self._ask_page(run, now)
        elif len(self._queued) < TRANSFERS_QUEUED_MAX:
            self._queued.append(run)
            self._start_transfers(now)
        else:
            self._put_off(run, now)

    def _is_transfer(self, partition: int) -> bool:
        """Tell whether what differs of a partition is a copy to be made, and no repair."""
        registry = self._registry_sync.registry
        is_moving = registry.ownership(partition).stage is not Stage.SETTLED
        return is_moving or not self._replica.is_complete(partition, registry)

    def _start_transfers(self, now: Instant) -> None:
        """Go on with those that wait, as far as there is room."""
        while self._queued and self._transferring < self._transfers.limits.inbound:
            run = self._queued.popleft()
            run.is_transfer = True
            self._transferring += 1
            self._ask_page(run, now)

    def _put_off(self, run: SyncSession, now: Instant) -> None:
        """Give a pass up that is to be begun again a little later; nothing is wrong with it."""
        self._outbound.counts["partition_syncs/put_off"] += 1
        self._end(run, None, now)

    def _end(self, run: SyncSession, copy: Copy | None, now: Instant) -> None:
        """A pass is over; the next transfer may begin."""
        self._transferring -= run.is_transfer
        run.is_transfer = False
        self._start_transfers(now)
        self.finished(run.partition, run.peer, copy, now)

    def _ask_page(self, run: SyncSession, now: Instant) -> None:
        run.since = now if run.since is None else run.since
        number = self._enter(run, now)
        self._outbound.send(
            KeyPageRequest(number, run.epoch, run.partition, run.after, run.life, run.leaves),
            run.peer,
        )

    def paged(self, message: KeyPage, peer: NodeId, now: Instant) -> None:
        """The other has named keys."""
        run = self._accept(message.number, peer)
        if run is None:
            return
        if message.horizon and message.horizon <= run.after:
            self._fail(run, now)
            return
        theirs = dict(message.entries)
        ours = self._ours(run, message.horizon)
        run.horizon = message.horizon
        run.differing = {
            key: theirs.get(key, ())
            for key in sorted(theirs.keys() | ours.keys())
            if set(theirs.get(key, ())) != ours.get(key, frozenset())
            and self._registry_sync.registry.may_lie_in(key, run.partition)
        }
        self._go_on(run, now)

    def _ours(self, run: SyncSession, horizon: str) -> dict[str, frozenset[Dot]]:
        """Return the live dots of our keys in the range of a page."""
        ours: dict[str, frozenset[Dot]] = {}
        after = run.after
        while True:
            page = self._replica.scan_part(run.partition, run.leaves, after, PAGE_ENTRIES_MAX)
            ours.update((k, r.dots()) for k, r in page if not horizon or k <= horizon)
            if len(page) < PAGE_ENTRIES_MAX or (horizon and page[-1][0] >= horizon):
                return ours
            after = page[-1][0]

    def _go_on(self, run: SyncSession, now: Instant) -> None:
        """Exchange what still differs; else turn the page; else be done.

        There are few places for passes, and a peer can name keys without an end.
        """
        if run.since is not None and now - run.since > PASS_S:
            self._put_off(run, now)
        elif run.differing:
            self._exchange(run, now)
        elif run.horizon:
            run.after = run.horizon
            self._ask_page(run, now)
        else:
            self._succeed(run, now)

    def _exchange(self, run: SyncSession, now: Instant) -> None:
        states: list[tuple[str, KeyState]] = []
        size = 0
        for key, dots in run.differing.items():
            state = self._replica.answer(run.partition, key, dots)
            size += state.size_bytes()
            if states and (size > EXCHANGE_BYTES_MAX or len(states) >= EXCHANGE_KEYS_MAX):
                break
            states.append((key, state))
        run.sent_bytes = size
        question = SyncStates(
            self._enter(run, now), run.epoch, run.partition, tuple(states), run.life
        )
        self._outbound.send(question, run.peer, self._replica.token(run.partition))

    def exchanged(self, message: StatesSynced, peer: NodeId, now: Instant) -> None:
        """The other has merged some of our states and told its own."""
        run = self._accept(message.number, peer)
        if run is None:
            return
        told = [(key, state) for key, state in message.states if key in run.differing]
        if not told:
            self._fail(run, now)
            return
        for key, state in told:
            del run.differing[key]
            if not self._replica.has_room_for(run.partition, key, state):
                run.lacks_room = True
                self._outbound.counts["repairs/no_room"] += 1
            elif self._is_holder(run.partition):
                try:
                    self._replica.merge(run.partition, key, state, now)
                except SetAside:  # a pass without it would hold it for deleted
                    self._fail(run, now)
                    raise
                self._outbound.counts["repairs/keys"] += 1
        size = run.sent_bytes + sum(state.size_bytes() for _, state in told)
        pause_s = self._transfers.pause_s(size, now)
        if pause_s > 0:
            self._paused.set(run, now + pause_s)
        else:
            self._go_on(run, now)

    def _is_holder(self, partition: int) -> bool:
        return self._outbound.me in self._registry_sync.registry.ownership(partition).holders

    def _succeed(self, run: SyncSession, now: Instant) -> None:
        if run.lacks_room:  # its clock would say of what was left out that it was deleted
            self._fail(run, now)
            return
        if self._is_holder(run.partition):
            self._replica.absorb(run.partition, run.coverage)
        self._end(run, run.copy, now)

    def _fail(self, run: SyncSession, now: Instant) -> None:
        self._outbound.counts["partition_syncs/failed"] += 1
        self._end(run, None, now)

    def refused(self, number: int, peer: NodeId, now: Instant, reason: int = STALE_EPOCH) -> bool:
        """A question was refused: give the pass up. False if it was not one of ours."""
        if number not in self._passes:
            return False
        run = self._accept(number, peer)
        if run is not None:
            (self._put_off if reason == BUSY else self._fail)(run, now)
        return True

    def _abandon_waiting(self, is_over: Callable[[SyncSession], bool], now: Instant) -> None:
        """Give up passes that wait for no answer, but for those before them, or for their time."""
        gone = [run for run in (*self._queued, *self._paused.items()) if is_over(run)]
        self._queued = deque(run for run in self._queued if run not in gone)
        for run in gone:
            self._paused.cancel(run)
        for run in gone:
            self._fail(run, now)

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """Give up all passes with this peer."""
        self._abandon_waiting(lambda run: run.peer == peer, now)
        for number in [n for n, run in self._passes.items() if run.peer == peer]:
            self.refused(number, peer, now)

    def restart(self, changed: set[int], now: Instant) -> None:
        """Give up the passes over these partitions: their owners have changed under them."""
        self._abandon_waiting(lambda run: run.partition in changed, now)
        for number, run in list(self._passes.items()):
            if run.partition in changed:
                self.refused(number, run.peer, now)

    def wake(self, now: Instant) -> None:
        """Go on with passes that have waited, and give up those that got no answer."""
        for run in list(self._paused.pop_due(now)):
            self._go_on(run, now)
        for number in self._timers.pop_due(now):
            self._fail(self._passes.pop(number), now)

    def deadline(self) -> Instant | None:
        """Return when the next pass is to be given up."""
        dues = self._timers.deadline(), self._paused.deadline()
        return min((due for due in dues if due is not None), default=None)
