"""The route by which the keys of a space get partitions of their own, with so many owners."""

from agent.api.audited import note
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.request_bodies import read_object
from agent.exits import NO, UNHEALTHY, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.kv.limits import REQUEST_TIMEOUT_S
from gossip.kv.requests import ListResult
from gossip.registry.space_change import check_space

FIELDS = frozenset({"replicas"})
LOOK_KEYS = 100


async def set_owners(request: Request) -> Response:
    """Have the keys that begin with NAME/ owned by so many nodes."""
    agent: AgentServices = request.app.state.agent
    name: str = request.path_params["name"]
    replicas = (await read_object(request, FIELDS)).get("replicas")
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise BadRequest("`replicas`: a whole number is needed")
    check_space(name, replicas)
    note(request, f"{name}: replicas={replicas}")
    if name not in agent.registry.spaces:
        await _check_empty(agent, name)
    epoch = await agent.admission.place_space(name, replicas)
    return JSONResponse({"name": name, "replicas": replicas, "epoch": epoch})


async def _first_shown(agent: AgentServices, prefix: str) -> ListResult:
    """Return a page with keys, or the last one: one of expired keys alone has none, and goes on."""
    after = ""
    while True:
        found = await agent.kv.list(
            prefix, after=after, limit=LOOK_KEYS, r=None, timeout_s=REQUEST_TIMEOUT_S
        )
        if found.entries or found.outcome != "ok" or not found.next:
            return found
        after = found.next


async def _check_empty(agent: AgentServices, name: str) -> None:
    """Raise AgentError where keys would have to move: of many, reads would miss some for long."""
    found = await _first_shown(agent, f"{name}/")
    if found.entries:
        raise AgentError(
            f"there are keys that begin with {name}/; nothing was changed.",
            f"Take them away first: `covey kv export --prefix {name}/`, and delete them; then have "
            "the space made, and `covey kv import` what was exported.",
            NO,
        )
    if found.outcome != "ok":
        raise AgentError(
            f"it is not known whether there are keys that begin with {name}/, for too few of their "
            "owners answered; nothing was changed.",
            "See `covey members`; try again when they are back.",
            UNHEALTHY,
        )


ROUTES = (("POST", "/api/v1/kv-owners/{name}", set_owners),)
