"""Run many schedules in which owners change: ``python -m tests.sim.owners_campaign``.

Prints each failing seed with the command that replays it, now and then how far it has come and
which command goes on from there, and at the end what the schedules saw and how many a second that
were. Exit status 1 when a seed failed, or when something that the schedules are there to produce
never happened.
"""

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

from tests.sim import owners

SCHEDULES = 20_000
PORTION = 100
TOLD_EVERY_S = 30.0
VACUITY_SEEDS_MIN = 500
COMMAND = "python -m tests.sim.owners_campaign"

Portion = tuple[int, int, Counter[str], list[str], float]


def main() -> int:
    """Run the schedules that the command line asks for."""
    options = _options()
    first, end = options.seeds
    started, told_at = time.monotonic(), time.monotonic()
    counts: Counter[str] = Counter()
    failures, done, cpu_s = 0, first, 0.0
    portions = ((at, min(at + PORTION, end)) for at in range(first, end, PORTION))
    with ProcessPoolExecutor(options.jobs) as pool:
        running = [pool.submit(_run, *span) for span in islice(portions, 4 * options.jobs)]
        while running:
            _, done, seen, stories, spent_s = running.pop(0).result()
            running += [pool.submit(_run, *span) for span in islice(portions, 1)]
            counts, cpu_s, failures = counts + seen, cpu_s + spent_s, failures + len(stories)
            for story in stories:
                print(story, file=sys.stderr, flush=True)
            if time.monotonic() - told_at > TOLD_EVERY_S:
                told_at = time.monotonic()
                print(f"{done - first} done; go on: {COMMAND} --seeds {done}:{end}", flush=True)
    return _judge(end - first, failures, counts, time.monotonic() - started, cpu_s)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=_span, default=(0, SCHEDULES), metavar="FIRST:END")
    parser.add_argument("--seed", type=lambda text: (int(text), int(text) + 1), dest="seeds")
    parser.add_argument("--jobs", type=int, default=1)
    return parser.parse_args()


def _span(text: str) -> tuple[int, int]:
    first, _, end = text.partition(":")
    return int(first), int(end)


def _run(first: int, end: int) -> Portion:
    """Run some seeds; return what they counted, how some failed, and the processor time."""
    counts: Counter[str] = Counter()
    stories: list[str] = []
    started = time.process_time()
    for seed in range(first, end):
        try:
            counts += owners.run(seed).counts
        except Exception as error:  # noqa: BLE001  whatever broke, the next seeds still count
            stories.append(f"{error!r}\nreplay: {COMMAND} --seed {seed}\n")
    return first, end, counts, stories, time.process_time() - started


def _judge(schedules: int, failures: int, counts: Counter[str], wall_s: float, cpu_s: float) -> int:
    for label, count in sorted(counts.items()):
        print(f"{count:10d}  {label}")
    print(
        f"{schedules:,} schedules, {failures} failed, in {wall_s:.0f} s: {schedules / wall_s:.1f} "
        f"schedules a second, {schedules / cpu_s:.1f} for each second of a processor"
    )
    missing = [name for name in owners.MUST_HAPPEN if not counts[name]]
    if schedules >= VACUITY_SEEDS_MIN and missing:
        print(f"vacuous, never happened: {', '.join(missing)}", file=sys.stderr)
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
