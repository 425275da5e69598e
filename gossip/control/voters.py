"""Who is to vote: what a leader changes of it, as a pure function of what it knows.

The first node votes alone until two others have kept up as learners; then three vote, after *one*
change. From nine nodes on that are stable, five do. Two never vote: both would have to be up. The
number never falls, unless voters were removed and the covey has nobody for their places. Beside the
voters stand up to two *standbys*: learners, one of which takes the place of a voter that is gone.

A voter's place is given to another by itself only if all of this holds (reference: consul#5922,
where a list of members shrank the voters until nobody could decide): a majority of the voters is in
contact with this leader; the voter has not been heard *by Raft* for an hour, all of which this
leader has led, awake; a standby has kept up; and the last such change is an hour ago. A voter that
was removed from the covey has no such hour: an operator has decided that. Nor has one that drains:
it votes until a standby has its vote, for who is to be switched off is not to be missed.
"""

from collections.abc import Iterable, Mapping

import msgspec

from gossip.consensus.configuration import Configuration, StoreId, Voter
from gossip.consensus.tuning import ConsensusTuning
from gossip.control.stability import HeardReport, StabilityReport, instability
from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId

STANDBYS_MAX = 2
SETTLE_S = 600.0
"""Who has run for so long may vote, unless the settings say otherwise."""
STABLE_FOR_THREE, STABLE_FOR_FIVE = 3, 9


class VoterTuning(msgspec.Struct, frozen=True, kw_only=True):
    """The intervals and limits of who votes."""

    silent_s: float = 3600.0
    """A voter that Raft has not heard for so long may be replaced ..."""
    replace_every_s: float = 3600.0
    """... and no other one before so much time has passed."""
    contact_s: float = 15.0
    """Who was heard within this time is in contact: three elections' heartbeats."""
    standby_lost_s: float = 600.0
    """A standby that was not heard for so long makes room for another."""
    report_fresh_s: float = 1_500.0
    """What a node says of itself counts for two of the intervals at which it says it."""
    uptime_min_s: float = SETTLE_S
    """Who has just started may be about to stop: a device in a crash loop never votes."""
    report_every_s: float = SETTLE_S
    """A node tells the leader of itself this often ..."""
    look_every_s: float = 10.0
    """... and the leader looks this often whether a change is due."""
    fsync_p99_max_ms: int = 2_000
    """A disk that takes longer would hold up everybody, again and again."""

    def __post_init__(self) -> None:
        assert 0 < self.contact_s < self.silent_s, "who is in contact is not silent"
        assert self.contact_s < self.standby_lost_s, "a standby may miss a heartbeat"


def settling(settle_s: float) -> VoterTuning:
    """Return the tuning with which who has run for so long may vote.

    The reports follow, or nobody would hear of it in time; they come no more seldom than usual.
    """
    usual = VoterTuning()
    return VoterTuning(
        uptime_min_s=settle_s,
        report_every_s=min(settle_s, usual.report_every_s),
        look_every_s=min(settle_s, usual.look_every_s),
    )


def settling_learners(settle_s: float) -> ConsensusTuning:
    """Return the tuning with which a standby has to keep up for a tenth of that first."""
    usual = ConsensusTuning()
    return ConsensusTuning(learner_settle_s=min(settle_s / 10, usual.learner_settle_s))


class HeardMember(msgspec.Struct, frozen=True):
    """What the leader knows by Raft of one who takes part, itself among them."""

    member: Voter
    silent_s: float
    """How long it was not heard, of the time in which this leader could have heard it."""
    has_settled: bool
    """Whether it has kept up for long enough to get a vote."""


class VoterView(msgspec.Struct, frozen=True):
    """All that decides who is to vote."""

    configuration: Configuration
    zones: Mapping[NodeId, str]
    """Who belongs to the covey, and where it stands."""
    reports: tuple[HeardReport, ...]
    members: tuple[HeardMember, ...]
    since_replaced_s: float
    """How long ago this leader last replaced a voter by itself, or began to lead."""
    now: float
    put_out: frozenset[StoreId] = frozenset()
    """Stores that an operator has taken out: nobody chooses them again."""
    draining: frozenset[NodeId] = frozenset()
    """Who is to own nothing, by an operator's word, and so no vote either."""


class VoterChange(msgspec.Struct, frozen=True):
    """A change to be made, and its kind: a label of ``control_voters``."""

    target: Configuration
    kind: str


class ReplacementOrder(msgspec.Struct, frozen=True):
    """An operator wants one node to vote in the place of another."""

    old: NodeId
    new: NodeId


def next_change(view: VoterView, tuning: VoterTuning) -> VoterChange | None:
    """Return what is to be changed now, the most urgent first; None: nothing."""
    if view.configuration.is_joint or not has_quorum(view, tuning):
        return None
    for rule in (_replace_removed, _replace_draining, _replace_silent, _grow, _standbys):
        change = rule(view, tuning)
        if change is not None:
            return change
    return None


# What holds of a node.


def has_quorum(view: VoterView, tuning: VoterTuning) -> bool:
    """Tell whether a majority of the voters is in contact."""
    present = (c.member.store for c in view.members if c.silent_s <= tuning.contact_s)
    return view.configuration.is_quorum(present)


def _fresh(view: VoterView, tuning: VoterTuning) -> dict[NodeId, HeardReport]:
    return {
        each.node: each
        for each in view.reports
        if view.now - each.heard_at <= tuning.report_fresh_s and each.node in view.zones
    }


def is_fit(heard: HeardReport, tuning: VoterTuning) -> bool:
    """Tell whether the disk of a node can keep up."""
    fsync_ms = heard.report.fsync_p99_ms
    return heard.report.takes_writes and (fsync_ms is None or fsync_ms <= tuning.fsync_p99_max_ms)


def stable_nodes(view: VoterView, tuning: VoterTuning) -> dict[NodeId, HeardReport]:
    """Return who may be given a vote, as far as they themselves can tell."""
    return {
        node: heard
        for node, heard in _fresh(view, tuning).items()
        if is_fit(heard, tuning)
        and heard.report.uptime_s >= tuning.uptime_min_s
        and heard.report.store not in view.put_out
        and node not in view.draining
    }


def _silent_s(view: VoterView, voter: Voter) -> float:
    return next((c.silent_s for c in view.members if c.member == voter), 0.0)


def _ready(view: VoterView, tuning: VoterTuning, beside: Iterable[Voter] = ()) -> list[HeardReport]:
    """Return the learners that could vote at once, on other nodes than these voters'."""
    nodes = {each.node for each in beside}
    stable = {heard.voter: heard for heard in stable_nodes(view, tuning).values()}
    learners = set(view.configuration.learners)
    return [
        stable[each.member]
        for each in view.members
        if each.member in learners
        and each.member in stable
        and each.member.node not in nodes
        and each.has_settled
        and each.silent_s <= tuning.contact_s
    ]


def _best(
    found: Iterable[HeardReport], count: int, among: Iterable[Voter], view: VoterView
) -> list[Voter]:
    """Return the best of those that were found: first where nobody is yet, then the steadiest."""
    left, chosen = list(found), list(among)
    before = len(chosen)
    while left and len(chosen) - before < count:
        taken = {view.zones.get(each.node, "") for each in chosen}

        def rank(heard: HeardReport, taken: set[str] = taken) -> tuple[object, ...]:
            return view.zones[heard.node] in taken, instability(heard.report), heard.node

        best = min(left, key=rank)
        left.remove(best)
        chosen.append(best.voter)
    return chosen[before:]


# The rules.


def _put_in(view: VoterView, old: Voter, new: Voter, kind: str) -> VoterChange:
    """Return the change that gives one voter's place to a learner: one step, and as many votes."""
    now = view.configuration
    assert old in now.voters, "a place is taken over from who has it"
    assert new in now.learners, "who gets a vote has learned first"
    voters = tuple(new if each == old else each for each in now.voters)
    learners = tuple(each for each in now.learners if each != new)
    return VoterChange(Configuration(voters, (), learners), kind)


def _replace(view: VoterView, tuning: VoterTuning, old: Voter, kind: str) -> VoterChange | None:
    others = [each for each in view.configuration.voters if each != old]
    best = _best(_ready(view, tuning, others), 1, others, view)
    return _put_in(view, old, best[0], kind) if best else None


def _replace_removed(view: VoterView, tuning: VoterTuning) -> VoterChange | None:
    """Give the place of a voter that does not belong any more to a standby, or up."""
    for voter in view.configuration.voters:
        if voter.node not in view.zones:
            return _replace(view, tuning, voter, "replaced_removed") or _shrink(view)
    return None


def _shrink(view: VoterView) -> VoterChange | None:
    """Let as many vote as can, of the odd numbers, if the covey has too few nodes for more.

    Whoever was removed counts in every majority for ever. So the two that are left of three would
    have to be up both; one votes, and the other stands by.
    """
    now = view.configuration
    if len(view.zones) >= len(now.voters):
        return None  # somebody else can take the place, sooner or later
    present = sorted(
        (each for each in now.voters if each.node in view.zones),
        key=lambda each: _silent_s(view, each),
    )
    if not now.is_quorum(each.store for each in present):
        return None  # who was removed would have to agree
    count = len(present) - (len(present) % 2 == 0)
    assert 0 < count < len(now.voters), "a majority is left, and one is gone"
    kept = (each for each in (*now.learners, *present[count:]) if each.node in view.zones)
    voters = tuple(each for each in now.voters if each in present[:count])
    return VoterChange(Configuration(voters, (), tuple(kept)[:STANDBYS_MAX]), "removed")


def _replace_draining(view: VoterView, tuning: VoterTuning) -> VoterChange | None:
    """Give the place of a voter that is to own nothing to a standby; without one it votes on."""
    draining = (each for each in view.configuration.voters if each.node in view.draining)
    changes = (_replace(view, tuning, voter, "replaced_draining") for voter in draining)
    return next((change for change in changes if change is not None), None)


def _replace_silent(view: VoterView, tuning: VoterTuning) -> VoterChange | None:
    """Give the place of the voter that has been silent longest, and long enough, to a standby."""
    if view.since_replaced_s < tuning.replace_every_s:
        return None
    longest = max(view.configuration.voters, key=lambda voter: _silent_s(view, voter))
    if _silent_s(view, longest) < tuning.silent_s:
        return None
    return _replace(view, tuning, longest, "replaced_silent")


def wanted_voters(view: VoterView, tuning: VoterTuning) -> int:
    """Return how many should vote, of as many nodes as are stable; never fewer than do."""
    voters = view.configuration.voters
    present = {v.node for v in voters if _silent_s(view, v) <= tuning.contact_s}
    staying = (present & view.zones.keys()) - view.draining
    count = len(staying | stable_nodes(view, tuning).keys())
    if count >= STABLE_FOR_FIVE and len(voters) >= STABLE_FOR_THREE:
        return max(5, len(voters))
    return max(3 if count >= STABLE_FOR_THREE else 1, len(voters))


def _grow(view: VoterView, tuning: VoterTuning) -> VoterChange | None:
    """Let as many more vote as are wanted, all at once: one becomes three, three become five."""
    now = view.configuration
    more = wanted_voters(view, tuning) - len(now.voters)
    best = _best(_ready(view, tuning, now.voters), more, now.voters, view)
    if more <= 0 or len(best) < more:
        return None
    learners = tuple(each for each in now.learners if each not in best)
    assert len(now.voters) + more != 2, "two voters are worse than one"
    return VoterChange(Configuration((*now.voters, *best), (), learners), "grown")


def _standbys(view: VoterView, tuning: VoterTuning) -> VoterChange | None:
    """Have the best of the others keep up with the log; let go of standbys that cannot."""
    now = view.configuration
    kept = [each for each in now.learners if _may_stay(view, tuning, each)]
    taken = {each.node for each in kept} | {each.node for each in now.voters if _lives(view, each)}
    spares = [each for node, each in stable_nodes(view, tuning).items() if node not in taken]
    more = STANDBYS_MAX - len(kept)
    learners = (*kept, *_best(spares, more, (*now.voters, *kept), view))
    if set(learners) == set(now.learners):
        return None
    return VoterChange(Configuration(now.voters, (), learners), "standbys")


def _lives(view: VoterView, member: Voter) -> bool:
    """Tell whether the log of a member is still there: its node does not tell of another one."""
    return all(heard.voter == member for heard in view.reports if heard.node == member.node)


def _may_stay(view: VoterView, tuning: VoterTuning, standby: Voter) -> bool:
    heard = _fresh(view, tuning).get(standby.node)
    can_keep_up = heard is None or (is_fit(heard, tuning) and heard.voter == standby)
    is_there = _silent_s(view, standby) < tuning.standby_lost_s
    belongs = standby.node in view.zones and standby.node not in view.draining
    return belongs and can_keep_up and is_there


def successor(view: VoterView, tuning: VoterTuning) -> Voter | None:
    """Return who should lead in place of a leader that drains; None: nobody better is there."""
    fit = {node for node, heard in _fresh(view, tuning).items() if is_fit(heard, tuning)}
    able = [
        each
        for each in view.members
        if each.member in view.configuration.voters
        and each.member.node in view.zones.keys() - view.draining
        and each.has_settled
        and each.silent_s <= tuning.contact_s
    ]
    best = min(able, key=lambda each: (each.member.node not in fit, each.silent_s), default=None)
    return best.member if best is not None else None


def better_leader(view: VoterView, own: StabilityReport, tuning: VoterTuning) -> Voter | None:
    """Return who is to lead in our place, if our disk is too slow to: a voter that keeps up.

    Each command waits for the leader's disk. One that takes nothing at all is Raft's to notice.
    """
    if own.fsync_p99_ms is None or own.fsync_p99_ms <= tuning.fsync_p99_max_ms:
        return None
    fresh = {heard.voter: heard for heard in _fresh(view, tuning).values()}
    able = [
        fresh[each.member]
        for each in view.members
        if each.member in view.configuration.voters
        and each.member in fresh
        and each.member.store != own.store
        and each.member.node not in view.draining
        and each.has_settled
        and each.silent_s <= tuning.contact_s
        and is_fit(fresh[each.member], tuning)
    ]
    best = min(able, key=lambda heard: (instability(heard.report), heard.node), default=None)
    assert best is None or best.report.takes_writes, "who leads can write"
    return best.voter if best is not None else None


# What an operator orders.


def check_order(view: VoterView, order: ReplacementOrder, tuning: VoterTuning) -> None:
    """Raise InvalidRequest, with what to do, for an order that breaks a rule."""
    if view.configuration.is_joint:
        raise InvalidRequest("the voters are being changed; nothing was begun, try again soon")
    if not has_quorum(view, tuning):
        raise InvalidRequest("most voters are not in contact; start them, nothing was begun")
    nodes = {each.node for each in view.configuration.voters}
    if order.old not in nodes:
        raise InvalidRequest("the node to be replaced does not vote; `covey voters` lists who does")
    if order.new in nodes:
        raise InvalidRequest("the new node votes already; name one that does not")
    if order.new not in view.zones:
        raise InvalidRequest("the new node does not belong to the covey; let it join first")
    if order.new in view.draining:
        raise InvalidRequest("the new node drains; `covey node undrain` it first")
    heard = _fresh(view, tuning).get(order.new)
    if heard is None:
        raise InvalidRequest(
            "the new node has not told the leader of itself lately; see whether its agent runs, "
            "and try again in ten minutes"
        )
    if not is_fit(heard, tuning):
        raise InvalidRequest(
            "the disk of the new node is full, hangs, fails or is too slow to vote, or its version "
            "is too early; mend it or name another node"
        )


def ordered_change(
    view: VoterView, order: ReplacementOrder, tuning: VoterTuning
) -> VoterChange | None:
    """Return the next step of an order that was checked; None: wait."""
    now = view.configuration
    old = next((each for each in now.voters if each.node == order.old), None)
    heard = _fresh(view, tuning).get(order.new)
    if now.is_joint or not has_quorum(view, tuning) or old is None or heard is None:
        return None
    if heard.voter not in now.learners:
        return VoterChange(_with_learner(now, heard.voter), "standbys")
    is_ready = any(
        each.member == heard.voter and each.has_settled and each.silent_s <= tuning.contact_s
        for each in view.members
    )
    return _put_in(view, old, heard.voter, "replaced_by_order") if is_ready else None


def _with_learner(now: Configuration, new: Voter) -> Configuration:
    """Make room among the standbys for the one that was ordered."""
    others = [each for each in now.learners if each.node != new.node]
    return Configuration(now.voters, (), (*others[: STANDBYS_MAX - 1], new))
