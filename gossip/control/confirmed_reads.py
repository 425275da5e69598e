"""What may be answered only by a voter that is known to be up to date at that moment.

Linearizable reads and renewals of sessions both rest on the log's ReadIndex (Ongaro 2014, section
6.4): the group confirms, after the question came, that no later leader can have committed anything,
and this node's state is applied up to what was committed by then.
"""

from collections.abc import Callable

from gossip.consensus.raft import Raft
from gossip.consensus.requests import Overloaded
from gossip.core.machine import Instant

Confirmed = Callable[[Instant], None]


class ConfirmedReads:
    """Manages who waits for a confirmation, at a node that takes part in the agreement."""

    def __init__(self) -> None:
        self._asked: dict[int, list[tuple[Confirmed, Confirmed]]] = {}
        self._fresh: list[tuple[Confirmed, Confirmed]] = []

    def __len__(self) -> int:
        return len(self._fresh) + sum(len(each) for each in self._asked.values())

    def confirm(self, ready: Confirmed, failed: Confirmed) -> None:
        """Call ``ready`` once the state is sure to be up to date; ``failed`` if nobody can say."""
        self._fresh.append((ready, failed))

    def flush(self, raft: Raft, now: Instant) -> None:
        """Ask for all that came since the last time with one question."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, []
        try:
            self._asked[raft.read(now)] = fresh
        except Overloaded:
            for _, failed in fresh:
                failed(now)

    def ready(self, read: int, now: Instant) -> None:
        """The group has confirmed, and our state is applied so far."""
        for ready, _ in self._asked.pop(read, ()):
            ready(now)

    def failed(self, read: int, now: Instant) -> None:
        """Nobody could confirm it in time."""
        for _, failed in self._asked.pop(read, ()):
            failed(now)

    def clear(self, now: Instant) -> None:
        """This node takes no part any more."""
        everyone = [*self._fresh, *(each for asked in self._asked.values() for each in asked)]
        self._asked, self._fresh = {}, []
        for _, failed in everyone:
            failed(now)
