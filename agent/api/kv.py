"""Routes of the shared keys: values as raw bytes, versions in headers, watches as streams.

The context of a read or write travels as text in the header ``Covey-Context``; a later write
that sends it back replaces exactly the versions that the client saw. A write that missed its
quorum is no error and no success: 202, with the outcome ``indeterminate``.
"""

import base64
import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from agent.api import ndjson, server_sent
from agent.api.durability import wants_fsync
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.kv_changes import CHANGE_BYTES_MAX, CHANGE_WORDS, read_change
from agent.api.long_lists import listing
from agent.api.name_scope import check_shared_key
from agent.api.ndjson import OpenStreams
from agent.api.request_bodies import copies, flag, integer, number, read_object, value_of
from agent.exits import NOT_FOUND, UNHEALTHY, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.bodies.file_records import OWN_LAST, OWN_PREFIX
from gossip.kv.limits import (
    LIST_ENTRIES_MAX,
    REQUEST_TIMEOUT_S,
    REQUEST_TIMEOUT_S_MAX,
    TTL_S_MAX,
)
from gossip.kv.requests import (
    GetResult,
    PutResult,
    Value,
    Watch,
    WatchEvent,
    check_request,
)
from gossip.kv.typed_values import REGISTER

CONTEXT_HEADER = "Covey-Context"
OUTCOME_HEADER = "Covey-Outcome"
VERSIONS_HEADER = "Covey-Versions"
TYPE_HEADER = "Covey-Type"
LIST_ENTRIES_DEFAULT = 100
BINARY = "application/octet-stream"
SINCE = frozenset({"since"})


async def get_key(request: Request) -> Response:
    """Answer with the newest value's bytes; with all versions if JSON was asked for."""
    agent: AgentServices = request.app.state.agent
    key = _key(request)
    result = await agent.kv.get(key, r=copies(request, "r"), timeout_s=_timeout(request))
    if result.outcome != "ok":
        fewer = ", or accept fewer with `r=1`" * (0 < result.answered < result.needed)
        raise AgentError(
            f"only {result.answered} of {result.needed} owners of {key!r} answered",
            f"try again when more of them are back{fewer}",
            UNHEALTHY,
        )
    if not result.values:
        raise AgentError(f"there is no key {key!r}", "", NOT_FOUND)
    headers = {
        CONTEXT_HEADER: _to_text(result.context),
        OUTCOME_HEADER: result.outcome,
        VERSIONS_HEADER: str(len(result.values)),
        TYPE_HEADER: result.values[0].type,
    }
    if request.headers.get("accept") == "application/json":
        return JSONResponse(_versions(key, result), headers=headers)
    return Response(result.values[0].data, media_type=BINARY, headers=headers)


async def put_key(request: Request) -> Response:
    """Write the body to the key; where it is asked, only if nobody else did."""
    agent: AgentServices = request.app.state.agent
    key, context, fsync = _key(request), _context(request), wants_fsync(request)
    unchanged, absent = flag(request, "if_context"), flag(request, "if_absent")
    if unchanged and context is None:
        raise BadRequest(f"`if_context` goes with {CONTEXT_HEADER}", "send what a get answered")
    if absent and context is not None:
        raise BadRequest(f"`if_absent` goes without {CONTEXT_HEADER}", "send one of the two")
    async with value_of(request, request.app.state.large_values) as value:
        result = await agent.kv.put(
            key,
            value,
            w=copies(request, "w"),
            context=context,
            timeout_s=_timeout(request),
            if_unchanged=unchanged or absent,
            fsync=fsync,
            ttl_s=time_to_live(request),
        )
    return written(result)


async def update_key(request: Request) -> Response:
    """Change a counter, set, map, max or min, as the JSON of the body says."""
    agent: AgentServices = request.app.state.agent
    key = _key(request)
    change = read_change(await read_object(request, CHANGE_WORDS, CHANGE_BYTES_MAX))
    w, fsync = copies(request, "w"), wants_fsync(request)
    timeout_s = _timeout(request)
    return written(await agent.kv.update(key, change, w=w, timeout_s=timeout_s, fsync=fsync))


async def delete_key(request: Request) -> Response:
    """Delete the key; it is no error if there is none."""
    agent: AgentServices = request.app.state.agent
    result = await agent.kv.delete(
        _key(request),
        w=copies(request, "w"),
        context=_context(request),
        timeout_s=_timeout(request),
        fsync=wants_fsync(request),
    )
    return written(result)


async def list_keys(request: Request) -> Response:
    """Answer with one page of keys and their values."""
    agent: AgentServices = request.app.state.agent
    limit = integer(request, "limit", most=LIST_ENTRIES_MAX, default=LIST_ENTRIES_DEFAULT)
    assert limit is not None, "it has a default"
    prefix = request.query_params.get("prefix", "")
    check_shared_key(request, prefix)
    result = await agent.kv.list(
        prefix,
        after=max(request.query_params.get("after", ""), OWN_LAST),
        limit=limit,
        r=copies(request, "r"),
        timeout_s=_timeout(request),
    )
    entries = (
        {"key": entry.key, "values": [describe_value(value) for value in entry.values]}
        for entry in result.entries
    )
    return await listing("entries", entries, next=result.next, outcome=result.outcome)


async def watch_keys(request: Request) -> Response:
    """Stream the changes of a key, or of all keys with a prefix, from a token on or from now on."""
    agent: AgentServices = request.app.state.agent
    prefix, key = request.query_params.get("prefix"), request.query_params.get("key")
    if (prefix is None) == (key is None):
        raise BadRequest("watch either a key or a prefix", "?key=NAME or ?prefix=BEGINNING")
    check_shared_key(request, key if key is not None else prefix or "")
    since = await _since(request)
    check_request(Watch(prefix, key, since))  # a stream has no status to refuse with
    events = agent.kv.watch(prefix=prefix, key=key, since=since)
    streams: OpenStreams = request.app.state.streams
    accepted = request.headers.get("accept", "").partition(";")[0].strip()
    media_type = server_sent.MEDIA_TYPE if accepted == server_sent.MEDIA_TYPE else ndjson.MEDIA_TYPE
    return streams.respond(_of_applications(events), _describe_event, media_type)


async def _of_applications(events: AsyncGenerator[WatchEvent]) -> AsyncIterator[WatchEvent]:
    """Pass over what becomes of Covey's own keys."""
    async with aclosing(events):
        async for event in events:
            if not event.key.startswith(OWN_PREFIX):
                yield event


async def _since(request: Request) -> bytes | None:
    """Return the token to go on from: of a body, of the query, or what a browser sends again."""
    text: Any = request.headers.get("last-event-id") or request.query_params.get("since")
    if request.method == "POST":
        text = (await read_object(request, SINCE)).get("since", text)
    if not text:
        return None
    try:
        return base64.urlsafe_b64decode(text.encode("ascii"))
    except (AttributeError, binascii.Error, UnicodeEncodeError):
        hint = "send back a token that a watch gave, unchanged"
        raise BadRequest("`since` is no token of a watch", hint) from None


def describe_value(value: Value) -> dict[str, Any]:
    """Return a value as JSON: what a type folds to, text where bytes are UTF-8, else base64."""
    # The upper 48 bits of a stamp are Unix milliseconds (gossip/core/hlc.py).
    described: dict[str, Any] = {"written_ms": value.stamp >> 16}
    if value.expires_ms:
        described["expires_ms"] = value.expires_ms
    if value.type != REGISTER:
        return {"value": json.loads(value.data), "type": value.type, **described}
    try:
        return {"value": value.data.decode(), **described}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value.data).decode(), **described}


def _versions(key: str, result: GetResult) -> dict[str, Any]:
    return {
        "key": key,
        "values": [describe_value(value) for value in result.values],
        "context": _to_text(result.context),
        "outcome": result.outcome,
        "answered": result.answered,
        "needed": result.needed,
    }


def written(result: PutResult) -> Response:
    """Answer with how a write ended."""
    body = {
        "outcome": result.outcome,
        "acks": result.acks,
        "needed": result.needed,
        "context": _to_text(result.context),
        "versions": result.versions,
    }
    headers = {OUTCOME_HEADER: result.outcome, CONTEXT_HEADER: _to_text(result.context)}
    return JSONResponse(body, 200 if result.outcome == "ok" else 202, headers)


def _describe_event(event: WatchEvent) -> dict[str, Any]:
    if event.kind == "mark":
        return {"kind": "mark", "token": _to_text(event.token)}
    if event.kind == "gap":
        return {"kind": "gap", "reason": event.reason}
    values = [describe_value(value) for value in event.values]
    return {"key": event.key, "kind": event.kind, "values": values}


def _key(request: Request) -> str:
    """Return the key that is asked for. Raises AgentError if it is not for this caller."""
    key: str = request.path_params["key"]
    check_shared_key(request, key)
    return key


def time_to_live(request: Request) -> float | None:
    """Return the seconds of ``?ttl=``, 0 for ever; None where its space is to say. BadRequest."""
    text = request.query_params.get("ttl")
    if text is None or text in ("0", "0.0"):
        return None if text is None else 0
    return number(request, "ttl", most=TTL_S_MAX, default=0)


def _timeout(request: Request) -> float:
    return number(request, "timeout", most=REQUEST_TIMEOUT_S_MAX, default=REQUEST_TIMEOUT_S)


def _context(request: Request) -> bytes | None:
    text = request.headers.get(CONTEXT_HEADER)
    if not text:
        return None
    try:
        return base64.urlsafe_b64decode(text.encode("ascii"))
    except (binascii.Error, UnicodeEncodeError):
        hint = "send back what a get or put answered, unchanged"
        raise BadRequest(f"{CONTEXT_HEADER} is no context", hint) from None


def _to_text(context: bytes) -> str:
    return base64.urlsafe_b64encode(context).decode()


ROUTES = (
    ("GET", "/api/v1/kv", list_keys),
    ("GET", "/api/v1/kv/{key:key}", get_key),
    ("PUT", "/api/v1/kv/{key:key}", put_key),
    ("POST", "/api/v1/kv/{key:key}", update_key),
    ("DELETE", "/api/v1/kv/{key:key}", delete_key),
    ("GET", "/api/v1/watch", watch_keys),
    ("POST", "/api/v1/watch", watch_keys),
)
