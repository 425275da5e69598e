"""A company: all members of a covey that formed long ago, as each of them knows it.

Among thousands that start together it takes minutes until all have met. Simulations that are
about what comes afterwards begin with a company instead. What all believe alike is made once, and
shared until it changes: member by member in the list, and as a whole in the rest.
"""

import random
from collections import Counter
from collections.abc import Iterable

import msgspec

from gossip.ids import NodeId
from gossip.membership.facts import FactsBook
from gossip.membership.ledger import Ledger
from gossip.membership.members import Member, MemberTable
from gossip.tuning import Tuning


class Company(msgspec.Struct, frozen=True):
    """Everybody, alive, and reached where they say."""

    members: dict[NodeId, Member]
    ids: tuple[NodeId, ...]
    """Of all members, in order."""
    order: list[NodeId]
    """Of all members, shuffled: a pass of probes, which each member begins somewhere else."""
    table: bytes
    """The hash over all versions; see ``ledger.py``."""


def company_of(members: Iterable[Member], tuning: Tuning, rng: random.Random) -> Company:
    """Return the company of these members, who have to be alive and to have addresses."""
    table = MemberTable()
    for member in sorted(members, key=lambda member: member.id):
        table.put(member)
    assert table.ids == table.reachable_ids, "all are there and can be reached"
    order = list(table.ids)
    rng.shuffle(order)
    facts = FactsBook(table, tuning.facts_bytes_max, Counter())
    listed = {member.id: member for member in table}
    return Company(listed, table.ids, order, Ledger(table, facts).table())
