"""What a change would move, and what is risky about it, in words: for `covey ring plan`.

What moves is computed in ``gossip/registry/plan.py``; here a change that a person asks about
becomes the nodes that there would be, and what would be worse afterwards, or in between, becomes
sentences.
"""

from collections.abc import Callable, Collection
from itertools import count
from typing import NamedTuple

import msgspec

from agent.exits import NAME_TAKEN, UNHEALTHY, AgentError
from agent.text.units import counted
from gossip.core.ids import NodeId
from gossip.registry.node import RegisteredNode
from gossip.registry.node_change import NobodyLeft, NodeChange, arrange
from gossip.registry.ownership import majority
from gossip.registry.placement import zone_of
from gossip.registry.plan import Plan, plan
from gossip.registry.registry import Registry, losses

IsUp = Callable[[NodeId], bool]


class PlannedChange(NamedTuple):
    """A plan, and what is risky about it."""

    plan: Plan
    risks: tuple[str, ...]


def plan_change(registry: Registry, node: NodeId, change: NodeChange, is_up: IsUp) -> PlannedChange:
    """Return what would follow from another zone or weight, or from draining. Raises AgentError."""
    try:
        nodes = arrange(registry, node, change).nodes
    except NobodyLeft as error:
        hint = "let another device in first, or start those that are off"
        raise AgentError(f"{error}", hint, UNHEALTHY) from None
    # Who drains no more is absent until it is heard, which is a second where it runs.
    present = tuple(
        msgspec.structs.replace(each, absent=False) if each.id == node else each for each in nodes
    )
    return _with_risks(registry, plan(registry, present), is_up)


def plan_removal(registry: Registry, node: NodeId, is_up: IsUp) -> PlannedChange:
    """Return what would follow if a node were removed. Raises AgentError."""
    others = tuple(each for each in registry.nodes if each.id != node)
    if not others:
        raise AgentError("the last node of a covey cannot be removed", "", UNHEALTHY)
    told = _with_risks(registry, plan(registry, others), is_up)
    lossy = losses(registry, node)
    if not lossy:
        return told
    risk = (
        f"acknowledged writes of {counted(len(lossy), 'partition')} may be gone with it, so a "
        "removal is refused: let it drain first, or start owners that are off"
    )
    return told._replace(risks=(risk, *told.risks))


def plan_addition(
    registry: Registry, name: str, zone: str, weight: float, is_up: IsUp
) -> PlannedChange:
    """Return what would follow if a node joined. Raises AgentError.

    Which partitions it gets depends on the id that it draws; how many does not.
    """
    if any(each.name == name for each in registry.nodes):
        raise AgentError(
            f"{name} belongs to the covey already", "`covey ring` shows it", NAME_TAKEN
        )
    node = next(number for number in count(1) if registry.node(number) is None)
    newcomer = RegisteredNode(node, name, weight=weight, zone=zone)

    def is_there(each: NodeId) -> bool:
        return each == node or is_up(each)

    return _with_risks(registry, plan(registry, (*registry.nodes, newcomer)), is_there)


def _with_risks(registry: Registry, made: Plan, is_up: IsUp) -> PlannedChange:
    risks = (
        _fewer_copies(registry, made),
        _shared_zones(made),
        _takers_away(made, is_up),
        _owners_away(registry, made, is_up),
        _on_their_way(registry),
    )
    return PlannedChange(made, tuple(risk for risk in risks if risk))


def _fewer_copies(registry: Registry, made: Plan) -> str:
    why = "for no more nodes would own anything"
    thinned = [
        f"each key of {name}/ would have {after} instead of {before} copies, {why}"
        for name, (before, after) in made.thinned_spaces().items()
    ]
    if made.copies < min(registry.replicas, made.copies_before):
        thinned.insert(
            0,
            f"each key would have {made.copies} instead of {made.copies_before} copies, {why}; "
            f"{registry.replicas} are wanted",
        )
    return "; ".join(thinned)


def _shared_zones(made: Plan) -> str:
    some, whole = made.crowded()
    total = len(made.after)
    if whole:
        return (
            f"{whole} of {total} partitions would have all their copies in one zone: if it fails, "
            "they are gone with it"
        )
    if not some:
        return ""
    owning = {owner for owners in made.after for owner in owners}
    zones = {zone_of(each) for each in made.nodes_after if each.id in owning}
    return (
        f"{some} of {total} partitions would have several copies in one zone, for there are "
        f"{counted(len(zones), 'zone')}"
    )


def _takers_away(made: Plan, is_up: IsUp) -> str:
    takers = {move.taker for move in made.moves if move.taker is not None}
    away = [each.name for each in made.nodes_after if each.id in takers and not is_up(each.id)]
    if not away:
        return ""
    return f"{', '.join(away)} would get partitions and is not there: those wait until it is back"


def _owners_away(registry: Registry, made: Plan, is_up: IsUp) -> str:
    def can_go_on(owners: Collection[NodeId]) -> bool:
        return sum(map(is_up, owners)) >= majority(owners)

    moving = {move.partition for move in made.moves}
    stuck = [p for p in moving if not can_go_on(registry.ownership(p).readers)]
    if not stuck:
        return ""
    return f"{counted(len(stuck), 'partition')} cannot move before more of their owners are back"


def _on_their_way(registry: Registry) -> str:
    moving = sum(registry.count_moving().values())
    if not moving:
        return ""
    return f"partitions that are on their way to other owners already: {moving}"
