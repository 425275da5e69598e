"""What happened, line by line: the part of a failing run that a person reads.

Packets are not told, there are too many; faults, transitions and operations are.
"""

from collections import deque

from gossip.core.machine import Instant

TAIL_LINES = 400


class Trace:
    """The last lines of what happened, or all of them."""

    def __init__(self, lines_max: int | None = TAIL_LINES) -> None:
        self._lines: deque[tuple[Instant, str, str]] = deque(maxlen=lines_max)
        self._fresh = 0

    def add(self, now: Instant, who: str, what: str) -> None:
        """Add a line."""
        self._lines.append((now, who, what))
        self._fresh = min(self._fresh + 1, len(self._lines))

    def lines(self) -> list[str]:
        """Return what is still known, oldest first."""
        return [f"{now:10.3f}  {who:<4} {what}" for now, who, what in self._lines]

    def fresh(self) -> list[str]:
        """Return what was told since this was last asked."""
        lines = self.lines()[len(self._lines) - self._fresh :]
        self._fresh = 0
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())
