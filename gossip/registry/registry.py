"""The registry: who belongs to the covey, and who owns which partition.

One value with an epoch that grows by one at every change, signed by the issuer (the node that
holds the cluster's CA key). Everybody keeps the newest that it has seen and verified; a larger
epoch wins. Quorums, owners and what may be answered follow from this value alone, never from
the membership's view of who is up: a wrong update costs time, not data.

Each registry names those before it (``lineage.py``): two of one epoch with other bytes, or one
whose predecessors are not ours, prove that the issuer's past was set back.

``table[p]`` says who owns partition p, and who is to follow them (``ownership.py``), and ``places``
the same of partitions with numbers of their own (``places.py``): ``ownership`` and ``partition_of``
know both, and all of either is in ``ownerships``. Who was never heard is passed over there
(``presence.py``). Each function below takes a registry and returns the next one; none knows how it
comes to be signed and told, so that a log can carry these steps as well as an issuer.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
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
from gossip.registry.places import Places, PlaceSearch
from gossip.registry.places import follow as follow_places
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
NOBODYS = Ownership((), 0)

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


class Registry(msgspec.Struct, frozen=True, array_like=True, dict=True):
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
    places: Places = ()
    """Partitions beside the table; none in a covey whose issuers know of none."""

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
        if len({place.number for place in self.places}) != len(self.places):
            raise Malformed("a registry with two places of one number")
        for _, ownership in self.ownerships:
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

    @cached_property
    def ownerships(self) -> tuple[tuple[int, Ownership], ...]:
        """Every partition's number with who owns it: those of the table, then the places."""
        places = ((place.number, place.ownership) for place in self.places)
        return (*enumerate(self.table), *places)

    @cached_property
    def _by_number(self) -> dict[int, Ownership]:
        return dict(self.ownerships)

    @cached_property
    def _search(self) -> PlaceSearch:
        return PlaceSearch(self.places)

    def has(self, partition: int) -> bool:
        """Tell whether there is a partition of this number."""
        return partition in self._by_number

    def ownership(self, partition: int) -> Ownership:
        """Return who owns a partition, and who is to follow; nobody where there is none."""
        return self._by_number.get(partition, NOBODYS)

    def device_of(self, partition: int) -> NodeId | None:
        """Return the device whose home a partition is; None for one that is nobody's."""
        return next((p.device for p in self.places if p.number == partition and p.device), None)

    @property
    def place_prefixes(self) -> tuple[str, ...]:
        """How keys begin that may have a place."""
        return self._search.prefixes

    @property
    def spaces(self) -> dict[str, int]:
        """How many owners were asked for each space that has partitions of its own."""
        return {each.space: each.replicas for each in self.places if each.space}

    def partition_of(self, key: str) -> int:
        """Return the partition of a key: the place that it has, or else the one it hashes to."""
        place = self._search.number(key)
        return partition_of(key, self.partitions) if place is None else place

    def may_lie_in(self, key: str, partition: int) -> bool:
        """Tell whether a copy of a partition may have a key: it lies there, or it lay there once.

        A key lay where it hashes to before it had a place.
        """
        return partition in (self.partition_of(key), partition_of(key, self.partitions))

    def partitions_of(self, prefix: str) -> tuple[int, ...]:
        """Return the partitions in which keys with this prefix may lie."""
        places, may_hash = self._search.prefixed(prefix)
        return (*range(self.partitions), *places) if may_hash else places

    def ownership_of(self, key: str) -> Ownership:
        """Return who owns a key, and who is to follow."""
        return self.ownership(self.partition_of(key))

    def owners_of(self, key: str) -> Owners:
        """Return the owners of a key."""
        return self.ownership_of(key).owners

    @property
    def owners(self) -> tuple[Owners, ...]:
        """The owners of each partition of the table."""
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
    def missing(self) -> tuple[RegisteredNode, ...]:
        """Those whose partitions others are to have, until they are heard again."""
        return tuple(each for each in self.nodes if each.missing)

    @property
    def idle(self) -> frozenset[NodeId]:
        """Those who own nothing and could; no issuer, for it need not hear itself."""
        owning = owners_of_any(each for _, each in self.ownerships)
        return frozenset(
            each.id
            for each in self.nodes
            if each.id not in owning
            and not (each.absent or each.drains or each.missing or each.is_issuer)
        )

    def left_at(self, node: NodeId) -> int:
        """Return of how many partitions a node holds a copy, or is to have one."""
        return sum(node in ownership.holders for _, ownership in self.ownerships)

    @property
    def is_settled(self) -> bool:
        """Whether no partition is on its way to other owners."""
        return all(ownership.stage is Stage.SETTLED for _, ownership in self.ownerships)

    def count_moving(self) -> dict[str, int]:
        """Return how many partitions are on their way to other owners, by the word of each stage.

        Every stage but ``SETTLED`` is there.
        """
        stages = Counter(ownership.stage for _, ownership in self.ownerships)
        return {stage.value: stages[stage] for stage in Stage if stage is not Stage.SETTLED}

    def changed_after(self, epoch: int) -> set[int]:
        """Return the partitions whose entry has changed since that epoch."""
        return {p for p, ownership in self.ownerships if ownership.since > epoch}


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
        raise WouldLose(leaver.name, lossy, len(registry.ownerships))
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
        raise WouldLose(leaver.name, lossy, len(registry.ownerships))
    place = {"name": leaver.name, "weight": leaver.weight, "zone": leaver.zone}
    entry = msgspec.structs.replace(node, **place, absent=False)
    others = tuple(each for each in registry.nodes if each.id != gone)
    targets = [
        tuple(entry.id if owner == gone else owner for owner in ownership.target)
        for _, ownership in registry.ownerships
    ]
    fresh = following(registry, (*others, entry), targets=targets)
    held = registry.authority_number if leaver.is_issuer else -1
    former = RemovedNode(gone, leaver.name, fresh.epoch, True, held)  # noqa: FBT003 - as written
    removed = (former, *registry.removed)[:REMOVED_MAX]
    return msgspec.structs.replace(fresh, removed=removed)


def losses(registry: Registry, node: NodeId) -> tuple[int, ...]:
    """Return the partitions of which acknowledged writes may be gone without this node."""
    left = frozenset(registry.ids()) - {node}
    return tuple(p for p, ownership in registry.ownerships if ownership.is_loss(left))


def advance(
    registry: Registry,
    done: Mapping[int, frozenset[NodeId]],
    epoch: int,
    here: frozenset[NodeId] = NOBODY,
    away: frozenset[NodeId] = NOBODY,
    missing: frozenset[NodeId] = NOBODY,
    found: frozenset[NodeId] = NOBODY,
) -> Registry:
    """Return the next registry, in which partitions that are ready for it are a stage further.

    ``done[p]`` names the nodes that have done what the stage of p asks of them, as of the registry
    of ``epoch``; what has changed since then is left alone. Who is ``here`` is absent no more, and
    idle ones that are ``away`` are. Owners that are ``missing`` lose their place to others, as far
    as these are ``replaceable``; who is ``found`` gets a share again. Returns the same one if there
    is no news.
    """
    members, next_epoch = frozenset(registry.ids()), registry.epoch + 1
    every = [
        ownership.advanced(done.get(p, NOBODY), members, next_epoch)
        if ownership.since <= epoch
        else ownership
        for p, ownership in registry.ownerships
    ]
    lost = away & registry.idle - here
    gone = replaceable(registry, missing - found)
    nodes = tuple(
        msgspec.structs.replace(
            each,
            absent=each.id in lost or (each.absent and each.id not in here),
            missing=each.id in gone or (each.missing and each.id not in found),
        )
        for each in registry.nodes
    )
    if every == [ownership for _, ownership in registry.ownerships] and nodes == registry.nodes:
        return registry
    return following(registry, nodes, every)


def house(registry: Registry) -> Registry:
    """Return the next registry, in which the devices that are there have homes.

    From then on whoever is heard gets one. Returns the same one if they have them already.
    """
    if registry.places:
        return registry  # there are spaces only where there are homes (``space_change.py``)
    return following(registry, registry.nodes, is_housed=True)


def _owned_so(registry: Registry, every: Sequence[Ownership]) -> Registry:
    """Return the same registry with other owners of each partition."""
    assert len(every) == len(registry.ownerships), "each partition has its entry"
    places = tuple(
        msgspec.structs.replace(place, ownership=ownership)
        for place, ownership in zip(registry.places, every[registry.partitions :], strict=True)
    )
    table = tuple(every[: registry.partitions])
    return msgspec.structs.replace(registry, table=table, places=places)


def replaceable(registry: Registry, missing: frozenset[NodeId]) -> frozenset[NodeId]:
    """Return those missing whose share others can take: enough are there for as many copies.

    Half of those that could own are kept at least: where more are off, it is the evening, or the
    power, and a few devices would copy all of it for nothing.
    """
    placed = {node.id for node in placeable(registry.nodes)}
    least = max(registry.replicas, (len(placed) + len(registry.missing) + 1) // 2)
    room = max(0, len(placed) - least)
    assert room < len(placed), "somebody stays to own the partitions"
    owning = owners_of_any(each for _, each in registry.ownerships)
    return frozenset(sorted(missing & placed & owning)[:room])


def following(
    registry: Registry,
    nodes: tuple[RegisteredNode, ...],
    every: Sequence[Ownership] = (),
    targets: Sequence[Owners] = (),
    *,
    is_housed: bool = False,
) -> Registry:
    """Return the registry of the next epoch: who is gone is let go of, targets are set anew.

    As little as possible moves from the ``targets``, which are those of all partitions by default.
    Who owns something is not absent, whatever its entry says. The others that are get nothing, nor
    does who drains or is missing, and what was joining with one of them goes a step back without
    it, as when it is removed. An owner that drains, or is missing, stays one until those pending
    have taken over. ``every`` says who owns each partition by now, where that is not as it was.
    ``is_housed``: whether devices have homes, as they have once there is a place.
    """
    mark = registry.mark
    registry = _owned_so(registry, every) if every else registry
    epoch, members = registry.epoch + 1, frozenset(node.id for node in nodes)
    targets = targets or [ownership.target for _, ownership in registry.ownerships]
    nodes = _owners_present(nodes, registry)
    placed = placeable(nodes)
    present = frozenset(node.id for node in placed)

    def step(ownership: Ownership, target: Owners) -> Ownership:
        return _step(ownership, members, present, target, epoch)

    assert len(targets) == len(registry.ownerships), "each partition has a target"
    partitions, replicas, places = registry.partitions, registry.replicas, registry.places
    table = assign(targets[:partitions], placed, partitions, replicas)
    if places or is_housed:
        places = follow_places(places, targets[partitions:], placed, replicas, epoch, step)
    fresh = msgspec.structs.replace(
        registry,
        epoch=epoch,
        table=tuple(map(step, registry.table, table)),
        places=places,
        lineage=(mark, *registry.lineage)[:LINEAGE_MAX],
    )
    return msgspec.structs.replace(fresh, nodes=_owners_present(nodes, fresh))


def placeable(nodes: Sequence[RegisteredNode]) -> Sequence[RegisteredNode]:
    """Return those among whom the partitions are shared out.

    That somebody owns them counts for more than who is absent, missing, or drains.
    """
    heard = [node for node in nodes if not node.absent]
    present = [node for node in heard if not node.missing] or heard
    return [node for node in present if not node.drains] or present or nodes


def _owners_present(
    nodes: tuple[RegisteredNode, ...], registry: Registry
) -> tuple[RegisteredNode, ...]:
    owning = owners_of_any(each for _, each in registry.ownerships)
    return tuple(
        msgspec.structs.replace(node, absent=False) if node.absent and node.id in owning else node
        for node in nodes
    )


def owners_of_any(every: Iterable[Ownership]) -> set[NodeId]:
    """Return who owns something, or answers for it already."""
    return {node for ownership in every for node in (*ownership.owners, *ownership.readers)}


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
