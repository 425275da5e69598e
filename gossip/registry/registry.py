"""The registry: who belongs to the covey, and who owns which partition.

One value with an epoch that grows by one at every change, signed by the issuer (the node that
holds the cluster's CA key). Everybody keeps the newest that it has seen and verified; a larger
epoch wins. Quorums, owners and what may be answered follow from this value alone, never from
the membership's view of who is up: a wrong update costs time, not data.

Each registry names those before it (``lineage.py``): two of one epoch with other bytes, or one
whose predecessors are not ours, prove that the issuer's past was set back.

``table[p]`` says who owns partition p, and who is to follow them (``ownership.py``). Who was never
heard is passed over there (``presence.py``). Each function below takes a registry and returns the
next one; none knows how it comes to be signed and told, so that a log can carry these steps as well
as an issuer.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import msgspec

from gossip.core.errors import Forged, InvalidRequest, Malformed
from gossip.core.ids import ClusterId, NodeId
from gossip.registry.lineage import LINEAGE_MAX, Mark, mark_at, mark_of
from gossip.registry.node import RegisteredNode, RemovedNode
from gossip.registry.ownership import Ownership, Stage
from gossip.registry.placement import (
    PARTITIONS,
    PARTITIONS_MAX,
    REPLICAS,
    Owners,
    assign,
    partition_of,
)
from gossip.registry.succession import (
    SUCCESSIONS_MAX,
    Authority,
    Succession,
    Successions,
    are_linked,
)

REMOVED_MAX = 256
"""So many of those that were removed are remembered; those removed last."""

NOBODY: frozenset[NodeId] = frozenset()

Verify = Callable[[bytes, bytes], bool]
"""(payload, signature) -> whether the covey's issuer signed it."""


class NameTaken(InvalidRequest):
    """Another node of this covey has the name already; nothing was changed."""


class UnknownNode(InvalidRequest):
    """No node of the registry has this id; nothing was changed."""


class WouldLose(InvalidRequest):
    """Removing this node may lose what only it had; nothing was changed."""

    def __init__(self, name: str, partitions: Sequence[int], total: int) -> None:
        self.partitions = tuple(partitions)
        super().__init__(
            f"so few owners of {len(partitions)} of {total} partitions would be left without "
            f"{name!r} that acknowledged writes may be gone with it; nothing was changed. Start "
            "owners that are switched off, and let them finish (`covey ring`), or accept the loss"
        )


class Registry(msgspec.Struct, frozen=True, array_like=True):
    """Who belongs, and who owns what; see the module's text."""

    cluster_id: ClusterId
    epoch: Annotated[int, msgspec.Meta(ge=1)]
    partitions: Annotated[int, msgspec.Meta(ge=1, le=PARTITIONS_MAX)]
    replicas: Annotated[int, msgspec.Meta(ge=1, le=16)]
    nodes: tuple[RegisteredNode, ...]
    table: tuple[Ownership, ...]
    removed: Annotated[tuple[RemovedNode, ...], msgspec.Meta(max_length=REMOVED_MAX)] = ()
    """Who belonged once, those removed last first."""
    lineage: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=LINEAGE_MAX)] = ()
    """The marks of the registries before this one, nearest first."""
    merged: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=LINEAGE_MAX)] = ()
    """The marks of registries that were given up when a fork was mended, nearest first."""
    successions: Successions = ()
    """How the present authority came after those before it, newest first."""
    overlaps: bool = False
    """Whether certificates of the authority before the present one are good as well."""

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
        if len(self.table) != self.partitions:
            raise Malformed("a registry whose table does not fit its number of partitions")
        known = {node.id for node in self.nodes}
        if len(known) != len(self.nodes) or not known:
            raise Malformed("a registry without nodes, or with one node twice")
        for ownership in self.table:
            if not ownership.is_sound or known.isdisjoint(ownership.readers):
                raise Malformed("a registry with a partition that is not owned by its nodes")
            if ownership.since > self.epoch:
                raise Malformed("a registry with owners of an epoch that is yet to come")
        if not are_linked(self.successions) or (self.overlaps and not self.successions):
            raise Malformed("a registry whose authorities do not follow each other")

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

    @property
    def authority(self) -> Authority | None:
        """The authority that signs it; None for the one that came with the covey."""
        return self.successions[0].next if self.successions else None

    @property
    def authority_number(self) -> int:
        """The how many-th authority signs it."""
        return self.authority.number if self.authority else 0

    @property
    def uncertified(self) -> tuple[RegisteredNode, ...]:
        """Those who were given no certificate of the present authority yet."""
        return tuple(each for each in self.nodes if each.authority < self.authority_number)

    def node(self, node: NodeId) -> RegisteredNode | None:
        """Return a node's entry; None for somebody who does not belong."""
        return next((entry for entry in self.nodes if entry.id == node), None)

    def ids(self) -> tuple[NodeId, ...]:
        """Return the ids of all nodes that belong."""
        return tuple(node.id for node in self.nodes)

    def partition_of(self, key: str) -> int:
        """Return the partition of a key."""
        return partition_of(key, self.partitions)

    def ownership_of(self, key: str) -> Ownership:
        """Return who owns a key, and who is to follow."""
        return self.table[self.partition_of(key)]

    def owners_of(self, key: str) -> Owners:
        """Return the owners of a key."""
        return self.ownership_of(key).owners

    @property
    def owners(self) -> tuple[Owners, ...]:
        """The owners of each partition."""
        return tuple(ownership.owners for ownership in self.table)

    @property
    def absent(self) -> tuple[RegisteredNode, ...]:
        """Those who get no partitions before they are heard."""
        return tuple(each for each in self.nodes if each.absent)

    @property
    def draining(self) -> tuple[RegisteredNode, ...]:
        """Those who are to own nothing."""
        return tuple(each for each in self.nodes if each.drains)

    @property
    def idle(self) -> frozenset[NodeId]:
        """Those who own nothing and could; no issuer, for it need not hear itself."""
        owning = owners_of_any(self.table)
        return frozenset(
            each.id
            for each in self.nodes
            if each.id not in owning and not (each.absent or each.drains or each.is_issuer)
        )

    def left_at(self, node: NodeId) -> int:
        """Return of how many partitions a node holds a copy, or is to have one."""
        return sum(node in ownership.holders for ownership in self.table)

    @property
    def is_settled(self) -> bool:
        """Whether no partition is on its way to other owners."""
        return all(ownership.stage is Stage.SETTLED for ownership in self.table)

    def count_moving(self) -> dict[str, int]:
        """Return how many partitions are on their way to other owners, by the word of each stage.

        Every stage but ``SETTLED`` is there.
        """
        stages = Counter(ownership.stage for ownership in self.table)
        return {stage.value: stages[stage] for stage in Stage if stage is not Stage.SETTLED}

    def changed_after(self, epoch: int) -> set[int]:
        """Return the partitions whose entry has changed since that epoch."""
        return {p for p, ownership in enumerate(self.table) if ownership.since > epoch}


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
    node: RegisteredNode,
    partitions: int = PARTITIONS,
    replicas: int = REPLICAS,
) -> Registry:
    """Return the registry of a covey of one."""
    return Registry(
        cluster_id=cluster_id,
        epoch=1,
        partitions=partitions,
        replicas=replicas,
        nodes=(node,),
        table=tuple(Ownership(owners, 1) for owners in assign((), (node,), partitions, replicas)),
    )


def admit(registry: Registry, node: RegisteredNode) -> Registry:
    """Return the next registry, with this node; an entry with the same id is replaced.

    Raises NameTaken.
    """
    if any(entry.name == node.name and entry.id != node.id for entry in registry.nodes):
        raise NameTaken(f"the name {node.name!r} belongs to another node; choose a different one")
    others = tuple(entry for entry in registry.nodes if entry.id != node.id)
    fresh = following(registry, (*others, node))
    removed = tuple(each for each in registry.removed if each.id != node.id)
    return msgspec.structs.replace(fresh, removed=removed)


def follow(payload: bytes, fresh: Registry) -> Registry:
    """Name exactly these bytes as the predecessor of the registry that was made from them.

    A later version of Covey may write what it read with other bytes than those that were signed.
    """
    return msgspec.structs.replace(fresh, lineage=(mark_of(payload), *fresh.lineage[1:]))


def amend(registry: Registry, entry: RegisteredNode) -> Registry:
    """Return the next registry, with what one node may do, or is known by, written anew.

    No partition moves. Raises UnknownNode.
    """
    if registry.node(entry.id) is None:
        raise UnknownNode(f"no node {entry.id:016x} belongs to this covey")
    nodes = tuple(entry if node.id == entry.id else node for node in registry.nodes)
    return _amended(registry, nodes)


def _amended(registry: Registry, nodes: tuple[RegisteredNode, ...]) -> Registry:
    lineage = (registry.mark, *registry.lineage)[:LINEAGE_MAX]
    return msgspec.structs.replace(registry, epoch=registry.epoch + 1, nodes=nodes, lineage=lineage)


def succeed(registry: Registry, step: Succession) -> Registry:
    """Return the next registry, which another authority signs; both are good for certificates."""
    assert not registry.overlaps, "one authority is given up before the next comes"
    return msgspec.structs.replace(
        _amended(registry, registry.nodes),
        successions=(step, *registry.successions)[:SUCCESSIONS_MAX],
        overlaps=True,
    )


def retire(registry: Registry) -> Registry:
    """Return the next registry, in which the former authority's certificates open nothing.

    A serial of before stays behind the new one: by it a renewal that is sent twice is known.
    """
    number = registry.authority_number
    nodes = tuple(
        each if each.authority == number else msgspec.structs.replace(each, serials=())
        for each in registry.nodes
    )
    return msgspec.structs.replace(_amended(registry, nodes), overlaps=False)


def remove(registry: Registry, node: NodeId, *, accept_loss: bool = False) -> Registry:
    """Return the next registry, without this node. Raises UnknownNode, InvalidRequest.

    Where so few other owners of a partition are left that an acknowledged write may be on none of
    them, that is WouldLose; with ``accept_loss`` the partition goes on with what is left.
    """
    leaver = registry.node(node)
    if leaver is None:
        raise UnknownNode(f"no node {node:016x} belongs to this covey")
    others = tuple(entry for entry in registry.nodes if entry.id != node)
    if not others:
        raise InvalidRequest("the last node of a covey cannot be removed")
    lossy = losses(registry, node)
    if lossy and not accept_loss:
        raise WouldLose(leaver.name, lossy, registry.partitions)
    held = registry.authority_number if leaver.is_issuer else -1
    gone = RemovedNode(leaver.id, leaver.name, registry.epoch + 1, not lossy, held)
    return msgspec.structs.replace(
        following(registry, others), removed=(gone, *registry.removed)[:REMOVED_MAX]
    )


def replace(registry: Registry, gone: NodeId, node: RegisteredNode) -> Registry:
    """Return the next registry, in which this node has the place of one that is gone.

    It takes over its name, weight and zone, so that nothing moves but the partitions of that one.
    For that it is taken to be present from the first. Raises UnknownNode, and WouldLose where
    ``remove`` does.
    """
    leaver = registry.node(gone)
    if leaver is None:
        raise UnknownNode(f"no node {gone:016x} belongs to this covey")
    if lossy := losses(registry, gone):
        raise WouldLose(leaver.name, lossy, registry.partitions)
    place = {"name": leaver.name, "weight": leaver.weight, "zone": leaver.zone}
    entry = msgspec.structs.replace(node, **place, absent=False)
    others = tuple(each for each in registry.nodes if each.id != gone)
    targets = [
        tuple(entry.id if owner == gone else owner for owner in ownership.target)
        for ownership in registry.table
    ]
    fresh = following(registry, (*others, entry), targets=targets)
    held = registry.authority_number if leaver.is_issuer else -1
    former = RemovedNode(gone, leaver.name, fresh.epoch, True, held)  # noqa: FBT003 - as written
    removed = (former, *registry.removed)[:REMOVED_MAX]
    return msgspec.structs.replace(fresh, removed=removed)


def losses(registry: Registry, node: NodeId) -> tuple[int, ...]:
    """Return the partitions of which acknowledged writes may be gone without this node."""
    left = frozenset(registry.ids()) - {node}
    return tuple(p for p, ownership in enumerate(registry.table) if ownership.is_loss(left))


def advance(
    registry: Registry,
    done: Mapping[int, frozenset[NodeId]],
    epoch: int,
    here: frozenset[NodeId] = NOBODY,
    away: frozenset[NodeId] = NOBODY,
) -> Registry:
    """Return the next registry, in which partitions that are ready for it are a stage further.

    ``done[p]`` names the nodes that have done what the stage of p asks of them, as of the registry
    of ``epoch``; what has changed since then is left alone. Who is ``here`` is absent no more, and
    idle ones that are ``away`` are. Returns the same one if there is no news.
    """
    members, next_epoch = frozenset(registry.ids()), registry.epoch + 1
    table = tuple(
        ownership.advanced(done.get(p, NOBODY), members, next_epoch)
        if ownership.since <= epoch
        else ownership
        for p, ownership in enumerate(registry.table)
    )
    lost = away & registry.idle - here
    nodes = tuple(
        msgspec.structs.replace(
            each, absent=each.id in lost or (each.absent and each.id not in here)
        )
        for each in registry.nodes
    )
    if table == registry.table and nodes == registry.nodes:
        return registry
    return following(registry, nodes, table)


def following(
    registry: Registry,
    nodes: tuple[RegisteredNode, ...],
    table: tuple[Ownership, ...] | None = None,
    targets: Sequence[Owners] = (),
) -> Registry:
    """Return the registry of the next epoch: who is gone is let go of, targets are set anew.

    As little as possible moves from the ``targets``, which are those of the table by default.
    Who owns something is not absent, whatever its entry says. The others that are get nothing, nor
    does who drains, and what was joining with one of them goes a step back without it, as when it
    is removed. An owner that drains stays one until those pending have taken over.
    """
    epoch, members = registry.epoch + 1, frozenset(node.id for node in nodes)
    table = table or registry.table
    before = targets or [ownership.target for ownership in table]
    nodes = _owners_present(nodes, table)
    placed = placeable(nodes)
    present = frozenset(node.id for node in placed)
    targets = assign(before, placed, registry.partitions, registry.replicas)
    table = tuple(
        _step(ownership, members, present, target, epoch)
        for ownership, target in zip(table, targets, strict=True)
    )
    return msgspec.structs.replace(
        registry,
        epoch=epoch,
        nodes=_owners_present(nodes, table),
        table=table,
        lineage=(registry.mark, *registry.lineage)[:LINEAGE_MAX],
    )


def placeable(nodes: Sequence[RegisteredNode]) -> Sequence[RegisteredNode]:
    """Return those among whom the partitions are shared out.

    That somebody owns them counts for more than who is absent, or drains.
    """
    present = [node for node in nodes if not node.absent]
    return [node for node in present if not node.drains] or present or nodes


def _owners_present(
    nodes: tuple[RegisteredNode, ...], table: tuple[Ownership, ...]
) -> tuple[RegisteredNode, ...]:
    owning = owners_of_any(table)
    return tuple(
        msgspec.structs.replace(node, absent=False) if node.absent and node.id in owning else node
        for node in nodes
    )


def owners_of_any(table: tuple[Ownership, ...]) -> set[NodeId]:
    """Return who owns something, or answers for it already."""
    return {node for ownership in table for node in (*ownership.owners, *ownership.readers)}


def _step(
    ownership: Ownership,
    members: frozenset[NodeId],
    present: frozenset[NodeId],
    target: Owners,
    epoch: int,
) -> Ownership:
    if ownership.is_loss(members):
        ownership = ownership.rescued(members, target, epoch)
    return ownership.without(members, present, epoch).aimed_at(target, epoch)
