"""Routes of facts: what members tell about themselves, and what this one is to tell."""

from fnmatch import fnmatchcase
from typing import Any

from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.members import find_member
from agent.api.request_bodies import globs, read_object
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.core.ids import format_node_id
from gossip.membership.model.facts import FACTS_BYTES_MAX
from gossip.membership.model.members import Member

# A letter takes up to six bytes in JSON for each of its own, and the names of the keys little.
BODY_BYTES_MAX = 8 * FACTS_BYTES_MAX


async def list_facts(request: Request) -> Response:
    """Answer with the facts of one member, or of all that are there."""
    agent: AgentServices = request.app.state.agent
    patterns = globs(request, "name") or ("*",)
    wanted = request.query_params.get("node", "")
    asked = [find_member(agent, wanted)] if wanted else _present(agent)
    return await listing("members", (_describe(agent, member, patterns) for member in asked))


async def change_facts(request: Request) -> Response:
    """Set facts of this node and drop others, all or none; answer with all that are set."""
    agent: AgentServices = request.app.state.agent
    body = await read_object(request, frozenset({"set", "unset"}), BODY_BYTES_MAX)
    give, drop = body.get("set", {}), body.get("unset", [])
    if not isinstance(give, dict) or not all(isinstance(value, str) for value in give.values()):
        raise BadRequest("`set`: an object of names and their values, which are texts")
    if not isinstance(drop, list) or not all(isinstance(name, str) for name in drop):
        raise BadRequest("`unset`: a list of names")
    if both := sorted({*give} & {*drop}):
        raise BadRequest(f"{both[0][:80]!r} is in both set and unset; nothing was changed")
    await agent.facts.change(give, drop)
    return JSONResponse({"facts": agent.facts.given()})


def _present(agent: AgentServices) -> list[Member]:
    return [member for member in agent.members if not member.state.is_departed]


def _describe(agent: AgentServices, member: Member, patterns: tuple[str, ...]) -> dict[str, Any]:
    facts = agent.facts_of(member.id)
    return {
        "id": format_node_id(member.id),
        "name": member.name,
        "state": member.state.value,
        "self": member.id == agent.identity.node_id,
        "facts": {
            name: value
            for name, value in sorted(facts.items())
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        },
    }


ROUTES = (
    ("GET", "/api/v1/facts", list_facts),
    ("POST", "/api/v1/facts", change_facts),
)
