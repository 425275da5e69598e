"""Claims on their way to everybody: told with every packet, a bounded number of times.

Rumours that were told least go first, and among those the newest, so that fresh news spread even
while many are waiting. A rumour about a member is replaced by a fresher one about it. After
``Tuning.tellings`` packets a rumour has reached everybody with near certainty and is dropped; the
exchange of states (``exchange.py``) finds whomever it missed.

Suspicions are kept one per accuser, because who else suspects decides how long a suspicion lasts.
"""

from bisect import bisect_left, insort
from collections import Counter

from gossip.core.ids import NodeId
from gossip.core.wire import LENGTH_BYTES


class QueuedUpdate:
    """One encoded claim and how often it was told."""

    __slots__ = ("accuser", "data", "subject", "told", "turn")

    def __init__(self, subject: NodeId, accuser: NodeId, data: bytes, turn: int) -> None:
        self.subject = subject
        self.accuser = accuser
        self.data = data
        self.told = 0
        self.turn = turn


class UpdateQueue:
    """What is waiting to be told."""

    def __init__(self, limit: int) -> None:
        assert limit > 0, "news need room"
        self._limit = limit
        self._by_subject: dict[NodeId, dict[NodeId, QueuedUpdate]] = {}
        # In the order in which they go: sorted by how often they were told, then newest first.
        self._waiting: list[tuple[int, int, QueuedUpdate]] = []
        # How many are of which length: a packet that has no room for the shortest is full.
        self._lengths: Counter[int] = Counter()
        self._turns = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, subject: NodeId, data: bytes) -> None:
        """Tell this about the subject, and nothing older."""
        self.drop(subject)
        self._add(subject, 0, data)

    def put_accusation(self, subject: NodeId, accuser: NodeId, data: bytes, *, first: bool) -> None:
        """Tell that the accuser suspects the subject, beside other accusations.

        ``first``: the first one of its incarnation; what was told before is outdated.
        """
        if first:
            self.drop(subject)
        self._add(subject, accuser, data)

    def replace_payload(self, subject: NodeId, data: bytes) -> None:
        """Tell the same about the subject in other words, as often as it would have been told."""
        [rumour] = self._by_subject[subject].values()
        self._measure(rumour, -1)
        rumour.data = data
        self._measure(rumour, 1)

    def drop(self, subject: NodeId) -> None:
        """Tell nothing about the subject any more."""
        for rumour in self._by_subject.pop(subject, _NOTHING).values():
            self._dequeue(rumour)
            self._measure(rumour, -1)

    def transmits(self, subject: NodeId) -> int | None:
        """Return how often the least-told rumour about the subject was told; None without one."""
        waiting = self._by_subject.get(subject)
        return min(rumour.told for rumour in waiting.values()) if waiting else None

    def select(self, room_bytes: int, tellings: int) -> list[bytes]:
        """Return rumours that fit into the room, and count each as told once more."""
        taken: list[QueuedUpdate] = []
        shortest_bytes = LENGTH_BYTES + min(self._lengths, default=0)
        for _, _, rumour in self._waiting:
            need_bytes = LENGTH_BYTES + len(rumour.data)
            if need_bytes <= room_bytes:
                room_bytes -= need_bytes
                taken.append(rumour)
                if room_bytes < shortest_bytes:
                    break
        for rumour in taken:
            self._dequeue(rumour)
            rumour.told += 1
            if rumour.told < tellings:
                self._enqueue(rumour)
            else:
                self._unlist(rumour)
        return [rumour.data for rumour in taken]

    def _add(self, subject: NodeId, accuser: NodeId, data: bytes) -> None:
        waiting = self._by_subject.setdefault(subject, {})
        if accuser in waiting:
            self._dequeue(waiting[accuser])
            self._measure(waiting[accuser], -1)
        self._turns += 1
        rumour = waiting[accuser] = QueuedUpdate(subject, accuser, data, self._turns)
        self._enqueue(rumour)
        self._measure(rumour, 1)
        if len(self._waiting) > self._limit:
            _, _, last = self._waiting.pop()
            self._unlist(last)

    def _enqueue(self, rumour: QueuedUpdate) -> None:
        insort(self._waiting, (rumour.told, -rumour.turn, rumour))

    def _dequeue(self, rumour: QueuedUpdate) -> None:
        at = bisect_left(self._waiting, (rumour.told, -rumour.turn))
        assert self._waiting[at][2] is rumour, "all that is listed waits"
        del self._waiting[at]

    def _measure(self, rumour: QueuedUpdate, change: int) -> None:
        length = len(rumour.data)
        self._lengths[length] += change
        if not self._lengths[length]:
            del self._lengths[length]

    def _unlist(self, rumour: QueuedUpdate) -> None:
        self._measure(rumour, -1)
        waiting = self._by_subject[rumour.subject]
        del waiting[rumour.accuser]
        if not waiting:
            del self._by_subject[rumour.subject]


_NOTHING: dict[NodeId, QueuedUpdate] = {}
