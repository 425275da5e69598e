"""The uplink's view of an MQTT client: six calls, so that the client library is a detail.

A link carries messages over one connection at a time. It keeps nothing: what was in flight when
a connection ended is forgotten by the link, and sent again by the pump, which takes it from the
outbox. So there is one place that knows what is delivered.
"""

from typing import Protocol

import msgspec

from agent.telemetry.uplink import reason_codes
from agent.telemetry.uplink.template import Message
from agent.telemetry.uplink.version_fallback import Version


class ConnectResult(msgspec.Struct, frozen=True):
    """What the broker said in its CONNACK. Limits that it did not name are MQTT's own."""

    version: Version
    receive_maximum: int = 65_535
    packet_bytes_max: int = 268_435_460
    qos_max: int = 2


class ConnectError(Exception):
    """No connection: ``code`` is the broker's reason, SILENCE when it gave none."""

    def __init__(self, problem: str, code: int = reason_codes.SILENCE) -> None:
        super().__init__(problem)
        self.code = code


class MqttListener(Protocol):
    """Hears, on the event loop, what becomes of messages and of the connection."""

    def acknowledged(self, token: int, code: int) -> None:
        """The broker answered for the message published under this token."""

    def lost(self, code: int) -> None:
        """The connection ended; nothing that was in flight will be acknowledged any more."""


class MqttClient(Protocol):
    """A way to a broker. Everything is called on the event loop."""

    client_id: str

    async def connect(
        self, version: Version, listener: MqttListener, patience_s: float
    ) -> ConnectResult:
        """Connect anew, with a clean session. Raises ConnectError.

        ``patience_s`` is how long to wait for the answer once there is a connection.
        """

    def publish(self, token: int, message: Message, qos: int) -> None:
        """Send now; the listener hears of it under ``token``. Never raises for the network."""

    async def disconnect(self) -> None:
        """Say goodbye and close. The listener is not called any more."""

    def abort(self) -> None:
        """Close without a word, as after a connection that no longer answers."""


def publish_bytes(message: Message, qos: int, version: Version) -> int:
    """Return the size of the PUBLISH packet for a message (MQTT 5, section 3.3)."""
    size = 2 + len(message.topic.encode()) + len(message.payload)
    size += 2 if qos else 0  # the packet identifier
    size += 1 if version == "5" else 0  # the length of no properties
    length_bytes = 1 + (size > 127) + (size > 16_383) + (size > 2_097_151)
    return 1 + length_bytes + size
