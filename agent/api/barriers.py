"""Routes of barriers: so many sessions begin together, and end together."""

from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.locks import WAIT_S_MAX, seconds
from agent.api.name_scope import check_name, check_session, prefix_of
from agent.api.request_bodies import integer, number, read_object
from agent.cluster.agreement_json import describe_barrier, read_session
from agent.exits import NOT_FOUND, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.control.barriers import Barrier
from gossip.control.bounds import RANGE_ENTRIES_MAX


async def list_barriers(request: Request) -> Response:
    """Answer with one page of the barriers that somebody is inside of."""
    agent: AgentServices = request.app.state.agent
    prefix = request.query_params.get("prefix", prefix_of(request))
    check_name(request, prefix)
    limit = integer(request, "limit", most=RANGE_ENTRIES_MAX, default=RANGE_ENTRIES_MAX)
    assert limit is not None, "it has a default"
    after = request.query_params.get("after", "")
    revision, found = await agent.agreement.barriers(prefix, after, limit)
    barriers = [describe_barrier(each.name, each) for each in found.barriers]
    following = found.barriers[-1].name if found.more else ""
    return JSONResponse({"revision": revision, "next": following, "barriers": barriers})


async def enter_barrier(request: Request) -> Response:
    """Enter a barrier, and wait for the others; asking again does no harm."""
    agent: AgentServices = request.app.state.agent
    name = _name(request)
    body = await read_object(request, frozenset({"session", "count", "wait_s"}))
    session = read_session(body.get("session"))
    await check_session(request, session)
    count = body.get("count")
    if not isinstance(count, int) or isinstance(count, bool):
        raise BadRequest("`count` says how many have to enter")
    wait_s = min(WAIT_S_MAX, seconds(body, "wait_s", 0.0))
    barrier = await agent.agreement.enter_barrier(name, session, count, wait_s)
    return _respond(name, barrier)


async def leave_barrier(request: Request) -> Response:
    """Leave a barrier, and wait until all have; asking again does no harm."""
    agent: AgentServices = request.app.state.agent
    name = _name(request)
    session = read_session(request.query_params.get("session"))
    await check_session(request, session)
    wait_s = 0.0
    if request.query_params.get("wait_s") is not None:
        wait_s = number(request, "wait_s", most=WAIT_S_MAX, default=WAIT_S_MAX)
    return _respond(name, await agent.agreement.leave_barrier(name, session, wait_s))


def _respond(name: str, barrier: Barrier | None) -> Response:
    return JSONResponse(describe_barrier(name, barrier))


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    if not name:
        raise AgentError("the name of the barrier is missing", "", NOT_FOUND)
    check_name(request, name)
    return name


ROUTES = (
    ("GET", "/api/v1/barriers", list_barriers),
    ("PUT", "/api/v1/barriers/{name:key}", enter_barrier),
    ("DELETE", "/api/v1/barriers/{name:key}", leave_barrier),
)
