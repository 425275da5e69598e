"""Notices that another client uses our client id: two that throw each other out, for ever.

A broker lets a client id be connected once; whoever comes later ends the earlier one's
connection. MQTT 5 has a reason for it (0x8E, session taken over), and MQTT 3.1.1 has none; nor
have Mosquitto 2.0 and rumqttd, which just close. So there is also a pattern: the broker closes
without a reason, soon after each connection began, again and again, and no reading is to blame.
It is a hint for people and slows us down; nothing else depends on it.
"""

from agent.telemetry.uplink import reason_codes

# So many connections in a row that lasted for less than SHORT_S look like a rival.
ENDS_MAX = 4
SHORT_S = 120.0
# A connection that lasts for so long shows that the rival is gone, or has been asleep.
CALM_S = 300.0


class ClientIdConflict:
    """Notices that another client has our client id, by how connections end (monotonic seconds)."""

    def __init__(self) -> None:
        self._ends = 0
        self._certain = False
        self._oldest: int | None = None
        self._connected_at_s: float | None = None

    def connected(self, now_s: float) -> None:
        """Note a connection."""
        self._connected_at_s = now_s

    def lost(self, code: int, oldest: int | None, now_s: float) -> bool:
        """Note its end, with the oldest reading that was in flight; tell whether it is new news.

        A reading that was in flight at the end before, too, is itself under suspicion.
        """
        began_s = now_s if self._connected_at_s is None else self._connected_at_s
        suspected = self.is_suspected(now_s)
        self._connected_at_s = None
        blames_reading = oldest is not None and oldest == self._oldest
        self._oldest = oldest
        if code == reason_codes.TAKEN_OVER:
            self._certain = True
        elif code != reason_codes.SILENCE or blames_reading or now_s - began_s >= SHORT_S:
            self._ends = 0
        else:
            self._ends += 1
        return self.is_suspected(now_s) and not suspected

    def is_suspected(self, now_s: float) -> bool:
        """Tell whether somebody else seems to use our client id."""
        if self._connected_at_s is not None and now_s - self._connected_at_s >= CALM_S:
            self._ends, self._certain = 0, False
        return self._certain or self._ends >= ENDS_MAX

    def hint(self, client_id: str) -> str:
        """Return what to do about it."""
        if self._certain:
            return (
                f"Another client uses the client id {client_id!r}, and each throws the other out: "
                "give each its own client_id in [uplink]."
            )
        return (
            f"The broker closed the last {self._ends} connections without a reason. Does another "
            f"client use the client id {client_id!r}? Each needs its own client_id in [uplink]."
        )
