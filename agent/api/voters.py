"""Routes of who decides for the covey: who votes, who stands by, and who takes whose place."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from agent.api.audited import note
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.members import find_entry
from agent.api.request_bodies import read_object
from agent.exits import AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.consensus.configuration import StoreId
from gossip.consensus.status import ConsensusStatus
from gossip.control.messages import MemberOverview, OverviewAnswer
from gossip.control.requests import ControlStatus
from gossip.control.voter_overview import SOON
from gossip.core.ids import NodeId, format_node_id

UNKNOWN: dict[str, Any] = dict.fromkeys(
    ("match", "lag", "heard_s_ago", "settled", "fenced", "uptime_s", "fsync_p99_ms", "mains",
     "takes_writes")
)  # fmt: skip


class ShownVoter(NamedTuple):
    """One store that takes part; a node that lost its log has two until it votes with the other."""

    node: NodeId
    store: StoreId | None
    role: str
    known: MemberOverview | None = None


async def show_voters(request: Request) -> Response:
    """Answer with who votes, who leads, how each is as the leader knows, and why no more vote."""
    agent: AgentServices = request.app.state.agent
    has_majority = await agent.agreement.is_agreed()
    overview = await _overview(agent) if has_majority else None
    status, agreed = agent.agreement.status(), agent.agreement.consensus()
    shown = sorted(_taking_part(status, agreed, overview), key=lambda each: each.role == "learner")

    draining = {entry.id for entry in agent.registry.draining}

    def describe(each: ShownVoter) -> dict[str, Any]:
        return {
            **_named(agent, each.node),
            "store": "" if each.store is None else f"{each.store:016x}",
            "role": each.role,
            "drains": each.node in draining,
            **(_health(each.known, overview) if each.known and overview else UNKNOWN),
        }

    return JSONResponse(
        {
            "role": status.role,
            "generation": status.generation,
            "term": overview.term if overview else agreed.term if agreed else None,
            "leader": name_of(agent, status.leader) if status.leader is not None else "",
            "has_majority": has_majority,
            "commit": overview.commit if overview else agreed.commit_index if agreed else None,
            "applied": status.applied_index,
            "keys": status.keys,
            "sessions": status.sessions,
            "used_bytes": status.used_bytes,
            "halted": status.is_halted,
            "forks": [_named(agent, node) for _, node in status.forks],
            "voters": list(map(describe, shown)),
            "wanted": overview.wanted if overview else None,
            "changing": overview.is_changing if overview else None,
            "others": [
                {
                    **_named(agent, each.node),
                    "reason": each.reason,
                    "soon": each.reason in SOON,
                }
                for each in (overview.waits if overview else ())
            ],
        }
    )


async def replace(request: Request) -> Response:
    """Begin to have one node vote in the place of another; who looks sees when it is done."""
    agent: AgentServices = request.app.state.agent
    body = await read_object(request, frozenset({"old", "new"}))
    old, new = body.get("old"), body.get("new")
    if not isinstance(old, str) or not isinstance(new, str):
        raise BadRequest("`old` and `new` are names of nodes")
    note(request, f"{new} for {old}")
    await agent.voters.replace(_voter(agent, old), find_entry(agent, new).id)
    return JSONResponse({"old": old, "new": new}, 202)


def _voter(agent: AgentServices, wanted: str) -> NodeId:
    """Return a node by its name or id; a voter need not belong any more."""
    for node in agent.agreement.status().voters:
        if format_node_id(node) == wanted:
            return node
    return find_entry(agent, wanted).id


async def _overview(agent: AgentServices) -> OverviewAnswer | None:
    """Ask the leader; None if it is of a version that does not answer, or has just gone."""
    try:
        return await agent.voters.overview()
    except AgentError:
        return None


def _taking_part(
    status: ControlStatus, agreed: ConsensusStatus | None, overview: OverviewAnswer | None
) -> Iterator[ShownVoter]:
    """Yield who takes part: as the leader says, by our own log, or as we heard of voters."""
    if overview is not None:
        for each in overview.members:
            leads = each is overview.members[0]
            yield ShownVoter(each.node, each.store, _role(votes=each.votes, leads=leads), each)
    elif agreed is not None:
        for voter in agreed.configuration.members:
            votes = agreed.configuration.is_voter(voter.store)
            role = _role(votes=votes, leads=voter.node == status.leader)
            yield ShownVoter(voter.node, voter.store, role)
    else:
        for node in status.voters:
            yield ShownVoter(node, None, _role(votes=True, leads=node == status.leader))
        yield from (ShownVoter(node, None, "learner") for node in status.learners)


def _role(*, votes: bool, leads: bool) -> str:
    if not votes:
        return "learner"
    return "leader" if leads else "voter"


def _health(member: MemberOverview, overview: OverviewAnswer) -> dict[str, Any]:
    return {
        "match": member.match,
        "lag": max(0, overview.last_index - member.match),
        "heard_s_ago": member.silent_ms / 1000,
        "settled": member.has_settled,
        "fenced": member.is_fenced,
        "uptime_s": member.uptime_s,
        "fsync_p99_ms": member.fsync_p99_ms,
        "mains": member.is_on_mains,
        "takes_writes": member.takes_writes,
    }


def _named(agent: AgentServices, node: NodeId) -> dict[str, str]:
    return {"id": format_node_id(node), "name": name_of(agent, node)}


def names_of(agent: AgentServices, nodes: Iterable[NodeId]) -> list[str]:
    """Return the names of nodes."""
    return [name_of(agent, node) for node in nodes]


def name_of(agent: AgentServices, node: NodeId) -> str:
    """Return a node's name in the registry, or its id if it does not belong any more."""
    entry = agent.registry.node(node)
    return entry.name if entry else format_node_id(node)


ROUTES = (
    ("GET", "/api/v1/voters", show_voters),
    ("POST", "/api/v1/voters", replace),
)
