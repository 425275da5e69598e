"""One run of a campaign: trouble first, then peace, and peace must bring order.

The seed decides everything: how many nodes, which classes of faults, when, and what the clients
ask. During the *safety phase* faults happen and the checkers watch every step; nothing need
succeed. Then the world is healed, everybody is switched on, and in the *liveness phase* progress
is a demand: one view of the members, equal replicas, answers to requests. A run that neither
breaks a rule nor converges has failed. (After TigerBeetle's VOPR, which has the same two phases.)
"""

from collections import Counter

import msgspec

from gossip.sim.consistency import NoLostWrites, QuorumReads
from gossip.sim.faults import plan, strike
from gossip.sim.invariants import (
    Checker,
    IncarnationGrows,
    NoResurrection,
    NothingInvented,
    RegistryIsKept,
    SelfAlive,
    SleepersAreSpared,
    Violation,
    WordsAreTheirOwn,
)
from gossip.sim.memory_bounds import BoundedMemory
from gossip.sim.network import Conditions
from gossip.sim.rng import stream
from gossip.sim.workload import KEYS, Workload
from gossip.sim.world import World

SAFETY_S = 90.0
MEMBERS_CONVERGE_S = 90.0
REPLICAS_CONVERGE_S = 120.0
NODES_MIN, NODES_MAX = 3, 7
REQUESTS_PER_S = 2.0
ANSWER_S = 10.0
NAMES = "abcdefghijklmnopqrstuvwxyz"
# Peace is not a laboratory: what must converge has to do so on an ordinary network.
PEACE = Conditions(loss=0.01, delay_s=0.001, jitter_s=0.002)

# A campaign of some length in which one of these stays at zero tests less than it claims.
MUST_HAPPEN = (
    "world/datagrams/lost",
    "world/datagrams/lost_in_burst",
    "world/datagrams/cut",
    "world/datagrams/duplicated",
    "world/datagrams/nobody_there",
    "world/messages/held",
    "world/streams/stalled",
    "world/streams/broken",
    "world/disks/writes_lost",
    "world/disks/batches_lost",
    "datagrams_dropped/replayed",
    "suspicions/begun",
    "deaths/declared",
    "pauses/noticed",
    "sleeps/announced",
    "sleeps/ended",
    "handoffs/taken",
    "handoffs/let_go",
    "requests/refused",
    "writes/indeterminate",
    "reads/diverged",
    "repairs/keys",
)


class Report(msgspec.Struct):
    """What a run did, so that a campaign can prove that it was not vacuous."""

    seed: int
    nodes: int
    node_s: float
    events: int
    counts: Counter[str]


def standard_checkers() -> list[Checker]:
    """Return a new set of all checkers that hold under any fault."""
    return [
        NoResurrection(),
        IncarnationGrows(),
        NothingInvented(),
        SelfAlive(),
        RegistryIsKept(),
        SleepersAreSpared(),
        WordsAreTheirOwn(),
        BoundedMemory(),
        NoLostWrites(),
        QuorumReads(),
    ]


def run(
    seed: int, without: frozenset[str] = frozenset(), checkers: list[Checker] | None = None
) -> Report:
    """Run one seed through both phases.

    Raises whatever broke, a Violation or an assertion of the protocols, with the end of the trace
    in its notes.
    """
    shape = stream(seed, "shape")
    names = list(NAMES[: shape.randint(NODES_MIN, NODES_MAX)])
    world = World(seed, checkers=standard_checkers() if checkers is None else checkers)
    try:
        world.add(*names)
        _safety(world, names, without)
        _liveness(world)
    except Exception as error:
        error.add_note(str(world.trace))
        raise
    return Report(
        seed=seed,
        nodes=len(names),
        node_s=world.now * len(names),
        events=world.driver.schedule.happened,
        counts=world.counts,
    )


def _safety(world: World, names: list[str], without: frozenset[str]) -> None:
    clients = Workload(world, stream(world.seed, "clients"), REQUESTS_PER_S)
    for fault in plan(world.seed, names, SAFETY_S, without):
        world.driver.schedule.at(fault.at, strike, world, fault)
    world.run(SAFETY_S)
    clients.stop()


def _liveness(world: World) -> None:
    world.peace(PEACE)
    _demand(world.run_until(world.is_whole, within_s=MEMBERS_CONVERGE_S), "one view of the members")
    settled_s = world.run_until(world.is_settled, within_s=REPLICAS_CONVERGE_S)
    _demand(settled_s, "an end of all hand-offs")
    agreed_s = world.run_until(world.replicas_agree, within_s=REPLICAS_CONVERGE_S)
    _demand(agreed_s, "equal replicas")
    for checker in world.checkers:
        checker.settled(world)
    asked = [world.get(name, key) for name in world.up() for key in KEYS]
    world.run(ANSWER_S)
    for operation in asked:
        _demand(0.0 if operation.outcome == "ok" else None, f"an answer to {operation}")


def _demand(took_s: float | None, what: str) -> None:
    if took_s is None:
        raise Violation(f"Liveness: in peace there was still not {what}")


def vacuous(counts: Counter[str]) -> list[str]:
    """Return what should have happened in a campaign and never did."""
    return [label for label in MUST_HAPPEN if not counts[label]]
