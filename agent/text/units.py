"""How people write durations and endpoints, in files, variables and on the command line.

Durations are read by ``edge_apps/units.py``, for apps write them too.

An endpoint is a host and a port: ``pi.local:7747``, ``10.0.0.7``, ``[fe80::1%eth0]:7747``. An
IPv6 address with a port needs its brackets (RFC 3986, section 3.2.2); without a port it may
stand bare.
"""

import ipaddress

from edge_apps.units import UNITS_S

PORT_MAX = 65535


def format_duration(seconds: float) -> str:
    """Write a duration for people, in its two largest units.

    >>> format_duration(0.25), format_duration(5400), format_duration(90061)
    ('250ms', '1h30m', '1d1h')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    rest = int(seconds)
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(UNITS_S[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def counted(number: int, noun: str) -> str:
    """Write so many of something.

    >>> counted(1, "member"), counted(2, "member"), counted(0, "reading")
    ('1 member', '2 members', '0 readings')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def parse_endpoint(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Split an endpoint into host and port.

    Raises ValueError for a port that is missing without default, or out of range.

    >>> parse_endpoint("[fe80::1]:80"), parse_endpoint("pi.local", 7747)
    (('fe80::1', 80), ('pi.local', 7747))
    """
    _check_no_scheme(text)
    host, port_text = _split(text.strip())
    if not host:
        raise ValueError(f"{text!r} names no host; write HOST:PORT")
    if not port_text:
        if default_port is None:
            raise ValueError(f"{text!r} names no port; write HOST:PORT")
        return host, default_port
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) <= PORT_MAX):
        raise ValueError(f"{text!r}: a port is a number from 1 to {PORT_MAX}")
    return host, int(port_text)


def check_host(text: str) -> None:
    """Refuse what is more or less than a name or an address. Raises ValueError.

    >>> check_host("broker.lan"), check_host("2001:db8::1")
    (None, None)
    """
    _check_no_scheme(text)
    if any(character.isspace() or character in "/[]@" for character in text):
        raise ValueError(f"{text!r} is no name or address of a host; write it alone")
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        raise ValueError(f"{text!r} has a port: write {host!r} here, and port = {port or 'NUMBER'}")


def check_address(text: str) -> None:
    """Refuse what is no IP address. Raises ValueError."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address; names and interfaces are none") from None


def _check_no_scheme(text: str) -> None:
    scheme, mark, rest = text.partition("://")
    if mark:
        raise ValueError(
            f"{text!r} begins with {scheme}{mark} as a URL does; write {rest.rstrip('/')!r} alone, "
            "what is spoken there is known or a setting of its own"
        )


def _split(text: str) -> tuple[str, str]:
    """Return host and the port's digits, which are empty when there is no port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r}: write an IPv6 address with a port as [ADDRESS]:PORT")
        return host, rest[1:]
    if text.count(":") > 1:  # a bare IPv6 address
        return text, ""
    host, _, port = text.partition(":")
    return host, port
