"""What is on its way to everybody: told with every packet, a bounded number of times.

This is memberlist's TransmitLimitedQueue. What was told least goes first, and among that the
newest, so that fresh news spread even while much is waiting. After ``transmit_limit`` packets
something has reached everybody with near certainty and is dropped; a sync (``sync.py``, and
``event_sync.py``) finds whomever it missed.

There are two such queues (``outbound.py``). One has updates, under the member that they are about:
a fresher one replaces what was said before, but suspicions are kept one per accuser, because who
else suspects decides how long a suspicion lasts. The other has events and queries, under their own
ids, each until it is no longer worth telling. It comes last into a packet, so that however much
there is to tell, the news of who is alive never wait for it.
"""

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Hashable

from gossip.core.machine import Instant
from gossip.core.wire import LENGTH_BYTES


class QueuedBroadcast:
    """One encoded message, how often it was told, and until when it is worth telling."""

    __slots__ = ("data", "part", "subject", "transmits", "turn", "until")

    def __init__(
        self, subject: Hashable, part: Hashable, data: bytes, until: Instant, turn: int
    ) -> None:
        self.subject = subject
        self.part = part
        self.data = data
        self.until = until
        self.transmits = 0
        self.turn = turn


class TransmitLimitedQueue:
    """What is waiting to be told: one message about a subject, or one for each accuser of it."""

    def __init__(self, limit: int) -> None:
        assert limit > 0, "news need room"
        self._limit = limit
        self._by_subject: dict[Hashable, dict[Hashable, QueuedBroadcast]] = {}
        # In the order in which they go: sorted by how often they were told, then newest first.
        self._waiting: list[tuple[int, int, QueuedBroadcast]] = []
        # How many are of which length: a packet that has no room for the shortest is full.
        self._lengths: Counter[int] = Counter()
        self._turns = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, subject: Hashable, data: bytes, until: Instant = math.inf) -> bool:
        """Tell this about the subject, and nothing older.

        False when another message, told most, was given up for it.
        """
        self.drop(subject)
        return self._add(subject, None, data, until)

    def put_accusation(
        self, subject: Hashable, accuser: Hashable, data: bytes, *, first: bool
    ) -> None:
        """Tell that the accuser suspects the subject, beside other accusations.

        ``first``: the first one of its incarnation; what was told before is outdated.
        """
        if first:
            self.drop(subject)
        self._add(subject, accuser, data, math.inf)

    def replace_payload(self, subject: Hashable, data: bytes) -> None:
        """Tell the same about the subject in other words, as often as it would have been told."""
        [one] = self._by_subject[subject].values()
        self._measure(one, -1)
        one.data = data
        self._measure(one, 1)

    def drop(self, subject: Hashable) -> None:
        """Tell nothing about the subject any more."""
        for one in self._by_subject.pop(subject, _NOTHING).values():
            self._dequeue(one)
            self._measure(one, -1)

    def expire(self, now: Instant) -> None:
        """Drop what is no longer worth telling."""
        for subject in [one.subject for _, _, one in self._waiting if one.until <= now]:
            self.drop(subject)

    def transmits(self, subject: Hashable) -> int | None:
        """Return how often the least-told message about it was told; None without one."""
        waiting = self._by_subject.get(subject)
        return min(one.transmits for one in waiting.values()) if waiting else None

    def select(self, room_bytes: int, transmit_limit: int) -> list[bytes]:
        """Return messages that fit into the room, and count each as told once more."""
        taken: list[QueuedBroadcast] = []
        shortest_bytes = LENGTH_BYTES + min(self._lengths, default=0)
        for _, _, one in self._waiting:
            need_bytes = LENGTH_BYTES + len(one.data)
            if need_bytes <= room_bytes:
                room_bytes -= need_bytes
                taken.append(one)
                if room_bytes < shortest_bytes:
                    break
        for one in taken:
            self._dequeue(one)
            one.transmits += 1
            if one.transmits < transmit_limit:
                self._enqueue(one)
            else:
                self._unlist(one)
        return [one.data for one in taken]

    def _add(self, subject: Hashable, part: Hashable, data: bytes, until: Instant) -> bool:
        waiting = self._by_subject.setdefault(subject, {})
        if part in waiting:
            self._dequeue(waiting[part])
            self._measure(waiting[part], -1)
        self._turns += 1
        one = waiting[part] = QueuedBroadcast(subject, part, data, until, self._turns)
        self._enqueue(one)
        self._measure(one, 1)
        if len(self._waiting) <= self._limit:
            return True
        _, _, last = self._waiting.pop()
        self._unlist(last)
        return False

    def _enqueue(self, one: QueuedBroadcast) -> None:
        insort(self._waiting, (one.transmits, -one.turn, one))

    def _dequeue(self, one: QueuedBroadcast) -> None:
        at = bisect_left(self._waiting, (one.transmits, -one.turn))
        assert self._waiting[at][2] is one, "all that is listed waits"
        del self._waiting[at]

    def _measure(self, one: QueuedBroadcast, change: int) -> None:
        length = len(one.data)
        self._lengths[length] += change
        if not self._lengths[length]:
            del self._lengths[length]

    def _unlist(self, one: QueuedBroadcast) -> None:
        self._measure(one, -1)
        waiting = self._by_subject[one.subject]
        del waiting[one.part]
        if not waiting:
            del self._by_subject[one.subject]


_NOTHING: dict[Hashable, QueuedBroadcast] = {}
