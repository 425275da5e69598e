"""How much a node remembers, found without being told where to look.

A list of known buffers would miss the one that is added next year. So this walks everything that
a node refers to, through objects of ours and the containers in them, and reports the length of
every container and the width of every number. What leaks shows up, wherever it is.
"""

from collections import deque
from collections.abc import Iterator

from gossip.kv.storage import MemoryStorage
from gossip.node import Node
from gossip.sim.invariants import Checker, WorldView
from gossip.sim.toy_cipher import ToySuite

OURS = "gossip."
# Disks are meant to grow, the toy suite is not a part of the node.
NOT_MEMORY = (MemoryStorage, ToySuite)
# Above the number of partitions, far below what any leak of one entry per packet leaves behind.
ITEMS_MAX = 400
BITS_MAX = 2048

SLOTS = ("__slots__", "__mypyc_attrs__")
"""How a class tells of attributes that are in no dictionary; the latter, one that is compiled."""


def sizes(node: Node) -> Iterator[tuple[str, int, int]]:
    """Yield (path, items, limit) for every container and number that a node refers to."""
    seen: set[int] = set()
    waiting: deque[tuple[str, object]] = deque([("node", node)])
    while waiting:
        path, thing = waiting.popleft()
        if id(thing) in seen or isinstance(thing, NOT_MEMORY):
            continue
        if isinstance(thing, int):
            yield path, thing.bit_length(), BITS_MAX
            continue
        seen.add(id(thing))
        if isinstance(thing, dict | list | set | frozenset | tuple | deque):
            yield path, len(thing), ITEMS_MAX
        waiting.extend(_parts(path, thing))


def _parts(path: str, thing: object) -> Iterator[tuple[str, object]]:
    """Yield what a thing refers to. Containers of one kind share a path, to be readable."""
    if isinstance(thing, dict):
        for key, value in thing.items():
            yield f"{path}[]", value
            if isinstance(key, tuple):
                yield f"{path}.keys", key
    elif isinstance(thing, list | set | frozenset | tuple | deque):
        for item in thing:
            yield f"{path}[]", item
    elif type(thing).__module__.startswith(OURS):
        kinds = type(thing).__mro__
        slots = [name for kind in kinds for how in SLOTS for name in getattr(kind, how, ())]
        for name in [*getattr(thing, "__dict__", {}), *slots]:
            yield f"{path}.{name}", getattr(thing, name, None)


class BoundedMemory(Checker):
    """Nothing in a node's memory grows with time: no container is long after all is over."""

    def settled(self, world: WorldView) -> None:
        """Measure all nodes that run."""
        for name in world.up():
            for path, size, limit in sizes(world.hosts[name].node):
                if size > limit:
                    raise self.violated(world, name, f"keeps {size} in {path}, limit {limit}")
