"""What an operator says of a node's share: its zone, its weight, and whether it drains.

A node that *drains* is to own nothing. It goes on serving what it owns until those that follow it
have taken over, by the stages of ``ownership.py`` as at any other change; then it can be switched
off, or removed, and nothing is missed. It stands in the registry until somebody takes it back, so
no start of anybody, and no change of who belongs, gives it partitions again.
"""

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import (
    Registry,
    UnknownNode,
    following,
    owners_of_any,
)


class NobodyLeft(InvalidRequest):
    """Nobody would be there to own the partitions; nothing was changed."""


class NodeChange(msgspec.Struct, frozen=True, array_like=True):
    """What is to be another; None leaves a thing as it is."""

    zone: str | None = None
    weight: float | None = None
    drains: bool | None = None

    def of(self, entry: RegisteredNode) -> RegisteredNode:
        """Return a node's entry as it is to be."""
        said = msgspec.structs.asdict(self).items()
        return msgspec.structs.replace(entry, **{k: v for k, v in said if v is not None})


def arrange(registry: Registry, node: NodeId, change: NodeChange) -> Registry:
    """Return the next registry, with this change, and targets that follow from it.

    Whoever drains no more, and owns nothing, is absent until it is heard (``presence.py``): so
    nothing waits for one that was switched off meanwhile. Returns the same registry if the change
    says nothing new. Raises UnknownNode, NobodyLeft.
    """
    entry = registry.node(node)
    if entry is None:
        raise UnknownNode(f"no node {node:016x} belongs to this covey")
    changed = change.of(entry)
    if changed == entry:
        return registry
    if changed.drains and not entry.drains:
        _check_others_own(registry, entry)
    if entry.drains and not changed.drains:
        owns = node in owners_of_any(each for _, each in registry.ownerships)
        changed = msgspec.structs.replace(changed, absent=not (owns or entry.is_issuer))
    return following(
        registry, tuple(changed if each.id == node else each for each in registry.nodes)
    )


def _check_others_own(registry: Registry, leaver: RegisteredNode) -> None:
    others = [each for each in registry.nodes if each.id != leaver.id]
    if all(each.absent or each.drains for each in others):
        raise NobodyLeft(
            f"nobody else is there to own what {leaver.name!r} owns; nothing was changed"
        )
