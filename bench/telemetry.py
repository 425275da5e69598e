"""Readings a second: accepted durably, and delivered to Mosquitto beside bare paho-mqtt.

The peer publishes the same payloads from memory, by paho's own thread, with its window at the
same size; the difference is the price of the outbox, of judging every answer, and of asyncio.
"""

import asyncio
import random
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.config.settings import UplinkSettings
from agent.store.database import Database
from agent.telemetry.outbox import Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.uplink.service import Uplink
from agent.telemetry.uplink.template import TemplateContext
from bench.report import finish, table
from edge_apps.reading import Checked, Reading, check

ACCEPTED = 100_000
BATCH = 100
WRITERS = 64
BACKLOG = 50_000
TRICKLE_S, TRICKLE_PER_S = 5.0, 100
WINDOW = 20
KIBIBYTES_PER_MEBIBYTE = 1024
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")


@asynccontextmanager
async def opened(folder: Path, name: str) -> AsyncIterator[tuple[Database, Outbox]]:
    """Give an empty outbox."""
    database = await Database.open(folder / f"{name}.db", OUTBOX_MIGRATIONS)
    outbox = await Outbox.open(database, 1, 1 << 32)
    try:
        yield database, outbox
    finally:
        await outbox.close()
        await database.close()


def drafts(first: int, count: int) -> list[Checked]:
    """Return readings of ten sensors."""
    return [
        check(Reading(f"room/{n % 10}/temperature", n * 0.1, "C", tags={"floor": "2"}))
        for n in range(first, first + count)
    ]


async def accept_per_s(folder: Path, batch: int, count: int) -> float:
    """Return accepted readings a second, from many writers at once."""
    async with opened(folder, f"accept-{batch}") as (_, outbox):
        batches = (drafts(first, batch) for first in range(0, count, batch))

        async def writer() -> None:
            for readings in batches:
                await outbox.accept(readings)

        started = time.perf_counter()
        await asyncio.gather(*(writer() for _ in range(WRITERS)))
        return count / (time.perf_counter() - started)


async def syncs_per_s(folder: Path) -> float:
    """Return how often the disk is synced while 100 readings a second trickle in."""
    async with opened(folder, "trickle") as (database, outbox):
        for reading in drafts(0, round(TRICKLE_S * TRICKLE_PER_S)):
            await outbox.accept([reading])
            await asyncio.sleep(1 / TRICKLE_PER_S)
        return database.counts["database_syncs/done"] / TRICKLE_S


async def deliver_per_s(folder: Path, port: int) -> float:
    """Return delivered readings a second, from a backlog."""
    async with opened(folder, "deliver") as (_, outbox):
        await outbox.accept(drafts(0, BACKLOG))
        settings = UplinkSettings(host="127.0.0.1", port=port, window=WINDOW)
        place = TemplateContext("bench", "node", "0000000000000001")
        uplink = Uplink(settings, outbox, place, random.Random(1))
        started = time.perf_counter()
        task = asyncio.create_task(uplink.run())
        while outbox.waiting:  # noqa: ASYNC110 - it is the outbox that is watched, not an event
            await asyncio.sleep(0.01)
        elapsed = time.perf_counter() - started
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return BACKLOG / elapsed


def paho_per_s(port: int) -> float:
    """Return messages a second of paho alone, connected before it is given anything."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "peer", protocol=mqtt.MQTTv5)
    client.max_inflight_messages_set(WINDOW)
    client.connect("127.0.0.1", port)
    client.loop_start()
    payload = b"x" * 170
    started = time.perf_counter()
    sent = [client.publish(f"bench/{n % 10}", payload, 1) for n in range(BACKLOG)]
    sent[-1].wait_for_publish(60)
    elapsed = time.perf_counter() - started
    client.disconnect()
    client.loop_stop()
    return BACKLOG / elapsed


@asynccontextmanager
async def mosquitto(folder: Path) -> AsyncIterator[int]:
    """Run a broker with its defaults on a free port of the loopback."""
    if MOSQUITTO is None:
        raise SystemExit("needs mosquitto: apt-get install mosquitto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    configuration = folder / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    broker = await asyncio.create_subprocess_exec(
        MOSQUITTO, "-c", str(configuration), stderr=subprocess.DEVNULL
    )
    try:
        await asyncio.sleep(1.0)
        yield port
    finally:
        broker.kill()
        await broker.wait()


async def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        batched = await accept_per_s(folder, BATCH, ACCEPTED)
        single = await accept_per_s(folder, 1, ACCEPTED // 5)
        syncs = await syncs_per_s(folder)
        async with mosquitto(folder) as port:
            delivered = await deliver_per_s(folder, port)
            memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIBIBYTES_PER_MEBIBYTE
            paho = await asyncio.to_thread(paho_per_s, port)
    table(
        "Telemetry",
        ("what", "figure"),
        [
            (f"accepted a second, batches of {BATCH}, {WRITERS} writers", batched),
            (f"accepted a second, one at a time, {WRITERS} writers", single),
            (f"syncs a second at {TRICKLE_PER_S} readings a second", syncs),
            (f"delivered a second, QoS 1, window {WINDOW}, backlog {BACKLOG:,}", delivered),
            ("paho alone, from memory, in its own thread", paho),
            ("delivered / paho alone", delivered / paho),
            ("peak memory before the peer ran, MiB", memory_mib),
        ],
    )
    finish(
        "telemetry",
        {
            "accepted_per_s": round(batched),
            "accepted_single_per_s": round(single),
            "syncs_per_s_at_100": syncs,
            "delivered_per_s": round(delivered),
            "paho_per_s": round(paho),
            "delivered_ratio": round(delivered / paho, 3),
            "memory_mib": round(memory_mib),
        },
    )


if __name__ == "__main__":
    asyncio.run(main())
