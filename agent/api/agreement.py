"""Routes of the control plane's keys: read them, change them together, watch them.

Every change is a transaction that a majority of the voters has on its disks before it is answered.
Without a majority the answer is 503, and says whether nothing was done or nobody knows.
"""

from agent.api.audited import note_names
from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.name_scope import changed_names, check_name, check_transaction
from agent.api.ndjson import OpenStreams
from agent.api.request_bodies import flag, integer, number, read_object
from agent.cluster.agreement_json import (
    UINT63_MAX,
    describe_entry,
    describe_event,
    describe_result,
    read_compare,
    read_list,
    read_operation,
)
from agent.exits import NOT_FOUND, AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.control.bounds import COMMAND_BYTES_MAX, RANGE_ENTRIES_MAX
from gossip.control.requests import TIMEOUT_S, TIMEOUT_S_MAX
from gossip.control.transactions import GetKey, GetRange
from gossip.control.watchers import ControlWatch, WatchKind, check_watch

BODY_BYTES_MAX = 2 * COMMAND_BYTES_MAX
KINDS = {"keys": WatchKind.KEYS, "locks": WatchKind.LOCKS, "barriers": WatchKind.BARRIERS}
LIMIT_DEFAULT = 100


async def transact(request: Request) -> Response:
    """Compare, then or else; all of it or nothing."""
    agent: AgentServices = request.app.state.agent
    body = await read_object(request, frozenset({"compare", "then", "else"}), BODY_BYTES_MAX)
    compares = tuple(map(read_compare, read_list(body, "compare")))
    then = tuple(map(read_operation, read_list(body, "then")))
    otherwise = tuple(map(read_operation, read_list(body, "else")))
    await check_transaction(request, compares, (*then, *otherwise))
    note_names(request, changed_names((*then, *otherwise)))
    revision, done = await agent.agreement.transact(compares, then, otherwise, _timeout(request))
    results = [describe_result(each) for each in done.results]
    return JSONResponse({"revision": revision, "succeeded": done.succeeded, "results": results})


async def list_keys(request: Request) -> Response:
    """Answer with one page of keys, as they were at one revision."""
    agent: AgentServices = request.app.state.agent
    limit = integer(request, "limit", most=RANGE_ENTRIES_MAX, default=LIMIT_DEFAULT)
    assert limit is not None, "it has a default"
    prefix = request.query_params.get("prefix", "")
    check_name(request, prefix)
    after, keys_only = request.query_params.get("after", ""), flag(request, "keys_only")
    revision, (found,) = await agent.agreement.read(
        (GetRange(prefix, after, limit, keys_only),),
        stale=flag(request, "stale"),
        timeout_s=_timeout(request),
    )
    entries = [describe_entry(each) for each in found.entries]
    following = entries[-1]["key"] if found.more and entries else ""
    return JSONResponse({"revision": revision, "next": following, "entries": entries})


async def get_key(request: Request) -> Response:
    """Answer with one key."""
    agent: AgentServices = request.app.state.agent
    key = request.path_params["key"]
    check_name(request, key)
    revision, (found,) = await agent.agreement.read(
        (GetKey(key),), stale=flag(request, "stale"), timeout_s=_timeout(request)
    )
    if not found.entries:
        raise AgentError(f"there is no key {key!r:.80} in the control plane", "", NOT_FOUND)
    return JSONResponse({"revision": revision, **describe_entry(found.entries[0])})


async def watch(request: Request) -> Response:
    """Stream changes, one revision a line; a last line with ``compacted`` instead of a gap."""
    agent: AgentServices = request.app.state.agent
    prefix, name = request.query_params.get("prefix"), request.query_params.get("name")
    kind = KINDS.get(request.query_params.get("kind", "keys"))
    if (prefix is None) == (name is None):
        raise BadRequest("watch either a name or a prefix", "?name=NAME or ?prefix=BEGINNING")
    if kind is None:
        raise BadRequest("the kind says what is watched", f"one of {', '.join(KINDS)}")
    after = integer(request, "after", least=0, most=UINT63_MAX)
    wanted = name if name is not None else prefix or ""
    check_name(request, wanted)
    asked = ControlWatch(wanted, prefix is not None, kind, after)
    check_watch(asked)  # a stream has no status to refuse with
    streams: OpenStreams = request.app.state.streams
    return streams.respond(agent.agreement.watch(asked), describe_event)


def _timeout(request: Request) -> float:
    return number(request, "timeout", most=TIMEOUT_S_MAX, default=TIMEOUT_S)


ROUTES = (
    ("POST", "/api/v1/txn", transact),
    ("GET", "/api/v1/control", list_keys),
    ("GET", "/api/v1/control/{key:key}", get_key),
    ("GET", "/api/v1/changes", watch),
)
