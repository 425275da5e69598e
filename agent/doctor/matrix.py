"""Who reaches whom, and by what: everybody's view, put together.

Only the receiver knows whether a datagram arrived. So the cell from A to B is read from what B
says it heard of A; where B says nothing, an answered ping of A's will do.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from agent.doctor.findings import Finding, ok, warn
from agent.doctor.messages import Seen, View
from gossip.ids import NodeId


class Way(StrEnum):
    """By what one member reaches another."""

    SELF = "-"
    UDP = "udp"
    STREAM = "stream"
    """A stream passed lately; datagrams did not."""
    RELAY = "relay"
    """The other believes it alive, but heard of it through others only."""
    NONE = "none"
    UNKNOWN = "?"
    """Neither of the two told us."""


class Matrix(msgspec.Struct, frozen=True):
    """``ways[a, b]``: how what a sends reaches b. Rows and columns are in ``nodes``."""

    nodes: tuple[NodeId, ...]
    ways: dict[tuple[NodeId, NodeId], Way]


def build(nodes: Iterable[NodeId], views: Mapping[NodeId, View], fresh_s: float) -> Matrix:
    """Put the views together; what worked within ``fresh_s`` counts as working."""
    rows = tuple(nodes)
    seen = {(teller, entry.member): entry for teller, view in views.items() for entry in view.seen}
    ways = {(a, b): _way(a, b, seen, views, fresh_s) for a in rows for b in rows}
    return Matrix(rows, ways)


def _way(
    a: NodeId,
    b: NodeId,
    seen: Mapping[tuple[NodeId, NodeId], Seen],
    views: Mapping[NodeId, View],
    fresh_s: float,
) -> Way:
    if a == b:
        return Way.SELF
    heard, sent = seen.get((b, a)), seen.get((a, b))
    if heard is not None and _fresh(heard.udp_in_s, fresh_s):
        return Way.UDP
    if sent is not None and _fresh(sent.udp_out_s, fresh_s):
        return Way.UDP
    if b not in views:
        return Way.UNKNOWN
    if heard is not None and _fresh(heard.stream_s, fresh_s):
        return Way.STREAM
    return Way.RELAY if heard is not None and heard.state in ("alive", "suspect") else Way.NONE


def _fresh(age_s: float | None, fresh_s: float) -> bool:
    return age_s is not None and age_s <= fresh_s


def examine(matrix: Matrix, names: Mapping[NodeId, str]) -> list[Finding]:
    """Return advice about paths that do not work, or one finding that all do."""
    findings = []
    for a in matrix.nodes:
        for b in matrix.nodes:
            if matrix.ways[a, b] not in (Way.STREAM, Way.RELAY, Way.NONE):
                continue
            there, back = matrix.ways[a, b], matrix.ways[b, a]
            if back is Way.UDP:
                findings.append(_one_way(names[a], names[b]))
            elif a < b or back in (Way.SELF, Way.UNKNOWN):
                findings.append(_no_datagrams(names[a], names[b], there))
    return findings or [ok("paths", "datagrams pass between all members that were asked.")]


def _one_way(a: str, b: str) -> Finding:
    return warn(
        "one-way",
        f"one-way path: datagrams from {a} do not reach {b}; from {b} to {a} they pass.",
        f"Let UDP to Covey's port pass on {b}, out of {a}, and on what lies between them.",
    )


def _no_datagrams(a: str, b: str, way: Way) -> Finding:
    through = {Way.STREAM: "streams pass", Way.RELAY: "others relay"}.get(way, "nothing passes")
    return warn(
        "paths",
        f"no datagrams between {a} and {b} ({through}).",
        f"Let UDP and TCP to Covey's port pass between {a} and {b}.",
    )
