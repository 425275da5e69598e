"""Finding the leader, before anything is sent that must not go astray.

A command that was sent to somebody who could not be reached may be in the log all the same, and its
end is then unknown. So commands go only to whom we believe to lead; while that is nobody, this asks
one voter after the other who it is, which harms nothing.
"""

from gossip.control.directory import VoterDirectory
from gossip.control.messages import LeaderAsk
from gossip.control.outbound import ControlOutbound
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

ASK_S = 0.5
"""An answer that has not come by then is not waited for."""
AGAIN_FIRST_S, AGAIN_MAX_S = 0.25, 5.0
"""A voter that knows no leader either is followed by the next one after this, later and later."""
DOUBT_EVERY_S = 10.0
"""A leader that others name and that does not speak to us is asked after this often."""


class LeaderSearch:
    """Asks who leads, as long as somebody wants to know."""

    def __init__(self, outbound: ControlOutbound, directory: VoterDirectory) -> None:
        self._outbound = outbound
        self._directory = directory
        self._wanted = False
        self._asked: dict[int, NodeId] = {}
        self._due: Instant | None = None
        self._again_s = AGAIN_FIRST_S
        self._doubt_at: Instant = 0.0

    def leader(self, now: Instant) -> NodeId | None:
        """Return who leads, as far as is known; begin to ask if it is not."""
        if self._directory.leader is None and not self._wanted:
            self._wanted = True
            self._again_s = AGAIN_FIRST_S
            self._ask(now)
        return self._directory.leader

    def doubt(self, now: Instant) -> None:
        """We take part and hear no leader: ask now and then, whoever is believed to lead.

        What we were told of it may be as old as what we believe of the voters, and we be none.
        """
        if self._doubt_at <= now and self._directory.leader is not None:
            self._doubt_at = now + DOUBT_EVERY_S
            self._directory.failed(self._directory.leader)
        self.leader(now)

    def _ask(self, now: Instant) -> None:
        self._asked.clear()
        self._directory.forgive()
        target = self._directory.any_voter()
        self._due = now + max(ASK_S, self._again_s)
        if target is not None:
            self._asked[self._outbound.ask(LeaderAsk(), target)] = target

    def asked(self, number: int) -> NodeId | None:
        """Return whom a question under way was sent to."""
        return self._asked.get(number)

    def redirected(self, number: int, now: Instant) -> bool:
        """Somebody says who leads; False if nobody asked."""
        target = self._asked.pop(number, None)
        if target is None:
            return False
        if self._directory.leader is None:
            self._directory.failed(target)
        self._later(now)
        return True

    def _later(self, now: Instant) -> None:
        self._due = now + self._again_s
        self._again_s = min(2 * self._again_s, AGAIN_MAX_S)

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """A peer cannot be reached: ask another one."""
        if peer in self._asked.values():
            self._asked.clear()
            self._directory.failed(peer)
            self._later(now)

    def wake(self, now: Instant) -> None:
        """Ask the next one, unless the leader is known by now."""
        if self._due is None or self._due > now:
            return
        if self._directory.leader is not None:
            self._wanted, self._due = False, None
            return
        for target in self._asked.values():
            self._directory.failed(target)
        self._ask(now)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        return self._due
