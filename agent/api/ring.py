"""Routes about which nodes own which keys, and what would move if something were changed."""

from collections import Counter
from itertools import chain
from typing import Any

from agent.admission.placement import check_change
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.members import find_entry
from agent.api.request_bodies import number
from agent.cluster.ring_plan import PlannedChange, plan_addition, plan_change, plan_removal
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from agent.identity.identity import check_name
from gossip.core.ids import NodeId, format_node_id
from gossip.kv.requests import check_key
from gossip.registry.node import RegisteredNode
from gossip.registry.node_change import NodeChange
from gossip.registry.ownership import Ownership
from gossip.registry.placement import Owners
from gossip.registry.plan import owned

CHANGES = ("set", "drain", "undrain", "remove", "add")
CAPACITY_MAX = 100.0


async def show_ring(request: Request) -> Response:
    """Answer with the share of each node, or with the owners of ``?key=``."""
    agent: AgentServices = request.app.state.agent
    registry = agent.registry
    key = request.query_params.get("key")
    answer: dict[str, Any] = {"epoch": registry.epoch}
    if key is not None:
        check_key(key)
        partition = registry.partition_of(key)
        ownership = registry.ownership(partition)
        owners = [node_of(agent, owner) for owner in ownership.owners]
        pending = [node_of(agent, owner) for owner in ownership.pending]
        told = {"owners": owners, "stage": ownership.stage.value, "pending": pending}
        home = _home(agent, partition)
        return JSONResponse({**answer, "key": key, "partition": partition, "home": home, **told})
    copies = sum(map(len, registry.owners))
    owning = owned(registry.owners)
    coming = Counter(chain.from_iterable(each.newcomers for _, each in registry.ownerships))
    staying = Counter(chain.from_iterable(_staying(each) for _, each in registry.ownerships))
    homes = owned([each.ownership.owners for each in registry.places if each.device])
    spaces = owned([each.ownership.owners for each in registry.places if each.space])
    nodes = (
        {
            **node_of(agent, entry.id),
            "capacity": entry.weight,
            "partitions": owning[entry.id],
            "share": owning[entry.id] / copies,
            "pending": coming[entry.id],
            "homes": homes[entry.id],
            "in_spaces": spaces[entry.id],
            "leaving": owning[entry.id] + homes[entry.id] + spaces[entry.id] - staying[entry.id],
            "absent": entry.absent,
            "drains": entry.drains,
            "missing": entry.missing,
        }
        for entry in registry.nodes
    )
    shape = {
        "partitions": registry.partitions,
        "replicas": registry.replicas,
        "homes": sum(place.device > 0 for place in registry.places),
        "spaces": registry.spaces,
        "moving": registry.count_moving(),
    }
    return await listing("nodes", nodes, **answer, **shape)


def _home(agent: AgentServices, partition: int) -> dict[str, Any] | None:
    """Describe the device whose home a partition is; None for one of all keys."""
    device = agent.registry.device_of(partition)
    return None if device is None else node_of(agent, device)


def _staying(ownership: Ownership) -> Owners:
    """Return the owners that remain so."""
    return tuple(node for node in ownership.owners if node in ownership.target)


async def plan_ring(request: Request) -> Response:
    """Answer with what would move if ``?change=`` were made of the node ``?name=``."""
    agent: AgentServices = request.app.state.agent
    change = request.query_params.get("change", "")
    if change not in CHANGES:
        raise BadRequest(f"`change`: one of {', '.join(CHANGES)}")
    name = request.query_params.get("name", "")
    planned = _planned(agent, change, name, _change_of(request, change))
    return await listing("nodes", _shares(agent, planned), **summary(agent, planned))


def _change_of(request: Request, change: str) -> NodeChange:
    """Return what is asked for. Raises AgentError."""
    asked = request.query_params
    if change in ("drain", "undrain"):
        return NodeChange(drains=change == "drain")
    is_given = asked.get("capacity") is not None
    weight = number(request, "capacity", most=CAPACITY_MAX, default=1.0) if is_given else None
    told = NodeChange(zone=asked.get("zone"), weight=weight)
    check_change(told)
    return told


def _planned(agent: AgentServices, change: str, name: str, told: NodeChange) -> PlannedChange:
    registry = agent.registry
    if change == "add":
        check_name(name, "node")
        return plan_addition(registry, name, told.zone or "", told.weight or 1.0, is_up(agent))
    node = find_entry(agent, name).id
    if change == "remove":
        return plan_removal(registry, node, is_up(agent))
    return plan_change(registry, node, told, is_up(agent))


def is_up(agent: AgentServices) -> Any:
    """Return what tells whether a node is there, as this node believes."""
    return lambda node: (member := agent.members.get(node)) is not None and member.is_live


def summary(agent: AgentServices, planned: PlannedChange) -> dict[str, Any]:
    """Return what a plan comes to, as JSON. Bytes are an estimate by what lies here."""
    made, registry = planned.plan, agent.registry
    held = registry.left_at(agent.identity.node_id)
    each_bytes = agent.shared_bytes / held if held else None
    return {
        "epoch": registry.epoch,
        "partitions": registry.partitions,
        "replicas": registry.replicas,
        "copies": made.copies,
        "copied": made.copied,
        "copied_homes": made.copied_homes,
        "copied_in_spaces": made.copied_in_spaces,
        "bytes": None if each_bytes is None else round(made.copied * each_bytes),
        "causes": made.causes(),
        "risks": list(planned.risks),
    }


def _shares(agent: AgentServices, planned: PlannedChange) -> list[dict[str, Any]]:
    """Return what each node owns before and after."""
    made = planned.plan
    before, after = owned(made.before), owned(made.after)
    gets, gives = (
        Counter(move.taker for move in made.moves), Counter(move.giver for move in made.moves)
    )  # fmt: skip
    entries = {each.id: each for each in (*made.nodes_before, *made.nodes_after)}
    return [
        {
            **_described(agent, entry),
            "before": before[node],
            "after": after[node],
            "gets": gets[node],
            "gives": gives[node],
        }
        for node, entry in entries.items()
    ]


def _described(agent: AgentServices, entry: RegisteredNode) -> dict[str, Any]:
    return {
        "id": format_node_id(entry.id),
        "name": entry.name,
        "zone": entry.zone,
        "capacity": entry.weight,
        "drains": entry.drains,
        "state": _state(agent, entry.id),
    }


def node_of(agent: AgentServices, node: NodeId) -> dict[str, Any]:
    """Describe an owner: its name is the registry's, its state what this node believes."""
    entry = agent.registry.node(node)
    return {
        "id": format_node_id(node),
        "name": entry.name if entry else "",
        "zone": entry.zone if entry else "",
        "state": _state(agent, node),
    }


def _state(agent: AgentServices, node: NodeId) -> str:
    entry, member = agent.registry.node(node), agent.members.get(node)
    unheard = "absent" if entry is not None and entry.absent else "unknown"
    return member.state.value if member else unheard


ROUTES = (
    ("GET", "/api/v1/ring", show_ring),
    ("GET", "/api/v1/ring/plan", plan_ring),
)
