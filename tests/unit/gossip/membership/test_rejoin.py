"""Coming back under all circumstances: whatever a device may have lived through meanwhile."""

import msgspec
import pytest

from gossip.core.machine import Address
from gossip.core.tuning import LAN, Tuning
from gossip.membership.model.members import MemberState
from tests.support.membership_net import Net

ALIVE, DEAD, LEFT = MemberState.ALIVE, MemberState.DEAD, MemberState.LEFT
DEATH_S = 30.0


FORGETFUL = msgspec.structs.replace(LAN, dead_keep_s=600.0)


def covey(count: int, tuning: Tuning = LAN) -> Net:
    net = Net(count, tuning=tuning)
    net.join_all()
    return net


def test_after_a_restart_that_nobody_noticed() -> None:
    net = covey(5)
    net.kill(4)
    net.start(4)
    net.join(4, 0)
    net.run(2)
    assert net.agree(), net.show()
    assert net.deaths() == []
    assert {net.swims[i].members[net.ids[4]].boot for i in range(5)} == {net.swims[4].boot}


def test_after_its_death_was_known_to_all() -> None:
    net = covey(5)
    net.kill(4)
    net.run_until(lambda: net.all_say(4, DEAD), within_s=DEATH_S)
    net.start(4)
    net.join(4, 2)
    assert net.run_until(net.agree, within_s=5) <= 5


def test_with_a_new_address_after_a_restart_and_while_it_runs() -> None:
    for restarts in (True, False):
        net = covey(5)
        moved = Address("10.9.9.9", 7747)
        if restarts:
            net.kill(4)
        net.addresses[4] = moved
        if restarts:
            net.start(4)
            net.join(4, 0)
        else:
            net.swims[4].set_addresses([moved], net.now)
            net.settle(4)
        net.run(40)
        assert net.agree(), net.show()
        for index in range(4):
            assert net.swims[index].addresses_of(net.ids[4])[0] == moved
        assert not any(node == net.ids[4] for _, _, node in net.deaths())


def test_with_a_new_address_that_was_somebody_elses() -> None:
    net = covey(5)
    net.kill(3)
    net.run_until(lambda: net.all_say(3, DEAD), within_s=DEATH_S)
    net.kill(4)
    net.addresses[3], net.addresses[4] = Address("10.9.9.9", 7747), net.addresses[3]
    net.start(4)
    net.join(4, 0)
    net.run(60)
    assert {net.state(index, 4) for index in (0, 1, 2, 4)} == {ALIVE}
    assert {net.state(index, 3) for index in (0, 1, 2)} == {DEAD}


def test_under_a_name_that_another_has_both_are_listed_by_their_ids() -> None:
    net = covey(4)
    net.kill(3)
    swim = net.start(3)
    swim._local._alive = type(swim._local.alive)(
        swim._local.id, swim.boot, 1, "node-1", (net.addresses[3],), {}
    )
    swim._updates.announce(net.now)
    net.join(3, 0)
    net.run(5)
    assert net.agree(), net.show()
    for index in range(3):
        named = [m.id for m in net.swims[index].members if m.name == "node-1"]
        assert sorted(named) == sorted([net.ids[1], net.ids[3]])


def test_after_it_was_forgotten() -> None:
    net = covey(4, FORGETFUL)
    net.kill(3)
    net.run(800)
    assert net.all_say(3, None), "taken off the list"
    net.start(3)
    net.join(3, 0)
    net.run(5)
    assert net.agree(), net.show()


@pytest.mark.slow
def test_after_it_was_forgotten_while_it_was_only_cut_off() -> None:
    net = covey(4, FORGETFUL)
    net.split([0, 1, 2], [3])
    net.run(3600)
    assert net.all_say(3, None)
    assert net.view(3)[3] is ALIVE
    net.heal()
    net.run(60)
    assert net.agree(), net.show()


def test_after_it_left() -> None:
    net = covey(4)
    net.swims[3].leave(net.now)
    net.settle(3)
    net.run(1)
    net.kill(3)
    assert net.all_say(3, LEFT)
    net.start(3)
    net.join(3, 0)
    net.run(2)
    assert net.agree(), net.show()


def test_a_goodbye_while_everybody_else_is_paused_is_a_goodbye() -> None:
    net = covey(4)
    for index in range(3):
        net.stop(index)
    net.swims[3].leave(net.now)
    net.settle(3)
    net.run(1)
    net.kill(3)
    net.run(20)
    for index in range(3):
        net.cont(index)
    net.run(120)
    assert net.all_say(3, LEFT), net.show()
    assert net.deaths() == []


def test_a_goodbye_that_one_missed_reaches_it_and_is_no_death() -> None:
    net = covey(4)
    net.cut = {(3, 2)}
    net.swims[3].leave(net.now)
    net.settle(3)
    net.run(1)
    net.kill(3)
    net.cut = set()
    net.run(60)
    assert net.all_say(3, LEFT), net.show()
    assert net.deaths() == []


@pytest.mark.parametrize("paused_s", [3, 30, pytest.param(3600, marks=pytest.mark.slow)])
def test_after_it_was_stopped(paused_s: float) -> None:
    net = covey(5)
    net.stop(4)
    net.run(paused_s)
    net.cont(4)
    net.run_until(net.agree, within_s=15)
    assert [death for death in net.deaths() if death[1] == 4] == [], "it accused nobody"
    if paused_s == 3:
        assert net.deaths() == []


def test_after_all_were_stopped() -> None:
    net = covey(5)
    for index in range(5):
        net.stop(index)
    net.run(900)
    for index in range(5):
        net.cont(index)
    net.run(60)
    assert net.agree(), net.show()
    assert net.deaths() == []
