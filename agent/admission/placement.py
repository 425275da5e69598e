"""What an operator may say of a node's share, of which node, and how the issuer's log tells it.

Who lets others in decides where they stand and how much they own: so it is with tokens, which may
fix both. Any node may say of itself that it drains, for it might as well be switched off.
"""

from agent import exits
from agent.admission.messages import PlacementOrder
from agent.admission.token_terms import WEIGHT_MAX
from agent.exits import AgentError
from agent.identity.identity import check_name
from gossip.core.ids import NodeId
from gossip.registry.node import RegisteredNode
from gossip.registry.node_change import NodeChange


def check_change(change: NodeChange) -> None:
    """Return if the registry may say so. Raises AgentError."""
    if change.zone:
        check_name(change.zone, "zone")
    if change.weight is not None and not 0 < change.weight <= WEIGHT_MAX:
        raise AgentError(
            f"a node's capacity is more than 0 and at most {WEIGHT_MAX:.0f}; nothing was changed.",
            "Who is to own nothing drains.",
            exits.USAGE,
        )


def may_order(asker: RegisteredNode, order: PlacementOrder) -> bool:
    """Tell whether a member's operator may have this done."""
    alone = order.change == NodeChange(drains=order.change.drains)
    return asker.may_invite or (order.node == asker.id and alone)


def no_right(name: str, order: PlacementOrder, asker: NodeId, issuers: str) -> tuple[str, str]:
    """Return what is refused, and what to do."""
    what = "change its own share" if order.node == asker else "change what others own"
    return (
        f"{name} may not {what}; nothing was changed.",
        f"Do it on {issuers}, or give {name} the right, there: `covey members allow {name}`",
    )


def in_words(before: RegisteredNode, after: RegisteredNode) -> str:
    """Return what has changed, for the log."""
    told = []
    if after.zone != before.zone:
        told.append(f"zone {after.zone or 'none'} (was {before.zone or 'none'})")
    if after.weight != before.weight:
        told.append(f"capacity {after.weight:g} (was {before.weight:g})")
    if after.drains != before.drains:
        told.append("drains" if after.drains else "drains no more")
    return ", ".join(told) or "as before"
