"""What it takes to find one key of 100,000 that two owners hold differently, and to mend it.

Two owners on SQLite files in one process, joined by a queue of frames: what they send is counted to
the byte, and the time is what both spend on it, one after the other, with every commit. Between
devices come TLS, and the wait for whoever begins: a member that comes back is asked at once, and
all others within half a minute for each other owner.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from agent.store.kv_store import RecordStore
from gossip.core.ids import NodeId
from gossip.core.wire import tag_of
from gossip.kv.messages import CODEC
from gossip.kv.plane import KvPlane
from gossip.kv.records import Record, Version
from gossip.kv.storage import ClockChange, HoldingChange, RecordChange
from gossip.registry.placement import PARTITIONS, partition_of
from tests.support.kv_net import Net, registry_of

ACTOR = 7
OWNERS = (1, 2)
VALUE = b"v" * 128
SINCE = 1
WITHIN_S = 60.0


class Repair(NamedTuple):
    """What it took, both sides together."""

    frames: int
    sent_bytes: int
    seconds: float


class OnDisk(RecordStore):
    """Records in a file, as the planes of ``Net`` use them: it waits for each commit."""

    loop: asyncio.AbstractEventLoop

    def apply(self, changes: Iterable[object]) -> None:
        """Write one batch."""
        self.loop.run_until_complete(self.save(tuple(changes)))


class CountedNet(Net):
    """Frames between state planes, counted."""

    def __init__(self, files: dict[NodeId, OnDisk]) -> None:
        self.sent: Counter[int] = Counter()
        self.files = files
        super().__init__(registry_of(OWNERS, PARTITIONS, len(OWNERS)))

    def start(self, number: NodeId, registry: object = None) -> KvPlane:
        """Let a plane run on its file."""
        del registry
        self.storages[number] = self.files[number]  # type: ignore[assignment]
        return super().start(number)

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        """Count what is sent."""
        assert tag_of(data) in CODEC.tags, "the planes speak their own language"
        self.sent[sender] += len(data)
        super().send(sender, to, data)


def repair_one(folder: Path, keys: int) -> Repair:
    """Fill both files alike but for one key, and let them meet."""
    loop = asyncio.new_event_loop()
    try:
        files = {number: _filled(loop, folder / f"{number}.db", keys) for number in OWNERS}
        last = _name(keys - 1)
        changed = Record((Version(ACTOR, keys + 1, 1, b"new"),), ((ACTOR, keys + 1),))
        partition = partition_of(last, PARTITIONS)
        files[1].apply([
            RecordChange(partition, last, changed),
            ClockChange(partition, ACTOR, ((1, keys + 1),)),
        ])  # fmt: skip
        net = CountedNet(files)
        found = _meet(net, partition, last, changed)
        for each in files.values():
            loop.run_until_complete(each.close())
        return found
    finally:
        loop.close()


def _filled(loop: asyncio.AbstractEventLoop, path: Path, keys: int) -> OnDisk:
    opened = loop.run_until_complete(OnDisk.open(path))
    assert isinstance(opened, OnDisk), "it opens what it is"
    opened.loop = loop
    names = [_name(number) for number in range(keys)]
    opened.apply(
        RecordChange(
            partition_of(name, PARTITIONS),
            name,
            Record((Version(ACTOR, number + 1, 1, VALUE),), ((ACTOR, number + 1),)),
        )
        for number, name in enumerate(names)
    )
    opened.apply(ClockChange(partition, ACTOR, ((1, keys),)) for partition in range(PARTITIONS))
    opened.apply(HoldingChange(partition, SINCE) for partition in range(PARTITIONS))
    return opened


def _name(number: int) -> str:
    return f"many/{number:06}"


def _meet(net: CountedNet, partition: int, key: str, wanted: Record) -> Repair:
    """Have one hear of the other; count until both hold the same."""
    begun = time.perf_counter()
    net.planes[1].peer_alive(OWNERS[1], net.now)
    net.settle(1)
    until = net.now + WITHIN_S
    while net.files[OWNERS[1]].load(partition, key) != wanted:
        assert net.now < until, "one key is mended in a minute"
        net.run(0.001)
    return Repair(net.frames, sum(net.sent.values()), time.perf_counter() - begun)
