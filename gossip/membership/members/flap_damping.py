"""Members that die and come back, again and again: damped, as routers damp flapping routes.

Each return from the dead adds 1 to a member's *penalty*, which halves with time (RFC 2439 is the
model). From ``flapping_from`` on the member *flaps*, until the penalty has fallen below
``flapping_until``. The penalty has a ceiling, so that there is a longest time after which good
conduct is believed. Two things follow, and what is believed about the member is not one of them:

* People are told of its changes once in a while, with the number of those not told in between.
* If it came back in the *same life*, then it had not died: its link is bad. So suspicions of it
  last longer, by a bounded factor. A program that crashes again and again is not treated so.
"""

from collections import Counter

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.tuning import Tuning
from gossip.membership.model.members import MemberState

FORGOTTEN_BELOW = 0.1


class FlapRecord:
    """What one member has done."""

    __slots__ = ("at", "notified_at", "notified_state", "penalty", "suppressed", "wrongly")

    def __init__(self, now: Instant) -> None:
        self.at = now
        self.penalty = 0.0
        self.wrongly = 0.0
        """The part of the penalty that is for deaths which were none."""
        self.notified_at: Instant | None = None
        self.notified_state: MemberState | None = None
        """What people were last told, while the member flaps."""
        self.suppressed = 0


class FlapDamping:
    """Counts returns from the dead; bounded by the number of members listed."""

    def __init__(self, tuning: Tuning, counts: Counter[str]) -> None:
        self._tuning = tuning
        self._counts = counts
        self._records: dict[NodeId, FlapRecord] = {}

    def came_back(self, node: NodeId, now: Instant, *, same_life: bool) -> None:
        """Note that a member is there that was dead."""
        record = self._records.setdefault(node, FlapRecord(now))
        self._decay(record, now)
        was_flapping = self._is_damped(record)
        record.penalty = min(record.penalty + 1, self._tuning.flapping_most)
        record.wrongly = min(record.wrongly + same_life, record.penalty)
        if not was_flapping and self._is_damped(record):
            self._counts["flapping/begun"] += 1

    def is_flapping(self, node: NodeId, now: Instant) -> bool:
        """Say whether the member comes and goes too often."""
        record = self._records.get(node)
        if record is None:
            return False
        self._decay(record, now)
        return self._is_damped(record)

    def patience(self, node: NodeId, now: Instant) -> float:
        """Return how much longer than others this member is suspected before it is dead."""
        if not self.is_flapping(node, now):
            return 1.0
        share = self._records[node].wrongly / self._tuning.flapping_most
        return 1.0 + share * (self._tuning.flapping_patience - 1.0)

    def notify(self, node: NodeId, state: MemberState, now: Instant) -> int | None:
        """Return how many changes went untold if this one is to be told; None if it is not."""
        if not self.is_flapping(node, now):
            record = self._records.get(node)
            suppressed = 0 if record is None else record.suppressed
            if record is not None:
                record.suppressed, record.notified_at, record.notified_state = 0, None, None
            return suppressed
        record = self._records[node]
        if (
            record.notified_at is not None
            and now - record.notified_at < self._tuning.flapping_notice_s
        ):
            record.suppressed += 1
            self._counts["flapping/changes not told"] += 1
            return None
        suppressed, record.suppressed = record.suppressed, 0
        record.notified_at, record.notified_state = now, state
        return suppressed

    def suppressed(self, now: Instant) -> list[tuple[NodeId, MemberState | None]]:
        """Return whose latest change was not told and may be now, with what was told last."""
        self._forgive(now)
        return [
            (node, record.notified_state)
            for node, record in sorted(self._records.items())
            if record.suppressed
            and record.notified_at is not None
            and now - record.notified_at >= self._tuning.flapping_notice_s
        ]

    def forget(self, node: NodeId) -> None:
        """Drop the record of a member that is no longer listed."""
        self._records.pop(node, None)

    def _is_damped(self, record: FlapRecord) -> bool:
        """Once begun, flapping ends at the lower of the two bounds."""
        bound = self._tuning.flapping_from
        if record.notified_at is not None:
            bound = self._tuning.flapping_until
        return record.penalty >= bound

    def _decay(self, record: FlapRecord, now: Instant) -> None:
        factor = 0.5 ** (max(0.0, now - record.at) / self._tuning.flapping_half_life_s)
        record.penalty *= factor
        record.wrongly *= factor
        record.at = max(now, record.at)

    def _forgive(self, now: Instant) -> None:
        for node, record in tuple(self._records.items()):
            self._decay(record, now)
            if record.penalty < FORGOTTEN_BELOW and not record.suppressed:
                del self._records[node]
