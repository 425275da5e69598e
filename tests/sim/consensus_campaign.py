"""Run many schedules of a Raft group: ``python -m tests.sim.consensus_campaign --seeds 0:500``.

Prints each failing seed with its trace and the command that replays it, now and then how far it has
come and which command goes on from there, and at the end what the schedules saw and how many a
second that were. Exit status 1 when a seed failed, or when something that the schedules are there
to produce never happened.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import NamedTuple

from gossip.sim.consensus_faults import CLASSES
from tests.sim import consensus

SCHEDULES = 2_000
PORTION = 20
TOLD_EVERY_S = 30.0
VACUITY_SEEDS_MIN = 200
COMMAND = "python -m tests.sim.consensus_campaign"


class Portion(NamedTuple):
    """What some seeds counted, how some of them failed, and the processor time that they took."""

    end: int
    counts: Counter[str]
    failures: list[str]
    cpu_s: float


def main() -> int:
    """Run the schedules that the command line asks for."""
    options = _options()
    first, end = options.seeds
    started = told_at = time.monotonic()
    total = Portion(first, Counter(), [], 0.0)
    for portion in _portions(first, end, frozenset(options.without), options.jobs):
        for failure in portion.failures:
            print(failure, file=sys.stderr, flush=True)
        total = Portion(
            portion.end,
            total.counts + portion.counts,
            total.failures + portion.failures,
            total.cpu_s + portion.cpu_s,
        )
        if time.monotonic() - told_at > TOLD_EVERY_S:
            told_at = time.monotonic()
            done = total.end - first
            print(f"{done} done; go on: {COMMAND} --seeds {total.end}:{end}", flush=True)
    return _judge(end - first, total, time.monotonic() - started)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=_span, default=(0, SCHEDULES), metavar="FIRST:END")
    parser.add_argument("--seed", type=lambda text: (int(text), int(text) + 1), dest="seeds")
    parser.add_argument("--without", action="append", default=[], choices=CLASSES, metavar="CLASS")
    parser.add_argument("--jobs", type=int, default=1)
    return parser.parse_args()


def _span(text: str) -> tuple[int, int]:
    first, _, end = text.partition(":")
    return int(first), int(end)


def _portions(first: int, end: int, without: frozenset[str], jobs: int) -> Iterator[Portion]:
    """Yield what portions of the seeds did, in their order."""
    spans = ((at, min(at + PORTION, end)) for at in range(first, end, PORTION))
    with ProcessPoolExecutor(jobs) as pool:
        running = [pool.submit(_run, *span, without) for span in islice(spans, 3 * jobs)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(_run, *span, without) for span in islice(spans, 1)]


def _run(first: int, end: int, without: frozenset[str]) -> Portion:
    counts: Counter[str] = Counter()
    failures: list[str] = []
    started = time.process_time()
    for seed in range(first, end):
        try:
            counts += consensus.run(seed, without).counts
        except Exception as error:  # noqa: BLE001  whatever broke, the next seeds still count
            failures.append(_told(seed, without, error))
    return Portion(end, counts, failures, time.process_time() - started)


def _told(seed: int, without: frozenset[str], error: Exception) -> str:
    trace = "\n".join(getattr(error, "__notes__", []))
    masked = "".join(f" --without {name}" for name in sorted(without))
    replay = f"replay: {COMMAND} --seed {seed}{masked}"
    return f"seed {seed}\n{trace}\n{type(error).__name__}: {error}\n{replay}\n"


def _judge(schedules: int, total: Portion, wall_s: float) -> int:
    for label, count in sorted(total.counts.items()):
        print(f"{count:10d}  {label}")
    print(
        f"{schedules:,} schedules, {len(total.failures)} failed, in {wall_s:.0f} s: "
        f"{schedules / wall_s:.1f} schedules a second, "
        f"{schedules / total.cpu_s:.1f} for each second of a processor"
    )
    missing = consensus.vacuous(total.counts) if schedules >= VACUITY_SEEDS_MIN else []
    if missing:
        print(f"vacuous, never happened: {', '.join(missing)}", file=sys.stderr)
    return 1 if total.failures or missing else 0


if __name__ == "__main__":
    sys.exit(main())
