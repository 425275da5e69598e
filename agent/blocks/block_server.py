"""Answers other members about blocks: takes in what they push, and sends what they fetch.

A block that is pushed is gathered in memory, of which there is little: so few at a time, and who
pushes more is told that this node is busy. What has come goes on to the next owner at once, as fast
as that one takes it. A slice that is missing, since a stream broke, ends the block here; its writer
hears of it and sends it again.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from functools import partial

from agent.blocks.block_refused import BUSY, BlockRefused
from agent.blocks.block_store import BlockStore
from agent.blocks.frame_sender import FrameSender
from agent.loop import watched
from gossip.bodies.block_limits import SLICE_BYTES
from gossip.bodies.messages import (
    BlockAsk,
    BlockFetch,
    BlockPush,
    BlocksHeld,
    BlockSlice,
    BlockStored,
)
from gossip.core.ids import NodeId

ARRIVING_MAX = 8
"""So many blocks are gathered at a time: 8 MiB."""
SERVED_MAX = 8
ARRIVAL_IDLE_S, ARRIVAL_S = 15.0, 120.0
"""A block of which nothing came for so long is given up, and one that is not whole after so long:
who sends a byte now and then keeps no room from others."""


class ArrivingBlock:
    """A block that somebody pushes, as far as it has come."""

    def __init__(self, push: BlockPush, now: float) -> None:
        self.push = push
        self.body = bytearray()
        self.begun_at = self.heard_at = now
        self.grown = asyncio.Event()
        self.is_lost = False

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here."""
        return len(self.body) == self.push.size_bytes

    def is_over(self, now: float) -> bool:
        """Tell whether it has taken too long."""
        return now > min(self.heard_at + ARRIVAL_IDLE_S, self.begun_at + ARRIVAL_S)

    def add(self, push: BlockPush, now: float) -> bool:
        """Take in the next slice; say whether it was the next one."""
        is_next = push.offset == len(self.body) and push.block == self.push.block
        if not is_next or len(self.body) + len(push.data) > self.push.size_bytes:
            return False
        self.body += push.data
        self.heard_at = now
        self.grown.set()
        return True

    def lose(self) -> None:
        """Have whoever hands it on stop."""
        self.is_lost = True
        self.grown.set()


class BlockServer:
    """Takes in and gives out bodies of the store."""

    def __init__(self, store: BlockStore, sender: FrameSender, counts: Counter[str]) -> None:
        self._store, self._sender, self._counts = store, sender, counts
        self._arriving: dict[tuple[NodeId, int], ArrivingBlock] = {}
        self._keeping = self._serving = 0
        self._tasks = watched.TaskSet()

    async def stop(self) -> None:
        """Take in and give out nothing any more."""
        await self._tasks.stop()

    # Taking in

    def push(self, push: BlockPush, _peer: NodeId) -> None:
        """Take in a slice, and hand it on."""
        now, name = asyncio.get_running_loop().time(), (push.writer, push.number)
        if push.offset == 0 and not self._begin(push, now):
            self._refuse(push)
            return
        arriving = self._arriving.get(name)
        if arriving is None:
            self._counts["blocks_dropped/late"] += 1
            return
        if not arriving.add(push, now):
            self._lose(arriving)
            self._counts["blocks_dropped/torn"] += 1
            self._refuse(push)
        elif arriving.is_whole:
            del self._arriving[name]
            self._keeping += 1
            self._tasks.start("block-keep", partial(self._keep, arriving))

    def _begin(self, push: BlockPush, now: float) -> bool:
        """Make room for a block, unless too many are coming."""
        for old in [each for each in self._arriving.values() if each.is_over(now)]:
            self._lose(old)
            self._counts["blocks_dropped/stalled"] += 1
        if (again := self._arriving.get((push.writer, push.number))) is not None:
            self._lose(again)
        if len(self._arriving) + self._keeping >= ARRIVING_MAX:
            return False
        arriving = self._arriving[push.writer, push.number] = ArrivingBlock(push, now)
        if push.chain:
            self._tasks.start("block-hand-on", partial(self._hand_on, arriving))
        return True

    def _lose(self, arriving: ArrivingBlock) -> None:
        self._arriving.pop((arriving.push.writer, arriving.push.number), None)
        arriving.lose()

    def _refuse(self, push: BlockPush) -> None:
        self._counts["blocks_refused/busy"] += 1
        self._sender.send(BlockStored(push.number, BUSY), push.writer)

    async def _hand_on(self, arriving: ArrivingBlock) -> None:
        """Send to the next of the chain what has come, as it comes and as that one takes it."""
        to, *chain = arriving.push.chain
        push, body, sent = arriving.push, arriving.body, 0
        while not arriving.is_lost and sent < push.size_bytes:
            if sent == len(body):
                arriving.grown.clear()
                await arriving.grown.wait()
                continue
            data = bytes(body[sent : sent + SLICE_BYTES])
            slice_ = BlockPush(
                push.number, push.writer, push.block, push.size_bytes, push.digest, sent, data,
                tuple(chain),
            )  # fmt: skip
            await self._sender.send_paced(slice_, to)
            sent += len(data)

    async def _keep(self, arriving: ArrivingBlock) -> None:
        push = arriving.push
        try:
            await self._store.put(push.block, arriving.body, push.digest)
        except BlockRefused as refused:
            self._counts[f"blocks_refused/{refused.reason}"] += 1
            self._sender.send(BlockStored(push.number, refused.reason), push.writer)
            return
        finally:
            self._keeping -= 1
        self._sender.send(BlockStored(push.number), push.writer)

    # Giving out

    def fetch(self, fetch: BlockFetch, peer: NodeId) -> None:
        """Send what is asked for."""
        if self._serving >= SERVED_MAX:
            self._counts["blocks_refused/busy"] += 1
            self._sender.send(BlockSlice(fetch.number, fetch.offset, b"", BUSY), peer)
            return
        self._serving += 1
        self._tasks.start("block-serve", partial(self._serve, fetch, peer))

    async def _serve(self, fetch: BlockFetch, peer: NodeId) -> None:
        try:
            body = await self._store.read(fetch.block)
            part = memoryview(body)[fetch.offset : fetch.offset + fetch.size_bytes]
            for at in range(0, len(part), SLICE_BYTES):
                data = bytes(part[at : at + SLICE_BYTES])
                slice_ = BlockSlice(fetch.number, fetch.offset + at, data)
                await self._sender.send_paced(slice_, peer)
            self._counts["blocks/served"] += 1
        except BlockRefused as refused:
            self._sender.send(BlockSlice(fetch.number, fetch.offset, b"", refused.reason), peer)
        finally:
            self._serving -= 1

    def ask(self, ask: BlockAsk, peer: NodeId) -> None:
        """Tell which blocks of some files are here."""
        self._sender.send(self.held(ask.number, ask.files), peer)

    def held(self, number: int, files: Collection[bytes]) -> BlocksHeld:
        """Return which blocks of these files are here."""
        store = self._store
        held = tuple(store.held(file) for file in files)
        return BlocksHeld(number, held, store.used_bytes, store.bytes_max)
