"""Taking over partitions, and letting go of them, without losing a write in between.

When the owners of a partition change from S to S', no step may open a gap through which an
acknowledged write is missed by a quorum read:

1. *Sealing.* Whoever has adopted the new registry refuses writes and reads under the old one.
2. *Taking over.* A new owner takes writes at once, but answers reads only when it has made a pass
   (``comparison.py``) with |S| - W + 1 complete members of S, each of which had sealed: every
   write that W members of S acknowledged is on at least one of them.
3. *Letting go.* A former owner makes passes of its own, and forgets its copy only when each
   member of S' is complete and holds all that it holds.

W is the majority, which is the default of writes. A write that was acknowledged by fewer, by its
writer's choice, arrives by step 3, a little later.

Members of S that were removed from the registry cannot be asked. Their absence is what the
operator decided; the count is then what is left of S. And if changes came so fast that too few of
S are complete, a new owner asks every node that belongs: who has heard all has heard enough.

**A damaged copy** (``storage.py``) is taken over as well, though no registry has changed. What is
gone are writes that this node acknowledged, as one of S or as one of S'. The latter may be on any
W - 1 others of S', complete or not, so passes with |S'| - W + 1 of those are needed on top. The
former are on every complete member of S', or are found in S as above. A covey of one asks nobody:
there what is gone is gone, and the storage has said so.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from gossip.ids import NodeId
from gossip.machine import Instant
from gossip.state.limits import RETRY_S, SESSIONS_MAX
from gossip.state.post import Post
from gossip.state.registrar import Registrar
from gossip.state.repair import Repair
from gossip.state.replica import Replica

Order = Callable[[Iterable[NodeId]], list[NodeId]]
"""Sorts nodes by how soon they may be expected to answer. Only ever an order to try them in."""


class Takeover:
    """What a new owner has heard so far; ``damaged``: one that had a copy."""

    def __init__(self, *, damaged: bool) -> None:
        self.damaged = damaged
        self.heard: set[NodeId] = set()
        self.complete: set[NodeId] = set()
        self.attempts: Counter[NodeId] = Counter()


class Handover:
    """All take-overs and let-goes of this node."""

    def __init__(
        self, replica: Replica, registrar: Registrar, repair: Repair, post: Post, order: Order
    ) -> None:
        self._replica = replica
        self._registrar = registrar
        self._repair = repair
        self._post = post
        self._order = order
        self._takeovers: dict[int, Takeover] = {}
        self._letting_go: dict[int, set[NodeId]] = {}
        self._due: Instant | None = None

    def adopted(self, now: Instant) -> None:
        """See what a registry asks of us: at the start, and after each change."""
        registry, me = self._registrar.registry, self._post.me
        self._takeovers.clear()
        self._letting_go.clear()
        for partition, owners in enumerate(registry.owners):
            if me in owners:
                self._continue(partition)
                if not self._replica.is_complete(partition, registry):
                    damaged = partition in self._replica.damaged
                    self._takeovers[partition] = Takeover(damaged=damaged)
        for partition in self._replica.occupied() | set(self._replica.holdings):
            if me not in registry.owners[partition]:
                self._letting_go[partition] = set()
        for partition in self._replica.damaged - set(self._takeovers) - set(self._letting_go):
            self._replica.write_off(partition)
        self._due = now if self._takeovers or self._letting_go else None

    def _continue(self, partition: int) -> None:
        """Stay complete where we were complete under the owners before, or nobody was."""
        registry, me = self._registrar.registry, self._post.me
        former = registry.former[partition]
        stayed = (
            me in former
            and self._replica.holdings.get(partition) == registry.former_since[partition]
        )
        if stayed or (not former and partition not in self._replica.damaged):
            self._replica.hold(partition, registry.since[partition])

    def unfinished(self) -> int:
        """Return how many partitions are being taken over or let go."""
        return len(self._takeovers) + len(self._letting_go)

    def finished(self, partition: int, peer: NodeId, *, complete: bool, now: Instant) -> None:
        """A pass with a peer has succeeded; ``complete``: the peer is, for old or new owners."""
        takeover = self._takeovers.get(partition)
        if takeover is not None:
            # Go on at once after news; whoever had none is asked again after a pause.
            news = peer not in takeover.heard or (complete and peer not in takeover.complete)
            self._due = now if news else self._due
            takeover.heard.add(peer)
            takeover.complete.update({peer} if complete else ())
            self._settle(partition, takeover)
        held_by = self._letting_go.get(partition)
        if held_by is not None and complete:
            self._due = now
            held_by.add(peer)
            if held_by.issuperset(self._registrar.registry.owners[partition]):
                self._let_go(partition)

    def _settle(self, partition: int, takeover: Takeover) -> None:
        """Become complete when enough was heard."""
        others = set(self._registrar.registry.ids()) - {self._post.me}
        if self._has_heard_enough(partition, takeover) or takeover.heard >= others:
            del self._takeovers[partition]
            self._replica.hold(partition, self._registrar.registry.since[partition])
            self._post.counts["handovers/taken"] += 1

    def _has_heard_enough(self, partition: int, takeover: Takeover) -> bool:
        former = self._askable_former(partition)
        enough = len(takeover.complete & former) >= self._needed(partition, former)
        if not takeover.damaged:
            return enough
        owners = self._other_owners(partition)
        majority = (len(owners) + 1) // 2 + 1
        needed = min(len(owners) + 1 - majority + 1, len(owners))
        return len(takeover.heard & owners) >= needed and (
            enough or bool(takeover.complete & owners)
        )

    def _other_owners(self, partition: int) -> set[NodeId]:
        return set(self._registrar.registry.owners[partition]) - {self._post.me}

    def _askable_former(self, partition: int) -> set[NodeId]:
        registry = self._registrar.registry
        return set(registry.former[partition]).intersection(registry.ids()) - {self._post.me}

    def _needed(self, partition: int, former: set[NodeId]) -> int:
        """Return |S| - W + 1, or what is left of S."""
        size = len(self._registrar.registry.former[partition])
        majority = size // 2 + 1
        return min(size - majority + 1, len(former))

    def _let_go(self, partition: int) -> None:
        del self._letting_go[partition]
        self._replica.forget(partition)
        self._post.counts["handovers/let_go"] += 1

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
                self._tell_next(partition, held_by)
        self._repair.work(now)
        self._due = now + RETRY_S if self._takeovers or self._letting_go else None

    def _ask_next(self, partition: int, takeover: Takeover) -> None:
        """Ask a former owner; those that were asked least first; then anybody."""
        if self._has_heard_enough(partition, takeover):
            self._settle(partition, takeover)
            return
        first = self._askable_former(partition)
        if takeover.damaged:
            first |= self._other_owners(partition)
        others = self._order(set(self._registrar.registry.ids()) - {self._post.me})
        # Someone heard, but not complete at the time, may be complete by now: ask again.
        candidates = [node for node in others if node not in takeover.complete]
        if not candidates:
            self._settle(partition, takeover)
            return

        def priority(node: NodeId) -> tuple[int, bool]:
            return takeover.attempts[node], node not in first

        chosen = min(candidates, key=priority)
        takeover.attempts[chosen] += 1
        self._repair.want(partition, chosen)

    def _tell_next(self, partition: int, held_by: set[NodeId]) -> None:
        """Make a pass with an owner that is not known to hold all that we hold."""
        missing = [n for n in self._registrar.registry.owners[partition] if n not in held_by]
        for node in self._order(missing)[:1]:
            self._repair.want(partition, node)

    def deadline(self) -> Instant | None:
        """Return when to look for partners again."""
        return self._due
