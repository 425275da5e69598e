"""Routes of the audit log: what was changed by way of this agent's API, and what was refused."""

from typing import Any

from agent.access.audit import PAGE_MAX, AuditEntry
from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.ndjson import OpenStreams
from agent.api.request_bodies import flag, integer
from agent.http.request import Request
from agent.http.response import Response

LIMIT_DEFAULT = 100
NUMBER_MAX = 2**62


async def get_entries(request: Request) -> Response:
    """Answer with the last entries; with ``follow=1`` stream those that come."""
    agent: AgentServices = request.app.state.agent
    after = integer(request, "after", least=0, most=NUMBER_MAX)
    if flag(request, "follow"):
        streams: OpenStreams = request.app.state.streams
        begin = agent.audit.last_number if after is None else after
        return streams.respond(agent.audit.follow(begin), describe)
    since_ms = integer(request, "since_ms", least=0, most=NUMBER_MAX, default=0) or 0
    limit = integer(request, "limit", most=PAGE_MAX, default=LIMIT_DEFAULT) or LIMIT_DEFAULT
    found = await agent.audit.entries(since_ms, after or 0, limit)
    return await listing("entries", map(describe, found))


def describe(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry as JSON."""
    return {
        "number": entry.number,
        "at_ms": entry.at_ms,
        "who": entry.who,
        "from": entry.source,
        "action": entry.action,
        "detail": entry.detail,
        "outcome": entry.outcome,
        "refused": entry.is_refusal,
        "times": entry.times,
    }


ROUTES = (("GET", "/api/v1/audit", get_entries),)
