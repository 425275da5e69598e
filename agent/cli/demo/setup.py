"""Sets the demo up and takes it down: whatever happens in between, nothing stays behind.

The steps are pushed on a stack as they succeed and undone in reverse, so that an error half-way
up, a Ctrl-C and the ordinary end all go the same way down.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from agent.cli.demo.broker import LOOPBACK, Broker, start_broker
from agent.cli.demo.collector import Collector
from agent.cli.demo.fleet import Fleet
from agent.cli.demo.views import DEMO_KEY
from agent.exits import USAGE, AgentError
from edge_apps.client import ClientError
from edge_apps.homes import expanded

GREET_S = 90.0
GREET_POLL_S = 0.2

Say = Callable[[str], None]


class DemoSetup(NamedTuple):
    """Everything of the demo that runs, to be taken down together."""

    directory: Path
    broker: Broker
    collector: Collector
    fleet: Fleet


@asynccontextmanager
async def set_up(agents: int, keep: Path | None, say: Say) -> AsyncIterator[DemoSetup]:
    """Start broker, subscriber and the first agent, and let the others join (not run yet).

    Without ``keep``, everything is in a temporary directory that goes with the demo.
    Raises AgentError.
    """
    async with AsyncExitStack() as stack:
        directory = _directory(keep, stack)
        broker = await start_broker(directory)
        stack.push_async_callback(broker.child.stop)
        say(f"broker: {broker.description}")
        collector = Collector(LOOPBACK, broker.port, broker.kind.version)
        await asyncio.to_thread(collector.start)
        stack.callback(collector.stop)
        fleet = Fleet(directory, agents, broker)
        stack.push_async_callback(fleet.stop)
        names = ", ".join(node.name for node in fleet.nodes)
        say(f"agents: {names}; each has its own folder under {directory}")
        await fleet.form()
        say("they belong to one covey: the first founded it, the others joined with a token")
        yield DemoSetup(directory, broker, collector, fleet)


async def say_hello(stage: DemoSetup) -> None:
    """Write the key that the demo shows, as soon as enough agents have found each other."""
    async with asyncio.timeout(GREET_S):
        while True:
            try:
                await stage.fleet.nodes[0].put(DEMO_KEY, b"hello from the covey")
            except (ClientError, AgentError):
                await asyncio.sleep(GREET_POLL_S)
            else:
                return


def _directory(keep: Path | None, stack: AsyncExitStack) -> Path:
    """Return the demo's directory, empty; its path is short, because it will hold sockets."""
    if keep is None:
        made = Path(tempfile.mkdtemp(prefix="covey-demo-"))
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        return made
    keep = expanded(keep).absolute()
    if keep.exists() and any(keep.iterdir()):
        raise AgentError(
            f"{keep} is not empty; nothing was started", "name a new directory to --keep", USAGE
        )
    keep.mkdir(parents=True, exist_ok=True)
    return keep
