"""Our own absences: a goodbye, and an announced sleep.

Both are said in the same way, first in every packet and several times to everybody, and neither is
an accusation that anybody has to confirm. After a goodbye the machine rests for good. In a sleep
it only stops to speak by itself: it probes nobody, judges nobody and exchanges nothing. It still
answers whoever asks, in packets that say first that it sleeps, for the process may well go on
running while only the radio is off.

A sleep ends when its time is over, when somebody says ``awaken``, or when we notice that we were
suspended and are running again. Then we take a new incarnation and say so before all else.
"""

import math

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.core.machine import Instant
from gossip.membership.detection.shared_parts import SharedParts
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.members import MemberState, MemberTable
from gossip.membership.model.messages import SLEEP_S_MAX, Left

TRANSMITS = 3
"""How often an absence is told to everybody; what that misses, updates and exchanges find."""
RECEIVERS_MAX = 64
SLEEP_S_MIN = 1.0


class PlannedAbsence:
    """Whether we are leaving or asleep, and how far we have told it."""

    def __init__(
        self,
        shared: SharedParts,
        updates: MemberUpdates,
    ) -> None:
        self.leaving = False
        self.left = False
        """Whether we said goodbye often enough; the machine does nothing any more."""
        self.slept_since: Instant = 0.0
        self._local = shared.local
        self._member_list = shared.member_list
        self._members: MemberTable = shared.members
        self._updates = updates
        self._outbound = shared.outbound
        self._signatures = shared.signatures
        self._tuning = shared.tuning
        self._rng = shared.rng
        self._transmits = 0
        self._transmit_at: Instant = math.inf
        self._looked_at: Instant = 0.0

    @property
    def asleep_until(self) -> Instant | None:
        """When our announced sleep ends; None while we are awake."""
        return self._local.asleep_until

    @property
    def is_away(self) -> bool:
        """Whether we are leaving or asleep."""
        return self.leaving or self.asleep_until is not None

    @property
    def is_transmitted(self) -> bool:
        """Whether the absence was told as often as it is told."""
        return self._transmits >= TRANSMITS

    # How it begins and ends.

    def leave(self, now: Instant) -> None:
        """Begin to say goodbye."""
        assert not self.leaving, "one goodbye per life"
        self.leaving = True
        local = self._local
        self._forget_sleep()
        # Above everything that is on its way about us, so that nothing brings us back.
        local.rise_above(local.incarnation)
        self._outbound.update_queue.drop(local.id)
        goodbye = Left(local.id, local.boot, local.incarnation)
        signature = self._signatures.sign(goodbye.said())
        self._outbound.first_message = msgspec.structs.replace(goodbye, signature=signature)
        ourselves = msgspec.structs.replace(
            self._members[local.id],
            state=MemberState.LEFT,
            incarnation=local.incarnation,
            asleep_until=None,
            absence=signature,
        )
        self._member_list.put(ourselves, now)
        self._transmits, self._transmit_at = 0, now

    def sleep(self, duration_s: float, now: Instant) -> None:
        """Begin an announced sleep, or announce another end of it. Raises InvalidRequest."""
        if not SLEEP_S_MIN <= duration_s <= SLEEP_S_MAX:
            raise InvalidRequest(
                f"a sleep lasts from {SLEEP_S_MIN:g} s to {SLEEP_S_MAX // 86400} days; "
                "nothing was announced"
            )
        local = self._local
        if local.asleep_until is None:
            self.slept_since = now
        local.asleep_until = now + duration_s
        local.rise_above(local.incarnation)
        self._updates.announce(now)
        self._outbound.counts["sleeps/announced"] += 1
        self._looked_at = now
        self._transmits, self._transmit_at = 0, now

    def awaken(self) -> None:
        """End our sleep; the caller tells it to the others."""
        self._forget_sleep()
        self._outbound.first_message = None
        self._transmit_at = math.inf
        self._outbound.counts["sleeps/ended"] += 1

    def _forget_sleep(self) -> None:
        self._local.asleep_until = None
        self._updates.sleepers.forget(self._local.id)

    # Time.

    def advance(self, now: Instant) -> None:
        """Let all that we say about a sleep, ours or another's, be true at this instant."""
        self._updates.sleepers.advance(now)
        if self.asleep_until is not None:
            self._updates.set_first_message(self._members[self._local.id])

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due.

        A sleeper looks at the clock again and again, for only then can it notice a suspension.
        """
        if self.leaving:
            return self._transmit_at
        assert self.asleep_until is not None, "asked only while we are away"
        look_at = self._looked_at + self._tuning.pause_s
        return min(self._transmit_at, self.asleep_until, look_at)

    def wake(self, now: Instant) -> bool:
        """Tell the absence again if that is due; say whether a sleep is over."""
        self._looked_at = now
        if self._transmit_at <= now:
            self._broadcast(now)
        return self.asleep_until is not None and self.asleep_until <= now

    def _broadcast(self, now: Instant) -> None:
        if self.is_transmitted:
            self.left, self._transmit_at = self.leaving, math.inf
            return
        self._transmits += 1
        self._transmit_at = now + self._tuning.leave_linger_s / TRANSMITS
        for member in self._members.sample_others(self._local.id, RECEIVERS_MAX, self._rng):
            self._outbound.send(member.addresses_by_preference[0])
        # Whom we hold for dead may be paused only, and would mourn us when it goes on.
        dead = [each for each in self._members.in_state(MemberState.DEAD) if each.has_address]
        for member in self._rng.sample(dead, min(RECEIVERS_MAX, len(dead))):
            self._outbound.send(member.addresses_by_preference[0])
