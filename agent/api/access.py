"""Routes of access tokens: make, list, revoke; and the authority by which clients know an agent."""

from typing import Any

import msgspec

from agent.access.access_tokens import AccessTerms, AccessToken
from agent.api.audited import note
from agent.api.callers import caller_of
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.members import find_entry
from agent.api.request_bodies import read_object
from agent.exits import NOT_FOUND, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.core.ids import format_node_id

FIELDS = frozenset(AccessTerms.__struct_fields__)


async def create(request: Request) -> Response:
    """Make an access token. Its text is in the answer, and nowhere else."""
    agent: AgentServices = request.app.state.agent
    asked = await read_object(request, FIELDS)
    if isinstance(node := asked.get("node"), str) and node:
        asked["node"] = format_node_id(find_entry(agent, node).id)
    try:
        terms = msgspec.convert(asked, AccessTerms)
    except msgspec.ValidationError as error:
        raise BadRequest(f"not what a token can be asked for: {error}") from None
    note(request, f"{terms.name} {terms.role.value} {' '.join(terms.prefixes)}".rstrip())
    secret, token = await agent.access.create(terms, caller_of(request))
    return JSONResponse({"token": secret, **_describe(agent, terms.name, token)}, 201)


async def list_tokens(request: Request) -> Response:
    """Answer with all access tokens, without their secrets, and how old that is."""
    agent: AgentServices = request.app.state.agent
    found = await agent.access.listed()
    tokens = [_describe(agent, name, token) for name, token in sorted(found.tokens.items())]
    age_s = None if found.age_s is None else round(found.age_s, 3)
    return JSONResponse({"tokens": tokens, "not_understood": found.strange, "age_s": age_s})


async def revoke(request: Request) -> Response:
    """Make an access token good for nothing any more."""
    agent: AgentServices = request.app.state.agent
    name = request.path_params["name"]
    if not await agent.access.revoke(name):
        raise AgentError(
            f"there is no access token {name!r:.80}", "`covey access list` lists them", NOT_FOUND
        )
    return JSONResponse({"name": name, "revoked": True})


async def show_authority(request: Request) -> Response:
    """Answer with the certificates of the covey's authority, as OpenSSL takes them."""
    agent: AgentServices = request.app.state.agent
    return Response(agent.identity.trust.bundle, media_type="application/x-pem-file")


def _describe(agent: AgentServices, name: str, token: AccessToken) -> dict[str, Any]:
    names = {format_node_id(each.id): each.name for each in agent.registry.nodes}
    node = {"id": token.node, "name": names.get(token.node)} if token.node else None
    return {
        "name": name,
        "id": token.id,
        "role": token.role.value,
        "prefixes": list(token.prefixes),
        "node": node,
        "made_at": token.made_at,
        "made_by": token.made_by,
        "expires_at": token.expires_at,
    }


ROUTES = (
    ("POST", "/api/v1/access", create),
    ("GET", "/api/v1/access", list_tokens),
    ("GET", "/api/v1/authority", show_authority),
    ("DELETE", "/api/v1/access/{name}", revoke),
)
