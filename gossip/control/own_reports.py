"""This node's reports of its own stability, to whoever leads.

The leader's memory of them begins anew with each leader, so a new one is told as soon as this node
hears of it. One that was heard is repeated seldom enough that a node which wants nothing of the
control plane costs nothing that could be measured. Who does not lead says who does; while nobody
knows, one node after the other is asked.
"""

from collections import deque
from collections.abc import Callable

from gossip.consensus.configuration import StoreId
from gossip.control.directory import VoterDirectory
from gossip.control.messages import StabilityAsk
from gossip.control.outbound import ControlOutbound
from gossip.control.stability import StabilityReport
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

AGAIN_FIRST_S, AGAIN_MAX_S = 1.0, 300.0
"""What nobody has heard is told again after this, to another one perhaps, later and later."""
SAVES_KEPT, SAVES_MIN = 100, 3


class OwnReports:
    """Measures how this node is, and tells the leader."""

    def __init__(
        self,
        outbound: ControlOutbound,
        directory: VoterDirectory,
        store: StoreId,
        follows: Callable[[], tuple[int, StoreId]],
        is_halted: Callable[[], bool],
        now: Instant,
        *,
        every_s: float,
        hangs_s: float,
        is_on_mains: bool | None,
    ) -> None:
        """``follows`` returns the generation of our copy, and its origin.

        A save that does not end within ``hangs_s`` is one that the disk does not take.
        """
        assert hangs_s > 0, "each save takes some time"
        self._outbound = outbound
        self._directory = directory
        self._store = store
        self._every_s = every_s
        self._follows = follows
        self._is_halted = is_halted
        self._hangs_s = hangs_s
        self._is_on_mains = is_on_mains
        self._started_at = now
        self._due = now
        self._again_s = AGAIN_FIRST_S
        self._target: NodeId | None = None
        self._asked = 0
        self._saving: dict[int, Instant] = {}
        self._saves_s: deque[float] = deque(maxlen=SAVES_KEPT)
        self._ended_at: Instant = now
        """When the last save ended."""
        self._is_held = False
        self._takes_writes = True
        self._told_of = 0
        """The generation that was told of last."""

    # Measuring.

    def saving(self, token: int, now: Instant) -> None:
        """A batch goes to the disk."""
        assert token not in self._saving, "each batch is handed out once"
        self._saving[token] = now

    def saved(self, token: int, now: Instant) -> None:
        """A batch is on the disk."""
        since = self._saving.pop(token, None)
        self._ended_at = now
        if since is not None:
            self._saves_s.append(now - since)
        self.look(now)

    def hold_back(self, now: Instant, *, held: bool) -> None:
        """The disk takes nothing, or again."""
        self._is_held = held
        self.look(now)

    def look(self, now: Instant) -> None:
        """Look whether we take writes: if that has changed, it is news."""
        hangs = self.save_hangs_s(now) > 0
        takes_writes = not (self._is_held or hangs or self._is_halted())
        if takes_writes != self._takes_writes:
            self._takes_writes = takes_writes
            self._due = now

    def _hangs_at(self) -> Instant | None:
        """Return when the disk is one that takes nothing, if no save ends until then."""
        first = next(iter(self._saving.values()), None)
        return None if first is None else max(first, self._ended_at) + self._hangs_s

    def save_hangs_s(self, now: Instant) -> float:
        """Return for how long the disk has owed us the end of a save, if that is too long."""
        hangs_at = self._hangs_at()
        return 0.0 if hangs_at is None or now < hangs_at else now - hangs_at + self._hangs_s

    @property
    def takes_writes(self) -> bool:
        """Whether this node could write and understand what is agreed on, when it was looked at."""
        return self._takes_writes

    def report(self, now: Instant) -> StabilityReport:
        """Return how this node is."""
        return StabilityReport(
            self._store,
            int(now - self._started_at),
            self._fsync_p99_ms(),
            self._is_on_mains,
            self._takes_writes,
            *self._follows(),
        )

    def _fsync_p99_ms(self) -> int | None:
        if len(self._saves_s) < SAVES_MIN:
            return None
        slowest = sorted(self._saves_s)[int(0.99 * (len(self._saves_s) - 1))]
        return int(1000 * slowest)

    # Telling.

    def leader_changed(self, now: Instant) -> None:
        """Tell another leader soon."""
        if self._directory.leader not in (None, self._target):
            self._due = now

    def follows_another(self, now: Instant) -> None:
        """Our copy is another one: whoever leads is to know, if it is of a later generation."""
        if self._told_of not in (0, self._follows()[0]):
            self._due = now

    def asked(self, number: int) -> NodeId | None:
        """Return whom the report under way was sent to."""
        return self._target if number == self._asked else None

    def answered(self, number: int, now: Instant) -> bool:
        """The leader was told; False if nobody asked."""
        if number != self._asked:
            return False
        self._asked, self._again_s = 0, AGAIN_FIRST_S
        self._due = now + self._every_s
        return True

    def redirected(self, number: int, now: Instant) -> bool:
        """It does not lead, but knows who does, perhaps; False if nobody asked."""
        if number != self._asked:
            return False
        if self._directory.leader in (None, self._target):
            self._failed(now)
        else:
            self._asked, self._due = 0, now
        return True

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """A peer cannot be reached: what it has not confirmed may be lost."""
        if self._asked and peer == self._target:
            self._failed(now)

    def _failed(self, now: Instant) -> None:
        assert self._target is not None, "somebody was asked"
        self._directory.failed(self._target)
        self._target, self._asked = None, 0
        self._due = now + self._again_s
        self._again_s = min(2 * self._again_s, AGAIN_MAX_S)

    def wake(self, now: Instant) -> None:
        """Tell the leader when it is time to."""
        self.look(now)
        if self._due > now:
            return
        self._directory.forgive()
        self._target = self._directory.leader or self._directory.any_voter()
        self._due = now + self._again_s
        self._again_s = min(2 * self._again_s, AGAIN_MAX_S)
        if self._target is not None:
            self._told_of = self._follows()[0]
            self._asked = self._outbound.ask(StabilityAsk(self.report(now)), self._target)

    def deadline(self) -> Instant:
        """Return when to tell, or to look whether a save hangs."""
        hangs_at = self._hangs_at() if self._takes_writes else None
        return self._due if hangs_at is None else min(self._due, hangs_at)
