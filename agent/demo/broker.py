"""The demo's MQTT broker: Mosquitto where it is installed, else amqtt, a broker in Python.

Both listen on the loopback address alone and keep nothing on disk. amqtt speaks MQTT 3.1.1
only, so the agents' uplinks begin with version 5, are refused, and fall back: the demo says so
rather than hide it. ``python -m agent.demo.broker PORT`` is the child that runs amqtt.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import NamedTuple

from agent.demo.children import Child
from agent.exits import NO, AgentError

LOOPBACK = "127.0.0.1"
READY_S = 15.0
READY_POLL_S = 0.05
# Debian puts daemons where a user's PATH does not look.
DAEMON_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))

MOSQUITTO_CONF = """\
listener {port} {host}
allow_anonymous true
persistence false
# The demo's subscriber must get every reading, also after a burst.
max_queued_messages 0
"""


class Broker(NamedTuple):
    """A running broker, and a sentence about which one it is."""

    child: Child
    port: int
    description: str


async def start_broker(directory: Path) -> Broker:
    """Start a broker on a free loopback port; return when it accepts connections.

    Raises AgentError when none is installed, or it does not come up.
    """
    port = free_port()
    mosquitto = shutil.which("mosquitto", path=DAEMON_PATH)
    if mosquitto:
        config = directory / "mosquitto.conf"
        config.write_text(MOSQUITTO_CONF.format(port=port, host=LOOPBACK))
        command: tuple[str, ...] = (mosquitto, "-c", str(config))
        description = f"Mosquitto, MQTT 5, on {LOOPBACK}:{port}"
    elif importlib.util.find_spec("amqtt"):
        command = (sys.executable, "-P", "-m", "agent.demo.broker", str(port))
        description = (
            f"amqtt on {LOOPBACK}:{port}; it has no MQTT 5, so the uplinks fall back to 3.1.1"
        )
    else:
        raise AgentError(
            "there is no MQTT broker for the demo",
            "install Mosquitto (`apt install mosquitto`), or Covey with its extra: covey[demo]",
            NO,
        )
    child = await Child.start(command, os.environ, directory / "broker.log")
    await _await_ready(child, port)
    return Broker(child, port, description)


def free_port() -> int:
    """Return a loopback port that is free for TCP and UDP at this moment."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        ):
            stream.bind((LOOPBACK, 0))
            port = int(stream.getsockname()[1])
            with contextlib.suppress(OSError):
                datagram.bind((LOOPBACK, port))
                return port


async def _await_ready(child: Child, port: int) -> None:
    try:
        async with asyncio.timeout(READY_S):
            while child.running:
                try:
                    _, writer = await asyncio.open_connection(LOOPBACK, port)
                except OSError:
                    await asyncio.sleep(READY_POLL_S)
                else:
                    writer.close()
                    return
    except TimeoutError:
        await child.stop()
    raise AgentError(f"the demo's broker did not come up:\n{child.last_lines()}", "", NO)


async def _serve_amqtt(port: int) -> None:
    from amqtt.broker import Broker as AmqttBroker

    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    broker = AmqttBroker(config)
    await broker.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_amqtt(int(sys.argv[1])))
