"""How many owners a device asks about its own state: itself is enough, so that it may be alone.

Of a key in its own home (``gossip/registry/places.py``) a device is the first owner. Unless a
request says otherwise, a write there is acknowledged when it is on this device's disk, and a read
answered with what is here. The other owners are told of each write at once, and those that miss it
are brought up to date by the comparisons (``repair.py``), as of any write.

What that costs: until a write has spread it is as safe as this device's disk; and what others wrote
to this home while the device was cut off is not read here before it has come here. A majority,
which is what everybody else asks by default, sees neither gap nor loss that W and R by majority
would not have. A device whose copy is not complete asks as everybody does.
"""

from gossip.core.ids import NodeId
from gossip.kv.registry_sync import RegistrySync
from gossip.kv.replica import Replica
from gossip.registry.places import home_number


class OwnHome:
    """The home of this device, as its own requests see it."""

    def __init__(self, me: NodeId, registry_sync: RegistrySync, replica: Replica) -> None:
        self._number = home_number(me)
        self._registry_sync = registry_sync
        self._replica = replica

    def copies(self, key: str, wanted: int | None) -> int | None:
        """Return how many owners are to answer for a key; None: a majority."""
        registry = self._registry_sync.registry
        if wanted is not None or registry.partition_of(key) != self._number:
            return wanted
        return 1 if self._replica.is_complete(self._number, registry) else None

    def copies_of_all(self, prefix: str, wanted: int | None) -> int | None:
        """Return the same of all keys with a prefix."""
        registry = self._registry_sync.registry
        if registry.partitions_of(prefix) != (self._number,):
            return wanted
        return self.copies(prefix, wanted)
