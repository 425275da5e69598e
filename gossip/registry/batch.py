"""Several changes as one: the registry that takes the steps of many at once.

A hundred devices that join in one moment ask for a hundred registries, of which each but the last
would be followed by nobody. So an issuer takes their steps one after the other, and signs the last
alone, as the one that follows the first. Nobody has ever seen those in between, nor acted on them;
what they say is of their epochs becomes that of the one epoch that there is.
"""

import msgspec

from gossip.registry.lineage import LINEAGE_MAX, mark_of
from gossip.registry.ownership import Ownership
from gossip.registry.registry import Registry


def as_next(payload: bytes, base: Registry, last: Registry) -> Registry:
    """Return the last of some steps as the one registry after ``base``, signed as ``payload``.

    A later version of Covey may write what it read with other bytes than those that were signed;
    so exactly these are named as the predecessor.
    """
    assert last.epoch > base.epoch, "there is a step"
    epoch = base.epoch + 1
    return msgspec.structs.replace(
        last,
        epoch=epoch,
        table=tuple(_within(ownership, epoch) for ownership in last.table),
        places=tuple(
            msgspec.structs.replace(place, ownership=_within(place.ownership, epoch))
            for place in last.places
        ),
        removed=tuple(
            msgspec.structs.replace(gone, epoch=min(gone.epoch, epoch)) for gone in last.removed
        ),
        lineage=(mark_of(payload), *base.lineage)[:LINEAGE_MAX],
    )


def _within(ownership: Ownership, epoch: int) -> Ownership:
    if ownership.since <= epoch:
        return ownership
    return msgspec.structs.replace(
        ownership,
        since=epoch,
        owners_since=min(ownership.owners_since, epoch),
        pending_since=min(ownership.pending_since, epoch),
    )
