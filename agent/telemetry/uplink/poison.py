"""Which readings to give up, on what evidence, and which to send while that is unclear.

One message that a broker will not take must not hold up a million behind it; and a broker that
takes nothing today must not turn a million good readings into dead letters. So giving up needs
proof that it is the message:

* The broker refuses it by one **code** again and again, and has accepted other readings between
  each two refusals: ``BLAMED_MAX`` times if the code blames the message (topic invalid, packet too
  large), ``REFUSED_MAX`` times for others (not authorized, quota exceeded).
* The **connection ends** whenever it is sent, as brokers do with a name that is no MQTT text, or
  with what is too large for them. A reading is **accused** when it was alone in flight at such an
  end; it is guilty when that happens in a **trial**: alone once more, after others have passed.

Until there is proof, others go first. That is a walk through three phases::

    NORMAL ──stuck──► BEYOND ──others passed──► TRIAL ──it fails again──► BEYOND
       ▲                 └──nothing passes──► NORMAL  └──all passed──► NORMAL

In BEYOND, all sensors with a reading in trouble are passed over, so that the order of each
sensor's readings is kept, and all of which nothing has passed lately: an app that kills under a new
name each time must not hold up those that never did. When none but those are left, only the accused
are. Each death puts
one sensor at least out of the way, so what is good is held up for as many reconnections as there
are bad sensors, however many readings they have, and each bad reading is found by two or three
deaths of its own. Nobody is acquitted for want of room: what is kept is one entry for each
accused, beside the names that passed lately, which are bounded.

To find who killed a connection, the window shrinks to a part of what was in flight: a death
costs a reconnection, a reading that passes only a round trip, so it shrinks fast.

The class is pure: it is told what happened, and answers with what to bury.
"""

from enum import StrEnum

from agent.telemetry.uplink import reason_codes

BLAMED_MAX = 3
REFUSED_MAX = 10
# So many lone deaths make an accused; and so many in all, the last in a trial, prove the guilt.
DEATHS_MAX = 2
# How much of what was in flight at a death may be in flight together afterwards.
SHRINK = 8
# A trial costs a reconnection if the accused is guilty: so many good readings go in between.
TRIAL_EVERY = 10
# For so many deaths in a row it may be the readings, and finding out is urgent.
URGENT_DEATHS_MAX = 40
# Sensors of which it is remembered that something has passed.
KNOWN_MAX = 4096

Burials = list[tuple[int, str]]  # position, reason


class PoisonPhase(StrEnum):
    """Which readings go now."""

    NORMAL = "normal"  # all, in order
    BEYOND = "beyond"  # all but those in trouble
    TRIAL = "trial"  # those that BEYOND passed over


class Event(StrEnum):
    """What moves the phase."""

    STUCK = "stuck"  # a reading is in trouble, and nothing passes
    PASSED = "passed"  # others passed, or all passed
    FAILED = "failed"  # the trial's reading is in trouble again
    NONE_LEFT = "none left"  # there is nobody else to try


TRANSITIONS = {
    (PoisonPhase.NORMAL, Event.STUCK): PoisonPhase.BEYOND,
    (PoisonPhase.BEYOND, Event.STUCK): PoisonPhase.BEYOND,
    (PoisonPhase.BEYOND, Event.PASSED): PoisonPhase.TRIAL,
    (PoisonPhase.BEYOND, Event.NONE_LEFT): PoisonPhase.NORMAL,
    (PoisonPhase.TRIAL, Event.FAILED): PoisonPhase.BEYOND,
    (PoisonPhase.TRIAL, Event.PASSED): PoisonPhase.NORMAL,
}


class PoisonDetector:
    """Counts failures by position, and decides who goes next and who is given up."""

    def __init__(self) -> None:
        self.phase = PoisonPhase.NORMAL
        self._sensor_of: dict[int, str] = {}  # what is in flight, or was refused in this round
        self._shunned: set[str] = set()  # sensors that BEYOND passes over
        self._known: dict[str, None] = {}  # sensors of which something has passed, newest last
        self._takes_strangers = False  # BEYOND: nothing is left of those that are known
        self._by_sensor = True  # BEYOND passes over sensors; else over the accused alone
        self._reached = 0  # how far BEYOND has come
        self._deaths: dict[int, int] = {}  # the accused, and how often each was alone at a death
        self._deaths_in_a_row = 0
        self._deliveries = 0
        self._controls = 0  # deliveries since the last trial failed
        self._delivered_before_round = -1
        self._careful_until, self._careful_size = 0, 1
        self._refusals: dict[int, tuple[int, int, int]] = {}  # position: code, times, deliveries

    # ---- who goes next --------------------------------------------------------------------------

    def window(self, size: int) -> int:
        """Return how many may be in flight now."""
        if self._deaths and (self.phase is PoisonPhase.TRIAL or self._deaths_in_a_row):
            return 1
        return min(size, self._careful_size) if self._careful_until else size

    def passes_over(self, position: int, sensor: str) -> bool:
        """Tell whether this reading, the next in order, is to wait for now."""
        if self.phase is PoisonPhase.TRIAL and position > self._reached:
            self._end()
        if self.phase is not PoisonPhase.BEYOND:
            return False
        enough = DEATHS_MAX if self._by_sensor else 1
        if position in self._refusals or self._deaths.get(position, 0) >= enough:
            return True
        if self._by_sensor and (sensor in self._shunned or self._is_stranger(sensor)):
            return True
        self._reached = max(self._reached, position)
        return False

    def _is_stranger(self, sensor: str) -> bool:
        return bool(self._known) and not self._takes_strangers and sensor not in self._known

    @property
    def trial_is_due(self) -> bool:
        """Whether enough others have passed; the trial begins when nothing is in flight."""
        return self.phase is PoisonPhase.BEYOND and self._controls >= TRIAL_EVERY

    def begin_trial(self) -> None:
        """Take up those that were passed over, the oldest first."""
        self._move(Event.PASSED)

    def exhausted(self) -> bool:
        """Note that nothing else waits; tell whether there is now something else to try."""
        if self.phase is PoisonPhase.NORMAL:
            return False
        if self.phase is PoisonPhase.TRIAL:
            self._end()
            return True
        if self._controls:
            self.begin_trial()
            return True
        if self._by_sensor and self._known and not self._takes_strangers:
            self._takes_strangers = True
            return True
        if self._by_sensor and self._deaths:
            self._by_sensor = False
            return True
        if not self._deaths and not self._refusals:  # the guilty are buried
            self.begin_anew()
            return True
        return False

    def begin_anew(self) -> None:
        """Try all in order again: there is no other reading that could prove anything."""
        self._move(Event.NONE_LEFT)
        self._shunned.clear()
        self._by_sensor, self._takes_strangers = True, False

    @property
    def is_calm(self) -> bool:
        """Whether no reading is in trouble, and none is in the way of others."""
        in_trouble = self._deaths or self._refusals or self._deaths_in_a_row
        return self.phase is PoisonPhase.NORMAL and not in_trouble

    @property
    def is_urgent(self) -> bool:
        """Whether a reading may be the reason for the deaths, so that waiting is of no use."""
        return 0 < self._deaths_in_a_row <= URGENT_DEATHS_MAX

    # ---- what happened --------------------------------------------------------------------------

    def sent(self, position: int, sensor: str) -> None:
        """Note that a reading is in flight."""
        self._sensor_of[position] = sensor

    def delivered(self, position: int) -> None:
        """Note an acknowledgement: it acquits the reading, and its sensor for now."""
        self._deliveries += 1
        self._controls += 1
        self._deaths_in_a_row = 0
        self._refusals.pop(position, None)
        self._deaths.pop(position, None)
        sensor = self._sensor_of.pop(position, "")
        self._shunned.discard(sensor)
        self._meet(sensor)
        if position >= self._careful_until:
            self._careful_until = 0

    def _meet(self, sensor: str) -> None:
        self._known.pop(sensor, None)
        self._known[sensor] = None
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def refused(self, position: int, code: int) -> Burials:
        """Note that the broker refused one reading; return it if it is to be given up."""
        last_code, times, deliveries = self._refusals.get(position, (code, 0, -1))
        if last_code != code:
            times = 0
        blamed = code in reason_codes.BLAMES_MESSAGE
        if self._deliveries > deliveries:
            times += 1
        self._refusals[position] = (code, times, self._deliveries)
        if times < (BLAMED_MAX if blamed else REFUSED_MAX):
            return []
        self._forget(position)
        return [(position, f"refused {times} times: {reason_codes.name_of(code)}")]

    def drained(self, refused: list[int]) -> None:
        """Note the end of a round in which these were refused, and all others answered."""
        fruitless = self._deliveries == self._delivered_before_round
        self._delivered_before_round = self._deliveries
        if fruitless or self.phase is not PoisonPhase.NORMAL:
            self._shun(refused)

    def lost(self, in_flight: list[int], code: int) -> Burials:
        """Note that the connection died with these in flight, oldest first; return the guilty."""
        if not in_flight:
            return []
        self._deaths_in_a_row += 1
        self._careful_until = max(self._careful_until, *in_flight)
        self._careful_size = max(1, len(in_flight) // SHRINK)
        if len(in_flight) > 1:
            self._sensor_of.clear()
            return []
        (alone,) = in_flight
        died = self._deaths[alone] = self._deaths.get(alone, 0) + 1
        on_trial = self.phase is PoisonPhase.TRIAL
        if (
            on_trial
            or died >= DEATHS_MAX
            or (self.phase is PoisonPhase.BEYOND and not self._controls)
        ):
            self._shun(in_flight)
        self._sensor_of.clear()
        if not on_trial or died < DEATHS_MAX:
            return []
        self._forget(alone)
        return [(alone, f"ends the connection whenever it is sent: {reason_codes.name_of(code)}")]

    # ---- the phase ------------------------------------------------------------------------------

    def _shun(self, positions: list[int]) -> None:
        """Let others go before the sensors of these."""
        self._takes_strangers = False
        self._shunned.update(
            self._sensor_of.pop(position) for position in positions if position in self._sensor_of
        )
        if self.phase is PoisonPhase.TRIAL:
            self._controls = 0
            self._move(Event.FAILED)
            return
        if self.phase is PoisonPhase.NORMAL:
            self._controls = 0
            self._reached = 0
        self._move(Event.STUCK)

    def _end(self) -> None:
        """End a trial that all have passed, or in which the guilty were found."""
        self._move(Event.PASSED)
        self._shunned.clear()
        self._by_sensor, self._takes_strangers = True, False

    def _forget(self, position: int) -> None:
        self._deaths.pop(position, None)
        self._refusals.pop(position, None)
        self._sensor_of.pop(position, None)

    def _move(self, event: Event) -> None:
        self.phase = TRANSITIONS[self.phase, event]
