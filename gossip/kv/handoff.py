"""Taking over partitions, and letting go of them, without losing a write in between.

Which stages a partition goes through is in ``ownership.py``; here is what this node does in them:

1. *Sealing.* Whoever follows a registry refuses questions about a partition that were asked before
   its entry last changed. So what was heard of others since then is all that there can be.
2. *Taking over.* A new owner compares its copy (``sync_session.py``) with the others', until it is
   complete by the rule in ``takeover.py``. So does one whose disk lost something.
3. *Saying so.* What the present stage asks of this node is told to the issuer
(``ownership_progress.py``),
   again and again until the registry goes on.
4. *Letting go.* A former owner makes passes of its own, and forgets its copy only when each owner
   is complete and holds all that it holds. Who is an owner, or pending, lets go of nothing.

W is the majority, which is the default of writes. A write that was acknowledged by fewer, by its
writer's choice, arrives by step 4, a little later.

When the registry changes, only partitions whose own entry has changed begin anew. What they have
copied stays, so beginning anew costs one small frame each way for each of the others.
"""

from collections.abc import Iterable

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.limits import RETRY_S, SESSIONS_MAX
from gossip.kv.parts import KvParts
from gossip.kv.repair import RepairScheduler
from gossip.kv.takeover import (
    FIRST_EPOCH,
    NO_EPOCH,
    Copy,
    PartitionTakeover,
    completed,
    goal,
    has_done,
)
from gossip.registry.ownership import Ownership, Stage


class Handoff:
    """Manages the partitions that this node takes over, and those that it lets go."""

    def __init__(self, parts: KvParts, repair: RepairScheduler) -> None:
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._repair = repair
        self._outbound = parts.outbound
        self._order = parts.view.order
        self._takeovers: dict[int, PartitionTakeover] = {}
        self._letting_go: dict[int, set[NodeId]] = {}
        self._due: Instant | None = None
        self.done: set[int] = set()
        """The partitions of which this node has done what their stage asks of it."""

    def adopted(self, now: Instant) -> None:
        """See what a registry asks of us: at the start, and after each change."""
        before, me = self._takeovers, self._outbound.me
        self._takeovers, self._letting_go, self.done = {}, {}, set()
        registry = self._registry_sync.registry
        self._replica.doubt_places([place.number for place in registry.places])
        for partition, ownership in self._registry_sync.registry.ownerships:
            if me in ownership.holders:
                kept = before.get(partition)
                fresh = kept is None or kept.since != ownership.since
                takeover = PartitionTakeover(ownership.since) if fresh or kept is None else kept
                self._takeovers[partition] = takeover
                self._settle(partition, takeover)
        # What the registry knows of no more is kept: an issuer of a version before lost its number.
        here = self._replica.occupied() | set(self._replica.holdings)
        for partition in filter(registry.has, here):
            if me not in self._ownership(partition).holders:
                self._letting_go[partition] = set()
        # Whoever only copies has acknowledged nothing yet that counts, so nothing of it is missed.
        for partition in self._replica.damaged - set(self._letting_go):
            if goal(self._ownership(partition), me) is None:
                self._replica.write_off(partition)
        self._due = now if self._takeovers or self._letting_go else None

    def _ownership(self, partition: int) -> Ownership:
        return self._registry_sync.registry.ownership(partition)

    def unfinished(self) -> int:
        """Return how many partitions we have to do with that are not at rest."""
        moving = sum(
            ownership.stage is not Stage.SETTLED and self._outbound.me in ownership.holders
            for partition, ownership in self._registry_sync.registry.ownerships
            if partition not in self._takeovers
        )
        return len(self._takeovers) + len(self._letting_go) + moving

    def finished(self, partition: int, peer: NodeId, copy: Copy, now: Instant) -> None:
        """A pass with a peer has succeeded; ``copy`` is what it said of its own."""
        takeover = self._takeovers.get(partition)
        if takeover is not None:
            # Go on at once after news; whoever had none is asked again after a pause.
            self._due = now if takeover.compared.get(peer) != copy else self._due
            takeover.compared[peer] = copy
            self._settle(partition, takeover)
        held_by = self._letting_go.get(partition)
        ownership = self._ownership(partition)
        if held_by is not None and copy.has_all_before(ownership.readers_since):
            self._due = now
            held_by.add(peer)
            if held_by.issuperset(self._askable(ownership.readers)):
                self._drop(partition)

    def _askable(self, nodes: Iterable[NodeId]) -> frozenset[NodeId]:
        """Return those of these nodes that belong, without us."""
        return self._registry_sync.members.intersection(nodes) - {self._outbound.me}

    def _settle(self, partition: int, takeover: PartitionTakeover) -> None:
        """Become complete when enough was heard; and be done when that is all."""
        ownership, me = self._ownership(partition), self._outbound.me
        mine = self._replica.copy(partition)
        wanted = goal(ownership, me)
        if wanted == NO_EPOCH and mine.is_sound and partition not in self._replica.holdings:
            self._replica.hold(partition, FIRST_EPOCH)
        elif wanted is not None and not mine.has_all_before(wanted):
            members = self._registry_sync.members
            reached = completed(ownership, me, mine, takeover.compared, members)
            if reached is not None and not mine.has_all_before(reached):
                self._replica.hold(partition, max(reached, FIRST_EPOCH))
                self._outbound.counts["handoffs/taken"] += reached == wanted
        if has_done(ownership, me, self._replica.copy(partition), takeover.compared):
            del self._takeovers[partition]
            self.done.add(partition)

    def _drop(self, partition: int) -> None:
        del self._letting_go[partition]
        holders = self._ownership(partition).holders
        assert self._outbound.me not in holders, "an owner, present or to come, keeps its copy"
        self._replica.forget(partition)
        self._outbound.counts["handoffs/let_go"] += 1

    def wake(self, now: Instant) -> None:
        """Look for partners for what is unfinished."""
        if self._due is None or now < self._due:
            return
        room = 2 * SESSIONS_MAX
        for partition, takeover in list(self._takeovers.items()):
            if room and not self._repair.is_wanted(partition):
                room -= 1
                self._ask_next(partition, takeover)
        for partition, held_by in list(self._letting_go.items()):
            if room and not self._repair.is_wanted(partition):
                room -= 1
                self._notify_next(partition, held_by)
        self._repair.work(now)
        self._due = now + RETRY_S if self._takeovers or self._letting_go else None

    def _ask_next(self, partition: int, takeover: PartitionTakeover) -> None:
        """Compare with those that were asked least; of these, with an owner first."""
        ownership = self._ownership(partition)
        candidates = self._order(self._askable(ownership.holders))

        def priority(node: NodeId) -> tuple[int, bool]:
            return takeover.attempts[node], node not in ownership.owners

        if candidates:
            chosen = min(candidates, key=priority)
            takeover.attempts[chosen] += 1
            self._repair.want(partition, chosen)

    def _notify_next(self, partition: int, held_by: set[NodeId]) -> None:
        """Make a pass with an owner that is not known to hold all that we hold."""
        missing = self._askable(self._ownership(partition).readers) - held_by
        for node in self._order(missing)[:1]:
            self._repair.want(partition, node)

    def deadline(self) -> Instant | None:
        """Return when to look for partners again."""
        return self._due
