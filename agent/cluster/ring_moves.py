"""What this agent has seen of the last change of owners: how much was to move, and has.

A registry says which partitions are on their way now, and nothing of those that have arrived. So
each agent remembers for itself, from the first registry with some on their way to the first
without; whoever starts in between has seen less. It is shown to people, and decides nothing.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from agent.system.wall_clock import boot_time
from gossip.core.ids import NodeId
from gossip.kv.requests import RegistryAdopted
from gossip.registry.ownership import Ownership, Stage
from gossip.registry.registry import Registry


class Delay(NamedTuple):
    """How many partitions wait in a stage for one node to have done its part."""

    stage: Stage
    node: NodeId
    partitions: int


class RingMoves:
    """Remembers the last change of owners, from its begin to its end."""

    def __init__(self, registry: Registry, clock: Callable[[], float] = boot_time) -> None:
        self._clock = clock
        self._began_at = self._ended_at = clock()
        self._seen: set[int] = set()
        self._moving: set[int] = set()
        self.follow(registry)

    def on_event(self, event: object) -> None:
        """Heed what the node says."""
        if isinstance(event, RegistryAdopted):
            self.follow(event.registry)

    def follow(self, registry: Registry) -> None:
        """Take note of what is on its way in a registry."""
        moving = {p for p, each in registry.ownerships if each.stage is not Stage.SETTLED}
        if moving and not self._moving:
            self._began_at, self._seen = self._clock(), set()
        if self._moving and not moving:
            self._ended_at = self._clock()
        self._seen |= moving
        self._moving = moving

    @property
    def to_move(self) -> int:
        """How many partitions were on their way since it began."""
        return len(self._seen)

    @property
    def moved(self) -> int:
        """How many of these have arrived."""
        return len(self._seen - self._moving)

    @property
    def took_s(self) -> float:
        """For how long it has gone on, or did."""
        return (self._clock() if self._moving else self._ended_at) - self._began_at

    @property
    def left_s(self) -> float | None:
        """How long the rest takes if it goes on as so far; None while nobody can tell."""
        if not self._moving or not self.moved:
            return None
        return self.took_s / self.moved * len(self._moving)


def waits(registry: Registry) -> list[Delay]:
    """Return for whom partitions wait, most first: who copies, or has to take note."""
    counted = Counter(
        (each.stage, node) for _, each in registry.ownerships for node in _awaited(each)
    )
    return [Delay(stage, node, count) for (stage, node), count in counted.most_common()]


def _awaited(ownership: Ownership) -> tuple[NodeId, ...]:
    """Return who has to do something before a partition goes on, and may have done it."""
    if ownership.stage is Stage.SETTLED:
        return ()
    if ownership.stage is Stage.LEAVING:
        return ownership.owners
    return ownership.newcomers or ownership.pending
