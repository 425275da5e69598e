"""Counts what arrives at the broker: a subscriber that remembers each reading's id.

It subscribes with QoS 1. An id that comes
twice is no fault (delivery is "at least once") but is counted; a payload without an id is.
"""

import json
import threading
import time
from collections import Counter, deque
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from agent.exits import NO, AgentError
from agent.telemetry.uplink.mqtt_client import PROTOCOLS
from agent.telemetry.uplink.version_fallback import Version

TOPICS = "covey/#"
CONNECT_TIMEOUT_S = 60.0
RATE_WINDOW_S = 3.0


class Collector:
    """A connected subscriber. paho's thread calls back; all reads are safe from any other."""

    def __init__(self, host: str, port: int, version: Version) -> None:
        self.times_seen: Counter[str] = Counter()
        self.without_id = 0
        self._arrivals: deque[float] = deque()
        self._subscribed = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, "covey-demo", protocol=PROTOCOLS[version]
        )
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._address = (host, port)

    def start(self) -> None:
        """Connect and subscribe; blocks until the broker confirmed. Raises AgentError."""
        try:
            self._client.connect(*self._address)
        except OSError as error:
            raise AgentError(f"cannot subscribe to the demo's broker: {error}", "", NO) from None
        self._client.loop_start()
        if not self._subscribed.wait(CONNECT_TIMEOUT_S):
            self.stop()
            raise AgentError("the demo's broker did not confirm the subscription", "", NO)

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def ids(self) -> set[str]:
        """The ids of all readings that arrived."""
        return set(self.times_seen.copy())

    @property
    def repeated(self) -> int:
        """How many messages brought an id that had come before."""
        return self.times_seen.total() - len(self.times_seen)

    def rate(self) -> float:
        """Return the readings a second over the last seconds."""
        now = time.monotonic()
        while self._arrivals and self._arrivals[0] < now - RATE_WINDOW_S:
            self._arrivals.popleft()
        return len(self._arrivals) / RATE_WINDOW_S

    def take(self, payload: bytes) -> None:
        """Count one message."""
        self._arrivals.append(time.monotonic())
        try:
            self.times_seen[json.loads(payload)["id"]] += 1
        except (ValueError, KeyError, TypeError):
            self.without_id += 1

    def _on_connect(self, client: Client, *_: Any) -> None:
        client.subscribe(TOPICS, qos=1)  # here, so that a reconnection subscribes again

    def _on_subscribe(self, *_: Any) -> None:
        self._subscribed.set()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.take(bytes(message.payload))
