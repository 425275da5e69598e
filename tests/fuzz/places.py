"""Where a node may send a datagram at all, said a second time and differently.

``gossip/membership/addresses.py`` decides by asking ``ipaddress`` a few questions. Here stands the
list of what is forbidden, as networks, so that a mistake in one of them shows.
"""

import ipaddress

from gossip.machine import Address

FORBIDDEN = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/32",  # unspecified
        "224.0.0.0/4",  # multicast
        "255.255.255.255/32",  # broadcast
        "::/128",
        "ff00::/8",
    )
)


def may_be_sent_to(address: Address) -> bool:
    """Say whether this is one unicast address, and a port."""
    if not 0 < address.port < 2**16:
        return False
    host, _, _zone = address.host.partition("%")
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not any(parsed in network for network in FORBIDDEN if network.version == parsed.version)
