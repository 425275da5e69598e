"""Routes of a backup: pages of shared keys with all that their versions have, and back.

Packed, and not JSON: a version comes back byte for byte, with whatever else it has.
"""

import asyncio

from agent.api.audited import note
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.large_bodies import Place
from agent.api.request_bodies import client_of, integer, number, read_body
from agent.backup.key_pages import (
    MEDIA_TYPE,
    PAGE_BYTES_MAX,
    PAGE_KEYS,
    VERSION_FIELDS,
    SavedKey,
    SavedPage,
    decode_page,
    encode_page,
)
from agent.exits import NO, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.core.errors import InvalidRequest
from gossip.kv.limits import LIST_ENTRIES_MAX, REQUEST_TIMEOUT_S, REQUEST_TIMEOUT_S_MAX

AT_ONCE = 16
WRITTEN, UNCHANGED, DIFFERENT, REFUSED, INDETERMINATE = (
    "written", "unchanged", "different", "refused", "indeterminate",
)  # fmt: skip
OUTCOMES = {"ok": WRITTEN, "unchanged": UNCHANGED, "indeterminate": INDETERMINATE}


async def save_keys(request: Request) -> Response:
    """Answer with one page of keys behind ``after``."""
    agent: AgentServices = request.app.state.agent
    limit = integer(request, "limit", most=LIST_ENTRIES_MAX, default=PAGE_KEYS)
    assert limit is not None, "it has a default"
    query = request.query_params
    timeout_s = number(request, "timeout", most=REQUEST_TIMEOUT_S_MAX, default=REQUEST_TIMEOUT_S)
    found = await agent.kv.list(
        query.get("prefix", ""),
        after=query.get("after", ""),
        limit=limit,
        r=None,
        timeout_s=timeout_s,
    )
    keys = tuple(SavedKey(entry.key, entry.live) for entry in found.entries)
    page = SavedPage(VERSION_FIELDS, keys, found.next, found.outcome == "ok")
    return Response(encode_page(page), media_type=MEDIA_TYPE)


async def restore_keys(request: Request) -> Response:
    """Put keys back that have no value here; say what became of each that was not written."""
    agent: AgentServices = request.app.state.agent
    timeout_s = number(request, "timeout", most=REQUEST_TIMEOUT_S_MAX, default=REQUEST_TIMEOUT_S)
    place = Place(request.app.state.large_values, client_of(request.scope))
    try:
        page = decode_page(await read_body(request, PAGE_BYTES_MAX, place))
        names = [each.key for each in page.keys]
        if len(set(names)) < len(names):
            raise BadRequest("a key is twice in this page; nothing was written", "once is enough")
        note(request, f"{len(names)} keys")
        told = await _restore_all(agent, page, timeout_s)
    finally:
        place.give_back()
    counts = dict.fromkeys((WRITTEN, UNCHANGED, DIFFERENT, REFUSED, INDETERMINATE), 0)
    for _, outcome, _ in told:
        counts[outcome] += 1
    troubles = [
        {"key": key, "outcome": outcome, "reason": reason}
        for key, outcome, reason in told
        if outcome not in (WRITTEN, UNCHANGED)
    ]
    return JSONResponse({**counts, "troubles": troubles})


async def _restore_all(
    agent: AgentServices, page: SavedPage, timeout_s: float
) -> list[tuple[str, str, str]]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(saved: SavedKey) -> tuple[str, str, str]:
        async with places:
            outcome, reason = await _restore(agent, saved, timeout_s)
        return saved.key, outcome, reason

    return await asyncio.gather(*map(one, page.keys))


async def _restore(agent: AgentServices, saved: SavedKey, timeout_s: float) -> tuple[str, str]:
    try:
        result = await agent.kv.restore(saved.key, saved.versions, timeout_s=timeout_s)
    except InvalidRequest as error:
        return REFUSED, str(error)
    except AgentError as error:
        outcome = DIFFERENT if error.status == NO else REFUSED
        return outcome, f"{error.message}; {error.hint}"
    reason = f"{result.acks} of {result.needed} owners are known to have it"
    return OUTCOMES[result.outcome], "" if result.outcome != "indeterminate" else reason


ROUTES = (
    ("GET", "/api/v1/backup", save_keys),
    ("PUT", "/api/v1/backup", restore_keys),
)
