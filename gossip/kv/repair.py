"""When to compare which partition with whom.

Three causes put a pair (partition, peer) on the list: a survey that found a difference; a write
that missed an owner; a hand-over (``handoff.py``). A few pairs are worked on at a time.

A **survey** is one frame with digest and clock mark of all partitions shared with one other
owner; the answer names those that differ. It goes to one peer per interval, in turn, and at
once to a peer that comes back. So an idle covey spends a few hundred bytes a second on
knowing that it is consistent, and needs no list of hints that could overflow or grow stale.
"""

import random
from collections import deque

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.limits import RETRY_S, SESSIONS_MAX, SURVEY_INTERVAL_S, SURVEY_PARTITIONS_MAX
from gossip.kv.messages import DigestReply, DigestRequest
from gossip.kv.outbound import OutboundFrames
from gossip.kv.registry_sync import RegistrySync
from gossip.kv.replica import Replica
from gossip.kv.sync_session import SyncSessions

Pair = tuple[int, NodeId]


class RepairScheduler:
    """Decides which partition to compare with whom, by rounds of digests and what was missed."""

    def __init__(
        self,
        replica: Replica,
        registry_sync: RegistrySync,
        sync_sessions: SyncSessions,
        outbound: OutboundFrames,
        rng: random.Random,
        now: Instant,
    ) -> None:
        self._replica = replica
        self._registry_sync = registry_sync
        self._sync_sessions = sync_sessions
        self._outbound = outbound
        self._rng = rng
        self._wanted: dict[Pair, None] = {}
        self._running: set[Pair] = set()
        self._surveys: dict[int, NodeId] = {}
        self._round: deque[NodeId] = deque()
        # After a start we may have missed writes: go once around quickly.
        self._hurry = True
        self._due = now + rng.uniform(0, RETRY_S)

    def want(self, partition: int, peer: NodeId) -> None:
        """Put a pair on the list."""
        if peer != self._outbound.me and (partition, peer) not in self._running:
            self._wanted[partition, peer] = None

    def is_wanted(self, partition: int) -> bool:
        """Tell whether a pass over this partition is planned or under way."""
        return any(p == partition for p, _ in (*self._wanted, *self._running))

    def work(self, now: Instant) -> None:
        """Begin passes as long as there is room."""
        while self._wanted and len(self._running) < SESSIONS_MAX:
            pair = next(iter(self._wanted))
            del self._wanted[pair]
            self._running.add(pair)
            self._sync_sessions.begin(*pair, now)

    def finished(self, partition: int, peer: NodeId) -> None:
        """A pass is over."""
        self._running.discard((partition, peer))

    def restart(self, changed: set[int]) -> None:
        """The owners of these partitions have changed: what was wanted may be no more."""
        self._wanted = {pair: None for pair in self._wanted if pair[0] not in changed}
        self._surveys.clear()
        self._hurry = True
        self._round.clear()

    def shared(self, peer: NodeId) -> list[int]:
        """Return the partitions that a peer and we own, and that are complete here."""
        registry = self._registry_sync.registry
        return [
            partition
            for partition, ownership in enumerate(registry.table)
            if peer in ownership.holders and self._replica.is_complete(partition, registry)
        ]

    def survey(self, peer: NodeId) -> None:
        """Compare all that is shared with a peer."""
        replica, epoch = self._replica, self._registry_sync.registry.epoch
        shared = self.shared(peer)
        for at in range(0, len(shared), SURVEY_PARTITIONS_MAX):
            chunk = shared[at : at + SURVEY_PARTITIONS_MAX]
            marks = tuple((p, replica.digest(p), replica.clock_mark(p)) for p in chunk)
            number = self._outbound.number()
            self._surveys[number] = peer
            token = max(map(replica.token, chunk))
            self._outbound.send(DigestRequest(number, epoch, marks), peer, token)
            self._outbound.counts["digest_rounds/sent"] += 1

    def surveyed(self, message: DigestReply, peer: NodeId, now: Instant) -> None:
        """A peer has named the partitions that differ."""
        if self._surveys.pop(message.number, None) != peer:
            self._outbound.counts["frames_dropped/unexpected_answer"] += 1
            return
        shared = set(self.shared(peer))
        for partition in message.partitions:
            if partition in shared:
                self.want(partition, peer)
        self.work(now)

    def wake(self, now: Instant) -> None:
        """Survey the next peer when it is time."""
        if now >= self._due:
            self._survey_next()
            pause = RETRY_S if self._hurry else SURVEY_INTERVAL_S
            self._due = now + pause * self._rng.uniform(0.75, 1.25)
        self.work(now)

    def _survey_next(self) -> None:
        if not self._round:
            peers = self._peers()
            self._rng.shuffle(peers)
            self._round.extend(peers)
        if self._round:
            peer = self._round.popleft()
            # A survey that was never answered is forgotten when its peer's turn comes again.
            self._surveys = {n: of for n, of in self._surveys.items() if of != peer}
            self.survey(peer)
        self._hurry = self._hurry and bool(self._round)

    def _peers(self) -> list[NodeId]:
        """Return the nodes that own something together with us."""
        me = self._outbound.me
        table = [each.holders for each in self._registry_sync.registry.table if me in each.holders]
        others = {node for holders in table for node in holders} - {me}
        return sorted(others & self._registry_sync.members)

    def deadline(self) -> Instant:
        """Return when the next survey is due."""
        return self._due
