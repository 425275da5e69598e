"""Places for large bodies: few are in memory at a time, and a slow sender keeps nobody out.

With what is made of it, a body of readings takes some 20 MiB, and a small device has little more.
So there are few places, and some more for values, which are smaller; who finds none waits, unread.
Whoever has a place and sends slowly keeps it while nobody else wants it; when somebody does, it
gives way, whichever client it is of.
Of those who wait, the next is one whose client has the fewest places: who opens hundreds of uploads
waits for itself.
"""

import asyncio
from collections import Counter

from agent.api.pace import Pace

PLACES = 4
VALUE_PLACES = 16
"""Of values, which are smaller, and wait for other nodes once they are read."""
BYTES_PER_S_WANTED, PATIENCE_S = 64 * 1024, 5.0
"""Who sends less, for so long, gives way to somebody who waits."""
LOOK_S = 1.0


class Place:
    """A place among the large bodies, for one that turns out to be large."""

    def __init__(self, bodies: "LargeBodies", client: str) -> None:
        self.client = client
        self.pace = Pace(BYTES_PER_S_WANTED, PATIENCE_S, 0.0)
        self.reading: asyncio.Timeout | None = None
        """The limit of what is waited for just now; None while nothing is."""
        self.is_lost = False
        self._bodies = bodies

    async def take(self) -> bool:
        """Wait for a place, unless this body has one; tell whether it had none."""
        if self in self._bodies.taken:
            return False
        await self._bodies.wait(self)
        self.pace.restart(asyncio.get_running_loop().time())
        return True

    def give_back(self) -> None:
        """Let the next one have it; harmless for one that was not taken."""
        self._bodies.free(self)

    def is_slow(self, now: float) -> bool:
        """Say whether its sender is to give way to somebody who waits."""
        return self.reading is not None and not self.is_lost and now >= self.pace.slow_at

    def lose(self, now: float) -> None:
        """End the reading of it: whoever reads gives the place back."""
        assert self.reading is not None, "only what is being read is slow"
        self.is_lost = True
        self.reading.reschedule(now)


class LargeBodies:
    """The places of one kind in one agent's API."""

    def __init__(self, places: int) -> None:
        self._places = places
        self.taken: set[Place] = set()
        self._waiting: dict[Place, asyncio.Future[None]] = {}  # who waits longest first

    async def wait(self, place: Place) -> None:
        """Return when this one has its place; whoever gives up waiting frees it all the same."""
        loop = asyncio.get_running_loop()
        turn = self._waiting[place] = loop.create_future()
        try:
            self._fill()
            while not turn.done():
                await asyncio.wait([turn], timeout=LOOK_S)
                if not turn.done():
                    self._end_slowest(loop.time())
        finally:
            self._waiting.pop(place, None)

    def free(self, place: Place) -> None:
        """Give a place to whoever is next; harmless for one that was not taken."""
        self.taken.discard(place)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self.taken) < self._places:
            held = Counter(each.client for each in self.taken)
            place = min(self._waiting, key=lambda each: held[each.client])
            self._waiting.pop(place).set_result(None)
            self.taken.add(place)

    def _end_slowest(self, now: float) -> None:
        """One for each look of one who waits, so that not all end for the sake of one."""
        slow = [each for each in self.taken if each.is_slow(now)]
        if slow:
            min(slow, key=lambda each: each.pace.slow_at).lose(now)
