"""How far delivery has come: a cursor, and the few positions settled ahead of it.

A reading is *settled* when it needs no further attempt: delivered, or set aside as a dead
letter. Acknowledgements come out of order, but never from further ahead than the uplink's
window, so the set beyond the cursor stays small whatever the length of the outbox.
"""

from collections.abc import Iterable

import msgspec

_DECODER = msgspec.msgpack.Decoder(list[int])


class Progress:
    """Everything up to ``cursor`` is settled, and so is every position in ``beyond``."""

    def __init__(self, cursor: int = 0, beyond: bytes = b"\x90") -> None:
        self.cursor = cursor
        self.beyond = set(_DECODER.decode(beyond))

    @property
    def settled(self) -> int:
        """How many readings are settled, over the whole life of the outbox."""
        return self.cursor + len(self.beyond)

    def is_settled(self, position: int) -> bool:
        """Tell whether a reading needs no further attempt."""
        return position <= self.cursor or position in self.beyond

    def settle(self, positions: Iterable[int]) -> None:
        """Mark readings as settled; the cursor moves over what has become contiguous."""
        self.beyond.update(position for position in positions if position > self.cursor)
        while self.cursor + 1 in self.beyond:
            self.cursor += 1
            self.beyond.remove(self.cursor)

    def encoded_beyond(self) -> bytes:
        """Return the positions beyond the cursor as the database keeps them."""
        return msgspec.msgpack.encode(sorted(self.beyond))
