"""Whose clock is off: everybody's wall clock against the median of all.

Clocks are compared over streams. Whatever the time between question and answer may explain is no
difference, so an answer that comes late accuses nobody.
"""

from collections.abc import Mapping

from agent.doctor.findings import Finding, fail, ok, warn
from agent.text.units import format_duration
from gossip.core.ids import NodeId

OFF_WARN_S = 2.0
OFF_FAIL_S = 60.0
"""Beyond it a node's writes are stamped with a time that others do not follow."""


def examine(
    offsets_s: Mapping[NodeId, float], me: NodeId, names: Mapping[NodeId, str]
) -> list[Finding]:
    """Compare; ``offsets_s`` is each clock minus ours, with ours among them as 0."""
    if len(offsets_s) < 2:
        return [ok("clock", "nobody answered to compare clocks with.")]
    # Of two, nobody knows which one is wrong; ours is what the other is compared with.
    import statistics  # brings fractions and decimals along: for the doctor's visits alone

    middle_s = statistics.median(offsets_s.values()) if len(offsets_s) > 2 else 0.0
    off = {node: offset - middle_s for node, offset in offsets_s.items()}
    findings = [
        _off(names.get(node, f"{node:016x}"), by_s, ours=node == me)
        for node, by_s in off.items()
        if abs(by_s) >= OFF_WARN_S
    ]
    return findings or [ok("clock", f"{len(offsets_s)} clocks agree within {OFF_WARN_S:g} s.")]


def _off(name: str, by_s: float, *, ours: bool) -> Finding:
    whose = f"{name} (this node)" if ours else name
    direction = "ahead" if by_s > 0 else "behind"
    told = (
        f"clock off by {format_duration(round(abs(by_s)))}: {whose} is {direction} of the others."
    )
    hint = f"Set the clock of {name}: `timedatectl set-ntp true` there."
    return (fail if abs(by_s) >= OFF_FAIL_S else warn)("clock", told, hint)
