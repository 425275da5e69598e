"""Whom to ask: the leader if it is known, else one voter after the other.

What stands here is hearsay from answers and from the log, the latest by its index and its term. It
decides whom to ask first and nothing else: who votes and who leads is decided by the group. When no
voter that we know of answers, all were replaced perhaps, and any node of the registry is asked.
"""

from collections.abc import Callable, Iterable

from gossip.control.messages import Hearsay
from gossip.core.ids import NodeId

REFUTED_MAX = 64

Contacts = Callable[[], Iterable[NodeId]]
"""Returns nodes of the registry, the best to be asked first: for a node that knows no voter yet."""


class VoterDirectory:
    """What this node has heard of the voters."""

    def __init__(self, me: NodeId, contacts: Contacts) -> None:
        self._me = me
        self.contacts = contacts
        self.voters: tuple[NodeId, ...] = ()
        self._since = 0
        self._own: tuple[tuple[NodeId, ...], int] = ((), 0)
        """The voters that our own copy of the log knows of, and since when."""
        self.leader: NodeId | None = None
        self._term = 0
        self._refuted: set[tuple[NodeId, int]] = set()
        """Who was named as the leader of which term, and could not help."""
        self._turn = 0
        self._failures = 0

    def hearsay(self) -> Hearsay:
        """Return what we tell others."""
        return Hearsay(self.leader or 0, self._term, self.voters, self._since)

    def learn(self, hearsay: Hearsay) -> bool:
        """Take over what is no older than what we know; tell whether the leader is another one.

        Whether we lead we know best. Who was named and could not help is not believed to lead until
        ``forgive``: two that name each other, or one that names itself, would be asked at network
        speed.
        """
        if hearsay.voters and hearsay.since >= self._since:
            self.voters, self._since = hearsay.voters, hearsay.since
        if hearsay.leader in (0, self._me) or hearsay.term < self._term:
            return False
        if (hearsay.leader, hearsay.term) in self._refuted:
            return False
        before = self.leader
        if before not in (None, hearsay.leader) and hearsay.term == self._term:
            self._refute(before)  # a term has one leader
        self.leader, self._term = hearsay.leader, hearsay.term
        return self.leader != before

    def _refute(self, leader: NodeId | None) -> None:
        if len(self._refuted) >= REFUTED_MAX:
            self._refuted.clear()
        if leader is not None:
            self._refuted.add((leader, self._term))

    def configured(self, voters: tuple[NodeId, ...], since: int) -> None:
        """Take over what our own copy of the log says of the voters."""
        self._own = (voters, since)
        if since >= self._since:
            self.voters, self._since = voters, since

    def follow(self, leader: NodeId | None, term: int) -> None:
        """Take over what our own log says of the leader."""
        self.leader, self._term = leader, term

    def begin_anew(self) -> None:
        """The terms and indices of before are of a generation that is over."""
        self.leader, self._term = None, 0
        self._refuted.clear()

    def answered(self) -> None:
        """Somebody could help."""
        self._failures = 0
        self.forgive()

    def forgive(self) -> None:
        """Some time has passed: whoever could not help may be able to by now."""
        self._refuted.clear()

    def failed(self, node: NodeId) -> None:
        """Somebody could not be reached, or could not help: ask another one next."""
        if self.leader == node != self._me:
            self._refute(node)
            # With it goes its term: whoever has named a wrong one has not misled us for good.
            self.leader, self._term = None, 0
        self._turn += 1
        self._failures += 1
        if self._failures > len(self.voters):
            # Perhaps we were misled: forget hearsay, and keep what our own copy knows.
            self.voters, self._since = self._own

    def any_voter(self) -> NodeId | None:
        """Return whom to ask for what every voter does; None if nobody is known at all."""
        others = [node for node in self.voters if node != self._me]
        known = others or list(self.voters)
        if self._failures >= len(known):
            known += [n for n in self.contacts() if n != self._me and n not in known]
        if not known:
            return None
        # Each node begins elsewhere, so that copies are spread over the voters.
        return known[(self._me + self._turn) % len(known)]
