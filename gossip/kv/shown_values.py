"""What is shown of a key's live versions: those that its space's policy shows, and none expired.

Only here is decided what is hidden; what is hidden stays stored, is repaired and handed on like
everything else, and is in the context of each read, so that the next write takes its place.

What has expired is judged by this node's clock, and by that only while it is agreed on: a node
whose clock is not shows it, until an owner has deleted it.
"""

from gossip.core.machine import Instant
from gossip.kv.agreed_clock import AgreedClock
from gossip.kv.records import Version
from gossip.kv.requests import Value, values_of
from gossip.kv.spaces import LWW, Spaces
from gossip.kv.typed_values import earliest_expiry_ms, expires_ms_of


class ShownValues:
    """Says what of a key is shown at this node."""

    def __init__(self, spaces: Spaces, clock: AgreedClock) -> None:
        self._spaces, self._clock = spaces, clock

    def of(self, key: str, live: tuple[Version, ...], now: Instant) -> tuple[Value, ...]:
        """Return the values of a key, newest first; under ``lww`` the newest, if any, alone."""
        values = values_of(live)
        if len(values) > 1 and self._spaces.policy(key) == LWW:
            values = values[:1]  # and none, if this one has expired: the others had lost to it
        if any(value.expires_ms for value in values):
            wall_ms = self._clock.agreed_ms(now) or 0
            return tuple(v for v in values if not 0 < v.expires_ms <= wall_ms)
        return values

    def unexpired(self, live: tuple[Version, ...], now: Instant) -> tuple[Version, ...]:
        """Return the versions that have not expired: what an update of a typed value looks at."""
        if not earliest_expiry_ms(live):
            return live
        wall_ms = self._clock.agreed_ms(now) or 0
        return tuple(v for v in live if not 0 < expires_ms_of(v.value) <= wall_ms)
