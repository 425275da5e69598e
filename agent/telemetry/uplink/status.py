"""What the uplink tells about itself, to people and to the HTTP API."""

import msgspec


class UplinkStatus(msgspec.Struct, frozen=True):
    """One look at the uplink.

    ``state`` is ``off`` (no host configured), ``connecting``, ``connected`` or ``waiting``
    (before the next attempt); ``since_s`` is when it became so, in Unix seconds. ``version`` is
    the MQTT version in use, ``fell_back`` whether the broker made us take the older one.
    ``last_error`` is empty once what it tells of is over; ``hint`` is what to do now, also while
    connected.
    ``window`` is how many readings may be in flight, ``in_flight`` how many are.
    """

    state: str
    since_s: float
    host: str
    port: int
    version: str
    client_id: str
    fell_back: bool
    window: int
    in_flight: int
    waiting: int
    delivered: int
    dead_letters: int
    last_error: str
    hint: str

    @property
    def connected(self) -> bool:
        """Whether readings can flow now."""
        return self.state == "connected"
