"""Changes of the registry on their way into the log, among several voters."""

from typing import Any

from gossip.control.commands import ChangeRegistry, TokenChange
from gossip.control.lookups import ReadRegistry
from gossip.control.outcomes import CONFLICT, ChangedResult
from gossip.control.requests import (
    ControlRead,
    ControlWrite,
    RegistryCommitted,
    UnavailableResult,
)
from gossip.control.voters import VoterTuning
from gossip.core.ids import NodeId
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import Registry, admit, remove
from tests.support.control_net import BY_HAND, ControlNet
from tests.support.registries import registries, signed

REGISTRY = registries(3)[-1]
LOST_S = VoterTuning().contact_s + 1.0


def three() -> tuple[ControlNet, NodeId, list[NodeId]]:
    """Three voters that have agreed on a registry; the leader, and the two others."""
    net = ControlNet(3, voter_tuning=BY_HAND)
    net.vote(1, 2, 3)
    assert isinstance(net.do(1, ChangeRegistry(b"", signed(REGISTRY))), ChangedResult)
    net.run(1.0)
    leader = net.leader().me.node
    return net, leader, [node for node in net.ids if node != leader]


def change(net: ControlNet, who: NodeId, after: Registry) -> Any:
    return net.do(who, ChangeRegistry(REGISTRY.mark, signed(after)))


def test_each_voter_is_told_what_is_agreed_on_once() -> None:
    net, leader, others = three()
    change(net, others[0], admit(REGISTRY, RegisteredNode(4, "n4")))
    net.run(1.0)
    for node in net.ids:
        told = [each for each in net.told[node] if isinstance(each, RegistryCommitted)]
        assert len(told) == 2, node
    read: Any = net.ask(leader, ControlRead(ReadRegistry())).result
    assert read.registry == told[-1].signed


def test_of_two_that_follow_the_same_one_the_second_looks_again() -> None:
    net, _, others = three()
    first, second = (admit(REGISTRY, RegisteredNode(n, f"n{n}")) for n in (4, 5))
    requests = [
        (who, net.submit(who, ControlWrite(ChangeRegistry(REGISTRY.mark, signed(after)))))
        for who, after in zip(others, (first, second), strict=True)
    ]
    net.run(5.0)
    results: list[Any] = [net.results[each].result for each in requests]
    assert sum(isinstance(each, ChangedResult) for each in results) == 1
    assert [each.code for each in results if not isinstance(each, ChangedResult)] == [CONFLICT]


def test_a_token_is_used_once_though_the_leader_dies_amid_it() -> None:
    net, leader, others = three()
    net.do(leader, ChangeRegistry(b"", b"", (TokenChange(b"t", 0, b"two uses"),)))
    found: Any = net.ask(leader, ControlRead(ReadRegistry())).result
    used = TokenChange(b"t", found.tokens[0].revision, b"one use")
    after = admit(REGISTRY, RegisteredNode(4, "n4"))
    write = ControlWrite(ChangeRegistry(REGISTRY.mark, signed(after), (used,)), 60.0)
    request = others[0], net.submit(others[0], write)
    net.run(0.004)
    net.crash(leader)
    net.until(lambda: request in net.results)
    assert isinstance(net.results[request].result, ChangedResult), "sent twice, and done once"
    read: Any = net.ask(others[0], ControlRead(ReadRegistry())).result
    assert (read.mark, read.tokens[0].value) == (after.mark, b"one use")


def test_of_three_voters_none_is_removed_while_another_is_off() -> None:
    """The one that is off may be: it is missed by nobody."""
    net, leader, (off, there) = three()
    net.crash(off)
    net.run(LOST_S)
    refused = change(net, leader, remove(REGISTRY, there, accept_loss=True))
    assert isinstance(refused, UnavailableResult)
    assert "so few voters would be left" in refused.reason
    done = change(net, leader, remove(REGISTRY, off, accept_loss=True))
    assert isinstance(done, ChangedResult)


def test_who_joins_is_let_in_while_a_voter_is_off() -> None:
    net, leader, (off, _) = three()
    net.crash(off)
    net.run(LOST_S)
    joined = change(net, leader, admit(REGISTRY, RegisteredNode(4, "n4")))
    assert isinstance(joined, ChangedResult)
