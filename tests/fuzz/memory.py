"""How much a node may remember while it is attacked: every container, wherever it is.

The walk is that of ``gossip/sim/memory_bounds.py``. There the question is what is left when all is
over; here the attack is still on, so the limits are those of the tables themselves, the largest of
which is written down beside each exception.
"""

from collections import deque

from gossip.node import Node
from gossip.sim.memory_bounds import NOT_MEMORY, _parts, sizes

ITEMS_MAX = 1200
"""A throttle's table of peers has 1,024 places, and so has what is remembered of queries."""


def outgrown(node: Node) -> str:
    """Return the path of something that outgrew every table; empty when there is nothing."""
    return next(
        (
            f"{size} in {path}"
            for path, size, bits_max in sizes(node)
            if size > max(ITEMS_MAX, bits_max)
        ),
        "",
    )


def bytes_kept(node: Node) -> int:
    """Return how many bytes of texts and byte strings a node refers to."""
    seen: set[int] = set()
    waiting: deque[tuple[str, object]] = deque([("node", node)])
    total = 0
    while waiting:
        path, thing = waiting.popleft()
        if id(thing) in seen or isinstance(thing, NOT_MEMORY):
            continue
        seen.add(id(thing))
        if isinstance(thing, str | bytes):
            total += len(thing)
        waiting.extend(_parts(path, thing))
    return total
