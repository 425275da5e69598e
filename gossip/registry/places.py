"""Places: partitions beside those that all keys hash to, for keys that begin with a certain text.

A *home* is one partition for the keys of one device, ``device/<node id>/…``. That device is its
first owner, and others beside it, in other zones and balanced over all homes, keep copies. So a
device that nobody reaches has its own state, and may read and write it alone.

A home has the number that its device's id gives (``home_number``), which is drawn once with the
data directory and never belongs to another device. So the home of a removed device is taken for
nobody else's, two halves of a covey that forked mean the same by it, and a device that comes back
finds its own again.

A *space* is all keys that begin with a name and a slash. It may have partitions of its own, which
have as many owners as was asked for it and not as the covey has by default; each space is shared
out among the nodes by itself. Their numbers follow from its name.

What is in a place passes from owners to owners by the stages of ``ownership.py``, as in any other
partition. Who drains, is absent or was removed is not its owner, whoever's home it is: then as many
others are as of any partition. A home stays when its device is removed, and its keys with it.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Annotated

import msgspec

from gossip.core.ids import NodeId, format_node_id
from gossip.core.names import NAME_CHARACTERS_MAX
from gossip.registry.ownership import Ownership
from gossip.registry.placement import Numbered, Owners, Placeable, assign, partition_of

PLACES_MAX = 2048
"""Each costs some forty bytes of every registry. A device beyond these has no home."""
NUMBER_MAX = 2**63 - 1
"""The largest number that SQLite has room for."""
PLACES_FROM, HOMES_FROM = 2**61, 2**62
"""Spaces have the numbers from the first on, homes from the second, the table those up to 4,096."""
SPACES_MAX = 16
SPACE_PARTITIONS = 32
"""Of each: 1.5 kB of every registry."""
REPLICAS_MAX = 7
DEVICE = "device"
"""The first component of the keys that have homes."""

Number = Annotated[int, msgspec.Meta(ge=PLACES_FROM, le=NUMBER_MAX)]

Step = Callable[[Ownership, Owners], Ownership]
"""(who owns a partition, who is to) -> who owns it in the next registry"""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """One partition with a number of its own: a device's home, or one of those of a space."""

    number: Number
    device: NodeId
    """Whose home it is; 0: nobody's."""
    ownership: Ownership
    space: Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS_MAX)] = ""
    """What the keys of the space begin with, up to the slash; empty for a home."""
    replicas: Annotated[int, msgspec.Meta(ge=0, le=REPLICAS_MAX)] = 0
    """How many owners it is to have; 0: as many as the covey's other partitions."""


Places = Annotated[tuple[Place, ...], msgspec.Meta(max_length=PLACES_MAX)]


def home_number(device: NodeId) -> int:
    """Return the number of a device's home, the same for ever.

    >>> hex(home_number(0xC0FFEE))
    '0x4000000000c0ffee'
    """
    assert device, "nobody has the id 0, and nobody's home"
    return HOMES_FROM | (device & (HOMES_FROM - 1))


def space_numbers(name: str) -> range:
    """Return the numbers of the partitions of a space, the same for ever.

    >>> len(space_numbers("photos")), space_numbers("photos") == space_numbers("photo")
    (32, False)
    """
    digest = blake2b(name.encode(), digest_size=6, person=b"covey space").digest()
    first = PLACES_FROM | int.from_bytes(digest) * SPACE_PARTITIONS
    assert first + SPACE_PARTITIONS <= HOMES_FROM, "48 bits and five fit below the homes"
    return range(first, first + SPACE_PARTITIONS)


def home_prefix(device: NodeId) -> str:
    """Return what the keys begin with that lie in a device's home."""
    return f"{DEVICE}/{format_node_id(device)}/"


class PlaceSearch:
    """Finds the place of a key, if it has one, and those of keys with a prefix."""

    def __init__(self, places: Places) -> None:
        self._homes = {format_node_id(each.device): each.number for each in places if each.device}
        self._spaces = {each.space: space_numbers(each.space) for each in places if each.space}
        self.prefixes = tuple(f"{name}/" for name in (DEVICE, *sorted(self._spaces)))
        """How keys begin that may have a place."""

    def number(self, key: str) -> int | None:
        """Return the number of the place of a key; None for one that hashes to the table."""
        if self._spaces:
            name, slash, _ = key.partition("/")
            numbers = self._spaces.get(name) if slash else None
            if numbers is not None:
                return numbers[partition_of(key, SPACE_PARTITIONS)]
        if not self._homes or not key.startswith(f"{DEVICE}/"):
            return None
        device, slash, _ = key[len(DEVICE) + 1 :].partition("/")
        return self._homes.get(device) if slash else None

    def prefixed(self, prefix: str) -> tuple[tuple[int, ...], bool]:
        """Return the places of keys with a prefix, and whether such keys may lie elsewhere."""
        name, slash, _ = prefix.partition("/")
        if slash and name in self._spaces:
            return tuple(self._spaces[name]), False
        place = self.number(prefix)
        if place is not None:
            return (place,), False
        homes = [n for device, n in self._homes.items() if _meet(f"{DEVICE}/{device}/", prefix)]
        spaces = [numbers for name, numbers in self._spaces.items() if _meet(f"{name}/", prefix)]
        return (*homes, *chain.from_iterable(spaces)), True


def _meet(beginning: str, prefix: str) -> bool:
    """Tell whether keys with this beginning are among those with a prefix."""
    return beginning.startswith(prefix)


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
    made = tuple(Place(home_number(device), device, Ownership((), 0)) for device in fresh)
    every = (*places, *made)
    before = {each.number: target for each, target in zip(places, targets, strict=True)}
    found: dict[int, Owners] = {}
    for space in dict.fromkeys(each.space for each in every):
        members = [each for each in every if each.space == space]
        names: list[Numbered] = [(each.number, each.device or None) for each in members]
        former = [before.get(each.number, ()) for each in members]
        wanted = members[0].replicas or replicas
        owners = assign(former, nodes, len(members), wanted, names)
        found |= dict(zip((each.number for each in members), owners, strict=True))
    assert all(found.values()), "somebody owns each of them"

    def owned(place: Place) -> Ownership:
        target = found[place.number]
        is_new = not place.ownership.owners
        return Ownership(target, epoch) if is_new else step(place.ownership, target)

    return tuple(msgspec.structs.replace(place, ownership=owned(place)) for place in every)
