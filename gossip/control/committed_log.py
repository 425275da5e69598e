"""The committed entries and snapshots that a voter hands to those who only follow.

All other nodes hold a copy of the state, which they pull from whichever voter they reach: committed
entries never change, so it does not matter which. A copy that has everything waits at its voter for
what comes next, so that news is there at once and an idle copy costs two frames a minute. While
one commit follows another, what came within ``GATHER_S`` is handed on together: with a hundred
copies, two frames a copy and a commit were most of what a voter did.
"""

import math
from collections import deque
from collections.abc import Callable

import msgspec

from gossip.consensus.configuration import Configuration, StoreId
from gossip.consensus.messages import Entry, SnapshotMark, entry_bytes
from gossip.consensus.storage import mark_of
from gossip.control.messages import (
    CHUNK_BYTES,
    ENTRIES_PULLED_BYTES,
    ENTRIES_PULLED_MAX,
    ChunkAnswer,
    ChunkAsk,
    Hearsay,
    MarkAnswer,
    PullAnswer,
    PullAsk,
    RedirectAnswer,
    RedirectReason,
)
from gossip.control.outbound import ControlOutbound
from gossip.control.state_machine import ControlState
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

KEPT_ENTRIES_MAX = 4_096
KEPT_BYTES_MAX = 4 * 2**20
WAITING_MAX = 1_000
GATHER_S = 0.1
"""How far apart copies are told of news; the first after a rest is told at once."""


class WaitingPull(msgspec.Struct, frozen=True):
    """A copy that has everything, and waits for more."""

    peer: NodeId
    number: int
    after: int
    until: Instant


class LogState(msgspec.Struct, frozen=True):
    """Where the log of this node stands."""

    generation: int
    term: int
    configuration: Configuration
    configuration_index: int
    hearsay: Hearsay
    origin: StoreId = 0


class CommittedLog:
    """Keeps what was applied here last, and answers those who pull."""

    def __init__(
        self,
        state: Callable[[], ControlState],
        standing: Callable[[], LogState],
        outbound: ControlOutbound,
    ) -> None:
        self._state = state
        self._standing = standing
        self._outbound = outbound
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._floor = 0
        """All entries behind it are here."""
        self._waiting: dict[NodeId, WaitingPull] = {}
        self._told_at: Instant = -math.inf
        """When those who waited were told of news last, and up to which index."""
        self._told = 0
        self._snapshot: tuple[SnapshotMark, bytes] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def applied(self, entries: tuple[Entry, ...], now: Instant) -> None:
        """These entries were applied; tell who waits for them, now or soon."""
        assert not entries or entries[0].index > self._floor, "what was handed on is over"
        self._entries.extend(entries)
        self._bytes += sum(entry_bytes(entry) for entry in entries)
        while len(self._entries) > KEPT_ENTRIES_MAX or self._bytes > KEPT_BYTES_MAX:
            oldest = self._entries.popleft()
            assert oldest.index > self._floor, "entries leave in their order"
            self._bytes -= entry_bytes(oldest)
            self._floor = oldest.index
        if now >= self._told_at + GATHER_S:
            self._tell(now)

    def _tell(self, now: Instant) -> None:
        """Hand on to all who wait what has been gathered."""
        assert self._told <= self._state().index, "nobody is told what was not applied"
        self._told_at, self._told = now, self._state().index
        waiting, self._waiting = self._waiting, {}
        for pull in waiting.values():
            self._answer(pull, now)

    def replaced(self, index: int) -> None:
        """A snapshot has taken the place of the state, or the copy begins here."""
        self._entries.clear()
        self._bytes, self._floor, self._told = 0, index, index

    def pull(self, number: int, ask: PullAsk, peer: NodeId, now: Instant) -> None:
        """Send a copy what it lacks, or let it wait for that."""
        is_theirs = ask.generation in (0, self._standing().generation)
        after = ask.after if is_theirs and ask.generation else 0
        self._answer(WaitingPull(peer, number, after, now + ask.wait_ms / 1000), now)

    def _answer(self, pull: WaitingPull, now: Instant) -> None:
        standing = self._standing()
        applied = self._state().index
        if pull.after > applied:
            # It has more than we have: somebody else knows better.
            behind = RedirectAnswer(RedirectReason.BUSY, standing.hearsay)
            self._outbound.answer(pull.number, behind, pull.peer)
        elif pull.after < self._floor or (not pull.after and applied):
            mark = MarkAnswer(standing.generation, self._made()[0], standing.origin)
            self._outbound.answer(pull.number, mark, pull.peer)
        elif self._is_due(pull, now) or len(self._waiting) >= WAITING_MAX:
            lacking = self._behind(pull.after)
            answer = PullAnswer(standing.generation, lacking, standing.hearsay, standing.origin)
            self._outbound.answer(pull.number, answer, pull.peer)
        else:
            self._waiting[pull.peer] = pull

    def _is_due(self, pull: WaitingPull, now: Instant) -> bool:
        """Tell whether a copy is answered now: others were told what it lacks, or it is time."""
        return pull.after < self._told or pull.until <= now

    def _behind(self, after: int) -> tuple[Entry, ...]:
        assert after >= self._floor, "a copy that lacks what is not kept takes a snapshot"
        found: list[Entry] = []
        size = 0
        if not self._entries:
            return ()
        skipped = after - self._entries[0].index + 1
        for place in range(max(0, skipped), len(self._entries)):
            entry = self._entries[place]
            size += entry_bytes(entry)
            if found and (len(found) == ENTRIES_PULLED_MAX or size > ENTRIES_PULLED_BYTES):
                break
            found.append(entry)
        return tuple(found)

    def _made(self) -> tuple[SnapshotMark, bytes]:
        """Return a snapshot from which the entries that are kept go on."""
        if self._snapshot is None or self._snapshot[0].index < self._floor:
            standing, state = self._standing(), self._state()
            data = state.snapshot()
            effective = (standing.configuration_index, standing.configuration)
            mark = mark_of(data, state.index, standing.term, effective, CHUNK_BYTES)
            self._snapshot = (mark, data)
        return self._snapshot

    def chunk(self, number: int, ask: ChunkAsk, peer: NodeId) -> None:
        """Send one chunk of the snapshot that was named to a copy."""
        known = self._snapshot
        if known is None or known[0].index != ask.index or ask.chunk >= known[0].chunks:
            gone = RedirectAnswer(RedirectReason.GONE, self._standing().hearsay)
            self._outbound.answer(number, gone, peer)
            return
        start = ask.chunk * CHUNK_BYTES
        data = known[1][start : start + CHUNK_BYTES]
        self._outbound.answer(number, ChunkAnswer(ask.index, ask.chunk, data), peer)

    def wake(self, now: Instant) -> None:
        """Tell what was gathered, and answer who has waited long enough: that nothing came, too."""
        if self._has_gathered and now >= self._told_at + GATHER_S:
            self._tell(now)
        for pull in [each for each in self._waiting.values() if each.until <= now]:
            del self._waiting[pull.peer]
            self._answer(pull, now)

    def deadline(self) -> Instant | None:
        """Return when there is something to tell, or somebody has waited long enough."""
        if not self._waiting:
            return None
        if self._has_gathered:
            return self._told_at + GATHER_S
        return min(each.until for each in self._waiting.values())

    @property
    def _has_gathered(self) -> bool:
        return bool(self._waiting) and self._told < self._state().index
