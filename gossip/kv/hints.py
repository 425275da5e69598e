"""What writes to tell an owner of that was away: pointers to keys, and never what they held.

A write that an owner missed while it was away is noted as its key and the dots that it brought.
When the owner is back it is told the *present* state of each such key, vouching for those dots, so
nothing old can be told, however long a hint lay; a few at a time, for each is read from the disk.
Then the two compare (``repair.py``), which is one hash if that was all.

Hints are kept in memory, for so many keys of each owner and no more. What is beyond that, or was
missed before anybody noticed that the owner is away, and all hints of a process that ends, are left
to the comparison: it finds what a hint would have named, for some more bytes.
"""

from collections.abc import Callable, Iterable
from itertools import islice

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.dots import Dot
from gossip.kv.limits import HINT_DOTS_MAX, HINT_PAUSE_S, HINTS_AT_ONCE, HINTS_MAX
from gossip.kv.messages import Store
from gossip.kv.parts import KvParts
from gossip.kv.timers import TimerQueue

Name = tuple[int, str]
"""A partition, and a key of it."""


class Hints:
    """Manages which keys each owner that is away has to be told of."""

    def __init__(self, parts: KvParts, told: Callable[[NodeId], None]) -> None:
        """``told`` is called when an owner has been told all that is kept for it."""
        self._told = told
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._outbound = parts.outbound
        self._kept: dict[NodeId, dict[Name, set[Dot]]] = {}
        self._turns: TimerQueue[NodeId] = TimerQueue()

    def keep(self, peer: NodeId, partition: int, key: str, dots: Iterable[Dot]) -> None:
        """Note that an owner has missed these dots of a key."""
        kept = self._kept.setdefault(peer, {})
        name = partition, key
        if name not in kept and len(kept) >= HINTS_MAX:
            self._outbound.counts["hints/overflowed"] += 1
            return
        known = kept.setdefault(name, set())
        known.update(islice(dots, max(0, HINT_DOTS_MAX - len(known))))
        self._outbound.counts["hints/kept"] += 1

    def waiting(self, peer: NodeId) -> int:
        """Return of how many keys an owner is to be told."""
        return len(self._kept.get(peer, ()))

    def returned(self, peer: NodeId, now: Instant) -> None:
        """An owner is back: begin to tell it."""
        self._turns.set(peer, now)
        self.wake(now)

    def wake(self, now: Instant) -> None:
        """Tell some more to those who are back."""
        for peer in list(self._turns.pop_due(now)):
            kept = self._kept.get(peer, {})
            for name in list(islice(kept, HINTS_AT_ONCE)):
                self._tell(peer, *name, kept.pop(name))
            if kept:
                self._turns.set(peer, now + HINT_PAUSE_S)
            else:
                self._kept.pop(peer, None)
                self._told(peer)

    def _tell(self, peer: NodeId, partition: int, key: str, dots: set[Dot]) -> None:
        registry = self._registry_sync.registry
        if not registry.has(partition):
            return
        holders = registry.ownership(partition).holders
        if peer not in holders or self._outbound.me not in holders:
            return  # it is others who have to tell it, or nobody
        state = self._replica.answer(partition, key, dots)
        # Who has no room for values refuses it, as it does a put; a comparison brings it later.
        number, is_put = self._outbound.number(), bool(state.live)
        store = Store(number, registry.epoch, key, state, is_put=is_put)
        self._outbound.send(store, peer, self._replica.token(partition))
        self._outbound.counts["hints/told"] += 1

    def deadline(self) -> Instant | None:
        """Return when somebody is to be told more."""
        return self._turns.deadline()
