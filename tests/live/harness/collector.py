"""The collector's process: ``python -m tests.live.harness.collector HOST PORT FILE``.

It runs inside a namespace, where the test itself is not, so it reports through a file.

It subscribes with QoS 0 in a session that outlives its connections. That loses less than QoS 1
when the broker is killed: a client that acknowledges writes to a dead connection and gives up
what it has not read yet, while one that only reads gets everything that the broker had sent.
"""

import json
import sys
from pathlib import Path
from typing import Any, TextIO

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SESSION_S = 3600
TOPIC = "covey/#"


def _write(out: TextIO, event: dict[str, Any]) -> None:
    out.write(json.dumps(event) + "\n")
    out.flush()


def _client(out: TextIO) -> Client:
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id="collector",
        protocol=MQTTProtocolVersion.MQTTv5,
    )
    client.reconnect_delay_set(min_delay=1, max_delay=1)

    def on_connect(*_: object) -> None:
        client.subscribe(TOPIC, qos=0)

    def on_subscribe(*_: object) -> None:
        _write(out, {"subscribed": True})

    def on_message(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        _write(out, {"topic": message.topic, "payload": json.loads(message.payload)})

    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = on_message
    return client


def main() -> None:
    """Collect until killed."""
    host, port, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    keep = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    keep.SessionExpiryInterval = SESSION_S
    with path.open("a") as out:
        client = _client(out)
        client.connect_async(host, port, keepalive=60, clean_start=False, properties=keep)
        client.loop_forever(retry_first_connection=True)


if __name__ == "__main__":
    main()
