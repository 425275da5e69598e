"""How the shared keys stand at every node: asked of all that are there, and told when others ask.

Each counts its own: keys, bytes, what is to be compared, what comparisons found. Who owns what, and
whose owners are away, follows from the registry and from what the asker believes of the members;
that is for people alone. Keys are counted by partition, so that a key with three copies can be
counted once.

Counting goes through an index of all keys, a partition at a time and in slices, and is done once
for all who ask within a second, or longer where counting takes long.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from agent.cluster.kv_messages import (
    PEERS_MAX,
    STATS_CODEC,
    ComparisonView,
    KvStats,
    KvStatsRequest,
    SpaceUse,
)
from agent.exits import AgentError
from agent.loop import watched
from agent.loop.rpc import PendingReplies
from agent.loop.slices import collect
from agent.runtime.driver import Driver
from gossip.core.errors import Malformed
from gossip.core.ids import NodeId
from gossip.kv.limits import QUOTAS_MAX
from gossip.kv.plane import KvPlane
from gossip.kv.quotas import Use, Uses
from gossip.registry.placement import PARTITIONS_MAX
from gossip.registry.registry import Registry

ANSWERS_S, AGAIN_S = 5.0, 1.0
"""Counting a million keys takes a slow device seconds."""
FRESH_S, FRESH_S_MAX = 1.0, 60.0
COUNTING_SHARE = 0.05
"""So much of its time a node counts at most, however many ask, unless that takes seconds."""
ANSWERS_MAX = 64
"""So many who ask are answered at a time; of more, the question is counted and forgotten."""


def count_incomplete(state: KvPlane) -> int:
    """Return of how many partitions a node is one of the readers, and may not answer yet."""
    me, registry = state.outbound.me, state.registry
    return sum(
        me in ownership.readers and not state.replica.is_complete(partition, registry)
        for partition, ownership in registry.ownerships
    )


class KeyCounter(Protocol):
    """What is on the disk of the shared keys."""

    def count_keys(self, partition: int) -> int:
        """Return how many keys of a partition have a value here."""

    def count_space(self, partition: int, name: str) -> tuple[int, int]:
        """Return how many keys of a space have a value in a partition here, and their bytes."""

    def size_bytes(self) -> int:
        """Return how much of the file is in use."""


class KvStatsReport(NamedTuple):
    """What all who were asked have told; who is in ``asked`` alone was silent."""

    asked: Collection[NodeId]
    told: Mapping[NodeId, KvStats]

    def keys(self) -> dict[int, int]:
        """Return how many keys each partition has, by who has most of them."""
        most: dict[int, int] = {}
        for stats in self.told.values():
            for partition, count in stats.keys:
                most[partition] = max(count, most.get(partition, 0))
        return most

    def uses(self) -> dict[NodeId, Uses]:
        """Return what each node holds of the spaces that it knows to have a quota."""
        return {
            node: {
                use.name: {part: Use(keys, size) for part, keys, size in use.parts}
                for use in stats.uses
            }
            for node, stats in self.told.items()
        }


class KvSurvey:
    """Asks all members how their shared keys stand, and answers when others ask."""

    def __init__(self, driver: Driver, counter: KeyCounter, uptime_s: Callable[[], float]) -> None:
        self._driver, self._node, self._state = driver, driver.node, driver.node.state
        self._me = driver.node.settings.me
        self._keys, self._uptime_s = counter, uptime_s
        self._numbers = itertools.count(secrets.randbits(32))
        self._replies: PendingReplies[KvStats] = PendingReplies()
        self._answers = watched.TaskSet()
        self._counting = asyncio.Lock()
        self._latest: KvStats | None = None
        self._fresh_until = 0.0

    async def report(self) -> KvStatsReport:
        """Ask everybody in the registry who is there. Raises AgentError for our own disk."""
        members = self._node.swim.members
        nodes = self._state.registry.ids()
        asked = [n for n in nodes if (one := members.get(n)) is not None and one.is_live]
        others = [node for node in asked if node != self._me]
        own, *told = await asyncio.gather(self.own(), *map(self._stats_of, others))
        answers = {n: stats for n, stats in zip(others, told, strict=True) if stats is not None}
        assert own is not None, "this node answers itself"
        return KvStatsReport(nodes, {self._me: own, **answers})

    async def _stats_of(self, node: NodeId) -> KvStats | None:
        """Return how a node's keys stand; None when it does not say so in time."""
        number = next(self._numbers)
        question = STATS_CODEC.encode(KvStatsRequest(number))
        send = partial(self._driver.send_frame, question, node)
        try:
            return await self._replies.request(node, number, send, ANSWERS_S, AGAIN_S)
        except TimeoutError:
            return None

    async def own(self) -> KvStats:
        """Return how this node's keys stand, not much older than a second. Raises AgentError."""
        loop = asyncio.get_running_loop()
        async with self._counting:
            if self._latest is None or loop.time() >= self._fresh_until:
                began = loop.time()
                self._latest = await self._count()
                took_s = loop.time() - began
                fresh_s = min(max(FRESH_S, took_s / COUNTING_SHARE), FRESH_S_MAX)
                self._fresh_until = loop.time() + fresh_s
            return self._latest

    async def _count(self) -> KvStats:
        state, registry = self._state, self._state.registry
        numbers = [partition for partition, _ in registry.ownerships]
        counted = await collect(map(self._keys.count_keys, numbers))
        uses = await self._uses(registry)
        replica, counts = state.replica, state.counts
        return KvStats(
            0,
            registry.epoch,
            self._uptime_s(),
            self._keys.size_bytes(),
            tuple(each for each in zip(numbers, counted, strict=True) if each[1]),
            count_incomplete(state),
            len(replica.damaged),
            replica.is_held_back,
            state.repair.running(),
            counts["partition_syncs/differing"],
            counts["partition_syncs/failed"],
            counts["reads/diverged"],
            counts["repairs/keys"] + counts["repairs/reads"],
            self._comparisons(),
            state.transfers.incoming.total,
            state.transfers.incoming.per_s(self._driver.now()),
            state.transfers.outgoing.total,
            state.sync_sessions.transferring,
            state.sync_sessions.queued,
            state.handoff.unfinished(),
            replica.takes_puts,
            uses,
        )

    async def _uses(self, registry: Registry) -> tuple[SpaceUse, ...]:
        """Count what is here of each space that has a quota, in the partitions that we own."""
        own = [number for number, each in registry.ownerships if self._me in each.holders]
        uses = []
        for name in self._state.writes.quotas.names()[:QUOTAS_MAX]:
            counted = await collect(self._keys.count_space(number, name) for number in own)
            parts = ((number, *use) for number, use in zip(own, counted, strict=True) if use[0])
            uses.append(SpaceUse(name, tuple(parts)[:PARTITIONS_MAX]))
        return tuple(uses)

    def _comparisons(self) -> tuple[ComparisonView, ...]:
        repair, now = self._state.repair, self._driver.now()
        waiting, at = repair.waiting(), repair.compared_at
        return tuple(
            ComparisonView(
                peer, max(0.0, round(now - at[peer], 3)) if peer in at else None, waiting[peer]
            )
            for peer in repair.peers()[:PEERS_MAX]
        )

    def receive_frame(self, data: bytes, peer: NodeId) -> None:
        """Take in a member's frame."""
        try:
            message = STATS_CODEC.decode_known(data)
        except Malformed:
            self._driver.counts["frames_dropped/malformed"] += 1
            return
        match message:
            case KvStatsRequest(number):
                self._begin_answer(number, peer)
            case KvStats(number):
                self._replies.receive(peer, number, message)

    def _begin_answer(self, number: int, peer: NodeId) -> None:
        """Answer a member as soon as the keys are counted."""
        if len(self._answers) >= ANSWERS_MAX:
            self._driver.counts["frames_dropped/questions_too_many"] += 1
            return
        self._answers.start("kv-stats", partial(self._answer, number, peer))

    async def _answer(self, number: int, peer: NodeId) -> None:
        try:
            stats = msgspec.structs.replace(await self.own(), number=number)
        except AgentError:  # the disk cannot be read, as the agent tells elsewhere
            self._driver.counts["frames_dropped/unanswerable"] += 1
            return
        self._driver.send_frame(STATS_CODEC.encode(stats), peer)

    async def stop(self) -> None:
        """Answer nobody any more."""
        await self._answers.stop()
