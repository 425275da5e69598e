"""Routes of the dead letters: which there are; have them wait again, or delete them.

All three take the same choice: ``id`` (several times), ``sensor`` and ``reason`` (globs). What
changes something wants a choice that is made: without one it does nothing, unless ``all=1`` is
given.
"""

from typing import Any

import msgspec

from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.readings import describe_reading, format_time
from agent.api.request_bodies import flag, globs, integer
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from agent.telemetry.dead_letters import Choice, DeadLetter

LISTED_DEFAULT, LISTED_MAX = 100, 10_000
CHOOSING = ("id", "sensor", "reason")
IDS_MAX, ID_CHARACTERS_MAX = 100, 64


async def get_letters(request: Request) -> Response:
    """Answer with the newest letters that are meant, oldest first, and what became of all."""
    agent: AgentServices = request.app.state.agent
    choice = _choice(request)
    limit = integer(request, "limit", least=0, most=LISTED_MAX, default=LISTED_DEFAULT) or 0
    found = await agent.telemetry.list_letters(choice, limit) if limit else []
    totals = msgspec.to_builtins(agent.telemetry.stats().letters)
    return await listing("dead_letters", map(_describe, found), totals=totals)


async def replay(request: Request) -> Response:
    """Have letters wait for the broker again, under their ids."""
    agent: AgentServices = request.app.state.agent
    moved = await agent.telemetry.replay(_deliberate_choice(request))
    return JSONResponse({"replayed": moved.moved, "damaged": moved.damaged, "left": moved.left})


async def drop(request: Request) -> Response:
    """Delete letters for good."""
    agent: AgentServices = request.app.state.agent
    moved = await agent.telemetry.drop_letters(_deliberate_choice(request))
    return JSONResponse({"dropped": moved.moved})


def _deliberate_choice(request: Request) -> Choice:
    if not flag(request, "all") and not any(map(request.query_params.getlist, CHOOSING)):
        raise BadRequest(
            "which dead letters? nothing was done",
            "give `id`, `sensor` or `reason`; or `all`, if all of them are meant",
        )
    return _choice(request)


def _choice(request: Request) -> Choice:
    ids = request.query_params.getlist("id")
    if len(ids) > IDS_MAX or any(len(each) > ID_CHARACTERS_MAX for each in ids):
        raise BadRequest(
            f"`id`: at most {IDS_MAX} ids of {ID_CHARACTERS_MAX} characters",
            "choose by `sensor` or `reason`, or in several requests",
        )
    return Choice(frozenset(ids), _glob(request, "sensor"), _glob(request, "reason"))


def _glob(request: Request, name: str) -> str:
    found = globs(request, name) or ("*",)
    if len(found) > 1:
        raise BadRequest(f"`{name}`: one glob", "ask once for each")
    return found[0]


def _describe(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        **describe_reading(letter.reading),
        "reason": letter.reason,
        "dead_since": format_time(letter.buried_at_ns),
    }


ROUTES = (
    ("GET", "/api/v1/dead-letters", get_letters),
    ("POST", "/api/v1/dead-letters/replay", replay),
    ("DELETE", "/api/v1/dead-letters", drop),
)
