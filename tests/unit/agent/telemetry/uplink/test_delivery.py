"""The pump against a broker on the loopback that is strict and nasty: order, window, refusals."""

from pathlib import Path
from typing import Any

import pytest

from agent.doctor import agent_checks
from agent.store.errors import StorageError
from agent.telemetry.uplink import reason_codes
from agent.telemetry.uplink.delivery import READ_AHEAD
from tests.support.readings import checked
from tests.support.strict_broker import StrictBroker, Verdict
from tests.support.uplink_rig import rig, run, sent


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


def test_only_a_good_reason_code_delivers(tmp_path: Path) -> None:
    closed = [True]

    def rule(_topic: str, _payload: bytes) -> Verdict:
        return reason_codes.QUOTA_EXCEEDED if closed[0] else 0

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
        return reason_codes.QUOTA_EXCEEDED if closed[0] else 0

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
    [
        (reason_codes.TOPIC_NAME_INVALID, "topic name"),
        (reason_codes.NOT_AUTHORIZED, "not authorized"),
    ],
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
        return reason_codes.NOT_AUTHORIZED if topic == "bad" else 0

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
            await r.outbox.accept([checked("t", "9" * 500)])
            await r.accept(range(3, 6))
            await r.until_empty()
            (letter,) = r.outbox.dead_letters()
            assert "limit of 100 bytes" in letter.reason
            assert sent(broker) == list(range(6))
            assert not broker.violations
            assert len(broker.sessions) == 1

    run(scenario())


def test_a_limit_in_which_nothing_fits_makes_no_dead_letters(tmp_path: Path) -> None:
    """Also behind more of them than are looked at in one go, and with a small one that comes."""

    async def scenario() -> None:
        async with StrictBroker(packet_bytes_max=60) as broker, rig(tmp_path, broker.port) as r:
            large = [checked("t", "9" * 100)] * (3 * READ_AHEAD)
            await r.outbox.accept(large)
            await r.until(lambda: "packets of 60 bytes" in r.pump.status().last_error)
            finding = agent_checks.uplink(r.pump.status())
            assert "packets of 60 bytes" in finding.message
            assert "Raise the broker's limit" in finding.hint
            await r.until(lambda: r.pump._read_to == len(large))
            assert r.outbox.waiting == len(large)
            broker.packet_bytes_max = 200
            broker.drop_all()
            await r.until_empty()
            assert len(set(broker.published)) == 1
            assert r.outbox.stats().delivered == len(large)
            assert r.outbox.stats().dead_letters == 0

    run(scenario())


def test_what_is_too_large_is_given_up_once_smaller_ones_pass(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with StrictBroker(packet_bytes_max=60) as broker, rig(tmp_path, broker.port) as r:
            await r.outbox.accept([checked("t", "9" * 100)] * (2 * READ_AHEAD))
            await r.until(lambda: r.pump._read_to == 2 * READ_AHEAD)
            assert r.outbox.waiting == 2 * READ_AHEAD
            await r.accept(range(50))
            await r.until_empty()
            assert sent(broker) == list(range(50))
            assert r.outbox.stats().dead_letters == 2 * READ_AHEAD
            await r.until(lambda: not r.pump.status().last_error)
            assert not broker.violations

    run(scenario())


def test_a_broker_that_blames_every_reading_makes_no_dead_letters(tmp_path: Path) -> None:
    blames = [True]

    def rule(_topic: str, _payload: bytes) -> Verdict:
        return reason_codes.PAYLOAD_INVALID if blames[0] else 0

    async def scenario() -> None:
        async with StrictBroker(rule=rule) as broker, rig(tmp_path, broker.port) as r:
            await r.accept(range(30))
            await r.until(lambda: r.pump.counts["uplink_refusals/payload_format_invalid"] >= 200)
            assert r.outbox.waiting == 30
            assert "payload format invalid" in r.pump.status().last_error
            blames[0] = False
            await r.until_empty()
            assert sent(broker) == list(range(30))
            assert r.outbox.stats().dead_letters == 0

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
            await r.outbox.accept([checked("t", "9" * 500)] * 2)
            await r.accept(range(50, 100))
            await r.until_empty()
            letters = r.outbox.dead_letters()
            assert [len(str(letter.reading.value)) for letter in letters] == [500, 500]
            assert "ends the connection" in letters[0].reason
            assert sorted(set(sent(broker))) == list(range(100))
            assert len(broker.sessions) < 30

    run(scenario())


@pytest.mark.parametrize("verdict", ["drop", reason_codes.NOT_AUTHORIZED])
@pytest.mark.parametrize("sensors", [pytest.param(1, marks=pytest.mark.slow), 30])
def test_many_bad_readings_at_the_head_hold_nothing_back_and_are_all_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, verdict: Verdict, sensors: int
) -> None:
    def rule(topic: str, _payload: bytes) -> Verdict:
        return verdict if topic.startswith("bad") else 0

    async def scenario() -> None:
        async with StrictBroker(rule=rule) as broker, rig(tmp_path, broker.port) as r:
            bad = [checked(f"bad/{n % sensors}", n) for n in range(30)]
            receipt = await r.outbox.accept(bad)
            await r.accept(range(100))
            await r.until(lambda: len(set(sent(broker))) == 100)
            assert sent(broker) == sorted(set(sent(broker))), "each once, in order"
            for n in range(100, 1000, 10):  # proof needs readings that pass in between
                await r.accept(range(n, n + 10))
                await r.until(lambda n=n: len(set(sent(broker))) == n + 10)  # type: ignore[misc]
            await r.until_empty()
            letters = {letter.id: letter.reading for letter in r.outbox.dead_letters()}
            assert sorted(int(reading.value) for reading in letters.values()) == list(range(30))
            assert r.outbox.stats().delivered == 1000
            assert f"Giving up the reading {receipt.first} of sensor 'bad/0'" in caplog.text

    run(scenario())


def test_a_lone_killer_is_kept_and_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            StrictBroker(packet_bytes_max=100, announces_limits=False) as broker,
            rig(tmp_path, broker.port) as r,
        ):
            await r.outbox.accept([checked("t", "9" * 500)])
            await r.until(lambda: broker.violations["packet too large"] > 10)
            assert r.outbox.waiting == 1
            assert r.outbox.dead_letters() == []
            await r.accept(range(1))
            await r.until_empty()
            assert len(r.outbox.dead_letters()) == 1

    run(scenario())


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
