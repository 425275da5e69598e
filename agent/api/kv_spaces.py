"""Routes of the spaces of the shared keys: what is asked for the keys that begin alike."""

from typing import Any

from agent.api.audited import note
from agent.api.interfaces import AgentServices
from agent.api.request_bodies import flag, read_object
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.kv.spaces import DEFAULT_POLICIES, KNOWN, SIBLINGS, SpaceSetting


async def list_spaces(request: Request) -> Response:
    """Answer with all spaces for which something is asked, or that have owners of their own."""
    agent: AgentServices = request.app.state.agent
    revision, found = await agent.kv_spaces.all(stale=flag(request, "stale"))
    names = sorted({*found, *DEFAULT_POLICIES, *agent.registry.spaces})
    spaces = [_with_use(agent, name, found.get(name, SpaceSetting())) for name in names]
    return JSONResponse({"revision": revision, "spaces": spaces})


async def change_space(request: Request) -> Response:
    """Change what is asked for a space; null takes back, and what is not named stays."""
    agent: AgentServices = request.app.state.agent
    name: str = request.path_params["name"]
    changes = await read_object(request, KNOWN)
    note(request, f"{name}: {', '.join(f'{k}={v!r:.40}' for k, v in changes.items())}")
    revision, space = await agent.kv_spaces.change(name, changes)
    return JSONResponse({**_with_use(agent, name, space), "revision": revision})


async def unset_space(request: Request) -> Response:
    """Ask nothing for a space any more."""
    agent: AgentServices = request.app.state.agent
    name: str = request.path_params["name"]
    note(request, name)
    return JSONResponse({"name": name, "revision": await agent.kv_spaces.unset(name)})


def _with_use(agent: AgentServices, name: str, space: SpaceSetting) -> dict[str, Any]:
    """Return a space as JSON, with its owners, and what it holds where that is counted."""
    use = agent.kv_spaces.use(name) if space.has_quota else None
    held = {"keys": use.keys, "bytes": use.size_bytes} if use else {"keys": None, "bytes": None}
    return {**described(name, space), **held, "replicas": agent.registry.spaces.get(name)}


def described(name: str, space: SpaceSetting) -> dict[str, Any]:
    """Return a space as JSON, with the policy that holds."""
    told = {field: getattr(space, field) for field in space.__struct_fields__}
    policy = space.policy or DEFAULT_POLICIES.get(name, SIBLINGS)
    return {"name": name, **told, "policy": policy, "is_set": space != SpaceSetting()}


ROUTES = (
    ("GET", "/api/v1/kv-spaces", list_spaces),
    ("POST", "/api/v1/kv-spaces/{name}", change_space),
    ("DELETE", "/api/v1/kv-spaces/{name}", unset_space),
)
