"""What a leader does about who votes: it looks now and then, and begins the change that is due.

All that it goes by is its own: reports that came to it, when Raft heard each voter, when it last
replaced one. It is measured on its own clock, in its memory, and begins anew with each leader. In
time in which it stood still it could have heard nobody, so no voter is silent by that time.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from gossip.consensus.configuration import StoreId
from gossip.consensus.raft import Raft
from gossip.consensus.requests import NotLeader, Overloaded
from gossip.consensus.roles import Role
from gossip.control.messages import OverviewAnswer
from gossip.control.stability import HeardReport, StabilityReport
from gossip.control.voter_overview import overview
from gossip.control.voters import (
    HeardMember,
    ReplacementOrder,
    VoterChange,
    VoterTuning,
    VoterView,
    better_leader,
    check_order,
    next_change,
    ordered_change,
    successor,
)
from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

STALL_S = 5.0
"""Woken later than asked by this much: we were stopped, and judge nobody by that time."""
ORDER_S = 900.0
"""An order that is not carried out by then is dropped: the new node does not keep up."""
HAND_OVER_EVERY_S = 60.0
"""A leader that drains takes nothing in while it hands over, and tries no more often than this."""

Draining = Callable[[], Collection[NodeId]]
"""Returns who is to own nothing, by the registry."""
Zones = Callable[[], Mapping[NodeId, str]]
"""Returns who belongs to the covey by the registry, and in which zone each stands."""


class VoterKeeper:
    """Keeps the group of voters large and whole, while we lead."""

    def __init__(
        self,
        zones: Zones,
        draining: Draining,
        raft: Callable[[], Raft | None],
        origin: Callable[[], StoreId],
        own_report: Callable[[Instant], StabilityReport],
        tuning: VoterTuning,
    ) -> None:
        """``origin`` is that of our generation (``recovery.py``); ``own_report`` tells of us."""
        self._zones = zones
        self._draining = draining
        self._raft = raft
        self._origin = origin
        self._own_report = own_report
        self._tuning = tuning
        self.counts: Counter[str] = Counter()
        self._term: int | None = None
        self._reports: dict[NodeId, HeardReport] = {}
        self._awake_since: Instant = 0.0
        self._replaced_at: Instant = 0.0
        self._looked_at: Instant = 0.0
        self._look_at: Instant = 0.0
        self._hand_over_at: Instant = 0.0
        self._order: tuple[ReplacementOrder, Instant] | None = None
        self._put_out: set[StoreId] = set()

    def _leading(self) -> Raft | None:
        raft = self._raft()
        return raft if raft is not None and raft.role is Role.LEADER else None

    def leader_changed(self, now: Instant) -> None:
        """Begin to keep watch if we lead, from nothing; forget all if we do not."""
        raft = self._leading()
        term = raft.term if raft is not None else None
        if term == self._term:
            return
        self._term = term
        self._reports.clear()
        self._put_out.clear()
        self._order = None
        self._awake_since = self._replaced_at = self._looked_at = now
        self._look_at = now + self._tuning.look_every_s
        self._hand_over_at = now

    def told(self, node: NodeId, report: StabilityReport, now: Instant) -> bool:
        """A node tells how it is; of a log that another node has, it tells nothing.

        False if it follows another generation, or another recovery of ours: it is not let in, for
        it would vote in both.
        """
        raft = self._leading()
        if self._term is None or raft is None or node not in self._zones():
            return True
        is_of_ours = report.generation == raft.generation and report.origin in (0, self._origin())
        if report.generation and not is_of_ours:
            self.counts["control_voters/other_generation"] += 1
            return False
        known = raft.configuration.member(report.store)
        owner = known.node if known is not None else self._reporter(report.store)
        if owner in (None, node):
            self._reports[node] = HeardReport(node, report, now)
        else:
            self.counts["control_voters/other_store"] += 1
        return True

    def _reporter(self, store: StoreId) -> NodeId | None:
        """Return who has told of a log first."""
        told = (node for node, heard in self._reports.items() if heard.report.store == store)
        return next(told, None)

    def takes_writes(self, store: StoreId) -> bool:
        """Tell whether a voter could write, by what its node told last; so it is until it tells."""
        told = (each.report for each in self._reports.values() if each.report.store == store)
        return all(report.takes_writes for report in told)

    def order(self, order: ReplacementOrder, now: Instant) -> None:
        """Begin to replace a voter, as an operator wants it; the newest order counts.

        ``control_voters/replaced_by_order`` counts those that were carried out. Raises NotLeader,
        or InvalidRequest that says which rule the order breaks.
        """
        raft = self._leading()
        if raft is None:
            raise NotLeader(None)
        check_order(self._view(raft, now), order, self._tuning)
        self._order = order, now + ORDER_S
        self._look_at = now

    def keeping_up(self) -> frozenset[StoreId]:
        """Return who has taken over the log of our term, and was heard lately; nobody elsewhere."""
        raft = self._leading()
        if raft is None:
            return frozenset()
        others = (
            each.member.store
            for each in raft.status().members
            if each.match_index and each.heard_s_ago <= self._tuning.contact_s
        )
        return frozenset((raft.me.store, *others))

    def overview(self, now: Instant) -> OverviewAnswer | None:
        """Return what we know as the leader; None if we do not lead."""
        raft = self._leading()
        if raft is None:
            return None
        return overview(self._view(raft, now), raft.status(), self._tuning)

    # Looking.

    def wake(self, now: Instant) -> None:
        """Look, when it is time to."""
        raft = self._leading()
        if self._term is None or raft is None or self._look_at > now:
            return
        look_every_s = self._tuning.look_every_s
        if now - self._looked_at > look_every_s + STALL_S:
            self._awake_since = now
        self._looked_at, self._look_at = now, now + look_every_s
        view = self._view(raft, now)
        if not view.zones:
            return
        self._reports = {n: heard for n, heard in self._reports.items() if n in view.zones}
        change = self._due(view, now)
        if change is not None:
            self._begin(raft, change, now)
        elif self._hand_over_at <= now:
            self._hand_over(raft, view, now)

    def _hand_over(self, raft: Raft, view: VoterView, now: Instant) -> None:
        """Let somebody lead who is not about to be switched off, or whose disk is not too slow."""
        drains = raft.me.node in view.draining
        other = (
            successor(view, self._tuning)
            if drains
            else better_leader(view, self._own_report(now), self._tuning)
        )
        if other is None or raft.configuration.is_joint:
            return
        self._hand_over_at = now + HAND_OVER_EVERY_S
        try:
            raft.transfer(other.store, now)
        except (InvalidRequest, NotLeader, Overloaded):
            self.counts["control_voters/refused"] += 1
            return
        self.counts["control_voters/handed_over"] += 1

    def _due(self, view: VoterView, now: Instant) -> VoterChange | None:
        """Return what is due; an order first, and nothing beside it."""
        if self._order is None:
            return next_change(view, self._tuning)
        order, until = self._order
        is_done = any(each.node == order.new for each in view.configuration.voters)
        if is_done or until <= now or order.new in view.draining:
            self._order = None
            self.counts["control_voters/orders_dropped"] += not is_done
            return None
        return ordered_change(view, order, self._tuning)

    def _begin(self, raft: Raft, change: VoterChange, now: Instant) -> None:
        before = raft.configuration
        is_fewer = len(change.target.voters) < len(before.voters)
        assert not is_fewer or change.kind == "removed", "by itself their number never falls"
        try:
            raft.change(change.target, now)
        except (InvalidRequest, NotLeader, Overloaded):
            self.counts["control_voters/refused"] += 1
            return
        self.counts[f"control_voters/{change.kind}"] += 1
        if change.kind == "replaced_silent":
            self._replaced_at = now
        if change.kind == "replaced_by_order":
            gone = {v.store for v in before.voters} - {v.store for v in change.target.voters}
            self._put_out |= gone

    def _view(self, raft: Raft, now: Instant) -> VoterView:
        return VoterView(
            raft.configuration,
            self._zones(),
            tuple(self._reports.values()),
            self._contacts(raft, now),
            now - max(self._replaced_at, self._awake_since),
            now,
            frozenset(self._put_out),
            frozenset(self._draining()),
        )

    def _contacts(self, raft: Raft, now: Instant) -> tuple[HeardMember, ...]:
        awake_s = now - self._awake_since
        return (
            HeardMember(raft.me, 0.0, has_settled=True),
            *(
                HeardMember(
                    each.member,
                    min(each.heard_s_ago, awake_s),
                    each.has_settled and not each.is_fenced,
                )
                for each in raft.status().members
            ),
        )

    def deadline(self) -> Instant | None:
        """Return when to look."""
        return self._look_at if self._term is not None else None
