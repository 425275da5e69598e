"""A service that a device offers to others, as people write it: ``HOST:PORT/PROTOCOL``.

``":1883/mqtt"`` is a broker on this device: without a host, it is wherever the members find the
device. ``"10.0.0.7:502/modbus"`` is what the device speaks for, such as a machine behind it. An
IPv6 address stands in brackets, as with every endpoint (``agent/text/units.py``). The protocol is
the word that whoever looks for the service knows it by; nobody else reads it.
"""

import ipaddress
import re
from typing import NamedTuple

from agent.text.units import parse_endpoint

_PROTOCOL = re.compile(r"[a-z0-9][a-z0-9+.-]{0,31}")
_HERE = "this-device"


class ServiceAddress(NamedTuple):
    """Where a service is, and what it speaks. An empty host is the device that offers it."""

    host: str
    port: int
    protocol: str

    def __str__(self) -> str:
        """Write it as it is read."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.protocol}"


def parse_service(text: str) -> ServiceAddress:
    """Read a service. Raises ValueError, saying how one is written.

    >>> parse_service(":1883/mqtt"), str(parse_service("[fd00::7]:502/modbus"))
    (Service(host='', port=1883, protocol='mqtt'), '[fd00::7]:502/modbus')
    """
    endpoint, slash, protocol = text.rpartition("/")
    if not slash or not _PROTOCOL.fullmatch(protocol):
        raise ValueError(
            f"{text[:80]!r} is no service; write HOST:PORT/PROTOCOL, such as ':1883/mqtt', with a "
            "protocol of lower-case letters, digits, '+', '-' and '.'"
        )
    is_here = endpoint.startswith(":") and not endpoint.startswith("::")
    host, port = parse_endpoint(f"{_HERE}{endpoint}" if is_here else endpoint)
    if any(letter.isspace() for letter in endpoint):
        raise ValueError(f"{text[:80]!r}: there is a blank in the host or the port")
    return ServiceAddress("" if is_here else host, port, protocol)


def service_of_api(listen: str, *, tls: bool = False) -> str:
    """Return the HTTP API that listens there, as a service; empty when no other device reaches it.

    An API on every address is on those that the others have of the device anyway.
    """
    if not listen:
        return ""
    host, port = parse_endpoint(listen)
    kind = "https" if tls else "http"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "" if host == "localhost" else str(ServiceAddress(host, port, kind))
    if address.is_loopback:
        return ""
    return str(ServiceAddress("" if address.is_unspecified else host, port, kind))
