"""Nodes of a version before signatures, among nodes of this one, in a simulated world."""

from collections.abc import Callable
from typing import Any

import msgspec

from gossip.core.errors import Malformed
from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.wire import pack, unpack
from gossip.membership.model.messages import DATAGRAMS, FRAMES, Alive, Asleep, Left, SyncDelta
from gossip.node import Node
from gossip.sim.host import Host
from gossip.sim.world import World


class MixedWorld(World):
    """A world in which the devices of ``earlier`` run such a version when they next start."""

    earlier: frozenset[str] = frozenset()

    def _new_node(self, host: Host) -> Node:
        node = super()._new_node(host)
        if host.name not in self.earlier:
            return node
        node.swim._signatures._signing = None
        node.swim._local._signed_alive = None
        node.swim._updates.announce(host.local(self.now))
        receive, frames = node.swim.receive, node._frame_handlers

        def hear(body: bytes, *rest: Any) -> None:
            receive(_without(body), *rest)

        node.swim.receive = hear  # type: ignore[method-assign,assignment]
        for tag in FRAMES.tags:
            frames[tag] = _deaf(frames[tag])
        return node


def _deaf(handler: Callable[[bytes, NodeId, Instant], None]) -> Any:
    def handle(data: bytes, peer: NodeId, now: Instant) -> None:
        frame = FRAMES.decode(data)
        if isinstance(frame, SyncDelta):
            bare = [_bare(entry, absence=b"", announced_s=0) for entry in frame.entries]
            data = FRAMES.encode(msgspec.structs.replace(frame, entries=tuple(bare)))
        handler(data, peer, now)

    return handle


def _without(body: bytes) -> bytes:
    """Return a packet as who does not know signatures decodes it."""
    return pack(map(_item, unpack(body)))


def _item(item: bytes) -> bytes:
    try:
        message = DATAGRAMS.decode(item)
    except Malformed:
        return item
    if isinstance(message, Asleep):
        return DATAGRAMS.encode(_bare(message, announced_s=0))
    return DATAGRAMS.encode(_bare(message)) if isinstance(message, Alive | Left) else item


def _bare(words: Any, **more: Any) -> Any:
    return msgspec.structs.replace(words, signature=b"", **more)
