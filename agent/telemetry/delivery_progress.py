"""How far delivery has come: a cursor, and the few positions settled ahead of it.

A reading is *settled* when it needs no further attempt: delivered, set aside as a dead
letter, evicted, or lost on the disk. Acknowledgements come out of order, but never from further
ahead than the uplink's window, so the set beyond the cursor stays small whatever the length of the
outbox. What is lost may lie anywhere, and is kept as ranges; what is evicted lies anywhere and is
much, and is kept as bits (``evicted.py``).
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from agent.store.ranges import Range, joined, size, without
from agent.telemetry.evicted import EvictedPositions

_DECODER = msgspec.msgpack.Decoder(list[int])


class DeliveryProgress:
    """Settled are all up to ``cursor``, each in ``beyond``, and the ranges in ``lost``."""

    def __init__(
        self,
        cursor: int = 0,
        beyond: bytes = b"\x90",
        lost: Iterable[Range] = (),
        evicted: Mapping[int, bytes] | None = None,
    ) -> None:
        self.cursor = cursor
        self.evicted = EvictedPositions(evicted)
        self._evicted_ahead = self.evicted.count_beyond(cursor)
        self.beyond = {position for position in _DECODER.decode(beyond) if position > cursor}
        self.lost: list[Range] = []
        self.lose(lost)

    @property
    def settled(self) -> int:
        """How many readings are settled, over the whole life of the outbox."""
        return self.cursor + len(self.beyond) + size(self.lost) + self._evicted_ahead

    def is_settled(self, position: int) -> bool:
        """Tell whether a reading needs no further attempt."""
        return (
            position <= self.cursor
            or position in self.beyond
            or position in self.evicted
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

    def evict(self, positions: Sequence[int], blocks: Mapping[int, int]) -> None:
        """Mark readings as evicted, which were waiting; ``blocks`` are those that this changes."""
        self.evicted.take(blocks)
        self._evicted_ahead += len(positions)
        self._advance()

    def missing_in(self, stretch: Range) -> list[Range]:
        """Return what of a range is neither lost nor evicted."""
        found = without(stretch, self.lost)
        return [part for each in found for part in self.evicted.others_in(each)]

    def _advance(self) -> None:
        while True:
            if self._evicted_ahead and self.cursor + 1 in self.evicted:
                end = self.evicted.end_of_run(self.cursor + 1)
                self._evicted_ahead -= end - self.cursor
                self.cursor = end
                self.evicted.forget(end)
            elif self.cursor + 1 in self.beyond:
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
