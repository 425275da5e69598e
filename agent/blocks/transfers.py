"""Takes blocks to their owners, and fetches them from whoever has them.

A write needs most owners of a block's record to have its body on the disk, as a write of a record
does. The body goes along the owners (``block_server.py``): it leaves this node once. Those who have
not answered after a moment get it from here, each alone, since one of the chain may have ended.
Once there are enough the rest is waited for only a little; what they miss, they fetch themselves.
"""

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import partial

from agent.blocks.block_refused import FULL, MISSING, WORDS, BlockRefused
from agent.blocks.block_store import BlockStore
from agent.blocks.frame_sender import FrameSender
from agent.exits import UNHEALTHY, AgentError
from agent.loop import watched
from agent.loop.rpc import PendingReplies
from agent.runtime.driver import Driver
from gossip.bodies.block_limits import FILES_ASKED_MAX, SLICE_BYTES
from gossip.bodies.file_records import BlockName, BlockRecord, digest_of
from gossip.bodies.messages import (
    BlockAsk,
    BlockFetch,
    BlockPush,
    BlocksHeld,
    BlockSlice,
    BlockStored,
)
from gossip.core.ids import NodeId
from gossip.kv.joint_quorum import JointQuorum

CHAIN_S = 3.0
"""Who has not answered then is sent the block once more, alone."""
ALONE_S = 6.0
LAG_S = 1.0
"""So long the last owners are waited for when there are enough."""
STORE_S = 30.0
AGAIN_S = 0.3
FETCH_IDLE_S, FETCH_S = 3.0, 60.0
"""So long the next part of a body is waited for, and so long all of it."""
ASK_S, ASK_AGAIN_S = 2.0, 0.5


class PendingPush:
    """A block on its way to its owners."""

    def __init__(self) -> None:
        self.stored: set[NodeId] = set()
        self.refused: dict[NodeId, str] = {}
        self.changed = asyncio.Event()

    def answer(self, node: NodeId, reason: str) -> None:
        """Note what became of it at one of them."""
        if reason:
            self.refused[node] = reason
        else:
            self.refused.pop(node, None)
            self.stored.add(node)
        self.changed.set()

    def answered(self) -> set[NodeId]:
        """Return who has said anything."""
        return self.stored | self.refused.keys()

    async def until(self, is_enough: Callable[[], bool], timeout_s: float) -> None:
        """Wait until something holds, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not is_enough():
                    self.changed.clear()
                    await self.changed.wait()


class PendingFetch:
    """A body that was asked for, as far as it has come."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.reason = ""
        self.changed = asyncio.Event()

    async def until(self, size_bytes: int) -> None:
        """Wait until so much is here, or it ended. Raises TimeoutError when nothing comes."""
        while len(self.body) < size_bytes and not self.reason:
            self.changed.clear()
            async with asyncio.timeout(FETCH_IDLE_S):
                await self.changed.wait()

    def add(self, arrived: BlockSlice) -> None:
        """Take in the next slice; one that is not the next ends it."""
        if not arrived.reason and arrived.offset == len(self.body):
            self.body += arrived.data
        else:
            self.reason = arrived.reason or MISSING
        self.changed.set()


class Transfers:
    """Moves bodies between this node and others."""

    def __init__(
        self, driver: Driver, store: BlockStore, sender: FrameSender, counts: Counter[str]
    ) -> None:
        self._node, self._state = driver.node, driver.node.state
        self._me = driver.node.settings.me
        self._store, self._sender, self._counts = store, sender, counts
        self._numbers = itertools.count(secrets.randbits(48))
        self._pushes: dict[int, PendingPush] = {}
        self._fetches: dict[tuple[NodeId, int], PendingFetch] = {}
        self._asks: PendingReplies[BlocksHeld] = PendingReplies()
        self._tasks = watched.TaskSet()

    async def stop(self) -> None:
        """Send nothing any more."""
        await self._tasks.stop()

    def stored(self, message: BlockStored, peer: NodeId) -> None:
        """Take in what became of a block at an owner."""
        if (push := self._pushes.get(message.number)) is not None:
            push.answer(peer, message.reason)

    def arrived(self, message: BlockSlice, peer: NodeId) -> None:
        """Take in a part of what was fetched."""
        if (fetch := self._fetches.get((peer, message.number))) is not None:
            fetch.add(message)

    def told(self, message: BlocksHeld, peer: NodeId) -> None:
        """Take in which blocks a member has."""
        self._asks.receive(peer, message.number, message)

    # To others

    async def store(self, name: BlockName, body: bytes, digest: bytes) -> None:
        """Have a block on the disks of most of its owners. Raises AgentError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + STORE_S
        push, numbers = PendingPush(), list[int]()
        try:
            while True:
                # Each attempt has its number: slices of an earlier one may still be under way.
                numbers.append(next(self._numbers))
                self._pushes[numbers[-1]] = push
                ownership = self._state.registry.ownership_of(name.key)
                enough = JointQuorum.of_write(ownership, None)
                owners = self._node.swim.reachable_first(ownership.holders)
                is_first = len(numbers) == 1
                lacking = self._begin(push, (name, body, digest), owners)
                chains = [lacking] if is_first and lacking else [[node] for node in lacking]
                sending = [
                    self._send_along(numbers[-1], each, name, body, digest) for each in chains
                ]
                await self._until_stored(push, enough, owners, CHAIN_S if is_first else ALONE_S)
                if enough.is_met(push.stored):
                    return
                for task in sending:
                    task.cancel()
                full = {node for node, why in push.refused.items() if why == FULL}
                if loop.time() > until or not enough.is_met(set(owners) - full):
                    raise _not_stored(push, enough)
                await asyncio.sleep(AGAIN_S)
        finally:
            for number in numbers:
                del self._pushes[number]

    async def _until_stored(
        self, push: PendingPush, enough: JointQuorum, owners: Collection[NodeId], timeout_s: float
    ) -> None:
        await push.until(
            lambda: enough.is_met(push.stored) or push.answered().issuperset(owners), timeout_s
        )
        if enough.is_met(push.stored):
            there = {each for each in owners if not self._node.swim.is_gone(each)}
            await push.until(lambda: push.answered() >= there, LAG_S)

    def _begin(
        self, push: PendingPush, block: tuple[BlockName, bytes, bytes], owners: Iterable[NodeId]
    ) -> list[NodeId]:
        """Keep a block here, if we are an owner; return who else is to get it."""
        lacking = [node for node in owners if node not in push.stored]
        for node in lacking:
            push.refused.pop(node, None)
        if self._me in lacking:
            lacking.remove(self._me)
            self._tasks.start("block-keep", partial(self._keep, push, *block))
        return lacking

    def _send_along(
        self, number: int, chain: list[NodeId], name: BlockName, body: bytes, digest: bytes
    ) -> asyncio.Task[None]:
        work = partial(self._push, number, chain, name, body, digest)
        return self._tasks.start("block-push", work)

    async def _keep(self, push: PendingPush, name: BlockName, body: bytes, digest: bytes) -> None:
        try:
            await self._store.put(name, body, digest)
        except BlockRefused as refused:
            push.answer(self._me, refused.reason)
            return
        push.answer(self._me, "")

    async def _push(
        self, number: int, chain: list[NodeId], name: BlockName, body: bytes, digest: bytes
    ) -> None:
        first, *rest = chain
        for at in range(0, len(body), SLICE_BYTES):
            data = body[at : at + SLICE_BYTES]
            slice_ = BlockPush(number, self._me, name, len(body), digest, at, data, tuple(rest))
            await self._sender.send_paced(slice_, first)
        self._counts["blocks/pushed"] += 1

    # From others

    async def fetch(self, node: NodeId, name: BlockName, size_bytes: int) -> bytes:
        """Return a body of this size that a member has. Raises BlockRefused."""
        number = next(self._numbers)
        fetch = self._fetches[node, number] = PendingFetch()
        try:
            self._sender.send(BlockFetch(number, name, 0, size_bytes), node)
            async with asyncio.timeout(FETCH_S):
                await fetch.until(size_bytes)
        except TimeoutError:
            raise BlockRefused(MISSING, "no answer in time") from None
        finally:
            del self._fetches[node, number]
        if fetch.reason or len(fetch.body) != size_bytes:
            raise BlockRefused(fetch.reason or MISSING)
        return bytes(fetch.body)

    async def body(
        self,
        name: BlockName,
        record: BlockRecord,
        offset: int = 0,
        end: int | None = None,
        *,
        is_own: bool = True,
    ) -> bytes:
        """Return a part of a block, from the nearest that has it. Raises AgentError.

        It is cut from a whole body that fits the record, wherever that comes from: a member may
        have put another one here, or give one out. ``is_own``: also from this node itself.
        """
        end = record.size_bytes if end is None else end
        if is_own and name in self._store:
            with suppress(BlockRefused):
                return (await self._store.read(name, record.digest))[offset:end]
        for node in self._likely(name):
            try:
                body = await self.fetch(node, name, record.size_bytes)
            except BlockRefused:
                self._counts["blocks/passed_over"] += 1
                continue
            if await asyncio.to_thread(digest_of, body) != record.digest:
                self._counts["blocks_dropped/forged"] += 1
                continue
            self._counts["blocks/fetched"] += 1
            return body[offset:end]
        raise AgentError(
            f"block {name.number} of the file is nowhere to be had just now",
            "`covey file stat` shows who has which blocks; try again when they are back",
            UNHEALTHY,
        )

    def _likely(self, name: BlockName) -> list[NodeId]:
        """Return all others, the owners of a block first and of these the nearest."""
        registry, swim = self._state.registry, self._node.swim
        owners = swim.reachable_first(registry.ownership_of(name.key).holders)
        others = [node for node in swim.reachable_first(registry.ids()) if not swim.is_gone(node)]
        return [node for node in dict.fromkeys([*owners, *others]) if node != self._me]

    async def ask(self, node: NodeId, files: Collection[bytes]) -> BlocksHeld | None:
        """Return which blocks of some files a member has; None when it does not say."""
        assert len(files) <= FILES_ASKED_MAX, "one question is about so many"
        number = next(self._numbers)
        question = BlockAsk(number, tuple(files))
        send = partial(self._sender.send, question, node)
        try:
            told = await self._asks.request(node, number, send, ASK_S, ASK_AGAIN_S)
        except TimeoutError:
            return None
        return told if len(told.held) == len(files) else None


def _not_stored(push: PendingPush, enough: JointQuorum) -> AgentError:
    count, needed = enough.progress(push.stored)
    why = sorted({WORDS.get(reason, "refused it") for reason in push.refused.values()})
    told = f"one of the others {' or '.join(why)}" if why else "the others did not answer"
    return AgentError(
        f"only {count} of {needed} owners needed have a block on disk: {told}; "
        "nothing of the file is visible",
        "free some room or wait until more devices are back; the same command goes on from there",
        UNHEALTHY,
    )
