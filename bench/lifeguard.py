"""The Lifeguard paper's experiment, with Covey's code in the simulator.

Dadgar, Phillips and Currey (DSN 2018) let 128 Consul agents run and made some of them *slow*: all
messages of such a member, in and out, are held for a time D, pass freely for a time I, are held
again, and so on for two minutes. A slow member hears answers and refutations too late, and
declares healthy members dead. Counted are these false deaths, wherever they are believed, and of
them those that members believed which were well themselves. In a second experiment some members
are held for good: when is that known, to the first and to the last?

``lifeguard_rows.py`` says what the rows of the tables are.
"""

import argparse
import contextlib
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from bench.lifeguard_rows import ROWS, SWIM, Row, senders_wait
from bench.report import finish, table
from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.membership.model.members import MemberChanged, MemberState
from gossip.sim.experiment import SEEDS
from gossip.sim.host import Host
from gossip.sim.invariants import Checker, WorldView
from gossip.sim.rng import stream
from gossip.sim.world import World

SETTLE_S = 15.0
GONE_S = 45.0
HELD_S, OPEN_S = 16.384, 0.256
"""Of the paper's grid one point: held for longer than a suspicion lasts (10.5 s), and open for less
time than it takes an update to go out and its refutation to come back. Much shorter holds, and much
longer openings, cost nobody anything; the paper's totals come from this corner."""


class Paper(msgspec.Struct, frozen=True):
    """What the paper says about one row (tables IV, V and VI)."""

    false_percent: float
    at_healthy_percent: float
    first_s: tuple[float, float]
    all_s: tuple[float, float]
    messages_percent: float


PAPER = {
    "SWIM": Paper(100, 100, (12.44, 16.96), (12.90, 16.93), 100),
    "LHA-Probe": Paper(67.7, 32.9, (12.42, 17.75), (12.90, 17.98), 98.5),
    "LHA-Suspicion": Paper(3.00, 6.71, (12.42, 17.47), (12.89, 17.33), 111.3),
    "Buddy System": Paper(94.1, 44.6, (12.45, 17.12), (12.92, 17.18), 100.1),
    "Lifeguard": Paper(1.53, 1.89, (12.45, 17.90), (12.91, 18.05), 110.6),
}
"""Times: median and 99 %. Messages: of SWIM's 435.33 million."""


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    members: int
    slow: tuple[int, ...]
    gone: int
    seconds: float


THOROUGH = Size(128, (1, 2, 4, 8, 16, 32), 16, 120.0)
QUICK = Size(32, (2, 8), 8, 120.0)


class Trial(msgspec.Struct, frozen=True):
    """One run: which protocol, how many members are slow, and how."""

    row: Row
    seed: int
    slow: int
    held_s: float
    open_s: float
    seconds: float
    members: int
    senders_wait: bool = True


class Outcome(msgspec.Struct):
    """What a run showed."""

    false_deaths: int = 0
    at_healthy: int = 0
    first_s: list[float] = []
    """When each held member was dead to the first that is well ..."""
    all_s: list[float] = []
    """... and to all of them; shorter than the other where not all knew in time."""
    messages: int = 0
    size_bytes: int = 0
    took_s: float = 0.0


class Judge(Checker):
    """Counts who is believed dead by whom."""

    def __init__(self) -> None:
        self.slow: set[str] = set()
        self.since: Instant = math.inf
        self.false_deaths = self.at_healthy = 0
        self.known_at: dict[str, dict[str, Instant]] = {}

    def member_changed(self, world: WorldView, host: Host, change: MemberChanged) -> None:
        """Note a death: a false one, or a true one that somebody well noticed."""
        state, subject = change.member.state, world.names[change.member.id]
        if state is not MemberState.DEAD or change.before is state or world.now < self.since:
            return
        if subject not in self.slow:
            self.false_deaths += 1
            self.at_healthy += host.name not in self.slow
        elif host.name not in self.slow:
            self.known_at.setdefault(subject, {}).setdefault(host.name, world.now)


def run(trial: Trial) -> Outcome:
    """Run a trial; ``open_s`` of 0: the slow ones are held once, for ``held_s``."""
    begun, judge = time.process_time(), Judge()
    with trial.row.played():
        tuning = trial.row.tuning(trial.members)
        world = World(trial.seed, tuning=tuning, partitions=1, checkers=[judge], known_max=SEEDS)
        names = [f"n{number}" for number in range(trial.members)]
        world.add(*names)
        world.run(SETTLE_S)
        assert world.is_whole(), "the experiment begins with a covey that is whole"
        judge.slow = set(stream(trial.seed, "slow").sample(names, trial.slow))
        judge.since, before = world.now, _sent(world)
        for at in _holds(trial):
            for name in sorted(judge.slow):
                world.driver.schedule.after(at, world.slow, name, trial.held_s)
        with contextlib.ExitStack() as stack:
            if trial.senders_wait:
                stack.enter_context(senders_wait(trial.row, _release_at(world)))
            world.run(trial.seconds)
    messages, size_bytes = (now - then for now, then in zip(_sent(world), before, strict=True))
    known = [[at - judge.since for at in times.values()] for times in judge.known_at.values()]
    return Outcome(
        false_deaths=judge.false_deaths,
        at_healthy=judge.at_healthy,
        first_s=[min(times) for times in known],
        all_s=[max(times) for times in known if len(times) == trial.members - trial.slow],
        messages=messages,
        size_bytes=size_bytes,
        took_s=time.process_time() - begun,
    )


def _holds(trial: Trial) -> list[float]:
    """Return when the slow ones begin to be held, from the beginning of the anomalies."""
    if not trial.open_s:
        return [0.0]
    cycle_s = trial.held_s + trial.open_s
    return [turn * cycle_s for turn in range(math.ceil(trial.seconds / cycle_s))]


def _release_at(world: World) -> Callable[[NodeId, Instant], Instant | None]:
    def release_at(node: NodeId, now: Instant) -> Instant | None:
        del now
        host = world.hosts[world.names[node]]
        until = world.network.release_at(host.name, world.now)
        return None if until is None else host.local(until)

    return release_at


def _sent(world: World) -> tuple[int, int]:
    counts = world.driver.counts
    messages = counts["sent/datagrams"] + world.driver.streams.counts["frames/sent"]
    return messages, counts["sent/bytes"]


# The experiments, and what they say.


class Results:
    """All outcomes, by row and by number of slow members; and those of members that are gone."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.slow: dict[str, dict[int, list[Outcome]]] = {}
        self.gone: dict[str, list[Outcome]] = {}

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Put an outcome into its place."""
        if trial.open_s:
            by_slow = self.slow.setdefault(trial.row.name, {})
            by_slow.setdefault(trial.slow, []).append(outcome)
        else:
            self.gone.setdefault(trial.row.name, []).append(outcome)

    def total(self, row: str, figure: str, slow: int | None = None) -> int:
        """Add a figure up over the runs of a row, all or those with so many slow members."""
        chosen = self.slow[row] if slow is None else {slow: self.slow[row][slow]}
        return sum(getattr(each, figure) for outcomes in chosen.values() for each in outcomes)

    def percent(self, row: str, figure: str) -> float | None:
        """Return a row's figure as a share of SWIM's; None when SWIM has none."""
        base = self.total(SWIM.name, figure)
        return 100 * self.total(row, figure) / base if base else None

    def times(self, row: str, figure: str) -> list[float | None]:
        """Return the median and the 99 % of a time; None: that many did not notice."""
        known = sorted(at for each in self.gone[row] for at in getattr(each, figure))
        late = self.size.gone * len(self.gone[row]) - len(known)
        every = [*known, *[math.inf] * late]
        found = every[len(every) // 2], every[math.ceil(0.99 * len(every)) - 1]
        return [None if at == math.inf else at for at in found]


def trials(options: argparse.Namespace, size: Size) -> Iterator[Trial]:
    """Yield all runs, the long ones first, so that no core waits at the end."""
    for seed in range(1, options.seeds + 1):
        for slow in reversed(size.slow):
            for row in ROWS:
                yield Trial(
                    row,
                    seed,
                    slow,
                    options.held,
                    options.open,
                    size.seconds,
                    size.members,
                    not options.timers_go_on,
                )
        for row in ROWS:
            yield Trial(row, seed, size.gone, GONE_S, 0.0, GONE_S, size.members)


def measure(options: argparse.Namespace) -> Results:
    """Run everything."""
    size = _size(options)
    results, wanted = Results(size), list(trials(options, size))
    begun = time.monotonic()
    with multiprocessing.Pool(options.jobs) as pool:
        for number, (trial, outcome) in enumerate(pool.imap_unordered(_pair, wanted), 1):
            results.add(trial, outcome)
            print(f"{time.monotonic() - begun:6.0f} s  {number} of {len(wanted)}: "
                  f"{trial.row.name}, {trial.slow} {'slow' if trial.open_s else 'gone'}: "
                  f"{outcome.false_deaths} false deaths, {outcome.at_healthy} at healthy members",
                  file=sys.stderr, flush=True)  # fmt: skip
    return results


def _size(options: argparse.Namespace) -> Size:
    size = QUICK if options.quick else THOROUGH
    asked = {name: getattr(options, name) for name in ("members", "slow", "gone", "seconds")}
    return msgspec.structs.replace(size, **{n: value for n, value in asked.items() if value})


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _pair(trial: Trial) -> tuple[Trial, Outcome]:
    return trial, run(trial)


def show(results: Results) -> None:
    """Print the tables."""
    rows = [row.name for row in ROWS]
    table(
        "False deaths, beside the paper's",
        ["", "false deaths", "at healthy", "% of SWIM", "paper", "healthy, % of SWIM", "paper",
         "messages, % of SWIM", "paper"],
        [_false_deaths(results, row) for row in rows],
    )  # fmt: skip
    table(
        "Seconds until a death is known: median / 99 %",
        ["", "to the first", "paper", "to all", "paper"],
        [_latencies(results, row) for row in rows],
    )
    table(
        "False deaths by number of slow members",
        ["slow", *rows],
        [[slow, *(results.total(row, "false_deaths", slow) for row in rows)]
         for slow in results.size.slow],
    )  # fmt: skip


def _false_deaths(results: Results, row: str) -> list[object]:
    paper = PAPER.get(row)
    figures = "false_deaths", "at_healthy", "messages"
    false, healthy, messages = (_cell(results.percent(row, figure)) for figure in figures)
    return [
        row,
        results.total(row, "false_deaths"),
        results.total(row, "at_healthy"),
        false,
        _cell(paper.false_percent if paper else None),
        healthy,
        _cell(paper.at_healthy_percent if paper else None),
        messages,
        _cell(paper.messages_percent if paper else None),
    ]


def _latencies(results: Results, row: str) -> list[object]:
    paper = PAPER.get(row)
    return [
        row,
        _times(results.times(row, "first_s")),
        _times(paper.first_s if paper else ()),
        _times(results.times(row, "all_s")),
        _times(paper.all_s if paper else ()),
    ]


def _cell(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3g}"


def _times(times: Sequence[float | None]) -> str:
    return " / ".join("later" if at is None else f"{at:.1f}" for at in times) or "-"


def _figures(results: Results) -> dict[str, Any]:
    def of(row: str) -> dict[str, Any]:
        return {
            "false_deaths": results.total(row, "false_deaths"),
            "false_deaths_at_healthy": results.total(row, "at_healthy"),
            "percent_of_swim": results.percent(row, "false_deaths"),
            "healthy_percent_of_swim": results.percent(row, "at_healthy"),
            "messages_percent_of_swim": results.percent(row, "messages"),
            "first_s": results.times(row, "first_s"),
            "all_s": results.times(row, "all_s"),
            "by_slow": {n: results.total(row, "false_deaths", n) for n in results.size.slow},
        }

    how = {"members": results.size.members, "seconds": results.size.seconds}
    return {**how, "rows": {row.name: of(row.name) for row in ROWS}}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="32 members, about a minute")
    parser.add_argument("--members", type=int, help="128")
    parser.add_argument("--slow", type=_numbers, help="how many are slow: 1,2,4,8,16,32")
    parser.add_argument("--gone", type=int, help="how many are held for good (16)")
    parser.add_argument("--seeds", type=int, default=1, help="so many runs of each kind")
    parser.add_argument("--seconds", type=float, help="how long members are slow (120)")
    parser.add_argument("--held", type=float, default=HELD_S, help="D in seconds")
    parser.add_argument("--open", type=float, default=OPEN_S, help="I in seconds")
    parser.add_argument(
        "--timers-go-on", action="store_true",
        help="held members do not wait in a send: they go on probing and accusing",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    results = measure(options)
    show(results)
    how = {"held_s": options.held, "open_s": options.open, "seeds": options.seeds}
    finish("lifeguard", {**how, "timers_go_on": options.timers_go_on, **_figures(results)})


if __name__ == "__main__":
    main()
