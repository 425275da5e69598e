"""When a copy of a partition has enough: the rule by which a new owner knows that it is complete.

To be *complete* for a set of owners, as of the epoch since which writes need them, means to hold
all that was acknowledged before that epoch. Whoever is complete may answer reads. With O the owners
and P those pending, a node of P is complete as soon as it has compared (``sync_session.py``), under
the registry of now, with

* one node that is; or
* as many of O as every majority of O has one of, |O| - W + 1, and one of these complete for O.

The first of the two conditions on O brings what O acknowledged itself: under the registry of now
its members take no more writes of before, and each such write is on W of them. The second brings
what is older: each complete member of O has all of that, by the same rule, one change earlier. A
node of P that is one of O counts itself.

**A damaged copy** (``storage.py``) counts for nothing, nor makes another one complete, before it
was compared again: with |X| - W + 1 *others* of each set X in which it takes writes, since its own
voice among the W of a write is what is gone, and with a complete one as above.

Who has compared with all that hold a copy has heard all that there is, complete or not: nothing
better will ever come. So a covey of one asks nobody, and after damage everywhere what is left is
agreed upon, once all are there.
"""

from collections import Counter
from collections.abc import Collection, Mapping

import msgspec

from gossip.core.ids import NodeId
from gossip.registry.ownership import Ownership, Stage, blocking

NO_EPOCH, FIRST_EPOCH = 0, 1


class Copy(msgspec.Struct, frozen=True, array_like=True):
    """What a node says of its copy of a partition."""

    is_sound: bool
    """Whether nothing is gone of what it had: no disk has lost any of it."""
    complete_for: int
    """The epoch before which it has all; 0 if it never compared."""

    def has_all_before(self, epoch: int) -> bool:
        """Tell whether it is complete for owners since that epoch."""
        return self.is_sound and self.complete_for >= epoch


class PartitionTakeover:
    """What a node has heard of others' copies, under one entry of the registry."""

    def __init__(self, since: int) -> None:
        self.since = since
        self.compared: dict[NodeId, Copy] = {}
        self.attempts: Counter[NodeId] = Counter()


def goal(ownership: Ownership, me: NodeId) -> int | None:
    """Return the epoch for which a node has to be complete; None if it need not be."""
    if ownership.pending_since and me in ownership.pending:
        return ownership.pending_since
    return ownership.owners_since if me in ownership.owners else None


def has_done(ownership: Ownership, me: NodeId, mine: Copy, compared: Mapping[NodeId, Copy]) -> bool:
    """Tell whether a node has done what the stage of a partition asks of it."""
    wanted = goal(ownership, me)
    if wanted is not None and not (
        ownership.stage is Stage.LEAVING and me not in ownership.pending
    ):
        return mine.has_all_before(wanted)
    if ownership.stage is Stage.COPYING and me in ownership.newcomers:
        return any(copy.is_sound for node, copy in compared.items() if node in ownership.owners)
    return True


def completed(
    ownership: Ownership,
    me: NodeId,
    mine: Copy,
    compared: Mapping[NodeId, Copy],
    members: Collection[NodeId],
) -> int | None:
    """Return the epoch for which a node is complete by what it has heard; None if for none yet.

    ``heard`` are those it has compared with under the registry of now.
    """
    wanted = goal(ownership, me)
    if wanted is None:
        return None
    others = {node for node in ownership.holders if node != me and node in members}
    if compared.keys() >= others:
        return wanted
    if not mine.is_sound:
        if not _compared_enough_to_heal(ownership, me, compared, others):
            return None
        mine = Copy(is_sound=False, complete_for=NO_EPOCH)
    return _highest(ownership, me, mine, {n: compared[n] for n in others & compared.keys()})


def _compared_enough_to_heal(
    ownership: Ownership, me: NodeId, compared: Mapping[NodeId, Copy], others: Collection[NodeId]
) -> bool:
    for nodes in ownership.writers:
        if me not in nodes:
            continue
        askable = [node for node in nodes if node in others]
        sound = [node for node in askable if node in compared and compared[node].is_sound]
        if len(sound) < min(blocking(nodes), len(askable)):
            return False
    return True


def _highest(
    ownership: Ownership, me: NodeId, mine: Copy, compared: Mapping[NodeId, Copy]
) -> int | None:
    """Return the highest epoch that the rule in this module's text gives."""
    copies = {**compared, me: mine}
    wanted = goal(ownership, me)
    if wanted is None:
        return None
    if any(copy.has_all_before(wanted) for copy in copies.values()):
        return wanted
    owners = [copies[node] for node in ownership.owners if node in copies]
    has_older = any(copy.has_all_before(ownership.owners_since) for copy in copies.values())
    sound = [copy for copy in owners if copy.is_sound]
    if has_older and me in ownership.pending and len(sound) >= blocking(ownership.owners):
        return wanted
    return ownership.owners_since if has_older and me in ownership.owners else None
