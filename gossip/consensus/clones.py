"""Two living processes of one store: somebody copied a card, and a vote could be given twice.

A restart looks like a clone at first: another boot of the same store. What tells them apart is the
order of lives: processes of one card follow on each other, so one boot never comes back. The proof
has to be exact, for fencing a good voter costs a quorum, and frames may be late by any time. An
answer to a heartbeat proves that its sender lived after that heartbeat was sent. If one boot
answers, then another answers a heartbeat that was sent after that, and then the first one a
heartbeat that was sent after that again, both live.
"""

import msgspec

from gossip.consensus.configuration import StoreId
from gossip.consensus.requests import CloneSeen
from gossip.core.ids import Boot

BOOTS_MAX = 64
"""Boots remembered of one store in one leader's time; beyond, the earliest is forgotten."""


class ProvenLife(msgspec.Struct):
    """Which process of a store was alive last, and which before it."""

    boot: Boot
    round: int
    """The last heartbeat that had been sent when its last answer came."""
    before: list[Boot]


class CloneDetector:
    """The lives of all stores, as their answers to one leader's heartbeats prove them."""

    def __init__(self) -> None:
        self._lives: dict[StoreId, ProvenLife] = {}

    def answered(self, store: StoreId, boot: Boot, answered: int, sent: int) -> CloneSeen | None:
        """Take in the answer to the round ``answered``, while ``sent`` is the last one sent.

        Returns what the leader is told if it proves a clone.
        """
        life = self._lives.get(store)
        if life is None:
            self._lives[store] = ProvenLife(boot, sent, [])
        elif boot == life.boot:
            life.round = sent
        elif answered > life.round:
            if boot in life.before:
                return CloneSeen(store, (boot, life.boot))
            before = [*life.before, life.boot][-BOOTS_MAX:]
            self._lives[store] = ProvenLife(boot, sent, before)
        return None
