"""What is shown of a key's live versions: those that its space's policy shows.

Only here is decided what is hidden; what is hidden stays stored, is repaired and handed on like
everything else, and is in the context of each read, so that the next write takes its place.
"""

from gossip.core.machine import Instant
from gossip.kv.records import Version
from gossip.kv.requests import Value, values_of
from gossip.kv.spaces import LWW, Spaces


class ShownValues:
    """Says what of a key is shown at this node."""

    def __init__(self, spaces: Spaces) -> None:
        self._spaces = spaces

    def of(self, key: str, live: tuple[Version, ...], now: Instant) -> tuple[Value, ...]:
        """Return the values of a key, newest first; under ``lww`` the newest alone."""
        del now
        values = values_of(live)
        if len(values) > 1 and self._spaces.policy(key) == LWW:
            return values[:1]
        return values
