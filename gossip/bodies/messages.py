"""What members say of blocks, over their streams: bodies in slices, and who has which.

A block goes along its owners: each takes in the slices, hands them on to the next of ``chain``, and
tells the writer alone when its copy is on the disk. Nobody in between promises anything for others.

Field order is the format (``gossip/core/wire.py``); new fields go to the end with a default.
"""

from typing import Annotated

import msgspec

from gossip.bodies.block_limits import (
    BLOCKS_MAX,
    FILES_ASKED_MAX,
    HOLDERS_MAX,
    REASON_CHARACTERS_MAX,
    SLICE_BYTES,
)
from gossip.bodies.file_records import BlockBytes, BlockName, Digest, FileId, Number
from gossip.core.ids import NodeId
from gossip.core.wire import Codec

Bits = Annotated[bytes, msgspec.Meta(max_length=BLOCKS_MAX // 8)]
Reason = Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS_MAX)]
SliceData = Annotated[bytes, msgspec.Meta(max_length=SLICE_BYTES)]


class BlockPush(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """A slice of a block to be kept; ``writer`` is told under ``number`` what became of it."""

    number: Number
    writer: NodeId
    block: BlockName
    size_bytes: BlockBytes
    digest: Digest
    offset: BlockBytes
    data: SliceData
    chain: Annotated[tuple[NodeId, ...], msgspec.Meta(max_length=HOLDERS_MAX)] = ()
    """To whom it goes on from here."""


class BlockStored(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """The block is on the teller's disk, synced; with a ``reason``: it is not, and why."""

    number: Number
    reason: Reason = ""


class BlockFetch(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Asks for a part of a body."""

    number: Number
    block: BlockName
    offset: BlockBytes
    size_bytes: BlockBytes


class BlockSlice(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """Some of what was asked for; with a ``reason``: nothing of it is to be had here."""

    number: Number
    offset: BlockBytes
    data: SliceData
    reason: Reason = ""


class BlockAsk(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """Asks which blocks of these files the other has."""

    number: Number
    files: Annotated[tuple[FileId, ...], msgspec.Meta(max_length=FILES_ASKED_MAX)]


class BlocksHeld(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """Of each file that was asked about one bit a block; and how much the teller has and may."""

    number: Number
    held: Annotated[tuple[Bits, ...], msgspec.Meta(max_length=FILES_ASKED_MAX)]
    used_bytes: Number = 0
    bytes_max: Number = 0


BlockMessage = BlockPush | BlockStored | BlockFetch | BlockSlice | BlockAsk | BlocksHeld
CODEC: Codec[BlockMessage] = Codec(BlockMessage)
