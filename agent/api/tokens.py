"""Routes of join tokens: make, list, revoke; and which members may do so.

They are for administrators alone, as all by which a covey is entered and left.
"""

from collections.abc import Mapping

import msgspec

from agent.admission.messages import TOKEN_ID_BYTES, TokenShown
from agent.admission.token_terms import TokenTerms
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.members import find_entry, find_member
from agent.api.request_bodies import read_object, truth_of
from agent.exits import NOT_FOUND, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.core.ids import format_node_id
from gossip.registry.registry import Registry

TTL_S = 3600.0
FIELDS = frozenset(TokenTerms.__struct_fields__)


async def create_token(request: Request) -> Response:
    """Make a join token."""
    agent: AgentServices = request.app.state.agent
    asked = await read_object(request, FIELDS)
    try:
        told = TokenTerms(**{"ttl_s": TTL_S, **asked})
        terms = msgspec.convert(msgspec.structs.astuple(told), TokenTerms)
    except msgspec.ValidationError as error:
        raise BadRequest(f"not what a token can be asked for: {error}") from None
    token = await agent.admission.create_token(terms)
    name_of = _name_of(agent, terms.node_name)
    answer = {"token": token, **msgspec.structs.asdict(terms), "name_of": name_of}
    return JSONResponse(answer, 201)


def _name_of(agent: AgentServices, name: str) -> dict[str, str | None] | None:
    """Return whose name it is already; None if it is free, or empty."""
    entry = next((node for node in agent.registry.nodes if node.name == name), None)
    if entry is None:
        return None
    state = next((each.state.value for each in agent.members if each.id == entry.id), None)
    return {"id": format_node_id(entry.id), "state": state}


async def list_tokens(request: Request) -> Response:
    """Answer with the tokens that the issuer remembers, the newest last."""
    agent: AgentServices = request.app.state.agent
    tokens = await agent.admission.tokens()
    nodes = _who_belongs_or_did(agent.registry)
    return await listing("tokens", (_describe(token, nodes) for token in tokens))


async def revoke_token(request: Request) -> Response:
    """Make a token good for nobody any more; ``was`` says what it was worth before."""
    agent: AgentServices = request.app.state.agent
    text = request.path_params["id"]
    state = await agent.admission.revoke_token(_token_id(text))
    if state == "unknown":
        raise AgentError(f"there is no token {text}", "`covey token list` lists them", NOT_FOUND)
    return JSONResponse({"id": text, "was": state})


async def allow(request: Request) -> Response:
    """Say whether a member may make tokens: ``{"invite": true}``."""
    agent: AgentServices = request.app.state.agent
    asked = await read_object(request, frozenset({"invite"}))
    allowed = truth_of(asked, "invite")
    member = find_member(agent, request.path_params["name"])
    await agent.admission.allow_inviting(member.id, allowed=allowed)
    return JSONResponse({"name": member.name, "invite": allowed})


async def remove(request: Request) -> Response:
    """Take a node out of the covey for good; ``?accept_loss=true`` also when writes may be lost."""
    agent: AgentServices = request.app.state.agent
    entry = find_entry(agent, request.path_params["name"])
    accept_loss = request.query_params.get("accept_loss", "") == "true"
    epoch = await agent.admission.remove(entry.id, accept_loss=accept_loss)
    gone = {"id": format_node_id(entry.id), "name": entry.name, "epoch": epoch}
    return JSONResponse({**gone, "held_authority": entry.is_issuer})


def _token_id(text: str) -> bytes:
    try:
        token_id = bytes.fromhex(text)
    except ValueError:
        token_id = b""
    if len(token_id) != TOKEN_ID_BYTES or token_id.hex() != text:
        raise AgentError(
            "that is not the id of a token",
            "`covey token list` lists them; the token itself is not its id",
            NOT_FOUND,
        )
    return token_id


def _who_belongs_or_did(registry: Registry) -> dict[str, dict[str, object]]:
    """Return what is told of each node of the registry, and of those that were removed, by id."""
    both = ((registry.removed, True), (registry.nodes, False))
    return {
        (node_id := format_node_id(node.id)): {"id": node_id, "name": node.name, "removed": gone}
        for nodes, gone in both
        for node in nodes
    }


def _describe(token: TokenShown, nodes: Mapping[str, dict[str, object]]) -> dict[str, object]:
    told = msgspec.structs.asdict(token)
    admitted = [
        nodes.get(node_id, {"id": node_id, "name": None, "removed": None})
        for node_id in token.admitted
    ]
    return {**told, "id": token.id.hex(), "admitted": admitted}


ROUTES = (
    ("POST", "/api/v1/tokens", create_token),
    ("GET", "/api/v1/tokens", list_tokens),
    ("DELETE", "/api/v1/tokens/{id}", revoke_token),
    ("POST", "/api/v1/members/{name}/rights", allow),
    ("DELETE", "/api/v1/members/{name}", remove),
)
