"""What a stranger may cost us: connections, and lines in the log.

An open port on a LAN sees broken clients, scanners and worse. Everything that somebody without
credentials can cause has a ceiling, and each thing that is turned away is counted. The log gets one
line a minute of each kind, with the number of those that it stands for: a full disk would be a fine
success for an attacker.
"""

import ipaddress
import logging
import time
from collections.abc import Callable

QUIET_S = 60.0
KINDS_MAX = 256
IPV6_SITE_BITS = 64
"""A host on IPv6 has a whole /64 to dial from, so that counts as one address."""


def origin_of(host: str) -> str:
    """Return what a limit for each address counts: the IPv4 address, or the IPv6 /64."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, IPV6_SITE_BITS), strict=False).network_address)


class RateLimitedLog:
    """A log that says each kind of thing at most once a minute, and how often it was silent."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def warning(self, kind: str, text: str, *arguments: object) -> None:
        """Log a warning unless one of this kind was logged within the last minute."""
        now = self._clock()
        said_at, silent = self._kinds.get(kind, (-QUIET_S, 0))
        if now - said_at < QUIET_S:
            self._kinds[kind] = (said_at, silent + 1)
            return
        if len(self._kinds) >= KINDS_MAX:
            self._kinds.clear()
        self._kinds[kind] = (now, 0)
        more = f" (and {silent} more like it)" if silent else ""
        self._log.warning(text + "%s", *arguments, more)
