"""Routes about who is there."""

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any, TypeVar

import msgspec

from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.exits import NOT_FOUND, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from agent.text.suggestions import did_you_mean
from gossip.core.ids import format_node_id
from gossip.membership.model.members import Member, MemberState
from gossip.registry.node import RegisteredNode

N = TypeVar("N", Member, RegisteredNode)

ABSENT = "absent"
"""No state of a member: a node of the registry that the issuer has not heard."""
STATES = (*(state.value for state in MemberState), ABSENT)


async def list_members(request: Request) -> Response:
    """Answer with the members, in the order of their ids, and with who is let in and absent."""
    agent: AgentServices = request.app.state.agent
    state = request.query_params.get("state", "")
    if state and state not in STATES:
        raise BadRequest(f"`state={state[:40]}`: no such state", f"known are {', '.join(STATES)}")
    found = [member for member in agent.members if state in ("", member.state.value)]
    absent = absentees(agent) if state in ("", ABSENT) else []
    return await listing("members", (describe(agent, member) for member in found), absent=absent)


async def show_member(request: Request) -> Response:
    """Answer with one member, by its id or name: since when, and what it says of itself."""
    agent: AgentServices = request.app.state.agent
    found = find_member(agent, request.path_params["name"])
    changed_s = max(0.0, agent.now() - found.changed_at)
    facts = agent.facts_of(found.id)
    more = {
        "changed_s": round(changed_s, 3),
        "reason": agent.reason_of(found.id),
        "absent": any(entry.id == found.id for entry in agent.registry.absent),
        "paths": None if found.id == agent.identity.node_id else describe_paths(agent, found),
        "facts": facts,
    }
    return JSONResponse({**describe(agent, found), **more})


def find_member(agent: AgentServices, wanted: str) -> Member:
    """Return a member by its id or name. Raises AgentError when there is none."""
    if (found := _called(wanted, agent.members)) is not None:
        return found
    if (entry := _called(wanted, agent.registry.nodes)) is not None:
        raise AgentError(
            f"{entry.name} was let in, and was not heard here since the agent started",
            "is its agent running? `covey members remove` takes out who never comes",
            NOT_FOUND,
        )
    names = (member.name for member in agent.members)
    hint = did_you_mean(wanted, names, "`covey members` lists them")
    raise AgentError(f"no member is called {wanted[:80]!r}", hint, NOT_FOUND)


def find_entry(agent: AgentServices, wanted: str) -> RegisteredNode:
    """Return a node of the registry by its id or name: it need never have been heard.

    Raises AgentError when there is none.
    """
    if (found := _called(wanted, agent.registry.nodes)) is not None:
        return found
    names = (entry.name for entry in agent.registry.nodes)
    hint = did_you_mean(wanted, names, "`covey members` lists them")
    raise AgentError(f"no node is called {wanted[:80]!r}", hint, NOT_FOUND)


def _called(wanted: str, nodes: Iterable[N]) -> N | None:
    """Return the node with this id, or else of this name: a name may look like another's id."""
    known = list(nodes)
    of_id = (node for node in known if format_node_id(node.id) == wanted)
    of_name = (node for node in known if node.name == wanted)
    return next(chain(of_id, of_name), None)


def describe(agent: AgentServices, member: Member) -> dict[str, Any]:
    """Return a member as JSON. Ids are hexadecimal: JSON's numbers lose the last digits."""
    until = member.asleep_until
    return {
        "id": format_node_id(member.id),
        "name": member.name,
        "calls_itself": member.says or member.name,
        "addresses": [str(address) for address in member.addresses],
        "state": member.state.value,
        "boot": f"{member.boot:016x}",
        "incarnation": member.incarnation,
        "tags": member.tags,
        "self": member.id == agent.identity.node_id,
        "roles": roles_of(agent, member),
        "drains": (entry := agent.registry.node(member.id)) is not None and entry.drains,
        "until_s": None if until is None else max(0, math.ceil(until - agent.now())),
        "flapping": agent.is_flapping(member.id),
        "clone": [str(address) for address in agent.clones_of(member.id)],
        "impaired": impaired(agent, member),
    }


def absentees(agent: AgentServices) -> list[dict[str, Any]]:
    """Return who is let in, gets no partitions before the issuer hears it, and is not there.

    Whoever is alive here was heard, and the issuer says so within moments.
    """
    live = {member.id for member in agent.members if member.is_live}
    away = [one for one in agent.registry.absent if one.id not in live]
    return [{"id": format_node_id(one.id), "name": one.name} for one in away]


def missing(agent: AgentServices) -> list[dict[str, Any]]:
    """Return whose share others get, and how many partitions still lie there."""
    registry = agent.registry
    return [
        {"id": format_node_id(one.id), "name": one.name, "held": registry.left_at(one.id)}
        for one in registry.missing
    ]


def draining(agent: AgentServices) -> list[dict[str, Any]]:
    """Return who is to own nothing, how many partitions still lie there, and whether it votes."""
    registry, voters = agent.registry, agent.agreement.status().voters
    return [
        {
            "id": format_node_id(one.id),
            "name": one.name,
            "held": registry.left_at(one.id),
            "votes": one.id in voters,
        }
        for one in registry.draining
    ]


def roles_of(agent: AgentServices, member: Member) -> list[str]:
    """Return what the registry says that a member may do beside being one."""
    entry = agent.registry.node(member.id)
    return [] if entry is None else list(entry.roles)


def impaired(agent: AgentServices, member: Member) -> list[str]:
    """Return what does not pass between this node and a member that is there."""
    if not member.is_live or member.id == agent.identity.node_id:
        return []
    paths = agent.paths_of(member.id)
    missing = {
        "no UDP": paths.udp_blocked,
        "no streams": paths.streams_blocked,
        "narrow path": paths.narrow,
    }
    return [words for words, is_missing in missing.items() if is_missing]


def describe_paths(agent: AgentServices, member: Member) -> dict[str, Any]:
    """Return which ways to a member worked, and how many seconds ago, as JSON."""
    told: dict[str, Any] = msgspec.to_builtins(agent.paths_of(member.id))
    return {name: round(age, 3) if type(age) is float else age for name, age in told.items()}


ROUTES = (
    ("GET", "/api/v1/members", list_members),
    ("GET", "/api/v1/members/{name}", show_member),
)
