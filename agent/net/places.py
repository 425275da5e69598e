"""Places for connections of which nobody knows yet whose they are.

There is a bounded number, and a newcomer always finds one: in its favour somebody loses theirs, the
host that holds most before others, a connection without a handshake before one with, and of these
the oldest. So who connects a thousand times and says nothing competes with itself. For what one
*site* may hold there is a bound of its own: an IPv4 address, and in IPv6 the /64, all of whose
addresses any host in it can take.

What is left: who has many addresses, and connects on each of them faster than an honest newcomer
shakes hands, delays newcomers. Members at known addresses have places among themselves
(``listener.py``).
"""

from collections import Counter
from collections.abc import Callable

from agent.net.limits import origin_of


class Place:
    """A place that was taken: given back once, or lost to somebody else."""

    on_lost: Callable[[], None]
    """Called when somebody else needs it more; set by who took it, before anybody else comes."""

    def __init__(self, places: "Places", host: str, site: str) -> None:
        self.host, self.site = host, site
        self.has_shaken_hands = False
        self._places = places

    def give_back(self) -> None:
        """Free the place; harmless when that was done before, or it was lost."""
        self._places.free(self)

    def lose(self) -> None:
        """Free the place, and tell whoever held it."""
        self._places.free(self)
        self.on_lost()


class Places:
    """So many places for each site, and together."""

    def __init__(self, each: int, together: int, site_of: Callable[[str], str] = origin_of) -> None:
        assert 0 < each <= together, "who comes alone finds a place"
        self._each, self._together, self._site_of = each, together, site_of
        self._taken: dict[Place, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, host: str) -> Place:
        """Take a place, if need be somebody else's."""
        place = Place(self, host, self._site_of(host))
        here = [each for each in self._taken if each.site == place.site]
        if len(here) >= self._each:
            _least_missed(here).lose()
        elif len(self._taken) >= self._together:
            fullest, _ = Counter(each.site for each in self._taken).most_common(1)[0]
            _least_missed([each for each in self._taken if each.site == fullest]).lose()
        self._taken[place] = None
        return place

    def free(self, place: Place) -> None:
        """Forget a place; harmless when it is none any more."""
        self._taken.pop(place, None)


def _least_missed(places: list[Place]) -> Place:
    held = Counter(each.host for each in places)
    # Of equals the first, which is the oldest.
    return min(places, key=lambda each: (-held[each.host], each.has_shaken_hands))
