"""Datagram sockets: drained whole, never killed, bound together with TCP."""

import asyncio
import errno
import socket
import struct
from collections import Counter
from collections.abc import Iterator

import pytest

from agent import exits
from agent.exits import AgentError
from agent.net.icmp import EXTENDED_ERROR, IP_RECVERR, ORIGIN_ICMP, IcmpRefusals
from agent.net.sockets import (
    IP_MTU_DISCOVER,
    IP_PMTUDISC_DONT,
    Sockets,
    connected_to,
    family_of,
    open_sockets,
)
from agent.net.udp import DRAIN_MAX, UdpEndpoint
from gossip.core.machine import Address
from gossip.core.tuning import NARROW_PATH_BYTES, PACKET_BYTES_MAX, PATH_BYTES
from tests.support.patience import GIVE_UP_S

LONG = bytes(range(256))
"""As long as what we send: a refusal must quote enough of it."""
TIMESTAMP_BYTES = 12
"""TCP's option, which takes its room from the segments."""


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    opened = open_sockets(["127.0.0.1", "::1"], 0)
    yield opened
    opened.close()


@pytest.fixture
def endpoint(sockets: Sockets) -> UdpEndpoint:
    return UdpEndpoint(sockets.datagram, Counter())


def sender(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    fresh = socket.socket(family, socket.SOCK_DGRAM)
    fresh.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    fresh.settimeout(GIVE_UP_S)
    return fresh


def test_all_sockets_share_one_port(sockets: Sockets) -> None:
    ports = {each.getsockname()[1] for each in (*sockets.datagram, *sockets.stream)}
    assert ports == {sockets.port}
    assert len(sockets.datagram) == len(sockets.stream) == 2


def test_a_port_in_use_is_explained(sockets: Sockets) -> None:
    with pytest.raises(AgentError, match=f"port {sockets.port} .*in use") as caught:
        open_sockets(["127.0.0.1"], sockets.port)
    assert caught.value.status == exits.BAD_CONFIG
    assert caught.value.hint


def test_a_port_that_only_tcp_uses_is_in_use_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(AgentError, match="in use"):
            open_sockets(["127.0.0.1"], other.getsockname()[1])
        # and the datagram socket that was bound first is closed again
        with sender() as again:
            assert again


def test_an_address_that_is_not_here_is_skipped_unless_it_is_the_only_one() -> None:
    opened = open_sockets(["127.0.0.1", "192.0.2.77"], 0)
    assert len(opened.datagram) == 1
    opened.close()
    with pytest.raises(AgentError, match="none of the addresses") as caught:
        open_sockets(["192.0.2.77"], 0)
    assert caught.value.status == exits.NO, "its interface may come up: the service tries again"
    with pytest.raises(AgentError, match="not an IP address"):
        open_sockets(["localhost"], 0)


def test_drain_returns_everything_that_waits(endpoint: UdpEndpoint, sockets: Sockets) -> None:
    with sender() as one, sender(socket.AF_INET6) as two:
        for number in range(100):
            one.sendto(bytes([number]), ("127.0.0.1", sockets.port))
        two.sendto(b"six", ("::1", sockets.port))
        waiting = endpoint.drain()
        assert [data for data, _ in waiting] == [bytes([n]) for n in range(100)] + [b"six"]
        assert waiting[0][1] == Address("127.0.0.1", one.getsockname()[1])
        assert waiting[-1][1] == Address("::1", two.getsockname()[1])
    assert endpoint.drain() == []


def test_drain_is_bounded(endpoint: UdpEndpoint, sockets: Sockets) -> None:
    with sender() as one:
        for _ in range(DRAIN_MAX + 20):
            one.sendto(b"x", ("127.0.0.1", sockets.port))
        assert len(endpoint.drain()) == DRAIN_MAX
        assert len(endpoint.drain()) == 20


def test_it_sends_on_both_families(endpoint: UdpEndpoint, sockets: Sockets) -> None:
    with sender() as one, sender(socket.AF_INET6) as two:
        endpoint.send(b"four", Address("127.0.0.1", one.getsockname()[1]))
        endpoint.send(b"six", Address("::1", two.getsockname()[1]))
        assert one.recvfrom(100) == (b"four", ("127.0.0.1", sockets.port))
        assert two.recvfrom(100)[0] == b"six"
    assert endpoint.counts["datagrams/sent"] == 2


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        (Address("example.org", 7747), "not_an_address"),
        (Address("", 7747), "not_an_address"),
        (Address("127.0.0.1", 0), "send_failed"),
        (Address("127.0.0.1", 70000), "send_failed"),
        (Address("255.255.255.255", 7747), "send_failed"),
        (Address("ff02::1%nowhere", 7747), "send_failed"),
    ],
)
def test_what_cannot_be_sent_is_counted(endpoint: UdpEndpoint, to: Address, reason: str) -> None:
    endpoint.send(b"x", to)
    assert endpoint.counts[f"datagrams_dropped/{reason}"] == 1
    endpoint.send(bytes(70_000), Address("127.0.0.1", 7))
    assert endpoint.counts["datagrams_dropped/send_failed"] >= 1


def test_without_a_socket_of_the_family_it_is_counted() -> None:
    opened = open_sockets(["127.0.0.1"], 0)
    endpoint = UdpEndpoint(opened.datagram, Counter())
    endpoint.send(b"x", Address("::1", 7))
    assert endpoint.counts["datagrams_dropped/no_socket_of_that_family"] == 1
    opened.close()


def test_refusals_do_not_kill_the_socket(endpoint: UdpEndpoint, sockets: Sockets) -> None:
    with sender() as gone:
        port = gone.getsockname()[1]
    endpoint.send(LONG, Address("127.0.0.1", port))
    with sender() as alive:
        # The kernel now fails the next call on the socket, whichever it is; nothing is lost.
        endpoint.send(LONG, Address("127.0.0.1", alive.getsockname()[1]))
        assert alive.recvfrom(512)[0] == LONG
        alive.sendto(b"still here", ("127.0.0.1", sockets.port))
        assert [data for data, _ in endpoint.drain()] == [b"still here"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_refusal_tells_where_nobody_listens(endpoint: UdpEndpoint, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with sender(family) as gone:
        there = Address(host, gone.getsockname()[1])
    endpoint.send(LONG, there)
    assert endpoint.drain() == []
    assert endpoint.refusals() == [there]
    assert endpoint.refusals() == [], "each is told once"


def test_where_somebody_listens_nothing_is_refused(endpoint: UdpEndpoint) -> None:
    with sender() as there:
        endpoint.send(LONG, Address("127.0.0.1", there.getsockname()[1]))
        endpoint.drain()
        assert endpoint.refusals() == []


def refusal(host: str, *, origin: int = ORIGIN_ICMP, code: int = 3) -> tuple[int, int, bytes]:
    """What the kernel tells beside a quote: a sock_extended_err, and a sockaddr_in."""
    error = EXTENDED_ERROR.pack(errno.ECONNREFUSED, origin, 3, code, 0, 0, 0)
    offender = struct.pack("=HH", socket.AF_INET, 0) + socket.inet_aton(host) + bytes(8)
    return socket.IPPROTO_IP, IP_RECVERR, error + offender


class Reported:
    """A socket with one report on its error queue."""

    def __init__(self, quote: bytes, ancillary: tuple[int, int, bytes], to: Address) -> None:
        self.reports = [(quote, [ancillary], 0, (to.host, to.port))]

    def recvmsg(self, *_: int) -> object:
        if not self.reports:
            raise BlockingIOError
        return self.reports.pop()


@pytest.mark.parametrize(
    ("quote", "ancillary", "told"),
    [
        (LONG, refusal("192.0.2.7"), True),
        (LONG[:100], refusal("192.0.2.7"), True),
        (LONG[:8], refusal("192.0.2.7"), False),
        (b"", refusal("192.0.2.7"), False),
        (bytes(200), refusal("192.0.2.7"), False),
        (LONG, refusal("192.0.2.1"), False),
        (LONG, refusal("192.0.2.7", code=1), False),
        (LONG, refusal("192.0.2.7", origin=1), False),
        (LONG, (socket.IPPROTO_IP, IP_RECVERR, b"short"), False),
        (LONG, (socket.IPPROTO_IP, 2, bytes(64)), False),
    ],
)
def test_only_the_host_itself_is_believed_and_only_with_a_quote(
    quote: bytes, ancillary: tuple[int, int, bytes], *, told: bool
) -> None:
    there, counts = Address("192.0.2.7", 7747), Counter[str]()
    refusals = IcmpRefusals(counts)
    refusals.record_sent(LONG, there)
    source = Reported(quote, ancillary, there)
    assert refusals.read(source) == ([there] if told else [])  # type: ignore[arg-type]
    assert counts.total() == (0 if told else 1)
    again = Reported(quote, ancillary, there)
    assert refusals.read(again) == [], "a datagram is refused once"  # type: ignore[arg-type]


def test_a_socket_that_only_fails_does_not_hold_the_loop() -> None:
    class Broken:
        family = socket.AF_INET
        calls = 0

        def recvfrom(self, _size: int) -> tuple[bytes, tuple[str, int]]:
            self.calls += 1
            raise OSError(errno.ECONNREFUSED, "refused")

        def recvmsg(self, *_: int) -> tuple[bytes, list[object], int, tuple[str, int]]:
            raise BlockingIOError

        def setsockopt(self, *_: int) -> None:
            raise OSError(errno.ENOPROTOOPT, "no such option here")

    broken = Broken()
    endpoint = UdpEndpoint([broken], Counter())  # type: ignore[list-item]
    assert endpoint.drain() == []
    assert broken.calls == DRAIN_MAX


def test_readers_are_called_until_stopped(endpoint: UdpEndpoint, sockets: Sockets) -> None:
    async def scenario() -> None:
        arrived = asyncio.Event()
        got: list[bytes] = []

        def on_readable() -> None:
            got.extend(data for data, _ in endpoint.drain())
            arrived.set()

        endpoint.start(on_readable)
        with sender() as one:
            one.sendto(b"x", ("127.0.0.1", sockets.port))
            await asyncio.wait_for(arrived.wait(), GIVE_UP_S)
        endpoint.stop()
        endpoint.stop()
        assert got == [b"x"]

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("path_bytes", [PATH_BYTES, NARROW_PATH_BYTES])
def test_whoever_bounds_its_segments_bounds_both_directions(host: str, path_bytes: int) -> None:
    """Loopback would carry 64 KiB in one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    wanted = path_bytes - {socket.AF_INET: 40, socket.AF_INET6: 60}[family]

    async def scenario() -> None:
        with socket.create_server((host, 0), family=family) as unbounded:
            here = await connected_to(host, unbounded.getsockname()[1], path_bytes)
            there, _ = unbounded.accept()
            for end in (here, there):
                with end:
                    found = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
                    assert wanted - TIMESTAMP_BYTES <= found <= wanted

    asyncio.run(scenario())


def test_listening_sockets_bound_the_segments_of_whoever_dials(sockets: Sockets) -> None:
    for listening in sockets.stream:
        with socket.socket(listening.family, socket.SOCK_STREAM) as unbounded:
            unbounded.connect(listening.getsockname()[:2])
            segment = unbounded.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            assert 1000 < segment <= PATH_BYTES - 40


def test_datagrams_fit_a_path_and_may_be_cut_on_a_narrower_one(sockets: Sockets) -> None:
    assert PACKET_BYTES_MAX + 40 + 8 <= 1280, "the least that IPv6 promises"
    for each in sockets.datagram:
        if each.family == socket.AF_INET:
            assert each.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_DONT


def test_families_of_literals() -> None:
    assert family_of("127.0.0.1") == socket.AF_INET
    assert family_of("fe80::1%eth0") == socket.AF_INET6
    assert family_of("pi.local") is None
