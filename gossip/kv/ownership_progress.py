"""Tells the issuers what stages are done here; and, at an issuer, gathers what all nodes tell.

A report names partitions of which this node has done what their stage asks (``handoff.py``), under
the registry of its epoch. It is told again every few seconds until that registry is followed by
another one, so a lost frame, or an issuer that was away, costs time alone. Nothing of it is kept on
a disk: an issuer that starts anew is told again.

Who is absent, or owns nothing, reports also when it has done nothing: by that it is heard
(``presence.py``).

All issuers are told alike, and one of them acts: who leads the control plane, or else the first
that votes (``acting_issuer``). Two that both believe to be the one cost a proposal that is refused,
and nothing more; while nobody does, time is lost.

The one that has heard enough of a partition says ``OwnersReady``, once a second at most, with all
that is ready then, who came or stays away, and which owners are missing (``contact.py``); the
runtime has the next registry agreed on (``registry.advance``). So a hundred devices that start at
once make one registry, not a hundred.
"""

from collections import defaultdict
from collections.abc import Callable, Collection

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.contact import Contact
from gossip.kv.handoff import Handoff
from gossip.kv.limits import (
    ADVANCE_INTERVAL_S,
    MISSING_AFTER_S,
    PRESENCE_INTERVAL_S,
    REPORT_DELAY_S,
    REPORT_INTERVAL_S,
)
from gossip.kv.messages import Reached, Ready
from gossip.kv.parts import KvParts
from gossip.kv.presence import Presence
from gossip.kv.requests import OwnersReady
from gossip.registry.ownership import Stage
from gossip.registry.registry import Registry, replaceable

Voting = Callable[[], tuple[NodeId | None, Collection[NodeId]]]
"""Returns who leads the control plane (None: nobody that we know), and who votes there."""


def _nobody_votes() -> tuple[NodeId | None, Collection[NodeId]]:
    return None, ()


def acting_issuer(
    registry: Registry, leader: NodeId | None, voters: Collection[NodeId]
) -> NodeId | None:
    """Return which issuer carries partitions on; None if there is no issuer."""
    issuers = [each.id for each in registry.nodes if each.is_issuer]
    if leader in issuers:
        return leader
    return next((each for each in issuers if each in voters), next(iter(issuers), None))


class OwnershipProgress:
    """Manages who has done what a partition's stage asks: told by nodes, gathered by the issuer."""

    def __init__(self, parts: KvParts, handoff: Handoff) -> None:
        self._replica = parts.replica
        self._registry_sync = parts.registry_sync
        self._handoff = handoff
        self._outbound = parts.outbound
        self.voting: Voting = _nobody_votes
        """Returns who leads the control plane and who votes; where there is none, it is unset."""
        self._presence = Presence()
        self._contact = Contact(parts.outbound.me, MISSING_AFTER_S)
        self._asked: set[int] = set()
        """The numbers of the last questions for a sign of life."""
        self._is_absent = self._must_show_presence = False
        self._reported: set[int] = set()
        self._report_at: Instant | None = None
        self._reached: defaultdict[int, set[NodeId]] = defaultdict(set)
        self._advance_at: Instant | None = None
        self._advanced_at: Instant = float("-inf")

    def judge_after(self, missing_after_s: float, now: Instant) -> None:
        """Take owners for missing that were silent for so long; 0: never."""
        self._contact = Contact(self._outbound.me, missing_after_s)
        self._update_presence(now)

    # Telling

    def adopted(self, changed: set[int], now: Instant) -> None:
        """The registry has changed, and the entries of these partitions with it."""
        for partition in changed:
            self._reached.pop(partition, None)
        self._reported.clear()
        self._update_presence(now)
        self._advance_at = None
        self._advanced_at = now
        self._check(now)
        self._consider(now)

    def _update_presence(self, now: Instant) -> None:
        registry, me = self._registry_sync.registry, self._outbound.me
        if self._is_issuer():
            self._presence.adopted(registry, now)
            self._contact.adopted(registry, now)
        entry = registry.node(me)
        self._is_absent = entry is not None and entry.absent
        self._must_show_presence = self._is_absent or me in registry.idle

    def advance(self, now: Instant) -> None:
        """See whether there is something new to tell."""
        if not self._reported.issuperset(self._handoff.done):
            self._check(now)

    def _check(self, now: Instant) -> None:
        due = now + REPORT_DELAY_S
        if self._must_show_presence or self._unreported():
            self._report_at = due if self._report_at is None else min(due, self._report_at)

    def _unreported(self) -> list[int]:
        """Return the partitions on their way of which we have done our part."""
        registry, done = self._registry_sync.registry, self._handoff.done
        return sorted(p for p in done if registry.ownership(p).stage is not Stage.SETTLED)

    def _report(self, now: Instant) -> None:
        partitions = self._unreported()
        self._reported = set(self._handoff.done)
        self._report_at = None
        if not partitions and not self._must_show_presence:
            return
        is_acted_upon = partitions or self._is_absent
        self._report_at = now + (REPORT_INTERVAL_S if is_acted_upon else PRESENCE_INTERVAL_S)
        registry = self._registry_sync.registry
        token = max(map(self._replica.token, partitions), default=0)
        report = Reached(registry.epoch, tuple(partitions))
        for node in registry.nodes:
            if node.is_issuer:
                self._outbound.send(report, node.id, token)

    # Gathering

    def on_frame(self, peer: NodeId, now: Instant) -> None:
        """A frame of a member came, whatever it says."""
        self._contact.heard(peer)
        if self._presence.saw_frame(peer):
            self._consider(now)

    def answered(self, number: int) -> bool:
        """A node has answered; say whether it was a question for a sign of life of ours."""
        is_ours = number in self._asked
        self._asked.discard(number)
        return is_ours

    def reached(self, message: Reached, peer: NodeId, now: Instant) -> None:
        """A node has done its part of these partitions."""
        registry = self._registry_sync.registry
        for partition in message.partitions:
            if not registry.has(partition):
                continue
            ownership = registry.ownership(partition)
            if ownership.since <= message.epoch <= registry.epoch and peer in ownership.holders:
                self._reached[partition].add(peer)
        self._consider(now)

    def _ready(self) -> dict[int, frozenset[NodeId]]:
        """Return what was reached of the partitions that can go on."""
        registry, members = self._registry_sync.registry, self._registry_sync.members
        return {
            partition: frozenset(done)
            for partition, done in sorted(self._reached.items())
            if registry.ownership(partition).may_advance(frozenset(done), members)
        }

    def _consider(self, now: Instant) -> None:
        if self._advance_at is None and self._is_issuer() and self._is_news():
            self._advance_at = max(now + REPORT_DELAY_S, self._advanced_at + ADVANCE_INTERVAL_S)

    def _is_news(self) -> bool:
        presence, contact = self._presence, self._contact
        return bool(
            presence.here or presence.away or contact.found or self._missing() or self._ready()
        )

    def _missing(self) -> frozenset[NodeId]:
        return replaceable(self._registry_sync.registry, self._contact.missing)

    def _look(self, now: Instant) -> None:
        """Look who was heard, when it is time, and ask who was not."""
        due = self._contact.deadline()
        if due is None or now < due:
            return
        self._asked.clear()
        for node in self._contact.wake(now):
            number = self._outbound.number()
            self._asked.add(number)
            self._outbound.send(Ready(number), node)
        self._consider(now)

    def _is_issuer(self) -> bool:
        entry = self._registry_sync.registry.node(self._outbound.me)
        return entry is not None and entry.is_issuer

    def wake(self, now: Instant) -> None:
        """Tell, or say what is ready, when it is time."""
        if self._report_at is not None and now >= self._report_at:
            self._report(now)
        if self._presence.wake(now):
            self._consider(now)
        self._look(now)
        if self._advance_at is not None and now >= self._advance_at:
            self._advance_at = None
            if self._is_news() and self._is_issuer():
                if self._acts():
                    self._say_ready()
                # If nothing comes of it, say it again; or look whether it is for us by then.
                self._advance_at = now + REPORT_INTERVAL_S

    def _acts(self) -> bool:
        registry = self._registry_sync.registry
        return acting_issuer(registry, *self.voting()) == self._outbound.me

    def _say_ready(self) -> None:
        epoch, presence = self._registry_sync.registry.epoch, self._presence
        missing, found = self._missing(), self._contact.found
        ready = OwnersReady(epoch, self._ready(), presence.here, presence.away, missing, found)
        self._outbound.emit(ready)

    def deadline(self) -> Instant | None:
        """Return when to tell, or to go on."""
        presence, contact = self._presence.deadline(), self._contact.deadline()
        dues = self._report_at, self._advance_at, presence, contact
        return min((due for due in dues if due is not None), default=None)
