"""State sync over streams: what updates on packets missed is found here.

Regularly, two members compare what they believe about everybody. So a lost packet never matters for
long, a newcomer knows all at once, and two halves of a split that met again, through one single
greeting, learn of each other as a whole.

Only differences travel (as in scuttlebutt; van Renesse and others, LADIS 2008), and what there is
to compare narrows down in steps, so that a large covey at rest pays no more than a small one::

    Summary     ───▶                  one hash of everything
                ◀───    Outline       the same? then that was all; else a hash for each share
    Digest      ───▶                  the versions in the shares that differ
                ◀───    Difference    what you lack, and what I lack
    Difference  ───▶                  what you lack

No step needs a memory of the one before: each frame says what it takes to answer it, and a lost one
is made good by the next exchange. A difference that does not fit a frame is cut, and the rest
follows in another exchange, soon. How far the other side is believed is in ``merge.py``.

Facts (``facts.py``) travel by exchanges alone. Whoever has learnt some exchanges again soon, with
growing pauses, so that they spread as an epidemic does, and idle members stay idle.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.tuning import FRAME_BYTES_MAX
from gossip.membership.anti_entropy.digest import TableDigest, is_newer
from gossip.membership.anti_entropy.merge import RemoteStateMerge
from gossip.membership.detection.shared_parts import SharedParts
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.facts import FactTable
from gossip.membership.model.members import Member
from gossip.membership.model.messages import (
    BUCKET_HASH_BYTES,
    FRAMES,
    SLEEP_S_MAX,
    VERSIONS_MAX,
    SyncBuckets,
    SyncDelta,
    SyncDigest,
    SyncEntry,
    SyncFrame,
    SyncSummary,
)
from gossip.membership.model.rate_limit import Throttle

WANTED_MAX = 8
MET_MAX = 1024
MEETING_S = 5.0
"""Greetings by the same peer within this time call for one exchange."""
ID_BYTES_MAX = 9
PAGE_BYTES_MAX = FRAME_BYTES_MAX - VERSIONS_MAX * ID_BYTES_MAX - 64
"""What entries may take of a frame, beside everything that is wanted."""


_encoder = msgspec.msgpack.Encoder()


class EpochReported(msgspec.Struct, frozen=True):
    """Told when a peer's placement has another epoch than ours."""

    peer: NodeId
    epoch: int


class StateSync:
    """Manages state syncs: begins them, answers them, and merges what they bring."""

    def __init__(
        self,
        shared: SharedParts,
        updates: MemberUpdates,
        now: Instant,
    ) -> None:
        self.epoch = 0
        self._local = shared.local
        self._members = shared.members
        self._facts = FactTable(
            shared.members, shared.tuning.facts_bytes_max, shared.counts, shared.signatures
        )
        self._table_digest = TableDigest(shared.members, self._facts)
        self._remote_merge = RemoteStateMerge(shared, updates, self._facts)
        self._outbound = shared.outbound
        self._counts = shared.counts
        self._tuning = shared.tuning
        self._rng = shared.rng
        self._wanted: dict[NodeId, None] = {}
        self._met = Throttle(MEETING_S, MET_MAX)
        self._answered = Throttle(shared.tuning.exchange_gap_s / 2, MET_MAX)
        # A newcomer missed updates that others heard: its first exchanges follow each other soon.
        self._pause_s = shared.tuning.exchange_gap_s * (1 + shared.rng.random())
        self._regular_at = now + self._pause_s
        self._hurried = 0
        """So many more exchanges follow each other soon, before the pauses grow."""
        self._wanted_at = now

    def warm_start(self, table: bytes, now: Instant) -> None:
        """Be in the middle of a life in which all know the same; ``table`` is the hash of it."""
        self._table_digest.warm_start(table)
        self._pause_s = self._tuning.exchange_s(len(self._members.live_ids))
        self._regular_at = now + self._rng.random() * self._pause_s

    def publish(self, facts: Mapping[str, str], now: Instant) -> None:
        """Replace our own facts. Raises LimitExceeded; then nothing has changed."""
        self._facts.publish(self._members[self._local.id], facts)
        self.speed_up(now)

    def facts_of(self, node: NodeId) -> dict[str, str]:
        """Return what a listed member published, as far as we know it."""
        member = self._members.get(node)
        facts = None if member is None else self._facts.of(member)
        return {} if facts is None else {**facts.values}

    # When, and with whom.

    def request(self, peer: NodeId, now: Instant) -> None:
        """Exchange states with somebody whom we just met."""
        if self._met.allows(peer, now) and len(self._wanted) < WANTED_MAX:
            self._wanted[peer] = None
            self._wanted_at = max(self._wanted_at, now)

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        return min(self._wanted_at, self._regular_at) if self._wanted else self._regular_at

    def wake(self, now: Instant) -> None:
        """Begin the exchanges that are due."""
        if self._wanted and self._wanted_at <= now:
            peer = next(iter(self._wanted))
            del self._wanted[peer]
            self._begin(peer, now)
        if self._regular_at <= now:
            live = self._members.live_ids
            self._regular_at = now + self._next_pause_s(len(live))
            peers = [node for node in live if node != self._local.id]
            if peers:
                self._begin(self._rng.choice(peers), now)

    def _next_pause_s(self, members: int) -> float:
        if self._hurried:
            self._hurried -= 1
            # Whoever learnt the same at the same time should not go on in step.
            return self._pause_s * (0.75 + self._rng.random() / 2)
        self._pause_s = min(2 * self._pause_s, self._tuning.exchange_s(members))
        return self._pause_s

    def speed_up(self, now: Instant) -> None:
        """Exchange again soon, then with growing pauses: there are facts that others lack.

        Those who know grow several times as many in each round, so half as many rounds as the
        covey has doublings reach nearly all; the growing pauses find the last.
        """
        self._pause_s = self._tuning.exchange_gap_s
        self._hurried = math.ceil(math.log2(max(2, len(self._members.live_ids))) / 2)
        soon_s = self._pause_s * (0.5 + self._rng.random())
        self._regular_at = min(self._regular_at, now + soon_s)

    def _begin(self, peer: NodeId, now: Instant) -> None:
        self._wanted_at = now + self._tuning.exchange_gap_s
        self._counts["state_syncs/begun"] += 1
        self._send(peer, SyncSummary(self._table_digest.table(), self.epoch))

    # Frames.

    def receive(self, frame: SyncFrame, peer: NodeId, now: Instant) -> None:
        """Take in a frame; who asks too often is not answered."""
        if isinstance(frame, SyncDelta):
            self._accept(frame, peer, now)
        elif self._answered.allows((peer, type(frame)), now):
            self._answer(frame, peer, now)
        else:
            self._counts["state_syncs/asked for too often"] += 1

    def _answer(
        self,
        frame: SyncSummary | SyncBuckets | SyncDigest,
        peer: NodeId,
        now: Instant,
    ) -> None:
        match frame:
            case SyncSummary():
                self._counts["state_syncs/answered"] += 1
                self._compare_epochs(frame.epoch, peer)
                table = self._table_digest.table()
                outline = b"" if frame.table == table else self._table_digest.outline()
                self._send(peer, SyncBuckets(table, outline, self.epoch))
            case SyncBuckets():
                self._compare_epochs(frame.epoch, peer)
                self._narrow(frame, peer)
            case SyncDigest():
                self._compare(frame, peer, now)

    def _compare_epochs(self, epoch: int, peer: NodeId) -> None:
        if epoch != self.epoch:
            self._outbound.emit(EpochReported(peer, epoch))

    def _narrow(self, outline: SyncBuckets, peer: NodeId) -> None:
        """Say which versions we have where the outline differs from ours."""
        if len(outline.buckets) % BUCKET_HASH_BYTES:
            self._counts["frames_dropped/malformed"] += 1
            return
        differing = self._table_digest.differing(outline.buckets, outline.table)
        if not differing:
            self._counts["state_syncs/nothing new"] += 1
            return
        self._counts["state_syncs/with differences"] += 1
        count = len(outline.buckets) // BUCKET_HASH_BYTES
        versions = self._table_digest.within(count, differing)
        self._send(peer, SyncDigest(count, differing, tuple(versions)))

    def _compare(self, digest: SyncDigest, peer: NodeId, now: Instant) -> None:
        """Tell what the other side lacks, and ask for what we lack."""
        mine = self._table_digest.versions()
        theirs = {version.member: version for version in digest.versions}
        lacking = [
            version.member
            for version in self._table_digest.within(digest.buckets, digest.differing)
            if is_newer(version, theirs.get(version.member))
        ]
        wanted = [node for node, version in theirs.items() if is_newer(version, mine.get(node))]
        self._send_delta(peer, lacking, tuple(wanted), now)

    def _accept(self, difference: SyncDelta, peer: NodeId, now: Instant) -> None:
        """Take in what we lack, and tell what the other side asked for."""
        self._counts["state_sync_entries/heard"] += len(difference.entries)
        if self._remote_merge.merge(difference.entries, now):
            self.speed_up(now)
        if (difference.is_partial or self._remote_merge.is_partial) and len(
            self._wanted
        ) < WANTED_MAX:
            self._wanted[peer] = None
        if not difference.wanted:
            return
        if self._answered.allows((peer, SyncDelta), now):
            self._send_delta(peer, difference.wanted, (), now)
        else:
            self._counts["state_syncs/asked for too often"] += 1

    def _send_delta(
        self, peer: NodeId, nodes: Iterable[NodeId], wanted: tuple[NodeId, ...], now: Instant
    ) -> None:
        members = [member for node in nodes if (member := self._members.get(node)) is not None]
        entries = self._page([self._entry(member, now) for member in members])
        is_partial = len(entries) < len(members)
        self._counts["state_sync_entries/told"] += len(entries)
        self._send(peer, SyncDelta(tuple(entries), wanted, is_partial))

    def _page(self, entries: Sequence[SyncEntry]) -> list[SyncEntry]:
        """Return as many as fit into a frame: all, or a stretch that begins anywhere."""
        sizes = [len(_encoder.encode(entry)) for entry in entries]
        if sum(sizes) <= PAGE_BYTES_MAX:
            return list(entries)
        # Always the first ones would leave out the last for ever, if the first are refused.
        start = self._rng.randrange(len(entries))
        page, used = [], 0
        for n in (*range(start, len(entries)), *range(start)):
            used += sizes[n]
            if used > PAGE_BYTES_MAX:
                break
            page.append(entries[n])
        return page

    def _entry(self, member: Member, now: Instant) -> SyncEntry:
        return SyncEntry(
            member=member.id,
            boot=member.boot,
            incarnation=member.incarnation,
            state=member.state,
            described=member.described,
            age_s=max(0, int(now - member.changed_at)),
            name=member.says or member.name,
            addresses=member.addresses,
            tags=member.tags,
            facts=self._facts.of(member) if member.is_live else None,
            asleep_s=self._asleep_s(member, now),
            signature=member.signature,
            absence=member.absence,
            announced_s=member.announced_s,
        )

    def _asleep_s(self, member: Member, now: Instant) -> int:
        left_s = max(0, math.ceil((member.asleep_until or now) - now))
        return min(left_s, member.announced_s or SLEEP_S_MAX)

    def _send(self, peer: NodeId, frame: SyncFrame) -> None:
        data = FRAMES.encode(frame)
        assert len(data) <= FRAME_BYTES_MAX, "every kind of frame is bounded"
        self._counts["state_sync_bytes/sent"] += len(data)
        self._outbound.send_frame(peer, data)
