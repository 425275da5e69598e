"""This machine's network interfaces: where to look for others, and what to call ourselves.

Interfaces come and go, addresses change under a running agent, and a device often has several
networks. So nothing here is remembered: who needs the list scans again and again.

Not every address is worth telling. Docker gives the same addresses to its bridges on every device,
and whoever is told of one that it has itself talks to itself there. A bridge is *private* when it
leads nowhere but to programs on this device: no default route leads through it, and all its ports
are made by software for containers and virtual machines. Private addresses are told when there are
no others, and those of interfaces without carrier only when nothing better is there. Which
addresses several members say they have, each member sees for itself
(``gossip/membership/members/member_list.py`` leaves out its own), and ``covey doctor`` tells.
"""

import ipaddress
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from agent import exits
from agent.exits import AgentError
from agent.net.netlink import Link, LinkAddress, read_addresses, read_default_routes, read_links
from agent.text.units import parse_endpoint
from gossip.core.machine import Address

ADDRESSES_MAX = 8
"""What one node says of itself; more would crowd the datagrams that carry it."""

MULTICAST_MAX = 16
"""Interfaces on which one family's groups are joined; Linux lets a socket join 20
(``net.ipv4.igmp_max_memberships``)."""

IPV6_MTU_MIN = 1280
"""Below it, an interface loses IPv6 with all that was joined there (RFC 8200 section 5)."""

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - what is bound there is chosen by whoever configures

INSIDE = frozenset({"veth", "tun", "dummy", "netkit", "macvtap"})
"""Kinds of ports behind which containers and virtual machines are."""


class Interface(NamedTuple):
    """One interface with its addresses, IPv4 first; a link-local IPv6 one carries its zone."""

    name: str
    number: int
    """The kernel's index of it."""
    addresses: tuple[str, ...]
    """Those that are ready to be used, the lasting ones first."""
    has_carrier: bool = True
    is_private: bool = False
    """Whether it leads to nothing but containers and virtual machines of this device."""
    is_port: bool = False
    """Whether it is a part of a bridge, and all that it hears is heard there too."""
    metric: float = 0.0
    """Of the best default route through it; infinite without one."""
    mtu_bytes: int = 1500
    carrier_changes: int = 0
    has_multicast: bool = True
    not_ready: tuple[str, ...] = ()
    """Addresses of it that are not to be told: being tested, or taken back."""

    @property
    def is_loopback(self) -> bool:
        """Whether it leads nowhere but here."""
        return any(_parsed(host).is_loopback for host in self.addresses)

    @property
    def carries_mdns(self) -> bool:
        """Whether to ask and to announce on it; the loopback does without the flag."""
        return not self.is_port and (self.has_multicast or self.is_loopback)

    @property
    def plug(self) -> tuple[int, int, bool]:
        """What changes when everything that was joined on this interface is gone or in doubt."""
        return self.number, self.carrier_changes, self.mtu_bytes >= IPV6_MTU_MIN


def scan() -> list[Interface]:
    """Return the interfaces that are up and have an address right now. Raises OSError."""
    links = read_links()
    return list(_interfaces(links, read_addresses(), read_default_routes()))


def _interfaces(
    links: Sequence[Link], addresses: Iterable[LinkAddress], metrics: Mapping[int, int]
) -> Iterator[Interface]:
    by_number = {link.number: link for link in links}
    found: dict[int, list[LinkAddress]] = {}
    for each in addresses:
        found.setdefault(each.link, []).append(each)
    for link in links:
        known = sorted(
            found.get(link.number, []),
            key=lambda each: (_parsed(each.host).version, each.is_temporary),
        )
        if not known or not link.is_up:
            continue
        yield Interface(
            name=link.name,
            number=link.number,
            addresses=tuple(_host(each.host, link.name) for each in known if each.is_ready),
            has_carrier=link.has_carrier,
            is_private=link.number not in metrics and _is_private(link, links),
            is_port=_is_port(link, by_number),
            metric=metrics.get(link.number, math.inf),
            mtu_bytes=link.mtu_bytes,
            carrier_changes=link.carrier_changes,
            has_multicast=link.has_multicast,
            not_ready=tuple(_host(each.host, link.name) for each in known if not each.is_ready),
        )


def _is_private(link: Link, links: Iterable[Link]) -> bool:
    if link.kind != "bridge":
        return False
    return all(port.kind in INSIDE for port in links if port.port_of == link.number)


def _is_port(link: Link, by_number: Mapping[int, Link]) -> bool:
    whole = by_number.get(link.port_of)
    return whole is not None and whole.kind in {"bridge", "openvswitch"}


def choose(interfaces: Iterable[Interface], wanted: Sequence[str]) -> list[Interface]:
    """Return those that ``wanted`` names, by name or by address; whoever names one means it.

    Without ``wanted``: all but the loopback, or the loopback when there is nothing else. What is
    wanted and not there is left out: it may come later.
    """
    everything = list(interfaces)
    if wanted:
        return [
            each._replace(is_private=False)
            for each in everything
            if {each.name, *each.addresses} & set(wanted)
        ]
    return [each for each in everything if not each.is_loopback] or everything


def best_first(interfaces: Iterable[Interface]) -> list[Interface]:
    """Return them in the order in which others will want to use them.

    Those that lead to other devices, then those with carrier, then those with a default route.
    """
    return sorted(interfaces, key=lambda each: (each.is_private, not each.has_carrier, each.metric))


def multicast_plugs(chosen: Iterable[Interface]) -> dict[str | int, object]:
    """Return what zeroconf joins groups with, best first, and what it is plugged into there.

    That is each IPv4 address, and the index of each interface that has IPv6. Loopback does IPv4
    only. When the plug of a handle is another than before, groups have to be joined anew.
    """
    ipv4: dict[str | int, object] = {}
    ipv6: dict[str | int, object] = {}
    for each in best_first(chosen):
        if not each.carries_mdns:
            continue
        ipv4 |= {host: each.plug for host in each.addresses if _parsed(host).version == 4}
        if not each.is_loopback and any(_parsed(host).version == 6 for host in each.addresses):
            ipv6[each.number] = each.plug
    return dict([*list(ipv4.items())[:MULTICAST_MAX], *list(ipv6.items())[:MULTICAST_MAX]])


def own_addresses(
    chosen: Iterable[Interface], bind: Sequence[str], port: int, advertise: Sequence[str] = ()
) -> tuple[Address, ...]:
    """Return where the others reach this node, best first: what is bound, or ``advertise``.

    An address that ``bind`` names counts wherever it is, the loopback included: whoever binds
    nothing else means it. Link-local IPv6 addresses are left out: they mean something else on
    each device. Their IPv4 kin come last. Of more than eight, each interface has its share: its
    first address of each family counts before the second of any. Raises AgentError when
    ``advertise`` holds something other than addresses.
    """
    if advertise:
        return tuple(_advertised(text, port) for text in advertise)
    ranked: list[tuple[tuple[bool, int], str]] = []
    for hosts in _worth_telling(chosen, bind, zoned=False):
        seen = {4: 0, 6: 0}
        for host in hosts:
            parsed = _parsed(host)
            ranked.append(((parsed.is_link_local, seen[parsed.version]), host))
            seen[parsed.version] += 1
    named = [host for host in bind if host not in WILDCARDS and not _is_zoned(host)]
    ordered = [host for _rank, host in sorted(ranked, key=lambda pair: pair[0])]
    return tuple(Address(host, port) for host in dict.fromkeys((*ordered, *named)))[:ADDRESSES_MAX]


def link_local_addresses(
    chosen: Iterable[Interface], bind: Sequence[str], port: int
) -> tuple[Address, ...]:
    """Return where direct neighbours reach this node, without zones: those are the neighbours'."""
    found = _worth_telling(chosen, bind, zoned=True)
    hosts = dict.fromkeys(host.partition("%")[0] for hosts in found for host in hosts)
    return tuple(Address(host, port) for host in hosts)[:ADDRESSES_MAX]


def _worth_telling(
    chosen: Iterable[Interface], bind: Sequence[str], *, zoned: bool
) -> list[list[str]]:
    """Return the bound addresses of the best interfaces that have any, for each of them."""
    found: list[list[str]] = []
    best: tuple[bool, bool] | None = None
    for each in best_first(chosen):
        hosts = [
            host for host in each.addresses if _is_bound(host, bind) and _is_zoned(host) == zoned
        ]
        rank = each.is_private, each.has_carrier
        if hosts and not each.is_port and best in (None, rank):
            best = rank
            found.append(hosts)
    return found


def all_addresses(
    interfaces: Iterable[Interface], bind: Sequence[str], port: int
) -> frozenset[Address]:
    """Return where this node would meet itself: all that is bound on this machine, told or not."""
    hosts = (host for each in interfaces for host in (*each.addresses, *each.not_ready))
    return frozenset(Address(host, port) for host in hosts if _is_bound(host, bind))


def _advertised(text: str, port: int) -> Address:
    try:
        host, chosen_port = parse_endpoint(text, port)
        ipaddress.ip_address(host)
    except ValueError as error:
        raise AgentError(
            f"[network] advertise: {error}; nothing was started.",
            hint="Write ADDRESS or ADDRESS:PORT as the other nodes reach this one.",
            status=exits.BAD_CONFIG,
        ) from None
    return Address(host, chosen_port)


def _is_bound(host: str, bind: Sequence[str]) -> bool:
    return host in bind or WILDCARDS[_parsed(host).version != 4] in bind


def _is_zoned(host: str) -> bool:
    parsed = _parsed(host)
    return parsed.version == 6 and parsed.is_link_local


def _host(host: str, interface: str) -> str:
    return f"{host}%{interface}" if _is_zoned(host) else host


@lru_cache(1024)
def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host.partition("%")[0])
