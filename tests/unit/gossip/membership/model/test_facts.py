"""Facts: published by their owner, spread by exchanges, bounded whatever anybody says."""

from collections import Counter

import pytest

from gossip.core.errors import LimitExceeded
from gossip.core.tuning import LAN
from gossip.membership.model.facts import FACTS_BYTES_MAX, FACTS_MAX, Facts, FactTable, flaw
from gossip.membership.model.members import MemberState, MemberTable
from gossip.membership.model.messages import SyncDelta
from tests.support.membership_net import Net
from tests.support.membership_solo import ME, MY_BOOT, Solo, alive, entry, exchange, frame

VERSION = {"covey": "1.2.3"}
TOO_LARGE = {str(n): "v" * 4096 for n in range(17)}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"": "v"}, "1 to 64"),
        ({"n" * 65: "v"}, "1 to 64"),
        ({"name": "µ" * 2049}, "name takes 4098 bytes, of 4096"),
        ({str(n): "" for n in range(FACTS_MAX + 1)}, "257 facts, and 256"),
        (TOO_LARGE, "of 65536"),
    ],
)
def test_what_breaks_a_limit_is_refused_and_changes_nothing(
    values: dict[str, str], complaint: str
) -> None:
    solo = Solo(2)
    solo.swim.set_facts(VERSION, solo.now)
    with pytest.raises(LimitExceeded, match=complaint):
        solo.swim.set_facts(values, solo.now)
    assert solo.swim.facts_of(ME) == VERSION


def test_too_many_facts_of_others_are_unsound() -> None:
    solo = Solo(2)
    exchange(solo, entry(2, incarnation=5, facts=Facts(1, TOO_LARGE)))
    assert solo.swim.counts["updates_ignored/unsound"] == 1
    assert solo.swim.facts_of(2) == {}


def test_what_keeps_to_the_limits_is_accepted() -> None:
    assert not flaw({})
    assert not flaw({"n" * 64: "v" * 4096, "µ": "µ" * 2048})


def told_by(solo: Solo, node: int) -> Facts | None:
    frame(solo, SyncDelta((), (node,), is_partial=False))
    [(_, difference)] = solo.frames
    assert isinstance(difference, SyncDelta)
    return difference.entries[0].facts


def test_the_newest_facts_of_a_life_hold_and_are_passed_on() -> None:
    solo = Solo(2, 3)
    exchange(solo, entry(3, facts=Facts(2, VERSION)))
    exchange(solo, entry(3, facts=Facts(1, {"covey": "older"})))
    assert solo.swim.facts_of(3) == VERSION
    assert told_by(solo, 3) == Facts(2, VERSION)


def test_facts_end_with_the_life_they_belong_to() -> None:
    solo = Solo(2, 3)
    exchange(solo, entry(3, facts=Facts(2, VERSION)))
    solo.hear(3, alive(3, boot=2), boot=2)
    assert solo.swim.facts_of(3) == {}
    exchange(solo, entry(3, boot=1, facts=Facts(9, VERSION)))
    assert solo.swim.facts_of(3) == {}, "not of this life"
    exchange(solo, entry(3, boot=2, facts=Facts(1, {"covey": "2"})))
    assert solo.swim.facts_of(3) == {"covey": "2"}


def test_facts_of_strangers_and_the_departed_are_not_kept() -> None:
    solo = Solo(2)
    exchange(solo, entry(7, MemberState.DEAD, facts=Facts(1, VERSION)))
    assert solo.swim.facts_of(7) == {}
    assert solo.swim.facts_of(99) == {}


def test_invented_facts_of_ours_are_outbid() -> None:
    solo = Solo(2)
    solo.swim.set_facts(VERSION, solo.now)
    exchange(solo, entry(ME, boot=MY_BOOT, facts=Facts(40, {"covey": "a lie"})))
    assert solo.swim.facts_of(ME) == VERSION
    assert told_by(solo, ME) == Facts(41, VERSION)


@pytest.mark.parametrize("node", [ME, 3])
def test_the_number_cannot_be_driven_to_its_end(node: int) -> None:
    solo = Solo(2, 3)
    boot = MY_BOOT if node == ME else 1
    exchange(solo, entry(node, boot=boot, facts=Facts(2**64 - 1, {"covey": "a lie"})))
    assert solo.swim.facts_of(node) == {}
    assert solo.swim.counts["facts_ignored/implausible"] == 1
    if node != ME:
        exchange(solo, entry(node, facts=Facts(1, VERSION)))
        assert solo.swim.facts_of(node) == VERSION


def test_the_facts_of_all_are_bounded_and_our_own_have_room() -> None:
    solo = Solo(*range(2, 20))
    counts: Counter[str] = Counter()
    book = FactTable(solo.swim.members, 3 * FACTS_BYTES_MAX, counts)
    large = {str(n): "v" * 4000 for n in range(16)}
    for node in range(2, 20):
        assert book.accept(solo.swim.members[node], Facts(1, large))
    assert sum(book.of(member) is not None for member in solo.swim.members) == 2
    assert all(book.number_of(solo.swim.members[node]) == 1 for node in range(2, 20))
    assert counts["facts_ignored/no room"] == 16
    book.publish(solo.swim.members[ME], large)
    assert book.of(solo.swim.members[ME]) == Facts(1, large)


def test_the_facts_of_the_unlisted_are_dropped() -> None:
    solo, members = Solo(2, 3), MemberTable()
    members.put(solo.swim.members[2])
    book = FactTable(members, 2 * FACTS_BYTES_MAX, Counter())
    book.accept(members[2], Facts(1, VERSION))
    gone = members[2]
    members.remove(2)
    book.tidy()
    assert book.of(gone) is None


@pytest.mark.slow
def test_facts_reach_all_soon_though_exchanges_are_rare() -> None:
    net = Net(10)
    net.join_all()
    net.run(300)
    net.swims[7].set_facts(VERSION, net.now)
    net.settle(7)

    def all_know() -> bool:
        return all(swim.facts_of(net.ids[7]) == VERSION for swim in net.swims.values())

    took_s = net.run_until(all_know, within_s=LAN.exchange_interval_s)
    assert took_s > 0
    net.run(120)
    begun = sum(swim.counts["state_syncs/begun"] for swim in net.swims.values())
    net.run(300)
    after = sum(swim.counts["state_syncs/begun"] for swim in net.swims.values())
    assert after - begun <= 10 * (300 / LAN.exchange_interval_s + 1), "and calm returns"


def test_facts_never_travel_in_datagrams() -> None:
    net = Net(5)
    net.join_all()
    net.swims[1].set_facts({"needle": "haystack"}, net.now)
    net.settle(1)
    net.run(60)
    assert all(net.swims[n].facts_of(net.ids[1]) for n in range(5))
    assert not any(b"needle" in data for *_, data in net.transcript)


def exchanged_bytes(net: Net) -> int:
    return sum(swim.counts["state_sync_bytes/sent"] for swim in net.swims.values())


def exchanges_begun(net: Net) -> int:
    return sum(swim.counts["state_syncs/begun"] for swim in net.swims.values())


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_at_rest_an_exchange_costs_the_same_in_a_covey_of_any_size(count: int) -> None:
    net = Net(count)
    net.join_all()
    net.run(120)
    bytes_before, begun_before = exchanged_bytes(net), exchanges_begun(net)
    net.run(120)
    begun = exchanges_begun(net) - begun_before
    assert begun > count
    assert (exchanged_bytes(net) - bytes_before) / begun <= 48
