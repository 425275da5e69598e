"""Events and queries on their way to everybody: in the room that rumours leave over.

They travel as claims do (``update_queue.py``): told with packets that go out anyway and in some of
their own, those told least first, each a bounded number of times. But they have a queue of their
own and come last into a packet, so that however much there is to tell, the news of who is alive
never wait for it.
"""

from collections.abc import Hashable

from gossip.core.machine import Instant
from gossip.core.wire import LENGTH_BYTES


class QueuedBroadcast:
    """One encoded message, how often it was told, and until when it is worth telling."""

    __slots__ = ("data", "key", "told", "turn", "until")

    def __init__(self, key: Hashable, data: bytes, until: Instant, turn: int) -> None:
        self.key = key
        self.data = data
        self.until = until
        self.told = 0
        self.turn = turn


class BroadcastQueue:
    """What is waiting to be told."""

    def __init__(self, limit: int) -> None:
        assert limit > 0, "messages need room"
        self._limit = limit
        self._waiting: dict[Hashable, QueuedBroadcast] = {}
        self._turns = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, key: Hashable, data: bytes, until: Instant) -> bool:
        """Tell this to everybody; False when another one, told most, was given up for it."""
        self._turns += 1
        self._waiting[key] = QueuedBroadcast(key, data, until, self._turns)
        if len(self._waiting) <= self._limit:
            return True
        del self._waiting[self._in_order()[-1].key]
        return False

    def drop(self, key: Hashable) -> None:
        """Tell this no more."""
        self._waiting.pop(key, None)

    def expire(self, now: Instant) -> None:
        """Drop what is no longer worth telling."""
        if not self._waiting:
            return
        for key in [one.key for one in self._waiting.values() if one.until <= now]:
            del self._waiting[key]

    def select(self, room_bytes: int, tellings: int) -> list[bytes]:
        """Return what fits into the room, and count each as told once more."""
        if not self._waiting:
            return []
        taken: list[bytes] = []
        for one in self._in_order():
            need_bytes = LENGTH_BYTES + len(one.data)
            if need_bytes > room_bytes:
                continue
            room_bytes -= need_bytes
            taken.append(one.data)
            one.told += 1
            if one.told >= tellings:
                del self._waiting[one.key]
        assert room_bytes >= 0, "what was taken fits"
        return taken

    def _in_order(self) -> list[QueuedBroadcast]:
        return sorted(self._waiting.values(), key=lambda one: (one.told, -one.turn))
