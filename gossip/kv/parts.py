"""What the parts of one node's state plane share."""

import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

from gossip.core.ids import NodeId
from gossip.kv.outbound import OutboundFrames
from gossip.kv.own_home import OwnHome
from gossip.kv.registry_sync import RegistrySync
from gossip.kv.replica import Replica
from gossip.kv.shown_values import ShownValues
from gossip.kv.spaces import Spaces
from gossip.kv.transfers import Transfers

Order = Callable[[Iterable[NodeId]], list[NodeId]]
"""Sorts nodes by how soon they may be expected to answer. Only ever an order to try them in."""

IsGone = Callable[[NodeId], bool]
"""Whether a node is believed to be dead, or has left. It ends no wait but one that is in vain."""


class MembershipView(NamedTuple):
    """All that the state plane asks of the membership; no quorum or epoch follows from it."""

    order: Order
    is_gone: IsGone


class KvParts(NamedTuple):
    """What each part of one state plane is made with; made once, by ``plane.py``."""

    replica: Replica
    registry_sync: RegistrySync
    outbound: OutboundFrames
    home: OwnHome
    view: MembershipView
    rng: random.Random
    spaces: Spaces
    shown: ShownValues
    transfers: Transfers
