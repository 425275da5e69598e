"""Who announced its sleep: how much of it is left, and when it should have woken up.

A device that saves its battery says before it goes silent for how long. Members do not share a
clock, so an announcement carries seconds, counted from when it is told: whoever passes it on says
how much of the time is left by then. So it does not matter how late somebody hears of a sleep.

A sleeper cannot answer accusations, so none is believed about it before its time is over; and when
the time is over it has ``Tuning.sleep_grace_s`` more to get its first packet through. Whoever is
silent still is then dead. Any newer incarnation ends a sleep, and so does a later life.
"""

import math

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.tuning import Tuning
from gossip.membership.dissemination.broadcast_queue import TransmitLimitedQueue
from gossip.membership.model.members import Member, MemberState, MemberTable
from gossip.membership.model.messages import DATAGRAMS, SLEEP_S_MAX, Asleep


class SleepingMembers:
    """The members that are asleep, ourselves among them if we are."""

    def __init__(
        self, me: NodeId, members: MemberTable, update_queue: TransmitLimitedQueue, tuning: Tuning
    ) -> None:
        self._me = me
        self._members = members
        self._update_queue = update_queue
        self._tuning = tuning
        self._now: Instant = 0.0
        self._overdue_at: dict[NodeId, Instant] = {}

    def record(self, member: Member) -> None:
        """Count the time of a member that is listed as asleep from now on."""
        assert member.state is MemberState.ASLEEP, "only sleepers are waited for"
        assert member.asleep_until is not None, "a sleep has an end"
        self._overdue_at[member.id] = member.asleep_until + self._tuning.sleep_grace_s
        self._update_queue.put(member.id, DATAGRAMS.encode(self.update_of(member)))

    def forget(self, node: NodeId) -> None:
        """Count no more: it is awake, or gone."""
        self._overdue_at.pop(node, None)

    def update_of(self, member: Member) -> Asleep:
        """Return the announcement as it has to be told now."""
        assert member.asleep_until is not None, "a sleep has an end"
        left_s = math.ceil(max(0.0, member.asleep_until - self._now))
        announced_s = member.announced_s or SLEEP_S_MAX
        told = min(left_s, announced_s), member.announced_s, member.absence
        return Asleep(member.id, member.boot, member.incarnation, *told)

    def advance(self, now: Instant) -> None:
        """Let the announcements that still go round say what is left now."""
        self._now = now
        for node in self._overdue_at:
            if self._update_queue.transmits(node) is not None:
                self._update_queue.replace_payload(
                    node, DATAGRAMS.encode(self.update_of(self._members[node]))
                )

    def overdue(self, now: Instant) -> list[NodeId]:
        """Return who should have woken up, in the order of ids. We do not judge ourselves."""
        if not self._overdue_at:
            return []
        due = [node for node, at in self._overdue_at.items() if at <= now and node != self._me]
        return sorted(due)

    def deadline(self) -> Instant:
        """Return when the next sleeper is overdue; infinity if nobody sleeps."""
        if not self._overdue_at:
            return math.inf
        return min(
            (at for node, at in self._overdue_at.items() if node != self._me), default=math.inf
        )

    def extend_deadlines(self, now: Instant) -> None:
        """Give all the full grace again: we were away ourselves, and could not hear them wake."""
        grace_s = self._tuning.sleep_grace_s
        for node, at in self._overdue_at.items():
            self._overdue_at[node] = max(at, now + grace_s)
