"""An outbox and a pump with short waits, for tests that bring a broker of their own.

No test waits for a fixed time: each waits until something is true, and fails when that takes
longer than anybody would wait.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.config.settings import UplinkSettings
from agent.store.database import Database
from agent.telemetry.outbox import Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.uplink.backoff import Backoff
from agent.telemetry.uplink.broker_memory import BrokerMemory
from agent.telemetry.uplink.delivery import Delivery
from agent.telemetry.uplink.mqtt_client import PahoMqttClient
from agent.telemetry.uplink.template import Template, TemplateContext
from tests.support.patience import GIVE_UP_S
from tests.support.readings import checked
from tests.support.strict_broker import StrictBroker

NODE = 0xC0FFEE
PLACE = TemplateContext("home", "pi", "0000000000c0ffee")
WAIT_S = GIVE_UP_S


class Rig:
    """An outbox and a pump with short waits, towards one broker."""

    def __init__(self, outbox: Outbox, pump: Delivery) -> None:
        self.outbox = outbox
        self.pump = pump

    async def accept(self, values: range, sensor: str = "t") -> None:
        await self.outbox.accept([checked(sensor, value) for value in values])

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - the condition is the test's, not ours
                await asyncio.sleep(0.005)

    async def until_empty(self) -> None:
        await self.until(lambda: self.outbox.waiting == 0)


@asynccontextmanager
async def rig(
    path: Path,
    port: int,
    *,
    timeout_s: float = 30.0,
    memory: BrokerMemory | None = None,
    **options: Any,
) -> AsyncIterator[Rig]:
    texts = {"topic": "{sensor}", "payload": "{value}"}
    settings = UplinkSettings(host="127.0.0.1", port=port, **texts | options)
    database = await Database.open(path / "telemetry.db", OUTBOX_MIGRATIONS)
    outbox = await Outbox.open(database, NODE, 1 << 32)
    template = Template(settings.topic, settings.payload, PLACE)
    rng = random.Random(1)
    pump = Delivery(
        settings,
        outbox,
        PahoMqttClient(settings, "covey-test"),
        template,
        rng=rng,
        memory=memory,
        backoff=Backoff(rng, 0.001, 0.02),
        answer_timeout_s=timeout_s,
    )
    task = asyncio.create_task(pump.run())
    try:
        yield Rig(outbox, pump)
    finally:
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        await outbox.close()
        await database.close()
    assert isinstance(outcome, asyncio.CancelledError), outcome


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def sent(broker: StrictBroker, topic: str = "t") -> list[int]:
    return [int(payload) for name, payload in broker.published if name == topic]
