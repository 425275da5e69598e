"""Places: partitions beside those that all keys hash to, for keys that begin with a certain text.

A *home* is one partition for the keys of one device, ``device/<node id>/…``. That device is its
first owner, and others beside it, in other zones and balanced over all homes, keep copies. So a
device that nobody reaches has its own state, and may read and write it alone.

A home has the number that its device's id gives (``home_number``), which is drawn once with the
data directory and never belongs to another device. So the home of a removed device is taken for
nobody else's, two halves of a covey that forked mean the same by it, and a device that comes back
finds its own again.

What is in a place passes from owners to owners by the stages of ``ownership.py``, as in any other
partition. Who drains, is absent or was removed is not its owner, whoever's home it is: then as many
others are as of any partition. A home stays when its device is removed, and its keys with it.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec

from gossip.core.ids import NodeId, format_node_id
from gossip.registry.ownership import Ownership
from gossip.registry.placement import Numbered, Owners, Placeable, assign

PLACES_MAX = 2048
"""Each costs some forty bytes of every registry. A device beyond these has no home."""
NUMBER_MAX = 2**63 - 1
"""The largest number that SQLite has room for."""
HOMES_FROM = 2**62
"""Homes have the numbers from here on, the partitions of the table those up to 4,096."""
DEVICE = "device"
"""The first component of the keys that have homes."""

Number = Annotated[int, msgspec.Meta(ge=HOMES_FROM, le=NUMBER_MAX)]

Step = Callable[[Ownership, Owners], Ownership]
"""(who owns a partition, who is to) -> who owns it in the next registry"""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """One partition with a number of its own, and the device whose home it is."""

    number: Number
    device: NodeId
    ownership: Ownership


Places = Annotated[tuple[Place, ...], msgspec.Meta(max_length=PLACES_MAX)]


def home_number(device: NodeId) -> int:
    """Return the number of a device's home, the same for ever.

    >>> hex(home_number(0xC0FFEE))
    '0x4000000000c0ffee'
    """
    assert device, "nobody has the id 0, and nobody's home"
    return HOMES_FROM | (device & (HOMES_FROM - 1))


def home_prefix(device: NodeId) -> str:
    """Return what the keys begin with that lie in a device's home."""
    return f"{DEVICE}/{format_node_id(device)}/"


class PlaceSearch:
    """Finds the place of a key, if it has one, and those of keys with a prefix."""

    def __init__(self, places: Places) -> None:
        self._homes = {format_node_id(each.device): each.number for each in places}

    def number(self, key: str) -> int | None:
        """Return the number of the place of a key; None for one that hashes to the table."""
        if not self._homes or not key.startswith(f"{DEVICE}/"):
            return None
        device, slash, _ = key[len(DEVICE) + 1 :].partition("/")
        return self._homes.get(device) if slash else None

    def prefixed(self, prefix: str) -> tuple[tuple[int, ...], bool]:
        """Return the places of keys with a prefix, and whether such keys may lie elsewhere."""
        place = self.number(prefix)
        if place is not None:
            return (place,), False
        begun = f"{DEVICE}/"
        if not (begun.startswith(prefix) or prefix.startswith(begun)):
            return (), True
        rest = prefix[len(begun) :]
        return tuple(n for device, n in self._homes.items() if device.startswith(rest)), True


def follow(
    places: Places,
    targets: Sequence[Owners],
    nodes: Sequence[Placeable],
    replicas: int,
    epoch: int,
    step: Step,
) -> Places:
    """Return the places of the next registry: homes that are missing are made, targets set anew.

    ``targets`` are those of before, and ``nodes`` those among whom everything is shared out. A new
    home has nothing in it yet, so its owners need not wait for each other.
    """
    assert len(targets) == len(places), "each place has a target"
    known = {each.number for each in places}
    fresh = [node.id for node in nodes if home_number(node.id) not in known]
    fresh = list({home_number(node): node for node in fresh}.values())[: PLACES_MAX - len(places)]
    devices = [*(each.device for each in places), *fresh]
    if not devices:
        return ()
    names: list[Numbered] = [(home_number(device), device) for device in devices]
    before = [*targets, *[()] * len(fresh)]
    found = assign(before, nodes, len(devices), replicas, names)
    assert all(found), "somebody owns each of them"
    kept = (
        msgspec.structs.replace(place, ownership=step(place.ownership, target))
        for place, target in zip(places, found[: len(places)], strict=True)
    )
    made = (
        Place(home_number(device), device, Ownership(owners, epoch))
        for device, owners in zip(fresh, found[len(places) :], strict=True)
    )
    return (*kept, *made)
