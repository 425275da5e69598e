"""Getting a write to an owner that coordinates it, and to no second one.

A write that two owners coordinated would be two writes. So each step asks: *can it have been
carried out?* Before it was sent, certainly not, and the next owner may be tried; after it was
sent, nobody can tell, and if no answer comes the outcome is indeterminate. To make the second
case rare, a peer that has not been heard in the last second is first asked for a sign of life.

The transitions, by stage and event::

    stage      answered   refused    unreachable      time is over
    knocking   send it    next       next owner       next owner; at last rejected
    sent       done       next       indeterminate    indeterminate
"""

from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.dots import Dot
from gossip.kv.limits import (
    COORDINATOR_SHARE,
    FRAME_FRESH_S,
    READY_TIMEOUT_S,
    REFUSALS_MAX,
    REQUESTS_MAX,
)
from gossip.kv.messages import (
    ABSENT,
    BUSY,
    FORKED,
    FULL,
    INCOMPLETE,
    INVALID,
    NO_COUNTER,
    NO_QUOTA,
    NOT_EMPTY,
    NOT_OWNER,
    TOO_LARGE,
    Forward,
    Forwarded,
    Increment,
    Ready,
    ReadyReply,
    Restore,
)
from gossip.kv.parts import KvParts
from gossip.kv.records import Version
from gossip.kv.requests import (
    ALL_GONE,
    DISKS_FULL,
    FORK_REASON,
    OVER_QUOTA,
    SILENT,
    TOO_FEW,
    PutResult,
    Rejected,
    quorum,
)
from gossip.kv.restored_key import OTHER_VALUES
from gossip.kv.timers import TimerQueue
from gossip.kv.writes import AskedWrite, Writes

REASONS = {
    INVALID: "the owner of this key found the request invalid",
    TOO_LARGE: "the versions under this key would become too large; get it, and put with the "
    "context of that get",
    BUSY: "the owner of this key has too many requests; try again later",
    FORKED: FORK_REASON,
    NOT_EMPTY: OTHER_VALUES,
    NO_QUOTA: OVER_QUOTA,
    NO_COUNTER: "the owner of this key could not count there; nothing was counted, so get it and "
    "see what it holds",
}
MISMATCHES = (NO_COUNTER, NOT_EMPTY)
AskedFrame = Forward | Increment | Restore
UNREACHABLE = {ABSENT: TOO_FEW, FULL: DISKS_FULL}
"""Why nobody did it, though somebody answered."""


class ForwardedWrite:
    """A write on its way to a coordinator."""

    def __init__(self, asked: AskedWrite, needed: int) -> None:
        self.asked = asked
        self.needed = needed
        self.tried: set[NodeId] = set()
        self.current: NodeId | None = None
        self.sent = False
        self.refusals = 0
        self.reason = SILENT


class WriteForwarder:
    """Manages writes that were asked of this node, until a coordinator has answered for them."""

    def __init__(self, parts: KvParts, writes: Writes) -> None:
        self.last_frame_at: dict[NodeId, Instant] = {}
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._writes = writes
        self._outbound, self._home = parts.outbound, parts.home
        self._order, self._is_gone = parts.view
        self._forwarded_writes: dict[int, ForwardedWrite] = {}
        self._timers: TimerQueue[int] = TimerQueue()

    def __len__(self) -> int:
        return len(self._forwarded_writes)

    def begin(self, asked: AskedWrite, now: Instant) -> None:
        """Bring what is asked to an owner. Raises InvalidRequest."""
        owners = self._registry_sync.registry.ownership_of(asked.key).readers
        asked = asked._replace(w=self._home.copies(asked.key, asked.w))
        self._try_next(ForwardedWrite(asked, quorum(asked.w, len(owners), "w")), now)

    def check(self, key: str, w: int | None) -> None:
        """Raise InvalidRequest if no owners of this key could satisfy ``w``."""
        quorum(w, len(self._registry_sync.registry.ownership_of(key).readers), "w")

    def _candidates(self, forwarded_write: ForwardedWrite) -> list[NodeId]:
        """Return the owners to try: ourselves first if we are complete, then by reachability."""
        registry, me = self._registry_sync.registry, self._outbound.me
        partition = registry.partition_of(forwarded_write.asked.key)
        readers = registry.ownership(partition).readers
        others = [node for node in readers if node != me and node in self._registry_sync.members]
        owners = self._order(others)
        is_complete = self._replica.is_complete(partition, registry)
        able = is_complete or forwarded_write.asked.by is None
        if me in readers and able and self._takes(forwarded_write.asked):
            owners.insert(0 if is_complete else len(owners), me)
        return [node for node in owners if node not in forwarded_write.tried]

    def _takes(self, asked: AskedWrite) -> bool:
        """Tell whether our own disk takes what is asked."""
        if self._replica.is_held_back:
            return False
        return self._replica.takes_puts or not asked.is_put

    def _try_next(self, forwarded_write: ForwardedWrite, now: Instant) -> None:
        """Go to the next owner. Only called while nobody can have carried the write out."""
        candidates = self._candidates(forwarded_write)
        if not candidates and self._is_in_vain(forwarded_write):
            self._give_up(forwarded_write, now)
            return
        if not candidates:
            # Every owner was tried once; begin again, a little later, until time is over.
            forwarded_write.tried.clear()
            forwarded_write.current = None
            self._enter(forwarded_write, now, READY_TIMEOUT_S)
            return
        forwarded_write.current = candidates[0]
        forwarded_write.tried.add(forwarded_write.current)
        if forwarded_write.current == self._outbound.me:
            self._coordinate(forwarded_write, now)
        elif now - self.last_frame_at.get(forwarded_write.current, -FRAME_FRESH_S) < FRAME_FRESH_S:
            self._send(forwarded_write, now)
        else:
            number = self._enter(forwarded_write, now, READY_TIMEOUT_S)
            self._outbound.send(Ready(number), forwarded_write.current)

    def _is_in_vain(self, forwarded_write: ForwardedWrite) -> bool:
        """Tell whether there is nobody who could do it, so that there is nothing to wait for."""
        assert not forwarded_write.sent, "what was sent may have been carried out"
        readers = self._registry_sync.registry.ownership_of(forwarded_write.asked.key).readers
        others = [n for n in readers if n != self._outbound.me and n in self._registry_sync.members]
        if not all(map(self._is_gone, others)):
            return False
        forwarded_write.reason = ALL_GONE if self._takes(forwarded_write.asked) else DISKS_FULL
        return True

    def _coordinate(self, forwarded_write: ForwardedWrite, now: Instant) -> None:
        """Do it ourselves."""
        self._writes.begin(forwarded_write.asked, now)

    def _enter(self, forwarded_write: ForwardedWrite, now: Instant, wait_s: float) -> int:
        number = self._outbound.number()
        self._forwarded_writes[number] = forwarded_write
        self._timers.set(number, min(now + wait_s, forwarded_write.asked.until))
        return number

    def _send(self, forwarded_write: ForwardedWrite, now: Instant) -> None:
        """Send the write itself. From here on, it may have been carried out."""
        assert forwarded_write.current is not None, "a write is sent to somebody"
        forwarded_write.sent = True
        left_s = max(0.0, forwarded_write.asked.until - now)
        number = self._enter(forwarded_write, now, left_s)
        question = self._question(number, forwarded_write.asked, left_s * COORDINATOR_SHARE)
        self._outbound.send(question, forwarded_write.current)
        self._outbound.counts["requests/forwarded"] += 1

    def _question(self, number: int, asked: AskedWrite, share_s: float) -> AskedFrame:
        epoch, key, w = self._registry_sync.registry.epoch, asked.key, asked.w
        if asked.versions:
            return Restore(number, epoch, key, asked.versions, w, share_s, asked.fsync)
        if asked.by is not None:
            return Increment(number, epoch, key, asked.by, w, share_s, asked.fsync)
        return Forward(number, epoch, key, asked.value, w, asked.replaced, share_s, asked.fsync)

    def _accept(self, number: int, peer: NodeId) -> ForwardedWrite | None:
        forwarded_write = self._forwarded_writes.get(number)
        if forwarded_write is None or forwarded_write.current != peer:
            return None
        del self._forwarded_writes[number]
        self._timers.cancel(number)
        return forwarded_write

    def ready(self, message: ReadyReply, peer: NodeId, now: Instant) -> None:
        """The owner is there: send the write."""
        self._writes.full_disks.heard(peer, now, is_full=message.is_full)
        forwarded_write = self._accept(message.number, peer)
        if forwarded_write is not None:
            self._send(forwarded_write, now)

    def forwarded(self, message: Forwarded, peer: NodeId, now: Instant) -> None:
        """The coordinator has answered."""
        forwarded_write = self._accept(message.number, peer)
        if forwarded_write is None:
            self._outbound.counts["frames_dropped/unexpected_answer"] += 1
            return
        is_synced = message.synced or not forwarded_write.asked.fsync
        outcome = "ok" if message.ok and is_synced else "indeterminate"
        result = PutResult(outcome, message.acks, message.needed, message.context, message.versions)
        forwarded_write.asked.finish(result, now)

    def refused(self, number: int, peer: NodeId, reason: int, now: Instant) -> bool:
        """The owner has certainly not done it. False if this was no write of ours."""
        forwarded_write = self._accept(number, peer)
        if forwarded_write is None:
            return False
        forwarded_write.sent = False
        forwarded_write.refusals += 1
        forwarded_write.reason = UNREACHABLE.get(reason, forwarded_write.reason)
        if reason in REASONS:
            is_mismatch = reason in MISMATCHES
            forwarded_write.asked.finish(Rejected(REASONS[reason], mismatch=is_mismatch), now)
        elif reason == ABSENT or forwarded_write.refusals > REFUSALS_MAX:
            self._give_up(forwarded_write, now)
        else:
            self._again(forwarded_write, now)
        return True

    def _again(self, forwarded_write: ForwardedWrite, now: Instant) -> None:
        try:
            self._try_next(forwarded_write, now)
        except InvalidRequest as error:
            # The owners have become fewer than the w that was asked for.
            forwarded_write.asked.finish(Rejected(str(error)), now)

    def _give_up(self, forwarded_write: ForwardedWrite, now: Instant) -> None:
        """End what is still open."""
        if forwarded_write.sent:
            result = PutResult("indeterminate", 0, forwarded_write.needed, b"")
            self._outbound.counts["writes/indeterminate"] += 1
            forwarded_write.asked.finish(result, now)
            return
        forwarded_write.asked.finish(Rejected(forwarded_write.reason, unreachable=True), now)

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """Frames to a peer may be lost: go on elsewhere, or admit that we cannot tell."""
        self.last_frame_at.pop(peer, None)
        for number in [
            n
            for n, forwarded_write in self._forwarded_writes.items()
            if forwarded_write.current == peer
        ]:
            forwarded_write = self._accept(number, peer)
            if forwarded_write is None:
                continue
            if forwarded_write.sent:
                self._give_up(forwarded_write, now)
            else:
                self._again(forwarded_write, now)

    def wake(self, now: Instant) -> None:
        """Try the next owner where there was no sign of life, while there is time."""
        for number in self._timers.pop_due(now):
            forwarded_write = self._forwarded_writes.pop(number)
            if forwarded_write.sent or now >= forwarded_write.asked.until:
                self._give_up(forwarded_write, now)
            else:
                self._again(forwarded_write, now)

    def deadline(self) -> Instant | None:
        """Return when the next write needs attention."""
        return self._timers.deadline()

    # The other side

    def forward(self, message: Forward, peer: NodeId, now: Instant) -> None:
        """Coordinate a write for a peer."""
        if self._may_coordinate(message, peer, now):
            self._coordinate_for(message, peer, message.value, message.context, None, now)

    def increment(self, message: Increment, peer: NodeId, now: Instant) -> None:
        """Coordinate an increment for a peer: only with all that this node counted before."""
        if not self._may_coordinate(message, peer, now):
            return
        registry = self._registry_sync.registry
        if self._replica.is_complete(registry.partition_of(message.key), registry):
            self._coordinate_for(message, peer, None, None, message.by, now)
        else:
            self._registry_sync.refuse(message, peer, INCOMPLETE)

    def restore(self, message: Restore, peer: NodeId, now: Instant) -> None:
        """Put versions out of a backup in place for a peer."""
        if self._may_coordinate(message, peer, now):
            self._coordinate_for(message, peer, None, (), None, now, message.versions)

    def _may_coordinate(self, message: AskedFrame, peer: NodeId, now: Instant) -> bool:
        registry = self._registry_sync.registry
        partition = registry.partition_of(message.key)
        if not self._registry_sync.agrees(message, partition, peer, now):
            return False
        if self._outbound.me not in registry.ownership(partition).readers:
            self._registry_sync.refuse(message, peer, NOT_OWNER)
            return False
        is_put = not isinstance(message, Forward) or message.value is not None
        if is_put and not self._replica.takes_puts:
            self._outbound.counts["puts_refused/disk"] += 1
            self._registry_sync.refuse(message, peer, FULL)
            return False
        if len(self._writes) >= REQUESTS_MAX:
            self._registry_sync.refuse(message, peer, BUSY)
            return False
        return True

    def _coordinate_for(
        self,
        message: AskedFrame,
        peer: NodeId,
        value: bytes | None,
        replaced: tuple[Dot, ...] | None,
        by: int | None,
        now: Instant,
        versions: tuple[Version, ...] = (),
    ) -> None:
        def finish(result: PutResult | Rejected, _now: Instant) -> None:
            if isinstance(result, Rejected):
                self._registry_sync.refuse(message, peer, _reason_of(message, result))
                return
            ok = result.outcome == "ok"
            answer = Forwarded(
                message.number, ok, result.acks, result.needed, result.context, result.versions,
                ok and message.fsync,
            )  # fmt: skip
            self._outbound.send(answer, peer)

        until = now + message.timeout_s
        asked = AskedWrite(
            message.key, value, message.w, replaced, until, finish, by, message.fsync, versions
        )
        try:
            self._writes.begin(asked, now)
        except InvalidRequest:
            self._registry_sync.refuse(message, peer, INVALID)


def _reason_of(message: AskedFrame, refusal: Rejected) -> int:
    if refusal.mismatch:
        return NOT_EMPTY if isinstance(message, Restore) else NO_COUNTER
    if refusal.reason == OVER_QUOTA:
        return NO_QUOTA
    if refusal.reason == DISKS_FULL:
        return FULL
    return ABSENT if refusal.unreachable else TOO_LARGE
