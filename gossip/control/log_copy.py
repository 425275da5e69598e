"""The copy of a node that takes no part in the agreement: pulled from a voter, saved now and then.

What is pulled is committed, so a copy may be saved late or lost: it is pulled again. Nothing is
pulled before somebody on this node wants something of the control plane: then the question stays
with a voter until there is news, over streams that it keeps open, and this costs two frames a
minute.
"""

from collections.abc import Callable

import msgspec

from gossip.consensus.configuration import StoreId
from gossip.consensus.forms import entries_follow, is_possible
from gossip.consensus.messages import Entry, SnapshotMark
from gossip.consensus.storage import checksum
from gossip.control.directory import VoterDirectory
from gossip.control.messages import (
    AnswerBody,
    ChunkAnswer,
    ChunkAsk,
    MarkAnswer,
    PullAnswer,
    PullAsk,
    RedirectAnswer,
    RedirectReason,
)
from gossip.control.outbound import ControlOutbound
from gossip.core.errors import Malformed
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

WAIT_S = 55.0
"""How long a voter keeps the question of a copy that has everything."""
PATIENCE_S = 5.0
"""... and how much longer its answer may take."""
AGAIN_FIRST_S, AGAIN_MAX_S = 0.5, 10.0
NO_NEWS_S = 2.0
"""An answer that came at once and brought nothing is followed by the next question after this."""


class OpenAsk(msgspec.Struct, frozen=True):
    """The question that is under way; there is one at a time."""

    number: int
    target: NodeId
    until: Instant


class LogCopy:
    """Pulls the log while this node takes no part in the agreement."""

    def __init__(
        self,
        outbound: ControlOutbound,
        directory: VoterDirectory,
        applied: Callable[[], int],
        take: Callable[[tuple[Entry, ...], Instant], None],
        log_term: Callable[[], int],
        install: Callable[[SnapshotMark, bytes, Instant], None],
        origin: Callable[[], StoreId],
    ) -> None:
        self._outbound = outbound
        self._directory = directory
        self._applied = applied
        self._take = take
        self._log_term = log_term
        self._install = install
        self._origin = origin
        self.on_fork: Callable[[StoreId, NodeId], object] = lambda _origin, _peer: None
        """Told of another recovery of our generation, and who follows it."""
        self.on_later: Callable[[NodeId, Instant], object] = lambda _peer, _now: None
        """Told who has a later generation, and is not believed."""
        self.believes: Callable[[NodeId, int], bool] = lambda _peer, _generation: True
        """Whether a node may have what it says of a later generation."""
        self.generation = 0
        self.is_running = False
        self.heard_at: Instant | None = None
        """When a voter last answered."""
        self.has_leader = False
        self.led_at: Instant = 0.0
        """When a voter last said that it follows a leader, or we began to ask."""
        self._open: OpenAsk | None = None
        self._next_at: Instant = 0.0
        self._again_s = AGAIN_FIRST_S
        self._arriving: tuple[MarkAnswer, bytearray] | None = None

    def start(self, generation: int, now: Instant) -> None:
        """Pull from now on; ``generation`` 0: there is nothing here yet."""
        self.generation = generation
        self.is_running = True
        self._next_at = self.led_at = now

    def resume(self, generation: int) -> None:
        """Go on from here, once somebody wants it."""
        self.generation = generation

    def want(self, now: Instant) -> None:
        """Somebody on this node wants to know: pull from now on."""
        if not self.is_running:
            self.start(self.generation, now)

    def stop(self) -> None:
        """Pull no more: this node takes part."""
        self.is_running = False
        self._open = self._arriving = None

    @property
    def waits(self) -> bool:
        """Whether nobody is being asked at this moment, and somebody is to be."""
        return self.is_running and self._open is None

    def hurry(self, now: Instant) -> None:
        """There is news elsewhere, or a peer is back: do not wait for another try."""
        self._again_s = AGAIN_FIRST_S
        if self.waits:
            self._next_at = now

    def wake(self, now: Instant) -> None:
        """Ask when it is time to."""
        if not self.is_running:
            return
        if self._open is not None and self._open.until <= now:
            self._failed(self._open.target, now)
        if self._open is None and self._next_at <= now:
            self._ask(now)

    def _ask(self, now: Instant) -> None:
        target = self._directory.any_voter()
        if target is None:
            self._next_at = now + AGAIN_MAX_S
            return
        if self._arriving is not None:
            mark, data = self._arriving[0].mark, self._arriving[1]
            ask: ChunkAsk | PullAsk = ChunkAsk(mark.index, len(data) // mark.chunk_bytes)
            until = now + PATIENCE_S
        else:
            ask = PullAsk(self.generation, self._applied(), int(WAIT_S * 1000))
            until = now + WAIT_S + PATIENCE_S
        self._open = OpenAsk(self._outbound.ask(ask, target), target, until)

    def _failed(self, target: NodeId, now: Instant) -> None:
        self._open = None
        self._directory.failed(target)
        self._arriving = None
        self._next_at = now + self._again_s
        self._again_s = min(2 * self._again_s, AGAIN_MAX_S)

    def _close(self, number: int, now: Instant) -> bool:
        """Take note of an answer; False if nobody asked."""
        if self._open is None or self._open.number != number:
            return False
        self._open = None
        self.heard_at = now
        self._directory.answered()
        self._again_s = AGAIN_FIRST_S
        return True

    def asked(self, number: int) -> NodeId | None:
        """Return whom a question under way was sent to."""
        is_open = self._open is not None and self._open.number == number
        return self._open.target if self._open is not None and is_open else None

    def answered(self, number: int, body: AnswerBody, peer: NodeId, now: Instant) -> bool:
        """Take in an answer; False if nobody asked."""
        match body:
            case PullAnswer():
                return self._pulled(number, body, peer, now)
            case MarkAnswer():
                return self._marked(number, body, peer, now)
            case ChunkAnswer():
                return self._chunk(number, body, peer, now)
            case _:
                return False

    def _pulled(self, number: int, answer: PullAnswer, peer: NodeId, now: Instant) -> bool:
        """Apply entries; ask for more at once. False if nobody asked."""
        kept_until = self._open.until - PATIENCE_S if self._open is not None else now
        if not self._close(number, now):
            return False
        self.has_leader = bool(answer.hearsay.leader)
        if self.has_leader and answer.generation == self.generation:
            self.led_at = now
        follows = entries_follow(answer.entries, self._applied(), self._log_term())
        if not self._is_of_ours(answer, peer, now) or not follows:
            self._failed(peer, now)
            return True
        self.generation = answer.generation
        before = self._applied()
        self._take(answer.entries, now)
        if self._applied() == before and now < kept_until:
            # It does not keep questions now, or we cannot read on: the next answer is the same.
            self._next_at = now + NO_NEWS_S
        elif self.is_running:
            self._ask(now)
        return True

    def _is_of_ours(self, answer: PullAnswer | MarkAnswer, peer: NodeId, now: Instant) -> bool:
        """Tell whether an answer is of our generation or a later one; 0 has no log.

        Of one generation there may be two, if two operators have recovered, and a later one counts
        from some alone (``standings.py``).
        """
        if 0 < self.generation < answer.generation and not self.believes(peer, answer.generation):
            self.on_later(peer, now)
            return False
        origin = self._origin()
        is_other = bool(answer.origin and origin) and answer.origin != origin
        if answer.generation == self.generation and is_other:
            self.on_fork(answer.origin, peer)
            return False
        return answer.generation >= max(1, self.generation)

    def _marked(self, number: int, answer: MarkAnswer, peer: NodeId, now: Instant) -> bool:
        """Fetch a snapshot; False if nobody asked."""
        if not self._close(number, now):
            return False
        is_news = answer.mark.index > self._applied() or answer.generation > self.generation
        if not (self._is_of_ours(answer, peer, now) and is_news and is_possible(answer.mark)):
            self._failed(peer, now)
            return True
        self._arriving = (answer, bytearray())
        self._outbound.counts["control_copies/snapshots"] += 1
        if answer.mark.size_bytes:
            self._ask(now)
        else:
            self._arrived(answer, b"", peer, now)
        return True

    def _chunk(self, number: int, answer: ChunkAnswer, peer: NodeId, now: Instant) -> bool:
        """Take the next chunk; False if nobody asked."""
        if not self._close(number, now) or self._arriving is None:
            return False
        marked, data = self._arriving
        expected = marked.mark.index, len(data) // marked.mark.chunk_bytes
        size_bytes = marked.mark.chunk_size(expected[1])
        if (answer.index, answer.chunk) != expected or len(answer.data) != size_bytes:
            self._failed(peer, now)
            return True
        data += answer.data
        if len(data) < marked.mark.size_bytes:
            self._ask(now)
        else:
            self._arrived(marked, bytes(data), peer, now)
        return True

    def _arrived(self, marked: MarkAnswer, data: bytes, peer: NodeId, now: Instant) -> None:
        self._arriving = None
        if checksum(data) != marked.mark.crc:
            self._outbound.counts["control_copies/damaged"] += 1
            self._failed(peer, now)
            return
        try:
            self._install(marked.mark, data, now)
        except Malformed:
            self._outbound.counts["control_copies/malformed"] += 1
            self._failed(peer, now)
            return
        self.generation = marked.generation
        if self.is_running:
            self._ask(now)

    def redirected(self, number: int, answer: RedirectAnswer, now: Instant) -> bool:
        """Somebody cannot help; False if nobody asked."""
        if self._open is None or self._open.number != number:
            return False
        knows_better = bool(answer.hearsay.voters) and answer.reason is RedirectReason.NO_VOTER
        self._failed(self._open.target, now)
        if knows_better:
            self._next_at = now + AGAIN_FIRST_S
        return True

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """A peer cannot be reached: ask another one."""
        if self._open is not None and self._open.target == peer:
            self._failed(peer, now)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        if not self.is_running:
            return None
        return self._open.until if self._open is not None else self._next_at
