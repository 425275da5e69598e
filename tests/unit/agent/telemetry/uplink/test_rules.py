"""The pure parts of the uplink: back-off, version choice, quarantine, window, templates, sizes."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from agent.exits import BAD_CONFIG, AgentError
from agent.telemetry.outbox import Accepted
from agent.telemetry.uplink import poison as rules
from agent.telemetry.uplink import reason_codes
from agent.telemetry.uplink.backoff import Backoff
from agent.telemetry.uplink.broker_memory import BrokerMemory
from agent.telemetry.uplink.client_id_conflict import CALM_S, ENDS_MAX, SHORT_S, ClientIdConflict
from agent.telemetry.uplink.in_flight import InFlight
from agent.telemetry.uplink.mqtt import publish_bytes
from agent.telemetry.uplink.poison import PoisonDetector
from agent.telemetry.uplink.template import Message, Template, TemplateContext
from agent.telemetry.uplink.version_fallback import (
    BRIEF_S,
    PATIENT_S,
    RECHECK_S,
    SILENCES_PROVEN_MAX,
    Spoken,
    VersionFallback,
)
from edge_apps.reading import Reading

PLACE = TemplateContext("home", "pi-attic", "0000000000c0ffee")
NOW_S = 1_800_000_000.0


# ---- back-off -----------------------------------------------------------------------------------


def test_delays_stay_between_base_and_cap_and_grow_on_average() -> None:
    def delays(seed: int) -> list[float]:
        backoff = Backoff(random.Random(seed), 1.0, 60.0)
        return [backoff.next_s() for _ in range(12)]

    runs = [delays(seed) for seed in range(200)]
    assert all(1.0 <= delay <= 60.0 for run in runs for delay in run)
    means = [sum(column) / len(runs) for column in zip(*runs, strict=True)]
    assert means[0] < 2.5 < means[3] < means[8]
    assert delays(1) == delays(1) != delays(2)


def test_a_fresh_one_does_not_go_on_where_the_other_was() -> None:
    backoff = Backoff(random.Random(1), 1.0, 60.0)
    backoff.slow_s()
    assert backoff.fresh().next_s() <= 3.0


def test_reset_begins_with_short_waits_and_slow_is_long() -> None:
    backoff = Backoff(random.Random(1), 1.0, 60.0)
    assert all(30.0 <= backoff.slow_s() <= 60.0 for _ in range(20))
    backoff.reset()
    assert backoff.next_s() <= 3.0


# ---- versions -----------------------------------------------------------------------------------


def test_an_answer_about_the_version_is_believed_at_once() -> None:
    versions = VersionFallback("5")
    assert versions.failed(reason_codes.UNSUPPORTED_VERSION)
    assert (versions.current, versions.fell_back) == ("3.1.1", True)
    versions.connected(NOW_S)
    assert not versions.failed(reason_codes.SILENCE)
    assert versions.current == "3.1.1"


def test_closing_counts_only_twice_in_a_row_and_is_taken_back() -> None:
    versions = VersionFallback("5")
    assert not versions.failed(reason_codes.SILENCE)
    assert not versions.failed(reason_codes.BAD_CREDENTIALS)
    assert not versions.failed(reason_codes.SILENCE)
    assert versions.failed(reason_codes.SILENCE)
    assert versions.current == "3.1.1"
    assert versions.failed(reason_codes.SILENCE)
    assert (versions.current, versions.fell_back) == ("5", False)


def test_no_answer_has_cost_enough_and_is_waited_for_briefly_at_first() -> None:
    versions = VersionFallback("5")
    waits = []
    for _ in range(6):
        waits.append((versions.current, versions.patience_s))
        assert versions.failed(reason_codes.NO_ANSWER)
    brief, patient = [("5", BRIEF_S), ("3.1.1", BRIEF_S)], [("5", PATIENT_S), ("3.1.1", PATIENT_S)]
    assert waits == brief + patient * 2


def test_an_unreachable_broker_says_nothing_about_versions() -> None:
    versions = VersionFallback("5")
    assert not any(versions.failed(reason_codes.UNREACHABLE) for _ in range(10))


def test_a_broker_that_spoke_a_version_is_not_doubted_for_a_while() -> None:
    versions = VersionFallback("5")
    versions.connected(NOW_S)
    assert versions.patience_s == PATIENT_S
    assert not any(versions.failed(reason_codes.SILENCE) for _ in range(SILENCES_PROVEN_MAX - 1))
    assert versions.failed(reason_codes.SILENCE), "it may be another broker now"
    assert versions.current == "3.1.1"
    versions.connected(NOW_S)
    assert not any(versions.failed(reason_codes.NO_ANSWER) for _ in range(SILENCES_PROVEN_MAX - 1))
    assert versions.failed(reason_codes.NO_ANSWER)
    assert versions.current == "5"


def test_a_configured_3_1_1_stays() -> None:
    versions = VersionFallback("3.1.1", Spoken("5", NOW_S))
    for code in (reason_codes.SILENCE, reason_codes.NO_ANSWER, reason_codes.UNSUPPORTED_VERSION):
        assert not any(versions.failed(code) for _ in range(50))
    assert (versions.current, versions.fell_back) == ("3.1.1", False)
    assert versions.patience_s == PATIENT_S


def test_what_was_spoken_is_remembered_for_a_day() -> None:
    first = VersionFallback("5")
    first.failed(reason_codes.NO_ANSWER)
    spoken = first.connected(NOW_S)
    assert spoken == Spoken("3.1.1", NOW_S)
    again = VersionFallback("5", spoken)
    assert (again.begin(NOW_S + 60), again.fell_back, again.patience_s) == (
        "3.1.1",
        True,
        PATIENT_S,
    )
    assert again.connected(NOW_S + 60) == spoken, "the day does not begin anew"
    assert (again.begin(NOW_S + RECHECK_S), again.patience_s) == ("5", BRIEF_S)
    assert again.connected(NOW_S + RECHECK_S) == Spoken("5", NOW_S + RECHECK_S)


def test_a_clock_that_went_back_doubts_what_was_spoken() -> None:
    assert VersionFallback("5", Spoken("3.1.1", NOW_S)).begin(0.0) == "5"


def test_brokers_are_remembered_in_a_file_and_damage_counts_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "uplink.json"
    memory = BrokerMemory(path)
    assert memory.recall("a:1") is None
    for number in range(40):
        memory.record(f"b:{number}", Spoken("3.1.1", NOW_S + number))
    assert BrokerMemory(path).recall("b:39") == Spoken("3.1.1", NOW_S + 39)
    assert BrokerMemory(path).recall("b:0") is None, "there is a limit"
    written = path.stat().st_mtime_ns
    memory.record("b:39", Spoken("3.1.1", NOW_S + 39))
    assert path.stat().st_mtime_ns == written, "nothing new, nothing written"
    for damage in (b"", b"{", b"\xff", b'{"b:39":{"version":"7","at_s":1}}', b"[" * 100_000):
        path.write_bytes(damage)
        assert BrokerMemory(path).recall("b:39") is None
    BrokerMemory(tmp_path / "absent" / "uplink.json").record("a:1", Spoken("5", NOW_S))


# ---- rivalry ------------------------------------------------------------------------------------


def ends(
    rivalry: ClientIdConflict,
    *oldest: int | None,
    code: int = reason_codes.SILENCE,
    lived_s: float = 1.0,
) -> list[bool]:
    told = []
    for number, position in enumerate(oldest):
        rivalry.connected(number * 1000.0)
        told.append(rivalry.lost(code, position, number * 1000.0 + lived_s))
    return told


def test_a_session_taken_over_is_news_once_and_a_hint_until_it_is_calm() -> None:
    rivalry = ClientIdConflict()
    assert ends(rivalry, None, None, code=reason_codes.TAKEN_OVER) == [True, False]
    assert "throws the other out" in rivalry.hint("covey-a")
    rivalry.connected(5000.0)
    assert rivalry.is_suspected(5000.0 + CALM_S - 1)
    assert not rivalry.is_suspected(5000.0 + CALM_S)


def test_short_connections_that_are_closed_without_a_reason_look_like_a_rival() -> None:
    rivalry = ClientIdConflict()
    assert ends(rivalry, *[None] * (ENDS_MAX + 1)) == [False] * (ENDS_MAX - 1) + [True, False]
    assert "'covey-a'" in rivalry.hint("covey-a")
    busy = ClientIdConflict()
    assert any(ends(busy, 1, 5, 9, 14)), "each time with other readings in flight"


@pytest.mark.parametrize(
    ("oldest", "code", "lived_s"),
    [
        ([7] * 20, reason_codes.SILENCE, 1.0),  # a reading that kills
        ([None] * 20, reason_codes.KEEP_ALIVE_TIMEOUT, 1.0),  # a network that loses packets
        ([None] * 20, 0x8B, 1.0),  # a broker that is shut down
        ([None] * 20, reason_codes.SILENCE, SHORT_S),  # a broker that is restarted now and then
    ],
)
def test_other_ends_do_not(oldest: list[int | None], code: int, lived_s: float) -> None:
    assert not any(ends(ClientIdConflict(), *oldest, code=code, lived_s=lived_s))


# ---- quarantine ---------------------------------------------------------------------------------


def test_a_reading_blamed_again_and_again_is_given_up() -> None:
    quarantine = PoisonDetector()
    outcomes = []
    for position in range(100, 100 + rules.BLAMED_MAX):
        outcomes.append(quarantine.refused(7, reason_codes.TOPIC_NAME_INVALID))
        quarantine.delivered(position)
    assert outcomes[:-1] == [[]] * (rules.BLAMED_MAX - 1)
    assert outcomes[-1] == [(7, "refused 3 times: topic name invalid")]


def test_failures_must_be_identical() -> None:
    quarantine = PoisonDetector()
    for position in range(100, 110, 2):
        assert quarantine.refused(7, reason_codes.TOPIC_NAME_INVALID) == []
        quarantine.delivered(position)
        assert quarantine.refused(7, reason_codes.PAYLOAD_INVALID) == []
        quarantine.delivered(position + 1)


@pytest.mark.parametrize(
    "code",
    [
        reason_codes.NOT_AUTHORIZED,
        reason_codes.QUOTA_EXCEEDED,
        0x80,
        reason_codes.PAYLOAD_INVALID,
        reason_codes.PACKET_TOO_LARGE,
    ],
)
def test_while_everything_is_refused_nothing_is_given_up(code: int) -> None:
    quarantine = PoisonDetector()
    assert not any(quarantine.refused(7, code) for _ in range(1000))


def test_a_reading_refused_while_others_pass_is_given_up_late() -> None:
    quarantine = PoisonDetector()
    burials = []
    for position in range(100, 100 + rules.REFUSED_MAX):
        burials.append(quarantine.refused(7, reason_codes.NOT_AUTHORIZED))
        quarantine.delivered(position)
    assert [bool(b) for b in burials] == [False] * (rules.REFUSED_MAX - 1) + [True]


def test_a_delivery_forgives_refusals() -> None:
    quarantine = PoisonDetector()
    for position in (100, 101):
        quarantine.refused(7, reason_codes.TOPIC_NAME_INVALID)
        quarantine.delivered(position)
    quarantine.delivered(7)
    assert quarantine.refused(7, reason_codes.TOPIC_NAME_INVALID) == []


def test_an_idle_connection_may_die_without_suspicion() -> None:
    quarantine = PoisonDetector()
    quarantine.lost([], reason_codes.SILENCE)
    assert quarantine.window(20) == 20


# ---- window -------------------------------------------------------------------------------------


def test_the_window_knows_its_oldest() -> None:
    window = InFlight()
    assert window.oldest_age_s(100.0) == 0.0
    window.add(1, 10.0)
    window.add(2, 11.0)
    assert window.oldest_age_s(15.0) == 5.0
    assert window.remove(1)
    assert not window.remove(1)
    assert window.oldest_age_s(15.0) == 4.0
    assert len(window) == 1
    assert window.clear() == [2]
    assert len(window) == 0


# ---- templates ----------------------------------------------------------------------------------


def accepted(value: Any = 21.5, **fields: Any) -> Accepted:
    reading = Reading("attic/t", value, "C", 1_700_000_000_123_456_789, {"a": "b"}, **fields)
    return Accepted(3, "0000000000c0ffee-0000000100000000-3", reading)


def test_the_default_payload() -> None:
    template = Template("covey/{cluster}/{node}/{sensor}", "", PLACE)
    message = template.message(accepted())
    assert message.topic == "covey/home/pi-attic/attic/t"
    assert json.loads(message.payload) == {
        "id": "0000000000c0ffee-0000000100000000-3",
        "sensor": "attic/t",
        "value": 21.5,
        "unit": "C",
        "time_ms": 1_700_000_000_123,
        "node": "pi-attic",
        "tags": {"a": "b"},
    }


@pytest.mark.parametrize(
    ("value", "expected"), [(21.5, "21.5"), (3, "3"), (True, "true"), ("open", "open")]
)
def test_a_payload_template(value: Any, expected: str) -> None:
    template = Template("{node_id}", "{value} {unit} {time_ns} {time_ms} {{{tags}}} {id}", PLACE)
    message = template.message(accepted(value))
    assert message.topic == "0000000000c0ffee"
    assert message.payload.decode() == (
        f'{expected} C 1700000000123456789 1700000000123 {{{{"a": "b"}}}} {accepted().id}'
    )


@pytest.mark.parametrize(
    ("topic", "payload", "says"),
    [
        ("covey/{sensr}", "", "{sensr} is none of its fields"),
        ("covey/{sensor", "", "topic template"),
        ("covey/{sensor!r}", "", "none of its fields"),
        ("covey/{}", "", "none of its fields"),
        ("covey/{value}", "", "{value} is none of its fields"),
        ("", "", "cannot publish"),
        ("a/+/{sensor}", "", "cannot publish"),
        ("a/#", "", "cannot publish"),
        ("$SYS/{sensor}", "", "cannot publish"),
        ("x" * 40_000, "", "too long"),
        ("t", "{value:.2f}", "payload template"),
        ("t", "{valu}", "payload template"),
    ],
)
def test_templates_that_are_refused_at_the_start(topic: str, payload: str, says: str) -> None:
    with pytest.raises(AgentError) as caught:
        Template(topic, payload, PLACE)
    assert says in str(caught.value)
    assert caught.value.hint
    assert caught.value.status == BAD_CONFIG


def test_a_node_name_with_a_wildcard_is_refused() -> None:
    with pytest.raises(AgentError, match="cannot publish"):
        Template("{node}", "", TemplateContext("home", "a+b", "0"))


# ---- sizes and reasons --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "qos", "version", "expected"),
    [(0, 0, "3.1.1", 5), (0, 1, "3.1.1", 7), (0, 1, "5", 8), (121, 1, "5", 129), (122, 1, "5", 131),
     (16_379, 0, "5", 16_386), (16_380, 0, "5", 16_388)],
)  # fmt: skip
def test_the_size_of_a_publish(payload: int, qos: int, version: Any, expected: int) -> None:
    assert publish_bytes(Message("t", b"x" * payload), qos, version) == expected


def test_reason_names_and_labels() -> None:
    assert reason_codes.name_of(0x87) == "not authorized"
    assert reason_codes.label_of(0x87) == "not_authorized"
    assert reason_codes.name_of(0xB0) == "reason code 0xb0"
    assert reason_codes.is_good(0x10)
    assert not reason_codes.is_good(0x80)
