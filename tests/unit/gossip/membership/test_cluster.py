"""Several members together, in virtual time: the promises of the membership."""

from functools import partial

import msgspec
import pytest

from gossip.core.machine import Address
from gossip.core.tuning import LAN, LOCAL
from gossip.membership.model.members import MemberState
from tests.support.membership_net import Net, address_of

ALIVE, SUSPECT = MemberState.ALIVE, MemberState.SUSPECT
DEAD, LEFT = MemberState.DEAD, MemberState.LEFT


@pytest.mark.parametrize("count", [2, 3, 5, 30, pytest.param(100, marks=pytest.mark.slow)])
def test_all_who_know_one_seed_soon_know_each_other(count: int) -> None:
    net = Net(count)
    for index in range(1, count):
        net.join(index, 0)
    net.run_until(net.agree, within_s=5)
    assert net.view(0).keys() == set(range(count))


def test_without_streams_they_meet_all_the_same() -> None:
    net = Net(10)
    net.streams = False
    for index in range(1, 10):
        net.join(index, 0)
    net.run_until(net.agree, within_s=30)


def test_a_seed_that_is_not_there_yet_is_found_when_it_comes() -> None:
    net = Net(3)
    net.kill(0)
    net.join(1, 0)
    net.join(2, 0)
    net.run(600)
    assert net.view(1) == {1: ALIVE}
    net.start(0)
    net.run_until(net.agree, within_s=LAN.hello_slowest_s * 1.3 + 2)


@pytest.mark.parametrize("count", [2, 3, 5, 10, pytest.param(30, marks=pytest.mark.slow)])
def test_a_crash_is_known_to_all_within_ten_seconds(count: int) -> None:
    for seed in range(5):
        net = Net(count, seed)
        net.join_all()
        net.run(3 + seed * 0.37)
        net.kill(1)
        net.run_until(partial(net.all_say, 1, DEAD), within_s=10)
        assert {node for _, _, node in net.deaths()} == {net.ids[1]}


def test_on_one_machine_a_crash_is_known_much_sooner() -> None:
    for seed in range(5):
        net = Net(5, seed, LOCAL)
        net.join_all()
        net.kill(1)
        net.run_until(partial(net.all_say, 1, DEAD), within_s=3)


def test_two_of_five_that_crash_together_are_both_known_soon() -> None:
    net = Net(5)
    net.join_all()
    net.kill(1)
    net.kill(2)
    net.run_until(lambda: all(net.state(i, n) is DEAD for i in net.swims for n in (1, 2)), 12)


@pytest.mark.parametrize(
    "count", [5, *(pytest.param(each, marks=pytest.mark.slow) for each in (9, 10))]
)
def test_nobody_is_declared_dead_at_ten_percent_loss(count: int) -> None:
    net = Net(count, seed=count, loss=0.1)
    net.join_all(within_s=30)
    net.run(1200)
    assert net.deaths() == []
    relayed = sum(swim.counts["probes/relayed"] for swim in net.swims.values())
    assert relayed > 0, "or the loss tested nothing"


def test_a_crash_is_known_at_ten_percent_loss_too() -> None:
    for seed in range(3):
        net = Net(10, seed, loss=0.1)
        net.join_all(within_s=30)
        net.kill(1)
        net.run_until(partial(net.all_say, 1, DEAD), within_s=12)


def test_in_peace_nothing_but_probes_is_sent() -> None:
    net = Net(5)
    net.join_all()
    net.run(30)
    before, begun = net.sent, net.now
    net.run(600)
    assert (net.sent - before) / (net.now - begun) / 5 == pytest.approx(2.0, rel=0.05)


# Restarts and goodbyes.


def test_a_restart_is_seen_at_once_also_from_another_address() -> None:
    net = Net(5)
    net.join_all()
    net.kill(2)
    net.addresses[2] = address_of(77)
    restarted = net.start(2)
    net.join(2, 1)

    def known() -> bool:
        seen = [net.swims[i].members.get(net.ids[2]) for i in net.swims if i != 2]
        return all(m and m.boot == restarted.boot for m in seen) and net.agree()

    net.run_until(known, within_s=5)
    assert net.deaths() == []
    assert all(
        net.swims[i].addresses_of(net.ids[2])[0] == address_of(77) for i in net.swims if i != 2
    )


def test_whoever_comes_back_after_its_death_needs_no_help() -> None:
    net = Net(5)
    net.join_all()
    net.kill(2)
    net.run(60)
    assert net.all_say(2, DEAD)
    net.start(2)
    net.run_until(net.agree, within_s=60)


def test_a_goodbye_is_no_death() -> None:
    net = Net(10, loss=0.1)
    net.join_all(within_s=30)
    net.swims[3].leave(net.now)
    net.settle(3)
    net.run_until(lambda: net.swims[3].left, within_s=2)
    net.kill(3)
    net.run_until(lambda: net.all_say(3, LEFT), within_s=5)
    net.run(60)
    assert net.all_say(3, LEFT)
    assert net.deaths() == []
    net.start(3)
    net.join(3, 7)
    net.run_until(net.agree, within_s=10)


# Splits.


@pytest.mark.parametrize("length_s", [3.0, 60.0, pytest.param(3600.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "halves",
    [([0, 1, 2], [3, 4, 5]), ([0], [1, 2, 3, 4, 5]), ([0], [1], [2], [3], [4], [5])],
    ids=["halves", "one alone", "all alone"],
)
def test_a_split_heals_by_itself(length_s: float, halves: tuple[list[int], ...]) -> None:
    net = Net(6)
    net.join_all()
    net.split(*halves)
    net.run(length_s)
    if length_s >= 60:
        assert net.state(0, 5) is DEAD
        assert net.state(5, 0) is DEAD
    net.heal()
    net.run_until(net.agree, within_s=60)
    net.run(30)
    assert net.agree()


def test_a_split_heals_after_the_dead_are_no_longer_listed() -> None:
    net = Net(6, tuning=msgspec.structs.replace(LAN, dead_keep_s=300.0))
    net.join_all()
    net.split([0, 1, 2], [3, 4, 5])
    net.run(1000)
    assert net.state(0, 5) is None
    net.heal()
    net.run_until(net.agree, within_s=60)


def test_a_healed_split_kills_nobody_anew() -> None:
    net = Net(10)
    net.join_all()
    net.split(list(range(5)), list(range(5, 10)))
    net.run(120)
    net.heal()
    net.events.clear()
    net.run(60)
    assert net.agree()
    assert net.deaths() == []


def test_a_one_way_cut_between_two_is_bridged_by_the_others() -> None:
    net = Net(5)
    net.join_all()
    net.cut = {(0, 1)}
    net.run(600)
    assert net.agree()
    assert net.deaths() == []
    assert sum(swim.counts["relays/answered"] for swim in net.swims.values()) > 0


def test_a_member_that_cannot_send_is_found_out() -> None:
    net = Net(5)
    net.join_all()
    net.cut = {(1, other) for other in range(5)}
    net.run_until(lambda: net.all_say(1, DEAD), within_s=12)


# Pauses.


@pytest.mark.parametrize("pause_s", [2.5, 3.9, 30.0, pytest.param(3600.0, marks=pytest.mark.slow)])
def test_whoever_was_stopped_accuses_nobody_and_comes_back(pause_s: float) -> None:
    net = Net(6)
    net.join_all()
    net.stop(2)
    net.run(pause_s)
    deaths = {node for _, _, node in net.deaths()}
    assert deaths == (set() if pause_s < 4 else {net.ids[2]})
    net.cont(2)
    net.run_until(net.agree, within_s=5)
    net.run(20)
    assert net.agree()
    assert {node for _, observer, node in net.deaths() if observer == 2} == set()
    assert net.swims[2].counts["pauses/noticed"] == (pause_s > LAN.pause_s + 1)


# Descriptions.


def test_new_tags_reach_everybody() -> None:
    net = Net(10, loss=0.1)
    net.join_all(within_s=30)
    net.swims[4].set_tags({"role": "gate"}, net.now)
    net.settle(4)
    net.run_until(
        lambda: all(
            swim.members[net.ids[4]].tags == {"role": "gate"} for swim in net.swims.values()
        ),
        within_s=5,
    )


def test_who_moves_is_followed() -> None:
    net = Net(5)
    net.join_all()
    net.addresses[4] = Address("10.9.9.9", 7747)
    net.swims[4].set_addresses([net.addresses[4]], net.now)
    net.settle(4)
    net.run(60)
    assert net.agree()
    assert net.deaths() == []


# The same inputs, the same bytes.


def test_a_seed_replays_a_run_byte_for_byte() -> None:
    def run() -> list[tuple[float, int, Address, bytes]]:
        net = Net(7, seed=42, loss=0.2)
        net.join_all(within_s=30)
        net.kill(3)
        net.run(20)
        net.start(3)
        net.run(20)
        return net.transcript

    one, other = run(), run()
    assert len(one) > 500
    assert one == other
