"""Who came with the covey's keys or certificates and does not belong: written down for people.

Three come so: a device that was removed, whoever copied a disk before a certificate was replaced,
and a device that was let in a moment ago, of which this node has not heard yet. The last is no
attempt at anything, so whoever may be that is looked at again a little later.

A stream proves who it is. A datagram names somebody, and proves at most that its sender has the
covey's key.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from agent.access.repeated_refusals import RepeatedRefusals
from agent.config.logs import RateLimitedLog
from agent.net.authorization import ShownCertificate, StreamRefused
from agent.net.origin import origin_of
from gossip.core.ids import NodeId, format_node_id
from gossip.registry.registry import Registry
from gossip.registry.strangers import DatagramRefused

DOUBT_S = 10.0
"""A registry is everywhere by then, but where somebody is cut off."""
DOUBTED_MAX = 64
"""So many at a time may be new; of more, all are taken for what they seem."""

REASONS = {
    "removed_node": "it was removed",
    "old_certificate": "the registry has another certificate of it",
    "unknown_node": "the registry does not have it",
}

log = logging.getLogger(__name__)


class StrangerAttempt(NamedTuple):
    """Somebody who tried to get in, and where it was seen. ``shown``: None with a datagram."""

    node: NodeId
    shown: ShownCertificate | None
    host: str

    @property
    def action(self) -> str:
        """What was tried, for people."""
        return "a datagram in its name" if self.shown is None else "a stream with its certificate"


class RefusedStrangers:
    """Hears of each attempt from the driver, and writes down those that were none of a member."""

    def __init__(
        self,
        refusals: RepeatedRefusals,
        registry: Callable[[], Registry],
        admits: Callable[[ShownCertificate], bool],
    ) -> None:
        self._refusals, self._registry, self._admits = refusals, registry, admits
        self._quiet = RateLimitedLog(log)
        self._doubted: dict[StrangerAttempt, int] = {}
        self._looks: asyncio.TimerHandle | None = None

    def on_event(self, event: object) -> None:
        """Take in an event of the driver."""
        match event:
            case StreamRefused(shown, host):
                self._take(StrangerAttempt(shown.node, shown, host))
            case DatagramRefused(node, source):
                self._take(StrangerAttempt(node, None, source.host))

    def close(self) -> None:
        """Write down who is still in doubt."""
        if self._looks is not None:
            self._looks.cancel()
            self._look_again()

    def _take(self, attempt: StrangerAttempt) -> None:
        is_new = attempt not in self._doubted
        if self._reason(attempt) == "removed_node" or (
            is_new and len(self._doubted) >= DOUBTED_MAX
        ):
            self._record(attempt, 1)
            return
        self._doubted[attempt] = self._doubted.get(attempt, 0) + 1
        if self._looks is None:
            self._looks = asyncio.get_running_loop().call_later(DOUBT_S, self._look_again)

    def _look_again(self) -> None:
        self._looks = None
        doubted, self._doubted = self._doubted, {}
        for attempt, times in doubted.items():
            if not self._belongs(attempt):
                self._record(attempt, times)

    def _belongs(self, attempt: StrangerAttempt) -> bool:
        if attempt.shown is not None:
            return self._admits(attempt.shown)
        return self._registry().node(attempt.node) is not None

    def _reason(self, attempt: StrangerAttempt) -> str:
        registry = self._registry()
        if registry.node(attempt.node) is not None:
            return "old_certificate"
        was_removed = any(gone.id == attempt.node for gone in registry.removed)
        return "removed_node" if was_removed else "unknown_node"

    def _record(self, attempt: StrangerAttempt, times: int) -> None:
        reason, who = self._reason(attempt), self._name(attempt.node)
        site = origin_of(attempt.host)
        self._quiet.warning(
            f"{reason} {attempt.node} {site}",
            "refused %s of %s, from %s: %s",
            *(attempt.action, who, attempt.host, REASONS[reason]),
        )
        self._refusals.record(reason, who, attempt.host, site, attempt.action, times)

    def _name(self, node: NodeId) -> str:
        registry = self._registry()
        names = {gone.id: gone.name for gone in registry.removed}
        entry = registry.node(node)
        name = entry.name if entry is not None else names.get(node, "")
        return " ".join(filter(None, ("node", name, f"({format_node_id(node)})")))
