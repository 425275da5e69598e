"""Keys, transactions, locks and sessions of the control plane as JSON, in both directions.

Bytes are text where they are UTF-8 (``value``), else base64 (``value_base64``). What is asked is
read strictly: an unknown word is an error that says what is known.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Any

from agent.exits import USAGE, AgentError
from gossip.control.barriers import Barrier, BarrierChange
from gossip.control.bounds import RANGE_ENTRIES_MAX
from gossip.control.history import ControlChange
from gossip.control.keys import KeyChange, KeyEntry
from gossip.control.locks import Lock, LockChange
from gossip.control.sessions import ControlSession
from gossip.control.transactions import (
    Compare,
    CompareField,
    CompareRelation,
    DeletedResult,
    DeleteKey,
    DeletePrefix,
    EntriesResult,
    GetKey,
    GetRange,
    Operation,
    OperationResult,
    PutKey,
    WrittenResult,
)
from gossip.control.watchers import ControlEvent, WatchEnded

FIELDS = {each.name.lower(): each for each in CompareField}
RELATIONS = {
    "=": CompareRelation.EQUAL,
    "!=": CompareRelation.NOT_EQUAL,
    "<": CompareRelation.LESS,
    ">": CompareRelation.GREATER,
}
VALUE, VALUE_BASE64 = "value", "value_base64"
SESSION_FORMAT = "x"
UINT63_MAX = 2**63 - 1


def bad(message: str, hint: str = "") -> AgentError:
    """Return the error for what was not understood."""
    return AgentError(message, hint, USAGE)


def write_bytes(data: bytes) -> dict[str, str]:
    """Return bytes as one key of a JSON object."""
    try:
        return {VALUE: data.decode()}
    except UnicodeDecodeError:
        return {VALUE_BASE64: base64.b64encode(data).decode()}


def read_bytes(asked: dict[str, Any], text: str = VALUE) -> bytes:
    """Return the bytes of a JSON object; none if it has no value. Raises AgentError."""
    packed = f"{text}_base64"
    if text in asked and packed in asked:
        raise bad(f"`{text}` and `{packed}` contradict each other", "give one of them")
    given = asked.get(packed, asked.get(text, ""))
    if not isinstance(given, str):
        raise bad(f"`{text}` is a text", f"write numbers as texts, or bytes as `{packed}`")
    try:
        return base64.b64decode(given, validate=True) if packed in asked else given.encode()
    except (binascii.Error, ValueError):
        raise bad(f"`{packed}` is no base64") from None


def write_session(number: int) -> str:
    """Return a session's number as it is written everywhere."""
    return format(number, SESSION_FORMAT)


def read_session(text: object) -> int:
    """Return a session's number. Raises AgentError."""
    try:
        number = int(text, 16) if isinstance(text, str) and len(text) <= 16 else -1
    except ValueError:
        number = -1
    if not 0 <= number <= UINT63_MAX:
        raise bad(f"{text!r:.40} is no session", "it is what opening one has answered")
    return number


def read_compare(asked: Any) -> Compare:
    """Read ``{"key", "field", "relation", "operand"}``. Raises AgentError."""
    _known(asked, "a comparison", {"key", "field", "relation", "operand", "operand_base64"})
    field = FIELDS.get(asked.get("field", VALUE))
    relation = RELATIONS.get(asked.get("relation", "="))
    if field is None:
        raise bad("`field` is what is compared", f"one of {', '.join(FIELDS)}")
    if relation is None:
        raise bad("`relation` is how it is compared", f"one of {' '.join(RELATIONS)}")
    operand: int | bytes
    if field is CompareField.VALUE:
        operand = read_bytes(asked, "operand")
    elif field is CompareField.SESSION and isinstance(asked.get("operand"), str):
        operand = read_session(asked["operand"])
    else:
        operand = _number(asked, "operand")
    return Compare(_text(asked, "key"), field, relation, operand)


def read_operation(asked: Any) -> Operation:
    """Read one operation, by the one of its keys that names it. Raises AgentError."""
    kinds = ("put", "delete", "delete_prefix", "get", "range")
    found = [kind for kind in kinds if isinstance(asked, dict) and kind in asked]
    if len(found) != 1:
        raise bad("an operation is an object with one of " + ", ".join(kinds))
    match found[0]:
        case "put":
            _known(asked, "a put", {"put", VALUE, VALUE_BASE64, "session"})
            session = read_session(asked["session"]) if "session" in asked else 0
            return PutKey(_text(asked, "put"), read_bytes(asked), session)
        case "delete":
            _known(asked, "a delete", {"delete"})
            return DeleteKey(_text(asked, "delete"))
        case "delete_prefix":
            _known(asked, "a delete", {"delete_prefix"})
            return DeletePrefix(_text(asked, "delete_prefix"))
        case "get":
            _known(asked, "a get", {"get"})
            return GetKey(_text(asked, "get"))
        case _:
            _known(asked, "a range", {"range", "after", "limit", "keys_only"})
            after, limit = asked.get("after", ""), asked.get("limit", RANGE_ENTRIES_MAX)
            if not isinstance(after, str) or not _is_number(limit):
                raise bad("`after` is a text, `limit` a number")
            return GetRange(
                _text(asked, "range"), after, limit, bool(asked.get("keys_only", False))
            )


def read_list(asked: dict[str, Any], name: str) -> list[Any]:
    """Return a list of a JSON object; an empty one if it is missing. Raises AgentError."""
    found = asked.get(name, [])
    if not isinstance(found, list):
        raise bad(f"`{name}` is a list")
    return found


def _known(asked: Any, what: str, known: set[str]) -> None:
    if not isinstance(asked, dict):
        raise bad(f"{what} is an object", f"its keys are {', '.join(sorted(known))}")
    if unknown := set(asked) - known:
        listed = ", ".join(sorted(unknown))
        raise bad(f"unknown in {what}: {listed}", f"the keys are {', '.join(sorted(known))}")


def _text(asked: dict[str, Any], name: str) -> str:
    text = asked.get(name)
    if not isinstance(text, str):
        raise bad(f"`{name}` is a text")
    return text


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= UINT63_MAX


def _number(asked: dict[str, Any], name: str) -> int:
    number = asked.get(name)
    if not _is_number(number):
        raise bad(f"`{name}` is a whole number here")
    assert isinstance(number, int), "looked at just now"
    return number


def describe_entry(entry: KeyEntry) -> dict[str, Any]:
    """Return a key as JSON."""
    session = {"session": write_session(entry.session)} if entry.session else {}
    return {
        "key": entry.key,
        **write_bytes(entry.value),
        "created": entry.created,
        "modified": entry.modified,
        "version": entry.version,
        **session,
    }


def describe_result(result: OperationResult) -> dict[str, Any]:
    """Return what one operation has done, or read."""
    match result:
        case WrittenResult(version=version):
            return {"version": version}
        case DeletedResult(count=count):
            return {"deleted": count}
        case EntriesResult(entries=entries, more=more):
            return {"entries": [describe_entry(each) for each in entries], "more": more}


def describe_lock(lock: Lock) -> dict[str, Any]:
    """Return a lock as JSON: its holders, and who waits, in the order of the queue."""
    return {
        "name": lock.name,
        "permits": lock.permits,
        "holders": [
            {
                "session": write_session(each.session),
                "token": each.token,
                **write_bytes(each.value),
            }
            for each in lock.holders
        ],
        "waiters": [
            {"session": write_session(each.session), **write_bytes(each.value)}
            for each in lock.waiters
        ],
        "delays": [{"since": each.since, "delay_s": each.delay_ms / 1000} for each in lock.delays],
    }


def describe_barrier(name: str, barrier: Barrier | None) -> dict[str, Any]:
    """Return a barrier as JSON; None: nobody is inside."""
    inside = barrier.inside if barrier is not None else ()
    return {
        "name": name,
        "count": barrier.count if barrier is not None else None,
        "open": barrier is not None and barrier.is_open,
        "inside": [write_session(each) for each in inside],
    }


def describe_session(session: ControlSession, names: dict[int, str]) -> dict[str, Any]:
    """Return a session as JSON; ``names`` are those of the nodes."""
    return {
        "session": write_session(session.number),
        "node": names.get(session.node, ""),
        "label": session.label,
        "ttl_s": session.ttl_ms / 1000,
        "lock_delay_s": session.lock_delay_ms / 1000,
    }


def describe_event(event: ControlEvent | WatchEnded) -> dict[str, Any]:
    """Return what a watch tells, as JSON: one revision, or that there is a gap."""
    if isinstance(event, WatchEnded):
        return {"compacted": event.compacted}
    return {"revision": event.revision, "changes": list(_changes(event.changes))}


def _changes(changes: Iterable[ControlChange]) -> Iterable[dict[str, Any]]:
    for change in changes:
        match change:
            case KeyChange(key=key, entry=entry):
                told = describe_entry(entry) if entry is not None else {"key": key}
                yield {"kind": "put" if entry is not None else "delete", **told}
            case LockChange(name=name, lock=lock):
                told = describe_lock(lock) if lock is not None else {"name": name, "holders": []}
                yield {"kind": "lock", **told}
            case BarrierChange(name=name, barrier=barrier):
                yield {"kind": "barrier", **describe_barrier(name, barrier)}
