"""What a leader tells people of those who take part, and why no more of them vote."""

from gossip.consensus.status import ConsensusStatus, MemberProgress
from gossip.control.messages import (
    WAITS_TOLD_MAX,
    MemberOverview,
    NoVoteReason,
    OverviewAnswer,
)
from gossip.control.stability import HeardReport
from gossip.control.voters import VoterTuning, VoterView, is_fit, stable_nodes, wanted_voters
from gossip.core.ids import NodeId

NOT_HEARD = "it has told the leader nothing of itself lately"
JUST_STARTED = "its agent has not run for long enough"
UNFIT = "its disk is full, hangs, fails or is too slow, or its version is too early"
DRAINS = "it drains"
PUT_OUT = "an operator has put another in its place"
LEARNS = "it learns, and has to keep up for a while"
IS_READY = "it stands by"
SOON = frozenset({JUST_STARTED, LEARNS, IS_READY})
"""Who does not vote for one of these reasons may do so before long."""


def overview(view: VoterView, status: ConsensusStatus, tuning: VoterTuning) -> OverviewAnswer:
    """Return what the leader knows."""
    assert status.me in view.configuration.members, "who leads takes part"
    reports = {each.voter: each for each in view.reports}
    members = [_member(each, reports.get(each.member), view) for each in status.members]
    me = MemberProgress(
        status.me, status.configuration.is_voter(status.me.store), status.last_index, "", 0.0,
        has_settled=True, is_fenced=False,
    )  # fmt: skip
    return OverviewAnswer(
        status.term,
        status.commit_index,
        status.last_index,
        (_member(me, reports.get(status.me), view), *members),
        wanted_voters(view, tuning),
        view.configuration.is_joint,
        tuple(_waits(view, tuning))[:WAITS_TOLD_MAX],
    )


def _member(progress: MemberProgress, heard: HeardReport | None, view: VoterView) -> MemberOverview:
    told = heard.report if heard is not None else None
    since_s = int(view.now - heard.heard_at) if heard is not None else 0
    return MemberOverview(
        progress.member.node,
        progress.member.store,
        progress.is_voter,
        progress.match_index,
        int(1000 * max(0.0, progress.heard_s_ago)),
        progress.has_settled,
        progress.is_fenced,
        told.uptime_s + since_s if told else None,
        told.fsync_p99_ms if told else None,
        told.is_on_mains if told else None,
        told.takes_writes if told else None,
    )


def _waits(view: VoterView, tuning: VoterTuning) -> list[NoVoteReason]:
    """Say of each node that does not vote why not."""
    voters = {each.node for each in view.configuration.voters}
    others = sorted(view.zones.keys() - voters)
    return [NoVoteReason(node, _reason(view, tuning, node)) for node in others]


def _reason(view: VoterView, tuning: VoterTuning, node: NodeId) -> str:
    if node in view.draining:
        return DRAINS
    heard = next((each for each in view.reports if each.node == node), None)
    if heard is None or view.now - heard.heard_at > tuning.report_fresh_s:
        return NOT_HEARD
    if not is_fit(heard, tuning):
        return UNFIT
    if heard.report.store in view.put_out:
        return PUT_OUT
    if node not in stable_nodes(view, tuning):
        return JUST_STARTED
    is_learner = heard.voter in view.configuration.learners
    has_settled = any(each.has_settled for each in view.members if each.member == heard.voter)
    return LEARNS if is_learner and not has_settled else IS_READY
