"""The demo's MQTT broker: one that came with the demo's packages, in a process of its own.

iotcore has rumqttd in a wheel: no other package, no compiler, MQTT 5. Where it has no wheel,
amqtt serves: pure Python, MQTT 3.1.1 only, and silent to whoever begins with version 5; so the
agents of the demo are told the version rather than left to find it out. Both listen on the
loopback address alone and keep nothing on disk (docs/adr/0014-the-demos-broker.md).

``python -m agent.cli.demo.broker PACKAGE PORT DIRECTORY`` is the child that runs either.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import platform
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.cli.demo.processes import DemoProcess
from agent.exits import NO, AgentError
from agent.installation.extras import install_command
from agent.telemetry.uplink.version_fallback import Version

LOOPBACK = "127.0.0.1"
READY_S = 90.0
READY_POLL_S = 0.05

# rumqttd listens to one version of MQTT a port. It sends a subscriber `max_inflight_count`
# messages before the first is acknowledged, and closes the connection above `max_payload_size`.
RUMQTTD_CONF = """\
id = 0

[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "demo"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 100
"""


WITH_WHEELS = ("x86_64", "aarch64", "armv7l")
"""Machines for which iotcore has wheels, as the extra in pyproject.toml says."""


class Kind(NamedTuple):
    """A broker that may be installed: its package, the version that it speaks, how to run it."""

    package: str
    version: Version
    serve: Callable[[int, Path], None]


class Broker(NamedTuple):
    """A running broker."""

    child: DemoProcess
    port: int
    kind: Kind

    @property
    def description(self) -> str:
        """Which one it is, for a person."""
        return f"{self.kind.package}, MQTT {self.kind.version}, on {LOOPBACK}:{self.port}"


async def start_broker(directory: Path) -> Broker:
    """Start a broker on a free loopback port; return when it accepts connections.

    Raises AgentError when none is installed, or it does not come up.
    """
    kind = choose(KINDS)
    port = free_port()
    command = (sys.executable, "-P", "-m", "agent.cli.demo.broker")
    arguments = (kind.package, str(port), str(directory))
    child = await DemoProcess.start((*command, *arguments), os.environ, directory / "broker.log")
    await _await_ready(child, port)
    return Broker(child, port, kind)


def choose(kinds: Sequence[Kind]) -> Kind:
    """Return the first that is installed. Raises AgentError when none is."""
    for kind in kinds:
        if importlib.util.find_spec(kind.package):
            return kind
    package = "iotcore" if platform.machine() in WITH_WHEELS else "amqtt"
    raise AgentError(
        "The demo's MQTT broker is not installed.",
        f"Install it beside Covey, `{install_command(package)}`, or run `make demo` in a clone.",
        NO,
    )


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


async def _await_ready(child: DemoProcess, port: int) -> None:
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


# ---- the child ----------------------------------------------------------------------------------


def _serve_iotcore(port: int, directory: Path) -> None:
    from iotcore.iotcore import IotCoreBroker

    # rumqttd routes each packet inside an `error_span`, which arrives here as an error a packet.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    config = directory / "broker.toml"
    config.write_text(RUMQTTD_CONF.format(host=LOOPBACK, port=port))
    IotCoreBroker(config_path=str(config)).run_forever()


def _serve_amqtt(port: int, _directory: Path) -> None:
    from amqtt.broker import Broker as AmqttBroker

    async def serve() -> None:
        await AmqttBroker(config).start()
        await asyncio.Event().wait()

    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    asyncio.run(serve())


KINDS = (Kind("iotcore", "5", _serve_iotcore), Kind("amqtt", "3.1.1", _serve_amqtt))


def main(package: str, port: str, directory: str) -> None:
    """Run the broker of one package until the process is ended."""
    (kind,) = (kind for kind in KINDS if kind.package == package)
    kind.serve(int(port), Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
