"""One port number for datagrams and streams, on every address that we were told to bind.

UDP and TCP share the number, so that one firewall rule and one advertised address are enough.
IPv4 and IPv6 get sockets of their own (``IPV6_V6ONLY``): mapped addresses would make one peer
look like two. A machine without IPv6 is no error as long as something could be bound.

Nothing that we send is larger than a path has to carry (``gossip/core/tuning.py``), because nobody
tells who sends too much: the ICMP messages by which a path names its size (RFC 1191) are what
firewalls and tunnels lose first. TCP gets the bound as its largest segment, which each side tells
the other in its first packet, so the one that bounds it bounds both. Datagrams by IPv4 go out
without "don't fragment": they are small enough, and where a path is narrower still, a router that
cuts one in two is better than one that drops it; every datagram is sealed, so pieces cannot be
mixed up.
"""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Sequence

from agent import exits
from agent.exits import AgentError
from gossip.core.tuning import PATH_BYTES

ATTEMPTS_MAX = 32
BACKLOG = 1024
"""Connections that wait to be accepted: members and strangers wait in the same queue."""
RECEIVE_BUFFER_BYTES = 1024 * 1024
"""Some 700 full datagrams: what arrives while the process is paused is heard afterwards. The
kernel silently gives less where ``net.core.rmem_max`` says so."""
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0
"""linux/in.h; Python's socket module does not name them."""
IP_AND_TCP_BYTES = {socket.AF_INET: 20 + 20, socket.AF_INET6: 40 + 20}
"""The headers in front of a segment, without TCP's options, which count as its content."""
NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV, errno.EPROTONOSUPPORT}

log = logging.getLogger(__name__)


SocketName = tuple[str, int] | tuple[str, int, int, int]
"""Host and port, and for IPv6 the flow and the number of the zone."""


class Sockets:
    """Bound, non-blocking sockets; ``port`` is the number that all of them have."""

    def __init__(self, datagram: list[socket.socket], stream: list[socket.socket]) -> None:
        assert datagram, "open_sockets raises rather than bind nothing"
        self.datagram, self.stream = datagram, stream
        self.port: int = datagram[0].getsockname()[1]

    def close(self) -> None:
        """Close all of them."""
        for each in (*self.datagram, *self.stream):
            each.close()


def open_sockets(bind: Sequence[str], port: int) -> Sockets:
    """Bind UDP and TCP on all addresses; port 0 picks a number that is free for both.

    Raises AgentError when the port is in use, not permitted, or no address exists.
    """
    for _ in range(ATTEMPTS_MAX if port == 0 else 1):
        try:
            return _bind_all(bind, port)
        except OSError as error:
            failure = error
    raise _explain(failure, bind, port)


def _bind_all(bind: Sequence[str], port: int) -> Sockets:
    """Bind all that exist to one number. Raises OSError, with nothing left open."""
    with contextlib.ExitStack() as opened:
        datagram: list[socket.socket] = []
        stream: list[socket.socket] = []
        for host in bind:
            try:
                datagram.append(opened.enter_context(_bound(host, port, socket.SOCK_DGRAM)))
            except OSError as error:
                if error.errno not in NO_SUCH_ADDRESS:
                    raise
                log.warning("cannot bind %s (%s): going on without it", host, error.strerror)
                missing = error
                continue
            port = datagram[-1].getsockname()[1]
            stream.append(opened.enter_context(_bound(host, port, socket.SOCK_STREAM)))
        if not datagram:
            raise missing
        opened.pop_all()
        return Sockets(datagram, stream)


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = family_of(host)
    if family is None:
        raise AgentError(
            f"cannot bind {host!r}: it is not an IP address; nothing was started.",
            hint="Write addresses, not names, into [network] bind.",
            status=exits.BAD_CONFIG,
        )
    fresh = socket.socket(family, kind)
    try:
        fresh.settimeout(0)
        if family == socket.AF_INET6:
            fresh.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound_segments(fresh, PATH_BYTES)
        else:
            fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if family == socket.AF_INET:
                fresh.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        fresh.bind((host, port))
        if kind == socket.SOCK_STREAM:
            fresh.listen(BACKLOG)
    except BaseException:
        fresh.close()
        raise
    return fresh


def bound_segments(of: socket.socket, path_bytes: int) -> None:
    """Let a socket that is not connected yet send and ask for no larger IP packets than these."""
    segment_bytes = path_bytes - IP_AND_TCP_BYTES[of.family]
    of.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment_bytes)


async def connected_to(host: str, port: int, path_bytes: int) -> socket.socket:
    """Return a stream socket that is connected to a literal address. Raises OSError."""
    family = family_of(host)
    assert family is not None, "whoever dials has looked whether it is an address"
    fresh = socket.socket(family, socket.SOCK_STREAM)
    try:
        fresh.settimeout(0)
        bound_segments(fresh, path_bytes)
        await asyncio.get_running_loop().sock_connect(fresh, (host, port))
    except BaseException:
        fresh.close()
        raise
    return fresh


def host_of(host: str, _port: int = 0, _flow: int = 0, zone: int = 0) -> str:
    """Return the host of a socket's address as text; with its zone, by name, if it is link-local.

    Sockets and event loops tell the zone as a number beside the host, and rarely in it.
    """
    if not zone or "%" in host:
        return host
    try:
        return f"{host}%{socket.if_indextoname(zone)}"
    except OSError:  # the interface went away meanwhile, and nothing is reached there
        return host


def family_of(host: str) -> socket.AddressFamily | None:
    """Return the family of a literal address, with or without zone; None for anything else.

    A zone may hold any character by ``ipaddress``, and what the socket makes of a NUL or a letter
    that is not ASCII is no OSError; no interface of Linux has such a name.
    """
    if not (host.isascii() and host.isprintable()):
        return None
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _explain(error: OSError, bind: Sequence[str], port: int) -> AgentError:
    where = f"port {port} on {', '.join(bind)}"
    if error.errno == errno.EADDRINUSE:
        return AgentError(
            f"{where} is in use by another process; nothing was started.",
            hint="Is an agent running already? `ss -tulpn` shows whose port it is. For another "
            "one, set port in [network], or COVEY_NETWORK__PORT.",
            status=exits.BAD_CONFIG,
        )
    if error.errno in NO_SUCH_ADDRESS:  # starting again helps: an interface may come up later
        return AgentError(
            f"this machine has none of the addresses to bind ({where}); nothing was started.",
            hint="Check [network] bind: `ip address` lists what there is. The service tries again "
            "until one of them is there.",
            status=exits.NO,
        )
    return AgentError(
        f"cannot bind {where}: {error.strerror}; nothing was started.",
        hint="Check [network] bind and port: addresses must be this machine's own, and ports "
        "below 1024 need a privilege.",
        status=exits.BAD_CONFIG,
    )
