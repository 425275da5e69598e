"""Where the parts of the control plane leave frames, events and batches.

A frame to ourselves takes no detour through bytes: it goes into ``own``, which the plane empties
before it returns, so that a node that leads asks itself like any other.
"""

import random
from collections import Counter, deque
from collections.abc import Iterator

from gossip.control.messages import (
    CODEC,
    AnswerBody,
    AskBody,
    ControlAnswer,
    ControlAsk,
    ControlMessage,
)
from gossip.core.ids import NodeId
from gossip.core.machine import Effect, Emit, SendFrame
from gossip.core.tuning import FRAME_BYTES_MAX

NUMBER_RANDOM_BITS, NUMBER_COUNT_BITS = 31, 32


class ControlOutbound:
    """Outgoing frames and events of the control plane of one node."""

    def __init__(self, me: NodeId, rng: random.Random) -> None:
        self.me = me
        self.own: deque[ControlMessage] = deque()
        self.counts: Counter[str] = Counter()
        # An answer to our former life may still be under way: start where it never was.
        self._number = rng.getrandbits(NUMBER_RANDOM_BITS) << NUMBER_COUNT_BITS
        self._effects: deque[Effect] = deque()

    def number(self) -> int:
        """Return a number that no other question of this node carries."""
        self._number += 1
        return self._number

    def ask(self, body: AskBody, to: NodeId) -> int:
        """Send a question; return its number."""
        number = self.number()
        self._send(ControlAsk(number, body), to)
        return number

    def answer(self, number: int, body: AnswerBody, to: NodeId) -> None:
        """Send an answer."""
        self._send(ControlAnswer(number, body), to)

    def _send(self, message: ControlMessage, to: NodeId) -> None:
        if to == self.me:
            self.own.append(message)
            return
        data = CODEC.encode(message)
        assert len(data) <= FRAME_BYTES_MAX, "commands, results and pages are bounded"
        self._effects.append(SendFrame(data, to))

    def emit(self, event: object) -> None:
        """Tell the application."""
        self._effects.append(Emit(event))

    def pass_on(self, effect: Effect) -> None:
        """Leave an effect of the log's as it is."""
        self._effects.append(effect)

    def drain(self) -> Iterator[Effect]:
        """Take out what is to be done, in order."""
        while self._effects:
            yield self._effects.popleft()
