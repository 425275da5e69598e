"""Watches: told by owners, under leases, best effort.

A watch on any node subscribes at the owners of its key, or at all nodes for a prefix, and renews
that before the lease runs out; an owner whose watcher vanished forgets it with the lease. Each
owner tells of a change when it is on disk there, so the watcher hears of it up to N times and
keeps the dots of the last few thousand changes to tell an echo from news.

Best effort means: what happens while no owner can reach the watcher is not told later. A watcher
that must not miss anything reads the key again after the gap.
"""

from collections import OrderedDict

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.dots import Dot
from gossip.kv.limits import LEASE_RENEWAL_S, LEASE_S, SUBSCRIPTIONS_MAX, WATCH_MEMORY_DOTS
from gossip.kv.messages import Changed, Subscribe, Unsubscribe
from gossip.kv.outbound import OutboundFrames
from gossip.kv.records import Record
from gossip.kv.registry_sync import RegistrySync
from gossip.kv.requests import Watch, WatchEvent, values_of


class WatchSubscription:
    """At an owner: who wants to be told of which keys, and until when."""

    def __init__(self, text: str, *, is_prefix: bool, until: Instant) -> None:
        self.text = text
        self.is_prefix = is_prefix
        self.until = until

    def wants(self, key: str) -> bool:
        """Tell whether a change of this key is to be told."""
        return key.startswith(self.text) if self.is_prefix else key == self.text


class WatchSource:
    """Manages the telling side: subscriptions that other nodes, and this one, hold here."""

    def __init__(self, registry_sync: RegistrySync, outbound: OutboundFrames) -> None:
        self._registry_sync = registry_sync
        self._outbound = outbound
        self._subscriptions: dict[tuple[NodeId, int], WatchSubscription] = {}

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self, message: Subscribe, peer: NodeId, now: Instant) -> None:
        """Grant or renew a lease."""
        name = (peer, message.number)
        if name not in self._subscriptions and len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            self._outbound.counts["watches/too_many"] += 1
            return
        self._subscriptions[name] = WatchSubscription(
            message.text, is_prefix=message.is_prefix, until=now + LEASE_S
        )

    def unsubscribe(self, message: Unsubscribe, peer: NodeId, now: Instant) -> None:
        """End a lease early."""
        del now
        self._subscriptions.pop((peer, message.number), None)

    def changed(self, key: str, before: Record, after: Record, token: int) -> None:
        """Tell of a change, once it is on disk."""
        if not self._subscriptions or self._outbound.me not in self._holders(key):
            return
        came = tuple(v for v in after.live if v.dot not in before.dots())
        went = tuple(sorted(before.dots() - after.dots()))
        for (peer, number), subscription in self._subscriptions.items():
            if subscription.wants(key):
                self._outbound.send(Changed(number, key, came, went, len(after.live)), peer, token)

    def _holders(self, key: str) -> tuple[NodeId, ...]:
        return self._registry_sync.registry.ownership_of(key).holders

    def wake(self, now: Instant) -> None:
        """Forget leases that were not renewed."""
        over = [name for name, lease in self._subscriptions.items() if lease.until <= now]
        for name in over:
            del self._subscriptions[name]

    def deadline(self) -> Instant | None:
        """Return when the next lease runs out."""
        return min((lease.until for lease in self._subscriptions.values()), default=None)


class RecentDots:
    """The dots of recent changes, so that each is told once."""

    def __init__(self) -> None:
        self._dots: OrderedDict[tuple[str, bool, Dot], None] = OrderedDict()

    def is_news(self, key: str, dot: Dot, *, came: bool) -> bool:
        """Tell whether this is the first time, and remember it. Who went does not come."""
        name = (key, came, dot)
        known = name in self._dots or (came and (key, False, dot) in self._dots)
        self._dots[name] = None
        self._dots.move_to_end(name)
        if len(self._dots) > WATCH_MEMORY_DOTS:
            self._dots.popitem(last=False)
        return not known


class WatchClient:
    """Manages the hearing side: watches of this node's applications."""

    def __init__(self, registry_sync: RegistrySync, outbound: OutboundFrames) -> None:
        self._registry_sync = registry_sync
        self._outbound = outbound
        self._watches: dict[int, tuple[int, Watch, RecentDots]] = {}
        self._renewal: Instant | None = None

    def __len__(self) -> int:
        return len(self._watches)

    def begin(self, request: int, watch: Watch, now: Instant) -> None:
        """Watch from now on."""
        number = self._outbound.number()
        self._watches[number] = (request, watch, RecentDots())
        self._subscribe(number, watch)
        if self._renewal is None:
            self._renewal = now + LEASE_RENEWAL_S

    def cancel(self, request: int) -> bool:
        """End a watch. False if there is none."""
        for number, (of, watch, _) in list(self._watches.items()):
            if of == request:
                del self._watches[number]
                for node in self._tellers(watch):
                    self._outbound.send(Unsubscribe(number), node)
                return True
        return False

    def _tellers(self, watch: Watch) -> tuple[NodeId, ...]:
        registry = self._registry_sync.registry
        return registry.ids() if watch.key is None else registry.ownership_of(watch.key).holders

    def _subscribe(self, number: int, watch: Watch) -> None:
        text = watch.prefix if watch.key is None else watch.key
        for node in self._tellers(watch):
            self._outbound.send(Subscribe(number, text or "", watch.key is None), node)

    def changed(self, message: Changed, peer: NodeId, now: Instant) -> None:
        """An owner tells of a change."""
        if message.number not in self._watches:
            self._outbound.send(Unsubscribe(message.number), peer)
            return
        del now
        request, _, memory = self._watches[message.number]
        key = message.key
        came = tuple(v for v in message.came if memory.is_news(key, v.dot, came=True))
        went = [dot for dot in message.went if memory.is_news(key, dot, came=False)]
        if came:
            self._outbound.emit(WatchEvent(request, key, "put", values_of(came)))
        elif went and not message.left:
            self._outbound.emit(WatchEvent(request, key, "delete", ()))

    def adopted(self, now: Instant) -> None:
        """Subscribe at the owners of now."""
        if self._watches:
            self._renewal = now

    def returned(self, peer: NodeId) -> None:
        """A peer can be reached again: it may have forgotten us."""
        for number, (_, watch, _) in self._watches.items():
            if peer in self._tellers(watch):
                text = watch.prefix if watch.key is None else watch.key
                self._outbound.send(Subscribe(number, text or "", watch.key is None), peer)

    def wake(self, now: Instant) -> None:
        """Renew leases."""
        if self._renewal is None or now < self._renewal:
            return
        for number, (_, watch, _) in self._watches.items():
            self._subscribe(number, watch)
        self._renewal = now + LEASE_RENEWAL_S if self._watches else None

    def deadline(self) -> Instant | None:
        """Return when leases are to be renewed."""
        return self._renewal
