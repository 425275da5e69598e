"""Refusals: what a host answers when a datagram finds nobody at its port (ICMP, ICMPv6).

Linux keeps such answers beside a socket that asks for them (``IP_RECVERR``, ip(7)), with the
address that the datagram was for, the host that refused it, and the beginning of the datagram as
the answer quotes it. A refusal is the one sign by which a host says that a process is gone, so it
is worth forging, and nothing in ICMP is sealed. Two things are therefore asked of one:

* it comes from the host that the datagram was for: what a router rejects says nothing about the
  process behind it;
* it quotes a datagram that we sent there not long ago, further than its guessable beginning, and
  each datagram counts once. Only somebody who sees our packets can do that.

What is still believed wrongly is contained by ``gossip/membership/detection/crash_detector.py``.
"""

import contextlib
import errno
import socket
import struct
from collections import Counter, OrderedDict

from agent.net.sockets import SocketName, host_of
from gossip.core.machine import Address

# linux/in.h, linux/in6.h, linux/errqueue.h: Python's socket module does not name them.
IP_RECVERR, IPV6_RECVERR = 11, 25
EXTENDED_ERROR = struct.Struct("=IBBBBII")
ORIGIN_ICMP, ORIGIN_ICMP6 = 2, 3
PORT_UNREACHABLE = {(ORIGIN_ICMP, 3, 3), (ORIGIN_ICMP6, 1, 4)}
"""(origin, type, code): RFC 792 and RFC 4443."""

QUOTED_BYTES = 48
"""How much of a datagram must be quoted: its header with the counter, and sealed bytes, which
nobody guesses. Linux quotes some 500 bytes; who quotes the 8 of RFC 792 is not believed."""
SENT_KEPT = 1024
QUOTE_BYTES_MAX, ANCILLARY_BYTES_MAX = 128, 512
DRAIN_MAX = 256


def enable_refusals(of: socket.socket) -> None:
    """Ask the kernel to keep refusals of what this socket sends.

    Where it cannot, deaths are noticed by silence alone, which takes longer.
    """
    with contextlib.suppress(OSError):
        if of.family == socket.AF_INET6:
            of.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            of.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


class IcmpRefusals:
    """Reads refusals off sockets, and tells which are to be believed."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._sent: OrderedDict[bytes, Address] = OrderedDict()

    def record_sent(self, data: bytes, to: Address) -> None:
        """Remember a datagram for as long as its refusal may take."""
        self._sent[data[:QUOTED_BYTES]] = to
        if len(self._sent) > SENT_KEPT:
            self._sent.popitem(last=False)

    def read(self, source: socket.socket) -> list[Address]:
        """Return where nobody received what we sent there, as its own host says."""
        found: list[Address] = []
        for _ in range(DRAIN_MAX):
            try:
                quote, ancillary, _flags, to = source.recvmsg(
                    QUOTE_BYTES_MAX, ANCILLARY_BYTES_MAX, socket.MSG_ERRQUEUE
                )
            except OSError:  # BlockingIOError when there is no more
                break
            address = self._judge(quote, ancillary, to)
            if address is not None:
                found.append(address)
        return found

    def _judge(
        self, quote: bytes, ancillary: list[tuple[int, int, bytes]], to: SocketName
    ) -> Address | None:
        refuser = next(filter(None, map(_refuser, ancillary)), None)
        if refuser is None:
            self._counts["datagrams/socket_errors"] += 1
        elif not to or refuser != host_of(*to):
            self._counts["icmp_refusals_ignored/not_by_the_host_itself"] += 1
        elif (sent_to := self._sent.pop(quote[:QUOTED_BYTES], None)) is None:
            self._counts["icmp_refusals_ignored/no_quote_of_ours"] += 1
        else:
            return sent_to
        return None


def _refuser(ancillary: tuple[int, int, bytes]) -> str | None:
    """Return which host says that nobody uses the port; None for any other error."""
    _level, kind, data = ancillary
    if kind not in (IP_RECVERR, IPV6_RECVERR) or len(data) < EXTENDED_ERROR.size:
        return None
    number, origin, icmp_type, icmp_code, *_ = EXTENDED_ERROR.unpack_from(data)
    if number != errno.ECONNREFUSED or (origin, icmp_type, icmp_code) not in PORT_UNREACHABLE:
        return None
    return _host(data[EXTENDED_ERROR.size :])


def _host(offender: bytes) -> str | None:
    """Read the host out of a sockaddr_in or sockaddr_in6."""
    if len(offender) < 8:
        return None
    (family,) = struct.unpack_from("=H", offender)
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, offender[4:8])
    if family != socket.AF_INET6 or len(offender) < 28:
        return None
    host = socket.inet_ntop(socket.AF_INET6, offender[8:24])
    (zone,) = struct.unpack_from("=I", offender, 24)
    try:
        return f"{host}%{socket.if_indextoname(zone)}" if zone else host
    except OSError:  # the interface went away meanwhile
        return None
