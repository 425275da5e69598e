"""Listing keys across all partitions.

Each node that is needed is asked once, for all the partitions that it shall answer for. A node
answers as far as fits a frame, and says how far that is; the page ends at the smallest such
horizon. Where R owners of a key disagree, that key is read as a key of its own, with repair
(``reads.py``). A partition for which too few answer makes the page "partial": fewer than R owners,
or most of those pending where their word counts.
"""

from collections import defaultdict
from collections.abc import Callable

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.dots import Dot
from gossip.kv.joint_quorum import JointQuorum
from gossip.kv.limits import HEDGE_S, RETRY_S
from gossip.kv.messages import Scan, Scanned
from gossip.kv.parts import KvParts
from gossip.kv.reads import AskedRead, Reads
from gossip.kv.records import Version
from gossip.kv.requests import GetResult, List, ListEntry, ListResult
from gossip.kv.timers import TimerQueue

Finish = Callable[[ListResult, Instant], None]

OVER, MORE = "over", "more"


class Listing:
    """A list request that is under way."""

    def __init__(self, request: List, quorums: dict[int, JointQuorum], finish: Finish) -> None:
        self.request = request
        self.quorums = quorums
        self.finish = finish
        self.asked: dict[int, set[NodeId]] = defaultdict(set)
        self.answered: dict[int, set[NodeId]] = defaultdict(set)
        self.entries: dict[str, dict[NodeId, tuple[Version, ...]]] = defaultdict(dict)
        self.horizons: list[str] = []
        self.live: dict[str, tuple[Version, ...]] = {}
        self.reading: dict[str, int] = {}
        self.gathered = False
        self.partial = False

    def open_partitions(self) -> list[int]:
        """Return the partitions that have too few answers yet."""
        return [p for p, quorum in self.quorums.items() if not quorum.is_met(self.answered[p])]


class Listings:
    """All list requests of this node."""

    def __init__(self, parts: KvParts, reads: Reads) -> None:
        self._reads = reads
        self._registry_sync = parts.registry_sync
        self._outbound, self._home = parts.outbound, parts.home
        self._order, self._shown = parts.view.order, parts.shown
        self._listings: dict[int, Listing] = {}
        self._questions: dict[int, tuple[int, NodeId]] = {}
        self._timers: TimerQueue[tuple[int, str]] = TimerQueue()

    def __len__(self) -> int:
        return len(self._listings)

    def begin(self, request: List, finish: Finish, now: Instant) -> int:
        """Begin to list; return the number by which to cancel. Raises InvalidRequest."""
        r = self._home.copies_of_all(request.prefix, request.r)
        request = msgspec.structs.replace(request, r=r)
        quorums = self._quorums(request)
        name = self._outbound.number()
        listing = self._listings[name] = Listing(request, quorums, finish)
        self._timers.set((name, OVER), now + request.timeout_s)
        self._ask(name, listing, now)
        return name

    def _quorums(self, request: List) -> dict[int, JointQuorum]:
        """Return who must answer for which partition. Raises InvalidRequest."""
        registry = self._registry_sync.registry
        return {
            partition: JointQuorum.of_read(registry.ownership(partition), request.r)
            for partition in registry.partitions_of(request.prefix)
        }

    def cancel(self, name: int) -> None:
        """Forget a list request; harmless if it is over."""
        listing = self._listings.pop(name, None)
        if listing is None:
            return
        for read in listing.reading.values():
            self._reads.cancel(read)
        self._questions = {q: of for q, of in self._questions.items() if of[0] != name}
        self._timers.cancel((name, OVER))
        self._timers.cancel((name, MORE))

    def _ask(self, name: int, listing: Listing, now: Instant) -> None:
        """Ask as many owners as are still missing, of each partition that has too few."""
        registry, request = self._registry_sync.registry, listing.request
        rank = {node: at for at, node in enumerate(self._ranked())}
        questions: dict[NodeId, list[int]] = defaultdict(list)
        for partition in listing.open_partitions():
            quorum, answered = listing.quorums[partition], listing.answered[partition]
            fresh = [
                node
                for node in quorum.nodes
                if node in rank and node not in listing.asked[partition]
            ]
            for node in quorum.chosen(sorted(fresh, key=lambda n: rank[n]), answered):
                listing.asked[partition].add(node)
                questions[node].append(partition)
        for node, partitions in questions.items():
            number = self._outbound.number()
            self._questions[number] = (name, node)
            scan = Scan(
                number,
                registry.epoch,
                tuple(partitions),
                request.prefix,
                request.after,
                request.limit,
            )
            self._outbound.send(scan, node)
        self._timers.set((name, MORE), now + (HEDGE_S if questions else RETRY_S))
        if not questions:
            # All were asked. Those that did not answer are asked again after a pause.
            for partition in listing.open_partitions():
                listing.asked[partition] = set(listing.answered[partition])

    def _ranked(self) -> list[NodeId]:
        """Return all nodes, ourselves first."""
        me = self._outbound.me
        return [me, *self._order(node for node in self._registry_sync.registry.ids() if node != me)]

    def scanned(self, message: Scanned, peer: NodeId, now: Instant) -> None:
        """A node has answered for some partitions."""
        name, asked = self._questions.pop(message.number, (0, 0))
        listing = self._listings.get(name)
        if listing is None or asked != peer or listing.gathered:
            self._outbound.counts["frames_dropped/unexpected_answer"] += 1
            return
        request = listing.request
        if message.horizon and message.horizon <= request.after:
            # Whoever asks for page after page would never come to an end.
            self._outbound.counts["frames_dropped/malformed"] += 1
            return
        for partition in message.partitions:
            if partition in listing.quorums:
                listing.answered[partition].add(peer)
        for key, live in message.entries:
            if key.startswith(request.prefix) and key > request.after:
                listing.entries[key][peer] = live
        if message.horizon:
            listing.horizons.append(message.horizon)
        if not listing.open_partitions():
            self._gather(name, listing, now)

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """A peer cannot be reached: ask others instead."""
        gone = [number for number, (_, node) in self._questions.items() if node == peer]
        names = {self._questions.pop(number)[0] for number in gone}
        for name in sorted(names):
            self._ask(name, self._listings[name], now)

    def adopted(self, now: Instant) -> None:
        """Begin again under the new placement."""
        every = self._registry_sync.registry.ownerships
        fewest = min(len(ownership.readers) for _, ownership in every)
        for name, listing in list(self._listings.items()):
            request = listing.request
            r = min(request.r, fewest) if request.r else None
            fresh = self._quorums(msgspec.structs.replace(request, r=r))
            for read in listing.reading.values():
                self._reads.cancel(read)
            self._questions = {q: of for q, of in self._questions.items() if of[0] != name}
            self._listings[name] = Listing(request, fresh, listing.finish)
            self._ask(name, self._listings[name], now)

    def _gather(self, name: int, listing: Listing, now: Instant) -> None:
        """Enough have answered: take what is agreed, read what is not."""
        listing.gathered = True
        self._timers.cancel((name, MORE))
        horizon = min(listing.horizons, default="")
        keys = sorted(key for key in listing.entries if not horizon or key <= horizon)
        if len(keys) > listing.request.limit:
            keys = keys[: listing.request.limit]
            horizon = keys[-1]
        listing.horizons = [horizon] if horizon else []
        disputed = [key for key in keys if not self._agree(listing, key)]
        for key in disputed:
            # The place is kept now, so that the page is not done before the last read is.
            listing.reading[key] = 0
        for key in disputed:
            self._read(name, listing, key, now)
        self._finish_if_done(name, listing, now)

    def _agree(self, listing: Listing, key: str) -> bool:
        """Take a key's values if all that answered for its partition have the same."""
        partition = self._registry_sync.registry.partition_of(key)
        copies = listing.entries[key]
        # Who answered for another partition alone has what lay there before the key had a place.
        told = [copies.get(node, ()) for node in listing.answered[partition]]
        sets: set[frozenset[Dot]] = {frozenset(v.dot for v in live) for live in told}
        if len(sets) > 1:
            return False
        listing.live[key] = told[0] if told else ()
        return True

    def _read(self, name: int, listing: Listing, key: str, now: Instant) -> None:
        def done(result: GetResult, now: Instant) -> None:
            del listing.reading[key]
            listing.partial = listing.partial or result.outcome != "ok"
            listing.live[key] = result.live
            self._finish_if_done(name, listing, now)

        request = listing.request
        asked = AskedRead(key, request.r, now + request.timeout_s, done)
        read = self._reads.begin(asked, now)
        if key in listing.reading:
            listing.reading[key] = read

    def _finish_if_done(self, name: int, listing: Listing, now: Instant) -> None:
        if self._listings.get(name) is listing and not listing.reading:
            self._finish(name, listing, now)

    def _finish(self, name: int, listing: Listing, now: Instant) -> None:
        self.cancel(name)
        entries = tuple(
            ListEntry(key, values, live)
            for key, live in sorted(listing.live.items())
            if (values := self._shown.of(key, live, now))
        )
        outcome = "partial" if listing.partial else "ok"
        horizon = min(listing.horizons, default="")
        self._outbound.counts[f"lists/{outcome}"] += 1
        listing.finish(ListResult(entries, horizon, outcome), now)

    def wake(self, now: Instant) -> None:
        """Ask further owners for what is slow; end with what there is when time is over."""
        for name, what in self._timers.pop_due(now):
            listing = self._listings.get(name)
            if listing is None:
                continue
            if what == MORE and not listing.gathered:
                self._ask(name, listing, now)
            elif what == OVER:
                listing.partial = True
                if not listing.gathered:
                    self._gather(name, listing, now)
                if self._listings.get(name) is listing:
                    self._finish(name, listing, now)

    def deadline(self) -> Instant | None:
        """Return when the next list request needs attention."""
        return self._timers.deadline()
