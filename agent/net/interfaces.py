"""This machine's network interfaces: where to look for others, and what to call ourselves.

Interfaces come and go, addresses change under a running agent, and a device often has several
networks. So nothing here is remembered: who needs the list scans again and again.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import ifaddr

from agent import exits
from agent.exits import AgentError
from agent.notation import parse_endpoint
from gossip.machine import Address

ADDRESSES_MAX = 8
"""What one node says of itself; more would crowd the datagrams that carry it."""

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - what is bound there is chosen by whoever configures


class Interface(NamedTuple):
    """One interface with its addresses, IPv4 first; a link-local IPv6 one carries its zone."""

    name: str
    number: int
    """The kernel's index of it."""
    addresses: tuple[str, ...]

    @property
    def is_loopback(self) -> bool:
        """Whether it leads nowhere but here."""
        return any(_parsed(host).is_loopback for host in self.addresses)


def scan() -> list[Interface]:
    """Return the interfaces that have an address right now."""
    found = []
    for adapter in ifaddr.get_adapters():
        hosts = [_host(each.ip, adapter.name) for each in adapter.ips]
        if hosts and adapter.index is not None:
            ordered = sorted(hosts, key=lambda host: _parsed(host).version)
            found.append(Interface(adapter.name, adapter.index, tuple(ordered)))
    return found


def choose(interfaces: Iterable[Interface], wanted: Sequence[str]) -> list[Interface]:
    """Return those that ``wanted`` names, by name or by address.

    Without ``wanted``: all but the loopback, or the loopback when there is nothing else. What is
    wanted and not there is left out: it may come later.
    """
    everything = list(interfaces)
    if wanted:
        return [each for each in everything if {each.name, *each.addresses} & set(wanted)]
    return [each for each in everything if not each.is_loopback] or everything


def multicast_handles(chosen: Iterable[Interface]) -> list[str | int]:
    """Return what zeroconf joins groups with.

    That is each IPv4 address, and the index of each interface that has IPv6. Loopback does IPv4
    only.
    """
    handles: list[str | int] = []
    for each in chosen:
        handles += [host for host in each.addresses if _parsed(host).version == 4]
        if not each.is_loopback and any(_parsed(host).version == 6 for host in each.addresses):
            handles.append(each.number)
    return handles


def own_addresses(
    chosen: Iterable[Interface], bind: Sequence[str], port: int, advertise: Sequence[str] = ()
) -> tuple[Address, ...]:
    """Return where the others reach this node: what ``advertise`` says, or all that is bound.

    An address that ``bind`` names counts wherever it is, the loopback included: whoever binds
    nothing else means it. Link-local IPv6 addresses are left out: they mean something else on
    each device. Their IPv4 kin come last. Raises AgentError when ``advertise`` holds something
    other than addresses.
    """
    if advertise:
        return tuple(_advertised(text, port) for text in advertise)
    present = [host for each in chosen for host in each.addresses if _is_bound(host, bind)]
    named = [host for host in bind if host not in WILDCARDS]
    bound = [host for host in (*present, *named) if "%" not in host and not _is_zoned(host)]
    ordered = sorted(bound, key=lambda host: _parsed(host).is_link_local)
    return tuple(Address(host, port) for host in dict.fromkeys(ordered))[:ADDRESSES_MAX]


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


def _host(ip: str | tuple[str, int, int], interface: str) -> str:
    if isinstance(ip, str):
        return ip
    return f"{ip[0]}%{interface}" if _parsed(ip[0]).is_link_local else ip[0]


def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host.partition("%")[0])
