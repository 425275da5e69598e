"""The telling side of watches: what an owner says of changes, at once and when it is asked.

A watch on any node subscribes at the readers of its partitions, and renews that before the lease
runs out; an owner whose watcher vanished forgets it with the lease. An owner tells of a change when
it is on disk there. Such a frame may be lost, so this is not what a watch rests upon: it compares
what it has settled with the clock of each reader, and asks for what is missing. How it puts that
together is told in ``watched_partition.py``, and why in docs/adr/0048-watches-without-silence.md.
"""

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.coverages import difference
from gossip.kv.dots import Coverage, Dot, PartitionClock
from gossip.kv.limits import (
    LEASE_S,
    PAGE_BYTES_MAX,
    PAGE_ENTRIES_MAX,
    PEER_SUBSCRIPTIONS_MAX,
    SUBSCRIPTIONS_MAX,
)
from gossip.kv.messages import (
    INCOMPLETE,
    INVALID,
    Changed,
    Subscribe,
    Unsubscribe,
    WatchAsk,
    WatchedChange,
    WatchPage,
    WatchSubscribe,
    WatchSubscribeReply,
)
from gossip.kv.parts import KvParts
from gossip.kv.records import KeyState, Record
from gossip.kv.typed_values import is_typed


class WatchSubscription:
    """At an owner: who wants to be told of which keys, and until when."""

    def __init__(
        self, text: str, *, is_prefix: bool, wants_states: bool = False, until: Instant = 0.0
    ) -> None:
        self.text = text
        self.is_prefix = is_prefix
        self.wants_states = wants_states
        """Whether whole states of keys are told; versions before that understand changes alone."""
        self.until = until

    def wants(self, key: str) -> bool:
        """Tell whether a change of this key is to be told."""
        return key.startswith(self.text) if self.is_prefix else key == self.text


class WatchSource:
    """Manages the telling side: subscriptions that other nodes, and this one, hold here."""

    def __init__(self, parts: KvParts) -> None:
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._outbound = parts.outbound
        self._subscriptions: dict[tuple[NodeId, int], WatchSubscription] = {}
        self._order = 0

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self, message: Subscribe | WatchSubscribe, peer: NodeId, now: Instant) -> bool:
        """Grant or renew a lease; False when there are too many, in all or of this node."""
        name = (peer, message.number)
        if name not in self._subscriptions and self._is_crowded(peer):
            self._outbound.counts["watches/too_many"] += 1
            return False
        self._subscriptions[name] = WatchSubscription(
            message.text,
            is_prefix=message.is_prefix,
            wants_states=isinstance(message, WatchSubscribe),
            until=now + LEASE_S,
        )
        return True

    def _is_crowded(self, peer: NodeId) -> bool:
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            return True
        return sum(node == peer for node, _ in self._subscriptions) >= PEER_SUBSCRIPTIONS_MAX

    def renew(self, message: WatchSubscribe, peer: NodeId, now: Instant) -> None:
        """Grant or renew a lease, and say where our clock is another one than the watch's.

        Also to whom no lease is granted: it is told nothing at once, and misses nothing for that.
        """
        self.subscribe(message, peer, now)
        registry = self._registry_sync.registry
        same = tuple(
            (partition, mark)
            for partition, mark in message.marks
            if registry.has(partition)
            and self._replica.may_answer(partition, registry)
            and mark == self._replica.clock_mark(partition)
        )
        equal = {partition for partition, _ in same}
        differing = tuple(p for p, _ in message.marks if p not in equal)
        token = max((self._replica.token(partition) for partition in equal), default=0)
        life = self._outbound.life
        self._outbound.send(WatchSubscribeReply(message.number, life, same, differing), peer, token)

    def unsubscribe(self, message: Unsubscribe, peer: NodeId, now: Instant) -> None:
        """End a lease early."""
        del now
        self._subscriptions.pop((peer, message.number), None)

    def changed(
        self,
        partition: int,
        key: str,
        before: Record,
        after: Record,
        dots: frozenset[Dot],
        token: int,
    ) -> None:
        """Tell of a change, once it is on disk."""
        if not self._subscriptions or not self._is_held(partition, key):
            return
        came = tuple(v for v in after.live if v.dot not in before.dots())
        if any(is_typed(version.value) for version in after.live):
            came = after.live  # what it comes to now is told, and that takes all of them
        went = tuple(sorted(before.dots() - after.dots()))
        state = KeyState(after.live, after.context, tuple(sorted(dots | before.dots())))
        for (peer, number), subscription in self._subscriptions.items():
            if not subscription.wants(key):
                continue
            if subscription.wants_states:
                self._order += 1
                news = WatchedChange(number, key, state, self._outbound.life, self._order)
                self._outbound.send(news, peer, token)
            else:
                self._outbound.send(Changed(number, key, came, went, len(after.live)), peer, token)

    def _is_held(self, partition: int, key: str) -> bool:
        """Tell whether we hold this key, and this is where it lies."""
        registry = self._registry_sync.registry
        is_there = registry.partition_of(key) == partition
        return is_there and self._outbound.me in registry.ownership(partition).holders

    def ask(self, message: WatchAsk, peer: NodeId, now: Instant) -> None:
        """Answer with the watched keys that have changed beyond what was settled and seen."""
        partition, registry = message.partition, self._registry_sync.registry
        is_first = message.life == 0
        if not registry.has(partition) or not (is_first or message.life == self._outbound.life):
            self._registry_sync.refuse(message, peer, INVALID)
            return
        if not self._registry_sync.agrees(message, partition, peer, now):
            return
        if self._outbound.me not in registry.ownership(partition).readers or (
            not self._replica.may_answer(partition, registry)
        ):
            self._registry_sync.refuse(message, peer, INCOMPLETE)
            return
        page = self._page(message, is_first=is_first)
        self._outbound.send(page, peer, self._replica.token(partition))

    def _page(self, message: WatchAsk, *, is_first: bool) -> WatchPage:
        number, life = message.number, self._outbound.life
        clock = self._replica.coverage(message.partition)
        settled = PartitionClock(message.settled)
        extras = difference(clock, settled) if is_first else ()
        is_level = not difference(settled.coverage(), PartitionClock(clock))
        if message.is_new or not is_level:
            return WatchPage(number, life, is_level, extras, (), (), "")
        seen = PartitionClock(message.settled)
        seen.absorb(message.seen)
        missing = difference(clock, seen)
        if not missing:
            return WatchPage(number, life, is_level, extras, (), (), "")
        entries, others, horizon = self._entries(message, missing, PartitionClock(missing))
        return WatchPage(number, life, is_level, extras, entries, others, horizon)

    def _entries(
        self, message: WatchAsk, missing: Coverage, wanted: PartitionClock
    ) -> tuple[tuple[tuple[str, KeyState], ...], tuple[Dot, ...], str]:
        """Return keys with their states, deletes of other keys, and how far this is complete."""
        watched = WatchSubscription(message.text, is_prefix=message.is_prefix)
        deleted = self._replica.deletions.among(message.partition, missing)
        registry = self._registry_sync.registry

        def is_told(key: str) -> bool:
            return watched.wants(key) and registry.partition_of(key) == message.partition

        others = tuple(d for key, dots in deleted.items() if not is_told(key) for d in dots)
        changed, reach = self._changed_after(message, wanted)
        for key in deleted:
            if is_told(key) and message.after < key and (not reach or key <= reach):
                changed.setdefault(key, self._replica.record(message.partition, key))
        entries: list[tuple[str, KeyState]] = []
        size = 0
        for key, record in sorted(filter(lambda each: is_told(each[0]), changed.items())):
            dots = record.dots().union(deleted.get(key, ()))
            state = KeyState(record.live, record.context, tuple(sorted(dots)))
            size += state.size_bytes() + len(key)
            if entries and (size > PAGE_BYTES_MAX or len(entries) >= PAGE_ENTRIES_MAX):
                reach = entries[-1][0]
                break
            entries.append((key, state))
        assert not reach or reach > message.after, "whoever asks again from here gets further"
        return tuple(entries), others if not message.after else (), reach

    def _changed_after(
        self, message: WatchAsk, wanted: PartitionClock
    ) -> tuple[dict[str, Record], str]:
        """Return watched keys with a version that is missing, up to where was looked."""
        partition, text, after = message.partition, message.text, message.after
        if not message.is_prefix:
            found, reach = [(text, self._replica.record(partition, text))], ""
        else:
            found = self._replica.scan(partition, text, after, PAGE_ENTRIES_MAX)
            reach = found[-1][0] if len(found) == PAGE_ENTRIES_MAX else ""
        changed = {key: r for key, r in found if any(dot in wanted for dot in r.dots())}
        return changed, reach

    def wake(self, now: Instant) -> None:
        """Forget leases that were not renewed."""
        over = [name for name, lease in self._subscriptions.items() if lease.until <= now]
        for name in over:
            del self._subscriptions[name]

    def deadline(self) -> Instant | None:
        """Return when the next lease runs out."""
        return min((lease.until for lease in self._subscriptions.values()), default=None)
