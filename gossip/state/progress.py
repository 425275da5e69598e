"""Tells the issuer what stages are done here; and, at an issuer, gathers what all nodes tell.

A report names partitions of which this node has done what their stage asks (``handover.py``), under
the registry of its epoch. It is told again every few seconds until that registry is followed by
another one, so a lost frame, or an issuer that was away, costs time alone. Nothing of it is kept on
a disk: an issuer that starts anew is told again.

An issuer that has heard enough of a partition says ``OwnersReady``, once a second at most, with all
that is ready then; the runtime signs the next registry (``registry.advance``).
"""

from collections import defaultdict

from gossip.ids import NodeId
from gossip.machine import Instant
from gossip.state.handover import Handover
from gossip.state.limits import ADVANCE_INTERVAL_S, REPORT_DELAY_S, REPORT_INTERVAL_S
from gossip.state.messages import Reached
from gossip.state.ownership import Stage
from gossip.state.post import Post
from gossip.state.registrar import Registrar
from gossip.state.replica import Replica
from gossip.state.requests import OwnersReady


class Progress:
    """Both sides of it."""

    def __init__(
        self, replica: Replica, registrar: Registrar, handover: Handover, post: Post
    ) -> None:
        self._replica = replica
        self._registrar = registrar
        self._handover = handover
        self._post = post
        self._told: set[int] = set()
        self._tell_at: Instant | None = None
        self._reached: defaultdict[int, set[NodeId]] = defaultdict(set)
        self._advance_at: Instant | None = None
        self._advanced_at: Instant = float("-inf")

    # Telling

    def adopted(self, changed: set[int], now: Instant) -> None:
        """The registry has changed, and the entries of these partitions with it."""
        for partition in changed:
            self._reached.pop(partition, None)
        self._told.clear()
        self._advance_at = None
        self._advanced_at = now
        self._look(now)
        self._consider(now)

    def look(self, now: Instant) -> None:
        """See whether there is something new to tell."""
        if not self._told.issuperset(self._handover.done):
            self._look(now)

    def _look(self, now: Instant) -> None:
        due = now + REPORT_DELAY_S
        if self._to_tell():
            self._tell_at = due if self._tell_at is None else min(due, self._tell_at)

    def _to_tell(self) -> list[int]:
        """Return the partitions on their way of which we have done our part."""
        table = self._registrar.registry.table
        return sorted(p for p in self._handover.done if table[p].stage is not Stage.SETTLED)

    def _tell(self, now: Instant) -> None:
        partitions = self._to_tell()
        self._told = set(self._handover.done)
        self._tell_at = now + REPORT_INTERVAL_S if partitions else None
        if not partitions:
            return
        registry = self._registrar.registry
        token = max(map(self._replica.token, partitions))
        report = Reached(registry.epoch, tuple(partitions))
        for node in registry.nodes:
            if node.is_issuer:
                self._post.send(report, node.id, token)

    # Gathering

    def reached(self, message: Reached, peer: NodeId, now: Instant) -> None:
        """A node has done its part of these partitions."""
        registry = self._registrar.registry
        for partition in message.partitions:
            if partition >= registry.partitions:
                continue
            ownership = registry.table[partition]
            if ownership.since <= message.epoch <= registry.epoch and peer in ownership.holders:
                self._reached[partition].add(peer)
        self._consider(now)

    def _ready(self) -> dict[int, frozenset[NodeId]]:
        """Return what was reached of the partitions that can go on."""
        registry = self._registrar.registry
        return {
            partition: frozenset(done)
            for partition, done in sorted(self._reached.items())
            if registry.table[partition].may_advance(frozenset(done), self._registrar.members)
        }

    def _consider(self, now: Instant) -> None:
        if self._advance_at is None and self._is_issuer() and self._ready():
            self._advance_at = max(now + REPORT_DELAY_S, self._advanced_at + ADVANCE_INTERVAL_S)

    def _is_issuer(self) -> bool:
        entry = self._registrar.registry.node(self._post.me)
        return entry is not None and entry.is_issuer

    def wake(self, now: Instant) -> None:
        """Tell, or say what is ready, when it is time."""
        if self._tell_at is not None and now >= self._tell_at:
            self._tell(now)
        if self._advance_at is not None and now >= self._advance_at:
            self._advance_at = None
            ready = self._ready()
            if ready and self._is_issuer():
                self._post.emit(OwnersReady(self._registrar.registry.epoch, ready))
                # If nothing comes of it, say it again.
                self._advance_at = now + REPORT_INTERVAL_S

    def deadline(self) -> Instant | None:
        """Return when to tell, or to go on."""
        dues = [due for due in (self._tell_at, self._advance_at) if due is not None]
        return min(dues, default=None)
