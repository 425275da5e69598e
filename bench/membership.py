"""Membership, beside Serf and kinship: how fast a crash is known, how often somebody is wronged.

All run on the same kind of network, made of namespaces and one bridge, one system after the other
in the same minutes, and are read by the same witness (bench/witness.py). ``--parts`` and
``--members`` choose what is measured: all of it takes more than an hour, and a hundred agents are
much for a small machine.
"""

import argparse
import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import trials
from bench.cluster import Cluster
from bench.contenders import CONTENDERS
from bench.report import finish, table
from bench.trials import KINDS, LOSSES, QUICK, SPLIT, THOROUGH, Lengths
from gossip.sim.experiment import SEEDS
from gossip.sim.world import World
from tests.live.harness.network import can_make_networks

PARTS = ("crash", "loss", "idle", "join", "heal", "sim")
FIRST_LAST = "first", "last"
WITH_CLUSTER = {"crash", "loss", "idle"}
SIMULATED_MEMBERS, SIMULATED_S = 100, 60.0
NEIGHBOURS = {"gc_thresh1": 8192, "gc_thresh2": 16384, "gc_thresh3": 32768}


class Run:
    """One run: what was asked for, and what was measured so far, by part, members and system."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.members: list[int] = options.members
        self.systems: list[str] = options.systems
        self.parts: list[str] = options.parts
        self.losses: list[int] = options.loss
        self.joining: int = options.joining
        self.lengths: Lengths = QUICK if options.quick else THOROUGH
        self.detection: dict[str, dict[str, dict[str, Any]]] = {}
        self.false_deaths: dict[str, dict[str, dict[str, float]]] = {}
        self.idle: dict[str, dict[str, Any]] = {}
        self.join: dict[str, float | None] = {}
        self.heal: dict[str, float | None] = {}
        self.simulated: float | None = None
        self.load = [os.getloadavg()[0]]
        self._began = time.monotonic()

    def measure(self) -> None:
        """Measure all that was asked for."""
        if WITH_CLUSTER.intersection(self.parts):
            for members in self.members:
                for system in self.systems:
                    self._measure_cluster(system, members)
        for system in self.systems:
            if "join" in self.parts:
                self._tell(f"{system}: {self.joining} join")
                self.join[system] = trials.join(CONTENDERS[system], self.joining)
            if "heal" in self.parts:
                self._tell(f"{system}: a split")
                self.heal[system] = trials.heal(CONTENDERS[system], self.lengths.split_s)
        if "sim" in self.parts:
            self._tell("the simulator")
            self.simulated = simulated_a_second()

    def _measure_cluster(self, system: str, members: int) -> None:
        with Cluster(CONTENDERS[system], members) as cluster:
            cluster.must_form()
            if "idle" in self.parts:
                self._tell(f"{system}, {members}: idle")
                found = trials.idle(cluster, self.lengths.idle_s)
                self.idle.setdefault(str(members), {})[system] = found._asdict()
            if "crash" in self.parts:
                for kind in KINDS:
                    self._tell(f"{system}, {members}: crash of a {kind}")
                    seen = trials.crash(cluster, kind, self.lengths.crashes)
                    by_kind = self.detection.setdefault(str(members), {})
                    by_kind.setdefault(kind, {})[system] = seen._asdict()
            if "loss" in self.parts:
                for percent in self.losses:
                    self._tell(f"{system}, {members}: {percent} % loss")
                    lost = trials.lose(cluster, percent, self.lengths.loss_s)
                    by_loss = self.false_deaths.setdefault(str(members), {})
                    by_loss.setdefault(str(percent), {})[system] = lost.false_deaths_per_node_hour

    def _tell(self, what: str) -> None:
        """Say on stderr what comes now, and note how busy the machine is."""
        self.load.append(os.getloadavg()[0])
        print(f"{time.monotonic() - self._began:6.0f} s  {what}", file=sys.stderr, flush=True)

    def figures(self) -> dict[str, Any]:
        """Return everything, for the last line."""
        return {
            "detect_ratio_serf": {
                members: {kind: _over_serf(kinds[kind], "last_s") for kind in kinds}
                for members, kinds in self.detection.items()
            },
            "false_deaths_per_node_hour": self.false_deaths,
            "idle_bytes_ratio_serf": {
                members: _over_serf(by_system, "bytes_per_s")
                for members, by_system in self.idle.items()
            },
            "join100_s": self.join.get("covey"),
            "join_members": self.joining,
            "heal_s": self.heal.get("covey"),
            "sim_node_seconds_per_s": self.simulated,
            "detection_s": self.detection,
            "idle": self.idle,
            "join_s": self.join,
            "heal_all_s": self.heal,
            "lengths": self.lengths._asdict(),
            "load_1min": {"least": min(self.load), "most": max(self.load)},
        }


def _over_serf(by_system: dict[str, Any], figure: str) -> float | None:
    """Return Covey's figure over Serf's; None when one of them has none."""
    ours, theirs = (by_system.get(name, {}).get(figure) for name in ("covey", "serf"))
    return round(ours / theirs, 3) if ours is not None and theirs else None


def simulated_a_second() -> float:
    """Return how many seconds of one node are simulated in a second, for an idle covey."""
    world = World(1, known_max=SEEDS)
    world.add(*(f"n{number}" for number in range(SIMULATED_MEMBERS)))
    world.run_until(world.is_whole, within_s=60)
    begun = time.process_time()
    world.run(SIMULATED_S)
    return SIMULATED_MEMBERS * SIMULATED_S / (time.process_time() - begun)


def show(run: Run) -> None:
    """Print the tables."""
    _show_crashes(run)
    _show_false_deaths(run)
    _show_idle(run)
    _show_rest(run)


def _show_crashes(run: Run) -> None:
    head = ["members", "what crashed", *(f"{s}, {w}" for s in run.systems for w in FIRST_LAST)]
    rows: list[list[object]] = [
        [members, kind, *_pairs(by_system, run.systems)]
        for members, kinds in run.detection.items()
        for kind, by_system in kinds.items()
    ]
    if rows:
        table(f"Seconds until a crash is known, medians of {run.lengths.crashes}", head, rows)


def _show_false_deaths(run: Run) -> None:
    rows: list[list[object]] = [
        [members, f"{percent} %", *(by_system[name] for name in run.systems)]
        for members, losses in run.false_deaths.items()
        for percent, by_system in losses.items()
    ]
    if rows:
        seconds = run.lengths.loss_s
        title = f"False deaths, reports a node and hour, over {seconds:.0f} s each"
        table(title, ["members", "loss", *run.systems], rows)


def _show_idle(run: Run) -> None:
    head = ["members", "system", "RSS MiB", "% of a core", "bytes sent a second", "packets"]
    rows: list[list[object]] = [
        [members, name, *cost.values()]
        for members, by_system in run.idle.items()
        for name, cost in by_system.items()
    ]
    if rows:
        table(f"Idle, one agent, medians over all, {run.lengths.idle_s:.0f} s", head, rows)


def _pairs(by_system: dict[str, Any], systems: Sequence[str]) -> list[object]:
    cells = [by_system[name][f"{which}_s"] for name in systems for which in FIRST_LAST]
    return [_seconds(cell) for cell in cells]


def _seconds(value: float | None) -> object:
    return "not in time" if value is None else value


def _show_rest(run: Run) -> None:
    rows: list[list[object]] = []
    if run.join:
        rows.append([f"{run.joining} agents start at once: all see all",
                     *(_seconds(run.join[name]) for name in run.systems)])  # fmt: skip
    if run.heal:
        members, east = SPLIT
        what = f"a split {members - east}/{east} of {run.lengths.split_s:.0f} s, healed"
        rows.append([what, *(_seconds(run.heal[name]) for name in run.systems)])
    if rows:
        table("Joining and healing, seconds", ["what", *run.systems], rows)
    if run.simulated is not None:
        table("Simulator", ["what", "figure"],
              [[f"seconds of a node, simulated a second, {SIMULATED_MEMBERS} idle members",
                run.simulated]])  # fmt: skip
    print(f"\nLoad of the machine meanwhile (one minute): {min(run.load):.1f} to "
          f"{max(run.load):.1f}")  # fmt: skip


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
    parser.add_argument("--members", type=_numbers, default=[5, 10, 30])
    parser.add_argument("--systems", type=_chosen(tuple(CONTENDERS)), default=list(CONTENDERS))
    parser.add_argument("--loss", type=_numbers, default=list(LOSSES), help="percent")
    parser.add_argument("--parts", type=_chosen(PARTS), default=list(PARTS))
    parser.add_argument("--joining", type=int, default=100, help="how many start at once")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter")
    return parser.parse_args()


@contextlib.contextmanager
def many_neighbours() -> Iterator[None]:
    """Let the kernel remember more neighbours meanwhile.

    Its table is one for all namespaces, and a hundred hosts that know each other are ten thousand
    entries; usually a thousand fit.
    """
    before: dict[Path, str] = {}
    for family, name in itertools.product(("ipv4", "ipv6"), NEIGHBOURS):
        setting = Path(f"/proc/sys/net/{family}/neigh/default/{name}")
        before[setting] = setting.read_text()
        setting.write_text(str(max(int(before[setting]), NEIGHBOURS[name])))
    try:
        yield
    finally:
        for setting, text in before.items():
            setting.write_text(text)


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    if not can_make_networks:
        sys.exit("needs root and iproute2, to give each agent a host of its own")
    run = Run(options)
    with many_neighbours():
        run.measure()
    show(run)
    finish("membership", run.figures())


if __name__ == "__main__":
    main()
