"""Routes of announced sleep: being silent for a while without being taken for dead."""

from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.request_bodies import read_object
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from agent.text.units import format_duration
from gossip.membership.detection.planned_absence import SLEEP_S_MIN
from gossip.membership.model.messages import SLEEP_S_MAX


async def sleep(request: Request) -> Response:
    """Announce a sleep, and answer when the others were told."""
    agent: AgentServices = request.app.state.agent
    asked = await read_object(request, frozenset({"duration_s"}))
    duration_s = asked.get("duration_s", 0)
    is_number = isinstance(duration_s, int | float) and not isinstance(duration_s, bool)
    if not is_number or not SLEEP_S_MIN <= duration_s <= SLEEP_S_MAX:
        raise BadRequest(
            f"`duration_s`: from {format_duration(SLEEP_S_MIN)} to {format_duration(SLEEP_S_MAX)}",
            "who is away for longer leaves, with `covey leave`, and comes back with `covey join`",
        )
    grace_s = await agent.sleep(float(duration_s))
    return JSONResponse({"asleep": True, "until_s": float(duration_s), "grace_s": grace_s})


async def wake(request: Request) -> Response:
    """End an announced sleep; say whether there was one."""
    agent: AgentServices = request.app.state.agent
    return JSONResponse({"asleep": False, "woken": await agent.awaken()})


ROUTES = (
    ("POST", "/api/v1/sleep", sleep),
    ("POST", "/api/v1/wake", wake),
)
