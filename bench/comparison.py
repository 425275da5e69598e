"""What was measured of each system, side by side: figures for programs, tables for people.

A figure is filed under the number of members and the name of the system. Where a system could not
be measured there is None, and the reason is told with the tables: a gap is a finding too.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from bench.idle import Idle
from bench.report import table
from bench.trials import SPLIT, Detection, Lengths, Losing

FIRST_LAST = "first", "last"


class Comparison:
    """All findings of one run."""

    def __init__(self, systems: Sequence[str], lengths: Lengths, joining: int) -> None:
        self.systems = systems
        self.lengths = lengths
        self.joining = joining
        self.detections: dict[int, dict[str, dict[str, Detection]]] = {}
        self.losses: dict[int, dict[int, dict[str, Losing]]] = {}
        self.idle: dict[int, dict[str, Idle]] = {}
        self.joined_s: dict[str, float | None] = {}
        self.healed_s: dict[str, float | None] = {}
        self.failures: list[str] = []
        """What could not be measured, and why."""
        self._failed: set[str] = set()

    def record_crashes(self, members: int, system: str, kind: str, found: Detection) -> None:
        """File how fast crashes of a kind were known."""
        self.detections.setdefault(members, {}).setdefault(kind, {})[system] = found

    def record_loss(self, members: int, system: str, percent: int, found: Losing) -> None:
        """File what a share of lost packets did."""
        self.losses.setdefault(members, {}).setdefault(percent, {})[system] = found

    def record_idle(self, members: int, system: str, found: Idle) -> None:
        """File what an idle agent costs."""
        self.idle.setdefault(members, {})[system] = found

    def record_failure(self, system: str, what: str, why: Exception) -> None:
        """File that a system could not be measured, which is a finding too."""
        self.failures.append(f"{system}, {what}: {why}")
        self._failed.add(f"{system}, {what}")

    # --- for programs -------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """Return everything, for the last line."""
        return {
            "detect_ratio_serf": {
                members: {kind: over_serf(found, "last_s") for kind, found in kinds.items()}
                for members, kinds in sorted(self.detections.items())
            },
            "false_deaths_per_node_hour": {
                members: {
                    percent: {name: lost.false_deaths_per_node_hour for name, lost in found.items()}
                    for percent, found in losses.items()
                }
                for members, losses in sorted(self.losses.items())
            },
            "idle_bytes_ratio_serf": {
                members: over_serf(found, "bytes_per_s")
                for members, found in sorted(self.idle.items())
            },
            "join100_s" if self.joining == 100 else f"join{self.joining}_s": (
                self.joined_s.get("covey")
            ),
            "heal_s": self.healed_s.get("covey"),
            "detection_s": _plain(self.detections),
            "losses": _plain(self.losses),
            "idle": _plain(self.idle),
            "join_s": self.joined_s,
            "heal_all_s": self.healed_s,
            "not_measured": self.failures,
            "lengths": self.lengths._asdict(),
        }

    # --- for people ---------------------------------------------------------------------------

    def show(self) -> None:
        """Print the tables of what there is."""
        self._show_crashes()
        self._show_losses()
        self._show_idle()
        self._show_rest()
        for failure in self.failures:
            print(f"\nNot measured: {failure}")

    def _show_crashes(self) -> None:
        head = ["members", "what crashed", *(f"{s}, {w}" for s in self.systems for w in FIRST_LAST)]
        rows: list[list[object]] = [
            [members, kind, *self._first_and_last(members, found)]
            for members, kinds in sorted(self.detections.items())
            for kind, found in kinds.items()
        ]
        if rows:
            title = f"Seconds until a crash is known, medians of {self.lengths.crashes}"
            table(title, head, rows)

    def _first_and_last(self, members: int, found: dict[str, Detection]) -> Iterator[object]:
        for system in self.systems:
            for which in FIRST_LAST:
                if system in found:
                    value = getattr(found[system], f"{which}_s")
                    yield "not in time" if value is None else value
                else:
                    yield self._gap(system, f"{members} members")

    def _show_losses(self) -> None:
        rows: list[list[object]] = [
            [members, f"{percent} %", *self._rates(members, found)]
            for members, losses in sorted(self.losses.items())
            for percent, found in losses.items()
        ]
        if rows:
            title = f"False deaths, reports a node and hour, some {self.lengths.loss_s:.0f} s each"
            table(title, ["members", "loss", *self.systems], rows)

    def _rates(self, members: int, found: dict[str, Losing]) -> Iterator[object]:
        for system in self.systems:
            if system in found:
                yield found[system].false_deaths_per_node_hour
            else:
                yield self._gap(system, f"{members} members")

    def _show_idle(self) -> None:
        head = ["members", "system", "RSS MiB", "% of a core", "bytes sent a second", "packets"]
        rows: list[list[object]] = [
            [members, name, *found[name]]
            for members, found in sorted(self.idle.items())
            for name in self.systems
            if name in found
        ]
        if rows:
            title = f"Idle, one agent, medians over all, {self.lengths.idle_s:.0f} s"
            table(title, head, rows)

    def _show_rest(self) -> None:
        members, east = SPLIT
        split = f"a split {members - east}/{east} of {self.lengths.split_s:.0f} s, healed"
        joining = f"{self.joining} agents start at once: all see all"
        rows: list[list[object]] = [
            [title, *(self._seconds(name, what, found) for name in self.systems)]
            for title, what, found in (
                (joining, f"{self.joining} join", self.joined_s),
                (split, "a split", self.healed_s),
            )
            if found
        ]
        if rows:
            table("Joining and healing, seconds", ["what", *self.systems], rows)

    def _seconds(self, system: str, what: str, found: dict[str, float | None]) -> object:
        seconds = found.get(system)
        return self._gap(system, what, "not in time") if seconds is None else seconds

    def _gap(self, system: str, what: str, otherwise: str = "-") -> str:
        """Return what stands where a figure is missing; the reasons follow the tables."""
        return "failed" if f"{system}, {what}" in self._failed else otherwise


def over_serf(found: dict[str, Any], figure: str) -> float | None:
    """Return Covey's figure over Serf's; None when one of them has none."""
    ours, theirs = (getattr(found.get(name), figure, None) for name in ("covey", "serf"))
    return round(ours / theirs, 3) if ours is not None and theirs else None


def _plain(found: Any) -> Any:
    """Return the same with dicts instead of tuples, for JSON.

    >>> _plain({5: {"process": {"covey": Detection(0.8, None, 1)}}})
    {5: {'process': {'covey': {'first_s': 0.8, 'last_s': None, 'missed': 1}}}}
    """
    if isinstance(found, dict):
        return {key: _plain(value) for key, value in found.items()}
    return found._asdict()
