"""Routes by which a node becomes part of a covey and leaves it: found, join, come back, leave.

They are for administrators alone: whoever may use the Unix socket, its owner and its group, and who
has a token with that role.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agent.admission.former_membership import FormerMembership
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.ndjson import OpenStreams
from agent.api.request_bodies import read_object, truth_of
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from agent.identity.identity import Identity
from agent.readiness import Stage
from gossip.core.ids import format_cluster_id, format_node_id

SEEDS_MAX = 64


async def init(request: Request) -> Response:
    """Found a covey with this node as its first."""
    agent: AgentServices = request.app.state.agent
    asked = await read_object(request, frozenset({"name", "node_name"}))
    founded = await agent.newcomer.found(_text(asked, "name"), _text(asked, "node_name"))
    return JSONResponse(_describe(founded), 201)


async def join(request: Request) -> Response:
    """Join a covey, or go back to the one that was left; stream what is done, and the outcome."""
    agent: AgentServices = request.app.state.agent
    asked = await read_object(request, frozenset({"token", "node_name", "seeds", "replaces"}))
    streams: OpenStreams = request.app.state.streams
    if "token" not in asked:
        return streams.respond(_outcome(agent.newcomer.come_back()))
    seeds = asked.get("seeds", [])
    if not isinstance(seeds, list) or not all(isinstance(seed, str) for seed in seeds):
        raise BadRequest("`seeds`: a list of texts, HOST or HOST:PORT")
    if len(seeds) > SEEDS_MAX:
        raise BadRequest(f"`seeds`: at most {SEEDS_MAX}")
    replaces = truth_of(asked, "replaces", default=False)
    said: asyncio.Queue[str] = asyncio.Queue()
    token, name = _text(asked, "token"), _text(asked, "node_name")
    joining = agent.newcomer.join(token, name, seeds, said.put_nowait, replaces=replaces)
    return streams.respond(_progress(joining, said))


async def leave(request: Request) -> Response:
    """Write down that this node leaves, answer, and then say goodbye to the others."""
    agent: AgentServices = request.app.state.agent
    forget = truth_of(await read_object(request, frozenset({"forget"})), "forget", default=False)
    place = await asyncio.to_thread(_place, agent) if forget else {}
    await agent.part(FormerMembership.FORGETS if forget else FormerMembership.STAYS_AWAY)
    freed = forget and agent.stage is Stage.MEMBER and await agent.admission.give_up_place()
    answer = {"leaving": True, "freed": freed, **place}
    return JSONResponse(answer, 202, background=agent.leave)


def _place(agent: AgentServices) -> dict[str, Any]:
    """Return whose place it is to be freed, and by whom, also of a node that has left before."""
    if agent.stage is Stage.MEMBER:
        name, registry = agent.identity.node_name, agent.registry
        issuers = [entry.name for entry in registry.nodes if entry.is_issuer]
    else:
        name, issuers = agent.newcomer.former_place()
    return {"node": {"name": name}, "issuers": issuers}


async def _outcome(work: Any) -> AsyncIterator[dict[str, Any]]:
    yield _describe(await work)


async def _progress(work: Any, said: "asyncio.Queue[str]") -> AsyncIterator[dict[str, Any]]:
    """Yield what is said while the work is done, then what came of it. Raises what it raises."""
    task = asyncio.create_task(work, name="HTTP API: join")
    try:
        while not task.done() or not said.empty():
            hearing = asyncio.create_task(said.get(), name="HTTP API: progress")
            await asyncio.wait({task, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                yield {"progress": hearing.result()}
            hearing.cancel()
        yield _describe(task.result())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _text(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"`{name}`: a text is needed")
    return value


def _describe(me: Identity) -> dict[str, Any]:
    return {
        "cluster": {"id": format_cluster_id(me.cluster_id), "name": me.cluster_name},
        "node": {"id": format_node_id(me.node_id), "name": me.node_name},
    }


ROUTES = (
    ("POST", "/api/v1/init", init),
    ("POST", "/api/v1/join", join),
    ("POST", "/api/v1/leave", leave),
)
