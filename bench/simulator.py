"""The simulator itself: how much of a covey's life fits into a second of one core, and how many.

First how many seconds of one node are simulated in a second, for a hundred idle members: with
membership alone (a world), and with whole nodes (a world). Then what that makes possible: a
thousand members for ten minutes on a network that loses a tenth, with five hosts that vanish; and
ten thousand for one minute with two. These two begin settled, as if they had met long ago: what a
covey does while it forms is measured elsewhere. Each runs in a process of its own, so that its
memory can be told.
"""

import argparse
import gc
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec

from bench.report import finish, table
from gossip.core.tuning import LAN
from gossip.sim.experiment import SEEDS, DetectionScorer
from gossip.sim.membership_world import MembershipWorld
from gossip.sim.network import Conditions
from gossip.sim.world import World

IDLE_MEMBERS, IDLE_S, IDLE_ROUNDS = 100, 60.0, 3
FORMED_S = 300.0
"""So long after all know all, every member has met every other: what follows is idle."""
KIBIBYTES_PER_GIBIBYTE = 2**20


class Large(msgspec.Struct, frozen=True):
    """A large covey to be simulated."""

    members: int
    seconds: float
    loss: float
    crashes: int
    crash_at_s: float


THOUSAND = Large(1_000, 600.0, 0.1, 5, 60.0)
TEN_THOUSAND = Large(10_000, 60.0, 0.0, 2, 10.0)


def node_seconds_per_s() -> float:
    """Return how many seconds of one node are simulated in a second: idle, membership alone."""
    world = MembershipWorld(1, known_max=SEEDS)
    world.add(IDLE_MEMBERS)
    return _idle(world)


def whole_node_seconds_per_s() -> float:
    """Return the same for whole nodes, with envelopes and the state plane."""
    world = World(1, known_max=SEEDS)
    world.add(*(f"n{number}" for number in range(IDLE_MEMBERS)))
    return _idle(world)


def _idle(covey: MembershipWorld | World) -> float:
    """Return the figure of the quickest round: the one that was disturbed least."""
    covey.run_until(covey.is_whole, within_s=60)
    covey.run(FORMED_S)
    rounds = []
    for _ in range(IDLE_ROUNDS):
        begun = time.process_time()
        covey.run(IDLE_S)
        rounds.append(time.process_time() - begun)
    return IDLE_MEMBERS * IDLE_S / min(rounds)


def run_large(large: Large) -> dict[str, Any]:
    """Simulate a large covey, and return what happened in it and what that took."""
    # What a machine holds refers to itself in many ways, and is needed until the end.
    gc.disable()
    begun = time.process_time()
    judge = DetectionScorer()
    world = MembershipWorld(
        1,
        conditions=Conditions(loss=large.loss),
        tuning=msgspec.structs.replace(LAN, members_max=2 * large.members),
        changed=judge.changed,
    )
    judge.truth = world.by_id
    world.settle(large.members)
    world.run(large.crash_at_s)
    quiet_bytes = world.bytes_sent / (large.members * large.crash_at_s)
    for number in range(large.crashes):
        sim_member = world.sim_members[f"n{number * large.members // large.crashes}"]
        judge.crashed_at[sim_member.id] = world.now
        world.crash(sim_member.name, kind="host")
    world.run(large.seconds - large.crash_at_s)
    cpu_s = time.process_time() - begun
    node_s = large.members * large.seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        **msgspec.structs.asdict(large),
        **_verdicts(judge, large),
        "bytes_per_node_s_before_crash": quiet_bytes,
        "bytes_per_node_s": world.bytes_sent / node_s,
        "datagrams": world.datagrams_sent,
        "cpu_s": cpu_s,
        "node_seconds_per_s": node_s / cpu_s,
        "peak_gib": peak / KIBIBYTES_PER_GIBIBYTE,
    }


def _verdicts(judge: DetectionScorer, large: Large) -> dict[str, Any]:
    """Return who was declared dead when, rightly and wrongly."""
    observers = large.members - large.crashes
    first, last = [], []
    for node, at in judge.crashed_at.items():
        times = [known - at for known in judge.known_at.get(node, {}).values()]
        if len(times) == observers:
            first.append(min(times))
            last.append(max(times))
    return {
        "known_to_all": len(last),
        "first_s": statistics.median(first) if first else None,
        "last_s": max(last, default=None),
        "false_suspicions": judge.false_suspicions,
        "false_deaths": judge.false_deaths,
    }


def _apart(work: Callable[..., Any], *arguments: object) -> Any:
    """Return what the work returns, done in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main() -> None:
    """Measure, print the tables, and the figures as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="without the ten thousand")
    options = parser.parse_args()
    world, whole = _apart(node_seconds_per_s), _apart(whole_node_seconds_per_s)
    table(
        f"Seconds of one node, simulated a second; {IDLE_MEMBERS} idle members",
        ["what", "figure"],
        [["membership alone", world], ["whole nodes", whole]],
    )
    larges = [THOUSAND] if options.small else [THOUSAND, TEN_THOUSAND]
    found = [_apart(run_large, large) for large in larges]
    table(
        "Large coveys",
        ["what", *(f"{each.members:,}" for each in larges)],
        [[name, *(run[name] for run in found)] for name in found[0]],
    )
    figures = {"sim_node_seconds_per_s": world, "sim_whole_node_seconds_per_s": whole}
    finish("simulator", {**figures, "large": found})


if __name__ == "__main__":
    main()
