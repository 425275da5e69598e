"""The demo's agents: one directory, one port and one process each.

The first founds the covey, the others join it with a token, through the same commands that a
person types. Joining names the first agent's address; once they run, they find each other by
mDNS, kept on the loopback interface: a demo does not advertise itself on somebody's LAN.
"""

import asyncio
from pathlib import Path

from agent.cli.demo.broker import LOOPBACK, Broker, free_port
from agent.cli.demo.processes import DemoProcess, covey_command, environment_of, run_covey
from agent.exits import NO, AgentError
from edge_apps.client import Client, ClientError

NAMES = ("heron", "lark", "wren", "finch", "crane", "swift", "robin", "teal", "dove")
CLUSTER = "demo"
READY_S = 90.0
READY_POLL_S = 0.05
API_TIMEOUT_S = 10.0
HTTP_OK = 200

CONFIG = """\
# Written by `covey demo`.
[network]
bind = ["{host}"]
port = {port}
interfaces = ["{host}"]

[gossip]
profile = "local"

[uplink]
host = "{host}"
port = {broker_port}
version = "{broker_version}"

[apps.system]
every = "1s"

[apps.sensor_sim]
every = "500ms"
[apps.sensor_sim.options]
seed = "{name}"
"""


class DemoNode:
    """One agent of the demo, running or not."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.port = free_port()
        self.child: DemoProcess | None = None
        self.client = Client(directory / "covey.sock", timeout_s=API_TIMEOUT_S)

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.child is not None and self.child.running

    def configure(self, broker: Broker) -> None:
        """Write its directory and configuration."""
        self.directory.mkdir(mode=0o700)
        (self.directory / "covey.toml").write_text(
            CONFIG.format(
                host=LOOPBACK,
                port=self.port,
                broker_port=broker.port,
                broker_version=broker.kind.version,
                name=self.name,
            )
        )

    async def covey(self, *arguments: str) -> str:
        """Run a ``covey`` command for this agent; return what it printed. Raises AgentError."""
        return await run_covey(arguments, self.directory)

    async def start(self) -> None:
        """Start the agent's process; it answers a little later, see ``await_ready``."""
        log = self.directory / "agent.log"
        environ = environment_of(self.directory)
        self.child = await DemoProcess.start(covey_command("run"), environ, log)

    async def await_ready(self) -> None:
        """Return when the agent answers. Raises AgentError with its last words if it ends."""
        assert self.child is not None, "start it first"
        try:
            async with asyncio.timeout(READY_S):
                while self.child.running:
                    try:
                        await asyncio.to_thread(self.client.get, "/api/v1/status")
                    except ClientError:
                        await asyncio.sleep(READY_POLL_S)
                    else:
                        return
        except TimeoutError:
            pass
        raise AgentError(
            f"the agent {self.name} did not come up; the end of its log:\n"
            f"{self.child.last_lines()}",
            "run the demo with --keep DIR to look at its files",
            NO,
        )

    async def put(self, key: str, value: bytes) -> None:
        """Write a key through this agent. Raises ClientError, and AgentError if in doubt."""
        path = f"/api/v1/kv/{key}"
        answer = await asyncio.to_thread(self.client.request, "PUT", path, body=value)
        if answer.status != HTTP_OK:
            outcome = answer.json()["outcome"]
            raise AgentError(f"the write of {key} on {self.name} is {outcome}", "", NO)

    async def get(self, key: str) -> bytes:
        """Read a key through this agent. Raises ClientError."""
        answer = await asyncio.to_thread(self.client.request, "GET", f"/api/v1/kv/{key}")
        return answer.body

    async def kill(self) -> None:
        """End the agent as a power cut would."""
        if self.child is not None:
            await self.child.kill()

    async def stop(self) -> None:
        """End the agent as its owner would."""
        if self.child is not None:
            await self.child.stop()


class Fleet:
    """All agents of the demo."""

    def __init__(self, directory: Path, count: int, broker: Broker) -> None:
        assert 0 < count <= len(NAMES), "the demo has a name for each agent"
        self.nodes = [DemoNode(name, directory / name) for name in NAMES[:count]]
        self._broker = broker

    async def form(self) -> None:
        """Found the covey on the first node, let the others join. Only the first runs then."""
        first, *others = self.nodes
        for node in self.nodes:
            node.configure(self._broker)
        await first.covey("init", CLUSTER, "--node-name", first.name)
        await first.start()
        await first.await_ready()
        if not others:
            return
        uses = str(len(others))
        token = (await first.covey("token", "create", "--uses", uses)).strip()
        seed = f"{LOOPBACK}:{first.port}"
        await asyncio.gather(
            *(
                node.covey("join", token, "--seed", seed, "--node-name", node.name)
                for node in others
            )
        )

    async def start(self) -> None:
        """Start every agent that does not run."""
        idle = [node for node in self.nodes if not node.running]
        await asyncio.gather(*(node.start() for node in idle))
        await asyncio.gather(*(node.await_ready() for node in idle))

    async def stop(self) -> None:
        """End every agent that runs, all at once."""
        await asyncio.gather(*(node.stop() for node in self.nodes))
