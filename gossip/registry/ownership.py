"""Who owns one partition, and how it passes from the old owners to the new ones.

Old owners keep the quorum until the new ones have what there is. So a change takes four steps, and
each of them is an entry of the registry that its issuer signs, and later one of the control plane's
log::

    stage     a write needs        a read needs  it goes on when
    SETTLED   owners               owners        somebody came or went: there is a target
    COPYING   owners               owners        all new ones, and most of the target, hold a copy
    JOINING   owners and pending   both alike    all new ones, and most of the target, are complete
    LEAVING   owners and pending   pending       each majority of the owners has one that knows it
    SETTLED   owners (the target)  owners

"Needs" means a majority of that set, whatever the other one says (Raft's joint consensus). A read
that needs both takes what there is from the owners, who are complete, and answers when most of the
pending have the same: what it has shown, no later one may miss (docs/adr/0031-joint-reads.md). Why
no acknowledged write is missed in between: docs/adr/0025-pending-owners.md. While they copy, the
new ones have no say, so a device that ends before it has anything stops nobody; and up to that
point a target may change as often as nodes come and go, without a step back for those that stay in
it.

A node that was removed still counts in the size of its set: its silence is no consent. Only of
an even number can one be left out at once, since the majority of the others is as strong. When so
few are left that an acknowledged write may be on none of them, there is a ``loss``, which somebody
must accept by name; the partition then goes on with what is left.
"""

import enum
from collections.abc import Collection
from typing import Annotated

import msgspec

from gossip.core.ids import NodeId
from gossip.registry.placement import Owners

Epoch = Annotated[int, msgspec.Meta(ge=0)]


class Stage(enum.Enum):
    """How far a partition has come on its way to other owners; see the module's text."""

    SETTLED = "settled"
    COPYING = "copying"
    JOINING = "joining"
    LEAVING = "leaving"


def majority(nodes: Collection[NodeId]) -> int:
    """Return how many of a set must have a write, or answer a read, unless a request says so."""
    return len(nodes) // 2 + 1


def blocking(nodes: Collection[NodeId]) -> int:
    """Return how many of a set every majority of it has one of."""
    return len(nodes) - majority(nodes) + 1


class Ownership(msgspec.Struct, frozen=True, array_like=True):
    """The owners of one partition, and those that are to follow them."""

    owners: Owners
    since: Epoch
    """The epoch of the last change of any of these; messages from before are refused."""
    owners_since: Epoch = 0
    """Writes have needed the owners since then. A complete owner has all from before that."""
    pending: Owners = ()
    pending_since: Epoch = 0
    """The same of those pending; 0 while they copy."""

    @property
    def stage(self) -> Stage:
        """How far this partition has come."""
        if not self.pending:
            return Stage.SETTLED
        if not self.pending_since:
            return Stage.COPYING
        return Stage.JOINING if self.pending_since == self.since else Stage.LEAVING

    @property
    def is_sound(self) -> bool:
        """Whether the parts fit together."""
        sets = self.owners, self.pending
        order = self.owners_since, self.pending_since, self.since
        return (
            bool(self.owners)
            and all(len(set(nodes)) == len(nodes) for nodes in sets)
            and (not self.pending_since or order == tuple(sorted(order)))
            and (bool(self.pending) or not self.pending_since)
        )

    @property
    def readers(self) -> Owners:
        """Those of whom a majority must answer a read, complete, and who coordinate writes."""
        return self.pending if self.stage is Stage.LEAVING else self.owners

    @property
    def read_sets(self) -> tuple[Owners, ...]:
        """The sets of which each must have what a read answers, by majority; the readers first."""
        return (self.owners, self.pending) if self.stage is Stage.JOINING else (self.readers,)

    @property
    def readers_since(self) -> int:
        """The epoch for which a reader must be complete before it answers."""
        return self.pending_since if self.stage is Stage.LEAVING else self.owners_since

    @property
    def writers(self) -> tuple[Owners, ...]:
        """The sets of which each must have a write by majority."""
        return (self.owners, self.pending) if self.pending_since else (self.owners,)

    @property
    def holders(self) -> Owners:
        """All that hold a copy or are to have one: they are told of every write."""
        return (*self.owners, *self.newcomers) if self.pending else self.owners

    @property
    def target(self) -> Owners:
        """Who will own it when all is done."""
        return self.pending or self.owners

    @property
    def newcomers(self) -> Owners:
        """Those pending that own nothing of it yet."""
        return tuple(node for node in self.pending if node not in self.owners)

    # Steps, each of which returns what the registry of that epoch says

    def aimed_at(self, target: Owners, epoch: int) -> "Ownership":
        """Change the target, where that is still possible without a step back."""
        if self.stage not in (Stage.SETTLED, Stage.COPYING) or set(target) == set(self.target):
            return self
        pending = () if set(target) == set(self.owners) else target
        return Ownership(self.owners, epoch, self.owners_since, pending)

    def advanced(
        self, done: frozenset[NodeId], members: Collection[NodeId], epoch: int
    ) -> "Ownership":
        """Go on to the next stage if those that ``done`` names are enough for that."""
        if not self.may_advance(done, members):
            return self
        assert epoch > self.since, "each step is a later registry's"
        owners, pending, since = self.owners, self.pending, self.owners_since
        if self.stage is Stage.COPYING:
            return Ownership(owners, epoch, since, pending, epoch)
        if self.stage is Stage.JOINING:
            return Ownership(owners, epoch, since, pending, self.pending_since)
        return Ownership(pending, epoch, self.pending_since)

    def may_advance(self, done: frozenset[NodeId], members: Collection[NodeId]) -> bool:
        """Tell whether those that ``done`` names are enough for the next stage.

        Who was removed takes note of nothing any more, and is not asked: it counts as done when
        owners leave.
        """
        if self.stage is Stage.SETTLED:
            return False
        if self.stage is Stage.LEAVING:
            noted = [node for node in self.owners if node in done or node not in members]
            return len(noted) >= blocking(self.owners)
        ready = done.intersection(self.pending)
        return ready.issuperset(self.newcomers) and len(ready) >= majority(self.pending)

    def without(
        self, members: Collection[NodeId], present: Collection[NodeId], epoch: int
    ) -> "Ownership":
        """Let go of those that are no members any more, as far as that is safe now.

        Of those pending also of who is not ``present``: it is not to own anything.
        """
        if self.stage is Stage.LEAVING:
            return self
        owners = _evened(self.owners, members)
        stays = all(node in present for node in self.pending)
        if owners == self.owners and stays:
            return self
        if stays and self.stage is not Stage.COPYING:
            return msgspec.structs.replace(self, owners=owners, since=epoch, **_again(self, epoch))
        pending = tuple(node for node in self.pending if node in present)
        pending = () if set(pending) == set(owners) else pending
        return Ownership(owners, epoch, self.owners_since, pending)

    def is_loss(self, members: Collection[NodeId]) -> bool:
        """Tell whether so few are left that an acknowledged write may be on none of them."""
        left = [node for node in self.readers if node in members]
        return len(left) < blocking(self.readers)

    def rescued(self, members: Collection[NodeId], target: Owners, epoch: int) -> "Ownership":
        """Go on with what is left, as if it were all; whatever is missing is accepted as lost."""
        assert self.is_loss(members), "nothing is given up that may still be whole"
        for nodes in (self.readers, self.holders):
            left = tuple(node for node in nodes if node in members)
            if left:
                return Ownership(left, epoch)
        return Ownership(target, epoch)


def _again(ownership: Ownership, epoch: int) -> dict[str, int]:
    """Let those who join begin anew: the owners with whom they compared are fewer now."""
    return {"pending_since": epoch} if ownership.pending else {}


def _evened(owners: Owners, members: Collection[NodeId]) -> Owners:
    """Leave out one that is gone of an even number: what was on most of all is on most of the rest.

    A write that is on m + 1 of 2 m is on m of the 2 m - 1 others at least, which is their majority.
    """
    gone = [node for node in owners if node not in members]
    if len(owners) % 2 or not gone:
        return owners
    return tuple(node for node in owners if node != gone[-1])
