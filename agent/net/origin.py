"""Who counts as one stranger, where what a stranger may cost us has a ceiling.

An open port on a LAN sees broken clients, scanners and worse. Everything that somebody without
credentials can cause has a ceiling, each thing that is turned away is counted, and the log is told
of it by a ``RateLimitedLog`` (``agent/config/logs.py``).
"""

import ipaddress

IPV6_SITE_BITS = 64
"""A host on IPv6 has a whole /64 to dial from, so that counts as one address."""


def origin_of(host: str) -> str:
    """Return what a limit for each address counts: the IPv4 address, or the IPv6 /64."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, IPV6_SITE_BITS), strict=False).network_address)
