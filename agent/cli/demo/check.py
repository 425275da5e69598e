"""The demo as a test: half a minute, one killed agent, one line of JSON.

What has to hold, in this order: the agents converge; a key written on one is read on another;
an agent is killed with readings in its outbox; the others see it dead, and the key is still
there and can still be written; the agent comes back and has what was written meanwhile; and
every reading that any agent ever accepted has reached the broker.

The readings of the killed agent are known from the receipt it gave before it died, not only
from what it says about itself afterwards.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from agent.cli.demo.fleet import DemoNode
from agent.cli.demo.setup import DemoSetup, Say
from agent.cli.demo.views import DEMO_KEY, all_see, poll
from agent.exits import NO, AgentError
from agent.text.escaping import json_text
from edge_apps.client import ClientError

POLL_S = 0.05
STEP_S = 90.0
"""Each wait, of seconds at most where the machine is not busy; the whole has a limit of its own."""
BURST_READINGS = 300
BURST_SENSOR = "demo/burst"
READINGS_MAX = 10_000
APPS = ("sensor_sim", "system")
FIRST_VALUE, SECOND_VALUE = b"hello from the first agent", b"and while one was dead"


class Report(msgspec.Struct):
    """The line of JSON. Durations in seconds; None for what was not reached."""

    ok: bool = False
    agents: int = 0
    converged_s: float | None = None
    kv_ok: bool = False
    readings_delivered: int = 0
    readings_lost: int | None = None
    readings_repeated: int = 0
    crash_detected_s: float | None = None
    error: str | None = None

    def conclude(self) -> None:
        """Set ``ok``: all of it held."""
        reached = self.converged_s is not None and self.crash_detected_s is not None
        delivered = self.readings_lost == 0 and self.readings_delivered > 0
        self.ok = reached and self.kv_ok and delivered and self.error is None

    def line(self) -> str:
        """Return the report as one line of JSON; an error only when there is one."""
        fields = msgspec.to_builtins(self)
        if self.error is None:
            del fields["error"]
        return json_text(fields)


async def check(stage: DemoSetup, report: Report, say: Say) -> None:
    """Go through the story, filling in the report as it goes.

    Raises AgentError where it breaks; the report then has what was reached.
    """
    first, *_, victim = nodes = stage.fleet.nodes
    report.agents = len(nodes)
    report.converged_s = await _converge(stage)
    say(f"all {len(nodes)} agents see each other alive after {report.converged_s} s")
    await _write(first, FIRST_VALUE)
    await _expect(nodes[1], FIRST_VALUE)
    say(f"{DEMO_KEY}, written on {first.name}, was read on {nodes[1].name}")
    say(f"uplinks: {await _connect(stage)}")
    await _receive(stage)
    say("the first reading has arrived at the broker")

    receipt = await _burst(victim)
    await victim.kill()
    say(f"{victim.name} accepted {len(receipt)} readings more and was killed (SIGKILL)")
    report.crash_detected_s = await _detect(stage, victim)
    say(f"the others saw it dead after {report.crash_detected_s} s")
    for node in nodes[:-1]:
        await _expect(node, FIRST_VALUE)
    await _write(nodes[1], SECOND_VALUE)

    await victim.start()
    await victim.await_ready()
    await _converge(stage)
    await _expect(victim, SECOND_VALUE)
    report.kv_ok = True
    say(f"{victim.name} is back, and reads what was written while it was dead")
    await _settle(stage, receipt, report)
    say(f"{report.readings_delivered} readings arrived, {report.readings_lost} are missing")


async def _converge(stage: DemoSetup) -> float:
    """Wait until every agent sees every agent alive; return how long that took."""
    expected = {node.name: "alive" for node in stage.fleet.nodes}
    return await _until_all_see(stage, expected, "the agents do not see each other")


async def _detect(stage: DemoSetup, victim: DemoNode) -> float:
    expected = {node.name: "alive" for node in stage.fleet.nodes} | {victim.name: "dead"}
    return await _until_all_see(stage, expected, f"{victim.name} is not seen dead")


async def _until_all_see(stage: DemoSetup, expected: dict[str, str], otherwise: str) -> float:
    began = time.monotonic()

    async def seen() -> bool:
        return all_see(await poll(stage.fleet.nodes), expected)

    await _until(seen, otherwise)
    return round(time.monotonic() - began, 2)


async def _connect(stage: DemoSetup) -> str:
    """Wait for the uplinks; return how they are connected, as one of them says it."""

    async def connected() -> bool:
        return all(view.uplink.startswith("connected") for view in await poll(stage.fleet.nodes))

    await _until(connected, "an uplink does not connect")
    (view,) = await poll(stage.fleet.nodes[:1])
    return view.uplink


async def _receive(stage: DemoSetup) -> None:
    """Wait for the first reading."""

    async def received() -> bool:
        return bool(stage.collector.ids)

    await _until(received, "no reading arrives at the broker")


async def _write(node: DemoNode, value: bytes) -> None:
    """Write the key until that is known to be done: to write it twice does no harm."""

    async def is_done() -> bool:
        try:
            await node.put(DEMO_KEY, value)
        except (AgentError, ClientError):
            return False
        return True

    await _until(is_done, f"{node.name} does not write {value!r} to {DEMO_KEY}")


async def _expect(node: DemoNode, value: bytes) -> None:
    """Read the key until it has the value: an answer of "not now" is tried again."""

    async def holds() -> bool:
        try:
            return await node.get(DEMO_KEY) == value
        except ClientError:
            return False

    await _until(holds, f"{node.name} does not read {value!r} from {DEMO_KEY}")


async def _burst(node: DemoNode) -> set[str]:
    """Hand a node many readings at once; return the ids for which it took responsibility."""
    readings = [{"sensor": BURST_SENSOR, "value": number} for number in range(BURST_READINGS)]
    receipt = await asyncio.to_thread(node.client.post, "/api/v1/readings", readings)
    stem, _, first = str(receipt["first"]).rpartition("-")
    return {f"{stem}-{int(first) + offset}" for offset in range(int(receipt["accepted"]))}


async def _settle(stage: DemoSetup, receipt: set[str], report: Report) -> None:
    """Stop what makes readings, wait for the outboxes, compare accepted with received."""
    nodes, collector = stage.fleet.nodes, stage.collector
    for node in nodes:
        for app in APPS:
            await asyncio.to_thread(node.client.post, f"/api/v1/apps/{app}/stop")

    async def drained() -> bool:
        return all(view.answers and view.waiting == 0 for view in await poll(nodes))

    try:
        await _until(drained, "an outbox does not empty")
        accepted = receipt.union(*[await _accepted(node) for node in nodes])
        # The broker acknowledged them; give it a moment to pass on the last ones.
        await _until_arrived(stage, accepted)
    finally:
        accepted = receipt.union(*[await _accepted(node) for node in nodes])
        report.readings_delivered = len(accepted & collector.ids)
        report.readings_lost = len(accepted - collector.ids)
        report.readings_repeated = collector.repeated
    if collector.without_id:
        raise AgentError(f"{collector.without_id} messages had no reading's id", "", NO)


async def _accepted(node: DemoNode) -> set[str]:
    """Return the ids of all readings that a node has accepted, delivered or not."""
    answer = await asyncio.to_thread(node.client.get, "/api/v1/readings", limit=READINGS_MAX)
    return {reading["id"] for reading in answer["readings"]}


async def _until_arrived(stage: DemoSetup, ids: set[str]) -> None:
    async def arrived() -> bool:
        return ids <= stage.collector.ids

    try:
        await _until(arrived, "")
    except AgentError:
        return  # the report counts what is missing


async def _until(holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    """Wait for something to hold. Raises AgentError that says what did not."""
    try:
        async with asyncio.timeout(STEP_S):
            while not await holds():  # noqa: ASYNC110 - it happens in other processes
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AgentError(f"{otherwise}, not within {STEP_S:g} s", "", NO) from None
