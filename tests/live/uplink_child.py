"""The process that the live test kills: accepts numbered readings and delivers them."""

import asyncio
import random
import sys
from pathlib import Path

from agent.config.settings import UplinkSettings
from agent.store.database import Database
from agent.telemetry.outbox import Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.uplink.backoff import Backoff
from agent.telemetry.uplink.delivery import Delivery
from agent.telemetry.uplink.mqtt_client import PahoMqttClient
from agent.telemetry.uplink.template import Template, TemplateContext
from tests.support.readings import checked

SENSORS = 5
BATCH = 50


async def main(path: Path, port: int, total: int, boot: int) -> None:
    settings = UplinkSettings(host="127.0.0.1", port=port)
    database = await Database.open(path, OUTBOX_MIGRATIONS)
    outbox = await Outbox.open(database, 0xC0FFEE, boot << 32, keep_delivered=100)
    rng = random.Random(boot)
    pump = Delivery(
        settings,
        outbox,
        PahoMqttClient(settings, "uplink-test"),
        Template("readings/{sensor}", "{id} {value}", TemplateContext("c", "n", "0")),
        rng=rng,
        backoff=Backoff(rng, 0.02, 0.2),
    )
    task = asyncio.create_task(pump.run())
    stats = outbox.stats()
    done = stats.waiting + stats.delivered + stats.dead_letters
    while done < total:
        values = range(done, min(done + BATCH, total))
        await outbox.accept([checked(f"s{value % SENSORS}", value) for value in values])
        done = values.stop
        await asyncio.sleep(0.002)
    while outbox.waiting:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await outbox.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *map(int, sys.argv[2:5])))
