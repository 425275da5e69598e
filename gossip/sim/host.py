"""A simulated device: what survives the end of a process, and what does not.

A host outlives its processes. Its disk keeps what was committed, its id, address and count of
starts stay; the node that runs on it, with all it knows, is gone when the process ends. Every
event that is under way for a process carries the number of that life, and is void in the next.

The clocks are a device's own. The monotonic one starts at a different number on each host, and
restarts there after a reboot: an instant that leaks into a message or onto a disk makes nonsense
at once. The wall clock may be wrong by any amount.
"""

import enum
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from gossip.core.ids import NodeId, new_node_id
from gossip.core.machine import Address, Durability, Instant, Persist
from gossip.kv.storage import MemoryStorage
from gossip.node import Node
from gossip.sim.disk import Disk
from gossip.sim.schedule import whole_tick

PORT = 7747
# What a socket buffer of some 200 KiB holds of our packets while a process is paused.
INBOX_ITEMS_MAX = 256
WALL_CLOCK_START_MS = 1_790_000_000_000
CLOCK_OFFSET_STEP_S = 4096.0
# One transaction on an SD card.
DISK_DELAY_S = 0.02
Hosted = Any
"""A Node, or what stands in for one in a scenario (``script/scripted_peer.py``): it has all that
the driver asks a node for, and compiled code would not take it for a Node."""


class HostState(enum.Enum):
    """Whether the process on a host runs, stands still, or does not exist."""

    UP = "up"
    PAUSED = "paused"
    DOWN = "down"


class Host:
    """One device and the process on it, if there is one."""

    def __init__(self, name: str, number: int, rng: random.Random) -> None:
        self.name = name
        self.id: NodeId = new_node_id(rng)
        self.address = Address(f"10.0.{number // 250}.{number % 250 + 1}", PORT)
        self.state = HostState.DOWN
        self.disk = Disk()
        self.event_time = 0
        self.is_retired = False
        self.has_vanished = False
        """Whether the device itself is gone: no kernel that closes streams and refuses packets."""
        self.starts = 0
        self.life = 0
        self.wall_error_ms = 0
        self.disk_delay_s = DISK_DELAY_S
        self.unwritten: dict[Durability, list[Persist]] = {kind: [] for kind in Durability}
        self.writing: set[Durability] = set()
        """Of which kinds a transaction is under way."""
        self.told = 0
        """The last token of a batch of which the node was told that it is written."""
        self.to_sync: set[int] = set()
        self.is_syncing = False
        self.dies_writing = False
        self.wake_at: Instant | None = None
        self.inbox: deque[Callable[[], None]] = deque()
        self._clock_offset_s = CLOCK_OFFSET_STEP_S * rng.randrange(1, 1024)
        self._node: Hosted = None

    def __repr__(self) -> str:
        return f"Host({self.name}, {self.state.value})"

    @property
    def storage(self) -> MemoryStorage:
        """What the process finds on its disk."""
        return self.disk.storage

    @property
    def hosted(self) -> Hosted:
        """What runs here. Only hosts that are not down have it."""
        assert self._node is not None, f"nothing runs on {self.name}"
        return self._node

    @property
    def node(self) -> Node:
        """The running node, where it is one."""
        node: Node = self.hosted
        return node

    @property
    def is_full(self) -> bool:
        """Whether the socket buffers of a paused process hold no more."""
        return len(self.inbox) >= INBOX_ITEMS_MAX

    @property
    def is_up(self) -> bool:
        """Whether the process runs and is not paused."""
        return self.state is HostState.UP

    @property
    def is_down(self) -> bool:
        """Whether there is no process."""
        return self.state is HostState.DOWN

    @property
    def is_paused(self) -> bool:
        """Whether the process stands still."""
        return self.state is HostState.PAUSED

    def boot_up(self, node: Hosted) -> None:
        """Begin a life with this node."""
        assert self.is_down, f"{self.name} runs already"
        self._node, self.state, self.wake_at = node, HostState.UP, None
        self.has_vanished = False

    def end(self) -> None:
        """End the process; whatever was under way for it is void from now on."""
        self.life += 1
        self._node, self.state, self.wake_at = None, HostState.DOWN, None
        self.inbox.clear()
        for waiting in self.unwritten.values():
            waiting.clear()
        self.writing.clear()
        self.told, self.is_syncing = 0, False
        self.to_sync.clear()
        self.dies_writing = False

    def local(self, world_now: Instant) -> Instant:
        """Read this device's monotonic clock."""
        return world_now + self._clock_offset_s

    def world_time(self, local: Instant) -> Instant:
        """Tell when this device's monotonic clock will have reached an instant."""
        return whole_tick(local - self._clock_offset_s)

    def wall_ms(self, local: Instant) -> int:
        """Read this device's wall clock, right or wrong."""
        true_ms = WALL_CLOCK_START_MS + int((local - self._clock_offset_s) * 1000)
        return max(0, true_ms + self.wall_error_ms)


def addresses_of(hosts: Iterable[Host]) -> list[Address]:
    """Return where these hosts are reached."""
    return [host.address for host in hosts]
