"""How other nodes' copies of the log stand: for operators, and to notice another generation.

After a lost majority an operator lets one copy go on, in the next generation. Voters of the former
one that come back would go on in theirs. Whoever hears a word of another generation therefore asks
the speaker how it stands, and says how it stands itself, so that both know. The later generation
counts, once a majority follows a leader in it: who takes part in a former one ends that, and begins
as another store. Two recoveries that knew nothing of each other are of *one* generation, and differ
by their origin: neither gives way, nothing of one gets into the other, and both are told. An
operator ends that by recovering once more where it shall go on: then that one is later.

**Who is believed.** Nobody signs a recovery, so a later generation counts from those alone who
could as well end the agreement otherwise: who votes by our own copy, and who holds the authority's
key by the registry, which carries the authority's signature and gets to whoever was away. A voter
believes nobody else, for one word of a liar would end its log: where a node went on that was
neither, an operator says so at each voter of before (``trust``). A copy without a vote that has
heard no leader for long goes after anybody, or nobody could follow such a node; but it sets aside
what it has, as a voter does.
"""

from collections.abc import Callable

import msgspec

from gossip.control.messages import CopyStanding, StandingAnswer, StandingAsk
from gossip.control.outbound import ControlOutbound
from gossip.control.requests import (
    ControlCompleted,
    ControlSurvey,
    GenerationDoubted,
    GenerationForked,
    GenerationSuperseded,
    SurveyResult,
    sooner,
)
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

PATIENCE_S = 5.0
"""A question that was not answered by then is not waited for."""
AGAIN_S = 5.0
"""One node is not asked more often than this, however much it says."""
ASKED_MAX = 256
FORKS_MAX = 8
DOUBTED_MAX = 8
GENERATION_LEAP_MAX = 2**16
"""Each recovery is one; who names one so much later would leave us none to count on with."""


class OpenSurvey(msgspec.Struct):
    """One survey that an operator waits for."""

    request: int
    until: Instant
    awaited: set[NodeId]
    found: dict[NodeId, CopyStanding]


class Standings:
    """Asks others how they stand, and draws the conclusion."""

    def __init__(
        self,
        outbound: ControlOutbound,
        own: Callable[[], CopyStanding],
        hear: Callable[[CopyStanding, Instant], None],
        may_tell: Callable[[NodeId], bool],
        has_vote: Callable[[], bool],
        is_alone: Callable[[Instant], bool],
    ) -> None:
        """``hear`` takes over whom the later generation follows.

        ``may_tell``: whether a node votes by our copy, or is an issuer. ``has_vote``: whether we
        do. ``is_alone``: whether we only copy, and have heard no leader for long.
        """
        self._outbound = outbound
        self._own = own
        self._hear = hear
        self._may_tell, self._has_vote, self._is_alone = may_tell, has_vote, is_alone
        self._trusted: set[NodeId] = set()
        self._followed = 0
        self._asked: dict[int, tuple[NodeId, Instant]] = {}
        self._met_at: dict[NodeId, Instant] = {}
        self._surveys: list[OpenSurvey] = []
        self._is_superseded = False
        self.forks: dict[int, NodeId] = {}
        """Who follows another origin of our generation, by that origin."""
        self.doubted: dict[NodeId, int] = {}
        """Who says that a later generation has begun, which one, and is not believed."""

    def __len__(self) -> int:
        return len(self._surveys)

    # Asking.

    def met(self, peer: NodeId, now: Instant) -> None:
        """A word of another generation came from this node: find out, and let it know."""
        if now - self._met_at.get(peer, now - AGAIN_S) < AGAIN_S or peer == self._outbound.me:
            return
        if len(self._met_at) >= ASKED_MAX:
            self._met_at.clear()
        self._met_at[peer] = now
        self._ask(peer, now)

    def _ask(self, peer: NodeId, now: Instant) -> None:
        if len(self._asked) < ASKED_MAX:
            number = self._outbound.ask(StandingAsk(self._own()), peer)
            self._asked[number] = peer, now + PATIENCE_S

    def survey(self, request: int, survey: ControlSurvey, now: Instant) -> None:
        """Ask all of these nodes."""
        others = set(survey.nodes[:ASKED_MAX]) - {self._outbound.me}
        self._surveys.append(OpenSurvey(request, now + survey.timeout_s, others, {}))
        for node in sorted(others):
            self._ask(node, now)
        self._end_surveys(now)

    def cancel(self, request: int) -> bool:
        """Forget a survey; False if there is none."""
        before = len(self._surveys)
        self._surveys = [each for each in self._surveys if each.request != request]
        return len(self._surveys) < before

    # Answering, and being answered.

    def told(self, number: int, ask: StandingAsk, peer: NodeId, now: Instant) -> None:
        """Answer; and ask back where the other one is of another generation than we."""
        own = self._own()
        self._outbound.answer(number, StandingAnswer(own), peer)
        if not _is_one(own, ask.standing):
            self.met(peer, now)

    def asked(self, number: int) -> NodeId | None:
        """Return whom a question under way was sent to."""
        asked = self._asked.get(number)
        return asked[0] if asked else None

    def answered(self, number: int, standing: CopyStanding, now: Instant) -> bool:
        """Take in how somebody stands; False if nobody asked."""
        asked = self._asked.pop(number, None)
        if asked is None:
            return False
        for survey in self._surveys:
            if asked[0] in survey.awaited:
                survey.awaited.discard(asked[0])
                survey.found[asked[0]] = standing
        self._conclude(standing, asked[0], now)
        self._end_surveys(now)
        return True

    def redirected(self, number: int, now: Instant) -> bool:
        """Somebody does not understand the question; False if nobody asked."""
        asked = self._asked.pop(number, None)
        if asked is None:
            return False
        self._not_awaited(asked[0], now)
        return True

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """A node cannot be reached: nobody waits for it."""
        self._asked = {n: asked for n, asked in self._asked.items() if asked[0] != peer}
        self._not_awaited(peer, now)

    def _not_awaited(self, peer: NodeId, now: Instant) -> None:
        for survey in self._surveys:
            survey.awaited.discard(peer)
        self._end_surveys(now)

    def trust(self, peer: NodeId, now: Instant) -> None:
        """An operator says that this node tells the truth: ask it."""
        self._trusted.add(peer)
        self._ask(peer, now)

    def believes(self, peer: NodeId, generation: int) -> bool:
        """Tell whether our copy may take over what this node has of a later generation.

        Not that of a voter: what it has is set aside first.
        """
        if self._is_superseded or self._has_vote():
            return False
        return generation <= self._followed or peer in self._trusted or self._may_tell(peer)

    def _conclude(self, standing: CopyStanding, peer: NodeId, now: Instant) -> None:
        own = self._own()
        is_later = standing.generation > own.generation
        is_chosen = peer in self._trusted and _is_rival(own, standing)
        if (is_later or is_chosen) and standing.has_majority:
            self._later(own, standing, peer, now)
        elif _is_rival(own, standing):
            self.forked(standing.origin, peer)

    def _later(self, own: CopyStanding, standing: CopyStanding, peer: NodeId, now: Instant) -> None:
        """A majority follows a leader in a later generation, says this node."""
        is_leap = 0 < own.generation < standing.generation - GENERATION_LEAP_MAX
        is_told = peer in self._trusted or self._may_tell(peer)
        has_part = own.takes_part or self._has_vote()
        named = [each for each in standing.hearsay.voters if self._may_tell(each)]
        goes_after_anybody = not (has_part or named) and self._is_alone(now)
        if is_leap or not (is_told or goes_after_anybody):
            self._doubt(own, standing, peer)
            for voter in named:
                self.met(voter, now)
            return
        self.doubted.clear()
        if has_part or (own.generation and not is_told):
            self._supersede(own, standing, peer)
        else:
            self._followed = max(self._followed, standing.generation)
        if has_part or is_told or not own.generation:
            self._hear(standing, now)

    def _supersede(self, own: CopyStanding, standing: CopyStanding, peer: NodeId) -> None:
        if not self._is_superseded:
            self._is_superseded = True
            self._outbound.counts["control_generations/superseded"] += 1
            told = own.generation, standing.generation, standing.origin, peer
            self._outbound.emit(GenerationSuperseded(*told))

    def _doubt(self, own: CopyStanding, standing: CopyStanding, peer: NodeId) -> None:
        """Note, once, what is not believed."""
        if self.doubted.get(peer) == standing.generation or len(self.doubted) >= DOUBTED_MAX:
            return
        self.doubted[peer] = standing.generation
        self._outbound.counts["control_generations/doubted"] += 1
        self._outbound.emit(GenerationDoubted(own.generation, standing.generation, peer))

    def forked(self, origin: int, peer: NodeId) -> None:
        """A node follows another recovery of our generation; one at a time."""
        if origin in self.forks:
            return
        self.forks = {known: node for known, node in self.forks.items() if node != peer}
        if len(self.forks) >= FORKS_MAX:
            return
        self.forks[origin] = peer
        self._outbound.counts["control_generations/forked"] += 1
        self._outbound.emit(GenerationForked(self._own().generation, origin, peer))

    # What the clock brings.

    def wake(self, now: Instant) -> None:
        """Wait no longer for what was not answered; forget forks of a generation that is over."""
        late = [number for number, (_, until) in self._asked.items() if until <= now]
        for number in late:
            del self._asked[number]
        self._end_surveys(now)

    def generation_changed(self) -> None:
        """This node follows another generation: what was a fork of the former one is none."""
        self.forks.clear()
        self.doubted.clear()

    def _end_surveys(self, now: Instant) -> None:
        for survey in [e for e in self._surveys if not e.awaited or e.until <= now]:
            self._surveys.remove(survey)
            found = tuple(sorted(survey.found.items()))
            result = SurveyResult(self._own(), found)
            self._outbound.emit(ControlCompleted(survey.request, 0, result))

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        if not self._asked and not self._surveys:
            return None
        due = min((until for _, until in self._asked.values()), default=None)
        for survey in self._surveys:
            due = sooner(due, survey.until)
        return due


def _is_rival(own: CopyStanding, other: CopyStanding) -> bool:
    """Tell whether another copy is of another recovery of our generation."""
    return other.generation == own.generation and not _is_one(own, other)


def _is_one(one: CopyStanding, other: CopyStanding) -> bool:
    """Tell whether two copies are of one agreement, or one of them is of none yet."""
    if one.generation != other.generation:
        return not (one.generation and other.generation)
    return one.origin == other.origin or not (one.origin and other.origin)
