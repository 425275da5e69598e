"""Who is to vote, as a pure function: each rule, and what happens just short of it."""

from typing import Any

import msgspec
import pytest

from gossip.consensus.configuration import Configuration, Voter
from gossip.control.stability import HeardReport, StabilityReport
from gossip.control.voters import (
    HeardMember,
    ReplacementOrder,
    VoterChange,
    VoterTuning,
    VoterView,
    check_order,
    next_change,
    ordered_change,
    successor,
    wanted_voters,
)
from gossip.core.errors import InvalidRequest

TUNING = VoterTuning()
NOW = 100_000.0
HOUR = 3600.0


def store(node: int) -> Voter:
    return Voter(1000 + node, node)


def stores(*nodes: int) -> tuple[Voter, ...]:
    return tuple(map(store, nodes))


class Fleet:
    """Nodes that are all stable, in contact and caught up until a test says otherwise."""

    def __init__(self, count: int, voters: tuple[int, ...], learners: tuple[int, ...] = ()) -> None:
        self.configuration = Configuration(stores(*voters), (), stores(*learners))
        self.zones = dict.fromkeys(range(1, count + 1), "")
        self.reports = {
            node: HeardReport(node, StabilityReport(1000 + node, 100_000), NOW)
            for node in self.zones
        }
        self.silent_s: dict[int, float] = {}
        self.unsettled: set[int] = set()
        self.since_replaced_s = 10 * HOUR
        self.put_out: frozenset[int] = frozenset()
        self.draining: set[int] = set()

    def tell(self, node: int, age_s: float = 0.0, **changes: Any) -> None:
        report = msgspec.structs.replace(self.reports[node].report, **changes)
        self.reports[node] = HeardReport(node, report, NOW - age_s)

    def view(self) -> VoterView:
        members = tuple(
            HeardMember(each, self.silent_s.get(each.node, 0.0), each.node not in self.unsettled)
            for each in self.configuration.members
        )
        reports = tuple(self.reports.values())
        return VoterView(
            self.configuration, self.zones, reports, members, self.since_replaced_s, NOW,
            self.put_out, frozenset(self.draining),
        )  # fmt: skip

    def next(self) -> tuple[str, list[int], list[int]] | None:
        """Return the kind of the next change, and the nodes that vote and learn after it."""
        change = next_change(self.view(), TUNING)
        return told(change) if change is not None else None


def told(change: VoterChange) -> tuple[str, list[int], list[int]]:
    voters, learners = change.target.voters, change.target.learners
    return change.kind, [v.node for v in voters], [v.node for v in learners]


# Growing.


def test_one_voter_has_two_standbys_first_and_then_three_vote_after_one_change() -> None:
    assert Fleet(3, (1,)).next() == ("standbys", [1], [2, 3])
    assert Fleet(3, (1,), (2, 3)).next() == ("grown", [1, 2, 3], [])


def test_two_never_vote() -> None:
    assert Fleet(2, (1,)).next() == ("standbys", [1], [2])
    assert Fleet(2, (1,), (2,)).next() is None
    one_behind = Fleet(3, (1,), (2, 3))
    one_behind.unsettled = {3}
    assert one_behind.next() is None


def test_who_has_just_started_or_has_a_slow_or_full_disk_is_not_chosen() -> None:
    for trouble in ({"uptime_s": 10}, {"fsync_p99_ms": 5_000}, {"takes_writes": False}):
        fleet = Fleet(3, (1,))
        fleet.tell(2, **trouble)
        assert fleet.next() == ("standbys", [1], [3]), trouble


def test_what_a_node_said_long_ago_does_not_count() -> None:
    fleet = Fleet(3, (1,))
    fleet.tell(2, age_s=TUNING.report_fresh_s + 1)
    assert fleet.next() == ("standbys", [1], [3])


def test_who_does_not_belong_is_not_chosen() -> None:
    fleet = Fleet(3, (1,))
    del fleet.zones[2]
    assert fleet.next() == ("standbys", [1], [3])


def test_a_learner_that_is_not_in_contact_gets_no_vote() -> None:
    fleet = Fleet(3, (1,), (2, 3))
    fleet.silent_s = {2: TUNING.contact_s + 1}
    assert fleet.next() is None


def test_five_vote_from_nine_stable_nodes_on() -> None:
    assert Fleet(8, (1, 2, 3), (4, 5)).next() is None
    assert Fleet(9, (1, 2, 3), (4, 5)).next() == ("grown", [1, 2, 3, 4, 5], [])
    shaky = Fleet(9, (1, 2, 3), (4, 5))
    shaky.tell(9, uptime_s=10)
    assert shaky.next() is None


def test_the_number_never_falls_and_grows_no_further_than_five() -> None:
    assert Fleet(5, (1, 2, 3, 4, 5)).next() is None
    assert Fleet(12, (1, 2, 3, 4, 5), (6, 7)).next() is None
    for nodes in (1, 2, 5):
        fleet = Fleet(9, (1, 2, 3, 4, 5))
        fleet.zones = {node: "" for node in fleet.zones if node <= nodes}
        change = fleet.next()
        assert change is None or len(change[1]) == 5


def test_there_are_two_standbys_at_most() -> None:
    assert Fleet(8, (1, 2, 3)).next() == ("standbys", [1, 2, 3], [4, 5])
    assert Fleet(8, (1, 2, 3), (4, 5)).next() is None


def test_a_standby_that_is_lost_makes_room_for_another() -> None:
    away = Fleet(8, (1, 2, 3), (4, 5))
    away.silent_s = {4: TUNING.standby_lost_s - 1}
    assert away.next() is None
    away.silent_s = {4: TUNING.standby_lost_s}
    away.reports.pop(4)
    assert away.next() == ("standbys", [1, 2, 3], [5, 6])
    other_log = Fleet(8, (1, 2, 3), (4, 5))
    other_log.tell(4, store=77)
    change = next_change(other_log.view(), TUNING)
    assert change is not None
    assert change.target.learners == (store(5), Voter(77, 4)), "the same node, its new log"


def test_a_standby_that_was_removed_goes() -> None:
    fleet = Fleet(8, (1, 2, 3), (4, 5))
    del fleet.zones[4]
    assert fleet.next() == ("standbys", [1, 2, 3], [5, 6])


def test_no_node_votes_twice() -> None:
    fleet = Fleet(10, (1, 2, 3))
    fleet.tell(3, store=77)
    fleet.configuration = Configuration(stores(1, 2, 3), (), (Voter(77, 3), store(4)))
    assert fleet.next() is None, "there are five only once its former log is out"


# Choosing.


def test_other_zones_come_first() -> None:
    fleet = Fleet(5, (1,))
    fleet.zones |= {1: "shed", 2: "shed", 3: "attic", 4: "attic", 5: "barn"}
    assert fleet.next() == ("standbys", [1], [3, 5])
    fleet = Fleet(7, (1, 2, 3), (4, 5))
    fleet.zones |= {1: "shed", 2: "attic", 3: "barn", 4: "shed", 5: "barn"}
    fleet.silent_s = {3: HOUR}
    assert fleet.next() == ("replaced_silent", [1, 2, 5], [4]), "it takes over the barn"


def test_the_steadier_come_first() -> None:
    fleet = Fleet(5, (1,))
    fleet.tell(2, is_on_mains=False)
    fleet.tell(3, fsync_p99_ms=900)
    fleet.tell(4, uptime_s=3_700)
    fleet.tell(5, is_on_mains=True)
    assert fleet.next() == ("standbys", [1], [5, 4])
    fleet.zones.pop(5)
    assert fleet.next() == ("standbys", [1], [4, 3])


# Replacing.


def test_a_voter_that_is_silent_for_an_hour_is_replaced_in_one_change() -> None:
    fleet = Fleet(5, (1, 2, 3), (4, 5))
    fleet.silent_s = {3: HOUR}
    assert fleet.next() == ("replaced_silent", [1, 2, 4], [5])


def test_not_before_the_hour_is_over() -> None:
    fleet = Fleet(5, (1, 2, 3), (4, 5))
    fleet.silent_s = {3: HOUR - 1}
    assert fleet.next() is None


def test_one_an_hour_at_most() -> None:
    fleet = Fleet(7, (1, 2, 3, 4, 5), (6, 7))
    fleet.silent_s = {4: HOUR, 5: 2 * HOUR}
    fleet.since_replaced_s = HOUR - 1
    assert fleet.next() is None
    fleet.since_replaced_s = HOUR
    assert fleet.next() == ("replaced_silent", [1, 2, 3, 4, 6], [7]), "who was silent longest"


def test_not_without_a_majority_in_contact() -> None:
    fleet = Fleet(5, (1, 2, 3), (4, 5))
    fleet.silent_s = {2: 2 * HOUR, 3: 2 * HOUR}
    assert fleet.next() is None
    fleet.zones.pop(3)
    assert fleet.next() is None, "nor for one that was removed"


def test_not_without_a_standby_that_has_kept_up() -> None:
    fleet = Fleet(4, (1, 2, 3), (4,))
    fleet.silent_s = {3: HOUR}
    fleet.unsettled = {4}
    assert fleet.next() is None


def test_a_voter_that_was_removed_is_replaced_at_once_and_nothing_removed_takes_its_place() -> None:
    fleet = Fleet(5, (1, 2, 3), (4, 5))
    fleet.since_replaced_s = 0.0
    fleet.zones.pop(2)
    fleet.zones.pop(4)
    assert fleet.next() == ("replaced_removed", [1, 5, 3], [4])


def test_a_founder_that_was_removed_hands_its_vote_over() -> None:
    fleet = Fleet(2, (1,), (2,))
    fleet.zones.pop(1)
    assert fleet.next() == ("replaced_removed", [2], [])


@pytest.mark.parametrize(
    ("removed", "voters", "learners"),
    [
        ((3,), [1], [2]),
        ((2,), [1], [3]),
        ((4, 5), [1, 2, 3], []),
        ((5,), [1, 2, 3], [4]),
    ],
)
def test_fewer_vote_when_some_were_removed_and_nobody_is_left_for_their_places(
    removed: tuple[int, ...], voters: list[int], learners: list[int]
) -> None:
    count = 3 if max(removed) < 4 else 5
    fleet = Fleet(count, tuple(range(1, count + 1)))
    for node in removed:
        fleet.zones.pop(node)
    assert fleet.next() == ("removed", voters, learners)
    fleet.zones |= {8: "", 9: ""}
    assert fleet.next() in (None, ("standbys", list(range(1, count + 1)), [8, 9]))


def test_the_one_that_is_heard_votes_when_fewer_do() -> None:
    fleet = Fleet(3, (1, 2, 3))
    fleet.zones.pop(1)
    fleet.silent_s = {1: HOUR, 2: 14.0}
    assert fleet.next() == ("removed", [3], [2])


def test_a_voter_that_drains_gives_its_vote_to_a_standby_at_once() -> None:
    for is_heard in (True, False):
        fleet = Fleet(5, (1, 2, 3), (4, 5))
        fleet.draining = {2}
        fleet.silent_s = {} if is_heard else {2: 100.0}
        assert fleet.next() == ("replaced_draining", [1, 4, 3], [5])


def test_a_voter_that_drains_votes_on_while_nobody_is_ready() -> None:
    """Fewer than before never vote, whoever drains."""
    fleet = Fleet(5, (1, 2, 3), (4, 5))
    fleet.draining = {1, 2, 3, 4}
    assert fleet.next() == ("replaced_draining", [5, 2, 3], [4])
    fleet.unsettled = {5}
    assert fleet.next() == ("standbys", [1, 2, 3], [5])
    three = Fleet(3, (1, 2, 3))
    for draining in ({1}, {1, 2}, {1, 2, 3}):
        three.draining = draining
        assert three.next() is None
    alone = Fleet(2, (1,), (2,))
    alone.draining = {1}
    assert alone.next() == ("replaced_draining", [2], [])


def test_without_a_majority_in_contact_no_vote_is_given_away_by_who_drains() -> None:
    fleet = Fleet(5, (1, 2, 3), (4, 5))
    fleet.draining = {2}
    fleet.silent_s = {2: 100.0, 3: 100.0}
    assert fleet.next() is None


def test_who_drains_is_not_chosen_and_no_standby() -> None:
    grows = Fleet(4, (1,), (2, 3))
    grows.draining = {3}
    assert grows.next() == ("standbys", [1], [2, 4])
    fleet = Fleet(9, (1, 2, 3), (4, 5))
    assert wanted_voters(fleet.view(), TUNING) == 5
    for drains in (2, 9):
        fleet.draining = {drains}
        assert wanted_voters(fleet.view(), TUNING) == 3, "eight are left"


def test_a_leader_that_drains_is_followed_by_one_that_does_not() -> None:
    fleet = Fleet(5, (1, 2, 3, 4, 5))
    fleet.draining = {1, 2}
    fleet.tell(3, takes_writes=False)
    fleet.silent_s = {5: 1.0}
    assert successor(fleet.view(), TUNING) == store(4)
    fleet.silent_s[4] = 100.0
    assert successor(fleet.view(), TUNING) == store(5)
    fleet.unsettled = {3, 5}
    assert successor(fleet.view(), TUNING) is None


def test_a_voter_that_lost_its_log_learns_as_another_and_takes_its_own_place() -> None:
    fleet = Fleet(3, (1, 2, 3))
    fleet.tell(3, store=77)
    fleet.silent_s = {3: 60.0}
    change = next_change(fleet.view(), TUNING)
    assert change is not None
    assert change.target == Configuration(stores(1, 2, 3), (), (Voter(77, 3),))
    fleet.configuration = change.target
    assert fleet.next() is None, "its former log could be heard again, for an hour"
    members = tuple(
        HeardMember(each, HOUR if each == store(3) else 0.0, has_settled=True)
        for each in fleet.configuration.members
    )
    change = next_change(msgspec.structs.replace(fleet.view(), members=members), TUNING)
    assert change is not None
    assert change.target == Configuration((*stores(1, 2), Voter(77, 3)))


def test_nothing_while_a_change_is_under_way() -> None:
    fleet = Fleet(4, (1,), (2, 3))
    fleet.configuration = Configuration(stores(1, 2, 3), stores(1))
    assert fleet.next() is None
    fleet.zones.pop(2)
    fleet.configuration = Configuration(stores(1, 2, 3), stores(1), stores(4))
    assert fleet.next() is None


# Orders.


def ordered(fleet: Fleet, old: int, new: int) -> Any:
    order = ReplacementOrder(old, new)
    check_order(fleet.view(), order, TUNING)
    change = ordered_change(fleet.view(), order, TUNING)
    return change and told(change)


def test_an_ordered_node_learns_first_and_then_takes_the_place() -> None:
    assert ordered(Fleet(7, (1, 2, 3), (4, 5)), 2, 7) == ("standbys", [1, 2, 3], [4, 7])
    learning = Fleet(7, (1, 2, 3), (4, 7))
    assert ordered(learning, 2, 7) == ("replaced_by_order", [1, 7, 3], [4])
    learning.unsettled = {7}
    assert ordered(learning, 2, 7) is None


def test_who_was_put_out_by_order_is_not_chosen_again() -> None:
    fleet = Fleet(4, (1, 2, 4))
    assert fleet.next() == ("standbys", [1, 2, 4], [3])
    fleet.put_out = frozenset({1003})
    assert fleet.next() is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (4, 5, "does not vote"),
        (1, 2, "votes already"),
        (1, 9, "does not belong"),
        (1, 4, "full, hangs, fails or is too slow"),
        (1, 6, "has not told the leader"),
        (1, 5, "drains"),
    ],
)
def test_orders_that_break_a_rule_say_which(old: int, new: int, says: str) -> None:
    fleet = Fleet(6, (1, 2, 3))
    fleet.tell(4, takes_writes=False)
    fleet.reports.pop(6)
    fleet.draining = {5}
    with pytest.raises(InvalidRequest, match=says):
        ordered(fleet, old, new)


def test_no_order_without_a_majority_or_while_voters_change() -> None:
    fleet = Fleet(6, (1, 2, 3))
    fleet.silent_s = {2: 60.0, 3: 60.0}
    with pytest.raises(InvalidRequest, match="most voters are not in contact"):
        ordered(fleet, 2, 5)
    fleet.configuration = Configuration(stores(1, 2, 3), stores(1))
    with pytest.raises(InvalidRequest, match="being changed"):
        ordered(fleet, 2, 5)
