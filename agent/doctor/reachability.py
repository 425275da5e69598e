"""Who reaches whom, and by what: everybody's view, put together.

Only the receiver knows whether a datagram arrived. So the cell from A to B is read from what B
says it heard of A; where B says nothing, an answered ping of A's will do.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from itertools import chain

import msgspec

from agent.doctor.findings import Finding, fail, ok, warn
from agent.doctor.messages import NodeView, PeerView
from agent.loop.slices import collect
from gossip.core.ids import NodeId
from gossip.core.tuning import NARROW_PATH_BYTES, PATH_BYTES

FINDINGS_MAX = 50
"""A switch that is off breaks thousands of paths; nobody reads that many lines."""


class ReachKind(StrEnum):
    """By what one member reaches another."""

    SELF = "-"
    UDP = "udp"
    DATAGRAMS = "udp only"
    """Datagrams pass, and no stream can be opened."""
    NARROW = "narrow"
    """Small datagrams pass, and packets of full size do not."""
    STREAM = "stream"
    """A stream passed lately; datagrams did not."""
    RELAY = "relay"
    """The other believes it alive, but heard of it through others only."""
    NONE = "none"
    UNKNOWN = "?"
    """Neither of the two told us."""


DATAGRAMS_PASS = frozenset({ReachKind.UDP, ReachKind.DATAGRAMS, ReachKind.NARROW})


class ReachMatrix(msgspec.Struct, frozen=True):
    """``ways[a, b]``: how what a sends reaches b. Rows and columns are in ``nodes``."""

    nodes: tuple[NodeId, ...]
    ways: dict[tuple[NodeId, NodeId], ReachKind]


async def build(
    nodes: Iterable[NodeId],
    views: Mapping[NodeId, NodeView],
    fresh_s: float,
    streamless: AbstractSet[tuple[NodeId, NodeId]] = frozenset(),
) -> ReachMatrix:
    """Put the views together; what worked within ``fresh_s`` counts as working.

    ``streamless`` has the pairs of which it was found just now that no stream can be opened.
    In slices: three hundred members are ninety thousand pairs.
    """
    rows = tuple(nodes)
    seen: dict[NodeId, dict[NodeId, PeerView]] = {}
    ways: dict[tuple[NodeId, NodeId], ReachKind] = {}

    def look(teller: NodeId) -> None:
        seen[teller] = {entry.member: entry for entry in views[teller].seen}

    def fill(a: NodeId) -> None:
        ways.update({(a, b): _way(a, b, seen, fresh_s) for b in rows})
        for b in rows:
            if ways[a, b] is ReachKind.UDP:
                sent = seen.get(a, {}).get(b)
                ways[a, b] = _limited(sent, streamless=(a, b) in streamless)

    await collect(map(look, views))
    await collect(map(fill, rows))
    return ReachMatrix(rows, ways)


def _way(
    a: NodeId, b: NodeId, seen: Mapping[NodeId, Mapping[NodeId, PeerView]], fresh_s: float
) -> ReachKind:
    if a == b:
        return ReachKind.SELF
    heard, sent = seen.get(b, {}).get(a), seen.get(a, {}).get(b)
    if heard is not None and _fresh(heard.udp_in_s, fresh_s):
        return ReachKind.UDP
    if sent is not None and _fresh(sent.udp_out_s, fresh_s):
        return ReachKind.UDP
    if b not in seen:
        return ReachKind.UNKNOWN
    if heard is not None and _fresh(heard.stream_s, fresh_s):
        return ReachKind.STREAM
    return (
        ReachKind.RELAY
        if heard is not None and heard.state in ("alive", "suspect")
        else ReachKind.NONE
    )


def _limited(sent: PeerView | None, *, streamless: bool) -> ReachKind:
    """Return what there is where datagrams pass: all, or not streams, or not full packets."""
    if streamless or (sent is not None and sent.streams_blocked):
        return ReachKind.DATAGRAMS
    return ReachKind.NARROW if sent is not None and sent.narrow else ReachKind.UDP


def _fresh(age_s: float | None, fresh_s: float) -> bool:
    return age_s is not None and age_s <= fresh_s


async def examine(
    matrix: ReachMatrix,
    names: Mapping[NodeId, str],
    ports: Mapping[NodeId, int],
    are_apart: Callable[[NodeId, NodeId], bool] = lambda _one, _other: False,
) -> list[Finding]:
    """Return advice about paths that do not work, or one finding that all do. In slices.

    Between members that ``are_apart`` there is no path to mend.
    """
    rows = await collect(
        list(_examine_row(a, matrix, names, ports, are_apart)) for a in matrix.nodes
    )
    findings = list(chain.from_iterable(rows))
    if len(findings) > FINDINGS_MAX:
        more = len(findings) - FINDINGS_MAX
        told = warn("paths", f"{more} more pairs have a broken path.", "The matrix shows them all.")
        return [*findings[:FINDINGS_MAX], told]
    return findings or [ok("paths", "datagrams pass between all members that were asked.")]


def _examine_row(
    a: NodeId,
    matrix: ReachMatrix,
    names: Mapping[NodeId, str],
    ports: Mapping[NodeId, int],
    are_apart: Callable[[NodeId, NodeId], bool],
) -> Iterator[Finding]:
    into = {names[other]: matrix.ways[other, a] for other in matrix.nodes}
    yield from _no_streams(into, names[a], ports[a])
    yield from _narrow(into, names[a])
    for b in matrix.nodes:
        if matrix.ways[a, b] not in (
            ReachKind.STREAM,
            ReachKind.RELAY,
            ReachKind.NONE,
        ) or are_apart(a, b):
            continue
        there, back = matrix.ways[a, b], matrix.ways[b, a]
        if back in DATAGRAMS_PASS:
            yield _one_way(names[a], names[b], ports[b])
        elif a < b or back in (ReachKind.SELF, ReachKind.UNKNOWN):
            yield _no_datagrams(names[a], names[b], ports[b], there)


def _no_streams(into: Mapping[str, ReachKind], b: str, port: int) -> list[Finding]:
    without = sorted(a for a, way in into.items() if way is ReachKind.DATAGRAMS)
    if not without:
        return []
    message = (
        f"no streams to {b} from {', '.join(without)}: datagrams pass, and TCP does not. Keys are "
        "not written or read over such a path."
    )
    hint = f"Let TCP to port {port} in on {b}, as UDP is, and through what lies between them."
    return [fail("no-streams", message, hint)]


def _narrow(into: Mapping[str, ReachKind], b: str) -> list[Finding]:
    narrow = sorted(a for a, way in into.items() if way is ReachKind.NARROW)
    if not narrow:
        return []
    message = f"packets of {PATH_BYTES} bytes do not reach {b} from {', '.join(narrow)}."
    hint = (
        f"Set the MTU of the VPN or tunnel in between to {PATH_BYTES} or more. Until then packets "
        f"are kept to {NARROW_PATH_BYTES} bytes, which costs time."
    )
    return [warn("narrow", message, hint)]


def _one_way(a: str, b: str, port: int) -> Finding:
    return warn(
        "one-way",
        f"one-way path: datagrams from {a} do not reach {b}; from {b} to {a} they pass.",
        f"Let UDP to port {port} pass on {b}, out of {a}, and on what lies between them.",
    )


def _no_datagrams(a: str, b: str, port: int, way: ReachKind) -> Finding:
    through = {ReachKind.STREAM: "streams pass", ReachKind.RELAY: "others relay"}.get(
        way, "nothing passes"
    )
    return warn(
        "paths",
        f"no datagrams between {a} and {b} ({through}).",
        f"Let UDP and TCP to port {port} pass between {a} and {b}.",
    )
