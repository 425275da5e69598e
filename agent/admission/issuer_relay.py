"""Passing a question on to those who hold the authority's key: one after the other.

Any of them can answer. The leader of the control plane comes first if it is one, for what it does
needs no word with another; then the others, those that are likely to be reached before the rest.
Who does not answer in time, or has no majority behind it, is passed over.
"""

import itertools
from collections import Counter

from agent import exits
from agent.admission.messages import (
    RELAY_CODEC,
    Answer,
    NodeRemoved,
    Question,
    Refused,
    RelayedRequest,
    RemovalOrder,
)
from agent.cluster.agreed_registry import NoMajorityError
from agent.cluster.cluster_view import ClusterView
from agent.loop.rpc import PendingReplies
from gossip.core.ids import NodeId

RELAY_S = 10.0
ASK_AGAIN_S = 1.0
ISSUERS_ASKED_MAX = 5


class IssuerRelay:
    """Asks issuers over the streams of the members."""

    def __init__(self, covey: ClusterView, counts: Counter[str]) -> None:
        self._covey, self._counts = covey, counts
        self._numbers = itertools.count(1)
        self._replies: PendingReplies[Answer] = PendingReplies()
        self._removals_asked: set[tuple[NodeId, int]] = set()

    async def ask_any(self, question: Question, origin: str) -> Answer:
        """Ask one issuer after the other until one decides.

        Raises NoMajorityError when some answer, and none can decide now; never TimeoutError.
        """
        undecided: Refused | None = None
        for issuer in self._covey.issuers()[:ISSUERS_ASKED_MAX]:
            try:
                verdict = await self.ask(issuer, question, origin)
            except TimeoutError:
                self._counts["admissions/issuer_unreachable"] += 1
                continue
            if not isinstance(verdict, Refused) or verdict.status != exits.UNREACHABLE:
                return verdict
            undecided = verdict
        if undecided is not None:
            raise NoMajorityError(undecided.message, undecided.hint, undecided.status)
        return self._nobody()

    def _nobody(self) -> Refused:
        names = self.names()
        return Refused(
            exits.UNREACHABLE,
            f"nobody who lets others in ({names}) can be reached now.",
            f"Start {names} or mend the network, then run the same command again: that is safe.",
        )

    def names(self) -> str:
        """Return who holds the authority's key, as a sentence names them."""
        return " or ".join(self._covey.issuer_names()) or "the node that founded the covey"

    async def ask(self, issuer: NodeId, question: Question, origin: str) -> Answer:
        """Ask one issuer, again every second: a frame may be lost with its stream.

        Raises TimeoutError.
        """
        name = issuer, (number := next(self._numbers))
        data = RELAY_CODEC.encode(RelayedRequest(number, question, origin))
        if isinstance(question, RemovalOrder):
            self._removals_asked.add(name)
        try:
            return await self._replies.request(
                *name, lambda: self._covey.send_frame(data, issuer), RELAY_S, ASK_AGAIN_S
            )
        finally:
            self._removals_asked.discard(name)

    def receive(self, peer: NodeId, number: int, answer: Answer) -> None:
        """Take in an issuer's answer."""
        self._replies.receive(peer, number, answer)

    def is_out(self, epoch: int) -> None:
        """Answer ourselves who waits to be out: an issuer shuts its door before it answers."""
        for issuer, number in tuple(self._removals_asked):
            self._replies.receive(issuer, number, NodeRemoved(epoch))
