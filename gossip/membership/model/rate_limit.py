"""How often we answer the same thing to the same peer.

Several rules answer a packet with a packet ("you are thought dead", "who are you?"). Each is told
once per interval and peer, and the peers are remembered in a bounded table, so that a flood of
packets earns no flood of answers and takes no memory.
"""

from gossip.core.machine import Instant


class Throttle:
    """Allows each key once per interval."""

    def __init__(self, interval_s: float, limit: int) -> None:
        assert interval_s > 0, "what may always be said needs no throttle"
        assert limit > 0, "a throttle without memory allows everything"
        self._interval_s = interval_s
        self._limit = limit
        self._allowed_at: dict[object, Instant] = {}

    def __len__(self) -> int:
        return len(self._allowed_at)

    def allows(self, key: object, now: Instant) -> bool:
        """Say whether it is time again, and if so begin a new interval."""
        last = self._allowed_at.get(key)
        if last is not None and now - last < self._interval_s:
            return False
        # Insertion order is the order of time, so the first key is the oldest.
        self._allowed_at.pop(key, None)
        self._allowed_at[key] = now
        if len(self._allowed_at) > self._limit:
            del self._allowed_at[next(iter(self._allowed_at))]
        return True
