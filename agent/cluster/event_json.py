"""Events, queries and answers as the API tells them: JSON, with ids and bytes as text."""

import base64
import datetime as dt
from typing import Any

import msgspec

from gossip.core.ids import Boot, NodeId, format_node_id
from gossip.events.messages import ResponseKind

KINDS = {
    ResponseKind.ANSWERED: "answered",
    ResponseKind.FAILED: "failed",
    ResponseKind.NOBODY: "nobody",
}


class EventRecord(msgspec.Struct, frozen=True):
    """An event that was delivered here."""

    id: str
    name: str
    payload: bytes
    sender: NodeId
    sender_name: str
    lamport: int
    is_late: bool
    received_at: float
    """Unix seconds, on this node's clock."""


class IncomingQuery(msgspec.Struct, frozen=True):
    """A query that an app of this node is to answer."""

    id: str
    name: str
    payload: bytes
    asker: NodeId
    asker_name: str
    timeout_s: float


class QueryResponse(msgspec.Struct, frozen=True):
    """One member's answer to a query of ours."""

    node: NodeId
    node_name: str
    kind: ResponseKind
    payload: bytes
    after_s: float


class QuerySummary(msgspec.Struct, frozen=True):
    """How a query of ours ended."""

    answered: int
    expected: int
    missing: tuple[str, ...]
    """Names of the members that said nothing."""


class MissedEvents(msgspec.Struct, frozen=True):
    """Told to a follower in place of what it was too slow to take."""

    missed: int


def id_text(node: NodeId, boot: Boot, number: int) -> str:
    """Write the id of an event or a query.

    >>> id_text(0xA, 1 << 32, 7)
    '000000000000000a-0000000100000000-7'
    """
    return f"{node:016x}-{boot:016x}-{number}"


def parse_id(text: str) -> tuple[NodeId, Boot, int] | None:
    """Read what ``id_text`` wrote; None for anything else."""
    parts = text.split("-")
    try:
        node, boot, number = int(parts[0], 16), int(parts[1], 16), int(parts[2])
    except (IndexError, ValueError):
        return None
    return (node, boot, number) if id_text(node, boot, number) == text else None


def describe(
    one: EventRecord | IncomingQuery | QueryResponse | QuerySummary | MissedEvents,
) -> dict[str, Any]:
    """Return one line of a stream as JSON."""
    match one:
        case EventRecord():
            received = dt.datetime.fromtimestamp(one.received_at, dt.UTC)
            return {
                "id": one.id,
                "name": one.name,
                **payload_fields(one.payload),
                "sender": _node(one.sender, one.sender_name),
                "lamport": one.lamport,
                "late": one.is_late,
                "received": f"{received:%Y-%m-%dT%H:%M:%S}.{received.microsecond // 1000:03d}Z",
            }
        case IncomingQuery():
            asker = _node(one.asker, one.asker_name)
            told = {"id": one.id, "name": one.name, **payload_fields(one.payload)}
            return {**told, "asker": asker, "timeout_s": one.timeout_s}
        case QueryResponse():
            node, after_s = _node(one.node, one.node_name), round(one.after_s, 3)
            words = payload_fields(one.payload)
            return {"node": node, "kind": KINDS[one.kind], **words, "after_s": after_s}
        case QuerySummary():
            shape = {"answered": one.answered, "expected": one.expected}
            return {"summary": {**shape, "missing": list(one.missing)}}
        case MissedEvents():
            return {"missed": one.missed}


def payload_fields(payload: bytes) -> dict[str, str]:
    """Return bytes as JSON: text where they are UTF-8, else base64."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}


def _node(node: NodeId, name: str) -> dict[str, str]:
    return {"id": format_node_id(node), "name": name}
