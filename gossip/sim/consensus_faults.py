"""Trouble for a Raft group, drawn from a seed before the run begins.

As in ``faults.py``: each class draws from a stream of its own, and draws whether or not it is
switched on, so that a class can be masked without moving the others.
"""

import random
from collections.abc import Callable, Iterator

from gossip.core.machine import Instant
from gossip.sim.consensus_operator import Operator
from gossip.sim.consensus_world import ConsensusWorld
from gossip.sim.faults import CLASS_CHANCE, Fault
from gossip.sim.host import HostState
from gossip.sim.network import Conditions
from gossip.sim.rng import stream

Draw = Callable[[random.Random, list[str], float], Iterator[Fault]]


def plan(seed: int, names: list[str], span_s: float, without: frozenset[str]) -> list[Fault]:
    """Return what goes wrong during the first ``span_s`` seconds, in order of time."""
    unknown = without - set(CLASSES)
    assert not unknown, f"no such class of faults: {sorted(unknown)}"
    faults: list[Fault] = []
    for name, draw in CLASSES.items():
        rng = stream(seed, "faults", name)
        present, drawn = rng.random() < CLASS_CHANCE, list(draw(rng, names, span_s))
        if present and name not in without:
            faults.extend(drawn)
    return sorted(faults, key=lambda fault: fault.at)


def strike(world: ConsensusWorld, operator: Operator, fault: Fault) -> None:
    """Let a fault happen, if it still makes sense: nobody crashes twice."""
    if fault.verb in OF_THE_OPERATOR:
        getattr(operator, fault.verb)(*fault.objects)
    elif fault.verb in ON_A_HOST:
        name, *more = fault.objects
        assert isinstance(name, str), "faults of this kind name one host"
        if world.hosts[name].state in ON_A_HOST[fault.verb]:
            getattr(world, fault.verb)(name, *more)
    else:
        getattr(world, fault.verb)(*fault.objects)


RUNNING = (HostState.UP, HostState.PAUSED)
ON_A_HOST: dict[str, tuple[HostState, ...]] = {
    "crash": RUNNING,
    "lose_power": RUNNING,
    "lose_log": (HostState.UP, HostState.PAUSED, HostState.DOWN),
    "restart": (HostState.DOWN,),
    "pause": (HostState.UP,),
    "resume": (HostState.PAUSED,),
    "die_writing": (HostState.UP,),
    "leap": RUNNING,
    "lie": RUNNING,
    "drift": RUNNING,
}
"""In which states of a host each of these is possible."""
OF_THE_OPERATOR = frozenset({"change", "transfer", "isolate"})


def _moments(rng: random.Random, span_s: float, least: int, most: int) -> list[Instant]:
    return sorted(rng.uniform(0.0, span_s) for _ in range(rng.randint(least, most)))


def _length_s(rng: random.Random, mean_s: float) -> float:
    return min(4 * mean_s, rng.expovariate(1 / mean_s))


def _weather(rng: random.Random, _names: list[str], span_s: float) -> Iterator[Fault]:
    for at in [0.0, *_moments(rng, span_s, 1, 3)]:
        conditions = Conditions(
            loss=rng.choice((0.0, 0.05, 0.2, 0.4)),
            burst=rng.choice((0.0, 0.01)),
            delay_s=rng.choice((0.001, 0.02, 0.1, 0.5)),
            jitter_s=rng.choice((0.001, 0.02, 0.2)),
            duplicate=rng.choice((0.0, 0.05, 0.3)),
            late=rng.choice((0.0, 0.02, 0.1)),
            late_s=rng.choice((2.0, 8.0, 20.0)),
        )
        yield Fault(at, "weather", (conditions,))


def _crashes(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 1, 6):
        name, length_s = rng.choice(names), _length_s(rng, 6.0)
        how, writing = rng.choice(("crash", "lose_power")), rng.random() < 0.5
        yield Fault(at, "die_writing", (name, how)) if writing else Fault(at, how, (name,))
        yield Fault(at + length_s, "restart", (name,))


def _blackouts(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    """The power of all fails at once, while they write; not all of them come back at once."""
    for at in _moments(rng, span_s, 1, 2):
        for name in names:
            yield Fault(at + rng.choice((0.0, 0.0, 0.05)), "lose_power", (name,))
            yield Fault(at + 0.1 + _length_s(rng, 3.0), "restart", (name,))


def _pauses(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 1, 4):
        name, length_s = rng.choice(names), _length_s(rng, 10.0)
        yield Fault(at, "pause", (name,))
        yield Fault(at + length_s, "resume", (name,))


def _partitions(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 1, 3):
        mixed, length_s = rng.sample(names, len(names)), 5.0 + _length_s(rng, 15.0)
        where = rng.randint(1, len(names) - 1)
        yield Fault(at, "partition", (mixed[:where], mixed[where:]))
        yield Fault(at + length_s, "join_sides")


def _isolations(rng: random.Random, _names: list[str], span_s: float) -> Iterator[Fault]:
    """One leader after another loses all others, while clients go on asking it."""
    for at in _moments(rng, span_s, 1, 4):
        stunned_s = rng.choice((0.0, 0.0, 8.0, 14.0))
        yield Fault(at, "isolate", (stunned_s + rng.uniform(2.0, 20.0), stunned_s))


def _cuts(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 1, 8):
        (source, target), length_s = rng.sample(names, 2), _length_s(rng, 15.0)
        yield Fault(at, "cut", (source, target))
        yield Fault(at + length_s, "mend", (source, target))


def _clocks(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    """Suspensions that nobody else notices, and quartzes of any quality."""
    for at in _moments(rng, span_s, 1, 4):
        yield Fault(at, "leap", (rng.choice(names), rng.choice((1.0, 6.0, 60.0, 3600.0))))
    for at in _moments(rng, span_s, 1, 3):
        yield Fault(at, "drift", (rng.choice(names), rng.choice((0.5, 0.9, 1.1, 2.0))))


def _disks(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 1, 6):
        yield Fault(at, "slow_disk", (rng.choice(names), rng.choice((0.0005, 0.1, 0.5, 3.0, 20.0))))


def _damage(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 1, 2):
        name, length_s = rng.choice(names), _length_s(rng, 3.0)
        yield Fault(at, "lose_log", (name,))
        yield Fault(at + length_s, "restart", (name,))


def _changes(rng: random.Random, _names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 4, 12):
        yield Fault(at, "change")


def _transfers(rng: random.Random, _names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 1, 4):
        yield Fault(at, "transfer")


def _lies(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    """A failure detector that is wrong, again and again."""
    for at in _moments(rng, span_s, 5, 40):
        yield Fault(at, "lie", (rng.choice(names), rng.choice(names)))


CLASSES: dict[str, Draw] = {
    "weather": _weather,
    "crashes": _crashes,
    "blackouts": _blackouts,
    "pauses": _pauses,
    "partitions": _partitions,
    "isolations": _isolations,
    "cuts": _cuts,
    "clocks": _clocks,
    "disks": _disks,
    "damage": _damage,
    "changes": _changes,
    "transfers": _transfers,
    "lies": _lies,
}
"""The classes of faults; each can be masked by its name."""
