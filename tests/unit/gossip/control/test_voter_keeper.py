"""A group of voters that grows and heals by itself: whole planes, over streams and disks."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from gossip.control import own_reports
from gossip.control.requests import (
    ControlOrder,
    ReplacementResult,
    UnavailableResult,
    VoterOrdered,
)
from gossip.control.stability import StabilityReport
from gossip.control.voter_keeper import ORDER_S, STALL_S
from gossip.control.voters import SETTLE_S, VoterTuning, settling, settling_learners
from gossip.registry.node import INVITER
from tests.support.control_net import ControlNet, voter

TUNING = VoterTuning(uptime_min_s=0.0, silent_s=120.0, replace_every_s=120.0, standby_lost_s=60.0)
GROWN_S = 60.0


def grown(nodes: int, seed: int = 0) -> ControlNet:
    """Return a net whose voters have grown to what its nodes allow."""
    net = ControlNet(nodes, seed, voter_tuning=TUNING)
    net.run(GROWN_S)
    net.grant(*net.ids, role=INVITER)
    return net


def voters(net: ControlNet) -> set[int]:
    return {each.node for each in net.configuration().voters}


def learners(net: ControlNet) -> set[int]:
    return {each.node for each in net.configuration().learners}


def count(net: ControlNet, label: str) -> int:
    return sum(plane.counts[f"control_voters/{label}"] for plane in net.planes.values())


def only(found: Iterable[Any]) -> Any:
    [one] = found
    return one


def test_a_founder_alone_stays_alone_and_so_does_one_with_a_second() -> None:
    for nodes in (1, 2):
        net = grown(nodes)
        assert voters(net) == {1}
        assert learners(net) == set(range(2, nodes + 1))


def test_three_vote_of_five_and_two_stand_by() -> None:
    net = grown(5)
    assert len(voters(net)) == 3
    assert voters(net) | learners(net) == {1, 2, 3, 4, 5}
    assert count(net, "grown") == 1, "in one change"
    assert net.put(5, "a", b"1").succeeded
    net.agree()


def test_three_vote_soon_where_nodes_settle_soon() -> None:
    """Who has run for long enough says so; who reports as seldom as usual would be heard late."""
    net = ControlNet(3, tuning=settling_learners(2.0), voter_tuning=settling(2.0))
    net.run(15.0)
    assert voters(net) == {1, 2, 3}


def test_by_default_three_vote_once_each_has_run_for_ten_minutes() -> None:
    net = ControlNet(3, tuning=settling_learners(SETTLE_S), voter_tuning=settling(SETTLE_S))
    net.run(SETTLE_S - 10.0)
    assert not learners(net)
    net.run(130.0)
    assert voters(net) == {1, 2, 3}


def test_five_vote_of_nine() -> None:
    net = grown(9)
    assert len(voters(net)) == 5
    assert len(learners(net)) == 2


def test_the_founder_may_die_for_good() -> None:
    net = grown(5)
    net.put(1, "a", b"1")
    net.crash(1)
    net.until(lambda: 1 not in voters(net), within_s=600.0)
    assert len(voters(net)) == 3
    assert net.get(5, "a") == b"1"
    assert count(net, "replaced_silent") == 1


def test_two_voters_that_die_at_once_are_replaced_one_after_the_other() -> None:
    net = grown(9)
    gone = sorted(voters(net) - {net.leader().me.node})[:2]
    for node in gone:
        net.crash(node)
    net.until(lambda: count(net, "replaced_silent") == 1, within_s=2 * TUNING.silent_s)
    net.run(0.9 * TUNING.replace_every_s)
    assert len(voters(net) & set(gone)) == 1
    net.until(lambda: not voters(net) & set(gone), within_s=60.0)
    assert len(voters(net)) == 5


def test_a_new_leader_measures_silence_anew() -> None:
    net = grown(5)
    leader = net.leader()
    gone, successor = sorted(voters(net) - {leader.me.node})
    net.crash(gone)
    net.run(0.8 * TUNING.silent_s)
    assert leader.part.raft is not None
    leader.part.raft.transfer(net.stores[successor], net.now)
    net._perform(leader.me.node)
    net.until(lambda: net.leader().me.node == successor)
    net.run(0.5 * TUNING.silent_s)
    assert gone in voters(net)
    net.until(lambda: gone not in voters(net), within_s=TUNING.silent_s)


def test_a_leader_that_stood_still_holds_that_time_against_nobody() -> None:
    net = grown(5)
    leader = net.leader()
    assert leader.part.raft is not None
    other = next(each for each in leader.part.raft.configuration.voters if each != leader.me)
    keeper = leader.voters
    late = net.now + 2 * TUNING.silent_s
    leader.part.raft.wake(net.now)
    silent = {c.member: c.silent_s for c in keeper._contacts(leader.part.raft, late)}
    assert silent[other] < 2.0, "Raft's clock stands as long as nothing comes in"
    progress = leader.part.raft.replication.followers[other.store]
    progress.heard = net.now - 2 * TUNING.silent_s
    keeper._look_at = keeper._looked_at = net.now - TUNING.look_every_s - STALL_S - 1
    keeper.wake(net.now)
    assert not leader.part.raft.configuration.is_joint
    assert keeper._contacts(leader.part.raft, net.now)[1].silent_s == 0.0


def test_who_was_removed_is_replaced_and_stays_out() -> None:
    net = grown(5)
    gone = next(n for n in sorted(voters(net)) if n != net.leader().me.node)
    del net.zones[gone]
    net.until(lambda: gone not in voters(net), within_s=60.0)
    net.run(GROWN_S)
    assert gone not in voters(net) | learners(net)
    assert len(voters(net)) == 3


def test_of_three_voters_one_votes_when_another_was_removed_and_nobody_else_is_left() -> None:
    net = grown(3)
    gone = next(n for n in sorted(voters(net)) if n != net.leader().me.node)
    del net.zones[gone]
    net.until(lambda: len(voters(net)) == 1, within_s=60.0)
    assert voters(net) | learners(net) == set(net.ids) - {gone}
    net.crash(gone)
    net.separate(*learners(net))
    assert net.put(next(iter(voters(net))), "a").succeeded, "nobody else is needed"


def test_a_leader_that_was_removed_goes_without_a_gap() -> None:
    net = grown(5)
    gone = net.leader().me.node
    del net.zones[gone]
    net.until(lambda: gone not in voters(net), within_s=60.0)
    assert net.put(5, "a").succeeded
    assert len(voters(net)) == 3


def test_two_of_three_voters_that_drain_are_not_missed_when_they_are_switched_off() -> None:
    net = grown(5)
    leader = net.leader().me.node
    net.draining = {leader, max(voters(net) - {leader})}
    net.until(lambda: not voters(net) & net.draining, within_s=60.0)
    net.run(GROWN_S)
    assert len(voters(net)) == 3
    assert not learners(net)
    for node in net.draining:
        net.crash(node)
    assert net.put(min(voters(net)), "a").succeeded
    for node in net.draining:
        net.start(node)
    net.draining = set()
    net.until(lambda: len(learners(net)) == 2, within_s=900.0)


def test_without_a_standby_who_drains_votes_on_and_leads_no_more() -> None:
    net = grown(3)
    first = net.leader().me.node
    net.draining = {first}
    net.until(lambda: net.leader().me.node != first, within_s=60.0)
    second = net.leader().me.node
    net.draining = {first, second}
    net.until(lambda: net.leader().me.node not in net.draining, within_s=60.0)
    net.run(GROWN_S)
    assert voters(net) == {1, 2, 3}
    assert count(net, "handed_over") == 2
    assert count(net, "replaced_draining") == 0


def test_where_all_that_lead_drain_they_are_not_chased_round() -> None:
    net = grown(3)
    net.draining = {1, 2, 3}
    before = net.leader().me.node
    net.run(300.0)
    assert net.leader().me.node == before
    assert voters(net) == {1, 2, 3}


@pytest.mark.interpreted
def test_one_that_does_not_lead_after_all_is_asked_no_more_than_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While leadership is handed over nothing is taken in."""
    net = grown(3)
    leader = net.leader()
    net.draining = set(net.ids) - {min(voters(net) - {leader.me.node})}
    assert leader.part.raft is not None
    monkeypatch.setattr(leader.part.raft, "transfer", lambda _to, _now: None)
    net.run(300.0)
    assert 4 <= count(net, "handed_over") <= 6


def test_an_order_whose_new_voter_drains_by_then_is_dropped() -> None:
    net = grown(6)
    new = only(set(net.ids) - voters(net) - learners(net))
    old = min(voters(net) - {net.leader().me.node})
    assert net.ask(old, ControlOrder(old, new)).result == ReplacementResult("")
    net.draining = {new}
    net.until(lambda: count(net, "orders_dropped") == 1, within_s=60.0)
    net.run(GROWN_S)
    assert new not in voters(net) | learners(net)


def test_no_opinion_of_members_touches_the_voters() -> None:
    net = grown(5)
    before = net.configuration()
    for plane in list(net.planes.values()):
        for node in net.ids:
            if node != plane.me.node:
                plane.peer_gone(node, net.now)
                plane.peer_unreachable(node, net.now)
    net.run(2 * TUNING.silent_s)
    assert voters(net) == {each.node for each in before.voters}
    assert count(net, "replaced_silent") == 0


def test_a_voter_that_lost_its_log_votes_again_as_another_store() -> None:
    net = grown(3)
    lost = next(n for n in sorted(voters(net)) if n != net.leader().me.node)
    net.crash(lost)
    net.lose_log(lost)
    net.start(lost)
    net.until(lambda: voter(lost) not in net.configuration().voters, within_s=900.0)
    assert voters(net) == {1, 2, 3}
    assert net.put(lost, "a").succeeded
    net.agree()


def test_a_full_disk_is_told_at_once_and_passed_over() -> None:
    net = ControlNet(4, voter_tuning=TUNING)
    net.planes[2].hold_back(net.now, held=True)
    net._perform(2)
    net.run(GROWN_S)
    assert voters(net) == {1, 3, 4}
    net.planes[2].hold_back(net.now, held=False)
    net._perform(2)
    net.run(30.0)
    assert learners(net) == {2}


def test_how_long_saves_take_is_measured() -> None:
    net = ControlNet(3, voter_tuning=TUNING)
    net.save_s = lambda node: 0.3 if node == 2 else 0.002
    net.run(GROWN_S)
    for number in range(own_reports.SAVES_MIN):
        net.put(1, f"k{number}")
    net.run(70.0)
    slow = {
        node: plane.own_reports.report(net.now).fsync_p99_ms for node, plane in net.planes.items()
    }
    assert slow[2] is not None
    assert slow[1] is not None
    assert slow[2] >= 300
    assert slow[1] < 50


# Orders.


def test_an_operator_replaces_a_voter_from_any_node() -> None:
    net = grown(6)
    old = next(n for n in sorted(voters(net)) if n != net.leader().me.node)
    new = only(set(net.ids) - voters(net) - learners(net))
    done = net.ask(new, ControlOrder(old, new))
    assert done.result == ReplacementResult("")
    net.until(lambda: new in voters(net), within_s=60.0)
    assert old not in voters(net)
    assert len(voters(net)) == 3
    net.run(GROWN_S)
    assert old not in voters(net) | learners(net), "it was put out on purpose"


def test_who_may_not_let_others_in_says_nothing_of_who_votes() -> None:
    """Who votes gets the authority's key: a plain member would have it by a command of its own."""
    net = grown(6)
    leader = net.leader().me.node
    new = only(set(net.ids) - voters(net) - learners(net))
    old = min(voters(net) - {leader})
    net.grant(*(each for each in net.ids if each != new), role=INVITER)
    before = voters(net)
    result = net.ask(new, ControlOrder(old, new)).result
    assert isinstance(result, ReplacementResult)
    assert "`covey members allow`" in result.refusal
    net.run(60.0)
    assert voters(net) == before
    assert net.leader().counts["control_asks/no_right"] == 1
    (told,) = (each for each in net.told[leader] if isinstance(each, VoterOrdered))
    assert (told.by, told.old, told.new, told.refusal) == (new, old, new, result.refusal)
    net.grant(new)
    assert net.ask(new, ControlOrder(old, new)).result == ReplacementResult("")
    assert [each for each in net.told[leader] if isinstance(each, VoterOrdered)][1].refusal == ""


def test_an_operator_replaces_the_leader() -> None:
    net = grown(5)
    old, new = net.leader().me.node, min(learners(net))
    assert net.ask(new, ControlOrder(old, new)).result == ReplacementResult("")
    net.until(lambda: new in voters(net) and old not in voters(net), within_s=60.0)
    assert net.put(old, "a").succeeded


def test_an_order_that_breaks_a_rule_is_refused_with_it() -> None:
    net = grown(5)
    one, other = sorted(voters(net))[:2]
    result = net.ask(5, ControlOrder(one, other)).result
    assert isinstance(result, ReplacementResult)
    assert "votes already" in result.refusal
    assert count(net, "replaced_by_order") == 0


def test_an_order_without_a_leader_says_so() -> None:
    net = grown(3)
    for node in (1, 2):
        net.crash(node)
    result = net.ask(3, ControlOrder(1, 3, timeout_s=20.0)).result
    assert isinstance(result, UnavailableResult)


def test_an_order_that_nobody_can_carry_out_ends() -> None:
    net = grown(6)
    new = only(set(net.ids) - voters(net) - learners(net))
    before = voters(net)
    old = min(before - {net.leader().me.node})
    assert net.ask(old, ControlOrder(old, new)).result == ReplacementResult("")
    net.crash(new)
    net.run(ORDER_S + 2 * TUNING.look_every_s)
    assert count(net, "orders_dropped") == 1
    assert voters(net) == before


def test_a_report_that_is_lost_is_made_again() -> None:
    net = ControlNet(3, voter_tuning=TUNING)
    net.separate(3)
    net.run(100.0)
    assert voters(net) == {1}
    net.heal()
    net.run(own_reports.AGAIN_MAX_S + 2 * TUNING.look_every_s)
    assert voters(net) == {1, 2, 3}


def test_a_report_that_nobody_answers_is_made_again_later_and_later() -> None:
    net = ControlNet(2, voter_tuning=TUNING)
    reports = net.planes[2].own_reports
    net.until(lambda: reports.deadline() > net.now + own_reports.AGAIN_MAX_S, within_s=10.0)
    now = reports.deadline()
    waits = []
    for _ in range(12):
        reports.wake(now)
        waits.append(reports.deadline() - now)
        now = reports.deadline()
    assert waits[:3] == [1.0, 2.0, 4.0]
    assert waits[-1] == own_reports.AGAIN_MAX_S


def test_who_claims_the_log_of_another_node_holds_nobody_up() -> None:
    """It would be chosen, refused by the rules of the configuration, and chosen again, for ever."""
    net = ControlNet(4, voter_tuning=TUNING)
    leader = net.leader()
    liar = StabilityReport(store=1001, uptime_s=10**9, fsync_p99_ms=1, is_on_mains=True)
    begun = len(leader.voters._reports)
    for claimed in (1001, 1003):
        leader.voters.told(3, msgspec.structs.replace(liar, store=1003), net.now)
        leader.voters.told(4, msgspec.structs.replace(liar, store=claimed), net.now)
    assert 4 not in leader.voters._reports
    assert len(leader.voters._reports) <= begun + 1
    assert leader.counts["control_voters/other_store"] == 2
    net.run(GROWN_S)
    assert len(voters(net)) == 3
