"""What all parts of one store share: who it is, its term and vote, its role, and its log."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from gossip.consensus.configuration import Configuration, StoreId, Voter
from gossip.consensus.holds import Holds
from gossip.consensus.log import RaftLog
from gossip.consensus.messages import Header
from gossip.consensus.outbound import ConsensusOutbound, Token
from gossip.consensus.requests import RoleChanged
from gossip.consensus.roles import TRANSITIONS, Role
from gossip.consensus.storage import NOBODY, HardState, StoredState
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.ids import Boot
from gossip.core.machine import Instant


class ReplicaState:
    """The state of one store in one group. ``now`` is the time of the input that is handled."""

    def __init__(
        self,
        me: Voter,
        boot: Boot,
        stored: StoredState,
        tuning: ConsensusTuning,
        rng: random.Random,
        now: Instant,
    ) -> None:
        self.me, self.boot, self.tuning, self.rng, self.now = me, boot, tuning, rng, now
        self.outbound = ConsensusOutbound()
        self.log = RaftLog(stored, self.outbound)
        self.generation, self.term = stored.hard.generation, stored.hard.term
        self.vote: StoreId = stored.hard.vote
        self.role = Role.FOLLOWER
        self.leader: Voter | None = None
        self.holds = Holds(self.outbound, tuning)
        self.on_role: Callable[[Role], None] = lambda _before: None
        """Told of each change of role or term, with the role before."""

    @property
    def counts(self) -> Counter[str]:
        """What happened so far, by "family/label"."""
        return self.outbound.counts

    @property
    def configuration(self) -> Configuration:
        """Who takes part, by the last configuration in the log."""
        return self.log.configuration

    @property
    def is_leader(self) -> bool:
        """Whether this store leads its term."""
        return self.role is Role.LEADER

    @property
    def is_voter(self) -> bool:
        """Whether this store has a vote, by its own log."""
        return self.configuration.is_voter(self.me.store)

    @property
    def may_stand(self) -> bool:
        """Whether this store stands for election: it has a vote, or had one a moment ago.

        Who is out by an entry that is not committed may be the only one with the whole log: it then
        leads until that entry is committed, with the votes of others alone (Ongaro 2014, 4.2.2).
        """
        log = self.log
        is_open = log.configuration_index > log.commit
        return self.is_voter or (is_open and log.configuration_before.is_voter(self.me.store))

    def others(self) -> tuple[Voter, ...]:
        """Return all who take part, without us."""
        return tuple(each for each in self.configuration.members if each.store != self.me.store)

    # Promises.

    def promise(self, term: int, vote: StoreId) -> None:
        """Take this term and vote; saved before anybody hears of it (rule 1)."""
        assert term >= self.term, "terms only grow"
        assert term > self.term or self.vote in (NOBODY, vote), "one vote a term"
        if (term, vote) != (self.term, self.vote):
            self.term, self.vote = term, vote
            self.outbound.change(HardState(self.generation, term, vote))

    def adopt_generation(self, generation: int) -> None:
        """Join the group that speaks to us; only a blank store, which has none, does so."""
        assert not self.generation, "a store belongs to one generation"
        self.generation = generation
        self.log.rebase(generation)
        self.outbound.change(HardState(generation, self.term, self.vote))

    # Roles.

    def become(
        self,
        role: Role,
        leader: Voter | None = None,
        term: int | None = None,
        vote: StoreId = NOBODY,
    ) -> None:
        """Change the role, the leader that is followed, or the term; tell who needs to know.

        ``vote`` is the vote in a later term.
        """
        term = self.term if term is None else term
        before = (self.role, self.leader, self.term)
        assert role in TRANSITIONS[self.role], f"{role} does not follow on {self.role}"
        if term > self.term:
            self.promise(term, vote)
        self.role, self.leader = role, leader
        if (role, leader, term) != before:
            self.outbound.emit(RoleChanged(role, term, leader))
        self.on_role(before[0])

    def step_down(self, term: int | None = None) -> None:
        """Follow nobody for now, in a later term if one is named."""
        self.become(Role.FOLLOWER, None, term)

    # Sending.

    def send(
        self,
        kind: Callable[..., Any],
        to: Voter,
        *,
        after: Token | None = None,
        term: int | None = None,
        **fields: Any,
    ) -> None:
        """Send a message; by default once what was promised is saved.

        ``after`` 0: at once, for what a leader says of its own log, which rests on nothing unsaved.
        """
        head = (self.generation, self.me.store, to.store, self.boot)
        message = kind(*head, self.term if term is None else term, **fields)
        self.outbound.send(message, to.node, self.outbound.promised if after is None else after)

    def sender(self, message: Header, peer: int) -> Voter:
        """Return who sent a message."""
        return Voter(message.sender, peer)

    def drop(self, reason: str) -> None:
        """Count a message that changes nothing."""
        self.counts[f"consensus_dropped/{reason}"] += 1
