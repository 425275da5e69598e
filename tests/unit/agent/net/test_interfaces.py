"""Which of a device's addresses are told: those that lead to it, and not those that all have."""

import errno
import socket
import struct
from collections.abc import Iterable

import pytest

from agent.net import netlink
from agent.net.interfaces import (
    ADDRESSES_MAX,
    MULTICAST_MAX,
    Interface,
    _interfaces,
    all_addresses,
    choose,
    link_local_addresses,
    multicast_plugs,
    own_addresses,
)
from agent.net.netlink import Link, LinkAddress
from gossip.core.machine import Address

EVERY = ["0.0.0.0", "::"]
PORT = 7747
ETH, WG = 400, 401


def link(number: int, name: str, kind: str = "", port_of: int = 0, *, carrier: bool = True) -> Link:
    return Link(number, name, True, carrier, 1500, kind, port_of, 1)


def at(number: int, *hosts: str, ready: bool = True, temporary: bool = False) -> list[LinkAddress]:
    return [LinkAddress(number, host, ready, temporary) for host in hosts]


def docker(bridges: int) -> tuple[list[Link], list[LinkAddress]]:
    """Return bridges as Docker makes them, each with a container behind it."""
    links, addresses = [], []
    for n in range(bridges):
        number = 2 + 2 * n
        links += [link(number, f"br{n}", "bridge"), link(number + 1, f"v{n}", "veth", number)]
        addresses += at(number, f"172.{17 + n}.0.1") + at(number + 1, f"fe80::{n + 1}")
    return links, addresses


def device(
    links: Iterable[Link], addresses: Iterable[LinkAddress], routes: dict[int, int] | None = None
) -> list[Interface]:
    everything = [link(1, "lo"), *links]
    known = [*at(1, "127.0.0.1", "::1"), *addresses]
    return list(_interfaces(everything, known, {ETH: 100} if routes is None else routes))


def told(interfaces: list[Interface], *wanted: str) -> list[str]:
    return [each.host for each in own_addresses(choose(interfaces, wanted), EVERY, PORT)]


def test_nine_bridges_before_the_card_are_not_told() -> None:
    links, addresses = docker(9)
    here = device([*links, link(ETH, "eth0")], [*addresses, *at(ETH, "192.0.2.2", "fe80::2")])
    assert told(here) == ["192.0.2.2"]


def test_what_is_told_of_docker_is_told_when_somebody_asks_for_it() -> None:
    links, addresses = docker(1)
    here = device([*links, link(ETH, "eth0")], [*addresses, *at(ETH, "192.0.2.2")])
    assert told(here, "br0", "eth0") == ["192.0.2.2", "172.17.0.1"]


def test_without_any_other_network_containers_are_all_there_is() -> None:
    links, addresses = docker(1)
    assert told(device(links, addresses, {})) == ["172.17.0.1"]


def test_a_card_whose_cable_is_out_is_told_rather_than_a_private_bridge() -> None:
    links, addresses = docker(1)
    here = device(
        [*links, link(ETH, "eth0", carrier=False)], [*addresses, *at(ETH, "192.0.2.2")], {}
    )
    assert told(here) == ["192.0.2.2"]


def test_a_bridge_to_the_network_is_no_private_one() -> None:
    links = [link(5, "br0", "bridge"), link(6, "v0", "veth", 5), link(ETH, "eth0", "", 5)]
    assert told(device(links, at(5, "192.0.2.2"), {})) == ["192.0.2.2"], "a card is its port"
    links = [link(5, "br0", "bridge"), link(6, "v0", "veth", 5), link(ETH, "wan", "veth")]
    here = device(links, [*at(5, "192.0.2.2"), *at(ETH, "198.51.100.1")], {5: 0})
    assert told(here) == ["192.0.2.2", "198.51.100.1"], "a default route leads through it"


def test_without_carrier_is_left_out_beside_one_with() -> None:
    here = device(
        [link(7, "eth1", carrier=False), link(ETH, "eth0")],
        [*at(7, "203.0.113.1"), *at(ETH, "192.0.2.2")],
    )
    assert told(here) == ["192.0.2.2"]


def test_the_default_route_comes_first_and_a_later_vpn_is_told() -> None:
    links = [link(7, "usb0"), link(ETH, "eth0")]
    addresses = [*at(7, "203.0.113.1"), *at(ETH, "192.0.2.2")]
    assert told(device(links, addresses)) == ["192.0.2.2", "203.0.113.1"]
    links.append(link(WG, "wg0", "wireguard"))
    addresses += at(WG, "10.9.0.1")
    assert told(device(links, addresses)) == ["192.0.2.2", "203.0.113.1", "10.9.0.1"]
    assert told(device(links, addresses, {ETH: 100, 7: 50}))[0] == "203.0.113.1", "lower metric"


def test_each_interface_has_its_share_of_eight() -> None:
    many = [f"2001:db8::{n}" for n in range(1, 20)]
    here = device(
        [link(ETH, "eth0"), link(7, "wlan0")],
        [*at(ETH, *many, "192.0.2.2"), *at(7, "198.51.100.7", "2001:db8:1::7")],
    )
    found = told(here)
    assert len(found) == ADDRESSES_MAX
    assert found[:4] == ["192.0.2.2", "2001:db8::1", "198.51.100.7", "2001:db8:1::7"]


def test_addresses_that_others_should_not_learn() -> None:
    temporary = at(ETH, "2001:db8::7e", temporary=True)
    lasting = at(ETH, "2001:db8::1")
    tested = at(ETH, "2001:db8::2", ready=False)
    here = device([link(ETH, "eth0")], [*temporary, *tested, *lasting])
    assert told(here) == ["2001:db8::1", "2001:db8::7e"], "the lasting first, none under test"
    own = all_addresses(here, EVERY, PORT)
    assert Address("2001:db8::2", PORT) in own, "but all of them are ours"


def test_every_bound_address_is_our_own_told_or_not() -> None:
    links, addresses = docker(9)
    here = device([*links, link(ETH, "eth0")], [*addresses, *at(ETH, "192.0.2.2")])
    own = all_addresses(here, EVERY, PORT)
    assert {Address("172.17.0.1", PORT), Address("127.0.0.1", PORT)} <= own
    assert Address("172.17.0.1", PORT + 1) not in own, "another program of this device"
    assert all_addresses(here, ["192.0.2.2"], PORT) == {Address("192.0.2.2", PORT)}, (
        "somebody else may have bound the others"
    )


def test_link_local_addresses_are_for_neighbours() -> None:
    here = device([link(ETH, "eth0")], at(ETH, "fe80::2"))
    assert told(here) == []
    assert link_local_addresses(choose(here, []), EVERY, PORT) == (Address("fe80::2", PORT),)


def test_multicast_prefers_the_network_and_leaves_ports_of_bridges_out() -> None:
    links, addresses = docker(30)
    here = device([*links, link(ETH, "eth0")], [*addresses, *at(ETH, "192.0.2.2", "fe80::aa")])
    handles = list(multicast_plugs(choose(here, [])))
    assert handles[0] == "192.0.2.2"
    assert handles[-1] == ETH, "no port of a bridge, which hears the same"
    assert len(handles) == MULTICAST_MAX + 1, "the kernel lets a socket join 20 groups"


def test_a_tunnel_without_multicast_is_told_and_not_asked_on() -> None:
    """WireGuard sends to known peers alone, and answers multicast with an error each time."""
    tunnel = link(WG, "wg0", "wireguard")._replace(has_multicast=False)
    here = device([link(ETH, "eth0"), tunnel], [*at(ETH, "192.0.2.2"), *at(WG, "10.9.0.1")])
    assert told(here) == ["192.0.2.2", "10.9.0.1"]
    assert list(multicast_plugs(choose(here, []))) == ["192.0.2.2"]
    lo = Interface("lo", 1, ("127.0.0.1",), has_multicast=False)
    assert list(multicast_plugs([lo])) == ["127.0.0.1"]


def test_a_card_put_back_is_another_plug_under_the_same_address() -> None:
    before = device([link(7, "eth0")], at(7, "192.0.2.2"))
    after = device([link(8, "eth0")], at(8, "192.0.2.2"))
    again = device([link(8, "eth0")._replace(carrier_changes=3)], at(8, "192.0.2.2"))
    plugs = [multicast_plugs(choose(each, []))["192.0.2.2"] for each in (before, after, again)]
    assert len(set(plugs)) == 3


def test_the_kernel_tells_of_the_loopback() -> None:
    lo = next(each for each in netlink.read_links() if each.name == "lo")
    assert lo.number == socket.if_nametoindex("lo")
    assert (lo.is_up, lo.has_carrier, lo.has_multicast) == (True, True, False)
    assert lo.mtu_bytes >= 1280
    assert any(each.host == "127.0.0.1" for each in netlink.read_addresses() if each.link == 1)
    assert all(metric >= 0 for metric in netlink.read_default_routes().values())


def attribute(kind: int, data: bytes) -> bytes:
    padding = b"\0" * (-len(data) % 4)
    return struct.pack("=HH", 4 + len(data), kind) + data + padding


def test_routes_of_several_ways_are_read() -> None:
    """A captured layout: ``default nexthop dev 3 nexthop dev 4``, and one that is no default."""
    route = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)
    hops = struct.pack("=HBBi", 8, 0, 0, 3) + struct.pack("=HBBi", 8, 0, 0, 4)
    several = route + attribute(9, hops) + attribute(6, struct.pack("=I", 7))
    assert list(netlink._default_route(several)) == [(3, 7), (4, 7)]
    special = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 99, 3, 0, 1, 0)
    assert not list(netlink._default_route(special + attribute(4, struct.pack("=I", 3))))
    network = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 3, 0, 1, 0)
    assert not list(netlink._default_route(network + attribute(4, struct.pack("=I", 3))))


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_what_the_kernel_does_not_say_is_not_invented(cut: int) -> None:
    body = struct.pack("=BxHiII", 0, 1, 5, 0x41, 0) + attribute(3, b"eth0\0") + attribute(4, b"\1")
    found = netlink._link(body + attribute(18, attribute(1, b"veth"))[: max(0, 40 - cut)])
    assert (found.number, found.name, found.mtu_bytes, found.port_of) == (5, "eth0", 0, 0)


def test_the_kernel_tells_of_no_change_where_there_was_none() -> None:
    notices = netlink.Notices()
    assert notices.any(), "whatever was before, nobody told"
    asked = [notices.any() for _ in range(100)]
    assert asked.count(True) <= 50, "other tests may have changed something meanwhile"
    notices.close()


def test_notices_are_taken_all_at_once_and_lost_ones_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    monkeypatch.setattr(netlink, "_heeding", lambda: ours)
    notices = netlink.Notices()
    assert [notices.any(), notices.any()] == [True, False]
    for _ in range(5):
        kernels.send(b"a notice")
    assert [notices.any(), notices.any()] == [True, False]

    def lost(_: socket.socket) -> bool:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    with monkeypatch.context() as patched:
        patched.setattr(netlink, "_drained", lost)
        assert notices.any()
    assert ours.fileno() == -1, "begun anew: what is told from now on follows a look"
    kernels.close()


def test_without_a_file_descriptor_everything_may_have_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left() -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(netlink, "_heeding", none_left)
    assert netlink.Notices().any()
    assert netlink.Notices().any()
