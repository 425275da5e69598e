"""Who has which blocks: asked of all members that are there, for people alone.

A block is short when one of its owners is known not to have it, or does not say; missing when
nobody who answered has it. Nothing follows from it: what a node lacks it finds by itself.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent.blocks.block_server import BlockServer
from agent.blocks.named_files import NamedFile
from agent.blocks.transfers import Transfers
from agent.loop.slices import collect
from agent.runtime.driver import Driver
from gossip.bodies.block_limits import FILES_ASKED_MAX
from gossip.bodies.file_records import BlockName
from gossip.core.ids import NodeId


class PlacedBlock(NamedTuple):
    """One block: who is to have it, and who of those that answered has it."""

    owners: tuple[NodeId, ...]
    held: frozenset[NodeId]


class FileStat(NamedTuple):
    """The blocks of one file, and who did not say what it has."""

    blocks: list[PlacedBlock]
    silent: frozenset[NodeId]

    @property
    def short(self) -> int:
        """How many blocks are not known to lie with all of their owners."""
        return sum(not block.held.issuperset(block.owners) for block in self.blocks)

    @property
    def missing(self) -> int:
        """How many blocks nobody has who answered."""
        return sum(not block.held for block in self.blocks)


class FileStats:
    """Asks members for what they have of files."""

    def __init__(self, driver: Driver, transfers: Transfers, server: BlockServer) -> None:
        self._node, self._transfers, self._server = driver.node, transfers, server
        self._me = driver.node.settings.me

    async def of(self, files: Sequence[NamedFile]) -> list[FileStat]:
        """Return for each file who has which block."""
        found: list[FileStat] = []
        for at in range(0, len(files), FILES_ASKED_MAX):
            found += await self._of_some(files[at : at + FILES_ASKED_MAX])
        return found

    async def _of_some(self, files: Sequence[NamedFile]) -> list[FileStat]:
        ids = [file.record.file for file in files]
        others = [node for node in self._node.state.registry.ids() if node != self._me]
        asked = [node for node in others if not self._node.swim.is_gone(node)]
        told = await asyncio.gather(*(self._transfers.ask(node, ids) for node in asked))
        held = {node: one.held for node, one in zip(asked, told, strict=True) if one is not None}
        held[self._me] = self._server.held(0, ids).held
        silent = frozenset(others) - held.keys()
        found: list[FileStat] = []
        for at, file in enumerate(files):
            bits = {node: each[at] for node, each in held.items()}
            indices = range(file.record.blocks)
            placed = (self._placed(BlockName(file.record.file, n), bits) for n in indices)
            found.append(FileStat(await collect(placed), silent))
        return found

    def _placed(self, name: BlockName, bits: Mapping[NodeId, bytes]) -> PlacedBlock:
        owners = self._node.state.registry.owners_of(name.key)
        return PlacedBlock(
            owners, frozenset(n for n, each in bits.items() if has(each, name.number))
        )


def has(bits: bytes, index: int) -> bool:
    """Tell whether a bit is set."""
    return index // 8 < len(bits) and bool(bits[index // 8] >> index % 8 & 1)
