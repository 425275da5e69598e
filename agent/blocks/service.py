"""Files and blocks of one agent, wired."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.blocks.block_refused import BlockRefused
from agent.blocks.block_server import BlockServer
from agent.blocks.block_store import BlockStore
from agent.blocks.file_stat import FileStats
from agent.blocks.frame_sender import FrameSender
from agent.blocks.named_files import Files
from agent.blocks.transfers import Transfers
from agent.blocks.upkeep import Upkeep
from agent.cluster.kv import Kv
from agent.config.loader import Config
from agent.config.paths import Paths
from agent.config.settings import FileSettings
from agent.metrics import Metrics
from agent.runtime.driver import Driver
from gossip.bodies.messages import (
    CODEC,
    BlockAsk,
    BlockFetch,
    BlockPush,
    BlocksHeld,
    BlockSlice,
    BlockStored,
)
from gossip.core.errors import Malformed
from gossip.core.ids import NodeId

log = logging.getLogger(__name__)


class BlockService:
    """All that this agent has and does for files."""

    def __init__(self, driver: Driver, directory: Path, settings: FileSettings) -> None:
        """``open`` makes one that can be used."""
        self.counts: Counter[str] = Counter()
        self.store = BlockStore(directory, settings.directory_bytes_max, self.counts)
        sender = FrameSender(driver, self.counts)
        self.transfers = Transfers(driver, self.store, sender, self.counts)
        self.server = BlockServer(self.store, sender, self.counts)
        self.files = Files(Kv(driver), self.transfers, settings.file_bytes_max, self.counts)
        self.stats = FileStats(driver, self.transfers, self.server)
        self.upkeep = Upkeep(driver, self.store, self.transfers, self.files, self.counts)
        self._handlers: dict[type, Callable[[Any, NodeId], None]] = {
            BlockPush: self.server.push,
            BlockStored: self.transfers.stored,
            BlockFetch: self.server.fetch,
            BlockSlice: self.transfers.arrived,
            BlockAsk: self.server.ask,
            BlocksHeld: self.transfers.told,
        }

    @property
    def route(self) -> tuple[frozenset[int], Callable[[bytes, NodeId], None]]:
        """Who takes in which frames."""
        return CODEC.tags, self.receive_frame

    def receive_frame(self, data: bytes, peer: NodeId) -> None:
        """Take in a member's frame."""
        try:
            message = CODEC.decode_known(data)
        except Malformed:
            self.counts["blocks_dropped/malformed"] += 1
            return
        self._handlers[type(message)](message, peer)

    @classmethod
    async def open(
        cls, driver: Driver, paths: Paths, config: Config, metrics: Metrics
    ) -> "BlockService":
        """Return it with what is on the disk; a directory that cannot be used gives nothing."""
        service = cls(driver, paths.blocks, config.files)
        metrics.count(lambda: service.counts)
        try:
            await service.store.open()
        except BlockRefused as refused:
            log.warning("the directory of blocks cannot be used: %s", refused)
        service.upkeep.begin()
        show(metrics, service)
        return service

    async def stop(self) -> None:
        """Take in and give out nothing any more, and wait for the disk."""
        await self.files.stop()
        await self.upkeep.stop()
        await self.transfers.stop()
        await self.server.stop()
        self.store.close()


def show(metrics: Metrics, service: BlockService) -> None:
    """Show how the blocks stand here, from now on, to who scrapes the metrics."""
    store, keeper = service.store, service.upkeep.keeper
    metrics.gauge("blocks_bytes", "Bodies of blocks here.", lambda: store.used_bytes)
    metrics.gauge("blocks_bytes_max", "What they may take.", lambda: store.bytes_max)
    metrics.gauge("blocks_here", "Blocks by the state of their body.", keeper.count, "state")
