"""A warm start: all members of a covey that formed long ago, as each of them knows it.

Among thousands that start together it takes minutes until all have met. Simulations that are
about what comes afterwards begin warm instead. What all believe alike is made once, and
shared until it changes: member by member in the list, and as a whole in the rest.
"""

import random
from collections import Counter
from collections.abc import Iterable

import msgspec

from gossip.core.ids import NodeId
from gossip.core.tuning import Tuning
from gossip.membership.anti_entropy.digest import TableDigest
from gossip.membership.model.facts import FactTable
from gossip.membership.model.members import Member, MemberTable


class WarmStart(msgspec.Struct, frozen=True):
    """The member list of a covey that formed long ago: all alive, and reached where they say."""

    members: dict[NodeId, Member]
    ids: tuple[NodeId, ...]
    """Of all members, in order."""
    order: list[NodeId]
    """Of all members, shuffled: a pass of probes, which each member begins somewhere else."""
    table: bytes
    """The hash over all versions; see ``digest.py``."""


def warm_start_of(members: Iterable[Member], tuning: Tuning, rng: random.Random) -> WarmStart:
    """Return a warm start of these members, who have to be alive and to have addresses."""
    table = MemberTable()
    for member in sorted(members, key=lambda member: member.id):
        table.put(member)
    assert table.ids == table.reachable_ids, "all are there and can be reached"
    order = list(table.ids)
    rng.shuffle(order)
    facts = FactTable(table, tuning.facts_bytes_max, Counter())
    listed = {member.id: member for member in table}
    return WarmStart(listed, table.ids, order, TableDigest(table, facts).table())
