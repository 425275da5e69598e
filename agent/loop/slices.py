"""Long work on the event loop, a few milliseconds at a time.

While a callback runs, no ping is answered: a device that parses for a second is declared dead by
its neighbours. A thread is no way out. Python runs one thread at a time, and each time that the
loop comes back from the kernel it would wait up to five milliseconds for the other to let go,
several times for one datagram. So what may be long is an iterable, and is worked off in slices.

The budget is that of one turn of the loop, not of one caller: sixty-four uploads at once get
sixty-four turns, in each of which the sockets are served, and not one turn of half a second. What
one item costs is not divided; whoever makes the iterable sees to it that an item is small.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TypeVar
from weakref import WeakKeyDictionary

SLICE_S = 0.002
"""A timer that is due waits for two of them at worst: asyncio puts it behind what is ready."""

T = TypeVar("T")


class _Turn:
    """How much of this turn of a loop has gone into slices."""

    def __init__(self) -> None:
        self._spent_s = 0.0
        self._ends = False

    @property
    def left_s(self) -> float:
        return SLICE_S - self._spent_s

    def work(self, items: Iterator[T], taken: list[T]) -> bool:
        """Take what is left time for, one item at least; say whether there may be more."""
        began = now = time.perf_counter()
        due = began + self.left_s
        for item in items:
            taken.append(item)
            now = time.perf_counter()
            if now >= due:
                break
        else:
            self._spend(now - began)
            return False
        self._spend(now - began)
        return True

    def _spend(self, seconds: float) -> None:
        self._spent_s += seconds
        if not self._ends:
            self._ends = True
            asyncio.get_running_loop().call_soon(self._end)  # behind what else this turn has to do

    def _end(self) -> None:
        self._spent_s = 0.0
        self._ends = False


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = WeakKeyDictionary()


async def slices(work: Iterable[T]) -> AsyncIterator[list[T]]:
    """Yield what ``work`` yields, in lists that took at most ``SLICE_S`` and one item more."""
    turn = _this_turn()
    items = iter(work)
    more = True
    while more:
        while turn.left_s <= 0:  # noqa: ASYNC110 - the turn ends by itself
            await asyncio.sleep(0)
        taken: list[T] = []
        more = turn.work(items, taken)
        yield taken


async def collect(work: Iterable[T]) -> list[T]:
    """Return what ``work`` yields."""
    turn = _this_turn()
    items = iter(work)
    taken: list[T] = []
    while turn.left_s <= 0 or turn.work(items, taken):  # noqa: ASYNC110 - the turn ends by itself
        await asyncio.sleep(0)
    return taken


def _this_turn() -> _Turn:
    loop = asyncio.get_running_loop()
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = _Turn()
    return turn
