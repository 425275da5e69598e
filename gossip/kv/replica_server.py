"""Answers what other nodes ask of this replica.

A question is answered only if asker and holder agree on the partition's owners (see
``RegistrySync.agrees``), and the answer leaves only when everything that it reveals is on disk.
Questions of this node to itself take the same way.
"""

from gossip.core.errors import RemoteError
from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.limits import EXCHANGE_BYTES_MAX, PAGE_ENTRIES_MAX
from gossip.kv.messages import (
    BUSY,
    FULL,
    INCOMPLETE,
    INVALID,
    NOT_OWNER,
    DigestReply,
    DigestRequest,
    Fetch,
    Fetched,
    KeyPage,
    KeyPageRequest,
    Ready,
    ReadyReply,
    StatesSynced,
    Store,
    Stored,
    SyncStart,
    SyncStarted,
    SyncStates,
)
from gossip.kv.parts import KvParts
from gossip.kv.records import KeyState
from gossip.registry.ownership import Stage


class WrongPartition(RemoteError):
    """A frame about a partition that cannot be."""

    label = "wrongpartition"


class ReplicaServer:
    """Answers what other nodes ask of this node's copy."""

    def __init__(self, parts: KvParts) -> None:
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._outbound = parts.outbound
        self._transfers = parts.transfers

    def ready(self, message: Ready, peer: NodeId, now: Instant) -> None:
        """Say that we are there."""
        del now
        is_full = self._replica.is_held_back or not self._replica.takes_puts
        self._outbound.send(ReadyReply(message.number, is_full), peer)

    def store(self, message: Store, peer: NodeId, now: Instant) -> None:
        """Merge a key's state; say so when it is on disk."""
        partition = self._registry_sync.registry.partition_of(message.key)
        if not self._registry_sync.agrees(message, partition, peer, now):
            return
        if self._outbound.me not in self._registry_sync.registry.ownership(partition).holders:
            self._registry_sync.refuse(message, peer, NOT_OWNER)
            return
        if message.is_put and not self._replica.takes_puts:
            self._outbound.counts["puts_refused/disk"] += 1
            self._registry_sync.refuse(message, peer, FULL)
            return
        self._replica.merge(partition, message.key, message.state, now)
        token = self._replica.token(partition)
        if message.fsync:
            self._outbound.send_synced(Stored(message.number, synced=True), peer, token)
        else:
            self._outbound.send(Stored(message.number), peer, token)

    def fetch(self, message: Fetch, peer: NodeId, now: Instant) -> None:
        """Answer with a key's state, if our copy is good enough for that."""
        registry = self._registry_sync.registry
        partition = registry.partition_of(message.key)
        if not self._registry_sync.agrees(message, partition, peer, now):
            return
        if not self._replica.may_answer(partition, registry):
            self._registry_sync.refuse(message, peer, INCOMPLETE)
            return
        state = self._replica.answer(partition, message.key, message.asked)
        token = self._replica.token(partition)
        self._outbound.send(Fetched(message.number, state), peer, token)

    def survey(self, message: DigestRequest, peer: NodeId, now: Instant) -> None:
        """Answer with the partitions that differ here."""
        registry = self._registry_sync.registry
        if message.epoch > registry.epoch:
            self._registry_sync.hold(message, peer, now)
            return
        differing = tuple(
            partition
            for partition, digest, clock_mark in message.marks
            if self._known(partition)
            and self._outbound.me in registry.ownership(partition).holders
            and message.epoch >= registry.ownership(partition).since
            and (
                digest != self._replica.digest(partition)
                or clock_mark != self._replica.clock_mark(partition)
            )
        )
        self._outbound.send(DigestReply(message.number, differing), peer)

    def compare(self, message: SyncStart, peer: NodeId, now: Instant) -> None:
        """Say whether a partition is the same here, and what our clock covers."""
        if not self._may_compare(message, peer, now):
            return
        replica, partition = self._replica, message.partition
        same = message.digest == replica.digest(partition)
        answer = SyncStarted(
            message.number,
            same,
            replica.copy(partition),
            replica.coverage(partition),
            self._outbound.life,
            () if same else replica.leaves(partition),
        )
        self._outbound.send(answer, peer, replica.token(partition))

    def page(self, message: KeyPageRequest, peer: NodeId, now: Instant) -> None:
        """Name a partition's keys and live dots, a page at a time."""
        if not self._may_compare(message, peer, now):
            return
        partition = message.partition
        if self._is_moving(partition) and not self._transfers.may_serve(peer, now):
            self._registry_sync.refuse(message, peer, BUSY)
            return
        found = self._replica.scan_part(partition, message.leaves, message.after, PAGE_ENTRIES_MAX)
        horizon = found[-1][0] if len(found) == PAGE_ENTRIES_MAX else ""
        entries = tuple((key, tuple(v.dot for v in record.live)) for key, record in found)
        token = self._replica.token(partition)
        self._outbound.send(KeyPage(message.number, entries, horizon), peer, token)

    def _is_moving(self, partition: int) -> bool:
        return self._registry_sync.registry.ownership(partition).stage is not Stage.SETTLED

    def exchange(self, message: SyncStates, peer: NodeId, now: Instant) -> None:
        """Merge states of keys and answer with ours, vouching for what the asker holds."""
        if not self._may_compare(message, peer, now):
            return
        partition = message.partition
        if self._is_moving(partition) and not self._transfers.may_serve(peer, now):
            self._registry_sync.refuse(message, peer, BUSY)
            return
        registry = self._registry_sync.registry
        holds = self._outbound.me in registry.ownership(partition).holders
        answers: list[tuple[str, KeyState]] = []
        size = 0
        for key, state in message.states:
            if not registry.may_lie_in(key, partition):
                raise WrongPartition(f"key {key!r} does not belong to partition {partition}")
            if holds and self._replica.has_room_for(partition, key, state):
                self._replica.merge(partition, key, state, now)
            # A former owner only gives: what it took in now, it would have to hand on again.
            mine = self._replica.answer(partition, key, state.dots())
            answers.append((key, mine))
            size += mine.size_bytes()
            if size > EXCHANGE_BYTES_MAX:
                break
        self._transfers.outgoing.add(size, now)
        token = self._replica.token(partition)
        self._outbound.send(StatesSynced(message.number, tuple(answers)), peer, token)

    def _may_compare(
        self, message: SyncStart | KeyPageRequest | SyncStates, peer: NodeId, now: Instant
    ) -> bool:
        """Comparisons are under the same placement, and one life of ours answers all of one."""
        if not self._known(message.partition) or not self._lives(message):
            self._registry_sync.refuse(message, peer, INVALID)
            return False
        return self._registry_sync.agrees(message, message.partition, peer, now)

    def _lives(self, message: SyncStart | KeyPageRequest | SyncStates) -> bool:
        """Tell whether it was this life of ours that the pass was begun with."""
        return isinstance(message, SyncStart) or message.life == self._outbound.life

    def _known(self, partition: int) -> bool:
        return self._registry_sync.registry.has(partition)
