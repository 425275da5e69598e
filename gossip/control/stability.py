"""What a node says of how well it would vote: declared or measured by itself, for the leader alone.

Nothing of it comes from the list of members. What others believe of a node says how they reach it
now, and not how long its disk takes or how often it is switched off.
"""

from typing import Annotated

import msgspec

from gossip.consensus.configuration import STORE_ID_BITS, Voter
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

Natural = Annotated[int, msgspec.Meta(ge=0)]

FSYNC_FAST_MS = 50
"""Disks that take less than this are all alike; above, each doubling makes a difference."""


class StabilityReport(msgspec.Struct, frozen=True, array_like=True):
    """How a node is, in its own words."""

    store: Annotated[int, msgspec.Meta(ge=1, le=2**STORE_ID_BITS - 1)]
    """The log that would vote."""
    uptime_s: Natural
    """Since its process started."""
    fsync_p99_ms: Natural | None = None
    """How long all but the slowest of its last saves took; None: it has saved too little yet."""
    is_on_mains: bool | None = None
    """Whether it has mains power; None: it does not say."""
    takes_writes: bool = True
    """False while its disk is full, hangs or fails, or its copy of the log has halted."""
    generation: Natural = 0
    origin: Natural = 0
    """Which agreement it follows (``recovery.py``); 0: none yet, or the first."""


class HeardReport(msgspec.Struct, frozen=True):
    """The last report of a node, and when it came."""

    node: NodeId
    report: StabilityReport
    heard_at: Instant

    @property
    def voter(self) -> Voter:
        """Who would vote."""
        return Voter(self.report.store, self.node)


def instability(report: StabilityReport) -> tuple[int, ...]:
    """Return what sorts nodes by how well they would vote, the best first.

    Coarse, so that small differences, which change all the time, decide nothing.
    """
    fsync_ms = FSYNC_FAST_MS if report.fsync_p99_ms is None else report.fsync_p99_ms
    has_battery = report.is_on_mains is False
    return int(has_battery), (fsync_ms // FSYNC_FAST_MS).bit_length(), -_hours(report).bit_length()


def _hours(report: StabilityReport) -> int:
    return report.uptime_s // 3600
