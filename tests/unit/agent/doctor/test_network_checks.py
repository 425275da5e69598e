"""What the doctor says of addresses: good ones, too many, those of everybody, and none."""

import socket
from collections import Counter
from typing import Any

from agent.doctor import device_checks, network_checks
from agent.doctor.findings import Finding, Status
from agent.net.discovery import Here
from agent.net.interfaces import Interface
from gossip.core.machine import Address
from gossip.membership.model.members import Member, MemberState

ME = 1
LAN, VPN, VBOX = (Address(host, 7747) for host in ("192.0.2.1", "10.9.0.1", "192.168.56.1"))
NEAR = Address("fe80::1", 7747)


def member(node: int, *where: Address, **more: Any) -> Member:
    fields: dict[str, Any] = {"state": MemberState.ALIVE, "boot": 1, "incarnation": 1}
    fields |= {"changed_at": 0.0} | more
    return Member(id=node, name=f"pi{node}", addresses=where, tags={}, **fields)


def examined(
    here: Here, *members: Member, failure: str = "", counts: Counter[str] | None = None
) -> dict[str, Finding]:
    found = network_checks.examine(here, members, ME, counts or Counter(), failure)
    return {finding.id: finding for finding in found}


def test_all_is_well() -> None:
    found = examined(Here((LAN,)), member(ME, LAN), member(2, VPN))
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert str(LAN) in found["addresses"].message


def test_addresses_without_room_are_named() -> None:
    finding = examined(Here((LAN, VPN)), member(ME, LAN))["addresses"]
    assert finding.status is Status.WARN
    assert str(VPN) in finding.message
    assert "tags" in finding.hint


def test_containers_alone_are_no_network() -> None:
    finding = examined(Here((VBOX,), is_private=True), member(ME, VBOX))["addresses"]
    assert finding.status is Status.WARN
    assert "containers" in finding.message


def test_link_local_addresses_alone_are_a_network_if_others_have_no_more() -> None:
    here = Here(neighbourly=(NEAR,))
    finding = examined(here, member(ME), member(2))["addresses"]
    assert finding.status is Status.OK
    assert "same cable or radio" in finding.message
    finding = examined(here, member(ME), member(2, LAN))["addresses"]
    assert finding.status is Status.WARN
    assert "DHCP" in finding.hint


def test_without_any_address_and_without_a_list() -> None:
    assert examined(Here(), member(ME))["addresses"].status is Status.WARN
    finding = examined(Here(), member(ME), failure="Too many open files")["addresses"]
    assert finding.status is Status.WARN
    assert "Too many open files" in finding.message


def test_an_address_that_several_members_tell() -> None:
    dead = member(4, VBOX, state=MemberState.DEAD)
    found = examined(Here((LAN,)), member(ME, LAN), member(2, VBOX), member(3, VBOX), dead)
    finding = found["shared-addresses"]
    assert finding.status is Status.WARN
    assert f"{VBOX}: pi2, pi3)" in finding.message
    assert "interfaces" in finding.hint


def test_hints_that_were_given_up() -> None:
    counts = Counter({"candidates_dropped/too many": 412})
    finding = examined(Here((LAN,)), member(ME, LAN), counts=counts)["hints"]
    assert finding.status is Status.WARN
    assert "412" in finding.message


def test_mdns_that_fails_or_is_not_everywhere() -> None:
    assert network_checks.mdns("", Here(), enabled=True) == []
    assert network_checks.mdns("no buffer space", Here(), enabled=False) == []
    [failing] = network_checks.mdns("no buffer space", Here(), enabled=True)
    assert "no buffer space" in failing.message
    [partial] = network_checks.mdns("", Here(without_multicast=("br17",)), enabled=True)
    assert "br17" in partial.message


def test_multicast_is_tried_where_others_are() -> None:
    bridge = Interface("docker0", 2, ("172.17.0.1",), is_private=True)
    port = Interface("veth1", 3, ("fe80::3%veth1",), is_port=True)
    lo = Interface("lo", socket.if_nametoindex("lo"), ("127.0.0.1",))
    [finding] = device_checks.multicast([bridge, port, lo], mdns=True)
    assert "lo (127.0.0.1)" in finding.message
    assert device_checks._asked_from(port) == ("fe80::3%veth1",)
