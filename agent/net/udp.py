"""Datagrams in and out, without asyncio's transport, for the sake of one rule.

A stock asyncio endpoint reads one datagram per turn of the loop, while every timer that is due
fires in that same turn. After a pause, a failure detector on top of it looks at its deadlines
first and at what had already arrived later, and accuses healthy peers. So the sockets are watched
with ``add_reader`` and *drained*: ``drain()`` returns all that waits, up to a bound, and the
driver calls it before it lets any timer act.

No error of a socket ends anything: a route that went away or a full send buffer costs the
datagram, which may always be lost. It is counted. That a host refused a datagram (``icmp.py``)
is news, and is told behind the datagrams that arrived before it.
"""

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from agent.net.icmp import IcmpRefusals, enable_refusals
from agent.net.sockets import family_of, host_of
from gossip.core.machine import Address

DRAIN_MAX = 512
"""Datagrams per call: 20 ms of work, so that a flood cannot keep the timers from acting."""
DATAGRAM_BYTES_MAX = 2048
"""Larger than any packet of ours (``core/tuning.py``); the kernel cuts off the rest, and what
is cut does not open."""
WRONG_SOCKET = {errno.EINVAL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}

literal_family = lru_cache(4096)(family_of)


class UdpEndpoint:
    """The bound datagram sockets of one agent; closing them stays with whoever opened them."""

    def __init__(self, sockets: Sequence[socket.socket], counts: Counter[str]) -> None:
        self.counts = counts
        self._sockets = tuple(sockets)
        self._refusals = IcmpRefusals(counts)
        self._refused: list[Address] = []
        for each in self._sockets:
            enable_refusals(each)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, on_readable: Callable[[], None]) -> None:
        """Call back whenever datagrams wait, until ``stop``."""
        self._loop = asyncio.get_running_loop()
        for each in self._sockets:
            self._loop.add_reader(each.fileno(), on_readable)

    def stop(self) -> None:
        """Call back no more. Harmless when called twice."""
        if self._loop is not None:
            for each in self._sockets:
                self._loop.remove_reader(each.fileno())
        self._loop = None

    def drain(self) -> list[tuple[bytes, Address]]:
        """Return what waits, in order of arrival on each socket; at most 512 on each."""
        waiting: list[tuple[bytes, Address]] = []
        for each in self._sockets:
            self._drain_one(each, waiting)
        self.counts["datagrams/received"] += len(waiting)
        return waiting

    def refusals(self) -> list[Address]:
        """Return where nobody received what we sent, as far as ``drain`` has read."""
        refused, self._refused = self._refused, []
        return refused

    def _drain_one(self, source: socket.socket, waiting: list[tuple[bytes, Address]]) -> None:
        # First: until they are read, refusals make every other call on the socket fail.
        self._refused += self._refusals.read(source)
        for _ in range(DRAIN_MAX):
            try:
                data, name = source.recvfrom(DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                # What became of something that we sent earlier (ICMP); the socket is fine.
                self._refused += self._refusals.read(source)
                continue
            waiting.append((data, Address(host_of(*name), name[1])))

    def send(self, data: bytes, to: Address) -> None:
        """Send once; never blocks, never raises. What could not be sent is counted."""
        family = literal_family(to.host)
        if family is None:  # a name would be looked up, and the loop would stand still
            self.counts["datagrams_dropped/not_an_address"] += 1
            return
        reason = "no_socket_of_that_family"
        for each in self._sockets:
            if each.family != family:
                continue
            try:
                self._send_on(each, data, to)
            except BlockingIOError:
                reason = "send_buffer_full"
                break
            except (OSError, OverflowError) as error:
                reason = "send_failed"
                # One that is bound to a single address may not reach where another does.
                if getattr(error, "errno", None) in WRONG_SOCKET:
                    continue
                break
            self.counts["datagrams/sent"] += 1
            self._refusals.record_sent(data, to)
            return
        self.counts[f"datagrams_dropped/{reason}"] += 1

    def _send_on(self, through: socket.socket, data: bytes, to: Address) -> None:
        try:
            through.sendto(data, (to.host, to.port))
        except BlockingIOError:
            raise
        except OSError:
            # Perhaps not about this datagram: a socket that hears of refusals reports what became
            # of an earlier one, once, by failing the next call.
            through.sendto(data, (to.host, to.port))
