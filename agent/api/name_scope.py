"""Which names a caller may use: those that begin as its token, or its app's table, says.

In the control plane an app's own names begin with ``apps/NAME/``: keys, locks, and the sessions
that it opened. So an app on one device meets the same app on all others, and one that was broken
into can neither take the locks of others nor end their sessions. The same holds for a token that is
for some keys alone, there and among the shared keys.
"""

from collections.abc import Iterator, Sequence

from agent.access.caller import Caller
from agent.api.callers import caller_of
from agent.api.interfaces import AgentServices
from agent.exits import NOT_PERMITTED, AgentError
from agent.http.request import Request
from gossip.bodies.file_records import OWN_PREFIX
from gossip.control.fleet_settings import RESERVED_PREFIX
from gossip.control.transactions import (
    Compare,
    DeleteKey,
    DeletePrefix,
    GetKey,
    GetRange,
    Operation,
    PutKey,
)


class NotItsName(AgentError):
    """A name that is not for this caller, or for nobody; nothing was done."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint, NOT_PERMITTED)


def prefix_of(request: Request) -> str:
    """Return how the names begin that are meant where none is given; empty for who may use all."""
    names = caller_of(request).names
    return names[0] if len(names) == 1 else ""


def label_of(request: Request, label: str) -> str:
    """Return the label of a session that this client opens."""
    return caller_of(request).label or label


def check_name(request: Request, name: str) -> None:
    """Raise AgentError unless this client may use this name of the control plane.

    So of a prefix: unless it may use all names that begin so.
    """
    _check_begins(name, caller_of(request).names)


def check_shared_key(request: Request, key: str) -> None:
    """Raise AgentError unless this client may use this shared key, or all that begin so.

    So of the name of a file.
    """
    check_key_for(caller_of(request), key)


def check_key_for(caller: Caller, key: str) -> None:
    """Raise AgentError unless this caller may use this shared key, or all that begin so."""
    if key.startswith(OWN_PREFIX):
        raise NotItsName(
            "keys that begin with the character U+0000 are Covey's own; nothing was done",
            "`covey file put` and `covey file get` write and read files",
        )
    _check_begins(key, caller.keys)


def may_use_shared_key(caller: Caller, key: str) -> bool:
    """Tell whether this caller may use this shared key."""
    return not key.startswith(OWN_PREFIX) and _begins(key, caller.keys)


def _begins(name: str, allowed: Sequence[str]) -> bool:
    return not allowed or name.startswith(tuple(allowed))


def _check_begins(name: str, allowed: Sequence[str]) -> None:
    if not _begins(name, allowed):
        raise NotItsName(
            f"{name!r:.80} is not for this caller; nothing was done",
            f"its names begin with {' or '.join(allowed)}",
        )


async def check_session(request: Request, session: int) -> None:
    """Raise AgentError unless this client may use this session."""
    own = caller_of(request).label
    if not own:
        return
    agent: AgentServices = request.app.state.agent
    if (await agent.agreement.session(session)).label != own:
        raise NotItsName("this session is not this caller's; nothing was done", "open one")


async def check_transaction(
    request: Request, compares: tuple[Compare, ...], operations: tuple[Operation, ...]
) -> None:
    """Raise AgentError unless this client may ask for all of this."""
    for compare in compares:
        check_name(request, compare.key)
    for operation in operations:
        match operation:
            case GetRange(prefix=name) | GetKey(key=name):
                check_name(request, name)
            case DeletePrefix(prefix=name) | DeleteKey(key=name) | PutKey(key=name):
                check_name(request, name)
                _check_is_free(name, is_prefix=isinstance(operation, DeletePrefix))
    puts = [each for each in operations if isinstance(each, PutKey)]
    for session in {each.session for each in puts} - {0}:
        await check_session(request, session)


def changed_names(operations: tuple[Operation, ...]) -> Iterator[str]:
    """Yield the names of what these operations may change."""
    for operation in operations:
        match operation:
            case PutKey(key=name) | DeleteKey(key=name):
                yield name
            case DeletePrefix(prefix=name):
                yield f"{name}*"


def _check_is_free(name: str, *, is_prefix: bool) -> None:
    """Raise AgentError for keys that Covey itself gives a meaning."""
    takes_along = is_prefix and RESERVED_PREFIX.startswith(name)
    if name.startswith(RESERVED_PREFIX) or takes_along:
        raise NotItsName(
            f"keys that begin with {RESERVED_PREFIX} are Covey's own; nothing was done",
            "settings of the fleet are set with `covey config set`",
        )
