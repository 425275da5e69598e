"""The uplink against Debian's Mosquitto: crashes of both sides, TLS, access lists.

Mosquitto acknowledges before it saves; it is configured here to save at every change, because
the promise under test ends at the broker's acknowledgement.
"""

import asyncio
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.config.settings import UplinkSettings
from agent.store.database import Database
from agent.telemetry.outbox import Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.uplink.backoff import Backoff
from agent.telemetry.uplink.delivery import Delivery
from agent.telemetry.uplink.mqtt_client import PahoMqttClient
from agent.telemetry.uplink.template import Message, Template, TemplateContext
from edge_apps.texts import flaw
from tests.support.certificates import Authority
from tests.support.readings import checked

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CHILD = Path(__file__).with_name("uplink_child.py")
SENSORS = 5
TOTAL = 10_000
WAIT_S = 90.0

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt-get install mosquitto"),
]

BASE_CONFIGURATION = """
user root
persistence true
persistence_location {folder}/
autosave_interval 1
autosave_on_changes true
max_queued_messages 0
allow_anonymous true
"""


def eventually(
    condition: Callable[[], bool], what: str, progress: Callable[[], int] = lambda: 0
) -> None:
    """Wait for a condition, for as long as there is progress, and ``WAIT_S`` without any."""
    seen, deadline = progress(), time.monotonic() + WAIT_S
    while not condition():
        if (now := progress()) != seen:
            seen, deadline = now, time.monotonic() + WAIT_S
        assert time.monotonic() < deadline, f"still not: {what}; so far {seen}"
        time.sleep(0.01)


class Mosquitto:
    """A broker on a port of the loopback that can be killed and started again."""

    def __init__(self, folder: Path, configuration: str = "") -> None:
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._file = folder / "mosquitto.conf"
        listener = configuration or "listener {port} 127.0.0.1"
        text = BASE_CONFIGURATION + listener
        self._file.write_text(text.format(folder=folder, port=self.port))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._listens, "mosquitto listens")

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "mosquitto ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    yield broker
    broker.kill()


class Collector:
    """A subscriber whose session outlives its connections; keeps every arrival in order."""

    def __init__(self, port: int) -> None:
        self.arrivals: list[tuple[str, str]] = []  # topic, payload
        self.ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "collector", clean_session=False)
        self._client.on_connect = lambda client, *_: client.subscribe("readings/#", 1)
        self._client.on_subscribe = lambda *_: self.ready.set()
        self._client.on_message = self._arrived
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.ready.wait(WAIT_S)

    def count(self) -> int:
        """Return how much has arrived, repetitions included."""
        return len(self.arrivals)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _arrived(self, _client: Any, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        self.arrivals.append((message.topic, bytes(message.payload).decode()))


@pytest.fixture
def collector(broker: Mosquitto) -> Iterator[Collector]:
    collector = Collector(broker.port)
    yield collector
    collector.stop()


def start_child(path: Path, port: int, boot: int) -> "subprocess.Popen[bytes]":
    arguments = [str(path), str(port), str(TOTAL), str(boot)]
    return subprocess.Popen([sys.executable, str(CHILD), *arguments], stdin=subprocess.DEVNULL)


def test_nothing_accepted_is_lost_when_broker_and_agent_are_killed(
    tmp_path: Path, broker: Mosquitto, collector: Collector
) -> None:
    path, boot = tmp_path / "telemetry.db", 1
    child = start_child(path, broker.port, boot)
    try:
        for step in range(6):
            goal = TOTAL * (step + 1) // 8
            eventually(lambda goal=goal: len(collector.arrivals) > goal, "readings arrive")  # type: ignore[misc]
            if step % 2:
                broker.kill()
                broker.start()
            else:
                child.kill()
                child.wait()
                boot += 1
                child = start_child(path, broker.port, boot)
        eventually(lambda: child.poll() is not None, "all is delivered", collector.count)
        assert child.returncode == 0
        what = f"all of {TOTAL} arrived"
        eventually(lambda: len(distinct(collector)) >= TOTAL, what, collector.count)
    finally:
        child.kill()
        child.wait()
    check_arrivals(collector)


def distinct(collector: Collector) -> set[str]:
    return {payload.split()[1] for _, payload in list(collector.arrivals)}


def check_arrivals(collector: Collector) -> None:
    """All values, one id for each however often it came, and each sensor in order."""
    ids: dict[int, set[str]] = {}
    order: dict[str, list[int]] = {}
    for topic, payload in collector.arrivals:
        reading_id, text = payload.split()
        value = int(text)
        if value not in ids:
            order.setdefault(topic, []).append(value)
        ids.setdefault(value, set()).add(reading_id)
    assert sorted(ids) == list(range(TOTAL))
    assert all(len(names) == 1 for names in ids.values()), "duplicates share their id"
    assert len(set.union(*ids.values())) == TOTAL, "no two readings share an id"
    assert set(order) == {f"readings/s{n}" for n in range(SENSORS)}
    for topic, values in order.items():
        assert values == sorted(values), topic


# ---- in this process: TLS and access lists -------------------------------------------------------


@asynccontextmanager
async def pumping(path: Path, settings: UplinkSettings) -> AsyncIterator[tuple[Outbox, Delivery]]:
    database = await Database.open(path, OUTBOX_MIGRATIONS)
    outbox = await Outbox.open(database, 0xC0FFEE, 1 << 32)
    rng = random.Random(1)
    link = PahoMqttClient(settings, "uplink-test")
    template = Template("readings/{sensor}", "{value}", TemplateContext("c", "n", "0"))
    pump = Delivery(settings, outbox, link, template, rng=rng, backoff=Backoff(rng, 0.01, 0.1))
    task = asyncio.create_task(pump.run())
    try:
        yield outbox, pump
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await outbox.close()
        await database.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_mutual_tls(tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "foreign")
    certificate, key = ours.issue("127.0.0.1")
    broker = Mosquitto(
        tmp_path / "broker",
        f"listener {{port}} 127.0.0.1\ncafile {ours.certificate}\ncertfile {certificate}\n"
        f"keyfile {key}\nrequire_certificate true\n",
    )
    broker.start()
    certificate, key = ours.issue("node")
    files: dict[str, Any] = {"certificate_file": str(certificate), "key_file": str(key)}

    async def scenario(ca: Path, check: Callable[[Outbox, Delivery], Any]) -> None:
        settings = UplinkSettings(
            host="127.0.0.1", port=broker.port, tls=True, ca_file=str(ca), **files
        )
        async with pumping(tmp_path / f"{ca.parent.name}.db", settings) as (outbox, pump):
            await outbox.accept([checked("t", value) for value in range(500)])
            await until(lambda: check(outbox, pump))

    try:
        asyncio.run(scenario(ours.certificate, lambda outbox, _: outbox.waiting == 0))
        asyncio.run(
            scenario(
                foreign.certificate,
                lambda outbox, pump: (
                    "certificate is not trusted" in pump.status().last_error
                    and outbox.waiting == 500
                ),
            )
        )
    finally:
        broker.kill()


@pytest.mark.parametrize("qos", [1, 2])
def test_what_the_access_list_denies_is_not_delivered_and_holds_nothing_up(
    tmp_path: Path, qos: Any
) -> None:
    """With this configuration, Mosquitto 2.0.11 even hangs up after each refusal."""
    (tmp_path / "acl").write_text("topic readwrite readings/good\n")
    broker = Mosquitto(
        tmp_path / "broker", f"listener {{port}} 127.0.0.1\nacl_file {tmp_path}/acl\n"
    )
    broker.start()

    async def scenario() -> None:
        settings = UplinkSettings(host="127.0.0.1", port=broker.port, qos=qos)
        async with pumping(tmp_path / "t.db", settings) as (outbox, pump):
            await outbox.accept([checked("bad", 1)])
            await until(lambda: pump.counts["uplink_refusals/not_authorized"] > 3)
            assert outbox.waiting == 1
            await outbox.accept([checked("good", value) for value in range(500)])
            await until(lambda: outbox.waiting == 0)
            (letter,) = outbox.dead_letters()
            assert (letter.reading.sensor, outbox.stats().delivered) == ("bad", 500)

    try:
        asyncio.run(scenario())
    finally:
        broker.kill()


CARRIED = ("\u00ad", "\u2028", "\ue000", "\ufdcf", "\ufdf0", "\ufffd", "\U0001f326")
FORBIDDEN = (
    "\x01",
    "\x1f",
    "\x7f",
    "\x80",
    "\x85",
    "\x9f",
    "\ufdd0",
    "\ufdef",
    "\ufffe",
    "\U0001ffff",
)


class Answer:
    """What becomes of one message: True if it was acknowledged, False if the connection ended."""

    def __init__(self) -> None:
        self.was_taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def acknowledged(self, _token: int, code: int) -> None:
        self.was_taken.set_result(code < 0x80)

    def lost(self, _code: int) -> None:
        self.was_taken.set_result(False)


def test_mosquitto_draws_the_line_between_names_where_we_do(broker: Mosquitto) -> None:
    async def takes(character: str) -> bool:
        link = PahoMqttClient(UplinkSettings(host="127.0.0.1", port=broker.port), "names")
        answer = Answer()
        await link.connect("5", answer, WAIT_S)
        link.publish(1, Message(f"readings/a{character}b", b"1"), 1)
        try:
            return await asyncio.wait_for(answer.was_taken, WAIT_S)
        finally:
            link.abort()

    async def scenario() -> None:
        for character in (*CARRIED, *FORBIDDEN):
            assert await takes(character) is (flaw(character) == ""), ascii(character)

    assert {flaw(character) == "" for character in CARRIED} == {True}
    assert {flaw(character) == "" for character in FORBIDDEN} == {False}
    asyncio.run(scenario())
