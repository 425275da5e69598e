"""Checkers of the data plane: they judge the history of operations, and the disks at the end.

Every put of a campaign writes a value that no other put writes, so a value names the put that it
came from, and the whole question of what may be visible becomes one of order in time:

* A value that is gone must have been replaced. ``may_replace`` says which operations can have
  done that: a write that names what it had read replaces only what existed when it read; a blind
  write replaces what its owner had when it took effect, which is before its acknowledgement, or at
  any later time if there was none.
* A value that was replaced must be gone. ``must_replace`` says when that is certain: somebody
  read the value, then wrote or deleted with that reading as context, and was told "ok".

No clock of any node enters: the times are the world's.
"""

import math
from collections import defaultdict

from gossip.kv.requests import Delete, Get, Put
from gossip.sim.invariants import Checker, WorldView
from gossip.sim.operations import Operation


def value_of(put: Operation) -> bytes:
    """Return what a put wrote."""
    assert isinstance(put.request, Put), "only a put writes a value"
    return put.request.value


def may_replace(later: Operation, earlier: Operation) -> bool:
    """Tell whether the write ``later`` can be why the value of the put ``earlier`` is gone."""
    if later is earlier or not later.is_write:
        return False
    if later.read is not None:
        assert later.read.completed_at is not None, "the context came from an answered get"
        return earlier.invoked_at < later.read.completed_at
    effect_until = later.completed_at if later.acknowledged else None
    return earlier.invoked_at < (math.inf if effect_until is None else effect_until)


def must_replace(later: Operation, earlier: Operation) -> bool:
    """Tell whether the value of ``earlier`` has to be gone once ``later`` was acknowledged."""
    if not later.acknowledged:
        return False
    if later.read is not None:
        return value_of(earlier) in later.read.values
    # A delete without context removes all that a quorum read finds, hence all acknowledged.
    return isinstance(later.request, Delete) and earlier.acknowledged and _before(earlier, later)


def by_key(operations: list[Operation]) -> dict[str, list[Operation]]:
    """Sort a history by key; keys do not influence each other."""
    keys: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        keys[operation.key].append(operation)
    return keys


class NoLostWrites(Checker):
    """Acknowledged writes survive, deleted data does not come back, replicas agree."""

    def settled(self, world: WorldView) -> None:
        """Judge what the replicas hold at the end against the whole history."""
        for key, history in by_key(world.operations).items():
            held = {name: world.stored(name, key) for name in world.owners(key)}
            final = next(iter(held.values()))
            if any(values != final for values in held.values()):
                raise self.violated(world, "the owners", f"of {key!r} differ: {held}")
            self._judge(world, key, history, final)

    def _judge(
        self, world: WorldView, key: str, history: list[Operation], final: frozenset[bytes]
    ) -> None:
        puts = {value_of(op): op for op in history if isinstance(op.request, Put)}
        for value in final:
            if value not in puts:
                raise self.violated(world, "the owners", f"of {key!r} hold {value!r}, never put")
            for later in history:
                if must_replace(later, puts[value]):
                    raise self.violated(
                        world, "the owners", f"still hold {puts[value]}, replaced by {later}"
                    )
        for put in puts.values():
            if not put.acknowledged or value_of(put) in final:
                continue
            if not any(may_replace(later, put) for later in history):
                raise self.violated(world, "the owners", f"lost {put}, which nothing replaced")


class QuorumReads(Checker):
    """A quorum read sees every quorum write that was acknowledged before it began.

    Holds within one epoch of the placement; only for worlds whose registry stands still.
    """

    def __init__(self) -> None:
        self.judged = 0

    def answered(self, world: WorldView, operation: Operation) -> None:
        """Judge a get at the moment of its answer."""
        if not isinstance(operation.request, Get) or operation.outcome != "ok":
            return
        self.judged += 1
        seen = set(operation.values)
        history = [other for other in world.operations if other.key == operation.key]
        puts = [other for other in history if isinstance(other.request, Put)]
        for put in puts:
            if value_of(put) in seen:
                self._may_be_seen(world, operation, put, history)
            elif _is_due(put, operation, history):
                raise self.violated(world, operation.host, f"read {operation} without {put}")
        if strange := seen - {value_of(put) for put in puts}:
            raise self.violated(world, operation.host, f"read {strange}, which nobody put")

    def _may_be_seen(
        self, world: WorldView, read: Operation, put: Operation, history: list[Operation]
    ) -> None:
        for later in history:
            if must_replace(later, put) and _before(later, read):
                raise self.violated(world, read.host, f"read {put} after {later} was acknowledged")


def _is_due(put: Operation, read: Operation, history: list[Operation]) -> bool:
    """Tell whether a read has to return this put: it was acknowledged, and nothing replaced it."""
    if not put.acknowledged or not _before(put, read):
        return False
    return not any(may_replace(later, put) for later in history)


def _before(one: Operation, other: Operation) -> bool:
    """Tell whether one was answered before the other was sent."""
    return one.completed_at is not None and one.completed_at < other.invoked_at
