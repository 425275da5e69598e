"""Addresses that others wrote never end the agent that is to send there."""

import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from agent.net.sockets import family_of, host_of
from agent.net.udp import UdpEndpoint
from gossip.core.machine import Address
from tests.fuzz.hostile import HOSTS, PORTS


@pytest.fixture
def endpoint() -> Iterator[UdpEndpoint]:
    made = []
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        each = socket.socket(family, socket.SOCK_DGRAM)
        each.setblocking(False)
        each.bind((host, 0))
        made.append(each)
    yield UdpEndpoint(made, Counter())
    for each in made:
        each.close()


@pytest.mark.parametrize("host", HOSTS)
def test_a_datagram_to_any_place_is_sent_or_counted(endpoint: UdpEndpoint, host: str) -> None:
    for port in PORTS:
        before = sum(endpoint.counts.values())
        endpoint.send(b"", Address(host, port))
        assert sum(endpoint.counts.values()) == before + 1


@pytest.mark.parametrize("host", ["fe80::1%\x00", "fe80::1%ä", "fe80::1%a\nb", "10.0.0.1\x00"])
def test_a_zone_that_no_interface_can_have_is_no_address(host: str) -> None:
    """``ipaddress`` takes them; ``sendto`` answers with what is no OSError."""
    assert family_of(host) is None


def test_the_zone_of_a_link_local_source_is_told_by_name() -> None:
    assert host_of("fe80::1", 7747, 0, socket.if_nametoindex("lo")) == "fe80::1%lo"
    assert host_of("fe80::1%lo", 7747, 0, 1) == "fe80::1%lo"
    assert host_of("2001:db8::1", 7747, 0, 0) == "2001:db8::1"
    assert host_of("192.0.2.1", 7747) == "192.0.2.1"
    assert host_of("fe80::1", 7747, 0, 2**31 - 1) == "fe80::1", "an interface that went away"


def test_zones_of_interfaces_are_addresses() -> None:
    assert family_of("fe80::1%eth0.100") is socket.AF_INET6
    assert family_of("192.0.2.1") is socket.AF_INET
