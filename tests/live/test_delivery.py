"""Readings on their way to a real broker, while agent and broker are killed again and again."""

import random
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge_apps.client import ClientError
from tests.live.harness.agents import AgentProcess
from tests.live.harness.broker import PORT, Collector, Mosquitto
from tests.live.harness.fleet import Fleet
from tests.live.harness.waiting import eventually

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("mosquitto", path="/usr/sbin:/usr/bin") is None,
                       reason="needs Debian's mosquitto"),
]  # fmt: skip

READINGS = 10_000
SENSORS = 10
BATCH = 50
KILLS_OF_EACH = 4
DELIVERED_WITHIN_S = 60.0


@pytest.fixture
def wired(fleet: Fleet) -> Iterator[tuple[AgentProcess, Mosquitto, Collector]]:
    """Give one agent, a broker on a host of its own, and a collector that has subscribed."""
    host = fleet.network.add_host()
    broker = Mosquitto(host, fleet.folder / "broker")
    broker.start()
    collector = Collector(host, host, fleet.folder / "collector")
    collector.wait_subscribed(1)
    agent = fleet.add("sensor", toml=f'[uplink]\nhost = "{host.ipv4}"\nport = {PORT}\n')
    fleet.found(agent)
    yield agent, broker, collector
    collector.close()
    broker.close()


class Trouble(threading.Thread):
    """Kills the agent and the broker in turn, each several times, at moments of its own choice."""

    def __init__(self, agent: AgentProcess, broker: Mosquitto, collector: Collector) -> None:
        super().__init__(name="trouble")
        self.agent, self.broker, self.collector = agent, broker, collector
        self.seed = random.randrange(1_000_000)
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Make trouble, and keep what went wrong with it for the test."""
        rng = random.Random(self.seed)
        try:
            for _ in range(KILLS_OF_EACH):
                time.sleep(rng.uniform(0.2, 1.0))
                self.agent.kill()
                self.agent.start()
                time.sleep(rng.uniform(0.2, 1.0))
                self._kill_broker(rng)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the test's thread
            self.failure = error

    def _kill_broker(self, rng: random.Random) -> None:
        # What a broker loses after its acknowledgement is not ours to keep. With the collector
        # connected, a message is with it before the agent has its acknowledgement.
        subscribed = self.collector.subscriptions()
        self.broker.kill()
        time.sleep(rng.uniform(0.2, 1.0))
        self.broker.start()
        self.collector.wait_subscribed(subscribed + 1)


class Producer:
    """Publishes numbered readings, and remembers which ones the agent has accepted."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        self._number = 0
        self.accepted: set[tuple[str, int]] = set()

    def publish(self) -> None:
        """Offer one batch. One that got no answer may or may not be in the outbox."""
        batch = []
        for _ in range(BATCH):
            batch.append((f"probe/{self._number % SENSORS}", self._number // SENSORS))
            self._number += 1
        readings = [{"sensor": sensor, "value": value} for sensor, value in batch]
        try:
            answer = self._agent.api.post("/api/v1/readings", readings)
        except ClientError:
            time.sleep(0.05)
            return
        assert answer["accepted"] == BATCH
        self.accepted.update(batch)


def _value_of(payload: dict[str, Any]) -> tuple[str, int]:
    return payload["sensor"], int(payload["value"])


def test_no_accepted_reading_is_lost(
    wired: tuple[AgentProcess, Mosquitto, Collector],
) -> None:
    agent, broker, collector = wired
    trouble = Trouble(agent, broker, collector)
    print(f"seed of the trouble: {trouble.seed}")
    producer = Producer(agent)
    trouble.start()
    while len(producer.accepted) < READINGS or trouble.is_alive():
        producer.publish()
        # Spread them over the trouble: all of them at once would be over before the first kill.
        time.sleep(0.02)
    trouble.join()
    assert trouble.failure is None, trouble.failure

    eventually(
        lambda: agent.api.get("/api/v1/outbox")["waiting"],
        lambda waiting: waiting == 0,
        DELIVERED_WITHIN_S,
        "the outbox is empty",
    )

    def missing() -> int:
        return len(producer.accepted - {_value_of(payload) for payload in collector.arrivals()})

    eventually(missing, lambda seen: seen == 0, 5.0, "everything has arrived")
    _check_arrivals(collector.arrivals())


def _check_arrivals(arrivals: list[dict[str, Any]]) -> None:
    """What arrives twice has the same id; what arrives first arrives in order."""
    ids: dict[tuple[str, int], str] = {}
    newest: dict[str, int] = {}
    for payload in arrivals:
        sensor, value = _value_of(payload)
        if (sensor, value) in ids:
            assert ids[sensor, value] == payload["id"], f"{sensor} {value} arrived under two ids"
            continue
        ids[sensor, value] = payload["id"]
        assert value > newest.get(sensor, -1), f"{sensor}: {value} after {newest[sensor]}"
        newest[sensor] = value
    assert len(set(ids.values())) == len(ids), "two readings arrived under one id"
    print(f"{len(ids)} readings arrived, {len(arrivals) - len(ids)} of them again")
