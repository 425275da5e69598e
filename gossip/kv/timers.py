"""Timers of many conversations, answered as one deadline.

An item has at most one time; setting it again moves it. Cancelled and moved entries stay in the
heap until they surface, so both are O(log n) and a finished request never wakes anybody.
"""

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

from gossip.core.machine import Instant

Item = TypeVar("Item")


class TimerQueue(Generic[Item]):
    """Items and when they are due. Items must be hashable."""

    def __init__(self) -> None:
        self._due: dict[Item, Instant] = {}
        self._heap: list[tuple[Instant, int, Item]] = []
        self._entries = 0

    def __contains__(self, item: Item) -> bool:
        """Tell whether an item has a time."""
        return item in self._due

    def items(self) -> list[Item]:
        """Return the items that have a time."""
        return list(self._due)

    def set(self, item: Item, due: Instant) -> None:
        """Set or move the time of an item."""
        self._entries += 1
        self._due[item] = due
        heapq.heappush(self._heap, (due, self._entries, item))

    def cancel(self, item: Item) -> None:
        """Forget an item; harmless if there is none."""
        self._due.pop(item, None)

    def deadline(self) -> Instant | None:
        """Return when the first item is due."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: Instant) -> Iterator[Item]:
        """Take out all items whose time has come, earliest first."""
        while (due := self.deadline()) is not None and due <= now:
            item = heapq.heappop(self._heap)[2]
            del self._due[item]
            yield item
