"""When to compare which partition with whom.

Three causes put a pair (partition, peer) on the list: a survey that found a difference; a write
that missed an owner; a hand-off (``handoff.py``). A few pairs are worked on at a time.

A **survey** is one hash over digests and clock marks of all partitions shared with one other owner;
where the other has another hash, it tells one for each group of them, and digest and clock mark of
each partition of the groups that differ follow; the answer names those that do, and a pass finds
which of their keys (``leaves.py``). It goes to one peer per interval, in turn, and at once to a
peer that comes back. So an idle covey spends some ten bytes a second on knowing that it is
consistent, and what no hint named (``hints.py``) is found all the same.

A version before the hash does not answer it: who has not when the next peer has its turn, and
never has since it came, is sent digests and marks after all.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.dots import MARK_BYTES
from gossip.kv.leaves import GROUPS, differing
from gossip.kv.limits import (
    RETRY_S,
    SESSIONS_MAX,
    SPARED_S_MAX,
    SUMMARY_BYTES,
    SUMMARY_GAP_S,
    SURVEY_INTERVAL_S,
    SURVEY_PARTITIONS_MAX,
)
from gossip.kv.messages import DigestReply, DigestRequest, DigestSummary, SummaryReply
from gossip.kv.parts import KvParts
from gossip.kv.sync_session import SyncSessions
from gossip.registry.registry import Registry

Pair = tuple[int, NodeId]


class RepairScheduler:
    """Decides which partition to compare with whom, by rounds of digests and what was missed."""

    def __init__(self, parts: KvParts, sync_sessions: SyncSessions, now: Instant) -> None:
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._sync_sessions = sync_sessions
        self._outbound = parts.outbound
        self._rng = parts.rng
        self._wanted: dict[Pair, None] = {}
        self._running: set[Pair] = set()
        self._passes: Counter[int] = Counter()
        """How many passes over each partition are planned or under way."""
        self._surveys: dict[int, NodeId] = {}
        self._summaries: dict[int, NodeId] = {}
        self._sums_up: set[NodeId] = set()
        """Who has answered a hash, and will do so again."""
        self._answered_at: dict[NodeId, Instant] = {}
        self._held_by: dict[NodeId, list[int]] = {}
        self._held_in: Registry | None = None
        self._round: deque[NodeId] = deque()
        self.began = now
        self.compared_at: dict[NodeId, Instant] = {}
        """When it was last known of each peer whether it holds the same as we do."""
        # After a start we may have missed writes: go once around quickly.
        self._hurry = True
        self._due = now + parts.rng.uniform(0, RETRY_S)
        self._asked_at = now
        self.spares: Callable[[], bool] = lambda: False
        """Whether what only looks after what is sound is to be spared: see ``wake``."""

    def want(self, partition: int, peer: NodeId) -> None:
        """Put a pair on the list."""
        pair = partition, peer
        if peer != self._outbound.me and pair not in self._running and pair not in self._wanted:
            self._wanted[pair] = None
            self._passes[partition] += 1

    def is_wanted(self, partition: int) -> bool:
        """Tell whether a pass over this partition is planned or under way."""
        return self._passes[partition] > 0

    def waiting(self) -> Counter[NodeId]:
        """Return how many partitions are still to be compared with each peer."""
        return Counter(peer for _, peer in self._wanted)

    def running(self) -> int:
        """Return how many passes are under way."""
        return len(self._running)

    def work(self, now: Instant) -> None:
        """Begin passes as long as there is room."""
        while self._wanted and len(self._running) < SESSIONS_MAX:
            pair = next(iter(self._wanted))
            del self._wanted[pair]
            self._running.add(pair)
            self._sync_sessions.begin(*pair, now)

    def finished(self, partition: int, peer: NodeId) -> None:
        """A pass is over."""
        if (partition, peer) in self._running:
            self._running.discard((partition, peer))
            self._passes[partition] -= 1

    def restart(self, changed: set[int]) -> None:
        """The owners of these partitions have changed: what was wanted may be no more."""
        self._wanted = {pair: None for pair in self._wanted if pair[0] not in changed}
        self._passes = Counter(partition for partition, _ in (*self._wanted, *self._running))
        self._answered_at.clear()  # who asked may be gone
        if not changed:
            return
        self._surveys.clear()
        self._summaries.clear()
        self._hurry = True
        self._round.clear()

    def shared(self, peer: NodeId) -> list[int]:
        """Return the partitions that a peer and we own, and that are complete here."""
        registry = self._registry_sync.registry
        return [p for p in self._held(peer) if self._replica.is_complete(p, registry)]

    def _held(self, peer: NodeId) -> list[int]:
        """Return the partitions of which a peer is a holder; looked up once for all peers.

        Where many come at once, this is asked about each of them.
        """
        registry = self._registry_sync.registry
        if self._held_in is not registry:
            self._held_in, self._held_by = registry, {}
            for partition, ownership in registry.ownerships:
                for holder in ownership.holders:
                    self._held_by.setdefault(holder, []).append(partition)
        return self._held_by.get(peer, [])

    def returned(self, peer: NodeId) -> None:
        """A peer is there again, perhaps with another version: compare with it at once."""
        self._sums_up.discard(peer)
        self.survey(peer)

    def survey(self, peer: NodeId) -> None:
        """Compare all that is shared with a peer."""
        if not (shared := self.shared(peer)):
            return
        number, epoch = self._outbound.number(), self._registry_sync.registry.epoch
        self._summaries[number] = peer
        token = max(map(self._replica.token, shared))
        summary = DigestSummary(number, epoch, self._summary(shared))
        self._outbound.send(summary, peer, token)
        self._outbound.counts["digest_rounds/summed up"] += 1

    def _marks(self, partitions: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
        replica = self._replica
        return tuple((p, replica.digest(p), replica.clock_mark(p)) for p in partitions)

    def _summary(self, partitions: Sequence[int]) -> bytes:
        """Return the hash that is the same wherever the same is held of the same partitions."""
        marks = msgspec.msgpack.encode(self._marks(partitions))
        return blake2b(marks, digest_size=SUMMARY_BYTES).digest()

    def summarised(self, message: DigestSummary, peer: NodeId, now: Instant) -> None:
        """Answer whether the same is here of all that a peer and we share."""
        epoch = self._registry_sync.registry.epoch
        if message.epoch > epoch:
            self._registry_sync.hold(message, peer, now)
            return
        # A few bytes cost milliseconds here: nobody asks twice a turn.
        if now - self._answered_at.get(peer, -math.inf) < SUMMARY_GAP_S:
            self._outbound.counts["digest_rounds/asked too often"] += 1
            return
        self._answered_at[peer] = now
        shared = self.shared(peer)
        is_ours = message.epoch == epoch
        same = is_ours and message.summary == self._summary(shared)
        if same:
            self.compared_at[peer] = now
        token = max(map(self._replica.token, shared), default=0)
        groups = self._groups(shared) if is_ours and not same else ()
        self._outbound.send(SummaryReply(message.number, same, groups), peer, token)

    def _groups(self, shared: Sequence[int]) -> tuple[int, ...]:
        """Return one digest for each group of partitions."""
        parts = ([p for p in shared if p % GROUPS == group] for group in range(GROUPS))
        return tuple(int.from_bytes(self._summary(part)[:MARK_BYTES]) for part in parts)

    def compared(self, message: SummaryReply, peer: NodeId, now: Instant) -> None:
        """Say more to a peer that does not hold the same."""
        if self._summaries.pop(message.number, None) != peer:
            self._outbound.counts["frames_dropped/unexpected_answer"] += 1
            return
        self._sums_up.add(peer)
        if message.same:
            self.compared_at[peer] = now
        else:
            self._survey_each(peer, message.groups)

    def _survey_each(self, peer: NodeId, theirs: tuple[int, ...] = ()) -> None:
        """Name what is here of the partitions that are shared with a peer: where groups differ."""
        shared = self.shared(peer)
        if len(theirs) == GROUPS:
            groups = differing(self._groups(shared), theirs)
            # If it came by itself meanwhile, nothing is asked, and the next summary says so.
            shared = [p for p in shared if p % GROUPS in groups]
        epoch = self._registry_sync.registry.epoch
        for at in range(0, len(shared), SURVEY_PARTITIONS_MAX):
            chunk = shared[at : at + SURVEY_PARTITIONS_MAX]
            number = self._outbound.number()
            self._surveys[number] = peer
            token = max(map(self._replica.token, chunk))
            request = DigestRequest(number, epoch, self._marks(chunk))
            self._outbound.send(request, peer, token)
            self._outbound.counts["digest_rounds/sent"] += 1

    def surveyed(self, message: DigestReply, peer: NodeId, now: Instant) -> None:
        """A peer has named the partitions that differ."""
        if self._surveys.pop(message.number, None) != peer:
            self._outbound.counts["frames_dropped/unexpected_answer"] += 1
            return
        self.compared_at[peer] = now
        shared = set(self.shared(peer))
        for partition in message.partitions:
            if partition in shared:
                self.want(partition, peer)
        self.work(now)

    def wake(self, now: Instant) -> None:
        """Survey the next peer when it is time, and say more to who did not answer the last one.

        A device on its battery, or on a link that is paid for, asks seldom; what others ask, what
        is to be repaired and who comes back is seen to all the same.
        """
        if now >= self._due and self._is_spared(now):
            self._outbound.counts["digest_rounds/spared"] += 1
            self._due = now + SURVEY_INTERVAL_S * self._rng.uniform(0.75, 1.25)
        elif now >= self._due:
            self._asked_at = now
            silent = sorted(set(self._summaries.values()) - self._sums_up)
            self._summaries.clear()
            for peer in silent:
                self._survey_each(peer)
            self._survey_next()
            pause = RETRY_S if self._hurry else SURVEY_INTERVAL_S
            self._due = now + pause * self._rng.uniform(0.75, 1.25)
        self.work(now)

    def _is_spared(self, now: Instant) -> bool:
        return not self._hurry and now - self._asked_at < SPARED_S_MAX and self.spares()

    def _survey_next(self) -> None:
        if not self._round:
            peers = self.peers()
            self._rng.shuffle(peers)
            self._round.extend(peers)
        if self._round:
            peer = self._round.popleft()
            # A survey that was never answered is forgotten when its peer's turn comes again.
            self._surveys = {n: of for n, of in self._surveys.items() if of != peer}
            self.survey(peer)
        self._hurry = self._hurry and bool(self._round)

    def peers(self) -> list[NodeId]:
        """Return the nodes that own something together with us."""
        me = self._outbound.me
        every = (each.holders for _, each in self._registry_sync.registry.ownerships)
        others = {node for holders in every if me in holders for node in holders} - {me}
        return sorted(others & self._registry_sync.members)

    def deadline(self) -> Instant:
        """Return when the next survey is due."""
        return self._due
