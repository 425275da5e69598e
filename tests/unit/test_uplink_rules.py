"""The pure parts of the uplink: back-off, version choice, quarantine, window, templates, sizes."""

import json
import random
from typing import Any

import pytest

from agent.exits import BAD_CONFIG, AgentError
from agent.store.outbox import Accepted
from agent.uplink import quarantine as rules
from agent.uplink import reasons
from agent.uplink.backoff import Backoff
from agent.uplink.link import publish_bytes
from agent.uplink.quarantine import Quarantine
from agent.uplink.template import Message, Place, Template
from agent.uplink.versions import VersionChoice
from agent.uplink.window import Window
from edge_apps.reading import Reading

PLACE = Place("home", "pi-attic", "0000000000c0ffee")


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


def test_reset_begins_with_short_waits_and_slow_is_long() -> None:
    backoff = Backoff(random.Random(1), 1.0, 60.0)
    assert all(30.0 <= backoff.slow_s() <= 60.0 for _ in range(20))
    backoff.reset()
    assert backoff.next_s() <= 3.0


# ---- versions -----------------------------------------------------------------------------------


def test_an_answer_about_the_version_is_believed_at_once() -> None:
    versions = VersionChoice("5")
    assert versions.failed(reasons.UNSUPPORTED_VERSION)
    assert (versions.current, versions.fell_back) == ("3.1.1", True)
    versions.connected()
    assert not versions.failed(reasons.SILENCE)
    assert versions.current == "3.1.1"


def test_silence_counts_only_twice_in_a_row_and_is_taken_back() -> None:
    versions = VersionChoice("5")
    assert not versions.failed(reasons.SILENCE)
    assert not versions.failed(reasons.BAD_CREDENTIALS)
    assert not versions.failed(reasons.SILENCE)
    assert versions.failed(reasons.SILENCE)
    assert versions.current == "3.1.1"
    assert versions.failed(reasons.SILENCE)
    assert (versions.current, versions.fell_back) == ("5", False)


def test_an_unreachable_broker_says_nothing_about_versions() -> None:
    versions = VersionChoice("5")
    assert not any(versions.failed(reasons.UNREACHABLE) for _ in range(10))


def test_a_broker_that_spoke_version_5_is_not_doubted_for_its_silence() -> None:
    versions = VersionChoice("5")
    versions.connected()
    assert not any(versions.failed(reasons.SILENCE) for _ in range(10))


def test_a_configured_3_1_1_stays() -> None:
    versions = VersionChoice("3.1.1")
    assert not any(versions.failed(reasons.SILENCE) for _ in range(10))
    assert (versions.current, versions.fell_back) == ("3.1.1", False)


# ---- quarantine ---------------------------------------------------------------------------------


def test_a_reading_blamed_again_and_again_is_given_up() -> None:
    quarantine = Quarantine()
    outcomes = [quarantine.refused(7, reasons.TOPIC_NAME_INVALID) for _ in range(rules.BLAMED_MAX)]
    assert outcomes[:-1] == [[]] * (rules.BLAMED_MAX - 1)
    assert outcomes[-1] == [(7, "refused 3 times: topic name invalid")]


def test_failures_must_be_identical() -> None:
    quarantine = Quarantine()
    for _ in range(5):
        assert quarantine.refused(7, reasons.TOPIC_NAME_INVALID) == []
        assert quarantine.refused(7, reasons.PAYLOAD_INVALID) == []


@pytest.mark.parametrize("code", [reasons.NOT_AUTHORIZED, reasons.QUOTA_EXCEEDED, 0x80])
def test_while_everything_is_refused_nothing_is_given_up(code: int) -> None:
    quarantine = Quarantine()
    assert not any(quarantine.refused(7, code) for _ in range(1000))


def test_a_reading_refused_while_others_pass_is_given_up_late() -> None:
    quarantine = Quarantine()
    burials = []
    for position in range(100, 100 + rules.REFUSED_MAX):
        burials.append(quarantine.refused(7, reasons.NOT_AUTHORIZED))
        quarantine.delivered(position)
    assert [bool(b) for b in burials] == [False] * (rules.REFUSED_MAX - 1) + [True]


def test_a_delivery_forgives_refusals() -> None:
    quarantine = Quarantine()
    quarantine.refused(7, reasons.TOPIC_NAME_INVALID)
    quarantine.refused(7, reasons.TOPIC_NAME_INVALID)
    quarantine.delivered(7)
    assert quarantine.refused(7, reasons.TOPIC_NAME_INVALID) == []


def test_an_idle_connection_may_die_without_suspicion() -> None:
    quarantine = Quarantine()
    quarantine.lost([], reasons.SILENCE)
    assert quarantine.window(20) == 20


# ---- window -------------------------------------------------------------------------------------


def test_the_window_knows_its_oldest() -> None:
    window = Window()
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
        Template("{node}", "", Place("home", "a+b", "0"))


# ---- sizes and reasons --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "qos", "version", "expected"),
    [(0, 0, "3.1.1", 5), (0, 1, "3.1.1", 7), (0, 1, "5", 8), (121, 1, "5", 129), (122, 1, "5", 131),
     (16_379, 0, "5", 16_386), (16_380, 0, "5", 16_388)],
)  # fmt: skip
def test_the_size_of_a_publish(payload: int, qos: int, version: Any, expected: int) -> None:
    assert publish_bytes(Message("t", b"x" * payload), qos, version) == expected


def test_reason_names_and_labels() -> None:
    assert reasons.name_of(0x87) == "not authorized"
    assert reasons.label_of(0x87) == "not_authorized"
    assert reasons.name_of(0xB0) == "reason code 0xb0"
    assert reasons.is_good(0x10)
    assert not reasons.is_good(0x80)
