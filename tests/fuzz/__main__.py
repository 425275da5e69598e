"""Fuzz for long: ``python -m tests.fuzz --seconds 600 --seed 0``.

Every input follows from its seed. Prints each finding with its trace and the command that replays
it, and in the end how many runs and inputs there were. Exit status 1 when there was a finding.
"""

import argparse
import sys
import time
import traceback
from collections import Counter

from tests.fuzz.runs import BY_NAME, KINDS, Finding, campaign

TOLD_MAX = 20
REPORT_S = 30.0


def main() -> int:
    """Run the campaign that the command line asks for."""
    options = _options()
    kinds = tuple(BY_NAME[name] for name in options.only) or KINDS
    seconds = options.seconds if options.runs is None else None
    inputs: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    findings = 0
    began_s = told_s = time.monotonic()
    for kind, seed, outcome in campaign(options.seed, kinds, options.runs, seconds):
        runs[kind.name] += 1
        if isinstance(outcome, Finding):
            findings += 1
            _tell(kind.name, seed, outcome, findings)
        else:
            inputs[kind.name] += outcome
        if time.monotonic() - told_s > REPORT_S:
            told_s = time.monotonic()
            print(f"{told_s - began_s:6.0f} s  seed {seed}, {findings} findings", flush=True)
    for name in runs:
        print(f"{runs[name]:8d} runs, {inputs[name]:9d} inputs  {name}")
    print(f"{findings} findings in {time.monotonic() - began_s:.0f} s")
    return 1 if findings else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long")
    parser.add_argument("--runs", type=int, help="so many seeds, however long that takes")
    parser.add_argument("--only", action="append", default=[], choices=sorted(BY_NAME))
    return parser.parse_args()


def _tell(name: str, seed: int, finding: Finding, number: int) -> None:
    if number > TOLD_MAX:
        return
    print(f"{name} {seed}:", file=sys.stderr)
    if finding.__cause__ is not None:
        trace = traceback.format_exception(finding.__cause__)
        print("".join(trace[-6:]), file=sys.stderr)
    print(f"{finding}\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
