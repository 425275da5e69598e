"""How far one update may move the numbers of a member.

Boots and incarnations only grow, so whoever could push them to their end would silence a member for
good: it could never say anything newer. (A 32-bit incarnation at its maximum, answered with a
wrapped 0, does that to other implementations.) Honest numbers move in small steps; an update that
jumps is ignored and counted. A liar inside the covey would need billions of updates. What the
member itself says in the header of its packets is followed however far it is: whoever was pushed by
two claims, before its answer to the first was heard, must not become one that nobody believes.

Of a member never heard of before there is nothing to compare with. So a first update may be a lie
of any size; but it does not outlive the first packet of the member itself. If what that says is
*below* what we believe by more than any honest member ever moves, then the belief was never true,
and is dropped (``contradicts``).
"""

from gossip.core.ids import BOOT_RANDOM_BITS, Boot
from gossip.membership.model.members import Member

INCARNATION_JUMP_MAX = 2**32
"""More changes than any member makes while another one misses all of them."""

INCARNATION_MAX = 2**62
"""Beyond this nothing is believed, even of a member never heard of before."""

STARTS_MAX = 2**31
"""... nor a life after so many starts."""

STARTS_JUMP_MAX = 2**16
"""More restarts than any member makes while another one misses all of them."""


def follows_incarnation(incarnation: int, known: int) -> bool:
    """Say whether a member at ``known`` may have come to ``incarnation``."""
    return incarnation <= INCARNATION_MAX and incarnation - known <= INCARNATION_JUMP_MAX


def is_plausible(member: Member | None, boot: Boot, incarnation: int) -> bool:
    """Say whether the member as we know it may have come to this life and incarnation."""
    if member is None:
        return starts_of(boot) <= STARTS_MAX and incarnation <= INCARNATION_MAX
    if boot == member.boot:
        return follows_incarnation(incarnation, member.incarnation)
    return follows_life(boot, member.boot) and incarnation <= INCARNATION_MAX


def is_plausible_from_itself(member: Member, boot: Boot, incarnation: int) -> bool:
    """Say whether the member itself, who speaks like this, may have come to it."""
    if boot == member.boot:
        return incarnation <= INCARNATION_MAX
    return is_plausible(member, boot, incarnation)


def follows_life(boot: Boot, known: Boot) -> bool:
    """Say whether a member that was in its life ``known`` may have come to this one."""
    starts = starts_of(boot)
    return starts <= STARTS_MAX and starts - starts_of(known) <= STARTS_JUMP_MAX


def contradicts(member: Member, boot: Boot, incarnation: int) -> bool:
    """Say whether the member itself, who speaks like this, shows that our belief is a lie."""
    if boot == member.boot:
        return not follows_incarnation(member.incarnation, incarnation)
    return not follows_life(member.boot, boot)


def starts_of(boot: Boot) -> int:
    """Return how often the node had started when this life began."""
    return boot >> BOOT_RANDOM_BITS
