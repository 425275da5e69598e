"""Trouble, drawn from a seed: what will go wrong in a run, decided before it begins.

Each class of fault draws from a stream of its own, and draws whether or not it is switched on.
So one class can be masked without moving the others, which is how a failing schedule is made
smaller. The plan is a list of moments; at each of them something happens to the world if it still
makes sense then (nobody crashes twice).
"""

import random
from collections.abc import Callable, Iterator

import msgspec

from gossip.core.machine import Instant
from gossip.sim.host import HostState
from gossip.sim.network import Conditions
from gossip.sim.rng import stream
from gossip.sim.world import World

# More than half the seeds have a given class at all, so that quiet combinations occur too.
CLASS_CHANCE = 0.6
RETIRING_NODES_MIN = 4

Draw = Callable[[random.Random, list[str], float], "Iterator[Fault]"]


class Fault(msgspec.Struct, frozen=True):
    """Something that goes wrong, or right again, at a moment."""

    at: Instant
    verb: str
    objects: tuple[object, ...] = ()


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


def strike(world: World, fault: Fault) -> None:
    """Let a fault happen, if it still makes sense: nobody crashes twice."""
    if fault.verb in ON_A_HOST:
        name, *more = fault.objects
        assert isinstance(name, str), "faults of this kind name one host"
        host = world.hosts[name]
        if host.state in ON_A_HOST[fault.verb] and not host.is_retired:
            getattr(world, fault.verb)(name, *more)
    else:
        getattr(world, fault.verb)(*fault.objects)


# In which states of a host each of these is possible.
ON_A_HOST: dict[str, tuple[HostState, ...]] = {
    "crash": (HostState.UP, HostState.PAUSED),
    "crash_writing": (HostState.UP,),
    "vanish": (HostState.UP, HostState.PAUSED),
    "lose_power": (HostState.UP, HostState.PAUSED),
    "restart": (HostState.DOWN,),
    "pause": (HostState.UP,),
    "resume": (HostState.PAUSED,),
    "slow": (HostState.UP,),
    "sleep": (HostState.UP,),
    "awaken": (HostState.UP,),
}


def _moments(rng: random.Random, span_s: float, most: int) -> list[Instant]:
    return sorted(rng.uniform(0.0, span_s) for _ in range(rng.randint(1, most)))


def _length_s(rng: random.Random, mean_s: float) -> float:
    return min(4 * mean_s, rng.expovariate(1 / mean_s))


def _weather(rng: random.Random, _names: list[str], span_s: float) -> Iterator[Fault]:
    for at in [0.0, *_moments(rng, span_s, 4)]:
        conditions = Conditions(
            loss=rng.choice((0.0, 0.05, 0.1, 0.3, 0.6)),
            burst=rng.choice((0.0, 0.005, 0.02)),
            delay_s=rng.choice((0.0002, 0.001, 0.02, 0.1)),
            jitter_s=rng.choice((0.0, 0.001, 0.02, 0.1)),
            duplicate=rng.choice((0.0, 0.05, 0.2)),
            late=rng.choice((0.0, 0.01, 0.05)),
        )
        yield Fault(at, "weather", (conditions,))


def _crashes(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 5):
        name, length_s = rng.choice(names), _length_s(rng, 15.0)
        yield Fault(at, rng.choice(("crash", "crash_writing", "vanish")), (name,))
        yield Fault(at + length_s, "restart", (name,))


def _power(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 3):
        name, length_s = rng.choice(names), _length_s(rng, 10.0)
        yield Fault(at, "lose_power", (name,))
        yield Fault(at + length_s, "restart", (name,))


def _pauses(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 4):
        name, length_s = rng.choice(names), _length_s(rng, 6.0)
        yield Fault(at, "pause", (name,))
        yield Fault(at + length_s, "resume", (name,))


def _slowness(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    """Held, let go for a moment, held again, as in the Lifeguard paper."""
    for at in _moments(rng, span_s, 3):
        name, turns = rng.choice(names), rng.randint(1, 8)
        held_s, open_s = rng.choice((0.5, 2.0, 8.0)), rng.choice((0.004, 0.25, 4.0))
        for turn in range(turns):
            held_at = at + turn * (held_s + open_s)
            if held_at < span_s:
                yield Fault(held_at, "slow", (name, held_s))


def _sleeps(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    """Some are only silent, some are suspended meanwhile, and some wake before their time."""
    for at in _moments(rng, span_s, 3):
        name, length_s = rng.choice(names), 1.0 + _length_s(rng, 15.0)
        suspended, early = rng.random() < 0.5, rng.random() < 0.3
        yield Fault(at, "sleep", (name, length_s))
        if suspended:
            yield Fault(at + 0.5, "pause", (name,))
            yield Fault(at + length_s * rng.uniform(0.5, 2.0), "resume", (name,))
        elif early:
            yield Fault(at + length_s / 2, "awaken", (name,))


def _partitions(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 3):
        mixed, length_s = rng.sample(names, len(names)), _length_s(rng, 20.0)
        where = rng.randint(1, len(names) - 1)
        yield Fault(at, "partition", (mixed[:where], mixed[where:]))
        yield Fault(at + length_s, "join_sides")


def _cuts(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 6):
        (source, target), length_s = rng.sample(names, 2), _length_s(rng, 15.0)
        yield Fault(at, "cut", (source, target))
        yield Fault(at + length_s, "mend", (source, target))


def _clocks(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 4):
        error_s = rng.choice((-1.8e9, -3600.0, -1.0, 0.5, 30.0, 7200.0, 2.3e9))
        yield Fault(at, "skew", (rng.choice(names), error_s))


def _disks(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    for at in _moments(rng, span_s, 4):
        delay_s = rng.choice((0.0005, 0.05, 0.5, 2.0))
        yield Fault(at, "slow_disk", (rng.choice(names), delay_s))


def _registry(rng: random.Random, names: list[str], span_s: float) -> Iterator[Fault]:
    """Newcomers at any moment; and at most one goodbye, because each costs a copy of the data."""
    for number, at in enumerate(_moments(rng, span_s, 2)):
        yield Fault(at, "add", (f"new{number}",))
    # Never the first: it is the issuer, without whom no partition gets to its owners.
    retired, at = rng.choice(names[1:]), rng.uniform(0.0, span_s)
    if len(names) >= RETIRING_NODES_MIN:
        yield Fault(at, "retire", (retired,))


CLASSES: dict[str, Draw] = {
    "weather": _weather,
    "crashes": _crashes,
    "power": _power,
    "pauses": _pauses,
    "slowness": _slowness,
    "sleeps": _sleeps,
    "partitions": _partitions,
    "cuts": _cuts,
    "clocks": _clocks,
    "disks": _disks,
    "registry": _registry,
}
"""The classes of faults; each can be masked by its name."""
