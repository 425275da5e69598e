"""Which addresses an update may make us send to.

An address in an update was written by somebody else. We send to literal unicast addresses only: a
name would make the runtime ask a DNS server, a multicast or broadcast address would turn an update
into an amplifier, and a link-local address means something else on each device that reads it.
"""

import functools
import ipaddress
from collections.abc import Iterable

from gossip.core.machine import Address

PORT_MAX = 65535
NOBODYS = ipaddress.ip_network("240.0.0.0/4")
"""No unicast addresses, and the last of them is that of everybody."""
HOST_CHARACTERS_MAX = 64


@functools.lru_cache(maxsize=4096)
def _is_unicast(host: str) -> bool:
    if len(host) > HOST_CHARACTERS_MAX:
        return False
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return False
    # An IPv6 address may hold an IPv4 one (::ffff:224.0.0.1), and a zone any character at all.
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    odd = parsed.is_multicast or parsed.is_unspecified or parsed in NOBODYS
    return host.isascii() and host.isprintable() and not odd


@functools.lru_cache(maxsize=4096)
def _is_local(host: str) -> bool:
    """Say whether each device reads this address as another place, with or without a zone."""
    return "%" in host or (":" in host and ipaddress.ip_address(host).is_link_local)


def is_usable(address: Address) -> bool:
    """Say whether we may send to this address at all.

    >>> is_usable(Address("192.0.2.7", 7747)), is_usable(Address("example.org", 7747))
    (True, False)
    """
    return 0 < address.port <= PORT_MAX and _is_unicast(address.host)


def is_gossiped(address: Address) -> bool:
    """Say whether the address means the same to all members: usable, and without a zone."""
    return is_usable(address) and not _is_local(address.host)


def only_gossiped(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Return those of the addresses that may stand in an update, each once, in their order."""
    return tuple(dict.fromkeys(address for address in addresses if is_gossiped(address)))
