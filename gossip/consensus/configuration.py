"""Who votes, who learns, and which change of that is legal.

A voter is a *store*, the identity of a log on a disk: a device that lost its log is another voter,
or it could vote twice. The node is where to send frames to. A configuration is a value in the log
and in nothing else: no list of members, however right or wrong, adds or takes a vote.

While voters change, the configuration is *joint* (Ongaro and Ousterhout 2014, section 6): those of
before are ``outgoing``, and an agreement takes a majority of either side, each counted alone. So
the two majorities of before and after cannot decide apart from each other at any time.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId

StoreId = int
"""63 random bits, made together with a log and kept in it; SQLite's integers hold it."""

STORE_ID_BITS = 63
StoreNumber = Annotated[StoreId, msgspec.Meta(ge=0, le=2**STORE_ID_BITS - 1)]
"""A ``StoreId`` as others say it: no larger one ever gets to our disk, which could not hold it."""
VOTERS_MAX = 7
"""Each voter is one more disk to wait for; seven survive three losses."""
LEARNERS_MAX = 4
"""A leader sends everything to each of them."""


def new_store_id(rng: random.Random) -> StoreId:
    """Draw the identity of a new log; never 0, which means "nobody"."""
    return rng.randrange(1, 2**STORE_ID_BITS)


class Voter(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A log that takes part, and the node that has it; a learner is described in the same way."""

    store: StoreNumber
    node: Annotated[NodeId, msgspec.Meta(ge=0)]


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """Who takes part. ``outgoing`` is empty unless the configuration is joint.

    Who is among the outgoing voters and among the learners votes until the joint phase is over.
    """

    voters: Annotated[tuple[Voter, ...], msgspec.Meta(max_length=VOTERS_MAX)] = ()
    outgoing: Annotated[tuple[Voter, ...], msgspec.Meta(max_length=VOTERS_MAX)] = ()
    learners: Annotated[tuple[Voter, ...], msgspec.Meta(max_length=LEARNERS_MAX)] = ()

    @property
    def is_joint(self) -> bool:
        """Whether a change of voters is under way."""
        return bool(self.outgoing)

    @property
    def members(self) -> tuple[Voter, ...]:
        """All who are sent the log, each once, in the order of their stores."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def voter_stores(self) -> frozenset[StoreId]:
        """Return the stores that have a vote on either side."""
        return frozenset(each.store for each in (*self.voters, *self.outgoing))

    def member(self, store: StoreId) -> Voter | None:
        """Return who has this store, if it takes part."""
        for each in (*self.voters, *self.outgoing, *self.learners):
            if each.store == store:
                return each
        return None

    def is_voter(self, store: StoreId) -> bool:
        """Tell whether this store has a vote on either side."""
        return any(each.store == store for each in (*self.voters, *self.outgoing))

    def sides(self) -> Iterator[tuple[StoreId, ...]]:
        """Yield the groups of stores of which an agreement takes a majority each."""
        for side in (self.voters, self.outgoing):
            if side:
                yield tuple(each.store for each in side)

    def is_quorum(self, stores: Iterable[StoreId]) -> bool:
        """Tell whether these stores are enough to agree: a majority of each side."""
        present = frozenset(stores)
        sides = tuple(self.sides())
        return bool(sides) and all(
            2 * len(present.intersection(side)) > len(side) for side in sides
        )

    def agreed(self, value: Callable[[StoreId], int]) -> int:
        """Return the largest number that a quorum has reached, 0 where nobody votes."""
        return min((_reached(side, value) for side in self.sides()), default=0)

    def joint(self, target: "Configuration") -> "Configuration":
        """Return the first step to other voters: both majorities decide."""
        assert not self.is_joint, "one change at a time"
        return Configuration(target.voters, self.voters, target.learners)

    def left(self) -> "Configuration":
        """Return the second step: the outgoing voters have no say any more."""
        return Configuration(self.voters, (), self.learners)


def _reached(side: tuple[StoreId, ...], value: Callable[[StoreId], int]) -> int:
    values = sorted((value(store) for store in side), reverse=True)
    return values[len(side) // 2]


def check_target(now: Configuration, target: Configuration) -> None:
    """Check what can be said of a change without knowing how far anybody is (rule 5).

    A learner may be on the node of a voter: of one whose log is lost, which it is to replace.

    Raises InvalidRequest, which says the rule that the change breaks.
    """
    if target.outgoing:
        raise InvalidRequest("a change names voters and learners; who goes out follows from them")
    if not target.voters:
        raise InvalidRequest("a group without voters could never decide anything again")
    _check_sizes(now, target)
    stores = [each.store for each in (*target.voters, *target.learners)]
    if len(set(stores)) < len(stores) or not all(stores):
        raise InvalidRequest("each store is named once, as a voter or as a learner")
    for side in (target.voters, target.learners):
        if len({each.node for each in side}) < len(side):
            raise InvalidRequest("a node has one log, so it takes part with one store")
    for each in (*target.voters, *target.learners):
        known = now.member(each.store)
        if known is not None and known.node != each.node:
            raise InvalidRequest("a store stays on its node; a log that moved is another store")


def _check_sizes(now: Configuration, target: Configuration) -> None:
    if len(target.voters) > VOTERS_MAX:
        raise InvalidRequest(f"at most {VOTERS_MAX} voters: each is one more disk to wait for")
    if len(target.learners) > LEARNERS_MAX:
        raise InvalidRequest(f"at most {LEARNERS_MAX} learners: a leader sends all to each of them")
    if len(target.voters) == 2 and set(target.voters) != set(now.voters):
        raise InvalidRequest(
            "two voters are worse than one, for both must be up; go from one to three in one change"
        )


CONFIGURATION_ENCODER = msgspec.msgpack.Encoder()
CONFIGURATION_DECODER = msgspec.msgpack.Decoder(Configuration)


def encode_configuration(configuration: Configuration) -> bytes:
    """Return a configuration as the data of an entry."""
    return CONFIGURATION_ENCODER.encode(configuration)


def decode_configuration(data: bytes) -> Configuration:
    """Read what ``encode_configuration`` wrote. Raises msgspec.DecodeError."""
    return CONFIGURATION_DECODER.decode(data)
