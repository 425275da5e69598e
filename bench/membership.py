"""Membership, beside Serf and kinship: how fast a crash is known, how often somebody is wronged.

All run on the same kind of network, made of namespaces and one bridge for each cluster, and are
read by the same witness (bench/witness.py). The clusters of one wave live and suffer side by side,
so that a busy moment of the machine is a busy moment for all of them: idle agents are cheap, and
what is measured are timers. Clusters that would be too many agents together take turns.
``--parts``, ``--members`` and the rest choose what is measured; all of it takes an hour.
"""

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from bench import trials
from bench.cluster import Cluster
from bench.comparison import Comparison
from bench.contenders import CONTENDERS, Contender
from bench.report import finish, table
from bench.simulator import IDLE_MEMBERS, node_seconds_per_s
from bench.trials import KINDS, LOSSES, QUICK, THOROUGH
from tests.live.harness.neighbours import many_neighbours
from tests.live.harness.network import can_make_networks

PARTS = ("idle", "crash", "loss", "join", "heal", "sim")
WITH_CLUSTER = {"crash", "loss", "idle"}
WAVE_MAX = 200
"""A wave has at most so many agents, or one cluster."""

FAILURES = RuntimeError, OSError, subprocess.SubprocessError
"""A contender that does not do what it should, or a machine that cannot carry it: a gap in the
table, with the reason, and no end of the run."""

T = TypeVar("T")


class Place(NamedTuple):
    """One cluster that is to be measured."""

    members: int
    system: str


class Wave:
    """The clusters that live side by side."""

    def __init__(self, places: Sequence[Place], found: Comparison) -> None:
        self.names = ", ".join(f"{place.system} {place.members}" for place in places)
        self._found = found
        self._clusters = {
            place: Cluster(CONTENDERS[place.system], place.members) for place in places
        }

    def each(self, do: Callable[[Cluster], T]) -> Iterator[tuple[Place, T]]:
        """Do the same to all clusters at once; yield what came of it.

        A cluster that fails is ended, and takes no part in what comes later.
        """
        with ThreadPoolExecutor(max(1, len(self._clusters))) as threads:
            going = {key: threads.submit(do, cluster) for key, cluster in self._clusters.items()}
        for place, done in going.items():
            try:
                yield place, done.result()
            except FAILURES as error:
                self._found.record_failure(place.system, f"{place.members} members", error)
                self._clusters.pop(place).close()

    def close(self) -> None:
        """End all of them."""
        for cluster in self._clusters.values():
            cluster.close()


class Run:
    """One run: what was asked for, carried out part by part."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._lengths = QUICK if options.quick else THOROUGH
        columns = [name for name in CONTENDERS if name in options.systems]
        self.found = Comparison(columns, self._lengths, options.joining)
        self.simulated: float | None = None
        self.load = [os.getloadavg()[0]]
        self._began = time.monotonic()

    def measure(self) -> None:
        """Measure all that was asked for."""
        parts = self._options.parts
        if WITH_CLUSTER.intersection(parts):
            for places in waves(self._options.members, self._options.systems):
                self._measure_wave(places)
        if "join" in parts:
            joining = f"{self._options.joining} join"
            join = partial(trials.join, members=self._options.joining)
            self._measure_each(joining, join, self.found.joined_s)
        if "heal" in parts:
            heal = partial(trials.heal, seconds=self._lengths.split_s)
            self._measure_each("a split", heal, self.found.healed_s)
        if "sim" in parts:
            self._tell("the simulator")
            self.simulated = node_seconds_per_s()

    def _measure_each(
        self, what: str, trial: Callable[[Contender], float | None], to: dict[str, float | None]
    ) -> None:
        """Let one system after the other undergo a trial; who fails has no figure."""
        for system in self._options.systems:
            self._tell(f"{system}: {what}")
            to[system] = None
            try:
                to[system] = trial(CONTENDERS[system])
            except FAILURES as error:
                self.found.record_failure(system, what, error)

    def _measure_wave(self, places: Sequence[Place]) -> None:
        wave = Wave(places, self.found)
        try:
            self._tell(f"{wave.names}: forming")
            list(wave.each(Cluster.must_form))
            if "idle" in self._options.parts:
                self._tell("idle")
                for place, cost in wave.each(partial(trials.idle, seconds=self._lengths.idle_s)):
                    self.found.record_idle(*place, cost)
            if "crash" in self._options.parts:
                self._measure_crashes(wave)
            if "loss" in self._options.parts:
                self._measure_losses(wave)
        finally:
            wave.close()

    def _measure_crashes(self, wave: Wave) -> None:
        for kind in KINDS:
            self._tell(f"crashes of a {kind}")
            crash = partial(trials.crash, kind=kind, times=self._lengths.crashes)
            for place, seen in wave.each(crash):
                self.found.record_crashes(*place, kind, seen)

    def _measure_losses(self, wave: Wave) -> None:
        for percent in self._options.loss:
            self._tell(f"{percent} % loss")
            list(wave.each(Cluster.form_anew))
            lose = partial(trials.lose, percent=percent, lengths=self._lengths)
            for place, lost in wave.each(lose):
                self.found.record_loss(*place, percent, lost)

    def _tell(self, what: str) -> None:
        """Say on stderr what comes now, and note how busy the machine is."""
        self.load.append(os.getloadavg()[0])
        passed_s = time.monotonic() - self._began
        print(f"{passed_s:6.0f} s, load {self.load[-1]:.1f}  {what}", file=sys.stderr, flush=True)

    def figures(self) -> dict[str, Any]:
        """Return everything, for the last line."""
        return {
            **self.found.figures(),
            "sim_node_seconds_per_s": self.simulated,
            "load_1min": {"least": min(self.load), "most": max(self.load)},
            "took_s": round(time.monotonic() - self._began),
        }

    def show(self) -> None:
        """Print the tables."""
        self.found.show()
        if self.simulated is not None:
            table("Simulator", ["what", "figure"],
                  [[f"seconds of a node, simulated a second, {IDLE_MEMBERS} idle members",
                    self.simulated]])  # fmt: skip
        print(f"\nLoad of the machine meanwhile (one minute): {min(self.load):.1f} to "
              f"{max(self.load):.1f}")  # fmt: skip


def waves(sizes: Sequence[int], systems: Sequence[str]) -> list[list[Place]]:
    """Put clusters together, in their order, as long as a wave does not become too large.

    >>> for wave in waves([5, 60, 100], ["covey", "serf"]):
    ...     print(*(f"{place.system}-{place.members}" for place in wave))
    covey-5 serf-5 covey-60 serf-60
    covey-100 serf-100
    """
    found: list[list[Place]] = []
    for members, system in itertools.product(sizes, systems):
        if found and sum(place.members for place in found[-1]) + members <= WAVE_MAX:
            found[-1].append(Place(members, system))
        else:
            found.append([Place(members, system)])
    return found


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _chosen(among: Sequence[str]) -> Any:
    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names).difference(among):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not of {', '.join(among)}")
        return names

    return read


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=_numbers, default=[5, 9, 10, 30, 100])
    parser.add_argument("--systems", type=_chosen(tuple(CONTENDERS)), default=[*CONTENDERS][::-1])
    parser.add_argument("--loss", type=_numbers, default=list(LOSSES), help="percent")
    parser.add_argument("--parts", type=_chosen(PARTS), default=list(PARTS))
    parser.add_argument("--joining", type=int, default=100, help="how many start at once")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter")
    return parser.parse_args()


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    if not can_make_networks:
        sys.exit("needs root and iproute2, to give each agent a host of its own")
    run = Run(options)
    try:
        with many_neighbours():
            run.measure()
    finally:  # an hour's figures are not thrown away because the last minute went wrong
        run.show()
        finish("membership", run.figures())


if __name__ == "__main__":
    main()
