"""Routes of sessions and locks.

A session lives as long as its holder renews it, here, at the agent that opened it: an answer says
for how many seconds it is sure to be there, counted from before the agent asked. Count from when
you *sent* the request, on a clock that goes on during suspend, and stop what relies on the session
when that time is over.
"""

from typing import Any

from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.name_scope import check_name, check_session, label_of, prefix_of
from agent.api.request_bodies import integer, read_object
from agent.cluster.agreement_json import (
    describe_lock,
    describe_session,
    read_bytes,
    read_session,
    write_session,
)
from agent.exits import NOT_FOUND, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.control.bounds import LOCK_DELAY_MS_DEFAULT, RANGE_ENTRIES_MAX

TTL_S_DEFAULT = 15.0
WAIT_S_MAX = 60.0
BODY_BYTES_MAX = 64 * 1024


async def open_session(request: Request) -> Response:
    """Open a session."""
    agent: AgentServices = request.app.state.agent
    body = await read_object(request, frozenset({"ttl_s", "lock_delay_s", "label"}))
    label = body.get("label", "")
    if not isinstance(label, str):
        raise BadRequest("the label of a session is a text")
    opened = await agent.agreement.open_session(
        seconds(body, "ttl_s", TTL_S_DEFAULT),
        seconds(body, "lock_delay_s", LOCK_DELAY_MS_DEFAULT / 1000),
        label_of(request, label),
    )
    return JSONResponse(
        {"session": write_session(opened.session), "sure_for_s": round(opened.sure_for_s, 3)}
    )


async def list_sessions(request: Request) -> Response:
    """Answer with one page of the open sessions; an app sees its own."""
    agent: AgentServices = request.app.state.agent
    limit = integer(request, "limit", most=RANGE_ENTRIES_MAX, default=RANGE_ENTRIES_MAX)
    assert limit is not None, "it has a default"
    after = read_session(request.query_params.get("after", "0"))
    revision, found = await agent.agreement.sessions(after, limit)
    names = {entry.id: entry.name for entry in agent.registry.nodes}
    wanted = label_of(request, "")
    sessions = [
        describe_session(each, names)
        for each in found.sessions
        if not wanted or each.label == wanted
    ]
    following = write_session(found.sessions[-1].number) if found.more else ""
    return JSONResponse({"revision": revision, "next": following, "sessions": sessions})


async def renew_session(request: Request) -> Response:
    """Renew a session."""
    agent: AgentServices = request.app.state.agent
    session = read_session(request.path_params["session"])
    await check_session(request, session)
    sure_for_s = await agent.agreement.renew_session(session)
    return JSONResponse({"session": write_session(session), "sure_for_s": round(sure_for_s, 3)})


async def close_session(request: Request) -> Response:
    """End a session; what it holds is free at once."""
    agent: AgentServices = request.app.state.agent
    session = read_session(request.path_params["session"])
    await check_session(request, session)
    return JSONResponse({"ended": await agent.agreement.close_session(session)})


async def list_locks(request: Request) -> Response:
    """Answer with one page of the locks that somebody holds or waits for."""
    agent: AgentServices = request.app.state.agent
    prefix = request.query_params.get("prefix", prefix_of(request))
    check_name(request, prefix)
    limit = integer(request, "limit", most=RANGE_ENTRIES_MAX, default=RANGE_ENTRIES_MAX)
    assert limit is not None, "it has a default"
    after = request.query_params.get("after", "")
    revision, found = await agent.agreement.locks(prefix, after, limit)
    locks = [describe_lock(each) for each in found.locks]
    following = locks[-1]["name"] if found.more and locks else ""
    return JSONResponse({"revision": revision, "next": following, "locks": locks})


async def show_lock(request: Request) -> Response:
    """Answer with who holds a lock, and who waits for it; nobody is no error."""
    agent: AgentServices = request.app.state.agent
    name = _name(request)
    revision, lock = await agent.agreement.lock(name)
    nobody = {"name": name, "permits": 1, "holders": [], "waiters": [], "delays": []}
    return JSONResponse({"revision": revision, **(describe_lock(lock) if lock else nobody)})


async def acquire_lock(request: Request) -> Response:
    """Take a lock, or wait in its queue; asking again does no harm."""
    agent: AgentServices = request.app.state.agent
    name = _name(request)
    known = frozenset({"session", "permits", "value", "value_base64", "wait_s"})
    body = await read_object(request, known, BODY_BYTES_MAX)
    session = read_session(body.get("session"))
    await check_session(request, session)
    permits = body.get("permits", 1)
    if not isinstance(permits, int) or isinstance(permits, bool):
        raise BadRequest("`permits` is a whole number")
    stands = await agent.agreement.acquire(
        name,
        session,
        permits=permits,
        value=read_bytes(body),
        wait_s=min(WAIT_S_MAX, seconds(body, "wait_s", 0.0)),
    )
    return JSONResponse({"name": name, "token": stands.token, "position": stands.position})


async def proclaim(request: Request) -> Response:
    """Let a holder say something else about itself."""
    agent: AgentServices = request.app.state.agent
    name = _name(request)
    known = frozenset({"session", "value", "value_base64"})
    body = await read_object(request, known, BODY_BYTES_MAX)
    session = read_session(body.get("session"))
    await check_session(request, session)
    token = await agent.agreement.proclaim(name, session, read_bytes(body))
    return JSONResponse({"name": name, "token": token})


async def release_lock(request: Request) -> Response:
    """Let go of a lock, or leave its queue."""
    agent: AgentServices = request.app.state.agent
    name = _name(request)
    session = read_session(request.query_params.get("session"))
    await check_session(request, session)
    return JSONResponse({"name": name, "held": await agent.agreement.release(name, session)})


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    if not name:
        raise AgentError("the name of the lock is missing", "", NOT_FOUND)
    check_name(request, name)
    return name


def seconds(body: dict[str, Any], name: str, default: float) -> float:
    """Return a duration of a JSON object. Raises BadRequest."""
    value = body.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
        raise BadRequest(f"`{name}`: seconds, 0 or more")
    return float(value)


ROUTES = (
    ("POST", "/api/v1/sessions", open_session),
    ("GET", "/api/v1/sessions", list_sessions),
    ("PUT", "/api/v1/sessions/{session}", renew_session),
    ("DELETE", "/api/v1/sessions/{session}", close_session),
    ("GET", "/api/v1/locks", list_locks),
    ("GET", "/api/v1/locks/{name:key}", show_lock),
    ("PUT", "/api/v1/locks/{name:key}", acquire_lock),
    ("PATCH", "/api/v1/locks/{name:key}", proclaim),
    ("DELETE", "/api/v1/locks/{name:key}", release_lock),
)
