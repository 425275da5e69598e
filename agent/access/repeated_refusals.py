"""Refused attempts that are alike: whoever knocks without end fills no log.

Of attempts that are alike, by reason, by who it was and from where, the first is told at once, and
how many came after it once a minute. Each reason has room for so many kinds; whoever comes from
more places is one of the others of that reason. So a flood of one kind hides no other.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

WINDOW_S = 60.0
KINDS_MAX = 128
"""Of attempts for one reason in a window."""
OTHERS = "others"
MORE = "and more like it"

Tell = Callable[[str, str, str, str, int], None]
"""Who, from where, what was tried, the reason, how many times: ``AuditLog.refusal``."""


class RepeatedRefusals:
    """Counts attempts by their kind, and tells of them at a limited rate. None is left out."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._held: dict[tuple[str, str, str], int] = {}
        self._kinds: Counter[str] = Counter()
        self._end: asyncio.TimerHandle | None = None

    def record(
        self, reason: str, who: str, source: str, site: str, action: str, times: int = 1
    ) -> None:
        """Take note of attempts; ``site`` is who counts as one at the place they came from."""
        key = reason, who, site
        if key not in self._held and self._kinds[reason] >= KINDS_MAX:
            key = reason, OTHERS, OTHERS
        if key in self._held:
            self._held[key] += times
            return
        self._held[key] = 0
        self._kinds[reason] += 1
        self._tell(who, source, action, reason, times)
        if self._end is None:
            self._end = asyncio.get_running_loop().call_later(WINDOW_S, self.flush)

    def flush(self) -> None:
        """Tell how many more there were."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        for (reason, who, site), more in self._held.items():
            if more:
                self._tell(who, site, MORE, reason, more)
        self._held.clear()
        self._kinds.clear()
