"""Why each member is in the state that it is in: the reason of the last change, kept for show."""

from collections import OrderedDict

from gossip.core.ids import NodeId
from gossip.membership.model.members import MemberChanged

REASONS_MAX = 8192


class ChangeReasons:
    """Remembers the last reason for each member, those changed last if there are too many."""

    def __init__(self) -> None:
        self._reasons: OrderedDict[NodeId, str] = OrderedDict()

    def record(self, event: object) -> None:
        """Take in an event of the driver; all but changes of members are ignored."""
        if isinstance(event, MemberChanged):
            self._reasons[event.member.id] = event.reason
            self._reasons.move_to_end(event.member.id)
            if len(self._reasons) > REASONS_MAX:
                self._reasons.popitem(last=False)

    def of(self, node: NodeId) -> str:
        """Return why a member is in its state; empty when it never changed in this life."""
        return self._reasons.get(node, "")
