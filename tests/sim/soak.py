"""Runs many schedules of one kind, on several processors, and judges what they saw.

Prints each failing seed with the command that replays it, now and then how far it has come and
which command goes on from there, and at the end what the schedules saw and how many a second that
were. The exit status is 1 when a seed failed, or when something that the schedules are there to
produce never happened.
"""

import argparse
import importlib
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import NamedTuple

PORTION = 100
TOLD_EVERY_S = 30.0
VACUITY_SEEDS_MIN = 500

Portion = tuple[int, int, Counter[str], list[str], float]


class Campaign(NamedTuple):
    """A module with ``run(seed)``, whose result has ``counts``, and with ``MUST_HAPPEN``."""

    schedules: str
    command: str
    usual: int
    """How many are run unless the command line says otherwise."""


def soak(campaign: Campaign, description: str | None) -> int:
    """Run the schedules that the command line asks for."""
    options = _options(campaign, description)
    first, end = options.seeds
    started, told_at = time.monotonic(), time.monotonic()
    counts: Counter[str] = Counter()
    failures, done, cpu_s = 0, first, 0.0
    portions = ((at, min(at + PORTION, end)) for at in range(first, end, PORTION))
    with ProcessPoolExecutor(options.jobs) as pool:
        running = [pool.submit(_run, campaign, *s) for s in islice(portions, 4 * options.jobs)]
        while running:
            _, done, seen, stories, spent_s = running.pop(0).result()
            running += [pool.submit(_run, campaign, *span) for span in islice(portions, 1)]
            counts, cpu_s, failures = counts + seen, cpu_s + spent_s, failures + len(stories)
            for story in stories:
                print(story, file=sys.stderr, flush=True)
            if time.monotonic() - told_at > TOLD_EVERY_S:
                told_at = time.monotonic()
                print(
                    f"{done - first} done; go on: {campaign.command} --seeds {done}:{end}",
                    flush=True,
                )
    times = time.monotonic() - started, cpu_s
    return _judge(campaign, end - first, failures, counts, times)


def _options(campaign: Campaign, description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    every = (0, campaign.usual)
    parser.add_argument("--seeds", type=_span, default=every, metavar="FIRST:END")
    parser.add_argument("--seed", type=lambda text: (int(text), int(text) + 1), dest="seeds")
    parser.add_argument("--jobs", type=int, default=1)
    return parser.parse_args()


def _span(text: str) -> tuple[int, int]:
    first, _, end = text.partition(":")
    return int(first), int(end)


def _run(campaign: Campaign, first: int, end: int) -> Portion:
    """Run some seeds; return what they counted, how some failed, and the processor time."""
    schedules = importlib.import_module(campaign.schedules)
    counts: Counter[str] = Counter()
    stories: list[str] = []
    started = time.process_time()
    for seed in range(first, end):
        try:
            counts += schedules.run(seed).counts
        except Exception as error:  # noqa: BLE001  whatever broke, the next seeds still count
            stories.append(f"{error!r}\nreplay: {campaign.command} --seed {seed}\n")
    return first, end, counts, stories, time.process_time() - started


def _judge(
    campaign: Campaign,
    schedules: int,
    failures: int,
    counts: Counter[str],
    times: tuple[float, float],
) -> int:
    wall_s, cpu_s = times
    for label, count in sorted(counts.items()):
        print(f"{count:10d}  {label}")
    print(
        f"{schedules:,} schedules, {failures} failed, in {wall_s:.0f} s: {schedules / wall_s:.1f} "
        f"schedules a second, {schedules / cpu_s:.1f} for each second of a processor"
    )
    expected = importlib.import_module(campaign.schedules).MUST_HAPPEN
    missing = [name for name in expected if not counts[name]]
    if schedules >= VACUITY_SEEDS_MIN and missing:
        print(f"vacuous, never happened: {', '.join(missing)}", file=sys.stderr)
        return 1
    return 1 if failures else 0
