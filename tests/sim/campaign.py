"""Run many seeds: ``python tests/sim/campaign.py --seeds 0:500``.

Prints each failing seed with its story and the command that replays it, then what the campaign
saw. Exit status 1 when a seed failed, or when something that a campaign is there to produce, such
as a lost datagram, never happened.
"""

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from gossip.sim import campaign
from gossip.sim.faults import CLASSES

VACUITY_SEEDS_MIN = 50


def main() -> int:
    """Run the campaign that the command line asks for."""
    options = _options()
    seeds = range(*options.seeds)
    without = frozenset(options.without)
    started = time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        results = list(pool.map(partial(_run_one, without=without), seeds))
    return _judge(seeds, results, time.monotonic() - started, options.jobs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=_span, default=(0, 100), metavar="FIRST:END")
    parser.add_argument("--seed", type=lambda text: (int(text), int(text) + 1), dest="seeds")
    parser.add_argument("--without", action="append", default=[], choices=CLASSES, metavar="CLASS")
    parser.add_argument("--jobs", type=int, default=1)
    return parser.parse_args()


def _span(text: str) -> tuple[int, int]:
    first, _, end = text.partition(":")
    return int(first), int(end)


def _run_one(seed: int, without: frozenset[str]) -> campaign.Report | str:
    """Return what a seed did, or how it failed."""
    try:
        return campaign.run(seed, without)
    except Exception as error:  # noqa: BLE001  whatever broke, the next seeds still count
        story = "\n".join(getattr(error, "__notes__", []))
        masked = "".join(f" --without {name}" for name in sorted(without))
        replay = f"replay: python tests/sim/campaign.py --seed {seed}{masked}"
        return f"seed {seed}\n{story}\n{type(error).__name__}: {error}\n{replay}\n"


def _judge(seeds: range, results: list[campaign.Report | str], wall_s: float, jobs: int) -> int:
    failures = [result for result in results if isinstance(result, str)]
    reports = [result for result in results if isinstance(result, campaign.Report)]
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.counts)
    for failure in failures:
        print(failure, file=sys.stderr)
    for label, count in sorted(counts.items()):
        print(f"{count:10d}  {label}")
    node_s, events = sum(r.node_s for r in reports), sum(r.events for r in reports)
    print(
        f"{len(seeds)} seeds, {len(failures)} failed; {node_s:,.0f} node-seconds and {events:,} "
        f"events in {wall_s:.1f} s: {node_s / wall_s / jobs:,.0f} node-seconds a second per core"
    )
    missing = campaign.vacuous(counts) if len(seeds) >= VACUITY_SEEDS_MIN else []
    if missing:
        print(f"vacuous, never happened: {', '.join(missing)}", file=sys.stderr)
    return 1 if failures or missing else 0


if __name__ == "__main__":
    sys.exit(main())
