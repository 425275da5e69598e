"""Which addresses a claim may make us send to.

An address in a rumour was written by somebody else. We send to literal unicast addresses only: a
name would make the runtime ask a DNS server, a multicast or broadcast address would turn a rumour
into an amplifier, and a link-local address means something else on each device that reads it.
"""

import functools
import ipaddress
from collections.abc import Iterable

from gossip.machine import Address

PORT_MAX = 65535
HOST_CHARACTERS_MAX = 64


@functools.lru_cache(maxsize=4096)
def _is_unicast(host: str) -> bool:
    if len(host) > HOST_CHARACTERS_MAX:
        return False
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (parsed.is_multicast or parsed.is_unspecified or host == "255.255.255.255")


def is_usable(address: Address) -> bool:
    """Say whether we may send to this address at all.

    >>> is_usable(Address("192.0.2.7", 7747)), is_usable(Address("example.org", 7747))
    (True, False)
    """
    return 0 < address.port <= PORT_MAX and _is_unicast(address.host)


def is_gossiped(address: Address) -> bool:
    """Say whether the address means the same to all members: usable, and without a zone."""
    return is_usable(address) and "%" not in address.host


def only_gossiped(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Return those of the addresses that may stand in a rumour, each once, in their order."""
    return tuple(dict.fromkeys(address for address in addresses if is_gossiped(address)))
