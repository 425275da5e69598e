"""What we found out about each member by talking with it: where from, how fast, which ways work.

There are three ways between two members, and each may fail alone: datagrams out (they answer our
pings), datagrams in (their packets reach us), and streams. A firewall that lets only one of TCP and
UDP pass, a link that works in one direction only, or one that drops large packets shows here and
nowhere else.
"""

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Address, Instant
from gossip.membership.network.coordinates import Coordinates

RTT_WEIGHT = 1 / 8
"""How much a new round trip counts, as in TCP (RFC 6298)."""

PATH_HOLD_S = 5.0
"""A path that was used this recently is not given up for another: dual-stack peers alternate."""


class PathStatus(msgspec.Struct, frozen=True):
    """Which ways to one member worked, as the seconds since they last did; None: never yet."""

    udp_in_s: float | None = None
    """A datagram of it reached us."""
    udp_out_s: float | None = None
    """It answered a ping that we sent to it directly."""
    stream_s: float | None = None
    """A frame of it reached us."""
    stream_failed_s: float | None = None
    """A stream to it broke, or could not be opened."""
    udp_blocked: bool = False
    """The last probe found it by a stream alone: no ping of ours, nor of the relays, got there."""
    streams_blocked: bool = False
    """Datagrams pass, and streams do not, as ``path_checks.py`` found."""
    narrow: bool = False
    """Packets of full size do not reach it."""


class PeerPaths:
    """What we measured of one member: where it was heard from, round trips, ways that worked."""

    __slots__ = (
        "narrow",
        "path_at",
        "rtt_s",
        "stream_at",
        "stream_failed_at",
        "streams_blocked",
        "udp_blocked",
        "udp_in_at",
        "udp_out_at",
    )

    def __init__(self) -> None:
        self.path_at: Instant = 0.0
        self.rtt_s: float | None = None
        self.udp_in_at: Instant | None = None
        self.udp_out_at: Instant | None = None
        self.stream_at: Instant | None = None
        self.stream_failed_at: Instant | None = None
        self.udp_blocked = False
        self.streams_blocked = False
        self.narrow = False


class Reachability:
    """Manages what we measured of the listed members; whoever unlists one says ``forget``."""

    def __init__(self, coordinates: Coordinates) -> None:
        self.coordinates = coordinates
        self._reachability: dict[NodeId, PeerPaths] = {}

    def on_packet(
        self, node: NodeId, path: Address | None, source: Address, now: Instant
    ) -> Address:
        """Note where a packet came from; return the path to prefer from now on to ``path``."""
        contact = self._of(node)
        contact.udp_in_at = now
        if path is not None and source != path and now - contact.path_at <= PATH_HOLD_S:
            return path
        contact.path_at = now
        return source

    def reached(self, node: NodeId, now: Instant) -> None:
        """Note that a direct ping of ours reached the member: datagrams pass."""
        contact = self._of(node)
        contact.udp_out_at = now
        contact.udp_blocked = False

    def answered(self, node: NodeId, rtt_s: float) -> None:
        """Note a round trip."""
        contact = self._of(node)
        before = contact.rtt_s
        contact.rtt_s = rtt_s if before is None else before + RTT_WEIGHT * (rtt_s - before)
        self.coordinates.measured(node, rtt_s)

    def streamed(self, node: NodeId, now: Instant) -> None:
        """Note that a frame of the member reached us."""
        self._of(node).stream_at = now

    def stream_failed(self, node: NodeId, now: Instant) -> None:
        """Note that a stream to the member broke, or could not be opened."""
        self._of(node).stream_failed_at = now

    def found_blocked(self, node: NodeId) -> None:
        """Note that a probe found the member by a stream, after all datagrams had failed."""
        self._of(node).udp_blocked = True

    def found_open(self, node: NodeId) -> None:
        """Note that a probe by datagrams, our own or a relay's, was answered."""
        self._of(node).udp_blocked = False

    def found_path(self, node: NodeId, *, streams_blocked: bool, narrow: bool) -> None:
        """Note whether streams do not pass though datagrams do, and whether large ones do not."""
        contact = self._of(node)
        contact.streams_blocked, contact.narrow = streams_blocked, narrow

    def is_narrow(self, node: NodeId) -> bool:
        """Say whether packets of full size do not reach the member."""
        contact = self._reachability.get(node)
        return contact is not None and contact.narrow

    def rtt_s(self, node: NodeId) -> float | None:
        """Return the smoothed round trip in seconds; None before the first one."""
        contact = self._reachability.get(node)
        return contact.rtt_s if contact else None

    def expected_rtt_s(self, node: NodeId) -> float | None:
        """Return the round trip to expect: as measured, else as the coordinates have it."""
        measured_s = self.rtt_s(node)
        if measured_s is not None:
            return measured_s
        return self.coordinates.rtt_from_here_s(node)

    def last_datagram_s(self, node: NodeId, now: Instant) -> float | None:
        """Return how long ago datagrams last passed, in whichever direction; None: never yet."""
        contact = self._reachability.get(node)
        if contact is None:
            return None
        times = [at for at in (contact.udp_in_at, contact.udp_out_at) if at is not None]
        return now - max(times) if times else None

    def paths_of(self, node: NodeId, now: Instant) -> PathStatus:
        """Return which ways to a member worked, and how long ago."""
        contact = self._reachability.get(node)
        if contact is None:
            return PathStatus()
        return PathStatus(
            udp_in_s=_age_s(contact.udp_in_at, now),
            udp_out_s=_age_s(contact.udp_out_at, now),
            stream_s=_age_s(contact.stream_at, now),
            stream_failed_s=_age_s(contact.stream_failed_at, now),
            udp_blocked=contact.udp_blocked,
            streams_blocked=contact.streams_blocked,
            narrow=contact.narrow,
        )

    def forget(self, node: NodeId) -> None:
        """Drop what we know of a node."""
        self._reachability.pop(node, None)
        self.coordinates.forget(node)

    def _of(self, node: NodeId) -> PeerPaths:
        contact = self._reachability.get(node)
        if contact is None:
            contact = self._reachability[node] = PeerPaths()
        return contact


def _age_s(at: Instant | None, now: Instant) -> float | None:
    return None if at is None else now - at
