"""Where a node may send a datagram at all, said a second time and differently.

``gossip/membership/model/addresses.py`` decides by asking ``ipaddress`` a few questions. Here
stands the list of what is forbidden, as networks, so that a mistake in one of them shows.
"""

import ipaddress
import string

from gossip.core.machine import Address

CHARACTERS = frozenset(string.ascii_letters + string.digits + ":.%-_")
FORBIDDEN = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/32",  # unspecified
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # nobody's, and the last one everybody's
        "::/128",
        "ff00::/8",
        "::ffff:0.0.0.0/128",  # the same, written as IPv6
        "::ffff:224.0.0.0/100",
        "::ffff:240.0.0.0/100",
    )
)


def may_be_sent_to(address: Address) -> bool:
    """Say whether this is one unicast address, and a port."""
    if not 0 < address.port < 2**16 or not set(address.host) <= CHARACTERS:
        return False
    host, _, _zone = address.host.partition("%")
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not any(parsed in network for network in FORBIDDEN if network.version == parsed.version)
