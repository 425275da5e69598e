"""How far one claim may move the numbers of a member.

Boots and incarnations only grow, so whoever could push them to their end would silence a member
for good: it could never say anything newer. (A 32-bit incarnation at its maximum, answered with a
wrapped 0, does that to other implementations.) Honest numbers move in small steps; a claim that
jumps is ignored and counted. A liar inside the covey would need billions of claims.
"""

from gossip.ids import BOOT_RANDOM_BITS, Boot
from gossip.membership.members import Member

INCARNATION_JUMP_MAX = 2**32
"""More changes than any member makes while another one misses all of them."""

INCARNATION_MAX = 2**62
"""Beyond this nothing is believed, even of a member never heard of before."""

STARTS_JUMP_MAX = 2**16
"""More restarts than any member makes while another one misses all of them."""


def follows_incarnation(incarnation: int, known: int) -> bool:
    """Say whether a member at ``known`` may have come to ``incarnation``."""
    return incarnation <= INCARNATION_MAX and incarnation - known <= INCARNATION_JUMP_MAX


def follows(member: Member | None, boot: Boot, incarnation: int) -> bool:
    """Say whether the member as we know it may have come to this life and incarnation."""
    if member is None:
        return incarnation <= INCARNATION_MAX
    if boot == member.boot:
        return follows_incarnation(incarnation, member.incarnation)
    starts = (boot >> BOOT_RANDOM_BITS) - (member.boot >> BOOT_RANDOM_BITS)
    return starts <= STARTS_JUMP_MAX and incarnation <= INCARNATION_MAX
