"""A device with one log on its disk, and the Raft machine on it, if its process runs."""

import random
from collections import deque
from collections.abc import Callable

from gossip.consensus.configuration import StoreId, Voter, new_store_id
from gossip.consensus.raft import Raft
from gossip.core.ids import NodeId, new_node_id
from gossip.core.machine import Instant, Persist
from gossip.sim.consensus_store import ConsensusStore
from gossip.sim.device_clock import DeviceClock
from gossip.sim.host import CLOCK_OFFSET_STEP_S, DISK_DELAY_S, INBOX_ITEMS_MAX, HostState
from gossip.sim.log_disk import LogDisk


class ConsensusHost:
    """One device. Its name and node stay; its store is another one when it loses its log."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.id: NodeId = new_node_id(rng)
        self.store: StoreId = new_store_id(rng)
        self.state = HostState.DOWN
        self.has_vanished = False
        self.life = 0
        self.disk = LogDisk()
        self.disk_delay_s = DISK_DELAY_S
        self.unwritten: list[Persist] = []
        self.writing: list[Persist] = []
        """What a crash leaves a first part of."""
        self.is_writing = False
        """Whether a transaction is under way, or over and not yet reported."""
        self.dies_writing: str | None = None
        """How its process is to end while it writes next, or just behind that."""
        self.wake_at: Instant | None = None
        self.inbox: deque[Callable[[], None]] = deque()
        self.clock = DeviceClock(CLOCK_OFFSET_STEP_S * rng.randrange(1, 1024))
        self.machine = ConsensusStore()
        """The state that the log has led to; a process begins it anew."""
        self.compacted_index = 0
        """Up to where the application has handed over a snapshot in this life."""
        self.started_at: Instant = 0.0
        self._raft: Raft | None = None

    def __repr__(self) -> str:
        return f"ConsensusHost({self.name}, {self.state.value})"

    @property
    def voter(self) -> Voter:
        """How a configuration names it."""
        return Voter(self.store, self.id)

    @property
    def raft(self) -> Raft:
        """The machine that runs. Only hosts that are not down have one."""
        assert self._raft is not None, f"nothing runs on {self.name}"
        return self._raft

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

    def copy_card(self, original: "ConsensusHost") -> None:
        """Take over the identity and the log of another device, as a copy of its card has them."""
        assert self.is_down, f"{self.name} uses its own card"
        self.id, self.store, self.disk = original.id, original.store, LogDisk()
        self.disk.platter.replace(original.disk.platter.stored())

    def begin_log(self, rng: random.Random) -> None:
        """Give it an empty log, which is another store."""
        assert self.is_down, f"{self.name} still uses the log of before"
        self.store, self.disk = new_store_id(rng), LogDisk()

    def boot_up(self, raft: Raft, now: Instant) -> None:
        """Begin a life with this machine, and an application that knows nothing yet."""
        assert self.is_down, f"{self.name} runs already"
        self._raft, self.state, self.wake_at = raft, HostState.UP, None
        self.machine, self.compacted_index = ConsensusStore(), 0
        self.started_at = now
        self.has_vanished = False

    def end(self) -> None:
        """End the process; whatever was under way for it is void from now on."""
        self.life += 1
        self._raft, self.state, self.wake_at = None, HostState.DOWN, None
        self.inbox.clear()
        self.unwritten.clear()
        self.writing.clear()
        self.is_writing, self.dies_writing = False, None
