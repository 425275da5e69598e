"""What the log says about members: who came, who went, how we know, and what looks wrong."""

import logging

from gossip.core.ids import format_node_id
from gossip.membership.members.id_conflicts import IdConflictDetected
from gossip.membership.model.members import FORGOTTEN, MemberChanged
from gossip.membership.model.signatures import UNSIGNED, WordsRefused

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
        case MemberChanged(member, _, reason, suppressed=0):
            log.info("%s is %s (%s)", member.name, member.state.value, reason)
        case MemberChanged(member, _, reason, suppressed=suppressed):
            log.warning(
                "%s is %s (%s); it changed %d times more since it was last told here",
                member.name,
                member.state.value,
                reason,
                suppressed,
            )
        case IdConflictDetected(member, name, addresses):
            log.warning(
                "two devices say that they are %s (%s), from %s: was its card or disk copied? "
                "Stop one of them, move its data directory away, and join it anew with a token.",
                name,
                format_node_id(member),
                " and ".join(map(str, addresses)),
            )
        case WordsRefused(member, reason=reason) if reason == UNSIGNED:
            log.info(
                "%s passes on without a signature what %s is said to say of itself; it was not "
                "believed. An earlier version does so while the covey is updated.",
                _told_by(event),
                event.name or format_node_id(member),
            )
        case WordsRefused(member):
            log.warning(
                "%s tells in the name of %s what it has not signed; it was not believed. "
                "If this goes on, find the device, and take it out with `covey members remove`.",
                _told_by(event),
                event.name or format_node_id(member),
            )


def _told_by(refused: WordsRefused) -> str:
    """Name who passed words on: by its certificate, or as far as a datagram shows it."""
    sender = refused.sender_name or format_node_id(refused.sender)
    if refused.source is None:
        return f"member {sender}, by its certificate,"
    return f"somebody at {refused.source}, as {sender},"
