"""Places for connections of which nobody knows yet whose they are.

There is a bounded number, and a newcomer finds one all the same: in its favour somebody loses
theirs, the host that holds most before others, a connection without a handshake before one with,
and of these the oldest. So who connects a thousand times and says nothing competes with itself; and
faster than its places get a little older it is turned away, which costs least. For what one *site*
may hold there is a bound of its own: an IPv4 address, and in IPv6 the /64, all of whose addresses
any host in it can take.

What is left: who has many addresses, and connects on each of them faster than an honest newcomer
shakes hands, delays newcomers. Members at known addresses have places among themselves
(``listener.py``).
"""

import time
from collections import Counter
from collections.abc import Callable

from agent.net.origin import origin_of

YOUNG_S = 0.25
"""For so long, which is enough for a handshake, a host does not lose a place to itself."""


class Slot:
    """A place that was taken: given back once, or lost to somebody else."""

    on_lost: Callable[[], None]
    """Called when somebody else needs it more; set by who took it, before anybody else comes."""

    def __init__(self, places: "ConnectionSlots", host: str, site: str, taken_at: float) -> None:
        self.host, self.site, self.taken_at = host, site, taken_at
        self.has_shaken_hands = False
        self._places = places

    def give_back(self) -> None:
        """Free the place; harmless when that was done before, or it was lost."""
        self._places.free(self)

    def lose(self) -> None:
        """Free the place, and tell whoever held it."""
        self._places.free(self)
        self.on_lost()


class ConnectionSlots:
    """Manages places for connections: so many for each site, and together."""

    def __init__(
        self,
        each: int,
        together: int,
        site_of: Callable[[str], str] = origin_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert 0 < each <= together, "who comes alone finds a place"
        self._clock = clock
        self._each, self._together, self._site_of = each, together, site_of
        self._taken: dict[Slot, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._taken)

    def acquire(self, host: str) -> Slot | None:
        """Take a place, if need be somebody else's; None for who has just taken them itself."""
        place = Slot(self, host, self._site_of(host), self._clock())
        loser = self._in_the_way_of(place)
        if loser is not None:
            if loser.host == host and place.taken_at - loser.taken_at < YOUNG_S:
                return None
            loser.lose()
        self._taken[place] = None
        return place

    def _in_the_way_of(self, place: Slot) -> Slot | None:
        """Return who has to give way; None while there is room."""
        here = [each for each in self._taken if each.site == place.site]
        if len(here) >= self._each:
            return _least_missed(here)
        if len(self._taken) < self._together:
            return None
        fullest, _ = Counter(each.site for each in self._taken).most_common(1)[0]
        return _least_missed([each for each in self._taken if each.site == fullest])

    def free(self, place: Slot) -> None:
        """Forget a place; harmless when it is none any more."""
        self._taken.pop(place, None)


def _least_missed(places: list[Slot]) -> Slot:
    held = Counter(each.host for each in places)
    # Of equals the first, which is the oldest.
    return min(places, key=lambda each: (-held[each.host], each.has_shaken_hands))
