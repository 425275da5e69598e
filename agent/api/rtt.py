"""Route of the round trips between members."""

from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.members import find_member
from agent.exits import NOT_FOUND, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.core.ids import format_node_id

MS_PER_S = 1000.0


async def show_round_trip(request: Request) -> Response:
    """Answer with the round trip between two members; of one, between it and this node."""
    agent: AgentServices = request.app.state.agent
    wanted = request.query_params.get("a", "")
    if not wanted:
        raise BadRequest("`a` is missing", "name a member, and with `b` the other")
    one = find_member(agent, wanted)
    other = find_member(
        agent, request.query_params.get("b") or format_node_id(agent.identity.node_id)
    )
    known = await agent.round_trips.between(one.id, other.id)
    if not known.is_known:
        raise AgentError(
            f"nobody knows how far {one.name} is from {other.name}",
            "members learn it by probing each other: try again in a minute",
            NOT_FOUND,
        )
    return JSONResponse(
        {
            "a": one.name,
            "b": other.name,
            "measured_ms": _ms(known.measured_s),
            "estimated_ms": _ms(known.estimated_s),
            "error_ms": _ms(known.error_s),
        }
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * MS_PER_S, 3)


ROUTES = (("GET", "/api/v1/rtt", show_round_trip),)
