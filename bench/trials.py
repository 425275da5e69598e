"""What is measured of one system: crashes, false deaths, idling, joining and healing.

Each trial is told how long it may take, so that a quick look and a thorough run are the same code.
"""

import random
import statistics
import time
from typing import NamedTuple

from bench.cluster import Cluster
from bench.contenders import Contender
from bench.idle import SETTLE_S, Idle, measure

REST_S = 5.0
"""From the moment all see all to the moment something is broken: joining is over by then."""
KNOWN_WITHIN_S = 60.0
LOSSES = (0, 10, 30, 50)
SPLIT = 9, 4
"""Members in all, and how many of them are cut off."""
HEALED_WITHIN_S = 180.0
SECONDS_PER_HOUR = 3600.0
KINDS = ("process", "host")
LARGE = 30
LOSING_LEAST = 1 / 2
"""A suspicion takes its time among many: loss lasts at least this share of the usual time."""


class Lengths(NamedTuple):
    """How thorough a run is."""

    crashes: int
    loss_s: float
    """In clusters of up to LARGE members; larger ones have as many seconds of nodes earlier."""
    idle_s: float
    split_s: float

    def losing_s(self, members: int) -> float:
        """Return how long packets are lost.

        >>> [THOROUGH.losing_s(members) for members in (5, 30, 60, 100)]
        [90.0, 90.0, 45.0, 45.0]
        """
        return self.loss_s * max(LOSING_LEAST, min(1.0, LARGE / members))


THOROUGH = Lengths(crashes=7, loss_s=90.0, idle_s=60.0, split_s=60.0)
QUICK = Lengths(crashes=2, loss_s=40.0, idle_s=30.0, split_s=30.0)


class Detection(NamedTuple):
    """After how many seconds a crash was known; medians over all repetitions."""

    first_s: float | None
    last_s: float | None
    missed: int
    """How often not all knew within KNOWN_WITHIN_S; those count as never in the medians."""


class Losing(NamedTuple):
    """What a time of loss did."""

    false_deaths_per_node_hour: float
    reports: int
    """So many times a member declared, or learned of, the death of one that was well."""


def crash(cluster: Cluster, kind: str, times: int) -> Detection:
    """Let one member at a time crash and come back, and see when the others know."""
    firsts, lasts = [], []
    draw = random.Random(kind)
    for _ in range(times):
        time.sleep(REST_S)
        # Never the first: it is the one that a member which comes back asks.
        victim = draw.randrange(1, len(cluster.seats))
        known = _crash_once(cluster, kind, victim)
        firsts.append(known[0] if known else float("inf"))
        lasts.append(known[-1] if len(known) == len(cluster.seats) - 1 else float("inf"))
    return Detection(_median(firsts), _median(lasts), lasts.count(float("inf")))


def _crash_once(cluster: Cluster, kind: str, victim: int) -> list[float]:
    seat = cluster.seats[victim]
    others = [other.name for other in cluster.seats if other is not seat]
    begun = time.monotonic()
    if kind == "host":
        cluster.network.unplug(seat.host)
    else:
        cluster.kill(victim)
    known = cluster.witness.wait_known_dead(seat.name, others, begun, KNOWN_WITHIN_S)
    cluster.bury(victim)
    cluster.network.plug_in(seat.host)
    cluster.launch(victim)
    if cluster.witness.wait_whole(KNOWN_WITHIN_S) is None:
        cluster.form_anew()
    return known


def _median(seconds: list[float]) -> float | None:
    middle = statistics.median(seconds)
    return None if middle == float("inf") else middle


def lose(cluster: Cluster, percent: int, lengths: Lengths) -> Losing:
    """Lose this share of all frames between the hosts, and count who is wrongly declared dead."""
    time.sleep(REST_S)
    begun = time.monotonic()
    cluster.network.lose(percent)
    time.sleep(lengths.losing_s(len(cluster.seats)))
    reports = len(cluster.witness.deaths(begun))
    spent_s = time.monotonic() - begun
    cluster.network.lose(0)
    node_hours = len(cluster.seats) * spent_s / SECONDS_PER_HOUR
    return Losing(reports / node_hours, reports)


def idle(cluster: Cluster, seconds: float) -> Idle:
    """Do nothing, and see what it costs; the more have met, the longer they need to settle."""
    return measure(cluster.processes(), seconds, max(SETTLE_S, float(len(cluster.seats))))


def join(contender: Contender, members: int) -> float | None:
    """Start so many agents at once, for the first time; return when all saw all."""
    with Cluster(contender, members) as cluster:
        return cluster.form()


def join_when_ready(contender: Contender, members: int) -> float | None:
    """Start so many agents at once; return how long after the last was ready all saw all.

    What it takes to load so many programs on two cores is left out.
    """
    with Cluster(contender, members) as cluster:
        if cluster.form() is None:
            return None
        whole, ready = time.monotonic(), cluster.witness.ready
        if len(ready) < members:
            raise RuntimeError(f"{len(ready)} of {members} agents said that they are ready")
        return max(0.0, whole - max(ready.values()))


def heal(contender: Contender, seconds: float) -> float | None:
    """Cut a cluster of nine in two for so long; return how long after mending all saw all."""
    members, east = SPLIT
    with Cluster(contender, members, east) as cluster:
        cluster.must_form()
        time.sleep(REST_S)
        cluster.network.cut()
        time.sleep(seconds)
        if cluster.witness.is_whole():
            raise RuntimeError("nobody noticed the split: it was too short to be healed")
        cluster.network.mend()
        return cluster.witness.wait_whole(HEALED_WITHIN_S)
