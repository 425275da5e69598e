"""What the kernel says of links, addresses and routes: three questions over rtnetlink(7).

``getifaddrs`` and the libraries on top of it leave out what decides whether an address is worth
telling: carrier, the kind of a link, whose port it is, and where the default routes lead. So the
kernel is asked itself, anew each time; and when that is worth it, it says unasked. Linux alone;
numbers and layouts are those of linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h.
"""

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = struct.Struct("=IHHII")
LINK, ADDRESS, ROUTE = (
    struct.Struct("=BxHiII"),
    struct.Struct("=BBBBI"),
    struct.Struct("=BBBBBBBBI"),
)
ATTRIBUTE, NEXT_HOP = struct.Struct("=HH"), struct.Struct("=HBBi")
NUMBER = struct.Struct("=I")

REQUEST_DUMP = 0x001 | 0x300
DONE, ERROR = 3, 2
GET_LINKS, GET_ADDRESSES, GET_ROUTES = 18, 22, 26

LINK_NAME, LINK_MTU, LINK_PORT_OF, LINK_INFO, LINK_MASK, LINK_CARRIER_CHANGES = 3, 4, 10, 18, 29, 35
KIND = 1
WITHOUT_STATISTICS = 1 << 3
IS_UP, IS_RUNNING, HAS_MULTICAST = 0x1, 0x40, 0x1000
ADDRESS_REMOTE, ADDRESS_LOCAL, ADDRESS_FLAGS = 1, 2, 8
TEMPORARY, FAILED, DEPRECATED, TENTATIVE = 0x01, 0x08, 0x20, 0x40
ROUTE_INTERFACE, ROUTE_PRIORITY, ROUTE_HOPS, ROUTE_TABLE = 4, 6, 9, 15
MAIN_TABLE, UNICAST = 254, 1
TYPE_BITS = 0x3FFF

LINKS_CHANGE, IPV4_ADDRESSES_CHANGE, IPV6_ADDRESSES_CHANGE = 0x1, 0x10, 0x100
IPV4_ROUTES_CHANGE, IPV6_ROUTES_CHANGE = 0x40, 0x400
ALL_CHANGES = (
    LINKS_CHANGE
    | IPV4_ADDRESSES_CHANGE
    | IPV6_ADDRESSES_CHANGE
    | IPV4_ROUTES_CHANGE
    | IPV6_ROUTES_CHANGE
)
NOTICES_READ_MAX = 256

ANSWER_BYTES = 64 * 1024
ANSWER_WITHIN_S = 2.0


class Link(NamedTuple):
    """One network interface."""

    number: int
    """The kernel's index of it; another one made later under the same name has another."""
    name: str
    is_up: bool
    """Whether it is switched on."""
    has_carrier: bool
    """... and its cable plugged in, or its radio associated."""
    mtu_bytes: int
    kind: str
    """Which driver made it, of those that are made by software; empty for a network card."""
    port_of: int
    """The bridge or bond that it is a port of; 0 for none."""
    carrier_changes: int
    has_multicast: bool = True
    """Whether one packet on it may reach several others; not so with WireGuard."""


class LinkAddress(NamedTuple):
    """One address of an interface."""

    link: int
    host: str
    is_ready: bool
    """Whether others may be told of it: nobody else has it, and no router has taken it back."""
    is_temporary: bool
    """Whether it is an IPv6 address that will be replaced soon for privacy's sake (RFC 8981)."""


class Notices:
    """What the kernel tells unasked: that a link, an address or a route has changed.

    What has changed is read anew then: a notice may be lost, and says no more than the answers.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def any(self) -> bool:
        """Say whether anything may have changed since the last call.

        So it may at the first call, where notices were lost, and where the kernel gives none.
        """
        try:
            if self._socket is None:
                self._socket = _heeding()
                return True
            return _drained(self._socket)
        except OSError:  # ENOBUFS: some were lost; or there is no file descriptor
            self.close()
            return True

    def close(self) -> None:
        """Listen no more, until asked again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _heeding() -> socket.socket:
    """Return a socket on which the kernel tells of changes from now on. Raises OSError."""
    heeding = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        heeding.settimeout(0)
        heeding.bind((0, ALL_CHANGES))
    except OSError:
        heeding.close()
        raise
    return heeding


def _drained(heeding: socket.socket) -> bool:
    """Take what was told, and say whether there was any. Raises OSError."""
    for count in range(NOTICES_READ_MAX):
        try:
            heeding.recv(1)  # the rest of a notice goes with its beginning
        except BlockingIOError:
            return count > 0
    return True


def read_links() -> list[Link]:
    """Return all interfaces. Raises OSError."""
    wish = ATTRIBUTE.pack(ATTRIBUTE.size + NUMBER.size, LINK_MASK) + NUMBER.pack(WITHOUT_STATISTICS)
    return [_link(body) for body in _dump(GET_LINKS, LINK.pack(0, 0, 0, 0, 0) + wish)]


def read_addresses() -> list[LinkAddress]:
    """Return the addresses of all interfaces, in the kernel's order. Raises OSError."""
    found = (_address(body) for body in _dump(GET_ADDRESSES, ADDRESS.pack(0, 0, 0, 0, 0)))
    return [each for each in found if each is not None]


def read_default_routes() -> dict[int, int]:
    """Return the interfaces that default routes lead through, with the best metric. Raises OSError.

    Only the main table counts: what else there is serves somebody's special purpose.
    """
    best: dict[int, int] = {}
    for body in _dump(GET_ROUTES, ROUTE.pack(*[0] * 9)):
        for link, metric in _default_route(body):
            best[link] = min(metric, best.get(link, metric))
    return best


def _link(body: bytes) -> Link:
    _family, _hardware, number, flags, _changed = LINK.unpack_from(body)
    told = dict(_attributes(body[LINK.size :]))
    info = dict(_attributes(told.get(LINK_INFO, b"")))
    return Link(
        number,
        _text(told.get(LINK_NAME, b"")),
        bool(flags & IS_UP),
        bool(flags & IS_RUNNING),
        _number(told.get(LINK_MTU)),
        _text(info.get(KIND, b"")),
        _number(told.get(LINK_PORT_OF)),
        _number(told.get(LINK_CARRIER_CHANGES)),
        bool(flags & HAS_MULTICAST),
    )


def _address(body: bytes) -> LinkAddress | None:
    family, _length, flags, _scope, link = ADDRESS.unpack_from(body)
    told = dict(_attributes(body[ADDRESS.size :]))
    # On a point-to-point link, the one is the other side's.
    packed = told.get(ADDRESS_LOCAL) or told.get(ADDRESS_REMOTE)
    flags = _number(told.get(ADDRESS_FLAGS)) or flags
    if packed is None:
        return None
    is_ready = not flags & (FAILED | DEPRECATED | TENTATIVE)
    is_temporary = family == socket.AF_INET6 and bool(flags & TEMPORARY)
    return LinkAddress(link, str(ipaddress.ip_address(packed)), is_ready, is_temporary)


def _default_route(body: bytes) -> Iterator[tuple[int, int]]:
    _family, length, _source, _tos, table, _protocol, _scope, kind, _flags = ROUTE.unpack_from(body)
    told = dict(_attributes(body[ROUTE.size :]))
    if length or kind != UNICAST or (_number(told.get(ROUTE_TABLE)) or table) != MAIN_TABLE:
        return
    metric = _number(told.get(ROUTE_PRIORITY))
    if ROUTE_INTERFACE in told:
        yield _number(told[ROUTE_INTERFACE]), metric
    hops = told.get(ROUTE_HOPS, b"")
    while len(hops) >= NEXT_HOP.size:
        length, _flags, _weight, link = NEXT_HOP.unpack_from(hops)
        yield link, metric
        hops = hops[max(length, NEXT_HOP.size) :]


def _dump(kind: int, body: bytes) -> Iterator[bytes]:
    """Yield the answers to one question, without their headers. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(ANSWER_WITHIN_S)
        asking.bind((0, 0))
        asking.send(HEADER.pack(HEADER.size + len(body), kind, REQUEST_DUMP, 1, 0) + body)
        while True:
            answer = asking.recv(ANSWER_BYTES)
            for told, message in _messages(answer):
                if told == DONE:
                    return
                if told == ERROR:
                    error = -struct.unpack_from("=i", message)[0]
                    raise OSError(error, os.strerror(error))
                yield message


def _messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    while len(answer) >= HEADER.size:
        length, kind, _flags, _sequence, _port = HEADER.unpack_from(answer)
        yield kind, answer[HEADER.size : length]
        answer = answer[_aligned(max(length, HEADER.size)) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        yield kind & TYPE_BITS, data[ATTRIBUTE.size : length]
        data = data[_aligned(max(length, ATTRIBUTE.size)) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _number(data: bytes | None) -> int:
    return NUMBER.unpack(data)[0] if data is not None and len(data) == NUMBER.size else 0


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
