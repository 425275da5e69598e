"""Which bodies this node is to have: which it lacks, and which it may let go.

What there is to keep follows from the records alone: who owns a block's record is to have its body.
But no copy of the records is believed when it speaks against a body. A record may be missing here
because a disk lost it, or because it is yet to come; so a body goes only when most owners have no
record of it, or when it is no longer this node's and all owners have it. Each body is in one of
these states, and ``NEXT_STATES`` has all that can become of it::

    WANTED      a record is here, the body is not          PULLING    it is being fetched
    KEPT        both are here
    UNCLAIMED   a body of which no record was seen yet: an upload is under way, or was broken off
    DOUBTED     our complete copy has no record (any more): most owners are asked
    SURPLUS     the body of somebody else's block: the owners are asked whether they have it

A machine as in ``gossip/core/machine.py``, with inputs of its own: what was seen on the disk, among
the records, and what became of ``Pull`` and ``Confirm``.
"""

import enum
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from gossip.bodies.block_limits import (
    CONFIRM_AGAIN_S,
    CONFIRMS_MAX,
    ORPHAN_S,
    PULL_AFTER_S,
    PULL_AGAIN_MAX_S,
    PULL_AGAIN_S,
    PULLS_MAX,
)
from gossip.bodies.file_records import BlockName, BlockRecord
from gossip.core.machine import Instant


class BodyState(enum.Enum):
    """Where a body is in the picture above."""

    WANTED = "wanted"
    PULLING = "pulling"
    KEPT = "kept"
    UNCLAIMED = "unclaimed"
    DOUBTED = "doubted"
    SURPLUS = "surplus"


class BodyEvent(enum.Enum):
    """What is learned of a body."""

    CLAIMED = "claimed"  # its record is here, and this node is to have it
    GONE = "gone"  # our complete copy of the records has none of it
    FOREIGN = "foreign"  # this node is not, or no longer, to have it
    BEGUN = "begun"
    ARRIVED = "arrived"
    FAILED = "failed"
    DAMAGED = "damaged"
    AGED = "aged"  # no record came for a day
    DELETED = "deleted"  # most owners have no record
    PLACED = "placed"  # all owners have the body


class Confirmation(enum.Enum):
    """What asking the owners of a block's record has shown."""

    DELETED = "deleted"
    PLACED = "placed"
    STANDS = "stands"
    UNKNOWN = "unknown"


S, E = BodyState, BodyEvent
NEXT_STATES: dict[BodyState | None, dict[BodyEvent, BodyState | None]] = {
    None: {E.CLAIMED: S.WANTED, E.ARRIVED: S.UNCLAIMED},
    S.WANTED: {E.BEGUN: S.PULLING, E.ARRIVED: S.KEPT, E.GONE: None, E.FOREIGN: None},
    S.PULLING: {E.ARRIVED: S.KEPT, E.FAILED: S.WANTED, E.GONE: None, E.FOREIGN: None},
    S.KEPT: {E.GONE: S.DOUBTED, E.FOREIGN: S.SURPLUS, E.DAMAGED: S.WANTED},
    S.UNCLAIMED: {E.CLAIMED: S.KEPT, E.AGED: S.DOUBTED, E.FOREIGN: S.SURPLUS, E.DAMAGED: None},
    S.DOUBTED: {E.CLAIMED: S.KEPT, E.DELETED: None, E.FOREIGN: S.SURPLUS, E.DAMAGED: None},
    S.SURPLUS: {E.CLAIMED: S.KEPT, E.DELETED: None, E.PLACED: None, E.DAMAGED: None},
}
"""None: nothing is known of it, or to be done. What is not here changes nothing."""
DROPPING = frozenset({E.DELETED, E.PLACED})
ASKING = frozenset({S.DOUBTED, S.SURPLUS})


class Pull(msgspec.Struct, frozen=True):
    """Fetch a body from whoever has it; ``arrived`` or ``failed`` tells how it ended."""

    name: BlockName
    record: BlockRecord


class Confirm(msgspec.Struct, frozen=True):
    """Ask the owners of a block's record; ``confirmed`` tells what they said."""

    name: BlockName


class Drop(msgspec.Struct, frozen=True):
    """Remove a body."""

    name: BlockName


BodyEffect = Pull | Confirm | Drop


class TrackedBody:
    """What is known of one body."""

    def __init__(self, now: Instant) -> None:
        self.state: BodyState | None = None
        self.since = now
        self.due: Instant | None = None
        self.tries = 0
        self.record: BlockRecord | None = None
        """The last that was seen here; a body that had one may go as soon as it is deleted."""


class BlockKeeper:
    """Keeps track of the bodies of one node."""

    def __init__(self, partition_of: Callable[[BlockName], int]) -> None:
        self._partition_of = partition_of
        self._bodies: dict[BlockName, TrackedBody] = {}
        self._partitions: dict[int, set[BlockName]] = {}
        self._due: list[tuple[Instant, BlockName]] = []
        self._effects: deque[BodyEffect] = deque()
        self._pulling = 0
        self._asking: set[BlockName] = set()

    # What is seen

    def scanned(
        self,
        partition: int,
        records: Mapping[BlockName, BlockRecord],
        now: Instant,
        *,
        is_complete: bool,
    ) -> None:
        """Take in all records of blocks of a partition of this node's.

        ``is_complete``: the copy has all that was acknowledged, so that none is merely yet to come.
        """
        for name, record in records.items():
            body = self._body(name, now)
            body.record = record
            self._learn(name, E.CLAIMED, now)
        if is_complete:
            for name in sorted(self._partitions.get(partition, set()) - records.keys()):
                self._learn(name, E.GONE, now)

    def foreign(self, partition: int, now: Instant) -> None:
        """Take in that this node is not to have what a partition has."""
        for name in sorted(self._partitions.get(partition, ())):
            self._learn(name, E.FOREIGN, now)

    def arrived(self, name: BlockName, now: Instant, since: Instant | None = None) -> None:
        """Take in that a body is here, whole and on the disk; ``since`` when, if not since now."""
        was_pulling = self.state(name) is S.PULLING
        body = self._body(name, now)
        body.since = now if since is None else since
        self._pulling -= was_pulling
        self._learn(name, E.ARRIVED, now)

    def failed(self, name: BlockName, now: Instant) -> None:
        """Take in that a body could not be fetched."""
        if self.state(name) is S.PULLING:
            self._pulling -= 1
            self._learn(name, E.FAILED, now)

    def damaged(self, name: BlockName, now: Instant) -> None:
        """Take in that a body was found to be no good, and is not here any more."""
        self._learn(name, E.DAMAGED, now)

    def confirmed(self, name: BlockName, answer: Confirmation, now: Instant) -> None:
        """Take in what the owners of a block's record said."""
        self._asking.discard(name)
        body = self._bodies.get(name)
        if body is None or body.state not in ASKING:
            return
        if answer is Confirmation.PLACED:
            self._learn(name, E.PLACED, now)
        elif answer is Confirmation.DELETED and self._may_be_deleted(body, now):
            self._learn(name, E.DELETED, now)
        if self._bodies.get(name) is body:
            self._plan(name, body, now + CONFIRM_AGAIN_S)

    def _may_be_deleted(self, body: TrackedBody, now: Instant) -> bool:
        """Tell whether that there is no record means that there is none any more."""
        return body.record is not None or now - body.since >= ORPHAN_S

    # What is known

    def state(self, name: BlockName) -> BodyState | None:
        """Return where a body is in the picture above; None if nothing is to be done about it."""
        body = self._bodies.get(name)
        return body.state if body is not None else None

    def count(self) -> dict[str, int]:
        """Return how many bodies are in each state."""
        counted = dict.fromkeys((state.value for state in BodyState), 0)
        for body in self._bodies.values():
            assert body.state is not None, "what nothing is known of is forgotten"
            counted[body.state.value] += 1
        return counted

    def files(self) -> set[bytes]:
        """Return of which files there are records or bodies here."""
        return {name.file for name in self._bodies}

    def kept(self) -> Iterable[BlockName]:
        """Return the blocks whose record and body are here."""
        return [name for name, body in self._bodies.items() if body.state is S.KEPT]

    # What comes of it

    def deadline(self) -> Instant | None:
        """Return when to call ``wake``."""
        return self._due[0][0] if self._due else None

    def wake(self, now: Instant) -> None:
        """Begin what is due, as much as may be under way at a time."""
        later: list[tuple[Instant, BlockName]] = []
        while self._due and self._due[0][0] <= now:
            due, name = heapq.heappop(self._due)
            body = self._bodies.get(name)
            if body is None or body.due != due:
                continue  # planned anew since
            if not self._begin(name, body, now):
                later.append((due, name))
        for planned in later:
            heapq.heappush(self._due, planned)

    def _begin(self, name: BlockName, body: TrackedBody, now: Instant) -> bool:
        """Begin what is due for a body; say whether there was room for it."""
        if body.state is S.WANTED:
            if self._pulling >= PULLS_MAX:
                return False
            assert body.record is not None, "a record says that it is wanted"
            self._pulling += 1
            self._learn(name, E.BEGUN, now)
            self._effects.append(Pull(name, body.record))
        elif body.state is S.UNCLAIMED:
            self._learn(name, E.AGED, now)
        elif body.state in ASKING:
            if len(self._asking) >= CONFIRMS_MAX:
                return False
            body.due = None
            self._asking.add(name)
            self._effects.append(Confirm(name))
        return True

    def effects(self) -> Iterator[BodyEffect]:
        """Yield what is to be done, in order."""
        while self._effects:
            yield self._effects.popleft()

    def _body(self, name: BlockName, now: Instant) -> TrackedBody:
        body = self._bodies.get(name)
        if body is None:
            body = self._bodies[name] = TrackedBody(now)
            self._partitions.setdefault(self._partition_of(name), set()).add(name)
        return body

    def _learn(self, name: BlockName, event: BodyEvent, now: Instant) -> None:
        body = self._bodies.get(name)
        if body is None:
            return
        nexts = NEXT_STATES[body.state]
        if event in nexts:
            before, body.state = body.state, nexts[event]
            if before is S.PULLING and event in (E.GONE, E.FOREIGN):
                self._pulling -= 1
            if event in DROPPING:
                self._effects.append(Drop(name))
            self._plan_next(name, body, event, now)
        if body.state is None:
            self._forget(name)

    def _plan_next(
        self, name: BlockName, body: TrackedBody, event: BodyEvent, now: Instant
    ) -> None:
        if body.state is S.WANTED:
            body.tries = body.tries + 1 if event is E.FAILED else 0
            again_s = min(PULL_AGAIN_S * 2 ** (body.tries - 1), PULL_AGAIN_MAX_S)
            self._plan(name, body, now + (again_s if body.tries else PULL_AFTER_S))
        elif body.state is S.UNCLAIMED:
            self._plan(name, body, body.since + ORPHAN_S)
        elif body.state in ASKING:
            self._plan(name, body, now)
        else:
            body.due = None

    def _plan(self, name: BlockName, body: TrackedBody, due: Instant) -> None:
        body.due = due
        heapq.heappush(self._due, (due, name))

    def _forget(self, name: BlockName) -> None:
        del self._bodies[name]
        partition = self._partition_of(name)
        self._partitions[partition].discard(name)
        if not self._partitions[partition]:
            del self._partitions[partition]
