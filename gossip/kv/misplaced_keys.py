"""Keys that lie where they hashed to before their device had a home, or their space a place: moved.

They were written before, or by an agent of a version that knows of none. A read
does not find them; so whoever holds a copy of such a partition moves them as soon as it may:

1. It compares its copy with as many other owners as every majority has one of. Who follows a
   registry with the home coordinates no more writes of the key in its former partition, so what
   was acknowledged there, also that a version was replaced or deleted, is known here from then on.
2. It sends what is live to the owners of the place, under dots that follow from the former ones.
   All that move a version make the same of it, so it is one there, whoever comes and however late;
   and once it was replaced or deleted there, nobody brings it back.
3. When a majority has it on disk, it is deleted where it was, by a delete like any other.
"""

from collections import Counter, deque
from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.deletions import putting
from gossip.kv.dots import Actor, Dot
from gossip.kv.joint_quorum import JointQuorum
from gossip.kv.limits import (
    MISPLACED_LOOK_ENTRIES,
    MISPLACED_MOVES_MAX,
    REQUEST_TIMEOUT_S,
    RETRY_S,
    SCAN_STEP_PARTITIONS,
)
from gossip.kv.messages import Store, Stored
from gossip.kv.parts import KvParts
from gossip.kv.records import KeyState, Record, Version
from gossip.kv.repair import RepairScheduler
from gossip.kv.timers import TimerQueue
from gossip.registry.ownership import blocking
from gossip.registry.places import PLACES_FROM


def moved_actor(partition: int, actor: Actor) -> Actor:
    """Return the actor of moved versions: dots are of one partition, and may not mix."""
    data = partition.to_bytes(4) + actor.to_bytes(8)
    return putting(int.from_bytes(blake2b(data, digest_size=8, person=b"covey moved").digest()))


class KeyMove:
    """One key on its way home."""

    def __init__(self, partition: int, key: str, dots: frozenset[Dot], quorum: JointQuorum) -> None:
        self.partition = partition
        self.key = key
        self.dots = dots
        self.quorum = quorum
        self.acks: set[NodeId] = set()


class MisplacedKeys:
    """Finds keys of this node's copy that lie elsewhere by now, and moves them."""

    def __init__(self, parts: KvParts, repair: RepairScheduler) -> None:
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._outbound = parts.outbound
        self._order = parts.view.order
        self._repair = repair
        self._known: frozenset[int] = frozenset()
        self._unseen: deque[int] = deque()
        """Partitions that are yet to be looked through, since places came."""
        self._found: dict[int, set[NodeId]] = {}
        """Partitions with misplaced keys, and with whom they were compared by this registry."""
        self._attempts: Counter[tuple[int, NodeId]] = Counter()
        self._moves: dict[int, KeyMove] = {}
        self._timers: TimerQueue[int] = TimerQueue()
        self._due: Instant | None = None
        self._woken: Instant = 0.0

    def adopted(self, now: Instant) -> None:
        """Another registry is followed: what was compared under the last one counts no more."""
        self._woken = now
        registry, me = self._registry_sync.registry, self._outbound.me
        places = frozenset(place.number for place in registry.places)
        if places - self._known:
            held = (p for p, each in enumerate(registry.table) if me in each.holders)
            self._unseen = deque(held)
            self._due = now
        self._known = places
        for number in list(self._moves):
            self._give_up(number)
        self._attempts.clear()
        for compared in self._found.values():
            compared.clear()
        if self._found:
            self._due = now

    def changed(self, partition: int, key: str) -> None:
        """A record has changed: it may be one that somebody brought late."""
        if partition < PLACES_FROM and self._is_misplaced(partition, key):
            self._found.setdefault(partition, set())
            self._due = self._woken if self._due is None else self._due

    def _is_misplaced(self, partition: int, key: str) -> bool:
        return self._registry_sync.registry.partition_of(key) != partition

    def finished(self, partition: int, peer: NodeId, now: Instant) -> None:
        """A pass with a peer has succeeded."""
        if partition in self._found:
            self._found[partition].add(peer)
            self._due = now

    def wake(self, now: Instant) -> None:
        """Look through some partitions, and see what is found on its way."""
        self._woken = now
        for number in list(self._timers.pop_due(now)):
            self._give_up(number)
        if self._due is None or now < self._due:
            return
        for _ in range(min(SCAN_STEP_PARTITIONS, len(self._unseen))):
            partition = self._unseen.popleft()
            if self._misplaced(partition):
                self._found.setdefault(partition, set())
        for partition in list(self._found):
            self._go_on(partition, now)
        if self._unseen:
            return  # the rest is looked through at once, after whatever waits
        self._due = now + RETRY_S if self._found else None

    def _misplaced(self, partition: int) -> list[tuple[str, Record]]:
        """Return the first keys that lie in a partition and no more belong there."""
        for prefix in self._registry_sync.registry.place_prefixes:
            if found := self._misplaced_of(partition, prefix):
                return found
        return []

    def _misplaced_of(self, partition: int, prefix: str) -> list[tuple[str, Record]]:
        page = self._replica.scan(partition, prefix, "", MISPLACED_LOOK_ENTRIES)
        while page:
            found = [(key, record) for key, record in page if self._is_misplaced(partition, key)]
            if found or len(page) < MISPLACED_LOOK_ENTRIES:
                return found
            page = self._replica.scan(partition, prefix, page[-1][0], MISPLACED_LOOK_ENTRIES)
        return []

    def _go_on(self, partition: int, now: Instant) -> None:
        ownership, me = self._registry_sync.registry.ownership(partition), self._outbound.me
        if me not in ownership.holders:
            del self._found[partition]  # the copy goes, when the owners have what it has
        elif self._has_compared(partition):
            self._move_some(partition, now)
        elif not self._repair.is_wanted(partition):
            others = self._registry_sync.members.intersection(ownership.holders) - {me}
            if fresh := self._order(others - self._found[partition]):
                chosen = min(fresh, key=lambda peer: self._attempts[partition, peer])
                self._attempts[partition, chosen] += 1
                self._repair.want(partition, chosen)
            self._repair.work(now)

    def _has_compared(self, partition: int) -> bool:
        """Tell whether all is known here that was ever acknowledged in the former partition."""
        ownership = self._registry_sync.registry.ownership(partition)
        known = self._found[partition] | {self._outbound.me}
        is_sound = self._replica.copy(partition).is_sound
        return is_sound and all(
            len(known.intersection(nodes)) >= blocking(nodes) for nodes in ownership.writers
        )

    def _move_some(self, partition: int, now: Instant) -> None:
        misplaced = self._misplaced(partition)
        if not misplaced:
            del self._found[partition]
        under_way = {move.key for move in self._moves.values()}
        for key, record in misplaced:
            if key not in under_way and len(self._moves) < MISPLACED_MOVES_MAX:
                self._move(partition, key, record, now)

    def _move(self, partition: int, key: str, record: Record, now: Instant) -> None:
        """Tell the owners of the home what is live of a key."""
        registry = self._registry_sync.registry
        ownership = registry.ownership_of(key)
        quorum, number = JointQuorum.of_write(ownership, None), self._outbound.number()
        self._moves[number] = KeyMove(partition, key, record.dots(), quorum)
        self._timers.set(number, now + REQUEST_TIMEOUT_S)
        store = Store(number, registry.epoch, key, KeyState(_moved(partition, record.live)))
        token = self._replica.token(partition)
        for node in ownership.holders:
            if node in self._registry_sync.members:
                self._outbound.send(store, node, token)

    def stored(self, message: Stored, peer: NodeId, now: Instant) -> bool:
        """An owner of the home has it on disk. False if this is no move of ours."""
        move = self._moves.get(message.number)
        if move is None:
            return False
        move.acks.add(peer)
        if move.quorum.is_met(move.acks) and not self._replica.is_held_back:
            self._give_up(message.number)
            self._replica.write(move.partition, move.key, None, move.dots, now)
            self._outbound.counts["moves/keys"] += 1
            self._due = now
        return True

    def refused(self, number: int) -> bool:
        """An owner takes it not now: it is tried again. False if this is no move of ours."""
        if number not in self._moves:
            return False
        self._give_up(number)
        return True

    def _give_up(self, number: int) -> None:
        """Await no more answers; what was not moved is found again."""
        del self._moves[number]
        self._timers.cancel(number)

    def deadline(self) -> Instant | None:
        """Return when to look again."""
        dues = self._due, self._timers.deadline()
        return min((due for due in dues if due is not None), default=None)


def _moved(partition: int, live: Iterable[Version]) -> tuple[Version, ...]:
    return tuple(
        sorted(
            msgspec.structs.replace(version, actor=moved_actor(partition, version.actor))
            for version in live
        )
    )
