"""Answers scans: the records of many partitions that come first, a few partitions at a time.

A scan touches each of up to 256 partitions on disk. In one go that takes longer than a ping may
wait, so a scan is taken up again at each ``wake`` until it is done; the deadline between two steps
is now. What is kept meanwhile fits one frame: of each partition a few entries are read, and
whatever lies behind what fits is forgotten at once. The answer says how far it is complete, its
horizon, and the asker goes on from there.
"""

from collections import deque

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.limits import (
    PAGE_BYTES_MAX,
    PAGE_ENTRIES_MAX,
    SCAN_PARTITION_ENTRIES,
    SCAN_STEP_PARTITIONS,
    SCANS_MAX,
)
from gossip.kv.messages import Scan, Scanned
from gossip.kv.parts import KvParts
from gossip.kv.records import KeyState, Version

Entry = tuple[str, tuple[Version, ...]]


class ScanServer:
    """The scans that this node has yet to answer, first come, first served."""

    def __init__(self, parts: KvParts) -> None:
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._outbound = parts.outbound
        self._open: deque[_OpenScan] = deque()

    def scan(self, message: Scan, peer: NodeId, now: Instant) -> None:
        """Begin to answer with records of many partitions, up to a horizon that fits a frame."""
        registry = self._registry_sync.registry
        if message.epoch > registry.epoch:
            self._registry_sync.hold(message, peer, now)
            return
        if len(self._open) >= SCANS_MAX:
            self._outbound.counts["frames_dropped/scans_too_many"] += 1
            return
        answered = tuple(
            partition
            for partition in dict.fromkeys(message.partitions)
            if registry.has(partition)
            and message.epoch >= registry.ownership(partition).since
            and self._replica.may_answer(partition, registry)
        )
        self._open.append(_OpenScan(message, peer, registry.epoch, answered, now))
        if len(self._open) == 1:
            self._step(now)

    def wake(self, now: Instant) -> None:
        """Do one step more."""
        if self._open:
            self._step(now)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due: at once, while a scan is open."""
        return self._open[0].since if self._open else None

    def _step(self, now: Instant) -> None:
        scan = self._open[0]
        if scan.epoch != self._registry_sync.registry.epoch:
            self._open.popleft()
            self.scan(scan.message, scan.peer, now)  # who owns what has changed: begin again
            return
        for partition in scan.next_partitions():
            after = scan.message.after
            page = self._replica.scan(partition, scan.message.prefix, after, scan.per_partition)
            scan.take([(key, record.live) for key, record in page])
        if not scan.left:
            assert len(scan.found) <= scan.limit, "an answer has no more than was asked for"
            self._open.popleft()
            token = max(map(self._replica.token, scan.answered), default=0)
            number, entries = scan.message.number, tuple(scan.found)
            answer = Scanned(number, scan.answered, entries, scan.horizon)
            self._outbound.send(answer, scan.peer, token)


class _OpenScan:
    """A scan under way: ``found`` is complete up to ``horizon``, and to the end without one."""

    def __init__(
        self,
        message: Scan,
        peer: NodeId,
        epoch: int,
        answered: tuple[int, ...],
        since: Instant,
    ) -> None:
        self.message, self.peer, self.epoch = message, peer, epoch
        self.answered, self.since = answered, since
        self.left = deque(answered)
        self.found: list[Entry] = []
        self.horizon = ""
        self.limit = min(message.limit, PAGE_ENTRIES_MAX)
        # Keys are spread evenly; where a partition has more of them, the horizon is nearer.
        share = -(-2 * self.limit // max(1, len(answered)))
        self.per_partition = min(self.limit, max(SCAN_PARTITION_ENTRIES, share))

    def next_partitions(self) -> list[int]:
        """Return the partitions of the next step."""
        count = min(SCAN_STEP_PARTITIONS, len(self.left))
        return [self.left.popleft() for _ in range(count)]

    def take(self, page: list[Entry]) -> None:
        """Add what a partition has, and forget what lies behind the horizon."""
        assert len(page) <= self.per_partition, "a replica gives what was asked for"
        if len(page) == self.per_partition:
            self._draw_near(page[-1][0])
        within = [entry for entry in page if not self.horizon or entry[0] <= self.horizon]
        self.found = sorted([*self.found, *within])
        size = 0
        for count, (_, live) in enumerate(self.found):
            size += KeyState(live).size_bytes()
            if count == self.limit or (count and size > PAGE_BYTES_MAX):
                self._draw_near(self.found[count - 1][0])
                break

    def _draw_near(self, key: str) -> None:
        self.horizon = min(self.horizon, key) if self.horizon else key
        self.found = [entry for entry in self.found if entry[0] <= self.horizon]
        assert self.horizon > self.message.after, "whoever asks again from here gets further"
