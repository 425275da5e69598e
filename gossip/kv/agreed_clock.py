"""The time that this node may judge by: that which most others have, or none.

A clock that stands in 2099 must not delete what everybody keeps for a week, and one in 1970 must
not keep it for a century. So a node asks some of the others what time it is, and goes by its own
clock only if that is within a minute of what most of those asked, itself among them, say. Silence
is no consent: two whose clocks went wrong together would else be a majority whenever others sleep.
From then on the time goes on as the steady clock does, also while the node is cut off; the wall
clock is followed within a minute of it, and if it is set farther, not before it was compared anew.

    agreed     most of those asked have this time, or there is nobody else; by it is judged
    unheard    too few answered so far, and most of them have this time; nothing is judged, and the
               wall clock says when what is written now is to expire
    doubted    the first round is not over, most of those heard have another time, or it cannot be
               right: neither

Who has a clock that cannot be right (``gossip/core/hlc.py``) says so and counts for nothing.
"""

from collections.abc import Callable, Iterable

from gossip.core.hlc import AHEAD_MS_MAX, BELIEVABLE_MS_MIN
from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.limits import (
    CLOCK_AGAIN_S,
    CLOCK_INTERVAL_S,
    CLOCK_PEERS,
    CLOCK_ROUND_S,
    CLOCK_START_S,
)
from gossip.kv.messages import ClockReply, ClockRequest
from gossip.kv.outbound import OutboundFrames
from gossip.kv.registry_sync import RegistrySync

APART_MS_MAX = AHEAD_MS_MAX


class AgreedClock:
    """Compares this node's wall clock with those of others, and says whether it may be gone by."""

    def __init__(
        self,
        registry_sync: RegistrySync,
        outbound: OutboundFrames,
        order: Callable[[Iterable[NodeId]], list[NodeId]],
        wall_ms: Callable[[Instant], int],
        now: Instant,
    ) -> None:
        self._registry_sync, self._outbound, self._order = registry_sync, outbound, order
        self._wall_ms = wall_ms
        self.is_doubted = True
        """Whether the wall clock is not to be believed, as far as is known."""
        self._ahead_ms: float | None = None
        """How far the time that was agreed on is ahead of the steady clock."""
        self._set_ahead_ms: float | None = None
        """How far the wall clock was, when it was found to be set."""
        self._voices = 1
        """So many have a say in this round: those who were asked, and we."""
        self._number = 0
        self._asked: dict[NodeId, Instant] = {}
        self._others_ms: list[float] = []
        """How far each that answered is ahead of our steady clock."""
        self._begin_at = now + CLOCK_START_S
        self._end_at: Instant | None = None
        self._again_s = CLOCK_AGAIN_S

    def agreed_ms(self, now: Instant) -> int | None:
        """Return the Unix milliseconds by which may be judged; None if none are agreed on."""
        wall_ms = self._wall_ms(now)
        if self._is_alone():
            return wall_ms if wall_ms >= BELIEVABLE_MS_MIN else None
        if self._ahead_ms is None:
            return None
        ahead_ms = wall_ms - now * 1000
        if abs(ahead_ms - self._ahead_ms) <= APART_MS_MAX:
            return wall_ms
        if self._set_ahead_ms is None or abs(ahead_ms - self._set_ahead_ms) > APART_MS_MAX:
            self._set_ahead_ms = ahead_ms
            self._begin_at = min(self._begin_at, now)
            self._outbound.counts["clock_rounds/set"] += 1
        return round(now * 1000 + self._ahead_ms)

    def said_ms(self, now: Instant) -> int | None:
        """Return the Unix milliseconds that may be written down; None if they are doubted."""
        agreed_ms = self.agreed_ms(now)
        if agreed_ms is not None:
            return agreed_ms
        wall_ms = self._wall_ms(now)
        return None if self.is_doubted or wall_ms < BELIEVABLE_MS_MIN else wall_ms

    def _is_alone(self) -> bool:
        return len(self._registry_sync.registry.nodes) == 1

    def request(self, message: ClockRequest, peer: NodeId, now: Instant) -> None:
        """Tell a peer what time it is here; 0 if that cannot be right."""
        wall_ms = self._wall_ms(now)
        told = wall_ms if wall_ms >= BELIEVABLE_MS_MIN else 0
        self._outbound.send(ClockReply(message.number, told), peer)

    def reply(self, message: ClockReply, peer: NodeId, now: Instant) -> None:
        """A peer says what time it is there."""
        sent_at = self._asked.pop(peer, None) if message.number == self._number else None
        if sent_at is None:
            self._outbound.counts["frames_dropped/unexpected_answer"] += 1
            return
        if message.wall_ms:
            self._others_ms.append(message.wall_ms - (sent_at + now) / 2 * 1000)
        if not self._asked:
            self._end_round(now)

    def wake(self, now: Instant) -> None:
        """Begin a round, or end one with the answers that there are."""
        if self._end_at is not None and now >= self._end_at:
            self._end_round(now)
        if self._end_at is None and now >= self._begin_at:
            self._begin_round(now)

    def _begin_round(self, now: Instant) -> None:
        me = self._outbound.me
        others = self._order(n for n in self._registry_sync.registry.ids() if n != me)
        self._number = self._outbound.number()
        self._others_ms = []
        self._asked = dict.fromkeys(others[:CLOCK_PEERS], now)
        self._voices = len(self._asked) + 1
        assert me not in self._asked, "our own voice is counted apart"
        self._begin_at, self._end_at = now + CLOCK_INTERVAL_S, now + CLOCK_ROUND_S
        for node in self._asked:
            self._outbound.send(ClockRequest(self._number), node)
        if not self._asked:
            self._end_at = None
            self._go_by_ours(now)

    def _end_round(self, now: Instant) -> None:
        """Judge by what was heard; where that is too little, what was agreed on before holds on."""
        self._end_at, self._asked = None, {}
        outcome = self._judged(now)
        self._outbound.counts[f"clock_rounds/{outcome}"] += 1
        if self._ahead_ms is None:
            self._begin_at = now + self._again_s
            self._again_s = min(2 * self._again_s, CLOCK_INTERVAL_S)
        else:
            self._again_s = CLOCK_AGAIN_S

    def _judged(self, now: Instant) -> str:
        """Take over what follows from this round, and say what that is called."""
        wall_ms, heard = self._wall_ms(now), len(self._others_ms) + 1
        ahead_ms = wall_ms - now * 1000
        near = self._near(ahead_ms) if wall_ms >= BELIEVABLE_MS_MIN else 0
        assert heard <= self._voices, "nobody is heard who was not asked"
        if 2 * near > self._voices:
            self.is_doubted = False
            self._ahead_ms, self._set_ahead_ms = ahead_ms, None
            return "agreed"
        if self._ahead_ms is not None and 2 * self._near(self._ahead_ms) > heard:
            return "agreed_by_steady_clock"
        if 2 * near <= heard and heard > 1:
            self.is_doubted, self._ahead_ms = True, None
            return "doubted"
        self.is_doubted = False
        return "unheard"

    def _go_by_ours(self, now: Instant) -> None:
        """Agree with ourselves, as there is nobody else; whoever comes is asked then."""
        wall_ms = self._wall_ms(now)
        if wall_ms >= BELIEVABLE_MS_MIN:
            self._ahead_ms, self._set_ahead_ms = wall_ms - now * 1000, None
            self.is_doubted = False

    def adopted(self, now: Instant) -> None:
        """Ask who has come, where there was nobody before."""
        if self._voices == 1 and not self._is_alone():
            self._begin_at = min(self._begin_at, now + CLOCK_START_S)

    def _near(self, ahead_ms: float) -> int:
        """Return how many have the time that is so far ahead: of those heard, and we."""
        return 1 + sum(abs(other - ahead_ms) <= APART_MS_MAX for other in self._others_ms)

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        return self._begin_at if self._end_at is None else self._end_at
