"""What the log says about members: who came, who went, how we know, and what looks wrong."""

import logging

from gossip.core.ids import format_node_id
from gossip.membership.members.id_conflicts import IdConflictDetected
from gossip.membership.model.members import FORGOTTEN, MemberChanged

log = logging.getLogger(__name__)


def log_member(event: object) -> None:
    """Take in an event of the driver; all but news of members are ignored.

    What is not worth telling a person, because the member comes and goes, is for ``debug``.
    """
    match event:
        case MemberChanged(member, _, reason, muted=True):
            log.debug("%s is %s (%s)", member.name, member.state.value, reason)
        case MemberChanged(member, _, reason) if reason == FORGOTTEN:
            log.info("%s is no longer listed; it was %s", member.name, member.state.value)
        case MemberChanged(member, _, reason, not_told=0):
            log.info("%s is %s (%s)", member.name, member.state.value, reason)
        case MemberChanged(member, _, reason, not_told=not_told):
            log.warning(
                "%s is %s (%s); it changed %d times more since it was last told here",
                member.name,
                member.state.value,
                reason,
                not_told,
            )
        case IdConflictDetected(member, name, addresses):
            log.warning(
                "two devices say that they are %s (%s), from %s: was its card or disk copied? "
                "Stop one of them, move its data directory away, and join it anew with a token.",
                name,
                format_node_id(member),
                " and ".join(map(str, addresses)),
            )
