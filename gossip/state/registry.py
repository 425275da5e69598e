"""The registry: who belongs to the covey, and who owns which partition.

One value with an epoch that grows by one at every change, signed by the issuer (the node that
holds the cluster's CA key). Everybody keeps the newest that it has seen and verified; a larger
epoch wins. Quorums, owners and what may be answered follow from this value alone, never from
the membership's view of who is up: a wrong rumour costs time, not data.

Each registry names those before it (``lineage.py``): two of one epoch with other bytes, or one
whose predecessors are not ours, prove that the issuer's past was set back.

``owners[p]`` lists who owns partition p since epoch ``since[p]``; ``former[p]`` who owned it
before, since epoch ``former_since[p]``. The former are asked by new owners for what they hold,
and keep it until they know that all new owners have it.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import msgspec

from gossip.errors import Forged, InvalidRequest, Malformed
from gossip.ids import ClusterId, NodeId
from gossip.state.admitted import Admitted, Removed
from gossip.state.limits import PARTITIONS, REPLICAS
from gossip.state.lineage import LINEAGE_MAX, Mark, mark_at, mark_of
from gossip.state.placement import Owners, assign, partition_of

_Item = TypeVar("_Item")

REMOVED_MAX = 256
"""So many of those that were removed are remembered; those removed last."""

Verify = Callable[[bytes, bytes], bool]
"""(payload, signature) -> whether the covey's issuer signed it."""


class NameTaken(InvalidRequest):
    """Another node of this covey has the name already; nothing was changed."""


class UnknownNode(InvalidRequest):
    """No node of the registry has this id; nothing was changed."""


class Registry(msgspec.Struct, frozen=True, array_like=True):
    """Who belongs, and who owns what; see the module's text."""

    cluster_id: ClusterId
    epoch: Annotated[int, msgspec.Meta(ge=1)]
    partitions: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    replicas: Annotated[int, msgspec.Meta(ge=1, le=16)]
    nodes: tuple[Admitted, ...]
    owners: tuple[Owners, ...]
    former: tuple[Owners, ...]
    since: tuple[int, ...]
    former_since: tuple[int, ...]
    removed: Annotated[tuple[Removed, ...], msgspec.Meta(max_length=REMOVED_MAX)] = ()
    """Who belonged once, those removed last first."""
    lineage: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=LINEAGE_MAX)] = ()
    """The marks of the registries before this one, nearest first."""
    merged: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=LINEAGE_MAX)] = ()
    """The marks of registries that were given up when a fork was mended, nearest first."""

    def encode(self) -> bytes:
        """Return the bytes that are signed."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "Registry":
        """Read what ``encode`` wrote. Raises Malformed."""
        try:
            registry = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(f"not a registry: {error}") from None
        registry.check()
        return registry

    def check(self) -> None:
        """Check that the parts fit together. Raises Malformed."""
        tables = (self.owners, self.former, self.since, self.former_since)
        if any(len(table) != self.partitions for table in tables):
            raise Malformed("a registry whose tables do not fit its number of partitions")
        known = {node.id for node in self.nodes}
        if len(known) != len(self.nodes) or not known:
            raise Malformed("a registry without nodes, or with one node twice")
        for owners in self.owners:
            if not owners or len(set(owners)) != len(owners) or not known.issuperset(owners):
                raise Malformed("a registry with a partition that is not owned by its nodes")

    @property
    def mark(self) -> Mark:
        """What names this registry in those that follow it."""
        return mark_of(self.encode())

    def denies(self, mark: Mark, epoch: int, earlier: Mark) -> bool:
        """Tell whether an earlier registry is none of this one's past: the registry has forked.

        ``mark`` is this one's own. What lies too far back nobody can tell, and is not denied.
        """
        known = mark_at(epoch, self.epoch, mark, self.lineage)
        return known is not None and known != earlier and earlier not in self.merged

    def node(self, node: NodeId) -> Admitted | None:
        """Return a node's entry; None for somebody who does not belong."""
        return next((entry for entry in self.nodes if entry.id == node), None)

    def ids(self) -> tuple[NodeId, ...]:
        """Return the ids of all nodes that belong."""
        return tuple(node.id for node in self.nodes)

    def partition_of(self, key: str) -> int:
        """Return the partition of a key."""
        return partition_of(key, self.partitions)

    def owners_of(self, key: str) -> Owners:
        """Return the owners of a key."""
        return self.owners[self.partition_of(key)]


_DECODER = msgspec.msgpack.Decoder(Registry)


class SignedRegistry(msgspec.Struct, frozen=True, array_like=True):
    """A registry's bytes with the issuer's signature over exactly these bytes."""

    payload: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Return the form that is stored and sent."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "SignedRegistry":
        """Read what ``encode`` wrote. Raises Malformed."""
        try:
            return _SIGNED_DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(f"not a signed registry: {error}") from None


_SIGNED_DECODER = msgspec.msgpack.Decoder(SignedRegistry)


def open_registry(data: bytes, verify: Verify) -> Registry:
    """Return the registry inside if its signature holds. Raises Malformed or Forged."""
    signed = SignedRegistry.decode(data)
    if not verify(signed.payload, signed.signature):
        raise Forged("a registry that the issuer of this covey did not sign")
    return Registry.decode(signed.payload)


def found(
    cluster_id: ClusterId,
    node: Admitted,
    partitions: int = PARTITIONS,
    replicas: int = REPLICAS,
) -> Registry:
    """Return the registry of a covey of one."""
    none: tuple[Owners, ...] = ((),) * partitions
    return Registry(
        cluster_id=cluster_id,
        epoch=1,
        partitions=partitions,
        replicas=replicas,
        nodes=(node,),
        owners=assign((), (node,), partitions, replicas),
        former=none,
        since=(1,) * partitions,
        former_since=(0,) * partitions,
    )


def admit(registry: Registry, node: Admitted) -> Registry:
    """Return the next registry, with this node; an entry with the same id is replaced.

    Raises NameTaken.
    """
    if any(entry.name == node.name and entry.id != node.id for entry in registry.nodes):
        raise NameTaken(f"the name {node.name!r} belongs to another node; choose a different one")
    others = tuple(entry for entry in registry.nodes if entry.id != node.id)
    following = _next(registry, (*others, node))
    removed = tuple(each for each in registry.removed if each.id != node.id)
    return msgspec.structs.replace(following, removed=removed)


def follow(payload: bytes, following: Registry) -> Registry:
    """Name exactly these bytes as the predecessor of the registry that was made from them.

    A later version of Covey may write what it read with other bytes than those that were signed.
    """
    return msgspec.structs.replace(following, lineage=(mark_of(payload), *following.lineage[1:]))


def amend(registry: Registry, entry: Admitted) -> Registry:
    """Return the next registry, with what one node may do, or is known by, written anew.

    No partition moves. Raises UnknownNode.
    """
    if registry.node(entry.id) is None:
        raise UnknownNode(f"no node {entry.id:016x} belongs to this covey")
    nodes = tuple(entry if node.id == entry.id else node for node in registry.nodes)
    return msgspec.structs.replace(registry, epoch=registry.epoch + 1, nodes=nodes)


def remove(registry: Registry, node: NodeId) -> Registry:
    """Return the next registry, without this node. Raises UnknownNode, InvalidRequest."""
    leaver = registry.node(node)
    if leaver is None:
        raise UnknownNode(f"no node {node:016x} belongs to this covey")
    others = tuple(entry for entry in registry.nodes if entry.id != node)
    if not others:
        raise InvalidRequest("the last node of a covey cannot be removed")
    gone = Removed(leaver.id, leaver.name, registry.epoch + 1)
    return msgspec.structs.replace(
        _next(registry, others), removed=(gone, *registry.removed)[:REMOVED_MAX]
    )


def _next(registry: Registry, nodes: tuple[Admitted, ...]) -> Registry:
    """Return the registry of the next epoch, with partitions placed anew."""
    epoch = registry.epoch + 1
    owners = assign(registry.owners, nodes, registry.partitions, registry.replicas)
    moved = [set(new) != set(old) for new, old in zip(owners, registry.owners, strict=True)]
    return Registry(
        cluster_id=registry.cluster_id,
        epoch=epoch,
        partitions=registry.partitions,
        replicas=registry.replicas,
        nodes=nodes,
        owners=owners,
        former=_choose(moved, registry.owners, registry.former),
        since=_choose(moved, (epoch,) * registry.partitions, registry.since),
        former_since=_choose(moved, registry.since, registry.former_since),
        removed=registry.removed,
        lineage=(registry.mark, *registry.lineage)[:LINEAGE_MAX],
        merged=registry.merged,
    )


def _choose(
    moved: Sequence[bool], changed: Sequence[_Item], unchanged: Sequence[_Item]
) -> tuple[_Item, ...]:
    """Take from ``changed`` where a partition moved, else from ``unchanged``."""
    return tuple(
        new if was_moved else old
        for was_moved, new, old in zip(moved, changed, unchanged, strict=True)
    )
