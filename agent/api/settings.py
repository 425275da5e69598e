"""Routes of the settings for the fleet: what is set, for all devices, those with a tag, or one."""

from agent.access.rights import Right
from agent.api.audited import note
from agent.api.callers import caller_of
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.request_bodies import flag, read_object
from agent.config.fleet_layer import WHERE_SECRETS_GO
from agent.exits import NOT_FOUND, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response


async def list_settings(request: Request) -> Response:
    """Answer with all that is set."""
    agent: AgentServices = request.app.state.agent
    revision, found = await agent.fleet_settings.all(stale=flag(request, "stale"))
    settings = [
        {"setting": e.name, "scope": e.scope, "value": e.text, "revision": e.revision}
        for e in found
    ]
    return JSONResponse({"revision": revision, "settings": settings})


async def change_setting(request: Request) -> Response:
    """Set a setting, or take it back where its value is null."""
    agent: AgentServices = request.app.state.agent
    body = await read_object(request, frozenset({"setting", "scope", "value"}))
    name, scope, text = body.get("setting"), body.get("scope", "all"), body.get("value")
    if not isinstance(name, str) or not isinstance(scope, str):
        raise BadRequest("`setting` and `scope` are texts")
    if text is not None and not isinstance(text, str):
        raise BadRequest("`value` is a text, as in an environment variable; null takes it back")
    note(request, f"{name} for {scope}")
    if name in WHERE_SECRETS_GO:
        caller_of(request).check(Right.ADMIT)
    told = {"setting": name, "scope": scope, "value": text}
    if text is not None:
        return JSONResponse({**told, "revision": await agent.fleet_settings.set(scope, name, text)})
    if not await agent.fleet_settings.unset(scope, name):
        raise AgentError(
            f"{name!r:.80} is not set for {scope!r:.80}", "see `covey config list`", NOT_FOUND
        )
    return JSONResponse(told)


ROUTES = (
    ("GET", "/api/v1/settings", list_settings),
    ("POST", "/api/v1/settings", change_setting),
)
