"""Routes about one node's place in the registry: its zone, its capacity, and whether it drains."""

from itertools import chain
from typing import Any

from agent.admission.placement import check_change
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.members import find_entry
from agent.api.request_bodies import read_object
from agent.api.ring import is_up, summary
from agent.api.voters import name_of
from agent.cluster.ring_plan import plan_change
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.core.ids import NodeId, format_node_id
from gossip.registry.node import RegisteredNode
from gossip.registry.node_change import NodeChange
from gossip.registry.plan import owned
from gossip.registry.registry import Registry

FIELDS = frozenset({"zone", "capacity", "drains"})


async def show_node(request: Request) -> Response:
    """Answer with what the registry says of a node, and how much lies there."""
    agent: AgentServices = request.app.state.agent
    return JSONResponse(_describe(agent, find_entry(agent, request.path_params["name"])))


async def place(request: Request) -> Response:
    """Have a node's zone or capacity changed, or have it drain, or not any more."""
    agent: AgentServices = request.app.state.agent
    change = _change_of(await read_object(request, FIELDS))
    check_change(change)
    entry = find_entry(agent, request.path_params["name"])
    planned = plan_change(agent.registry, entry.id, change, is_up(agent))
    epoch = await agent.admission.place(entry.id, change)
    told = _placed(change.of(entry))
    return JSONResponse({**told, **summary(agent, planned), "epoch": epoch})


def _change_of(asked: dict[str, Any]) -> NodeChange:
    """Return what is asked for. Raises BadRequest."""
    if not asked:
        raise BadRequest("nothing to change", "give `zone`, `capacity` or `drains`")
    zone, capacity, drains = (asked.get(name) for name in ("zone", "capacity", "drains"))
    if zone is not None and not isinstance(zone, str):
        raise BadRequest("`zone`: a text is needed; an empty one for no zone")
    if capacity is not None and (
        isinstance(capacity, bool) or not isinstance(capacity, int | float)
    ):
        raise BadRequest("`capacity`: a number is needed")
    if drains is not None and not isinstance(drains, bool):
        raise BadRequest("`drains`: true or false")
    return NodeChange(zone, None if capacity is None else float(capacity), drains)


def _placed(entry: RegisteredNode) -> dict[str, Any]:
    return {
        "id": format_node_id(entry.id),
        "name": entry.name,
        "zone": entry.zone,
        "capacity": entry.weight,
        "drains": entry.drains,
    }


def _describe(agent: AgentServices, entry: RegisteredNode) -> dict[str, Any]:
    """Return a node's entry as JSON. ``held`` counts what it owns, or is to own, or still has.

    Whether it ``votes`` is as this node's copy has it.
    ``away`` names those who share any of that and are not there, as this node believes.
    """
    registry, member = agent.registry, agent.members.get(entry.id)
    pending = sum(entry.id in each.newcomers for _, each in registry.ownerships)
    up = is_up(agent)
    return {
        **_placed(entry),
        "epoch": registry.epoch,
        "state": member.state.value if member else None,
        "absent": entry.absent,
        "missing": entry.missing,
        "roles": list(entry.roles),
        "partitions": owned(registry.owners)[entry.id],
        "pending": pending,
        "held": registry.left_at(entry.id),
        "votes": entry.id in agent.agreement.status().voters,
        "away": sorted(
            name_of(agent, each) for each in _sharing(registry, entry.id) if not up(each)
        ),
        "moving": registry.count_moving(),
    }


def _sharing(registry: Registry, node: NodeId) -> set[NodeId]:
    """Return all others that hold, or are to have, a copy of what a node has."""
    shared = (each.holders for _, each in registry.ownerships if node in each.holders)
    return set(chain.from_iterable(shared)) - {node}


ROUTES = (
    ("GET", "/api/v1/nodes/{name}", show_node),
    ("POST", "/api/v1/nodes/{name}", place),
)
