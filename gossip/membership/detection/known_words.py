"""Words of members that are known, told from their bytes alone.

While many join, each member hears the words of every other one some thirty times, and by then the
very same bytes: to take them apart again was the largest part of what a crowd had to do. What the
bytes say never changes; whether it is known is looked up each time.
"""

from gossip.core.ids import NodeId
from gossip.membership.model.members import Member, MemberState, MemberTable, Precedence, precedence
from gossip.membership.model.messages import Alive

REMEMBERED_MAX = 1024
"""Beyond, all is forgotten, and taken apart once more."""

Words = tuple[Precedence, bool]
"""The moment of a life that words are from, and whether they are signed."""


class KnownWords:
    """Remembers which bytes are whose words, and from which moment of which life."""

    def __init__(self, members: MemberTable, me: NodeId) -> None:
        self._members, self._me = members, me
        self._lives: dict[bytes, tuple[NodeId, Words]] = {}

    def has(self, item: bytes) -> bool:
        """Say whether these bytes say of another member what is believed of it."""
        life = self._lives.get(item)
        if life is None:
            return False
        node, words = life
        member = self._members.get(node)
        return member is not None and _is_believed(member, words)

    def record(self, item: bytes, alive: Alive) -> None:
        """Remember whose words these bytes are, if they are believed, and not about ourselves."""
        stated = precedence(alive.boot, alive.incarnation, MemberState.ALIVE)
        words, member = (stated, bool(alive.signature)), self._members.get(alive.member)
        if alive.member == self._me or member is None or not _is_believed(member, words):
            return
        if len(self._lives) >= REMEMBERED_MAX:
            self._lives.clear()
        self._lives[item] = alive.member, words


def _is_believed(member: Member, words: Words) -> bool:
    stated, is_signed = words
    is_described = member.described == member.incarnation
    return stated == member.precedence and is_described and (member.is_proven or not is_signed)
