"""Routes for when the voters are lost: which copies there are, going on with one, saved states."""

from collections.abc import Iterable
from typing import Any

from agent.api.audited import note
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.members import find_entry
from agent.api.request_bodies import read_body, read_object
from agent.api.voters import name_of, names_of
from agent.cluster.recovery import CopyReport
from agent.cluster.snapshot_file import LINE_BYTES_MAX, titled
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.consensus.messages import SNAPSHOT_BYTES_MAX
from gossip.control.messages import CopyStanding
from gossip.core.ids import NodeId, format_node_id

MEDIA_TYPE = "application/octet-stream"


async def show_copies(request: Request) -> Response:
    """Answer with which copies of what is agreed on there are, and how new each is."""
    agent: AgentServices = request.app.state.agent
    names = request.query_params.getlist("without")
    found = await agent.recovery.survey(_nodes(agent, names))
    aside = await agent.recovery.set_aside()
    me = agent.identity.node_id
    standings = {me: found.own, **found.others}
    nodes = dict.fromkeys([*standings, *agent.registry.ids(), *found.lost_voters()])
    voters = {each.node for each in found.configuration.voters}
    copies = [_copy(agent, found, n, standings.get(n), votes=n in voters) for n in nodes]
    committed = agent.agreement.consensus()
    return JSONResponse(
        {
            "generation": found.own.generation,
            "last": found.own.last_index,
            "committed": committed.commit_index if committed else found.own.applied,
            "majority": found.is_alive,
            "forked": found.has_forked,
            "newest": names_of(agent, sorted(found.newest)),
            "is_newest": me in found.newest,
            "lost": names_of(agent, found.lost_voters()),
            "copies": sorted(copies, key=_newest_first),
            "set_aside": [
                {
                    "file": each.file,
                    "generation": each.generation,
                    "term": each.term,
                    "last": each.last_index,
                }
                for each in aside
            ],
        }
    )


def _nodes(agent: AgentServices, names: Iterable[str]) -> frozenset[NodeId]:
    return frozenset(find_entry(agent, name).id for name in names)


def _newest_first(copy: dict[str, Any]) -> tuple[object, ...]:
    has = copy["generation"], copy["term"], copy["last"]
    return (not copy["answered"], *(-(each or 0) for each in has), copy["name"])


def _copy(
    agent: AgentServices,
    found: CopyReport,
    node: NodeId,
    standing: CopyStanding | None,
    *,
    votes: bool,
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": format_node_id(node),
        "name": name_of(agent, node),
        "self": node == agent.identity.node_id,
        "votes": votes,
        "answered": standing is not None,
        "believed": node in found.believed,
        "newest": node in found.newest,
    }
    if standing is None:
        return told | dict.fromkeys(
            ("takes_part", "generation", "term", "last", "applied", "has_majority", "store")
        )
    return told | {
        "takes_part": standing.takes_part,
        "generation": standing.generation,
        "term": standing.term,
        "last": standing.last_index,
        "applied": standing.applied,
        "has_majority": standing.has_majority,
        "store": f"{standing.store:016x}",
    }


async def recover(request: Request) -> Response:
    """Go on alone from this node's copy, which the client has looked at; the agent begins anew.

    Or from a log that was set aside (``set_aside``: its file); or follow who has gone on already.
    """
    agent: AgentServices = request.app.state.agent
    taken = frozenset({"generation", "last", "set_aside", "without", "follow"})
    body = await read_object(request, taken)
    if "follow" in body:
        return await _follow(request, agent, body)
    generation, last = body.get("generation"), body.get("last")
    file, names = body.get("set_aside"), body.get("without", [])
    if not isinstance(generation, int) or not isinstance(last, int):
        raise BadRequest("`generation` and `last` say which copy you looked at")
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise BadRequest("`without` is a list of names of nodes")
    if not isinstance(file, str | None):
        raise BadRequest("`set_aside` is the name of a file, as `GET /api/v1/copies` shows it")
    left_out = f", without {', '.join(names)}" if names else ""
    note(request, f"from {file or ''} generation {generation}, revision {last}{left_out}")
    without = _nodes(agent, names)
    if file is None:
        begun = await agent.recovery.recover(generation, last, without)
    else:
        begun = await agent.recovery.recover_set_aside(file, last, without)
    return JSONResponse({"generation": begun}, 202)


async def _follow(request: Request, agent: AgentServices, body: dict[str, Any]) -> Response:
    name = body["follow"]
    if not isinstance(name, str) or len(body) > 1:
        raise BadRequest("`follow` is the name of a node, and stands alone")
    note(request, f"follow {name}")
    begun = await agent.recovery.follow(find_entry(agent, name).id)
    return JSONResponse({"generation": begun}, 202)


async def save_snapshot(request: Request) -> Response:
    """Answer with the whole state as a file."""
    agent: AgentServices = request.app.state.agent
    return Response(await agent.recovery.save(), media_type=MEDIA_TYPE)


async def restore_snapshot(request: Request) -> Response:
    """Go on from a saved state, where one node votes alone; the agent begins anew."""
    agent: AgentServices = request.app.state.agent
    data = await read_body(request, SNAPSHOT_BYTES_MAX + 2 * LINE_BYTES_MAX)
    if not data:
        raise BadRequest("the snapshot is empty; nothing was changed", "take another file")
    note(request, f"{len(data)} bytes")
    file, begun = await agent.recovery.restore(data, request.query_params.get("of", ""))
    return JSONResponse({**titled(file.header), "restored": begun}, 202)


ROUTES = (
    ("GET", "/api/v1/copies", show_copies),
    ("POST", "/api/v1/recovery", recover),
    ("GET", "/api/v1/snapshot", save_snapshot),
    ("PUT", "/api/v1/snapshot", restore_snapshot),
)
