"""Which positions were evicted ahead of the cursor: a bit for each, in blocks.

What is evicted lies between readings that stay, in the worst case every other one of a million. As
ranges that would be a hundred megabytes; as bits it is an eighth of one. A block is also the row
in which they are kept on disk.
"""

from collections.abc import Iterable, Iterator, Mapping

from agent.store.ranges import Range

BLOCK_BITS = 12
BLOCK = 1 << BLOCK_BITS
FULL = (1 << BLOCK) - 1


class EvictedPositions:
    """Evicted positions, by block. Those up to the cursor may be forgotten block by block."""

    def __init__(self, blocks: Mapping[int, bytes] | None = None) -> None:
        self._blocks = {
            number: int.from_bytes(bits, "little") for number, bits in (blocks or {}).items()
        }

    def __contains__(self, position: int) -> bool:
        bits = self._blocks.get(position >> BLOCK_BITS, 0)
        return bool(bits >> (position % BLOCK) & 1)

    def count_beyond(self, cursor: int) -> int:
        """Return how many lie behind a position."""
        edge, part = divmod(cursor + 1, BLOCK)
        return sum(
            (bits >> part if number == edge else bits).bit_count()
            for number, bits in self._blocks.items()
            if number >= edge
        )

    def with_more(self, positions: Iterable[int]) -> dict[int, int]:
        """Return the blocks that change when these are evicted too."""
        changed: dict[int, int] = {}
        for position in positions:
            number = position >> BLOCK_BITS
            bits = changed.get(number, self._blocks.get(number, 0))
            changed[number] = bits | 1 << position % BLOCK
        return changed

    def take(self, changed: Mapping[int, int]) -> None:
        """Take over blocks that are on disk now."""
        self._blocks.update(changed)

    def forget(self, cursor: int) -> None:
        """Drop the blocks that the cursor has passed."""
        edge = cursor >> BLOCK_BITS
        for number in [each for each in self._blocks if each < edge]:
            del self._blocks[number]

    def end_of_run(self, position: int) -> int:
        """Return the last of those that are evicted in a row from a position on, which is one."""
        while True:
            number, at = divmod(position, BLOCK)
            others = ~(self._blocks.get(number, 0) >> at) & FULL >> at
            if others:
                return position + (others & -others).bit_length() - 2
            position = (number + 1) * BLOCK
            if position not in self:
                return position - 1

    def others_in(self, stretch: Range) -> Iterator[Range]:
        """Yield what of a range of positions was not evicted."""
        position, last = stretch
        while position <= last:
            if position in self:
                position = self.end_of_run(position) + 1
                continue
            number, at = divmod(position, BLOCK)
            evicted = self._blocks.get(number, 0) >> at
            ends = position + (evicted & -evicted).bit_length() - 2 if evicted else None
            end = min(last, ends if ends is not None else self._end_of_gap(number, last))
            yield position, end
            position = end + 1

    def _end_of_gap(self, number: int, last: int) -> int:
        """Return how far behind a block there is none: up to the next block that is known."""
        behind = [each for each in self._blocks if each > number]
        return min(behind) * BLOCK - 1 if behind else last


def as_bytes(bits: int) -> bytes:
    """Return a block as it is kept on disk."""
    return bits.to_bytes(BLOCK // 8, "little")
