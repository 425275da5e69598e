"""How far delivery has come: a cursor, and the few positions settled ahead of it.

A reading is *settled* when it needs no further attempt: delivered, set aside as a dead
letter, or lost on the disk. Acknowledgements come out of order, but never from further ahead than
the uplink's window, so the set beyond the cursor stays small whatever the length of the outbox.
What is lost may lie anywhere, and is kept as ranges.
"""

from collections.abc import Iterable

import msgspec

from agent.store.ranges import Range, joined, size

_DECODER = msgspec.msgpack.Decoder(list[int])


class DeliveryProgress:
    """Settled are all up to ``cursor``, each in ``beyond``, and the ranges in ``lost``."""

    def __init__(
        self, cursor: int = 0, beyond: bytes = b"\x90", lost: Iterable[Range] = ()
    ) -> None:
        self.cursor = cursor
        self.beyond = {position for position in _DECODER.decode(beyond) if position > cursor}
        self.lost: list[Range] = []
        self.lose(lost)

    @property
    def settled(self) -> int:
        """How many readings are settled, over the whole life of the outbox."""
        return self.cursor + len(self.beyond) + size(self.lost)

    def is_settled(self, position: int) -> bool:
        """Tell whether a reading needs no further attempt."""
        return (
            position <= self.cursor
            or position in self.beyond
            or any(first <= position <= last for first, last in self.lost)
        )

    def settle(self, positions: Iterable[int]) -> None:
        """Mark readings as settled; the cursor moves over what has become contiguous."""
        self.beyond.update(position for position in positions if not self.is_settled(position))
        self._advance()

    def lose(self, ranges: Iterable[Range]) -> None:
        """Mark readings as lost on the disk."""
        self.lost = joined([*self.lost, *ranges])
        for first, last in self.lost:
            self.beyond = {position for position in self.beyond if not first <= position <= last}
        self._advance()

    def _advance(self) -> None:
        while True:
            if self.cursor + 1 in self.beyond:
                self.cursor += 1
                self.beyond.remove(self.cursor)
            elif self.lost and self.lost[0][0] <= self.cursor + 1:
                self.cursor = max(self.cursor, self.lost.pop(0)[1])
                self.beyond = {position for position in self.beyond if position > self.cursor}
            else:
                return

    def encoded_beyond(self) -> bytes:
        """Return the positions beyond the cursor as the database keeps them."""
        return msgspec.msgpack.encode(sorted(self.beyond))
