"""Take-overs ask for many partitions at once, and meet each node once."""

import msgspec

from gossip.ids import NodeId
from gossip.state import messages as m
from gossip.state.limits import OUTSIDERS_AT_ONCE
from gossip.state.registry import Registry, admit, found
from gossip.state.requests import Get, Put
from tests.unit.state_net import CLUSTER, Net, node, sign

MEMBERS = 20
PARTITIONS = 64


def hurried() -> Registry:
    """A registry that grew faster than anybody could take over: nobody is complete."""
    registry = found(CLUSTER, node(1), PARTITIONS, 3)
    for number in range(2, MEMBERS + 1):
        registry = admit(registry, node(number))
    return registry


def unfinished(net: Net) -> int:
    return sum(plane.handover.unfinished() for plane in net.planes.values())


def total(net: Net, name: str) -> int:
    return sum(plane.counts[name] for plane in net.planes.values())


def test_a_covey_that_never_ran_is_complete_after_few_frames() -> None:
    net = Net(hurried())
    assert unfinished(net) > 0
    net.run(30)
    assert unfinished(net) == 0
    assert total(net, "comparisons/begun") == 0, "there is nothing to compare"
    pairs = MEMBERS * (MEMBERS - 1)
    assert total(net, "glances/begun") < 5 * pairs
    assert net.ask(1, Put("lamp", b"on")).outcome == "ok"
    assert net.values(net.ask(MEMBERS, Get("lamp"))) == [b"on"]


def test_outsiders_are_asked_a_few_at_a_time() -> None:
    net = Net(hurried())
    me = net.planes[MEMBERS]
    asked: dict[NodeId, None] = {}
    original = me.glances.begin

    def begin(partitions: "frozenset[int]", peer: NodeId, now: float) -> None:
        asked[peer] = None
        original(partitions, peer, now)

    me.glances.begin = begin  # type: ignore[method-assign, assignment]
    net.run(0.1)
    formers = {n for owners in net.registry.former for n in owners}
    assert len(asked) <= OUTSIDERS_AT_ONCE + len(formers)
    net.run(30)
    assert set(asked) == set(range(1, MEMBERS)), "in the end everybody was asked"


def test_what_differs_is_compared_key_by_key() -> None:
    net = Net(hurried())
    net.run(30)
    for n in range(20):
        net.ask(1, Put(f"key-{n}", b"v", w=3))
    registry = admit(net.registry, node(MEMBERS + 1))
    net.registry = registry
    net.start(MEMBERS + 1)
    net.adopt(registry)
    net.run(30)
    assert unfinished(net) == 0
    for n in range(20):
        assert net.values(net.ask(MEMBERS + 1, Get(f"key-{n}", r=3))) == [b"v"]


def test_a_node_that_does_not_answer_holds_nobody_up() -> None:
    net = Net(hurried())
    net.isolate(5)
    net.run(5)
    net.heal()
    net.run(60)
    assert unfinished(net) == 0


def test_a_glance_from_an_older_placement_is_refused_and_learns_the_newer_one() -> None:
    net = Net(hurried())
    newer = msgspec.structs.replace(admit(net.registry, node(99)), epoch=net.registry.epoch + 1)
    net.planes[1].adopt(sign(newer), net.now)
    plane = net.planes[1]
    list(plane.effects())
    moved = next(p for p, since in enumerate(newer.since) if since > net.registry.epoch)
    plane.receive_frame(m.CODEC.encode(m.Glance(1, net.registry.epoch, ((moved, 0, 0),))), 2, 0.0)
    said = [m.CODEC.decode(effect.data) for effect in plane.effects() if hasattr(effect, "data")]
    assert any(isinstance(each, m.RegistryOffer) for each in said)
    assert [each.reason for each in said if isinstance(each, m.Refused)] == [m.STALE_EPOCH]
    assert not any(isinstance(each, m.Glanced) for each in said)


def test_a_glance_at_a_partition_that_cannot_be_is_refused() -> None:
    net = Net(hurried())
    plane = net.planes[1]
    list(plane.effects())
    question = m.Glance(1, net.registry.epoch, ((PARTITIONS, 0, 0),))
    plane.receive_frame(m.CODEC.encode(question), 2, net.now)
    said = [m.CODEC.decode(effect.data) for effect in plane.effects() if hasattr(effect, "data")]
    assert [each.reason for each in said if isinstance(each, m.Refused)] == [m.INVALID]


def test_an_answer_that_nobody_awaits_is_counted() -> None:
    net = Net(hurried())
    net.planes[1].receive_frame(m.CODEC.encode(m.Glanced(7, ((0, True),))), 2, net.now)
    assert net.planes[1].counts["frames_dropped/unexpected_answer"] == 1
