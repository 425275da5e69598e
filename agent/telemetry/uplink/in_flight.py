"""Which readings are in flight, and since when.

The window is the smaller of what is configured and the Receive Maximum of the broker (MQTT 5,
section 4.9): a broker that enforces it throws out whoever exceeds it. Readings enter in the order
of the outbox and leave in whatever order they are acknowledged.
"""


class InFlight:
    """The readings that were sent on this connection and not yet answered, oldest first."""

    def __init__(self) -> None:
        self._sent_at: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._sent_at)

    def __contains__(self, position: int) -> bool:
        return position in self._sent_at

    def add(self, position: int, now: float) -> None:
        """Note that a reading was handed to the link."""
        assert position not in self._sent_at, "sent twice on one connection"
        self._sent_at[position] = now

    def remove(self, position: int) -> bool:
        """Note an answer; tell whether it was expected."""
        return self._sent_at.pop(position, None) is not None

    def clear(self) -> list[int]:
        """Forget all of it, as after the end of the connection; return the positions."""
        positions = list(self._sent_at)
        self._sent_at.clear()
        return positions

    def oldest_age_s(self, now: float) -> float:
        """Return how long the oldest reading has been without an answer; 0 for none."""
        for sent_at in self._sent_at.values():
            return now - sent_at
        return 0.0
