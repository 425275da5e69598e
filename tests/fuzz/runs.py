"""Runs: one seed, one run, always the same inputs.

A campaign makes many runs, each with another seed, of all kinds in turn. Whatever fails is raised
as ``Finding``, which carries the command that makes exactly this run again.
"""

import logging
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.fuzz.damage import damage_control, damage_outbox, damage_records
from tests.fuzz.damaged_log import damage_consensus
from tests.fuzz.parsers import PARSERS, feed_spoilt
from tests.fuzz.requests import Requests
from tests.fuzz.siege import Siege

ATTACKS = 200
ROUNDS = 5
REQUESTS = 40


class Finding(AssertionError):
    """What a run found; the message ends with the command that replays it."""


class Kind(NamedTuple):
    """One kind of run: what it is called, and what it does with a seed."""

    name: str
    run: Callable[[int], int]
    """Returns how many inputs were made."""


def besiege(seed: int) -> int:
    """Attack a covey, then look whether it recovers."""
    siege = Siege(seed)
    try:
        for _ in range(ATTACKS):
            siege.attack()
        siege.aftermath()
    except Exception as error:
        error.add_note(f"input {siege.inputs}: {siege.last[:2000]}")
        raise
    return siege.inputs


def misread(seed: int) -> int:
    """Let every parser read spoilt inputs."""
    for turn in range(ROUNDS):
        feed_spoilt(seed * ROUNDS + turn)
    return ROUNDS * len(PARSERS)


def request(seed: int) -> int:
    """Send spoilt requests to the HTTP API."""
    requests = Requests(seed)
    for _ in range(REQUESTS):
        requests.send()
    return REQUESTS


KINDS = (
    Kind("siege", besiege),
    Kind("parsers", misread),
    Kind("requests", request),
    Kind("outbox", damage_outbox),
    Kind("records", damage_records),
    Kind("control", damage_control),
    Kind("consensus", damage_consensus),
)
BY_NAME = {kind.name: kind for kind in KINDS}


def run(kind: Kind, seed: int) -> int:
    """Make one run; return how many inputs it had. Raises Finding."""
    errors = logging.getLogger("agent.api.errors")
    level = errors.level
    errors.setLevel(logging.CRITICAL)  # a 500 is a finding here
    try:
        return kind.run(seed)
    except Exception as error:
        notes = "\n".join(getattr(error, "__notes__", []))
        raise Finding(
            f"{type(error).__name__}: {error}\n{notes}\n"
            f"replay: python -m tests.fuzz --only {kind.name} --seed {seed} --runs 1"
        ) from error
    finally:
        errors.setLevel(level)


def campaign(
    first: int, kinds: tuple[Kind, ...], runs: int | None, seconds: float | None
) -> Iterator[tuple[Kind, int, int | Finding]]:
    """Make runs with rising seeds, ``runs`` of each kind or until the time is over."""
    until = None if seconds is None else time.monotonic() + seconds
    seed = first
    while (runs is None or seed < first + runs) and (until is None or time.monotonic() < until):
        for kind in kinds:
            try:
                yield kind, seed, run(kind, seed)
            except Finding as finding:
                yield kind, seed, finding
        seed += 1
