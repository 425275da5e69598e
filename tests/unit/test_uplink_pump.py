"""The pump and the paho link against a broker on the loopback that is strict and nasty.

No test waits for a fixed time: each waits until something is true, and fails when the whole
test runs out of time.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.exits import BAD_CONFIG, AgentError
from agent.settings import UplinkSettings
from agent.store.database import Database
from agent.store.failures import StorageError
from agent.store.outbox import Outbox
from agent.store.outbox_schema import OUTBOX_MIGRATIONS
from agent.uplink import reasons
from agent.uplink.backoff import Backoff
from agent.uplink.client import PahoLink
from agent.uplink.pump import Pump
from agent.uplink.service import Uplink
from agent.uplink.template import Place, Template
from edge_apps.reading import Reading
from tests.strict_broker import StrictBroker, Verdict

NODE = 0xC0FFEE
PLACE = Place("home", "pi", "0000000000c0ffee")
WAIT_S = 30.0


class Rig:
    """An outbox and a pump with short waits, towards one broker."""

    def __init__(self, outbox: Outbox, pump: Pump) -> None:
        self.outbox = outbox
        self.pump = pump

    async def accept(self, values: range, sensor: str = "t") -> None:
        await self.outbox.accept([Reading(sensor, value) for value in values])

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - the condition is the test's, not ours
                await asyncio.sleep(0.005)

    async def until_empty(self) -> None:
        await self.until(lambda: self.outbox.waiting == 0)


@asynccontextmanager
async def rig(
    path: Path, port: int, *, timeout_s: float = 30.0, **options: Any
) -> AsyncIterator[Rig]:
    settings = UplinkSettings(host="127.0.0.1", port=port, **options)
    database = await Database.open(path / "telemetry.db", OUTBOX_MIGRATIONS)
    outbox = await Outbox.open(database, NODE, 1 << 32)
    template = Template("{sensor}", "{value}", PLACE)
    rng = random.Random(1)
    pump = Pump(
        settings,
        outbox,
        PahoLink(settings, "covey-test"),
        template,
        rng=rng,
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


def run(scenario: Awaitable[None]) -> None:
    asyncio.run(scenario)  # type: ignore[arg-type]


def sent(broker: StrictBroker, topic: str = "t") -> list[int]:
    return [int(payload) for name, payload in broker.published if name == topic]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_everything_arrives_once_and_in_order(tmp_path: Path, version: str, qos: int) -> None:
    async def scenario() -> None:
        async with (
            StrictBroker() as broker,
            rig(tmp_path, broker.port, version=version, qos=qos) as r,
        ):
            await r.accept(range(500))
            await r.until_empty()
            await r.until(lambda: len(broker.published) == 500)
            assert sent(broker) == list(range(500))
            assert not broker.violations
            assert broker.sessions[0]["version"] == (5 if version == "5" else 4)
            assert broker.sessions[0]["clean"] is True
            status = r.pump.status()
            assert (status.state, status.delivered, status.version) == ("connected", 500, version)

    run(scenario())


@pytest.mark.parametrize("qos", [1, 2])
def test_a_late_broker_is_never_sent_more_than_its_receive_maximum(
    tmp_path: Path, qos: int
) -> None:
    async def scenario() -> None:
        async with (
            StrictBroker(receive_maximum=7, answer_delay_s=0.003, held=True) as broker,
            rig(tmp_path, broker.port, window=100, qos=qos) as r,
        ):
            await r.accept(range(200))
            await r.until(lambda: broker.in_flight_max == 7)
            broker.held = False
            await r.until_empty()
            assert not broker.violations
            assert broker.in_flight_max == 7
            assert r.pump.status().window == 7
            assert len(broker.sessions) == 1
            assert sent(broker) == list(range(200))

    run(scenario())


def test_the_configured_window_holds_where_the_broker_allows_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            StrictBroker(held=True) as broker,
            rig(tmp_path, broker.port, window=5) as r,
        ):
            await r.accept(range(100))
            await r.until(lambda: broker.in_flight_max == 5)
            broker.held = False
            await r.until_empty()
            assert broker.in_flight_max == 5

    run(scenario())


def test_a_backlog_survives_dropped_connections_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            StrictBroker(answer_delay_s=0.001) as broker,
            rig(tmp_path, broker.port) as r,
        ):
            await r.accept(range(2000))
            for goal in (200, 700, 1200):
                await r.until(lambda goal=goal: len(broker.published) > goal)  # type: ignore[misc]
                broker.drop_all()
            await r.until_empty()
            firsts = list(dict.fromkeys(sent(broker)))
            assert firsts == list(range(2000)), "first arrivals are in order"
            assert len(broker.published) <= 2000 + 3 * 20, "only what was in flight came twice"
            assert r.outbox.counts["dead_letters/buried"] == 0
            assert not broker.violations

    run(scenario())


def test_nothing_is_lost_while_there_is_no_broker(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker = StrictBroker()
        await broker.listen()
        await broker.stop()
        async with rig(tmp_path, broker.port) as r:
            await r.accept(range(50))
            await r.until(lambda: r.pump.counts["uplink_connects_failed/broker_not_reachable"] > 3)
            assert r.outbox.waiting == 50
            assert "Cannot connect" in r.pump.status().last_error
            assert r.pump.status().version == "5"
            await broker.listen()
            await r.until_empty()
            assert sent(broker) == list(range(50))
            await broker.stop()

    run(scenario())


def test_only_a_good_reason_code_delivers(tmp_path: Path) -> None:
    closed = [True]

    def rule(_topic: str, _payload: bytes) -> Verdict:
        return reasons.QUOTA_EXCEEDED if closed[0] else 0

    async def scenario() -> None:
        async with StrictBroker(rule=rule) as broker, rig(tmp_path, broker.port) as r:
            await r.accept(range(30))
            await r.until(lambda: r.pump.counts["uplink_refusals/quota_exceeded"] >= 60)
            assert r.outbox.waiting == 30
            assert "quota exceeded" in r.pump.status().last_error
            assert "limits this client" in r.pump.status().hint
            closed[0] = False
            await r.until_empty()
            assert sent(broker) == list(range(30))
            assert r.outbox.counts["dead_letters/buried"] == 0
            assert len(broker.sessions) == 1

    run(scenario())


def test_qos_2_refused_with_pubrec_is_not_delivered(tmp_path: Path) -> None:
    closed = [True]

    def rule(_topic: str, _payload: bytes) -> Verdict:
        return reasons.QUOTA_EXCEEDED if closed[0] else 0

    async def scenario() -> None:
        async with StrictBroker(rule=rule) as broker, rig(tmp_path, broker.port, qos=2) as r:
            await r.accept(range(3))
            await r.until(lambda: r.pump.counts["uplink_refusals/quota_exceeded"] >= 3)
            assert r.outbox.waiting == 3
            closed[0] = False
            await r.until_empty()
            assert sent(broker) == [0, 1, 2]

    run(scenario())


@pytest.mark.parametrize(
    ("code", "says"),
    [(reasons.TOPIC_NAME_INVALID, "topic name"), (reasons.NOT_AUTHORIZED, "not authorized")],
)
def test_a_poisoned_reading_becomes_a_dead_letter_and_the_rest_arrives(
    tmp_path: Path, code: int, says: str
) -> None:
    def rule(topic: str, _payload: bytes) -> Verdict:
        return code if topic == "bad" else 0

    async def scenario() -> None:
        async with StrictBroker(rule=rule) as broker, rig(tmp_path, broker.port) as r:
            await r.accept(range(5))
            await r.accept(range(1), sensor="bad")
            await r.accept(range(5, 400))
            await r.until_empty()
            (letter,) = r.outbox.dead_letters()
            assert letter.reading.sensor == "bad"
            assert says in letter.reason
            assert sorted(set(sent(broker))) == list(range(400))
            assert r.outbox.stats().delivered == 400

    run(scenario())


@pytest.mark.parametrize("poisoned", [1, 3])
def test_a_broker_that_refuses_and_hangs_up_is_not_stuck_either(
    tmp_path: Path, poisoned: int
) -> None:
    def rule(topic: str, _payload: bytes) -> Verdict:
        return reasons.NOT_AUTHORIZED if topic == "bad" else 0

    async def scenario() -> None:
        async with (
            StrictBroker(rule=rule, drops_refused=True) as broker,
            rig(tmp_path, broker.port) as r,
        ):
            await r.accept(range(poisoned), sensor="bad")
            await r.until(lambda: len(broker.sessions) > 10)
            assert r.outbox.waiting == poisoned, "without proof nothing is given up"
            await r.accept(range(100))
            await r.until_empty()
            assert [letter.reading.sensor for letter in r.outbox.dead_letters()] == [
                "bad"
            ] * poisoned
            assert sorted(set(sent(broker))) == list(range(100))

    run(scenario())


def test_what_exceeds_the_announced_packet_size_is_never_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with StrictBroker(packet_bytes_max=100) as broker, rig(tmp_path, broker.port) as r:
            await r.accept(range(3))
            await r.outbox.accept([Reading("t", "9" * 500)])
            await r.accept(range(3, 6))
            await r.until_empty()
            (letter,) = r.outbox.dead_letters()
            assert "limit of 100 bytes" in letter.reason
            assert sent(broker) == list(range(6))
            assert not broker.violations
            assert len(broker.sessions) == 1

    run(scenario())


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_reading_that_kills_the_connection_is_found_and_set_aside(
    tmp_path: Path, version: str
) -> None:
    async def scenario() -> None:
        async with (
            StrictBroker(packet_bytes_max=100, announces_limits=False) as broker,
            rig(tmp_path, broker.port, version=version) as r,
        ):
            await r.accept(range(50))
            await r.outbox.accept([Reading("t", "9" * 500)] * 2)
            await r.accept(range(50, 100))
            await r.until_empty()
            letters = r.outbox.dead_letters()
            assert [len(str(letter.reading.value)) for letter in letters] == [500, 500]
            assert "ends the connection" in letters[0].reason
            assert sorted(set(sent(broker))) == list(range(100))
            assert len(broker.sessions) < 30

    run(scenario())


def test_a_lone_killer_is_kept_and_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            StrictBroker(packet_bytes_max=100, announces_limits=False) as broker,
            rig(tmp_path, broker.port) as r,
        ):
            await r.outbox.accept([Reading("t", "9" * 500)])
            await r.until(lambda: broker.violations["packet too large"] > 10)
            assert r.outbox.waiting == 1
            assert r.outbox.dead_letters() == []
            await r.accept(range(1))
            await r.until_empty()
            assert len(r.outbox.dead_letters()) == 1

    run(scenario())


def test_a_broker_that_stops_answering_is_left(tmp_path: Path) -> None:
    mute = [True]

    def rule(_topic: str, _payload: bytes) -> Verdict:
        return "silence" if mute[0] else 0

    async def scenario() -> None:
        async with (
            StrictBroker(rule=rule) as broker,
            rig(tmp_path, broker.port, timeout_s=0.1) as r,
        ):
            await r.accept(range(3))
            await r.until(lambda: r.pump.counts["uplink_connections/stalled"] > 0)
            assert r.outbox.waiting == 3
            mute[0] = False
            await r.until_empty()
            assert r.outbox.counts["dead_letters/buried"] == 0

    run(scenario())


def test_falls_back_to_3_1_1_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with (
            StrictBroker(versions=frozenset({4})) as broker,
            rig(tmp_path, broker.port) as r,
        ):
            await r.accept(range(10))
            await r.until_empty()
            assert [session["version"] for session in broker.sessions] == [4]
            assert (r.pump.status().version, r.pump.status().fell_back) == ("3.1.1", True)
            broker.drop_all()
            await r.accept(range(10, 20))
            await r.until_empty()
            assert [session["version"] for session in broker.sessions] == [4, 4]

    run(scenario())
    assert "does not take MQTT 5; trying MQTT 3.1.1" in caplog.text


def test_falls_back_where_version_5_gets_no_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            StrictBroker(silent_versions=frozenset({5})) as broker,
            rig(tmp_path, broker.port) as r,
        ):
            await r.accept(range(10))
            await r.until_empty()
            assert {session["version"] for session in broker.sessions} == {4}

    run(scenario())


def test_bad_credentials_are_said_and_waited_out(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")

    async def scenario() -> None:
        options: dict[str, Any] = {"username": "pi", "password_file": str(password)}
        async with (
            StrictBroker(connack=reasons.BAD_CREDENTIALS) as broker,
            rig(tmp_path, broker.port, **options) as r,
        ):
            await r.accept(range(3))
            await r.until(lambda: len(broker.sessions) > 2)
            assert "bad user name or password" in r.pump.status().last_error
            assert "password_file" in r.pump.status().hint
            password.write_text("better\n")
            broker.connack = 0
            await r.until_empty()
            first, last = broker.sessions[0], broker.sessions[-1]
            assert (first["username"], first["password"]) == ("pi", "secret")
            assert last["password"] == "better"

    run(scenario())


def test_a_session_taken_over_is_counted_and_resumed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with StrictBroker() as broker, rig(tmp_path, broker.port) as r:
            await r.accept(range(3))
            await r.until_empty()
            broker.disconnect_all(reasons.TAKEN_OVER)
            await r.until(lambda: r.pump.counts["uplink_losses/session_taken_over"] == 1)
            assert "Another client uses the same client id" in r.pump.status().hint
            await r.accept(range(3, 6))
            await r.until_empty()

    run(scenario())


def test_taken_over_waits_long() -> None:
    class Slow(Backoff):
        def slow_s(self) -> float:
            return 99.0

    pump = object.__new__(Pump)
    pump._backoff = Slow(random.Random(1), 1.0, 2.0)
    assert pump._delay_s(reasons.TAKEN_OVER) == 99.0
    assert pump._delay_s(reasons.SILENCE) <= 2.0


def test_an_unreadable_outbox_does_not_end_the_pump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with StrictBroker() as broker, rig(tmp_path, broker.port) as r:
            whole, calls = r.outbox.batch, [0]

            def fail_once(limit: int, after: int = 0) -> Any:
                calls[0] += 1
                if calls[0] == 1:
                    raise StorageError("disk")
                return whole(limit, after)

            monkeypatch.setattr(r.outbox, "batch", fail_once)
            await r.accept(range(3))
            await r.until_empty()
            assert calls[0] > 1
            assert sent(broker) == [0, 1, 2]

    run(scenario())


def test_stopping_says_goodbye_and_saves_what_was_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with StrictBroker() as broker:
            async with rig(tmp_path, broker.port) as r:
                await r.accept(range(100))
                await r.until_empty()
            async with rig(tmp_path, broker.port) as r:
                assert r.outbox.waiting == 0
                await r.accept(range(100, 101))
                await r.until_empty()
            assert sent(broker) == list(range(101))

    run(scenario())


def test_cancelled_while_connecting(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            StrictBroker(versions=frozenset({5})) as broker,
            rig(tmp_path, broker.port),
        ):
            await asyncio.sleep(0)

    run(scenario())


def test_the_uplink_without_a_host_is_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = await Database.open(tmp_path / "t.db", OUTBOX_MIGRATIONS)
        outbox = await Outbox.open(database, NODE, 1 << 32)
        uplink = Uplink(UplinkSettings(), outbox, PLACE, random.Random(1))
        await outbox.accept([Reading("t", 1)])
        status = uplink.status()
        assert (status.state, status.waiting, status.connected) == ("off", 1, False)
        assert "Set host" in status.hint
        assert not uplink.counts
        await outbox.close()
        await database.close()

    run(scenario())


def test_the_uplink_delivers_the_default_payload_under_the_default_client_id(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        database = await Database.open(tmp_path / "t.db", OUTBOX_MIGRATIONS)
        outbox = await Outbox.open(database, NODE, 1 << 32)
        async with StrictBroker() as broker:
            settings = UplinkSettings(host="127.0.0.1", port=broker.port)
            uplink = Uplink(settings, outbox, PLACE, random.Random(1))
            task = asyncio.create_task(uplink.run())
            receipt = await outbox.accept([Reading("attic/t", 21.5, "C")])
            async with asyncio.timeout(WAIT_S):
                while outbox.waiting:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            ((topic, payload),) = broker.published
            assert topic == "covey/home/pi/attic/t"
            assert json.loads(payload)["id"] == receipt.first
            assert broker.sessions[0]["client_id"] == "covey-home-0000000000c0ffee"
        await outbox.close()
        await database.close()

    run(scenario())


@pytest.mark.parametrize(
    "options",
    [
        {"tls": True, "ca_file": "/absent/ca.pem"},
        {"tls": True, "certificate_file": "/absent/c.pem", "key_file": "/absent/k.pem"},
        {"username": "u", "password_file": "/absent/password"},
    ],
)
def test_files_that_do_not_fit_are_refused_at_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(AgentError, match="cannot be") as caught:
        PahoLink(UplinkSettings(host="h", **options), "id")
    assert caught.value.status == BAD_CONFIG
    assert "[uplink]" in caught.value.hint
