"""Facts: what a node tells about itself beyond a packet's room.

A fact is a name and a text: which version of the program runs here, how much memory there is. All
facts of one node are published as one map with a number, by the node alone, and each publication
gets the next number. They belong to one life (a boot) and are dropped when another one begins.

Facts never travel in datagrams, so they may be larger than tags; but they travel slower: with the
exchanges, which find out by the number who is behind (``sync.py``). Nobody probes, judges or
places anything by them. Each publication is signed (``signatures.py``); of a member of an earlier
version, which signs nothing, others can invent some, until it notices a number that it did not give
and publishes above it.

What the facts of all members may take together is limited too. Beyond it only their numbers are
noted, so that nobody offers them again and again, and the refusal is counted.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated

import msgspec

from gossip.core.errors import LimitExceeded
from gossip.core.ids import Boot, NodeId
from gossip.membership.model.members import Member, MemberTable
from gossip.membership.model.sanity import follows_incarnation
from gossip.membership.model.signatures import SIGNATURE_BYTES_MAX, Signatures

FACTS_MAX = 256
FACT_NAME_CHARACTERS_MAX = 64
FACT_VALUE_BYTES_MAX = 4096
FACTS_BYTES_MAX = 65_536
"""Names and values of one node together, as UTF-8."""

FactName = Annotated[str, msgspec.Meta(min_length=1, max_length=FACT_NAME_CHARACTERS_MAX)]
FactValue = Annotated[str, msgspec.Meta(max_length=FACT_VALUE_BYTES_MAX)]


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """One publication. The number grows with each within one life; 0 stands for "none yet"."""

    number: Annotated[int, msgspec.Meta(ge=1)]
    values: Annotated[dict[FactName, FactValue], msgspec.Meta(max_length=FACTS_MAX)]
    signature: Annotated[bytes, msgspec.Meta(max_length=SIGNATURE_BYTES_MAX)] = b""

    def said(self, member: NodeId, boot: Boot) -> tuple[object, ...]:
        """Return what the member signs; 0 tells it from all messages."""
        return 0, member, boot, self.number, self.values


class StoredFacts(msgspec.Struct, frozen=True):
    """The facts of one member, as far as we keep them."""

    boot: int
    number: int
    facts: Facts | None
    """None when there was no room."""
    size_bytes: int


def size_bytes(values: Mapping[str, str]) -> int:
    """Return what counts against FACTS_BYTES_MAX."""
    return sum(len(name.encode()) + len(value.encode()) for name, value in values.items())


def flaw(values: Mapping[str, str]) -> str:
    """Say which limit these facts break; empty when they keep to all of them."""
    if len(values) > FACTS_MAX:
        return f"{len(values)} facts, and {FACTS_MAX} are allowed"
    for name, value in values.items():
        if not 1 <= len(name) <= FACT_NAME_CHARACTERS_MAX:
            return f"the name {name[:80]!r} does not have 1 to {FACT_NAME_CHARACTERS_MAX} letters"
        if len(value.encode()) > FACT_VALUE_BYTES_MAX:
            return f"{name} takes {len(value.encode())} bytes, of {FACT_VALUE_BYTES_MAX} allowed"
    if size_bytes(values) > FACTS_BYTES_MAX:
        return f"all facts take {size_bytes(values)} bytes, of {FACTS_BYTES_MAX} allowed"
    return ""


class FactTable:
    """The facts of all listed members, our own among them."""

    def __init__(
        self,
        members: MemberTable,
        limit_bytes: int,
        counts: Counter[str],
        signatures: Signatures | None = None,
    ) -> None:
        assert limit_bytes >= FACTS_BYTES_MAX, "our own facts always find room"
        self.changes = 0
        """How often anything in the table changed."""
        self._members = members
        self._limit_bytes = limit_bytes
        self._counts = counts
        self._signatures = signatures or Signatures()
        self._shelves: dict[NodeId, StoredFacts] = {}
        self._kept_bytes = 0

    @property
    def is_used(self) -> bool:
        """Whether anybody has published anything."""
        return bool(self._shelves)

    def of(self, member: Member) -> Facts | None:
        """Return what the member published in this life; None for nothing, or nothing kept."""
        stored_facts = self._stored_facts(member)
        return stored_facts.facts if stored_facts else None

    def number_of(self, member: Member) -> int:
        """Return the number of the member's publication that we know of; 0 for none."""
        stored_facts = self._stored_facts(member)
        return stored_facts.number if stored_facts else 0

    def publish(self, me: Member, values: Mapping[str, str]) -> None:
        """Replace our own facts. Raises LimitExceeded; then nothing has changed."""
        problem = flaw(values)
        if problem:
            raise LimitExceeded(f"{problem}; nothing was changed: publish fewer or shorter facts")
        self._publish(me, self.number_of(me) + 1, {**values})

    def rise_above(self, me: Member, number: int) -> bool:
        """Publish our facts again: somebody has a number of ours that we did not give.

        Says whether we did: numbers that jump to their end are ignored.
        """
        if not follows_incarnation(number, self.number_of(me)):
            self._counts["facts_ignored/implausible"] += 1
            return False
        mine = self.of(me)
        values = mine.values if mine else {}
        self._publish(me, number + 1, values)
        self._counts["facts_received/somebody invented some of ours"] += 1
        return True

    def accept(self, member: Member, facts: Facts) -> bool:
        """Take in what a member published, if it is news; say whether it was."""
        known = self.number_of(member)
        if facts.number <= known:
            return False
        if not follows_incarnation(facts.number, known):
            self._counts["facts_ignored/implausible"] += 1
            return False
        said = facts.said(member.id, member.boot)
        if not self._signatures.holds(member.id, said, facts.signature):
            return False
        size = size_bytes(facts.values)
        self._drop(member.id)
        if self._kept_bytes + size > self._limit_bytes - FACTS_BYTES_MAX:
            self._counts["facts_ignored/no room"] += 1
            self._put(member, facts.number, None, 0)
        else:
            self._counts["facts_received/" + ("first" if known == 0 else "newer")] += 1
            self._put(member, facts.number, facts, size)
        return True

    def tidy(self) -> None:
        """Drop the facts of whoever is not listed any more, or lives another life."""
        for node, stored_facts in list(self._shelves.items()):
            member = self._members.get(node)
            if member is None or member.boot != stored_facts.boot:
                self._drop(node)

    def _publish(self, me: Member, number: int, values: dict[str, str]) -> None:
        facts = Facts(number, values)
        signature = self._signatures.sign(facts.said(me.id, me.boot))
        signed = msgspec.structs.replace(facts, signature=signature)
        self._put(me, number, signed, size_bytes(values))

    def _stored_facts(self, member: Member) -> StoredFacts | None:
        stored_facts = self._shelves.get(member.id)
        return stored_facts if stored_facts and stored_facts.boot == member.boot else None

    def _put(self, member: Member, number: int, facts: Facts | None, size: int) -> None:
        self._drop(member.id)
        self._shelves[member.id] = StoredFacts(member.boot, number, facts, size)
        self._kept_bytes += size
        self.changes += 1
        assert self._kept_bytes <= self._limit_bytes, "what has no room is not kept"

    def _drop(self, node: NodeId) -> None:
        stored_facts = self._shelves.pop(node, None)
        if stored_facts is not None:
            self._kept_bytes -= stored_facts.size_bytes
            self.changes += 1
