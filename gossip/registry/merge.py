"""Ending a fork: one registry that has two others for its past.

A fork cannot be undone, for both halves of the covey have gone on: each admitted nodes, and each
acknowledged writes. So nothing of either is thrown away. All nodes of both belong, but for those
that one of them removed. Where the two disagree on who owns a partition, all that own it in either
do, and none of them answers before it has compared with the others (``takeover.py``); from there it
goes to its new owners like after any other change.
"""

from collections.abc import Iterable, Mapping

import msgspec

from gossip.core.ids import NodeId
from gossip.registry.lineage import LINEAGE_MAX, Mark
from gossip.registry.node import SERIALS_MAX, RegisteredNode, RemovedNode
from gossip.registry.ownership import Ownership
from gossip.registry.places import PLACES_MAX, Places
from gossip.registry.registry import REMOVED_MAX, Registry, following


def merge(ours: Registry, our_mark: Mark, theirs: Registry, their_mark: Mark) -> Registry:
    """Return the registry that follows both; ``ours`` decides where only one can be right."""
    assert ours.cluster_id == theirs.cluster_id, "two coveys have two pasts by right"
    assert ours.partitions == theirs.partitions, "their number never changes"
    epoch = max(ours.epoch, theirs.epoch)
    removed = _removed(ours, theirs)
    nodes = _nodes(ours, theirs, {gone.id for gone in removed})
    members = {node.id for node in nodes}
    table = tuple(
        _owned_by_both(mine, other, members, epoch + 1)
        for mine, other in zip(ours.table, theirs.table, strict=True)
    )
    given_up = (their_mark, *theirs.lineage)
    newest = max(ours, theirs, key=lambda each: each.authority_number)
    authority = {"successions": newest.successions, "overlaps": newest.overlaps}
    places = _places(ours, theirs, members, epoch + 1)
    owned = msgspec.structs.replace(ours, epoch=epoch, table=table, places=places, **authority)
    both = following(owned, nodes)
    # Where their epochs go further than ours, theirs stand in for those that we never had.
    lineage = (*given_up[: epoch - ours.epoch], our_mark, *ours.lineage)
    # What both have in common was not given up, and would push out what an earlier fork gave up:
    # a registry of that one could then be shown as a new fork.
    fork = [mark for mark in given_up if mark not in ours.lineage]
    ended = dict.fromkeys((*fork, *ours.merged, *theirs.merged))
    return msgspec.structs.replace(
        both,
        removed=removed,
        lineage=lineage[:LINEAGE_MAX],
        merged=tuple(ended)[:LINEAGE_MAX],
    )


def _removed(ours: Registry, theirs: Registry) -> tuple[RemovedNode, ...]:
    found = {gone.id: gone for gone in (*theirs.removed, *ours.removed)}
    newest_first = sorted(found.values(), key=lambda gone: gone.epoch, reverse=True)
    return tuple(newest_first[:REMOVED_MAX])


def _nodes(ours: Registry, theirs: Registry, gone: set[NodeId]) -> tuple[RegisteredNode, ...]:
    other = {node.id: node for node in theirs.nodes}
    both = other | {node.id: node for node in ours.nodes}
    in_order = dict.fromkeys((*ours.ids(), *theirs.ids()))  # of two of one name, ours keeps it
    kept = [_known_by_both(both[node], other) for node in in_order if node not in gone]
    assert kept, "whoever signs belongs to both"
    return tuple(_with_names_of_their_own(kept))


def _known_by_both(node: RegisteredNode, other: Mapping[NodeId, RegisteredNode]) -> RegisteredNode:
    """Keep the certificates that either half has signed last; who was heard by one is present."""
    theirs = other.get(node.id, node)
    serials = dict.fromkeys((*node.serials[:1], *theirs.serials[:1]))
    return msgspec.structs.replace(
        node,
        serials=tuple(serials)[:SERIALS_MAX],
        absent=node.absent and theirs.absent,
        missing=node.missing and theirs.missing,
    )


def _with_names_of_their_own(nodes: Iterable[RegisteredNode]) -> Iterable[RegisteredNode]:
    """Add the id to the name of who comes later with a name that is taken."""
    taken: set[str] = set()
    for node in nodes:
        name = f"{node.name[:46]}-{node.id:016x}" if node.name in taken else node.name
        taken.add(name)
        yield msgspec.structs.replace(node, name=name)


def _places(ours: Registry, theirs: Registry, members: set[NodeId], epoch: int) -> Places:
    """Return the places of both: one that both have means the same in each."""
    mine = {place.number: place for place in ours.places}
    merged = {place.number: place for place in theirs.places} | mine
    for place in theirs.places:
        if place.number in mine:
            owned = mine[place.number].ownership
            both = _owned_by_both(owned, place.ownership, members, epoch)
            merged[place.number] = msgspec.structs.replace(mine[place.number], ownership=both)
    return tuple(merged.values())[:PLACES_MAX]


def _owned_by_both(
    mine: Ownership, other: Ownership, members: set[NodeId], epoch: int
) -> Ownership:
    if mine == other:
        return mine
    holders = dict.fromkeys((*mine.holders, *other.holders))
    owners = tuple(node for node in holders if node in members)
    return Ownership(owners, epoch, owners_since=epoch) if owners else mine
