"""One schedule of a Raft group: trouble, then peace, and then a judgement of what clients saw.

The seed decides everything: how many devices and voters, how frames travel, which classes of faults
come, when voters change, what clients ask. In the *safety phase* checkers watch every step and
nothing need succeed. In the *liveness phase* all is healed, and within bounded time there must be
one leader, equal states, and an answer to every request. Then the history of each key is judged.
"""

from collections import Counter

import msgspec

from gossip.consensus.tuning import ConsensusTuning
from gossip.sim.consensus_checkers import ConsensusChecker, standard_checkers
from gossip.sim.consensus_clients import LISTS, LOCKS, ClientOperation
from gossip.sim.consensus_faults import plan, strike
from gossip.sim.consensus_operator import Operator
from gossip.sim.consensus_store import CommandKind
from gossip.sim.consensus_world import ConsensusWorld
from gossip.sim.invariants import Violation
from gossip.sim.network import Conditions
from gossip.sim.rng import stream
from tests.support.linearizability import Call, Verdict, judge
from tests.support.sequential_models import AppendList, Register, TokenLock

SAFETY_S = 60.0
LEADER_S = 60.0
ANSWERS_S = 60.0
SETTLED_S = 90.0
NAMES = "abcdefg"
# Peace is not a laboratory: what must go on has to do so on an ordinary network.
PEACE = Conditions(loss=0.01, delay_s=0.001, jitter_s=0.002)

MUST_HAPPEN = (
    "roles/leader",
    "roles/pre-candidate",
    "conflicts_truncated",
    "snapshots_taken",
    "snapshots_installed",
    "configurations/joint",
    "changes/begun",
    "changes/refused",
    "transfers/begun",
    "reads/served",
    "reads/by_followers",
    "reads/failed",
    "writes/answered",
    "writes/open",
    "crashes/with_loss",
    "logs_lost",
    "frames/cut_under_way",
    "network/datagrams/lost",
    "network/datagrams/duplicated",
    "streams/broken",
    "disks/reports_lost",
    "histories/linearizable",
)
"""A campaign of some length in which one of these stays at zero tests less than it claims."""


class Report(msgspec.Struct):
    """What a schedule did, so that a campaign can prove that it was not vacuous."""

    seed: int
    hosts: int
    events: int
    counts: Counter[str]


def run(
    seed: int,
    without: frozenset[str] = frozenset(),
    checkers: list[ConsensusChecker] | None = None,
) -> Report:
    """Run one seed through both phases and judge its history.

    Raises whatever broke, with the end of the trace in its notes.
    """
    world, names = build(seed, standard_checkers() if checkers is None else checkers)
    try:
        _safety(world, names, without)
        _liveness(world)
        _judge(world)
    except Exception as error:
        error.add_note(str(world.trace))
        raise
    return Report(seed, len(names), world.schedule.happened, counts_of(world))


def build(seed: int, checkers: list[ConsensusChecker]) -> tuple[ConsensusWorld, list[str]]:
    """Return the world of a seed, with its group founded and its clients at work."""
    shape = stream(seed, "shape")
    names = list(NAMES[: shape.randint(3, len(NAMES))])
    voters = shape.choice([count for count in (1, 3, 3, 5) if count <= len(names)])
    world = ConsensusWorld(
        seed,
        tuning=_tuning(shape.choice),
        ordered=shape.random() < 0.4,
        apply_lag_s=shape.choice((0.0, 0.0, 0.05, 1.0)),
        compact_every=shape.choice((None, 4, 12, 40)),
        disk_delay_s=shape.choice((0.005, 0.02, 0.2)),
        checkers=checkers,
    )
    world.add(*names)
    world.found(*names[:voters])
    for _ in range(shape.randint(2, 5)):
        world.add_client()
    return world, names


def _tuning(choice) -> ConsensusTuning:  # type: ignore[no-untyped-def]
    """Draw limits that are small enough to be reached within a minute."""
    return ConsensusTuning(
        append_entries_max=choice((1, 3, 256)),
        inflight_max=choice((1, 2, 32)),
        trailing_entries=choice((0, 2, 20)),
        chunk_bytes=choice((48, 200, 65536)),
        chunk_window=choice((1, 4)),
        learner_lag_entries=choice((0, 5)),
        learner_settle_s=choice((0.0, 2.0)),
        uncommitted_bytes_max=choice((400, 4 * 1024 * 1024)),
    )


def _safety(world: ConsensusWorld, names: list[str], without: frozenset[str]) -> None:
    operator = Operator(world, stream(world.seed, "operator"))
    for fault in plan(world.seed, names, SAFETY_S, without):
        world.schedule.at(fault.at, strike, world, operator, fault)
    world.run(SAFETY_S)


def _liveness(world: ConsensusWorld) -> None:
    world.peace(PEACE)
    # What was drawn to happen later than the safety phase has to find its peace, too.
    world.run(1.0)
    _demand(world.run_until(lambda: world.leader() is not None, within_s=LEADER_S), "a leader")
    world.run(5.0)
    world.stop_clients()
    _demand(world.run_until(world.is_quiet, within_s=ANSWERS_S), "an answer to each request")
    _demand(world.run_until(world.is_settled, within_s=SETTLED_S), "one state everywhere")


def _demand(took_s: float | None, what: str) -> None:
    if took_s is None:
        raise Violation(f"Liveness: in peace there was still not {what}")


def _judge(world: ConsensusWorld) -> None:
    calls = [call_of(operation) for operation in world.history()]
    models = (
        (Register(), [each for each in calls if each.key not in (*LISTS, *LOCKS)]),
        (AppendList(), [each for each in calls if each.key in LISTS]),
        (TokenLock(), [each for each in calls if each.key in LOCKS]),
    )
    for model, history in models:
        for judgement in judge(history, model):
            if judgement.verdict is Verdict.WRONG:
                raise Violation(f"Linearizability: {judgement}")
            known = judgement.verdict is Verdict.LINEARIZABLE
            world.counts["histories/linearizable" if known else "histories/unknown"] += 1


KINDS = {
    CommandKind.WRITE: "write",
    CommandKind.SWAP: "swap",
    CommandKind.APPEND: "append",
    CommandKind.LOCK: "lock",
    CommandKind.UNLOCK: "unlock",
}


def call_of(operation: ClientOperation) -> Call:
    """Return an operation as the judge wants it."""
    command, answer = operation.command, operation.answer
    if command is not None:
        request: tuple[object, ...] = (KINDS[command.kind], *command.arguments)
    else:
        request = ("read",)
        if operation.key in LISTS:
            answer = answer or ()
    until = float("inf") if operation.answered_at is None else operation.answered_at
    return Call(operation.client, operation.key, request, answer, operation.called_at, until)


def counts_of(world: ConsensusWorld) -> Counter[str]:
    """Return all that was counted."""
    counts = world.counts + world.driver.counts + world.driver.streams.counts
    for label, count in world.network.counts.items():
        counts[f"network/{label}"] = count
    for operation in world.history():
        kind = "reads" if operation.command is None else "writes"
        counts[f"{kind}/open" if operation.answered_at is None else f"{kind}/answered"] += 1
    return counts


def vacuous(counts: Counter[str]) -> list[str]:
    """Return what should have happened in a campaign and never did."""
    return [label for label in MUST_HAPPEN if not counts[label]]
