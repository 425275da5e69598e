"""What leading costs among many: three that vote, and so many that only follow.

Each device has a host of its own, as where memberships are compared. The first three vote: nobody
else has run for long enough. One client writes at the leader, at a steady pace, and each write is
pulled by all; what the leader needs in peace is taken off.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from bench.agreeing import VALUE, eventually
from bench.cluster import Cluster
from bench.contenders import SETTINGS, Covey
from bench.idle import Sample, sample
from edge_apps.client import Client
from tests.live.harness.admitted import Seat

VOTERS = 3
SETTLED, NEVER = "2s", "24h"
VOTE_WITHIN_S = 120.0
PEACE_S = 30.0
MEASURE_S = 20.0
WRITES_PER_S = 20


class Leading(NamedTuple):
    """What a leader costs."""

    idle_cpu_percent: float
    cpu_ms_per_write: float
    """Above what it costs to be idle."""
    sent_bytes_per_write: float
    writes_per_s: float


class FewVote(Covey):
    """Covey as it comes, but for who may vote."""

    def prepare(self, seats: Sequence[Seat]) -> None:
        """Let the first three be stable soon, and nobody else."""
        super().prepare(seats)
        for number, seat in enumerate(seats):
            settle = SETTLED if number < VOTERS else NEVER
            text = f'{SETTINGS}[voters]\nsettle = "{settle}"\n'
            (seat.folder / "covey.toml").write_text(text)


def lead(followers: int) -> Leading:
    """Start all, and measure whoever leads. Raises RuntimeError when three do not come to vote."""
    with Cluster(FewVote(), VOTERS + followers) as cluster:
        cluster.must_form()
        clients = [Client(seat.folder / "covey.sock") for seat in cluster.seats[:VOTERS]]
        eventually(lambda: _votes(clients[0]) == VOTERS, "three vote", VOTE_WITHIN_S)
        time.sleep(PEACE_S)
        leader = int(str(clients[0].get("/api/v1/voters")["leader"]).rpartition("-")[2])
        process = cluster.agents[leader].pid
        rested = sample(process)
        time.sleep(MEASURE_S)
        begun = sample(process)
        writes = _write(clients[leader])
        ended = sample(process)
    return _cost(rested, begun, ended, writes)


def _cost(rested: Sample, begun: Sample, ended: Sample, writes: int) -> Leading:
    idle_cpu_s, idle_bytes = begun.cpu_s - rested.cpu_s, begun.sent_bytes - rested.sent_bytes
    return Leading(
        100 * idle_cpu_s / MEASURE_S,
        1000 * (ended.cpu_s - begun.cpu_s - idle_cpu_s) / writes,
        (ended.sent_bytes - begun.sent_bytes - idle_bytes) / writes,
        writes / MEASURE_S,
    )


def _votes(client: Client) -> int:
    voters = client.get("/api/v1/voters")["voters"]
    return sum(each["role"] in ("leader", "voter") for each in voters)


def _write(client: Client) -> int:
    """Write at a steady pace; return how often."""
    begun, done = time.monotonic(), 0
    while time.monotonic() - begun < MEASURE_S:
        client.post("/api/v1/txn", {"then": [{"put": f"bench/{done % 100}", "value": VALUE}]})
        done += 1
        time.sleep(max(0.0, begun + done / WRITES_PER_S - time.monotonic()))
    return done
