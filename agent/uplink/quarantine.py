"""Which readings to give up, on what evidence.

One message that a broker will not take must not hold up a million behind it; and a broker that
takes nothing today must not turn a million good readings into dead letters. So giving up needs
proof that it is the message:

* The broker refuses it by a code that **blames the message** (topic invalid, packet too large),
  ``BLAMED_MAX`` times in a row.
* The broker refuses it by **another code** (not authorized, quota exceeded) ``REFUSED_MAX``
  times in a row, and has accepted other readings between each two refusals. While it refuses
  everything, everything waits.
* The **connection dies** whenever it is sent, as old brokers do with what is too large for them.
  After a death, readings go one at a time until those that were in flight are through. One that
  was alone in flight at ``DEATHS_MAX`` deaths in a row is set **aside**, and the next is tried.
  When one is acknowledged, those set aside are **accused** and tried once more, alone: another
  death, now that others pass, is the proof. When too many had to be set aside, the broker is
  the reason, and all begins anew.

The class is pure: it is told what happened, and answers with what to bury.
"""

from agent.uplink import reasons

BLAMED_MAX = 3
REFUSED_MAX = 10
DEATHS_MAX = 3
ASIDE_MAX = 20

Burials = list[tuple[int, str]]  # position, reason


class Quarantine:
    """Counts failures by position and decides when a reading is given up."""

    def __init__(self) -> None:
        self.aside: set[int] = set()
        self._accused: set[int] = set()
        self._careful_until = 0
        self._deliveries = 0
        self._refusals: dict[int, tuple[int, int, int]] = {}  # position: code, times, deliveries
        self._deaths = (0, 0)  # which position was alone in flight, at how many deaths in a row

    def window(self, size: int) -> int:
        """Return how many may be in flight now: one while a killer is being looked for."""
        return 1 if self._careful_until or self._accused or self.aside else size

    def delivered(self, position: int) -> bool:
        """Note an acknowledgement; tell whether readings set aside are to be tried again now."""
        self._deliveries += 1
        self._refusals.pop(position, None)
        if position >= self._careful_until:
            self._careful_until = 0
        released = bool(self.aside)
        self._accused |= self.aside
        self.aside.clear()
        self._accused.discard(position)
        return released

    def refused(self, position: int, code: int) -> Burials:
        """Note that the broker refused one reading; return it if it is to be given up."""
        last_code, times, deliveries = self._refusals.get(position, (code, 0, -1))
        if last_code != code:
            times = 0
        blamed = code in reasons.BLAMES_MESSAGE
        if blamed or self._deliveries > deliveries:
            times += 1
        self._refusals[position] = (code, times, self._deliveries)
        if times < (BLAMED_MAX if blamed else REFUSED_MAX):
            return []
        del self._refusals[position]
        return [(position, f"refused {times} times: {reasons.name_of(code)}")]

    def lost(self, in_flight: list[int], code: int) -> Burials:
        """Note that the connection died with these in flight, oldest first; return the guilty."""
        if not in_flight:
            return []
        self._careful_until = max(self._careful_until, *in_flight)
        if len(in_flight) > 1:
            return []
        (alone,) = in_flight
        if alone in self._accused:
            self._accused.remove(alone)
            return [(alone, f"ends the connection whenever it is sent: {reasons.name_of(code)}")]
        position, times = self._deaths
        times = times + 1 if position == alone else 1
        self._deaths = (alone, times)
        if times >= DEATHS_MAX:
            self._set_aside(alone)
        return []

    def begin_anew(self) -> None:
        """Acquit those set aside: there is no other reading that could prove them guilty."""
        self.aside.clear()
        self._deaths = (0, 0)

    def _set_aside(self, position: int) -> None:
        self.aside.add(position)
        if len(self.aside) > ASIDE_MAX:
            self.begin_anew()
