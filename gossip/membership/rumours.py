"""Claims on their way to everybody: told with every packet, a bounded number of times.

Rumours that were told least go first, and among those the newest, so that fresh news spread even
while many are waiting. A rumour about a member is replaced by a fresher one about it. After
``Tuning.tellings`` packets a rumour has reached everybody with near certainty and is dropped; the
exchange of states (``exchange.py``) finds whomever it missed.

Suspicions are kept one per accuser, because who else suspects decides how long a suspicion lasts.
"""

from gossip.ids import NodeId
from gossip.wire import LENGTH_BYTES


class Rumour:
    """One encoded claim and how often it was told."""

    __slots__ = ("accuser", "data", "subject", "told", "turn")

    def __init__(self, subject: NodeId, accuser: NodeId, data: bytes, turn: int) -> None:
        self.subject = subject
        self.accuser = accuser
        self.data = data
        self.told = 0
        self.turn = turn


class Rumours:
    """What is waiting to be told."""

    def __init__(self, limit: int) -> None:
        assert limit > 0, "news need room"
        self._limit = limit
        self._by_subject: dict[NodeId, dict[NodeId, Rumour]] = {}
        self._size = 0
        self._turns = 0

    def __len__(self) -> int:
        return self._size

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

    def reword(self, subject: NodeId, data: bytes) -> None:
        """Tell the same about the subject in other words, as often as it would have been told."""
        [rumour] = self._by_subject[subject].values()
        rumour.data = data

    def drop(self, subject: NodeId) -> None:
        """Tell nothing about the subject any more."""
        self._size -= len(self._by_subject.pop(subject, ()))

    def told(self, subject: NodeId) -> int | None:
        """Return how often the least-told rumour about the subject was told; None without one."""
        waiting = self._by_subject.get(subject)
        return min(rumour.told for rumour in waiting.values()) if waiting else None

    def take(self, room_bytes: int, tellings: int) -> list[bytes]:
        """Return rumours that fit into the room, and count each as told once more."""
        if not self._size:
            return []
        taken: list[bytes] = []
        for rumour in self._in_order():
            need_bytes = LENGTH_BYTES + len(rumour.data)
            if need_bytes > room_bytes:
                continue
            room_bytes -= need_bytes
            taken.append(rumour.data)
            rumour.told += 1
            if rumour.told >= tellings:
                self._forget(rumour)
        return taken

    def _in_order(self) -> list[Rumour]:
        every = [rumour for waiting in self._by_subject.values() for rumour in waiting.values()]
        every.sort(key=lambda rumour: (rumour.told, -rumour.turn))
        return every

    def _add(self, subject: NodeId, accuser: NodeId, data: bytes) -> None:
        waiting = self._by_subject.setdefault(subject, {})
        self._size += accuser not in waiting
        self._turns += 1
        waiting[accuser] = Rumour(subject, accuser, data, self._turns)
        if self._size > self._limit:
            self._forget(self._in_order()[-1])

    def _forget(self, rumour: Rumour) -> None:
        assert self._size > 0, "the size counts every rumour"
        waiting = self._by_subject[rumour.subject]
        del waiting[rumour.accuser]
        self._size -= 1
        if not waiting:
            del self._by_subject[rumour.subject]
