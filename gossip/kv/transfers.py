"""How much of other nodes' partitions comes here at a time, and how much goes out.

A move of partitions is urgent for nobody: the owners of before answer until it is done. But all of
it at once takes the link and the flash from those who read and write meanwhile. So a node that
has to copy takes *one partition after the other*, so many bytes a second, and one that is copied
from serves a few nodes at a time and sends the others back to ask again. Whoever begins a pass
paces it, so both ends of it are slowed down. Nothing here decides what is copied, or is kept on a
disk: where either side starts anew, the next pass finds what is still missing, and copies that.

To compare costs next to nothing and is not counted: a pass becomes a *transfer* when it is found
that something differs, of a partition that is on its way, or of which our copy is not complete.
"""

from collections import deque
from typing import NamedTuple

from gossip.core.ids import NodeId
from gossip.core.machine import Instant

TRANSFERS_IN, TRANSFERS_OUT = 1, 2
TRANSFER_BYTES_PER_S = 256 * 1024
BURST_S = 1.0
"""What fits so much time goes at once: a covey with few keys is done before anybody looks."""
IDLE_S = 1.5
"""Whom we served so long ago is served no more; a paced one asks several times in this."""
COUNTED_S = 10


class TransferBudget(NamedTuple):
    """What an operator allows one node."""

    inbound: int = TRANSFERS_IN
    outbound: int = TRANSFERS_OUT
    bytes_per_s: int = TRANSFER_BYTES_PER_S


class ByteCounter:
    """How many bytes went by in the last ten seconds, in steps of one."""

    def __init__(self) -> None:
        self.total = 0
        self._seconds: deque[tuple[int, int]] = deque(maxlen=COUNTED_S + 1)

    def add(self, size_bytes: int, now: Instant) -> None:
        """Take note of some."""
        self.total += size_bytes
        second, before = int(now), 0
        if self._seconds and self._seconds[-1][0] == second:
            before = self._seconds.pop()[1]
        self._seconds.append((second, before + size_bytes))

    def per_s(self, now: Instant) -> float:
        """Return how many a second it were."""
        recent = [size for second, size in self._seconds if now - second <= COUNTED_S]
        return sum(recent) / COUNTED_S


class Transfers:
    """Manages who may copy from us, and how fast we copy."""

    def __init__(self) -> None:
        self.limits = TransferBudget()
        self.incoming, self.outgoing = ByteCounter(), ByteCounter()
        self._free_at: Instant = float("-inf")
        """When all that came so far would have come at the rate that is allowed."""
        self._served: dict[NodeId, Instant] = {}

    def pause_s(self, size_bytes: int, now: Instant) -> float:
        """Take note of what a pass of ours has moved; return how long to wait before more."""
        self.incoming.add(size_bytes, now)
        self._free_at = max(self._free_at, now) + size_bytes / self.limits.bytes_per_s
        return max(0.0, self._free_at - now - BURST_S)

    def may_serve(self, node: NodeId, now: Instant) -> bool:
        """Tell whether a node may copy from us now, and take note that it does."""
        self._served = {one: at for one, at in self._served.items() if now - at < IDLE_S}
        if node not in self._served and len(self._served) >= self.limits.outbound:
            return False
        self._served[node] = now
        return True
