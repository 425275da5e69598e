"""The uplink and its broker: how connections begin, fail, fall back and end."""

import asyncio
import contextlib
import json
import random
import socket
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from agent.config.settings import UplinkSettings
from agent.doctor import agent_checks as doctor
from agent.exits import BAD_CONFIG, AgentError
from agent.store.database import Database
from agent.telemetry.outbox import Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.uplink import mqtt_client, reason_codes, version_fallback
from agent.telemetry.uplink.backoff import Backoff
from agent.telemetry.uplink.broker_memory import BrokerMemory
from agent.telemetry.uplink.client_id_conflict import ClientIdConflict
from agent.telemetry.uplink.delivery import Delivery
from agent.telemetry.uplink.mqtt_client import PahoMqttClient
from agent.telemetry.uplink.poison import PoisonDetector
from agent.telemetry.uplink.service import Uplink
from tests.support.readings import checked
from tests.support.strict_broker import StrictBroker, Verdict
from tests.support.uplink_rig import NODE, PLACE, WAIT_S, rig, run, sent


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
            status = r.pump.status()
            assert (status.state, status.last_error, status.hint) == ("connected", "", "")
            await broker.stop()

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


def test_a_broker_that_never_answers_version_5_costs_one_short_wait_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_fallback, "BRIEF_S", 0.3)
    file = tmp_path / "uplink.json"

    async def scenario() -> None:
        async with StrictBroker(mute_versions=frozenset({5})) as broker:
            for life in range(3):
                async with rig(tmp_path, broker.port, memory=BrokerMemory(file)) as r:
                    await r.accept(range(life * 10, life * 10 + 10))
                    await r.until_empty()
                    status = r.pump.status()
                    assert (status.version, status.fell_back, status.last_error) == (
                        "3.1.1",
                        True,
                        "",
                    )
            assert sent(broker) == list(range(30))
            assert broker.violations == {"not answered": 1}

    run(scenario())


@pytest.mark.parametrize(
    ("version", "code"), [("5", reason_codes.TAKEN_OVER), ("5", 0), ("3.1.1", 0)]
)
def test_two_agents_with_one_client_id_are_told_so(
    tmp_path: Path, version: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with (
            StrictBroker(takeover=code) as broker,
            rig(tmp_path / "a", broker.port, version=version) as a,
            rig(tmp_path / "b", broker.port, version=version) as b,
        ):
            for r in (a, b):
                await r.accept(range(3))
                await r.until(lambda r=r: "client id 'covey-test'" in r.pump.status().hint)  # type: ignore[misc]
                await r.until(lambda r=r: r.pump.status().connected)  # type: ignore[misc]
                found = doctor.uplink(r.pump.status())
                assert found.status == "warn"
                assert "client_id in [uplink]" in found.hint
                await r.until_empty()

    run(scenario())
    assert caplog.text.count("client id 'covey-test'") >= 2


def test_a_refusal_is_shown_until_it_is_over(tmp_path: Path) -> None:
    def rule(topic: str, _payload: bytes) -> Verdict:
        return reason_codes.NOT_AUTHORIZED if topic == "bad" else 0

    async def scenario() -> None:
        async with StrictBroker(rule=rule) as broker, rig(tmp_path, broker.port) as r:
            await r.accept(range(1), sensor="bad")
            await r.until(lambda: "refused a reading" in r.pump.status().last_error)
            n = 0
            while r.outbox.waiting or not n:
                await r.accept(range(n, n + 5))
                n += 5
                await r.until(lambda n=n: len(set(sent(broker))) == n)  # type: ignore[misc]
            await r.until(lambda: not r.pump.status().last_error)
            assert r.pump.status().hint == ""

    run(scenario())


def test_a_broker_that_acknowledges_nothing_has_no_connection(tmp_path: Path) -> None:
    """Else what is promised with ``qos = 1`` would be bytes in a socket."""

    async def scenario() -> None:
        async with StrictBroker(qos_max=0) as broker, rig(tmp_path, broker.port, qos=1) as r:
            await r.accept(range(5))
            await r.until(lambda: r.pump.counts["uplink_connects_failed/QoS_not_supported"] > 2)
            status = r.pump.status()
            assert (status.delivered, status.waiting, broker.published) == (0, 5, [])
            assert "qos in [uplink] is 1" in doctor.uplink(status).message
            assert "set qos = 0" in doctor.uplink(status).hint
            broker.qos_max = 1
            await r.until_empty()
            assert sent(broker) == list(range(5))

    run(scenario())


def test_who_asks_for_no_acknowledgement_needs_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with StrictBroker(qos_max=0) as broker, rig(tmp_path, broker.port, qos=0) as r:
            await r.accept(range(5))
            await r.until(lambda: len(broker.published) == 5)

    run(scenario())


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"\xc0\x00" * 10_000, "the broker sent what nobody asked for"),
        (b"\x30\xff\xff\xff\x7f" + bytes(100_000), "the broker sent more at once"),
    ],
    ids=["pings", "a huge packet"],
)
def test_a_broker_that_does_what_none_does_is_left_and_named(
    tmp_path: Path, said: bytes, told: str
) -> None:
    """Whoever is on the path of plain MQTT can be that broker."""

    async def scenario() -> None:
        ends: list[int] = []

        async def pose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(b"\x20\x03\x00\x00\x00" + said)
            with contextlib.suppress(OSError):
                await reader.read()  # until the agent closes
            ends.append(1)
            writer.close()

        broker = StrictBroker()
        poser = await asyncio.start_server(pose, "127.0.0.1", 0)
        broker.port = poser.sockets[0].getsockname()[1]
        async with rig(tmp_path, broker.port) as r:
            await r.accept(range(20))
            await r.until(lambda: len(ends) > 3)
            await r.until(lambda: told in r.pump.status().last_error)
            finding = doctor.uplink(r.pump.status())
            assert told in finding.message
            assert "in between" in finding.hint
            assert r.pump.status().dead_letters == 0
            assert r.outbox.waiting == 20
            poser.close()
            await broker.listen()
            await r.until_empty()
            assert sorted(set(sent(broker))) == list(range(20))
            await broker.stop()

    run(scenario())


def test_bad_credentials_are_said_and_waited_out(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)

    async def scenario() -> None:
        options: dict[str, Any] = {"username": "pi", "password_file": str(password)}
        async with (
            StrictBroker(connack=reason_codes.BAD_CREDENTIALS) as broker,
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
            broker.disconnect_all(reason_codes.TAKEN_OVER)
            await r.until(lambda: r.pump.counts["uplink_losses/session_taken_over"] == 1)
            assert "Another client uses the client id 'covey-test'" in r.pump.status().hint
            await r.accept(range(3, 6))
            await r.until_empty()

    run(scenario())


def test_taken_over_waits_long() -> None:
    class Slow(Backoff):
        def slow_s(self) -> float:
            return 99.0

    pump = object.__new__(Delivery)
    pump._poison, pump._rivalry = PoisonDetector(), ClientIdConflict()
    pump._backoff = Slow(random.Random(1), 1.0, 2.0)
    assert pump._delay_s(reason_codes.TAKEN_OVER) == 99.0
    assert pump._delay_s(reason_codes.SILENCE) <= 2.0


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
        await outbox.accept([checked("t", 1)])
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
            receipt = await outbox.accept([checked("attic/t", 21.5, "C")])
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
        PahoMqttClient(UplinkSettings(host="h", **options), "id")
    assert caught.value.status == BAD_CONFIG
    assert "[uplink]" in caught.value.hint


def test_a_password_that_everybody_reads_is_refused(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o644)
    settings = UplinkSettings(host="h", username="u", password_file=str(password))
    with pytest.raises(AgentError, match="everybody may read") as caught:
        PahoMqttClient(settings, "id")
    assert "chmod 600" in caught.value.hint
    assert "secret" not in caught.value.message.replace("secret in", "")


def test_a_host_that_drops_packets_says_nothing_about_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_client, "CONNECT_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        with socket.socket() as full:  # a queue of one, taken: further connections get no answer
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            taken = [socket.socket() for _ in range(4)]
            for each in taken:
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            async with rig(tmp_path, full.getsockname()[1]) as r:
                failures = "uplink_connects_failed/broker_not_reachable"
                await r.until(lambda: r.pump.counts[failures] > 2)
                assert r.pump.status().version == "5"
                assert "nothing answers" in r.pump.status().last_error
            for each in taken:
                each.close()

    run(scenario())


def test_a_login_that_works_in_a_test_ends_the_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = await Database.open(tmp_path / "t.db", OUTBOX_MIGRATIONS)
        outbox = await Outbox.open(database, NODE, 1 << 32)
        async with StrictBroker(connack=reason_codes.NOT_AUTHORIZED) as broker:
            settings = UplinkSettings(host="127.0.0.1", port=broker.port)
            uplink = Uplink(settings, outbox, PLACE, random.Random(1))
            task = asyncio.create_task(uplink.run())
            async with asyncio.timeout(WAIT_S):
                while uplink.status().state != "waiting":  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                assert "password_file" in uplink.status().hint, "as Mosquitto refuses a password"
                broker.connack = 0
                assert [step.outcome.value async for step in uplink.test()][-1] == "ok"
                while not uplink.status().connected:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            assert uplink.status().last_error == ""
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await outbox.close()
        await database.close()

    run(scenario())


def test_one_bad_sensor_among_many_deliveries_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def rule(topic: str, _payload: bytes) -> Verdict:
        return reason_codes.NOT_AUTHORIZED if topic == "bad" else 0

    async def scenario() -> None:
        async with StrictBroker(rule=rule) as broker, rig(tmp_path, broker.port) as r:
            await r.accept(range(3), sensor="bad")
            await r.accept(range(500))
            await r.until_empty()
            assert r.outbox.stats().dead_letters == 3

    run(scenario())
    assert caplog.text.count("The broker refused a reading") <= 3
    assert caplog.text.count("Giving up the reading") == 3


def test_a_broker_that_keeps_silent_in_tls_does_not_hold_up_the_stop() -> None:
    async def scenario(port: int) -> None:
        settings = UplinkSettings(host="127.0.0.1", port=port, tls=True, keepalive="60s")
        link = mqtt_client.PahoMqttClient(settings, "covey-test")
        connecting = asyncio.create_task(link.connect("5", cast("Any", None), WAIT_S))
        accepted, _ = await asyncio.to_thread(server.accept)
        with accepted:
            await asyncio.to_thread(accepted.recv, 1)  # it has begun to shake hands
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            silent.append(accepted.dup())

    silent: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        asyncio.run(scenario(server.getsockname()[1]))
        # Here, the thread still waits for an answer: the end of the loop did not wait for it.
        assert [each.name for each in threading.enumerate()].count("uplink") == 1
    for each in silent:
        each.close()
